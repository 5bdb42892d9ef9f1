"""Input checks shared by all ops: one sentence naming the argument, the value given and the requirement."""

from __future__ import annotations

from collections.abc import Collection
from numbers import Integral

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]


def check_float(*, optional: Collection[str] = (), **arrays: Array | None) -> None:
    """Refuse anything but NumPy arrays of floats, and arrays of different float types together.

    Nothing is promoted silently: float32 in means float32 out, so a float64 weight beside a float32 picture is a
    mistake to report, as it is in PyTorch. `None` passes for the names in `optional` (an absent bias).

    Raises TypeError.
    """
    first: tuple[str, np.dtype] | None = None
    for name, array in arrays.items():
        if array is None and name in optional:
            continue
        if not isinstance(array, np.ndarray):
            raise TypeError(f"{name} must be a NumPy array of floats, got {type(array).__name__}")
        if not np.issubdtype(array.dtype, np.floating):
            raise TypeError(f"{name} must hold floats, got dtype {array.dtype}; convert it with .astype(np.float32)")
        if first is None:
            first = (name, array.dtype)
        elif array.dtype != first[1]:
            raise TypeError(f"{name} must have the dtype of {first[0]}, {first[1]}, got {array.dtype}")


def check_shape(name: str, array: Array | None, shape: tuple[int, ...], why: str) -> None:
    """Refuse an array of another shape than `shape`; `None` passes. Raises ValueError."""
    if array is not None and array.shape != shape:
        raise ValueError(f"{name} must have shape {shape} ({why}), got {array.shape}")


def check_rank(name: str, array: Array, ranks: tuple[int, ...], layout: str) -> None:
    """Refuse an array of another number of dimensions than those in `ranks`. Raises ValueError."""
    if array.ndim not in ranks:
        raise ValueError(f"{name} must be laid out as {layout}, got shape {array.shape}")


def check_axis(name: str, dim: int, ndim: int) -> None:
    """Refuse an axis that an array of `ndim` dimensions does not have; a single number passes as one of length 1.

    Raises TypeError or, as torch does, IndexError.
    """
    if not isinstance(dim, Integral):
        raise TypeError(f"{name} must be a whole number, got {dim!r}")
    axes = max(ndim, 1)
    if not -axes <= dim < axes:
        raise IndexError(f"{name} must lie between {-axes} and {axes - 1} for an array of rank {ndim}, got {dim}")
