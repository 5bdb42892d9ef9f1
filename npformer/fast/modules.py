"""The blocks of a fused model, which `npformer.fuse` puts in the place of the readable ones.

Each has the inputs and outputs of the block it replaces, maps as (B, C, H, W); in memory their channels are last, so
that the next block copies nothing. Weights are folded: no batch norm and no layer scale remains. Observers see the
output of a block but not its inner values, which would differ from those of the readable layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from .. import ops
from ..nn import Module
from ..ops import Array
from ..ops.window import Pads, Pair, output_sizes
from . import kernels
from .kernels import Activation, Mlp, channels_first, channels_last
from .threads import fresh, lap, parts, run, scratch

PadsFor = Callable[[int, int], Pads]  # the padding for a picture of height and width


class Folded(Module):
    """Placeholder for a layer folded into its neighbour: it returns its input, and is invisible to observers."""

    def __call__(self, x: Array) -> Array:
        """Return x, bypassing all observers."""
        return x


class FusedLinear(Module):
    """A fully connected layer: (..., D) -> (..., O). The weight is (D, O)."""

    def __init__(self, weight: Array, bias: Array) -> None:
        self.weight, self.bias = weight, bias

    def forward(self, x: Array) -> Array:
        """Compute one matrix product."""
        rows = np.ascontiguousarray(x).reshape(-1, x.shape[-1])
        return kernels.linear(rows, self.weight, self.bias, kernels.IDENTITY).reshape(*x.shape[:-1], -1)


class FusedConv2d(Module):
    """A convolution with the batch norm after it folded in, and its activation: (B, C, H, W) -> (B, O, H', W')."""

    def __init__(self, weight: Array, bias: Array, kernel: Pair, stride: Pair, pads: PadsFor, act: Activation) -> None:
        self.weight, self.bias = weight, bias
        self.kernel, self.stride, self.pads, self.act = kernel, stride, pads, act

    def forward(self, x: Array) -> Array:
        """Lay out patches, multiply, apply the activation; with a 1x1 kernel the pixels are the patches."""
        pads = self.pads(*x.shape[2:])
        if self.kernel == self.stride == (1, 1) and not any(map(any, pads)):
            pixels = channels_last(x)
            out = kernels.linear(pixels.reshape(-1, x.shape[1]), self.weight, self.bias, self.act)
            return channels_first(out.reshape(*pixels.shape[:3], -1))
        return channels_first(kernels.conv2d(x, self.weight, self.bias, self.kernel, self.stride, pads, self.act))


class FusedStem(Module):
    """Consecutive convolutions: the stem, or one downsampling. (B, C, H, W) -> (B, C', H', W')."""

    def __init__(self, convolutions: Sequence[FusedConv2d]) -> None:
        for index, convolution in enumerate(convolutions, 1):
            setattr(self, f"fused{index}", convolution)

    def forward(self, x: Array) -> Array:
        """Apply the convolutions in order."""
        for _, convolution in self.named_children():
            x = convolution.forward(x)
        return x


class FusedMlp(Module, Mlp):
    """The folded weights of an MLP as a module, so that copying, casting and listing find them."""


class FusedMeta4D(Module):
    """A pooling block: x + scale * (mean - x), then x + mlp(x). (B, C, H, W), same shape out.

    Pooling is a depthwise convolution with fixed weights: scale / 9 for every pixel of the neighbourhood, and a
    further 1 - scale for the pixel itself. Only the border needs special treatment.
    """

    def __init__(self, pool_size: int, scale: Array, weight: Array, mlp: FusedMlp) -> None:
        self.pool_size, self.scale, self.weight, self.fused_mlp = pool_size, scale, weight, mlp

    def forward(self, x: Array) -> Array:
        """Apply both steps to some rows of the picture at a time."""
        x = channels_last(x)
        plain = self.pool_size != 3 or min(x.shape[1:3]) < 3  # cases without a border in `strip_of_means`

        def mixed(b: int, rows: slice, out: Array) -> None:
            if plain:
                moved = ops.pool_mixer(x[b].transpose(2, 0, 1), self.pool_size).transpose(1, 2, 0)
                np.add(x[b, rows], moved[rows] * self.scale, out=out)
                return lap("pooling")
            kernels.depthwise(kernels.strip_of_means(x[b], rows)[None, None], self.weight, 1, out[None], "pooling")

        return channels_first(kernels.mlp_block(mixed, self.fused_mlp, None, x.shape))


class FusedMeta3D(Module):
    """An attention block on tokens: x + attention(norm(x)), then x + mlp(norm(x)). (B, N, D), same shape out.

    Layer norms stay, since their statistics depend on x; only the weight and bias of each are folded, into the layer
    after it. Queries include attention's 1/sqrt(d); the bias is gathered once, (h, N, N).
    """

    def __init__(
        self,
        key_dim: int,
        eps: tuple[float, float],
        qkv: FusedLinear,
        bias: Array,
        projection: FusedLinear,
        mlp: FusedMlp,
    ) -> None:
        self.key_dim, self.eps = key_dim, eps
        self.qkv, self.bias, self.projection, self.fused_mlp = qkv, bias, projection, mlp

    def forward(self, x: Array) -> tuple[Array, Array]:
        """Return the tokens and the attention probabilities (B, h, N, N)."""
        x = np.ascontiguousarray(x)
        batch, tokens, width = x.shape
        heads = len(self.bias)
        qkv = self.qkv.forward(self._normalized(x, self.eps[0])).reshape(batch, tokens, heads, -1).swapaxes(1, 2)
        query, key, value = np.split(qkv, [self.key_dim, 2 * self.key_dim], axis=-1)  # (B, h, N, d or e)
        scores = query @ key.swapaxes(2, 3)  # (B, h, N, N), scaled through the query's weights
        scores += self.bias
        probs = ops.softmax(scores)
        context = np.ascontiguousarray((probs @ value).swapaxes(1, 2)).reshape(batch, tokens, -1)
        lap("attention", 2 * scores.size * (self.key_dim + value.shape[3]), 5 * scores.nbytes)
        mixed = self.projection.forward(context)
        mixed += x
        normed = self._normalized(mixed, self.eps[1]).reshape(-1, width)
        out = fresh(normed.shape, normed.dtype)
        self.fused_mlp.few_rows(normed, mixed, out)
        return out.reshape(x.shape), probs

    def _normalized(self, x: Array, eps: float) -> Array:
        out = ops.layer_norm(x, x.shape[-1:], eps=eps)
        lap("norm", moved=6 * x.nbytes)
        return out


class FusedConvBlock(Module):
    """A depthwise convolution and an MLP, both folded, added to the input: (B, C, H, W), same shape out."""

    def __init__(self, weight: Array, bias: Array, mlp: FusedMlp) -> None:
        self.weight, self.bias, self.fused_mlp = weight, bias, mlp

    def forward(self, x: Array) -> Array:
        """Apply both steps to some rows of the picture at a time."""
        x = channels_last(x)
        half = self.weight.shape[0] // 2
        pads = (half, half), (half, half)

        def filtered(b: int, rows: slice, out: Array) -> None:
            kernels.depthwise(
                kernels.strip(x[b], rows, len(self.weight), 1, pads)[None, None], self.weight, 1, out[None]
            )
            kernels.add_to_rows(out, self.bias)

        return channels_first(kernels.mlp_block(filtered, self.fused_mlp, x, x.shape))


class FusedSwiftFormerEncoderBlock(Module):
    """An encoder block: local representation, additive attention, MLP: (B, C, H, W), same shape out."""

    def __init__(
        self,
        local_representation: FusedConvBlock,
        attention_norm: str,
        w_g: Array,
        query_key: FusedLinear,
        proj: FusedLinear,
        final: FusedLinear,
        mlp: FusedMlp,
    ) -> None:
        self.local_representation, self.attention_norm, self.w_g = local_representation, attention_norm, w_g
        self.query_key, self.proj, self.final, self.fused_mlp = query_key, proj, final, mlp

    def forward(self, x: Array) -> Array:
        """Sum the queries in a first pass; compute the rest of the attention, and the MLP, in a second."""
        x = channels_last(self.local_representation(x))
        channels = x.shape[3]
        queries, keys, global_query = self._queries_and_keys(x)

        def attended(b: int, rows: slice, out: Array) -> None:
            flat = out.reshape(-1, channels)
            # The global query gates every key, equivalently the rows of the weight that multiplies them.
            weight = global_query[b, :, None] * self.proj.weight
            context = scratch("context", flat.shape, x.dtype)
            kernels.matmul(keys[b, rows].reshape(flat.shape), weight, context)
            kernels.add_to_rows(context, self.proj.bias)
            context += queries[b, rows].reshape(flat.shape)
            kernels.matmul(context, self.final.weight, flat)
            kernels.add_to_rows(flat, self.final.bias)
            out += x[b, rows]
            lap("addition", moved=10 * out.nbytes)

        return channels_first(kernels.mlp_block(attended, self.fused_mlp, None, x.shape))

    def _queries_and_keys(self, x: Array) -> tuple[Array, Array, Array]:
        """Return queries and keys of every pixel, each of length one, (B, H, W, C), and the global query (B, C)."""
        batch, height, width, channels = x.shape
        both = scratch("queries and keys", (2, *x.shape), x.dtype)
        cuts = kernels.shares(height, parts() if x[0].size > kernels.SMALL else 1)
        sums = np.empty((batch, len(cuts), channels + 1))  # of the weighted queries, and of the squared weights

        def piece(b: int, number: int) -> None:
            rows = cuts[number]
            pixels = x[b, rows].reshape(-1, channels)
            query, key = (one[b, rows].reshape(pixels.shape) for one in both)
            for some, out in ((slice(0, channels), query), (slice(channels, None), key)):
                kernels.matmul(pixels, self.query_key.weight[:, some], out)
                kernels.add_to_rows(out, self.query_key.bias[some])
                length = np.sqrt(np.einsum("nc,nc->n", out, out))
                out /= np.maximum(length, x.dtype.type(1e-12))[:, None]
            weighted, weights = query, None
            if self.attention_norm == "l2":
                weights = query @ self.w_g * x.dtype.type(channels**-0.5)  # (N, 1)
                weighted = weights * query
            # Down the picture first, then the few sums that are left in float64, as thousands are added up.
            sums[b, number, :channels] = weighted.reshape(-1, width, channels).sum(0).sum(0, dtype=np.float64)
            sums[b, number, channels] = 1 if weights is None else np.square(weights, dtype=np.float64).sum()
            lap("attention", moved=12 * query.nbytes)

        run([partial(piece, b, number) for b in range(batch) for number in range(len(cuts))])
        total = sums.sum(1)
        length = np.sqrt(total[:, channels:]) if self.attention_norm == "l2" else 1
        return both[0], both[1], (total[:, :channels] / np.maximum(length, 1e-12)).astype(x.dtype)


class FusedEfficientNetBlock(Module):
    """An inverted bottleneck: expand, filter each channel, gate, project. (B, C, H, W) -> (B, C', H', W').

    A piece is some of the expanded channels: the expansion, both activations, the depthwise convolution and the mean
    for the gate are all computed while they are in the cache. For a single picture the gate multiplies the weights of
    the projection rather than the map, if there are fewer weights.
    """

    def __init__(
        self,
        expand: tuple[Array, Array] | None,
        weight: Array,
        bias: Array,
        stride: int,
        pads: PadsFor,
        act: Activation,
        gate: Sequence[Array],
        gate_act: Callable[[Array], Array],
        project: tuple[Array, Array],
        adds_input: bool,
    ) -> None:
        self.expand: Array | None
        self.expand_bias: Array | None
        self.expand, self.expand_bias = expand or (None, None)
        self.weight, self.bias, self.stride, self.pads, self.act = weight, bias, stride, pads, act
        self.reduce, self.reduce_bias, self.excite, self.excite_bias = gate
        self.gate_act = gate_act
        self.project, self.project_bias = project
        self.adds_input = adds_input

    def forward(self, x: Array) -> Array:
        """Process all pictures together if the map is small, one by one if it is large."""
        x = channels_last(x)
        batch, height, width, _ = x.shape
        size = output_sizes(
            (height, width), self.weight.shape[:2], (self.stride,) * 2, self.pads(height, width), (1, 1)
        )
        out = fresh((batch, *size, self.project.shape[1]), x.dtype)
        step = batch if height * width <= kernels.FEW_PIXELS else 1
        for start in range(0, batch, step):
            self._some_pictures(x[start : start + step], out[start : start + step])
        return channels_first(out)

    def _some_pictures(self, x: Array, out: Array) -> None:
        """Process one picture, or a few small ones: (B, H, W, C) -> out (B, H', W', C')."""
        batch, pixels = len(x), out.shape[1] * out.shape[2]
        filtered, sums = self._filter(x, out.shape[1:3])
        squeezed = (sums / pixels).astype(x.dtype)  # (B, E)
        hidden = self.gate_act(squeezed @ self.reduce + self.reduce_bias)
        gates = ops.sigmoid(hidden @ self.excite + self.excite_bias)
        lap("squeeze and excite", 4 * batch * self.reduce.size, 2 * self.reduce.nbytes)
        if batch > 1 or pixels <= self.project.shape[1]:  # maps smaller than the weights, or several pictures
            for some, maps in filtered:
                maps *= gates[:, None, some]
            weight = self.project
        else:
            weight = self.project * gates[0, :, None]
        lap("squeeze and excite", moved=8 * gates.nbytes)
        self._project(filtered, weight, x, out)

    def _project(self, filtered: list[tuple[slice, Array]], weight: Array, x: Array, out: Array) -> None:
        """Apply the projection, piece by piece of the expanded channels, and add the block's input."""
        flat, added = out.reshape(-1, out.shape[3]), x.reshape(-1, x.shape[3])

        def piece(rows: slice) -> None:
            into = flat[rows]
            for some, maps in filtered:  # (B, H'*W', c)
                part = scratch("narrow", into.shape, into.dtype) if some.start else into
                kernels.matmul(maps.reshape(len(flat), -1)[rows], weight[some], part)
                if some.start:
                    into += part
            kernels.add_to_rows(into, self.project_bias)
            if self.adds_input:
                into += added[rows]
            lap("addition", moved=5 * into.nbytes)

        run([partial(piece, rows) for rows in kernels.shares(len(flat), parts())])

    def _filter(self, x: Array, size: Pair) -> tuple[list[tuple[slice, Array]], Array]:
        """Expand and filter: return the map (B, H'*W', c) of each piece of channels, and all channels' sums (B, E)."""
        batch, height, width, narrow = x.shape
        pads = self.pads(height, width)
        channels = self.weight.shape[2]
        filtered: list[tuple[slice, Array]] = []
        sums = np.empty((batch, channels), np.float64)

        def piece(some: slice, maps: Array) -> None:
            count = some.stop - some.start
            planes, targets = kernels.column_planes((batch, height, width, count), pads, self.stride, x.dtype)
            if self.expand is None or self.expand_bias is None:
                for columns, target in targets:
                    np.copyto(target, x[:, :, columns, some])
                lap("reshape", moved=2 * x[..., some].nbytes)
            else:
                wide = scratch("wide", (batch, height, width, count), x.dtype)
                kernels.matmul(x.reshape(-1, narrow), self.expand[:, some], wide.reshape(-1, count))
                for b in range(batch):
                    views = [(columns, target[b]) for columns, target in targets]
                    kernels.bend(self.act, wide[b], self.expand_bias[some], views)
            kernels.depthwise(planes, self.weight[:, :, some], self.stride, maps)
            lines = maps.reshape(-1, size[1], count)
            kernels.bend(self.act, lines, self.bias[some], lines)
            # Down the picture first, in long runs; then the few sums that are left, in float64.
            sums[:, some] = maps.sum(1).sum(1, dtype=np.float64)
            lap("pooling", maps.size, maps.nbytes)

        cuts = kernels.shares(channels, kernels.pieces(batch * height * width * channels), 16)
        for some in cuts:
            maps = scratch(f"filtered {some.start}", (batch, *size, some.stop - some.start), x.dtype)
            filtered.append((some, maps))
        run([partial(piece, some, maps) for some, maps in filtered])
        return [(some, maps.reshape(batch, -1, maps.shape[3])) for some, maps in filtered], sums
