"""Fast kernels: the ops of `npformer.ops`, rearranged for the hardware.

Maps are channels-last here, (B, H, W, C): a 1x1 convolution is then one matrix product of pixels and weights, and a
row of the picture is one contiguous run of numbers. Weights come folded by `npformer.fuse`. They are fast because

- work is done piece by piece, so that the output of one pass is still in the cache for the next;
- passes over memory are saved: batch norm and layer scale are in the weights, and so are constants of activations;
  results are written where the next step reads them (into the middle of a padded map, say);
- a depthwise convolution is one `einsum` over a view of every pixel's neighbourhood, which copies nothing.

Each is tested against its readable twin in `ops`; `README.md` beside this file has the speed-ups. The pieces of a
single picture are distributed over threads; with several pictures each thread takes whole pictures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from .. import ops
from ..ops import Array
from ..ops.window import Pads, Pair, output_sizes
from .threads import fresh, lap, parts, run, scratch

BLOCK = 600_000  # elements per call of an activation; shorter calls would make threads wait for Python's lock
RUN = 2048  # elements in a row that make NumPy's cost per row negligible,
WIDE = 96  # and that make it acceptable
PIECE = 600_000  # elements of a piece's largest temporary, 2.4 MB in float32
SMALL = 30_000  # elements of a map from which splitting it between threads pays
HIDDEN = 512  # hidden channels of an MLP taken at a time
FEW_PIXELS = 256  # maps of at most 16 x 16 pixels: weights outweigh pixels, so pictures are taken together


Shape = tuple[int, ...]


# Activations -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Activation:
    """An in-place activation: f(x) = scale_out * apply(scale_in * x).

    Both factors are folded into the weights before and after, where they cost nothing.
    """

    apply: Callable[[Array, Array], None]  # (x, out): out may be x itself
    scale_in: float = 1.0
    scale_out: float = 1.0


# tanh(x R(x^2)) = erf(x / sqrt(2)) with R(z) = p0 + p1 z + p2 / (z^2 + p3 z + p4): minimax over |x| < 6 of the error
# in GELU, small |x| weighted more (4e-7 from 2.5 on, a tenth of that at 0). With x scaled by the cube root of p1 the
# second factor is 1; the polynomial of `ops.gelu` takes five passes more.
_GELU_SCALE = 0.2703735913784408
_GELU = {"A": 1.3049194979439278, "B": 1.6322894770414489, "P": 4.000050116736563, "Q": -1.7122887306353898}


def _gelu(y: Array, out: Array) -> None:
    """Compute 2 _GELU_SCALE GELU(y / _GELU_SCALE) = y (1 + tanh(y (z + P + Q / ((z + A) z + B)))), z = y^2.

    In float32 within 1.1e-6 of GELU (PyTorch: 1.2e-6). float64 takes `ops.gelu`.
    """
    if y.dtype != np.float32:
        np.multiply(ops.gelu(y / _GELU_SCALE), 2 * _GELU_SCALE, out=out)
        return
    a, b, p, q = (np.float32(_GELU[name]) for name in "ABPQ")
    z, t = scratch("gelu", (2, *y.shape), y.dtype)
    np.multiply(y, y, out=z)
    np.add(z, a, out=t)
    t *= z
    t += b
    np.divide(q, t, out=t)
    t += z
    t += p
    t *= y
    np.tanh(t, out=t)
    t += np.float32(1)
    np.multiply(t, y, out=out)


def _silu(y: Array, out: Array) -> None:
    """Compute the SiLU of 2 y: y (1 + tanh(y)), since a sigmoid is a tanh, and NumPy's tanh is faster than its exp."""
    t = scratch("silu", y.shape, y.dtype)
    np.tanh(y, out=t)
    t += y.dtype.type(1)
    np.multiply(t, y, out=out)


def _relu(y: Array, out: Array) -> None:
    """Compute max(y, 0) against an array of zeros, as NumPy takes four times as long for a scalar 0."""
    zeros = scratch("relu", y.shape, y.dtype)
    zeros.fill(0)
    np.maximum(y, zeros, out=out)


def _copy(y: Array, out: Array) -> None:
    if out is not y:
        np.copyto(out, y)


def _plain(function: Callable[[Array], Array], y: Array, out: Array) -> None:
    np.copyto(out, function(y))


IDENTITY = Activation(_copy)
_IN_PLACE: dict[Callable[[Array], Array], Activation] = {
    ops.gelu: Activation(_gelu, _GELU_SCALE, 0.5 / _GELU_SCALE),
    ops.silu: Activation(_silu, 0.5),
    ops.relu: Activation(_relu),
}


def activation(function: Callable[[Array], Array]) -> Activation:
    """Return the fast form of an element-wise function, or a wrapper that calls it."""
    return _IN_PLACE.get(function) or exact(function)


def exact(function: Callable[[Array], Array]) -> Activation:
    """Return the function unchanged, with no factors to fold elsewhere."""
    return Activation(partial(_plain, function))


def bend(act: Activation, x: Array, bias: Array, out: Array | list[tuple[slice, Array]]) -> None:
    """Add the bias and apply the activation, out = apply(x + bias), block by block.

    x (..., C) is contiguous and overwritten; bias (C,). `out` has the shape of x and any strides: (H, W, C) inside a
    padded map, say. Or it is the list that `column_planes` returns, for one picture.
    """
    targets = out if isinstance(out, list) else [(slice(None), out)]
    with np.errstate(over="ignore", invalid="ignore"):
        for rows in shares(len(x), -(-x.size // BLOCK)):
            add_to_rows(x[rows], bias)
            for columns, target in targets:
                act.apply(x[rows, columns], target[rows])
    lap("activation" if act is not IDENTITY else "addition", moved=2 * x.nbytes)


def add_to_rows(x: Array, bias: Array) -> None:
    """Add the bias along the last axis of a contiguous x, in place. Narrow rows are taken several at a time."""
    width = x.shape[-1]
    times = 1 if width >= WIDE else divisor(x.size // width, RUN // width)
    if times > 1:
        bias = repeated(bias, times)
    long = x.reshape(-1, times * width)
    long += bias


def repeated(x: Array, times: int) -> Array:
    """Repeat along the last axis, (..., C) -> (..., times * C), in scratch memory."""
    out = scratch("repeated", (*x.shape[:-1], times, x.shape[-1]), x.dtype)
    out[...] = x[..., None, :]
    return out.reshape(*x.shape[:-1], -1)


def divisor(number: int, most: int) -> int:
    """Return the largest divisor of `number` that is at most `most`, and at least 1."""
    return next((d for d in range(min(number, most), 1, -1) if number % d == 0), 1)


# Matrix products ---------------------------------------------------------------------------------------------------


def matmul(a: Array, b: Array, out: Array) -> None:
    """Multiply matrices, out = a @ b: (M, I), (I, J) -> (M, J).

    Sums are not split, as `ops.linear.matmul` does for accuracy: measured over whole models, errors stay within 1.4
    times PyTorch's at every block.
    """
    np.matmul(a, b, out=out)
    lap("matrix product", 2 * out.size * a.shape[1], a.nbytes + b.nbytes + out.nbytes)


def shares(total: int, parts: int, unit: int = 1) -> list[slice]:
    """Split range(total) into at most `parts` slices of about equal length, all but the last a multiple of `unit`."""
    step = -(-total // max(1, parts))
    step = -(-step // unit) * unit
    return [slice(start, min(start + step, total)) for start in range(0, total, step)]


def pieces(numbers: int) -> int:
    """Return the number of pieces, equal for each thread, for work with a largest temporary of so many elements."""
    return parts() * -(-numbers // (PIECE * parts()))


@dataclass(eq=False, repr=False)
class Mlp:
    """The weights of linear, activation, linear: (C, E), (E,), (E, C'), (C',)."""

    expand: Array
    expand_bias: Array
    act: Activation
    narrow: Array
    narrow_bias: Array

    def partial(self, x: Array, hidden: slice, out: Array) -> None:
        """Compute the contribution of some hidden channels: out = act(x @ expand + bias) @ narrow, with no last bias.

        They are taken a few hundred at a time: the wide map, four times the input, never leaves the cache.
        """
        for some in shares(hidden.stop - hidden.start, -(-(hidden.stop - hidden.start) // HIDDEN), 16):
            columns = slice(hidden.start + some.start, hidden.start + some.stop)
            wide = scratch("wide", (len(x), some.stop - some.start), x.dtype)
            matmul(x, self.expand[:, columns], wide)
            bend(self.act, wide, self.expand_bias[columns], wide)
            into = scratch("narrow", out.shape, out.dtype) if some.start else out
            matmul(wide, self.narrow[columns], into)
            if some.start:
                out += into

    def finish(self, out: Array, added: Array) -> None:
        """Complete a residual branch: out += bias + added."""
        add_to_rows(out, self.narrow_bias)
        out += added.reshape(out.shape)
        lap("addition", moved=5 * out.nbytes)

    def few_rows(self, x: Array, added: Array, out: Array) -> None:
        """Compute a whole branch, out = added + mlp(x), splitting the hidden channels and adding up the results."""
        columns = shares(len(self.narrow), parts(), 16)
        sums = [out, *scratch("sums", (len(columns) - 1, *out.shape), out.dtype)]

        def piece(some: slice, total: Array) -> None:
            self.partial(x, some, total)
            if total is out:
                self.finish(out, added)

        run([partial(piece, some, total) for some, total in zip(columns, sums, strict=True)])
        for total in sums[1:]:
            out += total


def mlp_block(before: Callable[[int, slice, Array], None], mlp: Mlp, added: Array | None, shape: Shape) -> Array:
    """Compute a whole block: x + mlp(x) with x = before(...), or `added` + mlp(x) where that is given. (B, H, W, C).

    `before(b, rows, out)` computes some rows of picture b into `out` (rows, W, C): the mixer ahead of the MLP.
    """
    batch, height, width, channels = shape
    dtype, narrow = mlp.narrow.dtype, mlp.narrow.shape[1]
    out = fresh((batch, height, width, narrow), dtype)
    if height * width <= FEW_PIXELS:
        x = scratch("all mixed", shape, dtype)
        cuts = shares(height, parts() if x[0].size > SMALL else 1)
        run([partial(before, b, rows, x[b, rows]) for b in range(batch) for rows in cuts])
        flat = x.reshape(-1, channels)
        mlp.few_rows(flat, flat if added is None else added, out.reshape(-1, narrow))
        return out

    def piece(b: int, rows: slice) -> None:
        x = scratch("mixed", (rows.stop - rows.start, width, channels), dtype)
        before(b, rows, x)
        flat, into = x.reshape(-1, channels), out[b, rows].reshape(-1, narrow)
        mlp.partial(flat, slice(0, len(mlp.narrow)), into)
        mlp.finish(into, flat if added is None else added[b, rows])

    cuts = shares(height, pieces(height * width * min(HIDDEN, len(mlp.narrow))))
    run([partial(piece, b, rows) for b in range(batch) for rows in cuts])
    return out


def linear(x: Array, weight: Array, bias: Array, act: Activation) -> Array:
    """Compute act(x @ weight + bias): (M, I), (I, J), (J,) -> (M, J); split rows, or columns if there are few rows."""
    out = fresh((len(x), weight.shape[1]), x.dtype)

    def some_rows(rows: slice) -> None:
        matmul(x[rows], weight, out[rows])
        bend(act, out[rows], bias, out[rows])

    def some_columns(columns: slice) -> None:
        into = scratch("linear", (len(x), columns.stop - columns.start), x.dtype)
        matmul(x, weight[:, columns], into)
        bend(act, into, bias[columns], out[:, columns])

    if len(x) > FEW_PIXELS or parts() == 1:
        run([partial(some_rows, rows) for rows in shares(len(x), parts())])
    else:
        run([partial(some_columns, columns) for columns in shares(weight.shape[1], parts(), 16)])
    return out


# Maps --------------------------------------------------------------------------------------------------------------


def channels_last(x: Array) -> Array:
    """Move channels last, (B, C, H, W) -> (B, H, W, C), contiguous; the output of another kernel is not copied."""
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1))


def channels_first(x: Array) -> Array:
    """Return the view (B, H, W, C) -> (B, C, H, W): the same memory, in the axis order of all modules."""
    return x.transpose(0, 3, 1, 2)


def view(x: Array, shape: Shape, strides: Shape) -> Array:
    """Return a view of contiguous x with other axes, which may overlap. Faster than `as_strided`."""
    return np.ndarray(shape, x.dtype, x, 0, strides)


def padded_size(size: Pair, pads: Pads) -> Pair:
    """Return (H, W) including the padding."""
    return size[0] + sum(pads[0]), size[1] + sum(pads[1])


def padded(name: str, shape: Shape, pads: Pads, dtype: np.dtype) -> tuple[Array, Array]:
    """Return scratch memory for a padded map of (..., H, W, C), zero at the border, and a view of its interior.

    Every name and geometry has memory of its own: the interior is overwritten each time, the border stays zero.
    """
    (top, _), (left, _) = pads
    *lead, height, width, channels = shape
    whole = *lead, *padded_size((height, width), pads), channels
    map_ = scratch(f"{name} {shape} {pads}", whole, dtype)
    return map_, map_[..., top : top + height, left : left + width, :]


def strip(x: Array, rows: slice, kernel: int, stride: int, pads: Pads, name: str = "strip") -> Array:
    """Return the rows of a padded map that some output rows need: x (H, W, C) -> (h, left + W + right, C)."""
    first, last = rows.start * stride - pads[0][0], (rows.stop - 1) * stride - pads[0][0] + kernel
    seen = x[max(first, 0) : last]
    whole, inner = padded(name, seen.shape, ((max(0, -first), max(0, last - len(x))), pads[1]), x.dtype)
    np.copyto(inner, seen)
    lap("reshape", moved=2 * inner.nbytes)
    return whole


def strip_of_means(x: Array, rows: slice) -> Array:
    """Return a strip for a 3x3 kernel, padded such that the mean of 9 pixels at the border is that of the real ones.

    A padded pixel is the mean of the last two pixels: the mean of (a + b) / 2, a, b is that of a, b.
    """
    whole = strip(x, rows, 3, 1, ((1, 1), (1, 1)), "strip of means")
    edges = [(whole[:, 0], whole[:, 1], whole[:, 2]), (whole[:, -1], whole[:, -2], whole[:, -3])]
    edges += [(whole[0], whole[1], whole[2])] if rows.start == 0 else []
    edges += [(whole[-1], whole[-2], whole[-3])] if rows.stop == len(x) else []
    for beyond, last, second in edges:
        np.add(last, second, out=beyond)
        beyond *= x.dtype.type(0.5)
    lap("pooling")
    return whole


def reads_planes(channels: int) -> bool:
    """Return whether `conv2d` reads a picture plane by plane: three channels side by side are too short a run."""
    return channels < 8


def conv2d(x: Array, weight: Array, bias: Array, kernel: Pair, stride: Pair, pads: Pads, act: Activation) -> Array:
    """Compute act(convolution of x (B, C, H, W) + bias) -> (B, H', W', O), channels last.

    Each piece lays out its patches as rows and multiplies. The weight's rows are (kH, kW, C), or (C, kH, kW) where
    `reads_planes(C)`, flattened; its columns the filters.
    """
    batch, channels, *whole = x.shape
    height, width = output_sizes((whole[0], whole[1]), kernel, stride, pads, (1, 1))
    size, filters = weight.shape
    planes = reads_planes(channels)
    x = x if planes else channels_last(x)
    out = fresh((batch, height, width, filters), x.dtype)
    lay_out = _patches_of_planes if planes else _patches
    if height * width <= FEW_PIXELS and not planes:
        cols = scratch("patches", (batch, height, width, size), x.dtype)
        for b in range(batch):
            lay_out(x[b], slice(0, height), width, kernel, stride, pads, cols[b].reshape(-1, size))
        return linear(cols.reshape(-1, size), weight, bias, act).reshape(out.shape)

    def piece(b: int, rows: slice) -> None:
        into = out[b, rows].reshape(-1, filters)
        cols = scratch("patches", (len(into), size), x.dtype)
        matmul(lay_out(x[b], rows, width, kernel, stride, pads, cols), weight, into)
        bend(act, into, bias, into)

    cuts = shares(height, pieces(height * width * size))
    run([partial(piece, b, rows) for b in range(batch) for rows in cuts])
    return out


def _patches(x: Array, rows: slice, width: int, kernel: Pair, stride: Pair, pads: Pads, cols: Array) -> Array:
    """Lay out the receptive fields of some output rows: x (H, W, C) -> (rows*W', kH*kW*C), a kernel row in one run."""
    padded = strip(x, rows, kernel[0], stride[0], pads)
    s, channels = padded.strides, x.shape[2]
    shape = rows.stop - rows.start, width, kernel[0], kernel[1] * channels
    strides = s[0] * stride[0], s[1] * stride[1], s[0], s[2]
    np.copyto(cols.reshape(shape), view(padded, shape, strides))
    lap("reshape", moved=2 * cols.nbytes)
    return cols


def _patches_of_planes(
    x: Array, rows: slice, width: int, kernel: Pair, stride: Pair, pads: Pads, cols: Array
) -> Array:
    """Lay out the receptive fields of some output rows: x (C, H, W) -> (rows*W', C*kH*kW), a column at a time."""
    tall = cols.reshape(len(x), *kernel, rows.stop - rows.start, width)  # the same memory, columns one after the other
    for plane, into in zip(x, tall, strict=True):
        seen = strip(plane[..., None], rows, kernel[0], stride[0], pads)[..., 0]
        s = seen.strides
        np.copyto(into, view(seen, into.shape, (*s, s[0] * stride[0], s[1] * stride[1])))
    lap("reshape", moved=2 * cols.nbytes)
    return tall.reshape(cols.shape[::-1]).T


def column_planes(shape: Shape, pads: Pads, stride: int, dtype: np.dtype) -> tuple[Array, list[tuple[slice, Array]]]:
    """Return a padded map (B, H, W, C), every `stride`-th column in a plane of its own: (stride, B, H, W / stride, C).

    A convolution of that stride then reads adjacent pixels. With the planes are returned, for each, the columns of the
    unpadded map that belong there, and the view to write them to.
    """
    batch, height, width, channels = shape
    (top, bottom), (left, right) = pads
    size = stride, batch, top + height + bottom, -(-(left + width + right) // stride), channels
    planes = scratch(f"planes {shape} {pads} {stride}", size, dtype)
    targets = []
    for plane in range(stride):
        first = (plane - left) % stride  # the first real column in this plane
        start, count = (left + first) // stride, len(range(first, width, stride))
        inner = planes[plane, :, top : top + height, start : start + count]
        targets.append((slice(first, None, stride), inner))
    return planes, targets


def depthwise(planes: Array, weight: Array, stride: int, out: Array, kind: str = "depthwise") -> None:
    """Apply one filter per channel: `column_planes` of a map, weight (kH, kW, C) -> out (B, H', W', C), contiguous.

    A view shows, for every output pixel, its window; one einsum multiplies and adds. Several pixels of a row make one
    long run, with the weights repeated as often.
    """
    batch, height, width, channels = out.shape
    times = divisor(width, RUN // channels)
    shape = batch, height, width // times, times * channels
    for number, plane in enumerate(planes):
        some = weight[:, number::stride]
        if not some.size:
            continue
        sb, sh, sw, sc = plane.strides
        windows = view(plane, (*shape[:3], *some.shape[:2], shape[3]), (sb, sh * stride, sw * times, sh, sw, sc))
        into = scratch("depthwise", shape, out.dtype) if number else out.reshape(shape)
        np.einsum("byxijc,ijc->byxc", windows, repeated(some, times), out=into)
        if number:
            out += into.reshape(out.shape)
    lap(kind, 2 * out.size * weight.shape[0] * weight.shape[1], planes.nbytes + out.nbytes)
