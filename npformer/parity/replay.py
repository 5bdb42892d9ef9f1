"""Teacher-forced replay: run our model, and after every named value continue with the port's instead of ours.

So each op works on the port's own upstream values, and its result can be compared with the port's: an error made
further up is in both, and cancels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..nn import Module, watch
from ..ops import Array
from .site import Site

Rounding = Callable[[Site, Array], Array]  # rounding to a run's dtype; called on every new value
Change = Callable[[Site], Array]  # replacement for our op's value at a site


@dataclass
class Program:
    """The structure of one forward pass: names in execution order, and the calls of each module or inner value."""

    names: list[str]
    calls: dict[str, int]

    def key(self, name: str, number: int) -> str:
        """Return the name of a call as in `record`: the last has the plain name, earlier ones "<name>#1", ..."""
        return name if number == self.calls[name] else f"{name}#{number}"


def study(names: Iterable[str]) -> Program:
    """Return the program of a recorded trace, from its names. "a#2" and "a" mean that "a" is called three times."""
    ordered = list(names)
    calls: dict[str, int] = {}
    for key in ordered:
        name = key.partition("#")[0]
        calls[name] = calls.get(name, 0) + 1
    return Program(ordered, calls)


class Before(Mapping[str, Array]):
    """The values of a run before a certain one: the possible inputs of an op."""

    def __init__(self, used: Mapping[str, Array], order: Mapping[str, int], end: int) -> None:
        self._used, self._order, self._end = used, order, end

    def __getitem__(self, name: str) -> Array:
        if self._order.get(name, self._end) >= self._end:
            raise KeyError(name)
        return self._used[name]

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._used if self._order[name] < self._end)

    def __len__(self) -> int:
        return sum(1 for _ in self)


class _Reached(Exception):
    """Signal that the requested value has been computed: no error, but the way to leave the model."""


class Replay:
    """One run of a model on a port's values: a site for every named value, and the values the run continued with.

    `given` are the port's values by our names, in our axes; any dtype. `rounding` rounds each newly computed value to
    the run's dtype. Values are floats of the model's dtype.
    """

    def __init__(self, model: Module, program: Program, given: Mapping[str, Array], rounding: Rounding | None) -> None:
        self.model, self.program, self.rounding = model, program, rounding
        self.given = given
        self.modules = dict(model.named_modules())
        self.order = {name: position for position, name in enumerate(program.names)}
        self.sites: dict[str, Site] = {}
        self.used: dict[str, Array] = {}

    def run(self, pixel_values: Array) -> Replay:
        """Run the whole model. Infinities and NaN of the port pass without a warning."""
        self._go(self.model, (pixel_values,), self.given, self.sites, self.used)
        return self

    def again(self, until: str, changed: Mapping[str, Change], free: bool = False) -> Array:
        """Return our op's value at `until` as if values up to it, itself included, had been changed.

        The values between the changed ones and `until` are ours, recomputed, as in `run` where the port did not dump
        them; with `free` also where it did.
        """
        first = min(self.order[name] for name in changed)
        given = dict(self.given)
        if free:
            for name in self.program.names[first : self.order[until] + 1]:
                given.pop(name, None)
        scope = self._scope([*changed, until])
        sites: dict[str, Site] = {}
        used = {name: value for name, value in self.used.items() if self.order[name] < first}
        start = self.sites[scope]
        self._go(start.module, start.inputs, given, sites, used, until, changed)
        return sites[until].output

    def _scope(self, names: list[str]) -> str:
        """Return the smallest module that is called once and contains all these values."""
        paths = [name.partition(":")[0].partition("#")[0].split(".") for name in names]
        common: list[str] = []
        for parts in zip(*paths, strict=False):
            if len(set(parts)) > 1:
                break
            common.append(parts[0])
        while common and (self.program.calls.get(".".join(common)) != 1):
            common.pop()
        return ".".join(common)

    def _go(
        self,
        start: Module,
        arguments: tuple[Any, ...],
        given: Mapping[str, Array],
        sites: dict[str, Site],
        used: dict[str, Array],
        until: str | None = None,
        changed: Mapping[str, Change] | None = None,
    ) -> None:
        seen: dict[str, int] = {}
        made = {id(value) for value in used.values()}
        dtype = self.model.dtype

        def observe(name: str, module: Module, inputs: tuple[Any, ...], output: Array, layout: str | None) -> Array:
            seen[name] = seen.get(name, 0) + 1
            key = self.program.key(name, seen[name])
            before = Before(used, self.order, self.order[key])
            site = Site(key, name.partition(":")[0], module, inputs, output, layout, before, self.modules)
            if changed and key in changed:
                output = changed[key](site)
            if self.rounding is not None and id(output) not in made:  # a value passed on unchanged is rounded already
                output = self.rounding(site, output)
            site.output = output
            sites[key] = site
            if key == until:
                raise _Reached
            value = given[key].astype(dtype, copy=False) if key in given and key not in (changed or ()) else output
            made.add(id(value))
            used[key] = value
            return value

        with np.errstate(all="ignore"), watch(self.model, observe), suppress(_Reached):
            start(*arguments)
