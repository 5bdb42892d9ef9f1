"""PyTorch's container since 1.6: a zip archive of uncompressed members.

    {stem}/data.pkl     the pickle; it names each storage by a key
    {stem}/data/{key}   the raw numbers of one storage
    {stem}/byteorder    "little" or "big" (newer files)

The archive is read here, not by `zipfile`, so that storages stay in the file: only the position of each member is
needed. Nothing is unpacked and no member becomes a file, so names cannot point outside. A member must be stored
uncompressed (nothing can inflate), lie within the file, and overlap no other. Checksums are not verified: PyTorch can
be configured to write none, and a checksum of a mapped file would mean reading all of it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from .unpickle import Pickle, load, shown
from .weights import CheckpointError

MAGIC = b"PK\x03\x04"
MAX_PICKLE = 256 << 20  # bytes
_MAX_MEMBERS = 30_000
_MAX_NAME = 512
_END, _END_64, _LOCATOR, _ENTRY, _LOCAL = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07", b"PK\x01\x02", MAGIC
_UNKNOWN = 0xFFFFFFFF  # "see the 64-bit field"


@dataclass(slots=True)
class _Member:
    header: int  # offset of its local header
    size: int
    packed: str  # "" where it is uncompressed
    start: int = 0  # offset of its bytes


def read_zip(data: np.ndarray, source: str) -> tuple[Pickle, dict[str, np.ndarray]]:
    """Return the pickle and the raw storages by key, as views of `data`.

    Raises CheckpointError, which names `source`.
    """
    members = _members(data, source)
    pickles = [name for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise CheckpointError(f"{source} is a zip archive, but not PyTorch's: it has {len(pickles) or 'no'} data.pkl")
    stem = pickles[0].removesuffix("data.pkl")
    for name in members:
        parts = name.removeprefix(stem).split("/")
        if not name.startswith(stem) or "\\" in name or not all(p.strip(".") and p.isprintable() for p in parts):
            raise CheckpointError(f"{source} is damaged or hostile: it has a member named {shown(name)}")
    if stem + "constants.pkl" in members or any(name.startswith(stem + "code/") for name in members):
        hint = "load it with torch.jit.load and save its state_dict() with torch.save"
        raise CheckpointError(f"{source} is a TorchScript program, not a file of weights: {hint}")
    for name, member in members.items():
        if member.packed:
            raise CheckpointError(f"{source}: its member {shown(name)} is {member.packed}, which PyTorch never does")
    raw = {name: data[member.start : member.start + member.size] for name, member in members.items()}
    if len(raw[pickles[0]]) > MAX_PICKLE:
        raise CheckpointError(f"{source}: its data.pkl of {len(raw[pickles[0]])} bytes is longer than {MAX_PICKLE}")
    if bytes(raw.get(stem + "byteorder", b"little")[:16]) != b"little":
        raise CheckpointError(f"{source} holds its numbers big-endian, or in no known order of bytes")
    pickle = load(raw[pickles[0]].data, source)
    if pickle.end != len(raw[pickles[0]]):
        raise CheckpointError(f"{source} is damaged or hostile: its data.pkl goes on after its end")
    storages = stem + "data/"
    return pickle, {name.removeprefix(storages): view for name, view in raw.items() if name.startswith(storages)}


def _members(data: np.ndarray, source: str) -> dict[str, _Member]:
    """Return the position of every member, from the directory at the end of the archive."""
    try:
        count, begin, end = _directory(data)
        members, position = {}, begin
        for _ in range(count):
            name, member, position = _entry(data, position, end)
            if name in members:
                raise _Damaged(f"two members are named {shown(name)}")
            members[name] = member
        if position != end:
            raise _Damaged("its directory is longer than it says")
        previous = 0
        for name, member in sorted(members.items(), key=lambda item: item[1].header):
            if member.header < previous:
                raise _Damaged(f"its member {shown(name)} overlaps the one before it")
            member.start = _start(data, name, member.header)
            previous = member.start + member.size
            if previous > begin:
                raise _Damaged(f"its member {shown(name)} reaches beyond the members")
    except _Damaged as error:
        raise CheckpointError(f"{source} is damaged or hostile: {error}") from None
    return members


class _Damaged(Exception):
    """Error that says what is wrong with the archive; `_members` adds the file's name."""


def _fields(data: np.ndarray, position: int, signature: bytes, layout: str) -> tuple[int, ...]:
    """Return the little-endian fields after a signature."""
    size = struct.calcsize("<" + layout)
    record = bytes(data[position : position + 4 + size]) if position >= 0 else b""
    if len(record) != 4 + size or record[:4] != signature:
        raise _Damaged("its zip directory is broken or cut off")
    return struct.unpack("<" + layout, record[4:])


def _directory(data: np.ndarray) -> tuple[int, int, int]:
    """Return the number of entries, and the positions where they begin and end."""
    tail = bytes(data[-65_557:])  # an end record of 22 bytes and the longest comment
    found = tail.rfind(_END)
    at = len(data) - len(tail) + found if found >= 0 else -1
    disk, start_disk, here, count, size, begin, comment = _fields(data, at, _END, "4H2IH")
    end = at
    if at + 22 + comment != len(data):
        raise _Damaged("bytes follow the end of its zip archive")
    if at >= 20 and bytes(data[at - 20 : at - 16]) == _LOCATOR:
        _, end, _ = _fields(data, at - 20, _LOCATOR, "IQI")
        length, _, _, disk, start_disk, here, count, size, begin = _fields(data, end, _END_64, "Q2H2I4Q")
        if end + 12 + length != at - 20:
            raise _Damaged("bytes lie between its zip directory and its end")
    if disk or start_disk or here != count or count > _MAX_MEMBERS or begin + size != end:
        raise _Damaged("its zip directory contradicts itself or the file")
    return count, begin, end


def _entry(data: np.ndarray, position: int, end: int) -> tuple[str, _Member, int]:
    """Return one entry of the directory, and the position of the next."""
    fields = _fields(data, position, _ENTRY, "6H3I5H2I")
    flags, method, packed, size, header = fields[2], fields[3], fields[7], fields[8], fields[15]
    name_length, extra_length, comment_length = fields[9:12]
    after = position + 46 + name_length
    following = after + extra_length + comment_length
    if following > end or not 0 < name_length <= _MAX_NAME:
        raise _Damaged("an entry of its zip directory is broken")
    try:
        name = bytes(data[position + 46 : after]).decode()
    except UnicodeDecodeError:
        raise _Damaged("the name of a member is not UTF-8") from None
    how = "encrypted" if flags & 1 else "compressed" if method else ""
    wide = _wide_fields(bytes(data[after : after + extra_length]), [size, packed, header])
    if not how and wide[0] != wide[1]:
        raise _Damaged(f"its member {shown(name)} has two sizes")
    return name, _Member(wide[2], wide[1], how), following


def _wide_fields(extra: bytes, fields: list[int]) -> list[int]:
    """Return sizes and offset, those beyond 4 GiB from the extra field 1, which lists only these, in this order."""
    while _UNKNOWN in fields and len(extra) >= 4:
        kind, length = struct.unpack("<2H", extra[:4])
        values = extra[4 : 4 + length]
        while kind == 1 and len(values) >= 8 and _UNKNOWN in fields:
            fields[fields.index(_UNKNOWN)] = int.from_bytes(values[:8], "little")
            values = values[8:]
        extra = extra[4 + length :]
    return fields


def _start(data: np.ndarray, name: str, header: int) -> int:
    """Return the position of a member's bytes: after its local header, which repeats its name."""
    *_, name_length, extra_length = _fields(data, header, _LOCAL, "5H3I2H")
    after = header + 30 + name_length
    if bytes(data[header + 30 : after]) != name.encode():
        raise _Damaged(f"its member {shown(name)} is named otherwise where it lies")
    return after + extra_length


def _shown(name: str) -> str:
    return shown(name)
