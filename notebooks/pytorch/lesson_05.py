"""Lesson 5: activations in float64, and PyTorch's own float32 values of erf, GELU and SiLU on a fine grid."""

import numpy as np


def values(torch):
    functional = torch.nn.functional
    rng = np.random.default_rng(5)
    x = 3 * rng.standard_normal((4, 25))
    scores = rng.standard_normal((3, 7))
    scores[1] += 1000  # exp of these is infinite
    grid = np.linspace(-6, 6, 2401).astype(np.float32)
    wide, shifted, fine = (torch.from_numpy(array) for array in (x, scores, grid))
    far = np.array([-800.0, -90.0, -40.0, 40.0, 90.0, 800.0], np.float32)
    return {
        "x": x,
        "relu": functional.relu(wide),
        "erf": torch.erf(wide),
        "gelu": functional.gelu(wide),
        "gelu, tanh": functional.gelu(wide, approximate="tanh"),
        "sigmoid": torch.sigmoid(wide),
        "silu": functional.silu(wide),
        "scores": scores,
        "softmax": functional.softmax(shifted, -1),
        "log_softmax": functional.log_softmax(shifted, -1),
        "grid": grid,
        "grid, gelu": functional.gelu(fine),
        "grid, erf": torch.erf(fine),
        "grid, silu": functional.silu(fine),
        "far": far,
        "far, sigmoid": torch.sigmoid(torch.from_numpy(far)),
        "far, silu": functional.silu(torch.from_numpy(far)),
    }
