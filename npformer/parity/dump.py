"""A port's intermediate values: what a dump is, and reading and writing one.

Four forms are read:

    a folder of `.npy` files      the path below the folder, without the suffix, is the name ("%3A" stands for ":")
    `.npz`                        as `np.savez(path, **values)` writes it
    `.safetensors`                npformer's traces among them
    a folder with manifest.json   raw little-endian numbers, a file each, for programs that have no library for others

The manifest lists the values in the order they were computed:

    {"format": "npformer-dump", "version": 1, "values": [
        {"name": "stem.conv", "file": "0.bin", "dtype": "float32", "shape": [1, 112, 112, 32], "layout": "NHWC"}, ...]}

dtype is float64, float32, float16 or bfloat16; layout may be left out.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import numpy as np

from ..checkpoint.json_object import read_json
from ..checkpoint.npz_file import read_npz
from ..checkpoint.safetensors_file import read_metadata, read_tensors, write_tensors
from ..checkpoint.weights import widen_bfloat16
from ..ops import Array

MANIFEST = "manifest.json"
FORMAT = "npformer-dump"
_RAW = {"float64": "<f8", "float32": "<f4", "float16": "<f2", "bfloat16": "<u2"}


class Dump(Mapping[str, np.ndarray]):
    """A read-only mapping from the port's names to its values.

    ordered: whether the order is that of computation, as far as the form can tell (not of a folder of `.npy` files nor
    of a safetensors file of another program). dtypes: what each value was stored in; bfloat16 comes as float32.
    layouts: how the port lays out axes, of the values it says so of. source: where it comes from, for messages.
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
        self._values = {str(name): np.asarray(value) for name, value in values.items()}
        self.ordered, self.layouts, self.source = ordered, dict(layouts or {}), source
        self.dtypes = {name: str(value.dtype) for name, value in self._values.items()} | dict(dtypes or {})
        if not self._values:
            raise ValueError(f"{source} holds no values")
        for name, value in self._values.items():
            if value.dtype.kind != "f" or value.dtype.itemsize > 8:
                raise ValueError(f"{source}: {name!r} holds {value.dtype}; floating-point numbers are expected")

    def __getitem__(self, name: str) -> Array:
        """The value of that name."""
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        """The names, in the order of computation if `ordered`."""
        return iter(self._values)

    def __len__(self) -> int:
        """How many values there are."""
        return len(self._values)

    def __repr__(self) -> str:
        """Where it comes from, and how much is in it."""
        return f"Dump({self.source}: {len(self)} values)"


def as_dump(port: Any) -> Dump:
    """Take a Dump, a mapping from name to array, or a path to read. Raises as `read_dump`, TypeError for all else."""
    if isinstance(port, Dump):
        return port
    if isinstance(port, str | Path):
        return read_dump(port)
    if isinstance(port, Mapping):
        return Dump(port, layouts=getattr(port, "layouts", None))
    raise TypeError(f"port must be a mapping from name to array or a path, got {type(port).__name__}")


def read_dump(path: str | Path) -> Dump:
    """Read a dump in any of the four forms.

    Numbers of `.npy` and raw files stay on disk until they are looked at. Raises FileNotFoundError, and ValueError for
    what is damaged, hostile, empty, or holds anything but floating-point numbers.
    """
    path = Path(path)
    if path.is_dir():
        return _read_manifest(path) if (path / MANIFEST).is_file() else _read_folder(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file or folder {path}")
    if path.suffix == ".npz":
        return Dump(read_npz(path).arrays, source=str(path))
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    raise ValueError(f"{path} must be a folder, .npz or .safetensors, got the suffix {path.suffix!r}")


def write_dump(values: Mapping[str, Any], path: str | Path) -> None:
    """Write values in their order: `.npz`, `.safetensors`, or, without a suffix, a new folder with a manifest.

    Raises ValueError for another suffix, FileExistsError where the folder exists.
    """
    path, dump = Path(path), as_dump(values)
    if path.suffix == ".npz":
        with path.open("wb") as file:
            np.savez(file, **dict(dump))  # type: ignore[arg-type]  # its other argument has a name of its own
    elif path.suffix == ".safetensors":
        write_tensors(path, dict(dump), {"order": json.dumps(list(dump)), "layouts": json.dumps(dump.layouts)})
    elif path.suffix == "":
        _write_manifest(dump, path)
    else:
        raise ValueError(f"path must end in .npz, .safetensors or have no suffix, got {path}")


def _read_folder(folder: Path) -> Dump:
    values = {}
    for file in sorted(folder.rglob("*.npy"), key=lambda file: _natural(file.relative_to(folder).as_posix())):
        name = unquote(file.relative_to(folder).with_suffix("").as_posix())
        try:
            values[name] = np.load(file, mmap_mode="r", allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise ValueError(f"{file} is no readable array of numbers: {error}") from None
    if not values:
        raise ValueError(f"{folder} holds no .npy file and no {MANIFEST}")
    return Dump(values, ordered=False, source=str(folder))


def _natural(name: str) -> list[Any]:
    """Sorts "block2" before "block10"."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name)]


def _read_safetensors(path: Path) -> Dump:
    values, metadata = read_tensors(path), read_metadata(path)
    try:
        order, layouts = json.loads(metadata["order"]), json.loads(metadata.get("layouts", "{}"))
    except (KeyError, ValueError, RecursionError):
        return Dump(values, ordered=False, source=str(path))
    if not isinstance(order, list) or sorted(map(str, order)) != sorted(values) or not isinstance(layouts, dict):
        raise ValueError(f"{path} is damaged: its order does not name the values it holds")
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
    if dtype not in _RAW:
        raise ValueError(f"{folder}: dtype of {name!r} must be one of {', '.join(_RAW)}, got {dtype!r}")
    if not isinstance(shape, list) or not all(type(side) is int and side >= 0 for side in shape) or len(shape) > 32:
        raise ValueError(f"{folder}: shape of {name!r} must be a list of whole numbers, got {str(shape)[:100]}")
    path = (folder / file).resolve() if isinstance(file, str) and "\0" not in file else folder
    if not path.is_relative_to(folder.resolve()) or not path.is_file():
        raise ValueError(f"{folder}: file of {name!r} must be a file in that folder, got {str(file)[:100]!r}")
    count, size = math.prod(shape), path.stat().st_size
    if size != count * np.dtype(_RAW[dtype]).itemsize:
        raise ValueError(f"{path} must hold {count} numbers of {dtype} for {name!r}, got {size} bytes")
    raw = np.memmap(path, _RAW[dtype], "r", shape=tuple(shape)) if count else np.empty(shape, _RAW[dtype])
    return widen_bfloat16(raw) if dtype == "bfloat16" else raw


def _write_manifest(dump: Dump, folder: Path) -> None:
    if folder.exists():
        raise FileExistsError(f"{folder} exists already; a dump is written to a new folder")
    partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.partial")
    partial.mkdir(parents=True)
    try:
        entries = []
        for number, (name, value) in enumerate(dump.items()):
            dtype, file = str(value.dtype), f"{number:05}.bin"
            value.astype(_RAW[dtype], copy=False).tofile(partial / file)
            entry: dict[str, Any] = {"name": name, "file": file, "dtype": dtype, "shape": list(value.shape)}
            entries.append(entry | ({"layout": dump.layouts[name]} if name in dump.layouts else {}))
        manifest = {"format": FORMAT, "version": 1, "values": entries}
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=1), "utf-8")
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def file_name(name: str) -> str:
    """The path, below a folder of `.npy` files, that stands for a value's name."""
    return quote(name, safe="/ ") + ".npy"
