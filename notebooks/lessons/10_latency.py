# %% [markdown]
# # 10. Latency is not FLOPs
#
# The title of EfficientFormer's paper ends "at MobileNet Speed", and its way there begins with a stopwatch, not with
# a count of multiplications. After this lesson you can time a network op by op without fooling yourself, say of any
# op whether arithmetic or memory holds it up, test on your own machine what the paper found on a phone, and cut a
# trained network down to a time budget.
#
# You need: lessons 2 to 7. Time: about 25 minutes.
#
# Outputs of cells with a clock in them show what it said on the machine that made this page, one with two cores.
# Yours will say something else, and the text does not depend on the exact figures. Everything else is the same
# everywhere.

# %%
import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # read when NumPy is first imported: one core, and so one thing less to vary

import copy
import math
import time
from functools import lru_cache
from itertools import pairwise, product

import numpy as np
from course import COLOURS, new_figure, pictures, show, source, table, times
from course.checks import lesson_10 as checks

import npformer
from npformer import ops
from npformer.bench import peaks
from npformer.bench.weights import randomize
from npformer.fast import kernels, threads
from npformer.models.efficientformer import (
    EfficientFormerConfig,
    EfficientFormerForImageClassification,
    EfficientFormerSelfAttention,
)
from npformer.models.registry import VARIANTS
from npformer.nn import Conv2d
from npformer.summary import summarize

npformer.set_num_threads(1)
generator = np.random.default_rng(10)


def normal(*shape):
    return generator.standard_normal(shape, np.float32)


def weights(*shape):
    """Random weights that keep values of order one: deviation 1 / sqrt(inputs per output)."""
    return normal(*shape) / np.float32(math.sqrt(math.prod(shape[1:])))


# %% [markdown]
# ## Reading a clock
#
# Run the same function on the same numbers a hundred times, and you get a hundred different times. Here is a small
# trained network, `efficientformer-fashion`, on one picture.

# %% tags=["timing"]
shipped = npformer.get_model("efficientformer-fashion", pretrained=True)
fused = npformer.fuse(shipped)
one_picture = normal(1, 3, 224, 224)

milliseconds = []
for _ in range(101):
    begun = time.perf_counter()
    fused(one_picture)
    milliseconds.append(1000 * (time.perf_counter() - begun))
first, runs = milliseconds[0], np.array(milliseconds[1:])
print(f"the first run took {first:.1f} ms; of the hundred after it")
print(f"the shortest {runs.min():.2f}, the median {np.median(runs):.2f}, the mean {runs.mean():.2f}, ", end="")
print(f"the longest {runs.max():.2f} ms")

# %% tags=["timing"]
figure, axes = new_figure(height=2.3)
longest = float(np.quantile(runs, 0.97))
tallest = axes.hist(np.minimum(runs, longest), bins=40, color=COLOURS["blue"])[0].max()
for value, name, side in ((np.median(runs), "median ", "right"), (runs.mean(), " mean", "left")):
    axes.axvline(value, color=COLOURS["orange"], linewidth=1.2)
    axes.text(value, 1.2 * tallest, name, ha=side, va="top", color=COLOURS["orange"])
axes.set(
    xlabel="milliseconds of one run (the slowest three stand at the right edge)",
    ylabel="runs",
    ylim=(0, 1.2 * tallest),
)
show(
    figure,
    "Figure 10.1. One hundred runs of one network on one picture. Nothing makes a run faster than the machine can "
    "go, many things make it slower.",
    "A histogram of run times: a narrow hill at the left, a long tail to the right, the mean right of the median.",
)

# %% [markdown]
# A run is slowed down by whatever else the machine does, and never sped up, so the tail is on the right. Four habits
# follow.
#
# - **Warm up.** The first run fetches memory from the system and fills the caches. It does not count.
# - **Take the median.** One run that the system interrupted moves a mean, however many good runs surround it.
# - **Take turns.** What is compared runs in alternation: A, B, A, B. A machine that grows warm, or a neighbour that
#   wakes up, then hits both alike.
# - **Time what you would run**: real shapes, and weights of order one.
#
# The third habit can be shown without a clock. Two functions that take exactly as long as each other, on a machine
# that becomes a fifth slower while we measure:

# %%
slowing = np.linspace(1.0, 1.2, 60)  # what a run takes, over what it took at first
noise = 1 + np.random.default_rng(0).exponential(0.02, 60)
simulated = 10.0 * slowing * noise

in_blocks = np.median(simulated[30:]) / np.median(simulated[:30])
in_turns = np.median(simulated[1::2]) / np.median(simulated[::2])
print(f"30 runs of A, then 30 of B: B seems to take {in_blocks:.2f} times as long")
print(f"A, B, A, B, ...:            B seems to take {in_turns:.2f} times as long")
assert in_blocks > 1.08
assert abs(in_turns - 1) < 0.02

# %% [markdown]
# The course's own helper has three of the habits built in:

# %%
source(times)

# %% [markdown]
# The fourth habit is about numbers that are too small. Below about 1e-38 a float32 has no leading bit left (it is
# called *denormal*), and processors handle it on a detour. A network with fresh weights multiplies every branch by a
# layer scale of 1e-5 and may drift there, a trained one never does. How long the detour is depends on the processor:
# a few times, on some a hundred times.

# %% tags=["timing"]
ordinary = normal(48, 56, 56)
tiny = ordinary * np.float32(1e-40)
seconds = times(
    {
        "x / 9, x of order one": lambda: ordinary / np.float32(9),
        "x / 9, x denormal": lambda: tiny / np.float32(9),
        "SiLU, x of order one": lambda: ops.silu(ordinary),
        "SiLU, x denormal": lambda: ops.silu(tiny),
    }
)
table(["", "us"], [[name, f"{1e6 * value:.0f}"] for name, value in seconds.items()])

# %% [markdown]
# So all random weights in this lesson come from `npformer.bench.weights.randomize`, which draws them of order one and
# then sets batch norm's statistics to those of what passes, as training would.
#
# ## Multiply-adds and milliseconds
#
# The usual price of a network is its number of multiply-adds (a *FLOP count* is twice that). By the usual rule, that
# of `npformer summary`, convolutions, linear layers and attention's products are counted; norms, activations,
# pooling and additions are not. Let us see what is missed. `npformer.watch` shows us every value the moment it is
# computed, which makes a stopwatch of three lines: the time since the last value is the time this one took.


# %%
def laps(model, x):
    """The seconds between each named value and the one before it, in order."""
    stamps, names = [], []

    def see(name, module, inputs, output, layout):
        names.append(name)
        stamps.append(time.perf_counter())
        return output

    with npformer.watch(model, see):
        stamps.append(time.perf_counter())
        model(x)
    return names, np.diff(stamps)


def median_laps(model, x, rounds=7):
    """Milliseconds of every lap: the median of several runs, after one that does not count."""
    runs = [laps(model, x)[1] for _ in range(rounds + 1)]
    return 1000 * np.median(runs[1:], axis=0)


# %% [markdown]
# For every lap we also count, once and for all: its multiply-adds, its arithmetic operations, and the bytes that it
# must read (inputs and weights) and write (its output) at least once. These counts need no clock. For the ops that
# the rule leaves out we count operations per number written: how many the formula takes, an erf for one.

# %%
KINDS = {
    "Linear": "linear", "Activation": "activation", "BatchNorm2d": "batch norm", "LayerNorm": "layer norm",
    "AvgPool2d": "pooling", "EfficientFormerSelfAttention": "attention",
}  # fmt: skip
# Per number written. GELU is x * 0.5 * (1 + erf(x * c)).
OPERATIONS = {"activation": 5, "batch norm": 2, "layer norm": 7, "pooling": 9}


def kind_of(module):
    if isinstance(module, Conv2d):
        if module.groups > 1:
            return "depthwise"
        return "1x1 convolution" if module.weight.shape[2:] == (1, 1) else "3x3 convolution"
    return KINDS.get(type(module).__name__, "scale, add, rest")


# %%
def census(model, x):
    """Kind, multiply-adds, operations and bytes of every lap, in order."""
    rows = []

    def see(name, module, inputs, output, layout):
        kind, multiplied, moved = kind_of(module), 0, 0
        if layout is None:  # a module's output, not an inner value
            multiplied = module.multiply_adds(inputs, output)
            if next(module.named_children(), None) is None and kind != "scale, add, rest":
                own = [value for value in vars(module).values() if isinstance(value, np.ndarray)]
                moved = sum(array.nbytes for array in (*inputs, output, *own))
        rows.append((kind, multiplied, 2 * multiplied + OPERATIONS.get(kind, 0) * output.size * (moved > 0), moved))
        return output

    with npformer.watch(model, see):
        model(x)
    return rows


# %%
l1 = randomize(npformer.get_model("efficientformer-l1", seed=0), 224)
l1_rows = census(l1, one_picture)
counted = sum(row[1] for row in l1_rows)
assert counted == VARIANTS["efficientformer-l1"].multiply_adds
print(f"{len(l1_rows)} laps, {counted / 1e6:,.0f} million multiply-adds")

# %% [markdown]
# **Predict, then run.** EfficientFormer-L1 has nothing but 1x1 convolutions, a few 3x3 ones and linear layers among
# what is counted. Batch norm, GELU, pooling and the additions have no multiply-adds at all. Which part of the time
# do they take, in the readable model, where nothing is folded: a twentieth, a tenth, a quarter?

# %% tags=["timing"]
l1_ms = median_laps(l1, one_picture)
by_kind = {}
for (kind, *counts), ms in zip(l1_rows, l1_ms):
    by_kind[kind] = by_kind.get(kind, np.zeros(4)) + np.array([ms, *counts])
by_kind = dict(sorted(by_kind.items(), key=lambda item: -item[1][0]))
whole = sum(values[0] for values in by_kind.values())
lines = [
    [kind, f"{ms:.2f}", f"{100 * ms / whole:.0f}", f"{100 * products / counted:.1f}", f"{operations / ms / 1e6:.1f}"]
    for kind, (ms, products, operations, _) in by_kind.items()
]
table(
    ["kind of op", "ms", "% of time", "% of multiply-adds", "GFLOP/s"], [*lines, ["all", f"{whole:.2f}", "", "", ""]]
)

# %% [markdown]
# About a third, on the machine that made this page. Among the ops that are counted it is no better: one and the same
# number of multiply-adds takes longer in one op than in another. To see how much longer, we time EfficientNet-B0 too,
# which has the kind of op that L1 avoids: the depthwise convolution.

# %% tags=["timing"]
b0 = randomize(npformer.get_model("efficientnet-b0", seed=0), 224)
b0_rows, b0_ms = census(b0, one_picture), median_laps(b0, one_picture, 3)

# %% tags=["timing"]
MARKS = {
    "1x1 convolution": ("o", "blue"), "3x3 convolution": ("s", "green"), "linear": ("^", "pink"),
    "depthwise": ("D", "orange"),
}  # fmt: skip

figure, axes = new_figure(height=3.6)
for kind, (mark, colour) in MARKS.items():
    laps_of = [*zip(l1_rows, l1_ms), *zip(b0_rows, b0_ms)]
    points = np.array([(row[1] / 1e6, ms) for row, ms in laps_of if row[0] == kind and row[1] > 2e5])
    axes.loglog(*points.T, mark, color=COLOURS[colour], markersize=6, alpha=0.75, label=kind, markeredgewidth=0)
x_line = np.array([0.3, 60])
for rate, name in ((100, "100 GFLOP/s"), (10, "10"), (1, "1 GFLOP/s")):
    axes.loglog(x_line, 2 * x_line / rate, color=COLOURS["grey"], linewidth=0.8, linestyle=":")
    end = min(x_line[1], 8 * rate)  # where the line ends, or leaves the figure
    axes.text(1.05 * end, 1.8 * end / rate, name, color=COLOURS["grey"], fontsize=8, va="center")
axes.set(xlabel="million multiply-adds of one layer", ylabel="milliseconds", xlim=(0.18, 130), ylim=(0.01, 20))
axes.set_xticks([1, 10, 100], ["1", "10", "100"])
axes.set_yticks([0.01, 0.1, 1, 10], ["0.01", "0.1", "1", "10"])
axes.legend(loc="lower right", fontsize=9)
show(
    figure,
    "Figure 10.2. Every convolution and linear layer of EfficientFormer-L1 and EfficientNet-B0. Along a dotted line "
    "time follows multiply-adds; depthwise convolutions lie far above the others.",
    "A scatter of multiply-adds against milliseconds, both logarithmic. 1x1 and 3x3 convolutions lie near the line of "
    "one hundred GFLOP/s, depthwise convolutions far higher for the same number of multiply-adds.",
)

# %% [markdown]
# If multiply-adds were time, all points would lie on one line. They do within a kind, roughly. Between kinds there
# is a factor of ten and more: a depthwise convolution has few multiply-adds and takes its time all the same. The
# next section says why.
#
# ## The roofline
#
# An op does two things: it computes, and it moves numbers between memory and the processor. A processor has a largest
# rate for each, $P$ operations and $M$ bytes per second. An op with $F$ operations on $Q$ bytes takes at least
#
# $$t \ge \max\left(\frac{F}{P}, \frac{Q}{M}\right), \qquad\text{so its rate is}\quad \frac{F}{t} \le \min(P, I M)
# \quad\text{with}\quad I = \frac{F}{Q}.$$
#
# $I$, in operations per byte, is the *arithmetic intensity*. It belongs to the op and its shape, not to the machine.
# Drawn over $I$ the bound is a slope that ends in a ceiling, a roofline. Left of the edge, at $I = P/M$, memory
# decides; right of it arithmetic does. Here are the intensities of some ops at the shapes that L1 has in its four
# stages.

# %%
L1_STAGES = [(48, 56), (96, 28), (224, 14), (448, 7)]  # channels, side
FLOAT = 4  # bytes


def intensities(channels, side):
    """Operations per byte of several ops on a (1, C, H, W) map; each value read or written once."""
    numbers = channels * side**2
    wide = (2 * channels * 4 * numbers, numbers + 4 * numbers + 4 * channels**2)  # 1x1 convolution, C -> 4C
    return {
        "1x1 convolution to 4C": wide[0] / (FLOAT * wide[1]),
        "3x3 convolution": 2 * 9 * channels * numbers / (FLOAT * (2 * numbers + 9 * channels**2)),
        "depthwise 3x3": 2 * 9 * numbers / (FLOAT * (2 * numbers + 9 * channels)),
        "pooling 3x3": 9 / (FLOAT * 2),
        "layer norm": 7 / (FLOAT * 2),
        "GELU": 5 / (FLOAT * 2),
        "batch norm": 2 / (FLOAT * 2),
        "x + scale * y": 2 / (FLOAT * 3),
        "map to tokens (a copy)": 0.0,
    }


columns = [intensities(*stage) for stage in L1_STAGES]
head = ["operations per byte", *(f"{c} x {s} x {s}" for c, s in L1_STAGES)]
table(head, [[name, *(f"{column[name]:.2f}" for column in columns)] for name in columns[0]])
assert all(column["1x1 convolution to 4C"] > 8 * column["depthwise 3x3"] for column in columns[:3])

# %% [markdown]
# A convolution over all channels uses a number once for every output channel, so its intensity grows with the
# channels. (In the last stage there are only 49 pixels, and the weights become the larger part of what is read.)
# Depthwise, a number is used nine times and no more, whatever the channels. Norms, activations and additions do one
# or two things with a number and put it back.
#
# What can this machine do? `npformer.bench.peaks` measures the two rates as a model would see them: large matrix
# products for $P$; for $M$ copies, of pieces that stay in the processor's cache and of pieces too large for it.

# %% tags=["timing"]
PEAK = peaks.matrix_products(0.2)
CACHE = peaks.copies(1, peaks.IN_CACHE, 400, 0.05)
MEMORY = peaks.copies(1, peaks.IN_MEMORY // 2, 1, 0.05)
print(f"one core: {PEAK:.0f} GFLOP/s; {CACHE:.0f} GB/s within the cache, {MEMORY:.0f} GB/s beyond it")
print(f"the edge lies at {PEAK / CACHE:.1f} operations per byte within the cache, {PEAK / MEMORY:.1f} beyond it")

# %% tags=["timing"]
depthwise = [(ms, row) for row, ms in zip(b0_rows, b0_ms) if row[0] == "depthwise"]
by_kind["depthwise"] = np.array([sum(ms for ms, _ in depthwise), *np.sum([row[1:] for _, row in depthwise], axis=0)])

figure, axes = new_figure(height=3.9)
reach = np.logspace(-1.3, 2.3, 50)
for rate, name, style in ((CACHE, "cache", "-"), (MEMORY, "memory", "--")):
    axes.loglog(reach, np.minimum(PEAK, reach * rate), style, color=COLOURS["ink"], linewidth=1.3)
    axes.text(0.056, 0.056 * rate * 1.3, name, fontsize=9, va="bottom", rotation=34)
axes.text(150, PEAK * 1.12, "matrix products", ha="right", fontsize=9)
BESIDE = {  # where a kind's name goes, in points
    "1x1 convolution": (6, 2, "left"), "3x3 convolution": (6, -6, "left"), "linear": (-6, -4, "right"),
    "batch norm": (5, 3, "left"), "activation": (-6, -4, "right"), "layer norm": (-6, -7, "right"),
}  # fmt: skip
for kind, (ms, products, operations, moved) in by_kind.items():
    if moved:
        spot, colour = (operations / moved, operations / ms / 1e6), COLOURS["blue" if products else "orange"]
        axes.loglog(*spot, "o", color=colour)
        *offset, side = BESIDE.get(kind, (6, -4, "left"))
        axes.annotate(kind, spot, offset, textcoords="offset points", ha=side, color=colour, fontsize=9)
axes.set(
    xlabel="arithmetic intensity, operations per byte", ylabel="GFLOP/s", xlim=(0.05, 200), ylim=(0.5, 2.2 * PEAK)
)
axes.set_xticks([0.1, 1, 10, 100], ["0.1", "1", "10", "100"])
axes.set_yticks([1, 10, 100], ["1", "10", "100"])
show(
    figure,
    "Figure 10.3. The roofline of one core, and the kinds of op of L1 under it (depthwise: of B0). Blue kinds have "
    "multiply-adds, orange ones are not counted.",
    "Two slopes, for cache and memory, that end in the ceiling of matrix products. Convolutions over all channels and "
    "linear layers lie right of the edge near the ceiling; norms, activations, pooling and depthwise convolution lie "
    "far below.",
)

# %% [markdown]
# Read it from left to right. Batch norm comes nearest to the slope of memory, within a factor of about two: it is
# one multiplication and one addition, each a pass over the map. The only way to make it much faster is not to do it.
# The other orange kinds lie further below: a GELU or a pooling in NumPy is a dozen passes, each of which reads and
# writes all of the map again, where the roofline counts one. So does the depthwise convolution, once for each of
# nine weights; and even without that its intensity, a tenth of the dense ones', would keep it from the ceiling.
# Convolutions over all channels and linear layers come within a factor of about two of the ceiling. The roofline is
# a bound, not a forecast; the gap below it is what better code may gain.
#
# `npformer.fuse` goes for those gaps: batch norm is folded away, what remains works in pieces that stay in the cache
# ([fast/README.md](../npformer/fast/README.md) tells how). Its own profiler shows what is left of L1:

# %% tags=["timing"]
fast_l1 = npformer.fuse(l1)
fast_l1(one_picture)
with threads.profile() as found:
    begun = time.perf_counter()
    for _ in range(7):
        fast_l1(one_picture)
    elapsed = time.perf_counter() - begun
lines = [
    [kind, f"{1000 * spent / 7:.2f}", f"{100 * spent / elapsed:.0f}", f"{found.flops[kind] / spent / 1e9:.0f}"]
    for kind, spent in sorted(found.seconds.items(), key=lambda item: -item[1])
]
table(["fused L1", "ms", "% of time", "GFLOP/s"], [*lines, ["all", f"{1000 * elapsed / 7:.2f}", "", ""]])

# %% [markdown]
# Matrix products are a larger part of a smaller whole. That is what an efficient network on this machine looks like:
# most of its time goes into the one thing that processors do at their full rate.
#
# ## The paper's four observations, tested again
#
# Section 3 of the paper times existing networks on an iPhone 12, compiled with CoreML, and draws four conclusions,
# which the design of EfficientFormer follows; here they are in our words. A conclusion about one phone and one
# compiler may or may not carry over. We test each with the readable ops, on one core.
#
# ### Observation 1: embedding patches with a large kernel and stride is slow
#
# ViT cuts the picture with one 16 x 16 convolution of stride 16. The paper found this slow on the phone, and took two
# 3x3 convolutions of stride 2 instead. We also try other ways to the same (48, 56, 56).

# %% tags=["timing"]
patch16, patch4, patch7 = weights(448, 3, 16, 16), weights(48, 3, 4, 4), weights(48, 3, 7, 7)
stem1, stem2 = weights(24, 3, 3, 3), weights(48, 24, 3, 3)
ways = {
    "16x16, stride 16 (ViT)": (lambda: ops.conv2d(one_picture, patch16, None, 16), 448 * 14**2 * 768),
    "4x4, stride 4": (lambda: ops.conv2d(one_picture, patch4, None, 4), 48 * 56**2 * 48),
    "7x7, stride 4": (lambda: ops.conv2d(one_picture, patch7, None, 4, 3), 48 * 56**2 * 147),
    "3x3 twice, stride 2 (L1)": (
        lambda: ops.conv2d(ops.conv2d(one_picture, stem1, None, 2, 1), stem2, None, 2, 1),
        24 * 112**2 * 27 + 48 * 56**2 * 216,
    ),
}
seconds = times({name: run for name, (run, _) in ways.items()}, 11)
lines = [
    (
        name,
        "x".join(map(str, run().shape[1:])),
        f"{n / 1e6:.1f}",
        f"{1000 * seconds[name]:.2f}",
        f"{2 * n / seconds[name] / 1e9:.0f}",
    )
    for name, (run, n) in ways.items()
]
table(["patch embedding", "output", "million multiply-adds", "ms", "GFLOP/s"], lines)

# %% [markdown]
# **Does not hold here.** Large patches reach as high a rate as small ones, or a higher one. `conv2d` copies patches
# into columns and multiplies matrices; where patches do not overlap every pixel is copied once, and a long patch
# makes a better matrix product. On the phone the reason was the compiler, which had a fast way for 3x3 convolutions
# and none for 16 x 16. The stacked stem is still worth having, for its accuracy.
#
# ### Observation 2: attention is slow where maps and tokens alternate
#
# Attention works on tokens (B, N, D), convolutions on maps (B, C, H, W). Networks that change between them block by
# block pay for the rearranging, and that, says the paper, is what gave attention its name for being slow. L1 changes
# once. So we time the rearranging, beside attention with L1's eight heads and beside pooling, at the shapes of each
# stage. First the counts:


# %%
def attention_counts(channels, side, heads=8, key_dim=32, value_dim=128):
    """Multiply-adds of the linear layers around attention, of attention itself, and the bytes of its scores."""
    tokens = side**2
    linear = tokens * channels * heads * (2 * key_dim + value_dim) + tokens * heads * value_dim * channels
    return linear, heads * tokens**2 * (key_dim + value_dim), FLOAT * heads * tokens**2


counts = {side: attention_counts(channels, side) for channels, side in L1_STAGES}
lines = [
    [
        f"{c} x {s} x {s}",
        s**2,
        f"{counts[s][0] / 1e6:,.0f}",
        f"{counts[s][1] / 1e6:,.0f}",
        f"{counts[s][2] / 1e6:,.1f}",
    ]
    for c, s in L1_STAGES
]
table(["stage", "tokens", "linear layers, M", "attention, M", "scores, MB"], lines)
with_attention = sum(row[1] for row in l1_rows if row[0] == "attention")
assert with_attention == counts[7][1]

# %% tags=["timing"]
lines = []
for channels, side in L1_STAGES:
    map_ = normal(1, channels, side, side)
    tokens = np.ascontiguousarray(map_.reshape(1, channels, side**2).swapaxes(1, 2))
    mixers = {
        "there": lambda m=map_, c=channels, n=side**2: np.ascontiguousarray(m.reshape(1, c, n).swapaxes(1, 2)),
        "back": lambda t=tokens, shape=map_.shape: np.ascontiguousarray(t.swapaxes(1, 2)).reshape(shape),
        "pooling": lambda m=map_: ops.pool_mixer(m),
    }
    if side < 56:  # at 56 x 56 the scores alone would fill hundreds of megabytes
        sizes = {"hidden_sizes": [48, 96, channels, channels], "dim": channels, "resolution": side}
        mixer = EfficientFormerSelfAttention(EfficientFormerConfig.for_variant("efficientformer-l1", **sizes))
        mixer.qkv.weight = weights(*mixer.qkv.weight.shape)
        mixer.projection.weight = weights(*mixer.projection.weight.shape)
        mixers["attention"] = lambda mixer=mixer, t=tokens: mixer(t)
    ms = {name: 1000 * value for name, value in times(mixers, 3).items()}
    last = f"{ms['attention']:.2f}" if "attention" in ms else "-"
    lines.append([f"{channels} x {side} x {side}", f"{ms['there'] + ms['back']:.3f}", f"{ms['pooling']:.2f}", last])
table(["ms", "to tokens and back", "pooling", "attention"], lines)
around_all = sum(depth * float(line[1]) for depth, line in zip((3, 2, 6, 4), lines))
print(f"to tokens and back around all blocks of L1: {around_all:.1f} ms of its {whole:.0f}")

# %% [markdown]
# **Holds in half.** Rearranging is a copy, and a copy of a map costs little beside anything else in a block: around
# every block of L1 it would add a few hundredths to the time at most. (A `reshape` by itself is free in NumPy: it
# changes how memory is read. It is the transposition that copies.) But the design that the observation led to,
# attention only where tokens are few, is right here as well, for another reason. At 7 x 7 attention's own products
# are a small part of the linear layers around it. At 28 x 28 they are four times as much, since they grow with the
# square of the tokens, and the time grows faster still: the scores are megabytes now, and softmax goes over them
# again and again.
#
# ### Observation 3: convolution and batch norm beat layer norm and linear
#
# A batch norm's statistics are constants at inference and fold into the convolution before it. A layer norm's depend
# on its input and must be computed every time. We time the widening step of every stage, C to 4C: the bare product,
# with a batch norm that is not folded, and after a layer norm.

# %%
conv, statistics = weights(192, 48, 1, 1), [normal(192), normal(192) ** 2 + 1, normal(192), normal(192)]
map_ = normal(1, 48, 56, 56)
mean, variance, gamma, beta = (values.astype(np.float64) for values in statistics)
factor = gamma / np.sqrt(variance + 1e-5)
folded = (conv * factor[:, None, None, None]).astype(np.float32), (beta - mean * factor).astype(np.float32)
difference = np.abs(ops.conv2d(map_, *folded) - ops.batch_norm(ops.conv2d(map_, conv), *statistics)).max()
assert difference < 1e-5
print("folded or not: the same to 1e-5")

# %% tags=["timing"]
lines = []
for channels, side in L1_STAGES:
    map_, conv, bias = normal(1, channels, side, side), weights(4 * channels, channels, 1, 1), normal(4 * channels)
    tokens, matrix = normal(1, side**2, channels), conv[:, :, 0, 0].copy()
    statistics = [normal(4 * channels), normal(4 * channels) ** 2 + 1, normal(4 * channels), normal(4 * channels)]
    scale, shift = normal(channels), normal(channels)
    seconds = times(
        {
            "folded": lambda m=map_, w=conv, b=bias: ops.conv2d(m, w, b),
            "unfolded": lambda m=map_, w=conv, s=statistics: ops.batch_norm(ops.conv2d(m, w), *s),
            "linear": lambda t=tokens, w=matrix, b=bias: ops.linear(t, w, b),
            "normed": lambda t=tokens, w=matrix, b=bias, g=scale, h=shift: ops.linear(
                ops.layer_norm(t, g.shape, g, h), w, b
            ),
        },
        11,
    )
    lines.append([f"{channels} x {side} x {side}", *(f"{1000 * value:.2f}" for value in seconds.values())])
table(["ms", "conv, norm folded in", "conv, batch norm", "linear", "layer norm, linear"], lines)

# %% [markdown]
# **Holds.** The convolution and the linear layer are the same matrix product and take about as long as each other.
# The folded norm costs nothing, the layer norm a good part of the product it stands before, most where tokens are
# many and narrow. That is why Meta4D blocks have batch norms, and layer norms appear only with the 49 tokens at the
# end.
#
# ### Observation 4: what an activation costs depends on hardware and compiler
#
# On the phone GELU was as fast as ReLU and HardSwish slow, and the paper kept GELU. Here are activations of the
# widest map of L1, (192, 56, 56), as the readable ops compute them and, where it has one, as the fast side does.

# %% tags=["timing"]
wide = normal(1, 192, 56, 56)
scratch = np.empty_like(wide)
functions = {
    "ReLU": ops.relu,
    "HardSwish": lambda x: x * np.clip(x + np.float32(3), 0, 6) / np.float32(6),
    "SiLU": ops.silu,
    "GELU, tanh form": ops.ACT2FN["gelu_new"],
    "GELU": ops.gelu,
}
seconds = times({name: lambda f=f: f(wide) for name, f in functions.items()}, 11)
fast = {name: kernels.activation(functions[name]).apply for name in ("ReLU", "SiLU", "GELU")}
fast_seconds = times({name: lambda f=f: f(wide, scratch) for name, f in fast.items()}, 11)
fast_ms = {name: f"{1000 * value:.2f}" for name, value in fast_seconds.items()}
lines = [
    [name, f"{1000 * value:.2f}", f"{value / seconds['ReLU']:.1f}", fast_ms.get(name, "-")]
    for name, value in seconds.items()
]
table(["activation", "ms", "times ReLU", "ms, fast side"], lines)

# %% [markdown]
# **Holds**, in the sense that the ranking is another one here: GELU takes several times as long as ReLU, and
# HardSwish is cheaper than GELU. Each pass over the map costs about the same, and NumPy needs one for a ReLU and
# more than ten for an exact GELU. Whoever designs a network for this machine would ask twice whether it needs GELU;
# whoever designs for the phone need not.
#
# | observation | on the paper's phone | here |
# |---|---|---|
# | 1. large patches are slow | yes: no fast kernel for them | no: a matrix product like any other |
# | 2. changing between maps and tokens is slow | yes | no; but attention on many tokens is |
# | 3. batch norm beats layer norm | yes: it folds away | yes, for the same reason |
# | 4. activations depend on hardware | GELU as fast as ReLU | GELU several times slower |
#
# Two of the four hold and a third in half, on one other machine. This is no criticism of the paper, whose point it
# is: **measure where you want to be fast.**
#
# ## Three networks, one clock
#
# The same goes for whole networks. The counts need no clock:

# %%
names = ["efficientformer-l1", "swiftformer-xs", "efficientnet-b0"]
xs = randomize(npformer.get_model("swiftformer-xs", seed=0), 224)
models = {"efficientformer-l1": l1, "swiftformer-xs": xs, "efficientnet-b0": b0}
lines = []
for name in names:
    rows = census(models[name], one_picture)
    million = VARIANTS[name].multiply_adds / 1e6
    depthwise_part = sum(row[1] for row in rows if row[0] == "depthwise") / VARIANTS[name].multiply_adds
    lines.append([name, f"{million:,.0f}", f"{100 * depthwise_part:.1f}", VARIANTS[name].top1])
table(["", "million multiply-adds", "% of them depthwise", "top-1"], lines)
fewer = VARIANTS["efficientformer-l1"].multiply_adds / VARIANTS["efficientnet-b0"].multiply_adds
print(f"B0 has {fewer:.1f} times fewer multiply-adds than L1")

# %% [markdown]
# **Predict, then run.** If multiply-adds were time, how many times as fast as L1 would B0 be? And is it?

# %% tags=["timing"]
fast_models = {name: npformer.fuse(model) for name, model in models.items()}
one = times({name: lambda model=model: model(one_picture) for name, model in fast_models.items()}, 3)
rate = {name: 2 * VARIANTS[name].multiply_adds / one[name] / 1e9 for name in names}
lines = [(name, f"{1000 * one[name]:.1f}", f"{one[names[0]] / one[name]:.1f}", f"{rate[name]:.0f}") for name in names]
table(["fused, batch 1", "ms", "times as fast as L1", "GFLOP/s"], lines)

npformer.set_num_threads(2)
two = times({"l1": lambda: fast_models["efficientformer-l1"](one_picture)}, 5)["l1"]
npformer.set_num_threads(1)
print(f"L1 on two threads: {1000 * two:.1f} ms")

# %% [markdown]
# B0 gains far less time than multiply-adds. It gets through them at about half of L1's rate: its depthwise
# convolutions are a small part of the count and a large part of the clock, and its wide maps meet more activations
# per multiply-add. And SwiftFormer-XS, with a good half more multiply-adds than B0, takes about as long as it does.
#
# Two threads are not twice as fast. At batch 1 the pieces of work are short, and threads wait for each other at the
# end of every one.
#
# ## Slimming by latency
#
# Section 4.2 of the paper turns all this into a search. Its supernet is a large network in which every block has a
# learned importance. Then:
#
# 1. measure a *look-up table*: the latency of each kind of block, in each stage, at widths that are multiples of 16;
# 2. again and again, consider each way to make the network smaller (drop a block, narrow a stage) and take the one
#    that costs the least accuracy *per millisecond saved*;
# 3. stop when the sum over the table is within the budget, and train what is left.
#
# Here is such a table. We build networks like L1, with three widths for each stage, and read off the laps of their
# fused blocks.

# %% tags=["timing"]
WIDTHS = [(32, 64, 112, 224), (48, 96, 160, 336), (64, 128, 224, 448)]
curves = {}
for sizes in WIDTHS:
    options = {"depths": [1, 1, 1, 2], "hidden_sizes": list(sizes), "dim": sizes[-1]}
    config = EfficientFormerConfig.for_variant("efficientformer-l1", **options)
    like_l1 = randomize(EfficientFormerForImageClassification(config, init_weights=False), 224)
    costs = {row.name: row.multiply_adds for row in summarize(like_l1, 224, 224)}
    quick = npformer.fuse(like_l1)
    lap_ms = dict(zip(laps(quick, one_picture)[0], median_laps(quick, one_picture, 5)))
    for name, ms in lap_ms.items():
        if name.endswith("blocks.0"):
            curves.setdefault(name, []).append((costs[name] / 1e6, ms))

# %% tags=["timing"]
ends = []
labels = ["stage 1, pooling", "stage 2, pooling", "stage 3, pooling", "stage 4, pooling", "stage 4, attention"]
figure, axes = new_figure(height=3.3)
for points, label, colour in zip(curves.values(), labels, ("blue", "green", "pink", "grey", "orange")):
    x_values, y_values = zip(*points)
    axes.plot(x_values, y_values, "o-", color=COLOURS[colour], markersize=4)
    ends.append((y_values[-1], x_values[-1], label, colour))
lowest = 0.0
for y, x, label, colour in sorted(ends):  # labels from the bottom up, apart from each other
    lowest = max(y, lowest + 0.06 * max(ends)[0])
    axes.plot([x, 148], [y, lowest], color=COLOURS[colour], linewidth=0.6, linestyle=":")
    axes.text(150, lowest, label, color=COLOURS[colour], va="center", fontsize=9)
axes.set(xlabel="million multiply-adds of one block", ylabel="milliseconds", xlim=(0, 190), ylim=(0, None))
show(
    figure,
    "Figure 10.4. A look-up table: one block of each kind at three widths. The same multiply-adds take more time in "
    "one stage than in another.",
    "Five rising lines of milliseconds over multiply-adds. The line of stage 1 lies highest, that of stage 3 lowest, "
    "the attention block's between.",
)

# %% [markdown]
# One count, different times, once more. In the first stage a map has few channels and many pixels: for every
# multiply-add there are more numbers to pool, to bend and to add. In the last one 49 pixels meet large matrices, and
# reading those takes time of its own (its intensity in the table above was low again). A search by multiply-adds
# would see none of that.
#
# ### A trained network to slim
#
# The search needs importances of trained blocks. We have no supernet, but the shipped `efficientformer-fashion` is
# trained, and
# by count its five pooling blocks are as alike as blocks can be:

# %%
block_names = [name for name, _ in shipped.named_modules() if name.split(".")[-2:-1] == ["blocks"]]
short = ["stage 1", "stage 2", "stage 3 a", "stage 3 b", "stage 4", "attention 1", "attention 2"]
costs = {row.name: row for row in summarize(shipped, 224, 224)}
lines = [
    [label, "x".join(map(str, costs[name].shape[1:])), f"{costs[name].multiply_adds:,}"]
    for label, name in zip(short, block_names)
]
table(["block", "shape", "multiply-adds"], lines)
assert len({costs[name].multiply_adds for name in block_names[:5]}) == 1

# %% [markdown]
# All five pooling blocks have the same multiply-adds, to the last one: whenever the side halves, the channels double.
#
# **Predict, then run.** Which of the five is slowest, and by how much? The table below measures them.
#
# To narrow a block we shall keep a quarter or a half of the hidden channels of its MLP; to drop it we hand on what
# it was given. Which hidden channels to keep? Those that move the result most: the deviation of the channel over
# some pictures times the length of its row in the second matrix. A channel that is cut is replaced by its mean,
# which goes into the bias.

# %%
grey, classes = pictures(100)
processor = npformer.AutoImageProcessor.from_pretrained("efficientformer-fashion")
pixels = processor(list(np.repeat(grey[..., None], 3, axis=-1)), return_tensors="np")["pixel_values"]
fused = npformer.fuse(shipped)
fused_blocks = dict(fused.named_modules())
seen = npformer.record(shipped, pixels[:20])
LEVELS = [0, 0.25, 0.5, 1]  # of the hidden channels; 0: no block at all


def narrowed(name, level):
    """A fused block with that part of its MLP's hidden channels; None for level 0."""
    if level in (0, 1):
        return fused_blocks[name] if level else None
    block = copy.deepcopy(fused_blocks[name])
    mlp, hidden = block.fused_mlp, seen[f"{name}.mlp.activation"]
    axes = (0, 2, 3) if hidden.ndim == 4 else (0, 1)
    rows = mlp.narrow / np.float32(mlp.act.scale_out)  # (4C, C): what one channel adds to the result
    order = np.argsort(-hidden.std(axes) * np.linalg.norm(rows, axis=1))
    keep, cut = np.sort(order[: int(level * len(order))]), order[int(level * len(order)) :]
    mlp.narrow_bias = mlp.narrow_bias + hidden.mean(axes)[cut] @ rows[cut]
    mlp.expand, mlp.expand_bias = np.ascontiguousarray(mlp.expand[:, keep]), mlp.expand_bias[keep]
    mlp.narrow = np.ascontiguousarray(mlp.narrow[keep])
    return block


variants = [{level: narrowed(name, level) for level in LEVELS} for name in block_names]

# %% [markdown]
# The look-up table of this network, measured on your machine: each block at each level, on the values that reach it.
# The *rest* is what no search can touch: the stem, the steps between stages, the head.

# %%
encoder = fused.efficientformer.encoder
before = {  # what comes before a block, other than the block ahead of it
    0: fused.efficientformer.patch_embed, 1: encoder.intermediate_stages[1], 2: encoder.intermediate_stages[3],
    4: encoder.intermediate_stages[5], 5: encoder.last_stage.flat,
}  # fmt: skip


def first_of(result):
    return result[0] if isinstance(result, tuple) else result  # attention blocks also return their probabilities


def head(tokens):
    return fused.classifier(ops.token_mean(fused.efficientformer.layernorm(tokens)))  # (B, 10)


# %% tags=["timing"]
def measured_table(rounds=9):
    """Milliseconds (7, 4) of every block at every level, and of everything else."""
    functions, x = {}, pixels[:1]
    for i, by_level in enumerate(variants):
        if i in before:
            functions[f"rest {i}"] = lambda f=before[i], x=x: f(x)
            x = before[i](x)
        for level in LEVELS[1:]:
            functions[i, level] = lambda f=by_level[level], x=x: f(x)
        x = first_of(by_level[1](x))
    functions["rest 7"] = lambda x=x: head(x)
    seconds = times(functions, rounds)
    ms = 1000 * np.array([[seconds.get((i, level), 0.0) for level in LEVELS] for i in range(7)])
    return ms, 1000 * sum(value for name, value in seconds.items() if str(name).startswith("rest"))


my_ms, my_rest = measured_table()
lines = [[label, *(f"{value:.2f}" for value in row)] for label, row in zip(short, my_ms)]
table(["ms on this machine", "dropped", "a quarter", "a half", "whole"], lines)
print(f"the rest: {my_rest:.2f} ms; all: {my_ms[:, -1].sum() + my_rest:.2f} ms")

# %% [markdown]
# The first stage's block takes about twice as long as the last one's, for the same multiply-adds; and an attention
# block, with more of them, on 49 tokens, is mostly small operations that Python has to start one by one. Halving the
# hidden channels does not halve the time either: pooling and additions stay.
#
# Since your table differs from everyone else's, the rest of the lesson goes on with a recording of this one, made on
# a machine with two cores (one thread). Put `my_ms` and `my_rest` in its place to slim for your own.

# %%
RECORDED = np.array(  # ms; columns: dropped, a quarter, a half, whole
    [
        [0.00, 0.32, 0.43, 0.65],
        [0.00, 0.22, 0.29, 0.42],
        [0.00, 0.19, 0.23, 0.33],
        [0.00, 0.18, 0.23, 0.33],
        [0.00, 0.16, 0.22, 0.32],
        [0.00, 0.46, 0.48, 0.59],
        [0.00, 0.41, 0.47, 0.58],
    ]
)
RECORDED_REST = 1.26
print(f"recorded: {RECORDED[:, -1].sum():.2f} ms in blocks, {RECORDED_REST:.2f} ms in the rest")

# %% [markdown]
# ### What a block is worth
#
# The importance of a block is what goes wrong without it. With `npformer.watch` that takes three lines: an observer
# may return another value than it was shown, so let it return the block's *input*.


# %%
def skip(name):
    """An observer that undoes one block."""
    return lambda seen_name, module, inputs, output, layout: inputs[0] if seen_name == name else output


with npformer.watch(fused, skip(block_names[0])):
    skipped = fused(pixels).logits
right = int((skipped.argmax(1) == classes).sum())
print(f"without stage 1's: {right} of {len(classes)} right, cross-entropy {ops.cross_entropy(skipped, classes):.2f}")

# %% [markdown]
# One hundred pictures give an accuracy to about three percentage points, so as importance we take the rise of the
# cross-entropy, which hears of every picture and not only of those that change sides. We shall need many
# combinations; all that begin with the same blocks share what these compute, so it is kept.


# %%
stem = before[0](pixels)


@lru_cache(32)
def after(levels):
    """What leaves the last of these blocks, for all pictures."""
    i = len(levels) - 1
    x = after(levels[:-1]) if i else stem
    x = before[i](x) if i in before and i else x
    block = variants[i][levels[-1]]
    return x if block is None else first_of(block(x))


def judged(levels):
    """Accuracy and cross-entropy of the network with every block at the given level."""
    i = len(levels) - 1
    block, x = variants[i][levels[-1]], after(levels[:-1])
    logits = head(x if block is None else first_of(block(x)))
    return float((logits.argmax(1) == classes).mean()), float(ops.cross_entropy(logits, classes))


full = judged((1,) * 7)
changed = [[judged((1,) * i + (level,) + (1,) * (6 - i)) for level in LEVELS] for i in range(7)]
print(f"all blocks: {100 * full[0]:.0f} % right, cross-entropy {full[1]:.2f}")
rise = np.array([[loss - full[1] for _, loss in row] for row in changed])  # (7, 4)
assert abs(changed[0][0][1] - ops.cross_entropy(skipped, classes)) < 1e-4  # skipped as above, by `watch`

# %%
figure, axes = new_figure(height=2.9)
drawn = axes.imshow(rise.T, cmap="viridis", aspect="auto", vmin=0, vmax=0.5)
for i, row in enumerate(rise):
    for j, value in enumerate(row):
        colour = COLOURS["ink"] if value > 0.3 else "white"
        axes.text(i, j, f"{value:+.2f}".replace("-0.00", "+0.00"), ha="center", va="center", color=colour)
axes.set_xticks(range(7), short, fontsize=9)
axes.set_yticks(range(4), ["dropped", "a quarter", "a half", "whole"])
axes.tick_params(length=0)
show(
    figure,
    "Figure 10.5. How much the cross-entropy of one hundred pictures rises when one block is dropped or narrowed.",
    "A table of seven blocks by four levels. Dropping the last attention block costs most, dropping stage 2's almost "
    "nothing; at half width every block costs little.",
)

# %% [markdown]
# The second stage's block is nearly worthless, the last attention block the most precious. And narrowing
# is cheap everywhere: much of the MLPs' width is spare.
#
# ### The search
#
# Greedy, as in the paper: of all ways to lower one block by one level or more, take that with the least rise per
# millisecond saved, until nothing is left. The importances are those measured one block at a time; that they add up
# is an assumption, and we check it by judging each network on the way.


# %%
def slim(ms, rise, columns):
    """Levels of every block along the greedy path, from whole to nothing: a list of tuples of column numbers."""
    state = [len(LEVELS) - 1] * len(ms)
    path = [tuple(state)]
    while any(state):
        steps = [
            ((rise[i, to] - rise[i, now]) / (ms[i, now] - ms[i, to]), i, to)
            for i, now in enumerate(state)
            for to in columns
            if to < now and ms[i, to] < ms[i, now]
        ]
        _, i, to = min(steps)
        state[i] = to
        path.append(tuple(state))
    return path


def predicted(state, ms=RECORDED, rest=RECORDED_REST):
    return rest + sum(ms[i, column] for i, column in enumerate(state))


def levels_of(state):
    return tuple(LEVELS[column] for column in state)


# %%
everything = predicted((3,) * 7)
path = [state for state in slim(RECORDED, rise, [0, 1, 2]) if predicted(state) > 0.48 * everything]
drop_only = [state for state in slim(RECORDED, rise, [0]) if predicted(state) > 0.48 * everything]
few = [tuple(3 * on for on in kept) for kept in product((0, 1), repeat=7) if sum(kept) >= 5]
accuracy = {state: judged(levels_of(state))[0] for state in sorted({*few, *drop_only, *path})}

# %%
NAMES = ["dropped", "a quarter", "a half", "whole"]
lines = []
for earlier, state in pairwise(path):
    i = next(i for i in range(7) if state[i] != earlier[i])
    lines.append([short[i], NAMES[state[i]], f"{predicted(state):.2f}", f"{100 * accuracy[state]:.0f}"])
table(["block", "to", "ms predicted", "% right"], lines)

# %%
figure, axes = new_figure(height=3.6)
cloud = np.array([(predicted(state), 100 * accuracy[state]) for state in few])
axes.plot(*cloud.T, "o", color=COLOURS["grey"], markersize=4, alpha=0.5, markeredgewidth=0)
for states, colour, label in (
    (drop_only, "orange", "dropping blocks, greedily"),
    (path, "blue", "dropping and narrowing, greedily"),
):
    points = np.array([(predicted(state), 100 * accuracy[state]) for state in states])
    axes.plot(*points.T, "o-", color=COLOURS[colour], markersize=5, linewidth=1.5, label=label)
axes.plot(everything, 100 * full[0], "*", color=COLOURS["ink"], markersize=12)
axes.text(everything, 100 * full[0] + 3, "whole", ha="center")
axes.set(xlabel="milliseconds, by the recorded table", ylabel="% of 100 pictures right", ylim=(40, 100))
axes.legend(loc="lower right", fontsize=9)
show(
    figure,
    "Figure 10.6. What the slimmed networks still know, untrained since. Grey: every network with one or two of the "
    "seven blocks dropped.",
    "Accuracy over predicted milliseconds. Dropping blocks falls quickly after the first; dropping and narrowing "
    "stays near the whole network's accuracy for much longer, above the grey points.",
)

# %% [markdown]
# Among the networks that only drop blocks (grey) the greedy path (orange) keeps close to the upper edge, and needed
# seven numbers rather than every combination. But all of them pay dearly from the second block on. With widths to
# choose from the path (blue) goes much further before it falls: this is why the paper searches over depth *and*
# width. In the end it falls too. Importances were measured one at a time, and when everything is narrow there is
# nothing left to take over. (That slimmed networks now and then beat the whole one by a picture or three is chance:
# one hundred pictures cannot tell.)

# %%
budget = 0.8 * everything
chosen = next(state for state in path if predicted(state) <= budget)
by_budget = {state: accuracy[state] for state in few if predicted(state) <= budget}
best_drop = max(by_budget.values())
print(f"whole: {everything:.2f} ms, {100 * full[0]:.0f} % right; budget {budget:.2f} ms")
print(f"greedy, depth and width: {predicted(chosen):.2f} ms, {100 * accuracy[chosen]:.0f} % right")
print(f"the best that drops one or two blocks whole: {100 * best_drop:.0f} % right")
print(", ".join(f"{label} {NAMES[column]}" for label, column in zip(short, chosen)))
assert accuracy[chosen] > best_drop
assert accuracy[chosen] > full[0] - 0.06

# %% [markdown]
# ### Does the table tell the truth?
#
# The search added up milliseconds that were measured block by block. A real model may be slower (blocks push each
# other's values out of the cache) or faster. So we build some: a block that is dropped leaves the list of its stage,
# and the model is an ordinary, shorter one.


# %%
def built(levels):
    """The fused model with every block at the given level."""
    model = copy.deepcopy(fused)
    modules = dict(model.named_modules())
    for name, level, by_level in zip(block_names, levels, variants):
        row, _, number = name.rpartition(".")
        if level == 0:
            delattr(modules[row], number)
        else:
            setattr(modules[row], number, by_level[level])
    return model


slimmed = built(levels_of(chosen))
logits = slimmed(pixels).logits
assert (logits.argmax(1) == classes).mean() == accuracy[chosen]
print(f"the model that was built: {(logits.argmax(1) == classes).sum()} of {len(classes)} right, as judged before")

# %% tags=["timing"]
some = [state for state in [*path[::3], *drop_only[1:]] if state in accuracy]
candidates = {state: built(levels_of(state)) for state in some}
real = times({state: lambda model=model: model(pixels[:1]) for state, model in candidates.items()}, 9)

# %% tags=["timing"]
points = np.array([(predicted(state, my_ms, my_rest), 1000 * real[state]) for state in some])

figure, axes = new_figure(width=4.2, height=3.4)
limit = 1.08 * points.max()
axes.plot([0, limit], [0, limit], color=COLOURS["grey"], linestyle=":")
axes.plot(*points.T, "o", color=COLOURS["blue"])
axes.set(
    xlabel="ms predicted: sum over the table", ylabel="ms measured, whole model", xlim=(0, limit), ylim=(0, limit)
)
show(
    figure,
    "Figure 10.7. Sums over the table measured on this machine against whole slimmed models.",
    "Points of predicted against measured milliseconds, close to the dotted diagonal and slightly above it.",
)

# %% tags=["timing"]
mine = next(
    state
    for state in slim(my_ms, rise, [0, 1, 2])
    if predicted(state, my_ms, my_rest) <= 0.8 * predicted((3,) * 7, my_ms, my_rest)
)
print("by this machine's own table, to four fifths of the time:")
print(", ".join(f"{label} {NAMES[column]}" for label, column in zip(short, mine)))

# %% [markdown]
# The sum is right to within a tenth. Latency adds up here because one op runs after the other, on one thread; on a
# machine that overlaps them it would not.
#
# What the paper does after this, and we do not: train the slimmed network. An untrained one shows where the spare
# time is, not how good it could become.
#
# ## Exercises
#
# ### Exercise 10.1: the intensity of a convolution
#
# Write `intensity(in_channels, out_channels, kernel, side, groups)`: the arithmetic intensity, in operations per
# byte, of a convolution of stride 1 that keeps the size of a map of side x side pixels, float32, batch 1, no bias. A
# multiply-add is two operations; input, weights and output are each moved once. For `intensity(48, 192, 1, 56, 1)`
# it is the first number of the table of intensities above.


# %% tags=["exercise"]
def intensity(in_channels, out_channels, kernel, side, groups):
    """Operations per byte."""
    ...


# %% tags=["check"]
checks.intensity(intensity)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Every output number takes in_channels / groups * kernel² multiply-adds. How many weights are there? As many per
# output channel.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def intensity(in_channels, out_channels, kernel, side, groups):
#     """Operations per byte."""
#     per_output = in_channels // groups * kernel**2
#     operations = 2 * per_output * out_channels * side**2
#     numbers = in_channels * side**2 + out_channels * per_output + out_channels * side**2
#     return operations / (4 * numbers)
# ```
#
# With `groups` equal to the channels the operations fall by that factor and the maps do not: intensity falls with
# them.
#
# </details>

# %% [markdown]
# ### Exercise 10.2: a roofline's forecast
#
# Write `least_ms(operations, moved, gflops, gbytes)`: the least milliseconds that an op with so many operations and
# bytes takes on a machine that can do `gflops` 1e9 operations and move `gbytes` 1e9 bytes a second. In the example
# below arithmetic decides.


# %% tags=["exercise"]
def least_ms(operations, moved, gflops, gbytes):
    """Milliseconds: least_ms(4e8, 1e6, 100, 20) is 4.0."""
    ...


# %% tags=["check"]
checks.least_ms(least_ms)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Two times: as if only arithmetic took any, as if only memory did. They overlap, so the longer one counts.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def least_ms(operations, moved, gflops, gbytes):
#     """Milliseconds."""
#     return max(operations / gflops, moved / gbytes) / 1e6
# ```
#
# The billion in both rates and the thousand of the milliseconds leave a million.
#
# </details>

# %% [markdown]
# ### Exercise 10.3: what a list of timings says
#
# `as_fast(old, new, warm_up)` gets two lists of milliseconds, taken in turns, and how many runs at the start of each
# are for warming up. Return how many times as fast the new function is as the old one, so that a few interrupted
# runs change nothing: 2.0 if it takes half the time.


# %% tags=["exercise"]
def as_fast(old, new, warm_up):
    """Times as fast, above 1 if new is faster."""
    ...


# %% tags=["check"]
checks.as_fast(as_fast)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Cut the first runs off, then `np.median` of each. Which goes on top?
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def as_fast(old, new, warm_up):
#     """Times as fast, above 1 if new is faster."""
#     return float(np.median(old[warm_up:]) / np.median(new[warm_up:]))
# ```
#
# A quarter of all runs may be disturbed by any amount, and the medians hardly move; of a mean a single run is enough.
#
# </details>

# %% [markdown]
# ### Exercise 10.4: pooling or attention
#
# Write `attention_multiply_adds(channels, side, heads, key_dim, value_dim)`: all multiply-adds of EfficientFormer's
# attention on side x side tokens: one linear layer makes queries, keys (`key_dim` per head) and values (`value_dim`
# per head), queries meet keys, probabilities meet values, one linear layer brings heads back to `channels`. Pooling
# has none. The result for L1 should be what `summarize` says of its `token_mixer`.


# %% tags=["exercise"]
def attention_multiply_adds(channels, side, heads, key_dim, value_dim):
    """Multiply-adds for one picture."""
    ...


# %% tags=["check"]
checks.attention_multiply_adds(attention_multiply_adds)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Four products. Two are linear layers: tokens times inputs times outputs. Two run over pairs of tokens: for every
# head and pair, key_dim multiply-adds for the score and value_dim for the result.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def attention_multiply_adds(channels, side, heads, key_dim, value_dim):
#     """Multiply-adds for one picture."""
#     tokens = side**2
#     qkv = tokens * channels * heads * (2 * key_dim + value_dim)
#     pairs = heads * tokens**2 * (key_dim + value_dim)
#     projection = tokens * heads * value_dim * channels
#     return qkv + pairs + projection
# ```
#
# The middle term alone grows with the fourth power of the side. Twice the picture, sixteen times the pairs.
#
# </details>

# %% [markdown]
# ### Exercise 10.5: slim to a budget
#
# Write `to_budget(ms, rise, rest, budget)`: `ms` and `rise` hold the milliseconds and the importance of each block,
# `rest` the milliseconds of everything else. Drop blocks, each time the one with the least importance per
# millisecond saved, and stop as soon as the whole takes no more than `budget` milliseconds. Return the numbers of
# the dropped blocks, in the order in which they went. If the budget is met from the start that is `[]`; if it never
# is, it is all blocks. Example: `to_budget([2, 1, 4], [4, 1, 2], 1, 4.5)` is `[2]`: block 2 costs half a unit per
# millisecond, the others one or two.


# %% tags=["exercise"]
def to_budget(ms, rise, rest, budget):
    """The dropped blocks: to_budget([2, 1, 4], [4, 1, 2], 1, 4.5) is [2]."""
    ...


# %% tags=["check"]
checks.to_budget(to_budget, RECORDED[:, -1], rise[:, 0], RECORDED_REST)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Importances do not change on the way, so one sorting by rise / ms gives the order for good. What is left to find is
# where to stop.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def to_budget(ms, rise, rest, budget):
#     """The dropped blocks, a list of numbers."""
#     left, dropped = rest + sum(ms), []
#     for i in sorted(range(len(ms)), key=lambda i: rise[i] / ms[i]):
#         if left <= budget:
#             break
#         left -= ms[i]
#         dropped.append(i)
#     return dropped
# ```
#
# This is the greedy answer to a knapsack problem: good, quick, and not always the best. The last block to go may save
# far more than was still needed.
#
# </details>

# %% [markdown]
# ## Further reading
#
# - Yanyu Li et al., [EfficientFormer: Vision Transformers at MobileNet Speed](https://arxiv.org/abs/2206.01191),
#   2022: section 3 for the observations, section 4.2 for the slimming.
# - Samuel Williams et al., *Roofline: An Insightful Visual Performance Model for Multicore Architectures*, 2009.
# - Ningning Ma et al., [ShuffleNet V2](https://arxiv.org/abs/1807.11164), 2018: guidelines from direct measurements
#   rather than FLOPs.
# - [npformer/bench](../npformer/bench) times models in processes of their own, in random order; `npformer bench
#   --help` says how.
#
# Next: [11. Parity](11_parity.ipynb), on finding the first layer in which two implementations differ.
