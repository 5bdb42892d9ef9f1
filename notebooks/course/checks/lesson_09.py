"""Checks of lesson 9's exercises: additive attention, its cost and its limits, and a whole encoder block."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from npformer import ops
from npformer.models import swiftformer

from ..exercises import check, expect, expect_array


@check("directions stay, lengths are one, and a vector of zeros stays one.")
def unit(function: Callable[..., Any]) -> None:
    rng = np.random.default_rng(91)
    x = rng.standard_normal((3, 5, 7))
    for dim in (1, 2):
        square = (x**2).sum(dim, keepdims=True)
        length = np.sqrt(square)
        hints = {
            "those are divided by the sum of squares; the length is its square root.": x / square,
            "those are divided by the length of another axis: sum over `dim`.": ops.normalize(x, dim=3 - dim),
            "those are divided by the length of the whole array: sum over `dim` alone.": x / np.linalg.norm(x),
            "those add up to one; it is the squares that should.": x / x.sum(dim, keepdims=True),
            "those are divided by the sum of absolute values; the length needs squares.": ops.normalize(x, 1, dim),
            "that is the length itself; divide x by it.": np.broadcast_to(length, x.shape),
        }
        expect_array(function(x, dim), ops.normalize(x, dim=dim), f"unit(x, {dim})", hints=hints)
    rows = np.zeros((4, 6))
    rows[1], rows[2], rows[3] = 3e-13 * x[0, 0, :6], 2e-12 * x[0, 1, :6], x[0, 2, :6]
    with np.errstate(invalid="ignore", divide="ignore"):
        got = np.asarray(function(rows, 1))
        expect(
            not np.isnan(got).any(),
            "a vector of zeros has become nan: nothing may be divided by 0; use max(length, 1e-12).",
        )
        length = np.sqrt((rows**2).sum(1, keepdims=True))
        hints = {
            "1e-12 is added to the length; take the larger of the two instead.": rows / (length + 1e-12),
            "1e-12 stands inside the root; the length itself is to be at least 1e-12.": (
                rows / np.sqrt(length**2 + 1e-12)
            ),
            "a vector shorter than 1e-12 has come out at length one: divide by max(length, 1e-12), for any length.": (
                rows / np.where(length == 0, 1, length)
            ),
        }
    expect_array(got, ops.normalize(rows, dim=1), "unit of very short vectors", hints=hints)


def _layer(rng: np.random.Generator, width: int) -> swiftformer.SwiftFormerEfficientAdditiveAttention:
    """Return an attention layer in float64 with random weights of order one."""
    layer = swiftformer.SwiftFormerEfficientAdditiveAttention(swiftformer.SwiftFormerConfig(), width).astype(
        np.float64
    )
    return layer.load_state_dict({n: rng.standard_normal(a.shape) for n, a in layer.state_dict().items()})


@check("the released layer, and you have shown that it needs neither w_g nor a scale.")
def my_attention(function: Callable[..., Any]) -> None:
    rng = np.random.default_rng(92)
    layer, x = _layer(rng, 5), rng.standard_normal((3, 7, 5))
    raw_query, raw_key = layer.to_query(x), layer.to_key(x)
    query, key = ops.normalize(raw_query, dim=-1), ops.normalize(raw_key, dim=-1)

    def finish(total: Any, key: Any = key, query: Any = query) -> Any:
        return layer.final(layer.proj(total * key) + query)

    total = query.sum(1, keepdims=True)
    scores = query @ layer.w_g * 5**-0.5
    hints = {
        "the query that is added back should be of length one, too.": finish(total, query=raw_query),
        "neither queries nor keys are of length one there.": finish(
            raw_query.sum(1, keepdims=True), raw_key, raw_query
        ),
        "the keys are not of length one.": finish(total, raw_key),
        "the queries are not of length one when they are summed.": finish(raw_query.sum(1, keepdims=True)),
        "the queries are not of length one.": finish(raw_query.sum(1, keepdims=True), query=raw_query),
        "queries and keys are normalised over the tokens; it should be over the channels, the last axis.": finish(
            ops.normalize(raw_query, dim=1).sum(1, keepdims=True),
            ops.normalize(raw_key, dim=1),
            ops.normalize(raw_query, dim=1),
        ),
        "the query is not added back before the last layer.": layer.final(layer.proj(total * key)),
        "the query is added before proj; it belongs between proj and final.": layer.final(
            layer.proj(total * key + query)
        ),
        "the query is added after final; it belongs between proj and final.": finish(total, query=0) + query,
        "x is added there; it is the query, of length one, that belongs there.": finish(total, query=x),
        "proj is missing: the gated keys go through it before the query is added.": layer.final(total * key + query),
        "final is missing: it is the last of the four linear layers.": layer.proj(total * key) + query,
        "G is the mean of the queries there; the released layer sums them up.": finish(total / 7),
        "those are weights of a softmax over the tokens; in the released layer all weights are 1.": finish(
            (ops.softmax(scores, dim=1) * query).sum(1, keepdims=True)
        ),
        'those are the weights of the "l2" form; in the released layer all weights are 1.': finish(
            (ops.normalize(scores, dim=1) * query).sum(1, keepdims=True)
        ),
        "the scores themselves are the weights there; the softmax of each alone is 1.": finish(
            (scores * query).sum(1, keepdims=True)
        ),
        "G is divided by the root of D; that scale belongs to the scores, which do not matter.": finish(
            total * 5**-0.5
        ),
        "G is summed over the batch, so pictures hear of each other; sum over the tokens, axis 1.": finish(
            query.sum(0, keepdims=True)
        ),
        "G is summed over the channels; sum over the tokens, axis 1.": finish(query.sum(2, keepdims=True)),
        "each token is gated by its own query; G is the sum of all of them.": finish(query),
        "queries and keys are swapped: the queries are summed up, the keys are gated.": layer.final(
            layer.proj(key.sum(1, keepdims=True) * query) + key
        ),
    }
    expect_array(function(x, layer), layer(x), "my_attention(x, layer)", hints=hints)


@check("token i cannot tell: it knows the sum of the others, and no more.")
def disguise(function: Callable[..., Any]) -> None:
    rng = np.random.default_rng(93)
    for tokens, i in ((3, 0), (6, 5), (7, 2)):
        x = rng.standard_normal((tokens, 5))
        given = x.copy()
        answer = function(x, i)
        expect_array(answer, answer if np.shape(answer) == x.shape else x, f"disguise(x, {i})")
        expect(np.array_equal(x, given), "x itself was changed; work on a copy of it.")
        other = np.asarray(answer, np.float64)
        expect(not np.isnan(other).any(), "there is nan in the tokens.")
        expect(np.array_equal(other[i], x[i]), f"token i = {i} should stay as it is.")
        same = [j for j in range(tokens) if j != i and np.allclose(other[j], x[j])]
        expect(
            not same, f"with {tokens} tokens and i = {i}, row {same and same[0]} is still what it was; change it too."
        )
        moved = 0.0
        for _ in range(3):
            layer = _layer(rng, 5)
            before, after = layer(x[None])[0, i], layer(other[None])[0, i]
            moved = max(moved, float(np.abs(after - before).max()))
        expect(
            moved < 1e-9,
            f"token {i} can tell: its output moved by {moved:.2g}. The queries of the others, whatever the weights "
            "that make them, must add up to the same.",
        )


@check("the quadratic part needs some 2D tokens before it counts for as much as the linear layers.")
def costs(additive: Callable[..., Any], attention: Callable[..., Any], answer: Any) -> None:
    for tokens, width in ((5, 3), (49, 220), (3136, 48)):
        linear = 4 * tokens * width * width
        place = f"(N={tokens}, D={width})"
        mixing = 3 * tokens * width
        hints = {
            "additive_cost lacks the four linear layers.": mixing,
            "additive_cost has the linear layers alone; scores, sum and gate cost N D each.": linear,
            "additive_cost counts N D once; scores, sum and gate cost as much each.": linear + tokens * width,
            "additive_cost counts three linear layers; to_query, to_key, proj and final are four.": (
                linear * 3 // 4 + mixing
            ),
            "additive_cost counts one linear layer; there are four.": linear // 4 + mixing,
        }
        expect_array(additive(tokens, width), linear + mixing, f"additive_cost{place}", hints=hints)
        mixing = 2 * tokens * tokens * width
        hints = {
            "attention_cost lacks the four linear layers.": mixing,
            "attention_cost counts N N D once; the scores and the mixture cost as much each.": linear + mixing // 2,
            "attention_cost counts three linear layers; query, key, value and the last are four.": (
                linear * 3 // 4 + mixing
            ),
            "attention_cost counts the N N scores but not the D multiplications that each takes.": (
                linear + 2 * tokens * tokens
            ),
            "attention_cost counts 2 N D; every token meets every other, so it is 2 N N D.": linear
            + 2 * tokens * width,
        }
        expect_array(attention(tokens, width), linear + mixing, f"attention_cost{place}", hints=hints)
    hints = {
        "that N is one too large: attention costs twice as much one token earlier.": 444,
        "that N is one too small: attention costs not quite twice as much there.": 442,
        "that is where the mixing alone costs as much as the linear layers; count additive's mixing too.": 440,
        "that is for D = 48; the question is D = 220.": 99,
        "there attention is dearer, but not yet twice as dear.": 2,
    }
    expect_array(answer, 443, "answer", hints=hints)


@check("a whole block of SwiftFormer, equal to the package's own.")
def encoder_block(function: Callable[..., Any]) -> None:
    rng = np.random.default_rng(95)
    channels = 5
    block = swiftformer.SwiftFormerEncoderBlock(swiftformer.SwiftFormerConfig(), channels).astype(np.float64)
    weights = {}
    for name, array in block.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        weights[name] = rng.standard_normal(array.shape)
        if name.endswith("running_var"):
            weights[name] = weights[name] ** 2 + 0.5
    block.load_state_dict(weights)
    x = rng.standard_normal((2, channels, 3, 4))
    given = x.copy()
    answer = function(x, dict(weights))
    truth = block(x)
    expect(np.array_equal(x, given), "x itself was changed; write x = x + ..., not x += ....")
    expect_array(answer, truth, "encoder_block(x, w)", tolerance=1e-9, hints=_mistaken_blocks(block, x))


def _mistaken_blocks(block: Any, x: np.ndarray) -> dict[str, np.ndarray]:
    """Return the outputs of an encoder block with one mistake, by the sentence that describes it."""
    batch, channels, height, width = x.shape
    one, two, local, mlp = block.layer_scale_1, block.layer_scale_2, block.local_representation, block.linear

    def attend(x: np.ndarray) -> np.ndarray:
        tokens = np.ascontiguousarray(x.reshape(batch, channels, -1).swapaxes(1, 2))
        return block.attn(tokens).swapaxes(1, 2).reshape(x.shape)

    def end(mixed: np.ndarray, one: Any = one, two: Any = two) -> np.ndarray:
        return mixed + two * mlp(mixed)

    mixed = local(x)
    attended = attend(mixed)
    whole = mixed + one * attended
    jumbled = block.attn(mixed.reshape(batch, height * width, channels)).reshape(x.shape)
    half = block.attn(np.ascontiguousarray(mixed.reshape(batch, channels, -1).swapaxes(1, 2))).reshape(x.shape)
    l2 = swiftformer.SwiftFormerEncoderBlock(swiftformer.SwiftFormerConfig(attention_norm="l2"), channels)
    l2 = l2.astype(np.float64).load_state_dict(block.state_dict())
    bare = local(x) - x  # the local branch without its input

    def without_norm(x: np.ndarray, approximate: str = "none") -> np.ndarray:
        """Apply the MLP without its norm."""
        return mlp.fc2(ops.gelu(mlp.fc1(x), approximate))

    def without_query(x: np.ndarray) -> np.ndarray:
        """Apply the attention without adding the query back."""
        tokens, attn = np.ascontiguousarray(x.reshape(batch, channels, -1).swapaxes(1, 2)), block.attn
        context, _ = ops.efficient_additive_attention(attn.to_query(tokens), attn.to_key(tokens), attn.w_g)
        return attn.final(attn.proj(context)).swapaxes(1, 2).reshape(x.shape)

    no_scale = x + bare / local.layer_scale
    return {
        "the local representation is missing.": end(x + one * attend(x)),
        "the local representation has an input of its own to be added to: x + layer_scale * ....": end(
            bare + one * attend(bare)
        ),
        "local_representation.layer_scale is missing.": end(no_scale + one * attend(no_scale)),
        "layer_scale_1 is missing.": end(mixed + attended),
        "layer_scale_2 is missing.": whole + mlp(whole),
        "both layer scales are missing.": mixed + attended + mlp(mixed + attended),
        "the two layer scales are swapped: layer_scale_1 goes with the attention.": end(
            mixed + two * attended, two=one
        ),
        "the attention is not added to its input.": end(one * attended),
        "the MLP's result is not added to its input.": two * mlp(whole),
        "the attention is added to the block's input; it should be to the local representation's result.": end(
            x + one * attended
        ),
        "the attention and the MLP stand side by side; the MLP gets what the attention has been added to.": (
            whole + two * mlp(mixed)
        ),
        "the MLP is missing.": whole,
        "the attention is missing.": end(mixed),
        "a plain reshape makes the tokens; it mixes channels and places: use (B, C, N), then swap the axes.": end(
            mixed + one * jumbled
        ),
        "the tokens are reshaped to a map without swapping the axes back first.": end(mixed + one * half),
        "the query is not added back between attn.proj and attn.final.": end(mixed + one * without_query(mixed)),
        "linear.norm1 is missing in front of the MLP.": whole + two * without_norm(whole),
        "the MLP's GELU is the approximate one, with tanh; leave out the argument.": (
            whole + two * without_norm(mlp.norm1(whole), "tanh")
        ),
        "the MLP lacks its GELU.": whole + two * mlp.fc2(mlp.fc1(mlp.norm1(whole))),
        "there is no norm before the attention.": end(mixed + one * attend(mlp.norm1(mixed))),
        'those are the weights of the "l2" form; the default is the released one.': l2(x),
    }
