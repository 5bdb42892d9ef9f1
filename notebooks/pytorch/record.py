"""Write down what PyTorch computes, for lessons to compare with where it is not installed.

    python notebooks/pytorch/record.py [NUMBER...]

Every `lesson_NN.py` here has a function `values(torch)` that returns a dictionary of arrays: inputs and what PyTorch
makes of them, in float64 and small. They are written to `lesson_NN.npz` beside it.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent


def values(path: Path) -> dict[str, np.ndarray]:
    """Run one lesson's `values` with PyTorch."""
    import torch

    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with torch.inference_mode():
        computed = module.values(torch)
    return {name: np.asarray(value) for name, value in computed.items()}


if __name__ == "__main__":
    for source in sorted(HERE.glob("lesson_*.py")):
        if len(sys.argv) == 1 or source.stem.removeprefix("lesson_") in sys.argv[1:]:
            arrays = values(source)
            np.savez_compressed(source.with_suffix(".npz"), **arrays)
            print(f"{source.stem}: {', '.join(f'{name} {value.shape}' for name, value in arrays.items())}")
