"""EfficientFormer in pure, vectorised, hand-written NumPy, numerically the same as PyTorch at every layer."""

from . import ops
from .image import EfficientFormerImageProcessor, ViTImageProcessor, load_image
from .models.auto import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageClassification
from .models.efficientformer import (
    EfficientFormerConfig,
    EfficientFormerForImageClassification,
    EfficientFormerForImageClassificationWithTeacher,
    EfficientFormerModel,
)
from .nn import Module, watch
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
    "Module",
    "Trace",
    "ViTImageProcessor",
    "load_image",
    "ops",
    "record",
    "watch",
]
