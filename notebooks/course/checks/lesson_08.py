"""Checks of the exercises of lesson 8: depthwise convolution, gates, one-sided padding, rounding, a whole block."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from npformer import ops
from npformer.models.efficientnet import BlockShape, EfficientNetBlock, EfficientNetConfig, round_filters
from npformer.ops.window import same_padding

from ..exercises import check, expect, expect_array


@check("k times k shifted pictures, each multiplied once and added: that is the package's op, without its options.")
def depthwise(answer: Callable[..., Any]) -> None:
    rng = np.random.default_rng()
    for channels, height, width, k in ((3, 6, 7, 3), (2, 9, 5, 5), (4, 3, 4, 1)):
        x, weight = rng.normal(size=(channels, height, width)), rng.normal(size=(channels, k, k))
        kept = x.copy()
        got = answer(x, weight)
        expect(np.array_equal(x, kept), "your function changes the picture it is given; pad a copy, add into zeros.")
        half = k // 2
        late = ((max(half - 1, 0), half + 1),) * 2
        truth = _depthwise(x, weight, half)
        hints: dict[str, Any] = {
            "the kernel is flipped: position (i, j) of the kernel should meet the pixel i rows down and j to the "
            "right (a cross-correlation), not the mirrored one.": _depthwise(x, weight[:, ::-1, ::-1], half),
            "rows and columns of the kernel are exchanged: weight[c, i, j] goes with i rows down, j to the "
            "right.": _depthwise(x, weight.swapaxes(1, 2), half),
            "all channels are added up into one: a depthwise convolution never mixes channels.": np.broadcast_to(
                truth.sum(0), truth.shape
            ),
            "every channel is filtered with the first channel's kernel; take weight[:, i, j], one number per "
            "channel.": _depthwise(x, np.broadcast_to(weight[:1], weight.shape), half),
            "the border is filled with copies of the edge; it should be zeros.": _depthwise(
                np.pad(x, ((0, 0), (half, half), (half, half)), mode="edge"), weight, 0
            ),
            "the picture wraps around: what leaves on one side comes in on the other (np.roll does that). Pad with "
            "zeros first.": _depthwise(np.pad(x, ((0, 0), (half, half), (half, half)), mode="wrap"), weight, 0),
            "the shifts begin one pixel too late: with a border of k//2, kernel position (0, 0) meets "
            "the padded picture from its first row and column on.": _depthwise(x, weight, late),
        }
        if np.ndim(got) == 3 and np.shape(got) != truth.shape and np.shape(got)[1] < height:
            expect(False, f"the result shrank to {np.shape(got)}: pad k//2 zeros on every side to keep {truth.shape}.")
        expect_array(got, truth, f"your result for a {k}x{k} kernel", hints=hints if k > 1 else None)


def _depthwise(x: np.ndarray, weight: np.ndarray, padding: Any) -> np.ndarray:
    return ops.depthwise_conv2d(x, np.ascontiguousarray(weight)[:, None], padding=padding)


@check("the picture looks at itself once, as a whole, and decides how much of each channel goes on.")
def gates(answer: Callable[..., Any]) -> None:
    rng = np.random.default_rng()
    x = rng.normal(size=(2, 10, 5, 3)) + rng.normal(size=(2, 10, 1, 1))
    reduce, reduce_bias = rng.normal(size=(3, 10)), rng.normal(size=3)
    expand, expand_bias = rng.normal(size=(10, 3)), rng.normal(size=10)
    mean, peak = x.mean((2, 3)), x.max((2, 3))

    def outer(hidden: np.ndarray) -> np.ndarray:
        return hidden @ expand.T + expand_bias

    def inner(squeeze: np.ndarray) -> np.ndarray:
        return squeeze @ reduce.T + reduce_bias

    truth, sigmoid, silu = ops.sigmoid(outer(ops.silu(inner(mean)))), ops.sigmoid, ops.silu
    hints = {
        "the squeeze takes each channel's maximum; it should take the mean.": sigmoid(outer(silu(inner(peak)))),
        "the squeeze takes the sum over the map; divide by H*W, so that it does not depend on the size of the "
        "picture.": sigmoid(outer(silu(inner(x.sum((2, 3)))))),
        "there is no sigmoid at the end, so your gates are not between 0 and 1.": outer(silu(inner(mean))),
        "the SiLU between the two layers is missing; without it they are one linear layer.": sigmoid(
            outer(inner(mean))
        ),
        "between the layers stands a ReLU (as in the SE paper); EfficientNet has SiLU there.": sigmoid(
            outer(np.maximum(inner(mean), 0))
        ),
        "between the layers stands a sigmoid; SiLU is z * sigmoid(z).": sigmoid(outer(sigmoid(inner(mean)))),
        "a SiLU stands at the end, where a sigmoid should; gates lie between 0 and 1.": silu(outer(silu(inner(mean)))),
        "the biases are missing.": sigmoid(silu(mean @ reduce.T) @ expand.T),
        "the mean runs over the batch too: each picture has gates of its own.": np.broadcast_to(
            sigmoid(outer(silu(inner(x.mean((0, 2, 3))[None])))), truth.shape
        ),
        "a softmax makes the channels compete; a sigmoid decides about each channel on its own.": ops.softmax(
            outer(silu(inner(mean))), dim=-1
        ),
    }
    got = answer(x, reduce, reduce_bias, expand, expand_bias)
    if np.shape(got) == x.shape:
        expect(False, "you return the gated map; return the gates themselves, of shape (B, C).")
    if np.shape(got) == (2, 10, 1, 1):
        expect(False, "your gates have the shape (B, C, 1, 1); return (B, C): average without keepdims.")
    expect_array(got, truth, "your array of gates", hints=hints)


@check("odd totals are split unevenly, and the pixel too many goes below and to the right: TensorFlow's SAME.")
def same_amounts(answer: Callable[..., Any]) -> None:
    for n, k, s in (
        (6, 3, 2),
        (7, 3, 2),
        (8, 5, 2),
        (9, 5, 2),
        (10, 3, 1),
        (11, 7, 3),
        (12, 1, 2),
        (1, 3, 2),
        (5, 2, 1),
    ):
        case = f"same_amounts({n}, {k}, {s})"
        got = answer(n, k, s)
        expect(
            got is not None and got is not Ellipsis,
            f"{case} gives nothing back yet; return two whole numbers, before and after.",
        )
        expect(np.shape(got) == (2,), f"{case} should be two numbers, before and after; yours is {got!r}.")
        before, after = got
        truth = same_padding((n, n), k, s)[0]
        if (before, after) == truth:
            continue
        expect(min(before, after) >= 0, f"{case} must not be negative: a 1x1 kernel of stride 2 needs no padding.")
        expect(
            (after, before) != truth,
            f"{case} should be {truth}, yours is ({before}, {after}): the odd pixel goes after (below, right), not "
            "before.",
        )
        wrong_out = max((n // s - 1) * s + k - n, 0)
        expect(
            (before, after) != (wrong_out // 2, wrong_out - wrong_out // 2),
            f"{case} should be {truth}, yours is ({before}, {after}): the output has ceil(n / s) pixels, not "
            "floor(n / s).",
        )
        expect(
            (before, after) != (k // 2, k // 2),
            f"{case} should be {truth}, yours is PyTorch's symmetric k//2: work out how many pixels are missing in "
            "all, then split.",
        )
        total = max(k - s, 0)
        expect(
            (before, after) != (total // 2, total - total // 2),
            f"{case} should be {truth}, yours is ({before}, {after}): k - s holds only where s divides n.",
        )
        expect(
            isinstance(before, int | np.integer) and isinstance(after, int | np.integer),
            f"{case} should be whole numbers, yours are {before!r} and {after!r}.",
        )
        expect(False, f"{case} should be {truth}, yours is ({before}, {after}).")


@check("multiples of 8, nearest first, and one step up where rounding took away more than a tenth.")
def rounding(answer: Callable[..., Any]) -> None:
    cases = [(c, w) for c in (16, 24, 32, 40, 80, 112, 192, 320, 1280) for w in (1.0, 1.1, 1.4, 2.2, 0.5, 0.3)]
    cases += [(52, 1.0), (11, 1.0), (3, 1.0)]  # a half step; more than a tenth lost; below one step
    for channels, width in cases:
        case, truth, wide = f"filters({channels}, {width})", round_filters(channels, width), channels * width
        got = answer(channels, width)
        expect(got is not None and got is not Ellipsis, f"{case} gives nothing back yet; return a whole number.")
        if got == truth:
            expect(
                isinstance(got, int | np.integer),
                f"{case} should be the whole number {truth}, yours is {got!r}; use // or int.",
            )
            continue
        nearest = max(8, int(wide + 4) // 8 * 8)
        said = f"{case} should be {truth}, yours is {got}"
        expect(got != 0, f"{said}: there must be at least one step of 8 channels.")
        expect(got != nearest, f"{said}: that is less than nine tenths of {wide:g}, so go one step up.")
        expect(
            wide % 8 != 4 or got != round(wide / 8) * 8,
            f"{said}: Python's round takes a half to the even neighbour; a half goes up here: floor(wide / 8 + 1/2).",
        )
        expect(got != int(wide) // 8 * 8, f"{said}: that is rounded down; round to the nearest.")
        expect(got != -int(-wide // 8) * 8, f"{said}: that is rounded up; round to the nearest.")
        expect(False, f"{said}.")


@check("widen, filter, gate, narrow: that is every block of every EfficientNet.")
def inverted_bottleneck(answer: Callable[..., Any]) -> None:
    rng = np.random.default_rng()
    for channels, out, kernel, stride, first in ((8, 8, 3, 1, False), (8, 16, 5, 2, True), (8, 16, 3, 1, True)):
        shape = BlockShape(0, 0, channels, out, kernel, stride, 3, first)
        block = _random_block(EfficientNetConfig(), shape, rng)
        x = rng.normal(size=(2, channels, 6, 8))
        adds = not first
        got = answer(x, block.state_dict(), stride, adds)
        what = f"your block (kernel {kernel}, stride {stride}, {'with' if adds else 'without'} the input added)"
        expect_array(got, block(x), what, hints=_mistakes(block, shape, x))


def _random_block(config: EfficientNetConfig, shape: BlockShape, rng: np.random.Generator) -> EfficientNetBlock:
    block = EfficientNetBlock(config, shape).astype(np.float64)
    state = {}
    for name, value in block.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        state[name] = rng.uniform(0.01, 1, value.shape) if name.endswith("var") else rng.normal(size=value.shape)
    block.load_state_dict(state)
    return block


def _mistakes(block: EfficientNetBlock, shape: BlockShape, x: np.ndarray) -> dict[str, Any]:
    """Return the outputs of a block built with one mistake, by the sentence that describes it."""

    def built(padding: str = "hf-static", eps: float = 1e-3, first: bool = shape.is_first) -> EfficientNetBlock:
        values = {**vars(shape), "is_first": first}
        twin = EfficientNetBlock(EfficientNetConfig(padding=padding, batch_norm_eps=eps), BlockShape(**values))
        return twin.astype(np.float64).load_state_dict(block.state_dict())

    wide = block.expansion(x)
    norms = block.expansion.expand_bn(block.expansion.expand_conv(x))
    project = block.projection
    after = ops.silu(project.project_bn(project.project_conv(block.squeeze_excite(block.depthwise_conv(wide)))))
    unbent = block.depthwise_conv.depthwise_norm(block.depthwise_conv.depthwise_conv(_padded(block, shape, wide)))
    filtered = block.depthwise_conv(wide)
    hints = {
        "there is an activation after the projection; the narrow map goes on as it is.": after
        + (0 if shape.is_first else x),
        "the norms divide by sqrt(var + 1e-5), PyTorch's default; this network's eps is 1e-3.": built(eps=1e-5)(x),
        "the norms divide by sqrt(var) alone; this network's eps is 1e-3.": built(eps=0.0)(x),
        "the squeeze-and-excitation is missing.": project(x, filtered),
        "the gates themselves go on; the map has to be multiplied by them.": project(
            x, block.squeeze_excite(filtered) / np.where(filtered == 0, 1, filtered)
        ),
        "the activation after the expansion is missing.": project(
            x, block.squeeze_excite(block.depthwise_conv(norms))
        ),
        "the activation after the depthwise convolution is missing.": project(x, block.squeeze_excite(unbent)),
    }
    if shape.stride == 2:
        hints["the padding at stride 2 is symmetric; it should be k//2 - 1 above and left, k//2 below and right."] = (
            built("symmetric")(x)
        )
    if not shape.is_first:
        hints["the block's input is not added, although adds_input is true."] = built(first=True)(x)
    elif shape.stride == 1 and shape.in_channels == shape.out_channels:
        hints["the block's input is added, although adds_input is false."] = built(first=False)(x)
    return hints


def _padded(block: EfficientNetBlock, shape: BlockShape, wide: np.ndarray) -> np.ndarray:
    return block.depthwise_conv.depthwise_conv_pad(wide) if shape.stride == 2 else wide
