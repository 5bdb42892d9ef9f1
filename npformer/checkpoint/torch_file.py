"""Reader of PyTorch's weight files (.pth, .pt, .bin) without PyTorch: their content is described, never executed."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .json_object import read_json
from .torch_legacy import read_legacy
from .torch_tensor import Tensors
from .torch_zip import MAGIC, read_zip
from .unpickle import shown
from .unwrap import describe, find_tensors, strip_prefixes, unwrap
from .weights import CheckpointError, Weights

_MAX_INDEX = 2_000_000  # bytes
_MAX_SHARDS = 100
_RESAVE = "load it in PyTorch and save model.state_dict() with torch.save"
_OTHERS = {  # often downloaded under such a name instead
    b"version https://git-lfs": "is a Git LFS pointer: the weights themselves were not downloaded (git lfs pull)",
    b"<!DOCTYPE": "is an HTML page: the download went wrong",
    b"<!doctype": "is an HTML page: the download went wrong",
    b"<html": "is an HTML page: the download went wrong",
    b"\x89HDF\r\n\x1a\n": "is an HDF5 file",
    b"\x1f\x8b": "is compressed with gzip: unpack it first",
    b"BZh": "is compressed with bzip2: unpack it first",
    b"\xfd7zXZ": "is compressed with xz: unpack it first",
    b"PK\x05\x06": "is an empty zip archive",
}


def read_torch(path: Path) -> Weights:
    """Read a PyTorch file of either container, recognised by its first bytes, as read-only views of the mapped file.

    Wrappers such as `{"state_dict": ...}` and prefixes such as `module.` are removed; notes report them.
    Raises FileNotFoundError, or CheckpointError for anything that is damaged, hostile, or holds no weights.
    """
    tree, tensors, container = _open(path)
    nodes, notes = unwrap(tree, str(path))
    arrays = {name: tensors.array(name, node) for name, node in nodes.items()}
    return Weights(arrays, container, notes, describe(tree, str(path)))


def read_torch_index(path: Path) -> Weights:
    """Read the shards that a `pytorch_model.bin.index.json` names. Raises as `read_torch`, and for a bad index."""
    weight_map = _weight_map(path)
    shards: dict[str, dict[str, np.ndarray]] = {}
    for shard in dict.fromkeys(weight_map.values()):
        tree, tensors, _ = _open(path.parent / shard)
        nodes, _ = find_tensors(tree, str(path.parent / shard))
        shards[shard] = {name: tensors.array(name, node) for name, node in nodes.items()}
    absent = [f"{name} (in {shard})" for name, shard in weight_map.items() if name not in shards[shard]]
    if absent:
        more = f" and {len(absent) - 5} more" if len(absent) > 5 else ""
        listed = ", ".join(shown(name) for name in absent[:5])
        raise CheckpointError(f"{path} promises tensors that its shards lack: {listed}{more}")
    notes = [f"the weights are in {len(shards)} shards"]
    extra = sum(len(held) for held in shards.values()) - len(weight_map)
    if extra:
        notes.append(f"left out: {extra} tensors of the shards that the index does not name")
    arrays, stripped = strip_prefixes({name: shards[shard][name] for name, shard in weight_map.items()})
    return Weights(arrays, "PyTorch shards", notes + stripped)


def _weight_map(path: Path) -> dict[str, str]:
    """Return the file of each tensor, checked."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    if path.stat().st_size > _MAX_INDEX:
        raise CheckpointError(f"{path} is no index of shards: it is longer than {_MAX_INDEX} bytes")
    try:
        weight_map = read_json(path).get("weight_map")
    except ValueError as error:
        raise CheckpointError(str(error)) from None
    if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
        raise CheckpointError(f"{path} must map tensor names to files under weight_map")
    shards = set(weight_map.values())
    for shard in shards:  # a shard lies beside its index; anything else could point anywhere
        if Path(shard).name != shard or not shard.strip(".") or "\\" in shard or not shard.isprintable():
            raise CheckpointError(f"{path} names the shard '{shown(shard)}', which must be a plain file name")
    if not 0 < len(shards) <= _MAX_SHARDS:
        raise CheckpointError(f"{path} names {len(shards)} shards; readable are 1 to {_MAX_SHARDS}")
    return weight_map


def _open(path: Path) -> tuple[object, Tensors, str]:
    """Return the file's content as a tree, the builder of its arrays, and the name of the container."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    size = path.stat().st_size
    if size == 0:
        raise CheckpointError(f"{path} is empty")
    data = np.asarray(np.memmap(path, np.uint8, "r", shape=(size,)))  # asarray, since slicing a memmap is slow
    head = bytes(data[:512])
    for magic, what in _OTHERS.items():
        if head.startswith(magic):
            raise CheckpointError(f"{path} {what}")
    if head[8:9] == b"{":
        raise CheckpointError(f"{path} is a safetensors file: give it the suffix .safetensors")
    if head[257:262] == b"ustar":
        raise CheckpointError(f"{path} is a tar archive, as PyTorch before 0.2 wrote them: {_RESAVE}")
    if head.startswith(MAGIC):
        container, (pickle, storages) = "PyTorch zip", read_zip(data, str(path))
    elif head[:1] == b"\x80":
        container, (pickle, storages) = "PyTorch before 1.6", read_legacy(data, str(path))
    else:
        raise CheckpointError(f"{path} is no PyTorch file: it begins with {head[:8]!r}")
    return pickle.tree, Tensors(storages, pickle.persistent, size, str(path)), container
