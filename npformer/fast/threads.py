"""Threads, scratch memory and profiling for the fast kernels.

NumPy releases Python's lock inside every large operation, so plain threads run on several cores. Each kernel splits
its work into independent pieces, `run` distributes them, and meanwhile the BLAS behind `np.matmul` is limited to one
thread: two layers of threads would compete for the same cores. The split never depends on which thread does what, so
results are the same from run to run, and with any number of calling threads.
"""

from __future__ import annotations

import ctypes
import math
import os
import sys
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np

Task = Callable[[], None]
MOST_PIECES = 16  # result buffers kept per thread


class _BlasThreads:
    """The number of threads of NumPy's bundled OpenBLAS, and a temporary limit of one.

    Under another BLAS (Accelerate, MKL) nothing is known and nothing is changed.
    """

    def __init__(self) -> None:
        self._lock, self._holders, self._limit = threading.Lock(), 0, 1
        self._get: Callable[[], int] | None
        self._set: Callable[[int], None] | None
        self._get, self._set = _openblas() or (None, None)

    @property
    def known(self) -> bool:
        return self._get is not None

    def limit(self) -> int:
        """Return the number of threads that the environment, or a later setting, allows; 1 where that is unknown."""
        with self._lock:
            return self._limit if self._holders else self._get() if self._get else 1

    @contextmanager
    def held_to_one(self) -> Iterator[None]:
        """Run matrix products on the calling thread alone within the block."""
        with self._lock:
            if self._holders == 0 and self._get and self._set:
                self._limit = self._get()
                self._set(1)
            self._holders += 1
        try:
            yield
        finally:
            with self._lock:
                self._holders -= 1
                if self._holders == 0 and self._set:
                    self._set(self._limit)


def _openblas() -> tuple[Callable[[], int], Callable[[int], None]] | None:
    """Return the thread-count getter and setter of NumPy's own OpenBLAS, from the library folder of its wheel."""
    package = Path(np.__file__).parent
    for path in [*package.parent.glob("numpy.libs/*openblas*"), *package.glob(".dylibs/*openblas*")]:
        try:
            library = ctypes.CDLL(str(path))
        except OSError:
            continue
        for prefix, suffix in (("scipy_", "64_"), ("scipy_", ""), ("", "64_"), ("", "")):
            names = (f"{prefix}openblas_{verb}_num_threads{suffix}" for verb in ("get", "set"))
            get, put = (getattr(library, name, None) for name in names)
            if get is not None and put is not None:
                get.restype, put.restype, put.argtypes = ctypes.c_int, None, [ctypes.c_int]
                return get, put
    return None


class _Gate:
    """A gate that lets one thread through for every time that another opens it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def wait(self) -> None:
        """Sleep until the gate is opened, and close it again."""
        self._lock.acquire()

    def open(self) -> None:
        """Let one thread through."""
        self._lock.release()


class _BusyGate(_Gate):
    """A gate with a spinning wait, without Python's lock: waking a sleeping thread takes 50 to 100 us.

    That is as long as many pieces of work. It is the C library's spin lock, which Windows and macOS do not have.
    """

    def __init__(self) -> None:
        self._spin = (ctypes.c_int * 16)()  # a cache line, the lock being its first element
        _SPIN.pthread_spin_init(self._spin, 0)
        _SPIN.pthread_spin_lock(self._spin)

    def wait(self) -> None:
        """Spin until the gate is opened, and close it again."""
        _SPIN.pthread_spin_lock(self._spin)  # a CDLL releases Python's lock while the function runs

    def open(self) -> None:
        """Let one thread through."""
        _SHORT.pthread_spin_unlock(self._spin)  # a PyDLL keeps it: this returns immediately


_SPIN: Any = ctypes.CDLL(None) if sys.platform == "linux" else None
_SHORT: Any = ctypes.PyDLL(None) if sys.platform == "linux" else None


class _Helper:
    """A thread that works within `sharing`, and sleeps in between."""

    def __init__(self) -> None:
        busy = hasattr(_SPIN, "pthread_spin_lock")
        self._wake, self._go, self._done = _Gate(), *((_BusyGate if busy else _Gate)() for _ in range(2))
        self._tasks: deque[Task] | None = None
        self._error: BaseException | None = None
        threading.Thread(target=self._serve, name="npformer helper", daemon=True).start()

    def wake(self) -> None:
        """Start spinning for `begin`, until `begin(None)`."""
        self._wake.open()

    def begin(self, tasks: deque[Task] | None) -> None:
        """Run tasks until none is left; None means go to sleep."""
        self._tasks = tasks
        self._go.open()

    def end(self) -> BaseException | None:
        """Wait until the current tasks are done; return their error, if any."""
        self._done.wait()
        error, self._error = self._error, None
        return error

    def _serve(self) -> None:
        while True:
            self._wake.wait()
            awake = True
            while awake:
                self._go.wait()
                awake = self._tasks is not None
                try:
                    _work(self._tasks or deque())
                except BaseException as error:
                    self._error = error
                self._done.open()


_blas = _BlasThreads()
_chosen: int | None = None  # the argument of set_num_threads
_helpers: list[_Helper] = []
_helpers_taken = threading.Lock()  # by the caller within `sharing`; others work alone meanwhile
_local = threading.local()


def set_num_threads(n: int | None) -> None:
    """Set the number of threads of fused models to `n`; None restores what the environment allows BLAS.

    That is OPENBLAS_NUM_THREADS or OMP_NUM_THREADS where set, else one per core. Small networks, and pictures, then
    use one thread, since several would be slower.

    Raises TypeError or ValueError.
    """
    global _chosen
    if n is not None and (not isinstance(n, Integral) or isinstance(n, bool)):
        raise TypeError(f"n must be a whole number of threads or None, got {n!r}")
    if n is not None and n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    _chosen = None if n is None else int(n)


def get_num_threads() -> int:
    """Return the number of threads of a fused model, unless it is a small one."""
    return _blas.limit() if _chosen is None else _chosen


def num_threads_for(much: bool) -> int:
    """Return the number of threads for much or little work: one for little, unless `set_num_threads` was called."""
    return get_num_threads() if much or _chosen is not None else 1


@contextmanager
def sharing(threads: int | None = None) -> Iterator[None]:
    """Let `run` distribute its tasks over threads within the block, where matrix products start none of their own.

    OpenBLAS's threads spin for a while after each product and would compete for the cores.
    """
    if parts() > 1:  # nested
        yield
        return
    _local.parts = get_num_threads() if threads is None else threads
    mine = _helpers_taken.acquire(blocking=False)
    team: list[_Helper] = []
    try:
        if mine:
            while len(_helpers) < _local.parts - 1:
                _helpers.append(_Helper())
            team = _helpers[: _local.parts - 1]
            for helper in team:
                helper.wake()
        _local.team = team
        with _blas.held_to_one():
            yield
    finally:
        _local.parts, _local.team = 1, []
        for helper in team:
            helper.begin(None)
            helper.end()
        if mine:
            _helpers_taken.release()


def parts() -> int:
    """Return the number of parts to split work for `run` into: 1 outside `sharing`, and inside a task."""
    return getattr(_local, "parts", 1)


def run(tasks: list[Task]) -> None:
    """Run all tasks, one after the other; inside `sharing` on several threads, each task on the first free one.

    Returns when all are done. Tasks must not depend on one another. The first error of one is raised, after all have
    stopped.
    """
    waiting = deque(tasks)
    team = _local.team[: len(tasks) - 1] if parts() > 1 else []
    for helper in team:
        helper.begin(waiting)
    try:
        _work(waiting)
    finally:
        waiting.clear()  # after an error no further task is started
        errors = [error for helper in team if (error := helper.end())]
    if errors:
        raise errors[0]


def _work(waiting: deque[Task]) -> None:
    """Run tasks until none is left. Taking one from a deque is thread-safe."""
    outer, _local.parts = parts(), 1
    try:
        while waiting:
            try:
                task = waiting.popleft()
            except IndexError:  # another thread was faster
                return
            if _profile is not None:
                _local.since = time.perf_counter()
            task()
    finally:
        _local.parts = outer


def _forget_helpers() -> None:
    """Reset the state of a forked child, which has none of the threads and must not wait for them or their locks."""
    global _helpers, _helpers_taken, _blas, _local
    _helpers, _helpers_taken, _blas, _local = [], threading.Lock(), _BlasThreads(), threading.local()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_helpers)


def scratch(name: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Return memory for temporary values, of this thread alone and kept between calls with its content, initially 0.

    There is one buffer per name and dtype, which grows to the largest shape requested. Its content lasts until the
    same name is requested again on the same thread, so a kernel never returns it.
    """
    buffers: dict[tuple[str, Any], np.ndarray] = _local.__dict__.setdefault("buffers", {})
    size, key = math.prod(shape) * np.dtype(dtype).itemsize, (name, dtype)
    buffer = buffers.get(key)
    if buffer is None or buffer.size < size:
        buffers.pop(key, None)  # free the small one before allocating the large one
        buffer = buffers[key] = _aligned(size)
    return buffer[:size].view(dtype).reshape(shape)


def fresh(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Return memory for a result, like `np.empty`, but reuse memory without other references.

    The system would allocate and clear new pages for every map. Reference counts tell which buffers are free.
    """
    pieces: list[np.ndarray] = _local.__dict__.setdefault("pieces", [])
    size = math.prod(shape) * np.dtype(dtype).itemsize
    free = {number for number, count in enumerate(_reference_counts(pieces)) if count == _UNSHARED}
    fitting = [number for number in free if size + 64 <= pieces[number].size <= 2 * size + 65536]
    if fitting:
        piece = pieces[min(fitting, key=lambda number: pieces[number].size)]
    else:
        if len(pieces) >= MOST_PIECES:  # forget free ones and the oldest: others' references keep it alive
            pieces[:] = [piece for number, piece in enumerate(pieces) if number not in free][-MOST_PIECES // 2 :]
        pieces.append(piece := np.empty(size + 64, np.uint8))
    return _from_cache_line(piece, size).view(dtype).reshape(shape)


def _reference_counts(pieces: list[np.ndarray]) -> list[int]:
    return [sys.getrefcount(piece) for piece in pieces]


_UNSHARED = _reference_counts([np.empty(0)])[0]  # that of a piece without other references


def _aligned(size: int) -> np.ndarray:
    """Return bytes that begin on a cache line, so that no vector of eight or sixteen floats straddles two."""
    return _from_cache_line(np.zeros(size + 64, np.uint8), size)


def _from_cache_line(raw: np.ndarray, size: int) -> np.ndarray:
    start = -raw.ctypes.data % 64
    return raw[start : start + size]


class Profile:
    """The seconds spent on any thread, the floating-point operations and the bytes moved, by kind of operation."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.flops: dict[str, int] = defaultdict(int)
        self.bytes: dict[str, int] = defaultdict(int)
        self.lock = threading.Lock()


_profile: Profile | None = None


@contextmanager
def profile() -> Iterator[Profile]:
    """Collect a `Profile` of everything that fused models do inside the `with` block, on any thread."""
    global _profile
    outer, _profile = _profile, Profile()
    try:
        yield _profile
    finally:
        _profile = outer


def lap(kind: str, flops: int = 0, moved: int = 0) -> None:
    """Count the time since this thread's last lap, or its task's start, as `kind`. Costs nothing unless profiling."""
    if _profile is None:
        return
    now = time.perf_counter()
    since = getattr(_local, "since", now)
    with _profile.lock:
        _profile.seconds[kind] += now - since
        _profile.flops[kind] += flops
        _profile.bytes[kind] += moved
    _local.since = now
