"""Checks of lesson 6: attention with learned biases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from course.exercises import Wrong, check, expect, expect_array
from npformer import ops
from npformer.models.efficientformer import EfficientFormerConfig, EfficientFormerSelfAttention

Function = Callable[..., Any]


@check("queries find keys, rows sum to 1, and large scores do no harm.")
def attention(function: Function) -> None:
    query, key = np.random.default_rng().standard_normal((2, 7, 3))
    value = np.random.default_rng().standard_normal((7, 5))
    scores, scale = query @ key.T, 3**-0.5
    truth, weights = _one_head(query, key, value), np.exp(scores * scale)
    hints = {
        "the scores are not divided by the square root of d.": ops.softmax(scores) @ value,
        "the scores are divided by d; take the square root first.": ops.softmax(scores / 3) @ value,
        "the scores are divided by the square root of e, the width of a value; it should be that of a query.": (
            ops.softmax(scores * 5**-0.5) @ value
        ),
        "the scores are divided by the square root of N, the number of tokens; d is the width of a query.": (
            ops.softmax(scores * 7**-0.5) @ value
        ),
        "the scores are multiplied by the square root of d; divide by it.": ops.softmax(scores / scale) @ value,
        "softmax went down the columns. A row is one query, and its probabilities over the keys sum to 1.": (
            ops.softmax(scores * scale, dim=0) @ value
        ),
        "softmax was taken over all scores at once; every row must sum to 1 of its own.": (
            _over_all(scores * scale) @ value
        ),
        "query and key have changed places: row i must belong to query i.": _one_head(key, query, value),
        "the softmax is missing: these are the raw scores times the values.": scores * scale @ value,
        "the exponentials are not divided by their sum.": weights @ value,
        "each exponential must be divided by its own row's sum: keepdims=True keeps the sums a column.": (
            (weights / weights.sum(axis=-1)) @ value
        ),
    }
    answer = function(query.copy(), key.copy(), value.copy())
    expect(np.shape(answer) != (7, 7), "an (N, N) array is what the probabilities are; multiply it with the values.")
    expect_array(answer, truth, "the context", hints=hints)
    with np.errstate(all="ignore"):
        large = np.asarray(function(query * 3000, key, value))
    expect(
        bool(np.isfinite(large).all()),
        "small scores come out right, but scores in the thousands give NaN or infinity: exp overflows. Take each "
        "row's largest score away first.",
    )
    expect_array(large, _one_head(query * 3000, key, value), "the context of large scores", tolerance=1e-8)


@check("every pair of tokens finds its offset, on grids that are not square too.")
def bias_index(function: Function) -> None:
    height, width = (int(n) for n in np.random.default_rng().permutation([3, 4, 5])[:2])
    count = height * width
    y, x = np.divmod(np.arange(count), width)
    down, across = y[:, None] - y, x[:, None] - x
    absolute = np.abs(down) * width + np.abs(across)
    by_columns = np.divmod(np.arange(count), height)
    hints = {
        "rows are multiplied by the height; a row of offsets has as many entries as the grid is wide.": (
            np.abs(down) * height + np.abs(across)
        ),
        "|dx| and |dy| have changed places: offsets are numbered row by row.": np.abs(across) * width + np.abs(down),
        "offsets are numbered column by column here; number them row by row.": np.abs(across) * height + np.abs(down),
        "the differences have kept their signs; take absolute values before you combine them.": down * width + across,
        "the absolute value was taken of the sum; take it of each difference before you combine them.": np.abs(
            down * width + across
        ),
        "tokens are numbered column by column here; number them row by row.": (
            np.abs(by_columns[1][:, None] - by_columns[1]) * width + np.abs(by_columns[0][:, None] - by_columns[0])
        ),
        "this is the sum |dy| + |dx|, which gives different offsets the same entry: multiply |dy| by the width.": (
            np.abs(down) + np.abs(across)
        ),
        "token p is in row p // width and column p % width; your code divides by the height.": (
            np.abs(by_columns[0][:, None] - by_columns[0]) * width + np.abs(by_columns[1][:, None] - by_columns[1])
        ),
    }
    answer = function(height, width)
    what = "bias_index" if answer is None or answer is Ellipsis else f"bias_index({height}, {width})"
    expect_array(answer, absolute, what, hints=hints)
    expect(
        np.asarray(answer).dtype.kind in "iu",
        "the numbers are right, but they are floats: an array takes only whole numbers as an index.",
    )


@check("a table for each head, spread over all pairs, is a filter of its own.")
def bias_only(function: Function) -> None:
    rng = np.random.default_rng()
    table, value = rng.standard_normal((3, 6)), rng.standard_normal((2, 3, 6, 4))
    index = rng.permutation(6)[ops.attention_bias_index((2, 3))]
    bias = table[:, index]
    one_way = rng.integers(0, 6, (6, 6))  # an index that distinguishes query from key
    hints = {
        "the softmax is missing: rows of the bias must become probabilities first.": bias @ value,
        "softmax went over the tokens that ask; it belongs to the last axis, those that are asked.": (
            ops.softmax(bias, dim=1) @ value
        ),
        "softmax went over the heads; it belongs to the last axis, the tokens that are asked.": (
            ops.softmax(bias, dim=0) @ value
        ),
        "softmax was taken of the table; gather first, for each row of pairs must sum to 1.": (
            ops.softmax(table)[:, index] @ value
        ),
    }
    answer = function(table, index, value)
    expect(
        np.shape(answer) != (3, 6, 6), "(h, N, N) is the shape of the probabilities; multiply them with the values."
    )
    expect_array(answer, ops.softmax(bias) @ value, "the context", hints=hints)
    transposed = {
        "the index is transposed: row p belongs to the token that asks.": ops.softmax(table[:, one_way.T]) @ value
    }
    expect_array(
        function(table, one_way, value), ops.softmax(table[:, one_way]) @ value, "the context", hints=transposed
    )


@check("each head has its own query, key and value, token by token.")
def split_heads(function: Function) -> None:
    batch, tokens, heads, d, e = 2, 5, 3, 2, 4
    qkv = np.random.default_rng().standard_normal((batch, tokens, heads * (2 * d + e)))
    parted = qkv.reshape(batch, tokens, heads, 2 * d + e)
    truth = np.split(parted.swapaxes(1, 2), [d, 2 * d], axis=-1)
    answer = function(qkv.copy(), heads, d)
    if answer is None or answer is Ellipsis:
        raise Wrong("split_heads gives nothing back yet; return a tuple of query, key and value.")
    expect(
        isinstance(answer, (tuple, list)) and len(answer) == 3,
        "return three arrays: query, key and value, in a tuple.",
    )
    not_swapped = [part.swapaxes(1, 2) for part in truth]
    torn = np.split(qkv.reshape(batch, heads, tokens, -1), [d, 2 * d], axis=-1)
    blocks = [
        part.reshape(batch, tokens, heads, -1).swapaxes(1, 2)
        for part in np.split(qkv, [heads * d, 2 * heads * d], axis=-1)
    ]
    heads_last = np.split(qkv.reshape(batch, tokens, 2 * d + e, heads).transpose(0, 3, 1, 2), [d, 2 * d], axis=-1)
    for number, name in enumerate(("query", "key", "value")):
        hints = {
            "the reshape to (B, h, N, ...) tears tokens apart: reshape to (B, N, h, ...) and swap two axes.": torn[
                number
            ],
            "all queries are taken to come first, then all keys, then all values; here they come head by head.": (
                blocks[number]
            ),
            "the heads are taken to vary fastest; reshape to (B, N, h, 2d + e), heads before their numbers.": (
                heads_last[number]
            ),
            "query and key have changed places: the query comes first.": truth[1 - number] if number < 2 else [],
        }
        got = np.asarray(answer[number])
        expect(
            got.shape != not_swapped[number].shape,
            f"the {name} is (B, N, h, ...): swap the axes of tokens and heads.",
        )
        expect_array(got, truth[number], f"the {name}", hints=hints)


@check("this is the token mixer of EfficientFormer's last stage, built from its weights.")
def attention_layer(function: Function) -> None:
    rng = np.random.default_rng()
    config = EfficientFormerConfig(
        depths=[1], hidden_sizes=[6], downsamples=[False], dim=6, key_dim=3, num_attention_heads=2, attention_ratio=2,
        resolution=3, num_meta3d_blocks=1,
    )  # fmt: skip
    layer = EfficientFormerSelfAttention(config).astype(np.float64)
    layer.load_state_dict({n: rng.standard_normal(a.shape) for n, a in layer.state_dict().items() if "idxs" not in n})
    x = rng.standard_normal((2, 9, 6))
    truth, _ = layer(x)

    def called(*inputs: Any) -> None:
        raise Wrong("this calls the module itself; compute the result from its arrays.")

    parts = np.split(layer.qkv(x).reshape(2, 9, 2, 12).swapaxes(1, 2), [3, 6], axis=-1)
    bias = layer.attention_biases[:, layer.attention_bias_idxs]

    def result(bias: np.ndarray = bias, scale: float | None = None) -> np.ndarray:
        context, _ = ops.biased_attention(*parts, bias, scale)
        return context.swapaxes(1, 2).reshape(2, 9, 12)  # (B, N, h * e)

    weight = layer.projection.weight
    torn = ops.biased_attention(*parts, bias)[0].reshape(2, 9, 12)
    hints = {
        "the bias is missing.": layer.projection(result(bias * 0)),
        "the scores are not divided by the square root of d.": layer.projection(result(scale=1.0)),
        "the bias was divided by the square root of d too; it is added after the division.": layer.projection(
            result(bias / np.sqrt(3))
        ),
        "swap heads and tokens back before you reshape to (B, N, h e): as it is, tokens get mixed up.": (
            layer.projection(torn)
        ),
        "the projection's bias is missing.": result() @ weight.T,
        "the input is added to the result; that is done by the block around this layer.": truth + x,
    }
    layer.forward = called  # type: ignore[method-assign]
    expect(
        np.asarray(function(x, layer)).shape != (2, 9, 12),
        "the result has the shape of the merged heads, (B, N, h e); the projection is missing.",
    )
    expect_array(function(x, layer), truth, "the result", hints=hints)


def _one_head(query: np.ndarray, key: np.ndarray, value: np.ndarray) -> np.ndarray:
    heads = (part[None, None] for part in (query, key, value))
    return ops.biased_attention(*heads, np.zeros((1, len(query), len(query))))[0][0, 0]


def _over_all(scores: np.ndarray) -> np.ndarray:
    return ops.softmax(scores.reshape(-1)).reshape(scores.shape)
