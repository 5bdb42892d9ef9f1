"""Formatting of lists in sentences."""

from __future__ import annotations

from collections.abc import Iterable

MOST_LISTED = 12


def listed(items: Iterable[str], separator: str = ", ") -> str:
    """Return the first dozen items, and the number of the others."""
    first = list(items)
    more = len(first) - MOST_LISTED
    return separator.join(first[:MOST_LISTED]) + (f"{separator}and {more} more" if more > 0 else "")
