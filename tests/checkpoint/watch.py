"""Reading a file under Python's audit hook, which reports every import, open and call."""

from __future__ import annotations

import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from npformer.checkpoint.torch_file import read_torch
from npformer.checkpoint.weights import CheckpointError
from tests.checkpoint.build import STATE, zipped

SECONDS = 5  # CPU seconds; half a second at most where nothing else runs
SLACK = 64 << 20  # bytes of memory, beyond three times the file

HARMLESS = {"builtins.id", "mmap.__new__"}
EVENTS: list[tuple[str, str]] = []
_watching = False


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    """Audit events are what nothing in Python can do without: import, compile, exec, os.system, open ..."""
    if _watching and event not in HARMLESS:
        EVENTS.append((event, str(arguments)))


sys.addaudithook(_hook)  # there is no taking it away, hence the flag


def read(content: bytes, path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a file with that content; fail if anything but the file is opened, or anything is run."""
    global _watching
    warm_up()
    (path / "file").unlink(missing_ok=True)  # never write into a file that is still mapped
    (path / "file").write_bytes(content)
    EVENTS.clear()
    _watching = True
    try:
        return read_torch(path / "file").arrays
    finally:
        _watching = False
        opened = [arguments for event, arguments in EVENTS if event == "open" and str(path / "file") in arguments]
        assert len(EVENTS) == len(opened), EVENTS


@cache
def warm_up() -> None:
    """Import now what NumPy imports on first use."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "file").write_bytes(zipped(STATE))
        read_torch(Path(folder) / "file")


def assert_refused(content: bytes, path: Path) -> str:
    """Check that reading ends soon, in one short sentence that names the file."""
    start = time.process_time()
    with pytest.raises(CheckpointError, match=r"/file\b") as error:
        read(content, path)
    assert time.process_time() - start < SECONDS
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 600
    assert error.value.__cause__ is None
    return message
