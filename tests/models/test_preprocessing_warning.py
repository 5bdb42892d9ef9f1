"""The warning about unprepared pictures: its conditions, frequency and location."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

import npformer
from npformer import AutoImageProcessor, get_model, load_image, record
from npformer.assets import sample_pictures, shipped_models
from npformer.fast.threads import get_num_threads, set_num_threads
from npformer.image import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    BaseImageProcessor,
    EfficientFormerImageProcessor,
    EfficientNetImageProcessor,
    ViTImageProcessor,
)
from npformer.models.registry import PROCESSORS
from npformer.models.timm_config import TimmImageProcessor
from tests import tiny
from tests.support import BARE, BARE_NET, BARE_SWIFT, NET, ONE_HEAD, SWIFT, TWO_HEADS
from tests.sweep import sweep

CLASSES = [BARE, ONE_HEAD, TWO_HEADS, BARE_NET, NET, BARE_SWIFT, SWIFT]
FRACTIONS = np.random.default_rng(5).random((3, 3, 64, 64), np.float32)  # 0..1
LEVELS = FRACTIONS * 255
SAMPLES = [load_image(path) for path in sample_pictures()]


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = get_num_threads()
    set_num_threads(request.param)
    yield request.param
    set_num_threads(before)


def warned(call: Callable[..., Any], *inputs: Any) -> list[warnings.WarningMessage]:
    """Every warning of a call, repeated ones too."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call(*inputs)
    return caught


@pytest.mark.parametrize("class_name", CLASSES)
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("batch", sweep([1, 3], [3]))
def test_unprepared_pictures_warn_once_at_the_callers_line(
    class_name: str, fused: bool, batch: int, threads: int
) -> None:
    model = tiny.model(class_name)
    model = npformer.fuse(model) if fused else model
    for pictures, told in [
        (LEVELS, r"reach from 0\.\d+ to 255, as if they were neither rescaled to 0\.\.1 nor normalised"),
        (FRACTIONS, r"lie between 0 and 1 \(mean 0\.50\), as if they were not normalised"),
    ]:
        with pytest.warns(UserWarning, match=f"^pixel_values {told}; if that is not meant, let the model's image "):
            model(pictures[:batch])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            line = inspect.currentframe().f_lineno + 1  # type: ignore[union-attr]
            model(pictures[:batch])
        assert [(each.filename, each.lineno, each.category) for each in caught] == [(__file__, line, UserWarning)]
        assert "\n" not in str(caught[0].message)


@pytest.mark.parametrize("class_name", [ONE_HEAD, NET, SWIFT])
@pytest.mark.parametrize("fused", [False, True])
def test_every_way_into_a_model_warns_at_the_callers_line(class_name: str, fused: bool) -> None:
    model = tiny.model(class_name)
    model = npformer.fuse(model) if fused else model
    ways: list[Callable[[], Any]] = [
        lambda: model(LEVELS), lambda: model(pixel_values=LEVELS), lambda: model.extract_feat(LEVELS),
        lambda: model(LEVELS.astype(np.float64)), lambda: record(model, LEVELS),
    ]  # fmt: skip
    for way in ways:
        caught = [each for each in warned(way) if "the model is fused" not in str(each.message)]  # as `record` says
        assert [each.filename for each in caught] == [__file__]
        assert str(caught[0].message).startswith("pixel_values reach")


def test_a_call_after_one_that_failed_warns_still() -> None:
    model = npformer.fuse(tiny.model())
    for _ in range(2):
        with pytest.warns(UserWarning, match="between 0 and 1"), pytest.raises(ValueError, match="attention blocks"):
            model(np.concatenate([FRACTIONS, FRACTIONS], -1))  # twice as wide as its bias table allows
    assert len(warned(model, FRACTIONS)) == 1


def test_a_part_of_a_batch_does_not_count(threads: int) -> None:
    """Threads get some pictures each; among prepared ones a part may lie between 0 and 1."""
    model = npformer.fuse(tiny.model())
    batch = np.concatenate([np.concatenate([FRACTIONS] * 3), -FRACTIONS])
    assert warned(model, batch) == []


def test_not_normalised_though_negative_somewhere() -> None:
    """Normalised, but from 0..255: the values reach into the thousands."""
    wrong = (LEVELS - 0.45) / 0.225
    assert "neither rescaled" in str(warned(tiny.model(), wrong)[0].message)
    assert "neither rescaled" in str(warned(tiny.model(), -wrong)[0].message)


@pytest.mark.parametrize("class_name", [BARE, ONE_HEAD, NET, SWIFT])
@pytest.mark.parametrize("fused", [False, True])
def test_zeros_noise_and_empty_batches_do_not_warn(class_name: str, fused: bool) -> None:
    model = tiny.model(class_name)
    model = npformer.fuse(model) if fused else model
    for pictures in [
        np.zeros((2, 3, 64, 64), np.float32), np.zeros((0, 3, 64, 64), np.float32), tiny.pictures(),
        np.full((1, 3, 64, 64), np.nan, np.float32), np.full((1, 3, 64, 64), 1e-3, np.float32),
        0.05 + 2.5 * FRACTIONS, -FRACTIONS, 0.4 * FRACTIONS, 0.5 + FRACTIONS / 2,  # as of light, dark or dull pictures
    ]:  # fmt: skip
        with np.errstate(invalid="ignore"):
            assert warned(model, pictures) == []


# --- what image processors make --------------------------------------------------------------------------------------

HALVES: dict[str, Any] = {"image_mean": (0.5,) * 3, "image_std": (0.5,) * 3}
IMAGENET: dict[str, Any] = {"image_mean": IMAGENET_MEAN, "image_std": IMAGENET_STD}
SIZED: dict[str, Any] = {"size": 64}
# Every processor with every mean and deviation that checkpoints come with; EfficientNet's divides twice.
PREPARING: dict[str, BaseImageProcessor] = {
    "former": EfficientFormerImageProcessor(**SIZED, crop_size=64),
    "former-halves": EfficientFormerImageProcessor(**SIZED, crop_size=64, **HALVES),
    "former-black-border": EfficientFormerImageProcessor(size=32, crop_size=64),
    "timm": TimmImageProcessor(**SIZED, crop_size=64),
    "timm-halves": TimmImageProcessor(**SIZED, crop_size=64, **HALVES),
    "net": EfficientNetImageProcessor(**SIZED),
    "net-once": EfficientNetImageProcessor(**SIZED, include_top=False),
    "net-imagenet-twice": EfficientNetImageProcessor(**SIZED, **IMAGENET),
    "net-offset": EfficientNetImageProcessor(**SIZED, rescale_factor=1 / 127.5, rescale_offset=True),
    "net-offset-imagenet-twice": EfficientNetImageProcessor(
        **SIZED, rescale_factor=1 / 127.5, rescale_offset=True, **IMAGENET
    ),
    "vit": ViTImageProcessor(**SIZED),
    "vit-imagenet": ViTImageProcessor(**SIZED, **IMAGENET),
    **{f"registry-{family}": make(64) for family, make in PROCESSORS.items()},
}
RANDOM = np.random.default_rng(6)
PICTURES: dict[str, Image.Image] = {
    **{f"sample-{number}": picture for number, picture in enumerate(SAMPLES[::4])},
    "black": Image.new("RGB", (70, 60), "black"),
    "white": Image.new("RGB", (70, 60), "white"),
    "grey": Image.new("RGB", (70, 60), (160, 160, 160)),
    "half-black-half-white": Image.fromarray(np.repeat(np.uint8([0, 255]), 32)[None].repeat(64, 0)).convert("RGB"),
    "checks": Image.fromarray(np.uint8(np.indices((64, 64)).sum(0) % 2 * 255)).convert("RGB"),
    "noise": Image.fromarray(RANDOM.integers(0, 256, (64, 64, 3), np.uint8)),
    "dark": Image.fromarray(RANDOM.integers(0, 60, (64, 64, 3), np.uint8)),
    "light": Image.fromarray(RANDOM.integers(200, 256, (64, 64, 3), np.uint8)),
    "red": Image.new("RGB", (70, 60), "red"),
}


@pytest.mark.parametrize("how", PREPARING)
def test_prepared_pictures_never_warn(how: str) -> None:
    model = tiny.model(ONE_HEAD)
    for what, picture in PICTURES.items():
        pixel_values = PREPARING[how](picture, return_tensors="np")["pixel_values"]
        assert warned(model.check_pixel_values, pixel_values) == [], what


@pytest.mark.parametrize("name", shipped_models())
@pytest.mark.parametrize("fused", [False, True])
def test_shipped_pictures_and_models_never_warn_but_warn_unprepared(name: str, fused: bool) -> None:
    model = get_model(name, pretrained=True, fused=fused)
    processor = AutoImageProcessor.from_pretrained(name)
    assert warned(lambda: model(processor(SAMPLES[:6], return_tensors="np")["pixel_values"])) == []
    for picture in [*SAMPLES, *PICTURES.values()]:
        assert warned(model.check_pixel_values, processor(picture, return_tensors="np")["pixel_values"]) == []
    raw = processor(SAMPLES[:6], do_normalize=False, return_tensors="np", **without_top(processor))["pixel_values"]
    assert "between 0 and 1" in str(warned(model, raw)[0].message)
    assert "neither rescaled" in str(warned(model, raw * 255)[0].message)


def without_top(processor: BaseImageProcessor) -> dict[str, Any]:
    return {"include_top": False} if isinstance(processor, EfficientNetImageProcessor) else {}


def test_the_sentence_gives_the_mean() -> None:
    """The mean of a picture that was only rescaled is its brightness; another mistake gives an implausible mean."""
    pictures = np.linspace(0, 0.8, 64 * 64 * 3, dtype=np.float32).reshape(1, 3, 64, 64)
    assert "(mean 0.40)" in str(warned(tiny.model(), pictures)[0].message)
