"""Arithmetic of the port: rounded to its dtype after every op, sums in a chosen order."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

Array = np.ndarray

DTYPES = ("float16", "bfloat16", "float32", "float64")
ORDERS = ("plain", "reordered", "sequential")


class Arithmetic:
    """Rounding and summing.

    dtype: what every result is rounded to. Half precision is computed in float32 and rounded once per op, as kernels
    with float32 accumulators do; bfloat16 is kept as float32 arrays of such numbers. order: "plain" (NumPy's own),
    "reordered" (even terms, then odd ones), "sequential" (one after the other, as a plain loop does).

    Raises ValueError for an unknown dtype or order.
    """

    def __init__(self, dtype: str = "float32", order: str = "plain") -> None:
        if dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
        if order not in ORDERS:
            raise ValueError(f"order must be one of {', '.join(ORDERS)}, got {order!r}")
        self.dtype, self.order = dtype, order
        self.wide = np.float64 if dtype == "float64" else np.float32

    def round(self, x: Array) -> Array:
        """Round to the dtype; the result is held in the type that is computed in."""
        if self.dtype == "float16":
            return np.asarray(x).astype(np.float16).astype(np.float32)
        if self.dtype == "bfloat16":
            return _to_bfloat16(np.asarray(x).astype(np.float32))
        return np.asarray(x).astype(self.wide, copy=False)

    def dumped(self, x: Array) -> Array:
        """A rounded value as it is written to a dump."""
        return x.astype(np.float16) if self.dtype == "float16" else x

    def number(self, value: float) -> np.floating:
        """A constant in the type that is computed in."""
        return self.wide(value)

    def total(self, x: Array, axis: int) -> Array:
        """The sum along one axis, which is kept with length one."""
        if self.order == "plain":
            return x.sum(axis, keepdims=True)
        x = np.moveaxis(x, axis, 0)
        out = x[::2].sum(0) + x[1::2].sum(0) if self.order == "reordered" else np.cumsum(x, axis=0)[-1]
        return np.moveaxis(out[None], 0, axis)

    def mean(self, x: Array, axis: int) -> Array:
        """The mean along one axis, which is kept with length one."""
        return self.total(x, axis) / self.number(x.shape[axis])

    def product(self, a: Array, b: Array) -> Array:
        """The matrix product (..., M, K) @ (..., K, N)."""
        if self.order == "plain":
            return a @ b
        if self.order == "reordered":
            return a[..., ::2] @ b[..., ::2, :] + a[..., 1::2] @ b[..., 1::2, :]
        return self.add_up(a[..., k, None] * b[..., k, None, :] for k in range(a.shape[-1]))

    def add_up(self, terms: Iterable[Array]) -> Array:
        """The sum of arrays of one shape, at least one."""
        terms = reversed(list(terms)) if self.order == "reordered" else iter(terms)
        out = next(terms).copy()
        for term in terms:
            out += term
        return out


def _to_bfloat16(x: Array) -> Array:
    """Round float32 to the nearest number with 8 significant bits, ties to even; NaN stays NaN."""
    bits = x.view(np.uint32)
    rounded = (bits + (((bits >> 16) & 1) + np.uint32(0x7FFF))) & np.uint32(0xFFFF0000)
    return np.where(np.isnan(x), x, rounded.view(np.float32))
