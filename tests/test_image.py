"""The image processors with values worked out by hand; tests/live/test_image_parity.py compares with transformers."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from npformer.image import (
    BatchFeature,
    EfficientFormerImageProcessor,
    EfficientNetImageProcessor,
    ViTImageProcessor,
)

from .test_picture import damaged_file, noise

CLASSES = [EfficientFormerImageProcessor, EfficientNetImageProcessor, ViTImageProcessor]
EACH = pytest.mark.parametrize("cls", CLASSES)
PLAIN = {"do_resize": False, "do_rescale": False, "do_normalize": False}
PLAIN_EF = {**PLAIN, "do_center_crop": False}


# --- the processors --------------------------------------------------------------------------------------------------


def test_efficientformer_defaults() -> None:
    """Squash to 224 x 224, bicubic, ImageNet's statistics: a red picture in float32 arithmetic."""
    processor = EfficientFormerImageProcessor()
    assert (processor.size, processor.crop_size, processor.resample) == (
        {"height": 224, "width": 224},
        {"height": 224, "width": 224},
        3,
    )
    out = processor(Image.new("RGB", (30, 20), (255, 0, 51)), return_tensors="np")["pixel_values"]
    f = np.float32
    expected = [(f(1) - f(0.485)) / f(0.229), (f(0) - f(0.456)) / f(0.224), (f(51 / 255) - f(0.406)) / f(0.225)]
    assert out.shape == (1, 3, 224, 224)
    assert out.dtype == np.float32
    assert out.flags.c_contiguous
    assert np.all(out == np.array(expected)[:, None, None])


def test_vit_defaults() -> None:
    processor = ViTImageProcessor()
    assert (processor.size, processor.resample, processor.image_mean) == ({"height": 224, "width": 224}, 2, [0.5] * 3)
    out = processor(Image.new("RGB", (30, 20), (255, 0, 51)))["pixel_values"]
    assert isinstance(out, list)
    assert out[0].shape == (3, 224, 224)
    assert out[0][:, 7, 9].tolist() == [1.0, -1.0, float((np.float32(0.2) - np.float32(0.5)) / np.float32(0.5))]


def test_efficientnet_defaults() -> None:
    """Squash to 346 x 346, nearest, and the 0.5s twice: 0..1 becomes -1..1, then -2..2."""
    processor = EfficientNetImageProcessor()
    square = {"height": 346, "width": 346}
    assert (processor.size, processor.resample, processor.do_center_crop) == (square, 0, False)
    assert processor.crop_size == {"height": 289, "width": 289}
    assert (processor.rescale_factor, processor.rescale_offset, processor.include_top) == (1 / 255, False, True)
    assert processor.image_mean == processor.image_std == [0.5] * 3
    out = processor(Image.new("RGB", (30, 20), (255, 0, 51)), return_tensors="np")["pixel_values"]
    f = np.float32
    assert (out.shape, out.dtype) == ((1, 3, 346, 346), np.float32)
    assert np.all(out == np.array([2, -2, (f(0.2) - f(0.5)) / f(0.5) / f(0.5)], f)[:, None, None])


def test_efficientnet_arguments_stand_in_the_order_of_the_page() -> None:
    processor = EfficientNetImageProcessor(False, 9, 2, True, 8, 0.5, True, False, False, 0.1, 0.2, False)
    assert processor.to_dict() == {
        **{"do_resize": False, "size": {"height": 9, "width": 9}, "resample": 2, "do_center_crop": True},
        **{"crop_size": {"height": 8, "width": 8}, "rescale_factor": 0.5, "rescale_offset": True, "do_rescale": False},
        **{"do_normalize": False, "image_mean": 0.1, "image_std": 0.2, "include_top": False},
        "image_processor_type": "EfficientNetImageProcessor",
    }
    image = noise(3, 7, 7)
    by_position = processor.preprocess(
        image, True, 6, 0, True, 5, True, 0.25, True, True, [0, 1, 2], [1, 2, 4], True, "np", "channels_last"
    )
    by_name = EfficientNetImageProcessor(
        **{"size": 6, "do_center_crop": True, "crop_size": 5, "rescale_factor": 0.25, "rescale_offset": True},
        **{"image_mean": [0, 1, 2], "image_std": [1, 2, 4]},
    )(image)
    assert by_position.pixel_values.shape == (1, 5, 5, 3)
    assert np.array_equal(by_position.pixel_values[0].transpose(2, 0, 1), by_name.pixel_values[0])


def test_rescale_offset_comes_off_after_the_scale() -> None:
    """0, 64, 96 and 255 at 1/64 are 0, 1, 1.5 and 3.984375, less 1."""
    image = np.array([[[0, 64, 96, 255]]] * 3, np.uint8)
    processor = EfficientNetImageProcessor(do_resize=False, do_normalize=False, include_top=False, rescale_offset=True)
    assert processor(image, rescale_factor=1 / 64).pixel_values[0].tolist() == [[[-1, 0, 0.5, 2.984375]]] * 3
    assert processor(image, rescale_factor=1 / 127.5).pixel_values[0][0, 0, [0, 3]].tolist() == [-1, 1]
    assert processor(image).pixel_values[0][0, 0, [0, 3]].tolist() == [-1, 0]
    assert processor(image, rescale_offset=False, rescale_factor=1 / 64).pixel_values[0][0, 0, 2] == 1.5
    assert processor(image, do_rescale=False).pixel_values[0].tolist() == image.tolist()


def test_rescale_offset_comes_off_a_rounded_product() -> None:
    """128 / 127.5 = 1.0039 is rounded to float32 before the 1 comes off: a single rounding at the end keeps more."""
    settings = {"do_resize": False, "do_normalize": False, "include_top": False, "rescale_offset": True}
    out = EfficientNetImageProcessor(**settings)(np.full((3, 1, 2), 128, np.uint8), rescale_factor=1 / 127.5)
    assert out.pixel_values[0].dtype == np.float32
    twice, once = np.float32(128 / 127.5) - np.float32(1), np.float32(128 / 127.5 - 1)
    assert np.all(out.pixel_values[0] == twice)
    assert twice != once


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ({}, [3, 12, 0.1875]),  # 0.75 / 0.5 / 0.5, 0.75 / 0.25 / 0.25, 0.75 / 2 / 2
        ({"include_top": False}, [1.5, 3, 0.375]),
        ({"do_normalize": False}, [2, 4, 0.5]),  # the second division alone, 1 / 0.5 ...
        ({"do_normalize": False, "include_top": False}, [1, 1, 1]),
        ({"rescale_offset": True}, [-1, -4, -0.0625]),  # (1 - 1 - 0.25) / 0.5 / 0.5 ...
        ({"do_rescale": False, "do_normalize": False}, [256, 512, 64]),  # 128 / 0.5 ...
        ({"image_std": 0.5}, [3, 3, 3]),
    ],
)
def test_include_top_divides_by_the_deviation_once_more(call: dict[str, Any], expected: list[float]) -> None:
    settings = {"do_resize": False, "rescale_factor": 1 / 128, "image_mean": 0.25, "image_std": [0.5, 0.25, 2]}
    out = EfficientNetImageProcessor(**settings)(np.full((3, 1, 2), 128, np.uint8), **call).pixel_values[0]
    assert out.dtype == np.float32
    assert out.tolist() == [[[value] * 2] for value in expected]


def test_published_efficientnet_file_is_plain_imagenet_normalisation(tmp_path: Path) -> None:
    """google/efficientnet-b0's file, with no include_top in it: two divisions by sqrt(0.229) are one by 0.229."""
    settings = {
        **{"crop_size": {"height": 289, "width": 289}, "do_center_crop": False, "do_normalize": True},
        **{"do_rescale": True, "do_resize": True, "image_mean": [0.485, 0.456, 0.406]},
        **{"image_processor_type": "EfficientNetImageProcessor", "image_std": [0.47853944, 0.4732864, 0.47434163]},
        **{"resample": 0, "rescale_factor": 1 / 255, "rescale_offset": False, "size": {"height": 224, "width": 224}},
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    image = np.arange(3 * 224 * 224).astype(np.uint8).reshape(3, 224, 224)  # every level in every channel
    out = EfficientNetImageProcessor.from_pretrained(tmp_path)(image).pixel_values[0]
    mean, deviation = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[:, :, None, None]
    assert np.abs(out - (image / 255 - mean) / deviation).max() < 1e-6


@pytest.mark.parametrize(
    ("cls", "off", "expected"),
    [
        (EfficientFormerImageProcessor, {"do_center_crop": False}, [0, 53, 202, 255]),
        (EfficientNetImageProcessor, {"include_top": False}, [0, 0, 255, 255]),
        (ViTImageProcessor, {}, [0, 64, 191, 255]),
    ],
)
def test_default_filters(cls: Any, off: dict[str, Any], expected: list[int]) -> None:
    image = np.array([[[0, 255]] * 2] * 3, np.uint8)
    assert (
        cls(size=(2, 4), do_rescale=False, do_normalize=False, **off)(image).pixel_values[0][0].tolist()
        == [expected] * 2
    )


def test_shortest_edge_then_crop() -> None:
    """A 4 x 8 picture at shortest edge 4 stays as it is, and the crop takes columns 2..5."""
    image = np.broadcast_to(np.arange(8, dtype=np.uint8), (3, 4, 8))
    processor = EfficientFormerImageProcessor(size={"shortest_edge": 4}, crop_size=4, do_rescale=False)
    assert processor(image, do_normalize=False).pixel_values[0][1].tolist() == [[2, 3, 4, 5]] * 4


def test_every_form_of_a_batch_gives_the_same() -> None:
    batch = noise(2, 3, 9, 7)
    pictures = [Image.fromarray(np.moveaxis(image, 0, -1)) for image in batch]
    for cls in CLASSES:
        processor = cls(size=(6, 5))
        expected = processor(list(batch), return_tensors="np")["pixel_values"]
        forms = [
            batch,
            tuple(batch),
            pictures,
            [pictures[0], batch[1].transpose(1, 2, 0)],
            batch.transpose(0, 2, 3, 1),
        ]
        for images in forms:
            assert np.array_equal(processor(images, return_tensors="np").pixel_values, expected)


def test_output_layouts() -> None:
    image = noise(9, 7, 3)
    processor = EfficientFormerImageProcessor(**PLAIN_EF)
    first, last, same = (
        processor(image, data_format=layout).pixel_values[0] for layout in ("channels_first", "channels_last", None)
    )
    assert np.array_equal(first, image.transpose(2, 0, 1))
    assert np.array_equal(last, image)
    assert np.array_equal(same, image)
    assert np.array_equal(processor(first, data_format=None).pixel_values[0], first)


def test_input_layout_can_be_said() -> None:
    """A picture three pixels high is read sideways unless the layout is given."""
    image = noise(3, 7, 3)
    processor = EfficientFormerImageProcessor(**PLAIN_EF)
    out = processor(image, input_data_format="channels_last").pixel_values[0]
    assert np.array_equal(out, image.transpose(2, 0, 1))
    with pytest.warns(UserWarning, match="could both be the channels") as caught:
        assert np.array_equal(processor(image).pixel_values[0], image)
    assert caught[0].filename == __file__


def test_grey_with_channels_last() -> None:
    settings = {"image_mean": 0.5, "image_std": 0.5, "input_data_format": "channels_last"}
    out = ViTImageProcessor()(np.full((9, 7), 255, np.uint8), **settings)["pixel_values"][0]
    assert out.shape == (1, 224, 224)
    assert np.all(out == 1.0)


@EACH
def test_a_call_overrides_every_setting(cls: Any) -> None:
    image = noise(3, 12, 15)
    crops, tops = cls is not ViTImageProcessor, cls is EfficientNetImageProcessor
    for name, value in {
        **{"size": (5, 4), "resample": 1, "rescale_factor": 2.0, "image_mean": 0.1, "image_std": [2, 3, 4]},
        **{"do_resize": False, "do_rescale": False, "do_normalize": False},
        **({"do_center_crop": False, "crop_size": 6} if crops else {}),
        **({"rescale_offset": True, "include_top": False} if tops else {}),
    }.items():
        base: dict[str, Any] = {"size": (10, 11), "image_std": 0.5}
        if crops:
            base.update(do_center_crop=True, crop_size=8)
        called = cls(**base)(image, **{name: value}).pixel_values[0]
        built = cls(**{**base, name: value})(image).pixel_values[0]
        assert called.tobytes() == built.tobytes() != cls(**base)(image).pixel_values[0].tobytes(), name


def test_do_convert_rgb() -> None:
    processor = ViTImageProcessor(do_convert_rgb=True, **PLAIN)
    assert processor(Image.new("L", (4, 2), 9)).pixel_values[0].tolist() == [[[9] * 4] * 2] * 3
    with pytest.raises(ValueError, match="mode 'L'"):
        processor(Image.new("L", (4, 2), 9), do_convert_rgb=False)


def test_a_changed_attribute_counts() -> None:
    processor = ViTImageProcessor()
    processor.size = 32  # type: ignore[assignment]
    assert processor(noise(3, 9, 9)).pixel_values[0].shape == (3, 32, 32)


@EACH
def test_the_pictures_are_not_changed(cls: Any) -> None:
    image = noise(3, 9, 9).astype(np.float64)
    before = image.copy()
    for call in ({}, {"do_resize": False, "do_rescale": False}):
        cls()(image, **call)
        assert np.array_equal(image, before)


def test_the_processor_does_not_turn_by_exif(tmp_path: Path) -> None:
    """load_image does; a processor takes the picture as it is stored, as in transformers."""
    stored = noise(2, 3, 3)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(stored).save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as picture:
        out = EfficientFormerImageProcessor(**PLAIN_EF)(picture, input_data_format="channels_last").pixel_values[0]
    assert np.array_equal(out, stored.transpose(2, 0, 1))


@EACH
def test_warns_about_rescaled_pictures_at_the_callers_line(cls: Any) -> None:
    image = np.random.default_rng(0).random((3, 8, 8))
    for call in (cls().__call__, cls().preprocess):
        with pytest.warns(UserWarning, match="already between 0 and 1.*do_rescale=False") as caught:
            call(image)
        assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cls()(image, do_rescale=False)
        cls()(noise(3, 8, 8) % 2)  # a dark uint8 picture is no reason to warn


def test_warns_about_unknown_arguments() -> None:
    with pytest.warns(UserWarning, match="ViTImageProcessor does not know do_center_crop, crop_pct: ignored"):
        ViTImageProcessor()(noise(3, 8, 8), do_center_crop=True, crop_pct=1)


# --- refusals --------------------------------------------------------------------------------------------------------

GOOD = noise(3, 8, 8)
REFUSED: list[tuple[dict[str, Any], Any, type[Exception], str]] = [
    ({}, Image.new("L", (4, 5)), ValueError, r"images \(a Pillow picture of mode 'L'\) has 2 axes .*load_image"),
    ({}, Image.new("P", (4, 5)), ValueError, r"mode 'P'.*convert\(\"RGB\"\)"),
    ({}, [GOOD, Image.new("I;16", (4, 5))], ValueError, r"images\[1\] \(a Pillow picture of mode 'I;16'\)"),
    ({}, Image.new("RGBA", (4, 5)), ValueError, r"shape \(5, 4, 4\), where neither"),
    ({}, [GOOD, GOOD.T], ValueError, r"images\[1\]: the picture has 8 channels"),  # the first decides the layout
    ({}, np.zeros(3), ValueError, "images has 1 axes"),
    ({}, np.zeros((1, 1, 3, 4, 5)), ValueError, "images has 5 axes"),
    ({}, [], ValueError, "images is empty"),
    ({}, np.zeros((0, 3, 4, 4)), ValueError, "images is empty"),
    ({}, np.zeros((3, 0, 4)), ValueError, r"is empty \(shape \(3, 0, 4\)\)"),
    ({}, "cat.png", TypeError, r"images is 'cat.png' \(type str\).*load_image\(path\)"),
    ({}, [[1, 2]], TypeError, r"images\[0\] is \[1, 2\] \(type list\)"),
    ({}, np.float64(3), TypeError, "float64"),
    ({}, np.zeros((3, 4, 4), complex), TypeError, "complex128.*real numbers"),
    ({}, np.full((3, 4, 4), 300), ValueError, "images: the picture holds whole numbers from 300 to 300"),
    ({}, [GOOD, np.full((3, 4, 4), -1.5)], ValueError, r"images\[1\]: the picture holds fractions from -1.5"),
    ({"return_tensors": "pt"}, GOOD, ValueError, "return_tensors is 'pt', but npformer computes in NumPy"),
    ({"data_format": "none"}, GOOD, ValueError, "data_format is 'none'"),
    ({"input_data_format": "none"}, GOOD, ValueError, "input_data_format is 'none'"),
    ({"size": 0}, GOOD, ValueError, r"size\['height'\] is 0, but at least 1"),
    ({"size": 2.5}, GOOD, TypeError, r"size is 2.5 \(type float\)"),
    ({"size": (1, 2, 3)}, GOOD, TypeError, "pair"),
    ({"size": np.zeros((3, 3))}, GOOD, TypeError, r"size is array.*type ndarray"),
    ({"size": {"height": 4}}, GOOD, ValueError, r"size has the keys \['height'\]"),
    ({"size": {"height": 4, "width": True}}, GOOD, TypeError, r"size\['width'\] is True"),
    ({"size": {"longest_edge": 4}}, GOOD, ValueError, "size has the keys.*ImageProcessor needs height and width"),
    ({"resample": 77}, GOOD, ValueError, r"resample is 77.*use one of 0 \(nearest\)"),
    ({"resample": "bicubic"}, GOOD, TypeError, "resample is 'bicubic'"),
    ({"rescale_factor": "1/255"}, GOOD, TypeError, "rescale_factor is '1/255'"),
    ({"rescale_factor": 10**400}, GOOD, ValueError, "too large"),
    ({"image_mean": "0.5"}, GOOD, TypeError, "image_mean is '0.5'"),
    ({"image_mean": [0.5, None]}, GOOD, TypeError, "image_mean"),
    ({"image_std": [0.5, 0.5]}, GOOD, ValueError, "images: image_std has 2 values but the picture has 3 channel"),
    ({"do_resize": "no"}, GOOD, TypeError, r"do_resize is 'no' \(type str\), but true or false"),
]


@EACH
@pytest.mark.parametrize("case", range(len(REFUSED)))
def test_refuses_with_one_sentence(cls: Any, case: int) -> None:
    call, images, kind, sentence = REFUSED[case]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(kind, match=sentence) as caught:
            cls()(images, **call)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 350


def test_refuses_sizes_its_resize_does_not_know() -> None:
    assert ViTImageProcessor(size={"shortest_edge": 9}, do_resize=False)(GOOD)
    with pytest.raises(ValueError, match="ViTImageProcessor needs height and width"):
        ViTImageProcessor(size={"shortest_edge": 9})(GOOD)
    with pytest.raises(ValueError, match="EfficientNetImageProcessor needs height and width"):
        EfficientNetImageProcessor(size={"shortest_edge": 9})(GOOD)
    with pytest.raises(ValueError, match="EfficientFormerImageProcessor needs height and width or shortest_edge"):
        EfficientFormerImageProcessor(size={"longest_edge": 9})(GOOD)
    with pytest.raises(ValueError, match="crop_size has the keys"):
        EfficientFormerImageProcessor(crop_size={"shortest_edge": 9})(GOOD)


@pytest.mark.parametrize("name", ["resample", "rescale_factor"])
def test_refuses_a_step_without_its_setting(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is None, but do_res.*=True needs it"):
        ViTImageProcessor(**{name: None})(GOOD)


@pytest.mark.parametrize("name", ["rescale_offset", "include_top"])
def test_efficientnet_refuses_flags_that_are_none(name: str) -> None:
    for value in ("no", 2, [True]):
        for attempt in (
            lambda value=value: EfficientNetImageProcessor(**{name: value}),
            lambda value=value: EfficientNetImageProcessor()(GOOD, **{name: value}),
        ):
            with pytest.raises(TypeError, match=f"{name} is .*, but true or false is needed"):
                attempt()


def test_efficientnet_refuses_a_second_division_without_its_setting() -> None:
    processor = EfficientNetImageProcessor(do_normalize=False)
    processor.image_std = None  # type: ignore[assignment]
    with pytest.raises(
        ValueError, match=r"image_std is None, but include_top=True needs it.* or set include_top=False"
    ):
        processor(GOOD)
    assert processor(GOOD, include_top=False)
    with pytest.raises(ValueError, match="images: image_std has 2 values but the picture has 3 channel"):
        processor(GOOD, image_std=[1, 2])


@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
def test_refuses_to_batch_different_shapes(layout: str) -> None:
    processor = EfficientFormerImageProcessor(**PLAIN_EF)
    assert len(processor([noise(3, 8, 8), noise(3, 9, 8)]).pixel_values) == 2
    with pytest.raises(ValueError, match=r"shapes differ .*\(.*8.*\) and \(.*9.*\)\): resize or crop"):
        processor([noise(3, 8, 8), noise(3, 9, 8)], return_tensors="np", data_format=layout)


def test_refuses_a_damaged_pillow_picture(tmp_path: Path) -> None:
    sentence = r"images \(a Pillow picture of mode 'RGB'\) cannot be read: .*truncated"
    with Image.open(damaged_file(tmp_path)) as picture, pytest.raises(ValueError, match=sentence):
        EfficientFormerImageProcessor()(picture)


# --- BatchFeature ----------------------------------------------------------------------------------------------------


def test_batch_feature_is_a_mapping_with_attributes() -> None:
    inputs = EfficientFormerImageProcessor()(noise(3, 8, 8), return_tensors="np")

    def model(pixel_values: np.ndarray) -> tuple[int, ...]:
        return pixel_values.shape

    assert model(**inputs) == (1, 3, 224, 224)
    assert list(inputs) == ["pixel_values"]
    assert inputs.pixel_values is inputs["pixel_values"]
    with pytest.raises(AttributeError, match=r"no entry 'labels': there is \['pixel_values'\]"):
        _ = inputs.labels
    with pytest.raises(KeyError):
        _ = inputs[0]
    inputs["labels"] = [3]
    assert inputs.labels == [3]


def test_batch_feature_copies_and_pickles() -> None:
    inputs = BatchFeature({"labels": [1, 2]}, tensor_type="np")
    assert isinstance(inputs.labels, np.ndarray)
    assert BatchFeature().data == {}
    copies: list[Callable[[Any], Any]] = [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))]
    for twin in (make(inputs) for make in copies):
        assert isinstance(twin, BatchFeature)
        assert twin.labels.tolist() == [1, 2]


# --- files -----------------------------------------------------------------------------------------------------------


@EACH
def test_file_round_trip(cls: Any, tmp_path: Path) -> None:
    settings = {"size": (30, 20), "resample": 0, "image_mean": np.array([0.25, 0.5, 0.75]), "crop_pct": 0.9}
    processor = cls(**settings, processor_class="Some", do_rescale=np.bool_(False), extra=np.arange(2))
    assert processor.save_pretrained(tmp_path / "a/b") == [str(tmp_path / "a/b/preprocessor_config.json")]
    for again in (
        cls.from_pretrained(tmp_path / "a/b"),
        cls.from_pretrained(tmp_path / "a/b/preprocessor_config.json"),
    ):
        assert again.to_json_string() == processor.to_json_string()
    config = json.loads((tmp_path / "a/b/preprocessor_config.json").read_text())
    assert config["image_processor_type"] == cls.__name__
    assert config["processor_class"] == "Some"
    assert config["size"] == {"height": 30, "width": 20}
    assert config["crop_pct"] == 0.9
    assert config["extra"] == [0, 1]
    assert config["do_rescale"] is False
    assert config["image_mean"] == [0.25, 0.5, 0.75]
    assert cls.from_dict(processor.to_dict()).to_dict() == again.to_dict() | {"extra": pytest.approx([0, 1])}
    assert repr(again) == f"{cls.__name__} {again.to_json_string()}"


def test_efficientnet_file_round_trip(tmp_path: Path) -> None:
    settings = {"rescale_offset": True, "include_top": False, "do_center_crop": True, "crop_size": (5, 6)}
    EfficientNetImageProcessor(**settings).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert (config["rescale_offset"], config["include_top"], config["do_center_crop"]) == (True, False, True)
    assert config["crop_size"] == {"height": 5, "width": 6}
    again = EfficientNetImageProcessor.from_pretrained(tmp_path)
    assert again.to_dict() == EfficientNetImageProcessor(**settings).to_dict() == config
    assert EfficientNetImageProcessor.from_pretrained(tmp_path, include_top=True).include_top is True


def test_old_file_without_type() -> None:
    """The file of MBZUAI/swiftformer-xs: a lone number is a square."""
    old = {"do_normalize": True, "do_resize": True, "image_mean": [0.485, 0.456, 0.406], "size": 224}
    processor = ViTImageProcessor.from_dict({**old, "image_std": [0.229, 0.224, 0.225]})
    assert processor.size == {"height": 224, "width": 224}
    assert processor.resample == 2
    assert processor.rescale_factor == 1 / 255
    assert processor.image_mean == [0.485, 0.456, 0.406]


def test_keys_of_former_times_are_dropped_and_nested_files_read(tmp_path: Path) -> None:
    config = {"feature_extractor_type": "X", "_valid_processor_keys": ["images"], "size": {"shortest_edge": 256}}
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": config}))
    processor = EfficientFormerImageProcessor.from_pretrained(tmp_path / "processor_config.json")
    assert processor.size == {"shortest_edge": 256}
    assert not {"feature_extractor_type", "_valid_processor_keys"} & set(processor.to_dict())


def test_overrides(tmp_path: Path) -> None:
    EfficientFormerImageProcessor(crop_pct=0.9).save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="does not know do_normalise: ignored"):
        processor = EfficientFormerImageProcessor.from_pretrained(
            str(tmp_path), size=32, do_rescale=False, crop_pct=1, do_normalise=False
        )
    assert (processor.size, processor.do_rescale) == ({"height": 32, "width": 32}, False)
    assert processor.to_dict()["crop_pct"] == 1
    assert not hasattr(processor, "do_normalise")


def test_defaults_are_not_shared() -> None:
    one, config = EfficientFormerImageProcessor(), {"crop": {"pct": 1}}
    one.image_mean[0], one.size["height"] = 9.0, 1  # type: ignore[index]
    assert EfficientFormerImageProcessor().image_mean == [0.485, 0.456, 0.406]
    assert EfficientFormerImageProcessor().size == {"height": 224, "width": 224}
    ViTImageProcessor.from_dict(config).crop["pct"] = 2  # type: ignore[attr-defined]
    assert config == {"crop": {"pct": 1}}


@pytest.mark.parametrize(
    ("content", "kind", "sentence"),
    [
        (b"{", ValueError, "preprocessor_config.json is not valid JSON: "),
        (b"\xff\xfe\x00", ValueError, "is not valid JSON"),
        (b"[" * 100000, ValueError, "is not valid JSON"),
        (b"[1]", ValueError, "preprocessor_config.json must hold a JSON object, got list"),
        (b'{"image_processor": 3}', TypeError, "config is 3"),
        (b'{"size": "224"}', TypeError, r"preprocessor_config.json: size is '224' \(type str\)"),
        (b'{"size": {"height": 1}}', ValueError, r"preprocessor_config.json: size has the keys \['height'\]"),
        (b'{"do_resize": "yes"}', TypeError, "do_resize is 'yes'"),
        (b'{"image_mean": [[1]]}', TypeError, "image_mean"),
        (b'{"preprocess": 1}', ValueError, "'preprocess' cannot be a setting"),
        (b'{"__dict__": {}}', ValueError, "'__dict__' cannot be a setting"),
    ],
)
def test_bad_files(content: bytes, kind: type[Exception], sentence: str, tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_bytes(content)
    with pytest.raises(kind, match=sentence) as caught:
        ViTImageProcessor.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)


def test_missing_files(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere", "someone/some-model"):
        with pytest.raises(
            FileNotFoundError, match=r"expected a directory that holds preprocessor_config.json"
        ) as caught:
            ViTImageProcessor.from_pretrained(path)
        assert str(path) in str(caught.value)


def test_save_into_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(NotADirectoryError, match="file: is a file, but save_pretrained needs a directory"):
        ViTImageProcessor().save_pretrained(tmp_path / "file")


def test_save_is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ViTImageProcessor().save_pretrained(tmp_path)
    before = (tmp_path / "preprocessor_config.json").read_text()
    with pytest.raises(TypeError, match="cannot be written as JSON"):
        ViTImageProcessor(thing=object()).save_pretrained(tmp_path)

    def fail(self: Path, target: Path) -> Path:
        assert json.loads(self.read_text())  # whole, and beside its target
        assert self.parent == target.parent
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        ViTImageProcessor(size=9).save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["preprocessor_config.json"]
    assert (tmp_path / "preprocessor_config.json").read_text() == before


def test_import_stays_lean() -> None:
    code = "import npformer.image, sys; sys.exit(any(name.split('.')[0] == 'PIL' for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
