"""The fully connected layer, and the matrix product that it shares with convolution."""

from __future__ import annotations

import math

import numpy as np

from ._check import Array, check_float, check_shape

FEW_ROWS = 8  # up to here one matrix-vector product per row is as fast as a matrix product
SUM_PIECE = 192  # float32 products summed in one go


def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """Multiply every vector by one matrix: (..., D), (O, D) -> (..., O).

    y = x @ weight.T + bias

    Raises TypeError or ValueError. Source: `torch.nn.functional.linear`.
    """
    check_float(x=x, weight=weight, bias=bias, optional=("bias",))
    if weight.ndim != 2:
        raise ValueError(f"weight must be laid out as (O, D), got shape {weight.shape}")
    if x.ndim == 0 or x.shape[-1] != weight.shape[1]:
        raise ValueError(f"x must end in D = {weight.shape[1]} (weight {weight.shape}), got shape {x.shape}")
    check_shape("bias", bias, weight.shape[:1], "one number per output")
    rows = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])  # one tall matrix: one product instead of many
    if 0 < len(rows) <= FEW_ROWS:
        # A vector product keeps many partial sums, a matrix product one: the results of a few rows, as in a
        # classifier, are four times as accurate.
        out: Array = np.stack([weight @ row for row in rows])
    else:
        out = matmul(rows, weight.T)
    if bias is not None:
        out += bias
    return out.reshape(*x.shape[:-1], weight.shape[0])


def matmul(a: Array, b: Array) -> Array:
    """Multiply matrices, splitting long float32 sums into pieces: (..., M, I), (..., I, J) -> (..., M, J).

    out[m, j] = sum over i of a[m, i] * b[i, j]

    Adding I rounded products one after the other has an error of about sqrt(I) roundings. OpenBLAS, which NumPy ships,
    adds 450 and more in one go where others stop at half of that. Split into pieces of at most `SUM_PIECE` products,
    whose sums are then added, the result is as accurate as theirs for a few per cent of time. float64 has digits to
    spare.
    """
    size = a.shape[-1]
    if a.dtype == np.float64 or size <= SUM_PIECE:
        return a @ b
    step = -(-size // -(-size // SUM_PIECE))  # as few pieces as possible, of equal length
    out: Array = a[..., :step] @ b[..., :step, :]
    for start in range(step, size, step):
        out += a[..., start : start + step] @ b[..., start : start + step, :]
    return out
