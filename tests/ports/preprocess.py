"""The port's own way from a picture to `pixel_values`, with the faults that are common there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from .arithmetic import Array
from .faults import Fault

AT = "pixel_values"
_OTHER_STATISTICS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "halves": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}
_FILTERS = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "box": 4}
INPUT_KINDS = (
    "input-bgr",
    "input-not-rescaled",
    "input-not-normalised",
    "input-rescaled-twice",
    "input-other-mean-std",
    "input-resize-filter",
    "input-layout",
)


def input_sites(settings: Mapping[str, Any]) -> list[Fault]:
    """All input faults that differ from what a processor's settings ask for."""
    mean, std = tuple(settings["image_mean"]), tuple(settings["image_std"])
    versions: dict[str, list[str]] = {
        "input-other-mean-std": [name for name, pair in _OTHER_STATISTICS.items() if pair != (mean, std)],
        "input-resize-filter": [name for name, number in _FILTERS.items() if number != settings["resample"]],
    }
    return [Fault(key, AT, detail) for key in INPUT_KINDS for detail in versions.get(key, [""])]


def preprocess(picture: Array, settings: Mapping[str, Any], faults: Sequence[Fault] = ()) -> Array:
    """A colour picture of 8 bits (H, W, 3) to pixel_values (1, 3, height, width), as a processor's settings say.

    Resized with Pillow to settings["size"], the aspect ratio not kept, then x / 255, then (x - mean) / std; with
    "include_top" divided by std once more, as EfficientNet's weights were trained.

    Raises ValueError for a picture or settings of another sort, and for a fault that is no input fault.
    """
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise ValueError(f"picture must be (H, W, 3) of uint8, got {picture.shape} of {picture.dtype}")
    for fault in faults:
        if fault.key not in INPUT_KINDS or fault.at != AT:
            raise ValueError(f"{fault} is no fault of the input")
    wrong = {fault.key: fault.detail for fault in faults}
    size = settings["size"]["width"], settings["size"]["height"]
    resample = _FILTERS[wrong["input-resize-filter"]] if "input-resize-filter" in wrong else settings["resample"]
    x: Array = np.asarray(Image.fromarray(picture).resize(size, resample), np.float32)
    if "input-bgr" in wrong:
        x = x[..., ::-1]
    if "input-not-rescaled" not in wrong:
        x = x / np.float32(255)
    if "input-rescaled-twice" in wrong:
        x = x / np.float32(255)
    if "input-not-normalised" not in wrong:
        statistics = _OTHER_STATISTICS.get(wrong.get("input-other-mean-std", ""))
        mean, std = statistics or (settings["image_mean"], settings["image_std"])
        x = (x - np.array(mean, np.float32)) / np.array(std, np.float32)
        if settings.get("include_top"):
            x = x / np.array(std, np.float32)
    if "input-layout" in wrong:
        return np.ascontiguousarray(x).reshape(1, 3, *x.shape[:2])
    return np.ascontiguousarray(x.transpose(2, 0, 1))[None]
