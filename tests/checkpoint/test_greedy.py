"""Files that would exhaust time or memory: the limits are 5 s, and three times their size + 64 MB."""

from __future__ import annotations

import struct
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

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

N = MAX_STEPS - 100


def greedy(code: bytes, count: int = N) -> bytes:
    """A group of what `count` times `code` leaves, as a tuple."""
    return b"(" + code * count + b"t"


def recalled(index: int) -> bytes:
    """A value from the memo."""
    return b"j" + struct.pack("<I", index)


SHARED = b"}" + b"\x94(" + b"".join(text(f"k{i}") + b"N" for i in range(60_000)) + b"u"
PAIRS = b"]\x94(" + listed(text("a"), b"N") * 20_000 + b"e0"
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


GREEDY: dict[str, Callable[[], bytes]] = {
    "too many steps": lambda: b"N" * (MAX_STEPS + 10),
    "endless pushing and popping": lambda: b"N0" * MAX_STEPS + b"N",
    "dicts": lambda: greedy(b"}"),
    "filled dicts": lambda: greedy(b"}NNs", N // 4),
    "dicts of texts": lambda: b"U\x01a\x940" + greedy(b"}h\x00Ns", N // 4),
    "filled lists": lambda: greedy(b"]Na", N // 3),
    "tuples": lambda: greedy(b"N\x85", N // 2),
    "marks": lambda: b"(" * N,
    "memo by number": lambda: b"N" + b"".join(b"r" + struct.pack("<I", i) for i in range(N)),
    "calls": lambda: name("argparse", "Namespace") + b"\x940" + greedy(b"h\x00)R", N // 3),
    "calls with entries": lambda: name("argparse", "Namespace") + b"\x940" + greedy(b"h\x00)RNNs", N // 6),
    "persistent": lambda: b"N\x940" + greedy(b"h\x00Q", N // 2),
    "long integers": lambda: greedy(b"\x8a\xff" + b"\x01" * 255, 100_000),
    "texts": lambda: greedy(b"U\x04abcd"),
    "texts with one wide letter each": lambda: greedy(text("x" * 4000 + "😀"), 2100),
    "long bytes": lambda: greedy(b"B" + struct.pack("<I", 5000) + bytes(5000), 2000),
    "one text of 40 MB with a wide letter": lambda: text("x" * 40_000_000 + "😀"),
    "different names": lambda: b"(" + b"".join(name("timm", f"a{i}") for i in range(N)) + b"t",
    "nested lists": lambda: b"]" * (N // 2) + b"a" * (N // 2 - 1),
    "nested tuples": lambda: b")" + b"\x85" * N,
    "nested dicts": lambda: b"}N" * (N // 3) + b"}" + b"s" * (N // 3),
    "nested dicts of one name": lambda: b"U\x05model\x940" + b"}h\x00" * (N // 5) + STATE + b"s" * (N // 5),
    "nested modules": lambda: modules_doubling(3000, LEAF),
    "a list in itself": lambda: b"]\x94h\x00a",
    "a dict in itself": lambda: b"}\x94" + text("model") + b"h\x00s",
    "a dict in itself with a tensor": lambda: b"}\x94(" + text("x") + b"h\x00" + text("y") + STATE + b"u",
    "a wrapper in itself": lambda: b"}\x94(" + text("model") + b"h\x00" + text("x") + STATE + b"u",
    "a module in itself": lambda: SELF + mapping({"_parameters": b"}", "_modules": LOOP}) + b"b",
    "a module whose modules are itself": lambda: SELF + mapping({"_parameters": b"}", "_modules": b"h\x00"}) + b"b",
    "a tensor in itself": lambda: mapping({"w": REBUILD + b")R\x94" + many(b"h\x00") + b"b"}),
    "2^60 values by tuples": lambda: TUPLES,
    "2^60 values by lists": lambda: b"]\x94" + b"".join(b"0](j" + struct.pack("<I", i) + b"2e\x94" for i in range(60)),
    "2^60 values by dicts": lambda: dicts_doubling(60, b"}"),
    "2^60 tensors by dicts": lambda: dicts_doubling(60, STATE),
    "2^60 values by modules": lambda: modules_doubling(60, EMPTY_MODULE),
    "2^60 tensors by modules": lambda: modules_doubling(60, LEAF),
    "2^17 tensors by modules": lambda: modules_doubling(17, LEAF),
    "2^60 values as a key": lambda: b"}" + TUPLES + b"Ns",
    "keys of one hash": lambda: b"}(" + b"".join(number(i * (2**61 - 1)) + b"N" for i in range(100_000)) + b"u",
    "texts of one hash": lambda: b"}(" + b"".join(text(f"{i}") + b"N" for i in range(100_000)) + b"u",
    "one table in many modules": lambda: SHARED + b"0" + many_named(20_000, ALIKE),
    "one list of pairs in many mappings": lambda: PAIRS + many_named(20_000, ORDER + b"h\x00\x85R"),
    "one array many times": lambda: text("é" * 2_000_000) + b"\x940" + many_named(200, ARRAY),
    "one storage many times": lambda: mapping({f"w{i}": tensor() for i in range(6000)} | {"z": tensor(offset=9)}),
    "long names": lambda: mapping({"x" * 4000 + str(i): tensor() for i in range(1000)}),
    "long nested names": lambda: mapping({"x" * 300: mapping({"y" * 300: STATE})}),
}  # fmt: skip


@pytest.mark.parametrize("kind", GREEDY)
def test_greedy_files_take_little_time_and_memory(kind: str, tmp_path: Path) -> None:
    content = zipped(GREEDY[kind]())
    (tmp_path / "file").write_bytes(content)
    tracemalloc.start()  # which makes it two to three times slower
    start = time.process_time()
    try:
        with pytest.raises(CheckpointError):
            read_torch(tmp_path / "file")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert time.process_time() - start < 2 * SECONDS
    assert peak < 3 * len(content) + SLACK


def test_one_widened_storage_serves_all_its_tensors(tmp_path: Path) -> None:
    items = {f"w{i}": tensor(storage("0", 2_000_000, "BFloat16"), (i + 1,), (1,)) for i in range(5000)}
    content = zipped(mapping(items), {"0": bytes(4_000_000)})
    tracemalloc.start()
    try:
        arrays = read(content, tmp_path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(arrays) == 5000
    assert peak < 3 * len(content) + SLACK


def test_an_archive_of_very_many_members_is_refused(tmp_path: Path) -> None:
    assert_refused(archive([Member(f"f/{i}") for i in range(30_001)], align=1), tmp_path)
