"""Hand out pictures to workers, and lose none: any executor, retries, a bounded number of shares under way.

A share is a few dozen pictures. Its result is written when it comes back whole, so a worker that dies takes nothing
with it but its time: the share is handed out again, alone. One that kills its worker even so is halved until the
picture that does it is found, and reported as unreadable.
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

SHARE = 64  # pictures handed out at a time
TRIES = 3  # of a single picture that kills its worker
MOST_LOSSES = 30  # in a row: then it is not the pictures
Share = tuple[list[Item], int]  # pictures, and how often a worker died of them alone
Done = Callable[[list[dict[str, Any]]], None]


class Here(Executor):
    """An executor that does the work at once, in this process."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Call the function, and return a future that is done."""
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
    """Classify `items`, and give `done` the records of every share that comes back, each picture once.

    `executors` makes an executor, and another one should the first break. Raises RuntimeError where workers are lost
    time after time with nothing done, and whatever the work itself raises.
    """
    suspects: deque[Share] = deque()  # shares that were under way when a worker was lost
    losses = 0  # in a row
    while True:
        under_way: dict[Future[Any], Share] = {}
        with _closing(executors(), under_way) as executor:
            broken = False
            while not broken:
                # Suspects go alone: if a worker dies then, it is known of what.
                while len(under_way) < (1 if suspects else 2 * workers):
                    some = suspects.popleft() if suspects else (list(islice(items, share)), 0)
                    if not some[0]:
                        break
                    try:
                        under_way[executor.submit(classify_share, job, data, some[0], threads)] = some
                    except (BrokenExecutor, RuntimeError):  # it broke since the last result came
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
        suspects.extend(under_way.values())  # a broken executor loses all that it had
        if not broken:
            return
        if losses > MOST_LOSSES:
            raise RuntimeError(f"workers were lost {losses} times in a row; run with --workers 1 to see why")


def _lost(future: Future[Any]) -> BaseException | None:
    """The error of a share whose worker was lost; one that the work itself raised is raised here."""
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
    """What a worker died of, alone: in halves, to be handed out again; a single picture is given up in the end."""
    items, tries = some
    if len(items) > 1:
        half = len(items) // 2
        return [(items[:half], 0), (items[half:], 0)]
    if tries + 1 < TRIES:
        return [(items, tries + 1)]
    item = items[0]
    told = f"whoever opens it dies ({TRIES} times)"
    done([{"number": item.number, "key": item.key, "label": item.label, "error": told}])
    return []


def process_pool(workers: int) -> ProcessPoolExecutor:
    """Processes that start from nothing, so inherit no threads and locks, and leave Ctrl-C to their parent."""
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _ignore_interrupts)
    # All start at once, as where it forks: a pool that broke while it started one more waited for that one for ever
    # (seen with Python 3.11).
    pool._safe_to_dynamically_spawn_children = False  # type: ignore[attr-defined]
    return pool


def _ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def _closing(executor: Executor, under_way: Iterable[Future[Any]]) -> Iterator[Executor]:
    """The executor; whatever happens, nothing is begun any more when it is left."""
    try:
        yield executor
    except BaseException:
        for future in under_way:
            future.cancel()
        executor.shutdown(wait=False)
        raise
    executor.shutdown(wait=True)
