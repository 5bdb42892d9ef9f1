# %% [markdown]
# # 6. Attention with learned biases
#
# After this lesson you can compute attention by hand and in NumPy, say why the scores are divided by a square root,
# and build the layer that ends every EfficientFormer: eight heads, and a learned bias for each offset between two
# tokens. You will also look into a trained network and find out what its heads look at, and how much the bias matters
# to it.
#
# You need: lessons 1 to 5. Time: about 25 minutes.

# %%
import numpy as np
from course import COLOURS, SERIES, agree, new_figure, picture, pictures, recorded, show, source, table, times
from course.checks import lesson_06 as checks

import npformer
from npformer import ops
from npformer.models.efficientformer import EfficientFormerConfig, EfficientFormerSelfAttention

# %% [markdown]
# ## Why a token should ask
#
# The pooling mixer of lesson 4 lets a pixel see its neighbours, and the same ones whatever the picture shows. Two
# corners of a map meet only after many blocks, each of which carries news one pixel further. Let us count them: one
# bright pixel in a corner of a 7 x 7 map, and the mixer applied until the opposite corner has heard of it.

# %%
grid = np.zeros((1, 1, 7, 7))  # (B, C, H, W)
grid[0, 0, 0, 0] = 1
blocks = 0
while grid[0, 0, 6, 6] == 0:
    grid = grid + ops.pool_mixer(grid)
    blocks += 1
print(f"blocks until the opposite corner hears of it: {blocks}")
assert blocks == 6

# %% [markdown]
# Six blocks for a map of seven pixels, and what arrives has been averaged on the way. **Attention** needs one step.
# The pixels become *tokens*, rows of a matrix; every token asks every other one how much it has to say, and takes a
# mean of what they offer, weighted by the answers. Who is asked how much depends on what the picture shows.
#
# ## Queries, keys and values
#
# Each token makes three vectors of itself, by three matrix products: a **query**, what it looks for; a **key**, what
# it can be found by; a **value**, what it gives to those who ask. The product of one token's query with another's key
# is a **score**. Softmax turns a row of scores into probabilities, and those weigh the values.
#
# Here are four tokens and vectors of two numbers. Token 0 looks for a large first number in the key, token 1 for a
# large second one, token 2 for both, and token 3 for nothing: its query is zero.

# %%
query = np.array([[3.0, 0], [0, 3], [2, 2], [0, 0]])  # (N, d): N = 4 tokens, d = 2
key = np.array([[2.0, 0], [0, 2], [1, 1], [-2, 0]])  # (N, d)
value = np.array([[8.0, 0], [0, 8], [4, 4], [0, 0]])  # (N, e), here e = 2
scores = query @ key.T / np.sqrt(2)  # (N, N): row = who asks, column = who is asked
probs = ops.softmax(scores, dim=-1)  # (N, N): every row sums to 1
context = probs @ value  # (N, e): what each token takes home


# %%
def matrix(axes, values, title, digits=1, **options):
    """Draw a matrix with its numbers in the cells."""
    picture(axes, values, title, **{"cmap": "Blues", **options})
    low, high = options.get("vmin", values.min()), options.get("vmax", values.max())
    for (row, column), number in np.ndenumerate(values):
        dark = number > low + 0.6 * (high - low)
        axes.text(
            column, row, f"{number:.{digits}f}", ha="center", va="center", color="white" if dark else COLOURS["ink"]
        )


figure, axes = new_figure(2, 3, width=6.6, height=4.6, gridspec_kw={"width_ratios": [2, 4, 4]})
matrix(axes[0, 0], query, "query (N, d)", 0)
matrix(axes[0, 1], key.T, "key, transposed (d, N)", 0)
matrix(axes[0, 2], scores, "scores = query key$^T$ / $\\sqrt{2}$")
matrix(axes[1, 0], value, "value (N, e)", 0)
matrix(axes[1, 1], probs, "probabilities (N, N)", 2, vmin=0, vmax=1)
matrix(axes[1, 2], context, "context = probabilities value")
for panel in axes[:, 0]:
    panel.set_yticks(range(4), [f"token {i}" for i in range(4)], fontsize=9)
show(
    figure,
    "Figure 6.1. Attention over four tokens. Token 0 finds the key that points its way, its own, and takes most of "
    "that value; token 3 asks for nothing and gets the plain mean.",
    "Six small matrices with their numbers: queries, transposed keys, scores, values, probabilities and context. "
    "In the probabilities the last row is 0.25 four times, in the context it is the mean of all values, 3 and 3.",
)

# %% [markdown]
# Read one row of the probabilities. Token 0 gives most of its attention to itself, some to token 2, whose key points
# half its way, and next to nothing to token 3. The last row is the useful extreme: scores that are all equal make
# attention a plain mean over the whole picture.
#
# ## The formula
#
# A batch of pictures, and several **heads** that ask different questions side by side, are two more axes in front:
#
# $$\text{context} = \text{softmax}\!\left(\frac{Q K^\top}{\sqrt d} + b\right) V$$
#
# | letter | shape | meaning |
# | --- | --- | --- |
# | $Q$, $K$ | (B, h, N, d) | queries and keys: h heads, N tokens, d numbers each |
# | $V$ | (B, h, N, e) | values; e need not equal d |
# | $b$ | (h, N, N) | a learned bias for each head and pair of tokens; the same for every picture |
# | scores and probabilities | (B, h, N, N) | row: who asks; column: who is asked |
# | context | (B, h, N, e) | the weighted means |
#
# Written out as loops, it is short:


# %%
def attention_loops(query, key, value, bias):
    """(B, h, N, d) twice, (B, h, N, e), (h, N, N) -> (B, h, N, e)"""
    batch, heads, tokens, width = query.shape
    context = np.zeros_like(value)
    for b in range(batch):
        for h in range(heads):
            for i in range(tokens):  # who asks
                scores = [query[b, h, i] @ key[b, h, j] / width**0.5 + bias[h, i, j] for j in range(tokens)]
                largest = max(scores)  # exp(score - largest): the same quotient, and exp never overflows
                weights = [np.exp(score - largest) for score in scores]
                for j in range(tokens):  # who is asked
                    context[b, h, i] += weights[j] / sum(weights) * value[b, h, j]
    return context


# %% [markdown]
# And here is the package's own. Both products with the loops over tokens inside are matrix products, so what remains
# is five lines. It also returns the probabilities, for we shall want to look at them. `tap` is how an observer gets to
# see and replace values inside; more of that below.

# %%
source(ops.biased_attention)

# %% [markdown]
# Is it right? PyTorch has the same function, `torch.nn.functional.scaled_dot_product_attention`, where our bias goes
# by the name of `attn_mask`. What it made of random queries, keys, values and biases is recorded beside this notebook.

# %%
torch_values = recorded(6)
four = [torch_values[name] for name in ("query", "key", "value", "bias")]
ours, _ = ops.biased_attention(*four)
agree("ops.biased_attention", ours, torch_values["context"])
agree("loops", attention_loops(*four), torch_values["context"])

# %% [markdown]
# ## Why divide by the square root of d
#
# A score is a sum of d products. If the numbers in queries and keys are independent with mean 0 and deviation 1, each
# product has deviation 1 too, and a sum of d of them has deviation $\sqrt d$. Wider heads would mean larger scores,
# and softmax is not indifferent to size: large scores make it put everything on one token. The division takes this
# out.

# %%
rng = np.random.default_rng(0)
widths = [2, 4, 8, 16, 32, 64, 128, 256]
spread, largest = {}, {"divided": [], "not divided": []}
for width in widths:
    q, k = rng.standard_normal((2, 400, 49, width))  # 400 times 49 tokens
    dots = q @ k.swapaxes(-1, -2)  # (400, 49, 49)
    spread[width] = dots.std()
    largest["not divided"].append(ops.softmax(dots).max(axis=-1).mean())
    largest["divided"].append(ops.softmax(dots / np.sqrt(width)).max(axis=-1).mean())
table(["d", "deviation of q . k", "square root of d"], [[w, f"{spread[w]:.1f}", f"{w**0.5:.1f}"] for w in widths])

# %%
figure, axes = new_figure(1, 2, width=7.5, height=2.7, gridspec_kw={"width_ratios": [3, 2]})
for name, colour in zip(largest, SERIES, strict=False):
    axes[0].plot(widths, largest[name], "o-", color=COLOURS[colour], markersize=4)
    axes[0].text(300, largest[name][-1], name, color=COLOURS[colour], va="center")
axes[0].axhline(1 / 49, color=COLOURS["grey"], linewidth=1, linestyle=":")
axes[0].text(2, 1 / 49 + 0.01, "spread evenly: 1/49", color=COLOURS["grey"], fontsize=8)
axes[0].set_xscale("log", base=2)
axes[0].set(xlabel="width of a head, d", ylabel="largest of 49 probabilities", ylim=(0, 1))
axes[0].set_xticks(widths, widths)
one = rng.standard_normal((2, 49, 64))
dots = one[0, 0] @ one[1].T
axes[1].bar(range(49), np.sort(ops.softmax(dots))[::-1], color=COLOURS["orange"], label="not divided")
axes[1].bar(range(49), np.sort(ops.softmax(dots / 8))[::-1], color=COLOURS["blue"], width=0.5, label="divided by 8")
axes[1].set(xlabel="token, most asked first", ylabel="probability, d = 64")
axes[1].legend(frameon=False)
show(
    figure,
    "Figure 6.2. Without the division softmax saturates as heads grow wider (left): at d = 64 a random token already "
    "puts most of its attention on one other (right, one row of probabilities).",
    "Left: the mean of the largest probability among 49 rises with d from about 0.2 to above 0.9 where scores are not "
    "divided, and stays between 0.1 and 0.2 where they are. Right: 49 sorted probabilities at d = 64; undivided, "
    "two tokens take everything, divided, all get some.",
)

# %% [markdown]
# A saturated softmax is bad twice over. It copies one token where it could mix many, and it stops learning: where a
# probability is 1 or 0, a small change of the scores changes nothing, so no gradient comes back. (Trained networks may
# still make their scores large, where they want to be sure; but they should not have to start there.)
#
# ## Heads, and the shapes of EfficientFormer-L1
#
# One set of queries asks one kind of question. EfficientFormer-L1 has eight heads, each with a query and a key of 32
# numbers and a value four times as wide, 128. All of them come out of a single linear layer, `qkv`, and lie side by
# side: query, key and value of head 0, then of head 1, and so on. Let us watch the layer at work, with random weights,
# on the 49 tokens of a 7 x 7 map.

# %%
config = EfficientFormerConfig()  # L1's settings are the defaults
layer = EfficientFormerSelfAttention(config)
rng = np.random.default_rng(1)
for name, array in layer.state_dict().items():
    if name != "attention_bias_idxs":
        array[...] = rng.standard_normal(array.shape) / np.sqrt(array.shape[-1])
tokens = rng.standard_normal((1, 49, 448)).astype(np.float32)
trace = npformer.record(layer, tokens)
table(
    ["value", "axes", "shape"], [[name or "result", trace.layouts[name], value.shape] for name, value in trace.items()]
)
heads, d, e = layer.num_heads, layer.key_dim, layer.value_dim
assert (heads, d, e) == (8, 32, config.attention_ratio * 32)
assert trace["qkv"].shape[-1] == heads * (2 * d + e) == 1536

# %% [markdown]
# In order: `qkv` makes 1536 numbers of each token's 448, the heads are parted, scores and probabilities are 49 x 49
# for each head, the contexts of all heads are laid side by side again (8 x 128 = 1024), and `projection` mixes
# them back to 448. Here is the whole layer:

# %%
source(EfficientFormerSelfAttention.forward)

# %% [markdown]
# ## Tokens have no order
#
# Look again at the formula without $b$. Nothing in it knows that token 8 lies below token 1. **Predict, then run:** if
# the bias is zero and we shuffle the 49 tokens before the layer, what happens to the 49 results?

# %%
shuffle = np.random.default_rng(2).permutation(49)
without = EfficientFormerSelfAttention(config).load_state_dict(layer.state_dict())
without.attention_biases = np.zeros_like(layer.attention_biases)
for name, some in (("without bias", without), ("with bias", layer)):
    result, shuffled = some(tokens)[0], some(tokens[:, shuffle])[0]
    difference = np.abs(shuffled - result[:, shuffle]).max() / np.abs(result).max()
    verdict = "by rounding alone" if difference < 1e-5 else "a lot"
    print(f"{name}: shuffled results differ from results of shuffled tokens {verdict}")
    assert (difference < 1e-5) == (name == "without bias")

# %% [markdown]
# Without the bias the results are shuffled in the same way and are otherwise the same: attention is *equivariant* to
# permutations. It sees a bag of tokens, no picture. With the bias, a place matters.
#
# ## A learned bias for each offset
#
# Many transformers add a vector to each token that says where it stands. EfficientFormer follows LeViT and adds a
# number to each score instead, which depends on how far the two tokens are apart: on $|\Delta y|$ rows and $|\Delta
# x|$ columns. On a 7 x 7 grid both run from 0 to 6, so a head has a table of 49 numbers to learn, instead of one for
# each of the 49 x 49 = 2401 pairs. The numbers do not depend on the picture.
#
# The table is stored as a row of 49, and an index says which entry belongs to which pair:

# %%
source(ops.attention_bias_index)

# %%
index = ops.attention_bias_index(7)  # (N, N), N = 49
print(f"{index.shape} pairs, {index.size} in all, share {len(np.unique(index))} numbers")
offsets = np.arange(49).reshape(7, 7)  # entry number of each offset
token = 2 * 7 + 1  # the token in row 2, column 1

figure, axes = new_figure(1, 3, width=9, height=3.4)
matrix(axes[0], offsets, "table: entry of each offset", 0)
axes[0].set(xlabel="$|\\Delta x|$", ylabel="$|\\Delta y|$")
axes[0].set_xticks(range(7), range(7))
axes[0].set_yticks(range(7), range(7))
picture(axes[1], index, "index (49, 49)")
axes[1].set(xlabel="token asked", ylabel="token asking")
axes[1].set_xticks(range(0, 49, 7), range(0, 49, 7))
axes[1].set_yticks(range(0, 49, 7), range(0, 49, 7))
matrix(axes[2], index[token].reshape(7, 7), f"row {token} of the index, as a map", 0, vmax=48)
axes[2].plot(1, 2, "s", color=COLOURS["orange"], markersize=22, fillstyle="none", markeredgewidth=3)
show(
    figure,
    "Figure 6.3. Left: the 49 entries of one head's table, by offset. Middle: which entry each pair of tokens uses. "
    "Right: the entries that one token (marked) uses to ask the 49 places of the map; left and right, up and down are "
    "treated alike.",
    "Left: a 7 by 7 table numbered 0 to 48 row by row. Middle: a 49 by 49 matrix in blocks of 7 by 7, symmetric, "
    "dark along the diagonal and bright in the far corners. Right: a 7 by 7 map of entry numbers with 0 at the marked "
    "token in row 2, column 1, and the same numbers to both sides of it.",
)

# %% [markdown]
# In NumPy, one line spreads the tables over all pairs: `table[:, index]` picks entry `index[p, q]` for every head and
# pair, (h, 49) to (h, 49, 49). The layer does it at each call, so the bias always belongs to the weights it has now.
#
# Four things are worth checking, because ports get them wrong.
#
# **The order of the entries.** transformers numbers the offsets in a dictionary, in the order it meets them. It meets
# those of token 0 first, which are all there are, row by row; hence our closed form.
#
# **Transposing the index.** **Predict, then run:** does it matter whether rows or columns of the index stand for the
# token that asks?
#
# **Transposing the table.** And does it matter if someone mixes up $\Delta y$ and $\Delta x$, and stores the 7 x 7
# table transposed?
#
# **Forgetting the absolute value.** What would `dy * 7 + dx` do?

# %%
met = {}
for p in range(49):
    for q in range(49):
        offset = (abs(p // 7 - q // 7), abs(p % 7 - q % 7))
        met.setdefault(offset, len(met))
        assert index[p, q] == met[offset]
print("entries numbered in the order they are met: same index")
print("index transposed: same index:", (index == index.T).all())
transposed = offsets.T.reshape(-1)[index]  # as if the table had been stored the other way round
print(f"table transposed: {np.mean(transposed != index):.1%} of the pairs get another offset's bias")
y, x = np.divmod(np.arange(49), 7)
signed = (y[:, None] - y) * 7 + (x[:, None] - x)
print(f"absolute values forgotten: entries from {signed.min()} to {signed.max()}")
wrapped = offsets.reshape(-1)[signed]  # no error: NumPy counts negative entries from the end
print(f"  wrong for {np.mean(wrapped != index):.1%} of the pairs, without an error")
assert index[0].tolist() == list(range(49))
assert (index == index.T).all()

# %% [markdown]
# Transposing the index is harmless: an absolute offset is the same from both ends. Transposing the table is not,
# unless the table happens to be symmetric, as one full of zeros is. (That is why our recorded values come from random
# tables: freshly initialised ones are zero, and any index passes.) Forgetting the absolute value
# goes unnoticed too: NumPy counts negative entries from the end, and two pairs in three get some other offset's bias.
#
# *Signed* offsets are a fair choice too, and other transformers make it: a head could then tell left from right, for a
# table of 13 x 13 numbers. EfficientFormer's bias knows distance in rows and in columns, but no direction.

# %%
print(f"signed offsets on a 7 x 7 grid: {len({(a, b) for a in range(-6, 7) for b in range(-6, 7)})} entries a head")

# %% [markdown]
# ## The layer beside PyTorch's
#
# transformers' `EfficientFormerSelfAttention`, with random weights of order one, on a small configuration: a 5 x 5
# grid, three heads. Its module and ours have the same names for the same arrays, so its weights load as they are.

# %%
small = EfficientFormerConfig(
    depths=[1], hidden_sizes=[10], downsamples=[False], dim=10, key_dim=4, num_attention_heads=3, attention_ratio=2,
    resolution=5, num_meta3d_blocks=1,
)  # fmt: skip
twin = EfficientFormerSelfAttention(small).astype(np.float64)
twin.load_state_dict(
    {name.removeprefix("layer."): array for name, array in torch_values.items() if name.startswith("layer.")}
)
result, probabilities = twin(torch_values["tokens"])
agree("the layer's result", result, torch_values["out"])
agree("its probabilities", probabilities, torch_values["probs"])
assert (ops.attention_bias_index(5) == torch_values["index"]).all()
print("the index table: the same")

# %% [markdown]
# ## The block around it
#
# Attention mixes tokens, and an MLP after it mixes each token's channels; a layer norm stands before each, and each
# result is added to what went in. EfficientFormer calls the block *Meta3D*, for it works on three axes (B, N, D).

# %%
source(npformer.models.efficientformer.EfficientFormerMeta3D.forward)

# %% [markdown]
# One number in it surprises: transformers sets the layer norms' eps to 1e-12, where nearly everybody has 1e-5. The eps
# is added to the variance under the root, so it matters for tokens that hardly vary. How far are the two apart?

# %%
rng = np.random.default_rng(3)
rows = []
for deviation in (1.0, 0.1, 0.01, 0.001):
    flat = deviation * rng.standard_normal((10, 448))
    tiny, usual = (ops.layer_norm(flat, (448,), eps=eps) for eps in (1e-12, 1e-5))
    rows.append([f"{deviation:g}", f"{np.abs(usual / tiny - 1).max():.4%}"])
table(["deviation of a token", "results differ by"], rows)
shipped = npformer.AutoConfig.from_pretrained("efficientformer-fashion")
print(f"eps of L1 in transformers: {config.layer_norm_eps}, of the shipped model: {shipped.layer_norm_eps}")
print("float32: 1 + 1e-12 == 1:", np.float32(1) + np.float32(1e-12) == 1)

# %% [markdown]
# For tokens of order one the two agree closely, for small ones they do not: a port must read the eps from the
# configuration. In float32, 1e-12 vanishes beside any ordinary variance, and saves from nothing but a division by
# zero.
#
# ## A trained network's tables
#
# The shipped `efficientformer-fashion` knows ten kinds of clothing. It ends in two attention blocks with four heads
# each (128 channels, d = 16, e = 64). These are the tables it learned:

# %%
model = npformer.get_model("efficientformer-fashion", pretrained=True)
last = model.efficientformer.encoder.last_stage.meta3D_layers  # its two attention blocks
tables = np.stack([block.token_mixer.attention_biases for block in last.blocks])  # (blocks, h, 49)

figure, axes = new_figure(2, 4, width=7.5, height=3.9)
for (block, head), panel in np.ndenumerate(axes):
    drawn = picture(
        panel, tables[block, head].reshape(7, 7), f"block {block}, head {head}", signed=True, vmin=-1.4, vmax=1.4
    )
for panel in axes[1]:
    panel.set_xlabel("$|\\Delta x|$, 0 to 6", fontsize=9)
for panel in axes[:, 0]:
    panel.set_ylabel("$|\\Delta y|$, 0 to 6", fontsize=9)
figure.colorbar(drawn, ax=axes, label="bias", shrink=0.8)
show(
    figure,
    "Figure 6.4. The bias tables of the trained network; top left in each is the offset (0, 0), the token itself. "
    "Red offsets are favoured, blue ones avoided. Each head has its own taste, and no table is symmetric.",
    "Eight 7 by 7 maps in red and blue, one for each of four heads in two blocks, smooth patches of both colours with "
    "values up to about 1.4 in size. In block 1, head 3 the lower half is red and the upper half blue.",
)
squares = tables.reshape(2, 4, 7, 7)
print(f"largest difference between a table and its transpose: {np.abs(squares - squares.swapaxes(2, 3)).max():.2f}")

# %% [markdown]
# A table is easier to judge by what it does. We let attention run with the bias alone (all queries zero), and ask how
# far away, on average, the tokens are that get the attention. Then the same with everything in place, over 200 test
# pictures that the network never trained on.
#
# To get at the attention of 200 pictures we need only the tokens that reach the last two blocks. `npformer.watch` lets
# an observer see every named value; this one keeps what the layer named `flat` makes, the tokens.

# %%
images, classes = pictures(200)
processor = npformer.AutoImageProcessor.from_pretrained("efficientformer-fashion")
fused = npformer.fuse(model)  # same results up to rounding, faster
kept = []


def keep_tokens(name, module, inputs, output, layout):
    if name.endswith("last_stage.flat"):
        kept.append(output)
    return output


predicted = []
with npformer.watch(fused, keep_tokens):
    for some in np.split(images, 4):
        rgb = np.repeat(some[:, None], 3, axis=1)  # (50, 3, 28, 28)
        predicted.append(fused(processor(rgb, return_tensors="np")["pixel_values"]).logits.argmax(axis=-1))
predicted, tokens = np.concatenate(predicted), np.concatenate(kept)
print(f"tokens {tokens.shape}, {np.mean(predicted == classes):.1%} of the pictures named rightly")


# %%
def finish(tokens, observer=lambda name, module, inputs, output, layout: output):
    """The rest of the network: (B, 49, 128) -> answers (B,), and each block's probabilities (B, 4, 49, 49)."""
    with npformer.watch(last, observer):
        mixed, probs = last(tokens)
    pooled = model.efficientformer.layernorm(mixed).mean(axis=1)  # (B, 128)
    return model.classifier(pooled).argmax(axis=-1), probs


answers, trained_probs = finish(tokens)
assert (answers == predicted).all()
distance = np.hypot(*np.divmod(index, 7))  # (49, 49): how far apart two tokens lie
rows = []
for block in range(2):
    bias_alone = ops.softmax(tables[block][:, index])  # (h, 49, 49)
    for head in range(4):
        probs = trained_probs[block][:, head]
        by_bias, by_all = ((weights * distance).sum(axis=-1).mean() for weights in (bias_alone[head], probs))
        used = np.exp(-(probs * np.log(probs + 1e-30)).sum(axis=-1).mean())
        rows.append([block, head, f"{by_bias:.1f}", f"{by_all:.1f}", f"{used:.1f}"])
table(["block", "head", "distance, bias alone", "distance, all", "tokens in use"], rows)
print(f"attention spread evenly: distance {distance.mean():.1f}, 49 tokens in use")

# %% [markdown]
# By its bias alone head 0 of block 0 looks a little further than an even spread would, and head 1 no further. With the
# queries and keys in place they differ more, head 1 being the one that stays nearest. Nowhere is the bias alone far
# from even. The last column is the exponential of the entropy: over how many tokens the attention is spread, in
# effect. It is three to seven of 49. So these heads are picky, and it is not their bias that makes them so.
#
# ## What a token asks for
#
# Below, the token in the middle of the map asks, in three shipped pictures: its 49 probabilities, enlarged over the
# picture, each token covering 32 x 32 pixels.

# %%
paths = list(npformer.assets.sample_pictures())
shown = [paths[[path.stem for path in paths].index(name)] for name in ("t-shirt-top-1", "coat-2", "ankle-boot-1")]
pixels = processor([npformer.load_image(path) for path in shown], return_tensors="np")["pixel_values"]
trace = npformer.record(model, pixels)
asked = trace["efficientformer.encoder.last_stage.meta3D_layers.blocks.0.token_mixer:probs"]  # (3, 4, 49, 49)
asking = 3 * 7 + 3  # row 3, column 3: the middle

figure, axes = new_figure(3, 5, width=7.5, height=4.8)
for row in range(3):
    picture(axes[row, 0], pixels[row, 0], "the middle asks" if row == 0 else "", cmap="gray")
    axes[row, 0].plot(111.5, 111.5, "s", color=COLOURS["orange"], markersize=9, fillstyle="none", markeredgewidth=2)
    for head in range(4):
        heat = np.kron(asked[row, head, asking].reshape(7, 7), np.ones((32, 32)))  # (224, 224)
        picture(axes[row, head + 1], pixels[row, 0], f"head {head}" if row == 0 else "", cmap="gray")
        axes[row, head + 1].imshow(heat, cmap="plasma", alpha=0.85 * heat / heat.max(), vmin=0, vmax=heat.max())
        axes[row, head + 1].plot(111.5, 111.5, "s", color="white", markersize=9, fillstyle="none")
        axes[row, head + 1].set_xlabel(f"largest {heat.max():.2f}", fontsize=8)
show(
    figure,
    "Figure 6.5. Whom the token in the middle (square) asks, in block 0. Yellow is much; each panel has its own "
    "scale. In both garments head 1 looks at the collar and head 0 at the left edge.",
    "Three rows of pictures, a T-shirt, a coat and an ankle boot, each followed by the attention of four heads over "
    "it. In every panel one to four of the 49 squares are coloured and the others clear.",
)

# %% [markdown]
# The heads have taken up trades: in these garments, head 1 asks the collar, head 2 a shoulder beside it, head 0 the
# left edge, head 3 the lower right or the hem. On a boot the same queries find something else. This is what the
# pooling mixer cannot do: the same weights look at different places in different pictures.
#
# ## Does the bias matter to this network?
#
# An observer may also *replace* what it sees. So we can take the bias away, move it about, forget the division by
# $\sqrt d$, or spread the attention evenly, and ask the network again. The tokens that come in stay as they were.
#
# **Predict, then run:** the network was trained with its bias. How many of 200 pictures will it name rightly without?

# %%
rng = np.random.default_rng(4)
moved = rng.permutation(49)
swap = offsets.T.reshape(-1)  # the 7 x 7 table transposed


def undivided(scores, bias):
    return (scores - bias) * np.sqrt(16, dtype=np.float32) + bias  # d = 16


# Of every case: the inner value that is replaced, and by what (b: the trained bias of that block, gathered).
cases = {
    "as trained": (":bias", lambda value, b: value),
    "no bias": (":bias", lambda value, b: np.zeros_like(value)),
    "bias moved between offsets": (":bias", lambda value, b: value[:, 0][:, moved][:, index]),
    "table transposed": (":bias", lambda value, b: value[:, 0][:, swap][:, index]),
    "index transposed": (":bias", lambda value, b: value.swapaxes(1, 2)),
    "not divided by sqrt(d)": (":scores", undivided),
    "bias only, no queries": (":scores", lambda value, b: np.broadcast_to(b, value.shape)),
    "attention spread evenly": (":probs", lambda value, b: np.full_like(value, 1 / 49)),
    "no attention at all": (".token_mixer", lambda value, b: np.zeros_like(value)),
}

# %%
rows = []
for case, (suffix, replace) in cases.items():

    def observer(name, module, inputs, output, layout, suffix=suffix, replace=replace):
        if not name.endswith(suffix):
            return output
        block = int(name.split(".")[1])  # "blocks.1.token_mixer:bias"
        return replace(output, tables[block][:, index])

    got, probs = finish(tokens, observer)
    right = np.mean(got == classes)
    error = np.sqrt(right * (1 - right) / 200)  # of a share of 200 pictures
    shift = np.mean([np.abs(p - t).sum(axis=-1).mean() / 2 for p, t in zip(probs, trained_probs, strict=True)])
    rows.append([case, f"{right:.1%}", f"{error:.1%}", int(np.sum(got != answers)), f"{shift:.0%}"])
table(["case", "right, n = 200", "standard error", "answers changed", "attention moved"], rows)

# %% [markdown]
# The last column says which share of the probabilities has gone to other tokens (in the last case it is what the
# second block makes of a changed input).
#
# Attention itself matters much: spread it evenly and four answers in ten change, leave it out and seven in ten do. The
# bias does not: without it, two answers of 200 change, and the share of right ones stays what it was. That is far
# inside the standard error, so all that we can say is that the effect on accuracy is small. Transposing the index
# changes nothing whatever, as it must. Transposing the table moves attention about, and the answers hardly notice.
#
# Two likely reasons can be measured. The first is size: the bias is small beside what queries and keys say.

# %%
spreads = []


def keep_scores(name, module, inputs, output, layout):
    if name.endswith(":scores"):
        bias = tables[int(name.split(".")[1])][:, index]
        spreads.append([(output - bias).std(axis=-1).mean(), bias.std(axis=-1).mean()])
    return output


finish(tokens, keep_scores)
for block, (asked_for, biased) in enumerate(spreads):
    print(f"block {block}: scores vary by {asked_for:.1f} within a row, the bias by {biased:.1f}")

# %% [markdown]
# The second is that the tokens know where they are before attention starts. Every strided convolution before it pads
# the map with zeros, and the zeros mark the border (lesson 2). A blank picture shows it: there is nothing in it to
# see, and still its tokens differ.

# %%
blank = np.zeros((1, 3, 224, 224), np.float32)
flat = npformer.record(model, blank)["efficientformer.encoder.last_stage.flat"][0]  # (49, 128)
away = np.linalg.norm(flat - flat[24], axis=-1) / np.linalg.norm(flat[24])
print(np.round(away.reshape(7, 7), 2))

# %% [markdown]
# How far each token of a blank picture is from the middle one, relative to its length. Top and left stand out, bottom
# and right do not. A 3x3 kernel with stride 2 and padding 1 on an even map uses the zeros above and to the left, and
# never reaches those below and to the right; and the pooling mixer, which leaves the padding out of its mean, adds
# nothing. From such traces and from what garments look like, even a linear map finds a token's place quite well:

# %%
with_one = np.concatenate([tokens, np.ones((200, 49, 1), np.float32)], axis=-1).astype(np.float64)
places = np.tile(np.stack([y, x], axis=1), (100, 1))  # (100 * 49, 2): row and column of each token
train, test = with_one[:100].reshape(-1, 129), with_one[100:].reshape(-1, 129)
fitted = np.linalg.solve(train.T @ train + 1e-3 * np.eye(129), train.T @ places)  # least squares on 100 pictures
missed = test @ fitted - places  # on the other 100
explained = 1 - (missed**2).mean(axis=0) / places.var(axis=0)
print(f"share of the variance explained: rows {explained[0]:.2f}, columns {explained[1]:.2f}")

# %% [markdown]
# This is one small network on centred pictures of ten kinds, and it shows what *this* network makes of its bias; the
# paper's networks on photographs may make more of it. A port has to get it right in any case: with other weights the
# same mistake may cost more, and whoever had only counted right answers here would not have found it. That is what
# comparing layer by layer is for (lesson 11).
#
# ## What it costs
#
# All pairs of tokens are asked, so the products for scores and contexts grow with N². The layer's matrix
# products `qkv` and `projection` grow with N. We count both as the layer itself does, for L1's widths on larger and
# larger grids, and compute the largest from the formula.


# %%
def counted(side):
    layer = EfficientFormerSelfAttention(EfficientFormerConfig(resolution=side))
    counts = {}

    def count(name, module, inputs, output, layout):
        if layout is None:  # a module's result, no inner value
            counts[name] = module.multiply_adds(inputs, output)
        return output

    with npformer.watch(layer, count):
        layer(np.zeros((1, side**2, 448), np.float32))
    return counts["qkv"] + counts["projection"], counts[""]


sides = [7, 14, 28]
linear, pairs = zip(*(counted(side) for side in sides), strict=True)
assert all(p == 8 * side**4 * (32 + 128) for p, side in zip(pairs, sides, strict=True))  # h N² (d + e)
assert all(n == side**2 * 448 * (1536 + 1024) for n, side in zip(linear, sides, strict=True))
sides, linear, pairs = [*sides, 56], [*linear, 56**2 * 448 * 2560], [*pairs, 8 * 56**4 * 160]
whole = npformer.models.registry.VARIANTS["efficientformer-l1"].multiply_adds
memory = [8 * side**4 * 4 / 1e6 for side in sides]  # the scores of one picture in float32
table(
    ["side", "tokens", "linear, M", "pairs, M", "pairs / whole L1", "scores, MB"],
    [
        [s, s * s, f"{n / 1e6:.0f}", f"{p / 1e6:.0f}", f"{p / whole:.1%}", f"{m:.2f}"]
        for s, n, p, m in zip(sides, linear, pairs, memory, strict=True)
    ],
)

# %%
figure, axes = new_figure(1, 1, width=6.5, height=3)
counts = [side**2 for side in sides]
axes.loglog(counts, np.array(linear) / 1e6, "o-", color=COLOURS["blue"])
axes.loglog(counts, np.array(pairs) / 1e6, "o-", color=COLOURS["orange"])
axes.axhline(whole / 1e6, color=COLOURS["grey"], linestyle=":", linewidth=1)
axes.text(60, whole / 1e6 * 1.25, "the whole of EfficientFormer-L1", color=COLOURS["grey"], fontsize=9)
axes.text(3500, linear[-1] / 1e6, "linear layers, N", color=COLOURS["blue"], va="center")
axes.text(3500, pairs[-1] / 1e6, "pairs of tokens, N²", color=COLOURS["orange"], va="center")
axes.set(xlabel="tokens", ylabel="million multiply-adds", xlim=(42, 22000))
axes.set_xticks(counts, [f"{n}\n{s} x {s}" for n, s in zip(counts, sides, strict=True)])
axes.minorticks_off()
show(
    figure,
    "Figure 6.6. Multiply-adds of one attention layer with L1's widths, by the number of tokens. At 7 x 7 the pairs "
    "are cheap; at 56 x 56, where the first stage works, they alone cost ten times the whole network.",
    "Two lines on logarithmic axes. The linear layers rise with slope 1, the pairs with slope 2; they cross near 900 "
    "tokens, and at 3136 tokens the pairs lie ten times above a dotted line that marks the whole network.",
)

# %% [markdown]
# So EfficientFormer keeps attention for the end, where a 224 x 224 picture has shrunk to 49 tokens and the pairs are
# nearly free. In the early stages, pooling does. The price is that the table fixes the grid: a network trained with
# 49 entries takes pictures whose last map is 7 x 7, and no others.

# %%
try:
    layer(np.zeros((1, 64, 448), np.float32))
except ValueError as error:
    print(error)

# %% [markdown]
# ## How fast
#
# Loops, the package's op, and the whole block twice: layer by layer as we read it, and *fused*, with the weights of
# the norms and the scales folded into the layers beside them (lesson 10). Shapes are those of L1, one picture, random
# weights.

# %%
rng = np.random.default_rng(5)
q, k = rng.standard_normal((2, 1, 8, 49, 32)).astype(np.float32)  # (B, h, N, d)
v = rng.standard_normal((1, 8, 49, 128)).astype(np.float32)  # (B, h, N, e)
b = rng.standard_normal((8, 49, 49)).astype(np.float32)
assert np.allclose(attention_loops(q, k, v, b), ops.biased_attention(q, k, v, b)[0], atol=1e-5)
l1 = npformer.get_model("efficientformer-l1", seed=0)
readable, faster = (
    some.efficientformer.encoder.last_stage.meta3D_layers.blocks[0] for some in (l1, npformer.fuse(l1))
)
some = rng.standard_normal((1, 49, 448)).astype(np.float32)
assert np.allclose(readable(some)[0], faster(some)[0], atol=1e-5)

# %% tags=["timing"]
seconds = times(
    {
        "attention, loops": lambda: attention_loops(q, k, v, b),
        "attention, ops.biased_attention": lambda: ops.biased_attention(q, k, v, b),
        "Meta3D block, readable": lambda: readable(some),
        "Meta3D block, fused": lambda: faster(some),
    },
    rounds=3,
)
table(["", "milliseconds"], [[name, f"{1000 * s:.2f}"] for name, s in seconds.items()])

# %% [markdown]
# In the op, the loops over tokens have become matrix products, which BLAS does. Of the block, attention proper is the
# smaller part: most multiply-adds are in `qkv`, `projection` and the MLP.
#
# ## Exercises
#
# ### Exercise 6.1: one head
#
# Write `attention(query, key, value)` for a single head: (N, d), (N, d) and (N, e) give the context (N, e). No bias,
# and NumPy only: write the softmax yourself. It must also survive scores in the thousands.


# %% tags=["exercise"]
def attention(query, key, value):
    """(N, d), (N, d), (N, e) -> (N, e)"""
    ...


# %% tags=["check"]
checks.attention(attention)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `scores[i, j]` belongs to query i and key j. Every *row* becomes probabilities: subtract its largest score
# (`keepdims=True`), take the exponential, divide by the row's sum.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def attention(query, key, value):
#     scores = query @ key.T / np.sqrt(query.shape[-1])  # (N, N)
#     weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
#     return weights / weights.sum(axis=-1, keepdims=True) @ value
# ```
#
# Taking the largest score out of a row divides its numerator and denominator by the same number, so nothing changes
# but the size of what `exp` gets to see.
#
# </details>

# %% [markdown]
# ### Exercise 6.2: the index table
#
# Write `bias_index(height, width)` for a grid that need not be square: an (N, N) array of whole numbers with N =
# height times width, tokens numbered row by row, offsets too: entry $|\Delta y|$ times width plus $|\Delta x|$. For a
# 1 x 2 grid that is `[[0, 1], [1, 0]]`.


# %% tags=["exercise"]
def bias_index(height, width):
    """-> (N, N) of whole numbers"""
    ...


# %% tags=["check"]
checks.bias_index(bias_index)

# %% [markdown]
# <details><summary>Hint</summary>
#
# First two arrays of N numbers, the row and the column of each token: token p stands in row `p // width`, column
# `p % width`. Then `y[:, None] - y` is an (N, N) array of all differences.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def bias_index(height, width):
#     y, x = np.divmod(np.arange(height * width), width)
#     return np.abs(y[:, None] - y) * width + np.abs(x[:, None] - x)
# ```
#
# A square grid forgives mixing up height and width; that is why the check does not use one.
#
# </details>

# %% [markdown]
# ### Exercise 6.3: gather the bias, and put it to use
#
# Write `bias_only(table, index, value)`: what a layer computes whose queries are all zero. `table` is (h, N), `index`
# (N, N), `value` (B, h, N, e); the result is the context (B, h, N, e). `ops.softmax` may help.


# %% tags=["exercise"]
def bias_only(table, index, value):
    """(h, N), (N, N), (B, h, N, e) -> (B, h, N, e)"""
    ...


# %% tags=["check"]
checks.bias_only(bias_only)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `table[:, index]` has the shape (h, N, N). Where queries are zero, all products are, and the bias is all of the
# score.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def bias_only(table, index, value):
#     return ops.softmax(table[:, index], dim=-1) @ value  # (h, N, N) @ (B, h, N, e)
# ```
#
# With queries of zero the layer is a fixed filter: each head a weighted mean over the map, the same for all pictures.
# Attention with a bias holds such filters within it, and can add to them what the picture says.
#
# </details>

# %% [markdown]
# ### Exercise 6.4: part the heads
#
# Write `split_heads(qkv, heads, d)`: what the linear layer made, (B, N, h(2d + e)), becomes a tuple of query (B, h, N,
# d), key (B, h, N, d) and value (B, h, N, e). Query, key and value of head 0 come first, then those of head 1.


# %% tags=["exercise"]
def split_heads(qkv, heads, d):
    """(B, N, h * (2d + e)) -> (B, h, N, d), (B, h, N, d), (B, h, N, e)"""
    ...


# %% tags=["check"]
checks.split_heads(split_heads)

# %% [markdown]
# <details><summary>Hint</summary>
#
# Reshape to (B, N, h, 2d + e) first, since that is how the numbers lie; only then swap two axes, then cut the last
# one. Reshaping never moves a number; to go straight to (B, h, N, ...) tears tokens apart.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def split_heads(qkv, heads, d):
#     batch, tokens, _ = qkv.shape
#     parted = qkv.reshape(batch, tokens, heads, -1).swapaxes(1, 2)  # (B, h, N, 2d + e)
#     return parted[..., :d], parted[..., d : 2 * d], parted[..., 2 * d :]
# ```
#
# Other networks store all queries first, then all keys, then all values. Both layouts have the same shape, and a
# weight matrix does not say which one it is for.
#
# </details>

# %% [markdown]
# ### Exercise 6.5: the whole layer
#
# Put it together: `attention_layer(x, layer)` takes tokens (B, N, D) and a module like `EfficientFormerSelfAttention`,
# and returns the result (B, N, D). Use the module's numbers and arrays (`num_heads`, `key_dim`, `qkv.weight`,
# `qkv.bias`, `attention_biases`, `attention_bias_idxs`, `projection.weight`, `projection.bias`), but do not call the
# module. All that `ops` has is yours to use.


# %% tags=["exercise"]
def attention_layer(x, layer):
    """(B, N, D) -> (B, N, D)"""
    ...


# %% tags=["check"]
checks.attention_layer(attention_layer)

# %% [markdown]
# <details><summary>Hint</summary>
#
# `ops.linear(x, layer.qkv.weight, layer.qkv.bias)`, your `split_heads`, the gathered bias, `ops.biased_attention`;
# then swap heads and tokens back *before* you reshape to (B, N, h e), and project.
#
# </details>
# <details><summary>Solution</summary>
#
# ```python
# def attention_layer(x, layer):
#     batch, tokens, _ = x.shape
#     heads, d = layer.num_heads, layer.key_dim
#     qkv = ops.linear(x, layer.qkv.weight, layer.qkv.bias).reshape(batch, tokens, heads, -1).swapaxes(1, 2)
#     query, key, value = np.split(qkv, [d, 2 * d], axis=-1)  # (B, h, N, d), the same, (B, h, N, e)
#     bias = layer.attention_biases[:, layer.attention_bias_idxs]  # (h, N, N)
#     context, _ = ops.biased_attention(query, key, value, bias)
#     merged = context.swapaxes(1, 2).reshape(batch, tokens, -1)  # (B, N, h * e)
#     return ops.linear(merged, layer.projection.weight, layer.projection.bias)
# ```
#
# That is the token mixer of EfficientFormer's last stage. With a layer norm before it, an MLP after it and two
# additions it is the whole block, which the next lesson puts into the network.
#
# </details>

# %% [markdown]
# ## Further reading
#
# - Vaswani et al. 2017, "Attention Is All You Need", sections 3.2.1 (the division by √d) and 3.2.2 (heads).
#   [arXiv](https://arxiv.org/abs/1706.03762)
# - Graham et al. 2021, "LeViT", section 4.4: a bias for each offset instead of positions. [arXiv](https://arxiv.org/abs/2104.01136)
# - Li et al. 2022, "EfficientFormer", section 4.1 and equation 5: why attention stands last. [arXiv](https://arxiv.org/abs/2206.01191)
# - Liu et al. 2021, "Swin Transformer", section 3.2: signed offsets, 13 x 13 of them. [arXiv](https://arxiv.org/abs/2103.14030)
# - Islam et al. 2020, "How Much Position Information Do Convolutional Neural Networks Encode?", on what zero padding
#   tells. [arXiv](https://arxiv.org/abs/2001.08248)
# - In the package: [attention.py](../npformer/ops/attention.py),
#   [efficientformer.py](../npformer/models/efficientformer.py).
#
# Next: [7. EfficientFormer, whole](07_efficientformer.ipynb)
