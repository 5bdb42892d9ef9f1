"""Alignment of a port's values with ours where the names do not match: by shape, order and numbers.

Both sides are sequences, and a port computes in our order, omitting some values and adding others. So they are aligned
as two texts are: of all sets of non-crossing pairs the one with the largest total score is taken. A pair's score is
the similarity of the sorted numbers of both, which no layout changes; after a fault the numbers differ, and shape,
order and the kind of op remain. The confidence of a pair is the loss of score in the best alignment without it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..ops import Array
from ..trace import Trace
from .layout import Grid, grids, readings

LEVELS = 65  # quantiles of a value's numbers, the smallest and the largest included
NEAR, ALIKE = 0.05, 1e-4  # distances: above the first, numbers are no evidence; below the second, full evidence
LEAST_SPREAD = 0.02  # of the largest number: anything less may be rounding in half precision
SURE = 2.0  # score of numbers, and lead, that make a pair certain whatever its position
FAR = 0.75  # penalty for dissimilar numbers
OP = 0.7  # bonus for a name that suggests the same op, penalty for another
REGROUPED = 0.5  # penalty for a shape that is ours only with axes merged or split
PRESENT = (0.5, 6.0)  # range of the bonus of every pair, by how complete the dump appears
NEARLY_ALL = 0.95  # fraction of values with matching shapes, above which shapes show how complete it is
ANCHORS = 5  # sure pairs needed to judge how complete a dump is
IN_ORDER = 0.9  # fraction of the sure pairs that must be in order to trust the order
NEIGHBOURS = 8  # largest distance of equal values of a dump that count as one value passed on
FIXED = 1e4  # score of known pairs: more than all others together
BY_NUMBERS, BY_PLACE = 2.0, 6.0  # confidence is 1 - exp(-lead / this), for pairs with like numbers and for others

_OPS = {
    "conv": ("conv",), "linear": ("linear", "dense", "fc", "gemm", "matmul", "dot"), "norm": ("norm", "bn", "ln"),
    "act": ("gelu", "relu", "silu", "swish", "act", "activation", "sigmoid", "erf", "hardswish"),
    "softmax": ("softmax", "probs"), "pool": ("pool", "pooling", "pooled", "avgpool", "mean"),
    "pad": ("pad", "padding"),
}  # fmt: skip
_KINDS = {
    "Conv2d": "conv", "Linear": "linear", "BatchNorm2d": "norm", "LayerNorm": "norm", "Activation": "act",
    "AvgPool2d": "pool", "AdaptiveAvgPool2d": "pool", "AdaptiveMaxPool2d": "pool", "pooled": "pool",
    "probs": "softmax", "EfficientNetPadding": "pad", "EfficientFormerPooling": "pool",
}  # fmt: skip
_CONVOLUTIONS = {"conv", "linear"}  # on one pixel they are the same


@dataclass(frozen=True)
class Aligned:
    """A pair, our name and the port's, and its confidence, from 0 (another would do as well) to 1."""

    ours: str
    theirs: str
    confidence: float


def align(
    reference: Trace,
    port: Mapping[str, np.ndarray],
    fixed: Mapping[str, str],
    ours: Sequence[str],
    theirs: Sequence[str],
    kinds: Mapping[str, str],
    ordered: bool,
) -> list[Aligned]:
    """Pair the names `ours` and `theirs`, which are still unmatched, as far as possible; in our order.

    `fixed` are known pairs, our name -> the port's, which order the rest. `kinds` gives the kind of module of our
    values ("Conv2d"). Of consecutive equal values, such as a layer's and its module's, the first is paired with the
    first, further ones in order where the port has as many. Without `ordered`, or where numbers contradict the port's
    order, numbers alone decide.
    """
    mine = {name: _quantiles(reference[name]) for name in ours}
    yours = {name: _quantiles(port[name]) for name in theirs}
    rows = _handed_on(reference, mine, NEIGHBOURS)
    nameless = ordered and len(fixed) < ANCHORS
    one_by_one = _one_by_one(reference, port, ours, theirs) if nameless else {}
    if one_by_one:
        alike = [[one_by_one[name] for name in names if name in one_by_one] for names in rows.values()]
        columns = {names[0]: names for names in alike if names}
    else:
        columns = _handed_on(port, yours, NEIGHBOURS if ordered else len(theirs))
    if not rows or not columns:
        return []
    scores = _Scores(reference, port, list(rows), list(columns), mine, yours, kinds)
    place = {name: position for position, name in enumerate(reference)}
    order = _order(scores, fixed, list(port), place, ordered)
    if not order and ordered:
        return align(reference, port, fixed, ours, theirs, kinds, False)
    good = {theirs for name, theirs in fixed.items() if _alike(reference[name], port[theirs])}
    pairs = _in_sequence(scores, fixed, good, order, place, bool(one_by_one)) if order else _by_numbers(scores)
    found = []
    for row, column, confidence in pairs:
        same = [name for name in columns[column] if _long(port[name]) == _long(port[column])]
        found += [Aligned(o, t, confidence) for o, t in zip(rows[row], same, strict=False)]
    return sorted(found, key=lambda pair: place[pair.ours])


def _long(value: Array) -> list[int]:
    """Return the sizes of the axes longer than 1."""
    return [size for size in np.shape(value) if size > 1]


def _one_by_one(
    reference: Trace, port: Mapping[str, Array], ours: Sequence[str], theirs: Sequence[str]
) -> dict[str, str]:
    """Map ours to theirs in order if there are as many (or one more of ours, the input) and all shapes fit; else {}.

    Then equal values of the port are known even where a fault makes them all zero or NaN.
    """
    grid = grids(reference)
    names = ours[len(ours) - len(theirs) :]
    pairs = dict(zip(names, theirs, strict=False)) if 0 <= len(ours) - len(theirs) <= 1 else {}
    for mine, yours in pairs.items():
        layout = reference.layouts.get(mine, "")
        if not readings(layout, reference[mine].shape, np.shape(port[yours]), grid.get(mine)):
            return {}
    return pairs


def _handed_on(values: Mapping[str, Array], quantiles: Mapping[str, Array], reach: int) -> dict[str, list[str]]:
    """Group the names of equal values, in any layout, that are at most `reach` apart, by the first one's name."""
    groups: dict[str, list[str]] = {}
    last: dict[object, tuple[int, str]] = {}
    for position, (name, numbers) in enumerate(quantiles.items()):
        key = (*sorted(_long(values[name])), numbers.tobytes())
        at, first = last.get(key, (position, name))
        if position - at > reach or not numbers[0] < numbers[-1]:  # NaN or constant: equal, but perhaps unrelated
            first = name
        groups.setdefault(first, []).append(name)
        last[key] = position, first
    return groups


def _quantiles(value: Array) -> Array:
    """Return LEVELS quantiles of the finite numbers of a value; NaN where there are none."""
    with np.errstate(all="ignore"):
        numbers = np.asarray(value).astype(np.float32).reshape(-1)
    numbers = numbers[np.isfinite(numbers)]
    if not numbers.size:
        return np.full(LEVELS, np.nan)
    numbers.sort()
    return numbers[np.round(np.linspace(0, numbers.size - 1, LEVELS)).astype(int)].astype(np.float64)


class _Scores:
    """Scores of pairs of our values (rows) and the port's (columns); -inf where the shapes are incompatible."""

    def __init__(
        self,
        reference: Trace,
        port: Mapping[str, Array],
        rows: list[str],
        columns: list[str],
        mine: Mapping[str, Array],
        yours: Mapping[str, Array],
        kinds: Mapping[str, str],
    ) -> None:
        self.rows, self.columns = rows, columns
        shape = (len(rows), len(columns))
        self.possible = np.zeros(shape, bool)
        self.numbers, self.hints = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        grid = grids(reference)
        shapes = [np.shape(port[column]) for column in columns]
        ops = np.array([_op_of(column) for column in columns])
        quantiles = np.array([yours[column] for column in columns])
        fits: dict[tuple[object, ...], Array] = {}
        for i, row in enumerate(rows):
            key = (reference.layouts.get(row, ""), reference[row].shape, grid.get(row))
            if key not in fits:
                fits[key] = np.array([_fit(*key, shape) for shape in shapes])
            self.possible[i] = np.isfinite(fits[key])
            at = np.flatnonzero(self.possible[i])
            self.numbers[i, at] = _likeness(mine[row], quantiles[at])
            self.hints[i, at] = fits[key][at] + _agreement(_KINDS.get(kinds.get(row, ""), ""), ops[at])
        self.sure = [(i, j) for i, j, lead in _mutual(self.total(0)) if min(lead, self.numbers[i, j]) >= SURE]

    def total(self, present: float) -> Array:
        """Return all scores, each with the bonus `present` for every pair."""
        return np.where(self.possible, np.float32(present) + self.numbers + self.hints, -np.inf)


def _fit(axes: str, shape: tuple[int, ...], grid: Grid | None, port_shape: tuple[int, ...]) -> float:
    if not readings(axes, shape, port_shape, grid):
        return -math.inf
    long = sum(size > 1 for size in shape), sum(size > 1 for size in port_shape)
    return 0.0 if long[0] == long[1] else -REGROUPED


def _likeness(ours: Array, theirs: Array) -> Array:
    """Return scores of the numbers of one value of ours and of several of the port's: from SURE or more to -FAR."""
    size = np.abs(ours).max()
    spread = max(float(ours.std()), LEAST_SPREAD * float(size), float(np.finfo(np.float32).tiny))
    distance = np.sqrt(((theirs - ours) ** 2).mean(1)) / spread
    distance = np.where(np.isnan(distance), 1.0, np.maximum(distance, ALIKE))
    return np.maximum(np.log(NEAR / distance) * np.where(distance > NEAR, 0.2, 1.0), -FAR)


def _alike(ours: Array, theirs: Array) -> bool:
    """Return whether two values, in any layout, have nearly the same mean and spread."""
    with np.errstate(all="ignore"):
        theirs = np.asarray(theirs).astype(np.float64)
        spread = max(float(ours.std()), LEAST_SPREAD * float(np.abs(ours).max()), float(np.finfo(np.float32).tiny))
        return bool(max(abs(theirs.mean() - ours.mean()), abs(theirs.std() - ours.std())) < 0.01 * spread)


def _op_of(name: str) -> str:
    """Return the op that the last words of a port's name suggest, or ""."""
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)
    for word in reversed(words[-4:]):
        for op, hints in _OPS.items():
            if word.lower() in hints or ("conv" in word.lower() and op == "conv"):
                return op
    return ""


def _agreement(op: str, others: Array) -> Array:
    if not op:
        return np.zeros(len(others))
    same = others == op
    if op in _CONVOLUTIONS:
        same = np.isin(others, list(_CONVOLUTIONS))
    return np.where(others == "", 0.0, np.where(same, OP, -OP))


def _order(
    scores: _Scores, fixed: Mapping[str, str], names: list[str], place: Mapping[str, int], ordered: bool
) -> list[str]:
    """Return the port's names in order of computation: as given, or by the numbers in them; [] if neither fits.

    Known and sure pairs must be in order. For a dump without an order there must be enough of them.
    """
    pairs = [(place[row], column) for row, column in fixed.items()]
    pairs += [(place[scores.rows[i]], scores.columns[j]) for i, j in scores.sure]
    for order in (names, sorted(names, key=_natural)):
        at = {name: position for position, name in enumerate(order)}
        chain = _longest_rising([at[column] for _, column in sorted(pairs)])
        if chain >= IN_ORDER * len(pairs) and (len(pairs) >= ANCHORS or ordered):
            return order
    return []


def _natural(name: str) -> list[tuple[int, int, str]]:
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]


def _longest_rising(numbers: Iterable[int]) -> int:
    """Return the length of the longest increasing subsequence."""
    ends: list[int] = []
    for number in numbers:
        at = int(np.searchsorted(ends, number)) if ends else 0
        ends[at : at + 1] = [number]
    return len(ends)


def _mutual(total: Array) -> list[tuple[int, int, float]]:
    """Return pairs that are each other's best: row, column, and their lead over the next best, or over no pair."""
    found = []
    for i, j in enumerate(total.argmax(1)):
        if np.isfinite(total[i, j]) and total[:, j].argmax() == i:
            rivals = np.concatenate([np.delete(total[i], j), np.delete(total[:, j], i)])
            found.append((i, int(j), float(total[i, j] - rivals.max(initial=0))))
    return found


def _by_numbers(scores: _Scores) -> list[tuple[str, str, float]]:
    """Return pairs without any order: those whose numbers are similar, and to no other's."""
    return [
        (scores.rows[i], scores.columns[j], _confidence(lead, BY_NUMBERS))
        for i, j, lead in _mutual(scores.total(0))
        if scores.numbers[i, j] > 0
    ]


def _confidence(lead: float, scale: float) -> float:
    return 1 - math.exp(-max(lead, 0) / scale)


def _in_sequence(
    scores: _Scores,
    fixed: Mapping[str, str],
    good: set[str],
    names: Sequence[str],
    place: Mapping[str, int],
    complete: bool,
) -> list[tuple[str, str, float]]:
    """Return the best alignment of two sequences that keeps the fixed pairs as far as they are in order.

    `good` are the port's names in fixed pairs with similar numbers. A fault affects everything after it: so before the
    point where similarity ends, only values with similar numbers are paired, unless the dump is `complete`.
    """
    rows = sorted({*scores.rows, *fixed}, key=lambda name: place[name])
    wanted = {*scores.columns, *fixed.values()}
    columns = [name for name in names if name in wanted]
    row_at, column_at = {n: i for i, n in enumerate(rows)}, {n: j for j, n in enumerate(columns)}
    my_rows = np.array([row_at[name] for name in scores.rows])
    my_columns = np.array([column_at[name] for name in scores.columns])
    alike = np.zeros(len(columns), bool)
    alike[[column_at[name] for name in good]] = True
    alike[[my_columns[j] for _, j in scores.sure]] = True
    front = 0 if complete else _front(alike)
    free = scores.total(_presence(scores, my_rows, my_columns, front))
    free[(scores.numbers <= 0) & (my_columns < front)] = -np.inf
    total = np.full((len(rows), len(columns)), -np.inf)
    total[np.ix_(my_rows, my_columns)] = free
    for row, column in fixed.items():
        total[row_at[row], column_at[column]] = FIXED
    before, after = _sums(total), _sums(total[::-1, ::-1])[::-1, ::-1]
    through = before[:-1, :-1] + total + after[1:, 1:]
    without = (before[:, :-1] + after[:, 1:]).max(0)  # each column omitted
    my_row, my_column = {at: i for i, at in enumerate(my_rows)}, {at: j for j, at in enumerate(my_columns)}
    found = []
    for i, j in _path(total, before):
        if i in my_row and j in my_column:
            lead = before[-1, -1] - max(np.delete(through[:, j], i).max(initial=-np.inf), without[j])
            like = scores.numbers[my_row[i], my_column[j]] > 0
            found.append((rows[i], columns[j], _confidence(float(lead), BY_NUMBERS if like else BY_PLACE)))
    return found


def _front(alike: Array) -> int:
    """Return how many of the columns come before a fault: where they change from mostly similar to ours to mostly not.

    The change point of maximum likelihood, with a rate on each side; all columns if there is no such change.
    """
    counts, sizes = np.concatenate([[0], np.cumsum(alike)]), np.arange(len(alike) + 1)

    def likelihood(hits: np.ndarray, of: np.ndarray) -> np.ndarray:
        rate = (hits + 0.5) / (of + 1)
        return hits * np.log(rate) + (of - hits) * np.log(1 - rate)

    both = likelihood(counts, sizes) + likelihood(counts[-1] - counts, sizes[-1] - sizes)
    falls = (counts + 0.5) / (sizes + 1) > 3 * (counts[-1] - counts + 0.5) / (sizes[-1] - sizes + 1)
    falls[-1] = counts[-1] > 0
    return int(np.where(falls, both, -np.inf).argmax()) if falls.any() else 0


def _sums(total: Array) -> Array:
    """Return the best score of an alignment of the first i rows with the first j columns, for all i and j."""
    sums = np.zeros((total.shape[0] + 1, total.shape[1] + 1))
    for i, row in enumerate(total):
        np.maximum.accumulate(np.maximum(sums[i, 1:], sums[i, :-1] + row), out=sums[i + 1, 1:])
    return sums


def _path(total: Array, sums: Array) -> list[tuple[int, int]]:
    """Return the pairs of the best alignment."""
    pairs = []
    i, j = total.shape
    while i and j:
        if sums[i, j] == sums[i - 1, j]:
            i -= 1
        elif sums[i, j] == sums[i, j - 1]:
            j -= 1
        else:
            i, j = i - 1, j - 1
            pairs.append((i, j))
    return pairs[::-1]


def _presence(scores: _Scores, rows: Array, columns: Array, front: int) -> float:
    """Return the bonus of every pair: large if the dump has nearly all of our values and few others.

    Counted before the fault. Where it is too early for that, shapes decide, if nearly all of them can be paired.
    `rows` and `columns` are the positions of the rows and columns of the scores.
    """
    sure = [(rows[i], columns[j]) for i, j in scores.sure if columns[j] < front]
    if len(sure) >= ANCHORS:
        last = max(row for row, _ in sure)
        return _presence_of(len(sure), int((rows <= last).sum()), int((columns < front).sum()))
    fitting = np.where(scores.possible, 1.0, -np.inf)
    pairs = int(_sums(fitting[rows.argsort()][:, columns.argsort()])[-1, -1])
    if pairs < NEARLY_ALL * max(fitting.shape):
        return PRESENT[0]
    return _presence_of(pairs, *fitting.shape)


def _presence_of(pairs: int, rows: int, columns: int) -> float:
    lacking, foreign = (rows - pairs + 1) / (rows + 2), (columns - pairs + 1) / (columns + 2)
    return min(max(math.log((1 - lacking) * (1 - foreign) / (lacking * foreign)), PRESENT[0]), PRESENT[1])
