"""Would the golden values notice? Each subtly wrong model must fail the comparison that the right one passes.

A mutant patches one thing, runs `assert_matches_golden` on a case in which that thing matters, and must be caught.
"""

import numpy as np
import pytest

from npformer import ops, record
from npformer.models import efficientformer
from npformer.nn import BatchNorm2d, LayerNorm
from tests.support import CASES, assert_matches_golden, fill, pixel_values, read_golden

CASE = "resolution-5"  # two attention blocks of three heads, layer scales, GELU, odd and non-square input


def compare(case_name=CASE, change=None):
    case = CASES[case_name]
    model = fill(case.model(), np.float64)
    if change is not None:
        change(model)
    assert_matches_golden(record(model, pixel_values(case.shape)), read_golden(case_name))


def test_the_right_model_passes():
    compare()


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


def swap_qkv(first, second):
    """Exchange two of query, key and value inside the packed projection's output."""

    def forward(self, x):
        batch, tokens, _ = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, self.num_heads, -1).swapaxes(1, 2)
        parts = np.split(qkv, [self.key_dim, 2 * self.key_dim], axis=-1)
        parts[first], parts[second] = parts[second], parts[first]
        bias = self.attention_biases[:, self.attention_bias_idxs]
        context, probs = ops.biased_attention(*parts, bias)
        return self.projection(context.swapaxes(1, 2).reshape(batch, tokens, -1)), probs

    return forward


def packed_by_kind(self, x):
    """All queries, then all keys, then all values: how most attention packs them, but not this one."""
    batch, tokens, _ = x.shape
    wide = self.num_heads * self.key_dim
    parts = [
        part.reshape(batch, tokens, self.num_heads, -1).swapaxes(1, 2)
        for part in np.split(self.qkv(x), [wide, 2 * wide], axis=-1)
    ]
    context, probs = ops.biased_attention(*parts, self.attention_biases[:, self.attention_bias_idxs])
    return self.projection(context.swapaxes(1, 2).reshape(batch, tokens, -1)), probs


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
    for kind in (efficientformer.EfficientFormerMeta4D, efficientformer.EfficientFormerMeta3D):
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


def column_major_tokens(self, x):
    return np.ascontiguousarray(x.transpose(0, 3, 2, 1).reshape(x.shape[0], -1, x.shape[1]))


ops_biased_attention = ops.biased_attention
Attention, Flat = efficientformer.EfficientFormerSelfAttention, efficientformer.EfficientFormerFlat

CHANGED_MODELS = {
    "padding counted as pixels in the pooling mixer": counted_padding,
    "transposed bias table": transposed_bias,
    "layer scales swapped": swapped_layer_scales,
    "layer scale left out on maps": each(efficientformer.EfficientFormerMeta4D, layer_scale_1=None),
    "layer scale left out on tokens": each(efficientformer.EfficientFormerMeta3D, layer_scale_2=None),
    "batch norm eps 1e-3": each(BatchNorm2d, eps=1e-3),
    "layer norm eps 1e-5 for 1e-12": each(LayerNorm, eps=1e-5),
}

PATCHED_CODE = {
    "tanh GELU": (ops.ACT2FN, "gelu", lambda x: ops.gelu(x, approximate="tanh")),
    "sigmoid GELU": (ops.ACT2FN, "gelu", ops.quick_gelu),
    "GELU in the stem": (ops.ACT2FN, "relu", ops.gelu),
    "unbiased variance in layer norm": (ops, "layer_norm", unbiased_layer_norm),
    "batch norm eps outside the root": (ops, "batch_norm", eps_outside_the_root),
    "missing 1/sqrt(d)": (ops, "biased_attention", unscaled_attention),
    "bias scaled with the scores": (ops, "biased_attention", scaled_with_bias),
    "query and key swapped": (Attention, "forward", swap_qkv(0, 1)),
    "query, key and value packed by kind": (Attention, "forward", packed_by_kind),
    "tokens numbered by columns": (Flat, "forward", column_major_tokens),
    "pooling without subtracting x": (efficientformer.EfficientFormerPooling, "forward", lambda self, x: self.pool(x)),
    "mean over channels' first token": (ops, "token_mean", lambda x: x[:, 0]),
}


@pytest.mark.parametrize("mutant", CHANGED_MODELS)
def test_a_changed_model_is_caught(mutant):
    with pytest.raises(AssertionError, match=r"off by|differs"):
        compare(change=CHANGED_MODELS[mutant])


@pytest.mark.parametrize("mutant", PATCHED_CODE)
def test_patched_code_is_caught(mutant, monkeypatch):
    owner, name, replacement = PATCHED_CODE[mutant]
    if isinstance(owner, dict):
        monkeypatch.setitem(owner, name, replacement)
    else:
        monkeypatch.setattr(owner, name, replacement)
    with pytest.raises(AssertionError, match=r"off by|differs|no value for"):
        compare()


def test_swapped_values_are_caught_where_their_width_allows_it(monkeypatch):
    """With attention_ratio 1 keys and values have the same width, and only their numbers tell them apart."""
    case = CASES[CASE]
    settings = {**case.settings, "attention_ratio": 1}
    model = fill(
        efficientformer.EfficientFormerForImageClassification(
            case.__class__(case.class_name, case.shape, settings).config()
        ),
        np.float64,
    )
    right = model(pixel_values(case.shape)).logits
    monkeypatch.setattr(Attention, "forward", swap_qkv(1, 2))
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
