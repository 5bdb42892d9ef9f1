"""Checks of the exercises of lesson 7: the whole EfficientFormer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import npformer
from course import check, expect, expect_array
from npformer import ops
from npformer.models.efficientformer import (
    EfficientFormerConfig,
    EfficientFormerForImageClassification,
    EfficientFormerForImageClassificationWithTeacher,
    EfficientFormerMeta4D,
    token_grid,
)


@check("nearly all of them are in the two 1 x 1 convolutions, which is why late stages weigh so much.")
def meta4d_parameters(function: Callable[..., Any]) -> None:
    for channels, ratio in ((48, 4), (10, 3), (7, 5)):
        block = EfficientFormerMeta4D(EfficientFormerConfig(mlp_expansion_ratio=ratio), channels)
        truth, hidden = block.num_parameters(), ratio * channels
        stored = sum(array.size for _, _, array in _arrays(block))
        hints = {
            "the layer scales are missing: two numbers per channel.": truth - 2 * channels,
            "there are two layer scales, one for each half of the block.": truth - channels,
            "one number per channel is missing after each convolution: its bias, or one of its norm's two.": (
                truth - hidden - channels
            ),
            "the batch norms are missing: a weight and a bias per channel, of both.": truth - 2 * (hidden + channels),
            "the first batch norm is as wide as the MLP inside, not as the block.": truth - 2 * (hidden - channels),
            "the batch norms and the layer scales are missing.": truth - 2 * (hidden + channels) - 2 * channels,
            "running mean and variance are stored, but not learned.": truth + 2 * (hidden + channels),
            "what is stored is not all learned: leave the batch norms' statistics out.": stored,
            "the convolutions of the MLP are 1 x 1, not 3 x 3.": truth + 16 * channels * hidden,
            "there are two convolutions: into the wide inside, and back.": truth - channels * hidden,
            "that counts the products of the weights only: add biases, norms and scales.": 2 * channels * hidden,
        }
        if ratio != 4:
            fixed = EfficientFormerMeta4D(EfficientFormerConfig(), channels).num_parameters()
            hints["that is right for ratio 4 only: use `ratio`."] = fixed
        if channels != 48:
            same = EfficientFormerMeta4D(EfficientFormerConfig(mlp_expansion_ratio=ratio), 48).num_parameters()
            hints["that is the answer for 48 channels: use `channels`."] = same
        expect_array(function(channels, ratio), truth, f"meta4d_parameters({channels}, {ratio})", hints=hints)


def _arrays(block: EfficientFormerMeta4D) -> list[tuple[str, Any, np.ndarray]]:
    return [(name, module, getattr(module, attribute)) for name, module, attribute in block.named_arrays()]


@check("each halving rounds up, so 32 sizes lead to the same grid.")
def grid(function: Callable[..., Any]) -> None:
    config = EfficientFormerConfig()
    for height, width in ((224, 224), (224, 200), (193, 225), (33, 97), (1, 640)):
        answer = function(height, width)
        hints = {
            "odd sizes round up: a 3 x 3 window with padding 1 still fits at the last pixel.": _plain(
                height, width, 32
            ),
            "there are five halvings, not four: two in the stem and three between the stages.": token_grid_after(
                4, height, width
            ),
            "those are the three downsamplings between the stages; the stem halves twice more.": token_grid_after(
                3, height, width
            ),
            "that is the map after the stem: three downsamplings follow.": token_grid_after(2, height, width),
            "there are five halvings, not six.": token_grid_after(6, height, width),
            "height comes first, then width.": token_grid(config, height, width)[::-1],
            "rows and columns, please, not their product.": np.prod(token_grid(config, height, width)),
        }
        if np.ndim(answer) == 0 and answer is not None and answer is not ...:
            expect(answer != np.prod(token_grid(config, height, width)), "rows and columns, not how many tokens.")
        expect_array(answer, token_grid(config, height, width), f"grid({height}, {width})", hints=hints)


def _plain(height: int, width: int, stride: int) -> tuple[int, int]:
    return height // stride, width // stride


def token_grid_after(halvings: int, height: int, width: int) -> tuple[int, int]:
    """Return the size of the map after some of the halvings."""
    return -(-height // 2**halvings), -(-width // 2**halvings)


@check("a channel's numbers had to be brought together first; that is what `Flat` had taken apart.")
def back_to_map(function: Callable[..., Any]) -> None:
    generator = np.random.default_rng()
    for batch, channels, height, width in ((2, 3, 4, 5), (1, 7, 3, 3), (3, 2, 5, 1), (2, 6, 2, 6)):
        maps = generator.standard_normal((batch, channels, height, width))
        tokens = maps.reshape(batch, channels, -1).swapaxes(1, 2).copy()
        before = tokens.copy()
        answer = function(tokens, height, width)
        expect(bool((tokens == before).all()), "your function changes the tokens it was given.")
        hints = {
            "a reshape alone moves no number: swap tokens and channels first.": tokens.reshape(maps.shape),
            "rows and columns are exchanged: tokens lie row by row.": (
                tokens.swapaxes(1, 2).reshape(batch, channels, width, height).swapaxes(2, 3)
            ),
        }
        if np.shape(answer) == (batch, height, width, channels):
            expect(
                (height, width) == (channels, height), "channels belong in front of rows and columns: (B, C, H, W)."
            )
        what = f"back_to_map(tokens {tokens.shape}, {height}, {width})"
        expect_array(answer, maps, what, hints=hints)


@check("norm, mean, two linear layers, mean.")
def two_heads(function: Callable[..., Any]) -> None:
    generator = np.random.default_rng()
    for batch, count, width, labels in ((2, 5, 6, 3), (1, 9, 4, 7)):
        tokens = generator.standard_normal((batch, count, width)) * 3 + 1
        p = {f"efficientformer.layernorm.{kind}": generator.standard_normal(width) for kind in ("weight", "bias")}
        for name in ("classifier", "distillation_classifier"):
            p[f"{name}.weight"] = generator.standard_normal((labels, width))
            p[f"{name}.bias"] = generator.standard_normal(labels)
        norm = [p[f"efficientformer.layernorm.{kind}"] for kind in ("weight", "bias")]
        first, second = (
            [p[f"{name}.{kind}"] for kind in ("weight", "bias")] for name in ("classifier", "distillation_classifier")
        )
        pooled = ops.token_mean(ops.layer_norm(tokens, (width,), *norm))
        late = ops.layer_norm(ops.token_mean(tokens), (width,), *norm)
        bare = ops.token_mean(tokens)
        plain = ops.token_mean(ops.layer_norm(tokens, (width,)))
        a, b = ops.linear(pooled, *first), ops.linear(pooled, *second)

        def averaged(x: np.ndarray, first: Any = first, second: Any = second) -> np.ndarray:
            return (ops.linear(x, *first) + ops.linear(x, *second)) / 2

        hints = {
            "that is the classifier alone; there is a second head.": a,
            "that is the distillation head alone.": b,
            "the heads are averaged, not added: divide by 2.": a + b,
            "the norm comes before the mean: each token is normalised, then they are averaged.": averaged(late),
            "the layer norm is missing.": averaged(bare),
            "the layer norm's own weight and bias are missing.": averaged(plain),
            "average the logits, before any softmax.": (ops.softmax(a) + ops.softmax(b)) / 2,
            "logits are wanted: no softmax.": ops.softmax((a + b) / 2),
            "the tokens are averaged, not added up.": averaged(pooled * count),
            "one token is not the picture: average all of them.": averaged(
                ops.layer_norm(tokens, (width,), *norm)[:, 0]
            ),
        }
        expect_array(function(tokens, p), averaged(pooled), "two_heads(tokens, p)", hints=hints)


ONE, TWO = EfficientFormerForImageClassification, EfficientFormerForImageClassificationWithTeacher


@check("your function runs every EfficientFormer there is: L1, L3 and L7 are only longer and wider.")
def any_efficientformer(function: Callable[..., Any]) -> None:
    generator = np.random.default_rng()
    for number, (kind, settings) in enumerate(
        (
            (ONE, {"depths": [1, 2, 3, 2], "num_meta3d_blocks": 1, "num_attention_heads": 4, "key_dim": 16}),
            (TWO, {"depths": [2, 1, 12, 4], "num_meta3d_blocks": 3, "num_attention_heads": 2, "key_dim": 3}),
            (TWO, {"depths": [1, 3, 1, 2], "num_meta3d_blocks": 2, "num_attention_heads": 3, "key_dim": 5}),
            (ONE, {"depths": [2, 2, 2, 3], "num_meta3d_blocks": 1, "num_attention_heads": 1, "key_dim": 4}),
        )
    ):
        side = (2, 3, 2, 1)[number]
        config = EfficientFormerConfig(
            hidden_sizes=[4, 6, 10, 12], dim=12, resolution=side, attention_ratio=(4, 2, 1, 3)[number],
            mlp_expansion_ratio=(4, 3, 2, 4)[number], num_labels=5, layer_norm_eps=1e-5, **settings,
        )  # fmt: skip
        model = _order_one(kind(config, init_weights=False).astype(np.float64), generator)
        x = generator.standard_normal((2, 3, 32 * side, 32 * side))
        state = {name: array for name, array in model.state_dict().items() if not name.endswith("_idxs")}
        truth = model(x)
        hints = {
            "a network without Meta3D blocks? They follow the change to tokens.": _without(model, x, "meta3D_layers"),
            "the last stage's Meta4D blocks are missing.": _without(model, x, "last_stage.meta4D_layers"),
            "blocks 10 and 11 are missing: count on while there are more.": _without(model, x, "blocks.1", two=True),
        }
        if max(config.depths) > 10:
            hints["blocks run by number: as text, 10 comes before 2."] = _as_text(model, x)
        if kind is TWO:
            hints["that is the classifier alone: this one has two heads."] = truth.cls_logits
            hints["the heads are averaged, not added."] = 2 * truth.logits
        what = (
            f"any_efficientformer, for depths {config.depths} with {config.num_meta3d_blocks} attention blocks of "
            f"{config.num_attention_heads} heads and {'two heads' if kind is TWO else 'one head'} at the end,"
        )
        try:
            answer = function(x, state)
        except (KeyError, ValueError) as error:
            expect(False, f"{what} stopped with {type(error).__name__}: {error}")
        expect_array(answer, truth.logits, what, tolerance=1e-9, hints=hints)


def _order_one(model: Any, generator: np.random.Generator) -> Any:
    """Draw random weights that hide nothing: no bias is 0 and no scale is small."""
    state = {}
    for name, array in model.state_dict().items():
        fan_in = max(1, int(np.prod(array.shape[1:])))
        state[name] = generator.standard_normal(array.shape) / fan_in**0.5
        if name.endswith("running_var"):
            state[name] = generator.uniform(0.5, 2, array.shape)
        elif name.endswith("num_batches_tracked") or name.endswith("_idxs"):
            state[name] = array
    return model.load_state_dict(state)


def _as_text(model: Any, x: np.ndarray) -> np.ndarray:
    """Return the logits with the blocks of a stage in the order of their numbers as text."""
    state = {}
    depths = model.config.depths
    for name, array in model.state_dict().items():
        row, _, rest = name.partition(".meta4D_layers.blocks.")
        number, _, layer = rest.partition(".")
        if number and row.endswith((".0", ".2", ".4")):
            order = sorted(range(depths[int(row[-1]) // 2]), key=str)
            name = f"{row}.meta4D_layers.blocks.{order.index(int(number))}.{layer}"
        state[name] = array
    return type(model)(model.config, init_weights=False).astype(np.float64).load_state_dict(state)(x).logits


def _without(model: Any, x: np.ndarray, part: str, two: bool = False) -> np.ndarray:
    """Return the logits with the blocks of some part replaced by the identity."""

    def observer(
        name: str, module: Any, inputs: tuple[Any, ...], output: np.ndarray, layout: str | None
    ) -> np.ndarray:
        row, _, number = name.rpartition(".blocks.")
        left_out = number.isdigit() and (len(number) == 2 if two else part in row)
        return inputs[0] if left_out else output

    with npformer.watch(model, observer):
        return model(x).logits
