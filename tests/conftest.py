"""What all tests share: one thread each where they share the cores, and the parts of the exhaustive run."""

import os
import socket
import zlib

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # before NumPy is imported, which reads it once
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture
def nowhere():
    """A host and port that refuse every connection: the port is taken, by one who never listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


def pytest_addoption(parser):
    parser.addoption("--part", metavar="K/N", help="run the Kth of N parts of the chosen tests, K from 1 to N")


def pytest_collection_modifyitems(config, items):
    part = config.getoption("part")
    if part is None:
        return
    try:
        number, parts = map(int, part.split("/"))
    except ValueError:
        number = parts = 0
    if not 1 <= number <= parts:
        raise pytest.UsageError(f"--part must be K/N with K from 1 to N, not {part!r}")
    kept, left = [], []
    for item in items:
        (kept if zlib.crc32(item.nodeid.encode()) % parts == number - 1 else left).append(item)
    config.hook.pytest_deselected(items=left)
    items[:] = kept
