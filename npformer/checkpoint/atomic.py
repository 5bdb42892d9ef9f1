"""Atomic writing: a file appears complete or not at all, whatever interrupts the write."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield an empty file beside `path` to write to; rename it to `path` on success, remove it on failure.

    Raises OSError where nothing can be written.
    """
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        partial.touch()
        mode = partial.stat().st_mode  # the default permissions of new files; the safetensors library restricts them
        yield partial
        partial.chmod(mode)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a small text file atomically, creating its folder if needed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        partial.write_text(text, "utf-8")
