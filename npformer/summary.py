"""Summary of a model as a table: every layer's output shape, parameters and multiply-adds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .models.pretrained import PreTrainedModel
from .nn import Identity, Module, watch
from .ops import Array

COUNTING_RULE = (
    "Multiply-adds: one per weight and output position of every convolution and linear layer, plus attention's "
    "matrix products; biases, norms, activations and pooling are not counted."
)


@dataclass
class Row:
    """One module: its dotted name, class, output shape, and the totals of it and everything below it."""

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int
    multiply_adds: int


def summarize(model: PreTrainedModel, height: int, width: int) -> list[Row]:
    """Run the model once on a black picture of the given size (batch 1) and list its modules, parents first.

    Raises ValueError for a fused model, or a size that does not fit.
    """
    model.refuse_fused("a summary")
    shapes: dict[str, tuple[int, ...]] = {}
    own: dict[str, int] = {}

    def count(name: str, module: Module, inputs: tuple[Any, ...], output: Array, layout: str | None) -> Array:
        if layout is None:  # a module's output, not an inner value
            shapes[name] = output.shape
            own[name] = own.get(name, 0) + module.multiply_adds(inputs, output)
        return output

    with watch(model, count):
        model(np.zeros((1, model.config.num_channels, height, width), model.dtype))
    rows = []
    for name, module in model.named_modules():
        if name in shapes and not isinstance(module, Identity):
            below = f"{name}." if name else ""
            total = own[name] + sum(n for child, n in own.items() if child != name and child.startswith(below))
            rows.append(Row(name, type(module).__name__, shapes[name], module.num_parameters(), total))
    return rows


def format_summary(rows: list[Row]) -> str:
    """Return the table as text, children indented below their parents, with totals and the counting rule."""
    shown = [
        (_indented(row.name), row.kind, _times(row.shape), f"{row.parameters:,}", f"{row.multiply_adds:,}")
        for row in rows
    ]
    head = ("layer", "class", "output", "parameters", "multiply-adds")
    rule = ["-" * max(map(len, column)) for column in zip(head, *shown, strict=True)]
    lines = align([head, rule, *shown], right={3, 4})
    total = rows[0]
    giga = f"{total.multiply_adds / 1e9:.3f} G"
    lines += ["", f"{total.parameters:,} parameters, {giga} multiply-adds ({total.multiply_adds:,})", COUNTING_RULE]
    return "\n".join(lines)


def align(lines: Sequence[Sequence[str]], right: set[int]) -> list[str]:
    """Return lines of cells as text in columns, those whose indices are in `right` flush right, the others left."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]


def _indented(name: str) -> str:
    """Return the last parts of a dotted name, indented by its depth ("blocks.0" is one level, not two)."""
    if not name:
        return "(model)"
    parts = name.split(".")
    depth = sum(not part.isdigit() for part in parts) - 1
    last = ".".join(parts[-2:]) if parts[-1].isdigit() else parts[-1]
    return "  " * depth + last


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
