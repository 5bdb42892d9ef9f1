"""PyTorch files written by hand, instruction by instruction and field by field, so that any of them can be wrong."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
KINDS = {
    "f8": "Double", "f4": "Float", "f2": "Half", "i8": "Long", "i4": "Int", "i2": "Short", "i1": "Char", "u1": "Byte",
    "?": "Bool",
}  # fmt: skip

# --- pickles ---------------------------------------------------------------------------------------------------------


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def number(value: int) -> bytes:
    """An integer, as Python writes it."""
    if 0 <= value < 256:
        return b"K" + bytes([value])
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def many(*items: bytes) -> bytes:
    """A tuple."""
    return b"(" + b"".join(items) + b"t"


def listed(*items: bytes) -> bytes:
    return b"](" + b"".join(items) + b"e"


def mapping(items: dict[str, bytes]) -> bytes:
    return b"}(" + b"".join(text(key) + value for key, value in items.items()) + b"u"


def call(function: bytes, *args: bytes) -> bytes:
    return function + many(*args) + b"R"


ORDERED = call(name("collections", "OrderedDict"))
REBUILD = name("torch._utils", "_rebuild_tensor_v2")


def numbers(values: Any) -> bytes:
    return many(*(number(value) for value in values))


def storage(key: str = "0", count: Any = 6, kind: str = "Float", legacy: bool = False) -> bytes:
    count = count if isinstance(count, bytes) else number(count)
    location = [text("cpu"), count] + ([b"N"] if legacy else [])
    return many(text("storage"), name("torch", f"{kind}Storage"), text(key), *location) + b"Q"


def tensor(where: bytes | None = None, shape: Any = (2, 3), stride: Any = (3, 1), offset: Any = 0) -> bytes:
    offset = offset if isinstance(offset, bytes) else number(offset)
    shape = shape if isinstance(shape, bytes) else numbers(shape)
    stride = stride if isinstance(stride, bytes) else numbers(stride)
    return call(REBUILD, storage() if where is None else where, offset, shape, stride, b"\x89", ORDERED)


def pickled(body: bytes, protocol: int = 2) -> bytes:
    return b"\x80" + bytes([protocol]) + body + b"."


def dtype_of(code: str, order: str = "<") -> bytes:
    made = call(name("numpy", "dtype"), text(code), b"\x89", b"\x88")
    return made + many(number(3), text(order), b"N", b"N", b"N", number(-1), number(-1), number(0)) + b"b"


def numpy_array(shape: Any = (2,), dtype: bytes | None = None, data: bytes = b"C\x08abcdefgh") -> bytes:
    made = call(name("numpy.core.multiarray", "_reconstruct"), name("numpy", "ndarray"), many(number(0)), b"C\x01b")
    shape = shape if isinstance(shape, bytes) else numbers(shape)
    return made + many(number(1), shape, dtype_of("f4") if dtype is None else dtype, b"\x89", data) + b"b"


NUMBERS = np.arange(6, dtype="<f4").tobytes()  # what storage "0" of all these files holds
STATE = mapping({"weight": tensor()})

# --- the zip container -----------------------------------------------------------------------------------------------


@dataclass
class Member:
    """One member of an archive; every field of its headers may lie."""

    name: str
    data: bytes = b""
    method: int = 0
    flags: int = 0x800
    size: int | None = None
    packed: int | None = None
    offset: int | None = None
    local_name: str | None = None
    extra: bytes = b""


def archive(
    members: list[Member], count: int | None = None, comment: bytes = b"", wide: bool = False, align: int = 64
) -> bytes:
    """A zip archive, its data aligned as PyTorch does."""
    body, directory = b"", b""
    for member in members:
        offset = len(body) if member.offset is None else member.offset
        size = len(member.data) if member.size is None else member.size
        packed = len(member.data) if member.packed is None else member.packed
        label, local = member.name.encode(), (member.local_name or member.name).encode()
        head = struct.pack("<5H3I", 20, member.flags, member.method, 0, 0, 0, packed % 2**32, size % 2**32)
        padding = b"\0" * (-(len(body) + 30 + len(local)) % align)
        body += b"PK\3\4" + head + struct.pack("<2H", len(local), len(padding)) + local + padding + member.data
        lengths = struct.pack("<5H2I", len(label), len(member.extra), 0, 0, 0, 0, offset)
        directory += b"PK\1\2" + struct.pack("<H", 20) + head + lengths + label + member.extra
    begin, count = len(body), len(members) if count is None else count
    end = body + directory
    if wide:
        end += b"PK\6\6" + struct.pack("<Q2H2I4Q", 44, 45, 45, 0, 0, count, count, len(directory), begin)
        end += b"PK\6\7" + struct.pack("<IQI", 0, begin + len(directory), 1)
    return end + b"PK\5\6" + struct.pack("<4H2IH", 0, 0, count, count, len(directory), begin, len(comment)) + comment


def zipped(body: bytes, storages: dict[str, bytes] | None = None, *more: Member, stem: str = "file") -> bytes:
    """A whole file: the pickle of `body` and its storages."""
    storages = {"0": NUMBERS} if storages is None else storages
    members = [Member(f"{stem}/data.pkl", pickled(body)), Member(f"{stem}/byteorder", b"little")]
    members += [Member(f"{stem}/data/{key}", data) for key, data in storages.items()]
    return archive([*members, Member(f"{stem}/version", b"3\n"), *more], wide=True)


# --- the container before 1.6 ----------------------------------------------------------------------------------------


def legacy(body: bytes, /, storages: dict[str, tuple[int, bytes]] | None = None, **header: bytes) -> bytes:
    """A whole file; `header` replaces one of its pickles by name: magic, protocol, system, keys."""
    storages = {"0": (6, NUMBERS)} if storages is None else storages
    parts = {
        "magic": pickled(number(MAGIC_NUMBER)),
        "protocol": pickled(number(1001)),
        "system": pickled(mapping({"protocol_version": number(1001), "little_endian": b"\x88"})),
        "body": pickled(body),
        "keys": pickled(listed(*(text(key) for key in storages))),
    } | header
    data = b"".join(struct.pack("<q", count) + raw for count, raw in storages.values())
    return b"".join(parts.values()) + data


LEGACY_STATE = mapping({"weight": tensor(storage(legacy=True))})
