"""transformers: the names used here, prefixed by the family ("efficientnet.encoder...") except in base models.

Its files of SwiftFormer are of the first release, whose attention weights are all one.
"""

from __future__ import annotations

from collections.abc import Iterable

from .rules import Architecture, Rule, Rules, apply

# The settings are the defaults here: layer norms of eps 1e-12, static padding, attention weights of one.
ARCHITECTURES: dict[str, Architecture] = {
    **{
        f"snap-research/efficientformer-{n}-300": Architecture(f"efficientformer-{n}", {"layer_norm_eps": 1e-12})
        for n in ("l1", "l3", "l7")
    },
    **{
        f"google/efficientnet-b{n}": Architecture(
            f"efficientnet-b{n}", {"batch_norm_eps": 1e-3, "padding": "hf-static"}
        )
        for n in range(8)
    },
    **{
        f"MBZUAI/swiftformer-{n}": Architecture(f"swiftformer-{n}", {"attention_norm": "ones"})
        for n in ("xs", "s", "l1", "l3")
    },
}
MARKS = {
    "efficientformer": r"(efficientformer\.)?encoder\.(intermediate_stages|last_stage)\.",
    "efficientnet": r"(efficientnet\.)?encoder\.(blocks|top_conv|top_bn)\.",
    "swiftformer": r"(swiftformer\.)?encoder\.network\.",
}


def rename(keys: Iterable[str], family: str) -> dict[str, str]:
    """Return the name here of each key, in a model with a head: the same, with the prefix that base models lack.

    Raises ValueError for another family, and for keys that transformers' models of that family do not have.
    """
    return apply(TABLES, keys, family, "transformers")


def _prefix(keys: list[str], family: str) -> str:
    """Return the beginning of the base model's keys, as a pattern."""
    return rf"{family}\." if any(key.startswith(f"{family}.") for key in keys) else ""


LAYER_SCALES = Rule(r"layer_scale_[12]")
META4D: Rules = (LAYER_SCALES, Rule(r"mlp\.(convolution[12]|batchnorm_before|batchnorm_after)\."))
META3D: Rules = (
    LAYER_SCALES,
    Rule(r"(layernorm[12]|mlp\.linear_in|mlp\.linear_out|token_mixer\.qkv|token_mixer\.projection)\."),
    Rule(r"token_mixer\.(attention_biases|attention_bias_idxs)"),
)


def efficientformer(keys: list[str]) -> Rules:
    """Return the rules for EfficientFormer: layers have the names used here."""
    bare, name = _prefix(keys, "efficientformer"), r"efficientformer.\1"
    stages = r"encoder\.intermediate_stages\.\d+"
    return (
        Rule(bare + r"(patch_embed\.(?:convolution[12]|batchnorm_before|batchnorm_after)\.)", name),
        Rule(bare + rf"({stages}\.meta4D_layers\.blocks\.\d+\.)", name, META4D),
        Rule(bare + rf"({stages}\.(?:projection|norm)\.)", name),
        Rule(bare + r"(encoder\.last_stage\.meta4D_layers\.blocks\.\d+\.)", name, META4D),
        Rule(bare + r"(encoder\.last_stage\.meta3D_layers\.blocks\.\d+\.)", name, META3D),
        Rule(bare + r"(layernorm\.)", name),
        Rule(r"(classifier|distillation_classifier)\."),
    )


EFFICIENTNET_BLOCK: Rules = (
    Rule(r"expansion\.(expand_conv|expand_bn)\."),
    Rule(r"depthwise_conv\.(depthwise_conv|depthwise_norm)\."),
    Rule(r"squeeze_excite\.(reduce|expand)\."),
    Rule(r"projection\.(project_conv|project_bn)\."),
)


def efficientnet(keys: list[str]) -> Rules:
    """Return the rules for EfficientNet: layers have the names used here."""
    bare, name = _prefix(keys, "efficientnet"), r"efficientnet.\1"
    return (
        Rule(bare + r"(embeddings\.(?:convolution|batchnorm)\.)", name),
        Rule(bare + r"(encoder\.blocks\.\d+\.)", name, EFFICIENTNET_BLOCK),
        Rule(bare + r"(encoder\.(?:top_conv|top_bn)\.)", name),
        Rule(r"classifier\."),
    )


SWIFTFORMER_BLOCK: Rules = (
    Rule(r"(local_representation\.|)(depth_wise_conv|norm|point_wise_conv[12])\."),
    Rule(r"(local_representation\.layer_scale|layer_scale_[12]|layer_scale|attn\.w_g)"),
    Rule(r"attn\.(to_query|to_key|proj|final)\."),
    Rule(r"linear\.(norm1|fc1|fc2)\."),
)


def swiftformer(keys: list[str]) -> Rules:
    """Return the rules for SwiftFormer: layers have the names used here."""
    bare, name = _prefix(keys, "swiftformer"), r"swiftformer.\1"
    return (
        Rule(bare + r"(patch_embed\.patch_embedding\.[0134]\.)", name),
        Rule(bare + r"(encoder\.network\.\d+\.blocks\.\d+\.)", name, SWIFTFORMER_BLOCK),
        Rule(bare + r"(encoder\.network\.\d+\.(?:proj|norm)\.)", name),
        Rule(r"(norm|head|dist_head)\."),
    )


TABLES = {"efficientformer": efficientformer, "efficientnet": efficientnet, "swiftformer": swiftformer}
