"""Check of the port's input against ours, and diagnosis of its preprocessing if they differ.

    level 0..255 --rescale--> level * factor - offset --normalise--> (x - mean[c]) / std[c]

Every step is linear in the level, channel by channel, and every reordering of pixels (swapped channels, a flip,
another layout) moves them without changing them. So a candidate is a picture of levels, an arrangement of its pixels,
and a scale and a shift per channel; each is tried on some thousand pixels first and, where it holds there, on all.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np

from ...image import HALVES, IMAGENET_MEAN, IMAGENET_STD
from ...picture import Array, load_image
from ..noise import DTYPES
from ..report import CauseFound, Finding
from .resampling import Resampled, right_way, ways

SAMPLE = 512  # pixels on which a candidate is tried first
TIES = 2.0  # ratio to the best candidate's error within which another is as good
ENOUGH = 0.25  # fraction of the port's input that an arrangement must cover
FLOATS = 2.0**-22  # of the largest value: a few roundings in float32, whatever the port's dtype
SMALLEST = {"float16": 2.0**-25}  # half the smallest step, where subnormals matter
PARTIAL = ("input-shifted", "input-crop", "input-padded")  # arrangements that need not cover the port's input
DATA_SETS = {
    "ImageNet": (IMAGENET_MEAN, IMAGENET_STD),
    "Inception": (HALVES, HALVES),
    "CLIP": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
}


@dataclass
class InputCheck:
    """The result of comparing the port's input with ours.

    finding: None where they are equal; not bad where only the layout differs; otherwise bad. causes: likely mistakes,
    best first; several mean that they are indistinguishable, none that the cause is unknown. A cause of two parts has
    a key such as "input-bgr+input-not-rescaled"; a ratio there is the root mean square error over a unit of rounding.
    ratio: the largest difference to our input over the rounding error allowed; inf for another shape.
    """

    finding: Finding | None
    causes: list[CauseFound]
    ratio: float


def describe_input(pixel_values: Array, mean: Any = None, std: Any = None) -> Finding | None:
    """Return a remark where `pixel_values` (B, C, H, W) look as if they had not been normalised.

    mean, std: those of the expected normalisation, one number or one per channel.

    Raises ValueError for NaN or infinite values.
    """
    bad = int(pixel_values.size - np.isfinite(pixel_values).sum())
    if bad:
        raise ValueError(f"pixel_values must be finite, got {bad} values of {pixel_values.size} that are NaN or inf")
    if pixel_values.size == 0 or pixel_values.min() < 0:
        return None
    smallest = 0.0 if mean is None or std is None else float(-np.max(np.divide(mean, std)))
    low, high = float(pixel_values.min()), float(pixel_values.max())
    normalised = "normalised ones, which the model was made for, are partly negative"
    if high > 20:
        return Finding("input", f"our own pixel_values, {low:.3g} to {high:.3g}, look like 0..255; {normalised}")
    if high <= 1 and (mean is None or smallest < -0.5):
        return Finding("input", f"our own pixel_values, {low:.3g} to {high:.3g}, look like 0..1; {normalised}")
    return None


def check_input(
    pixel_values: Array,
    port_input: Array,
    *,
    dtype: str,
    image_mean: Any = None,
    image_std: Any = None,
    rescale_factor: float = 1 / 255,
    picture: Any = None,
    processor: Any = None,
) -> InputCheck:
    """Compare the port's input with ours (B, C, H, W) and diagnose the difference in preprocessing.

    The port's may also be (C, H, W), channels last, or flattened. dtype: the port's. image_mean, image_std,
    rescale_factor: the preprocessing of our pixels from levels 0..255; `processor`, the model's image processor, is
    more precise and takes precedence. Without either they are guessed from the pixels. picture: the first picture of
    the batch, anything `load_image` accepts; with it and the processor, other ways of resizing and cropping are tried.

    Raises ValueError for pixels of ours that are not finite or not (B, C, H, W), or for an unknown dtype.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
    if pixel_values.ndim != 4 or pixel_values.size == 0:
        raise ValueError(f"pixel_values must have the shape (B, C, H, W), none of them 0, got {pixel_values.shape}")
    describe_input(pixel_values)
    ours = pixel_values.astype(np.float64)
    theirs, note = _in_our_layout(ours, np.asarray(port_input).astype(np.float64))
    if not np.isfinite(theirs).all():
        text = f"the port's input holds {int((~np.isfinite(theirs)).sum())} values that are NaN or inf"
        return InputCheck(Finding("input", text, True), [], math.inf)
    same = theirs.shape == ours.shape
    normalisation = _normalisation(ours, image_mean, image_std, rescale_factor, processor)
    search = _Search(ours, theirs, dtype, normalisation, picture, processor)
    ratio = search.ratio() if same else math.inf
    if same and search.is_cast():
        finding = Finding("input", f"the port's input is ours, {note}") if note else None
        return InputCheck(finding, [], ratio)
    causes = search.causes(closely=ratio <= 1)
    if ratio <= 1 and not causes:
        finding = Finding("input", f"the port's input is ours, {note}") if note else None
        return InputCheck(finding, [], ratio)
    return InputCheck(Finding("input", _sentence(ours, theirs, note, causes, search.remark), True), causes, ratio)


def _sentence(ours: Array, theirs: Array, note: str, causes: list[CauseFound], remark: str) -> str:
    text = f"the port's input{f' ({note})' if note else ''} is not ours"
    if ours.shape != theirs.shape:
        text += f": it has shape {theirs.shape} instead of {ours.shape}"
    if causes:
        return f"{text}: " + "; or ".join(cause.text for cause in causes) + remark
    if ours.shape != theirs.shape:
        return text + remark
    at = np.unravel_index(np.argmax(np.abs(theirs - ours)), ours.shape)
    place = ", ".join(str(int(i)) for i in at)
    return (
        f"{text}, and no usual cause explains it: at [{place}], where they differ most, it is {theirs[at]:.6g} "
        f"instead of {ours[at]:.6g}{remark}"
    )


def _in_our_layout(ours: Array, theirs: Array) -> tuple[Array, str]:
    """Return the port's input as (B, C, H, W), and a note on its layout if it was another."""
    batch, channels, height, width = ours.shape
    if theirs.ndim == 3 and batch == 1:
        array, note = _in_our_layout(ours, theirs[None])
        return array, note or "without the axis of the batch"
    if theirs.ndim == 4 and theirs.shape[1] != channels and theirs.shape[3] == channels:
        return theirs.transpose(0, 3, 1, 2), "channels last"
    if theirs.ndim in (1, 2) and theirs.size == ours.size:
        first = theirs.reshape(ours.shape)
        last = theirs.reshape(batch, height, width, channels).transpose(0, 3, 1, 2)
        if np.abs(last - ours).max() < np.abs(first - ours).max():
            return last, "channels last, flattened"
        return first, "flattened"
    return theirs, ""


# --- from levels to pixels -------------------------------------------------------------------------------------------


class Normalisation(NamedTuple):
    """The map pixel[c] = (level * factor - offset - mean[c]) / std[c], divided twice where `divisions` is 2."""

    factor: float
    offset: float
    mean: Array
    std: Array
    divisions: int

    @property
    def divisor(self) -> Array:
        """The product of all divisions by the standard deviation."""
        return self.std**self.divisions


@dataclass(frozen=True)
class Preparation:
    """The map pixel[c] = level * scale[c] + shift[c]: its mistakes, and the size of the subtracted terms."""

    keys: tuple[str, ...]
    texts: tuple[str, ...]
    scale: Array
    shift: Array
    subtracted: Array


def _normalisation(ours: Array, mean: Any, std: Any, factor: float, processor: Any) -> Normalisation | None:
    """Return the normalisation of our pixels; None where it is unknown and no usual one gives integer levels."""
    channels = ours.shape[1]

    def one_each(values: Any) -> Array:
        return np.broadcast_to(np.asarray(values, np.float64), (channels,)).copy()

    if processor is not None:
        normalises = processor.do_normalize
        return Normalisation(
            processor.rescale_factor if processor.do_rescale else 1 / 255,
            float(bool(processor.do_rescale and getattr(processor, "rescale_offset", False))),
            one_each(processor.image_mean if normalises else 0),
            one_each(processor.image_std if normalises or getattr(processor, "include_top", False) else 1),
            int(bool(normalises)) + int(bool(getattr(processor, "include_top", False))) or 1,
        )
    given = None if mean is None or std is None else (mean, std)
    pairs = [given] if given else [pair for pair in DATA_SETS.values() if channels == 3]
    candidates = [
        Normalisation(factor, 0.0, one_each(m), one_each(s), divisions) for divisions in (1, 2) for m, s in pairs
    ]
    whole = (candidate for candidate in candidates if _gives_levels(ours, candidate))
    return next(whole, candidates[0] if given else None)


def _gives_levels(ours: Array, how: Normalisation) -> bool:
    """Return whether our pixels come from integer levels 0..255."""
    levels = _levels(ours, how)
    return bool(np.all(np.abs(levels - np.clip(np.rint(levels), 0, 255)) < 0.01))


def _levels(ours: Array, how: Normalisation) -> Array:
    column = (slice(None), None, None)
    return (ours * how.divisor[column] + how.mean[column] + how.offset) / how.factor


def _preparations(how: Normalisation, channels: int) -> list[Preparation]:
    """Return all usual maps from levels to pixels: the right one first, then those with one mistake, then with two."""
    f, o, m, s = how.factor, how.offset, how.mean, how.divisor
    one, zero = np.ones(channels), np.zeros(channels)
    rescaled: list[tuple[str, str, float, float]] = [
        ("", "", f, -o),
        ("input-not-rescaled", "the levels 0..255 are not rescaled to 0..1", 1.0, 0.0),
        ("input-rescaled-twice", f"the levels are rescaled (times {f:.5g}) twice", f * f, -(f * o + o)),
        ("input-rescale-offset", f"{'no ' if o else ''}1 is subtracted after rescaling", f, -(1 - o)),
    ]
    known = "as it should be" if how.divisions == 1 else "only"
    normalised: list[tuple[str, str, Array, Array]] = [  # factor and summand for the rescaled levels
        ("", "", 1 / s, -m / s),
        ("input-not-normalised", "mean and deviation are left out", one, zero),
        ("input-normalised-twice", "the pixels are normalised twice", 1 / s**2, -m / s**2 - m / s),
        ("input-other-mean-std", "the mean is subtracted, but nothing divided by the deviation", one, -m),
        ("input-other-mean-std", "divided by the deviation, but without subtracting the mean", 1 / s, zero),
    ]
    if how.divisions == 2:
        text = f"divided by image_std once {known}, not a second time"
        normalised.append(("input-second-division", text, 1 / how.std, -m / how.std))
    else:
        text = "divided by image_std a second time, as only EfficientNet's processor does"
        normalised.append(("input-second-division", text, 1 / s**2, -m / s**2))
    for name, (mean, std) in DATA_SETS.items() if channels == 3 else ():
        text = f"normalised with {name}'s mean {_numbers(mean)} and deviation {_numbers(std)}"
        normalised.append(("input-other-mean-std", text, 1 / np.array(std), -np.array(mean) / np.array(std)))
    found = []
    for (key, text, factor, summand), (key2, text2, times, plus) in itertools.product(rescaled, normalised):
        keys, texts = tuple(k for k in (key, key2) if k), tuple(t for t in (text, text2) if t)
        found.append(Preparation(keys, texts, factor * times, summand * times + plus, np.abs(plus)))
    before = "the levels are normalised first and rescaled afterwards"
    found.append(Preparation(("input-normalised-before-rescaling",), (before,), f / s, (-m / s - o) * f, m / s * f))
    return _distinct(found)


def _distinct(found: list[Preparation]) -> list[Preparation]:
    """Return those with fewer mistakes first, without duplicates of an earlier one."""
    kept: dict[str, Preparation] = {}
    for preparation in sorted(found, key=lambda p: len(p.keys)):
        line = np.concatenate((preparation.scale, preparation.shift)) + 0.0  # no -0
        kept.setdefault(" ".join(f"{number:.5e}" for number in line), preparation)
    return list(kept.values())


def _numbers(values: Iterable[float]) -> str:
    return "(" + ", ".join(f"{value:.4g}" for value in values) + ")"


# --- rearrangements of pixels ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Arrangement:
    """A rearrangement of pixels: `index` maps the indices of ours (B, C, H, W) to those of the port's, -1 for none."""

    key: str
    text: str
    index: Callable[[Array], Array]


@lru_cache(maxsize=8)
def _arrangements(ours: tuple[int, ...], theirs: tuple[int, ...]) -> tuple[Arrangement, ...]:
    """Return the usual rearrangements of pixels for arrays of these shapes."""
    return tuple(_cuttings(ours, theirs) if ours != theirs else _disorders(ours))


def _disorders(ours: tuple[int, ...]) -> Iterator[Arrangement]:
    batch, channels, height, width = ours
    if channels > 1:
        text = "red and blue are swapped" if channels == 3 else "the channels are reversed"
        yield Arrangement("input-bgr", text, lambda n: n[:, ::-1])
    if channels == 3:
        for order in ((0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1)):
            text = f"the channels are in the order {order}"
            yield Arrangement("input-channels-permuted", text, partial(_channels, order=order))
    yield Arrangement(
        "input-layout",
        "pixels with the channels last are read as if they were first",
        lambda n: n.transpose(0, 2, 3, 1).reshape(n.shape),
    )
    yield Arrangement(
        "input-layout",
        "pixels with the channels first are read as if they were last",
        lambda n: n.reshape(batch, height, width, channels).transpose(0, 3, 1, 2),
    )
    yield Arrangement("input-flipped", "left and right are swapped", lambda n: n[..., ::-1])
    yield Arrangement("input-flipped", "top and bottom are swapped", lambda n: n[:, :, ::-1])
    yield Arrangement("input-flipped", "the picture is upside down", lambda n: n[:, :, ::-1, ::-1])
    if height == width:
        yield Arrangement("input-transposed", "height and width are swapped", lambda n: n.swapaxes(2, 3))
    if batch > 1:
        yield Arrangement("input-batch-order", "the pictures of the batch are reversed", lambda n: n[::-1])
    for down, across in itertools.product((-1, 0, 1), repeat=2):
        if (down or across) and height > 1 and width > 1:
            words = [f"one pixel {word}" for word in (_SHIFTS[0].get(down), _SHIFTS[1].get(across)) if word]
            yield Arrangement(
                "input-shifted",
                f"the picture is moved {' and '.join(words)}",
                partial(_placed, shape=ours, down=down, across=across),
            )


_SHIFTS = ({1: "down", -1: "up"}, {1: "right", -1: "left"})


def _cuttings(ours: tuple[int, ...], theirs: tuple[int, ...]) -> Iterator[Arrangement]:
    """Yield arrangements in which the port's input is ours with pixels added or cut off."""
    if len(theirs) != 4 or theirs[:2] != ours[:2]:
        return
    if theirs[2:] == ours[:1:-1]:
        yield Arrangement("input-transposed", "height and width are swapped", lambda n: n.swapaxes(2, 3))
    places = []
    for mine, other in zip(ours[2:], theirs[2:], strict=True):
        more = other - mine
        every = range(min(more, 0), max(more, 0) + 1) if abs(more) <= 4 else (0, more // 2, (more + 1) // 2, more)
        places.append(sorted(set(every)))
    for down, across in itertools.product(*places):
        where = f"from row {abs(down)} and column {abs(across)} on"
        smaller = theirs[2] * theirs[3] < ours[2] * ours[3]
        texts = {"input-crop": f"the picture is cut out of ours {where}"}
        if not smaller:
            texts = {
                "input-crop": f"the crop is left out: ours lies within the picture {where}",
                "input-padded": f"the picture is padded: ours lies within it {where}",
            }
        for key, text in texts.items():
            yield Arrangement(key, text, partial(_placed, shape=theirs, down=down, across=across))


def _channels(numbers: Array, order: tuple[int, ...]) -> Array:
    return numbers[:, order]


def _placed(numbers: Array, shape: tuple[int, ...], down: int, across: int) -> Array:
    """Shift indices down and to the right within an array of that shape; -1 where there are none."""
    out = np.full(shape, -1)
    top, left = max(down, 0), max(across, 0)
    part = numbers[:, :, max(-down, 0) :, max(-across, 0) :][:, :, : shape[2] - top, : shape[3] - left]
    out[:, :, top : top + part.shape[2], left : left + part.shape[3]] = part
    return out


# --- the search ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Candidate:
    """Levels, prepared, and arranged before or after that."""

    levels: Array
    preparation: Preparation
    arrangement: Arrangement | None = None
    arranged_first: bool = False
    keys: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()

    @property
    def all_keys(self) -> tuple[str, ...]:
        """The keys of all differences from the right input."""
        return (*self.keys, *self.preparation.keys, *((self.arrangement.key,) if self.arrangement else ()))

    @property
    def is_partial(self) -> bool:
        """True if it leaves some pixels undetermined."""
        return self.arrangement is not None and self.arrangement.key in PARTIAL

    @property
    def text(self) -> str:
        """The differences in words."""
        arranged = (self.arrangement.text,) if self.arrangement else ()
        return " and ".join((*self.texts, *self.preparation.texts, *arranged))


class _Search:
    """A search for the difference between the port's input and ours, or the picture."""

    def __init__(
        self, ours: Array, theirs: Array, dtype: str, how: Normalisation | None, picture: Any, processor: Any
    ) -> None:
        self.ours, self.theirs = ours, theirs
        self.unit, self.smallest = DTYPES[dtype][0], SMALLEST.get(dtype, 0.0)
        self.how, self.remark = how, ""
        self.levels = ours if how is None else _levels(ours, how)
        if how is not None:
            self.preparations = _preparations(how, ours.shape[1])
        else:
            largest = np.full(ours.shape[1], min(2.2, float(np.abs(ours).max(initial=0))))
            unknown = Preparation((), (), np.ones(ours.shape[1]), np.zeros(ours.shape[1]), largest)
            self.preparations = [unknown]
        self.right = self.preparations[0]
        self.picture, self.processor = picture, processor
        self._sampled: dict[tuple[Any, ...], tuple[Array, Array]] = {}

    def is_cast(self) -> bool:
        """Return whether the port's input is ours, only rounded to its dtype."""
        largest = float(np.abs(self.ours).max(initial=0))
        bound = 2 * self.unit * np.abs(self.ours) + FLOATS * largest + self.smallest
        return bool(np.all(np.abs(self.theirs - self.ours) <= bound))

    def ratio(self) -> float:
        """Return the largest difference over the error allowed to arithmetic in the port's dtype."""
        return self._measure(self._ours(), self.theirs)[0]

    def causes(self, closely: bool) -> list[CauseFound]:
        """Return the matching candidates, best first; with `closely` only those that match far better than ours."""
        limit = math.inf
        if closely:
            limit = self._measure(self._ours(), self.theirs)[1] / (2 * TIES)
        for mistakes in (1, 2):
            held = self._holding(self._candidates(mistakes), limit)
            if all(candidate.is_partial for _, candidate in held):
                held += self._holding(self._resized(mistakes), limit)
            if held:
                return self._best(held)
        if closely:
            return []
        return self._best(list(self._nearly())) or self._linear()

    def _ours(self) -> Candidate:
        return Candidate(self.levels, self.right)

    def _holding(self, candidates: Iterable[Candidate], limit: float) -> list[tuple[float, Candidate]]:
        """Return the candidates whose error is only rounding, each with its error."""
        held = []
        for candidate in candidates:
            theirs = self._theirs(candidate)
            if self._measure(candidate, theirs, sampled=True)[0] <= 1:
                worst, error = self._measure(candidate, theirs)
                if worst <= 1 and error <= limit:
                    held.append((error, candidate))
        return held

    def _candidates(self, mistakes: int) -> Iterator[Candidate]:
        if self.theirs.ndim != 4 or self.theirs.size == 0:
            return
        same = self.theirs.shape == self.ours.shape
        if same:
            yield from (Candidate(self.levels, p) for p in self.preparations if len(p.keys) == mistakes)
        for arrangement in _arrangements(self.ours.shape, self.theirs.shape):
            if arrangement.key == ("input-crop" if self._is_padded(arrangement) else "input-padded"):
                continue
            for preparation in (p for p in self.preparations if len(p.keys) == mistakes - 1):
                yield Candidate(self.levels, preparation, arrangement)
                yield Candidate(self.levels, preparation, arrangement, arranged_first=True)

    def _resized(self, mistakes: int) -> Iterator[Candidate]:
        """Yield candidates made from the picture, resized in another way."""
        for differences in range(1, mistakes + 1):
            for way in self._ways(differences):
                made = Candidate(way.levels, self.right, None, False, way.keys, way.texts)
                if differences == mistakes:
                    yield made
                    continue
                for preparation in (p for p in self.preparations if len(p.keys) == 1):
                    yield replace(made, preparation=preparation)
                for arrangement in _arrangements(way.levels.shape, way.levels.shape):
                    for first in (False, True):
                        yield replace(made, arrangement=arrangement, arranged_first=first)

    def _is_padded(self, arrangement: Arrangement) -> bool:
        """Return whether the port's border around our picture is one colour."""
        around = arrangement.index(np.arange(self.ours.size).reshape(self.ours.shape)) < 0
        channels = [self.theirs[:, c][around[:, c]] for c in range(around.shape[1])]
        return all(part.size and np.ptp(part) == 0 for part in channels)

    def _ways(self, differences: int) -> Iterator[Resampled]:
        """Yield other ways of resizing the picture to the port's size; none where the picture is not that of ours."""
        if self.picture is None or self.processor is None or self.how is None or self.theirs.ndim != 4:
            return
        picture = np.moveaxis(np.asarray(load_image(self.picture)), -1, 0)
        right = Candidate(right_way(picture, self.processor).levels, self.right)
        ours = self.ours[:1]
        if right.levels.shape != ours.shape or self._measure(right, ours, unit=DTYPES["float32"][0])[0] > 1:
            self.remark = " (the picture given does not make our pixel_values, so that no resizing was tried)"
            return
        yield from ways(picture, self.processor, self.theirs.shape[2:], differences)

    def _nearly(self) -> Iterator[tuple[float, Candidate]]:
        """Yield candidates that match except for one level in 255: pixels rounded to integers at another step."""
        if self.how is None or self.theirs.ndim != 4 or self.theirs.size == 0:
            return
        apart = ("input-resize-rounding",), ("up to one level of 255 apart, rounded elsewhere",)
        if self.theirs.shape == self.ours.shape:
            yield from self._within_a_level(replace(self._ours(), keys=apart[0], texts=apart[1]))
        for way in self._ways(1):
            texts = (*way.texts, *apart[1])
            yield from self._within_a_level(Candidate(way.levels, self.right, None, False, way.keys, texts))

    def _within_a_level(self, candidate: Candidate) -> Iterator[tuple[float, Candidate]]:
        worst, error = self._measure(candidate, self._theirs(candidate), level=1.02)
        if worst <= 1:
            yield error, candidate

    def _theirs(self, candidate: Candidate) -> Array:
        """Return the part of the port's batch that the candidate covers: all, or the first picture."""
        return self.theirs[: len(candidate.levels)] if candidate.levels is not self.levels else self.theirs

    def _measure(
        self, candidate: Candidate, theirs: Array, sampled: bool = False, level: float = 0.0, unit: float | None = None
    ) -> tuple[float, float]:
        """Return the largest error over that which rounding (and `level`) allows, and the RMS error in roundings."""
        unit = self.unit if unit is None else unit
        shape = candidate.levels.shape
        places, source = self._places(candidate.arrangement, shape, theirs.size, sampled)
        covered = source >= 0
        if covered.mean() < ENOUGH:
            return math.inf, math.inf
        places, source = places[covered], source[covered]
        if candidate.arranged_first:
            channel = places // math.prod(theirs.shape[2:]) % theirs.shape[1]
        else:
            channel = source // math.prod(shape[2:]) % shape[1]
        how = candidate.preparation
        value = candidate.levels.reshape(-1)[source] * how.scale[channel] + how.shift[channel]
        error = np.abs(theirs.reshape(-1)[places] - value)
        highest = float(np.abs(candidate.levels).max(initial=0) * np.abs(how.scale).max() + np.abs(how.shift).max())
        # Level, factor, product, mean, difference, deviation, quotient: each may be rounded.
        bound = unit * (6 * np.abs(value) + 4 * how.subtracted[channel]) + FLOATS * highest + self.smallest
        bound += level * np.abs(how.scale[channel])
        worst = float(np.max(error / bound))
        if sampled:
            return worst, math.nan
        rounding = unit * math.sqrt(float(np.mean(value**2))) + FLOATS * highest / 2 + self.smallest
        return worst, math.sqrt(float(np.mean(error**2))) / rounding

    def _places(
        self, arrangement: Arrangement | None, shape: tuple[int, ...], size: int, sampled: bool
    ) -> tuple[Array, Array]:
        """Return indices of the port's pixels, all or a sample, and those of the corresponding pixels of ours."""
        key = arrangement, shape, size
        if sampled and key in self._sampled:
            return self._sampled[key]
        places: Array = np.arange(size)
        if sampled and size > SAMPLE:
            places = np.random.default_rng(0).integers(0, size, SAMPLE)
        source = places
        if arrangement is not None:
            source = arrangement.index(np.arange(math.prod(shape)).reshape(shape)).reshape(-1)[places]
        if sampled:
            self._sampled[key] = places, source
        return places, source

    def _best(self, held: list[tuple[float, Candidate]]) -> list[CauseFound]:
        """Return the candidates whose error is about the smallest, one for each key."""
        # A candidate that covers every pixel is preferred to one that leaves a border open.
        held = [pair for pair in held if not pair[1].is_partial] or held
        held = sorted(held, key=lambda pair: pair[0])
        found: dict[str, CauseFound] = {}
        for error, candidate in held:
            key = "+".join(candidate.all_keys)
            if error <= TIES * max(held[0][0], 0.5):
                found.setdefault(key, CauseFound(key, candidate.text, "input", error))
        return list(found.values())

    def _linear(self) -> list[CauseFound]:
        """Fit an unusual mean and standard deviation to the pixels themselves."""
        if self.theirs.shape != self.ours.shape:
            return []
        swapped = ("input-bgr+", "red and blue are swapped and ", self.theirs[:, ::-1])
        for key, text, theirs in (("", "", self.theirs), swapped):
            fits = [_fit(self.levels[:, c], theirs[:, c]) for c in range(theirs.shape[1])]
            scale, shift = np.array([fit[0] for fit in fits]), np.array([fit[1] for fit in fits])
            if not np.all(np.isfinite(scale)) or np.any(scale == 0):
                continue
            how = Preparation((), (), scale, shift, np.abs(shift))
            worst, error = self._measure(Candidate(self.levels, how), theirs)
            if worst <= 1:
                return [CauseFound(f"{key}input-other-mean-std", text + self._in_words(scale, shift), "input", error)]
        return []

    def _in_words(self, scale: Array, shift: Array) -> str:
        if self.how is None:
            return f"each channel is ours times {_numbers(scale)} plus {_numbers(shift)}"
        std = self.how.factor / scale
        return f"normalised with mean {_numbers(-shift * std - self.how.offset)} and deviation {_numbers(std)}"


def _fit(x: Array, y: Array) -> tuple[float, float]:
    """Fit a line to the points: slope and intercept; not finite where all x are equal."""
    spread = float(np.sum((x - x.mean()) ** 2))
    if spread == 0:
        return math.nan, math.nan
    slope = float(np.sum((x - x.mean()) * (y - y.mean()))) / spread
    return slope, float(y.mean()) - slope * float(x.mean())
