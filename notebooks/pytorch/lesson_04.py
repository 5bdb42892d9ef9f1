"""The pooling mixer and a whole pooling block, as PyTorch and transformers compute them."""

from __future__ import annotations

from typing import Any

import numpy as np


def values(torch: Any) -> dict[str, np.ndarray]:
    """Average pooling with both divisors, the pooling layer, and a block of 6 channels with random weights."""
    from transformers import EfficientFormerConfig
    from transformers.models.deprecated.efficientformer import modeling_efficientformer as theirs

    rng = np.random.default_rng(4)
    small = torch.from_numpy(rng.standard_normal((2, 3, 4, 5)))
    x = torch.from_numpy(rng.standard_normal((2, 6, 7, 5)))
    block = theirs.EfficientFormerMeta4D(EfficientFormerConfig(), 6).double().eval()
    state = {}
    for name, value in block.state_dict().items():
        if value.is_floating_point():
            drawn = rng.standard_normal(tuple(value.shape))
            state[name] = torch.from_numpy(drawn**2 + 0.5 if name.endswith("running_var") else drawn)
    block.load_state_dict(state, strict=False)  # batch counts stay as they are
    return {
        "small": small,
        "mean": torch.nn.AvgPool2d(3, 1, 1, count_include_pad=False)(small),
        "mean_padded": torch.nn.AvgPool2d(3, 1, 1)(small),
        "mixed": theirs.EfficientFormerPooling(3)(small),
        "block_in": x,
        "block_out": block(x),
        **{f"block.{name}": value for name, value in state.items()},
    }
