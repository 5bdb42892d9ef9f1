"""Descriptions of a wrong value fitted to it: channels in another order, a map flipped or transposed, one factor.

They describe the error, not the mistake, and are for values that no entry of the catalogue explains: a fitted factor
comes at least as close as the true cause wherever that is a factor, too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from ...ops import Array
from ..site import Alternative
from .rule import instead

CHANNEL_LETTERS = {"C": "channels", "D": "channels", "d": "channels of a head", "h": "heads"}
LEAST_SIDE = 4  # of a map, for a shift: smaller ones are mostly border
NO_FACTOR = 1e-3  # a factor this close to 1 explains nothing


def fitted(output: Array, port: Array, axes: str) -> Iterator[Alternative]:
    """Describe the port's value in terms of ours, as (cause, thunk); the thunk computes it from `output`.

    `axes` spells the axes of both ("BCHW"). Detected are channels reversed or in another order (the nearest of ours to
    each of the port's, if that is a permutation), a map transposed, flipped or shifted by one pixel (border pixels,
    which a shift does not determine, are the port's own), and one factor for all, by least squares.

    Nothing is detected in values of different shapes or with infinities.
    """
    if output.shape != port.shape or len(axes) != port.ndim or not np.isfinite(port).all() or not output.any():
        return
    for letter, name in CHANNEL_LETTERS.items():
        if letter in axes:
            yield from _reordered(output, port, axes.index(letter), name)
    if axes.endswith("HW"):
        yield from _turned_map(output)
        yield from _shifted(output, port)
    elif axes.count("N") == 1:
        yield from _turned_tokens(output, axes.index("N"))
    yield from _factor(output, port)


def _reordered(output: Array, port: Array, axis: int, name: str) -> Iterator[Alternative]:
    count = output.shape[axis]
    if count == 1:
        return
    backwards = np.arange(count)[::-1]
    yield instead("channels-reversed", f"{name} in reverse order", np.take, output, backwards, axis)
    order = nearest(np.moveaxis(output, axis, 0).reshape(count, -1), np.moveaxis(port, axis, 0).reshape(count, -1))
    moved = np.flatnonzero(order != np.arange(count))
    if moved.size and (order != backwards).any():
        pairs = ", ".join(f"{place} holds {order[place]}" for place in moved[:4])
        text = f"{name} in another order: {pairs}{', ...' if len(moved) > 4 else ''} ({len(moved)} of {count} moved)"
        yield instead("channels-permuted", text, np.take, output, order, axis)


def nearest(ours: Array, theirs: Array) -> np.ndarray:
    """Assign our rows to theirs, each once: (C, P), (C, P) -> (C,) so that ours[result] is theirs.

    Each of theirs in turn takes the nearest of ours that is left; of equal ones, such as channels of zeros, the first.
    """
    ours, theirs = ours.astype(np.float64), theirs.astype(np.float64)
    distance = np.square(theirs).sum(1)[:, None] + np.square(ours).sum(1) - 2 * theirs @ ours.T
    # The rounding error of the subtraction: anything below is no distance.
    distance[distance < 1e-12 * np.square(ours).sum(1).max()] = 0
    order = np.empty(len(ours), np.int64)
    for row in range(len(ours)):
        order[row] = distance[row].argmin()
        distance[:, order[row]] = np.inf
    return order


def _turned_map(output: Array) -> Iterator[Alternative]:
    height, width = output.shape[-2:]
    if height == width > 1:
        yield instead("map-transposed", "height and width swapped", np.swapaxes, output, -1, -2)
    if width > 1:
        yield instead("map-flipped", "left and right swapped", np.flip, output, -1)
    if height > 1:
        yield instead("map-flipped", "upside down", np.flip, output, -2)
    if min(height, width) > 1:
        yield instead("map-flipped", "rotated by 180 degrees", np.flip, output, (-2, -1))


def _turned_tokens(output: Array, axis: int) -> Iterator[Alternative]:
    """Yield flips and the transpose of tokens of a square map."""
    count = output.shape[axis]
    side = math.isqrt(count)
    if side * side == count > 1:
        grid = np.arange(count).reshape(side, side)
        text = "tokens as of a map whose height and width are swapped"
        yield instead("map-transposed", text, np.take, output, grid.T.ravel(), axis)
        for name, turned in (("left and right", grid[:, ::-1]), ("top and bottom", grid[::-1])):
            text = f"tokens as of a map whose {name} are swapped"
            yield instead("map-flipped", text, np.take, output, turned.ravel(), axis)


def _shifted(output: Array, port: Array) -> Iterator[Alternative]:
    height, width = output.shape[-2:]
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            if (down or right) and (not down or height >= LEAST_SIDE) and (not right or width >= LEAST_SIDE):
                ways = [(down, "down", "up"), (right, "to the right", "to the left")]
                text = " and ".join(more if way > 0 else less for way, more, less in ways if way)
                yield instead("shifted", f"shifted by one pixel {text}", shifted, output, port, down, right)


def shifted(output: Array, port: Array, down: int, right: int) -> Array:
    """Shift `output` by some pixels; those that enter from outside are the port's."""
    moved = port.astype(output.dtype)
    moved[..., _to(down), _to(right)] = output[..., _to(-down), _to(-right)]
    return moved


def _to(step: int) -> slice:
    """Return the slice that the rows within the map occupy after a shift by `step`."""
    return slice(max(step, 0), min(step, 0) or None)


def _factor(output: Array, port: Array) -> Iterator[Alternative]:
    wide = output.astype(np.float64)
    factor = float((wide * port).sum() / np.square(wide).sum())
    if abs(factor - 1) > NO_FACTOR:
        whole = round(1 / factor) if factor else 0
        fraction = f" (1/{whole})" if whole > 1 and abs(1 / factor - whole) < NO_FACTOR else ""
        text = f"everything multiplied by {factor:.4g}{fraction}"
        yield instead("constant-factor", text, lambda: output * factor)
