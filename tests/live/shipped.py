"""The shipped models in PyTorch, and the input of both sides."""

from __future__ import annotations

import numpy as np
import torch
import transformers
from transformers.models.deprecated import efficientformer

from npformer import AutoConfig, AutoImageProcessor, load_image
from npformer.assets import model_directory, sample_pictures


def oracle_model(name: str, dtype: torch.dtype) -> torch.nn.Module:
    """transformers' own loading of a shipped directory."""
    family = AutoConfig.from_pretrained(name).architectures[0]
    source = efficientformer if family.startswith("EfficientFormer") else transformers
    model = getattr(source, family).from_pretrained(model_directory(name), torch_dtype=torch.float32)
    return model.to(dtype).eval()


def sample_input(name: str, count: int = 3) -> np.ndarray:
    """The first of the shipped pictures as that model's processor prepares them."""
    pictures = [load_image(path) for path in list(sample_pictures())[:count]]
    return AutoImageProcessor.from_pretrained(name)(pictures, return_tensors="np")["pixel_values"]
