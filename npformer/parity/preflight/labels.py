"""Check of the order of the port's classes against ours: by their names, and by the logits themselves."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...assets.imagenet import class_names
from ...convert.pipeline import read_labels
from ...nn import Module
from ...picture import Array
from ...words import listed
from ..noise import DTYPES
from ..report import Finding

SYNSET = re.compile(r"n\d{8}")
SHOWN = 4  # differing positions shown
EVIDENCE = 20.0  # log-likelihood ratio that the logits must give for an order without other evidence


def read_port_labels(path: str | Path) -> list[str]:
    """Read class names from a file: one per line, or JSON: a list, a mapping from number, or a config with `id2label`.

    In Keras's files a class is a pair of synset and name: the name is taken.

    Raises FileNotFoundError; ValueError for a file with other content.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    text = path.read_text("utf-8")
    if text.lstrip()[:1] != "{":
        return read_labels(path)
    try:
        names = json.loads(text)
        names = names.get("id2label", names)
        ordered = [names[str(index)] for index in range(len(names))]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{path} must hold names line by line, or as a JSON list or mapping from number") from None
    return [str(name[-1] if isinstance(name, list) and name else name) for name in ordered]


def check_labels(model: Module, port_labels: Sequence[str] | Mapping[Any, str]) -> list[Finding]:
    """Compare the port's class names, in the order of its logits, with the model's.

    Names count as equal where they differ only in case, in blanks and underscores, in a leading synset, or in
    further synonyms after a comma. A thousand unnamed classes are ImageNet-1k's.

    Raises ValueError for a mapping whose keys are not 0, 1, 2, ...
    """
    number = model.config.num_labels  # type: ignore[attr-defined]
    unnamed = [model.config.id2label[index] for index in range(number)]  # type: ignore[attr-defined]
    ours, theirs = class_names(unnamed), class_names(_as_list(port_labels))
    if ours == theirs:
        return []
    if _is_unnamed(ours) or _is_unnamed(theirs):
        whose = "our" if _is_unnamed(ours) else "the port's"
        return [Finding("labels", f"{whose} classes have no names, so that their order cannot be compared")]
    if all(SYNSET.fullmatch(label) for label in theirs):
        return _synsets(ours, theirs)
    if len(theirs) != len(ours):
        return [_another_number(ours, theirs)]
    different = [i for i in range(number) if not _same(ours[i], theirs[i])]
    if not different:
        text = f"the port spells class names otherwise, such as {theirs[_first(ours, theirs)]!r} for "
        return [Finding("labels", f"{text}{ours[_first(ours, theirs)]!r}; their order is ours")]
    for text, order in _orders(number, ours):
        if all(_same(ours[order[i]], theirs[i]) for i in range(number)):
            return [
                Finding("labels", f"the port's classes are in another order: {text}; {_places(ours, theirs)}", True)
            ]
    what = "in another order" if sorted(map(_plain, ours)) == sorted(map(_plain, theirs)) else "other ones"
    text = f"the port's classes are {what}: {len(different)} of {number} differ; {_places(ours, theirs)}"
    return [Finding("labels", text, True)]


def check_logit_order(ours: Array, theirs: Array, dtype: str, labels: Sequence[str] | None = None) -> Finding | None:
    """Return a bad finding where the port's logits (B, K) are ours in another order, the same for all rows; else None.

    Usual orders are tried first: shifted, reversed, classes sorted by number as text or, with `labels`, by name. Any
    other is found only where a match of so many numbers cannot be chance, which for few pictures takes a fine dtype.

    Raises ValueError for logits of ours that are not (B, K), or for an unknown dtype.
    """
    if ours.ndim != 2:
        raise ValueError(f"ours must be logits of the shape (B, K), got {ours.shape}")
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
    ours, theirs = ours.astype(np.float64), theirs.astype(np.float64)
    rows, number = ours.shape
    finite = np.isfinite(ours).all() and np.isfinite(theirs).all()
    if not finite or theirs.ndim != 2 or theirs.shape[0] != rows or number < 2:
        return None
    # All roundings accumulate in the logits: more than one unit, but far below the logits' own spread.
    spread = float(np.std(ours, axis=1).mean())
    tolerance = 32 * DTYPES[dtype][0] + 1e-4

    def fits(these: Array, others: Array) -> bool:
        return spread > 0 and float(np.sqrt(np.mean((these - others) ** 2))) <= tolerance * spread

    if theirs.shape[1] == number + 1:
        places = [("first, before", theirs[:, 1:]), ("last, after", theirs[:, :-1])]
        found = next((text for text, rest in places if fits(rest, ours)), None)
        text = f"the port has {number + 1} logits instead of {number}: one more stands {found} ours"
        return None if found is None else Finding("labels", text, True)
    if theirs.shape != ours.shape or fits(theirs, ours):
        return None
    evidence = rows * number * -math.log(tolerance)
    for text, order in _orders(number, labels):
        if evidence > EVIDENCE and fits(theirs, ours[:, order]):
            return Finding("labels", f"the port's logits are ours in another order: {text}", True)
    pairing = _pairing(ours, theirs)
    if pairing is None or evidence < math.lgamma(number + 1) + EVIDENCE or not fits(theirs, ours[:, pairing]):
        return None
    moved = listed(f"{i} holds our {pairing[i]}" for i in range(number) if pairing[i] != i)
    return Finding("labels", f"the port's logits are ours in another order: {moved}", True)


def _pairing(ours: Array, theirs: Array) -> list[int] | None:
    """Return, for each of the port's columns, the most similar one of ours; None where one would be used twice."""
    if len(ours) == 1:
        order = np.empty(ours.shape[1], int)
        order[np.argsort(theirs[0], kind="stable")] = np.argsort(ours[0], kind="stable")
        return [int(i) for i in order]
    squares = (theirs**2).sum(0)[:, None] - 2 * theirs.T @ ours + (ours**2).sum(0)
    nearest = [int(i) for i in np.argmin(squares, axis=1)]
    return nearest if len(set(nearest)) == len(nearest) else None


def _orders(number: int, labels: Sequence[str] | None) -> list[tuple[str, list[int]]]:
    """Return the usual orders: a description, and the index of our class at each position."""
    classes = list(range(number))
    orders = [
        ("one place on, the last class first", classes[-1:] + classes[:-1]),
        ("one place back, the first class last", classes[1:] + classes[:1]),
        ("reversed", classes[::-1]),
        ("sorted by their numbers as text (0, 1, 10, 100, ...)", sorted(classes, key=str)),
    ]
    if labels is not None and len(labels) == number:
        by: dict[str, Callable[[int], Any]] = {
            "alphabetical": lambda i: (labels[i].casefold(), i),
            "alphabetical, capitals first": lambda i: (labels[i], i),
            "alphabetical by first synonym": lambda i: (_first_synonym(labels[i]), i),
        }
        orders += [(text, sorted(classes, key=key)) for text, key in by.items()]
    return [(text, order) for text, order in orders if order != classes]


def _as_list(labels: Sequence[str] | Mapping[Any, str]) -> list[str]:
    if not isinstance(labels, Mapping):
        return [str(label) for label in labels]
    numbered = {str(key): str(label) for key, label in labels.items()}
    if set(numbered) != {str(index) for index in range(len(numbered))}:
        raise ValueError(f"port_labels must have the keys 0 to {len(numbered) - 1}, got {listed(numbered)}")
    return [numbered[str(index)] for index in range(len(numbered))]


def _is_unnamed(labels: Sequence[str]) -> bool:
    return all(label == f"LABEL_{index}" for index, label in enumerate(labels))


def _synsets(ours: list[str], theirs: list[str]) -> list[Finding]:
    """Check WordNet ids, whose ascending order is that of ImageNet's classes."""
    if len(ours) != len(theirs):
        return [Finding("labels", f"the port has {len(theirs)} classes instead of {len(ours)}", True)]
    if sorted(theirs) == theirs:
        return [Finding("labels", "the port names its classes by WordNet ids, in the order of ImageNet's classes")]
    first = next(i for i in range(1, len(theirs)) if theirs[i] < theirs[i - 1])
    text = "the port's WordNet ids are not in ascending order, as ImageNet's classes are"
    return [Finding("labels", f"{text}: {theirs[first]} ({first}) comes after {theirs[first - 1]}", True)]


def _another_number(ours: list[str], theirs: list[str]) -> Finding:
    text = f"the port has {len(theirs)} classes instead of {len(ours)}"
    for cut, words in ((theirs[1:], f"{theirs[0]!r} stands before ours" if theirs else ""), (theirs[:-1], "")):
        if len(cut) == len(ours) and all(map(_same, ours, cut)):
            words = words or f"{theirs[-1]!r} stands after ours"
            shifted = ", so that all are shifted by one" if cut == theirs[1:] else ""
            return Finding("labels", f"{text}: {words}{shifted}", True)
    return Finding("labels", f"{text}; {_places(ours, theirs)}", True)


def _places(ours: list[str], theirs: list[str]) -> str:
    """Return the first positions at which the lists differ."""
    places = [i for i in range(min(len(ours), len(theirs))) if not _same(ours[i], theirs[i])]
    shown = ", ".join(f"{i} is {theirs[i]!r} instead of {ours[i]!r}" for i in places[:SHOWN])
    more = len(places) - SHOWN
    return shown + (f", and {more} more" if more > 0 else "")


def _first(ours: list[str], theirs: list[str]) -> int:
    return next(i for i in range(len(ours)) if ours[i] != theirs[i])


def _same(ours: str, theirs: str) -> bool:
    return _plain(ours) == _plain(theirs) or _first_synonym(ours) == _first_synonym(theirs)


def _plain(label: str) -> str:
    """Return a name without case, synset and underscores."""
    label = SYNSET.sub("", label, count=1) if SYNSET.match(label) else label
    return " ".join(re.sub(r"[_\s,]+", " ", label).split()).casefold()


def _first_synonym(label: str) -> str:
    return _plain(label.split(",")[0])
