"""SwiftFormer: attention cheap enough for every stage, because all tokens share one global query.

Each stage is a few convolutional blocks and, last, one block with additive attention, whose cost is linear in the
number of tokens instead of quadratic.

    picture (B, 3, 224, 224)
      -> stem, two 3x3 convolutions of stride 2      (B,  48, 56, 56)
      -> stage 1: 2 conv encoders, 1 encoder block   (B,  48, 56, 56)
      -> downsample, stage 2: 2 + 1                  (B,  56, 28, 28)      sizes of XS
      -> downsample, stage 3: 5 + 1                  (B, 112, 14, 14)
      -> downsample, stage 4: 3 + 1                  (B, 220,  7,  7)
      -> batch norm, mean over the map, two heads    (B, K)

Source: Shaker et al. 2023, "SwiftFormer: Efficient Additive Attention for Transformer-based Real-time Mobile Vision
Applications". Names are those of transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np

from .. import ops
from ..nn import Activation, BatchNorm2d, Conv2d, Identity, Linear, Module, ModuleList, Sequential
from ..ops import Array
from ..ops.window import output_sizes, pair
from .config import PretrainedConfig, is_number, is_whole, require, require_activation
from .outputs import Arrays, BaseModelOutputWithNoAttention, ImageClassifierOutputWithNoAttention
from .pretrained import PreTrainedModel, chosen, classifier_head, downsampling, naming_the_picture, stage_positions

# depths: blocks per stage, the last one with attention. Parameters with both heads: XS 3,475,360, S 6,092,128,
# L1 12,057,920, L3 28,494,736.
VARIANTS: dict[str, dict[str, list[int]]] = {
    "swiftformer-xs": {"depths": [3, 3, 6, 4], "embed_dims": [48, 56, 112, 220]},
    "swiftformer-s": {"depths": [3, 3, 9, 6], "embed_dims": [48, 64, 168, 224]},
    "swiftformer-l1": {"depths": [4, 3, 10, 5], "embed_dims": [48, 96, 192, 384]},
    "swiftformer-l3": {"depths": [4, 4, 12, 6], "embed_dims": [64, 128, 320, 512]},
}


class SwiftFormerConfig(PretrainedConfig):
    """Settings of a SwiftFormer; the defaults are XS's.

    depths, embed_dims: blocks and channels of each stage. downsamples: whether a stage is followed by a downsampling
    convolution (always so where channels change); down_patch_size, down_stride, down_pad: its kernel, stride, padding.
    mlp_ratio: ratio of hidden channels to a block's own. hidden_act: of the encoder blocks' MLP, any name in
    `ops.ACT2FN` or a function; the convolutional parts always use GELU. batch_norm_eps as everywhere. use_layer_scale
    and layer_scale_init_value: per-channel factors on the two branches of an encoder block (the convolutional parts
    always have theirs, initialised to 1). Kept but without effect at inference: image_size, drop_path_rate,
    drop_mlp_rate, drop_conv_encoder_rate.

    attention_norm: the normalisation of the scores q @ w_g, one per token, before they weight the sum of the queries.
    Two generations of checkpoints, with the same names and shapes, differ here, and each was trained for one setting,
    though the other may hardly change the predictions (those of the shipped network do not: lesson 9 of the course):

    - "ones" (the first release of March 2023, transformers, and the `MBZUAI/swiftformer-*` files): a softmax over the
      last axis, which has length one. Every weight is exp(a) / exp(a) = 1, so the global query is the plain sum of all
      queries, `w_g` has no influence on anything, and the sum grows with the number of tokens.
    - "l2" (the authors' code and weights since July 2023, and timm's `swiftformer_*`): the scores divided by their
      length over the tokens. Here `w_g` matters.

    Raises ValueError or TypeError for impossible values. Source: transformers 4.56, SwiftFormerConfig;
    `attention_norm` is our own.
    """

    model_type = "swiftformer"

    def __init__(
        self,
        image_size: int = 224,
        num_channels: int = 3,
        depths: Sequence[int] = (3, 3, 6, 4),
        embed_dims: Sequence[int] = (48, 56, 112, 220),
        mlp_ratio: float = 4,
        downsamples: Sequence[bool] = (True, True, True, True),
        hidden_act: str | Callable[[Array], Array] = "gelu",
        down_patch_size: int | Sequence[int] = 3,
        down_stride: int | Sequence[int] = 2,
        down_pad: int | Sequence[int] = 1,
        drop_path_rate: float = 0.0,
        drop_mlp_rate: float = 0.0,
        drop_conv_encoder_rate: float = 0.0,
        use_layer_scale: bool = True,
        layer_scale_init_value: float = 1e-5,
        batch_norm_eps: float = 1e-5,
        attention_norm: str = "ones",
        **kwargs: Any,
    ) -> None:
        for name, value in (("depths", depths), ("embed_dims", embed_dims), ("downsamples", downsamples)):
            require(isinstance(value, list | tuple), name, value, "a list with one entry per stage")
        self.image_size = image_size
        self.num_channels = num_channels
        self.depths, self.embed_dims, self.downsamples = list(depths), list(embed_dims), list(downsamples)
        self.mlp_ratio = mlp_ratio
        self.hidden_act = hidden_act
        self.down_patch_size = _whole_or_list(down_patch_size)
        self.down_stride = _whole_or_list(down_stride)
        self.down_pad = _whole_or_list(down_pad)
        self.drop_path_rate = drop_path_rate
        self.drop_mlp_rate = drop_mlp_rate
        self.drop_conv_encoder_rate = drop_conv_encoder_rate
        self.use_layer_scale = use_layer_scale
        self.layer_scale_init_value = layer_scale_init_value
        self.batch_norm_eps = batch_norm_eps
        self.attention_norm = attention_norm
        super().__init__(**kwargs)
        self.validate()

    @classmethod
    def for_variant(cls, name: str, **overrides: Any) -> Self:
        """Return the config of XS, S, L1 or L3, by its name in `VARIANTS`. Raises ValueError for another name."""
        require(name in VARIANTS, "name", name, f"one of {', '.join(VARIANTS)}")
        return cls(**{**VARIANTS[name], **overrides})

    def validate(self) -> None:
        """Refuse settings that no SwiftFormer can have. Raises ValueError or TypeError."""
        stages = len(self.depths)
        require(stages >= 1 and all(is_whole(d, 1) for d in self.depths), "depths", self.depths, "whole numbers >= 1")
        sizes_fit = len(self.embed_dims) == stages and all(is_whole(c, 2) for c in self.embed_dims)
        require(sizes_fit, "embed_dims", self.embed_dims, f"{stages} whole numbers >= 2, one per entry of depths")
        switches = len(self.downsamples) >= stages - 1 and all(s in (False, True) for s in self.downsamples)
        require(switches, "downsamples", self.downsamples, f"at least {stages - 1} of True or False")
        for name in ("num_channels", "image_size"):
            require(is_whole(getattr(self, name), 1), name, getattr(self, name), "a whole number of at least 1")
        for name, least in (("down_patch_size", 1), ("down_stride", 1), ("down_pad", 0)):
            pair(name, getattr(self, name), least)
        require_activation("hidden_act", self.hidden_act)
        wide_enough = is_number(self.mlp_ratio, 0) and int(self.mlp_ratio * min(self.embed_dims)) >= 1
        expected = f"a number that makes at least one channel of {min(self.embed_dims)}"
        require(wide_enough, "mlp_ratio", self.mlp_ratio, expected)
        for name in ("batch_norm_eps", "drop_path_rate", "drop_mlp_rate", "drop_conv_encoder_rate"):
            require(is_number(getattr(self, name), 0), name, getattr(self, name), "a number of at least 0")
        scale = self.layer_scale_init_value
        require(is_number(scale, -1e30), "layer_scale_init_value", scale, "a number")
        require(self.attention_norm in ("ones", "l2"), "attention_norm", self.attention_norm, '"ones" or "l2"')


def _whole_or_list(value: Any) -> Any:
    """Return a number, or a new list of two numbers, the form that JSON has."""
    return list(value) if isinstance(value, list | tuple) else value


class SwiftFormerPatchEmbedding(Module):
    """The stem, two strided 3x3 convolutions: (B, 3, H, W) -> (B, C, H/4, W/4)."""

    def __init__(self, config: SwiftFormerConfig) -> None:
        channels = config.embed_dims[0]
        self.patch_embedding = Sequential(
            Conv2d(config.num_channels, channels // 2, kernel_size=3, stride=2, padding=1),
            BatchNorm2d(channels // 2, config.batch_norm_eps),
            Activation("relu"),
            Conv2d(channels // 2, channels, kernel_size=3, stride=2, padding=1),
            BatchNorm2d(channels, config.batch_norm_eps),
            Activation("relu"),
        )

    def forward(self, pixel_values: Array) -> Array:
        """Convolve, normalise, apply ReLU, twice."""
        return self.patch_embedding(pixel_values)


class SwiftFormerEmbeddings(Module):
    """The downsampling between two stages: (B, C, H, W) -> (B, C', H/2, W/2)."""

    def __init__(self, config: SwiftFormerConfig, in_channels: int, out_channels: int) -> None:
        kernel, stride = pair("down_patch_size", config.down_patch_size, 1), pair("down_stride", config.down_stride, 1)
        self.proj = Conv2d(in_channels, out_channels, kernel, stride, pair("down_pad", config.down_pad, 0))
        self.norm = BatchNorm2d(out_channels, config.batch_norm_eps)

    def forward(self, x: Array) -> Array:
        """Convolve and normalise."""
        return self.norm(self.proj(x))


class _ConvBlock(Module):
    """Base class of the two convolutional modules: a depthwise 3x3 convolution, then two 1x1 ones. Same shape out."""

    def __init__(self, config: SwiftFormerConfig, channels: int, hidden: int) -> None:
        self.layer_scale = np.ones((channels, 1, 1), np.float32)
        self.depth_wise_conv = Conv2d(channels, channels, kernel_size=3, padding=1, groups=channels)
        self.norm = BatchNorm2d(channels, config.batch_norm_eps)
        self.point_wise_conv1 = Conv2d(channels, hidden, kernel_size=1)
        self.act = Activation("gelu")  # regardless of config.hidden_act
        self.point_wise_conv2 = Conv2d(hidden, channels, kernel_size=1)
        self.drop_path = Identity()

    def forward(self, x: Array) -> Array:
        """Filter each channel, mix the channels, add to the input."""
        mixed = self.norm(self.depth_wise_conv(x))
        mixed = self.act(self.point_wise_conv1(mixed))  # (B, C, H, W) -> (B, hidden, H, W)
        mixed = self.point_wise_conv2(mixed)  # back to (B, C, H, W)
        return x + self.drop_path(self.layer_scale * mixed)


class SwiftFormerConvEncoder(_ConvBlock):
    """A convolutional block with an expansion inside: (B, C, H, W), same shape out."""

    def __init__(self, config: SwiftFormerConfig, channels: int) -> None:
        super().__init__(config, channels, int(config.mlp_ratio * channels))


class SwiftFormerLocalRepresentation(_ConvBlock):
    """The local mixing of neighbours before the attention, as wide as its input: (B, C, H, W), same shape out."""

    def __init__(self, config: SwiftFormerConfig, channels: int) -> None:
        super().__init__(config, channels, channels)


class SwiftFormerMlp(Module):
    """The channel mixer of an encoder block, on maps: (B, C, H, W), same shape out."""

    def __init__(self, config: SwiftFormerConfig, channels: int) -> None:
        hidden = int(config.mlp_ratio * channels)
        self.norm1 = BatchNorm2d(channels, config.batch_norm_eps)
        self.fc1 = Conv2d(channels, hidden, kernel_size=1)
        self.act = Activation(config.hidden_act)
        self.fc2 = Conv2d(hidden, channels, kernel_size=1)
        self.drop = Identity()

    def forward(self, x: Array) -> Array:
        """Normalise, expand, activate, project."""
        x = self.drop(self.act(self.fc1(self.norm1(x))))
        return self.drop(self.fc2(x))


LAYOUTS = {"query": "BND", "key": "BND", "weights": "BN1", "global_query": "B1D"}  # of the values inside attention


class SwiftFormerEfficientAdditiveAttention(Module):
    """The token mixer, `ops.efficient_additive_attention` between linear layers: (B, N, D), same shape out.

    out = final(proj(G * k) + q), G the one global query: every token's key is gated by the same vector, so N tokens
    cost N products instead of N * N.
    """

    def __init__(self, config: SwiftFormerConfig, channels: int) -> None:
        self.attention_norm = config.attention_norm
        self.w_g = np.zeros((channels, 1), np.float32)
        self.to_query = Linear(channels, channels)
        self.to_key = Linear(channels, channels)
        self.proj = Linear(channels, channels)
        self.final = Linear(channels, channels)

    def forward(self, x: Array) -> Array:
        """Mix the tokens through the global query; the normalised queries are added back before the last layer."""
        context, query = ops.efficient_additive_attention(
            self.to_query(x),
            self.to_key(x),
            self.w_g,
            self.attention_norm,
            tap=lambda name, value: self.tap(name, value, LAYOUTS[name]),
        )
        return self.final(self.proj(self.tap("context", context, "BND")) + query)

    def multiply_adds(self, inputs: tuple[Any, ...], output: Any) -> int:
        """Count queries times w_g: one per number of the input."""
        return output.size


class SwiftFormerEncoderBlock(Module):
    """Local representation, attention over all pixels, MLP, with skip connections: (B, C, H, W), same shape out."""

    def __init__(self, config: SwiftFormerConfig, channels: int) -> None:
        fresh = np.full((channels, 1, 1), config.layer_scale_init_value, np.float32)
        self.layer_scale_1 = fresh if config.use_layer_scale else None
        self.layer_scale_2 = fresh.copy() if config.use_layer_scale else None
        self.local_representation = SwiftFormerLocalRepresentation(config, channels)
        self.attn = SwiftFormerEfficientAdditiveAttention(config, channels)
        self.linear = SwiftFormerMlp(config, channels)
        self.drop_path = Identity()

    def forward(self, x: Array) -> Array:
        """Add scale_1 * attention(x), then scale_2 * mlp(x). No norm before the attention."""
        x = self.local_representation(x)
        batch, channels, height, width = x.shape
        tokens = x.reshape(batch, channels, height * width).swapaxes(1, 2)  # (B, C, H, W) -> (B, N, C)
        mixed = self.attn(np.ascontiguousarray(tokens))
        mixed = mixed.swapaxes(1, 2).reshape(x.shape)  # (B, N, C) -> (B, C, H, W)
        x = self.tap("mixed", x + self.drop_path(_scaled(self.layer_scale_1, mixed)), "BCHW")
        return x + self.drop_path(_scaled(self.layer_scale_2, self.linear(x)))


def _scaled(layer_scale: Array | None, branch: Array) -> Array:
    return branch if layer_scale is None else layer_scale * branch


class SwiftFormerStage(Module):
    """Convolutional blocks, and one block with attention at the end: (B, C, H, W), same shape out."""

    def __init__(self, config: SwiftFormerConfig, stage: int) -> None:
        channels, depth = config.embed_dims[stage], config.depths[stage]
        blocks: list[Module] = [SwiftFormerConvEncoder(config, channels) for _ in range(depth - 1)]
        self.blocks = ModuleList([*blocks, SwiftFormerEncoderBlock(config, channels)])

    def forward(self, x: Array) -> Array:
        """Apply the blocks in order."""
        for block in self.blocks:
            x = block(x)
        return x


class SwiftFormerEncoder(Module):
    """All stages with the downsampling between them: (B, C, H/4, W/4) -> (B, C', H/32, W/32)."""

    def __init__(self, config: SwiftFormerConfig) -> None:
        network: list[Module] = [SwiftFormerStage(config, 0)]
        for stage, downsample in enumerate(downsampling(config.embed_dims, config.downsamples), start=1):
            if downsample:
                network.append(SwiftFormerEmbeddings(config, *config.embed_dims[stage - 1 : stage + 1]))
            network.append(SwiftFormerStage(config, stage))
        self.network = ModuleList(network)

    def forward(self, x: Array, output_hidden_states: bool = True) -> BaseModelOutputWithNoAttention:
        """Return the last map and, if requested, the hidden states: the input, then every step's output.

        Steps are the stages and the downsamplings between them.
        """
        hidden_states: Arrays | None = (x,) if output_hidden_states else None
        for step in self.network:
            x = step(x)
            if hidden_states is not None:
                hidden_states += (x,)
        return BaseModelOutputWithNoAttention(last_hidden_state=x, hidden_states=hidden_states)


class SwiftFormerPreTrainedModel(PreTrainedModel):
    """Base class of the base model and the classifier."""

    config_class = SwiftFormerConfig
    base_model_prefix = "swiftformer"

    def init_module(self, module: Module, generator: np.random.Generator) -> None:
        """Draw also `w_g`, from a normal distribution of standard deviation 1."""
        super().init_module(module, generator)
        if isinstance(module, SwiftFormerEfficientAdditiveAttention):
            module.w_g = generator.standard_normal(module.w_g.shape, np.float32)


class SwiftFormerModel(SwiftFormerPreTrainedModel):
    """The base model, from pictures to a map. (B, 3, 224, 224) -> last_hidden_state (B, 220, 7, 7) for XS.

    Pictures may have any size. Weights are random (`seed` makes them repeatable) until loaded with `from_pretrained`
    or `load_state_dict`.
    """

    def __init__(self, config: SwiftFormerConfig, *, init_weights: bool = True, seed: int | None = None) -> None:
        super().__init__(config)
        self.patch_embed = SwiftFormerPatchEmbedding(config)
        self.encoder = SwiftFormerEncoder(config)
        if init_weights:
            self.init_weights(seed)

    def forward(
        self,
        pixel_values: Array | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> BaseModelOutputWithNoAttention | tuple[Any, ...]:
        """Run the network on `pixel_values` (B, C, H, W), normalised as by an image processor.

        Returns last_hidden_state (B, C', H/32, W/32) and if requested (the config decides where an argument is None)
        hidden_states, from the stem's output through every stage's and downsampling's. With return_dict=False the
        values that are present, as a tuple.

        Raises ValueError or TypeError for an input of the wrong rank, channels or dtype, or without pixels.
        """
        pixel_values = self.check_pixel_values(pixel_values)
        self._check_size(*pixel_values.shape[2:])
        wanted = chosen(output_hidden_states, self.config.output_hidden_states)
        encoded = self.encoder(self.patch_embed(pixel_values), wanted)
        output = BaseModelOutputWithNoAttention(
            last_hidden_state=encoded.last_hidden_state,
            hidden_states=encoded.hidden_states,
        )
        return self.as_asked(output, return_dict)

    def _check_size(self, height: int, width: int) -> None:
        """Refuse a picture that shrinks to nothing inside the network. Raises ValueError."""
        config, size = self.config, (height, width)
        kernel, stride = pair("down_patch_size", config.down_patch_size, 1), pair("down_stride", config.down_stride, 1)
        down, across = pair("down_pad", config.down_pad, 0)
        stem, between = ((3, 3), (2, 2), ((1, 1), (1, 1))), (kernel, stride, ((down, down), (across, across)))
        times = sum(downsampling(config.embed_dims, config.downsamples))
        with naming_the_picture(height, width):
            for step in (stem, stem, *[between] * times):
                size = output_sizes(size, *step, (1, 1))

    def extract_feat(self, pixel_values: Array) -> Arrays:
        """Return feature maps for detection or segmentation: each stage's output, before the next downsampling.

        (B, 3, 224, 224) -> (B, 48, 56, 56), (B, 56, 28, 28), (B, 112, 14, 14), (B, 220, 7, 7) for XS: strides 4, 8, 16
        and 32. The classifier's batch norm is not applied.

        Raises ValueError or TypeError as `forward`.
        """
        states = self(pixel_values, output_hidden_states=True, return_dict=True).hidden_states
        positions = stage_positions(self.config.embed_dims, self.config.downsamples)
        return tuple(states[position] for position in positions)


class SwiftFormerForImageClassification(SwiftFormerPreTrainedModel):
    """The model with two heads whose logits are averaged: (B, 3, 224, 224) -> logits (B, K).

    One head was trained on the labels, the other to imitate a teacher network (distillation).
    """

    def __init__(self, config: SwiftFormerConfig, *, init_weights: bool = True, seed: int | None = None) -> None:
        super().__init__(config)
        width = config.embed_dims[-1]
        self.swiftformer = SwiftFormerModel(config, init_weights=False)
        self.norm = BatchNorm2d(width, config.batch_norm_eps)
        self.head = classifier_head(config, width)
        self.dist_head = classifier_head(config, width)
        if init_weights:
            self.init_weights(seed)

    def forward(
        self,
        pixel_values: Array | None = None,
        labels: Any = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> ImageClassifierOutputWithNoAttention | tuple[Any, ...]:
        """Classify `pixel_values` (B, C, H, W); other arguments and errors as in `SwiftFormerModel.forward`.

        Returns logits (B, K), the mean of both heads', before any softmax, and, where `labels` are given, the loss
        that `loss` describes.
        """
        outputs = self.swiftformer(pixel_values, output_hidden_states, return_dict=True)
        pooled = ops.adaptive_avg_pool2d(self.norm(outputs.last_hidden_state), 1)[:, :, 0, 0]  # (B, C, H, W) -> (B, C)
        pooled = self.tap("pooled", pooled, "BD")
        logits = (self.head(pooled) + self.dist_head(pooled)) / 2
        output = ImageClassifierOutputWithNoAttention(
            loss=None if labels is None else self.loss(logits, labels),
            logits=logits,
            hidden_states=outputs.hidden_states,
        )
        return self.as_asked(output, return_dict)
