"""The contestants: this package, fused and unfused, PyTorch, and ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

OURS, UNFUSED, TORCH, ONNXRUNTIME = "npformer", "unfused", "torch", "onnxruntime"

# Packages of each rival: PyTorch runs transformers' model, and ONNX Runtime PyTorch's export of it.
NEEDS = {TORCH: ("torch", "transformers"), ONNXRUNTIME: ("onnxruntime", "onnx", "torch", "transformers")}
VERSIONS = {"transformers": '"transformers==4.56.2"'}  # the last version with EfficientFormer


def check_rivals(rivals: Sequence[str]) -> None:
    """Refuse rivals that do not exist or are not installed. Raises ValueError or ImportError."""
    for rival in rivals:
        if rival not in NEEDS:
            raise ValueError(f"--against must name {' or '.join(NEEDS)}, with a comma between them, got {rival!r}")
        missing = [package for package in NEEDS[rival] if find_spec(package) is None]
        if missing:
            verb = "is" if len(missing) == 1 else "are"
            wanted = " ".join(VERSIONS.get(package, package) for package in missing)
            raise ImportError(
                f"--against {rival} needs {' and '.join(missing)}, which {verb} not installed: "
                f"python -m pip install {wanted}"
            )
