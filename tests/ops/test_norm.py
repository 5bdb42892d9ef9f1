"""Batch norm, layer norm and normalize: worked numbers, what they are invariant to, and refusals."""

from __future__ import annotations

import numpy as np
import pytest

from npformer import ops

from .helpers import assert_same, draw, refuses, spread

X = draw(1, 3, 5, 4, 7, shift=0.3)
MEAN, VAR = draw(2, 5), spread(3, 5)
WEIGHT, BIAS = draw(4, 5), draw(5, 5)


# --- batch norm ------------------------------------------------------------------------------------------------------


def test_batch_norm_on_numbers_worked_by_hand():
    x = np.array([[[10.0, 12.0], [1.0, 5.0]]])
    # channel 0: (x - 10) / sqrt(3 + 1) * 6 + 0.5; channel 1: (x - 1) / sqrt(15 + 1) * -2 + 7
    out = ops.batch_norm(
        x, np.array([10.0, 1.0]), np.array([3.0, 15.0]), np.array([6.0, -2.0]), np.array([0.5, 7.0]), eps=1.0
    )
    assert_same(out, np.array([[[0.5, 6.5], [7.0, 5.0]]]))


def test_batch_norm_adds_an_eps_of_1e_5_to_the_variance_inside_the_root():
    x = np.array([[2.0]])
    out = ops.batch_norm(x, np.array([0.0]), np.array([3e-5]))
    assert_same(out, np.array([[2 / np.sqrt(4e-5)]]))


def test_batch_norm_follows_its_formula_in_every_rank():
    for x in (X, X[..., 0], X[:, :, 0, 0], X[..., None]):
        column = (5,) + (1,) * (x.ndim - 2)
        mean, var, weight, bias = (a.reshape(column) for a in (MEAN, VAR, WEIGHT, BIAS))
        expected = (x - mean) / np.sqrt(var + 0.1) * weight + bias
        assert_same(ops.batch_norm(x, MEAN, VAR, WEIGHT, BIAS, 0.1), expected)


def test_batch_norm_takes_the_stored_statistics_not_those_of_the_batch():
    ones, zeros = np.ones(5), np.zeros(5)
    assert_same(ops.batch_norm(X, zeros, ones, eps=0.0), X)
    assert_same(ops.batch_norm(X[:1], MEAN, VAR), ops.batch_norm(X, MEAN, VAR)[:1])


def test_batch_norm_without_weight_or_bias_leaves_them_out():
    ones, zeros = np.ones(5), np.zeros(5)
    assert_same(ops.batch_norm(X, MEAN, VAR), ops.batch_norm(X, MEAN, VAR, ones, zeros))
    assert_same(ops.batch_norm(X, MEAN, VAR, WEIGHT), ops.batch_norm(X, MEAN, VAR, WEIGHT, zeros))
    assert_same(ops.batch_norm(X, MEAN, VAR, None, BIAS), ops.batch_norm(X, MEAN, VAR, ones, BIAS))


def test_batch_norm_of_an_empty_batch_is_empty():
    assert ops.batch_norm(X[:0], MEAN, VAR).shape == (0, 5, 4, 7)


# --- layer norm ------------------------------------------------------------------------------------------------------


def test_layer_norm_on_numbers_worked_by_hand():
    # mean 3, deviations -2 -1 0 3, variance 14 / 4 = 3.5, and 3.5 + 0.5 = 2 * 2
    out = ops.layer_norm(
        np.array([[1.0, 2.0, 3.0, 6.0]]), (4,), np.array([1.0, 2.0, 3.0, -4.0]), np.array([0.0, 0.0, 9.0, 1.0]), 0.5
    )
    assert_same(out, np.array([[-1.0, -1.0, 9.0, -5.0]]))


def test_layer_norm_adds_an_eps_of_1e_5_to_the_variance_inside_the_root():
    x = np.array([[-1e-3, 1e-3]])  # variance 1e-6
    assert_same(ops.layer_norm(x, (2,)), np.array([[-1e-3, 1e-3]]) / np.sqrt(1.1e-5))


@pytest.mark.parametrize("axes", [1, 2, 3, 4])
def test_layer_norm_follows_its_formula_over_one_or_more_axes(axes):
    shape = X.shape[-axes:]
    weight, bias = draw(6, *shape), draw(7, *shape)
    over = tuple(range(-axes, 0))
    expected = (X - X.mean(over, keepdims=True)) / np.sqrt(X.var(over, keepdims=True) + 0.1) * weight + bias
    assert_same(ops.layer_norm(X, shape, weight, bias, 0.1), expected)


def test_layer_norm_gives_each_token_mean_zero_and_variance_one():
    out = ops.layer_norm(X, (7,), eps=0.0)
    np.testing.assert_allclose(out.mean(-1), 0, atol=1e-14)
    np.testing.assert_allclose(np.square(out).mean(-1), 1, rtol=1e-13)


def test_layer_norm_ignores_shift_and_scale_of_a_token():
    assert_same(ops.layer_norm(X * 3 + 2, (7,), eps=0.0), ops.layer_norm(X, (7,), eps=0.0))
    assert_same(ops.layer_norm(X, (7,), eps=0.0)[1:2], ops.layer_norm(X[1:2], (7,), eps=0.0))


def test_layer_norm_of_a_constant_token_is_the_bias():
    bias = draw(6, 7)
    assert_same(ops.layer_norm(np.full((2, 7), 0.25), (7,), None, bias), np.broadcast_to(bias, (2, 7)))


def test_layer_norm_keeps_the_digits_of_tokens_far_from_zero():
    x = 1000 + draw(6, 64, 48)
    small = x.astype(np.float32)
    error = np.abs(ops.layer_norm(small, (48,)) - ops.layer_norm(small.astype(np.float64), (48,))).max()
    assert error < 3e-4  # one rounding of 1000 is already 6e-5; E[x^2] - E[x]^2 would be off by a tenth


def test_layer_norm_of_an_empty_batch_is_empty():
    assert ops.layer_norm(X[:0], (4, 7)).shape == (0, 5, 4, 7)


# --- normalize -------------------------------------------------------------------------------------------------------


def test_normalize_on_numbers_worked_by_hand():
    x = np.array([[3.0, -4.0], [0.0, 0.5]])
    assert_same(ops.normalize(x), np.array([[0.6, -0.8], [0.0, 1.0]]))
    assert_same(ops.normalize(x, dim=0), np.array([[1.0, -4 / np.sqrt(16.25)], [0.0, 0.5 / np.sqrt(16.25)]]))
    assert_same(ops.normalize(x, p=1.0), np.array([[3 / 7, -4 / 7], [0.0, 1.0]]))
    assert_same(ops.normalize(x, p=np.inf), np.array([[0.75, -1.0], [0.0, 1.0]]))


@pytest.mark.parametrize("dim", [0, 1, 2, 3, -1, -2, -3, -4])
@pytest.mark.parametrize("p", [0.5, 1.0, 2.0, 3.0, np.inf])
def test_normalize_gives_unit_length_along_its_axis(dim, p):
    size = np.abs(ops.normalize(X, p, dim))
    length = size.max(dim) if p == np.inf else (size**p).sum(dim) ** (1 / p)
    np.testing.assert_allclose(length, 1, rtol=1e-13)


def test_normalize_works_along_the_second_axis_unless_told():
    assert_same(ops.normalize(X), ops.normalize(X, 2.0, 1), 0)


def test_normalize_keeps_the_direction():
    assert_same(ops.normalize(X * 5), ops.normalize(X))
    assert_same(ops.normalize(-X), -ops.normalize(X))


def test_normalize_leaves_a_zero_vector_at_zero():
    for dtype in (np.float32, np.float64):
        assert_same(ops.normalize(np.zeros((2, 3), dtype)), np.zeros((2, 3), dtype))


def test_eps_takes_the_place_of_a_shorter_length_and_is_not_added():
    x = np.array([[3.0, 4.0], [0.3, 0.4]])
    assert_same(ops.normalize(x, eps=1.0), np.array([[0.6, 0.8], [0.3, 0.4]]))


def test_normalize_adds_up_float32_squares_in_float64():
    # each square is below the largest float32, their sum is not
    assert_same(ops.normalize(np.full((1, 4), 1.5e19, np.float32)), np.full((1, 4), 0.5, np.float32), 0)
    small = (2 + draw(6, 40000, 2)).astype(np.float32)
    exact = ops.normalize(small.astype(np.float64), dim=0)
    assert np.abs(ops.normalize(small, dim=0) / exact - 1).max() < 2.5e-7  # two roundings and half of one


# --- infinity and NaN ------------------------------------------------------------------------------------------------


def test_nan_and_infinity_spoil_their_own_token_only():
    x = draw(6, 4, 5)
    x[1, 2], x[3, 0] = np.nan, np.inf
    with np.errstate(invalid="ignore"):
        normed, unit = ops.layer_norm(x, (5,)), ops.normalize(x)
    assert np.isfinite(normed).all(1).tolist() == [True, False, True, False]
    assert np.isnan(normed[[1, 3]]).all()
    assert np.isnan(unit[1]).all()
    np.testing.assert_array_equal(unit[3], [np.nan, 0, 0, 0, 0])
    out = ops.batch_norm(x, draw(2, 5), spread(3, 5))
    assert np.isnan(out[1, 2])
    assert out[3, 0] == np.inf
    assert np.isfinite(out).sum() == 18


# --- refusals --------------------------------------------------------------------------------------------------------

BAD_BATCH_NORM = {
    "a picture of rank 1": ((X[0, :, 0, 0], MEAN, VAR), {}, ValueError, ("x", "(B, C, ...)", "(5,)")),
    "a short mean": ((X, MEAN[:4], VAR), {}, ValueError, ("running_mean", "(5,)", "(4,)")),
    "a variance of rank 2": ((X, MEAN, VAR[None]), {}, ValueError, ("running_var", "(5,)", "(1, 5)")),
    "one weight for all": ((X, MEAN, VAR, WEIGHT[:1]), {}, ValueError, ("weight", "(5,)", "(1,)")),
    "a long bias": ((X, MEAN, VAR, WEIGHT, draw(6, 6)), {}, ValueError, ("bias", "(5,)", "(6,)")),
    "no mean": ((X, None, VAR), {}, TypeError, ("running_mean", "NumPy array", "NoneType")),
    "no variance": ((X, MEAN, None), {}, TypeError, ("running_var", "NumPy array", "NoneType")),
    "a negative eps": ((X, MEAN, VAR), {"eps": -1e-5}, ValueError, ("eps", "not be negative", "-1e-05")),
}


@pytest.mark.parametrize("case", BAD_BATCH_NORM)
def test_batch_norm_refuses(case):
    args, kwargs, error, words = BAD_BATCH_NORM[case]
    with refuses(error, *words):
        ops.batch_norm(*args, **kwargs)


BAD_LAYER_NORM = {
    "another last axis": ((X, (6,)), ValueError, ("x", "normalized_shape", "(6,)", "(3, 5, 4, 7)")),
    "more axes than x has": ((X[0, 0], (5, 4, 7)), ValueError, ("x", "(5, 4, 7)", "(4, 7)")),
    "no axes": ((X, ()), ValueError, ("normalized_shape", "()")),
    "a bare number": ((X, 7), TypeError, ("normalized_shape", "sequence of whole numbers", "got 7")),
    "a fraction": ((X, (7.0,)), TypeError, ("normalized_shape", "whole numbers", "(7.0,)")),
    "a short weight": ((X, (7,), draw(6, 4)), ValueError, ("weight", "(7,)", "(4,)")),
    "a bias of the last axis only": ((X, (4, 7), None, draw(6, 7)), ValueError, ("bias", "(4, 7)", "(7,)")),
}


@pytest.mark.parametrize("case", BAD_LAYER_NORM)
def test_layer_norm_refuses(case):
    args, error, words = BAD_LAYER_NORM[case]
    with refuses(error, *words):
        ops.layer_norm(*args)


@pytest.mark.parametrize(
    ("dim", "error", "words"),
    [
        (4, IndexError, ("between -4 and 3", "rank 4", "got 4")),
        (-5, IndexError, ("between -4 and 3", "rank 4", "got -5")),
        (1.0, TypeError, ("whole number", "1.0")),
        (None, TypeError, ("whole number", "None")),
    ],
)
def test_normalize_refuses_an_axis_that_is_not_there(dim, error, words):
    with refuses(error, "dim", *words):
        ops.normalize(X, dim=dim)
    with refuses(IndexError, "dim", "between -1 and 0", "got 1"):
        ops.normalize(X[0, 0, 0])
