# %% [markdown]
# # 12. The same network in PyTorch, beside ours, layer by layer
#
# After this lesson you can load one file of weights into both libraries, record every layer of both, and judge a
# difference: is it a mistake, or rounding? You will also know where the two agree by design, down to names and
# arguments, and where they part.
#
# You need: lessons 1 to 9; lesson 11 helps. Time: about 25 minutes.

# %%
import inspect
import tempfile
import warnings
from functools import partial

import numpy as np
from course import COLOURS, SERIES, agree, new_figure, recorded, show, source, table, times
from course.checks import lesson_12 as checks

import npformer
from npformer import ops
from npformer.fast import threads

# %% [markdown]
# This lesson is best with PyTorch at hand, and works without. The next cell looks. transformers is wanted in a version
# 4 from 4.34 on (our oracle is 4.56.2): its fifth version has dropped EfficientFormer. Where either is missing,
# `torch` becomes `None`, and values that were recorded from PyTorch take the place of live ones.

# %%
warnings.filterwarnings("ignore", message="IProgress not found")  # transformers would like prettier progress bars
try:  # transformers 4.34 to 4.57; our oracle is 4.56.2
    import torch
    from transformers.utils import import_utils

    import_utils._torchvision_available = False  # transformers would import it; nothing here needs it
    from transformers import EfficientNetForImageClassification, SwiftFormerForImageClassification
    from transformers.models.deprecated import efficientformer as theirs
except ImportError as error:
    torch = None
    print(f"{error.name} is not installed here: PyTorch's side of this lesson is what was recorded from it.")
else:
    print("PyTorch and transformers are here: both sides of this lesson are computed live.")
kept = recorded(12)

# %% [markdown]
# ## One file, two networks
#
# `efficientformer-fashion` lies in a folder with a `config.json` and a `model.safetensors`, as on the hub. Both
# libraries read that folder. Ours needs no `eval()`: it has no other mode.

# %%
name = "efficientformer-fashion"
folder = npformer.assets.model_directory(name)
ours = npformer.AutoModelForImageClassification.from_pretrained(folder)
if torch:
    torch_model = theirs.EfficientFormerForImageClassification.from_pretrained(folder).float().eval()
print(f"{type(ours).__name__}, {ours.num_parameters():,} parameters")

# %% [markdown]
# Our classes, modules and arrays bear the names that transformers gave them. That is no courtesy but the plan:
# whatever has the same name must have the same value, so every layer can be checked by itself. Are they really the
# same?

# %%
our_modules = [module_name for module_name, _ in ours.named_modules()]
our_state = ours.state_dict()
if torch:
    assert our_modules == [module_name for module_name, _ in torch_model.named_modules()]
    torch_state = torch_model.state_dict()
    assert list(our_state) == list(torch_state)
    for key, array in our_state.items():
        assert array.shape == tuple(torch_state[key].shape)
        assert (array == torch_state[key].numpy()).all()
print(f"{len(our_modules)} modules and {len(our_state)} arrays, by the same names and in the same order")
for key in list(our_state)[:4]:
    print(" ", key, our_state[key].shape)

# %% [markdown]
# ## The same picture, every layer
#
# To see inside a PyTorch model one *hooks* functions to its modules, which PyTorch calls with each output. A dozen
# lines make a recorder of it. With ours, `npformer.record` does that for every module, and for values inside modules
# besides.


# %%
def torch_record(model, pixel_values):
    """What every module gave when it was last called: a dictionary from name to array."""
    layers = {}

    def hook_for(name):
        def hook(module, inputs, output):
            if not isinstance(output, torch.Tensor):  # a tuple, or a model's output with fields
                output = output["logits"] if hasattr(output, "logits") else output[0]
            if isinstance(output, torch.Tensor):
                layers[name] = output.numpy().copy()

        return hook

    hooks = [module.register_forward_hook(hook_for(name)) for name, module in model.named_modules()]
    with torch.inference_mode():
        model(torch.tensor(pixel_values))
    for hook in hooks:
        hook.remove()
    return layers


# %%
def the_boot(name):
    """A shipped picture of an ankle boot, as a model gets it: (1, 3, H, W), float32."""
    paths = {path.stem: path for path in npformer.assets.sample_pictures()}
    processor = npformer.AutoImageProcessor.from_pretrained(name)
    return processor(npformer.load_image(paths["ankle-boot-1"]), return_tensors="np")["pixel_values"]


def layers_of(trace):
    """Names of a trace's modules: no values inside modules, and of each module the last call."""
    return [name for name in trace if ":" not in name and "#" not in name]


x = the_boot(name)
single = npformer.record(ours, x)  # float32
double = npformer.record(ours.astype(np.float64), x.astype(np.float64))
layers = layers_of(double)
if torch:
    torch_single = torch_record(torch_model, x)
    torch_double = torch_record(torch_model.double().eval(), x.astype(np.float64))
    assert set(torch_single) == set(torch_double) == set(layers)
print(f"{len(layers)} layers on both sides, and {len(double) - len(layers)} more values on ours")

# %% [markdown]
# A difference means little by itself: a thousandth is much where values are hundredths, and nothing where they are
# thousands. So we divide by the largest value of the layer. (Dividing each element by its own size would be worse:
# elements near zero are what is left of large ones that cancelled, and carry their rounding.)
#
# First float64, where rounding is so fine that it cannot hide a mistake.


# %%
def relative(values, truth):
    return np.abs(values - truth).max() / np.abs(truth).max()


def double_gaps(family, trace):
    """Ours against what was recorded from PyTorch in float64: of each layer some values and the largest."""
    gaps = {}
    for name, largest, samples in zip(
        layers_of(trace), kept[f"{family}.largest"], kept[f"{family}.samples"], strict=True
    ):
        flat = trace[name].reshape(-1)
        some = flat[np.linspace(0, flat.size - 1, samples.size).astype(int)]
        gaps[name] = max(np.abs(some / largest - samples).max(), abs(np.abs(flat).max() / largest - 1))
    return gaps


gaps = double_gaps("efficientformer", double)
if torch:
    gaps = {name: max(gaps[name], relative(double[name], torch_double[name])) for name in layers}
assert max(gaps.values()) < 1e-13
print(f"all {len(gaps)} layers: the same to 1e-13 of the layer's largest value, in float64")

# %% [markdown]
# Thirteen digits in every layer. A wrong padding, a forgotten eps or a transposed bias table would stand out at its
# own layer, by name, as a hundredth or worse. So from here on we take our float64 values as *the truth*, and
# look at what float32 makes of it.
#
# ## Float32: who is nearer to the truth?
#
# **Predict, then run:** both libraries now compute in float32, which keeps about seven digits. Whose values will be
# nearer to the truth, after a hundred layers: PyTorch's or ours?

# %%
if torch:
    torch_errors = {name: relative(torch_single[name], double[name]) for name in layers}
else:
    torch_errors = dict(zip(layers, kept["efficientformer.float32"], strict=True))
errors = {name: relative(single[name], double[name]) for name in layers}
shown = [
    "patch_embed.convolution1",
    "patch_embed.batchnorm_before",
    "encoder.intermediate_stages.0.meta4D_layers.blocks.0.token_mixer",
    "encoder.intermediate_stages.0.meta4D_layers.blocks.0.mlp.convolution1",
    "encoder.intermediate_stages.0.meta4D_layers.blocks.0.mlp.activation",
    "encoder.intermediate_stages.0",
    "encoder.intermediate_stages.5.projection",
    "encoder.last_stage.meta3D_layers.blocks.0.token_mixer.qkv",
    "encoder.last_stage.meta3D_layers.blocks.0.token_mixer.projection",
    "encoder.last_stage.meta3D_layers.blocks.1",
    "layernorm",
]


def short_name(name):
    for part in ("encoder.", "intermediate_", "meta4D_layers.", "meta3D_layers."):
        name = name.replace(part, "")
    return name


# %% tags=["timing"]
# The last digits depend on the processor that rounds them: as with timings, these are one machine's.
table(
    ["layer", "shape", "float64, both", "float32, ours", "float32, PyTorch's"],
    [
        [
            short_name(short) or "logits",
            double[name].shape,
            f"{gaps[name]:.0e}",
            f"{errors[name]:.1e}",
            f"{torch_errors[name]:.1e}",
        ]
        for short, name in [*((short, f"efficientformer.{short}") for short in shown), ("", "")]
    ],
)

# %% [markdown]
# "float64, both" is how far the two libraries are apart in float64; the other columns say how far each one's float32
# values are from the truth. Here are all layers, from the stem to the logits.

# %% tags=["timing"]
copies = ("dropout", "drop_path")  # they pass on what they get
drawn = [name for name in layers if name.rpartition(".")[2] not in copies]
depth = np.arange(len(drawn))
figure, axes = new_figure(1, 1, width=8, height=3.6)
for values, colour, label in (
    (torch_errors, "orange", "PyTorch, float32"),
    (errors, "blue", "ours, float32"),
    (gaps, "green", "ours and PyTorch, float64"),
):
    heights = [max(values[name], 1e-17) for name in drawn]
    axes.semilogy(depth, heights, "o-", color=COLOURS[colour], markersize=3, linewidth=1)
    place = {"orange": 8e-6, "blue": 2.5e-8, "green": 5e-14}[colour]
    axes.text(2, place, label, color=COLOURS[colour])
axes.axhline(2**-23, color=COLOURS["grey"], linewidth=1, linestyle=":")
axes.text(len(drawn), 2**-23, "float32's\nlast digit", color=COLOURS["grey"], fontsize=8, va="center")
axes.axhline(2**-52, color=COLOURS["grey"], linewidth=1, linestyle=":")
axes.text(len(drawn), 2**-52, "float64's\nlast digit", color=COLOURS["grey"], fontsize=8, va="center")
axes.set(xlabel="layer, in order of execution", ylabel="difference / largest value", ylim=(3e-17, 3e-4))
show(
    figure,
    "Figure 12.1. Rounding along the depth of the network. Orange and blue: how far each library's float32 values are "
    "from the truth; they are of one size. Green: how far the two are apart in float64.",
    "Three lines over about ninety layers on a logarithmic scale. The two float32 lines lie on each other between "
    "1e-7 and 5e-6, rising slowly with depth; the float64 line lies near 1e-15, eight decades below.",
)

# %%
ratio = np.median([errors[name] / torch_errors[name] for name in drawn])
assert 0.5 < ratio < 2
print("median over layers of our error over PyTorch's: between a half and two")
largest = [np.abs(double[f"efficientformer.{name}"]).max() for name in ("encoder.last_stage", "layernorm")]
print(f"largest value before the last layer norm: {largest[0]:.0f}, after it: {largest[1]:.0f}")

# %% [markdown]
# Neither. Both are off by a few units of float32's last digit, from the first layer to the last, and sometimes one is
# the nearer and sometimes the other. They do not even agree with each other, and no two machines need agree either.
# Rounding does not pile up with depth as one might fear: new layers add errors of random sign, and norms bring values
# back to one size.
#
# The jump near the end is worth a thought. The tokens that enter the last layer norm have one very large channel, and
# measured by that, all errors look small. The norm makes channels alike, and the errors of the small ones come to
# light. They were there before. The mean over 49 tokens then takes most of them out again.
#
# ## Why the last digits differ
#
# Adding real numbers in another order gives the same sum. Adding float32 numbers does not, for every addition rounds:

# %%
large, small = np.float32(100_000_000), np.float32(1)
print("(large + small) - large =", (large + small) - large)
print("(large - large) + small =", (large - large) + small)
print("distance from large to the next float32:", np.spacing(large))

# %% [markdown]
# The float32 number after the large one is 8 further, so a 1 added to it is lost. A convolution sums up thousands of
# products, and every library picks its own order: by blocks that suit the processor's cache and its vector registers,
# split among threads. **Predict, then run:** one output number of a 3x3 convolution over 128 channels is a sum of 1152
# products. We add the same ones in 3000 random orders. How many different sums shall we get?

# %%
rng = np.random.default_rng(0)
products = (rng.standard_normal(9 * 128) * rng.standard_normal(9 * 128)).astype(np.float32)
exact = products.astype(np.float64).sum()
orders = rng.permuted(np.tile(products, (3000, 1)), axis=1)  # (3000, 1152)
sums = np.cumsum(orders, axis=1, dtype=np.float32)[:, -1]  # one after another, rounded each time
step = np.spacing(np.float32(abs(exact)))
print(f"{len(np.unique(sums))} different sums of the same {products.size} numbers")
print(f"off by {np.abs(sums - exact).mean() / step:.1f} units in the last place on average")

# %% [markdown]
# Not one of them is wrong; each is what float32 makes of one order. How the numbers are added decides how large the
# error is. One after another is a poor way, because each small product meets an ever larger sum. Sums of blocks, or
# of halves of halves, keep the partners alike:


# %%
def add_halves(x):
    """(..., n) float32, n a power of two -> (...): neighbours first, then their sums, and so on."""
    while x.shape[-1] > 1:
        x = x[..., ::2] + x[..., 1::2]
    return x[..., 0]


def add_blocks(x, block=32):
    """(..., n) float32 -> (...): blocks one after another inside, then their sums one after another."""
    inside = np.cumsum(x.reshape(*x.shape[:-1], -1, block), axis=-1, dtype=np.float32)[..., -1]
    return np.cumsum(inside, axis=-1, dtype=np.float32)[..., -1]


ways = {
    "one after another": lambda x: np.cumsum(x, axis=-1, dtype=np.float32)[..., -1],
    "blocks of 32": add_blocks,
    "halves": add_halves,
}
lengths = 2 ** np.arange(5, 14)
growth = {way: [] for way in ways}
for length in lengths:
    numbers = np.random.default_rng(length).random((300, length), dtype=np.float32)
    truth = numbers.astype(np.float64).sum(axis=-1)
    for way, add in ways.items():
        growth[way].append(np.sqrt(np.mean((add(numbers) / truth - 1) ** 2)) / 2**-23)

# %%
figure, axes = new_figure(1, 2, width=8, height=3)
axes[0].hist((sums - exact) / step, bins=np.arange(-60, 61, 4), color=COLOURS["blue"])
axes[0].axvline(0, color=COLOURS["grey"], linewidth=1)
axes[0].set(xlabel="error, in units of the last place", ylabel="orders, of 3000")
for (way, values), colour in zip(growth.items(), SERIES, strict=False):
    axes[1].loglog(lengths, values, "o-", color=COLOURS[colour], markersize=4)
    axes[1].text(lengths[-1] * 1.15, values[-1], way, color=COLOURS[colour], va="center", fontsize=9)
axes[1].set(xlabel="numbers added", ylabel="error / float32's last digit", xlim=(25, 150_000))
axes[1].set_xticks(lengths[::2], lengths[::2])
axes[1].minorticks_off()
show(
    figure,
    "Figure 12.2. Left: the error of one sum of 1152 products in 3000 orders. Right: how the error grows with the "
    "number of terms, for three ways to add positive numbers; libraries add in blocks.",
    "Left: a histogram with one hump, most of it between -30 and 15 units. Right: the error of adding one after "
    "another climbs steeply with the number of terms; blocks of 32 climb much later, and halves stay below one unit.",
)
print({way: f"{values[-1]:.1f}" for way, values in growth.items()}, "last digits at", lengths[-1], "terms")

# %% [markdown]
# So "equal to PyTorch" cannot mean equal in all bits; PyTorch on another processor is not that either. What one can
# ask for is what this project asks: the same values in float64, and in float32 no larger error than PyTorch's own,
# within a factor of two. Where it is cheap we do better: the package's layer norm, for one, adds up in float64 and
# rounds once.
#
# ## Function beside function
#
# The functions in `npformer.ops` are named, ordered and laid out as those in `torch.nn.functional`. This is what
# PyTorch's own signatures say (checked live where it is installed), and what ours say:

# %%
torch_arguments = {
    "conv2d": "input weight bias stride padding dilation groups",
    "avg_pool2d": "input kernel_size stride padding ceil_mode count_include_pad divisor_override",
    "batch_norm": "input running_mean running_var weight bias training momentum eps",
    "layer_norm": "input normalized_shape weight bias eps",
    "linear": "input weight bias",
    "gelu": "input approximate",
    "softmax": "input dim _stacklevel dtype",
    "normalize": "input p dim eps out",
    "relu": "input inplace",
}


def arguments(function):
    try:
        return list(inspect.signature(function).parameters)
    except ValueError:  # a function in C++: its arguments stand in the first line of its documentation
        first = function.__doc__.strip().splitlines()[0]
        return [part.partition("=")[0].strip() for part in first[first.index("(") + 1 : first.rindex(")")].split(",")]


for function, named in torch_arguments.items():
    if torch:
        assert arguments(getattr(torch.nn.functional, function)) == named.split()
    mine = ["input", *arguments(getattr(ops, function))[1:]]  # ours is called x
    assert mine == [argument for argument in named.split() if argument in mine]  # the same order
    print(f"{function}({', '.join(mine)})")
    if extra := [argument for argument in named.split() if argument not in mine]:
        print(f"    only in PyTorch: {', '.join(extra)}")

# %% [markdown]
# What ours leave out has to do with training, with memory that is written over, or with another result type. So the
# same line of code runs on either side. Here each call is made with the same arguments, once as tensors, once as
# arrays:

# %%
calls = {
    "conv2d": (["x", "weight", "bias"], {"stride": 2, "padding": 1, "groups": 2}),
    "avg_pool2d": (["x"], {"kernel_size": 3, "stride": 1, "padding": 1, "count_include_pad": False}),
    "batch_norm": (["x", "mean", "var", "scale", "shift"], {"eps": 1e-3}),
    "layer_norm": (["x"], {"normalized_shape": (7, 6), "eps": 1e-12}),
    "gelu": (["x"], {}),
    "softmax": (["x"], {"dim": 1}),
    "normalize": (["x"], {"dim": 1}),
    "linear": (["x", "matrix"], {}),
}
for function, (inputs, options) in calls.items():
    here = getattr(ops, function)(*(kept[key] for key in inputs), **options)
    there = kept[f"{function}()"]
    if torch:
        there = getattr(torch.nn.functional, function)(*(torch.tensor(kept[key]) for key in inputs), **options)
    agree(function, here, there)

# %% [markdown]
# ## Module beside module
#
# One level up, a module of ours is written like one of PyTorch's: children are attributes, arrays are attributes,
# `forward` computes. This is our MLP from the first block. Where PyTorch is here, its own stands below, printed by
# PyTorch.

# %%
source(type(ours.efficientformer.encoder.intermediate_stages[0].meta4D_layers.blocks[0].mlp))

# %%
print(ours.efficientformer.encoder.intermediate_stages[0].meta4D_layers.blocks[0].mlp)
if torch:
    print(torch_model.efficientformer.encoder.intermediate_stages[0].meta4D_layers.blocks[0].mlp)

# %% [markdown]
# And this is where the two part:
#
# | | PyTorch | npformer |
# | --- | --- | --- |
# | gradients | every operation can be traced back (`requires_grad`, `backward`) | none: inference only |
# | modes | `train()` and `eval()`; dropout and batch norm differ | one mode; `forward` never changes the model |
# | devices | CPU, GPU and others | CPU |
# | mixed dtypes | some operations promote, some refuse | an op keeps the dtype it was given, and refuses mixtures |
# | wrong shapes | an error from deep inside, often | one sentence that names the argument |
# | memory layout | channels first, unless asked otherwise | channels first to read; fused models keep channels last |
#
# Three of them are worth seeing. **Predict, then run:** what happens if you forget `eval()`, and ask a PyTorch model
# that is in training mode for the same picture, twice?

# %%
if torch:
    forgetful = theirs.EfficientFormerForImageClassification.from_pretrained(folder).float().train()
    mean_before = forgetful.efficientformer.patch_embed.batchnorm_before.running_mean.clone()
    with torch.no_grad():
        twice = [forgetful(torch.tensor(x)).logits.numpy() for _ in range(2)]
    moved = np.abs(twice[0] - single[""]).max()
    print(f"the logits are off by more than 0.1: {moved > 0.1}")
    changed = (mean_before != forgetful.efficientformer.patch_embed.batchnorm_before.running_mean).any()
    print(f"and the model's running means have changed: {bool(changed)}")
    assert moved > 0.1
    assert changed
else:
    print("Without PyTorch here: its logits would be off, and its running means would have changed.")
before = {key: array.copy() for key, array in ours.state_dict().items()}
assert (ours(x).logits == ours(x).logits).all()
assert all((before[key] == array).all() for key, array in ours.state_dict().items())
print("ours gives the same logits twice, and has not changed")

# %% [markdown]
# In training mode batch norm takes its mean and variance from the batch at hand, here a single picture, and moves its
# stored ones towards them: one forgotten word changes the answers, and the model too.
#
# Next, types. An array of float64 weights and a float32 picture:

# %%
weights = kept["weight"]  # float64
picture32 = np.ones((1, 4, 5, 5), np.float32)
attempts = {"npformer": lambda: ops.conv2d(picture32, weights, groups=2)}
if torch:
    tensors = torch.tensor(picture32), torch.tensor(weights)
    attempts["PyTorch"] = lambda: torch.nn.functional.conv2d(*tensors, groups=2)
    print("PyTorch adds and promotes:", (tensors[0][0, :2, :3, :3] + tensors[1][0]).dtype)
print("NumPy adds and promotes:", (picture32[0, :2, :3, :3] + weights[0]).dtype)
for library, attempt in attempts.items():
    try:
        attempt()
    except (TypeError, RuntimeError) as error:
        print(f"a convolution in {library}: {type(error).__name__}" + f": {error}" * (library == "npformer"))

# %% [markdown]
# Last, the layout. A map (B, C, H, W) lies in memory row by row, channel after channel. A fused model keeps all
# channels of a pixel side by side instead, for a 1x1 convolution is then one matrix product. The shape does not show
# it, the *strides* do: how many bytes it is to the next channel, row, and column.

# %%
stage = "efficientformer.encoder.intermediate_stages.0"
fused = npformer.fuse(ours)


def strides_of(model):
    found = {}

    def look(name, module, inputs, output, layout):
        if name == stage:
            found["strides"] = output.shape, output.strides[1:]
        return output

    with npformer.watch(model, look):
        model(x)
    return found["strides"]


for label, model in (("readable", ours), ("fused", fused)):
    shape, strides = strides_of(model)
    print(f"{label}: shape {shape}, bytes to the next channel {strides[0]}, row {strides[1]}, column {strides[2]}")

# %% [markdown]
# ## Weights, there and back
#
# `save_pretrained` writes the same two files in both libraries, and each reads the other's. We write ours, let PyTorch
# read it, let PyTorch write it, and read that; in a folder that is gone afterwards.

# %%
with tempfile.TemporaryDirectory() as place:
    ours.save_pretrained(f"{place}/ours")
    if torch:
        there = theirs.EfficientFormerForImageClassification.from_pretrained(f"{place}/ours")
        there.save_pretrained(f"{place}/theirs")
    back = npformer.AutoModelForImageClassification.from_pretrained(f"{place}/{'theirs' if torch else 'ours'}")
assert list(back.state_dict()) == list(our_state)
assert all((array == our_state[key]).all() for key, array in back.state_dict().items())
assert (back(x).logits == ours(x).logits).all()
print(f"{len(our_state)} arrays came back, every bit the same; class {back.config.id2label[back(x).logits.argmax()]}")

# %% [markdown]
# In memory it is shorter: a state dict of tensors is a state dict of arrays once each is turned into the other kind,
# and both `load_state_dict` insist that names and shapes fit. One trap lies on PyTorch's side. transformers gathers
# attention's biases (lesson 6) when `eval()` is called and keeps the result: load weights *after* `eval()`, and it
# goes on with the old ones.

# %%
rng = np.random.default_rng(2)
other = {key: rng.standard_normal(a.shape) if "biases" in key else a for key, a in our_state.items()}
ours_changed = npformer.get_model(name, pretrained=True).astype(np.float64).load_state_dict(other)
logits = ours_changed(x.astype(np.float64)).logits
if torch:
    changed = torch_model.double().eval()
    changed.load_state_dict({key: torch.tensor(array) for key, array in other.items()})
    pixels = torch.tensor(x, dtype=torch.float64)
    with torch.inference_mode():
        stale = changed(pixels).logits.numpy()
        fresh = changed.eval()(pixels).logits.numpy()
    assert relative(stale, logits) > 1e-3
    assert relative(fresh, logits) < 1e-12
    print("loaded after eval(): PyTorch's logits are those of the old biases; eval() again, and they are right")
assert relative(logits, ours(x).logits) > 1e-3
print("ours gathers at every call: new biases count at once")

# %% [markdown]
# ## The other two families
#
# The same for an EfficientNet and a SwiftFormer: load, record, compare all layers in float64, then float32. The last
# two columns are the errors of the logits in float32, in float32's last digits, rounded to whole ones.

# %%
summary = []
for family in ("efficientnet", "swiftformer"):
    other_name = f"{family}-fashion"
    mine, boot = npformer.get_model(other_name, pretrained=True), the_boot(other_name)
    trace32, trace64 = npformer.record(mine, boot), npformer.record(mine.astype(np.float64), boot.astype(np.float64))
    distances = double_gaps(family, trace64)
    torch_error = kept[f"{family}.float32"][-1]
    if torch:
        kinds = {"efficientnet": EfficientNetForImageClassification, "swiftformer": SwiftFormerForImageClassification}
        model = kinds[family].from_pretrained(npformer.assets.model_directory(other_name)).float().eval()
        assert list(model.state_dict()) == list(mine.state_dict())
        torch_error = relative(torch_record(model, boot)[""], trace64[""])
        live = torch_record(model.double(), boot.astype(np.float64))
        distances = {name: max(gap, relative(trace64[name], live[name])) for name, gap in distances.items()}
    assert max(distances.values()) < 1e-13
    print(f"{family}: all {len(distances)} layers the same to 1e-13, in float64")
    summary.append([family, trace64[""].shape[1], relative(trace32[""], trace64[""]), torch_error])

# %% tags=["timing"]
table(
    ["family", "classes", "logits, ours", "logits, PyTorch's"],
    [[family, classes, *(f"{error / 2**-23:.0f}" for error in both)] for family, classes, *both in summary],
)

# %% [markdown]
# ## Speed beside speed
#
# EfficientFormer-L1 with both heads at 224 x 224, random weights of order one: PyTorch as it comes (*eager*, inside
# `torch.inference_mode()`), our readable model and our fused one. The three take turns, so that a busy moment hits
# all, and each works on one thread: the idle threads of two libraries in one process would get into each other's way.
# The README compares them on all cores, in processes of their own (`npformer bench --against torch`).

# %%
l1 = npformer.get_model("efficientformer-l1", seed=0)
rng = np.random.default_rng(3)
state = {}
for key, array in l1.state_dict().items():
    if array.dtype.kind == "i":  # counters and index tables
        state[key] = array
    elif key.endswith("running_var"):
        state[key] = 0.5 + rng.random(array.shape, dtype=np.float32)
    else:
        state[key] = rng.standard_normal(array.shape, np.float32) / np.sqrt(max(array[0].size, 1), dtype=np.float32)
l1.load_state_dict(state)
runners = {"npformer, readable": l1, "npformer, fused": npformer.fuse(l1)}
if torch:
    config = theirs.EfficientFormerConfig(hidden_size=448, num_labels=1000)
    torch_l1 = theirs.EfficientFormerForImageClassificationWithTeacher(config)
    torch_l1.load_state_dict({key: torch.tensor(array) for key, array in state.items()})
    torch_l1.eval()  # after loading

    def run_torch(pixel_values):
        with torch.inference_mode():
            return torch_l1(torch.from_numpy(pixel_values))

    runners["PyTorch, eager"] = run_torch
    probe = rng.standard_normal((1, 3, 224, 224), np.float32)
    for label, run in runners.items():
        assert relative(np.asarray(run(probe).logits), run_torch(probe).logits.numpy()) < 1e-4, label

# %% tags=["timing"]
npformer.set_num_threads(1)
if torch:
    torch.set_num_threads(1)
rows = []
for batch, rounds in ((1, 3), (8, 2)):
    pixel_values = rng.standard_normal((batch, 3, 224, 224), np.float32)
    with threads.sharing():  # which holds NumPy's matrix products to one thread, too
        seconds = times({label: partial(run, pixel_values) for label, run in runners.items()}, rounds)
    rows += [[label, batch, f"{1000 * s:.0f}", f"{1000 * s / batch:.0f}"] for label, s in seconds.items()]
table(["", "batch", "milliseconds", "per picture"], rows)

# %% [markdown]
# The readable model pays for being readable: every layer walks through memory on its own. What the fused one does
# about that is lesson 10.
#
# ## Exercises
#
# Whoever ports a network to another language meets these five small jobs. They need no PyTorch.
#
# ### Exercise 12.1: how far apart?
#
# Write `relative_error(values, truth)`: the largest absolute difference over the largest absolute value of the truth,
# as a number. Two layers of zeros differ by 0, and a NaN anywhere in the values must give infinity: it must never look
# small.


# %% tags=["exercise"]
def relative_error(values, truth):
    """Two arrays of one shape -> a number"""
    ...


# %% tags=["check"]
checks.relative_error(relative_error)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `np.isnan(values).any()` first. Then mind that the largest value of a truth of zeros is 0: it must not be divided by.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def relative_error(values, truth):
#     if np.isnan(values).any():
#         return np.inf
#     difference = np.abs(values - truth).max()
#     return 0.0 if difference == 0 else difference / max(np.abs(truth).max(), 1e-300)
# ```
#
# NaN is neither larger nor smaller than any tolerance. `if error > tolerance: complain()` stays silent about it, which
# is how broken ports pass their tests.
#
# </details>

# %% [markdown]
# ### Exercise 12.2: pair off the names
#
# Another library calls the same layers something else. Write `rename(state, table)`: a new dictionary in which each
# name of `state` has its longest beginning that is in `table` replaced by what `table` says, once. Beginnings end at a
# dot or with the name: `"stages.1"` begins `"stages.1.mlp"`, and not `"stages.10.mlp"`. Names without an entry stay.
# Two names that become one are an error: raise `ValueError`.


# %% tags=["exercise"]
def rename(state, table):
    """{"stem.conv1.weight": a}, {"stem.conv1": "patch_embed.conv"} -> {"patch_embed.conv.weight": a}"""
    ...


# %% tags=["check"]
checks.rename(rename)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Split a name at its dots, and try its beginnings from the longest: `".".join(parts[:n])` for n from `len(parts)`
# down.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def rename(state, table):
#     renamed = {}
#     for name, array in state.items():
#         parts = name.split(".")
#         for n in range(len(parts), 0, -1):
#             beginning = ".".join(parts[:n])
#             if beginning in table:
#                 name = ".".join([table[beginning], *parts[n:]])
#                 break
#         if name in renamed:
#             raise ValueError(f"two arrays become {name}")
#         renamed[name] = array
#     return renamed
# ```
#
# `str.replace` will not do: it knows no dots, finds a beginning in the middle of a name too, and goes on after a hit.
#
# </details>

# %% [markdown]
# ### Exercise 12.3: a kernel from TensorFlow
#
# TensorFlow and Keras store a convolution's kernel as (H, W, in, out), and a depthwise one as (H, W, C, 1). Write
# `from_keras(kernel, depthwise)` that gives PyTorch's layout: (out, in, H, W), and (C, 1, H, W).


# %% tags=["exercise"]
def from_keras(kernel, depthwise):
    """(H, W, I, O) -> (O, I, H, W), or where depthwise is True (H, W, C, 1) -> (C, 1, H, W)"""
    ...


# %% tags=["check"]
checks.from_keras(from_keras)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `kernel.transpose(...)` takes, for each new axis, the number of the old one. `reshape` would keep the numbers where
# they are and only pretend.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def from_keras(kernel, depthwise):
#     return kernel.transpose(2, 3, 0, 1) if depthwise else kernel.transpose(3, 2, 0, 1)
# ```
#
# A 3x3 kernel whose height and width have changed places still has the right shape. Only values can tell.
#
# </details>

# %% [markdown]
# ### Exercise 12.4: the first layer that differs
#
# Write `first_fault(ours, theirs, tolerance)`: two dictionaries from layer name to array; ours is in order of
# execution, theirs may not be, and may lack layers. Return the name of the first layer, in order of execution, whose
# relative error (exercise 12.1, theirs being the truth) is above the tolerance, or whose shape differs; `None` where
# there is none.


# %% tags=["exercise"]
def first_fault(ours, theirs, tolerance):
    """-> a name, or None"""
    return ...


# %% tags=["check"]
checks.first_fault(first_fault)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Walk through `ours`; skip names that `theirs` lacks. Look at shapes before you subtract: NumPy would broadcast (1, 4)
# against (3, 4) without a word. Write the comparison so that NaN is a fault.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def first_fault(ours, theirs, tolerance):
#     for name, values in ours.items():
#         if name not in theirs:
#             continue
#         truth = theirs[name]
#         if values.shape != truth.shape:
#             return name
#         error = np.abs(values - truth).max() / max(np.abs(truth).max(), 1e-300)
#         if not error <= tolerance:  # true for NaN as well
#             return name
#     return None
# ```
#
# All layers after a fault are wrong too, and often by more. The *first* one is where to look; `npformer.compare` does
# this, and goes on to say what may have caused it (lesson 11).
#
# </details>

# %% [markdown]
# ### Exercise 12.5: add in blocks
#
# Write `blocked_sum(x, block)`: the sum of a float32 vector, in float32, added as libraries do: cut into blocks of
# `block` numbers (the last may be shorter), each block added from left to right, then the blocks' sums from left to
# right. The check compares to the last bit.


# %% tags=["exercise"]
def blocked_sum(x, block):
    """(n,) float32 -> a float32 number"""
    ...


# %% tags=["check"]
checks.blocked_sum(blocked_sum)

# %% [markdown]
# <details><summary>Hint</summary>
#
# A loop is fine: `total = np.float32(0)`, then `total = total + number` for each number of a block. `x.sum()` adds in
# an order of its own.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def blocked_sum(x, block):
#     total = np.float32(0)
#     for start in range(0, len(x), block):
#         inside = np.float32(0)
#         for number in x[start : start + block]:
#             inside = inside + number
#         total = total + inside
#     return total
# ```
#
# With blocks of √n numbers no partial sum ever takes more than about 2√n roundings instead of n: this is why Figure
# 12.2's second line stays so low, at no cost at all.
#
# </details>

# %% [markdown]
# ## Further reading
#
# - Goldberg 1991, "What Every Computer Scientist Should Know About Floating-Point Arithmetic".
#   [doi](https://doi.org/10.1145/103162.103163)
# - Higham 1993, "The Accuracy of Floating Point Summation". [doi](https://doi.org/10.1137/0914050)
# - PyTorch, "Numerical accuracy": what it promises, and what not.
#   [docs](https://docs.pytorch.org/docs/stable/notes/numerical_accuracy.html)
# - PyTorch, "Module", on hooks, `train` and `eval`.
#   [docs](https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html)
# - In the package: [nn.py](../npformer/nn.py), [trace.py](../npformer/trace.py), and
#   [the tests that run PyTorch beside every layer](../tests/live/test_model_parity.py).
#
# This was the last lesson. Back to [the first](01_picture_to_tensor.ipynb), or to [the map](README.md).
