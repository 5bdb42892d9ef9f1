"""SwiftFormer's behaviour: outputs, losses, refused inputs, saving; published sizes; its two kinds of attention."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from npformer import (
    EfficientFormerModel,
    SwiftFormerConfig,
    SwiftFormerForImageClassification,
    SwiftFormerModel,
    ops,
    record,
)
from npformer.models import swiftformer
from npformer.models.swiftformer import VARIANTS, SwiftFormerEfficientAdditiveAttention
from npformer.nn import Module
from npformer.summary import summarize
from tests import tiny
from tests.support import BARE, BARE_SWIFT, SWIFT

B, D, K = 2, 10, 5
HIDDEN_SHAPES = [
    (B, 4, 16, 16), (B, 4, 16, 16),  # the stem, stage 1
    (B, 6, 8, 8), (B, 6, 8, 8),  # downsampling, stage 2
    (B, 8, 4, 4), (B, 8, 4, 4),
    (B, 10, 2, 2), (B, 10, 2, 2),
]  # fmt: skip
OWN_KEYS = {BARE_SWIFT: ["last_hidden_state"], SWIFT: ["logits"]}
SWITCHES = list(itertools.product([False, True], repeat=2))


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    return {name: tiny.model(name) for name in tiny.SWIFT_CLASSES}


# --- what comes out --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["argument", "config", "argument against config"])
@pytest.mark.parametrize(("hidden", "as_dict"), SWITCHES)
@pytest.mark.parametrize("class_name", tiny.SWIFT_CLASSES)
def test_outputs_are_what_was_asked_for(
    class_name: str, hidden: bool, as_dict: bool, by: str, models: dict[str, Any]
) -> None:
    asked = {"output_hidden_states": hidden, "return_dict": as_dict}
    if by == "argument":
        output = models[class_name](tiny.pictures(), **asked)
    elif by == "config":
        output = tiny.model(class_name, **asked)(tiny.pictures())
    else:
        opposite = {name: not value for name, value in asked.items()}
        output = tiny.model(class_name, **opposite)(pixel_values=tiny.pictures(), **asked)
    keys = OWN_KEYS[class_name] + ["hidden_states"] * hidden
    if not as_dict:
        assert type(output) is tuple
        values = dict(zip(keys, output, strict=True))
    else:
        assert list(output.keys()) == list(output) == keys
        values = dict(output.items())
        for position, key in enumerate(keys):
            assert getattr(output, key) is output[key] is output[position]
    assert values[keys[0]].shape == ((B, D, 2, 2) if class_name == BARE_SWIFT else (B, K))
    assert [value.shape for value in values.get("hidden_states", ())] == HIDDEN_SHAPES * hidden


def test_output_classes_are_those_of_the_documentation(models: dict[str, Any]) -> None:
    names = [type(models[name](tiny.pictures())).__name__ for name in tiny.SWIFT_CLASSES]
    assert names == ["BaseModelOutputWithNoAttention", "ImageClassifierOutputWithNoAttention"]


def test_hidden_states_are_the_models_own_steps(models: dict[str, Any]) -> None:
    model = models[BARE_SWIFT]
    output, trace = model(tiny.pictures(), output_hidden_states=True), record(model, tiny.pictures())
    steps = ["patch_embed", *(f"encoder.network.{number}" for number in range(7))]
    for step, state in zip(steps, output.hidden_states, strict=True):
        np.testing.assert_array_equal(state, trace[step])
    np.testing.assert_array_equal(output.last_hidden_state, output.hidden_states[-1])


def test_the_logits_are_the_mean_of_two_heads_on_the_pooled_map(models: dict[str, Any]) -> None:
    model = models[SWIFT]
    pooled = model.norm(model.swiftformer(tiny.pictures()).last_hidden_state).mean((2, 3))
    first, second = (pooled @ head.weight.T + head.bias for head in (model.head, model.dist_head))
    np.testing.assert_allclose(model(tiny.pictures()).logits, (first + second) / 2, rtol=1e-4, atol=1e-4)
    assert np.abs(first - second).max() > 1


def test_without_labels_the_pooled_map_comes_out() -> None:
    model = tiny.model(SWIFT, num_labels=0)
    assert not [name for name in model.state_dict() if "head" in name]
    pooled = model.norm(model.swiftformer(tiny.pictures()).last_hidden_state).mean((2, 3))
    np.testing.assert_allclose(model(tiny.pictures()).logits, pooled, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("attention_norm", ["ones", "l2"])
@pytest.mark.parametrize("batch", [0, 1, 3])
@pytest.mark.parametrize("class_name", tiny.SWIFT_CLASSES)
def test_pictures_do_not_see_each_other(class_name: str, batch: int, attention_norm: str) -> None:
    model, x = tiny.model(class_name, attention_norm=attention_norm), tiny.pictures(3)
    output = model(x[:batch], output_hidden_states=True)
    assert {len(value) for value in (output[0], *output.hidden_states)} == {batch}
    for picture, answer in zip(x, output[0], strict=False):
        np.testing.assert_allclose(model(picture[None])[0][0], answer, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("height", "width", "sides"),
    [
        (97, 130, [(25, 33), (13, 17), (7, 9), (4, 5)]),
        (31, 5, [(8, 2), (4, 1), (2, 1), (1, 1)]),
        (1, 1, [(1, 1)]),
    ],
)
def test_any_size(height: int, width: int, sides: list[tuple[int, int]], models: dict[str, Any]) -> None:
    output = models[SWIFT](tiny.pictures(height=height, width=width), output_hidden_states=True)
    assert list(dict.fromkeys(state.shape[2:] for state in output.hidden_states)) == sides
    assert output.logits.shape == (B, K)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
def test_pictures_of_any_float_are_read_in_the_dtype_of_the_model(dtype: Any, models: dict[str, Any]) -> None:
    x = tiny.pictures().astype(dtype)
    output = models[SWIFT](x, output_hidden_states=True)
    assert {value.dtype for value in (output.logits, *output.hidden_states)} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(output.logits, models[SWIFT](x.astype(np.float32)).logits)


def test_the_float64_twin_gives_the_same_to_rounding(models: dict[str, Any]) -> None:
    single, double = models[SWIFT], models[SWIFT].astype(np.float64)
    logits = double(tiny.pictures()).logits
    assert logits.dtype == np.float64
    np.testing.assert_allclose(single(tiny.pictures()).logits, logits, rtol=0, atol=1e-5 * np.abs(logits).max())
    assert single.dtype == np.float32


@pytest.mark.parametrize("class_name", tiny.SWIFT_CLASSES)
def test_a_call_changes_neither_model_nor_pictures(class_name: str, models: dict[str, Any]) -> None:
    model, x = models[class_name], tiny.pictures()
    weights, pixels, settings = tiny.state_bytes(model), x.tobytes(), model.config.to_dict()
    first = model(x, output_hidden_states=True)
    kept = [state.tobytes() for state in first.hidden_states]
    model(tiny.pictures(1, height=97, width=130))
    assert (tiny.state_bytes(model), x.tobytes(), model.config.to_dict()) == (weights, pixels, settings)
    assert [state.tobytes() for state in first.hidden_states] == kept  # a later call does not write over them
    np.testing.assert_array_equal(model(x)[0], first[0])


def test_views_of_any_layout_are_pictures(models: dict[str, Any]) -> None:
    x = tiny.pictures()
    view = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    assert not view.flags.c_contiguous
    np.testing.assert_allclose(models[SWIFT](view).logits, models[SWIFT](x).logits, rtol=1e-4, atol=1e-4)


# --- losses ----------------------------------------------------------------------------------------------------------

LOGITS = [0.0, math.log(2), math.log(5)]  # softmax: 1/8, 2/8, 5/8; sigmoid: 1/2, 2/3, 5/6
CROSS_ENTROPY = (math.log(8) + math.log(8 / 5)) / 2  # of classes 0 and 2
YES_OR_NO = (2 * math.log(2) + 2 * math.log(3 / 2) + math.log(6 / 5) + math.log(6)) / 6  # of [0, 1, 1] and [1, 1, 0]
SQUARES = (1 + (math.log(2) - 3) ** 2 + math.log(5) ** 2) / 6 + (4 + math.log(2) ** 2 + (math.log(5) - 1) ** 2) / 6


@pytest.mark.parametrize(
    ("logits", "problem_type", "labels", "expected"),
    [
        (LOGITS, None, np.array([0, 2]), CROSS_ENTROPY),
        (LOGITS, "single_label_classification", [0, 2], CROSS_ENTROPY),
        (LOGITS, None, np.array([[0.0, 1, 1], [1, 1, 0]]), YES_OR_NO),
        (LOGITS, "multi_label_classification", np.array([[0, 1, 1], [1, 1, 0]]), YES_OR_NO),
        (LOGITS, "regression", np.array([[1.0, 3, 0], [-2, 0, 1]]), SQUARES),
        ([0.5], None, np.array([1.0, 3.0]), (0.25 + 6.25) / 2),
    ],
)
def test_losses_worked_out_by_hand(logits: Any, problem_type: str | None, labels: Any, expected: float) -> None:
    model = tiny.model(SWIFT, num_labels=len(logits), problem_type=problem_type)
    for head, shift in ((model.head, 1), (model.dist_head, -1)):  # which the mean of both heads undoes
        head.weight = np.zeros_like(head.weight)
        head.bias = np.array(logits, np.float32) + np.float32(shift)  # the answer to every picture
    output = model(tiny.pictures(), labels=labels)
    assert float(output.loss) == pytest.approx(expected, rel=1e-6)
    assert (output.loss.shape, output.loss.dtype, list(output)) == ((), np.float32, ["loss", "logits"])
    loss, answer, states = model(tiny.pictures(), labels, output_hidden_states=True, return_dict=False)
    assert (loss, len(states)) == (output.loss, 8)
    np.testing.assert_allclose(answer, [logits] * 2, rtol=1e-6, atol=1e-7)
    assert model.config.problem_type == problem_type  # transformers would have stored what it guessed


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pixel_values", "error", "sentence"),
    [
        (None, ValueError, "be given: an array (B, C, H, W), as an image processor returns it"),
        (
            [[[[0.0]]]],
            TypeError,
            'be a NumPy array, as an image processor returns it with return_tensors="np", got list',
        ),
        (
            np.zeros((1, 3, 64, 64), np.int64),
            TypeError,
            "hold floats, as an image processor returns them, got dtype int64",
        ),
        (np.zeros((64, 64, 3)), ValueError, "have shape (B, 3, H, W), 3 being config.num_channels, got (64, 64, 3)"),
        (
            np.zeros((1, 4, 64, 64)),
            ValueError,
            "have shape (B, 3, H, W), 3 being config.num_channels, got (1, 4, 64, 64)",
        ),
    ],
)
@pytest.mark.parametrize("class_name", tiny.SWIFT_CLASSES)
def test_what_is_no_batch_of_pictures_is_refused(
    class_name: str, pixel_values: Any, error: Any, sentence: str, models: dict[str, Any]
) -> None:
    with pytest.raises(error, match=r"^pixel_values must ") as caught:
        models[class_name](pixel_values)
    assert str(caught.value) == f"pixel_values must {sentence}"


@pytest.mark.parametrize(("settings", "side"), [({}, 0), ({"down_pad": 0}, 20), ({"down_patch_size": [9, 3]}, 20)])
def test_pictures_that_are_too_small_are_refused(settings: dict[str, Any], side: int) -> None:
    with pytest.raises(ValueError, match="too small"):
        tiny.model(BARE_SWIFT, **settings)(tiny.pictures(1, height=side))


@pytest.mark.parametrize(
    ("labels", "error"), [([0, 5], IndexError), ([0, 1, 2], ValueError), ([0.0, 1.0], ValueError)]
)
def test_labels_that_do_not_fit_are_refused(labels: Any, error: Any, models: dict[str, Any]) -> None:
    with pytest.raises(error, match=r"^labels do not fit: .*, got "):
        models[SWIFT](tiny.pictures(), labels=labels)


def test_a_config_of_another_family_or_spoilt_later_is_refused() -> None:
    with pytest.raises(TypeError, match="config must be SwiftFormerConfig, got EfficientFormerConfig"):
        SwiftFormerModel(tiny.config())  # type: ignore[arg-type]
    config = tiny.config(SWIFT)
    config.attention_norm = "softmax"
    with pytest.raises(ValueError, match='attention_norm must be "ones" or "l2", got \'softmax\''):
        SwiftFormerModel(config)


# --- fresh weights ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("class_name", tiny.SWIFT_CLASSES)
def test_the_same_seed_gives_the_same_weights(class_name: str) -> None:
    cls = getattr(swiftformer, class_name)
    first, again, other = (tiny.state_bytes(cls(tiny.config(SWIFT), seed=seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert tiny.state_bytes(cls(tiny.config(SWIFT))) != tiny.state_bytes(cls(tiny.config(SWIFT)))


def test_fresh_weights_are_those_the_config_describes() -> None:
    config = tiny.config(SWIFT, layer_scale_init_value=0.25, embed_dims=[4, 6, 8, 64])
    state = SwiftFormerForImageClassification(config, seed=0).state_dict()
    large = [array for name, array in state.items() if name.endswith("weight") and array.size > 1000]
    assert len(large) > 5
    assert all(abs(array.std() - 0.02) < 0.002 and abs(array.mean()) < 0.002 for array in large)
    gates = np.concatenate([array[:, 0] for name, array in state.items() if name.endswith("w_g")])
    assert abs(gates.std() - 1) < 0.2
    assert np.all(gates != 0)
    for name, array in state.items():
        last = name.rsplit(".", 1)[-1]
        if last in ("layer_scale_1", "layer_scale_2"):  # of an encoder block; those of the convolutions start at 1
            assert np.all(array == 0.25)
        elif last in ("bias", "running_mean", "num_batches_tracked"):
            assert not array.any()
        elif last in ("layer_scale", "running_var") or array.ndim == 1:
            assert np.all(array == 1)
    assert len({id(array) for array in state.values()}) == len(state)  # no two names for one array
    empty = SwiftFormerModel(config, init_weights=False)
    assert not empty.state_dict()["patch_embed.patch_embedding.0.weight"].any()


def test_without_layer_scales_there_are_none_but_the_convolutions() -> None:
    names = tiny.model(SWIFT, use_layer_scale=False).state_dict()
    assert {name.rsplit(".", 1)[-1] for name in names if "layer_scale" in name} == {"layer_scale"}
    assert len(tiny.model(SWIFT).state_dict()) == len(names) + 2 * 4


# --- saving and loading ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("class_name", tiny.SWIFT_CLASSES)
def test_a_model_survives_being_saved(class_name: str, tmp_path: Path) -> None:
    model = tiny.model(class_name, attention_norm="l2", down_patch_size=(5, 3), down_pad=[2, 1])
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    assert tiny.state_bytes(again) == tiny.state_bytes(model)
    np.testing.assert_array_equal(again(tiny.pictures())[0], model(tiny.pictures())[0])
    stored = json.loads((tmp_path / "config.json").read_text())
    assert (stored["architectures"], stored["model_type"]) == ([class_name], "swiftformer")
    assert (stored["attention_norm"], stored["down_patch_size"]) == ("l2", [5, 3])


def test_the_bare_model_loads_from_a_classifiers_checkpoint(models: dict[str, Any], tmp_path: Path) -> None:
    models[SWIFT].save_pretrained(tmp_path)
    bare = SwiftFormerModel.from_pretrained(tmp_path)
    assert tiny.state_bytes(bare) == tiny.state_bytes(models[SWIFT].swiftformer)


def test_a_classifier_needs_its_heads(models: dict[str, Any], tmp_path: Path) -> None:
    models[BARE_SWIFT].save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r": missing norm\.weight; .*; missing head\.weight; .*dist_head\.bias$"):
        SwiftFormerForImageClassification.from_pretrained(tmp_path)


@pytest.mark.parametrize("dtype", [np.float64, np.float16])
def test_a_model_is_loaded_in_the_dtype_asked_for(dtype: Any, models: dict[str, Any], tmp_path: Path) -> None:
    models[SWIFT].save_pretrained(tmp_path)
    model = SwiftFormerForImageClassification.from_pretrained(tmp_path, dtype=dtype, batch_norm_eps=1e-3)
    assert tiny.state_bytes(model) == tiny.state_bytes(models[SWIFT].astype(dtype))
    assert model.config.batch_norm_eps == model.norm.eps == 1e-3


# --- feature maps ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cls", "shapes"),
    [
        (SwiftFormerModel, [(48, 56), (56, 28), (112, 14), (220, 7)]),
        (EfficientFormerModel, [(48, 56), (96, 28), (224, 14), (448, 7)]),
    ],
)
def test_feature_maps_of_xs_and_of_efficientformer_l1(cls: Any, shapes: list[tuple[int, int]]) -> None:
    """The defaults of the two families whose hidden states are in the same order."""
    maps = cls(cls.config_class(), init_weights=False).extract_feat(np.zeros((1, 3, 224, 224), np.float32))
    assert [m.shape for m in maps] == [(1, channels, side, side) for channels, side in shapes]


@pytest.mark.parametrize("size", [(64, 64), (97, 130)])
@pytest.mark.parametrize("class_name", tiny.SWIFT_CLASSES)
def test_feature_maps_are_the_stages_hidden_states(class_name: str, size: tuple[int, int]) -> None:
    model, x = tiny.model(class_name), tiny.pictures(1, height=size[0], width=size[1])
    states = model(x, output_hidden_states=True).hidden_states
    for feature_map, position in zip(model.extract_feat(x), (1, 3, 5, 7), strict=True):
        np.testing.assert_array_equal(feature_map, states[position])
    model.config.return_dict = False
    assert len(model.extract_feat(x)) == 4


def test_feature_maps_where_not_every_stage_is_followed_by_a_downsampling() -> None:
    settings = {"embed_dims": [4, 4, 8, 8], "downsamples": [False, False, True]}
    states = tiny.model(BARE_SWIFT, **settings)(tiny.pictures(), output_hidden_states=True).hidden_states
    assert [state.shape[1:] for state in states] == [
        (4, 16, 16), (4, 16, 16), (4, 16, 16),  # the stem, stages 1 and 2
        (8, 8, 8), (8, 8, 8),  # a downsampling because the channels change
        (8, 4, 4), (8, 4, 4),  # and one that was asked for
    ]  # fmt: skip
    maps = tiny.model(BARE_SWIFT, **settings).extract_feat(tiny.pictures())
    for feature_map, position in zip(maps, (1, 2, 4, 6), strict=True):
        np.testing.assert_array_equal(feature_map, states[position])


@pytest.mark.parametrize(
    ("settings", "size", "grid"),
    [({}, (64, 64), (2, 2)), ({}, (57, 49), (2, 2)), ({"num_meta3d_blocks": 0}, (97, 130), (4, 5))],
)
def test_feature_maps_of_efficientformer_end_in_a_map_again(
    settings: dict[str, Any], size: tuple[int, int], grid: tuple[int, int]
) -> None:
    model, x = tiny.model(BARE, **settings), tiny.pictures(2, height=size[0], width=size[1])
    states = model(x, output_hidden_states=True).hidden_states
    *maps, last = model.extract_feat(x)
    for feature_map, position in zip(maps, (1, 3, 5), strict=True):
        np.testing.assert_array_equal(feature_map, states[position])
    tokens = states[7]  # (B, N, D), row by row
    assert last.shape == (2, 10, *grid)
    for row, column in np.ndindex(*grid):
        np.testing.assert_array_equal(last[:, :, row, column], tokens[:, row * grid[1] + column])


# --- published sizes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "parameters", "keys"),
    [
        ("swiftformer-xs", 3_475_360, 316),
        ("swiftformer-s", 6_092_128, 376),
        ("swiftformer-l1", 12_057_920, 388),
        ("swiftformer-l3", 28_494_736, 436),
    ],
)
def test_published_variants(name: str, parameters: int, keys: int) -> None:
    config = SwiftFormerConfig.for_variant(name, num_labels=1000)
    assert (config.depths, config.embed_dims) == (VARIANTS[name]["depths"], VARIANTS[name]["embed_dims"])
    model = SwiftFormerForImageClassification(config, init_weights=False)
    assert (model.num_parameters(), len(model.state_dict())) == (parameters, keys)


def test_variants_by_name() -> None:
    assert list(VARIANTS) == ["swiftformer-xs", "swiftformer-s", "swiftformer-l1", "swiftformer-l3"]
    assert SwiftFormerConfig.for_variant("swiftformer-xs").to_dict() == SwiftFormerConfig().to_dict()
    assert SwiftFormerConfig.for_variant("swiftformer-s", depths=[1, 1, 1, 1]).depths == [1, 1, 1, 1]
    with pytest.raises(ValueError, match=r"name must be one of swiftformer-xs, .*, got 'xs'"):
        SwiftFormerConfig.for_variant("xs")


@pytest.mark.parametrize(
    ("name", "convolutions", "linear", "queries"),
    [("swiftformer-xs", 543_711_056, 58_496_768, 227_164), ("swiftformer-s", 910_203_616, 74_156_544, 244_608)],
)
def test_published_multiply_adds(name: str, convolutions: int, linear: int, queries: int) -> None:
    config = SwiftFormerConfig.for_variant(name, num_labels=1000)
    rows = summarize(SwiftFormerForImageClassification(config, init_weights=False), 224, 224)

    def total(kind: str) -> int:
        return sum(row.multiply_adds for row in rows if row.kind == kind)

    assert total("Conv2d") == convolutions
    assert total("Linear") == linear
    attention = [row for row in rows if row.kind == "SwiftFormerEfficientAdditiveAttention"]
    below = sum(r.multiply_adds for r in rows if r.kind == "Linear" and ".attn." in r.name)
    assert sum(row.multiply_adds for row in attention) - below == queries
    assert rows[0].multiply_adds == convolutions + linear + queries


# --- attention -------------------------------------------------------------------------------------------------------


def with_other_gates(model: Any) -> Any:
    """The same model with other w_g."""
    state = {
        name: array[::-1] * 3 + 1 if name.endswith("w_g") else array for name, array in model.state_dict().items()
    }
    return type(model)(model.config, init_weights=False).load_state_dict(state)


def test_with_ones_the_learned_scores_do_nothing_at_all() -> None:
    model = tiny.model(SWIFT)
    assert model.config.attention_norm == "ones"
    np.testing.assert_array_equal(with_other_gates(model)(tiny.pictures()).logits, model(tiny.pictures()).logits)


def test_with_l2_the_learned_scores_matter() -> None:
    model, x = tiny.model(SWIFT, attention_norm="l2"), tiny.pictures()
    right = model(x).logits
    assert np.abs(with_other_gates(model)(x).logits - right).max() > 0.02
    assert np.abs(tiny.model(SWIFT)(x).logits - right).max() > 0.1  # the other generation's answer: nonsense


def attention(channels: int, attention_norm: str, **settings: Any) -> Module:
    """One attention module with random weights, in float64."""
    config = tiny.config(SWIFT, attention_norm=attention_norm, **settings)
    layer = SwiftFormerEfficientAdditiveAttention(config, channels).astype(np.float64)
    generator = np.random.default_rng(2)
    return layer.load_state_dict({name: generator.standard_normal(a.shape) for name, a in layer.state_dict().items()})


@pytest.mark.parametrize("attention_norm", ["ones", "l2"])
def test_attention_is_its_formula(attention_norm: str) -> None:
    layer: Any = attention(6, attention_norm)
    x = np.random.default_rng(3).standard_normal((2, 5, 6))
    query, key = (x @ w.weight.T + w.bias for w in (layer.to_query, layer.to_key))
    query /= np.sqrt((query**2).sum(-1, keepdims=True))
    key /= np.sqrt((key**2).sum(-1, keepdims=True))
    scores = query @ layer.w_g / np.sqrt(6)  # (B, N, 1)
    weights = np.ones_like(scores) if attention_norm == "ones" else scores / np.sqrt((scores**2).sum(1, keepdims=True))
    mixed = (weights * query).sum(1, keepdims=True) * key @ layer.proj.weight.T + layer.proj.bias + query
    np.testing.assert_allclose(layer(x), mixed @ layer.final.weight.T + layer.final.bias, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("attention_norm", "growth"), [("ones", 4), ("l2", 2)])
def test_the_global_query_grows_with_the_number_of_tokens(attention_norm: str, growth: float) -> None:
    """Every token four times: a plain sum is four times as long, a sum with weights of length one twice."""
    layer, x = attention(6, attention_norm), np.random.default_rng(3).standard_normal((2, 5, 6))
    once, often = (record(layer, tokens)[":global_query"] for tokens in (x, np.tile(x, (1, 4, 1))))
    np.testing.assert_allclose(often, growth * once, rtol=1e-12)


def test_with_l2_only_the_direction_of_the_scores_matters() -> None:
    layer: Any = attention(6, "l2")
    x = np.random.default_rng(3).standard_normal((2, 5, 6))
    right = layer(x)
    layer.w_g = layer.w_g * 7
    np.testing.assert_allclose(layer(x), right, rtol=1e-12)
    layer.w_g = -layer.w_g
    assert np.abs(layer(x) - right).max() > 0.1


def test_attention_is_called_on_the_tokens_of_the_map() -> None:
    """Row by row, each token a pixel's channels."""
    trace = record(tiny.model(BARE_SWIFT), tiny.pictures())
    block = "encoder.network.2.blocks.1"
    tokens, layer = trace[f"{block}.local_representation"], tiny.model(BARE_SWIFT).encoder.network[2].blocks[1].attn
    expected = ops.normalize(layer.to_query(tokens.reshape(2, 6, -1).swapaxes(1, 2)), dim=-1)
    np.testing.assert_array_equal(trace[f"{block}.attn:query"], expected)


def test_hidden_act_reaches_the_mlp_alone() -> None:
    settings = {"attention_norm": "l2"}  # with "ones" the weights of the tokens never change
    gelu, relu = (
        record(tiny.model(BARE_SWIFT, hidden_act=act, **settings), tiny.pictures()) for act in ("gelu", "relu")
    )
    same = [name for name in gelu if np.array_equal(gelu[name], relu[name])]
    first_mlp = list(gelu).index("encoder.network.0.blocks.0.linear.act")
    assert same == list(gelu)[:first_mlp]
    assert "encoder.network.0.blocks.0.local_representation.act" in same
