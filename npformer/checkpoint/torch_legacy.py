"""PyTorch's container before 1.6: consecutive pickles, then the storages.

magic number, protocol 1001, {"little_endian": ...}, the object, [keys of storages]     five pickles
then for each key in that order:  int64 number of elements, the elements
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .torch_tensor import storage_of
from .torch_zip import MAX_PICKLE
from .unpickle import Pickle, load
from .weights import CheckpointError

_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001


def read_legacy(data: np.ndarray, source: str) -> tuple[Pickle, dict[str, np.ndarray]]:
    """Return the pickle and the raw storages by key, as views of `data`.

    Raises CheckpointError, which names `source`.
    """
    view = data.data
    if load(view[:32], source).tree != _MAGIC_NUMBER:
        raise CheckpointError(f"{source} is a pickle, but not one of PyTorch's")
    pickles: list[Pickle] = []
    position = 0
    for _ in range(5):
        pickles.append(load(view[position : position + MAX_PICKLE], source))
        position += pickles[-1].end
    _, protocol, system, _, keys = (pickle.tree for pickle in pickles)
    if (
        type(protocol) is not int
        or protocol != _PROTOCOL
        or not isinstance(system, dict)
        or not isinstance(keys, list)
    ):
        raise CheckpointError(f"{source} is damaged: its header is not that of a PyTorch file")
    if system.get("little_endian") is not True:
        raise CheckpointError(f"{source} holds its numbers big-endian, or in no known order of bytes")
    return pickles[3], _storages(data, position, keys, pickles[3], source)


def _storages(data: np.ndarray, position: int, keys: list[Any], pickle: Pickle, source: str) -> dict[str, np.ndarray]:
    """Split the data into storages; the size of an element is known only from the tensors that refer to a storage."""
    widths: dict[str, int] = {}
    for reference in pickle.persistent:
        key, _, _, itemsize = storage_of(reference.identifier, source)
        widths[key] = itemsize
    raw: dict[str, np.ndarray] = {}
    for key in keys:
        if type(key) is not str or key not in widths or key in raw:
            raise CheckpointError(f"{source} is damaged: its list of storages does not fit its tensors")
        count = int.from_bytes(bytes(data[position : position + 8]), "little", signed=True)
        start = position + 8
        position = start + count * widths[key]
        if count < 0 or position > len(data):
            raise CheckpointError(f"{source} is damaged: it ends before its tensors do")
        raw[key] = data[start:position]
    if position != len(data):
        raise CheckpointError(f"{source} is damaged: {len(data) - position} bytes follow its last storage")
    return raw
