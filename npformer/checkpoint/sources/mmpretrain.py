"""mmpretrain: EfficientFormer. Both heads are averaged, as the two-headed class here does."""

from __future__ import annotations

from collections.abc import Iterable

from . import rules
from .rules import Architecture, Rule, Rules, apply, efficientformer_last_stage

ARCHITECTURES: dict[str, Architecture] = {
    f"efficientformer-{n}_3rdparty_8xb128_in1k": Architecture(f"efficientformer-{n}", {"layer_norm_eps": 1e-5})
    for n in ("l1", "l3", "l7")
}
# The published weights: the file, and the beginning of its SHA-256.
SERVER = "https://download.openmmlab.com/mmclassification/v0/efficientformer/"
WEIGHTS: dict[str, tuple[str, str]] = {
    f"efficientformer-{n}_3rdparty_8xb128_in1k": (f"efficientformer-{n}_3rdparty_in1k_20220915-{digest}.pth", digest)
    for n, digest in (("l1", "cc3e1ac6"), ("l3", "466793d6"), ("l7", "185e30af"))
}
MARKS = {"efficientformer": r"backbone\.network\.\d+\.\d+\.(ls[12]|conv|bn)\."}
REFUSED = {r"backbone\.norm[012]\.": "norms of a backbone for detection or segmentation"}


def rename(keys: Iterable[str], family: str) -> dict[str, str]:
    """Return the name here of each of mmpretrain's keys. `family`: "efficientformer".

    Expects all keys of a model at once: some indices depend on which blocks there are.

    Raises ValueError for another family, and for keys that mmpretrain's EfficientFormers do not have.
    """
    return apply(TABLES, keys, family, "mmpretrain")


META4D: Rules = (Rule(r"ls([12])\.weight", r"layer_scale_\1"), *rules.META4D)
META3D: Rules = (Rule(r"ls([12])\.weight", r"layer_scale_\1"), *rules.META3D)


def efficientformer(keys: list[str]) -> Rules:
    """Return the rules for EfficientFormer.

    A stage's index 0 is the downsampling before it, so blocks count from 1 in all stages but the first.
    """
    network, stages = r"backbone\.network\.", "efficientformer.encoder.intermediate_stages"
    blocks = "meta4D_layers.blocks"
    return (
        Rule(r"backbone\.patch_embed\.0\.conv\.", "efficientformer.patch_embed.convolution1."),
        Rule(r"backbone\.patch_embed\.0\.bn\.", "efficientformer.patch_embed.batchnorm_before."),
        Rule(r"backbone\.patch_embed\.1\.conv\.", "efficientformer.patch_embed.convolution2."),
        Rule(r"backbone\.patch_embed\.1\.bn\.", "efficientformer.patch_embed.batchnorm_after."),
        Rule(network + r"([123])\.0\.conv\.", lambda s: f"{stages}.{2 * s - 1}.projection."),
        Rule(network + r"([123])\.0\.bn\.", lambda s: f"{stages}.{2 * s - 1}.norm."),
        Rule(network + r"0\.(\d+)\.", rf"{stages}.0.{blocks}.\1.", META4D),
        Rule(
            network + r"([12])\.(\d+)\.",
            lambda s, j: f"{stages}.{2 * s}.{blocks}.{j - 1}." if j >= 1 else None,
            META4D,
        ),
        *efficientformer_last_stage(keys, network + r"3\.(\d+)\.", META4D, META3D, first=1),
        Rule(r"backbone\.norm3\.", "efficientformer.layernorm."),
        Rule(r"head\.head\.", "classifier."),
        Rule(r"head\.dist_head\.", "distillation_classifier."),
    )


TABLES = {"efficientformer": efficientformer}
