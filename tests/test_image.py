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
    ViTImageProcessor,
    center_crop,
    infer_data_format,
    load_image,
    normalize,
    rescale,
    resize,
    shortest_edge_size,
)

BOTH = pytest.mark.parametrize("cls", [EfficientFormerImageProcessor, ViTImageProcessor])
PLAIN = {"do_resize": False, "do_rescale": False, "do_normalize": False}
PLAIN_EF = {**PLAIN, "do_center_crop": False}


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(0, 256, shape, np.uint8)


# --- the steps -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("resample", "expected"),
    [(0, [0, 0, 255, 255]), (2, [0, 64, 191, 255]), (3, [0, 53, 202, 255])],
)
def test_resize_two_pixels_to_four(resample: int, expected: list[int]) -> None:
    """Bilinear: 255 · 1/4 = 63.75. Bicubic (a = -1/2): k(1/4) = .8672, k(3/4) = .2266: 255 · .2266 / 1.0938 = 52.8."""
    image = np.array([[[0, 255]]] * 3, np.uint8)
    out = resize(image, (1, 4), resample)
    assert out.dtype == np.uint8
    assert out.tolist() == [[expected]] * 3


def test_resize_takes_height_before_width() -> None:
    assert resize(noise(3, 10, 10), (4, 7)).shape == (3, 4, 7)
    assert resize(noise(1, 10, 10), (4, 7)).shape == (1, 4, 7)


def test_resize_of_fractions_keeps_256_levels() -> None:
    """0.999 · 255 = 254.7 becomes 254 (cut off), and comes back as float32(254 / 255)."""
    out = resize(np.full((3, 2, 2), 0.999), (5, 5))
    assert out.dtype == np.float32
    assert np.all(out == np.float32(254 * (1 / 255)))


def test_resize_of_whole_floats_gives_uint8() -> None:
    for image in (np.full((3, 2, 2), 200.0), np.full((3, 2, 2), 200.0009), np.full((3, 2, 2), 200)):
        out = resize(image, (1, 1))
        assert out.dtype == np.uint8
        assert np.all(out == 200)


def test_resize_of_zeros_and_ones_stays_zeros_and_ones() -> None:
    image = np.array([[[0.0, 1.0]]] * 3)
    assert resize(image, (1, 4), 2).tolist() == [[[0, 0, 1, 1]]] * 3


@pytest.mark.parametrize("image", [np.full((3, 2, 2), value) for value in (256, -1, -0.5, 1.5, np.nan, np.inf)])
def test_resize_refuses_values_that_do_not_fit_8_bits(image: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"needs whole numbers 0\.\.255 or fractions 0\.\.1"):
        resize(image, (2, 2))


def test_resize_refuses_other_filters_and_channel_counts() -> None:
    with pytest.raises(ValueError, match=r"resample is 99.*3 \(bicubic\)"):
        resize(noise(3, 2, 2), (2, 2), 99)
    with pytest.raises(ValueError, match=r"5 channels.*needs 1 to 4"):
        resize(noise(5, 2, 2), (2, 2))
    with pytest.raises(ValueError, match=r"shape \(2, 2\), but one picture"):
        resize(noise(2, 2), (2, 2))


@pytest.mark.parametrize(
    ("shape", "edge", "expected"),
    [
        ((480, 640), 256, (256, 341)),  # 341.33 is cut off
        ((640, 480), 256, (341, 256)),
        ((427, 640), 256, (256, 383)),  # so is 383.7
        ((7, 7), 5, (5, 5)),
        ((1, 1000), 224, (224, 224000)),
    ],
)
def test_shortest_edge_size(shape: tuple[int, int], edge: int, expected: tuple[int, int]) -> None:
    assert shortest_edge_size(*shape, edge) == expected


@pytest.mark.parametrize(
    ("length", "wanted", "expected"),
    [
        (5, 3, [2, 3, 4]),
        (5, 2, [2, 3]),  # the odd one is cut at the end
        (4, 1, [2]),
        (4, 4, [1, 2, 3, 4]),
        (3, 5, [0, 1, 2, 3, 0]),
        (3, 4, [0, 1, 2, 3]),  # the odd zero goes first
        (1, 4, [0, 0, 1, 0]),
    ],
)
def test_center_crop_along_each_axis(length: int, wanted: int, expected: list[int]) -> None:
    row = np.arange(1, length + 1, dtype=np.int16)[None, None]  # (1, 1, length)
    assert center_crop(row, (1, wanted)).tolist() == [[expected]]
    assert center_crop(row.transpose(0, 2, 1), (wanted, 1))[0, :, 0].tolist() == expected
    assert center_crop(row, (1, wanted)).dtype == np.int16


def test_center_crop_cuts_one_axis_and_pads_the_other() -> None:
    image = np.array([[[1, 2, 3], [4, 5, 6]]])
    assert center_crop(image, (4, 1)).tolist() == [[[0], [2], [5], [0]]]


def test_center_crop_leaves_its_input_alone() -> None:
    image = noise(3, 4, 4)
    center_crop(image, (4, 4))[:] = 0
    assert image.any()


def test_rescale_rounds_once_from_float64() -> None:
    """The expected bits come from Python's own doubles; a float32 product gets 126 of these 256 wrong."""
    out = rescale(np.arange(256, dtype=np.uint8), 1 / 255)
    assert out.dtype == np.float32
    assert out.tolist() == [float(np.float32(value * (1 / 255))) for value in range(256)]


def test_normalize_works_on_each_channel() -> None:
    image = np.broadcast_to(np.array([1.0, 2.0, 3.0], np.float32)[:, None, None], (3, 3, 3))
    out = normalize(image, [1, 1, 1], [1, 2, 4])
    assert out[:, 0, 0].tolist() == [0.0, 0.5, 0.5]
    assert np.all(out == out[:, :1, :1])
    assert normalize(image, 1, 2)[:, 2, 2].tolist() == [0.0, 0.5, 1.0]


@pytest.mark.parametrize(("dtype", "expected"), [("u1", "f4"), ("?", "f4"), ("f2", "f2"), ("f4", "f4"), ("f8", "f8")])
def test_normalize_keeps_float_types(dtype: str, expected: str) -> None:
    assert normalize(np.ones((3, 2, 2), dtype), [0.5] * 3, 0.5).dtype == np.dtype(expected)


def test_normalize_divides() -> None:
    """Multiplying by 1 / std would round twice."""
    f, values = np.float32, np.linspace(0, 1, 256, dtype=np.float32)
    out = normalize(values[None, None], 0.485, 0.229)
    assert out[0, 0].tolist() == [float((value - f(0.485)) / f(0.229)) for value in values]


def test_normalize_does_not_wrap_whole_numbers() -> None:
    assert normalize(np.zeros((1, 1, 1), np.uint8), 1, 1).item() == -1.0


def test_normalize_refuses_the_wrong_number_of_values() -> None:
    with pytest.raises(ValueError, match=r"image_std has 3 values but the picture has 1 channel"):
        normalize(noise(1, 2, 2), 0.5, [0.5] * 3)


def test_infer_data_format() -> None:
    assert infer_data_format(noise(3, 5, 6)) == infer_data_format(noise(1, 5, 6)) == "channels_first"
    assert infer_data_format(noise(5, 6, 3)) == infer_data_format(noise(5, 6, 1)) == "channels_last"
    with pytest.warns(UserWarning, match="could both be the channels"):
        assert infer_data_format(noise(3, 6, 3)) == "channels_first"
    with pytest.raises(ValueError, match="neither the first nor the last axis has 1 or 3"):
        infer_data_format(noise(5, 6, 4))


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


@pytest.mark.parametrize(
    ("cls", "expected"),
    [(EfficientFormerImageProcessor, [0, 53, 202, 255]), (ViTImageProcessor, [0, 64, 191, 255])],
)
def test_default_filters(cls: Any, expected: list[int]) -> None:
    image = np.array([[[0, 255]] * 2] * 3, np.uint8)
    settings = {"size": (2, 4), "do_rescale": False, "do_normalize": False}
    if cls is EfficientFormerImageProcessor:
        settings["do_center_crop"] = False
    assert cls(**settings)(image).pixel_values[0][0].tolist() == [expected] * 2


def test_shortest_edge_then_crop() -> None:
    """A 4 x 8 picture at shortest edge 4 stays as it is, and the crop takes columns 2..5."""
    image = np.broadcast_to(np.arange(8, dtype=np.uint8), (3, 4, 8))
    processor = EfficientFormerImageProcessor(size={"shortest_edge": 4}, crop_size=4, do_rescale=False)
    assert processor(image, do_normalize=False).pixel_values[0][1].tolist() == [[2, 3, 4, 5]] * 4


def test_every_form_of_a_batch_gives_the_same() -> None:
    batch = noise(2, 3, 9, 7)
    pictures = [Image.fromarray(np.moveaxis(image, 0, -1)) for image in batch]
    for cls in (EfficientFormerImageProcessor, ViTImageProcessor):
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
    """A picture three pixels high is read sideways unless told."""
    image = noise(3, 7, 3)
    processor = EfficientFormerImageProcessor(**PLAIN_EF)
    out = processor(image, input_data_format="channels_last").pixel_values[0]
    assert np.array_equal(out, image.transpose(2, 0, 1))
    with pytest.warns(UserWarning, match="could both be the channels"):
        assert np.array_equal(processor(image).pixel_values[0], image)


def test_grey_with_channels_last() -> None:
    settings = {"image_mean": 0.5, "image_std": 0.5, "input_data_format": "channels_last"}
    out = ViTImageProcessor()(np.full((9, 7), 255, np.uint8), **settings)["pixel_values"][0]
    assert out.shape == (1, 224, 224)
    assert np.all(out == 1.0)


@BOTH
def test_a_call_overrides_every_setting(cls: Any) -> None:
    image = noise(3, 12, 15)
    for name, value in {
        **{"size": (5, 4), "resample": 0, "rescale_factor": 2.0, "image_mean": 0.1, "image_std": [2, 3, 4]},
        **{"do_resize": False, "do_rescale": False, "do_normalize": False},
        **({"do_center_crop": False, "crop_size": 6} if cls is EfficientFormerImageProcessor else {}),
    }.items():
        base: dict[str, Any] = {"size": (10, 11), "image_std": 0.5}
        if cls is EfficientFormerImageProcessor:
            base["crop_size"] = 8
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


def test_the_pictures_are_not_changed() -> None:
    image = noise(3, 9, 9).astype(np.float64)
    before = image.copy()
    EfficientFormerImageProcessor()(image)
    assert np.array_equal(image, before)


@BOTH
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
    ({}, [GOOD, GOOD.T], ValueError, r"images\[1\]: the picture has 8 channels"),  # the first tells the layout
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


@BOTH
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
    with pytest.raises(ValueError, match="EfficientFormerImageProcessor needs height and width or shortest_edge"):
        EfficientFormerImageProcessor(size={"longest_edge": 9})(GOOD)
    with pytest.raises(ValueError, match="crop_size has the keys"):
        EfficientFormerImageProcessor(crop_size={"shortest_edge": 9})(GOOD)


@pytest.mark.parametrize("name", ["resample", "rescale_factor"])
def test_refuses_a_step_without_its_setting(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is None, but do_res.*=True needs it"):
        ViTImageProcessor(**{name: None})(GOOD)


@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
def test_refuses_to_batch_different_shapes(layout: str) -> None:
    processor = EfficientFormerImageProcessor(**PLAIN_EF)
    assert len(processor([noise(3, 8, 8), noise(3, 9, 8)]).pixel_values) == 2
    with pytest.raises(ValueError, match=r"shapes differ .*\(.*8.*\) and \(.*9.*\)\): resize or crop"):
        processor([noise(3, 8, 8), noise(3, 9, 8)], return_tensors="np", data_format=layout)


def test_refuses_a_damaged_pillow_picture(tmp_path: Path) -> None:
    path = damaged_file(tmp_path)
    sentence = r"images \(a Pillow picture of mode 'RGB'\) cannot be read: .*truncated"
    with Image.open(path) as picture, pytest.raises(ValueError, match=sentence):
        EfficientFormerImageProcessor()(picture)
    with (
        Image.open(path) as picture,
        pytest.raises(ValueError, match=r"picture \(mode 'RGB'\) cannot be read: .*trunc"),
    ):
        load_image(picture)


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


@BOTH
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
        (b"{", ValueError, "preprocessor_config.json: not a JSON file: "),
        (b"\xff\xfe\x00", ValueError, "not a JSON file"),
        (b"[" * 100000, ValueError, "not a JSON file"),
        (b"[1]", ValueError, "expected a JSON object with settings, got"),
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


# --- load_image ------------------------------------------------------------------------------------------------------


def damaged_file(tmp_path: Path) -> Path:
    path = tmp_path / "damaged.png"
    Image.fromarray(noise(40, 50, 3)).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    return path


def rgb(picture: Image.Image) -> list[Any]:
    assert picture.mode == "RGB"
    return np.array(picture).tolist()


def palette_picture() -> Image.Image:
    picture = Image.new("P", (2, 1))
    picture.putpalette([10, 20, 30, 40, 50, 60])
    picture.putpixel((1, 0), 1)
    return picture


def grey(dtype: Any, *values: float) -> Image.Image:
    return Image.fromarray(np.array([values], dtype))


@pytest.mark.parametrize(
    ("picture", "expected"),
    [
        (Image.new("RGB", (1, 1), (1, 2, 3)), [[1, 2, 3]]),
        (Image.new("RGBA", (1, 1), (1, 2, 3, 0)), [[1, 2, 3]]),  # transparency is dropped, not blended
        (Image.new("L", (1, 1), 7), [[7, 7, 7]]),
        (Image.new("LA", (1, 1), (7, 0)), [[7, 7, 7]]),
        (Image.new("1", (1, 1), 1), [[255, 255, 255]]),
        (Image.new("CMYK", (1, 1), (255, 0, 0, 0)), [[0, 255, 255]]),
        (palette_picture(), [[10, 20, 30], [40, 50, 60]]),
        (grey(np.uint16, 0, 255, 256, 65535), [[v] * 3 for v in (0, 0, 1, 255)]),
        (grey(np.uint16, 200), [[0, 0, 0]]),  # 16 bits are 16 bits, also in a dark picture
        (grey(np.int32, 0, 200, 255), [[v] * 3 for v in (0, 200, 255)]),
        (grey(np.int32, 0, 200, 65535), [[v] * 3 for v in (0, 0, 255)]),
        (grey(np.float32, 0, 0.5, 1), [[v] * 3 for v in (0, 128, 255)]),
        (grey(np.float32, 0, 0.6, 255.4), [[v] * 3 for v in (0, 1, 255)]),
        (grey(np.float32, 0, 512.5, 65535), [[v] * 3 for v in (0, 2, 255)]),
    ],
)
def test_load_image_modes(picture: Image.Image, expected: list[list[int]]) -> None:
    assert rgb(load_image(picture)) == [expected]


@pytest.mark.parametrize("value", [-1.0, 65536.0, np.nan])
def test_load_image_refuses_ranges_it_cannot_guess(value: float) -> None:
    with pytest.raises(ValueError, match=r"mode 'F'.*the values go from .* is needed: scale them first"):
        load_image(grey(np.float32, 0, value))


@pytest.mark.parametrize("mode", ["I;16", "I;16B"])
def test_load_image_reads_16_bit_files(mode: str, tmp_path: Path) -> None:
    path = tmp_path / "deep.tiff"
    Image.frombytes(mode, (2, 1), np.array([256, 65535], ">u2" if mode[-1] == "B" else "<u2").tobytes()).save(path)
    assert rgb(load_image(path)) == [[[1] * 3, [255] * 3]]
    Image.fromarray(np.array([[256, 65535]], np.uint16)).save(tmp_path / "deep.png")
    assert rgb(load_image(tmp_path / "deep.png")) == [[[1] * 3, [255] * 3]]


TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x, -1),  # stored on its left side: a quarter turn clockwise puts it upright
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: np.rot90(x, 1),
}


@pytest.mark.parametrize("orientation", TURNS)
def test_load_image_turns_by_exif(orientation: int, tmp_path: Path) -> None:
    stored = noise(2, 3, 3)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(tmp_path / "turned.png", exif=exif)
    expected = TURNS[orientation](stored)
    assert np.array_equal(np.array(load_image(str(tmp_path / "turned.png"))), expected)
    with Image.open(tmp_path / "turned.png") as picture:  # the processor itself does not turn
        out = EfficientFormerImageProcessor(**PLAIN_EF)(picture, input_data_format="channels_last").pixel_values[0]
    assert np.array_equal(out, stored.transpose(2, 0, 1))


def test_load_image_takes_the_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (2, 2), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "two.gif", save_all=True, append_images=frames[1:])
    assert rgb(load_image(tmp_path / "two.gif"))[0][0] == [255, 0, 0]


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.array([[3]], np.uint8), [3, 3, 3]),
        (np.array([[True]]), [255, 255, 255]),
        (np.full((5, 4, 3), 9), [9, 9, 9]),
        (np.full((3, 5, 4), 9.0), [9, 9, 9]),
        (np.full((5, 4, 1), 0.2), [51, 51, 51]),
        (np.full((5, 4, 3), 0x1234, np.uint16), [0x12] * 3),
        (np.full((5, 4, 3), 0x1234, ">u2"), [0x12] * 3),
        (np.full((5, 4, 4), [1, 2, 3, 0], np.uint8), [1, 2, 3]),
        (np.full((5, 4, 2), [7, 0], np.uint8), [7, 7, 7]),
        (np.full((3, 2, 3), [1, 2, 3], np.uint8), [1, 2, 3]),  # either end could be the channels: the last is
        (np.full((3, 2, 2), np.array([1, 2, 3], np.uint8)[:, None, None]), [1, 2, 3]),
    ],
)
def test_load_image_arrays(array: np.ndarray, expected: list[int]) -> None:
    assert rgb(load_image(array))[0][0] == expected


def test_load_image_gives_a_new_picture() -> None:
    picture = Image.new("RGB", (1, 1))
    load_image(picture).putpixel((0, 0), (9, 9, 9))
    assert picture.getpixel((0, 0)) == (0, 0, 0)


def test_load_image_refuses(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty.png").write_bytes(b"")
    cases: list[tuple[Any, type[Exception], str]] = [
        (tmp_path / "nowhere.png", FileNotFoundError, "No such file.*expected the path of a picture.*nowhere.png"),
        (tmp_path, IsADirectoryError, "expected the path of a picture"),
        (tmp_path / "text.png", ValueError, "text.png: not a picture in a format that Pillow knows"),
        (tmp_path / "empty.png", ValueError, "empty.png: not a picture"),
        (damaged_file(tmp_path), ValueError, "damaged.png: the picture is damaged.*truncated"),
        ("https://example.org/cat.png", ValueError, "is a web address.*download it first"),
        (3, TypeError, r"source is 3 \(type int\), but load_image takes a path"),
        (np.zeros((2, 2), complex), ValueError, r"shape \(2, 2\) and dtype complex128"),
        (np.zeros((0, 2)), ValueError, "none of them 0"),
        (np.zeros((5, 6, 7)), ValueError, r"shape \(5, 6, 7\) and dtype float64, but a picture needs"),
        (np.zeros(5), ValueError, r"the shape \(H, W\)"),
    ]
    for source, kind, sentence in cases:
        with pytest.raises(kind, match=sentence) as caught:
            load_image(source)
        assert "\n" not in str(caught.value)


def test_load_image_refuses_decompression_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (50, 50)).save(tmp_path / "big.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ValueError, match=r"big.png: .*decompression bomb"):
        load_image(tmp_path / "big.png")


def test_import_stays_lean() -> None:
    code = "import npformer.image, sys; sys.exit(any(name.split('.')[0] == 'PIL' for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
