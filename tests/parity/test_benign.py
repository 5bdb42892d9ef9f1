"""Ports without a fault raise no alarm, whatever order they add in, whatever they fold, however they lay out maps."""

import numpy as np
import pytest

from npformer import AutoImageProcessor, get_model, load_image, record
from npformer.assets import sample_pictures, shipped_models
from npformer.parity import compare
from npformer.parity.noise import round_to
from tests.parity.suite import FAMILIES
from tests.ports import nhwc
from tests.support import CASES, fill, pixel_values

NETWORKS = {**FAMILIES, **{name: CASES[name] for name in ("resolution-5", "net-tf-same", "swift-l2")}}


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("variant", nhwc.VARIANTS)
@pytest.mark.parametrize("name", NETWORKS)
def test_an_independent_port_raises_no_alarm(name: str, variant: str, dtype: str) -> None:
    case = NETWORKS[name]
    model = fill(case.model(), np.float32)
    x = round_to(pixel_values(case.shape), dtype).astype(np.float32)
    port = nhwc.run(model.config, model.state_dict(), x, dtype, variant=variant)
    report = compare(model, x, port)
    assert report.equal, [(fault.op, fault.value.ratio, fault.causes) for fault in report.faults]
    assert report.dtype == dtype
    assert report.layout == "NHWC"
    assert report.tested == len(report.values)
    assert max(value.ratio for value in report.values if value.ratio is not None) <= 8
    folded = [value for value in report.values if value.note]
    assert bool(folded) == (variant == "folded")


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("variant", ["folded", "sequential"])
@pytest.mark.parametrize("name", shipped_models())
def test_a_trained_network_on_real_pictures_raises_no_alarm(name: str, variant: str, dtype: str) -> None:
    """Black borders, dead channels, statistics far from one: what random numbers do not have."""
    model, processor = get_model(name, pretrained=True), AutoImageProcessor.from_pretrained(name)
    pictures = [load_image(path) for path in list(sample_pictures())[:2]]
    x = round_to(processor(pictures, return_tensors="np")["pixel_values"], dtype)
    report = compare(model, x, nhwc.run(model.config, model.state_dict(), x, dtype, variant=variant))
    assert report.equal, [(fault.op, fault.value.ratio) for fault in report.faults]
    assert report.dtype == dtype


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", [*NETWORKS, *shipped_models()])
def test_a_float32_port_whose_dump_is_in_half_precision_raises_no_alarm(name: str, dtype: str) -> None:
    """It made each value from unrounded ones: where two nearly equal ones are subtracted, that is no small thing."""
    if name in NETWORKS:
        case = NETWORKS[name]
        model, x = fill(case.model(), np.float32), pixel_values(case.shape).astype(np.float32)
    else:
        model = get_model(name, pretrained=True)
        x = pixel_values((2, 3, model.config.image_size, model.config.image_size)).astype(np.float32)
    port = {key: round_to(value, dtype) for key, value in record(model, x).items()}
    report = compare(model, x, port)
    assert report.dtype == dtype
    assert report.equal, [(fault.op, fault.value.ratio) for fault in report.faults]
