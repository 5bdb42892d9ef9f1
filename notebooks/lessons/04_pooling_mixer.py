# %% [markdown]
# # 4. The pooling token mixer
#
# After this lesson you can say what a token mixer is, compute EfficientFormer's mixer by hand (the mean of a
# neighbourhood, minus the pixel), build the whole pooling block around it, and measure how far it carries information.
# You will also have taken the mixers out of a trained network, and know what that proves and what it does not.
#
# You need: lessons [2](02_convolution.ipynb) (convolution, depthwise) and [3](03_normalisation.ipynb) (batch norm).
# Time: about 25 minutes.

# %%
import numpy as np
from course import COLOURS, SERIES, agree, new_figure, picture, pictures, recorded, show, source, table, times
from course.checks import lesson_04 as checks

import npformer
from npformer import ops
from npformer.models import efficientformer

# %% [markdown]
# ## Why it exists
#
# A network that looks at pictures has two things to mix. It must mix **channels**: combine "there is an edge here" and
# "it is dark here" into something new, at one place. And it must mix **places**: let a pixel learn what is beside it.
# A place on a feature map is called a *token* when its channels are thought of as one vector, so the part that lets
# places exchange information is the *token mixer*.
#
# A transformer block is built exactly so. Its mixer is attention, which lets every token look at every other. After it
# comes an MLP, which treats every token alone. Each of the two is a *residual* branch: its result is added to what
# came in. Both branches have a norm somewhere, and in our networks a learned factor per channel, the *layer scale*.
#
# Attention is the famous part, and the expensive one: $N$ tokens make $N^2$ pairs. How many would that be on the maps
# of EfficientFormer-L1?

# %%
config = efficientformer.EfficientFormerConfig.for_variant("efficientformer-l1")
sides = [56, 28, 14, 7]  # a 224 x 224 picture after the stem, and after each downsampling
rows = [(stage + 1, width, f"{side} x {side}", side**2, f"{side**4:,}", f"{9 * side**2:,}")
        for stage, (side, width) in enumerate(zip(sides, config.hidden_sizes, strict=True))]  # fmt: skip
table(["stage", "channels", "map", "tokens N", "pairs N^2", "pairs in 3 x 3"], rows)

# %% [markdown]
# Yu and others asked how much of a transformer's success is owed to attention at all. They put the plainest
# mixer they could think of in its place: replace each pixel by the mean of its 3 x 3 neighbourhood. It has nothing to
# learn. The network, PoolFormer, was as good as well-tuned transformers of its size. Their claim:
# it is the architecture around the mixer, which they call *MetaFormer*, that does most of the work.
#
# EfficientFormer took that at its word. In its first three stages, where the maps are large, it pools; only in the
# last, with 7 x 7 = 49 tokens, it can afford attention.


# %%
def draw_block(axes, steps, title):
    axes.set(xlim=(-0.4, 9.6), ylim=(-0.55, 1.25))
    axes.axis("off")
    axes.text(-0.4, 1.2, title, va="center", weight="bold")
    axes.annotate("", (9.6, 0), (0, 0), arrowprops={"arrowstyle": "-|>", "color": COLOURS["ink"]})
    for place, (text, colour) in enumerate(steps):
        if text:
            box = {"boxstyle": "round,pad=0.35", "facecolor": "white", "edgecolor": COLOURS[colour], "lw": 1.6}
            axes.text(place, 0, text, ha="center", va="center", fontsize=8, bbox=box)
    for start, end in ((0.45, 4), (4.45, 9)):  # the residuals go around a branch
        axes.plot([start, start, end], [0, 0.75, 0.75], color=COLOURS["grey"], lw=1)
        axes.annotate("", (end, 0.2), (end, 0.77), arrowprops={"arrowstyle": "-|>", "color": COLOURS["grey"]})


MLP, SCALE, PLUS, NOTHING = ("MLP", "blue"), ("x scale", "blue"), ("+", "grey"), ("", "")

# %%
figure, axes = new_figure(2, height=2.9)
attention = [("x", "grey"), ("layer\nnorm", "blue"), ("attention", "orange"), SCALE, PLUS,
             ("layer\nnorm", "blue"), MLP, NOTHING, SCALE, PLUS]  # fmt: skip
pooling = [("x", "grey"), NOTHING, ("3 x 3 mean\n- x", "orange"), SCALE, PLUS,
           NOTHING, ("MLP with\nbatch norms", "blue"), NOTHING, SCALE, PLUS]  # fmt: skip
draw_block(axes[0], attention, "Attention block, on tokens (B, N, D)")
draw_block(axes[1], pooling, "Pooling block, on maps (B, C, H, W)")
show(
    figure,
    "Figure 4.1. Two blocks of EfficientFormer. The mixer (orange) differs; the frame around it is the same.",
    "Two rows of boxes joined by a line. Above: x, layer norm, attention, scale, plus, layer norm, MLP, scale, "
    "plus. Below: x, three by three mean minus x, scale, plus, MLP with batch norms, scale, plus. An arrow leads "
    "around the mixer and another around the MLP.",
)

# %% [markdown]
# ## Average pooling, with small numbers
#
# Take a map of 4 x 4 pixels. Every pixel becomes the mean of the 3 x 3 window around it. In the middle a window has
# nine pixels. At an edge it overhangs, and only six of its pixels exist; in a corner, only 2 x 2 = 4. What should the
# sum be divided by there?
#
# EfficientFormer divides by the pixels that exist. PyTorch calls this `count_include_pad=False`, and it is *not* the
# default: by default the padding counts as if it were nine real pixels of which five are zero, and a corner's mean
# comes out at less than half of what it should be.

# %%
small = 36.0 * np.array([[1, 1, 2, 2], [1, 1, 2, 2], [1, 5, 2, 2], [1, 1, 2, 2]])  # 36 divides by 4, 6 and 9
mean = ops.avg_pool2d(small[None, None], 3, stride=1, padding=1, count_include_pad=False)[0, 0]
padded = ops.avg_pool2d(small[None, None], 3, stride=1, padding=1, count_include_pad=True)[0, 0]
total = padded * 9  # what every window adds up to
divisors = total / mean
print(divisors.astype(int))


# %%
def numbers(axes, values, title, **options):
    picture(axes, values, title, **options)
    limit = options.get("vmax", np.abs(values).max())
    for (y, column), value in np.ndenumerate(values):
        dark = options.get("cmap", "viridis") == "viridis" and value < 0.6 * limit
        axes.text(column, y, f"{value:.0f}", ha="center", va="center", fontsize=9, color="white" if dark else "black")


figure, axes = new_figure(2, 4, height=4.1)
top, grey, change = (
    {"vmin": 0, "vmax": 180},
    {"cmap": "Greys", "vmin": 0, "vmax": 16},
    {"cmap": "RdBu_r", "vmin": -250, "vmax": 250},
)
for row, shown, how, by in (
    (axes[0], mean, "only real pixels", divisors),
    (axes[1], padded, "padding too", 9 + 0 * small),
):
    numbers(row[0], small, "x", **top)
    numbers(row[1], by, f"counted:\n{how}", **grey)
    numbers(row[2], shown, "mean", **top)
    numbers(row[3], shown - small, "mean - x", **change)
show(
    figure,
    "Figure 4.2. A 4 x 4 map pooled by hand. Above as EfficientFormer does it (count_include_pad=False), below "
    "with PyTorch's default: the inner four agree, the border comes out too dark.",
    "Two rows of four grids of numbers: the map x, how many pixels each window counts, the mean, and the mean "
    "minus x. In the upper row the counts are 4 in corners, 6 at edges, 9 inside. In the lower they are 9 "
    "everywhere and the means at the border are much smaller.",
)

# %% [markdown]
# Follow one corner. The upper left window holds four real pixels of 36 each, 144 in all. Divided by 4 the mean is 36,
# and mean minus x is 0: nothing changes where nothing changes around. Divided by 9 it is 16, and the mixer would
# report a difference of -20 that is not in the picture at all. It comes from the border.

# %%
print("corner:", small[:2, :2].sum(), "/ 4 =", mean[0, 0], "   / 9 =", padded[0, 0], "   minus x:", padded[0, 0] - 36)
assert (divisors == np.outer([2, 3, 3, 2], [2, 3, 3, 2])).all()

# %% [markdown]
# The assertion holds a small observation that we shall need: the map of divisors is the product of a column, how many
# rows are real, and a row, how many columns are real.
#
# ## Why minus x
#
# The mixer is not the mean, but
#
# $$\mathrm{mixer}(x)_{c,y,u} \;=\; \frac{1}{|W_{y,u}|} \sum_{(i,j)\,\in\,W_{y,u}} x_{c,i,j} \;-\; x_{c,y,u}
# \qquad (B, C, H, W) \to (B, C, H, W)$$
#
# where $W_{y,u}$ are the pixels of the window around $(y, u)$ that exist. The reason stands outside of the mixer: the
# block adds $x$ back. With a layer scale $s$ the sum is
#
# $$x + s\,(\mathrm{mean} - x) \;=\; (1 - s)\,x + s\,\mathrm{mean}.$$
#
# So $s$ is a slider between the pixel and the mean of its surroundings. At 0 nothing happens, at 1 only the mean is
# left. Below 0 the slider leaves the track on the other side: each pixel moves *away* from its surroundings, and the
# picture is sharpened. Without the subtraction the block would add a blurred copy on top of the picture, and flat
# regions would grow from block to block.

# %%
path = next(path for path, label in npformer.assets.sample_pictures().items() if label == "Sneaker")
sneaker = np.asarray(npformer.load_image(path).convert("L"), np.float64)  # (28, 28)
slider = [-1.0, 0.0, 0.5, 1.0]
slid = [sneaker + s * ops.pool_mixer(sneaker[None, None])[0, 0] for s in slider]
doubled = sneaker + ops.avg_pool2d(sneaker[None, None], 3, 1, 1, count_include_pad=False)[0, 0]

figure, axes = new_figure(1, 5, height=1.95)
for place, s, shown in zip(axes, slider, slid, strict=False):
    picture(place, shown, f"s = {s:g}\n{shown.min():.0f} to {shown.max():.0f}", cmap="gray", vmin=0, vmax=255)
picture(axes[4], doubled, f"x + mean\n{doubled.min():.0f} to {doubled.max():.0f}", cmap="gray", vmin=0, vmax=255)
show(
    figure,
    "Figure 4.3. x + s (mean - x) on a picture of 28 x 28 pixels, drawn from black at 0 to white at 255: "
    "sharpened, unchanged, half blurred, the mean. On the right without the subtraction: everything twice as "
    "bright.",
    "Five pictures of a sneaker. The first has hard edges, the second is the original, the third and fourth are "
    "more and more blurred, and in the fifth most of the shoe is burnt out to white.",
)

# %% [markdown]
# ## As loops
#
# Written down without any trick, for one channel:


# %%
def pool_mixer_loops(x):  # (H, W) -> (H, W)
    height, width = x.shape
    out = np.zeros_like(x)
    for y in range(height):
        for u in range(width):
            total, count = 0.0, 0
            for i in range(y - 1, y + 2):
                for j in range(u - 1, u + 2):
                    if 0 <= i < height and 0 <= j < width:
                        total += x[i, j]
                        count += 1
            out[y, u] = total / count - x[y, u]
    return out


assert np.allclose(pool_mixer_loops(small), mean - small)

# %% [markdown]
# ## As the package does it

# %%
source(ops.pool_mixer, ops.avg_pool2d)

# %% [markdown]
# The sum over a window is computed axis by axis: first each column adds three neighbours, then each row adds three of
# those sums. The divisors come from two short vectors, and `np.outer` makes the map of Figure 4.2 from them. What
# PyTorch and transformers computed for the same input was recorded beforehand:

# %%
theirs = recorded(4)
x = theirs["small"]
agree(
    "AvgPool2d(3, 1, 1, count_include_pad=False)", ops.avg_pool2d(x, 3, 1, 1, count_include_pad=False), theirs["mean"]
)
agree("AvgPool2d(3, 1, 1)", ops.avg_pool2d(x, 3, 1, 1), theirs["mean_padded"])
agree("transformers' EfficientFormerPooling(3)", ops.pool_mixer(x), theirs["mixed"])
agree("our loops", np.array([[pool_mixer_loops(plane) for plane in maps] for maps in x]), theirs["mixed"])

# %% [markdown]
# **Predict, then run.** What does the mixer make of a picture in which every pixel is 1, of 5 x 6 pixels? And what, if
# the padding counted too? Write down the corner, the edge and the middle for both before you go on.

# %%
flat = np.ones((1, 1, 5, 6))
print("real pixels only:\n", ops.pool_mixer(flat)[0, 0])
print("padding counts:\n", (ops.avg_pool2d(flat, 3, 1, 1) - flat)[0, 0].round(3))

# %% [markdown]
# The mean of equal numbers is that number, so the mixer gives 0 everywhere: it reports differences, and there are
# none. With the padding counted, corners get 4/9 - 1 and edges 6/9 - 1: the network would be told of a dark frame
# around every picture. No error is raised and the shapes are right, which makes this a favourite mistake of people who
# port the network. [Lesson 11](11_parity.ipynb) hunts for it.
#
# ## The mean as a convolution
#
# A mean over nine pixels is a weighted sum with the weight 1/9 nine times, that is a depthwise convolution (one filter
# per channel, lesson 2) whose weights nobody learns. Even the layer scale and the residual fit into the same nine
# numbers. For a channel with layer scale 0.5:


# %%
def mixing_filter(s):  # x + s * (mean - x) as one 3 x 3 filter
    weight = np.full((3, 3), s / 9)
    weight[1, 1] += 1 - s
    return weight


print(mixing_filter(0.5).round(3), "sum:", round(mixing_filter(0.5).sum(), 3))

# %% [markdown]
# All such filters add up to 1, whatever $s$ is, so flat regions stay what they are.
#
# One thing is missing: a convolution does not know that it should divide by 6 or 4 at the border. The package's fast
# side mends that with a trick that is worth a minute. Put, beyond the border, the *mean of the last two pixels* in the
# place of zeros. The mean of $a$, $b$ and $\frac{a+b}{2}$ is $\frac{a+b}{2}$: the mean over three numbers, one of them
# made up, is the mean over the two real ones.


# %%
def pad_with_means(x):  # (..., H, W) -> (..., H + 2, W + 2)
    for axis in (-2, -1):
        x = np.moveaxis(x, axis, 0)
        x = np.concatenate([x[:2].mean(0, keepdims=True), x, x[-2:].mean(0, keepdims=True)])
        x = np.moveaxis(x, 0, axis)
    return x


print(pad_with_means(small)[:3])
ninth = np.full((1, 1, 3, 3), 1 / 9)
assert np.allclose(ops.conv2d(pad_with_means(small)[None, None], ninth)[0, 0], mean)

# %% [markdown]
# With that the whole first half of a block is one `einsum` over a view that shows every pixel its window; no window is
# copied. Here for 48 channels of 56 x 56, the map of L1's first stage, with random values and layer scales:

# %%
rng = np.random.default_rng(0)
large = rng.standard_normal((1, 48, 56, 56)).astype(np.float32)
scale = rng.standard_normal(48).astype(np.float32)
filters = np.array([mixing_filter(s) for s in scale], np.float32)  # (48, 3, 3)


def separable(x):
    return x + scale[:, None, None] * ops.pool_mixer(x)


def with_einsum(x):
    windows = np.lib.stride_tricks.sliding_window_view(pad_with_means(x), (3, 3), (2, 3))  # (1, 48, 56, 56, 3, 3)
    return np.einsum("bcyxij,cij->bcyx", windows, filters)


assert np.abs(with_einsum(large) - separable(large)).max() < 1e-5

# %% [markdown]
# `npformer.fuse` makes the same of a pooling block, with channels last in memory, so that the innermost loop runs over
# long stretches of numbers. In [fast/kernels.py](../npformer/fast/kernels.py) the padding is `strip_of_means` and the
# sum is `depthwise`. How fast are they all?

# %% tags=["timing"]
from npformer.fast import kernels

last = np.ascontiguousarray(large.transpose(0, 2, 3, 1))  # (1, 56, 56, 48)
weight, out = np.ascontiguousarray(filters.transpose(1, 2, 0)), np.empty_like(last)
seconds = times({
    "loops, one channel of the 48": lambda: pool_mixer_loops(large[0, 0]),
    "separable sums, as in ops.pool_mixer": lambda: separable(large),
    "a depthwise ops.conv2d (wrong at the border)": lambda: ops.conv2d(large, filters[:, None], padding=1, groups=48),
    "an einsum over windows": lambda: with_einsum(large),
    "the fast side's": lambda: kernels.depthwise(
        kernels.strip_of_means(last[0], slice(0, 56))[None, None], weight, 1, out),
})  # fmt: skip
table(["how", "ms"], [(name, f"{1000 * value:.2f}") for name, value in seconds.items()])

# %%
assert np.abs(out.transpose(0, 3, 1, 2) - separable(large)).max() < 1e-5

# %% [markdown]
# ## The whole block
#
# In transformers and here the pooling block is called `Meta4D`, because its maps have four axes. Its code is short:

# %%
source(efficientformer.EfficientFormerPooling, efficientformer.EfficientFormerMeta4D)

# %% [markdown]
# Let us take it apart, with L1's first shape and random weights of order one. (The package starts layer scales at
# 1e-5, as transformers does: a block then hardly changes its input, and a mistake in it would hardly show.)


# %%
def randomise(block, rng):  # weights of order one, so that every part of the block shows
    for _, module, name in block.named_arrays():
        value = getattr(module, name)
        if value.dtype == np.float64:
            drawn = rng.standard_normal(value.shape)
            if value.ndim == 4:
                drawn /= np.sqrt(value.shape[1])  # sums over many channels would grow otherwise
            setattr(module, name, drawn**2 + 0.5 if name == "running_var" else drawn)
    return block


rng = np.random.default_rng(1)
block = randomise(efficientformer.EfficientFormerMeta4D(config, 48).astype(np.float64), rng)
x = rng.standard_normal((1, 48, 56, 56))
print(block)

# %% [markdown]
# First half: the mixer, scaled per channel, added to its input.

# %%
s1, s2 = block.layer_scale_1[:, None, None], block.layer_scale_2[:, None, None]  # (48, 1, 1): one factor per channel
mixed = x + s1 * ops.pool_mixer(x)  # (1, 48, 56, 56)

# %% [markdown]
# Second half: the MLP. Two 1 x 1 convolutions with a GELU between them, four times as wide inside, each followed by a
# batch norm. A 1 x 1 convolution sees one pixel at a time, so nothing moves from place to place here.


# %%
def conv_norm(v, conv, norm):
    v = ops.conv2d(v, conv.weight, conv.bias)
    return ops.batch_norm(v, norm.running_mean, norm.running_var, norm.weight, norm.bias, norm.eps)


mlp = block.mlp
hidden = ops.gelu(conv_norm(mixed, mlp.convolution1, mlp.batchnorm_before))  # (1, 192, 56, 56)
narrow = conv_norm(hidden, mlp.convolution2, mlp.batchnorm_after)  # (1, 48, 56, 56)
out = mixed + s2 * narrow  # (1, 48, 56, 56)
print("hidden", hidden.shape, " out", out.shape, " same as the module:", np.allclose(out, block(x), 1e-12, 1e-12))

# %% [markdown]
# Two things to notice. There is no norm before the mixer: the batch norms sit inside the MLP. And `drop_path` does
# nothing: in training it leaves out a branch of the block at random, at inference it hands on what it gets.
#
# The same block with 6 channels, as transformers computes it, with the same random weights:

# %%
six = efficientformer.EfficientFormerMeta4D(config, 6).astype(np.float64)
six.load_state_dict({name[6:]: value for name, value in theirs.items() if name.startswith("block.")})
agree("transformers' EfficientFormerMeta4D", six(theirs["block_in"]), theirs["block_out"])
assert six.drop_path(mixed) is mixed  # not even a copy

# %% [markdown]
# ## No parameters at all
#
# Where are the weights of L1's blocks? Count them, mixer by mixer and MLP by MLP:

# %%
l1 = npformer.get_model("efficientformer-l1", seed=0)
counts = {"pooling": [0, 0, 0, 0], "attention": [0, 0, 0, 0]}  # blocks, mixers, MLPs, norms and scales
for _, module in l1.named_modules():
    if hasattr(module, "token_mixer"):
        row = counts["pooling" if isinstance(module, efficientformer.EfficientFormerMeta4D) else "attention"]
        parts = [module.token_mixer.num_parameters(), module.mlp.num_parameters()]
        for place, value in enumerate([1, *parts, module.num_parameters() - sum(parts)]):
            row[place] += value
table(
    ["kind", "blocks", "mixers", "MLPs", "other"], [(kind, *(f"{v:,}" for v in row)) for kind, row in counts.items()]
)
assert counts["pooling"][:2] == [14, 0]

# %% [markdown]
# All 14 pooling blocks together have no mixer weight to learn. What *is* learned about mixing in them is the layer
# scale: one number per channel, the slider of Figure 4.3.
#
# ## How far information travels
#
# Attention joins all places in one step. Pooling hands information one pixel further per block. To see it, change a
# single pixel of the input, run a stack of blocks on both versions, and look where the results differ.
#
# **Predict, then run.** A map of 21 x 21 pixels, the middle one changed. How many pixels differ after one block, after
# two, after six?

# %%
rng = np.random.default_rng(2)
stack = [randomise(efficientformer.EfficientFormerMeta4D(config, 8).astype(np.float64), rng) for _ in range(6)]
plain = rng.standard_normal((1, 8, 21, 21))
poked = plain.copy()
poked[0, :, 10, 10] += 1
spread = []
for block in stack:
    plain, poked = block(plain), block(poked)
    spread.append(np.abs(poked - plain).max(1)[0])  # (21, 21): the largest change over channels
print("pixels that differ:", [int((change > 1e-12).sum()) for change in spread])
assert [(change > 1e-12).sum() for change in spread] == [(2 * n + 1) ** 2 for n in range(1, 7)]

# %%
figure, axes = new_figure(1, 5, height=2.0, width=7.8)
for place, n in zip(axes, (1, 2, 3, 4, 6), strict=True):
    relative = spread[n - 1] / spread[n - 1].max()
    with np.errstate(divide="ignore"):
        drawn = picture(
            place, np.log10(relative), f"{n} block{'s' * (n > 1)}\n{2 * n + 1} x {2 * n + 1}", vmin=-8, vmax=0
        )
    for edge in place.spines.values():
        edge.set_visible(True)
bar = figure.colorbar(drawn, ax=axes, ticks=[-8, -4, 0], shrink=0.7)
bar.ax.set_yticklabels(["$10^{-8}$", "$10^{-4}$", "1"], fontsize=8)
bar.set_label("change / largest", fontsize=8)
show(
    figure,
    "Figure 4.4. One pixel of a 21 x 21 map was changed. Where and how much (log scale) the output of a stack of "
    "pooling blocks differs: each block adds one pixel on every side, and the far ones feel it faintly.",
    "Five maps. A coloured square in the middle grows from 3 x 3 after one block over 5 x 5, 7 x 7 and 9 x 9 to 13 "
    "x 13 after six; its middle is bright and it fades towards its corners by many powers of ten.",
)

# %% [markdown]
# After $n$ blocks the square has a side of $2n + 1$ pixels. And "reached" does not mean "heard": the corner of the
# last square is only reached by one path, six diagonal steps in a row, each with a weight of $s/9$.
#
# By pooling alone a 56 x 56 map would need dozens of blocks to join its corners. The real network has a better way:
# between the stages a convolution of stride 2 halves the map, and a step of one pixel then is a step of two of the
# pixels before. Let us poke one pixel of a real picture, in the trained network.

# %%
name = "efficientformer-fashion"
model, processor = npformer.get_model(name, pretrained=True), npformer.AutoImageProcessor.from_pretrained(name)
pixels = processor(npformer.load_image(path), return_tensors="np")["pixel_values"]  # (1, 3, 224, 224)
poked = pixels.astype(np.float64)
poked[0, :, 112, 112] += 1
exact = model.astype(np.float64)
before, after = npformer.record(exact, pixels.astype(np.float64)), npformer.record(exact, poked)

# %%
steps = {"stem": "efficientformer.patch_embed"}  # what to look at, and its name in the model
for key in [key for key, module in exact.named_modules() if hasattr(module, "token_mixer")]:
    kind = "attention" if "meta3D" in key else "pooling"
    steps[f"{kind} {sum(kind in step for step in steps) + 1}"] = key
reach = {}
for step, key in steps.items():
    change = np.abs(after[key] - before[key])
    reach[step] = change.max(1)[0] if change.ndim == 4 else change.max(2).reshape(7, 7)
    reach[step] = reach[step] > 1e-12
rows = [(step, f"{len(m)} x {len(m)}", int(m.sum()), f"{m.mean():.1%}") for step, m in reach.items()]
table(["after", "map", "reached", "of all"], rows)

# %%
figure, axes = new_figure(1, 6, height=1.75, width=7.8)
for place, step in zip(axes, ["stem", "pooling 1", "pooling 2", "pooling 4", "pooling 5", "attention 1"], strict=True):
    reached = reach[step].astype(float)
    picture(place, reached, f"{step}\n{len(reached)} x {len(reached)}", cmap="Blues", vmin=-0.25, vmax=1.3)
show(
    figure,
    "Figure 4.5. Where the trained network's maps notice that one of the 224 x 224 pixels of a sneaker has "
    "changed. Pooling and strides widen the circle stage by stage; the first attention block reaches everything.",
    "Six square maps, each with a dark square of what was reached. It is a dot after the stem, small after the "
    "first pooling blocks, a square half as wide as the map after the fourth, most of it after the fifth, and all "
    "of it after attention.",
)

# %% [markdown]
# So by the time attention comes, little is left for it to reach. Its job in this network is to weigh *which* of 49
# places matters, not to bridge a distance that nothing else could.
#
# ## On a real picture
#
# Here is the first pooling block of the trained network, on the sneaker. The two channels are the ones with the
# largest and the smallest of its 16 layer scales.

# %%
key = steps["pooling 1"]
trained = dict(exact.named_modules())[key]
chosen = [int(trained.layer_scale_1.argmax()), int(trained.layer_scale_1.argmin())]
print({channel: round(float(trained.layer_scale_1[channel]), 2) for channel in chosen})

figure, axes = new_figure(2, 3, height=4.6, width=7.0)
for row, channel in zip(axes, chosen, strict=True):
    came = before["efficientformer.patch_embed"][0, channel]
    went = before[f"{key}:mixed"][0, channel]
    limits = dict(zip(("vmin", "vmax"), np.percentile([came, went], [0.1, 99.8]), strict=True))
    picture(row[0], came, "x: what the stem made", **limits)
    picture(row[1], before[f"{key}.token_mixer"][0, channel], "mixer: mean - x", signed=True)
    picture(row[2], went, f"x {trained.layer_scale_1[channel]:+.2f} (mean - x)", **limits)
    row[0].set_ylabel(f"channel {channel}")
show(
    figure,
    "Figure 4.6. One pooling block of the trained network on the sneaker. The mixer answers at edges (red: "
    "surroundings larger; blue: smaller). Above, a positive scale blurs; below, a negative one sharpens.",
    "Two rows of three maps of 56 x 56 pixels. On the left channels of the stem that show the sneaker, in the "
    "middle the mixer's output, which is near zero except along edges, on the right the sum: smoother above, with "
    "harder edges below.",
)

# %% [markdown]
# (The frame at the left and on top of channel 10 is no part of the shoe: it is the zero padding of the stem's
# convolutions.)
#
# A layer scale near -1 was learned, not set: training began with 0.1 in every channel. So a network that is given only
# a blur made a sharpening filter of it where that served better. How common is that?

# %%
scales = {step: dict(model.named_modules())[key].layer_scale_1 for step, key in steps.items() if "pooling" in step}
rows = [(step, len(v), f"{(v < 0).mean():.0%}", f"{v.min():.2f}", f"{v.max():.2f}") for step, v in scales.items()]
table(["block", "channels", "negative", "smallest", "largest"], rows)

figure, axes = new_figure(height=2.5, width=6.5)
for (step, values), colour in zip(scales.items(), SERIES, strict=True):
    place = np.linspace(0, 100, len(values))
    axes.plot(place, np.sort(values), color=COLOURS[colour], lw=1.8)
    height = {"pooling 5": 1.48, "pooling 4": 1.22, "pooling 3": 0.98, "pooling 1": 0.76, "pooling 2": 0.54}[step]
    axes.text(102, height, step, color=COLOURS[colour], fontsize=9, va="center")
axes.axhline(0, color=COLOURS["grey"], lw=0.8)
axes.axhline(0.1, color=COLOURS["grey"], lw=0.8, ls=":")
axes.set(xlabel="channels of a block, sorted, in percent", ylabel="layer scale of the mixer", xlim=(-3, 117))
axes.set_xticks([0, 25, 50, 75, 100])
show(
    figure,
    "Figure 4.7. The learned sliders of all five pooling blocks. Dotted: 0.1, where training began. Above 0 a "
    "channel is blurred, below it sharpened.",
    "Five rising lines from about -1 to 1.4. Pooling 2 lies above 0 everywhere and pooling 4 nearly so, mostly "
    "near 0.8; the others cross 0, so that a fifth to nearly half of their channels is below.",
)

# %% [markdown]
# ## Take the mixers out
#
# Now the experiment that the subject invites. The trained network has five pooling mixers. What happens to its
# accuracy if we replace all of them, *without* training it again, by
#
# - nothing: the mixer gives 0, the block keeps only its MLP;
# - the mean that counts the padding;
# - a mean over 5 x 5 pixels in the place of 3 x 3?
#
# `npformer.watch` lets us put another value in the place of any that is computed. We use 150 test pictures that the
# network never saw in training.
#
# **Predict, then run.** Guessing gives 10 %. Write down four numbers.

# %%
images, classes = pictures(150)
inputs = processor(list(np.repeat(images[..., None], 3, -1)), return_tensors="np")[
    "pixel_values"
]  # (150, 3, 224, 224)
replacements = {
    "as trained": None,
    "nothing": np.zeros_like,
    "padding counted": lambda x: ops.avg_pool2d(x, 3, 1, 1, count_include_pad=True) - x,
    "5 x 5": lambda x: ops.pool_mixer(x, 5),
}


def answers(replace, batch_norm=None, batch=20):
    def observe(name, module, inputs, output, layout):
        if replace and inputs and isinstance(module, efficientformer.EfficientFormerPooling):
            return replace(inputs[0])  # inner values come by here too, without inputs
        if batch_norm and isinstance(module, npformer.nn.BatchNorm2d):
            return batch_norm(module, inputs[0])
        return output

    with npformer.watch(model, observe):
        logits = np.concatenate([model(inputs[i : i + batch]).logits for i in range(0, len(inputs), batch)])
    return logits.argmax(1)


def error(p):  # standard error of a share p of n pictures
    return np.sqrt(p * (1 - p) / len(classes))


given = {how: answers(replace) for how, replace in replacements.items()}
found = {how: (answer == classes).mean() for how, answer in given.items()}
for how, p in found.items():
    changed = (given[how] != given["as trained"]).mean()
    print(f"{how:16} {p:.1%} +- {error(p):.1%} right of {len(classes)}; another answer than as trained {changed:.1%}")

# %% [markdown]
# Without its mixers the network loses almost half of its accuracy; with a larger window it loses a good part too.
# Counting the padding costs nothing that 150 pictures could show: a few answers change, but as many are right as
# before. (A fault it is all the same. An accuracy on a few pictures is a poor test of whether two networks are equal.)
#
# Does that not refute the claim that the mixer matters little? It does not, and the reason is worth stating.
# MetaFormer says: *train* a network with a poorer mixer, and it will still be good. We took a network whose every
# weight was trained around this mixer, and then pulled it out. What breaks may be no more than the fit of the parts.
# One fit can be tested at once: the batch norms hold means and variances of maps that no longer occur. Let us measure
# these anew, on the same pictures (20 at a time) and without any labels, and leave all weights alone.


# %%
def measured_anew(norm, x):  # batch norm with the statistics of the very maps that come in
    return ops.batch_norm(x, x.mean((0, 2, 3)), x.var((0, 2, 3)), norm.weight, norm.bias, norm.eps)


again = {}
for how in ("as trained", "nothing", "5 x 5"):
    again[how] = (answers(replacements[how], measured_anew) == classes).mean()
for how, p in again.items():
    print(f"{how:16} {found[how]:.1%} -> {p:.1%} +- {error(p):.1%}")

# %%
figure, axes = new_figure(height=2.5, width=7.0)
for place, how in enumerate(found):
    for shift, values, colour in ((-0.19, found, "blue"), (0.19, again, "orange")):
        if how in values:
            p = 100 * values[how]
            axes.bar(
                place + shift, p, 0.36, color=COLOURS[colour], yerr=100 * error(values[how]), ecolor=COLOURS["ink"]
            )
            axes.text(place + shift, 4, f"{p:.1f}", ha="center", color="white", fontsize=9)
axes.axhline(10, color=COLOURS["grey"], lw=0.8, ls=":")
axes.text(0.63, 91, "statistics as stored", color=COLOURS["blue"], fontsize=9, va="center")
axes.text(0.63, 80, "measured anew", color=COLOURS["orange"], fontsize=9, va="center")
axes.set(xticks=range(4), xticklabels=list(found), ylabel="accuracy, percent", ylim=(0, 100))
show(
    figure,
    "Figure 4.8. Accuracy on 150 test pictures with the five pooling mixers replaced, not retrained; lines show "
    "the standard error, the dotted line guessing. New statistics alone bring a good part back.",
    "Bars. As trained about 91 percent with both statistics. Mixers removed: 48, and 63 with statistics measured "
    "anew. Padding counted: 91. Windows of 5 x 5: 70, and 77 with statistics measured anew.",
)

# %% [markdown]
# Measuring statistics anew, without a single trained weight changed, brings back a good part of what was lost. So that
# part was never information that only the mixer could supply: it was a mismatch. Training from the start can mend
# mismatches of every kind, and how far it gets is what the paper measured. Their figures, top-1 accuracy on ImageNet
# of the smallest PoolFormer with another mixer in every block, each trained from the start:

# %%
# Yu et al. 2022, "MetaFormer Is Actually What You Need for Vision", table of ablations, PoolFormer-S12.
PAPER = {
    "identity (no mixing)": 74.3,
    "a fixed random matrix": 75.8,
    "3 x 3 pooling": 77.2,
    "depthwise convolution": 78.1,
}
table(["mixer", "top-1"], list(PAPER.items()))

# %% [markdown]
# No mixing at all costs them about three points, not more than forty. That is the claim's evidence. Read it with two
# reservations: a network without mixers still has strided convolutions between its stages, which mix neighbours as
# well, so "no mixing" is not literally so; and a better mixer than pooling is still better. EfficientFormer draws the
# practical conclusion, and spends on mixing only where it is cheap.
#
# Our own experiment supports none of this by itself. It shows that a *trained* network depends on its mixers, and that
# a part of that dependence is a matter of statistics. Keep the two questions apart, "can a network do without it?" and
# "can this network do without it?", and you will read many ablations with a clearer eye.

# %% [markdown]
# ## Exercises
#
# ### Exercise 4.1: the map of divisors
#
# Write `window_counts(height, width, size)`: for every pixel of a `height` x `width` map, how many pixels of the
# `size` x `size` window around it are real (`size` is odd). For `(4, 4, 3)` it is the map of Figure 4.2.


# %% tags=["exercise"]
def window_counts(height, width, size):
    """(height, width) array of whole numbers."""
    ...


# %% tags=["check"]
checks.window_counts(window_counts)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Rows and columns do not depend on each other. A window around row $y$ reaches from $y - h$ to $y + h$ with
# $h$ = `size // 2`; cut it at 0 and at `height - 1`.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def window_counts(height, width, size):
#     def along(length):
#         place, half = np.arange(length), size // 2
#         return np.minimum(place + half, length - 1) - np.maximum(place - half, 0) + 1
#
#     return np.outer(along(height), along(width))
# ```
#
# A rectangle's real pixels are real rows times real columns, which is why `ops.avg_pool2d` needs two vectors only.
#
# </details>

# %% [markdown]
# ### Exercise 4.2: the mixer
#
# Write `mixer(x)`, the 3 x 3 pooling mixer for maps of shape `(B, C, H, W)`, without loops over pixels and without
# `npformer.ops`. Do not change `x`. (`np.pad` and nine slices will do; so will sums axis by axis.)


# %% tags=["exercise"]
def mixer(x):
    """(B, C, H, W) -> (B, C, H, W): the mean of each 3 x 3 neighbourhood's real pixels, minus x."""
    ...


# %% tags=["check"]
checks.mixer(mixer)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Pad `x` with zeros, add up nine shifted slices, and divide by the counts: these are the same sum over a map of ones,
# or `window_counts(H, W, 3)`.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def mixer(x):
#     def window_sum(v):
#         height, width = v.shape[-2:]
#         around = np.pad(v, ((0, 0), (0, 0), (1, 1), (1, 1)))
#         rows = sum(around[:, :, i : i + height] for i in range(3))
#         return sum(rows[..., j : j + width] for j in range(3))
#
#     return window_sum(x) / window_sum(np.ones_like(x)) - x
# ```
#
# Summing ones in the same way counts what exists, whatever the shape of window or border.
#
# </details>

# %% [markdown]
# ### Exercise 4.3: one filter per channel
#
# Write `mixing_kernel(scale)` for layer scales of shape `(C,)`: the weights `(C, 1, 3, 3)` with which a depthwise
# convolution computes `x + scale * mixer(x)` away from the border. (Above, `mixing_filter` does it for one number.)


# %% tags=["exercise"]
def mixing_kernel(scale):
    """(C,) -> (C, 1, 3, 3)."""
    ...


# %% tags=["check"]
checks.mixing_kernel(mixing_kernel)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Each of the nine pixels gets `scale / 9`. The one in the middle also gets the residual's 1, and the mixer's minus x.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def mixing_kernel(scale):
#     kernel = np.tile((scale / 9)[:, None, None, None], (1, 1, 3, 3))
#     kernel[:, 0, 1, 1] += 1 - scale
#     return kernel
# ```
#
# A pooling block is thus a depthwise convolution that is allowed one learned number per channel in the place of nine.
#
# </details>

# %% [markdown]
# ### Exercise 4.4: from corner to corner
#
# Write `blocks_to_cross(side, pool_size)`: how many pooling blocks in a row it takes until the first pixel of a
# `side` x `side` map can influence the last, in the opposite corner, with a mixer of `pool_size` x `pool_size`. For
# `(4, 3)` it is 3.


# %% tags=["exercise"]
def blocks_to_cross(side, pool_size):
    """A whole number of blocks."""
    ...


# %% tags=["check"]
checks.blocks_to_cross(blocks_to_cross)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Windows are square, so a diagonal step costs no more than a straight one. How far does one block reach, and how many
# steps lie between the first pixel and the last?
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def blocks_to_cross(side, pool_size):
#     step = pool_size // 2
#     return (side - 1 + step - 1) // step  # rounded up
# ```
#
# L1's first map of 56 x 56 would need one block fewer than it has rows; L1 has 14 blocks in all. Strides do what
# pooling alone could not.
#
# </details>

# %% [markdown]
# ### Exercise 4.5: MetaFormer as a function
#
# Write `metaformer_block(x, mixer, mlp, scale_1, scale_2)`, the frame of Figure 4.1 for maps `(B, C, H, W)`, as
# `EfficientFormerMeta4D` has it: `mixer` and `mlp` are functions from maps to maps, the scales have shape `(C,)`.


# %% tags=["exercise"]
def metaformer_block(x, mixer, mlp, scale_1, scale_2):
    """(B, C, H, W) -> (B, C, H, W)."""
    ...


# %% tags=["check"]
checks.metaformer_block(metaformer_block)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Two lines: each adds a scaled branch to what came in. `scale[:, None, None]` lines up with the channel axis. The
# second line starts from the result of the first.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def metaformer_block(x, mixer, mlp, scale_1, scale_2):
#     mixed = x + scale_1[:, None, None] * mixer(x)
#     return mixed + scale_2[:, None, None] * mlp(mixed)
# ```
#
# Two lines hold the whole family. Put attention in for `mixer` and you have a transformer; put `np.zeros_like`, and
# you have the network that the paper calls identity mapping.
#
# </details>

# %% [markdown]
# ## Further reading
#
# - W. Yu and others, [MetaFormer Is Actually What You Need for Vision](https://arxiv.org/abs/2111.11418), CVPR 2022:
#   the claim, algorithm 1 (the mixer in eight lines), and the table of ablations quoted above.
# - W. Yu and others, [MetaFormer Baselines for Vision](https://arxiv.org/abs/2210.13452), 2022: no mixing at all
#   again, at larger size (above 80 %).
# - Y. Li and others, [EfficientFormer](https://arxiv.org/abs/2206.01191), 2022, section 3: which parts of such blocks
#   cost time on a telephone.
# - H. Touvron and others, [Going deeper with Image Transformers](https://arxiv.org/abs/2103.17239), 2021: layer scale.
# - In this package: [ops/pool.py](../npformer/ops/pool.py), the blocks in
#   [models/efficientformer.py](../npformer/models/efficientformer.py), and their fused twins in
#   [fast/modules.py](../npformer/fast/modules.py).
#
# Next: [5. Activations](05_activations.ipynb)
