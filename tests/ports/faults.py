"""The faults that can be planted: each is another way to compute one op, with a key of the common vocabulary.

A fault does not know the network. It names the kind of op it fits ("conv", "batch norm", ...), says from the op's
arguments whether and in which versions it fits, and computes the op wrongly; `right` is the op as it should be.

Some are equivalent, and no checker can distinguish them:

- head-sum and constant-factor 2, pooled-sum and constant-factor N, global-query-mean and constant-factor 1/N,
  pool-subtraction-reversed and constant-factor -1 (of which "constant-factor" offers none);
- pad-symmetric and pad-other-side inside a convolution of stride 2 on even maps: both begin one pixel earlier;
- unflatten-column-major and map-transposed on square maps, where there is no layer scale or it comes after;
- heads-interleaved and the shuffled channels-permuted with two heads, or with heads two wide;
- act-relu and act-relu6 where nothing exceeds 6, both and leaky ReLU or no activation where nothing is negative;
- bn-eps or ln-eps of 1e-06 and 0 or 1e-12, nearly, where variances are large.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import numpy_layers as layers
from .arithmetic import Arithmetic, Array

Arguments = dict[str, Any]
Op = Callable[..., Any]

# Faults of unnamed steps that several values come out of, by the endings of these values' names.
_SEEN_AT = {
    "qkv-order": (":query", ":key", ":value"),
    "qkv-swapped-qk": (":query", ":key"),
    "flatten-column-major": (".to_query", ".to_key"),
    "flatten-no-transpose": (".to_query", ".to_key"),
}


@dataclass(frozen=True)
class Fault:
    """One fault: its key, the named value whose computation is wrong, and which version ("1e-05", "left-right", "").

    A step that has no name of its own (layer scale, the way from map to tokens and back, padding inside a convolution)
    is faulty at the first named value made from it.
    """

    key: str
    at: str
    detail: str = ""

    @property
    def shows_at(self) -> tuple[str, ...]:
        """All named values that come out wrong from right inputs, `at` first."""
        endings = _SEEN_AT.get(self.key, ())
        if not endings or not self.at.endswith(endings[0]):
            return (self.at,)
        stem = self.at.removesuffix(endings[0])
        return tuple(stem + ending for ending in endings)


@dataclass(frozen=True)
class Plan:
    """A way to plant a fault: the op it fits, its versions for given arguments (none if it does not fit), the op."""

    key: str
    op: str
    versions: Callable[[Arguments], list[str]]
    wrong: Callable[[Arithmetic, Op, Arguments, str], Any]


PLANS: dict[tuple[str, str], Plan] = {}


def fitting(op: str, at: str, arguments: Arguments) -> Iterator[Fault]:
    """All faults that fit an op with these arguments."""
    for plan in PLANS.values():
        if plan.op == op:
            for detail in plan.versions(arguments):
                yield Fault(plan.key, at, detail)


def planted(fault: Fault, op: str, right: Op, arguments: Arguments) -> Op | None:
    """The op with the fault in it; None where this fault is of another op. Raises ValueError if it does not fit."""
    plan = PLANS.get((fault.key, op))
    if plan is None:
        return None
    versions = plan.versions(arguments)
    if fault.detail not in versions:
        raise ValueError(f"{fault} does not fit: the versions possible there are {versions}")
    return lambda ar, **given: plan.wrong(ar, right, given, fault.detail)


def _plan(
    key: str,
    op: str,
    when: Callable[[Arguments], bool] | None = None,
    versions: Callable[[Arguments], Iterable[str]] | None = None,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a wrong op. It takes (arithmetic, right op, arguments, version); `when` says whether it fits."""

    def register(wrong: Callable[..., Any]) -> Callable[..., Any]:
        def fit(a: Arguments) -> list[str]:
            if when is not None and not when(a):
                return []
            return [""] if versions is None else list(versions(a))

        PLANS[key, op] = Plan(key, op, fit, wrong)
        return wrong

    return register


def _changed(
    key: str,
    op: str,
    change: Callable[[Arguments], Arguments],
    when: Callable[[Arguments], bool] | None = None,
) -> None:
    """Register a fault that is the right op with other arguments."""
    _plan(key, op, when)(lambda ar, right, a, version: right(ar, **{**a, **change(a)}))


# --- activations -----------------------------------------------------------------------------------------------------


def _other_activation(key: str, function: str, instead_of: str | None = None) -> None:
    def fits(a: Arguments) -> bool:
        return a["function"] != function and instead_of in (None, a["function"])

    _changed(key, "activation", lambda a: {"function": function}, fits)


_other_activation("gelu-tanh", "gelu-tanh", instead_of="gelu")
_other_activation("gelu-sigmoid", "gelu-sigmoid", instead_of="gelu")
for _name in ("relu", "silu", "gelu", "hardswish", "relu6", "leaky-relu", "hardsigmoid", "tanh"):
    _other_activation(f"act-{_name}", _name)
_other_activation("act-missing", "linear")


# --- norms -----------------------------------------------------------------------------------------------------------


def _other_eps(usual: tuple[float, ...]) -> Callable[[Arguments], list[str]]:
    return lambda a: [f"{eps:g}" for eps in usual if eps != a["eps"]]


@_plan("bn-eps", "batch norm", versions=_other_eps((1e-3, 1e-5, 1e-6, 0.0)))
@_plan("ln-eps", "layer norm", versions=_other_eps((1e-3, 1e-5, 1e-6, 1e-12)))
def _norm_eps(ar: Arithmetic, right: Op, a: Arguments, version: str) -> Array:
    return right(ar, **{**a, "eps": float(version)})


@_plan("bn-missing", "batch norm")
@_plan("ln-missing", "layer norm")
def _norm_missing(ar: Arithmetic, right: Op, a: Arguments, version: str) -> Array:
    return a["x"]


@_plan("bn-twice", "batch norm")
def _bn_twice(ar: Arithmetic, right: Op, a: Arguments, version: str) -> Array:
    return right(ar, **{**a, "x": right(ar, **a)})


def _batch_statistics(a: Arguments) -> Arguments:
    return {"mean": a["x"].mean((0, 1, 2)), "variance": a["x"].var((0, 1, 2))}


def _no_affine(a: Arguments) -> Arguments:
    return {"weight": np.ones_like(a["weight"]), "bias": np.zeros_like(a["bias"])}


_changed("bn-batch-statistics", "batch norm", _batch_statistics)
_changed("bn-no-affine", "batch norm", _no_affine)
_changed("ln-no-affine", "layer norm", _no_affine)
_changed("ln-unbiased", "layer norm", lambda a: {"missing": 1}, lambda a: a["x"].shape[-1] > 1)
_changed("ln-rms", "layer norm", lambda a: {"centred": False})
_changed("ln-wrong-axis", "layer norm", lambda a: {"axis": 1}, lambda a: a["x"].shape[1] > 1)


@_plan("bn-variance-for-deviation", "batch norm")
def _bn_variance(ar: Arithmetic, right: Op, a: Arguments, version: str) -> Array:
    scale = a["weight"] / (a["variance"] + ar.number(a["eps"]))
    return ar.round((a["x"] - a["mean"]) * scale + a["bias"])


# --- convolution and dense layers ------------------------------------------------------------------------------------


def _outputs(a: Arguments, pads: layers.Pads) -> list[int]:
    return [
        (n + before + after - k) // s + 1
        for n, (before, after), k, s in zip(a["size"], pads, a["kernel"], a["stride"], strict=True)
    ]


def _symmetric(pads: layers.Pads) -> bool:
    return all(before == after for before, after in pads)


def _other_pads(key: str, other: Callable[[Arguments], layers.Pads], symmetric: tuple[bool, bool]) -> None:
    """Register padding in other amounts, where it gives a map of the same size; `symmetric` before and after."""

    def fits(a: Arguments) -> bool:
        pads = other(a)
        same_size = _outputs(a, pads) == _outputs(a, a["pads"])
        return same_size and (_symmetric(a["pads"]), _symmetric(pads)) == symmetric

    _changed(key, "pads", lambda a: {"pads": other(a)}, fits)


def _half_each_side(a: Arguments) -> layers.Pads:
    down, right = (k // 2 for k in a["kernel"])
    return (down, down), (right, right)


def _mirrored(a: Arguments) -> layers.Pads:
    (top, bottom), (left, right) = a["pads"]
    return (bottom, top), (right, left)


_other_pads("pad-symmetric", _half_each_side, symmetric=(False, True))
_other_pads("pad-onesided", lambda a: layers.same_pads(a["size"], a["kernel"], a["stride"]), symmetric=(True, False))
_other_pads("pad-other-side", _mirrored, symmetric=(False, False))
_changed("pad-edge", "pads", lambda a: {"border": "edge"}, lambda a: a["pads"] != ((0, 0), (0, 0)))
_changed(
    "pad-reflect",
    "pads",
    lambda a: {"border": "reflect"},
    lambda a: a["pads"] != ((0, 0), (0, 0)) and all(max(p) < n for p, n in zip(a["pads"], a["size"])),
)


def _wide(a: Arguments) -> bool:
    return max(a["kernel"].shape[:2]) > 1


def _square(a: Arguments) -> bool:
    return a["kernel"].ndim == 4 and not _wide(a) and a["kernel"].shape[2] == a["kernel"].shape[3] > 1


_changed("conv-no-bias", "conv", lambda a: {"bias": None}, lambda a: a["bias"] is not None)
_changed(
    "conv-kernel-transposed",
    "conv",
    lambda a: {"kernel": a["kernel"].swapaxes(0, 1)},
    lambda a: _wide(a) and a["kernel"].shape[0] == a["kernel"].shape[1],
)
_changed("conv-kernel-flipped", "conv", lambda a: {"kernel": a["kernel"][::-1, ::-1]}, _wide)
_changed("conv-weight-transposed", "conv", lambda a: {"kernel": a["kernel"].swapaxes(2, 3)}, _square)
_changed("linear-no-bias", "linear", lambda a: {"bias": None}, lambda a: a["bias"] is not None)
_changed(
    "linear-weight-transposed",
    "linear",
    lambda a: {"matrix": a["matrix"].T},
    lambda a: a["matrix"].shape[0] == a["matrix"].shape[1] > 1,
)


# --- pooling, layer scale, residual, gates ---------------------------------------------------------------------------

_changed("pool-include-pad", "window mean", lambda a: {"counted": "all"}, lambda a: a["size"] > 1)


@_plan("pool-max", "window mean", lambda a: a["size"] > 1)
def _pool_max(ar: Arithmetic, right: Op, a: Arguments, version: str) -> Array:
    return layers.window_max(ar, x=a["x"], size=a["size"])


_plan("pool-no-subtraction", "subtract")(lambda ar, right, a, version: a["mean"])
_changed("pool-subtraction-reversed", "subtract", lambda a: {"mean": a["x"], "x": a["mean"]})

_plan("layer-scale-missing", "layer scale")(lambda ar, right, a, version: a["x"])
_plan("se-gate-missing", "gate")(lambda ar, right, a, version: a["x"])


@_plan("layer-scale-twice", "layer scale")
def _scale_twice(ar: Arithmetic, right: Op, a: Arguments, version: str) -> Array:
    return right(ar, **{**a, "x": right(ar, **a)})


@_plan("se-gate-added", "gate")
def _gate_added(ar: Arithmetic, right: Op, a: Arguments, version: str) -> Array:
    return ar.round(a["x"] + a["factor"])


_plan("residual-missing", "residual")(lambda ar, right, a, version: a["branch"])
_changed("residual-twice", "residual", lambda a: {"branch": a["x"] + a["branch"]})


@_plan("residual-added", "no residual", lambda a: a["x"].shape == a["start"].shape)
def _residual_added(ar: Arithmetic, right: Op, a: Arguments, version: str) -> Array:
    return ar.round(a["x"] + a["start"])


_changed("se-squeeze-max", "squeeze", lambda a: {"how": "max"})


def _other_pooling(how: str) -> None:
    _changed(f"pooled-{how}", "pool", lambda a: {"how": how}, lambda a: a["how"] != how)


for _how in ("max", "first", "sum"):
    _other_pooling(_how)


# --- attention of EfficientFormer ------------------------------------------------------------------------------------


def _several_heads(a: Arguments) -> bool:
    return a["heads"] > 1


@_plan("qkv-swapped-qk", "split heads")
def _swapped(ar: Arithmetic, right: Op, a: Arguments, version: str) -> tuple[Array, ...]:
    query, key, value = right(ar, **a)
    return key, query, value


@_plan("qkv-order", "split heads", _several_heads)
def _three_blocks(ar: Arithmetic, right: Op, a: Arguments, version: str) -> tuple[Array, ...]:
    packed, heads, key_dim = a["x"], a["heads"], a["key_dim"]
    blocks = np.split(packed, [heads * key_dim, 2 * heads * key_dim], axis=-1)
    return tuple(block.reshape(*block.shape[:2], heads, -1).transpose(0, 2, 1, 3) for block in blocks)


_changed(
    "bias-table-transposed",
    "bias",
    lambda a: {"table": a["table"].reshape(a["table"].shape[::-1]).T},
    lambda a: min(a["table"].shape) > 1,
)


def _indexed(index: Callable[[Array, Array, int], Array]) -> Callable[..., Array]:
    """A bias gathered with another index, made from the signed offsets down and right and the grid's side."""
    return lambda ar, right, a, version: a["table"][:, index(*layers.offsets(a["side"]), a["side"])]


_WRONG_INDEX: dict[str, Callable[[Array, Array, int], Array]] = {
    "row only": lambda down, right, side: np.abs(down),
    "sum of offsets": lambda down, right, side: np.abs(down) + np.abs(right),
    "signed": lambda down, right, side: (down * side + right) % (side * side),
}
_plan("bias-index-column-major", "bias", lambda a: a["side"] > 1)(
    _indexed(lambda down, right, side: np.abs(right) * side + np.abs(down))
)


@_plan("bias-index-wrong", "bias", lambda a: a["side"] > 1, lambda a: _WRONG_INDEX)
def _wrong_index(ar: Arithmetic, right: Op, a: Arguments, version: str) -> Array:
    return _indexed(_WRONG_INDEX[version])(ar, right, a, version)


_changed("attn-no-scale", "scores", lambda a: {"scale": 1.0}, lambda a: a["query"].shape[-1] > 1)
_changed("attn-scale-d", "scores", lambda a: {"scale": a["scale"] ** 2}, lambda a: a["query"].shape[-1] > 1)
_changed("attn-no-bias", "scores", lambda a: {"bias": None})
_plan("softmax-missing", "softmax")(lambda ar, right, a, version: a["x"])
_changed("softmax-wrong-axis", "softmax", lambda a: {"axis": -2}, lambda a: a["x"].shape[-1] > 1)


@_plan("heads-interleaved", "context", lambda a: min(a["value"].shape[1], a["value"].shape[3]) > 1)
def _interleaved(ar: Arithmetic, right: Op, a: Arguments, version: str) -> Array:
    merged = right(ar, **a)
    batch, heads, tokens, width = a["value"].shape
    return merged.reshape(batch, tokens, heads, width).swapaxes(2, 3).reshape(merged.shape)


# --- attention of SwiftFormer ----------------------------------------------------------------------------------------

_plan("additive-not-normalised", "unit length")(lambda ar, right, a, version: a["x"])
_changed("additive-normalised-over-tokens", "unit length", lambda a: {"axis": 1})
_changed("additive-softmax-over-tokens", "token weights", lambda a: {"norm": "softmax-over-tokens"})
_changed("additive-l2", "token weights", lambda a: {"norm": "l2"}, lambda a: a["norm"] != "l2")
_changed("additive-ones", "token weights", lambda a: {"norm": "ones"}, lambda a: a["norm"] != "ones")


@_plan("global-query-mean", "global query", lambda a: a["query"].shape[1] > 1)
def _global_mean(ar: Arithmetic, right: Op, a: Arguments, version: str) -> Array:
    return ar.round(ar.mean(ar.round(a["weights"] * a["query"]), 1))


_changed("additive-key-swapped", "gated", lambda a: {"key": a["query"]})
_plan("additive-residual-missing", "add query")(lambda ar, right, a, version: a["x"])
_changed("additive-residual-unnormalised", "add query", lambda a: {"query": a["raw"]})


# --- order of tokens -------------------------------------------------------------------------------------------------


def _a_plane(a: Arguments) -> bool:
    return min(a["x"].shape[1:3]) > 1


def _several_channels(a: Arguments) -> bool:
    return a["x"].shape[-1] > 1


_changed("flatten-column-major", "flatten", lambda a: {"x": a["x"].swapaxes(1, 2)}, _a_plane)


@_plan("flatten-no-transpose", "flatten", lambda a: _several_channels(a) and max(a["x"].shape[1:3]) > 1)
def _flat_channels_first(ar: Arithmetic, right: Op, a: Arguments, version: str) -> Array:
    batch, height, width, channels = a["x"].shape
    return a["x"].transpose(0, 3, 1, 2).reshape(batch, height * width, channels)


@_plan("unflatten-column-major", "unflatten", lambda a: min(a["height"], a["width"]) > 1)
def _map_by_columns(ar: Arithmetic, right: Op, a: Arguments, version: str) -> Array:
    return right(ar, x=a["x"], height=a["width"], width=a["height"]).swapaxes(1, 2)


@_plan("unflatten-no-transpose", "unflatten", lambda a: _several_channels(a) and a["x"].shape[1] > 1)
def _map_channels_first(ar: Arithmetic, right: Op, a: Arguments, version: str) -> Array:
    batch, _, channels = a["x"].shape
    return a["x"].reshape(batch, channels, a["height"], a["width"]).transpose(0, 2, 3, 1)


# --- heads -----------------------------------------------------------------------------------------------------------


@_plan("head-sum", "two heads")
def _head_sum(ar: Arithmetic, right: Op, a: Arguments, version: str) -> Array:
    return ar.round(a["first"] + a["second"])


_plan("head-first-only", "two heads")(lambda ar, right, a, version: a["first"])
_plan("head-second-only", "two heads")(lambda ar, right, a, version: a["second"])
_plan("logits-softmax", "logits")(lambda ar, right, a, version: layers.softmax(ar, x=a["x"]))


# --- anywhere --------------------------------------------------------------------------------------------------------


def _has_channels(a: Arguments, least: int) -> bool:
    return a["axes"][-1] in "CD" and a["x"].shape[-1] >= least


def _is_map(a: Arguments) -> bool:
    return a["axes"] == "BHWC" and max(a["x"].shape[1:3]) > 1


def _permutations(a: Arguments) -> list[str]:
    return ["roll", "shuffle"] if a["x"].shape[-1] % 2 == 0 and a["x"].shape[-1] > 3 else ["roll"]


@_plan("channels-permuted", "value", lambda a: _has_channels(a, 3), _permutations)
def _permuted(ar: Arithmetic, right: Op, a: Arguments, version: str) -> Array:
    x = a["x"]
    if version == "roll":
        return np.roll(x, 1, axis=-1)
    return x.reshape(*x.shape[:-1], 2, -1).swapaxes(-1, -2).reshape(x.shape)


_changed("channels-reversed", "value", lambda a: {"x": a["x"][..., ::-1]}, lambda a: _has_channels(a, 2))
_changed(
    "map-transposed",
    "value",
    lambda a: {"x": a["x"].swapaxes(1, 2)},
    lambda a: _is_map(a) and a["x"].shape[1] == a["x"].shape[2],
)


def _sides(a: Arguments) -> list[str]:
    return [name for name, axis in (("up-down", 1), ("left-right", 2)) if a["x"].shape[axis] > 1]


@_plan("map-flipped", "value", _is_map, _sides)
def _flipped(ar: Arithmetic, right: Op, a: Arguments, version: str) -> Array:
    return np.flip(a["x"], 1 if version == "up-down" else 2)


_SHIFTS = {"down": (1, 1), "up": (1, -1), "right": (2, 1), "left": (2, -1)}


@_plan("shifted", "value", _is_map, lambda a: [name for name, (axis, _) in _SHIFTS.items() if a["x"].shape[axis] > 1])
def _shifted(ar: Arithmetic, right: Op, a: Arguments, version: str) -> Array:
    axis, step = _SHIFTS[version]
    out = np.roll(a["x"], step, axis)
    out[(slice(None),) * axis + (0 if step > 0 else -1,)] = 0
    return out


@_plan("constant-factor", "value", versions=lambda a: ["0.5", "3"])
def _factor(ar: Arithmetic, right: Op, a: Arguments, version: str) -> Array:
    return ar.round(a["x"] * ar.number(float(version)))


@_plan("not-finite", "value", versions=lambda a: ["nan", "inf"])
def _not_finite(ar: Arithmetic, right: Op, a: Arguments, version: str) -> Array:
    out = a["x"].copy()
    out.reshape(-1)[out.size // 2] = float(version)
    return out
