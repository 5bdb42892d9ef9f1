"""The split of a sweep's cases between the default run and the exhaustive one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable
from typing import Any

import pytest


def sweep(cases: Iterable[Any], default: Collection[Any] | Callable[[Any], bool]) -> list[Any]:
    """Return the cases as parameters of `pytest.mark.parametrize`, all but the `default` ones marked `exhaustive`.

    `default` holds one representative of each kind, or decides for a case whether it is one. A tuple among the cases
    is the values of several arguments.
    """
    cases = list(cases)
    chosen = default if callable(default) else default.__contains__
    if not callable(default):
        assert set(default) <= set(cases), f"no such case: {set(default) - set(cases)}"
    assert any(chosen(case) for case in cases), "the default run would test nothing"
    return [
        pytest.param(
            *(case if isinstance(case, tuple) else (case,)), marks=() if chosen(case) else pytest.mark.exhaustive
        )
        for case in cases
    ]


def first_of_each(cases: Iterable[Any], kind: Callable[[Any], Hashable]) -> list[Any]:
    """Return the first case of each kind, in order."""
    first: dict[Hashable, Any] = {}
    for case in cases:
        first.setdefault(kind(case), case)
    return list(first.values())
