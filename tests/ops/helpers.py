"""Helpers for the tests of the ops: random arrays, closeness that checks shape and dtype too, refusals, settings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings

# The cases are small enough to read as they come, so nothing is shrunk: a mutant that fails does so at once.
SETTINGS = settings(
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=80,
    phases=(Phase.explicit, Phase.generate),
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


def draw(seed: int, *shape: int, dtype: type = np.float64, shift: float = 0.0) -> np.ndarray:
    """Numbers of order one from a seed; `shift` moves their mean."""
    return np.asarray(np.random.default_rng(seed).standard_normal(shape) + shift, dtype)


def spread(seed: int, *shape: int, dtype: type = np.float64) -> np.ndarray:
    """Positive numbers of order one, between 0.3 and 2: variances."""
    return np.random.default_rng(seed).uniform(0.3, 2, shape).astype(dtype)


def pixels(height: int, width: int, channels: int = 1) -> np.ndarray:
    """A (1, C, H, W) picture that counts: 0, 1, 2, ..."""
    return np.arange(float(channels * height * width)).reshape(1, channels, height, width)


def assert_same(actual: np.ndarray, expected: np.ndarray, tolerance: float = 1e-13) -> None:
    """Equal shape and dtype, and values that differ by at most `tolerance` times the largest one expected."""
    assert isinstance(actual, np.ndarray)
    expected = np.asarray(expected)
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype
    scale = float(np.max(np.abs(expected), initial=0.0))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * scale)


@contextmanager
def refuses(error: type[Exception], *words: str) -> Iterator[None]:
    """Expect `error` with one sentence that contains all of `words`: the argument, the value, the requirement."""
    with pytest.raises(error, match=re.escape(words[0])) as caught:
        yield
    sentence = str(caught.value)
    assert "\n" not in sentence
    for word in words:
        assert word in sentence
