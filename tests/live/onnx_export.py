"""PyTorch models as ONNX files."""

import io
import warnings
from typing import Any

import numpy as np
import torch


class Logits(torch.nn.Module):
    """The model reduced to a function from tensors to tensors, which the exporter needs."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        output = self.model(pixel_values, return_dict=False)
        return output[0] if isinstance(output, tuple) else output


def export_onnx(model: Any, pixel_values: np.ndarray) -> bytes:
    """A float32 model as the bytes of an ONNX file, for inputs of that shape. Values are named after modules."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing: sizes become constants, which is what is wanted here
        torch.onnx.export(
            Logits(model).eval(), (torch.tensor(pixel_values),), buffer, dynamo=False, opset_version=17,
            do_constant_folding=False, training=torch.onnx.TrainingMode.PRESERVE, input_names=["pixel_values"],
            output_names=["logits"],
        )  # fmt: skip
    return buffer.getvalue()
