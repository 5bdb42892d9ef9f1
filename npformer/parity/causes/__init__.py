"""The catalogue of causes: likely mistakes of a port in each op.

`layers.py` has the stock layers, `convolution.py` convolutions and padding, `block.py` the common parts of all
families' blocks, then one file per family. `fitted.py` describes errors that no rule covers by the port's value
itself.
"""

from __future__ import annotations

from collections.abc import Iterator

from ...nn import Module
from ..site import Alternative, Site
from . import convolution, efficientformer, efficientnet, layers, swiftformer
from .fitted import fitted
from .rule import Absent, Rules

__all__ = ["alternatives", "fitted", "misshapen"]

# Mistakes specific to a place come before those of any layer of its kind.
CATALOGUE: tuple[Rules, ...] = (
    efficientformer.RULES, efficientnet.RULES, swiftformer.RULES, layers.RULES, convolution.RULES,
)  # fmt: skip
MISSHAPEN: tuple[Rules, ...] = (efficientnet.MISSHAPEN, convolution.MISSHAPEN)


def alternatives(site: Site) -> Iterator[Alternative]:
    """Return all likely mistakes in this op, as (cause, thunk).

    A thunk computes the whole value from `site.inputs`, `site.used` and `site.module`, in their dtype and in the shape
    of `site.output`, and changes none of them; its result may be one of them, so do not write to it. The list of
    causes, and its order, depends on the model and on shapes alone, never on numbers. It contains nothing that is the
    right op under another name, nor anything that needs a value that `site.used` lacks.

    Two causes may give the same numbers where the shapes make them equivalent: with an even picture, a 3x3 kernel of
    stride 2 never reaches the last padded row, so "pad-symmetric" and "pad-other-side" are the same at the
    convolution.
    """
    return _apply(CATALOGUE, site)


def misshapen(site: Site) -> Iterator[Alternative]:
    """Return likely mistakes that give a value of another shape than `site.output`, as (cause, thunk).

    They are for values of a wrong shape: paddings that make a map larger or smaller.
    """
    return _apply(MISSHAPEN, site)


def _apply(catalogue: tuple[Rules, ...], site: Site) -> Iterator[Alternative]:
    for place, module in _places(site):
        for rules in catalogue:
            for kind in type(module).__mro__:
                for rule in rules.get((kind, place), ()):
                    try:
                        yield from rule(site, module)
                    except Absent:
                        continue


def _places(site: Site) -> Iterator[tuple[str, Module]]:
    """Yield the keys under which rules for a site are listed, the most specific first, and the rules' argument."""
    if site.inner:
        yield f":{site.inner}", site.module
        return
    if site.parent is not None:
        yield f".{site.owner.rpartition('.')[2]}", site.parent
    yield "", site.module
