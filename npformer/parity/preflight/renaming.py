"""Matching of the port's weights with ours: by name, by another library's name, or by value."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...checkpoint.sources import SOURCES
from ...checkpoint.sources.rules import NamesError
from ...nn import Module
from ...picture import Array

WRAPPERS = ("module.", "_orig_mod.", "model.", "params.", "params/", "batch_stats/", "batch_stats.")
LEAVES = {
    "kernel": "weight", "scale": "weight", "gamma": "weight", "embedding": "weight", "beta": "bias",
    "mean": "running_mean", "moving_mean": "running_mean", "var": "running_var", "moving_variance": "running_var",
    "moving_var": "running_var", "variance": "running_var",
}  # fmt: skip


@dataclass
class Renamed:
    """The port's weights by our names: the arrays, their names there, and the library of these names.

    left: the port's names without a match.
    """

    arrays: dict[str, Array] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    source: str = ""
    left: list[str] = field(default_factory=list)


def rename(model: Module, port: Mapping[str, Array]) -> Renamed:
    """Return the port's weights by our names, from the scheme that matches most of its names.

    Tried are our own names, also in the spelling of JAX and Keras ("params/encoder/norm/scale"), and those of every
    source that checkpoints are converted from.
    """
    ours = {name for name, _, _ in model.named_arrays()}
    readings = [_own(port, ours)]
    if not set(readings[0].names) >= ours:
        readings += [_spelled(model, port, ours), *_sources(model, port, ours)]
    return max(readings, key=lambda reading: len(reading.arrays))


def _own(port: Mapping[str, Array], ours: set[str]) -> Renamed:
    return _read({key: key for key in port}, port, ours, "")


def _spelled(model: Module, port: Mapping[str, Array], ours: set[str]) -> Renamed:
    """Match our names in another spelling, with or without common prefixes of tools, or the model's own prefix."""
    names = {}
    for key in port:
        text = key
        while wrapper := next((w for w in WRAPPERS if text.startswith(w)), None):
            text = text.removeprefix(wrapper)
        *path, leaf = re.split(r"[./]", re.sub(r":\d+$", "", text))
        names[key] = ".".join((*path, LEAVES.get(leaf, leaf)))
    config: Any = model.config  # type: ignore[attr-defined]
    prefix = f"{config.model_type}."  # which base models lack
    longer = {key: name if name in ours else prefix + name for key, name in names.items()}
    shorter = {key: name.removeprefix(prefix) for key, name in names.items()}
    readings = [_read(reading, port, ours, "") for reading in (names, longer, shorter)]
    return max(readings, key=lambda reading: len(reading.arrays))


def _sources(model: Module, port: Mapping[str, Array], ours: set[str]) -> list[Renamed]:
    """Match by the names of other libraries, as far as they are known."""
    config: Any = model.config  # type: ignore[attr-defined]
    family = config.model_type
    missing = "" if hasattr(model, family) else f"{family}."  # the prefix that a base model's names lack
    readings = []
    for source, known in SOURCES.items():
        plain = {key.removeprefix("module."): key for key in port}
        keys = list(plain)
        if family not in known.marks or not any(re.match(known.marks[family], key) for key in keys):
            continue
        try:
            names = known.rename(keys, family)
        except NamesError as error:
            unknown = {text.partition(" (")[0] for text in error.keys}
            keys = [key for key in keys if key not in unknown]
            try:
                names = known.rename(keys, family)
            except NamesError:
                continue
        arranged = {plain[key]: known.arrange(name, port[plain[key]]) for key, name in names.items()}
        here = {plain[key]: name.removeprefix(missing) for key, name in names.items()}
        readings.append(_read(here, {**port, **arranged}, ours, source))
    return readings


def _read(names: Mapping[str, str], port: Mapping[str, Array], ours: set[str], source: str) -> Renamed:
    found = Renamed(source=source)
    for key in port:
        name = names.get(key)
        # A folded convolution has a bias that ours may lack: kept by that name.
        known = name in ours or (name is not None and name.removesuffix("bias") + "weight" in ours)
        if name is None or not known or name in found.arrays:
            found.left.append(key)
        else:
            found.arrays[name], found.names[name] = port[key], key
    return found
