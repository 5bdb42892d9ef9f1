"""transformers' model of a directory and, as `python -m npformer.bench.transformers_model JOB`, its ONNX export."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

from ..checkpoint import read_json
from . import process


def load(directory: Path) -> Any:
    """Return the PyTorch model that `config.json` names, with the directory's weights, in evaluation mode."""
    # No model needs torchvision, yet transformers imports it if installed, and fails if it is for another PyTorch.
    sys.modules["torchvision"] = None  # type: ignore[assignment]
    import transformers

    name = read_json(directory / "config.json")["architectures"][0]
    if name.startswith("EfficientFormer"):
        from transformers.models.deprecated import efficientformer

        return getattr(efficientformer, name).from_pretrained(directory).eval()
    return getattr(transformers, name).from_pretrained(directory).eval()


def export(directory: str, shape: list[int], path: str) -> None:
    """Export the model as ONNX for inputs of exactly one shape, which the runtime handles best."""
    import torch

    class Logits(torch.nn.Module):  # type: ignore[misc]
        """The model reduced to a function from tensors to tensors, which the exporter needs."""

        def __init__(self) -> None:
            super().__init__()
            self.model = load(Path(directory))

        def forward(self, pixel_values: Any) -> Any:
            return self.model(pixel_values, return_dict=True).logits

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing turns sizes into constants, as intended here
        torch.onnx.export(
            Logits().eval(), (torch.zeros(shape),), path, dynamo=False, opset_version=17,
            input_names=["pixel_values"], output_names=["logits"],
        )  # fmt: skip


if __name__ == "__main__":
    export(**process.request())
    process.answer(None)
