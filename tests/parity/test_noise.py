"""The noise floor: it must hold for every honest way of computing a value, and for no wrong one."""

import math

import numpy as np
import pytest

from npformer import Module, nn, record
from npformer.parity.noise import DTYPES, find_dtype, judge, round_to, rounding, simulated
from npformer.parity.replay import Replay, study
from tests import tiny
from tests.support import NET, ONE_HEAD, SWIFT


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def run(layer: Module, x: np.ndarray, dtype: str = "float32") -> tuple[np.ndarray, np.ndarray]:
    """Return the layer's exact result, and that of a port of that dtype."""

    class Model(Module):
        def __init__(self) -> None:
            self.layer = layer

        def forward(self, x):
            return self.layer(x)

    exact, rough = Model().astype(np.float64), simulated(Model(), dtype)
    program = study(["layer", ""])
    given = round_to(x, dtype)
    first = Replay(exact, program, {}, None).run(given.astype(np.float64))
    second = Replay(rough, program, {}, rounding(dtype)).run(given.astype(rough.dtype))
    return first.sites["layer"].output, second.sites["layer"].output


def test_half_precision_is_rounded_to_the_nearest() -> None:
    x = random(1000) * 10.0 ** np.arange(-7, 3).repeat(100)
    np.testing.assert_array_equal(round_to(x, "float16"), x.astype(np.float16).astype(np.float64))
    assert np.isinf(round_to(np.array([7e4]), "float16"))


def test_bfloat16_is_rounded_to_the_nearest_and_halves_to_even() -> None:
    step = 2.0**-7  # from 1 to the next bfloat16
    x = np.array([1, 1 + step / 2, 1 + step * 1.5, 1 + step * 0.51, -1 - step * 0.49, 0, np.inf, -3.4e38, 2.0**-133])
    expected = [1, 1, 1 + 2 * step, 1 + step, -1, 0, np.inf, -np.inf, 2.0**-133]
    for dtype in (np.float64, np.float32):
        np.testing.assert_array_equal(round_to(x.astype(dtype), "bfloat16"), np.array(expected, dtype))
    assert np.isnan(round_to(np.array([np.nan], np.float32), "bfloat16")).all()


@pytest.mark.parametrize("dtype", list(DTYPES))
def test_the_dtype_is_found_whatever_it_is_stored_in(dtype: str) -> None:
    values = {str(i): round_to(random(50, seed=i), dtype) for i in range(12)}
    values |= {"zeros": np.zeros(50), "short": np.ones(3)}
    assert find_dtype(values, {}) == dtype
    values["0"] = random(50)  # a value that was kept in another dtype does not decide
    assert find_dtype(values, {}) == dtype


def test_half_stored_as_bfloat16_is_bfloat16() -> None:
    values = {"a": round_to(random(50), "bfloat16").astype(np.float32)}
    assert find_dtype(values, {"a": "bfloat16"}) == "bfloat16"


def test_one_wrong_number_among_many_is_seen() -> None:
    exact = random(2, 3, 40, 50)
    rough = exact.astype(np.float32)
    port = rough.copy()
    port[1, 2, 39, 49] += 2e-5
    judged = judge(port, exact, rough, "BCHW", "float32")
    assert judged.peak > 8
    assert judged.bulk < 8
    assert judged.level == "fail"
    assert judge(rough, exact, rough, "BCHW", "float32").ratio <= 1


def test_an_error_in_a_channel_of_small_numbers_is_seen() -> None:
    exact = random(2, 8, 9, 11) * 10.0 ** -np.arange(8)[:, None, None]
    rough = exact.astype(np.float32)
    port = rough.copy()
    port[:, 2] *= 1 + 1e-5
    judged = judge(port, exact, rough, "BCHW", "float32")
    assert judged.bulk < 4
    assert judged.peak < 4
    assert judged.channel > 8
    assert judge(port, exact, rough, "BNhd", "float32").level == "pass"  # no such channels there


def test_many_errors_too_small_for_the_largest_are_seen() -> None:
    exact = np.concatenate([random(1000), [1000]])
    rough = exact.astype(np.float32)
    port = (exact * (1 + 3e-6 * (np.arange(1001) < 1000))).astype(np.float32)
    judged = judge(port[None], exact[None], rough[None], "BD", "float32")
    assert judged.peak < 4
    assert judge(port[None, :1000], exact[None, :1000], rough[None, :1000], "BD", "float32").level == "fail"


def test_what_is_not_a_number_fails_unless_the_exact_value_is_none_either() -> None:
    exact = random(1, 4, 5, 6)
    rough = exact.astype(np.float32)
    for bad in (np.nan, np.inf, -np.inf):
        port = rough.copy()
        port[0, 1, 2, 3] = bad
        judged = judge(port, exact, rough, "BCHW", "float32")
        assert judged.ratio == math.inf
        assert judged.level == "fail"
        other = exact.copy()
        other[0, 1, 2, 3] = bad
        assert judge(port, other, other.astype(np.float32), "BCHW", "float32").level == "pass"
        port[0, 1, 2, 2] *= 1.001
        assert judge(port, other, other.astype(np.float32), "BCHW", "float32").level == "fail"


def test_exact_ops_may_err_by_a_unit_in_the_last_place_and_no_more() -> None:
    exact = random(2, 4, 9, 9)
    exact = exact.astype(np.float32).astype(np.float64)
    rough = exact.astype(np.float32)
    assert judge(np.nextafter(rough, np.inf), exact, rough, "BCHW", "float32").level == "pass"
    assert judge(rough * np.float32(1 + 2e-6), exact, rough, "BCHW", "float32").level == "fail"


def one_after_another(terms: np.ndarray) -> np.ndarray:
    """Sum over the last axis, every partial sum rounded to float32."""
    return np.cumsum(terms.astype(np.float32), axis=-1, dtype=np.float32)[..., -1]


@pytest.mark.parametrize("bias", [0.0, 1.0], ids=["zero-mean", "positive"])
def test_long_sums_may_be_added_one_after_another(bias: float) -> None:
    layer = nn.Linear(4000, 24)
    layer.weight = (random(24, 4000, seed=1) + bias).astype(np.float32)
    layer.bias = random(24, seed=2).astype(np.float32)
    x = (random(3, 30, 4000, seed=3) + bias).astype(np.float32)
    exact, rough = run(layer, x)
    naive = np.stack([one_after_another(x * row) for row in layer.weight], -1) + layer.bias
    judged = judge(naive, exact, rough, "BND", "float32")
    assert judged.level == "pass"
    assert judged.bulk > 0.3  # the floor is that of such sums, not far above
    assert judge(naive * np.float32(1 + 2e-4), exact, rough, "BND", "float32").level == "fail"


def test_a_mean_over_a_map_may_be_added_one_after_another() -> None:
    x = np.abs(random(2, 16, 111, 112)).astype(np.float32)
    exact, rough = run(nn.AdaptiveAvgPool2d(1), x)
    naive = (one_after_another(x.reshape(2, 16, -1)) / np.float32(111 * 112))[..., None, None]
    judged = judge(naive, exact, rough, "BCHW", "float32")
    assert judged.level == "pass"
    assert judged.bulk > 0.2


def test_batch_norm_may_be_one_multiplication_and_one_addition() -> None:
    layer = nn.BatchNorm2d(6)
    layer.weight, layer.bias, layer.running_mean = (random(6, seed=s).astype(np.float32) for s in range(3))
    layer.running_mean *= 300
    layer.running_var = (1 + random(6, seed=4) ** 2).astype(np.float32)
    x = (random(2, 6, 11, 13) + layer.running_mean[:, None, None]).astype(np.float32)
    exact, rough = run(layer, x)
    scale = layer.weight / np.sqrt(layer.running_var + np.float32(layer.eps))
    port = x * scale[:, None, None] + (layer.bias - layer.running_mean * scale)[:, None, None]
    assert judge(port, exact, rough, "BCHW", "float32").level == "pass"
    layer.eps = 1e-3
    assert judge(run(layer, x)[0], exact, rough, "BCHW", "float32").level == "fail"


@pytest.mark.parametrize("dtype", list(DTYPES))
@pytest.mark.parametrize("class_name", [ONE_HEAD, NET, SWIFT])
def test_our_own_models_in_each_dtype_are_within_their_floor(class_name: str, dtype: str) -> None:
    """Our ops round as our ops do, so this holds with ease; the floor also lies within reach of them."""
    model = tiny.model(class_name)
    x = round_to(tiny.pictures(), dtype)
    reference = record(model.astype(np.float64), x.astype(np.float64))
    program = study(list(reference))
    kind = np.float64 if dtype == "float64" else np.float32
    port = Replay(simulated(model, dtype), program, {}, lambda site, value: round_to(value, dtype)).run(x.astype(kind))
    exact = Replay(model.astype(np.float64), program, port.used, None).run(x.astype(np.float64))
    rough = Replay(simulated(model, dtype), program, port.used, rounding(dtype)).run(x.astype(kind))
    ratios = [
        judge(port.used[n], exact.sites[n].output, rough.sites[n].output, reference.layouts[n], dtype).ratio
        for n in program.names
    ]
    assert max(ratios) <= 4
    assert np.median(ratios) > 0.05 or dtype == "float64"  # there both are one run
