"""Matching of a port's values with ours: by the user's map, by name, and otherwise by alignment.

Names are equal if they are spelled equally, or differ only in how frameworks spell scopes: "/a/b/Conv_output_0" is
"a.b", a prefix that all names have ("model.") or all lack ("efficientformer.") does not count, and the model's own
output, "" here, may be called "logits" or "output".
"""

from __future__ import annotations

import difflib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoint.atomic import write_text
from ..checkpoint.json_object import read_json
from ..trace import Trace
from .align import Aligned, align
from .layout import grids, readings
from .report import Finding

THRESHOLD = 0.5  # less certain pairs are reported and not used
OUTPUTS = (
    "logits", "output", "outputs", "output0", "output_0", "out", "prediction", "predictions", "last_hidden_state",
)  # fmt: skip
INPUT = "pixel_values"
INPUTS = ("input", "inputs", "input0", "input_0", "input_1", "input.1", "image", "images", "x", "data")
# The last part of a scoped name is an op's, not a module's: "Conv", "Mul_1_output_0", "BiasAdd", "truediv".
_OP = re.compile(r"(?:[A-Z]\w*?|add|sub|mul|truediv|transpose|reshape|concat)(?:_\d+)?(?:_output_\d+)?")
_DEEPEST = 4  # parts that a prefix may have

Names = Mapping[str, str | None]  # our name, glob or regex -> the port's name, or None to omit a value


@dataclass
class Matching:
    """The result of matching a port's values with ours.

    port_names: our name -> the port's, in our order. how: our name -> "exact", "map" or "aligned". confidence: of the
    aligned ones, 0 to 1. unmatched: the port's names without a match.
    """

    port_names: dict[str, str]
    how: dict[str, str]
    confidence: dict[str, float]
    unmatched: list[str]
    findings: list[Finding]


def match_names(
    reference: Trace,
    port: Mapping[str, np.ndarray],
    names: Names | str | Path | None = None,
    kinds: Mapping[str, str] | None = None,
    ordered: bool = True,
) -> Matching:
    """Match each of the port's values with one of ours.

    `names` is a map, or a file that `read_map` reads; it takes precedence over equal names. `kinds` gives the kind of
    module of each of our values ("Conv2d"), for comparison with the port's names. `ordered`: the port's values are in
    order of computation. Values of ours that are equal to another (a block's to its last layer's) are omitted from the
    alignment once that other one is matched.

    Raises ValueError for a map with unknown names, and as `read_map`.
    """
    names = read_map(names) if isinstance(names, str | Path) else names or {}
    mapped = _mapped(names, list(reference), list(port))
    found = {ours: theirs for ours, theirs in mapped.items() if theirs is not None}
    how = dict.fromkeys(found, "map")
    taken = set(found.values())
    for ours, theirs in _by_name(reference, port, ordered).items():
        if ours not in mapped and theirs not in taken:
            found[ours], how[ours] = theirs, "exact"
    taken = set(found.values())
    free = [name for name in port if name not in taken]
    aligned = (
        align(reference, port, found, _left(reference, found, mapped), free, kinds or {}, ordered) if free else []
    )
    used = [pair for pair in aligned if pair.confidence >= THRESHOLD]
    found |= {pair.ours: pair.theirs for pair in used}
    how |= dict.fromkeys((pair.ours for pair in used), "aligned")
    taken = set(found.values())
    return Matching(
        port_names={name: found[name] for name in reference if name in found},
        how={name: how[name] for name in reference if name in found},
        confidence={pair.ours: pair.confidence for pair in used},
        unmatched=[name for name in port if name not in taken],
        findings=_findings(used, [pair for pair in aligned if pair.confidence < THRESHOLD]),
    )


def read_map(path: str | Path) -> dict[str, str | None]:
    r"""Read pairs of our names and the port's, from JSON or YAML (".json", ".yaml", ".yml").

    The file is a mapping {ours: theirs}, or one that `write_map` wrote. Ours may be a pattern, and then stands for all
    matching values whose counterpart the port has dumped: in "encoder.blocks.*.conv" a star is any text without a dot
    or colon, two stars any text at all, and the stars of "b*/conv2d" take it over, first for first; "re:" begins a
    regular expression for the whole name, whose groups the port's name takes over as "\1". A plain name has precedence
    over patterns, an earlier pattern over later ones. null instead of the port's name omits the value.

    Raises ValueError for another form or kind of file, FileNotFoundError, or ImportError where PyYAML is missing.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"names must be a file with a map of names, got {path}, which does not exist")
    if path.suffix == ".json":
        entries: Any = read_json(path)
        entries = entries["names"] if isinstance(entries.get("names"), dict) else entries
    elif path.suffix in (".yaml", ".yml"):
        entries = _read_yaml(path)
    else:
        raise ValueError(f"names must be a .json, .yaml or .yml file, got {path}")
    if not isinstance(entries, dict):
        raise ValueError(f"{path} must hold a mapping from our names to the port's, got {type(entries).__name__}")
    for ours, theirs in entries.items():
        if not isinstance(ours, str) or not isinstance(theirs, str | None):
            raise ValueError(f"{path} must map names to names (quote numbers), got {ours!r}: {theirs!r}")
    return entries


def write_map(matching: Matching, path: str | Path) -> None:
    """Write a matching for editing, as JSON or YAML by the path's suffix, in the form that `read_map` reads.

    Aligned pairs come with their confidence, in YAML as a comment; the port's unmatched names are listed too.

    Raises ValueError for another suffix.
    """
    path = Path(path)
    if path.suffix == ".json":
        content = {
            "names": matching.port_names,
            "confidence": {name: round(sure, 3) for name, sure in matching.confidence.items()},
            "unmatched": matching.unmatched,
        }
        write_text(path, json.dumps(content, indent=2) + "\n")
    elif path.suffix in (".yaml", ".yml"):
        lines = ["# our name: the port's (null: leave this value out)"]
        for ours, theirs in matching.port_names.items():
            sure = matching.confidence.get(ours)
            note = "" if sure is None else f"  # aligned, confidence {sure:.2f}"
            lines.append(f"{json.dumps(ours)}: {json.dumps(theirs)}{note}")
        lines += [f"# unmatched: {json.dumps(name)}" for name in matching.unmatched]
        write_text(path, "\n".join(lines) + "\n")
    else:
        raise ValueError(f"path must end in .json, .yaml or .yml, got {path}")


def _read_yaml(path: Path) -> Any:
    try:
        import yaml  # type: ignore[import-untyped,unused-ignore]
    except ImportError:
        raise ImportError(f"to read {path}, PyYAML must be installed (or write the map as JSON)") from None
    try:
        content = yaml.safe_load(path.read_bytes())
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from None
    return {} if content is None else content


# --- the user's map ----------------------------------------------------------------------------------------------


def _mapped(names: Names, ours: Sequence[str], theirs: Sequence[str]) -> dict[str, str | None]:
    """Return the map without patterns: our names to the port's, or to None."""
    known, dumped = set(ours), set(theirs)
    patterns = {key: value for key, value in names.items() if key.startswith("re:") or "*" in key}
    result = {}
    for key, value in names.items():
        if key in patterns:
            continue
        if key not in known:
            raise ValueError(f"names maps {key!r}, which is no value of the model{_perhaps(key, ours)}")
        if value is not None and value not in dumped:
            raise ValueError(f"names maps {key!r} to {value!r}, which the port's dump lacks{_perhaps(value, theirs)}")
        result[key] = value
    for key, value in patterns.items():
        pattern, template = _compiled(key, value)
        fitting = [name for name in ours if pattern.fullmatch(name)]
        if not fitting:
            raise ValueError(f"names maps {key!r}, which fits no value of the model")
        pairs = {name: _expanded(pattern, template, name, key) for name in fitting}
        pairs = {name: made for name, made in pairs.items() if made is None or made in dumped}
        if not pairs:
            made = _expanded(pattern, template, fitting[0], key)
            raise ValueError(f"names maps {key!r} to {value!r}, but the port's dump lacks {made!r} and all others")
        result |= {name: made for name, made in pairs.items() if name not in result}
    return result


def _perhaps(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f"; perhaps {near[0]!r}?" if near else ""


def _compiled(key: str, value: str | None) -> tuple[re.Pattern[str], str | None]:
    """Compile a glob or regex of ours to a regex, and the port's name to a template for its groups."""
    if key.startswith("re:"):
        try:
            return re.compile(key.removeprefix("re:")), value
        except re.error as error:
            raise ValueError(f"names has {key!r}, which is no regular expression: {error}") from None
    parts = re.split(r"(\*\*|\*)", key)
    pattern = "".join({"*": "([^.:]*)", "**": "(.*)"}.get(part, re.escape(part)) for part in parts)
    if value is None:
        return re.compile(pattern), None
    fixed = re.split(r"\*+", value)
    stars = len(parts) // 2
    if len(fixed) - 1 not in (stars, 0):
        raise ValueError(f"names maps {key!r} to {value!r}: both sides must have the same number of stars")
    template = fixed[0].replace("\\", "\\\\")
    for number, part in enumerate(fixed[1:], start=1):
        template += f"\\g<{number}>" + part.replace("\\", "\\\\")
    return re.compile(pattern), template


def _expanded(pattern: re.Pattern[str], template: str | None, name: str, key: str) -> str | None:
    fit = pattern.fullmatch(name)
    if template is None or fit is None:
        return None
    try:
        return fit.expand(template)
    except (re.error, IndexError) as error:
        raise ValueError(f"names maps {key!r} to {template!r}, which is no template for it: {error}") from None


# --- equal names -------------------------------------------------------------------------------------------------


def _by_name(reference: Trace, port: Mapping[str, np.ndarray], ordered: bool) -> dict[str, str]:
    """Map our names to the port's equal ones, spelling aside."""
    found = {name: name for name in reference if name in port}
    direct: dict[str, list[str]] = {}
    scopes: dict[str, list[str]] = {}
    paths = {name: _path(name) for name in port}
    translate = _Prefix([path for both in paths.values() for path in both if path], reference)
    for theirs, (path, scope) in paths.items():
        if theirs in found:
            continue
        ours = translate(path)
        if ours in reference and ours:
            direct.setdefault(ours, []).append(theirs)
        elif scope:
            scopes.setdefault(translate(scope), []).append(theirs)
    for ours, names in direct.items():
        if len(names) == 1:
            found.setdefault(ours, names[0])
    handed_on = _handed_on(reference) if scopes else set()
    fits = _Fits(reference, port)
    for ours, scope in _scopes(reference, scopes).items():
        fitting = [theirs for theirs in scopes[scope] if fits(ours, theirs)]
        certain = ours not in handed_on and fitting and (ordered or len(fitting) == 1)
        if certain and not _is_inside(reference, ours, port[fitting[-1]]):
            found.setdefault(ours, fitting[-1])
    for ours, usual in (("", OUTPUTS), (INPUT, INPUTS)):
        named = [t for t in port if _path(t)[0].lower() in usual and t not in set(found.values())]
        fitting = [theirs for theirs in named if ours in reference and fits(ours, theirs)]
        if len(fitting) == 1:
            found.setdefault(ours, fitting[0])
    return found


class _Fits:
    """Test whether some layout converts our shape to the port's."""

    def __init__(self, reference: Trace, port: Mapping[str, np.ndarray]) -> None:
        self.reference, self.port, self.grids = reference, port, grids(reference)

    def __call__(self, ours: str, theirs: str) -> bool:
        axes, shape = self.reference.layouts.get(ours, ""), self.reference[ours].shape
        return bool(readings(axes, shape, np.shape(self.port[theirs]), self.grids.get(ours)))


def _path(name: str) -> tuple[str, str]:
    """Return a port's name with dots for slashes; and, if its last part is an op's, the enclosing module's name."""
    path = re.sub(r":\d+$", "", name)
    if "/" not in path:
        return path, ""
    parts = path.strip("/").split("/")
    # PyTorch's exporter writes a Sequential's children as "layers/layers.0".
    parts = [
        p
        for p, following in zip(parts, [*parts[1:], ""], strict=True)
        if not re.match(rf"{re.escape(p)}\.\d", following)
    ]
    return ".".join(parts), ".".join(parts[:-1]) if _OP.fullmatch(parts[-1]) else ""


class _Prefix:
    """The prefix that the port's names have instead of ours: none, or the one that matches most of them."""

    def __init__(self, paths: Iterable[str], ours: Iterable[str]) -> None:
        rests: dict[str, list[str]] = {}
        self.known = set(ours)
        for name in self.known:
            for prefix, rest in _cut(name, 1):
                rests.setdefault(rest, []).append(prefix)
        votes: Counter[tuple[str, str]] = Counter()
        for path in set(paths):
            for prefix, rest in _cut(path, _DEEPEST):
                votes.update((prefix, mine) for mine in rests.get(rest, ()) if "." in rest or prefix == mine == "")
        best = max(votes, key=lambda pair: (votes[pair], -len(pair[0] + pair[1])), default=("", ""))
        self.theirs, self.ours = best if votes[best] > max(1, votes["", ""]) else ("", "")

    def __call__(self, path: str) -> str:
        """Return our name for a path, if there is one under the prefix; or else the path."""
        ours = self.ours + path.removeprefix(self.theirs)
        known = ours in self.known or re.sub(r"_\d+$", "", ours) in self.known
        return ours if known and path.startswith(self.theirs) else path


def _cut(name: str, most: int) -> list[tuple[str, str]]:
    """Return the splits of a name in two, after none up to `most` of its parts."""
    places = [0, *(place.end() for place in re.finditer(r"\.", name))]
    return [(name[:place], name[place:]) for place in places[: most + 1]]


def _scopes(reference: Trace, scopes: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Map our modules' values to the scopes of their ops: that of the second call of "a" is "a_1", and so on."""
    calls = Counter(name.partition("#")[0] for name in reference)
    found: dict[str, str] = {}
    for name, times in calls.items():
        places = [name, *(f"{name}_{number}" for number in range(1, times))]
        if name and ":" not in name and all(place in scopes for place in places):
            keys = [*(f"{name}#{number}" for number in range(1, times)), name]
            found |= dict(zip(keys, places, strict=True))
    return found


def _is_inside(reference: Trace, module: str, value: np.ndarray) -> bool:
    """Return whether a value is rather one computed inside the module: its last op may be fused with the next."""

    def distance(name: str) -> float:
        ours = reference[name]
        if ours.size != value.size or not np.isfinite(value).all():
            return np.inf
        return float(np.abs(np.sort(ours, axis=None) - np.sort(value, axis=None)).max() / (np.abs(ours).max() or 1))

    inside = [name for name in reference if name.startswith((f"{module}.", f"{module}:"))]
    return min(map(distance, inside), default=np.inf) < 0.1 * distance(module)


def _handed_on(reference: Trace) -> set[str]:
    """Return the modules whose value is that of one inside them: ops in their own scope compute other values."""
    keys = _keys(reference)
    inside: dict[object, list[str]] = {}
    found = set()
    for name, key in keys.items():
        if any(other.startswith(f"{name}.") for other in inside.get(key, ())):
            found.add(name)
        inside.setdefault(key, []).append(name)
    return found


def _keys(reference: Trace) -> dict[str, tuple[object, ...]]:
    """Return a key for each value, which equal values share."""
    return {name: (value.shape, hash(np.ascontiguousarray(value).tobytes())) for name, value in reference.items()}


# --- unmatched values --------------------------------------------------------------------------------------------


def _left(reference: Trace, found: Mapping[str, str], mapped: Mapping[str, str | None]) -> list[str]:
    """Return our values that are still unmatched."""
    keys = _keys(reference)
    known = {keys[name] for name in found}
    return [name for name in reference if name not in mapped and keys[name] not in known]


def _findings(used: Sequence[Aligned], unused: Sequence[Aligned]) -> list[Finding]:
    findings = []
    if used:
        least = min(used, key=lambda pair: pair.confidence)
        text = (
            f"{len(used)} values were matched by shape, order and numbers, not by name; least sure is {_pair(least)}"
        )
        findings.append(Finding("names", text))
    if unused:
        text = f"{len(unused)} possible matches are too unsure and were not used: {'; '.join(map(_pair, unused))}"
        findings.append(Finding("names", text))
    return findings


def _pair(pair: Aligned) -> str:
    return f"{pair.ours!r} = {pair.theirs!r} ({pair.confidence:.2f})"
