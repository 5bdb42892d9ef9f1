"""The noise floor: the error that arithmetic in the port's dtype causes, with a small margin.

The floor is measured: our own op runs on the same inputs in the port's dtype, and its error against float64 is the
cost of rounding there. Two terms are added, since a port may compute in another order: the loss of a long sum whose
terms are added one after another (ours are added in pieces), and one unit in the last place.
"""

from __future__ import annotations

import copy
import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..nn import Activation, AdaptiveAvgPool2d, BatchNorm2d, Conv2d, LayerNorm, Linear, Module
from ..ops import Array
from .site import Site

PASS, WARN = 4.0, 8.0  # times the floor
CHANNEL_MINIMUM = 16  # numbers in a channel, below which its root mean square is unreliable
# Half a unit in the last place of 1, and the largest number; fewest bits first.
DTYPES = {
    "bfloat16": (2.0**-8, 3.3895e38), "float16": (2.0**-11, 65504.0), "float32": (2.0**-24, 3.4028e38),
    "float64": (2.0**-53, math.inf),
}  # fmt: skip


def round_to(x: Array, dtype: str) -> Array:
    """Round to the nearest values of a dtype, as an array of the dtype of x; infinities where it overflows."""
    if dtype == "float16":
        with np.errstate(over="ignore"):
            return x.astype(np.float16).astype(x.dtype)
    if dtype == "bfloat16":
        bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
        # Round half to even on the upper 16 bits; NaN must not carry over into infinity.
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
        return np.where(np.isnan(x), x, rounded.view(np.float32)).astype(x.dtype).reshape(x.shape)
    return x if dtype == "float64" else x.astype(np.float32).astype(x.dtype)


def find_dtype(dumped: Mapping[str, Array], stored: Mapping[str, str]) -> str:
    """Return the narrowest dtype that nine in ten of the dumped values fit exactly, whatever they were stored in.

    A port in half precision is often dumped as float32: then the lower bits are all zero.
    """
    votes: dict[str, int] = dict.fromkeys(DTYPES, 0)
    for name, value in dumped.items():
        sample = np.asarray(value).reshape(-1)[:4096]
        sample = sample[np.isfinite(sample)]
        if len(set(sample.tolist())) < 8:  # zeros and ones fit every dtype and are no evidence
            continue
        widest = stored.get(name, str(sample.dtype))
        votes[next((d for d in DTYPES if d == widest or np.array_equal(round_to(sample, d), sample)), "float64")] += 1
    total, counted = sum(votes.values()), 0
    for dtype, count in votes.items():
        counted += count
        if total and counted >= 0.9 * total:
            return dtype
    return "float32"


def before_rounding(value: Array, dtype: str, name: str) -> Array:
    """Return a random candidate for a dumped value before it was rounded to half precision.

    A port may compute in float32 and keep only its dump in half precision: the next op then used the unrounded value,
    and the difference shows where two such values are subtracted.
    """
    if dtype not in ("float16", "bfloat16"):
        return value
    random = np.random.default_rng(zlib.crc32(name.encode()))
    off = DTYPES[dtype][0] * random.uniform(-1, 1, value.shape).astype(np.float32)
    return value.astype(np.float32) * (1 + off)


def rounding(dtype: str) -> Callable[[Site, Array], Array]:
    """Return the rounding of a port's dtype for the value of a site: that of long sums, then to the dtype itself.

    Sums in half precision are accumulated in float32, as in every processor and library known to us.
    """
    unit = DTYPES["float64" if dtype == "float64" else "float32"][0]

    def rounded(site: Site, value: Array) -> Array:
        spread = _reordering(site)
        if spread is not None:
            random = np.random.default_rng(zlib.crc32(site.name.encode()))
            value = value + (unit * spread * random.standard_normal(value.shape)).astype(value.dtype)
        return round_to(value, dtype)

    return rounded


def _reordering(site: Site) -> Array | float | None:
    """Return the standard deviation, in units of rounding, that another order of arithmetic may add to the result."""
    module, inner = site.module, site.inner
    with np.errstate(all="ignore"):
        if inner == "pooled" and site.layout == "BD" and site.used:
            terms = site.used[next(reversed(list(site.used)))]
            return _mean_spread(terms, (1,) if terms.ndim == 3 else (2, 3))  # over tokens, or over a map
        if inner == "global_query":
            terms = site.used[f"{site.owner}:weights"] * site.used[f"{site.owner}:query"]
            squares = np.square(terms).sum(1, keepdims=True)
            return _sum_spread(terms.sum(1, keepdims=True), squares, terms.shape[1])
        if inner or not site.inputs:
            return None
        x = site.inputs[0]
        if isinstance(module, Conv2d | Linear):
            return _sum_spread(site.output, _squared(module).forward(x * x), math.prod(module.weight.shape[1:]))
        if isinstance(module, AdaptiveAvgPool2d):
            return _mean_spread(x, (2, 3)).reshape(site.output.shape) if site.output.shape[2:] == (1, 1) else None
        if isinstance(module, BatchNorm2d):  # x * a + b with a and b made beforehand, against (x - mean) * a + bias
            scale = np.abs(module.weight) / np.sqrt(module.running_var + module.eps)
            column = (slice(None), None, None)
            return np.abs(x * scale[column]) + (np.abs(module.running_mean) * scale + np.abs(module.bias))[column]
        if isinstance(module, LayerNorm):
            return 0.15 * math.sqrt(x.shape[-1]) * np.abs(site.output - module.bias)
        if isinstance(module, Activation):  # such as x * (1 + erf) / 2: the sum is rounded before it is multiplied
            return np.maximum(np.abs(x), np.abs(site.output))
    return None


def _squared(module: Conv2d | Linear) -> Conv2d | Linear:
    """Return a layer that computes, from squared inputs, the sum of the squares of all products of the given one."""
    twin = copy.copy(module)
    twin.weight, twin.bias = module.weight * module.weight, None
    return twin


def _sum_spread(total: Array, squares: Array, terms: int) -> Array:
    """Return the standard deviation, in units, of the error of a sum of that many terms added one after another.

    Every partial sum is rounded, an error of deviation |partial sum| / sqrt(3) units; of T terms, the t-th partial sum
    is about t/T of the total, give or take sqrt(t/T * squares). Adding up over t gives T (total**2 / 3 + squares / 2)
    / 3.
    """
    return np.sqrt(terms / 3 * (total * total / 3 + squares / 2))


def _mean_spread(terms: Array, axes: tuple[int, ...]) -> Array:
    count = math.prod(terms.shape[axis] for axis in axes)
    return _sum_spread(terms.sum(axes), (terms * terms).sum(axes), count) / count


@dataclass
class Judgement:
    """The comparison of one value: `ratio` is decisive, the others are its components and figures for reports."""

    bulk: float
    peak: float
    channel: float
    floor: float
    error: float
    largest: float
    ulp: float
    sqnr: float

    @property
    def ratio(self) -> float:
        """The error over the floor, by the worst of the three measures."""
        return max(self.bulk, self.peak, self.channel)

    @property
    def level(self) -> str:
        """The verdict: up to four times the floor "pass", up to eight "warn", above "fail"."""
        return "pass" if self.ratio <= PASS else "warn" if self.ratio <= WARN else "fail"


def judge(port: Array, exact: Array, rough: Array, axes: str, dtype: str) -> Judgement:
    """Compare a port's value with the exact one of the same shape, relative to the error of `rough`.

    Three measures, none of which lets one error hide behind many small ones or the other way round: root mean squares
    of all (`bulk`), the largest errors (`peak`: a wrong border, a single wrong pixel), and root mean squares channel
    by channel (`channel`: an error in a channel of small numbers). A NaN or infinity counts as an infinite error;
    where the exact value is itself not finite, because something before was, there is nothing to compare.
    """
    unit = DTYPES[dtype][0]
    port, exact, rough = (np.asarray(value, np.float64) for value in (port, exact, rough))
    with np.errstate(all="ignore"):
        error, noise = _distance(port, exact), _distance(rough, exact)
        size = np.where(np.isfinite(exact), np.abs(exact), 0.0)
        noise = np.where(np.isfinite(noise), noise, unit * size)
        bulk, peak = float(_rms(error)), float(error.max(initial=0))
        largest = float(size.max(initial=0))
        tiny = np.finfo(np.float64).tiny
        floor = max(float(_rms(noise)), unit * float(_rms(size)), float(tiny))
        top = max(float(noise.max(initial=0)), 2 * unit * largest, float(tiny))
        channel = 0.0
        axis = channel_axis(axes, exact.ndim)
        if axis is not None and exact.size >= CHANNEL_MINIMUM * exact.shape[axis]:
            rest = tuple(a for a in range(exact.ndim) if a != axis)
            floors = np.maximum(_rms(noise, rest), unit * _rms(size, rest))
            errors = _rms(error, rest)
            channel = float(np.max(np.where(errors > 0, errors / np.maximum(floors, 1e-3 * floor), 0)))
        signal = float(_rms(size))
        sqnr = 20 * math.log10(signal / bulk) if signal > 0 and 0 < bulk < math.inf else math.inf
        if bulk == math.inf:
            sqnr = -math.inf
        return Judgement(
            bulk=float(bulk / floor), peak=peak / top, channel=channel, floor=floor, error=peak, largest=largest,
            ulp=peak / (2 * unit * largest) if largest else (0.0 if peak == 0 else math.inf), sqnr=sqnr,
        )  # fmt: skip


def channel_axis(axes: str, rank: int) -> int | None:
    """Return the axis of a value's channels: C, else D, else the heads; None where there is none."""
    if len(axes) != rank:
        return None
    return next((axes.index(letter) for letter in "CDh" if letter in axes), None)


def _distance(value: Array, exact: Array) -> Array:
    """Return |value - exact|; 0 where the exact value is not finite, because the port's own inputs to it are not."""
    distance = np.where(np.isfinite(exact), np.abs(value - exact), 0.0)
    return np.where(np.isnan(distance), np.inf, distance)


def _rms(x: Array, axes: tuple[int, ...] | None = None) -> Any:
    return np.sqrt(np.mean(x * x, axis=axes)) if x.size else np.float64(0)


def simulated(model: Module, dtype: str) -> Module:
    """Return the model in a port's dtype: weights rounded to it; arithmetic in float32 (float64 for float64)."""
    if dtype == "float64":
        return model.astype(np.float64)
    twin = model.astype(np.float32)
    for _, module, attribute in twin.named_arrays():
        array = getattr(module, attribute)
        if np.issubdtype(array.dtype, np.floating):
            setattr(module, attribute, round_to(array, dtype))
    return twin
