"""Fusion for speed: fold the constants of inference into the neighbouring weights, and run on the fast kernels.

At inference a batch norm is one multiplication and one addition per channel, and a layer scale one multiplication. A
convolution is linear, so both can be done to its weights once instead of to every map:

    norm(conv(x, w) + b) = conv(x, w * s) + (b - mean) * s + shift        s = weight / sqrt(var + eps)
    conv(norm(x), w) + b = conv(x, w * s) + b + w @ (shift - mean * s)    only without padding: 0 is not norm(0)

A layer norm's statistics depend on its input, so only its weight and bias fold, into the layer after it. Everything is
folded in float64 and rounded once.

Source: Jacob et al. 2018, "Quantization and Training of Neural Networks", section 3.2, folds batch norm so.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import numpy as np

from . import ops
from .fast import kernels
from .fast.modules import (
    Folded,
    FusedConv2d,
    FusedConvBlock,
    FusedEfficientNetBlock,
    FusedLinear,
    FusedMeta3D,
    FusedMeta4D,
    FusedMlp,
    FusedStem,
    FusedSwiftFormerEncoderBlock,
    PadsFor,
)
from .models import efficientformer, efficientnet, swiftformer
from .models.pretrained import PreTrainedModel
from .nn import BatchNorm2d, Conv2d, LayerNorm, Linear, Module
from .ops import Array
from .ops.window import pair, resolve_padding

PICTURES_AT_ONCE = 4  # on one thread: enough to reuse weights, few enough for the cache
WORK_FOR_THREADS = 1e11  # weights times pixels of one picture, below which threads cost more than they gain

M = TypeVar("M", bound=PreTrainedModel)


def fuse(model: M) -> M:
    """Return a new, faster model: same class, inputs and outputs, its blocks replaced by fused ones.

    Batch norms and layer scales are folded into the neighbouring weights, and the blocks compute on several threads
    (`set_num_threads`; a small network on one, unless set), a few pictures of a batch at a time. Outputs differ only
    by rounding. The given model is not changed; whatever is not folded is shared with it. Recording a fused model
    gives every block, stage and output by its name; values inside a block are no longer computed separately. A fused
    model is returned as it is.

    The norm in front of SwiftFormer's heads stays: its result, averaged, is a value of its own ("pooled").

    Raises TypeError for anything but a model of this package.
    """
    if not isinstance(model, PreTrainedModel):
        raise TypeError(f"model must be a model of npformer's, as get_model returns it, got {type(model).__name__}")
    if model.is_fused:
        return model
    twin = copy.deepcopy(model, {id(getattr(m, a)): getattr(m, a) for _, m, a in model.named_arrays()})
    _replace(twin)
    bare = twin.base_model
    bare.pictures_at_once = PICTURES_AT_ONCE
    bare.pixels_for_threads = WORK_FOR_THREADS / max(1, model.num_parameters())
    return twin


def _replace(module: Module) -> None:
    """Replace every block below `module` that has a fused form."""
    for name, child in list(module.named_children()):
        build = _FUSED.get(type(child))
        if build:
            setattr(module, name, build(child))
        else:
            _replace(child)
    if isinstance(module, efficientnet.EfficientNetEncoder):
        _fuse_top(module)


@dataclass
class _Filters:
    """A convolution's or linear layer's weights (O, C, kH, kW) and bias (O,) in float64, during folding."""

    weight: Array
    bias: Array
    dtype: np.dtype

    @classmethod
    def of(cls, layer: Conv2d | Linear) -> Self:
        weight = layer.weight.astype(np.float64)
        weight = weight if weight.ndim == 4 else weight[:, :, None, None]
        bias = np.zeros(len(weight)) if layer.bias is None else layer.bias.astype(np.float64)
        return cls(weight, bias, layer.weight.dtype)

    def then(self, norm: BatchNorm2d) -> Self:
        """Return the filters with the norm after them folded in."""
        scale, shift = _affine(norm)
        return type(self)(self.weight * scale[:, None, None, None], self.bias * scale + shift, self.dtype)

    def after(self, norm: BatchNorm2d | LayerNorm) -> Self:
        """Return the filters with the scale and shift of the norm before them folded in."""
        scale, shift = _affine(norm)
        bias = self.bias + self.weight.sum((2, 3)) @ shift
        return type(self)(self.weight * scale[:, None, None], bias, self.dtype)

    def scaled(self, factor: Array | float | None) -> Self:
        """Return the filters with their outputs multiplied by a factor: a layer scale, or an activation's."""
        factor = np.asarray(1.0 if factor is None else factor, np.float64).reshape(-1)
        return type(self)(self.weight * factor[:, None, None, None], self.bias * factor, self.dtype)

    def fed(self, factor: float) -> Self:
        """Return the filters for inputs that are to be multiplied by `factor`."""
        return type(self)(self.weight * factor, self.bias, self.dtype)

    def arrays(self) -> tuple[Array, Array]:
        """Return the rounded arrays for a matrix product: (C, O) of a 1x1 kernel, and the bias (O,)."""
        weight = np.ascontiguousarray(self.weight[:, :, 0, 0].T.astype(self.dtype))
        return weight, self.bias.astype(self.dtype)

    def patches(self) -> tuple[Array, Array]:
        """Return the arrays for `kernels.conv2d`: (kH*kW*C, O), or (C*kH*kW, O) if it reads planes, and the bias."""
        order = (1, 2, 3, 0) if kernels.reads_planes(self.weight.shape[1]) else (2, 3, 1, 0)
        weight = self.weight.transpose(order).reshape(-1, len(self.weight))
        return np.ascontiguousarray(weight.astype(self.dtype)), self.bias.astype(self.dtype)

    def depthwise(self) -> tuple[Array, Array]:
        """Return the arrays for `kernels.depthwise`: (kH, kW, C), and the bias (C,)."""
        weight = self.weight[:, 0].transpose(1, 2, 0)
        return np.ascontiguousarray(weight.astype(self.dtype)), self.bias.astype(self.dtype)


def _affine(norm: BatchNorm2d | LayerNorm) -> tuple[Array, Array]:
    """Return a norm's scale and shift per channel; for a layer norm those after its own normalisation."""
    weight, bias = norm.weight.astype(np.float64), norm.bias.astype(np.float64)
    if isinstance(norm, LayerNorm):
        return weight, bias
    scale = weight / np.sqrt(norm.running_var.astype(np.float64) + norm.eps)
    return scale, bias - norm.running_mean.astype(np.float64) * scale


def _mlp(first: _Filters, function: Callable[[Array], Array], second: _Filters) -> FusedMlp:
    act = kernels.activation(function)
    return FusedMlp(*first.scaled(act.scale_in).arrays(), act, *second.fed(act.scale_out).arrays())


def _linear(filters: _Filters) -> FusedLinear:
    return FusedLinear(*filters.arrays())


def _convolution(
    conv: Conv2d, norm: BatchNorm2d, function: Callable[[Array], Array] | None, pads: PadsFor | None = None
) -> FusedConv2d:
    """Fuse convolution, norm and activation; the result is exact, whatever factor the fast activation omits."""
    act = kernels.IDENTITY
    if function:
        act = kernels.activation(function)
        act = act if act.scale_out == 1 else kernels.exact(function)
    kernel, stride = conv.weight.shape[2:], pair("stride", conv.stride, 1)
    fixed = resolve_padding(conv.padding, kernel, stride, (1, 1))
    weight, bias = _Filters.of(conv).then(norm).scaled(act.scale_in).patches()
    return FusedConv2d(weight, bias, kernel, stride, pads or Fixed(fixed), act)


@dataclass(frozen=True)
class Fixed:
    """A padding that is independent of the picture's size."""

    pads: ops.window.Pads

    def __call__(self, height: int, width: int) -> ops.window.Pads:
        """Return ((top, bottom), (left, right))."""
        return self.pads


def _efficientformer_stem(stem: efficientformer.EfficientFormerConvStem) -> FusedStem:
    function = stem.activation.function
    first = _convolution(stem.convolution1, stem.batchnorm_before, function)
    return FusedStem([first, _convolution(stem.convolution2, stem.batchnorm_after, function)])


def _swiftformer_stem(stem: swiftformer.SwiftFormerPatchEmbedding) -> FusedStem:
    steps: list[Any] = [child for _, child in stem.patch_embedding.named_children()]
    conv1, norm1, act1, conv2, norm2, act2 = steps
    return FusedStem([_convolution(conv1, norm1, act1.function), _convolution(conv2, norm2, act2.function)])


def _efficientnet_stem(stem: efficientnet.EfficientNetEmbeddings) -> FusedStem:
    pads = stem.padding.pads
    return FusedStem([_convolution(stem.convolution, stem.batchnorm, stem.activation.function, pads)])


def _patch_embeddings(step: efficientformer.EfficientFormerPatchEmbeddings) -> FusedConv2d:
    return _convolution(step.projection, step.norm, None)


def _swiftformer_embeddings(step: swiftformer.SwiftFormerEmbeddings) -> FusedConv2d:
    return _convolution(step.proj, step.norm, None)


def _meta4d(block: efficientformer.EfficientFormerMeta4D) -> FusedMeta4D:
    mlp = block.mlp
    first = _Filters.of(mlp.convolution1).then(mlp.batchnorm_before)
    second = _Filters.of(mlp.convolution2).then(mlp.batchnorm_after).scaled(block.layer_scale_2)
    scale = np.ones(len(second.bias)) if block.layer_scale_1 is None else block.layer_scale_1.astype(np.float64)
    around = np.tile(scale / 9, (3, 3, 1))  # the weight of each neighbour
    around[1, 1] += 1 - scale
    fused = _mlp(first, mlp.activation.function, second)
    dtype = first.dtype
    return FusedMeta4D(block.token_mixer.pool.kernel_size, scale.astype(dtype), around.astype(dtype), fused)


def _meta3d(block: efficientformer.EfficientFormerMeta3D) -> FusedMeta3D:
    mixer, mlp = block.token_mixer, block.mlp
    qkv = _Filters.of(mixer.qkv).after(block.layernorm1)
    each = np.ones(2 * mixer.key_dim + mixer.value_dim)  # of one head: queries, keys, values
    each[: mixer.key_dim] = mixer.key_dim**-0.5
    projection = _Filters.of(mixer.projection).scaled(block.layer_scale_1)
    first = _Filters.of(mlp.linear_in).after(block.layernorm2)
    second = _Filters.of(mlp.linear_out).scaled(block.layer_scale_2)
    return FusedMeta3D(
        mixer.key_dim,
        (block.layernorm1.eps, block.layernorm2.eps),
        _linear(qkv.scaled(np.tile(each, mixer.num_heads))),
        mixer.attention_biases[:, mixer.attention_bias_idxs],
        _linear(projection),
        _mlp(first, mlp.activation.function, second),
    )


def _conv_block(block: swiftformer._ConvBlock) -> FusedConvBlock:
    filters = _Filters.of(block.depth_wise_conv).then(block.norm)
    second = _Filters.of(block.point_wise_conv2).scaled(block.layer_scale)
    mlp = _mlp(_Filters.of(block.point_wise_conv1), block.act.function, second)
    return FusedConvBlock(*filters.depthwise(), mlp)


def _swiftformer_block(block: swiftformer.SwiftFormerEncoderBlock) -> FusedSwiftFormerEncoderBlock:
    attn, mlp = block.attn, block.linear
    query, key = _Filters.of(attn.to_query), _Filters.of(attn.to_key)
    both = _Filters(np.concatenate([query.weight, key.weight]), np.concatenate([query.bias, key.bias]), query.dtype)
    second = _Filters.of(mlp.fc2).scaled(block.layer_scale_2)
    return FusedSwiftFormerEncoderBlock(
        _conv_block(block.local_representation),
        attn.attention_norm,
        attn.w_g,
        _linear(both),
        _linear(_Filters.of(attn.proj)),
        _linear(_Filters.of(attn.final).scaled(block.layer_scale_1)),
        _mlp(_Filters.of(mlp.fc1).after(mlp.norm1), mlp.act.function, second),
    )


def _efficientnet_block(block: efficientnet.EfficientNetBlock) -> FusedEfficientNetBlock:
    layer, gate, last = block.depthwise_conv, block.squeeze_excite, block.projection
    function = layer.depthwise_act.function
    act = kernels.activation(function)
    filters = _Filters.of(layer.depthwise_conv).then(layer.depthwise_norm).scaled(act.scale_in)
    expand = None
    if block.expands:
        wide = block.expansion
        expand = _Filters.of(wide.expand_conv).then(wide.expand_bn).scaled(act.scale_in).arrays()
        filters = filters.fed(act.scale_out)
    pads: PadsFor = layer.depthwise_conv_pad.pads
    if layer.stride == 1:
        kernel = layer.depthwise_conv.weight.shape[2:]
        pads = Fixed(resolve_padding(layer.depthwise_conv.padding, kernel, (1, 1), (1, 1)))
    reduce, excite = _Filters.of(gate.reduce).fed(act.scale_out), _Filters.of(gate.expand)
    return FusedEfficientNetBlock(
        expand,
        *filters.depthwise(),
        layer.stride,
        pads,
        act,
        (*reduce.arrays(), *excite.arrays()),
        gate.act_reduce.function,
        _Filters.of(last.project_conv).then(last.project_bn).fed(act.scale_out).arrays(),
        last.adds_input,
    )


def _fuse_top(encoder: Any) -> None:
    """Fuse the last convolution, whose norm and activation are siblings rather than parts of a block."""
    top = _convolution(encoder.top_conv, encoder.top_bn, encoder.top_activation.function)
    encoder.top_conv, encoder.top_bn, encoder.top_activation = Folded(), Folded(), top


_FUSED: dict[type[Module], Callable[[Any], Module]] = {
    efficientformer.EfficientFormerConvStem: _efficientformer_stem,
    efficientformer.EfficientFormerPatchEmbeddings: _patch_embeddings,
    efficientformer.EfficientFormerMeta4D: _meta4d,
    efficientformer.EfficientFormerMeta3D: _meta3d,
    swiftformer.SwiftFormerPatchEmbedding: _swiftformer_stem,
    swiftformer.SwiftFormerEmbeddings: _swiftformer_embeddings,
    swiftformer.SwiftFormerConvEncoder: _conv_block,
    swiftformer.SwiftFormerEncoderBlock: _swiftformer_block,
    efficientnet.EfficientNetEmbeddings: _efficientnet_stem,
    efficientnet.EfficientNetBlock: _efficientnet_block,
}
