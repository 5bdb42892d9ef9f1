"""The common part of convolution and pooling: padding, the size of the result, and the kernel's views of the picture.

A kernel of kH x kW positions slides over a picture. Equivalently, each *position* of the kernel sees one shifted,
strided copy of the picture; `taps` iterates over those kH*kW views. Convolution multiplies them by weights and adds,
average pooling adds, maximum pooling takes the larger.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from numbers import Integral

import numpy as np

from ._check import Array

Pair = tuple[int, int]
Pads = tuple[Pair, Pair]
Padding = int | Sequence[int] | Sequence[Sequence[int]] | str


def pair(name: str, value: int | Sequence[int], minimum: int) -> Pair:
    """Read one number or two as (vertical, horizontal). Raises TypeError or ValueError."""
    values = (value, value) if isinstance(value, Integral) else tuple(value) if np.iterable(value) else ()
    if len(values) == 1:
        values = (values[0], values[0])
    if len(values) != 2 or not all(isinstance(v, Integral) and not isinstance(v, bool) for v in values):
        raise TypeError(f"{name} must be a whole number or two of them, got {value!r}")
    if min(values) < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {value!r}")
    return int(values[0]), int(values[1])


def resolve_padding(padding: Padding, kernel: Pair, stride: Pair, dilation: Pair) -> Pads:
    """Convert every form of padding to ((top, bottom), (left, right)).

    An int pads all four sides, a pair (vertical, horizontal), two pairs each side on its own; "valid" is no padding
    and "same" keeps the size: dilation * (k - 1) in all, the odd pixel below and to the right. As in torch, "same" is
    refused for strides above 1; `same_padding` computes TensorFlow's SAME there.

    Raises TypeError or ValueError.
    """
    if isinstance(padding, str):
        if padding == "valid":
            return (0, 0), (0, 0)
        if padding != "same":
            raise ValueError(f'padding must be numbers, "same" or "valid", got {padding!r}')
        if stride != (1, 1):
            raise ValueError(f'padding="same" needs stride 1, got {stride}; for TensorFlow\'s SAME use same_padding()')
        totals = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return (totals[0] // 2, totals[0] - totals[0] // 2), (totals[1] // 2, totals[1] - totals[1] // 2)
    if isinstance(padding, Sequence) and len(padding) == 2 and not any(isinstance(p, Integral) for p in padding):
        return pair("padding", padding[0], 0), pair("padding", padding[1], 0)  # type: ignore[arg-type]
    vertical, horizontal = pair("padding", padding, 0)  # type: ignore[arg-type]
    return (vertical, vertical), (horizontal, horizontal)


def same_padding(size: Pair, kernel_size: int | Pair, stride: int | Pair = 1, dilation: int | Pair = 1) -> Pads:
    """Return TensorFlow's SAME for an input of `size` = (H, W): padding for an output of ceil(size / stride) pixels.

    total = max((ceil(n / s) - 1) * s + d * (k - 1) + 1 - n, 0) per axis, of which total // 2 goes before and the rest
    after. One-sided where it is odd: at stride 2 an even picture gets its extra pixel below and to the right, where
    PyTorch's symmetric padding would put it on both sides and shift the whole sampling grid.

    Returns ((top, bottom), (left, right)), which `conv2d` takes as `padding`. Raises TypeError or ValueError.
    Source: EfficientNet's reference implementation; see TensorFlow's guide to tf.nn padding.
    """
    pads = []
    kernel = pair("kernel_size", kernel_size, 1)
    step, spread = pair("stride", stride, 1), pair("dilation", dilation, 1)
    for n, k, s, d in zip(pair("size", size, 1), kernel, step, spread, strict=True):
        total = max((-(-n // s) - 1) * s + d * (k - 1) + 1 - n, 0)
        pads.append((total // 2, total - total // 2))
    return pads[0], pads[1]


def output_size(size: int, kernel: int, stride: int, pads: Pair, dilation: int, ceil_mode: bool = False) -> int:
    """Return the number of positions of a kernel: floor((n + p0 + p1 - d * (k - 1) - 1) / s) + 1.

    `ceil_mode` rounds up instead, but drops a last window that would begin beyond the picture and its left padding
    (torch's rule). Raises ValueError where the kernel does not fit at all.
    """
    reach = dilation * (kernel - 1) + 1
    if size < 1:
        raise ValueError(f"x is too small: it has {size} pixels along one axis, and padding alone makes no picture")
    room = size + sum(pads) - reach
    if room < 0 and not (ceil_mode and room > -stride):
        raise ValueError(f"x is too small: {size} pixels padded by {pads} cannot hold a kernel that spans {reach}")
    count = room // stride + 1
    if ceil_mode:
        count = -(-room // stride) + 1
        if (count - 1) * stride >= size + pads[0]:
            count -= 1
    if count < 1:
        raise ValueError(f"x is too small: a kernel that spans {reach} of {size} pixels leaves no output")
    return count


def output_sizes(size: Pair, kernel: Pair, stride: Pair, pads: Pads, dilation: Pair, ceil_mode: bool = False) -> Pair:
    """Return `output_size` for both axes: (H, W) -> (H', W')."""
    height, width = (output_size(size[a], kernel[a], stride[a], pads[a], dilation[a], ceil_mode) for a in (0, 1))
    return height, width


def pad2d(x: Array, pads: Pads, value: float = 0.0) -> Array:
    """Pad the last two axes with `value`: (..., H, W) -> (..., top + H + bottom, left + W + right).

    Returns `x` itself where the padding is zero, so that an unpadded convolution copies nothing.
    """
    (top, bottom), (left, right) = pads
    if not (top or bottom or left or right):
        return x
    height, width = x.shape[-2:]
    out = np.full((*x.shape[:-2], top + height + bottom, left + width + right), value, x.dtype)
    out[..., top : top + height, left : left + width] = x
    return out


def taps(x: Array, kernel: Pair, size: Pair, stride: Pair, dilation: Pair) -> Iterator[tuple[int, int, Array]]:
    """Yield (i, j, view) for every kernel position: the (..., H', W') pixels at position (i, j). No copies."""
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            top, left = i * dilation[0], j * dilation[1]
            bottom, right = top + stride[0] * (size[0] - 1) + 1, left + stride[1] * (size[1] - 1) + 1
            yield i, j, x[..., top : bottom : stride[0], left : right : stride[1]]
