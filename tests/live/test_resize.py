"""Resizing attention biases against PyTorch's bicubic interpolation."""

from __future__ import annotations

import numpy as np
import pytest

from npformer.models.resize import resize_table

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("old", [1, 2, 3, 7, 9, 12])
@pytest.mark.parametrize("new", [1, 2, 4, 5, 7, 8, 9, 16, 31])
def test_tables_are_torchs_corner_to_corner(old: int, new: int) -> None:
    table = np.random.default_rng(old).standard_normal((5, old * old))
    square = torch.from_numpy(table).view(1, 5, old, old)
    theirs = torch.nn.functional.interpolate(square, size=(new, new), mode="bicubic", align_corners=True)
    difference = resize_table(table, new) - theirs.view(5, -1).numpy()
    assert np.abs(difference).max() <= 1e-12
