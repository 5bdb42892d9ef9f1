"""Activations and softmax against their formulas in high precision, at the edges of the number line, and refusals."""

from __future__ import annotations

import decimal
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npformer import ops

from .helpers import SETTINGS, assert_same, draw, refuses

POINTS = np.concatenate([np.linspace(-12, 12, 241), draw(1, 300) * 4])
INF, NAN = math.inf, math.nan

# What each op should give, straight from its formula, one number at a time.
FORMULAS = {
    "relu": lambda v: v if v > 0 else 0.0,
    "relu6": lambda v: min(max(v, 0.0), 6.0),
    "leaky_relu": lambda v: v if v > 0 else 0.01 * v,
    "sigmoid": lambda v: 1 / (1 + math.exp(-v)),
    "tanh": math.tanh,
    "silu": lambda v: v / (1 + math.exp(-v)),
    "selu": lambda v: 1.0507009873554805 * (v if v > 0 else 1.6732632423543772 * math.expm1(v)),
    "mish": lambda v: v * math.tanh(math.log1p(math.exp(v))),
    "erf": math.erf,
    "gelu": lambda v: 0.5 * v * math.erfc(-v / math.sqrt(2)),
    "quick_gelu": lambda v: v / (1 + math.exp(-1.702 * v)),
}


def gelu_tanh(v):
    return 0.5 * v * (1 + math.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3)))


def table(formula, points):
    return np.array([formula(float(v)) for v in points])


# --- the formulas ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMULAS)
def test_each_activation_follows_its_formula_in_float64(name):
    out = getattr(ops, name)(POINTS)
    np.testing.assert_allclose(out, table(FORMULAS[name], POINTS), rtol=4e-15, atol=5e-16)


@pytest.mark.parametrize("name", FORMULAS)
def test_each_activation_follows_its_formula_in_float32(name):
    small = POINTS.astype(np.float32)
    out = getattr(ops, name)(small)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, table(FORMULAS[name], small), rtol=5e-7, atol=6e-7)


def test_gelu_is_the_exact_one_in_float64():
    np.testing.assert_allclose(ops.gelu(POINTS), table(FORMULAS["gelu"], POINTS), rtol=0, atol=4e-15)


def test_gelu_in_float32_is_off_by_less_than_1e_6_between_minus_10_and_10():
    x = np.linspace(-10, 10, 40001, dtype=np.float32)
    wide = x.astype(np.float64)
    assert np.abs(ops.gelu(x) - ops.gelu(wide)).max() < 1.1e-6
    every_tenth = slice(None, None, 10)
    assert np.abs(ops.gelu(x)[every_tenth] - table(FORMULAS["gelu"], x[every_tenth])).max() < 1.1e-6


def test_gelu_is_x_far_to_the_right_and_zero_far_to_the_left():
    for dtype in (np.float32, np.float64):
        x = np.array([15.0, 40.0, 1e4, np.finfo(dtype).max], dtype)
        assert_same(ops.gelu(x), x, 0)
        assert (ops.gelu(-x) == 0).all()


def test_gelu_with_tanh_is_the_older_stand_in():
    out = ops.gelu(POINTS, approximate="tanh")
    np.testing.assert_allclose(out, table(gelu_tanh, POINTS), rtol=0, atol=4e-15)
    assert 1e-4 < np.abs(out - ops.gelu(POINTS)).max() < 5e-4
    small = ops.gelu(POINTS.astype(np.float32), "tanh")
    assert small.dtype == np.float32
    np.testing.assert_allclose(small, table(gelu_tanh, POINTS.astype(np.float32)), rtol=5e-7, atol=6e-7)


def test_gelu_over_more_than_one_block_equals_gelu_of_the_pieces():
    x = draw(2, 3, 30000, dtype=np.float32)
    assert_same(ops.gelu(x), np.stack([ops.gelu(row) for row in x]), 0)
    assert_same(ops.gelu(x[:, ::7]), ops.gelu(x)[:, ::7], 0)


def test_negative_slope_is_an_argument():
    assert ops.leaky_relu(np.array([-2.0, 3.0]), 0.25).tolist() == [-0.5, 3.0]


# --- erf in high precision -------------------------------------------------------------------------------------------

# erf at doubles that are short in binary, to 30 digits.
ERF_LITERALS = {
    0.0009765625: "0.00110193243007181470418",
    0.125: "0.140316204801333817394",
    0.5: "0.520499877813046537683",
    0.9375: "0.815102401034399804177",
    1.0: "0.842700792949714869341",
    1.5: "0.966105146475310727067",
    2.0: "0.995322265018952734162",
    3.0: "0.999977909503001414559",
    4.0: "0.999999984582742099720",
    5.0: "0.999999999998462540206",
}


def precise_erf(value):
    """Sum erf's series, 2/sqrt(pi) * sum of (-1)^n x^(2n+1) / (n! (2n+1)), with 60 decimal digits."""
    with decimal.localcontext(prec=60):
        pi = decimal.Decimal("3.14159265358979323846264338327950288419716939937510582097494459")
        x = decimal.Decimal(float(value))
        square, term, total, n = x * x, x, x, 0
        while abs(term) > decimal.Decimal("1e-50") * abs(total):
            n += 1
            term *= -square / n
            total += term / (2 * n + 1)
        return 2 * total / pi.sqrt()


def ulps(actual, points):
    """Return the distance from erf's true value in units of the last place of the result."""
    distances = []
    for a, point in zip(actual, points):
        if point == 0:
            assert a == 0
            continue
        error, unit = decimal.Decimal(float(a)) - precise_erf(point), decimal.Decimal(float(np.spacing(abs(a))))
        distances.append(abs(error / unit))
    return float(max(distances))


def test_the_reference_series_gives_the_known_digits():
    for point, digits in ERF_LITERALS.items():
        assert abs(precise_erf(point) - decimal.Decimal(digits)) < decimal.Decimal("1e-20")


def erf_points():
    near_one = 1 + np.arange(-6, 7) * 2.0**-52
    small = 10.0 ** np.arange(-300, 0, 13)
    magnitudes = np.concatenate([np.linspace(0, 6.5, 131), near_one, small, np.abs(draw(3, 150)) * 2])
    return np.concatenate([magnitudes, -magnitudes])


def test_erf_is_within_two_units_in_the_last_place_in_float64():
    points = erf_points()
    assert ulps(ops.erf(points), points) <= 2


def test_erf_is_within_one_unit_in_the_last_place_in_float32():
    points = erf_points()
    points = points[np.abs(points) > 1e-36].astype(np.float32)
    assert ulps(ops.erf(points), points) <= 1


def test_erf_is_odd_and_one_at_infinity():
    points = np.abs(erf_points())
    assert (ops.erf(-points) == -ops.erf(points)).all()
    assert ops.erf(np.array([6.0, 30.0, INF, -INF])).tolist() == [1.0, 1.0, 1.0, -1.0]
    assert np.signbit(ops.erf(np.array([-0.0]))).all()


# --- the edges of the number line ------------------------------------------------------------------------------------

# At +inf, -inf, NaN; where the formula says 0 * inf the answer is NaN, as in PyTorch's float64.
EDGES = {
    "relu": [INF, 0.0, NAN],
    "relu6": [6.0, 0.0, NAN],
    "leaky_relu": [INF, -INF, NAN],
    "sigmoid": [1.0, 0.0, NAN],
    "tanh": [1.0, -1.0, NAN],
    "silu": [INF, NAN, NAN],
    "selu": [INF, -1.7580993408473768, NAN],
    "mish": [INF, NAN, NAN],
    "erf": [1.0, -1.0, NAN],
    "gelu": [INF, NAN, NAN],
    "quick_gelu": [INF, NAN, NAN],
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", EDGES)
def test_each_activation_at_infinity_and_nan(name, dtype):
    out = getattr(ops, name)(np.array([INF, -INF, NAN], dtype))
    np.testing.assert_allclose(out, np.array(EDGES[name], dtype), rtol=2e-7 if dtype == np.float32 else 1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_tanh_gelu_at_infinity_and_nan(dtype):
    np.testing.assert_array_equal(ops.gelu(np.array([INF, -INF, NAN], dtype), "tanh"), [INF, NAN, NAN])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", FORMULAS)
def test_each_activation_takes_huge_and_tiny_numbers_without_a_warning(name, dtype):
    limits = np.finfo(dtype)
    x = np.array([limits.max / 2, -limits.max, limits.tiny, -limits.tiny, limits.smallest_subnormal, 0, -0.0], dtype)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        try:
            out = getattr(ops, name)(x)
        except FloatingPointError as error:
            pytest.fail(str(error))
    assert np.isfinite(out).all()
    assert np.abs(out[2:]).max() <= (0.5 if name == "sigmoid" else 4 * limits.tiny)


@SETTINGS
@given(
    st.sampled_from(sorted(FORMULAS)), st.lists(st.integers(0, 4), max_size=4), st.sampled_from([np.float32, float])
)
def test_activations_keep_shape_and_dtype_and_work_element_by_element(name, shape, dtype):
    x = draw(4, *shape, dtype=dtype)
    out = getattr(ops, name)(x)
    assert (out.shape, out.dtype) == (x.shape, x.dtype)
    flat = getattr(ops, name)(x.reshape(-1))
    np.testing.assert_allclose(out.reshape(-1), flat, rtol=1e-6 if dtype is np.float32 else 1e-15)


# --- softmax ---------------------------------------------------------------------------------------------------------

X = draw(5, 3, 4, 5) * 3


def test_softmax_on_numbers_worked_by_hand():
    x = np.log([[1.0, 3.0], [2.0, 2.0]])
    assert_same(ops.softmax(x), np.array([[0.25, 0.75], [0.5, 0.5]]))
    assert_same(ops.softmax(x, dim=0), np.array([[1 / 3, 0.6], [2 / 3, 0.4]]))
    assert_same(ops.log_softmax(x), np.log([[0.25, 0.75], [0.5, 0.5]]))
    assert_same(ops.log_softmax(x, dim=0), np.log([[1 / 3, 0.6], [2 / 3, 0.4]]))


@pytest.mark.parametrize("dim", [0, 1, 2, -1, -2, -3])
def test_softmax_sums_to_one_along_its_axis_and_log_softmax_is_its_logarithm(dim):
    probs = ops.softmax(X, dim)
    assert (probs > 0).all()
    np.testing.assert_allclose(probs.sum(dim), 1, rtol=1e-14)
    np.testing.assert_allclose(ops.log_softmax(X, dim), np.log(probs), rtol=0, atol=1e-13)
    exponentials = np.exp(X)
    assert_same(probs, exponentials / exponentials.sum(dim, keepdims=True))


def test_softmax_works_along_the_last_axis_unless_told():
    assert_same(ops.softmax(X), ops.softmax(X, 2), 0)
    assert_same(ops.log_softmax(X), ops.log_softmax(X, 2), 0)


def test_softmax_ignores_a_shift_along_its_axis():
    shift = draw(6, 3, 1, 5) * 10
    np.testing.assert_allclose(ops.softmax(X + shift, 1), ops.softmax(X, 1), rtol=1e-13)
    np.testing.assert_allclose(ops.log_softmax(X + shift, 1), ops.log_softmax(X, 1), rtol=0, atol=1e-13)


def test_softmax_neither_overflows_nor_underflows():
    huge = np.array([[1000.0, 1001.0], [-1000.0, -1001.0], [1e308, -1e308]])
    low, high = 1 / (1 + math.e), math.e / (1 + math.e)
    np.testing.assert_allclose(ops.softmax(huge), [[low, high], [high, low], [1, 0]], rtol=1e-14)
    logs = ops.log_softmax(np.array([[0.0, 800.0], [3.0, 2.0]]))
    np.testing.assert_allclose(logs, [[-800, 0], [math.log(high), math.log(low)]], rtol=1e-14)


def test_softmax_of_an_axis_of_length_one_is_one():
    assert_same(ops.softmax(X[..., :1]), np.ones((3, 4, 1)), 0)
    assert_same(ops.log_softmax(X[..., :1]), np.zeros((3, 4, 1)), 0)


def test_minus_infinity_gets_no_probability_and_a_row_of_it_none_at_all():
    x = np.array([[-INF, 0.0, 0.0], [-INF, -INF, -INF], [INF, 0.0, 0.0], [NAN, 0.0, 0.0]])
    np.testing.assert_array_equal(ops.softmax(x), [[0, 0.5, 0.5], [NAN] * 3, [NAN] * 3, [NAN] * 3])
    logs = ops.log_softmax(x)
    np.testing.assert_allclose(logs[0], [-INF, -math.log(2), -math.log(2)], rtol=1e-15)
    assert np.isnan(logs[1:]).all()


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax_takes_empty_arrays_and_single_numbers(name):
    op = getattr(ops, name)
    assert op(np.empty((0, 3))).shape == (0, 3)
    assert op(np.empty((3, 0))).shape == (3, 0)
    for dim in (0, -1):
        alone = op(np.array(3.0, np.float32), dim)
        assert (alone.shape, alone.dtype, float(alone)) == ((), np.float32, 1.0 if name == "softmax" else 0.0)


# --- names and refusals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        *[(name, FORMULAS[name]) for name in FORMULAS if name != "erf"],
        ("gelu_python", FORMULAS["gelu"]),
        ("gelu_new", gelu_tanh),
        ("gelu_fast", gelu_tanh),
        ("gelu_pytorch_tanh", gelu_tanh),
        ("swish", FORMULAS["silu"]),
        ("linear", float),
    ],
)
def test_each_name_of_a_hidden_act_means_its_formula(name, formula):
    np.testing.assert_allclose(ops.ACT2FN[name](POINTS), table(formula, POINTS), rtol=0, atol=1e-13)


def test_no_hidden_act_is_left_untested():
    known = {name for name in FORMULAS if name != "erf"}
    assert set(ops.ACT2FN) == known | {"gelu_python", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "swish", "linear"}


def test_gelu_refuses_another_approximation():
    with refuses(ValueError, "approximate", '"none"', '"tanh"', "'erf'"):
        ops.gelu(X, approximate="erf")


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize(
    ("dim", "error", "words"),
    [
        (3, IndexError, ("between -3 and 2", "rank 3", "got 3")),
        (-4, IndexError, ("between -3 and 2", "rank 3", "got -4")),
        (1.0, TypeError, ("whole number", "1.0")),
        (None, TypeError, ("whole number", "None")),
        ((0, 1), TypeError, ("whole number", "(0, 1)")),
    ],
)
def test_softmax_refuses_an_axis_that_is_not_there(name, dim, error, words):
    with refuses(error, "dim", *words):
        getattr(ops, name)(X, dim)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_a_single_number_has_but_one_axis(name):
    with refuses(IndexError, "dim", "between -1 and 0", "rank 0", "got 1"):
        getattr(ops, name)(np.array(3.0), 1)
