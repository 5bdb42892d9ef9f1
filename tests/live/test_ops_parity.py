"""Every op beside torch.nn.functional: values over awkward geometry, the edges of the number line, and refusals."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402

from npformer import ops  # noqa: E402

INF, NAN = math.inf, math.nan


class Case(NamedTuple):
    """One call: its float arrays, made in float64, and the same computation on both sides."""

    arrays: tuple[np.ndarray | None, ...]
    ours: Callable[..., Any]
    theirs: Callable[..., Any]


def to_torch(value: Any) -> Any:
    return torch.from_numpy(np.array(value)) if isinstance(value, np.ndarray) else value


def outputs(function: Callable[..., Any], arrays: tuple[Any, ...]) -> list[np.ndarray]:
    out = function(*arrays)
    return [np.asarray(part) for part in (out if isinstance(out, tuple) else (out,))]


def ours(case: Case, dtype: type) -> list[np.ndarray]:
    return outputs(case.ours, tuple(None if a is None else a.astype(dtype) for a in case.arrays))


def theirs(case: Case, dtype: type, computed: type) -> list[np.ndarray]:
    """Return torch's result for inputs rounded to `dtype`, computed in the dtype `computed`."""
    return outputs(
        case.theirs, tuple(None if a is None else to_torch(a.astype(dtype).astype(computed)) for a in case.arrays)
    )


# --- random calls ----------------------------------------------------------------------------------------------------


def pick(rng, *values):
    return values[rng.integers(len(values))]


def ints(rng, low, high, count=2):
    return tuple(int(v) for v in rng.integers(low, high + 1, count))


def picture(rng, channels, reach=(1, 1), spare=(0, 0)):
    """Random pixels, big enough for a kernel that spans `reach` of a picture padded by `spare` in all."""
    height, width = (max(1, r - s) + int(rng.integers(0, 7)) for r, s in zip(reach, spare))
    return rng.standard_normal((int(pick(rng, 1, 2, 3)), channels, height, width)) + 0.3


def conv2d(rng):
    groups, inner, outer = int(rng.integers(1, 4)), int(rng.integers(1, 4)), int(rng.integers(1, 4))
    kernel, stride, dilation, padding = ints(rng, 1, 4), ints(rng, 1, 3), ints(rng, 1, 3), ints(rng, 0, 3)
    reach = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation))
    x = picture(rng, groups * inner, reach, [2 * p for p in padding])
    weight = rng.standard_normal((groups * outer, inner, *kernel))
    bias = pick(rng, None, rng.standard_normal(groups * outer))
    arguments = (stride, padding, dilation, groups)
    return Case((x, weight, bias), lambda *a: ops.conv2d(*a, *arguments), lambda *a: F.conv2d(*a, *arguments))


def conv2d_wide(rng):
    """Sums as long as those of the real layers."""
    groups, channels, kernel = int(pick(rng, 1, 1, 2)), 2 * int(rng.integers(60, 120)), int(pick(rng, 1, 3))
    x = rng.standard_normal((2, channels, 5, 6))
    weight = rng.standard_normal((8, channels // groups, kernel, kernel)) / math.sqrt(channels)
    padding = kernel // 2
    return Case(
        (x, weight, rng.standard_normal(8)),
        lambda *a: ops.conv2d(*a, padding=padding, groups=groups),
        lambda *a: F.conv2d(*a, padding=padding, groups=groups),
    )


def conv2d_words(rng):
    padding, dilation, kernel = pick(rng, "same", "valid"), ints(rng, 1, 3), ints(rng, 1, 4)
    x = picture(rng, 3, [d * (k - 1) + 1 for k, d in zip(kernel, dilation)])
    weight = rng.standard_normal((4, 3, *kernel))

    def by_torch(x, weight):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # even kernels make torch copy, and say so
            return F.conv2d(x, weight, None, 1, padding, dilation)

    return Case((x, weight), lambda *a: ops.conv2d(*a, None, 1, padding, dilation), by_torch)


def conv2d_sides(rng):
    (top, bottom, left, right), kernel, stride = ints(rng, 0, 3, 4), ints(rng, 1, 3), ints(rng, 1, 3)
    x = picture(rng, 2, kernel)
    weight, bias = rng.standard_normal((3, 2, *kernel)), rng.standard_normal(3)
    return Case(
        (x, weight, bias),
        lambda *a: ops.conv2d(*a, stride, ((top, bottom), (left, right))),
        lambda x, w, b: F.conv2d(F.pad(x, (left, right, top, bottom)), w, b, stride),
    )


def conv2d_tensorflow(rng):
    """TensorFlow's SAME: ceil(n / s) pixels from the least padding, the odd pixel after."""
    kernel, stride, dilation = ints(rng, 1, 5), ints(rng, 1, 4), ints(rng, 1, 2)
    x = picture(rng, 4)
    weight = rng.standard_normal((4, 1, *kernel))
    pads = ops.same_padding(x.shape[2:], kernel, stride, dilation)

    def by_torch(x, weight):
        sides = []
        for n, k, s, d in zip(x.shape[2:], kernel, stride, dilation):
            total = next(t for t in itertools.count() if len(range(0, n + t - d * (k - 1), s)) >= math.ceil(n / s))
            sides = [total // 2, total - total // 2, *sides]
        return F.conv2d(F.pad(x, sides), weight, None, stride, 0, dilation, 4)

    return Case((x, weight), lambda *a: ops.conv2d(*a, None, stride, pads, dilation, 4), by_torch)


def depthwise_conv2d(rng):
    channels, kernel, stride = int(rng.integers(1, 6)), ints(rng, 1, 5), ints(rng, 1, 2)
    dilation, padding = ints(rng, 1, 2), ints(rng, 0, 2)
    reach = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation))
    x = picture(rng, channels, reach, [2 * p for p in padding])
    weight, bias = rng.standard_normal((channels, 1, *kernel)), pick(rng, None, rng.standard_normal(channels))
    return Case(
        (x, weight, bias),
        lambda *a: ops.depthwise_conv2d(*a, stride, padding, dilation),
        lambda *a: F.conv2d(*a, stride, padding, dilation, channels),
    )


def im2col(rng):
    kernel, dilation, padding, stride = ints(rng, 1, 4), ints(rng, 1, 3), ints(rng, 0, 2), ints(rng, 1, 3)
    reach = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation))
    x = picture(rng, int(rng.integers(1, 4)), reach, [2 * p for p in padding])
    x = x[0] if rng.integers(4) == 0 else x
    arguments = (kernel, dilation, padding, stride)
    return Case((x,), lambda x: ops.im2col(x, *arguments), lambda x: F.unfold(x, *arguments))


def linear(rng):
    width, outputs = ints(rng, 1, 40)
    lead = ints(rng, 1, 5, int(rng.integers(0, 4)))
    bias = pick(rng, None, rng.standard_normal(outputs))
    return Case(
        (rng.standard_normal((*lead, width)), rng.standard_normal((outputs, width)), bias), ops.linear, F.linear
    )


def linear_wide(rng):
    width, rows = int(rng.integers(200, 1800)), int(pick(rng, 1, 3, 40))
    x, weight = rng.standard_normal((rows, width)), rng.standard_normal((12, width)) / math.sqrt(width)
    return Case((x, weight, rng.standard_normal(12)), ops.linear, F.linear)


def batch_norm(rng):
    channels, rank = int(rng.integers(1, 7)), int(rng.integers(2, 6))
    x = rng.standard_normal((2, channels, *ints(rng, 1, 5, rank - 2))) + 0.5
    mean, var = rng.standard_normal(channels), rng.uniform(0.1, 3, channels)
    weight, bias = (pick(rng, None, rng.standard_normal(channels)) for _ in range(2))
    eps = pick(rng, 1e-5, 1e-3, 0.1, 0.0)
    return Case(
        (x, mean, var, weight, bias),
        lambda *a: ops.batch_norm(*a, eps),
        lambda *a: F.batch_norm(*a, training=False, eps=eps),
    )


def layer_norm(rng):
    shape = ints(rng, 2, 9, int(rng.integers(1, 4)))
    x = rng.standard_normal((*ints(rng, 1, 4, int(rng.integers(0, 3))), *shape)) * 2 + 0.7
    weight, bias = (pick(rng, None, rng.standard_normal(shape)) for _ in range(2))
    eps = pick(rng, 1e-5, 1e-12, 1e-3)
    return Case(
        (x, weight, bias),
        lambda x, *a: ops.layer_norm(x, shape, *a, eps),
        lambda x, *a: F.layer_norm(x, shape, *a, eps),
    )


def layer_norm_wide(rng):
    width = int(rng.integers(200, 800))
    x = rng.standard_normal((30, width)) * 3 + 2
    weight, bias = rng.standard_normal(width), rng.standard_normal(width)
    return Case(
        (x, weight, bias),
        lambda x, *a: ops.layer_norm(x, (width,), *a),
        lambda x, *a: F.layer_norm(x, (width,), *a),
    )


def normalize(rng):
    x = rng.standard_normal(ints(rng, 1, 6, int(rng.integers(2, 5))))
    dim, p = int(rng.integers(-x.ndim, x.ndim)), pick(rng, 2.0, 2.0, 1.0, 3.0, 0.5, INF)
    eps = pick(rng, 1e-12, 1.5)
    return Case((x,), lambda x: ops.normalize(x, p, dim, eps), lambda x: F.normalize(x, p, dim, eps))


def pooling(rng):
    kernel = ints(rng, 1, 5)
    stride = pick(rng, None, ints(rng, 1, 4))
    padding = tuple(int(rng.integers(0, k // 2 + 1)) for k in kernel)
    return kernel, stride, padding, bool(rng.integers(2))


def avg_pool2d(rng):
    kernel, stride, padding, ceil_mode = pooling(rng)
    x = picture(rng, 3, kernel, [2 * p for p in padding])
    x = x[0] if rng.integers(4) == 0 else x
    arguments = (kernel, stride, padding, ceil_mode, bool(rng.integers(2)), pick(rng, None, None, 1, 7, -3))
    return Case((x,), lambda x: ops.avg_pool2d(x, *arguments), lambda x: F.avg_pool2d(x, *arguments))


def max_pool2d(rng):
    kernel, stride, padding, ceil_mode = pooling(rng)
    dilation = ints(rng, 1, 3)
    reach = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation))
    x = picture(rng, 3, reach, [2 * p for p in padding]) - 2
    arguments = (kernel, stride, padding, dilation, ceil_mode)
    return Case((x,), lambda x: ops.max_pool2d(x, *arguments), lambda x: F.max_pool2d(x, *arguments))


def grid_of_cells(rng):
    """A picture and how many cells to pool it to: fewer than it has pixels, as many, or more."""
    x = picture(rng, 3, (2, 3)) - 1
    x = x[0] if rng.integers(4) == 0 else x
    return x, pick(rng, 1, int(rng.integers(1, 12)), ints(rng, 1, 12), ints(rng, 1, 4), x.shape[-2:])


def adaptive_avg_pool2d(rng):
    x, size = grid_of_cells(rng)
    return Case((x,), lambda x: ops.adaptive_avg_pool2d(x, size), lambda x: F.adaptive_avg_pool2d(x, size))


def adaptive_avg_pool2d_wide(rng):
    """Pictures as large as those of the real layers, to few cells."""
    x = rng.standard_normal((1, 4, *ints(rng, 20, 120))) + 2
    size = pick(rng, 1, 1, ints(rng, 1, 7))
    return Case((x,), lambda x: ops.adaptive_avg_pool2d(x, size), lambda x: F.adaptive_avg_pool2d(x, size))


def adaptive_max_pool2d(rng):
    x, size = grid_of_cells(rng)
    return Case((x,), lambda x: ops.adaptive_max_pool2d(x, size), lambda x: F.adaptive_max_pool2d(x, size))


def pool_mixer(rng):
    size = int(pick(rng, 1, 3, 3, 5, 7))
    pool = torch.nn.AvgPool2d(size, stride=1, padding=size // 2, count_include_pad=False)
    return Case((picture(rng, 4),), lambda x: ops.pool_mixer(x, size), lambda x: pool(x) - x)


def token_mean(rng):
    return Case((rng.standard_normal((2, int(rng.integers(1, 60)), 5)) + 1,), ops.token_mean, lambda x: x.mean(1))


def softmax(rng):
    x = rng.standard_normal(ints(rng, 1, 6, int(rng.integers(1, 5)))) * 4
    dim = int(rng.integers(-x.ndim, x.ndim))
    return Case((x,), lambda x: ops.softmax(x, dim), lambda x: F.softmax(x, dim))


def log_softmax(rng):
    x = rng.standard_normal(ints(rng, 1, 6, int(rng.integers(1, 5)))) * 4
    dim = int(rng.integers(-x.ndim, x.ndim))
    return Case((x,), lambda x: ops.log_softmax(x, dim), lambda x: F.log_softmax(x, dim))


def class_numbers(rng):
    """Logits, class numbers with some ignored, and the other arguments of cross_entropy."""
    classes, rest = int(rng.integers(2, 9)), ints(rng, 1, 4, int(rng.integers(0, 3)))
    logits = rng.standard_normal((5, classes, *rest)) * 3
    ignore = int(pick(rng, -100, -1, 1, classes))
    target = rng.integers(0, classes, (5, *rest))
    target[rng.random(target.shape) < 0.2] = ignore
    target[0] = 0  # so that something always counts
    weight = pick(rng, None, rng.uniform(0.2, 3, classes))
    return logits, target, weight, ignore, str(pick(rng, "none", "sum", "mean")), float(pick(rng, 0.0, 0.0, 0.1, 0.7))


def cross_entropy(rng):
    logits, target, weight, ignore, reduction, smoothing = class_numbers(rng)
    options = {"ignore_index": ignore, "reduction": reduction, "label_smoothing": smoothing}
    return Case(
        (logits, weight),
        lambda x, w: ops.cross_entropy(x, target, w, **options),
        lambda x, w: F.cross_entropy(x, torch.from_numpy(target), w, **options),
    )


def cross_entropy_probabilities(rng):
    logits, _, weight, _, reduction, smoothing = class_numbers(rng)
    probs = rng.dirichlet(np.ones(logits.shape[1]), (logits.shape[0], *logits.shape[2:]))
    options = {"reduction": reduction, "label_smoothing": smoothing}
    return Case(
        (logits, np.moveaxis(probs, -1, 1), weight),
        lambda x, p, w: ops.cross_entropy(x, p, w, **options),
        lambda x, p, w: F.cross_entropy(x, p, w, **options),
    )


def mse_loss(rng):
    shape, reduction = ints(rng, 1, 6, int(rng.integers(0, 4))), str(pick(rng, "none", "sum", "mean"))
    return Case(
        (np.asarray(rng.standard_normal(shape)), np.asarray(rng.standard_normal(shape))),
        lambda a, b: ops.mse_loss(a, b, reduction),
        lambda a, b: F.mse_loss(a, b, reduction=reduction),
    )


def binary_cross_entropy_with_logits(rng):
    rows, classes = ints(rng, 1, 6)
    reduction = str(pick(rng, "none", "sum", "mean"))
    shapes = [(rows, classes), (classes,), (rows, 1), (1,)]
    weight, pos_weight = (pick(rng, None, rng.uniform(0.2, 3, pick(rng, *shapes))) for _ in range(2))
    target = pick(rng, rng.random((rows, classes)), rng.integers(0, 2, (rows, classes)).astype(float))
    return Case(
        (rng.standard_normal((rows, classes)) * 4, target, weight, pos_weight),
        lambda x, t, w, p: ops.binary_cross_entropy_with_logits(x, t, w, reduction, p),
        lambda x, t, w, p: F.binary_cross_entropy_with_logits(x, t, w, reduction=reduction, pos_weight=p),
    )


def torch_attention(query, key, value, bias, scale):
    probs = (query @ key.transpose(-2, -1) * scale + bias).softmax(-1)
    return probs @ value, probs


def biased_attention(rng):
    batch, heads, (height, width) = int(rng.integers(1, 4)), int(rng.integers(1, 4)), ints(rng, 1, 4)
    tokens, (d, e) = height * width, ints(rng, 1, 9)
    query, key = (rng.standard_normal((batch, heads, tokens, d)) for _ in range(2))
    value, table = rng.standard_normal((batch, heads, tokens, e)), rng.standard_normal((heads, tokens))
    scale = pick(rng, None, 0.7)
    index = ops.attention_bias_index((height, width))
    by_torch = first_seen_index(height, width)
    return Case(
        (query, key, value, table),
        lambda q, k, v, t: ops.biased_attention(q, k, v, t[:, index], scale),
        lambda q, k, v, t: torch_attention(q, k, v, t[:, by_torch], d**-0.5 if scale is None else scale),
    )


def first_seen_index(height, width):
    """The index as the original code builds it: each new offset gets the next number."""
    points = list(itertools.product(range(height), range(width)))
    offsets: dict[tuple[int, int], int] = {}
    index = []
    for p1 in points:
        for p2 in points:
            offset = (abs(p1[0] - p2[0]), abs(p1[1] - p2[1]))
            if offset not in offsets:
                offsets[offset] = len(offsets)
            index.append(offsets[offset])
    return torch.LongTensor(index).view(len(points), len(points))


@pytest.mark.parametrize("grid", [(1, 1), (1, 6), (5, 1), (2, 3), (3, 2), (4, 7), (7, 4), (7, 7), (12, 5)])
def test_attention_bias_index_equals_the_construction_by_first_seen_offset(grid):
    assert np.array_equal(ops.attention_bias_index(grid), first_seen_index(*grid).numpy())


def torch_additive(query, key, w_g, norm):
    query, key = F.normalize(query, dim=-1), F.normalize(key, dim=-1)
    scores = query @ w_g * query.shape[-1] ** -0.5
    weights = scores.softmax(dim=-1) if norm == "ones" else F.normalize(scores, dim=1)
    return (weights * query).sum(dim=1, keepdim=True) * key, query


def additive(rng, norm, shape=None):
    batch, tokens, width = shape or ints(rng, 1, 6, 3)
    query, key = (rng.standard_normal((batch, tokens, width)) for _ in range(2))
    return Case(
        (query, key, rng.standard_normal((width, 1))),
        lambda q, k, w: ops.efficient_additive_attention(q, k, w, norm),
        lambda q, k, w: torch_additive(q, k, w, norm),
    )


def efficient_additive_attention_ones(rng):
    return additive(rng, "ones")


def efficient_additive_attention_l2(rng):
    return additive(rng, "l2")


def efficient_additive_attention_ones_wide(rng):
    """As many tokens and channels as in the real stages."""
    return additive(rng, "ones", pick(rng, (1, 3136, 48), (2, 784, 56), (1, 196, 112), (2, 49, 220)))


def efficient_additive_attention_l2_wide(rng):
    return additive(rng, "l2", pick(rng, (1, 3136, 48), (2, 784, 56), (1, 196, 112), (2, 49, 220)))


def squeeze_excite(rng):
    channels, inner = ints(rng, 1, 9)
    activation, by_torch = pick(rng, (ops.silu, F.silu), (ops.relu, F.relu), (ops.gelu, F.gelu))
    weights = (
        rng.standard_normal((inner, channels, 1, 1)),
        rng.standard_normal(inner),
        rng.standard_normal((channels, inner, 1, 1)),
        rng.standard_normal(channels),
    )

    def excite(x, reduce_weight, reduce_bias, expand_weight, expand_bias):
        hidden = by_torch(F.conv2d(F.adaptive_avg_pool2d(x, 1), reduce_weight, reduce_bias))
        return x * torch.sigmoid(F.conv2d(hidden, expand_weight, expand_bias))

    return Case((picture(rng, channels), *weights), lambda *a: ops.squeeze_excite(*a, activation), excite)


@pytest.mark.parametrize("seed", range(20))
def test_with_ones_w_g_is_irrelevant_on_both_sides(seed):
    case = additive(np.random.default_rng(seed), "ones")
    query, key, w_g = case.arrays
    for function, convert in ((case.ours, np.array), (case.theirs, torch.from_numpy)):
        plain, other = (outputs(function, tuple(map(convert, (query, key, w)))) for w in (w_g, -50 * w_g + 3))
        assert len(plain) == 2
        assert all(map(np.array_equal, plain, other))


@pytest.mark.parametrize("seed", range(20))
def test_with_l2_w_g_counts_but_for_its_length_on_both_sides(seed):
    case = additive(np.random.default_rng(seed), "l2", (2, 5, 3))
    query, key, w_g = case.arrays
    for function, convert in ((case.ours, np.array), (case.theirs, torch.from_numpy)):
        first, longer, turned = (
            outputs(function, tuple(map(convert, (query, key, w)))) for w in (w_g, 50 * w_g, -50 * w_g + 3)
        )
        assert distance(longer[0], first[0]) < 1e-14
        assert distance(turned[0], first[0]) > 1e-3


def quick_gelu(x):
    return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "erf": (ops.erf, torch.erf),
    "gelu": (ops.gelu, F.gelu),
    "gelu tanh": (lambda x: ops.gelu(x, "tanh"), lambda x: F.gelu(x, approximate="tanh")),
    "leaky_relu": (ops.leaky_relu, F.leaky_relu),
    "mish": (ops.mish, F.mish),
    "quick_gelu": (ops.quick_gelu, quick_gelu),
    "relu": (ops.relu, F.relu),
    "relu6": (ops.relu6, F.relu6),
    "selu": (ops.selu, F.selu),
    "sigmoid": (ops.sigmoid, torch.sigmoid),
    "silu": (ops.silu, F.silu),
    "tanh": (ops.tanh, torch.tanh),
}


def activation_cases(name):
    def one(rng):
        return Case((rng.standard_normal(ints(rng, 1, 30, 2)) * pick(rng, 1, 3, 6),), *ACTIVATIONS[name])

    return one


GENERATORS = {
    generator.__name__: generator
    for generator in (
        adaptive_avg_pool2d, adaptive_avg_pool2d_wide, adaptive_max_pool2d, avg_pool2d, batch_norm, biased_attention,
        binary_cross_entropy_with_logits, conv2d, conv2d_sides, conv2d_tensorflow, conv2d_wide, conv2d_words,
        cross_entropy, cross_entropy_probabilities, depthwise_conv2d, efficient_additive_attention_l2,
        efficient_additive_attention_l2_wide, efficient_additive_attention_ones,
        efficient_additive_attention_ones_wide, im2col, layer_norm, layer_norm_wide, linear, linear_wide, log_softmax,
        max_pool2d, mse_loss, normalize, pool_mixer, softmax, squeeze_excite, token_mean,
    )
}  # fmt: skip
GENERATORS |= {name: activation_cases(name) for name in ACTIVATIONS}
EXACT = {"adaptive_max_pool2d", "im2col", "max_pool2d", "relu", "relu6"}
COUNT = 150


def cases(name: str) -> Iterator[Case]:
    for seed in range(30 if "wide" in name else COUNT):
        yield GENERATORS[name](np.random.default_rng([seed, *name.encode()]))


def largest(array: np.ndarray) -> float:
    return float(np.max(np.abs(array), initial=0.0, where=np.isfinite(array)))


def distance(actual: np.ndarray, wanted: np.ndarray) -> float:
    """The largest difference; equal infinities are no distance apart, unequal ones infinitely far."""
    with np.errstate(invalid="ignore"):
        return float(np.max(np.where(actual == wanted, 0.0, np.abs(actual - wanted)), initial=0.0))


@pytest.mark.parametrize("name", GENERATORS)
def test_float64_agrees_with_torch(name):
    tolerance = 0 if name in EXACT else 1e-13
    for case in cases(name):
        for out, wanted in zip(ours(case, np.float64), theirs(case, np.float64, np.float64), strict=True):
            assert out.shape == wanted.shape
            assert out.dtype == np.float64
            assert distance(out, wanted) <= tolerance * max(largest(wanted), 1.0)


@pytest.mark.parametrize("name", GENERATORS)
def test_float32_is_at_most_twice_as_far_from_the_truth_as_torch(name):
    our_error = torch_error = 0.0
    for case in cases(name):
        truth = theirs(case, np.float32, np.float64)
        by_us, by_torch = ours(case, np.float32), theirs(case, np.float32, np.float32)
        for true, out, wanted in zip(truth, by_us, by_torch, strict=True):
            assert out.shape == wanted.shape
            assert out.dtype == wanted.dtype == np.float32
            scale = largest(true) or 1.0
            our_error = max(our_error, distance(out, true) / scale)
            torch_error = max(torch_error, distance(wanted, true) / scale)
    assert our_error <= max(2 * torch_error, 1e-7)
    assert our_error < 4e-6


def test_every_op_is_compared():
    compared = {name.split()[0] for name in GENERATORS}
    elsewhere = {"ACT2FN", "Array", "attention_bias_index", "same_padding", "efficient_additive_attention"}
    assert set(ops.__all__) - elsewhere <= compared


# --- the edges of the number line ------------------------------------------------------------------------------------

EDGES = np.array([
    INF, -INF, NAN, 0.0, -0.0, 5e-324, -5e-324, 1e-310, -1e-310, 2.3e-308, 1e-45, -1e-45, 1e-38, 1e308, -1e308, 3e38,
    -3e38, 1e200, -1e200, 1e5, -1e5, 745.0, -745.0, 710.0, -710.0, 104.0, -104.0, 89.0, -89.0, 40.0, -40.0, 6.0, -6.0,
    5.9, -5.9, 1.0, -1.0, 8.3, -8.3, 1e-8, -1e-8,
])  # fmt: skip


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_at_the_edges_equal_those_of_torch_in_float64(name):
    function, by_torch = ACTIVATIONS[name]
    wanted = by_torch(torch.from_numpy(EDGES)).numpy()
    np.testing.assert_allclose(function(EDGES), wanted, rtol=1e-14, atol=1e-300, equal_nan=True)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_at_the_edges_in_float32_follow_torch_in_float64(name):
    function, by_torch = ACTIVATIONS[name]
    with np.errstate(over="ignore", under="ignore"):
        small = EDGES.astype(np.float32)
        wanted = by_torch(torch.from_numpy(small.astype(np.float64))).numpy().astype(np.float32)
    np.testing.assert_allclose(function(small), wanted, rtol=3e-7, atol=5e-7, equal_nan=True)


@pytest.mark.parametrize("count", [1, 64])
def test_gelu_of_plus_infinity_is_infinite_in_float32_whatever_torchs_vectors_say(count):
    """torch's vectorised float32 kernel gives NaN there, its float64 and its scalar float32 infinity, as we do."""
    x = np.full(count, INF, np.float32)
    assert (F.gelu(torch.from_numpy(x).double()) == INF).all()
    assert (ops.gelu(x) == INF).all()


ROWS = np.array([
    [INF, 1.0, 2.0, -INF], [-INF, -INF, -INF, -INF], [-INF, 1.0, 2.0, 3.0], [NAN, 1.0, 2.0, 3.0], [INF, INF, 1.0, 2.0],
    [5e-324, 1e-310, -1e-320, 0.0], [1e-200, 1e-180, 0.0, 2e-190], [1e150, 1.0, -1e149, 3.0], [0.0, -0.0, 0.0, 0.0],
])  # fmt: skip
HUGE = np.array([[1e308, -1e308, 1e308, 1e300], [1e200, 1.0, 1e199, 3.0]])
FILTERS = np.random.default_rng(1).standard_normal((2, 1, 3, 3))
AT_THE_EDGES = {
    "softmax": (ops.softmax, lambda x: F.softmax(x, -1)),
    "log_softmax": (ops.log_softmax, lambda x: F.log_softmax(x, -1)),
    "layer_norm": (lambda x: ops.layer_norm(x, (4,)), lambda x: F.layer_norm(x, (4,))),
    "batch_norm": (
        lambda x: ops.batch_norm(x, np.arange(4.0), np.ones(4)),
        lambda x: F.batch_norm(x, torch.arange(4.0).double(), torch.ones(4).double()),
    ),
    "normalize": (ops.normalize, F.normalize),
    "normalize p=1": (lambda x: ops.normalize(x, 1.0), lambda x: F.normalize(x, 1.0)),
    "normalize p=inf": (lambda x: ops.normalize(x, INF), lambda x: F.normalize(x, INF)),
    "linear": (lambda x: ops.linear(x, np.ones((3, 4))), lambda x: F.linear(x, torch.ones(3, 4).double())),
    "conv2d": (
        lambda x: ops.conv2d(x.reshape(-1, 1, 2, 2), FILTERS, padding=1),
        lambda x: F.conv2d(x.reshape(-1, 1, 2, 2), torch.from_numpy(FILTERS), padding=1),
    ),
    "depthwise_conv2d": (
        lambda x: ops.conv2d(x.reshape(-1, 2, 1, 2), FILTERS, padding=1, groups=2),
        lambda x: F.conv2d(x.reshape(-1, 2, 1, 2), torch.from_numpy(FILTERS), padding=1, groups=2),
    ),
    "avg_pool2d": (
        lambda x: ops.avg_pool2d(x.reshape(-1, 1, 2, 2), 3, 1, 1),
        lambda x: F.avg_pool2d(x.reshape(-1, 1, 2, 2), 3, 1, 1),
    ),
    "max_pool2d": (
        lambda x: ops.max_pool2d(x.reshape(-1, 1, 2, 2), 3, 1, 1),
        lambda x: F.max_pool2d(x.reshape(-1, 1, 2, 2), 3, 1, 1),
    ),
    **{
        f"{name} to {size}": (
            lambda x, name=name, size=size: getattr(ops, name)(x.reshape(-1, 1, 2, 2), size),
            lambda x, name=name, size=size: getattr(F, name)(x.reshape(-1, 1, 2, 2), size),
        )
        for name in ("adaptive_avg_pool2d", "adaptive_max_pool2d")
        for size in (1, 2, 3)
    },
    **{
        f"efficient_additive_attention {norm}": (
            lambda x, norm=norm: ops.efficient_additive_attention(x[:, None], x[::-1, None], np.ones((4, 1)), norm)[0],
            lambda x, norm=norm: torch_additive(x[:, None], x.flip(0)[:, None], torch.ones(4, 1).double(), norm)[0],
        )
        for norm in ("ones", "l2")
    },
    "mse_loss": (
        lambda x: ops.mse_loss(x, np.ones_like(x), "none"),
        lambda x: F.mse_loss(x, torch.ones_like(x), reduction="none"),
    ),
} | {
    f"binary_cross_entropy_with_logits, target {target}": (
        lambda x, target=target: ops.binary_cross_entropy_with_logits(x, np.full_like(x, target), reduction="none"),
        lambda x, target=target: F.binary_cross_entropy_with_logits(x, torch.full_like(x, target), reduction="none"),
    )
    for target in (0.0, 0.3, 1.0)
} | {
    f"cross_entropy, class {k}, smoothing {amount}": (
        lambda x, k=k, amount=amount: ops.cross_entropy(
            x, np.full(len(x), k), reduction="none", label_smoothing=amount
        ),
        lambda x, k=k, amount=amount: F.cross_entropy(
            x, torch.full((len(x),), k), reduction="none", label_smoothing=amount
        ),
    )
    for k in range(4)
    for amount in (0.0, 0.1)
}  # fmt: skip


@pytest.mark.parametrize("name", AT_THE_EDGES)
def test_sums_at_the_edges_equal_those_of_torch_in_float64(name):
    function, by_torch = AT_THE_EDGES[name]
    with np.errstate(all="ignore"):
        out = function(ROWS)
    np.testing.assert_allclose(out, by_torch(torch.from_numpy(ROWS)).numpy(), rtol=1e-13, atol=1e-15, equal_nan=True)


@pytest.mark.parametrize(
    "name",
    [
        "softmax",
        "log_softmax",
        "batch_norm",
        "normalize",
        "normalize p=inf",
        "max_pool2d",
        "adaptive_max_pool2d to 1",
        "adaptive_max_pool2d to 3",
    ],
)
def test_huge_numbers_give_what_torch_gives_in_float64(name):
    function, by_torch = AT_THE_EDGES[name]
    with np.errstate(all="ignore"):
        out = function(HUGE)
    np.testing.assert_allclose(out, by_torch(torch.from_numpy(HUGE)).numpy(), rtol=1e-13, atol=1e-15, equal_nan=True)


def test_layer_norm_of_numbers_whose_squares_overflow_is_zero_here_and_nan_in_torch():
    assert torch.isnan(F.layer_norm(torch.from_numpy(HUGE), (4,))).all()
    with np.errstate(over="ignore"):
        assert (ops.layer_norm(HUGE, (4,)) == 0).all()


def test_what_is_added_up_in_float64_does_not_overflow_here_but_does_in_torch():
    x = np.full((1, 1, 2, 2), 3e38, np.float32)
    assert torch.isinf(F.adaptive_avg_pool2d(torch.from_numpy(x), 1)).all()
    assert (ops.adaptive_avg_pool2d(x, 1) == np.float32(3e38)).all()
    x = np.full((1, 4), 1.5e19, np.float32)
    assert (F.normalize(torch.from_numpy(x)) == 0).all()
    assert (ops.normalize(x) == 0.5).all()


def test_full_smoothing_of_an_impossible_target_is_infinite_here_and_nan_in_torch():
    logits = np.array([[-INF, 1.0, 2.0]])
    assert torch.isnan(F.cross_entropy(torch.from_numpy(logits), torch.tensor([0]), label_smoothing=1.0))
    assert ops.cross_entropy(logits, np.array([0]), label_smoothing=1.0) == INF


# --- refusals --------------------------------------------------------------------------------------------------------


def normal(*shape, dtype=np.float64):
    return np.asarray(np.random.default_rng(len(shape)).standard_normal(shape), dtype)


X, W = normal(2, 4, 7, 6), normal(6, 4, 3, 3)
TOKENS, MATRIX = normal(3, 4, 5), normal(6, 5)
FOUR, FIVE = normal(4), normal(5)
LOGITS, CLASSES, PROBS = normal(3, 4), np.array([0, 3, 1]), np.abs(normal(3, 4))
NARROW = np.float32


def torch_batch_norm(x, mean, var, weight=None, bias=None, eps=1e-5):
    return F.batch_norm(x, mean, var, weight, bias, False, 0.1, eps)


TORCH: dict[str, Callable[..., Any]] = {
    "conv2d": F.conv2d, "im2col": F.unfold, "linear": F.linear, "batch_norm": torch_batch_norm,
    "layer_norm": F.layer_norm, "normalize": F.normalize, "avg_pool2d": F.avg_pool2d, "max_pool2d": F.max_pool2d,
    "adaptive_avg_pool2d": F.adaptive_avg_pool2d, "adaptive_max_pool2d": F.adaptive_max_pool2d,
    "softmax": F.softmax, "log_softmax": F.log_softmax, "gelu": F.gelu, "relu": F.relu, "silu": F.silu, "mish": F.mish,
    "selu": F.selu, "leaky_relu": F.leaky_relu, "sigmoid": torch.sigmoid, "relu6": F.relu6, "tanh": torch.tanh,
    "erf": torch.erf, "cross_entropy": F.cross_entropy, "mse_loss": F.mse_loss,
    "binary_cross_entropy_with_logits": F.binary_cross_entropy_with_logits,
}  # fmt: skip


def call(name: str, *args: Any, **kwargs: Any) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
    return name, args, kwargs


BOTH_REFUSE = [
    call("conv2d", X[0, 0], W), call("conv2d", X[None], W), call("conv2d", X, W[0]), call("conv2d", X, W[:0]),
    call("conv2d", X, W[..., :0]), call("conv2d", X, normal(4, 1, 0, 3), groups=4), call("conv2d", X[:, :3], W),
    call("conv2d", X, W, groups=2), call("conv2d", X, W[:5, :2], groups=2), call("conv2d", X, W, groups=0),
    call("conv2d", X, W, groups=-1), call("conv2d", X, W, groups=1.0), call("conv2d", X, W, FIVE),
    call("conv2d", X, W, normal(1, 6)), call("conv2d", X, W, stride=0), call("conv2d", X, W, stride=-1),
    call("conv2d", X, W, stride=1.5), call("conv2d", X, W, stride=(1, 2, 3)), call("conv2d", X, W, stride=True),
    call("conv2d", X, W, padding=-1), call("conv2d", X, W, padding=(1, 2, 3)), call("conv2d", X, W, padding=1.0),
    call("conv2d", X, W, padding="same", stride=2), call("conv2d", X, W, padding="full"),
    call("conv2d", X, W, dilation=0), call("conv2d", X, W, dilation=3), call("conv2d", X, normal(6, 4, 9, 9)),
    call("conv2d", X, normal(6, 4, 9, 9), padding=(0, 2)), call("conv2d", X, W.astype(NARROW)),
    call("conv2d", X.astype(NARROW), W), call("conv2d", X, W, normal(6, dtype=NARROW)), call("conv2d", X > 0, W > 0),
    call("conv2d", X, W.astype(int)), call("conv2d", X[:, :, :0], W), call("conv2d", X[:, :, :0], W, padding=2),
    call("conv2d", X, None), call("conv2d", None, W), call("conv2d", X.tolist(), W),
    call("im2col", X[0, 0], 3), call("im2col", X, (3, 9)), call("im2col", X, 0), call("im2col", X, 3, stride=0),
    call("im2col", X, 3, padding=-1), call("im2col", X, 3, dilation=0), call("im2col", X, 3.0),
    call("im2col", X, (3, 3, 3)), call("im2col", X.astype(int), 3), call("im2col", X[:, :, :0], 3, padding=2),
    call("im2col", None, 3),
    *(
        call(name, *arguments)
        for name in ("avg_pool2d", "max_pool2d")
        for arguments in (
            (X[0, 0], 3), (X[None], 3), (X, 0), (X, 3, 0), (X, 3, 1, -1), (X, 3, 1, 2), (X, (4, 3), 1, (1, 2)),
            (X, 9), (X, 3, 2.0), (X, (3, 2, 1)), (X > 0, 3), (X[:, :, :0], 3), (X[:, :, :0], 3, 1, 1),
            (X, 3, None, "same"), (None, 3), (X.tolist(), 3),
        )
    ),
    *(
        call(name, *arguments)
        for name in ("adaptive_avg_pool2d", "adaptive_max_pool2d")
        for arguments in (
            (X[0, 0], 3), (X[None], 3), (X, -1), (X, (2, -1)), (X, 2.0), (X, (2.0, 3)), (X, True), (X, (True, 2)),
            (X, (1, 2, 3)), (X, ()), (X, None), (X, "3"), (X.astype(int), 3), (X > 0, 3), (X[:, :, :0], 3),
            (X[..., :0], 3), (X[:0, :, :0], 3), (X[:, :, :0], 0), (None, 3), (X.tolist(), 3),
        )
    ),
    call("avg_pool2d", X, (9, 6), (2, 6), ceil_mode=True), call("max_pool2d", X, (9, 6), (2, 6), ceil_mode=True),
    call("avg_pool2d", X, 3, divisor_override=0), call("avg_pool2d", X, 3, divisor_override=2.5),
    call("max_pool2d", X, 3, 1, 2, 2), call("max_pool2d", X, 3, 1, 1, 0), call("max_pool2d", X, 3, 1, 1, 5),
    call("linear", TOKENS, normal(6, 4)), call("linear", TOKENS, normal(1, 6, 5)),
    call("linear", np.array(1.0), MATRIX),
    call("linear", TOKENS, MATRIX, FIVE), call("linear", TOKENS, MATRIX.astype(NARROW)), call("linear", TOKENS, None),
    call("linear", TOKENS, MATRIX, normal(6, dtype=NARROW)), call("linear", None, MATRIX),
    call("batch_norm", TOKENS[0, :, 0], FOUR, FOUR**2), call("batch_norm", np.array(1.0), FOUR, FOUR**2),
    call("batch_norm", TOKENS, FIVE, FOUR**2), call("batch_norm", TOKENS, FOUR, FIVE**2),
    call("batch_norm", TOKENS, FOUR, FOUR**2, FIVE), call("batch_norm", TOKENS, FOUR, FOUR**2, FOUR, FIVE),
    call("batch_norm", TOKENS, FOUR, FOUR**2, FOUR[:1]), call("batch_norm", TOKENS, FOUR[None], FOUR**2),
    call("batch_norm", TOKENS, None, None), call("batch_norm", TOKENS, FOUR, None),
    call("batch_norm", TOKENS, FOUR, FOUR**2, eps=-1e-5), call("batch_norm", TOKENS.astype(int), FOUR, FOUR**2),
    call("batch_norm", TOKENS, FOUR.astype(NARROW), (FOUR**2).astype(NARROW)),
    call("batch_norm", TOKENS.astype(NARROW), FOUR, FOUR**2), call("batch_norm", None, FOUR, FOUR**2),
    call("layer_norm", TOKENS, 5), call("layer_norm", TOKENS, ()), call("layer_norm", TOKENS, (4,)),
    call("layer_norm", TOKENS, (2, 3, 4, 5)), call("layer_norm", TOKENS, (5.0,)), call("layer_norm", TOKENS, None),
    call("layer_norm", TOKENS, (5,), FOUR), call("layer_norm", TOKENS, (5,), FIVE, FOUR),
    call("layer_norm", TOKENS, (4, 5), FIVE), call("layer_norm", TOKENS, (5,), FIVE.astype(NARROW)),
    call("layer_norm", TOKENS.astype(int), (5,)), call("layer_norm", None, (5,)),
    call("normalize", TOKENS, dim=3), call("normalize", TOKENS, dim=-4), call("normalize", FIVE),
    call("normalize", TOKENS, dim=1.0), call("normalize", TOKENS.astype(int)),
    *(
        call(name, *arguments)
        for name in ("softmax", "log_softmax")
        for arguments in (
            (TOKENS, 3), (TOKENS, -4), (TOKENS, 1.0), (TOKENS, (1, 2)), (TOKENS, "1"), (TOKENS.astype(int), 1),
            (np.array(1.0), 1), (None, 0),
        )
    ),
    *(call(name, None) for name in ("erf", "gelu", "mish", "relu", "relu6", "selu", "sigmoid", "silu", "tanh")),
    *(call(name, [1.0]) for name in ("erf", "gelu", "leaky_relu", "relu", "relu6", "sigmoid", "silu", "tanh")),
    *(call(name, np.arange(3)) for name in ("gelu", "leaky_relu", "mish", "selu", "silu")),
    *(call(name, np.array([True])) for name in ("gelu", "leaky_relu", "mish", "relu", "relu6", "selu", "silu")),
    call("gelu", TOKENS, approximate="erf"),
    call("cross_entropy", np.array(1.0), np.array(0)), call("cross_entropy", LOGITS, [0, 3, 1]),
    call("cross_entropy", LOGITS, None), call("cross_entropy", LOGITS, 2), call("cross_entropy", LOGITS, CLASSES > 0),
    call("cross_entropy", LOGITS, CLASSES * 1j), call("cross_entropy", LOGITS, np.array([0, 4, 1])),
    call("cross_entropy", LOGITS, np.array([0, -1, 1])), call("cross_entropy", LOGITS, CLASSES - 100, ignore_index=-1),
    call("cross_entropy", LOGITS, CLASSES[:2]), call("cross_entropy", LOGITS, CLASSES[:, None]),
    call("cross_entropy", LOGITS, CLASSES * 1.0), call("cross_entropy", LOGITS, CLASSES, weight=FIVE),
    call("cross_entropy", LOGITS, CLASSES, weight=FOUR[None]), call("cross_entropy", LOGITS.astype(int), CLASSES),
    call("cross_entropy", LOGITS, CLASSES, weight=FOUR.astype(NARROW)), call("cross_entropy", LOGITS, PROBS[:2]),
    call("cross_entropy", LOGITS, PROBS[:, :3]), call("cross_entropy", LOGITS, PROBS, ignore_index=2),
    call("cross_entropy", LOGITS, CLASSES, ignore_index=1.5), call("cross_entropy", LOGITS, CLASSES, reduction="avg"),
    call("cross_entropy", LOGITS, CLASSES, reduction=None),
    call("cross_entropy", LOGITS, CLASSES, label_smoothing=1.5),
    call("cross_entropy", normal(3, 4, 5), np.zeros((3, 4), int)), call("cross_entropy", None, CLASSES),
    call("mse_loss", LOGITS, PROBS[:2]), call("mse_loss", LOGITS, PROBS, reduction="avg"),
    call("mse_loss", LOGITS, None), call("mse_loss", LOGITS.astype(int), CLASSES[:, None].repeat(4, 1)),
    *(
        call("binary_cross_entropy_with_logits", *arguments)
        for arguments in (
            (LOGITS, PROBS[:1]), (LOGITS, PROBS[0]), (LOGITS, PROBS, normal(3)), (LOGITS, PROBS, normal(2, 3, 4)),
            (LOGITS[:1], PROBS[:1], PROBS), (LOGITS, None), (None, PROBS), (LOGITS.astype(int), PROBS > 0.5),
        )
    ),
    *(
        call("binary_cross_entropy_with_logits", *arguments, reduction=reduction, pos_weight=price)
        for arguments, reduction, price in (
            ((LOGITS, PROBS), "avg", None), ((LOGITS, PROBS), "mean", normal(3)),
            ((LOGITS, PROBS), "mean", normal(2, 3, 4)), ((LOGITS[:1], PROBS[:1]), "none", PROBS),
        )
    ),
]  # fmt: skip

BOTH_ACCEPT = [
    call("conv2d", X, W, stride=(2,)), call("conv2d", X, W, padding="same", dilation=2),
    call("conv2d", X, W, padding=[1]),
    call("conv2d", X, normal(6, 4, 7, 6)), call("conv2d", X, normal(6, 4, 9, 9), padding=2), call("conv2d", X[:0], W),
    call("conv2d", X[0], W), call("conv2d", X.astype(np.float16), W.astype(np.float16)),
    call("im2col", X, (7, 6)), call("im2col", X[0], 3), call("im2col", X[:0], 3),
    *(
        call(name, *arguments)
        for name in ("avg_pool2d", "max_pool2d")
        for arguments in (
            (X, 4, 1, 2), (X, (3, 4), 1, (1, 2)), (X, (3,)), (X, 3, (2,)), (X[:0], 3), (X[0], 3),
            (X[:, :, :1], 3, 1, 1),
        )
    ),
    *(
        call(name, *arguments)
        for name in ("adaptive_avg_pool2d", "adaptive_max_pool2d")
        for arguments in (
            (X, 3), (X, [3, 2]), (X, (9, 20)), (X[0], (2, 3)), (X[:0], 3), (X[0, :0], 3), (X[:, :, :1, :1], 4),
            (X.astype(np.float16), (3, 2)),
        )
    ),
    call("adaptive_avg_pool2d", X[:, :0], 3),
    call("avg_pool2d", X, (9, 6), ceil_mode=True), call("max_pool2d", X, (9, 6), (3, 6), ceil_mode=True),
    call("avg_pool2d", X, 3, divisor_override=-2), call("max_pool2d", X, 2, 1, 1, 2),
    call("linear", FIVE, MATRIX), call("linear", TOKENS[:0], MATRIX), call("linear", TOKENS, MATRIX[:0]),
    call("linear", normal(2, 0), normal(4, 0), FOUR),
    call("batch_norm", TOKENS, FOUR, FOUR**2, eps=0.0), call("batch_norm", TOKENS, FOUR, FOUR**2, None, FOUR),
    call("batch_norm", TOKENS[..., 0], FOUR, FOUR**2), call("batch_norm", TOKENS[:0], FOUR, FOUR**2),
    call("layer_norm", TOKENS, [5]), call("layer_norm", TOKENS, (3, 4, 5)),
    call("layer_norm", TOKENS, (5,), None, FIVE),
    call("layer_norm", TOKENS[:0], (5,)), call("layer_norm", TOKENS, (5,), FIVE, eps=1e-12),
    call("normalize", TOKENS, dim=-3), call("normalize", FIVE, dim=0), call("normalize", np.array(3.0), dim=-1),
    call("softmax", np.array(3.0), -1), call("softmax", TOKENS[:0], 0), call("log_softmax", np.array(3.0), 0),
    call("gelu", TOKENS, approximate="tanh"), call("relu", np.array(-1.0)), call("gelu", np.array(-1.0)),
    call("cross_entropy", LOGITS, CLASSES.astype(np.uint8)), call("cross_entropy", LOGITS[0], np.array(2)),
    call("cross_entropy", LOGITS[0], PROBS[0]), call("cross_entropy", LOGITS[0], np.array(2), reduction="none"),
    call("cross_entropy", LOGITS, PROBS, ignore_index=-2), call("cross_entropy", LOGITS, CLASSES, label_smoothing=1.0),
    call("cross_entropy", LOGITS, np.array([0, 9, 1]), ignore_index=9), call("cross_entropy", LOGITS[:0], CLASSES[:0]),
    call("cross_entropy", LOGITS, np.full(3, -100)), call("mse_loss", np.array(1.0), np.array(3.0)),
    call("mse_loss", np.array(1.0), np.array(3.0), reduction="none"), call("mse_loss", LOGITS[:0], PROBS[:0]),
    call("binary_cross_entropy_with_logits", LOGITS, PROBS, normal(3, 1)),
    call("binary_cross_entropy_with_logits", LOGITS, PROBS, FOUR, reduction="none", pos_weight=np.array(2.0)),
]  # fmt: skip

# Where we refuse and torch does not: it promotes types, broadcasts silently, computes in integers, or reads None
# as the number of pixels.
ONLY_WE_REFUSE = {
    "convolution of whole numbers": call("conv2d", X.astype(int), W.astype(int)),
    "a linear layer of whole numbers": call("linear", TOKENS.astype(int), MATRIX.astype(int)),
    "average pooling of whole numbers": call("avg_pool2d", X.astype(int), 3),
    "maximum pooling of whole numbers": call("max_pool2d", X.astype(int), 3),
    "an empty stride, for the kernel": call("avg_pool2d", X, 3, ()),
    "the mean of no cells": call("adaptive_avg_pool2d", X, 0),
    "the maximum of no cells": call("adaptive_max_pool2d", X, (3, 0)),
    "means of as many rows as there are": call("adaptive_avg_pool2d", X, (None, 3)),
    "maxima of as many columns as there are": call("adaptive_max_pool2d", X, (3, None)),
    **{f"{name} of whole numbers": call(name, np.arange(3)) for name in ("erf", "relu", "relu6", "sigmoid", "tanh")},
    "one bias for all outputs": call("linear", TOKENS, MATRIX, FIVE[:1]),
    "a bias per token": call("linear", TOKENS, MATRIX, normal(4, 6)),
    "a vector as weight": call("linear", TOKENS, FIVE),
    "a length over two axes": call("normalize", TOKENS, dim=(1, 2)),
    "a length over everything": call("normalize", TOKENS, dim=None),
    "a target to broadcast": call("mse_loss", LOGITS, PROBS[:1]),
    "a narrower target": call("mse_loss", LOGITS, PROBS.astype(NARROW)),
    "yes and no as narrower floats": call("binary_cross_entropy_with_logits", LOGITS, PROBS.astype(NARROW)),
    "a narrower weight": call("binary_cross_entropy_with_logits", LOGITS, PROBS, FOUR.astype(NARROW)),
    "a row of one class number": call("cross_entropy", LOGITS[0], np.array([2])),
    "negative smoothing, for none": call("cross_entropy", LOGITS, CLASSES, label_smoothing=-0.1),
}

# Where torch refuses and we do not: NumPy's integers come in every width, one number in a tuple means both axes
# everywhere, and no channels give an empty result.
ONLY_TORCH_REFUSES = {
    "class numbers of 32 bits": call("cross_entropy", LOGITS, CLASSES.astype(np.int32)),
    "class numbers of 16 bits": call("cross_entropy", LOGITS, CLASSES.astype(np.int16)),
    "a kernel in a tuple of one": call("im2col", X, (3,)),
    "columns of no channels": call("im2col", X[:, :0], 3),
    "average pooling of no channels": call("avg_pool2d", X[:, :0], 3),
    "maximum pooling of no channels": call("max_pool2d", X[:, :0], 3),
    "adaptive maximum pooling of no channels": call("adaptive_max_pool2d", X[:, :0], 3),
    "a number of mean cells in a tuple of one": call("adaptive_avg_pool2d", X, (3,)),
    "a number of maximum cells in a tuple of one": call("adaptive_max_pool2d", X, (3,)),
    "a number of cells that is NumPy's": call("adaptive_avg_pool2d", X, np.int64(3)),
}


def short(value: Any) -> str:
    return f"{value.dtype}{list(value.shape)}" if isinstance(value, np.ndarray) else repr(value)[:20]


def spelled(calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]]) -> list[Any]:
    return [
        pytest.param(
            *one, id=f"{one[0]}({', '.join([*map(short, one[1]), *(f'{k}={short(v)}' for k, v in one[2].items())])})"
        )
        for one in calls
    ]


def by_torch(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return TORCH[name](*map(to_torch, args), **{k: to_torch(v) for k, v in kwargs.items()})


def assert_torch_refuses(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError, IndexError, AttributeError, RuntimeError)):
        by_torch(name, args, kwargs)


def assert_we_refuse(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError, IndexError), match=r"^\w+(=\S+)? .*(must|needs|too small)") as caught:
        getattr(ops, name)(*args, **kwargs)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "args", "kwargs"), spelled(BOTH_REFUSE))
def test_what_torch_refuses_we_refuse(name, args, kwargs):
    assert_torch_refuses(name, args, kwargs)
    assert_we_refuse(name, args, kwargs)


@pytest.mark.parametrize(("name", "args", "kwargs"), spelled(BOTH_ACCEPT))
def test_what_torch_accepts_we_accept(name, args, kwargs):
    wanted = by_torch(name, args, kwargs).numpy()
    out = np.asarray(getattr(ops, name)(*args, **kwargs))
    assert out.shape == wanted.shape
    assert out.dtype == wanted.dtype
    half = out.dtype == np.float16
    np.testing.assert_allclose(out, wanted, rtol=1e-2 if half else 1e-12, atol=0.05 if half else 1e-12)


@pytest.mark.parametrize("what", ONLY_WE_REFUSE)
def test_we_refuse_what_torch_lets_pass(what):
    by_torch(*ONLY_WE_REFUSE[what])
    assert_we_refuse(*ONLY_WE_REFUSE[what])


@pytest.mark.parametrize("what", ONLY_TORCH_REFUSES)
def test_we_let_pass_what_torch_refuses(what):
    assert_torch_refuses(*ONLY_TORCH_REFUSES[what])
    name, args, kwargs = ONLY_TORCH_REFUSES[what]
    assert np.asarray(getattr(ops, name)(*args, **kwargs)).dtype == np.float64


def test_probabilities_are_rounded_to_the_input_where_torch_widens_the_loss():
    out = ops.cross_entropy(LOGITS.astype(NARROW), PROBS)
    wanted = F.cross_entropy(torch.from_numpy(LOGITS.astype(NARROW)), torch.from_numpy(PROBS))
    assert (out.dtype, wanted.dtype) == (np.float32, torch.float64)
    np.testing.assert_allclose(out, wanted.numpy(), rtol=1e-6)
