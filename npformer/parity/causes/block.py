"""Mistakes in the common parts of all families' blocks: residuals, layer scales, order of tokens, pooling, heads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from ... import ops
from ...nn import Activation, Linear, Module
from ...ops import Array
from ..site import Alternative, Site
from .layers import Function, function_name
from .rule import Rule, as_it_is, config, inside, instead


def residual(x: Array, branch: Array, sources: Mapping[str, Array]) -> Iterator[Alternative]:
    """Yield sums other than x + branch. `sources` are values that may have been taken for x, by their descriptions."""
    yield as_it_is("residual-missing", "the branch alone, without adding its block's input", branch)
    yield instead("residual-twice", "the block's input added twice", lambda: x + x + branch)
    yield as_it_is("branch-missing", "the block's input alone: the branch is not added", x)
    yield instead("branch-subtracted", "the branch subtracted instead of added", lambda: x - branch)
    for name, source in sources.items():
        text = f"the branch added to {name}"
        yield instead("residual-wrong-source", text, np.add, source, branch)


def layer_scale(scale: Array | None, other: Array | None, scaled: Array, branch: Array) -> Iterator[Alternative]:
    """Yield layer scale omitted, applied twice, or that of the block's other branch; nothing if there is none."""
    if scale is None:
        return
    yield as_it_is("layer-scale-missing", "layer scale left out", branch)
    text = "layer scale applied twice (folded into the weights, then once more)"
    yield instead("layer-scale-twice", text, lambda: scaled * _along_channels(scale, branch))
    if other is not None:
        text = "the layer scale of the block's other branch"
        yield instead("layer-scale-swapped", text, lambda: branch * _along_channels(other, branch))


def _along_channels(scale: Array, branch: Array) -> Array:
    """Shape one number per channel to multiply a map or tokens; SwiftFormer's already have a map's shape."""
    return scale[:, None, None] if branch.ndim == 4 and scale.ndim == 1 else scale


Reordering = tuple[str, str, Callable[[Array], Array]]  # key, text, the change to the array


def wrong_tokens(height: int, width: int, channels: int) -> Iterator[Reordering]:
    """Yield wrong flattenings of a map (B, C, H, W) to tokens (B, N, C)."""
    if min(height, width) > 1:
        text = "tokens numbered column by column instead of row by row"
        yield "flatten-column-major", text, lambda x: as_tokens(x.swapaxes(2, 3))
    if channels > 1 and height * width > 1:
        text = "the map (B, C, H, W) reshaped to (B, N, C) without moving the channels last"
        yield "flatten-no-transpose", text, lambda x: x.reshape(len(x), height * width, channels)


def wrong_maps(height: int, width: int, channels: int) -> Iterator[Reordering]:
    """Yield wrong reshapings of tokens (B, N, C) to a map (B, C, H, W)."""
    if min(height, width) > 1:
        text = "tokens put back into the map column by column instead of row by row"
        yield (
            "unflatten-column-major",
            text,
            lambda x: x.reshape(len(x), width, height, channels).transpose(0, 3, 2, 1),
        )
    if channels > 1 and height * width > 1:
        text = "tokens (B, N, C) reshaped to (B, C, H, W) without moving the channels first"
        yield "unflatten-no-transpose", text, lambda x: x.reshape(len(x), channels, height, width)


def as_tokens(x: Array) -> Array:
    """Flatten a map to tokens, row by row: (B, C, H, W) -> (B, N, C)."""
    return x.reshape(*x.shape[:2], -1).swapaxes(1, 2)


STATISTICS: dict[str, tuple[str, Callable[[Array], Array]]] = {
    "mean": ("mean", ops.token_mean),
    "max": ("largest value", lambda tokens: tokens.max(1)),
    "sum": ("sum", lambda tokens: tokens.sum(1, dtype=np.float64).astype(tokens.dtype)),
    "first": ("first alone", lambda tokens: tokens[:, 0]),
    "last": ("last alone", lambda tokens: tokens[:, -1]),
}


def pooled_otherwise(site: Site, tokens: Array, right: str = "mean", prefix: str = "pooled") -> Iterator[Alternative]:
    """Yield the wrong `STATISTICS` of tokens (B, N, D), in the shape of the site's output."""
    if tokens.shape[1] > 1:
        for name, (text, statistic) in STATISTICS.items():
            if name != right:
                whole = f"the {text} of all pixels or tokens instead of their {STATISTICS[right][0]}"
                yield instead(f"{prefix}-{name}", whole, lambda f=statistic: f(tokens).reshape(site.output.shape))


def head(site: Site, model: Module) -> Iterator[Alternative]:
    """Yield values that a classifier may return instead of its logits."""
    layer = site.module
    if isinstance(layer, Linear) and len(layer.weight) > 1:
        yield from _not_logits(lambda: layer.forward(*site.inputs))


def answer(site: Site, model: Module) -> Iterator[Alternative]:
    """Yield values that a model with one head may return instead of its classifier's logits."""
    if site.output.shape[-1] > 1:
        yield from _not_logits(lambda: site.output)


def two_heads(first: str, second: str) -> Rule:
    """Return the rule for a model that averages two heads of these names."""

    def rule(site: Site, model: Module) -> Iterator[Alternative]:
        one, two = inside(site, first), inside(site, second)
        yield instead("head-sum", "the two heads' logits summed, not halved", np.add, one, two)
        yield as_it_is("head-first-only", f"the first head ({first}) alone instead of the mean of both", one)
        yield as_it_is("head-second-only", f"the second head ({second}) alone instead of the mean of both", two)
        if one.shape[-1] > 1:
            yield from _not_logits(lambda: (one + two) / 2)
            text = "probabilities instead of logits: the mean of both heads' softmax"
            yield instead("logits-softmax", text, lambda: (ops.softmax(one) + ops.softmax(two)) / 2)

    return rule


def _not_logits(compute: Callable[[], Array]) -> Iterator[Alternative]:
    yield instead("logits-softmax", "probabilities (softmax) instead of logits", lambda: ops.softmax(compute()))
    text = "logarithms of probabilities (log-softmax) instead of logits"
    yield instead("logits-log-softmax", text, lambda: ops.log_softmax(compute()))
    text = "each class's own probability (sigmoid) instead of logits"
    yield instead("logits-sigmoid", text, lambda: ops.sigmoid(compute()))


def activation_added(site: Site, holder: Module) -> Iterator[Alternative]:
    """Yield an activation after a batch norm that has none: the model's own, or ReLU."""
    norm, own = site.module, model_activation(site)
    for function in (own, ops.relu) if own is not ops.relu else (own,):
        if function is not ops.ACT2FN["linear"]:
            text = f"{function_name(function)} after the batch norm, where no activation belongs"
            yield instead("act-added", text, lambda act=function: act(norm.forward(*site.inputs)))


def model_activation(site: Site) -> Function:
    """Return the activation that the model's config names."""
    return Activation(config(site).hidden_act).function


def dropped(site: Site, rate: float, name: str) -> Iterator[Alternative]:
    """Yield dropout's scale applied at inference."""
    if 0 < rate < 1:
        (x,) = site.inputs
        text = f"multiplied by 1 - {rate:.4g} ({name}), as dropout did before it scaled in training"
        yield instead("dropout-scaled", text, lambda: x * (1 - rate))
        text = f"divided by 1 - {rate:.4g} ({name}), as dropout does in training"
        yield instead("dropout-scaled", text, lambda: x / (1 - rate))
