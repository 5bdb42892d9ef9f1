"""Checks of the exercises of lesson 4, the pooling token mixer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from npformer import ops
from npformer.models.efficientformer import EfficientFormerConfig, EfficientFormerMeta4D

from .. import check, expect, expect_array


@check("two axes are enough: count the real rows, count the real columns, multiply.")
def window_counts(answer: Callable[[int, int, int], np.ndarray]) -> None:
    for height, width, size in ((4, 4, 3), (5, 8, 3), (6, 9, 5), (3, 2, 5)):
        whole = np.full((height, width), size * size)
        rows, columns = np.arange(height), np.arange(width)
        half = size // 2
        low = np.minimum(rows, half) + half + 1, np.minimum(columns, half) + half + 1
        truth = _counts(height, width, size)
        expect_array(
            answer(height, width, size),
            truth,
            f"window_counts({height}, {width}, {size})",
            hints={
                "every window counts all its pixels, the missing ones at the border too: that is count_include_pad="
                "True.": whole,
                "the top and the left border are right, but windows overhang at the bottom and on the right too.": (
                    np.outer(*low)
                ),
                f"a window of {size} reaches to {half} on each side of its middle, yours reaches to {size}.": _counts(
                    height, width, 2 * size + 1
                ),
                "the border is right where rows end, but columns end too (or the other way round).": np.outer(
                    _counts(height, 1, size)[:, 0], np.full(width, size)
                ),
            },
        )


@check("the mean over real pixels, minus the pixel itself: a mixer without a single weight.")
def mixer(answer: Callable[[np.ndarray], np.ndarray]) -> None:
    x = _random().standard_normal((2, 3, 5, 7))
    mean = ops.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
    padded = ops.avg_pool2d(x, 3, 1, 1)
    before = x.copy()
    got = answer(x)
    expect(bool((x == before).all()), "your mixer changes its input x; make a new array instead.")
    expect_array(
        got,
        ops.pool_mixer(x),
        "mixer(x)",
        hints={
            "that is the mean, right at the border too; the mixer is the mean minus x.": mean,
            "the sign is turned round: it is the mean minus x, not x minus the mean.": x - mean,
            "inside it is right, but at the border you divide by 9 where fewer pixels are real: 2 x 2 = 4 in a "
            "corner, 6 at an edge.": padded - x,
            "that is the mean with 9 as the divisor everywhere, and x is not subtracted.": padded,
            "that is the sum of the neighbourhood: divide it by how many pixels are real.": mean * _counts(5, 7, 3),
        },
    )
    single = np.full((1, 1, 1, 1), 5.0)
    expect_array(answer(single), np.zeros((1, 1, 1, 1)), "mixer of a picture of one pixel")


@check("a pooling block's first half is a depthwise convolution with one learned number per channel.")
def mixing_kernel(answer: Callable[[np.ndarray], np.ndarray]) -> None:
    rng = _random()
    scale = rng.standard_normal(5)
    share = np.broadcast_to(scale[:, None, None, None] / 9, (5, 1, 3, 3))

    def kernel(centre: np.ndarray) -> np.ndarray:
        made = share.copy()
        made[:, 0, 1, 1] = centre
        return made

    got = answer(scale)
    expect_array(
        got,
        kernel(1 - scale + scale / 9),
        "mixing_kernel(scale)",
        hints={
            "the centre lacks its own share of the mean: the pixel itself is one of the nine.": kernel(1 - scale),
            "that is the scaled mixer alone; the block adds x, which puts 1 more at the centre.": kernel(
                scale / 9 - scale
            ),
            "that adds the mean to x; the mixer is the mean minus x, so the centre loses the scale.": kernel(
                1 + scale / 9
            ),
            "that is the scaled mean alone: the centre also needs 1 for x itself, and -scale.": share,
            "the centre lacks the 1 of the residual, and the minus x is there without its scale.": kernel(
                scale / 9 - 1
            ),
        },
    )
    x = rng.standard_normal((2, 5, 6, 7))
    wanted = (x + scale[:, None, None] * ops.pool_mixer(x))[..., 1:-1, 1:-1]
    expect_array(ops.conv2d(x, np.asarray(got), groups=5), wanted, "a picture convolved with your kernel")


@check("information walks: one step of half a window per block, however many channels the MLP mixes.")
def blocks_to_cross(answer: Callable[[int, int], int]) -> None:
    for side, size in ((4, 3), (7, 3), (56, 3), (56, 5), (14, 5), (8, 7), (1, 3)):
        half = size // 2
        got = answer(side, size)
        truth = -(-(side - 1) // half)
        expect(
            isinstance(got, int | float | np.number),
            "blocks_to_cross should give back a number of blocks; put yours in the place of the three dots.",
        )
        if got == truth:
            continue
        called = f"blocks_to_cross({side}, {size})"
        expect(
            got != -(-side // half),
            f"{called}: from the first pixel to the last are {side - 1} steps, not {side}.",
        )
        expect(
            not (half > 1 and got == (side - 1) // half),
            f"{called}: a part of a step needs a whole block; round up, not down.",
        )
        expect(
            got != -(-(side // 2) // half),
            f"{called}: that brings the middle to both borders; from one corner to the other it is twice as far.",
        )
        expect(
            got != -(-(side - 1) // size),
            f"{called}: a window of {size} reaches {half} to each side of its middle, not {size}.",
        )
        expect(False, f"{called} is {truth}, yours is {got}.")


@check("it takes any mixer: attention, pooling, or nothing. That is what MetaFormer means.")
def metaformer_block(answer: Callable[..., np.ndarray]) -> None:
    rng = _random()
    channels = 4
    block = EfficientFormerMeta4D(EfficientFormerConfig(), channels).astype(np.float64)
    for _, module, name in block.named_arrays():
        value = getattr(module, name)
        if value.dtype == np.float64:
            drawn = rng.standard_normal(value.shape)
            setattr(module, name, drawn**2 + 0.5 if name == "running_var" else drawn)
    first, second = block.layer_scale_1, block.layer_scale_2
    x = rng.standard_normal((2, channels, 5, 7))
    s, t = first[:, None, None], second[:, None, None]
    mixers = {"ops.pool_mixer": ops.pool_mixer, "a mixer that shifts the picture": lambda v: np.roll(v, 1, 3)}
    for name, mix in mixers.items():
        mixed = x + s * mix(x)
        truth = block(x) if mix is ops.pool_mixer else mixed + t * block.mlp(mixed)
        pooled = x + s * ops.pool_mixer(x)
        expect_array(
            answer(x, mix, block.mlp, first, second),
            truth,
            f"your block with {name}",
            hints={
                "the MLP and the last addition should start from the mixed map, not from x.": x + t * block.mlp(x),
                "the MLP gets x; it should get the mixed map.": mixed + t * block.mlp(x),
                "the last addition adds x; the second residual goes around the MLP only, so add the mixed map.": (
                    x + t * block.mlp(mixed)
                ),
                "the second residual is missing: the MLP's result is added to the mixed map.": t * block.mlp(mixed),
                "the first residual is missing: the mixer's result is added to x.": (
                    s * mix(x) + t * block.mlp(s * mix(x))
                ),
                "the two layer scales are swapped: scale_1 belongs to the mixer.": (
                    (x + t * mix(x)) + s * block.mlp(x + t * mix(x))
                ),
                "that is the first half only; the MLP is missing.": mixed,
                "the layer scales are not used.": (x + mix(x)) + block.mlp(x + mix(x)),
                "it pools whatever mixer it is given; call the argument `mixer`.": pooled + t * block.mlp(pooled),
            },
        )


def _random() -> np.random.Generator:
    return np.random.default_rng()


def _counts(height: int, width: int, size: int) -> np.ndarray:
    """Count the real pixels per window: the sum of a map of ones."""
    ones = np.ones((1, 1, height, width))
    padded = np.pad(ones, ((0, 0), (0, 0), (size // 2,) * 2, (size // 2,) * 2))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), (2, 3))
    return windows.sum((-2, -1))[0, 0].astype(int)
