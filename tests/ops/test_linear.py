"""The fully connected layer: worked numbers, shapes, and refusals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npformer import ops

from .helpers import SETTINGS, assert_same, draw, refuses

X, W = draw(1, 3, 4, 5), draw(2, 6, 5)


def test_linear_multiplies_by_the_transposed_weight_and_adds_the_bias():
    weight = np.array([[1.0, 2.0], [3.0, 4.0]])
    assert ops.linear(np.array([[10.0, 1.0]]), weight, np.array([0.5, -0.5])).tolist() == [[12.5, 33.5]]


@SETTINGS
@given(st.lists(st.integers(0, 3), max_size=3), st.integers(1, 9), st.integers(1, 9), st.booleans())
def test_every_vector_is_multiplied_on_its_own(lead, width, outputs, biased):
    x, weight = draw(3, *lead, width), draw(4, outputs, width)
    bias = draw(5, outputs) if biased else None
    expected = np.empty((*lead, outputs))
    for index in np.ndindex(*lead):
        for o in range(outputs):
            expected[(*index, o)] = sum(x[index] * weight[o]) + (bias[o] if biased else 0)
    assert_same(ops.linear(x, weight, bias), expected, 1e-14)


def test_a_sum_over_nothing_is_the_bias():
    bias = draw(3, 4)
    assert_same(ops.linear(np.empty((2, 0)), np.empty((4, 0)), bias), np.stack([bias, bias]))
    assert_same(ops.linear(np.empty((2, 0)), np.empty((4, 0))), np.zeros((2, 4)))


def test_long_float32_sums_stay_within_a_few_roundings():
    x, weight, bias = draw(3, 40, 3000, dtype=np.float32), draw(4, 30, 3000, dtype=np.float32), draw(5, 30)
    truth = x.astype(np.float64) @ weight.T.astype(np.float64) + bias.astype(np.float32)
    out = ops.linear(x, weight, bias.astype(np.float32))
    assert out.dtype == np.float32
    assert np.abs(out - truth).max() < 1e-6 * np.abs(truth).max()


BAD_LINEAR = {
    "another width": ((X[..., :4], W), ("x", "D = 5", "(6, 5)", "(3, 4, 4)")),
    "a lone number": ((np.array(0.5), W), ("x", "D = 5", "()")),
    "a weight of rank 1": ((X, W[0]), ("weight", "(O, D)", "(5,)")),
    "a weight of rank 3": ((X, W[None]), ("weight", "(O, D)", "(1, 6, 5)")),
    "a short bias": ((X, W, draw(3, 5)), ("bias", "(6,)", "(5,)")),
    "one bias for all": ((X, W, draw(3, 1)), ("bias", "(6,)", "(1,)")),
    "a bias of rank 2": ((X, W, draw(3, 4, 6)), ("bias", "(6,)", "(4, 6)")),
}


@pytest.mark.parametrize("case", BAD_LINEAR)
def test_linear_refuses(case):
    args, words = BAD_LINEAR[case]
    with refuses(ValueError, *words):
        ops.linear(*args)
