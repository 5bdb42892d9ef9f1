"""Ways in which a port may resize a picture: other filters, no antialiasing, another crop."""

from __future__ import annotations

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


NAMES = {
    NEAREST: "nearest", BOX: "box", BILINEAR: "bilinear", HAMMING: "Hamming", BICUBIC: "bicubic", LANCZOS: "Lanczos"
}  # fmt: skip


class Resampled(NamedTuple):
    """A resized picture: its differences from the right one, and its levels 0..255 (1, C, H, W)."""

    keys: tuple[str, ...]
    texts: tuple[str, ...]
    levels: Array


class Plan(NamedTuple):
    """A plan to resize a picture, then crop it; a None step is skipped. `corner`: where the crop starts."""

    text: str
    size: Size | None
    crop: Size | None
    corner: str = "centre"


class Filter(NamedTuple):
    """A function from a picture (C, H, W) of 8 bits and a size to levels (C, *size)."""

    key: str
    text: str
    apply: Callable[[Array, Size], Array]


def right_way(picture: Array, processor: Any) -> Resampled:
    """Return the processor's own result for a picture (C, H, W) of 8 bits."""
    plan, how = _plans(processor, picture.shape[1:])[0], _filters(processor.resample)[0]
    return Resampled((), (), _cut(_resized(picture, plan.size, how), plan).astype(np.float64)[None])


def ways(picture: Array, processor: Any, wanted: Size, differences: int) -> Iterator[Resampled]:
    """Yield other ways to resize a picture (C, H, W) of 8 bits, with so many differences from the processor's.

    The filter and the plan (sizes and crop) may differ: one or both.
    """
    plans = [p for p in _plans(processor, picture.shape[1:]) if (p.crop or p.size or picture.shape[1:]) == wanted]
    for size in dict.fromkeys(plan.size for plan in plans):
        for how in _filters(processor.resample):
            fitting = [p for p in plans if p.size == size and bool(p.text) + bool(how.text) == differences]
            if not fitting or (size is None and how.text):
                continue
            resized = _resized(picture, size, how)
            for plan in fitting:
                keys = (("input-crop",) if plan.text else ()) + ((how.key,) if how.text else ())
                texts = tuple(text for text in (plan.text, how.text) if text)
                yield Resampled(keys, texts, _cut(resized, plan).astype(np.float64)[None])


def _resized(picture: Array, size: Size | None, how: Filter) -> Array:
    return picture if size is None else how.apply(picture, size)


def _plans(processor: Any, whole: Size) -> list[Plan]:
    """Return the processor's own plan first, with an empty text; then other usual ones for the same size."""
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
    """Return the part of (C, H, W) that a plan keeps, with zeros where it is smaller."""
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
    """Return the bicubic kernel of a parameter: -0.5 in Pillow and with antialiasing, -0.75 in OpenCV and torch."""

    def kernel(x: Array) -> Array:
        x = np.abs(x)
        inner = ((a + 2) * x - (a + 3)) * x * x + 1
        outer = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
        return np.where(x < 1, inner, np.where(x < 2, outer, 0))

    return kernel


def triangle(x: Array) -> Array:
    """Return the bilinear kernel."""
    return np.maximum(0, 1 - np.abs(x))


def _filters(resample: int) -> list[Filter]:
    """Return the processor's filter first, with an empty text; then Pillow's others, then those of other libraries."""
    instead = f"instead of {NAMES[resample]} as Pillow does it"
    filters = [Filter("", "", partial(resize, resample=resample))]
    for number, name in NAMES.items():
        if number != resample:
            text = f"resized with Pillow's {name} filter {instead}"
            filters.append(Filter("input-resize-filter", text, partial(resize, resample=number)))
        if number != NEAREST:
            key = "input-resize-rounding" if number == resample else "input-resize-filter"
            text = f"resized by {name} with antialias on floats, not rounded to 8 bits, {instead}"
            filters.append(Filter(key, text, partial(resize_floats, resample=number)))
    plain: dict[str, tuple[Kernel, int, bool]] = {
        "bilinear without antialias": (triangle, 1, False),
        "bilinear without antialias, corners aligned": (triangle, 1, True),
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


def _plainly(image: Array, size: Size, kernel: Kernel, reach: int, aligned: bool, rounded: bool) -> Array:
    levels = resample(image, size, kernel, reach, aligned)
    return np.clip(np.rint(levels), 0, 255) if rounded else levels


def nearest_above_left(image: Array, size: Size) -> Array:
    """Take pixel floor(i * H / height) for each i, where Pillow takes that at (i + 0.5): (C, H, W) -> (C, *size)."""
    rows, columns = (np.arange(n) * length // n for n, length in zip(size, image.shape[1:], strict=True))
    return image[:, rows][:, :, columns]


def resize_floats(image: Array, size: Size, resample: int) -> Array:
    """Resize with Pillow's filters, antialiased as always there, on floats and unrounded: (C, H, W) -> (C, *size)."""
    from PIL import Image

    channels = [Image.fromarray(channel.astype(np.float32)) for channel in image]
    return np.stack([np.asarray(channel.resize(size[::-1], resample)) for channel in channels])


def resample(image: Array, size: Size, kernel: Kernel, reach: int, aligned: bool = False) -> Array:
    """Resample without antialias and without rounding: (C, H, W) -> (C, *size), float64.

    Each new pixel is a weighted sum of those within `reach` pixels of its centre, with the border repeated outside.
    `aligned` aligns the centres of the outermost pixels instead of their edges.
    """
    out = image
    for axis, wanted in enumerate(size, start=1):
        length = out.shape[axis]
        centres = (np.arange(wanted) + 0.5) * (length / wanted)
        if aligned:
            centres = np.arange(wanted) * ((length - 1) / max(wanted - 1, 1)) + 0.5
        first = np.floor(centres - reach).astype(int)
        made: Array = np.zeros(1)
        for position in (first + tap for tap in range(2 * reach + 1)):
            weights = kernel(position + 0.5 - centres).reshape((-1, 1) if axis == 1 else (-1,))
            if np.any(weights):
                made = made + np.take(out, np.clip(position, 0, length - 1), axis) * weights
        out = made
    return out
