"""Lists in sentences."""

from __future__ import annotations

from collections.abc import Iterable

MOST_LISTED = 12


def listed(items: Iterable[str]) -> str:
    """The first dozen, and how many more there are."""
    names = list(items)
    more = len(names) - MOST_LISTED
    return ", ".join(names[:MOST_LISTED]) + (f", and {more} more" if more > 0 else "")
