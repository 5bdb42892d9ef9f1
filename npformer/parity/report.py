"""The result of a comparison: every value's verdict, the faults and their causes, as data and as text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

Status = Literal["clean", "inherited", "faulty", "untested"]
Level = Literal["pass", "warn", "fail", ""]


@dataclass
class Value:
    """One named value of the model and its comparison with the port's, judged on the port's own upstream values.

    name: as in `record`. kind: the kind of its module ("Conv2d", or the inner value's name). status: "clean"; "faulty"
    (wrong locally); "inherited" (right locally, but different from a run of our own, because of a fault before it);
    "untested" (the port did not dump it). level: "pass", "warn" or "fail" of the local residual.

    ratio: the local error over the noise floor, the largest of `bulk` (root mean squares), `peak` (largest errors) and
    `channel` (the worst channel's root mean squares). floor: the noise floor, root mean square. error, largest: the
    largest absolute local error and the largest absolute exact value. ulp: the largest error in units in the last
    place of the port's dtype at the largest exact value. sqnr: signal over error in decibels, local. drift: root mean
    square of the difference to a run of our own over that run's root mean square. All None where untested.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    axes: str = ""
    port_name: str | None = None
    layout: str = ""
    status: Status = "untested"
    level: Level = ""
    ratio: float | None = None
    bulk: float | None = None
    peak: float | None = None
    channel: float | None = None
    floor: float | None = None
    error: float | None = None
    largest: float | None = None
    ulp: float | None = None
    sqnr: float | None = None
    drift: float | None = None
    note: str = ""


@dataclass
class CauseFound:
    """A cause whose residual is at the noise floor: a stable key, one sentence, the op it is in, its ratio."""

    key: str
    text: str
    op: str
    ratio: float


@dataclass
class Fault:
    """A value that is wrong although everything before it that was dumped is taken from the port.

    op: the value whose computation is at fault: `value.name`, or an untested one of `span` where a cause is found
    there. span: the untested values between the last dumped ones and this; the fault may be in any of them. causes:
    best first; several mean that they are indistinguishable in the port's dtype; none that the cause is unknown.
    worst: index of the largest error, with the expected and the actual number. by_channel: root mean square error of
    each channel. error_map: the largest error at each pixel (H, W), of maps only. border: border pixels' root mean
    square error over the inner ones'. inputs, parameters, expected, got: the op alone, for a repro.
    """

    value: Value
    op: str
    span: list[str]
    causes: list[CauseFound]
    worst: tuple[int, ...]
    expected_there: float
    got_there: float
    by_channel: np.ndarray | None = None
    error_map: np.ndarray | None = None
    border: float | None = None
    inputs: dict[str, np.ndarray] = field(default_factory=dict)
    parameters: dict[str, np.ndarray] = field(default_factory=dict)
    expected: np.ndarray | None = None
    got: np.ndarray | None = None
    reason: str = ""  # "misshapen", "not finite", "missing" where no error could be measured


@dataclass
class Finding:
    """An observation other than a faulty op: kind ("input", "weights", "labels", "layout", "names", ...), a sentence.

    bad: whether it alone makes the port different.
    """

    kind: str
    text: str
    bad: bool = False


@dataclass
class Report:
    """The result of `compare`.

    dtype: the port's. layout: its layout of maps, by the vote of the whole dump. names: our name -> the port's.
    confidence: of the names that were aligned rather than given, 0 to 1. unmatched: names of the port's without a
    match. suggestions: values to dump next, most useful first.
    """

    model: str
    dtype: str
    layout: str
    values: list[Value]
    faults: list[Fault]
    findings: list[Finding] = field(default_factory=list)
    names: Mapping[str, str] = field(default_factory=dict)
    confidence: Mapping[str, float] = field(default_factory=dict)
    unmatched: list[str] = field(default_factory=list)
    suggestions: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def equal(self) -> bool:
        """True if the port is equal to the model: no fault, no bad finding, and something was tested."""
        return not self.faults and not any(finding.bad for finding in self.findings) and self.tested > 0

    @property
    def tested(self) -> int:
        """The number of values that the port dumped and this comparison judged."""
        return sum(value.status != "untested" for value in self.values)
