"""Comparison of two dumps, without a model."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from ..ops import Array
from .describe import fill, map_errors, some
from .dump import as_dump
from .noise import DTYPES, find_dtype, judge
from .report import Fault, Finding, Report, Value


def compare_traces(a: Any, b: Any, *, dtype: str = "auto") -> Report:
    """Find where two dumps start to differ, value by value, by name.

    Nothing is replayed, so an error further up shows in everything after it, and the floor is not measured: it is one
    unit in the last place of the coarser dtype at the value's largest number, times the square root of the number of
    earlier values (rounding accumulates). The limit is eight times that, as in `compare`. The first value beyond it is
    called faulty, later ones inherited. Shapes must be equal.

    Raises ValueError, TypeError or FileNotFoundError for dumps that cannot be compared.
    """
    started = time.perf_counter()
    first, second = as_dump(a), as_dump(b)
    dtypes = [find_dtype(dump, dump.dtypes) for dump in (first, second)]
    coarse = max(dtypes, key=lambda d: DTYPES[d][0]) if dtype == "auto" else dtype
    if coarse not in DTYPES:
        raise ValueError(f"dtype must be auto, {', '.join(DTYPES)}, got {dtype!r}")
    common = [name for name in first if name in second]
    if not common:
        raise ValueError(f"the two have no name in common: {some(first)} in one, {some(second)} in the other")
    values: list[Value] = []
    faults: list[Fault] = []
    for position, name in enumerate(first):
        x = np.asarray(first[name])
        value = Value(name, "", x.shape, first.layouts.get(name, ""))
        values.append(value)
        if name in second:
            value.port_name = name
            fault = _judge(value, x, np.asarray(second[name]), 2 * DTYPES[coarse][0] * np.sqrt(position + 1), coarse)
            if fault and faults and not fault.reason:
                value.status = "inherited"
            elif fault:
                faults.append(fault)
    findings = [
        Finding("names", f"only in the {which}: {some(only)}")
        for which, only in (("first", set(first) - set(second)), ("second", set(second) - set(first)))
        if only
    ]
    return Report(
        f"{first.source} against {second.source}", coarse, "", values, faults, findings,
        {name: name for name in common}, seconds=time.perf_counter() - started,
    )  # fmt: skip


def _judge(value: Value, x: Array, y: Array, unit: float, dtype: str) -> Fault | None:
    """Fill in the comparison of y with x; return the fault, if any. `unit`: floor relative to the largest number."""
    fault = Fault(value, value.name, [], [], (), np.nan, np.nan, expected=x, got=y)
    if x.shape != y.shape:
        value.status, value.level = "faulty", "fail"
        value.note = f"has shape {y.shape} instead of {x.shape}"
        fault.reason = "misshapen"
        return fault
    judgement = judge(y, x, x + unit * np.abs(x).max(initial=0), value.axes, dtype)
    fill(value, judgement)
    value.status = "faulty" if value.level == "fail" else "clean"
    if value.status == "clean":
        return None
    map_errors(fault)
    return fault
