"""Classification of pictures in one call, as with mmpretrain's `inference_model`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from . import ops
from .assets.imagenet import class_names
from .fuse import fuse
from .image import BaseImageProcessor
from .models.auto import AutoConfig, AutoImageProcessor
from .models.pretrained import PreTrainedModel
from .models.registry import PROCESSORS, get_model
from .picture import describe, load_image

BATCH = 16  # pictures per forward pass


def inference_model(
    model: str | Path | PreTrainedModel,
    img: Any,
    *,
    image_processor: BaseImageProcessor | None = None,
) -> Any:
    """Classify a picture: return a dict with `pred_label`, `pred_score`, `pred_class` and `pred_scores`.

    pred_scores (K,): the softmax of the logits; pred_label: the index of the largest; pred_score: that largest
    probability; pred_class: the label's name.

    `model` is a name with available weights (shipped, mmpretrain's, or a repository on the hub), a directory, or a
    model. `img` is a picture: a path, a Pillow picture, or an array (H, W), (H, W, C) or (C, H, W), in RGB order; or a
    list of them, which gives a list of dicts. A model that was not loaded from a directory with a
    `preprocessor_config.json` gets pictures of its config's size, normalised with ImageNet's mean and standard
    deviation, unless `image_processor` is given.

    Raises ValueError, TypeError or OSError for a model or a picture that cannot be loaded.
    Source: mmpretrain, `apis/image_classification.py`.
    """
    if isinstance(model, str | Path):
        model = get_model(model, pretrained=True)
    if not isinstance(model, PreTrainedModel):
        raise TypeError(f"model is {describe(model)}, but inference_model takes a name, a directory or a model")
    if not hasattr(model, model.base_model_prefix) or not model.config.num_labels:
        raise TypeError(f"model must be a classifier, got {_without_classes(model)}")
    if image_processor is not None and not callable(image_processor):
        raise TypeError(f"image_processor is {describe(image_processor)}, but an image processor is needed")
    processor = image_processor or processor_of(model)
    fast = model if model.is_fused else fuse(model)
    labels = class_names([name for _, name in sorted(model.config.id2label.items())])
    several = isinstance(img, Sequence) and not isinstance(img, str | bytes)
    pictures = list(img) if several else [img]
    results = []
    for start in range(0, len(pictures), BATCH):
        some = [load_image(picture) for picture in pictures[start : start + BATCH]]
        probs = ops.softmax(fast(processor(some, return_tensors="np")["pixel_values"]).logits)
        results += [_prediction(row, labels) for row in probs]
    return results if several else results[0]


def processor_of(model: PreTrainedModel) -> BaseImageProcessor:
    """Return the image processor stored beside a model's weights, or its family's for ImageNet at the model's size."""
    if model.source is None:
        return PROCESSORS[model.config.model_type](model.config.image_size)
    try:
        processor = AutoImageProcessor.from_pretrained(model.source)  # in timm's directories it is in config.json
    except FileNotFoundError:
        if not model.source.is_dir():  # removed since loading: its settings must not be guessed
            raise
        return PROCESSORS[model.config.model_type](model.config.image_size)
    stored: Any = AutoConfig.from_pretrained(model.source)
    same = stored.image_size == model.config.image_size
    return processor if same else for_size(processor, model.config.image_size)


def for_size(processor: BaseImageProcessor, side: int) -> BaseImageProcessor:
    """Return the same image processor for pictures of `side` x `side`; a size before a crop is scaled likewise."""
    settings = processor.to_dict()
    before = final_size(processor)[0]
    for name in ("size", "crop_size"):
        if settings.get(name):
            settings[name] = {key: round(value * side / before) for key, value in settings[name].items()}
    return type(processor).from_dict(settings)


def final_size(processor: BaseImageProcessor) -> tuple[int, int]:
    """Return the height and width of a processor's output."""
    size = getattr(processor, "crop_size", None) if getattr(processor, "do_center_crop", False) else processor.size
    size = size or processor.size
    return (size["height"], size["width"]) if "height" in size else (size["shortest_edge"],) * 2


def _without_classes(model: PreTrainedModel) -> str:
    bare = not hasattr(model, model.base_model_prefix)
    return f"{type(model).__name__}{', which has no head' if bare else ' with num_labels = 0'}"


def _prediction(scores: np.ndarray, labels: Sequence[str]) -> dict[str, Any]:
    label = int(scores.argmax())
    return {
        "pred_scores": scores, "pred_label": label, "pred_score": float(scores[label]), "pred_class": labels[label],
    }  # fmt: skip
