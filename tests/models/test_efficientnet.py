"""EfficientNet's behaviour: outputs, losses, refused inputs, saving; its published sizes; and its three paddings."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from npformer import EfficientNetConfig, EfficientNetForImageClassification, EfficientNetModel, ops, record
from npformer.checkpoint import read_tensors
from npformer.models import efficientnet
from npformer.models.efficientnet import (
    VARIANTS,
    EfficientNetPadding,
    EfficientNetSqueezeExciteLayer,
    block_shapes,
    round_filters,
    round_repeats,
)
from npformer.nn import AdaptiveAvgPool2d, AdaptiveMaxPool2d
from npformer.summary import summarize
from tests import tiny
from tests.support import BARE_NET, NET

B, D, K = 2, 320, 5
HIDDEN_SHAPES = [
    (B, 8, 32, 32), (B, 4, 32, 32),  # the stem, stage 1
    (B, 8, 16, 16),
    (B, 12, 8, 8),
    (B, 20, 4, 4), (B, 20, 4, 4), (B, 28, 4, 4), (B, 28, 4, 4),  # stages 4 and 5, two blocks each
    (B, 48, 2, 2), (B, 48, 2, 2), (B, 80, 2, 2),  # stages 6 and 7
]  # fmt: skip
OWN_KEYS = {BARE_NET: ["last_hidden_state", "pooler_output"], NET: ["logits"]}
SWITCHES = list(itertools.product([False, True], repeat=2))


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    return {name: tiny.model(name) for name in tiny.NET_CLASSES}


# --- what comes out --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["argument", "config", "argument against config"])
@pytest.mark.parametrize(("hidden", "as_dict"), SWITCHES)
@pytest.mark.parametrize("class_name", tiny.NET_CLASSES)
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
    shapes = [values[key].shape for key in OWN_KEYS[class_name]]
    assert shapes == ([(B, D, 2, 2), (B, D)] if class_name == BARE_NET else [(B, K)])
    assert [value.shape for value in values.get("hidden_states", ())] == HIDDEN_SHAPES * hidden


def test_output_classes_are_those_of_the_documentation(models: dict[str, Any]) -> None:
    names = [type(models[name](tiny.pictures())).__name__ for name in tiny.NET_CLASSES]
    assert names == ["BaseModelOutputWithPoolingAndNoAttention", "ImageClassifierOutputWithNoAttention"]


def test_hidden_states_are_the_models_own_steps(models: dict[str, Any]) -> None:
    model = models[BARE_NET]
    output, trace = model(tiny.pictures(), output_hidden_states=True), record(model, tiny.pictures())
    steps = ["embeddings", *(f"encoder.blocks.{number}" for number in range(10))]
    for step, state in zip(steps, output.hidden_states, strict=True):
        np.testing.assert_array_equal(state, trace[step])
    encoder = model.encoder
    top = encoder.top_activation(encoder.top_bn(encoder.top_conv(output.hidden_states[-1])))
    np.testing.assert_array_equal(output.last_hidden_state, top)


@pytest.mark.parametrize(("pooling_type", "pool"), [("mean", np.mean), ("max", np.max)])
def test_the_map_is_pooled_as_the_config_says(pooling_type: str, pool: Any) -> None:
    output = tiny.model(BARE_NET, pooling_type=pooling_type)(tiny.pictures(height=128))
    np.testing.assert_allclose(output.pooler_output, pool(output.last_hidden_state, axis=(2, 3)), rtol=1e-5)


def test_the_classifier_reads_the_pooled_map(models: dict[str, Any]) -> None:
    model = models[NET]
    pooled = model.efficientnet(tiny.pictures()).pooler_output
    expected = pooled @ model.classifier.weight.T + model.classifier.bias
    np.testing.assert_allclose(model(tiny.pictures()).logits, expected, rtol=1e-4, atol=1e-5)


def test_without_labels_the_pooled_map_comes_out() -> None:
    model = tiny.model(NET, num_labels=0)
    assert not [name for name in model.state_dict() if "classifier" in name]
    pooled = model.efficientnet(tiny.pictures()).pooler_output
    np.testing.assert_array_equal(model(tiny.pictures()).logits, pooled)


@pytest.mark.parametrize("batch", [0, 1, 3])
@pytest.mark.parametrize("class_name", tiny.NET_CLASSES)
def test_pictures_do_not_see_each_other(class_name: str, batch: int, models: dict[str, Any]) -> None:
    model, x = models[class_name], tiny.pictures(3)
    output = model(x[:batch], output_hidden_states=True)
    assert {len(value) for value in (output[0], *output.hidden_states)} == {batch}
    for picture, answer in zip(x, output[0], strict=False):
        np.testing.assert_allclose(model(picture[None])[0][0], answer, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("padding", "sides"),
    [  # of the map after the stem and after every block of stride 2, from 97 x 130 pixels
        ("hf-static", [(48, 65), (24, 32), (12, 16), (6, 8), (3, 4)]),
        ("tf-same-dynamic", [(49, 65), (25, 33), (13, 17), (7, 9), (4, 5)]),
        ("symmetric", [(49, 65), (25, 33), (13, 17), (7, 9), (4, 5)]),
    ],
)
def test_any_size(padding: str, sides: list[tuple[int, int]]) -> None:
    """Half the side, rounded down where padding is static and up elsewhere."""
    model = tiny.model(NET, padding=padding)
    output = model(tiny.pictures(height=97, width=130), output_hidden_states=True)
    assert list(dict.fromkeys(state.shape[2:] for state in output.hidden_states)) == sides
    assert output.logits.shape == (B, K)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
def test_pictures_of_any_float_are_read_in_the_dtype_of_the_model(dtype: Any, models: dict[str, Any]) -> None:
    x = tiny.pictures().astype(dtype)
    output = models[BARE_NET](x, output_hidden_states=True)
    assert {value.dtype for value in (*output.to_tuple()[:2], *output.hidden_states)} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(output[0], models[BARE_NET](x.astype(np.float32))[0])


def test_the_float64_twin_gives_the_same_to_rounding(models: dict[str, Any]) -> None:
    single, double = models[NET], models[NET].astype(np.float64)
    logits = double(tiny.pictures()).logits
    assert logits.dtype == np.float64
    np.testing.assert_allclose(single(tiny.pictures()).logits, logits, rtol=0, atol=1e-5 * np.abs(logits).max())
    assert single.dtype == np.float32


@pytest.mark.parametrize("class_name", tiny.NET_CLASSES)
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
    np.testing.assert_allclose(models[NET](view).logits, models[NET](x).logits, rtol=1e-4, atol=1e-5)


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
    model = tiny.model(NET, num_labels=len(logits), problem_type=problem_type)
    model.classifier.weight = np.zeros_like(model.classifier.weight)
    model.classifier.bias = np.array(logits, np.float32)  # the answer to every picture
    output = model(tiny.pictures(), labels=labels)
    assert float(output.loss) == pytest.approx(expected, rel=1e-6)
    assert (output.loss.shape, output.loss.dtype, list(output)) == ((), np.float32, ["loss", "logits"])
    loss, answer, states = model(tiny.pictures(), labels, output_hidden_states=True, return_dict=False)
    assert (loss, len(states)) == (output.loss, 11)
    np.testing.assert_allclose(answer, [logits] * 2)
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
            np.zeros((1, 3, 64, 64), np.uint8),
            TypeError,
            "hold floats, as an image processor returns them, got dtype uint8",
        ),
        (np.zeros((3, 64, 64)), ValueError, "have shape (B, 3, H, W), 3 being config.num_channels, got (3, 64, 64)"),
        (
            np.zeros((1, 1, 64, 64)),
            ValueError,
            "have shape (B, 3, H, W), 3 being config.num_channels, got (1, 1, 64, 64)",
        ),
    ],
)
@pytest.mark.parametrize("class_name", tiny.NET_CLASSES)
def test_what_is_no_batch_of_pictures_is_refused(
    class_name: str, pixel_values: Any, error: Any, sentence: str, models: dict[str, Any]
) -> None:
    with pytest.raises(error, match=r"^pixel_values must ") as caught:
        models[class_name](pixel_values)
    assert str(caught.value) == f"pixel_values must {sentence}"


@pytest.mark.parametrize(("height", "width"), [(31, 64), (64, 31), (1, 1), (0, 64), (64, 0)])
def test_static_padding_needs_pictures_of_32_pixels(height: int, width: int, models: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="too small"):
        models[NET](tiny.pictures(1, height=height, width=width))


@pytest.mark.parametrize("padding", ["tf-same-dynamic", "symmetric"])
def test_other_paddings_take_pictures_of_one_pixel(padding: str) -> None:
    model = tiny.model(BARE_NET, padding=padding)
    assert model(tiny.pictures(1, height=1, width=3)).last_hidden_state.shape == (1, D, 1, 1)
    with pytest.raises(ValueError, match=r"x is too small|size must be at least 1|pixel_values"):
        model(tiny.pictures(1, height=0))


@pytest.mark.parametrize(
    ("labels", "error"), [([0, 5], IndexError), ([0, 1, 2], ValueError), ([0.0, 1.0], ValueError)]
)
def test_labels_that_do_not_fit_are_refused(labels: Any, error: Any, models: dict[str, Any]) -> None:
    with pytest.raises(error, match=r"^labels do not fit: .*, got "):
        models[NET](tiny.pictures(), labels=labels)


def test_a_config_of_another_family_or_spoilt_later_is_refused() -> None:
    with pytest.raises(TypeError, match="config must be EfficientNetConfig, got EfficientFormerConfig"):
        EfficientNetModel(tiny.config())  # type: ignore[arg-type]
    config = tiny.config(NET)
    config.strides = [3] * 7
    with pytest.raises(ValueError, match="strides must be"):
        EfficientNetModel(config)


# --- fresh weights ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("class_name", tiny.NET_CLASSES)
def test_the_same_seed_gives_the_same_weights(class_name: str) -> None:
    cls = getattr(efficientnet, class_name)
    first, again, other = (tiny.state_bytes(cls(tiny.config(NET), seed=seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert tiny.state_bytes(cls(tiny.config(NET))) != tiny.state_bytes(cls(tiny.config(NET)))


def test_fresh_weights_are_those_the_config_describes() -> None:
    state = EfficientNetForImageClassification(tiny.config(NET, initializer_range=0.5), seed=0).state_dict()
    large = [array for name, array in state.items() if name.endswith("weight") and array.size > 1000]
    assert len(large) > 5
    assert all(abs(array.std() - 0.5) < 0.05 and abs(array.mean()) < 0.05 for array in large)
    for name, array in state.items():
        last = name.rsplit(".", 1)[-1]
        if last in ("bias", "running_mean", "num_batches_tracked"):
            assert not array.any()
        elif array.ndim == 1:  # of a batch norm
            assert np.all(array == 1)
    empty = EfficientNetModel(tiny.config(NET), init_weights=False)
    assert not empty.embeddings.convolution.weight.any()


# --- saving and loading ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("class_name", tiny.NET_CLASSES)
def test_a_model_survives_being_saved(class_name: str, tmp_path: Path) -> None:
    model = tiny.model(class_name, padding="symmetric", pooling_type="max", depthwise_padding=[1, 3])
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    assert tiny.state_bytes(again) == tiny.state_bytes(model)
    np.testing.assert_array_equal(again(tiny.pictures())[0], model(tiny.pictures())[0])
    stored = json.loads((tmp_path / "config.json").read_text())
    assert (stored["architectures"], stored["model_type"]) == ([class_name], "efficientnet")
    assert {**again.config.to_dict(), "architectures": None} == {**model.config.to_dict(), "torch_dtype": "float32"}


def test_the_bare_model_loads_from_a_classifiers_checkpoint(models: dict[str, Any], tmp_path: Path) -> None:
    models[NET].save_pretrained(tmp_path)
    bare = EfficientNetModel.from_pretrained(tmp_path)
    assert tiny.state_bytes(bare) == tiny.state_bytes(models[NET].efficientnet)


def test_a_classifier_needs_a_head_unless_it_has_no_labels(models: dict[str, Any], tmp_path: Path) -> None:
    models[BARE_NET].save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r": missing classifier\.weight; missing classifier\.bias$"):
        EfficientNetForImageClassification.from_pretrained(tmp_path)
    model = EfficientNetForImageClassification.from_pretrained(tmp_path, num_labels=0)
    assert tiny.state_bytes(model.efficientnet) == tiny.state_bytes(models[BARE_NET])


@pytest.mark.parametrize("dtype", [np.float64, np.float16])
def test_a_model_is_loaded_in_the_dtype_asked_for(dtype: Any, models: dict[str, Any], tmp_path: Path) -> None:
    models[NET].save_pretrained(tmp_path)
    model = EfficientNetForImageClassification.from_pretrained(tmp_path, dtype=dtype, batch_norm_eps=1e-5)
    assert tiny.state_bytes(model) == tiny.state_bytes(models[NET].astype(dtype))
    assert model.config.batch_norm_eps == model.efficientnet.embeddings.batchnorm.eps == 1e-5
    model.save_pretrained(tmp_path / "again")
    assert read_tensors(tmp_path / "again" / "model.safetensors")["classifier.bias"].dtype == dtype


# --- feature maps ----------------------------------------------------------------------------------------------------


def test_feature_maps_of_b0_at_strides_4_to_32() -> None:
    model = EfficientNetModel(EfficientNetConfig.for_variant("efficientnet-b0"), init_weights=False)
    maps = model.extract_feat(np.zeros((1, 3, 224, 224), np.float32))
    assert [m.shape[1:] for m in maps] == [(24, 56, 56), (40, 28, 28), (112, 14, 14), (320, 7, 7)]


@pytest.mark.parametrize("padding", ["hf-static", "tf-same-dynamic"])
@pytest.mark.parametrize("size", [(64, 64), (97, 130)])
@pytest.mark.parametrize("class_name", tiny.NET_CLASSES)
def test_feature_maps_are_the_last_hidden_states_of_their_size(
    class_name: str, size: tuple[int, int], padding: str
) -> None:
    model, x = tiny.model(class_name, padding=padding), tiny.pictures(1, height=size[0], width=size[1])
    states = model(x, output_hidden_states=True).hidden_states
    maps = model.extract_feat(x)
    assert len(maps) == 4
    for feature_map, position in zip(maps, (2, 3, 7, 10), strict=True):
        np.testing.assert_array_equal(feature_map, states[position])
    model.config.return_dict = False
    assert len(model.extract_feat(x)) == 4


def test_feature_maps_begin_at_stride_4_whichever_stage_strides() -> None:
    model = tiny.model(BARE_NET, strides=[2, 1, 2, 1, 1, 2, 1])
    states = model(tiny.pictures(), output_hidden_states=True).hidden_states
    assert [m.shape for m in model.extract_feat(tiny.pictures())] == [states[i].shape for i in (2, 7, 10)]
    assert tiny.model(BARE_NET, strides=[1] * 7).extract_feat(tiny.pictures(height=8, width=8)) == ()


# --- published sizes -------------------------------------------------------------------------------------------------

# Channels of the stem, the stages and the top; blocks per stage; parameters and state dict keys with 1000 labels.
B0_STAGES = [16, 24, 40, 80, 112, 192, 320]
PUBLISHED = {
    "efficientnet-b0": (32, B0_STAGES, 1280, [1, 2, 2, 3, 3, 4, 1], 5_288_548, 360),
    "efficientnet-b1": (32, B0_STAGES, 1280, [2, 3, 3, 4, 4, 5, 2], 7_794_184, 508),
    "efficientnet-b2": (32, [16, 24, 48, 88, 120, 208, 352], 1408, [2, 3, 3, 4, 4, 5, 2], 9_109_994, 508),
    "efficientnet-b3": (40, [24, 32, 48, 96, 136, 232, 384], 1536, [2, 3, 3, 5, 5, 6, 2], 12_233_232, 574),
    "efficientnet-b4": (48, [24, 32, 56, 112, 160, 272, 448], 1792, [2, 4, 4, 6, 6, 8, 2], 19_341_616, 706),
    "efficientnet-b5": (48, [24, 40, 64, 128, 176, 304, 512], 2048, [3, 5, 5, 7, 7, 9, 3], 30_389_784, 854),
    "efficientnet-b6": (56, [32, 40, 72, 144, 200, 344, 576], 2304, [3, 6, 6, 8, 8, 11, 3], 43_040_704, 986),
    "efficientnet-b7": (64, [32, 48, 80, 160, 224, 384, 640], 2560, [4, 7, 7, 10, 10, 13, 4], 66_347_960, 1200),
    "efficientnet-b8": (72, [32, 56, 88, 176, 248, 424, 704], 2816, [4, 8, 8, 11, 11, 15, 4], 87_413_142, 1332),
}
# Resolution, dropout, the blocks of stride 2, and those of them that meet an odd side (the file's depthwise_padding).
STRIDED = {
    "efficientnet-b0": (224, 0.2, [1, 3, 5, 11], []),
    "efficientnet-b1": (240, 0.2, [2, 5, 8, 16], [16]),
    "efficientnet-b2": (260, 0.3, [2, 5, 8, 16], [5, 8, 16]),
    "efficientnet-b3": (300, 0.3, [2, 5, 8, 18], [5, 18]),
    "efficientnet-b4": (380, 0.4, [2, 6, 10, 22], [6]),
    "efficientnet-b5": (456, 0.4, [3, 8, 13, 27], [13, 27]),
    "efficientnet-b6": (528, 0.5, [3, 9, 15, 31], [31]),
    "efficientnet-b7": (600, 0.5, [4, 11, 18, 38], [18]),
    "efficientnet-b8": (672, 0.5, [4, 12, 20, 42], []),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_published_variants(name: str) -> None:
    config = EfficientNetConfig.for_variant(name, num_labels=1000)
    stem, stages, top, repeats, parameters, keys = PUBLISHED[name]
    resolution, dropout, strided, odd = STRIDED[name]
    shapes = list(block_shapes(config))
    assert (config.image_size, config.dropout_rate, config.hidden_dim) == (resolution, dropout, top)
    assert config.depthwise_padding == odd
    assert [block.number for block in shapes] == list(range(sum(repeats)))
    assert [[block.stage for block in shapes].count(stage) for stage in range(7)] == repeats
    assert [block.number for block in shapes if block.stride == 2] == strided
    assert shapes[0].in_channels == stem
    assert [block.out_channels for block in shapes if block.is_first] == stages
    assert all(a.out_channels == b.in_channels for a, b in itertools.pairwise(shapes))
    model = EfficientNetForImageClassification(config, init_weights=False)
    assert (model.num_parameters(), len(model.state_dict())) == (parameters, keys)
    assert model.efficientnet.num_parameters() == parameters - 1000 * (top + 1)


def test_every_variant_is_published_and_others_are_refused() -> None:
    assert VARIANTS.keys() == PUBLISHED.keys() == STRIDED.keys()
    with pytest.raises(ValueError, match=r"name must be one of efficientnet-b0, .*, got 'b0'"):
        EfficientNetConfig.for_variant("b0")


def test_overrides_of_a_variant() -> None:
    config = EfficientNetConfig.for_variant(
        "efficientnet-b1", image_size=260, width_coefficient=1.1, padding="symmetric"
    )
    assert (config.hidden_dim, config.depth_coefficient, config.padding) == (1408, 1.1, "symmetric")
    assert config.depthwise_padding == [5, 8, 16]  # follows the picture's size
    assert EfficientNetConfig.for_variant("efficientnet-b1", depthwise_padding=[3]).depthwise_padding == [3]
    assert EfficientNetConfig.for_variant("efficientnet-b1", depthwise_padding=[]).depthwise_padding == []


def test_the_default_config_is_b7_without_its_depthwise_padding() -> None:
    b7 = EfficientNetConfig.for_variant("efficientnet-b7", depthwise_padding=[])
    assert EfficientNetConfig().to_dict() == b7.to_dict()


@pytest.mark.parametrize(
    ("name", "convolutions", "linear"),
    [("efficientnet-b0", 384_534_752, 1_280_000), ("efficientnet-b1", 685_522_832, 1_280_000)],
)
def test_published_multiply_adds(name: str, convolutions: int, linear: int) -> None:
    config = EfficientNetConfig.for_variant(name, num_labels=1000)
    model = EfficientNetForImageClassification(config, init_weights=False)
    rows = {row.name: row for row in summarize(model, config.image_size, config.image_size)}
    assert rows["efficientnet"].multiply_adds == convolutions
    assert rows["classifier"].multiply_adds == linear
    assert rows[""].multiply_adds == convolutions + linear


# --- scaling ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("channels", "width", "divisor", "expected"),
    [
        (32, 1.0, 8, 32),
        (32, 1.1, 8, 32),  # 35.2 is nearer to 32 than to 40, and 32 >= 0.9 * 35.2
        (32, 1.2, 8, 40),  # 38.4
        (24, 1.5, 8, 40),  # 36, halfway: upwards
        (16, 1.1, 8, 16),  # 17.6
        (16, 1.2, 8, 24),  # 19.2 is nearer to 16, but 16 < 0.9 * 19.2 = 17.28
        (40, 1.1, 8, 48),  # 44, halfway
        (10, 1.1, 8, 16),  # 11 is nearer to 8, but 8 < 9.9
        (40, 1.0, 9, 36),  # 36 is exactly 0.9 * 40, which is not below it
        (41, 1.0, 9, 45),  # 36 < 0.9 * 41 = 36.9, hence one more than the nearest, which is 45 anyway
        (39, 1.0, 9, 36),
        (1, 1.0, 8, 8),  # never less than the divisor
        (16, 0.25, 8, 8),
        (1280, 2.2, 8, 2816),
        (320, 2.2, 8, 704),
        (13, 1.0, 1, 13),
        (13, 1.5, 1, 20),  # 19.5
    ],
)
def test_round_filters_by_hand(channels: int, width: float, divisor: int, expected: int) -> None:
    assert round_filters(channels, width, divisor) == expected
    assert type(round_filters(channels, width, divisor)) is int


def test_configs_round_with_their_own_settings() -> None:
    config = EfficientNetConfig.for_variant("efficientnet-b4")
    assert [config.round_filters(c) for c in (32, 320, 1280)] == [48, 448, 1792]
    assert [config.round_repeats(r) for r in (1, 2, 3, 4)] == [2, 4, 6, 8]
    assert tiny.config(NET).round_filters(1) == 4


@pytest.mark.parametrize(
    ("repeats", "depth", "expected"), [(1, 1.0, 1), (3, 1.1, 4), (4, 2.2, 9), (4, 3.1, 13), (4, 0.5, 2), (1, 0.1, 1)]
)
def test_repeats_are_rounded_up(repeats: int, depth: float, expected: int) -> None:
    assert round_repeats(repeats, depth) == expected


# --- paddings --------------------------------------------------------------------------------------------------------

# TensorFlow's SAME at stride 2, worked out: an even side n has n/2 windows, the last of which begins at n - 2 and ends
# at n - 2 + k, so k - 2 pixels are needed; an odd side has (n + 1)/2, the last from n - 1 to n - 1 + k: k - 1 pixels.
# The odd pixel goes after.
ONE_SIDED = {3: (0, 1), 5: (1, 2), 7: (2, 3)}
BOTH_SIDES = {3: (1, 1), 5: (2, 2), 7: (3, 3)}


@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("height", [6, 9, 56])
@pytest.mark.parametrize("width", [7, 8, 225])
def test_pads_by_hand(kernel: int, height: int, width: int) -> None:
    one, both = ONE_SIDED[kernel], BOTH_SIDES[kernel]
    assert EfficientNetPadding("hf-static", kernel).pads(height, width) == (one, one)
    assert EfficientNetPadding("hf-static", kernel, odd_input=True).pads(height, width) == (both, both)
    for odd_input in (False, True):  # of no effect
        assert EfficientNetPadding("symmetric", kernel, odd_input).pads(height, width) == (both, both)
        same = EfficientNetPadding("tf-same-dynamic", kernel, odd_input).pads(height, width)
        assert same == (both if height % 2 else one, both if width % 2 else one)


def test_pads_are_zeros_around_the_picture() -> None:
    x = np.arange(1.0, 7).reshape(1, 1, 2, 3)
    padded = EfficientNetPadding("tf-same-dynamic", 3)(x)[0, 0]  # even height, odd width
    np.testing.assert_array_equal(padded, [[0, 1, 2, 3, 0], [0, 4, 5, 6, 0], [0, 0, 0, 0, 0]])
    padded = EfficientNetPadding("hf-static", 5)(x)[0, 0]
    expected = np.zeros((5, 6))
    expected[1:3, 1:4] = x[0, 0]
    np.testing.assert_array_equal(padded, expected)


def strided_pads(config: EfficientNetConfig, side: int) -> list[Any]:
    """The pads of the stem and of every block of stride 2, for a square picture on its way through the network."""
    strided = [block for block in block_shapes(config) if block.stride == 2]
    steps = [(3, False), *((block.kernel_size, block.number in config.depthwise_padding) for block in strided)]
    pads = []
    for kernel, odd_input in steps:
        pads.append(EfficientNetPadding(config.padding, kernel, odd_input).pads(side, side))
        side = ops.window.output_size(side, kernel, 2, pads[-1][0], 1)
    return pads


def pads_of(name: str, side: int) -> tuple[Any, Any]:
    """Return the pads of "hf-static", as the variant is published, and of "tf-same-dynamic"."""
    static, dynamic = (EfficientNetConfig.for_variant(name, padding=mode) for mode in ("hf-static", "tf-same-dynamic"))
    assert len(strided_pads(static, side)) == 5
    return strided_pads(static, side), strided_pads(dynamic, side)


def test_the_config_reaches_every_padding() -> None:
    model = tiny.model(BARE_NET, padding="tf-same-dynamic", depthwise_padding=[3, 8, 99])
    stem, *blocks = [module for _, module in model.named_modules() if isinstance(module, EfficientNetPadding)]
    assert {padding.mode for padding in (stem, *blocks)} == {"tf-same-dynamic"}
    assert [padding.kernel_size for padding in (stem, *blocks)] == [3, 3, 3, 5, 3, 3, 5, 5, 5, 5, 3]
    assert [number for number, padding in enumerate(blocks) if padding.odd_input] == [3, 8]
    assert not stem.odd_input


@pytest.mark.parametrize("name", VARIANTS)
def test_static_padding_is_tensorflows_at_the_nominal_size_alone(name: str) -> None:
    static, dynamic = pads_of(name, VARIANTS[name].resolution)
    assert static == dynamic
    static, dynamic = pads_of(name, VARIANTS[name].resolution - 1)  # an odd side: the static stem does not adapt
    assert static[0] != dynamic[0]


@pytest.mark.parametrize(
    ("name", "side", "same"),
    [
        ("efficientnet-b0", 256, True),  # 128, 64, 32, 16: even as 112, 56, 28, 14 are
        ("efficientnet-b0", 240, False),
        ("efficientnet-b1", 224, False),
        ("efficientnet-b1", 256, False),
        ("efficientnet-b2", 288, False),
        ("efficientnet-b3", 320, False),
    ],
)
def test_static_padding_at_other_sizes_depends_on_which_maps_are_odd(name: str, side: int, same: bool) -> None:
    static, dynamic = pads_of(name, side)
    assert (static == dynamic) is same
    assert strided_pads(EfficientNetConfig.for_variant(name, image_size=side), side) == dynamic  # made for that size


def test_b7_ends_in_19_pixels_not_in_the_7_that_its_page_shows() -> None:
    side, pads = 600, strided_pads(EfficientNetConfig.for_variant("efficientnet-b7"), 600)
    for kernel, (vertical, _) in zip((3, 3, 5, 3, 5), pads, strict=True):
        side = ops.window.output_size(side, kernel, 2, vertical, 1)
    assert (side, EfficientNetConfig().hidden_dim) == (19, 2560)


def test_paddings_differ_in_what_they_compute() -> None:
    x = tiny.pictures(height=60)  # 30, then 15 rows: odd at block 2
    logits = {
        padding: tiny.model(NET, padding=padding, image_size=60)(x).logits
        for padding in ("hf-static", "tf-same-dynamic", "symmetric")
    }
    listed = tiny.model(NET, depthwise_padding=[1, 2, 3, 8])(x).logits
    for first, second in itertools.combinations([*logits.values(), listed], 2):
        assert np.abs(first - second).max() > 1e-2
    square = tiny.pictures()  # 64 pixels are even at every step
    static, dynamic = (tiny.model(NET, padding=p)(square).logits for p in ("hf-static", "tf-same-dynamic"))
    np.testing.assert_array_equal(static, dynamic)


# --- squeeze-and-excitation ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("act", ["swish", "relu"])
@pytest.mark.parametrize(("in_channels", "channels", "ratio", "squeezed"), [(9, 27, 0.25, 2), (5, 5, 0.1, 1)])
def test_squeeze_and_excitation_is_the_op(
    act: str, in_channels: int, channels: int, ratio: float, squeezed: int
) -> None:
    config = tiny.config(NET, squeeze_expansion_ratio=ratio, hidden_act=act)
    layer = EfficientNetSqueezeExciteLayer(config, in_channels, channels).astype(np.float64)
    generator = np.random.default_rng(1)
    layer.load_state_dict({name: generator.standard_normal(a.shape) for name, a in layer.state_dict().items()})
    x = generator.standard_normal((2, channels, 5, 7))
    arrays = (layer.reduce.weight, layer.reduce.bias, layer.expand.weight, layer.expand.bias)
    assert layer.reduce.weight.shape == (squeezed, channels, 1, 1)
    np.testing.assert_allclose(layer(x), ops.squeeze_excite(x, *arrays, ops.ACT2FN[act]), rtol=1e-13)


def test_the_poolers_are_the_stock_layers() -> None:
    for pooling_type, kind in (("mean", AdaptiveAvgPool2d), ("max", AdaptiveMaxPool2d)):
        assert type(tiny.model(BARE_NET, pooling_type=pooling_type).pooler) is kind
