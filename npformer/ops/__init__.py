"""The mathematics: pure functions on NumPy arrays, named and ordered as in `torch.nn.functional`.

Letters: B batch, C channels, H W height and width, O output channels, N tokens, D width, h heads, K classes.
An op never changes its input, returns the dtype it was given, and refuses a wrong shape or dtype with one sentence.
"""

from ._check import Array
from .activation import (
    ACT2FN,
    erf,
    gelu,
    leaky_relu,
    log_softmax,
    mish,
    quick_gelu,
    relu,
    relu6,
    selu,
    sigmoid,
    silu,
    softmax,
    tanh,
)
from .attention import attention_bias_index, biased_attention, efficient_additive_attention, squeeze_excite
from .conv import conv2d, depthwise_conv2d, im2col
from .linear import linear
from .loss import binary_cross_entropy_with_logits, cross_entropy, mse_loss
from .norm import batch_norm, layer_norm, normalize
from .pool import adaptive_avg_pool2d, adaptive_max_pool2d, avg_pool2d, max_pool2d, pool_mixer, token_mean
from .window import same_padding

__all__ = [
    "ACT2FN",
    "Array",
    "adaptive_avg_pool2d",
    "adaptive_max_pool2d",
    "attention_bias_index",
    "avg_pool2d",
    "batch_norm",
    "biased_attention",
    "binary_cross_entropy_with_logits",
    "conv2d",
    "cross_entropy",
    "depthwise_conv2d",
    "efficient_additive_attention",
    "erf",
    "gelu",
    "im2col",
    "layer_norm",
    "leaky_relu",
    "linear",
    "log_softmax",
    "max_pool2d",
    "mish",
    "mse_loss",
    "normalize",
    "pool_mixer",
    "quick_gelu",
    "relu",
    "relu6",
    "same_padding",
    "selu",
    "sigmoid",
    "silu",
    "softmax",
    "squeeze_excite",
    "tanh",
    "token_mean",
]
