"""The ways in which a port may bring a picture to the model's size: other filters, no antialias, another crop."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ...picture import (
    BICUBIC,
    BILINEAR,
    BOX,
    HAMMING,
    LANCZOS,
    NEAREST,
    Array,
    center_crop,
    resize,
    shortest_edge_size,
)

Size = tuple[int, int]
Kernel = Callable[[Array], Array]


class Resampled(NamedTuple):
    """A picture brought to size in some way: what differs from the right one, and its levels 0..255 (1, C, H, W)."""

    keys: tuple[str, ...]
    texts: tuple[str, ...]
    levels: Array


class Plan(NamedTuple):
    """A picture is resized to a size, then cut to another; None leaves it. `corner`: where the cut starts."""

    text: str
    size: Size | None
    crop: Size | None
    corner: str = "centre"


class Filter(NamedTuple):
    """How a picture (C, H, W) of 8 bits becomes levels (C, *size)."""

    key: str
    text: str
    apply: Callable[[Array, Size], Array]


def ways(picture: Array, processor: Any, most: int) -> Iterator[Resampled]:
    """Ways to bring a picture (C, H, W) of 8 bits to size: the processor's first, all with up to `most` differences.

    A filter and a plan (what is resized to which size and cut where) may differ: one or both.
    """
    plans, filters = _plans(processor, picture.shape[1:]), _filters(processor.resample)
    for plan, how in itertools.product(plans, filters):
        texts = tuple(text for text in (plan.text, how.text) if text)
        if len(texts) > most or (plan.size is None and how.text):
            continue
        keys = (("input-crop",) if plan.text else ()) + ((how.key,) if how.text else ())
        resized = picture if plan.size is None else how.apply(picture, plan.size)
        yield Resampled(keys, texts, _cut(resized, plan).astype(np.float64)[None])


def _plans(processor: Any, whole: Size) -> list[Plan]:
    """The processor's own plan first, its text empty; then what else is usual for the same result."""
    height, width = whole
    target, edge = None, None
    if processor.do_resize:
        edge = processor.size.get("shortest_edge")
        given = processor.size
        target = shortest_edge_size(height, width, edge) if edge else (given["height"], given["width"])
    crops = getattr(processor, "do_center_crop", False)
    crop = (processor.crop_size["height"], processor.crop_size["width"]) if crops else None
    final = crop or target or whole
    right = Plan("", target, crop)
    plans = [
        right,
        Plan("the crop is left out", target, None),
        Plan(f"the whole picture is squashed into {final[0]} x {final[1]}", final, None),
        Plan("the picture is cropped without being resized", None, final),
        Plan("the picture is made to fit as a whole, with black around it", _fitting(whole, final), final),
        Plan("the crop starts at the upper left corner", target, crop, "corner"),
        Plan("the crop starts half a pixel further down and right", target, crop, "rounded up"),
    ]
    if edge:
        rounded = tuple(round(edge * side / min(whole)) for side in whole)
        plans.append(Plan("the longer side is rounded, not cut off, to whole pixels", (rounded[0], rounded[1]), crop))
    side = min(final)
    for other in dict.fromkeys((side, 256, *(int(side / part) for part in (0.875, 0.9, 0.95)), side * 248 // 224)):
        text = f"the shorter side becomes {other}, then {final[0]} x {final[1]} are cut out"
        plans.append(Plan(text, shortest_edge_size(height, width, other), final))
    seen: dict[tuple[Any, ...], Plan] = {}
    for plan in plans:
        cut = None if plan.crop == (plan.size or whole) else plan.crop
        seen.setdefault((plan.size, cut, plan.corner if cut else ""), plan)
    return list(seen.values())


def _fitting(whole: Size, final: Size) -> Size:
    ratio = min(final[0] / whole[0], final[1] / whole[1])
    return max(1, round(whole[0] * ratio)), max(1, round(whole[1] * ratio))


def _cut(image: Array, plan: Plan) -> Array:
    """The part of (C, H, W) that a plan keeps, with zeros where it is smaller."""
    if plan.crop is None:
        return image
    if plan.corner == "centre":
        return center_crop(image, plan.crop)
    out = np.zeros((len(image), *plan.crop), image.dtype)
    rest = [max(0, image.shape[axis + 1] - plan.crop[axis]) for axis in (0, 1)]
    top, left = ((r + 1) // 2 if plan.corner == "rounded up" else 0 for r in rest)
    part = image[:, top : top + plan.crop[0], left : left + plan.crop[1]]
    out[:, : part.shape[1], : part.shape[2]] = part
    return out


# --- filters ---------------------------------------------------------------------------------------------------------


def cubic_kernel(a: float) -> Kernel:
    """The bicubic kernel of that sharpness: -0.5 in Pillow and wherever antialias is on, -0.75 in OpenCV and torch."""

    def kernel(x: Array) -> Array:
        x = np.abs(x)
        inner = ((a + 2) * x - (a + 3)) * x * x + 1
        outer = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
        return np.where(x < 1, inner, np.where(x < 2, outer, 0))

    return kernel


def _hamming(x: Array) -> Array:
    return np.where(np.abs(x) < 1, np.sinc(x) * (0.54 + 0.46 * np.cos(np.pi * x)), 0)


def _lanczos(x: Array) -> Array:
    return np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0)


KERNELS: dict[int, tuple[str, Kernel, float]] = {  # by Pillow's number: name, weight of a distance, reach
    NEAREST: ("nearest", lambda x: np.where((x > -0.5) & (x <= 0.5), 1.0, 0.0), 0.5),
    BOX: ("box", lambda x: np.where((x > -0.5) & (x <= 0.5), 1.0, 0.0), 0.5),
    BILINEAR: ("bilinear", lambda x: np.maximum(0, 1 - np.abs(x)), 1),
    HAMMING: ("Hamming", _hamming, 1),
    BICUBIC: ("bicubic", cubic_kernel(-0.5), 2),
    LANCZOS: ("Lanczos", _lanczos, 3),
}


def _filters(resample: int) -> list[Filter]:
    """The processor's filter first, its text empty; then the other ones of Pillow, then those of other libraries."""
    instead = f"instead of {KERNELS[resample][0]} as Pillow does it"
    filters = [Filter("", "", lambda image, size: resize(image, size, resample))]
    for number, (name, kernel, reach) in KERNELS.items():
        if number != resample:
            text = f"resized with Pillow's {name} filter {instead}"
            filters.append(Filter("input-resize-filter", text, partial(resize, resample=number)))
        if number != NEAREST:
            key = "input-resize-rounding" if number == resample else "input-resize-filter"
            text = f"resized by {name} with antialias on floats, not rounded to 8 bits, {instead}"
            on_floats = partial(resample_floats, kernel=kernel, reach=reach, antialias=True)
            filters.append(Filter(key, text, on_floats))
    plain: dict[str, tuple[Kernel, float, bool]] = {
        "bilinear without antialias": (KERNELS[BILINEAR][1], 1, False),
        "bilinear without antialias, corners aligned": (KERNELS[BILINEAR][1], 1, True),
        "bicubic without antialias (a = -0.75)": (cubic_kernel(-0.75), 2, False),
        "bicubic without antialias (a = -0.5)": (cubic_kernel(-0.5), 2, False),
    }
    for text, (other, support, aligned) in plain.items():
        for rounded in (False, True):
            filters.append(
                Filter(
                    "input-resize-filter",
                    f"resized by {text}{', rounded to 8 bits' if rounded else ''}, {instead}",
                    partial(_plainly, kernel=other, reach=support, aligned=aligned, rounded=rounded),
                )
            )
    text = f"resized to the nearest pixel above and left, as OpenCV and torch do, {instead}"
    filters.append(Filter("input-resize-filter", text, nearest_above_left))
    return filters


def _plainly(image: Array, size: Size, kernel: Kernel, reach: float, aligned: bool, rounded: bool) -> Array:
    levels = resample_floats(image, size, kernel, reach, False, aligned)
    return np.clip(np.rint(levels), 0, 255) if rounded else levels


def nearest_above_left(image: Array, size: Size) -> Array:
    """Pixel floor(i * H / height) for each i, where Pillow takes the one at (i + 0.5): (C, H, W) -> (C, *size)."""
    rows, columns = (np.arange(n) * length // n for n, length in zip(size, image.shape[1:], strict=True))
    return image[:, rows][:, :, columns]


def resample_floats(
    image: Array, size: Size, kernel: Kernel, reach: float, antialias: bool, aligned: bool = False
) -> Array:
    """Resample without rounding: (C, H, W) -> (C, *size), float64.

    Each new pixel is a weighted sum of those within `reach` pixels of its centre; with `antialias` of as many more as
    the picture shrinks, and pixels outside do not count; without it the border's are repeated there. `aligned` puts
    the outermost pixels' centres on each other instead of their edges.
    """
    out: Array = image.astype(np.float64)
    for axis, wanted in enumerate(size, start=1):
        positions, weights = _taps(out.shape[axis], wanted, kernel, reach, antialias, aligned)
        shape = (-1, 1) if axis == 1 else (-1,)
        taps = (
            np.take(out, at, axis) * weight.reshape(shape) for at, weight in zip(positions.T, weights.T, strict=True)
        )
        out = functools.reduce(np.add, taps)
    return out


def _taps(
    length: int, wanted: int, kernel: Kernel, reach: float, antialias: bool, aligned: bool
) -> tuple[Array, Array]:
    """For each of the new pixels along an axis: which of the old ones it is made of, and their weights."""
    scale = length / wanted
    stretch = max(scale, 1.0) if antialias else 1.0
    centres = (np.arange(wanted) + 0.5) * scale
    if aligned:
        centres = np.arange(wanted) * ((length - 1) / max(wanted - 1, 1)) + 0.5
    first = np.floor(centres - reach * stretch).astype(int)
    positions = first[:, None] + np.arange(2 * math.ceil(reach * stretch) + 2)
    weights = kernel((positions + 0.5 - centres[:, None]) / stretch)
    if antialias:
        weights = np.where((positions >= 0) & (positions < length), weights, 0)
        weights = weights / weights.sum(1, keepdims=True)
    return np.clip(positions, 0, length - 1), weights
