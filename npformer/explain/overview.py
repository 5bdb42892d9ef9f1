"""A walk as one figure: the input, feature maps at every scale, and the prediction."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..ops import Array
from .images import coloured
from .walk import Image, Strip, Walk

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

SIDE, GAP, EDGE = 190, 26, 28  # of the large pictures, between columns, around all; in pixels of the file
PAPER, INK, DIM, BAR = "#fbfaf6", "#222222", "#5c5c5c", "#1f6f8b"
STAGES = 4  # columns between the picture and the predictions, at most


def overview(walk: Walk) -> Picture:
    """Draw the input, two feature maps of every scale, a mixer's map over the picture, and the predictions."""
    from PIL import Image as Pictures

    columns = [("input", _times(walk.picture.shape[:2]), [_input(walk.picture)])]
    for title, values in _scales(walk):
        strip = Strip("magnitude", "", [Image(value, "") for value in values])
        columns.append((title, _times(values[0].shape), coloured(strip, walk.picture, (SIDE - 10) // 2)))
    if mixer := _last_mixer(walk):
        columns.append((mixer.short, mixer.images[0].label, coloured(mixer, walk.picture, SIDE)[:1]))
    if walk.evidence:
        columns.append(
            (f"why {walk.guesses[0][0]}", "red for, blue against", coloured(walk.evidence, walk.picture, SIDE))
        )
    widths = [max(picture.width for picture in pictures) for _, _, pictures in columns]
    answer = 300
    total = 2 * EDGE + sum(widths) + GAP * len(widths) + answer
    sheet = Pictures.new("RGB", (total, 2 * EDGE + SIDE + 52), PAPER)
    left = EDGE
    for (title, below, pictures), width in zip(columns, widths, strict=True):
        _write(sheet, (left, EDGE - 6), title, 15, INK)
        for row, picture in enumerate(pictures):
            sheet.paste(picture, (left, EDGE + 20 + row * (picture.height + 10)))
        _write(sheet, (left, EDGE + 20 + SIDE + 6), below, 13, DIM)
        left += width + GAP
    _answer(sheet, left, answer, walk)
    return sheet


def _input(picture: Array) -> Picture:
    from PIL import Image as Pictures

    width = max(1, round(SIDE * picture.shape[1] / picture.shape[0]))
    return Pictures.fromarray(picture).resize((width, SIDE), Pictures.Resampling.BILINEAR)


def _scales(walk: Walk) -> list[tuple[str, list[Array]]]:
    """Return the last step at every scale, the finest first: its title, and its two maps of largest variance."""
    found: dict[tuple[int, ...], tuple[str, list[Array]]] = {}
    for number, step in enumerate(walk.steps, 1):
        if step.strips:
            values = [image.values for image in step.strips[0].images]
            liveliest = sorted(values, key=lambda value: -float(np.std(value)))[:2]
            found[values[0].shape] = (f"step {number}", liveliest)
    return list(found.values())[:STAGES]


def _last_mixer(walk: Walk) -> Strip | None:
    """Return the map of the last mixer that can be laid over the picture: attention, or agreement with the query."""
    strips = [strip for step in walk.steps for strip in step.strips if strip.short]
    return max(strips, key=lambda strip: strip.images[0].values.size) if strips else None


def _answer(sheet: Picture, left: int, width: int, walk: Walk) -> None:
    from PIL import ImageDraw

    draw = ImageDraw.Draw(sheet)
    _write(sheet, (left, EDGE - 6), "answer", 15, INK)
    for row, (label, share) in enumerate(walk.guesses):
        top = EDGE + 22 + row * 38
        _write(sheet, (left, top), _shortened(label), 14, INK)
        _write(sheet, (left + width - 52, top), f"{share:.1%}", 14, INK)
        draw.rectangle([left, top + 20, left + width, top + 27], fill="#e4e2da")
        draw.rectangle([left, top + 20, left + round(width * share), top + 27], fill=BAR)
    _write(sheet, (left, EDGE + 20 + SIDE + 6), f"{walk.model}, {walk.parameters:,} parameters", 13, DIM)


def _shortened(label: str) -> str:
    return label if len(label) <= 28 else label[:27] + "…"


def _write(sheet: Picture, place: tuple[int, int], text: str, size: int, colour: str) -> None:
    from PIL import ImageDraw, ImageFont

    ImageDraw.Draw(sheet).text(place, text, fill=colour, font=ImageFont.load_default(size))


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
