"""transformers' TensorFlow models, EfficientFormer and SwiftFormer, as named and stored in `tf_model.h5`.

tf_swift_former_for_image_classification/swiftformer/encoder/network_._0/blocks_._1/norm/moving_mean:0
swiftformer.encoder.network.0.blocks.1.norm.running_mean
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np

from . import transformers
from .rules import Architecture, apply

# The settings are those of the PyTorch models, from which these weights were made.
ARCHITECTURES: dict[str, Architecture] = {
    name: architecture
    for name, architecture in transformers.ARCHITECTURES.items()
    if not architecture.variant.startswith("efficientnet")
}
MARKS = {
    "efficientformer": r"(.*/)?efficientformer/(patch_embed|encoder)/",
    "swiftformer": r"(.*/)?swiftformer/(patch_embed|encoder)/",
}
VARIABLES = {
    "kernel": "weight",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def rename(keys: Iterable[str], family: str) -> dict[str, str]:
    """Return the name here of each variable. `family`: "efficientformer" or "swiftformer".

    A key is a variable's name, with or without the leading groups of the file and the trailing ":0".

    Raises ValueError for another family, and for keys that these models do not have.
    """
    return apply(TABLES, keys, family, "transformers for TensorFlow", spelling=_dotted)


def arrange(name: str, array: np.ndarray) -> np.ndarray:
    """Return an array in the order stored here, as a view; `name` is its name here.

    Kernels (H, W, I, O) -> (O, I, H, W), dense ones (I, O) -> (O, I), SwiftFormer's layer scales (C,) -> (C, 1, 1).
    """
    if name.endswith(".weight") and array.ndim == 4:
        return array.transpose(3, 2, 0, 1)
    if name.endswith(".weight") and array.ndim == 2:
        return array.T
    if ".network." in f".{name}" and "layer_scale" in name and array.ndim == 1:
        return array[:, None, None]
    return array


def _dotted(key: str) -> str:
    """Return the name in transformers' PyTorch models."""
    key = re.sub(r":\d+$", "", key)
    key = re.sub(r"^(?:.*/)?tf_[a-z0-9_]+/", "", key)  # the model's class, and the file's groups before it
    *path, variable = key.replace("_._", ".").split("/")
    return ".".join((*path, VARIABLES.get(variable, variable)))


TABLES = {family: transformers.TABLES[family] for family in MARKS}
