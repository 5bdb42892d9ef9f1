"""A report as one self-contained HTML page: no script, no font, no picture from elsewhere.

It has the text of `show`, with a plot of every value's ratio, images of the errors' positions, and bars of the errors
by channel.
"""

from __future__ import annotations

import base64
import html as entities
import io
import math
from collections.abc import Iterable, Sequence

import numpy as np

from ..ops import Array
from .noise import PASS, WARN
from .report import Fault, Report, Value
from .show import (
    DUMP_NEXT,
    HEAD,
    LIMIT,
    RIGHT,
    cause,
    coverage,
    digits,
    facts,
    legend,
    plural,
    row,
    shown,
    title,
    untested_runs,
    verdict,
    where,
    worst_channels,
)

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 960, 300, 56, 50, 12, 36  # of the plot, in units of its view box
_SMALLEST, _LARGEST = 0.01, 9  # smaller ratios are drawn at the bottom, those above 10^9 at the top
_BARS = (480, 110)  # width and height
_MAP = 280  # largest size in pixels of an enlarged error map
_COLOURS = np.array([[16, 12, 56], [106, 24, 110], [200, 60, 76], [246, 148, 40], [252, 250, 170]], np.float64)
_NOT_FINITE = (0, 200, 255)


def html(report: Report) -> str:
    """Return the whole report as a page; every name in it is escaped. Error maps are embedded as small PNG images."""
    parts = [
        f'<h1>Parity report</h1>\n<p class="verdict {"equal" if report.equal else "different"}">'
        f"{_escape(verdict(report))}</p>",
        _findings(report),
        _section("ratios", "Ratio by value", _plot(report)),
        _faults(report),
        _section("coverage", "Coverage", _list(coverage(report))),
        _suggestions(report),
        _section("values", "Values, in the order they are computed", _table(report)),
        _section("legend", "What the numbers mean", f"<p>{_escape(' '.join(legend(report)))}</p>"),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Parity report: {'equal' if report.equal else 'different'}</title>\n<style>\n{_STYLE}</style>\n"
        f"</head>\n<body>\n<main>\n{chr(10).join(filter(None, parts))}\n</main>\n</body>\n</html>\n"
    )


def _findings(report: Report) -> str:
    if not report.findings:
        return ""
    rows = [
        [_escape(finding.kind), "different" if finding.bad else "none", _escape(finding.text)]
        for finding in report.findings
    ]
    return _section("findings", "Findings", _rows(("about", "effect", "finding"), rows))


def _faults(report: Report) -> str:
    if not report.faults:
        return ""
    items = [_fault(number, fault, report) for number, fault in enumerate(report.faults[:LIMIT], 1)]
    more = [
        f"{where(fault)}: {cause(fault, report.dtype)}, ratio {digits(fault.value.ratio)}"
        for fault in report.faults[LIMIT:]
    ]
    if more:
        items.append(f"<details><summary>{plural(len(more), 'more fault')}</summary>\n{_list(more)}\n</details>")
    return _section("faults", plural(len(report.faults), "fault").capitalize(), "\n".join(items))


def _fault(number: int, fault: Fault, report: Report) -> str:
    position = _positions(report).get(fault.value.name)
    link = "" if position is None else f'<p><a href="#value-{position + 1}">its line in the table</a></p>\n'
    lines = "".join(f"<dt>{_escape(label)}</dt><dd>{_escape(text)}</dd>\n" for label, text in facts(fault, report))
    pictures = [
        _error_map(number, fault) if fault.error_map is not None and fault.error_map.size else "",
        _bars(number, fault) if fault.by_channel is not None and fault.by_channel.size else "",
    ]
    drawn = f'<div class="pictures">\n{"".join(pictures)}</div>\n' if any(pictures) else ""
    return (
        f'<article id="fault-{number}">\n<h3>Fault {number}: {_escape(where(fault))}</h3>\n'
        f"<dl>\n{lines}</dl>\n{drawn}{link}</article>"
    )


def _suggestions(report: Report) -> str:
    if not report.suggestions:
        return ""
    items = "".join(f"<li><code>{_escape(title(name))}</code></li>\n" for name in report.suggestions[:LIMIT])
    return _section("suggestions", DUMP_NEXT, f"<ol>\n{items}</ol>")


def _table(report: Report) -> str:
    faults = {fault.value.name: number for number, fault in enumerate(report.faults[:LIMIT], 1)}
    lines = []
    for position, value in enumerate(report.values, 1):
        cells = [_escape(cell) for cell in row(value)]
        if value.name in faults:
            cells[0] = f'<a href="#fault-{faults[value.name]}">{cells[0]}</a>'
        tags = [_cell(cell, column) for column, cell in enumerate(cells)]
        lines.append(f'<tr id="value-{position}" class="{_kind(value)}">{"".join(tags)}</tr>\n')
    head = "".join(f'<th scope="col">{_escape(label)}</th>' for label in HEAD)
    return (
        f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{"".join(lines)}</tbody>\n</table></div>'
    )


def _cell(content: str, column: int) -> str:
    if HEAD[column] == "value":
        return f'<th scope="row">{content}</th>'
    return f'<td class="number">{content}</td>' if column in RIGHT else f"<td>{content}</td>"


# --- the plot --------------------------------------------------------------------------------------------------------


def _plot(report: Report) -> str:
    """Plot the ratios on a logarithmic scale, one point per value; untested ranges are hatched."""
    finite = [v.ratio for v in report.values if v.ratio is not None and math.isfinite(v.ratio)]
    top = min(math.ceil(math.log10(max([100.0, *finite])) + 0.3), _LARGEST)
    bottom = math.log10(_SMALLEST)
    step = (_WIDTH - _LEFT - _RIGHT) / max(len(report.values), 1)
    base = _HEIGHT - _BOTTOM

    def height(ratio: float) -> float:
        if not math.isfinite(ratio):
            return float(_TOP)
        level = math.log10(min(max(ratio, _SMALLEST), 10.0**top))
        return base - (level - bottom) / (top - bottom) * (base - _TOP)

    parts = []
    for gap in untested_runs(report):
        names = f"{title(report.values[gap[0]].name)} to {title(report.values[gap[-1]].name)}"
        parts.append(
            f'<rect class="gap" x="{_LEFT + gap.start * step:.2f}" y="{_TOP}" width="{len(gap) * step:.2f}" '
            f'height="{base - _TOP}"><title>{plural(len(gap), "value")} untested: {_escape(names)}</title></rect>\n'
        )
    every = math.ceil((top - bottom) / 8)
    for power in range(round(bottom), top + 1, every):
        parts.append(_level(height(10.0**power), "grid", digits(10.0**power), _LEFT - 6, "end"))
    for ratio, meaning in ((PASS, "warn"), (WARN, "fault")):
        parts.append(_level(height(ratio), f"limit {meaning}", f"{ratio:g} {meaning}", _WIDTH - _RIGHT + 6, "start"))
    parts += [_tick(position, step, base) for position in _ticks(len(report.values))]
    parts.append(
        f'<text x="{_WIDTH / 2}" y="{_HEIGHT - 4}" text-anchor="middle">number of the value, in the order '
        "they are computed</text>\n"
    )
    for position, value in enumerate(report.values):
        x = _LEFT + (position + 0.5) * step
        unmeasured = math.inf if value.status == "faulty" else 0.0  # misshapen, or right without a measurement
        if value.status != "untested":
            parts.append(_point(x, height(unmeasured if value.ratio is None else value.ratio), position, value))
    number = plural(len(report.faults), "fault")
    described = (
        f"The error of each value over the noise floor, logarithmic: {report.tested} of {len(report.values)} values, "
        f"{number}. The table of values has the same numbers."
    )
    key = (
        '<p class="key"><span class="clean">&#9679; clean</span> <span class="warn">&#9632; warning</span> '
        '<span class="inherited">&#9675; inherited</span> <span class="faulty">&#9650; faulty</span> '
        '<span class="untested">&#9617; untested</span></p>'
    )
    return (
        f'<figure>\n<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-labelledby="plot-title plot-text">\n'
        f'<title id="plot-title">Ratio by value</title><desc id="plot-text">{described}</desc>\n'
        f"{''.join(parts)}</svg>\n"
        f"<figcaption>{described} Values above the scale, or of no finite error, stand at the top.</figcaption>{key}\n"
        "</figure>"
    )


def _level(y: float, name: str, label: str, x: float, anchor: str) -> str:
    return (
        f'<line class="{name}" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.2f}" y2="{y:.2f}"/>'
        f'<text x="{x}" y="{y + 4:.2f}" text-anchor="{anchor}">{label}</text>\n'
    )


def _ticks(count: int) -> range:
    """Return about ten round positions along the values."""
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, count + 1) if count <= 12 * s)
    return range(step, count + 1, step)


def _tick(position: int, step: float, base: float) -> str:
    x = _LEFT + (position - 0.5) * step
    return (
        f'<line class="grid" x1="{x:.2f}" x2="{x:.2f}" y1="{base}" y2="{base + 4}"/>'
        f'<text x="{x:.2f}" y="{base + 16}" text-anchor="middle">{position}</text>\n'
    )


def _point(x: float, y: float, position: int, value: Value) -> str:
    kind = _kind(value)
    if kind == "faulty":
        shape = f'<path class="faulty" d="M{x:.2f} {y - 5:.2f}l5 9h-10z">'
        end = "</path>"
    elif kind == "warn":
        shape = f'<rect class="warn" x="{x - 3:.2f}" y="{y - 3:.2f}" width="6" height="6">'
        end = "</rect>"
    else:
        shape, end = f'<circle class="{kind}" cx="{x:.2f}" cy="{y:.2f}" r="2.5">', "</circle>"
    text = f"{position + 1}: {title(value.name)}, {value.status}, ratio {digits(value.ratio)}"
    return f"{shape}<title>{_escape(text)}</title>{end}\n"


# --- pictures of a fault ---------------------------------------------------------------------------------------------


def _error_map(number: int, fault: Fault) -> str:
    errors = np.asarray(fault.error_map, np.float64)
    name, (rows, columns) = title(fault.value.name), errors.shape
    largest = float(np.max(errors, where=np.isfinite(errors), initial=0.0))
    broken = int(np.sum(~np.isfinite(errors)))
    at = np.unravel_index(int(np.argmax(np.nan_to_num(errors, nan=np.inf, posinf=np.inf))), errors.shape)
    alt = f"error at each of {rows} x {columns} pixels of {name}; the largest is at row {at[0]}, column {at[1]}"
    scale = f"dark 0, bright {digits(largest)}, linear" + (
        f"; {plural(broken, 'pixel')} not finite, in blue" * (broken > 0)
    )
    return (
        f'<figure><img src="{_data_uri(_levels(errors, largest))}" alt="{_escape(alt)}">'
        f"<figcaption>Error map of fault {number}: the largest error at each pixel, {rows} x {columns}; "
        f"{scale}.</figcaption></figure>\n"
    )


def _levels(errors: Array, largest: float) -> Array:
    """Scale errors to 0 to 254, linearly up to the largest finite one; 255 where they are not finite."""
    finite = np.isfinite(errors)
    share = np.divide(errors, largest, out=np.zeros_like(errors), where=finite & (largest > 0))
    return np.where(finite, np.rint(share * 254), 255).astype(np.uint8)


def _palette() -> list[int]:
    """Return 255 colours from dark to bright, and one for values that are not finite."""
    places = np.linspace(0, len(_COLOURS) - 1, 255)
    channels = [np.interp(places, np.arange(len(_COLOURS)), _COLOURS[:, i]) for i in range(3)]
    return [*np.rint(np.stack(channels, 1)).astype(int).ravel().tolist(), *_NOT_FINITE]


def _data_uri(levels: Array) -> str:
    """Return an image of numbers 0 to 255 as a data URI, enlarged by an integer factor without interpolation."""
    from PIL import Image

    rows, columns = levels.shape
    factor = max(1, _MAP // max(rows, columns))
    picture = Image.fromarray(levels).resize((columns * factor, rows * factor), Image.Resampling.NEAREST)
    picture.putpalette(_palette())
    stream = io.BytesIO()
    picture.save(stream, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"


def _bars(number: int, fault: Fault) -> str:
    errors = np.asarray(fault.by_channel, np.float64).ravel()
    width, height = _BARS
    step = width / len(errors)
    largest = float(np.max(errors, where=np.isfinite(errors), initial=0.0))
    share = np.where(np.isfinite(errors), errors / (largest or 1), 1)
    thick = max(0.5, 0.8 * step)
    path = "".join(f"M{(i + 0.5) * step:.2f} {height}V{height * (1 - x):.2f}" for i, x in enumerate(share) if x > 0)
    named = "".join(
        f'<rect class="faulty" x="{(i + 0.5) * step - thick / 2:.2f}" y="{height * (1 - share[i]):.2f}" '
        f'width="{thick:.2f}" height="{height * share[i]:.2f}"><title>channel {i}: {digits(float(errors[i]))}</title>'
        "</rect>"
        for i in worst_channels(errors)
    )
    text = f"root mean square error of each of {len(errors)} channels, 0 to {digits(largest)}, linear"
    listed = ", ".join(f"{i}" for i in worst_channels(errors))
    return (
        f'<figure><svg viewBox="0 0 {width} {height + 2}" role="img" aria-labelledby="bars-{number}">'
        f'<title id="bars-{number}">{_escape(title(fault.value.name))}: {text}; largest in {listed}</title>'
        f'<path class="bars" stroke-width="{thick:.2f}" d="{path}"/>{named}'
        f'<line class="grid" x1="0" x2="{width}" y1="{height}" y2="{height}"/></svg>\n'
        f"<figcaption>Error by channel of fault {number}: {text}; red: channels {listed}.</figcaption></figure>\n"
    )


# --- HTML ------------------------------------------------------------------------------------------------------------


def _escape(text: str) -> str:
    return entities.escape(shown(text), quote=True)


def _section(anchor: str, heading: str, content: str) -> str:
    return f'<section id="{anchor}">\n<h2>{_escape(heading)}</h2>\n{content}\n</section>'


def _list(items: Iterable[str]) -> str:
    return f"<ul>\n{''.join(f'<li>{_escape(item)}</li>' + chr(10) for item in items)}</ul>"


def _rows(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of already escaped cells, the first of each row its heading."""
    top = "".join(f'<th scope="col">{_escape(label)}</th>' for label in head)
    lines = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>\n'
        for first, *cells in rows
    )
    return f"<table>\n<thead><tr>{top}</tr></thead>\n<tbody>\n{lines}</tbody>\n</table>"


def _kind(value: Value) -> str:
    """Return the style of a value: its status, or "warn"."""
    return "warn" if value.level == "warn" else value.status


def _positions(report: Report) -> dict[str, int]:
    return {value.name: position for position, value in enumerate(report.values)}


_STYLE = """\
:root { color-scheme: light dark; --text: #1b1f24; --ground: #fff; --soft: #f1f3f5; --line: #c9ced4; --dim: #57606a;
  --clean: #1a6f3c; --warn: #8a5a00; --faulty: #b3202c; --inherited: #5b4bb0; }
@media (prefers-color-scheme: dark) { :root { --text: #e4e8ec; --ground: #14171a; --soft: #20252a; --line: #414951;
  --dim: #a3adb7; --clean: #58c585; --warn: #e0ac4a; --faulty: #ff7a80; --inherited: #ac9cff; } }
@media print { :root { color-scheme: light; --text: #000; --ground: #fff; --soft: #fff; --line: #999; --dim: #333;
  --clean: #1a6f3c; --warn: #8a5a00; --faulty: #b3202c; --inherited: #5b4bb0; }
  article, figure, tr { break-inside: avoid; } table { font-size: 7pt; } .wide { overflow: visible; } }
body { margin: 0; background: var(--ground); color: var(--text); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 72rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; } h3 { font-size: 1rem; }
h3, dd, tbody th, td:last-child, li, .verdict { overflow-wrap: anywhere; }
.verdict { padding: .75rem 1rem; border-left: .4rem solid var(--faulty); background: var(--soft); font-weight: 600; }
.verdict.equal { border-color: var(--clean); }
article { border: 1px solid var(--line); border-radius: .4rem; padding: .25rem 1rem; margin: 1rem 0; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; }
dt { color: var(--dim); } dd { margin: 0; }
.pictures { display: flex; flex-wrap: wrap; gap: 1.5rem; align-items: flex-end; }
figure { margin: 1rem 0; max-width: 100%; } .pictures figure { flex: 0 1 30rem; }
figcaption, .key { color: var(--dim); font-size: .85rem; } .key span { margin-right: 1rem; }
svg, img { max-width: 100%; height: auto; } svg { width: 100%; } img { image-rendering: pixelated; }
svg text { fill: var(--dim); font: 11px system-ui, sans-serif; }
.grid { stroke: var(--line); stroke-width: 1; } .limit { stroke-width: 1.5; stroke-dasharray: 6 4; }
line.warn { stroke: var(--warn); } line.fault { stroke: var(--faulty); }
.gap { fill: var(--line); fill-opacity: .35; } .bars { stroke: var(--dim); }
circle.clean { fill: var(--clean); } rect.warn { fill: var(--warn); } path.faulty, rect.faulty { fill: var(--faulty); }
circle.inherited { fill: none; stroke: var(--inherited); stroke-width: 1.2; }
span.clean { color: var(--clean); } span.warn { color: var(--warn); } span.faulty { color: var(--faulty); }
span.inherited { color: var(--inherited); }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .85rem; }
th, td { text-align: left; padding: .15rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; }
thead th { background: var(--soft); } tbody th { font-weight: normal; } .wide tbody th { min-width: 16rem; }
td, thead th { white-space: nowrap; } td:last-child { white-space: normal; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
tr.faulty > :first-child { color: var(--faulty); font-weight: 600; } tr.warn > :first-child { color: var(--warn); }
tr.inherited > :first-child { color: var(--inherited); } tr.untested { color: var(--dim); }
tr:target { outline: 2px solid var(--inherited); } a { color: inherit; }
"""
