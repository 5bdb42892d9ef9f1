"""Reader of JSON that must be an object: configs, indexes, headers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_json(path: Path) -> dict[str, Any]:
    """Read a file that holds a JSON object. Raises ValueError, or OSError where there is no such file."""
    return parse_json(path.read_bytes(), str(path))


def parse_json(raw: bytes, source: str) -> dict[str, Any]:
    """Parse bytes that hold a JSON object; `source` names their origin in errors. Raises ValueError."""
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:  # bad UTF-8 is a ValueError too
        raise ValueError(f"{source} is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{source} must hold a JSON object, got {type(value).__name__}")
    return value
