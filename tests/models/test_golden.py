"""Every layer of every case against values recorded from float64 PyTorch; no torch needed."""

import numpy as np
import pytest

from npformer import AutoImageProcessor, AutoModelForImageClassification, load_image, record
from npformer.assets import sample_pictures, shipped_models
from tests.support import CASES, ODD, SMALLEST, assert_matches_golden, fill, pixel_values, read_golden
from tests.sweep import sweep


@pytest.mark.parametrize("name", sweep(CASES, default=[*ODD, *SMALLEST]))
def test_every_layer_equals_pytorch(name):
    case = CASES[name]
    trace = record(fill(case.model(), np.float64), pixel_values(case.shape))
    golden = read_golden(name)
    assert_matches_golden(trace, golden)
    assert list(trace) == list(golden), "values must come in the order PyTorch computes them"


@pytest.mark.parametrize("name", shipped_models())
def test_every_layer_of_a_shipped_model_equals_pytorch(name):
    model = AutoModelForImageClassification.from_pretrained(name, dtype=np.float64)
    pictures = [load_image(path) for path in list(sample_pictures())[:3]]
    inputs = AutoImageProcessor.from_pretrained(name)(pictures, return_tensors="np")["pixel_values"]
    assert_matches_golden(record(model, inputs.astype(np.float64)), read_golden(name))
