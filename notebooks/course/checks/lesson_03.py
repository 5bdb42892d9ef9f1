"""Checks of lesson 3: normalisation and folding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from npformer import nn, ops

from ..exercises import check, expect, expect_array

RNG = np.random.default_rng()


def normal(*shape: int) -> np.ndarray:
    """Return random numbers of order one."""
    return RNG.standard_normal(shape)


def statistics(channels: int) -> tuple[np.ndarray, ...]:
    """Return mean, variance, weight and bias of a batch norm, with variances small enough for epsilon to matter."""
    return normal(channels), RNG.uniform(0.002, 1.5, channels), normal(channels), normal(channels)


@check("one multiplication and one addition per channel is all there is to it.")
def batch_norm(function: Callable[..., Any]) -> None:
    for shape, eps in (((2, 5, 5, 5), 1e-2), ((3, 4, 6, 7), 1e-3)):
        x, (mean, variance, weight, bias) = normal(*shape), statistics(shape[1])
        truth = ops.batch_norm(x, mean, variance, weight, bias, eps)
        got = function(x.copy(), mean, variance, weight, bias, eps)
        m, v, w, b = (array[:, None, None] for array in (mean, variance, weight, bias))
        own_mean, own_variance = x.mean((0, 2, 3), keepdims=True), x.var((0, 2, 3), keepdims=True)
        hints = {
            "epsilon is added to the variance, before the root.": (x - m) / (np.sqrt(v) + eps) * w + b,
            "epsilon is missing.": (x - m) / np.sqrt(v) * w + b,
            "the root is missing: divide by the standard deviation, not by the variance.": (x - m) / (v + eps) * w + b,
            "at inference the statistics are the stored ones, not those of x.": (
                (x - own_mean) / np.sqrt(own_variance + eps) * w + b
            ),
            "the bias comes after the weight: (...) * weight + bias.": ((x - m) / np.sqrt(v + eps) + b) * w,
            "weight and bias are missing.": (x - m) / np.sqrt(v + eps),
            "weight and bias are swapped.": (x - m) / np.sqrt(v + eps) * b + w,
            "the mean is not subtracted.": x / np.sqrt(v + eps) * w + b,
        }
        if shape[1] == shape[3]:
            hints["the numbers belong to channels, axis 1; yours went along the columns, the last axis."] = (
                x - mean
            ) / np.sqrt(variance + eps) * weight + bias
            m, v, w, b = (array[:, None] for array in (mean, variance, weight, bias))
            hints["the numbers belong to channels, axis 1; yours went along the rows, axis 2."] = (x - m) / np.sqrt(
                v + eps
            ) * w + b
        expect_array(got, truth, f"batch_norm of x {shape}, eps = {eps},", hints=hints)


@check("every token by its own mean and its own biased variance.")
def layer_norm(function: Callable[..., Any]) -> None:
    for shape, eps in (((2, 5, 6), 1e-5), ((3, 7, 7), 0.05), ((4, 9), 1e-12)):
        x, weight, bias = 3 + 0.5 * normal(*shape), normal(shape[-1]), normal(shape[-1])
        truth = ops.layer_norm(x, shape[-1:], weight, bias, eps)
        got = function(x.copy(), weight, bias, eps)
        centred, variance = x - x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        unbiased = x.var(-1, keepdims=True, ddof=1)
        tokens, all_axes = x.ndim - 2, tuple(range(x.ndim))
        hints = {
            "the variance is the biased one: divide by n, not by n - 1 (leave out ddof=1).": (
                centred / np.sqrt(unbiased + eps) * weight + bias
            ),
            "epsilon is added to the variance, before the root.": centred / (np.sqrt(variance) + eps) * weight + bias,
            "epsilon is missing.": centred / np.sqrt(variance) * weight + bias,
            "the root is missing: divide by the standard deviation, not by the variance.": (
                centred / (variance + eps) * weight + bias
            ),
            "yours averages over the tokens; each token has statistics of its own, over the last axis.": (
                (x - x.mean(tokens, keepdims=True)) / np.sqrt(x.var(tokens, keepdims=True) + eps) * weight + bias
            ),
            "yours averages over all axes; each token has statistics of its own, over the last axis.": (
                (x - x.mean(all_axes)) / np.sqrt(x.var(all_axes) + eps) * weight + bias
            ),
            "yours averages over tokens and channels; only the last axis counts.": (
                (x - x.mean(all_axes[-2:], keepdims=True))
                / np.sqrt(x.var(all_axes[-2:], keepdims=True) + eps)
                * weight
                + bias
            ),
            "weight and bias are missing.": centred / np.sqrt(variance + eps),
            "the mean is not subtracted.": x / np.sqrt(variance + eps) * weight + bias,
            "the variance must be taken around the mean: the mean of the squares is not it.": (
                centred / np.sqrt(np.square(x).mean(-1, keepdims=True) + eps) * weight + bias
            ),
        }
        expect_array(got, truth, f"layer_norm of x {shape}, eps = {eps},", tolerance=1e-9, hints=hints)


def pair_of(answer: Any, what: str) -> tuple[Any, Any]:
    """Return the two arrays that a function should have returned."""
    expect(answer is not None and answer is not Ellipsis, f"{what} gives nothing back yet; return two arrays.")
    expect(
        isinstance(answer, tuple | list) and len(answer) == 2,
        f"{what} should return two arrays: the weight, the bias.",
    )
    return answer[0], answer[1]


@check("one batch norm less, and the same numbers come out.")
def fold_batch_norm(function: Callable[..., Any]) -> None:
    for filters, channels in ((5, 5), (6, 4)):
        weight, conv_bias, eps = normal(filters, channels, 3, 2), normal(filters), 1e-2
        mean, variance, gamma, beta = statistics(filters)
        scale = gamma / np.sqrt(variance + eps)
        x = normal(2, channels, 7, 6)
        got = function(weight.copy(), conv_bias.copy(), mean, variance, gamma, beta, eps)
        folded, bias = pair_of(got, "fold_batch_norm")
        hints = {
            "the weight lacks gamma.": weight / np.sqrt(variance + eps)[:, None, None, None],
            "epsilon belongs under the root, with the variance.": (
                weight * (gamma / (np.sqrt(variance) + eps))[:, None, None, None]
            ),
            "epsilon is missing.": weight * (gamma / np.sqrt(variance))[:, None, None, None],
            "the root is missing.": weight * (gamma / (variance + eps))[:, None, None, None],
            "the weight is still as it was.": weight,
        }
        if filters == channels:
            hints[
                "the factor belongs to the filter, axis 0 of the weight; yours scales the input channels, axis 1."
            ] = weight * scale[:, None, None]
        expect_array(folded, weight * scale[:, None, None, None], "the folded weight", hints=hints)
        bias_hints = {
            "the convolution's own bias is normalised too: subtract the mean from it, then scale.": (
                beta - mean * scale + conv_bias
            ),
            "the convolution's own bias is missing.": beta - mean * scale,
            "the mean is scaled as well: (conv_bias - mean) * scale + beta.": conv_bias * scale - mean + beta,
            "the stored mean is missing.": conv_bias * scale + beta,
            "beta is missing.": (conv_bias - mean) * scale,
            "beta is added after scaling, not before.": (conv_bias - mean + beta) * scale,
            "the mean is subtracted, not added.": (conv_bias + mean) * scale + beta,
            "the bias is still as it was.": conv_bias,
        }
        expect_array(bias, (conv_bias - mean) * scale + beta, "the folded bias", hints=bias_hints)
        truth = ops.batch_norm(ops.conv2d(x, weight, conv_bias), mean, variance, gamma, beta, eps)
        expect_array(ops.conv2d(x, np.asarray(folded), np.asarray(bias)), truth, "the folded convolution's result")


@check("the statistics stay, what was learned moves on.")
def fold_layer_norm(function: Callable[..., Any]) -> None:
    for outputs, width in ((5, 5), (7, 4)):
        gamma, beta, weight, bias = normal(width), normal(width), normal(outputs, width), normal(outputs)
        got = function(gamma, beta, weight.copy(), bias.copy())
        folded, new_bias = pair_of(got, "fold_layer_norm")
        hints = {"the weight is still as it was.": weight, "yours has the new weight transposed.": (weight * gamma).T}
        if outputs == width:
            hints["gamma belongs to the inputs, which are the columns of the weight; yours scales its rows."] = (
                weight * gamma[:, None]
            )
        expect_array(folded, weight * gamma, "the folded weight", hints=hints)
        bias_hints = {
            "beta is added after the multiplication by gamma, so it meets the weight as it was, not the folded one.": (
                bias + (weight * gamma) @ beta
            ),
            "beta is lost: it passes through the weight and ends in the bias.": bias,
            "the linear layer's own bias is missing.": weight @ beta,
        }
        if outputs == width:
            bias_hints["beta goes through the weight: weight @ beta."] = bias + beta
            bias_hints["the weight's rows are outputs: weight @ beta, not beta @ weight."] = bias + beta @ weight
            bias_hints["beta goes through the weight (weight @ beta), not number by number."] = bias * gamma + beta
        expect_array(new_bias, bias + weight @ beta, "the folded bias", hints=bias_hints)
        x = normal(3, width)
        truth = ops.linear(ops.layer_norm(x, (width,), gamma, beta), weight, bias)
        expect_array(
            ops.linear(ops.layer_norm(x, (width,)), np.asarray(folded), np.asarray(new_bias)), truth, "the result"
        )


@check("three layers have become one, of the same class and settings.")
def fold_branch(function: Callable[..., Any]) -> None:
    settings: tuple[tuple[int, int, int, int], ...] = ((1, 0, 1, 1), (2, 1, 3, 1), (1, 1, 3, 4))
    for stride, padding, kernel, groups in settings:
        for has_bias in (True, False):
            conv = nn.Conv2d(4, 8, kernel, stride, padding, groups=groups, bias=has_bias).astype(np.float64)
            norm = nn.BatchNorm2d(8, eps=1e-3).astype(np.float64)
            conv.weight = normal(*conv.weight.shape)
            conv.bias = normal(8) if has_bias else None
            norm.running_mean, norm.running_var, norm.weight, norm.bias = statistics(8)
            scale, x = normal(8), normal(2, 4, 6, 5)
            before = {name: array.copy() for name, array in (conv.state_dict() | norm.state_dict()).items()}
            truth = norm(conv(x)) * scale[:, None, None]
            one = function(conv, norm, scale)
            expect(one is not None and one is not Ellipsis, "fold_branch gives nothing back yet; return a Conv2d.")
            expect(isinstance(one, nn.Conv2d), f"fold_branch should return an nn.Conv2d, not {type(one).__name__}.")
            after = conv.state_dict() | norm.state_dict()
            same = one is not conv and all(np.array_equal(array, before[name]) for name, array in after.items())
            expect(same, "the layers that you were given must stay as they are; write into a new convolution.")
            expect(
                one.bias is not None,
                "yours has no bias: the norm adds something even where the convolution had none.",
            )
            expect(
                (one.stride, one.padding, one.groups) == (stride, padding, groups),
                f"stride, padding and groups must be the old ones, ({stride}, {padding}, {groups}); "
                f"yours are ({one.stride}, {one.padding}, {one.groups}).",
            )
            hints = {
                "the layer scale is missing.": norm(conv(x)),
                "the layer scale multiplies all of the norm's result, so the bias as well as the weight.": (
                    (norm(conv(x)) - norm.bias[:, None, None]) * scale[:, None, None] + norm.bias[:, None, None]
                ),
                "the layer scale multiplies the weight, but the bias needs it too.": (
                    truth + (one.bias - one.bias * scale)[:, None, None]
                ),
                "the norm is missing.": conv(x) * scale[:, None, None],
            }
            what = f"the branch as one convolution (kernel {kernel}, {groups} groups, bias {has_bias})"
            expect_array(one(x), truth, what, hints=hints)
