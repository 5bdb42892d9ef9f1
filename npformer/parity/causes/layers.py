"""Mistakes in the stock layers: activations, norms, linear layers, average pooling."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from ... import ops
from ...nn import Activation, AvgPool2d, BatchNorm2d, Conv2d, LayerNorm, Linear
from ...ops import ACT2FN, Array
from ...ops.window import pad2d
from ..site import Alternative, Site
from .rule import Absent, Rules, as_it_is, instead

EPSILONS = (1e-3, 1e-4, 1e-5, 1e-6, 0.0)  # TensorFlow's default, another, PyTorch's, Flax's, and none
NEGLIGIBLE = 1e-9  # an eps that changes no digit of a variance of order one


def hard_sigmoid(x: Array) -> Array:
    """Compute PyTorch's piecewise linear sigmoid: min(max(x + 3, 0), 6) / 6."""
    return ops.relu6(x + 3) / 6


def keras_hard_sigmoid(x: Array) -> Array:
    """Compute the steeper hard sigmoid of Keras before version 3: min(max(x / 5 + 1/2, 0), 1)."""
    return np.clip(x * 0.2 + 0.5, 0, 1)


def hard_swish(x: Array) -> Array:
    """Multiply the input by PyTorch's hard sigmoid."""
    return x * hard_sigmoid(x)


def elu(x: Array) -> Array:
    """Apply the exponential linear unit: x where positive, exp(x) - 1 elsewhere."""
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def steep_leaky_relu(x: Array) -> Array:
    """Apply TensorFlow's leaky ReLU, of slope 0.2."""
    return ops.leaky_relu(x, 0.2)


Function = Callable[[Array], Array]
# Key, name, function. Functions in ops.ACT2FN are taken from there: the module's own is recognised by identity.
FUNCTIONS: tuple[tuple[str, str, Function], ...] = (
    ("gelu-tanh", "GELU by its tanh approximation", ACT2FN["gelu_new"]),
    ("gelu-sigmoid", "GELU as x * sigmoid(1.702 x)", ACT2FN["quick_gelu"]),
    ("act-gelu", "GELU", ACT2FN["gelu"]),
    ("act-relu", "ReLU", ACT2FN["relu"]),
    ("act-silu", "SiLU (swish)", ACT2FN["silu"]),
    ("act-hardswish", "hard-swish", hard_swish),
    ("act-relu6", "ReLU6", ACT2FN["relu6"]),
    ("act-leaky-relu", "leaky ReLU of slope 0.01", ACT2FN["leaky_relu"]),
    ("act-leaky-relu", "leaky ReLU of slope 0.2", steep_leaky_relu),
    ("act-hardsigmoid", "hard sigmoid, relu6(x + 3) / 6,", hard_sigmoid),
    ("act-hardsigmoid", "Keras's hard sigmoid, clip(0.2 x + 0.5),", keras_hard_sigmoid),
    ("act-tanh", "tanh", ACT2FN["tanh"]),
    ("act-sigmoid", "sigmoid", ACT2FN["sigmoid"]),
    ("act-mish", "mish", ACT2FN["mish"]),
    ("act-selu", "SELU", ACT2FN["selu"]),
    ("act-elu", "ELU", elu),
)
IDEMPOTENT = (ACT2FN["relu"], ACT2FN["relu6"], ACT2FN["linear"])  # twice equals once


def activation(site: Site, module: Activation) -> Iterator[Alternative]:
    """Yield another function, none, the same twice, or before the batch norm instead of after it."""
    (x,), own = site.inputs, module.function
    title = function_name(own)
    for key, name, function in FUNCTIONS:
        if function is not own:
            yield instead(key, f"{name} instead of {title}", function, x)
    if own not in IDEMPOTENT:
        yield instead("act-twice", f"{title} applied twice", lambda: own(own(x)))
    if own is not ACT2FN["linear"]:
        yield as_it_is("act-missing", f"no activation where {title} belongs", x)
        norm, before = _norm_before(site)
        text = f"{title} before the batch norm, not after it"
        yield instead("bn-after-activation", text, lambda: norm.forward(own(before)))


def function_name(function: Function) -> str:
    """Return the name of an activation: that in `ops.ACT2FN`, or its own."""
    known = (name for key, name, candidate in FUNCTIONS if candidate is function)
    return next(known, getattr(function, "__name__", "the activation").lstrip("_"))


def _norm_before(site: Site) -> tuple[BatchNorm2d, Array]:
    """Return the batch norm right before a site, and its input. Raises Absent."""
    names = list(site.used)[-2:]
    norm = site.modules.get(names[-1]) if len(names) == 2 else None
    if not isinstance(norm, BatchNorm2d):
        raise Absent("batch norm")
    return norm, site.used[names[0]]


def batch_norm(site: Site, norm: BatchNorm2d) -> Iterator[Alternative]:
    """Yield another eps, parts omitted, the norm applied twice or not at all, or with the batch's own statistics."""
    (x,), eps = site.inputs, norm.eps
    mean, var, weight, bias = norm.running_mean, norm.running_var, norm.weight, norm.bias

    def with_variance(variance: Array, added: float = 0.0) -> Array:
        return ops.batch_norm(x, mean, variance, weight, bias, added)

    for other in _other_epsilons(eps):
        text = f"batch norm with eps {_shown(other)} instead of {eps:g}"
        yield instead("bn-eps", text, with_variance, var, other)
    if eps > NEGLIGIBLE:
        text = f"eps {eps:g} added to the deviation, not to the variance under the root"
        yield instead("bn-eps-outside-root", text, lambda: with_variance((np.sqrt(var) + eps) ** 2))
    yield as_it_is("bn-missing", "batch norm left out (or weights taken as if it were folded into them)", x)
    text = "batch norm applied twice (folded into the weights, then once more)"
    yield instead("bn-twice", text, lambda: norm.forward(norm.forward(x)))
    text = "mean and variance of the batch (training mode) instead of the running ones"
    yield instead("bn-batch-statistics", text, _with_batch_statistics, x, norm)
    text = "batch norm without its weight and bias"
    yield instead("bn-no-affine", text, ops.batch_norm, x, mean, var, None, None, eps)
    yield instead("bn-no-bias", "batch norm without its bias", ops.batch_norm, x, mean, var, weight, None, eps)
    text = "batch norm without subtracting the running mean"
    yield instead("bn-no-mean", text, ops.batch_norm, x, np.zeros_like(mean), var, weight, bias, eps)
    text = "divided by the variance plus eps instead of its root"
    yield instead("bn-variance-for-deviation", text, lambda: with_variance((var + eps) ** 2))
    before = site.modules.get(list(site.used)[-1]) if site.used else None
    if isinstance(before, Conv2d) and before.bias is not None:
        offset = before.bias[:, None, None]
        text = "batch norm folded into the convolution, but its bias not scaled with the weights"
        yield instead("bn-fold-bias-unscaled", text, lambda: norm.forward(x - offset) + offset)


def _with_batch_statistics(x: Array, norm: BatchNorm2d) -> Array:
    mean, var = x.mean((0, 2, 3), dtype=np.float64), x.var((0, 2, 3), dtype=np.float64)
    return ops.batch_norm(x, mean.astype(x.dtype), var.astype(x.dtype), norm.weight, norm.bias, norm.eps)


def _other_epsilons(own: float) -> list[float]:
    return [eps for eps in EPSILONS if abs(eps - own) > NEGLIGIBLE]


def _shown(eps: float) -> str:
    return f"{eps:g}" if eps else "0 (or next to it)"


def layer_norm(site: Site, norm: LayerNorm) -> Iterator[Alternative]:
    """Yield another eps or variance, parts omitted, other axes, or no norm."""
    (x,), eps, width = site.inputs, norm.eps, norm.weight.size

    def affine(normalised: Array) -> Array:
        return normalised * norm.weight + norm.bias

    for other in _other_epsilons(eps):
        text = f"layer norm with eps {_shown(other)} instead of {eps:g}"
        yield instead("ln-eps", text, ops.layer_norm, x, (width,), norm.weight, norm.bias, other)
    if eps > NEGLIGIBLE:
        text = f"eps {eps:g} added to the deviation, not to the variance under the root"
        yield instead("ln-eps-outside-root", text, lambda: affine(_standardised(x, -1, eps, eps_outside=True)))
    if width > 1:
        text = f"variance divided by {width - 1} (n - 1) instead of {width}"
        yield instead("ln-unbiased", text, lambda: affine(_standardised(x, -1, eps, correction=1)))
    yield as_it_is("ln-missing", "layer norm left out", x)
    text = "layer norm without its weight and bias"
    yield instead("ln-no-affine", text, ops.layer_norm, x, (width,), None, None, eps)
    text = "layer norm without its bias"
    yield instead("ln-no-bias", text, ops.layer_norm, x, (width,), norm.weight, None, eps)
    text = "RMS norm: the mean is not subtracted"
    yield instead("ln-rms", text, lambda: affine(_standardised(x, -1, eps, centred=False)))
    if x.shape[1] > 1:
        text = "normalised over the tokens instead of over the channels"
        yield instead("ln-wrong-axis", text, lambda: affine(_standardised(x, 1, eps)))
        text = "normalised over tokens and channels together"
        yield instead("ln-wrong-axis", text, lambda: affine(_standardised(x, (1, 2), eps)))


def _standardised(
    x: Array,
    axes: int | tuple[int, ...],
    eps: float,
    *,
    centred: bool = True,
    correction: int = 0,
    eps_outside: bool = False,
) -> Array:
    """Compute (x - mean) / sqrt(var + eps) over any axes, with one of the usual mistakes; summed in float64."""
    wide = x.astype(np.float64)
    out = wide - wide.mean(axes, keepdims=True) if centred else wide
    count = x.size / np.square(out).sum(axes).size
    variance = np.square(out).sum(axes, keepdims=True) / (count - correction)
    deviation = np.sqrt(variance) + eps if eps_outside else np.sqrt(variance + eps)
    return (out / deviation).astype(x.dtype)


def linear(site: Site, layer: Linear) -> Iterator[Alternative]:
    """Yield the layer without bias, with the matrix transposed or flipped, or omitted."""
    (x,), (outputs, inputs) = site.inputs, layer.weight.shape
    if layer.bias is not None:
        yield instead("linear-no-bias", "the linear layer's bias left out", ops.linear, x, layer.weight)
    if min(inputs, outputs) > 1:
        text = "the weight (out, in) read as (in, out) as it lies, without transposing it"
        turned = layer.weight.reshape(inputs, outputs).T
        yield instead("linear-weight-transposed", text, ops.linear, x, turned, layer.bias)
    if inputs == outputs:
        yield as_it_is("linear-missing", "the linear layer left out", x)


def average_pool(site: Site, pool: AvgPool2d) -> Iterator[Alternative]:
    """Yield pooling with padded zeros counted, or with another statistic of the window."""
    (x,), kernel, pad = site.inputs, pool.kernel_size, pool.padding
    if pad > 0:
        counted = not pool.count_include_pad
        text = f"padded zeros {'' if counted else 'not '}counted as pixels at the border (count_include_pad={counted})"
        yield instead("pool-include-pad", text, ops.avg_pool2d, x, kernel, pool.stride, pad, False, counted)
    if kernel == 1:
        return
    text = "the maximum of each window instead of its mean"
    yield instead("pool-max", text, ops.max_pool2d, x, kernel, pool.stride, pad)
    if pad > 0:
        text = "the maximum of each window, padded zeros included, instead of the mean"
        around = ((pad, pad), (pad, pad))
        yield instead("pool-max", text, lambda: ops.max_pool2d(pad2d(x, around), kernel, pool.stride))
    text = "the sum of each window instead of its mean"
    yield instead("pool-sum", text, ops.avg_pool2d, x, kernel, pool.stride, pad, False, True, 1)


RULES: Rules = {
    (Activation, ""): (activation,),
    (BatchNorm2d, ""): (batch_norm,),
    (LayerNorm, ""): (layer_norm,),
    (Linear, ""): (linear,),
    (AvgPool2d, ""): (average_pool,),
}
