"""Activations, the non-linearities between the linear layers, and softmax."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ._check import Array, check_axis, check_float

BLOCK = 65536  # elements processed at a time: 256 kB and two temporaries in float32 stay in a core's own cache

# erf(x)/x - 1 in powers of x^2, by Taylor: 2/sqrt(pi) * (-1)^n / (n! (2n + 1)); at |x| = 1 the first omitted term is
# 5e-18. Splitting off the 1 keeps digits: x + x * small rounds better than x * large. The first constant is written
# out because 2/sqrt(pi) - 1 in float64 would lose its last bits.
_ERF_TAYLOR = [0.12837916709551257] + [
    2 / math.sqrt(math.pi) * (-1) ** n / (math.factorial(n) * (2 * n + 1)) for n in range(1, 18)
]

# exp(x^2) erfc(x) as a polynomial in t = (x - 2)/(x + 2) for x in [1, 6]: least squares weighted by exp(-x^2) in
# 60-digit arithmetic, which leaves erfc within 5e-19.
_ERFCX = [
    0.25539567631050575, -0.42718584741395693, 0.24165819424246762, -0.07897858101642838, 0.0037328923982712604,
    0.0069974617838116275, -0.0008471425835760603, -0.000981976345849141, 4.353664461261324e-05,
    0.0001742880414860166, 2.761601244949901e-05, -2.6629284669517883e-05, -1.2658854253120893e-05,
]  # fmt: skip

# P in tanh(x P(x^2)) = erf(x / sqrt(2)): minimax over |x| < 5.6, weighted by the effect on GELU (below 7e-8).
_GELU_TANH = [
    0.7978842163200555, 0.03633428279954951, -3.312944274903338e-05, -5.524032424632653e-05,
    3.969132072987095e-06, -1.3344779974976797e-07, 1.805647382131593e-09,
]  # fmt: skip


def relu(x: Array) -> Array:
    """Clip negative values to zero: max(x, 0), element by element. Source: Nair, Hinton 2010."""
    check_float(x=x)
    return np.maximum(x, 0)


def relu6(x: Array) -> Array:
    """Clip to the range 0 to 6: min(max(x, 0), 6). Source: Krizhevsky 2010, "Convolutional Deep Belief Networks"."""
    check_float(x=x)
    return np.clip(x, 0, 6)


def leaky_relu(x: Array, negative_slope: float = 0.01) -> Array:
    """Scale negative values down: x where positive, negative_slope * x elsewhere. Source: Maas et al. 2013."""
    check_float(x=x)
    return np.where(x > 0, x, x * x.dtype.type(negative_slope))


def sigmoid(x: Array) -> Array:
    """Map to (0, 1): 1 / (1 + exp(-x)). The overflow of exp to infinity for x << 0 gives the right 0."""
    check_float(x=x)
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-x))


def tanh(x: Array) -> Array:
    """Map to (-1, 1): (exp(x) - exp(-x)) / (exp(x) + exp(-x))."""
    check_float(x=x)
    return np.tanh(x)


def silu(x: Array) -> Array:
    """Apply the sigmoid-weighted linear unit, or swish: x / (1 + exp(-x)). Source: Elfwing et al. 2017."""
    check_float(x=x)
    with np.errstate(over="ignore", invalid="ignore"):
        return x / (1 + np.exp(-x))


def selu(x: Array) -> Array:
    """Apply the scaled exponential linear unit: scale * (x if x > 0 else alpha * (exp(x) - 1)).

    Source: Klambauer et al. 2017, "Self-Normalizing Neural Networks".
    """
    check_float(x=x)
    alpha, scale = x.dtype.type(1.6732632423543772), x.dtype.type(1.0507009873554805)
    return scale * np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def mish(x: Array) -> Array:
    """Apply Mish, a smooth function like SiLU: x * tanh(log(1 + exp(x))). Source: Misra 2019, "Mish"."""
    check_float(x=x)
    with np.errstate(invalid="ignore"):
        return x * np.tanh(np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))))


def erf(x: Array) -> Array:
    """Compute the error function: 2/sqrt(pi) * integral from 0 to x of exp(-t^2) dt, element by element, in (-1, 1).

    Near 0 by its Taylor series; from |x| = 1 on, by 1 - exp(-x^2) * (exp(x^2) erfc(x)), whose bracket is smooth enough
    for a short polynomial. Computed in float64 (within 2 ulp) and rounded once to the dtype of x.

    Raises TypeError. Source: Abramowitz, Stegun, chapter 7, formulas 7.1.5 (series) and 7.1.2 (erfc).
    """
    check_float(x=x)
    wide = x.astype(np.float64)
    size = np.minimum(np.abs(wide), 6.0)  # erf(6) is 1 to the last bit; a minimum propagates NaN
    inner = np.clip(wide, -1.0, 1.0)  # the series' range; an infinity beyond would only warn
    near = inner + inner * _polynomial(inner * inner, _ERF_TAYLOR)
    far = 1 - np.exp(-size * size) * _polynomial((size - 2) / (size + 2), _ERFCX)
    return np.where(size < 1, near, np.copysign(far, wide)).astype(x.dtype)


def gelu(x: Array, approximate: str = "none") -> Array:
    """Weight x by the probability that a standard normal variable lies below it: x * (1 + erf(x / sqrt(2))) / 2.

    With approximate="tanh" by the older approximation, x * (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2, with errors
    up to 5e-4.

    In float64 with the erf above. In float32 erf is written as tanh(x P(x^2)), a tanh with a non-linear argument: P, a
    polynomial of degree 6, fits it so closely that the result is within 6e-7 (PyTorch's own float32 kernel: 1.1e-6) at
    a third of the cost. +inf gives inf and -inf NaN (0 * inf), as PyTorch's float64 does.

    Raises TypeError or ValueError. Source: Hendrycks, Gimpel 2016, "Gaussian Error Linear Units".
    """
    check_float(x=x)
    if approximate == "tanh":
        return _blockwise(_gelu_tanh, x)
    if approximate != "none":
        raise ValueError(f'approximate must be "none" or "tanh", got {approximate!r}')
    return _blockwise(_gelu_float32 if x.dtype == np.float32 else _gelu_erf, x)


def quick_gelu(x: Array) -> Array:
    """Approximate GELU cheaply, x * sigmoid(1.702 x). Source: Hendrycks, Gimpel 2016, section 2."""
    check_float(x=x)
    with np.errstate(over="ignore", invalid="ignore"):
        return x / (1 + np.exp(x * x.dtype.type(-1.702)))


def softmax(x: Array, dim: int = -1) -> Array:
    """Convert scores to probabilities along `dim`: exp(x) / sum exp(x), same shape.

    Shifted by the maximum first, exp(x - max): the same quotient, but exp never overflows. A row of -inf gives NaN.

    Raises TypeError or IndexError. Source: `torch.nn.functional.softmax`.
    """
    check_float(x=x)
    check_axis("dim", dim, x.ndim)
    with np.errstate(invalid="ignore", over="ignore"):
        out = np.asarray(x - x.max(dim, keepdims=True, initial=-np.inf))
        np.exp(out, out=out)
        out /= out.sum(dim, keepdims=True)
    return out


def log_softmax(x: Array, dim: int = -1) -> Array:
    """Compute the logarithm of the softmax without overflow: x - max - log(sum exp(x - max)), same shape.

    Raises TypeError or IndexError. Source: `torch.nn.functional.log_softmax`.
    """
    check_float(x=x)
    check_axis("dim", dim, x.ndim)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        out = np.asarray(x - x.max(dim, keepdims=True, initial=-np.inf))
        out -= np.log(np.exp(out).sum(dim, keepdims=True))
    return out


def _polynomial(z: np.ndarray, coefficients: list[float]) -> np.ndarray:
    """Evaluate c0 + z (c1 + z (c2 + ...)) by Horner's rule, in the dtype of z and with a single result array."""
    value = z * z.dtype.type(coefficients[-1])
    for c in coefficients[-2:0:-1]:
        value += z.dtype.type(c)
        value *= z
    value += z.dtype.type(coefficients[0])
    return value


def _gelu_erf(x: Array) -> Array:
    half = x.dtype.type(0.5)
    return half * x * (1 + erf(x * x.dtype.type(math.sqrt(0.5))))


def _gelu_float32(x: Array) -> Array:
    argument = _polynomial(np.minimum(x * x, np.float32(36)), _GELU_TANH)  # tanh is 1 long before |x| = 6
    argument *= x
    np.tanh(argument, out=argument)
    argument += 1
    argument *= np.float32(0.5)  # before the product with x, so that it cannot overflow
    argument *= x
    return argument


def _gelu_tanh(x: Array) -> Array:
    half, root, cubic = (x.dtype.type(v) for v in (0.5, math.sqrt(2 / math.pi), 0.044715))
    return half * x * (1 + np.tanh(root * (x + cubic * x * x * x)))


def _blockwise(function: Callable[[Array], Array], x: Array) -> Array:
    """Apply an element-wise function to cache-sized pieces: a dozen passes over 256 kB instead of over megabytes."""
    flat = np.ascontiguousarray(x).reshape(-1)
    out = np.empty_like(flat)
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, flat.size, BLOCK):
            out[start : start + BLOCK] = function(flat[start : start + BLOCK])
    return out.reshape(x.shape)


def _gelu_new(x: Array) -> Array:
    return gelu(x, approximate="tanh")


def _linear(x: Array) -> Array:
    return x


# The values of a config's `hidden_act`. transformers has most of them under the same names.
ACT2FN: dict[str, Callable[[Array], Array]] = {
    "gelu": gelu,
    "gelu_new": _gelu_new,
    "gelu_fast": _gelu_new,
    "gelu_pytorch_tanh": _gelu_new,
    "gelu_python": gelu,
    "leaky_relu": leaky_relu,
    "linear": _linear,
    "mish": mish,
    "quick_gelu": quick_gelu,
    "relu": relu,
    "relu6": relu6,
    "selu": selu,
    "sigmoid": sigmoid,
    "silu": silu,
    "swish": silu,
    "tanh": tanh,
}
