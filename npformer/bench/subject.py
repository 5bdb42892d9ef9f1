"""Models to time, as directories that every contestant can read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..cli import is_random, processor_size
from ..models.auto import AutoImageProcessor
from ..models.efficientformer import EfficientFormerConfig, picture_side, token_grid
from ..models.pretrained import PreTrainedModel
from ..models.registry import VARIANTS, get_model, model_config
from .contestants import NEEDS
from .weights import randomize

# All published sizes of two families, and those of the third that are practical on a CPU.
DEFAULT_MODELS = [name for name in VARIANTS if not name.endswith(("-b5", "-b6", "-b7", "-b8"))]

# Settings that transformers' models lack, and the value they correspond to.
ONLY_HERE = {"padding": "hf-static", "attention_norm": "ones"}


@dataclass(frozen=True)
class Subject:
    """A model to time: its name, the directory of its weights, and the channels and side in pixels of its pictures."""

    name: str
    directory: Path
    channels: int
    size: int


def check(name: str, size: int | None, rivals: Sequence[str]) -> None:
    """Refuse, from a model's settings alone, a model that could not be timed. `size` as in `prepare`.

    Raises ValueError or FileNotFoundError for the name of no model; ValueError for pictures that do not fit it, or
    where one of the rivals cannot run it.
    """
    config, _ = model_config(name, **(_overrides(size) if is_random(name) else {}))
    for setting, theirs in ONLY_HERE.items():
        ours = getattr(config, setting, theirs)
        unable = [rival for rival in rivals if rival in NEEDS and ours != theirs]
        if unable:
            raise ValueError(
                f"--against {unable[0]} runs transformers' model, which has no {setting}={ours!r}, as {name} needs"
            )
    if size and isinstance(config, EfficientFormerConfig) and config.num_meta3d_blocks:
        side = config.resolution
        if token_grid(config, size, size) != (side, side):
            raise ValueError(
                f"--size must make {side} x {side} tokens of the pictures of {name}, whose attention has biases for "
                f"as many, as {picture_side(config)} does, got {size}"
            )


def prepare(name: str, size: int | None, directory: Path) -> Subject:
    """Write a model into `directory`: its own weights, or for a variant random ones.

    `size` is the side of the pictures in pixels, None the model's own. Raises as `get_model`.
    """
    if is_random(name):
        config, architecture = model_config(name, **_overrides(size))
        model = architecture(config, init_weights=False)  # type: ignore[call-arg]
        side = int(model.config.image_size)
        randomize(model, side)
    else:
        model = get_model(name, pretrained=True)
        side = size or _own_size(name, model)
    model.save_pretrained(directory)
    return Subject(name, directory, model.config.num_channels, side)


def _overrides(size: int | None) -> dict[str, int]:
    """Return the config overrides that build a variant for the requested size."""
    return {} if size is None else {"image_size": size}


def _own_size(name: str, model: PreTrainedModel) -> int:
    """Return the side of the pictures that a stored model was made for."""
    try:
        return processor_size(AutoImageProcessor.from_pretrained(name))
    except FileNotFoundError:  # weights without a processor
        return int(model.config.image_size)
