# %% [markdown]
# # 7. EfficientFormer whole: from the stem to logits
#
# Lessons 1 to 6 took the layers one by one; here they become a network. Afterwards you can draw EfficientFormer's map
# from memory, say what every part of it costs and is good for, and write its whole forward pass on one page, with the
# numbers that PyTorch gives.
#
# You need: [convolution](02_convolution.ipynb), [normalisation](03_normalisation.ipynb), [the pooling
# mixer](04_pooling_mixer.ipynb), [activations](05_activations.ipynb) and [attention](06_attention.ipynb).
#
# Time: about half an hour.

# %%
import inspect

import numpy as np
from course import COLOURS, SERIES, agree, new_figure, picture, pictures, recorded, show, source, table, times
from course.checks import lesson_07 as checks

import npformer
from npformer.assets import sample_pictures
from npformer.models import efficientformer
from npformer.models.registry import VARIANTS, model_config
from npformer.ops import (
    attention_bias_index,
    batch_norm,
    conv2d,
    gelu,
    layer_norm,
    linear,
    pool_mixer,
    relu,
    softmax,
    token_mean,
)
from npformer.summary import summarize

torch_values = recorded(7)

# %% [markdown]
# ## Why it exists
#
# A vision transformer cuts a picture into tokens and lets every token look at every other. That works well and is
# slow on a phone. The EfficientFormer paper measured where a phone's time goes. Attention by itself was not the
# trouble. Large patches at the input were; so were layer norms, which cannot be folded into the layer beside them as
# batch norms can; and so was changing again and again between two layouts of the same data: **maps** `(B, C, H, W)`,
# which convolution and pooling want, and **tokens** `(B, N, D)`, which attention wants.
#
# The answer is a network that changes layout once. Nearly all of it works on maps, with convolutions, batch norms and
# a pooling that has no weights at all. At the end, where only 49 places are left of the picture, it turns to tokens,
# and attention has the last word. Three sizes were found by a search over measured latency:

# %%
rows = []
for name in ("efficientformer-l1", "efficientformer-l3", "efficientformer-l7"):
    config, published = model_config(name)[0], VARIANTS[name]
    design = [name, config.depths, config.hidden_sizes, config.num_meta3d_blocks]
    giga = f"{published.multiply_adds / 1e9:.3f} G"
    rows.append([*design, f"{published.parameters:,}", giga, f"{published.top1}%"])
head = ["network", "blocks per stage", "channels per stage", "attention", "parameters", "multiply-adds", "top-1"]
table(head, rows)

# %% [markdown]
# "attention" counts the attention blocks; they are the last of the last stage's blocks. L7's last stage consists of
# nothing else. The accuracy is the paper's, on ImageNet-1k.
#
# ## The map
#
# We take L1 at its real size, with random weights: for shapes and costs the values do not matter. `summarize` runs it
# once and notes every layer's output shape, parameters and multiply-adds. These are the parts it consists of, in
# order:

# %%
l1 = npformer.get_model("efficientformer-l1", seed=0)
rows = {row.name: row for row in summarize(l1, 224, 224)}
encoder = "efficientformer.encoder"
parts = {"stem": "efficientformer.patch_embed"}
for stage in range(3):
    parts[f"stage {stage + 1}"] = f"{encoder}.intermediate_stages.{2 * stage}"
    parts[f"downsampling {stage + 1}"] = f"{encoder}.intermediate_stages.{2 * stage + 1}"
parts["stage 4: Meta4D"] = f"{encoder}.last_stage.meta4D_layers"
parts["stage 4: Flat"] = f"{encoder}.last_stage.flat"
parts["stage 4: Meta3D"] = f"{encoder}.last_stage.meta3D_layers"
parts["final norm"] = "efficientformer.layernorm"
parts |= {"head": "classifier", "second head": "distillation_classifier"}
cells = [(part, rows[name]) for part, name in parts.items()]
table(["part", "output", "parameters"], [[part, row.shape, f"{row.parameters:,}"] for part, row in cells])

# %%
total, published = rows[""], VARIANTS["efficientformer-l1"]
assert sum(row.parameters for _, row in cells) == total.parameters == 12_289_928  # nothing is left out
assert sum(row.multiply_adds for _, row in cells) == total.multiply_adds == published.multiply_adds
print(f"{total.parameters:,} parameters, {total.multiply_adds / 1e9:.3f} G multiply-adds")

# %% [markdown]
# The same as a picture. Every layer that changes the shape, and every block, is a rectangle: as high as the side of
# the map it puts out, and as wide as that map has channels.

# %%
STRIDED = ("efficientformer.patch_embed.convolution1", "efficientformer.patch_embed.convolution2")
COLOUR = {"Conv2d": "grey", "EfficientFormerPatchEmbeddings": "grey"}
COLOUR |= {"EfficientFormerMeta4D": "blue", "EfficientFormerMeta3D": "orange"}


def boxes(rows):
    """Colour, channels and side of every block and strided layer, in order."""
    for row in rows.values():
        if row.kind in COLOUR and (row.kind != "Conv2d" or row.name in STRIDED):
            shape = row.shape
            channels, side = shape[1:3] if len(shape) == 4 else (shape[2], round(shape[1] ** 0.5))
            yield COLOUR[row.kind], channels, side


# %%
figure, axes = new_figure(height=3.9)
left, labelled = 0, {}
for colour, channels, side in [("green", 3, 224), *boxes(rows)]:
    axes.bar(left, side, width=max(channels, 12), align="edge", color=COLOURS[colour], linewidth=0)
    labelled.setdefault((channels, side), left)  # where the first of each shape stands
    left += max(channels, 12) + 24
names = ["picture", "stem", "stage 1", "stage 2", "stage 3", "stage 4"]
for ((channels, side), place), name in zip(labelled.items(), names):
    axes.text(place - 8, side + 3, f"{name}: {channels} x {side} x {side}", ha="left", va="bottom")
kinds = (("convolution of stride 2", "grey"), ("Meta4D block", "blue"), ("Meta3D block", "orange"))
for height, (kind, colour) in zip((150, 130, 110), kinds):
    axes.text(1900, height, kind, color=COLOURS[colour], weight="bold")
axes.set(xlim=(-60, left), ylim=(0, 240), yticks=[14, 28, 56, 112, 224], ylabel="side of the map, pixels")
axes.set(xticks=[], xlabel="width of a rectangle: channels of the map")
show(
    figure,
    "Figure 7.1. EfficientFormer-L1 from left to right: from a large picture of three channels to many channels of "
    "seven by seven places. (The picture is drawn four times too wide, or one would not see it.)",
    "Rectangles in a row, each as high as the side of its map and as wide as its number of channels. The picture is a "
    "thin line 224 high; then heights fall to 112, 56, 28, 14 and 7 while widths grow from 24 to 448. Fourteen blocks "
    "are blue Meta4D blocks, and only the very last one is an orange Meta3D block.",
)

# %% [markdown]
# ## The stem
#
# A vision transformer would cut the picture into patches of 16 x 16 with one large convolution. The stem here takes
# two small steps: twice a 3 x 3 convolution of stride 2 with padding 1, batch norm and ReLU. A side of $H$ becomes
#
# $$\left\lfloor \frac{H + 2 - 3}{2} \right\rfloor + 1 = \left\lceil \frac{H}{2} \right\rceil,$$
#
# so 224 becomes 112, then 56: a quarter of the side, a sixteenth of the places.

# %%
source(efficientformer.EfficientFormerConvStem)

# %% [markdown]
# For values, we follow a trained network: `efficientformer-fashion`, shipped with the package, which tells ten kinds
# of clothing apart. It is L1 in small: 1, 1, 2 and 3 blocks of 16, 32, 64 and 128 channels, the last two of them
# attention with 4 heads. We run it in float64 and keep every named value.

# %%
trained = npformer.get_model("efficientformer-fashion", pretrained=True).astype(np.float64)
processor = npformer.AutoImageProcessor.from_pretrained("efficientformer-fashion")
path = next(path for path in sample_pictures() if path.name == "dress-2.png")
pixels = processor(npformer.load_image(path), return_tensors="np")["pixel_values"].astype(np.float64)
trace = npformer.record(trained, pixels)
for name, value in trace.items():
    if name.startswith("efficientformer.patch_embed"):
        print(name, value.shape)

# %% [markdown]
# Two lines deserve a look. There is one ReLU module, and it is called twice. A trace gives the last call the plain
# name and the earlier one `#1`, because a dictionary filled by PyTorch's hooks would keep the last call, and names
# should mean the same on both sides. And it is a ReLU: the `hidden_act` of the config (GELU) reaches the MLPs of the
# blocks but not the stem.

# %%
for name in ("activation#1", "activation"):
    print(f"{name}: {np.mean(trace['efficientformer.patch_embed.' + name] == 0):.0%} zeros")

# %% [markdown]
# ## A Meta4D block: maps in, maps out
#
# Every block has two halves, and each half adds something to what it was given. The first mixes places, the second
# mixes channels. On maps, with $\odot$ a multiplication channel by channel:
#
# $$x \leftarrow x + s_1 \odot (\mathrm{mean}_{3 \times 3}(x) - x)$$
# $$x \leftarrow x + s_2 \odot \mathrm{BN}(W_2\, \mathrm{GELU}(\mathrm{BN}(W_1 x)))$$
#
# $W_1$ and $W_2$ are 1 x 1 convolutions, $C \to 4C \to C$. The layer scales $s_1, s_2$ hold one learned number per
# channel. There is no norm in front of the mixer: the batch norms sit inside the MLP, each right after a convolution,
# where it can be folded away.

# %%
source(efficientformer.EfficientFormerMeta4D)

# %%
x = np.random.default_rng(0).standard_normal((1, 3, 224, 224), dtype=np.float32)
l1_trace = npformer.record(l1, x)


def shapes(block):
    """Print what a block computes, inner values included."""
    for name, value in l1_trace.items():
        if name.startswith(block) and not name.removesuffix("#1").endswith(("drop_path", "dropout")):
            print(f"{name.removeprefix(block).lstrip('.') or 'the block':26}{value.shape}")


shapes(f"{encoder}.intermediate_stages.0.meta4D_layers.blocks.0")

# %% [markdown]
# `:mixed` is what flows between the two halves. The dots are modules, named as in PyTorch; the colon marks a value
# inside a module.
#
# ## Downsampling
#
# Blocks never change a shape. Between two stages stands one 3 x 3 convolution of stride 2 with batch norm and no
# activation: half the side, more channels. Unlike the patches of a vision transformer its windows overlap.

# %%
source(efficientformer.EfficientFormerPatchEmbeddings)

# %% [markdown]
# ## From map to tokens, once
#
# `Flat` reads a map row by row: the place in row $y$ and column $x$ becomes token $yW + x$, and its channels become
# the token's vector. On a map of two channels, two rows and three columns:

# %%
small = np.array([[[[0, 1, 2], [3, 4, 5]], [[0, 10, 20], [30, 40, 50]]]])  # (B, C, H, W) = (1, 2, 2, 3)
tokens = efficientformer.EfficientFormerFlat()(small)  # (B, N, D) = (1, 6, 2)
print(tokens[0])
assert (tokens[0, 1 * 3 + 2] == small[0, :, 1, 2]).all()

# %% [markdown]
# ## A Meta3D block: tokens in, tokens out
#
# The same two halves, with attention as the mixer, and a layer norm in front of each half:
#
# $$x \leftarrow x + s_1 \odot \mathrm{Attention}(\mathrm{LN}(x))$$
# $$x \leftarrow x + s_2 \odot (W_2\, \mathrm{GELU}(W_1\, \mathrm{LN}(x)))$$
#
# L1 has 8 heads; a head's queries and keys are 32 wide and its values four times that, 128. Queries, keys and values
# come out of one linear layer, $448 \to 8 \cdot (32 + 32 + 128) = 1536$.

# %%
block = l1.efficientformer.encoder.last_stage.meta3D_layers.blocks[0]
assert 8 * (32 + 32 + 128) == 1536 == len(block.token_mixer.qkv.weight)
shapes(f"{encoder}.last_stage.meta3D_layers.blocks.0")

# %% [markdown]
# ## From tokens to logits
#
# A last layer norm, the mean over the tokens, and a linear layer with one row per class. The published networks have
# **two** such heads: one was trained on the labels, one to imitate a larger teacher network. Their logits are
# averaged.

# %%
output = l1(x)
tokens = l1_trace["efficientformer.layernorm"]  # (1, 49, 448)
pooled = token_mean(tokens)  # (1, 448)
heads = l1.classifier(pooled), l1.distillation_classifier(pooled)  # (1, 1000) each
np.testing.assert_array_equal(output.logits, (heads[0] + heads[1]) / 2)
print(list(output), output.logits.shape)

# %% [markdown]
# This is a trap. The class above is `EfficientFormerForImageClassificationWithTeacher`. The plain
# `EfficientFormerForImageClassification` uses only the first head of the same file, here as in transformers, and so
# gives other logits; npformer warns when it leaves a head out. The little fashion network was trained with one head.
#
# **Predict, then run.** Two heads disagree about three classes. Does the mean of their logits favour the same class
# as the mean of their probabilities?

# %%
first, second = np.array([10.0, 9.0, 0.0]), np.array([0.0, 4.0, 5.0])
print("mean of logits:       ", softmax((first + second) / 2).round(2))
print("mean of probabilities:", ((softmax(first) + softmax(second)) / 2).round(2))

# %% [markdown]
# Not always. Averaging logits multiplies probabilities (and takes a root): a class needs some support from both
# heads. Averaging probabilities lets one confident head win alone. The network averages logits, before any softmax.
#
# ## The whole network on one page
#
# Now the centre of this lesson. No modules, no classes: `p` is the network's state dict, a dictionary from names to
# arrays, and every step is an op you know. First the three kinds of layer that have weights.


# %%
def weights(p, name):
    return p[f"{name}.weight"], p[f"{name}.bias"]


def conv_norm(x, p, conv, norm, stride=1, padding=0):
    """Convolution, then batch norm: (B, C, H, W) -> (B, O, H', W')."""
    x = conv2d(x, *weights(p, conv), stride=stride, padding=padding)
    return batch_norm(x, p[f"{norm}.running_mean"], p[f"{norm}.running_var"], *weights(p, norm))


def normed(x, p, norm):
    """Layer norm of every token: (B, N, D), same out."""
    return layer_norm(x, x.shape[-1:], *weights(p, norm))


# %% [markdown]
# The two kinds of block:


# %%
def meta4d(x, p, block):
    """Pooling mixes places, 1x1 convolutions mix channels: (B, C, H, W), same out."""
    scale_1, scale_2 = (p[f"{block}.layer_scale_{i}"][:, None, None] for i in (1, 2))
    x = x + scale_1 * pool_mixer(x)
    wide = conv_norm(x, p, f"{block}.mlp.convolution1", f"{block}.mlp.batchnorm_before")  # (B, 4C, H, W)
    return x + scale_2 * conv_norm(gelu(wide), p, f"{block}.mlp.convolution2", f"{block}.mlp.batchnorm_after")


def meta3d(x, p, block, heads=4, key_dim=16):
    """Attention mixes tokens, linear layers mix channels: (B, N, D), same out."""
    batch, tokens, _ = x.shape
    qkv = linear(normed(x, p, f"{block}.layernorm1"), *weights(p, f"{block}.token_mixer.qkv"))
    qkv = qkv.reshape(batch, tokens, heads, -1).swapaxes(1, 2)  # (B, h, N, 2d + e)
    query, key, value = np.split(qkv, [key_dim, 2 * key_dim], axis=-1)
    bias = p[f"{block}.token_mixer.attention_biases"][:, attention_bias_index(round(tokens**0.5))]  # (h, N, N)
    probs = softmax(query @ key.swapaxes(-1, -2) / key_dim**0.5 + bias)  # (B, h, N, N)
    context = (probs @ value).swapaxes(1, 2).reshape(batch, tokens, -1)  # (B, N, h*e)
    x = x + p[f"{block}.layer_scale_1"] * linear(context, *weights(p, f"{block}.token_mixer.projection"))
    wide = linear(normed(x, p, f"{block}.layernorm2"), *weights(p, f"{block}.mlp.linear_in"))  # (B, N, 4D)
    return x + p[f"{block}.layer_scale_2"] * linear(gelu(wide), *weights(p, f"{block}.mlp.linear_out"))


# %% [markdown]
# And the network:


# %%
def network(x, p):
    """efficientformer-fashion: pictures (B, 3, 224, 224) and its weights -> logits (B, 10)."""
    stem, stages = "efficientformer.patch_embed", "efficientformer.encoder.intermediate_stages"
    last = "efficientformer.encoder.last_stage"
    x = relu(conv_norm(x, p, f"{stem}.convolution1", f"{stem}.batchnorm_before", 2, 1))  # (B, 8, 112, 112)
    x = relu(conv_norm(x, p, f"{stem}.convolution2", f"{stem}.batchnorm_after", 2, 1))  # (B, 16, 56, 56)
    for stage, depth in enumerate([1, 1, 2]):
        for i in range(depth):
            x = meta4d(x, p, f"{stages}.{2 * stage}.meta4D_layers.blocks.{i}")
        down = f"{stages}.{2 * stage + 1}"
        x = conv_norm(x, p, f"{down}.projection", f"{down}.norm", 2, 1)  # half the side, twice the channels
    x = meta4d(x, p, f"{last}.meta4D_layers.blocks.0")  # (B, 128, 7, 7)
    x = x.reshape(*x.shape[:2], -1).swapaxes(1, 2)  # (B, 128, 7, 7) -> (B, 49, 128)
    for i in range(2):
        x = meta3d(x, p, f"{last}.meta3D_layers.blocks.{i}")
    return linear(token_mean(normed(x, p, "efficientformer.layernorm")), *weights(p, "classifier"))


# %%
logits = network(pixels, trained.state_dict())
np.testing.assert_allclose(logits, trained(pixels).logits, rtol=0, atol=1e-12)
agree("logits of the page", logits, torch_values["logits"])
page = (weights, conv_norm, normed, meta4d, meta3d, network)
lines = sum(len(inspect.getsource(function).splitlines()) for function in page)
print(f"{lines} lines, {len(trained.state_dict())} arrays")

# %% [markdown]
# That is the whole network. The package's modules compute the same; what they add is that every value has a name, can
# be watched, and is checked. (Both epsilons are 1e-5 here, the ops' default. The published networks in transformers'
# format say 1e-12 for the layer norms, though they were trained with 1e-5.)
#
# ## Equal to PyTorch at every layer
#
# `torch_values` holds numbers from a run of transformers' own EfficientFormer with the same weights in float64, on
# the same picture, prepared by its own image processor: 64 numbers of the output of each module, taken at even
# distances.


# %%
def sampled(values, count=64):
    """Numbers from all over an array: (count,)."""
    return values.reshape(-1)[np.linspace(0, values.size - 1, count).astype(int)]


np.testing.assert_array_equal(sampled(pixels), torch_values["pixels"])  # the same picture, to the last bit
theirs = dict(zip(bytes(torch_values["names"]).decode().split("\n"), torch_values["samples"]))
for part, name in parts.items():
    if name in theirs:
        agree(part, sampled(trace[name]), theirs[name])

# %%
modules = [name for name in trace if ":" not in name and "#" not in name]
assert sorted(modules) == sorted(theirs)  # every module is there on both sides, under the same name
for name in modules:
    allowed = 1e-12 * np.abs(theirs[name]).max()
    np.testing.assert_allclose(sampled(trace[name]), theirs[name], rtol=0, atol=allowed)
print(f"{len(modules)} modules, each equal to PyTorch's")

# %% [markdown]
# ## The answer
#
# Logits become probabilities by a softmax, and the five largest make the usual answer. The picture is one of the more
# doubtful ones.

# %%
probabilities = softmax(logits)[0]
top5 = probabilities.argsort()[::-1][:5]
table(["class", "probability"], [[trained.config.id2label[int(k)], f"{probabilities[k]:.1%}"] for k in top5])

# %% [markdown]
# ## What each part costs
#
# **Predict, then run.** Look at Figure 7.1 again. Which part of L1 holds most of the parameters, and which part does
# most of the multiply-adds: the early stages with their large maps, or the late ones with their many channels?

# %%
figure, axes = new_figure(1, 2, height=3.6, sharey=True)
for axis, what in zip(axes, ("parameters", "multiply_adds")):
    values = np.array([getattr(row, what) for _, row in cells])
    shares = 100 * values / values.sum()
    axis.barh(list(parts), shares, color=COLOURS["blue" if what == "parameters" else "orange"])
    for place, share in enumerate(shares):
        axis.text(share + 0.6, place, f"{share:.1f}", va="center", fontsize=9)
    axis.set(xlabel=f"{what.replace('_', '-')}, % of the network", xlim=(0, 48))
axes[0].invert_yaxis()
show(
    figure,
    "Figure 7.2. Where EfficientFormer-L1's parameters are, and where its multiply-adds are.",
    "Two bar charts over the parts of the network. Parameters: next to nothing before stage 3, a fifth in stage 3, "
    "two fifths in stage 4's Meta4D blocks, a fifth in its one Meta3D block. Multiply-adds: 13 % in stage 1, 9 % in "
    "stage 2, 37 % in stage 3, 18 % in stage 4's Meta4D blocks and 11 % in its Meta3D block.",
)

# %% [markdown]
# The parameters sit at the end: a 1 x 1 convolution has $C_{in} C_{out}$ weights, whatever the size of its map.
# Multiply-adds are weights times places. From stage to stage the channels about double, so a block's weights grow
# fourfold while its places shrink fourfold, and every *block* costs about the same. Stage 3 leads because it has the
# most blocks:

# %%
blocks = [row for row in rows.values() if row.kind in ("EfficientFormerMeta4D", "EfficientFormerMeta3D")]
seen = {row.shape: row for row in blocks}  # one block per shape
table(
    ["block puts out", "parameters", "multiply-adds"],
    [[shape, f"{row.parameters:,}", f"{row.multiply_adds / 1e6:.1f} M"] for shape, row in seen.items()],
)

# %% [markdown]
# Time is a third thing. Below are the parts' shares of the time, each run alone on what the part before it puts out,
# once layer by layer and once fused (`npformer.fuse`, lesson 10).


# %% tags=["timing"]
def part_times(model):
    """Seconds of each part, fed with what the one before it gives."""
    functions, value = {}, x
    for part, name in list(parts.items())[:-3]:
        module = dict(model.named_modules())[name]
        functions[part] = lambda module=module, value=value: module(value)
        value = module(value)
    return times(functions)


measured = {"layer by layer": part_times(l1), "fused": part_times(npformer.fuse(l1))}
figure, axis = new_figure(height=3.2)
for offset, (name, seconds) in zip((-0.2, 0.2), measured.items()):
    shares = 100 * np.array(list(seconds.values())) / sum(seconds.values())
    colour = COLOURS[SERIES[offset > 0]]
    axis.barh(np.arange(len(shares)) + offset, shares, height=0.38, color=colour)
    said = f"{name}: {1e3 * sum(seconds.values()):.0f} ms"
    axis.text(0.7, 0.11 - 0.25 * offset, said, color=colour, transform=axis.transAxes)
axis.set(yticks=range(len(shares)), yticklabels=list(seconds), xlabel="time, % of the network")
axis.invert_yaxis()
show(
    figure,
    "Figure 7.3. Where the time goes on the machine that made this page, batch 1: layer by layer, and fused.",
    "Bars of each part's share of the time, in pairs: layer by layer, and fused. Stages 3 and 1 take the largest "
    "shares, the stem and the downsamplings small ones, and Flat next to nothing.",
)

# %% [markdown]
# Stage 1 takes a larger share of the time than of the multiply-adds. Pooling, batch norms, GELU and additions are not
# counted as multiply-adds, but each walks over every number of the map, and stage 1's maps have the most numbers. A
# count of multiply-adds is not a latency; that is why the paper searched with measured times.
#
# ## Why attention comes last
#
# A Meta4D block on $N$ places costs $8 N C^2$ multiply-adds (two 1 x 1 convolutions, $C \to 4C \to C$). A Meta3D
# block has the same MLP, projections to queries, keys and values, and on top of them a part that grows with the
# *square* of the number of tokens, $h N^2 (d + e)$, with queries and keys $d$ and values $e$ wide. What would one
# Meta3D block cost in every stage of L1?

# %%
heads, key_dim, value_dim = 8, 32, 128
costs = []
for channels, side in zip(l1.config.hidden_sizes, (56, 28, 14, 7)):
    n = side * side
    pooling_block = n * 8 * channels**2
    to_heads, from_heads = channels * heads * (2 * key_dim + value_dim), heads * value_dim * channels
    layers = n * (to_heads + from_heads + 8 * channels**2)
    pairs = heads * n**2 * (key_dim + value_dim)
    costs.append((n, pooling_block / 1e6, layers / 1e6, pairs / 1e6, heads * n**2 * 4 / 1e6))
head = ["tokens", "Meta4D, M", "Meta3D: layers, M", "pairs, M", "probabilities, MB"]
table(head, [[n, *(f"{value:,.1f}" for value in others)] for n, *others in costs])
assert layers + pairs == rows[f"{encoder}.last_stage.meta3D_layers.blocks.0"].multiply_adds
assert pooling_block == rows[f"{encoder}.last_stage.meta4D_layers.blocks.0"].multiply_adds

# %%
figure, axis = new_figure(height=2.9)
names = ["Meta4D block", "Meta3D block: its layers", "Meta3D block: pairs of tokens"]
for series, name in enumerate(names):
    values = [cost[1 + series] for cost in costs]
    axis.plot(range(4), values, "o-", color=COLOURS[SERIES[(0, 4, 1)[series]]])
    axis.text(-0.08, values[0], name, ha="right", va="center", color=COLOURS[SERIES[(0, 4, 1)[series]]])
axis.set(yscale="log", xticks=range(4), xlim=(-1.6, 3.2), ylabel="multiply-adds, millions")
axis.set_xticklabels([f"stage {i + 1}\n{cost[0]} tokens" for i, cost in enumerate(costs)])
show(
    figure,
    "Figure 7.4. One block's multiply-adds if it stood in each stage of L1. With 3136 tokens the pairs cost more "
    "than ten whole networks; with 49 they hardly count.",
    "Three lines over the four stages, on a logarithmic axis. The Meta4D block stays near 60 to 80 million. A Meta3D "
    "block's linear layers fall from 443 to 135 million. The pairs of tokens fall from 12,588 million in stage 1 to 3 "
    "million in stage 4.",
)

# %% [markdown]
# In stage 1 a single attention block would cost more than the whole network ten times over, and its probabilities
# alone would fill hundreds of megabytes. In stage 4 the pairs are 3.1 of its 137.9 million. So attention can be had
# almost free, once, at the end; and since the earlier stages then need no tokens, the layout changes only once. The
# paper calls this the dimension-consistent design: all four-dimensional blocks, then all three-dimensional ones.
#
# What does a change of layout cost? Below: to tokens and back, beside one Meta4D block at the same place.


# %% tags=["timing"]
def there_and_back(maps):
    """(B, C, H, W) -> (B, N, C) -> (B, C, H, W), copied each way as the next layer would need it."""
    tokens = np.ascontiguousarray(maps.reshape(*maps.shape[:2], -1).swapaxes(1, 2))
    return np.ascontiguousarray(tokens.swapaxes(1, 2)).reshape(maps.shape)


rows_of_blocks = [f"{parts[f'stage {i}']}.meta4D_layers" for i in (1, 2, 3)] + [parts["stage 4: Meta4D"]]
fused = dict(npformer.fuse(l1).named_modules())
lines = []
for name in rows_of_blocks:
    maps, block = l1_trace[f"{name}.blocks.0"], fused[f"{name}.blocks.0"]
    change, pooling = (lambda maps=maps: there_and_back(maps)), (lambda maps=maps, block=block: block(maps))
    seconds = times({"change": change, "block": pooling}, rounds=15)
    lines.append([maps.shape, f"{1e3 * seconds['change']:.3f}", f"{1e3 * seconds['block']:.3f}"])
table(["map", "there and back, ms", "fused Meta4D block, ms"], lines)

# %% [markdown]
# Moving numbers about computes nothing and takes time all the same, most of it where maps are large. The paper names
# it among the things that slow a phone down, and an attention block in every stage would need it there and back each
# time.
#
# ## What the maps hold
#
# Here are maps of the trained network on its way from the picture to the answer: in each row the picture, shrunk to
# that stage's size, and the six channels that vary most.


# %%
def shrink(x, side):
    """The mean brightness of each place: (B, 3, 224, 224) -> (B, side, side)."""
    step = 224 // side
    return x[:, 0].reshape(-1, side, step, side, step).mean((2, 4))


outputs = {f"stage {i}": trace[parts[f"stage {i}"]] for i in (1, 2, 3)}  # (1, C, H, W) each
outputs["stage 4,\nMeta4D"] = trace[parts["stage 4: Meta4D"]]
outputs["stage 4,\nMeta3D"] = trained.extract_feat(pixels)[-1]  # tokens, put back into a map

# %%
figure, axes = new_figure(5, 7, height=5.6)
for line, (name, maps) in zip(axes, outputs.items()):
    picture(line[0], shrink(pixels, maps.shape[-1])[0], cmap="gray")
    line[0].set_ylabel(f"{name}\n{maps.shape[1]} channels", rotation=0, ha="right", va="center")
    for axis, channel in zip(line[1:], maps[0].std((1, 2)).argsort()[::-1]):
        picture(axis, maps[0, channel], f"{channel}", signed=True)
show(
    figure,
    "Figure 7.5. Six channels of every stage's output for one picture (blue negative, red positive; the number is the "
    "channel). Left: the picture at the same size.",
    "A grid of maps. In stages 1 and 2 one sees the dress in every channel: its outline, its sleeves, its surface. In "
    "stage 3 it is a coarse figure, with one channel for its left edge and another for its right. Stage 4 has seven "
    "by seven squares in which the eye finds little of it, least of all after the attention blocks.",
)

# %% [markdown]
# The dress dissolves: outlines first, then a coarse figure, then something that only the classifier can read. Can we
# measure what is lost and what is gained? Ask each stage two questions, with the simplest reader there is, a linear
# one fitted by least squares on 250 test pictures and judged on 250 others:
#
# - *Where is it bright?* Read each place's brightness off its channels. Judged by the share of the variance
#   explained.
# - *What is it?* Read the class off the channels' means. Judged by the share of right answers.


# %%
def prepare(images):
    """Grey pictures (n, 28, 28) -> pixel values (n, 3, 224, 224)."""
    return processor(list(np.repeat(images[:, :, :, None], 3, axis=-1)), return_tensors="np")["pixel_values"]


images, classes = pictures()
fast = npformer.fuse(npformer.get_model("efficientformer-fashion", pretrained=True))
states = {name: [] for name in ("picture", "stage 1", "stage 2", "stage 3", "stage 4")}
bright = {name: [] for name in states}
for start in range(0, len(images), 100):
    batch = prepare(images[start : start + 100])
    for name, maps in zip(states, [shrink(batch, 56)[:, None], *fast.extract_feat(batch)]):
        states[name].append(maps)
        bright[name].append(shrink(batch, maps.shape[-1]))


# %%
def fitted(inputs, targets, new):
    """What a linear reader, fitted to (inputs, targets), says about new inputs."""
    mean, deviation = inputs.mean(0), inputs.std(0) + 1e-9
    scaled, new = (np.c_[(a - mean) / deviation, np.ones(len(a))] for a in (inputs, new))
    ridge = np.eye(scaled.shape[1])  # keeps the weights small
    return new @ np.linalg.solve(scaled.T @ scaled + ridge, scaled.T @ targets)


half, where, what = 250, {}, {}
for name in states:
    maps, light = np.concatenate(states[name]).astype(np.float64), np.concatenate(bright[name])
    places = maps.transpose(0, 2, 3, 1)  # (n, H, W, C)
    fit, test = (part.reshape(-1, maps.shape[1]) for part in (places[:half], places[half:]))
    wrong = fitted(fit, light[:half].ravel(), test) - light[half:].ravel()
    where[name] = 1 - wrong.var() / light[half:].var()
    means = maps.mean((2, 3))  # (n, C)
    guess = fitted(means[:half], np.eye(10)[classes[:half]], means[half:]).argmax(1)
    what[name] = np.mean(guess == classes[half:])
lines = [[name, f"{where[name]:.2f}", f"{what[name]:.2f}"] for name in states]
table(["read off", "brightness", "class"], lines)

# %%
figure, axis = new_figure(height=2.7, width=6.5)
for values, name, colour, up in (
    (where, "brightness: variance explained", "blue", 0.025),
    (what, "class: share right", "orange", -0.09),
):
    axis.plot(list(values), list(values.values()), "o-", color=COLOURS[colour])
    axis.text(1.2, list(values.values())[1] + up, name, color=COLOURS[colour])
axis.axhline(0.1, color=COLOURS["grey"], linestyle=":")
axis.text(4, 0.115, "class by chance", color=COLOURS["grey"], ha="right", fontsize=9)
axis.set(ylim=(0, 1.08), ylabel="read off linearly")
show(
    figure,
    "Figure 7.6. What a linear reader gets out of each stage's maps: where the picture is bright, and what it shows.",
    "Two lines from the picture through the four stages. Brightness stays near one and falls a little at the end. The "
    "class rises from below 0.2 to about 0.55 after stages 1 and 2, 0.76 after stage 3 and 0.93 after stage 4.",
)

# %% [markdown]
# The position of light and dark is hardly lost: the residual connections carry it along (each stage is asked for the
# brightness at its own, coarser size). What grows is how *plainly* the class stands in the maps.
#
# ## The residual stream
#
# Every block half computes `x + scale * branch(x)`. How much does each add? We compare the size of what is added with
# the size of what it is added to, on the twenty shipped pictures.

# %%
batch = processor([npformer.load_image(path) for path in sample_pictures()], return_tensors="np")
before, halfway, after = {}, {}, {}  # by block: what it was given, what flows between its halves, what it gives


def observer(name, module, inputs, output, layout):
    """Note what goes into blocks and out of them; change nothing."""
    if name.endswith(":mixed"):
        halfway[name.removesuffix(":mixed")] = output
    elif name.split(".")[-2:-1] == ["blocks"]:
        before[name], after[name] = inputs[0], output
    return output


with npformer.watch(trained, observer):
    trained(**batch)
labels = ["stage 1", "stage 2", "stage 3: a", "stage 3: b", "stage 4: 4D", "stage 4: 3D a", "stage 4: 3D b"]
names = dict(zip(labels, before))


# %%
def size(values):
    """Root mean square."""
    return np.sqrt(np.mean(values**2))


added, lines = [], []
for label, name in names.items():
    first, second = halfway[name] - before[name], after[name] - halfway[name]
    added.append((size(first) / size(before[name]), size(second) / size(halfway[name])))
    scales = [trained.state_dict()[f"{name}.layer_scale_{i}"] for i in (1, 2)]
    means = (f"{np.abs(scale).mean():.2f}" for scale in scales)
    lines.append([label, *means, f"{np.mean(scales[0] < 0):.0%}"])
table(["block", "mean |scale 1|", "mean |scale 2|", "scale 1 below zero"], lines)

# %%
figure, axis = new_figure(height=2.7)
for half_block, (name, colour) in enumerate((("mixer", "blue"), ("MLP", "orange"))):
    places = np.arange(len(added)) + 0.4 * half_block - 0.2
    axis.bar(places, [pair[half_block] for pair in added], width=0.36, color=COLOURS[colour])
    axis.text(places[0], added[0][half_block] + 0.03, name, ha="center", color=COLOURS[colour])
axis.axhline(1, color=COLOURS["grey"], linestyle=":")
axis.text(-0.4, 1.03, "as large as the block's input", color=COLOURS["grey"], fontsize=9)
axis.set(xticks=range(len(added)), ylabel="added / given", ylim=(0, 2.15))
axis.set_xticklabels([label.replace(": ", "\n") for label in labels])
show(
    figure,
    "Figure 7.7. How large what each half of a block adds is, relative to what it is added to (root mean squares).",
    "Pairs of bars for the seven blocks. All but the last block add between 0.1 and 0.6 of their input's size. In the "
    "last block the attention adds as much as its input and the MLP almost twice as much.",
)

# %% [markdown]
# Six blocks correct; the last one rewrites. It stands right before the classifier and need not keep anything for
# later blocks.
#
# One column of the table is a surprise. All layer scales of this network began at 0.1. Training turned many of the
# mixer's below zero. With $s > 0$ the mixer moves a pixel towards its neighbours' mean: it blurs. With $s < 0$ it
# moves it away: it sharpens. In the first stage close to half of the channels sharpen. The pooling mixer has no
# weights, but its scale gives each channel the choice.
#
# ## Leaving out a block
#
# A watcher may replace any value on its way. Here it replaces a block's output by its input, one block at a time, and
# we count right answers on the first 200 of the test pictures. (The fused model is faster; its blocks still go by
# their names.)
#
# **Predict, then run.** Which of the seven blocks is missed most: the first, which everything after it builds on? One
# of the Meta4D blocks? An attention block? Which one least?

# %%
count = 200
some, truth = prepare(images[:count]), classes[:count]


def right_without(skipped):
    """Which pictures are named right when one block hands on what it was given."""

    def observer(name, module, inputs, output, layout):
        return inputs[0] if name == skipped else output

    with npformer.watch(fast, observer):
        return fast(some).logits.argmax(1) == truth


whole = right_without(None)
results = [right_without(name) for name in names.values()]
losses = [whole.astype(float) - right for right in results]  # 1: lost, 0: as before, -1: gained
lines = [[label, f"{right.mean():.1%}"] for label, right in zip(labels, results)]
table(["without", f"right of {count}"], [["nothing left out", f"{whole.mean():.1%}"], *lines])

# %%
figure, axis = new_figure(height=2.6)
drops = np.array([100 * loss.mean() for loss in losses])
errors = np.array([100 * loss.std() / count**0.5 for loss in losses])
colours = [COLOURS["orange" if "3D" in label else "blue"] for label in labels]
axis.bar(range(7), drops, yerr=errors, color=colours, capsize=3, ecolor=COLOURS["ink"])
axis.set(xticks=range(7), ylabel="lost, % of the pictures")
axis.set_xticklabels([label.replace(": ", "\n") for label in labels])
show(
    figure,
    f"Figure 7.8. Accuracy lost when one block hands on its input, on {count} pictures; bars are one standard error "
    "of the paired difference. Orange: attention blocks.",
    "Seven bars with error bars: what is lost without each block. The last attention block costs most, the two blocks "
    "of stage 3 come next, and stage 2's block costs least.",
)
order = [labels[i] for i in drops.argsort()[::-1]]
print("missed most first:", ", ".join(order))
assert order[0] == "stage 4: 3D b"
assert order[-1] == "stage 2"

# %% [markdown]
# The last block is missed most, as Figure 7.7 suggested: the norm and the classifier were trained on what it writes.
# Yet no single block is fatal. Each adds a correction, and without it the others still get what came before. (This is
# no measure of what a network *trained* without that block could do.)
#
# ## Why 224
#
# The convolutions and the pooling take any size. The attention's bias table has one number per offset on a 7 x 7 grid
# and fits 49 tokens, no more and no fewer.
#
# **Predict, then run.** Five halvings lead from the picture to the tokens. Is 224 x 224 the only size that works?

# %%
for side in (192, 193, 200, 224, 225, 256):
    try:
        said = trained(np.zeros((1, 3, side, side))).logits.shape
    except ValueError as error:
        said = f"{type(error).__name__}: {str(error).partition(' tokens')[0]} tokens ..."
    print(f"{side}: {said}")
print(efficientformer.picture_side(trained.config), "is the largest")

# %% [markdown]
# Every halving rounds up, so all sides from 193 to 224 reach seven tokens, and they run. 224 is the largest, and the
# one the published networks were trained at. PyTorch fails on the others too, with a message about shapes that do not
# broadcast, from deep inside the attention.
#
# ## Exercises
#
# ### Exercise 7.1: the parameters of a Meta4D block
#
# Write `meta4d_parameters(channels, ratio)`: how many numbers does a Meta4D block on `channels` channels learn, if
# its MLP is `ratio` times as wide inside? All convolutions have biases; statistics that a batch norm stores are not
# learned. A block of L1's first stage, `meta4d_parameters(48, 4)`, has 19,248.


# %% tags=["exercise"]
def meta4d_parameters(channels, ratio):
    """Learned numbers of a Meta4D block, layer scales included."""
    ...


# %% tags=["check"]
checks.meta4d_parameters(meta4d_parameters)

# %% [markdown]
# <details><summary>Hint</summary>
#
# List the arrays: two convolutions (weight and bias), two batch norms (weight and bias; mind their widths), two layer
# scales. The token mixer has none.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def meta4d_parameters(channels, ratio):
#     hidden = ratio * channels
#     convolutions = channels * hidden + hidden + hidden * channels + channels
#     norms = 2 * hidden + 2 * channels
#     scales = 2 * channels
#     return convolutions + norms + scales
# ```
#
# Nearly all of it is the two products $C \cdot 4C$: everything else grows with $C$ only.
#
# </details>
#
# ### Exercise 7.2: how many tokens?
#
# Write `grid(height, width)`: the rows and columns of tokens that reach the attention from a picture of that size.
# Count the stride-2 convolutions on the way (each 3 x 3, padding 1), and mind odd sizes: `grid(224, 200)` is `(7,
# 7)`.


# %% tags=["exercise"]
def grid(height, width):
    """Rows and columns of tokens."""
    ...


# %% tags=["check"]
checks.grid(grid)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Two halvings in the stem, three between the stages. Each gives `(side + 2 * 1 - 3) // 2 + 1`.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def grid(height, width):
#     for _ in range(5):
#         height, width = (height - 1) // 2 + 1, (width - 1) // 2 + 1
#     return height, width
# ```
#
# Rounding up five times is the same as rounding up once: $\lceil H / 32 \rceil$. With `// 32` a picture of 200 would
# seem to have 6 rows.
#
# </details>
#
# ### Exercise 7.3: back to a map
#
# A detector wants the last stage's output as a map again. Write `back_to_map(tokens, height, width)`: `(B, N, C)` ->
# `(B, C, height, width)`, undoing `Flat`. The grid need not be square.


# %% tags=["exercise"]
def back_to_map(tokens, height, width):
    """(B, height * width, C) -> (B, C, height, width)."""
    ...


# %% tags=["check"]
checks.back_to_map(back_to_map)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Put the channels in front of the tokens first, and only then split the tokens into rows and columns.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def back_to_map(tokens, height, width):
#     batch, _, channels = tokens.shape
#     return tokens.swapaxes(1, 2).reshape(batch, channels, height, width)
# ```
#
# A reshape alone gives the right shape and nonsense: it never moves a number. Only `swapaxes` brings a channel's
# numbers together.
#
# </details>
#
# ### Exercise 7.4: two heads
#
# Write `two_heads(tokens, p)`: from the tokens of the last block `(B, N, D)` to the logits `(B, K)` of a network with
# two heads. `p` has the arrays `efficientformer.layernorm`, `classifier` and `distillation_classifier`, each with
# `.weight` and `.bias`. The functions of "the whole network on one page" are at hand.


# %% tags=["exercise"]
def two_heads(tokens, p):
    """(B, N, D) -> (B, K)."""
    ...


# %% tags=["check"]
checks.two_heads(two_heads)

# %% [markdown]
# <details><summary>Hint</summary>
#
# The order is: layer norm of every token, mean over the tokens, both linear layers, mean of the two results.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def two_heads(tokens, p):
#     pooled = token_mean(normed(tokens, p, "efficientformer.layernorm"))  # (B, N, D) -> (B, D)
#     heads = [linear(pooled, *weights(p, name)) for name in ("classifier", "distillation_classifier")]
#     return (heads[0] + heads[1]) / 2
# ```
#
# Two linear layers averaged are one linear layer with averaged weights: at inference the second head costs nothing
# that could not be saved.
#
# </details>
#
# ### Exercise 7.5: any EfficientFormer, from its weights alone
#
# `network` knows its depths, heads and widths by heart. Write `any_efficientformer(x, p)`, which reads them off the
# state dict: L1, L3, L7 or any other, with one head or two. `meta4d` and `meta3d` are at hand and may be used. A
# block is there if its `layer_scale_1` is; everything else is in the shapes. All epsilons are 1e-5.


# %% tags=["exercise"]
def any_efficientformer(x, p):
    """Pictures (B, C, H, W) and the weights of any EfficientFormer -> logits (B, K)."""
    ...


# %% tags=["check"]
checks.any_efficientformer(any_efficientformer)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Count the blocks of a row with `while f"{row}.blocks.{i}.layer_scale_1" in p`. The bias table has shape (heads,
# tokens). `projection.weight` has `heads * e` columns and `qkv.weight` has `heads * (2 * d + e)` rows; from the two
# follows `d`. The last stage may have no Meta4D block at all, as in L7.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def any_efficientformer(x, p):
#     def row(name):
#         """The blocks of a row, by name."""
#         count = 0
#         while f"{name}.blocks.{count}.layer_scale_1" in p:
#             count += 1
#         return [f"{name}.blocks.{i}" for i in range(count)]
#
#     stem, last = "efficientformer.patch_embed", "efficientformer.encoder.last_stage"
#     for i, norm in ((1, "batchnorm_before"), (2, "batchnorm_after")):
#         x = relu(conv_norm(x, p, f"{stem}.convolution{i}", f"{stem}.{norm}", 2, 1))
#     for stage in range(3):
#         name = f"efficientformer.encoder.intermediate_stages.{2 * stage}"
#         down = f"efficientformer.encoder.intermediate_stages.{2 * stage + 1}"
#         for block in row(f"{name}.meta4D_layers"):
#             x = meta4d(x, p, block)
#         x = conv_norm(x, p, f"{down}.projection", f"{down}.norm", 2, 1)
#     for block in row(f"{last}.meta4D_layers"):
#         x = meta4d(x, p, block)
#     x = x.reshape(*x.shape[:2], -1).swapaxes(1, 2)  # (B, C, H, W) -> (B, N, C)
#     for block in row(f"{last}.meta3D_layers"):
#         mixer = f"{block}.token_mixer"
#         heads = len(p[f"{mixer}.attention_biases"])
#         values, everything = p[f"{mixer}.projection.weight"].shape[1], len(p[f"{mixer}.qkv.weight"])
#         x = meta3d(x, p, block, heads, (everything - values) // (2 * heads))
#     pooled = token_mean(normed(x, p, "efficientformer.layernorm"))  # (B, N, D) -> (B, D)
#     heads = [name for name in ("classifier", "distillation_classifier") if f"{name}.weight" in p]
#     return sum(linear(pooled, *weights(p, name)) for name in heads) / len(heads)
# ```
#
# A state dict says nearly everything about a network; what it does not say is which operations connect its arrays,
# and small numbers such as the epsilons. That is what a port gets wrong (lesson 11).
#
# </details>
#
# ## Further reading
#
# - Li et al. 2022, [EfficientFormer: Vision Transformers at MobileNet Speed](https://arxiv.org/abs/2206.01191): the
#   measurements on a phone in section 3, the dimension-consistent design and the search in section 4.
# - Yu et al. 2022, [MetaFormer Is Actually What You Need for Vision](https://arxiv.org/abs/2111.11418): why a mixer
#   as plain as pooling is enough.
# - Touvron et al. 2021, [Training data-efficient image transformers](https://arxiv.org/abs/2012.12877): the second
#   head.
# - The package's [`efficientformer.py`](../npformer/models/efficientformer.py): the whole family in one file.
#
# Next: [EfficientNet whole](08_efficientnet.ipynb), a network of the same size made in quite another way.
