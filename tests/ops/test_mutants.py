"""Subtly wrong versions of the ops, and the tests that catch each of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pytest

from npformer import ops
from npformer.ops import activation, attention, conv, loss, norm, pool, window
from tests.sweep import first_of_each, sweep

from . import (
    test_activation,
    test_attention,
    test_conv,
    test_every_op,
    test_linear,
    test_loss,
    test_naive,
    test_norm,
    test_pool,
)
from .helpers import spread

# The real ones, held on to before anything is patched.
softmax, normalize, relu, silu, tanh = ops.softmax, ops.normalize, ops.relu, ops.silu, ops.tanh
conv2d, im2col, avg_pool2d, max_pool2d = ops.conv2d, ops.im2col, ops.avg_pool2d, ops.max_pool2d
batch_norm, layer_norm, real_linear = ops.batch_norm, ops.layer_norm, ops.linear
cross_entropy, bias_index, same_padding = ops.cross_entropy, ops.attention_bias_index, ops.same_padding
biased_attention, squeeze_excite = ops.biased_attention, ops.squeeze_excite
additive_attention = ops.efficient_additive_attention
adaptive_avg, adaptive_max = ops.adaptive_avg_pool2d, ops.adaptive_max_pool2d
real_pair, pad2d, output_size, resolve_padding = window.pair, window.pad2d, window.output_size, window.resolve_padding
real_counts = pool._counts


class NumpyWith:
    """NumPy with some of its functions replaced."""

    def __init__(self, **replaced: Any):
        self.__dict__ |= replaced

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)


class Mutant(NamedTuple):
    """A wrong version, where it is put, and the tests that must fail under it."""

    where: Any
    name: str
    wrong: Callable[..., Any]
    caught_by: tuple[Callable[[], None], ...]


# --- convolution -----------------------------------------------------------------------------------------------------


def flipped_kernel(x, weight, *args, **kwargs):
    return conv2d(x, weight[..., ::-1, ::-1], *args, **kwargs)


def transposed_kernel(x, weight, *args, **kwargs):
    return conv2d(x, weight.swapaxes(2, 3), *args, **kwargs)


def im2col_kernel_axes_swapped(x, kernel_size, *args, **kwargs):
    height, width = real_pair("kernel_size", kernel_size, 1)
    cols = im2col(x, kernel_size, *args, **kwargs)
    split = cols.reshape(*cols.shape[:-2], x.shape[-3], height, width, cols.shape[-1])
    return split.swapaxes(-2, -3).reshape(cols.shape)


def im2col_channels_fastest(x, kernel_size, *args, **kwargs):
    height, width = real_pair("kernel_size", kernel_size, 1)
    cols = im2col(x, kernel_size, *args, **kwargs)
    split = cols.reshape(*cols.shape[:-2], x.shape[-3], height * width, cols.shape[-1])
    return split.swapaxes(-2, -3).reshape(cols.shape)


def im2col_stride_before_dilation(x, kernel_size, stride=1, padding=0, dilation=1):
    return im2col(x, kernel_size, dilation, padding, stride)


def groups_interleaved(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    order = np.arange(x.shape[-3]).reshape(-1, groups).T.reshape(-1)
    return conv2d(x[..., order, :, :], weight, bias, stride, padding, dilation, groups)


def bias_on_every_tap(x, weight, bias=None, *args, **kwargs):
    return conv2d(x, weight, None if bias is None else bias * weight[0].size, *args, **kwargs)


def bias_forgotten(x, weight, bias=None, *args, **kwargs):
    return conv2d(x, weight, None, *args, **kwargs)


def depthwise_channels_shifted(x, weight, *args, **kwargs):
    return conv2d(x, np.roll(weight, 1, 0), *args, groups=len(weight), **kwargs)


def axes_swapped(name, value, minimum):
    return real_pair(name, value, minimum)[::-1]


def padding_sides_swapped(x, weight, bias=None, stride=1, padding=0, *args):
    vertical, horizontal = resolve_padding(padding, weight.shape[2:], (1, 1), (1, 1))
    return conv2d(x, weight, bias, stride, (horizontal, vertical), *args)


def extra_pixel_before(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    vertical, horizontal = resolve_padding(padding, weight.shape[2:], (1, 1), real_pair("dilation", dilation, 1))
    return conv2d(x, weight, bias, stride, (vertical[::-1], horizontal[::-1]), dilation, groups)


def same_made_symmetric(*args):
    return tuple((-(-sum(side) // 2),) * 2 for side in same_padding(*args))


def same_with_the_extra_before(*args):
    return tuple(side[::-1] for side in same_padding(*args))


def same_that_ignores_the_stride(size, kernel_size, stride=1, dilation=1):
    return same_padding(size, kernel_size, 1, dilation)


CONVOLUTION = {
    "the kernel is flipped": Mutant(
        ops, "conv2d", flipped_kernel,
        (test_conv.test_convolution_slides_the_kernel_without_flipping_it,
         test_naive.test_fast_convolution_equals_the_loops),
    ),
    "the kernel is transposed": Mutant(
        ops, "conv2d", transposed_kernel,
        (test_conv.test_convolution_slides_the_kernel_without_flipping_it,
         test_naive.test_fast_convolution_equals_the_loops),
    ),
    "im2col walks the kernel column by column": Mutant(
        ops, "im2col", im2col_kernel_axes_swapped,
        (test_conv.test_im2col_lists_channel_then_kernel_row_then_kernel_column,
         test_naive.test_im2col_equals_its_formula),
    ),
    "conv2d gets columns in the order of a transposed kernel": Mutant(
        conv, "im2col", im2col_kernel_axes_swapped,
        (test_conv.test_convolution_slides_the_kernel_without_flipping_it,
         test_naive.test_fast_convolution_equals_the_loops),
    ),
    "im2col puts the channels last": Mutant(
        ops, "im2col", im2col_channels_fastest,
        (test_conv.test_im2col_lists_channel_then_kernel_row_then_kernel_column,
         test_naive.test_im2col_equals_its_formula),
    ),
    "im2col takes stride before dilation": Mutant(
        ops, "im2col", im2col_stride_before_dilation, (test_naive.test_im2col_equals_its_formula,),
    ),
    "groups take every n-th channel": Mutant(
        ops, "conv2d", groups_interleaved,
        (test_conv.test_groups_are_blocks_of_neighbouring_channels,
         partial(test_conv.test_groups_are_separate_convolutions_side_by_side, 2)),
    ),
    "the bias is added at every tap": Mutant(
        ops, "conv2d", bias_on_every_tap, (test_naive.test_fast_convolution_equals_the_loops,)
    ),
    "the bias is forgotten": Mutant(
        ops, "conv2d", bias_forgotten, (test_conv.test_each_filter_adds_its_own_bias_once,)
    ),
    "a depthwise filter meets its neighbour's channel": Mutant(
        ops, "depthwise_conv2d", depthwise_channels_shifted,
        (test_conv.test_depthwise_filters_each_channel_alone,
         test_naive.test_fast_depthwise_convolution_equals_the_loops),
    ),
    "stride and dilation count across, then down": Mutant(
        conv, "pair", axes_swapped, (test_conv.test_stride_and_dilation_count_pixels_down_then_across,)
    ),
    "top and bottom trade places with left and right": Mutant(
        ops, "conv2d", padding_sides_swapped, (test_conv.test_two_pairs_of_padding_are_top_bottom_and_left_right,)
    ),
    "padding='same' puts the odd pixel first": Mutant(
        ops, "conv2d", extra_pixel_before,
        (test_conv.test_same_puts_the_odd_pixel_below_and_to_the_right,
         test_naive.test_fast_convolution_equals_the_loops_for_padding_in_words),
    ),
    "TensorFlow's SAME made symmetric": Mutant(
        ops, "same_padding", same_made_symmetric,
        (test_conv.test_same_padding_puts_the_extra_pixel_after_not_before,
         partial(test_conv.test_same_padding_is_the_least_that_gives_ceil_of_size_over_stride, 1)),
    ),
    "TensorFlow's SAME with the extra pixel first": Mutant(
        ops, "same_padding", same_with_the_extra_before,
        (test_conv.test_same_padding_puts_the_extra_pixel_after_not_before,),
    ),
    "TensorFlow's SAME that forgets the stride": Mutant(
        ops, "same_padding", same_that_ignores_the_stride,
        (test_conv.test_same_padding_puts_the_extra_pixel_after_not_before,
         partial(test_conv.test_same_padding_is_the_least_that_gives_ceil_of_size_over_stride, 2)),
    ),
}  # fmt: skip


# --- pooling ---------------------------------------------------------------------------------------------------------


def pooled_with_border(x, pool_size=3):
    return avg_pool2d(x, pool_size, 1, pool_size // 2, count_include_pad=True) - x


def pooled_without_x(x, pool_size=3):
    return avg_pool2d(x, pool_size, 1, pool_size // 2, count_include_pad=False)


def x_minus_pooled(x, pool_size=3):
    return x - avg_pool2d(x, pool_size, 1, pool_size // 2, count_include_pad=False)


def border_left_out_by_default(x, *args, **kwargs):
    return avg_pool2d(x, *args, **({"count_include_pad": False} | kwargs))


def no_window_dropped(size, kernel, stride, pads, dilation, ceil_mode=False):
    room = size + sum(pads) - dilation * (kernel - 1) - 1
    return (-(-room // stride) if ceil_mode else room // stride) + 1


def dilation_ignored(x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
    return max_pool2d(x, kernel_size, stride, padding, 1, ceil_mode)


def overhang_counted(size, kernel, stride, pad, outputs, include_pad):
    return np.full(outputs, kernel) if include_pad else real_counts(size, kernel, stride, pad, outputs, False)


def floor_always(*args):
    return output_size(*args[:5])


def cells_with(begin, end):
    """Cells whose first pixel and the one after the last are reckoned otherwise, but never without a pixel."""

    def edges(pixels, count):
        firsts = [min(begin(i, pixels, count), pixels - 1) for i in range(count)]
        return [slice(first, max(end(i + 1, pixels, count), first + 1)) for i, first in enumerate(firsts)]

    def cells(x, grid):
        for i, rows in enumerate(edges(x.shape[-2], grid[0])):
            for j, columns in enumerate(edges(x.shape[-1], grid[1])):
                yield i, j, x[..., rows, columns]

    return cells


def rounded_down(i, pixels, count):
    return i * pixels // count


def rounded_up(i, pixels, count):
    return -(-i * pixels // count)


def fixed_steps(i, pixels, count):
    return i * max(pixels // count, 1)


def cells_counted_across_first(pool_):
    return lambda x, output_size: pool_(x, real_pair("output_size", output_size, 1)[::-1])


def picture_on_its_side(pool_):
    return lambda x, output_size: pool_(np.ascontiguousarray(x.swapaxes(-1, -2)), output_size)


def average_by_one_divisor(x, output_size):
    height, width = real_pair("output_size", output_size, 1)
    out = np.empty((*x.shape[:-2], height, width), x.dtype)
    for i, j, cell in pool._cells(x, (height, width)):
        out[..., i, j] = cell.sum((-2, -1)) * (height * width / (x.shape[-2] * x.shape[-1]))
    return out


def average_in_the_dtype_of_x(x, output_size):
    out = np.empty((*x.shape[:-2], *real_pair("output_size", output_size, 1)), x.dtype)
    for i, j, cell in pool._cells(x, out.shape[-2:]):
        out[..., i, j] = np.add.accumulate(cell.reshape(*x.shape[:-2], -1), -1)[..., -1]
        out[..., i, j] /= x.dtype.type(cell.shape[-2] * cell.shape[-1])
    return out


def maximum_that_skips_nan(x, output_size):
    return adaptive_max(np.where(np.isnan(x), x.dtype.type(-np.inf), x), output_size)


POOLING = {
    "pool_mixer counts the padded border": Mutant(
        ops, "pool_mixer", pooled_with_border,
        (test_pool.test_pool_mixer_is_the_mean_of_the_real_neighbours_minus_the_pixel,
         test_pool.test_pool_mixer_leaves_nothing_of_a_constant_picture,
         test_naive.test_pool_mixer_equals_the_loops),
    ),
    "pool_mixer forgets to subtract x": Mutant(
        ops, "pool_mixer", pooled_without_x,
        (test_pool.test_pool_mixer_is_the_mean_of_the_real_neighbours_minus_the_pixel,
         test_naive.test_pool_mixer_equals_the_loops),
    ),
    "pool_mixer has the sign turned": Mutant(
        ops, "pool_mixer", x_minus_pooled,
        (test_pool.test_pool_mixer_is_the_mean_of_the_real_neighbours_minus_the_pixel,
         test_naive.test_pool_mixer_equals_the_loops),
    ),
    "avg_pool2d leaves the border out by default": Mutant(
        ops, "avg_pool2d", border_left_out_by_default,
        (test_pool.test_padded_zeros_count_in_the_divisor_by_default,),
    ),
    "the maximum sees padded zeros": Mutant(
        pool, "pad2d", lambda x, pads, value=0.0: pad2d(x, pads),
        (test_pool.test_padding_never_wins_the_maximum_of_negative_pixels,
         test_naive.test_fast_maximum_pooling_equals_the_loops),
    ),
    "ceil_mode keeps a window that begins in the right padding": Mutant(
        window, "output_size", no_window_dropped,
        (test_pool.test_ceil_mode_drops_a_last_window_that_would_begin_in_the_right_padding,
         test_naive.test_fast_average_pooling_equals_the_loops,
         test_naive.test_fast_maximum_pooling_equals_the_loops),
    ),
    "ceil_mode is ignored": Mutant(
        window, "output_size", floor_always,
        (test_pool.test_ceil_mode_keeps_an_overhanging_window_and_counts_its_real_pixels,
         test_naive.test_fast_average_pooling_equals_the_loops),
    ),
    "ceil_mode counts pixels beyond the padding": Mutant(
        pool, "_counts", overhang_counted,
        (test_pool.test_ceil_mode_counts_the_padding_but_never_what_lies_beyond_it,
         test_naive.test_fast_average_pooling_equals_the_loops),
    ),
    "a missing stride means 1": Mutant(
        ops, "avg_pool2d", lambda x, kernel, stride=1, *args, **kwargs: avg_pool2d(x, kernel, stride, *args, **kwargs),
        (test_pool.test_the_stride_defaults_to_the_kernel,),
    ),
    "max_pool2d ignores its dilation": Mutant(
        ops, "max_pool2d", dilation_ignored,
        (test_pool.test_dilated_windows_skip_pixels, test_naive.test_fast_maximum_pooling_equals_the_loops),
    ),
    "a cell's first pixel is rounded up": Mutant(
        pool, "_cells", cells_with(rounded_up, rounded_up),
        (test_pool.test_cells_share_the_pixels_that_their_border_cuts,
         test_pool.test_adaptive_average_on_numbers_worked_by_hand,
         test_pool.test_adaptive_maximum_on_numbers_worked_by_hand,
         test_naive.test_fast_adaptive_average_pooling_equals_the_loops),
    ),
    "a cell's last pixel is rounded down": Mutant(
        pool, "_cells", cells_with(rounded_down, rounded_down),
        (test_pool.test_cells_share_the_pixels_that_their_border_cuts,
         test_pool.test_adaptive_average_on_numbers_worked_by_hand,
         test_naive.test_fast_adaptive_average_pooling_equals_the_loops,
         test_naive.test_fast_adaptive_maximum_pooling_equals_the_loops),
    ),
    "a cell's borders are both rounded the wrong way": Mutant(
        pool, "_cells", cells_with(rounded_up, rounded_down),
        (test_pool.test_more_cells_than_pixels_see_pixels_again,
         test_naive.test_fast_adaptive_maximum_pooling_equals_the_loops),
    ),
    "cells are all as large as the first and leave the rest out": Mutant(
        pool, "_cells", cells_with(fixed_steps, fixed_steps),
        (test_pool.test_cells_share_the_pixels_that_their_border_cuts,
         test_naive.test_fast_adaptive_maximum_pooling_equals_the_loops),
    ),
    "the average's cells are counted across, then down": Mutant(
        ops, "adaptive_avg_pool2d", cells_counted_across_first(adaptive_avg),
        (test_pool.test_a_pair_counts_cells_down_then_across,
         test_naive.test_fast_adaptive_average_pooling_equals_the_loops),
    ),
    "the maximum's cells are counted across, then down": Mutant(
        ops, "adaptive_max_pool2d", cells_counted_across_first(adaptive_max),
        (test_pool.test_a_pair_counts_cells_down_then_across,
         test_naive.test_fast_adaptive_maximum_pooling_equals_the_loops),
    ),
    "the averaged picture lies on its side": Mutant(
        ops, "adaptive_avg_pool2d", picture_on_its_side(adaptive_avg),
        (test_pool.test_adaptive_average_on_numbers_worked_by_hand,
         test_naive.test_fast_adaptive_average_pooling_equals_the_loops),
    ),
    "the picture of the maximum lies on its side": Mutant(
        ops, "adaptive_max_pool2d", picture_on_its_side(adaptive_max),
        (test_pool.test_adaptive_maximum_on_numbers_worked_by_hand,
         test_naive.test_fast_adaptive_maximum_pooling_equals_the_loops),
    ),
    "the adaptive maximum is a mean": Mutant(
        ops, "adaptive_max_pool2d", adaptive_avg,
        (test_pool.test_adaptive_maximum_on_numbers_worked_by_hand, test_pool.test_one_cell_is_the_whole_picture,
         test_naive.test_fast_adaptive_maximum_pooling_equals_the_loops),
    ),
    "the adaptive average is a maximum": Mutant(
        ops, "adaptive_avg_pool2d", adaptive_max,
        (test_pool.test_adaptive_average_on_numbers_worked_by_hand,
         test_pool.test_an_adaptive_average_lies_between_the_smallest_and_the_largest_pixel_of_its_cell),
    ),
    "the adaptive maximum begins at zero": Mutant(
        ops, "adaptive_max_pool2d", lambda x, size: np.maximum(adaptive_max(x, size), 0),
        (test_pool.test_adaptive_maximum_on_numbers_worked_by_hand,
         test_naive.test_fast_adaptive_maximum_pooling_equals_the_loops),
    ),
    "the adaptive maximum hides NaN": Mutant(
        ops, "adaptive_max_pool2d", maximum_that_skips_nan,
        (test_pool.test_nan_wins_every_cell_and_minus_infinity_stays,
         partial(test_pool.test_nan_and_infinity_reach_only_the_cells_that_see_them, "adaptive_max_pool2d")),
    ),
    "every cell is divided by the pixels of a mean cell": Mutant(
        ops, "adaptive_avg_pool2d", average_by_one_divisor,
        (test_pool.test_cells_share_the_pixels_that_their_border_cuts,
         test_pool.test_more_cells_than_pixels_see_pixels_again,
         test_naive.test_fast_adaptive_average_pooling_equals_the_loops),
    ),
    "the adaptive average adds up in float32": Mutant(
        ops, "adaptive_avg_pool2d", average_in_the_dtype_of_x,
        (test_pool.test_adaptive_average_rounds_a_float32_sum_only_once,
         test_pool.test_the_mean_of_the_largest_float32_pixels_is_no_infinity),
    ),
    "the adaptive average comes out in float64": Mutant(
        ops, "adaptive_avg_pool2d", lambda x, output_size: adaptive_avg(x.astype(np.float64), output_size),
        (partial(test_every_op.check_dtype, "adaptive_avg_pool2d", np.float32),),
    ),
    "as many cells as pixels give back x itself": Mutant(
        ops, "adaptive_max_pool2d", lambda x, size: x if x.shape[-2:] == size else adaptive_max(x, size),
        (partial(test_pool.test_as_many_cells_as_pixels_give_the_picture_back_in_memory_of_its_own,
                 "adaptive_max_pool2d"),),
    ),
    "token_mean averages the channels": Mutant(
        ops, "token_mean", lambda x: x.mean(2), (test_pool.test_token_mean_averages_each_channel_over_its_tokens,)
    ),
    "token_mean adds up in float32": Mutant(
        ops, "token_mean", lambda x: np.add.accumulate(x, 1)[:, -1] / x.dtype.type(x.shape[1]),
        (test_pool.test_token_mean_rounds_a_float32_sum_only_once,),
    ),
}  # fmt: skip


# --- normalisation ---------------------------------------------------------------------------------------------------


def batch_norm_with_root_apart(x, mean, var, weight=None, bias=None, eps=1e-5):
    column = (-1,) + (1,) * (x.ndim - 2)
    out = (x - mean.reshape(column)) / (np.sqrt(var) + eps).reshape(column)
    return out * (1 if weight is None else weight.reshape(column)) + (0 if bias is None else bias.reshape(column))


def batch_statistics(x, mean, var, *args, **kwargs):
    axes = (0, *range(2, x.ndim))
    return batch_norm(x, x.mean(axes), x.var(axes), *args, **kwargs)


def layer_norm_by_hand(x, shape, weight=None, bias=None, eps=1e-5, ddof=0, apart=False):
    axes = tuple(range(-len(shape), 0))
    var = x.var(axes, keepdims=True, ddof=ddof)
    out = (x - x.mean(axes, keepdims=True)) / (np.sqrt(var) + eps if apart else np.sqrt(var + eps))
    return out * (1 if weight is None else weight) + (0 if bias is None else bias)


def layer_norm_over_the_last_axis_only(x, shape, weight=None, bias=None, eps=1e-5):
    return layer_norm_by_hand(x, shape[-1:], weight, bias, eps)


def layer_norm_of_squares(x, shape, weight=None, bias=None, eps=1e-5):
    axes = tuple(range(-len(shape), 0))
    mean = x.mean(axes, keepdims=True)
    var = (x * x).mean(axes, keepdims=True) - mean * mean
    out = (x - mean) / np.sqrt(np.maximum(var, 0) + x.dtype.type(eps))
    return out * (1 if weight is None else weight) + (0 if bias is None else bias)


def eps_added_to_the_length(x, p=2.0, dim=1, eps=1e-12):
    return x / (np.linalg.norm(x, ord=p, axis=dim, keepdims=True) + eps)


def length_in_the_dtype_of_x(x, p=2.0, dim=1, eps=1e-12):
    length = np.sqrt(np.add.accumulate(np.square(x), dim).take([-1], dim))
    return x / np.maximum(length, x.dtype.type(eps))


NORMALISATION = {
    "batch_norm with an eps of 1e-3": Mutant(
        ops, "batch_norm", lambda x, m, v, w=None, b=None, eps=1e-3: batch_norm(x, m, v, w, b, eps),
        (test_norm.test_batch_norm_adds_an_eps_of_1e_5_to_the_variance_inside_the_root,),
    ),
    "batch_norm with eps outside the root": Mutant(
        ops, "batch_norm", batch_norm_with_root_apart,
        (test_norm.test_batch_norm_adds_an_eps_of_1e_5_to_the_variance_inside_the_root,
         test_norm.test_batch_norm_on_numbers_worked_by_hand),
    ),
    "batch_norm divides by the variance": Mutant(
        ops, "batch_norm", lambda x, m, v, w=None, b=None, eps=1e-5: batch_norm(x, m, v * v, w, b, eps),
        (test_norm.test_batch_norm_follows_its_formula_in_every_rank,),
    ),
    "batch_norm takes the statistics of the batch": Mutant(
        ops, "batch_norm", batch_statistics,
        (test_norm.test_batch_norm_takes_the_stored_statistics_not_those_of_the_batch,
         test_norm.test_batch_norm_on_numbers_worked_by_hand),
    ),
    "batch_norm trades weight and bias": Mutant(
        ops, "batch_norm", lambda x, m, v, w=None, b=None, eps=1e-5: batch_norm(x, m, v, b, w, eps),
        (test_norm.test_batch_norm_on_numbers_worked_by_hand,
         test_norm.test_batch_norm_follows_its_formula_in_every_rank),
    ),
    "layer_norm with an eps of 1e-3": Mutant(
        ops, "layer_norm", lambda x, s, w=None, b=None, eps=1e-3: layer_norm(x, s, w, b, eps),
        (test_norm.test_layer_norm_adds_an_eps_of_1e_5_to_the_variance_inside_the_root,),
    ),
    "layer_norm with an eps of 1e-12": Mutant(
        ops, "layer_norm", lambda x, s, w=None, b=None, eps=1e-12: layer_norm(x, s, w, b, eps),
        (test_norm.test_layer_norm_adds_an_eps_of_1e_5_to_the_variance_inside_the_root,),
    ),
    "layer_norm divides by n - 1": Mutant(
        ops, "layer_norm", partial(layer_norm_by_hand, ddof=1),
        (test_norm.test_layer_norm_on_numbers_worked_by_hand,
         test_norm.test_layer_norm_gives_each_token_mean_zero_and_variance_one),
    ),
    "layer_norm with eps outside the root": Mutant(
        ops, "layer_norm", partial(layer_norm_by_hand, apart=True),
        (test_norm.test_layer_norm_on_numbers_worked_by_hand,
         partial(test_norm.test_layer_norm_follows_its_formula_over_one_or_more_axes, 2)),
    ),
    "layer_norm looks at the last axis only": Mutant(
        ops, "layer_norm", layer_norm_over_the_last_axis_only,
        (partial(test_norm.test_layer_norm_follows_its_formula_over_one_or_more_axes, 2),),
    ),
    "layer_norm subtracts two large squares": Mutant(
        ops, "layer_norm", layer_norm_of_squares,
        (test_norm.test_layer_norm_keeps_the_digits_of_tokens_far_from_zero,),
    ),
    "normalize adds eps to the length": Mutant(
        ops, "normalize", eps_added_to_the_length,
        (test_norm.test_eps_takes_the_place_of_a_shorter_length_and_is_not_added,),
    ),
    "normalize divides by the squared length": Mutant(
        ops, "normalize", lambda x, p=2.0, dim=1, eps=1e-12: x / np.square(x).sum(dim, keepdims=True),
        (test_norm.test_normalize_on_numbers_worked_by_hand,
         partial(test_norm.test_normalize_gives_unit_length_along_its_axis, 1, 2.0)),
    ),
    "normalize works along the last axis by default": Mutant(
        ops, "normalize", lambda x, p=2.0, dim=-1, eps=1e-12: normalize(x, p, dim, eps),
        (test_norm.test_normalize_works_along_the_second_axis_unless_told,),
    ),
    "normalize adds up in float32": Mutant(
        ops, "normalize", length_in_the_dtype_of_x, (test_norm.test_normalize_adds_up_float32_squares_in_float64,)
    ),
    "normalize divides a zero vector by zero": Mutant(
        norm, "np", NumpyWith(maximum=lambda length, eps: length),
        (test_norm.test_normalize_leaves_a_zero_vector_at_zero,),
    ),
}  # fmt: skip


# --- activations -----------------------------------------------------------------------------------------------------


def erf_from_a_handbook(x):
    t = 1 / (1 + 0.3275911 * np.abs(x))
    p = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    return np.copysign(1 - p * np.exp(-x * x), x).astype(x.dtype)


def softmax_without_shift(x, dim=-1):
    with np.errstate(over="ignore", invalid="ignore"):
        e = np.exp(x)
        return e / e.sum(dim, keepdims=True)


def logarithm_of_softmax(x, dim=-1):
    return np.log(softmax(x, dim))


ACTIVATIONS = {
    "tanh GELU for the exact one in float64": Mutant(
        activation, "_gelu_erf", activation._gelu_tanh,
        (test_activation.test_gelu_is_the_exact_one_in_float64,
         partial(test_activation.test_each_activation_follows_its_formula_in_float64, "gelu")),
    ),
    "tanh GELU for the exact one in float32": Mutant(
        activation, "_gelu_float32", activation._gelu_tanh,
        (test_activation.test_gelu_in_float32_is_off_by_less_than_1e_6_between_minus_10_and_10,),
    ),
    "sigmoid GELU for the exact one": Mutant(
        ops, "gelu", lambda x, approximate="none": ops.quick_gelu(x),
        (test_activation.test_gelu_is_the_exact_one_in_float64,
         test_activation.test_gelu_in_float32_is_off_by_less_than_1e_6_between_minus_10_and_10,
         test_activation.test_gelu_with_tanh_is_the_older_stand_in),
    ),
    "exact GELU for the tanh one": Mutant(
        activation, "_gelu_tanh", activation._gelu_erf, (test_activation.test_gelu_with_tanh_is_the_older_stand_in,)
    ),
    "GELU with the erf of x itself": Mutant(
        activation, "_gelu_erf", lambda x: 0.5 * x * (1 + ops.erf(x)),
        (test_activation.test_gelu_is_the_exact_one_in_float64,),
    ),
    "float32 GELU that overflows on its way": Mutant(
        activation, "_gelu_float32", lambda x: activation._gelu_erf(x) * np.float32(2) * np.float32(0.5),
        (test_activation.test_gelu_is_x_far_to_the_right_and_zero_far_to_the_left,),
    ),
    "erf good for seven digits": Mutant(
        ops, "erf", erf_from_a_handbook,
        (test_activation.test_erf_is_within_two_units_in_the_last_place_in_float64,
         test_activation.test_erf_is_within_one_unit_in_the_last_place_in_float32),
    ),
    "erf that is odd in the wrong half": Mutant(
        ops, "erf", lambda x, erf=ops.erf: np.abs(erf(x)), (test_activation.test_erf_is_odd_and_one_at_infinity,)
    ),
    "ReLU for SiLU": Mutant(
        ops, "silu", relu, (partial(test_activation.test_each_activation_follows_its_formula_in_float64, "silu"),)
    ),
    "SiLU for Mish": Mutant(
        ops, "mish", silu, (partial(test_activation.test_each_activation_follows_its_formula_in_float64, "mish"),)
    ),
    "ReLU for ReLU6": Mutant(
        ops, "relu6", relu,
        (partial(test_activation.test_each_activation_follows_its_formula_in_float64, "relu6"),
         partial(test_activation.test_each_activation_at_infinity_and_nan, "relu6", np.float32)),
    ),
    "a ReLU that hides NaN": Mutant(
        ops, "relu", lambda x: np.where(x > 0, x, x.dtype.type(0)),
        (partial(test_activation.test_each_activation_at_infinity_and_nan, "relu", np.float64),),
    ),
    "leaky ReLU with a slope of 0.1": Mutant(
        ops, "leaky_relu", lambda x, negative_slope=0.1: np.where(x > 0, x, x * x.dtype.type(negative_slope)),
        (partial(test_activation.test_each_activation_follows_its_formula_in_float64, "leaky_relu"),),
    ),
    "SELU without its scale": Mutant(
        ops, "selu", lambda x: np.where(x > 0, x, 1.6732632423543772 * np.expm1(np.minimum(x, 0))),
        (partial(test_activation.test_each_activation_follows_its_formula_in_float64, "selu"),),
    ),
    "tanh for sigmoid": Mutant(
        ops, "sigmoid", tanh,
        (partial(test_activation.test_each_activation_follows_its_formula_in_float64, "sigmoid"),),
    ),
    "softmax along the first axis by default": Mutant(
        ops, "softmax", lambda x, dim=0: softmax(x, dim),
        (test_activation.test_softmax_on_numbers_worked_by_hand,
         test_activation.test_softmax_works_along_the_last_axis_unless_told),
    ),
    "softmax over everything": Mutant(
        ops, "softmax", lambda x, dim=-1: softmax(x.reshape(-1)).reshape(x.shape),
        (partial(test_activation.test_softmax_sums_to_one_along_its_axis_and_log_softmax_is_its_logarithm, 1),),
    ),
    "softmax without the shift": Mutant(
        ops, "softmax", softmax_without_shift, (test_activation.test_softmax_neither_overflows_nor_underflows,)
    ),
    "log_softmax as the logarithm of softmax": Mutant(
        ops, "log_softmax", logarithm_of_softmax, (test_activation.test_softmax_neither_overflows_nor_underflows,)
    ),
    "a softmax in float64 throughout": Mutant(
        ops, "softmax", lambda x, dim=-1: softmax(x.astype(np.float64), dim),
        (partial(test_every_op.check_dtype, "softmax", np.float32),),
    ),
    "a ReLU that works in place": Mutant(
        ops, "relu", lambda x: np.maximum(x, 0, out=x), (partial(test_every_op.check_inputs_survive, "relu"),)
    ),
}  # fmt: skip


# --- attention -------------------------------------------------------------------------------------------------------


def grid(resolution):
    height, width = real_pair("resolution", resolution, 1)
    y, x = np.divmod(np.arange(height * width), width)
    return height, width, y[:, None] - y, x[:, None] - x


def transposed_index(resolution):
    height, _, dy, dx = grid(resolution)
    return np.abs(dx) * height + np.abs(dy)


def signed_index(resolution):
    _, width, dy, dx = grid(resolution)
    return np.abs(dy * width + dx)


def columns_first_index(resolution):
    height, width = real_pair("resolution", resolution, 1)
    return bias_index((width, height))


def attention_by_hand(query, key, value, bias, scale=None, tap=None, axis=-1):
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    probs = softmax(query @ key.swapaxes(2, 3) * scale + bias, axis)
    return probs @ value, probs


def scale_after_the_bias(query, key, value, bias, scale=None, tap=None):
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    probs = softmax((query @ key.swapaxes(2, 3) + bias) * scale)
    return probs @ value, probs


def queries_and_keys_swapped(query, key, value, bias, scale=None, tap=None):
    return attention_by_hand(key, query, value, bias, scale)


def scale_of_the_values(query, key, value, bias, scale=None, tap=None):
    return attention_by_hand(query, key, value, bias, value.shape[-1] ** -0.5 if scale is None else scale)


def no_scale(query, key, value, bias, scale=None, tap=None):
    return attention_by_hand(query, key, value, bias, 1.0 if scale is None else scale)


def weights_normed_over_their_last_axis(x, p=2.0, dim=1, eps=1e-12):
    return normalize(x, p, -1 if dim == 1 else dim, eps)


def tokens_normed_together(x, p=2.0, dim=1, eps=1e-12):
    return normalize(x, p, 1, eps)


def additive_with(**faults):
    """Additive attention written out again, with some of its steps done wrongly."""

    def op(query, key, w_g, attention_norm="ones", tap=lambda name, value: value):
        shown, k = tap("query", normalize(query, dim=-1)), tap("key", normalize(key, dim=-1))
        q = faults.get("query", lambda shown, raw: shown)(shown, normalize(query, dim=-1))
        scores = q @ w_g * query.dtype.type(query.shape[-1] ** -0.5)
        wrongly = faults.get(attention_norm)
        rightly = np.ones_like(scores) if attention_norm == "ones" else normalize(scores, dim=1)
        weights = tap("weights", wrongly(scores) if wrongly else rightly)
        add = faults.get("add", lambda x: x.sum(1, keepdims=True, dtype=np.float64).astype(x.dtype))
        total = tap("global_query", add(weights * q))
        return total * k, faults.get("back", lambda unit, raw, k, total: unit)(shown, query, k, total)

    return op


def last_of_a_running_sum(x):
    return np.add.accumulate(x, 1)[:, -1:]


LOOPS = test_attention.test_efficient_additive_attention_equals_its_loops_for_both_norms
BACK = (
    test_attention.test_efficient_additive_attention_on_numbers_worked_by_hand, LOOPS,
    partial(test_attention.test_the_second_value_is_the_queries_scaled_to_length_one, "ones"),
    partial(test_attention.test_the_second_value_is_the_queries_scaled_to_length_one, "l2"),
)  # fmt: skip
GROWTH = test_attention.test_the_global_query_grows_with_the_tokens_or_with_the_root_of_their_number
ADDITIVE = {
    "additive attention gives the queries back as they came": Mutant(
        ops, "efficient_additive_attention", additive_with(back=lambda unit, raw, k, total: raw), BACK
    ),
    "additive attention gives the keys back": Mutant(
        ops, "efficient_additive_attention", additive_with(back=lambda unit, raw, k, total: k), BACK
    ),
    "additive attention gives the global query back": Mutant(
        ops, "efficient_additive_attention",
        additive_with(back=lambda unit, raw, k, total: np.broadcast_to(total, k.shape)), BACK,
    ),
    "additive attention gives back queries that were not those of the tap": Mutant(
        ops, "efficient_additive_attention", additive_with(back=lambda unit, raw, k, total: normalize(raw, dim=-1)),
        (test_attention.test_efficient_additive_attention_takes_replacements_and_gives_back_the_queries_it_was_told,),
    ),
    "additive attention goes on with queries that were not those of the tap": Mutant(
        ops, "efficient_additive_attention", additive_with(query=lambda shown, own: own),
        (test_attention.test_efficient_additive_attention_takes_replacements_and_gives_back_the_queries_it_was_told,),
    ),
    "additive attention takes the mean over the tokens": Mutant(
        ops, "efficient_additive_attention", additive_with(add=lambda x: x.mean(1, keepdims=True)),
        (LOOPS, partial(GROWTH, "ones", 4.0), partial(GROWTH, "l2", 2.0)),
    ),
    "additive attention adds its tokens up in float32": Mutant(
        ops, "efficient_additive_attention", additive_with(add=last_of_a_running_sum),
        (test_attention.test_thousands_of_tokens_are_added_up_without_losing_digits,),
    ),
    "additive attention's ones are the scores themselves": Mutant(
        ops, "efficient_additive_attention", additive_with(ones=lambda scores: scores),
        (test_attention.test_with_ones_the_weights_w_g_do_nothing, LOOPS),
    ),
    "additive attention's ones are one over the number of tokens": Mutant(
        ops, "efficient_additive_attention", additive_with(ones=lambda scores: np.ones_like(scores) / scores.shape[1]),
        (partial(GROWTH, "ones", 4.0), LOOPS),
    ),
    "additive attention's l2 leaves the scores as they are": Mutant(
        ops, "efficient_additive_attention", additive_with(l2=lambda scores: scores),
        (test_attention.test_with_l2_the_weights_w_g_count_up_to_a_positive_factor,
         test_attention.test_l2_weights_on_numbers_worked_by_hand, partial(GROWTH, "l2", 2.0)),
    ),
    "additive attention's l2 is a sum of ones": Mutant(
        ops, "efficient_additive_attention", additive_with(l2=lambda scores: normalize(np.ones_like(scores), dim=1)),
        (test_attention.test_with_l2_the_weights_w_g_count_up_to_a_positive_factor,
         test_attention.test_with_l2_and_a_w_g_of_zero_nothing_is_attended_to),
    ),
    "additive attention's l2 drops the sign": Mutant(
        ops, "efficient_additive_attention", additive_with(l2=lambda scores: normalize(np.abs(scores), dim=1)),
        (test_attention.test_with_l2_the_weights_w_g_count_up_to_a_positive_factor, LOOPS),
    ),
    "additive attention's l2 is an l1": Mutant(
        ops, "efficient_additive_attention", additive_with(l2=lambda scores: normalize(scores, 1.0, dim=1)),
        (partial(GROWTH, "l2", 2.0), test_attention.test_l2_weights_on_numbers_worked_by_hand),
    ),
    "additive attention's l2 is a softmax over the tokens": Mutant(
        ops, "efficient_additive_attention", additive_with(l2=lambda scores: softmax(scores, 1)),
        (test_attention.test_with_l2_the_weights_w_g_count_up_to_a_positive_factor, partial(GROWTH, "l2", 2.0)),
    ),
}  # fmt: skip


ATTENTION = {
    "the bias index counts columns by the height": Mutant(
        ops, "attention_bias_index", transposed_index,
        (test_attention.test_bias_index_of_a_two_by_three_grid_worked_by_hand,
         partial(test_attention.test_bias_index_numbers_the_offsets_in_the_order_of_their_first_appearance, (3, 5))),
    ),
    "the bias index keeps the signs of the offsets": Mutant(
        ops, "attention_bias_index", signed_index,
        (test_attention.test_bias_index_of_a_two_by_three_grid_worked_by_hand,
         partial(test_attention.test_bias_index_numbers_the_offsets_in_the_order_of_their_first_appearance, (3, 5))),
    ),
    "the bias index takes width before height": Mutant(
        ops, "attention_bias_index", columns_first_index,
        (test_attention.test_bias_index_of_a_two_by_three_grid_worked_by_hand,),
    ),
    "attention without 1/sqrt(d)": Mutant(
        ops, "biased_attention", no_scale,
        (test_attention.test_biased_attention_equals_its_loops_with_the_scale_of_the_width,),
    ),
    "attention scaled by the width of the values": Mutant(
        ops, "biased_attention", scale_of_the_values,
        (test_attention.test_biased_attention_equals_its_loops_with_the_scale_of_the_width,),
    ),
    "attention that scales the bias too": Mutant(
        ops, "biased_attention", scale_after_the_bias,
        (test_attention.test_biased_attention_equals_its_loops_with_the_scale_of_the_width,
         test_attention.test_biased_attention_takes_another_scale),
    ),
    "attention's softmax runs over the queries": Mutant(
        attention, "softmax", lambda x, dim=-1: softmax(x, -2),
        (test_attention.test_biased_attention_on_numbers_worked_by_hand,
         test_attention.test_every_row_of_attention_sums_to_one),
    ),
    "queries and keys trade places": Mutant(
        ops, "biased_attention", queries_and_keys_swapped,
        (test_attention.test_biased_attention_equals_its_loops_with_the_scale_of_the_width,),
    ),
    "the bias is transposed": Mutant(
        ops, "biased_attention",
        lambda q, k, v, bias, scale=None, tap=None: attention_by_hand(q, k, v, bias.swapaxes(1, 2), scale),
        (test_attention.test_biased_attention_on_numbers_worked_by_hand,
         test_attention.test_biased_attention_equals_its_loops_with_the_scale_of_the_width),
    ),
    "attention whose tap is deaf": Mutant(
        ops, "biased_attention",
        lambda *args, tap=None, **kwargs: biased_attention(*args, **kwargs),
        (test_attention.test_biased_attention_shows_scores_and_probabilities_and_takes_replacements,),
    ),
    "additive attention's l2 runs over the axis of length one": Mutant(
        attention, "normalize", weights_normed_over_their_last_axis,
        (test_attention.test_l2_weights_on_numbers_worked_by_hand,
         test_attention.test_efficient_additive_attention_equals_its_loops_for_both_norms),
    ),
    "additive attention scales queries and keys over the tokens": Mutant(
        attention, "normalize", tokens_normed_together,
        (test_attention.test_efficient_additive_attention_on_numbers_worked_by_hand,
         test_attention.test_efficient_additive_attention_ignores_the_lengths_of_queries_and_keys),
    ),
    "additive attention's ones are a softmax over the tokens": Mutant(
        attention, "softmax", lambda x, dim=-1: softmax(x, 1),
        (test_attention.test_with_ones_the_weights_w_g_do_nothing,
         test_attention.test_efficient_additive_attention_on_numbers_worked_by_hand),
    ),
    "squeeze_excite looks at each channel's maximum": Mutant(
        attention, "adaptive_avg_pool2d", adaptive_max,
        (test_attention.test_squeeze_excite_on_numbers_worked_by_hand,
         test_attention.test_squeeze_excite_shows_squeeze_and_gate_and_takes_replacements),
    ),
    "SiLU as squeeze_excite's gate": Mutant(
        attention, "sigmoid", silu,
        (test_attention.test_squeeze_excite_on_numbers_worked_by_hand,
         test_attention.test_squeeze_excite_equals_its_loops_with_silu_by_default),
    ),
    "ReLU for SiLU inside squeeze_excite": Mutant(
        ops, "squeeze_excite", lambda *args, activation=relu, **kwargs: squeeze_excite(*args, activation, **kwargs)
        if len(args) == 5 else squeeze_excite(*args, **kwargs),
        (test_attention.test_squeeze_excite_equals_its_loops_with_silu_by_default,),
    ),
    "squeeze_excite deaf to its activation": Mutant(
        ops, "squeeze_excite", lambda *args, activation=None, **kwargs: squeeze_excite(*args[:5], **kwargs),
        (test_attention.test_squeeze_excite_takes_another_activation,),
    ),
    "squeeze_excite adds its gate": Mutant(
        ops, "squeeze_excite", lambda x, *args, **kwargs: x + squeeze_excite(x, *args, **kwargs) / x,
        (test_attention.test_squeeze_excite_on_numbers_worked_by_hand,),
    ),
}  # fmt: skip


# --- linear and losses -----------------------------------------------------------------------------------------------


def mean_over_everything(*args, reduction="mean", **kwargs):
    if len(args) > 4:
        args, reduction = args[:4], args[4]
    out = cross_entropy(*args, reduction="none" if reduction == "mean" else reduction, **kwargs)
    return np.asarray(out.mean()) if reduction == "mean" else out


def where_as_product(condition, yes, no):
    return yes if np.ndim(yes) > 1 else np.where(condition, yes, no)


def smoothed_over_the_others(probs, amount):
    classes = probs.shape[-1]
    return probs * (1 - amount) + (1 - probs) * amount / (classes - 1)


def binary_by_hand(x, target, weight=None, reduction="mean", pos_weight=None, fault=""):
    softplus = np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))
    yes = softplus - x if fault == "late" else np.maximum(-x, 0) + np.log1p(np.exp(-np.abs(x)))
    price = 1.0 if pos_weight is None or fault == "unpriced" else pos_weight
    each = price * target * yes + (1 - target) * softplus * (price if fault == "priced twice" else 1)
    return loss._reduce(each * (1 if weight is None else weight), reduction, each.size)


LOSSES = {
    "linear with the weight as it lies": Mutant(
        ops, "linear", lambda x, weight, bias=None: real_linear(x, weight.T, bias),
        (test_linear.test_linear_multiplies_by_the_transposed_weight_and_adds_the_bias,),
    ),
    "linear without bias": Mutant(
        ops, "linear", lambda x, weight, bias=None: real_linear(x, weight),
        (test_linear.test_linear_multiplies_by_the_transposed_weight_and_adds_the_bias,
         test_linear.test_every_vector_is_multiplied_on_its_own),
    ),
    "linear that leaves the last number out": Mutant(
        ops, "linear", lambda x, weight, bias=None: real_linear(x[..., :-1], weight[:, :-1], bias),
        (test_linear.test_every_vector_is_multiplied_on_its_own,
         test_linear.test_long_float32_sums_stay_within_a_few_roundings),
    ),
    "no label smoothing": Mutant(
        loss, "_smooth", lambda probs, amount: probs,
        (partial(test_loss.test_label_smoothing_mixes_the_uniform_distribution_into_the_target, 0.1),),
    ),
    "label smoothing over the other classes only": Mutant(
        loss, "_smooth", smoothed_over_the_others,
        (partial(test_loss.test_label_smoothing_mixes_the_uniform_distribution_into_the_target, 0.1),),
    ),
    "the mean of cross entropy is over all targets": Mutant(
        ops, "cross_entropy", mean_over_everything,
        (test_loss.test_ignored_targets_count_neither_above_nor_below_the_line,
         test_loss.test_class_weights_multiply_each_loss_and_their_sum_divides_the_mean,
         test_loss.test_minus_100_is_ignored_unless_told_otherwise),
    ),
    "class weights are forgotten": Mutant(
        ops, "cross_entropy", lambda x, t, weight=None, *args, **kwargs: cross_entropy(x, t, None, *args, **kwargs),
        (test_loss.test_class_weights_multiply_each_loss_and_their_sum_divides_the_mean,),
    ),
    "the probability instead of its logarithm": Mutant(
        loss, "log_softmax", lambda x, dim=-1: softmax(x, dim),
        (test_loss.test_cross_entropy_on_numbers_worked_by_hand,
         test_loss.test_probabilities_as_target_weigh_every_class),
    ),
    "softmax over the batch": Mutant(
        loss, "log_softmax", lambda x, dim=-1: ops.log_softmax(x, 0),
        (test_loss.test_cross_entropy_on_numbers_worked_by_hand,
         test_loss.test_classes_lie_on_the_second_axis_of_a_map),
    ),
    "an impossible class spoils the sum": Mutant(
        loss, "np", NumpyWith(where=where_as_product),
        (test_loss.test_an_impossible_class_costs_nothing_unless_it_is_the_target,),
    ),
    "half the squared distance": Mutant(
        ops, "mse_loss", lambda a, b, reduction="mean", mse=ops.mse_loss: mse(a, b, reduction) / 2,
        (test_loss.test_mse_loss_on_numbers_worked_by_hand,),
    ),
    "the distance itself": Mutant(
        ops, "mse_loss", lambda a, b, reduction="mean": loss._reduce(np.abs(a - b), reduction, a.size),
        (test_loss.test_mse_loss_on_numbers_worked_by_hand,),
    ),
    "binary cross entropy that loses a confident yes": Mutant(
        ops, "binary_cross_entropy_with_logits", partial(binary_by_hand, fault="late"),
        (partial(test_loss.test_binary_cross_entropy_neither_overflows_nor_loses_a_confident_yes, np.float32),),
    ),
    "binary cross entropy without pos_weight": Mutant(
        ops, "binary_cross_entropy_with_logits", partial(binary_by_hand, fault="unpriced"),
        (test_loss.test_binary_cross_entropy_on_numbers_worked_by_hand,
         partial(test_loss.test_binary_cross_entropy_equals_its_loops, None, spread(5, 4))),
    ),
    "pos_weight on both halves": Mutant(
        ops, "binary_cross_entropy_with_logits", partial(binary_by_hand, fault="priced twice"),
        (test_loss.test_binary_cross_entropy_on_numbers_worked_by_hand,
         partial(test_loss.test_binary_cross_entropy_equals_its_loops, None, spread(5, 4))),
    ),
}  # fmt: skip

FAMILIES = (CONVOLUTION, POOLING, NORMALISATION, ACTIVATIONS, ATTENTION, ADDITIVE, LOSSES)
MUTANTS = {name: mutant for family in FAMILIES for name, mutant in family.items()}
CASES = [(name, test) for name, mutant in MUTANTS.items() for test in mutant.caught_by]


def name_of(value):
    return value if isinstance(value, str) else getattr(value, "func", value).__name__


FIRST = first_of_each(MUTANTS, lambda name: MUTANTS[name][:2])
DEFAULT = [*CASES[::3], *(case for case in CASES if case[0] in FIRST)]


# By default all tests that catch the first mutant of each function, and a third of the others.
@pytest.mark.parametrize(("name", "test"), sweep(CASES, DEFAULT), ids=name_of)
def test_a_wrong_version_is_caught(name, test, monkeypatch):
    mutant = MUTANTS[name]
    monkeypatch.setattr(mutant.where, mutant.name, mutant.wrong)
    with np.errstate(all="ignore"), pytest.raises(AssertionError):
        test()


ALONE = list({repr(test): test for _, test in CASES}.values())


@pytest.mark.parametrize("test", sweep(ALONE, ALONE[::4]), ids=name_of)
def test_the_tests_that_catch_them_pass_without_them(test):
    test()


# The functions that the mutants above modify must be right when unmodified.
STRAIGHT = {
    "cells": (pool, "_cells", cells_with(rounded_down, rounded_up)),
    "additive attention": (ops, "efficient_additive_attention", additive_with()),
}


@pytest.mark.parametrize("what", STRAIGHT)
def test_the_versions_that_are_bent_are_right_before_they_are(what, monkeypatch):
    where, name, right = STRAIGHT[what]
    tests = {
        repr(test): test for mutant in MUTANTS.values() if mutant[:2] == (where, name) for test in mutant.caught_by
    }
    assert len(tests) > 3
    monkeypatch.setattr(where, name, right)
    for test in tests.values():
        test()


def test_no_mutant_shares_its_name_with_another():
    assert len(MUTANTS) == sum(map(len, FAMILIES))
    assert all(mutant.caught_by for mutant in MUTANTS.values())
