"""npz: a zip archive of arrays, each in NumPy's own format as `<name>.npy`."""

from __future__ import annotations

import io
import math
import zipfile
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from .weights import Weights
from .zip_archive import MAGIC, Archive, RefusedError, quoted, refusing

_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def read_npz(path: Path) -> Weights:
    """Read the arrays of a file by `np.savez` or `np.savez_compressed`, by their names; numbers only, no objects.

    Raises FileNotFoundError; CheckpointError for a file that is damaged, hostile, or holds anything but arrays.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    with refusing(path):
        with path.open("rb") as file:
            start = file.read(4)
        if start != MAGIC:
            raise RefusedError(f"is not an npz file: it begins with {start!r}")
        with zipfile.ZipFile(path) as opened:
            archive = Archive(opened, path.stat().st_size)
            arrays = {_array_name(name): _array(name, archive.read(name)) for name in archive.members}
        if not arrays:
            raise RefusedError("holds no arrays")
    return Weights(arrays, "npz")


def _array_name(member: str) -> str:
    name = member.removesuffix(".npy")
    if not name or name == member or name.rsplit("/", 1)[-1] in ("", ".", ".."):
        raise RefusedError(f"is a zip archive, but not NumPy's: it has a member {quoted(member)}")
    return name


def _array(member: str, content: bytes) -> np.ndarray:
    """Return an array from its bytes: 6 of magic, a version, a header, then the numbers and nothing else."""
    file = io.BytesIO(content)
    version = npy.read_magic(file)
    if version not in _HEADERS:
        raise RefusedError(f"has {quoted(member)} in version {version} of NumPy's format, which is not for numbers")
    shape, fortran_order, dtype = _HEADERS[version](file)
    if dtype.kind not in "fiub" or dtype.itemsize > 8:
        raise RefusedError(f"has {quoted(member)} of type {dtype}; an array of numbers should be there")
    # Axes of length 0 aside, NumPy can address at most 2^63 bytes.
    if any(side < 0 for side in shape) or math.prod(max(side, 1) for side in shape) >= 2**59 or len(shape) > 64:
        raise RefusedError(f"has {quoted(member)} of the impossible shape {str(shape)[:100]}")
    if len(content) - file.tell() != math.prod(shape) * dtype.itemsize:
        raise RefusedError(f"has {quoted(member)} of shape {shape}, but not just its numbers")
    array = np.frombuffer(content, dtype, offset=file.tell()).reshape(shape, order="F" if fortran_order else "C")
    return array.astype(dtype.newbyteorder("="), copy=False)
