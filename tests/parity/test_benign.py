"""Ports without a fault raise no alarm, whatever order they add in, whatever they fold, however they lay out maps."""

import numpy as np
import pytest

from npformer import AutoImageProcessor, get_model, load_image, record
from npformer.assets import sample_pictures, shipped_models
from npformer.parity import compare
from npformer.parity.noise import round_to
from tests.parity.planted import FAMILIES, SMALL
from tests.ports import nhwc
from tests.support import CASES, fill, pixel_values
from tests.sweep import sweep

LARGE = {**FAMILIES, **{name: CASES[name] for name in ("resolution-5", "net-tf-same", "swift-l2")}}
NETWORKS = {**SMALL, **LARGE}
DTYPES = ("float64", "float32", "float16", "bfloat16")
# Every variant in every dtype, on one of the small networks.
PAIRS = [(variant, dtype) for variant in nhwc.VARIANTS for dtype in DTYPES]
IN_TURN = [(list(SMALL)[turn % 3], *pair) for turn, pair in enumerate(PAIRS)]


@pytest.mark.parametrize(
    ("name", "variant", "dtype"), sweep([*IN_TURN, *((name, *pair) for name in LARGE for pair in PAIRS)], IN_TURN)
)
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


@pytest.mark.parametrize(
    ("name", "variant", "dtype"),
    sweep(
        [(n, v, d) for n in shipped_models() for v in ("folded", "sequential") for d in ("float32", "float16")],
        [("efficientnet-fashion", "sequential", "float32"), ("swiftformer-fashion", "folded", "float16")],
    ),
)
def test_a_trained_network_on_real_pictures_raises_no_alarm(name: str, variant: str, dtype: str) -> None:
    """Black borders, dead channels, statistics far from one: what random numbers do not have."""
    model, processor = get_model(name, pretrained=True), AutoImageProcessor.from_pretrained(name)
    pictures = [load_image(path) for path in list(sample_pictures())[:2]]
    x = round_to(processor(pictures, return_tensors="np")["pixel_values"], dtype)
    report = compare(model, x, nhwc.run(model.config, model.state_dict(), x, dtype, variant=variant))
    assert report.equal, [(fault.op, fault.value.ratio) for fault in report.faults]
    assert report.dtype == dtype


@pytest.mark.parametrize(
    ("name", "dtype"),
    sweep(
        [(name, dtype) for name in [*NETWORKS, *shipped_models()] for dtype in ("float16", "bfloat16")],
        [*zip(SMALL, ("float16", "bfloat16", "float16"), strict=True), ("efficientformer-fashion", "float16")],
    ),
)
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
