"""What PyTorch makes of small inputs by batch norm, layer norm, their folding, and `normalize`."""

from __future__ import annotations

from typing import Any

import numpy as np


def values(torch: Any) -> dict[str, np.ndarray]:
    """Both norms with their epsilons, a batch norm in training, a folded convolution, and vectors of length one."""
    rng = np.random.default_rng(3)
    arrays = {
        "maps": rng.standard_normal((3, 4, 5, 4)),
        "mean": rng.standard_normal(4),
        "variance": rng.uniform(0.001, 2, 4),
        "gamma": rng.standard_normal(4),
        "beta": rng.standard_normal(4),
        "kernels": rng.standard_normal((4, 4, 3, 3)),
        "kernels_bias": rng.standard_normal(4),
        "tokens": rng.standard_normal((2, 5, 8)),
        "token_weight": rng.standard_normal(8),
        "token_bias": rng.standard_normal(8),
    }
    arrays["tokens"][1, 2] *= 0.003  # a token so small that epsilon matters
    t = {name: torch.from_numpy(array) for name, array in arrays.items()}
    functional = torch.nn.functional
    results = {}
    for eps in ("1e-5", "1e-3"):
        statistics = (t["mean"], t["variance"], t["gamma"], t["beta"])
        results[f"batch norm, eps {eps}"] = functional.batch_norm(t["maps"], *statistics, eps=float(eps))
    for eps in ("1e-5", "1e-12"):
        affine = (t["token_weight"], t["token_bias"])
        results[f"layer norm, eps {eps}"] = functional.layer_norm(t["tokens"], (8,), *affine, eps=float(eps))
    stored_mean, stored_variance = torch.zeros(4, dtype=torch.float64), torch.zeros(4, dtype=torch.float64)
    results["training"] = functional.batch_norm(t["maps"], stored_mean, stored_variance, training=True, momentum=1.0)
    results["training: stored mean"], results["training: stored variance"] = stored_mean, stored_variance
    results["folded kernels"], results["folded bias"] = torch.nn.utils.fusion.fuse_conv_bn_weights(
        t["kernels"], t["kernels_bias"], t["mean"], t["variance"], 1e-5, t["gamma"], t["beta"]
    )
    results["normalize"] = functional.normalize(t["tokens"], dim=-1)
    return arrays | {name: result.detach().numpy() for name, result in results.items()}
