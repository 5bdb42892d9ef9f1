"""Relations between two arrays: equal, in another layout, or changed in a recognisable way."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ...picture import Array
from ..noise import DTYPES, round_to

SAMPLE = 256  # numbers compared before all are
AXES = {4: "OIHW", 2: "OI"}


class Tolerance(NamedTuple):
    """The tolerance of numbers: a unit of rounding and an absolute step; and the dtype's largest number."""

    unit: float
    step: float
    largest: float


def close(ours: Array, theirs: Array, allowed: Tolerance, times: float = 2.0, terms: Array | None = None) -> bool:
    """Return whether arrays of one shape are equal up to rounding, of `terms` where they are larger than `ours`."""
    if theirs.size > 4 * SAMPLE:  # most differing arrays differ early
        some = np.unravel_index(np.random.default_rng(0).integers(0, theirs.size, SAMPLE), theirs.shape)
        if not _all_close(ours[some], theirs[some], allowed, times, None if terms is None else terms[some]):
            return False
    return _all_close(ours, theirs, allowed, times, terms)


def _all_close(ours: Array, theirs: Array, allowed: Tolerance, times: float, terms: Array | None) -> bool:
    bound = np.abs(ours if terms is None else terms) * (times * allowed.unit) + allowed.step
    return bool(np.all(np.abs(theirs - ours) <= bound))


def layouts(ours: Array, theirs: Array, allowed: Tolerance, times: float = 2.0) -> list[tuple[int, ...]]:
    """Return the orders of our axes in which the port's array is ours; none where it is something else.

    Axes of length one may be added or removed; neighbouring axes may be merged in the port, or one of ours split.
    """
    if ours.size != theirs.size:
        return []
    orders = [o for o in itertools.permutations(range(ours.ndim)) if reshapes(ours.transpose(o).shape, theirs.shape)]
    exact = [order for order in orders if ours.transpose(order).shape == theirs.shape]
    found, known = [], dict[tuple[int, ...], bool]()
    for order in exact or orders:
        long = tuple(axis for axis in order if ours.shape[axis] > 1)  # the order of numbers depends on these alone
        if long not in known:
            moved = ours.transpose(order)
            moved = moved if moved.shape == theirs.shape else moved.reshape(theirs.shape)
            known[long] = close(moved, theirs, allowed, times)
        if known[long]:
            found.append(order)
    return found


def reshapes(shape: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Return whether one shape is the other with neighbouring axes merged or split, those of length one aside."""
    first, second = (set(itertools.accumulate((n for n in s if n > 1), lambda a, b: a * b)) for s in (shape, other))
    return first <= second or second <= first


def layout_name(order: tuple[int, ...]) -> str:
    """Return an order of a weight's axes as text: (H, W, I, O) for convolutions, (I, O) for linear layers."""
    return "(" + ", ".join(AXES.get(len(order), "0123456789")[axis] for axis in order) + ")"


def change(ours: Array, theirs: Array, allowed: Tolerance) -> str:
    """Return the change of an array that is not ours in any layout, in words; "" if it is not recognised."""
    if not np.isfinite(theirs).all():
        beyond = np.abs(ours) > allowed.largest
        if theirs.shape == ours.shape and np.array_equal(~np.isfinite(theirs), beyond):
            return "overflowing: numbers beyond the dtype's largest have become infinite"
        return "holding NaN or infinite numbers"
    if theirs.size != ours.size:
        return f"of shape {theirs.shape} instead of {ours.shape}"
    for order in itertools.permutations(range(ours.ndim)):
        shape = tuple(ours.shape[axis] for axis in order)
        back = tuple(int(axis) for axis in np.argsort(order))
        if order != tuple(range(ours.ndim)) and ours.shape == theirs.shape:
            if close(ours.reshape(shape).transpose(back), theirs, allowed):
                return f"with their memory read as {layout_name(order)} without moving the numbers"
        elif shape == theirs.shape != ours.shape and close(ours.reshape(shape), theirs, allowed):
            return f"with their memory read as {layout_name(order)} without moving the numbers"
    if theirs.shape != ours.shape:
        return f"of shape {theirs.shape} instead of {ours.shape}"
    if np.ptp(theirs) == 0:
        return f"all {theirs.reshape(-1)[0]:g}"
    return next(_changes(ours, theirs, allowed), "")


def _changes(ours: Array, theirs: Array, allowed: Tolerance) -> Iterator[str]:
    names = {4: ("the output channels", "the input channels", "rows of the kernel", "columns of the kernel")}
    for axis in range(ours.ndim):
        if ours.shape[axis] > 1 and close(np.flip(ours, axis), theirs, allowed):
            yield f"reversed along {names.get(ours.ndim, ('the first axis', 'the second axis', ''))[axis]}"
    if ours.ndim == 4 and close(ours[:, :, ::-1, ::-1], theirs, allowed):
        yield "with kernels rotated by 180 degrees"
    factor = float(np.sum(ours * theirs) / max(float(np.sum(ours * ours)), np.finfo(np.float64).tiny))
    if factor and close(ours * factor, theirs, allowed, times=4):
        yield f"multiplied by {factor:.4g}"
    for axis in range(ours.ndim):
        if _permuted(np.moveaxis(ours, axis, 0), np.moveaxis(theirs, axis, 0), allowed):
            yield f"in another order along {names.get(ours.ndim, ('the first axis', 'the second axis', ''))[axis]}"
    for dtype in ("float16", "bfloat16"):
        unit = DTYPES[dtype][0]
        coarser = unit > allowed.unit and np.array_equal(round_to(theirs, dtype), theirs)
        if coarser and close(ours, theirs, Tolerance(unit, max(2.0**-24, allowed.step), math.inf)):
            yield f"rounded to {dtype}"


def _permuted(ours: Array, theirs: Array, allowed: Tolerance) -> bool:
    """Return whether slices along the first axis are the same in another order."""
    ours, theirs = ours.reshape(len(ours), -1), theirs.reshape(len(theirs), -1)
    direction = np.random.default_rng(0).standard_normal(ours.shape[1])
    first, second = ours @ direction, theirs @ direction
    terms = np.abs(ours) @ np.abs(direction)
    # Sorting may pair slices wrongly where rounding reorders them, but hardly changes the sorted numbers.
    bound = 2 * allowed.unit * float(terms.max()) + allowed.step * len(direction)
    if len(ours) < 2 or np.any(np.abs(np.sort(first) - np.sort(second)) > bound):
        return False
    if len(direction) == 1:
        return close(np.sort(ours, axis=0), np.sort(theirs, axis=0), allowed)
    distances = (theirs**2).sum(1)[:, None] - 2 * theirs @ ours.T + (ours**2).sum(1)
    nearest = np.argmin(distances, axis=1)
    return close(ours[nearest], theirs, allowed)
