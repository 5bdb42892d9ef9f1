"""Convolution and pooling as plain loops: slow, obvious, and the reference for the tests of the fast versions."""

from __future__ import annotations

import numpy as np

from ._check import Array
from .window import Padding, Pair, output_size, pair, resolve_padding


def conv2d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    stride: int | Pair = 1,
    padding: Padding = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
) -> Array:
    """Convolve straight from the formula: (B, C, H, W), (O, C/groups, kH, kW) -> (B, O, H', W').

    out[b, o, y, x] = bias[o] + sum over c, i, j of weight[o, c, i, j] * picture[b, c, y*s + i*d - top, ...],
    with x*s + j*d - left for the last index; pixels outside the picture are 0. The fast twin is `ops.conv2d`;
    arguments and source as there.
    """
    batch, _, height, width = x.shape
    filters, per_group, *kernel = weight.shape
    (sy, sx), (dy, dx) = pair("stride", stride, 1), pair("dilation", dilation, 1)
    pads = resolve_padding(padding, (kernel[0], kernel[1]), (sy, sx), (dy, dx))
    rows = output_size(height, kernel[0], sy, pads[0], dy)
    columns = output_size(width, kernel[1], sx, pads[1], dx)
    out = np.zeros((batch, filters, rows, columns), x.dtype)
    for b, o, y, col in np.ndindex(out.shape):
        first = o // (filters // groups) * per_group  # the first channel this filter's group sees
        total = 0.0 if bias is None else bias[o]
        for c, i, j in np.ndindex(per_group, kernel[0], kernel[1]):
            v, u = y * sy + i * dy - pads[0][0], col * sx + j * dx - pads[1][0]
            if 0 <= v < height and 0 <= u < width:
                total += weight[o, c, i, j] * x[b, first + c, v, u]
        out[b, o, y, col] = total
    return out


def avg_pool2d(
    x: Array,
    kernel_size: int | Pair,
    stride: int | Pair | None = None,
    padding: int | Pair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Array:
    """Average each window by looping over it: (B, C, H, W) -> (B, C, H', W'). The fast twin is `ops.avg_pool2d`.

    The divisor counts the window's pixels inside the picture, or, with `count_include_pad`, inside the padding too.
    """
    return _pool(x, kernel_size, stride, padding, 1, ceil_mode, maximum=False, include_pad=count_include_pad)


def max_pool2d(
    x: Array,
    kernel_size: int | Pair,
    stride: int | Pair | None = None,
    padding: int | Pair = 0,
    dilation: int | Pair = 1,
    ceil_mode: bool = False,
) -> Array:
    """Take the maximum of each window by looping over it: (B, C, H, W) -> (B, C, H', W'). Twin of `ops.max_pool2d`."""
    return _pool(x, kernel_size, stride, padding, dilation, ceil_mode, maximum=True, include_pad=False)


def adaptive_avg_pool2d(x: Array, output_size: int | Pair) -> Array:
    """Average each cell of a grid: (B, C, H, W) -> (B, C, *output_size). The fast twin is `ops.adaptive_avg_pool2d`.

    The grid is stretched over the picture, and a cell takes every pixel that it touches, however little.
    """
    return _adaptive_pool(x, output_size, maximum=False)


def adaptive_max_pool2d(x: Array, output_size: int | Pair) -> Array:
    """Take the maximum of each cell of a grid, pixels partly in it included: (B, C, H, W) -> (B, C, *output_size).

    The fast twin is `ops.adaptive_max_pool2d`.
    """
    return _adaptive_pool(x, output_size, maximum=True)


def _adaptive_pool(x: Array, output_size: int | Pair, maximum: bool) -> Array:
    """Gather the pixels that a cell touches, for both adaptive poolings, and take their maximum or their mean."""
    batch, channels, height, width = x.shape
    rows, columns = pair("output_size", output_size, 1)
    out = np.zeros((batch, channels, rows, columns), x.dtype)
    for b, c, y, col in np.ndindex(out.shape):
        pixels = []
        for v, u in np.ndindex(height, width):
            # pixel v covers v .. v + 1 and cell y covers y * H/O .. (y + 1) * H/O; both sides times O, for integers
            in_rows = v * rows < (y + 1) * height and y * height < (v + 1) * rows
            in_columns = u * columns < (col + 1) * width and col * width < (u + 1) * columns
            if in_rows and in_columns:
                pixels.append(x[b, c, v, u])
        out[b, c, y, col] = np.max(pixels) if maximum else sum(pixels) / len(pixels)
    return out


def _pool(
    x: Array,
    kernel_size: int | Pair,
    stride: int | Pair | None,
    padding: int | Pair,
    dilation: int | Pair,
    ceil_mode: bool,
    maximum: bool,
    include_pad: bool,
) -> Array:
    """Gather a window's pixels in a list, for both poolings, and take the maximum, or the sum over the count."""
    batch, channels, height, width = x.shape
    kernel = pair("kernel_size", kernel_size, 1)
    (sy, sx), (py, px) = pair("stride", kernel if stride is None else stride, 1), pair("padding", padding, 0)
    dy, dx = pair("dilation", dilation, 1)
    rows = output_size(height, kernel[0], sy, (py, py), dy, ceil_mode)
    columns = output_size(width, kernel[1], sx, (px, px), dx, ceil_mode)
    out = np.zeros((batch, channels, rows, columns), x.dtype)
    for b, c, y, col in np.ndindex(out.shape):
        pixels, padded = [], 0
        for i, j in np.ndindex(*kernel):
            v, u = y * sy + i * dy - py, col * sx + j * dx - px
            if 0 <= v < height and 0 <= u < width:
                pixels.append(x[b, c, v, u])
            elif v < height + py and u < width + px:
                padded += 1
        count = len(pixels) + (padded if include_pad else 0)
        out[b, c, y, col] = np.max(pixels, initial=-np.inf) if maximum else sum(pixels) / count
    return out
