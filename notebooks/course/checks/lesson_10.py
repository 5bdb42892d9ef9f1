"""Checks of lesson 10's exercises: latency."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from npformer.models.efficientformer import EfficientFormerConfig, EfficientFormerForImageClassification
from npformer.summary import summarize

from ..exercises import check, expect, expect_array


@check("a depthwise convolution uses each number a handful of times, a dense one as often as there are channels.")
def intensity(answer: Callable[..., float]) -> None:
    for inside, outside, kernel, side, groups in ((48, 192, 1, 56, 1), (35, 20, 3, 9, 5), (13, 13, 5, 11, 13)):
        per_output = inside // groups * kernel**2
        operations = 2 * per_output * outside * side**2
        maps, learned = (inside + outside) * side**2, outside * per_output
        truth = operations / (4 * (maps + learned))
        expect_array(
            answer(inside, outside, kernel, side, groups),
            truth,
            f"intensity({inside}, {outside}, {kernel}, {side}, {groups})",
            hints={
                "a multiply-add is two operations; yours is half of what it should be.": truth / 2,
                "that is per number, not per byte: a float32 has four bytes.": truth * 4,
                "a multiply-add is two operations, and a float32 has four bytes.": truth * 2,
                "the weights are read too.": operations / (4 * maps),
                "the output is moved too: it is written.": operations / (4 * (inside * side**2 + learned)),
                "the input is moved too: it is read.": operations / (4 * (outside * side**2 + learned)),
                "with groups, each filter sees in_channels / groups channels: in operations and in weights.": truth
                * groups
                * (maps + learned)
                / (maps + learned * groups),
                "with groups there are fewer weights too.": operations / (4 * (maps + learned * groups)),
                "with groups there are fewer operations too.": truth * groups,
                "a kernel has kernel times kernel weights.": operations / kernel / (4 * (maps + learned / kernel)),
            },
        )


@check("the slower of arithmetic and memory decides, and the other one is hidden behind it.")
def least_ms(answer: Callable[..., float]) -> None:
    generator = np.random.default_rng()
    examples = [(4e8, 1e6, 100.0, 20.0), (1e6, 8e6, 100.0, 20.0)]
    examples += [tuple(10 ** generator.uniform((5, 5, 1, 0), (10, 9, 3, 2))) for _ in range(6)]
    for operations, moved, gflops, gbytes in examples:
        arithmetic, memory = operations / gflops / 1e6, moved / gbytes / 1e6
        truth = max(arithmetic, memory)
        expect_array(
            answer(operations, moved, gflops, gbytes),
            truth,
            f"least_ms({operations:.3g}, {moved:.3g}, {gflops:.3g}, {gbytes:.3g})",
            tolerance=1e-9 * min(1.0, truth),
            hints={
                "computing and moving go on at the same time: the longer counts, not the sum.": arithmetic + memory,
                "that is the shorter of the two times; an op has to wait for the longer.": min(arithmetic, memory),
                "those are seconds; the result is to be in milliseconds.": truth / 1e3,
                "those are microseconds; the result is to be in milliseconds.": truth * 1e3,
                "the rates are in 1e9 a second: divide by 1e9, and multiply by 1e3 for milliseconds.": truth * 1e6,
            },
        )


@check("interrupted runs and cold ones leave no trace in it.")
def as_fast(answer: Callable[..., float]) -> None:
    generator = np.random.default_rng()
    for warm_up, count, old_ms, new_ms in ((1, 22, 12.0, 5.0), (3, 41, 7.0, 9.0), (6, 18, 3.0, 2.0)):
        old, new = (ms * (1 + generator.exponential(0.03, count)) for ms in (old_ms, new_ms))
        for runs in (old, new):
            runs[:warm_up] *= generator.uniform(3, 5, warm_up)
            runs[generator.integers(warm_up, count)] *= 8
        old, new = [float(ms) for ms in old], [float(ms) for ms in new]  # as a timing loop collects them
        a, b = old[warm_up:], new[warm_up:]
        expect_array(
            answer(old, new, warm_up),
            np.median(a) / np.median(b),
            f"as_fast of {count} runs each, {warm_up} of them for warming up,",
            hints={
                "upside down: twice as fast means that old takes twice the time of new.": np.median(b) / np.median(a),
                "that is a mean: one interrupted run moves it. Take the median.": np.mean(a) / np.mean(b),
                "that is a mean, upside down and moved by interrupted runs.": np.mean(b) / np.mean(a),
                "the first runs are for warming up and do not count.": np.median(old) / np.median(new),
                "that is a mean, of the runs for warming up as well.": np.mean(old) / np.mean(new),
                "those are the shortest runs: how quick one lucky run was. Take the median.": min(a) / min(b),
                "that is the median of the ratios; take the ratio of the medians.": np.median(np.divide(a, b)),
                "the runs for warming up are the first ones, not the last.": np.median(old[:-warm_up])
                / np.median(new[:-warm_up]),
                "the runs for warming up are the first ones, not the shortest.": np.median(sorted(old)[warm_up:])
                / np.median(sorted(new)[warm_up:]),
            },
        )


@check("linear layers grow with the tokens, attention itself with their square, and pooling is free by this count.")
def attention_multiply_adds(answer: Callable[..., int]) -> None:
    for channels, side, heads, key_dim, value_dim in ((448, 7, 8, 32, 128), (40, 5, 3, 6, 14), (24, 12, 2, 8, 16)):
        tokens, ratio = side**2, value_dim // key_dim
        linear = tokens * channels * heads * (2 * key_dim + value_dim)
        pairs, back = heads * tokens**2 * (key_dim + value_dim), tokens * heads * value_dim * channels
        truth = linear + pairs + back
        if ratio * key_dim == value_dim:
            truth = _counted(channels, side, heads, key_dim, ratio)
        score = heads * tokens**2 * key_dim
        expect_array(
            answer(channels, side, heads, key_dim, value_dim),
            truth,
            f"attention_multiply_adds({channels}, {side}, {heads}, {key_dim}, {value_dim})",
            tolerance=1e-12,
            hints={
                "the projection from the heads back to the channels is missing.": linear + pairs,
                "the linear layer that makes queries, keys and values is missing.": pairs + back,
                "that is attention alone; the two linear layers are missing.": pairs,
                "those are the linear layers alone; the products over pairs of tokens are missing.": linear + back,
                "every head has its own scores and results: multiply the pairs by the heads.": linear
                + pairs // heads
                + back,
                "probabilities times values are missing.": linear + score + back,
                "queries times keys are missing.": linear + pairs - score + back,
                "there are side * side tokens, not side.": side * channels * heads * (2 * key_dim + value_dim)
                + heads * side**2 * (key_dim + value_dim)
                + side * heads * value_dim * channels,
                "queries and keys both have key_dim numbers per head.": truth - tokens * channels * heads * key_dim,
                "those are operations: a multiply-add counts once here.": 2 * truth,
                "that is one head's; all heads make queries, keys and values, and the projection reads them all.": (
                    tokens * channels * (2 * key_dim + value_dim) + pairs // heads + tokens * value_dim * channels
                ),
            },
        )


def _counted(channels: int, side: int, heads: int, key_dim: int, ratio: int) -> int:
    """Return the multiply-adds of the attention in a real model's summary."""
    config = EfficientFormerConfig(
        depths=[1], hidden_sizes=[channels], downsamples=[False], dim=channels, num_meta3d_blocks=1,
        resolution=side, num_attention_heads=heads, key_dim=key_dim, attention_ratio=ratio, num_labels=2,
    )  # fmt: skip
    model = EfficientFormerForImageClassification(config, init_weights=False)
    rows = summarize(model, 4 * side, 4 * side)
    return next(row.multiply_adds for row in rows if row.name.endswith("token_mixer"))


@check("importance per millisecond, not importance alone, decides what goes first.")
def to_budget(
    answer: Callable[..., Sequence[int]], recorded: np.ndarray, importance: np.ndarray, recorded_rest: float
) -> None:
    generator = np.random.default_rng()
    whole = float(recorded.sum() + recorded_rest)
    _budget(answer, [2, 1, 4], [4, 1, 2], 1, 4.5, "the example")
    for part in (0.5, 0.75):
        _budget(answer, list(recorded), list(importance), recorded_rest, part * whole, "the recorded table")
    for count in (5, 9, 14):
        ms, rise = generator.uniform(0.2, 3, count), generator.uniform(0.01, 1, count)
        for part in (0.85, 0.5, 0.2):
            _budget(answer, list(ms), list(rise), 0.4, 0.4 + part * float(ms.sum()), f"a table of {count} blocks")
    _budget(answer, [1.0, 2.0], [1.0, 1.0], 1.0, 4.0, "a budget that just fits as it is")
    _budget(answer, [1.0, 2.0], [1.0, 1.0], 1.0, 0.5, "a budget smaller than the rest")


def _budget(
    answer: Callable[..., Sequence[int]], ms: list[float], rise: list[float], rest: float, budget: float, what: str
) -> None:
    result = answer(list(ms), list(rise), rest, budget)
    expect(
        result is not None and result is not Ellipsis,
        "to_budget gives nothing back yet; return a list of the numbers of the blocks that go.",
    )
    try:
        got = [int(i) for i in result]
    except TypeError:
        expect(False, f"to_budget should return a list of numbers of blocks, not {type(result).__name__}.")
    every = range(len(ms))
    truth = _dropped(ms, rest, budget, sorted(every, key=lambda i: rise[i] / ms[i]))
    if got == truth:
        return
    mistakes = {
        "that is the order of the importances alone; divide each by the milliseconds it frees.": _dropped(
            ms, rest, budget, sorted(every, key=lambda i: rise[i])
        ),
        "that drops the slowest blocks first, whatever they are worth.": _dropped(
            ms, rest, budget, sorted(every, key=lambda i: -ms[i])
        ),
        "that drops the blocks with the most importance per millisecond first; begin with the least.": _dropped(
            ms, rest, budget, sorted(every, key=lambda i: -rise[i] / ms[i])
        ),
        "that orders by importance times milliseconds; it should be divided by them.": _dropped(
            ms, rest, budget, sorted(every, key=lambda i: rise[i] * ms[i])
        ),
        "the rest takes time as well: it belongs to the sum that meets the budget.": _dropped(
            ms, 0.0, budget, sorted(every, key=lambda i: rise[i] / ms[i])
        ),
    }
    for sentence, mistake in mistakes.items():
        expect(got != mistake, f"For {what}: {sentence}")
    expect(
        sorted(got) != sorted(truth),
        f"For {what} the right blocks go, but in another order: least importance per millisecond first.",
    )
    expect(
        got != truth[:-1],
        f"For {what} you stop one block too early: what is left takes longer than the budget.",
    )
    expect(
        got[: len(truth)] != truth,
        f"For {what} you go on too long: stop as soon as what is left takes no more than the budget.",
    )
    kept = [i for i in every if i not in truth]
    expect(got != kept, f"For {what} those are the blocks that stay; return the ones that go.")
    expect(False, f"For {what} the dropped blocks should be {truth}, yours are {got}.")


def _dropped(ms: list[float], rest: float, budget: float, order: list[int]) -> list[int]:
    left, dropped = rest + sum(ms), []
    for i in order:
        if left <= budget:
            break
        left -= ms[i]
        dropped.append(i)
    return dropped
