# %% [markdown]
# # 3. Normalisation, and why batch norm folds away and layer norm does not
#
# Between two layers of our networks there is almost always a norm. After this lesson you can compute both kinds by
# hand, say which numbers share a mean, fold a batch norm into the convolution before it so that it costs nothing,
# and explain why the same cannot be done with a layer norm.
#
# You need: [lesson 2](02_convolution.ipynb). Time: about 20 minutes.

# %%
import numpy as np
from course import COLOURS, agree, new_figure, picture, pictures, recorded, show, source, table, times
from course.checks import lesson_03 as checks

import npformer
from npformer import nn, ops
from npformer.assets import sample_pictures
from npformer.fuse import _affine, _Filters


def equal(what, ours, truth, tolerance):
    """Say that two arrays are equal, relative to the largest value; stop if they are not."""
    difference = np.abs(ours - truth).max() / np.abs(truth).max()
    assert difference <= tolerance, f"{what}: {difference:.1e} apart"
    print(f"{what}: equal to {tolerance:.0e}")


# %% [markdown]
# ## Why normalise?
#
# A layer multiplies and adds up. If its weights are a little too small, its results are a little smaller than its
# input, and so are those of the layer after it, of theirs. Such factors multiply: a half, twenty times over, is a
# millionth. Let us send random pictures through twenty convolutions with a ReLU after each. The weights are drawn at
# random, in three runs: with the spread that keeps the scale ($\sqrt{2/n}$ for sums of $n$ products with a ReLU
# between, after He et al. 2015), with half and with twice that.


# %%
def spread_through_layers(factor, normalise):
    """The standard deviation of the values after each of 20 layers of random weights."""
    rng = np.random.default_rng(0)
    x, spread = rng.standard_normal((2, 16, 16, 16)), []
    for _ in range(20):
        weight = rng.standard_normal((16, 16, 3, 3)) * factor * np.sqrt(2 / (16 * 9))
        x = ops.conv2d(x, weight, padding=1)
        if normalise:
            x = ops.batch_norm(x, x.mean((0, 2, 3)), x.var((0, 2, 3)))  # by the statistics of these very values
        x = ops.relu(x)
        spread.append(x.std())
    return np.array(spread)


drift = {(f, n): spread_through_layers(f, n) for f in (0.5, 1, 2) for n in (False, True)}
for factor in (0.5, 1, 2):
    print(
        f"weights x {factor}: after 20 layers {drift[factor, False][-1]:.1g}, normalised {drift[factor, True][-1]:.2f}"
    )

# %%
figure, axes = new_figure(1, 2, width=7.5, height=2.9, sharey=True)
layers = np.arange(1, 21)
colours = {0.5: COLOURS["blue"], 1: COLOURS["grey"], 2: COLOURS["orange"]}
for axis, normalise in zip(axes, (False, True)):
    for factor, style in ((0.5, "-"), (1, "--"), (2, ":")):
        axis.semilogy(layers, drift[factor, normalise], style, color=colours[factor], linewidth=2)
        if not normalise:
            axis.text(20.4, drift[factor, False][-1], f"weights x {factor}", va="center", color=colours[factor])
    axis.set(xlabel="layer", xticks=[1, 5, 10, 15, 20], xlim=(0.5, 20.5))
axes[0].set(ylabel="standard deviation", title="convolution, ReLU", xlim=(0.5, 30))
axes[1].set_title("convolution, batch norm, ReLU")
show(
    figure,
    "Figure 3.1. How large the values are after each of twenty random layers. Without a norm only one choice of "
    "weights keeps the scale; with one, all three runs lie on top of each other.",
    "Two line charts with a logarithmic axis. Left, without norm: with weights times 2 the values grow to some "
    "hundred thousand, with times 1 they stay near one, with times 0.5 they fall below a millionth. Right, with "
    "batch norm: one flat line.",
)

# %% [markdown]
# Values of a millionth or a million are no use to the layer after, and training cannot move weights whose effect is
# so small or so large. A norm puts every layer's values back to a known mean and spread.
#
# **Predict, then run.** Multiply the weights of a convolution by ten, with a batch norm after it whose statistics
# were gathered from its results. By how much do the norm's results change?

# %%
rng = np.random.default_rng(1)
x, weight = rng.standard_normal((4, 8, 9, 9)), rng.standard_normal((6, 8, 3, 3))


def normalised(x, eps=1e-5):
    return ops.batch_norm(x, x.mean((0, 2, 3)), x.var((0, 2, 3)), eps=eps)


change = np.abs(normalised(ops.conv2d(x, 10 * weight)) - normalised(ops.conv2d(x, weight))).max()
assert 0 < change < 1e-5
assert np.abs(normalised(ops.conv2d(x, 10 * weight), eps=0) - normalised(ops.conv2d(x, weight), eps=0)).max() < 1e-12
print("less than 1e-5; with eps = 0 less than 1e-12")

# %% [markdown]
# Not at all: mean and standard deviation grow tenfold too, and cancel the factor. What is left is due to epsilon, a
# small number that is added to the variance so that a constant channel is not divided by zero.

# %% [markdown]
# ## Batch norm, in small numbers
#
# Take four numbers of one channel: 2, 4, 4, 6. Their mean is 4 and their variance, the mean squared distance from
# it, is 2. Subtract the mean, divide by the standard deviation, and they have mean 0 and variance 1. Then comes what
# the layer has learned: a weight $\gamma$ that sets the spread anew, and a bias $\beta$ that moves it. Norms do not
# force values to be standardised; they make their spread and place two numbers that are learned, instead of the
# outcome of all the weights before.

# %%
values = np.array([2.0, 4, 4, 6])
mean, variance = values.mean(), values.var()  # the biased variance: divided by n = 4
print("mean", mean, " variance", variance, " divided by n - 1 it would be", round(values.var(ddof=1), 3))
standard = (values - mean) / np.sqrt(variance)
print("standardised ", standard.round(3))
gamma, beta = 0.5, 1.0
print("times 0.5, + 1", (standard * gamma + beta).round(3))

# %% [markdown]
# In training a batch norm takes mean and variance over the batch it is given, and keeps a running average of both.
# At inference it uses these *stored* ones, so that a picture's result does not depend on what else is in the batch.
# For a channel $c$, with the stored $\mu_c$ and $\sigma^2_c$:
#
# $$y[b, c, h, w] = \frac{x[b, c, h, w] - \mu_c}{\sqrt{\sigma^2_c + \varepsilon}} \, \gamma_c + \beta_c$$
#
# Epsilon stands *inside* the root. EfficientFormer and SwiftFormer use $10^{-5}$, EfficientNet $10^{-3}$. As loops:


# %%
def batch_norm_loops(x, mean, variance, weight, bias, eps):
    out = np.zeros_like(x)  # (B, C, H, W)
    for b, c, h, w in np.ndindex(x.shape):
        out[b, c, h, w] = (x[b, c, h, w] - mean[c]) / np.sqrt(variance[c] + eps) * weight[c] + bias[c]
    return out


# %%
source(ops.batch_norm)

# %% [markdown]
# The package computes $\gamma / \sqrt{\sigma^2 + \varepsilon}$ and what is to be added first, one number per channel
# each. After that, a batch norm is one multiplication and one addition. Keep this in mind.

# %%
torch_says = recorded(3)
maps, statistics = torch_says["maps"], [torch_says[name] for name in ("mean", "variance", "gamma", "beta")]
for eps in (1e-5, 1e-3):
    name = f"batch norm, eps {'1e-5' if eps == 1e-5 else '1e-3'}"
    agree(f"loops, {name}", batch_norm_loops(maps, *statistics, eps), torch_says[name])
    agree(f"ops.batch_norm, {name}", ops.batch_norm(maps, *statistics, eps), torch_says[name])
agree("in training", normalised(maps), torch_says["training"])

# %% [markdown]
# One more thing about training, which puzzles those who compare by hand: PyTorch normalises a batch by its *biased*
# variance, but stores the *unbiased* one, divided by $n - 1$. Here is what it kept after one step:

# %%
axes_of_channel = (0, 2, 3)  # all but the channel
agree("stored mean", maps.mean(axes_of_channel), torch_says["training: stored mean"])
agree("stored variance, ddof=1", maps.var(axes_of_channel, ddof=1), torch_says["training: stored variance"])

# %% [markdown]
# ## In a trained network
#
# The stem of `efficientformer-fashion` has a norm after its first convolution. Its statistics were gathered in
# training. Do they fit pictures that it has not seen?

# %%
model = npformer.get_model("efficientformer-fashion", pretrained=True)
processor = npformer.AutoImageProcessor.from_pretrained("efficientformer-fashion")
pixels = processor([npformer.load_image(path) for path in sample_pictures()], return_tensors="np")["pixel_values"]
trace = npformer.record(model, pixels)  # 20 pictures
stem = model.efficientformer.patch_embed
before = trace["efficientformer.patch_embed.convolution1"]  # (20, 8, 112, 112)
after = trace["efficientformer.patch_embed.batchnorm_before"]
norm = stem.batchnorm_before

# %%
figure, axes = new_figure(1, 2, width=7.5, height=2.9)
stored = norm.running_mean, np.sqrt(norm.running_var)
learned = norm.bias, np.abs(norm.weight)
for axis, data, (middle, reach), name in zip(axes, (before, after), (stored, learned), ("stored", "learned")):
    channel = np.arange(8)
    seen = data.mean((0, 2, 3)), data.std((0, 2, 3))
    axis.errorbar(channel - 0.15, middle, reach, fmt="o", color=COLOURS["blue"], capsize=3, label=name)
    axis.errorbar(channel + 0.15, *seen, fmt="s", color=COLOURS["orange"], capsize=3, label="measured")
    axis.set(xlabel="channel", xticks=channel, ylim=(-1.8, 2.3))
    axis.legend(loc="upper left", ncols=2)
axes[0].set(ylabel="mean ± standard deviation", title="before the norm")
axes[1].set_title("after the norm")
show(
    figure,
    "Figure 3.2. The eight channels of the stem before and after their batch norm. Blue: what the norm has stored, "
    "and what it has learned (bias ± weight). Orange: what twenty test pictures give.",
    "Two charts of eight channels, each with a dot and a bar for mean and standard deviation. Stored and measured "
    "values nearly coincide before the norm, learned and measured ones after it.",
)

# %% [markdown]
# They fit well. The bars on the right are of different length, because the network has learned to make them so.

# %% [markdown]
# ## Layer norm
#
# The attention blocks hold tokens instead of maps: $(B, N, D)$, $N$ vectors of $D$ numbers. There each token is
# normalised over its *own* $D$ numbers:
#
# $$y[b, n] = \frac{x[b, n] - \mu}{\sqrt{\sigma^2 + \varepsilon}} \odot \gamma + \beta, \qquad
# \mu = \frac{1}{D} \sum_d x[b, n, d], \qquad \sigma^2 = \frac{1}{D} \sum_d (x[b, n, d] - \mu)^2$$
#
# with $\gamma$ and $\beta$ of $D$ numbers each. Nothing is stored, and nothing differs between training and
# inference. The variance is the biased one. As loops:


# %%
def layer_norm_loops(x, weight, bias, eps):
    out = np.zeros_like(x)  # (B, N, D)
    for b, n in np.ndindex(x.shape[:2]):
        mean = sum(x[b, n]) / len(x[b, n])
        variance = sum((value - mean) ** 2 for value in x[b, n]) / len(x[b, n])
        for d in range(x.shape[2]):
            out[b, n, d] = (x[b, n, d] - mean) / np.sqrt(variance + eps) * weight[d] + bias[d]
    return out


# %%
source(ops.layer_norm)

# %%
tokens, weight, bias = torch_says["tokens"], torch_says["token_weight"], torch_says["token_bias"]
for eps, name in ((1e-5, "layer norm, eps 1e-5"), (1e-12, "layer norm, eps 1e-12")):
    agree(f"loops, {name}", layer_norm_loops(tokens, weight, bias, eps), torch_says[name])
    agree(f"ops.layer_norm, {name}", ops.layer_norm(tokens, (8,), weight, bias, eps), torch_says[name])
print("default epsilon of EfficientFormer's layer norms:", npformer.EfficientFormerConfig().layer_norm_eps)
print("of efficientformer-fashion:", model.config.layer_norm_eps)

# %% [markdown]
# A surprise: transformers' EfficientFormer sets `layer_norm_eps` to 1e-12, while the original code, with which the
# published weights were trained, uses 1e-5. The package follows the checkpoint's configuration. How much it matters
# we measure below.

# %% [markdown]
# ## Who shares a mean?
#
# Ask the ops themselves: change one input number, and see which output numbers change. They have to do with the same
# statistics.


# %%
def affected(function, shape, place):
    """Which output numbers change when the input number at `place` does."""
    x = np.random.default_rng(4).standard_normal(shape)
    changed = x.copy()
    changed[place] += 1
    return function(changed) != function(x)


def stored(x):
    """Batch norm at inference: mean 0, variance 1 for every channel, whatever x is."""
    return ops.batch_norm(x, np.zeros(x.shape[1]), np.ones(x.shape[1]))


# Maps (B, C, H, W) = (3, 6, 2, 3) and tokens (B, N, D) = (3, 6, 6), brought to the order batch, row, column.
in_training = affected(normalised, (3, 6, 2, 3), (0, 5, 0, 0)).reshape(3, 6, 6).swapaxes(1, 2)
at_inference = affected(stored, (3, 6, 2, 3), (0, 5, 0, 0)).reshape(3, 6, 6).swapaxes(1, 2)
of_token = affected(lambda x: ops.layer_norm(x, (6,)), (3, 6, 6), (0, 0, 5))
print("numbers that change:", in_training.sum(), at_inference.sum(), of_token.sum(), "of", of_token.size)


# %%
def cube(axes, filled):
    """Draw a (depth, rows, columns) block of cells from its front, top and right; filled cells are blue."""
    depth, rows, columns = filled.shape
    across, up = 0.5, 0.35  # how far one step into the depth goes on paper

    def face(corners, blue):
        x, y = [c + across * d for d, r, c in corners], [up * d - r for d, r, c in corners]
        axes.fill(x, y, facecolor="#6aa5d3" if blue else "white", edgecolor=COLOURS["grey"], linewidth=0.6)

    for r, c in np.ndindex(rows, columns):
        face([(0, r, c), (0, r, c + 1), (0, r + 1, c + 1), (0, r + 1, c)], filled[0, r, c])
    for d, c in np.ndindex(depth, columns):
        face([(d, 0, c), (d, 0, c + 1), (d + 1, 0, c + 1), (d + 1, 0, c)], filled[d, 0, c])
    for d, r in np.ndindex(depth, rows):
        face([(d, r, columns), (d + 1, r, columns), (d + 1, r + 1, columns), (d, r + 1, columns)], filled[d, r, -1])


# %%
figure, axes = new_figure(1, 3, width=7.5, height=2.55)
titles = ("batch norm, training", "batch norm, inference", "layer norm")
for axis, filled, title in zip(axes, (in_training, at_inference, of_token), titles):
    cube(axis, filled)
    rows, columns = ("tokens N", "channels D") if title == "layer norm" else ("pixels H x W", "channels C")
    axis.text(3, -6.3, columns, ha="center", va="top")
    axis.text(-0.3, -3, rows, ha="right", va="center", rotation=90)
    axis.text(7.15, -5.75, "batch B", ha="center", va="center", rotation=35)
    axis.set(xlim=(-1.1, 8.1), ylim=(-7, 1.2), aspect="equal", title=title)
    axis.axis("off")
show(
    figure,
    "Figure 3.3. The numbers that change when one of them does. In training a batch norm ties together a whole "
    "channel, all pictures included. At inference it ties together nothing. A layer norm ties together one token's "
    "channels.",
    "Three blocks of 3 by 6 by 6 cells. In the first the whole right face, one channel of all pictures and pixels, "
    "is blue. In the second a single cell. In the third the row of cells along the front upper edge, one token.",
)

# %% [markdown]
# The middle block is the whole secret of this lesson. At inference a batch norm treats each number by itself, with
# constants. A layer norm goes on looking at its input.

# %% [markdown]
# ## Folding batch norm into a convolution
#
# Write $s = \gamma / \sqrt{\sigma^2 + \varepsilon}$ for a channel's factor. A batch norm after a convolution with
# weights $w$ and bias $b$ computes, for the output channel $o$,
#
# $$\Big(\sum w_o \cdot \text{patch} + b_o - \mu_o\Big) s_o + \beta_o
# = \sum (s_o w_o) \cdot \text{patch} + \big((b_o - \mu_o) s_o + \beta_o\big).$$
#
# The right-hand side is a convolution, with the weights $s_o w_o$ and the bias $(b_o - \mu_o) s_o + \beta_o$.
# Compute these once, and throw the norm away.


# %%
def fold(conv_weight, conv_bias, norm_mean, norm_variance, gamma, beta, eps):
    """The weight (O, C, kH, kW) and bias (O,) of a convolution with the batch norm after it folded in."""
    scale = gamma / np.sqrt(norm_variance + eps)
    return conv_weight * scale[:, None, None, None], (conv_bias - norm_mean) * scale + beta


folded_weight, folded_bias = fold(torch_says["kernels"], torch_says["kernels_bias"], *statistics, 1e-5)
agree("weight, as PyTorch folds it", folded_weight, torch_says["folded kernels"])
agree("bias", folded_bias, torch_says["folded bias"])

# %% [markdown]
# Now in earnest, on the trained stem: its second convolution and the norm after it. In float64 both ways must agree
# to nearly all digits.

# %%
exact = model.astype(np.float64).efficientformer.patch_embed
conv, norm = exact.convolution2, exact.batchnorm_after
weight, bias = fold(conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.weight, norm.bias, norm.eps)
x = ops.relu(exact.batchnorm_before(exact.convolution1(pixels[:4].astype(np.float64))))  # (4, 8, 112, 112)
both = norm(conv(x))  # (4, 16, 56, 56)
one = ops.conv2d(x, weight, bias, stride=2, padding=1)
equal("folded, float64", one, both, 1e-12)

# %%
small = x.astype(np.float32)
both32 = stem.batchnorm_after(stem.convolution2(small))
one32 = ops.conv2d(small, weight.astype(np.float32), bias.astype(np.float32), stride=2, padding=1)
equal("two layers, float32, against float64", both32, both, 2e-6)
equal("folded,     float32, against float64", one32, both, 2e-6)

# %% [markdown]
# In float32 the two ways round at different steps, so they differ in the last digits. Neither is the better: both
# are as close to the truth as float32 allows. To keep it so, fold in float64 and round once, at the end.

# %% [markdown]
# ### A norm *before* a convolution
#
# The MLPs in SwiftFormer's encoder blocks normalise first and convolve after. The same trick, the other way round:
#
# $$\sum_{c} w_{oc} (s_c x_c + t_c) + b_o = \sum_c (s_c w_{oc}) x_c + \Big(b_o + \sum_c w_{oc} t_c\Big),
# \qquad t = \beta - \mu s.$$
#
# **Predict, then run.** Does this hold for a 3 x 3 convolution without padding? And with padding 1, where would a
# difference show?

# %%
rng = np.random.default_rng(5)
x, weight, bias = rng.standard_normal((1, 2, 6, 7)), rng.standard_normal((1, 2, 3, 3)), rng.standard_normal(1)
mean, variance, gamma, beta = (
    rng.standard_normal(2),
    rng.uniform(0.5, 2, 2),
    rng.standard_normal(2),
    rng.standard_normal(2),
)
scale = gamma / np.sqrt(variance + 1e-5)
shift = beta - mean * scale
folded_weight, folded_bias = weight * scale[:, None, None], bias + weight.sum((2, 3)) @ shift

norm_first = ops.batch_norm(x, mean, variance, gamma, beta)
equal("without padding", ops.conv2d(x, folded_weight, folded_bias), ops.conv2d(norm_first, weight, bias), 1e-12)
wrong = ops.conv2d(x, folded_weight, folded_bias, padding=1) - ops.conv2d(norm_first, weight, bias, padding=1)
print("with padding 1, the difference is:")
print(wrong[0, 0].round(2) + 0.0)

# %% [markdown]
# Inside all is well, at the border it is not. The zeros of the padding come *after* the norm, and the folded
# convolution pads *before* it: it takes its zeros for numbers that are still to be normalised, to $t_c$ instead of
# 0. A norm that leaves 0 at 0 ($t = 0$) would do no harm. Otherwise one has to pad with the number that the norm
#    would turn into 0:

# %%
to_be_zero = -shift / scale  # one number per channel
padded = np.stack([np.pad(x[0, c], 1, constant_values=to_be_zero[c]) for c in range(2)])[None]
right = ops.conv2d(norm_first, weight, bias, padding=1)
equal("padded by what becomes 0", ops.conv2d(padded, folded_weight, folded_bias), right, 1e-12)

# %% [markdown]
# Our networks never need that. Wherever they normalise first, the convolution after is 1 x 1 and pads nothing; all
# other batch norms come after their convolution, and there padding is harmless.

# %% [markdown]
# ### Layer scale, and what is left
#
# The blocks of EfficientFormer and SwiftFormer end in a *layer scale*: each channel of a branch is multiplied by a
# learned number before the branch is added. One more multiplication of a convolution's result, so it folds as well.
# The package does all of it with four short functions, in float64:

# %%
source(_affine, _Filters.then, _Filters.after, _Filters.scaled)

# %% [markdown]
# How much does it save in EfficientFormer-L1? Let us count the norms before and after, and the numbers that they
# touch for one picture.

# %%
l1 = npformer.get_model("efficientformer-l1", seed=0)
fused = npformer.fuse(l1)
passed = npformer.record(l1, np.zeros((1, 3, 224, 224), np.float32))
for kind in (nn.BatchNorm2d, nn.LayerNorm):
    names = [name for name, module in l1.named_modules() if isinstance(module, kind)]
    numbers = sum(passed[name].size for name in names)
    left = sum(isinstance(module, kind) for _, module in fused.named_modules())
    print(f"{kind.__name__}: {len(names)} layers, {numbers:,} numbers; left as layers after fusing: {left}")

# %% [markdown]
# All 33 batch norms are gone. Two layer norms have moved *into* the fused attention block, which still computes
# their statistics; the third stands as it was. Nothing else changes about the network:

# %%
fast = npformer.fuse(model)
logits, fast_logits = trace["classifier"], fast(pixels).logits  # (20, 10) each
equal("logits of the fused model", fast_logits, logits, 1e-5)
assert (logits.argmax(1) == fast_logits.argmax(1)).all()

# %% [markdown]
# ## Why layer norm does not fold
#
# To fold, we need a factor that is known before the input is. A layer norm's factor is
# $1 / \sqrt{\sigma^2 + \varepsilon}$ of the token at hand. Here are the factors of the 49 tokens in front of the
# first attention block, for two pictures.

# %%
names = [path.stem for path in sample_pictures()]
tokens = trace["efficientformer.encoder.last_stage.flat"]  # (20, 49, 128)
block = model.efficientformer.encoder.last_stage.meta3D_layers.blocks[0]
factors = 1 / np.sqrt(tokens.astype(np.float64).var(axis=2) + block.layernorm1.eps)  # (20, 49)
chosen = [names.index("ankle-boot-1"), names.index("dress-1")]
for k in chosen:
    print(f"{names[k]}: factors from {factors[k].min():.3f} to {factors[k].max():.3f}")

# %%
figure, axes = new_figure(1, 4, width=7.5, height=2.05)
for k, (left, right) in zip(chosen, axes.reshape(2, 2)):
    picture(left, pixels[k, 0], names[k], cmap="gray")
    drawn = picture(right, factors[k].reshape(7, 7), "factors", vmin=factors[chosen].min(), vmax=factors[chosen].max())
figure.colorbar(drawn, ax=axes, shrink=0.8, label="1 / standard deviation")
show(
    figure,
    "Figure 3.4. What the first layer norm multiplies by, at each of the 7 x 7 places of two pictures. A batch norm "
    "would have one number per channel here, the same for all places and all pictures.",
    "A boot and its 7 by 7 map of factors, a dress and its map. The factors differ from place to place and follow "
    "the garment's shape, so the two maps differ too.",
)

# %% [markdown]
# No constant can stand for both maps. But after the normalising proper, weight $\gamma$ and bias $\beta$ *are*
# constants, and the layer after is linear, with a matrix $W$. They fold into it:
#
# $$W (\gamma \odot z + \beta) + b = (W \operatorname{diag}(\gamma)) z + (W \beta + b).$$
#
# Here with the block's own layers: first norm, then the linear layer that makes queries, keys and values.

# %%
norm, linear = block.layernorm1.astype(np.float64), block.token_mixer.qkv.astype(np.float64)
exact_tokens = tokens.astype(np.float64)
plain = ops.layer_norm(exact_tokens, (128,), eps=norm.eps)  # no weight, no bias
folded = ops.linear(plain, linear.weight * norm.weight, linear.bias + linear.weight @ norm.bias)
equal("weight and bias of the norm folded", folded, linear(norm(exact_tokens)), 1e-12)

# %% [markdown]
# SwiftFormer needs a third kind of norm: [`ops.normalize`](../npformer/ops/norm.py) divides a vector by its length,
# so that (3, 4) becomes (0.6, 0.8). No mean, no weights, and epsilon only keeps a zero vector from being divided by
# zero. [Lesson 9](09_swiftformer.ipynb) uses it on queries and keys.

# %%
print(ops.normalize(np.array([3.0, 4.0]), dim=0))
agree("ops.normalize", ops.normalize(torch_says["tokens"], dim=-1), torch_says["normalize"])

# %% [markdown]
# ## When it is nearly right
#
# Norms are where ports go wrong most quietly: the result looks sensible. How large are the usual mistakes? First for
# the layer norm, on the 980 real tokens of our twenty pictures, as the largest difference over the largest value.

# %%
z = tokens.reshape(-1, 128).astype(np.float64)
centred, variance = z - z.mean(1, keepdims=True), z.var(1, keepdims=True)
right = centred / np.sqrt(variance + 1e-5)
mistakes = {
    "epsilon 1e-12 instead of 1e-5": centred / np.sqrt(variance + 1e-12),
    "epsilon outside the root": centred / (np.sqrt(variance) + 1e-5),
    "variance divided by n - 1": centred / np.sqrt(z.var(1, keepdims=True, ddof=1) + 1e-5),
    "mean over tokens, not channels": (z - z.mean(0)) / np.sqrt(z.var(0) + 1e-5),
}
error = {name: np.abs(value - right).max() / np.abs(right).max() for name, value in mistakes.items()}
table([f"layer norm of {len(z)} tokens", "error"], [[name, f"{value:.0e}"] for name, value in error.items()])

# %% [markdown]
# The two slips with epsilon are harmless here, since these tokens' variance is far from zero. Dividing by $n - 1$
# makes every number too small by a share of $1/(2n)$, with $n = 128$ channels. That is thousands of times more than
# float32's rounding, and still too little to be seen in a picture. And now epsilon of the *batch* norms, in the
# whole network:

# %%
images, classes = pictures(100)
prepared = processor([np.stack([image] * 3, axis=-1) for image in images], return_tensors="np")["pixel_values"]


def logits_with(eps):
    """The logits of the 100 pictures, with another epsilon in every batch norm."""
    changed = model.astype(np.float32)  # a copy
    for _, module in changed.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = eps
    return npformer.fuse(changed)(prepared).logits  # (100, 10)


right, rows = logits_with(1e-5), []
for eps in (1e-5, 1e-3, 1e-1):
    logits = right if eps == 1e-5 else logits_with(eps)
    moved = np.abs(logits - right).max() / np.abs(right).max()
    rows.append([f"{eps:g}", f"{moved:.1%}", (logits.argmax(1) == classes).sum()])
table(["epsilon", "change of logits", "right, of 100"], rows)
smallest = min(m.running_var.min() for _, m in model.named_modules() if isinstance(m, nn.BatchNorm2d))
print(f"smallest stored variance: {smallest:.4f}")

# %% [markdown]
# EfficientNet's epsilon, 1e-3, in a network trained with 1e-5 costs two pictures of 100. Who would notice? But the
# smallest of the stored variances is only 0.0056, so that a thousandth is a good deal, and the logits are no longer
# the network's own. Accuracy is a blunt instrument: compare numbers, layer by layer ([lesson 11](11_parity.ipynb)).

# %% [markdown]
# ### A formula that is right, and wrong
#
# The variance is also $E[x^2] - E[x]^2$, mean of the squares minus square of the mean. It is tempting: one pass over
# the data instead of two. **Predict, then run.** The three numbers $m - 1$, $m$ and $m + 1$ have the variance 2/3,
# whatever $m$ is. What does this formula find in float32, as $m$ grows?

# %%
rows, three = [], np.float32(3)
for m in (10, 1000, 2000, 3000, 6690, 8196, 30_000):
    a, b, c = np.float32(m - 1), np.float32(m), np.float32(m + 1)
    mean = (a + b + c) / three
    short = (a * a + b * b + c * c) / three - mean * mean
    careful = ((a - mean) ** 2 + (b - mean) ** 2 + (c - mean) ** 2) / three
    rows.append([f"{m:,}", round(float(short), 3), round(float(careful), 3)])
table(["m", "E[x^2] - E[x]^2", "mean of (x - mean)^2"], rows)

# %% [markdown]
# A float32 has about seven digits. The squares of thousands have seven or eight, so the last ones are rounded off,
# and the difference that we are after is in the last ones. What survives is noise: 0, or 64, or a negative number,
# whose root is not a number at all. Subtract the mean *first*, and the squares are small. `ops.layer_norm` does so,
# and adds up in float64 besides.

# %% [markdown]
# ## What folding saves
#
# A batch norm has next to no arithmetic, but it reads and writes every number of a map, which takes time of its own.
# Two convolutions of EfficientFormer-L1 at their real sizes, with random weights, alone, and with the norm that
# folding saves:

# %% tags=["timing"]
rng = np.random.default_rng(6)
rows = []
for name, shape, conv in (
    ("stem, second convolution", (1, 24, 112, 112), nn.Conv2d(24, 48, 3, stride=2, padding=1)),
    ("first MLP layer, 1x1", (1, 48, 56, 56), nn.Conv2d(48, 192, 1)),
):
    conv.weight = rng.standard_normal(conv.weight.shape).astype(np.float32)
    x, norm = rng.standard_normal(shape).astype(np.float32), nn.BatchNorm2d(len(conv.weight))
    seconds = times({"two": lambda: norm(conv(x)), "one": lambda: conv(x)}, rounds=15)  # noqa: B023
    rows.append([name, f"{1e3 * seconds['two']:.2f}", f"{1e3 * seconds['one']:.2f}"])
table(["", "with norm, ms", "folded, ms"], rows)

# %% [markdown]
# That is for free: no digit of accuracy is lost, and no number of the network is missing. Every inference engine
# does it.

# %% [markdown]
# ## Exercises
#
# ### Exercise 3.1: batch norm
#
# Write `batch_norm(x, mean, variance, weight, bias, eps)` for maps `x` `(B, C, H, W)`; the others have one number
# per channel. No loops.


# %% tags=["exercise"]
def batch_norm(x, mean, variance, weight, bias, eps):
    """Normalise every channel by its stored statistics: (B, C, H, W), same shape out."""
    ...


# %% tags=["check"]
checks.batch_norm(batch_norm)

# %% [markdown]
# <details><summary>Hint</summary>
#
# NumPy lines up shapes from the right, so an array `(C,)` meets the columns of `x`. Give it two more axes:
# `mean[:, None, None]` has the shape `(C, 1, 1)`.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def batch_norm(x, mean, variance, weight, bias, eps):
#     scale = weight / np.sqrt(variance + eps)
#     shift = bias - mean * scale
#     return x * scale[:, None, None] + shift[:, None, None]
# ```
#
# Where $C = W$ the wrong axis raises no error, it only gives wrong numbers. Test with sides that all differ.
#
# </details>

# %% [markdown]
# ### Exercise 3.2: layer norm
#
# Write `layer_norm(x, weight, bias, eps)` for `x` of shape `(..., D)`, weight and bias `(D,)`. The statistics are
# each vector's own.


# %% tags=["exercise"]
def layer_norm(x, weight, bias, eps):
    """Normalise every vector along the last axis: (..., D), same shape out."""
    ...


# %% tags=["check"]
checks.layer_norm(layer_norm)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `x.mean(axis=-1, keepdims=True)` keeps an axis of length one, so that it can be subtracted from `x`. `np.var`
# divides by $n$ unless told otherwise.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def layer_norm(x, weight, bias, eps):
#     centred = x - x.mean(axis=-1, keepdims=True)
#     variance = np.mean(centred**2, axis=-1, keepdims=True)
#     return centred / np.sqrt(variance + eps) * weight + bias
# ```
#
# NumPy's `std` and `var` are biased by default, PyTorch's `torch.std` and `torch.var` are not. Ports in either
# direction trip over it.
#
# </details>

# %% [markdown]
# ### Exercise 3.3: fold a batch norm
#
# Without looking up: write `fold_batch_norm(weight, conv_bias, mean, variance, gamma, beta, eps)`. It returns the
# weight `(O, C, kH, kW)` and the bias `(O,)` of one convolution that does the work of the convolution and the norm
# after it.


# %% tags=["exercise"]
def fold_batch_norm(weight, conv_bias, mean, variance, gamma, beta, eps):
    """Return the folded weight and the folded bias."""
    ...


# %% tags=["check"]
checks.fold_batch_norm(fold_batch_norm)

# %% [markdown]
# <details><summary>Hint</summary>
#
# What does the norm do to an output channel $o$? It subtracts $\mu_o$, multiplies by $s_o$ and adds $\beta_o$.
# Everything that the convolution adds up goes through that, its bias included.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def fold_batch_norm(weight, conv_bias, mean, variance, gamma, beta, eps):
#     scale = gamma / np.sqrt(variance + eps)
#     return weight * scale[:, None, None, None], (conv_bias - mean) * scale + beta
# ```
#
# Each filter is scaled as a whole, along axis 0. Axis 1, the input channels, would be a norm *before* the convolution.
#
# </details>

# %% [markdown]
# ### Exercise 3.4: fold what a layer norm has learned
#
# Write `fold_layer_norm(gamma, beta, weight, bias)`: a layer norm with weight `gamma` and bias `beta`, `(D,)` each,
# stands before a linear layer with `weight` `(O, D)` and `bias` `(O,)`. Return the weight and the bias of a linear
# layer that gives the same after a layer norm without weight and bias.


# %% tags=["exercise"]
def fold_layer_norm(gamma, beta, weight, bias):
    """Return the new weight (O, D) and the new bias (O,)."""
    ...


# %% tags=["check"]
checks.fold_layer_norm(fold_layer_norm)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Let the norm without weight and bias give $z$. Write down output $o$ of the linear layer for $\gamma z + \beta$,
# and sort: what is multiplied by $z_d$, and what stands alone?
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# def fold_layer_norm(gamma, beta, weight, bias):
#     return weight * gamma, bias + weight @ beta
# ```
#
# Now it is the columns that are scaled, the inputs. Because `beta` is added after the multiplication by `gamma`, it
# meets the old weight.
#
# </details>

# %% [markdown]
# ### Exercise 3.5: a branch as one layer
#
# In EfficientFormer's pooling blocks an MLP branch ends in a convolution, a batch norm, and a layer scale. Write
# `fold_branch(conv, norm, layer_scale)`, where `conv` is an `nn.Conv2d`, `norm` an `nn.BatchNorm2d`, and
# `layer_scale` an array `(O,)`. It returns a new `nn.Conv2d` that does the work of all three, and leaves those it
# was given as they are. Mind that a convolution's `bias` may be `None`. `copy.copy(conv)` gives a convolution with
# the same settings.


# %% tags=["exercise"]
def fold_branch(conv, norm, layer_scale):
    """Return one convolution for convolution, norm and layer scale."""
    ...


# %% tags=["check"]
checks.fold_branch(fold_branch)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `fold_batch_norm` gives you weight and bias of the first two; a missing bias is `np.zeros(len(conv.weight))`. Then
# the layer scale multiplies everything that comes out, the bias too. The norm's arrays are `running_mean`,
# `running_var`, `weight` and `bias`.
#
# </details>
#
# <details><summary>Solution</summary>
#
# ```python
# import copy
#
#
# def fold_branch(conv, norm, layer_scale):
#     bias = np.zeros(len(conv.weight)) if conv.bias is None else conv.bias
#     weight, bias = fold_batch_norm(
#         conv.weight, bias, norm.running_mean, norm.running_var, norm.weight, norm.bias, norm.eps
#     )
#     one = copy.copy(conv)
#     one.weight, one.bias = weight * layer_scale[:, None, None, None], bias * layer_scale
#     return one
# ```
#
# This is what `npformer.fuse` does for the second convolution of every pooling block. Try it on a real one:
# `model.efficientformer.encoder.intermediate_stages[0].meta4D_layers.blocks[0]` has `mlp.convolution2`,
# `mlp.batchnorm_after` and `layer_scale_2`.
#
# </details>

# %% [markdown]
# ## Further reading
#
# * Ioffe and Szegedy 2015, [Batch Normalization](https://arxiv.org/abs/1502.03167): algorithm 2 is the norm at
#   inference.
# * Ba, Kiros and Hinton 2016, [Layer Normalization](https://arxiv.org/abs/1607.06450).
# * Wu and He 2018, [Group Normalization](https://arxiv.org/abs/1803.08494): figure 2 draws who shares a mean, for
#   four norms.
# * He et al. 2015, [Delving deep into rectifiers](https://arxiv.org/abs/1502.01852): how large random weights should
#   be.
# * Jacob et al. 2018, [Quantization and training of neural networks](https://arxiv.org/abs/1712.05877), section 3.2:
#   folding.
# * Li et al. 2022, [EfficientFormer](https://arxiv.org/abs/2206.01191), section 3: layer norm against batch norm,
#   measured on a phone.
# * The source: [`npformer/ops/norm.py`](../npformer/ops/norm.py), [`npformer/fuse.py`](../npformer/fuse.py).
#
# Next: [4. The pooling token mixer](04_pooling_mixer.ipynb)
