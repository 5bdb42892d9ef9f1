"""The catalogue of causes: every entry computes what it says, none equals the right op, and keys are stable.

What a wrong op gives is written out here a second time, in plain NumPy and without the catalogue's own functions; of
all alternatives at that site the one with the right key, and none other, must give the same numbers.
"""

from __future__ import annotations

import copy
import fnmatch
import functools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest

from npformer.nn import LayerNorm, Sequential, watch
from npformer.parity.causes import alternatives, fitted, misshapen
from npformer.parity.site import Site
from tests import tiny
from tests.support import BARE, BARE_NET, BARE_SWIFT, NET, ONE_HEAD, SWIFT, TWO_HEADS
from tests.sweep import sweep

RANDOM = np.random.default_rng(11)
SAME = 1e-9  # of the largest value, in float64

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "former-bare": (BARE, {"resolution": 3, "image_size": 96, "hidden_act": "relu", "drop_path_rate": 0.2}),
    "former": (ONE_HEAD, {"resolution": 3, "image_size": 96, "hidden_dropout_prob": 0.1, "layer_norm_eps": 1e-5}),
    "former-teacher": (TWO_HEADS, {"hidden_act": "gelu_new", "num_attention_heads": 3}),
    "former-unscaled": (
        TWO_HEADS,
        {"resolution": 3, "use_layer_scale": False, "num_attention_heads": 1, "hidden_act": "linear"},
    ),
    "net-bare": (BARE_NET, {"pooling_type": "max", "padding": "symmetric", "hidden_act": "selu"}),
    "net": (NET, {}),
    "net-square": (
        NET,
        {
            "in_channels": [32, 32, 24, 40, 80, 80, 192],
            "out_channels": [32, 24, 40, 80, 80, 192, 320],
            "pooling_type": "max",
        },
    ),
    "net-same": (NET, {"padding": "tf-same-dynamic", "hidden_act": "mish", "batch_norm_eps": 1e-5}),
    "net-symmetric": (NET, {"padding": "symmetric", "hidden_act": "quick_gelu"}),
    "swift-bare": (BARE_SWIFT, {"hidden_act": "tanh", "drop_path_rate": 0.1}),
    "swift": (SWIFT, {"drop_mlp_rate": 0.3}),
    "swift-l2": (SWIFT, {"attention_norm": "l2", "hidden_act": "relu", "drop_conv_encoder_rate": 0.1}),
    "swift-unscaled": (SWIFT, {"use_layer_scale": False, "num_labels": 1}),
    "swift-row": (SWIFT, {}),  # its last map is one pixel high
}
ONE_OF_EACH_FAMILY = ["former", "net-same", "swift-l2"]
SIDES = {"former-bare": (96, 96), "former": (96, 96), "former-teacher": (64, 63), "former-unscaled": (96, 94)}
SIDES |= {"net": (98, 130), "net-same": (72, 98), "swift-l2": (97, 130), "swift-row": (32, 96)}


def sites_of(model: Any, pixel_values: np.ndarray) -> dict[str, Site]:
    """Every named value of one run as a site."""
    totals: Counter[str] = Counter()
    used: dict[str, np.ndarray] = {}
    sites: dict[str, Site] = {}
    modules = dict(model.named_modules())

    def count(name: str, module: Any, inputs: Any, output: np.ndarray, layout: str | None) -> np.ndarray:
        totals[name] += 1
        return output

    def keep(name: str, module: Any, inputs: Any, output: np.ndarray, layout: str | None) -> np.ndarray:
        seen[name] += 1
        key = name if seen[name] == totals[name] else f"{name}#{seen[name]}"
        sites[key] = Site(key, name.partition(":")[0], module, inputs, output, layout, dict(used), modules)
        used[key] = output
        return output

    for observer in (count, keep):
        seen: Counter[str] = Counter()
        with watch(model, observer):
            model(pixel_values)
    return sites


@functools.cache
def sites(name: str, dtype: Any = np.float64) -> Mapping[str, Site]:
    class_name, settings = MODELS[name]
    model = tiny.model(class_name, **settings).astype(dtype)
    return sites_of(model, tiny.pictures(2, 3, *SIDES.get(name, (64, 64))).astype(dtype))


def difference(value: np.ndarray, right: np.ndarray) -> float:
    """The largest error over the larger of both largest values; 0 of two zeros."""
    largest = max(np.abs(value).max(), np.abs(right).max())
    return float(np.abs(value - right).max() / largest) if largest else 0.0


def everywhere() -> Iterator[tuple[str, Site]]:
    for model in MODELS:
        for site in sites(model).values():
            yield model, site


@pytest.mark.parametrize("model", sweep(MODELS, ONE_OF_EACH_FAMILY))
def test_every_alternative_is_another_value_of_the_same_shape_and_changes_nothing(model: str) -> None:
    for name, site in sites(model).items():
        before = {key: value.copy() for key, value in site.used.items()}
        inputs = copy.deepcopy(site.inputs)
        for cause, thunk in alternatives(site):
            value = thunk()
            assert value.shape == site.output.shape, (name, cause)
            assert value.dtype == np.float64, (name, cause)
            assert np.isfinite(value).all(), (name, cause)
            assert cause.text == cause.text.strip(" .,"), cause
            # ReLU6 is ReLU below 6; no catalogue that never looks at numbers can know.
            if "ReLU6 instead of ReLU" not in cause.text:
                assert difference(value, site.output) > SAME, (name, cause)
            assert np.array_equal(thunk(), value), (name, cause)
        assert all(np.array_equal(value, before[key]) for key, value in site.used.items()), name
        assert all(np.array_equal(value, old) for value, old in zip(site.inputs, inputs, strict=True)), name


@pytest.mark.parametrize("model", sweep(MODELS, ONE_OF_EACH_FAMILY))
def test_in_float32_the_same_causes_come_in_the_same_order_and_stay_float32(model: str) -> None:
    for name, site in sites(model, np.float32).items():
        exact = list(alternatives(sites(model)[name]))
        single = list(alternatives(site))
        assert [cause for cause, _ in single] == [cause for cause, _ in exact], name
        for (cause, thunk), (_, exactly) in zip(single, exact, strict=True):
            value, right = thunk(), exactly()
            assert value.dtype == np.float32, (name, cause)
            assert difference(value.astype(np.float64), right) < 2e-2, (name, cause)


def test_causes_of_a_site_differ_and_those_of_query_key_and_value_are_one() -> None:
    for model, site in everywhere():
        causes = [cause for cause, _ in alternatives(site)]
        assert len(set(causes)) == len(causes), (model, site.name)
    for name in sites("former"):
        if name.endswith(":value"):
            by_part = [
                {cause for cause, _ in alternatives(sites("former")[name.replace(":value", f":{part}")])}
                for part in ("query", "key", "value")
            ]
            assert by_part[0] == by_part[1] > by_part[2]


def test_nothing_is_offered_that_needs_a_value_that_is_not_there() -> None:
    for _, site in everywhere():
        alone = Site(site.name, site.owner, site.module, site.inputs, site.output, site.layout, {}, site.modules)
        for _, thunk in alternatives(alone):
            assert thunk().shape == site.output.shape


def test_thunks_stay_right_however_late_they_are_called() -> None:
    for model in ("former", "net", "swift"):
        for site in sites(model).values():
            at_once = [thunk() for _, thunk in alternatives(site)]
            later = [thunk() for _, thunk in list(alternatives(site))]
            assert all(np.array_equal(a, b) for a, b in zip(at_once, later, strict=True)), site.name


def test_no_watching_observer_sees_what_a_thunk_computes() -> None:
    class_name, settings = MODELS["swift"]
    model = tiny.model(class_name, **settings).astype(np.float64)
    mine = sites_of(model, tiny.pictures().astype(np.float64))

    def fail(name: str, *_: Any) -> np.ndarray:
        raise AssertionError(name)

    with watch(model, fail):
        for site in mine.values():
            for _, thunk in alternatives(site):
                thunk()


# ------------------------------------------------------------------------------ wrong ops, written a second time

Wrong = Callable[[Site], np.ndarray]


def used(site: Site, name: str) -> np.ndarray:
    """A value by its name within the site's module, or beside it where the name begins with a "^"."""
    owner = site.owner
    while name.startswith("^"):
        name, owner = name[1:], owner.rpartition(".")[0]
    return site.used[f"{owner}{'' if name.startswith(':') or not owner else '.'}{name}"]


def x_of(site: Site) -> np.ndarray:
    return site.inputs[0]


def channels(vector: np.ndarray) -> np.ndarray:
    return vector.reshape(-1, 1, 1)


def norm_of(site: Site, x: np.ndarray, **changes: Any) -> np.ndarray:
    """Batch norm, step by step."""
    module = site.module
    mean, var = changes.get("mean", module.running_mean), changes.get("var", module.running_var)
    weight, bias = changes.get("weight", module.weight), changes.get("bias", module.bias)
    deviation = changes.get("deviation", np.sqrt(var + changes.get("eps", module.eps)))
    return (x - channels(mean)) / channels(deviation) * channels(weight) + channels(bias)


def layer_norm_of(
    site: Site, axis: Any = -1, mean: bool = True, eps: float | None = None, ddof: int = 0
) -> np.ndarray:
    module, x = site.module, x_of(site)
    eps = module.eps if eps is None else eps
    centred = x - x.mean(axis=axis, keepdims=True) if mean else x
    var = x.var(axis=axis, keepdims=True, ddof=ddof) if mean else (x**2).mean(axis=axis, keepdims=True)
    return centred / (var + eps) ** 0.5 * module.weight + module.bias


def convolved(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None, stride: int, groups: int = 1) -> np.ndarray:
    """A convolution without padding, one output pixel at a time."""
    batch, _, height, width = x.shape
    filters, per_group, kernel_height, kernel_width = weight.shape
    rows, columns = (height - kernel_height) // stride + 1, (width - kernel_width) // stride + 1
    grouped = x.reshape(batch, groups, per_group, height, width)
    kernels = weight.reshape(groups, filters // groups, per_group, kernel_height, kernel_width)
    out = np.zeros((batch, filters, rows, columns))
    for i in range(rows):
        for j in range(columns):
            top, left = i * stride, j * stride
            patch = grouped[..., top : top + kernel_height, left : left + kernel_width]
            out[..., i, j] = np.einsum("bgcyx,gocyx->bgo", patch, kernels).reshape(batch, filters)
    return out if bias is None else out + channels(bias)


def around(x: np.ndarray, top: int, bottom: int, left: int, right: int, mode: str = "constant") -> np.ndarray:
    return np.pad(x, [(0, 0), (0, 0), (top, bottom), (left, right)], mode=mode)


def conv_of(site: Site, change: Callable[[np.ndarray], np.ndarray] = lambda w: w, bias: bool = True) -> np.ndarray:
    """The site's convolution with its own padding, which is symmetric here, and another weight."""
    conv = site.module
    pad = {"valid": 0, "same": conv.weight.shape[2] // 2}.get(conv.padding, conv.padding)
    pad = pad[0] if isinstance(pad, tuple) else pad
    x = around(x_of(site), pad, pad, pad, pad)
    stride = conv.stride[0] if isinstance(conv.stride, tuple) else conv.stride
    return convolved(x, change(conv.weight), conv.bias if bias else None, stride, conv.groups)


def flattened(x: np.ndarray) -> np.ndarray:
    return np.stack([x[:, :, i, j] for i in range(x.shape[2]) for j in range(x.shape[3])], axis=1)


def windows(x: np.ndarray, size: int, fill: float) -> np.ndarray:
    """Every window of a map at stride 1, around each of its pixels: (B, C, H, W, size * size)."""
    half = size // 2
    padded = np.pad(x, [(0, 0), (0, 0), (half, half), (half, half)], constant_values=fill)
    height, width = x.shape[2:]
    return np.stack([padded[:, :, i : i + height, j : j + width] for i in range(size) for j in range(size)], axis=-1)


def gauss(x: np.ndarray) -> np.ndarray:
    return x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2


def logistic(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def probabilities(x: np.ndarray, axis: int = -1) -> np.ndarray:
    return np.exp(x) / np.exp(x).sum(axis=axis, keepdims=True)


def heads_of(site: Site, part: int, packed: str) -> np.ndarray:
    """Query, key or value, one head and one number at a time, from the long vectors packed in some way."""
    qkv, attention = used(site, "qkv"), site.module
    h, d, e = attention.num_heads, attention.key_dim, attention.value_dim
    width = (d, d, e)[part]
    out = np.empty((len(qkv), h, qkv.shape[1], width))
    for head in range(h):
        for i in range(width):
            place = {
                "blocks": part * h * d + head * width + i,
                "heads last": (part * d + i) * h + head,
                "value first": head * (2 * d + e) + (e + i, e + d + i, i)[part],
                "right": head * (2 * d + e) + part * d + i,
            }[packed]
            out[:, head, :, i] = qkv[:, :, place]
    return out


def unswapped(site: Site, part: int) -> np.ndarray:
    """The long vectors' memory read as (B, h, N, 2d + e)."""
    attention, qkv = site.module, used(site, "qkv")
    d = attention.key_dim
    slices = (slice(0, d), slice(d, 2 * d), slice(2 * d, None))
    return qkv.reshape(len(qkv), attention.num_heads, qkv.shape[1], -1)[..., slices[part]]


def biases(site: Site, place: Callable[[int, int, int], int]) -> np.ndarray:
    """Bias of every pair of tokens, `place` giving its number in the table from signed offsets and the grid's side."""
    table = site.module.attention_biases
    n = math.isqrt(table.shape[1])
    grid = [(y, x) for y in range(n) for x in range(n)]
    return np.array([[[head[place(a - c, b - d, n)] for c, d in grid] for a, b in grid] for head in table])


def scored(site: Site, scale: float, bias: float = 1.0) -> np.ndarray:
    products = np.einsum("bhnd,bhmd->bhnm", used(site, ":query"), used(site, ":key"))
    return products * scale + bias * used(site, ":bias")


def contexts(site: Site) -> np.ndarray:
    return np.einsum("bhnm,bhme->bhne", used(site, ":probs"), used(site, ":value"))


def unit(x: np.ndarray, axis: int, power: int = 2) -> np.ndarray:
    return x / (np.abs(x) ** power).sum(axis=axis, keepdims=True) ** (1 / power)


def additive_scores(site: Site, scaled: bool = True) -> np.ndarray:
    scores = np.einsum("bnd,de->bne", used(site, ":query"), site.module.w_g)
    return scores / math.sqrt(len(site.module.w_g)) if scaled else scores


def dense(site: Site, x: np.ndarray) -> np.ndarray:
    return np.einsum("...i,oi->...o", x, site.module.weight) + site.module.bias


def scale_of(site: Site, which: int, like: np.ndarray) -> np.ndarray:
    scale = getattr(site.parent, f"layer_scale_{which}")
    return scale if like.ndim == 3 else scale.reshape(1, -1, 1, 1)


def own_activation(site: Site) -> Callable[[np.ndarray], np.ndarray]:
    return site.module.function


def branch_of(site: Site) -> np.ndarray:
    """The unscaled branch at an EfficientFormer's drop path."""
    return used(site, "^token_mixer" if "#1" in site.name else "^mlp")


def tokens_of(site: Site) -> np.ndarray:
    """Return the tokens that are pooled for the classifier."""
    if "efficientformer" in site.used:
        return site.used["efficientformer"]
    return flattened(site.used["norm"] if "norm" in site.used else x_of(site))


def back_in_map(tokens: np.ndarray, like: np.ndarray, by_columns: bool) -> np.ndarray:
    out = np.empty_like(like)
    _, _, height, width = like.shape
    for i in range(height):
        for j in range(width):
            out[:, :, i, j] = tokens[:, j * height + i if by_columns else i * width + j]
    return out


WRONG: list[tuple[str, str, str, Wrong]] = []


def wrong(key: str, function: Wrong, *places: str) -> None:
    """A porter's mistake: its key, what the port computes, and where: "model:which sites", the first and the last."""
    WRONG.extend((key, *place.split(":", 1), function) for place in places)


# --- activations


def bent(function: Callable[[np.ndarray], np.ndarray]) -> Wrong:
    return lambda site: function(x_of(site))


def exponential(x: np.ndarray, alpha: float = 1.0) -> np.ndarray:
    return np.where(x > 0, x, alpha * (np.exp(np.minimum(x, 0)) - 1))


def activation_first(norm: str, conv: str) -> Wrong:
    """The activation between a convolution and its batch norm, instead of after both."""

    def function(site: Site) -> np.ndarray:
        beside = Site("", "", site.modules[f"{site.owner.rpartition('.')[0]}.{norm}"], (), x_of(site), None, {}, {})
        return norm_of(beside, own_activation(site)(used(site, f"^{conv}")))

    return function


ROOT = math.sqrt(2 / math.pi)
wrong(
    "gelu-tanh", bent(lambda x: x / 2 * (1 + np.tanh(ROOT * (x + 0.044715 * x**3)))),
    "former:*mlp.activation", "swift:*.act", "net:*_act",
)  # fmt: skip
wrong("gelu-sigmoid", bent(lambda x: x * logistic(1.702 * x)), "former:*mlp.activation", "swift:*.act", "net:*_act")
wrong("act-gelu", bent(gauss), "former-teacher:*mlp.activation", "net:*_act", "swift-l2:*.linear.act")
wrong("act-relu", bent(lambda x: x * (x > 0)), "former:*mlp.activation", "net:*_act", "swift:*.act")
wrong("act-silu", bent(lambda x: x * logistic(x)), "former:*activation*", "net-same:*_act", "swift:*embedding.[25]")
wrong(
    "act-hardswish",
    bent(lambda x: x * np.clip(x / 6 + 0.5, 0, 1)),
    "net:*_act",
    "former:*mlp.activation",
    "swift:*.act",
)
wrong("act-relu6", bent(lambda x: np.clip(x, 0, 6)), "net:*_act", "former:*mlp.activation", "swift:*.act")
wrong("act-leaky-relu", bent(lambda x: np.maximum(x, x / 100)), "former:*embed.activation*", "net:*_act")
wrong("act-leaky-relu", bent(lambda x: np.maximum(x, x / 5)), "swift:*patch_embedding.[25]")
wrong("act-hardsigmoid", bent(lambda x: np.clip(x / 6 + 0.5, 0, 1)), "net:*.act_expand", "net-same:*.act_expand")
wrong("act-hardsigmoid", bent(lambda x: np.clip(x / 5 + 0.5, 0, 1)), "net:*.act_expand")
wrong("act-tanh", bent(lambda x: 2 * logistic(2 * x) - 1), "net:*.act_expand", "former:*mlp.activation", "swift:*.act")
wrong("act-sigmoid", bent(logistic), "former:*mlp.activation", "net:*_act", "swift:*.act")
wrong("act-mish", bent(lambda x: x * np.tanh(np.log(1 + np.exp(x)))), "net:*_act", "swift:*.act")
wrong("act-selu", bent(lambda x: 1.0507009873554805 * exponential(x, 1.6732632423543772)), "net:*_act", "swift:*.act")
wrong("act-elu", bent(exponential), "net:*_act", "swift:*.act")
wrong("act-missing", x_of, "former:*activation*", "net:*.act_expand", "net:*_act", "swift:*.act")
wrong("act-twice", lambda s: own_activation(s)(own_activation(s)(x_of(s))), "net:*_act", "swift:*.act")
wrong("act-added", lambda s: gauss(norm_of(s, x_of(s))), "former:*mlp.batchnorm_after", "former:*[135].norm")
wrong("act-added", lambda s: np.maximum(norm_of(s, x_of(s)), 0), "swift:*[135].norm", "swift:*representation.norm")
wrong("act-added", lambda s: norm_of(s, x_of(s)) * logistic(norm_of(s, x_of(s))), "net:*project_bn")
wrong("bn-after-activation", activation_first("batchnorm_after", "convolution2"), "former:*patch_embed.activation")
wrong("bn-after-activation", activation_first("expand_bn", "expand_conv"), "net:*expand_act")
wrong("bn-after-activation", activation_first("4", "3"), "swift:*patch_embedding.5")

# --- batch norm


def changed(**changes: Any) -> Wrong:
    return lambda site: norm_of(site, x_of(site), **changes)


def batch_statistics(site: Site) -> np.ndarray:
    x = x_of(site)
    return norm_of(site, x, mean=x.mean(axis=(0, 2, 3)), var=x.var(axis=(0, 2, 3)))


def eps_outside(site: Site) -> np.ndarray:
    return norm_of(site, x_of(site), deviation=np.sqrt(site.module.running_var) + site.module.eps)


def variance_for_deviation(site: Site) -> np.ndarray:
    return norm_of(site, x_of(site), deviation=site.module.running_var + site.module.eps)


def bias_unscaled(conv: str) -> Wrong:
    """The batch norm folded into the convolution's weight, whose bias is added as it was."""

    def function(site: Site) -> np.ndarray:
        bias = channels(site.modules[f"{site.owner.rpartition('.')[0]}.{conv}"].bias)
        return norm_of(site, x_of(site) - bias) + bias

    return function


wrong("bn-eps", changed(eps=1e-3), "former:*batchnorm*", "swift:*norm*", "net-same:*_bn")
wrong("bn-eps", changed(eps=1e-5), "net:*_bn")
wrong("bn-eps", changed(eps=1e-6), "net:*_norm", "former:*batchnorm*")
wrong("bn-eps", changed(eps=1e-12), "swift:*norm*", "net:*batchnorm")
wrong("bn-eps-outside-root", eps_outside, "net:*_norm", "former:*batchnorm*", "swift:*norm*")
wrong("bn-missing", x_of, "former:*batchnorm*", "net:*_bn", "swift:*norm*")
wrong("bn-twice", lambda s: norm_of(s, norm_of(s, x_of(s))), "net:*_bn", "former:*.norm", "swift:*norm*")
wrong("bn-batch-statistics", batch_statistics, "net:*batchnorm", "net:*_norm", "former:*batchnorm*", "swift:*norm1")
wrong("bn-no-affine", changed(weight=np.ones(1), bias=np.zeros(1)), "former:*batchnorm*", "net:*_bn", "swift:*norm*")
wrong("bn-no-bias", changed(bias=np.zeros(1)), "net:*_bn", "former:*batchnorm*", "swift:*norm*")
wrong("bn-no-mean", changed(mean=np.zeros(1)), "swift:*norm*", "net:*_bn", "former:*batchnorm*")
wrong("bn-variance-for-deviation", variance_for_deviation, "net:*_norm", "former:*batchnorm*", "swift:*norm*")
wrong("bn-fold-bias-unscaled", bias_unscaled("convolution1"), "former:*mlp.batchnorm_before")
wrong("bn-fold-bias-unscaled", bias_unscaled("proj"), "swift:*[135].norm")

# --- layer norm


def eps_outside_layer_norm(site: Site) -> np.ndarray:
    x, module = x_of(site), site.module
    return (x - x.mean(-1, keepdims=True)) / (x.std(-1, keepdims=True) + module.eps) * module.weight + module.bias


wrong("ln-eps", lambda s: layer_norm_of(s, eps=1e-3), "former:*layernorm*", "former-bare:*layernorm*")
wrong("ln-eps", lambda s: layer_norm_of(s, eps=1e-5), "former-bare:*layernorm*")
wrong("ln-eps", lambda s: layer_norm_of(s, eps=1e-12), "former:*layernorm*")
wrong("ln-eps-outside-root", eps_outside_layer_norm, "former:*layernorm*")
wrong("ln-unbiased", lambda s: layer_norm_of(s, ddof=1), "former:*layernorm*", "former-bare:*layernorm*")
wrong("ln-missing", x_of, "former:*layernorm*")
wrong("ln-no-affine", lambda s: (layer_norm_of(s) - s.module.bias) / s.module.weight, "former:*layernorm*")
wrong("ln-no-bias", lambda s: layer_norm_of(s) - s.module.bias, "former:*layernorm*")
wrong("ln-rms", lambda s: layer_norm_of(s, mean=False), "former:*layernorm*")
wrong("ln-wrong-axis", lambda s: layer_norm_of(s, axis=1), "former:*layernorm*")
wrong("ln-wrong-axis", lambda s: layer_norm_of(s, axis=(1, 2)), "former:*layernorm*")

# --- convolutions


def lying_in_out(weight: np.ndarray) -> np.ndarray:
    """(O, I, kH, kW), whose memory is taken to be (I, O, kH, kW)."""
    filters, inputs, *kernel = weight.shape
    return np.moveaxis(weight.ravel().reshape(inputs, filters, *kernel), 0, 1)


def lying_kernel_first(weight: np.ndarray) -> np.ndarray:
    """(O, I, kH, kW), whose memory is taken to be (kH, kW, I, O)."""
    filters, inputs, *kernel = weight.shape
    return np.einsum("yxio->oiyx", weight.ravel().reshape(*kernel, inputs, filters))


# Blocks 1, 2, 3 and 7 halve the map; the others pad by themselves.
DEPTHWISE = "net:*.[04568].depthwise_conv.depthwise_conv"
wrong("conv-no-bias", lambda s: conv_of(s, bias=False), "former:*convolution?", "swift:*wise_conv*", "net:*.reduce")
for place in ("former:*patch_embed.convolution?", "swift:*depth_wise_conv", DEPTHWISE):
    wrong("conv-kernel-transposed", lambda s: conv_of(s, lambda w: w.transpose(0, 1, 3, 2)), place)
    wrong("conv-kernel-flipped", lambda s: conv_of(s, lambda w: np.rot90(w, 2, (2, 3))), place)
    wrong("conv-weight-layout", lambda s: conv_of(s, lying_kernel_first), place)
wrong("conv-weight-transposed", lambda s: conv_of(s, lambda w: w.swapaxes(0, 1)), "swift:*tation.point_wise_conv?")
wrong("conv-weight-transposed", lambda s: conv_of(s, lying_in_out), "net:*project_conv", "former:*[135].projection")

# --- padding; at EfficientNet's convolutions the picture, or the map, is taken from before the padding layer


def same_size(mode: str) -> Wrong:
    def function(site: Site) -> np.ndarray:
        half = site.module.weight.shape[2] // 2
        x = around(x_of(site), half, half, half, half, mode=mode)
        return convolved(x, site.module.weight, site.module.bias, 1, site.module.groups)

    return function


def strided(x: Wrong, *pads: int, mode: str = "constant") -> Wrong:
    """The site's convolution, of stride 2, of the map that `x` finds, padded so."""

    def function(site: Site) -> np.ndarray:
        conv = site.module
        return convolved(around(x(site), *pads, mode=mode), conv.weight, conv.bias, 2, conv.groups)

    return function


def without(*pads: int) -> Wrong:
    top, bottom, left, right = pads
    return lambda site: x_of(site)[:, :, top : x_of(site).shape[2] - bottom, left : x_of(site).shape[3] - right]


def expanded(site: Site) -> np.ndarray:
    return used(site, "^^expansion")


for place in ("former:*patch_embed.convolution?", "former:*.[1].projection", "swift:*ng.[03]", "swift:*.[13].proj"):
    wrong("pad-onesided", strided(x_of, 0, 1, 0, 1), place)
    for mode in ("edge", "reflect", "wrap"):
        wrong(f"pad-{mode}", strided(x_of, 1, 1, 1, 1, mode=mode), place)
for mode in ("edge", "reflect", "wrap"):
    wrong(f"pad-{mode}", same_size(mode), "swift:*[024].*.depth_wise_conv", DEPTHWISE)
    wrong(f"pad-{mode}", lambda s, mode=mode: around(x_of(s), 0, 1, 0, 1, mode=mode), "net:*embeddings.padding")
    wrong(f"pad-{mode}", lambda s, mode=mode: around(x_of(s), 1, 2, 1, 2, mode=mode), "net:*.[27].*conv_pad")
    wrong(f"pad-{mode}", strided(without(0, 1, 0, 1), 0, 1, 0, 1, mode=mode), "net:*embeddings.convolution")
    wrong(f"pad-{mode}", strided(expanded, 1, 2, 1, 2, mode=mode), "net:*.[27].depthwise_conv.depthwise_conv")
wrong("pad-other-side", lambda s: around(x_of(s), 1, 0, 1, 0), "net:*embeddings.padding", "net:*.3.*conv_pad")
wrong("pad-other-side", lambda s: around(x_of(s), 2, 1, 2, 1), "net:*.[27].*conv_pad")
for key in ("pad-symmetric", "pad-other-side"):
    wrong(
        key,
        strided(without(0, 1, 0, 1), 1, 1, 1, 1),
        "net:*embeddings.convolution",
        "net-same:*embeddings.convolution",
    )
    wrong(key, strided(expanded, 2, 2, 2, 2), "net:*.[27].depthwise_conv.depthwise_conv")
    wrong(key, strided(expanded, 1, 1, 1, 1), "net-same:*.1.depthwise_conv.depthwise_conv")
wrong("pad-onesided", strided(without(1, 1, 1, 1), 0, 1, 0, 1), "net-symmetric:*embeddings.convolution")
wrong("pad-onesided", strided(expanded, 1, 2, 1, 2), "net-symmetric:*.2.depthwise_conv.depthwise_conv")

# --- linear layers and pooling

wrong(
    "linear-no-bias", lambda s: dense(s, x_of(s)) - s.module.bias, "former:*qkv", "net:classifier", "swift:*attn.proj"
)
wrong("linear-weight-transposed", lambda s: x_of(s) @ s.module.weight + s.module.bias, "swift:*.attn.to_*")
wrong(
    "linear-weight-transposed",
    lambda s: x_of(s) @ s.module.weight.ravel().reshape(x_of(s).shape[-1], -1) + s.module.bias,
    "former:*linear_*", "former:*qkv", "net:classifier",
)  # fmt: skip
wrong("linear-missing", x_of, "swift:*attn.final", "swift:*attn.to_*")

wrong("pool-include-pad", lambda s: windows(x_of(s), 3, 0).mean(-1), "former:*.pool", "former-bare:*.pool")
wrong("pool-max", lambda s: windows(x_of(s), 3, -np.inf).max(-1), "former:*.pool")
wrong("pool-max", lambda s: windows(x_of(s), 3, 0).max(-1), "former:*.pool")
wrong("pool-sum", lambda s: windows(x_of(s), 3, 0).sum(-1), "former:*.pool")
wrong("pool-no-subtraction", lambda s: used(s, ":pooled"), "former:*4D*token_mixer")
wrong("pool-subtraction-reversed", lambda s: x_of(s) - used(s, ":pooled"), "former:*4D*token_mixer")

# --- layer scale and residuals

FORMER_DROP = ("former:*.drop_path#1", "former:*.drop_path")


def swift_branch(site: Site) -> np.ndarray:
    """The unscaled branch at a SwiftFormer's drop path."""
    parent = site.owner.rpartition(".")[0]
    for name in ("point_wise_conv2", "linear"):
        if f"{parent}.{name}" in site.used and "#1" not in site.name:
            return site.used[f"{parent}.{name}"]
    return back_in_map(used(site, "^attn"), x_of(site), by_columns=False)


def swift_scale(site: Site) -> np.ndarray:
    which = "layer_scale_1" if "#1" in site.name else "layer_scale_2"
    return (
        getattr(site.parent, "layer_scale", None)
        if hasattr(site.parent, "layer_scale")
        else getattr(site.parent, which)
    )


def former_scale(site: Site, other: bool = False) -> np.ndarray:
    return scale_of(site, 1 if ("#1" in site.name) != other else 2, x_of(site))


SWIFT_DROP = ("swift:*.drop_path#1", "swift:*blocks.?.drop_path", "swift:*representation.drop_path")
wrong("layer-scale-missing", branch_of, *FORMER_DROP)
wrong("layer-scale-missing", swift_branch, *SWIFT_DROP)
wrong("layer-scale-twice", lambda s: branch_of(s) * former_scale(s) ** 2, *FORMER_DROP)
wrong("layer-scale-twice", lambda s: swift_branch(s) * swift_scale(s) ** 2, *SWIFT_DROP)
wrong("layer-scale-swapped", lambda s: branch_of(s) * former_scale(s, other=True), *FORMER_DROP)
wrong("layer-scale-swapped", lambda s: swift_branch(s) * s.parent.layer_scale_2, "swift:*.drop_path#1")
wrong("dropout-scaled", lambda s: x_of(s) * 0.8, "former-bare:*drop_path*")
wrong("dropout-scaled", lambda s: x_of(s) / 0.9, "former:*.dropout*", "swift-l2:*representation.drop_path")
wrong("dropout-scaled", lambda s: x_of(s) / 0.7, "swift:*.drop")
wrong("dropout-scaled", lambda s: x_of(s) * 0.5, "net:dropout")
wrong("dropout-scaled", lambda s: x_of(s) / (1 - 0.2 * 4 / 10), "net:*.4.projection.dropout")

# A sum's two parts by the sum's name: what is added to, and the branch.
SUMS: list[tuple[str, Wrong, Wrong]] = [
    (
        "former:*4D_layers.blocks.?:mixed",
        lambda s: s.output - used(s, "drop_path#1"),
        lambda s: used(s, "drop_path#1"),
    ),
    (
        "former:*3D_layers.blocks.?:mixed",
        lambda s: s.output - used(s, "drop_path#1"),
        lambda s: used(s, "drop_path#1"),
    ),
    ("former:*4D_layers.blocks.?", lambda s: used(s, ":mixed"), lambda s: used(s, "drop_path")),
    ("former:*3D_layers.blocks.?", lambda s: used(s, ":mixed"), lambda s: used(s, "drop_path")),
    ("net:*.[468].projection", x_of, lambda s: used(s, "project_bn")),
    ("swift:*[02].blocks.?:mixed", lambda s: used(s, "local_representation"), lambda s: used(s, "drop_path#1")),
    ("swift:*[04].blocks.?", lambda s: used(s, ":mixed"), lambda s: used(s, "drop_path")),
    ("swift:*local_representation", x_of, lambda s: used(s, "drop_path")),
    ("swift:*[26].blocks.0", x_of, lambda s: used(s, "drop_path")),
]
for place, base, branch in SUMS:
    wrong("residual-missing", branch, place)
    wrong("residual-twice", lambda s, a=base, b=branch: 2 * a(s) + b(s), place)
    wrong("branch-missing", base, place)
    wrong("branch-subtracted", lambda s, a=base, b=branch: a(s) - b(s), place)
wrong(
    "residual-wrong-source",
    lambda s: x_of(s) + used(s, "drop_path"),
    "former:*D_layers.blocks.?",
    "swift:*[04].blocks.?",
)
wrong("residual-wrong-source", lambda s: used(s, "layernorm1") + used(s, "drop_path#1"), "former:*3D*:mixed")
wrong("residual-wrong-source", lambda s: used(s, "layernorm2") + used(s, "drop_path"), "former:*3D*blocks.?")
wrong("residual-wrong-source", lambda s: used(s, "norm") + used(s, "drop_path"), "swift:*local_representation")
wrong(
    "residual-wrong-source", lambda s: used(s, "local_representation") + used(s, "drop_path"), "swift:*[04].blocks.?"
)
wrong("residual-wrong-source", lambda s: used(s, "linear.norm1") + used(s, "drop_path"), "swift:*[04].blocks.?")
wrong(
    "residual-wrong-source",
    lambda s: s.used["swiftformer.encoder.network.3"] + used(s, "drop_path#1"),
    "swift:*network.4.blocks.0:mixed",
)
wrong("residual-added", lambda s: x_of(s) + used(s, "project_bn"), "net-square:*.[05].projection")

# --- order of tokens, pooling, heads


def by_columns(x: np.ndarray) -> np.ndarray:
    return np.stack([x[:, :, i, j] for j in range(x.shape[3]) for i in range(x.shape[2])], axis=1)


def unmoved(x: np.ndarray) -> np.ndarray:
    return x.ravel().reshape(len(x), -1, x.shape[1])


def local_map(site: Site) -> np.ndarray:
    return used(site, "^^local_representation")


def mapped_by_columns(site: Site) -> np.ndarray:
    return swift_scale(site) * back_in_map(used(site, "^attn"), x_of(site), by_columns=True)


wrong("flatten-column-major", lambda s: by_columns(x_of(s)), "former:*flat", "former-unscaled:*flat")
wrong("flatten-no-transpose", lambda s: unmoved(x_of(s)), "former:*flat", "former-bare:*flat")
wrong("flatten-column-major", lambda s: dense(s, by_columns(local_map(s))), "swift-l2:*to_query", "swift-l2:*to_key")
wrong("flatten-no-transpose", lambda s: dense(s, unmoved(local_map(s))), "swift-l2:*to_query", "swift-l2:*to_key")
wrong("unflatten-column-major", mapped_by_columns, "swift-l2:*drop_path#1", "swift:*drop_path#1")
wrong(
    "unflatten-no-transpose",
    lambda s: swift_scale(s) * used(s, "^attn").ravel().reshape(x_of(s).shape),
    "swift:*drop_path#1",
)
wrong(
    "unflatten-no-transpose", lambda s: used(s, "^attn").ravel().reshape(x_of(s).shape), "swift-unscaled:*drop_path#1"
)

POOLED = ("former::pooled", "former-teacher::pooled", "swift::pooled", "net:*pooler")
wrong("pooled-max", lambda s: tokens_of(s).max(1).reshape(s.output.shape), *POOLED)
wrong("pooled-first", lambda s: tokens_of(s)[:, 0].reshape(s.output.shape), *POOLED)
wrong("pooled-last", lambda s: tokens_of(s)[:, -1].reshape(s.output.shape), *POOLED)
wrong("pooled-sum", lambda s: tokens_of(s).sum(1).reshape(s.output.shape), *POOLED)
wrong("pooled-mean", lambda s: tokens_of(s).mean(1).reshape(s.output.shape), "net-bare:*pooler", "net-square:*pooler")

HEADS = {"former-teacher:": ("classifier", "distillation_classifier"), "swift:": ("head", "dist_head")}
for place, (first, second) in HEADS.items():
    wrong("head-sum", lambda s, a=first, b=second: s.used[a] + s.used[b], place)
    wrong("head-first-only", lambda s, a=first: s.used[a], place)
    wrong("head-second-only", lambda s, a=second: s.used[a], place)
    wrong("logits-softmax", lambda s, a=first, b=second: probabilities((s.used[a] + s.used[b]) / 2), place)
    wrong(
        "logits-softmax",
        lambda s, a=first, b=second: probabilities(s.used[a]) / 2 + probabilities(s.used[b]) / 2,
        place,
    )
for place in ("former:classifier", "net:classifier", "swift:head", "swift:dist_head"):
    wrong("logits-softmax", lambda s: probabilities(dense(s, x_of(s))), place)
    wrong("logits-log-softmax", lambda s: np.log(probabilities(dense(s, x_of(s)))), place)
    wrong("logits-sigmoid", lambda s: logistic(dense(s, x_of(s))), place)

# --- squeeze and excitation


def silu(x: np.ndarray) -> np.ndarray:
    return x * logistic(x)


wrong("se-gate-missing", x_of, "net:*squeeze_excite")
wrong("se-gate-added", lambda s: x_of(s) + used(s, "act_expand"), "net:*squeeze_excite")
wrong("se-gate-residual", lambda s: x_of(s) * (1 + used(s, "act_expand")), "net:*squeeze_excite")
wrong(
    "se-gate-before-activation",
    lambda s: silu(used(s, "^depthwise_conv.depthwise_norm") * used(s, "act_expand")), "net:*squeeze_excite",
)  # fmt: skip
wrong("se-squeeze-max", lambda s: x_of(s).max(axis=(2, 3), keepdims=True), "net:*squeeze")
wrong("se-squeeze-sum", lambda s: x_of(s).sum(axis=(2, 3), keepdims=True), "net:*squeeze")
wrong("se-squeeze-first", lambda s: x_of(s)[:, :, :1, :1], "net:*squeeze")
wrong("se-squeeze-last", lambda s: x_of(s)[:, :, -1:, -1:], "net:*squeeze")
wrong(
    "se-squeeze-before-activation",
    lambda s: used(s, "^^depthwise_conv.depthwise_norm").mean(axis=(2, 3), keepdims=True), "net:*squeeze",
)  # fmt: skip

# --- EfficientFormer's attention

for part, name in enumerate(("query", "key", "value")):
    place = f"former:*:{name}"
    for packed in ("blocks", "heads last", "value first"):
        wrong("qkv-order", lambda s, i=part, p=packed: heads_of(s, i, p), place)
    wrong("heads-no-transpose", lambda s, i=part: unswapped(s, i), place)
    if part < 2:
        wrong("qkv-swapped-qk", lambda s, i=part: heads_of(s, 1 - i, "right"), place)

PLACES: list[Callable[[int, int, int], int]] = [
    lambda dy, dx, n: abs(dy) + abs(dx),
    lambda dy, dx, n: max(abs(dy), abs(dx)),
    lambda dy, dx, n: abs(dy) * n,
    lambda dy, dx, n: abs(dx),
    lambda dy, dx, n: abs(dy * n + dx),
    lambda dy, dx, n: (n * n + dy * n + dx) % (n * n),
    lambda dy, dx, n: n * n - 1 - (abs(dy) * n + abs(dx)),
]
for index in PLACES:
    wrong("bias-index-wrong", lambda s, f=index: biases(s, f), "former:*:bias", "former-unscaled:*:bias")
wrong("bias-index-column-major", lambda s: biases(s, lambda dy, dx, n: abs(dx) * n + abs(dy)), "former:*:bias")


def table_transposed(site: Site) -> np.ndarray:
    table = site.module.attention_biases
    heads, count = table.shape
    site_of_twin = copy.copy(site)
    site_of_twin.module = copy.copy(site.module)
    flat = table.ravel()
    turned = np.array([[flat[place * heads + head] for place in range(count)] for head in range(heads)])
    site_of_twin.module.attention_biases = turned
    return biases(site_of_twin, lambda dy, dx, n: abs(dy) * n + abs(dx))


wrong("bias-table-transposed", table_transposed, "former:*:bias", "former-teacher:*:bias")

SCORES, PROBS = ("former:*:scores", "former-unscaled:*:scores"), ("former:*:probs", "former-teacher:*:probs")
wrong("attn-no-scale", lambda s: scored(s, 1), *SCORES)
wrong("attn-scale-d", lambda s: scored(s, 1 / 3), *SCORES)
wrong("attn-scale-width", lambda s: scored(s, 6**-0.5), *SCORES)
wrong("attn-scale-width", lambda s: scored(s, 10**-0.5), *SCORES)
wrong("attn-no-bias", lambda s: scored(s, 3**-0.5, 0), *SCORES)
wrong("attn-bias-scaled", lambda s: scored(s, 3**-0.5, 3**-0.5), *SCORES)
wrong(
    "attn-scores-transposed",
    lambda s: (scored(s, 3**-0.5) - used(s, ":bias")).transpose(0, 1, 3, 2) + used(s, ":bias"), *SCORES,
)  # fmt: skip
wrong("softmax-missing", lambda s: used(s, ":scores"), *PROBS)
wrong("softmax-wrong-axis", lambda s: probabilities(used(s, ":scores"), 2), *PROBS)
wrong("softmax-wrong-axis", lambda s: probabilities(used(s, ":scores"), 1), *PROBS)
wrong("attn-bias-after-softmax", lambda s: probabilities(used(s, ":scores")) + used(s, ":bias"), *PROBS)
wrong("attn-bias-after-softmax", lambda s: probabilities(scored(s, 3**-0.5, 0)) + used(s, ":bias"), *PROBS)
CONTEXT = ("former:*:context", "former-teacher:*:context")
wrong("heads-interleaved", lambda s: np.moveaxis(contexts(s), 1, 3).reshape(s.output.shape), *CONTEXT)
wrong("heads-no-transpose", lambda s: contexts(s).reshape(s.output.shape), *CONTEXT)


def probs_transposed(site: Site) -> np.ndarray:
    context = np.einsum("bhmn,bhme->bnhe", used(site, ":probs"), used(site, ":value"))
    return context.reshape(site.output.shape)


wrong("attn-probs-transposed", probs_transposed, *CONTEXT)

# --- SwiftFormer's attention

for name in ("query", "key"):
    place = f"swift:*attn:{name}"
    wrong("additive-not-normalised", lambda s, n=name: used(s, f"to_{n}"), place)
    wrong("additive-normalised-over-tokens", lambda s, n=name: unit(used(s, f"to_{n}"), 1), place)
    wrong("additive-normalised-l1", lambda s, n=name: unit(used(s, f"to_{n}"), 2, 1), place)
WEIGHTS = ("swift:*:weights", "swift-l2:*:weights")
wrong("additive-l2", lambda s: unit(additive_scores(s), 1), "swift:*:weights")
wrong("additive-ones", lambda s: np.ones(s.output.shape), "swift-l2:*:weights")
for scaled in (True, False):
    wrong("additive-softmax-over-tokens", lambda s, x=scaled: probabilities(additive_scores(s, x), 1), *WEIGHTS)
    wrong("additive-weights-raw", lambda s, x=scaled: additive_scores(s, x), *WEIGHTS)
GLOBAL = ("swift:*:global_query", "swift-l2:*:global_query")
wrong("global-query-mean", lambda s: (used(s, ":weights") * used(s, ":query")).mean(1, keepdims=True), *GLOBAL)
wrong("global-query-max", lambda s: (used(s, ":weights") * used(s, ":query")).max(1, keepdims=True), *GLOBAL)
wrong("global-query-keys", lambda s: (used(s, ":weights") * used(s, ":key")).sum(1, keepdims=True), *GLOBAL)
wrong("additive-key-swapped", lambda s: used(s, ":global_query") * used(s, ":query"), "swift:*:context")
wrong("additive-gate-added", lambda s: used(s, ":global_query") + used(s, ":key"), "swift:*:context")
FINAL = ("swift:*attn.final", "swift-l2:*attn.final")
wrong("additive-residual-missing", lambda s: dense(s, used(s, "^proj")), *FINAL)
wrong("additive-residual-unnormalised", lambda s: dense(s, used(s, "^proj") + used(s, "^to_query")), *FINAL)
wrong("additive-residual-key", lambda s: dense(s, used(s, "^proj") + used(s, "^:key")), *FINAL)
wrong("additive-residual-after", lambda s: dense(s, used(s, "^proj")) + used(s, "^:query"), *FINAL)

# Causes that may give the same numbers where the shapes, or small values, make them one.
TIES: dict[str, set[str]] = {
    "pad-symmetric": {"pad-other-side"},
    "pad-other-side": {"pad-symmetric"},
    "act-relu": {"act-relu6"},
    "act-relu6": {"act-relu"},
}


def places(model: str, pattern: str) -> list[str]:
    """The first and the last name that fits."""
    fitting = [name for name in sites(model) if fnmatch.fnmatchcase(name, pattern)]
    assert fitting, f"no value of {model} is named {pattern}"
    return list(dict.fromkeys((fitting[0], fitting[-1])))


@pytest.mark.parametrize("key", dict.fromkeys(key for key, *_ in WRONG))
def test_a_wrong_op_is_matched_by_its_cause_and_no_other(key: str) -> None:
    checked = set()
    for _, model, pattern, function in (entry for entry in WRONG if entry[0] == key):
        for name in places(model, pattern):
            site = sites(model)[name]
            port = function(site)
            assert port.shape == site.output.shape, (model, name)
            found = {cause.key for cause, thunk in alternatives(site) if difference(thunk(), port) < SAME}
            assert key in found, (model, name, found)
            assert found - TIES.get(key, set()) == {key}, (model, name, found)
            checked.add((model, name))
    assert len(checked) >= 2


def test_every_cause_is_tested() -> None:
    offered = {cause.key for _, site in everywhere() for cause, _ in alternatives(site)}
    assert offered == {key for key, *_ in WRONG}


def test_what_changes_nothing_is_not_offered() -> None:
    def keys(model: str, name: str) -> set[str]:
        return {cause.key for cause, _ in alternatives(sites(model)[name])}

    def texts(model: str, name: str, key: str) -> list[str]:
        return [cause.text for cause, _ in alternatives(sites(model)[name]) if cause.key == key]

    last = "efficientformer.encoder.last_stage.meta3D_layers.blocks.0"
    assert "layer-scale-missing" not in keys("former-unscaled", f"{last}.drop_path")
    others = texts("former", "efficientformer.layernorm", "ln-eps")
    assert len(others) == 4
    assert all(text.endswith(" instead of 1e-05") for text in others)
    assert len(texts("former-bare", "layernorm", "ln-eps")) == 4  # an eps of 1e-12 is as good as none
    assert "ln-eps-outside-root" not in keys("former-bare", "layernorm")
    assert not {"heads-interleaved", "heads-no-transpose"} & keys("former-unscaled", f"{last}.token_mixer:context")
    assert "bias-table-transposed" not in keys("former-unscaled", f"{last}.token_mixer:bias")
    assert keys("former-unscaled", f"{last}.mlp.activation").isdisjoint({"act-missing", "act-twice"})
    assert "gelu-tanh" not in keys("former-teacher", f"{last}.mlp.activation")
    assert "act-twice" not in keys("former-bare", "patch_embed.activation")
    for model, name in (("former", "efficientformer.encoder"), ("swift", "swiftformer")):
        assert not keys(model, name)  # what these hold is another value by a second name
    for model in ("former", "net"):  # the classifier's, unless a port gives something else out
        assert keys(model, "") == {"logits-softmax", "logits-log-softmax", "logits-sigmoid"}
    assert not keys("swift-unscaled", "") & {"logits-softmax", "logits-sigmoid"}  # of a single label
    assert not keys("swift-unscaled", "head") & {"logits-softmax", "logits-sigmoid"}
    # One row of padding above is all that the kernel's first position sees, whatever is below.
    assert "pad-other-side" not in keys("swift", "swiftformer.encoder.network.1.proj")
    pointwise = keys("net", "efficientnet.encoder.blocks.0.projection.project_conv")
    assert not any(key.startswith("pad-") for key in pointwise)


def test_single_pixels_and_relu_leave_less_to_get_wrong() -> None:
    model = tiny.model(NET, hidden_act="relu").astype(np.float64)
    small = sites_of(model, tiny.pictures(1, 3, 32, 32).astype(np.float64))

    def keys(name: str) -> set[str]:
        return {cause.key for cause, _ in alternatives(small[f"efficientnet.{name}"])}

    block = "encoder.blocks.9"
    assert keys(f"{block}.squeeze_excite") == {"se-gate-missing", "se-gate-added", "se-gate-residual"}
    assert keys(f"{block}.squeeze_excite.squeeze") == {"se-squeeze-before-activation"}
    assert keys(f"{block}.depthwise_conv.depthwise_conv") == {"conv-weight-layout", "pad-edge"}
    assert not keys("pooler")


def test_a_single_token_is_not_normalised_over_tokens() -> None:
    norm = LayerNorm(5)
    x = RANDOM.standard_normal((2, 1, 5)).astype(np.float32)
    site = Site("norm", "norm", norm, (x,), norm(x), None, {}, {"": Sequential(norm), "norm": norm})
    assert "ln-wrong-axis" not in {cause.key for cause, _ in alternatives(site)}


def test_one_row_of_pixels_has_one_order() -> None:
    block = "swiftformer.encoder.network.6.blocks.1"
    assert sites("swift-row")[block].output.shape == (2, 10, 1, 3)
    for name in (f"{block}.attn.to_query", f"{block}.drop_path#1"):
        keys = {cause.key for cause, _ in alternatives(sites("swift-row")[name])}
        assert not {"flatten-column-major", "unflatten-column-major"} & keys
        assert {"flatten-no-transpose", "unflatten-no-transpose"} & keys


# ------------------------------------------------------------------------------ values of another shape


def test_paddings_that_give_another_size_are_found_as_misshapen() -> None:
    stem = sites("net")["efficientnet.embeddings.padding"]
    ways = {cause.key: thunk() for cause, thunk in misshapen(stem)}
    assert set(ways) == {"pad-symmetric", "pad-missing"}
    assert np.array_equal(ways["pad-symmetric"], around(x_of(stem), 1, 1, 1, 1))
    assert ways["pad-missing"] is x_of(stem)

    odd = sites("net")["efficientnet.encoder.blocks.1.depthwise_conv.depthwise_conv"]  # of a map of 49 x 65
    expected = strided(expanded, 1, 1, 1, 1)(odd)
    assert expected.shape != odd.output.shape
    ways = {cause.text: thunk() for cause, thunk in misshapen(odd)}
    fitting = [text for text, x in ways.items() if x.shape == expected.shape and difference(x, expected) < SAME]
    assert fitting == ["symmetric padding (1 before, 1 after) instead of (0 before, 1 after)"]

    proj = sites("swift")["swiftformer.encoder.network.1.proj"]
    ways = {cause.key: thunk() for cause, thunk in misshapen(proj)}
    assert set(ways) == {"pad-missing"}
    assert difference(ways["pad-missing"], strided(x_of, 0, 0, 0, 0)(proj)) < SAME


def test_what_is_misshapen_has_another_shape() -> None:
    seen = 0
    for _, site in everywhere():
        for cause, thunk in misshapen(site):
            value = thunk()
            assert value.shape != site.output.shape, (site.name, cause)
            assert value.dtype == np.float64, (site.name, cause)
            seen += 1
    assert seen > 50


# ------------------------------------------------------------------------------ descriptions of a port's value

MAP = RANDOM.standard_normal((2, 6, 7, 7))
TOKENS = RANDOM.standard_normal((2, 9, 6))
HEADS_OF_TOKENS = RANDOM.standard_normal((2, 3, 5, 4))
ORDER = np.array([3, 1, 0, 2, 5, 4])
GRID = np.arange(9).reshape(3, 3)

PORTS = [
    ("channels-reversed", MAP, MAP[:, ::-1], "BCHW"),
    ("channels-reversed", TOKENS, TOKENS[..., ::-1], "BND"),
    ("channels-permuted", MAP, MAP[:, ORDER], "BCHW"),
    ("channels-permuted", TOKENS, TOKENS[..., ORDER], "BND"),
    ("channels-permuted", HEADS_OF_TOKENS, HEADS_OF_TOKENS[:, [1, 2, 0]], "BhNd"),
    ("channels-permuted", HEADS_OF_TOKENS, HEADS_OF_TOKENS[..., [1, 2, 0, 3]], "BhNd"),
    ("map-transposed", MAP, MAP.transpose(0, 1, 3, 2), "BCHW"),
    ("map-transposed", TOKENS, TOKENS[:, GRID.T.ravel()], "BND"),
    ("map-flipped", MAP, MAP[..., ::-1], "BCHW"),
    ("map-flipped", MAP, MAP[:, :, ::-1], "BCHW"),
    ("map-flipped", MAP, MAP[:, :, ::-1, ::-1], "BCHW"),
    ("map-flipped", TOKENS, TOKENS[:, GRID[::-1].ravel()], "BND"),
    ("map-flipped", TOKENS, TOKENS[:, GRID[:, ::-1].ravel()], "BND"),
    ("constant-factor", MAP, MAP / 49, "BCHW"),
    ("constant-factor", TOKENS, TOKENS * -1.7, "BND"),
]


@pytest.mark.parametrize(("key", "ours", "port", "axes"), PORTS)
def test_a_description_is_found(key: str, ours: np.ndarray, port: np.ndarray, axes: str) -> None:
    kept = ours.copy(), port.copy()
    found = [cause.key for cause, thunk in fitted(ours, port, axes) if difference(thunk(), port) < SAME]
    assert found == [key]
    noisy = (port * (1 + 1e-3 * RANDOM.standard_normal(port.shape))).astype(np.float32)
    near = [(cause, thunk()) for cause, thunk in fitted(ours.astype(np.float32), noisy, axes)]
    assert [cause.key for cause, value in near if difference(value, port) < 4e-3] == [key]
    assert all(value.dtype == np.float32 and value.shape == port.shape for _, value in near)
    assert np.array_equal(ours, kept[0])
    assert np.array_equal(port, kept[1])


def test_texts_of_descriptions_say_what_and_how_much() -> None:
    def texts(port: np.ndarray) -> dict[str, str]:
        return {cause.key: cause.text for cause, _ in fitted(MAP, port, "BCHW")}

    assert texts(MAP[:, ORDER])["channels-permuted"] == (
        "channels in another order: 0 holds 3, 2 holds 0, 3 holds 2, 4 holds 5, ... (5 of 6 moved)"
    )
    assert texts(MAP / 49)["constant-factor"] == "everything multiplied by 0.02041 (1/49)"
    assert texts(MAP * 1.41421356)["constant-factor"] == "everything multiplied by 1.414"
    assert texts(0 * MAP)["constant-factor"] == "everything multiplied by 0"


@pytest.mark.parametrize(("down", "right"), [(1, 0), (-1, 0), (0, 1), (0, -1), (1, -1), (-1, -1), (1, 1)])
def test_a_shift_takes_its_border_from_the_port(down: int, right: int) -> None:
    wide = RANDOM.standard_normal((2, 3, 7, 9))
    outside = RANDOM.standard_normal((2, 3, 9, 11))
    outside[:, :, 1:-1, 1:-1] = wide
    port = outside[:, :, 1 - down : 8 - down, 1 - right : 10 - right]
    found = [cause.text for cause, thunk in fitted(wide, port, "BCHW") if difference(thunk(), port) < SAME]
    words = (
        ["down"] * (down > 0) + ["up"] * (down < 0) + ["to the right"] * (right > 0) + ["to the left"] * (right < 0)
    )
    assert found == [f"shifted by one pixel {' and '.join(words)}"]


def test_no_shift_is_seen_in_a_map_that_is_mostly_border() -> None:
    small = MAP[:, :, :3, :]
    found = [cause.text for cause, _ in fitted(small, small + 1, "BCHW") if cause.key == "shifted"]
    assert found == ["shifted by one pixel to the left", "shifted by one pixel to the right"]


def test_dead_channels_do_not_hide_a_permutation() -> None:
    ours = MAP.copy()
    ours[:, [1, 4]] = 0
    port = ours[:, [3, 1, 0, 2, 4, 5]]
    ((text, thunk),) = [(c.text, t) for c, t in fitted(ours, port, "BCHW") if c.key == "channels-permuted"]
    assert np.array_equal(thunk(), port)
    assert text.endswith("(3 of 6 moved)")


def test_nothing_is_described_where_there_is_nothing_to_see() -> None:
    def keys(ours: np.ndarray, port: np.ndarray, axes: str = "BCHW") -> set[str]:
        return {cause.key for cause, _ in fitted(ours, port, axes)}

    assert not keys(MAP, MAP[:, :5])
    assert not keys(MAP, np.where(MAP > 1, np.nan, MAP))
    assert not keys(np.zeros_like(MAP), MAP)
    assert not keys(MAP, MAP, "")
    assert not keys(MAP, MAP) & {"channels-permuted", "constant-factor"}
    assert "channels-permuted" not in keys(MAP, MAP[:, ::-1])
    assert "constant-factor" not in keys(MAP, MAP * 1.0004)
    assert keys(MAP[..., :1, :1], MAP[..., 1:2, 1:2]) <= {"channels-reversed", "channels-permuted", "constant-factor"}
    assert "map-transposed" not in keys(MAP[..., :4], MAP[..., :4] + 1)


def test_a_thousand_channels_are_matched() -> None:
    ours = RANDOM.standard_normal((1, 1000, 30))
    port = ours[:, RANDOM.permutation(1000)]
    (thunk,) = (thunk for cause, thunk in fitted(ours, port, "BCN") if cause.key == "channels-permuted")
    assert np.array_equal(thunk(), port)
