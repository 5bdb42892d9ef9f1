"""Checks of lesson 5: sigmoid, tanh GELU, log_softmax, a short erf, and factors folded into weights."""

import math
import warnings

import numpy as np

from npformer import ops

from .. import check, expect, expect_array


@check("right for every number, and nothing overflowed on the way.")
def sigmoid(answer):
    rng = np.random.default_rng()
    x = np.concatenate([4 * rng.standard_normal(33), [-1000, -104, -90, 0, 90, 1000]]).astype(np.float32)
    kept = x.copy()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with np.errstate(over="warn", invalid="warn", divide="warn", under="ignore"):
            got = answer(x)
    expect(np.array_equal(x, kept), "your function changes the array it was given: work on a new one.")
    wanted = ops.sigmoid(x.astype(np.float64))
    if got is not None and got is not ...:
        values = np.asarray(got)
        if values.shape == x.shape and values.dtype.kind == "f":
            where = np.isnan(values)
            expect(
                not where.any(),
                f"the sigmoid of {x[where][0] if where.any() else 0:.0f} is not a number in yours: infinity over "
                "infinity. Which exponential overflows?",
            )
    e = np.exp(-np.abs(x.astype(np.float64)))
    hints = {
        "for negative x that is 1 minus the right value: there the numerator is exp(x), not 1.": 1 / (1 + e),
        "that is the sigmoid of -x: the sign in the exponent is the wrong way around.": 1 - wanted,
        "that is tanh, which is a sigmoid from -1 to 1.": np.tanh(x.astype(np.float64)),
        "the two cases are swapped: 1 / (1 + e) is for positive x.": np.where(x >= 0, e, 1) / (1 + e),
    }
    expect_array(got, wanted, "sigmoid", tolerance=3e-7, hints=hints)
    expect(np.asarray(got).dtype == np.float32, f"the dtype should stay float32, yours is {np.asarray(got).dtype}.")
    expect(
        not caught,
        f"the values are right, but NumPy warned ({caught[0].message if caught else ''}): np.where computes both "
        "sides for every element; give np.exp nothing positive.",
    )


@check("that is the stand-in, digit by digit.")
def gelu_tanh(answer):
    rng = np.random.default_rng()
    x = 2 * rng.standard_normal((3, 5, 4))
    root = math.sqrt(2 / math.pi)

    def mistaken(inner):
        return x / 2 * (1 + np.tanh(inner))

    hints = {
        "that is exact GELU, with erf; the approximation is asked for.": ops.gelu(x),
        "the factor sqrt(2 / pi) is missing.": mistaken(x + 0.044715 * x**3),
        "sqrt(2 / pi) should multiply the cube too: it stands before the bracket.": mistaken(
            root * x + 0.044715 * x**3
        ),
        "the x in the bracket should be cubed, not squared.": mistaken(root * (x + 0.044715 * x**2)),
        "the constant is 0.044715, with a 0 after the point.": mistaken(root * (x + 0.44715 * x**3)),
        "the x before the cube is missing in the bracket: x + 0.044715 x^3.": mistaken(root * 0.044715 * x**3),
        "half of it is missing: divide by 2.": 2 * ops.gelu(x, "tanh"),
        "the factor x in front is missing: that is only the share that gets through.": ops.gelu(x, "tanh") / x,
        "take the square root of 2 / pi.": mistaken(2 / math.pi * (x + 0.044715 * x**3)),
        "the root covers pi too: sqrt(2 / pi).": mistaken(math.sqrt(2) / math.pi * (x + 0.044715 * x**3)),
    }
    expect_array(answer(x), ops.gelu(x, approximate="tanh"), "gelu_tanh", hints=hints)


@check("no score is too large for it, and none too small.")
def log_softmax(answer):
    rng = np.random.default_rng()
    x = rng.standard_normal((3, 4, 5))
    for axis in (1, -1, 0):
        wanted = ops.log_softmax(x, axis)
        hints = {"those are the probabilities; take logarithms.": ops.softmax(x, axis)}
        hints["the sum runs over the whole array; sum along the axis."] = x - np.log(np.exp(x).sum())
        for other in range(3):
            if other != axis % 3:
                hints[f"with axis={axis} yours works along axis {other}."] = ops.log_softmax(x, other)
        hints["the sign is wrong: logarithms of probabilities are negative."] = -wanted
        shifted = x - x.max(axis, keepdims=True)
        hints["the shift was forgotten in one place: subtract the maximum in both."] = x - np.log(
            np.exp(shifted).sum(axis, keepdims=True)
        )
        expect_array(answer(x, axis), wanted, f"log_softmax along axis {axis}", hints=hints)
    large = np.array([[1000.0, 1001.0, 1002.0], [-2000.0, -2001.0, -2000.5]])
    far = np.array([[0.0, -900.0, -5.0], [10.0, 800.0, 20.0]])
    with np.errstate(all="ignore"):
        got_large, got_far = np.asarray(answer(large, 1)), np.asarray(answer(far, 1))
    expect(
        bool(np.isfinite(got_large).all()),
        "scores of 1000 or -2000 give infinity or no number: subtract the maximum along the axis before exp.",
    )
    expect_array(got_large, ops.log_softmax(large, 1), "log_softmax of scores around 1000")
    expect(
        bool(np.isfinite(got_far).all()),
        "a score 900 below the maximum gives minus infinity: its probability rounds to 0 before the logarithm is "
        "taken. Stay in logarithms.",
    )
    expect_array(got_far, ops.log_softmax(far, 1), "log_softmax of scores far apart")


@check("seven digits of erf from eight numbers.")
def short_erf(answer):
    rng = np.random.default_rng()
    p = 0.3275911
    a = [0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429]
    x = np.concatenate([1.5 * rng.standard_normal(41), [-5.0, 5.0, 1e-3, -1e-3]])
    size = np.abs(x)
    t = 1 / (1 + p * size)

    def formula(t, square=x * x, start=1, sign=x):
        sums = sum(c * t ** (n + start) for n, c in enumerate(a))
        return np.copysign(1 - sums * np.exp(-square), sign)

    wanted = formula(t)
    with np.errstate(all="ignore"):
        got = answer(x)
        hints = {
            "the sum starts with t to the power of 1, yours with 1.": formula(t, start=0),
            "the factor exp(-x^2) is missing.": np.copysign(1 - (1 - np.abs(formula(t, square=0 * x))), x),
            "negative numbers get a positive value: erf is odd, so give it the sign of x.": np.abs(wanted),
            "for negative x, t needs |x| as well.": np.copysign(
                1 - sum(c * (1 / (1 + p * x)) ** (n + 1) for n, c in enumerate(a)) * np.exp(-x * x), x
            ),
            "negative numbers are off: the formula holds for x >= 0 only. Use |x|, then the sign.": (
                1 - sum(c * (1 / (1 + p * x)) ** (n + 1) for n, c in enumerate(a)) * np.exp(-x * x)
            ),
            "that is erfc: 1 minus it is asked for.": np.copysign(1 - np.abs(wanted), x),
            "in the exponent stands x squared, not x.": formula(t, square=size),
            "that is erf to all digits; here the formula is asked for.": ops.erf(x),
        }
    expect_array(got, wanted, "short_erf", tolerance=1e-9, hints=hints)
    expect(bool(np.abs(wanted - ops.erf(x)).max() < 1.6e-7), "the formula is farther from erf than it should be.")


@check("the halving has gone into the weights, where it costs nothing.")
def fold(answer):
    rng = np.random.default_rng()
    w1, b1 = rng.standard_normal((7, 4)), rng.standard_normal(7)
    w2, x = rng.standard_normal((3, 7)), rng.standard_normal((4, 11))
    kept = w1.copy(), b1.copy(), w2.copy()
    got = answer(w1, b1, w2)
    expect(
        all(np.array_equal(one, other) for one, other in zip(kept, (w1, b1, w2), strict=True)),
        "your function changes the weights it was given; `/=` does that. Return new arrays.",
    )
    expect(got is not None and got is not ..., "there is nothing back yet: return three arrays.")
    expect(
        isinstance(got, (tuple, list)) and len(got) == 3,
        "three arrays are asked for: the new w1, the new b1, the new w2.",
    )

    def block(v1, c1, v2):
        y = np.asarray(v1) @ x + np.asarray(c1)[:, None]
        return np.asarray(v2) @ (y * (1 + np.tanh(y)))

    for new, old, label in zip(got, kept, ("w1", "b1", "w2"), strict=True):
        expect(np.shape(new) == old.shape, f"the new {label} should have the shape {old.shape}, not {np.shape(new)}.")
    wanted = w2 @ ops.silu(w1 @ x + b1[:, None])
    hints = {
        "the bias is not halved; y is half of all of w1 @ x + b1.": block(w1 / 2, b1, w2),
        "w2 should stay: the two factors of 2 cancel.": block(w1 / 2, b1 / 2, 2 * w2),
        "w2 should stay as it is: no factor is left over for it.": block(w1 / 2, b1 / 2, w2 / 2),
        "nothing is folded yet: y is half of what silu gets.": block(w1, b1, w2),
        "w1 and b1 should be halved, not doubled.": block(2 * w1, 2 * b1, w2),
        "halving w2 is not enough: what goes into tanh has to be half as large.": block(w1, b1, w2 / 2),
        "the weight is not halved, only the bias.": block(w1, b1 / 2, w2),
    }
    expect_array(block(*got), wanted, "the folded block", hints=hints)
