"""Models of 64 x 64 pictures that answer in milliseconds, for tests of behaviour rather than of numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from npformer import Module
from tests.support import BARE, BARE_NET, BARE_SWIFT, NET, ONE_HEAD, SWIFT, TWO_HEADS, Case, random_state

SETTINGS = {
    "depths": [1, 1, 1, 3], "hidden_sizes": [4, 6, 8, 10], "dim": 10, "num_meta3d_blocks": 2, "resolution": 2,
    "num_attention_heads": 2, "key_dim": 3, "attention_ratio": 2, "mlp_expansion_ratio": 2, "image_size": 64,
    "num_labels": 5,
}  # fmt: skip
# All seven stages of an EfficientNet in ten blocks, with 8, then 4, 8, 12, 20, 28, 48 and 80 channels.
NET_SETTINGS = {
    "width_coefficient": 0.25, "depth_coefficient": 0.5, "depth_divisor": 4, "hidden_dim": 320, "image_size": 64,
    "num_labels": 5,
}  # fmt: skip
SWIFT_SETTINGS = {
    "depths": [1, 2, 1, 2], "embed_dims": [4, 6, 8, 10], "mlp_ratio": 2, "image_size": 64, "num_labels": 5,
}  # fmt: skip
FAMILY_SETTINGS = {"EfficientFormer": SETTINGS, "EfficientNet": NET_SETTINGS, "SwiftFormer": SWIFT_SETTINGS}
CLASSES, NET_CLASSES, SWIFT_CLASSES = [BARE, ONE_HEAD, TWO_HEADS], [BARE_NET, NET], [BARE_SWIFT, SWIFT]


def case(class_name: str, **settings: Any) -> Case:
    family = Case(class_name, (0, 0, 0, 0)).family
    return Case(class_name, (2, 3, 64, 64), {**FAMILY_SETTINGS[family], **settings})


def config(class_name: str = ONE_HEAD, **settings: Any) -> Any:
    return case(class_name, **settings).config()


def model(class_name: str = ONE_HEAD, **settings: Any) -> Any:
    """A model whose weights are random and of order one."""
    empty = case(class_name, **settings).model()
    state = random_state(empty.state_dict())
    # SiLU and the gates of squeeze-and-excitation shrink what comes from the picture, block after block, until the
    # biases alone give the answer. So few blocks can bear larger steps than `random_state` takes against that.
    louder = {name: 3 * array for name, array in state.items() if name.endswith("project_bn.weight")}
    return empty.load_state_dict({**state, **louder})


def pictures(batch: int = 2, channels: int = 3, height: int = 64, width: int = 64) -> np.ndarray:
    return np.random.default_rng(3).standard_normal((batch, channels, height, width), np.float32)


def state_bytes(module: Module) -> dict[str, bytes]:
    """Every array of a model as bytes: equal before and after means that nothing was touched."""
    return {name: array.tobytes() for name, array in module.state_dict().items()}
