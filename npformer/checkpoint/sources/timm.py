"""timm: EfficientFormer, EfficientNet (`efficientnet_*` and `tf_efficientnet_*`) and SwiftFormer.

timm averages both heads of EfficientFormer and SwiftFormer: compare with the class that does the same, which for
the former is EfficientFormerForImageClassificationWithTeacher.
"""

from __future__ import annotations

from collections.abc import Iterable

from . import rules
from .rules import Architecture, Rule, Rules, apply, efficientformer_last_stage, efficientnet_blocks

# `efficientnet_*` and `tf_efficientnet_*` have the same keys and shapes: only the name tells how a model pads.
ARCHITECTURES: dict[str, Architecture] = {
    **{
        f"efficientformer_{n}": Architecture(f"efficientformer-{n}", {"layer_norm_eps": 1e-5})
        for n in ("l1", "l3", "l7")
    },
    **{
        f"efficientnet_b{n}": Architecture(f"efficientnet-b{n}", {"batch_norm_eps": 1e-5, "padding": "symmetric"})
        for n in range(9)
    },
    **{
        f"tf_efficientnet_b{n}": Architecture(
            f"efficientnet-b{n}", {"batch_norm_eps": 1e-3, "padding": "tf-same-dynamic"}
        )
        for n in range(9)
    },
    **{
        f"swiftformer_{n}": Architecture(f"swiftformer-{n}", {"attention_norm": "l2"}) for n in ("xs", "s", "l1", "l3")
    },
}

MARKS = {
    "efficientformer": r"stages\.\d+\.blocks\.\d+\.(ls[12]|token_mixer)\.",
    "efficientnet": r"blocks\.\d+\.\d+\.conv_(dw|pw)\.",
    "swiftformer": r"stages\.\d+\.blocks\.\d+\.(dwconv|local_representation|attn|linear)\.",
}


def rename(keys: Iterable[str], family: str) -> dict[str, str]:
    """Return the name here of each of timm's keys. `family`: "efficientformer", "efficientnet" or "swiftformer".

    Expects all keys of a model at once: some indices depend on which blocks there are.

    Raises ValueError for another family, and for keys that timm's models of that family do not have.
    """
    return apply(TABLES, keys, family, "timm")


META4D: Rules = (Rule(r"ls([12])\.gamma", r"layer_scale_\1"), *rules.META4D)
META3D: Rules = (Rule(r"ls([12])\.gamma", r"layer_scale_\1"), *rules.META3D)


def efficientformer(keys: list[str]) -> Rules:
    """Return the rules for EfficientFormer.

    A stage there includes the downsampling before it; here they are items 2s and 2s - 1 of one list.
    """
    stages = "efficientformer.encoder.intermediate_stages"
    return (
        Rule(r"stem\.conv([12])\.", r"efficientformer.patch_embed.convolution\1."),
        Rule(r"stem\.norm1\.", "efficientformer.patch_embed.batchnorm_before."),
        Rule(r"stem\.norm2\.", "efficientformer.patch_embed.batchnorm_after."),
        Rule(r"stages\.([0-2])\.blocks\.(\d+)\.", lambda s, j: f"{stages}.{2 * s}.meta4D_layers.blocks.{j}.", META4D),
        Rule(r"stages\.([1-3])\.downsample\.conv\.", lambda s: f"{stages}.{2 * s - 1}.projection."),
        Rule(r"stages\.([1-3])\.downsample\.norm\.", lambda s: f"{stages}.{2 * s - 1}.norm."),
        *efficientformer_last_stage(keys, r"stages\.3\.blocks\.(\d+)\.", META4D, META3D),
        Rule(r"norm\.", "efficientformer.layernorm."),
        Rule(r"head\.", "classifier."),
        Rule(r"head_dist\.", "distillation_classifier."),
    )


SQUEEZE_EXCITE: Rules = (
    Rule(r"se\.conv_reduce\.", "squeeze_excite.reduce."),
    Rule(r"se\.conv_expand\.", "squeeze_excite.expand."),
)
EXPANDING: Rules = (
    Rule(r"conv_pw\.", "expansion.expand_conv."),
    Rule(r"bn1\.", "expansion.expand_bn."),
    Rule(r"conv_dw\.", "depthwise_conv.depthwise_conv."),
    Rule(r"bn2\.", "depthwise_conv.depthwise_norm."),
    *SQUEEZE_EXCITE,
    Rule(r"conv_pwl\.", "projection.project_conv."),
    Rule(r"bn3\.", "projection.project_bn."),
)
PLAIN: Rules = (
    Rule(r"conv_dw\.", "depthwise_conv.depthwise_conv."),
    Rule(r"bn1\.", "depthwise_conv.depthwise_norm."),
    *SQUEEZE_EXCITE,
    Rule(r"conv_pw\.", "projection.project_conv."),
    Rule(r"bn2\.", "projection.project_bn."),
)


def efficientnet(keys: list[str]) -> Rules:
    """Return the rules for EfficientNet.

    In a block without expansion, `conv_pw` and `bn1` are other layers than elsewhere.
    """
    return (
        Rule(r"conv_stem\.", "efficientnet.embeddings.convolution."),
        Rule(r"bn1\.", "efficientnet.embeddings.batchnorm."),
        *efficientnet_blocks(keys, r"blocks\.(\d+)\.(\d+)\.", r"(conv_pwl|bn3)\.", EXPANDING, PLAIN),
        Rule(r"conv_head\.", "efficientnet.encoder.top_conv."),
        Rule(r"bn2\.", "efficientnet.encoder.top_bn."),
        Rule(r"classifier\."),
    )


SWIFTFORMER_BLOCK: Rules = (
    Rule(r"(local_representation\.layer_scale|layer_scale|layer_scale_[12])\.gamma", r"\1"),
    *rules.SWIFTFORMER_BLOCK,
)


def swiftformer(keys: list[str]) -> Rules:
    """Return the rules for SwiftFormer.

    A stage there includes the downsampling before it; here they are items 2s and 2s - 1 of one list.
    """
    network = "swiftformer.encoder.network"
    return (
        Rule(r"stem\.([0134])\.", r"swiftformer.patch_embed.patch_embedding.\1."),
        Rule(r"stages\.([0-3])\.blocks\.(\d+)\.", lambda s, j: f"{network}.{2 * s}.blocks.{j}.", SWIFTFORMER_BLOCK),
        Rule(r"stages\.([1-3])\.downsample\.(proj|norm)\.", lambda s, layer: f"{network}.{2 * s - 1}.{layer}."),
        Rule(r"(norm|head)\."),
        Rule(r"head_dist\.", "dist_head."),
    )


TABLES = {"efficientformer": efficientformer, "efficientnet": efficientnet, "swiftformer": swiftformer}
