"""torchvision: EfficientNet B0 to B7, whose layers are named by numbers."""

from __future__ import annotations

from collections.abc import Iterable

from .rules import Architecture, Rule, Rules, apply, efficientnet_blocks

# B5 to B7 were converted from weights trained with TensorFlow: its eps was kept, its padding was not.
ARCHITECTURES: dict[str, Architecture] = {
    f"efficientnet_b{n}": Architecture(
        f"efficientnet-b{n}", {"batch_norm_eps": 1e-5 if n < 5 else 1e-3, "padding": "symmetric"}
    )
    for n in range(8)
}

MARKS = {"efficientnet": r"features\.\d+\.\d+\.block\."}


def rename(keys: Iterable[str], family: str) -> dict[str, str]:
    """Return the name here of each of torchvision's keys. `family`: "efficientnet".

    Expects all keys of a model at once: some indices depend on which blocks there are.

    Raises ValueError for another family, and for keys that torchvision's EfficientNets do not have.
    """
    return apply(TABLES, keys, family, "torchvision")


EXPANDING: Rules = (
    Rule(r"0\.0\.", "expansion.expand_conv."),
    Rule(r"0\.1\.", "expansion.expand_bn."),
    Rule(r"1\.0\.", "depthwise_conv.depthwise_conv."),
    Rule(r"1\.1\.", "depthwise_conv.depthwise_norm."),
    Rule(r"2\.fc1\.", "squeeze_excite.reduce."),
    Rule(r"2\.fc2\.", "squeeze_excite.expand."),
    Rule(r"3\.0\.", "projection.project_conv."),
    Rule(r"3\.1\.", "projection.project_bn."),
)
PLAIN: Rules = (
    Rule(r"0\.0\.", "depthwise_conv.depthwise_conv."),
    Rule(r"0\.1\.", "depthwise_conv.depthwise_norm."),
    Rule(r"1\.fc1\.", "squeeze_excite.reduce."),
    Rule(r"1\.fc2\.", "squeeze_excite.expand."),
    Rule(r"2\.0\.", "projection.project_conv."),
    Rule(r"2\.1\.", "projection.project_bn."),
)


def efficientnet(keys: list[str]) -> Rules:
    """Return the rules for EfficientNet.

    The features are one list: the stem (0), seven stages of blocks (1 to 7), the last convolution (8).
    """
    return (
        Rule(r"features\.0\.0\.", "efficientnet.embeddings.convolution."),
        Rule(r"features\.0\.1\.", "efficientnet.embeddings.batchnorm."),
        *efficientnet_blocks(keys, r"features\.([1-7])\.(\d+)\.block\.", r"3\.[01]\.", EXPANDING, PLAIN),
        Rule(r"features\.8\.0\.", "efficientnet.encoder.top_conv."),
        Rule(r"features\.8\.1\.", "efficientnet.encoder.top_bn."),
        Rule(r"classifier\.1\.", "classifier."),
    )


TABLES = {"efficientnet": efficientnet}
