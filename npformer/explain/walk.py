"""Forward pass on one picture, with the values worth showing at each of its steps.

One function per family knows the names of its modules and the meaning of its mixers; the rest is common to all.
Everything shown is a recorded value, or a sum of such values that its caption spells out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from .. import ops
from ..assets.imagenet import class_names
from ..image import BaseImageProcessor
from ..models.efficientformer import EfficientFormerConfig
from ..models.efficientnet import EfficientNetConfig
from ..models.pretrained import PreTrainedModel
from ..models.swiftformer import SwiftFormerConfig
from ..ops import Array
from ..picture import ImageInput
from ..summary import summarize
from ..trace import Trace, record

CHANNELS = 8  # feature maps shown of a step
MIXED = 4  # maps shown of a mixer
GUESSES = 5


@dataclass
class Image:
    """One small image: values (H, W), the label below it, and, over the picture, a pixel (y, x) to mark."""

    values: Array
    label: str
    mark: tuple[int, int] | None = None


@dataclass
class Strip:
    """Images side by side with a common colour scale.

    kind: "magnitude", each from its smallest value to its largest; "signed", around 0, all on one scale; "over",
    signed or not, laid over the input picture. `short` is a title for places without room for the caption.
    """

    kind: Literal["magnitude", "signed", "over"]
    caption: str
    images: list[Image]
    short: str = ""


@dataclass
class Step:
    """A part of the model: its module's name, its purpose, its output shape, and its cost."""

    title: str
    name: str
    says: str
    shape: tuple[int, ...]
    parameters: int
    multiply_adds: int
    strips: list[Strip] = field(default_factory=list)


@dataclass
class Walk:
    """Everything to show: the input picture (H, W, 3) uint8, the steps, and (label, probability), best first."""

    model: str
    kind: str
    picture: Array
    steps: list[Step]
    guesses: list[tuple[str, float]]
    evidence: Strip | None
    parameters: int
    multiply_adds: int


def walk(model: PreTrainedModel, processor: BaseImageProcessor, image: ImageInput, name: str) -> Walk:
    """Run the readable model on one picture and collect its steps; `name` is the model's title on the page.

    Raises ValueError or TypeError as the processor and the model do.
    """
    pixel_values = processor(image, return_tensors="np")["pixel_values"]
    # The model's input before rescaling and normalisation; EfficientNet's `include_top` is one more division.
    plain = {"do_rescale": False, "do_normalize": False} | (
        {"include_top": False} if hasattr(processor, "include_top") else {}
    )
    seen = processor(image, return_tensors="np", **plain)["pixel_values"][0]
    picture = np.clip(np.rint(seen), 0, 255).astype(np.uint8).transpose(1, 2, 0)
    if picture.shape[2] != 3:  # show the first channel, of a model with one channel, say
        picture = np.repeat(picture[..., :1], 3, axis=2)
    trace = record(model, pixel_values)
    costs = {row.name: (row.parameters, row.multiply_adds) for row in summarize(model, *pixel_values.shape[2:])}
    labels = class_names([label for _, label in sorted(model.config.id2label.items())])
    probs = ops.softmax(trace[""])[0]
    best = np.argsort(-probs, kind="stable")[:GUESSES]
    return Walk(
        model=name,
        kind=type(model).__name__,
        picture=picture,
        steps=[_costed(step, costs) for step in _steps(model, trace)],
        guesses=[(labels[i], float(probs[i])) for i in best],
        evidence=_evidence(model, trace, int(best[0]), labels[best[0]]),
        parameters=costs[""][0],
        multiply_adds=costs[""][1],
    )


def _steps(model: PreTrainedModel, trace: Trace) -> Iterator[Step]:
    if isinstance(model.config, EfficientFormerConfig):
        return _efficientformer(trace)
    if isinstance(model.config, EfficientNetConfig):
        return _efficientnet(trace)
    if isinstance(model.config, SwiftFormerConfig):
        return _swiftformer(trace)
    raise ValueError(f"model must be one of the three families, got {type(model).__name__}")


def _costed(step: Step, costs: dict[str, tuple[int, int]]) -> Step:
    """Return the step with the total cost of all the modules that its name lists."""
    modules = [costs[name] for name in step.name.split(", ") if name in costs]
    step.parameters, step.multiply_adds = (sum(column) for column in zip(*modules, strict=True))
    return step


# --- EfficientFormer -------------------------------------------------------------------------------------------------


def _efficientformer(trace: Trace) -> Iterator[Step]:
    stem = "efficientformer.patch_embed"
    yield _step("Stem", stem, trace, "Two 3x3 convolutions, each halving the picture, with batch norm and ReLU.")
    encoder = "efficientformer.encoder"
    for name in _numbered(trace, rf"{encoder}\.intermediate_stages\.\d+"):
        pools = _numbered(trace, rf"{re.escape(name)}\.meta4D_layers\.blocks\.\d+\.token_mixer")
        if not pools:
            yield _step("Downsampling", name, trace, "A 3x3 convolution of stride 2: fewer pixels, more channels.")
            continue
        says = f"{_blocks(len(pools))} in which pooling mixes neighbours and 1x1 convolutions mix channels."
        yield _step("Meta4D blocks", name, trace, says, [_pooling(trace, pools[-1])])
    last = f"{encoder}.last_stage"
    if pools := _numbered(trace, rf"{last}\.meta4D_layers\.blocks\.\d+\.token_mixer"):
        says = f"{_blocks(len(pools))} of pooling on the smallest map, before the map becomes a row of tokens."
        yield _step("Last Meta4D blocks", f"{last}.meta4D_layers", trace, says, [_pooling(trace, pools[-1])])
    if mixers := _numbered(trace, rf"{last}\.meta3D_layers\.blocks\.\d+\.token_mixer"):
        says = (
            f"{_blocks(len(mixers))} of attention: every token asks every other one, and a learned bias for each "
            "offset between two tokens says how far to look."
        )
        strips = [strip for mixer in mixers[-1:] for strip in _attention(trace, mixer)]
        yield _step("Meta3D blocks", f"{last}.meta3D_layers", trace, says, strips)
    yield _head(trace, "Head", "efficientformer.layernorm", "The mean over all tokens; {heads}.")


def _pooling(trace: Trace, mixer: str) -> Strip:
    change = trace[mixer][0]
    caption = (
        "What the last mixer adds, before its layer scale: the mean of a pixel's neighbourhood minus the pixel. "
        "Red: the neighbours are higher."
    )
    return Strip("signed", caption, [Image(change[c], f"channel {c}") for c in _liveliest(change, MIXED)])


def _attention(trace: Trace, mixer: str) -> Iterator[Strip]:
    probs = trace[f"{mixer}:probs"][0]  # (h, N, N)
    side = round(probs.shape[1] ** 0.5)
    received = probs.mean(1).reshape(-1, side, side)
    yield Strip(
        "over",
        "How much attention each place gets, the mean over all that ask; one picture per head of the last block.",
        [Image(heat, f"head {head}") for head, heat in enumerate(received)],
        "where it looks (one head)",
    )
    # The token with the most focused attention: the smallest entropy of its probabilities, averaged over heads.
    entropy = -(probs * np.log(np.maximum(probs, 1e-30))).sum(-1).mean(0)
    asking = int(entropy.argmin())
    place = (asking // side, asking % side)
    yield Strip(
        "over",
        f"Where one token looks: that at row {place[0]}, column {place[1]} (marked), the choosiest of this picture.",
        [Image(row.reshape(side, side), f"head {head}", place) for head, row in enumerate(probs[:, asking])],
    )


# --- EfficientNet ----------------------------------------------------------------------------------------------------


def _efficientnet(trace: Trace) -> Iterator[Step]:
    yield _step("Stem", "efficientnet.embeddings", trace, "A 3x3 convolution of stride 2, batch norm and SiLU.")
    groups: dict[tuple[int, ...], list[str]] = {}
    for name in _numbered(trace, r"efficientnet\.encoder\.blocks\.\d+"):
        groups.setdefault(trace[name].shape[2:], []).append(name)
    for names in groups.values():
        says = (
            f"{_blocks(len(names))}, inverted bottlenecks: widen, filter each channel by itself, weigh channels by "
            "a gate, narrow again."
        )
        step = _step("Bottlenecks", names[-1], trace, says, [_gates(trace, names[-1])])
        step.name = ", ".join(names)
        yield step
    top = [f"efficientnet.encoder.top_{part}" for part in ("conv", "bn", "activation")]
    step = _step(
        "Top convolution", top[-1], trace, "A 1x1 convolution to the many channels that the classifier wants."
    )
    step.name = ", ".join(top)
    yield step
    yield _head(trace, "Head", "efficientnet.pooler", "The mean over all pixels; {heads}.")


def _gates(trace: Trace, block: str) -> Strip:
    gates = trace[f"{block}.squeeze_excite.act_expand"][0, :, 0, 0]
    maps = trace[f"{block}.depthwise_conv"][0]
    order = np.argsort(-gates, kind="stable")
    chosen = [*order[:MIXED], *order[-MIXED:]] if len(order) >= 2 * MIXED else list(order)
    caption = (
        f"Squeeze-and-excitation in the last of them: of {len(gates)} channels those it opens most and least, and the "
        "factor each is multiplied by."
    )
    return Strip("magnitude", caption, [Image(maps[c], f"x {gates[c]:.2f}") for c in chosen])


# --- SwiftFormer -----------------------------------------------------------------------------------------------------


def _swiftformer(trace: Trace) -> Iterator[Step]:
    yield _step("Stem", "swiftformer.patch_embed", trace, "Two 3x3 convolutions, each halving the picture.")
    for name in _numbered(trace, r"swiftformer\.encoder\.network\.\d+"):
        blocks = _numbered(trace, rf"{re.escape(name)}\.blocks\.\d+")
        if not blocks:
            yield _step("Downsampling", name, trace, "A 3x3 convolution of stride 2: fewer pixels, more channels.")
            continue
        says = (
            f"{_blocks(len(blocks))}: depthwise convolutions and MLPs, and in the last one additive attention, where "
            "all tokens meet in a single global query."
        )
        mixers = [block for block in blocks if f"{block}.attn:query" in trace]
        yield _step("Encoder blocks", name, trace, says, [_global_query(trace, block) for block in mixers[-1:]])
    yield _head(trace, "Head", "norm", "Batch norm, the mean over all pixels; {heads}.")


def _global_query(trace: Trace, block: str) -> Strip:
    query, total = trace[f"{block}.attn:query"][0], trace[f"{block}.attn:global_query"][0, 0]
    height, width = trace[block].shape[2:]
    agreement = (query @ total / np.linalg.norm(total)).reshape(height, width)
    caption = (
        "How far each place's query points the way of the global query, from -1 (blue) to 1 (red): the places that "
        "set the tone."
    )
    image = Image(agreement, f"{agreement.min():.2f} to {agreement.max():.2f}")
    return Strip("over", caption, [image], "toward the global query")


# --- all families ----------------------------------------------------------------------------------------------------


def _step(title: str, name: str, trace: Trace, says: str, strips: list[Strip] | None = None) -> Step:
    """Return a step whose output is a map, or tokens of one; the channels of largest variance are shown."""
    value = trace[name][0]
    maps = value if value.ndim == 3 else _as_map(value)
    caption = (
        f"What comes out: the {min(CHANNELS, len(maps))} of {len(maps)} channels that vary most over the picture."
    )
    images = [Image(maps[c], f"channel {c}") for c in _liveliest(maps, CHANNELS)]
    return Step(title, name, says, value.shape, 0, 0, [Strip("magnitude", caption, images), *(strips or [])])


def _head(trace: Trace, title: str, name: str, says: str) -> Step:
    heads = [n for n in trace if re.fullmatch(r"(distillation_)?classifier|(dist_)?head", n)]
    how = (
        "one linear layer gives a score per class"
        if len(heads) == 1
        else "two linear layers, whose scores are averaged"
    )
    return Step(title, ", ".join([name, *heads]), says.format(heads=how), trace[""].shape[1:], 0, 0)


def _evidence(model: PreTrainedModel, trace: Trace, best: int, label: str) -> Strip | None:
    """Return each position's contribution to the winning score, minus the mean one; exact, as the score is a mean.

    Score = mean over positions of (weight of the class · features) + bias; None where pooling is no mean.
    """
    heads = [name for name in ("classifier", "distillation_classifier", "head", "dist_head") if name in trace]
    weight = np.mean([getattr(model, name).weight[best] for name in heads], axis=0)
    for name in ("efficientformer.layernorm", "norm", "efficientnet.encoder.top_activation"):
        if name in trace:
            value = trace[name][0]
            maps = value if value.ndim == 3 else _as_map(value)
            if getattr(model.config, "pooling_type", "mean") != "mean":
                return None
            shares = np.tensordot(weight, maps, 1) / (maps.shape[1] * maps.shape[2])
            caption = (
                f"Where the score of {label}, {float(trace[''][0, best]):.2f}, comes from. It is a sum over places "
                f"(and the bias): on average each of the {shares.size} adds {shares.mean():+.3f}; red ones add more, "
                "blue ones less."
            )
            return Strip(
                "over", caption, [Image(shares - shares.mean(), f"{shares.min():+.3f} to {shares.max():+.3f}")]
            )
    return None


def _as_map(tokens: Array) -> Array:
    """Return tokens as a square map, (N, D) -> (D, H, W)."""
    side = round(len(tokens) ** 0.5)
    return tokens.T.reshape(-1, side, side)


def _liveliest(maps: Array, count: int) -> list[int]:
    """Return the channels of maps (C, H, W) that vary most over the picture, in their own order."""
    spread = maps.reshape(len(maps), -1).std(1)
    return sorted(int(c) for c in np.argsort(-spread, kind="stable")[:count])


def _numbered(trace: Trace, pattern: str) -> list[str]:
    return [name for name in trace if re.fullmatch(pattern, name)]


def _blocks(count: int) -> str:
    return "One block" if count == 1 else f"{count} blocks"
