"""Peak rates of this machine, measured as the models use it: `python -m npformer.bench.peaks JOB`.

The rate of a model means little by itself. Compared with the fastest matrix product and the fastest copy on the same
number of threads, it shows how much there is left to gain.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from . import process

PRODUCTS = [(512, 512, 512), (1024, 1024, 1024), (1536, 1536, 1536), (784, 896, 3584)]  # rows, inner, columns
IN_CACHE = 1 << 17  # bytes a thread copies at a time: source and target stay in a core's own cache
IN_MEMORY = 1 << 27  # bytes that all threads copy together: more than caches hold


@dataclass
class Peaks:
    """Largest rates in 1e9 per second: operations of float32 matrix products, bytes read and written by copies."""

    gflops: float
    gbytes_cache: float
    gbytes_memory: float


def ask_for_peaks(threads: int, seconds: float) -> Peaks:
    """Measure the peaks in a process of its own, for about three times `seconds`. Raises ChildProcessError."""
    return Peaks(**process.ask("peaks", {"threads": threads, "seconds": seconds}, threads, "measuring the machine"))


def matrix_products(seconds: float) -> float:
    """Return the largest rate of a few products in 1e9 operations per second, on all threads that BLAS may use."""
    best = 0.0
    for rows, inner, columns in PRODUCTS:
        a, b = np.ones((rows, inner), np.float32), np.ones((inner, columns), np.float32)
        out = np.empty((rows, columns), np.float32)
        shortest = _shortest(partial(np.matmul, a, b, out), seconds / len(PRODUCTS))
        best = max(best, 2 * rows * inner * columns / shortest)
    return best / 1e9


def copies(threads: int, size: int, times: int, seconds: float) -> float:
    """Return the largest rate in 1e9 bytes per second at which each thread copies `size` bytes, `times` times over.

    A copied byte counts as two: one read, one written.
    """
    pairs = [(np.ones(size // 4, np.float32), np.zeros(size // 4, np.float32)) for _ in range(threads)]

    def copy(source: np.ndarray, target: np.ndarray) -> None:
        for _ in range(times):
            np.copyto(target, source)

    def together() -> None:
        workers = [threading.Thread(target=copy, args=pair) for pair in pairs]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    return 2 * threads * size * times / _shortest(together, seconds) / 1e9


def _shortest(run: Callable[[], object], seconds: float) -> float:
    """Return the seconds of the fastest of several runs: at least three, and until `seconds` have passed."""
    best, runs, begun = float("inf"), 0, time.perf_counter()
    while runs < 3 or time.perf_counter() - begun < seconds:
        started = time.perf_counter()
        run()
        best, runs = min(best, time.perf_counter() - started), runs + 1
    return best


def main(threads: int, seconds: float) -> dict[str, float]:
    """Return all three rates."""
    return {
        "gflops": matrix_products(seconds),
        "gbytes_cache": copies(threads, IN_CACHE, 4000, seconds),
        "gbytes_memory": copies(threads, IN_MEMORY // threads // 64 * 64, 1, seconds),
    }


if __name__ == "__main__":
    process.answer(main(**process.request()))
