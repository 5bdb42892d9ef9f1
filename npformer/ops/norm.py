"""Normalisation: shift and scale so that values have a known mean and spread."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral

import numpy as np

from ._check import Array, check_axis, check_float, check_shape


def batch_norm(
    x: Array,
    running_mean: Array,
    running_var: Array,
    weight: Array | None = None,
    bias: Array | None = None,
    eps: float = 1e-5,
) -> Array:
    """Normalise each channel with statistics gathered in training: (B, C, ...) -> (B, C, ...).

    y = (x - running_mean) / sqrt(running_var + eps) * weight + bias

    At inference mean and variance are constants, so this is one multiplication and one addition per channel (which is
    why it folds into the convolution before it): y = x * scale + shift with
    scale = weight / sqrt(running_var + eps) and shift = bias - running_mean * scale.

    Raises TypeError or ValueError. Source: Ioffe, Szegedy 2015, "Batch Normalization", algorithm 2.
    """
    optional = ("weight", "bias")
    check_float(x=x, running_mean=running_mean, running_var=running_var, weight=weight, bias=bias, optional=optional)
    if eps < 0:
        raise ValueError(f"eps must not be negative, got {eps}")
    if x.ndim < 2:
        raise ValueError(f"x must be laid out as (B, C, ...), got shape {x.shape}")
    channels = x.shape[1]
    named = {"running_mean": running_mean, "running_var": running_var, "weight": weight, "bias": bias}
    for name, array in named.items():
        check_shape(name, array, (channels,), "one number per channel of x")
    # One number per channel: float64 costs nothing here, and each is then rounded only once.
    scale = 1 / np.sqrt(running_var.astype(np.float64) + eps)
    if weight is not None:
        scale = weight * scale
    shift = -running_mean * scale if bias is None else bias - running_mean * scale
    per_channel = (channels,) + (1,) * (x.ndim - 2)
    out = x * scale.astype(x.dtype).reshape(per_channel)
    out += shift.astype(x.dtype).reshape(per_channel)
    return out


def layer_norm(
    x: Array,
    normalized_shape: Sequence[int],
    weight: Array | None = None,
    bias: Array | None = None,
    eps: float = 1e-5,
) -> Array:
    """Normalise each token over its own channels: (..., *normalized_shape) -> the same shape.

    y = (x - mean) / sqrt(var + eps) * weight + bias, with mean and var taken over the last axes of this very input.

    The variance is the biased one (divided by n, not n - 1). Because the statistics depend on the input, layer norm
    cannot be folded into its neighbours as batch norm can.

    Raises TypeError or ValueError. Source: Ba, Kiros, Hinton 2016, "Layer Normalization".
    """
    check_float(x=x, weight=weight, bias=bias, optional=("weight", "bias"))
    if not isinstance(normalized_shape, Sequence) or not all(isinstance(n, Integral) for n in normalized_shape):
        raise TypeError(f"normalized_shape must be a sequence of whole numbers, got {normalized_shape!r}")
    shape = tuple(normalized_shape)
    if not shape or x.shape[-len(shape) :] != shape:
        raise ValueError(f"x must end in normalized_shape = {shape}, got shape {x.shape}")
    check_shape("weight", weight, shape, "normalized_shape")
    check_shape("bias", bias, shape, "normalized_shape")
    axes = tuple(range(-len(shape), 0))
    # Sums over hundreds of numbers lose digits in float32: sum in float64, then round once.
    out = x - x.mean(axes, keepdims=True, dtype=np.float64).astype(x.dtype)
    variance = np.square(out).mean(axes, keepdims=True, dtype=np.float64)
    out *= (1 / np.sqrt(variance + eps)).astype(x.dtype)
    if weight is not None:
        out *= weight
    if bias is not None:
        out += bias
    return out


def normalize(x: Array, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Array:
    """Scale vectors along `dim` to length one: y = x / max(|x|_p, eps), same shape.

    |x|_p = (sum |x|^p)^(1/p); `eps` keeps a zero vector at zero instead of dividing by nothing.

    Raises TypeError or IndexError. Source: `torch.nn.functional.normalize`.
    """
    check_float(x=x)
    check_axis("dim", dim, x.ndim)
    if p == 2:
        length = np.sqrt(np.square(x).sum(dim, keepdims=True, dtype=np.float64)).astype(x.dtype)
    else:
        length = np.linalg.norm(x, ord=p, axis=dim, keepdims=True).astype(x.dtype)
    return x / np.maximum(length, x.dtype.type(eps))
