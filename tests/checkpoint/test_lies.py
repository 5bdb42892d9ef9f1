"""Tensors, archives and old files with wrong numbers: sizes, offsets, strides, counts, names."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.checkpoint.build import (
    LEGACY_STATE,
    NUMBERS,
    ORDERED,
    REBUILD,
    STATE,
    Member,
    archive,
    call,
    dtype_of,
    legacy,
    listed,
    many,
    mapping,
    name,
    number,
    numbers,
    numpy_array,
    pickled,
    storage,
    tensor,
    text,
    zipped,
)
from tests.checkpoint.watch import assert_refused, read

# --- tensors that lie ------------------------------------------------------------------------------------------------

BIG = 2**62
FLOAT, PARAMETER = name("torch", "FloatStorage"), name("torch._utils", "_rebuild_parameter")
LIES = {
    "shape beyond the storage": tensor(shape=(2, 4), stride=(4, 1)),
    "offset beyond the storage": tensor(offset=1),
    "offset at the end": tensor(shape=(1,), stride=(1,), offset=6),
    "scalar beyond": tensor(shape=(), stride=(), offset=6),
    "huge offset": tensor(offset=BIG),
    "offset of 2^64": tensor(offset=2**64),
    "offset of 2^600": tensor(offset=2**600),
    "negative offset": tensor(offset=-1),
    "negative shape": tensor(shape=(-2, 3)),
    "two negative axes": tensor(shape=(-2, -3)),
    "negative stride": tensor(stride=(-3, 1), offset=5),
    "negative strides that end inside": tensor(shape=(2, 2), stride=(-1, 2)),
    "stride beyond": tensor(stride=(4, 1)),
    "huge stride": tensor(stride=(BIG, 1)),
    "strides that overflow to fit": tensor(shape=(3, 2), stride=(2**63, 1)),
    "huge shape": tensor(shape=(BIG,), stride=(1,)),
    "shapes whose product overflows": tensor(shape=(2**32, 2**32), stride=(0, 0)),
    "huge empty shape": tensor(shape=(0, BIG), stride=(1, 1)),
    "expanded to terabytes": tensor(shape=(2**40,), stride=(0,)),
    "expanded to a gigabyte": tensor(shape=(2**28,), stride=(0,)),
    "more strides than axes": tensor(stride=(3, 1, 1)),
    "fewer strides than axes": tensor(stride=(1,)),
    "100 axes": tensor(shape=(1,) * 100, stride=(1,) * 100),
    "10,000 axes": tensor(shape=(1,) * 10_000, stride=(1,) * 10_000),
    "float as offset": tensor(offset=b"G" + bytes(8)),
    "true as offset": tensor(offset=b"\x88"),
    "None as shape": tensor(shape=b"N"),
    "list as shape": tensor(shape=listed(number(6))),
    "texts as shape": tensor(shape=many(text("2"), text("3"))),
    "true in the shape": tensor(shape=many(b"\x88"), stride=many(b"\x88")),
    "no storage": tensor(b"N"),
    "a list as storage": tensor(b"]"),
    "storage that is not there": tensor(storage("1")),
    "storage elsewhere": tensor(storage("../data.pkl")),
    "storage outside": tensor(storage("/etc/passwd")),
    "storage with no key": tensor(storage("")),
    "more elements than the storage": tensor(storage(count=7)),
    "fewer elements than the storage": tensor(storage(count=5), (5,), (1,)),
    "negative count": tensor(storage(count=-6)),
    "huge count": tensor(storage(count=2**70)),
    "float count": tensor(storage(count=b"G" + bytes(8))),
    "true as count": tensor(storage(count=b"\x88")),
    "wider elements than the storage": tensor(storage(kind="Double")),
    "a kind that is none": tensor(storage(kind="Foo")),
    "complex": tensor(storage(count=3, kind="ComplexFloat"), (3,), (1,)),
    "quantized": tensor(storage(count=24, kind="QInt8"), (3,), (1,)),
    "one storage as two kinds": b"}(" + text("i") + tensor(storage(kind="Int")) + text("f") + tensor() + b"u",
    "a reference to nothing": tensor(many() + b"Q"),
    "a reference that is a text": tensor(text("storage") + b"Q"),
    "a reference with too few fields": tensor(many(text("storage"), FLOAT, text("0")) + b"Q"),
    "a reference of another kind": tensor(many(text("file"), FLOAT, text("0"), text("cpu"), number(6)) + b"Q"),
    "a reference to an odd key": tensor(many(text("storage"), FLOAT, number(0), text("cpu"), number(6)) + b"Q"),
    "a view of a storage": tensor(many(text("storage"), FLOAT, text("0"), text("cpu"), number(6), many()) + b"Q"),
    "a tensor without arguments": REBUILD + b")R",
    "a tensor of a tensor": call(REBUILD, tensor(), number(0), numbers((6,)), numbers((1,)), b"\x89", ORDERED),
    "a parameter of nothing": call(PARAMETER, b"N", b"\x88", ORDERED),
    "parameters of parameters": PARAMETER * 50 + tensor() + b"\x85R" * 50,
    "a type that is none": call(name("torch._tensor", "_rebuild_from_type_v2"), PARAMETER, b"N", b")", b"N"),
    "sparse": call(name("torch._utils", "_rebuild_sparse_tensor"), b"N"),
}  # fmt: skip


@pytest.mark.parametrize("kind", LIES)
def test_tensors_that_lie_are_refused(kind: str, tmp_path: Path) -> None:
    assert_refused(zipped(mapping({"weight": LIES[kind]})), tmp_path)
    assert_refused(zipped(mapping({"good": tensor(), "weight": LIES[kind]})), tmp_path)
    assert_refused(legacy(mapping({"weight": LIES[kind]})), tmp_path)


NUMPY_LIES = {
    "objects": numpy_array(dtype=dtype_of("O8", "|")),
    "records": numpy_array(dtype=dtype_of("V8", "|")),
    "texts": numpy_array(dtype=dtype_of("U1")),
    "complex": numpy_array(dtype=dtype_of("c8")),
    "big-endian": numpy_array(dtype=dtype_of("f4", ">")),
    "long doubles": numpy_array(dtype=dtype_of("f16")),
    "dates": numpy_array(dtype=dtype_of("M8")),
    "a dtype in words": numpy_array(dtype=dtype_of("f4,f4")),
    "no dtype": numpy_array(dtype=b"N"),
    "a dtype without state": numpy_array(dtype=call(name("numpy", "dtype"), text("f4"))),
    "objects by list": numpy_array(dtype=dtype_of("O8", "|"), data=listed(b"N", b"N")),
    "too few bytes": numpy_array((3,)),
    "too many bytes": numpy_array((1,)),
    "negative shape": numpy_array((-2,)),
    "two negative axes": numpy_array((-1, -2)),
    "huge shape": numpy_array((2**62, 4)),
    "huge empty shape": numpy_array((0, 2**62), data=b"C\x00"),
    "65 axes": numpy_array((1,) * 64 + (2,)),
    "shape of texts": numpy_array(many(text("2"))),
    "no shape": numpy_array(b"N"),
    "a list as bytes": numpy_array(data=b"]"),
    "None as bytes": numpy_array(data=b"N"),
    "text beyond Latin-1": numpy_array(data=text("abcdef☃")),
    "long text beyond Latin-1": numpy_array((1250,), data=text("x" * 4988 + "☃" * 4)),
    "bytes that are no text": numpy_array(data=call(name("_codecs", "encode"), b"N", text("latin1"))),
    "without state": call(name("numpy.core.multiarray", "_reconstruct"), name("numpy", "ndarray"), many(number(0))),
    "a buffer in another order": call(
        name("numpy._core.numeric", "_frombuffer"), b"C\x04abcd", dtype_of("f4"), many(number(1)), text("A")
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", NUMPY_LIES)
def test_numpy_arrays_that_lie_are_refused(kind: str, tmp_path: Path) -> None:
    assert read(zipped(mapping({"weight": numpy_array()})), tmp_path)["weight"].shape == (2,)
    assert_refused(zipped(mapping({"weight": NUMPY_LIES[kind]})), tmp_path)


def test_many_names_of_one_tensor_may_not_claim_a_gigabyte(tmp_path: Path) -> None:
    shared = tensor(storage(count=25_000), (25_000,), (1,)) + b"\x94"
    names = b"".join(text(f"w{i}") + b"h\x00" for i in range(10_000))
    body = b"}(" + text("w") + shared + names + b"u"
    assert "claim many times" in assert_refused(zipped(body, {"0": bytes(100_000)}), tmp_path)


# --- archives that lie -----------------------------------------------------------------------------------------------

PICKLE, STORAGE = Member("f/data.pkl", pickled(STATE)), Member("f/data/0", NUMBERS)


def changed(old: Member, **fields: Any) -> Member:
    return Member(**{**vars(old), **fields})


def patched(content: bytes, signature: bytes, position: int, value: bytes) -> bytes:
    """Bytes at some position behind the last occurrence of a signature replaced."""
    at = content.rindex(signature) + position
    return content[:at] + value + content[at + len(value) :]


GOOD, WIDE = archive([PICKLE, STORAGE]), archive([PICKLE, STORAGE], wide=True)
END, END_64, LOCATOR, ENTRY, LOCAL = b"PK\5\6", b"PK\6\6", b"PK\6\7", b"PK\1\2", b"PK\3\4"
FAR = {"size": 2**32 - 1, "packed": 2**32 - 1}
ARCHIVES = {
    "only a magic number": LOCAL,
    "magic number and zeros": LOCAL + bytes(1000),
    "no pickle": archive([STORAGE]),
    "no members": archive([Member("f/data", b"")]),
    "two pickles": archive([PICKLE, STORAGE, changed(PICKLE, name="g/data.pkl")]),
    "pickle too deep": archive([changed(PICKLE, name="f/g/data.pkl"), STORAGE]),
    "pickle without folder": archive([changed(PICKLE, name="data.pkl"), STORAGE]),
    "the same name twice": archive([PICKLE, STORAGE, STORAGE]),
    "two pickles of one name": archive([PICKLE, changed(PICKLE, data=pickled(b"N")), STORAGE]),
    "compressed pickle": archive([changed(PICKLE, method=8), STORAGE]),
    "compressed storage": archive([PICKLE, changed(STORAGE, method=8)]),
    "compressed by 1 to 1,000,000": archive([PICKLE, changed(STORAGE, method=8, size=24_000_000)]),
    "another compression": archive([PICKLE, changed(STORAGE, method=99)]),
    "encrypted": archive([PICKLE, changed(STORAGE, flags=1)]),
    "two sizes": archive([PICKLE, changed(STORAGE, packed=20)]),
    "size beyond the file": archive([PICKLE, changed(STORAGE, size=10**9, packed=10**9)]),
    "size into the directory": archive([PICKLE, changed(STORAGE, size=60, packed=60)]),
    "size of 2^32 - 1": archive([PICKLE, changed(STORAGE, size=2**32 - 1, packed=2**32 - 1)]),
    "offset beyond the file": archive([PICKLE, changed(STORAGE, offset=10**9)]),
    "offset inside another": archive([PICKLE, changed(STORAGE, offset=5)]),
    "one record, two names": archive([PICKLE, STORAGE, changed(STORAGE, name="f/data/1", offset=0)]),
    "overlap by quoting": archive([PICKLE, Member("f/data/1", LOCAL + bytes(90)), changed(STORAGE, offset=128)]),
    "two records in one": archive([PICKLE, STORAGE, changed(STORAGE, offset=GOOD.rindex(LOCAL))]),
    "named otherwise": archive([PICKLE, changed(STORAGE, local_name="f/data/1")]),
    "parent folder": archive([PICKLE, STORAGE, Member("f/../x")]),
    "outside": archive([PICKLE, STORAGE, Member("../../etc/passwd")]),
    "absolute": archive([PICKLE, STORAGE, Member("/etc/passwd")]),
    "backslash": archive([PICKLE, STORAGE, Member("f\\..\\x")]),
    "backslash behind the stem": archive([PICKLE, STORAGE, Member("f/..\\x")]),
    "a NUL in a name": archive([PICKLE, STORAGE, Member("f/x\0y")]),
    "a line end in a name": archive([PICKLE, STORAGE, Member("f/x\ny")]),
    "another stem": archive([PICKLE, STORAGE, Member("g/version", b"3")]),
    "two slashes": archive([PICKLE, STORAGE, Member("f//x")]),
    "a dot": archive([PICKLE, STORAGE, Member("f/./x")]),
    "a folder": archive([PICKLE, STORAGE, Member("f/data/")]),
    "a long name": archive([PICKLE, STORAGE, Member("f/" + "x" * 5000)]),
    "a name that is no UTF-8": GOOD.replace(b"f/data/0", b"f/data/\xff"),
    "an empty name": archive([PICKLE, STORAGE, Member("")]),
    "fewer entries than promised": archive([PICKLE, STORAGE], 3),
    "more entries than promised": archive([PICKLE, STORAGE], 1),
    "no entries": archive([PICKLE, STORAGE], 0),
    "65,535 entries": archive([PICKLE, STORAGE], 65_535),
    "2^60 entries": patched(WIDE, END_64, 24, struct.pack("<2Q", 2**60, 2**60)),
    "counts that differ": patched(GOOD, END, 8, b"\1\0"),
    "another disk": patched(GOOD, END, 4, b"\1\0"),
    "directory beyond the file": patched(GOOD, END, 16, b"\xff\xff\xff\x7f"),
    "directory of 4 GB": patched(GOOD, END, 12, b"\xff\xff\xff\xff"),
    "directory of no length": patched(GOOD, END, 12, b"\0\0\0\0"),
    "comment longer than the file": patched(GOOD, END, 20, b"\xff\xff"),
    "bytes after the end": GOOD + b"x",
    "an archive after the archive": GOOD + GOOD,
    "bytes before the start": LOCAL + GOOD,
    "locator to nowhere": patched(WIDE, LOCATOR, 8, b"\xff" * 8),
    "locator to the start": patched(WIDE, LOCATOR, 8, bytes(8)),
    "64-bit directory beyond the file": patched(WIDE, END_64, 48, b"\xff" * 8),
    "64-bit directory of 2^64": patched(WIDE, END_64, 40, b"\xff" * 8),
    "64-bit record of odd length": patched(WIDE, END_64, 4, b"\xff" * 8),
    "entry with a long name": patched(GOOD, ENTRY, 28, b"\xff\xff"),
    "entry with a long extra field": patched(GOOD, ENTRY, 30, b"\xff\xff"),
    "entry with a long comment": patched(GOOD, ENTRY, 32, b"\xff\xff"),
    "local header with a long name": patched(GOOD, LOCAL, 26, b"\xff\xff"),
    "local header with a long extra field": patched(GOOD, LOCAL, 28, b"\xff\xff"),
    "entry without signature": patched(GOOD, ENTRY, 0, b"PK\0\0"),
    "record without signature": patched(GOOD, LOCAL, 0, b"PK\0\0"),
    "64-bit fields cut off": archive([PICKLE, changed(STORAGE, **FAR, extra=b"\1\0\x10\0abc")]),
    "64-bit size of 2^64": archive([PICKLE, changed(STORAGE, **FAR, extra=b"\1\0\x10\0" + b"\xff" * 16)]),
    "TorchScript": archive([PICKLE, STORAGE, Member("f/constants.pkl", b"\x80\2).")]),
    "TorchScript, code only": archive([PICKLE, STORAGE, Member("f/code/__torch__.py", b"x", method=8)]),
    "byte order of megabytes": archive([PICKLE, STORAGE, Member("f/byteorder", b"little" * 1_000_000)]),
    "byte order unknown": archive([PICKLE, STORAGE, Member("f/byteorder", b"middle")]),
    "byte order empty": archive([PICKLE, STORAGE, Member("f/byteorder", b"")]),
}  # fmt: skip


@pytest.mark.parametrize("kind", ARCHIVES)
def test_archives_that_lie_are_refused(kind: str, tmp_path: Path) -> None:
    assert_refused(ARCHIVES[kind], tmp_path)


@pytest.mark.parametrize("content", [GOOD, WIDE])
def test_the_archives_that_were_changed_are_good(content: bytes, tmp_path: Path) -> None:
    assert list(read(content, tmp_path)) == ["weight"]


# --- old files that lie ----------------------------------------------------------------------------------------------

OLD = legacy(LEGACY_STATE)
TWO = mapping({"a": tensor(storage("0", legacy=True)), "b": tensor(storage("1", legacy=True))})
VIEW = many(text("storage"), FLOAT, text("0"), text("cpu"), number(6), many(text("1"), number(0), number(3))) + b"Q"
LEGACY = {
    "another magic number": legacy(LEGACY_STATE, magic=pickled(number(1))),
    "a magic text": legacy(LEGACY_STATE, magic=pickled(text("magic"))),
    "another protocol": legacy(LEGACY_STATE, protocol=pickled(number(1002))),
    "no protocol": legacy(LEGACY_STATE, protocol=pickled(b"N")),
    "true as protocol": legacy(LEGACY_STATE, protocol=pickled(b"\x88")),
    "no system": legacy(LEGACY_STATE, system=pickled(b"N")),
    "big-endian": legacy(LEGACY_STATE, system=pickled(mapping({"little_endian": b"\x89"}))),
    "no byte order": legacy(LEGACY_STATE, system=pickled(b"}")),
    "keys are none": legacy(LEGACY_STATE, keys=pickled(b"N")),
    "keys are numbers": legacy(LEGACY_STATE, keys=pickled(listed(number(0)))),
    "keys are lists": legacy(LEGACY_STATE, keys=pickled(listed(b"]"))),
    "a key too many": legacy(LEGACY_STATE, keys=pickled(listed(text("0"), text("1")))),
    "a key too few": legacy(LEGACY_STATE, keys=pickled(b"]")),
    "a key twice": legacy(TWO, {"0": (6, NUMBERS), "1": (6, NUMBERS)}, keys=pickled(listed(text("0"), text("0")))),
    "negative count": legacy(LEGACY_STATE, {"0": (-6, NUMBERS)}),
    "huge count": legacy(LEGACY_STATE, {"0": (2**62, NUMBERS)}),
    "count of the other": legacy(LEGACY_STATE, {"0": (5, NUMBERS[:20])}),
    "count too large by one": legacy(LEGACY_STATE, {"0": (7, NUMBERS)}),
    "count too small by one": legacy(LEGACY_STATE, {"0": (5, NUMBERS)}),
    "counts that go back": legacy(TWO, {"0": (-2, b""), "1": (6, NUMBERS)}),
    "bytes after the end": OLD + b"x",
    "twice": OLD + OLD,
    "view metadata": legacy(mapping({"a": tensor(VIEW)})),
    "one key, two kinds": legacy(mapping({"a": tensor(storage(kind="Int", legacy=True)), "b": LEGACY_STATE})),
    "a plain pickle": pickle.dumps({"weight": [1.0, 2.0]}),
    "a plain pickle of numpy arrays": pickle.dumps({"weight": np.ones(3)}),
    "only the magic number": pickled(number(0x1950A86A20F9469CFC6C)),
}  # fmt: skip


@pytest.mark.parametrize("kind", LEGACY)
def test_old_files_that_lie_are_refused(kind: str, tmp_path: Path) -> None:
    assert list(read(OLD, tmp_path)) == ["weight"]
    assert_refused(LEGACY[kind], tmp_path)


OTHERS = {
    "nothing": (b"", "is empty"),
    "a tar archive": (b"sys_info" + bytes(249) + b"ustar\x00" + bytes(500), "tar archive"),
    "a pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "Git LFS pointer"),
    "a page": (b"<!DOCTYPE html><html></html>", "HTML page"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5"),
    "gzip": (b"\x1f\x8b\x08" + bytes(100), "gzip"),
    "safetensors": (struct.pack("<Q", 2) + b"{}", "safetensors"),
    "an empty archive": (b"PK\5\6" + bytes(18), "empty zip archive"),
    "noise": (b"\x07noise\xff", "no PyTorch file"),
    "one byte": (b"P", "no PyTorch file"),
    "another archive": (archive([Member("weights.npy", b"x")]), "no data.pkl"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_files_are_named(kind: str, tmp_path: Path) -> None:
    content, words = OTHERS[kind]
    assert words in assert_refused(content, tmp_path)


@pytest.mark.parametrize("content", [zipped(STATE), legacy(LEGACY_STATE), GOOD])
def test_a_file_cut_off_anywhere_is_refused(content: bytes, tmp_path: Path) -> None:
    for length in range(len(content)):
        assert_refused(content[:length], tmp_path)
