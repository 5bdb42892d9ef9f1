"""Mistakes in convolutions: reordered weights, and every wrong padding of a map. No model here has dilated ones."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ... import ops
from ...nn import Conv2d
from ...ops import Array
from ...ops.window import Pads, Pair, output_sizes, pad2d, pair, resolve_padding
from ..site import Alternative, Cause, Site
from .rule import Rules, instead

BORDERS = {
    "pad-edge": ("edge", "border pixels repeated around the map instead of zeros"),
    "pad-reflect": ("reflect", "the map mirrored at its border instead of zeros around it"),
    "pad-wrap": ("wrap", "the opposite border's pixels around the map instead of zeros"),
}


def weights(site: Site, conv: Conv2d) -> Iterator[Alternative]:
    """Yield convolutions without bias, or with the kernel flipped or the channels reordered."""
    (x,), weight = site.inputs, conv.weight
    filters, channels, height, width = weight.shape

    def with_weight(changed: Array, bias: Array | None = conv.bias) -> Array:
        return ops.conv2d(x, changed, bias, conv.stride, conv.padding, conv.dilation, conv.groups)

    if conv.bias is not None:
        yield instead("conv-no-bias", "the convolution's bias left out", with_weight, weight, None)
    if height == width > 1 and max(x.shape[2:]) > 1:  # a kernel on a single pixel cannot be flipped
        text = "the kernel's height and width swapped"
        yield instead("conv-kernel-transposed", text, with_weight, weight.swapaxes(2, 3))
    if height * width > 1 and max(x.shape[2:]) > 1:
        text = "the kernel rotated by 180 degrees (true convolution instead of cross-correlation)"
        yield instead("conv-kernel-flipped", text, with_weight, weight[:, :, ::-1, ::-1])
    if conv.groups == 1 and min(filters, channels) > 1:
        text = "the weight (out, in, height, width) read as (in, out, height, width) as it lies"
        turned = weight.reshape(channels, filters, height, width).swapaxes(0, 1)
        yield instead("conv-weight-transposed", text, with_weight, turned)
    if height * width > 1 and filters * channels > 1:
        text = "the weight (out, in, height, width) read as (height, width, in, out) as it lies"
        scrambled = weight.reshape(height, width, channels, filters).transpose(3, 2, 0, 1)
        yield instead("conv-weight-layout", text, with_weight, scrambled)


def own_padding(site: Site, conv: Conv2d) -> Iterator[Alternative]:
    """Yield other paddings of a convolution that pads its own input."""
    own = _own_pads(conv)
    if own != ((0, 0), (0, 0)):
        yield from padded_otherwise(site.inputs[0], own, conv, fitting=True)


def own_padding_misshapen(site: Site, conv: Conv2d) -> Iterator[Alternative]:
    """Yield other paddings that give another number of pixels, or none at all."""
    own = _own_pads(conv)
    if own != ((0, 0), (0, 0)):
        yield from padded_otherwise(site.inputs[0], own, conv, fitting=False)


def padded_otherwise(x: Array, own: Pads, conv: Conv2d, *, fitting: bool) -> Iterator[Alternative]:
    """Yield the convolution of `x`, the map before any padding, with paddings other than `own`.

    `fitting` selects the paddings that give as many pixels as the right one, or else those that do not.
    """
    size, kernel, stride = _size(x), _kernel(conv), pair("stride", conv.stride, 1)

    def count(pads: Pads) -> Pair:
        return output_sizes(size, kernel, stride, pads, (1, 1))

    def convolved(pads: Pads, border: str) -> Array:
        return ops.conv2d(padded(x, pads, border), conv.weight, conv.bias, stride, 0, conv.dilation, conv.groups)

    right = count(own)
    for cause, pads, border in wrong_paddings(size, kernel, stride, own):
        if _holds(size, kernel, pads) and (count(pads) == right) == fitting:
            # With as many pixels, only the kernel's start and the border pixels it covers can differ.
            moved = _before(pads) != _before(own)
            if moved or not fitting or (border != "constant" and _reaches_border(size, kernel, stride, own, right)):
                yield instead(cause.key, cause.text, convolved, pads, border)


def wrong_paddings(size: Pair, kernel: Pair, stride: Pair, own: Pads) -> Iterator[tuple[Cause, Pads, str]]:
    """Yield likely borders of a map of that size other than zeros as in `own`: cause, pads, NumPy's padding mode."""
    half_height, half_width = kernel[0] // 2, kernel[1] // 2
    symmetric = (half_height, half_height), (half_width, half_width)
    whole = tuple(-(-n // s) * s for n, s in zip(size, stride, strict=True))  # where SAME is one-sided
    one_sided = [ops.same_padding(n, kernel, stride) for n in (size, (whole[0], whole[1]))]
    candidates: list[tuple[str, str, Pads]] = [("pad-symmetric", "symmetric padding", symmetric)]
    candidates += [("pad-onesided", "one-sided (SAME) padding, more below and right,", pads) for pads in one_sided]
    candidates += [
        ("pad-other-side", "one-sided padding on the other side, more above and left,", (top[::-1], left[::-1]))
        for top, left in one_sided
    ]
    candidates.append(("pad-missing", "no padding", ((0, 0), (0, 0))))
    seen = [own]
    for key, name, pads in candidates:
        if pads not in seen:
            seen.append(pads)
            yield Cause(key, f"{name} {_shown(pads)} instead of {_shown(own)}"), pads, "constant"
    around = max(max(side) for side in own)
    for key, (border, text) in BORDERS.items():
        # Mirrored or wrapped, a map of one or two pixels equals a repeated or mirrored one.
        if around and max(size) >= {"edge": 1, "reflect": 2, "wrap": 3}[border]:
            yield Cause(key, text), own, border


def padded(x: Array, pads: Pads, border: str) -> Array:
    """Pad the last two axes in NumPy's mode `border`: (B, C, H, W) -> (B, C, H', W')."""
    return pad2d(x, pads) if border == "constant" else np.pad(x, ((0, 0), (0, 0), *pads), mode=border)  # type: ignore[call-overload]


def _own_pads(conv: Conv2d) -> Pads:
    return resolve_padding(conv.padding, _kernel(conv), pair("stride", conv.stride, 1), (1, 1))


def _kernel(conv: Conv2d) -> Pair:
    return conv.weight.shape[2], conv.weight.shape[3]


def _size(x: Array) -> Pair:
    return x.shape[2], x.shape[3]


def _before(pads: Pads) -> Pair:
    return pads[0][0], pads[1][0]


def _reaches_border(size: Pair, kernel: Pair, stride: Pair, pads: Pads, count: Pair) -> bool:
    """Return whether any position of the kernel covers a padded pixel; the last ones may lie beyond all of them."""
    return any(pads[a][0] or (count[a] - 1) * stride[a] + kernel[a] > size[a] for a in (0, 1))


def _holds(size: Pair, kernel: Pair, pads: Pads) -> bool:
    """Return whether the padded map is large enough for the kernel."""
    return all(n + sum(side) >= k for n, side, k in zip(size, pads, kernel, strict=True))


def _shown(pads: Pads) -> str:
    (top, bottom), (left, right) = pads
    if (top, bottom) == (left, right):
        return f"({top} before, {bottom} after)"
    return f"({top} above, {bottom} below, {left} left, {right} right)"


RULES: Rules = {(Conv2d, ""): (weights, own_padding)}
MISSHAPEN: Rules = {(Conv2d, ""): (own_padding_misshapen,)}
