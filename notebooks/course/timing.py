"""Timings: the median of several runs, taken in turn so that other load affects all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np


def times(functions: Mapping[str, Callable[[], Any]], rounds: int = 7) -> dict[str, float]:
    """Return the seconds of each function, the median over the rounds, after one warm-up run."""
    for function in functions.values():
        function()
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            begun = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - begun)
    return {name: float(np.median(values)) for name, values in seconds.items()}


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print rows in columns: text to the left, numbers to the right."""
    lines = [list(map(str, head)), *([str(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    numbers = [
        all(not isinstance(row[i], str) or row[i] in ("", "-") or row[i].lstrip("+-")[:1].isdigit() for row in rows)
        for i in range(len(head))
    ]
    for line in lines:
        cells = zip(line, widths, numbers, strict=True)
        print("  ".join(cell.rjust(width) if right else cell.ljust(width) for cell, width, right in cells).rstrip())
