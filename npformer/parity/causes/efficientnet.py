"""Mistakes in EfficientNet: padding before strided convolutions, squeeze-and-excitation, the sum at a block's end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ... import ops
from ...models.efficientnet import (
    EfficientNetDepthwiseLayer,
    EfficientNetEmbeddings,
    EfficientNetFinalBlockLayer,
    EfficientNetForImageClassification,
    EfficientNetModel,
    EfficientNetPadding,
    EfficientNetSqueezeExciteLayer,
)
from ...nn import AdaptiveAvgPool2d
from ...ops import Array
from ..site import Alternative, Site
from .block import activation_added, answer, as_tokens, dropped, head, model_activation, pooled_otherwise, residual
from .convolution import padded, padded_otherwise, wrong_paddings
from .rule import Absent, Rule, Rules, as_it_is, beside, config, entering, holder_name, inside, instead, named

HOMOGENEOUS = tuple(ops.ACT2FN[name] for name in ("relu", "leaky_relu", "linear"))  # f(x * gate) is f(x) * gate


def padding(site: Site, module: EfficientNetPadding) -> Iterator[Alternative]:
    """Yield other paddings that give the same size."""
    return _padded(site, module, fitting=True)


def padding_misshapen(site: Site, module: EfficientNetPadding) -> Iterator[Alternative]:
    """Yield other paddings that make the map larger or smaller."""
    return _padded(site, module, fitting=False)


def _padded(site: Site, module: EfficientNetPadding, *, fitting: bool) -> Iterator[Alternative]:
    (x,) = site.inputs
    size, kernel = (x.shape[2], x.shape[3]), (module.kernel_size, module.kernel_size)
    own = module.pads(*size)
    for cause, pads, border in wrong_paddings(size, kernel, (2, 2), own):
        if all(sum(side) == sum(right) for side, right in zip(pads, own, strict=True)) == fitting:
            yield instead(cause.key, cause.text, padded, x, pads, border)


def convolution_after(padding_name: str, *, fitting: bool) -> Rule:
    """Return the rule for a convolution that the layer of that name pads for, in case the padded map is not dumped."""

    def rule(site: Site, layer: EfficientNetEmbeddings | EfficientNetDepthwiseLayer) -> Iterator[Alternative]:
        module: EfficientNetPadding = getattr(layer, padding_name)
        conv: Any = site.module
        if conv.stride == 1:  # which pads its own input
            return
        x = _before_padding(site, module, f"{holder_name(site)}.{padding_name}")
        yield from padded_otherwise(x, module.pads(x.shape[2], x.shape[3]), conv, fitting=fitting)

    return rule


def _before_padding(site: Site, module: EfficientNetPadding, name: str) -> Array:
    """Return the map before padding. The picture has no name: it is cropped from the padded one."""
    try:
        return entering(site, name)
    except Absent:
        (around,) = site.inputs
        height, width = site.output.shape[2:]
        # "tf-same-dynamic" pads odd pictures differently; but pictures for an EfficientNet have even sides.
        (top, bottom), (left, right) = module.pads(2 * height, 2 * width)
        return around[:, :, top : around.shape[2] - bottom, left : around.shape[3] - right]


def gate(site: Site, layer: EfficientNetSqueezeExciteLayer) -> Iterator[Alternative]:
    """Yield mistakes in the product of squeeze-and-excitation, x * gate."""
    (x,), gate = site.inputs, inside(site, "act_expand")
    yield as_it_is("se-gate-missing", "squeeze-and-excitation left out: its input is passed on", x)
    yield instead("se-gate-added", "the gate added instead of multiplied", lambda: x + gate)
    yield instead("se-gate-residual", "the input added to its gated self", lambda: x + x * gate)
    unactivated, activation = beside(site, "depthwise_conv.depthwise_norm"), model_activation(site)
    if activation not in HOMOGENEOUS:
        text = "gated before the activation, not after it"
        yield instead("se-gate-before-activation", text, lambda: activation(unactivated * gate))


def squeeze(site: Site, layer: EfficientNetSqueezeExciteLayer) -> Iterator[Alternative]:
    """Yield mistakes in the mean of each channel."""
    yield from pooled_otherwise(site, as_tokens(site.inputs[0]), prefix="se-squeeze")
    if model_activation(site) is ops.ACT2FN["linear"]:
        return
    block = holder_name(site).rpartition(".")[0]
    unactivated = named(site, f"{block}.depthwise_conv.depthwise_norm")
    text = "the mean of the map before its activation, not after it"
    yield instead("se-squeeze-before-activation", text, ops.adaptive_avg_pool2d, unactivated, 1)


def projection(site: Site, layer: EfficientNetFinalBlockLayer) -> Iterator[Alternative]:
    """Yield mistakes at the end of a block: the projected map, plus the block's input if the layer adds it."""
    block_input, _ = site.inputs
    narrow = inside(site, "project_bn")
    if layer.adds_input:
        yield from residual(block_input, inside(site, "dropout"), {})
    elif block_input.shape == narrow.shape:
        text = "the block's input added, where the first block of a stage adds none"
        yield instead("residual-added", text, np.add, narrow, block_input)


def drop_connect(site: Site, layer: EfficientNetFinalBlockLayer) -> Iterator[Alternative]:
    """Yield dropout of whole blocks, at a rate that grows with depth."""
    blocks, _, number = holder_name(site).removesuffix(".projection").rpartition(".")
    share = int(number) / len(list(site.modules[blocks].named_children()))
    rate = config(site).drop_connect_rate * share
    yield from dropped(site, rate, f"drop_connect_rate at block {number}")


def pooler(site: Site, model: EfficientNetModel) -> Iterator[Alternative]:
    """Yield mistakes in the mean or maximum over the last map."""
    right = "mean" if isinstance(site.module, AdaptiveAvgPool2d) else "max"
    yield from pooled_otherwise(site, as_tokens(site.inputs[0]), right)


def dropout(site: Site, model: EfficientNetForImageClassification) -> Iterator[Alternative]:
    """Yield dropout applied before the classifier."""
    yield from dropped(site, model.config.dropout_rate, "dropout_rate")


RULES: Rules = {
    (EfficientNetPadding, ""): (padding,),
    (EfficientNetEmbeddings, ".convolution"): (convolution_after("padding", fitting=True),),
    (EfficientNetDepthwiseLayer, ".depthwise_conv"): (convolution_after("depthwise_conv_pad", fitting=True),),
    (EfficientNetSqueezeExciteLayer, ".squeeze"): (squeeze,),
    (EfficientNetSqueezeExciteLayer, ""): (gate,),
    (EfficientNetFinalBlockLayer, ".project_bn"): (activation_added,),
    (EfficientNetFinalBlockLayer, ".dropout"): (drop_connect,),
    (EfficientNetFinalBlockLayer, ""): (projection,),
    (EfficientNetModel, ".pooler"): (pooler,),
    (EfficientNetForImageClassification, ".dropout"): (dropout,),
    (EfficientNetForImageClassification, ".classifier"): (head,),
    (EfficientNetForImageClassification, ""): (answer,),
}
MISSHAPEN: Rules = {
    (EfficientNetPadding, ""): (padding_misshapen,),
    (EfficientNetEmbeddings, ".convolution"): (convolution_after("padding", fitting=False),),
    (EfficientNetDepthwiseLayer, ".depthwise_conv"): (convolution_after("depthwise_conv_pad", fitting=False),),
}
