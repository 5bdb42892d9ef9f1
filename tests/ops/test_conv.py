"""Convolution, im2col and padding: worked numbers, algebra, and refusals (`test_naive.py` has the loop twins)."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from npformer import ops
from npformer.ops import naive, window

from .helpers import assert_same, draw, pixels, refuses

X = draw(1, 2, 4, 7, 6)
W = draw(2, 6, 4, 3, 3)


# --- worked examples -------------------------------------------------------------------------------------------------


def test_convolution_slides_the_kernel_without_flipping_it():
    kernel = np.array([[[[1.0, 2.0], [3.0, 4.0]]]])
    # at (0, 0): 0*1 + 1*2 + 3*3 + 4*4 = 27
    for module in (ops, naive):
        assert_same(module.conv2d(pixels(3, 3), kernel), np.array([[[[27.0, 37.0], [57.0, 67.0]]]]))


def test_each_filter_adds_its_own_bias_once():
    kernels = np.array([1.0, 10.0]).reshape(2, 1, 1, 1)
    out = ops.conv2d(pixels(1, 3), kernels, np.array([0.5, -3.0]))
    assert_same(out, np.array([[[[0.5, 1.5, 2.5]], [[-3.0, 7.0, 17.0]]]]))


def test_groups_are_blocks_of_neighbouring_channels():
    x = np.array([1.0, 2.0, 3.0, 4.0]).reshape(1, 4, 1, 1)
    weight = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [10.0, 1.0]]).reshape(4, 2, 1, 1)
    # filters 0 and 1 see channels 1 2, filters 2 and 3 see 3 4
    for module in (ops, naive):
        assert module.conv2d(x, weight, groups=2).ravel().tolist() == [1.0, 2.0, 7.0, 34.0]


def test_stride_and_dilation_count_pixels_down_then_across():
    row = pixels(3, 7)
    kernel = np.array([[[[1.0, 100.0]]]])
    out = ops.conv2d(row, kernel, stride=(2, 3), dilation=(1, 3))
    assert out.tolist() == [[[[300.0, 603.0], [1714.0, 2017.0]]]]


def test_two_pairs_of_padding_are_top_bottom_and_left_right():
    out = ops.conv2d(np.ones((1, 1, 1, 1)), np.ones((1, 1, 1, 1)), padding=((1, 0), (2, 3)))
    assert out.tolist() == [[[[0.0, 0.0, 0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0, 0.0, 0.0]]]]


def test_same_puts_the_odd_pixel_below_and_to_the_right():
    out = ops.conv2d(pixels(2, 3) + 1, np.ones((1, 1, 2, 2)), padding="same")
    assert out.tolist() == [[[[12.0, 16.0, 9.0], [9.0, 11.0, 6.0]]]]


def test_im2col_lists_channel_then_kernel_row_then_kernel_column():
    cols = ops.im2col(pixels(2, 3, channels=2), (2, 2))
    assert cols.tolist() == [
        [[0.0, 1.0], [1.0, 2.0], [3.0, 4.0], [4.0, 5.0], [6.0, 7.0], [7.0, 8.0], [9.0, 10.0], [10.0, 11.0]]
    ]


def test_im2col_takes_dilation_padding_stride_in_the_order_of_unfold():
    x = draw(3, 2, 3, 8, 9)
    by_position = ops.im2col(x, (2, 3), (3, 1), (1, 2), (2, 3))
    assert_same(by_position, ops.im2col(x, (2, 3), dilation=(3, 1), padding=(1, 2), stride=(2, 3)), 0)
    assert by_position.shape == (2, 3 * 2 * 3, 4 * 4)


def test_one_by_one_im2col_is_the_picture_itself_and_copies_nothing():
    cols = ops.im2col(X, 1)
    assert_same(cols, X.reshape(2, 4, 42), 0)
    assert np.shares_memory(cols, X)


# --- algebra ---------------------------------------------------------------------------------------------------------


def test_dilation_is_a_kernel_with_holes():
    holes = np.zeros((6, 4, 5, 7))
    holes[:, :, ::2, ::3] = W
    assert_same(ops.conv2d(X, W, padding=3, dilation=(2, 3)), ops.conv2d(X, holes, padding=3))


def test_stride_keeps_every_second_pixel_of_the_dense_result():
    assert_same(ops.conv2d(X, W, stride=(2, 3), padding=1), ops.conv2d(X, W, padding=1)[:, :, ::2, ::3])


@pytest.mark.parametrize("groups", [2, 4])
def test_groups_are_separate_convolutions_side_by_side(groups):
    weight = draw(3, 8, 4 // groups, 3, 2)
    bias = draw(4, 8)
    size, filters = 4 // groups, 8 // groups
    parts = [
        ops.conv2d(
            X[:, g * size : (g + 1) * size],
            weight[g * filters : (g + 1) * filters],
            bias[g * filters : (g + 1) * filters],
            padding=1,
        )
        for g in range(groups)
    ]
    assert_same(ops.conv2d(X, weight, bias, padding=1, groups=groups), np.concatenate(parts, axis=1))


def test_a_one_by_one_convolution_is_a_linear_layer_over_channels():
    weight, bias = draw(3, 5, 4, 1, 1), draw(4, 5)
    by_linear = ops.linear(X.transpose(0, 2, 3, 1), weight[:, :, 0, 0], bias).transpose(0, 3, 1, 2)
    assert_same(ops.conv2d(X, weight, bias), by_linear)


def test_depthwise_filters_each_channel_alone():
    weight, bias = draw(3, 4, 1, 3, 2), draw(4, 4)
    parts = [ops.conv2d(X[:, c : c + 1], weight[c : c + 1], bias[c : c + 1], (2, 1), (1, 0)) for c in range(4)]
    expected = np.concatenate(parts, axis=1)
    assert_same(ops.depthwise_conv2d(X, weight, bias, (2, 1), (1, 0)), expected)
    assert_same(ops.conv2d(X, weight, bias, (2, 1), (1, 0), groups=4), expected)


@pytest.mark.parametrize("padding", [1, (1, 1), [1, 1], (1,), ((1, 1), (1, 1)), "same", np.array([1, 1]), np.int64(1)])
def test_all_ways_to_write_a_padding_of_one_agree(padding):
    assert_same(ops.conv2d(X, W, padding=padding), ops.conv2d(X, W, padding=[[1, 1], [1, 1]]), 0)


def test_valid_is_no_padding():
    assert_same(ops.conv2d(X, W, padding="valid"), ops.conv2d(X, W, padding=0), 0)


@pytest.mark.parametrize(("kernel", "dilation"), [((1, 2), 1), ((4, 3), 2), ((2, 5), (3, 1))])
def test_same_keeps_the_size(kernel, dilation):
    assert ops.conv2d(X, draw(3, 2, 4, *kernel), padding="same", dilation=dilation).shape == (2, 2, 7, 6)


def test_an_unbatched_picture_gives_an_unbatched_result():
    assert_same(ops.conv2d(X[0], W), ops.conv2d(X, W)[0])
    assert_same(ops.im2col(X[0], (2, 3), stride=2), ops.im2col(X, (2, 3), stride=2)[0])
    weight = draw(3, 4, 1, 2, 2)
    assert_same(ops.depthwise_conv2d(X[0], weight), ops.depthwise_conv2d(X, weight)[0])


def test_an_empty_batch_gives_an_empty_result():
    assert ops.conv2d(X[:0], W, stride=2).shape == (0, 6, 3, 2)
    assert ops.conv2d(X[:0], draw(3, 4, 1, 3, 3), groups=4).shape == (0, 4, 5, 4)
    assert ops.im2col(X[:0], 3).shape == (0, 36, 20)


def test_nan_reaches_only_the_windows_that_see_it():
    x = draw(3, 1, 1, 6, 6)
    x[0, 0, 2, 3] = np.nan
    with np.errstate(invalid="ignore"):
        out = ops.conv2d(x, draw(4, 1, 1, 3, 3))
    expected = np.zeros((4, 4), bool)
    expected[0:3, 1:4] = True
    assert np.array_equal(np.isnan(out[0, 0]), expected)


# --- TensorFlow's SAME -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dilation", [1, 2, 3])
def test_same_padding_is_the_least_that_gives_ceil_of_size_over_stride(dilation):
    for n, k, s in itertools.product(range(1, 12), range(1, 6), range(1, 5)):
        (before, after), (left, right) = ops.same_padding((n, n), k, s, dilation)
        reach = dilation * (k - 1) + 1
        wanted = -(-n // s)
        enough = [total for total in range(40) if len(range(0, n + total - reach + 1, s)) >= wanted]
        assert before + after == enough[0]
        assert len(range(0, n + before + after - reach + 1, s)) >= wanted
        assert after - before in (0, 1)
        assert (left, right) == (before, after)


def test_same_padding_puts_the_extra_pixel_after_not_before():
    assert ops.same_padding((224, 225), 3, 2) == ((0, 1), (1, 1))
    assert ops.same_padding((7, 6), (2, 5), (1, 3), (1, 2)) == ((0, 1), (3, 3))
    row = np.array([1.0, 2.0, 3.0, 4.0]).reshape(1, 1, 1, 4)
    padding = ops.same_padding((1, 4), (1, 3), (1, 2))
    assert ops.conv2d(row, np.ones((1, 1, 1, 3)), stride=(1, 2), padding=padding).ravel().tolist() == [6.0, 7.0]


def test_same_padding_takes_the_two_axes_apart():
    for n, m in itertools.product(range(1, 8), repeat=2):
        both = ops.same_padding((n, m), (3, 4), (2, 3), (2, 1))
        assert both == (ops.same_padding(n, 3, 2, 2)[0], ops.same_padding(m, 4, 3)[1])


# --- the size of the result ------------------------------------------------------------------------------------------


def windows(size, kernel, stride, pads, dilation, ceil_mode):
    """Count the places a kernel takes by trying them; with ceil_mode the last may overhang by less than a stride."""
    reach, room = dilation * (kernel - 1) + 1, size + sum(pads)
    starts = range(0, room + 1, stride)
    if ceil_mode:
        return sum(s + reach < room + stride and s < size + pads[0] for s in starts)
    return sum(s + reach <= room for s in starts)


@pytest.mark.parametrize("ceil_mode", [False, True])
def test_output_size_counts_the_windows_that_fit(ceil_mode):
    seen = 0
    for n, k, s, d in itertools.product(range(1, 9), range(1, 5), range(1, 5), (1, 2)):
        for pads in [(p, p) for p in range(k // 2 + 1)] if ceil_mode else [(0, 0), (1, 1), (0, 2), (3, 1)]:
            wanted = windows(n, k, s, pads, d, ceil_mode)
            if wanted:
                assert window.output_size(n, k, s, pads, d, ceil_mode) == wanted
                seen += 1
            else:
                with refuses(ValueError, "x is too small", str(n)):
                    window.output_size(n, k, s, pads, d, ceil_mode)
    assert seen > 400


def test_pad2d_surrounds_with_the_value_and_copies_nothing_when_idle():
    x = pixels(1, 2)
    assert window.pad2d(x, ((1, 0), (0, 2)), -7.0).tolist() == [[[[-7.0, -7.0, -7.0, -7.0], [0.0, 1.0, -7.0, -7.0]]]]
    assert window.pad2d(x, ((0, 0), (0, 0))) is x


# --- refusals --------------------------------------------------------------------------------------------------------

BAD_CONV = {
    "a picture of rank 2": ((X[0, 0], W), {}, ValueError, ("x", "(B, C, H, W)", "(7, 6)")),
    "a picture of rank 5": ((X[None], W), {}, ValueError, ("x", "(B, C, H, W)", "(1, 2, 4, 7, 6)")),
    "a weight of rank 3": ((X, W[0]), {}, ValueError, ("weight", "(O, C/groups, kH, kW)", "(4, 3, 3)")),
    "a weight without filters": ((X, W[:0]), {}, ValueError, ("weight", "groups = 1", "got 0")),
    "a weight without kernel": ((X, W[..., :0]), {}, ValueError, ("weight", "at least 1 x 1", "(6, 4, 3, 0)")),
    "other channels": ((X[:, :3], W), {}, ValueError, ("x", "4 channels", "(6, 4, 3, 3)", "got 3")),
    "channels times groups": ((X, W), {"groups": 2}, ValueError, ("x", "8 channels", "groups = 2", "got 4")),
    "groups that do not divide": ((X, W[:5, :2]), {"groups": 2}, ValueError, ("weight", "groups = 2", "got 5")),
    "no groups": ((X, W), {"groups": 0}, ValueError, ("groups", "at least 1", "got 0")),
    "groups as a float": ((X, W), {"groups": 1.0}, TypeError, ("groups", "whole number", "1.0")),
    "a short bias": ((X, W, draw(3, 5)), {}, ValueError, ("bias", "(6,)", "(5,)")),
    "a bias of rank 2": ((X, W, draw(3, 1, 6)), {}, ValueError, ("bias", "(6,)", "(1, 6)")),
    "stride 0": ((X, W), {"stride": 0}, ValueError, ("stride", "at least 1", "got 0")),
    "a fractional stride": ((X, W), {"stride": 1.5}, TypeError, ("stride", "whole number", "1.5")),
    "three strides": ((X, W), {"stride": (1, 2, 3)}, TypeError, ("stride", "two", "(1, 2, 3)")),
    "a truth value as stride": ((X, W), {"stride": True}, TypeError, ("stride", "whole number", "True")),
    "no stride": ((X, W), {"stride": None}, TypeError, ("stride", "whole number", "None")),
    "dilation 0": ((X, W), {"dilation": (1, 0)}, ValueError, ("dilation", "at least 1", "(1, 0)")),
    "negative padding": ((X, W), {"padding": -1}, ValueError, ("padding", "at least 0", "-1")),
    "one negative side": ((X, W), {"padding": ((0, 0), (1, -1))}, ValueError, ("padding", "at least 0", "(1, -1)")),
    "three paddings": ((X, W), {"padding": (1, 1, 1)}, TypeError, ("padding", "two", "(1, 1, 1)")),
    "half a pair of pairs": ((X, W), {"padding": ((1, 1), 1)}, TypeError, ("padding", "two", "((1, 1), 1)")),
    "a fractional padding": ((X, W), {"padding": 0.5}, TypeError, ("padding", "whole number", "0.5")),
    "an unknown word": ((X, W), {"padding": "full"}, ValueError, ("padding", '"same"', '"valid"', "'full'")),
    "same with a stride": ((X, W), {"padding": "same", "stride": 2}, ValueError, ("padding", "stride 1", "(2, 2)")),
    "a kernel that does not fit": ((X, draw(3, 1, 4, 9, 1)), {}, ValueError, ("x", "7 pixels", "spans 9")),
    "a dilated kernel that does not fit": ((X, W), {"dilation": 3}, ValueError, ("x", "6 pixels", "spans 7")),
    "a picture of no pixels": ((X[:, :, :0], W), {"padding": 2}, ValueError, ("x", "too small", "0 pixels")),
}


@pytest.mark.parametrize("case", BAD_CONV)
def test_conv2d_refuses(case):
    args, kwargs, error, words = BAD_CONV[case]
    with refuses(error, *words):
        ops.conv2d(*args, **kwargs)


DEPTHWISE = draw(3, 4, 1, 3, 3)
BAD_DEPTHWISE = {
    "a picture of rank 2": ((X[0, 0], DEPTHWISE), {}, ValueError, ("x", "(B, C, H, W)", "(7, 6)")),
    "filters that see two channels": ((X, draw(3, 2, 2, 3, 3)), {}, ValueError, ("weight", "4")),
    "too few filters": ((X, DEPTHWISE[:3]), {}, ValueError, ("weight", "4", "got 3")),
    "two filters per channel": ((X, draw(3, 8, 1, 3, 3)), {}, ValueError, ("weight", "(4, 1, 3, 3)", "(8, 1, 3, 3)")),
    "no kernel": ((X, DEPTHWISE[:, :, :0]), {}, ValueError, ("weight", "at least 1 x 1", "(4, 1, 0, 3)")),
    "a long bias": ((X, DEPTHWISE, draw(3, 5)), {}, ValueError, ("bias", "(4,)", "(5,)")),
    "stride 0": ((X, DEPTHWISE), {"stride": (0, 1)}, ValueError, ("stride", "at least 1", "(0, 1)")),
    "same with a stride": ((X, DEPTHWISE, None, 2, "same"), {}, ValueError, ("padding", "stride 1")),
}


@pytest.mark.parametrize("case", BAD_DEPTHWISE)
def test_depthwise_conv2d_refuses(case):
    args, kwargs, error, words = BAD_DEPTHWISE[case]
    with refuses(error, *words):
        ops.depthwise_conv2d(*args, **kwargs)


BAD_IM2COL = {
    "a picture of rank 2": ((X[0, 0], 3), {}, ValueError, ("x", "(B, C, H, W)", "(7, 6)")),
    "kernel 0": ((X, 0), {}, ValueError, ("kernel_size", "at least 1", "got 0")),
    "a fractional kernel": ((X, 3.0), {}, TypeError, ("kernel_size", "whole number", "3.0")),
    "a kernel that does not fit": ((X, (1, 8)), {}, ValueError, ("x", "6 pixels", "spans 8")),
    "stride 0": ((X, 3), {"stride": 0}, ValueError, ("stride", "at least 1", "got 0")),
    "dilation 0": ((X, 3), {"dilation": 0}, ValueError, ("dilation", "at least 1", "got 0")),
    "negative padding": ((X, 3), {"padding": -1}, ValueError, ("padding", "at least 0", "-1")),
}


@pytest.mark.parametrize("case", BAD_IM2COL)
def test_im2col_refuses(case):
    args, kwargs, error, words = BAD_IM2COL[case]
    with refuses(error, *words):
        ops.im2col(*args, **kwargs)


BAD_SAME = {
    "an empty picture": (((0, 4), 3), ValueError, ("size", "at least 1", "(0, 4)")),
    "three sizes": (((4, 4, 4), 3), TypeError, ("size", "two", "(4, 4, 4)")),
    "kernel 0": (((4, 4), 0), ValueError, ("kernel_size", "at least 1", "got 0")),
    "stride 0": (((4, 4), 3, 0), ValueError, ("stride", "at least 1", "got 0")),
    "dilation 0": (((4, 4), 3, 1, 0), ValueError, ("dilation", "at least 1", "got 0")),
}


@pytest.mark.parametrize("case", BAD_SAME)
def test_same_padding_refuses(case):
    args, error, words = BAD_SAME[case]
    with refuses(error, *words):
        ops.same_padding(*args)
