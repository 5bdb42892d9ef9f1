"""Seeded mutations of small valid files: whatever comes out, reading it succeeds or ends in a CheckpointError.

The number of mutations is FUZZ_MUTATIONS of the environment, or 80,000, which take some 40 s.
"""

from __future__ import annotations

import io
import os
import pickletools
import random
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from npformer.checkpoint.torch_file import read_torch
from npformer.checkpoint.weights import CheckpointError
from tests.checkpoint.build import (
    LEGACY_STATE,
    NUMBERS,
    ORDERED,
    STATE,
    Member,
    archive,
    call,
    legacy,
    listed,
    many,
    mapping,
    name,
    number,
    numpy_array,
    pickled,
    storage,
    tensor,
    text,
    zipped,
)
from tests.sweep import sweep

MUTATIONS = int(os.environ.get("FUZZ_MUTATIONS", "80000"))
PARTS = 40  # that many tests share them; two of them are in the default run

MODULE = mapping({"_parameters": mapping({"w": tensor()}), "_buffers": b"}", "_modules": b"}", "training": b"\x88"})
HALF = tensor(storage("1", 3, "BFloat16"), (3,), (1,))
BODIES = [
    STATE,
    mapping({"model": STATE, "epoch": number(3), "args": name("argparse", "Namespace") + b")\x81}b"}),
    name("torch.nn.modules.container", "Sequential") + b")\x81" + MODULE + b"b",
    mapping({"a": numpy_array(), "b": tensor(None, (3, 2), (1, 3)), "c": tensor(None, (), (), 5)}),
    mapping({"module.a": tensor() + b"\x94", "module.b": b"h\x00", "module.c": HALF}),
    ORDERED + b"(" + text("w") + call(name("torch._utils", "_rebuild_parameter"), tensor(), b"\x88", ORDERED) + b"u",
    b"\x95\x00\x00\x00\x00\x00\x00\x00\x00\x8f(K\x01\x900" + STATE,
    call(name("collections", "OrderedDict"), listed(listed(b"U\x01w", tensor()), many(text("x"), b"C\x02ab"))),
]  # fmt: skip
STORAGES = {"0": NUMBERS, "1": b"\x80\x3f" * 3}
ZIPS = [zipped(body, STORAGES) for body in BODIES]
OLD = [legacy(LEGACY_STATE), legacy(mapping({"a": tensor(), "b": tensor(storage(legacy=True)), "n": b"N"}))]
FILES = ZIPS + OLD
NUMBERS_OF_NOTE = [0, 1, 2, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63 - 1, 2**63, 2**64 - 1]


def instructions(body: bytes) -> list[bytes]:
    """A pickle cut into its instructions."""
    raw = pickled(body)
    starts = [position for _, _, position in pickletools.genops(io.BytesIO(raw)) if position is not None]
    return [raw[a:b] for a, b in zip(starts, [*starts[1:], len(raw)], strict=True)][1:-1]


CUT = [instructions(body) for body in BODIES]
POOL = [step for body in CUT for step in body]
POOL += [bytes([code]) for code in b"N()}](tedusaR0b12\x81\x85\x86\x87\x88\x91\x92\x93\x94Qlo."]
POOL += [number(value) for value in (-1, 2**31 - 1, 2**63, -(2**70), 2**600)] + [name("os", "system")]


def flipped(rng: random.Random) -> bytes:
    content = bytearray(rng.choice(FILES))
    for _ in range(rng.randint(1, 6)):
        content[rng.randrange(len(content))] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])
    return bytes(content)


def cut_off(rng: random.Random) -> bytes:
    content = rng.choice(FILES)
    return content[: rng.randrange(len(content))] + (
        rng.choice(FILES)[-rng.randrange(200) :] if rng.random() < 0.5 else b""
    )


def spliced(rng: random.Random) -> bytes:
    """A piece of one file put into another, over it or between."""
    content, other = rng.choice(FILES), rng.choice(FILES)
    start, length = rng.randrange(len(other)), rng.randint(1, 64)
    at = rng.randrange(len(content))
    return content[:at] + other[start : start + length] + content[at + rng.choice([0, length, rng.randint(0, 64)]) :]


def renumbered(rng: random.Random) -> bytes:
    """Set a field of 2, 4 or 8 bytes at a random position to a boundary value."""
    content = bytearray(rng.choice(FILES))
    width = rng.choice([2, 4, 8])
    at = rng.randrange(len(content) - width)
    if rng.random() < 0.5:  # most fields of an archive lie at its end
        at = max(0, len(content) - rng.randint(8, 500))
    content[at : at + width] = struct.pack("<Q", rng.choice(NUMBERS_OF_NOTE))[:width]
    return bytes(content)


def reprogrammed(rng: random.Random) -> bytes:
    """Instructions of the pickle dropped, doubled, swapped, replaced; the container around it is sound."""
    steps = list(rng.choice(CUT))
    for _ in range(rng.randint(1, 4)):
        at, to = rng.randrange(len(steps)), rng.randrange(len(steps))
        match rng.randrange(5):
            case 0:
                del steps[at : at + rng.randint(1, 3)]
            case 1:
                steps[to:to] = steps[at : at + rng.randint(1, 5)]
            case 2:
                steps[at], steps[to] = steps[to], steps[at]
            case 3:
                steps[at] = rng.choice(POOL)
            case 4:
                steps.insert(at, rng.choice(POOL))
        steps = steps or [b"N"]
    body = b"".join(steps)
    return zipped(body, STORAGES) if rng.random() < 0.7 else legacy(body, {"0": (6, NUMBERS)})


def rearchived(rng: random.Random) -> bytes:
    """Return a sound pickle in an archive with one wrong field."""
    members = [
        Member("f/data.pkl", pickled(rng.choice(BODIES))),
        *(Member(f"f/data/{k}", v) for k, v in STORAGES.items()),
    ]
    victim = rng.choice(members)
    field = rng.choice(["method", "flags", "size", "packed", "offset", "extra", "name", "local_name", "again"])
    if field == "again":
        members.append(victim)
    elif field in ("name", "local_name"):
        setattr(
            victim, field, rng.choice(["f/data/0", "f/data/2", "f/data.pkl", "../x", "f/", "f/code/x", "data.pkl"])
        )
    elif field == "extra":
        victim.extra = rng.randbytes(rng.randrange(40))
    else:
        limit = 2**16 if field in ("method", "flags") else 2**32
        setattr(victim, field, rng.choice([*NUMBERS_OF_NOTE, rng.randrange(400)]) % limit)
    return archive(members, wide=rng.random() < 0.5)


MUTATORS: list[Callable[[random.Random], bytes]] = [
    flipped, cut_off, spliced, renumbered, reprogrammed, reprogrammed, rearchived,
]  # fmt: skip


def assert_clean(content: bytes, path: Path) -> bool:
    """Check that reading stays within the file, or fails in one sentence with its name; return its success."""
    path.unlink(missing_ok=True)  # never write into a file that is still mapped
    path.write_bytes(content)
    try:
        weights = read_torch(path)
    except CheckpointError as error:
        message = str(error)
        assert str(path) in message
        assert "\n" not in message
        assert len(message) < 700
        return False
    assert weights.arrays
    assert sum(array.nbytes for array in weights.arrays.values()) <= 4 * len(content) + (64 << 20)
    for array in weights.arrays.values():
        assert isinstance(array, np.ndarray)
        if array.nbytes < 10_000:
            array.tobytes()  # every element can be read
    return True


@pytest.mark.parametrize("content", FILES)
def test_the_files_to_mutate_are_good(content: bytes, tmp_path: Path) -> None:
    assert assert_clean(content, tmp_path / "file")


@pytest.mark.parametrize("part", sweep(range(PARTS), range(2)))
def test_mutated_files_are_read_or_refused(part: int, tmp_path: Path) -> None:
    accepted, count = 0, MUTATIONS // PARTS
    for i in range(count):
        seed = part * count + i
        rng = random.Random(seed)
        content = rng.choice(MUTATORS)(rng)
        try:
            accepted += assert_clean(content, tmp_path / "file")
        except Exception as error:
            pytest.fail(f"mutation {seed}: {type(error).__name__}: {error}")
    assert 0 < accepted < count  # some mutations are harmless, some are not
