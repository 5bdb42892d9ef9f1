"""The figures of one value in a report: the size of the error, its position, and the numbers there."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ..ops import Array
from .noise import Judgement, channel_axis
from .report import Fault, Value


def fill(value: Value, judgement: Judgement) -> None:
    """Copy a judgement's figures to a value."""
    value.ratio, value.bulk, value.peak = judgement.ratio, judgement.bulk, judgement.peak
    value.channel, value.floor, value.error = judgement.channel, judgement.floor, judgement.error
    value.largest, value.ulp, value.sqnr = judgement.largest, judgement.ulp, judgement.sqnr
    value.level = judgement.level  # type: ignore[assignment]


def map_errors(fault: Fault) -> None:
    """Locate a fault's error from the expected and the actual value: the worst element, channels, pixels, border.

    An error that is NaN counts as infinite.
    """
    assert fault.expected is not None
    assert fault.got is not None
    with np.errstate(all="ignore"):
        error = np.abs(fault.got.astype(np.float64) - fault.expected)
    error = np.where(np.isnan(error), np.inf, error)
    fault.worst = tuple(int(i) for i in np.unravel_index(int(error.argmax()), error.shape))
    fault.expected_there, fault.got_there = float(fault.expected[fault.worst]), float(fault.got[fault.worst])
    axes = fault.value.axes
    axis = channel_axis(axes, error.ndim)
    if axis is not None:
        fault.by_channel = rms(error, tuple(a for a in range(error.ndim) if a != axis))
    if axes == "BCHW" and min(error.shape[2:]) > 1:
        fault.error_map = error.max((0, 1))
        fault.border = _border(error)


def _border(error: Array) -> float | None:
    """Return the ratio of the border pixels' RMS error to the inner ones'; None without inner pixels or error."""
    inside = np.zeros(error.shape[2:], bool)
    inside[1:-1, 1:-1] = True
    inner, outer = error[:, :, inside], error[:, :, ~inside]
    if not inner.size or not np.isfinite(error).all() or not inner.any():
        return None
    return float(rms(outer) / rms(inner))


def rms(x: Array, axes: tuple[int, ...] | None = None) -> Any:
    """Return the root mean square over some axes, or all."""
    with np.errstate(all="ignore"):
        return np.sqrt(np.mean(np.square(x, dtype=np.float64), axis=axes))


def some(names: Iterable[str]) -> str:
    """Return the first few of many names, for a sentence."""
    listed = sorted(names) if isinstance(names, set) else list(names)
    return ", ".join(map(repr, listed[:3])) + (f" ... ({len(listed)} in all)" if len(listed) > 3 else "")
