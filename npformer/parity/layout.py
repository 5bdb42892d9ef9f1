"""Layouts of a port's values: the order of axes, found by comparing numbers, and undone.

A layout is an order of letters: "BHWC" is a map whose channels are innermost. Letters in brackets share one axis:
"B(HW)C" is the same map as tokens, "(BCHW)" a flat one. The letters are our own: B batch, C channels, H W height and
width, N tokens, D width, h heads, d head width.

The whole dump votes on the layout of each kind of value (maps, tokens, heads, scores). Frameworks mix channels-first
and channels-last, so a single value may differ in that, and is read accordingly. Other orders (height and width
swapped, tokens numbered column by column) are layouts only where the whole dump has them; in one value they are a
mistake of the port, and are not undone.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import permutations

import numpy as np

from ..ops import Array
from ..trace import Trace
from .report import Finding

Shape = tuple[int, ...]
Grid = tuple[int, int]

# Orders that a framework may choose for a single value, the default first. Others need the whole dump's vote.
# M is the second N of attention scores, the keys'. "others" are values whose axes have no letters.
USUAL = {
    "maps": ("BCHW", "BHWC"), "tokens": ("BND", "BDN"), "heads": ("BhNd", "BNhd", "BhdN"), "scores": ("BhNM",),
    "others": ("stuvwxyz",),
}  # fmt: skip
FREE = ("maps", "heads")  # kinds for which one value's numbers may overrule the vote
USER_LAYOUTS = {"NCHW": "BCHW", "NHWC": "BHWC"}
SAMPLE = 4096  # positions at which large values are compared
EXACT, RIGHT = 1e-7, 0.1  # distances below the first are rounding; below the second a reading is right
CLEARLY = 3.0  # ratio of distances that decides between two readings
STRONGEST = 5.0  # largest vote of one value for or against an order
DOUBT = math.log(2)  # a smaller margin decides nothing
MINIMUM, MOST = 3, 0.8  # how many values, and what fraction of all, an unusual order needs


@dataclass
class Laid:
    """A port's values in our axes.

    values: our name -> the port's value in our axes and shape, in its own dtype; views where possible. layouts: our
    name -> the port's layout. layout: the vote on maps, "NCHW", "NHWC" or an unusual one, "" where no value was
    conclusive. misshapen: our name -> the error in a shape that no layout explains.
    """

    values: dict[str, np.ndarray]
    layouts: dict[str, str]
    layout: str
    misshapen: dict[str, str]
    findings: list[Finding]


@dataclass(frozen=True)
class Reading:
    """One way to read a port's array.

    order: the letters of its axes longer than 1, outermost first. spelled: the layout for display. letters: our own
    axes in our order, with their sizes; those of size 1 are omitted.
    """

    kind: str
    order: str
    spelled: str
    letters: tuple[tuple[str, int], ...]


@dataclass
class _Pair:
    """A value of ours and the port's, with the distance between them under each reading that fits.

    across: the same with tokens numbered column by column.
    """

    name: str
    axes: str
    ours: Array
    port: Array
    grid: Grid | None
    readings: tuple[Reading, ...]
    distances: dict[Reading, float] = field(default_factory=dict)
    across: dict[Reading, float] = field(default_factory=dict)


@dataclass
class _Vote:
    """The order of a kind of value in the dump.

    heard: some values could distinguish it from the other usual ones. doubtful: they could, but do not.
    """

    order: str
    heard: bool
    doubtful: bool


def undo_layouts(
    reference: Trace,
    port: Mapping[str, np.ndarray],
    port_names: Mapping[str, str],
    layout: str = "auto",
    declared: Mapping[str, str] | None = None,
) -> Laid:
    """Convert the port's values to our axes, without changing or broadcasting any.

    `port_names` maps our names to the port's. `layout` is that of maps, "NCHW" or "NHWC"; "auto" lets the numbers
    decide. `declared` gives single values' layouts, by the port's names or ours, such as "NHWC" or "BND"; one that
    does not fit is reported and otherwise ignored.

    Raises ValueError for another `layout`.
    """
    if layout != "auto" and layout not in USER_LAYOUTS:
        raise ValueError(f"layout must be auto, {' or '.join(USER_LAYOUTS)}, got {layout!r}")
    pairs = _pairs(reference, port, port_names)
    given, findings = _given(pairs, port_names, declared or {})
    for pair in pairs:
        _measure(pair)
    across = _numbered_across(pairs)
    if across:
        findings.append(Finding("layout", "the port numbers tokens column by column; they were put in our order"))
        for pair in pairs:
            pair.distances |= pair.across
    votes = {kind: _vote(kind, pairs, given) for kind in USUAL}
    if layout != "auto":
        votes["maps"] = _Vote(USER_LAYOUTS[layout], heard=True, doubtful=False)
    findings += [_doubt(kind, vote.order) for kind, vote in votes.items() if vote.doubtful]
    laid = Laid({}, {}, votes["maps"].order.replace("B", "N") if votes["maps"].heard else "", {}, findings)
    exceptions: dict[str, list[str]] = {}
    for pair in pairs:
        reading = given.get(pair.name) or _choose(pair, votes, settled=layout != "auto")
        if reading is None:
            laid.misshapen[pair.name] = _misshapen(pair)
            continue
        if pair.name not in given and reading.order != _reduced(votes[reading.kind].order, reading.order):
            exceptions.setdefault(f"{reading.spelled} among {votes[reading.kind].order}", []).append(pair.name)
        laid.values[pair.name] = _read(pair, reading, across)
        laid.layouts[pair.name] = reading.spelled
    laid.findings += [_exception(how, names) for how, names in exceptions.items()]
    return laid


@lru_cache(maxsize=65536)
def readings(axes: str, shape: Shape, port_shape: Shape, grid: Grid | None = None) -> tuple[Reading, ...]:
    """Return every way to read an array of `port_shape` as a value of ours of `shape`, whose axes are `axes`.

    Axes may be in any order, and neighbours may share one axis; those of size 1 may be present or not. `grid` is the
    picture's height and width in tokens: then tokens may be stored as a map. Usual orders first; empty where nothing
    fits.
    """
    if math.prod(shape) != math.prod(port_shape):
        return ()
    axes = _distinct(axes, len(shape))
    letters = {letter: size for letter, size in zip(axes, shape, strict=True) if size != 1}
    kind = next((kind for kind, (first, *_) in USUAL.items() if letters.keys() <= set(first)), "others")
    if 0 in shape:
        as_ours = Reading(kind, "".join(letters), axes, tuple(letters.items()))
        return (as_ours,) if shape == port_shape else ()
    found = list(_orders(kind, letters, axes, shape, port_shape))
    if grid and kind == "tokens" and letters.get("N") == math.prod(grid):
        axes, shape = axes.replace("N", "HW").replace("D", "C"), _split(axes, shape, grid)
        letters = {letter: size for letter, size in zip(axes, shape, strict=True) if size > 1}
        if len(letters) == sum(size > 1 for size in port_shape):
            found += _orders("maps", letters, axes, shape, port_shape)
    return tuple(found)


def grids(reference: Trace) -> dict[str, Grid]:
    """Return the height and width of the token grid at each value with tokens, from the last fitting map before."""
    found: dict[str, Grid] = {}
    maps: dict[int, Grid] = {}
    for name, value in reference.items():
        axes = reference.layouts.get(name, "")
        if axes == "BCHW" and value.ndim == 4:
            maps[value.shape[2] * value.shape[3]] = (value.shape[2], value.shape[3])
        elif "N" in axes and len(axes) == value.ndim and value.shape[axes.index("N")] in maps:
            found[name] = maps[value.shape[axes.index("N")]]
    return found


def _pairs(reference: Trace, port: Mapping[str, Array], port_names: Mapping[str, str]) -> list[_Pair]:
    grid = grids(reference)
    pairs = []
    for name, theirs in port_names.items():
        ours, value = reference[name], np.asarray(port[theirs])
        axes = reference.layouts.get(name, "")
        fitting = readings(axes, ours.shape, value.shape, grid.get(name))
        pairs.append(_Pair(name, _distinct(axes, ours.ndim), ours, value, grid.get(name), fitting))
    return pairs


def _distinct(axes: str, rank: int) -> str:
    """Return the letters of our axes, made distinct: the second N is M. Where they are unknown, arbitrary letters."""
    axes = axes.replace("N", "M").replace("M", "N", 1)
    return axes if len(axes) == rank == len(set(axes)) else USUAL["others"][0][:rank]


def _split(axes: str, shape: Shape, grid: Grid) -> Shape:
    at = axes.index("N")
    return (*shape[:at], *grid, *shape[at + 1 :])


def _orders(kind: str, letters: Mapping[str, int], axes: str, shape: Shape, port_shape: Shape) -> Iterator[Reading]:
    """Yield the orders of letters whose sizes, multiplied for merged neighbours, are the port's; usual ones first."""
    sizes = [size for size in port_shape if size > 1]
    usual = [_reduced(order, letters) for order in USUAL[kind]]
    for order in dict.fromkeys([*usual, *map("".join, permutations(letters))]):
        groups = _groups(order, letters, sizes)
        if groups is not None:
            yield Reading(kind, order, _spell(groups, kind, axes, shape, port_shape), tuple(letters.items()))


def _groups(order: str, letters: Mapping[str, int], sizes: Sequence[int]) -> list[str] | None:
    """Merge neighbouring letters so that their sizes multiply to `sizes`; None where they cannot."""
    groups, rest = [], order
    for size in sizes:
        group, product = "", 1
        while product < size and rest:
            group, rest, product = group + rest[0], rest[1:], product * letters[rest[0]]
        if product != size:
            return None
        groups.append(group)
    return groups if not rest else None


def _spell(groups: Sequence[str], kind: str, axes: str, shape: Shape, port_shape: Shape) -> str:
    """Return the layout for display. Axes of size 1 have their letter where it is unambiguous, or else are 1."""
    order, sizes = "".join(groups), dict(zip(axes, shape, strict=True))
    spelled = ""
    for full in (axes, *USUAL[kind]):
        if set(full) == set(axes) and tuple(sizes[a] for a in full) == port_shape and _reduced(full, order) == order:
            spelled = full
            break
    else:
        named = iter(groups)
        for group in (next(named) if size > 1 else "1" for size in port_shape):
            spelled += group if len(group) == 1 else f"({group})"
    return spelled.replace("M", "N")


def _reduced(order: str, letters: Iterable[str]) -> str:
    """Return an order restricted to the letters that a value has."""
    present = set(letters)
    return "".join(letter for letter in order if letter in present)


def _given(
    pairs: Sequence[_Pair], port_names: Mapping[str, str], declared: Mapping[str, str]
) -> tuple[dict[str, Reading], list[Finding]]:
    """Return the readings that the dump itself declares."""
    given, wrong = {}, []
    for pair in pairs:
        declaration = declared.get(port_names[pair.name], declared.get(pair.name, ""))
        if not declaration:
            continue
        reading = next((r for r in pair.readings if _says(declaration, r)), None)
        if reading is None:
            wrong.append(f"{pair.name} {pair.port.shape} as {declaration!r}")
        else:
            given[pair.name] = reading
    text = f"declared layouts that do not fit the values were ignored: {_some(wrong)}"
    return given, [Finding("layout", text)] if wrong else []


def _says(declared: str, reading: Reading) -> bool:
    """Return whether a declared layout ("NHWC", "BHWC", "BND") matches a reading."""
    if declared == reading.spelled:
        return True
    if reading.kind == "maps":
        declared = declared.upper().replace("N", "B").replace("D", "C")
    return (
        len(set(declared)) == len(declared)
        and set(declared) >= set(reading.order)
        and _reduced(declared, reading.order) == (reading.order)
    )


def _measure(pair: _Pair) -> None:
    """Compare the two values at a sample of positions under each reading."""
    size = pair.ours.size
    random = np.random.default_rng(zlib.crc32(pair.name.encode()))
    positions = np.arange(size) if size <= SAMPLE else random.integers(0, size, SAMPLE)
    index = np.unravel_index(positions, pair.ours.shape) if size else ()
    ours = pair.ours[index].astype(np.float64)
    across: tuple[np.ndarray, ...] = index
    if pair.grid:
        across = tuple(
            _across(i, pair.grid) if letter in "NM" else i for letter, i in zip(pair.axes, index, strict=True)
        )
    for reading in pair.readings:
        view = _view(pair, reading)
        pair.distances[reading] = _distance(ours, view[index])
        if pair.grid and reading.kind != "maps":
            pair.across[reading] = _distance(ours, view[across])


def _across(tokens: np.ndarray, grid: Grid) -> np.ndarray:
    """Return the indices of tokens numbered column by column, which we number row by row."""
    rows, columns = np.divmod(tokens, grid[1])
    return columns * grid[0] + rows


def _distance(ours: Array, port: Array) -> float:
    """Return the RMS difference over the spread of ours; 1, as of unrelated values, where none is finite."""
    with np.errstate(all="ignore"):
        port = port.astype(np.float64)
        finite = np.isfinite(port) & np.isfinite(ours)
        if not finite.any():
            return 1.0
        ours, port = ours[finite], port[finite]
        size = math.sqrt(np.mean(ours * ours))
        spread = max(float(ours.std()), 1e-3 * size, float(np.finfo(np.float32).tiny))
        return max(float(np.sqrt(np.mean((port - ours) ** 2)) / spread), EXACT)


def _view(pair: _Pair, reading: Reading) -> Array:
    """Return the port's array under a reading, in our axes and shape."""
    letters = dict(reading.letters)
    array = pair.port.reshape([letters[letter] for letter in reading.order])
    return array.transpose([reading.order.index(letter) for letter in letters]).reshape(pair.ours.shape)


def _read(pair: _Pair, reading: Reading, across: bool) -> Array:
    """Return the port's array in our axes, tokens in our order."""
    value = _view(pair, reading)
    if across and reading in pair.across and pair.grid:
        places = _across(np.arange(math.prod(pair.grid)), pair.grid)
        for axis, letter in enumerate(pair.axes):
            value = np.take(value, places, axis) if letter in "NM" else value
    return value


def _numbered_across(pairs: Sequence[_Pair]) -> bool:
    """Return whether tokens are numbered column by column: most values agree only so, and none only otherwise."""
    both = [(_best(pair.across), _best({r: pair.distances[r] for r in pair.across})) for pair in pairs if pair.across]
    both = [(across, plain) for across, plain in both if across != plain]
    for_it = sum(across < RIGHT and CLEARLY * across < plain for across, plain in both)
    against = any(plain < RIGHT and CLEARLY * plain < across for across, plain in both)
    return for_it >= max(MINIMUM, MOST * len(both)) and not against


def _best(distances: Mapping[Reading, float]) -> float:
    return min(distances.values(), default=math.inf)


def _vote(kind: str, pairs: Sequence[_Pair], given: Mapping[str, Reading]) -> _Vote:
    """Decide the order of a kind of values by vote.

    Each value votes by how much farther from ours it is in an order than in its best one. The worse its best
    agreement, as after a fault, the less its vote counts, except against orders that its shape rules out.
    """
    usual, orders = USUAL[kind], USUAL[kind]
    if kind != "others":  # of equally good ones the first: then those of frameworks that count axes from the end
        backwards = [order[::-1] for order in usual]
        orders = tuple(dict.fromkeys([*usual, *backwards, *map("".join, permutations(usual[0]))]))
    against, support, voters = dict.fromkeys(orders, 0.0), dict.fromkeys(orders, 0), dict.fromkeys(orders, 0)
    ballots = []
    for pair in pairs:
        fitting = [given[pair.name]] if pair.name in given else pair.readings
        costs = _costs([r for r in fitting if r.kind == kind], pair.distances)
        if not costs:
            continue
        reduced = {order: _reduced(order, next(iter(costs))) for order in orders}
        ballots.append(reduced)
        possible = {reduced[order] for order in usual}
        nearest = min(costs[order][1] if order in costs else math.inf for order in possible)
        for order in orders:
            cost, distance = costs.get(reduced[order], (STRONGEST, math.inf))
            against[order] += cost
            voters[order] += reduced[order] not in possible
            support[order] += nearest == math.inf > distance or (distance < RIGHT and CLEARLY * distance < nearest)
    best, unusual = min(usual, key=against.__getitem__), min(orders, key=against.__getitem__)
    if unusual not in usual and support[unusual] >= max(MINIMUM, MOST * voters[unusual]):
        return _Vote(unusual, heard=True, doubtful=False)
    heard = any(ballot[order] != ballot[best] for ballot in ballots for order in usual)
    close = [order for order in usual if against[order] - against[best] < DOUBT]
    doubtful = any(ballot[order] != ballot[best] for ballot in ballots for order in close)
    return _Vote(usual[0] if doubtful else best, heard, doubtful)


def _costs(fitting: Sequence[Reading], distances: Mapping[Reading, float]) -> dict[str, tuple[float, float]]:
    """Return a value's cost of each order that fits its shape, 0 for the best one; and the distance in it."""
    if not fitting:
        return {}
    best = min(distances[reading] for reading in fitting)
    trust = min(max((0.8 - best) / 0.7, 0.02), 1.0)
    return {
        reading.order: (trust * min(math.log(distances[reading] / best), STRONGEST), distances[reading])
        for reading in fitting
    }


def _choose(pair: _Pair, votes: Mapping[str, _Vote], settled: bool) -> Reading | None:
    """Choose the reading of one value by the vote, or by its shape or, clearly, its numbers; None if misshapen."""
    for kind in dict.fromkeys(reading.kind for reading in pair.readings):
        fitting = {reading.order: reading for reading in pair.readings if reading.kind == kind}
        present = next(iter(fitting))
        voted = fitting.get(_reduced(votes[kind].order, present))
        usual = [fitting[o] for o in (_reduced(order, present) for order in USUAL[kind]) if o in fitting]
        if not usual and voted is None:
            continue
        nearest = min(usual, key=lambda r: pair.distances[r], default=voted)
        if voted is None or nearest is None:
            return nearest
        near, far = pair.distances[nearest], pair.distances[voted]
        free = kind in FREE and votes[kind].order in USUAL[kind] and not (settled and kind == "maps")
        return nearest if free and near < RIGHT and CLEARLY * near < far else voted
    return None


def _misshapen(pair: _Pair) -> str:
    text = f"has shape {pair.port.shape}, which no layout makes of our {pair.ours.shape}"
    only = ", ".join(reading.spelled for reading in pair.readings)
    return text + (f", unless as {only}, an order the rest of the dump does not have" if only else "")


def _doubt(kind: str, order: str) -> Finding:
    return Finding("layout", f"nothing in the dump tells how the port lays out {kind}; they were read as {order}")


def _exception(how: str, names: Sequence[str]) -> Finding:
    return Finding("layout", f"laid out as {how}: {_some(names)}")


def _some(texts: Sequence[str]) -> str:
    return ", ".join(texts[:5]) + (f" ... ({len(texts)} in all)" if len(texts) > 5 else "")
