"""The fully connected layer."""

from __future__ import annotations

from ._check import Array, check_float, check_shape


def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """Multiply every vector by one matrix: (..., D), (O, D) -> (..., O).

    y = x @ weight.T + bias

    Raises TypeError or ValueError. Source: `torch.nn.functional.linear`.
    """
    check_float(x=x, weight=weight, bias=bias)
    if weight.ndim != 2:
        raise ValueError(f"weight must be laid out as (O, D), got shape {weight.shape}")
    if x.ndim == 0 or x.shape[-1] != weight.shape[1]:
        raise ValueError(f"x must end in D = {weight.shape[1]} (weight {weight.shape}), got shape {x.shape}")
    check_shape("bias", bias, weight.shape[:1], "one number per output")
    rows = x.reshape(-1, x.shape[-1])  # all leading axes in one tall matrix: one product instead of many
    out = rows @ weight.T
    if bias is not None:
        out += bias
    return out.reshape(*x.shape[:-1], weight.shape[0])
