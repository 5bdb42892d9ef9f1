"""Single pictures, opened and prepared, with values worked out by hand; tests/live/test_image_parity.py compares."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from npformer.picture import (
    center_crop,
    infer_data_format,
    load_image,
    normalize,
    rescale,
    resize,
    shortest_edge_size,
)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(0, 256, shape, np.uint8)


def damaged_file(tmp_path: Path) -> Path:
    path = tmp_path / "damaged.png"
    Image.fromarray(noise(40, 50, 3)).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    return path


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


# --- load_image ------------------------------------------------------------------------------------------------------


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


def test_load_image_refuses_a_damaged_pillow_picture(tmp_path: Path) -> None:
    with (
        Image.open(damaged_file(tmp_path)) as picture,
        pytest.raises(ValueError, match=r"picture \(mode 'RGB'\) cannot be read: .*truncated"),
    ):
        load_image(picture)


def test_load_image_refuses_decompression_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (50, 50)).save(tmp_path / "big.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ValueError, match=r"big.png: .*decompression bomb"):
        load_image(tmp_path / "big.png")
