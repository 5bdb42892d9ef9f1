r"""Renaming rules: how tables of names are written and applied, and the parts they share. No file is opened here.

A rule maps the beginning of a key. The rest of the key must be the name of an array:

    Rule(r"stem\.conv([12])\.", r"efficientformer.patch_embed.convolution\1.")
    stem.conv2.weight -> efficientformer.patch_embed.convolution2.weight

or be renamed by the rules `inside`, which is how all blocks share one table:

    Rule(r"stages\.([0-3])\.blocks\.(\d+)\.", lambda s, j: f"network.{2 * s}.blocks.{j}.", inside=BLOCK)
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

ARRAYS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")  # arrays of layers


class Rule(NamedTuple):
    r"""A regular expression for the beginning of a key, and its replacement.

    name: text in which \1, \2 ... are the groups (by default it stays as it is); or a function of the groups, numbers
    as int, which returns None if the rule does not match after all.
    """

    pattern: str
    name: str | Callable[..., str | None] = r"\g<0>"
    inside: tuple[Rule, ...] = ()


Rules = tuple[Rule, ...]
Place = tuple[int, int]  # of a block: its stage and its index there


class Architecture(NamedTuple):
    """A model of another library and its equivalent here, for `<config class>.for_variant(variant, **settings)`."""

    variant: str
    settings: dict[str, Any]


class Source(NamedTuple):
    """A source of weights.

    rename: from its keys, of a family, to the names here. architectures: its models by their names there. marks: by
    family, a pattern for the beginning of a key that only this source's models of that family have. left_out: patterns
    for the beginning of keys that no model needs, with what they hold. refused: patterns for keys that no classifier
    has, with the kind of model that has them. arrange: from an array of the source, given its name here, to the order
    stored here.
    """

    rename: Callable[[Iterable[str], str], dict[str, str]]
    architectures: dict[str, Architecture]
    marks: dict[str, str]
    left_out: dict[str, str] = {}  # noqa: RUF012 - never changed
    refused: dict[str, str] = {}  # noqa: RUF012
    arrange: Callable[[str, np.ndarray], np.ndarray] = lambda name, array: array


class NamesError(ValueError):
    """Error for keys that have no name here; `keys` lists them."""

    def __init__(self, message: str, keys: list[str]) -> None:
        super().__init__(f"{message} {', '.join(keys)}")
        self.keys = keys


def apply(
    tables: Mapping[str, Callable[[list[str]], Rules]],
    keys: Iterable[str],
    family: str,
    source: str,
    spelling: Callable[[str], str] = str,
) -> dict[str, str]:
    """Rename each key by the first rule that matches.

    A table is a function of the keys, as some rules depend on which there are.

    `spelling` gives the spelling of a key that the tables expect, where that is not the key itself.

    Raises ValueError for a family without a table; NamesError for keys that no rule matches, or where two keys would
    get the same name (all of them listed).
    """
    if family not in tables:
        raise ValueError(f"family must be one of {', '.join(tables)} for weights of {source}, got {family!r}")
    spelled = {key: spelling(key) for key in keys}
    rules = tables[family](list(spelled.values()))
    names = {key: _rename(text, rules) for key, text in spelled.items()}
    unknown = [key for key, name in names.items() if name is None]
    if unknown:
        raise NamesError(f"no {family} of {source} has weights named", unknown)
    renamed = {key: name for key, name in names.items() if name is not None}
    counts = Counter(renamed.values())
    clashing = [f"{key} ({name})" for key, name in renamed.items() if counts[name] > 1]
    if clashing:
        raise NamesError("several weights would get the same name:", clashing)
    return renamed


def _rename(key: str, rules: Rules) -> str | None:
    """Return the key's new name, or None where no rule matches."""
    for rule in rules:
        match = re.match(rule.pattern, key)
        if match is None:
            continue
        if isinstance(rule.name, str):
            beginning: str | None = match.expand(rule.name)
        else:
            beginning = rule.name(*(int(group) if group.isdigit() else group for group in match.groups()))
        if beginning is None:
            continue
        rest = key[match.end() :]
        if rule.inside:
            ending = _rename(rest, rule.inside)
        else:
            ending = rest if rest in (ARRAYS if beginning.endswith(".") else ("",)) else None
        if ending is not None:
            return beginning + ending
    return None


def places(keys: Iterable[str], pattern: str, least: int = 1) -> set[Place]:
    """Return the stage and index, the pattern's groups, of every block with at least `least` matching keys."""
    found = Counter((int(match[1]), int(match[2])) for match in (re.match(pattern, key) for key in keys) if match)
    return {place for place, number in found.items() if number >= least}


def efficientnet_blocks(keys: list[str], block: str, mark: str, expanding: Rules, plain: Rules) -> Rules:
    """Return the rules for EfficientNet's blocks where every stage counts its own; here all stages share one count.

    `block` is the pattern that a block's keys begin with, its groups stage and index. Blocks of the first stage have
    no expansion; in other libraries, which number a block's layers, all later layers then have indices lower by one,
    hence two tables. `mark` follows `block` only in keys of blocks that have an expansion, and in several of them: a
    single missing or stray key does not change how the others are read.
    """
    name = {place: f"efficientnet.encoder.blocks.{n}." for n, place in enumerate(sorted(places(keys, block)))}
    expanded = places(keys, block + mark, least=2)
    return (
        Rule(block, lambda *place: name[place] if place in expanded else None, expanding),
        Rule(block, lambda *place: None if place in expanded else name[place], plain),
    )


# Rules for blocks, except layer scales, which every source spells differently.
META4D: Rules = (
    Rule(r"mlp\.fc([12])\.", r"mlp.convolution\1."),
    Rule(r"mlp\.norm1\.", "mlp.batchnorm_before."),
    Rule(r"mlp\.norm2\.", "mlp.batchnorm_after."),
)
META3D: Rules = (
    Rule(r"norm([12])\.", r"layernorm\1."),
    Rule(r"mlp\.fc1\.", "mlp.linear_in."),
    Rule(r"mlp\.fc2\.", "mlp.linear_out."),
    Rule(r"token_mixer\.proj\.", "token_mixer.projection."),
    Rule(r"token_mixer\.qkv\."),
    Rule(r"token_mixer\.(attention_biases|attention_bias_idxs)"),
)
SWIFTFORMER_BLOCK: Rules = (
    Rule(r"(local_representation\.|)dwconv\.", r"\1depth_wise_conv."),
    Rule(r"(local_representation\.|)norm\."),
    Rule(r"(local_representation\.|)pwconv([12])\.", r"\1point_wise_conv\2."),
    Rule(r"attn\.(to_query|to_key|proj|final)\."),
    Rule(r"attn\.w_g"),
    Rule(r"linear\.(norm1|fc1|fc2)\."),
)


def efficientformer_last_stage(keys: list[str], block: str, meta4d: Rules, meta3d: Rules, first: int = 0) -> Rules:
    """Return the rules for EfficientFormer's last stage, elsewhere a mixed list of blocks, here a list of each kind.

    `block` is the pattern that a block's keys begin with, its group the index, counted from `first`. The flattening
    from map to tokens takes up an index between the two kinds and owns no array: with it at 3 (L1), blocks 0 to 2 are
    Meta4D, block 4 is the first Meta3D. Only Meta3D has attention, so its first index determines the position.
    """
    attention = (re.match(block + r"token_mixer\.qkv\.", key) for key in keys)
    flat = min((int(match[1]) - 1 for match in attention if match), default=len(keys))
    last = "efficientformer.encoder.last_stage"
    return (
        Rule(block, lambda j: f"{last}.meta4D_layers.blocks.{j - first}." if first <= j < flat else None, meta4d),
        Rule(block, lambda j: f"{last}.meta3D_layers.blocks.{j - flat - 1}." if j > flat else None, meta3d),
    )
