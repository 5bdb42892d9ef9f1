"""Mistakes in EfficientFormer: its pooling mixer, its attention with a bias per offset, its two kinds of block."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

from ... import ops
from ...models.efficientformer import (
    EfficientFormerConvMlp,
    EfficientFormerDenseMlp,
    EfficientFormerFlat,
    EfficientFormerForImageClassification,
    EfficientFormerForImageClassificationWithTeacher,
    EfficientFormerMeta3D,
    EfficientFormerMeta4D,
    EfficientFormerPatchEmbeddings,
    EfficientFormerPooling,
    EfficientFormerSelfAttention,
)
from ...nn import Module
from ...ops import Array
from ..site import Alternative, Site
from .block import (
    activation_added,
    answer,
    dropped,
    head,
    layer_scale,
    pooled_otherwise,
    residual,
    two_heads,
    wrong_tokens,
)
from .rule import Rules, as_it_is, beside, config, entering, inside, instead, is_first_of_two

Meta = EfficientFormerMeta3D | EfficientFormerMeta4D
Attention = EfficientFormerSelfAttention

# ---------------------------------------------------------------------------------------------- blocks on maps


def pooling(site: Site, mixer: EfficientFormerPooling) -> Iterator[Alternative]:
    """Yield mistakes in the subtraction at the end of the pooling mixer, mean - x."""
    (x,), mean = site.inputs, inside(site, ":pooled")
    yield as_it_is("pool-no-subtraction", "the pooled map alone: the input is not subtracted from it", mean)
    text = "the input minus its pooled map instead of the pooled map minus the input"
    yield instead("pool-subtraction-reversed", text, lambda: x - mean)


def scaled_branch(site: Site, block: Meta) -> Iterator[Alternative]:
    """Yield mistakes in the input of drop path: a branch times its layer scale."""
    scales = block.layer_scale_1, block.layer_scale_2
    first = is_first_of_two(site)
    branch = beside(site, "token_mixer" if first else "mlp")
    yield from layer_scale(*(scales if first else scales[::-1]), site.inputs[0], branch)
    yield from dropped(site, config(site).drop_path_rate, "drop_path_rate")


def mixed(site: Site, block: Meta) -> Iterator[Alternative]:
    """Yield mistakes in the sum after the token mixer."""
    x = entering(site, site.owner)
    sources = {}
    if isinstance(block, EfficientFormerMeta3D):
        sources["the normalised tokens instead of the block's input"] = inside(site, "layernorm1")
    yield from residual(x, inside(site, "drop_path#1"), sources)


def block_output(site: Site, block: Meta) -> Iterator[Alternative]:
    """Yield mistakes in the sum after the MLP."""
    sources = {"the block's input instead of what the token mixer made of it": site.inputs[0]}
    if isinstance(block, EfficientFormerMeta3D):
        sources["the normalised tokens instead of those before the norm"] = inside(site, "layernorm2")
    yield from residual(inside(site, ":mixed"), inside(site, "drop_path"), sources)


def dropout(site: Site, mlp: Module) -> Iterator[Alternative]:
    """Yield dropout applied between and after an MLP's layers."""
    yield from dropped(site, config(site).hidden_dropout_prob, "hidden_dropout_prob")


# ---------------------------------------------------------------------------------------------- map to tokens


def flat(site: Site, module: EfficientFormerFlat) -> Iterator[Alternative]:
    """Yield mistakes in the flattening from map to tokens."""
    (x,) = site.inputs
    for key, text, flattened in wrong_tokens(x.shape[2], x.shape[3], x.shape[1]):
        yield instead(key, text, flattened, x)


def tokens_pooled(site: Site, model: Module) -> Iterator[Alternative]:
    """Yield mistakes in the mean over the tokens."""
    yield from pooled_otherwise(site, inside(site, "efficientformer"))


# ---------------------------------------------------------------------------------------------- attention

# Ways to split one vector per token into the heads' queries, keys and values, given h, d and e:
# (B, N, h * (2d + e)) -> (B, h, N, d) twice and (B, h, N, e). The first is right.
Cut = Callable[[Array, int, int, int], list[Array]]


def _per_head(qkv: Array, heads: int, d: int, e: int) -> list[Array]:
    return np.split(_heads_first(qkv, heads), [d, 2 * d], axis=-1)


def _three_blocks(qkv: Array, heads: int, d: int, e: int) -> list[Array]:
    return [_heads_first(block, heads) for block in np.split(qkv, [heads * d, 2 * heads * d], axis=-1)]


def _heads_last(qkv: Array, heads: int, d: int, e: int) -> list[Array]:
    return np.split(qkv.reshape(*qkv.shape[:2], 2 * d + e, heads).transpose(0, 3, 1, 2), [d, 2 * d], axis=-1)


def _not_swapped(qkv: Array, heads: int, d: int, e: int) -> list[Array]:
    return np.split(qkv.reshape(len(qkv), heads, qkv.shape[1], 2 * d + e), [d, 2 * d], axis=-1)


def _value_first(qkv: Array, heads: int, d: int, e: int) -> list[Array]:
    value, query, key = np.split(_heads_first(qkv, heads), [e, e + d], axis=-1)
    return [query, key, value]


def _heads_first(x: Array, heads: int) -> Array:
    """Split the last axis into heads: (B, N, h * w) -> (B, h, N, w)."""
    return x.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2)


CUTS_OF_HEADS: tuple[tuple[str, str, Cut], ...] = (
    ("qkv-order", "cut as three blocks, all heads' queries, keys and values, not head after head", _three_blocks),
    ("qkv-order", "cut as if the head's number ran fastest", _heads_last),
    ("heads-no-transpose", "reshaped from (B, N, h * d) to (B, h, N, d), tokens and heads not swapped", _not_swapped),
)
PARTS = ("query", "key", "value")


def query_key_value(site: Site, attention: Attention) -> Iterator[Alternative]:
    """Yield mistakes in splitting a token's vector into the heads' queries, keys and values; a text fits all three."""
    qkv, part = inside(site, "qkv"), PARTS.index(site.inner)
    sizes = attention.num_heads, attention.key_dim, attention.value_dim

    def cut_by(cut: Cut, part: int) -> Array:
        return cut(qkv, *sizes)[part]

    if part < 2:
        yield instead("qkv-swapped-qk", "query and key taken for each other", cut_by, _per_head, 1 - part)
    yield instead("qkv-order", "each head cut as value, query, key", cut_by, _value_first, part)
    if attention.num_heads > 1:
        for key, text, cut in CUTS_OF_HEADS:
            yield instead(key, f"queries, keys and values {text}", cut_by, cut, part)


# Index into the table for an offset of (dy, dx) tokens on a grid of side n; right is |dy| * n + |dx|.
INDICES: tuple[tuple[str, str, Callable[[np.ndarray, np.ndarray, int], np.ndarray]], ...] = (
    ("bias-index-column-major", "|dx| * H + |dy|", lambda dy, dx, n: abs(dx) * n + abs(dy)),
    ("bias-index-wrong", "|dy| + |dx|", lambda dy, dx, n: abs(dy) + abs(dx)),
    ("bias-index-wrong", "the larger of |dy| and |dx|", lambda dy, dx, n: np.maximum(abs(dy), abs(dx))),
    ("bias-index-wrong", "|dy| * W, rows alone", lambda dy, dx, n: abs(dy) * n),
    ("bias-index-wrong", "|dx|, columns alone", lambda dy, dx, n: abs(dx)),
    ("bias-index-wrong", "|dy * W + dx|, the distance of the tokens' numbers", lambda dy, dx, n: abs(dy * n + dx)),
    ("bias-index-wrong", "dy * W + dx modulo H * W, with its sign", lambda dy, dx, n: (dy * n + dx) % (n * n)),
    ("bias-index-wrong", "H * W - 1 - (|dy| * W + |dx|)", lambda dy, dx, n: n * n - 1 - (abs(dy) * n + abs(dx))),
)


def bias(site: Site, attention: Attention) -> Iterator[Alternative]:
    """Yield mistakes in gathering the table of biases for all pairs of tokens."""
    table, index = attention.attention_biases, attention.attention_bias_idxs
    heads, offsets = table.shape
    if offsets == 1:
        return
    side = math.isqrt(offsets)
    y, x = np.divmod(np.arange(offsets), side)
    for key, text, number in INDICES:
        wrong = number(y[:, None] - y, x[:, None] - x, side)
        yield instead(key, f"the bias taken from place {text} of its table", lambda wrong=wrong: table[:, wrong])
    if heads > 1:
        text = f"the bias table ({heads}, {offsets}) read as ({offsets}, {heads}) as it lies"
        yield instead("bias-table-transposed", text, lambda: table.reshape(offsets, heads).T[:, index])


def scores(site: Site, attention: Attention) -> Iterator[Alternative]:
    """Yield mistakes in the products of queries and keys over sqrt(d), plus bias."""
    query, key, bias = (inside(site, name) for name in (":query", ":key", ":bias"))
    heads, d, e, width = attention.num_heads, attention.key_dim, attention.value_dim, attention.qkv.weight.shape[1]

    def scored(scale: float, bias: Array | float = bias) -> Array:
        return query @ key.swapaxes(-1, -2) * scale + bias

    if d > 1:
        yield instead("attn-no-scale", f"scores not divided by sqrt({d})", scored, 1.0)
        yield instead("attn-scale-d", f"scores divided by {d} instead of sqrt({d})", scored, 1 / d)
        text = f"the bias divided by sqrt({d}) together with the products"
        yield instead("attn-bias-scaled", text, lambda: scored(1.0) * d**-0.5)
    for other, name in {e: "the values' width", heads * d: "all heads' width", width: "the tokens' width"}.items():
        if other != d:
            text = f"scores divided by sqrt({other}), {name}, instead of sqrt({d})"
            yield instead("attn-scale-width", text, scored, other**-0.5)
    yield instead("attn-no-bias", "the bias not added to the scores", scored, d**-0.5, 0.0)
    if query.shape[2] > 1:
        text = "key @ query.T instead of query @ key.T"
        yield instead("attn-scores-transposed", text, lambda: key @ query.swapaxes(-1, -2) * d**-0.5 + bias)


def probabilities(site: Site, attention: Attention) -> Iterator[Alternative]:
    """Yield mistakes in softmax(scores) over the keys."""
    scores, bias = inside(site, ":scores"), inside(site, ":bias")
    yield as_it_is("softmax-missing", "the scores themselves, without softmax", scores)
    if scores.shape[2] > 1:
        yield instead("softmax-wrong-axis", "softmax over the queries instead of the keys", ops.softmax, scores, 2)
    if scores.shape[1] > 1:
        yield instead("softmax-wrong-axis", "softmax over the heads instead of the keys", ops.softmax, scores, 1)
    text = "the bias added after the softmax instead of before"
    yield instead("attn-bias-after-softmax", text, lambda: ops.softmax(scores - bias) + bias)
    text = "the bias added after the softmax, too"
    yield instead("attn-bias-after-softmax", text, lambda: ops.softmax(scores) + bias)


def context(site: Site, attention: Attention) -> Iterator[Alternative]:
    """Yield mistakes in the values weighted by the probabilities, heads concatenated."""
    probs, value = inside(site, ":probs"), inside(site, ":value")
    shape = site.output.shape
    _, heads, tokens, width = value.shape
    if min(heads, width) > 1:
        text = "heads merged as (d, h), the head's number running fastest, instead of (h, d)"
        yield instead("heads-interleaved", text, lambda: (probs @ value).transpose(0, 2, 3, 1).reshape(shape))
    if min(heads, tokens) > 1:
        text = "reshaped from (B, h, N, d) to (B, N, h * d) without swapping tokens and heads"
        yield instead("heads-no-transpose", text, lambda: (probs @ value).reshape(shape))
    if tokens > 1:
        text = "probs.T @ value instead of probs @ value"
        swapped = probs.swapaxes(-1, -2)
        yield instead("attn-probs-transposed", text, lambda: (swapped @ value).swapaxes(1, 2).reshape(shape))


RULES: Rules = {
    (EfficientFormerPooling, ""): (pooling,),
    (EfficientFormerMeta4D, ".drop_path"): (scaled_branch,),
    (EfficientFormerMeta3D, ".drop_path"): (scaled_branch,),
    (EfficientFormerMeta4D, ":mixed"): (mixed,),
    (EfficientFormerMeta3D, ":mixed"): (mixed,),
    (EfficientFormerMeta4D, ""): (block_output,),
    (EfficientFormerMeta3D, ""): (block_output,),
    (EfficientFormerConvMlp, ".batchnorm_after"): (activation_added,),
    (EfficientFormerPatchEmbeddings, ".norm"): (activation_added,),
    (EfficientFormerConvMlp, ".dropout"): (dropout,),
    (EfficientFormerDenseMlp, ".dropout"): (dropout,),
    (EfficientFormerFlat, ""): (flat,),
    (EfficientFormerSelfAttention, ":query"): (query_key_value,),
    (EfficientFormerSelfAttention, ":key"): (query_key_value,),
    (EfficientFormerSelfAttention, ":value"): (query_key_value,),
    (EfficientFormerSelfAttention, ":bias"): (bias,),
    (EfficientFormerSelfAttention, ":scores"): (scores,),
    (EfficientFormerSelfAttention, ":probs"): (probabilities,),
    (EfficientFormerSelfAttention, ":context"): (context,),
    (EfficientFormerForImageClassification, ":pooled"): (tokens_pooled,),
    (EfficientFormerForImageClassification, ".classifier"): (head,),
    (EfficientFormerForImageClassification, ""): (answer,),
    (EfficientFormerForImageClassificationWithTeacher, ":pooled"): (tokens_pooled,),
    (EfficientFormerForImageClassificationWithTeacher, ".classifier"): (head,),
    (EfficientFormerForImageClassificationWithTeacher, ".distillation_classifier"): (head,),
    (EfficientFormerForImageClassificationWithTeacher, ""): (two_heads("classifier", "distillation_classifier"),),
}
