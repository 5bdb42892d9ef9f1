"""Attention: values weighted by other values. Letters: B batch, h heads, N tokens, d head width, C channels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ._check import Array, check_float, check_rank, check_shape
from .activation import sigmoid, silu, softmax
from .conv import conv2d
from .norm import normalize
from .pool import adaptive_avg_pool2d
from .window import pair

Tap = Callable[[str, Array], Array]


def _untapped(name: str, value: Array) -> Array:
    return value


def attention_bias_index(resolution: int | tuple[int, int]) -> np.ndarray:
    """Return the index of the learned bias for each pair of tokens on an H x W grid: -> (N, N) of int64, N = H*W.

    index[p, q] = |y_p - y_q| * W + |x_p - x_q|, with tokens numbered row by row

    The bias depends on the offset alone, without its sign, so a head needs only N numbers, not N*N: those of
    position (0, 0) and all others. `table[:, index]` gathers the (h, N, N) that is added to the scores.

    Raises TypeError or ValueError.
    Source: Li et al. 2022, "EfficientFormer", equation 5; Graham et al. 2021, "LeViT", section 4.4.
    """
    height, width = pair("resolution", resolution, 1)
    y, x = np.divmod(np.arange(height * width), width)
    return np.abs(y[:, None] - y) * width + np.abs(x[:, None] - x)


def biased_attention(
    query: Array,
    key: Array,
    value: Array,
    bias: Array,
    scale: float | None = None,
    tap: Tap = _untapped,
) -> tuple[Array, Array]:
    """Compute attention with a learned bias on the scores: (B, h, N, d) twice, (B, h, N, e), (h, N, N).

    scores  = query @ key.T * scale + bias        (B, h, N, N)
    probs   = softmax(scores) over the keys       (B, h, N, N), each row sums to 1
    context = probs @ value                       (B, h, N, e), returned with probs

    `scale` is 1/sqrt(d) by default: it keeps the spread of the scores independent of d. `tap(name, value)` sees, and
    may replace, "scores" (before the softmax, bias included) and "probs".

    Raises TypeError or ValueError.
    Source: Vaswani et al. 2017, "Attention Is All You Need", equation 1; the bias: EfficientFormer, equation 5.
    """
    check_float(query=query, key=key, value=value, bias=bias)
    check_rank("query", query, (4,), "(B, h, N, d)")
    check_shape("key", key, query.shape, "the shape of query")
    if value.ndim != 4 or value.shape[:3] != query.shape[:3]:
        raise ValueError(f"value must be laid out as {query.shape[:3]} plus its own width, got shape {value.shape}")
    _, heads, tokens, width = query.shape
    check_shape("bias", bias, (heads, tokens, tokens), "one number per head and pair of tokens")
    scores = query @ key.swapaxes(-1, -2)  # (B, h, N, d) @ (B, h, d, N) -> (B, h, N, N)
    scores *= query.dtype.type(width**-0.5 if scale is None else scale)
    scores += bias
    probs = tap("probs", softmax(tap("scores", scores), dim=-1))
    return probs @ value, probs


def efficient_additive_attention(
    query: Array, key: Array, w_g: Array, attention_norm: str = "ones", tap: Tap = _untapped
) -> tuple[Array, Array]:
    """Compute attention in linear time: sum all queries once, then gate every key: (B, N, D) twice, (D, 1).

    q, k   = query / |query|, key / |key|          each token scaled to length 1
    a      = q @ w_g / sqrt(D)                     (B, N, 1), one score per token
    a      = weights(a)                            see below
    G      = sum over tokens of a * q              (B, 1, D), the one global query
    out    = G * k                                 (B, N, D), returned with q, which SwiftFormer adds back later

    `attention_norm` selects weights(), in which two generations of SwiftFormer differ. "ones": softmax over the last
    axis, which has length one, so every weight is exactly 1 and w_g has no effect (the first release and
    transformers). "l2": a divided by its norm over the tokens (the authors' re-release and timm). `tap(name, value)`
    sees, and may replace, "query" and "key" (normalised), "weights" and "global_query".

    Raises TypeError or ValueError. Source: Shaker et al. 2023, "SwiftFormer", equations 4 to 6.
    """
    check_float(query=query, key=key, w_g=w_g)
    check_rank("query", query, (3,), "(B, N, D)")
    check_shape("key", key, query.shape, "the shape of query")
    check_shape("w_g", w_g, (query.shape[-1], 1), "one number per channel of query")
    if attention_norm not in ("ones", "l2"):
        raise ValueError(f'attention_norm must be "ones" or "l2", got {attention_norm!r}')
    query, key = tap("query", normalize(query, dim=-1)), tap("key", normalize(key, dim=-1))
    scores = query @ w_g * query.dtype.type(query.shape[-1] ** -0.5)  # (B, N, 1)
    weights = tap("weights", softmax(scores, dim=-1) if attention_norm == "ones" else normalize(scores, dim=1))
    # A sum over thousands of tokens: in float64, and rounded once.
    total = (weights * query).sum(axis=1, keepdims=True, dtype=np.float64).astype(query.dtype)
    global_query = tap("global_query", total)  # (B, 1, D)
    return global_query * key, query


def squeeze_excite(
    x: Array,
    reduce_weight: Array,
    reduce_bias: Array,
    expand_weight: Array,
    expand_bias: Array,
    activation: Callable[[Array], Array] = silu,
    tap: Tap = _untapped,
) -> Array:
    """Gate each channel by a factor computed from all channels' means: (B, C, H, W), same shape out.

    squeeze = mean over H, W of x                                   (B, C, 1, 1)
    gate    = sigmoid(expand(activation(reduce(squeeze))))          (B, C, 1, 1), in (0, 1)
    out     = x * gate

    `reduce` (C -> S) and `expand` (S -> C) are 1x1 convolutions with weights (S, C, 1, 1) and (C, S, 1, 1).
    `tap(name, value)` sees, and may replace, "squeeze" and "gate".

    Raises TypeError or ValueError. Source: Hu et al. 2018, "Squeeze-and-Excitation Networks", section 3.
    """
    weights = {"reduce_weight": reduce_weight, "expand_weight": expand_weight}
    check_float(x=x, **weights, reduce_bias=reduce_bias, expand_bias=expand_bias)
    check_rank("x", x, (4,), "(B, C, H, W)")
    channels, inner = x.shape[1], reduce_weight.shape[0] if reduce_weight.ndim else 0
    check_shape("reduce_weight", reduce_weight, (inner, channels, 1, 1), "a 1x1 convolution from the channels of x")
    check_shape("reduce_bias", reduce_bias, (inner,), "one number per squeezed channel")
    check_shape("expand_weight", expand_weight, (channels, inner, 1, 1), "a 1x1 convolution back to the channels of x")
    check_shape("expand_bias", expand_bias, (channels,), "one number per channel of x")
    squeeze = tap("squeeze", adaptive_avg_pool2d(x, 1))
    hidden = activation(conv2d(squeeze, reduce_weight, reduce_bias))
    return x * tap("gate", sigmoid(conv2d(hidden, expand_weight, expand_bias)))
