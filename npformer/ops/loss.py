"""Losses: the error of a prediction as one number."""

from __future__ import annotations

from numbers import Integral

import numpy as np

from ._check import Array, check_float, check_shape
from .activation import log_softmax


def cross_entropy(
    input: Array,
    target: np.ndarray,
    weight: Array | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Array:
    """Return minus the log-probability of the right class: (B, K, ...), (B, ...) -> a scalar, or (B, ...) unreduced.

    loss = -w[t] * log softmax(input)[t]; "mean" divides the sum by the sum of the w[t] that counted.

    `target` holds class indices in [0, K), `ignore_index` for elements without a label, or, as floats shaped like
    `input`, a probability per class. `label_smoothing` mixes that much of the uniform distribution into the target.

    Raises TypeError, ValueError or IndexError (a class index out of range).
    Source: `torch.nn.functional.cross_entropy`.
    """
    check_float(input=input, weight=weight, optional=("weight",))
    if input.ndim == 1:
        out = cross_entropy(input[None], np.asarray(target)[None], weight, ignore_index, reduction, label_smoothing)
        return out.reshape(())
    _check_cross_entropy(input, target, ignore_index, label_smoothing)
    classes = input.shape[1]
    check_shape("weight", weight, (classes,), "one number per class")
    log_probs = np.moveaxis(log_softmax(input, dim=1), 1, -1)  # (B, ..., K)
    weights = np.ones(classes, input.dtype) if weight is None else weight
    if np.issubdtype(target.dtype, np.floating):
        check_shape("target", target, input.shape, "a probability per class, shaped like input")
        probs = np.moveaxis(target, 1, -1).astype(input.dtype)
        loss = -(_smooth(probs, label_smoothing) * weights * log_probs).sum(-1)
        return _reduce(loss, reduction, divisor=loss.size)
    check_shape("target", target, log_probs.shape[:-1], "one class number per row of input")
    counted, chosen = _read_classes(target, ignore_index, classes)
    probs = _smooth((chosen[..., None] == np.arange(classes)).astype(input.dtype), label_smoothing)
    # np.where, not a product: 0 * -inf would turn an unlabelled class into NaN.
    with np.errstate(invalid="ignore"):
        terms = np.where(probs > 0, probs * weights * log_probs, 0)
    loss = np.where(counted, -terms.sum(-1), 0).astype(input.dtype)
    return _reduce(loss, reduction, divisor=(weights[chosen] * counted).sum(dtype=input.dtype))


def mse_loss(input: Array, target: Array, reduction: str = "mean") -> Array:
    """Return the squared error, (input - target)^2, averaged, summed or, with reduction "none", element by element.

    Raises TypeError or ValueError; unlike torch, which warns and broadcasts, shapes must be equal.
    Source: `torch.nn.functional.mse_loss`.
    """
    check_float(input=input, target=target)
    check_shape("target", target, input.shape, "the shape of input")
    return _reduce(np.square(input - target), reduction, divisor=input.size)


def binary_cross_entropy_with_logits(
    input: Array,
    target: Array,
    weight: Array | None = None,
    reduction: str = "mean",
    pos_weight: Array | None = None,
) -> Array:
    """Return the binary cross-entropy per element: -[p * t * log s(x) + (1 - t) * log(1 - s(x))] * w, s the sigmoid.

    Written with -log s(x) = max(-x, 0) + log(1 + exp(-|x|)), which never overflows, and -log(1 - s(x)) = x - log s(x).
    `target` in [0, 1]; `pos_weight` (p) raises the cost of a false negative. Shapes of input and target must be equal;
    both weights may be smaller and are broadcast.

    Raises TypeError or ValueError. Source: `torch.nn.functional.binary_cross_entropy_with_logits`.
    """
    check_float(input=input, target=target, weight=weight, pos_weight=pos_weight, optional=("weight", "pos_weight"))
    check_shape("target", target, input.shape, "the shape of input")
    _check_spread("weight", weight, input.shape)
    _check_spread("pos_weight", pos_weight, input.shape)
    minus_log_yes = np.maximum(-input, 0) + np.log1p(np.exp(-np.abs(input)))  # -log s(x)
    price = 1 if pos_weight is None else (pos_weight - 1) * target + 1  # p * t + (1 - t), for both logarithms together
    with np.errstate(invalid="ignore"):  # an infinite input and a target of 0 or 1: NaN, as in torch
        loss = (1 - target) * input + price * minus_log_yes
    if weight is not None:
        loss = loss * weight
    return _reduce(loss, reduction, divisor=loss.size)


def _check_cross_entropy(input: Array, target: np.ndarray, ignore_index: int, label_smoothing: float) -> None:
    """Refuse, among others, a target that is neither class indices nor probabilities.

    Raises TypeError or ValueError.
    """
    if input.ndim == 0:
        raise ValueError("input must be laid out as (B, K, ...) or (K,), got shape ()")
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing must lie between 0 and 1, got {label_smoothing}")
    if not isinstance(target, np.ndarray):
        raise TypeError(f"target must be a NumPy array of class numbers or probabilities, got {type(target).__name__}")
    floats = np.issubdtype(target.dtype, np.floating)
    if not floats and not np.issubdtype(target.dtype, np.integer):
        raise TypeError(f"target must hold class numbers or probabilities, got dtype {target.dtype}")
    if not isinstance(ignore_index, Integral):
        raise TypeError(f"ignore_index must be a whole number, got {ignore_index!r}")
    if floats and ignore_index >= 0:
        raise ValueError(f"ignore_index must stay negative where target holds probabilities, got {ignore_index}")


def _read_classes(target: np.ndarray, ignore_index: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return which targets count, and their class indices, 0 for the others. Raises IndexError."""
    counted = target != ignore_index
    chosen = np.where(counted, target, 0)
    if chosen.size and (chosen.min() < 0 or chosen.max() >= classes):
        raise IndexError(f"target must hold class numbers from 0 to {classes - 1} or {ignore_index}, got {target}")
    return counted, chosen


def _check_spread(name: str, array: Array | None, shape: tuple[int, ...]) -> None:
    """Refuse an array that does not broadcast to `shape`. Raises ValueError."""
    try:
        fits = array is None or np.broadcast_shapes(array.shape, shape) == shape
    except ValueError:
        fits = False
    if array is not None and not fits:
        raise ValueError(f"{name} must broadcast to {shape} (the shape of input), got {array.shape}")


def _smooth(probs: Array, amount: float) -> Array:
    """Mix a uniform distribution into rows of probabilities: p -> (1 - a) * p + a / K."""
    return probs if amount == 0 else probs * (1 - amount) + amount / probs.shape[-1]


def _reduce(loss: Array, reduction: str, divisor: Array | float) -> Array:
    """Finish a loss as torch does: "none", "sum", or "mean" over `divisor` (NaN where nothing counted)."""
    if reduction == "none":
        return np.asarray(loss)
    if reduction not in ("mean", "sum"):
        raise ValueError(f'reduction must be "none", "mean" or "sum", got {reduction!r}')
    total = loss.sum()
    if reduction == "mean":
        with np.errstate(invalid="ignore", divide="ignore"):
            total = total / loss.dtype.type(divisor)
    return np.asarray(total, loss.dtype)
