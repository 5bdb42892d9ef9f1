"""Inference of a model's settings from the shapes of its weights: width, depth, number of classes.

Settings that leave no trace in a shape (strides, paddings, eps) are assumed to be those of the published models. Names
are those of a model with a head, whether it has one or not.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any, NamedTuple

from ..models import efficientformer, efficientnet, swiftformer
from ..models.auto import CONFIGS

Shapes = Mapping[str, tuple[int, ...]]

VARIANTS: dict[str, tuple[str, ...]] = {
    "efficientformer": tuple(efficientformer.VARIANTS),
    "efficientnet": tuple(efficientnet.VARIANTS),
    "swiftformer": tuple(swiftformer.VARIANTS),
}
# Settings in which models of one variant may differ.
FREE = ("num_labels", "num_channels", "resolution", "image_size", "use_layer_scale")
STEMS = {
    "efficientformer": "efficientformer.patch_embed.convolution1.weight",
    "efficientnet": "efficientnet.embeddings.convolution.weight",
    "swiftformer": "swiftformer.patch_embed.patch_embedding.0.weight",
}
HEADS = {
    "efficientformer": ("classifier", "distillation_classifier"),
    "efficientnet": ("classifier",),
    "swiftformer": ("head", "dist_head"),
}
HEAD_NAMES = {name for names in HEADS.values() for name in names}
# Beyond any real model: limits of the memory to allocate.
MOST_CHANNELS, MOST_LABELS, LARGEST_RESOLUTION = 2**16, 2**20, 48


def read_settings(family: str, shapes: Shapes) -> dict[str, Any]:
    """Return all settings of the family's config that shapes determine.

    Raises ValueError (or KeyError, for weights that are missing) where no model can have these shapes.
    """
    for name, shape in shapes.items():
        if max(shape, default=0) > (MOST_LABELS if name.split(".")[0] in HEAD_NAMES else MOST_CHANNELS):
            raise ValueError(f"{name} has shape {shape}, beyond any model's")
    settings = {**_READERS[family](shapes), **free_settings(family, shapes)}
    if family == "efficientformer" and settings["num_meta3d_blocks"] and "resolution" not in settings:
        raise ValueError("the attention biases are for no square of tokens")
    return settings


def free_settings(family: str, shapes: Shapes) -> dict[str, Any]:
    """Return the settings in which models of one variant may differ, where the shapes are present and plausible."""
    settings: dict[str, Any] = {}
    stem = shapes.get(STEMS[family], ())
    heads = [shapes.get(f"{head}.{array}") for head in HEADS[family] for array in ("weight", "bias")]
    labels = Counter(shape[0] for shape in heads if shape)  # they should agree
    if len(stem) == 4 and 1 <= stem[1] <= MOST_CHANNELS:
        settings["num_channels"] = stem[1]
    if labels and (most := labels.most_common(1)[0][0]) <= MOST_LABELS:
        settings["num_labels"] = most
    elif family == "swiftformer" and "norm.weight" in shapes:
        settings["num_labels"] = 0  # the classifier's batch norm without heads
    if family == "efficientformer":
        settings.update(_token_grid(shapes))
    if family != "efficientnet":
        settings["use_layer_scale"] = any(name.endswith(".layer_scale_1") for name in shapes)
    return settings


def variant_settings(variant: str) -> dict[str, Any]:
    """Return the settings that define a variant: those in which its config differs from the family's default.

    They include everything that its weights' shapes depend on, except `FREE`.
    """
    config = CONFIGS[variant.split("-")[0]]
    default, chosen = vars(config()), vars(config.for_variant(variant))
    return {name: value for name, value in chosen.items() if value != default[name] and name not in DERIVED}


def find_variant(family: str, settings: Mapping[str, Any]) -> str | None:
    """Return the published variant that has these settings, except for `FREE`; None if there is none."""
    for variant in VARIANTS[family]:
        config = vars(CONFIGS[family].for_variant(variant))
        if all(config[name] == value for name, value in settings.items() if name not in FREE):
            return variant
    return None


DERIVED = ("hidden_size", "num_hidden_layers", "id2label", "label2id")  # follow from others


def _numbers(shapes: Shapes, pattern: str) -> set[int]:
    """Return the numbers at the pattern's group in the names."""
    return {int(match[1]) for match in (re.match(pattern, name) for name in shapes) if match}


def _ratio(pairs: Iterable[tuple[int, int]], usual: float, least: int = 0) -> float:
    """Return the r with int(narrow * r) = wide for each (narrow, wide): the usual one if it fits, else the smallest.

    `least` is the lower bound of `wide`. Where no r fits them all, the result fits some.
    """
    pairs = set(pairs)
    if all(max(least, int(narrow * usual)) == wide for narrow, wide in pairs):
        return usual
    ratio = max(wide / narrow for narrow, wide in pairs)
    while any(int(narrow * ratio) < wide for narrow, wide in pairs):  # correct for rounding in the division
        ratio = math.nextafter(ratio, math.inf)
    return int(ratio) if ratio == int(ratio) else ratio


def _side(kernel: tuple[int, ...]) -> int | list[int]:
    """Return the size of a kernel (O, I, H, W): a single number if it is square."""
    return kernel[2] if kernel[2] == kernel[3] else [kernel[2], kernel[3]]


class _Stages(NamedTuple):
    """The stages and downsamplings of a list."""

    depths: list[int]
    widths: list[int]
    downsamples: list[bool]
    kernels: list[tuple[int, ...]]


def _stages(shapes: Shapes, stem: str, row: str, blocks: str, downsampling: str) -> _Stages:
    """Parse a list that begins with a stage and may have a downsampling between any two."""
    depths: list[int] = []
    widths, downsamples, kernels = [shapes[stem][0]], [], []
    weights = {step: shapes[f"{row}.{step}.{downsampling}"] for step in _numbers(shapes, rf"{row}\.(\d+)\.proj")}
    length = max(_numbers(shapes, rf"{row}\.(\d+)\."), default=-1) + 1
    if length > len(shapes):
        raise ValueError(f"{row} numbers more than there are")
    step = 0
    while step < length:
        depths.append(len(_numbers(shapes, rf"{row}\.{step}\.{blocks}\.(\d+)\.")))
        follows = step + 1 in weights
        if step + 1 < length or follows:
            downsamples.append(follows)
            widths.append(weights[step + 1][0] if follows else widths[-1])
            kernels += [weights[step + 1]] if follows else []
        step += 1 + follows
    return _Stages(depths, widths, downsamples, kernels)


def _efficientformer(shapes: Shapes) -> dict[str, Any]:
    encoder = "efficientformer.encoder"
    last, meta3d = rf"{encoder}\.last_stage", f"{encoder}.last_stage.meta3D_layers.blocks.0"
    stages = _stages(
        shapes,
        "efficientformer.patch_embed.convolution2.weight",
        f"{encoder}.intermediate_stages",
        r"meta4D_layers\.blocks",
        "projection.weight",
    )
    attention = len(_numbers(shapes, rf"{last}\.meta3D_layers\.blocks\.(\d+)\."))
    depths = [*stages.depths, len(_numbers(shapes, rf"{last}\.meta4D_layers\.blocks\.(\d+)\.")) + attention]
    # The list ends in a stage or in a downsampling; the last stage is not part of it.
    downsamples = [*stages.downsamples, *([False] if len(stages.downsamples) < len(stages.depths) else []), True]
    widths = [*stages.widths, *([stages.widths[-1]] if len(stages.widths) < len(depths) else [])]
    settings: dict[str, Any] = {
        "depths": depths, "hidden_sizes": widths, "downsamples": downsamples, "dim": widths[-1],
        "num_meta3d_blocks": attention,
        "mlp_expansion_ratio": _ratio(
            (
                (shape[1], shape[0])
                for name, shape in shapes.items()
                if re.search(r"\.mlp\.(convolution1|linear_in)\.weight$", name)
            ),
            usual=4,
        ),
    }  # fmt: skip
    if stages.kernels:
        settings["downsample_patch_size"] = stages.kernels[0][2]
    if attention:
        heads = shapes[f"{meta3d}.token_mixer.attention_biases"][0]
        value = shapes[f"{meta3d}.token_mixer.projection.weight"][1] // heads
        key = (shapes[f"{meta3d}.token_mixer.qkv.weight"][0] // heads - value) // 2
        settings |= {"num_attention_heads": heads, "key_dim": key, "attention_ratio": _ratio([(key, value)], usual=4)}
    return settings


def _token_grid(shapes: Shapes) -> dict[str, int]:
    """Return the sides of the token grid and of the picture, from the table of attention biases (h, side * side)."""
    blocks = "efficientformer.encoder.last_stage.meta3D_layers.blocks"
    for name, shape in shapes.items():
        if name.startswith(blocks) and name.endswith(".attention_biases") and len(shape) == 2:
            side = math.isqrt(shape[1])
            if side**2 != shape[1] or not 1 <= side <= LARGEST_RESOLUTION:
                break
            halved = 2 + len(_numbers(shapes, r"efficientformer\.encoder\.intermediate_stages\.(\d+)\.projection"))
            return {"resolution": side, "image_size": side * 2**halved}
    return {}


def _swiftformer(shapes: Shapes) -> dict[str, Any]:
    network = "swiftformer.encoder.network"
    stem = "swiftformer.patch_embed.patch_embedding.3.weight"
    stages = _stages(shapes, stem, network, "blocks", "proj.weight")
    pairs = (
        (shape[1], shape[0])
        for name, shape in shapes.items()
        if re.search(r"(blocks\.\d+\.point_wise_conv1|linear\.fc1)\.weight$", name)
    )
    settings: dict[str, Any] = {
        "depths": stages.depths,
        "embed_dims": stages.widths,
        "downsamples": [*stages.downsamples, True],
        "mlp_ratio": _ratio(pairs, usual=4),
    }
    if stages.kernels:
        settings["down_patch_size"] = _side(stages.kernels[0])
    return settings


class _Block(NamedTuple):
    """A block of an EfficientNet: the properties that may differ within its stage, and its input channels."""

    wide: int
    kernel: int
    ratio: int
    given: int


def _efficientnet(shapes: Shapes) -> dict[str, Any]:
    count = len(_numbers(shapes, r"efficientnet\.encoder\.blocks\.(\d+)\."))
    blocks = [_block(shapes, f"efficientnet.encoder.blocks.{n}") for n in range(count)]
    ends = shapes[STEMS["efficientnet"]][0], shapes["efficientnet.encoder.top_conv.weight"][0]
    squeezed = {
        (block.given, shapes[f"efficientnet.encoder.blocks.{n}.squeeze_excite.reduce.weight"][0])
        for n, block in enumerate(blocks)
    }
    settings = {"squeeze_expansion_ratio": _ratio(squeezed, usual=0.25, least=1)}
    for variant in efficientnet.VARIANTS:
        config = efficientnet.EfficientNetConfig.for_variant(variant)
        published = [
            _Block(b.out_channels, b.kernel_size, b.expand_ratio, b.in_channels)
            for b in efficientnet.block_shapes(config)
        ]
        top = config.hidden_dim
        if (blocks, ends) == (published, (config.round_filters(efficientnet.STEM_CHANNELS), top)):
            return {**variant_settings(variant), **settings}
    return {**_scaled_network(blocks, *ends), **settings}


def _block(shapes: Shapes, name: str) -> _Block:
    inner, _, kernel, _ = shapes[f"{name}.depthwise_conv.depthwise_conv.weight"]
    expansion = shapes.get(f"{name}.expansion.expand_conv.weight")
    given = expansion[1] if expansion else inner
    return _Block(shapes[f"{name}.projection.project_conv.weight"][0], kernel, inner // given, given)


def _scaled_network(blocks: list[_Block], stem: int, top: int) -> dict[str, Any]:
    """Return the settings of an EfficientNet of unpublished size: seven stages, with the published strides."""
    default = efficientnet.EfficientNetConfig()
    stages = [(*key, len(list(group))) for key, group in groupby(blocks, key=lambda block: block[:3])]
    if len(stages) != len(default.strides):
        raise ValueError(f"{len(stages)} stages of blocks, and shapes do not tell which of them are strided")
    width, divisor, out_channels = _width(stem, [stage[0] for stage in stages], top)
    settings: dict[str, Any] = {
        "width_coefficient": width, "depth_coefficient": 1.0, "depth_divisor": divisor, "hidden_dim": top,
        "kernel_sizes": [stage[1] for stage in stages],
        "expand_ratios": [stage[2] for stage in stages],
        "num_block_repeats": [stage[3] for stage in stages],
        "in_channels": [efficientnet.STEM_CHANNELS, *out_channels[:-1]],
        "out_channels": out_channels, "image_size": 224,
    }  # fmt: skip
    settings["depthwise_padding"] = efficientnet.odd_strided_blocks(efficientnet.EfficientNetConfig(**settings))
    return settings


def _width(stem: int, widths: list[int], top: int) -> tuple[float, int, list[int]]:
    """Return the width and divisor that scale B0's first and last convolution to these channels.

    The third value is the stages' channels before scaling.

    Raises ValueError where there are none.
    """
    usual = efficientnet.EfficientNetConfig().out_channels
    for divisor in (8, 4, 2, 1, 16, 32):
        for width in (top / efficientnet.TOP_CHANNELS, stem / efficientnet.STEM_CHANNELS):

            def scaled(channels: int, width: float = width, divisor: int = divisor) -> int:
                return efficientnet.round_filters(channels, width, divisor)

            near = [[base, *(int(wide / width) + step for step in range(-2, 3))] for base, wide in zip(usual, widths)]
            fitting = [[base for base in bases if scaled(base) == wide] for bases, wide in zip(near, widths)]
            if (scaled(efficientnet.STEM_CHANNELS), scaled(efficientnet.TOP_CHANNELS)) == (stem, top) and all(fitting):
                return width, divisor, [bases[0] for bases in fitting]
    raise ValueError(f"no width scales B0 to {[stem, *widths, top]} channels")


_READERS = {"efficientformer": _efficientformer, "efficientnet": _efficientnet, "swiftformer": _swiftformer}
