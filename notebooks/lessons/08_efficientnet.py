# %% [markdown]
# # 8. EfficientNet: depthwise convolution, squeeze-and-excitation, compound scaling, one-sided padding
#
# EfficientNet is one kind of block, repeated, and a rule for making the network larger. Afterwards you can build that
# block from its weights, say what each part costs, read what a trained network's gates have learned, and name the
# padding mistake that takes a good network down to a third of its accuracy without raising any error.
#
# You need: lessons [2](02_convolution.ipynb), [3](03_normalisation.ipynb) and [5](05_activations.ipynb).
# Time: just under half an hour.

# %%
import math
from dataclasses import replace

import numpy as np
from course import COLOURS, SERIES, agree, new_figure, picture, pictures, recorded, show, source, table, times
from course.checks import lesson_08 as checks
from matplotlib.patches import Rectangle

from npformer import AutoImageProcessor, fuse, get_model, load_image, ops, record, watch
from npformer.assets import sample_pictures
from npformer.models import efficientnet
from npformer.models.efficientnet import EfficientNetConfig, block_shapes, round_filters, round_repeats
from npformer.models.registry import VARIANTS
from npformer.ops.window import same_padding
from npformer.summary import summarize

pytorch = recorded(8)  # what PyTorch and transformers computed, and from what

# %% [markdown]
# ## Why: a full convolution does two jobs at once
#
# A $k \times k$ convolution looks sideways, at a pixel's neighbours, and across, at all channels, in one step. It
# needs a weight for every pair of channels and every position of the kernel: $k^2 C O$ weights, and as many
# multiply-adds for every output pixel.
#
# The two jobs can be done one after the other. A **depthwise** convolution gives each channel one small filter of its
# own and never mixes channels: $k^2 C$. A **1x1** convolution mixes channels and never looks sideways: $C O$. Together
# they cost this part of the full convolution:
#
# $$\frac{k^2 C + C O}{k^2 C O} = \frac{1}{O} + \frac{1}{k^2}$$
#
# Here it is for real shapes, the middle of EfficientNet-B0: block 6, where 480 channels of 14 x 14 pixels become 80.

# %%
b0 = EfficientNetConfig.for_variant("efficientnet-b0", num_labels=1000)
shape, side = list(block_shapes(b0))[6], 14
wide, out, k = shape.in_channels * shape.expand_ratio, shape.out_channels, shape.kernel_size
weights = {"full 3x3": k * k * wide * out, "depthwise 3x3": k * k * wide, "1x1": wide * out}
weights["depthwise + 1x1"] = weights["depthwise 3x3"] + weights["1x1"]
table(
    ["480 -> 80 channels at 14 x 14", "weights", "multiply-adds", "of the full one"],
    [[name, n, n * side * side, f"{n / weights['full 3x3']:.3f}"] for name, n in weights.items()],
)
assert math.isclose(weights["depthwise + 1x1"] / weights["full 3x3"], 1 / out + 1 / k**2)

# %% [markdown]
# An eighth of the work. It is no free lunch: the pair can express only some of what a full convolution can. A
# convolution is linear, so for a small input we can write it as a matrix and look at what is left out. Take 3 channels
# of a row of 6 pixels, give each of the 18 inputs the value 1 in turn, and keep the outputs as columns.

# %%
rng = np.random.default_rng(0)
basis = np.eye(18).reshape(18, 3, 1, 6)  # 18 inputs (3, 1, 6), a single 1 in each
pad = ((0, 0), (1, 1))
layers = {
    "full, kernel 3": ops.conv2d(basis, rng.normal(size=(3, 3, 1, 3)), padding=pad),
    "depthwise, kernel 3": ops.depthwise_conv2d(basis, rng.normal(size=(3, 1, 1, 3)), padding=pad),
    "1x1": ops.conv2d(basis, rng.normal(size=(3, 3, 1, 1))),
}
figure, axes = new_figure(1, 3, height=2.9)
for axis, (name, outputs) in zip(axes, layers.items()):
    matrix = outputs.reshape(18, 18).T  # rows: outputs, columns: inputs, three channels of six pixels each
    picture(axis, matrix, f"{name}: {np.count_nonzero(matrix)} entries", signed=True)
    axis.set(xlabel="input", ylabel="output")
    for line in (5.5, 11.5):
        axis.axhline(line, color=COLOURS["grey"], linewidth=0.8)
        axis.axvline(line, color=COLOURS["grey"], linewidth=0.8)
show(
    figure,
    "Figure 8.1. Three layers as matrices, on 3 channels of 6 pixels (grey lines part the channels; random weights). "
    "A full convolution has a band in every block. Depthwise keeps the blocks on the diagonal, a channel with "
    "itself; 1x1 keeps the diagonal of every block, a pixel with itself.",
    "Three 18 by 18 matrices in blocks of 6. Left, full: all nine blocks hold a band three wide. Middle, depthwise: "
    "only the three diagonal blocks hold such a band. Right, 1x1: all nine blocks hold a single diagonal.",
)

# %% [markdown]
# ## Depthwise convolution with small numbers
#
# Two channels, and a filter for each: the first takes the pixel minus its left neighbour, the second adds up a plus.

# %%
x = np.array([[0, 0, 5, 5], [0, 0, 5, 5], [0, 0, 5, 5], [9, 9, 9, 9]], float)
x = np.stack([x, x.T])[None]  # (1, 2, 4, 4)
weight = np.zeros((2, 1, 3, 3))
weight[0, 0, 1] = -1, 1, 0
weight[1, 0] = [[0, 1, 0], [1, 1, 1], [0, 1, 0]]
y = ops.depthwise_conv2d(x, weight, padding=1)

figure, axes = new_figure(2, 3, width=6.2, height=3.9, width_ratios=[4, 3, 4])
for channel in range(2):
    shown = {"picture": x[0, channel], "filter": weight[channel, 0], "result": y[0, channel]}
    for axis, (name, values) in zip(axes[channel], shown.items()):
        picture(axis, values, f"channel {channel}: {name}", signed=True, alpha=0.45)
        for (row, column), value in np.ndenumerate(values):
            axis.text(column, row, f"{value:g}", ha="center", va="center", fontsize=10)
show(
    figure,
    "Figure 8.2. A depthwise convolution with zeros around the picture. The first channel's filter finds edges "
    "between left and right, the second adds up a plus. Neither result knows of the other channel.",
    "Two rows of three grids with numbers: picture, filter, result. In the first row the result is 5 where the "
    "picture steps from 0 to 5, 9 at the left of the last row, and 0 elsewhere. In the second row it is the sum over "
    "a plus.",
)

# %% [markdown]
# The formula has no sum over channels. With stride $s$ and zeros outside the picture:
#
# $$y_{b,c,u,v} = \sum_{i,j} w_{c,0,i,j}\; x_{b,c,\,us+i-p,\,vs+j-p}
# \qquad (B, C, H, W),\ (C, 1, k, k) \rightarrow (B, C, H', W')$$
#
# As loops:


# %%
def depthwise_loops(x, weight, stride=1, padding=0):
    batch, channels, height, width = x.shape
    k = weight.shape[-1]
    rows, columns = ((n + 2 * padding - k) // stride + 1 for n in (height, width))
    y = np.zeros((batch, channels, rows, columns))
    for b, c, u, v in np.ndindex(y.shape):
        for i, j in np.ndindex(k, k):
            row, column = u * stride + i - padding, v * stride + j - padding
            if 0 <= row < height and 0 <= column < width:
                y[b, c, u, v] += weight[c, 0, i, j] * x[b, c, row, column]
    return y


assert np.array_equal(depthwise_loops(x, weight, padding=1), y)

# %% [markdown]
# A full convolution was made fast by turning it into one matrix product (lesson 2). Here there is nothing to multiply
# as matrices: each output is a sum of only $k^2$ numbers. So the package turns the loops inside out. For each of the
# $k^2$ positions of the kernel it takes the whole picture, shifted (`taps`, no copy), times one number per channel,
# and adds.

# %%
source(ops.depthwise_conv2d)

# %%
given = pytorch["depthwise/x"]
for k, stride in ((3, 1), (5, 2)):
    weight = pytorch[f"depthwise/weight{k}"]
    ours = ops.depthwise_conv2d(given, weight, stride=stride, padding=k // 2)
    agree(f"{k}x{k}, stride {stride}", ours, pytorch[f"depthwise/y{k}"])
    assert np.allclose(depthwise_loops(given, weight, stride, k // 2), ours)
    assert np.array_equal(ops.conv2d(given, weight, stride=stride, padding=k // 2, groups=3), ours)

# %% [markdown]
# The last line says what PyTorch calls it: a convolution with `groups=C`. You have met a depthwise convolution before:
# EfficientFormer's pooling mixer ([lesson 4](04_pooling_mixer.ipynb)) is one whose weights are fixed.
#
# ## The inverted bottleneck
#
# A classical bottleneck is wide outside and narrow where the 3x3 convolution works, because that one is expensive.
# With a depthwise convolution it is cheap, so the block is turned around: narrow outside, wide inside.

# %%
source(efficientnet.EfficientNetBlock, efficientnet.EfficientNetFinalBlockLayer)

# %% [markdown]
# Four steps: **widen** six times by a 1x1 convolution, **filter** each channel, **gate** the channels (next section),
# **narrow** by a 1x1 convolution. A batch norm follows every convolution but the gate's, and SiLU,
# $z \cdot \mathrm{sigmoid}(z)$, follows widening and filtering.
#
# Two details are easy to get wrong. Nothing bends after the narrowing: SiLU would flatten every negative number, and
# in a narrow map there are no spare channels to keep what it flattens. And the input is added only where it has the
# output's shape: at stride 1, in all blocks of a stage but its first.
#
# B0 block by block, its shapes and costs as `npformer.summary` counts them:

# %%
rows = {row.name: row for row in summarize(get_model("efficientnet-b0", seed=0), 224, 224)}
lines, size = [], 112
for b in block_shapes(b0):
    row = rows[f"efficientnet.encoder.blocks.{b.number}"]
    squeezed = rows[f"{row.name}.squeeze_excite.reduce"].shape[1]
    wide, adds = b.in_channels * b.expand_ratio, "no" if b.is_first or b.stride == 2 else "yes"
    kernel, after = f"{b.kernel_size}x{b.kernel_size}/{b.stride}", row.shape[2]
    lines.append([b.number, b.in_channels, size, wide, kernel, squeezed, row.shape[1], after, adds])
    lines[-1] += [row.parameters, row.multiply_adds]
    size = after
head = "block in side wide kernel/stride squeezed out side adds parameters multiply-adds"
table(head.split(), lines)
total = rows[""]
print(f"\nwhole network: {total.parameters:,} parameters, {total.multiply_adds:,} multiply-adds")
assert total.multiply_adds == VARIANTS["efficientnet-b0"].multiply_adds

# %% [markdown]
# "Squeezed" is the inner width of the gate. It is a quarter of the channels at the block's narrow *input* (80 -> 20 in
# block 6), not of the 480 that it gates: code that takes a quarter of the wide map has a layer six times too wide.
#
# **Predict, then run.** Every block filters its widest map, with kernels of 3x3 or 5x5. Which part of B0's weights,
# and of its multiply-adds, is in those depthwise filters?

# %%
kinds = {"stem, top": "top_conv", "widen": "expand_conv", "depthwise": "depthwise_conv.depthwise_conv"}
kinds |= {"gate": "squeeze_excite", "narrow": "project_conv", "classifier": "classifier"}
costs = {}
for kind, ending in kinds.items():
    chosen = [row for name, row in rows.items() if name.endswith(ending)]
    chosen += [rows["efficientnet.embeddings.convolution"]] if kind == "stem, top" else []
    costs[kind] = (sum(row.parameters for row in chosen), sum(row.multiply_adds for row in chosen))
all_weights, all_work = (sum(column) for column in zip(*costs.values()))
assert all_work == total.multiply_adds  # norms are the parameters that are not here
table(
    ["B0", "weights", "part", "multiply-adds", "part"],
    [[kind, w, f"{w / all_weights:.1%}", m, f"{m / all_work:.1%}"] for kind, (w, m) in costs.items()],
)

# %% [markdown]
# Depthwise filters are 3.5% of the weights and 9.0% of the work. Looking sideways is nearly free; what costs is mixing
# channels. A network this small also spends a quarter of its weights on the classifier for 1000 classes.

# %%
figure, (axis, bars) = new_figure(1, 2, height=2.9, width_ratios=[3, 2])
for n, b in enumerate(block_shapes(b0)):
    widths = [b.in_channels, b.in_channels * b.expand_ratio, b.out_channels]
    axis.bar([n - 0.27, n, n + 0.27], widths, 0.27, color=[COLOURS["grey"], COLOURS["blue"], COLOURS["grey"]])
axis.set(xlabel="block", ylabel="channels", xticks=range(0, 16, 3))
axis.text(1, 1010, "wide, inside a block", color=COLOURS["blue"], fontsize=9)
axis.text(1, 900, "narrow, in and out", color=COLOURS["grey"], fontsize=9)
names = list(costs)[::-1]
for offset, column, colour, label in ((0.2, 0, "orange", "weights"), (-0.2, 1, "green", "multiply-adds")):
    parts = [100 * costs[name][column] / (all_weights, all_work)[column] for name in names]
    bars.barh(np.arange(6) + offset, parts, 0.38, color=COLOURS[colour])
    bars.text(51, 5.15 + offset * 1.5, label, color=COLOURS[colour], fontsize=9, ha="right", va="center")
bars.set(yticks=range(6), yticklabels=names, xlabel="percent of B0's", xlim=(0, 52))
show(
    figure,
    "Figure 8.3. Left: channels in, inside, and out of every block of B0. What passes from block to block is narrow. "
    "Right: where its weights and its multiply-adds are.",
    "Left, bars: inside the blocks the width grows from 32 to 1152 channels, between them only from 16 to 320. "
    "Right, bars by kind of layer: widening and narrowing hold most multiply-adds, depthwise about a tenth of them "
    "and very few weights; the classifier holds a quarter of the weights and no work to speak of.",
)

# %% [markdown]
# Two blocks with random weights of order one against transformers' own: one that adds its input, and one with a 5x5
# kernel and stride 2. Their norms use an eps of 1e-3, which we come back to.


# %%
def their_block(name, shape):
    start = f"{name}/weights/"
    state = {key.removeprefix(start): value for key, value in pytorch.items() if key.startswith(start)}
    return efficientnet.EfficientNetBlock(b0, shape).astype(np.float64).load_state_dict(state)


plain = replace(next(block_shapes(b0)), in_channels=8, out_channels=8, expand_ratio=2, is_first=False)
strided = replace(plain, out_channels=12, kernel_size=5, stride=2, is_first=True)
agree("block that adds its input", their_block("plain", plain)(pytorch["plain/x"]), pytorch["plain/y"])
agree("block of stride 2", their_block("strided", strided)(pytorch["strided/x"]), pytorch["strided/y"])

# %% [markdown]
# The learned arrays of a block, as a checkpoint names them (here 8 channels, widened twice):

# %%
for key, value in their_block("plain", plain).state_dict().items():
    if not key.endswith("num_batches_tracked"):
        print(f"{key:43}{value.shape}")

# %% [markdown]
# ## Squeeze-and-excitation: the picture chooses its channels
#
# A convolution treats every picture alike. Squeeze-and-excitation lets the picture decide how much of each channel
# goes on. It takes the mean of each channel over the map (squeeze), sends these $E$ numbers through two small layers,
# and ends with a sigmoid: one gate between 0 and 1 per channel.
#
# $$g = \sigma\big(W_2\,\mathrm{SiLU}(W_1 \bar x + b_1) + b_2\big), \qquad y_{b,c,u,v} = g_{b,c}\; x_{b,c,u,v}$$
#
# with $\bar x$ of shape $(B, E)$, $W_1$ of $(S, E)$, $W_2$ of $(E, S)$. A gate sees the whole picture, yet it costs
# next to nothing, since its layers work on one vector and not on every pixel. Three channels and $S = 1$:


# %%
def gates_loops(x, reduce, reduce_bias, expand, expand_bias):  # one picture (E, H, W)
    hidden = reduce_bias.copy()  # (S,)
    for s in range(len(hidden)):
        for c in range(len(x)):
            hidden[s] += reduce[s, c] * x[c].mean()
    hidden = hidden / (1 + np.exp(-hidden))  # SiLU
    gates = np.zeros(len(x))
    for c in range(len(x)):
        gates[c] = 1 / (1 + np.exp(-(expand[c] @ hidden + expand_bias[c])))
    return gates


x = np.stack([np.full((2, 2), 1.0), [[0.0, 4], [4, 0]], [[-1.0, 1], [1, -1]]])  # (3, 2, 2)
reduce, expand = np.array([[1.0, 0.5, 3]]), np.array([[2.0], [-2], [0]])
gates = gates_loops(x, reduce, np.zeros(1), expand, np.zeros(3))
hidden = reduce @ x.mean((1, 2))
print(f"hidden {hidden[0]:g}, after SiLU {ops.silu(hidden)[0]:.2f}")
table(["channel", "mean", "gate"], [[c, f"{x[c].mean():.2f}", f"{gates[c]:.3f}"] for c in range(3)])

# %% [markdown]
# The means 1, 2 and 0 give the hidden number 1 + 0.5 · 2 + 3 · 0 = 2, which SiLU makes 1.76. Channel 0 is asked for
# and passes almost whole, channel 1 is nearly shut, and channel 2, whose weight is 0, gets the neutral gate 0.5. So a
# gate's "don't care" is one half, not one: remember that below. Note also that channel 2 has edges but a mean of 0:
# the gates cannot see them.

# %%
source(ops.squeeze_excite)

# %%
names = ["reduce.weight", "reduce.bias", "expand.weight", "expand.bias"]
layers = [pytorch[f"gate/weights/{name}"] for name in names]
agree("squeeze-and-excitation", ops.squeeze_excite(pytorch["gate/x"], *layers), pytorch["gate/y"])
by_hand = [gates_loops(some, layers[0][:, :, 0, 0], layers[1], layers[2][:, :, 0, 0], layers[3])
           for some in pytorch["gate/x"]]  # fmt: skip
assert np.allclose(np.array(by_hand)[:, :, None, None] * pytorch["gate/x"], pytorch["gate/y"])

# %% [markdown]
# ## What the gates of a trained network do
#
# `efficientnet-fashion` is B0 at half the width and half the depth: 10 blocks, pictures of 96 x 96, ten kinds of
# clothing. We let it classify 500 test pictures, and `watch` keeps all gates as they pass.

# %%
name = "efficientnet-fashion"
model, processor = get_model(name, pretrained=True), AutoImageProcessor.from_pretrained(name)
small, classes = pictures()
pixels = processor([np.stack([p] * 3, -1) for p in small], return_tensors="np")["pixel_values"]
kept = {}


def keep_gates(name, module, inputs, output, layout):
    if name.endswith("act_expand"):
        kept.setdefault(int(name.split(".")[3]), []).append(output[:, :, 0, 0])
    return output


with watch(model, keep_gates):
    guesses = np.concatenate([model(pixels[i : i + 50]).logits.argmax(-1) for i in range(0, 500, 50)])
kept = {block: np.concatenate(gates) for block, gates in kept.items()}  # each (500, E)
right = guesses == classes
error = np.sqrt(right.mean() * (1 - right.mean()) / 500)
print(f"{right.mean():.1%} right, standard error {error:.1%}")

# %% [markdown]
# **Predict, then run.** Take one gate and all pictures. Its values vary; a part of that variance is between the means
# of the ten classes, the rest within classes. If gates had nothing to do with the class, about 9 / 499 of the variance
# would be between classes, by chance. Another part follows a picture's mean brightness, about the simplest thing there
# is to know of it. In which blocks is it the class that sets the gates, in which the brightness: early or late?

# %%
brightness = pixels[:, 0].mean((1, 2))  # (500,)
parts, lines = {}, []
for block, gates in kept.items():
    means = np.array([gates[classes == c].mean(0) for c in range(10)])  # (10, E)
    slopes = [np.corrcoef(brightness, gate)[0, 1] * gate.std() for gate in gates.T]
    parts[block] = means.var(0).sum() / gates.var(0).sum(), np.square(slopes).sum() / gates.var(0).sum()
    shares = [f"{part:.0%}" for part in parts[block]]
    lines.append([block, gates.shape[1], f"{gates.mean():.2f}", f"{gates.std(0).mean():.3f}", *shares])
table(["block", "gates", "mean", "spread over pictures", "between classes", "by brightness"], lines)
print(f"by chance, between classes: {9 / 499:.0%}")
assert min(parts[8][0], parts[9][0]) > max(parts[b][0] for b in range(8))
assert parts[1][1] > 0.75 > 0.15 > max(parts[b][1] for b in range(5, 10))

# %% [markdown]
# In block 1, 83% of what the gates do is to answer to the brightness: they work like the exposure of a camera. In the
# last two blocks brightness means little, nine tenths of the variance is the class, and the gates swing far more from
# picture to picture. Hu and others found the same order in their networks: gates are general first and specific to
# classes last. (The early blocks' share between classes is partly brightness too: a sandal leaves most of its picture
# black, a coat does not.)

# %%
figure, axes = new_figure(1, 3, width=7.8, height=3.0)
labels = [model.config.id2label[c] for c in range(10)]
for axis, block in zip(axes, (1, 4, 9)):
    means = np.array([kept[block][classes == c].mean(0) for c in range(10)])
    strongest = np.argsort(means.var(0))[-40:]  # the 40 gates that differ most between classes
    strongest = strongest[np.argsort(means[:, strongest].argmax(0), kind="stable")]
    drawn = picture(axis, means[:, strongest], f"block {block}", vmin=0, vmax=1, aspect="auto")
    axis.set(yticks=range(10), yticklabels=labels if block == 1 else [""] * 10, xlabel="40 gates")
    axis.tick_params(length=0, labelsize=9)
figure.colorbar(drawn, ax=axes, label="mean gate", shrink=0.9)
show(
    figure,
    "Figure 8.4. Mean gate of each class, for the 40 gates of a block that differ most between classes, ordered by "
    "the class that opens them widest. In block 1 they stay near one half. In block 9 the gates that are open for "
    "trousers and pullovers are shut for shoes, and the other way round; for a T-shirt all stand half open.",
    "Three heat maps, classes by gates. Block 1 is nearly even. In block 4 trousers stand out. In block 9 most "
    "values are near 0 or near 1: a left group of gates is open for trousers, pullovers and coats, a right group for "
    "sandals, sneakers, bags and ankle boots.",
)

# %% [markdown]
# **Predict, then run.** How much does the network lose if its gates stop looking at the picture? Replace every gate by
# a constant: 1, as if there were no gates; one number for a whole block, its mean; the mean of each channel. A
# constant gate is easily built: let the last layer's weights be 0 and its bias the gate's inverse sigmoid,
# $\log\frac{g}{1-g}$.


# %%
def accuracy(model, pixels=pixels, classes=classes):
    fast = fuse(model)
    guesses = [fast(pixels[i : i + 100]).logits.argmax(-1) for i in range(0, len(pixels), 100)]
    return np.concatenate(guesses) == classes


def with_constant_gates(constant):
    changed = get_model(name, pretrained=True)
    for block, gates in kept.items():
        layer = changed.efficientnet.encoder.blocks[block].squeeze_excite.expand
        gate = np.clip(constant(gates.astype(np.float64)), 1e-6, 1 - 1e-6)  # (E,)
        layer.weight, layer.bias = np.zeros_like(layer.weight), np.log(gate / (1 - gate)).astype(np.float32)
    return changed


results = {"its own gates": right}
results["mean of each channel"] = accuracy(with_constant_gates(lambda gates: gates.mean(0)))
results["one mean per block"] = accuracy(with_constant_gates(lambda gates: np.full(gates.shape[1], gates.mean())))
results["all gates 1"] = accuracy(with_constant_gates(lambda gates: np.ones(gates.shape[1])))
lines = []
for gate, good in results.items():
    difference = good.astype(float) - right  # picture by picture: what both get right or wrong cancels
    paired = difference.std() / np.sqrt(500)
    lines.append([gate, f"{good.mean():.1%}", f"{difference.mean():+.1%}", f"{paired:.1%}"])
table(["gates", "right", "change", "standard error of the change"], lines)

# %% [markdown]
# Gates of 1 are ruin: the typical gate is one half, so every block hands on about twice what the batch norms behind it
# were trained for. That says nothing about attention, only about scale. A single number per block already brings back
# 90.6%. The mean of each channel, which takes no notice of the picture at all, loses 1.0% with a standard error of
# 0.6%: five hundred pictures can hardly tell it from nothing.
#
# So in this small network, what the gates *know about the picture* is worth little, however well Figure 8.4 sorts the
# classes. That something can be read off a layer does not mean that the network needs it there. (The gates may still
# have helped while it was trained; this experiment cannot say. The constants are means over the same pictures, without
# their classes.)
#
# ## One-sided padding
#
# A 3x3 convolution of stride 2 takes a picture of 6 pixels to 3. Its three windows span 7 pixels, so one zero is
# missing. PyTorch's `padding=1` puts a zero on *both* sides; the windows begin one pixel before the picture, and the
# zero behind it is never read. TensorFlow's SAME works out how many zeros are needed, and puts an odd one at the end,
# below and to the right:
#
# $$\text{total} = \max\big((\lceil n/s \rceil - 1)\,s + k - n,\ 0\big), \qquad
# \text{before} = \lfloor \text{total}/2 \rfloor, \quad \text{after} = \text{total} - \text{before}$$

# %%
table(
    ["pixels", "zeros before and after, 3x3", "5x5"],
    [[n, *(str(same_padding((n, n), k, 2)[0]) for k in (3, 5))] for n in range(5, 11)],
)

# %% [markdown]
# For odd sizes that is symmetric, PyTorch's (1, 1) and (2, 2). For even ones, and most are, it is one zero less
# before.

# %%
figure, axes = new_figure(1, 2, width=6.6, height=3.3)
for axis, before, title in zip(axes, (0, 1), ("SAME: (0, 1)", "symmetric: (1, 1)")):
    grid = np.zeros((8, 8))  # drawn with one zero on every side, used or not
    grid[1:7, 1:7] = 0.25
    starts = 2 * np.arange(3) + 1 - before
    grid[np.ix_(starts + 1, starts + 1)] = 0.8  # the windows' middles
    picture(axis, grid, title, cmap="Greys", vmin=0, vmax=1.6)
    for start, colour in zip(starts, SERIES):
        corner = (start - 0.45, start - 0.45)
        axis.add_patch(Rectangle(corner, 2.9, 2.9, fill=False, color=COLOURS[colour], linewidth=2.5))
    for row, column in np.argwhere(grid == 0):
        axis.text(column, row, "0", ha="center", va="center", fontsize=9, color=COLOURS["grey"])
show(
    figure,
    "Figure 8.5. A picture of 6 x 6 pixels (light grey) with zeros around it. A 3x3 convolution of stride 2 has nine "
    "windows; their middles are dark, and the three windows on the diagonal are outlined. SAME reads zeros below and "
    "to the right only. Symmetric padding moves all windows one pixel up and left.",
    "Two 8 by 8 grids with a 6 by 6 picture inside. On the left the first outlined window begins at the picture's "
    "top left pixel and the last reaches into the zeros below and right. On the right the first window begins in the "
    "zeros above and left, and the last ends inside the picture.",
)

# %% [markdown]
# So a symmetric convolution sees what a SAME convolution would see of the picture moved down and to the right by one
# pixel. Not nearly, but exactly, up to the last row and column, where the moved picture has lost a pixel:

# %%
x, weight = rng.normal(size=(1, 4, 10, 10)), rng.normal(size=(4, 1, 3, 3))
moved = np.zeros_like(x)
moved[:, :, 1:, 1:] = x[:, :, :-1, :-1]
symmetric = ops.depthwise_conv2d(x, weight, stride=2, padding=1)
same_of_moved = ops.depthwise_conv2d(moved, weight, stride=2, padding=same_padding((10, 10), 3, 2))
assert np.array_equal(symmetric[:, :, :4, :4], same_of_moved[:, :, :4, :4])
print("equal but for the last of", symmetric.shape[-1], "rows and columns")

# %% [markdown]
# ### Three sources, three paddings
#
# The authors trained in TensorFlow. Whoever runs their weights elsewhere has to pad like TensorFlow, and libraries
# chose differently. npformer's `config.padding` names the choice:

# %%
source(efficientnet.EfficientNetPadding)

# %% [markdown]
# - `"tf-same-dynamic"`: SAME for the picture as it comes. TensorFlow, Keras, and timm's `tf_efficientnet_*`.
# - `"symmetric"`: PyTorch's habit. timm's own `efficientnet_*` and torchvision, which trained their own weights so.
# - `"hf-static"`: transformers, and npformer's default. The zeros depend on the kernel alone, never on the picture:
#   $\lfloor k/2 \rfloor - 1$ above and left, $\lfloor k/2 \rfloor$ below and right, which is SAME for even pictures.
#   For odd ones the config lists the numbers of the blocks that will meet them, `depthwise_padding`; there it pads
#   $\lfloor k/2 \rfloor$ on all sides. The stem's zeros are fixed: one below, one to the right.
#
# PyTorch lists zeros as left, right, top, bottom. transformers' rule, recorded, for kernels 3 and 5, in blocks that
# are not listed and in those that are:

# %%
cases = [(k, listed) for k in (3, 5) for listed in (False, True)]
for (k, listed), theirs in zip(cases, pytorch["static"]):
    (top, bottom), (left, right_zeros) = efficientnet.EfficientNetPadding("hf-static", k, listed).pads(10, 10)
    assert (left, right_zeros, top, bottom) == tuple(theirs)
    print(f"{k}x{k}, {'listed:    ' if listed else 'not listed:'} left, right, top, bottom = {theirs.tolist()}")

# %% [markdown]
# The list is right for one size of picture only. For B4, made for 380 x 380, the maps are:

# %%
b4 = EfficientNetConfig.for_variant("efficientnet-b4")
size = b4.image_size
print(f"picture {size}")
size = math.ceil(size / 2)
for b in block_shapes(b4):
    if b.stride == 2:
        print(f"block {b.number:2} meets {size:3}: SAME is {same_padding((size, size), b.kernel_size, 2)[0]}")
        size = math.ceil(size / 2)
print("depthwise_padding:", b4.depthwise_padding)
assert b4.depthwise_padding == [6]

# %% [markdown]
# ### How far is one pixel?
#
# There are five convolutions of stride 2 from the picture to the last map. Moving the windows of the first by a pixel
# is a pixel of the picture. The second works on a map at half the size, where a pixel is 2, then 4, 8 and 16. If
# output $p$ of a SAME layer has its window's middle at input pixel $2p + 1$, and of a symmetric one at $2p$, we can
# follow the middle of every output of the last map back into the picture:

# %%
positions = {"SAME": np.arange(3), "symmetric": np.arange(3)}  # the last map is 3 x 3 for pictures of 96 x 96
for _ in range(5):
    positions = {"SAME": 2 * positions["SAME"] + 1, "symmetric": 2 * positions["symmetric"]}
for padding, where in positions.items():
    print(f"{padding:9}: {where} pixels from the corner, {where.mean() - 95 / 2:+} from the middle of the picture")
print("apart:", positions["SAME"][0] - positions["symmetric"][0], "=", sum(2**n for n in range(5)), "pixels")

# %%
boot = list(sample_pictures())[-2]
seen = processor(load_image(boot), return_tensors="np")["pixel_values"]  # (1, 3, 96, 96)
figure, axes = new_figure(1, 2, width=6.2, height=3.2)
for axis, (padding, where) in zip(axes, positions.items()):
    picture(axis, seen[0, 0], padding, cmap="gray", alpha=0.6)
    across, down = (grid.ravel() for grid in np.meshgrid(where, where))
    axis.scatter(across, down, s=70, color=COLOURS["orange"], zorder=3, clip_on=False)
    axis.scatter(47.5, 47.5, s=160, marker="+", color=COLOURS["ink"], linewidths=2.5, zorder=3)
    axis.set(xlim=(-5, 100), ylim=(100, -5))
show(
    figure,
    "Figure 8.6. Where the nine outputs of the last 3 x 3 map have the middle of their view, for the two paddings; "
    "the cross is the middle of the picture. Neither grid is centred; they lie 31 pixels apart.",
    "The same picture of an ankle boot twice, with a 3 by 3 grid of dots. Under SAME the dots lie towards the bottom "
    "right, the last at the picture's edge; under symmetric padding towards the top left, the first in the corner.",
)

# %% [markdown]
# Neither is centred: SAME is half a cell off to one side, symmetric padding half a cell to the other. A network does
# not mind, as long as it works with what it was trained with.
#
# **Predict, then run.** `efficientnet-fashion` was trained with transformers' one-sided zeros. What is left of its
# accuracy with symmetric ones, everywhere, or in one layer alone? Both run without any complaint, and all shapes stay
# the same.

# %%
everywhere = accuracy(get_model(name, pretrained=True, padding="symmetric")).mean()
print(f"symmetric everywhere: {everywhere:.1%} right, instead of {right.mean():.1%}\n")

places = {"stem": 1, 1: 2, 2: 4, 3: 8, 7: 16}  # the five layers of stride 2; a pixel there is so many of the picture
wrong = {}
for place, apart in places.items():
    changed = get_model(name, pretrained=True)
    bare = changed.efficientnet
    layer = bare.embeddings if place == "stem" else bare.encoder.blocks[place].depthwise_conv
    (layer.padding if place == "stem" else layer.depthwise_conv_pad).mode = "symmetric"
    wrong[apart] = accuracy(changed, pixels[:250], classes[:250]).mean()
lines = [[place, f"{apart} pixels", f"{wrong[apart]:.1%}"] for place, apart in places.items()]
table(["symmetric in block", "moves by", "right, of 250"], [["none", "0 pixels", f"{right[:250].mean():.1%}"], *lines])

# %% [markdown]
# In the stem and in blocks 1 and 2 it does not show in 250 pictures. In block 7, where a pixel is 16, it costs one
# answer in six; everywhere, two thirds of all answers. Yet nothing is infinite, no shape is wrong, and no error is
# raised.
#
# Is it really the move? Give the *right* network pictures that are moved down and to the right by as much; and the
# wrong network pictures moved up and to the left, to make up for it.


# %%
def move(pixels, by):
    """Down and right by `by` pixels, or up and left if that is below 0; background comes in."""
    moved = np.full_like(pixels, pixels.min())
    n = 96 - abs(by)
    to, start = (abs(by), 0) if by > 0 else (0, abs(by))
    moved[:, :, to : to + n, to : to + n] = pixels[:, :, start : start + n, start : start + n]
    return moved


few, their_classes = pixels[:150], classes[:150]
steps = [0, 8, 16, 24, 31]
symmetric_model = get_model(name, pretrained=True, padding="symmetric")
right_moved = [accuracy(model, move(few, by), their_classes).mean() for by in steps]
wrong_back = [accuracy(symmetric_model, move(few, -by), their_classes).mean() for by in steps]

# %%
figure, axis = new_figure(width=6.4, height=3.2)
axis.plot(steps, np.multiply(right_moved, 100), color=COLOURS["blue"])
axis.plot(steps, np.multiply(wrong_back, 100), color=COLOURS["green"])
axis.plot([*wrong, 31], [100 * part for part in (*wrong.values(), everywhere)], "o", color=COLOURS["orange"])
axis.text(11.5, 95, "symmetric in one layer", color=COLOURS["orange"], ha="left", fontsize=9)
axis.annotate("symmetric\neverywhere", (31, 100 * everywhere), (27.2, 39), color=COLOURS["orange"], fontsize=9)
axis.text(20.6, 21, "right padding,\npictures moved\ndown and right", color=COLOURS["blue"], ha="right", fontsize=9)
axis.text(1.2, 58, "symmetric everywhere,\npictures moved back", color=COLOURS["green"], fontsize=9)
axis.set(xlabel="pixels that the picture, or its windows, are moved", ylabel="percent right", ylim=(0, 104))
show(
    figure,
    "Figure 8.7. Accuracy of the right network on moved pictures (blue), with symmetric padding in one layer or in "
    "all (orange dots, at the pixels by which it moves the windows), and with symmetric padding in all layers on "
    "pictures moved back (green). 150 pictures for the lines, 250 for the dots, 500 for the last.",
    "A falling line for moved pictures, from over 90 percent to about 20 at 31 pixels. Orange dots near the top for "
    "1 to 8 pixels, lower at 16, and far lower at 31. A green line that rises from about 30 percent to about 70 at "
    "24 pixels and falls again after.",
)

# %% [markdown]
# Both lines say yes. The dots lie above the blue line where it falls, since moving the picture also pushes some of it
# out of sight, which moving the windows does not. And moving the pictures back wins much of the loss again, until at
# 31 pixels too much of the clothes is cut off.
#
# What about another size of picture? At 112 x 112 the maps have sides of 56, 28, 14 and 7, so block 7 meets an odd
# one. TensorFlow's rule pads it on both sides; transformers' static rule, made for 96, pads as it always does.

# %%
larger = processor(
    [np.stack([p] * 3, -1) for p in small[:250]], size={"height": 112, "width": 112}, return_tensors="np"
)
for padding in ("hf-static", "tf-same-dynamic"):
    changed = get_model(name, pretrained=True, padding=padding)
    last = changed.efficientnet(larger["pixel_values"][:1]).last_hidden_state.shape
    good = accuracy(changed, larger["pixel_values"], classes[:250])
    print(f"{padding:15} {good.mean():.1%} of 250 right, last map {last[2]} x {last[3]}")

# %% [markdown]
# For these weights transformers' rule is the better one: they never saw a symmetric window, and where SAME changes
# sides, it moves block 7's view by 16 pixels. No padding is right in itself; right is the one that the weights grew up
# with. Google's weights were trained with SAME, so at a size that `depthwise_padding` was not made for, the faithful
# choice for them is `"tf-same-dynamic"`.
#
# ## Compound scaling
#
# B0 is the small network. What is the best use of twice the computing? Deeper, wider, or larger pictures? Each alone
# soon stops to pay, the authors found, and all three together go further. With one number $\varphi$ for the budget:
#
# $$\text{depth} = 1.2^{\varphi}, \quad \text{width} = 1.1^{\varphi}, \quad \text{resolution} = 1.15^{\varphi}$$
#
# Multiply-adds grow with depth, with the *square* of the width (channels in times channels out) and with the square of
# the resolution (rows times columns), so a step of $\varphi$ costs about twice as much.

# %%
DEPTH, WIDTH, RESOLUTION = 1.2, 1.1, 1.15  # found by a small grid search on B0: section 5.1 of the paper
print(f"one step: {DEPTH * WIDTH**2 * RESOLUTION**2:.2f} times the multiply-adds")

# %% [markdown]
# Channels and blocks are whole numbers, so somebody has to round. Channels go to the nearest multiple of 8, which
# suits vector units, but never below nine tenths of what was asked for; blocks are rounded up.

# %%
source(round_filters, round_repeats)

# %%
for channels, width in ((32, 1.1), (40, 1.1), (16, 1.2), (16, 1.4)):
    wide = channels * width
    print(f"{channels} x {width} = {wide:.1f} -> {round_filters(channels, width)}   (nine tenths: {0.9 * wide:.2f})")
repeats = b0.num_block_repeats
deeper = [round_repeats(n, 1.1) for n in repeats]
print(
    f"blocks: {repeats} x 1.1 -> {deeper}; together {sum(repeats)} x 1.1 = {sum(repeats) * 1.1:.1f} -> {sum(deeper)}"
)

# %% [markdown]
# The third line is B3's first stage: 19.2 is nearest to 16, but that is less than 17.28, so it becomes 24.
#
# Now all the published networks. A config is enough to count multiply-adds; no network has to run:


# %%
def multiply_adds(config):
    side = math.ceil(config.image_size / 2)
    total = side**2 * 9 * config.num_channels * config.round_filters(32)  # the stem
    for b in block_shapes(config):
        wide, squeezed = b.in_channels * b.expand_ratio, int(b.in_channels * config.squeeze_expansion_ratio)
        total += side**2 * b.in_channels * wide * (b.expand_ratio > 1)  # widen
        side = math.ceil(side / b.stride)
        total += side**2 * b.kernel_size**2 * wide  # depthwise
        total += 2 * wide * squeezed + side**2 * wide * b.out_channels  # gate, narrow
    return total + side**2 * b.out_channels * config.hidden_dim + config.hidden_dim * config.num_labels


nets = {n: efficientnet.VARIANTS[f"efficientnet-b{n}"] for n in range(8)}
configs = {n: EfficientNetConfig.for_variant(f"efficientnet-b{n}", num_labels=1000) for n in nets}
work = {n: multiply_adds(config) for n, config in configs.items()}
assert all(work[n] == VARIANTS[f"efficientnet-b{n}"].multiply_adds for n in nets)

# %% [markdown]
# `npformer` keeps the published coefficients in [one table](../npformer/models/efficientnet.py). From each we can work
# out which $\varphi$ it stands for, $\log(\text{depth}) / \log 1.2$ and so on. By the rule the three are equal.

# %%
lines = []
for n, net in nets.items():
    phis = (math.log(net.depth, DEPTH), math.log(net.width, WIDTH), math.log(net.resolution / 224, RESOLUTION))
    known = VARIANTS[f"efficientnet-b{n}"]
    blocks = len(list(block_shapes(configs[n])))
    costs = f"{known.parameters / 1e6:.1f}", f"{work[n] / 1e9:.2f}", known.top1
    lines.append([f"B{n}", net.resolution, net.width, net.depth, blocks, *(f"{phi:.1f}" for phi in phis), *costs])
head = "net|side|width|depth|blocks|phi of depth|of width|of side|parameters, M|multiply-adds, G|top-1, %"
table(head.split("|"), lines)

# %%
x = np.array(list(nets))
actual = np.array([work[n] / work[0] for n in nets])
rule = np.array([net.depth * net.width**2 * (net.resolution / 224) ** 2 for net in nets.values()])
narrow_rule = np.array([net.depth * net.width**2 for net in nets.values()])
weights = np.array([VARIANTS[f"efficientnet-b{n}"].parameters for n in nets])
figure, (left, middle, far) = new_figure(1, 3, width=8.0, height=3.0)
left.plot(x, 2.0**x, color=COLOURS["grey"])
left.text(3.7, 21, "$2^n$", color=COLOURS["grey"], ha="right")
left.plot(x, actual, "o", color=COLOURS["blue"])
left.set(xlabel="n of B$n$", ylabel="multiply-adds over B0's", yscale="log", xticks=x)
for axis, real, expected in ((middle, actual, rule), (far, weights / weights[0], narrow_rule)):
    axis.plot([1, max(real)], [1, max(real)], color=COLOURS["grey"])
    axis.plot(expected, real, "o", color=COLOURS["blue"])
    for n in (1, 2, 3, 4, 7):
        axis.annotate(f"B{n}", (expected[n], real[n]), (-6, 5), textcoords="offset points", ha="right", fontsize=9)
    axis.set(xscale="log", yscale="log", xlim=(0.55, None))
middle.set(xlabel="depth · width² · side²", ylabel="multiply-adds over B0's")
far.set(xlabel="depth · width²", ylabel="parameters over B0's")
show(
    figure,
    "Figure 8.8. Left: multiply-adds of B0 to B7, against doubling with each step. Middle and right: what their own "
    "coefficients predict (on the grey line prediction and truth are equal), for multiply-adds and for parameters.",
    "Three plots with logarithmic axes, points for B0 to B7. Left, the points lie below the line of powers of two, "
    "furthest at B3 and B2. Middle and right, the points lie above the line of equality, B1 furthest, and come close "
    "to it as the networks grow.",
)
for n in (1, 3, 7):
    told = f"its coefficients say {rule[n]:.2f} (off by {actual[n] / rule[n] - 1:.0%}), its number {2**n}"
    print(f"B{n}: {actual[n]:.2f} times B0's multiply-adds; {told}")

# %% [markdown]
# The coefficients predict the cost of B7, nearly a hundred times B0's, to within 10%. Look closer and the networks are
# finished by hand: the three $\varphi$ of a network drift apart, and the number in its name is none of them. B2's are
# about 1; B7's are 6.2, 7.3 and 7.0.
#
# B1 stands out, 41% above what its coefficients say. They ask for 1.1 times the depth, and each of the seven stages
# rounds *up*: 16 blocks become 23, and not 17.6. The smaller the network, the dearer it is to round.
#
# What does about a doubling buy, done in other ways? Larger pictures need no new parameters, the other ways do:

# %%
ways = {
    "B0": {}, "twice as deep": {"depth_coefficient": 2.0}, "wider": {"width_coefficient": 1.4},
    "larger pictures": {"image_size": 316},
    "all three": {"depth_coefficient": DEPTH, "width_coefficient": WIDTH, "image_size": 258},
}  # fmt: skip
lines = []
for way, changes in ways.items():
    network = get_model("efficientnet-b0", seed=0, **changes)
    grown = multiply_adds(network.config)
    lines.append([way, f"{network.num_parameters() / 1e6:.2f}", f"{grown / 1e9:.3f}", f"{grown / work[0]:.2f}"])
table(["B0 grown", "parameters, M", "multiply-adds, G", "over B0's"], lines)

# %% [markdown]
# The compound step takes more than its share, for the reason that we have just seen: with so few blocks in a stage,
# 1.2 times the depth is rounded up to much more.
#
# ## Two settings that travel with the weights
#
# **The batch norms' eps is 1e-3**, TensorFlow's, where PyTorch's default is 1e-5 (timm's own EfficientNets and
# torchvision's smaller ones use that). Eps matters only beside small variances, and after a depthwise convolution they
# are small. With the wrong eps the trained network loses so little that its accuracy hardly shows it, which is the
# hardest kind of mistake to notice:

# %%
depthwise_variances = np.concatenate(
    [value for key, value in model.state_dict().items() if key.endswith("depthwise_norm.running_var")]
)
print(
    f"variances after depthwise: smallest {depthwise_variances.min():.4f}, median {np.median(depthwise_variances):.3f}"
)
other = accuracy(get_model(name, pretrained=True, batch_norm_eps=1e-5))
print(f"eps 1e-3: {right.mean():.1%} right; eps 1e-5: {other.mean():.1%}")

# %% [markdown]
# **The processor divides by the standard deviation twice** ([lesson 1](01_picture_to_tensor.ipynb)). Keras' network
# holds a division by the root of the deviation, which transformers' processor imitates with `include_top`; so its
# `image_std` is the root, and dividing twice is dividing once by the deviation itself.

# %%
std = processor.image_std[0]
grey = np.full((96, 96, 3), 200, np.uint8)
value = processor(grey, return_tensors="np")["pixel_values"][0, 0, 0, 0]
print(f"image_std {std:.4f}, its square {std**2:.3f}; a pixel of 200 becomes {value:.4f}")
assert np.isclose(value, (200 / 255 - 0.286) / std / std)

# %% [markdown]
# ## A real picture, all the way
#
# First the whole network, in float64, against transformers' on two shipped pictures:

# %%
two = processor([load_image(path) for path in list(sample_pictures())[:2]], return_tensors="np")["pixel_values"]
agree("logits", model.astype(np.float64)(two.astype(np.float64)).logits, pytorch["logits"], 1e-11)

# %% [markdown]
# Then the boot. Block 1 has 48 wide channels of 24 x 24 pixels after its depthwise filters. We draw the three with the
# widest gates and the three with the narrowest, before and after the gates.

# %%
trace = record(model, seen)
start = "efficientnet.encoder.blocks.1."
before, after = trace[start + "depthwise_conv"][0], trace[start + "squeeze_excite"][0]  # (48, 24, 24)
gates = trace[start + "squeeze_excite.act_expand"][0, :, 0, 0]
order = np.argsort(-gates)[[0, 1, 2, -3, -2, -1]]
figure, axes = new_figure(2, 7, width=8.0, height=2.7)
for column, channel in enumerate(order, 1):
    limit = np.abs(before[channel]).max()
    picture(axes[0, column], before[channel], f"gate {gates[channel]:.2f}", signed=True)
    picture(axes[1, column], after[channel], signed=True, vmin=-limit, vmax=limit)
picture(axes[0, 0], seen[0, 0], "picture", cmap="gray")
picture(axes[1, 0], trace["efficientnet.embeddings"][0, 0], "stem", signed=True)
show(
    figure,
    "Figure 8.9. An ankle boot in block 1 of the trained network: six of its 48 wide channels after the depthwise "
    "filters (above) and after the gates (below), each pair on one colour scale. White is 0.",
    "Left the picture of an ankle boot and one channel of the stem. Then six pairs of maps in which outlines, edges "
    "or surfaces of the boot show in red and blue; below each pair's upper map the same map paler, palest on the "
    "right, where gates are small.",
)

# %% [markdown]
# Even the widest gate is not 1, and the narrowest leave a faint copy: here gates turn channels up and down, they do
# not switch them off.
#
# And the projections? With nothing to bend after them, their results should be negative about as often as positive.
# That is what a SiLU in that place would flatten:

# %%
negative = [(trace[f"efficientnet.encoder.blocks.{n}.projection.project_bn"] < 0).mean() for n in range(10)]
print("negative after the projection, block by block:", ", ".join(f"{part:.0%}" for part in negative))

# %% [markdown]
# ## Cheap to count, less cheap to run
#
# Depthwise convolutions save multiply-adds. Do they save time by as much? A layer must also fetch its numbers from
# memory. A 1x1 convolution uses each number that it fetches for many multiply-adds; a depthwise one uses it for $k^2$
# at most. Shapes of block 6 of B0 again, with random weights:

# %% tags=["timing"]
layers = {
    "widen, 1x1": (480, 80, 1, 1), "depthwise 3x3": (480, 1, 3, 3), "narrow, 1x1": (80, 480, 1, 1),
    "full 3x3, 480 -> 80": (80, 480, 3, 3),
}  # fmt: skip
functions, facts = {}, {}
for layer, shape in layers.items():
    groups = 480 if shape[1] == 1 else 1
    x, weight = (rng.normal(size=s).astype(np.float32) for s in ((1, shape[1] * groups, 14, 14), shape))
    functions[layer] = lambda x=x, w=weight, g=groups: ops.conv2d(x, w, padding=w.shape[2] // 2, groups=g)
    result = functions[layer]()
    facts[layer] = result.size * weight[0].size, x.size + weight.size + result.size  # multiply-adds, numbers touched
seconds = times(functions, rounds=15)
lines = [
    [layer, f"{n / 1e6:.2f}", f"{n / touched:.1f}", f"{1e3 * seconds[layer]:.2f}", f"{n / seconds[layer] / 1e9:.1f}"]
    for layer, (n, touched) in facts.items()
]
table(["layer", "multiply-adds, M", "for each number touched", "ms", "G multiply-adds / s"], lines)

# %% [markdown]
# The depthwise layer has the fewest multiply-adds by far, and a far lower rate than the 1x1 layers: it does only a few
# for each number that it touches, and the readable op walks over its map twice for each of the nine positions of the
# kernel. Depthwise and narrowing together have an eighth of the full convolution's multiply-adds, and take a much
# larger part of its time. `npformer.fuse` does better by keeping a few channels in the cache from the widening to the
# gate, but no trick gives a depthwise layer more than a few multiply-adds for a number. Counting multiply-adds alone
# misjudges such networks, which is where EfficientFormer began: [lesson 10](10_latency.ipynb).
#
# And the loops we started from, on a small map:

# %% tags=["timing"]
x, weight = rng.normal(size=(1, 4, 14, 14)), rng.normal(size=(4, 1, 3, 3))
seconds = times(
    {
        "loops": lambda: depthwise_loops(x, weight, padding=1),
        "ops.depthwise_conv2d": lambda: ops.depthwise_conv2d(x, weight, padding=1),
    },
    rounds=3,
)
table(["4 channels of 14 x 14", "ms"], [[way, f"{1e3 * value:.3f}"] for way, value in seconds.items()])

# %% [markdown]
# ## Exercises
#
# ### Exercise 8.1: depthwise by shifting
#
# Write `depthwise(x, weight)` for one picture `x` (C, H, W) and filters `weight` (C, k, k), k odd, stride 1, zeros
# around the picture so that the size stays. Loop over the kernel only, as the package does: no loop over pixels or
# channels. A 1x1 kernel of ones gives back `x`.


# %% tags=["exercise"]
def depthwise(x, weight):
    """(C, H, W), (C, k, k) -> (C, H, W)"""
    ...


# %% tags=["check"]
checks.depthwise(depthwise)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `np.pad(x, ((0, 0), (h, h), (h, h)))` with `h = k // 2` surrounds each channel with zeros. Position (i, j) of the
# kernel meets the window of the padded picture that begins at row i, column j and is as large as x.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def depthwise(x, weight):
#     k, (height, width) = weight.shape[-1], x.shape[1:]
#     padded = np.pad(x, ((0, 0), (k // 2, k // 2), (k // 2, k // 2)))
#     y = np.zeros(x.shape)
#     for i in range(k):
#         for j in range(k):
#             y += weight[:, i, j, None, None] * padded[:, i : i + height, j : j + width]
#     return y
# ```
#
# Each of the $k^2$ steps is one multiplication and one addition of whole maps, which NumPy does at full speed.
#
# </details>

# %% [markdown]
# ### Exercise 8.2: the gates
#
# Write `gates(x, reduce, reduce_bias, expand, expand_bias)` for a batch `x` (B, E, H, W), with the 1x1 layers as
# matrices: `reduce` (S, E), `expand` (E, S). Return the gates, (B, E), without applying them. With all weights and
# biases 0 every gate is 0.5.


# %% tags=["exercise"]
def gates(x, reduce, reduce_bias, expand, expand_bias):
    """(B, E, H, W), (S, E), (S,), (E, S), (E,) -> (B, E)"""
    ...


# %% tags=["check"]
checks.gates(gates)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Four steps: mean over the last two axes, first layer and SiLU, second layer, sigmoid. For a batch of vectors as rows,
# a layer is `vectors @ weight.T + bias`. `ops.silu` and `ops.sigmoid` are there.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def gates(x, reduce, reduce_bias, expand, expand_bias):
#     squeeze = x.mean(axis=(2, 3))  # (B, E)
#     hidden = ops.silu(squeeze @ reduce.T + reduce_bias)  # (B, S)
#     return ops.sigmoid(hidden @ expand.T + expand_bias)  # (B, E)
# ```
#
# Every picture of the batch has gates of its own: this is the only place in the network where the weights of a layer
# depend, in effect, on the picture.
#
# </details>

# %% [markdown]
# ### Exercise 8.3: how many zeros?
#
# Write `same_amounts(n, k, s)`: TensorFlow's SAME along one axis, for `n` pixels, a kernel of `k`, a stride of `s`.
# Return `(before, after)`, so that the output has $\lceil n / s \rceil$ pixels: `same_amounts(6, 3, 2)` is `(0, 1)`.


# %% tags=["exercise"]
def same_amounts(n, k, s):
    """-> (before, after), two whole numbers"""
    ...


# %% tags=["check"]
checks.same_amounts(same_amounts)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Let `count` be the number of outputs, rounded up (`-(-n // s)`). The last window begins at `(count - 1) * s` and
# spans k pixels: how many of them lie beyond n? Mind that a small kernel with a large stride may leave pixels over.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def same_amounts(n, k, s):
#     count = -(-n // s)
#     total = max((count - 1) * s + k - n, 0)
#     return total // 2, total - total // 2
# ```
#
# That the odd zero goes last is a convention; nothing in the mathematics asks for it, and all weights trained with
# TensorFlow depend on it.
#
# </details>

# %% [markdown]
# ### Exercise 8.4: rounding channels
#
# Write `filters(channels, width)`: scaled channels to the nearest multiple of 8 (a half goes up), at least 8, and one
# step of 8 more if that would be less than nine tenths of `channels * width`. `filters(32, 1.1)` is 32, `filters(16,
# 1.2)` is 24.


# %% tags=["exercise"]
def filters(channels, width):
    """-> a whole number"""
    ...


# %% tags=["check"]
checks.rounding(filters)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Adding half a step and then rounding down rounds to the nearest: `int(wide + 4) // 8 * 8`. Python's own `round` takes
# a half to the even neighbour.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def filters(channels, width):
#     wide = channels * width
#     rounded = max(8, int(wide + 4) // 8 * 8)
#     return rounded + 8 if rounded < 0.9 * wide else rounded
# ```
#
# Every shape of every checkpoint from B0 to B8 follows from these three lines and `ceil`.
#
# </details>

# %% [markdown]
# ### Exercise 8.5: a whole block
#
# Write `inverted_bottleneck(x, weights, stride, adds_input)`: an EfficientNet block from its state dict. `x` is (B, C,
# H, W) with even H and W; `weights` has the names listed under "The inverted bottleneck". Kernels are 3x3 or 5x5,
# norms have eps 1e-3, padding at stride 2 is transformers' for blocks that are not listed, at stride 1 it keeps the
# size. You may use `npformer.ops`.


# %% tags=["exercise"]
def inverted_bottleneck(x, weights, stride, adds_input):
    """(B, C, H, W) -> (B, C', H / stride, W / stride)"""
    ...


# %% tags=["check"]
checks.inverted_bottleneck(inverted_bottleneck)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Write a small function first that applies the norm of a given name: `ops.batch_norm(x, running_mean, running_var,
# weight, bias, eps)`. Then follow the four steps. The kernel's side is the last number of the depthwise weight's
# shape. `ops.squeeze_excite` takes the map and the four arrays of the gate, and applies the gates too.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def inverted_bottleneck(x, weights, stride, adds_input):
#     def norm(x, name):
#         names = ("running_mean", "running_var", "weight", "bias")
#         return ops.batch_norm(x, *(weights[f"{name}.{n}"] for n in names), 1e-3)
#
#     wide = ops.silu(norm(ops.conv2d(x, weights["expansion.expand_conv.weight"]), "expansion.expand_bn"))
#     kernel = weights["depthwise_conv.depthwise_conv.weight"]
#     half = kernel.shape[-1] // 2
#     padding = half if stride == 1 else ((half - 1, half), (half - 1, half))
#     filtered = ops.depthwise_conv2d(wide, kernel, stride=stride, padding=padding)
#     filtered = ops.silu(norm(filtered, "depthwise_conv.depthwise_norm"))
#     gate = ("reduce.weight", "reduce.bias", "expand.weight", "expand.bias")
#     gated = ops.squeeze_excite(filtered, *(weights[f"squeeze_excite.{name}"] for name in gate))
#     narrow = norm(ops.conv2d(gated, weights["projection.project_conv.weight"]), "projection.project_bn")
#     return narrow + x if adds_input else narrow
# ```
#
# Put a stem in front, repeat this 16 times with the shapes of the table above, add a 1x1 convolution, a mean and a
# linear layer, and you have B0.
#
# </details>

# %% [markdown]
# ## Further reading
#
# - Tan, Le 2019, [EfficientNet: Rethinking Model Scaling for Convolutional Neural
#   Networks](https://arxiv.org/abs/1905.11946): section 3.3 is compound scaling, Table 1 is B0, section 5.1 has the
#   search for 1.2, 1.1 and 1.15.
# - Sandler and others 2018, [MobileNetV2: Inverted Residuals and Linear
#   Bottlenecks](https://arxiv.org/abs/1801.04381): where the block comes from, and why nothing bends after the
#   projection.
# - Hu and others 2018, [Squeeze-and-Excitation Networks](https://arxiv.org/abs/1709.01507): section 7.2 looks at gates
#   by class.
# - Howard and others 2017, [MobileNets](https://arxiv.org/abs/1704.04861): depthwise separable convolution and its
#   cost.
# - In this package: [`models/efficientnet.py`](../npformer/models/efficientnet.py), a whole network in one file, and
#   `same_padding` in [`ops/window.py`](../npformer/ops/window.py).
#
# Next: [lesson 9, SwiftFormer](09_swiftformer.ipynb)
