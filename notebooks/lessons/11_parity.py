# %% [markdown]
# # 11. Find the bug in a broken port with the checker
#
# You have written one of these networks anew, in another framework or language, and its answers are a little off.
# After this lesson you can say which layer is wrong and often why, even if nobody could see it in the answers: by hand
# for a small chain, and with npformer's parity checker for a whole network.
#
# You need: lessons [4](04_pooling_mixer.ipynb), [6](06_attention.ipynb) and [7](07_efficientformer.ipynb); others
# help. Time: about 25 minutes.

# %%
import tempfile
from pathlib import Path

import numpy as np
from course import COLOURS, new_figure, picture, recorded, show, table
from course.checks import lesson_11 as checks

import npformer
from npformer import ops
from npformer.parity import write_dump

# %% [markdown]
# ## A port that is almost right
#
# Here is one to practise on: our own trained model, but one of its activations uses another formula. `npformer.watch`
# lets us replace what any module computes, so a faulty port is a dictionary from a module's name to what is computed
# there instead. `npformer.record` keeps every value on the way: that is the port's *dump*.

# %%
NAME = "efficientformer-fashion"
model, processor = npformer.get_model(NAME, pretrained=True), npformer.AutoImageProcessor.from_pretrained(NAME)
path, label = next(item for item in npformer.assets.sample_pictures().items() if item[1] == "Pullover")
x = processor(npformer.load_image(path), return_tensors="np")["pixel_values"]  # (1, 3, 224, 224)


def run_port(faults, dtype=np.float32):
    def observe(name, module, inputs, output, layout):
        if name in faults:
            output = faults[name](module, *inputs)
        return output.astype(dtype).astype(np.float32)

    with npformer.watch(model, observe):
        return npformer.record(model, x)


def tanh_gelu(module, x):
    return ops.gelu(x, "tanh")


E = "efficientformer.encoder."
ACT = E + "intermediate_stages.4.meta4D_layers.blocks.0.mlp.activation"
ours, port = run_port({}), run_port({ACT: tanh_gelu})

# %%
best = np.argsort(-ours[""][0])[:3]  # the model itself is named "": these are the logits
rows = [(model.config.id2label[i], *(f"{trace[''][0, i]:.2f}" for trace in (ours, port))) for i in best]
table(["class", "ours", "the port's"], rows)
print(f"largest difference of a logit: about {np.abs(port[''] - ours['']).max():.0e}")

# %% [markdown]
# The same class, and the same logits to two digits. Is it so on other pictures, too?


# %%
def classes(faults):
    def observe(name, module, inputs, output, layout):
        return faults[name](module, *inputs) if name in faults else output

    with npformer.watch(model, observe):
        return model(shipped).logits.argmax(1)


paths = list(npformer.assets.sample_pictures())
shipped = processor([npformer.load_image(path) for path in paths], return_tensors="np")["pixel_values"]
print("same class on", (classes({}) == classes({ACT: tanh_gelu})).sum(), "of", len(paths), "pictures")

# %% [markdown]
# If accuracy is your test, the port has passed it.
#
# Is the difference just rounding, then? Let us see what rounding does: run our own model with every value rounded to
# half precision (float16), without any fault.

# %%
half = run_port({}, np.float16)
print(f"float16, no fault: a logit differs by about {np.abs(half[''] - ours['']).max():.0e}")

# %% [markdown]
# The fault and honest rounding to float16 are of about one size at the end of the network: nothing there tells them
# apart.
#
# ## Compare every layer, and go wrong
#
# So look inside. The obvious thing is to subtract all values of one run from those of the other:


# %%
def rms(v):  # root mean square: the usual size of the numbers in an array
    return np.sqrt(np.mean(np.square(v, dtype=np.float64)))


def about(v):  # to the nearest power of ten
    return f"1e{round(np.log10(v)):+03d}"


drift = {name: rms(port[name] - ours[name]) / rms(ours[name]) for name in ours}
different = [name for name in drift if drift[name] > 0]
print(len(different), "of", len(drift), "values differ; the first:")
for name in different[:4]:
    print("  ", name)

# %% [markdown]
# With a port that runs on the same library, the first value that differs is the culprit. A real port is not so kind:
# it adds up in another order, so *every* value differs in its last digits, from the first layer on. Then the question
# is which differences are too large, and after the first fault nearly all are. Whatever is wrong further down is
# drowned.
#
# ## The idea, with numbers
#
# Take a chain of three layers: double it, add 3, square it. The port adds 3.1 instead. Both start from 1.

# %%
layers = [lambda v: 2 * v, lambda v: v + 3, lambda v: v**2]
port_layers = [lambda v: 2 * v, lambda v: v + 3.1, lambda v: v**2]


def run(chain, v):
    values = []
    for layer in chain:
        v = layer(v)
        values.append(v)
    return values


chain_ours, chain_port = run(layers, 1.0), run(port_layers, 1.0)
print("ours", chain_ours, " port", [round(v, 2) for v in chain_port])

# %% [markdown]
# The plain difference of the two runs, the *cumulative difference*, is 0, then 0.1, then 1.01: it is largest at a
# layer that is perfectly right. So do not run our chain on its own values. At each layer ask: **given what the port
# had before this layer, what would we make of it?** With $p_i$ the port's value after layer $i$ and $f_i$ our layer,
#
# $$r_i = p_i - f_i(p_{i-1}).$$
#
# This is the *local residual*. (Running a network on given values in the place of its own is known from training, as
# teacher forcing.)


# %%
def local(chain, v, port_values):
    residuals = []
    for layer, value in zip(chain, port_values, strict=True):
        residuals.append(value - layer(v))
        v = value  # go on with the port's value
    return residuals


cumulative = [p - o for p, o in zip(chain_port, chain_ours, strict=True)]
residuals = local(layers, 1.0, chain_port)
print("cumulative", [round(v, 2) for v in cumulative], " local", [round(v, 2) for v in residuals])

# %%
figure, axes = new_figure(1, 3, height=2.3, width=7.6)
steps = ["x 2", "+ 3", "square"]
panels = [("the values", None), ("cumulative difference", cumulative), ("local residual", residuals)]
for place, (title, values) in zip(axes, panels, strict=True):
    place.set_title(title)
    if values is None:
        place.bar(np.arange(3) - 0.19, chain_ours, 0.36, color=COLOURS["blue"])
        place.bar(np.arange(3) + 0.19, chain_port, 0.36, color=COLOURS["orange"])
        place.text(-0.4, 21, "ours", color=COLOURS["blue"])
        place.text(-0.4, 17, "the port's", color=COLOURS["orange"])
    else:
        place.bar(range(3), values, 0.5, color=[COLOURS["pink" if abs(v) > 1e-9 else "grey"] for v in values])
        place.set_ylim(0, 1.2)
        for i, value in enumerate(values):
            place.text(i, value + 0.03, f"{value:.2f}", ha="center")
    place.set_xticks(range(3), steps)
show(
    figure,
    "Figure 11.1. Three layers, the second of which is wrong in the port. The cumulative difference goes on and "
    "grows; the local residual is zero everywhere but at the fault.",
    "Three bar charts over the layers times 2, plus 3, square. Left: ours 2, 5, 25 and the port's 2, 5.1, 26.01. "
    "Middle: cumulative differences 0, 0.10 and 1.01. Right: local residuals 0, 0.10 and 0.",
)

# %% [markdown]
# **Predict, then run.** Now the port also forgets to square: its third layer is $v + 20$. What does the local residual
# say of the second layer, and of the third? Does the fault in the second hide the one in the third?

# %%
chain_port = run([port_layers[0], port_layers[1], lambda v: v + 20], 1.0)
print("port", [round(v, 2) for v in chain_port], " local", [round(v, 2) for v in local(layers, 1.0, chain_port)])

# %% [markdown]
# Each is judged on what it was given: the second is off by 0.1 as before, the third by $25.1 - 26.01 = -0.91$. Faults
# do not hide one another. (The cumulative difference of the third would be 25.1 - 25 = 0.1, a fine example of two
# mistakes that nearly cancel.)
#
# ## The same for a network
#
# For a whole network nothing more is needed than `npformer.watch`: after every value, note how far the port's is from
# what we have just computed, and go on with the port's. Our model runs in float64, so that its own rounding plays no
# part. (Modules that are called twice, such as the stem's ReLU, need a number; we leave them out here.)


# %%
def replay(model, port, x):
    computed = {}

    def observe(name, module, inputs, output, layout):
        if name + "#1" in port:  # called more than once
            return output
        computed[name] = output
        return port[name].astype(output.dtype)  # go on with the port's value

    with npformer.watch(model, observe):
        model(x)
    return computed


exact_model = model.astype(np.float64)
exact = replay(exact_model, port, x.astype(np.float64))
residual = {name: rms(port[name] - value) for name, value in exact.items()}
relative = {name: residual[name] / rms(exact[name]) for name in residual}
first, second = sorted(relative, key=relative.get)[:-3:-1]
print("largest:", first.removeprefix(E), about(relative[first]))
print("the next largest:", about(relative[second]))
assert first == ACT

# %% [markdown]
# One value stands out by a factor of a thousand, the one with the fault. The rest is rounding: the port computed in
# float32 what we computed in float64.
#
# ## How large may an error be?
#
# "A factor of a thousand stands out" is good enough for this fault. For smaller ones we need to know how large a
# residual rounding makes, and that is not one number for all layers. A sum of a thousand products loses more than a
# ReLU, which loses nothing; a difference of two nearly equal numbers may lose almost everything.
#
# So it is measured. Run *the same op on the same inputs* once in float64 and once in the port's dtype. The difference
# is what rounding costs there, the **noise floor**. A right port, whatever order it adds in, comes out near it.
#
# Is that true of other people's code? PyTorch's float32 results for a few ops were recorded. How many times our own
# floor is PyTorch's error?

# %%
theirs = recorded(11)
v, weight = theirs["x"], theirs["weight"]  # float32: (20, 40) both
cases = {
    "linear": lambda v: ops.linear(v, weight.astype(v.dtype)),
    "layer_norm": lambda v: ops.layer_norm(v, (40,)),
    "softmax": ops.softmax,
    "gelu": ops.gelu,
}
floors = {}
for name, op in cases.items():
    truth = op(v.astype(np.float64))
    assert np.abs(truth - theirs[name]).max() < 1e-12  # in float64 we agree
    floors[name] = rms(op(v) - truth)
    ratio = rms(theirs[f"{name}_float32"] - truth) / floors[name]
    print(f"{name:10} floor about {about(floors[name])}, PyTorch's error within 4 floors: {ratio < 4}")

# %% [markdown]
# Two float32 programs by different people, and they agree about how wrong they are. Now two mistakes, also computed by
# PyTorch in float32: the tanh formula for GELU, and a layer norm with an eps of 1e-3 in the place of 1e-5.

# %%
for name, mistake in (("gelu", "gelu_tanh_float32"), ("layer_norm", "layer_norm_eps_float32")):
    off = rms(theirs[mistake] - theirs[name])
    print(f"{mistake:23} off by about {about(off)}, {about(off / floors[name])} floors")
    assert off > 100 * floors[name]

# %% [markdown]
# An error of one part in ten thousand sounds like a little noise. Against a floor a thousand times lower it is loud.
#
# What counts as noise depends on the dtype. Here is the error of the tanh formula at every point of GELU, against what
# rounding the result to float32 and to float16 costs:

# %%
line = np.linspace(-5, 5, 4001)
truth = ops.gelu(line)
curves = {
    "the tanh formula": (np.abs(ops.gelu(line, "tanh") - truth), "orange"),
    "rounding to float16": (np.abs(truth.astype(np.float16) - truth), "grey"),
    "rounding to float32": (np.abs(truth.astype(np.float32) - truth), "blue"),
}


def envelope(values, width=40):  # the largest of every 40 neighbours, or the curve would be a carpet
    return values[: len(values) // width * width].reshape(-1, width).max(1)


figure, axes = new_figure(height=2.8, width=7.0)
for (what, (error, colour)), height in zip(curves.items(), (1.3e-5, 3e-3, 5e-7), strict=True):
    axes.semilogy(envelope(line), np.maximum(envelope(error), 1e-14), color=COLOURS[colour], lw=1.8)
    axes.text(5.1, height, what, color=COLOURS[colour], va="center")
axes.set(xlabel="x", ylabel="error of GELU(x)", xlim=(-5, 8.3), ylim=(1e-12, 1e-1), xticks=[-4, -2, 0, 2, 4])
show(
    figure,
    "Figure 11.2. How wrong GELU is by its tanh formula, and by rounding alone. The formula's error lies far above "
    "the rounding of float32, and on the right below that of float16: the same mistake, visible or not.",
    "Three curves of error over x from -5 to 5, on a log scale. Rounding to float32 is lowest, around 1e-8 to "
    "1e-7. The tanh formula has humps of about 5e-4 near x = plus and minus 2 and falls off. Rounding to float16 "
    "grows to 1e-3 for large positive x, and lies near or above the formula's error for most positive x.",
)

# %% [markdown]
# ## The checker
#
# `npformer.compare` does all this. It takes the model, the very input the port was given, and the port's dump: a
# mapping of names to arrays, or a file or folder with them. Let us do it as you would, by way of a file.

# %%
with tempfile.TemporaryDirectory() as folder:
    write_dump(port, Path(folder) / "port.npz")  # your port writes such a file
    report = npformer.compare(model, x, Path(folder) / "port.npz")


def tell(report):
    print("equal" if report.equal else f"different: {len(report.faults)} fault(s)")
    for fault in report.faults:
        causes = ", ".join(f"{cause.key} ({cause.text})" for cause in fault.causes) or "unknown"
        print(
            f"  at     {fault.op}\n  cause  {causes}\n  ratio  about {about(fault.value.ratio)} times the noise floor"
        )


tell(report)
assert (report.faults[0].op, report.faults[0].causes[0].key) == (ACT, "gelu-tanh")

# %% [markdown]
# It names the place and the mistake. In the whole report every value has a verdict:
#
# | status | meaning |
# | --- | --- |
# | clean | right |
# | faulty | wrong here, although everything the port had computed before was taken as it is |
# | inherited | right here, but other than in a run of ours, because of a fault before it |
# | untested | not in the dump |
#
# Up to 4 times the floor passes, up to 8 times is a warning, above it is a fault. The ratio is taken over all numbers,
# at the worst single number and in the worst channel, and the largest counts, so that a wrong border or a wrong
# channel does not hide among many right numbers.

# %%
values = [value for value in report.values if value.ratio is not None]
place = np.arange(len(values))
fault_at = next(i for i, value in enumerate(values) if value.status == "faulty")
size = np.array([rms(ours[value.name]) for value in values])
floor = np.array([value.floor for value in values]) / size
wrong = np.array([value.bulk * value.floor for value in values]) / size
drifted = np.array([value.drift for value in values])

figure, axes = new_figure(height=3.2, width=7.6)
for series, colour, words, height in (
    (drifted, "grey", "drift: the two\nruns apart", 4e-4), (wrong, "orange", "local residual", 5e-8),
    (floor, "blue", "noise floor", 1.2e-8),
):  # fmt: skip
    drawn = "." if colour == "orange" else "-"
    axes.semilogy(place, np.where(series > 0, series, np.nan), drawn, ms=5, lw=1.4, color=COLOURS[colour])
    axes.text(len(values) + 2, height, words, color=COLOURS[colour], va="center")
axes.semilogy(fault_at, wrong[fault_at], "o", ms=7, color=COLOURS["orange"])
axes.annotate("the fault", (fault_at, wrong[fault_at]), (fault_at - 30, 1.2e-3), color=COLOURS["orange"],
              arrowprops={"arrowstyle": "->", "color": COLOURS["orange"]})  # fmt: skip
axes.set(
    xlabel="values in the order they are computed",
    ylabel="relative size",
    xlim=(-2, len(values) + 34),
    ylim=(3e-9, 4e-3),
)
axes.set_xticks(range(0, len(values), 30))
show(
    figure,
    "Figure 11.3. One fault in a network of 151 values. The runs drift apart at the fault and stay apart; the "
    "local residual stands out at one value alone, and elsewhere keeps to the noise floor.",
    "Three series over the values of the network, log scale. Before the fault all three lie between 1e-8 and 1e-6. "
    "At the fault the local residual jumps to 3e-4 at one value and falls back to the noise floor, while the drift "
    "jumps to 1e-4 and stays there to the end.",
)

# %% [markdown]
# (The local residual lies at or below the floor because the checker's floor is not ours alone: it adds what another
# order of adding up may cost, and one unit in the last place.)
#
# The report as text has more: the worst number to print in your debugger, the worst channels, whether errors sit at
# the border. `npformer parity` on the command line prints it, and writes it as a page with pictures.

# %% tags=["timing"]
from npformer.parity.show import format_report

print("\n".join(format_report(report).split("\n")[:13]))

# %% [markdown]
# ## How a cause is found
#
# Once the place is known, the cause is a matter of trying. At the faulty value the checker has the port's input to the
# op and the port's result, and a catalogue of what porters are known to do instead. The one that brings the residual
# down to the floor is the cause. By hand, for an activation:

# %%
fault = report.faults[0]
given, got = fault.inputs["input"], fault.got  # what the port's op was given, and what it made of it
candidates = {"gelu": ops.gelu, "gelu by tanh": lambda v: ops.gelu(v, "tanh")}
candidates |= {name: ops.ACT2FN[name] for name in ("quick_gelu", "silu", "relu", "mish")}
left = {name: rms(got - op(given)) / fault.value.floor for name, op in candidates.items()}
assert min(left, key=left.get) == "gelu by tanh"
assert left["gelu by tanh"] < 4

# %%
figure, axes = new_figure(height=2.4, width=6.6)
order = sorted(left, key=left.get)
axes.barh(
    range(len(order)), [left[n] for n in order], color=[COLOURS["green" if left[n] < 4 else "grey"] for n in order]
)
axes.axvline(4, color=COLOURS["ink"], lw=1, ls=":")
axes.text(4.6, -0.25, "4 times the floor", fontsize=9)
axes.set(xscale="log", yticks=range(len(order)), yticklabels=order, xlabel="residual that is left, in noise floors")
axes.set_xlim(0.1, None)
show(
    figure,
    "Figure 11.4. What is left of the residual at the faulty value if the port had used each of these functions. "
    "Only the tanh formula explains the port's numbers to the last digit.",
    "Horizontal bars on a log scale. GELU by tanh is below 1; plain GELU is above a thousand; quick GELU, mish, "
    "SiLU and ReLU are between a hundred thousand and some millions.",
)

# %% [markdown]
# Note what makes this more than a guess: of the wrong formulas, the nearest is more than a thousand floors away. The
# right one leaves nothing. Had two been left below the limit, the report would name both.
#
# ## A fault you can see
#
# Lesson 4 warned of a mean that counts the padding. Here it is in the second stage. The checker keeps the error of a
# faulty map pixel by pixel:

# %%
POOL = E + "intermediate_stages.2.meta4D_layers.blocks.0.token_mixer.pool"


def padded_mean(module, x):
    return ops.avg_pool2d(x, 3, stride=1, padding=1)  # count_include_pad is True unless one says otherwise


report = npformer.compare(model, x, run_port({POOL: padded_mean}))
tell(report)
fault = report.faults[0]
assert fault.causes[0].key == "pool-include-pad"

# %%
figure, axes = new_figure(1, 3, height=2.7, width=7.4)
channel = int(fault.by_channel.argmax())
picture(axes[0], np.asarray(npformer.load_image(path).convert("L")), "the picture", cmap="gray")
picture(axes[1], fault.got[0, channel], f"the port's, channel {channel}")
drawn = picture(axes[2], fault.error_map, "largest error")
figure.colorbar(drawn, ax=axes[2], shrink=0.8)
show(
    figure,
    "Figure 11.5. Where the port's pooled map is wrong: a frame of one pixel, and nothing inside. An error map "
    "often names its cause.",
    "Left a pullover, in the middle a channel of the pooled map of 28 x 28 in which it can be made out, on the "
    "right the error: dark inside and bright along all four borders.",
)

# %% [markdown]
# ## Two faults at once
#
# **Predict, then run.** A port with the padded mean in stage 2 and, far behind it, an attention bias that was read
# transposed. The first fault changes everything after it. Will the second be found?

# %%
ATTENTION = E + "last_stage.meta3D_layers.blocks.1.token_mixer"


def transposed_bias(module):
    heads, offsets = module.attention_biases.shape  # (4, 49), here read as (49, 4)
    return module.attention_biases.reshape(offsets, heads).T[:, module.attention_bias_idxs]


report = npformer.compare(model, x, run_port({POOL: padded_mean, f"{ATTENTION}:bias": transposed_bias}))
tell(report)
assert [fault.causes[0].key for fault in report.faults] == ["pool-include-pad", "bias-table-transposed"]

# %%
ratios = np.array([value.ratio for value in report.values])
figure, axes = new_figure(height=2.5, width=7.4)
axes.semilogy(np.maximum(ratios, 1e-2), ".", ms=5, color=COLOURS["blue"])
for value, words in zip((f.value for f in report.faults), ("padded mean", "transposed bias"), strict=True):
    at = report.values.index(value)
    axes.semilogy(at, value.ratio, "o", color=COLOURS["orange"])
    axes.text(at - 2, value.ratio, words, ha="right", va="center", color=COLOURS["orange"])
axes.axhspan(4, 8, color=COLOURS["grey"], alpha=0.25, lw=0)
axes.text(150, 14, "between 4 and 8: a warning", fontsize=9, ha="right")
axes.set(xlabel="values in the order they are computed", ylabel="residual in noise floors", ylim=(5e-3, 3e8))
show(
    figure,
    "Figure 11.6. Two faults in one port, each found where it is made. Everything between and after them is right, "
    "on the numbers it was given.",
    "Dots over 151 values on a log scale. All lie below 4 except for two, millions of floors high, labelled padded "
    "mean and transposed bias.",
)

# %% [markdown]
# ## A fault that nobody could see
#
# How small a fault can be found? Let a single pixel of the first pooled map be too dark, the one in the upper left
# corner: one of 56 x 56. When the padding counts, a corner is too small by 5/9. We take that, and then ever smaller
# shares. We look at two places. At the logits: how far is the port's run from ours, in units of what float32 does to
# them anyway? And at the pooled map itself: how large is the ratio?

# %%
FIRST = E + "intermediate_stages.0.meta4D_layers.blocks.0.token_mixer.pool"


def dark_corner(share):
    def wrong(module, x):
        mean = ops.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        mean[:, :, 0, 0] *= 1 - share
        return mean

    return wrong


honest = rms(ours[""] - exact_model(x.astype(np.float64)).logits)  # what float32 costs at the logits


def seen(name, wrong):  # at the logits, at the faulty value: both in units of rounding; and the report
    changed = run_port({name: wrong})
    found = npformer.compare(model, x, changed)
    at_value = next(value.ratio for value in found.values if value.name == name)
    assert (changed[""].argmax(), found.equal) == (ours[""].argmax(), at_value <= 8)  # the class never changes
    return rms(changed[""] - ours[""]) / honest, at_value, found


shares = [5 / 9, 1e-2, 1e-3, 1e-4, 1e-6]
rows = [seen(FIRST, dark_corner(share)) for share in shares]
for share, (at_logits, _, found) in zip(shares, rows, strict=True):
    verdict = "not found" if found.equal else f"found in {found.faults[0].op.removeprefix(E)}"
    print(f"too dark by {share:.0e}: {'seen' if at_logits > 8 else 'lost'} at the logits; {verdict}")
assert [found.equal for _, _, found in rows] == [False] * 4 + [True]

# %%
figure, axes = new_figure(height=2.7, width=7.0)
axes.loglog(shares, [at_value for _, at_value, _ in rows], "o-", color=COLOURS["orange"])
axes.loglog(shares, [max(at_logits, 0.02) for at_logits, _, _ in rows], "o-", color=COLOURS["grey"])
axes.axhline(8, color=COLOURS["ink"], lw=1, ls=":")
axes.text(0.9, 11, "8 times rounding", fontsize=9, ha="right", va="bottom")
axes.text(3e-4, 9e3, "at the faulty value", color=COLOURS["orange"], ha="right")
axes.text(1.6e-2, 2.5, "at the logits", color=COLOURS["grey"], ha="left", va="top")
axes.set(xlabel="how much too dark one pixel is", ylabel="times the rounding there", ylim=(1e-2, 1e7))
show(
    figure,
    "Figure 11.7. One pixel of 56 x 56 is wrong. At the end of the network the fault sinks below rounding when it "
    "is still a thousand times too large to be rounding where it is made.",
    "Two rising lines over the share by which a pixel is too dark, both axes logarithmic. At the faulty value the "
    "line runs from about 1 at one millionth to nearly a million. At the logits it lies about a thousand times "
    "lower and falls below 8 between a hundredth and a thousandth.",
)

# %% [markdown]
# When the pixel is a thousandth too dark, the logits differ about as much as two right float32 programs differ anyway:
# a test at the end of the network cannot see it. Where it is made it stands out by a factor of a
# thousand. At a millionth it is gone there too: it is smaller than the rounding of that very value, and nothing that
# looks at float32 numbers could find it. It does no harm either.
#
# The gap is not always so wide. A fault near the end of the network, which touches every number of a value, is seen
# almost as well at the logits. Here is a layer norm in the last stage with an eps of twice ours:

# %%
NORM = E + "last_stage.meta3D_layers.blocks.0.layernorm1"


def other_eps(module, v):
    return ops.layer_norm(v, v.shape[-1:], module.weight, module.bias, eps=2 * module.eps)


late, early = seen(NORM, other_eps), rows[2]
print("gap between both places, early single pixel: about a thousand:", 200 < early[1] / early[0] < 5000)
print("gap between both places, late layer norm: below twenty:", 1 < late[1] / late[0] < 20)
tell(late[2])

# %% [markdown]
# Its cause is "unknown", by the way: 2e-5 is an eps that no framework has, so the catalogue does not try it. The place
# is what you need most.
#
# **Predict, then run.** Back to the tanh formula. Let the port compute in float16. Will the checker find it?

# %%
for faults in ({}, {ACT: tanh_gelu}):
    report = npformer.compare(model, x, run_port(faults, np.float16))
    print("tanh formula" if faults else "no fault    ", report.dtype, "equal:", report.equal)

# %% [markdown]
# No: Figure 11.2 says why. In half precision the large results are rounded by more than this mistake, and they set the
# floor, even if at negative x, where results are small, the mistake is the larger of the two. The checker finds out by
# itself that the dump is float16, and raises no false alarm on the right port either. If you can, dump a float32 run
# of your port: it shows more.
#
# ## Other names, another layout
#
# A port in TensorFlow or JAX keeps maps as (B, H, W, C), names its layers otherwise, and has no value for many of our
# modules. So let us spoil our dump: keep layers alone, no blocks or stages; channels last; maps of the later stages as
# tokens, (B, H * W, C); and names that say nothing.

# %%
modules = dict(model.named_modules())
spoiled = {}
for name, value in run_port({ACT: tanh_gelu}).items():
    module = modules[name.partition(":")[0].partition("#")[0]]
    if ":" in name or any(module.named_children()) or isinstance(module, npformer.nn.Identity):
        continue
    if value.ndim == 4:
        value = value.transpose(0, 2, 3, 1)  # (B, C, H, W) -> (B, H, W, C)
        if value.shape[1] <= 14:
            value = value.reshape(len(value), -1, value.shape[3])  # (B, H * W, C)
    spoiled[f"tensor_{len(spoiled)}"] = value
print(len(spoiled), "values:", {name: value.shape for name, value in list(spoiled.items())[:3]})

# %%
report = npformer.compare(model, x, spoiled)
print(report.layout, "| read as", sorted({value.layout for value in report.values if value.layout}))
print(report.tested, "of", len(report.values), "values tested")
for name in list(report.names)[:3]:
    print("  ", report.names[name], "is our", name)
tell(report)
assert report.layout == "NHWC"
assert [fault.op for fault in report.faults] == [ACT]

# %% [markdown]
# Values are paired by their order, shapes and numbers where names say nothing, and every axis order that fits is
# tried; the dump votes as a whole. Behind a large fault numbers say less, so that some values may stay unpaired: the
# report says which, and a `names=` mapping settles it. Dumping under our names is better still. It costs you a table,
# and leaves nothing to guess.
#
# What if the faulty value itself is not in the dump? Then the fault shows at the next one that is, and may have been
# made at any value between. The catalogue is tried at each of them:

# %%
everything = run_port({POOL: padded_mean})
partial = {name: value for name, value in everything.items() if "token_mixer" not in name and ":" not in name}
fault = npformer.compare(model, x, partial).faults[0]
print("shows at      ", fault.value.name.removeprefix(E))
print("values between", len(fault.span))
print("made at       ", fault.op.removeprefix(E), "|", fault.causes[0].key)
assert (fault.op, fault.causes[0].key) == (POOL, "pool-include-pad")

# %% [markdown]
# Here a block's residual makes for a trap. What the mixer computes goes on along two ways, through the MLP and around
# it, so a fault that was not dumped reaches two values that were. It may then be told twice, the second time with an
# unknown cause. Mend the first and compare again.
#
# ## With your own port
#
# 1. Put your model into evaluation mode, and prepare one input, with a batch of 2 and values of order one. Random
#   noise reaches more corners of a network than a clean picture does.
# 2. Dump as many values as you can, in order. [The checker's page](../npformer/parity/README.md) has code for PyTorch,
#    ONNX Runtime, JAX, Flax, Keras, and a form for programs without any library.
# 3. `npformer parity --model NAME --input x.npy --port dump --report out.html`.
# 4. Mend the *first* fault, dump again, compare again. Later ones may come from the same line.
#
# And know what it cannot tell. A fault below rounding is invisible. One that the input does not reach (a border no
# window touches, a ceiling no number hits) is not seen. Behind a layer scale of 1e-5, as networks have before
# training, hardly anything shows further on: use trained weights. A fault outside the catalogue is located, but its
# cause is "unknown". And our model is taken for right: where your port follows another implementation (timm's eps,
# say), set the config to match it first.

# %% [markdown]
# ## Exercises
#
# ### Exercise 11.1: local residuals by hand
#
# Write `local_residuals(layers, x, port)`. `layers` is a list of functions, our chain; `x` its input; `port` the list
# of the port's values after each layer. Give back a list: for each layer the largest absolute local residual.


# %% tags=["exercise"]
def local_residuals(layers, x, port):
    """A list of len(layers) numbers."""
    ...


# %% tags=["check"]
checks.local_residuals(local_residuals)

# %% [markdown]
# <details><summary>Hint</summary>
#
# The input of the first layer is `x`; of any other it is the port's value of the layer before. Our own results are
# compared and then thrown away.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def local_residuals(layers, x, port):
#     inputs = [x, *port[:-1]]
#     return [np.abs(p - layer(v)).max() for layer, v, p in zip(layers, inputs, port, strict=True)]
# ```
#
# No layer's verdict depends on another's: you could compute them in any order, or on ten machines.
#
# </details>

# %% [markdown]
# ### Exercise 11.2: is it rounding?
#
# Write `is_rounding(op, x, got)`: `op` works in the dtype it is given, `x` is float32, and `got` is what a float32
# port made of `x`. Say `True` if the root mean square error of `got` is at most 4 noise floors, and `False` otherwise,
# for NaN as well. The truth is `op` in float64.


# %% tags=["exercise"]
def is_rounding(op, x, got):
    """True or False."""
    ...


# %% tags=["check"]
checks.is_rounding(is_rounding)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `rms` from above helps. Both errors, the port's and that of our own float32 result, are distances to the float64
# result. A comparison with NaN is never true: write it so that this gives `False`.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def is_rounding(op, x, got):
#     truth = op(x.astype(np.float64))
#     floor = rms(op(x) - truth)
#     return bool(rms(got - truth) <= 4 * floor)
# ```
#
# Had we compared `got` with `op(x)`, two results that are both right could look far apart, and one that shares our own
# rounding would look perfect.
#
# </details>

# %% [markdown]
# ### Exercise 11.3: a mystery port
#
# `checks.port(1)` gives a model (it is `swiftformer-fashion`), an input, and the dump of a port with one fault. Name
# the op by the name the report gives, and the key of the cause.

# %% tags=["exercise"]
mystery_model, mystery_x, dump = checks.port(1)
op, cause = ..., ...  # two texts

# %% tags=["check"]
checks.mystery_1(op, cause)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `npformer.compare(mystery_model, mystery_x, dump)` gives a report. `report.faults[0]` has `.op`, and `.causes`, each
# with a `.key`.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# report = npformer.compare(mystery_model, mystery_x, dump)
# op, cause = report.faults[0].op, report.faults[0].causes[0].key
# ```
#
# The predicted class was right all along. `quick_gelu` is an older approximation of GELU, and
# several libraries still offer it under nearly the same name.
#
# </details>

# %% [markdown]
# ### Exercise 11.4: two faults and no names
#
# `checks.port(2)` is a port of `efficientformer-fashion` whose dump is channels last, with names that mean nothing.
# Give back all its faults as pairs `(op, cause key)`, in the order they are computed.

# %% tags=["exercise"]
mystery_model, mystery_x, dump = checks.port(2)
found = [(..., ...)]

# %% tags=["check"]
checks.mystery_2(found)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Nothing changes for you: the layout and the names are the checker's trouble. `report.faults` is in order.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# report = npformer.compare(mystery_model, mystery_x, dump)
# found = [(fault.op, fault.causes[0].key) for fault in report.faults]
# ```
#
# A batch norm with the eps of another framework (Keras has 1e-3 where PyTorch has 1e-5) is a classic. It hides well
# because variances are mostly much larger than either.
#
# </details>

# %% [markdown]
# ### Exercise 11.5: outside of the catalogue
#
# `checks.port(3)` has a fault that the checker can only locate: its cause is unknown. Find out what the port computes
# there, and write it down as `what_the_port_did(x)`, for maps `(B, C, H, W)`. The report helps:
# `fault.inputs["input"]` is what the op was given, `fault.expected` what it should have made of it, `fault.got` what
# the port made, `fault.error_map` where they differ.

# %% tags=["exercise"]
mystery_model, mystery_x, dump = checks.port(3)


def what_the_port_did(x):
    """(B, C, H, W) -> (B, C, H, W)."""
    ...


# %% tags=["check"]
checks.mystery_3(what_the_port_did)

# %% [markdown]
# <details><summary>Hint</summary>
#
# The op is the mean of a pooling mixer. Are errors at the border, or everywhere? Draw `fault.got` beside
# `fault.expected`: which is smoother? Then try ideas on `fault.inputs["input"]` until `rms(idea - fault.got)` falls to
# rounding.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# report = npformer.compare(mystery_model, mystery_x, dump)
# fault = report.faults[0]
#
#
# def what_the_port_did(x):
#     return ops.avg_pool2d(x, 5, 1, 2, count_include_pad=False)
#
#
# assert rms(what_the_port_did(fault.inputs["input"]) - fault.got) < 1e-6
# ```
#
# Somebody read `pool_size` as the reach to each side, and made the window 5 x 5. That the residual falls to rounding,
# and not merely becomes small, is what tells the explanation from a guess.
#
# </details>

# %% [markdown]
# ## Further reading
#
# - [The parity checker's page](../npformer/parity/README.md): forms of dumps, every option, and how well it finds
#   planted faults.
# - [npformer/parity/noise.py](../npformer/parity/noise.py): how the floor is made, with what another order of adding
#   up may cost; [causes/](../npformer/parity/causes): the catalogue.
# - N. Higham, *Accuracy and Stability of Numerical Algorithms*, SIAM 2002, chapters 3 and 4: what a sum of n numbers
#   loses.
# - D. Goldberg, *What Every Computer Scientist Should Know About Floating-Point Arithmetic*, 1991.
# - R. Williams, D. Zipser, *A Learning Algorithm for Continually Running Fully Recurrent Neural Networks*, 1989:
#   teacher forcing, in training.
#
# Next: [12. Beside PyTorch](12_beside_pytorch.ipynb)
