"""The clock, and how much memory this process has taken."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

WARM_UPS = 3
LEAST_RUNS = 5


def time_runs(run: Callable[[], Any], seconds: float) -> list[float]:
    """Milliseconds of every run of a function: at least five, and until `seconds` have passed, after three untimed.

    The untimed ones fill caches, start threads and, in some runtimes, decide how to compute.
    """
    for _ in range(WARM_UPS):
        run()
    milliseconds: list[float] = []
    begun = time.perf_counter()
    while len(milliseconds) < LEAST_RUNS or time.perf_counter() - begun < seconds:
        started = time.perf_counter()
        run()
        milliseconds.append(1000 * (time.perf_counter() - started))
    return milliseconds


def peak_megabytes() -> float | None:
    """The most memory that this process has held at once, in megabytes (1e6 bytes); None where that is unknown.

    It is the peak resident set, which includes the pages of mapped files that were read.
    """
    status = Path("/proc/self/status")
    if status.exists():  # Linux' own figure: getrusage would begin with what the parent held when it started this one
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e6
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6
