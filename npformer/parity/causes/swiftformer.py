"""Mistakes in SwiftFormer: its additive attention, the reshaping to tokens and back, its blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from ... import ops
from ...models.swiftformer import (
    SwiftFormerConvEncoder,
    SwiftFormerEfficientAdditiveAttention,
    SwiftFormerEmbeddings,
    SwiftFormerEncoderBlock,
    SwiftFormerForImageClassification,
    SwiftFormerLocalRepresentation,
    SwiftFormerMlp,
)
from ...nn import Linear, Module
from ...ops import Array
from ..site import Alternative, Site
from .block import (
    activation_added,
    as_tokens,
    dropped,
    head,
    layer_scale,
    pooled_otherwise,
    residual,
    two_heads,
    wrong_maps,
    wrong_tokens,
)
from .rule import (
    Rules,
    as_it_is,
    beside,
    config,
    entering,
    holder_name,
    inside,
    instead,
    is_first_of_two,
    named,
)

Attention = SwiftFormerEfficientAdditiveAttention
Block = SwiftFormerEncoderBlock
ConvBlock = SwiftFormerConvEncoder | SwiftFormerLocalRepresentation

# ---------------------------------------------------------------------------------------------- blocks


def conv_branch(site: Site, block: ConvBlock) -> Iterator[Alternative]:
    """Yield mistakes in a convolutional block's branch times its layer scale."""
    yield from layer_scale(block.layer_scale, None, site.inputs[0], beside(site, "point_wise_conv2"))
    yield from dropped(site, config(site).drop_conv_encoder_rate, "drop_conv_encoder_rate")


def conv_block(site: Site, block: ConvBlock) -> Iterator[Alternative]:
    """Yield mistakes in the sum at a convolutional block's end."""
    sources = {"the filtered and normalised map instead of the block's input": inside(site, "norm")}
    yield from residual(site.inputs[0], inside(site, "drop_path"), sources)


def scaled_branch(site: Site, block: Block) -> Iterator[Alternative]:
    """Yield mistakes in an encoder block's branch times its layer scale; the first is the attention, as a map."""
    scales = block.layer_scale_1, block.layer_scale_2
    (scaled,) = site.inputs
    if is_first_of_two(site):
        tokens, scale = beside(site, "attn"), block.layer_scale_1
        _, channels, height, width = scaled.shape
        for key, text, unflattened in wrong_maps(height, width, channels):
            if scale is None:
                yield instead(key, text, unflattened, tokens)
            else:
                yield instead(key, text, lambda f=unflattened: scale * f(tokens))
        yield from layer_scale(*scales, scaled, tokens.swapaxes(1, 2).reshape(scaled.shape))
    else:
        yield from layer_scale(*scales[::-1], scaled, beside(site, "linear"))
    yield from dropped(site, config(site).drop_path_rate, "drop_path_rate")


def mixed(site: Site, block: Block) -> Iterator[Alternative]:
    """Yield mistakes in the sum after the attention."""
    source = {"the block's input instead of its local representation": entering(site, site.owner)}
    yield from residual(inside(site, "local_representation"), inside(site, "drop_path#1"), source)


def block_output(site: Site, block: Block) -> Iterator[Alternative]:
    """Yield mistakes in the sum after the MLP."""
    sources = {
        "the block's input instead of what the attention made of it": site.inputs[0],
        "the local representation instead of what the attention made of it": inside(site, "local_representation"),
        "the normalised map instead of the one before the norm": inside(site, "linear.norm1"),
    }
    yield from residual(inside(site, ":mixed"), inside(site, "drop_path"), sources)


def pooled(site: Site, model: Module) -> Iterator[Alternative]:
    """Yield mistakes in the mean over the last map."""
    yield from pooled_otherwise(site, as_tokens(inside(site, "norm")))


# ---------------------------------------------------------------------------------------------- attention


def from_map(site: Site, attention: Attention) -> Iterator[Alternative]:
    """Yield mistakes in the first layers on tokens: the map was flattened right before them."""
    layer = site.module
    block = holder_name(site).rpartition(".")[0]
    x = named(site, f"{block}.local_representation" if block else "local_representation")
    for key, text, flattened in wrong_tokens(x.shape[2], x.shape[3], x.shape[1]):
        yield instead(key, text, lambda f=flattened: layer.forward(f(x)))


def normalised(site: Site, attention: Attention) -> Iterator[Alternative]:
    """Yield mistakes in queries and keys scaled to length one."""
    x = inside(site, f"to_{site.inner}")
    yield as_it_is("additive-not-normalised", "queries, or keys, not scaled to length one", x)
    if x.shape[1] > 1:
        text = "each channel scaled to length one over the tokens, not each token over its channels"
        yield instead("additive-normalised-over-tokens", text, lambda: ops.normalize(x, dim=1))
    if x.shape[2] > 1:
        text = "each token divided by the sum of its absolute values instead of its length"
        yield instead("additive-normalised-l1", text, lambda: ops.normalize(x, 1.0, dim=2))


def weights(site: Site, attention: Attention) -> Iterator[Alternative]:
    """Yield mistakes in the weight of each token."""
    query, scale = inside(site, ":query"), attention.w_g.shape[0] ** -0.5

    def products() -> Array:
        return query @ attention.w_g

    if attention.attention_norm == "ones":
        text = "scores divided by their length over the tokens (attention_norm='l2') instead of all weights 1"
        yield instead("additive-l2", text, lambda: ops.normalize(products(), dim=1))
    else:
        text = "all weights 1 (attention_norm='ones') instead of scores divided by their length over the tokens"
        yield instead("additive-ones", text, lambda: np.ones_like(products()))
    ways: list[tuple[str, str, Callable[[Array], Array]]] = [
        ("additive-weights-raw", "the scores themselves as weights", lambda scores: scores)
    ]
    if query.shape[1] > 1:
        ways.append(
            ("additive-softmax-over-tokens", "softmax of the scores over the tokens", lambda x: ops.softmax(x, 1))
        )
    for key, text, way in ways:
        yield instead(key, text, lambda way=way: way(products() * scale))
        if attention.w_g.shape[0] > 1:
            text = f"{text}, which are not divided by sqrt({attention.w_g.shape[0]})"
            yield instead(key, text, lambda way=way: way(products()))


def global_query(site: Site, attention: Attention) -> Iterator[Alternative]:
    """Yield mistakes in the weighted sum of all queries."""
    weights, query, key = inside(site, ":weights"), inside(site, ":query"), inside(site, ":key")
    if query.shape[1] > 1:
        text = f"the mean instead of the sum over the {query.shape[1]} tokens"
        yield instead("global-query-mean", text, lambda: (weights * query).mean(1, keepdims=True))
        text = "the largest value over the tokens instead of the sum"
        yield instead("global-query-max", text, lambda: (weights * query).max(1, keepdims=True))
    text = "the keys summed up instead of the queries"
    yield instead("global-query-keys", text, lambda: (weights * key).sum(1, keepdims=True))


def context(site: Site, attention: Attention) -> Iterator[Alternative]:
    """Yield mistakes in the global query times each key."""
    total, query, key = inside(site, ":global_query"), inside(site, ":query"), inside(site, ":key")
    text = "the global query times each query instead of each key"
    yield instead("additive-key-swapped", text, np.multiply, total, query)
    text = "the global query added to each key instead of multiplied by it"
    yield instead("additive-gate-added", text, np.add, total, key)


def final(site: Site, attention: Attention) -> Iterator[Alternative]:
    """Yield mistakes in the last layer, of proj(context) + query: that sum has no name of its own."""
    layer: Linear = site.module  # type: ignore[assignment]
    projected, query = beside(site, "proj"), beside(site, ":query")
    key = "additive-residual-missing"
    yield instead(key, "the query not added before the last layer", layer.forward, projected)
    sources = {
        "unnormalised": ("the query as it was before being scaled to length one", "to_query"),
        "key": ("the normalised key", ":key"),
    }
    for name, (text, source) in sources.items():
        other = beside(site, source)
        text = f"{text} added before the last layer instead of the normalised query"
        yield instead(f"additive-residual-{name}", text, lambda other=other: layer.forward(projected + other))
    text = "the query added after the last layer instead of before it"
    yield instead("additive-residual-after", text, lambda: layer.forward(projected) + query)


def dropout(site: Site, mlp: Module) -> Iterator[Alternative]:
    """Yield dropout applied after an MLP's layers."""
    yield from dropped(site, config(site).drop_mlp_rate, "drop_mlp_rate")


RULES: Rules = {
    (SwiftFormerConvEncoder, ".drop_path"): (conv_branch,),
    (SwiftFormerConvEncoder, ".norm"): (activation_added,),
    (SwiftFormerConvEncoder, ""): (conv_block,),
    (SwiftFormerLocalRepresentation, ".drop_path"): (conv_branch,),
    (SwiftFormerLocalRepresentation, ".norm"): (activation_added,),
    (SwiftFormerLocalRepresentation, ""): (conv_block,),
    (SwiftFormerEmbeddings, ".norm"): (activation_added,),
    (SwiftFormerEncoderBlock, ".drop_path"): (scaled_branch,),
    (SwiftFormerEncoderBlock, ":mixed"): (mixed,),
    (SwiftFormerEncoderBlock, ""): (block_output,),
    (SwiftFormerMlp, ".drop"): (dropout,),
    (SwiftFormerEfficientAdditiveAttention, ".to_query"): (from_map,),
    (SwiftFormerEfficientAdditiveAttention, ".to_key"): (from_map,),
    (SwiftFormerEfficientAdditiveAttention, ".final"): (final,),
    (SwiftFormerEfficientAdditiveAttention, ":query"): (normalised,),
    (SwiftFormerEfficientAdditiveAttention, ":key"): (normalised,),
    (SwiftFormerEfficientAdditiveAttention, ":weights"): (weights,),
    (SwiftFormerEfficientAdditiveAttention, ":global_query"): (global_query,),
    (SwiftFormerEfficientAdditiveAttention, ":context"): (context,),
    (SwiftFormerForImageClassification, ":pooled"): (pooled,),
    (SwiftFormerForImageClassification, ".head"): (head,),
    (SwiftFormerForImageClassification, ".dist_head"): (head,),
    (SwiftFormerForImageClassification, ""): (two_heads("head", "dist_head"),),
}
