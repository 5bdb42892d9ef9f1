"""Random weights that are worth timing.

Freshly initialised networks hold layer scales of 1e-5 and statistics of exactly 0 and 1. Their branches fade out
within a few blocks, some into denormals, numbers below 1e-38 that many processors handle much more slowly: the timing
is then not that of a trained network. Merely larger weights explode in deep networks, or leave no trace of the picture
in the logits. So weights are random here, and batch norms' statistics are, as after training, those of their inputs.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..models.pretrained import PreTrainedModel
from ..nn import BatchNorm2d, Module, watch
from ..ops import Array

LEAST_VARIANCE = 0.1  # added to every channel's, since some channels are constant


def randomize(model: PreTrainedModel, size: int, seed: int = 0) -> PreTrainedModel:
    """Give a model random weights, the same for the same seed, that keep all its values of order 1 to 1000.

    Weights of convolutions and linear layers are normal with standard deviation 1 / sqrt(inputs per output), so that
    outputs are as large as inputs; norms' weights lie between 0.5 and 1.5, layer scales between 0.3 and 0.8; all else
    is normal. Batch norms then get the mean and variance of their inputs for random pictures of `size` x `size`.
    """
    generator = np.random.default_rng(seed)
    state = model.state_dict()
    for name, module, attribute in model.named_arrays():
        if attribute not in module.buffers:
            state[name] = _draw(name, state[name].shape, generator)
    model.load_state_dict(state)
    count = max(1, 2 * 224**2 // size**2)  # more small pictures, or the last maps have too few values for statistics
    with watch(model, _settle):
        model(generator.standard_normal((count, model.config.num_channels, size, size), np.float32))
    return model


def _draw(name: str, shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    last = name.rsplit(".", 1)[-1]
    if last.startswith("layer_scale"):
        return np.float32(0.3) + np.float32(0.5) * generator.random(shape, np.float32)
    if last == "weight" and len(shape) == 1:  # of a norm
        return np.float32(0.5) + generator.random(shape, np.float32)
    normal = generator.standard_normal(shape, np.float32)
    if last == "weight":
        # SwiftFormer's global query is a sum over all tokens, so the weights after it are kept small.
        gain = 0.1 if name.endswith("attn.proj.weight") else 1.0
        normal *= np.float32(gain / math.sqrt(math.prod(shape[1:])))
    return normal


def _settle(name: str, module: Module, inputs: tuple[Any, ...], output: Array, layout: str | None) -> Array:
    """Set a batch norm's statistics to those of its input, and return its output with them."""
    if not isinstance(module, BatchNorm2d):
        return output
    module.running_mean = inputs[0].mean((0, 2, 3))
    module.running_var = inputs[0].var((0, 2, 3)) + np.float32(LEAST_VARIANCE)
    return module.forward(*inputs)
