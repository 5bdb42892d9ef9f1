"""The comparison itself: match names, undo layouts, replay, judge, explain."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..models.pretrained import PreTrainedModel
from ..nn import Module
from ..ops import Array
from ..trace import Trace, record
from .causes import alternatives, fitted, misshapen
from .describe import fill, map_errors, rms, some
from .dump import Dump, as_dump
from .layout import undo_layouts
from .names import match_names
from .noise import DTYPES, PASS, WARN, Judgement, before_rounding, find_dtype, judge, round_to, rounding, simulated
from .preflight import check_input, check_labels, check_logit_order, check_weights, describe_input
from .replay import Program, Replay, study
from .report import CauseFound, Fault, Finding, Report, Value
from .site import Cause, Site

INPUT = "pixel_values"  # name of the port's own input in a dump
FUSED_REACH = 6  # distance to the later value that a value may hold, where a port folds layers into one
SPAN_LIMIT = 400  # alternatives tried at untested values before the search is given up
# The floor is that of the right op, and a wrong one may round more (sums of its own): up to four times the limit is
# accepted if that is at most a hundredth of the error, and nothing is within the limit.
LENIENT, CONVINCING = 4 * WARN, 0.01


def compare(
    model: Module,
    pixel_values: Array,
    port: Any,
    *,
    names: Mapping[str, str] | str | Path | None = None,
    layout: str = "auto",
    dtype: str = "auto",
    port_weights: Mapping[str, Array] | None = None,
    port_labels: Sequence[str] | None = None,
    picture: Any = None,
    processor: Any = None,
) -> Report:
    """Find the wrong ops of a port, and their likely causes, from a dump of its intermediate values.

    `model` runs in float64 on `pixel_values` (B, C, H, W), the port's input. `port` is a mapping from name to array,
    or a path that `read_dump` reads. After every value the port's replaces ours, so each op is judged on the port's
    own upstream values; the error allowed is that of our op in the port's dtype, times four (eight: a warning).

    names: pairs of our names and the port's, where they differ (a mapping or a file; see `read_map`); the remaining
    values are aligned. layout: of the port's maps, "NCHW", "NHWC" or "auto". dtype: that of the port's arithmetic,
    "float32", "float16", "bfloat16", "float64" or "auto". port_weights, port_labels: checked first where given.
    picture, processor: the origin of the input, to explain an input that differs.

    Raises ValueError, TypeError or FileNotFoundError for arguments that cannot be compared.
    """
    started = time.perf_counter()
    if isinstance(model, PreTrainedModel):
        model.refuse_fused("a comparison")
    if dtype != "auto" and dtype not in DTYPES:
        raise ValueError(f"dtype must be auto, {', '.join(DTYPES)}, got {dtype!r}")
    dump = as_dump(port)
    comparison = _Comparison(model, pixel_values, dump, find_dtype(dump, dump.dtypes) if dtype == "auto" else dtype)
    comparison.match(names, layout)
    comparison.preflight(port_weights, port_labels, picture, processor)
    comparison.replay()
    report = comparison.report()
    report.seconds = time.perf_counter() - started
    return report


@dataclass
class _Judged:
    value: Value
    judgement: Judgement | None
    reason: str = ""


class _Comparison:
    """The state of one comparison, filled step by step."""

    def __init__(self, model: Module, pixel_values: Array, dump: Dump, dtype: str) -> None:
        self.exact_model, self.rough_model = model.astype(np.float64), simulated(model, dtype)
        self.name = type(model).__name__
        self.pixel_values = np.asarray(pixel_values)
        self.dump, self.dtype = dump, dtype
        self.findings: list[Finding] = []
        self.reference = record(self.exact_model, self.pixel_values.astype(np.float64))
        self.program: Program = study(list(self.reference))
        self.kinds = _kinds(self.exact_model, self.reference)
        self.fused: dict[str, str] = {}  # values that hold a later one's
        self.odd_shapes: dict[str, tuple[Array, CauseFound]] = {}  # misshapen ones whose cause is known
        self.input_differs = False

    def match(self, names: Any, layout: str) -> None:
        """Pair the port's names with ours and convert its values to our axes."""
        with_input = Trace({INPUT: self.pixel_values, **self.reference}, {INPUT: "BCHW", **self.reference.layouts})
        self.matching = match_names(with_input, self.dump, names, self.kinds, self.dump.ordered)
        self.findings += self.matching.findings
        self.laid = undo_layouts(with_input, self.dump, self.matching.port_names, layout, self.dump.layouts)
        self.findings += self.laid.findings
        self.given = {name: value for name, value in self.laid.values.items() if name != INPUT}
        if not self.given and not set(self.laid.misshapen) - {INPUT}:
            raise ValueError(
                f"port holds no value that could be recognised as one of {self.name}'s: its names are "
                f"{some(self.dump)}, ours {some(self.reference)}; give `names` to say which is which"
            )

    def preflight(self, weights: Any, labels: Any, picture: Any, processor: Any) -> None:
        """Check the prerequisites of the layers: the input, the weights, the order of labels."""
        mean, std = getattr(processor, "image_mean", None), getattr(processor, "image_std", None)
        finding = describe_input(self.pixel_values, mean, std)
        self.findings += [finding] if finding else []
        if INPUT in self.matching.port_names:
            theirs = self.laid.values.get(INPUT, self.dump[self.matching.port_names[INPUT]])
            check = check_input(
                self.pixel_values, theirs, dtype=self.dtype, image_mean=mean, image_std=std, picture=picture,
                processor=processor,
            )  # fmt: skip
            if check.finding:
                self.findings.append(check.finding)
                self.input_differs = check.finding.bad and INPUT in self.laid.values
        if weights is not None:
            self.findings += check_weights(self.exact_model, weights, self.dtype)
        if labels is not None:
            self.findings += check_labels(self.exact_model, labels)

    def replay(self) -> None:
        """Run both replays, repeatedly without values found to hold a later layer's, and judge every value."""
        x = self.laid.values[INPUT] if self.input_differs else self.pixel_values
        free = Replay(self.rough_model, self.program, {}, rounding(self.dtype))
        free.run(self.pixel_values.astype(self.rough_model.dtype))
        self.drift_floor = {name: rms(free.used[name] - self.reference[name]) for name in self.given}
        del free
        while True:
            given = {name: value for name, value in self.given.items() if name not in self.fused}
            given |= {name: value for name, (value, _) in self.odd_shapes.items()}
            self.exact = Replay(self.exact_model, self.program, given, None)
            self.exact.run(x.astype(np.float64))
            unrounded = {name: before_rounding(value, self.dtype, name) for name, value in given.items()}
            self.rough = Replay(self.rough_model, self.program, unrounded, rounding(self.dtype))
            self.rough.run(x.astype(self.rough_model.dtype))
            self.judged = {name: self._judge(name) for name in self.program.names}
            found = {
                name: later
                for name, judged in self.judged.items()
                if judged.value.status == "faulty" and not judged.reason and (later := self._held_instead(name))
            }
            odd = {
                name: explained
                for name in self.laid.misshapen
                if name not in self.odd_shapes and name in self.exact.sites and (explained := self._odd_shape(name))
            }
            if not found and not odd:
                return
            self.fused |= found
            self.odd_shapes |= odd

    def _judge(self, name: str) -> _Judged:
        exact = self.exact.sites[name].output
        axes = self.reference.layouts[name]
        value = Value(name, self.kinds[name], exact.shape, axes, self.matching.port_names.get(name))
        if name in self.laid.misshapen:
            value.status, value.level, value.note = "faulty", "fail", self.laid.misshapen[name]
            return _Judged(value, None, "misshapen")
        if name not in self.given:
            return _Judged(value, None)
        value.layout = self.laid.layouts.get(name, "")
        if name in self.fused:
            value.status, value.level = "clean", "pass"
            value.note = f"holds the value of {self.fused[name]}: the layers between are folded into this one"
            return _Judged(value, None)
        port = self.given[name]
        judgement = judge(port, exact, self.rough.sites[name].output, axes, self.dtype)
        fill(value, judgement)
        value.drift = _relative(port, self.reference[name])
        value.status = "faulty" if value.level == "fail" else "clean"
        return _Judged(value, judgement, "" if np.isfinite(judgement.error) else "not finite")

    def _held_instead(self, name: str) -> str | None:
        """Return the later value that the port has under this name, because it folds the layers between into one."""
        names, start, port = self.program.names, self.exact.order[name], self.given[name]
        for later in names[start + 1 : start + 1 + FUSED_REACH]:
            if self.exact.sites[later].output.shape != port.shape:
                return None
            if later in self.given and not _close(self.given[later], port, self.dtype):
                continue
            exact, rough = (run.again(later, {name: _ours}, free=True) for run in (self.exact, self.rough))
            if exact.shape != port.shape:
                return None
            if judge(port, exact, rough, self.reference.layouts[later], self.dtype).ratio <= WARN:
                return later
        return None

    def _odd_shape(self, name: str) -> tuple[Array, CauseFound] | None:
        """Return a misshapen value in our axes, and its cause, where padding of another size explains it."""
        port = np.asarray(self.dump[self.matching.port_names[name]])
        if port.ndim == 4 and self.laid.layout == "NHWC":
            port = port.transpose(0, 3, 1, 2)
        pairs = zip(misshapen(self.exact.sites[name]), misshapen(self.rough.sites[name]), strict=True)
        for (cause, exact_value), (_, rough_value) in pairs:
            exact = exact_value()
            if exact.shape == port.shape:
                rough = round_to(rough_value(), self.dtype)
                ratio = judge(port, exact, rough, self.reference.layouts[name], self.dtype).ratio
                if ratio <= WARN:
                    return port, CauseFound(cause.key, cause.text, name, ratio)
        return None

    def report(self) -> Report:
        """Assemble the report, searching for the causes of faults."""
        faults: list[Fault] = []
        span: list[str] = []
        broken = self.input_differs
        for name, judged in self.judged.items():
            value = judged.value
            if value.status == "untested":
                span.append(name)
                continue
            if value.status == "faulty":
                faults.append(self._explain(judged, span))
                broken = True
            elif broken and value.drift is not None:
                floor = self.drift_floor[name] / max(rms(self.reference[name]), 1e-300)
                if value.drift > WARN * max(floor, DTYPES[self.dtype][0]):
                    value.status = "inherited"
            span = []
        final = self.program.names[-1]
        if final in self.given and self.judged[final].value.status != "clean":
            finding = check_logit_order(self.reference[final], self.given[final], self.dtype)
            self.findings += [finding] if finding else []
        if final not in self.given and set(self.matching.how.values()) == {"aligned"} and self.matching.unmatched:
            # After a fault numbers are no evidence, so nothing may be matched there: that must not count as equal.
            text = (
                f"the port's names are not ours, and {some(self.matching.unmatched)} could not be told by the numbers"
            )
            self.findings.append(Finding("names", f"{text}, its output among them: give names", bad=True))
        return Report(
            model=self.name, dtype=self.dtype, layout=self.laid.layout,
            values=[judged.value for judged in self.judged.values()], faults=faults, findings=self.findings,
            names=dict(self.matching.port_names), confidence=dict(self.matching.confidence),
            unmatched=list(self.matching.unmatched), suggestions=self._suggestions(faults),
        )  # fmt: skip

    def _explain(self, judged: _Judged, span: list[str]) -> Fault:
        name = judged.value.name
        site = self.exact.sites[name]
        fault = Fault(
            value=judged.value, op=name, span=[n for n in span if not self._hands_on(n)], causes=[], worst=(),
            expected_there=np.nan, got_there=np.nan,
            inputs=_inputs(site), parameters=_parameters(site.module), expected=site.output, reason=judged.reason,
        )  # fmt: skip
        if judged.reason == "misshapen":
            fault.got = np.asarray(self.dump[self.matching.port_names[name]])
            fault.causes = [self.odd_shapes[name][1]] if name in self.odd_shapes else []
            return fault
        port = fault.got = self.given[name]
        map_errors(fault)
        if judged.reason:
            largest = DTYPES[self.dtype][1]
            count = int((~np.isfinite(port)).sum())
            if judged.value.largest is not None and judged.value.largest > largest:
                text = f"the exact value reaches {judged.value.largest:.3g}, {self.dtype} holds at most {largest:.4g}"
                fault.causes = [CauseFound("overflow", text, name, np.inf)]
            else:
                text = f"{count} of {port.size} numbers are NaN or infinite, where none of the exact ones is large"
                fault.causes = [CauseFound("not-finite", text, name, np.inf)]
            return fault
        fault.causes = self._causes(name, span, port)
        if fault.causes and all(cause.op == fault.causes[0].op for cause in fault.causes):
            fault.op = fault.causes[0].op
        return fault

    def _hands_on(self, name: str) -> bool:
        """Return whether a value is merely another name of an earlier one, as a block's of its last layer's."""
        output = self.exact.sites[name].output
        return any(output is value for value in self.exact.sites[name].used.values())

    def _causes(self, name: str, span: list[str], port: Array) -> list[CauseFound]:
        """Return the catalogue's causes that give the port's value, at this value or at an untested one before it."""
        found: list[CauseFound] = []
        judgement = self.judged[name].judgement
        limit = max(WARN, min(LENIENT, CONVINCING * judgement.ratio if judgement else LENIENT))
        trials = [{name: cause} for cause, _ in alternatives(self.exact.sites[name])]
        for trial in itertools.chain(trials, self._elsewhere(span)):
            change = {op: partial(_planted, cause) for op, cause in trial.items()}
            exact = self.exact.again(name, change)
            if exact.shape != port.shape or not _promising(port, exact, self.exact.sites[name].output):
                continue
            ratio = judge(port, exact, self.rough.again(name, change), self.reference.layouts[name], self.dtype).ratio
            if ratio <= limit:
                op, cause = next(iter(trial.items()))
                places = f" (and at {len(trial) - 1} more of the values before)" if len(trial) > 1 else ""
                found.append(CauseFound(cause.key, cause.text + places, op, ratio))
        if not found:
            found = self._descriptions(name, port)
        for enough in (PASS, WARN):
            found = [cause for cause in found if cause.ratio <= enough] or found
        return sorted(found, key=lambda cause: cause.ratio)

    def _elsewhere(self, span: list[str]) -> list[dict[str, Cause]]:
        """Return possible mistakes at untested values: each cause at each of them, and at all of them at once.

        A port that uses another activation uses it everywhere, and a wrong order of heads shows in query, key and
        value.
        """
        single: list[dict[str, Cause]] = []
        together: dict[Cause | str, dict[str, Cause]] = {}
        for op in span:
            causes = [cause for cause, _ in alternatives(self.exact.sites[op])]
            keys = [cause.key for cause in causes]
            for cause in causes:
                single.append({op: cause})
                together.setdefault(cause, {})[op] = cause
                if keys.count(cause.key) == 1:  # identified by its key alone, whatever its text
                    together.setdefault(cause.key, {})[op] = cause
        return [*single, *(trial for trial in together.values() if len(trial) > 1)][:SPAN_LIMIT]

    def _descriptions(self, name: str, port: Array) -> list[CauseFound]:
        """Describe the port's value in terms of ours, where nothing in the catalogue explains it."""
        found = []
        axes, exact, rough = self.reference.layouts[name], self.exact.sites[name].output, self.rough.sites[name].output
        for (cause, exact_thunk), (_, rough_thunk) in zip(
            fitted(exact, port.astype(np.float64), axes), fitted(rough, port.astype(rough.dtype), axes), strict=False
        ):
            ratio = judge(port, exact_thunk(), rough_thunk(), axes, self.dtype).ratio
            if ratio <= WARN:
                found.append(CauseFound(cause.key, cause.text, name, ratio))
        return found

    def _suggestions(self, faults: Iterable[Fault]) -> list[str]:
        """Return values to dump next: those with causes, then the middle of each faulty span, then of its halves."""
        wanted: list[str] = []
        for fault in faults:
            wanted += [cause.op for cause in fault.causes if cause.op in fault.span]
            wanted += _bisected(fault.span)
        return list(dict.fromkeys(wanted))


def _kinds(model: Module, reference: Trace) -> dict[str, str]:
    modules = dict(model.named_modules())
    kinds = {}
    for name in reference:
        owner, _, inner = name.partition("#")[0].partition(":")
        kinds[name] = inner or type(modules[owner]).__name__
    return kinds


def _planted(cause: Cause, site: Site) -> Array:
    """Return the value that the op would have with that cause."""
    return next(value() for other, value in alternatives(site) if other == cause)


def _ours(site: Site) -> Array:
    return site.output


def _promising(port: Array, alternative: Array, ours: Array) -> bool:
    """Return whether an alternative is nearer to the port than our value: the others need no noise floor."""
    with np.errstate(all="ignore"):
        p = port.astype(np.float64)
        return bool(rms(p - alternative) < 0.7 * rms(p - ours)) or bool(
            np.abs(p - alternative).max() < 0.7 * np.abs(p - ours).max()
        )


def _inputs(site: Site) -> dict[str, Array]:
    """Return the inputs of an op: its arguments, or for an inner value the last few values of its module."""
    arrays = [x for x in site.inputs if isinstance(x, np.ndarray)]
    if arrays:
        return {f"input{i}" if i else "input": x for i, x in enumerate(arrays)}
    inside = f"{site.owner}."
    names = [n for n in site.used if n.startswith((inside, f"{site.owner}:"))]
    return {n.removeprefix(site.owner).lstrip(".:"): site.used[n] for n in names[-4:]}


def _parameters(module: Module) -> dict[str, Array]:
    return {key: value for key, value in vars(module).items() if isinstance(value, np.ndarray)}


def _bisected(names: Sequence[str]) -> list[str]:
    """Return the names in bisection order: the middle one, then the middles of the two halves, and so on."""
    ordered, parts = [], [list(names)]
    while parts:
        part = parts.pop(0)
        if part:
            middle = len(part) // 2
            ordered.append(part[middle])
            parts += [part[:middle], part[middle + 1 :]]
    return ordered


def _relative(port: Array, reference: Array) -> float:
    with np.errstate(all="ignore"):
        return float(rms(port - reference) / max(float(rms(reference)), 1e-300))


def _close(a: Array, b: Array, dtype: str) -> bool:
    """Return whether two values of the port are the same up to a rounding."""
    with np.errstate(all="ignore"):
        return a.shape == b.shape and bool(np.abs(a - b).max() <= 4 * DTYPES[dtype][0] * np.abs(a).max())
