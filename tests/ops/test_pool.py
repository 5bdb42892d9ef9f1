"""Pooling: worked numbers, what the border and ceil_mode count, and refusals (`test_naive.py` has the loop twins)."""

from __future__ import annotations

import math

import numpy as np
import pytest

from npformer import ops
from npformer.ops import naive

from .helpers import assert_same, draw, pixels, refuses

X = draw(1, 2, 4, 7, 6, shift=0.5)
ROW = np.array([1.0, 2.0, 3.0, 4.0, 5.0]).reshape(1, 1, 1, 5)


# --- average -------------------------------------------------------------------------------------------------------


def test_the_stride_defaults_to_the_kernel():
    assert ops.avg_pool2d(pixels(4, 4), 2).tolist() == [[[[2.5, 4.5], [10.5, 12.5]]]]
    assert_same(ops.avg_pool2d(X, (3, 2)), ops.avg_pool2d(X, (3, 2), (3, 2)), 0)
    assert_same(ops.max_pool2d(X, (3, 2)), ops.max_pool2d(X, (3, 2), (3, 2)), 0)


def test_padded_zeros_count_in_the_divisor_by_default():
    for module in (ops, naive):
        out = module.avg_pool2d(ROW, (1, 3), 1, (0, 1))
        assert_same(out, np.array([[[[1.0, 2.0, 3.0, 4.0, 3.0]]]]))


def test_without_count_include_pad_only_real_pixels_count():
    for module in (ops, naive):
        out = module.avg_pool2d(ROW, (1, 3), 1, (0, 1), count_include_pad=False)
        assert_same(out, np.array([[[[1.5, 2.0, 3.0, 4.0, 4.5]]]]))


def test_ceil_mode_keeps_an_overhanging_window_and_counts_its_real_pixels():
    for module in (ops, naive):
        assert module.avg_pool2d(ROW, (1, 2), ceil_mode=False).ravel().tolist() == [1.5, 3.5]
        assert module.avg_pool2d(ROW, (1, 2), ceil_mode=True).ravel().tolist() == [1.5, 3.5, 5.0]
        assert module.max_pool2d(-ROW, (1, 2), ceil_mode=True).ravel().tolist() == [-1.0, -3.0, -5.0]


def test_ceil_mode_counts_the_padding_but_never_what_lies_beyond_it():
    # windows begin at -1, 2, 5 over [0 1 2 3 4 5 6 0]: the last holds 6 and one padded zero, its third place none
    row = np.arange(1.0, 7.0).reshape(1, 1, 1, 6)
    for module in (ops, naive):
        counted = module.avg_pool2d(row, (1, 3), (1, 3), (0, 1), True, True)
        assert_same(counted, np.array([[[[1.0, 4.0, 3.0]]]]))
        real = module.avg_pool2d(row, (1, 3), (1, 3), (0, 1), True, False)
        assert_same(real, np.array([[[[1.5, 4.0, 6.0]]]]))


def test_ceil_mode_drops_a_last_window_that_would_begin_in_the_right_padding():
    # windows begin at -1, 2, 5; the picture ends at 4, so the third is dropped
    for module in (ops, naive):
        assert module.avg_pool2d(ROW, (1, 2), (1, 3), (0, 1), ceil_mode=True).ravel().tolist() == [0.5, 3.5]
        assert module.max_pool2d(ROW, (1, 2), (1, 3), (0, 1), ceil_mode=True).ravel().tolist() == [1.0, 4.0]


def test_ceil_mode_holds_a_kernel_that_overhangs_by_less_than_a_stride():
    assert ops.avg_pool2d(ROW, (1, 7), (1, 3), ceil_mode=True).ravel().tolist() == [3.0]
    with refuses(ValueError, "x", "5 pixels", "spans 8"):
        ops.avg_pool2d(ROW, (1, 8), (1, 3), ceil_mode=True)


def test_divisor_override_divides_every_sum_by_the_same_number():
    out = ops.avg_pool2d(ROW, (1, 3), 1, (0, 1), divisor_override=10)
    assert_same(out, np.array([[[[0.3, 0.6, 0.9, 1.2, 0.9]]]]))
    same = ops.avg_pool2d(X, 3, 2, 1, True, False, divisor_override=-7)
    assert_same(same, ops.avg_pool2d(X, 3, 2, 1, True, True, divisor_override=1) / -7)


def test_the_whole_picture_as_kernel_gives_its_mean():
    assert_same(ops.avg_pool2d(X, (7, 6)), X.mean((2, 3), keepdims=True))


def test_an_average_lies_between_the_smallest_and_the_largest_pixel_of_its_window():
    mean = ops.avg_pool2d(X, (3, 4), 1, (1, 2), count_include_pad=False)
    assert (mean < ops.max_pool2d(X, (3, 4), 1, (1, 2))).all()
    assert (mean > -ops.max_pool2d(-X, (3, 4), 1, (1, 2))).all()


def test_nan_and_infinity_reach_only_the_windows_that_see_them():
    x = X[:1, :1].copy()
    x[0, 0, 3, 2], x[0, 0, 0, 5] = np.nan, np.inf
    out = ops.avg_pool2d(x, 3, 1, 1)
    unclean = np.zeros((7, 6), bool)
    unclean[2:5, 1:4] = unclean[0:2, 4:6] = True
    assert np.array_equal(~np.isfinite(out[0, 0]), unclean)
    assert (out[0, 0, 0:2, 4:6] == np.inf).all()


# --- maximum -------------------------------------------------------------------------------------------------------


def test_padding_never_wins_the_maximum_of_negative_pixels():
    for module in (ops, naive):
        out = module.max_pool2d(-1 - pixels(2, 3), 3, 2, 1)
        assert out.tolist() == [[[[-1.0, -2.0]]]]


def test_dilated_windows_skip_pixels():
    row = np.array([9.0, 1.0, 2.0, 8.0, 3.0, 4.0, 7.0]).reshape(1, 1, 1, 7)
    for module in (ops, naive):
        out = module.max_pool2d(row, (1, 3), 1, 0, (1, 2))
        assert out.ravel().tolist() == [9.0, 8.0, 7.0]


def test_a_window_that_sees_only_padding_gives_minus_infinity():
    x = np.array([[[[5.0, 6.0]]]])
    for module in (ops, naive):
        out = module.max_pool2d(x, (2, 1), 1, (1, 0), (2, 1))
        assert out.tolist() == [[[[-np.inf, -np.inf]]]]


def test_nan_wins_the_maximum_and_minus_infinity_stays():
    x = np.array([[[[1.0, np.nan, 3.0, np.inf], [-np.inf, -np.inf, -np.inf, -np.inf]]]])
    out = ops.max_pool2d(x, (1, 2), 1)
    np.testing.assert_array_equal(out, [[[[np.nan, np.nan, np.inf], [-np.inf, -np.inf, -np.inf]]]])


# --- a grid of cells -------------------------------------------------------------------------------------------------

ADAPTIVE = ["adaptive_avg_pool2d", "adaptive_max_pool2d"]


def test_adaptive_average_on_numbers_worked_by_hand():
    # three rows make 0 1 and 1 2, for half of the middle row lies in each; four columns make 0 1 and 2 3
    for module in (ops, naive):
        assert module.adaptive_avg_pool2d(pixels(3, 4), 2).tolist() == [[[[2.5, 4.5], [6.5, 8.5]]]]
        assert module.adaptive_avg_pool2d(pixels(3, 4), 1).tolist() == [[[[5.5]]]]


def test_adaptive_maximum_on_numbers_worked_by_hand():
    for module in (ops, naive):
        assert module.adaptive_max_pool2d(pixels(3, 4), 2).tolist() == [[[[5.0, 7.0], [9.0, 11.0]]]]
        assert module.adaptive_max_pool2d(-1 - pixels(3, 4), 2).tolist() == [[[[-1.0, -3.0], [-5.0, -7.0]]]]


def test_a_pair_counts_cells_down_then_across():
    for module in (ops, naive):
        assert module.adaptive_avg_pool2d(pixels(2, 6), (1, 3)).tolist() == [[[[3.5, 5.5, 7.5]]]]
        assert module.adaptive_avg_pool2d(pixels(2, 6), (2, 1)).tolist() == [[[[2.5], [8.5]]]]
        assert module.adaptive_max_pool2d(pixels(2, 6), (1, 3)).tolist() == [[[[7.0, 9.0, 11.0]]]]
        assert module.adaptive_max_pool2d(pixels(2, 6), (2, 1)).tolist() == [[[[5.0], [11.0]]]]


def test_cells_share_the_pixels_that_their_border_cuts():
    for module in (ops, naive):
        # 5 pixels in 2 cells: 1 2 3 and 3 4 5; in 3 cells: 1 2 and 2 3 4 and 4 5
        assert module.adaptive_avg_pool2d(ROW, (1, 2)).ravel().tolist() == [2.0, 4.0]
        assert module.adaptive_avg_pool2d(ROW, (1, 3)).ravel().tolist() == [1.5, 3.0, 4.5]
        assert module.adaptive_max_pool2d(ROW, (1, 3)).ravel().tolist() == [2.0, 4.0, 5.0]
        assert module.adaptive_max_pool2d(-ROW, (1, 3)).ravel().tolist() == [-1.0, -2.0, -4.0]


def test_more_cells_than_pixels_see_pixels_again():
    column = ROW.swapaxes(2, 3)
    for module in (ops, naive):
        # a cell is 5/7 of a pixel high: the first lies within pixel 1, the second reaches from there into pixel 2
        wanted = [1.0, 1.5, 2.5, 3.0, 3.5, 4.5, 5.0]
        assert module.adaptive_avg_pool2d(column, (7, 1)).ravel().tolist() == wanted
        assert module.adaptive_max_pool2d(column, (7, 1)).ravel().tolist() == [1.0, 2.0, 3.0, 3.0, 4.0, 5.0, 5.0]
        assert_same(module.adaptive_avg_pool2d(ROW, (1, 10)), ROW.repeat(2, 3), 0)
        assert_same(module.adaptive_max_pool2d(ROW, (3, 5)), ROW.repeat(3, 2), 0)


@pytest.mark.parametrize("name", ADAPTIVE)
def test_one_number_of_cells_is_for_both_axes(name):
    pool = getattr(ops, name)
    for same in ((3, 3), [3, 3], (3,), np.int64(3), np.array([3, 3])):
        assert_same(pool(X, same), pool(X, 3), 0)
    assert pool(X, (2, 5)).shape == (2, 4, 2, 5)


def test_one_cell_is_the_whole_picture():
    assert_same(ops.adaptive_avg_pool2d(X, 1), X.mean((2, 3), keepdims=True))
    assert_same(ops.adaptive_max_pool2d(X, 1), X.max((2, 3), keepdims=True), 0)


@pytest.mark.parametrize("name", ADAPTIVE)
def test_as_many_cells_as_pixels_give_the_picture_back_in_memory_of_its_own(name):
    out = getattr(ops, name)(X, (7, 6))
    assert_same(out, X, 0)
    assert not np.shares_memory(out, X)


def test_a_grid_that_divides_the_picture_is_a_pooling_with_a_stride_of_its_kernel():
    assert_same(ops.adaptive_avg_pool2d(X[:, :, :6], (2, 3)), ops.avg_pool2d(X[:, :, :6], (3, 2)))
    assert_same(ops.adaptive_max_pool2d(X[:, :, :6], (2, 3)), ops.max_pool2d(X[:, :, :6], (3, 2)), 0)


def test_an_adaptive_average_lies_between_the_smallest_and_the_largest_pixel_of_its_cell():
    for grid in ((2, 3), (3, 2), (5, 4)):
        mean = ops.adaptive_avg_pool2d(X, grid)
        assert (mean < ops.adaptive_max_pool2d(X, grid)).all()
        assert (mean > -ops.adaptive_max_pool2d(-X, grid)).all()


def test_adaptive_average_rounds_a_float32_sum_only_once():
    x = (1000 + draw(2, 2, 3, 40, 31)).astype(np.float32)
    exact = [math.fsum(picture.ravel()) / (40 * 31) for picture in x.reshape(6, 40, 31).astype(np.float64)]
    assert_same(ops.adaptive_avg_pool2d(x, 1), np.reshape(exact, (2, 3, 1, 1)).astype(np.float32), 0)


def test_the_mean_of_the_largest_float32_pixels_is_no_infinity():
    x = np.full((1, 1, 2, 3), 3e38, np.float32)
    assert_same(ops.adaptive_avg_pool2d(x, (1, 2)), x[:, :, :1, :2], 0)


@pytest.mark.parametrize("name", ADAPTIVE)
def test_nan_and_infinity_reach_only_the_cells_that_see_them(name):
    x = X[:1, :1].copy()
    x[0, 0, 3, 2], x[0, 0, 0, 5], x[0, 0, 6, 0] = np.nan, np.inf, -np.inf
    out = getattr(ops, name)(x, (2, 3))[0, 0]  # rows 0 1 2 3 and 3 4 5 6, columns 0 1 and 2 3 and 4 5
    assert np.isnan(out).tolist() == [[False, True, False], [False, True, False]]
    assert np.isposinf(out).tolist() == [[False, False, True], [False, False, False]]
    assert np.isneginf(out).tolist() == [[False, False, False], [name == "adaptive_avg_pool2d", False, False]]


def test_nan_wins_every_cell_and_minus_infinity_stays():
    x = np.array([[[[1.0, np.nan, 3.0, np.inf, -np.inf, -np.inf]]]])
    for module in (ops, naive):
        out = module.adaptive_max_pool2d(x, (1, 3))
        np.testing.assert_array_equal(out, [[[[np.nan, np.inf, -np.inf]]]])


# --- the token mixer -----------------------------------------------------------------------------------------------


def test_pool_mixer_is_the_mean_of_the_real_neighbours_minus_the_pixel():
    # corner: (0 + 1 + 3 + 4) / 4 - 0; edge: (0 + ... + 5) / 6 - 1; centre: 4 - 4
    expected = np.array([[[[2.0, 1.5, 1.0], [0.5, 0.0, -0.5], [-1.0, -1.5, -2.0]]]])
    assert_same(ops.pool_mixer(pixels(3, 3)), expected)


def test_pool_mixer_leaves_nothing_of_a_constant_picture():
    assert np.abs(ops.pool_mixer(np.full((2, 3, 5, 4), 0.7), 3)).max() < 1e-15


def test_pool_mixer_ignores_a_shift_and_follows_a_scale():
    assert_same(ops.pool_mixer(X + 3), ops.pool_mixer(X), 1e-14)
    assert_same(ops.pool_mixer(X * -2.5), ops.pool_mixer(X) * -2.5)


def test_pool_mixer_widens_with_pool_size():
    assert (ops.pool_mixer(X, 1) == 0).all()
    far = ops.pool_mixer(X, 13)
    assert_same(far, X.mean((2, 3), keepdims=True) - X)


# --- the mean over tokens --------------------------------------------------------------------------------------------


def test_token_mean_averages_each_channel_over_its_tokens():
    x = np.array([[[1.0, 10.0], [2.0, -30.0], [6.0, 5.0]], [[0.0, 3.0], [0.0, 0.0], [0.75, 0.0]]])
    assert_same(ops.token_mean(x), np.array([[3.0, -5.0], [0.25, 1.0]]))
    assert ops.token_mean(x[:0]).shape == (0, 2)


def test_token_mean_rounds_a_float32_sum_only_once():
    x = (1000 + draw(2, 2, 700, 5)).astype(np.float32)
    assert_same(ops.token_mean(x), x.astype(np.float64).mean(1).astype(np.float32), 0)


def test_token_mean_refuses_other_ranks():
    with refuses(ValueError, "x", "(B, N, D)", "(2, 4, 7, 6)"):
        ops.token_mean(X)


# --- shapes --------------------------------------------------------------------------------------------------------


def test_an_unbatched_picture_pools_as_a_batch_of_one():
    assert_same(ops.avg_pool2d(X[0], 3, 2, 1), ops.avg_pool2d(X, 3, 2, 1)[0], 0)
    assert_same(ops.max_pool2d(X[0], 3, 2, 1), ops.max_pool2d(X, 3, 2, 1)[0], 0)
    assert_same(ops.pool_mixer(X[0]), ops.pool_mixer(X)[0], 0)
    assert_same(ops.adaptive_avg_pool2d(X[0], (2, 5)), ops.adaptive_avg_pool2d(X, (2, 5))[0], 0)
    assert_same(ops.adaptive_max_pool2d(X[0], (2, 5)), ops.adaptive_max_pool2d(X, (2, 5))[0], 0)


def test_an_empty_batch_pools_to_an_empty_batch():
    assert ops.avg_pool2d(X[:0], 3, 2, 1).shape == (0, 4, 4, 3)
    assert ops.max_pool2d(X[:0], 3, 2, 1).shape == (0, 4, 4, 3)
    assert ops.pool_mixer(X[:0]).shape == (0, 4, 7, 6)
    assert ops.adaptive_avg_pool2d(X[:0], (2, 5)).shape == (0, 4, 2, 5)
    assert ops.adaptive_max_pool2d(X[:0], (2, 5)).shape == (0, 4, 2, 5)


# --- refusals ------------------------------------------------------------------------------------------------------

BAD_POOL = {
    "a picture of rank 2": ((X[0, 0], 3), {}, ValueError, ("x", "(B, C, H, W)", "(7, 6)")),
    "a picture of rank 5": ((X[None], 3), {}, ValueError, ("x", "(B, C, H, W)", "(1, 2, 4, 7, 6)")),
    "kernel 0": ((X, 0), {}, ValueError, ("kernel_size", "at least 1", "got 0")),
    "a fractional kernel": ((X, 2.5), {}, TypeError, ("kernel_size", "whole number", "2.5")),
    "three kernels": ((X, (3, 3, 3)), {}, TypeError, ("kernel_size", "two", "(3, 3, 3)")),
    "a kernel that does not fit": ((X, (3, 7)), {}, ValueError, ("x", "6 pixels", "spans 7")),
    "stride 0": ((X, 3, 0), {}, ValueError, ("stride", "at least 1", "got 0")),
    "a fractional stride": ((X, 3, 2.0), {}, TypeError, ("stride", "whole number", "2.0")),
    "negative padding": ((X, 3, 1, -1), {}, ValueError, ("padding", "at least 0", "-1")),
    "padding beyond half": ((X, 3, 1, 2), {}, ValueError, ("padding", "half of the kernel (3, 3)", "got 2")),
    "width padded too far": ((X, (4, 3), 1, (2, 2)), {}, ValueError, ("padding", "half", "(4, 3)", "(2, 2)")),
    "padding in words": ((X, 3, 1, "same"), {}, TypeError, ("padding", "whole number", "'same'")),
    "a picture of no pixels": ((X[:, :, :, :0], 2, 1, 1), {}, ValueError, ("x", "too small", "0 pixels")),
}


@pytest.mark.parametrize("name", ["avg_pool2d", "max_pool2d"])
@pytest.mark.parametrize("case", BAD_POOL)
def test_both_poolings_refuse(name, case):
    args, kwargs, error, words = BAD_POOL[case]
    with refuses(error, *words):
        getattr(ops, name)(*args, **kwargs)


BAD_ADAPTIVE = {
    "a picture of rank 2": ((X[0, 0], 3), ValueError, ("x", "(B, C, H, W)", "(C, H, W)", "(7, 6)")),
    "a picture of rank 5": ((X[None], 3), ValueError, ("x", "(B, C, H, W)", "(1, 2, 4, 7, 6)")),
    "whole numbers": ((X.astype(int), 3), TypeError, ("x", "floats", "int64")),
    "yes and no": ((X > 0, 3), TypeError, ("x", "floats", "bool")),
    "a list": ((X.tolist(), 3), TypeError, ("x", "NumPy array", "list")),
    "no rows": ((X[:, :, :0], 3), ValueError, ("x", "at least one pixel", "(2, 4, 0, 6)")),
    "no columns": ((X[..., :0], 3), ValueError, ("x", "at least one pixel", "(2, 4, 7, 0)")),
    "no pixels in no pictures": ((X[:0, :, :0], 3), ValueError, ("x", "at least one pixel", "(0, 4, 0, 6)")),
    "no cells": ((X, 0), ValueError, ("output_size", "at least 1", "got 0")),
    "no cells across": ((X, (3, 0)), ValueError, ("output_size", "at least 1", "(3, 0)")),
    "less than no cells": ((X, -1), ValueError, ("output_size", "at least 1", "got -1")),
    "a fractional number": ((X, 2.0), TypeError, ("output_size", "whole number", "2.0")),
    "one fractional number": ((X, (2, 2.5)), TypeError, ("output_size", "whole number", "(2, 2.5)")),
    "a yes": ((X, True), TypeError, ("output_size", "whole number", "True")),
    "a number and a no": ((X, (2, False)), TypeError, ("output_size", "whole number", "(2, False)")),
    "three numbers": ((X, (1, 2, 3)), TypeError, ("output_size", "two", "(1, 2, 3)")),
    "no number": ((X, ()), TypeError, ("output_size", "two", "()")),
    "a word": ((X, "all"), TypeError, ("output_size", "whole number", "'all'")),
    "nothing": ((X, None), TypeError, ("output_size", "whole number", "None")),
}


@pytest.mark.parametrize("name", ADAPTIVE)
@pytest.mark.parametrize("case", BAD_ADAPTIVE)
def test_both_adaptive_poolings_refuse(name, case):
    args, error, words = BAD_ADAPTIVE[case]
    with refuses(error, *words):
        getattr(ops, name)(*args)


def test_avg_pool2d_refuses_a_divisor_of_zero_or_a_fraction():
    with refuses(ValueError, "divisor_override", "not be 0"):
        ops.avg_pool2d(X, 3, divisor_override=0)
    with refuses(TypeError, "divisor_override", "whole number", "2.5"):
        ops.avg_pool2d(X, 3, divisor_override=2.5)


def test_max_pool2d_refuses_a_dilation_that_is_zero_or_too_wide():
    with refuses(ValueError, "dilation", "at least 1", "got 0"):
        ops.max_pool2d(X, 3, dilation=0)
    with refuses(ValueError, "x", "7 pixels", "spans 9"):
        ops.max_pool2d(X, 3, dilation=(4, 1))


@pytest.mark.parametrize(
    ("pool_size", "error", "words"),
    [
        (2, ValueError, ("odd", "got 2")),
        (0, ValueError, ("odd", "got 0")),
        (-1, ValueError, ("odd", "got -1")),
        (3.0, TypeError, ("whole number", "3.0")),
        ((3, 3), TypeError, ("whole number", "(3, 3)")),
    ],
)
def test_pool_mixer_refuses_a_size_that_has_no_middle(pool_size, error, words):
    with refuses(error, "pool_size", *words):
        ops.pool_mixer(X, pool_size)


def test_pool_mixer_refuses_a_picture_of_rank_2():
    with refuses(ValueError, "x", "(B, C, H, W)", "(7, 6)"):
        ops.pool_mixer(X[0, 0])
