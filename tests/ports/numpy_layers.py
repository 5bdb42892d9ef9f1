"""The layers, channels last: maps are (B, H, W, C), kernels (kH, kW, in, out), tokens (B, N, D), matrices (in, out).

Every function takes the arithmetic first and the rest by name, and rounds its result once per op.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from .arithmetic import Arithmetic, Array

Pads = tuple[tuple[int, int], tuple[int, int]]

# --- error function: its values at multiples of 1/32, and from the nearest of them a three-point Gauss rule ----------

_STEP = 32
_ERF_AT = np.array([math.erf(k / _STEP) for k in range(-6 * _STEP, 6 * _STEP + 1)])
_GAUSS = [(0.5 - math.sqrt(0.15), 5 / 18), (0.5, 8 / 18), (0.5 + math.sqrt(0.15), 5 / 18)]


def erf(x: Array) -> Array:
    """The error function in float64; beyond 6 it is 1 to the last bit."""
    x = np.clip(x.astype(np.float64), -6, 6)
    nearest = np.rint(np.nan_to_num(x) * _STEP).astype(np.int64)
    start = nearest / _STEP
    way = x - start
    gain = sum(weight * np.exp(-np.square(start + place * way)) for place, weight in _GAUSS)
    return _ERF_AT[nearest + 6 * _STEP] + 2 / math.sqrt(math.pi) * way * gain


# --- activations -----------------------------------------------------------------------------------------------------


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def _gelu_erf(x: Array) -> Array:
    return x.dtype.type(0.5) * x * (1 + erf(x * x.dtype.type(math.sqrt(0.5))).astype(x.dtype))


def _gelu_tanh(x: Array) -> Array:
    bend = x.dtype.type(math.sqrt(2 / math.pi)) * (x + x.dtype.type(0.044715) * x**3)
    return x.dtype.type(0.5) * x * (1 + np.tanh(bend))


def _selu(x: Array) -> Array:
    alpha, scale = x.dtype.type(1.6732632423543772848), x.dtype.type(1.0507009873554804934)
    return scale * np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": _gelu_erf,
    "gelu-tanh": _gelu_tanh,
    "gelu-sigmoid": lambda x: x * _sigmoid(x.dtype.type(1.702) * x),
    "hardsigmoid": lambda x: np.clip(x + 3, 0, 6) / 6,
    "hardswish": lambda x: x * (np.clip(x + 3, 0, 6) / 6),
    "leaky-relu": lambda x: np.where(x > 0, x, x * x.dtype.type(0.01)),
    "linear": lambda x: x,
    "mish": lambda x: x * np.tanh(np.logaddexp(x, x.dtype.type(0))),
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "selu": _selu,
    "sigmoid": _sigmoid,
    "silu": lambda x: x * _sigmoid(x),
    "tanh": np.tanh,
}
# What configs call them, where that is another word.
OTHER_NAMES = {
    "gelu_fast": "gelu-tanh",
    "gelu_new": "gelu-tanh",
    "gelu_python": "gelu",
    "gelu_pytorch_tanh": "gelu-tanh",
    "leaky_relu": "leaky-relu",
    "quick_gelu": "gelu-sigmoid",
    "swish": "silu",
}


def activation(ar: Arithmetic, *, x: Array, function: str) -> Array:
    """A function of that name, element by element."""
    return ar.round(ACTIVATIONS[function](x))


# --- convolution and dense layers ------------------------------------------------------------------------------------


def same_pads(size: tuple[int, ...], kernel: tuple[int, ...], stride: tuple[int, ...]) -> Pads:
    """TensorFlow's SAME: as many zeros as make ceil(size / stride) outputs, the odd one below and to the right."""
    sides = []
    for n, k, s in zip(size, kernel, stride, strict=True):
        total = max((math.ceil(n / s) - 1) * s + k - n, 0)
        sides.append((total // 2, total - total // 2))
    return sides[0], sides[1]


def pads_of(ar: Arithmetic, *, pads: Pads, border: str, **_: object) -> tuple[Pads, str]:
    """Return a convolution's pads and kind of padding ("constant" zeros, "edge", "reflect"), as given."""
    return pads, border


def pad(ar: Arithmetic, *, x: Array, pads: Pads, border: str) -> Array:
    """A map with a border around it."""
    if pads == ((0, 0), (0, 0)):
        return x
    return np.pad(x, ((0, 0), *pads, (0, 0)), mode=border)  # type: ignore[call-overload]


def conv(ar: Arithmetic, *, x: Array, kernel: Array, bias: Array | None, stride: tuple[int, int]) -> Array:
    """A convolution without padding; a kernel (kH, kW, C) holds one filter per channel."""
    rows, columns = kernel.shape[:2]
    windows = sliding_window_view(x, (rows, columns), axis=(1, 2))[:, :: stride[0], :: stride[1]]
    if kernel.ndim == 3:
        taps = [(i, j) for i in range(rows) for j in range(columns)]
        out = ar.add_up(windows[..., i, j] * kernel[i, j] for i, j in taps)
    else:
        patches = np.moveaxis(windows, 3, -1)  # (B, H', W', kH, kW, C)
        shape, length = patches.shape[:3], rows * columns * x.shape[3]
        out = ar.product(patches.reshape(-1, length), kernel.reshape(length, -1)).reshape(*shape, -1)
    return ar.round(out if bias is None else out + bias)


def linear(ar: Arithmetic, *, x: Array, matrix: Array, bias: Array | None) -> Array:
    """A dense layer."""
    out = ar.product(x, matrix)
    return ar.round(out if bias is None else out + bias)


# --- norms -----------------------------------------------------------------------------------------------------------


def batch_norm(
    ar: Arithmetic, *, x: Array, mean: Array, variance: Array, weight: Array, bias: Array, eps: float
) -> Array:
    """Each channel by stored statistics."""
    return ar.round((x - mean) * (weight / np.sqrt(variance + ar.number(eps))) + bias)


def layer_norm(
    ar: Arithmetic,
    *,
    x: Array,
    weight: Array,
    bias: Array,
    eps: float,
    axis: int = -1,
    centred: bool = True,
    missing: int = 0,
) -> Array:
    """Each token by its own statistics; the variance divides by n - `missing`, and `centred` subtracts the mean."""
    if centred:
        x = x - ar.mean(x, axis)
    variance = ar.total(np.square(x), axis) / ar.number(x.shape[axis] - missing)
    return ar.round(x / np.sqrt(variance + ar.number(eps)) * weight + bias)


# --- pooling ---------------------------------------------------------------------------------------------------------


def window_mean(ar: Arithmetic, *, x: Array, size: int, counted: str = "real") -> Array:
    """The mean of size x size windows at stride 1, over "real" pixels, or over "all", the zeros around the map too."""
    sums = _windows_sum(ar, x, size)
    count = _windows_sum(ar, np.ones((1, *x.shape[1:3], 1), x.dtype), size)
    return ar.round(sums / (count if counted == "real" else ar.number(size * size)))


def _windows_sum(ar: Arithmetic, x: Array, size: int) -> Array:
    half = size // 2
    windows = sliding_window_view(np.pad(x, ((0, 0), (half, half), (half, half), (0, 0))), (size, size), axis=(1, 2))
    return ar.add_up(windows[..., i, j] for i in range(size) for j in range(size))


def window_max(ar: Arithmetic, *, x: Array, size: int) -> Array:
    """The largest of size x size windows at stride 1."""
    half = size // 2
    wide = np.pad(x, ((0, 0), (half, half), (half, half), (0, 0)), constant_values=-np.inf)
    return sliding_window_view(wide, (size, size), axis=(1, 2)).max((-2, -1))


def pooled(ar: Arithmetic, *, x: Array, how: str) -> Array:
    """All pixels or tokens as one: (B, ..., C) -> (B, C), by their "mean", "max", "sum" or the "first"."""
    tokens = x.reshape(x.shape[0], -1, x.shape[-1])
    if how == "first":
        return tokens[:, 0]
    if how == "max":
        return tokens.max(1)
    return ar.round((ar.mean if how == "mean" else ar.total)(tokens, 1)[:, 0])


# --- small change ----------------------------------------------------------------------------------------------------


def same(ar: Arithmetic, *, x: Array, **_: object) -> Array:
    """Return the input unchanged."""
    return x


def add(ar: Arithmetic, *, x: Array, branch: Array) -> Array:
    """A branch added to what it started from."""
    return ar.round(x + branch)


def subtract(ar: Arithmetic, *, mean: Array, x: Array) -> Array:
    """Subtract a pixel from the mean of its surroundings."""
    return ar.round(mean - x)


def multiply(ar: Arithmetic, *, x: Array, factor: Array) -> Array:
    """A product: a layer scale, a gate."""
    return ar.round(x * factor)


def flatten(ar: Arithmetic, *, x: Array) -> Array:
    """From map to tokens, row by row."""
    return x.reshape(x.shape[0], -1, x.shape[3])


def unflatten(ar: Arithmetic, *, x: Array, height: int, width: int) -> Array:
    """From tokens to map, row by row."""
    return x.reshape(x.shape[0], height, width, x.shape[2])


def two_heads(ar: Arithmetic, *, first: Array, second: Array) -> Array:
    """The mean of two heads' logits."""
    return ar.round(ar.round(first + second) / 2)


def softmax(ar: Arithmetic, *, x: Array, axis: int = -1) -> Array:
    """Scores to shares of one along an axis."""
    powers = np.exp(x - x.max(axis, keepdims=True))
    return ar.round(powers / ar.total(powers, axis))


# --- EfficientFormer's attention -------------------------------------------------------------------------------------


def split_heads(ar: Arithmetic, *, x: Array, heads: int, key_dim: int, value_dim: int) -> tuple[Array, ...]:
    """(B, N, h (d + d + e)) -> queries, keys (B, h, N, d) and values (B, h, N, e), packed head after head."""
    packed = x.reshape(*x.shape[:2], heads, 2 * key_dim + value_dim).transpose(0, 2, 1, 3)
    return packed[..., :key_dim], packed[..., key_dim : 2 * key_dim], packed[..., 2 * key_dim :]


def offsets(side: int) -> tuple[Array, Array]:
    """Return how many rows and columns each token is below and right of each other: (N, N) twice, with signs."""
    grid = np.indices((side, side)).reshape(2, -1)
    down, right = grid[:, :, None] - grid[:, None, :]
    return down, right


def gather_bias(ar: Arithmetic, *, table: Array, side: int) -> Array:
    """(h, side * side) -> (h, N, N): one number per unsigned offset of two tokens."""
    down, right = offsets(side)
    return table[:, np.abs(down) * side + np.abs(right)]


def scores(ar: Arithmetic, *, query: Array, key: Array, bias: Array | None, scale: float) -> Array:
    """query . key * scale + bias, each step rounded."""
    out = ar.round(ar.round(ar.product(query, key.swapaxes(-1, -2))) * ar.number(scale))
    return out if bias is None else ar.round(out + bias)


def context(ar: Arithmetic, *, probs: Array, value: Array) -> Array:
    """probs @ values, the heads side by side again: (B, N, h e)."""
    return merge_heads(ar.round(ar.product(probs, value)))


def merge_heads(x: Array) -> Array:
    """(B, h, N, e) -> (B, N, h e)."""
    return x.transpose(0, 2, 1, 3).reshape(x.shape[0], x.shape[2], -1)


# --- SwiftFormer's attention -----------------------------------------------------------------------------------------


def unit_length(ar: Arithmetic, *, x: Array, axis: int = -1) -> Array:
    """Vectors along an axis scaled to length one."""
    length = np.sqrt(ar.total(np.square(x), axis))
    return ar.round(x / np.maximum(length, ar.number(1e-12)))


def token_weights(ar: Arithmetic, *, query: Array, w_g: Array, norm: str) -> Array:
    """Return the weight of each token's query in the global one: (B, N, D), (D, 1) -> (B, N, 1)."""
    score = ar.round(ar.round(ar.product(query, w_g)) * ar.number(query.shape[2] ** -0.5))
    if norm == "l2":
        return unit_length(ar, x=score, axis=1)
    return softmax(ar, x=score, axis=1 if norm == "softmax-over-tokens" else 2)


def global_query(ar: Arithmetic, *, weights: Array, query: Array) -> Array:
    """The weighted sum of all tokens' queries: (B, 1, D)."""
    return ar.round(ar.total(ar.round(weights * query), 1))


def gated(ar: Arithmetic, *, vector: Array, key: Array, query: Array) -> Array:
    """Every token's key times the global query."""
    return ar.round(vector * key)


def add_query(ar: Arithmetic, *, x: Array, query: Array, raw: Array) -> Array:
    """The normalised queries added back."""
    return ar.round(x + query)
