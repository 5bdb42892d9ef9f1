"""The values that lessons compare with are what PyTorch computes."""

import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

PYTORCH = Path(__file__).parents[2] / "notebooks" / "pytorch"
sys.path.insert(0, str(PYTORCH))
from record import values  # noqa: E402


@pytest.mark.parametrize("path", sorted(PYTORCH.glob("lesson_*.py")), ids=lambda path: path.stem)
def test_recorded_values_are_pytorch_s(path):
    computed = values(path)
    with np.load(path.with_suffix(".npz")) as recorded:
        assert set(recorded.files) == set(computed)
        for name, value in computed.items():
            np.testing.assert_allclose(recorded[name], value, rtol=1e-11, atol=1e-13, err_msg=name)
