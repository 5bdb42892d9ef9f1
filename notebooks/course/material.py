"""Material for the lessons: the package's own source, values recorded from PyTorch, and unseen test pictures."""

from __future__ import annotations

import inspect
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
from IPython.display import display

_NOTEBOOKS = Path(__file__).parent.parent


def source(*things: Any) -> None:
    """Show the source of functions or classes of the package, as it is installed here."""
    for thing in things:
        name = f"{thing.__module__}.{thing.__qualname__}"
        code = textwrap.dedent(inspect.getsource(thing)).rstrip()
        display({"text/markdown": f"`{name}`\n\n```python\n{code}\n```", "text/plain": code}, raw=True)


def recorded(lesson: int) -> dict[str, np.ndarray]:
    """Return PyTorch's inputs and results, recorded by `pytorch/record.py`: the arrays of `pytorch/lesson_NN.npz`."""
    with np.load(_NOTEBOOKS / "pytorch" / f"lesson_{lesson:02}.npz") as file:
        return {name: file[name] for name in file.files}


def agree(what: str, ours: np.ndarray, theirs: np.ndarray, tolerance: float = 1e-12) -> None:
    """Print that two arrays agree to a tolerance relative to the largest value, or raise AssertionError."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape, f"{what}: ours has shape {ours.shape}, PyTorch's {theirs.shape}"
    difference = float(np.abs(ours - theirs).max() / max(np.abs(theirs).max(), 1e-300))
    assert difference <= tolerance, (
        f"{what}: ours is {difference:.1e} away from PyTorch's, allowed are {tolerance:.0e}"
    )
    print(f"{what}: {ours.shape}, equal to PyTorch's to {tolerance:.0e}")


def pictures(count: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return test pictures of Fashion-MNIST, (n, 28, 28) uint8, and their classes, (n,).

    There are 500, the first 50 of each class in the test set, in turn: any first ten contain each class once. No
    shipped model saw them in training.
    """
    with np.load(_NOTEBOOKS / "course" / "fashion-500.npz") as file:
        return file["pictures"][:count], file["classes"][:count]
