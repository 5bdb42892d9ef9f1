"""The commands `npformer evaluate DATA` and `npformer classify DIR --recursive -o FILE`."""

from __future__ import annotations

import argparse
import json
import sys
from importlib.util import find_spec
from pathlib import Path

from ..checkpoint.atomic import write_text
from .data import open_data_set
from .evaluation import evaluate
from .metrics import Metrics
from .report import errors_page, plot, summary_text, unreadable_text

PLOTS = (".png", ".svg", ".pdf")


def run(args: argparse.Namespace) -> None:
    """Evaluate, print, and write the requested files.

    Raises as `evaluate`, if possible before anything is computed.
    """
    _check_outputs(args)
    data = open_data_set(args.data, args.labels)
    metrics = _resumable(
        lambda: evaluate(
            args.model, data, workers=args.workers, dask=args.dask, output=args.output, batch=args.batch,
            limit=args.limit, seed=args.seed, crop_pct=args.crop_pct, flip=args.tta == "flip",
            image_size=args.image_size, progress=_shown(args),
        )
    )  # fmt: skip
    if args.json:
        print(json.dumps({"model": args.model, "data": data.name, **metrics.to_dict()}, indent=2))
    else:
        print(summary_text(metrics, args.model, args.per_class))
    if args.plot:
        plot(metrics, Path(args.plot))
    if args.errors:
        write_text(Path(args.errors), errors_page(metrics, data, args.model))


def classify_folder(args: argparse.Namespace) -> None:
    """Classify every picture below a folder, streaming the results to a file."""
    data = open_data_set(args.pictures[0], labelled=False)
    metrics = _resumable(
        lambda: evaluate(
            args.model, data, workers=args.workers, output=args.output, progress=_shown(args), labelled=False
        )
    )
    print("\n".join(unreadable_text(metrics)), end="\n" if metrics.unreadable_count else "")
    print(f"{args.output}: {metrics.read:,} of {metrics.total:,} pictures, with {args.model}")


def _resumable(work) -> Metrics:  # type: ignore[no-untyped-def]
    try:
        return work()
    except KeyboardInterrupt:
        print(
            "\nnpformer: interrupted; what is done is kept, and the same command goes on from there", file=sys.stderr
        )
        raise


def _shown(args: argparse.Namespace) -> bool:
    """Return whether to show a progress bar: not with --json, nor if standard error is not a terminal."""
    return not args.json and sys.stderr.isatty()


def _check_outputs(args: argparse.Namespace) -> None:
    """Refuse, before anything is computed, output files that could not be written."""
    if args.plot and Path(args.plot).suffix.lower() not in PLOTS:
        raise ValueError(f"--plot must be a file that ends in {', '.join(PLOTS)}, got {args.plot}")
    if args.plot and find_spec("matplotlib") is None:
        raise ImportError("--plot needs matplotlib, which is not installed: python -m pip install matplotlib")
    if args.errors and Path(args.errors).suffix.lower() != ".html":
        raise ValueError(f"--errors must be a file that ends in .html, got {args.errors}")
    for option, name in (("--plot", args.plot), ("--errors", args.errors), ("--output", args.output)):
        if name and not Path(name).absolute().parent.is_dir():
            raise FileNotFoundError(f"{option} {name} lies in a folder that does not exist")
