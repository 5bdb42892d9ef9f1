"""Convolution as a matrix product.

With every receptive field laid out as a column (`im2col`), convolution is one product: weights as rows times patches
as columns. The loops it replaces are in `naive.py`.
"""

from __future__ import annotations

from numbers import Integral

import numpy as np

from ._check import Array, check_float, check_rank, check_shape
from .linear import matmul
from .window import Padding, Pair, output_sizes, pad2d, pair, resolve_padding, taps


def im2col(
    x: Array,
    kernel_size: int | Pair,
    dilation: int | Pair = 1,
    padding: Padding = 0,
    stride: int | Pair = 1,
) -> Array:
    """Lay out every patch as a column: (B, C, H, W) -> (B, C*kH*kW, H'*W').

    cols[b, (c*kH + i)*kW + j, y*W' + x] = padded[b, c, y*s + i*d, x*s + j*d]

    Laid out as `torch.nn.functional.unfold`; an unbatched (C, H, W) gives (C*kH*kW, H'*W'). A 1x1 kernel at stride 1
    copies nothing: its columns are the pixels themselves.

    Raises TypeError or ValueError for a wrong type, rank or a kernel that does not fit.
    Source: Chellapilla, Puri, Simard 2006, "High performance convolutional neural networks for document processing".
    """
    check_float(x=x)
    check_rank("x", x, (3, 4), "(B, C, H, W) or (C, H, W)")
    kernel = pair("kernel_size", kernel_size, 1)
    step, spread = pair("stride", stride, 1), pair("dilation", dilation, 1)
    pads = resolve_padding(padding, kernel, step, spread)
    height, width = output_sizes(x.shape[-2:], kernel, step, pads, spread)
    lead, channels = x.shape[:-3], x.shape[-3]
    x = pad2d(x, pads)
    if kernel == (1, 1) and step == (1, 1):
        return x.reshape(*lead, channels, height * width)
    cols = np.empty((*lead, channels, *kernel, height, width), x.dtype)
    for i, j, view in taps(x, kernel, (height, width), step, spread):
        cols[..., i, j, :, :] = view
    return cols.reshape(*lead, channels * kernel[0] * kernel[1], height * width)


def conv2d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    stride: int | Pair = 1,
    padding: Padding = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
) -> Array:
    """Convolve a picture with O filters: (B, C, H, W), (O, C/groups, kH, kW) -> (B, O, H', W').

    out[b, o, y, x] = bias[o] + sum over c, i, j of weight[o, c, i, j] * padded[b, c, y*s + i*d, x*s + j*d]

    (Strictly a cross-correlation: the kernel is not flipped.) With `groups` the channels are divided into that many
    groups, and each filter sees only its own; groups = C = O is a depthwise convolution. As
    `torch.nn.functional.conv2d`, with padding also as ((top, bottom), (left, right)); the output's height is
    H' = floor((H + top + bottom - d*(kH - 1) - 1) / s) + 1.

    Raises TypeError or ValueError for wrong types, shapes, groups, or a kernel that does not fit.
    Source: Dumoulin, Visin 2016, "A guide to convolution arithmetic for deep learning".
    """
    _check_conv(x, weight, bias, groups)
    if x.ndim == 3:
        return conv2d(x[None], weight, bias, stride, padding, dilation, groups)[0]
    batch, channels = x.shape[:2]
    filters = weight.shape[0]
    if groups == channels == filters > 1:
        return depthwise_conv2d(x, weight, bias, stride, padding, dilation)
    kernel, step, spread = weight.shape[2:], pair("stride", stride, 1), pair("dilation", dilation, 1)
    pads = resolve_padding(padding, kernel, step, spread)
    height, width = output_sizes(x.shape[-2:], kernel, step, pads, spread)
    cols = im2col(x, kernel, spread, pads, step)  # (B, C*kH*kW, H'*W')
    if groups == 1:
        out = matmul(weight.reshape(filters, -1), cols)  # (O, C*kH*kW) @ (B, C*kH*kW, L) -> (B, O, L)
    else:
        cols = cols.reshape(batch, groups, cols.shape[1] // groups, height * width)
        out = matmul(weight.reshape(groups, filters // groups, -1), cols)  # (B, groups, O/groups, L)
    out = out.reshape(batch, filters, height, width)
    if bias is not None:
        out += bias[:, None, None]
    return out


def depthwise_conv2d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    stride: int | Pair = 1,
    padding: Padding = 0,
    dilation: int | Pair = 1,
) -> Array:
    """Apply one filter per channel, without mixing channels: (B, C, H, W), (C, 1, kH, kW) -> (B, C, H', W').

    out[b, c] = bias[c] + sum over i, j of weight[c, 0, i, j] * (the picture as kernel position (i, j) sees it)

    There is no sum over channels for a matrix product to speed up, so the kH*kW shifted views are added up directly.

    Raises as `conv2d`. Source: Howard et al. 2017, "MobileNets", section 3.1.
    """
    _check_conv(x, weight, bias, groups=x.shape[-3] if isinstance(x, np.ndarray) and x.ndim >= 3 else 1)
    if x.ndim == 3:
        return depthwise_conv2d(x[None], weight, bias, stride, padding, dilation)[0]
    check_shape("weight", weight, (x.shape[1], 1, *weight.shape[2:]), "one filter per channel of x")
    kernel, step, spread = weight.shape[2:], pair("stride", stride, 1), pair("dilation", dilation, 1)
    pads = resolve_padding(padding, kernel, step, spread)
    height, width = output_sizes(x.shape[-2:], kernel, step, pads, spread)
    out = np.zeros((*x.shape[:2], height, width), x.dtype)
    for i, j, view in taps(pad2d(x, pads), kernel, (height, width), step, spread):
        out += weight[:, 0, i, j, None, None] * view
    if bias is not None:
        out += bias[:, None, None]
    return out


def _check_conv(x: Array, weight: Array, bias: Array | None, groups: int) -> None:
    check_float(x=x, weight=weight, bias=bias, optional=("bias",))
    check_rank("x", x, (3, 4), "(B, C, H, W) or (C, H, W)")
    check_rank("weight", weight, (4,), "(O, C/groups, kH, kW)")
    if min(weight.shape[2:]) < 1:
        raise ValueError(f"weight must have a kernel of at least 1 x 1, got shape {weight.shape}")
    if not isinstance(groups, Integral):
        raise TypeError(f"groups must be a whole number, got {groups!r}")
    if groups < 1:
        raise ValueError(f"groups must be at least 1, got {groups}")
    if weight.shape[0] % groups or weight.shape[0] == 0:
        raise ValueError(f"weight must hold a multiple of groups = {groups} filters, got {weight.shape[0]}")
    if x.shape[-3] != weight.shape[1] * groups:
        raise ValueError(
            f"x must have {weight.shape[1] * groups} channels (weight {weight.shape} with groups = {groups}), "
            f"got {x.shape[-3]}"
        )
    check_shape("bias", bias, (weight.shape[0],), "one number per filter")
