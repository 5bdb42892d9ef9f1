"""The loop twins: right on worked numbers themselves, and equal to the fast ops over awkward geometry."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from npformer import ops
from npformer.ops import naive

from .helpers import SETTINGS, assert_same, draw, pixels

PAIRS = st.tuples(st.integers(1, 3), st.integers(1, 3))
SIDES = st.tuples(st.integers(0, 2), st.integers(0, 2))
SIZES = st.tuples(st.integers(1, 7), st.integers(1, 7))
BATCH = st.sampled_from([0, 1, 3])
DTYPE = st.sampled_from([np.float32, np.float64])
SEED = st.integers(0, 2**16)


def tolerance(dtype):
    """Return the largest difference between two orders of the same additions, relative to the largest result."""
    return 2e-6 if dtype == np.float32 else 4e-15


def fits(size, kernel, pads, dilation=(1, 1)):
    """Return whether the kernel fits into the padded picture on both axes."""
    return all(size[a] + sum(pads[a]) >= dilation[a] * (kernel[a] - 1) + 1 for a in (0, 1))


# --- worked examples -------------------------------------------------------------------------------------------------


def test_loop_convolution_on_numbers_worked_by_hand():
    kernel = np.array([[[[1.0, 10.0], [100.0, 1000.0]]]])
    out = naive.conv2d(pixels(2, 3), kernel, np.array([0.5]), stride=(1, 2), padding=((1, 0), (0, 1)))
    # rows -1 0 then 0 1; columns 0 1 then 2 3, where row -1 and column 3 are padding
    assert out.tolist() == [[[[1000.5, 200.5], [4310.5, 502.5]]]]


def test_loop_pooling_on_numbers_worked_by_hand():
    x = pixels(2, 3)
    assert naive.avg_pool2d(x, 2, 1, 1).tolist() == [
        [[[0.0, 0.25, 0.75, 0.5], [0.75, 2.0, 3.0, 1.75], [0.75, 1.75, 2.25, 1.25]]]
    ]
    assert naive.avg_pool2d(x, 2, 1, 1, count_include_pad=False).tolist() == [
        [[[0.0, 0.5, 1.5, 2.0], [1.5, 2.0, 3.0, 3.5], [3.0, 3.5, 4.5, 5.0]]]
    ]
    assert naive.max_pool2d(-x, 2, 1, 1).tolist() == [
        [[[0.0, 0.0, -1.0, -2.0], [0.0, 0.0, -1.0, -2.0], [-3.0, -3.0, -4.0, -5.0]]]
    ]


def test_loop_adaptive_pooling_on_numbers_worked_by_hand():
    x = pixels(2, 3)
    # rows 0 and 1 both lie in the one cell; its columns are 0 1 and 1 2, for the middle one is cut in half
    assert naive.adaptive_avg_pool2d(x, (1, 2)).tolist() == [[[[2.0, 3.0]]]]
    assert naive.adaptive_max_pool2d(-x, (1, 2)).tolist() == [[[[0.0, -1.0]]]]
    # three rows out of two: 0, then both, then 1
    assert naive.adaptive_avg_pool2d(x, (3, 1)).tolist() == [[[[1.0], [2.5], [4.0]]]]
    assert naive.adaptive_max_pool2d(x, (3, 1)).tolist() == [[[[2.0], [5.0], [5.0]]]]


# --- fast against loops ----------------------------------------------------------------------------------------------


@SETTINGS
@given(
    SEED, DTYPE, BATCH, SIZES, st.integers(1, 3), st.integers(1, 2), st.integers(1, 2), PAIRS, PAIRS, PAIRS,
    st.tuples(SIDES, SIDES), st.booleans(),
)  # fmt: skip
def test_fast_convolution_equals_the_loops(
    seed, dtype, batch, size, groups, inner, outer, kernel, stride, dilation, padding, biased
):
    assume(fits(size, kernel, padding, dilation))
    x = draw(seed, batch, groups * inner, *size, dtype=dtype)
    weight = draw(seed + 1, groups * outer, inner, *kernel, dtype=dtype)
    bias = draw(seed + 2, groups * outer, dtype=dtype) if biased else None
    fast = ops.conv2d(x, weight, bias, stride, padding, dilation, groups)
    assert_same(fast, naive.conv2d(x, weight, bias, stride, padding, dilation, groups), tolerance(dtype))


@SETTINGS
@given(SEED, DTYPE, BATCH, SIZES, st.integers(1, 4), PAIRS, PAIRS, PAIRS, st.tuples(SIDES, SIDES), st.booleans())
def test_fast_depthwise_convolution_equals_the_loops(
    seed, dtype, batch, size, channels, kernel, stride, dilation, padding, biased
):
    assume(fits(size, kernel, padding, dilation))
    x = draw(seed, batch, channels, *size, dtype=dtype)
    weight = draw(seed + 1, channels, 1, *kernel, dtype=dtype)
    bias = draw(seed + 2, channels, dtype=dtype) if biased else None
    slow = naive.conv2d(x, weight, bias, stride, padding, dilation, channels)
    assert_same(ops.depthwise_conv2d(x, weight, bias, stride, padding, dilation), slow, tolerance(dtype))
    assert_same(ops.conv2d(x, weight, bias, stride, padding, dilation, channels), slow, tolerance(dtype))


@SETTINGS
@given(SEED, SIZES, PAIRS, PAIRS, st.sampled_from(["same", "valid"]))
def test_fast_convolution_equals_the_loops_for_padding_in_words(seed, size, kernel, dilation, padding):
    assume(padding == "same" or fits(size, kernel, ((0, 0), (0, 0)), dilation))
    x, weight = draw(seed, 2, 2, *size), draw(seed + 1, 3, 2, *kernel)
    slow = naive.conv2d(x, weight, None, 1, padding, dilation)
    assert_same(ops.conv2d(x, weight, None, 1, padding, dilation), slow, tolerance(np.float64))


@SETTINGS
@given(SEED, SIZES, PAIRS, PAIRS, PAIRS)
def test_convolution_with_same_padding_equals_the_loops_and_has_ceil_size(seed, size, kernel, stride, dilation):
    padding = ops.same_padding(size, kernel, stride, dilation)
    x, weight = draw(seed, 2, 2, *size), draw(seed + 1, 3, 2, *kernel)
    fast = ops.conv2d(x, weight, None, stride, padding, dilation)
    assert fast.shape[2:] == tuple(-(-n // s) for n, s in zip(size, stride))
    assert_same(fast, naive.conv2d(x, weight, None, stride, padding, dilation), tolerance(np.float64))


@SETTINGS
@given(SEED, DTYPE, BATCH, SIZES, PAIRS, PAIRS, PAIRS, st.tuples(SIDES, SIDES))
def test_im2col_equals_its_formula(seed, dtype, batch, size, kernel, dilation, stride, padding):
    assume(fits(size, kernel, padding, dilation))
    x = draw(seed, batch, 2, *size, dtype=dtype)
    padded = np.pad(x, ((0, 0), (0, 0), *padding))
    height, width = ((padded.shape[2 + a] - dilation[a] * (kernel[a] - 1) - 1) // stride[a] + 1 for a in (0, 1))
    expected = np.empty((batch, 2 * kernel[0] * kernel[1], height * width), dtype)
    for c, i, j, y, u in np.ndindex(2, *kernel, height, width):
        pixel = padded[:, c, y * stride[0] + i * dilation[0], u * stride[1] + j * dilation[1]]
        expected[:, (c * kernel[0] + i) * kernel[1] + j, y * width + u] = pixel
    assert_same(ops.im2col(x, kernel, dilation, padding, stride), expected, 0)


@st.composite
def poolings(draw_one):
    """Kernel, stride (None: the kernel), padding up to half of the kernel, size of a picture that it fits on."""
    kernel = draw_one(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    stride = draw_one(st.one_of(st.none(), PAIRS))
    padding = tuple(draw_one(st.integers(0, k // 2)) for k in kernel)
    size = tuple(draw_one(st.integers(max(1, k - 2 * p), 8)) for k, p in zip(kernel, padding))
    return kernel, stride, padding, size


@SETTINGS
@given(SEED, DTYPE, BATCH, poolings(), st.booleans(), st.booleans())
def test_fast_average_pooling_equals_the_loops(seed, dtype, batch, geometry, ceil_mode, include_pad):
    kernel, stride, padding, size = geometry
    x = draw(seed, batch, 2, *size, dtype=dtype, shift=0.5)
    fast = ops.avg_pool2d(x, kernel, stride, padding, ceil_mode, include_pad)
    slow = naive.avg_pool2d(x, kernel, stride, padding, ceil_mode, include_pad)
    assert_same(fast, slow, tolerance(dtype))


@SETTINGS
@given(SEED, DTYPE, BATCH, poolings(), PAIRS, st.booleans())
def test_fast_maximum_pooling_equals_the_loops(seed, dtype, batch, geometry, dilation, ceil_mode):
    kernel, stride, padding, size = geometry
    assume(fits(size, kernel, [(p, p) for p in padding], dilation))
    x = draw(seed, batch, 2, *size, dtype=dtype, shift=-2)
    fast = ops.max_pool2d(x, kernel, stride, padding, dilation, ceil_mode)
    assert_same(fast, naive.max_pool2d(x, kernel, stride, padding, dilation, ceil_mode), 0)


GRIDS = st.one_of(st.integers(1, 9), st.tuples(st.integers(1, 9), st.integers(1, 9)))


@SETTINGS
@given(SEED, DTYPE, BATCH, SIZES, GRIDS)
def test_fast_adaptive_average_pooling_equals_the_loops(seed, dtype, batch, size, grid):
    x = draw(seed, batch, 2, *size, dtype=dtype, shift=0.5)
    assert_same(ops.adaptive_avg_pool2d(x, grid), naive.adaptive_avg_pool2d(x, grid), tolerance(dtype))


@SETTINGS
@given(SEED, DTYPE, BATCH, SIZES, GRIDS)
def test_fast_adaptive_maximum_pooling_equals_the_loops(seed, dtype, batch, size, grid):
    x = draw(seed, batch, 2, *size, dtype=dtype, shift=-2)
    assert_same(ops.adaptive_max_pool2d(x, grid), naive.adaptive_max_pool2d(x, grid), 0)


@SETTINGS
@given(SEED, BATCH, SIZES, st.sampled_from([1, 3, 5]))
def test_pool_mixer_equals_the_loops(seed, batch, size, pool_size):
    x = draw(seed, batch, 2, *size, shift=0.5)
    slow = naive.avg_pool2d(x, pool_size, 1, pool_size // 2, count_include_pad=False) - x
    np.testing.assert_allclose(ops.pool_mixer(x, pool_size), slow, rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", ["conv2d", "avg_pool2d", "max_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d"])
def test_the_twins_take_the_arguments_of_the_fast_ops_in_the_same_order(name):
    fast, slow = getattr(ops, name), getattr(naive, name)
    names = slow.__code__.co_varnames[: slow.__code__.co_argcount]
    assert names == fast.__code__.co_varnames[: len(names)]
    defaults = slow.__defaults__ or ()
    assert defaults == (fast.__defaults__ or ())[: len(defaults)]
