"""The authors' own repositories of EfficientFormer and SwiftFormer.

As in timm, their models average both heads where there are two. A model trained without distillation has one head,
whose output is the logits: `copies_of_head` copies it to both, whose average is the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from . import rules
from .rules import Architecture, Rule, Rules, apply, efficientformer_last_stage

# SwiftFormer: the settings are those of the code and weights since July 2023. Earlier releases have the same names and
# shapes, and need attention_norm="ones".
ARCHITECTURES: dict[str, Architecture] = {
    **{
        f"efficientformer_{n}": Architecture(f"efficientformer-{n}", {"layer_norm_eps": 1e-5})
        for n in ("l1", "l3", "l7")
    },
    **{
        f"SwiftFormer_{n.upper()}": Architecture(f"swiftformer-{n}", {"attention_norm": "l2"})
        for n in ("xs", "s", "l1", "l3")
    },
}
MARKS = {
    "efficientformer": r"network\.\d+\.\d+\.(mlp|token_mixer)\.",
    "swiftformer": r"network\.\d+\.\d+\.(dwconv|local_representation|attn|linear)\.",
}
REFUSED = {r"norm[0246]\.": "norms of a backbone for detection or segmentation"}


def rename(keys: Iterable[str], family: str) -> dict[str, str]:
    """Return the name here of each of the authors' keys. `family`: "efficientformer" or "swiftformer".

    Expects all keys of a model at once: some indices depend on which blocks there are.

    Raises ValueError for another family, and for keys that the authors' models of that family do not have.
    """
    return apply(TABLES, keys, family, "the original repository")


def copies_of_head(names: Mapping[str, str]) -> dict[str, str]:
    """Return, for a model with one head, the keys to copy to the second head, by the names of its arrays here.

    `names` is the result of `rename`. Empty for a model that has two heads, or none.
    """
    second = {"classifier.": "distillation_classifier.", "head.": "dist_head."}
    copies = {
        second[first] + name.removeprefix(first): key
        for first in second
        for key, name in names.items()
        if name.startswith(first)
    }
    return {} if any(name.startswith(tuple(second.values())) for name in names.values()) else copies


LAYER_SCALES = Rule(r"layer_scale_[12]")
META4D: Rules = (LAYER_SCALES, *rules.META4D)
META3D: Rules = (LAYER_SCALES, *rules.META3D)


def efficientformer(keys: list[str]) -> Rules:
    """Return the rules for EfficientFormer: stages and downsamplings are one list, as here, but for the last stage."""
    stages = "efficientformer.encoder.intermediate_stages"
    return (
        Rule(r"patch_embed\.0\.", "efficientformer.patch_embed.convolution1."),
        Rule(r"patch_embed\.1\.", "efficientformer.patch_embed.batchnorm_before."),
        Rule(r"patch_embed\.3\.", "efficientformer.patch_embed.convolution2."),
        Rule(r"patch_embed\.4\.", "efficientformer.patch_embed.batchnorm_after."),
        Rule(r"network\.([024])\.(\d+)\.", rf"{stages}.\1.meta4D_layers.blocks.\2.", META4D),
        Rule(r"network\.([135])\.proj\.", rf"{stages}.\1.projection."),
        Rule(r"network\.([135])\.norm\.", rf"{stages}.\1.norm."),
        *efficientformer_last_stage(keys, r"network\.6\.(\d+)\.", META4D, META3D),
        Rule(r"norm\.", "efficientformer.layernorm."),
        Rule(r"head\.", "classifier."),
        Rule(r"dist_head\.", "distillation_classifier."),
    )


SWIFTFORMER_BLOCK: Rules = (
    Rule(r"(local_representation\.layer_scale|layer_scale_[12]|layer_scale)"),
    Rule(r"attn\.Proj\.", "attn.proj."),
    *(rule for rule in rules.SWIFTFORMER_BLOCK if not rule.pattern.startswith(r"attn\.(")),
    Rule(r"attn\.(to_query|to_key|final)\."),
)


def swiftformer(keys: list[str]) -> Rules:
    """Return the rules for SwiftFormer: stages and downsamplings form one list, as here."""
    network = "swiftformer.encoder.network"
    return (
        Rule(r"patch_embed\.([0134])\.", r"swiftformer.patch_embed.patch_embedding.\1."),
        Rule(r"network\.([0246])\.(\d+)\.", rf"{network}.\1.blocks.\2.", SWIFTFORMER_BLOCK),
        Rule(r"network\.([135])\.(proj|norm)\.", rf"{network}.\1.\2."),
        Rule(r"(norm|head|dist_head)\."),
    )


TABLES = {"efficientformer": efficientformer, "swiftformer": swiftformer}
