"""safetensors: 8 bytes of header length, a JSON header, then the raw numbers of every tensor, back to back.

The safetensors library writes. Reading is done here so that the arrays stay *in the file*: each is a view of one
memory map, so that opening a checkpoint costs nothing and several processes share its pages. Every size and offset is
checked against the file before a view is made.
"""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .atomic import replacing, write_text
from .json_object import parse_json, read_json
from .weights import widen_bfloat16

WEIGHTS_NAME = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"
_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?",
    "BF16": "<u2",  # NumPy has no bfloat16: read as 16 bits, then widened
}  # fmt: skip


def read_checkpoint(directory: Path) -> dict[str, np.ndarray]:
    """Read a model directory's weights: `model.safetensors`, or all shards that its index names.

    Raises FileNotFoundError where neither is there, ValueError for a damaged file, index or shard.
    """
    index_path = directory / INDEX_NAME
    if (directory / WEIGHTS_NAME).is_file():
        return read_tensors(directory / WEIGHTS_NAME)
    if not index_path.is_file():
        raise FileNotFoundError(f"{directory} holds neither {WEIGHTS_NAME} nor {INDEX_NAME}")
    weight_map = read_json(index_path).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
        raise ValueError(f"{index_path} must map tensor names to files under weight_map")
    shards: dict[str, dict[str, np.ndarray]] = {}
    for shard in sorted(set(weight_map.values())):
        if Path(shard).name != shard:  # a shard lies beside its index; anything else could point anywhere
            raise ValueError(f"{index_path} names the shard {shard!r}, which must be a plain file name")
        shards[shard] = read_tensors(directory / shard)
    absent = [f"{name} (in {shard})" for name, shard in weight_map.items() if name not in shards[shard]]
    if absent:
        raise ValueError(f"{index_path} promises tensors that its shards lack: {', '.join(absent)}")
    return {name: shards[shard][name] for name, shard in weight_map.items()}


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """Map a file and return its tensors as read-only views; bfloat16 is widened to float32 (a copy).

    Raises FileNotFoundError, or ValueError where the file is not, or not quite, safetensors.
    """
    header, start = _read_header(path)
    del header["__metadata__"]
    size = path.stat().st_size - start
    data = np.memmap(path, np.uint8, "r", start, (size,)) if size else np.empty(0, np.uint8)
    tensors, position = {}, 0
    for name, entry in sorted(header.items(), key=lambda item: _offsets(path, *item)):
        begin, end = _offsets(path, name, entry)
        shape, dtype = _shape_and_dtype(path, name, entry)
        # The format requires tensors back to back and each of exactly its shape's size: no gaps, no overlaps.
        if begin != position or end > size or end - begin != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"{path} is damaged: {name} claims bytes {begin} to {end} of {size} for shape {shape}")
        position = end
        raw = data[begin:end]
        array = np.frombuffer(raw.tobytes() if raw.ctypes.data % dtype.itemsize else raw, dtype).reshape(shape)
        tensors[name] = widen_bfloat16(array) if entry["dtype"] == "BF16" else array
    if position != size:
        raise ValueError(f"{path} is damaged: {size - position} bytes belong to no tensor")
    return tensors


def read_metadata(path: Path) -> dict[str, str]:
    """Return the free-text metadata of a safetensors file ({} where it has none). Raises as `read_tensors`."""
    return _read_header(path)[0]["__metadata__"]


def write_tensors(path: Path, tensors: Mapping[str, np.ndarray], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file atomically: it appears complete or not at all.

    Raises OSError where it cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent} to write {path.name} into")
    try:
        with replacing(path) as partial:
            # np.array(order="C") rather than ascontiguousarray, which would turn a scalar into a list of one.
            save_file({k: np.array(v, order="C", copy=None) for k, v in tensors.items()}, partial, metadata)
    except SafetensorError as error:
        raise OSError(f"{path} cannot be written: {error}") from None


def write_checkpoint(directory: Path, tensors: Mapping[str, np.ndarray], max_shard_size: int) -> None:
    """Write a model directory's weights: one file, or, above `max_shard_size` bytes, shards and their index.

    Files of an earlier save that this one did not replace are removed: readers could not know which to trust.
    """
    shards: list[dict[str, np.ndarray]] = [{}]
    for name, array in tensors.items():
        if shards[-1] and sum(a.nbytes for a in shards[-1].values()) + array.nbytes > max_shard_size:
            shards.append({})
        shards[-1][name] = array
    names = [f"model-{i:05}-of-{len(shards):05}.safetensors" for i in range(1, len(shards) + 1)]
    if len(shards) == 1:
        names = [WEIGHTS_NAME]
    for shard_name, shard in zip(names, shards, strict=True):
        write_tensors(directory / shard_name, shard, {"format": "pt"})  # transformers refuses files without it
    written = set(names)
    if len(shards) > 1:
        _write_index(directory / INDEX_NAME, names, shards)
        written.add(INDEX_NAME)
    for old in [directory / INDEX_NAME, directory / WEIGHTS_NAME, *directory.glob("model-?????-of-?????.safetensors")]:
        if old.name not in written:
            old.unlink(missing_ok=True)


def _write_index(path: Path, names: list[str], shards: list[dict[str, np.ndarray]]) -> None:
    """Write the index as JSON: the shard of each tensor."""
    index = {
        "metadata": {"total_size": sum(array.nbytes for shard in shards for array in shard.values())},
        "weight_map": {name: shard_name for shard_name, shard in zip(names, shards, strict=True) for name in shard},
    }
    write_text(path, json.dumps(index, indent=2) + "\n")


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    """Return the JSON header and the offset at which the data begins."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, 100_000_000):
            raise ValueError(f"{path} is not a safetensors file: its first 8 bytes claim a header of {length} bytes")
        header = parse_json(file.read(length), f"the header of {path}")
    metadata = header.get("__metadata__")
    header["__metadata__"] = metadata = {} if metadata is None else metadata
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise ValueError(f"{path} is damaged: its __metadata__ must map names to texts")
    return header, 8 + length


def _offsets(path: Path, name: str, entry: Any) -> tuple[int, int]:
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(type(v) is int and v >= 0 for v in offsets):
        raise ValueError(f"{path} is damaged: {name} has no pair of data_offsets")
    return offsets[0], offsets[1]


def _shape_and_dtype(path: Path, name: str, entry: dict[str, Any]) -> tuple[tuple[int, ...], np.dtype]:
    shape, dtype = entry.get("shape"), entry.get("dtype")
    # NumPy supports at most 64 axes, and 2^63 bytes, axes of length 0 aside.
    if (
        not isinstance(shape, list)
        or len(shape) > 64
        or not all(type(n) is int and n >= 0 for n in shape)
        or math.prod(max(n, 1) for n in shape) >= 2**59
    ):
        raise ValueError(f"{path} is damaged: {name} has the shape {reprlib.repr(shape)}")
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise ValueError(f"{path}: {name} has dtype {reprlib.repr(dtype)}; readable are {', '.join(_DTYPES)}")
    return tuple(shape), np.dtype(_DTYPES[dtype])
