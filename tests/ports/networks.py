"""The three networks, channels last, from the papers' structure, a config's settings and a state dict."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from . import numpy_layers as layers
from .arithmetic import Arithmetic, Array
from .faults import Fault, fitting, planted

Settings = Mapping[str, Any]
Pair = tuple[int, int]


class Reached(Exception):
    """Raised to leave a run early, once the value asked for is there."""


class Port:
    """One run: computes op by op, plants faults, keeps every named value.

    values, axes: by name in order of execution. `collected`: if given, all faults that fit come in here. until: the
    name of the last value to compute, or None for all.
    """

    def __init__(
        self,
        state: Mapping[str, Array],
        arithmetic: Arithmetic,
        faults: Sequence[Fault] = (),
        folded: bool = False,
        collected: list[Fault] | None = None,
        until: str | None = None,
    ) -> None:
        self.state, self.arithmetic, self.faults = state, arithmetic, faults
        self.folded, self.collected, self.until = folded, collected, until
        self.done: set[Fault] = set()
        self.values: dict[str, Array] = {}
        self.axes: dict[str, str] = {}
        self.eps = 0.0  # of the batch norms; each network sets its own

    # --- one op ------------------------------------------------------------------------------------------------------

    def op(self, kind: str, at: str, right: Any, **arguments: Any) -> Any:
        """Compute an op, wrongly where a fault of it is planted `at` the value that it is for."""
        if self.collected is not None:
            self.collected.extend(fitting(kind, at, arguments))
        for fault in self.faults:
            if fault.at == at:
                wrong = planted(fault, kind, right, arguments)
                if wrong is not None:
                    right = wrong
                    self.done.add(fault)
        return right(self.arithmetic, **arguments)

    def keep(self, name: str, x: Array, axes: str = "BHWC") -> Array:
        """Name a value that an op has just made."""
        return self.pass_on(name, self.op("value", name, layers.same, x=x, axes=axes), axes)

    def pass_on(self, name: str, x: Array, axes: str = "BHWC") -> Array:
        """Give another name to a named value: dropout, or a module that returns its last child's output."""
        self.values[name], self.axes[name] = x, axes
        if name == self.until:
            raise Reached
        return x

    def value(self, name: str, kind: str, right: Any, axes: str = "BHWC", **arguments: Any) -> Array:
        """Compute an op and name its result."""
        return self.keep(name, self.op(kind, name, right, **arguments), axes)

    # --- layers with weights -----------------------------------------------------------------------------------------

    def array(self, name: str) -> Array:
        """A weight, rounded to the port's dtype."""
        return self.arithmetic.round(self.state[name])

    def bias(self, name: str) -> Array | None:
        """A layer's bias, if it has one."""
        return self.array(f"{name}.bias") if f"{name}.bias" in self.state else None

    def kernel(self, name: str) -> Array:
        """A convolution's weight as (kH, kW, in, out), or (kH, kW, C) with one filter per channel."""
        return _channels_last(self.array(f"{name}.weight"))

    def kernel_size(self, name: str) -> Pair:
        """(kH, kW) of a convolution."""
        return self.state[f"{name}.weight"].shape[2:]

    def conv(
        self,
        name: str,
        x: Array,
        stride: Pair = (1, 1),
        pads: layers.Pads | None = None,
        norm: str | None = None,
        padding_name: str | None = None,
    ) -> Array:
        """A convolution, and the batch norm after it where one is named.

        pads: k // 2 on every side if None. padding_name: of the padded map, where padding is a layer of its own. A
        fault in the padding planted at the convolution then pads inside it, and there is no padded map.
        """
        size = self.kernel_size(name)
        pads = pads if pads is not None else ((size[0] // 2,) * 2, (size[1] // 2,) * 2)
        around = {"pads": pads, "border": "constant", "size": x.shape[1:3], "kernel": size, "stride": stride}
        inside = self.op("pads", name, layers.pads_of, **around)
        if padding_name is not None and inside == (pads, "constant"):
            pads, border = self.op("pads", padding_name, layers.pads_of, **around)
            x = self.keep(padding_name, layers.pad(self.arithmetic, x=x, pads=pads, border=border))
        else:
            x = layers.pad(self.arithmetic, x=x, pads=inside[0], border=inside[1])
        kernel, bias = self.kernel(name), self.bias(name)
        if norm is not None and self.folded:
            kernel, bias = self._folded(name, norm)
        x = self.value(name, "conv", layers.conv, x=x, kernel=kernel, bias=bias, stride=stride)
        if norm is None:
            return x
        return self.pass_on(norm, x) if self.folded else self.batch_norm(norm, x)

    def _folded(self, name: str, norm: str) -> tuple[Array, Array]:
        """A convolution's kernel and bias with the batch norm after it folded in, in float64 and rounded once."""
        wide = {key: np.asarray(self.state[f"{norm}.{key}"], np.float64) for key in _BATCH_NORM}
        scale = wide["weight"] / np.sqrt(wide["running_var"] + self.eps)
        kernel = _channels_last(np.asarray(self.state[f"{name}.weight"], np.float64)) * scale
        bias = np.asarray(self.state.get(f"{name}.bias", 0.0), np.float64)
        shift = wide["bias"] + (bias - wide["running_mean"]) * scale
        return self.arithmetic.round(kernel), self.arithmetic.round(shift)

    def batch_norm(self, name: str, x: Array) -> Array:
        """A batch norm on its own."""
        weight, bias, mean, variance = (self.array(f"{name}.{key}") for key in _BATCH_NORM)
        stored: dict[str, Any] = {"mean": mean, "variance": variance, "weight": weight, "bias": bias}
        return self.value(name, "batch norm", layers.batch_norm, x=x, eps=self.eps, **stored)

    def layer_norm(self, name: str, x: Array, eps: float) -> Array:
        """A layer norm."""
        weight, bias = self.array(f"{name}.weight"), self.array(f"{name}.bias")
        return self.value(name, "layer norm", layers.layer_norm, "BND", x=x, weight=weight, bias=bias, eps=eps)

    def activation(self, name: str, x: Array, function: str, axes: str = "BHWC") -> Array:
        """An activation by a config's name for it."""
        function = layers.OTHER_NAMES.get(function, function)
        if function not in layers.ACTIVATIONS:
            raise ValueError(f"hidden_act must be a name that the port knows, got {function!r}")
        return self.value(name, "activation", layers.activation, axes, x=x, function=function)

    def linear(self, name: str, x: Array, axes: str = "BND") -> Array:
        """A dense layer; without weights (a head without labels) what comes."""
        if f"{name}.weight" not in self.state:
            return self.pass_on(name, x, axes)
        matrix, bias = self.array(f"{name}.weight").T, self.bias(name)
        return self.value(name, "linear", layers.linear, axes, x=x, matrix=matrix, bias=bias)

    def scaled(self, name: str, scale: str, x: Array, axes: str = "BHWC") -> Array:
        """A branch times its layer scale, where it has one, named as the drop path after it."""
        if scale not in self.state:
            return self.keep(name, x, axes)
        factor = self.array(scale).reshape(-1)
        return self.value(name, "layer scale", layers.multiply, axes, x=x, factor=factor)

    def residual(self, name: str, x: Array, branch: Array, axes: str = "BHWC") -> Array:
        """A branch added to what it started from."""
        return self.value(name, "residual", layers.add, axes, x=x, branch=branch)

    def logits(self, first: Array, second: Array | None = None) -> Array:
        """The model's own value: the mean of its heads."""
        if second is None:
            return self.pass_on("", self.op("logits", "", layers.same, x=first), "BD")
        mean = self.op("two heads", "", layers.two_heads, first=first, second=second)
        return self.keep("", self.op("logits", "", layers.same, x=mean), "BD")


_BATCH_NORM = ("weight", "bias", "running_mean", "running_var")


def _channels_last(weight: Array) -> Array:
    """(out, in, kH, kW) -> (kH, kW, in, out), or (kH, kW, C) for one filter per channel.

    A kernel that takes one channel looks the same, grey pictures' for example, and may be computed so.
    """
    moved = weight.transpose(2, 3, 1, 0)
    return moved[:, :, 0] if weight.shape[1] == 1 and weight.shape[0] > 1 else moved


def _two(value: Any) -> Pair:
    """One number or two of them as a pair."""
    values = list(value) if isinstance(value, list | tuple) else [value]
    return int(values[0]), int(values[-1])


def _changes_size(channels: Sequence[int], asked: Sequence[bool]) -> list[bool]:
    """Return whether a downsampling follows each stage; the last has none."""
    return [bool(asked[i]) or channels[i] != channels[i + 1] for i in range(len(channels) - 1)] + [False]


# --- EfficientFormer -------------------------------------------------------------------------------------------------


def efficientformer(port: Port, settings: Settings, x: Array) -> None:
    """Four stages of pooling blocks, then attention blocks on tokens."""
    port.eps = settings["batch_norm_eps"]
    bare = "patch_embed.convolution1.weight" in port.state
    base = "" if bare else "efficientformer"
    inside = "" if bare else "efficientformer."
    stem = f"{inside}patch_embed"
    x = port.conv(f"{stem}.convolution1", x, (2, 2), norm=f"{stem}.batchnorm_before")
    x = port.activation(f"{stem}.activation#1", x, "relu")
    x = port.conv(f"{stem}.convolution2", x, (2, 2), norm=f"{stem}.batchnorm_after")
    x = port.activation(f"{stem}.activation", x, "relu")
    x = port.pass_on(stem, x)

    encoder, sizes, step = f"{inside}encoder", settings["hidden_sizes"], 0
    down = _changes_size(sizes, settings["downsamples"])
    stride, pad = _two(settings["downsample_stride"]), _two(settings["downsample_pad"])
    for stage in range(len(sizes) - 1):
        name = f"{encoder}.intermediate_stages.{step}"
        x = _meta4d_layers(port, settings, f"{name}.meta4D_layers", x, settings["depths"][stage])
        x = port.pass_on(name, x)
        step += 1
        if down[stage]:
            name = f"{encoder}.intermediate_stages.{step}"
            pads = (pad[0],) * 2, (pad[1],) * 2
            x = port.conv(f"{name}.projection", x, stride, pads, norm=f"{name}.norm")
            x = port.pass_on(name, x)
            step += 1

    last, attentions = f"{encoder}.last_stage", settings["num_meta3d_blocks"]
    x = _meta4d_layers(port, settings, f"{last}.meta4D_layers", x, settings["depths"][-1] - attentions)
    x = port.value(f"{last}.flat", "flatten", layers.flatten, "BND", x=x)
    for block in range(attentions):
        x = _meta3d(port, settings, f"{last}.meta3D_layers.blocks.{block}", x)
    for name in (f"{last}.meta3D_layers", last, encoder):
        port.pass_on(name, x, "BND")
    x = port.layer_norm(f"{inside}layernorm", x, settings["layer_norm_eps"])
    port.pass_on(base, x, "BND")
    if bare:
        return
    x = port.value(":pooled", "pool", layers.pooled, "BD", x=x, how="mean")
    first = port.linear("classifier", x, "BD")
    two = "distillation_classifier.weight" in port.state
    port.logits(first, port.linear("distillation_classifier", x, "BD") if two else None)


def _meta4d_layers(port: Port, settings: Settings, name: str, x: Array, depth: int) -> Array:
    for block in range(depth):
        x = _meta4d(port, settings, f"{name}.blocks.{block}", x)
    return port.pass_on(name, x)


def _meta4d(port: Port, settings: Settings, name: str, x: Array) -> Array:
    mixer, mlp, act = f"{name}.token_mixer", f"{name}.mlp", settings["hidden_act"]
    size = 3 if settings["pool_size"] is None else settings["pool_size"]
    mean = port.value(f"{mixer}.pool", "window mean", layers.window_mean, x=x, size=size)
    port.pass_on(f"{mixer}:pooled", mean)
    mixed = port.value(mixer, "subtract", layers.subtract, mean=mean, x=x)
    mixed = port.scaled(f"{name}.drop_path#1", f"{name}.layer_scale_1", mixed)
    x = port.residual(f"{name}:mixed", x, mixed)
    y = port.conv(f"{mlp}.convolution1", x, norm=f"{mlp}.batchnorm_before")
    y = port.activation(f"{mlp}.activation", y, act)
    y = port.pass_on(f"{mlp}.dropout#1", y)
    y = port.conv(f"{mlp}.convolution2", y, norm=f"{mlp}.batchnorm_after")
    y = port.pass_on(f"{mlp}.dropout", y)
    y = port.pass_on(mlp, y)
    y = port.scaled(f"{name}.drop_path", f"{name}.layer_scale_2", y)
    return port.residual(name, x, y)


def _meta3d(port: Port, settings: Settings, name: str, x: Array) -> Array:
    mlp, eps = f"{name}.mlp", settings["layer_norm_eps"]
    y = port.layer_norm(f"{name}.layernorm1", x, eps)
    y = _self_attention(port, settings, f"{name}.token_mixer", y)
    y = port.scaled(f"{name}.drop_path#1", f"{name}.layer_scale_1", y, "BND")
    x = port.residual(f"{name}:mixed", x, y, "BND")
    y = port.layer_norm(f"{name}.layernorm2", x, eps)
    y = port.linear(f"{mlp}.linear_in", y)
    y = port.activation(f"{mlp}.activation", y, settings["hidden_act"], "BND")
    y = port.pass_on(f"{mlp}.dropout#1", y, "BND")
    y = port.linear(f"{mlp}.linear_out", y)
    y = port.pass_on(f"{mlp}.dropout", y, "BND")
    y = port.pass_on(mlp, y, "BND")
    y = port.scaled(f"{name}.drop_path", f"{name}.layer_scale_2", y, "BND")
    return port.residual(name, x, y, "BND")


def _self_attention(port: Port, settings: Settings, name: str, x: Array) -> Array:
    heads, key_dim, side = settings["num_attention_heads"], settings["key_dim"], settings["resolution"]
    packed = port.linear(f"{name}.qkv", x)
    widths = {"heads": heads, "key_dim": key_dim, "value_dim": int(settings["attention_ratio"] * key_dim)}
    query, key, value = port.op("split heads", f"{name}:query", layers.split_heads, x=packed, **widths)
    query = port.keep(f"{name}:query", query, "BhNd")
    key = port.keep(f"{name}:key", key, "BhNd")
    value = port.keep(f"{name}:value", value, "BhNd")
    table = port.array(f"{name}.attention_biases")
    bias = port.value(f"{name}:bias", "bias", layers.gather_bias, "hNN", table=table, side=side)
    score = {"query": query, "key": key, "bias": bias, "scale": 1 / math.sqrt(key_dim)}
    scores = port.value(f"{name}:scores", "scores", layers.scores, "BhNN", **score)
    probs = port.value(f"{name}:probs", "softmax", layers.softmax, "BhNN", x=scores)
    context = port.value(f"{name}:context", "context", layers.context, "BND", probs=probs, value=value)
    return port.pass_on(name, port.linear(f"{name}.projection", context), "BND")


# --- EfficientNet ----------------------------------------------------------------------------------------------------


def efficientnet(port: Port, settings: Settings, x: Array) -> None:
    """Inverted bottlenecks with squeeze-and-excitation."""
    port.eps = settings["batch_norm_eps"]
    bare = "embeddings.convolution.weight" in port.state
    base = "" if bare else "efficientnet"
    inside = "" if bare else "efficientnet."
    act, stem, encoder = settings["hidden_act"], f"{inside}embeddings", f"{inside}encoder"
    x = _strided(port, settings, f"{stem}.padding", f"{stem}.convolution", f"{stem}.batchnorm", x, odd=False)
    x = port.activation(f"{stem}.activation", x, act)
    x = port.pass_on(stem, x)
    number = 0
    for stage, repeats in enumerate(settings["num_block_repeats"]):
        for repeat in range(math.ceil(settings["depth_coefficient"] * repeats)):
            x = _bottleneck(port, settings, f"{encoder}.blocks.{number}", x, stage, repeat == 0, number)
            number += 1
    x = port.conv(f"{encoder}.top_conv", x, norm=f"{encoder}.top_bn")
    x = port.activation(f"{encoder}.top_activation", x, act)
    port.pass_on(encoder, x)
    how = settings["pooling_type"]
    y = port.op("pool", f"{inside}pooler", layers.pooled, x=x, how=how)
    y = port.keep(f"{inside}pooler", y[:, None, None])[:, 0, 0]
    port.pass_on(base, x)
    if not bare:
        port.pass_on("dropout", y, "BD")
        port.logits(port.linear("classifier", y, "BD"))


def _strided(port: Port, settings: Settings, padding_name: str, name: str, norm: str, x: Array, odd: bool) -> Array:
    """A convolution of stride 2 with the padding that the weights were trained with."""
    size = port.kernel_size(name)
    mode, half = settings.get("padding", "hf-static"), size[0] // 2
    if mode == "tf-same-dynamic":
        pads = layers.same_pads(x.shape[1:3], size, (2, 2))
    elif mode == "symmetric" or odd:
        pads = (half, half), (half, half)
    else:
        pads = (half - 1, half), (half - 1, half)
    return port.conv(name, x, (2, 2), pads, norm, padding_name)


def _bottleneck(port: Port, settings: Settings, name: str, x: Array, stage: int, first: bool, number: int) -> Array:
    act, start = settings["hidden_act"], x
    if settings["expand_ratios"][stage] != 1:
        part = f"{name}.expansion"
        x = port.conv(f"{part}.expand_conv", x, norm=f"{part}.expand_bn")
        x = port.activation(f"{part}.expand_act", x, act)
        x = port.pass_on(part, x)

    part = f"{name}.depthwise_conv"
    conv, norm = f"{part}.depthwise_conv", f"{part}.depthwise_norm"
    if first and settings["strides"][stage] == 2:
        odd = number in settings["depthwise_padding"]
        x = _strided(port, settings, f"{part}.depthwise_conv_pad", conv, norm, x, odd)
    else:
        x = port.conv(conv, x, norm=norm)
    x = port.activation(f"{part}.depthwise_act", x, act)
    x = port.pass_on(part, x)

    part = f"{name}.squeeze_excite"
    gate = port.op("squeeze", f"{part}.squeeze", layers.pooled, x=x, how="mean")
    gate = port.keep(f"{part}.squeeze", gate[:, None, None])
    gate = port.activation(f"{part}.act_reduce", port.conv(f"{part}.reduce", gate), act)
    gate = port.activation(f"{part}.act_expand", port.conv(f"{part}.expand", gate), "sigmoid")
    x = port.value(part, "gate", layers.multiply, x=x, factor=gate)

    part = f"{name}.projection"
    x = port.conv(f"{part}.project_conv", x, norm=f"{part}.project_bn")
    if not first:
        x = port.pass_on(f"{part}.dropout", x)
        x = port.residual(part, start, x)
    else:
        x = port.pass_on(part, port.op("no residual", part, layers.same, x=x, start=start))
    return port.pass_on(name, x)


# --- SwiftFormer -----------------------------------------------------------------------------------------------------


def swiftformer(port: Port, settings: Settings, x: Array) -> None:
    """Convolutional blocks, and one block with additive attention at the end of each stage."""
    port.eps = settings["batch_norm_eps"]
    bare = "patch_embed.patch_embedding.0.weight" in port.state
    base = "" if bare else "swiftformer"
    inside = "" if bare else "swiftformer."
    stem = f"{inside}patch_embed.patch_embedding"
    for first in (0, 3):
        x = port.conv(f"{stem}.{first}", x, (2, 2), norm=f"{stem}.{first + 1}")
        x = port.activation(f"{stem}.{first + 2}", x, "relu")
    port.pass_on(stem, x)
    port.pass_on(f"{inside}patch_embed", x)

    encoder, step = f"{inside}encoder", 0
    down = _changes_size(settings["embed_dims"], settings["downsamples"])
    stride, pad = _two(settings["down_stride"]), _two(settings["down_pad"])
    for depth, downsample in zip(settings["depths"], down, strict=True):
        name = f"{encoder}.network.{step}"
        for block in range(depth - 1):
            x = _conv_block(port, f"{name}.blocks.{block}", x)
        x = _encoder_block(port, settings, f"{name}.blocks.{depth - 1}", x)
        x = port.pass_on(name, x)
        step += 1
        if downsample:
            name = f"{encoder}.network.{step}"
            pads = (pad[0],) * 2, (pad[1],) * 2
            x = port.conv(f"{name}.proj", x, stride, pads, norm=f"{name}.norm")
            x = port.pass_on(name, x)
            step += 1
    port.pass_on(encoder, x)
    port.pass_on(base, x)
    if bare:
        return
    x = port.batch_norm("norm", x)
    x = port.value(":pooled", "pool", layers.pooled, "BD", x=x, how="mean")
    first_head = port.linear("head", x, "BD")
    port.logits(first_head, port.linear("dist_head", x, "BD"))


def _conv_block(port: Port, name: str, x: Array) -> Array:
    y = port.conv(f"{name}.depth_wise_conv", x, norm=f"{name}.norm")
    y = port.conv(f"{name}.point_wise_conv1", y)
    y = port.activation(f"{name}.act", y, "gelu")
    y = port.conv(f"{name}.point_wise_conv2", y)
    y = port.scaled(f"{name}.drop_path", f"{name}.layer_scale", y)
    return port.residual(name, x, y)


def _encoder_block(port: Port, settings: Settings, name: str, x: Array) -> Array:
    x = _conv_block(port, f"{name}.local_representation", x)
    height, width = x.shape[1:3]
    tokens = port.op("flatten", f"{name}.attn.to_query", layers.flatten, x=x)
    y = _additive_attention(port, f"{name}.attn", tokens, settings.get("attention_norm", "ones"))
    branch = f"{name}.drop_path#1"
    y = port.op("unflatten", branch, layers.unflatten, x=y, height=height, width=width)
    y = port.scaled(branch, f"{name}.layer_scale_1", y)
    x = port.residual(f"{name}:mixed", x, y)

    mlp = f"{name}.linear"
    y = port.conv(f"{mlp}.fc1", port.batch_norm(f"{mlp}.norm1", x))
    y = port.activation(f"{mlp}.act", y, settings["hidden_act"])
    y = port.pass_on(f"{mlp}.drop#1", y)
    y = port.conv(f"{mlp}.fc2", y)
    y = port.pass_on(f"{mlp}.drop", y)
    y = port.pass_on(mlp, y)
    y = port.scaled(f"{name}.drop_path", f"{name}.layer_scale_2", y)
    return port.residual(name, x, y)


def _additive_attention(port: Port, name: str, x: Array, norm: str) -> Array:
    raw = port.linear(f"{name}.to_query", x)
    key = port.linear(f"{name}.to_key", x)
    query = port.value(f"{name}:query", "unit length", layers.unit_length, "BND", x=raw)
    key = port.value(f"{name}:key", "unit length", layers.unit_length, "BND", x=key)
    w_g = port.array(f"{name}.w_g")
    weights = port.value(
        f"{name}:weights", "token weights", layers.token_weights, "BN1", query=query, w_g=w_g, norm=norm
    )
    vector = port.value(
        f"{name}:global_query", "global query", layers.global_query, "B1D", weights=weights, query=query
    )
    y = port.value(f"{name}:context", "gated", layers.gated, "BND", vector=vector, key=key, query=query)
    y = port.linear(f"{name}.proj", y)
    y = port.op("add query", f"{name}.final", layers.add_query, x=y, query=query, raw=raw)
    return port.pass_on(name, port.linear(f"{name}.final", y), "BND")


NETWORKS = {"efficientformer": efficientformer, "efficientnet": efficientnet, "swiftformer": swiftformer}
