"""A worker's part: open some pictures, classify them, and report on each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import ops
from ..fast.threads import set_num_threads
from ..fuse import fuse
from ..image import BaseImageProcessor
from ..inference import final_size, for_size
from ..models.auto import AutoImageProcessor
from ..models.pretrained import PreTrainedModel
from ..models.registry import get_model
from ..ops import Array
from ..picture import shortest_edge_size
from .data import DataSet, Item

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

TOP = 5
DIGITS = 7


@dataclass(frozen=True)
class Job:
    """Everything that affects a result, so that results of different jobs are never mixed.

    crop_pct: the fraction of the shorter side that the crop keeps, as timm counts it, instead of the processor's own
    resizing. flip: average the probabilities of a picture and of its mirror image. image_size: the side of the
    model's input, where it is not to be the model's own.
    """

    model: str
    crop_pct: float | None = None
    flip: bool = False
    image_size: int | None = None


def classify_share(job: Job, data: DataSet, share: Sequence[Item], threads: int | None) -> list[dict[str, Any]]:
    """Classify some pictures; return one record each, in order: the prediction, or the reason it could not be read."""
    if threads is not None:
        set_num_threads(threads)
    model, processor = loaded(job.model, job.image_size)
    records: list[dict[str, Any]] = []
    pixels: list[Array] = []
    for item in share:
        record: dict[str, Any] = {"number": item.number, "key": item.key, "label": item.label}
        try:
            pixels.append(prepare(processor, data.load(item.key), job.crop_pct))
        except Exception as error:  # any error of a decoder on a broken file
            record["error"] = " ".join(f"{error}".split()) or type(error).__name__
        records.append(record)
    if pixels:
        probs = iter(probabilities(model, np.stack(pixels), job.flip))
        for record in records:
            if "error" not in record:
                record.update(_answer(next(probs), record["label"]))
    return records


@lru_cache(maxsize=2)
def loaded(name: str, image_size: int | None) -> tuple[PreTrainedModel, BaseImageProcessor]:
    """Return the fused model and its processor, loaded once per process; the mapped weights are shared."""
    _keep_freed_memory()
    size: dict[str, Any] = {} if image_size is None else {"image_size": image_size}
    model = get_model(name, pretrained=True, **size)
    processor = AutoImageProcessor.from_pretrained(name)
    return fuse(model), processor if image_size is None else for_size(processor, image_size)


def _keep_freed_memory() -> None:
    """Have glibc keep up to 32 MB of freed memory, rather than return it after every picture and allocate it again.

    It keeps twice the largest block that it has seen freed. On small pictures that saves a worker a tenth of its time.
    """
    np.empty(2**24, np.uint8)


def prepare(processor: BaseImageProcessor, picture: Picture, crop_pct: float | None) -> Array:
    """Preprocess one RGB picture for the model, to (C, H, W).

    Pillow resizes the picture itself, with the same result as the processor on its array, and without several copies
    of a large photograph.
    """
    options: dict[str, Any] = {}
    if crop_pct is not None:
        height, width = final_size(processor)
        edge = int(min(height, width) / crop_pct)
        picture = _resized(picture, shortest_edge_size(picture.height, picture.width, edge), processor.resample)
        left, top = (picture.width - width) // 2, (picture.height - height) // 2
        picture = picture.crop((left, top, left + width, top + height))
        options = {"do_resize": False} | ({"do_center_crop": False} if hasattr(processor, "do_center_crop") else {})
    elif processor.do_resize:
        edges = processor.size.get("shortest_edge")
        square = (processor.size.get("height", 0), processor.size.get("width", 0))
        target = shortest_edge_size(picture.height, picture.width, edges) if edges else square
        picture, options = _resized(picture, target, processor.resample), {"do_resize": False}
    return processor(picture, return_tensors="np", **options)["pixel_values"][0]


def _resized(picture: Picture, size: tuple[int, int], resample: int | None) -> Picture:
    """Resample a picture to (height, width)."""
    from PIL import Image

    return picture.resize(size[::-1], Image.Resampling(resample or 0))


def probabilities(model: PreTrainedModel, pixel_values: Array, flip: bool) -> Array:
    """Return the softmax of the logits, (B, K); with `flip`, its average with that of the mirror images."""
    probs = ops.softmax(model(pixel_values).logits)
    if flip:
        probs = (probs + ops.softmax(model(np.ascontiguousarray(pixel_values[..., ::-1])).logits)) / 2
    return probs


def _answer(probs: Array, label: int | None) -> dict[str, Any]:
    """Return the best classes, their probabilities, and whether the true class is among them.

    As in mmpretrain's accuracy, a label is a hit if it is among the best k and its score is above 0.
    """
    best = np.argsort(-probs, kind="stable")[:TOP]
    answer: dict[str, Any] = {
        "top": [int(i) for i in best],
        "probs": [round(float(probs[i]), DIGITS) for i in best],
    }
    if label is not None:
        hits = [int(i) == label and float(probs[i]) > 0 for i in best]
        answer["top1"], answer["top5"] = hits[0], any(hits)
    return answer
