"""Check of the port's weights against ours: names, shapes, numbers, and folded batch norms."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from ...nn import Module
from ...picture import Array
from ...words import listed
from ..noise import DTYPES
from ..report import Finding
from .folding import TWO_HEADS, Folded, Neighbours, fold, foldings, neighbours, solve_eps
from .relating import Tolerance, change, close, layout_name, layouts, reshapes
from .renaming import rename

FOLDED = 6.0  # units of rounding: a folded weight results from a few operations
USUAL_EPS = (1e-3, 1e-5, 1e-6, 1e-12, 0.0)
SAMPLE = slice(0, 2)  # filters that are folded first
IDLE = {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0}  # of a batch norm without effect


def check_weights(model: Module, port_weights: Mapping[str, Array], dtype: str) -> list[Finding]:
    """Compare the port's weights, by name, with the model's: equal up to rounding to `dtype`, or how they differ.

    Names may be ours, in the spelling of JAX or Keras too, or those of any library that checkpoints are converted
    from; weights of unknown names are recognised by their values. Weights may be in another layout (linear ones
    transposed, kernels as HWIO), if all of a kind are. Batch norms and layer scales may be folded into the layers
    beside them, both heads into one. None of that changes the result: findings on it are not bad. Missing, additional
    and misshapen weights are bad, and those with other values.

    Raises ValueError for an unknown dtype; TypeError for weights that are not real numbers.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
    port = {str(name): np.asarray(array) for name, array in port_weights.items()}
    for name, array in port.items():
        if array.dtype.kind not in "biuf":
            raise TypeError(f"port_weights must hold real numbers, but {name} holds {array.dtype}")
    return _Check(model, port, dtype).findings()


class _Fold(NamedTuple):
    """A layer's weight in the port: a fold, its eps if not ours, its layouts, and whether both heads are averaged."""

    folded: Folded
    eps: float | None
    orders: list[tuple[int, ...]]
    averaged: bool = False


class _Check:
    def __init__(self, model: Module, port: Mapping[str, Array], dtype: str) -> None:
        unit, largest = DTYPES[dtype]
        # Weights come from float32 files, whatever the port's dtype.
        self.allowed = Tolerance(max(unit, 2.0**-24), 2.0**-24 if dtype == "float16" else 2.0**-126, largest)
        self.model = model
        self.modules = dict(model.named_modules())
        slots = list(model.named_arrays())
        self.ours = {name: getattr(m, a) for name, m, a in slots if a not in m.optional}
        self.derived = {name: getattr(m, a) for name, m, a in slots if a in m.derived}
        self.renamed = rename(model, port)
        self.port = port
        counters = {name for name, m, a in slots if a in m.optional}  # and tables: their values are ignored
        self.theirs = {name: _wide(array) for name, array in self.renamed.arrays.items() if name not in counters}
        self.around = neighbours(model)
        self.told: dict[tuple[bool, str], list[str]] = {}
        self.orders: dict[str, list[tuple[int, ...]]] = {}
        self.understood: set[str] = set()  # names of ours, present or not
        self.absorbed: set[str] = set()  # batch norms and layer scales
        self.counts: Counter[str] = Counter()

    def findings(self) -> list[Finding]:
        """Return all findings, harmless ones first."""
        self._match_by_value()
        for name in self.ours:
            if name in self.theirs:
                orders = layouts(self.ours[name], self.theirs[name], self.allowed)
                if orders:
                    self.orders[name] = orders
                    self.understood.add(name)
        for layer in self.around:
            self._layer(layer)
        self._left_beside()
        self._different()
        self._missing()
        self._further()
        self._votes()
        return [*self._sums(), *self._lists()]

    def _tell(self, bad: bool, text: str, name: str) -> None:
        self.told.setdefault((bad, text), []).append(name)

    def _lists(self) -> Iterator[Finding]:
        for (bad, text), names in sorted(self.told.items(), key=lambda item: item[0][0]):
            number = f"{len(names)} weight{'s' * (len(names) > 1)}"
            yield Finding("weights", f"{number} {text}: {listed(names)}", bad)

    def _sums(self) -> Iterator[Finding]:
        """Yield the counts of folded modules."""
        if self.renamed.source not in ("", "transformers"):
            yield Finding("weights", f"the port's weights have the names of {self.renamed.source}")
        for text, number in self.counts.items():
            yield Finding("weights", text.format(number=number, s="s" * (number > 1)))

    # --- layers and what is folded into them

    def _layer(self, layer: str) -> None:
        """Explain a layer's weight and bias together, with neighbours folded in where they are not ours."""
        weight, bias = f"{layer}.weight", f"{layer}.bias"
        if weight not in self.theirs:
            return
        further = bias in self.theirs and bias not in self.ours
        around = self.around[layer]
        beside = [f"{norm}.weight" for norm in around[:2] if norm] + [name for name in (around.scale,) if name]
        if self._second_head(layer):
            beside.append(f"{self._second_head(layer)}.weight")
        complete = all(name in self.theirs for name in beside)
        if weight in self.understood and (bias in self.understood or not (further or bias in self.ours)) and complete:
            return
        found = self._fold(layer, self.theirs[weight])
        if found is None:
            return
        self.understood.add(weight)
        self.orders[weight] = found.orders
        self._count(layer, found)
        if found.eps is not None:
            norm: Any = self.modules[found.folded.absorbed.after or found.folded.absorbed.before]
            self._tell(True, f"fold a batch norm with eps {found.eps:.3g} instead of {norm.eps:g}", weight)
        self._bias(bias, found.folded)

    def _fold(self, layer: str, theirs: Array) -> _Fold | None:
        """Return the fold that explains the port's weight of a layer; None where there is none."""
        around = self.around[layer]
        for averaged, ways in ((True, self._averaged(layer)), (False, foldings(self.modules, layer, around))):
            for folded in ways:
                if orders := self._fits(folded, theirs):
                    return _Fold(folded, None, orders, averaged)
        if not (around.after or around.before):
            return None
        norm: Any = self.modules[around.after or around.before]
        epsilons = [eps for eps in USUAL_EPS if eps != norm.eps]
        for folded in foldings(self.modules, layer, around):
            if folded.absorbed.after and theirs.shape == folded.weight.shape:
                solved = solve_eps(folded, norm, theirs)
                if solved >= 0 and not any(math.isclose(solved, eps, rel_tol=0.1) for eps in epsilons):
                    epsilons.append(solved)
        for eps in epsilons:
            for folded in foldings(self.modules, layer, around, eps):
                if (folded.absorbed.after or folded.absorbed.before) and (orders := self._fits(folded, theirs)):
                    return _Fold(folded, eps, orders)
        return None

    def _fits(self, folded: Folded, theirs: Array) -> list[tuple[int, ...]]:
        shape = theirs.shape
        same = shape == folded.weight.shape and shape[0] != shape[1]  # otherwise it may be transposed
        if same and not close(folded.folded_weight(SAMPLE), theirs[SAMPLE], self.allowed, FOLDED):
            return []
        return layouts(folded.folded_weight(), theirs, self.allowed, FOLDED)

    def _averaged(self, layer: str) -> Iterator[Folded]:
        """Yield both heads averaged to one, where the port has only one."""
        second = self._second_head(layer)
        if not second or f"{second}.weight" in self.theirs:
            return
        first, other = (self.modules[name] for name in (layer, second))
        weight = (_wide(first.weight) + _wide(other.weight)) / 2  # type: ignore[attr-defined]
        bias = (_wide(first.bias) + _wide(other.bias)) / 2  # type: ignore[attr-defined]
        for before in dict.fromkeys(("", self.around[layer].before)):
            yield fold(self.modules, weight, bias, Neighbours(before=before, scale=""))

    def _second_head(self, layer: str) -> str:
        """Return the head whose logits are averaged with this one's; "" for other layers."""
        second = TWO_HEADS.get(layer, "")
        return second if f"{second}.weight" in self.ours else ""

    def _bias(self, name: str, folded: Folded) -> None:
        """Judge the bias that belongs to a folded weight."""
        self.understood.add(name)
        theirs = self.theirs.get(name)
        if theirs is None:
            if not close(folded.bias, np.zeros(len(folded.bias)), self.allowed, FOLDED, folded.terms):
                self._tell(
                    True, "missing, although the weight beside it has a batch norm or layer scale folded in", name
                )
        elif theirs.size != folded.bias.size:
            self._tell(True, f"of shape {theirs.shape} instead of {folded.bias.shape}", name)
        elif not close(folded.bias, theirs.reshape(-1), self.allowed, FOLDED, folded.terms):
            flat = theirs.reshape(-1)
            mistakes = [
                text for text, bias in folded.wrong.items() if close(bias, flat, self.allowed, FOLDED, folded.terms)
            ]
            what = f"folded with {mistakes[0]}" if mistakes else "not what folding gives"
            self._tell(True, what, name)

    def _count(self, layer: str, found: _Fold) -> None:
        """Count what was folded, for the summary and for weights that may then be missing."""
        absorbed = found.folded.absorbed
        self.absorbed |= {name for name in absorbed if name}
        if absorbed.after:
            self.counts["batch norms are folded into {number} convolution{s} before them"] += 1
        if absorbed.before:
            self.counts["batch norms are folded into {number} layer{s} after them"] += 1
        if absorbed.scale:
            self.counts["layer scales are folded into {number} layer{s}"] += 1
        if found.averaged:
            self.counts["both heads are averaged into one"] += 1
            self.understood |= {f"{self._second_head(layer)}.{kind}" for kind in ("weight", "bias")}

    def _left_beside(self) -> None:
        """Accept folded modules that are missing or idle; remark on those that still have their numbers."""
        for absorbed in sorted(self.absorbed):
            names = [absorbed] if absorbed in self.ours else [f"{absorbed}.{kind}" for kind in IDLE]
            present = [name for name in names if name in self.theirs]
            if present and all(name in self.understood for name in present):
                text = (
                    "are folded into the layers beside them and there all the same: applied as well, they count twice"
                )
                self._tell(False, text, absorbed)
            for name in present:
                idle = IDLE.get(name.rpartition(".")[2], 1.0)
                # With var 1 - eps or 1 the norm has no effect.
                if name not in self.understood and np.allclose(self.theirs[name], idle, rtol=0, atol=2e-3):
                    self.understood.add(name)
            self.understood |= set(names) - set(present)

    # --- remaining weights

    def _different(self) -> None:
        """Describe the change in weights that are not ours."""
        for name, theirs in self.theirs.items():
            if name in self.understood:
                continue
            if name not in self.ours:
                if np.any(theirs):  # a bias of zeros has no effect
                    self._tell(True, "that our layers do not have", name)
                continue
            ours = _wide(self.ours[name])
            text = change(ours, theirs, self.allowed)
            other = self._holder(name, theirs) if not text else None
            if other is not None:
                self._tell(True, f"holding the values of {other}", name)
                continue
            stored = self._precomputed(name, theirs)
            if stored:
                self._tell(False, stored, name)
            elif text:
                self._tell(True, text, name)
            else:
                error = math.sqrt(float(np.mean((theirs - ours) ** 2)) / max(float(np.mean(ours**2)), 1e-300))
                self._tell(True, f"{'slightly ' * (error < 0.05)}different", f"{name} (by {error:.2g} of its size)")

    def _holder(self, name: str, theirs: Array) -> str | None:
        """Return another weight of ours whose values the port has under this name."""
        for other, ours in self.ours.items():
            if other != name and ours.shape == theirs.shape and close(ours, theirs, self.allowed):
                return other
        return None

    def _precomputed(self, name: str, theirs: Array) -> str:
        """Describe, in words, the stored form of a variance."""
        owner, _, attribute = name.rpartition(".")
        if attribute != "running_var" or theirs.shape != self.ours[name].shape:
            return ""
        norm: Any = self.modules[owner]
        sum_ = _wide(norm.running_var) + norm.eps
        stored = {"their root": np.sqrt(sum_), "one over their root": 1 / np.sqrt(sum_), "with eps added": sum_}
        found = (text for text, value in stored.items() if close(value, theirs, self.allowed, FOLDED))
        text = next(found, "")
        return f"(variances) that hold {text}" if text else ""

    def _missing(self) -> None:
        for name in self.ours:
            if name not in self.theirs and name not in self.understood:
                self._tell(True, "missing", name)

    def _further(self) -> None:
        """Report the port's additional arrays; counters, constants and scalars of frameworks are ignored."""
        unused = getattr(self.model, "heads_left_out", ())
        for key in self.renamed.left:
            array = self.port[key]
            if array.size <= 1:
                continue
            if unused and key.startswith(unused):
                self._tell(False, f"that {type(self.model).__name__} does not use", key)
            elif array.dtype.kind == "f":
                self._tell(True, "that our model does not have", key)
        for name, table in self.derived.items():
            theirs = self.renamed.arrays.get(name)
            if theirs is not None and not np.array_equal(theirs, table):
                self._tell(True, "other than the index table that follows from the resolution", name)

    # --- names and layouts

    def _match_by_value(self) -> None:
        """Match the port's arrays of unknown names with missing ones of ours, by their moments."""
        left = [key for key in self.renamed.left if self.port[key].dtype.kind == "f" and self.port[key].size]
        if not left:
            return
        expected = {name: array for name, array in self.ours.items() if name not in self.theirs}
        known: dict[int, list[tuple[str, float, float]]] = {}
        for name, array in self._possible(expected):
            known.setdefault(array.size, []).append((name, float(array.sum()), float((array**2).sum())))
        found = {}
        for key in left:
            array = _wide(self.port[key])
            total, squares = float(array.sum()), float((array**2).sum())
            slack = 8 * self.allowed.unit
            for name, mine, mine_squares in known.get(array.size, ()):
                near = abs(squares - mine_squares) <= slack * mine_squares
                if near and abs(total - mine) <= slack * math.sqrt(array.size * mine_squares) and name not in found:
                    found[name] = key
                    break
        for name, key in found.items():
            self.theirs[name] = _wide(self.port[key])
            self.renamed.left.remove(key)
        if found:
            self.counts["{number} weight{s} without a known name are recognised by their values"] += len(found)

    def _possible(self, expected: Mapping[str, Array]) -> Iterator[tuple[str, Array]]:
        """Yield the possible forms of missing weights: unchanged, or with neighbours folded in."""
        for name, array in expected.items():
            yield name, _wide(array)
        for layer, around in self.around.items():
            if f"{layer}.weight" in self.theirs and f"{layer}.bias" in self.theirs:
                continue
            for folded in [*foldings(self.modules, layer, around), *self._averaged(layer)]:
                if f"{layer}.weight" not in self.theirs:
                    yield f"{layer}.weight", folded.folded_weight()
                if f"{layer}.bias" not in self.theirs:
                    yield f"{layer}.bias", folded.bias

    def _votes(self) -> None:
        """Judge the layouts: all weights of a kind should have the same; those that differ from the rest are wrong."""
        kinds: dict[tuple[str, int, bool], list[str]] = {}
        for name in self.orders:
            shape = self.ours[name].shape
            if len([side for side in shape if side > 1]) > 1:
                depthwise = len(shape) == 4 and shape[1] == 1
                kind = f"{len(shape)} {name.rpartition('.')[2]}"
                kinds.setdefault((kind, self.theirs[name].ndim, depthwise), []).append(name)
        for names in kinds.values():
            order = self._usual_order(names)
            for name in names:
                if order not in self.orders[name]:
                    laid = layout_name(self.orders[name][0])
                    # Where the shape itself shows another order, it cannot be misread silently.
                    hidden = reshapes(tuple(self.ours[name].shape[axis] for axis in order), self.theirs[name].shape)
                    more = f", unlike the others of {layout_name(order)}" if hidden else ""
                    self._tell(hidden, f"laid out as {laid}{more}", name)
                elif order != tuple(range(len(order))):
                    self._tell(False, f"laid out as {layout_name(order)}", name)

    def _usual_order(self, names: list[str]) -> tuple[int, ...]:
        """Return the order of axes that most weights of a kind have."""
        plain = tuple(range(self.ours[names[0]].ndim))
        # A square weight has the same shape in any order: the others decide, if there are any.
        decisive = [name for name in names if self.ours[name].shape[0] != self.ours[name].shape[1]]
        votes = Counter(order for name in decisive or names for order in self.orders[name])
        # No library stores the width of a kernel before its height.
        usual = {order: number for order, number in votes.items() if len(order) < 4 or order.index(2) < order.index(3)}
        most = max(usual.values(), default=0)
        return plain if usual.get(plain, 0) == most else next(o for o, number in usual.items() if number == most)


def _wide(array: Array) -> Array:
    return array.astype(np.float64)
