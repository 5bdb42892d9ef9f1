"""Results as plain text and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ..summary import align
from .contestants import OURS
from .peaks import Peaks
from .rounds import Means, Ratio, Result, Rules, Timing


def format_results(results: Sequence[Result], rules: Rules) -> str:
    """Return one line per model and batch size: all contestants' milliseconds, ratios with ranges, and peak memory."""
    names = list(results[0].timings)
    rivals = [name for name in names if name != OURS]
    head = ["model", "batch", f"{OURS} ms", *([] if rivals else ["quartiles", "pictures/s"])]
    for rival in rivals:
        head += [f"{rival} ms", "ratio"]
    lines = [[*head, "peak MB"]]
    for result in results:
        ours = result.timings[OURS]
        line = [result.model, str(result.batch), _ms(ours.median)]
        if not rivals:
            line += [_quartiles(ours), f"{_pictures(result, ours):.1f}"]
        for rival in rivals:
            line += [_ms(result.timings[rival].median), _ratio(result.ratio(rival))]
        lines.append([*line, " / ".join(_megabytes(timing) for timing in result.timings.values())])
    left = {0, *(i for i, title in enumerate(head) if title in ("quartiles", "ratio"))}
    footer = [f"float32, {_count(rules.threads, 'thread')}, {_count(rules.rounds, 'round')}; ms: median of all runs"]
    if rivals:
        footer.append(f"ratio: {OURS}'s time over the other's in the same round, median of the rounds and their range")
        footer.append(f"peak MB: the most memory of each process, {' / '.join(names)}")
    return "\n".join([*align(lines, right=set(range(len(head))) - left), "", *footer])


def format_progress(result: Result) -> str:
    """Return one model and batch size as a line of text."""
    times = [f"{name} {_ms(timing.median)} ms" for name, timing in result.timings.items()]
    ratios = [f"{result.ratio(name).median:.2f} x {name}" for name in result.timings if name != OURS]
    return f"{result.model}, batch {result.batch}: {', '.join(times + ratios)}"


def format_means(means: Sequence[Means]) -> str:
    """Return the geometric means, a line each."""
    lines = [["geometric mean", "batch", "ratio", "models"]]
    lines += [[f"{OURS} / {m.rival}", str(m.batch), f"{m.ratio:.2f}", str(m.models)] for m in means]
    return "\n".join(align(lines, right={1, 2, 3}))


def format_breakdown(result: Result, peaks: Peaks) -> str:
    """Return the timings of all contestants on one model and batch size, and the breakdown of our time."""
    size = f"{result.size} x {result.size}"
    lines = [["", "ms", "quartiles", "pictures/s", "peak MB"]]
    for name, timing in result.timings.items():
        rate = f"{_pictures(result, timing):.1f}"
        lines.append([name, _ms(timing.median), _quartiles(timing), rate, _megabytes(timing)])
    parts = [["kind", "ms", "share", "GFLOP/s", "of peak", "GB/s", "of peak"]]
    for part in result.parts:
        flops = _rate(part.gflops, peaks.gflops)
        moved = _rate(part.gbytes, peaks.gbytes_cache)
        parts.append([part.kind, f"{part.milliseconds:.2f}", f"{part.share:.0%}", *flops, *moved])
    total = sum(part.milliseconds for part in result.parts)
    parts.append(["in all", f"{total:.2f}", "", "", "", "", ""])
    return "\n".join(
        [
            f"{result.model}, {_count(result.batch, 'picture')} of {size}",
            "",
            *align(lines, right={1, 3, 4}),
            "",
            *align(parts, right={1, 2, 3, 4, 5, 6}),
        ]
    )


def format_peaks(peaks: Peaks, rules: Rules) -> str:
    """Return a note on the peaks that the shares refer to."""
    return (
        f"peaks of this machine, {_count(rules.threads, 'thread')}: {peaks.gflops:.0f} GFLOP/s in a float32 matrix "
        f"product; in a copy, read and\nwritten, {peaks.gbytes_cache:.0f} GB/s within the cache, which GB/s are "
        f"compared with, and {peaks.gbytes_memory:.0f} from memory to memory"
    )


def as_json(
    results: Sequence[Result], means: Sequence[Means], rules: Rules, peaks: Peaks, versions: dict[str, str]
) -> dict[str, Any]:
    """Return all results in plain lists and dictionaries."""
    return {
        "versions": versions,
        **asdict(rules),
        "peaks": asdict(peaks),
        "results": [_result(result) for result in results],
        "geometric_means": [asdict(mean) for mean in means],
    }


def _result(result: Result) -> dict[str, Any]:
    timings = {}
    for name, timing in result.timings.items():
        low, middle, high = timing.quartiles
        timings[name] = {
            "milliseconds": middle, "quartiles": [low, high], "rounds": timing.medians,
            "pictures_per_second": _pictures(result, timing), "peak_mb": timing.peak_mb,
        }  # fmt: skip
    ratios = {
        name: {"median": ratio.median, "lowest": min(ratio.rounds), "highest": max(ratio.rounds)}
        for name in result.timings
        if name != OURS
        for ratio in [result.ratio(name)]
    }
    return {
        "model": result.model, "batch": result.batch, "size": result.size, "contestants": timings, "ratios": ratios,
        "breakdown": [asdict(part) for part in result.parts],
    }  # fmt: skip


def _pictures(result: Result, timing: Timing) -> float:
    """Return the pictures per second."""
    return 1000 * result.batch / timing.median


def _ms(milliseconds: float) -> str:
    return f"{milliseconds:.2f}" if milliseconds < 10 else f"{milliseconds:.1f}"


def _quartiles(timing: Timing) -> str:
    low, _, high = timing.quartiles
    return f"{_ms(low)} - {_ms(high)}"


def _ratio(ratio: Ratio) -> str:
    return f"{ratio.median:.2f} ({min(ratio.rounds):.2f} - {max(ratio.rounds):.2f})"


def _megabytes(timing: Timing) -> str:
    return "-" if timing.peak_mb is None else f"{timing.peak_mb:.0f}"


def _rate(rate: float, peak: float) -> tuple[str, str]:
    """Return a rate, and its share of the peak; empty where it is not counted."""
    return (f"{rate:.0f}", f"{rate / peak:.0%}") if rate else ("", "")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
