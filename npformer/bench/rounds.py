"""Alternating rounds of all contestants on one model and batch size; ratios are taken within a round.

The speed of a machine drifts: other work, heat, frequency. Contestants that ran side by side drifted together, so the
ratio of two of them is the median of the rounds' ratios and not the ratio of two medians.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from . import process
from .breakdown import Part, break_down
from .contestants import ONNXRUNTIME, OURS
from .subject import Subject
from .worker import Job

TOLERANCE = 1e-3  # of the largest logit: more than rounding, less than the difference of another network


@dataclass
class Timing:
    """Measurements of one contestant: the milliseconds of every run, by round, and its peak memory in megabytes."""

    rounds: list[list[float]] = field(default_factory=list)
    peak_mb: float | None = None

    def add(self, answer: dict[str, Any]) -> None:
        """Add a worker's results from one round."""
        self.rounds.append(answer["milliseconds"])
        self.peak_mb = max(filter(None, (self.peak_mb, answer["peak_mb"])), default=None)

    @property
    def medians(self) -> list[float]:
        """The median of each round, in milliseconds."""
        return [float(np.median(runs)) for runs in self.rounds]

    @property
    def quartiles(self) -> tuple[float, float, float]:
        """The lower quartile, median and upper quartile of all runs, in milliseconds."""
        low, middle, high = np.percentile(np.concatenate(self.rounds), [25, 50, 75])
        return float(low), float(middle), float(high)

    @property
    def median(self) -> float:
        """The median of all runs, in milliseconds."""
        return self.quartiles[1]


@dataclass
class Ratio:
    """Our time over a rival's, round by round: below 1 we are faster."""

    rounds: list[float]

    @property
    def median(self) -> float:
        """The median of the rounds."""
        return float(np.median(self.rounds))


@dataclass
class Result:
    """Timings of every contestant on one model and batch size, and the breakdown of our time."""

    model: str
    batch: int
    size: int
    timings: dict[str, Timing]
    parts: list[Part]

    def ratio(self, rival: str) -> Ratio:
        """Return the ratio of our time to the rival's."""
        pairs = zip(self.timings[OURS].medians, self.timings[rival].medians, strict=True)
        return Ratio([ours / theirs for ours, theirs in pairs])


@dataclass
class Means:
    """The geometric mean of the median ratios of several models at one batch."""

    rival: str
    batch: int
    models: int
    ratio: float


@dataclass
class Rules:
    """Measuring conditions: the number of rounds, and each contestant's threads and seconds per round."""

    rounds: int
    threads: int
    seconds: float


def measure(subject: Subject, batch: int, contestants: Sequence[str], rules: Rules, folder: Path) -> Result:
    """Time all contestants in turn; ours is the first of them. `folder` holds temporary files.

    Raises ValueError where logits differ, so that not the same computation is timed; ChildProcessError where one
    fails.
    """
    shape = (batch, subject.channels, subject.size, subject.size)
    timings = {contestant: Timing() for contestant in contestants}
    profiles, logits = [], {contestant: folder / f"{contestant}.npy" for contestant in contestants}
    models = dict.fromkeys(contestants, str(subject.directory))
    if ONNXRUNTIME in contestants:
        models[ONNXRUNTIME] = str(folder / "model.onnx")
        request = {"directory": str(subject.directory), "shape": shape, "path": models[ONNXRUNTIME]}
        process.ask("transformers_model", request, rules.threads, f"the ONNX export of {subject.name}")
    for number in range(rules.rounds):
        for contestant in contestants:
            wanted = None if number else str(logits[contestant])
            job = Job(contestant, models[contestant], shape, rules.threads, rules.seconds, wanted)
            answer = job.run(subject.name)
            timings[contestant].add(answer)
            profiles += [answer["profile"]] if contestant == OURS else []
            if not number:
                _check_logits(contestant, subject.name, np.load(logits[contestant]), np.load(logits[OURS]))
    return Result(subject.name, batch, subject.size, timings, break_down(profiles, rules.threads))


def _check_logits(contestant: str, model: str, theirs: np.ndarray, ours: np.ndarray) -> None:
    """Raise ValueError unless two contestants returned the same logits."""
    difference = float(np.abs(theirs - ours).max() / np.abs(ours).max())
    if not difference <= TOLERANCE:  # also true for NaN
        raise ValueError(
            f"logits of {model} must be the same in {OURS} and {contestant} to be timed against each other, but they "
            f"differ by {difference:.2g} of the largest, more than {TOLERANCE:g}"
        )


def geometric_means(results: Sequence[Result]) -> list[Means]:
    """Return the geometric mean of our ratio to each rival over all models, batch size by batch size."""
    means = []
    for rival in [name for name in results[0].timings if name != OURS]:
        for batch in sorted({result.batch for result in results}):
            ratios = [result.ratio(rival).median for result in results if result.batch == batch]
            means.append(Means(rival, batch, len(ratios), math.exp(float(np.log(ratios).mean()))))
    return means
