"""What a rule of the catalogue is, and how it finds the values around a site by name.

A rule gets a site and the module it is about, and yields what a porter may have done there instead. A family's file
ends in a table that says at which places its rules apply:

    (BatchNorm2d, "")                          the result of every such module
    (EfficientFormerSelfAttention, ":query")   the inner value of that name
    (EfficientFormerMeta4D, ".drop_path")      the child of that name; the rule gets the module that holds it
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from ...nn import Module
from ...ops import Array
from ..site import Alternative, Cause, Site

Rule = Callable[[Site, Any], Iterator[Alternative]]
Rules = Mapping[tuple[type[Module], str], tuple[Rule, ...]]


class Absent(Exception):
    """A value that a rule needs is not among those before the site: the rule has nothing more to say there."""


def instead(key: str, text: str, function: Callable[..., Array], *arguments: Any) -> Alternative:
    """The alternative whose value is `function(*arguments)`, computed when asked for."""
    return Cause(key, text), partial(function, *arguments)


def as_it_is(key: str, text: str, value: Array) -> Alternative:
    """The alternative whose value is one that is there already."""
    return Cause(key, text), lambda: value


def named(site: Site, name: str) -> Array:
    """The value of that full name. Raises Absent."""
    if name not in site.used:
        raise Absent(name)
    return site.used[name]


def inside(site: Site, name: str) -> Array:
    """The value of a child ("qkv") or the inner value (":key") of the site's own module. Raises Absent."""
    return named(site, _joined(site.owner, name))


def beside(site: Site, name: str) -> Array:
    """The value of a child, or the inner value, of the module that holds the site's. Raises Absent."""
    return named(site, _joined(holder_name(site), name))


def holder_name(site: Site) -> str:
    """The dotted name of the module that holds the site's; "" for the model itself."""
    return site.owner.rpartition(".")[0]


def entering(site: Site, owner: str) -> Array:
    """What flowed into the module named `owner`: the value made right before its first one. Raises Absent."""
    before = None
    for name in site.used:
        if name == owner or name.startswith((f"{owner}.", f"{owner}:", f"{owner}#")):
            break
        before = name
    if before is None:
        raise Absent(owner)
    return site.used[before]


def config(site: Site) -> Any:
    """The settings of the whole model."""
    model: Any = site.modules[""]
    return model.config


def is_first_of_two(site: Site) -> bool:
    """Whether this is the earlier of two calls of one module, such as a block's drop path."""
    return "#" in site.name


def _joined(owner: str, name: str) -> str:
    return f"{owner}{name}" if name.startswith(":") or not owner else f"{owner}.{name}"
