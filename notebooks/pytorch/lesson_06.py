"""Lesson 6: attention with a bias, by torch's own function and by transformers' EfficientFormer layer."""

from __future__ import annotations

from typing import Any

import numpy as np


def values(torch: Any) -> dict[str, np.ndarray]:
    """Inputs, weights and results; every number random and of order one."""
    from transformers.utils import import_utils

    import_utils._torchvision_available = False  # or transformers would import torchvision, which nothing here needs
    from transformers.models.deprecated.efficientformer.modeling_efficientformer import EfficientFormerSelfAttention

    draw = np.random.default_rng(6).standard_normal
    functional = torch.nn.functional
    values = {"query": draw((2, 3, 6, 4)), "key": draw((2, 3, 6, 4)), "value": draw((2, 3, 6, 5))}
    values["bias"] = draw((3, 6, 6))
    query, key, value, bias = (torch.tensor(values[name]) for name in ("query", "key", "value", "bias"))
    values["context"] = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias[None])

    layer = EfficientFormerSelfAttention(dim=10, key_dim=4, num_heads=3, attention_ratio=2, resolution=5).double()
    state = {
        "qkv.weight": draw((48, 10)), "qkv.bias": draw(48), "projection.weight": draw((10, 24)),
        "projection.bias": draw(10), "attention_biases": draw((3, 25)),
    }  # fmt: skip
    index = layer.attention_bias_idxs.numpy()
    tensors = {name: torch.tensor(array) for name, array in state.items()}
    layer.load_state_dict({**tensors, "attention_bias_idxs": layer.attention_bias_idxs})
    layer.eval()  # last: this is what gathers the biases
    tokens = draw((2, 25, 10))
    out, probs = layer(torch.tensor(tokens), output_attentions=True)
    values |= {f"layer.{name}": array for name, array in state.items()}
    values |= {"index": index, "tokens": tokens, "out": out, "probs": probs}
    return {name: np.asarray(array) for name, array in values.items()}
