"""EfficientFormer, EfficientNet and SwiftFormer in hand-written NumPy, the same as PyTorch at every layer."""

from typing import Any

from . import ops
from .fast.threads import get_num_threads, set_num_threads
from .fuse import fuse
from .image import EfficientFormerImageProcessor, EfficientNetImageProcessor, ViTImageProcessor
from .inference import inference_model
from .models.auto import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageClassification
from .models.efficientformer import (
    EfficientFormerConfig,
    EfficientFormerForImageClassification,
    EfficientFormerForImageClassificationWithTeacher,
    EfficientFormerModel,
)
from .models.efficientnet import EfficientNetConfig, EfficientNetForImageClassification, EfficientNetModel
from .models.registry import get_model, list_models
from .models.resize import resize_attention_biases
from .models.swiftformer import SwiftFormerConfig, SwiftFormerForImageClassification, SwiftFormerModel
from .nn import Module, watch
from .picture import load_image
from .trace import Trace, record

__version__ = "0.1.0"

__all__ = [
    "AutoConfig",
    "AutoImageProcessor",
    "AutoModel",
    "AutoModelForImageClassification",
    "EfficientFormerConfig",
    "EfficientFormerForImageClassification",
    "EfficientFormerForImageClassificationWithTeacher",
    "EfficientFormerImageProcessor",
    "EfficientFormerModel",
    "EfficientNetConfig",
    "EfficientNetForImageClassification",
    "EfficientNetImageProcessor",
    "EfficientNetModel",
    "Module",
    "SwiftFormerConfig",
    "SwiftFormerForImageClassification",
    "SwiftFormerModel",
    "Trace",
    "ViTImageProcessor",
    "compare",
    "fuse",
    "get_model",
    "get_num_threads",
    "inference_model",
    "list_models",
    "load_image",
    "ops",
    "record",
    "resize_attention_biases",
    "set_num_threads",
    "watch",
]


def __getattr__(name: str) -> Any:
    """Import `npformer.compare` on first access: predicting needs none of the parity checker."""
    if name == "compare":
        from .parity import compare

        return compare
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
