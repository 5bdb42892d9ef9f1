# %% [markdown]
# # 5. Activations: GELU, erf by hand, tanh's error, SiLU
#
# Between the linear layers of a network stand small bent functions, applied to each number on its own. After this
# lesson you can say why they have to be there, compute GELU from first principles, judge what
# the well-known tanh approximation costs, and write sigmoid, SiLU and softmax so that no input breaks them.
#
# You need: lesson 1, and what a matrix product is. Time: about 25 minutes.

# %%
import math

import numpy as np
from course import COLOURS, agree, new_figure, picture, pictures, recorded, show, source, table, times
from course.checks import lesson_05 as checks

import npformer
from npformer import AutoImageProcessor, ops
from npformer.fast import kernels
from npformer.ops import activation

torch_values = recorded(5)
rng = np.random.default_rng(5)

# %% [markdown]
# ## Why bend at all
#
# A convolution is linear, a linear layer is linear (but for its bias), and at inference batch normalisation is too.
# Two such layers in a row are one:
#
# $$W_2 (W_1 x + b_1) + b_2 = (W_2 W_1)\, x + (W_2 b_1 + b_2).$$

# %%
# As in the first MLPs of EfficientFormer-L1: from 48 channels to 192, and back.
w1, b1 = rng.standard_normal((192, 48)), rng.standard_normal(192)
w2, b2 = rng.standard_normal((48, 192)), rng.standard_normal(48)
x = rng.standard_normal((5, 48))  # five pixels
two_layers = ops.linear(ops.linear(x, w1, b1), w2, b2)
one_layer = ops.linear(x, w2 @ w1, w2 @ b1 + b2)
assert np.allclose(two_layers, one_layer)
print("numbers in two layers:", w1.size + b1.size + w2.size + b2.size, " in the one that replaces them:", 48 * 48 + 48)

# %% [markdown]
# However deep, a stack of linear layers can only do what one can. And one cannot even do *exclusive or*: 1 if exactly
# one of two inputs is 1. The best linear answer is a shrug, 0.5 everywhere. One ReLU, $\max(0, x)$, is enough to do
# it:

# %%
inputs = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], float)
wanted = np.array([0, 1, 1, 0], float)
with_ones = np.column_stack([inputs, np.ones(4)])
best_linear = with_ones @ np.linalg.lstsq(with_ones, wanted, rcond=None)[0]
bent = inputs.sum(axis=1) - 2 * ops.relu(inputs.sum(axis=1) - 1)
rows = [[*map(int, pair), *three] for pair, *three in zip(inputs, wanted, best_linear.round(2), bent)]
table(["a", "b", "a xor b", "best linear", "a + b - 2 relu(a + b - 1)"], rows)
assert np.array_equal(bent, wanted)

# %% [markdown]
# ## GELU: x times a probability
#
# ReLU decides by the sign alone: pass, or 0. GELU (Hendrycks and Gimpel) decides by how $x$ compares with other
# numbers. If those are normally distributed, the share below $x$ is $\Phi(x)$, and GELU lets just that share through:
#
# $$\text{gelu}(x) = x \cdot \Phi(x), \qquad \Phi(x) = P(Z \le x), \quad Z \sim N(0, 1).$$
#
# Put otherwise: toss a coin that keeps $x$ with probability $\Phi(x)$ and drops it to 0 otherwise. GELU is what comes
# out on average, dropout and ReLU in one.

# %%
draws = rng.standard_normal(200_000)
rows = []
for number in (-1.0, 0.5, 2.0):
    kept = draws <= number  # a coin that keeps with probability Phi(number)
    average, gelu = np.where(kept, number, 0.0).mean(), ops.gelu(np.array(number))
    assert abs(average - gelu) < 0.01
    rows.append([number, round(kept.mean(), 2), round(average, 2), round(float(gelu), 4)])
table(["x", "share below", "average", "gelu(x)"], rows)

# %%
figure, axes = new_figure(1, 3, width=7.8, height=2.5)
grid = np.linspace(-4, 4, 401)
bell = np.exp(-(grid**2) / 2) / math.sqrt(2 * math.pi)
below = grid <= 0.5
axes[0].plot(grid, bell)
axes[0].fill_between(grid[below], bell[below], alpha=0.3)
axes[0].text(-0.4, 0.1, "69 %", ha="center")
axes[0].set(xlabel="z", ylabel="density", title="how much lies below 0.5", ylim=(0, 0.45))
phi = (1 + ops.erf(grid / math.sqrt(2))) / 2
assert abs(np.interp(0.5, grid, phi) - 0.69) < 0.005
axes[1].plot(grid, phi)
axes[1].plot([0.5], [np.interp(0.5, grid, phi)], "o")
axes[1].set(xlabel="x", title=r"$\Phi(x)$, that share for every x")
for name, function, colour, place in [
    ("ReLU", ops.relu, "grey", (1.0, 2.2)),
    ("GELU", ops.gelu, "blue", (2.1, 1.1)),
    ("SiLU", ops.silu, "orange", (-3.7, -0.75)),
]:
    axes[2].plot(grid, function(grid), color=COLOURS[colour])
    axes[2].text(*place, name, color=COLOURS[colour])
axes[2].set(xlabel="x", title="x times that share: GELU", ylim=(-1, 3), xlim=(-4, 3.2))
show(
    figure,
    "Figure 5.1. Left, the shaded share of the bell curve is 0.69. Middle, that share as a function of x. Right, "
    "GELU: x times the share, beside ReLU and SiLU.",
    "Three panels. A bell curve with the area left of 0.5 shaded and labelled 69 per cent; the S-shaped curve of "
    "that area from 0 to 1; and three activations: ReLU with its corner, GELU and SiLU smooth, dipping a little "
    "below 0 for negative x and approaching the diagonal for positive x.",
)

# %% [markdown]
# **Predict, then run.** Which is smaller, gelu(-1) or gelu(-10)? And where is GELU smallest of all?

# %%
fine = np.linspace(-10, 0, 1_000_001)
lowest = fine[ops.gelu(fine).argmin()]
for number in (-10.0, -1.0, lowest):
    print(f"gelu({number:.4f}) = {ops.gelu(np.array(number)):.5f}")

# %% [markdown]
# GELU falls, then comes back to 0: far down, almost nothing is let through. So it is not monotonic, and two very
# different inputs can give the same output. Nothing in a network minds.
#
# ## erf by hand
#
# $\Phi$ has no formula in elementary functions. It is written with the *error function*, which every library knows:
#
# $$\Phi(x) = \frac{1 + \text{erf}(x / \sqrt 2)}{2}, \qquad
# \text{erf}(x) = \frac{2}{\sqrt\pi} \int_0^x e^{-t^2}\, dt.$$
#
# NumPy does not, so we compute it. The first way is the series: write $e^{-t^2}$ as a sum of powers, integrate each.
#
# $$\text{erf}(x) = \frac{2}{\sqrt\pi} \sum_{n=0}^\infty \frac{(-1)^n\, x^{2n+1}}{n!\,(2n+1)}$$


# %%
def erf_series(x, terms):
    power, total = x, x  # the term of n = 0
    for n in range(1, terms):
        power *= -x * x / n  # (-1)^n x^(2n+1) / n!
        total += power / (2 * n + 1)
    return 2 / math.sqrt(math.pi) * total


rows = []
for terms in (1, 2, 3, 5, 10, 18):
    value = erf_series(1.0, terms)
    rows.append([terms, f"{value:.15f}", f"{abs(value - math.erf(1.0)):.0e}"])
table(["terms", "erf(1)", "error"], rows)

# %% [markdown]
# **Predict, then run.** Eighteen terms give erf(1) to the last digit. With enough terms the series reaches any $x$, in
# theory. How good is erf(6) with a hundred and fifty terms, in float64? The right answer is 1 to all digits.

# %%
for number in (1.0, 3.0, 5.0, 6.0):
    largest = max(number ** (2 * n + 1) / math.factorial(n) / (2 * n + 1) for n in range(150))
    error = abs(erf_series(number, 150) - math.erf(number))
    print(f"x = {number:.0f}: largest term {largest:7.0e}, error of the sum {error:.0e}")

# %% [markdown]
# Terms as large as $10^{13}$, with changing signs, have to cancel down to 1. Each is rounded to 16 digits, so what is
# left is wrong in the third. This is *cancellation*: the series is right, the arithmetic is not.
#
# The second way starts from the other end. What is missing to 1, $\text{erfc}(x) = 1 - \text{erf}(x)$, shrinks like
# $e^{-x^2}$, and a continued fraction gives it, the faster the larger $x$ is:
#
# $$\text{erfc}(x) = \frac{e^{-x^2}}{\sqrt\pi} \cdot
# \cfrac{1}{x + \cfrac{1/2}{x + \cfrac{2/2}{x + \cfrac{3/2}{x + \cdots}}}}$$


# %%
def erf_fraction(x, terms):
    tail = x
    for k in range(terms, 0, -1):  # from the innermost outwards
        tail = x + k / 2 / tail
    return 1 - math.exp(-x * x) / (math.sqrt(math.pi) * tail)


for number in (0.5, 1.0, 3.0, 6.0):
    errors = [abs(erf_fraction(number, terms) - math.erf(number)) for terms in (5, 20, 80)]
    print(f"x = {number}: error with 5, 20, 80 terms:", *(f"{error:.0e}" for error in errors))

# %% [markdown]
# Good where the series is bad, bad where it is good. The package does the same in a form that suits arrays, where
# every element runs through the same steps: the series below 1, and above it $1 - e^{-x^2} \cdot g(x)$, where $g(x) =
# e^{x^2} \text{erfc}(x)$ is so tame that a polynomial of degree 12 follows it. Its variable is $t = (x - 2) / (x +
# 2)$, which bends the long way from 1 to 6 into a short one.

# %%
source(ops.erf)
print(len(activation._ERF_TAYLOR), "coefficients below 1,", len(activation._ERFCX), "above")

# %%
figure, axes = new_figure(1, 3, width=7.8, height=2.7, gridspec_kw={"width_ratios": [1, 1, 1.6]})
points = np.linspace(1, 6, 101)
gentle = np.array([math.exp(p * p) * math.erfc(p) for p in points])
axes[0].semilogy(points, [math.erfc(p) for p in points])
axes[0].set(xlabel="x", title="erfc(x)")
axes[1].plot((points - 2) / (points + 2), gentle)
axes[1].set(xlabel="t", title=r"$e^{x^2}$ erfc(x)", ylim=(0, 0.45))
points = np.linspace(0.05, 6, 239)
truth = np.array([math.erf(p) for p in points])
lines = {
    "series, 150 terms": ([erf_series(p, 150) for p in points], "orange", (2.2, 3e-7)),
    "fraction, 20 terms": ([erf_fraction(p, 20) for p in points], "green", (1.0, 2e-3)),
    "ops.erf": (ops.erf(points), "blue", (4.3, 3e-19)),
}
for name, (values, colour, place) in lines.items():
    axes[2].semilogy(points, np.abs(np.array(values) - truth).clip(1e-17), color=COLOURS[colour], lw=1.3)
    axes[2].text(*place, name, color=COLOURS[colour], fontsize=9)
axes[2].set(xlabel="x", title="error (floor drawn at 1e-17)", ylim=(1e-19, 10))
show(
    figure,
    "Figure 5.2. erfc falls through sixteen powers of ten; times $e^{x^2}$, and over t, it is nearly straight. "
    "Right: the error of the series grows with x, that of the fraction falls; `ops.erf` stays at the last digit.",
    "Three panels. erfc on a logarithmic scale, a steep fall to 1e-17. The same times e to the x squared over t, an "
    "almost straight gentle line from 0.43 to 0.09. Errors over x: the series rises from 1e-16 to 0.01, the fraction "
    "falls from 0.1 to 1e-16, ops.erf is at 1e-16 throughout.",
)
assert np.abs(ops.erf(points) - truth).max() < 3e-16

# %%
x = torch_values["x"]  # (4, 25)
agree("erf", ops.erf(x), torch_values["erf"])
agree("GELU", ops.gelu(x), torch_values["gelu"])

# %% [markdown]
# ## The tanh approximation, and what it costs
#
# When erf was slow, the authors of GELU gave a stand-in that many models still use (GPT-2 among them):
#
# $$\text{gelu}(x) \approx \frac x2 \Big(1 + \tanh\big(\sqrt{2/\pi}\,(x + 0.044715\, x^3)\big)\Big).$$
#
# EfficientFormer and SwiftFormer were trained with the exact one: `hidden_act` is `"gelu"`, which is erf. In other
# libraries the same word can mean tanh, so it pays to know how far apart they are.

# %%
agree("tanh GELU", ops.gelu(x, approximate="tanh"), torch_values["gelu, tanh"])
grid = np.linspace(-6, 6, 120_001)
off = ops.gelu(grid, approximate="tanh") - ops.gelu(grid)
worst = np.abs(off).argmax()  # the same distance on the other side
print(f"largest error {off[worst]:.5f} at x = +-{abs(grid[worst]):.2f}")
print(f"and {off.min():.5f} at x = +-{abs(grid[off.argmin()]):.2f}")
assert np.allclose(off, off[::-1], atol=1e-15)

# %%
figure, axes = new_figure(1, 2, width=7.6, height=2.6)
axes[0].plot(grid, ops.gelu(grid), color=COLOURS["blue"], lw=4, alpha=0.4)
axes[0].plot(grid, ops.gelu(grid, "tanh"), color=COLOURS["orange"], lw=1.2)
axes[0].text(-3.6, 1.6, "exact, wide", color=COLOURS["blue"])
axes[0].text(-3.6, 1.1, "tanh, thin", color=COLOURS["orange"])
axes[0].set(xlabel="x", ylabel="gelu(x)", xlim=(-4, 3), ylim=(-0.5, 3))
axes[1].plot(grid, 1e4 * off, color=COLOURS["orange"])
axes[1].axhline(0, color=COLOURS["grey"], lw=0.8)
axes[1].plot(grid[worst], 1e4 * off[worst], "o", color=COLOURS["orange"])
axes[1].set(xlabel="x", ylabel="tanh minus exact, in 1e-4")
show(
    figure,
    "Figure 5.3. The two lie on each other; their difference, magnified ten thousand times, is largest at about 2.7 "
    "to either side, and the same on both sides.",
    "Left, a wide blue and a thin orange curve of GELU that coincide. Right, their difference times ten thousand: "
    "two peaks of 4.7 near plus and minus 2.7, dips of minus 2.3 near plus and minus 1.4, and 0 in the middle and "
    "far out.",
)

# %% [markdown]
# (The difference is even because $x \cdot(\text{odd function})$ is: what is added to the right is added to the left.)
#
# Half a thousandth is a lot beside float32, whose steps near 1 are $10^{-7}$. Does a network notice? Take the
# trained `efficientformer-fashion`, swap the activation in its seven MLPs, and run 200 pictures it was not trained on.

# %%
name = "efficientformer-fashion"
test_pictures, classes = pictures(200)
processor = AutoImageProcessor.from_pretrained(name)
pixels = processor([np.repeat(p[..., None], 3, axis=-1) for p in test_pictures], return_tensors="np").pixel_values


def logits_with(function):
    """The network's answers to all pictures with another function in place of GELU: (200, 10)."""
    model = npformer.get_model(name, pretrained=True)
    for _, module in model.named_modules():
        if isinstance(module, npformer.nn.Activation) and module.function is ops.gelu:
            module.function = function
    model = npformer.fuse(model)  # faster, and takes any function
    return np.concatenate([model(batch).logits for batch in np.split(pixels, 10)])


# %% [markdown]
# **Predict, then run.** How many of the 200 pictures change class when every GELU becomes its tanh approximation?
# ReLU? SiLU? And when there is no bend at all in the MLPs (the identity)?

# %%
exact = logits_with(ops.gelu)
replacements = {
    "tanh": lambda v: ops.gelu(v, approximate="tanh"),
    "x sigmoid(1.702 x)": ops.quick_gelu,
    "ReLU": ops.relu,
    "SiLU": ops.silu,
    "identity": lambda v: v,
}
rows = [["exact GELU", "0.000", 0, f"{np.mean(exact.argmax(-1) == classes):.1%}"]]
moved = {}
for label, function in replacements.items():
    logits = logits_with(function)
    moved[label] = np.abs(logits - exact).max()
    changed = int(np.sum(logits.argmax(-1) != exact.argmax(-1)))
    rows.append([label, f"{moved[label]:.3f}", changed, f"{np.mean(logits.argmax(-1) == classes):.1%}"])
table(["activation", "a logit moves by up to", "classes changed of 200", "right"], rows)
ordered = np.sort(exact, axis=-1)
lead = ordered[:, -1] - ordered[:, -2]
print(f"the winner's lead over the second: median {np.median(lead):.1f}, smallest {lead.min():.2f}")
assert moved["tanh"] < lead.min() / 2

few = pixels[:5]
model = npformer.get_model(name, pretrained=True)
rounding = np.abs(model(few).logits - model.astype(np.float64)(few.astype(np.float64)).logits).max()
print("tanh moves a logit more than 300 times as far as rounding in float32 does:", moved["tanh"] > 300 * rounding)

# %% [markdown]
# With tanh not one class changes, and none could: the smallest lead of a winner is several times the largest move of a
# logit. That is the good news and the trap. Accuracy cannot tell the two apart, and yet the logits are off by hundreds
# of times what rounding would explain. A port that should be *equal* is not; a layer-by-layer comparison (Lesson 11)
# sees it at the first activation. The cheap $x\,\sigma(1.702x)$ costs one class. ReLU, a rougher relative, does
# surprisingly well with weights that were trained for GELU. Without any bend in the MLPs only the stem's ReLUs, layer
# normalisation and attention's softmax are left to bend anything, and the network, which never learned to do without,
# is guessing.
#
# ## What GELU does to a picture
#
# `npformer.watch` lets us look at what goes into each GELU and what comes out.

# %%
model = npformer.get_model(name, pretrained=True)
seen = {}


def look(module_name, module, inputs, output, layout):
    if module_name.endswith("mlp.activation"):
        seen[module_name.removeprefix("efficientformer.encoder.").removesuffix(".mlp.activation")] = inputs[0], output
    return output


with npformer.watch(model, look):
    model(pixels[:20])
rows = []
for block, (before, after) in seen.items():
    quiet = np.abs(after) < 0.05 * np.abs(before)  # less than a twentieth gets through
    parts = block.replace("intermediate_stages", "stage").replace("_layers.blocks", "")
    rows.append(
        [parts, str(before.shape), f"{np.mean(before < 0):.0%}", f"{np.mean(quiet):.0%}", f"{before.std():.1f}"]
    )
table(["block", "shape", "negative", "silenced", "deviation"], rows)

# %%
first, *_, last = seen.values()
figure, axes = new_figure(1, 4, width=7.8, height=2.4, gridspec_kw={"width_ratios": [1, 1, 1.3, 1.3]})
channel = int(first[0][9].std(axis=(1, 2)).argmax())
limit = float(np.abs(first[0][9, channel]).max())
for axis, values, title in zip(axes, first, ("before GELU", "after")):
    picture(axis, values[9, channel], title, signed=True, vmin=-limit, vmax=limit)
for axis, (before, after), title in ((axes[2], first, "first block"), (axes[3], last, "seventh block")):
    bins = np.linspace(-8, 4, 97)
    axis.hist(before.ravel(), bins, density=True, color=COLOURS["blue"], alpha=0.5)
    axis.hist(after.ravel(), bins, density=True, histtype="step", color=COLOURS["orange"], lw=1.3)
    axis.set(xlabel="value", title=title, yticks=[], ylim=(0, 1.2))
    axis.spines["left"].set_visible(False)
axes[2].text(-7.6, 0.75, "before", color=COLOURS["blue"])
axes[2].text(-7.6, 0.6, "after", color=COLOURS["orange"])
show(
    figure,
    "Figure 5.4. One hidden channel of the first block for an ankle boot, before and after GELU (red above 0, blue "
    "below), and how often values occur in two blocks. After GELU nothing lies below -0.17; the peak at 0 is cut "
    "off.",
    "Two small maps of a boot: before GELU with red and blue regions, after it with red ones on near white. Two "
    "histograms: before GELU broad and mostly negative, after it a tall spike just below 0 and a tail to the right.",
)
assert min(after.min() for _, after in seen.values()) > -0.171

# %% [markdown]
# In every block more than half of the values are negative before GELU. In the first five, few lie far enough below 0
# to be silenced: there GELU rather shapes than switches. In the last two, the blocks with attention, values spread
# wider, and about half of them end up silenced: for each token, some hidden channels speak and others do not. Which
# ones depends on the picture, and that is what a linear layer could not do.
#
# ## SiLU and sigmoid, for every input
#
# EfficientNet and its squeeze-and-excitation use the *sigmoid* and the *SiLU* (called swish there):
#
# $$\sigma(x) = \frac{1}{1 + e^{-x}}, \qquad \text{silu}(x) = x\, \sigma(x).$$
#
# GELU's idea with another probability. The formula has to survive numbers of any size. In float32 $e^x$ is infinite
# beyond 88.7. Written as $e^x / (1 + e^x)$, the sigmoid of 100 is infinity over infinity, not a number. Written as
# above, the infinity stands alone in a denominator, and one over it is the right answer, 0. So the package leaves it
# at that, and only silences the warning:

# %%
source(ops.sigmoid)
far = torch_values["far"]
print(f"the logarithm of the largest float32: {np.log(np.finfo(np.float32).max):.1f}")
with np.errstate(over="ignore", invalid="ignore"):
    naive = np.exp(far) / (1 + np.exp(far))
table(["x", "exp(x) / (1 + exp(x))", "ops.sigmoid", "PyTorch's", "ops.silu"],
      [[f"{a:.0f}", f"{b:.3g}", f"{c:.3g}", f"{d:.3g}", f"{e:.3g}"] for a, b, c, d, e in
       zip(far, naive, ops.sigmoid(far), torch_values["far, sigmoid"], ops.silu(far))])  # fmt: skip
agree("sigmoid", ops.sigmoid(x), torch_values["sigmoid"])
agree("SiLU", ops.silu(x), torch_values["silu"])

# %% [markdown]
# ## Softmax: subtract the maximum
#
# Softmax turns scores into probabilities, $p_i = e^{s_i} / \sum_j e^{s_j}$. Here the trick of the lonely infinity does
# not work: with scores near 1000, above and below the line both overflow. But adding the same number to all scores
# changes nothing, since $e^{s + c} = e^s e^c$ and $e^c$ cancels. So subtract the largest score first: the largest
# exponent is then 0, and $e^0 = 1$.
#
# For a loss one needs $\log p_i$. Taking the logarithm of a probability that was rounded to 0 gives minus infinity;
# staying in logarithms, $s_i - \max - \log \sum_j e^{s_j - \max}$, gives the right number.

# %%
scores = np.array([1000.0, 1001.0, 1900.0])
with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
    print("naive softmax:       ", np.exp(scores) / np.exp(scores).sum())
    print("softmax:             ", ops.softmax(scores))
    print("log of softmax:      ", np.log(ops.softmax(scores)))
print("log_softmax:         ", ops.log_softmax(scores))
agree("softmax", ops.softmax(torch_values["scores"]), torch_values["softmax"])
agree("log_softmax", ops.log_softmax(torch_values["scores"]), torch_values["log_softmax"], 1e-12)

# %% [markdown]
# Between the smallest ordinary float32 and 0 lie the *denormal* numbers, with fewer and fewer digits. exp(-90) is one.
# They are correct, but processors may take longer over them: some many times, some only in divisions and roots. Here
# is how yours does. A benchmark should not run on weights near 0, whose products are full of such numbers.

# %% tags=["timing"]
normal = np.full(1_000_000, 1e-20, np.float32)
tiny = np.full(1_000_000, np.exp(np.float32(-90)), np.float32)
print(f"smallest ordinary float32 {np.finfo(np.float32).tiny:.1e}, exp(-90) is {tiny[0]:.1e}")
three, out = np.float32(3), np.empty_like(normal)
for label, operation in (("times 3", np.multiply), ("divided by 3", np.divide)):
    seconds = times({n: lambda v=v, f=operation: f(v, three, out=out) for n, v in (("n", normal), ("t", tiny))})
    print(f"a million numbers {label}: ordinary {1000 * seconds['n']:.2f} ms, denormal {1000 * seconds['t']:.2f} ms")

# %% [markdown]
# ## Fast: erf is a tanh with a bent argument
#
# In float64 the package computes GELU by `ops.erf`. That is a dozen passes over the array, and float32, which is what
# one runs networks in, does not need so many digits. NumPy has a fast tanh, so write
#
# $$\text{erf}(x / \sqrt 2) = \tanh\big(x \cdot P(x)\big),$$
#
# and ask what $P$ must be: $\text{artanh}(\text{erf}(x / \sqrt 2)) / x$. It is an even function, and it hardly moves.
# The tanh approximation takes a parabola for it. `ops.gelu` takes a polynomial of degree 6 in $x^2$; the fast kernel,
# which wants as few passes as possible, a parabola plus one small fraction.

# %%
points = np.linspace(0.05, 5.6, 200)
missing = np.array([math.erfc(p / math.sqrt(2)) for p in points])
bend = 0.5 * np.log((2 - missing) / missing) / points  # artanh(1 - q) = log((2 - q) / q) / 2
parabola = math.sqrt(2 / math.pi) * (1 + 0.044715 * points**2)
polynomial = sum(c * points ** (2 * n) for n, c in enumerate(activation._GELU_TANH))
scale, constants = kernels._GELU_SCALE, kernels._GELU
z = (scale * points) ** 2
fraction = scale * (z + constants["P"] + constants["Q"] / ((z + constants["A"]) * z + constants["B"]))
figure, axes = new_figure(1, 2, width=7.6, height=2.7)
axes[0].plot(points, bend, color=COLOURS["blue"], lw=4, alpha=0.4)
axes[0].plot(points, parabola, color=COLOURS["orange"], lw=1.3)
axes[0].plot(points, polynomial, color=COLOURS["ink"], lw=0.8)
axes[0].text(0.6, 1.4, "parabola (tanh GELU)", color=COLOURS["orange"])
axes[0].text(3.2, 0.97, "what P must be", color=COLOURS["blue"])
axes[0].set(xlabel="x", ylabel="P(x)")
for values, colour, label, place in [
    (parabola, "orange", "parabola", (4.0, 2e-2)),
    (fraction, "pink", "fast kernel", (3.9, 8e-8)),
    (polynomial, "green", "ops.gelu", (0.2, 6e-10)),
]:
    axes[1].semilogy(points, np.abs(values - bend), color=COLOURS[colour], lw=1.2)
    axes[1].text(*place, label, color=COLOURS[colour], fontsize=9)
axes[1].set(xlabel="x", ylabel="distance from P", ylim=(1e-10, 1))
show(
    figure,
    "Figure 5.5. The function P that turns tanh into erf. The parabola of the tanh approximation follows it to about "
    "3; the package's own curves stay close as far as it matters.",
    "Left, the curve P rising gently from 0.8 to 1.6, with a parabola that leaves it beyond 3 and a thin polynomial "
    "on top of it. Right, distances on a logarithmic scale: the parabola's around 1e-3 and up to 0.3, those of the "
    "fast kernel and ops.gelu below 1e-5 up to x = 3, and growing to 0.1 at the right end, where tanh is 1 anyway.",
)

# %%
source(activation._gelu_float32, kernels._gelu)

# %% [markdown]
# The kernel works in place and expects its input already scaled, which costs nothing: the factors are multiplied into
# the weights of the layers before and after (`scale_in` and `scale_out` of the package's `Activation`). How exact is
# it? The truth is float64; PyTorch's own float32 values were recorded.


# %%
def fast_gelu(v):
    scaled, out = v * np.float32(kernels._GELU_SCALE), np.empty_like(v)
    kernels._gelu(scaled, out)
    return out * np.float32(0.5 / kernels._GELU_SCALE)


grid = torch_values["grid"]  # 2401 float32 numbers from -6 to 6
truth = ops.gelu(grid.astype(np.float64))
errors = {
    "PyTorch": torch_values["grid, gelu"] - truth,
    "ops.gelu": ops.gelu(grid) - truth,
    "fast kernel": fast_gelu(grid) - truth,
    "tanh": ops.gelu(grid, approximate="tanh") - truth,
}
table(["float32", "largest error"], [[label, f"{np.abs(error).max():.0e}"] for label, error in errors.items()])
assert np.abs(errors["ops.gelu"]).max() < 7e-7
assert np.abs(errors["fast kernel"]).max() < 1.2e-6

# %%
figure, axes = new_figure(1, 3, width=7.8, height=2.3, sharey=True)
for axis, label, colour in zip(axes, ("PyTorch", "ops.gelu", "fast kernel"), ("grey", "green", "pink")):
    axis.plot(grid, 1e7 * errors[label], ".", ms=1.5, color=COLOURS[colour])
    axis.set(xlabel="x", title=label)
axes[0].set_ylabel("error in 1e-7")
show(
    figure,
    "Figure 5.6. Errors of GELU in float32, point by point. All three are of the size of float32's own rounding; the "
    "tanh approximation would be five hundred times as far out.",
    "Three clouds of errors over x from minus 6 to 6, all within plus and minus 9e-7: PyTorch's, a cloud on both "
    "sides; that of ops.gelu, narrower, most of it for positive x; and the fast kernel's, a wave of a few 1e-7.",
)

# %% [markdown]
# And the time, for the hidden map of EfficientFormer-L1's first stage, 192 channels of 56 x 56 (the loop gets a
# hundredth of it, and its time is multiplied).

# %% tags=["timing"]
hidden = rng.standard_normal((56 * 56, 192)).astype(np.float32)
wide, in_place = hidden.astype(np.float64), np.empty_like(hidden)
seconds = times(
    {
        "loop, math.erf": lambda: [v * (1 + math.erf(v / math.sqrt(2))) / 2 for v in wide.ravel()[::100].tolist()],
        "ops.gelu, float64": lambda: ops.gelu(wide),
        "ops.gelu, float32": lambda: ops.gelu(hidden),
        "fast kernel": lambda: kernels._gelu(hidden, in_place),
        "ReLU": lambda: ops.relu(hidden),
    },
    rounds=5,
)
seconds["loop, math.erf"] *= 100
table(["602,112 numbers", "ms"], [[label, f"{1000 * value:.2f}"] for label, value in seconds.items()])

# %% [markdown]
# ## Exercises
#
# ### Exercise 5.1: a sigmoid without fear
#
# Write `sigmoid(x)` for an array of float32 so that it is right for every number, $\pm 1000$ included, *and raises no
# warning*: not by silencing it, but by never giving `np.exp` anything positive. The dtype stays.


# %% tags=["exercise"]
def sigmoid(x):
    """1 / (1 + exp(-x)), element by element, for any x, without overflow."""
    ...


# %% tags=["check"]
checks.sigmoid(sigmoid)

# %% [markdown]
# <details><summary>Hint</summary>
#
# $e^{-|x|}$ never overflows; call it $e$. For positive $x$ the sigmoid is $1 / (1 + e)$. What is it for negative $x$,
# in terms of the same $e$?
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def sigmoid(x):
#     e = np.exp(-np.abs(x))
#     return np.where(x >= 0, 1, e) / (1 + e)
# ```
#
# For negative $x$: multiply above and below by $e^x$, and $1 / (1 + e^{-x})$ becomes $e^x / (1 + e^x)$.
#
# </details>
#
# ### Exercise 5.2: tanh GELU
#
# Write `gelu_tanh(x)` by the formula of this lesson, for arrays of any shape.


# %% tags=["exercise"]
def gelu_tanh(x):
    """The tanh approximation of GELU, element by element."""
    ...


# %% tags=["check"]
checks.gelu_tanh(gelu_tanh)

# %% [markdown]
# <details><summary>Hint</summary>
#
# The cube belongs inside the bracket that is multiplied by $\sqrt{2/\pi}$; half of $x$ stands outside.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def gelu_tanh(x):
#     return x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
# ```
#
# $\sqrt{2/\pi}$ makes the slope at 0 right, and 0.044715 was fitted to the rest.
#
# </details>
#
# ### Exercise 5.3: log_softmax along any axis
#
# Write `log_softmax(x, axis)` for an array of any shape. It must be right for scores of 1000 and more, and for scores
# far below the largest one, whose probability rounds to 0.


# %% tags=["exercise"]
def log_softmax(x, axis):
    """Logarithms of the softmax along `axis`, same shape."""
    ...


# %% tags=["check"]
checks.log_softmax(log_softmax)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Shift by the maximum along the axis; `keepdims=True` keeps the shapes ready for the subtraction. Never take the
# logarithm of a single probability.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def log_softmax(x, axis):
#     shifted = x - x.max(axis=axis, keepdims=True)
#     return shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))
# ```
#
# The sum is at least 1, the exponential of the shifted maximum itself, so its logarithm is never in danger.
#
# </details>
#
# ### Exercise 5.4: erf from a table book
#
# Handbooks give short formulas for erf. One (Abramowitz and Stegun, 7.1.26) is, for $x \ge 0$,
#
# $$\text{erf}(x) \approx 1 - (a_1 t + a_2 t^2 + a_3 t^3 + a_4 t^4 + a_5 t^5)\, e^{-x^2}, \qquad
# t = \frac{1}{1 + p\,x},$$
#
# with an error of at most 1.5e-7. Write `short_erf(x)` for arrays with numbers of either sign; `P` and `A` hold the
# constants.


# %% tags=["exercise"]
P = 0.3275911
A = [0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429]  # a1 to a5; the error is below 1.5e-7


def short_erf(x):
    """erf by formula 7.1.26, element by element."""
    ...


# %% tags=["check"]
checks.short_erf(short_erf)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Compute with $|x|$ and give the result the sign of $x$ (`np.copysign`). Mind that the sum starts with $t$ to the
# power of 1.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def short_erf(x):
#     t = 1 / (1 + P * np.abs(x))
#     polynomial = sum(a * t ** (n + 1) for n, a in enumerate(A))
#     return np.copysign(1 - polynomial * np.exp(-x * x), x)
# ```
#
# erf is odd. Note $t$: the same trick as in `ops.erf`, an infinite range bent into a short one. Ports of GELU to
# shader languages often hold this very formula; in a comparison it shows as an error of a few 1e-8, far below tanh's.
#
# </details>
#
# ### Exercise 5.5: factors that cost nothing
#
# The fast kernels compute SiLU as $y\,(1 + \tanh y)$ with $y = x / 2$, in fewer passes. The halving need not be
# computed at all. A block does `w2 @ silu(w1 @ x + b1)`. Write `fold(w1, b1, w2)` that returns three new arrays such
# that `v2 @ (y * (1 + np.tanh(y)))` with `y = v1 @ x + c1` is the same, without changing the old ones.


# %% tags=["exercise"]
def fold(w1, b1, w2):
    """(E, C), (E,), (C', E) -> v1, c1, v2 for the kernel y (1 + tanh y)."""
    ...


# %% tags=["check"]
checks.fold(fold)

# %% [markdown]
# <details><summary>Hint</summary>
#
# $\sigma(x) = (1 + \tanh(x/2)) / 2$. Write silu with it, put $x = 2y$, and see which factors are left.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def fold(w1, b1, w2):
#     return w1 / 2, b1 / 2, w2
# ```
#
# $x\,\sigma(x) = 2y \cdot (1 + \tanh y) / 2 = y\,(1 + \tanh y)$: the two factors cancel, so only the first layer
# changes. For GELU they do not, and the second layer gets one as well.
#
# </details>
#
# ## Further reading
#
# - The code: [`ops/activation.py`](../npformer/ops/activation.py), and the fast forms at the top of
#   [`fast/kernels.py`](../npformer/fast/kernels.py).
# - Hendrycks and Gimpel, [Gaussian Error Linear Units](https://arxiv.org/abs/1606.08415), section 2: the definition,
#   tanh and sigmoid approximations.
# - Elfwing, Uchibe and Doya, [Sigmoid-Weighted Linear Units](https://arxiv.org/abs/1702.03118), and Ramachandran, Zoph
#   and Le, [Searching for Activation Functions](https://arxiv.org/abs/1710.05941): SiLU, found twice.
# - Li et al., [EfficientFormer](https://arxiv.org/abs/2206.01191), section 3: why its authors keep GELU, and what it
#   costs on which hardware. Tan and Le, [EfficientNet](https://arxiv.org/abs/1905.11946), section 5: trained with
#   SiLU.
# - Abramowitz and Stegun, Handbook of Mathematical Functions, chapter 7: the error function, its series, fractions and
#   approximations.
# - Goldberg, "What Every Computer Scientist Should Know About Floating-Point Arithmetic", 1991: cancellation,
#   denormals.
#
# Next: [6. Attention](06_attention.ipynb).
