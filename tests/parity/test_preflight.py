"""The port's input against ours: rounding passes, and whatever was done to the picture instead is named."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from PIL import Image

from npformer.image import EfficientFormerImageProcessor, EfficientNetImageProcessor, ViTImageProcessor
from npformer.parity.noise import round_to
from npformer.parity.preflight import InputCheck, check_input, describe_input
from npformer.parity.preflight.resampling import (
    NAMES,
    cubic_kernel,
    nearest_above_left,
    resample,
    resize_floats,
    triangle,
)
from npformer.picture import center_crop
from tests.sweep import sweep

DTYPES = ["float32", "float16", "bfloat16"]
IMAGENET = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
PROCESSORS: dict[str, Any] = {
    "former": EfficientFormerImageProcessor(size={"shortest_edge": 48}, crop_size=41),
    "net": EfficientNetImageProcessor(
        size=(43, 37), resample=2, image_mean=[0.485, 0.456, 0.406], image_std=[0.4785, 0.4733, 0.4743]
    ),
    "swift": ViTImageProcessor(size=(40, 40)),
}
SIZES = {"wide": (97, 131), "high": (150, 91)}
CASES = [pytest.param(name, size, id=f"{name}-{size}") for name in PROCESSORS for size in SIZES]


def picture(height: int, width: int) -> Image.Image:
    """Waves, noise and a colour cast: no symmetry, all levels."""
    y, x = np.mgrid[:height, :width]
    waves = [128 + 60 * np.sin(x / (9 + c) + c) + 50 * np.cos(y / 7 - c) + 25 * (c - 1) for c in range(3)]
    noise = np.random.default_rng(height).normal(0, 25, (height, width, 3))
    return Image.fromarray(np.clip(np.stack(waves, -1) + noise, 0, 255).astype(np.uint8))


class Port:
    """A port that prepares pictures itself, in float64, with one thing or two done otherwise."""

    def __init__(self, name: str, size: str, batch: int = 1) -> None:
        self.processor = PROCESSORS[name]
        self.pictures = [picture(*SIZES[size])]
        self.pictures += [self.pictures[0].transpose(Image.Transpose.ROTATE_180)] * (batch - 1)
        self.ours = self.processor(self.pictures, return_tensors="np")["pixel_values"]
        self.mean = np.broadcast_to(np.reshape(self.processor.image_mean, (-1, 1, 1)), (3, 1, 1))
        self.std = np.broadcast_to(np.reshape(self.processor.image_std, (-1, 1, 1)), (3, 1, 1))
        self.divisions = 2 if name == "net" else 1
        self.levels = np.rint((self.ours * self.std**self.divisions + self.mean) * 255)

    def normalise(self, x: np.ndarray, mean: Any = None, std: Any = None) -> np.ndarray:
        if mean is not None:
            return (x - np.reshape(mean, (-1, 1, 1))) / np.reshape(std, (-1, 1, 1))
        return (x - self.mean) / self.std**self.divisions

    @property
    def right(self) -> np.ndarray:
        return self.normalise(self.levels / 255)

    def check(self, theirs: np.ndarray, dtype: str = "float32", **given: Any) -> InputCheck:
        given.setdefault("processor", self.processor)
        rounded = round_to(np.ascontiguousarray(theirs, np.float32), dtype)
        return check_input(self.ours, rounded, dtype=dtype, **given)


def keys(check: InputCheck) -> list[str]:
    return [cause.key for cause in check.causes]


# torch.nn.functional.interpolate of k**2 % 17, k = 0 ... 11, to five values, without and with antialias.
TORCH = {
    "bilinear": [0.7, 9.7, 5.0, 13.2, 11.1],
    "bicubic": [0.39025, 9.93175, 3.03125, 13.25175, 11.5935],
    "bilinear antialias": [1.48, 9.186441, 8.375, 12.677966, 10.1],
    "bicubic antialias": [0.849482, 9.8007, 8.096692, 13.281948, 9.812064],
}

FAULTS: dict[str, tuple[str, Any]] = {
    "bgr after": ("input-bgr", lambda p: p.right[:, ::-1]),
    "bgr before": ("input-bgr", lambda p: p.normalise(p.levels[:, ::-1] / 255)),
    "rbg": ("input-channels-permuted", lambda p: p.right[:, [0, 2, 1]]),
    "not rescaled": ("input-not-rescaled", lambda p: p.normalise(p.levels)),
    "rescaled twice": ("input-rescaled-twice", lambda p: p.normalise(p.levels / 255 / 255)),
    "minus one": ("input-rescale-offset", lambda p: p.normalise(p.levels / 255 - 1)),
    "not normalised": ("input-not-normalised", lambda p: p.levels / 255),
    "normalised twice": ("input-normalised-twice", lambda p: p.normalise(p.normalise(p.levels / 255))),
    "normalised first": ("input-normalised-before-rescaling", lambda p: p.normalise(p.levels) / 255),
    "mean only": ("input-other-mean-std", lambda p: p.levels / 255 - p.mean),
    "deviation only": ("input-other-mean-std", lambda p: p.levels / 255 / p.std**p.divisions),
    "odd mean": (
        "input-other-mean-std",
        lambda p: p.normalise(p.levels / 255, [0.41, 0.42, 0.44], [0.21, 0.22, 0.26]),
    ),
    "division": ("input-second-division", lambda p: (p.levels / 255 - p.mean) / p.std ** (3 - p.divisions)),
    "layout": ("input-layout", lambda p: p.right.transpose(0, 2, 3, 1).reshape(p.right.shape)),
    "other layout": (
        "input-layout",
        lambda p: p.right.reshape(-1, *p.right.shape[2:], 3).transpose(0, 3, 1, 2),
    ),
    "mirrored": ("input-flipped", lambda p: p.right[..., ::-1]),
    "upside down": ("input-flipped", lambda p: p.right[:, :, ::-1]),
    "shifted": ("input-shifted", lambda p: np.pad(p.right, ((0, 0), (0, 0), (1, 0), (0, 0)))[:, :, :-1]),
    "shifted back": ("input-shifted", lambda p: np.pad(p.right, ((0, 0), (0, 0), (0, 1), (0, 1)))[:, :, 1:, 1:]),
    "cropped": ("input-crop", lambda p: p.right[:, :, 1:, :-1]),
    "padded": ("input-padded", lambda p: np.pad(p.right, ((0, 0), (0, 0), (1, 1), (2, 0)))),
    "raw": ("input-not-rescaled+input-not-normalised", lambda p: p.levels),
    "raw bgr": ("input-not-rescaled+input-bgr", lambda p: p.normalise(p.levels[:, ::-1])),
    "plain mirrored": ("input-not-normalised+input-flipped", lambda p: p.levels[..., ::-1] / 255),
    "odd bgr": (
        "input-bgr+input-other-mean-std",
        lambda p: p.normalise(p.levels / 255, [0.41, 0.42, 0.44], [0.21, 0.22, 0.26])[:, ::-1],
    ),
}


@pytest.mark.parametrize(("name", "size"), CASES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_rounding_to_the_ports_dtype_is_no_finding(name: str, size: str, dtype: str) -> None:
    port = Port(name, size, batch=2)
    check = port.check(port.right, dtype)
    assert check.finding is None
    assert check.causes == []
    assert check.ratio < 1


@pytest.mark.parametrize(
    ("name", "size", "dtype"),
    sweep(
        [(name, size, dtype) for name in PROCESSORS for size in SIZES for dtype in DTYPES[1:]],
        [("swift", "wide", "bfloat16"), ("net", "wide", "float16")],
    ),
)
def test_arithmetic_in_half_precision_is_no_finding(name: str, size: str, dtype: str) -> None:
    """Every step rounded, in three usual ways to write it."""
    port = Port(name, size)
    std = port.std**port.divisions

    def half(x: np.ndarray) -> np.ndarray:
        return round_to(np.asarray(x, np.float32), dtype)

    steps = half(half(half(port.levels / 255) - half(port.mean)) / half(std))
    line = half(half(half(port.levels) * half(1 / 255 / std)) + half(-port.mean / std))
    product = half(half(half(half(port.levels) * half(np.float32(1 / 255))) - half(port.mean)) * half(1 / std))
    for theirs in (steps, line, product):
        check = port.check(theirs, dtype, picture=port.pictures[0])
        assert check.finding is None, check.finding
        assert 0.05 < check.ratio <= 1


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(
    ("name", "size", "dtype"),
    sweep(
        [(name, size, "float32") for name in PROCESSORS for size in SIZES]
        + [("former", "wide", "bfloat16"), ("net", "high", "float16"), ("swift", "wide", "bfloat16")],
        [("former", "wide", "bfloat16"), ("net", "high", "float16"), ("swift", "wide", "float32")],
    ),
)
def test_every_mistake_is_named(name: str, size: str, dtype: str, fault: str) -> None:
    key, make = FAULTS[fault]
    port = Port(name, size, batch=2)
    check = port.check(make(port), dtype)
    assert check.finding is not None
    assert check.finding.bad
    assert check.finding.kind == "input"
    assert check.ratio > 1
    assert keys(check) == [key], check.causes
    assert check.causes[0].op == "input"
    assert check.causes[0].ratio < 2
    assert check.causes[0].text in check.finding.text


def test_a_mistake_is_found_without_a_processor_from_mean_and_deviation_or_from_the_pixels_alone() -> None:
    port = Port("former", "wide")
    theirs = port.normalise(port.levels[:, ::-1])
    for given in ({"image_mean": IMAGENET[0], "image_std": IMAGENET[1]}, {}):
        assert keys(port.check(theirs, processor=None, **given)) == ["input-not-rescaled+input-bgr"]
    net = Port("net", "wide")
    given = {"image_mean": net.processor.image_mean, "image_std": net.processor.image_std}
    theirs = (
        net.levels / 255 - net.mean
    ) / net.std  # divided once: mean and deviation alone do not say that we do twice
    assert keys(net.check(theirs, processor=None, **given)) == ["input-second-division"]


def test_pixels_of_unknown_making_are_compared_all_the_same() -> None:
    ours = np.random.default_rng(0).standard_normal((2, 3, 21, 34))
    theirs = ours.astype(np.float32)
    assert check_input(ours, theirs, dtype="float32").finding is None
    assert keys(check_input(ours, theirs[..., ::-1], dtype="float32")) == ["input-flipped"]
    found = check_input(ours, 2 * theirs + 1, dtype="float32")
    assert keys(found) == ["input-other-mean-std"]
    assert "times (2, 2, 2) plus (1, 1, 1)" in found.causes[0].text


def test_the_better_of_two_explanations_is_given_and_of_equals_both() -> None:
    """Red and green alike but for some levels: in bfloat16 it hardly shows whether they are swapped."""
    random = np.random.default_rng(0)
    levels = random.integers(2, 254, (1, 3, 40, 30)).astype(np.float64)
    levels[:, 1] = levels[:, 0] + random.integers(-1, 2, (40, 30))
    for near in (True, False):
        levels[:, 1] = levels[:, 1] if near else levels[:, 0]
        ours = (levels / 255 - 0.5) / 0.5
        theirs = round_to(ours[:, ::-1].astype(np.float32), "bfloat16")
        found = keys(check_input(ours, theirs, dtype="bfloat16", image_mean=0.5, image_std=0.5))
        assert found == (["input-bgr"] if near else ["input-bgr", "input-channels-permuted"])


def test_other_mean_and_deviation_are_told() -> None:
    port = Port("former", "wide")
    theirs = port.normalise(port.levels / 255, [0.41, 0.42, 0.44], [0.21, 0.22, 0.26])
    assert "mean (0.41, 0.42, 0.44) and deviation (0.21, 0.22, 0.26)" in port.check(theirs).causes[0].text
    halves = (port.levels / 255 - 0.5) / 0.5
    assert "Inception" in port.check(halves).causes[0].text
    swift = Port("swift", "wide")
    assert "ImageNet" in swift.check(swift.normalise(swift.levels / 255, *IMAGENET)).causes[0].text


def test_a_transposed_picture_is_named_whether_square_or_not() -> None:
    square, oblong = Port("swift", "wide"), Port("net", "wide")
    for port in (square, oblong):
        check = port.check(port.right.swapaxes(2, 3))
        assert keys(check) == ["input-transposed"]
        assert check.finding is not None
        assert check.finding.bad


def test_the_order_of_the_batch() -> None:
    port = Port("former", "wide", batch=2)
    assert keys(port.check(port.right[::-1])) == ["input-batch-order"]


@pytest.mark.parametrize("name", PROCESSORS)
def test_another_layout_alone_is_no_fault(name: str) -> None:
    port = Port(name, "wide", batch=2)
    last = port.right.transpose(0, 2, 3, 1)
    for theirs, word in (
        (last, "channels last"),
        (last.reshape(2, -1), "channels last, flattened"),
        (port.right.reshape(-1), "flattened"),
    ):
        check = port.check(theirs)
        assert check.finding is not None
        assert not check.finding.bad
        assert check.finding.text.endswith(f"is ours, {word}")
    one = Port(name, "wide")
    assert "without the axis of the batch" in str(one.check(one.right[0]).finding)
    assert "channels last" in str(one.check(one.right[0].transpose(1, 2, 0)).finding)
    wrong = port.check(last[..., ::-1])
    assert keys(wrong) == ["input-bgr"]
    assert wrong.finding is not None
    assert wrong.finding.bad


def test_what_no_cause_explains_is_told_with_its_place() -> None:
    port = Port("former", "wide")
    theirs = port.right + np.random.default_rng(0).normal(0, 0.05, port.right.shape)
    theirs[0, 2, 5, 7] += 3
    check = port.check(theirs, picture=port.pictures[0])
    assert check.finding is not None
    assert check.finding.bad
    assert check.causes == []
    assert "no usual cause" in check.finding.text
    assert "[0, 2, 5, 7]" in check.finding.text


def test_one_wrong_pixel_is_found_and_not_taken_for_something_else() -> None:
    """Candidates are tried on a sample first: what holds there must hold everywhere."""
    ours = np.random.default_rng(0).standard_normal((2, 3, 80, 70))
    theirs = ours.astype(np.float32)
    theirs[1, 2, 3, 4] += 0.1
    check = check_input(ours, theirs, dtype="float32")
    assert check.finding is not None
    assert check.finding.bad
    assert check.causes == []
    flipped = theirs[..., ::-1]
    assert check_input(ours, flipped, dtype="float32").causes == []


def test_values_that_are_not_finite() -> None:
    port = Port("swift", "wide")
    theirs = port.right.copy()
    theirs[0, 0, 0, 0] = np.nan
    check = port.check(theirs)
    assert check.finding is not None
    assert check.finding.bad
    assert "1 values that are NaN or inf" in check.finding.text
    assert check.ratio == np.inf


# --- resizing --------------------------------------------------------------------------------------------------------


def resized(port: Port, levels: np.ndarray, size: tuple[int, int] | None = None) -> np.ndarray:
    """Levels of a resized picture, cut and normalised."""
    final = port.ours.shape[2:] if size is None else size
    return port.normalise(center_crop(levels, final)[None] / 255)


def target(port: Port, size: str) -> tuple[int, int]:
    height, width = SIZES[size]
    if isinstance(port.processor, EfficientFormerImageProcessor):
        return (48, int(48 * width / height)) if height < width else (int(48 * height / width), 48)
    return port.ours.shape[2:]


@pytest.mark.parametrize(
    ("name", "size", "dtype"),
    sweep(
        [(name, size, dtype) for name in PROCESSORS for size in SIZES for dtype in DTYPES],
        [("former", "wide", "float16"), ("net", "high", "bfloat16"), ("swift", "wide", "float32")],
    ),
)
def test_another_filter_of_pillow_is_named(name: str, size: str, dtype: str) -> None:
    port = Port(name, size)
    for number, word in NAMES.items():
        theirs = port.processor(port.pictures, return_tensors="np", resample=number)["pixel_values"]
        check = port.check(theirs, dtype, picture=port.pictures[0])
        if number == port.processor.resample:
            assert check.finding is None
        else:
            assert keys(check) == ["input-resize-filter"], word
            assert f"Pillow's {word} filter" in check.causes[0].text
            assert port.check(theirs, dtype).causes == []


@pytest.mark.parametrize(
    ("name", "size"),
    sweep([(name, size) for name in PROCESSORS for size in SIZES], [("former", "high")]),
)
def test_filters_of_other_libraries_are_named(name: str, size: str) -> None:
    port = Port(name, size)
    source = np.moveaxis(np.asarray(port.pictures[0]), -1, 0)
    goal = target(port, size)
    cubic = cubic_kernel(-0.5)
    ways = {
        "bilinear without antialias, ": resample(source, goal, triangle, 1),
        "bilinear without antialias, corners aligned": resample(source, goal, triangle, 1, True),
        "bicubic without antialias (a = -0.5)": resample(source, goal, cubic, 2),
        "nearest pixel above and left": nearest_above_left(source, goal),
    }
    for text, levels in ways.items():
        check = port.check(resized(port, levels), picture=port.pictures[0])
        assert keys(check) == ["input-resize-filter"]
        assert text in check.causes[0].text
    swapped = resized(port, ways["bilinear without antialias, "])[:, ::-1]
    assert keys(port.check(swapped, picture=port.pictures[0])) == ["input-resize-filter+input-bgr"]
    plain = ways["bilinear without antialias, "]
    left = center_crop(plain, port.ours.shape[2:])[None] / 255
    assert keys(port.check(left, picture=port.pictures[0])) == ["input-resize-filter+input-not-normalised"]
    floats = resize_floats(source, goal, port.processor.resample)
    check = port.check(resized(port, floats), picture=port.pictures[0])
    assert keys(check) == ["input-resize-rounding"]


def test_levels_rounded_elsewhere_are_named() -> None:
    port = Port("former", "wide")
    moved = np.clip(port.levels + np.random.default_rng(0).integers(-1, 2, port.levels.shape), 0, 255)
    check = port.check(port.normalise(moved / 255))
    assert keys(check) == ["input-resize-rounding"]
    assert "one level of 255" in check.causes[0].text
    assert port.check(port.normalise((port.levels + 3 * (moved - port.levels)) / 255)).causes == []


@pytest.mark.parametrize("size", SIZES)
def test_crops_are_named(size: str) -> None:
    port = Port("former", size)
    call = {"return_tensors": "np"}
    others = {
        "the crop is left out": port.processor(port.pictures, do_center_crop=False, **call),
        "squashed into 41 x 41": port.processor(port.pictures, size=41, **call),
        "the shorter side becomes 41": port.processor(port.pictures, size={"shortest_edge": 41}, **call),
        "the shorter side becomes 46": port.processor(port.pictures, size={"shortest_edge": 46}, **call),
        "cropped without being resized": port.processor(port.pictures, do_resize=False, **call),
    }
    for text, made in others.items():
        check = port.check(made["pixel_values"], picture=port.pictures[0])
        assert keys(check) == ["input-crop"], text
        assert text in check.causes[0].text
    both = port.processor(port.pictures, size=41, resample=0, **call)["pixel_values"]
    assert keys(port.check(both, picture=port.pictures[0])) == ["input-crop+input-resize-filter"]


@pytest.mark.parametrize("size", SIZES)
def test_crops_that_start_elsewhere_are_named(size: str) -> None:
    port = Port("former", size)
    whole = port.processor(port.pictures, return_tensors="np", do_center_crop=False)["pixel_values"][0]
    rest = [length - 41 for length in whole.shape[1:]]
    corner = whole[:, :41, :41]
    later = whole[:, (rest[0] + 1) // 2 :, (rest[1] + 1) // 2 :][:, :41, :41]
    for theirs, text in ((corner, "starts at the upper left corner"), (later, "half a pixel further")):
        check = port.check(theirs[None], picture=port.pictures[0])
        assert keys(check) == ["input-crop"]
        assert text in check.causes[0].text
    assert keys(port.check(later[None])) == ["input-shifted"]


def test_half_precision_hides_no_filter_that_makes_a_difference() -> None:
    """Smooth pictures differ little from filter to filter, but by more than a cast to bfloat16 does."""
    y, x = np.mgrid[:97, :131]
    smooth = Image.fromarray(np.stack([127 + 100 * np.sin((x + c * y) / 17) for c in range(3)], -1).astype(np.uint8))
    port = Port("swift", "wide")
    port.pictures = [smooth]
    port.ours = port.processor(smooth, return_tensors="np")["pixel_values"]
    theirs = port.processor(smooth, return_tensors="np", resample=0)["pixel_values"]
    near = port.processor(smooth, return_tensors="np", resample=5)["pixel_values"]
    for dtype in DTYPES:
        assert keys(port.check(theirs, dtype, picture=smooth)) == ["input-resize-filter"]
        check = port.check(near, dtype, picture=smooth)
        assert keys(check) == ["input-resize-filter"]
        assert "Hamming" in check.causes[0].text


def test_a_picture_that_is_not_ours_is_said_to_be_of_no_use() -> None:
    port = Port("former", "wide")
    theirs = port.processor(port.pictures, return_tensors="np", resample=0)["pixel_values"]
    check = port.check(theirs, picture=picture(*SIZES["high"]))
    assert check.causes == []
    assert "does not make our pixel_values" in str(check.finding)


def test_a_picture_may_be_a_path_or_an_array(tmp_path: Any) -> None:
    port = Port("swift", "wide", batch=2)  # only the first picture of the batch is given
    theirs = port.processor(port.pictures, return_tensors="np", resample=0)["pixel_values"]
    path = tmp_path / "picture.png"
    port.pictures[0].save(path)
    for given in (path, np.asarray(port.pictures[0])):
        assert keys(port.check(theirs, picture=given)) == ["input-resize-filter"]


def test_resampling_agrees_with_torch() -> None:
    """Values of torch.nn.functional.interpolate: bilinear, then bicubic, without and with antialias."""
    x = (np.arange(12) ** 2 % 17).reshape(1, 1, 12).astype(np.float64)
    ours = {
        "bilinear": resample(x, (1, 5), triangle, 1),
        "bicubic": resample(x, (1, 5), cubic_kernel(-0.75), 2),
        "bilinear antialias": resize_floats(x, (1, 5), 2),
        "bicubic antialias": resize_floats(x, (1, 5), 3),
    }
    for name, values in TORCH.items():
        np.testing.assert_allclose(ours[name][0, 0], values, atol=2e-6)


# --- our own input ---------------------------------------------------------------------------------------------------


def test_our_own_input_is_looked_at() -> None:
    port = Port("former", "wide")
    assert describe_input(port.ours, *IMAGENET) is None
    for values, word in ((port.levels, "0..255"), (port.levels / 255, "0..1")):
        for given in (IMAGENET, ()):
            finding = describe_input(values, *given)
            assert finding is not None
            assert not finding.bad
            assert word in finding.text
    assert describe_input(port.levels / 255, 0, 1) is None  # the model wants 0..1
    for wrong in (np.nan, np.inf):
        values = port.ours.copy()
        values[0, 1, 2, 3] = wrong
        with pytest.raises(ValueError, match="1 values of"):
            describe_input(values)


def test_bad_arguments_are_refused() -> None:
    ours = np.zeros((1, 3, 8, 8), np.float32)
    with pytest.raises(ValueError, match="dtype must be one of"):
        check_input(ours, ours, dtype="int8")
    with pytest.raises(ValueError, match="shape"):
        check_input(ours[0], ours, dtype="float32")
    with pytest.raises(ValueError, match="none of them 0"):
        check_input(ours[:0], ours, dtype="float32")
    with pytest.raises(ValueError, match="finite"):
        check_input(ours + np.nan, ours, dtype="float32")


def test_nothing_warns_for_a_black_picture() -> None:
    ours = np.zeros((1, 3, 8, 8), np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert check_input(ours, ours, dtype="float16").finding is None
        assert check_input(ours, ours + 1, dtype="float16").finding is not None
        for shape in (
            (1, 3, 3),
            (1, 3, 0, 8),
            (0,),
            (),
            (2, 3, 8, 8),
            (1, 4, 8, 8),
            (1, 1, 3, 8, 8),
            (1, 3, 300, 200),
        ):
            check = check_input(ours, np.zeros(shape), dtype="float16")
            assert check.finding is not None
            assert check.finding.bad
            assert f"shape {shape}" in check.finding.text or shape == (1, 3, 3)
