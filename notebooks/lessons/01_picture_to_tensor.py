# %% [markdown]
# # 1. From picture to tensor
#
# A network never sees a picture file. It sees an array of floats, and it was trained on arrays made in one particular
# way. After this lesson you can make that array yourself, from a file to `(B, 3, H, W)` in float32, bit for bit as the
# libraries do it: decode, resize, crop, rescale, normalise, move the channels, stack. You will also have measured how
# many pictures a trained network gets wrong when a single one of these steps is off.
#
# You need: Python, NumPy, and what a matrix product is. Time: about 25 minutes.

# %%
import hashlib
import json
import warnings
from textwrap import fill

import numpy as np
from course import COLOURS, SERIES, agree, new_figure, picture, pictures, recorded, show, source, table, times
from course.checks import lesson_01 as checks
from matplotlib.patches import Rectangle

import npformer
from npformer import AutoImageProcessor, load_image
from npformer.assets import model_directory, sample_pictures
from npformer.image import EfficientFormerImageProcessor, EfficientNetImageProcessor, ViTImageProcessor
from npformer.picture import BICUBIC, BILINEAR, NEAREST, center_crop, normalize, rescale, resize, shortest_edge_size

torch_values = recorded(1)

# %% [markdown]
# ## Why there is anything to do
#
# The first layer of EfficientFormer-L1 multiplies its input by learned numbers. Those numbers fit pictures of 224 x
# 224 pixels, three colours in the order red, green, blue, each colour shifted and scaled so that its values lie around
# 0. Nothing in the file `model.safetensors` says so, and nothing complains when the input is something else: the
# network answers anyway, confidently. That makes this the step where most deployments go wrong, and it is why every
# model comes with a small file, `preprocessor_config.json`, the recipe.
#
# Here are the recipes of the three small models that come with npformer. They were trained on Fashion-MNIST, 28 x 28
# grey pictures of clothes, so mean and deviation are those of that data.

# %%
rows = []
for name in ("efficientformer-fashion", "efficientnet-fashion", "swiftformer-fashion"):
    recipe = json.loads((model_directory(name) / "preprocessor_config.json").read_text())
    filter_name = {0: "nearest", 2: "bilinear", 3: "bicubic"}[recipe["resample"]]
    side, mean, std = recipe["size"]["height"], recipe["image_mean"][0], recipe["image_std"][0]
    rows.append([name, f"{side} x {side}", filter_name, f"{mean:.3f}", f"{std:.3f}", recipe["image_processor_type"]])
table(["model", "size", "filter", "mean", "deviation", "class"], rows)

# %% [markdown]
# One of the deviations stands out. It is no misprint, and by the end of the lesson you will know why it has to be
# $\sqrt{0.353}$.
#
# ## Decode: a file becomes whole numbers
#
# A PNG or JPEG file is compressed. Decoding gives one whole number from 0 to 255 for each colour of each pixel, one
# byte each (`uint8`). `load_image` decodes, turns the picture upright where a camera left a note that it was held
# sideways (EXIF), and makes RGB of whatever was in the file: grey becomes three equal channels, a palette is looked
# up, transparency is dropped.

# %%
boot_file = next(path for path in sample_pictures() if path.stem == "ankle-boot-1")
boot = np.asarray(load_image(boot_file))  # (H, W, C): as Pillow and most libraries keep pictures

print(f"{boot_file.name}: {boot_file.stat().st_size} bytes on disk")
print(f"decoded: shape {boot.shape}, {boot.dtype}, {boot.nbytes} bytes, from {boot.min()} to {boot.max()}")
print("three equal channels:", (boot[..., 0] == boot[..., 1]).all() and (boot[..., 1] == boot[..., 2]).all())
grey = boot[..., 0]  # (H, W)

# %%
rows_shown, columns_shown = slice(6, 14), slice(15, 23)
piece = grey[rows_shown, columns_shown]
figure, axes = new_figure(1, 2, width=7.4, height=3.6)
picture(axes[0], grey, "28 x 28 pixels", cmap="gray", vmin=0, vmax=255)
corner = (columns_shown.start - 0.5, rows_shown.start - 0.5)
axes[0].add_patch(Rectangle(corner, 8, 8, fill=False, color="#ff8c42", lw=2))
picture(axes[1], piece, "the framed 8 x 8 of them", cmap="gray", vmin=0, vmax=255)
for (i, j), value in np.ndenumerate(piece):
    axes[1].text(j, i, value, ha="center", va="center", fontsize=9, color="black" if value > 120 else "white")
show(
    figure,
    "Figure 1.1. A picture is an array of whole numbers, 0 for black and 255 for white.",
    "Left, an ankle boot in 28 by 28 grey pixels with a frame around its shaft's edge. Right, the framed 8 by 8 "
    "pixels enlarged, each with its number written in it: dark background is 0, bright leather around 200.",
)

# %% [markdown]
# Grey pictures cannot show what happens to colours. So we also make a colour picture, by using a T-shirt as the red
# channel, a sneaker as the green and a bag as the blue one. It will tell us at once when channels are confused.

# %%
files = {path.stem: path for path in sample_pictures()}
motley = np.stack([np.asarray(load_image(files[n]))[..., 0] for n in ("t-shirt-top-1", "sneaker-1", "bag-1")], axis=-1)
motley.shape, motley.dtype

# %% [markdown]
# ## Resize: every new pixel is a weighted sum of old ones
#
# To get from $H$ to $H'$ pixels, think of both as rulers of the same length. New pixel $i$ has its centre at
# $i + \tfrac12$ on the new ruler, and on the old one at
#
# $$c_i = (i + \tfrac12)\, s, \qquad s = H / H'.$$
#
# The old pixels near that place are averaged, the nearer the heavier. How heavy at which distance is said by a
# *kernel* $k$. For *bilinear* it is a triangle, $k(t) = \max(0, 1 - |t|)$: a pixel counts in full where the new centre
# hits it, and not at all from one pixel away on. The weights of one new pixel are then divided by their sum, so that
# they add up to 1:
#
# $$w_{ij} = \frac{k(j + \frac12 - c_i)}{\sum_{j'} k(j' + \frac12 - c_i)}, \qquad
# y_{i\ell} = \sum_j \sum_m w_{ij}\, v_{\ell m}\, x_{jm}.$$
#
# In two dimensions the weight of a pixel is its weight down times its weight across ($w$ for rows, $v$ for columns).
# In loops:


# %%
def triangle(t):
    return max(0.0, 1.0 - abs(t))


def resize_loops(x, height, width, kernel):
    """Resize a map by the definition: (H, W) -> (height, width). Only for enlarging, so far."""
    down, across = x.shape[0] / height, x.shape[1] / width
    y = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            total = weights_total = 0.0
            for row in range(x.shape[0]):
                for column in range(x.shape[1]):
                    weight = kernel(row + 0.5 - (i + 0.5) * down) * kernel(column + 0.5 - (j + 0.5) * across)
                    total += weight * x[row, column]
                    weights_total += weight
            y[i, j] = total / weights_total
    return y


# %%
x = np.array([[10, 20, 30, 40], [20, 60, 120, 40], [30, 180, 240, 60], [40, 50, 60, 70]])  # (4, 4)
y = resize_loops(x, 6, 6, triangle)  # (6, 6)
i, j = 2, 3
down_weights = [triangle(row + 0.5 - (i + 0.5) * 4 / 6) for row in range(4)]
across_weights = [triangle(column + 0.5 - (j + 0.5) * 4 / 6) for column in range(4)]
print("centre of new pixel (2, 3) on the old rulers:", f"{(i + 0.5) * 4 / 6:.3f} down, {(j + 0.5) * 4 / 6:.3f} across")
print("weights down:  ", np.round(down_weights, 3))
print("weights across:", np.round(across_weights, 3))
print("weighted sum:  ", f"{down_weights @ x @ across_weights:.2f}", " in the loops:", f"{y[i, j]:.2f}")

# %%
figure, axes = new_figure(1, 3, width=7.6, height=2.9)
look = {"cmap": "gray", "vmin": -300, "vmax": 260, "extent": (0, 4, 4, 0)}
picture(axes[0], x, "4 x 4, and a new centre", **look)
picture(axes[1], np.outer(down_weights, across_weights), "weights for that centre", cmap="Blues", extent=(0, 4, 4, 0))
picture(axes[2], y, "6 x 6 on the same square", **look)
for row in range(4):
    for column in range(4):
        axes[0].text(column + 0.5, row + 0.3, x[row, column], ha="center", va="center", fontsize=10)
        weight = down_weights[row] * across_weights[column]
        colour = "white" if weight > 0.4 else COLOURS["ink"]
        axes[1].text(column + 0.5, row + 0.3, f"{weight:.2f}", ha="center", va="center", fontsize=10, color=colour)
for row in range(6):
    for column in range(6):
        place = ((column + 0.5) * 4 / 6, (row + 0.5) * 4 / 6)
        axes[2].text(*place, f"{y[row, column]:.0f}", ha="center", va="center", fontsize=9)
centre = ((j + 0.5) * 4 / 6, (i + 0.5) * 4 / 6)
for axis in axes[:2]:
    axis.plot(*centre, "o", color="#ff8c42", ms=7, mec="black")
corner = (centre[0] - 2 / 6, centre[1] - 2 / 6)
axes[2].add_patch(Rectangle(corner, 4 / 6, 4 / 6, fill=False, color="#ff8c42", lw=2))
show(
    figure,
    "Figure 1.2. Bilinear enlarging from 4 x 4 to 6 x 6. The centre of new pixel (2, 3) falls among four old pixels; "
    "the nearer one is, the more it weighs.",
    "Three squares. Left, 16 old pixels with their values, and an orange dot where the centre of new pixel 2, 3 "
    "falls. Middle, the weights of the 16 for that dot: 0.69, 0.14, 0.14 and 0.03 for four neighbours, 0 elsewhere. "
    "Right, the 36 new pixels with their values, the one computed framed.",
)

# %% [markdown]
# The sum over rows and the sum over columns do not get in each other's way. So the weights down fit in one matrix,
# $A$ of shape $(H', H)$, those across in another, $B$ of shape $(W', W)$, and resizing is two matrix products:
#
# $$Y = A X B^\top.$$


# %%
def weights(old, new, kernel, antialias=True):
    """Row i says how much each old pixel gives to new pixel i: (new, old)."""
    scale = old / new
    wide = max(scale, 1.0) if antialias else 1.0  # when shrinking, the kernel is stretched: see below
    matrix = np.array([[kernel((j + 0.5 - (i + 0.5) * scale) / wide) for j in range(old)] for i in range(new)])
    return matrix / matrix.sum(axis=1, keepdims=True)


assert np.allclose(weights(4, 6, triangle) @ x @ weights(4, 6, triangle).T, y)
print(np.round(weights(4, 6, triangle), 3))

# %% [markdown]
# **Predict, then run.** A row of two pixels, 0 and 100, is enlarged to four. Which four values come out? A ruler laid
# from the first pixel to the last would say 0, 33, 67, 100.

# %%
weights(2, 4, triangle) @ [0, 100]

# %% [markdown]
# The new centres lie at 0.25, 0.75, 1.25, 1.75 of the old ruler (`(i + 0.5) * 2 / 4`), a quarter of a pixel inside and
# outside of the old centres at 0.5 and 1.5. The outer two have no second neighbour; with the weights divided by their
# sum they repeat the edge. The other answer, with corners laid on corners, is also in use (`align_corners=True` in
# PyTorch); a network trained on one and fed with the other sees a slightly smaller world.

# %%
print(
    np.arange(4) * 0.5 + 0.25, "is where the new centres fall;", (np.arange(4) / 3 * 100).round(), "is the other way"
)
small = torch_values["small"]
agree("bilinear, 4 x 5 to 7 x 12", resize_loops(small, 7, 12, triangle), torch_values["enlarged:bilinear"])

# %% [markdown]
# ### Bicubic: a kernel with negative parts
#
# A triangle has corners, so bilinear pictures have visible seams. The cubic kernel of Keys (1981) is smooth, reaches
# two pixels far, and is negative between one and two:
#
# $$k(t) = \begin{cases} (a+2)|t|^3 - (a+3)|t|^2 + 1 & |t| < 1\\
# a\,(|t|^3 - 5|t|^2 + 8|t| - 4) & 1 \le |t| < 2\\ 0 & \text{otherwise} \end{cases} \qquad a = -\tfrac12.$$


# %%
def cubic(t, a=-0.5):
    """Keys, 1981."""
    t = abs(t)
    if t < 1:
        return (a + 2) * t**3 - (a + 3) * t**2 + 1
    return a * (t**3 - 5 * t**2 + 8 * t - 4) if t < 2 else 0.0


agree("bicubic, 4 x 5 to 7 x 12", resize_loops(small, 7, 12, cubic), torch_values["enlarged:bicubic"])

# %%
enlarged = {
    "nearest": np.repeat(np.repeat(grey, 8, 0), 8, 1).astype(float),
    "bilinear": weights(28, 224, triangle) @ grey @ weights(28, 224, triangle).T,
    "bicubic": weights(28, 224, cubic) @ grey @ weights(28, 224, cubic).T,
}
for name, image in enlarged.items():
    print(f"{name:8}  {image.shape}, from {image.min():6.1f} to {image.max():.1f}")

# %%
figure, axes = new_figure(1, 4, width=7.8, height=2.2, gridspec_kw={"width_ratios": [1, 1, 1, 1.7]})
top, left, line = 92, 112, 172
for axis, colour, (name, image) in zip(axes, SERIES, enlarged.items()):
    picture(axis, image[top:, left:][:104, :104].clip(0, 255), name, cmap="gray", vmin=0, vmax=255)
    axis.axhline(line - top, color=COLOURS[colour], lw=1.5)
    axes[3].plot(np.arange(left, left + 104), image[line, left : left + 104], color=COLOURS[colour], lw=1.5)
axes[3].axhspan(255, 300, color=COLOURS["grey"], alpha=0.2)
axes[3].axhspan(-45, 0, color=COLOURS["grey"], alpha=0.2)
axes[3].set(xlabel="column", ylabel="value", ylim=(-45, 300), title="values along the line")
show(
    figure,
    "Figure 1.3. A part of the boot, enlarged from 28 x 28 to 224 x 224 by three filters, and the values along the "
    "marked line in the same colours. The cubic curve "
    "overshoots where the picture jumps; what lies in the grey bands, below 0 or above 255, is cut off.",
    "Three enlarged views of the boot's sole and heel: blocky with nearest, smooth with seams with bilinear, "
    "smoothest with bicubic. A line chart to the right shows the values along one row: steps, straight pieces, and a "
    "smooth curve that overshoots a little where the picture jumps between dark and bright.",
)

# %% [markdown]
# ### Shrinking: stretch the kernel, or be fooled
#
# When a picture gets smaller, a new pixel covers several old ones. A kernel one old pixel wide would look at the
# nearest few and ignore the rest, and fine patterns turn into coarse ones that were never there (*aliasing*). The
# remedy is to stretch the kernel by the factor $s$, so that all old pixels have a say:
#
# $$w_{ij} \propto k\!\left(\frac{j + \frac12 - c_i}{\max(s, 1)}\right).$$
#
# That is the line with `wide` above. For enlarging it changes nothing.

# %%
down, across = np.mgrid[:112, :112] - 55.5
rings = 0.5 + 0.5 * np.cos(
    np.pi * (down**2 + across**2) / 112
)  # the farther out, the finer: 2 pixels a ring at the edge
shrunk = {
    "nearest": rings[2::4, 2::4],
    "bilinear, not antialiased": (w := weights(112, 28, triangle, antialias=False)) @ rings @ w.T,
    "bilinear, antialiased": (w := weights(112, 28, triangle)) @ rings @ w.T,
}
for antialias in (False, True):
    looked_at = np.count_nonzero(weights(112, 28, triangle, antialias)[14])
    print(f"antialias={antialias}: a new pixel looks at {looked_at} of the old pixels in a row")
outside = np.hypot(*(np.mgrid[:28, :28] - 13.5)) > 9
for name, image in shrunk.items():
    print(f"{name:26} deviation where the rings are too fine for 28 pixels: {image[outside].std():.3f}")

# %%
figure, axes = new_figure(1, 4, width=7.8, height=2.4)
for axis, (name, image) in zip(axes, {"112 x 112": rings, **shrunk}.items()):
    picture(axis, image, name.replace(", ", ",\n"), cmap="gray", vmin=0, vmax=1)
show(
    figure,
    "Figure 1.4. Rings that get finer outwards, shrunk to 28 x 28. Only the circle in the middle is coarse enough to "
    "be shown with so few pixels. Without antialiasing, rings appear elsewhere that are not in the picture.",
    "Four squares: concentric rings that get finer towards the edge; the same at a quarter of the size by nearest "
    "and by plain bilinear, both full of false sets of rings; and by antialiased bilinear, with rings in the middle "
    "fading into even grey.",
)

# %% [markdown]
# Pillow, and with it transformers, always antialiases. `torch.nn.functional.interpolate` does so only when told
# (`antialias=True`), and it changes something else along the way: its bicubic kernel has $a = -0.5$ with antialiasing,
# as in Pillow, but $a = -0.75$ without.

# %%
large = torch_values["large"]
for name, kernel in {"bilinear": triangle, "bicubic": cubic}.items():
    ours = weights(17, 6, kernel) @ large @ weights(23, 7, kernel).T  # (17, 23) -> (6, 7)
    agree(f"{name}, 17 x 23 to 6 x 7", ours, torch_values[f"shrunk:{name}"])


def other_cubic(t):
    return cubic(t, a=-0.75)


plain = weights(17, 6, other_cubic, antialias=False) @ large @ weights(23, 7, other_cubic, antialias=False).T
agree(
    "inner part, not antialiased, a = -0.75",
    plain[1:-1, 1:-1],
    torch_values["shrunk, not antialiased:bicubic"][1:-1, 1:-1],
)

# %% [markdown]
# (At the border that variant repeats the edge pixel instead of dividing by the sum of the weights, so only the inner
# part is compared.)
#
# ### The package's own: Pillow, in eight bits
#
# npformer leaves this one step to Pillow, because the recipes ask for what Pillow does, and Pillow has a habit that
# formulas do not show: it works in whole numbers. `resize` below is a thin coat around it; most of its lines say what
# happens to pictures that are not `uint8`.

# %%
source(resize)

# %% [markdown]
# Here is Pillow's arithmetic by hand. The weights are rounded to multiples of $2^{-22}$; each row is resized first,
# and the result is rounded to 0..255 *before* the columns follow (the other way round where the height shrinks more
# than the width). Rounding twice is part of the definition if you want the same bits.


# %%
def resize_as_pillow(image, height, width, kernel):
    """Resize whole numbers: (H, W) uint8 -> (height, width) uint8."""
    down = np.rint(weights(image.shape[0], height, kernel) * 2**22).astype(int)  # (H', H)
    across = np.rint(weights(image.shape[1], width, kernel) * 2**22).astype(int)  # (W', W)
    round_and_clip = lambda sums: np.clip((sums + 2**21) >> 22, 0, 255)  # noqa: E731
    once = round_and_clip(image.astype(int) @ across.T)  # (H, W')
    return round_and_clip(down @ once).astype(np.uint8)  # (H', W')


rows = []
for side in (224, 96, 11):
    for kernel, filter_number in [(triangle, BILINEAR), (cubic, BICUBIC)]:
        pillows = resize(grey[None], (side, side), filter_number)[0]
        assert np.array_equal(resize_as_pillow(grey, side, side, kernel), pillows)
        once = (weights(28, side, kernel) @ grey @ weights(28, side, kernel).T).clip(0, 255).round()
        rows.append([f"to {side} x {side}, {kernel.__name__}", "all", f"{np.mean(once == pillows):.1%}"])
table(["pixels equal to Pillow's, 28 x 28", "by hand", "rounded only once"], rows)

# %% [markdown]
# And the price of clarity, on a quarter of the boot, 14 x 14 to 28 x 28. The matrix products do the work of the loops
# a hundred times faster and more; Pillow keeps only the weights that are not zero, and wins for larger pictures too.

# %% tags=["timing"]
quarter = np.ascontiguousarray(grey[7:21, 7:21])
seconds = times(
    {
        "loops": lambda: resize_loops(quarter, 28, 28, triangle),
        "matrix products": lambda: weights(14, 28, triangle) @ quarter @ weights(14, 28, triangle).T,
        "resize (Pillow)": lambda: resize(quarter[None], (28, 28), BILINEAR),
    },
    rounds=3,
)
table(["14 x 14 to 28 x 28", "ms"], [[name, f"{1000 * value:.3f}"] for name, value in seconds.items()])

# %% [markdown]
# ## Crop: keeping the shape, losing the edge
#
# Photographs are rarely square, networks' inputs mostly are. There are two ways out. *Squash* the whole picture into
# the square: everything is seen, but a bottle may look like a jar. Or make the *shortest edge* fit and cut the middle
# out: shapes are true, but what stands at the edge is gone. EfficientFormer's published recipes do the latter, for L3
# and L7 with a shortest edge of 256 and a crop of 224, which also cuts a rim off square pictures; EfficientNet's and
# SwiftFormer's squash.

# %%
source(shortest_edge_size, center_crop)

# %%
for height, width, edge in [(480, 640, 224), (480, 640, 256), (427, 640, 256)]:
    new = shortest_edge_size(height, width, edge)
    kept = 224 * 224 / (new[0] * new[1])
    print(f"{height} x {width}, shortest edge {edge}: {new[0]} x {new[1]}; a crop of 224 x 224 keeps {kept:.0%} of it")

# %%
three = np.concatenate([motley[..., channel] for channel in range(3)], axis=1)[None]  # (1, 28, 84): C, H, W
squashed = resize(three, (224, 224))
kept_shape = resize(three, shortest_edge_size(28, 84, 224))
figure, axes = new_figure(1, 3, width=7.6, height=1.75, gridspec_kw={"width_ratios": [3, 1, 1]})
picture(axes[0], kept_shape[0], f"shortest edge 224: {kept_shape.shape[1]} x {kept_shape.shape[2]}", cmap="gray")
axes[0].add_patch(Rectangle((224, 1), 223, 221, fill=False, color="#ff8c42", lw=2, ls="--"))
picture(axes[1], center_crop(kept_shape, (224, 224))[0], "its centre crop", cmap="gray")
picture(axes[2], squashed[0], "squashed", cmap="gray")
show(
    figure,
    "Figure 1.5. A wide picture becomes 224 x 224: shortest edge and crop keep the sneaker's shape and lose its "
    "neighbours, squashing keeps all three and makes them thin.",
    "Left, a T-shirt, a sneaker and a bag in a row with a dashed square around the sneaker; then the crop, the "
    "sneaker alone; then all three squeezed into a square, a third as wide as they should be.",
    dpi=90,
)

# %% [markdown]
# ## Rescale and normalise
#
# Now the picture leaves whole numbers. Rescaling multiplies by $1/255$; normalising makes each channel $c$ comparable
# with what the network was trained on:
#
# $$\hat x_c = \frac{x / 255 - \mu_c}{\sigma_c}.$$
#
# $\mu$ and $\sigma$ are the mean and the standard deviation of the *training* pictures, per channel, measured once;
# they are not those of the picture at hand. For ImageNet they are 0.485, 0.456, 0.406 and 0.229, 0.224, 0.225, numbers
# that you will meet in nearly every vision model. Why at all? Gradient descent learns faster on inputs of mean 0 and
# deviation 1. And once the weights are learned, there is no choice any more: they fit what they saw.

# %%
print("ImageNet:", npformer.image.IMAGENET_MEAN, npformer.image.IMAGENET_STD)
test_pictures, classes = pictures()
measured = test_pictures / 255
print(f"our 500 test pictures: mean {measured.mean():.3f}, standard deviation {measured.std():.3f}")
print("the 60,000 that the models were trained on: mean 0.286, standard deviation 0.353 (their recipes)")
source(rescale, normalize)

# %% [markdown]
# **Predict, then run.** `rescale` takes the product in float64 and only then rounds to float32, an odd precaution. If
# it multiplied float32 numbers by float32's $1/255$, how many of the 256 possible values would come out differently?

# %%
levels = np.arange(256, dtype=np.uint8)
hasty = levels.astype(np.float32) * np.float32(1 / 255)
print(
    "different:",
    np.sum(hasty != rescale(levels, 1 / 255)),
    "by at most",
    f"{np.abs(hasty - rescale(levels, 1 / 255)).max():.0e}",
)

# %% [markdown]
# About half of them, in the last bit. It will never change a prediction; it would change every bit-for-bit comparison,
# and those are worth keeping, because a comparison that must be exact needs no judgement.
#
# ### EfficientNet divides twice
#
# EfficientNet's recipe has two switches more:
#
# $$\hat x_c = \Big(\frac{x}{255} - o - \mu_c\Big) \Big/ \sigma_c \;\Big/ \sigma_c^{\,t}, \qquad o = 1 \text{ if
# rescale\_offset else } 0, \quad t = 1 \text{ if include\_top else } 0.$$
#
# `rescale_offset` (off in the published recipes) subtracts 1 after scaling, which with a factor of $1/127.5$ gives
# $-1$ to $1$. `include_top`, named after something else altogether in Keras, is on, and divides by the standard
# deviation *a second time*. It reproduces the Keras models, where one layer divides by the square root of a stored
# variance, and what is stored as variance is in fact the deviation, 0.229 for red; a further layer makes up for it. So
# a recipe with the true deviation in it would divide by its square. The published ones carry the square roots instead:

# %%
stds = np.sqrt(npformer.image.IMAGENET_STD)
print("published image_std:", stds.round(4), " squared:", (stds**2).round(3))
published = EfficientNetImageProcessor(size=224, image_mean=npformer.image.IMAGENET_MEAN, image_std=stds)
usual = EfficientNetImageProcessor(
    size=224, image_mean=npformer.image.IMAGENET_MEAN, image_std=npformer.image.IMAGENET_STD, include_top=False
)
difference = np.abs(published(motley).pixel_values[0] - usual(motley).pixel_values[0]).max()
print(f"two divisions by the root, one by the whole: at most {difference:.0e} apart")
assert difference < 1e-6
with_offset = EfficientNetImageProcessor(rescale_factor=1 / 127.5, rescale_offset=True, do_normalize=False)
values = with_offset(motley, include_top=False).pixel_values[0]
print(f"with rescale_offset and a factor of 1 / 127.5: from {values.min():g} to {values.max():g}")

# %% [markdown]
# That is why `efficientnet-fashion` has 0.594 in its recipe where the other two have 0.353: it is the square root.
#
# SwiftFormer uses the processor of the vision transformer, `ViTImageProcessor`: bilinear, squashed, no crop; if its
# recipe names no mean and deviation they are 0.5 each, not ImageNet's. EfficientNet's own class default is *nearest*.
# Defaults of classes are a poor guide; the recipe of the weights decides.
#
# ## Channels first, and a batch
#
# Pillow keeps a picture as `(H, W, C)`: the three colours of a pixel side by side. PyTorch's convolutions, and ours,
# want `(C, H, W)`: three whole planes. That is a change of axes, `np.moveaxis(image, -1, 0)`, and no change of shape:
# `reshape` would give the same *shape*, cutting the same row of numbers at other places.

# %%
planes = np.moveaxis(motley, -1, 0)  # (H, W, C) -> (C, H, W)
scrambled = motley.reshape(3, 28, 28)  # the same shape, another picture
print("the first two pixels of row 14, as they lie in memory:", motley[14].ravel()[:6])
figure, axes = new_figure(1, 7, width=7.8, height=1.45)
picture(axes[0], motley, "(H, W, C)")
for channel in range(3):
    picture(axes[1 + channel], planes[channel], f"moveaxis {channel}", cmap="gray")
    picture(axes[4 + channel], scrambled[channel], f"reshape {channel}", cmap="gray")
show(
    figure,
    "Figure 1.6. The picture of three clothes in three colours; its channels by `moveaxis`; and what `reshape` makes "
    "of the same numbers: each plane holds all three channels of a third of the rows, side by side.",
    "A colourful overlay of T-shirt, sneaker and bag. Then the three as grey planes. Then three planes of scrambled, "
    "striped fragments in which parts of all three are interleaved.",
)

# %% [markdown]
# OpenCV reads colours as blue, green, red. Then red lands where blue was expected, and `image[..., ::-1]` puts it
# right. On the grey pictures of this lesson no network could notice: three equal channels stay equal in any order.
#
# A batch, at last, is a stack of prepared pictures, `np.stack(list_of_chw)`, and that is what every model takes: `(B,
# 3, H, W)`, float32.
#
# ## All of it together
#
# By hand for EfficientFormer-L1's input of 224 x 224, watching the numbers at each step:

# %%
processor = AutoImageProcessor.from_pretrained("efficientformer-fashion")
steps = {"decoded": boot, "channels first": np.moveaxis(boot, -1, 0)}
steps["resized"] = resize(steps["channels first"], (224, 224), BICUBIC)
steps["cropped"] = center_crop(steps["resized"], (224, 224))
steps["rescaled"] = rescale(steps["cropped"], 1 / 255)
steps["normalised"] = normalize(steps["rescaled"], processor.image_mean, processor.image_std)
steps["batch"] = np.stack([steps["normalised"]])
table(
    ["step", "shape", "dtype", "min", "mean", "max"],
    [[k, str(v.shape), str(v.dtype), *(f"{n:.3f}" for n in (v.min(), v.mean(), v.max()))] for k, v in steps.items()],
)
assert np.array_equal(steps["batch"], processor(boot, return_tensors="np").pixel_values)

# %% [markdown]
# The processors of npformer do these steps with one call, and give what those of transformers give, to the last bit.
# To show that without shipping large arrays, transformers' result was recorded as its SHA-256 digest, 32 bytes that
# differ wholly if a single bit of the array does; and a sample of its values, so that a difference could be found.

# %%
IMAGENET = {"image_mean": npformer.image.IMAGENET_MEAN, "image_std": npformer.image.IMAGENET_STD}
colours = torch_values["colours"]  # (37, 53, 3) random colours
prepared = {
    "EfficientFormer-L3": EfficientFormerImageProcessor(size={"shortest_edge": 256})(colours, return_tensors="np"),
    "EfficientNet-B0": published(colours, return_tensors="np"),
    "SwiftFormer-XS": ViTImageProcessor(**IMAGENET)(colours, return_tensors="np"),
}
for name in ("efficientformer-fashion", "efficientnet-fashion", "swiftformer-fashion"):
    prepared[name] = AutoImageProcessor.from_pretrained(name)(boot, return_tensors="np")
for name, inputs in prepared.items():
    values = inputs.pixel_values
    agree(f"{name} {values.shape}, every ninth pixel", values[:, :, ::9, ::9], torch_values[f"{name}:sampled"], 0)
    assert hashlib.sha256(values.tobytes()).digest() == torch_values[f"{name}:sha256"].tobytes()
print("and all six digests, 32 bytes each, are the same")

# %% [markdown]
# ## What a mistake costs
#
# Now break one step at a time and count. The network is `efficientnet-fashion`; the pictures are 300 it was not
# trained on, 30 of each class. Of 300 answers a share $p$ right has a standard error of
#
# $$\sqrt{p\,(1 - p) / 300},$$
#
# which is a bit more than one percentage point when $p$ is near 94 %, and almost three when it is near 50 %. A
# difference of one point between two bars below means nothing, then.
#
# How was it trained? On mirrored pictures, and on pictures shifted by up to 7 of the 96 pixels, then on centred ones:

# %%
name = "efficientnet-fashion"
for cycle in json.loads((model_directory(name) / "training.json").read_text())["cycles"]:
    print(cycle)
model = npformer.get_model(name, pretrained=True, fused=True)
processor = AutoImageProcessor.from_pretrained(name)
count = 300
assert (np.bincount(classes[:count]) == 30).all()
clothes = [np.repeat(one[..., None], 3, axis=-1) for one in test_pictures[:count]]  # (28, 28, 3) each


def prepare(**changes):
    """All pictures through the right recipe, but for the changes: (B, 3, 96, 96)."""
    return processor(clothes, return_tensors="np", **changes).pixel_values


def predict(pixel_values):
    batches = np.split(np.ascontiguousarray(pixel_values, np.float32), 12)
    return np.concatenate([model(batch).logits.argmax(-1) for batch in batches])


right = prepare()
assert np.array_equal(right, right[:, ::-1])  # grey: the order of the channels cannot matter

# %%
black = right.min()  # what a black pixel has become


def shifted(pixels):
    moved = np.full_like(right, black)
    moved[..., pixels:] = right[..., :-pixels]
    return moved


def cropped_closer():
    chw = [resize(np.moveaxis(image, -1, 0), (128, 128)) for image in clothes]
    return np.stack([normalize(rescale(center_crop(image, (96, 96)), 1 / 255), 0.286, 0.353) for image in chw])


root_std = np.sqrt(npformer.image.IMAGENET_STD)
mistakes = {
    "none": lambda: right,
    "mirrored": lambda: right[..., ::-1],
    "nearest, not bicubic": lambda: prepare(resample=NEAREST),
    "shifted by 7 pixels": lambda: shifted(7),
    "enlarged to 128, cropped": cropped_closer,
    "mean and deviation 0.5": lambda: prepare(image_mean=0.5, image_std=0.5**0.5),
    "no second division": lambda: prepare(include_top=False),
    "only 64 x 64 pixels": lambda: prepare(size=64),
    "shifted by 24 pixels": lambda: shifted(24),
    "not normalised": lambda: prepare(do_normalize=False, include_top=False),
    "dark and light swapped": lambda: processor([255 - image for image in clothes], return_tensors="np").pixel_values,
    "not divided by 255": lambda: prepare(do_rescale=False),
    "ImageNet's mean and deviation": lambda: prepare(image_mean=npformer.image.IMAGENET_MEAN, image_std=root_std),
    "height and width swapped": lambda: right.swapaxes(2, 3),
    "divided by 255 twice": lambda: prepare(rescale_factor=1 / 255**2),
    "reshape, not moveaxis": lambda: np.moveaxis(right, 1, -1).reshape(right.shape),
}

# %% [markdown]
# **Predict, then run.** Three of the sixteen send the network down to guessing, about 10 % with ten classes. Two cost
# nothing that 300 pictures could show. Write down which, and where you expect *ImageNet's mean and deviation*, the
# most common slip of all: weights of one data set, numbers of another.

# %%
results, rows, noticed = {}, [], []
for mistake, make in mistakes.items():
    pixel_values = make()
    with warnings.catch_warnings(record=True) as caught:  # npformer's models look at their input, too
        warnings.simplefilter("always")
        said = predict(pixel_values)
    noticed += [mistake] if caught else []
    share, most = float(np.mean(said == classes[:count])), int(np.bincount(said).argmax())
    results[mistake] = (share, said, pixel_values[9, 1].copy())
    error = np.sqrt(share * (1 - share) / count)
    answer = f"{model.config.id2label[most]} ({np.mean(said == most):.0%})"
    moments = [round(float(pixel_values.mean()), 3), round(float(pixel_values.std()), 3)]
    rows.append([mistake, f"{share:.1%}", f"{error:.1%}", *moments, answer])
table(["mistake", "right", "error", "mean", "deviation", "most frequent answer"], rows)
print("noticed by the model itself:", ", ".join(noticed))
assert noticed == ["not normalised", "not divided by 255"]

# %%
figure, axis = new_figure(width=7.6, height=4.6)
names = list(results)[::-1]
shares = 100 * np.array([results[name][0] for name in names])
errors = np.sqrt(shares * (100 - shares) / count)
colours_of_bars = [COLOURS["green"] if name == "none" else COLOURS["blue"] for name in names]
axis.barh(names, shares, color=colours_of_bars, height=0.7)
axis.errorbar(shares, range(len(names)), xerr=errors, fmt="none", ecolor=COLOURS["ink"], capsize=2, lw=1)
for number, share in enumerate(shares):
    axis.text(share + errors[number] + 1, number, f"{share:.1f} %", va="center", fontsize=9)
axis.axvline(10, color=COLOURS["orange"], lw=1, ls="--")
axis.text(10.7, len(names) - 0.35, "guessing", color=COLOURS["orange"], fontsize=9)
axis.set(xlim=(0, 108), xlabel="right answers, % of 300 pictures", ylim=(-0.6, len(names) + 0.1))
axis.tick_params(axis="y", length=0)
show(
    figure,
    "Figure 1.7. One mistake at a time in the preparation of the same 300 pictures for `efficientnet-fashion`, and "
    "the share still recognised. The thin lines are one standard error to each side.",
    "A bar chart of accuracy for sixteen preparations. Correct, mirrored, nearest filter and a small shift all reach "
    "above 90 per cent; cropping closer and halves for mean and deviation about 80; other mistakes fall steadily, "
    "ImageNet's numbers to under 20, swapped axes, dividing twice and reshape to about 10.",
)

# %%
figure, axes = new_figure(2, 8, width=7.8, height=3.2)
for axis, (mistake, (share, _, image)) in zip(axes.flat, results.items()):
    picture(axis, image, fill(mistake, 14), cmap="gray", vmin=-0.9, vmax=2.1)
    axis.title.set_fontsize(8)
    axis.set_xlabel(f"{share:.0%}", fontsize=9)
show(
    figure,
    "Figure 1.8. What the network is given for one boot, second channel, all on the same scale of grey, and the share "
    "of right answers below. Much that costs dearly looks harmless to us.",
    "Sixteen small pictures of one ankle boot as prepared with each mistake: ordinary, mirrored, blocky, shifted, "
    "larger, of less contrast, inverted, a white silhouette, turned, all black, and a striped ghost of the boot; "
    "with the accuracy under each.",
    dpi=95,
)

# %% [markdown]
# What to take from it:
#
# - **The network forgives what it met in training.** Mirrored pictures and small shifts were in its lessons; a shift
#   of 24 pixels was not.
# - **Filters hardly matter here**, because these pictures are enlarged more than three times and hold no detail to
#   lose. When large photographs are shrunk it is different: see the rings above.
# - **Any size runs, one size is right.** Convolutions take 64 x 64 pixels without complaint, but the clothes are then
#   two thirds as large as the ones the filters were trained on.
# - **Statistics matter more than looks.** With ImageNet's mean and deviation we see the same picture with more
#   contrast. To the network the black background, a big part of every picture, has become another number. Batch
#   normalisation (Lesson 3) does not help: at inference it compares with stored statistics, not with the picture's
#   own.
# - **Broken input does not give random answers; it gives one.** Divided by 255 twice, all pictures look black and
#   nearly all get the same label. If a deployed model says the same thing all day, print the mean and deviation of its
#   input first.
# - **Most of it cannot be noticed from inside.** Values outside of any normalised range give themselves away, and
#   npformer's models warn of them: two mistakes of fifteen. transformers' models warn of none.
#
# Is *nearest* now worse than *bicubic*, or not? Both were tried on the same pictures, so look only at those where the
# two disagree: if the choice did not matter, each such picture would be a toss of a coin.

# %%
rows = []
for one in ("nearest, not bicubic", "mirrored", "enlarged to 128, cropped"):
    good, bad = (results[k][1] == classes[:count] for k in ("none", one))
    lost, won = int(np.sum(good & ~bad)), int(np.sum(~good & bad))
    rows.append([one, lost, won, round(100 * (won - lost) / count, 1), round(100 * np.sqrt(lost + won) / count, 1)])
table(["mistake", "pictures lost", "won", "difference in points", "its error"], rows)

# %% [markdown]
# The first two differences are about as large as their errors, so they say nothing; the third is several times as
# large. Comparing picture by picture is sharper than comparing two percentages: most pictures are easy under both, and
# drop out.
#
# ## Exercises
#
# ### Exercise 1.1: the shortest edge
#
# Write `new_size(height, width, edge)`: the size, as a tuple `(height, width)` of whole numbers, that a picture gets
# when its shorter side becomes `edge` and the other keeps the proportion, cut off to a whole number. `new_size(480,
# 640, 224)` is `(224, 298)`.


# %% tags=["exercise"]
def new_size(height, width, edge):
    """(height, width) after resizing: the shorter side is `edge`."""
    ...


# %% tags=["check"]
checks.new_size(new_size)

# %% [markdown]
# <details><summary>Hint</summary>
#
# The longer side is `edge` times longer over shorter. Which of the two is it? `int` cuts off.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def new_size(height, width, edge):
#     longer = int(edge * max(height, width) / min(height, width))
#     return (edge, longer) if height < width else (longer, edge)
# ```
#
# Cut off or rounded is one pixel of difference, and one pixel moves the crop, so all values change: bit-for-bit ports
# fail here.
#
# </details>
#
# ### Exercise 1.2: nearest
#
# Write `nearest(image, height, width)` for an image of shape `(H, W)`: every new pixel takes the old pixel in which
# its centre $(i + \tfrac12)\,H/H'$ falls, no weights at all. Use NumPy's indexing; loops are fine too. It must be
# equal to Pillow's.


# %% tags=["exercise"]
def nearest(image, height, width):
    """(H, W) -> (height, width), values unchanged."""
    ...


# %% tags=["check"]
checks.nearest(nearest)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Old pixel $j$ covers the ruler from $j$ to $j + 1$, so the place is cut off to a whole number, not rounded.
# `image[rows][:, columns]` picks rows, then columns.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def nearest(image, height, width):
#     rows = ((np.arange(height) + 0.5) * image.shape[0] / height).astype(int)
#     columns = ((np.arange(width) + 0.5) * image.shape[1] / width).astype(int)
#     return image[rows][:, columns]
# ```
#
# Without the half, the picture is shifted up and left by half a new pixel: PyTorch's `mode="nearest"` does that, and
# `mode="nearest-exact"` was added to do what Pillow does.
#
# </details>
#
# ### Exercise 1.3: back to a picture
#
# Write `to_picture(pixel_values, mean, std)`, the way back: from one prepared picture `(3, H, W)` in float32, with
# three means and three deviations, to `(H, W, 3)` in `uint8`. You will want it whenever you look at what a network was
# given.


# %% tags=["exercise"]
def to_picture(pixel_values, mean, std):
    """(3, H, W) float32 -> (H, W, 3) uint8, the exact whole numbers it was made from."""
    ...


# %% tags=["check"]
checks.to_picture(to_picture)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Undo the steps in reverse: times the deviation, plus the mean, times 255. `mean` and `std` need the shape `(3, 1, 1)`
# to meet the right axis. A float that should be 7 may be a little less.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def to_picture(pixel_values, mean, std):
#     mean, std = (np.reshape(numbers, (3, 1, 1)) for numbers in (mean, std))
#     fractions = pixel_values * std + mean
#     return np.moveaxis(np.rint(fractions * 255).clip(0, 255), 0, -1).astype(np.uint8)
# ```
#
# `astype(np.uint8)` cuts off: without `rint`, many pixels come back one too dark.
#
# </details>
#
# ### Exercise 1.4: one multiplication, one addition
#
# All of EfficientNet's arithmetic after resizing is, per channel, $x \cdot \text{scale} + \text{shift}$. Write
# `scale_and_shift(factor, mean, std, offset, top)` that returns the two numbers for one channel; `factor` is the
# rescale factor, `offset` and `top` are the two switches, true or false. A fast pipeline does exactly this.


# %% tags=["exercise"]
def scale_and_shift(factor, mean, std, offset, top):
    """(scale, shift) so that x * scale + shift is what the processor makes of a pixel x."""
    ...


# %% tags=["check"]
checks.scale_and_shift(scale_and_shift)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Write the formula of the section on EfficientNet with a single fraction bar: what does all of it get divided by, when
# `top` is true? The shift is what becomes of $x = 0$.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def scale_and_shift(factor, mean, std, offset, top):
#     divisor = std * std if top else std
#     return factor / divisor, -(mean + (1 if offset else 0)) / divisor
# ```
#
# The mean is divided twice too: the second division comes after it was taken off. With `offset`, the 1 is subtracted
# after the rescaling, so `factor` does not touch it.
#
# </details>
#
# ### Exercise 1.5: the whole way for EfficientFormer-L3
#
# Write `prepare_l3(image)`: from `(H, W, 3)` in `uint8`, of any size, to `(1, 3, 224, 224)` in float32, as the
# published recipe of EfficientFormer-L3 says: shortest edge 256, bicubic, centre crop 224, rescale, normalise with
# ImageNet's numbers (`npformer.image.IMAGENET_MEAN`, `IMAGENET_STD`). The steps are imported above; the check compares
# bits.


# %% tags=["exercise"]
def prepare_l3(image):
    """(H, W, 3) uint8 -> (1, 3, 224, 224) float32."""
    ...


# %% tags=["check"]
checks.prepare_l3(prepare_l3)

# %% [markdown]
# <details><summary>Hint</summary>
#
# The steps take `(C, H, W)`, so the axes move first. `shortest_edge_size` gives the size for `resize`. The order of
# the steps is that of this lesson.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def prepare_l3(image):
#     x = np.moveaxis(image, -1, 0)
#     x = resize(x, shortest_edge_size(*x.shape[1:], 256), BICUBIC)
#     x = center_crop(x, (224, 224))
#     x = normalize(rescale(x, 1 / 255), npformer.image.IMAGENET_MEAN, npformer.image.IMAGENET_STD)
#     return x[None]
# ```
#
# Crop before resizing, or normalise before resizing, and the numbers differ: of these steps only rescaling and
# cropping could trade places.
#
# </details>
#
# ## Further reading
#
# - The code: [`picture.py`](../npformer/picture.py) for the steps, [`image.py`](../npformer/image.py) for the
#   processors.
# - Tan and Le, [EfficientNet](https://arxiv.org/abs/1905.11946), section 3: the resolution of the input as one of
#   three things to scale; B0 takes 224 x 224 pixels, B7 600 x 600.
# - Li et al., [EfficientFormer](https://arxiv.org/abs/2206.01191), section 5, and Shaker et al.,
#   [SwiftFormer](https://arxiv.org/abs/2303.15446), section 4: trained and tested at 224 x 224.
# - Keys, "Cubic convolution interpolation for digital image processing", IEEE Transactions on Acoustics, Speech, and
#   Signal Processing, 1981: where the cubic kernel comes from, and why a = -1/2.
# - Parmar, Zhang and Zhu, [On Aliased Resizing and Surprising Subtleties in GAN
#   Evaluation](https://arxiv.org/abs/2104.11222): how much the choice of a resizing library changes published numbers.
# - Touvron et al., [Fixing the train-test resolution discrepancy](https://arxiv.org/abs/1906.06423): why objects look
#   larger in training than in testing, and what to do about it.
# - Xiao, Rasul and Vollgraf, [Fashion-MNIST](https://arxiv.org/abs/1708.07747): the pictures.
#
# Next: [2. Convolution](02_convolution.ipynb).
