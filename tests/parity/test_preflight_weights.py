"""The port's weights against ours: rounding, layouts and folding pass; what is wrong is named."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from npformer.nn import BatchNorm2d, Conv2d, Module
from npformer.parity.noise import round_to
from npformer.parity.preflight import check_weights
from npformer.parity.preflight.folding import neighbours
from npformer.parity.report import Finding
from tests import tiny
from tests.support import BARE, BARE_NET, BARE_SWIFT, NET, ONE_HEAD, SWIFT, TWO_HEADS
from tests.sweep import sweep

MODELS = [BARE, ONE_HEAD, TWO_HEADS, BARE_NET, NET, BARE_SWIFT, SWIFT]
FAMILIES = [TWO_HEADS, NET, SWIFT]
DTYPES = ["float32", "float16", "bfloat16"]
State = dict[str, np.ndarray]


def rounded(state: State, dtype: str = "float32") -> State:
    return {k: round_to(v.astype(np.float32), dtype) if v.dtype.kind == "f" else v for k, v in state.items()}


def bad(findings: list[Finding]) -> list[str]:
    return [finding.text for finding in findings if finding.bad]


def harmless(findings: list[Finding]) -> list[str]:
    return [finding.text for finding in findings if not finding.bad]


def only(findings: list[Finding]) -> str:
    assert len(findings) == 1, findings
    assert findings[0].bad
    assert findings[0].kind == "weights"
    return findings[0].text


def convolutions(model: Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, Conv2d)]


# --- what makes no difference ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_weights_rounded_to_the_ports_dtype_are_ours(name: str, dtype: str) -> None:
    model = tiny.model(name)
    assert check_weights(model, rounded(model.state_dict(), dtype), dtype) == []
    assert check_weights(model.astype(np.float64), rounded(model.state_dict(), dtype), dtype) == []


@pytest.mark.parametrize("name", FAMILIES)
def test_counters_and_derived_tables_may_be_missing(name: str) -> None:
    model = tiny.model(name)
    state = {k: v for k, v in model.state_dict().items() if v.dtype.kind == "f"}
    assert check_weights(model, state, "float32") == []
    assert check_weights(model, {**state, "global_step": np.array(3), "eps": np.float32(1e-5)}, "float32") == []
    counted = {k: v + 7 if k.endswith("num_batches_tracked") else v for k, v in rounded(model.state_dict()).items()}
    assert check_weights(model, counted, "float32") == []


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_other_layouts_are_told_and_no_fault(name: str, dtype: str) -> None:
    """Kernels (H, W, I, O), depthwise ones (H, W, C, 1), linear ones (I, O), flat layer scales."""
    model = tiny.model(name)
    state = {}
    for key, array in rounded(model.state_dict(), dtype).items():
        if array.ndim == 4:
            array = array.transpose(2, 3, 0, 1) if array.shape[1] == 1 else array.transpose(2, 3, 1, 0)
        elif array.ndim == 2 and key.endswith(".weight"):
            array = array.T
        elif array.ndim == 3:
            array = array.reshape(-1)
        state[key] = array
    findings = check_weights(model, state, dtype)
    assert bad(findings) == []
    said = {text.partition("laid out as ")[2].partition(":")[0] for text in harmless(findings)}
    linear = {"(I, O)"} if any(v.ndim == 2 and k.endswith(".weight") for k, v in state.items()) else set()
    depthwise = set() if "EfficientFormer" in name else {"(H, W, O, I)"}
    assert said == {"(H, W, I, O)"} | linear | depthwise


def test_flattened_and_unflattened_weights() -> None:
    model = tiny.model(SWIFT)
    state = rounded(model.state_dict())
    flat = {k: v.reshape(len(v), -1) if v.ndim == 4 else v for k, v in state.items()}
    assert bad(check_weights(model, flat, "float32")) == []
    products = {k: v.transpose(2, 3, 1, 0).reshape(-1, len(v)) if v.ndim == 4 else v for k, v in state.items()}
    assert bad(check_weights(model, products, "float32")) == []
    as_convolutions = {k: v[:, :, None, None] if v.ndim == 2 and "weight" in k else v for k, v in state.items()}
    assert check_weights(model, as_convolutions, "float32") == []


def spelled_as_jax(name: str) -> str:
    *path, leaf = name.split(".")
    leaves = {"running_mean": "mean", "running_var": "var"}
    if leaf == "weight":
        leaf = "scale" if "norm" in path[-1] or path[-1].endswith("bn") else "kernel"
    root = "batch_stats" if leaf in leaves else "params"
    return "/".join((root, *path, leaves.get(leaf, leaf)))


@pytest.mark.parametrize("name", MODELS)
def test_names_spelled_otherwise_are_ours(name: str) -> None:
    model = tiny.model(name)
    state = rounded({k: v for k, v in model.state_dict().items() if v.dtype.kind == "f"})
    wrapped = {f"module.{k}": v for k, v in state.items()}
    assert check_weights(model, wrapped, "float32") == []
    assert check_weights(model, {spelled_as_jax(k): v for k, v in state.items()}, "float32") == []
    wrong = {spelled_as_jax(k): v for k, v in state.items()}
    first = next(k for k, v in wrong.items() if v.ndim == 4)
    wrong[first] = wrong[first] + 1
    assert "different" in only(check_weights(model, wrong, "float32"))


def test_a_headed_model_and_a_bare_ports_names_and_the_other_way_round() -> None:
    for whole, bare, prefix, heads in (
        (ONE_HEAD, BARE, "efficientformer.", ("classifier.",)),
        (NET, BARE_NET, "efficientnet.", ("classifier.",)),
    ):
        headed, headless = tiny.model(whole), tiny.model(bare)
        state = rounded(headed.state_dict())
        short = {k.removeprefix(prefix): v for k, v in state.items()}
        assert check_weights(headed, short, "float32") == []
        body = rounded(headless.state_dict())
        long = {prefix + k: v for k, v in body.items()}
        assert check_weights(headless, long, "float32") == []
        floats = {k: v for k, v in long.items() if v.dtype.kind == "f"}
        assert check_weights(headless, {spelled_as_jax(k): v for k, v in floats.items()}, "float32") == []
        floats = {k: v for k, v in short.items() if v.dtype.kind == "f"}
        assert check_weights(headed, {spelled_as_jax(k): v for k, v in floats.items()}, "float32") == []
        extra = {**long, "classifier.weight": np.ones((5, 8), np.float32)}
        assert f"does not have: {heads[0]}weight" in only(check_weights(headless, extra, "float32"))


TIMM_NET = (
    (r"efficientnet\.embeddings\.convolution", "conv_stem"),
    (r"efficientnet\.embeddings\.batchnorm", "bn1"),
    (r"efficientnet\.encoder\.top_conv", "conv_head"),
    (r"efficientnet\.encoder\.top_bn", "bn2"),
)


def timm_names(model: Module) -> dict[str, str]:
    """Our names by timm's, for the tiny EfficientNet: blocks 0 to 9 lie in stages of 1, 1, 1, 2, 2, 2 and 1."""
    stages = [(0, 0), (1, 0), (2, 0), (3, 0), (3, 1), (4, 0), (4, 1), (5, 0), (5, 1), (6, 0)]
    plain = {"depthwise_conv.depthwise_conv": "conv_dw", "depthwise_conv.depthwise_norm": "bn1"}
    plain |= {"projection.project_conv": "conv_pw", "projection.project_bn": "bn2"}
    wide = {"expansion.expand_conv": "conv_pw", "expansion.expand_bn": "bn1"}
    wide |= {"depthwise_conv.depthwise_conv": "conv_dw", "depthwise_conv.depthwise_norm": "bn2"}
    wide |= {"projection.project_conv": "conv_pwl", "projection.project_bn": "bn3"}
    both = {"squeeze_excite.reduce": "se.conv_reduce", "squeeze_excite.expand": "se.conv_expand"}
    names = {}
    for ours in model.state_dict():
        theirs = ours
        for pattern, text in TIMM_NET:
            theirs = re.sub(pattern, text, theirs)
        if match := re.match(r"efficientnet\.encoder\.blocks\.(\d+)\.(.*)\.(\w+)$", ours):
            table = {**(wide if int(match[1]) else plain), **both}
            stage, index = stages[int(match[1])]
            theirs = f"blocks.{stage}.{index}.{table[match[2]]}.{match[3]}"
        names[theirs] = ours
    return names


@pytest.mark.parametrize("folds", [False, True])
def test_names_of_another_library_are_known(folds: bool) -> None:
    model = tiny.model(NET)
    state = rounded(model.state_dict())
    if folds:
        state = fold_after(model, state)
    names = {ours: theirs for theirs, ours in timm_names(model).items()}
    port = {
        (names.get(k) or names[k.replace("bias", "weight")].replace("weight", "bias")): v for k, v in state.items()
    }
    findings = check_weights(model, port, "float32")
    assert bad(findings) == []
    assert "names of timm" in findings[0].text
    port["bn2.weight" if not folds else "conv_head.bias"] *= 1.5
    findings = check_weights(model, port, "float32")
    assert len(bad(findings)) == 1
    assert "top_" in bad(findings)[0]


@pytest.mark.parametrize("name", FAMILIES)
def test_weights_without_a_known_name_are_recognised_by_their_values(name: str) -> None:
    model = tiny.model(name)
    state = rounded({k: v for k, v in model.state_dict().items() if v.dtype.kind == "f"})
    port = {f"onnx::{i}" if v.ndim == 2 else k: v.T if v.ndim == 2 else v for i, (k, v) in enumerate(state.items())}
    findings = check_weights(model, port, "float32")
    assert bad(findings) == []
    assert any("recognised by their values" in text for text in harmless(findings))
    folded = fold_after(model, state)
    port = {f"w{i}": v for i, v in enumerate(folded.values())}
    findings = check_weights(model, port, "float32")
    assert bad(findings) == []
    assert any("batch norms are folded" in text for text in harmless(findings))


# --- folding ---------------------------------------------------------------------------------------------------------


def line(model: Module, name: str, eps: float | None = None) -> tuple[np.ndarray, np.ndarray]:
    norm: Any = dict(model.named_modules())[name]
    factor = norm.weight / np.sqrt(norm.running_var.astype(np.float64) + (norm.eps if eps is None else eps))
    return factor, norm.bias - norm.running_mean * factor


def without(state: State, module: str) -> None:
    for key in [k for k in state if k.startswith(f"{module}.")]:
        del state[key]


def fold_after(model: Module, state: State, eps: float | None = None, only: str = "") -> State:
    """Every batch norm folded into the convolution before it, where there is one."""
    state = dict(state)
    for layer, around in neighbours(model).items():
        if around.after and only in layer:
            factor, shift = line(model, around.after, eps)
            weight = state[f"{layer}.weight"].astype(np.float64)
            bias = state.get(f"{layer}.bias", np.zeros(len(weight)))
            state[f"{layer}.weight"] = (weight * factor.reshape(-1, 1, 1, 1)).astype(np.float32)
            state[f"{layer}.bias"] = (bias * factor + shift).astype(np.float32)
            without(state, around.after)
    return state


def test_which_batch_norm_follows_which_convolution() -> None:
    """Every batch norm is found beside some layer, and those of other names are as we know them."""
    for name in MODELS:
        model = tiny.model(name)
        around = neighbours(model)
        norms = {n for n, module in model.named_modules() if isinstance(module, BatchNorm2d)}
        assert norms == {n for pair in around.values() for n in pair[:2] if n}
        scales = {n for n in model.state_dict() if "layer_scale" in n}
        found = {pair.scale for pair in around.values() if pair.scale}
        assert {n for n in scales if "meta4D" not in n or n.endswith("2")} == found
    around = neighbours(tiny.model(ONE_HEAD))
    block = "efficientformer.encoder.last_stage.meta4D_layers.blocks.0"
    assert around[f"{block}.mlp.convolution2"] == ("", f"{block}.mlp.batchnorm_after", f"{block}.layer_scale_2")
    assert around[f"{block}.mlp.convolution1"].after == f"{block}.mlp.batchnorm_before"
    swift = neighbours(tiny.model(SWIFT))
    block = "swiftformer.encoder.network.2.blocks.1"
    assert swift[f"{block}.linear.fc1"] == (f"{block}.linear.norm1", "", "")
    assert swift[f"{block}.linear.fc2"] == ("", "", f"{block}.layer_scale_2")
    assert swift["dist_head"] == ("norm", "", "")


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_batch_norms_folded_into_the_convolutions_before_them_are_no_fault(name: str, dtype: str) -> None:
    model = tiny.model(name)
    folded = fold_after(model, model.state_dict())
    findings = check_weights(model, rounded(folded, dtype), dtype)
    assert bad(findings) == []
    number = sum(bool(around.after) for around in neighbours(model).values())
    assert f"batch norms are folded into {number} convolutions before them" in harmless(findings)
    kept = {**rounded(model.state_dict(), dtype), **rounded(folded, dtype)}
    findings = check_weights(model, kept, dtype)
    assert bad(findings) == []
    assert any("there all the same" in text for text in harmless(findings))


@pytest.mark.parametrize("name", FAMILIES)
def test_norms_that_do_nothing_may_stay_where_they_were_folded_from(name: str) -> None:
    model = tiny.model(name)
    state = fold_after(model, rounded(model.state_dict()))
    for around in neighbours(model).values():
        if around.after:
            width = len(model.state_dict()[f"{around.after}.weight"])
            state[f"{around.after}.weight"] = state[f"{around.after}.running_var"] = np.ones(width, np.float32)
            state[f"{around.after}.bias"] = state[f"{around.after}.running_mean"] = np.zeros(width, np.float32)
    findings = check_weights(model, state, "float32")
    assert bad(findings) == []
    assert len(findings) == 1


@pytest.mark.parametrize("name", [TWO_HEADS, SWIFT])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("norms", [False, True])
def test_layer_scales_folded_in_are_no_fault(name: str, dtype: str, norms: bool) -> None:
    model = tiny.model(name)
    state = dict(model.state_dict())
    if norms:
        state = fold_after(model, state)
    for layer, around in neighbours(model).items():
        if around.scale:
            scale = state.pop(around.scale).reshape(-1)
            weight = state[f"{layer}.weight"]
            state[f"{layer}.weight"] = weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
            state[f"{layer}.bias"] = state[f"{layer}.bias"] * scale
    findings = check_weights(model, rounded(state, dtype), dtype)
    assert bad(findings) == []
    assert any(text.startswith("layer scales are folded into") for text in harmless(findings))
    key = next(f"{layer}.bias" for layer, around in neighbours(model).items() if around.scale)
    owner = next(around.scale for around in neighbours(model).values() if around.scale)
    state[key] = state[key] / model.state_dict()[owner].reshape(-1)
    assert "not multiplied by the layer scale" in only(
        [f for f in check_weights(model, rounded(state), "float32") if f.bad]
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_folded_weights_may_be_laid_out_otherwise(name: str) -> None:
    model = tiny.model(name)
    state = fold_after(model, model.state_dict())
    for layer, around in neighbours(model).items():
        if around.scale:
            scale = state.pop(around.scale).reshape(-1)
            weight = state[f"{layer}.weight"]
            state[f"{layer}.weight"] = weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
            state[f"{layer}.bias"] = state[f"{layer}.bias"] * scale
    for key, array in state.items():
        if array.ndim == 4:
            state[key] = array.transpose(2, 3, 0, 1) if array.shape[1] == 1 else array.transpose(2, 3, 1, 0)
        elif array.ndim == 2 and key.endswith(".weight"):
            state[key] = array.T
    assert bad(check_weights(model, rounded(state), "float32")) == []


def test_layer_scales_of_one_may_be_left_out() -> None:
    model = tiny.model(SWIFT)
    state = {k: np.ones_like(v) if k.endswith("layer_scale") else v for k, v in model.state_dict().items()}
    model.load_state_dict(state)
    left = {k: v for k, v in rounded(state).items() if not k.endswith("layer_scale")}
    assert bad(check_weights(model, left, "float32")) == []


@pytest.mark.parametrize("dtype", DTYPES)
def test_batch_norms_folded_into_the_layers_after_them_are_no_fault(dtype: str) -> None:
    model = tiny.model(SWIFT)
    state = dict(model.state_dict())
    for layer, around in neighbours(model).items():
        if around.before:
            factor, shift = line(model, around.before)
            weight = state[f"{layer}.weight"].reshape(len(state[f"{layer}.weight"]), -1).astype(np.float64)
            state[f"{layer}.bias"] = state[f"{layer}.bias"] + weight @ shift
            state[f"{layer}.weight"] = (weight * factor).reshape(state[f"{layer}.weight"].shape)
    for around in neighbours(model).values():
        if around.before:
            without(state, around.before)
    findings = check_weights(model, rounded(state, dtype), dtype)
    assert bad(findings) == []
    assert any(re.match(r"batch norms are folded into \d+ layers after them", text) for text in harmless(findings))


@pytest.mark.parametrize(
    ("name", "first", "second"), [(TWO_HEADS, "classifier", "distillation_classifier"), (SWIFT, "head", "dist_head")]
)
@pytest.mark.parametrize("norms", [False, True])
def test_two_heads_made_one_are_no_fault(name: str, first: str, second: str, norms: bool) -> None:
    model = tiny.model(name)
    state = dict(model.state_dict())
    for kind in ("weight", "bias"):
        state[f"{first}.{kind}"] = (state[f"{first}.{kind}"] + state.pop(f"{second}.{kind}")) / 2
    if norms and name == SWIFT:
        factor, shift = line(model, "norm")
        state[f"{first}.bias"] = state[f"{first}.bias"] + state[f"{first}.weight"].astype(np.float64) @ shift
        state[f"{first}.weight"] = state[f"{first}.weight"] * factor
        without(state, "norm")
    findings = check_weights(model, rounded(state), "float32")
    assert bad(findings) == []
    assert "both heads are averaged into one" in harmless(findings)
    alone = {k: v for k, v in model.state_dict().items() if not k.startswith(second)}
    assert f"missing: {second}.weight" in only(check_weights(model, rounded(alone), "float32"))


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("eps", [1e-2, 3e-4, 1e-6])
def test_another_eps_in_what_is_folded_is_named(name: str, eps: float) -> None:
    model = tiny.model(name)
    layer = next(layer for layer, around in neighbours(model).items() if around.after)
    state = fold_after(model, rounded(model.state_dict()))
    wrong = fold_after(model, rounded(model.state_dict()), eps, layer)
    state |= {key: wrong[key] for key in (f"{layer}.weight", f"{layer}.bias")}
    norm: Any = dict(model.named_modules())[neighbours(model)[layer].after]
    text = only([f for f in check_weights(model, state, "float32") if f.bad])
    said = re.search(r"with eps (\S+) instead of (\S+): (.*)", text)
    assert said is not None
    assert float(said[1]) == pytest.approx(eps, rel=0.05)
    assert float(said[2]) == norm.eps
    assert said[3] == f"{layer}.weight"


MISTAKES: dict[str, Callable[..., np.ndarray]] = {
    "the running mean left out": lambda own, factor, norm: own * factor + norm.bias,
    "the layer's own bias not multiplied": lambda own, factor, norm: own + norm.bias - norm.running_mean * factor,
    "the layer's own bias left out": lambda own, factor, norm: norm.bias - norm.running_mean * factor,
    "the batch norm's bias left out": lambda own, factor, norm: (own - norm.running_mean) * factor,
    "the layer's own bias as it was": lambda own, factor, norm: own,
    "not what folding gives": lambda own, factor, norm: own + 1,
}


@pytest.mark.parametrize("name", [TWO_HEADS, SWIFT])
@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_bias_that_is_folded_wrongly_is_named(name: str, mistake: str, dtype: str) -> None:
    model = tiny.model(name)
    state = rounded(fold_after(model, model.state_dict()), dtype)
    layer, after = next((layer, around.after) for layer, around in neighbours(model).items() if around.after)
    norm: Any = dict(model.named_modules())[after]
    own = model.state_dict()[f"{layer}.bias"]
    wrong = MISTAKES[mistake](own, line(model, after)[0], norm)
    state[f"{layer}.bias"] = round_to(wrong.astype(np.float32), dtype)
    text = only([f for f in check_weights(model, state, dtype) if f.bad])
    assert mistake in text
    assert text.endswith(f"{layer}.bias")
    del state[f"{layer}.bias"]
    assert "missing, although" in only([f for f in check_weights(model, state, dtype) if f.bad])


# --- what is wrong ---------------------------------------------------------------------------------------------------


def square(model: Module, rank: int) -> str:
    return next(k for k, v in model.state_dict().items() if v.ndim == rank and v.shape[0] == v.shape[1] > 1)


def largest(model: Module, rank: int) -> str:
    state = model.state_dict()
    return max((k for k, v in state.items() if v.ndim == rank and "bias_idxs" not in k), key=lambda k: state[k].size)


CHANGES: dict[str, tuple[int, Callable[[np.ndarray], np.ndarray]]] = {
    "reversed along the output channels": (4, lambda w: w[::-1]),
    "reversed along the input channels": (4, lambda w: w[:, ::-1]),
    "multiplied by -1": (4, lambda w: -w),
    "multiplied by 1.5": (1, lambda w: w * 1.5),
    "in another order along the output channels": (4, lambda w: np.roll(w, 3, 0)),
    "in another order along the first axis": (1, lambda w: np.roll(w, 1)),
    "in another order along the input channels": (4, lambda w: np.roll(w, 2, 1)),
    "all 1": (1, lambda w: np.ones_like(w)),
    "all 0": (4, lambda w: np.zeros_like(w)),
    "slightly different": (4, lambda w: w + 1e-2 * np.std(w) * np.random.default_rng(0).standard_normal(w.shape)),
    "different": (4, lambda w: np.random.default_rng(0).standard_normal(w.shape)),
    "holding NaN or infinite numbers": (1, lambda w: np.where(np.arange(len(w)) == 1, np.nan, w)),
}


CHANGED = [(name, change, dtype) for change in CHANGES for dtype in ("float32", "float16") for name in FAMILIES]


# Every change once, in float32 or float16, on one family after the other.
@pytest.mark.parametrize(
    ("name", "change", "dtype"), sweep(CHANGED, [CHANGED[6 * turn + turn % 6] for turn in range(len(CHANGES))])
)
def test_a_changed_weight_is_named(name: str, change: str, dtype: str) -> None:
    rank, make = CHANGES[change]
    model = tiny.model(name)
    state = rounded(model.state_dict(), dtype)
    key = largest(model, rank)
    state[key] = round_to(make(state[key]).astype(np.float32), dtype)
    text = only(check_weights(model, state, dtype))
    assert text.startswith(f"1 weight {change}: {key}")


@pytest.mark.parametrize(("name", "step"), sweep([(n, step) for n in FAMILIES for step in (7, 1)], [(SWIFT, 7)]))
def test_one_number_of_one_weight_is_enough(name: str, step: int) -> None:
    model = tiny.model(name)
    floats = [key for key, value in model.state_dict().items() if value.dtype.kind == "f"]
    for key in floats[::step]:
        state = rounded(model.state_dict())
        flat = state[key].reshape(-1)
        state[key] = np.where(np.arange(flat.size) == flat.size - 1, flat * np.float32(1.001), flat).reshape(
            state[key].shape
        )
        text = only(check_weights(model, state, "float32"))
        assert key in text


@pytest.mark.parametrize("name", FAMILIES)
def test_kernels_flipped_or_with_height_and_width_swapped(name: str) -> None:
    model = tiny.model(name)
    key = next(k for k, v in model.state_dict().items() if v.ndim == 4 and v.shape[2] > 1)
    for make, word in (
        (lambda w: w[:, :, ::-1], "reversed along rows of the kernel"),
        (lambda w: w[..., ::-1], "reversed along columns of the kernel"),
        (lambda w: w[:, :, ::-1, ::-1], "with kernels rotated by 180 degrees"),
        (lambda w: w.swapaxes(2, 3), "laid out as (O, I, W, H), unlike the others of (O, I, H, W)"),
    ):
        state = rounded(model.state_dict())
        state[key] = make(state[key])
        assert only(check_weights(model, state, "float32")) == f"1 weight {word}: {key}"


def test_a_square_linear_weight_must_lie_as_the_others_do() -> None:
    model = tiny.model(SWIFT)
    keys = [k for k, v in model.state_dict().items() if v.ndim == 2 and k.endswith("weight")]
    key = square(model, 2)
    state = rounded(model.state_dict())
    state[key] = state[key].T
    assert "laid out as (I, O), unlike the others of (O, I)" in only(check_weights(model, state, "float32"))
    turned = {k: v.T if k in keys and k != key else v for k, v in rounded(model.state_dict()).items()}
    findings = check_weights(model, turned, "float32")
    assert "laid out as (O, I), unlike the others of (I, O)" in bad(findings)[0]
    assert bad(findings)[0].endswith(f": {key}")
    assert len(bad(findings)) == 1
    everything_else = {k: v.T if k in keys and "head" not in k else v for k, v in rounded(model.state_dict()).items()}
    wrong = bad(check_weights(model, everything_else, "float32"))
    assert len(wrong) == 1
    assert "final.weight" in wrong[0]


def test_a_bias_table_read_in_another_shape() -> None:
    model = tiny.model(ONE_HEAD)
    key = next(k for k in model.state_dict() if k.endswith("attention_biases"))
    state = rounded(model.state_dict())
    heads, offsets = state[key].shape
    memory = state[key].reshape(offsets, heads)
    state[key] = memory
    assert "memory read as" in only(check_weights(model, state, "float32"))
    state[key] = memory.T
    assert "memory read as" in only(check_weights(model, state, "float32"))
    state[key] = model.state_dict()[key].T
    assert bad(check_weights(model, state, "float32")) == []


def test_an_index_table_of_its_own() -> None:
    model = tiny.model(ONE_HEAD)
    key = next(k for k in model.state_dict() if k.endswith("attention_bias_idxs"))
    state = rounded(model.state_dict())
    state[key] = state[key][::-1]
    assert f"index table that follows from the resolution: {key}" in only(check_weights(model, state, "float32"))


@pytest.mark.parametrize("name", FAMILIES)
def test_missing_further_misshapen_and_swapped(name: str) -> None:
    model = tiny.model(name)
    state = rounded(model.state_dict())
    alike = [k for k, v in state.items() if v.shape == state[largest(model, 1)].shape and v.dtype.kind == "f"]
    first, second = sorted(alike)[:2]
    lost = {k: v for k, v in state.items() if k != first}
    assert only(check_weights(model, lost, "float32")) == f"1 weight missing: {first}"
    more = {**state, "decoder.weight": np.ones((3, 4), np.float32)}
    assert only(check_weights(model, more, "float32")) == "1 weight that our model does not have: decoder.weight"
    short = {**state, first: state[first][:-1]}
    width = len(state[first])
    expected = f"1 weight of shape ({width - 1},) instead of ({width},): {first}"
    assert only(check_weights(model, short, "float32")) == expected
    swapped = {**state, first: state[second], second: state[first]}
    texts = bad(check_weights(model, swapped, "float32"))
    assert sorted(texts) == sorted(
        f"1 weight holding the values of {a}: {b}" for a, b in ((first, second), (second, first))
    )
    bias = next(f"{c}.bias" for c in convolutions(model) if f"{c}.bias" not in state) if name == NET else ""
    if bias:
        channels = len(state[bias.replace("bias", "weight")])
        zeros = {**state, bias: np.zeros(channels, np.float32)}
        assert check_weights(model, zeros, "float32") == []
        ones = {**state, bias: np.arange(channels).astype(np.float32)}
        assert only(check_weights(model, ones, "float32")) == f"1 weight that our layers do not have: {bias}"


def test_lists_are_cut_after_a_dozen() -> None:
    model = tiny.model(NET)
    state = {k: v for k, v in rounded(model.state_dict()).items() if not k.endswith("running_mean")}
    text = only(check_weights(model, state, "float32"))
    number = sum(k.endswith("running_mean") for k in model.state_dict())
    assert text.startswith(f"{number} weights missing: ")
    assert text.endswith(f", and {number - 12} more")


def test_a_head_that_this_class_does_not_use() -> None:
    state = rounded(tiny.model(TWO_HEADS).state_dict())
    findings = check_weights(tiny.model(ONE_HEAD), state, "float32")
    assert bad(findings) == []
    assert "does not use" in findings[0].text


def test_variances_stored_as_deviations_are_remarked_upon() -> None:
    model = tiny.model(NET)
    for make, word in (
        (lambda v, eps: np.sqrt(v + eps), "hold their root"),
        (lambda v, eps: 1 / np.sqrt(v + eps), "one over their root"),
        (lambda v, eps: v + eps, "with eps added"),
    ):
        eps = model.config.batch_norm_eps
        state = {k: make(v, eps) if k.endswith("running_var") else v for k, v in rounded(model.state_dict()).items()}
        findings = check_weights(model, state, "float32")
        assert bad(findings) == []
        assert word in findings[0].text


def test_overflow_and_coarser_rounding() -> None:
    model = tiny.model(SWIFT)
    key = largest(model, 4)
    huge = model.state_dict()
    huge[key] = huge[key] * (1e5 / np.abs(huge[key]).max())
    model.load_state_dict(huge)
    state = rounded(huge, "float16")
    assert np.isinf(state[key]).any()
    assert f"overflowing: numbers beyond the dtype's largest have become infinite: {key}" in only(
        check_weights(model, state, "float16")
    )
    fine = tiny.model(SWIFT)
    coarse = {k: round_to(v, "bfloat16") if k == key else v for k, v in rounded(fine.state_dict(), "float16").items()}
    assert f"rounded to bfloat16: {key}" in only(check_weights(fine, coarse, "float16"))
    assert f"rounded to float16: {key}" in only(
        check_weights(
            fine, {**rounded(fine.state_dict()), key: round_to(fine.state_dict()[key], "float16")}, "float32"
        )
    )


def test_bad_arguments_are_refused() -> None:
    model = tiny.model(SWIFT)
    with pytest.raises(ValueError, match="dtype must be one of"):
        check_weights(model, model.state_dict(), "int8")
    with pytest.raises(TypeError, match="real numbers"):
        check_weights(model, {"head.weight": np.array(["a"])}, "float32")
    assert len(bad(check_weights(model, {}, "float32"))) == 1
