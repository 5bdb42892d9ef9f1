"""Mutation test of the golden values: each subtly wrong model must fail the comparison that the right one passes.

A mutant patches one thing, runs `assert_matches_golden` on a case in which that thing matters, and must be caught.
"""

import re

import numpy as np
import pytest

from npformer import ops, record
from npformer.models import efficientformer, efficientnet, swiftformer
from npformer.nn import Activation, AdaptiveAvgPool2d, AdaptiveMaxPool2d, BatchNorm2d, Identity, LayerNorm
from tests.support import CASES, assert_matches_golden, fill, pixel_values, read_golden
from tests.sweep import first_of_each, sweep

CASE = "resolution-5"  # two attention blocks of three heads, layer scales, GELU, odd and non-square input
CAUGHT = r"off by|differs|^(efficientnet|swiftformer)\.[\w.]+$"  # the last: a layer of another shape


def compare(case_name=CASE, change=None):
    case = CASES[case_name]
    model = fill(case.model(), np.float64)
    if change is not None:
        change(model)
    assert_matches_golden(record(model, pixel_values(case.shape)), read_golden(case_name))


@pytest.mark.parametrize("case_name", [CASE, "net-odd-sizes", "swift-odd-sizes", "swift-l2"])
def test_the_right_model_passes(case_name):
    compare(case_name)


def modules(model, kind):
    return [module for _, module in model.named_modules() if isinstance(module, kind)]


def each(kind, **attributes):
    """A change that sets attributes on every module of a kind; it must find some."""

    def change(model):
        found = modules(model, kind)
        assert found
        for module in found:
            for name, value in attributes.items():
                setattr(module, name, value)

    return change


def fresh(kind, attribute, make):
    """A change that puts a newly made module, or other value, in place of one attribute of every module of a kind."""

    def change(model):
        found = modules(model, kind)
        assert found
        for module in found:
            assert hasattr(module, attribute)
            setattr(module, attribute, make())

    return change


def side_by_side(context):
    """The heads' contexts, (B, h, N, e), as the output projection takes them: (B, N, h*e)."""
    return context.swapaxes(1, 2).reshape(len(context), context.shape[2], -1)


def head_after_head(context):
    return context.reshape(len(context), context.shape[2], -1)


def heads_interleaved(context):
    return context.transpose(0, 2, 3, 1).reshape(len(context), context.shape[2], -1)


def attend(self, query, key, value, join=side_by_side, seen=None):
    """Attention after its packed projection; `join` makes the context, `seen` the one recorded where that differs."""
    query, key, value = (
        self.tap("query", query, "BhNd"),
        self.tap("key", key, "BhNd"),
        self.tap("value", value, "BhNd"),
    )
    bias = self.tap("bias", self.attention_biases[:, self.attention_bias_idxs], "hNN")
    context, probs = ops.biased_attention(query, key, value, bias, tap=lambda name, v: self.tap(name, v, "BhNN"))
    self.tap("context", (seen or join)(context), "BND")
    return self.projection(join(context)), probs


def packed_by_head(order=(0, 1, 2), join=side_by_side, seen=None):
    """Attention with its query, key and value taken in another order out of the packed projection's output."""

    def forward(self, x):
        batch, tokens, _ = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, self.num_heads, -1).swapaxes(1, 2)
        parts = np.split(qkv, [self.key_dim, 2 * self.key_dim], axis=-1)
        return attend(self, *(parts[place] for place in order), join, seen)

    return forward


def packed_by_kind(self, x):
    """All queries, then all keys, then all values: how most attention packs them, but not this one."""
    batch, tokens, _ = x.shape
    wide = self.num_heads * self.key_dim
    parts = [
        part.reshape(batch, tokens, self.num_heads, -1).swapaxes(1, 2)
        for part in np.split(self.qkv(x), [wide, 2 * wide], axis=-1)
    ]
    return attend(self, *parts)


def the_branch(x, branch):
    return branch


def the_input(x, branch):
    return x


def map_block(join=np.add, seen=None):
    """Meta4D's forward; `join` puts the block's input and the mixer's answer together.

    `seen` does so for what is recorded, where that differs.
    """

    def forward(self, x):
        branch = self.drop_path(efficientformer._scaled(self.layer_scale_1, self.token_mixer(x)))
        self.tap("mixed", (seen or join)(x, branch), "BCHW")
        x = join(x, branch)
        return x + self.drop_path(efficientformer._scaled(self.layer_scale_2, self.mlp(x)))

    return forward


def token_block(join=np.add, seen=None, norm_kept=False):
    """Meta3D's forward, likewise; `norm_kept` adds to the normalised tokens instead of those before the norm."""

    def forward(self, x):
        normed = self.layernorm1(x)
        mixed, probs = self.token_mixer(normed)
        branch = self.drop_path(efficientformer._scaled(self.layer_scale_1, mixed))
        x = normed if norm_kept else x
        self.tap("mixed", (seen or join)(x, branch), "BND")
        x = join(x, branch)
        return x + self.drop_path(efficientformer._scaled(self.layer_scale_2, self.mlp(self.layernorm2(x)))), probs

    return forward


def transposed_bias(model):
    """Offsets (dx, dy) instead of (dy, dx): the same table read by columns."""
    for attention in modules(model, efficientformer.EfficientFormerSelfAttention):
        side = model.config.resolution
        down, across = np.divmod(attention.attention_bias_idxs, side)
        attention.attention_bias_idxs = across * side + down


def counted_padding(model):
    for mixer in modules(model, efficientformer.EfficientFormerPooling):
        mixer.pool.count_include_pad = True


def swapped_layer_scales(model):
    for kind in (Meta4D, Meta3D):
        for block in modules(model, kind):
            block.layer_scale_1, block.layer_scale_2 = block.layer_scale_2, block.layer_scale_1


def unbiased_layer_norm(x, normalized_shape, weight=None, bias=None, eps=1e-5):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, ddof=1, keepdims=True) + eps) * weight + bias


def eps_outside_the_root(x, running_mean, running_var, weight=None, bias=None, eps=1e-5):
    column = (slice(None), None, None)
    centred = x - running_mean[column]
    return centred / (np.sqrt(running_var[column]) + eps) * weight[column] + bias[column]


def unscaled_attention(query, key, value, bias, scale=None, tap=None):
    return ops_biased_attention(query, key, value, bias, 1.0, tap or (lambda _, value: value))


def scaled_with_bias(query, key, value, bias, scale=None, tap=None):
    root = query.shape[-1] ** -0.5
    return ops_biased_attention(query, key, value, bias * root, root, tap or (lambda _, value: value))


def unsubtracted_pooling(self, x):
    return self.tap("pooled", self.pool(x), "BCHW")


def column_major_tokens(self, x):
    return np.ascontiguousarray(x.transpose(0, 3, 2, 1).reshape(x.shape[0], -1, x.shape[1]))


ops_biased_attention = ops.biased_attention
Attention, Flat = efficientformer.EfficientFormerSelfAttention, efficientformer.EfficientFormerFlat
Meta4D, Meta3D = efficientformer.EfficientFormerMeta4D, efficientformer.EfficientFormerMeta3D

FORMER_CHANGES = {
    "padding counted as pixels in the pooling mixer": counted_padding,
    "transposed bias table": transposed_bias,
    "layer scales swapped": swapped_layer_scales,
    "layer scale left out on maps": each(Meta4D, layer_scale_1=None),
    "layer scale left out on tokens": each(Meta3D, layer_scale_2=None),
    "batch norm eps 1e-3": each(BatchNorm2d, eps=1e-3),
    "layer norm eps 1e-5 for 1e-12": each(LayerNorm, eps=1e-5),
}

FORMER_PATCHES = {
    "tanh GELU": (ops.ACT2FN, "gelu", lambda x: ops.gelu(x, approximate="tanh")),
    "sigmoid GELU": (ops.ACT2FN, "gelu", ops.quick_gelu),
    "GELU in the stem": (ops.ACT2FN, "relu", ops.gelu),
    "unbiased variance in layer norm": (ops, "layer_norm", unbiased_layer_norm),
    "batch norm eps outside the root": (ops, "batch_norm", eps_outside_the_root),
    "missing 1/sqrt(d)": (ops, "biased_attention", unscaled_attention),
    "bias scaled with the scores": (ops, "biased_attention", scaled_with_bias),
    "query and key swapped": (Attention, "forward", packed_by_head((1, 0, 2))),
    "query, key and value packed by kind": (Attention, "forward", packed_by_kind),
    "tokens numbered by columns": (Flat, "forward", column_major_tokens),
    "pooling without subtracting x": (efficientformer.EfficientFormerPooling, "forward", unsubtracted_pooling),
    "mean over channels' first token": (ops, "token_mean", lambda x: x[:, 0]),
}


# --- EfficientNet ----------------------------------------------------------------------------------------------------

Padding, SqueezeExcite = efficientnet.EfficientNetPadding, efficientnet.EfficientNetSqueezeExciteLayer
Projection, Depthwise = efficientnet.EfficientNetFinalBlockLayer, efficientnet.EfficientNetDepthwiseLayer
right_pads, right_conv2d = Padding.pads, ops.conv2d


def above_and_left(self, height, width):
    """The larger half of SAME's padding on the wrong side."""
    return tuple(pair[::-1] for pair in right_pads(self, height, width))


def repeated_edges(self, x):
    return np.pad(x, ((0, 0), (0, 0), *self.pads(*x.shape[2:])), mode="edge")


def add_wherever_it_fits(model):
    """Also in a stage's first block, where channels and size happen to stay: never so in a published variant."""
    changed = 0
    for block in modules(model, efficientnet.EfficientNetBlock):
        narrow = (block.expansion.expand_conv if block.expands else block.depthwise_conv.depthwise_conv).weight
        given = narrow.shape[1] if block.expands else narrow.shape[0]
        fits = block.depthwise_conv.stride == 1 and given == block.projection.project_conv.weight.shape[0]
        changed += fits and not block.projection.adds_input
        block.projection.adds_input = fits
    assert changed


def gate_before_filtering(self, x):
    wide = self.expansion(x) if self.expands else x
    return self.projection(x, self.depthwise_conv(self.squeeze_excite(wide)))


def gate_added(self, x):
    return x + self.act_expand(self.expand(self.act_reduce(self.reduce(self.squeeze(x)))))


def gate_from_input_pixels(self, x):
    """A gate for every pixel, as a 1x1 convolution without the mean before it would give."""
    self.squeeze(x)
    return x * self.act_expand(self.expand(self.act_reduce(self.reduce(x))))


def bend_before_norm(self, x):
    x = self.depthwise_conv_pad(x) if self.stride == 2 else x
    return self.depthwise_norm(self.depthwise_act(self.depthwise_conv(x)))


def bent_projection(self, embeddings, x):
    x = ops.silu(self.project_bn(self.project_conv(x)))
    return self.dropout(x) + embeddings if self.adds_input else x


def input_never_added(self, embeddings, x):
    x = self.project_bn(self.project_conv(x))
    return self.dropout(x) if self.adds_input else x


def turned_kernels(x, weight, *arguments):
    """Convolution as mathematics has it, the kernel turned by half a circle."""
    return right_conv2d(x, weight[..., ::-1, ::-1], *arguments)


def transposed_kernels(x, weight, *arguments):
    return right_conv2d(x, weight.swapaxes(-1, -2), *arguments)


def hard_sigmoid(x):
    return np.clip(x / 6 + 0.5, 0, 1)


def swap_pooler(model):
    kind = AdaptiveAvgPool2d if type(model.efficientnet.pooler) is AdaptiveMaxPool2d else AdaptiveMaxPool2d
    model.efficientnet.pooler = kind(1)


def stem_on_both_sides(model):
    model.efficientnet.embeddings.padding.odd_input = True


NET_CHANGES = {
    "symmetric padding": each(Padding, mode="symmetric"),
    "TensorFlow's padding for odd sides": each(Padding, mode="tf-same-dynamic"),
    "depthwise_padding ignored": each(Padding, odd_input=False),
    "every block listed in depthwise_padding": each(Padding, odd_input=True),
    "stem padded on both sides": stem_on_both_sides,
    "batch norm eps 1e-5 for 1e-3": each(BatchNorm2d, eps=1e-5),
    "no activation after the depthwise convolution": fresh(Depthwise, "depthwise_act", Identity),
    "no activation on the squeezed vector": fresh(SqueezeExcite, "act_reduce", Identity),
    "ReLU on the squeezed vector": fresh(SqueezeExcite, "act_reduce", lambda: Activation("relu")),
    "hard sigmoid as gate": fresh(SqueezeExcite, "act_expand", lambda: Activation(hard_sigmoid)),
    "maximum squeezed for mean": fresh(SqueezeExcite, "squeeze", lambda: AdaptiveMaxPool2d(1)),
    "input added wherever it fits": add_wherever_it_fits,
    "maximum pooled for mean": swap_pooler,
}
NET_PATCHES = {
    "padding above and to the left": (Padding, "pads", above_and_left),
    "edges repeated for zeros": (Padding, "forward", repeated_edges),
    "hard swish": (ops.ACT2FN, "swish", lambda x: x * hard_sigmoid(x)),
    "ReLU for SiLU": (ops.ACT2FN, "swish", ops.relu),
    "GELU for SiLU": (ops.ACT2FN, "swish", ops.gelu),
    "steeper sigmoid in SiLU": (ops.ACT2FN, "swish", ops.quick_gelu),
    "squeeze-and-excitation before the depthwise convolution": (
        efficientnet.EfficientNetBlock, "forward", gate_before_filtering,
    ),
    "gate added for multiplied": (SqueezeExcite, "forward", gate_added),
    "gate for every pixel": (SqueezeExcite, "forward", gate_from_input_pixels),
    "activation before the norm": (Depthwise, "forward", bend_before_norm),
    "activation after the projection": (Projection, "forward", bent_projection),
    "input never added": (Projection, "forward", input_never_added),
    "kernels turned around": (ops, "conv2d", turned_kernels),
    "kernels transposed": (ops, "conv2d", transposed_kernels),
    "batch norm eps outside the root": (ops, "batch_norm", eps_outside_the_root),
    "sum over the map for mean": (AdaptiveAvgPool2d, "forward", lambda self, x: x.sum((2, 3), keepdims=True)),
}  # fmt: skip

# --- SwiftFormer -----------------------------------------------------------------------------------------------------

Additive, ConvBlock = swiftformer.SwiftFormerEfficientAdditiveAttention, swiftformer._ConvBlock
Encoder, Classifier = swiftformer.SwiftFormerEncoderBlock, swiftformer.SwiftFormerForImageClassification


def unit(x):
    return x / np.sqrt((x**2).sum(-1, keepdims=True))


def additive(query_norm=unit, key_norm=unit, weigh=None, pool=np.sum, gates=lambda query, key: key, add=None):
    """`ops.efficient_additive_attention` with one of its steps done differently; the right ones are the defaults.

    `weigh` makes weights of the scores, `gates` says what the global query multiplies, `add` what is added back later.
    """

    def attention(query, key, w_g, attention_norm="ones", tap=lambda name, value: value):
        raw = query
        query, key = tap("query", query_norm(query)), tap("key", key_norm(key))
        scores = query @ w_g * query.shape[-1] ** -0.5  # (B, N, 1)
        right = ops.softmax(scores, dim=-1) if attention_norm == "ones" else ops.normalize(scores, dim=1)
        weights = tap("weights", right if weigh is None else weigh(scores))
        whole = tap("global_query", pool(weights * query, axis=1, keepdims=True))
        return whole * gates(query, key), query if add is None else add(raw, query, key)

    return attention


def attention_with(**steps):
    return (ops, "efficient_additive_attention", additive(**steps))


def swapped_scales(model):
    for block in modules(model, Encoder):
        block.layer_scale_1, block.layer_scale_2 = block.layer_scale_2, block.layer_scale_1


def swap_query_and_key(model):
    for layer in modules(model, Additive):
        layer.to_query.weight, layer.to_key.weight = layer.to_key.weight, layer.to_query.weight
        layer.to_query.bias, layer.to_key.bias = layer.to_key.bias, layer.to_query.bias


def rearranged(local_first=True, norm_first=False, columns_back=False, skip=None, seen=np.add):
    """An encoder block's forward with one thing done differently.

    `skip` says what is added to the attention, given the block's input and that of the attention; `seen` what is
    recorded of that and the attention's answer.
    """

    def forward(self, x):
        before = x
        if local_first:
            x = self.local_representation(x)
        source = self.linear.norm1(x) if norm_first else x
        tokens = source.reshape(*x.shape[:2], -1).swapaxes(1, 2)
        mixed = self.attn(np.ascontiguousarray(tokens)).swapaxes(1, 2)  # (B, C, N)
        batch, channels, height, width = x.shape
        by_columns = mixed.reshape(batch, channels, width, height).swapaxes(2, 3)
        mixed = by_columns if columns_back else mixed.reshape(x.shape)
        added, branch = x if skip is None else skip(before, x), self.drop_path(self.layer_scale_1 * mixed)
        self.tap("mixed", seen(added, branch), "BCHW")
        x = added + branch
        if not local_first:
            x = self.local_representation(x)
        return x + self.drop_path(self.layer_scale_2 * self.linear(x))

    return forward


def context_seen_late(self, x):
    """The context recorded after its projection, not before."""
    context, query = ops.efficient_additive_attention(
        self.to_query(x),
        self.to_key(x),
        self.w_g,
        self.attention_norm,
        tap=lambda name, value: self.tap(name, value, swiftformer.LAYOUTS[name]),
    )
    return self.final(self.tap("context", self.proj(context), "BND") + query)


def norm_before_filtering(self, x):
    mixed = self.act(self.point_wise_conv1(self.depth_wise_conv(self.norm(x))))
    return x + self.drop_path(self.layer_scale * self.point_wise_conv2(mixed))


def norm_after_the_mlp(self, x):
    return self.norm1(self.drop(self.fc2(self.drop(self.act(self.fc1(x))))))


def heads_joined(join):
    """The classifier's forward with its two heads' answers joined differently."""

    def forward(self, pixel_values):
        hidden = self.norm(self.swiftformer(pixel_values).last_hidden_state)
        pooled = self.tap("pooled", hidden.mean((2, 3)), "BD")
        return (join(self.head(pooled), self.dist_head(pooled)),)

    return forward


def pooled_maximum(self, pixel_values):
    hidden = self.norm(self.swiftformer(pixel_values).last_hidden_state)
    pooled = self.tap("pooled", hidden.max((2, 3)), "BD")
    return ((self.head(pooled) + self.dist_head(pooled)) / 2,)


SWIFT_CHANGES = {
    "l2 for ones": each(Additive, attention_norm="l2"),
    "query and key swapped": swap_query_and_key,
    "layer scales swapped": swapped_scales,
    "no layer scale on the attention": each(Encoder, layer_scale_1=None),
    "no layer scale on the MLP": each(Encoder, layer_scale_2=None),
    "no layer scale in the convolutional blocks": fresh(ConvBlock, "layer_scale", lambda: np.ones((1, 1, 1))),
    "batch norm eps 1e-3": each(BatchNorm2d, eps=1e-3),
    "no norm in the MLP": fresh(swiftformer.SwiftFormerMlp, "norm1", Identity),
    "no norm before the heads": fresh(Classifier, "norm", Identity),
    "no norm after the downsampling": fresh(swiftformer.SwiftFormerEmbeddings, "norm", Identity),
    "ReLU in the MLP": fresh(swiftformer.SwiftFormerMlp, "act", lambda: Activation("relu")),
    "ReLU in the convolutional blocks": fresh(ConvBlock, "act", lambda: Activation("relu")),
    "tanh GELU in the convolutional blocks": fresh(ConvBlock, "act", lambda: Activation("gelu_new")),
}
SWIFT_PATCHES = {
    "GELU in the stem": (ops.ACT2FN, "relu", ops.gelu),
    "softmax over the tokens": attention_with(weigh=lambda scores: ops.softmax(scores, dim=1)),
    "mean of the queries for their sum": attention_with(pool=np.mean),
    "query not normalised": attention_with(query_norm=lambda query: query),
    "key not normalised": attention_with(key_norm=lambda key: key),
    "query normalised over the tokens": attention_with(query_norm=lambda query: ops.normalize(query, dim=1)),
    "query added back before its normalisation": attention_with(add=lambda raw, query, key: raw),
    "query not added back": attention_with(add=lambda raw, query, key: 0),
    "key added back": attention_with(add=lambda raw, query, key: key),
    "local representation after the attention": (Encoder, "forward", rearranged(local_first=False)),
    "a norm before the attention": (Encoder, "forward", rearranged(norm_first=True)),
    "tokens put back by columns": (Encoder, "forward", rearranged(columns_back=True)),
    "norm before the depthwise convolution": (ConvBlock, "forward", norm_before_filtering),
    "norm after the MLP": (swiftformer.SwiftFormerMlp, "forward", norm_after_the_mlp),
    "first head alone": (Classifier, "forward", heads_joined(lambda first, second: first)),
    "second head alone": (Classifier, "forward", heads_joined(lambda first, second: second)),
    "heads added up": (Classifier, "forward", heads_joined(np.add)),
    "maximum over the map for mean": (Classifier, "forward", pooled_maximum),
    "batch norm eps outside the root": (ops, "batch_norm", eps_outside_the_root),
    "kernels turned around": (ops, "conv2d", turned_kernels),
}

# --- all of them -----------------------------------------------------------------------------------------------------

CHANGED_MODELS = {
    CASE: FORMER_CHANGES,
    "net-odd-sizes": NET_CHANGES,
    "net-tf-same": {"static padding": each(Padding, mode="hf-static")},
    "net-symmetric-torch-eps": {
        "static padding": each(Padding, mode="hf-static"),
        "batch norm eps 1e-3 for 1e-5": each(BatchNorm2d, eps=1e-3),
    },
    "net-max-pooling-grey": {"mean pooled for maximum": swap_pooler},
    "swift-odd-sizes": SWIFT_CHANGES,
    "swift-l2": {"ones for l2": each(Additive, attention_norm="ones")},
    "swift-no-layer-scale-relu-grey": {
        "hidden_act in the convolutional blocks": fresh(ConvBlock, "act", lambda: Activation("relu")),
        "GELU whatever hidden_act says": fresh(swiftformer.SwiftFormerMlp, "act", lambda: Activation("gelu")),
    },
}
PATCHED_CODE = {
    CASE: FORMER_PATCHES,
    "net-odd-sizes": NET_PATCHES,
    "net-tf-same": {
        "tanh GELU": (ops.ACT2FN, "gelu", lambda x: ops.gelu(x, approximate="tanh")),
        "padding above and to the left": (Padding, "pads", above_and_left),
    },
    "swift-odd-sizes": SWIFT_PATCHES,
    "swift-l2": {
        "softmax over the tokens": attention_with(weigh=lambda scores: ops.softmax(scores, dim=1)),
        "scores normalised over the channels": attention_with(weigh=lambda scores: ops.normalize(scores, dim=-1)),
        "scores not normalised": attention_with(weigh=lambda scores: scores),
        "scores without their signs": attention_with(weigh=lambda scores: np.abs(ops.normalize(scores, dim=1))),
        "scores adding up to one": attention_with(weigh=lambda scores: scores / np.abs(scores).sum(1, keepdims=True)),
    },
}

# Wrong between two modules, or right and the wrong thing recorded: at which value it shows first.
FIRST_ATTENTION = "efficientformer.encoder.last_stage.meta3D_layers.blocks.0"
FIRST_ENCODER = "swiftformer.encoder.network.0.blocks.0"
MIXED_MAP = "efficientformer.encoder.intermediate_stages.0.meta4D_layers.blocks.0:mixed"
MIXED_TOKENS, CONTEXT = f"{FIRST_ATTENTION}:mixed", f"{FIRST_ATTENTION}.token_mixer:context"
MIXED_PIXELS, GATED_KEYS = f"{FIRST_ENCODER}:mixed", f"{FIRST_ENCODER}.attn:context"
BETWEEN_MODULES = {
    CASE: {
        "nothing added to the pooling": (MIXED_MAP, (Meta4D, "forward", map_block(the_branch))),
        "pooling left out": (MIXED_MAP, (Meta4D, "forward", map_block(the_input))),
        "pooling subtracted": (MIXED_MAP, (Meta4D, "forward", map_block(np.subtract))),
        "pooling recorded for the sum": (MIXED_MAP, (Meta4D, "forward", map_block(seen=the_branch))),
        "nothing added to the attention": (MIXED_TOKENS, (Meta3D, "forward", token_block(the_branch))),
        "attention left out": (MIXED_TOKENS, (Meta3D, "forward", token_block(the_input))),
        "normalised tokens added": (MIXED_TOKENS, (Meta3D, "forward", token_block(norm_kept=True))),
        "attention recorded for the sum": (MIXED_TOKENS, (Meta3D, "forward", token_block(seen=the_branch))),
        "head after head": (CONTEXT, (Attention, "forward", packed_by_head(join=head_after_head))),
        "heads interleaved": (CONTEXT, (Attention, "forward", packed_by_head(join=heads_interleaved))),
        "heads recorded interleaved": (CONTEXT, (Attention, "forward", packed_by_head(seen=heads_interleaved))),
    },
    "swift-odd-sizes": {
        "nothing added to the attention": (MIXED_PIXELS, (Encoder, "forward", rearranged(skip=lambda before, x: 0))),
        "the block's input added": (MIXED_PIXELS, (Encoder, "forward", rearranged(skip=lambda before, x: before))),
        "attention recorded for the sum": (MIXED_PIXELS, (Encoder, "forward", rearranged(seen=the_branch))),
        "queries gated for keys": (GATED_KEYS, attention_with(gates=lambda query, key: query)),
        "global query without keys": (GATED_KEYS, attention_with(gates=lambda query, key: np.ones_like(key))),
        "context recorded after its projection": (GATED_KEYS, (Additive, "forward", context_seen_late)),
    },
}  # fmt: skip


CHANGED = [(case, name) for case, found in CHANGED_MODELS.items() for name in found]
PATCHED = [(case, name) for case, found in PATCHED_CODE.items() for name in found]


def some_of_each(mutants):
    """Every third, and the first of each case."""
    return {*mutants[::3], *first_of_each(mutants, lambda mutant: mutant[0])}


@pytest.mark.parametrize(("case_name", "mutant"), sweep(CHANGED, some_of_each(CHANGED)))
def test_a_changed_model_is_caught(case_name, mutant):
    with pytest.raises(AssertionError, match=CAUGHT):
        compare(case_name, CHANGED_MODELS[case_name][mutant])


@pytest.mark.parametrize(("case_name", "mutant"), sweep(PATCHED, some_of_each(PATCHED)))
def test_patched_code_is_caught(case_name, mutant, monkeypatch):
    owner, name, replacement = PATCHED_CODE[case_name][mutant]
    if isinstance(owner, dict):
        monkeypatch.setitem(owner, name, replacement)
    else:
        monkeypatch.setattr(owner, name, replacement)
    with pytest.raises(AssertionError, match=CAUGHT):
        compare(case_name)


@pytest.mark.parametrize(
    ("case_name", "mutant"), [(case, name) for case, found in BETWEEN_MODULES.items() for name in found]
)
def test_what_goes_wrong_between_two_modules_is_caught_there(case_name, mutant, monkeypatch):
    where, patch = BETWEEN_MODULES[case_name][mutant]
    monkeypatch.setattr(*patch)
    with pytest.raises(AssertionError, match=rf"^{re.escape(where)}: off by"):
        compare(case_name)


def test_the_blocks_rewritten_for_the_mutants_are_right_in_themselves(monkeypatch):
    monkeypatch.setattr(Attention, "forward", packed_by_head())
    monkeypatch.setattr(Meta4D, "forward", map_block())
    monkeypatch.setattr(Meta3D, "forward", token_block())
    compare()


@pytest.mark.parametrize("case_name", ["swift-odd-sizes", "swift-l2"])
def test_the_attention_rewritten_for_the_mutants_is_right_in_itself(case_name, monkeypatch):
    monkeypatch.setattr(*attention_with())
    monkeypatch.setattr(Encoder, "forward", rearranged())
    monkeypatch.setattr(Classifier, "forward", heads_joined(lambda first, second: (first + second) / 2))
    compare(case_name)


@pytest.mark.parametrize("case_name", ["swift-odd-sizes", "swift-l2"])
def test_the_scale_of_the_scores_is_invisible(case_name):
    """The one mutant that must survive: scores without their C^-0.5.

    With "ones" each score is softmaxed alone, and exp(a) / exp(a) is 1 for every a. With "l2" the scores are divided
    by their own length, and with it by any positive factor they share.
    """

    def unscaled(model):
        for layer in modules(model, Additive):
            layer.w_g = layer.w_g * layer.w_g.shape[0] ** 0.5

    compare(case_name, unscaled)


def test_a_squeezed_vector_as_wide_as_the_gates_would_ask_for_is_refused_on_loading(monkeypatch):
    """Its width follows from the block's narrow input; from the wide one it would be six times as large."""
    right = SqueezeExcite.__init__
    monkeypatch.setattr(SqueezeExcite, "__init__", lambda self, config, _, wide: right(self, config, wide, wide))
    case = CASES["net-odd-sizes"]
    mutant = case.model()
    monkeypatch.undo()
    with pytest.raises(
        ValueError, match=r"blocks\.1\.squeeze_excite\.reduce\.weight has shape \(2, 48, 1, 1\) instead of"
    ):
        mutant.load_state_dict(case.model().state_dict())


def test_swapped_values_are_caught_where_their_width_allows_it(monkeypatch):
    """With attention_ratio 1 keys and values have the same width, and only their numbers distinguish them."""
    case = CASES[CASE]
    settings = {**case.settings, "attention_ratio": 1}
    model = fill(
        efficientformer.EfficientFormerForImageClassification(
            case.__class__(case.class_name, case.shape, settings).config()
        ),
        np.float64,
    )
    right = model(pixel_values(case.shape)).logits
    monkeypatch.setattr(Attention, "forward", packed_by_head((0, 2, 1)))
    wrong = model(pixel_values(case.shape)).logits
    assert np.abs(right - wrong).max() > 1e-3


@pytest.mark.parametrize("head", ["classifier", "distillation_classifier"])
def test_one_head_for_two_is_caught(head, monkeypatch):
    def one_head(self, pixel_values):
        hidden = self.efficientformer(pixel_values).last_hidden_state
        pooled = self.tap("pooled", ops.token_mean(hidden), "BD")
        self.classifier(pooled), self.distillation_classifier(pooled)
        return (getattr(self, head)(pooled),)

    monkeypatch.setattr(efficientformer.EfficientFormerForImageClassificationWithTeacher, "forward", one_head)
    with pytest.raises(AssertionError, match="off by"):
        compare("attention-only-last-stage")
