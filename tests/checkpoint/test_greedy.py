"""Files that would exhaust time or memory: limits are 5 s, at full size 60 s, and three times their size + 64 MB."""

from __future__ import annotations

import struct
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from npformer.checkpoint import torch_zip, unpickle, unwrap
from npformer.checkpoint.torch_file import read_torch
from npformer.checkpoint.unpickle import MAX_STEPS
from npformer.checkpoint.weights import CheckpointError
from tests.checkpoint.build import (
    REBUILD,
    STATE,
    Member,
    archive,
    call,
    listed,
    many,
    mapping,
    name,
    number,
    numpy_array,
    storage,
    tensor,
    text,
    zipped,
)
from tests.checkpoint.watch import SECONDS, SLACK, assert_refused, read
from tests.sweep import sweep

LONG = 60  # CPU seconds, with tracemalloc, which makes it two to three times slower; 6 where nothing else runs
FULL, SMALL = MAX_STEPS, MAX_STEPS // 20  # steps allowed: as they are, and few, for which the same files are small


def greedy(code: bytes, count: int) -> bytes:
    """A group of what `count` times `code` leaves, as a tuple."""
    return b"(" + code * count + b"t"


def recalled(index: int) -> bytes:
    """A value from the memo."""
    return b"j" + struct.pack("<I", index)


MODULE = name("torch.nn.modules.module", "Module")
SELF = MODULE + b")\x81\x94"
EMPTY_MODULE = MODULE + b")\x81" + mapping({"_parameters": b"}", "_modules": b"}"}) + b"b"


def modules_doubling(levels: int, leaf: bytes) -> bytes:
    """A module that holds the same module twice, and so on."""
    body = leaf + b"\x94"
    for i in range(levels):
        inner = b"}(" + text("a") + recalled(i) + text("b") + recalled(i) + b"u"
        body += b"0" + MODULE + b")\x81" + b"}(" + text("_parameters") + b"}" + text("_modules") + inner + b"ub\x94"
    return body


def dicts_doubling(levels: int, leaf: bytes) -> bytes:
    body = leaf + b"\x94"
    for i in range(levels):
        body += b"0}(" + text("a") + recalled(i) + text("b") + recalled(i) + b"u\x94"
    return body


TUPLES = b"N\x94" + b"".join(b"0" + recalled(i) + b"2\x86\x94" for i in range(60))
LEAF = MODULE + b")\x81" + mapping({"_parameters": mapping({"w": tensor()}), "_modules": b"}"}) + b"b"
LOOP = mapping({"a": recalled(0), "b": LEAF})
ORDER = name("collections", "OrderedDict")
ALIKE = MODULE + b")\x81}(" + text("_parameters") + b"h\x00" + text("_modules") + b"}ub"  # each has the same table
ARRAY = numpy_array((500_000,), data=call(name("_codecs", "encode"), b"h\x00", text("latin1")))


def many_named(count: int, value: bytes) -> bytes:
    return b"}(" + b"".join(text(f"m{i}") + value for i in range(count)) + b"u"


def shared(count: int) -> bytes:
    return b"}" + b"\x94(" + b"".join(text(f"k{i}") + b"N" for i in range(count)) + b"u"


def pairs(count: int) -> bytes:
    return b"]\x94(" + listed(text("a"), b"N") * count + b"e0"


# By kind: a file that wants as much as `n` steps, a hundred less than are allowed, can ask for.
GREEDY: dict[str, Callable[[int], bytes]] = {
    "too many steps": lambda n: b"N" * (n + 110),
    "endless pushing and popping": lambda n: b"N0" * n + b"N",
    "dicts": lambda n: greedy(b"}", n),
    "filled dicts": lambda n: greedy(b"}NNs", n // 4),
    "dicts of texts": lambda n: b"U\x01a\x940" + greedy(b"}h\x00Ns", n // 4),
    "filled lists": lambda n: greedy(b"]Na", n // 3),
    "tuples": lambda n: greedy(b"N\x85", n // 2),
    "marks": lambda n: b"(" * n,
    "memo by number": lambda n: b"N" + b"".join(b"r" + struct.pack("<I", i) for i in range(n)),
    "calls": lambda n: name("argparse", "Namespace") + b"\x940" + greedy(b"h\x00)R", n // 3),
    "calls with entries": lambda n: name("argparse", "Namespace") + b"\x940" + greedy(b"h\x00)RNNs", n // 6),
    "persistent": lambda n: b"N\x940" + greedy(b"h\x00Q", n // 2),
    "long integers": lambda n: greedy(b"\x8a\xff" + b"\x01" * 255, n // 4),
    "texts": lambda n: greedy(b"U\x04abcd", n),
    "texts with one wide letter each": lambda n: greedy(text("x" * 4000 + "😀"), 2100),
    "long bytes": lambda n: greedy(b"B" + struct.pack("<I", 5000) + bytes(5000), 2000),
    "one text of 40 MB with a wide letter": lambda n: text("x" * 40_000_000 + "😀"),
    "different names": lambda n: b"(" + b"".join(name("timm", f"a{i}") for i in range(n)) + b"t",
    "nested lists": lambda n: b"]" * (n // 2) + b"a" * (n // 2 - 1),
    "nested tuples": lambda n: b")" + b"\x85" * n,
    "nested dicts": lambda n: b"}N" * (n // 3) + b"}" + b"s" * (n // 3),
    "nested dicts of one name": lambda n: b"U\x05model\x940" + b"}h\x00" * (n // 5) + STATE + b"s" * (n // 5),
    "nested modules": lambda n: modules_doubling(n // 133, LEAF),
    "a list in itself": lambda n: b"]\x94h\x00a",
    "a dict in itself": lambda n: b"}\x94" + text("model") + b"h\x00s",
    "a dict in itself with a tensor": lambda n: b"}\x94(" + text("x") + b"h\x00" + text("y") + STATE + b"u",
    "a wrapper in itself": lambda n: b"}\x94(" + text("model") + b"h\x00" + text("x") + STATE + b"u",
    "a module in itself": lambda n: SELF + mapping({"_parameters": b"}", "_modules": LOOP}) + b"b",
    "a module whose modules are itself": lambda n: SELF + mapping({"_parameters": b"}", "_modules": b"h\x00"}) + b"b",
    "a tensor in itself": lambda n: mapping({"w": REBUILD + b")R\x94" + many(b"h\x00") + b"b"}),
    "2^60 values by tuples": lambda n: TUPLES,
    "2^60 values by lists": lambda n: b"]\x94" + b"".join(b"0](" + recalled(i) + b"2e\x94" for i in range(60)),
    "2^60 values by dicts": lambda n: dicts_doubling(60, b"}"),
    "2^60 tensors by dicts": lambda n: dicts_doubling(60, STATE),
    "2^60 values by modules": lambda n: modules_doubling(60, EMPTY_MODULE),
    "2^60 tensors by modules": lambda n: modules_doubling(60, LEAF),
    "2^17 tensors by modules": lambda n: modules_doubling((n // 3).bit_length(), LEAF),
    "2^60 values as a key": lambda n: b"}" + TUPLES + b"Ns",
    "keys of one hash": lambda n: b"}(" + b"".join(number(i * (2**61 - 1)) + b"N" for i in range(n // 4)) + b"u",
    "texts of one hash": lambda n: b"}(" + b"".join(text(f"{i}") + b"N" for i in range(n // 4)) + b"u",
    "one table in many modules": lambda n: shared(3 * n // 20) + b"0" + many_named(n // 20, ALIKE),
    "one list of pairs in many mappings": lambda n: pairs(n // 20) + many_named(n // 20, ORDER + b"h\x00\x85R"),
    "one array many times": lambda n: text("é" * 2_000_000) + b"\x940" + many_named(200, ARRAY),
    "one storage many times": lambda n: mapping({f"w{i}": tensor() for i in range(n // 67)} | {"z": tensor(offset=9)}),
    "long names": lambda n: mapping({"x" * 4000 + str(i): tensor() for i in range(1000)}),
    "long nested names": lambda n: mapping({"x" * 300: mapping({"y" * 300: STATE})}),
}  # fmt: skip


# Those that only a limit ends, whichever comes first; the others are refused for what they hold.
LIMITED = {
    "too many steps", "endless pushing and popping", "texts with one wide letter each", "different names",
    "nested dicts of one name", "nested modules", "a dict in itself with a tensor", "a wrapper in itself",
    "a module in itself", "2^60 tensors by dicts", "2^60 tensors by modules", "2^17 tensors by modules",
    "one table in many modules", "one list of pairs in many mappings", "one array many times", "long names",
    "long nested names",
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "steps"), sweep([(kind, steps) for kind in GREEDY for steps in (SMALL, FULL)], lambda c: c[1] == SMALL)
)
def test_greedy_files_take_little_time_and_memory(
    kind: str, steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpickle, "MAX_STEPS", steps)
    monkeypatch.setattr(unwrap, "_MAX_LOOKS", steps)  # the same number
    content = zipped(GREEDY[kind](steps - 100))
    (tmp_path / "file").write_bytes(content)
    tracemalloc.start()
    start = time.process_time()
    try:
        with pytest.raises(CheckpointError, match="hostile|claim many times" if kind in LIMITED else None):
            read_torch(tmp_path / "file")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert time.process_time() - start < (SECONDS if steps == SMALL else LONG)
    assert peak < 3 * len(content) + (SLACK // 4 if steps == SMALL else SLACK)


@pytest.mark.parametrize("count", sweep([400, 5000], [400]))
def test_one_widened_storage_serves_all_its_tensors(count: int, tmp_path: Path) -> None:
    """Widened for each of them, 400 would take 3 GB."""
    items = {f"w{i}": tensor(storage("0", 2_000_000, "BFloat16"), (i + 1,), (1,)) for i in range(count)}
    content = zipped(mapping(items), {"0": bytes(4_000_000)})
    tracemalloc.start()
    try:
        arrays = read(content, tmp_path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(arrays) == count
    assert peak < 3 * len(content) + SLACK


@pytest.mark.parametrize("most", sweep([2000, torch_zip._MAX_MEMBERS], [2000]))
def test_an_archive_of_very_many_members_is_refused(
    most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_zip, "_MAX_MEMBERS", most)
    assert_refused(archive([Member(f"f/{i}") for i in range(most + 1)], align=1), tmp_path)
