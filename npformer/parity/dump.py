"""Dumps of a port's intermediate values: the formats, reading and writing.

Four forms are read:

    a folder of `.npy` files      the path below the folder, without the suffix, is the name ("%3A" stands for ":")
    `.npz`                        as `np.savez(path, **values)` writes it ("%3A" may stand for ":" here too)
    `.safetensors`                npformer's traces among them
    a folder with manifest.json   raw little-endian numbers, a file each, for programs without a library for the others

The manifest lists the values in order of computation:

    {"format": "npformer-dump", "version": 1, "values": [
        {"name": "stem.conv", "file": "0.bin", "dtype": "float32", "shape": [1, 112, 112, 32], "layout": "NHWC"}, ...]}

dtype is float64, float32, float16 or bfloat16; layout may be omitted.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import uuid
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import numpy as np

from ..checkpoint.atomic import replacing
from ..checkpoint.json_object import read_json
from ..checkpoint.safetensors_file import read_metadata, read_tensors, write_tensors
from ..checkpoint.weights import widen_bfloat16
from ..checkpoint.zip_archive import MAGIC, RefusedError, quoted, refusing
from ..ops import Array

MANIFEST = "manifest.json"
FORMAT = "npformer-dump"
# A mapped file takes a descriptor, and a dump may have more values (EfficientNet-B7: 1040) than a process may open
# files (macOS: 256); so smaller files are read.
MAPPED = 16 << 20
NPZ_ROOM = 4 << 30  # bytes that an archive may hold beyond three times its size: a map of NaN compresses far
_RAW = {"float64": "<f8", "float32": "<f4", "float16": "<f2", "bfloat16": "<u2"}


class Dump(Mapping[str, np.ndarray]):
    """A read-only mapping from the port's names to its values.

    ordered: whether the order is that of computation, as far as the form can tell (not of a folder of `.npy` files nor
    of a safetensors file of another program). dtypes: the stored dtype of each value; bfloat16 is read as float32.
    layouts: the port's order of axes, for the values that declare it. source: the origin, for messages.
    """

    def __init__(
        self,
        values: Mapping[str, Any],
        *,
        ordered: bool = True,
        dtypes: Mapping[str, str] | None = None,
        layouts: Mapping[str, str] | None = None,
        source: str = "port",
    ) -> None:
        arrays = {name: _array(source, name, value) for name, value in values.items()}
        if not arrays:
            raise ValueError(f"{source} holds no values")
        self.ordered, self.layouts, self.source = ordered, dict(layouts or {}), source
        self.dtypes = {name: value.dtype.name for name, value in arrays.items()} | dict(dtypes or {})
        # JAX's arrays may be of bfloat16, which NumPy itself lacks.
        self._values = {n: v.astype(np.float32) if v.dtype.name == "bfloat16" else v for n, v in arrays.items()}

    def __getitem__(self, name: str) -> Array:
        """Return the value of that name."""
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names, in the order of computation if `ordered`."""
        return iter(self._values)

    def __len__(self) -> int:
        """Return the number of values."""
        return len(self._values)

    def __repr__(self) -> str:
        """Return the origin and the number of values."""
        return f"Dump({self.source}: {len(self)} values)"


def _array(source: str, name: Any, value: Any) -> Array:
    """Return a value as an array of floating-point numbers.

    Raises ValueError for anything else, TypeError for a bad name.
    """
    if not isinstance(name, str):
        raise TypeError(f"{source}: names must be texts, got {name!r}")
    if "\0" in name:
        raise ValueError(f"{source}: a name must not hold a NUL character, got {name!r}")
    try:
        array = np.asarray(value)
    except Exception as error:  # any error of the library that made the value
        raise ValueError(f"{source}: {name!r} cannot be taken as an array: {_one_line(error)}") from None
    if array.dtype.name not in _RAW:
        raise ValueError(f"{source}: {name!r} holds {array.dtype}; floating-point numbers are expected")
    return array


def as_dump(port: Any) -> Dump:
    """Convert a Dump, a mapping from name to array, or a path to a Dump.

    Raises as `read_dump`, TypeError for all else.
    """
    if isinstance(port, Dump):
        return port
    if isinstance(port, str | Path):
        return read_dump(port)
    if isinstance(port, Mapping):
        return Dump(port, layouts=getattr(port, "layouts", None))
    raise TypeError(f"port must be a mapping from name to array or a path, got {type(port).__name__}")


def read_dump(path: str | Path) -> Dump:
    """Read a dump in any of the four formats.

    Numbers of large `.npy` and raw files stay on disk until they are accessed. Raises FileNotFoundError, and
    ValueError for a dump that is damaged, hostile, empty, or holds anything but floating-point numbers.
    """
    path = Path(path)
    if path.is_dir():
        return _read_manifest(path) if (path / MANIFEST).is_file() else _read_folder(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file or folder {path}")
    if path.suffix == ".npz":
        return Dump(_named(path, _read_npz(path)), source=str(path))
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    raise ValueError(f"{path} must be a folder, .npz or .safetensors, got the suffix {path.suffix!r}")


def write_dump(values: Mapping[str, Any], path: str | Path) -> None:
    """Write values in their order: `.npz`, `.safetensors`, or, without a suffix, a new folder with a manifest.

    The dump appears complete or not at all. Raises ValueError for another suffix, FileExistsError where the folder
    exists.
    """
    path, dump = Path(path), as_dump(values)
    if path.suffix == ".npz":
        _write_npz(dump, path)
    elif path.suffix == ".safetensors":
        write_tensors(path, dict(dump), {"order": json.dumps(list(dump)), "layouts": json.dumps(dump.layouts)})
    elif path.suffix == "":
        _write_manifest(dump, path)
    else:
        raise ValueError(f"path must end in .npz, .safetensors or have no suffix, got {path}")


def _named(path: Path, values: Iterable[tuple[str, Array]]) -> dict[str, Array]:
    """Return pairs as a mapping. Raises ValueError for a name that occurs twice, in two spellings."""
    named: dict[str, Array] = {}
    for name, value in values:
        if name in named:
            raise ValueError(f"{path} holds two values of the name {name!r}")
        named[name] = value
    return named


def _read_folder(folder: Path) -> Dump:
    files = [file for file in folder.rglob("*.npy") if not file.is_dir()]
    if not files:
        raise ValueError(f"{folder} holds no .npy file and no {MANIFEST}")
    paths = {file.relative_to(folder).as_posix().removesuffix(".npy"): file for file in files}
    ordered = sorted(paths, key=_natural)
    values = _named(folder, ((unquote(path), _read_npy(paths[path])) for path in ordered))
    return Dump(values, ordered=False, source=str(folder))


def _read_npy(file: Path) -> Array:
    if not file.is_file():
        raise ValueError(f"{file} is no file, or leads nowhere")
    try:
        array = np.load(file, mmap_mode="r" if file.stat().st_size >= MAPPED else None, allow_pickle=False)
    except Exception as error:  # NumPy raises many kinds of errors for malformed bytes
        raise ValueError(f"{file} is no readable array of numbers: {_one_line(error)}") from None
    if not isinstance(array, np.ndarray):
        array.close()
        raise ValueError(f"{file} is an archive of arrays, where one array is expected")
    return array


def _read_npz(path: Path) -> list[tuple[str, Array]]:
    """Return names and arrays.

    The reader of checkpoints refuses ONNX's names ("/conv/Conv_0") and data with a high compression ratio.
    """
    values = []
    with refusing(path), path.open("rb") as file:
        start = file.read(len(MAGIC))
        if start != MAGIC:
            raise RefusedError(f"is not an npz file: it begins with {start!r}")
        with zipfile.ZipFile(file) as archive:
            claimed = sum(member.file_size for member in archive.infolist())
            if claimed > 3 * path.stat().st_size + NPZ_ROOM:
                raise RefusedError(f"claims more than it can hold: {claimed} bytes")
            for member in archive.infolist():
                if not member.filename.endswith(".npy"):
                    raise RefusedError(f"is a zip archive, but not NumPy's: it has {quoted(member.filename)}")
                with archive.open(member) as content:
                    array = np.lib.format.read_array(content, allow_pickle=False)
                    if content.read(1):
                        raise RefusedError(f"has {quoted(member.filename)} with more than its numbers")
                values.append((unquote(member.filename.removesuffix(".npy")), array))
    return values


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _natural(name: str) -> list[Any]:
    """Return a sort key that puts "block2" before "block10"."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", name)]


def _read_safetensors(path: Path) -> Dump:
    values, metadata = read_tensors(path), read_metadata(path)
    try:
        order, layouts = json.loads(metadata["order"]), json.loads(metadata.get("layouts", "{}"))
    except (KeyError, ValueError, RecursionError):
        return Dump(values, ordered=False, source=str(path))
    if not isinstance(order, list) or sorted(map(repr, order)) != sorted(map(repr, values)):
        raise ValueError(f"{path} is damaged: its order does not name the values it holds")
    if not isinstance(layouts, dict) or not all(isinstance(layout, str) for layout in layouts.values()):
        raise ValueError(f"{path} is damaged: its layouts must map names to texts")
    return Dump({name: values[name] for name in order}, layouts=layouts, source=str(path))


def _read_manifest(folder: Path) -> Dump:
    manifest = read_json(folder / MANIFEST)
    where = folder / MANIFEST
    if (
        manifest.get("format") != FORMAT
        or manifest.get("version") != 1
        or not isinstance(manifest.get("values"), list)
    ):
        raise ValueError(f"{where} must have format {FORMAT!r}, version 1 and a list of values")
    values: dict[str, Array] = {}
    dtypes, layouts = {}, {}
    for entry in manifest["values"]:
        name = entry.get("name") if isinstance(entry, dict) else None
        if not isinstance(name, str) or name in values:
            raise ValueError(f"{where} must give every value a name of its own, got {str(entry)[:100]!r}")
        values[name] = _read_raw(folder, name, entry)
        dtypes[name] = entry["dtype"]
        if isinstance(entry.get("layout"), str):
            layouts[name] = entry["layout"]
    return Dump(values, dtypes=dtypes, layouts=layouts, source=str(folder))


def _read_raw(folder: Path, name: str, entry: dict[str, Any]) -> Array:
    shape, dtype, file = entry.get("shape"), entry.get("dtype"), entry.get("file")
    if not isinstance(dtype, str) or dtype not in _RAW:
        raise ValueError(f"{folder}: dtype of {name!r} must be one of {', '.join(_RAW)}, got {str(dtype)[:100]!r}")
    if (
        not isinstance(shape, list)
        or len(shape) > 32
        or not all(type(side) is int and side >= 0 for side in shape)
        or math.prod(max(side, 1) for side in shape) >= 2**59  # NumPy can address at most 2^63 bytes
    ):
        raise ValueError(f"{folder}: shape of {name!r} must be a list of whole numbers, got {str(shape)[:100]}")
    path = _inside(folder, file)
    if path is None:
        raise ValueError(f"{folder}: file of {name!r} must be a file in that folder, got {str(file)[:100]!r}")
    count, size = math.prod(shape), path.stat().st_size
    if size != count * np.dtype(_RAW[dtype]).itemsize:
        raise ValueError(f"{path} must hold {count} numbers of {dtype} for {name!r}, got {size} bytes")
    if size >= MAPPED:
        raw: Array = np.memmap(path, _RAW[dtype], "r", shape=tuple(shape))
    else:
        raw = np.fromfile(path, _RAW[dtype]).reshape(shape)
    return widen_bfloat16(raw) if dtype == "bfloat16" else raw


def _inside(folder: Path, file: Any) -> Path | None:
    """Return the path of a file in a folder, links resolved; None where there is none, or where it is outside."""
    try:
        path = (folder / file).resolve()
        return path if path.is_relative_to(folder.resolve()) and path.is_file() else None
    except (TypeError, ValueError, OSError, RuntimeError):  # no text, NUL, too long, cyclic links
        return None


def _write_npz(dump: Dump, path: Path) -> None:
    """Write as `np.savez` does, which cannot write a value named "file"."""
    with replacing(path) as partial, zipfile.ZipFile(partial, "w") as archive:
        for name, value in dump.items():
            member = file_name(name).replace("%3A", ":").replace("%23", "#")
            with archive.open(member, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, value, allow_pickle=False)


def _write_manifest(dump: Dump, folder: Path) -> None:
    if folder.exists():
        raise FileExistsError(f"{folder} exists already; a dump is written to a new folder")
    partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.partial")
    partial.mkdir(parents=True)
    try:
        entries = []
        for number, (name, value) in enumerate(dump.items()):
            dtype, file = value.dtype.name, f"{number:05}.bin"
            value.astype(_RAW[dtype], copy=False).tofile(partial / file)
            entry: dict[str, Any] = {"name": name, "file": file, "dtype": dtype, "shape": list(value.shape)}
            entries.append(entry | ({"layout": dump.layouts[name]} if name in dump.layouts else {}))
        manifest = {"format": FORMAT, "version": 1, "values": entries}
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=1), "utf-8")
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def file_name(name: str) -> str:
    """Return the path of a value below a folder of `.npy` files, which is never outside the folder."""
    parts = name.split("/")
    # "/a", "a//b", "..": not paths below a folder, so slashes and dots are encoded as numbers too.
    is_path = not name or all(part.strip(".") for part in parts)
    return (quote(name, safe="/ ") if is_path else quote(name, safe=" ").replace(".", "%2E")) + ".npy"
