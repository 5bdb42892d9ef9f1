"""Keras: its own EfficientNets, and those of Callidior and qubvel (`efficientnet` on PyPI), which share the names.

Keras' models rescale and normalise pictures themselves and return probabilities; here the image processor does the
former, `ops.softmax` the latter. Weights of B0 to B7 end in `_notop` where the classifier is omitted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np

from .rules import Architecture, Rule, Rules, apply

ARCHITECTURES: dict[str, Architecture] = {
    f"EfficientNetB{n}": Architecture(f"efficientnet-b{n}", {"batch_norm_eps": 1e-3, "padding": "tf-same-dynamic"})
    for n in range(8)
}
MARKS = {"efficientnet": r"(.*/)?(stem_conv|block\d+[a-z]_\w+|depthwise_conv2d(_\d+)?)/"}
LEFT_OUT = {
    r"(.*/)?normalization(_\d+)?/": "how pictures are normalised, which the image processor does here",
    r"(.*/)?seed_generator(_\d+)?/": "the state of a random generator",
    r"(.*/)?optimizer(_weights)?/": "the state of an optimizer",
}
VARIABLES = {
    "kernel": "weight",
    "depthwise_kernel": "weight",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
NORM_VARIABLES, OTHER_VARIABLES = ("weight", "bias", "running_mean", "running_var"), ("weight", "bias")


def rename(keys: Iterable[str], family: str) -> dict[str, str]:
    """Return the name here of each variable. `family`: "efficientnet". Expects all keys of a model at once.

    A key ends in the names of the layer and the variable ("block1a_bn/gamma:0", after any prefix) or, as Keras 3
    writes them, in the layer's name or its kind, counted, and the variable's index
    ("layers/batch_normalization_1/vars/0").

    Raises ValueError for another family, and for keys that these models do not have.
    """
    return apply(TABLES, keys, family, "Keras", spelling=_dotted)


def arrange(name: str, array: np.ndarray) -> np.ndarray:
    """Return an array in the order stored here, as a view; `name` is its name here.

    Kernels (H, W, I, O) -> (O, I, H, W), depthwise ones (H, W, C, 1) -> (C, 1, H, W), dense ones (I, O) -> (O, I).
    """
    if name.endswith("depthwise_conv.depthwise_conv.weight") and array.ndim == 4:
        return array.transpose(2, 3, 0, 1)
    if name.endswith(".weight") and array.ndim == 4:
        return array.transpose(3, 2, 0, 1)
    if name.endswith(".weight") and array.ndim == 2:
        return array.T
    return array


def _dotted(key: str) -> str:
    """Return layer and variable with a dot between them: "block1a_bn.weight"."""
    *path, variable = re.sub(r":\d+$", "", key).split("/")
    layer = path[-1] if path else ""
    if layer == "vars" and len(path) > 1 and variable.isdigit():  # Keras 3: the variable's number
        layer, number = path[-2], int(variable)
        known = NORM_VARIABLES if re.search(r"(^|_)bn$|^batch_normalization", layer) else OTHER_VARIABLES
        return f"{layer}.{known[number]}" if number < len(known) else key
    return f"{layer}.{VARIABLES.get(variable, variable)}"


BLOCK: Rules = (
    Rule(r"expand_conv\.", "expansion.expand_conv."),
    Rule(r"expand_bn\.", "expansion.expand_bn."),
    Rule(r"dwconv\.", "depthwise_conv.depthwise_conv."),
    Rule(r"bn\.", "depthwise_conv.depthwise_norm."),
    Rule(r"se_(reduce|expand)\.", r"squeeze_excite.\1."),
    Rule(r"project_conv\.", "projection.project_conv."),
    Rule(r"project_bn\.", "projection.project_bn."),
)


def efficientnet(keys: list[str]) -> Rules:
    """Return the rules for EfficientNet: stages are numbered, their blocks lettered: block1a, block2a, block2b ..."""
    letters = {(int(match[1]), match[2]) for key in keys if (match := re.match(r"block(\d+)([a-z])_", key))}
    number = {place: n for n, place in enumerate(sorted(letters))}
    return (
        Rule(r"stem_conv\.", "efficientnet.embeddings.convolution."),
        Rule(r"stem_bn\.", "efficientnet.embeddings.batchnorm."),
        Rule(r"block(\d+)([a-z])_", lambda *place: f"efficientnet.encoder.blocks.{number[place]}.", BLOCK),
        Rule(r"top_conv\.", "efficientnet.encoder.top_conv."),
        Rule(r"top_bn\.", "efficientnet.encoder.top_bn."),
        Rule(r"(predictions|probs|dense)\.", "classifier."),
        *_counted(keys),
    )


def _counted(keys: list[str]) -> Rules:
    """Return the rules for layers known by their kind alone, in the model's order: conv2d, batch_normalization_1 ...

    Every block has one depthwise convolution and four others, or three without expansion, as in the first stage. So
    the counts of the layers determine how many blocks have no expansion.
    """
    convolutions = {key.split(".")[0] for key in keys if re.match(r"conv2d(_\d+)?\.", key)}
    blocks = len({key.split(".")[0] for key in keys if key.startswith("depthwise_conv2d")})
    plain = 2 + 4 * blocks - len(convolutions)
    conv, norm = ["efficientnet.embeddings.convolution."], ["efficientnet.embeddings.batchnorm."]
    for n in range(blocks):
        block = f"efficientnet.encoder.blocks.{n}."
        if n >= plain:
            conv.append(f"{block}expansion.expand_conv.")
            norm.append(f"{block}expansion.expand_bn.")
        conv += [f"{block}{layer}." for layer in ("squeeze_excite.reduce", "squeeze_excite.expand")]
        conv.append(f"{block}projection.project_conv.")
        norm += [f"{block}{layer}." for layer in ("depthwise_conv.depthwise_norm", "projection.project_bn")]
    conv.append("efficientnet.encoder.top_conv.")
    norm.append("efficientnet.encoder.top_bn.")
    depthwise = [f"efficientnet.encoder.blocks.{n}.depthwise_conv.depthwise_conv." for n in range(blocks)]
    kinds = {"conv2d": conv, "depthwise_conv2d": depthwise, "batch_normalization": norm}
    return tuple(_counting(kind, layers) for kind, layers in kinds.items())


def _counting(kind: str, layers: list[str]) -> Rule:
    """Return the rule for layers of one kind; the first has no number."""

    def name(suffix: str) -> str | None:
        number = int(suffix[1:] or 0)
        return layers[number] if number < len(layers) else None

    return Rule(rf"{kind}((?:_\d+)?)\.", name)


TABLES = {"efficientnet": efficientnet}
