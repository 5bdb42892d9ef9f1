"""Growth of the cost with the number of pictures in a batch, and with the number of tokens in a picture.

A batch should cost in proportion to its pictures, a SwiftFormer in proportion to its tokens (pixels of its first map:
its attention has one query for all of them), and EfficientFormer's attention in proportion to their square.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from ..models.efficientformer import EfficientFormerConfig
from ..summary import align
from .contestants import OURS
from .fit import power_law
from .rounds import Rules
from .subject import Subject, prepare
from .worker import ATTENTION, Job

MODELS = ("efficientformer-l1", "efficientnet-b0", "swiftformer-xs")
BATCHES = (8, 16, 32, 64)
SWIFTFORMER = "swiftformer-xs"
SIDES = (224, 320, 448, 640, 896)  # of pictures, in pixels; each has about twice the tokens of the previous one
RESOLUTIONS = (7, 14, 21, 28, 42, 56)  # sides of the token grid; the last equals SwiftFormer's at 224 pixels
PATCH = 4  # side in pixels of a token of SwiftFormer's first stage


@dataclass
class Curve:
    """Cost of one growing quantity: its sizes (pictures or tokens), and the milliseconds of each, by round."""

    name: str
    sizes: list[int]
    rounds: list[list[float]]

    @property
    def milliseconds(self) -> list[float]:
        """The median over the rounds, for each size."""
        return [float(np.median(rounds)) for rounds in self.rounds]

    @property
    def per_unit(self) -> list[float]:
        """Milliseconds for each picture or token."""
        return [cost / size for cost, size in zip(self.milliseconds, self.sizes, strict=True)]

    @property
    def deviation(self) -> float:
        """The relative increase in cost per unit from the smallest size to the largest: 0.1 is 10 % more."""
        return self.per_unit[-1] / self.per_unit[0] - 1

    @property
    def exponent(self) -> float:
        """The exponent of the best-fitting power law."""
        return power_law(self.sizes, self.milliseconds)[1]

    @property
    def steps(self) -> list[float]:
        """The exponent from each size to the next: at small sizes the fixed cost hides the growth of the rest."""
        points = list(zip(self.sizes, self.milliseconds, strict=True))
        return [power_law(*zip(*pair, strict=True))[1] for pair in pairwise(points)]


@dataclass
class Growth:
    """Cost against pictures for a model of each family; and against tokens for SwiftFormer and for attention."""

    batches: list[Curve]
    tokens: list[Curve]


def measure(rules: Rules, tell: Callable[[str], None]) -> Growth:
    """Measure all curves, passing a line of progress on each to `tell`. Raises ChildProcessError."""
    with TemporaryDirectory() as folder:
        subjects = {name: prepare(name, None, Path(folder) / name) for name in MODELS}
        growth = Growth([], [])
        for subject in subjects.values():
            jobs = [_forward(subject, batch, subject.size, rules) for batch in BATCHES]
            growth.batches.append(_curve(subject.name, BATCHES, jobs, rules))
            tell(f"{subject.name}: {growth.batches[-1].deviation:+.1%} per picture from batch 8 to 64")
        jobs = [_forward(subjects[SWIFTFORMER], 1, side, rules) for side in SIDES]
        growth.tokens.append(_curve(SWIFTFORMER, [(side // PATCH) ** 2 for side in SIDES], jobs, rules))
        tokens = [side**2 for side in RESOLUTIONS]
        width = EfficientFormerConfig.for_variant("efficientformer-l1").dim
        jobs = [Job(ATTENTION, "", (1, count, width), rules.threads, rules.seconds) for count in tokens]
        growth.tokens.append(_curve("EfficientFormer's attention", tokens, jobs, rules))
        for curve in growth.tokens:
            tell(f"{curve.name}: milliseconds grow as tokens ^ {curve.exponent:.2f}")
    return growth


def _forward(subject: Subject, batch: int, side: int, rules: Rules) -> Job:
    shape = (batch, subject.channels, side, side)
    return Job(OURS, str(subject.directory), shape, rules.threads, rules.seconds)


def _curve(name: str, sizes: Sequence[int], jobs: Sequence[Job], rules: Rules) -> Curve:
    """Run the jobs in turn, once per round, and return their curve."""
    rounds: list[list[float]] = [[] for _ in jobs]
    for _ in range(rules.rounds):
        for job, found in zip(jobs, rounds, strict=True):
            found.append(float(np.median(job.run(name)["milliseconds"])))
    return Curve(name, list(sizes), rounds)


def format_growth(growth: Growth, rules: Rules) -> str:
    """Return both tables and the fits as text."""
    sizes = growth.batches[0].sizes
    head = ["ms per picture at batch", *map(str, sizes), f"{sizes[0]} to {sizes[-1]}"]
    lines = [[c.name, *(f"{cost:.2f}" for cost in c.per_unit), f"{c.deviation:+.1%}"] for c in growth.batches]
    parts = ["\n".join(align([head, *lines], right=set(range(1, len(head)))))]
    for curve in growth.tokens:
        lines = [["tokens", "ms", "us per token", "exponent"]]
        for i, (size, cost) in enumerate(zip(curve.sizes, curve.milliseconds, strict=True)):
            step = f"{curve.steps[i - 1]:.2f}" if i else ""
            lines.append([str(size), f"{cost:.2f}", f"{1000 * cost / size:.2f}", step])
        lines.append(["all", "", "", f"{curve.exponent:.2f}"])
        parts.append("\n".join([curve.name, *align(lines, right={0, 1, 2, 3})]))
    threads = f"{rules.threads} thread{'' if rules.threads == 1 else 's'}"
    parts.append(
        f"float32, {threads}, medians of {rules.rounds} round{'' if rules.rounds == 1 else 's'}. The last column of "
        "the first table is what\na picture costs more in the largest batch than in the smallest; an exponent is that "
        "of the tokens\nto which the time grows, from the line above (1 linear, 2 quadratic), and fitted to all."
    )
    return "\n\n".join(parts)


def as_json(growth: Growth, rules: Rules) -> dict[str, Any]:
    """Return both sets of curves in plain lists and dictionaries."""

    def curve_json(curve: Curve, unit: str) -> dict[str, Any]:
        fit = {"deviation": curve.deviation} if unit == "batch" else {"exponent": curve.exponent}
        return {
            "name": curve.name, unit: curve.sizes, "milliseconds": curve.milliseconds, "rounds": curve.rounds, **fit,
        }  # fmt: skip

    return {
        **asdict(rules),
        "batches": [curve_json(curve, "batch") for curve in growth.batches],
        "tokens": [curve_json(curve, "tokens") for curve in growth.tokens],
    }
