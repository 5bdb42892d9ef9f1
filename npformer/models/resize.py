"""EfficientFormer for pictures of another size: its table of attention biases, resized."""

from __future__ import annotations

import numpy as np

from ..ops import Array
from .config import is_whole
from .efficientformer import EfficientFormerSelfAttention, picture_side
from .pretrained import PreTrainedModel

A = -0.75  # the cubic's one parameter, PyTorch's choice


def resize_attention_biases(model: PreTrainedModel, resolution: int) -> PreTrainedModel:
    """Return the same EfficientFormer for `resolution` x `resolution` tokens, as a new model; nothing else changes.

    The learned table has a bias for each offset of two tokens, |dy| and |dx| from 0 to R - 1, on a picture of R x R
    tokens. As a small picture (h, R, R) it is resampled to the new R by bicubic interpolation, corner to corner:
    offset 0 stays offset 0, and the largest offset the largest.

    On the accuracy: the tables were learned at one size, and no table for another was trained. The documentation of
    the shipped model has its accuracy at several sizes (`npformer/assets/efficientformer-fashion/README.md`).

    Raises TypeError for another model, ValueError for a fused one, for one without attention, or for an invalid
    resolution. Source: timm resamples LeViT's and EfficientFormer's tables likewise, from cell centres
    (`layers/pos_embed_rel.py`).
    """
    config = getattr(model, "config", None)
    if getattr(config, "model_type", None) != "efficientformer":
        raise TypeError(f"model must be an EfficientFormer, got {type(model).__name__}")
    model.refuse_fused("resizing attention biases")
    if not is_whole(resolution, 1):
        raise ValueError(f"resolution must be a whole number of tokens of at least 1, got {resolution!r}")
    if not model.config.num_meta3d_blocks:
        raise ValueError("model has no attention block, so no table of biases; it takes pictures of any size")
    settings = {**model.config.to_dict(), "resolution": int(resolution)}
    twin_config = type(model.config).from_dict(settings)
    twin_config.image_size = picture_side(twin_config)
    twin = type(model)(twin_config, init_weights=False)  # type: ignore[call-arg]
    twin = twin.astype(model.dtype)
    state = model.state_dict()
    for name, module in model.named_modules():
        if isinstance(module, EfficientFormerSelfAttention):
            key = f"{name}.attention_biases"
            state[key] = resize_table(state[key], resolution)
            state.pop(f"{name}.attention_bias_idxs")
    twin.load_state_dict(state)
    twin.source = model.source
    return twin


def resize_table(table: Array, resolution: int) -> Array:
    """Resample biases by offset, (h, R * R) -> (h, R' * R'), by bicubic interpolation of rows and columns."""
    side = round(table.shape[1] ** 0.5)
    weights = cubic_weights(side, resolution)
    small = table.reshape(-1, side, side).astype(np.float64)
    return (weights @ small @ weights.T).reshape(len(table), -1).astype(table.dtype)


def cubic_weights(old: int, new: int) -> Array:
    """Return the weight of each of `old` points in each of `new`, (new, old); rows sum to 1, the border is repeated.

    Keys' cubic: w(d) = (a + 2) d^3 - (a + 3) d^2 + 1 up to distance 1, a (d^3 - 5 d^2 + 8 d - 4) up to 2, a = -0.75.
    """
    places = np.linspace(0, old - 1, new) if new > 1 else np.zeros(1)
    first = np.floor(places).astype(int)
    weights = np.zeros((new, old))
    for step in (-1, 0, 1, 2):
        distance = np.abs(places - (first + step))
        near = (A + 2) * distance**3 - (A + 3) * distance**2 + 1
        far = A * (distance**3 - 5 * distance**2 + 8 * distance - 4)
        share = np.where(distance <= 1, near, np.where(distance < 2, far, 0))
        np.add.at(weights, (np.arange(new), np.clip(first + step, 0, old - 1)), share)
    return weights
