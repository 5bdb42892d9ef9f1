"""Sites: an op of a running model, with all its inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..nn import Module
from ..ops import Array


@dataclass(frozen=True)
class Cause:
    """A likely mistake of a port: a stable key such as "gelu-tanh", and one sentence."""

    key: str
    text: str


@dataclass
class Site:
    """One named value during a run.

    name: as in `record`: "a.b", "a.b:inner" or "a.b#1". owner: the dotted name of `module`, which computed it.
    inputs: the module's arguments; () for an inner value. output: our op's result for them. layout: the
    axes' letters of an inner value, or None. used: every value before this one, by name, as the run continued with it
    (the port's, where it was dumped), this one excluded. modules: all modules of the model by dotted name.
    """

    name: str
    owner: str
    module: Module
    inputs: tuple[Any, ...]
    output: Array
    layout: str | None
    used: Mapping[str, Array]
    modules: Mapping[str, Module]

    @property
    def parent(self) -> Module | None:
        """The module that holds this one; None for the model itself."""
        return self.modules[self.owner.rpartition(".")[0]] if self.owner else None

    @property
    def inner(self) -> str:
        """The inner value's name ("query"), or ""."""
        return self.name.partition(":")[2].partition("#")[0]


Alternative = tuple[Cause, Callable[[], Array]]
