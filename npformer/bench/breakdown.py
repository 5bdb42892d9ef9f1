"""Breakdown of a fused model's time by kind of operation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

REST = "Python and waiting"  # time of no operation: the interpreter, and idle threads
MEASURING = 0.05  # of a thread: the error of the clocks


@dataclass
class Part:
    """One kind of operation in one forward pass.

    milliseconds: the time all threads spend on it, divided by the number of threads, so that parts add up to the
    whole. share: its fraction of the whole, 0 to 1. gflops, gbytes: floating-point operations, and bytes read and
    written, in 1e9 per second of that time; 0 where they are not counted.
    """

    kind: str
    milliseconds: float
    share: float
    gflops: float
    gbytes: float


def break_down(profiles: Sequence[dict[str, Any]], threads: int) -> list[Part]:
    """Return the parts of a forward pass, largest first and the rest last, from workers' results (`profile_runs`).

    The number of the `threads` that took part follows from the time they spent in total.
    """
    runs, elapsed = sum(p["runs"] for p in profiles), sum(p["seconds"] for p in profiles)
    totals: dict[str, list[float]] = {}
    for profile in profiles:
        for kind, counts in profile["kinds"].items():
            totals[kind] = [sum(pair) for pair in zip(totals.get(kind, (0, 0, 0)), counts, strict=True)]
    together = sum(spent for spent, _, _ in totals.values())
    busy = min(threads, max(1, math.ceil(together / elapsed - MEASURING)))
    parts = []
    for kind, (spent, flops, moved) in totals.items():
        seconds = spent / busy
        rates = (flops / seconds / 1e9, moved / seconds / 1e9) if seconds else (0.0, 0.0)
        parts.append(Part(kind, 1000 * seconds / runs, seconds / elapsed, *rates))
    parts.sort(key=lambda part: -part.milliseconds)
    rest = max(0.0, elapsed - together / busy)
    return [*parts, Part(REST, 1000 * rest / runs, rest / elapsed, 0.0, 0.0)]
