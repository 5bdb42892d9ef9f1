"""Strings in the attributes of an HDF5 file, read without the HDF5 library.

A string of variable length is not stored with its attribute, but in a heap shared by many. The library (2.0 too)
allocates as much memory as the attribute claims that its string needs, up to 4 GiB, before it looks there, and loops
forever on some damaged heaps. So strings are read here instead:

    an object's header    messages, one of them the attribute: its name, type, shape, and a reference
    the reference         length (4 bytes), the heap's address (8), the string's index in it (4)
    the heap              "GCOL", version, 3 bytes, size (8); then strings: index (2), 6 bytes, size (8), data

Format: the HDF5 File Format Specification, IV.A (object headers) and III.E (global heap).
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator

from .zip_archive import RefusedError

_ATTRIBUTE, _CONTINUATION = 0x0C, 0x10  # kinds of messages
_MAX_HEADER = 1 << 20  # bytes of all messages of one object


class Texts:
    """Reader of strings from the bytes of a file.

    Raises RefusedError, IndexError or struct.error where they are damaged.
    """

    def __init__(self, data: bytes | mmap.mmap) -> None:
        self.data = data
        self.heaps: dict[int, dict[int, bytes]] = {}
        sizes, base = {0: (13, 24), 1: (13, 28)}.get(data[8], (9, 12))  # their position, by the superblock's version
        if data[sizes : sizes + 2] != b"\x08\x08" or any(data[base : base + 8]):
            raise RefusedError("has places that are not of 8 bytes, counted from its start, as Keras writes them")

    def read(self, header: int, name: str) -> str | None:
        """Return the string in an attribute of the object whose header starts there; None if it has none."""
        for message in self._attributes(header):
            version, *sizes = struct.unpack("<Bx3H", message[:8])  # of name, type and shape
            at, step = 9 if version == 3 else 8, 8 if version == 1 else 1
            if message[at : at + sizes[0]].rstrip(b"\0") == name.encode():
                at += sum(-(-size // step) * step for size in sizes)
                length, heap, number = struct.unpack("<IQI", message[at : at + 16])
                text = self._heap(heap).get(number, b"") if length else b""
                if len(text) != length:
                    raise RefusedError(f"is damaged: it has a text of {length} bytes that is not in its heap")
                return text.decode()
        return None

    def _attributes(self, header: int) -> Iterator[bytes]:
        """Yield the attributes among an object's messages, which may be stored in several parts."""
        new = self.data[header : header + 4] == b"OHDR"
        if new:
            flags = self.data[header + 5]
            start, width = header + 6 + 16 * (flags >> 5 & 1) + 4 * (flags >> 4 & 1), 1 << (flags & 3)
            parts = [(start + width, int.from_bytes(self.data[start : start + width], "little"))]
            head = "<BHB2x" if flags & 4 else "<BHB"
        else:
            parts = [(header + 16, *struct.unpack("<I", self.data[header + 8 : header + 12]))]
            head = "<HHB3x"
        room = _MAX_HEADER
        for start, length in parts:  # including parts appended below
            room -= length + 1
            if room < 0 or start + length > len(self.data):
                raise RefusedError("is damaged: an object's header is longer than it can be")
            for kind, flags, message in _messages(self.data[start : start + length], head):
                if kind == _CONTINUATION:
                    start, length = struct.unpack("<QQ", message[:16])
                    parts.append((start + 4, length - 8) if new else (start, length))  # new: "OCHK", then a checksum
                elif kind == _ATTRIBUTE and not flags & 2:  # 2: stored elsewhere
                    yield message

    def _heap(self, start: int) -> dict[int, bytes]:
        """Return the strings in the heap that starts there, by index."""
        if start in self.heaps:
            return self.heaps[start]
        magic, size = struct.unpack("<4s4xQ", self.data[start : start + 16])
        end = start + size
        if magic != b"GCOL" or end > len(self.data):
            raise RefusedError("is damaged: a text refers to a heap that is not there")
        texts: dict[int, bytes] = {}
        position = start + 16
        while position + 16 <= end:
            number, size = struct.unpack("<H6xQ", self.data[position : position + 16])
            if number == 0:  # the rest is free space
                break
            if number in texts or position + 16 + size > end:
                raise RefusedError("is damaged: a text in its heap is of an impossible size")
            texts[number] = self.data[position + 16 : position + 16 + size]
            position += 16 + -(-size // 8) * 8
        self.heaps[start] = texts
        return texts


def _messages(part: bytes, head: str) -> Iterator[tuple[int, int, bytes]]:
    """Yield the kind, flags and content of each message."""
    position, width = 0, struct.calcsize(head)
    while position + width <= len(part):
        kind, size, flags = struct.unpack(head, part[position : position + width])
        position += width + size
        yield kind, flags, part[position - size : position]
