"""Output of an evaluation: tables in text, a page of the worst errors, plots of confusion and calibration."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np

from ..page import data_uri, document, escape, section
from ..summary import align
from .data import DataSet
from .metrics import BINS, Metrics

MOST_UNREADABLE = 20  # listed
MOST_NAMES = 30  # classes whose names fit beside the confusion matrix
THUMBNAIL = 112


def summary_text(metrics: Metrics, name: str, per_class: bool) -> str:
    """Return the result in a few lines, and a table with a line for each class."""
    lines = []
    if per_class:
        head = ["class", "pictures", "top-1 %", "top-5 %", "precision %"]
        rows = [
            [name, f"{n:,}", f"{top1:.2f}", f"{top5:.2f}", f"{precision:.2f}"]
            for name, n, top1, top5, precision in metrics.per_class()
        ]
        lines += [*align([head, *rows], right={1, 2, 3, 4}), ""]
    lines += unreadable_text(metrics)
    if not metrics.read:
        return "\n".join([*lines, f"none of {metrics.total:,} pictures could be read"])
    lines.append(
        f"top-1 {metrics.top1:.2f}%, top-5 {metrics.top5:.2f}%: {metrics.hits1:,} and {metrics.hits5:,} of "
        f"{metrics.read:,} pictures, with {name}"
    )
    lines.append(f"expected calibration error {100 * metrics.calibration_error:.2f}%")
    return "\n".join(lines)


def unreadable_text(metrics: Metrics) -> list[str]:
    """Return a list of the pictures that could not be read, with reasons."""
    if not metrics.unreadable_count:
        return []
    count = metrics.unreadable_count
    lines = [f"{count:,} of {metrics.total:,} pictures could not be read and do not count:"]
    lines += [f"  {key}: {error}" for key, error in metrics.unreadable[:MOST_UNREADABLE]]
    if count > MOST_UNREADABLE:
        lines.append(f"  and {count - MOST_UNREADABLE:,} more")
    return [*lines, ""]


def errors_page(metrics: Metrics, data: DataSet, name: str) -> str:
    """Return a self-contained HTML page of the errors with the highest confidence, with their pictures."""
    from PIL import Image

    shown = []
    for record in metrics.worst:
        picture = data.load(record["key"])
        picture.thumbnail((4 * THUMBNAIL, 4 * THUMBNAIL))
        factor = THUMBNAIL / max(picture.size)
        size = tuple(max(1, round(side * factor)) for side in picture.size)
        drawn = picture.resize(size, Image.Resampling.NEAREST if factor > 1 else Image.Resampling.BICUBIC)
        truth, guess = metrics.classes[record["label"]], metrics.classes[record["top"][0]]
        place = record["top"].index(record["label"]) + 1 if record["label"] in record["top"] else None
        rank = f"the truth is guess {place}" if place else "the truth is not among its five guesses"
        shown.append(
            f'<figure><img src="{data_uri(drawn)}" alt="{escape(truth)}"><figcaption><b>{escape(guess)}</b> '
            f"{record['probs'][0]:.1%}<br>is {escape(truth)}<br>{rank}<br><code>{escape(record['key'])}</code>"
            "</figcaption></figure>\n"
        )
    pairs = _confusions(metrics)
    rows = "".join(
        f'<tr><th scope="row">{escape(truth)}</th><td>{escape(guess)}</td><td class="number">{n:,}</td></tr>\n'
        for truth, guess, n in pairs
    )
    table = (
        '<div class="wide"><table><thead><tr><th scope="col">is</th><th scope="col">taken for</th>'
        f'<th scope="col">pictures</th></tr></thead>\n<tbody>{rows}</tbody></table></div>'
    )
    summary = "".join(f"<p>{escape(line)}</p>\n" for line in summary_text(metrics, name, False).splitlines() if line)
    sections = [summary, section("pairs", "What is taken for what", table)]
    heading = "The mistakes made with the most confidence"
    sections.append(section("worst", heading, f'<div class="worst">\n{"".join(shown)}</div>'))
    return document(f"Where {name} is wrong", _STYLE, sections)


def _confusions(metrics: Metrics, most: int = 20) -> list[tuple[str, str, int]]:
    """Return the pairs (true class, prediction) that are confused most often."""
    wrong = metrics.confusion - np.diag(np.diag(metrics.confusion))
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = (np.unravel_index(int(place), wrong.shape) for place in order)
    return [(metrics.classes[i], metrics.classes[j], int(wrong[i, j])) for i, j in pairs if wrong[i, j]]


def plot(metrics: Metrics, path: Path) -> None:
    """Draw the confusion matrix, a row for each class, and the calibration of confidence (needs matplotlib)."""
    figure = importlib.import_module("matplotlib.figure").Figure(figsize=(13, 6), layout="constrained")
    left, right = figure.subplots(1, 2)
    sums = np.maximum(metrics.confusion.sum(1, keepdims=True), 1)
    drawn = left.imshow(100 * metrics.confusion / sums, cmap="viridis", vmin=0, vmax=100)
    left.set(xlabel="prediction", ylabel="label", title="confusion matrix, % of each label")
    if len(metrics.classes) <= MOST_NAMES:
        left.set_xticks(range(len(metrics.classes)), metrics.classes, rotation=45, ha="right")
        left.set_yticks(range(len(metrics.classes)), metrics.classes)
        for (row, column), share in np.ndenumerate(100 * metrics.confusion / sums):
            if share >= 0.5:
                colour = "black" if share > 60 else "white"
                left.text(column, row, f"{share:.0f}", ha="center", va="center", fontsize=8, color=colour)
    figure.colorbar(drawn, ax=left, label="%", shrink=0.8)
    bins = metrics.calibration
    filled = [(confidence, accuracy) for n, confidence, accuracy in bins if n]
    right.plot([0, 1], [0, 1], color="#888888", linestyle="--", label="confidence = accuracy")
    right.bar(
        [(i + 0.5) / BINS for i in range(BINS)], [accuracy for _, _, accuracy in bins], 0.9 / BINS, color="#88ccee"
    )
    right.plot([confidence for confidence, _ in filled], [accuracy for _, accuracy in filled], "o-", color="#332288")
    for number, (n, _, _) in enumerate(bins):
        if n:
            right.text((number + 0.5) / BINS, 0.02, f"{n:,}", ha="center", fontsize=9)
    error = 100 * metrics.calibration_error
    right.set(
        xlim=(0, 1), ylim=(0, 1.02), xlabel="confidence of the best guess", ylabel="share that is right",
        title=f"calibration: expected error {error:.2f}%; numbers are pictures",
    )  # fmt: skip
    right.legend(frameon=False)
    figure.savefig(path, dpi=120)


_STYLE = """\
.worst { display: grid; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); gap: 1.2rem; }
.worst img { image-rendering: pixelated; } code { overflow-wrap: anywhere; font-size: .8rem; }
"""
