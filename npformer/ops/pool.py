"""Pooling: replace each neighbourhood by its mean or its maximum."""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Integral

import numpy as np

from ._check import Array, check_float, check_rank
from .window import Pair, output_sizes, pad2d, pair, taps


def avg_pool2d(
    x: Array,
    kernel_size: int | Pair,
    stride: int | Pair | None = None,
    padding: int | Pair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Array:
    """Average each window: (B, C, H, W) -> (B, C, H', W').

    out[b, c, y, x] = (sum of the window) / divisor

    The divisor matters at the border: with `count_include_pad` (torch's default) the padded zeros count as pixels and
    the border becomes too dark; without it only real pixels count. EfficientFormer's token mixer uses
    `count_include_pad=False`. `stride` defaults to the kernel; `ceil_mode` lets a last window extend beyond the
    border.

    The window's sum is separable: first along the columns, then along the rows, kH + kW additions instead of kH * kW.

    Raises TypeError or ValueError. Source: `torch.nn.functional.avg_pool2d`.
    """
    kernel, step, pads = _geometry(x, kernel_size, stride, padding)
    if not (divisor_override is None or isinstance(divisor_override, Integral)):
        raise TypeError(f"divisor_override must be a whole number, got {divisor_override!r}")
    if divisor_override == 0:
        raise ValueError("divisor_override must not be 0")
    size = output_sizes(x.shape[-2:], kernel, step, pads, (1, 1), ceil_mode)
    total = _sum_windows(pad2d(x, _cover(x, kernel, step, pads, size)), kernel, size, step)
    if divisor_override is not None:
        total /= x.dtype.type(divisor_override)
        return total
    counts = [_counts(x.shape[a - 2], kernel[a], step[a], pads[a][0], size[a], count_include_pad) for a in (0, 1)]
    total /= np.outer(*counts).astype(x.dtype)
    return total


def max_pool2d(
    x: Array,
    kernel_size: int | Pair,
    stride: int | Pair | None = None,
    padding: int | Pair = 0,
    dilation: int | Pair = 1,
    ceil_mode: bool = False,
) -> Array:
    """Take the maximum of each window: (B, C, H, W) -> (B, C, H', W').

    The padding counts as minus infinity, so it never wins; NaN always does, as in torch.

    Raises TypeError or ValueError. Source: `torch.nn.functional.max_pool2d`.
    """
    kernel, step, pads = _geometry(x, kernel_size, stride, padding)
    spread = pair("dilation", dilation, 1)
    size = output_sizes(x.shape[-2:], kernel, step, pads, spread, ceil_mode)
    reach = (spread[0] * (kernel[0] - 1) + 1, spread[1] * (kernel[1] - 1) + 1)  # extent of a dilated kernel in pixels
    out = np.full((*x.shape[:-2], *size), -np.inf, x.dtype)
    for _, _, view in taps(pad2d(x, _cover(x, reach, step, pads, size), -np.inf), kernel, size, step, spread):
        np.maximum(out, view, out=out)
    return out


def adaptive_avg_pool2d(x: Array, output_size: int | Pair) -> Array:
    """Average each cell of a grid, whatever the size of the picture: (B, C, H, W) -> (B, C, *output_size).

    out[b, c, i, j] = mean of x[b, c, floor(i*H/O) : ceil((i+1)*H/O), likewise j]

    With `output_size` 1 it is the mean over the whole picture. Summed in float64 and rounded once.

    Raises TypeError or ValueError. Source: `torch.nn.functional.adaptive_avg_pool2d`.
    """
    out = _grid(x, output_size)
    for i, j, cell in _cells(x, out.shape[-2:]):
        out[..., i, j] = cell.mean((-2, -1), dtype=np.float64)
    return out


def adaptive_max_pool2d(x: Array, output_size: int | Pair) -> Array:
    """Take the maximum of each cell of a grid: (B, C, H, W) -> (B, C, *output_size), as in `adaptive_avg_pool2d`.

    Raises TypeError or ValueError. Source: `torch.nn.functional.adaptive_max_pool2d`.
    """
    out = _grid(x, output_size)
    for i, j, cell in _cells(x, out.shape[-2:]):
        out[..., i, j] = cell.max((-2, -1))
    return out


def pool_mixer(x: Array, pool_size: int = 3) -> Array:
    """Subtract each pixel from the mean of its neighbourhood, PoolFormer's token mixer: (B, C, H, W), same out.

    out = avg_pool(x) - x, over pool_size x pool_size windows at stride 1, counting real pixels only at the border.

    The block around it adds x back, hence the subtraction: x + scale * (mean - x) moves each pixel towards
    its neighbours' mean. No weights at all; MetaFormer's claim is that mixing matters more than how it is done.

    Raises TypeError or ValueError, for an even `pool_size` too (the result would have another size than x).
    Source: Yu et al. 2022, "MetaFormer Is Actually What You Need for Vision", algorithm 1.
    """
    if not isinstance(pool_size, Integral):
        raise TypeError(f"pool_size must be a whole number, got {pool_size!r}")
    if pool_size < 1 or pool_size % 2 == 0:
        raise ValueError(f"pool_size must be odd so that the mixer keeps the size of x, got {pool_size}")
    return avg_pool2d(x, pool_size, 1, pool_size // 2, count_include_pad=False) - x


def token_mean(x: Array) -> Array:
    """Average all tokens, the last step before a classifier: (B, N, D) -> (B, D).

    Summed in float64 and rounded once, whatever the dtype.

    Raises TypeError or ValueError.
    """
    check_float(x=x)
    check_rank("x", x, (3,), "(B, N, D)")
    return x.mean(axis=1, dtype=np.float64).astype(x.dtype)


def _grid(x: Array, output_size: int | Pair) -> Array:
    """Check an adaptive pooling's arguments and allocate its result."""
    check_float(x=x)
    check_rank("x", x, (3, 4), "(B, C, H, W) or (C, H, W)")
    if min(x.shape[-2:]) < 1:
        raise ValueError(f"x must have at least one pixel, got shape {x.shape}")
    return np.empty((*x.shape[:-2], *pair("output_size", output_size, 1)), x.dtype)


def _cells(x: Array, grid: tuple[int, ...]) -> Iterator[tuple[int, int, Array]]:
    """Yield (i, j, view) for every cell of a grid over the picture; neighbouring cells may share a row or column."""
    height, width = x.shape[-2:]
    for i in range(grid[0]):
        rows = slice(i * height // grid[0], -(-(i + 1) * height // grid[0]))
        for j in range(grid[1]):
            yield i, j, x[..., rows, j * width // grid[1] : -(-(j + 1) * width // grid[1])]


def _geometry(
    x: Array, kernel_size: int | Pair, stride: int | Pair | None, padding: int | Pair
) -> tuple[Pair, Pair, tuple[Pair, Pair]]:
    """Check a pooling's arguments and read them as kernel, stride and ((top, bottom), (left, right))."""
    check_float(x=x)
    check_rank("x", x, (3, 4), "(B, C, H, W) or (C, H, W)")
    kernel = pair("kernel_size", kernel_size, 1)
    step = kernel if stride is None else pair("stride", stride, 1)
    vertical, horizontal = pair("padding", padding, 0)
    if vertical > kernel[0] // 2 or horizontal > kernel[1] // 2:
        raise ValueError(f"padding must be at most half of the kernel {kernel}, got {padding!r}")
    return kernel, step, ((vertical, vertical), (horizontal, horizontal))


def _cover(x: Array, reach: Pair, stride: Pair, pads: tuple[Pair, Pair], size: Pair) -> tuple[Pair, Pair]:
    """Extend the padding to cover `ceil_mode`'s last window, which extends beyond the border."""
    (top, bottom), (left, right) = (
        (before, max(after, (size[a] - 1) * stride[a] + reach[a] - x.shape[a - 2] - before))
        for a, (before, after) in enumerate(pads)
    )
    return (top, bottom), (left, right)


def _sum_windows(x: Array, kernel: Pair, size: Pair, stride: Pair) -> Array:
    """Sum every window, axis by axis: (..., H, W) -> (..., H', W')."""
    height, width = size
    columns = np.zeros((*x.shape[:-2], height, x.shape[-1]), x.dtype)
    for _, _, view in taps(x, (kernel[0], 1), (height, x.shape[-1]), (stride[0], 1), (1, 1)):
        columns += view
    total = np.zeros((*x.shape[:-2], height, width), x.dtype)
    for _, _, view in taps(columns, (1, kernel[1]), (height, width), (1, stride[1]), (1, 1)):
        total += view
    return total


def _counts(size: int, kernel: int, stride: int, pad: int, outputs: int, include_pad: bool) -> np.ndarray:
    """Return how many pixels of one axis each window counts.

    Padded zeros beyond size + pad (from ceil_mode) never count.
    """
    start = np.arange(outputs) * stride - pad
    end = np.minimum(start + kernel, size + pad)
    if include_pad:
        return end - start
    return np.minimum(end, size) - np.maximum(start, 0)
