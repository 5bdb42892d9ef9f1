"""The attention ops: worked numbers, loops straight from the formulas, what they ignore, taps, and refusals."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from npformer import ops

from .helpers import assert_same, draw, refuses

GRIDS = [(1, 1), (1, 5), (4, 1), (2, 3), (3, 2), (3, 5), (5, 3), (7, 7)]


# --- the index of biases ---------------------------------------------------------------------------------------------


def test_bias_index_of_a_two_by_three_grid_worked_by_hand():
    assert ops.attention_bias_index((2, 3)).tolist() == [
        [0, 1, 2, 3, 4, 5],
        [1, 0, 1, 4, 3, 4],
        [2, 1, 0, 5, 4, 3],
        [3, 4, 5, 0, 1, 2],
        [4, 3, 4, 1, 0, 1],
        [5, 4, 3, 2, 1, 0],
    ]


@pytest.mark.parametrize("grid", GRIDS)
def test_bias_index_numbers_the_offsets_in_the_order_of_their_first_appearance(grid):
    points = list(itertools.product(range(grid[0]), range(grid[1])))
    offsets: dict[tuple[int, int], int] = {}
    rows = []
    for p in points:
        for q in points:
            offset = (abs(p[0] - q[0]), abs(p[1] - q[1]))
            rows.append(offsets.setdefault(offset, len(offsets)))
    index = ops.attention_bias_index(grid)
    assert index.dtype == np.int64
    assert index.tolist() == np.reshape(rows, (len(points), len(points))).tolist()
    assert len(offsets) == len(points)


@pytest.mark.parametrize("grid", GRIDS)
def test_bias_index_is_symmetric_and_uses_every_number_of_the_table(grid):
    index = ops.attention_bias_index(grid)
    assert (index == index.T).all()
    assert (np.diag(index) == 0).all()
    assert index[0].tolist() == list(range(grid[0] * grid[1]))


def test_one_number_is_a_square_grid():
    assert (ops.attention_bias_index(4) == ops.attention_bias_index((4, 4))).all()
    assert (ops.attention_bias_index(np.int64(4)) == ops.attention_bias_index([4, 4])).all()


@pytest.mark.parametrize(
    ("resolution", "error", "words"),
    [
        (0, ValueError, ("at least 1", "got 0")),
        ((3, 0), ValueError, ("at least 1", "(3, 0)")),
        ((2, 3, 4), TypeError, ("two", "(2, 3, 4)")),
        (3.5, TypeError, ("whole number", "3.5")),
        ("7", TypeError, ("whole number", "'7'")),
    ],
)
def test_bias_index_refuses(resolution, error, words):
    with refuses(error, "resolution", *words):
        ops.attention_bias_index(resolution)


# --- attention with a bias -------------------------------------------------------------------------------------------

B, HEADS, N, WIDTH, VALUES = 2, 3, 5, 4, 7
Q, K, V = draw(1, B, HEADS, N, WIDTH), draw(2, B, HEADS, N, WIDTH), draw(3, B, HEADS, N, VALUES)
BIAS = draw(4, HEADS, N, N)  # not symmetric, so that queries and keys cannot be exchanged unseen


def test_biased_attention_on_numbers_worked_by_hand():
    query, key = np.array([[[[2.0], [0.0]]]]), np.array([[[[1.0], [1.0]]]])
    value, bias = np.array([[[[1.0], [5.0]]]]), np.array([[[0.0, math.log(3)], [math.log(7), 0.0]]])
    # equal products leave the bias to decide: first row 1/4 3/4, second row 7/8 1/8
    context, probs = ops.biased_attention(query, key, value, bias)
    assert_same(probs, np.array([[[[0.25, 0.75], [0.875, 0.125]]]]))
    assert_same(context, np.array([[[[4.0], [1.5]]]]))


def loop_attention(scale):
    context, probs = np.zeros((B, HEADS, N, VALUES)), np.zeros((B, HEADS, N, N))
    for b, h, n in np.ndindex(B, HEADS, N):
        scores = [sum(Q[b, h, n] * K[b, h, m]) * scale + BIAS[h, n, m] for m in range(N)]
        weights = np.exp(np.array(scores) - max(scores))
        probs[b, h, n] = weights / weights.sum()
        for m in range(N):
            context[b, h, n] += probs[b, h, n, m] * V[b, h, m]
    return context, probs


def test_biased_attention_equals_its_loops_with_the_scale_of_the_width():
    context, probs = ops.biased_attention(Q, K, V, BIAS)
    slow_context, slow_probs = loop_attention(1 / math.sqrt(WIDTH))
    assert_same(probs, slow_probs)
    assert_same(context, slow_context)


def test_biased_attention_takes_another_scale():
    context, probs = ops.biased_attention(Q, K, V, BIAS, scale=0.9)
    slow_context, slow_probs = loop_attention(0.9)
    assert_same(probs, slow_probs)
    assert_same(context, slow_context)


def test_every_row_of_attention_sums_to_one():
    probs = ops.biased_attention(Q, K, V, BIAS)[1]
    assert (probs > 0).all()
    np.testing.assert_allclose(probs.sum(-1), 1, rtol=1e-14)


def test_attention_ignores_what_a_query_adds_to_all_its_keys():
    row = draw(5, HEADS, N, 1)
    for plain, shifted in zip(ops.biased_attention(Q, K, V, BIAS), ops.biased_attention(Q, K, V, BIAS + row)):
        assert_same(shifted, plain)


def test_attention_follows_a_reordering_of_the_tokens():
    order = np.array([3, 0, 4, 2, 1])
    context, probs = ops.biased_attention(Q, K, V, BIAS)
    moved = ops.biased_attention(Q[:, :, order], K[:, :, order], V[:, :, order], BIAS[:, order][:, :, order])
    assert_same(moved[0], context[:, :, order])
    assert_same(moved[1], probs[:, :, order][..., order])


def test_biased_attention_shows_scores_and_probabilities_and_takes_replacements():
    seen: dict[str, np.ndarray] = {}

    def look(name, value):
        seen[name] = value.copy()
        return value

    context, probs = ops.biased_attention(Q, K, V, BIAS, tap=look)
    assert list(seen) == ["scores", "probs"]
    assert_same(seen["scores"], Q @ K.swapaxes(2, 3) / 2 + BIAS)
    assert_same(seen["probs"], probs, 0)
    uniform = np.full_like(probs, 1 / N)
    replaced = ops.biased_attention(Q, K, V, BIAS, tap=lambda name, value: uniform if name == "probs" else value)
    assert_same(replaced[1], uniform, 0)
    assert_same(replaced[0], np.broadcast_to(V.mean(2, keepdims=True), V.shape))
    level = ops.biased_attention(Q, K, V, BIAS, tap=lambda name, value: value * 0 if name == "scores" else value)
    assert_same(level[1], uniform)
    assert_same(ops.biased_attention(Q, K, V, BIAS)[0], context, 0)


BAD_BIASED = {
    "a query of rank 3": ((Q[0], K, V, BIAS), ("query", "(B, h, N, d)", "(3, 5, 4)")),
    "other keys": ((Q, K[:, :, :4], V, BIAS), ("key", "(2, 3, 5, 4)", "(2, 3, 4, 4)")),
    "values of other tokens": ((Q, K, V[:, :, :4], BIAS), ("value", "(2, 3, 5)", "(2, 3, 4, 7)")),
    "values of rank 3": ((Q, K, V[..., 0], BIAS), ("value", "(2, 3, 5)", "(2, 3, 5)")),
    "a bias for all heads": ((Q, K, V, BIAS[0]), ("bias", "(3, 5, 5)", "(5, 5)")),
    "a bias of one head": ((Q, K, V, BIAS[:1]), ("bias", "(3, 5, 5)", "(1, 5, 5)")),
    "a table not yet gathered": ((Q, K, V, BIAS[:, 0]), ("bias", "(3, 5, 5)", "(3, 5)")),
}


@pytest.mark.parametrize("case", BAD_BIASED)
def test_biased_attention_refuses(case):
    args, words = BAD_BIASED[case]
    with refuses(ValueError, *words):
        ops.biased_attention(*args)


# --- efficient additive attention ------------------------------------------------------------------------------------

EQ, EK, WG = draw(6, 2, 5, 3), draw(7, 2, 5, 3), draw(8, 3, 1)


def test_efficient_additive_attention_on_numbers_worked_by_hand():
    query, key = np.array([[[3.0, 4.0], [0.0, 2.0]]]), np.array([[[0.0, -5.0], [8.0, 6.0]]])
    # unit queries (0.6, 0.8) and (0, 1), their sum (0.6, 1.8); unit keys (0, -1) and (0.8, 0.6)
    out, unit = ops.efficient_additive_attention(query, key, np.array([[1.0], [1.0]]))
    assert_same(out, np.array([[[0.0, -1.8], [0.48, 1.08]]]))
    assert_same(unit, np.array([[[0.6, 0.8], [0.0, 1.0]]]))


def test_l2_weights_on_numbers_worked_by_hand():
    query, key = np.array([[[3.0, 4.0], [0.0, 2.0]]]), np.array([[[0.0, -5.0], [8.0, 6.0]]])
    # with w_g = (5, 0) the unit queries (0.6, 0.8) and (0, 1) score 3 and 0, so their weights are 1 and 0
    out, unit = ops.efficient_additive_attention(query, key, np.array([[5.0], [0.0]]), "l2")
    assert_same(out, np.array([[[0.0, -0.8], [0.48, 0.48]]]))
    assert_same(unit, np.array([[[0.6, 0.8], [0.0, 1.0]]]))
    # with w_g = (-5/3, 5) they score 3 and 5; the common factor 1/sqrt(2) falls out of the norm
    out, _ = ops.efficient_additive_attention(query, key, np.array([[-5 / 3], [5.0]]), "l2")
    first, second = 3 / math.sqrt(34), 5 / math.sqrt(34)
    total = (0.6 * first, 0.8 * first + second)
    assert_same(out, np.array([[[0.0, -total[1]], [0.8 * total[0], 0.6 * total[1]]]]))


def loop_additive(weights_of):
    out, unit = np.zeros_like(EQ), np.zeros_like(EQ)
    for b in range(len(EQ)):
        unit[b] = [q / math.sqrt(sum(q * q)) for q in EQ[b]]
        scores = [sum(q * WG[:, 0]) / math.sqrt(3) for q in unit[b]]
        total = sum(w * q for w, q in zip(weights_of(scores), unit[b]))
        for n, k in enumerate(EK[b]):
            out[b, n] = total * k / math.sqrt(sum(k * k))
    return out, unit


def assert_both_same(actual, expected, tolerance=1e-13):
    for ours, wanted in zip(actual, expected, strict=True):
        assert_same(ours, wanted, tolerance)


def test_efficient_additive_attention_equals_its_loops_for_both_norms():
    ones = loop_additive(lambda scores: [1.0] * len(scores))
    assert_both_same(ops.efficient_additive_attention(EQ, EK, WG), ones)
    assert_both_same(ops.efficient_additive_attention(EQ, EK, WG, "ones"), ones)
    l2 = loop_additive(lambda scores: np.array(scores) / math.sqrt(sum(s * s for s in scores)))
    assert_both_same(ops.efficient_additive_attention(EQ, EK, WG, "l2"), l2)
    assert np.abs(ones[0] - l2[0]).max() > 0.1


@pytest.mark.parametrize("norm", ["ones", "l2"])
def test_the_second_value_is_the_queries_scaled_to_length_one(norm):
    _, unit = ops.efficient_additive_attention(EQ, EK, WG, norm)
    assert_same(unit, ops.normalize(EQ, dim=-1), 0)
    np.testing.assert_allclose(np.square(unit).sum(-1), 1, rtol=1e-14)


def test_with_ones_the_weights_w_g_do_nothing():
    out = ops.efficient_additive_attention(EQ, EK, WG, "ones")
    for other in (draw(9, 3, 1) * 100, -WG, WG * 0, np.full((3, 1), 1e200), np.array([[0.0], [-3.0], [1e-200]])):
        assert_both_same(ops.efficient_additive_attention(EQ, EK, other, "ones"), out, 0)


def test_with_l2_the_weights_w_g_count_up_to_a_positive_factor():
    out, unit = ops.efficient_additive_attention(EQ, EK, WG, "l2")
    for factor in (1e-6, 0.5, 3.0, 1e100):
        assert_both_same(ops.efficient_additive_attention(EQ, EK, WG * factor, "l2"), (out, unit))
    assert_both_same(ops.efficient_additive_attention(EQ, EK, WG * -2, "l2"), (-out, unit))
    for other in (draw(9, 3, 1), WG[::-1], WG + 0.5):
        assert np.abs(ops.efficient_additive_attention(EQ, EK, other, "l2")[0] - out).max() > 0.01


def test_with_l2_and_a_w_g_of_zero_nothing_is_attended_to():
    out, unit = ops.efficient_additive_attention(EQ, EK, WG * 0, "l2")
    assert_same(out, np.zeros_like(EQ))
    assert_same(unit, ops.normalize(EQ, dim=-1), 0)


@pytest.mark.parametrize(("norm", "growth"), [("ones", 4.0), ("l2", 2.0)])
def test_the_global_query_grows_with_the_tokens_or_with_the_root_of_their_number(norm, growth):
    # the same five tokens four times over: a sum of weights 1 is four times, one of weights of length 1 twice as long
    out, unit = ops.efficient_additive_attention(EQ, EK, WG, norm)
    more, again = (np.tile(x, (1, 4, 1)) for x in (EQ, EK))
    wanted = np.tile(growth * out, (1, 4, 1)), np.tile(unit, (1, 4, 1))
    assert_both_same(ops.efficient_additive_attention(more, again, WG, norm), wanted)


@pytest.mark.parametrize("norm", ["ones", "l2"])
def test_efficient_additive_attention_follows_a_reordering_of_the_tokens(norm):
    order = np.array([3, 0, 4, 2, 1])
    out, unit = ops.efficient_additive_attention(EQ, EK, WG, norm)
    moved = ops.efficient_additive_attention(EQ[:, order], EK[:, order], WG, norm)
    assert_both_same(moved, (out[:, order], unit[:, order]))


def test_efficient_additive_attention_ignores_the_lengths_of_queries_and_keys():
    for norm in ("ones", "l2"):
        plain = ops.efficient_additive_attention(EQ, EK, WG, norm)
        lengths = np.exp(draw(9, 2, 5, 1))
        assert_both_same(ops.efficient_additive_attention(EQ * lengths, EK / lengths, WG, norm), plain)


def test_thousands_of_tokens_are_added_up_without_losing_digits():
    query, key = (draw(seed, 1, 30000, 2, dtype=np.float32, shift=2.0) for seed in (6, 7))
    w_g = np.ones((2, 1), np.float32)
    for norm in ("ones", "l2"):
        out, unit = ops.efficient_additive_attention(query, key, w_g, norm)
        exact = ops.efficient_additive_attention(*(a.astype(np.float64) for a in (query, key, w_g)), norm)
        assert_same(out.astype(np.float64), exact[0], 4e-7)
        assert_same(unit.astype(np.float64), exact[1], 2e-7)


def test_efficient_additive_attention_shows_what_happens_inside():
    seen: dict[str, np.ndarray] = {}

    def look(name, value):
        seen[name] = value.copy()
        return value

    out, unit = ops.efficient_additive_attention(EQ, EK, WG, "l2", tap=look)
    assert list(seen) == ["query", "key", "weights", "global_query"]
    assert_same(seen["query"], ops.normalize(EQ, dim=2))
    assert_same(seen["key"], ops.normalize(EK, dim=-1))
    assert_same(seen["weights"], ops.normalize(seen["query"] @ WG, dim=1))
    np.testing.assert_allclose(np.square(seen["weights"]).sum(1), 1)
    assert_same(seen["global_query"], (seen["weights"] * seen["query"]).sum(1, keepdims=True))
    assert_same(seen["global_query"] * seen["key"], out)
    assert_same(seen["query"], unit, 0)
    ops.efficient_additive_attention(EQ, EK, WG, "ones", look)
    assert_same(seen["weights"], np.ones((2, 5, 1)), 0)


def test_efficient_additive_attention_takes_replacements_and_gives_back_the_queries_it_was_told():
    for name in ("query", "key", "weights", "global_query"):
        gone = ops.efficient_additive_attention(EQ, EK, WG, "l2", lambda n, v, name=name: v * 0 if n == name else v)
        assert (gone[0] == 0).all()
        assert_same(gone[1], np.zeros_like(EQ) if name == "query" else ops.normalize(EQ, dim=-1), 0)
    told = draw(10, 2, 5, 3)  # of any length: it is not scaled again
    out, unit = ops.efficient_additive_attention(EQ, EK, WG, tap=lambda n, v: told if n == "query" else v)
    assert unit is told
    assert_same(out, told.sum(1, keepdims=True) * ops.normalize(EK, dim=-1))


BAD_ADDITIVE = {
    "a query of rank 2": ((EQ[0], EK, WG), ("query", "(B, N, D)", "(5, 3)")),
    "other keys": ((EQ, EK[:, :4], WG), ("key", "(2, 5, 3)", "(2, 4, 3)")),
    "a flat w_g": ((EQ, EK, WG[:, 0]), ("w_g", "(3, 1)", "(3,)")),
    "a w_g lying down": ((EQ, EK, WG.T), ("w_g", "(3, 1)", "(1, 3)")),
    "an unknown norm": ((EQ, EK, WG, "softmax"), ("attention_norm", '"ones"', '"l2"', "'softmax'")),
}


@pytest.mark.parametrize("case", BAD_ADDITIVE)
def test_efficient_additive_attention_refuses(case):
    args, words = BAD_ADDITIVE[case]
    with refuses(ValueError, *words):
        ops.efficient_additive_attention(*args)


# --- squeeze and excite ----------------------------------------------------------------------------------------------

X = draw(11, 2, 4, 3, 5, shift=0.4)
SQUEEZE = (draw(12, 3, 4, 1, 1), draw(13, 3), draw(14, 4, 3, 1, 1), draw(15, 4))


def loop_squeeze_excite(activation):
    reduce_weight, reduce_bias, expand_weight, expand_bias = SQUEEZE
    out = np.zeros_like(X)
    for b in range(len(X)):
        means = [X[b, c].sum() / 15 for c in range(4)]
        hidden = [
            activation(sum(reduce_weight[s, c, 0, 0] * means[c] for c in range(4)) + reduce_bias[s]) for s in range(3)
        ]
        for c in range(4):
            gate = sum(expand_weight[c, s, 0, 0] * hidden[s] for s in range(3)) + expand_bias[c]
            out[b, c] = X[b, c] / (1 + math.exp(-gate))
    return out


def test_squeeze_excite_on_numbers_worked_by_hand():
    x = np.array([[[[1.0, 3.0]], [[10.0, -10.0]]]])
    # means 2 and 0; hidden 2 * 2 - 1 = 3 kept by ReLU; gates sigmoid(0) and sigmoid(log 3)
    reduce_weight, reduce_bias = np.array([[[[2.0]], [[5.0]]]]), np.array([-1.0])
    expand_weight, expand_bias = np.array([[[[1.0]]], [[[0.0]]]]), np.array([-3.0, math.log(3)])
    out = ops.squeeze_excite(x, reduce_weight, reduce_bias, expand_weight, expand_bias, ops.relu)
    assert_same(out, np.array([[[[0.5, 1.5]], [[7.5, -7.5]]]]))


def test_squeeze_excite_equals_its_loops_with_silu_by_default():
    assert_same(ops.squeeze_excite(X, *SQUEEZE), loop_squeeze_excite(lambda v: v / (1 + math.exp(-v))))


def test_squeeze_excite_takes_another_activation():
    assert_same(ops.squeeze_excite(X, *SQUEEZE, ops.relu), loop_squeeze_excite(lambda v: max(v, 0.0)))
    assert_same(ops.squeeze_excite(X, *SQUEEZE, activation=ops.tanh), loop_squeeze_excite(math.tanh))


def test_squeeze_excite_lets_through_between_nothing_and_all():
    ratio = ops.squeeze_excite(X, *SQUEEZE) / X
    assert (ratio > 0).all()
    assert (ratio < 1).all()
    assert_same(ratio, np.broadcast_to(ratio[:, :, :1, :1], X.shape))


def test_squeeze_excite_shows_squeeze_and_gate_and_takes_replacements():
    seen: dict[str, np.ndarray] = {}

    def look(name, value):
        seen[name] = value.copy()
        return value

    out = ops.squeeze_excite(X, *SQUEEZE, tap=look)
    assert list(seen) == ["squeeze", "gate"]
    assert_same(seen["squeeze"], X.mean((2, 3), keepdims=True))
    assert_same(seen["squeeze"], ops.adaptive_avg_pool2d(X, 1), 0)
    assert_same(X * seen["gate"], out)
    open_gate = ops.squeeze_excite(X, *SQUEEZE, tap=lambda name, value: value * 0 + 1 if name == "gate" else value)
    assert_same(open_gate, X)
    still = ops.squeeze_excite(X, *SQUEEZE, tap=lambda name, value: value * 0 if name == "squeeze" else value)
    centred = X - seen["squeeze"]  # its squeeze is zero of its own
    assert_same(still / X, ops.squeeze_excite(centred, *SQUEEZE) / centred)


R, RB, E, EB = SQUEEZE
BAD_SQUEEZE = {
    "an unbatched picture": ((X[0], R, RB, E, EB), ("x", "(B, C, H, W)", "(4, 3, 5)")),
    "other channels": ((X[:, :3], R, RB, E, EB), ("reduce_weight", "(3, 3, 1, 1)", "(3, 4, 1, 1)")),
    "a matrix as reduce": ((X, R[:, :, 0, 0], RB, E, EB), ("reduce_weight", "(3, 4, 1, 1)", "(3, 4)")),
    "a kernel of 3 x 3": ((X, draw(16, 3, 4, 3, 3), RB, E, EB), ("reduce_weight", "(3, 4, 1, 1)", "(3, 4, 3, 3)")),
    "a short bias": ((X, R, RB[:2], E, EB), ("reduce_bias", "(3,)", "(2,)")),
    "another inner width": ((X, R, RB, E[:, :2], EB), ("expand_weight", "(4, 3, 1, 1)", "(4, 2, 1, 1)")),
    "one gate for all": ((X, R, RB, E[:1], EB[:1]), ("expand_weight", "(4, 3, 1, 1)", "(1, 3, 1, 1)")),
    "one bias for all": ((X, R, RB, E, EB[:1]), ("expand_bias", "(4,)", "(1,)")),
}


@pytest.mark.parametrize("case", BAD_SQUEEZE)
def test_squeeze_excite_refuses(case):
    args, words = BAD_SQUEEZE[case]
    with refuses(ValueError, *words):
        ops.squeeze_excite(*args)
