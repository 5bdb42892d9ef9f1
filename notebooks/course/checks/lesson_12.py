"""Checks of lesson 12: tools for the comparison of two libraries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from course.exercises import Wrong, check, expect, expect_array

Function = Callable[..., Any]


@check("differences are measured by the layer's size, zeros are no trouble, and NaN cannot hide.")
def relative_error(function: Function) -> None:
    rng = np.random.default_rng()
    truth = 50 * rng.standard_normal((3, 5))
    values = truth + 0.01 * rng.standard_normal((3, 5))
    truth[0, 0] = -np.abs(truth).max() - 1  # the largest value and the largest difference are negative,
    values[0, 0] = truth[0, 0] - 0.1  # so that forgetting abs shows
    difference, size = np.abs(values - truth), np.abs(truth)
    hints = {
        "this is the absolute difference; divide it by the largest absolute value of the truth.": difference.max(),
        "each difference is divided by its own value; divide the largest by the largest of the whole layer.": (
            (difference / size).max()
        ),
        "this is the mean difference; the largest one was asked for.": difference.mean() / size.max(),
        "the largest value was taken without abs: the largest may be negative.": difference.max() / truth.max(),
        "the differences were taken without abs: a negative one may be the largest.": (
            (values - truth).max() / size.max()
        ),
        "the difference is divided by the mean size; divide by the largest.": difference.max() / size.mean(),
        "the difference is divided by the largest of the values; the truth is the measure.": (
            difference.max() / np.abs(values).max()
        ),
    }
    wanted = difference.max() / size.max()
    expect_array(function(values, truth), wanted, "the relative error", hints=hints, tolerance=1e-12)
    with np.errstate(all="ignore"):
        zeros = function(np.zeros(4), np.zeros(4))
        broken = function(np.array([1.0, np.nan]), np.ones(2))
    expect(not np.isnan(zeros), "two layers of zeros give NaN: nothing divided by nothing. They are equal, so 0.")
    expect_array(zeros, 0.0, "the error between zeros and zeros")
    expect(
        not np.isnan(broken), "values with a NaN give NaN, which no comparison with a tolerance catches; give np.inf."
    )
    expect(broken == np.inf, f"values with a NaN give {broken:g}; they should give np.inf.")
    expect(function(np.ones(2), np.zeros(2)) > 1, "values of 1 where the truth is 0 should give something huge.")


@check("names pair off at dots, the longest beginning wins, and nothing gets lost.")
def rename(function: Function) -> None:
    table = {
        "stem.conv1": "patch_embed.convolution1",
        "stages": "encoder.stages",
        "stages.1": "encoder.second",
        "stages.1.blocks.0": "encoder.special",
        "head": "classifier",
        "conv": "projection",
    }
    pairs = {
        "stem.conv1.weight": "patch_embed.convolution1.weight",
        "stages.0.conv.weight": "encoder.stages.0.conv.weight",
        "stages.1.norm.bias": "encoder.second.norm.bias",
        "stages.10.norm.bias": "encoder.stages.10.norm.bias",
        "stages.1.blocks.0.mlp.weight": "encoder.special.mlp.weight",
        "head.weight": "classifier.weight",
        "head_dist.weight": "head_dist.weight",
        "norm.head.weight": "norm.head.weight",
        "head": "classifier",
    }
    state = {name: np.full(2, float(number)) for number, name in enumerate(pairs)}
    untouched = dict(state)
    got = function(state, table)
    if got is None or got is Ellipsis:
        raise Wrong("rename gives nothing back yet; return a new dictionary.")
    expect(isinstance(got, dict), f"return a dictionary, not {type(got).__name__}.")
    expect(list(state) == list(untouched), "the dictionary that came in has been changed; make a new one.")
    reasons = {
        "stem.conv1.weight": 'once, and only at the beginning: "conv" must not be replaced inside "convolution1"',
        "stages.10.norm.bias": 'a beginning ends at a dot: "stages.1" must not match "stages.10"',
        "head_dist.weight": 'a beginning ends at a dot: "head" must not match "head_dist"',
        "norm.head.weight": "only the beginning of a name is replaced, not something in its middle",
        "stages.0.conv.weight": "only the beginning is replaced, and once",
        "stages.1.norm.bias": 'of "stages" and "stages.1" the longer one counts',
        "stages.1.blocks.0.mlp.weight": "the longest beginning counts",
        "head": "a whole name is a beginning too",
    }
    for old, new in pairs.items():
        expect(new in got, f"{old} should become {new}" + (f": {reasons[old]}." if old in reasons else "."))
        expect(bool(np.all(got[new] == state[old])), f"{new} holds another name's array.")
    expect(len(got) == len(pairs), f"{len(pairs)} names came in, {len(got)} came out.")
    try:
        function({"a.weight": np.zeros(1), "b.weight": np.ones(1)}, {"a": "b"})
    except ValueError:
        return
    raise Wrong("a.weight and b.weight both become b.weight, and one is lost in silence: raise ValueError.")


@check("filters come first, the window last, and depthwise kernels have a way of their own.")
def from_keras(function: Function) -> None:
    kernel = np.random.default_rng().standard_normal((3, 5, 4, 6))
    wanted = kernel.transpose(3, 2, 0, 1)
    answer = function(kernel, False)
    expect(
        np.shape(answer) != (6, 4, 5, 3),
        "height and width have changed places; a square kernel would not have told (.T turns all axes round).",
    )
    expect(np.shape(answer) != (4, 6, 3, 5), "input and output channels have changed places: (out, in, H, W).")
    hints = {"reshape keeps every number where it lies in memory; transpose moves it.": kernel.reshape(6, 4, 3, 5)}
    expect_array(answer, wanted, "the kernel", hints=hints)
    square = np.random.default_rng().standard_normal((3, 3, 4, 6))
    hints = {"height and width have changed places.": square.transpose(3, 2, 1, 0)}
    expect_array(function(square, False), square.transpose(3, 2, 0, 1), "a square kernel", hints=hints)
    depthwise = np.random.default_rng().standard_normal((3, 5, 7, 1))
    answer = function(depthwise, True)
    expect(
        np.shape(answer) != (1, 7, 3, 5),
        "the ordinary kernel is right; a depthwise one is (H, W, C, 1) and should become (C, 1, H, W).",
    )
    hints = {
        "the depthwise kernel was reshaped; transpose it, so that numbers move.": depthwise.reshape(7, 1, 3, 5),
    }
    expect_array(answer, depthwise.transpose(2, 3, 0, 1), "the depthwise kernel", hints=hints)


@check("the first fault in order of execution, whatever comes after it.")
def first_fault(function: Function) -> None:
    rng = np.random.default_rng()
    names = ["stem", "stage.0", "stage.1", "stage.2", "norm", "head"]
    theirs = {name: 1000.0 * rng.standard_normal((3, 4)) for name in names}
    theirs["stage.0"][0, 0] = 1e-9  # off by much of its own size, and by little of the layer's
    ours = {name: value + 1e-5 * rng.standard_normal((3, 4)) for name, value in theirs.items()}
    same = function(ours, theirs, 1e-6)
    expect(same is not Ellipsis, "first_fault gives nothing back yet; return a name, or None.")
    expect(
        same is None,
        f"layers that differ by about 1e-8 of their size should pass at a tolerance of 1e-6, and {same!r} did not: "
        "divide by the largest value of the layer.",
    )
    faulty = dict(ours)
    faulty["stage.1"] = ours["stage.1"] + 1.0
    faulty["norm"] = ours["norm"] + 500.0
    backwards = dict(reversed(theirs.items()))
    _expect_name(function(faulty, theirs, 1e-6), "stage.1", "norm", "that is the largest error, the first is stage.1.")
    _expect_name(
        function(faulty, backwards, 1e-6), "stage.1", "norm", "theirs may be in any order: go by the order of ours."
    )
    small = dict(ours, **{"stage.2": ours["stage.2"] + 1.0})
    _expect_name(
        function(small, theirs, 1e-5), "stage.2", None, "an error of 1 in a layer of about 2000 is above 1e-5."
    )
    lacking = {name: value for name, value in backwards.items() if name != "stem"}
    _expect_name(function(faulty, lacking, 1e-6), "stage.1", "stem", "a layer that theirs lacks is no fault: skip it.")
    broken = dict(ours, **{"stage.0": np.full((3, 4), np.nan)})
    unseen = "stage.0 holds NaN, and no comparison noticed: write it so that NaN is a fault."
    _expect_name(function(broken, theirs, 1e-6), "stage.0", None, unseen)
    flat = dict(theirs, stem=np.ones((3, 4)))
    _expect_name(
        function(dict(ours, stem=np.ones((1, 4))), flat, 1e-6),
        "stem",
        None,
        "stem is (1, 4) in ours and (3, 4) in theirs: NumPy broadcast it. Compare shapes first.",
    )


@check("the same blocks, the same bits.")
def blocked_sum(function: Function) -> None:
    rng = np.random.default_rng()
    for size, block in ((1000, 32), (997, 31), (64, 64), (5, 8)):
        while True:  # numbers on which the likely mistakes change bits
            x = (rng.standard_normal(size) + 0.3).astype(np.float32)
            wanted = _in_blocks(x, block)
            one_by_one = _in_blocks(x, size)
            in_double = np.float32(x.astype(np.float64).sum())
            if size <= block or len({wanted, one_by_one, in_double, x.sum()}) == 4:
                break
        answer = function(x.copy(), block)
        if answer is None or answer is Ellipsis:
            raise Wrong("blocked_sum gives nothing back yet; return the sum.")
        expect(np.ndim(answer) == 0, "return one number.")
        expect(
            np.asarray(answer).dtype == np.float32,
            f"the sum is {np.asarray(answer).dtype}, it should be float32: start from np.float32(0).",
        )
        hints = {}
        if size > block:
            whole = size // block * block
            hints = {
                "the numbers were added one after another, without blocks.": one_by_one,
                "this was added in float64 and rounded once: better, but not what was asked.": in_double,
                "the last, shorter block is missing.": _in_blocks(x[:whole], block),
                "each block's sum goes on from the one before; start every block at 0, and add the sums afterwards.": (
                    one_by_one
                ),
                "this is x.sum(), which adds in an order of its own.": x.sum(),
                "the blocks take numbers far apart; take neighbours.": _in_blocks(
                    np.concatenate([x[start :: size // block] for start in range(size // block)]), block
                ),
            }
        for sentence, mistake in hints.items():
            expect(answer == wanted or answer != mistake, sentence)
        expect(
            bool(answer == wanted),
            f"the sum of {size} numbers in blocks of {block} is {answer:.9g}, from left to right it is {wanted:.9g}; "
            "a block's .sum() has an order of its own.",
        )


def _in_blocks(x: np.ndarray, block: int) -> np.float32:
    sums = [np.cumsum(x[start : start + block], dtype=np.float32)[-1] for start in range(0, len(x), block)]
    return np.cumsum(np.array(sums, np.float32), dtype=np.float32)[-1]


def _expect_name(got: Any, wanted: str, mistake: str | None, sentence: str) -> None:
    if got == mistake:
        raise Wrong(sentence)
    expect(got == wanted, f"the first fault is {wanted}, your answer is {got!r}.")
