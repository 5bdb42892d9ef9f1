"""The image processors against the slow processors of transformers 4.x: bit for bit, and they refuse the same."""

from __future__ import annotations

import inspect
import json
import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from npformer.image import EfficientFormerImageProcessor, EfficientNetImageProcessor, ViTImageProcessor
from npformer.picture import load_image
from tests.sweep import sweep

transformers = pytest.importorskip("transformers", minversion="4.56", reason="transformers is not installed")
oracle_module = pytest.importorskip("transformers.models.deprecated.efficientformer", reason="gone in transformers 5")
from transformers.image_utils import load_image as oracle_load_image  # noqa: E402

transformers.logging.set_verbosity_error()

PAIRS = {
    "efficientformer": (EfficientFormerImageProcessor, oracle_module.EfficientFormerImageProcessor),
    "efficientnet": (EfficientNetImageProcessor, transformers.EfficientNetImageProcessor),
    "vit": (ViTImageProcessor, transformers.ViTImageProcessor),
}
BYTES_PER_PIXEL = {
    **{"L": 1, "P": 1, "LA": 2, "PA": 2, "La": 2, "RGB": 3, "YCbCr": 3, "LAB": 3, "HSV": 3},
    **{"RGBA": 4, "RGBX": 4, "RGBa": 4, "CMYK": 4, "I;16": 2, "I;16L": 2, "I;16B": 2, "I;16N": 2, "I": 4},
}
MODES = [*BYTES_PER_PIXEL, "1", "F"]
NUMERIC = ("resample", "rescale_factor", "image_mean", "image_std")
SIDES = [1, 2, 3, 4, 5, 7, 8, 13, 17, 24, 31, 40, 57]
SQUARE, SMALL_CROP = {"height": 16, "width": 16}, {"height": 15, "width": 18}

# --- random pictures and arguments -----------------------------------------------------------------------------------


def shape_of(rng: random.Random) -> tuple[int, int]:
    shapes = [(1, 1), (1, rng.choice(SIDES)), (rng.choice(SIDES), 1), (3, rng.choice(SIDES)), (rng.choice(SIDES), 3)]
    usual = (rng.choice(SIDES[3:]), rng.choice(SIDES[3:]))
    return rng.choice([*shapes, *[usual] * 20])


def pil_picture(rng: random.Random, mode: str, shape: tuple[int, int]) -> Image.Image:
    height, width = shape
    noise = np.random.default_rng(rng.getrandbits(32))
    if mode == "1":
        return Image.fromarray(noise.integers(0, 256, shape, np.uint8)).convert("1")
    if mode == "F":
        return Image.fromarray((noise.random(shape) * 300 - 20).astype(np.float32))
    picture = Image.frombytes(mode, (width, height), noise.bytes(height * width * BYTES_PER_PIXEL[mode]))
    if mode in ("P", "PA"):
        picture.putpalette(noise.bytes(768))
    return picture


def array_picture(rng: random.Random, shape: tuple[int, int]) -> np.ndarray:
    noise = np.random.default_rng(rng.getrandbits(32))
    channels = rng.choice([3] * 20 + [1, 1, 1, 2, 4, 5])
    full = (channels, *shape) if rng.random() < 0.5 else (*shape, channels)
    values = noise.random(full)
    whole = np.floor(values * 256)
    makers = [
        lambda: whole.astype(np.uint8),
        lambda: whole.astype(rng.choice([np.float32, np.float64, np.float16, np.dtype(">f4"), np.longdouble])),
        lambda: values.astype(rng.choice([np.float32, np.float64, np.float16])),  # fractions 0..1
        lambda: whole.astype(rng.choice([np.int16, np.int64, np.uint16, np.uint64, np.dtype(">i2")])),
        lambda: (whole > 128).astype(rng.choice([bool, np.int8, np.float32])),
        lambda: (whole + values * 1e-4).astype(np.float32),  # close enough to whole numbers
        lambda: values * rng.choice([1e-9, 1.5, 255, 300]) - rng.choice([0, 0, 0.25]),  # mostly refused
        lambda: (whole * rng.choice([1, 2, -1])).astype(np.int32),
        lambda: np.where(values > 0.9, rng.choice([np.nan, np.inf]), values),
    ]
    return rng.choice(makers[:5] * 5 + makers[5:])()


def images_of(rng: random.Random, name: str) -> Any:
    shape = shape_of(rng)
    kind = rng.random()
    if kind < 0.35:
        return pil_picture(rng, rng.choice(["RGB"] * 40 + MODES), shape)
    if kind < 0.65:
        return array_picture(rng, shape)
    if kind < 0.72:  # a batch as one array: transformers' EfficientFormer processor does not understand it
        batch = np.stack([array_picture(random.Random(7), shape) for _ in range(rng.choice([1, 2, 3]))])
        return list(batch) if name == "efficientformer" else batch
    if kind < 0.75:
        return rng.choice(
            [[], (), "cat.png", None, 3, [None], ["a"], [[1, 2], [3, 4]], np.float32(1), np.zeros((4, 4))]
        )
    same = rng.random() < 0.5
    items = [
        rng.choice([lambda s: pil_picture(rng, "RGB", s), lambda s: array_picture(rng, s)])(
            shape if same else shape_of(rng)
        )
        for _ in range(rng.choice([1, 2, 3]))
    ]
    return rng.choice([list, tuple])(items)


def arguments_of(rng: random.Random, name: str) -> dict[str, Any]:
    numbers = [0.5, 0, [0.5, 0.25, 0.125], (0.485, 0.456, 0.406), np.array([0.5, 0.4, 0.3])]
    few = [[0.5], [0.5, 0.4], [], "abc", {"a": 1}]  # wrong, or right for few pictures
    sides = rng.choice(SIDES), rng.choice(SIDES)
    named = {"height": sides[0], "width": sides[1]}
    sizes = [named] * 4 + [16, sides, list(sides)]
    wrong_sizes = [
        {"height": 4},
        {},
        {"longest_edge": 9},
        {"max_height": 9, "max_width": 9},
        "16",
        1.5,
        {"height": "4"},
    ]
    edges = [{"shortest_edge": rng.choice(SIDES)}] * 6 + [{"shortest_edge": 9, "longest_edge": 20}]
    sizes, wrong_sizes = (sizes + edges, wrong_sizes) if name == "efficientformer" else (sizes, wrong_sizes + edges)
    few_layouts = [None, None, "channels_first", "channels_last"]  # often the wrong one
    choices: dict[str, list[Any]] = {
        "do_resize": [True, False, False],
        "size": sizes * 8 + wrong_sizes,
        "resample": [*range(6)] * 4 + [99, -1, "bicubic", Image.Resampling.BOX],
        "do_rescale": [True, False],
        "rescale_factor": [1 / 255, 1 / 127.5, 2, 1, 0.3, np.float32(0.1)] * 3 + ["x"],
        "do_normalize": [True, False],
        "image_mean": numbers * 9 + few,
        "image_std": numbers * 9 + few,
        "data_format": ["channels_first", "channels_last"] * 15 + ["none"],
        "input_data_format": few_layouts,
        "return_tensors": [None, "np"],
    }
    if name == "efficientnet":
        choices["rescale_offset"] = choices["include_top"] = [True, False]
    if name == "vit":
        choices["do_convert_rgb"] = [True, False]
    else:
        choices["do_center_crop"] = [True, False]
        choices["crop_size"] = ([16, named, (9, 6)] * 6) + [{"shortest_edge": 9}, "a"]
    often = {
        "return_tensors": 0.7,
        "do_convert_rgb": 0.5,
        "size": 0.5,
        "input_data_format": 0.15,
        "rescale_offset": 0.5,
        "include_top": 0.5,
    }
    return {name: rng.choice(values) for name, values in choices.items() if rng.random() < often.get(name, 0.22)}


# --- comparing -------------------------------------------------------------------------------------------------------


def outcome(processor_class: Any, settings: dict[str, Any], images: Any, call: dict[str, Any]) -> Any:
    """Return the pixel values as a list of arrays, or the exception."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            values = processor_class(**settings)(images, **call)["pixel_values"]
        except Exception as error:
            return error
    return [values] if isinstance(values, np.ndarray) else values


def assert_same(ours: Any, theirs: Any) -> bool:
    """Both raised, or both returned the same bits; returns whether they returned."""
    if isinstance(theirs, Exception) or isinstance(ours, Exception):
        assert isinstance(theirs, Exception), f"transformers accepts what npformer refuses: {ours!r}"
        assert isinstance(ours, (ValueError, TypeError)), f"no clear refusal: {ours!r}, where transformers: {theirs!r}"
        assert "\n" not in str(ours)
        assert len(str(ours)) > 20
        return False
    assert len(ours) == len(theirs)
    for mine, yours in zip(ours, theirs, strict=True):
        assert (mine.dtype, mine.shape) == (yours.dtype, yours.shape)
        if mine.dtype == np.longdouble:  # has padding bytes
            assert np.array_equal(mine, yours, equal_nan=True)
        else:
            assert mine.tobytes() == yours.tobytes()
    return True


def differs_on_purpose(images: Any, arguments: dict[str, Any], theirs: Any) -> bool:
    """Return whether a case is among those of the docstring of npformer.image, where we deliberately differ."""
    grey = any(np.asarray(item).ndim == 2 for item in (images if isinstance(images, (list, tuple)) else [images]))
    wrong = any(isinstance(value, (str, dict)) for name, value in arguments.items() if name in NUMERIC)
    odd = not isinstance(theirs, Exception) and any(out.dtype == object for out in theirs)  # ragged, channels last
    return odd or (wrong and not isinstance(theirs, Exception)) or (grey and "input_data_format" in arguments)


def splits(rng: random.Random, arguments: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Give some of the arguments to the constructor, the rest to the call."""
    only_call = ("data_format", "input_data_format", "return_tensors")
    early = {name: value for name, value in arguments.items() if name not in only_call and rng.random() < 0.4}
    return early, {name: value for name, value in arguments.items() if name not in early}


@pytest.mark.parametrize("seed", sweep(range(16), range(2)))
@pytest.mark.parametrize("name", PAIRS)
def test_random_pictures_and_arguments(name: str, seed: int) -> None:
    """60 random calls per seed: 2880 in all, over half of them return pixels."""
    rng = random.Random(f"{name}-{seed}")
    mine, yours = PAIRS[name]
    returned = 0
    for _ in range(60):
        images = images_of(rng, name)
        settings, call = splits(rng, {"size": SQUARE, **arguments_of(rng, name)})
        if name != "vit" and "crop_size" not in {*settings, *call}:
            settings["crop_size"] = SMALL_CROP
        theirs = outcome(yours, settings, images, call)
        ours = outcome(mine, settings, images, call)
        if differs_on_purpose(images, {**settings, **call}, theirs):
            assert isinstance(ours, (list, ValueError, TypeError))
            continue
        try:
            returned += assert_same(ours, theirs)
        except AssertionError as error:
            raise AssertionError(f"{error}\nimages={images!r:.400}\n{settings=}\n{call=}") from None
    assert returned >= 20


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", PAIRS)
def test_every_mode_and_shape_with_the_default_settings(name: str, mode: str) -> None:
    """Every Pillow mode in nine shapes around the default sizes, the 1 x 1, 1 x N and 3 x N ones included."""
    rng = random.Random(mode)
    mine, yours = PAIRS[name]
    for shape in [(1, 1), (1, 9), (9, 1), (3, 11), (11, 3), (5, 301), (301, 5), (230, 240), (97, 223)]:
        picture = pil_picture(rng, mode, shape)
        for convert in [{}, {"do_convert_rgb": True}] if name == "vit" else [{}]:
            call = {"return_tensors": "np", **convert}
            assert_same(outcome(mine, {}, picture, call), outcome(yours, {}, picture, call))


@pytest.mark.parametrize("resample", range(6))
@pytest.mark.parametrize("name", PAIRS)
def test_every_filter_up_and_down(name: str, resample: int) -> None:
    rng = random.Random(resample)
    mine, yours = PAIRS[name]
    for shape in [(300, 200), (20, 33), (224, 224), (2, 500)]:
        picture = pil_picture(rng, "RGB", shape)
        assert assert_same(
            outcome(mine, {"resample": resample}, picture, {}), outcome(yours, {"resample": resample}, picture, {})
        )


@pytest.mark.parametrize("height", range(1, 12))
def test_crops_and_pads_of_every_parity(height: int) -> None:
    rng = random.Random(height)
    for width in (2, 5, 6, 9):
        picture = pil_picture(rng, "RGB", (height, width))
        for crop in ((4, 4), (5, 5), (4, 7), (7, 4), (12, 13)):
            call = {"do_resize": False, "crop_size": crop, "input_data_format": "channels_last"}
            for mine, yours in (PAIRS["efficientformer"], PAIRS["efficientnet"]):
                settings = {"do_center_crop": True}
                theirs = outcome(yours, settings, picture, call)
                assert assert_same(outcome(mine, settings, picture, call), theirs)


@pytest.mark.parametrize("edge", [1, 5, 16, 224, 256])
def test_shortest_edge(edge: int) -> None:
    rng = random.Random(edge)
    for shape in [(4, 4), (4, 5), (31, 57), (57, 31), (13, 200), (480, 640), (333, 250), (2, 7)]:
        settings = {"size": {"shortest_edge": edge}}
        picture = pil_picture(rng, "RGB", shape)
        for call in ({}, {"do_center_crop": False}):
            theirs = outcome(oracle_module.EfficientFormerImageProcessor, settings, picture, call)
            assert assert_same(outcome(EfficientFormerImageProcessor, settings, picture, call), theirs)


def test_grey_with_channels_last_is_one_channel() -> None:
    """transformers gets this right when it resizes: (H, W) -> (1, H', W')."""
    picture = pil_picture(random.Random(0), "L", (20, 30))
    call = {"input_data_format": "channels_last", "image_mean": 0.5, "image_std": 0.25, "return_tensors": "np"}
    for mine, yours in PAIRS.values():
        for images in (picture, [np.array(picture)] * 2):
            assert assert_same(outcome(mine, {}, images, call), outcome(yours, {}, images, call))


def test_tensors_are_taken_as_arrays() -> None:
    torch = pytest.importorskip("torch")
    picture = torch.arange(3 * 8 * 9, dtype=torch.uint8).reshape(3, 8, 9)
    for mine, yours in PAIRS.values():
        assert assert_same(outcome(mine, {}, [picture], {}), outcome(yours, {}, [picture], {}))


@pytest.mark.parametrize("name", PAIRS)
def test_arguments_have_the_same_names_order_and_defaults(name: str) -> None:
    """Apart from `**kwargs`, which not every method of transformers takes."""
    mine, yours = PAIRS[name]
    for method in ("__init__", "preprocess"):
        ours, theirs = (
            [(p.name, p.default) for p in inspect.signature(getattr(cls, method)).parameters.values()]
            for cls in (mine, yours)
        )
        assert [p for p in ours if p[0] != "kwargs"] == [p for p in theirs if p[0] != "kwargs"]


# --- where we differ on purpose: see the docstring of npformer.image -------------------------------------------------


def test_known_differences_are_still_differences() -> None:
    batch = np.random.default_rng(0).integers(0, 256, (3, 3, 20, 24), np.uint8)
    mine, yours = PAIRS["efficientformer"]
    assert isinstance(outcome(yours, {}, batch, {}), Exception)
    one_by_one = outcome(yours, {}, list(batch), {"return_tensors": "np"})
    assert assert_same(outcome(mine, {}, batch, {"return_tensors": "np"}), one_by_one)
    for mine, yours in PAIRS.values():
        assert isinstance(outcome(yours, {}, batch[0], {"data_format": None}), ValueError)
        same = outcome(mine, {"size": 224}, batch[0].transpose(1, 2, 0), {"data_format": None})[0]
        assert same.shape == (224, 224, 3)
        assert isinstance(outcome(yours, {"size": np.int64(9)}, batch[0], {}), ValueError)
        assert outcome(mine, {"size": np.int64(9), "do_center_crop": False}, batch[0], {})[0].shape == (3, 9, 9)
    ragged = [batch[0].transpose(1, 2, 0), batch[0].transpose(2, 1, 0)]
    call = {"return_tensors": "np", "data_format": "channels_last", "do_resize": False, "do_center_crop": False}
    assert outcome(yours, {}, ragged, call)[0].dtype == object
    assert isinstance(outcome(mine, {}, ragged, call), ValueError)
    no_crop = {"do_center_crop": True, "crop_size": {"height": 0, "width": 4}}
    for mine, yours in (PAIRS["efficientformer"], PAIRS["efficientnet"]):
        assert outcome(yours, no_crop, batch[0], {})[0].shape == (3, 0, 4)
        assert isinstance(outcome(mine, no_crop, batch[0], {}), ValueError)


# --- files -----------------------------------------------------------------------------------------------------------

FILES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "swiftformer": {"do_normalize": True, "do_resize": True, "image_mean": [0.485, 0.456, 0.406], "size": 224},
    "l3": {"size": {"height": 256, "width": 256}, "crop_size": {"height": 224, "width": 224}, "resample": 3},
    "old": {"feature_extractor_type": "ViTFeatureExtractor", "size": [40, 30], "resample": 2, "crop_size": 20},
    "efficientnet": {
        **{"size": {"height": 224, "width": 224}, "resample": 0, "rescale_factor": 1 / 255, "rescale_offset": False},
        **{"image_mean": [0.485, 0.456, 0.406], "image_std": [0.47853944, 0.4732864, 0.47434163]},
    },
    "offset": {"rescale_offset": True, "rescale_factor": 1 / 127.5, "include_top": False, "image_std": 0.25},
    "unknown keys": {"crop_pct": 0.9, "processor_class": "P", "_valid_processor_keys": ["images"], "device": None},
}


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("name", PAIRS)
def test_files_of_either_side_load_on_the_other(name: str, file: str, tmp_path: Path) -> None:
    mine, yours = PAIRS[name]
    source = tmp_path / "source.json"
    source.write_text(json.dumps(FILES[file]))
    ours, theirs = mine.from_pretrained(source), yours.from_pretrained(source)
    assert json.loads(ours.to_json_string()) == json.loads(theirs.to_json_string())
    ours.save_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    assert (tmp_path / "ours/preprocessor_config.json").read_bytes() == (
        tmp_path / "theirs/preprocessor_config.json"
    ).read_bytes()
    picture = pil_picture(random.Random(0), "RGB", (50, 70))
    again = yours.from_pretrained(tmp_path / "ours")(picture)["pixel_values"]
    assert assert_same(mine.from_pretrained(tmp_path / "theirs")(picture)["pixel_values"], again)


def test_reads_the_file_of_a_fast_processor(tmp_path: Path) -> None:
    keys = dict.fromkeys(
        ("crop_size", "data_format", "device", "do_center_crop", "input_data_format", "return_tensors")
    )
    config = {**keys, "image_processor_type": "ViTImageProcessorFast", "size": SQUARE, "do_convert_rgb": None}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config))
    picture = pil_picture(random.Random(0), "RGB", (50, 70))
    theirs = transformers.ViTImageProcessor.from_pretrained(tmp_path)(picture)["pixel_values"]
    assert assert_same(ViTImageProcessor.from_pretrained(tmp_path)(picture)["pixel_values"], theirs)


@pytest.mark.parametrize("name", PAIRS)
def test_auto_class_of_transformers_reads_our_file(name: str, tmp_path: Path) -> None:
    mine, yours = PAIRS[name]
    mine(size={"shortest_edge": 256}).save_pretrained(tmp_path)
    loaded = transformers.AutoImageProcessor.from_pretrained(tmp_path, use_fast=False)
    assert type(loaded) is yours
    assert loaded.size == {"shortest_edge": 256}


# --- load_image ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [m for m in MODES if m not in ("F", "I") and not m.startswith("I;16")])
def test_load_image_as_the_pipelines_do(mode: str) -> None:
    for seed in range(5):
        picture = pil_picture(random.Random(seed), mode, (5, 8))
        if mode == "La":  # Pillow cannot convert it, so neither side reads it
            with pytest.raises(ValueError, match="conversion from La"):
                oracle_load_image(picture)
            with pytest.raises(ValueError, match="mode 'La'"):
                load_image(picture)
        else:
            assert load_image(picture).tobytes() == oracle_load_image(picture).tobytes()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_load_image_turns_as_the_pipelines_do(orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "picture.png"
    pil_picture(random.Random(orientation), "RGB", (5, 8)).save(path, exif=exif)
    ours, theirs = load_image(path), oracle_load_image(str(path))
    assert (ours.size, ours.tobytes()) == (theirs.size, theirs.tobytes())


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_load_image_leaves_deep_pictures_with_8_bit_values_as_the_pipelines_do(dtype: Any) -> None:
    picture = Image.fromarray(np.arange(256).reshape(8, 32).astype(dtype))
    assert load_image(picture).tobytes() == oracle_load_image(picture).tobytes()
