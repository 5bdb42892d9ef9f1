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
            rtol, atol = 1e-11, 1e-13
            if recorded[name].dtype == np.float32:
                # PyTorch's float32 functions differ by a unit in the last place from one kind of processor to another;
                # of GELU, 1 + erf(x), whose tail is a difference of numbers of order one, by a unit of those.
                rtol, atol = 5e-7, 5e-7 if "gelu" in name else 0
            np.testing.assert_allclose(recorded[name], value, rtol=rtol, atol=atol, err_msg=name)
