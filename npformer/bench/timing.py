"""The clock and the peak memory of this process."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

WARM_UPS = 3
LEAST_RUNS = 5


def time_runs(run: Callable[[], Any], seconds: float) -> list[float]:
    """Return the milliseconds of every run of a function: at least five, and until `seconds` have passed.

    Three untimed runs come first: they fill caches, start threads and, in some runtimes, decide how to compute.
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
    """Return the peak memory of this process in megabytes (1e6 bytes); None where it is unknown.

    It is the peak resident set size, which includes the pages of mapped files that were read.
    """
    status = Path("/proc/self/status")
    if status.exists():  # on Linux: getrusage would include the parent's memory at the start of this process
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e6
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6
