"""Losses: worked numbers, loops straight from the formulas, the edges, and refusals."""

from __future__ import annotations

import math

import numpy as np
import pytest

from npformer import ops

from .helpers import assert_same, draw, refuses, spread

LOGITS = draw(1, 5, 4) * 2
TARGET = np.array([2, 0, 3, 3, 1])
CLASS_WEIGHT = spread(2, 4)
PROBS = ops.softmax(draw(3, 5, 4))


def number(value):
    return np.asarray(float(value))


def log_probability(row, k):
    return row[k] - max(row) - math.log(sum(math.exp(v - max(row)) for v in row))


# --- cross entropy ---------------------------------------------------------------------------------------------------


def test_cross_entropy_on_numbers_worked_by_hand():
    logits = np.log([[1.0, 3.0], [2.0, 2.0], [9.0, 1.0]])
    target = np.array([1, 0, 1])  # probabilities 3/4, 1/2, 1/10
    each = np.log([4 / 3, 2, 10])
    assert_same(ops.cross_entropy(logits, target, reduction="none"), each)
    assert_same(ops.cross_entropy(logits, target, reduction="sum"), number(each.sum()))
    assert_same(ops.cross_entropy(logits, target), number(each.sum() / 3))


def test_class_weights_multiply_each_loss_and_their_sum_divides_the_mean():
    logits = np.log([[1.0, 3.0], [2.0, 2.0], [9.0, 1.0]])
    target, weight = np.array([1, 0, 1]), np.array([5.0, 2.0])
    each = np.log([4 / 3, 2, 10]) * [2, 5, 2]
    assert_same(ops.cross_entropy(logits, target, weight, reduction="none"), each)
    assert_same(ops.cross_entropy(logits, target, weight, reduction="sum"), number(each.sum()))
    assert_same(ops.cross_entropy(logits, target, weight), number(each.sum() / 9))


def test_ignored_targets_count_neither_above_nor_below_the_line():
    counted = np.array([True, False, True, True, False])
    for ignore_index in (-100, -1, 1, 7):
        chosen = np.where(counted, [2, 0, 3, 3, 0], ignore_index)
        each = np.where(counted, [-log_probability(row, k) for row, k in zip(LOGITS, [2, 0, 3, 3, 0])], 0.0)
        assert_same(ops.cross_entropy(LOGITS, chosen, None, ignore_index, "none"), each)
        assert_same(ops.cross_entropy(LOGITS, chosen, None, ignore_index, "sum"), number(each.sum()))
        assert_same(ops.cross_entropy(LOGITS, chosen, None, ignore_index), number(each.sum() / 3))


def test_ignored_targets_take_their_class_weight_along():
    chosen = np.array([2, -100, 3, 3, -100])
    each = [-log_probability(row, k) * CLASS_WEIGHT[k] for row, k in zip(LOGITS[[0, 2, 3]], [2, 3, 3])]
    total = CLASS_WEIGHT[[2, 3, 3]].sum()
    assert_same(ops.cross_entropy(LOGITS, chosen, CLASS_WEIGHT), number(sum(each) / total))


def test_minus_100_is_ignored_unless_told_otherwise():
    chosen = np.array([2, -100, 3, 3, -100])
    assert_same(ops.cross_entropy(LOGITS, chosen), ops.cross_entropy(LOGITS[[0, 2, 3]], chosen[[0, 2, 3]]))


def test_the_mean_over_nothing_is_nan_and_the_sum_zero():
    nothing = np.full(5, -100)
    assert np.isnan(ops.cross_entropy(LOGITS, nothing))
    assert ops.cross_entropy(LOGITS, nothing, reduction="sum") == 0
    assert np.isnan(ops.cross_entropy(LOGITS[:0], nothing[:0]))
    assert ops.cross_entropy(LOGITS[:0], nothing[:0], reduction="none").shape == (0,)


@pytest.mark.parametrize("amount", [0.1, 0.6, 1.0])
def test_label_smoothing_mixes_the_uniform_distribution_into_the_target(amount):
    each = []
    for row, k in zip(LOGITS, TARGET):
        wanted = [amount / 4 + (1 - amount) * (c == k) for c in range(4)]
        each.append(-sum(wanted[c] * CLASS_WEIGHT[c] * log_probability(row, c) for c in range(4)))
    out = ops.cross_entropy(LOGITS, TARGET, CLASS_WEIGHT, reduction="none", label_smoothing=amount)
    assert_same(out, np.array(each))
    mean = ops.cross_entropy(LOGITS, TARGET, CLASS_WEIGHT, label_smoothing=amount)
    assert_same(mean, number(sum(each) / CLASS_WEIGHT[TARGET].sum()))


def test_probabilities_as_target_weigh_every_class():
    each = [-sum(p[c] * log_probability(row, c) for c in range(4)) for row, p in zip(LOGITS, PROBS)]
    assert_same(ops.cross_entropy(LOGITS, PROBS, reduction="none"), np.array(each))
    assert_same(ops.cross_entropy(LOGITS, PROBS, reduction="sum"), number(sum(each)))
    assert_same(ops.cross_entropy(LOGITS, PROBS), number(sum(each) / 5))


def test_the_mean_for_probabilities_divides_by_the_rows_even_with_class_weights():
    each = [
        -sum((0.7 * p[c] + 0.3 / 4) * CLASS_WEIGHT[c] * log_probability(row, c) for c in range(4))
        for row, p in zip(LOGITS, PROBS)
    ]
    out = ops.cross_entropy(LOGITS, PROBS, CLASS_WEIGHT, label_smoothing=0.3)
    assert_same(out, number(sum(each) / 5))


def test_certain_probabilities_equal_class_numbers():
    certain = np.eye(4)[TARGET]
    for amount in (0.0, 0.2):
        for reduction in ("none", "sum", "mean"):
            by_number = ops.cross_entropy(LOGITS, TARGET, reduction=reduction, label_smoothing=amount)
            assert_same(
                ops.cross_entropy(LOGITS, certain, reduction=reduction, label_smoothing=amount), by_number, 1e-14
            )


def test_probabilities_take_the_dtype_of_the_input():
    out = ops.cross_entropy(LOGITS.astype(np.float32), PROBS, reduction="none")
    assert_same(out, ops.cross_entropy(LOGITS, PROBS, reduction="none").astype(np.float32), 1e-6)


def test_classes_lie_on_the_second_axis_of_a_map():
    maps, chosen = draw(4, 2, 4, 3, 5), np.random.default_rng(5).integers(0, 4, (2, 3, 5))
    flat = maps.transpose(0, 2, 3, 1).reshape(30, 4)
    each = ops.cross_entropy(flat, chosen.reshape(30), CLASS_WEIGHT, reduction="none").reshape(2, 3, 5)
    assert_same(ops.cross_entropy(maps, chosen, CLASS_WEIGHT, reduction="none"), each)
    by_probability = ops.cross_entropy(maps, np.moveaxis(np.eye(4)[chosen], -1, 1), reduction="none")
    assert_same(by_probability, ops.cross_entropy(maps, chosen, reduction="none"))


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_one_unbatched_row_gives_a_single_number(reduction):
    out = ops.cross_entropy(LOGITS[0], np.array(2), reduction=reduction)
    assert_same(out, number(-log_probability(LOGITS[0], 2)))
    assert_same(ops.cross_entropy(LOGITS[0], 2, reduction=reduction), out, 0)
    soft = ops.cross_entropy(LOGITS[0], PROBS[0], reduction=reduction)
    assert_same(soft, ops.cross_entropy(LOGITS[:1], PROBS[:1]), 1e-15)


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.int32, np.int64])
def test_class_numbers_of_every_integer_type_are_equal(kind):
    assert_same(ops.cross_entropy(LOGITS, TARGET.astype(kind)), ops.cross_entropy(LOGITS, TARGET), 0)


def test_an_impossible_class_costs_nothing_unless_it_is_the_target():
    logits = np.array([[-np.inf, 0.0, 0.0]])
    assert_same(ops.cross_entropy(logits, np.array([1])), number(math.log(2)))
    assert ops.cross_entropy(logits, np.array([0])) == np.inf
    assert ops.cross_entropy(logits, np.array([1]), label_smoothing=0.1) == np.inf
    assert_same(ops.cross_entropy(logits, np.array([1]), np.array([0.0, 3.0, 1.0])), number(math.log(2)))


def test_nan_in_an_ignored_row_does_not_spread():
    logits = LOGITS.copy()
    logits[1] = np.nan
    chosen = np.array([2, -100, 3, 3, 1])
    expected = ops.cross_entropy(LOGITS[[0, 2, 3, 4]], chosen[[0, 2, 3, 4]])
    assert_same(ops.cross_entropy(logits, chosen), expected)
    assert np.isnan(ops.cross_entropy(logits, TARGET))


def test_confident_logits_keep_their_digits():
    logits = np.array([[0.0, 1000.0], [30.0, 0.0]])
    out = ops.cross_entropy(logits, np.array([0, 0]), reduction="none")
    np.testing.assert_allclose(out, [1000.0, math.log1p(math.exp(-30))], rtol=1e-2)


BAD_CROSS_ENTROPY = {
    "a single number": ((np.array(1.0), np.array(0)), {}, ValueError, ("input", "(B, K, ...)", "()")),
    "a list": ((LOGITS, [2, 0, 3, 3, 1]), {}, TypeError, ("target", "NumPy array", "list")),
    "no target": ((LOGITS, None), {}, TypeError, ("target", "NumPy array", "NoneType")),
    "truth values": ((LOGITS, TARGET > 1), {}, TypeError, ("target", "class numbers or probabilities", "bool")),
    "complex numbers": ((LOGITS, TARGET * 1j), {}, TypeError, ("target", "probabilities", "complex128")),
    "a class too high": ((LOGITS, TARGET + 1), {}, IndexError, ("target", "0 to 3", "-100", "[3 1 4 4 2]")),
    "a class below zero": ((LOGITS, TARGET - 1), {}, IndexError, ("target", "0 to 3", "-100", "[ 1 -1  2  2  0]")),
    "another ignored number": ((LOGITS, TARGET - 100, None, -1), {}, IndexError, ("target", "0 to 3", "or -1")),
    "a short target": ((LOGITS, TARGET[:4]), {}, ValueError, ("target", "(5,)", "(4,)")),
    "a column": ((LOGITS, TARGET[:, None]), {}, ValueError, ("target", "(5,)", "(5, 1)")),
    "probabilities of too few classes": ((LOGITS, PROBS[:, :3]), {}, ValueError, ("target", "(5, 4)", "(5, 3)")),
    "class numbers as floats": ((LOGITS, TARGET * 1.0), {}, ValueError, ("target", "(5, 4)", "(5,)")),
    "ignored probabilities": ((LOGITS, PROBS, None, 2), {}, ValueError, ("ignore_index", "negative", "got 2")),
    "a fractional ignore_index": ((LOGITS, TARGET, None, 1.5), {}, TypeError, ("ignore_index", "whole", "1.5")),
    "a short weight": ((LOGITS, TARGET, CLASS_WEIGHT[:3]), {}, ValueError, ("weight", "(4,)", "(3,)")),
    "a weight per row": ((LOGITS, TARGET, spread(2, 5)), {}, ValueError, ("weight", "(4,)", "(5,)")),
    "an unknown reduction": ((LOGITS, TARGET), {"reduction": "avg"}, ValueError, ("reduction", '"mean"', "'avg'")),
    "too much smoothing": ((LOGITS, TARGET), {"label_smoothing": 1.5}, ValueError, ("label_smoothing", "1", "1.5")),
    "negative smoothing": ((LOGITS, TARGET), {"label_smoothing": -0.1}, ValueError, ("label_smoothing", "0", "-0.1")),
}


@pytest.mark.parametrize("case", BAD_CROSS_ENTROPY)
def test_cross_entropy_refuses(case):
    args, kwargs, error, words = BAD_CROSS_ENTROPY[case]
    with refuses(error, *words):
        ops.cross_entropy(*args, **kwargs)


# --- squared distance ------------------------------------------------------------------------------------------------


def test_mse_loss_on_numbers_worked_by_hand():
    a, b = np.array([[1.0, -2.0], [0.5, 4.0]]), np.array([[3.0, -2.0], [1.0, 1.0]])
    assert_same(ops.mse_loss(a, b, "none"), np.array([[4.0, 0.0], [0.25, 9.0]]))
    assert_same(ops.mse_loss(a, b, "sum"), number(13.25))
    assert_same(ops.mse_loss(a, b), number(13.25 / 4))
    assert_same(ops.mse_loss(b, a), number(13.25 / 4))


def test_mse_loss_of_single_numbers_and_of_nothing():
    for reduction in ("none", "sum", "mean"):
        assert_same(ops.mse_loss(np.array(3.0), np.array(1.0), reduction), number(4))
    assert np.isnan(ops.mse_loss(np.empty((0, 2)), np.empty((0, 2))))
    assert ops.mse_loss(np.empty((0, 2)), np.empty((0, 2)), "sum") == 0


BAD_MSE = {
    "a row to broadcast": ((LOGITS, PROBS[:1]), ValueError, ("target", "(5, 4)", "(1, 4)")),
    "a shorter batch": ((LOGITS, PROBS[:3]), ValueError, ("target", "(5, 4)", "(3, 4)")),
    "an unknown reduction": ((LOGITS, PROBS, "avg"), ValueError, ("reduction", '"none"', "'avg'")),
}


@pytest.mark.parametrize("case", BAD_MSE)
def test_mse_loss_refuses(case):
    args, error, words = BAD_MSE[case]
    with refuses(error, *words):
        ops.mse_loss(*args)


# --- binary cross entropy --------------------------------------------------------------------------------------------


def loop_binary(weight=None, pos_weight=None):
    """The textbook formula, log s(x) and log(1 - s(x)), which is exact enough for logits of order one."""
    out = np.zeros_like(LOGITS)
    for index in np.ndindex(LOGITS.shape):
        p = 1 / (1 + math.exp(-LOGITS[index]))
        t = PROBS[index]
        price = 1.0 if pos_weight is None else np.broadcast_to(pos_weight, LOGITS.shape)[index]
        out[index] = -(price * t * math.log(p) + (1 - t) * math.log(1 - p))
        out[index] *= 1.0 if weight is None else np.broadcast_to(weight, LOGITS.shape)[index]
    return out


def test_binary_cross_entropy_on_numbers_worked_by_hand():
    logits, target = np.log([1.0, 3.0, 9.0]), np.array([1.0, 0.0, 1.0])  # yes with probability 1/2, 3/4, 9/10
    out = ops.binary_cross_entropy_with_logits(logits, target, reduction="none")
    assert_same(out, np.log([2, 4, 10 / 9]))
    missed = ops.binary_cross_entropy_with_logits(logits, target, reduction="none", pos_weight=np.array(3.0))
    assert_same(missed, np.log([8, 4, 1000 / 729]))


@pytest.mark.parametrize("weight", [None, spread(4, 5, 4), spread(4, 4), spread(4, 5, 1), spread(4)])
@pytest.mark.parametrize("pos_weight", [None, spread(5, 4), spread(5, 1), spread(5, 5, 4)])
def test_binary_cross_entropy_equals_its_loops(weight, pos_weight):
    each = loop_binary(weight, pos_weight)
    for reduction, expected in (("none", each), ("sum", number(each.sum())), ("mean", number(each.mean()))):
        out = ops.binary_cross_entropy_with_logits(LOGITS, PROBS, weight, reduction, pos_weight)
        assert_same(out, expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_binary_cross_entropy_neither_overflows_nor_loses_a_confident_yes(dtype):
    logits, target = (
        np.array([15.0, 90.0, -1000.0, 1000.0, -1000.0], dtype),
        np.array([1.0, 1.0, 0.0, 0.0, 1.0], dtype),
    )
    out = ops.binary_cross_entropy_with_logits(logits, target, reduction="none")
    assert out.dtype == dtype
    np.testing.assert_allclose(out, [math.log1p(math.exp(-15)), math.exp(-90), 0, 1000, 1000], rtol=1e-6, atol=1e-40)


def test_binary_cross_entropy_of_an_infinite_logit():
    logits, target = np.array([np.inf, np.inf, -np.inf, np.nan]), np.array([0.0, 1.0, 1.0, 0.5])
    out = ops.binary_cross_entropy_with_logits(logits, target, reduction="none")
    # only the wrong +inf has a value; elsewhere PyTorch's formula multiplies zero with infinity, and so does ours
    np.testing.assert_array_equal(out, [np.inf, np.nan, np.nan, np.nan])


def test_binary_cross_entropy_of_single_numbers():
    for reduction in ("none", "sum", "mean"):
        out = ops.binary_cross_entropy_with_logits(np.array(0.0), np.array(1.0), reduction=reduction)
        assert_same(out, number(math.log(2)))


BAD_BINARY = {
    "a row to broadcast": ((LOGITS, PROBS[:1]), {}, ValueError, ("target", "(5, 4)", "(1, 4)")),
    "a weight of another length": ((LOGITS, PROBS, spread(2, 5)), {}, ValueError, ("weight", "(5, 4)", "(5,)")),
    "a weight that would enlarge": ((LOGITS, PROBS, spread(2, 2, 5, 4)), {}, ValueError, ("weight", "(2, 5, 4)")),
    "one row and many weights": ((LOGITS[:1], PROBS[:1], spread(2, 5, 4)), {}, ValueError, ("weight", "(1, 4)")),
    "prices of another length": ((LOGITS, PROBS), {"pos_weight": spread(2, 5)}, ValueError, ("pos_weight", "(5,)")),
    "prices that would enlarge": (
        (LOGITS[:1], PROBS[:1]),
        {"pos_weight": spread(2, 5, 4)},
        ValueError,
        ("pos_weight", "(1, 4)", "(5, 4)"),
    ),
    "an unknown reduction": ((LOGITS, PROBS), {"reduction": None}, ValueError, ("reduction", '"sum"', "None")),
}


@pytest.mark.parametrize("case", BAD_BINARY)
def test_binary_cross_entropy_refuses(case):
    args, kwargs, error, words = BAD_BINARY[case]
    with refuses(error, *words):
        ops.binary_cross_entropy_with_logits(*args, **kwargs)
