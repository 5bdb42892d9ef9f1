# %% [markdown]
# # 9. SwiftFormer: additive attention, linear against quadratic cost, and the softmax that does nothing
#
# After this lesson you can write SwiftFormer's attention from memory, say what it costs and what it cannot do, and
# rebuild its blocks layer by layer. You will also have met a softmax over a single number, in published code, and have
# shown that it does nothing.
#
# You need: lessons [2](02_convolution.ipynb), [3](03_normalisation.ipynb) and [6](06_attention.ipynb).
# Time: about 25 minutes.

# %%
import json
import math

import numpy as np
from course import COLOURS, agree, new_figure, picture, pictures, recorded, show, source, table, times
from course.checks import lesson_09 as checks
from matplotlib.patches import Rectangle

import npformer
from npformer import ops
from npformer.assets import model_directory, sample_pictures
from npformer.models import swiftformer
from npformer.models.registry import VARIANTS
from npformer.summary import summarize

pytorch = recorded(9)

# %% [markdown]
# ## Why
#
# Attention, as [lesson 6](06_attention.ipynb) built it, compares every token with every other. With N tokens that is a
# table of N x N scores, for each head and each picture. EfficientFormer lives with that by waiting: it uses attention
# only where 7 x 7 tokens are left. SwiftFormer wants attention in all four stages, and the first has 56 x 56 tokens.

# %%
rows = []
for side in (7, 14, 28, 56, 112):
    tokens = side * side
    rows.append([f"{side} x {side}", tokens, f"{tokens * tokens:,}", f"{4 * tokens * tokens / 1e6:.2f}"])
table(["map", "tokens N", "N x N scores", "MB in float32"], rows)

# %% [markdown]
# Twice the side is four times the tokens and sixteen times the scores. At 56 x 56 one head of one picture fills
# 39.34 MB with numbers that are thrown away a moment later.
#
# SwiftFormer's way out: do not compare tokens with each other. Add all queries up to *one* vector, the global query,
# and let every token meet only that.


# %%
def to_scale(axes, x, y, width, height, colour, label, label_at=None):
    """Draw a matrix of height x width numbers, its top left corner at (x, y)."""
    axes.add_patch(Rectangle((x, y), width, height, facecolor=COLOURS[colour], edgecolor=COLOURS[colour], lw=1))
    axes.text(*(label_at or (x + width / 2, y + height + 10)), label, ha="center", va="top", fontsize=9)


N, D = 14 * 14, swiftformer.VARIANTS["swiftformer-xs"]["embed_dims"][2]
figure, (left, right) = new_figure(1, 2, height=3.3)
to_scale(left, 0, 0, D, N, "blue", f"query\n{N} x {D}")
to_scale(left, D + 15, -D - 15, N, D, "blue", "key, transposed", (D + 15 + N / 2, -D - 48))
to_scale(left, D + 15, 0, N, N, "orange", f"scores\n{N} x {N}")
to_scale(left, D + N + 30, 0, D, N, "grey", f"value\n{N} x {D}")
to_scale(right, 0, 0, D, N, "blue", f"query\n{N} x {D}")
to_scale(right, D + 48, 0, 1, N, "pink", f"weights\n{N} x 1")
to_scale(right, D + 92, N / 2, D, 1, "orange", f"G\n1 x {D}")
to_scale(right, 2 * D + 114, 0, D, N, "blue", f"key\n{N} x {D}")
for axes, title in ((left, "attention"), (right, "additive attention")):
    axes.set(xlim=(-5, 2 * D + N + 35), ylim=(N + 60, -D - 50), aspect="equal")
    axes.set_axis_off()
    axes.text(0, -D - 20, title, fontsize=11)
show(
    figure,
    f"Figure 9.1. The matrices of both, to scale, for {N} tokens of width {D}, as in the third stage of "
    "SwiftFormer-XS. Orange is what the tokens tell each other through: a square that grows with N, or one row.",
    "Two drawings to scale. Left, attention: strips for query, key and value and a large orange square of N by N "
    "scores. Right, additive attention: query and key strips, a thin column of weights, and one orange line, G.",
)

# %% [markdown]
# ## Four tokens, two numbers each
#
# Here are queries and keys of four tokens. In the network each comes from a linear layer of its own; here they are
# chosen so that you can follow with pencil and paper.
#
# First every query and every key is divided by its own length, so that only its direction counts: (3, 4) has length 5
# and becomes (0.6, 0.8). Then the queries are added up: that is the global query G. Last, every key is multiplied by
# G, number by number.

# %%
query = np.array([[3.0, 4.0], [4.0, 3.0], [0.0, 2.0], [-5.0, 0.0]])  # (N, D)
key = np.array([[1.0, 0.0], [0.0, 3.0], [6.0, 8.0], [8.0, -6.0]])

unit_query = query / np.sqrt((query**2).sum(axis=1, keepdims=True))
unit_key = key / np.sqrt((key**2).sum(axis=1, keepdims=True))
G = unit_query.sum(axis=0, keepdims=True)  # (N, D) -> (1, D)
gated = G * unit_key  # (1, D) * (N, D) -> (N, D)
assert np.allclose(unit_query[0], [0.6, 0.8])

steps = {"query": query, "of length 1": unit_query, "their sum: G": G}
steps |= {"key": key, "of length 1 ": unit_key, "G * key": gated}
figure, every_axes = new_figure(1, 6, height=2.2)
for axes, (title, values) in zip(every_axes, steps.items(), strict=True):
    picture(axes, values, title, signed=True, vmin=-12, vmax=12)
    for (i, j), value in np.ndenumerate(values):
        axes.text(j, i, f"{value:.3g}", ha="center", va="center", fontsize=10)
show(
    figure,
    "Figure 9.2. Additive attention by hand; rows are tokens. The three matrices on the left make G out of the "
    "queries, those on the right gate the keys with it.",
    "Six small matrices with their numbers: the queries, the same with length one, their sum G = (0.4, 2.4); the "
    "keys, the same with length one, and each key times G.",
)


# %%
def arrows(axes, vectors, colour, names=None, ahead=1.14, aside=0.0):
    """Draw each vector (x, y) as an arrow from the origin, its name beyond its tip, or aside of it."""
    for i, (x, y) in enumerate(vectors):
        axes.annotate("", (x, y), (0, 0), arrowprops={"arrowstyle": "-|>", "color": COLOURS[colour], "lw": 1.8})
        if names:
            place = ahead * x - aside * y, ahead * y + aside * x
            axes.text(*place, names[i], color=COLOURS[colour], ha="center", va="center", fontsize=10)


figure, (left, right) = new_figure(1, 2, width=5.6, height=3.2)
arrows(left, unit_query, "blue", ["q1", "q2", "q3", "q4"])
arrows(left, G, "orange", ["G"], 1.07)
arrows(right, unit_key, "grey", ["k1", "k2", "k3", "k4"], aside=0.2)
arrows(right, gated, "green")
for axes in (left, right):
    axes.set(xlim=(-1.5, 1.5), ylim=(-1.7, 2.75), aspect="equal", xlabel="first number", ylabel="second number")
show(
    figure,
    "Figure 9.3. Left: the four queries of length one and their sum G; q4 pulls one way, the others outvote it. "
    "Right: the keys (grey) and what G makes of them (green). G is small in the first number and large in the second.",
    "Two planes of arrows. Left: four unit arrows and a long arrow G that points almost straight up. Right: four grey "
    "unit arrows and, in green, the same stretched vertically and squeezed horizontally.",
)

# %% [markdown]
# G says which directions the picture as a whole points in. A key's number passes, even amplified, where G is large,
# and is held back where G is small. It is a gate, one per channel, set by all tokens together and the same for all
# tokens.
#
# ## The formula
#
# Each query gets a weight before it is added. $w_g$ is a learned vector, $\alpha_i$ the weight:
#
# $$q_i = \frac{x_i W_q^\top + b_q}{\lVert\,\cdot\,\rVert},\quad
# k_i = \frac{x_i W_k^\top + b_k}{\lVert\,\cdot\,\rVert},\quad
# \alpha_i = \mathrm{weight}\left(\frac{q_i \cdot w_g}{\sqrt D}\right),\quad
# G = \sum_{i=1}^{N} \alpha_i\, q_i$$
#
# $$y_i = \mathrm{final}\bigl(\mathrm{proj}(G * k_i) + q_i\bigr)$$
#
# | value | shape |
# | --- | --- |
# | x, q, k, y | (B, N, D) |
# | weights | (B, N, 1) |
# | G | (B, 1, D) |
#
# `proj` and `final` are linear layers, D to D. There is no value matrix: the gated key is the value, and the query, of
# length one by now, is added back. There are no heads either.
#
# What is the function "weight"? In the code that was published first, and in transformers today, a softmax over the
# last axis. Keep an eye on it.
#
# ## As loops


# %%
def softmax_of_list(scores):
    """exp of every score, over the sum of all of them."""
    exponentials = [math.exp(score) for score in scores]
    return [e / sum(exponentials) for e in exponentials]


def additive_attention_loops(query, key, w_g):
    """Queries and keys of length one, (N, D) -> G * key, (N, D)."""
    tokens, width = query.shape
    total = np.zeros(width)
    for i in range(tokens):
        score = sum(query[i, c] * w_g[c] for c in range(width)) / math.sqrt(width)
        (weight,) = softmax_of_list([score])  # the last axis of (N, 1) has length one
        total += weight * query[i]
    return np.array([[total[c] * key[i, c] for c in range(width)] for i in range(tokens)])


w_g = np.array([1.0, -1.0])
assert np.allclose(additive_attention_loops(unit_query, unit_key, w_g), gated)

# %% [markdown]
# One pass over the tokens to add up, one to multiply. Nowhere a loop over pairs.
#
# ## The package's own
#
# The same for a batch. It also returns the normalised query, which the layer around it adds back.

# %%
source(ops.efficient_additive_attention)

# %%
context, _ = ops.efficient_additive_attention(query[None], key[None], w_g[:, None])
assert np.allclose(context[0], gated)

source(swiftformer.SwiftFormerEfficientAdditiveAttention.forward)

# %% [markdown]
# Does it give what PyTorch gives? The recorded values come from transformers' own layer with random weights of order
# one, two pictures of ten tokens. Division by the length is `normalize`, as in PyTorch: by `max(length, 1e-12)`, so
# that a vector of zeros stays one. The test includes such a vector and one shorter than 1e-12.

# %%
config = swiftformer.SwiftFormerConfig()


def weights_of(prefix):
    """The recorded weights of one module, by their PyTorch names."""
    return {name.removeprefix(prefix): value for name, value in pytorch.items() if name.startswith(prefix)}


def load(module, prefix):
    """The module in float64 with the recorded weights."""
    return module.astype(np.float64).load_state_dict(weights_of(prefix))


x = pytorch["attn/x"]  # (B, N, D)
attention = load(swiftformer.SwiftFormerEfficientAdditiveAttention(config, x.shape[-1]), "attn.")
agree("normalize", ops.normalize(pytorch["normalize/x"], dim=-1), pytorch["normalize/y"])
agree("attention", attention(x), pytorch["attn/out"])

# %% [markdown]
# ## The softmax that does nothing
#
# A softmax turns scores into weights that sum to 1. The scores have shape (B, N, 1), and the softmax runs over the
# last axis, the one of length one. So it sees one score at a time: $e^{a} / e^{a} = 1$. Every weight is exactly 1,
# whatever the score. $w_g$ is multiplied, scaled, exponentiated, and has no influence on anything.
#
# **Predict, then run.** We replace all $w_g$ of a trained SwiftFormer by random numbers a thousand times as large. How
# far do its logits move?

# %%
model = npformer.get_model("swiftformer-fashion", pretrained=True)
processor = npformer.AutoImageProcessor.from_pretrained("swiftformer-fashion")
samples = list(sample_pictures().items())
images = [npformer.load_image(path) for path, _ in samples]
sample_pixels = processor(images, return_tensors="np")["pixel_values"]  # (B, 3, 96, 96)

rng = np.random.default_rng(0)
attentions = {name: module for name, module in model.named_modules() if name.endswith(".attn")}
changed = {f"{name}.w_g": 1000 * rng.standard_normal(module.w_g.shape) for name, module in attentions.items()}
other = npformer.get_model("swiftformer-fashion", pretrained=True)
other.load_state_dict({**other.state_dict(), **changed})

moved = np.abs(other(sample_pixels).logits - model(sample_pixels).logits).max()
print(f"{len(attentions)} layers have a w_g; the largest change of a logit is {moved}")
assert moved == 0

# %% [markdown]
# Not little: nothing, to the last bit. PyTorch does the same: the recording holds the layer's output with another
# $w_g$, too.

# %%
assert (pytorch["attn/out_other_w_g"] == pytorch["attn/out"]).all()


def sensitivity(array, step=1e-3):
    """The largest change of the attention's output when one number of `array` is moved a little, for each number."""
    before, changes = attention(x), []
    for place in np.ndindex(array.shape):
        kept = array[place]
        array[place] = kept + step
        changes.append(np.abs(attention(x) - before).max() / step)
        array[place] = kept
    return np.array(changes)


for name, array in (("w_g", attention.w_g), ("to_query.bias", attention.to_query.bias)):
    slopes = sensitivity(array)
    print(f"{name:14} {array.size} numbers, change per step: least {slopes.min():.2f}, most {slopes.max():.2f}")
assert not sensitivity(attention.w_g).any()

# %% [markdown]
# Move a number of the query's bias and the output moves; move any of $w_g$ and it stays. That also means that no
# gradient reaches $w_g$ in training: a constant has slope 0. It starts as random numbers with a deviation of about 1,
# and the only thing that ever touches it is weight decay, which shrinks all weights a little at every step.

# %%
for stage_number, module in enumerate(attentions.values(), start=1):
    print(f"stage {stage_number}: root mean square of w_g {np.sqrt(np.mean(module.w_g**2)):.2f}")

# %% [markdown]
# Nothing in there was learned: these are the faded random numbers of the first step.
#
# ### What it might have been
#
# A softmax over the *tokens* (axis 1) gives N weights that sum to 1, and G becomes a weighted mean of the queries. The
# authors, told about the axis, chose something else in July 2023: they divide the scores by their own length over the
# tokens, and published new weights to go with it. Here that is `attention_norm="l2"`, and transformers' is `"ones"`.
# timm follows the later code.

# %%
scores = unit_query @ w_g[:, None] / math.sqrt(2)  # (N, 1)
weightings = {
    '"ones": softmax, last axis': ops.softmax(scores, dim=-1),
    "softmax over the tokens": ops.softmax(scores, dim=0),
    '"l2": over their length': ops.normalize(scores, dim=0),
}
figure, every_axes = new_figure(1, 3, height=2.4, sharey=True)
for axes, (title, weights) in zip(every_axes, weightings.items(), strict=True):
    x_of_G, y_of_G = (weights * unit_query).sum(0)
    axes.bar(["q1", "q2", "q3", "q4"], weights[:, 0], color=COLOURS["blue"])
    axes.axhline(0, color=COLOURS["grey"], lw=0.8)
    axes.set(title=title, xlabel=f"G = ({x_of_G:.2f}, {y_of_G:.2f})", ylim=(-0.9, 1.15))
every_axes[0].set_ylabel("weight")
show(
    figure,
    "Figure 9.4. Three kinds of weight for the four tokens, and the G that each makes. The first ignores the scores; "
    "the second gives weights that sum to 1; in the third their squares do, and they may be negative.",
    "Three bar charts of four weights. Left: all are 1. Middle: positive and unequal, the first two larger. Right: "
    "one positive, three negative, the last two about minus 0.7.",
)

# %%
attention.attention_norm = "l2"
agree('attention, "l2"', attention(x), pytorch["attn/out_l2"])

before = attention(x)
attention.w_g *= 50
print("w_g 50 times as long changes the output:", not np.allclose(attention(x), before))
attention.w_g *= -1
print("w_g turned round changes the output:    ", not np.allclose(attention(x), before))
attention.attention_norm, attention.w_g = "ones", attention.w_g / -50

# %% [markdown]
# In the "l2" form $w_g$ matters, but only its direction: its length cancels in the division. Turned round, it turns
# every weight round, and with them G.
#
# The two generations have the same tensors, of the same names and shapes. Nothing in a file tells which it is, and the
# wrong setting raises no error: the network quietly computes something else.
#
# **Predict, then run.** A picture twice as wide and twice as high has four times the tokens. Say each token appears
# four times. How much longer does G become with each kind of weight?

# %%
tokens = ops.normalize(rng.standard_normal((1, 36, 8)), dim=-1)
scores = tokens @ rng.standard_normal((8, 1)) / math.sqrt(8)


def length_of_G(repeats, weigh):
    """How long G is when every token appears `repeats` times."""
    many, many_scores = np.repeat(tokens, repeats, axis=1), np.repeat(scores, repeats, axis=1)
    return np.linalg.norm((weigh(many_scores) * many).sum(axis=1))


kinds = {
    "ones": np.ones_like,
    "softmax over the tokens": lambda scores: ops.softmax(scores, dim=1),
    "l2": lambda scores: ops.normalize(scores, dim=1),
}
growth = [length_of_G(4, weigh) / length_of_G(1, weigh) for weigh in kinds.values()]
for name, times_as_long in zip(kinds, growth, strict=True):
    print(f"{name:24} G is {times_as_long:.3f} times as long")
assert np.allclose(growth, [4, 1, 2])

# %% [markdown]
# A sum grows with the number of terms, a mean stays. In the "l2" form each weight is halved, since there are four
# times as many squares to share the 1, and four times as many halves make twice the length. So in the released code
# the size of the picture changes how strong the gate is. We come back to that.
#
# ## Everything through one vector
#
# Attention writes, for every token, its own mixture of all others: N rows of N weights. In additive attention every
# token receives the same G. Put as a table of who listens to whom, all rows are equal.

# %%
former = npformer.get_model("efficientformer-fashion", pretrained=True)
former_pixels = npformer.AutoImageProcessor.from_pretrained("efficientformer-fashion")(images[2], return_tensors="np")
trace = npformer.record(former, former_pixels["pixel_values"])
probs = trace[next(name for name in trace if name.endswith(":probs"))][0, 0]  # (N, N) of the first head
tokens = ops.normalize(rng.standard_normal((1, len(probs), 8)), dim=-1)
weights = ops.normalize(tokens @ rng.standard_normal((8, 1)), dim=1)[0, :, 0]  # (N,)

figure, (left, middle, right) = new_figure(1, 3, height=2.9)
picture(left, probs, "attention, trained")
picture(middle, np.ones_like(probs), 'additive, "ones"', signed=True, vmin=-1.6, vmax=1.6)
picture(right, np.tile(weights, (len(weights), 1)), 'additive, "l2"', signed=True)
left.set_ylabel(f"to each of {len(probs)} tokens")
for axes in (left, middle, right):
    axes.set_xlabel(f"from each of {len(probs)} tokens")
show(
    figure,
    "Figure 9.5. Who listens to whom. Left: one head of EfficientFormer, on a picture. Middle and right: the weights "
    "of additive attention (random, for the l2 form), written as the table it never makes.",
    "Three square tables. Left, attention: a varied pattern with a few bright columns. Middle: one flat colour. "
    "Right: vertical stripes, every row the same.",
)

# %% [markdown]
# So token i learns of the others only what survives in G: D numbers for the whole picture. Anything about the others
# that leaves G as it is, token i cannot know.
#
# **Predict, then run.** Two inputs share the token 0. In the first, the other two tokens are a vector a and its
# opposite; in the second, quite another vector b and its opposite. Can token 0 tell the two inputs apart in additive
# attention? In ordinary attention?

# %%
rng = np.random.default_rng(1)
shared, a, b = rng.standard_normal((3, 6))
first, second = np.array([[shared, a, -a]]), np.array([[shared, b, -b]])  # (1, N, D)
w_g = rng.standard_normal((6, 1))


def additive(tokens):
    """Token 0 after additive attention; queries and keys are the tokens themselves."""
    return ops.efficient_additive_attention(tokens, tokens, w_g)[0][0, 0]


def ordinary(tokens):
    """Token 0 after attention with one head and no bias."""
    one_head = tokens[:, None]  # (B, N, D) -> (B, h, N, d)
    return ops.biased_attention(one_head, one_head, one_head, np.zeros((1, 3, 3)))[0][0, 0, 0]


for mixer in (additive, ordinary):
    print(f"{mixer.__name__:9} token 0 differs by up to {np.abs(mixer(first) - mixer(second)).max():.2f}")
assert np.allclose(additive(first), additive(second))
assert not np.allclose(ordinary(first), ordinary(second))

# %% [markdown]
# Opposite queries cancel in the sum, so G is the same. Ordinary attention weighs each token by how well its key fits,
# so it can pick out a and leave -a: "find the token that looks like this" is a question that additive attention cannot
# ask.
#
# ## Linear against quadratic
#
# Count multiply-adds for one layer of width D. Both have four linear layers from D to D: 4ND². What differs is the
# mixing. Additive: N D each for the scores, the sum and the gate. Attention: N²D for the scores and N²D for the
# mixture.


# %%
def cost(N, D):
    """Multiply-adds of the mixing and of the linear layers: additive, ordinary, linear layers."""
    return 3 * N * D, 2 * N * N * D, 4 * N * D * D


D = 48  # the width of XS's first stage
sides = np.array([7, 14, 28, 56, 112])
counts = np.array([cost(side * side, D) for side in sides])
table(
    ["tokens", "additive: mixing", "attention: mixing", "linear layers of either"],
    [[int(side * side), *(f"{number:,}" for number in row)] for side, row in zip(sides, counts, strict=True)],
)

# %%
tokens = sides**2
slopes = [np.polyfit(np.log(tokens), np.log(counts[:, i]), 1)[0] for i in range(3)]
print("slopes:", [f"{slope:.3f}" for slope in slopes])
assert np.allclose(slopes, [1, 2, 1])

figure, axes = new_figure(height=3.2)
labels = ("additive mixing", "attention's mixing", "linear layers")
for i, (colour, label) in enumerate(zip(("orange", "blue", "grey"), labels, strict=True)):
    axes.loglog(tokens, counts[:, i], "o-", color=COLOURS[colour])
    axes.text(tokens[-1] * 1.15, counts[-1, i], f"{label}, slope {slopes[i]:.0f}", color=COLOURS[colour], va="center")
axes.axvline(2 * D, color=COLOURS["grey"], lw=0.8, ls=":")
axes.text(2 * D * 1.06, counts[0, 0], "N = 2D", color=COLOURS["grey"])
axes.set(xlabel="tokens N", ylabel="multiply-adds", xlim=(40, 250_000), xticks=tokens, xticklabels=tokens)
axes.minorticks_off()
show(
    figure,
    f"Figure 9.6. Multiply-adds against tokens, D = {D}, both axes logarithmic, so that a power is a straight line "
    "with the power as its slope. Left of N = 2D attention's own part is smaller than its linear layers'.",
    "Log-log lines: additive mixing and the linear layers rise with slope 1, attention's mixing with slope 2. The "
    "last crosses the linear layers where N is twice the width and ends two orders of magnitude above them.",
    dpi=95,
)

# %% [markdown]
# The picture has a second lesson in it. At 49 tokens the quadratic part is the smaller one: 2N²D passes the linear
# layers' 4ND² only at N = 2D. On a 7 x 7 map nobody needs linear attention, and EfficientFormer is right not to care.
# The quarrel is about the early stages.
#
# Counting is not measuring. Here are both layers run, on one picture; ordinary attention stops at 56 x 56, for at
# 112 x 112 its scores alone would fill 629.41 MB.

# %%
rng = np.random.default_rng(2)
weights = [rng.standard_normal((D, D)).astype(np.float32) / 7 for _ in range(4)]
w_g = rng.standard_normal((D, 1)).astype(np.float32)


def additive_layer(x):
    context, query = ops.efficient_additive_attention(ops.linear(x, weights[0]), ops.linear(x, weights[1]), w_g)
    return ops.linear(ops.linear(context, weights[2]) + query, weights[3])


def attention_layer(x, bias):
    query, key, value = (ops.linear(x, weight)[:, None] for weight in weights[:3])
    return ops.linear(ops.biased_attention(query, key, value, bias)[0][:, 0], weights[3])


# %% tags=["timing"]
measured = {"additive": [], "attention": []}
for count in map(int, tokens):
    x = rng.standard_normal((1, count, D)).astype(np.float32)
    runs = {"additive": lambda x=x: additive_layer(x)}
    if count <= 3136:
        bias = np.zeros((1, count, count), np.float32)
        runs["attention"] = lambda x=x, bias=bias: attention_layer(x, bias)
    for name, seconds in times(runs, rounds=3).items():
        measured[name].append(1000 * seconds)

figure, axes = new_figure(height=2.8)
for name, colour in (("additive", "orange"), ("attention", "blue")):
    took = np.array(measured[name])
    slope = np.log(took[-1] / took[-2]) / np.log(4)
    axes.loglog(tokens[: len(took)], took, "o-", color=COLOURS[colour])
    axes.text(tokens[len(took) - 1] * 1.15, took[-1], f"{name}, last slope {slope:.1f}", color=COLOURS[colour])
axes.set(xlabel="tokens N", ylabel="milliseconds", xlim=(40, 120_000), xticks=tokens, xticklabels=tokens)
axes.minorticks_off()
show(
    figure,
    f"Figure 9.7. Milliseconds of one whole layer of width {D} in this package, measured when this page was made.",
    "Measured times on log-log axes: additive attention rises slowly; ordinary attention starts level with it and "
    "rises more steeply.",
)

# %% [markdown]
# With few tokens the two take about the same time, spent on calling functions more than on arithmetic. With many, the
# lines part as the counts say.
#
# ## The blocks
#
# SwiftFormer has two kinds of block. Most are convolutional: filter each channel with its neighbours (3 x 3
# depthwise), normalise, mix channels (1 x 1) to four times the width, bend with GELU, mix back, multiply by a learned
# factor per channel, add to the input.

# %%
source(swiftformer._ConvBlock)

# %% [markdown]
# The last block of every stage is an encoder block, with three parts. `local_representation` is the same convolutional
# block again, without the widening. Then the attention over all pixels, then an MLP of 1 x 1 convolutions, each scaled
# and added to what came in.
#
# Three things to notice. There is no norm in front of the attention: q and k are made length one inside. There is no
# position anywhere: shuffle the tokens and the outputs are shuffled alike. It is the 3 x 3 convolution just before
# that tells a pixel about its surroundings. And the layer scales of the convolutional parts start at 1, while those of
# the attention and MLP start at 1e-5 in the published models.

# %%
source(swiftformer.SwiftFormerEncoderBlock.forward)

# %%
maps = pytorch["block/x"]  # (B, C, H, W)
channels = maps.shape[1]
conv_encoder = load(swiftformer.SwiftFormerConvEncoder(config, channels), "conv_encoder.")
agree("conv encoder", conv_encoder(maps), pytorch["conv_encoder/out"])
encoder_block = load(swiftformer.SwiftFormerEncoderBlock(config, channels), "encoder_block.")
agree("encoder block", encoder_block(maps), pytorch["encoder_block/out"])

x = pytorch["attn/x"]  # (B, N, D)
shuffled = np.random.default_rng(3).permutation(x.shape[1])
assert np.allclose(attention(x[:, shuffled]), attention(x)[:, shuffled])  # tokens have no positions

# %% [markdown]
# Where is what, in the trained model's first stage? `record` knows every shape.

# %%
trace = npformer.record(model, sample_pixels[:1])
stage = "swiftformer.encoder.network.0.blocks."


def chain(axes, block, steps):
    """Draw layers as boxes from top to bottom, with the recorded shape of what each hands on."""
    axes.set(xlim=(0, 10), ylim=(-len(steps) + 0.4, 0.6))
    axes.set_axis_off()
    for row, (label, name, colour) in enumerate(steps):
        axes.add_patch(Rectangle((1.4, -row - 0.29), 4.9, 0.58, facecolor=COLOURS[colour], alpha=0.9))
        axes.text(3.85, -row, label, color="white", ha="center", va="center", fontsize=9)
        if name:
            axes.text(6.5, -row, " x ".join(map(str, trace[block + name].shape[1:])), va="center", fontsize=9)
        if row:
            arrow = {"arrowstyle": "->", "color": COLOURS["ink"], "shrinkA": 0, "shrinkB": 0}
            axes.annotate("", (3.85, -row + 0.3), (3.85, -row + 0.72), arrowprops=arrow)


def skip(axes, start, end):
    """Draw the way around rows start+1 ... end-1."""
    axes.plot([1.4, 0.7, 0.7], [-start, -start, -end], color=COLOURS["orange"], lw=1.6)
    axes.annotate(
        "", (1.4, -end), (0.65, -end), arrowprops={"arrowstyle": "->", "color": COLOURS["orange"], "lw": 1.6}
    )


# %%
ends = ("the block before", "", "grey")
conv_steps = [ends, ("depthwise 3 x 3", "depth_wise_conv", "blue"), ("batch norm", "norm", "grey")]
conv_steps += [("1 x 1, wider", "point_wise_conv1", "blue"), ("GELU", "act", "pink")]
conv_steps += [("1 x 1, back", "point_wise_conv2", "blue"), ("* layer scale, + input", "", "orange")]
encoder_steps = [
    ends,
    ("local representation", "local_representation", "blue"),
    ("as tokens", "attn.to_query", "grey"),
]
encoder_steps += [("additive attention", "attn", "green"), ("as map, * scale 1, +", "", "orange")]
encoder_steps += [("MLP", "linear", "blue"), ("* scale 2, +", "", "orange")]
figure, (left, right) = new_figure(1, 2, height=4.2)
chain(left, stage + "0.", conv_steps)
skip(left, 0, 6)
chain(right, stage + "1.", encoder_steps)
skip(right, 1, 4)
skip(right, 4, 6)
show(
    figure,
    "Figure 9.8. The two blocks of SwiftFormer, with the shapes of one picture in the shipped model's first stage: "
    "C x H x W for maps, N x D for tokens. Orange lines carry a block's input past its layers.",
    "Two columns of boxes joined by arrows. Left, the conv encoder: depthwise 3 by 3, batch norm, 1 by 1, GELU, "
    "1 by 1, scaled and added to the input. Right, the encoder block: local representation, tokens, additive "
    "attention added, "
    "MLP added. Shapes stand beside the boxes.",
)

# %% [markdown]
# ## The network
#
# A stem of two 3 x 3 convolutions of stride 2 makes a quarter of the side. Then four stages; between them one 3 x 3
# convolution of stride 2 with a batch norm changes size and channels. At 224 x 224, XS looks so:

# %%
xs = npformer.get_model("swiftformer-xs", seed=0)  # random weights: only shapes matter here
features = xs.extract_feat(np.zeros((1, 3, 224, 224), np.float32))
rows = []
for stage_number, feature in enumerate(features):
    depth, tokens_here = xs.config.depths[stage_number], feature.shape[2] * feature.shape[3]
    rows.append([stage_number + 1, str(feature.shape), f"{depth - 1} conv + 1 encoder", tokens_here])
table(["stage", "shape", "blocks", "tokens of its attention"], rows)

# %%
PARTS = {
    "SwiftFormerPatchEmbedding": "stem", "SwiftFormerEmbeddings": "downsampling",
    "SwiftFormerConvEncoder": "conv encoders", "SwiftFormerLocalRepresentation": "local repr.",
    "SwiftFormerEfficientAdditiveAttention": "attention", "SwiftFormerMlp": "MLPs",
}  # fmt: skip
rows, shares = [], {}
for name in ("xs", "s", "l1", "l3"):
    variant = VARIANTS[f"swiftformer-{name}"]
    network = npformer.get_model(f"swiftformer-{name}", seed=0)
    layers = summarize(network, 224, 224)
    total = layers[0]
    assert (total.parameters, total.multiply_adds) == (variant.parameters, variant.multiply_adds)
    shares[name] = dict.fromkeys(PARTS.values(), 0.0)
    for layer in layers:
        if layer.kind in PARTS:
            shares[name][PARTS[layer.kind]] += layer.multiply_adds / total.multiply_adds
    c = network.config
    rows.append([name.upper(), str(c.depths), str(c.embed_dims), f"{total.parameters:,}"])
    rows[-1] += [f"{total.multiply_adds / 1e9:.2f} G", variant.top1]
table(["", "blocks", "channels", "parameters", "multiply-adds", "top-1 %"], rows)
print(
    f"attention's share of the multiply-adds: XS {shares['xs']['attention']:.1%}, L3 {shares['l3']['attention']:.1%}"
)

# %%
figure, axes = new_figure(height=2.6)
shades = dict(zip(PARTS.values(), ("#9a9a9a", "#6b6b6b", "#0b62a4", "#5b9bd0", "#c4570a", "#0a7f5a"), strict=True))
for row, parts in enumerate(shares.values()):
    begin = 0.0
    for part, share in parts.items():
        axes.barh(row, share, left=begin, color=shades[part], edgecolor="white", height=0.7)
        if row == 0:
            height = -0.85 if part in ("stem", "local repr.") else -0.5
            axes.text(begin + share / 2, height, part, ha="center", va="bottom", fontsize=8, color=shades[part])
        if share > 0.045:
            axes.text(begin + share / 2, row, f"{share:.0%}", ha="center", va="center", color="white", fontsize=9)
        begin += share
axes.set(yticks=range(4), yticklabels=[name.upper() for name in shares], xlim=(0, 1), ylim=(3.5, -1.1), xticks=[])
axes.set_xlabel("share of the multiply-adds of one picture of 224 x 224")
show(
    figure,
    "Figure 9.9. Where the multiply-adds go. The attention that gives the network its name is a small part; "
    "three quarters and more are convolutional blocks and MLPs.",
    "Stacked horizontal bars for XS, S, L1 and L3. Conv encoders take the most, from about half to over two thirds; "
    "attention takes between a twentieth and a tenth.",
)

# %% [markdown]
# Top-1 is what the paper reports on ImageNet-1k.
#
# The published models have two heads, one trained on the labels and one to imitate a teacher network; their logits are
# averaged. In front stands a batch norm over the map, then the mean over all pixels. Both are linear in the pixels, so
# their order does not matter:

# %%
trace = npformer.record(model.astype(np.float64), sample_pixels.astype(np.float64))
last_map, logits = trace["swiftformer"], trace[""]
norm_last = model.astype(np.float64).norm(last_map.mean(axis=(2, 3), keepdims=True))[:, :, 0, 0]
assert np.allclose(norm_last, trace[":pooled"])
assert np.allclose(logits, (trace["head"] + trace["dist_head"]) / 2)
agree("logits of the shipped model", logits[:2], pytorch["fashion/logits"])

# %% [markdown]
# ## Any size of picture
#
# EfficientFormer's bias table fixed the number of tokens. SwiftFormer has no table of positions, so nothing in it
# depends on the size of the picture.
#
# **Predict, then run.** Which of these pictures can it take: 97 x 75? 33 x 1? A single pixel?

# %%
for size in ((224, 224), (97, 75), (33, 1), (1, 1)):
    shapes = [feature.shape[2:] for feature in xs.extract_feat(np.zeros((1, 3, *size), np.float32))]
    print(size, "->", shapes)
    assert shapes[-1] == tuple(-(-n // 32) for n in size)

# %% [markdown]
# All of them. A 3 x 3 convolution of stride 2 with padding 1 turns n into n/2, rounded up, and never into nothing. The
# size need not be a multiple of 32.
#
# That it runs does not mean that it works. The shipped model was trained on 96 x 96; here are the same 100 test
# pictures at other sizes. In the last column G is multiplied back to the length that it would have had at 96 x 96.

# %%
test_pictures, classes = pictures()
coloured = np.repeat(test_pictures[:, None], 3, axis=1)  # grey (n, H, W) -> (n, 3, H, W)


def prepare(count, side):
    """The first test pictures as the model wants them, at a size of our choice: (n, 3, side, side)."""
    size = {"height": side, "width": side}
    sized = npformer.AutoImageProcessor.from_pretrained("swiftformer-fashion", size=size)
    return sized(list(coloured[:count]), return_tensors="np", input_data_format="channels_first")["pixel_values"]


def predict(network, pixels, observer=None):
    """Logits of many pictures, a few at a time."""
    observer = observer or (lambda name, module, inputs, output, layout: output)
    with npformer.watch(network, observer):
        return np.concatenate([network(pixels[i : i + 25]).logits for i in range(0, len(pixels), 25)])


def accuracy(logits):
    return np.mean(logits.argmax(axis=1) == classes[: len(logits)])


# %%
def with_changes(changes, name="swiftformer-fashion", **settings):
    """The shipped model with some of its arrays replaced, fused: the same outputs, faster."""
    network = npformer.get_model(name, pretrained=True, **settings)
    return npformer.fuse(network.load_state_dict({**network.state_dict(), **changes}))


def with_G_times(factor):
    """The shipped model with G multiplied; proj is linear and comes next, so its weight can be multiplied instead."""
    return with_changes({f"{name}.proj.weight": factor * module.proj.weight for name, module in attentions.items()})


fused, rows = with_changes({}), []
for side in (64, 80, 96, 112, 128):
    pixels = prepare(100, side)
    plain, scaled = predict(fused, pixels), predict(with_G_times((96 / side) ** 2), pixels)
    rows.append([f"{side} x {side}", f"{accuracy(plain):.0%}", f"{accuracy(scaled):.0%}"])
table(["size", "accuracy", "with G scaled back"], rows)

# %% [markdown]
# Away from the size it was trained for the network gets worse quickly, and a G of the right length does not help: its
# 3 x 3 filters, too, were learned at one scale. "Takes any size" is a statement about shapes.
#
# ## On real pictures: which tokens agree with G
#
# All queries have length one, so the product of a query with G's direction is the cosine of the angle between them: 1
# where a token points along G, -1 where it points against it. That is a map over the picture.

# %%
trace = npformer.record(model, sample_pixels)


def agreement(name):
    """The cosine of every token's query with G: (B, H, W)."""
    query, G = trace[f"{name}:query"], trace[f"{name}:global_query"]  # (B, N, D), (B, 1, D)
    cosine = (query * G).sum(axis=2) / np.linalg.norm(G, axis=2)  # (B, N)
    side = math.isqrt(cosine.shape[1])
    return cosine.reshape(-1, side, side)


chosen = [0, 1, 3, 4, 6, 10, 14, 17]
figure, every_axes = new_figure(4, len(chosen), width=7.6, height=3.9)
for column, number in enumerate(chosen):
    picture(every_axes[0, column], np.asarray(images[number]), samples[number][1])
    every_axes[0, column].title.set_fontsize(9)
    for row, name in enumerate(list(attentions)[:3], start=1):
        drawn = picture(every_axes[row, column], agreement(name)[number], signed=True, vmin=-1, vmax=1)
for row, label in enumerate(("picture", "stage 1", "stage 2", "stage 3")):
    every_axes[row, 0].set_ylabel(label)
figure.colorbar(drawn, ax=every_axes[1:], label="cosine with G", shrink=0.7, ticks=[-1, 0, 1])
show(
    figure,
    "Figure 9.10. How well each token's query agrees with the global query G, red for along and blue for against. In "
    "stage 1 it is a vote between cloth and background.",
    "Eight pictures of clothing and below each three maps, of 24, 12 and 6 tokens a side. In the first, garment and "
    "background mostly have opposite colours: on one T-shirt, the pullover and the bag the garment is red, on the "
    "other T-shirt, the trousers, the dress and the shoes the background.",
    dpi=95,
)

# %% [markdown]
# In stage 1 the queries fall into two camps, cloth and background. If G is their plain sum, the larger camp should
# win. We call cloth whatever is brighter than 25 of 255, and count the pictures in which the camp with more tokens
# agrees with G better than the other.

# %%
wins = 0
for image, cosine in zip(images, agreement(next(iter(attentions))), strict=True):
    cloth = np.asarray(image.convert("L").resize(cosine.shape)) > 25  # of 255
    larger = cloth if cloth.mean() > 0.5 else ~cloth
    wins += cosine[larger].mean() > cosine[~larger].mean()
print(f"the larger camp wins in {wins} of {len(images)} pictures")
assert wins >= 17

# %% [markdown]
# So it does, every time, and it is not about the kind of garment: the wide T-shirt wins the vote, the narrow one
# loses it to the empty background. Nobody weighs the votes. With a working $w_g$ the network could have learned which
# pixels should count.
#
# If G sums up a picture, pictures of the same kind should have a similar G. We draw 50 test pictures in
# order of their class.

# %%
seen, attention_names = {name: [] for name in attentions}, list(attentions)


def keep_G(name, module, inputs, output, layout):
    if name.endswith(":global_query"):
        seen[name.partition(":")[0]].append(output[:, 0])
    return output


test_pixels = prepare(500, 96)
logits_100 = predict(model, test_pixels[:100], keep_G)
order = np.argsort(classes[:50], kind="stable")
figure, every_axes = new_figure(1, 2, height=3.3)
for axes, (number, name) in zip(every_axes, ((1, attention_names[0]), (4, attention_names[3])), strict=True):
    directions = ops.normalize(np.concatenate(seen[name])[order], dim=1)
    drawn = picture(axes, directions @ directions.T, f"stage {number}", signed=True, vmin=-1, vmax=1)
    axes.set(yticks=np.arange(10) * 5 + 2, yticklabels=model.config.id2label.values() if number == 1 else [])
    axes.tick_params(length=0, labelsize=8)
figure.colorbar(drawn, ax=every_axes, label="cosine of two pictures' G", shrink=0.8, ticks=[-1, 0, 1])
show(
    figure,
    "Figure 9.11. The G of every picture against that of every other, five pictures of each class. In the last stage "
    "squares along the diagonal are classes, and larger squares are kinds: tops against shoes and bags.",
    "Two square tables of cosines with class names at the side. Stage 1 is a plaid of two camps. Stage 4 is made of "
    "clean squares: each class agrees with itself, tops agree with tops and disagree with shoes and bags.",
    dpi=95,
)

# %%
directions = ops.normalize(np.concatenate(seen[attention_names[3]]), dim=1)
cosines = directions @ directions.T - 2 * np.eye(100)  # a picture is not its own neighbour
same = np.mean(classes[:100][cosines.argmax(axis=1)] == classes[:100])
print(f"stage 4: the picture whose G is nearest is of the same class in {same:.0%} of cases")
assert same > 0.7

# %% [markdown]
# ## What the attention is worth here
#
# G holds a good guess of the class. Now take it away.
#
# **Predict, then run.** The shipped model names about 95% of the 500 test pictures right. How many does it name right
# with G set to zero in all four stages? With the G of another picture? With weights from a softmax over the tokens?


# %%
latest_query = {}


def softmax_over_tokens(name, module, inputs, output, layout):
    """Replace the weights, all 1, by a softmax of the scores over the tokens."""
    if name.endswith(":query"):
        latest_query[module] = output  # needed when the weights come by, a moment later
    if not name.endswith(":weights"):
        return output
    scores = latest_query[module] @ module.w_g * output.dtype.type(len(module.w_g) ** -0.5)
    return ops.softmax(scores, dim=1)


def foreign_G(name, module, inputs, output, layout):
    return np.roll(output, 1, axis=0) if name.endswith(":global_query") else output


answers = {"as trained": predict(fused, test_pixels)}
answers['"l2" weights, w_g never trained'] = predict(with_changes({}, attention_norm="l2"), test_pixels)
answers["softmax over the tokens, same w_g"] = predict(model, test_pixels, softmax_over_tokens)
answers["G = 0"] = predict(with_G_times(0), test_pixels)
answers["G of another picture"] = predict(model, test_pixels, foreign_G)

# %%
trained = answers["as trained"]
rows = []
for name, logits in answers.items():
    loss = float(ops.cross_entropy(logits, classes))
    altered = int(np.sum(logits.argmax(1) != trained.argmax(1)))
    rows.append([name, f"{accuracy(logits):.1%}", altered, f"{loss:.2f}"])
table(["", "accuracy", "answers altered", "mean loss"], rows)
assert accuracy(trained) > 0.93
assert accuracy(answers["G = 0"]) > 0.93

# %%
for stage_number, name in enumerate(attentions, start=1):
    block = dict(model.named_modules())[name.removesuffix(".attn")]
    print(
        f"stage {stage_number}: mean size of the layer scale of the attention {np.abs(block.layer_scale_1).mean():.2f}"
    )

# %% [markdown]
# Almost nothing changes. Of 500 answers 4 are altered without G, too few to say that the accuracy changed at all; the
# loss tells that the model is less sure. A G of the wrong picture alters 11, more than none at all does, so the
# network does listen to G. It just does not need it: after the stem and ten blocks of 3 x 3 filters a pixel of the
# last map has seen all of a 96 x 96 picture anyhow, and the layer scales, which multiply what the attention adds, are
# small.
#
# Note also the second row. The wrong `attention_norm` goes unnoticed in the accuracy. A port with a mistake of this
# kind would pass for correct; only comparing inner values finds it, which is what [lesson 11](11_parity.ipynb) is
# about.
#
# Be careful how far you carry this. It is one small model on an easy task, and changed after training. It does not
# show that attention is useless in the published models. It does show how to ask: replace the value, and count.
#
# ## Three families
#
# All published variants of the three families, from the table in this package:

# %%
BESIDE = {"swiftformer-l1": (7, -9), "efficientformer-l1": (0, -14), "efficientformer-l3": (0, -14),
          "efficientformer-l7": (2, -14), "swiftformer-xs": (14, -3), "swiftformer-s": (9, -4),
          "swiftformer-l3": (-7, 6), "efficientnet-b4": (9, -11)}  # fmt: skip
figure, axes = new_figure(height=3.5)
for family, colour in (("efficientnet", "blue"), ("efficientformer", "orange"), ("swiftformer", "green")):
    points = {name: (v.multiply_adds / 1e9, v.top1) for name, v in VARIANTS.items() if name.startswith(family)}
    points.pop("efficientnet-b8", None)  # its accuracy is from another paper, with another way of training
    axes.semilogx(*zip(*points.values(), strict=True), "o-", color=COLOURS[colour], lw=1.4, ms=5)
    for name, point in points.items():
        style = {"textcoords": "offset points", "color": COLOURS[colour], "fontsize": 8, "ha": "center"}
        axes.annotate(name.partition("-")[2].upper(), point, BESIDE.get(name, (-4, 6)), **style)
for place, family, colour in (((0.95, 82.9), "EfficientNet", "blue"), ((1.55, 79), "EfficientFormer", "orange"),
                              ((0.75, 76.3), "SwiftFormer", "green")):  # fmt: skip
    axes.text(*place, family, color=COLOURS[colour], fontsize=10)
ticks = [0.5, 1, 2, 5, 10, 20]
axes.set(xlabel="multiply-adds of one picture, in billions", ylabel="top-1 on ImageNet-1k, %", xticks=ticks)
axes.set(xticklabels=ticks, xlim=(0.33, 55), ylim=(75, 85.3))
axes.minorticks_off()
show(
    figure,
    "Figure 9.12. Published accuracy against multiply-adds, each network at its own size of picture. EfficientNet was "
    "trained years earlier and without a teacher, the other two with one.",
    "Three rising curves over a logarithmic axis of multiply-adds. EfficientNet lies highest up to about two billion; "
    "SwiftFormer rises from below and meets it at four billion; EfficientFormer lies below both.",
    dpi=95,
)

# %% [markdown]
# The smaller SwiftFormers need more multiply-adds for the same accuracy than EfficientNet, the largest needs no more,
# and EfficientFormer lies below. Its authors, and SwiftFormer's, answer that multiply-adds are not milliseconds: they
# designed for the clock of a phone. [Lesson 10](10_latency.ipynb) takes that up.
#
# The three models shipped here, on the 10,000 test pictures of Fashion-MNIST:

# %%
rows = []
for name in ("efficientformer-fashion", "efficientnet-fashion", "swiftformer-fashion"):
    network = npformer.get_model(name, pretrained=True)
    training = json.loads((model_directory(name) / "training.json").read_text())
    side = npformer.AutoImageProcessor.from_pretrained(name)(images[0], return_tensors="np")["pixel_values"].shape[2]
    total = summarize(network, side, side)[0]
    rows.append([name, f"{training['test_top1_float16']:.2f}", f"{total.parameters:,}"])  # of 10,000 pictures
    rows[-1] += [f"{total.multiply_adds / 1e6:.1f} M", f"{side} x {side}", len(training["history"])]
table(["model", "accuracy %", "parameters", "multiply-adds", "input", "epochs"], rows)

# %% [markdown]
# They were trained for different numbers of epochs on different sizes of picture, so this compares three models and
# not three ideas.
#
# ## Exercises
#
# ### Exercise 9.1: length one
#
# Write `unit(x, dim)`: divide the vectors along axis `dim` of an array by their length, the square root of the sum of
# squares. As in PyTorch, divide by `max(length, 1e-12)`. Example: `unit(np.array([[3.0, 4.0], [0.0, 0.0]]), 1)` is
# `[[0.6, 0.8], [0, 0]]`.


# %% tags=["exercise"]
def unit(x, dim):
    # x of any shape -> same shape, every vector along `dim` of length one
    ...


# %% tags=["check"]
checks.unit(unit)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `keepdims=True` keeps the axis that you sum over, so that the division finds its partners.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def unit(x, dim):
#     length = np.sqrt((x**2).sum(axis=dim, keepdims=True))
#     return x / np.maximum(length, 1e-12)
# ```
#
# `max` leaves ordinary vectors alone. Adding 1e-12 to the length instead would change every one of them a little, and
# a comparison in float64 would find it.
#
# </details>
#
# ### Exercise 9.2: additive attention
#
# Write the whole layer for a batch: `my_attention(x, layer)` with x of shape (B, N, D) returns (B, N, D). `layer` has
# the linear layers `layer.to_query`, `layer.to_key`, `layer.proj` and `layer.final`, to be called as functions. Write
# the form that transformers has, in which all weights are 1.


# %% tags=["exercise"]
def my_attention(x, layer):
    # (B, N, D) -> (B, N, D)
    ...


# %% tags=["check"]
checks.my_attention(my_attention)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Seven steps: query, key, both of length one, sum the queries over the tokens (which axis?), times the key, `proj`,
# add the query of length one, `final`.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def my_attention(x, layer):
#     query = ops.normalize(layer.to_query(x), dim=-1)
#     key = ops.normalize(layer.to_key(x), dim=-1)
#     G = query.sum(axis=1, keepdims=True)  # (B, N, D) -> (B, 1, D)
#     return layer.final(layer.proj(G * key) + query)
# ```
#
# Four lines, and neither a scale nor $w_g$ among them: that is all the released layer computes.
#
# </details>
#
# ### Exercise 9.3: what it cannot see
#
# Write `disguise(x, i)`: given tokens x (N, D) with N of at least 3, return other tokens of the same shape, so that
# token i is unchanged, *every other row is changed*, and yet the layer of exercise 9.2 gives the same output at token
# i, whatever its weights are.


# %% tags=["exercise"]
def disguise(x, i):
    # (N, D) -> (N, D)
    ...


# %% tags=["check"]
checks.disguise(disguise)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Token i sees the others only through a sum. What can you do to the terms of a sum without changing it? It must work
# for any weights, so pairs of opposites will not do here.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def disguise(x, i):
#     others = [j for j in range(len(x)) if j != i]
#     out = x.copy()
#     out[others] = x[np.roll(others, 1)]
#     return out
# ```
#
# The other tokens have all moved to different places, and token i cannot tell. Additive attention knows what is in the
# picture and not where. Attention without a bias cannot tell either; it is the bias table, in EfficientFormer, that
# can.
#
# </details>
#
# ### Exercise 9.4: where it pays
#
# Write `additive_cost(N, D)` and `attention_cost(N, D)`: the multiply-adds of a whole layer, its four linear layers D
# to D included, with the counts of the section "Linear against quadratic". Then find, for D = 220 (the last stage of
# XS), the smallest N at which attention costs at least twice as much, and call it `answer`.


# %% tags=["exercise"]
def additive_cost(N, D):
    # whole numbers -> a whole number
    ...


def attention_cost(N, D):
    # whole numbers -> a whole number
    ...


answer = ...

# %% tags=["check"]
checks.costs(additive_cost, attention_cost, answer)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Four linear layers on N tokens cost 4 N D D. Then try one N after the other.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def additive_cost(N, D):
#     return 4 * N * D * D + 3 * N * D
#
#
# def attention_cost(N, D):
#     return 4 * N * D * D + 2 * N * N * D
#
#
# answer = 1
# while attention_cost(answer, 220) < 2 * additive_cost(answer, 220):
#     answer += 1
# ```
#
# In general it is 2D + 3. The last stage of XS has 49 tokens at 224 x 224: far below.
#
# </details>
#
# ### Exercise 9.5: a whole encoder block
#
# Write `encoder_block(x, w)`: x is a map (B, C, H, W), w a dictionary of a block's weights under PyTorch's names, such
# as `w["local_representation.depth_wise_conv.weight"]`, `w["attn.to_query.bias"]`, `w["linear.fc1.weight"]` or
# `w["layer_scale_1"]` (C, 1, 1). Use `ops.conv2d`, `ops.batch_norm`, `ops.gelu`, `ops.linear` and
# `ops.efficient_additive_attention`. The recorded block is a good one to try on: `weights_of("encoder_block.")` has
# its names and weights, `pytorch["block/x"]` its input and `pytorch["encoder_block/out"]` its output.


# %% tags=["exercise"]
def encoder_block(x, w):
    # (B, C, H, W) -> (B, C, H, W)
    ...


# %% tags=["check"]
checks.encoder_block(encoder_block)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Three small functions help: a convolution by name, a batch norm by name, a linear layer by name. Tokens are
# `x.reshape(B, C, H * W).swapaxes(1, 2)`; a plain reshape to (B, H * W, C) would mix up channels and places. The
# depthwise convolution has `padding=1` and as many groups as channels.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def encoder_block(x, w):
#     def conv(x, name, **options):
#         return ops.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], **options)
#
#     def norm(x, name):
#         parts = ("running_mean", "running_var", "weight", "bias")
#         return ops.batch_norm(x, *(w[f"{name}.{part}"] for part in parts))
#
#     def linear(x, name):
#         return ops.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])
#
#     local = conv(x, "local_representation.depth_wise_conv", padding=1, groups=x.shape[1])
#     local = conv(norm(local, "local_representation.norm"), "local_representation.point_wise_conv1")
#     local = conv(ops.gelu(local), "local_representation.point_wise_conv2")
#     x = x + w["local_representation.layer_scale"] * local
#
#     B, C, H, W = x.shape
#     tokens = np.ascontiguousarray(x.reshape(B, C, H * W).swapaxes(1, 2))  # (B, C, H, W) -> (B, N, C)
#     query, key = linear(tokens, "attn.to_query"), linear(tokens, "attn.to_key")
#     context, query = ops.efficient_additive_attention(query, key, w["attn.w_g"])
#     mixed = linear(linear(context, "attn.proj") + query, "attn.final")
#     x = x + w["layer_scale_1"] * mixed.swapaxes(1, 2).reshape(B, C, H, W)  # (B, N, C) -> (B, C, H, W)
#
#     hidden = ops.gelu(conv(norm(x, "linear.norm1"), "linear.fc1"))
#     return x + w["layer_scale_2"] * conv(hidden, "linear.fc2")
# ```
#
# That is one block of every stage. The others are the four lines of the local representation alone, four times as wide
# in between; with the stem, the downsampling and the heads you have the whole network.
#
# </details>
#
# ## Further reading
#
# - Shaker, Maaz, Rasheed, Khan, Yang, Khan 2023, [SwiftFormer: Efficient Additive Attention for Transformer-based
#   Real-time Mobile Vision Applications](https://arxiv.org/abs/2303.15446). Section 3.2 has the attention, section 3.3
#   the blocks. Compare its formula for the weights with the code.
# - Wu et al. 2021, [Fastformer: Additive Attention Can Be All You Need](https://arxiv.org/abs/2108.09084), the
#   additive attention for text that this one simplifies. There the softmax runs over the tokens.
# - Katharopoulos et al. 2020, [Transformers are RNNs](https://arxiv.org/abs/2006.16236), another way to linear cost: a
#   D x D matrix, where SwiftFormer has a vector of D.
# - In this package: [`ops/attention.py`](../npformer/ops/attention.py) and
#   [`models/swiftformer.py`](../npformer/models/swiftformer.py).
#
# Next: [lesson 10](10_latency.ipynb), where the time goes.
