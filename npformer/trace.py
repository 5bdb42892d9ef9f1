"""Recording of every named value of a forward pass; saving and loading it."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .checkpoint.safetensors_file import read_metadata, read_tensors, write_tensors
from .nn import Module, watch
from .ops import Array

_LAYOUTS = {4: "BCHW", 3: "BND", 2: "BD", 1: "B"}  # axes of a module's output, by its rank


class Trace(Mapping[str, np.ndarray]):
    """A read-only mapping from name to array, in the order the values were computed.

    A module's output is stored under the module's name ("" is the model itself), an inner value under
    "<module>:<value>". For a module that returns several values the first is kept. If one module is called more than
    once (the stem's single ReLU), the last call has the plain name, as in a dictionary that a PyTorch forward hook
    writes to, and earlier calls are "<name>#1", "<name>#2", ...

    `layouts[name]` spells the axes: B batch, C channels, H W height and width, N tokens, D width, h heads.
    """

    def __init__(self, values: Mapping[str, np.ndarray], layouts: Mapping[str, str]) -> None:
        self._values = {name: _read_only(value) for name, value in values.items()}
        self.layouts = dict(layouts)

    def __getitem__(self, name: str) -> np.ndarray:
        """Return the array recorded under `name`."""
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names in execution order."""
        return iter(self._values)

    def __len__(self) -> int:
        """Return the number of recorded values."""
        return len(self._values)

    @property
    def nbytes(self) -> int:
        """The total size of all values in bytes."""
        return sum(value.nbytes for value in self.values())

    def __repr__(self) -> str:
        """Return the number of values, their size, and the first names."""
        first = ", ".join(repr(name) for name in list(self)[:3])
        return f"Trace({len(self)} values, {self.nbytes / 1e6:.1f} MB: {first}, ...)"

    def save(self, path: str | Path) -> None:
        """Write all values as safetensors, with their order and layouts in the file's metadata."""
        # A safetensors file keeps no order of its own, so it is in the metadata, as are the layouts.
        metadata = {"format": "npformer-trace", "order": json.dumps(list(self)), "layouts": json.dumps(self.layouts)}
        write_tensors(Path(path), dict(self), metadata)

    @classmethod
    def load(cls, path: str | Path) -> Trace:
        """Read a file written by `save`. Raises FileNotFoundError, or ValueError for a file that is no trace."""
        metadata = read_metadata(Path(path))
        if metadata.get("format") != "npformer-trace":
            raise ValueError(f"{path} is a safetensors file but not a trace: its metadata lacks npformer-trace")
        values = read_tensors(Path(path))
        try:
            order, layouts = json.loads(metadata["order"]), json.loads(metadata["layouts"])
            complete = isinstance(layouts, dict) and set(order) == set(layouts) == set(values)
        except (KeyError, TypeError, ValueError, RecursionError):
            complete = False
        if not complete:
            raise ValueError(f"{path} is damaged: its order and layouts do not name the values it holds")
        return cls({name: values[name] for name in order}, layouts)


def record(model: Module, pixel_values: np.ndarray, **options: Any) -> Trace:
    """Run `model(pixel_values, **options)` once and keep every named value it computes.

    Memory: all intermediate values at once, about 90 MB for EfficientFormer-L1 on one picture in float32.

    Warns about a fused model (`npformer.fuse`), of which only blocks, stages and outputs are recorded.
    """
    if getattr(model, "is_fused", False):
        warnings.warn(
            "the model is fused: its blocks, stages and outputs are recorded by their names, but the layers inside a "
            "block are not computed one by one; record the model it was fused from to see them",
            stacklevel=2,
        )
    calls: dict[str, list[np.ndarray]] = {}
    order: list[tuple[str, int]] = []
    layouts: dict[str, str] = {}

    def keep(name: str, module: Module, inputs: tuple[Any, ...], output: Array, layout: str | None) -> Array:
        calls.setdefault(name, []).append(output)
        order.append((name, len(calls[name])))
        layouts[name] = layout or _LAYOUTS.get(output.ndim, "")
        return output

    with watch(model, keep):
        model(pixel_values, **options)
    values, value_layouts = {}, {}
    for name, number in order:
        key = name if number == len(calls[name]) else f"{name}#{number}"
        values[key], value_layouts[key] = calls[name][number - 1], layouts[name]
    return Trace(values, value_layouts)


def _read_only(value: np.ndarray) -> np.ndarray:
    view = value.view()
    view.flags.writeable = False
    return view
