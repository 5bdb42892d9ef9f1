"""EfficientNet: one small network, and a rule that scales its width, depth and resolution together.

Every block is an inverted bottleneck: it expands its input, filters each channel on its own (depthwise), gates the
channels by the picture's content (squeeze-and-excitation), and projects back to few channels.

    picture (B, 3, 224, 224)
      -> stem, a 3x3 convolution of stride 2         (B,   32, 112, 112)
      -> stage 1: 1 block  of 3x3                    (B,   16, 112, 112)
      -> stage 2: 2 blocks of 3x3, stride 2          (B,   24,  56,  56)
      -> stage 3: 2 blocks of 5x5, stride 2          (B,   40,  28,  28)
      -> stage 4: 3 blocks of 3x3, stride 2          (B,   80,  14,  14)      sizes of B0
      -> stage 5: 3 blocks of 5x5                    (B,  112,  14,  14)
      -> stage 6: 4 blocks of 5x5, stride 2          (B,  192,   7,   7)
      -> stage 7: 1 block  of 3x3                    (B,  320,   7,   7)
      -> 1x1 convolution                             (B, 1280,   7,   7)
      -> mean over the map, linear                   (B, K)

Source: Tan, Le 2019, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks". Names are those of
transformers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from .. import ops
from ..nn import (
    Activation,
    AdaptiveAvgPool2d,
    AdaptiveMaxPool2d,
    BatchNorm2d,
    Conv2d,
    Identity,
    Module,
    ModuleList,
)
from ..ops import Array
from ..ops.window import Pads, output_sizes, pad2d
from .config import PretrainedConfig, is_number, is_whole, require, require_activation
from .outputs import (
    Arrays,
    BaseModelOutputWithNoAttention,
    BaseModelOutputWithPoolingAndNoAttention,
    ImageClassifierOutputWithNoAttention,
)
from .pretrained import PreTrainedModel, chosen, classifier_head, naming_the_picture


class Scale(NamedTuple):
    """The scaling of one variant from B0: channels times width, blocks times depth, pictures of side resolution."""

    width: float
    depth: float
    resolution: int
    dropout: float


# Compound scaling (section 3.3 of the paper): with phi = 1, 2, ... the depth grows about as 1.2 ** phi, the width as
# 1.1 ** phi and the resolution as 1.15 ** phi, so that each step costs about twice as many multiply-adds as the last
# (1.2 * 1.1**2 * 1.15**2 = 1.92). The published numbers are rounded by hand. Parameters: B0 5,288,548, B1 7,794,184,
# B2 9,109,994, B3 12,233,232, B4 19,341,616, B5 30,389,784, B6 43,040,704, B7 66,347,960, B8 87,413,142.
VARIANTS: dict[str, Scale] = {
    "efficientnet-b0": Scale(1.0, 1.0, 224, 0.2),
    "efficientnet-b1": Scale(1.0, 1.1, 240, 0.2),
    "efficientnet-b2": Scale(1.1, 1.2, 260, 0.3),
    "efficientnet-b3": Scale(1.2, 1.4, 300, 0.3),
    "efficientnet-b4": Scale(1.4, 1.8, 380, 0.4),
    "efficientnet-b5": Scale(1.6, 2.2, 456, 0.4),
    "efficientnet-b6": Scale(1.8, 2.6, 528, 0.5),
    "efficientnet-b7": Scale(2.0, 3.1, 600, 0.5),
    "efficientnet-b8": Scale(2.2, 3.6, 672, 0.5),
}

STEM_CHANNELS, TOP_CHANNELS = 32, 1280  # of B0; scaled with the width
PADDINGS = ("hf-static", "tf-same-dynamic", "symmetric")


class EfficientNetConfig(PretrainedConfig):
    """Settings of an EfficientNet; the defaults are B7's, `for_variant("efficientnet-b0")` returns those of others.

    width_coefficient, depth_coefficient, depth_divisor: the scaling, see `round_filters` and `round_repeats`. Per
    stage of B0, before scaling: kernel_sizes, in_channels, out_channels, strides (1 or 2), num_block_repeats, and
    expand_ratios, the ratio of a block's inner channels to its input's. squeeze_expansion_ratio: ratio of the squeezed
    vector's channels to the block's input. hidden_dim: channels of the last convolution, which must be `round_filters`
    of 1280. hidden_act: any name in `ops.ACT2FN` ("swish" is SiLU), or a function. pooling_type: "mean" or "max" over
    the last map. batch_norm_eps, initializer_range: as everywhere. image_size: the side of the pictures that the
    weights were trained for.

    padding: the rule for padding before the convolutions of stride 2, in which sources differ. At other strides, and
    for every source, a convolution keeps the size. With k the kernel's side:

    - "hf-static" (transformers and lukemelas): k//2 - 1 pixels above and left, k//2 below and right, which is
      TensorFlow's SAME for even pictures; k//2 on every side in the blocks whose index is in `depthwise_padding`,
      those with an odd input at the nominal image_size. Correct at that size, and only there. The stem cannot be
      listed.
    - "tf-same-dynamic" (TensorFlow, Keras and timm's `tf_efficientnet_*`): SAME for the actual input size.
    - "symmetric" (timm's `efficientnet_*`, torchvision): k//2 on every side, in the stem too.

    Kept but without effect at inference: batch_norm_momentum, dropout_rate, drop_connect_rate, num_hidden_layers.

    Raises ValueError or TypeError for impossible values. Source: transformers 4.34, EfficientNetConfig; `padding` is
    our own.
    """

    model_type = "efficientnet"

    def __init__(
        self,
        num_channels: int = 3,
        image_size: int = 600,
        width_coefficient: float = 2.0,
        depth_coefficient: float = 3.1,
        depth_divisor: int = 8,
        kernel_sizes: Sequence[int] = (3, 3, 5, 3, 5, 5, 3),
        in_channels: Sequence[int] = (32, 16, 24, 40, 80, 112, 192),
        out_channels: Sequence[int] = (16, 24, 40, 80, 112, 192, 320),
        depthwise_padding: Sequence[int] = (),
        strides: Sequence[int] = (1, 2, 2, 2, 1, 2, 1),
        num_block_repeats: Sequence[int] = (1, 2, 2, 3, 3, 4, 1),
        expand_ratios: Sequence[int] = (1, 6, 6, 6, 6, 6, 6),
        squeeze_expansion_ratio: float = 0.25,
        hidden_act: str | Callable[[Array], Array] = "swish",
        hidden_dim: int = 2560,
        pooling_type: str = "mean",
        initializer_range: float = 0.02,
        batch_norm_eps: float = 0.001,
        batch_norm_momentum: float = 0.99,
        dropout_rate: float = 0.5,
        drop_connect_rate: float = 0.2,
        padding: str = "hf-static",
        **kwargs: Any,
    ) -> None:
        lists = {
            "kernel_sizes": kernel_sizes, "in_channels": in_channels, "out_channels": out_channels,
            "depthwise_padding": depthwise_padding, "strides": strides, "num_block_repeats": num_block_repeats,
            "expand_ratios": expand_ratios,
        }  # fmt: skip
        for name, value in lists.items():
            require(isinstance(value, list | tuple), name, value, "a list of whole numbers")
        self.num_channels = num_channels
        self.image_size = image_size
        self.width_coefficient = width_coefficient
        self.depth_coefficient = depth_coefficient
        self.depth_divisor = depth_divisor
        self.kernel_sizes = list(kernel_sizes)
        self.in_channels, self.out_channels = list(in_channels), list(out_channels)
        self.depthwise_padding, self.strides = list(depthwise_padding), list(strides)
        self.num_block_repeats, self.expand_ratios = list(num_block_repeats), list(expand_ratios)
        self.squeeze_expansion_ratio = squeeze_expansion_ratio
        self.hidden_act = hidden_act
        self.hidden_dim = hidden_dim
        self.pooling_type = pooling_type
        self.initializer_range = initializer_range
        self.batch_norm_eps = batch_norm_eps
        self.batch_norm_momentum = batch_norm_momentum
        self.dropout_rate = dropout_rate
        self.drop_connect_rate = drop_connect_rate
        self.padding = padding
        super().__init__(**kwargs)
        self.validate()
        self.num_hidden_layers = 4 * sum(self.num_block_repeats)  # as in transformers, where it is unused

    @classmethod
    def for_variant(cls, name: str, **overrides: Any) -> Self:
        """Return the config of B0 to B8, by its name in `VARIANTS`; `image_size` also decides `depthwise_padding`.

        Raises ValueError for another name.
        """
        require(name in VARIANTS, "name", name, f"one of {', '.join(VARIANTS)}")
        scale = VARIANTS[name]
        settings = {
            "width_coefficient": scale.width, "depth_coefficient": scale.depth, "image_size": scale.resolution,
            "dropout_rate": scale.dropout, **overrides,
        }  # fmt: skip
        divisor = settings.get("depth_divisor", 8)
        settings.setdefault("hidden_dim", round_filters(TOP_CHANNELS, settings["width_coefficient"], divisor))
        config = cls(**settings)
        if "depthwise_padding" not in overrides:
            config.depthwise_padding = odd_strided_blocks(config)
        return config

    def validate(self) -> None:
        """Refuse settings that no EfficientNet can have. Raises ValueError."""
        stages = len(self.kernel_sizes)
        one_each = f"{stages} whole numbers >= 1, one per entry of kernel_sizes"
        odd = stages >= 1 and all(is_whole(k, 3) and k % 2 for k in self.kernel_sizes)
        require(odd, "kernel_sizes", self.kernel_sizes, "odd whole numbers >= 3, one per stage")
        for name in ("in_channels", "out_channels", "num_block_repeats", "expand_ratios", "strides"):
            value = getattr(self, name)
            require(len(value) == stages and all(is_whole(v, 1) for v in value), name, value, one_each)
        require(max(self.strides) <= 2, "strides", self.strides, "1 or 2 for each stage")
        blocks = self.depthwise_padding
        require(all(is_whole(b, 0) for b in blocks), "depthwise_padding", blocks, "a list of block numbers >= 0")
        for name in ("num_channels", "image_size", "depth_divisor", "hidden_dim"):
            require(is_whole(getattr(self, name), 1), name, getattr(self, name), "a whole number of at least 1")
        for name in ("width_coefficient", "depth_coefficient", "squeeze_expansion_ratio"):
            value = getattr(self, name)
            require(is_number(value, 0) and value > 0, name, value, "a number above 0")
        rates = ("batch_norm_momentum", "dropout_rate", "drop_connect_rate")
        for name in ("batch_norm_eps", "initializer_range", *rates):
            require(is_number(getattr(self, name), 0), name, getattr(self, name), "a number of at least 0")
        require_activation("hidden_act", self.hidden_act)
        require(self.pooling_type in ("mean", "max"), "pooling_type", self.pooling_type, '"mean" or "max"')
        require(self.padding in PADDINGS, "padding", self.padding, f"one of {', '.join(PADDINGS)}")
        self._validate_widths()

    def _validate_widths(self) -> None:
        """Refuse a layer whose input channels differ from the output of the one before. Raises ValueError."""
        given = [self.round_filters(c) for c in (STEM_CHANNELS, *self.out_channels[:-1])]
        taken = [self.round_filters(c) for c in self.in_channels]
        expected = (
            f"{[STEM_CHANNELS, *self.out_channels[:-1]]}, the stem's channels, then what each stage gives the next"
        )
        require(given == taken, "in_channels", self.in_channels, expected)
        top = self.round_filters(TOP_CHANNELS)
        expected = f"{top}, the last convolution's {TOP_CHANNELS} channels times width_coefficient, rounded"
        require(self.hidden_dim == top, "hidden_dim", self.hidden_dim, expected)

    def round_filters(self, channels: int) -> int:
        """Scale one of B0's numbers of channels by this config's width; see the function of that name."""
        return round_filters(channels, self.width_coefficient, self.depth_divisor)

    def round_repeats(self, repeats: int) -> int:
        """Scale one of B0's numbers of blocks by this config's depth; see the function of that name."""
        return round_repeats(repeats, self.depth_coefficient)


def round_filters(channels: int, width_coefficient: float, depth_divisor: int = 8) -> int:
    """Scale a number of channels to the nearest multiple of the divisor, but never down by more than a tenth.

    wide    = channels * width_coefficient
    rounded = max(divisor, floor((wide + divisor/2) / divisor) * divisor), one divisor more if that is < 0.9 * wide

    Multiples of 8 suit vector units. Source: EfficientNet's reference code.
    """
    require(is_number(width_coefficient, 0), "width_coefficient", width_coefficient, "a number above 0")
    require(is_whole(depth_divisor, 1), "depth_divisor", depth_divisor, "a whole number of at least 1")
    wide = channels * width_coefficient
    rounded = max(depth_divisor, int(wide + depth_divisor / 2) // depth_divisor * depth_divisor)
    return rounded + depth_divisor if rounded < 0.9 * wide else rounded


def round_repeats(repeats: int, depth_coefficient: float) -> int:
    """Scale a number of blocks, rounding up: ceil(depth_coefficient * repeats)."""
    return math.ceil(depth_coefficient * repeats)


@dataclass
class BlockShape:
    """The shape of one block: its stage and index, channels in and out, kernel, stride, expansion."""

    stage: int
    number: int
    in_channels: int
    out_channels: int
    kernel_size: int
    stride: int
    expand_ratio: int
    is_first: bool  # of its stage: it may change size and channels, so it has no skip connection


def block_shapes(config: EfficientNetConfig) -> Iterator[BlockShape]:
    """Yield all blocks of all stages in order. Only the first of a stage strides and changes the channels."""
    number = 0
    for stage, repeats in enumerate(config.num_block_repeats):
        given, wide = (config.round_filters(c[stage]) for c in (config.in_channels, config.out_channels))
        for index in range(config.round_repeats(repeats)):
            first = index == 0
            yield BlockShape(
                stage, number, given if first else wide, wide, config.kernel_sizes[stage],
                config.strides[stage] if first else 1, config.expand_ratios[stage], first,
            )  # fmt: skip
            number += 1


def odd_strided_blocks(config: EfficientNetConfig) -> list[int]:
    """Return the blocks of stride 2 with an odd input at config.image_size: "hf-static"'s `depthwise_padding`.

    There TensorFlow's SAME is symmetric: 2 * (ceil(n/2) - 1) + k - n is odd for even n, even for odd n.
    """
    side, odd = math.ceil(config.image_size / 2), []  # after the stem
    for block in block_shapes(config):
        if block.stride == 2:
            if side % 2:
                odd.append(block.number)
            side = math.ceil(side / 2)
    return odd


class EfficientNetPadding(Module):
    """Zero padding before a convolution of stride 2, by the rule `config.padding`.

    (B, C, H, W) -> (B, C, top + H + bottom, left + W + right).
    """

    def __init__(self, mode: str, kernel_size: int, odd_input: bool = False) -> None:
        self.mode, self.kernel_size, self.odd_input = mode, kernel_size, odd_input

    def forward(self, x: Array) -> Array:
        """Pad the last two axes."""
        return pad2d(x, self.pads(x.shape[2], x.shape[3]))

    def pads(self, height: int, width: int) -> Pads:
        """Return ((top, bottom), (left, right)) for a picture of that size."""
        half = self.kernel_size // 2
        if self.mode == "tf-same-dynamic":
            return ops.same_padding((height, width), self.kernel_size, stride=2)
        if self.mode == "symmetric" or self.odd_input:
            return (half, half), (half, half)
        # One pixel less above and left: SAME at stride 2 for an even picture, applied to any size.
        return (half - 1, half), (half - 1, half)


class EfficientNetEmbeddings(Module):
    """The stem, a strided 3x3 convolution: (B, 3, H, W) -> (B, C, H/2, W/2)."""

    def __init__(self, config: EfficientNetConfig) -> None:
        channels = config.round_filters(STEM_CHANNELS)
        self.padding = EfficientNetPadding(config.padding, kernel_size=3)
        self.convolution = Conv2d(config.num_channels, channels, kernel_size=3, stride=2, padding="valid", bias=False)
        self.batchnorm = BatchNorm2d(channels, config.batch_norm_eps)
        self.activation = Activation(config.hidden_act)

    def forward(self, pixel_values: Array) -> Array:
        """Pad, convolve, normalise, activate."""
        return self.activation(self.batchnorm(self.convolution(self.padding(pixel_values))))


class EfficientNetExpansionLayer(Module):
    """The expansion by a 1x1 convolution: (B, C, H, W) -> (B, E, H, W)."""

    def __init__(self, config: EfficientNetConfig, in_channels: int, channels: int) -> None:
        self.expand_conv = Conv2d(in_channels, channels, kernel_size=1, padding="same", bias=False)
        self.expand_bn = BatchNorm2d(channels, config.batch_norm_eps)
        self.expand_act = Activation(config.hidden_act)

    def forward(self, x: Array) -> Array:
        """Convolve, normalise, activate."""
        return self.expand_act(self.expand_bn(self.expand_conv(x)))


class EfficientNetDepthwiseLayer(Module):
    """The depthwise convolution, which may halve the picture: (B, E, H, W) -> (B, E, H', W')."""

    def __init__(self, config: EfficientNetConfig, channels: int, shape: BlockShape) -> None:
        odd_input = shape.number in config.depthwise_padding
        self.stride = shape.stride
        self.depthwise_conv_pad = EfficientNetPadding(config.padding, shape.kernel_size, odd_input)
        self.depthwise_conv = Conv2d(
            channels,
            channels,
            shape.kernel_size,
            shape.stride,
            padding="valid" if shape.stride == 2 else "same",
            groups=channels,
            bias=False,
        )
        self.depthwise_norm = BatchNorm2d(channels, config.batch_norm_eps)
        self.depthwise_act = Activation(config.hidden_act)

    def forward(self, x: Array) -> Array:
        """Pad where it strides, convolve, normalise, activate."""
        if self.stride == 2:
            x = self.depthwise_conv_pad(x)
        return self.depthwise_act(self.depthwise_norm(self.depthwise_conv(x)))


class EfficientNetSqueezeExciteLayer(Module):
    """Attention over channels, `ops.squeeze_excite` layer by layer: (B, E, H, W), same shape out."""

    def __init__(self, config: EfficientNetConfig, in_channels: int, channels: int) -> None:
        # The squeezed vector's width derives from the block's narrow input, not from the E channels it gates.
        squeezed = max(1, int(in_channels * config.squeeze_expansion_ratio))
        self.squeeze = AdaptiveAvgPool2d(1)
        self.reduce = Conv2d(channels, squeezed, kernel_size=1, padding="same")
        self.expand = Conv2d(squeezed, channels, kernel_size=1, padding="same")
        self.act_reduce = Activation(config.hidden_act)
        self.act_expand = Activation("sigmoid")

    def forward(self, x: Array) -> Array:
        """Compute a gate for each channel from the channels' means, and multiply by it."""
        vector = self.act_reduce(self.reduce(self.squeeze(x)))  # (B, E, 1, 1) -> (B, S, 1, 1)
        return x * self.act_expand(self.expand(vector))  # (B, E, 1, 1), between 0 and 1


class EfficientNetFinalBlockLayer(Module):
    """The projection by a 1x1 convolution, with no activation after it: (B, E, H, W) -> (B, C', H, W)."""

    def __init__(self, config: EfficientNetConfig, channels: int, shape: BlockShape) -> None:
        self.adds_input = not shape.is_first and shape.stride == 1
        self.project_conv = Conv2d(channels, shape.out_channels, kernel_size=1, padding="same", bias=False)
        self.project_bn = BatchNorm2d(shape.out_channels, config.batch_norm_eps)
        self.dropout = Identity()

    def forward(self, embeddings: Array, x: Array) -> Array:
        """Convolve, normalise, and add the block's input where it has the same shape."""
        x = self.project_bn(self.project_conv(x))
        return self.dropout(x) + embeddings if self.adds_input else x


class EfficientNetBlock(Module):
    """An inverted bottleneck, narrow outside and wide inside: (B, C, H, W) -> (B, C', H', W')."""

    def __init__(self, config: EfficientNetConfig, shape: BlockShape) -> None:
        channels = shape.in_channels * shape.expand_ratio
        self.expands = shape.expand_ratio != 1
        if self.expands:
            self.expansion = EfficientNetExpansionLayer(config, shape.in_channels, channels)
        self.depthwise_conv = EfficientNetDepthwiseLayer(config, channels, shape)
        self.squeeze_excite = EfficientNetSqueezeExciteLayer(config, shape.in_channels, channels)
        self.projection = EfficientNetFinalBlockLayer(config, channels, shape)

    def forward(self, x: Array) -> Array:
        """Expand, filter each channel, gate the channels, project."""
        wide = self.expansion(x) if self.expands else x
        return self.projection(x, self.squeeze_excite(self.depthwise_conv(wide)))


class EfficientNetEncoder(Module):
    """All blocks and the last convolution: (B, C, H/2, W/2) -> (B, hidden_dim, H/32, W/32)."""

    def __init__(self, config: EfficientNetConfig) -> None:
        shapes = list(block_shapes(config))
        self.blocks = ModuleList(EfficientNetBlock(config, shape) for shape in shapes)
        self.top_conv = Conv2d(shapes[-1].out_channels, config.hidden_dim, kernel_size=1, padding="same", bias=False)
        self.top_bn = BatchNorm2d(config.hidden_dim, config.batch_norm_eps)
        self.top_activation = Activation(config.hidden_act)

    def forward(self, x: Array, output_hidden_states: bool = True) -> BaseModelOutputWithNoAttention:
        """Return the last map and, if requested, the hidden states: the input, then every block's output."""
        hidden_states: Arrays | None = (x,) if output_hidden_states else None
        for block in self.blocks:
            x = block(x)
            if hidden_states is not None:
                hidden_states += (x,)
        x = self.top_activation(self.top_bn(self.top_conv(x)))
        return BaseModelOutputWithNoAttention(last_hidden_state=x, hidden_states=hidden_states)


class EfficientNetModel(PreTrainedModel):
    """The base model, from pictures to a map and its mean. (B, 3, 224, 224) -> (B, 1280, 7, 7), (B, 1280) for B0.

    Weights are random (`seed` makes them repeatable) until loaded with `from_pretrained` or `load_state_dict`.
    """

    config_class = EfficientNetConfig
    base_model_prefix = "efficientnet"

    def __init__(self, config: EfficientNetConfig, *, init_weights: bool = True, seed: int | None = None) -> None:
        super().__init__(config)
        self.embeddings = EfficientNetEmbeddings(config)
        self.encoder = EfficientNetEncoder(config)
        self.pooler: Module = AdaptiveAvgPool2d(1) if config.pooling_type == "mean" else AdaptiveMaxPool2d(1)
        if init_weights:
            self.init_weights(seed)

    def forward(
        self,
        pixel_values: Array | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> BaseModelOutputWithPoolingAndNoAttention | tuple[Any, ...]:
        """Run the network on `pixel_values` (B, C, H, W), normalised as by an image processor.

        Returns last_hidden_state (B, hidden_dim, H/32, W/32); pooler_output (B, hidden_dim), its mean or maximum over
        the map; and if requested (the config decides where an argument is None) hidden_states, the stem's output and
        every block's. With return_dict=False the values that are present, as a tuple.

        Raises ValueError or TypeError for an input of the wrong rank, channels or dtype, or one too small to be halved
        five times (below 32 pixels with "hf-static").
        """
        pixel_values = self.check_pixel_values(pixel_values)
        self._check_size(*pixel_values.shape[2:])
        wanted = chosen(output_hidden_states, self.config.output_hidden_states)
        encoded = self.encoder(self.embeddings(pixel_values), wanted)
        output = BaseModelOutputWithPoolingAndNoAttention(
            last_hidden_state=encoded.last_hidden_state,
            pooler_output=self.pooler(encoded.last_hidden_state)[:, :, 0, 0],  # (B, D, 1, 1) -> (B, D)
            hidden_states=encoded.hidden_states,
        )
        return self.as_asked(output, return_dict)

    def _check_size(self, height: int, width: int) -> None:
        """Refuse a picture that shrinks to nothing inside the network. Raises ValueError."""
        config, size = self.config, (height, width)
        strided = [
            EfficientNetPadding(config.padding, shape.kernel_size, shape.number in config.depthwise_padding)
            for shape in block_shapes(config)
            if shape.stride == 2
        ]
        with naming_the_picture(height, width):
            for padding in (EfficientNetPadding(config.padding, kernel_size=3), *strided):  # the stem, then blocks
                kernel = padding.kernel_size, padding.kernel_size
                size = output_sizes(size, kernel, (2, 2), padding.pads(*size), (1, 1))

    def extract_feat(self, pixel_values: Array) -> Arrays:
        """Return feature maps for detection or segmentation: the last block's at every scale, from stride 4 on.

        (B, 3, 224, 224) -> (B, 24, 56, 56), (B, 40, 28, 28), (B, 112, 14, 14), (B, 320, 7, 7) for B0: strides 4, 8, 16
        and 32. The last convolution (1280 channels) belongs to the classifier and is not included.

        Raises ValueError or TypeError as `forward`.
        """
        states = self(pixel_values, output_hidden_states=True, return_dict=True).hidden_states
        blocks, stride, maps = list(block_shapes(self.config)), 2, []  # the stem has stride 2
        for number, block in enumerate(blocks):
            stride *= block.stride
            is_last_of_scale = number + 1 == len(blocks) or blocks[number + 1].stride == 2
            if is_last_of_scale and stride >= 4:
                maps.append(states[number + 1])  # the stem's output comes first
        return tuple(maps)


class EfficientNetForImageClassification(PreTrainedModel):
    """The model with a linear classifier on the pooled map: (B, 3, 224, 224) -> logits (B, K)."""

    config_class = EfficientNetConfig
    base_model_prefix = "efficientnet"

    def __init__(self, config: EfficientNetConfig, *, init_weights: bool = True, seed: int | None = None) -> None:
        super().__init__(config)
        self.efficientnet = EfficientNetModel(config, init_weights=False)
        self.dropout = Identity()
        self.classifier = classifier_head(config, config.hidden_dim)
        if init_weights:
            self.init_weights(seed)

    def forward(
        self,
        pixel_values: Array | None = None,
        labels: Any = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> ImageClassifierOutputWithNoAttention | tuple[Any, ...]:
        """Classify `pixel_values` (B, C, H, W); other arguments and errors as in `EfficientNetModel.forward`.

        Returns logits (B, K), before any softmax, and, where `labels` are given, the loss that `loss` describes.
        """
        outputs = self.efficientnet(pixel_values, output_hidden_states, return_dict=True)
        logits = self.classifier(self.dropout(outputs.pooler_output))
        output = ImageClassifierOutputWithNoAttention(
            loss=None if labels is None else self.loss(logits, labels),
            logits=logits,
            hidden_states=outputs.hidden_states,
        )
        return self.as_asked(output, return_dict)
