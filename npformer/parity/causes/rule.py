"""Rules of the catalogue, and how they find the values around a site by name.

A rule gets a site and its module, and yields likely mistakes of a port there. The table at the end of a family's file
lists the places at which its rules apply:

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
    """Error for a value that a rule needs but that is not among those before the site; the rule then ends."""


def instead(key: str, text: str, function: Callable[..., Array], *arguments: Any) -> Alternative:
    """Return the alternative whose value is `function(*arguments)`, computed on demand."""
    return Cause(key, text), partial(function, *arguments)


def as_it_is(key: str, text: str, value: Array) -> Alternative:
    """Return the alternative whose value is an existing one."""
    return Cause(key, text), lambda: value


def named(site: Site, name: str) -> Array:
    """Return the value of that full name. Raises Absent."""
    if name not in site.used:
        raise Absent(name)
    return site.used[name]


def inside(site: Site, name: str) -> Array:
    """Return the value of a child ("qkv") or the inner value (":key") of the site's own module. Raises Absent."""
    return named(site, _joined(site.owner, name))


def beside(site: Site, name: str) -> Array:
    """Return the value of a child, or the inner value, of the module that holds the site's. Raises Absent."""
    return named(site, _joined(holder_name(site), name))


def holder_name(site: Site) -> str:
    """Return the dotted name of the module that holds the site's; "" for the model itself."""
    return site.owner.rpartition(".")[0]


def entering(site: Site, owner: str) -> Array:
    """Return the input of the module named `owner`: the value computed right before its first one. Raises Absent."""
    before = None
    for name in site.used:
        if name == owner or name.startswith((f"{owner}.", f"{owner}:", f"{owner}#")):
            break
        before = name
    if before is None:
        raise Absent(owner)
    return site.used[before]


def config(site: Site) -> Any:
    """Return the config of the whole model."""
    model: Any = site.modules[""]
    return model.config


def is_first_of_two(site: Site) -> bool:
    """Return whether this is the earlier of two calls of one module, such as a block's drop path."""
    return "#" in site.name


def _joined(owner: str, name: str) -> str:
    return f"{owner}{name}" if name.startswith(":") or not owner else f"{owner}.{name}"
