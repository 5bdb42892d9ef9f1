"""The three families' configs: the documented settings and defaults, labels, JSON, and what is refused."""

from __future__ import annotations

import inspect
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from npformer import (
    EfficientFormerConfig,
    EfficientFormerForImageClassificationWithTeacher,
    EfficientFormerModel,
    EfficientNetConfig,
    SwiftFormerConfig,
    ops,
)
from npformer.models.config import PROBLEM_TYPES
from npformer.models.efficientformer import VARIANTS, picture_side, token_grid
from npformer.models.efficientnet import PADDINGS
from tests import tiny
from tests.support import BARE_NET, BARE_SWIFT

DEFAULTS: dict[str, Any] = {
    "depths": [3, 2, 6, 4],
    "hidden_sizes": [48, 96, 224, 448],
    "downsamples": [True, True, True, True],
    "dim": 448,
    "key_dim": 32,
    "attention_ratio": 4,
    "resolution": 7,
    "num_hidden_layers": 5,
    "num_attention_heads": 8,
    "mlp_expansion_ratio": 4,
    "hidden_dropout_prob": 0.0,
    "patch_size": 16,
    "num_channels": 3,
    "pool_size": 3,
    "downsample_patch_size": 3,
    "downsample_stride": 2,
    "downsample_pad": 1,
    "drop_path_rate": 0.0,
    "num_meta3d_blocks": 1,
    "distillation": True,
    "use_layer_scale": True,
    "layer_scale_init_value": 1e-05,
    "hidden_act": "gelu",
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-12,
    "image_size": 224,
    "batch_norm_eps": 1e-05,
}
COMMON: dict[str, Any] = {
    "output_hidden_states": False,
    "output_attentions": False,
    "return_dict": True,
    "problem_type": None,
    "architectures": None,
    "id2label": {0: "LABEL_0", 1: "LABEL_1"},
    "label2id": {"LABEL_0": 0, "LABEL_1": 1},
    "hidden_size": 448,  # which transformers' two-headed class reads and its config class lacks
}
OTHERS = {
    "depths": [1, 3], "hidden_sizes": [16, 448], "downsamples": [False, True], "dim": 448, "key_dim": 8,
    "attention_ratio": 2, "resolution": 28, "num_hidden_layers": 6, "num_attention_heads": 4, "mlp_expansion_ratio": 3,
    "hidden_dropout_prob": 0.1, "patch_size": 8, "num_channels": 1, "pool_size": 5, "downsample_patch_size": 5,
    "downsample_stride": 3, "downsample_pad": 2, "drop_path_rate": 0.2, "num_meta3d_blocks": 2, "distillation": False,
    "use_layer_scale": False, "layer_scale_init_value": -0.5, "hidden_act": "relu", "initializer_range": 0.01,
    "layer_norm_eps": 1e-5, "image_size": 112, "batch_norm_eps": 1e-3,
}  # fmt: skip


# --- settings and defaults -------------------------------------------------------------------------------------------


def test_every_documented_setting_has_its_documented_default() -> None:
    config = EfficientFormerConfig()
    assert config.to_dict() == {**DEFAULTS, **COMMON, "model_type": "efficientformer"}
    assert config.num_labels == 2
    assert EfficientFormerConfig.model_type == config.model_type == "efficientformer"


def test_every_setting_can_be_given_by_name() -> None:
    assert OTHERS.keys() == DEFAULTS.keys()
    config = EfficientFormerConfig(**OTHERS)
    assert {name: getattr(config, name) for name in OTHERS} == OTHERS


def test_settings_can_be_given_in_the_documented_order() -> None:
    config = EfficientFormerConfig(*OTHERS.values())
    assert {name: getattr(config, name) for name in OTHERS} == OTHERS


def test_lists_are_the_configs_own() -> None:
    depths = [1, 1, 1, 1]
    config = EfficientFormerConfig(depths=depths)
    depths.append(2)
    assert config.depths == [1, 1, 1, 1]
    config.to_dict()["depths"].append(9)
    config.to_dict()["id2label"][7] = "seven"
    assert config.depths == EfficientFormerConfig(depths=(1, 1, 1, 1)).depths == [1, 1, 1, 1]
    assert EfficientFormerConfig().depths == [3, 2, 6, 4]
    assert config.num_labels == 2


def test_unknown_settings_are_kept() -> None:
    config = EfficientFormerConfig(crop_pct=0.9, input_size=[3, 224, 224], model_type="ignored")
    assert config.crop_pct == 0.9
    assert config.to_dict()["input_size"] == [3, 224, 224]
    assert config.model_type == "efficientformer"


@pytest.mark.parametrize("name", VARIANTS)
def test_published_variants(name: str) -> None:
    config = EfficientFormerConfig.for_variant(name, num_labels=7)
    assert config.depths == VARIANTS[name]["depths"]
    assert config.dim == config.hidden_sizes[-1] == VARIANTS[name]["hidden_sizes"][-1]
    assert config.num_labels == 7
    assert (token_grid(config, 224, 224), picture_side(config)) == ((7, 7), 224)
    with pytest.raises(ValueError, match=r"name must be one of efficientformer-l1, .*, got 'l2'"):
        EfficientFormerConfig.for_variant("l2")


def test_the_default_variant_is_l1() -> None:
    assert EfficientFormerConfig.for_variant("efficientformer-l1").to_dict() == EfficientFormerConfig().to_dict()


def test_a_default_config_is_enough_for_the_two_headed_model() -> None:
    """transformers 4.56 raises AttributeError here, for its config has no hidden_size."""
    model = EfficientFormerForImageClassificationWithTeacher(EfficientFormerConfig(), init_weights=False)
    assert model.classifier.weight.shape == model.distillation_classifier.weight.shape == (2, 448)
    assert tiny.config().hidden_size == 10


@pytest.mark.parametrize(
    ("settings", "height", "width", "grid", "largest"),
    [
        ({}, 224, 193, (7, 7), 224),
        ({}, 225, 192, (8, 6), 224),
        ({"resolution": 9}, 1, 2, (1, 1), 288),
        ({"downsample_patch_size": 5, "downsample_stride": 3, "downsample_pad": 0}, 1000, 500, (8, 3), 964),
        (
            {"hidden_sizes": [8, 8, 8, 448], "downsamples": [False, 0, True], "depths": [1, 1, 1, 1]},
            64,
            57,
            (8, 8),
            56,
        ),
    ],
)
def test_token_grid_and_the_picture_that_fits(
    settings: dict[str, Any], height: int, width: int, grid: tuple[int, int], largest: int
) -> None:
    config = EfficientFormerConfig(**settings)
    side = config.resolution
    assert token_grid(config, height, width) == grid
    assert picture_side(config) == largest
    assert token_grid(config, largest, largest) == (side, side)
    assert token_grid(config, largest + 1, largest + 1) == (side + 1, side + 1)


# --- labels ----------------------------------------------------------------------------------------------------------


def test_num_labels_names_the_labels() -> None:
    config = EfficientFormerConfig(num_labels=3)
    assert config.num_labels == 3
    assert config.id2label == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}
    assert config.label2id == {"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2}


def test_id2label_decides_num_labels_and_label2id() -> None:
    config = EfficientFormerConfig(id2label={0: "cat", 1: "dog", 2: "eel"})
    assert config.num_labels == 3
    assert config.label2id == {"cat": 0, "dog": 1, "eel": 2}
    assert EfficientFormerConfig(id2label={"1": "b", "0": "a"}, num_labels=2).id2label == {0: "a", 1: "b"}
    assert EfficientFormerConfig(id2label={0: "a"}, label2id={"a": "0", "alias": 0}).label2id == {"a": 0, "alias": 0}


@pytest.mark.parametrize("settings", [{"num_labels": 0}, {"id2label": {}}, {"num_labels": 0, "id2label": {}}])
def test_a_config_may_have_no_labels(settings: dict[str, Any]) -> None:
    config = EfficientFormerConfig(**settings)
    assert (config.num_labels, config.id2label, config.label2id) == (0, {}, {})


def test_setting_another_number_of_labels_renames_them() -> None:
    config = EfficientFormerConfig(id2label={0: "cat", 1: "dog"})
    config.num_labels = 2
    assert config.id2label == {0: "cat", 1: "dog"}
    config.num_labels = 3
    assert config.id2label == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}
    assert len(config.label2id) == 3
    with pytest.raises(ValueError, match="num_labels must be a whole number of at least 0, got -1"):
        config.num_labels = -1
    assert config.num_labels == 3


STORED = {"id2label": {"0": "cat", "1": "dog"}, "label2id": {"cat": 0, "dog": 1}}


@pytest.mark.parametrize(
    ("stored", "overrides", "labels"),
    [
        (STORED, {}, ["cat", "dog"]),
        (STORED, {"num_labels": 2}, ["cat", "dog"]),
        (STORED, {"num_labels": 1}, ["LABEL_0"]),
        (STORED, {"num_labels": 0}, []),
        (STORED, {"id2label": {0: "x", 1: "y", 2: "z"}}, ["x", "y", "z"]),
        ({**STORED, "num_labels": 2}, {"id2label": {0: "x"}}, ["x"]),
        ({**STORED, "num_labels": 2}, {"id2label": {0: "x"}, "num_labels": 1}, ["x"]),
        ({"num_labels": 2}, {"num_labels": 3}, ["LABEL_0", "LABEL_1", "LABEL_2"]),
        ({"num_labels": 3}, {"id2label": {0: "x"}}, ["x"]),
    ],
)
def test_overriding_labels_replaces_the_stored_ones(
    stored: dict[str, Any], overrides: dict[str, Any], labels: list[str]
) -> None:
    config = EfficientFormerConfig.from_dict(stored, **overrides)
    assert config.id2label == dict(enumerate(labels))
    assert config.label2id == {label: index for index, label in enumerate(labels)}


# --- JSON ------------------------------------------------------------------------------------------------------------


def test_a_config_survives_being_saved(tmp_path: Path) -> None:
    config = EfficientFormerConfig(
        **OTHERS, id2label={0: "Größe", 1: "名"}, crop_pct=0.9, output_attentions=True, problem_type="regression",
        architectures=["EfficientFormerModel"], return_dict=False, output_hidden_states=True,
    )  # fmt: skip
    config.save_pretrained(tmp_path / "new" / "folder")
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == ["config.json"]
    again = EfficientFormerConfig.from_pretrained(tmp_path / "new" / "folder")
    assert again.to_dict() == config.to_dict()
    assert EfficientFormerConfig.from_pretrained(str(tmp_path / "new" / "folder")).id2label == {0: "Größe", 1: "名"}
    assert json.loads(config.to_json_string()) == json.loads((tmp_path / "new" / "folder" / "config.json").read_text())


def test_numpy_numbers_are_numbers() -> None:
    config = EfficientFormerConfig(
        num_labels=np.int64(3), depths=[np.int32(1)] * 4, layer_norm_eps=np.float32(0.5), key_dim=np.uint8(4)
    )
    assert config.num_labels == 3
    stored = json.loads(config.to_json_string())
    assert (stored["depths"], stored["layer_norm_eps"], stored["key_dim"]) == ([1, 1, 1, 1], 0.5, 4)


def test_overrides_win_over_the_file(tmp_path: Path) -> None:
    tiny.config(crop_pct=0.9).save_pretrained(tmp_path)
    config = EfficientFormerConfig.from_pretrained(tmp_path, output_attentions=True, key_dim=5, crop_pct=1)
    assert (config.output_attentions, config.key_dim, config.crop_pct) == (True, 5, 1)
    assert config.hidden_sizes == tiny.SETTINGS["hidden_sizes"]


def test_a_config_of_another_family_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="model_type must be 'efficientformer' for EfficientFormerConfig, got 'vit'"):
        EfficientFormerConfig.from_dict({"model_type": "vit"})
    (tmp_path / "config.json").write_text('{"model_type": "swiftformer"}')
    with pytest.raises(ValueError, match="got 'swiftformer'"):
        EfficientFormerConfig.from_pretrained(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", "3", "null", '{"depths"', "[" * 100_000, "\ud83d"])
def test_a_damaged_file_is_refused_by_name(content: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(ValueError, match=r"config\.json") as error:
        EfficientFormerConfig.from_pretrained(tmp_path)
    assert "\n" not in str(error.value)


def test_a_missing_file_or_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"{tmp_path.name} holds no config.json"):
        EfficientFormerConfig.from_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match="'no-such-model' is neither a directory nor a shipped model"):
        EfficientFormerConfig.from_pretrained("no-such-model")


def test_a_function_as_activation_works_but_cannot_be_saved(tmp_path: Path) -> None:
    config = tiny.config(hidden_act=ops.relu)
    named = tiny.config(hidden_act="relu")
    ours, theirs = (EfficientFormerModel(c, seed=0)(tiny.pictures()) for c in (config, named))
    np.testing.assert_array_equal(ours.last_hidden_state, theirs.last_hidden_state)
    with pytest.raises(TypeError, match="hidden_act must be a name to be saved, got the function"):
        config.save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_what_json_cannot_hold_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"to be saved, got \{1, 2\}"):
        EfficientFormerConfig(extra={1, 2}).save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_repr_shows_class_and_settings() -> None:
    text = repr(EfficientFormerConfig(hidden_act=ops.relu))
    assert text.startswith("EfficientFormerConfig {")
    assert '"num_attention_heads": 8' in text
    assert "function relu" in text


# --- impossible values -----------------------------------------------------------------------------------------------

LIST = "a list with one entry per stage"
COUNT = "a whole number of at least 1"
PLUS = "a number of at least 0"
NAMES = "a mapping whose keys are the numbers 0 to 1"
NUMBERS = "a mapping from name to class number"
IMPOSSIBLE: list[tuple[dict[str, Any], str]] = [  # settings, the first of which is to blame; what is expected of it
    ({"depths": 4}, LIST),
    ({"depths": "1234"}, LIST),
    ({"depths": []}, "whole numbers >= 0"),
    ({"depths": [1, 1, 1, -1]}, "whole numbers >= 0"),
    ({"depths": [1, 1, 1, 1.0]}, "whole numbers >= 0"),
    ({"depths": [1, 1, 1, True]}, "whole numbers >= 0"),
    ({"hidden_sizes": None}, LIST),
    ({"hidden_sizes": [48, 448]}, "4 whole numbers >= 2, one per entry of depths"),
    ({"hidden_sizes": [1, 9, 9, 448]}, "4 whole numbers >= 2, one per entry of depths"),
    ({"hidden_sizes": [48, 448], "depths": [3, 2, 4]}, "3 whole numbers >= 2, one per entry of depths"),
    ({"downsamples": True}, LIST),
    ({"downsamples": [True, True]}, "at least 3 of True or False"),
    ({"downsamples": ["no", "no", "no"]}, "at least 3 of True or False"),
    ({"dim": 449}, "hidden_sizes[-1] = 448"),
    ({"dim": None}, "hidden_sizes[-1] = 448"),
    ({"hidden_size": 449}, "hidden_sizes[-1] = 448"),
    ({"key_dim": 0}, COUNT),
    ({"key_dim": 1.5}, COUNT),
    ({"num_attention_heads": -8}, COUNT),
    ({"num_attention_heads": True}, COUNT),
    ({"resolution": [7, 7]}, COUNT),
    ({"num_channels": 0}, COUNT),
    ({"downsample_patch_size": 0}, COUNT),
    ({"downsample_stride": 0}, COUNT),
    ({"downsample_pad": -1}, "a whole number of at least 0"),
    ({"image_size": "224"}, COUNT),
    ({"pool_size": 2}, "an odd whole number, so that pooling keeps the size"),
    ({"pool_size": 0}, "an odd whole number, so that pooling keeps the size"),
    ({"pool_size": 3.0}, "an odd whole number, so that pooling keeps the size"),
    ({"num_meta3d_blocks": 5}, "0 to 4, the depth of the last stage"),
    ({"num_meta3d_blocks": -1}, "0 to 4, the depth of the last stage"),
    ({"num_meta3d_blocks": None}, "0 to 4, the depth of the last stage"),
    ({"attention_ratio": 0}, "a number that makes at least one channel of 32"),
    ({"attention_ratio": "4"}, "a number that makes at least one channel of 32"),
    ({"mlp_expansion_ratio": 0.02}, "a number that makes at least one channel of 48"),
    ({"mlp_expansion_ratio": float("inf")}, "a number that makes at least one channel of 48"),
    ({"mlp_expansion_ratio": float("nan")}, "a number that makes at least one channel of 48"),
    ({"batch_norm_eps": -1e-5}, PLUS),
    ({"layer_norm_eps": None}, PLUS),
    ({"layer_norm_eps": True}, PLUS),
    ({"initializer_range": "0.02"}, PLUS),
    ({"drop_path_rate": -0.1}, PLUS),
    ({"hidden_dropout_prob": [0]}, PLUS),
    ({"layer_scale_init_value": "small"}, "a number"),
    ({"layer_scale_init_value": float("-inf")}, "a number"),
    ({"num_labels": -1}, "a whole number of at least 0"),
    ({"num_labels": 2.0}, "a whole number of at least 0"),
    ({"num_labels": 3, "id2label": {0: "a"}}, "1, the number of labels in id2label"),
    ({"id2label": ["cat", "dog"]}, "a mapping from class number to name"),
    ({"id2label": {"cat": 0, "dog": 1}}, NAMES),
    ({"id2label": {1: "a", 2: "b"}}, NAMES),
    ({"id2label": {0: "a", "0": "b"}}, NAMES),
    ({"label2id": ["a"], "id2label": {0: "a"}}, NUMBERS),
    ({"label2id": {"a": "a"}, "id2label": {0: "a"}}, NUMBERS),
    ({"problem_type": "ranking"}, f"one of {PROBLEM_TYPES}"),
    ({"problem_type": ["regression"]}, f"one of {PROBLEM_TYPES}"),
]


@pytest.mark.parametrize(("settings", "expected"), IMPOSSIBLE, ids=str)
def test_impossible_values_are_refused_with_name_value_and_expectation(
    settings: dict[str, Any], expected: str
) -> None:
    name, value = next(iter(settings.items()))
    with pytest.raises(ValueError, match=f"^{name} must be ") as error:
        EfficientFormerConfig(**settings)
    assert str(error.value) == f"{name} must be {expected}, got {value!r}"


@pytest.mark.parametrize("act", ["GELU", "", 3, ["gelu"], {"gelu": 1}])
def test_an_unknown_activation_is_refused_with_all_known_ones(act: Any) -> None:
    with pytest.raises(ValueError, match=r"hidden_act must be a function or one of gelu, gelu_new, .*, got ") as error:
        EfficientFormerConfig(hidden_act=act)
    assert all(name in str(error.value) for name in ("gelu", "relu", "selu", "gelu_new"))
    assert str(error.value).endswith(f"got {act!r}")


def test_a_pool_size_of_none_is_the_default() -> None:
    ours, theirs = (tiny.model("EfficientFormerModel", pool_size=size) for size in (None, 3))
    np.testing.assert_array_equal(ours(tiny.pictures())[0], theirs(tiny.pictures())[0])


def test_a_config_spoilt_later_is_refused_by_the_model() -> None:
    config = EfficientFormerConfig()
    config.dim = 10
    with pytest.raises(ValueError, match="dim must be"):
        EfficientFormerModel(config)
    with pytest.raises(TypeError, match="config must be EfficientFormerConfig, got dict"):
        EfficientFormerModel({"dim": 448})  # type: ignore[arg-type]


# --- EfficientNet and SwiftFormer ------------------------------------------------------------------------------------

NET_DEFAULTS: dict[str, Any] = {
    "num_channels": 3,
    "image_size": 600,
    "width_coefficient": 2.0,
    "depth_coefficient": 3.1,
    "depth_divisor": 8,
    "kernel_sizes": [3, 3, 5, 3, 5, 5, 3],
    "in_channels": [32, 16, 24, 40, 80, 112, 192],
    "out_channels": [16, 24, 40, 80, 112, 192, 320],
    "depthwise_padding": [],
    "strides": [1, 2, 2, 2, 1, 2, 1],
    "num_block_repeats": [1, 2, 2, 3, 3, 4, 1],
    "expand_ratios": [1, 6, 6, 6, 6, 6, 6],
    "squeeze_expansion_ratio": 0.25,
    "hidden_act": "swish",
    "hidden_dim": 2560,
    "pooling_type": "mean",
    "initializer_range": 0.02,
    "batch_norm_eps": 0.001,
    "batch_norm_momentum": 0.99,
    "dropout_rate": 0.5,
    "drop_connect_rate": 0.2,
}
NET_OTHERS = {
    "num_channels": 1, "image_size": 64, "width_coefficient": 0.5, "depth_coefficient": 1, "depth_divisor": 4,
    "kernel_sizes": [5, 7], "in_channels": [32, 20], "out_channels": [20, 36], "depthwise_padding": [1],
    "strides": [2, 1], "num_block_repeats": [2, 1], "expand_ratios": [3, 1], "squeeze_expansion_ratio": 0.5,
    "hidden_act": "relu", "hidden_dim": 640, "pooling_type": "max", "initializer_range": 0.5, "batch_norm_eps": 1e-5,
    "batch_norm_momentum": 0.1, "dropout_rate": 0.0, "drop_connect_rate": 0,
}  # fmt: skip
SWIFT_DEFAULTS: dict[str, Any] = {
    "image_size": 224,
    "num_channels": 3,
    "depths": [3, 3, 6, 4],
    "embed_dims": [48, 56, 112, 220],
    "mlp_ratio": 4,
    "downsamples": [True, True, True, True],
    "hidden_act": "gelu",
    "down_patch_size": 3,
    "down_stride": 2,
    "down_pad": 1,
    "drop_path_rate": 0.0,
    "drop_mlp_rate": 0.0,
    "drop_conv_encoder_rate": 0.0,
    "use_layer_scale": True,
    "layer_scale_init_value": 1e-05,
    "batch_norm_eps": 1e-05,
}
SWIFT_OTHERS = {
    "image_size": 64, "num_channels": 1, "depths": [1, 2], "embed_dims": [4, 6], "mlp_ratio": 2.5,
    "downsamples": [False], "hidden_act": "relu", "down_patch_size": [5, 3], "down_stride": 3, "down_pad": [2, 0],
    "drop_path_rate": 0.1, "drop_mlp_rate": 0.2, "drop_conv_encoder_rate": 0.3, "use_layer_scale": False,
    "layer_scale_init_value": -0.5, "batch_norm_eps": 1e-3,
}  # fmt: skip
NEWER = {  # class: documented defaults, other values for every setting, and settings that are our own
    EfficientNetConfig: (NET_DEFAULTS, NET_OTHERS, {"padding": "hf-static"}),
    SwiftFormerConfig: (SWIFT_DEFAULTS, SWIFT_OTHERS, {"attention_norm": "ones"}),
}


@pytest.mark.parametrize("cls", NEWER)
def test_documented_settings_and_defaults_in_their_order(cls: Any) -> None:
    defaults, _, own = NEWER[cls]
    given = {name: p.default for name, p in inspect.signature(cls).parameters.items() if name != "kwargs"}
    assert [(name, list(v) if isinstance(v, tuple) else v) for name, v in given.items()] == list(
        {**defaults, **own}.items()
    )
    common = {name: value for name, value in COMMON.items() if name != "hidden_size"}
    computed = {"num_hidden_layers": 64} if cls is EfficientNetConfig else {}
    expected = {**defaults, **own, **common, **computed, "model_type": cls.model_type}
    assert cls().to_dict() == expected
    assert cls.model_type == cls.__name__.removesuffix("Config").lower()


@pytest.mark.parametrize("cls", NEWER)
def test_every_setting_can_be_given_by_name_or_in_order(cls: Any) -> None:
    defaults, others, _ = NEWER[cls]
    assert others.keys() == defaults.keys()
    for config in (cls(**others), cls(*others.values())):
        assert {name: getattr(config, name) for name in others} == others


@pytest.mark.parametrize("cls", NEWER)
def test_newer_configs_survive_being_saved(cls: Any, tmp_path: Path) -> None:
    _, others, own = NEWER[cls]
    changed = {"padding": "symmetric"} if cls is EfficientNetConfig else {"attention_norm": "l2"}
    assert changed.keys() == own.keys()
    labels = {0: "Größe", 1: "名"}
    config = cls(**others, **changed, id2label=labels, output_hidden_states=True, problem_type="regression", top1=77.1)
    config.save_pretrained(tmp_path)
    again = cls.from_pretrained(tmp_path)
    assert again.to_dict() == config.to_dict()
    assert (again.id2label, again.top1) == (labels, 77.1)
    assert json.loads(config.to_json_string()) == json.loads((tmp_path / "config.json").read_text())
    assert (
        cls.from_pretrained(tmp_path, num_labels=3, **own).to_dict()
        == cls(
            **others, **own, num_labels=3, output_hidden_states=True, problem_type="regression", top1=77.1
        ).to_dict()
    )


@pytest.mark.parametrize("cls", NEWER)
def test_lists_of_newer_configs_are_their_own(cls: Any) -> None:
    defaults, _, _ = NEWER[cls]
    lists = {name: list(value) for name, value in defaults.items() if isinstance(value, list)}
    config = cls(**lists)
    for name, value in lists.items():
        value.append(1)
        config.to_dict()[name].append(1)
        assert getattr(config, name) == getattr(cls(**{name: tuple(defaults[name])}), name) == defaults[name]
        getattr(config, name).append(1)
    assert {name: getattr(cls(), name) for name in lists} == {name: defaults[name] for name in lists}


def test_settings_of_old_files_are_kept_and_of_no_effect() -> None:
    """Files of the first conversions hold keys that were renamed later."""
    net = EfficientNetConfig.from_dict({"model_type": "efficientnet", "pooling": "avg", "num_hidden_layers": 3})
    assert (net.pooling, net.pooling_type, net.num_hidden_layers) == ("avg", "mean", 64)
    assert json.loads(net.to_json_string())["pooling"] == "avg"
    swift = SwiftFormerConfig.from_dict({"layers": [1, 1, 1, 1], "act_layer": "relu", "vit_num": 1})
    assert (swift.depths, swift.hidden_act) == ([3, 3, 6, 4], "gelu")
    assert swift.to_dict()["vit_num"] == 1


@pytest.mark.parametrize("cls", NEWER)
def test_newer_configs_refuse_those_of_another_family(cls: Any) -> None:
    with pytest.raises(ValueError, match=f"model_type must be '{cls.model_type}' for {cls.__name__}, got 'vit'"):
        cls.from_dict({"model_type": "vit"})


def test_numpy_numbers_are_numbers_in_newer_configs() -> None:
    net = EfficientNetConfig(depthwise_padding=[np.int64(3)], batch_norm_eps=np.float32(0.5), image_size=np.int32(64))
    stored = json.loads(net.to_json_string())
    assert (stored["depthwise_padding"], stored["batch_norm_eps"], stored["image_size"]) == ([3], 0.5, 64)
    swift = SwiftFormerConfig(embed_dims=[np.int16(8)] * 4, down_patch_size=(np.int64(5), 3), mlp_ratio=np.float64(2))
    stored = json.loads(swift.to_json_string())
    assert (stored["embed_dims"], stored["down_patch_size"], stored["mlp_ratio"]) == ([8] * 4, [5, 3], 2)


@pytest.mark.parametrize("class_name", [BARE_NET, BARE_SWIFT])
def test_functions_as_activation_work_in_newer_models(class_name: str, tmp_path: Path) -> None:
    ours, named = (tiny.model(class_name, hidden_act=act) for act in (ops.relu, "relu"))
    np.testing.assert_array_equal(ours(tiny.pictures())[0], named(tiny.pictures())[0])
    with pytest.raises(TypeError, match="hidden_act must be a name to be saved, got the function"):
        ours.save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model").exists()


NAN, INF = math.nan, math.inf
WHOLES = "a list of whole numbers"
STAGES = "7 whole numbers >= 1, one per entry of kernel_sizes"
ODD = "odd whole numbers >= 3, one per stage"
ABOVE = "a number above 0"
BLOCKS = "a list of block numbers >= 0"
CHAIN = "[32, 16, 24, 40, 80, 112, 192], the stem's channels, then what each stage gives the next"
NET_IMPOSSIBLE: list[tuple[dict[str, Any], str]] = [
    *[({name: 3}, WHOLES) for name, value in NET_DEFAULTS.items() if isinstance(value, list)],
    ({"strides": "1222121"}, WHOLES),
    ({"depthwise_padding": None}, WHOLES),
    ({"kernel_sizes": np.full(7, 3)}, WHOLES),
    ({"kernel_sizes": []}, ODD),
    ({"kernel_sizes": [3, 3, 4, 3, 5, 5, 3]}, ODD),
    ({"kernel_sizes": [3, 3, 1, 3, 5, 5, 3]}, ODD),
    ({"kernel_sizes": [3, 3, 5.0, 3, 5, 5, 3]}, ODD),
    ({"kernel_sizes": [3, 3, [5, 5], 3, 5, 5, 3]}, ODD),
    ({"in_channels": [3] * 3}, STAGES),
    ({"out_channels": []}, STAGES),
    ({"out_channels": [16, 24, 40, 80, 112, 192, 0]}, STAGES),
    ({"num_block_repeats": [1, 2, 2, 3, 3, 4, 0]}, STAGES),
    ({"num_block_repeats": [1, 2, 2, 3, 3, 4, True]}, STAGES),
    ({"expand_ratios": [0, 6, 6, 6, 6, 6, 6]}, STAGES),
    ({"expand_ratios": [1.5, 6, 6, 6, 6, 6, 6]}, STAGES),
    ({"expand_ratios": [1, 6, 6, 6, 6, 6, 6, 6]}, STAGES),
    ({"strides": [1, 2, 2, 2, 1, 2]}, STAGES),
    ({"strides": [1, 2, 2, 2, 1, 2, 0]}, STAGES),
    ({"in_channels": [32, 16], "kernel_sizes": [3, 3, 3]}, STAGES.replace("7", "3")),
    ({"strides": [1, 2, 2, 3, 1, 2, 1]}, "1 or 2 for each stage"),
    ({"depthwise_padding": [5, -1]}, BLOCKS),
    ({"depthwise_padding": [True]}, BLOCKS),
    ({"depthwise_padding": ["5"]}, BLOCKS),
    ({"num_channels": 0}, COUNT),
    ({"num_channels": True}, COUNT),
    ({"image_size": 224.0}, COUNT),
    ({"image_size": (600, 600)}, COUNT),
    ({"depth_divisor": 0}, COUNT),
    ({"depth_divisor": None}, COUNT),
    ({"hidden_dim": -2560}, COUNT),
    ({"hidden_dim": True}, COUNT),
    ({"width_coefficient": 0}, ABOVE),
    ({"width_coefficient": NAN}, ABOVE),
    ({"width_coefficient": INF}, ABOVE),
    ({"depth_coefficient": -1.0}, ABOVE),
    ({"depth_coefficient": "3.1"}, ABOVE),
    ({"squeeze_expansion_ratio": 0.0}, ABOVE),
    ({"squeeze_expansion_ratio": True}, ABOVE),
    ({"batch_norm_eps": NAN}, PLUS),
    ({"batch_norm_eps": -1e-3}, PLUS),
    ({"batch_norm_eps": None}, PLUS),
    ({"initializer_range": -0.02}, PLUS),
    ({"batch_norm_momentum": "0.99"}, PLUS),
    ({"dropout_rate": -0.5}, PLUS),
    ({"drop_connect_rate": INF}, PLUS),
    ({"pooling_type": "avg"}, '"mean" or "max"'),
    ({"pooling_type": None}, '"mean" or "max"'),
    ({"padding": "same"}, f"one of {', '.join(PADDINGS)}"),
    ({"padding": ["symmetric"]}, f"one of {', '.join(PADDINGS)}"),
    ({"in_channels": [32, 16, 24, 40, 80, 112, 200]}, CHAIN),
    ({"in_channels": [16, 16, 24, 40, 80, 112, 192]}, CHAIN),
    ({"hidden_dim": 1280}, "2560, the last convolution's 1280 channels times width_coefficient, rounded"),
    (
        {"hidden_dim": 2560, "width_coefficient": 1.0},
        "1280, the last convolution's 1280 channels times width_coefficient, rounded",
    ),
    ({"num_labels": -1}, "a whole number of at least 0"),
    ({"problem_type": "ranking"}, f"one of {PROBLEM_TYPES}"),
]
DEPTHS, DIMS = "whole numbers >= 1", "4 whole numbers >= 2, one per entry of depths"
SWIFT_IMPOSSIBLE: list[tuple[dict[str, Any], str]] = [
    *[({name: value}, LIST) for name in ("depths", "embed_dims", "downsamples") for value in (4, "1234", None)],
    ({"depths": []}, DEPTHS),
    ({"depths": [3, 3, 6, 0]}, DEPTHS),
    ({"depths": [3, 3, 6, True]}, DEPTHS),
    ({"depths": [3, 3, 6, 4.0]}, DEPTHS),
    ({"embed_dims": [48, 56, 112]}, DIMS),
    ({"embed_dims": [1, 56, 112, 220]}, DIMS),
    ({"embed_dims": [48, 56, 112, "220"]}, DIMS),
    ({"embed_dims": [48, 56], "depths": [1, 1, 1]}, DIMS.replace("4", "3")),
    ({"downsamples": [True, True]}, "at least 3 of True or False"),
    ({"downsamples": [True, True, "no", True]}, "at least 3 of True or False"),
    ({"num_channels": 0}, COUNT),
    ({"num_channels": True}, COUNT),
    ({"image_size": "224"}, COUNT),
    ({"mlp_ratio": 0}, "a number that makes at least one channel of 48"),
    ({"mlp_ratio": NAN}, "a number that makes at least one channel of 48"),
    ({"mlp_ratio": 1 / 49, "embed_dims": [49, 98, 98, 98]}, "a number that makes at least one channel of 49"),
    ({"mlp_ratio": "4"}, "a number that makes at least one channel of 48"),
    ({"batch_norm_eps": NAN}, PLUS),
    ({"batch_norm_eps": -1e-5}, PLUS),
    ({"batch_norm_eps": True}, PLUS),
    ({"drop_path_rate": -0.1}, PLUS),
    ({"drop_mlp_rate": None}, PLUS),
    ({"drop_conv_encoder_rate": INF}, PLUS),
    ({"layer_scale_init_value": NAN}, "a number"),
    ({"layer_scale_init_value": "small"}, "a number"),
    ({"attention_norm": "softmax"}, '"ones" or "l2"'),
    ({"attention_norm": None}, '"ones" or "l2"'),
    ({"num_labels": 2.0}, "a whole number of at least 0"),
    ({"problem_type": "ranking"}, f"one of {PROBLEM_TYPES}"),
]


@pytest.mark.parametrize(
    ("cls", "settings", "expected"),
    [
        *((EfficientNetConfig, *row) for row in NET_IMPOSSIBLE),
        *((SwiftFormerConfig, *row) for row in SWIFT_IMPOSSIBLE),
    ],
    ids=str,
)
def test_newer_configs_refuse_impossible_values_with_name_value_and_expectation(
    cls: Any, settings: dict[str, Any], expected: str
) -> None:
    name, value = next(iter(settings.items()))
    with pytest.raises(ValueError, match=f"^{name} must be ") as error:
        cls(**settings)
    assert str(error.value) == f"{name} must be {expected}, got {value!r}"


@pytest.mark.parametrize("name", ["down_patch_size", "down_stride", "down_pad"])
def test_sizes_of_the_downsampling_are_one_whole_number_or_two(name: str) -> None:
    for value in ("3", 2.0, True, None, [3, 3, 3], [], [3, 1.5], {"height": 3}):
        with pytest.raises(TypeError, match=f"^{name} must be a whole number or two of them, got "):
            SwiftFormerConfig(**{name: value})
    least = 0 if name == "down_pad" else 1
    for value in (least - 1, [3, least - 1]):
        with pytest.raises(ValueError, match=f"^{name} must be at least {least}, got "):
            SwiftFormerConfig(**{name: value})
    assert getattr(SwiftFormerConfig(**{name: [3, least]}), name) == [3, least]


@pytest.mark.parametrize("cls", NEWER)
@pytest.mark.parametrize("act", ["SWISH", "", 3, ["gelu"]])
def test_newer_configs_refuse_an_unknown_activation(cls: Any, act: Any) -> None:
    with pytest.raises(
        ValueError, match=r"^hidden_act must be a function or one of gelu, .*, swish, .*, got "
    ) as error:
        cls(hidden_act=act)
    assert str(error.value).endswith(f"got {act!r}")
