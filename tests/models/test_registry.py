"""Models by name: every name builds what it says, and a wrong name is answered with the nearest right one."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

import npformer
from npformer import get_model, list_models, ops
from npformer.assets import shipped_models
from npformer.image import EfficientFormerImageProcessor, EfficientNetImageProcessor, ViTImageProcessor
from npformer.models.efficientnet import EfficientNetConfig, block_shapes
from npformer.models.registry import ALIASES, VARIANTS, find_variant, image_processor, model_config
from npformer.summary import summarize
from tests import tiny
from tests.sweep import sweep

PICTURE = np.random.default_rng(0).standard_normal((1, 3, 64, 64), np.float32)


def test_the_names() -> None:
    sizes = {"efficientformer": ["l1", "l3", "l7"], "swiftformer": ["xs", "s", "l1", "l3"]}
    sizes["efficientnet"] = [f"b{n}" for n in range(9)]
    assert sorted(VARIANTS) == sorted(f"{family}-{size}" for family in sizes for size in sizes[family])
    assert list_models() == [*VARIANTS, *shipped_models()]
    assert list_models("*NET-b[0-2]") == ["efficientnet-b0", "efficientnet-b1", "efficientnet-b2"]
    assert list_models("no such") == []
    assert "google/efficientnet-b7" not in list_models()
    for alias in (
        "efficientnet_b4", "tf_efficientnet_b8", "swiftformer_xs", "efficientformer_l7", "MBZUAI/swiftformer-l3",
        "google/efficientnet-b7", "snap-research/efficientformer-l1-300", "efficientformer-l3_3rdparty_8xb128_in1k",
    ):  # fmt: skip
        assert alias in list_models(aliases=True)
        assert list_models(alias, aliases=True) == [alias]


SMALL = ["efficientformer-l1", "efficientnet-b0", "efficientnet-b1", "swiftformer-xs", "swiftformer-s"]


@pytest.mark.parametrize("name", sweep(VARIANTS, SMALL))
def test_a_variant_is_the_published_one(name: str) -> None:
    variant = VARIANTS[name]
    model = get_model(name)
    assert type(model) is variant.architecture
    assert model.num_parameters() == variant.parameters
    assert (model.config.num_labels, model.config.image_size) == (1000, variant.image_size)


@pytest.mark.parametrize(
    "name",
    sweep(
        ["efficientformer-l1", "efficientformer-l3", "efficientnet-b0", "efficientnet-b1"],
        ["efficientformer-l1", "efficientnet-b0"],
    ),
)
def test_multiply_adds_are_counted_ones(name: str) -> None:
    size = VARIANTS[name].image_size
    assert summarize(get_model(name), size, size)[0].multiply_adds == VARIANTS[name].multiply_adds


@pytest.mark.parametrize("name", sweep([n for n in VARIANTS if n.startswith("swiftformer")], ["swiftformer-xs"]))
def test_multiply_adds_of_swiftformer(name: str) -> None:
    assert summarize(get_model(name), 224, 224)[0].multiply_adds == VARIANTS[name].multiply_adds


@pytest.mark.parametrize("name", [name for name in VARIANTS if name.startswith("efficientnet")])
def test_multiply_adds_of_efficientnet_by_formula(name: str) -> None:
    """Summed over the blocks instead of run, since B8 at 672 x 672 takes long; the squeezed vectors are 1 x 1."""
    config = EfficientNetConfig.for_variant(name, num_labels=1000)
    side = math.ceil(config.image_size / 2)
    stem = config.round_filters(32)
    total = 27 * stem * side**2
    for block in block_shapes(config):
        wide = block.in_channels * block.expand_ratio
        total += block.in_channels * wide * side**2 * (block.expand_ratio != 1)
        side = math.ceil(side / block.stride)
        total += wide * block.kernel_size**2 * side**2
        total += 2 * wide * (block.in_channels // 4)
        total += wide * block.out_channels * side**2
        last = block.out_channels
    total += last * config.hidden_dim * side**2 + config.hidden_dim * 1000
    assert total == VARIANTS[name].multiply_adds


@pytest.mark.parametrize(
    ("name", "variant", "settings"),
    [
        ("efficientnet_b0", "efficientnet-b0", {"padding": "symmetric", "batch_norm_eps": 1e-5}),
        ("timm/efficientnet_b0.ra_in1k", "efficientnet-b0", {"padding": "symmetric", "batch_norm_eps": 1e-5}),
        ("tf_efficientnet_b3.ns_jft_in1k", "efficientnet-b3", {"padding": "tf-same-dynamic", "batch_norm_eps": 1e-3}),
        ("google/efficientnet-b5", "efficientnet-b5", {"padding": "hf-static", "batch_norm_eps": 1e-3}),
        ("Swiftformer_XS", "swiftformer-xs", {"attention_norm": "l2"}),
        ("mbzuai/swiftformer-xs", "swiftformer-xs", {"attention_norm": "ones"}),
        ("efficientformer_l1.snap_dist_in1k", "efficientformer-l1", {"layer_norm_eps": 1e-5}),
        ("snap-research/efficientformer-l1-300", "efficientformer-l1", {"layer_norm_eps": 1e-12}),
        ("efficientformer-l1_3rdparty_8xb128_in1k", "efficientformer-l1", {"layer_norm_eps": 1e-5}),
    ],
)
def test_other_libraries_names_come_with_their_settings(name: str, variant: str, settings: dict) -> None:
    config, architecture = model_config(name)
    assert find_variant(name)[0] == variant
    assert architecture is VARIANTS[variant].architecture
    assert {key: getattr(config, key) for key in settings} == settings


def test_every_alias_leads_to_a_variant_and_its_settings_are_settings() -> None:
    for alias, (variant, settings) in ALIASES.items():
        assert find_variant(alias) == (variant, settings)
        assert set(settings) <= set(vars(model_config(variant)[0]))


def test_random_weights_are_repeatable_and_settings_can_be_replaced() -> None:
    first, again = (get_model("swiftformer-xs", seed=5, num_labels=4) for _ in range(2))
    np.testing.assert_array_equal(first(PICTURE).logits, again(PICTURE).logits)
    assert first(PICTURE).logits.shape == (1, 4)
    assert np.abs(first(PICTURE).logits - get_model("swiftformer-xs", seed=6, num_labels=4)(PICTURE).logits).max() > 0
    assert get_model("swiftformer-xs", dtype=np.float64).dtype == np.float64
    named = get_model("efficientnet-b0", id2label={0: "cat", 1: "dog"})
    assert named.config.id2label == {0: "cat", 1: "dog"}


def test_another_image_size_gives_efficientformer_another_bias_table() -> None:
    model = get_model("efficientformer-l1", image_size=256)
    assert model.config.resolution == 8
    assert model(np.zeros((1, 3, 256, 256), np.float32)).logits.shape == (1, 1000)
    assert get_model("efficientnet-b0", image_size=226).config.depthwise_padding == [1, 3, 5, 11]  # 113, 57, 29, 15


def test_shipped_models_and_directories(tmp_path: Path) -> None:
    for name in shipped_models():
        loaded, fresh = get_model(name, pretrained=True), get_model(name, seed=0)
        assert type(loaded) is type(fresh)
        assert loaded.config.id2label == fresh.config.id2label
        assert any((a != b).any() for a, b in zip(loaded.state_dict().values(), fresh.state_dict().values()))
    tiny.model().save_pretrained(tmp_path)
    assert get_model(tmp_path, pretrained=True, dtype="float64").dtype == np.float64
    expected = tiny.model()(tiny.pictures()).logits
    np.testing.assert_array_equal(get_model(str(tmp_path), True)(tiny.pictures()).logits, expected)
    weights = get_model("swiftformer-xs", seed=3, num_labels=2)
    weights.save_pretrained(tmp_path / "weights")
    again = get_model("swiftformer-xs", pretrained=tmp_path / "weights")
    np.testing.assert_array_equal(again(PICTURE).logits, weights(PICTURE).logits)
    timms = get_model("swiftformer_xs", pretrained=tmp_path / "weights")
    assert timms.config.attention_norm == "l2", "the name's settings go with any weights"


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("effcientnet-b0", "efficientnet-b0"),
        ("swiftformer-sx", "swiftformer-xs"),
        ("efficientformer-l2", "efficientformer-l"),
        ("l1", "efficientformer-l1 or swiftformer-l1"),
        ("b7", "efficientnet-b7"),
        ("efficientnet-fashoin", "efficientnet-fashion"),
        ("tf_efficientnet_b99", "tf_efficientnet_b"),
        ("zzz", "list_models"),
    ],
)
def test_a_misspelt_name_is_answered_with_the_nearest(name: str, nearest: str) -> None:
    if nearest == "efficientnet-fashion" and nearest not in shipped_models():
        pytest.skip("not shipped yet")
    for pretrained in (False, True):
        with pytest.raises(ValueError, match="is neither a known name nor a directory") as error:
            get_model(name, pretrained)
        assert nearest in str(error.value)
        assert name in str(error.value)
    with pytest.raises(ValueError, match="neither a known name"):
        image_processor(name)


def test_what_cannot_be_had_is_refused() -> None:
    with pytest.raises(ValueError, match="does not ship"):
        get_model("efficientnet-b0", pretrained=True)
    with pytest.raises(TypeError, match="settings of EfficientNetConfig, got 'widht'"):
        get_model("efficientnet-b0", widht=2)
    with pytest.raises(ValueError, match="padding must be one of"):
        get_model("efficientnet-b0", padding="valid")


def test_processors_prepare_pictures_at_the_variants_size() -> None:
    kinds = {
        "efficientformer-l1": (EfficientFormerImageProcessor, 224),
        "efficientnet-b4": (EfficientNetImageProcessor, 380),
        "swiftformer-s": (ViTImageProcessor, 224),
    }
    picture = np.random.default_rng(0).integers(0, 256, (50, 60, 3), np.uint8)
    mean, std = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    for name, (kind, side) in kinds.items():
        processor = image_processor(name)
        assert type(processor) is kind
        assert processor(picture, return_tensors="np")["pixel_values"].shape == (1, 3, side, side)
        small = image_processor(name, 50)(np.full((50, 50, 3), 128, np.uint8), return_tensors="np")["pixel_values"]
        expected = [(128 / 255 - m) / s for m, s in zip(mean, std)]
        np.testing.assert_allclose(small[0, :, 9, 9], expected, rtol=1e-5)


def test_the_names_are_public() -> None:
    for name in ("get_model", "list_models", "EfficientNetModel", "SwiftFormerModel", "EfficientNetImageProcessor"):
        assert name in npformer.__all__
    assert "adaptive_avg_pool2d" in ops.__all__
