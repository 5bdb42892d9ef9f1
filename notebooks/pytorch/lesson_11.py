"""A few ops in float64 and in float32, as PyTorch computes them: what rounding costs in a port made with it."""

from __future__ import annotations

from typing import Any

import numpy as np


def values(torch: Any) -> dict[str, np.ndarray]:
    """Results of four ops in both dtypes, and two ports' mistakes in float32."""
    functional = torch.nn.functional
    rng = np.random.default_rng(11)
    x = rng.standard_normal((20, 40)).astype(np.float32)  # float32 numbers, so that both dtypes get the same input
    weight = rng.standard_normal((20, 40)).astype(np.float32)
    single, exact = torch.from_numpy(x), torch.from_numpy(x.astype(np.float64))
    matrix = torch.from_numpy(weight)
    return {
        "x": x,
        "weight": weight,
        "linear": functional.linear(exact, matrix.double()),
        "linear_float32": functional.linear(single, matrix),
        "gelu": functional.gelu(exact),
        "gelu_float32": functional.gelu(single),
        "layer_norm": functional.layer_norm(exact, (40,), eps=1e-5),
        "layer_norm_float32": functional.layer_norm(single, (40,), eps=1e-5),
        "softmax": functional.softmax(exact, -1),
        "softmax_float32": functional.softmax(single, -1),
        "gelu_tanh_float32": functional.gelu(single, approximate="tanh"),
        "layer_norm_eps_float32": functional.layer_norm(single, (40,), eps=1e-3),
    }
