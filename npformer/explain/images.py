"""Arrays as colour images: maps from dark to bright, signed maps from blue to red, heat maps over a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..ops import Array
from .walk import Image, Strip

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

# A few colours of each scale, interpolated between. Brightness rises (or falls from the middle) steadily, so that both
# are legible in grey, and blue and red are distinguishable with nearly any colour vision.
MAGNITUDE = np.array([[12, 10, 50], [58, 40, 120], [45, 110, 142], [60, 180, 117], [246, 230, 80]], np.float64)
SIGNED = np.array([[12, 70, 150], [120, 170, 215], [247, 247, 245], [240, 150, 110], [165, 20, 35]], np.float64)
MARK = (255, 220, 0)


def coloured(strip: Strip, picture: Array, side: int) -> list[Picture]:
    """Colour the images of a strip, `side` pixels high: maps in sharp pixels, smooth heat over `picture` (H, W, 3)."""
    limit = max(float(np.abs(image.values).max(initial=0)) for image in strip.images) or 1.0
    return [_coloured(strip.kind, image, limit, picture, side) for image in strip.images]


def _coloured(kind: str, image: Image, limit: float, picture: Array, side: int) -> Picture:
    from PIL import Image as Pictures

    values = np.asarray(image.values, np.float64)
    if kind == "over":
        drawn = _over(values, picture, side)
    else:
        if kind == "signed":
            shares, scale = (values / limit + 1) / 2, SIGNED
        else:
            shares, scale = (values - values.min()) / (np.ptp(values) or 1.0), MAGNITUDE
        small = Pictures.fromarray(_blend(shares, scale))
        drawn = small.resize(_size(values.shape, side), Pictures.Resampling.NEAREST)
    if image.mark is not None:
        _ring(drawn, image.mark, values.shape)
    return drawn


def _over(values: Array, picture: Array, side: int) -> Picture:
    """Blend a heat map over the picture in grey: signed values from blue to red, others from transparent to red."""
    from PIL import Image as Pictures

    size = _size(picture.shape, side)
    strength = np.abs(values) if values.min() < 0 else values - values.min()
    strength = strength / (strength.max() or 1.0)
    sign = np.sign(values) if values.min() < 0 else np.ones_like(values)
    smooth = Pictures.fromarray((sign * strength).astype(np.float32)).resize(size, Pictures.Resampling.BICUBIC)
    heat = np.clip(np.asarray(smooth, np.float64), -1, 1)
    grey = np.asarray(Pictures.fromarray(picture).convert("L").resize(size, Pictures.Resampling.BILINEAR), np.float64)
    ground = np.repeat((70 + grey * 0.6)[..., None], 3, axis=2)
    colour = np.where(heat[..., None] < 0, SIGNED[0], [226, 60, 20])
    share = 0.85 * np.abs(heat)[..., None]
    return Pictures.fromarray(np.rint(ground * (1 - share) + colour * share).astype(np.uint8))


def _ring(drawn: Picture, place: tuple[int, int], shape: tuple[int, ...]) -> None:
    """Mark a token by a square around it."""
    from PIL import ImageDraw

    down, across = drawn.height / shape[0], drawn.width / shape[1]
    corners = [place[1] * across, place[0] * down, (place[1] + 1) * across - 1, (place[0] + 1) * down - 1]
    ImageDraw.Draw(drawn).rectangle(corners, outline=MARK, width=max(2, drawn.height // 60))


def _size(shape: tuple[int, ...], side: int) -> tuple[int, int]:
    """Return the width and height of a picture of that shape, scaled to the height `side`."""
    return max(1, round(side * shape[1] / shape[0])), side


def _blend(shares: Array, colours: Array) -> Array:
    """Map values 0 to 1 to the colours of a scale, uint8 (H, W, 3)."""
    places = np.clip(shares, 0, 1) * (len(colours) - 1)
    channels = [np.interp(places, np.arange(len(colours)), colours[:, i]) for i in range(3)]
    return np.rint(np.stack(channels, -1)).astype(np.uint8)
