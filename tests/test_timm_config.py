"""timm's config.json; tests/live/test_timm_config.py compares the pictures with timm's."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from npformer.checkpoint.sources.timm import ARCHITECTURES
from npformer.models.timm_config import TimmImageProcessor, is_timm_config, read_timm_config

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
INNER = {
    "tag": "snap_dist_in1k", "custom_load": False, "input_size": [3, 224, 224], "fixed_input_size": True,
    "interpolation": "bicubic", "crop_pct": 0.95, "crop_mode": "center", "mean": MEAN, "std": STD,
    "num_classes": 1000, "pool_size": None, "first_conv": "stem.conv1", "classifier": ["head", "head_dist"],
}  # fmt: skip
CONFIG = {
    "architecture": "efficientformer_l1", "num_classes": 1000, "num_features": 448, "global_pool": "avg",
    "pretrained_cfg": INNER,
}  # fmt: skip


def changed(outer: dict[str, Any] | None = None, **inner: Any) -> dict[str, Any]:
    return {**CONFIG, "pretrained_cfg": {**INNER, **inner}, **(outer or {})}


def test_a_config_as_the_hub_has_it() -> None:
    assert is_timm_config(CONFIG)
    found = read_timm_config(json.loads(json.dumps(CONFIG)))
    assert found[:5] == ("efficientformer_l1", 1000, None, 3, (224, 224))
    assert type(found.processor) is TimmImageProcessor
    settings = found.processor.to_dict()
    assert settings.pop("rescale_factor") == 1 / 255
    assert settings == {
        "do_resize": True, "size": {"shortest_edge": 235}, "resample": 3, "do_center_crop": True,
        "crop_size": {"height": 224, "width": 224}, "do_rescale": True, "do_normalize": True, "image_mean": MEAN,
        "image_std": STD, "image_processor_type": "TimmImageProcessor",
    }  # fmt: skip


def test_the_processor_can_be_stored() -> None:
    processor = read_timm_config(CONFIG).processor
    assert TimmImageProcessor.from_dict(json.loads(processor.to_json_string())).to_dict() == processor.to_dict()


@pytest.mark.parametrize(
    ("config", "is_timms"),
    [
        (CONFIG, True),
        ({**CONFIG, "model_type": "timm_wrapper"}, True),
        ({"architecture": "resnet50"}, True),
        ({"model_type": "efficientnet"}, False),
        ({"model_type": "efficientnet", "architecture": "b0"}, False),
        ({"architectures": ["EfficientNetModel"]}, False),
        ({}, False),
    ],
)
def test_whose_config_it_is(config: dict[str, Any], is_timms: bool) -> None:
    assert is_timm_config(config) is is_timms


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_is_known(name: str) -> None:
    assert read_timm_config(changed({"architecture": name})).architecture == name


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("tf_efficientnet_b0_ns", "tf_efficientnet_b0"),
        ("tf_efficientnet_b8_ap", "tf_efficientnet_b8"),
        ("efficientnet_b2a", "efficientnet_b2"),
        ("swiftformer_xs.dist_in1k", "swiftformer_xs"),
    ],
)
def test_old_names_and_names_with_a_tag(old: str, new: str) -> None:
    assert read_timm_config(changed({"architecture": old})).architecture == new


def test_the_oldest_files_have_one_level() -> None:
    config = {"architecture": "efficientnet_b0", **INNER, "num_classes": 2, "labels": ["cat", "dog"]}
    config.pop("crop_mode")
    found = read_timm_config(config)
    assert found[:5] == ("efficientnet_b0", 2, ["cat", "dog"], 3, (224, 224))
    assert found.processor.size == {"shortest_edge": 235}


def test_what_a_file_leaves_out_is_as_in_timm() -> None:
    found = read_timm_config({"architecture": "swiftformer_s", "pretrained_cfg": {}})
    assert found[:5] == ("swiftformer_s", 1000, None, 3, (224, 224))
    processor = found.processor
    assert (processor.size, processor.resample) == ({"shortest_edge": 256}, 3)  # 224 / 0.875
    assert (processor.image_mean, processor.image_std) == (MEAN, STD)


@pytest.mark.parametrize(
    ("inner", "test_size", "size", "crop"),
    [
        ({"input_size": [3, 288, 288], "crop_pct": 1.0}, False, {"shortest_edge": 288}, (288, 288)),
        ({"test_input_size": [3, 256, 256], "test_crop_pct": 1.0}, False, {"shortest_edge": 235}, (224, 224)),
        ({"test_input_size": [3, 256, 256], "test_crop_pct": 1.0}, True, {"shortest_edge": 256}, (256, 256)),
        ({"test_input_size": [3, 256, 256]}, True, {"shortest_edge": 269}, (256, 256)),
        ({"test_crop_pct": 1.0}, True, {"shortest_edge": 224}, (224, 224)),
        ({}, True, {"shortest_edge": 235}, (224, 224)),
        ({"crop_mode": "squash", "crop_pct": 1.0}, False, {"height": 224, "width": 224}, (224, 224)),
        ({"crop_mode": "squash", "input_size": [3, 96, 128]}, False, {"height": 101, "width": 134}, (96, 128)),
        ({"crop_mode": None, "crop_pct": 0}, False, {"shortest_edge": 256}, (224, 224)),
    ],
)
def test_sizes(inner: dict[str, Any], test_size: bool, size: dict[str, int], crop: tuple[int, int]) -> None:
    found = read_timm_config(changed(**inner), test_size=test_size)
    assert found.image_size == crop
    assert found.processor.size == size
    assert found.processor.crop_size == {"height": crop[0], "width": crop[1]}


@pytest.mark.parametrize(
    ("name", "number"), [("nearest", 0), ("lanczos", 1), ("bilinear", 2), ("bicubic", 3), ("box", 4), ("hamming", 5)]
)
def test_interpolations(name: str, number: int) -> None:
    assert read_timm_config(changed(interpolation=name)).processor.resample == number


@pytest.mark.parametrize(
    ("outer", "labels"),
    [
        ({"label_names": ["a", "b", "c"]}, ["a", "b", "c"]),
        ({"label_names": {"0": "a", "2": "c"}}, ["a", "LABEL_1", "c"]),
        (
            {"label_names": ["n01", "n02", "n03"], "label_descriptions": {"n01": "tench", "n03": "crane"}},
            ["tench", "n02", "crane"],
        ),
        ({"label_names": ["a", "a", "b"]}, ["a", "a", "b"]),
        ({"label_names": [0, 1, 2]}, ["0", "1", "2"]),
        ({"label_names": None}, None),
        ({"label_descriptions": {"a": "b"}}, None),
    ],
)
def test_labels(outer: dict[str, Any], labels: list[str] | None) -> None:
    assert read_timm_config(changed({"num_classes": 3, **outer})).labels == labels
    assert read_timm_config(changed({"num_classes": 3}, **outer)).labels == labels


def test_the_number_of_classes_outside_wins() -> None:
    assert read_timm_config(changed({"num_classes": 7})).num_labels == 7
    without = {name: value for name, value in changed(num_classes=5).items() if name != "num_classes"}
    assert read_timm_config(without).num_labels == 5
    assert read_timm_config(changed({"num_classes": 0})).num_labels == 0


def test_other_numbers_of_channels() -> None:
    assert read_timm_config(changed(input_size=[1, 224, 224])).num_channels == 1
    harmless = {"drop_rate": 0.1, "drop_path_rate": 0.2, "num_classes": 1000, "global_pool": "avg", "act_layer": None}
    assert read_timm_config(changed({"model_args": {"in_chans": 4, **harmless}})).num_channels == 4


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (changed({"architecture": "resnet50"}), "architecture must be an EfficientFormer, .* got 'resnet50'"),
        (changed({"architecture": "efficientformerv2_s0"}), "architecture must be"),
        (changed({"architecture": None}), "architecture must be"),
        ({}, "architecture must be .* got None"),
        (changed({"pretrained_cfg": []}), r"pretrained_cfg must be a mapping, got \[\]"),
        (changed({"num_classes": -1}), "num_classes must be a whole number"),
        (changed({"num_classes": True}), "num_classes must be a whole number"),
        (changed({"num_classes": "10"}), "num_classes must be a whole number"),
        (changed({"global_pool": "max"}), "global_pool must be 'avg', got 'max'"),
        (changed({"model_args": {"act_layer": "relu"}}), "model_args must be .* got {'act_layer': 'relu'}"),
        (changed({"model_args": {"global_pool": "max"}}), "global_pool must be 'avg', got 'max'"),
        (changed({"model_args": [1]}), "model_args must be a mapping"),
        (changed({"model_args": {"in_chans": "3"}}), "in_chans must be a whole number"),
        (changed(interpolation="random"), "interpolation must be one of nearest, .* got 'random'"),
        (changed(interpolation=["bicubic"]), "interpolation must be one of"),
        (changed(crop_mode="border"), "crop_mode must be one of center, squash, got 'border'"),
        (changed(crop_pct=-1), "crop_pct must be a number above 0, got -1"),
        (changed(crop_pct=float("inf")), "crop_pct must be a number above 0"),
        (changed(crop_pct=float("nan")), "crop_pct must be a number above 0"),
        (changed(crop_pct="0.9"), "crop_pct must be a number above 0"),
        (changed(input_size=[224, 224]), "input_size must be three whole numbers"),
        (changed(input_size=[3, 0, 224]), "input_size must be three whole numbers"),
        (changed(input_size=224), "input_size must be three whole numbers"),
        (changed(input_size=[3, 96, 128]), r"input_size must be a square .* got \(96, 128\)"),
        (changed({"num_classes": 2, "label_names": ["a"]}), "label_names must be the names of classes 0 to 1"),
        (changed({"num_classes": 2, "label_names": {"2": "a"}}), "label_names must be the names of classes 0 to 1"),
        (changed({"num_classes": 2, "label_names": {"x": "a"}}), "label_names must be the names of classes 0 to 1"),
        (changed({"label_names": "tench"}), "label_names must be a list, or a mapping"),
        (changed({"num_classes": 1, "label_names": ["a"], "label_descriptions": ["b"]}), "label_descriptions must be"),
    ],
)
def test_what_is_refused(config: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said) as error:
        read_timm_config(config)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 250


def test_means_of_the_wrong_type_are_refused() -> None:
    with pytest.raises(TypeError, match="image_mean is 'red'"):
        read_timm_config(changed(mean="red"))


# --- the crop --------------------------------------------------------------------------------------------------------


def rows_kept(length: int, wanted: int) -> list[int]:
    """Return the rows of a picture that a crop keeps, counted from 1; 0 is a row of padding."""
    picture = np.broadcast_to(np.arange(1, length + 1, dtype=np.uint8)[None, :, None], (3, length, wanted))
    processor = TimmImageProcessor(do_resize=False, do_rescale=False, do_normalize=False, crop_size=(wanted, wanted))
    cropped = processor(picture, return_tensors="np", input_data_format="channels_first")["pixel_values"][0]
    assert cropped.shape == (3, wanted, wanted)
    assert (cropped == cropped[:1, :, :1]).all()
    return [int(row) for row in cropped[0, :, 0]]


@pytest.mark.parametrize(
    ("length", "wanted", "rows"),
    [
        (8, 4, [3, 4, 5, 6]),
        (5, 4, [1, 2, 3, 4]),  # round(0.5) = 0
        (7, 4, [3, 4, 5, 6]),  # round(1.5) = 2, where rounding down keeps row 2
        (9, 4, [3, 4, 5, 6]),  # round(2.5) = 2
        (4, 4, [1, 2, 3, 4]),
        (3, 4, [1, 2, 3, 0]),
        (1, 4, [0, 1, 0, 0]),
    ],
)
def test_odd_pixels_go_to_the_even_side(length: int, wanted: int, rows: list[int]) -> None:
    assert rows_kept(length, wanted) == rows


def test_every_step_can_be_switched_off() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (3, 40, 50), np.uint8)
    processor = TimmImageProcessor(size={"shortest_edge": 20}, crop_size=15)
    off = dict.fromkeys(("do_resize", "do_center_crop", "do_rescale", "do_normalize"), False)
    assert np.array_equal(processor(picture, **off)["pixel_values"][0], picture)
    shapes = {
        flag: processor(picture, **{flag: False})["pixel_values"][0].shape for flag in ("do_resize", "do_center_crop")
    }
    assert shapes == {"do_resize": (3, 15, 15), "do_center_crop": (3, 20, 25)}
    assert processor(picture, **{**off, "do_rescale": True})["pixel_values"][0].max() <= 1
