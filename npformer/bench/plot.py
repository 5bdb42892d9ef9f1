"""Plots of the results, drawn by matplotlib, which is an optional extra."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .breakdown import REST
from .contestants import ONNXRUNTIME, OURS, TORCH, UNFUSED
from .fit import power_law
from .rounds import Result, Rules
from .scaling import Curve, Growth

SUFFIXES = (".png", ".svg", ".pdf")

# Paul Tol's muted scheme, safe for any kind of colour blindness; the rest is its grey.
COLOURS = {
    "matrix product": "#332288", "activation": "#ddcc77", "depthwise": "#44aa99", "norm": "#aa4499",
    "pooling": "#88ccee", "reshape": "#cc6677", "addition": "#117733", "attention": "#882255",
    "squeeze and excite": "#999933", REST: "#dddddd",
}  # fmt: skip
OTHER = "#777777"  # for kinds without a colour of their own
MARKS = {TORCH: "D", ONNXRUNTIME: "v", UNFUSED: "s"}
LINES = ["#332288", "#44aa99", "#cc6677"]
SMALL, MEDIUM = 10, 12  # points


def check_picture(option: str, path: str) -> None:
    """Refuse, before anything is timed, an image file that could not be written.

    Raises ValueError for a suffix that is not in `SUFFIXES`, FileNotFoundError, or ImportError without matplotlib.
    """
    if Path(path).suffix.lower() not in SUFFIXES:
        raise ValueError(f"{option} must be a file that ends in {', '.join(SUFFIXES)}, got {path}")
    if not Path(path).absolute().parent.is_dir():
        raise FileNotFoundError(f"{option} {path} lies in a folder that does not exist")
    if find_spec("matplotlib") is None:
        raise ImportError(f"{option} needs matplotlib, which is not installed: python -m pip install matplotlib")


def plot_breakdowns(results: Sequence[Result], rules: Rules, path: Path) -> None:
    """Draw a bar per model, stacked by kind of operation, one panel per batch size; rivals' times are marks on it."""
    batches = list(dict.fromkeys(result.batch for result in results))
    models = list(dict.fromkeys(result.model for result in results))
    figure = _figure(3 + 5.5 * len(batches), 2.2 + 0.45 * len(models))
    panels = figure.subplots(1, len(batches), sharey=True, squeeze=False)[0]
    kinds = _kinds(results)
    for panel, batch in zip(panels, batches, strict=True):
        for result in results:
            if result.batch == batch:
                _bar(panel, models.index(result.model), result, kinds)
        panel.set_title(f"batch {batch}", fontsize=MEDIUM)
        panel.set_xlabel("milliseconds per forward pass", fontsize=MEDIUM)
        panel.set_xlim(left=0)
        _tidy(panel, "x")
    panels[0].set_yticks(range(len(models)), models, fontsize=MEDIUM)
    panels[0].set_ylim(len(models) - 0.5, -0.5)
    threads = f"{rules.threads} thread{'' if rules.threads == 1 else 's'}"
    figure.suptitle(f"Where the time of a fused model goes (float32, {threads})", fontsize=MEDIUM + 2)
    # One legend entry each: a kind may be missing on one model, and a mark is drawn once per bar.
    entries: dict[str, Any] = {}
    for panel in panels:
        handles, labels = panel.get_legend_handles_labels()
        entries.update(zip(labels, handles, strict=True))
    order = sorted(entries, key=[*kinds, *MARKS].index)
    figure.legend(
        [entries[label] for label in order], order, loc="outside lower center", ncols=6, fontsize=SMALL, frameon=False
    )
    figure.savefig(path, dpi=150)


def _kinds(results: Sequence[Result]) -> list[str]:
    """Return the kinds that occur, by their total time over all results, the rest last."""
    totals: dict[str, float] = {}
    for result in results:
        for part in result.parts:
            totals[part.kind] = totals.get(part.kind, 0) + part.share
    return sorted(totals, key=lambda kind: (kind == REST, -totals[kind]))


def _bar(panel: Any, position: int, result: Result, kinds: Sequence[str]) -> None:
    """Draw the bar and marks of one model."""
    parts, left = {part.kind: part for part in result.parts}, 0.0
    for kind in kinds:
        if kind in parts:
            width = parts[kind].milliseconds
            panel.barh(
                position, width, 0.7, left, color=COLOURS.get(kind, OTHER), edgecolor="white", linewidth=0.25,
                label=kind,
            )  # fmt: skip
            left += width
    for rival in [name for name in result.timings if name != OURS]:
        panel.plot(
            result.timings[rival].median, position, MARKS[rival], color="black", markeredgecolor="white",
            markersize=9, label=rival, clip_on=False, zorder=3,
        )  # fmt: skip


def plot_growth(growth: Growth, rules: Rules, path: Path) -> None:
    """Draw milliseconds per picture against the batch size, and fitted milliseconds against the number of tokens."""
    figure = _figure(13, 5.5)
    left, right = figure.subplots(1, 2)
    for curve, colour, mark in zip(growth.batches, LINES, "osD", strict=False):
        label = f"{curve.name} ({curve.deviation:+.1%} from {curve.sizes[0]} to {curve.sizes[-1]})"
        left.plot(curve.sizes, curve.per_unit, marker=mark, color=colour, label=label)
    left.set_xscale("log", base=2)
    left.set_xticks(growth.batches[0].sizes, [str(size) for size in growth.batches[0].sizes])
    left.set_ylim(bottom=0)
    left.set_xlabel("pictures in a batch", fontsize=MEDIUM)
    left.set_ylabel("milliseconds per picture", fontsize=MEDIUM)
    left.set_title("A picture of a batch", fontsize=MEDIUM)
    for curve, colour, mark in zip(growth.tokens, LINES, "osD", strict=False):
        _fitted(right, curve, colour, mark)
    right.set_xscale("log")
    right.set_yscale("log")
    right.set_xlabel("tokens", fontsize=MEDIUM)
    right.set_ylabel("milliseconds", fontsize=MEDIUM)
    right.set_title("One picture of more and more tokens", fontsize=MEDIUM)
    for panel in (left, right):
        _tidy(panel, "both")
        panel.legend(fontsize=SMALL, frameon=False)
    threads = f"{rules.threads} thread{'' if rules.threads == 1 else 's'}"
    figure.suptitle(f"How cost grows (float32, {threads})", fontsize=MEDIUM + 2)
    figure.savefig(path, dpi=150)


def _fitted(panel: Any, curve: Curve, colour: str, mark: str) -> None:
    """Draw the measurements of a curve as points and the best-fitting power law as a dashed line."""
    factor, exponent = power_law(curve.sizes, curve.milliseconds)
    label = f"{curve.name}: tokens ^ {exponent:.2f}, at the end {curve.steps[-1]:.2f}"
    panel.plot(curve.sizes, curve.milliseconds, mark, color=colour, label=label)
    panel.plot(curve.sizes, [factor * size**exponent for size in curve.sizes], "--", color=colour, linewidth=1)


def _figure(width: float, height: float) -> Any:
    """Return an empty figure, its size in inches, drawn without a display."""
    return importlib.import_module("matplotlib.figure").Figure(figsize=(width, height), layout="constrained")


def _tidy(panel: Any, axis: str) -> None:
    """Style the axes: light grid lines behind, no frame above and to the right, tick labels of a legible size."""
    panel.grid(axis=axis, color="#cccccc", linewidth=0.6)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)
    panel.tick_params(labelsize=SMALL)
