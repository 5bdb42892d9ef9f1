"""timm's config.json: the model it is for, the names of the classes, and the preprocessing of the pictures.

timm's file has an `architecture` where transformers' has a `model_type`, and keeps under `pretrained_cfg` the settings
that transformers keeps in `preprocessor_config.json`. It holds no layer sizes: they follow from the architecture's
name (see `npformer.checkpoint.sources.timm`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ..checkpoint.sources.timm import ARCHITECTURES
from ..image import IMAGENET_MEAN, IMAGENET_STD, EfficientFormerImageProcessor
from ..picture import BICUBIC, BILINEAR, BOX, HAMMING, LANCZOS, NEAREST, Array

FILTERS = {
    "nearest": NEAREST, "lanczos": LANCZOS, "bilinear": BILINEAR, "bicubic": BICUBIC, "box": BOX, "hamming": HAMMING,
}  # fmt: skip
CROP_MODES = ("center", "squash")
# Names from before timm distinguished weights by a tag after a dot.
_OLD_NAMES = re.compile(r"(tf_efficientnet_b[0-8])_(?:ap|ns)|(efficientnet_b[23])a")


class TimmImageProcessor(EfficientFormerImageProcessor):
    """Image processor that follows timm's evaluation: resize, centre crop, rescale, normalise.

    The settings are EfficientFormerImageProcessor's, and so are the numbers, except for the position of the crop if an
    odd number of pixels is removed: the extra one is removed where that makes the offset from the top or left even
    (`round` of a half), instead of always at the bottom and right. So 224 of 235 rows begin with row 6, not 5.
    """

    def _transform(self, image: Array, settings: Mapping[str, Any]) -> Array:
        later = {"do_center_crop": False, "do_rescale": False, "do_normalize": False}
        image = super()._transform(image, {**settings, **later})
        if settings["do_center_crop"]:
            image = _center_crop(image, (settings["crop_size"]["height"], settings["crop_size"]["width"]))
        return super()._transform(image, {**settings, "do_resize": False, "do_center_crop": False})


def _center_crop(image: Array, size: tuple[int, int]) -> Array:
    """Crop the centre of a picture, with zeros where the picture is smaller: (C, H, W) -> (C, *size).

    out[c, i, j] = image[c, i + top, j + left], or 0 outside; top = round((H - height) / 2), halves to the even number,
    or, where the picture is padded, -floor((height - H) / 2). Likewise left.
    """
    out = np.zeros((len(image), *size), image.dtype)
    taken, placed = [], []
    for length, wanted in zip(image.shape[1:], size, strict=True):
        start = round((length - wanted) / 2) if length >= wanted else -((wanted - length) // 2)
        overlap = min(length, wanted)
        taken.append(slice(max(start, 0), max(start, 0) + overlap))
        placed.append(slice(max(-start, 0), max(-start, 0) + overlap))
    out[:, placed[0], placed[1]] = image[:, taken[0], taken[1]]
    return out


class TimmConfig(NamedTuple):
    """The content of a timm config.json.

    architecture: a key of `sources.timm.ARCHITECTURES`. labels: the classes' names, None where the file has none.
    num_channels, image_size: of the model's input, image_size being (height, width).
    """

    architecture: str
    num_labels: int
    labels: list[str] | None
    num_channels: int
    image_size: tuple[int, int]
    processor: TimmImageProcessor


def is_timm_config(config: Mapping[str, Any]) -> bool:
    """Return whether a config.json is timm's, including one that transformers wrote for timm."""
    return isinstance(config.get("architecture"), str) and config.get("model_type") in (None, "timm_wrapper")


def read_timm_config(config: Mapping[str, Any], *, test_size: bool = False) -> TimmConfig:
    """Read timm's config.json, given as a mapping.

    `test_size` selects the larger pictures with which some weights do better than with those they were trained on
    (timm's `use_test_size`); it has no effect where the file has none.

    Raises ValueError, or TypeError for a value of the wrong type, naming the key, for a model or settings that are not
    supported here.
    """
    architecture = _architecture(config)
    # The oldest files have one level only.
    inner = config.get("pretrained_cfg", config)
    _require(isinstance(inner, Mapping), "pretrained_cfg", inner, "a mapping")
    arguments = config.get("model_args") or {}
    _require(isinstance(arguments, Mapping), "model_args", arguments, "a mapping")
    for pool in (config.get("global_pool"), arguments.get("global_pool")):
        _require(pool in (None, "avg", "fastavg"), "global_pool", pool, "'avg'")
    changes = {name: value for name, value in arguments.items() if value is not None and not _is_harmless(name)}
    _require(not changes, "model_args", changes, "such that the model stays what its architecture says")

    number = config.get("num_classes", inner.get("num_classes", 1000))
    _require(type(number) is int and number >= 0, "num_classes", number, "a whole number of at least 0")
    names = config.get("label_names") or inner.get("label_names") or inner.get("labels")
    descriptions = config.get("label_descriptions") or inner.get("label_descriptions") or {}
    labels = _labels(names, descriptions, number) if names else None
    channels, height, width = _input_size(inner, arguments, test_size)
    processor = _processor(inner, height, width, test_size)
    return TimmConfig(architecture, number, labels, channels, (height, width), processor)


def _is_harmless(argument: str) -> bool:
    """Return whether an argument of timm's models is read here, or changes training only, such as drop_path_rate."""
    return argument in ("in_chans", "num_classes", "global_pool") or argument.endswith("_rate")


def _architecture(config: Mapping[str, Any]) -> str:
    """Return the current name, without the tag of its weights. Raises ValueError for models that are not here."""
    found = config.get("architecture")
    name = str(found).partition(".")[0]
    old = _OLD_NAMES.fullmatch(name)
    name = (old[1] or old[2]) if old else name
    _require(name in ARCHITECTURES, "architecture", found, "an EfficientFormer, EfficientNet or SwiftFormer of timm's")
    return name


def _input_size(inner: Mapping[str, Any], arguments: Mapping[str, Any], test_size: bool) -> tuple[int, int, int]:
    """Return the channels, height and width of the model's input."""
    key = "test_input_size" if test_size and inner.get("test_input_size") else "input_size"
    size = inner.get(key) or (3, 224, 224)
    whole = isinstance(size, list | tuple) and all(type(length) is int and length >= 1 for length in size)
    _require(whole and len(size) == 3, key, size, "three whole numbers: channels, height and width")
    channels = arguments.get("in_chans") or size[0]
    _require(type(channels) is int and channels >= 1, "in_chans", channels, "a whole number of at least 1")
    return channels, size[1], size[2]


def _processor(inner: Mapping[str, Any], height: int, width: int, test_size: bool) -> TimmImageProcessor:
    """Return a processor that crops the fraction `crop_pct` of the shorter side, or of both in mode "squash"."""
    key = "test_crop_pct" if test_size and inner.get("test_crop_pct") else "crop_pct"
    part = inner.get(key) or 0.875
    _require(isinstance(part, int | float) and 0 < part < math.inf, key, part, "a number above 0")
    interpolation = inner.get("interpolation") or "bicubic"
    known = isinstance(interpolation, str) and interpolation in FILTERS
    _require(known, "interpolation", interpolation, f"one of {', '.join(FILTERS)}")
    mode = inner.get("crop_mode") or "center"
    _require(mode in CROP_MODES, "crop_mode", mode, f"one of {', '.join(CROP_MODES)}")
    # For a rectangle it is undetermined which side is the shortest edge.
    _require(mode == "squash" or height == width, "input_size", (height, width), "a square for crop_mode 'center'")
    before = {"height": math.floor(height / part), "width": math.floor(width / part)}
    return TimmImageProcessor(
        size=before if mode == "squash" else {"shortest_edge": before["height"]},
        resample=FILTERS[interpolation],
        crop_size={"height": height, "width": width},
        image_mean=inner.get("mean") or IMAGENET_MEAN,
        image_std=inner.get("std") or IMAGENET_STD,
    )


def _labels(names: Any, descriptions: Any, number: int) -> list[str]:
    """Return the label of each class: its name's description where there is one, or else the name itself."""
    listed = isinstance(names, list | tuple)
    table = dict(enumerate(names)) if listed else names
    _require(isinstance(table, Mapping), "label_names", names, "a list, or a mapping from class number to name")
    _require(isinstance(descriptions, Mapping), "label_descriptions", descriptions, "a mapping from name to text")
    # A mapping may omit classes; a list that did would shift the later ones.
    fits = len(table) == number if listed else set(map(str, table)) <= set(map(str, range(number)))
    _require(fits, "label_names", names, f"the names of classes 0 to {number - 1}")
    called = {int(index): str(descriptions.get(str(name), name)) for index, name in table.items()}
    return [called.get(index, f"LABEL_{index}") for index in range(number)]


def _require(condition: bool, name: str, value: Any, expected: str) -> None:
    if not condition:
        shown = repr(value)
        raise ValueError(f"{name} must be {expected}, got {shown if len(shown) <= 100 else shown[:97] + '...'}")
