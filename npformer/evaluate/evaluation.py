"""Evaluation of a model on a data set, or classification of a folder, from Python or the command line."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..assets import model_directory
from ..assets.imagenet import class_names
from ..checkpoint.download import cache
from ..models.auto import AutoConfig
from .data import DataSet, Item, chosen, open_data_set
from .job import Job
from .metrics import Metrics
from .results import Results
from .run import SHARE, Here, classify_all, process_pool

DASK_SECONDS = 10  # timeout for the scheduler


def evaluate(
    model: str | Path,
    data: str | Path | DataSet,
    *,
    labels: str | Path | None = None,
    workers: int = 1,
    executor: Executor | None = None,
    dask: str | None = None,
    output: str | Path | None = None,
    batch: int = SHARE,
    limit: int | None = None,
    seed: int | None = None,
    crop_pct: float | None = None,
    flip: bool = False,
    image_size: int | None = None,
    progress: bool = False,
    labelled: bool = True,
) -> Metrics:
    """Classify every picture of a data set once, and return the metrics.

    `model` is a shipped model, a directory or a repository on the hub; `data` any input of `open_data_set`, with its
    label file `labels`. `workers` processes share the work, or those of any `executor`, or of the Dask cluster at
    `dask` (an address; extra `dask`). Results stream to `output`, JSON Lines; if it holds some already, the run
    continues after them. Without `output` they are cached until the run is complete. `limit` takes that many pictures,
    evenly spread or, with `seed`, at random. `crop_pct`, `flip` and `image_size`: as in `job.Job`. `batch` pictures
    are distributed at a time.

    A picture that cannot be read is reported and does not count. Raises FileNotFoundError, ValueError, or
    KeyboardInterrupt, after which the same call continues.
    """
    _check(crop_pct, workers=workers, batch=batch, limit=limit, image_size=image_size)
    data = data if isinstance(data, DataSet) else open_data_set(data, labels, labelled=labelled)
    directory = model_directory(model)
    config = AutoConfig.from_pretrained(directory)
    names = class_names([name for _, name in sorted(config.id2label.items())])
    mapping = _mapping(data.classes, names)
    total = len(data)
    if not total:
        raise ValueError(f"DATA {data.name} holds no picture")
    wanted = chosen(data, limit, seed)
    job = Job(str(directory.resolve()), crop_pct, flip, image_size)
    header = {
        "npformer": __version__, "weights": _digest(directory), **asdict(job), "data": data.name, "pictures": total,
        "limit": limit, "seed": seed, "labelled": labelled,
    }  # fmt: skip
    path = _cached(header) if output is None else Path(output)
    results = Results(path, header)
    try:
        finished = results.done(total)
        with _progress(int(wanted.sum()), int((wanted & finished).sum()), progress) as bar, ExitStack() as stack:

            def done(records: list[dict[str, Any]]) -> None:
                results.append(records)
                bar.update(len(records))

            items = _left(data, wanted & ~finished, mapping)
            executors, count, threads = _executors(workers, executor, dask, stack)
            classify_all(job, data, items, executors, done, workers=count, threads=threads, share=batch)
        metrics = Metrics(results, names)
    finally:
        results.close()
    if output is None:
        path.unlink()
    return metrics


def _check(crop_pct: Any, **counts: Any) -> None:
    for name, value in counts.items():
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
    if crop_pct is not None and not 0 < crop_pct <= 1:
        raise ValueError(f"crop_pct must be a share above 0 and at most 1, such as 0.875, got {crop_pct!r}")


def _mapping(classes: list[str] | None, names: Sequence[str]) -> list[int] | None:
    """Return the model's label for each of the data set's, where the class names determine it; else None.

    Folders may be in another order than the model's classes: then their names decide. Raises ValueError where neither
    names nor numbers fit.
    """
    if classes is None:
        return None
    known = {_plain(name): label for label, name in enumerate(names)}
    if all(_plain(name) in known for name in classes):
        return [known[_plain(name)] for name in classes]
    if len(classes) != len(names):
        raise ValueError(
            f"DATA has {len(classes)} class folders ({classes[0]}, ...), but the model knows {len(names)} classes, of "
            "other names; give a folder and a label file"
        )
    return None


def _plain(name: str) -> str:
    """Return a class's name as a folder may spell it: "T-shirt/top" is "t_shirt_top"."""
    return "".join(character if character.isalnum() else "_" for character in name.lower())


def _left(data: DataSet, wanted: np.ndarray, mapping: list[int] | None) -> Iterator[Item]:
    for item in data:
        if wanted[item.number]:
            label = item.label if mapping is None or item.label is None else mapping[item.label]
            yield item._replace(label=label)


def _executors(
    workers: int, executor: Executor | None, dask: str | None, stack: ExitStack
) -> tuple[Callable[[], Executor], int, int | None]:
    """Return an executor factory, its number of workers, and the threads of each (None: no limit)."""
    if executor is not None:
        return lambda: _Lent(executor), max(workers, getattr(executor, "_max_workers", 1)), 1
    if dask is not None:
        client = stack.enter_context(_dask_client(dask))
        return client.get_executor, max(1, sum(client.nthreads().values())), 1
    if workers == 1:
        return Here, 1, None
    return partial(process_pool, workers), workers, max(1, (os.cpu_count() or 1) // workers)


class _Lent(Executor):
    """An executor owned by the caller, who also shuts it down."""

    def __init__(self, executor: Executor) -> None:
        self.submit = executor.submit  # type: ignore[method-assign]

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Do nothing: the owner shuts it down."""


def _dask_client(address: str) -> Any:
    try:
        from distributed import Client
    except ImportError:
        raise ImportError('dask needs distributed, which is not installed: pip install "npformer[dask]"') from None
    try:
        return Client(address, timeout=DASK_SECONDS)
    except (OSError, ValueError) as error:
        raise OSError(f"dask {address}: no scheduler answers there ({' '.join(str(error).split())})") from None


def _digest(directory: Path) -> str:
    """Return a hash of the files that hold the weights, which identifies them."""
    digest = hashlib.sha256()
    for path in sorted(directory.iterdir()):
        if path.suffix in (".safetensors", ".bin", ".h5", ".json", ".npz"):
            digest.update(path.name.encode())
            with open(path, "rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def _cached(header: dict[str, Any]) -> Path:
    """Return the path of the results of a run that has no file of its own, kept until it is complete."""
    name = hashlib.sha256(json.dumps(header, sort_keys=True).encode()).hexdigest()[:16]
    return cache() / f"evaluate-{name}.jsonl"


def _progress(total: int, already: int, shown: bool) -> Any:
    """Return a progress bar with pictures per second and the remaining time."""
    from tqdm import tqdm

    return tqdm(total=total, initial=already, unit=" pictures", disable=not shown, dynamic_ncols=True, smoothing=0.1)
