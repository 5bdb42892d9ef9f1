"""What PyTorch makes of one picture and several kinds of convolution."""

from __future__ import annotations

from typing import Any

import numpy as np


def values(torch: Any) -> dict[str, np.ndarray]:
    """Convolutions and `unfold` of one small input, with the settings that lesson 2 names."""
    rng = np.random.default_rng(2)
    arrays = {
        "x": rng.standard_normal((2, 4, 7, 6)),
        "bias": rng.standard_normal(6),
        "weight": rng.standard_normal((6, 4, 3, 3)),
        "weight_of_two_groups": rng.standard_normal((6, 2, 3, 3)),
        "weight_per_channel": rng.standard_normal((4, 1, 3, 3)),
        "weight_1x1": rng.standard_normal((6, 4, 1, 1)),
        "weight_5x3": rng.standard_normal((6, 4, 5, 3)),
    }
    t = {name: torch.from_numpy(array) for name, array in arrays.items()}
    conv2d, unfold = torch.nn.functional.conv2d, torch.nn.functional.unfold
    results = {
        "plain": conv2d(t["x"], t["weight"], t["bias"]),
        "stride 2, padding 1": conv2d(t["x"], t["weight"], t["bias"], stride=2, padding=1),
        "stride (2, 1), padding (1, 2)": conv2d(t["x"], t["weight"], t["bias"], stride=(2, 1), padding=(1, 2)),
        "dilation 2, padding 2": conv2d(t["x"], t["weight"], t["bias"], padding=2, dilation=2),
        "two groups, stride 2": conv2d(t["x"], t["weight_of_two_groups"], t["bias"], stride=2, padding=1, groups=2),
        "depthwise": conv2d(t["x"], t["weight_per_channel"], None, padding=1, groups=4),
        "1x1": conv2d(t["x"], t["weight_1x1"], t["bias"]),
        "5x3 kernel, same": conv2d(t["x"], t["weight_5x3"], t["bias"], padding="same"),
        "unfold": unfold(t["x"], 3, dilation=1, padding=1, stride=2),
    }
    return arrays | {name: result.numpy() for name, result in results.items()}
