"""EfficientFormer: a vision transformer as fast as MobileNet, because most of its blocks use no attention.

Each of four stages halves the picture's side; their blocks ("Meta4D") mix neighbours by average pooling and channels
by 1x1 convolutions. Only the last stage ends in a few attention blocks ("Meta3D"), on 7 x 7 = 49 tokens.

    picture (B, 3, 224, 224)
      -> stem, two 3x3 convolutions of stride 2      (B,  48, 56, 56)
      -> stage 1: Meta4D x 3, downsample             (B,  96, 28, 28)
      -> stage 2: Meta4D x 2, downsample             (B, 224, 14, 14)      sizes of L1
      -> stage 3: Meta4D x 6, downsample             (B, 448,  7,  7)
      -> stage 4: Meta4D x 3, flatten, Meta3D x 1    (B,  49, 448)
      -> layer norm, mean over tokens, linear heads  (B, K)

Source: Li et al. 2022, "EfficientFormer: Vision Transformers at MobileNet Speed". Names are those of transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from .. import ops
from ..nn import Activation, AvgPool2d, BatchNorm2d, Conv2d, Identity, LayerNorm, Linear, Module, ModuleList
from ..ops import Array
from ..ops.window import output_size
from .config import PretrainedConfig, is_number, is_whole, require, require_activation
from .outputs import Arrays, BaseModelOutputWithPooling, ImageClassifierOutput, ModelOutput
from .pretrained import PreTrainedModel, chosen, classifier_head, downsampling, naming_the_picture, stage_positions

# depths: blocks per stage; num_meta3d_blocks: the last stage's attention blocks. Parameters with both heads:
# L1 12,289,928, L3 31,406,000, L7 82,229,328.
VARIANTS: dict[str, dict[str, Any]] = {
    "efficientformer-l1": {"depths": [3, 2, 6, 4], "hidden_sizes": [48, 96, 224, 448], "num_meta3d_blocks": 1},
    "efficientformer-l3": {"depths": [4, 4, 12, 6], "hidden_sizes": [64, 128, 320, 512], "num_meta3d_blocks": 4},
    "efficientformer-l7": {"depths": [6, 6, 18, 8], "hidden_sizes": [96, 192, 384, 768], "num_meta3d_blocks": 8},
}


class EfficientFormerConfig(PretrainedConfig):
    """Settings of an EfficientFormer; the defaults are L1's.

    depths, hidden_sizes: blocks and channels of each stage. downsamples: whether a stage is followed by a downsampling
    convolution (always so where channels change). dim: channels of the attention blocks, which must be
    hidden_sizes[-1]. key_dim, attention_ratio, num_attention_heads: width of a head's queries and keys, the ratio of
    its values' width to that, and the number of heads. resolution: the side of the token grid of the attention's bias
    table. mlp_expansion_ratio: ratio of an MLP's hidden channels to its input's. pool_size: window of the pooling
    mixer, odd. downsample_patch_size, downsample_stride, downsample_pad: kernel, stride, padding between stages.
    num_meta3d_blocks: attention blocks at the end of the last stage. hidden_act: "gelu", "relu", "selu", "gelu_new",
    any other name in `ops.ACT2FN`, or a function. batch_norm_eps, layer_norm_eps (1e-12 here as in transformers; every
    other source trained with 1e-5). use_layer_scale, layer_scale_init_value: per-channel factors on each branch.
    initializer_range: standard deviation of random initial weights. Kept but without effect at inference:
    num_hidden_layers, patch_size, image_size, distillation, hidden_dropout_prob, drop_path_rate.

    Raises ValueError or TypeError for impossible values. Source: transformers 4.34, EfficientFormerConfig.
    """

    model_type = "efficientformer"

    def __init__(
        self,
        depths: Sequence[int] = (3, 2, 6, 4),
        hidden_sizes: Sequence[int] = (48, 96, 224, 448),
        downsamples: Sequence[bool] = (True, True, True, True),
        dim: int = 448,
        key_dim: int = 32,
        attention_ratio: int = 4,
        resolution: int = 7,
        num_hidden_layers: int = 5,
        num_attention_heads: int = 8,
        mlp_expansion_ratio: int = 4,
        hidden_dropout_prob: float = 0.0,
        patch_size: int = 16,
        num_channels: int = 3,
        pool_size: int = 3,
        downsample_patch_size: int = 3,
        downsample_stride: int = 2,
        downsample_pad: int = 1,
        drop_path_rate: float = 0.0,
        num_meta3d_blocks: int = 1,
        distillation: bool = True,
        use_layer_scale: bool = True,
        layer_scale_init_value: float = 1e-5,
        hidden_act: str | Callable[[Array], Array] = "gelu",
        initializer_range: float = 0.02,
        layer_norm_eps: float = 1e-12,
        image_size: int = 224,
        batch_norm_eps: float = 1e-5,
        **kwargs: Any,
    ) -> None:
        for name, value in (("depths", depths), ("hidden_sizes", hidden_sizes), ("downsamples", downsamples)):
            require(isinstance(value, list | tuple), name, value, "a list with one entry per stage")
        self.depths, self.hidden_sizes, self.downsamples = list(depths), list(hidden_sizes), list(downsamples)
        self.dim = dim
        self.key_dim = key_dim
        self.attention_ratio = attention_ratio
        self.resolution = resolution
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.mlp_expansion_ratio = mlp_expansion_ratio
        self.hidden_dropout_prob = hidden_dropout_prob
        self.patch_size = patch_size
        self.num_channels = num_channels
        self.pool_size = pool_size
        self.downsample_patch_size = downsample_patch_size
        self.downsample_stride = downsample_stride
        self.downsample_pad = downsample_pad
        self.drop_path_rate = drop_path_rate
        self.num_meta3d_blocks = num_meta3d_blocks
        self.distillation = distillation
        self.use_layer_scale = use_layer_scale
        self.layer_scale_init_value = layer_scale_init_value
        self.hidden_act = hidden_act
        self.initializer_range = initializer_range
        self.layer_norm_eps = layer_norm_eps
        self.image_size = image_size
        self.batch_norm_eps = batch_norm_eps
        # transformers' two-headed class reads `hidden_size`, which its config class lacks and its files supply.
        self.hidden_size = kwargs.pop("hidden_size", self.hidden_sizes[-1] if self.hidden_sizes else None)
        super().__init__(**kwargs)
        self.validate()

    @classmethod
    def for_variant(cls, name: str, **overrides: Any) -> Self:
        """Return the config of L1, L3 or L7, by its name in `VARIANTS`. Raises ValueError for another name."""
        require(name in VARIANTS, "name", name, f"one of {', '.join(VARIANTS)}")
        variant = VARIANTS[name]
        return cls(**{**variant, "dim": variant["hidden_sizes"][-1], **overrides})

    def validate(self) -> None:
        """Refuse settings that no EfficientFormer can have. Raises ValueError."""
        stages = len(self.depths)
        require(stages >= 1 and all(is_whole(d, 0) for d in self.depths), "depths", self.depths, "whole numbers >= 0")
        sizes_fit = len(self.hidden_sizes) == stages and all(is_whole(c, 2) for c in self.hidden_sizes)
        require(sizes_fit, "hidden_sizes", self.hidden_sizes, f"{stages} whole numbers >= 2, one per entry of depths")
        switches = len(self.downsamples) >= stages - 1 and all(s in (False, True) for s in self.downsamples)
        require(switches, "downsamples", self.downsamples, f"at least {stages - 1} of True or False")
        width = self.hidden_sizes[-1]
        require(self.dim == width, "dim", self.dim, f"hidden_sizes[-1] = {width}")
        require(self.hidden_size == width, "hidden_size", self.hidden_size, f"hidden_sizes[-1] = {width}")
        for name in (
            "key_dim", "num_attention_heads", "resolution", "num_channels", "downsample_patch_size",
            "downsample_stride", "image_size",
        ):  # fmt: skip
            require(is_whole(getattr(self, name), 1), name, getattr(self, name), "a whole number of at least 1")
        require(
            is_whole(self.downsample_pad, 0), "downsample_pad", self.downsample_pad, "a whole number of at least 0"
        )
        odd = self.pool_size is None or (is_whole(self.pool_size, 1) and self.pool_size % 2 == 1)
        require(odd, "pool_size", self.pool_size, "an odd whole number, so that pooling keeps the size")
        blocks = self.num_meta3d_blocks
        require(
            is_whole(blocks, 0) and blocks <= self.depths[-1],
            "num_meta3d_blocks",
            blocks,
            f"0 to {self.depths[-1]}, the depth of the last stage",
        )
        require_activation("hidden_act", self.hidden_act)
        for name, width in (("attention_ratio", self.key_dim), ("mlp_expansion_ratio", min(self.hidden_sizes))):
            ratio = getattr(self, name)
            wide_enough = is_number(ratio, 0) and int(ratio * width) >= 1
            require(wide_enough, name, ratio, f"a number that makes at least one channel of {width}")
        for name in ("batch_norm_eps", "layer_norm_eps", "initializer_range", "drop_path_rate", "hidden_dropout_prob"):
            require(is_number(getattr(self, name), 0), name, getattr(self, name), "a number of at least 0")
        scale = self.layer_scale_init_value
        require(is_number(scale, -1e30), "layer_scale_init_value", scale, "a number")


class EfficientFormerConvStem(Module):
    """The stem, two strided 3x3 convolutions instead of one large patch: (B, 3, H, W) -> (B, C, H/4, W/4)."""

    def __init__(self, config: EfficientFormerConfig, out_channels: int) -> None:
        self.convolution1 = Conv2d(config.num_channels, out_channels // 2, kernel_size=3, stride=2, padding=1)
        self.batchnorm_before = BatchNorm2d(out_channels // 2, config.batch_norm_eps)
        self.convolution2 = Conv2d(out_channels // 2, out_channels, kernel_size=3, stride=2, padding=1)
        self.batchnorm_after = BatchNorm2d(out_channels, config.batch_norm_eps)
        self.activation = Activation("relu")  # always ReLU, regardless of config.hidden_act

    def forward(self, pixel_values: Array) -> Array:
        """Convolve, normalise, apply ReLU, twice."""
        x = self.activation(self.batchnorm_before(self.convolution1(pixel_values)))  # (B, C/2, H/2, W/2)
        return self.activation(self.batchnorm_after(self.convolution2(x)))  # (B, C, H/4, W/4)


class EfficientFormerPatchEmbeddings(Module):
    """The downsampling between two stages: (B, C, H, W) -> (B, C', H/2, W/2)."""

    def __init__(self, config: EfficientFormerConfig, num_channels: int, embed_dim: int) -> None:
        self.projection = Conv2d(
            num_channels,
            embed_dim,
            kernel_size=config.downsample_patch_size,
            stride=config.downsample_stride,
            padding=config.downsample_pad,
        )
        self.norm = BatchNorm2d(embed_dim, config.batch_norm_eps)

    def forward(self, x: Array) -> Array:
        """Convolve and normalise."""
        return self.norm(self.projection(x))


class EfficientFormerPooling(Module):
    """The token mixer of Meta4D, `ops.pool_mixer` layer by layer: (B, C, H, W), same shape out. No weights."""

    def __init__(self, pool_size: int) -> None:
        # count_include_pad=False: at the border only real pixels are averaged, so a constant picture gives exactly 0.
        self.pool = AvgPool2d(pool_size, stride=1, padding=pool_size // 2, count_include_pad=False)

    def forward(self, x: Array) -> Array:
        """Subtract each pixel from the mean of its neighbourhood."""
        return self.tap("pooled", self.pool(x), "BCHW") - x


class EfficientFormerConvMlp(Module):
    """The channel mixer of Meta4D: 1x1 convolutions with an expansion between. (B, C, H, W), same shape out."""

    def __init__(self, config: EfficientFormerConfig, channels: int) -> None:
        hidden = int(channels * config.mlp_expansion_ratio)
        self.convolution1 = Conv2d(channels, hidden, kernel_size=1)
        self.activation = Activation(config.hidden_act)
        self.convolution2 = Conv2d(hidden, channels, kernel_size=1)
        self.dropout = Identity()
        self.batchnorm_before = BatchNorm2d(hidden, config.batch_norm_eps)
        self.batchnorm_after = BatchNorm2d(channels, config.batch_norm_eps)

    def forward(self, x: Array) -> Array:
        """Expand, activate, project; a batch norm after each convolution."""
        x = self.batchnorm_before(self.convolution1(x))  # (B, 4C, H, W)
        x = self.dropout(self.activation(x))
        x = self.batchnorm_after(self.convolution2(x))  # (B, C, H, W)
        return self.dropout(x)


class EfficientFormerDenseMlp(Module):
    """The channel mixer of Meta3D: linear layers with an expansion between. (B, N, D), same shape out."""

    def __init__(self, config: EfficientFormerConfig, width: int) -> None:
        hidden = int(width * config.mlp_expansion_ratio)
        self.linear_in = Linear(width, hidden)
        self.activation = Activation(config.hidden_act)
        self.dropout = Identity()
        self.linear_out = Linear(hidden, width)

    def forward(self, x: Array) -> Array:
        """Expand, activate, project."""
        x = self.dropout(self.activation(self.linear_in(x)))  # (B, N, 4D)
        return self.dropout(self.linear_out(x))


class EfficientFormerSelfAttention(Module):
    """The token mixer of Meta3D: multi-head attention with a learned bias per offset. (B, N, D), same shape out."""

    buffers = ("attention_bias_idxs",)
    # Every source stores the index table, and all agree; it is computed here, and a stored copy is ignored.
    optional = derived = ("attention_bias_idxs",)

    def __init__(self, config: EfficientFormerConfig) -> None:
        self.num_heads, self.key_dim = config.num_attention_heads, config.key_dim
        self.value_dim = int(config.attention_ratio * config.key_dim)
        self.qkv = Linear(config.dim, self.num_heads * (2 * self.key_dim + self.value_dim))
        self.projection = Linear(self.num_heads * self.value_dim, config.dim)
        self.attention_biases = np.zeros((self.num_heads, config.resolution**2), np.float32)
        self.attention_bias_idxs = ops.attention_bias_index(config.resolution)  # (N, N)

    def forward(self, x: Array) -> tuple[Array, Array]:
        """Attend from every token to every other. Returns the result (B, N, D) and the probabilities (B, h, N, N)."""
        batch, tokens, _ = x.shape
        # Each head's query, key and value are adjacent, head after head; values are four times as wide.
        qkv = self.qkv(x).reshape(batch, tokens, self.num_heads, 2 * self.key_dim + self.value_dim)
        qkv = qkv.swapaxes(1, 2)  # (B, h, N, 2d + e)
        query, key, value = np.split(qkv, [self.key_dim, 2 * self.key_dim], axis=-1)
        query, key, value = (
            self.tap("query", query, "BhNd"),
            self.tap("key", key, "BhNd"),
            self.tap("value", value, "BhNd"),
        )
        # Gathered at every call: a cached copy would become stale when weights are loaded or changed.
        bias = self.tap("bias", self.attention_biases[:, self.attention_bias_idxs], "hNN")
        context, probs = ops.biased_attention(query, key, value, bias, tap=lambda name, v: self.tap(name, v, "BhNN"))
        context = context.swapaxes(1, 2).reshape(batch, tokens, self.num_heads * self.value_dim)  # -> (B, N, h*e)
        return self.projection(self.tap("context", context, "BND")), probs

    def multiply_adds(self, inputs: tuple[Any, ...], output: Any) -> int:
        """Count queries times keys and probabilities times values, for every head and pair of tokens."""
        batch, tokens, _ = output.shape
        return batch * self.num_heads * tokens**2 * (self.key_dim + self.value_dim)


class EfficientFormerMeta4D(Module):
    """A block on maps: pooling mixes pixels, an MLP channels, each with a skip connection. (B, C, H, W), same out."""

    def __init__(self, config: EfficientFormerConfig, channels: int) -> None:
        self.token_mixer = EfficientFormerPooling(3 if config.pool_size is None else config.pool_size)
        self.mlp = EfficientFormerConvMlp(config, channels)
        self.drop_path = Identity()
        self.layer_scale_1, self.layer_scale_2 = _layer_scales(config, channels)

    def forward(self, x: Array) -> Array:
        """Add scale_1 * mixer(x), then scale_2 * mlp(x). No norm before the mixer: the batch norms are in the MLP."""
        x = self.tap("mixed", x + self.drop_path(_scaled(self.layer_scale_1, self.token_mixer(x))), "BCHW")
        return x + self.drop_path(_scaled(self.layer_scale_2, self.mlp(x)))


class EfficientFormerMeta3D(Module):
    """A block on tokens: attention mixes tokens, an MLP channels, layer norms before both. (B, N, D), same out."""

    def __init__(self, config: EfficientFormerConfig, width: int) -> None:
        self.token_mixer = EfficientFormerSelfAttention(config)
        self.layernorm1 = LayerNorm(width, config.layer_norm_eps)
        self.layernorm2 = LayerNorm(width, config.layer_norm_eps)
        self.mlp = EfficientFormerDenseMlp(config, width)
        self.drop_path = Identity()
        self.layer_scale_1, self.layer_scale_2 = _layer_scales(config, width)

    def forward(self, x: Array) -> tuple[Array, Array]:
        """Add scale_1 * attention(norm(x)), then scale_2 * mlp(norm(x)). Also returns the attention probabilities."""
        mixed, probs = self.token_mixer(self.layernorm1(x))
        x = self.tap("mixed", x + self.drop_path(_scaled(self.layer_scale_1, mixed)), "BND")
        return x + self.drop_path(_scaled(self.layer_scale_2, self.mlp(self.layernorm2(x)))), probs


def _layer_scales(config: EfficientFormerConfig, channels: int) -> tuple[np.ndarray | None, np.ndarray | None]:
    if not config.use_layer_scale:
        return None, None
    first = np.full(channels, config.layer_scale_init_value, np.float32)
    return first, first.copy()


def _scaled(layer_scale: Array | None, branch: Array) -> Array:
    """Multiply each channel of a branch by its own learned factor; channels are axis 1 of maps, the last of tokens."""
    if layer_scale is None:
        return branch
    return branch * (layer_scale[:, None, None] if branch.ndim == 4 else layer_scale)


class EfficientFormerMeta4DLayers(Module):
    """A sequence of Meta4D blocks: (B, C, H, W), same shape out."""

    def __init__(self, config: EfficientFormerConfig, stage: int, depth: int) -> None:
        self.blocks = ModuleList(EfficientFormerMeta4D(config, config.hidden_sizes[stage]) for _ in range(depth))

    def forward(self, x: Array) -> Array:
        """Apply the blocks in order."""
        for block in self.blocks:
            x = block(x)
        return x


class EfficientFormerMeta3DLayers(Module):
    """A sequence of Meta3D blocks: (B, N, D), same shape out."""

    def __init__(self, config: EfficientFormerConfig) -> None:
        width = config.hidden_sizes[-1]
        self.blocks = ModuleList(EfficientFormerMeta3D(config, width) for _ in range(config.num_meta3d_blocks))

    def forward(self, x: Array) -> tuple[Array, Arrays]:
        """Apply the blocks in order. Also returns every block's attention probabilities."""
        all_probs: Arrays = ()
        for block in self.blocks:
            x, probs = block(x)
            all_probs += (probs,)
        return x, all_probs


class EfficientFormerIntermediateStage(Module):
    """A stage of Meta4D blocks: (B, C, H, W), same shape out."""

    def __init__(self, config: EfficientFormerConfig, stage: int) -> None:
        self.meta4D_layers = EfficientFormerMeta4DLayers(config, stage, config.depths[stage])

    def forward(self, x: Array) -> Array:
        """Apply the blocks of the stage."""
        return self.meta4D_layers(x)


class EfficientFormerFlat(Module):
    """The flattening from map to tokens, row by row: (B, C, H, W) -> (B, H*W, C)."""

    def forward(self, x: Array) -> Array:
        """Flatten the map and put channels last."""
        batch, channels, height, width = x.shape
        # Copied into token order: all later steps work on whole tokens.
        return np.ascontiguousarray(x.reshape(batch, channels, height * width).swapaxes(1, 2))


class EfficientFormerLastStage(Module):
    """Meta4D blocks, the flattening from map to tokens, Meta3D blocks: (B, C, H, W) -> (B, N, C)."""

    def __init__(self, config: EfficientFormerConfig) -> None:
        self.meta4D_layers = EfficientFormerMeta4DLayers(config, -1, config.depths[-1] - config.num_meta3d_blocks)
        self.flat = EfficientFormerFlat()
        self.meta3D_layers = EfficientFormerMeta3DLayers(config)

    def forward(self, x: Array) -> tuple[Array, Arrays]:
        """Apply convolutional blocks first, attention last: the paper's dimension-consistent design."""
        return self.meta3D_layers(self.flat(self.meta4D_layers(x)))


class EfficientFormerEncoder(Module):
    """All stages: (B, C, H/4, W/4) -> (B, N, D)."""

    def __init__(self, config: EfficientFormerConfig) -> None:
        stages: list[Module] = []
        for stage, downsample in enumerate(downsampling(config.hidden_sizes, config.downsamples)):
            stages.append(EfficientFormerIntermediateStage(config, stage))
            if downsample:
                sizes = config.hidden_sizes[stage : stage + 2]
                stages.append(EfficientFormerPatchEmbeddings(config, *sizes))
        self.intermediate_stages = ModuleList(stages)
        self.last_stage = EfficientFormerLastStage(config)

    def forward(self, x: Array, output_hidden_states: bool = True) -> tuple[Array, Arrays | None, Arrays]:
        """Return the tokens and, if requested, the hidden states and the attentions.

        Hidden states are the input, then the output of every stage and downsampling.
        """
        hidden_states: Arrays | None = (x,) if output_hidden_states else None
        for stage in self.intermediate_stages:
            x = stage(x)
            if hidden_states is not None:
                hidden_states += (x,)
        x, attentions = self.last_stage(x)
        return x, None if hidden_states is None else (*hidden_states, x), attentions


def token_grid(config: EfficientFormerConfig, height: int, width: int) -> tuple[int, int]:
    """Return the height and width of the token grid at the attention: 224 x 224 -> (7, 7) for L1.

    Raises ValueError for a picture that is too small to get there.
    """
    sides = [height, width]
    with naming_the_picture(height, width):
        for kernel, stride, pad in _strided_steps(config):
            sides = [output_size(side, kernel, stride, (pad, pad), 1) for side in sides]
    return sides[0], sides[1]


def picture_side(config: EfficientFormerConfig) -> int:
    """Return the side of the largest square picture with `config.resolution` tokens a side: 224 for L1."""
    side = config.resolution
    for kernel, stride, pad in reversed(_strided_steps(config)):
        side = side * stride + kernel - 2 * pad - 1
    return side


def _strided_steps(config: EfficientFormerConfig) -> list[tuple[int, int, int]]:
    """Return the kernel, stride and padding of every convolution that shrinks the picture, in order."""
    downsample = (config.downsample_patch_size, config.downsample_stride, config.downsample_pad)
    return [(3, 2, 1), (3, 2, 1)] + [downsample] * sum(downsampling(config.hidden_sizes, config.downsamples))


class EfficientFormerModel(PreTrainedModel):
    """The base model, from pictures to tokens. (B, 3, 224, 224) -> last_hidden_state (B, 49, 448) for L1.

    Weights are random (`seed` makes them repeatable) until loaded with `from_pretrained` or `load_state_dict`.
    """

    config_class = EfficientFormerConfig
    base_model_prefix = "efficientformer"

    def __init__(self, config: EfficientFormerConfig, *, init_weights: bool = True, seed: int | None = None) -> None:
        super().__init__(config)
        self.patch_embed = EfficientFormerConvStem(config, config.hidden_sizes[0])
        self.encoder = EfficientFormerEncoder(config)
        self.layernorm = LayerNorm(config.hidden_sizes[-1], config.layer_norm_eps)
        if init_weights:
            self.init_weights(seed)

    def forward(
        self,
        pixel_values: Array | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> BaseModelOutputWithPooling | tuple[Any, ...]:
        """Run the network on `pixel_values` (B, C, H, W), normalised as by an image processor.

        Returns last_hidden_state (B, N, D), after the final layer norm; pooler_output, None for this family; and if
        requested (the config decides where an argument is None) hidden_states, from the stem's output through every
        stage's and downsampling's to the tokens before the final norm, and attentions, (B, h, N, N) per attention
        block. With return_dict=False the values that are present, as a tuple.

        Raises ValueError or TypeError for an input of the wrong rank, channels, dtype or size.
        """
        config = self.config
        pixel_values = self.check_pixel_values(pixel_values)
        self._check_grid(*pixel_values.shape[2:])
        wanted = chosen(output_hidden_states, config.output_hidden_states)
        x, hidden_states, attentions = self.encoder(self.patch_embed(pixel_values), wanted)
        output = BaseModelOutputWithPooling(
            last_hidden_state=self.layernorm(x),
            hidden_states=hidden_states,
            attentions=attentions if chosen(output_attentions, config.output_attentions) else None,
        )
        return self.as_asked(output, return_dict)

    def extract_feat(self, pixel_values: Array) -> Arrays:
        """Return feature maps for detection or segmentation: each stage's output, before the next downsampling.

        (B, 3, 224, 224) -> (B, 48, 56, 56), (B, 96, 28, 28), (B, 224, 14, 14), (B, 448, 7, 7) for L1: strides 4, 8, 16
        and 32. The last stage's tokens are reshaped to a map; the final layer norm is not applied.

        Raises ValueError or TypeError as `forward`.
        """
        states = self(pixel_values, output_hidden_states=True, return_dict=True).hidden_states
        positions = stage_positions(self.config.hidden_sizes, self.config.downsamples)
        *maps, tokens = (states[position] for position in positions)
        batch, _, width = tokens.shape
        grid = token_grid(self.config, *pixel_values.shape[2:])
        return (*maps, tokens.swapaxes(1, 2).reshape(batch, width, *grid))  # (B, N, D) -> (B, D, H, W)

    def _check_grid(self, height: int, width: int) -> None:
        """Refuse a picture whose token grid does not match the bias table. Raises ValueError."""
        side, size = self.config.resolution, picture_side(self.config)
        grid = token_grid(self.config, height, width)
        if self.config.num_meta3d_blocks and grid != (side, side):
            raise ValueError(
                f"pixel_values of {height}x{width} reach the attention blocks as {grid[0]}x{grid[1]} tokens, but "
                f"their learned bias table is {side}x{side} (config.resolution), one entry per offset of two tokens; "
                f"resize the pictures to {size}x{size}, as the image processor does"
            )


class EfficientFormerForImageClassification(PreTrainedModel):
    """The model with one head: layer norm, mean over tokens, linear. (B, 3, 224, 224) -> logits (B, K).

    A checkpoint with two heads loads, but only its `classifier` is used, as in transformers; the published accuracy
    is that of `EfficientFormerForImageClassificationWithTeacher`, which averages both.
    """

    config_class = EfficientFormerConfig
    base_model_prefix = "efficientformer"
    heads_left_out: ClassVar[tuple[str, ...]] = ("distillation_classifier.",)

    def __init__(self, config: EfficientFormerConfig, *, init_weights: bool = True, seed: int | None = None) -> None:
        super().__init__(config)
        self.efficientformer = EfficientFormerModel(config, init_weights=False)
        self.classifier = classifier_head(config, config.hidden_sizes[-1])
        if init_weights:
            self.init_weights(seed)

    def forward(
        self,
        pixel_values: Array | None = None,
        labels: Any = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> ImageClassifierOutput | tuple[Any, ...]:
        """Classify `pixel_values` (B, C, H, W); other arguments and errors as in `EfficientFormerModel.forward`.

        Returns logits (B, K), before any softmax, and, where `labels` are given, the loss that `loss` describes.
        """
        outputs = self.efficientformer(pixel_values, output_attentions, output_hidden_states, return_dict=True)
        logits = self.classifier(self.tap("pooled", ops.token_mean(outputs.last_hidden_state), "BD"))
        output = ImageClassifierOutput(
            loss=None if labels is None else self.loss(logits, labels),
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )
        return self.as_asked(output, return_dict)


@dataclass(eq=False)
class EfficientFormerForImageClassificationWithTeacherOutput(ModelOutput):
    """The output of the two-headed model: logits, the mean of cls_logits and distillation_logits, (B, K) each."""

    logits: np.ndarray | None = None
    cls_logits: np.ndarray | None = None
    distillation_logits: np.ndarray | None = None
    hidden_states: Arrays | None = None
    attentions: Arrays | None = None


class EfficientFormerForImageClassificationWithTeacher(PreTrainedModel):
    """The model as published, with two heads whose logits are averaged: (B, 3, 224, 224) -> logits (B, K).

    One head was trained on the labels, the other to imitate a teacher network (distillation).
    """

    config_class = EfficientFormerConfig
    base_model_prefix = "efficientformer"

    def __init__(self, config: EfficientFormerConfig, *, init_weights: bool = True, seed: int | None = None) -> None:
        super().__init__(config)
        self.efficientformer = EfficientFormerModel(config, init_weights=False)
        self.classifier = classifier_head(config, config.hidden_sizes[-1])
        self.distillation_classifier = classifier_head(config, config.hidden_sizes[-1])
        if init_weights:
            self.init_weights(seed)

    def forward(
        self,
        pixel_values: Array | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> EfficientFormerForImageClassificationWithTeacherOutput | tuple[Any, ...]:
        """Classify `pixel_values` (B, C, H, W); arguments and errors as in `EfficientFormerModel.forward`.

        Returns logits = (cls_logits + distillation_logits) / 2 and both of them, (B, K) each.
        """
        outputs = self.efficientformer(pixel_values, output_attentions, output_hidden_states, return_dict=True)
        pooled = self.tap("pooled", ops.token_mean(outputs.last_hidden_state), "BD")
        cls_logits, distillation_logits = self.classifier(pooled), self.distillation_classifier(pooled)
        output = EfficientFormerForImageClassificationWithTeacherOutput(
            logits=(cls_logits + distillation_logits) / 2,
            cls_logits=cls_logits,
            distillation_logits=distillation_logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )
        return self.as_asked(output, return_dict)
