"""A model of 64 x 64 pictures that answers in milliseconds, for tests of behaviour rather than of numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from npformer import Module
from npformer.models import efficientformer
from tests.support import BARE, ONE_HEAD, TWO_HEADS, random_state

SETTINGS = {
    "depths": [1, 1, 1, 3], "hidden_sizes": [4, 6, 8, 10], "dim": 10, "num_meta3d_blocks": 2, "resolution": 2,
    "num_attention_heads": 2, "key_dim": 3, "attention_ratio": 2, "mlp_expansion_ratio": 2, "image_size": 64,
    "num_labels": 5,
}  # fmt: skip
CLASSES = [BARE, ONE_HEAD, TWO_HEADS]


def config(**settings: Any) -> efficientformer.EfficientFormerConfig:
    return efficientformer.EfficientFormerConfig(**{**SETTINGS, **settings})


def model(class_name: str = ONE_HEAD, **settings: Any) -> Any:
    """A model whose weights are random and of order one."""
    empty = getattr(efficientformer, class_name)(config(**settings), init_weights=False)
    return empty.load_state_dict(random_state(empty.state_dict()))


def pictures(batch: int = 2, channels: int = 3, height: int = 64, width: int = 64) -> np.ndarray:
    return np.random.default_rng(3).standard_normal((batch, channels, height, width), np.float32)


def state_bytes(module: Module) -> dict[str, bytes]:
    """Every array of a model as bytes: equal before and after means that nothing was touched."""
    return {name: array.tobytes() for name, array in module.state_dict().items()}
