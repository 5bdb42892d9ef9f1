"""The command `npformer bench`: time models against PyTorch and ONNX Runtime, and show where the time goes."""

from __future__ import annotations

import argparse
import json
import math
import sys
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

from .. import __version__
from ..fast.threads import get_num_threads
from . import scaling, show
from .contestants import NEEDS, OURS, UNFUSED, check_rivals
from .peaks import ask_for_peaks
from .plot import check_picture, plot_breakdowns, plot_growth
from .rounds import Result, Rules, geometric_means, measure
from .subject import DEFAULT_MODELS, check, prepare

LEAST_SIZE = 32  # pixels: a single one is left in the last stage
BATCHES = "1,8"
NOT_WITH_SCALING = ("models", "batch", "against", "size", "unfused", "breakdown", "plot")


def run(args: argparse.Namespace) -> None:
    """Check the arguments, measure, print the results and draw the plots.

    Raises ValueError, TypeError, OSError or ImportError for requests that cannot be met; before anything is timed
    wherever that can be known by then.
    """
    rules = _rules(args)
    if args.scaling is not None:
        return _scale(args, rules)
    batches = _batches(BATCHES if args.batch is None else args.batch)
    rivals = _rivals(args.against)
    names = list(dict.fromkeys(args.models)) or DEFAULT_MODELS
    for name in names:
        check(name, args.size, rivals)
    if args.plot is not None:
        check_picture("--plot", args.plot)
    contestants = [OURS, *([UNFUSED] if args.unfused else []), *rivals]
    peaks = ask_for_peaks(rules.threads, min(1.0, rules.seconds))
    results: list[Result] = []
    for name in names:
        with TemporaryDirectory() as folder:
            subject = prepare(name, args.size, Path(folder) / "model")
            for batch in batches:
                results.append(measure(subject, batch, contestants, rules, Path(folder)))
                _tell(f"[{len(results)}/{len(names) * len(batches)}] {show.format_progress(results[-1])}")
    means = geometric_means(results)
    if args.plot is not None:
        plot_breakdowns(results, rules, Path(args.plot))
        _tell(f"wrote {args.plot}")
    if args.json:
        print(json.dumps(show.as_json(results, means, rules, peaks, _versions(rivals)), indent=2))
        return None
    parts = [show.format_results(results, rules)]
    if means:
        parts.append(show.format_means(means))
    if args.breakdown or len(names) == 1:
        parts += [show.format_breakdown(result, peaks) for result in results]
        parts.append(show.format_peaks(peaks, rules))
    print("\n\n".join(parts))
    return None


def _scale(args: argparse.Namespace, rules: Rules) -> None:
    """Measure how cost grows with the batch size and with the number of tokens, and print the result."""
    given = [name for name in NOT_WITH_SCALING if getattr(args, name) not in (None, False, [])]
    if given:
        what = "a MODEL" if given[0] == "models" else f"--{given[0]}"
        raise ValueError(f"--scaling measures models and batches of its own, so {what} cannot be given with it")
    check_picture("--scaling", args.scaling)
    growth = scaling.measure(rules, _tell)
    plot_growth(growth, rules, Path(args.scaling))
    _tell(f"wrote {args.scaling}")
    print(json.dumps(scaling.as_json(growth, rules), indent=2) if args.json else scaling.format_growth(growth, rules))


def _rules(args: argparse.Namespace) -> Rules:
    for name, least in (("rounds", 1), ("threads", 1), ("size", LEAST_SIZE)):
        number = getattr(args, name)
        if number is not None and number < least:
            raise ValueError(f"--{name} must be at least {least}, got {number}")
    if not 0 < args.seconds < math.inf:
        raise ValueError(f"--seconds must be a number above 0, got {args.seconds}")
    return Rules(args.rounds, args.threads or get_num_threads(), args.seconds)


def _batches(text: str) -> list[int]:
    batches = [int(part) if part.strip().isdecimal() else 0 for part in text.split(",")]
    if not all(batches):
        raise ValueError(f"--batch must be whole numbers of at least 1, with a comma between them, got {text!r}")
    return list(dict.fromkeys(batches))


def _rivals(text: str | None) -> list[str]:
    rivals = [part.strip() for part in text.split(",")] if text is not None else []
    check_rivals(rivals)
    return [rival for rival in NEEDS if rival in rivals]


def _versions(rivals: list[str]) -> dict[str, str]:
    """Return the versions of npformer and of the packages it is compared with."""
    packages = ["numpy", *dict.fromkeys(package for rival in rivals for package in NEEDS[rival])]
    return {"npformer": __version__, **{package: version(package) for package in packages}}


def _tell(line: str) -> None:
    """Print a line of progress on standard error, apart from the results."""
    print(line, file=sys.stderr, flush=True)
