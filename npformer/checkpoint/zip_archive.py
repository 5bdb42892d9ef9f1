"""Zip archives from untrusted files: nothing is extracted to disk, and no member yields more than it may.

PyTorch's archives have a reader of their own (`torch_zip`), as their numbers are to stay in the file.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .weights import CheckpointError

MAGIC = b"PK\x03\x04"
SLACK = 64 << 20  # bytes that a file's contents may exceed three times its size by: weights hardly compress


class RefusedError(Exception):
    """Error that says what is wrong with a file; `refusing` adds its name."""


@contextmanager
def refusing(path: Path) -> Iterator[None]:
    """Turn any error while a file is read into a CheckpointError: one sentence that begins with the file's name."""
    try:
        yield
    except RefusedError as error:
        raise CheckpointError(" ".join(f"{path} {error}".split())) from None
    except Exception as error:  # libraries raise many kinds of errors for malformed bytes
        what = " ".join(str(error).split())[:200] or type(error).__name__
        raise CheckpointError(f"{path} is damaged: {what}") from None


def quoted(name: str) -> str:
    """Return a name from a file, escaped for printing."""
    return ascii(name[:100])


class Archive:
    """The members of an open zip archive. `room`: bytes that they may still take in total."""

    def __init__(self, archive: zipfile.ZipFile, file_size: int) -> None:
        self.archive = archive
        self.room = 3 * file_size + SLACK
        self.members = {info.filename: info for info in archive.infolist()}
        if len(self.members) < len(archive.infolist()):
            raise RefusedError("has two members of one name")
        for name in self.members:
            if "\\" in name or not name.isprintable() or any(part in ("", ".", "..") for part in name.split("/")[:-1]):
                raise RefusedError(f"has a member with the impossible name {quoted(name)}")

    def read(self, name: str) -> bytes:
        """Return a member's bytes, of the size it declares.

        Raises RefusedError if there are more or fewer, or too many.
        """
        info = self.members[name]
        if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise RefusedError(f"has a member {quoted(name)} that is encrypted, or compressed in an unusual way")
        self.room -= info.file_size
        if self.room < 0:
            raise RefusedError(f"claims more than it can hold: {quoted(name)} of {info.file_size} bytes")
        with self.archive.open(info) as member:
            content = member.read(info.file_size)
            if len(content) != info.file_size or member.read(1):  # reading to the end also verifies the checksum
                raise RefusedError(f"is damaged: {quoted(name)} is not of the {info.file_size} bytes that it claims")
        return content
