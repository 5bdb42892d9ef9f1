"""The three models' behaviour: outputs, losses, refused inputs, seeds, saving and loading."""

from __future__ import annotations

import itertools
import json
import math
import mmap
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from npformer import (
    EfficientFormerConfig,
    EfficientFormerForImageClassification,
    EfficientFormerForImageClassificationWithTeacher,
    EfficientFormerModel,
    ops,
    record,
)
from npformer.checkpoint import read_tensors, write_tensors
from npformer.models import efficientformer
from tests import tiny
from tests.support import BARE, ONE_HEAD, TWO_HEADS, fill

B, N, D, K, HEADS = 2, 4, 10, 5, 2
HIDDEN_SHAPES = [
    (B, 4, 16, 16), (B, 4, 16, 16),  # the stem, stage 1
    (B, 6, 8, 8), (B, 6, 8, 8),  # downsampling, stage 2
    (B, 8, 4, 4), (B, 8, 4, 4),
    (B, 10, 2, 2), (B, N, D),  # downsampling, and the last stage, which ends in tokens
]  # fmt: skip
OWN_KEYS = {
    BARE: ["last_hidden_state"],
    ONE_HEAD: ["logits"],
    TWO_HEADS: ["logits", "cls_logits", "distillation_logits"],
}
SWITCHES = list(itertools.product([False, True], repeat=3))


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    return {name: tiny.model(name) for name in tiny.CLASSES}


# --- what comes out --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["argument", "config", "argument against config"])
@pytest.mark.parametrize(("hidden", "attentions", "as_dict"), SWITCHES)
@pytest.mark.parametrize("class_name", tiny.CLASSES)
def test_outputs_are_what_was_asked_for(
    class_name: str, hidden: bool, attentions: bool, as_dict: bool, by: str, models: dict[str, Any]
) -> None:
    asked = {"output_hidden_states": hidden, "output_attentions": attentions, "return_dict": as_dict}
    if by == "argument":
        output = models[class_name](tiny.pictures(), **asked)
    elif by == "config":
        output = tiny.model(class_name, **asked)(tiny.pictures())
    else:
        opposite = {name: not value for name, value in asked.items()}
        output = tiny.model(class_name, **opposite)(pixel_values=tiny.pictures(), **asked)
    keys = OWN_KEYS[class_name] + ["hidden_states"] * hidden + ["attentions"] * attentions
    if not as_dict:
        assert type(output) is tuple
        assert len(output) == len(keys)
        values = dict(zip(keys, output, strict=True))
    else:
        assert list(output.keys()) == list(output) == keys
        values = dict(output.items())
        for position, key in enumerate(keys):
            assert getattr(output, key) is output[key] is output[position] is output.to_tuple()[position]
    assert values[keys[0]].shape == ((B, N, D) if class_name == BARE else (B, K))
    assert [value.shape for value in values.get("hidden_states", ())] == HIDDEN_SHAPES * hidden
    assert [value.shape for value in values.get("attentions", ())] == [(B, HEADS, N, N)] * 2 * attentions


def test_fields_that_are_none_are_absent(models: dict[str, Any]) -> None:
    output = models[ONE_HEAD](tiny.pictures())
    assert (output.loss, output.hidden_states, output.attentions) == (None, None, None)
    assert (len(output), output.to_tuple(), list(output.values())) == (1, (output.logits,), [output.logits])
    assert "loss" not in output
    assert output.get("loss") is None
    assert output.get("loss", 3) == 3
    assert output[0:2] == output[:1] == (output.logits,)
    with pytest.raises(KeyError, match="loss"):
        output["loss"]
    with pytest.raises(IndexError):
        output[1]
    bare = models[BARE](tiny.pictures(), output_attentions=True)
    assert bare.pooler_output is None
    assert list(bare) == ["last_hidden_state", "attentions"]


def test_two_outputs_are_two_things(models: dict[str, Any]) -> None:
    for model in models.values():
        first, second = model(tiny.pictures()), model(tiny.pictures())
        assert first != second  # comparing arrays element by element would give no yes or no
        assert len({first, second, first}) == 2


def test_output_classes_are_those_of_the_documentation(models: dict[str, Any]) -> None:
    names = [type(models[name](tiny.pictures())).__name__ for name in tiny.CLASSES]
    assert names == [
        "BaseModelOutputWithPooling",
        "ImageClassifierOutput",
        "EfficientFormerForImageClassificationWithTeacherOutput",
    ]


def test_hidden_states_and_attentions_are_the_models_own_steps(models: dict[str, Any]) -> None:
    model = models[BARE]
    output = model(tiny.pictures(), output_hidden_states=True, output_attentions=True)
    trace = record(model, tiny.pictures())
    steps = ["patch_embed", *(f"encoder.intermediate_stages.{i}" for i in range(6)), "encoder.last_stage"]
    for step, state in zip(steps, output.hidden_states, strict=True):
        np.testing.assert_array_equal(state, trace[step])
    for block, attention in enumerate(output.attentions):
        name = f"encoder.last_stage.meta3D_layers.blocks.{block}.token_mixer:probs"
        np.testing.assert_array_equal(attention, trace[name])
        np.testing.assert_allclose(attention.sum(-1), 1, rtol=1e-5)
    np.testing.assert_array_equal(output.last_hidden_state, model.layernorm(output.hidden_states[-1]))


def test_the_heads_read_the_mean_of_all_tokens(models: dict[str, Any]) -> None:
    model = models[TWO_HEADS]
    pooled = model.efficientformer(tiny.pictures()).last_hidden_state.mean(1)
    output = model(tiny.pictures())
    for head, logits in (("classifier", output.cls_logits), ("distillation_classifier", output.distillation_logits)):
        weight, bias = getattr(model, head).weight, getattr(model, head).bias
        np.testing.assert_allclose(logits, pooled @ weight.T + bias, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(output.logits, (output.cls_logits + output.distillation_logits) / 2)
    assert not np.allclose(output.cls_logits, output.distillation_logits)


@pytest.mark.parametrize("batch", [0, 1, 3])
@pytest.mark.parametrize("class_name", tiny.CLASSES)
def test_any_number_of_pictures(class_name: str, batch: int, models: dict[str, Any]) -> None:
    model, x = models[class_name], tiny.pictures(3)
    output = model(x[:batch], output_hidden_states=True, output_attentions=True)
    assert len(output[0]) == batch
    assert {len(value) for value in (*output.hidden_states, *output.attentions)} == {batch}
    whole = model(x)[0]
    np.testing.assert_allclose(output[0], whole[:batch], rtol=1e-4, atol=1e-4)  # pictures do not see each other


@pytest.mark.parametrize("side", [49, 57, 63, 64])
def test_any_size_that_reaches_the_attention_as_its_grid(side: int, models: dict[str, Any]) -> None:
    assert models[BARE](tiny.pictures(1, height=side, width=113 - side)).last_hidden_state.shape == (1, N, D)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.longdouble, ">f4"])
def test_pictures_of_any_float_are_read_in_the_dtype_of_the_model(dtype: Any, models: dict[str, Any]) -> None:
    x = tiny.pictures().astype(dtype)
    output = models[TWO_HEADS](x, output_hidden_states=True)
    assert {value.dtype for value in (*output.to_tuple()[:3], *output.hidden_states)} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(output.logits, models[TWO_HEADS](x.astype(np.float32)).logits)
    assert models[BARE].astype(np.float64)(x)[0].dtype == np.float64


@pytest.mark.parametrize("layout", ["channels last", "every other pixel", "backwards"])
def test_views_of_any_layout_are_pictures(layout: str, models: dict[str, Any]) -> None:
    x = tiny.pictures()
    view = {
        "channels last": np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
        "every other pixel": x.repeat(2, -1)[..., ::2],
        "backwards": np.ascontiguousarray(x[..., ::-1])[..., ::-1],
    }[layout]
    assert not view.flags.c_contiguous
    np.testing.assert_allclose(models[ONE_HEAD](view).logits, models[ONE_HEAD](x).logits, rtol=1e-4, atol=1e-5)


def test_without_attention_blocks_every_picture_and_every_size_is_answered() -> None:
    """transformers 4.56 gives the first picture's result only, and its attentions are no attentions."""
    model = tiny.model(BARE, num_meta3d_blocks=0)
    x = tiny.pictures(3, height=40, width=100)
    output = model(x, output_hidden_states=True, output_attentions=True)
    assert output.last_hidden_state.shape == (3, 2 * 4, D)
    assert output.attentions == ()
    assert len(output.hidden_states) == 8
    for picture, tokens in zip(x, output.last_hidden_state, strict=True):
        np.testing.assert_allclose(model(picture[None])[0][0], tokens, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("class_name", [ONE_HEAD, TWO_HEADS])
def test_without_labels_the_pooled_tokens_come_out(class_name: str) -> None:
    model = tiny.model(class_name, num_labels=0)
    assert not [name for name in model.state_dict() if "classifier" in name]
    pooled = model.efficientformer(tiny.pictures()).last_hidden_state.mean(1)
    np.testing.assert_allclose(model(tiny.pictures()).logits, pooled, rtol=1e-5, atol=1e-6)


# --- losses ----------------------------------------------------------------------------------------------------------


def with_logits(logits: Any, **settings: Any) -> EfficientFormerForImageClassification:
    """A model that answers every picture with these logits."""
    model = tiny.model(num_labels=len(logits), **settings)
    model.classifier.weight = np.zeros_like(model.classifier.weight)
    model.classifier.bias = np.array(logits, np.float32)
    return model


LOGITS = [0.0, math.log(2), math.log(5)]  # softmax: 1/8, 2/8, 5/8; sigmoid: 1/2, 2/3, 5/6
CROSS_ENTROPY = (math.log(8) + math.log(8 / 5)) / 2  # of classes 0 and 2
YES_OR_NO = (2 * math.log(2) + 2 * math.log(3 / 2) + math.log(6 / 5) + math.log(6)) / 6  # of [0, 1, 1] and [1, 1, 0]
SQUARES = (1 + (math.log(2) - 3) ** 2 + math.log(5) ** 2) / 6 + (4 + math.log(2) ** 2 + (math.log(5) - 1) ** 2) / 6
LOSSES = [
    # logits, problem_type, labels, loss
    (LOGITS, None, np.array([0, 2]), CROSS_ENTROPY),
    (LOGITS, None, np.array([0, 2], np.int32), CROSS_ENTROPY),
    (LOGITS, None, np.array([0, 2], np.uint8), CROSS_ENTROPY),
    (LOGITS, None, np.array([[0], [2]]), CROSS_ENTROPY),
    (LOGITS, None, [0, 2], CROSS_ENTROPY),
    (LOGITS, None, (0, 2), CROSS_ENTROPY),
    (LOGITS, "single_label_classification", np.array([0, 2]), CROSS_ENTROPY),
    (LOGITS, None, np.array([0, -100]), math.log(8)),  # -100: not counted
    (LOGITS, None, np.array([[0.0, 1, 1], [1, 1, 0]]), YES_OR_NO),
    (LOGITS, None, np.array([[0, 1, 1], [1, 1, 0]], bool), YES_OR_NO),
    (LOGITS, None, [[0.0, 1.0, 1.0], [1.0, 1.0, 0.0]], YES_OR_NO),
    (LOGITS, "multi_label_classification", np.array([[0, 1, 1], [1, 1, 0]]), YES_OR_NO),
    (LOGITS, "regression", np.array([[1.0, 3, 0], [-2, 0, 1]]), SQUARES),
    (LOGITS, "regression", np.array([[1, 3, 0], [-2, 0, 1]]), SQUARES),
    ([0.5], None, np.array([1.0, 3.0]), (0.25 + 6.25) / 2),
    ([0.5], None, np.array([[1.0], [3.0]]), (0.25 + 6.25) / 2),
    ([0.5], None, np.array([1, 3]), (0.25 + 6.25) / 2),
    ([0.5], "regression", np.array([1.0, 3.0], np.float16), (0.25 + 6.25) / 2),
    ([0.0], "multi_label_classification", np.array([[1.0], [0.0]]), math.log(2)),
    ([7.0], "single_label_classification", np.array([0, 0]), 0.0),
]


@pytest.mark.parametrize(("logits", "problem_type", "labels", "expected"), LOSSES)
def test_losses_worked_out_by_hand(logits: Any, problem_type: str | None, labels: Any, expected: float) -> None:
    model = with_logits(logits, problem_type=problem_type)
    settings = model.config.to_dict()
    output = model(tiny.pictures(), labels=labels)
    assert output.loss.shape == ()
    assert output.loss.dtype == np.float32
    assert float(output.loss) == pytest.approx(expected, rel=1e-6)
    assert list(output) == ["loss", "logits"]
    assert output[0] is output.loss
    loss, answer = model(tiny.pictures(), labels, return_dict=False)
    assert loss == output.loss
    np.testing.assert_allclose(answer, [logits] * 2)
    assert model.config.to_dict() == settings  # transformers would have stored the problem_type it guessed


def test_the_kind_of_loss_is_decided_anew_for_every_call() -> None:
    model = with_logits(LOGITS)
    for labels, expected in [(np.array([0, 2]), CROSS_ENTROPY), (np.array([[0.0, 1, 1], [1, 1, 0]]), YES_OR_NO)] * 2:
        assert float(model(tiny.pictures(), labels=labels).loss) == pytest.approx(expected, rel=1e-6)


def test_no_labels_no_loss(models: dict[str, Any]) -> None:
    output = models[ONE_HEAD](tiny.pictures(), labels=None)
    assert output.loss is None
    assert list(output) == ["logits"]


def test_losses_are_computed_in_the_dtype_of_the_model() -> None:
    output = with_logits(LOGITS).astype(np.float64)(tiny.pictures(), labels=[0, 2])
    assert output.loss.dtype == np.float64


def test_labels_come_with_everything_else(models: dict[str, Any]) -> None:
    asked = {"output_hidden_states": True, "output_attentions": True}
    output = models[ONE_HEAD](tiny.pictures(), labels=[0, 1], **asked)
    assert list(output) == ["loss", "logits", "hidden_states", "attentions"]
    assert len(models[ONE_HEAD](tiny.pictures(), labels=[0, 1], return_dict=False, **asked)) == 4


@pytest.mark.parametrize(
    ("settings", "labels", "error", "sentence"),
    [
        ({}, [0, 5], IndexError, r"class numbers from 0 to 4 or -100, got \[0 5\]"),
        ({}, [0, -1], IndexError, r"class numbers from 0 to 4 or -100, got \[ 0 -1\]"),
        ({}, [0, 1, 2], ValueError, r"shape \(2,\) .*, got \(3,\)"),
        ({}, [0.0, 1.0], ValueError, r"shape \(2, 5\) .*, got \(2,\)"),
        ({"problem_type": "multi_label_classification"}, [0, 1], ValueError, r"shape \(2, 5\) .*, got \(2,\)"),
        ({"problem_type": "regression"}, [0.0, 1.0], ValueError, r"shape \(2, 5\) .*, got \(2,\)"),
        ({"num_labels": 1}, [0.0, 1.0, 2.0], ValueError, r"shape \(2,\) .*, got \(3,\)"),
        ({"num_labels": 0}, [0, 1], ValueError, r"shape \(2, 10\) .*, got \(2,\)"),
        ({}, ["cat", "dog"], ValueError, "could not convert string to float: .*cat"),
    ],
)
def test_labels_that_do_not_fit_are_refused(settings: Any, labels: Any, error: Any, sentence: str) -> None:
    with pytest.raises(error, match=f"^labels do not fit: .*{sentence}"):
        tiny.model(**settings)(tiny.pictures(), labels=labels)


def test_the_two_headed_model_takes_no_labels(models: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="labels"):
        models[TWO_HEADS](tiny.pictures(), labels=[0, 1])


# --- inputs that are refused -----------------------------------------------------------------------------------------

AN_ARRAY = 'a NumPy array, as an image processor returns it with return_tensors="np"'
FLOATS = "hold floats, as an image processor returns them"
FOUR_AXES = "have shape (B, 3, H, W), 3 being config.num_channels"


@pytest.mark.parametrize(
    ("pixel_values", "error", "sentence"),
    [
        (None, ValueError, "be given: an array (B, C, H, W), as an image processor returns it"),
        ([[[[0.0]]]], TypeError, f"be {AN_ARRAY}, got list"),
        ("picture.jpg", TypeError, f"be {AN_ARRAY}, got str"),
        (np.zeros((1, 3, 64, 64), np.uint8), TypeError, f"{FLOATS}, got dtype uint8"),
        (np.zeros((1, 3, 64, 64), bool), TypeError, f"{FLOATS}, got dtype bool"),
        (np.zeros((1, 3, 64, 64), complex), TypeError, f"{FLOATS}, got dtype complex128"),
        (np.zeros((3, 64, 64)), ValueError, f"{FOUR_AXES}, got (3, 64, 64)"),
        (np.zeros((1, 64, 64, 3)), ValueError, f"{FOUR_AXES}, got (1, 64, 64, 3)"),
        (np.zeros((1, 1, 64, 64)), ValueError, f"{FOUR_AXES}, got (1, 1, 64, 64)"),
        (np.zeros((1, 1, 3, 64, 64)), ValueError, f"{FOUR_AXES}, got (1, 1, 3, 64, 64)"),
    ],
)
@pytest.mark.parametrize("class_name", tiny.CLASSES)
def test_what_is_no_batch_of_pictures_is_refused(
    class_name: str, pixel_values: Any, error: Any, sentence: str, models: dict[str, Any]
) -> None:
    with pytest.raises(error, match=r"^pixel_values must ") as caught:
        models[class_name](pixel_values)
    assert str(caught.value) == f"pixel_values must {sentence}"


def test_a_call_without_pictures_is_refused(models: dict[str, Any]) -> None:
    for name in tiny.CLASSES:
        with pytest.raises(ValueError, match="pixel_values must be given"):
            models[name]()


@pytest.mark.parametrize(
    ("height", "width", "grid"), [(256, 256, "8x8"), (224, 225, "7x8"), (192, 224, "6x7"), (1, 1, "1x1")]
)
def test_pictures_of_the_wrong_size_are_refused_with_reason_and_remedy(height: int, width: int, grid: str) -> None:
    model = tiny.model(BARE, resolution=7)
    with pytest.raises(ValueError, match="pixel_values") as error:
        model(tiny.pictures(1, height=height, width=width))
    assert str(error.value) == (
        f"pixel_values of {height}x{width} reach the attention blocks as {grid} tokens, but their learned bias table "
        "is 7x7 (config.resolution), one entry per offset of two tokens; resize the pictures to 224x224, as the image "
        "processor does"
    )


def test_the_advised_size_is_one_that_works() -> None:
    model = tiny.model(BARE, resolution=3, image_size=224)  # image_size is of no effect, and here misleading
    with pytest.raises(ValueError, match="resize the pictures to 96x96"):
        model(tiny.pictures())
    assert model(tiny.pictures(1, height=96, width=96)).last_hidden_state.shape == (1, 9, D)


@pytest.mark.parametrize(("settings", "side"), [({}, 0), ({"downsample_pad": 0}, 20), ({"num_meta3d_blocks": 0}, 0)])
def test_pictures_that_are_too_small_are_refused(settings: dict[str, Any], side: int) -> None:
    with pytest.raises(ValueError, match=f"^pixel_values of 64x{side} are too small for this model: "):
        tiny.model(BARE, **settings)(tiny.pictures(1, width=side))


# --- fresh weights ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("class_name", tiny.CLASSES)
def test_the_same_seed_gives_the_same_weights(class_name: str) -> None:
    cls = getattr(efficientformer, class_name)
    first, again, other = (cls(tiny.config(), seed=seed) for seed in (1, 1, 2))
    assert tiny.state_bytes(first) == tiny.state_bytes(again)
    assert tiny.state_bytes(first) != tiny.state_bytes(other)
    assert tiny.state_bytes(cls(tiny.config())) != tiny.state_bytes(cls(tiny.config()))


def test_fresh_weights_are_those_the_config_describes() -> None:
    config = tiny.config(initializer_range=0.5, layer_scale_init_value=0.25, hidden_sizes=[4, 6, 8, 64], dim=64)
    state = EfficientFormerForImageClassificationWithTeacher(config, seed=0).state_dict()
    large = [array for name, array in state.items() if name.endswith("weight") and array.size > 1000]
    assert large
    assert all(abs(array.std() - 0.5) < 0.05 and abs(array.mean()) < 0.05 for array in large)
    for name, array in state.items():
        last = name.rsplit(".", 1)[-1]
        if last.startswith("layer_scale"):
            assert np.all(array == 0.25)
        elif last in ("bias", "running_mean", "attention_biases", "num_batches_tracked"):
            assert not array.any()
        elif last == "running_var" or array.ndim == 1:
            assert np.all(array == 1)
    assert {array.dtype for array in state.values()} == {np.dtype(np.float32), np.dtype(np.int64)}


def test_weights_left_out_are_zero_and_the_config_is_the_models() -> None:
    config = tiny.config()
    model = EfficientFormerModel(config, init_weights=False)
    assert model.config is config
    assert not model.patch_embed.convolution1.weight.any()


# --- saving and loading ----------------------------------------------------------------------------------------------


def map_of(array: Any) -> Any:
    while array is not None and not isinstance(array, mmap.mmap):
        array = array.obj if isinstance(array, memoryview) else getattr(array, "base", None)
    return array


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.mark.parametrize("class_name", tiny.CLASSES)
def test_a_model_survives_being_saved(class_name: str, models: dict[str, Any], tmp_path: Path) -> None:
    model = models[class_name]
    model.save_pretrained(str(tmp_path / "new" / "model"))
    assert files(tmp_path / "new" / "model") == ["config.json", "model.safetensors"]
    again = type(model).from_pretrained(tmp_path / "new" / "model")
    assert tiny.state_bytes(again) == tiny.state_bytes(model)
    np.testing.assert_array_equal(again(tiny.pictures())[0], model(tiny.pictures())[0])
    stored = json.loads((tmp_path / "new" / "model" / "config.json").read_text())
    assert stored["architectures"] == [class_name]
    assert stored["torch_dtype"] == "float32"
    assert model.config.architectures is None  # saving leaves the config alone
    assert {**again.config.to_dict(), "architectures": None} == {**model.config.to_dict(), "torch_dtype": "float32"}


def test_loaded_weights_stay_in_the_file(models: dict[str, Any], tmp_path: Path) -> None:
    models[ONE_HEAD].save_pretrained(tmp_path)
    model = EfficientFormerForImageClassification.from_pretrained(tmp_path)
    loaded = {name: array for name, array in model.state_dict().items() if "attention_bias_idxs" not in name}
    assert all(isinstance(map_of(array), mmap.mmap) for array in loaded.values())
    assert not any(array.flags.writeable for array in loaded.values())
    assert np.isfinite(model(tiny.pictures()).logits).all()


def test_a_large_model_is_saved_in_shards(models: dict[str, Any], tmp_path: Path) -> None:
    models[TWO_HEADS].save_pretrained(tmp_path, max_shard_size=8000)
    names = files(tmp_path)
    assert names[0] == "config.json"
    assert names[-1] == "model.safetensors.index.json"
    assert len(names) > 4
    shards = [read_tensors(tmp_path / name) for name in names[1:-1]]
    assert all(sum(array.nbytes for array in shard.values()) <= 8000 for shard in shards)
    again = EfficientFormerForImageClassificationWithTeacher.from_pretrained(tmp_path)
    assert tiny.state_bytes(again) == tiny.state_bytes(models[TWO_HEADS])
    again.save_pretrained(tmp_path)  # over the shards that it is mapped from
    assert files(tmp_path) == ["config.json", "model.safetensors"]
    last = EfficientFormerForImageClassificationWithTeacher.from_pretrained(tmp_path)
    assert tiny.state_bytes(last) == tiny.state_bytes(models[TWO_HEADS])
    last.save_pretrained(tmp_path, max_shard_size=8000)
    assert files(tmp_path) == names


def test_a_half_precision_file_is_widened_exactly(models: dict[str, Any], tmp_path: Path) -> None:
    half = models[ONE_HEAD].astype(np.float16)
    half.save_pretrained(tmp_path)
    assert read_tensors(tmp_path / "model.safetensors")["classifier.weight"].dtype == np.float16
    assert json.loads((tmp_path / "config.json").read_text())["torch_dtype"] == "float16"
    model = EfficientFormerForImageClassification.from_pretrained(tmp_path)
    assert model.dtype == np.float32
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, half.state_dict()[name])


@pytest.mark.parametrize("dtype", [np.float64, "float64", np.float16])
def test_a_model_is_loaded_in_the_dtype_asked_for(dtype: Any, models: dict[str, Any], tmp_path: Path) -> None:
    models[ONE_HEAD].save_pretrained(tmp_path)
    model = EfficientFormerForImageClassification.from_pretrained(tmp_path, dtype=dtype)
    assert model.dtype == np.dtype(dtype)
    expected = models[ONE_HEAD].astype(dtype)
    assert tiny.state_bytes(model) == tiny.state_bytes(expected)
    with pytest.raises(ValueError, match="dtype must be a float type"):
        EfficientFormerForImageClassification.from_pretrained(tmp_path, dtype=int)


def test_saving_again_says_the_dtype_of_the_new_file(models: dict[str, Any], tmp_path: Path) -> None:
    models[ONE_HEAD].save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    del settings["torch_dtype"]
    (tmp_path / "config.json").write_text(json.dumps({**settings, "dtype": "float16", "crop_pct": 0.9}))
    EfficientFormerForImageClassification.from_pretrained(tmp_path).save_pretrained(tmp_path / "again")
    again = json.loads((tmp_path / "again" / "config.json").read_text())
    assert again["torch_dtype"] == "float32"
    assert "dtype" not in again
    assert again["crop_pct"] == 0.9


def test_overrides_change_the_config_of_the_loaded_model(models: dict[str, Any], tmp_path: Path) -> None:
    models[ONE_HEAD].save_pretrained(tmp_path)
    names = dict(enumerate(["a", "b", "c", "d", "e"]))
    model = EfficientFormerForImageClassification.from_pretrained(
        tmp_path, output_attentions=True, layer_norm_eps=1.0, id2label=names, torch_dtype="float32"
    )
    assert len(model(tiny.pictures()).attentions) == 2
    assert model.config.id2label == names
    assert not np.allclose(model(tiny.pictures()).logits, models[ONE_HEAD](tiny.pictures()).logits)
    with pytest.raises(TypeError, match="overrides must be settings of EfficientFormerConfig, got 'output_attention'"):
        EfficientFormerForImageClassification.from_pretrained(tmp_path, output_attention=True)
    with pytest.raises(ValueError, match=r"classifier\.weight has shape \(5, 10\) instead of \(3, 10\)"):
        EfficientFormerForImageClassification.from_pretrained(tmp_path, num_labels=3)


@pytest.mark.parametrize("class_name", [ONE_HEAD, TWO_HEADS])
def test_the_bare_model_loads_from_a_classifiers_checkpoint(
    class_name: str, models: dict[str, Any], tmp_path: Path
) -> None:
    models[class_name].save_pretrained(tmp_path)
    bare = EfficientFormerModel.from_pretrained(tmp_path)
    assert tiny.state_bytes(bare) == tiny.state_bytes(models[class_name].efficientformer)


def test_one_head_of_a_two_headed_checkpoint_is_used_with_a_warning(models: dict[str, Any], tmp_path: Path) -> None:
    models[TWO_HEADS].save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="does not use") as warned:
        model = EfficientFormerForImageClassification.from_pretrained(tmp_path)
    assert str(warned[0].message) == (
        "EfficientFormerForImageClassification does not use distillation_classifier.bias, "
        "distillation_classifier.weight of this checkpoint, so its logits differ from those of "
        "EfficientFormerForImageClassificationWithTeacher, which averages both heads"
    )
    assert warned[0].filename == __file__
    np.testing.assert_array_equal(model(tiny.pictures()).logits, models[TWO_HEADS](tiny.pictures()).cls_logits)


def test_a_missing_head_is_refused(models: dict[str, Any], tmp_path: Path) -> None:
    models[ONE_HEAD].save_pretrained(tmp_path / "one")
    models[BARE].save_pretrained(tmp_path / "none")
    with pytest.raises(ValueError, match="one: state does not fit") as error:
        EfficientFormerForImageClassificationWithTeacher.from_pretrained(tmp_path / "one")
    missing = "missing distillation_classifier.weight; missing distillation_classifier.bias"
    assert str(error.value).endswith(f"WithTeacher: {missing}")
    with pytest.raises(ValueError, match="none: state does not fit") as error:
        EfficientFormerForImageClassificationWithTeacher.from_pretrained(tmp_path / "none")
    assert str(error.value).endswith(f"WithTeacher: missing classifier.weight; missing classifier.bias; {missing}")


def test_a_bare_checkpoint_is_enough_where_there_are_no_labels(models: dict[str, Any], tmp_path: Path) -> None:
    models[BARE].save_pretrained(tmp_path)
    model = EfficientFormerForImageClassification.from_pretrained(tmp_path, num_labels=0)
    assert tiny.state_bytes(model.efficientformer) == tiny.state_bytes(models[BARE])


def test_weights_of_another_shape_are_all_listed(models: dict[str, Any], tmp_path: Path) -> None:
    models[ONE_HEAD].save_pretrained(tmp_path)
    state = dict(read_tensors(tmp_path / "model.safetensors"))
    state["classifier.bias"] = np.zeros(6, np.float32)
    state["head.weight"] = state.pop("classifier.weight")
    write_tensors(tmp_path / "model.safetensors", state)
    with pytest.raises(ValueError, match=tmp_path.name) as error:
        EfficientFormerForImageClassification.from_pretrained(tmp_path)
    assert str(error.value).split(": ", 2)[2].split("; ") == [
        "missing classifier.weight",
        "unexpected head.weight",
        "classifier.bias has shape (6,) instead of (5,)",
    ]


def test_a_file_without_tables_and_counters_is_enough(models: dict[str, Any], tmp_path: Path) -> None:
    models[ONE_HEAD].save_pretrained(tmp_path)
    state = read_tensors(tmp_path / "model.safetensors")
    learned = {name: array for name, array in state.items() if array.dtype == np.float32}
    assert len(learned) < len(state)
    write_tensors(tmp_path / "model.safetensors", learned)
    model = EfficientFormerForImageClassification.from_pretrained(tmp_path)
    assert tiny.state_bytes(model) == tiny.state_bytes(models[ONE_HEAD])


def test_a_damaged_directory_is_refused_by_name(models: dict[str, Any], tmp_path: Path) -> None:
    models[ONE_HEAD].save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(ValueError, match=r"model\.safetensors is not a safetensors file"):
        EfficientFormerForImageClassification.from_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="holds no weights"):
        EfficientFormerForImageClassification.from_pretrained(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"holds no config\.json"):
        EfficientFormerForImageClassification.from_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match="'nowhere' is neither a directory nor a shipped model"):
        EfficientFormerForImageClassification.from_pretrained("nowhere")


def test_saving_where_nothing_can_be_saved_is_refused(models: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError, match="file"):
        models[BARE].save_pretrained(tmp_path / "file")
    with pytest.raises(NotADirectoryError, match="file"):
        models[BARE].save_pretrained(tmp_path / "file" / "model")


@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="the superuser may write anywhere")
def test_saving_into_a_locked_folder_is_refused(models: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o555)
    with pytest.raises(PermissionError, match="locked"):
        models[BARE].save_pretrained(tmp_path / "locked")
    assert files(tmp_path / "locked") == []


@pytest.mark.parametrize("size", [0, -1, 1.5, "5GB", None])
def test_a_shard_size_is_a_number_of_bytes(size: Any, models: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"max_shard_size must be a whole number of bytes, got {size!r}"):
        models[BARE].save_pretrained(tmp_path / "model", max_shard_size=size)
    assert not (tmp_path / "model").exists()


def test_a_model_with_a_function_as_activation_is_not_half_saved(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="hidden_act must be a name to be saved"):
        tiny.model(BARE, hidden_act=ops.relu).save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_l1_has_its_published_size() -> None:
    config = EfficientFormerConfig(num_labels=1000)
    two, one = (
        cls(config, init_weights=False)
        for cls in (EfficientFormerForImageClassificationWithTeacher, EfficientFormerForImageClassification)
    )
    assert (two.num_parameters(), len(two.state_dict())) == (12_289_928, 281)
    assert one.num_parameters() == 11_840_928


def test_grey_pictures_and_other_heads_work_as_well() -> None:
    config = tiny.config(num_channels=1, pool_size=5, num_attention_heads=1, use_layer_scale=False, hidden_act="selu")
    model = fill(EfficientFormerForImageClassification(config), np.float32)
    assert model(tiny.pictures(channels=1)).logits.shape == (B, K)
    assert not [name for name in model.state_dict() if "layer_scale" in name]
