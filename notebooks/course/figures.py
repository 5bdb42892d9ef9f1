"""Figures legible on a light and on a dark page, with a caption and an alternative text."""

from __future__ import annotations

import base64
import io
from typing import Any

import matplotlib
import numpy as np
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Distinguishable with red-green colour blindness, and dark enough for thin lines on the paper below.
COLOURS = {
    "blue": "#0b62a4", "orange": "#c4570a", "green": "#0a7f5a", "pink": "#b0508f", "grey": "#6b6b6b", "ink": "#222222",
}  # fmt: skip
SERIES = ["blue", "orange", "green", "pink", "grey"]
PAPER = "#fbfaf6"  # figures have their own light background, so that the axes stay visible on a dark page
MAGNITUDE, SIGNED = "viridis", "RdBu_r"  # colour maps: of values from 0 up, and of values around 0

STYLE: dict[str, Any] = {
    "figure.facecolor": PAPER, "savefig.facecolor": PAPER, "axes.facecolor": PAPER,
    "text.color": COLOURS["ink"], "axes.labelcolor": COLOURS["ink"], "axes.edgecolor": COLOURS["grey"],
    "xtick.color": COLOURS["ink"], "ytick.color": COLOURS["ink"],
    "font.family": "DejaVu Sans", "font.size": 10, "axes.titlesize": 10, "axes.spines.top": False,
    "axes.spines.right": False, "axes.prop_cycle": matplotlib.cycler(color=[COLOURS[name] for name in SERIES]),
    "image.interpolation": "nearest", "image.cmap": MAGNITUDE, "legend.frameon": False,
}  # fmt: skip


def new_figure(rows: int = 1, columns: int = 1, *, width: float = 7.5, height: float = 2.6, **options: Any) -> Any:
    """Return a figure and its axes, as `plt.subplots` does, in the course's style; sizes in inches."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        return figure, figure.subplots(rows, columns, **options)


def picture(axes: Axes, values: np.ndarray, title: str = "", *, signed: bool = False, **options: Any) -> Any:
    """Draw a map (H, W), or an RGB picture (H, W, 3), without ticks; signed maps have white at 0."""
    if signed:
        limit = float(np.abs(values).max()) or 1.0
        options = {"cmap": SIGNED, "vmin": -limit, "vmax": limit, **options}
    drawn = axes.imshow(values, **{"cmap": MAGNITUDE, "interpolation": "nearest", **options})
    axes.set(xticks=[], yticks=[])
    axes.set_title(title)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return drawn


def show(figure: Figure, caption: str, alt: str, *, dpi: int = 110) -> None:
    """Display a figure as PNG, its caption below, and `alt` for screen readers and plain text."""
    if not caption.strip() or not alt.strip():
        raise ValueError("caption and alt must say something: a figure without words is lost on many readers")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    data = {"image/png": base64.b64encode(buffer.getvalue()).decode(), "text/plain": alt}
    display(data, raw=True, metadata={"image/png": {"alt": alt}})
    display({"text/markdown": f"*{caption}*", "text/plain": caption}, raw=True)
