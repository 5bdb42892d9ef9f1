"""Conversion of any public checkpoint: read, recognise, rename and load it, and write it as a model directory."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..assets.imagenet import class_names
from ..checkpoint import read_json, write_checkpoint, write_text
from ..checkpoint.files import NAMES, find_weights, read_weights
from ..checkpoint.safetensors_file import WEIGHTS_NAME
from ..image import CONFIG_NAME as PROCESSOR_NAME
from ..image import IMAGENET_MEAN, IMAGENET_STD, BaseImageProcessor, EfficientFormerImageProcessor
from ..models.auto import BARE_MODELS, CLASSIFIERS, CONFIGS, AutoImageProcessor
from ..models.config import CONFIG_NAME, to_json
from ..models.pretrained import PreTrainedModel
from ..models.registry import PROCESSORS, VARIANTS
from ..models.timm_config import TimmConfig, is_timm_config, read_timm_config
from .recognise import Recognised, recognise

DTYPES = ("float32", "float16")


@dataclass
class Checkpoint:
    """A model loaded from any source.

    path: the file its weights came from; container: the kind of that file. found: what it was recognised as. notes:
    remarks of the reader and of the recognition, one sentence each. architectures: the class that the checkpoint's own
    config.json asks for, where it has one and that is not the model's.
    """

    model: PreTrainedModel
    processor: BaseImageProcessor
    path: Path
    container: str
    found: Recognised
    notes: list[str] = field(default_factory=list)
    architectures: list[str] | None = None

    def save(self, directory: Path, dtype: str = "float32") -> str:
        """Write config.json, preprocessor_config.json and model.safetensors; return the weights' SHA-256.

        The directory must be new or empty. It appears complete or not at all.

        Raises ValueError for another dtype; FileExistsError; OSError where it cannot be written.
        """
        if dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
        if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
            raise FileExistsError(f"{directory} exists already; give a new or empty directory")
        directory.parent.mkdir(parents=True, exist_ok=True)
        settings = self.model.config.to_dict()
        settings.pop("dtype", None)
        settings["architectures"] = self.architectures or [type(self.model).__name__]
        settings["torch_dtype"] = dtype
        partial = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
        try:
            state = self.model.state_dict()
            if dtype == "float16":
                state = {name: _half(array) for name, array in state.items()}
            write_checkpoint(partial, state, 5 * 10**9)
            write_text(partial / CONFIG_NAME, to_json(settings))
            self.processor.save_pretrained(partial)
            digest = sha256(partial / WEIGHTS_NAME)
            partial.chmod(0o777 & ~_umask())
            os.replace(partial, directory)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        return digest


def load_checkpoint(
    path: str | Path,
    *,
    source: str | None = None,
    variant: str | None = None,
    labels: list[str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Checkpoint:
    """Load a checkpoint of any known source from a file or a directory; no code in it is ever executed.

    A `config.json` beside the weights (transformers' or timm's) is trusted; without one, names and shapes of the
    weights decide, then the file's name. `source`, `variant` and `overrides` (of the config) take precedence over all
    of these. `labels` names the classes; otherwise the checkpoint does, or, for 1000 classes, ImageNet-1k.

    Raises FileNotFoundError; ValueError (CheckpointError) for a damaged, hostile or unknown file, or where weights and
    settings do not fit; ImportError where a library is missing that this kind of file needs.
    """
    path = Path(path)
    file = find_weights(path) if path.is_dir() else path
    # A single file may be in any folder, beside an unrelated config.json.
    beside = file.parent if path.is_dir() or file.name in NAMES else None
    described = _described(beside)
    weights = read_weights(file)
    timm = read_timm_config(described) if is_timm_config(described) else None
    settings = _settings(described, timm)
    found = recognise(
        {name: array.shape for name, array in weights.arrays.items()},
        hint=" ".join([file.name, *weights.metadata.values()])[:1000],
        source=source or ("timm" if timm else None),
        variant=variant or (timm.architecture if timm else None),
        settings={**settings, **(overrides or {})},
    )
    config = found.config()
    _name_classes(config, labels, described, timm)
    classes = {c.__name__: c for c in (*CLASSIFIERS[found.family], BARE_MODELS[found.family])}
    model = classes[found.architecture](config, init_weights=False)  # type: ignore[call-arg]
    model.load_state_dict(found.state(weights.arrays))
    asked = described.get("architectures") if described.get("model_type") in CONFIGS else None
    other = asked if asked and list(asked) != [found.architecture] else None
    notes = [*weights.notes, *found.warnings]
    return Checkpoint(model, _processor(beside, timm, found, config), file, weights.container, found, notes, other)


def read_state(directory: Path) -> dict[str, np.ndarray]:
    """Return the weights of a transformers directory in a container other than safetensors, by their names here.

    Raises FileNotFoundError; CheckpointError; ImportError for `tf_model.h5` without h5py.
    """
    file = find_weights(directory)
    arrays = read_weights(file).arrays
    if file.suffix != ".h5":
        return arrays
    return recognise({name: array.shape for name, array in arrays.items()}, source="tensorflow").state(arrays)


def _described(directory: Path | None) -> dict[str, Any]:
    """Return the config.json of a directory; {} where there is none."""
    path = None if directory is None else directory / CONFIG_NAME
    return read_json(path) if path is not None and path.is_file() else {}


def _settings(described: Mapping[str, Any], timm: TimmConfig | None) -> dict[str, Any]:
    """Return the model's settings in a config.json, without labels."""
    if timm is not None:
        return {"image_size": timm.image_size[0]}
    model_type = described.get("model_type")
    if model_type not in CONFIGS:
        return {}
    known = vars(CONFIGS[model_type]())
    left_out = {"id2label", "label2id", "architectures", "num_hidden_layers"}
    return {name: value for name, value in described.items() if name in known and name not in left_out}


def _name_classes(
    config: Any, labels: list[str] | None, described: Mapping[str, Any], timm: TimmConfig | None
) -> None:
    """Set the names of the classes: the requested ones, the checkpoint's own, or ImageNet-1k's for 1000 classes."""
    number = config.num_labels
    if labels is not None and len(labels) != number:
        raise ValueError(f"labels must name {number} classes, as many as the weights have, got {len(labels)}")
    stored = described.get("id2label") if described.get("model_type") in CONFIGS else None
    if labels is None and timm is not None:
        labels = timm.labels
    if labels is None and isinstance(stored, Mapping) and len(stored) == number:
        labels = [str(stored.get(str(index), f"LABEL_{index}")) for index in range(number)]
    labels = class_names([config.id2label[index] for index in range(number)] if labels is None else labels)
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: index for index, label in enumerate(labels)}


def _half(array: np.ndarray) -> np.ndarray:
    """Convert floats to float16. Raises ValueError for numbers too large for it."""
    if not np.issubdtype(array.dtype, np.floating):
        return array
    with np.errstate(over="ignore"):
        half = array.astype(np.float16)
    if np.isinf(half).any() and not np.isinf(array).any():
        raise ValueError(f"dtype must be float32: some weights, up to {np.abs(array).max():.3g}, are beyond float16")
    return half


# Default preprocessing of each source: pixels of the resized shorter side over those of the crop. torchvision's are
# for B0 to B7, timm's tf_ ones for B0 to B8.
_RESIZED = {"original": 256 / 224, "mmpretrain": 248 / 224, "lukemelas": 1.0, "timm": 1 / 0.95}
_TORCHVISION = (256, 256, 288, 320, 384, 456, 528, 600)
_TIMM_TF = (0.875, 0.882, 0.89, 0.904, 0.922, 0.934, 0.942, 0.949, 0.954)


def _processor(beside: Path | None, timm: TimmConfig | None, found: Recognised, config: Any) -> BaseImageProcessor:
    """Return the image processor stored beside the weights, or else the one that their source uses."""
    if timm is not None:
        return timm.processor
    if beside is not None and (beside / PROCESSOR_NAME).is_file():
        return AutoImageProcessor.from_pretrained(beside)
    side = VARIANTS[found.variant].image_size if found.variant else int(config.image_size)
    number = int(found.variant[-1]) if found.variant and found.family == "efficientnet" else 0
    if found.source == "torchvision":
        edge = _TORCHVISION[min(number, 7)]
    elif found.source == "timm" and found.family == "efficientnet":
        edge = int(side / (_TIMM_TF[number] if config.padding == "tf-same-dynamic" else 0.875))
    elif found.source in _RESIZED:
        edge = int(side * _RESIZED[found.source])
    else:
        return PROCESSORS[found.family](side)
    return EfficientFormerImageProcessor(
        size={"shortest_edge": edge}, crop_size=side, image_mean=IMAGENET_MEAN, image_std=IMAGENET_STD
    )


def describe(checkpoint: Checkpoint) -> list[str]:
    """Return a summary of what was read, recognised and omitted, in lines of text."""
    found, model = checkpoint.found, checkpoint.model
    reasons = Counter(found.dropped.values())
    return [
        f"read        {checkpoint.path} ({checkpoint.container}), {len(found.names) + len(found.dropped)} arrays",
        f"recognised  {found.rests_on}",
        *(f"note        {note}" for note in checkpoint.notes),
        *(f"left out    {number} arrays: {reason}" for reason, number in reasons.items()),
        f"model       {type(model).__name__}, {model.num_parameters():,} parameters, "
        f"{model.config.num_labels} classes",
    ]


def read_labels(path: Path) -> list[str]:
    """Read class names from a file: one per line, or JSON, a list or a mapping from number to name.

    Raises ValueError.
    """
    text = path.read_text("utf-8")
    if text.lstrip()[:1] not in ("{", "["):
        return [line.strip() for line in text.splitlines() if line.strip()]
    try:
        names = json.loads(text)
        if isinstance(names, dict):
            names = [names[str(index)] for index in range(len(names))]
    except (ValueError, KeyError):
        raise ValueError(f"{path} must hold names line by line, or as a JSON list or mapping from number") from None
    return [str(name) for name in names]


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _umask() -> int:
    """Return the permission bits that new files lack; reading the umask requires setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
