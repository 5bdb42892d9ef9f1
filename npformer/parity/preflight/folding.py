"""Folding of batch norms and layer scales into weights, to recognise folded weights of a port.

A batch norm multiplies channel c by a[c] = gamma[c] / sqrt(var[c] + eps) and adds beta[c] - mean[c] * a[c]. Folded
into the convolution before it, a multiplies the filters; into a 1x1 convolution or linear layer after it, the columns,
and its bias absorbs the shift. A layer scale multiplies the output of the last layer of a branch.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from ...models.efficientformer import picture_side
from ...nn import BatchNorm2d, Conv2d, Linear, Module, watch
from ...picture import Array

# For modules with a layer scale: its name, and the layer whose output it multiplies.
SCALED = (
    ("layer_scale_2", "mlp.convolution2"),
    ("layer_scale_1", "token_mixer.projection"),
    ("layer_scale_2", "mlp.linear_out"),
    ("layer_scale", "point_wise_conv2"),
    ("layer_scale_1", "attn.final"),
    ("layer_scale_2", "linear.fc2"),
)
TWO_HEADS = {"classifier": "distillation_classifier", "head": "dist_head"}


class Neighbours(NamedTuple):
    """Modules that may be folded into a layer: the batch norms before and after it, its layer scale; or "" each."""

    before: str = ""
    after: str = ""
    scale: str = ""


class Folded(NamedTuple):
    """A layer with some of its neighbours folded in, all float64.

    absorbed: their names. rows, columns: factors of filters and columns. bias: the result; wrong: the results of usual
    mistakes, by the mistake. terms: the total magnitude of the bias's terms.
    """

    absorbed: Neighbours
    weight: Array
    rows: Array
    columns: Array
    bias: Array
    wrong: Mapping[str, Array]
    terms: Array

    def folded_weight(self, filters: slice = slice(None)) -> Array:
        """Return the weight, or some of its filters."""
        rest = (1,) * (self.weight.ndim - 2)
        rows = self.rows[filters].reshape(-1, 1, *rest)
        return self.weight[filters] * rows * self.columns.reshape(1, -1, *rest)


def neighbours(model: Module) -> dict[str, Neighbours]:
    """Return the modules that may be folded into each convolution or linear layer, by the layer's name.

    The model runs once on black pixels: a batch norm belongs to the convolution whose result is its input.
    """
    found: dict[str, Neighbours] = {}
    last: dict[str, tuple[str, Any]] = {"layer": ("", None), "norm": ("", None)}

    def observe(name: str, module: Module, inputs: tuple[Any, ...], output: Array, layout: str | None) -> Array:
        if not inputs or layout is not None:
            return output
        if isinstance(module, BatchNorm2d):
            layer, made = last["layer"]
            if made is inputs[0]:
                found[layer] = found[layer]._replace(after=name)
            last["norm"] = name, output
        elif isinstance(module, Conv2d | Linear):
            norm, made = last["norm"]
            found[name] = Neighbours(before=norm if made is inputs[0] and _pointwise(module) else "")
            last["layer"] = name, output
        return output

    config: Any = model.config  # type: ignore[attr-defined]
    side = picture_side(config) if getattr(config, "num_meta3d_blocks", 0) else 64
    twin = model if model.dtype == np.float32 else model.astype(np.float32)
    with np.errstate(all="ignore"), watch(twin, observe):
        twin(np.zeros((1, config.num_channels, side, side), np.float32))
    for name, module in model.named_modules():
        prefix = f"{name}." if name else ""
        for scale, layer in SCALED:
            if getattr(module, scale, None) is not None and prefix + layer in found:
                found[prefix + layer] = found[prefix + layer]._replace(scale=prefix + scale)
        for head in ("head", "dist_head"):  # SwiftFormer's: only a mean over pixels is between them and the norm
            if isinstance(getattr(module, "norm", None), BatchNorm2d) and prefix + head in found:
                found[prefix + head] = Neighbours(before=f"{prefix}norm")
    return found


def _pointwise(module: Conv2d | Linear) -> bool:
    return isinstance(module, Linear) or (module.weight.shape[2:] == (1, 1) and module.groups == 1)


def foldings(
    modules: Mapping[str, Module], name: str, around: Neighbours, eps: float | None = None
) -> Iterator[Folded]:
    """Yield all ways to fold some of a layer's neighbours in; `eps` replaces the batch norms' own."""
    for chosen in itertools.product(*(("", neighbour) if neighbour else ("",) for neighbour in around)):
        if any(chosen):
            layer: Any = modules[name]
            yield fold(modules, layer.weight, layer.bias, Neighbours(*chosen), eps)


def fold(
    modules: Mapping[str, Module], weight: Array, bias: Array | None, chosen: Neighbours, eps: float | None = None
) -> Folded:
    """Fold those neighbours into a layer with this weight and bias; `eps` replaces the batch norms' own."""
    weight = weight.astype(np.float64)
    own = np.zeros(len(weight)) if bias is None else bias.astype(np.float64)
    rows, columns = np.ones(len(weight)), np.ones(weight.shape[1])
    total, terms = own, np.abs(own)
    wrong = {"the layer's own bias as it was": own}
    if chosen.before:
        columns, shift, _, _ = _as_line(modules[chosen.before], eps)
        flat = weight.reshape(len(weight), -1)
        total = own + flat @ shift
        terms = terms + np.abs(flat) @ np.abs(shift)
    if chosen.after:
        rows, shift, beta, mean = _as_line(modules[chosen.after], eps)
        wrong |= {
            "the running mean left out": total * rows + beta,
            "the layer's own bias not multiplied": total + shift,
            "the layer's own bias left out": shift,
            "the batch norm's bias left out": (total - mean) * rows,
        }
        total = total * rows + shift
        terms = terms * np.abs(rows) + np.abs(beta) + np.abs(mean * rows)
    if chosen.scale:
        owner, _, attribute = chosen.scale.rpartition(".")
        scale = getattr(modules[owner], attribute).astype(np.float64).reshape(-1)
        wrong = {text: value * scale for text, value in wrong.items()} | {"not multiplied by the layer scale": total}
        rows, total, terms = rows * scale, total * scale, terms * np.abs(scale)
    return Folded(chosen, weight, rows, columns, total, wrong, terms)


def _as_line(norm: Any, eps: float | None) -> tuple[Array, Array, Array, Array]:
    """Return a batch norm's scale and shift, its bias and its mean."""
    beta, mean = norm.bias.astype(np.float64), norm.running_mean.astype(np.float64)
    factor = norm.weight / np.sqrt(norm.running_var.astype(np.float64) + (norm.eps if eps is None else eps))
    return factor, beta - mean * factor, beta, mean


def solve_eps(folded: Folded, norm: Any, theirs: Array) -> float:
    """Return the eps with which folding the norm after a layer gives the port's weight; NaN where none does."""
    flat, other = folded.weight.reshape(len(folded.weight), -1), theirs.reshape(len(theirs), -1)
    with np.errstate(all="ignore"):
        ratio = (flat * other).sum(1) / (flat * flat).sum(1)
        # rows = scale * gamma / sqrt(var + eps): the ratio contains the unknown eps.
        variance = (folded.rows / ratio) ** 2 * (norm.running_var.astype(np.float64) + norm.eps)
        eps = variance - norm.running_var
        eps = eps[np.isfinite(eps)]
    return float(np.median(eps)) if eps.size else float("nan")
