"""Distribution of pictures to workers without losing any: any executor, retries, a bounded number of pending shares.

A share is a few dozen pictures. Its result is written only when it returns complete, so a worker that dies loses
nothing but time: the share is submitted again, alone. A share that kills its worker even then is halved until the
picture that causes it is found, and reported as unreadable.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
    wait,
)  # fmt: skip
from contextlib import contextmanager
from itertools import islice
from typing import Any

from .data import DataSet, Item
from .job import Job, classify_share

SHARE = 64  # pictures submitted at a time
TRIES = 3  # attempts at a single picture that kills its worker
MOST_LOSSES = 30  # in a row: then the pictures are not the cause
Share = tuple[list[Item], int]  # pictures, and how often they alone killed a worker
Done = Callable[[list[dict[str, Any]]], None]


class Here(Executor):
    """An executor that runs the work immediately, in this process."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Call the function, and return a finished future."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def classify_all(
    job: Job,
    data: DataSet,
    items: Iterator[Item],
    executors: Callable[[], Executor],
    done: Done,
    *,
    workers: int,
    threads: int | None,
    share: int = SHARE,
) -> None:
    """Classify `items`, and pass the records of every finished share to `done`, each picture once.

    `executors` creates an executor, and another one should the first break. Raises RuntimeError where workers are lost
    repeatedly without progress, and whatever the work itself raises.
    """
    suspects: deque[Share] = deque()  # shares that were pending when a worker was lost
    losses = 0  # in a row
    while True:
        under_way: dict[Future[Any], Share] = {}
        with _closing(executors(), under_way) as executor:
            broken = False
            while not broken:
                # Suspects are run alone, so that a worker's death identifies its share.
                while len(under_way) < (1 if suspects else 2 * workers):
                    some = suspects.popleft() if suspects else (list(islice(items, share)), 0)
                    if not some[0]:
                        break
                    try:
                        under_way[executor.submit(classify_share, job, data, some[0], threads)] = some
                    except (BrokenExecutor, RuntimeError):  # it broke after the last result
                        suspects.appendleft(some)
                        broken = True
                        break
                if not under_way:
                    break
                alone = len(under_way) == 1
                for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                    some = under_way.pop(future)
                    lost = _lost(future)
                    if lost is None:
                        losses = 0
                        done(future.result())
                        continue
                    losses += 1
                    broken |= isinstance(lost, BrokenExecutor)
                    suspects.extend(_again(some, done) if alone else [some])
        suspects.extend(under_way.values())  # a broken executor loses all pending shares
        if not broken:
            return
        if losses > MOST_LOSSES:
            raise RuntimeError(f"workers were lost {losses} times in a row; run with --workers 1 to see why")


def _lost(future: Future[Any]) -> BaseException | None:
    """Return the error of a share whose worker was lost; raise one that the work itself raised."""
    try:
        error = future.exception()
    except CancelledError as cancelled:
        return cancelled
    if error is None or isinstance(error, BrokenExecutor | CancelledError | ConnectionError):
        return error
    if type(error).__name__ in ("KilledWorker", "CommClosedError", "FutureCancelledError"):  # Dask's
        return error
    raise error


def _again(some: Share, done: Done) -> list[Share]:
    """Return the shares to retry after one that killed its worker alone: its halves; give up on a single picture."""
    items, tries = some
    if len(items) > 1:
        half = len(items) // 2
        return [(items[:half], 0), (items[half:], 0)]
    if tries + 1 < TRIES:
        return [(items, tries + 1)]
    item = items[0]
    error = f"whoever opens it dies ({TRIES} times)"
    done([{"number": item.number, "key": item.key, "label": item.label, "error": error}])
    return []


def process_pool(workers: int) -> ProcessPoolExecutor:
    """Return a pool of spawned processes, which inherit no threads and locks, and leave Ctrl-C to their parent."""
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _ignore_interrupts)
    # Start all processes at once, as with fork: a pool that broke while starting another one waited for it forever
    # (seen with Python 3.11).
    pool._safe_to_dynamically_spawn_children = False  # type: ignore[attr-defined]
    return pool


def _ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def _closing(executor: Executor, under_way: Iterable[Future[Any]]) -> Iterator[Executor]:
    """Yield the executor; start no pending work once it is left, whatever happens."""
    try:
        yield executor
    except BaseException:
        for future in under_way:
            future.cancel()
        executor.shutdown(wait=False)
        raise
    executor.shutdown(wait=True)
