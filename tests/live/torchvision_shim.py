"""Import of torchvision, even one built for CUDA beside a PyTorch built for the CPU.

Such a torchvision cannot load its compiled operators. Its models do not need them, but on import it registers shape
functions for two of them, which PyTorch rejects for unknown operators. Declaring them is enough. Neither is ever
called here, and timm, which imports torchvision too, works once this has run.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

from torch import library

_OPERATORS = library.Library("torchvision", "FRAGMENT")  # what it declares is gone when it is collected


def load() -> ModuleType:
    """Return the module `torchvision`. Raises ImportError where it is not installed."""
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "operator torchvision::" not in str(error):
            raise
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]  # left over from the attempt
    for operator in ("nms", "qnms"):
        _OPERATORS.define(f"{operator}(Tensor boxes, Tensor scores, float iou_threshold) -> Tensor")
    return importlib.import_module("torchvision")
