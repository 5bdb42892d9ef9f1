"""Pictures prepared as timm's config.json says are, bit for bit, those that timm prepares for evaluation."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch")
if not all(importlib.util.find_spec(name) for name in ("timm", "torchvision")):
    pytest.skip("needs timm and torchvision", allow_module_level=True)

from npformer.checkpoint.sources.timm import ARCHITECTURES
from npformer.models.timm_config import read_timm_config
from tests.live import torchvision_shim

torchvision_shim.load()
import timm  # noqa: E402 - it imports torchvision
import torch  # noqa: E402
from timm.models._hub import save_config_for_hf  # noqa: E402

# (width, height): larger and smaller than what comes out, upright and not, odd and even
SHAPES = [(500, 375), (333, 500), (256, 256), (257, 311), (97, 140), (640, 41), (61, 60), (1, 7)]
SMALL = {"input_size": [3, 64, 64]}


def picture(size: tuple[int, int]) -> Image.Image:
    """Noise on a slope, so that both filters and places show."""
    width, height = size
    generator = np.random.default_rng(width * 1000 + height)
    slope = np.linspace(0, 150, width)[None, :, None] + np.linspace(0, 50, height)[:, None, None]
    return Image.fromarray((slope + generator.integers(0, 56, (height, width, 3))).astype(np.uint8))


def hub_config(architecture: str, inner: dict[str, Any]) -> dict[str, Any]:
    """A config.json as it is once it has been a file."""
    return json.loads(json.dumps({"architecture": architecture, "pretrained_cfg": inner}))


def assert_same(config: dict[str, Any], sizes: list[tuple[int, int]], test_size: bool = False) -> None:
    settings = timm.data.resolve_data_config(pretrained_cfg=config["pretrained_cfg"], use_test_size=test_size)
    theirs = timm.data.create_transform(**settings, is_training=False)
    found = read_timm_config(config, test_size=test_size)
    for size in sizes:
        source = picture(size)
        expected = theirs(source).numpy()
        ours = found.processor(source, return_tensors="np")["pixel_values"][0]
        assert ours.shape == expected.shape == (found.num_channels, *found.image_size)
        assert ours.dtype == expected.dtype
        assert ours.tobytes() == expected.tobytes(), f"{config} {size}: off by {np.abs(ours - expected).max()}"


PUBLISHED = [name for name in timm.list_pretrained() if name.partition(".")[0] in ARCHITECTURES]


def test_weights_of_every_family_are_published() -> None:
    assert {name.partition(".")[0] for name in PUBLISHED} >= set(ARCHITECTURES) - {
        "efficientnet_b6", "efficientnet_b7", "efficientnet_b8",
    }  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_all_published_weights(name: str) -> None:
    known = timm.get_pretrained_cfg(name)
    assert known is not None
    config = hub_config(name.partition(".")[0], known.to_dict())
    sizes = [(333, 500), (97, 140)]
    assert_same(config, sizes)
    if known.test_input_size or known.test_crop_pct:
        assert_same(config, sizes, test_size=True)
    found = read_timm_config(config)
    assert (found.architecture, found.num_labels) == (name.partition(".")[0], known.num_classes)


@pytest.mark.parametrize("crop_mode", ["center", "squash"])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "box", "hamming", "lanczos"])
def test_every_filter_and_crop(interpolation: str, crop_mode: str) -> None:
    for part in (0.95, 1.0):
        inner = {**SMALL, "interpolation": interpolation, "crop_mode": crop_mode, "crop_pct": part}
        assert_same(hub_config("efficientformer_l1", inner), SHAPES)


@pytest.mark.parametrize("side", range(60, 68))
@pytest.mark.parametrize("part", [0.5, 0.8, 0.875, 0.9, 0.954, 1.0, 1.3])  # with 1.3 the crop is larger than the rest
def test_every_remainder_of_the_crop(side: int, part: float) -> None:
    inner = {"input_size": [3, side, side], "crop_pct": part, "mean": [0.5, 0.4, 0.3], "std": [0.5, 0.25, 0.2]}
    assert_same(hub_config("efficientnet_b0", inner), SHAPES[:5])


def test_squashed_to_what_is_no_square() -> None:
    inner = {"input_size": [3, 64, 97], "crop_pct": 0.9, "crop_mode": "squash"}
    assert_same(hub_config("efficientnet_b0", inner), SHAPES)


def test_what_a_file_leaves_out() -> None:
    assert_same(hub_config("swiftformer_xs", {"num_classes": 10}), SHAPES[:4])


def test_a_file_that_timm_wrote(tmp_path: Path) -> None:
    with torch.device("meta"):
        model = timm.create_model("tf_efficientnet_b0.ap_in1k", num_classes=3, in_chans=3)
    labels = {"label_names": ["n01", "n02", "n03"], "label_descriptions": {"n01": "tench", "n03": "shark"}}
    save_config_for_hf(model, str(tmp_path / "config.json"), labels)
    config = json.loads((tmp_path / "config.json").read_text())
    found = read_timm_config(config)
    assert found[:5] == ("tf_efficientnet_b0", 3, ["tench", "n02", "shark"], 3, (224, 224))
    assert found.processor.image_mean == [0.5, 0.5, 0.5]
    assert_same(config, SHAPES[:2])
