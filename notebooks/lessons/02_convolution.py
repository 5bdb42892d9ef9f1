# %% [markdown]
# # 2. Convolution as a matrix product
#
# Nine tenths of EfficientFormer's arithmetic is convolution. After this lesson you can work one out by hand, write
# it as loops, and turn it into the matrix product that makes it fast. You can also say what stride, padding,
# dilation and groups do, and count what a convolution costs before you run it.
#
# You need: [lesson 1](01_picture_to_tensor.ipynb). Time: about 25 minutes.

# %%
import matplotlib
import numpy as np
from course import COLOURS, agree, new_figure, picture, recorded, show, source, table, times
from course.checks import lesson_02 as checks
from matplotlib.patches import Rectangle

import npformer
from npformer import ops
from npformer.assets import sample_pictures
from npformer.summary import summarize

# %% [markdown]
# ## Why not an ordinary layer?
#
# A picture enters EfficientFormer-L1 as 3 channels of 224 x 224 numbers. Its first layer makes 24 maps of 112 x 112
# out of them. An ordinary fully connected layer would join every input number to every output number by a weight of
# its own. Let us count those weights, and then take two liberties.
#
# **Locality.** What is at a place in a picture can be told from its surroundings. So let an output number look only
# at the 3 x 3 pixels around its place, in all 3 channels.
#
# **Shared weights.** An edge in one corner looks like an edge in any other. So let every place use the same weights.

# %%
inputs, outputs = 3 * 224 * 224, 24 * 112 * 112
seen = 3 * 3 * 3  # numbers in one 3x3 patch of 3 channels
rows = [
    ["every output sees every input", f"{inputs:,} x {outputs:,}", f"{inputs * outputs:,}"],
    ["every output sees its patch", f"{seen} x {outputs:,}", f"{seen * outputs:,}"],
    ["... and all places share weights", f"{seen} x 24", f"{seen * 24:,}"],
]
table(["layer", "weights", "how many"], rows)

# %% [markdown]
# Forty-five billion weights have become 648. Nothing was approximated: a convolution *is* a fully connected layer,
# one in which almost all weights are zero and the rest are copies of those 648. What the two liberties cost is the
# ability to treat places differently, which a first layer does not want anyway.

# %% [markdown]
# ## Small numbers
#
# Here is a picture of 5 x 5 pixels and a *kernel* of 3 x 3 weights. Put the kernel on the picture, multiply each
# weight by the pixel below it, and add up the nine products. That is one output number. Move the kernel one pixel on
# for the next.

# %%
small = np.array([[1, 2, 0, 3, 1], [0, 1, 4, 1, 2], [2, 3, 1, 0, 1], [1, 0, 2, 5, 0], [4, 1, 0, 1, 2]], float)
kernel = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]], float)

result = ops.conv2d(small[None, None], kernel[None, None])[0, 0]
patch = small[:3, :3]
print("the first patch times the kernel:")
print((patch * kernel).astype(int))
print("added up:", int((patch * kernel).sum()))
assert (patch * kernel).sum() == result[0, 0]


# %%
def cell(axes, x, y, colour):
    axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=colour, edgecolor=COLOURS["grey"], linewidth=0.6))


def grid(axes, values, title="", shade=None, size=11):
    """Draw an array as cells that hold numbers; `shade` holds a colour for each."""
    rows, columns = values.shape
    for i, j in np.ndindex(rows, columns):
        cell(axes, j, i, "none" if shade is None else shade[i][j])
        axes.text(j, i, f"{values[i, j]:g}", ha="center", va="center", fontsize=size)
    axes.set(xlim=(-0.55, columns - 0.45), ylim=(rows - 0.45, -0.55), aspect="equal")
    axes.set_title(title)
    axes.axis("off")


# %%
LIGHT = {"blue": "#a9cbe6", "orange": "#f0c29b", "both": "#cfc0b8"}  # tints of the course's colours
windows = np.full((5, 5), "none", dtype=object)  # a colour for every pixel
windows[:3, :3] = LIGHT["blue"]
windows[1:4, 2:5] = LIGHT["orange"]
windows[1:3, 2] = LIGHT["both"]
places = np.full((3, 3), "none", dtype=object)
places[0, 0], places[1, 2] = LIGHT["blue"], LIGHT["orange"]

figure, axes = new_figure(1, 3, width=7.5, height=2.8, width_ratios=[5, 3.4, 3.4])
grid(axes[0], small, "picture, 5 x 5", windows)
grid(axes[1], kernel, "kernel, 3 x 3")
grid(axes[2], result, "result, 3 x 3", places)
show(
    figure,
    "Figure 2.1. Two places of the kernel. The blue window gives the blue number, the orange window the orange one; "
    "the brown pixels take part in both, with different weights.",
    "Three grids of numbers. In the 5 by 5 picture two 3 by 3 windows are shaded, top left and one row down at the "
    "right edge. In the 3 by 3 result the numbers at the same two places are shaded alike.",
)

# %% [markdown]
# The kernel says "right minus left", the middle row counting double. So a positive number means: it gets brighter
# from left to right here. The result is smaller than the picture, since a 3 x 3 window has only three places to go
# along five pixels.

# %% [markdown]
# ## The formula
#
# A picture has $C$ channels, and a filter has a kernel for each of them. $O$ filters make $O$ output channels. With
# an input of shape $(B, C, H, W)$ and weights $w$ of shape $(O, C, k_H, k_W)$ the result has the shape
# $(B, O, H', W')$:
#
# $$\text{out}[b, o, y, x] = \text{bias}[o] + \sum_{c, i, j} w[o, c, i, j] \cdot
# \text{padded}[b, c,\; y s + i d,\; x s + j d]$$
#
# Three settings move the window about.
#
# * **stride** $s$: the window moves $s$ pixels at a time. Stride 2 halves the sides; it is how all three networks
#   shrink their maps.
# * **padding** $p$: the picture is surrounded by $p$ rows and columns of zeros, so that its border pixels get
#   windows of their own.
# * **dilation** $d$: the kernel's pixels are $d$ apart. None of our three networks uses it, but the operation has it.
#
# How many places does a window have along one side of $n$ pixels? It spans $d (k - 1) + 1$ of them, so it has
# $n + 2p - d(k-1) - 1$ pixels of room, moves $s$ at a time, and the place where it starts counts too:
#
# $$n' = \left\lfloor \frac{n + 2p - d (k - 1) - 1}{s} \right\rfloor + 1$$

# %%
settings = [
    ("stride 1, no padding", {}),
    ("stride 2, padding 1", {"stride": 2, "padding": 1}),
    ("dilation 2, padding 1", {"dilation": 2, "padding": 1}),
]


def seen_by(place, **options):
    """Which of 6x6 pixels the output number at `place` depends on: the convolution's own answer."""
    response = np.zeros((6, 6), bool)
    for i, j in np.ndindex(6, 6):
        lit = np.zeros((1, 1, 6, 6))
        lit[0, 0, i, j] = 1
        response[i, j] = ops.conv2d(lit, np.ones((1, 1, 3, 3)), **options)[0, 0][place] != 0
    return response


# %%
figure, axes = new_figure(1, 3, width=7.5, height=2.9)
for axis, (name, options) in zip(axes, settings):
    blue, orange = seen_by((0, 0), **options), seen_by((0, 1), **options)
    pad, step = options.get("padding", 0), options.get("stride", 1)
    tints = [LIGHT["both"], LIGHT["blue"], LIGHT["orange"]]
    shade = np.select([blue & orange, blue, orange], tints, "none")
    for i, j in np.ndindex(6, 6):
        cell(axis, j, i, shade[i, j])
    reach = 2 * options.get("dilation", 1) + 1
    for shift, colour in ((0, "blue"), (step, "orange")):
        left = shift - pad - 0.5 + 0.06 * (colour == "orange")
        xs, ys = [left, left + reach, left + reach, left, left], np.array([0, 0, reach, reach, 0]) - pad - 0.5
        axis.plot(xs, ys, color=COLOURS[colour], linewidth=2, linestyle="-" if colour == "blue" else "--")
    side = ops.conv2d(np.zeros((1, 1, 6, 6)), np.ones((1, 1, 3, 3)), **options).shape[-1]
    axis.set(xlim=(-1.7, 5.7), ylim=(5.7, -1.7), aspect="equal")
    axis.set_title(f"{name}\n6 x 6 gives {side} x {side}")
    axis.axis("off")
show(
    figure,
    "Figure 2.2. The windows of the first output number (blue frame) and of the second (orange, dashed) in a picture "
    "of 6 x 6 pixels. Shaded pixels are read, brown ones by both. What lies outside the grid is padding: zeros.",
    "Three 6 by 6 grids. Without padding the two windows overlap in two columns. With stride 2 and padding 1 the "
    "windows begin outside the picture and overlap in one column. With dilation 2 a window reads every other pixel "
    "of five.",
)

# %% [markdown]
# The sides of EfficientFormer-L1 all follow from the same settings, kernel 3, stride 2, padding 1. The package's
# `output_size` is the formula, with the padding of both ends given apart.

# %%
side = 224
for layer in ("first convolution of the stem", "second", "downsampling 1", "downsampling 2", "downsampling 3"):
    smaller = ops.window.output_size(side, kernel=3, stride=2, pads=(1, 1), dilation=1)
    print(f"{layer:30} {side:3} -> {smaller}")
    side = smaller

# %% [markdown]
# **Groups** are the fourth setting. The channels fall into that many groups, and a filter sees only the channels of
# its own. The weights then have the shape $(O, C / \text{groups}, k_H, k_W)$. With one group per channel, which is
# called a *depthwise* convolution, channels do not mix at all.

# %%
figure, axes = new_figure(1, 3, width=7.5, height=2.8)
for axis, groups in zip(axes, (1, 2, 4)):
    weight = np.ones((4, 4 // groups, 3, 3))
    one_lit = np.eye(4)[:, :, None, None] * np.ones((3, 3))  # picture b has only channel b lit
    sees = ops.conv2d(one_lit, weight, groups=groups)[:, :, 0, 0].T != 0  # (O, C)
    shade = np.where(sees, LIGHT["blue"], "none")
    grid(axis, np.where(sees, 9, 0), f"groups={groups}: {weight.size} weights", shade)
    axis.text(1.5, 3.95, "input channel", ha="center", va="top")
    axis.text(-0.95, 1.5, "output channel", ha="center", va="center", rotation=90)
    axis.set(xlim=(-1.2, 3.6), ylim=(4.4, -0.6))
show(
    figure,
    "Figure 2.3. Who sees whom among four input and four output channels, and by how many weights of a 3 x 3 kernel. "
    "More groups, fewer weights: each halving of a filter's view halves them.",
    "Three 4 by 4 grids of output against input channels. With one group all sixteen cells are filled with 9 "
    "weights, with two groups two blocks of 2 by 2 on the diagonal, with four groups the diagonal alone.",
)

# %% [markdown]
# ## Loops
#
# The formula, word for word. Padding is not laid out here; a pixel outside the picture adds nothing. The package
# keeps such a version too, in [`npformer/ops/naive.py`](../npformer/ops/naive.py): the fast one is tested against
# it.


# %%
def conv2d_loops(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    (batch, _, H, W), (filters, per_group, kH, kW) = x.shape, weight.shape
    rows = (H + 2 * padding - dilation * (kH - 1) - 1) // stride + 1
    columns = (W + 2 * padding - dilation * (kW - 1) - 1) // stride + 1
    out = np.zeros((batch, filters, rows, columns), x.dtype)
    for b, o, y, column in np.ndindex(out.shape):
        first = o // (filters // groups) * per_group  # the first channel of this filter's group
        total = 0.0 if bias is None else bias[o]
        for c, i, j in np.ndindex(per_group, kH, kW):
            v, u = y * stride + i * dilation - padding, column * stride + j * dilation - padding
            if 0 <= v < H and 0 <= u < W:
                total += weight[o, c, i, j] * x[b, first + c, v, u]
        out[b, o, y, column] = total
    return out


# %%
assert (conv2d_loops(small[None, None], kernel[None, None])[0, 0] == result).all()
print(result.astype(int))

# %% [markdown]
# ## From loops to one matrix product
#
# A turn of a loop in Python costs hundreds of times more than the multiplication inside it. But look at what the
# loops do for one output number: a sum of products of two lists, the weights and the patch. That is a dot product,
# and many dot products at once are a matrix product, which every computer has a superb routine for.
#
# So cut out every patch, and write each as a *column*. This is called **im2col**, "image to columns". To see which
# pixel goes where, number the 25 pixels and colour them by their number.

# %%
numbered = np.arange(25.0).reshape(5, 5)
columns = ops.im2col(numbered[None, None], 3)[0]  # (9, 9)
tints = matplotlib.colormaps["viridis"](0.25 + 0.75 * np.arange(25) / 24, alpha=0.6)  # one colour for each pixel

figure, axes = new_figure(1, 2, width=7.5, height=3.7, width_ratios=[5, 9])
grid(axes[0], numbered, "picture: pixels 0 to 24", tints[numbered.astype(int)])
grid(axes[1], columns, "im2col: one column for each of the 9 patches", tints[columns.astype(int)], size=10)
for k in range(9):
    axes[1].text(-0.75, k, f"{k // 3}, {k % 3}", ha="right", va="center", fontsize=8)
    axes[1].text(k, 8.75, f"{k // 3}, {k % 3}", ha="center", va="top", fontsize=8)
axes[1].text(4, 9.45, "place of the window (y, x)", ha="center", va="top", fontsize=9)
axes[1].text(-1.9, 4, "place in the kernel (i, j)", ha="center", va="center", rotation=90, fontsize=9)
axes[1].set(xlim=(-2.3, 8.6), ylim=(10.1, -0.6))
show(
    figure,
    "Figure 2.4. im2col of a 5 x 5 picture for a 3 x 3 kernel. The first column is the first patch, row by row. "
    "Pixel 12, in the middle, lies in all nine patches and so appears nine times; a corner pixel appears once.",
    "Left a 5 by 5 grid of pixels numbered 0 to 24. Right a 9 by 9 matrix whose columns are the nine 3 by 3 patches: "
    "the first is 0 1 2 5 6 7 10 11 12, the last 12 13 14 17 18 19 22 23 24. Number 12 runs along the other diagonal.",
)

# %%
flat = kernel.reshape(1, 9) @ ops.im2col(small[None, None], 3)[0]  # (1, 9) @ (9, 9) -> (1, 9)
print(flat.astype(int))
assert (flat.reshape(3, 3) == result).all()
print("appears how often:", {pixel: int((columns == pixel).sum()) for pixel in (0, 1, 6, 12)})

# %% [markdown]
# One row of weights times the matrix of patches: the convolution. Read along a *row* of Figure 2.4 instead, and you
# find the whole picture as one place of the kernel sees it, shifted a little. That is how the package fills the
# matrix: nine large copies, one for each place of the kernel, instead of one small copy for each patch.
#
# With several channels, the rows of one channel follow those of the one before, in the order in which
# `weight.reshape(O, -1)` writes down a filter. It is the layout of PyTorch's `F.unfold`.

# %%
source(ops.im2col, ops.window.taps)

# %% [markdown]
# What is left of the convolution is bookkeeping around one product, of shape
# $(O, C k_H k_W) \times (C k_H k_W, H' W')$.

# %%
source(ops.conv2d)

# %% [markdown]
# `matmul` is the `@` operator, except that long sums of float32 numbers are added up in pieces, which makes them
# more exact. And a depthwise convolution goes its own way: each channel has but one filter of nine weights, too few
# for a matrix product to be worth the copies. There the nine shifted pictures are multiplied and added up directly.
#
# ## Is it what PyTorch computes?
#
# PyTorch was given the same random numbers, and its answers are kept beside this lesson. Ours, by loops and by the
# matrix product, must equal them in all settings.

# %%
torch_says = recorded(2)
x, bias, dense = torch_says["x"], torch_says["bias"], torch_says["weight"]
cases = {
    "plain": (dense, bias, {}),
    "stride 2, padding 1": (dense, bias, {"stride": 2, "padding": 1}),
    "dilation 2, padding 2": (dense, bias, {"padding": 2, "dilation": 2}),
    "two groups, stride 2": (
        torch_says["weight_of_two_groups"],
        bias,
        {"stride": 2, "padding": 1, "groups": 2},
    ),
    "depthwise": (torch_says["weight_per_channel"], None, {"padding": 1, "groups": 4}),
    "1x1": (torch_says["weight_1x1"], bias, {}),
}
for name, (weight, add, options) in cases.items():
    agree(f"loops, {name}", conv2d_loops(x, weight, add, **options), torch_says[name])
    agree(f"ops.conv2d, {name}", ops.conv2d(x, weight, add, **options), torch_says[name])

# %%
name = "stride (2, 1), padding (1, 2)"  # a number for each direction: vertical, horizontal
agree(name, ops.conv2d(x, dense, bias, stride=(2, 1), padding=(1, 2)), torch_says[name])
name = "5x3 kernel, same"  # as much padding as keeps the size
agree(name, ops.conv2d(x, torch_says["weight_5x3"], bias, padding="same"), torch_says[name])
agree("im2col as F.unfold", ops.im2col(x, 3, padding=1, stride=2), torch_says["unfold"])

# %% [markdown]
# ## Strictly speaking, it is no convolution
#
# In mathematics a convolution turns the kernel round before it slides it over the signal; what slides it as it is,
# is called a *cross-correlation*. **Predict, then run.** The picture below is black but for a single 1 in the
# middle, and the kernel holds the numbers 1 to 9. What is the result: the kernel, or something else?

# %%
point = np.zeros((1, 1, 5, 5))
point[0, 0, 2, 2] = 1
counted = np.arange(1.0, 10).reshape(1, 1, 3, 3)
print(ops.conv2d(point, counted)[0, 0].astype(int))

# %% [markdown]
# The kernel upside down and back to front. The window at the top left sees the 1 in its own bottom right corner,
# where the weight is 9, and so on. A true convolution would have stamped the kernel onto the point as it is. NumPy
# has both in one dimension, and `ops.conv2d` sides with `np.correlate`:

# %%
signal, taps = np.array([0.0, 0, 1, 3, 0, 0]), np.array([1.0, 2, 5])
ours = ops.conv2d(signal[None, None, None], taps[None, None, None])[0, 0, 0]
print("ops.conv2d  ", ours)
print("np.correlate", np.correlate(signal, taps, "valid"))
print("np.convolve ", np.convolve(signal, taps, "valid"))
assert (ours == np.correlate(signal, taps, "valid")).all()
turned = counted[..., ::-1, ::-1]  # with the kernel turned first, it is a true convolution
assert (ops.conv2d(point, turned)[0, 0] == counted[0, 0]).all()

# %% [markdown]
# All deep-learning frameworks leave out the turn: weights are learned, so a network would merely learn them turned.
# It matters when you port a kernel from a book on image processing, where a missing turn reverses every gradient's
# sign.

# %% [markdown]
# ## Two surprises at the border and with strides
#
# **Predict, then run.** The picture is a flat grey, 0.5 everywhere. The kernel is our "right minus left", with
# padding 1 so that the size stays. There is no edge anywhere in this picture. What comes out?

# %%
flat_grey = np.full((1, 1, 5, 6), 0.5)
print(ops.conv2d(flat_grey, kernel[None, None], padding=1)[0, 0])

# %% [markdown]
# Nothing inside, but an edge at the left and right: padding surrounds the picture with *zeros*, which are black only
# if 0 means black. In a network they are always there, so a network can tell where the border is. It also means that
# anything which does not leave 0 at 0, such as a batch norm, may not be exchanged with a padded convolution. Lesson
# 3 comes back to that.
#
# **Predict, then run.** Move a picture one pixel to the right. With stride 1 the result moves by one pixel as well:
# that is what sharing weights means. What does it do with stride 2? And if the picture moves by two pixels?

# %%
rng = np.random.default_rng(0)
scene = np.zeros((1, 1, 12, 12))
scene[0, 0, 3:9, 3:8] = rng.random((6, 5))
edge = kernel[None, None]


def difference(pixels, stride, moved):
    """How far the result for a moved picture is from the result moved by that many of its own pixels."""
    after = ops.conv2d(np.roll(scene, pixels, axis=3), edge, stride=stride, padding=1)
    before = ops.conv2d(scene, edge, stride=stride, padding=1)
    return np.abs(after - np.roll(before, moved, axis=3)).max()


print(f"stride 1, picture moved 1, result moved 1: off by {difference(1, 1, 1):.3f}")
print(f"stride 2, picture moved 2, result moved 1: off by {difference(2, 2, 1):.3f}")
print(f"stride 2, picture moved 1, result moved 0: off by {difference(1, 2, 0):.3f}")
print(f"stride 2, picture moved 1, result moved 1: off by {difference(1, 2, 1):.3f}")

# %% [markdown]
# With stride 2 every other window is left out. Move the picture by two pixels, and the same windows are met one
# place later. Move it by one, and all windows are new: the result is neither the old one nor the old one moved. So
# it matters *which* half of the windows is kept, and here frameworks differ. To halve an even side with a 3 x 3
# kernel, one row and one column of padding suffice. PyTorch pads both sides all the same; TensorFlow's `SAME` pads
# below and on the right alone. A kernel that only passes on its middle shows which pixels are sampled:

# %%
ramp = np.arange(6.0) * np.ones((1, 1, 6, 1))  # each pixel holds its column: 0 1 2 3 4 5
middle = np.zeros((1, 1, 3, 3))
middle[0, 0, 1, 1] = 1
one_sided = ops.same_padding((6, 6), kernel_size=3, stride=2)
print("PyTorch, padding 1:               columns", ops.conv2d(ramp, middle, stride=2, padding=1)[0, 0, 1])
print(f"TensorFlow, padding {one_sided}: columns", ops.conv2d(ramp, middle, stride=2, padding=one_sided)[0, 0, 1])

# %% [markdown]
# Same size, but other pixels, all through the network. A checkpoint trained with one and run with the other still
# works more or less, which makes this mistake so hard to find. EfficientNet was trained with the one-sided kind;
# [lesson 8](08_efficientnet.ipynb) measures what the wrong one does.

# %% [markdown]
# ## What it costs
#
# Every output number takes one multiplication and one addition for each weight of its filter: a *multiply-add*. So a
# convolution has $O H' W' \cdot (C / \text{groups}) \, k_H k_W$ of them. And im2col needs memory for the matrix.
# L1's stem is a convolution from 3 to 24 channels and one from 24 to 48, both with stride 2. Counting does not need
# trained weights, so random ones do.

# %%
l1 = npformer.get_model("efficientformer-l1", seed=0)
counted_by_package = {row.name: row.multiply_adds for row in summarize(l1, 224, 224)}
stem = l1.efficientformer.patch_embed
rows, x1 = [], np.zeros((1, 3, 224, 224), np.float32)
for name in ("convolution1", "convolution2"):
    layer = getattr(stem, name)
    cols, out = ops.im2col(x1, 3, padding=1, stride=2), layer(x1)
    by_hand = out.size * layer.weight[0].size  # one for each weight of a filter, for every output number
    assert by_hand == counted_by_package[f"efficientformer.patch_embed.{name}"]
    rows.append([name, f"{by_hand:,}", str(cols.shape[1:]), f"{x1.nbytes / 1e6:.2f}", f"{cols.nbytes / 1e6:.2f}"])
    x1 = out
table(["layer", "multiply-adds", "matrix", "input, MB", "matrix, MB"], rows)
print(f"whole network: {counted_by_package['']:,} multiply-adds")

# %% [markdown]
# `npformer summary` counts the same. The matrix is $k^2 / s^2$ times as large as the input: 9/4 here, and 9 for a 3
# x 3 kernel at stride 1. It exists only for a moment, but a batch of eight pictures asks for eight times as much,
# which is why fast kernels lay out a few rows of the picture at a time.
#
# A **1 x 1 convolution** needs no copy at all. Its patches are single pixels, and the picture with its rows joined
# up, $(C, H W)$, is already the matrix. It is a fully connected layer applied to every pixel alike. Most of
# EfficientFormer's arithmetic is of this kind. What the two rows below leave out are its linear layers and its
# attention.

# %%
# The shapes of the first MLP layer of L1.
pixels = np.random.default_rng(1).standard_normal((1, 48, 56, 56)).astype(np.float32)
assert np.shares_memory(ops.im2col(pixels, 1), pixels)  # the columns are the pixels themselves
weight = np.random.default_rng(2).standard_normal((192, 48, 1, 1)).astype(np.float32)
as_product = weight[:, :, 0, 0] @ pixels.reshape(48, 56 * 56)  # (192, 48) @ (48, 3136)
assert np.abs(ops.conv2d(pixels, weight)[0] - as_product.reshape(192, 56, 56)).max() < 1e-4

# %%
of_kind = {}
for name, module in l1.named_modules():
    if isinstance(module, npformer.nn.Conv2d):
        kind = "x".join(map(str, module.weight.shape[2:]))
        of_kind[kind] = of_kind.get(kind, 0) + counted_by_package[name]
for kind, adds in of_kind.items():
    print(f"{kind} convolutions: {adds / counted_by_package['']:.0%} of L1's multiply-adds")
assert 0.88 < sum(of_kind.values()) / counted_by_package[""] < 0.9  # nine tenths

# %% [markdown]
# ## How fast it is
#
# The loops would take seconds for the stem's first convolution, so they get a corner of 28 x 28 pixels, and the time
# is multiplied by how much smaller that is. The last two rows are the whole stem: readable ops, and the package's
# fused kernels, which fold in the batch norms ([lesson 3](03_normalisation.ipynb)) and lay out patches a few rows at
# a time.

# %% tags=["timing"]
photo = np.random.default_rng(3).standard_normal((1, 3, 224, 224)).astype(np.float32)
corner, first = photo[:, :, :28, :28], stem.convolution1
fast_stem = npformer.fuse(l1).efficientformer.patch_embed
seconds = times({"loops": lambda: conv2d_loops(corner, first.weight, first.bias, 2, 1)}, rounds=3)
seconds["loops"] *= (224 // 28) ** 2
seconds |= times({"im2col": lambda: first(photo), "stem": lambda: stem(photo), "fused": lambda: fast_stem(photo)})
one = counted_by_package["efficientformer.patch_embed.convolution1"]
all_of_stem = counted_by_package["efficientformer.patch_embed"]
rows = [
    ["first convolution, loops", one, seconds["loops"]],
    ["first convolution, im2col", one, seconds["im2col"]],
    ["stem, readable", all_of_stem, seconds["stem"]],
    ["stem, fused", all_of_stem, seconds["fused"]],
]
million = "million multiply-adds a second"
table(["", "ms", million], [[name, f"{1e3 * s:.2f}", f"{adds / s / 1e6:,.0f}"] for name, adds, s in rows])

# %% [markdown]
# The same multiplications and additions, and yet seconds became milliseconds. All that changed is who runs the
# innermost loop.

# %% [markdown]
# ## Edges of a real picture
#
# Our "right minus left" kernel has a name, Sobel's, and so has its transpose, "below minus above". Together they
# give the strength of the edge at every pixel.

# %%
boot = next(path for path, label in sample_pictures().items() if label == "Ankle boot")
grey = np.asarray(npformer.load_image(boot), np.float64)[None, None, :, :, 0] / 255  # (1, 1, 28, 28)
sobel = np.stack([kernel, kernel.T])[:, None]  # (2, 1, 3, 3): two filters
across, down = ops.conv2d(grey, sobel, padding=1)[0]  # (28, 28) each

figure, axes = new_figure(1, 4, width=7.5, height=2.2)
picture(axes[0], grey[0, 0], "picture", cmap="gray")
picture(axes[1], across, "right minus left", signed=True)
picture(axes[2], down, "below minus above", signed=True)
picture(axes[3], np.hypot(across, down), "strength of the edge")
show(
    figure,
    "Figure 2.5. A boot of Fashion-MNIST under Sobel's two kernels. Red: brighter to the right, or below; blue: "
    "darker. The last picture is the length of the two together.",
    "A grey boot, then two maps in red and blue that mark its left edges red and its right edges blue, its upper "
    "edges red and its lower edges blue, then a map where the whole outline is bright.",
)

# %% [markdown]
# Nobody gives a network such kernels. What does it choose by itself? The shipped `efficientformer-fashion` learned
# eight filters in its first convolution. Its pictures are grey, all three channels alike, so what counts is the sum
# of a filter's three kernels.

# %%
model = npformer.get_model("efficientformer-fashion", pretrained=True)
processor = npformer.AutoImageProcessor.from_pretrained("efficientformer-fashion")
prepared = processor(npformer.load_image(boot), return_tensors="np")
learned = model.efficientformer.patch_embed.convolution1  # weight (8, 3, 3, 3)
maps = learned(prepared["pixel_values"])[0]  # (1, 3, 224, 224) -> (8, 112, 112)
kernels = learned.weight.sum(axis=1)  # (8, 3, 3): what a grey picture meets

level = kernels.mean(axis=(1, 2), keepdims=True)  # (8, 1, 1): how much a filter minds plain brightness
grey_of_input = prepared["pixel_values"][:, :1]  # (1, 1, 224, 224): one of three equal channels
edges = ops.conv2d(grey_of_input, (kernels - level)[:, None], stride=2, padding=1)[0]  # (8, 112, 112)

# %%
figure, axes = new_figure(3, 8, width=7.5, height=3.1)
for k in range(8):
    picture(axes[0, k], kernels[k], f"{k}", signed=True)
    picture(axes[1, k], maps[k] - maps[k, 8, 8], signed=True)  # (8, 8) lies in the black background
    most = np.abs(edges[k, 2:, 2:]).max()  # the rim apart
    picture(axes[2, k], edges[k], cmap="RdBu_r", vmin=-most, vmax=most)
for axis, name in zip(axes[:, 0], ("filter", "its map", "without\nbrightness")):
    axis.set_ylabel(name)
show(
    figure,
    "Figure 2.6. The eight filters that the network learned, what each makes of the boot, and what it makes of it "
    "when the filter's mean is taken out. Red is positive, blue negative, each to its own scale; white in the second "
    "row is the black background.",
    "Three rows of eight small pictures in red and blue. Most kernels change from one colour to the other from left "
    "to right, two from top to bottom. The maps in the second row look like the boot itself. Those in the third show "
    "its outline alone.",
)

# %%
# How much of a filter, its mean taken out, is one side against the opposite one? Of Sobel's, all of it.
left_right = np.abs((kernels[:, :, 0] - kernels[:, :, 2]).sum(axis=1))
above_below = np.abs((kernels[:, 0] - kernels[:, 2]).sum(axis=1))
weight = np.abs(kernels - level).sum(axis=(1, 2))
for k in range(8):
    print(f"filter {k}: left/right {left_right[k] / weight[k]:4.0%}, above/below {above_below[k] / weight[k]:4.0%}")

# %% [markdown]
# Five filters weigh left against right, numbers 4 and 5 above against below, and number 1 both, which is a diagonal:
# the network found its own Sobel kernels. Unlike his, their weights do not sum to zero, so they pass on brightness
# as well, and for a picture enlarged from 28 to 224 pixels, smooth as it is, brightness makes up most of the map.
# Take it out and the edges stand there alone. The second convolution can do that, since it may subtract one map from
# another. And the lines at the left and upper rim? Zero padding, the edge where none is, once more: black is not 0
# after the processor's normalising.
#
# Most first layers of trained networks look like this, on whatever pictures they were trained, because everything
# else in a picture is made of edges.

# %% [markdown]
# ## Exercises
#
# ### Exercise 2.1: how large is the result?
#
# Write `output_size(n, k, s, p, d)`: the number of places of a kernel of `k` pixels, `d` apart, that moves by `s`
# along a side of `n` pixels with `p` zeros at both ends. For example `output_size(224, 3, 2, 1, 1)` is 112.


# %% tags=["exercise"]
def output_size(n, k, s, p, d):
    """How many places the window has; a whole number."""
    ...


# %% tags=["check"]
checks.output_size(output_size)

# %% [markdown]
# <details><summary>Hint</summary>
#
# The window spans `d * (k - 1) + 1` pixels. Over how many pixels can its first pixel move? Remember that the place
# where it starts counts too.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def output_size(n, k, s, p, d):
#     room = n + 2 * p - (d * (k - 1) + 1)
#     return room // s + 1
# ```
#
# Rounding down drops the pixels at the end that a last, incomplete step would need. With 224 pixels, kernel 3,
# stride 2 and padding 1, the padding on the right is never read.
#
# </details>

# %% [markdown]
# ### Exercise 2.2: count multiply-adds
#
# Write `multiply_adds(x_shape, weight_shape, stride, padding)` for an input of shape `(B, C, H, W)` and weights of
# shape `(O, C / groups, kH, kW)`, no dilation. Use your `output_size`. For the first convolution of L1's stem,
# `multiply_adds((1, 3, 224, 224), (24, 3, 3, 3), 2, 1)` should be what the table above says.


# %% tags=["exercise"]
def multiply_adds(x_shape, weight_shape, stride, padding):
    """How many multiply-adds the convolution takes; a whole number."""
    ...


# %% tags=["check"]
checks.multiply_adds(multiply_adds)

# %% [markdown]
# <details><summary>Hint</summary>
#
# How many output numbers are there, in all pictures, filters and places? How many weights meet in each of them? The
# weight's shape already says how many channels a filter sees.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def multiply_adds(x_shape, weight_shape, stride, padding):
#     batch, _, H, W = x_shape
#     filters, per_group, kH, kW = weight_shape
#     rows = output_size(H, kH, stride, padding, 1)
#     columns = output_size(W, kW, stride, padding, 1)
#     return batch * filters * rows * columns * per_group * kH * kW
# ```
#
# Groups need no case of their own: a depthwise filter has one channel, and so a $C$-th of the cost. That is the idea
# of MobileNet, on which EfficientNet's blocks are built.
#
# </details>

# %% [markdown]
# ### Exercise 2.3: im2col of one channel
#
# Write `im2col_one(picture, k)` for a picture `(H, W)` and a kernel of `k` x `k`, stride 1, no padding. Return
# `(k * k, H' * W')`: one column for each patch, patches in reading order, and in a column its pixels in reading
# order. Any way is fine, loops too. `im2col_one(numbered, 3)` should be the matrix of Figure 2.4.


# %% tags=["exercise"]
def im2col_one(picture, k):
    """Every k x k patch of an (H, W) picture as a column."""
    ...


# %% tags=["check"]
checks.im2col_one(im2col_one)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Row number `i * k + j` is the picture as place `(i, j)` of the kernel sees it: a slice of `H - k + 1` rows and
# `W - k + 1` columns, which begins at `(i, j)`.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def im2col_one(picture, k):
#     rows, columns = picture.shape[0] - k + 1, picture.shape[1] - k + 1
#     shifted = [picture[i : i + rows, j : j + columns].ravel() for i in range(k) for j in range(k)]
#     return np.stack(shifted)  # (k * k, rows * columns)
# ```
#
# The loop runs over the kernel's few places, not over the picture's many. That is most of the speed in the timings
# above.
#
# </details>

# %% [markdown]
# ### Exercise 2.4: a convolution by tensordot
#
# Write `conv2d(x, weight, bias, stride, padding)` for `x` `(B, C, H, W)`, `weight` `(O, C, kH, kW)` and `bias`
# `(O,)`, with no loop at all. `np.lib.stride_tricks.sliding_window_view(padded, (kH, kW), axis=(2, 3))` gives every
# window of a padded picture, of shape `(B, C, rows, columns, kH, kW)`, at stride 1 and without copying;
# `np.tensordot(a, b, axes)` sums over the axes that you name of both. Mind the order in which the axes come out.


# %% tags=["exercise"]
def conv2d(x, weight, bias, stride, padding):
    """Convolve (B, C, H, W) with (O, C, kH, kW) to (B, O, H', W')."""
    ...


# %% tags=["check"]
checks.conv2d(conv2d)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Pad with `np.pad`, only the last two axes. Take every `stride`-th window. Sum over channels and the two axes of the
# kernel: axes 1, 4, 5 of the windows and 1, 2, 3 of the weights. What is left is `(B, H', W', O)`.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def conv2d(x, weight, bias, stride, padding):
#     padded = np.pad(x, [(0, 0), (0, 0), (padding, padding), (padding, padding)])
#     windows = np.lib.stride_tricks.sliding_window_view(padded, weight.shape[2:], axis=(2, 3))
#     seen = windows[:, :, ::stride, ::stride]
#     out = np.tensordot(seen, weight, axes=([1, 4, 5], [1, 2, 3]))  # (B, H', W', O)
#     return np.moveaxis(out, -1, 1) + bias[:, None, None]
# ```
#
# `tensordot` makes im2col's matrix inside, by copying the windows, and calls the same matrix product. The view is
# free, but the product needs its numbers side by side.
#
# </details>

# %% [markdown]
# ### Exercise 2.5: build a stem
#
# All three networks begin by shrinking the picture. EfficientFormer's stem is a convolution, ReLU ($\max(0, x)$), a
# second convolution, ReLU; each with a 3 x 3 kernel, stride 2 and padding 1 (the batch norms between them vanish in
# lesson 3). Write `my_stem(x, weight1, bias1, weight2, bias2)` with your `conv2d`, or with `ops.conv2d`.
# `(B, 3, H, W)` becomes `(B, C, H/4, W/4)`.


# %% tags=["exercise"]
def my_stem(x, weight1, bias1, weight2, bias2):
    """Two convolutions of stride 2, each with a ReLU after it."""
    ...


# %% tags=["check"]
checks.stem(my_stem)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `np.maximum(x, 0)` is ReLU. Both convolutions have the same stride and padding, and there is a ReLU after the
# second one too.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def my_stem(x, weight1, bias1, weight2, bias2):
#     x = np.maximum(ops.conv2d(x, weight1, bias1, stride=2, padding=1), 0)  # (B, C/2, H/2, W/2)
#     return np.maximum(ops.conv2d(x, weight2, bias2, stride=2, padding=1), 0)  # (B, C, H/4, W/4)
# ```
#
# Together the two see a window of 7 x 7 pixels of the picture, with fewer weights than one 7 x 7 convolution would
# have, and a bend in between.
#
# </details>

# %% [markdown]
# ## Further reading
#
# * Li et al. 2022, [EfficientFormer: Vision Transformers at MobileNet Speed](https://arxiv.org/abs/2206.01191),
#   section 3 measures why a stem of two 3 x 3 convolutions beats one large patch on a phone.
# * Dumoulin and Visin 2016, [A guide to convolution arithmetic for deep learning](https://arxiv.org/abs/1603.07285):
#   all cases of stride, padding and dilation, drawn.
# * Chellapilla, Puri and Simard 2006, *High performance convolutional neural networks for document processing*:
#   im2col.
# * Howard et al. 2017, [MobileNets](https://arxiv.org/abs/1704.04861): depthwise and 1 x 1 convolutions in place of
#   full ones.
# * The source: [`npformer/ops/conv.py`](../npformer/ops/conv.py), [`window.py`](../npformer/ops/window.py) and the
#   fast kernels in [`npformer/fast/kernels.py`](../npformer/fast/kernels.py).
#
# Next: [3. Normalisation, and why batch norm folds away and layer norm does not](03_normalisation.ipynb)
