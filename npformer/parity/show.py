"""A report in words: the verdict in one line, the faults in detail, the coverage, and every value's numbers.

The sentences are written here for all forms of a report; `html` and `export` reuse them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from ..summary import align
from .noise import PASS, WARN
from .report import Fault, Report, Value

LIMIT = 20  # faults described at length, and rows that a short table is built around
NEIGHBOURS = 2  # rows before and after each of these
NAMED = 6  # names or channels listed in a sentence before the count of the others
HEAD = ("status", "ratio", "SQNR dB", "ulp", "drift", "kind", "shape", "value", "port's name and notes")
DUMP_NEXT = "To narrow it down, dump next, the most telling first"
RIGHT = {1, 2, 3, 4}  # the columns of numbers


def verdict(report: Report) -> str:
    """Return the result in one line: equal or not, the first fault and its cause, how much was tested.

    Findings that make the port different by themselves come first, since they explain what follows.
    """
    tested = f"{report.tested} of {len(report.values)} values tested"
    if report.equal:
        return f"equal within {report.dtype} noise: {tested}{_worst_ratio(report)}"
    parts = []
    bad = [finding for finding in report.findings if finding.bad]
    if bad:
        more = f" (and {plural(len(bad) - 1, 'more finding')})" if len(bad) > 1 else ""
        parts.append(shown(bad[0].text).rstrip(". ") + more)
    if report.faults:
        first = report.faults[0]
        inherited = sum(value.status == "inherited" for value in report.values)
        verb = "inherits" if inherited == 1 else "inherit"
        after = f"; {plural(inherited, 'value')} after it {verb} the error" if inherited else ""
        parts.append(
            f"{plural(len(report.faults), 'fault')}, first {where(first)} ({cause(first, report.dtype)}){after}"
        )
    if not parts:
        return f"nothing compared: none of the {len(report.values)} values was found in the port's dump"
    return f"different: {'; '.join(parts)}; {tested}, {report.dtype}"


def format_report(report: Report, verbose: bool = False) -> str:
    """Return the whole report as text of ASCII characters, names aside.

    The first fault is described in detail, up to nineteen others in a few lines each, and the table lists faults and
    warnings with their neighbours; `verbose` describes every fault in detail and lists every value.
    """
    parts = [verdict(report)]
    if report.findings:
        rows = [("!" if finding.bad else " ", shown(finding.kind), shown(finding.text)) for finding in report.findings]
        parts.append("\n".join(["Findings", *(f"  {line}" for line in align(rows, right=set()))]))
    for number, fault in enumerate(report.faults[: None if verbose else LIMIT], 1):
        known = facts(fault, report)
        heading = f"Fault {number} of {len(report.faults)}: {where(fault)}"
        if number > 1 and not verbose:
            known = [fact for fact in known if fact[0] in ("cause", "not dumped", "note", "worst", "ratio")]
        parts.append("\n".join([heading, *(f"  {line}" for line in align(known, right=set()))]))
    if not verbose and len(report.faults) > LIMIT:
        parts.append(
            f"{plural(len(report.faults) - LIMIT, 'more fault')}, not told here; look at the first ones first"
        )
    parts.append("\n".join(["Coverage", *(f"  {line}" for line in coverage(report))]))
    parts.append(
        "\n".join(["Values, in the order they are computed", *(f"  {line}" for line in _table(report, verbose))])
    )
    if report.suggestions:
        most = len(report.suggestions) if verbose else NAMED
        parts.append("\n".join([DUMP_NEXT, *(f"  {title(name)}" for name in report.suggestions[:most])]))
    parts.append("\n".join(legend(report)))
    return "\n\n".join(parts)


def facts(fault: Fault, report: Report) -> list[tuple[str, str]]:
    """Return the known facts of a fault, as pairs of a label and a sentence; only measured ones."""
    value = fault.value
    names = [other.name for other in report.values]
    place = f", value {names.index(value.name) + 1} of {len(names)}" if value.name in names else ""
    known = [("value", ", ".join(filter(None, [title(value.name), shown(value.kind), _times(value.shape)])) + place)]
    named = title(value.port_name) if value.port_name is not None and value.port_name != value.name else ""
    laid = f"laid out as {shown(value.layout)}" if value.layout else ""
    if named or laid:
        known.append(("in the port", ", ".join(filter(None, [named, laid]))))
    known.append(("cause", _cause_at_length(fault, report.dtype)))
    if fault.span:
        known.append(("not dumped", _span(fault)))
    if value.note:
        known.append(("note", shown(value.note)))
    if fault.worst:
        known.append(
            (
                "worst", f"at {_index(fault.worst, value.axes)}: expected {fault.expected_there:.9g}, "
                f"got {fault.got_there:.9g}",
            )
        )  # fmt: skip
    if value.ratio is not None:
        made_of = [("all numbers", value.bulk), ("largest error", value.peak), ("worst channel", value.channel)]
        listed = ", ".join(f"{name} {digits(x)}" for name, x in made_of if x is not None)
        known.append(("ratio", f"{digits(value.ratio)} times the noise floor" + (f" ({listed})" if listed else "")))
    if value.error is not None:
        largest = "" if value.largest is None else f", where exact values reach {digits(value.largest)}"
        floor = "" if value.floor is None else f"; the noise floor is {digits(value.floor)} (root mean square)"
        known.append(("error", f"up to {digits(value.error)}{largest}{floor}"))
    if value.sqnr is not None:
        known.append(("SQNR", f"{digits(value.sqnr)} dB"))
    if value.ulp is not None:
        known.append(("ulp", f"{digits(value.ulp)} units in the last place of {report.dtype}, at the largest value"))
    if fault.by_channel is not None and fault.by_channel.size:
        known.append(("channels", channels(fault.by_channel)))
    if fault.border is not None:
        known.append(("border", _border(fault.border)))
    return known


def where(fault: Fault) -> str:
    """Return the position of a fault: "at X", or, after undumped values, "in one of the 5 values from A to X"."""
    ops = list(dict.fromkeys(found.op for found in fault.causes)) or [fault.op]
    if fault.causes or fault.reason or not fault.span or fault.op != fault.value.name:
        return f"at {' or '.join(map(title, ops))}"
    return f"in one of the {len(fault.span) + 1} values from {title(fault.span[0])} to {title(fault.value.name)}"


def cause(fault: Fault, dtype: str) -> str:
    """Return the cause in a few words; or that several are indistinguishable in that dtype; or that it is unknown."""
    texts = [shown(found.text).rstrip(". ") for found in fault.causes]
    if len(texts) > 1:
        return f"not identifiable at {dtype}: {' or '.join(texts)}"
    return texts[0] if texts else shown(fault.reason) or "cause unknown"


def channels(errors: np.ndarray) -> str:
    """Describe the channels with the largest errors (root mean square, one number each), and the typical error."""
    order = worst_channels(errors)
    listed = ", ".join(f"{i} ({digits(float(errors[i]))})" for i in order)
    kind = "channel has" if len(order) == 1 else "channels have"
    return f"of {len(errors)}, these {kind} the largest errors: {listed}; median {digits(_median(errors))}"


def worst_channels(errors: np.ndarray) -> list[int]:
    """Return the indices of the few channels with the largest errors, worst first; NaN counts as the largest."""
    order = np.argsort(-np.nan_to_num(errors, nan=np.inf, posinf=np.inf), kind="stable")
    return [int(i) for i in order[:NAMED]]


def coverage(report: Report) -> list[str]:
    """Describe in sentences how much was tested, with what result, the untested ranges, and the uncertain names."""
    counts = Counter(value.status for value in report.values)
    warned = sum(value.level == "warn" for value in report.values)
    lines = [
        f"{report.tested} of {len(report.values)} values tested: {counts['clean']} clean, {counts['faulty']} faulty, "
        f"{counts['inherited']} inherited; {counts['untested']} not in the dump"
    ]
    if warned:
        verb = "has a ratio" if warned == 1 else "have ratios"
        lines.append(f"{plural(warned, 'value')} {verb} between {PASS:g} and {WARN:g}: no fault, but worth a look")
    gaps = sorted(untested_runs(report), key=lambda gap: gap.start - gap.stop)[:3]
    for gap in gaps if report.tested else []:
        first, last = report.values[gap[0]].name, report.values[gap[-1]].name
        reach = title(first) if len(gap) == 1 else f"{title(first)} to {title(last)}"
        lines.append(f"{plural(len(gap), 'value')} in a row not in the dump: {reach}")
    lines += _uncertain_names(report)
    laid = f", maps laid out as {shown(report.layout)}" if report.layout else ""
    model = f"{shown(report.model)}; " if report.model else ""
    return [*lines, f"{model}the port computes in {report.dtype}{laid}; {report.seconds:.1f} s"]


def untested_runs(report: Report) -> Iterator[range]:
    """Yield the positions of the values that were not tested, each run of them as one range."""
    start = 0
    for position, value in enumerate(report.values):
        if value.status != "untested":
            if position > start:
                yield range(start, position)
            start = position + 1
    if start < len(report.values):
        yield range(start, len(report.values))


def row(value: Value) -> tuple[str, ...]:
    """Return a value's line in the table, with the columns of `HEAD`."""
    status = f"{value.status}, {value.level}" if value.level == "warn" else value.status
    port = title(value.port_name) if value.port_name is not None and value.port_name != value.name else ""
    notes = "; ".join(filter(None, [port, shown(value.note)]))
    numbers = (digits(x) for x in (value.ratio, value.sqnr, value.ulp, value.drift))
    return (status, *numbers, shown(value.kind), _times(value.shape), title(value.name), notes)


def legend(report: Report) -> list[str]:
    """Return an explanation of the numbers, in sentences."""
    return [
        f"ratio: the error over the noise floor, which is what rounding in {report.dtype} costs at that place; up to "
        f"{PASS:g} passes, above {WARN:g} is a fault.",
        "Every value is judged on the port's own values before it: faulty means wrong there, inherited means right",
        "there, but off because of a fault before it. drift: how far off it is from a run of our own, relative.",
        "SQNR: signal over error in decibels. ulp: the largest error in units in the last place of the largest value.",
    ]


def digits(x: float | None) -> str:
    """Format a measured number in three digits (integer from 100 to a million); "-" for one that was not measured."""
    if x is None:
        return "-"
    return f"{x:,.0f}" if 100 <= abs(x) < 1e6 else f"{x:.3g}"


def shown(text: str) -> str:
    """Return a text on one line that any terminal or file can encode: unprintable characters become their codes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def title(name: str) -> str:
    """Return a value's name for display: the model itself, whose name is empty, is "(model)"."""
    return shown(name) or "(model)"


def plural(number: int, noun: str) -> str:
    """Return a number with its noun: "1 fault", "2 faults"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _table(report: Report, verbose: bool) -> list[str]:
    """Return all values, or faults, warnings, their neighbours and the last value, with the omitted ones counted."""
    values = report.values
    kept = set(range(len(values))) if verbose else _worth_showing(values)
    rows: list[Sequence[str]] = [HEAD]
    skipped: Counter[str] = Counter()
    for position, value in enumerate(values):
        if position not in kept:
            skipped[value.status] += 1
            continue
        rows += [_gap(skipped), row(value)] if skipped else [row(value)]
        skipped = Counter()
    gaps = [len(cells) == 1 for cells in rows]
    aligned = iter(align([cells for cells, gap in zip(rows, gaps, strict=True) if not gap], RIGHT))
    return [cells[0] if gap else next(aligned) for cells, gap in zip(rows, gaps, strict=True)]


def _gap(skipped: Counter[str]) -> tuple[str]:
    return (f"... {', '.join(f'{number} {status}' for status, number in skipped.items())}",)


def _worth_showing(values: Sequence[Value]) -> set[int]:
    """Return the positions of faults and warnings with neighbours, else of the worst ratio; and of the last value."""
    marked = [i for i, value in enumerate(values) if value.status == "faulty" or value.level == "warn"][:LIMIT]
    if not marked:
        measured = [i for i, value in enumerate(values) if value.ratio is not None]
        marked = [max(measured, key=lambda i: values[i].ratio or 0)] if measured else []
    near = {j for i in marked for j in range(i - NEIGHBOURS, i + NEIGHBOURS + 1)}
    return (near | {len(values) - 1}) & set(range(len(values)))


def _worst_ratio(report: Report) -> str:
    ratios = [value.ratio for value in report.values if value.ratio is not None]
    warned = sum(value.level == "warn" for value in report.values)
    near = f" ({plural(warned, 'value')} between {PASS:g} and {WARN:g})" if warned else ""
    return f", worst ratio {digits(max(ratios))}{near}" if ratios else ""


def _cause_at_length(fault: Fault, dtype: str) -> str:
    if not fault.causes:
        if fault.reason:
            return f"{shown(fault.reason)}: there is no error to measure"
        return "unknown: nothing that porters are known to do instead explains it"
    descriptions = [
        shown(found.text).rstrip(". ")
        + (f", at {title(found.op)}" if found.op != fault.value.name else "")
        + (f", which leaves a ratio of {digits(found.ratio)}" if math.isfinite(found.ratio) else "")
        for found in fault.causes
    ]
    return descriptions[0] if len(descriptions) == 1 else f"not identifiable at {dtype}: {' or '.join(descriptions)}"


def _span(fault: Fault) -> str:
    names = [title(name) for name in fault.span]
    if len(names) > NAMED:
        names = [*names[: NAMED - 1], "...", names[-1]]
    lies = "" if fault.causes or fault.reason else "; the fault may lie in any of them or in this value itself"
    return f"{plural(len(fault.span), 'value')} just before: {', '.join(names)}{lies}"


def _index(index: Sequence[int], axes: str) -> str:
    if len(axes) != len(index):
        return f"[{', '.join(map(str, index))}]"
    return f"[{', '.join(f'{letter} {i}' for letter, i in zip(axes, index, strict=True))}]"


def _border(ratio: float) -> str:
    text = f"errors at the border are {digits(ratio)} times those inside"
    return f"{text}: padding may be wrong" if ratio > 3 else text


def _uncertain_names(report: Report) -> list[str]:
    """Return a sentence on the names that were matched by alignment, naming the least certain ones."""
    if not report.confidence:
        return []
    worst = sorted(report.confidence, key=lambda name: report.confidence[name])[:3]
    examples = ", ".join(
        f"{title(report.names.get(name, '?'))} for {title(name)} ({report.confidence[name]:.0%})" for name in worst
    )
    return [f"{plural(len(report.confidence), 'name')} matched by order, shape and content; least certain: {examples}"]


def _median(errors: np.ndarray) -> float:
    return float(np.median(np.nan_to_num(errors, nan=np.inf, posinf=np.inf)))


def _times(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
