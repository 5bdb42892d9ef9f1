"""lukemelas: EfficientNet-PyTorch on PyPI, with weights converted from TensorFlow.

It pads for the nominal size of a model, whatever the picture. For some weeks of 2020 (25 August to 8 October) it
padded symmetrically by mistake; models trained then need padding="symmetric".
"""

from __future__ import annotations

from collections.abc import Iterable

from .rules import Architecture, Rule, Rules, apply

ARCHITECTURES: dict[str, Architecture] = {
    f"efficientnet-b{n}": Architecture(f"efficientnet-b{n}", {"batch_norm_eps": 1e-3, "padding": "hf-static"})
    for n in range(9)
}
MARKS = {"efficientnet": r"_blocks\.\d+\._"}


def rename(keys: Iterable[str], family: str) -> dict[str, str]:
    """Return the name here of each of lukemelas' keys. `family`: "efficientnet".

    Raises ValueError for another family, and for keys that lukemelas' EfficientNets do not have.
    """
    return apply(TABLES, keys, family, "lukemelas")


BLOCK: Rules = (
    Rule(r"_expand_conv\.", "expansion.expand_conv."),
    Rule(r"_bn0\.", "expansion.expand_bn."),
    Rule(r"_depthwise_conv\.", "depthwise_conv.depthwise_conv."),
    Rule(r"_bn1\.", "depthwise_conv.depthwise_norm."),
    Rule(r"_se_(reduce|expand)\.", r"squeeze_excite.\1."),
    Rule(r"_project_conv\.", "projection.project_conv."),
    Rule(r"_bn2\.", "projection.project_bn."),
)


def efficientnet(keys: list[str]) -> Rules:
    """Return the rules for EfficientNet, whose blocks are counted through all stages, as here."""
    return (
        Rule(r"_conv_stem\.", "efficientnet.embeddings.convolution."),
        Rule(r"_bn0\.", "efficientnet.embeddings.batchnorm."),
        Rule(r"_blocks\.(\d+)\.", r"efficientnet.encoder.blocks.\1.", BLOCK),
        Rule(r"_conv_head\.", "efficientnet.encoder.top_conv."),
        Rule(r"_bn1\.", "efficientnet.encoder.top_bn."),
        Rule(r"_fc\.", "classifier."),
    )


TABLES = {"efficientnet": efficientnet}
