"""The fast kernels equal the readable ops; typical small errors are caught."""

import itertools

import numpy as np
import pytest

from npformer import ops
from npformer.fast import kernels
from npformer.fast.kernels import Mlp
from npformer.ops.activation import ACT2FN
from npformer.ops.window import same_padding

DTYPES = {np.float64: 1e-13, np.float32: 2e-6}  # relative to the largest value
PADS = [((0, 0), (0, 0)), ((1, 1), (1, 1)), ((0, 1), (0, 1)), ((2, 1), (0, 3))]


def draw(*shape, dtype=np.float64):
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype)


def assert_close(actual, expected, dtype=np.float64):
    assert actual.shape == expected.shape
    assert actual.dtype == dtype
    assert np.abs(actual - expected).max() <= DTYPES[dtype] * np.abs(expected).max()


def ours(name, x):
    """Return a fast activation of x, with both of its factors applied."""
    act = kernels.activation(ACT2FN[name])
    out = np.empty_like(x)
    act.apply((x * act.scale_in).astype(x.dtype), out)
    return out * x.dtype.type(act.scale_out)


@pytest.mark.parametrize("name", ACT2FN)
def test_activations_equal_the_readable_ones_in_float64(name):
    x = np.linspace(-12, 12, 4001).reshape(-1, 1)
    assert np.abs(ours(name, x) - ACT2FN[name](x)).max() < 5e-15


@pytest.mark.parametrize(("name", "limit"), [("gelu", 1.2e-6), ("silu", 1.2e-6), ("relu", 0)])
def test_activations_in_float32_are_as_exact_as_pytorchs(name, limit):
    """PyTorch 2.13's own largest errors over this range are 1.2e-6 for GELU and for SiLU."""
    x = np.linspace(-12, 12, 1_000_001, dtype=np.float32).reshape(-1, 1)
    error = np.abs(ours(name, x) - ACT2FN[name](x.astype(np.float64)))
    assert error.max() <= limit
    small = np.abs(x) < 4
    assert np.sqrt(np.mean(error[small] ** 2)) < 2.7e-7


def test_tanh_gelu_would_not_pass():
    x = np.linspace(-4, 4, 1001, dtype=np.float32)
    assert np.abs(ours("gelu_new", x) - ours("gelu", x)).max() > 1e-4


@pytest.mark.parametrize("name", ["gelu", "silu", "relu"])
def test_activations_of_extreme_values_keep_their_limits(name):
    x = np.array([0.0, 1e-30, -1e-30, 50, -50, 1e9, -1e9], np.float32)
    with np.errstate(over="ignore"):
        out = ours(name, x)
    assert np.allclose(out, np.maximum(x, 0), rtol=1e-6, atol=1e-29)
    assert np.isnan(ours(name, np.array([np.nan], np.float32)))


@pytest.mark.parametrize("blocks", [1, 3])
def test_bend_adds_the_bias_once_and_works_block_by_block(monkeypatch, blocks):
    x, bias = draw(7, 5, 6), draw(6)
    monkeypatch.setattr(kernels, "BLOCK", -(-x.size // blocks))
    act, out = kernels.activation(ops.silu), np.empty_like(x)
    kernels.bend(act, (x * act.scale_in).copy(), bias * act.scale_in, out)
    assert_close(out, ops.silu(x + bias))


@pytest.mark.parametrize("rows", [1, 7, 64, 1021])
@pytest.mark.parametrize("width", [1, 6, 3000])
def test_add_to_rows(rows, width):
    x, bias = draw(rows, width), draw(width)
    expected = x + bias
    kernels.add_to_rows(x, bias)
    assert_close(x, expected)


def test_shares_cover_everything_once_in_multiples_of_the_unit():
    for total, parts, unit in itertools.product(range(1, 40), range(1, 9), (1, 4, 16)):
        slices = kernels.shares(total, parts, unit)
        assert [i for s in slices for i in range(s.start, s.stop)] == list(range(total))
        assert len(slices) <= parts
        assert all((s.stop - s.start) % unit == 0 for s in slices[:-1])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [1, 3, 9])  # below 8 a picture is read plane by plane
@pytest.mark.parametrize(
    ("kernel", "stride"), [((3, 3), (2, 2)), ((3, 3), (1, 1)), ((2, 5), (3, 1)), ((1, 1), (2, 2))]
)
@pytest.mark.parametrize("pads", PADS)
def test_conv2d(monkeypatch, dtype, channels, kernel, stride, pads):
    x, weight, bias = draw(2, channels, 23, 19), draw(5, channels, *kernel), draw(5)
    expected = np.maximum(ops.conv2d(x, weight, bias, stride, pads), 0)
    order = (1, 2, 3, 0) if kernels.reads_planes(channels) else (2, 3, 1, 0)
    flat = np.ascontiguousarray(weight.transpose(order).reshape(-1, 5).astype(dtype))
    for few, piece in ((0, 500), (256, 600_000), (0, 600_000)):
        monkeypatch.setattr(kernels, "FEW_PIXELS", few)
        monkeypatch.setattr(kernels, "PIECE", piece)
        out = kernels.conv2d(
            x.astype(dtype), flat, bias.astype(dtype), kernel, stride, pads, kernels.activation(ops.relu)
        )
        assert_close(kernels.channels_first(out), expected, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("size", [(13, 16), (8, 7)])
@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("pads", [*PADS, "same"])
def test_depthwise(dtype, stride, size, kernel, pads):
    x, weight = draw(2, 6, *size), draw(6, 1, kernel, kernel)
    pads = same_padding(size, kernel, stride) if pads == "same" else pads
    expected = ops.depthwise_conv2d(x, weight, None, stride, pads)
    planes, targets = kernels.column_planes((2, *size, 6), pads, stride, np.dtype(dtype))
    last = kernels.channels_last(x)
    for columns, target in targets:
        np.copyto(target, last[:, :, columns])
    out = np.empty((2, *expected.shape[2:], 6), dtype)
    kernels.depthwise(planes, np.ascontiguousarray(weight[:, 0].transpose(1, 2, 0).astype(dtype)), stride, out)
    assert_close(kernels.channels_first(out), expected, dtype)


def test_strips_are_parts_of_the_padded_map():
    x, pads = draw(9, 7, 4), ((2, 1), (0, 3))
    padded = np.pad(x, (*pads, (0, 0)))
    for stride, (start, stop) in itertools.product((1, 2), ((0, 2), (1, 4), (2, 3), (0, 4))):
        seen = kernels.strip(x, slice(start, stop), 4, stride, pads)
        assert np.array_equal(seen, padded[start * stride : (stop - 1) * stride + 4])


@pytest.mark.parametrize("size", [(3, 3), (7, 5), (14, 14)])
def test_a_mean_over_a_strip_of_means_counts_real_pixels_only(size):
    x, weight = draw(*size, 4), np.full((3, 3, 4), 1 / 9)
    expected = ops.avg_pool2d(x.transpose(2, 0, 1)[None], 3, 1, 1, count_include_pad=False)[0].transpose(1, 2, 0)
    zeros_counted = ops.avg_pool2d(x.transpose(2, 0, 1)[None], 3, 1, 1)[0].transpose(1, 2, 0)
    assert np.abs(expected - zeros_counted).max() > 0.1
    for rows in kernels.shares(size[0], 3):
        kernels.strip(x, rows, 3, 1, ((1, 1), (1, 1)))  # leaves zeros at the border of memory of its own
        strip = kernels.strip_of_means(x, rows)
        out = np.empty((1, rows.stop - rows.start, size[1], 4))
        kernels.depthwise(strip[None, None], weight, 1, out)
        assert_close(out[0], expected[rows])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("side", [4, 19])
@pytest.mark.parametrize("hidden", [512, 16])
def test_mlp_block(monkeypatch, dtype, side, hidden):
    monkeypatch.setattr(kernels, "HIDDEN", hidden)
    monkeypatch.setattr(kernels, "PIECE", 2000)
    x, extra = draw(2, side, side, 6), draw(2, side, side, 6) + 1
    w1, b1, w2, b2 = draw(6, 37), draw(37), draw(37, 6), draw(6)
    act = kernels.activation(ops.gelu)
    arrays = (w1 * act.scale_in, b1 * act.scale_in), (w2 * act.scale_out, b2)
    mlp = Mlp(*(a.astype(dtype) for a in arrays[0]), act, *(a.astype(dtype) for a in arrays[1]))

    def doubled(b, rows, out):
        np.multiply(x[b, rows].astype(dtype), dtype(2), out=out)

    mixed = 2 * x
    expected = ops.gelu(mixed @ w1 + b1) @ w2 + b2
    assert_close(kernels.mlp_block(doubled, mlp, None, x.shape), mixed + expected, dtype)
    assert_close(kernels.mlp_block(doubled, mlp, extra.astype(dtype), x.shape), extra + expected, dtype)
