"""Checks of lesson 2: convolution."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from npformer import nn, ops
from npformer.ops.window import output_size as true_size

from ..exercises import check, expect, expect_array

RNG = np.random.default_rng()


def normal(*shape: int) -> np.ndarray:
    """Return random numbers of order one."""
    return RNG.standard_normal(shape)


@check("any side, kernel, stride, padding and dilation.")
def output_size(function: Callable[..., Any]) -> None:
    settings = [
        (5, 3, 1, 0, 1),
        (224, 3, 2, 1, 1),
        (8, 3, 2, 0, 1),
        (9, 3, 2, 1, 1),
        (13, 5, 3, 2, 2),
        (12, 3, 1, 2, 3),
    ]
    for n, k, s, p, d in settings:
        shown = f"output_size({n}, {k}, {s}, {p}, {d})"
        truth = true_size(n, k, s, (p, p), d)
        got = function(n, k, s, p, d)
        hints = {
            f"{shown}: the padding is on both ends, so it counts twice.": (n + p - d * (k - 1) - 1) // s + 1,
            f"{shown} lacks the place where the window starts: one more.": truth - 1,
            f"{shown}: with dilation the window spans d * (k - 1) + 1 pixels, not k.": (n + 2 * p - k) // s + 1,
            f"{shown}: a dilated window spans d * (k - 1) + 1 pixels, not d * k.": (n + 2 * p - d * k) // s + 1,
            f"{shown}: an incomplete last step gives no place; round down.": -(-(n + 2 * p - d * (k - 1) - 1) // s)
            + 1,
            f"{shown} is a whole number; round down.": (n + 2 * p - d * (k - 1) - 1) / s + 1,
        }
        expect_array(got, truth, shown, hints=hints)
        expect(float(got) == int(got), f"{shown} gives {got!r}, but there are only whole places; use //.")


@check("you can tell what a convolution costs before you run it.")
def multiply_adds(function: Callable[..., Any]) -> None:
    for batch, groups, stride, padding in ((1, 1, 1, 1), (3, 1, 2, 1), (2, 2, 2, 0), (1, 6, 1, 1)):
        layer = nn.Conv2d(6, 12, (3, 5), stride, padding, groups=groups)
        x = np.zeros((batch, 6, 11, 14), np.float32)
        out = layer(x)
        truth = layer.multiply_adds((x,), out)
        places, (filters, seen, high, wide) = out.shape[2] * out.shape[3], layer.weight.shape
        shown = f"multiply_adds({x.shape}, {layer.weight.shape}, {stride}, {padding})"
        hints = {
            f"{shown} forgets the batch: every picture costs the same again.": truth // batch,
            f"{shown} counts places of the input; the window stops once for every place of the output.": (
                truth // places * 11 * 14
            ),
            f"{shown} forgets the size of the kernel.": truth // (high * wide),
            f"{shown} forgets the channels that a filter sums over.": truth // seen,
            f"{shown} forgets that there are several filters.": truth // filters,
            f"{shown} uses all channels of x; with groups a filter sees only weight_shape[1] of them.": (
                truth // seen * 6
            ),
            f"{shown} divides by the groups twice; the weight's shape has done it already.": truth // groups,
            f"{shown} counts multiplications and additions apart; a multiply-add is one.": 2 * truth,
        }
        expect_array(function(x.shape, layer.weight.shape, stride, padding), truth, shown, hints=hints)


@check("that is the matrix that convolution multiplies by.")
def im2col_one(function: Callable[..., Any]) -> None:
    for height, width, k in ((5, 5, 3), (6, 9, 3), (7, 5, 2), (4, 6, 1)):
        x = normal(height, width)
        truth = ops.im2col(x[None], k)
        rows, columns = height - k + 1, width - k + 1
        shown = f"im2col_one of a {height} x {width} picture, k = {k},"
        got = function(x.copy(), k)
        turned = truth.reshape(k, k, rows, columns)
        if np.shape(got) == truth.T.shape != truth.shape:
            expect(False, f"{shown} has a patch in every row; make it a column (transpose).")
        hints = {
            f"{shown} has a patch in every row; make it a column (transpose).": truth.T,
            f"{shown} has each patch's pixels column by column; go row by row.": (
                turned.swapaxes(0, 1).reshape(truth.shape)
            ),
            f"{shown} has the patches column by column; go through the places row by row.": (
                turned.swapaxes(2, 3).reshape(truth.shape)
            ),
            f"{shown} has the patches' pixels back to front: the kernel is not flipped.": truth[::-1],
        }
        expect_array(got, truth, shown, hints=hints)


@check("one product, and not a loop in sight.")
def conv2d(function: Callable[..., Any]) -> None:
    for stride, padding in ((1, 0), (1, 2), (2, 1), (3, 0)):
        x, weight, bias = normal(2, 4, 10, 8), normal(6, 4, 3, 2), normal(6)
        settings = f"with stride {stride} and padding {padding}"
        truth = ops.conv2d(x, weight, bias, stride, padding)
        got = function(x, weight, bias, stride, padding)
        shape = np.shape(got)
        in_batch, out_channels, *places = truth.shape
        expect(
            shape != (in_batch, *places, out_channels),
            f"your result has the shape {shape}: the filters came out as the last axis; move them to axis 1.",
        )
        expect(
            shape != (out_channels, in_batch, *places),
            f"your result has the shape {shape}: the filters came out in front of the batch; swap axes 0 and 1.",
        )
        unstrided = ops.conv2d(x, weight, bias, 1, padding).shape
        expect(
            stride == 1 or shape != unstrided,
            f"{settings} yours has the shape {shape}: it keeps every window; take one in {stride}, both ways.",
        )
        hints = {
            f"{settings}, the bias is missing.": ops.conv2d(x, weight, None, stride, padding),
            f"{settings}, the kernel is flipped; deep learning leaves that out.": (
                ops.conv2d(x, weight[..., ::-1, ::-1], bias, stride, padding)
            ),
        }
        expect_array(got, truth, f"conv2d {settings}", hints=hints)
    expect_array(
        function(x := normal(1, 1, 4, 4), w := normal(1, 1, 4, 4), np.zeros(1), 1, 0),
        ops.conv2d(x, w),
        "a kernel as large as the picture",
    )


@check("that is how all three networks begin, their batch norms folded in.")
def stem(function: Callable[..., Any]) -> None:
    def conv(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, stride: int = 2) -> np.ndarray:
        return ops.conv2d(x, weight, bias, stride, padding=1)

    for height, width in ((16, 16), (19, 25)):
        x, first, second = normal(2, 3, height, width), normal(4, 3, 3, 3), normal(8, 4, 3, 3)
        one, two = normal(4), normal(8)
        truth = ops.relu(conv(ops.relu(conv(x, first, one)), second, two))
        hints = {
            "there is a ReLU after the second convolution too; yours has negative numbers.": (
                conv(ops.relu(conv(x, first, one)), second, two)
            ),
            "the ReLU between the two convolutions is missing: without it, two are no more than one larger one.": (
                ops.relu(conv(conv(x, first, one), second, two))
            ),
            "there is no ReLU at all.": conv(conv(x, first, one), second, two),
        }
        zeros = np.zeros_like
        hints["the biases are missing."] = ops.relu(conv(ops.relu(conv(x, first, zeros(one))), second, zeros(two)))
        got = function(x.copy(), first, one, second, two)
        expect(
            np.shape(got) != ops.conv2d(conv(x, first, one), second, two, padding=1).shape,
            f"yours gives {np.shape(got)}: one of the two convolutions has stride 1, both need stride 2.",
        )
        expect(
            np.shape(got) != ops.conv2d(ops.conv2d(x, first, one, 2), second, two, 2).shape
            or np.shape(got) == truth.shape,
            f"yours gives {np.shape(got)}, which is too small: each of the two convolutions needs padding 1.",
        )
        expect_array(got, truth, f"the stem of a {height} x {width} picture", hints=hints)
