"""Lists in sentences."""

from __future__ import annotations

from collections.abc import Iterable

MOST_LISTED = 12


def listed(items: Iterable[str], separator: str = ", ") -> str:
    """The first dozen, and how many more there are."""
    first = list(items)
    more = len(first) - MOST_LISTED
    return separator.join(first[:MOST_LISTED]) + (f"{separator}and {more} more" if more > 0 else "")
