"""Export of a report: JSON, JUnit, a page or text; and of one faulty op, alone, as `.npz`."""

from __future__ import annotations

import json
import math
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoint.atomic import replacing, write_text
from ..ops import Array
from .report import Fault, Report, Value
from .show import cause, digits, facts, format_report, shown, title, verdict

REPORT_SUFFIXES = (".html", ".json", ".xml", ".txt")
NAMES_SUFFIXES = (".json", ".yaml", ".yml")
REPRO_SUFFIXES = (".npz",)


def to_json(report: Report) -> dict[str, Any]:
    """Return the whole report as a JSON-compatible dict: the verdict, "equal", "tested" and the report's fields.

    A number that is not finite is one of the strings "nan", "inf" and "-inf", one that was not measured None. A fault
    names its value. An array is summarised: its shape, dtype, smallest and largest finite number, root mean square of
    the finite ones, how many are not finite, and the index of the largest absolute one (NaN counts as the largest).
    """
    head = {
        "format": "npformer-parity", "version": 1, "verdict": verdict(report), "equal": report.equal,
        "tested": report.tested,
    }  # fmt: skip
    faults = [_plain(fault) | {"value": fault.value.name} for fault in report.faults]
    return {**head, **_plain(replace(report, faults=[])), "faults": faults}


def junit(report: Report) -> str:
    """Return the report as JUnit's XML: a test case for every value, a failure if faulty, skipped if untested.

    A finding that makes the port different fails in a case of its own, as does a comparison that tested nothing. The
    verdict is in the suite's system-out. Characters that XML cannot hold are spelled out.
    """
    faults = {fault.value.name: fault for fault in report.faults}
    suite = ET.Element("testsuite")
    name = shown(report.model) or "traces"
    failures = 0
    for finding in report.findings:
        if finding.bad:
            failures += 1
            case = ET.SubElement(suite, "testcase", classname=f"parity.{name}", name=f"finding: {shown(finding.kind)}")
            _fail(case, shown(finding.kind), shown(finding.text))
    for value in report.values:
        case = ET.SubElement(suite, "testcase", classname=f"parity.{name}", name=title(value.name))
        if value.status == "untested":
            ET.SubElement(case, "skipped", message="not in the port's dump")
        elif value.status == "faulty":
            failures += 1
            _fail(case, "fault", *_failure(value, faults.get(value.name), report))
    if not report.equal and not failures:
        failures += 1
        _fail(
            ET.SubElement(suite, "testcase", classname=f"parity.{name}", name="comparison"), "verdict", verdict(report)
        )
    skipped = len(report.values) - report.tested
    counts = {"tests": str(len(suite)), "failures": str(failures), "errors": "0", "skipped": str(skipped)}
    suite.attrib = {"name": f"npformer parity: {name}", **counts, "time": f"{report.seconds:.3f}"}
    ET.SubElement(suite, "system-out").text = verdict(report)
    root = ET.Element("testsuites", counts)
    root.append(suite)
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, "unicode") + "\n"


def save_report(report: Report, path: str | Path) -> None:
    """Write a report in the format of its path's suffix: .html, .json, .xml (JUnit) or .txt (with every value).

    The file appears complete or not at all. Raises ValueError for another suffix, OSError where it cannot be written.
    """
    path = Path(path)
    suffix = check_suffix(path, REPORT_SUFFIXES, "the report's path")
    if suffix == ".html":
        from .html import html  # only here: it draws images

        text = html(report)
    elif suffix == ".json":
        text = json.dumps(to_json(report), indent=1, allow_nan=False) + "\n"
    elif suffix == ".xml":
        text = junit(report)
    else:
        text = format_report(report, verbose=True) + "\n"
    write_text(path, text)


def save_repro(fault: Fault, path: str | Path) -> None:
    """Write a faulty op alone as `.npz`, for np.load without pickle: its inputs, its expected and its actual output.

    Arrays: "inputs.<name>", "parameters.<name>", "expected" and "got" where they exist; "about" is a JSON string
    with the value, op, kind, axes, span, causes, reason and, as `to_json` has them, the worst index and both numbers.

    The file appears complete or not at all. Raises ValueError for another suffix or arrays of objects, OSError where
    it cannot be written.
    """
    path = Path(path)
    check_suffix(path, REPRO_SUFFIXES, "the repro's path")
    arrays = {f"inputs.{shown(name)}": array for name, array in fault.inputs.items()}
    arrays |= {f"parameters.{shown(name)}": array for name, array in fault.parameters.items()}
    arrays |= {name: array for name, array in (("expected", fault.expected), ("got", fault.got)) if array is not None}
    objects = [name for name, array in arrays.items() if np.asarray(array).dtype.hasobject]
    if objects:
        raise ValueError(f"the repro can hold arrays of numbers only, but {objects[0]} is one of Python objects")
    about = {
        "format": "npformer-parity-repro", "value": fault.value.name, "op": fault.op, "kind": fault.value.kind,
        "axes": fault.value.axes, "span": fault.span, "causes": fault.causes, "reason": fault.reason,
        "worst": fault.worst, "expected_there": fault.expected_there, "got_there": fault.got_there,
    }  # fmt: skip
    arrays["about"] = np.array(json.dumps(_plain(about), allow_nan=False))
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial, partial.open("wb") as file:  # an open file, since np.savez appends .npz to a path
        np.savez(file, **arrays)  # type: ignore[arg-type]


def check_suffix(path: Path, known: tuple[str, ...], what: str) -> str:
    """Return the suffix of a path. Raises ValueError for an unknown one, naming `what` it is of."""
    suffix = path.suffix
    if suffix not in known:
        raise ValueError(f"{what} must end in {' or '.join(known)}, got {str(path)!r}")
    return suffix


def _plain(x: Any) -> Any:
    """Convert dataclasses, mappings, sequences, NumPy's numbers and arrays to JSON's types; see `to_json`."""
    if is_dataclass(x):
        return {field.name: _plain(getattr(x, field.name)) for field in fields(x)}
    if isinstance(x, Mapping):
        return {str(key): _plain(value) for key, value in x.items()}
    if isinstance(x, (list, tuple)):
        return [_plain(item) for item in x]
    if isinstance(x, np.ndarray):
        return _summary(x)
    x = x.item() if isinstance(x, np.generic) else x
    return str(x) if isinstance(x, float) and not math.isfinite(x) else x


def _summary(array: Array) -> dict[str, Any]:
    summary: dict[str, Any] = {"shape": list(array.shape), "dtype": str(array.dtype)}
    if array.dtype.kind not in "buif" or not array.size:
        return summary
    numbers = array.astype(np.float64)
    finite = numbers[np.isfinite(numbers)]
    sizes = np.abs(np.nan_to_num(numbers, nan=np.inf, posinf=np.inf, neginf=-np.inf))
    return _plain(
        {
            **summary,
            "smallest": finite.min() if finite.size else None,
            "largest": finite.max() if finite.size else None,
            "rms": np.sqrt(np.mean(finite * finite)) if finite.size else None,
            "not_finite": numbers.size - finite.size,
            "largest_at": np.unravel_index(int(sizes.argmax()), array.shape),
        }
    )


def _fail(case: ET.Element, kind: str, message: str, details: str = "") -> None:
    ET.SubElement(case, "failure", type=kind, message=message).text = details or message


def _failure(value: Value, fault: Fault | None, report: Report) -> tuple[str, str]:
    """Return a failure's message and its details."""
    if fault is None:
        return f"faulty, ratio {digits(value.ratio)}", shown(value.note)
    lines = [f"{label}: {text}" for label, text in facts(fault, report)]
    return f"{cause(fault, report.dtype)}; ratio {digits(value.ratio)}", "\n".join(lines)
