"""Verification of a converted model against its source's own library, where that is installed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoint import read_checkpoint
from ..checkpoint.files import read_weights
from ..models.auto import AutoModelForImageClassification
from ..models.registry import ALIASES
from .pipeline import Checkpoint


def reread(checkpoint: Checkpoint, directory: Path, dtype: str) -> None:
    """Read back the written weights. Raises ValueError where an array differs from the intended one."""
    written = read_checkpoint(directory)
    for name, array in checkpoint.model.state_dict().items():
        expected = array.astype(dtype) if np.issubdtype(array.dtype, np.floating) else array
        if not np.array_equal(written[name], expected, equal_nan=True):
            raise ValueError(f"{directory} does not hold what was written: {name} differs")


def largest_difference(checkpoint: Checkpoint, directory: Path) -> tuple[float, float] | str:
    """Run the source's own model and the one in `directory` in float64 on the same two random pictures.

    Returns the largest difference of a logit and the largest logit, or a sentence on why they were not compared.
    """
    found = checkpoint.found
    maker = _MAKERS.get(found.source)
    if maker is None or found.variant is None:
        return f"not compared: that is done for published networks of {', '.join(_MAKERS)}"
    try:
        theirs = maker(checkpoint)
    except ImportError as error:
        return f"not compared: {error.name or 'a library'} is not installed"
    except RuntimeError as error:  # torchvision built for another PyTorch
        return f"not compared: {found.source} cannot be used here ({str(error).splitlines()[0]})"
    ours = AutoModelForImageClassification.from_pretrained(directory, dtype=np.float64)
    config = ours.config
    shape = (2, config.num_channels, config.image_size, config.image_size)
    pictures = np.random.default_rng(0).standard_normal(shape)
    expected = theirs(pictures)
    return float(np.abs(ours(pictures).logits - expected).max()), float(np.abs(expected).max())


def _run(model: Any, checkpoint: Checkpoint) -> Callable[[np.ndarray], np.ndarray]:
    """Return a PyTorch model with the file's own weights, in float64, as a function from pictures to logits."""
    import torch

    # Read again: the converted model has them renamed and rearranged, which is to be verified.
    state = {name: torch.tensor(np.asarray(array)) for name, array in read_weights(checkpoint.path).arrays.items()}
    model = model.double()
    model.load_state_dict(state)
    model.eval()

    def logits(pictures: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            output = model(torch.tensor(pictures))
        return np.asarray((output.logits if hasattr(output, "logits") else output).numpy())

    return logits


def _transformers(checkpoint: Checkpoint) -> Callable[[np.ndarray], np.ndarray]:
    import transformers
    from transformers.models.deprecated import efficientformer

    name = type(checkpoint.model).__name__
    former = name.startswith("EfficientFormer")
    source = efficientformer if former else transformers
    family = name.partition("ForImageClassification")[0].removesuffix("Model")
    settings = {k: v for k, v in checkpoint.model.config.to_dict().items() if k not in ("model_type", "architectures")}
    return _run(getattr(source, name)(getattr(source, f"{family}Config")(**settings)), checkpoint)


def _timm(checkpoint: Checkpoint) -> Callable[[np.ndarray], np.ndarray]:
    import timm

    config = checkpoint.model.config
    names = [alias for alias, (variant, _) in ALIASES.items() if variant == checkpoint.found.variant]
    timms = [name for name in names if "/" not in name and "_3rdparty" not in name]
    tf = [name for name in timms if name.startswith("tf_") == (getattr(config, "padding", "") == "tf-same-dynamic")]
    return _run(timm.create_model(tf[0], num_classes=config.num_labels, in_chans=config.num_channels), checkpoint)


def _torchvision(checkpoint: Checkpoint) -> Callable[[np.ndarray], np.ndarray]:
    import torchvision

    name = str(checkpoint.found.variant).replace("-", "_")
    return _run(getattr(torchvision.models, name)(num_classes=checkpoint.model.config.num_labels), checkpoint)


def _lukemelas(checkpoint: Checkpoint) -> Callable[[np.ndarray], np.ndarray]:
    from efficientnet_pytorch import EfficientNet

    return _run(
        EfficientNet.from_name(checkpoint.found.variant, num_classes=checkpoint.model.config.num_labels), checkpoint
    )


_MAKERS: dict[str, Callable[[Checkpoint], Callable[[np.ndarray], np.ndarray]]] = {
    "transformers": _transformers,
    "timm": _timm,
    "torchvision": _torchvision,
    "lukemelas": _lukemelas,
}
