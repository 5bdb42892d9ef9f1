"""Conversion of a tensor, as a PyTorch pickle describes it, to an array: a view of its storage in the file.

    element (i, j, ...) of the tensor  =  storage[offset + i * stride[0] + j * stride[1] + ...]

Offsets and strides count elements. Any number of tensors may share a storage; a stride of 0 repeats (`expand`).
Everything is checked against the storage, and the storage against the file, before an array is made.
"""

from __future__ import annotations

import math
import re
from typing import Any, Literal

import numpy as np

from .unpickle import Call, Long, Named, Persistent, shown
from .weights import CheckpointError, widen_bfloat16

_DTYPES = {
    "float64": "<f8", "float32": "<f4", "float16": "<f2", "int64": "<i8", "int32": "<i4", "int16": "<i2", "int8": "i1",
    "uint64": "<u8", "uint32": "<u4", "uint16": "<u2", "uint8": "u1", "bool": "?",
    "bfloat16": "<u2",  # NumPy has none: read as 16 bits, then widened
}  # fmt: skip
_STORAGES = {
    "Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": "bfloat16", "Long": "int64",
    "Int": "int32", "Short": "int16", "Char": "int8", "Byte": "uint8", "Bool": "bool", "Untyped": "uint8",
}  # fmt: skip
_UNREADABLE = {  # bytes per element, in order to skip them
    "ComplexDouble": 16, "ComplexFloat": 8, "ComplexHalf": 4,
    "QInt8": 1, "QUInt8": 1, "QInt32": 4, "QUInt4x2": 1, "QUInt2x4": 1,
}  # fmt: skip
_WRAPPERS = {"torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"}
_STRIDED = {f"torch._utils._rebuild_tensor{version}" for version in ("", "_v2", "_v3")}
_OTHER_KINDS = {
    "torch._utils._rebuild_qtensor": "quantized",
    "torch._utils._rebuild_sparse_tensor": "sparse",
    "torch._utils._rebuild_sparse_csr_tensor": "sparse",
    "torch._utils._rebuild_nested_tensor": "nested",
    "torch._utils._rebuild_meta_tensor_no_storage": "meta (shape without numbers)",
    "torch._utils._rebuild_device_tensor_from_numpy": "device",
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": "device",
    "torch._utils._rebuild_wrapper_subclass": "subclassed",
}
_NUMPY = re.compile(r"numpy\._?core\.(multiarray\._reconstruct|numeric\._frombuffer)")
_FROM_TYPE = "torch._tensor._rebuild_from_type_v2"
_CLAIM = 64 << 20  # bytes of numbers that any file may claim, beyond a small multiple of its size


def is_tensor(node: Any) -> bool:
    """Return whether a part of a pickle represents a tensor, readable or not, or an array."""
    if isinstance(node, np.ndarray):
        return True
    if not isinstance(node, Call):
        return False
    if node.callee == _FROM_TYPE or _NUMPY.fullmatch(node.callee):
        return True
    return node.callee in _STRIDED or node.callee in _WRAPPERS or node.callee in _OTHER_KINDS


def storage_of(identifier: Any, source: str) -> tuple[str, str, int, int]:
    """Return a storage's key, kind ("Float"), number of elements and bytes per element, from its persistent id.

    Raises CheckpointError for anything that is no such id.
    """
    match identifier:
        case ("storage", Named(name), str(key), _, int(count)) | (
            "storage",
            Named(name),
            str(key),
            _,
            int(count),
            None,
        ):
            kind = re.fullmatch(r"torch\.(?:cuda\.|storage\.)?(\w+)Storage", name, re.ASCII)
            if kind and type(count) is int and 0 <= count < 2**59:
                if kind[1] in _STORAGES:
                    return key, kind[1], count, np.dtype(_DTYPES[_STORAGES[kind[1]]]).itemsize
                if kind[1] in _UNREADABLE:
                    return key, kind[1], count, _UNREADABLE[kind[1]]
                raise CheckpointError(f"{source} has a storage of the kind {name}, which is not read here")
        case ("storage", Named(_), str(_), _, int(_), _):
            raise CheckpointError(f"{source} has a view of a storage, which only PyTorch before 0.4 wrote")
    raise CheckpointError(f"{source} is damaged: a reference to a storage is malformed")


class Tensors:
    """Builder of the arrays of one file.

    storages: the raw bytes of each storage by key, as views of the mapped file. identifiers: every reference to one in
    the pickle; all are checked at once. size: bytes of the file, which bounds the total size of its tensors.
    Raises CheckpointError.
    """

    def __init__(self, storages: dict[str, np.ndarray], identifiers: list[Persistent], size: int, source: str) -> None:
        self._raw, self._source = storages, source
        self._left = 4 * size + _CLAIM  # expanded and shared tensors may claim more bytes than the file has
        self._kinds: dict[str, str] = {}
        self._typed: dict[str, tuple[str, np.ndarray]] = {}
        self._made: dict[
            int, tuple[Any, np.ndarray]
        ] = {}  # by identity; the node is kept so that its id stays its own
        for reference in identifiers:
            key, kind, count, itemsize = storage_of(reference.identifier, source)
            if key not in storages:
                raise CheckpointError(f"{source} is damaged: it has no storage {shown(key)}")
            if count != len(storages[key]) // itemsize or self._kinds.setdefault(key, kind) != kind:
                what = f"{len(storages[key])} bytes for {count} elements of the kind {kind}"
                raise CheckpointError(f"{source} is damaged: storage {shown(key)} has {what}")

    def array(self, name: str, node: Any) -> np.ndarray:
        """Return the array that `node` describes, read-only; `name` is for errors. Equal nodes give the same array."""
        if isinstance(node, np.ndarray):
            return node
        if id(node) not in self._made:
            self._made[id(node)] = node, self._make(name, node)
        array = self._made[id(node)][1]
        self._left -= array.nbytes
        if self._left < 0:
            raise CheckpointError(f"{self._source}: its tensors claim many times the bytes that the file has")
        return array

    def _make(self, name: str, node: Any) -> np.ndarray:
        for _ in range(5):  # a parameter wraps a tensor; no real file nests deeper
            match node:
                case Call(callee, (Call() as inner, *_)) if callee in _WRAPPERS:
                    node = inner
                case Call(callee, (Named(function), _, tuple(args), _)) if callee == _FROM_TYPE:
                    node = Call(function, args)
                case Call(callee) if callee in _OTHER_KINDS:
                    raise self._error(name, f"is a {_OTHER_KINDS[callee]} tensor, which is not read here")
                case Call(callee) if _NUMPY.fullmatch(callee):
                    return self._numpy(name, node)
                case Call(callee, (Persistent() as storage, offset, tuple(shape), tuple(stride), *rest)) if (
                    callee in _STRIDED
                ):
                    dtype = rest[2] if callee.endswith("_v3") and len(rest) > 2 else None
                    return self._strided(name, self._storage(name, storage, dtype), offset, shape, stride)
                case _:
                    break
        raise self._error(name, "is a malformed tensor")

    def _storage(self, name: str, reference: Persistent, dtype: Any) -> np.ndarray:
        """Return all elements of a storage, bfloat16 widened: a view, or one copy however many tensors share it."""
        key, kind, _, _ = storage_of(reference.identifier, self._source)
        what = _STORAGES.get(kind, kind)
        if dtype is not None:  # only then is the storage untyped
            what = dtype.name.removeprefix("torch.") if isinstance(dtype, Named) and kind == "Untyped" else "?"
        if what not in _DTYPES:
            raise self._error(name, f"has the dtype {shown(what)}; readable are {', '.join(_DTYPES)}")
        if key not in self._typed:
            read = _widen_bfloat16 if what == "bfloat16" else _as_array
            self._typed[key] = what, read(self._raw[key], np.dtype(_DTYPES[what]))
        if self._typed[key][0] != what:
            raise self._error(name, f"reads as {what} a storage that another reads as {self._typed[key][0]}")
        return self._typed[key][1]

    def _strided(self, name: str, storage: np.ndarray, offset: Any, shape: Any, stride: Any) -> np.ndarray:
        if (
            not all(type(n) is int and 0 <= n < 2**59 for n in (offset, *shape, *stride))
            or not len(shape) == len(stride) <= 64
            or math.prod(max(n, 1) for n in shape) >= 2**59
        ):
            raise self._error(name, "has an impossible shape, stride or offset")
        if 0 in shape:
            return np.empty(shape, storage.dtype)
        last = offset + sum((n - 1) * step for n, step in zip(shape, stride))
        if last >= len(storage):
            raise self._error(name, f"reaches element {last} of a storage of {len(storage)}")
        width = storage.dtype.itemsize
        strides = [width * step if n > 1 else width for n, step in zip(shape, stride)]
        return np.ndarray(shape, storage.dtype, storage, width * offset, strides)  # NumPy checks again

    def _numpy(self, name: str, node: Call) -> np.ndarray:
        """Return an array that NumPy pickled itself: its bytes are inside the pickle."""
        match node:
            case Call(_, _, (int(_), tuple(shape), dtype, bool(fortran), data)):  # _reconstruct, then BUILD
                order: Literal["C", "F"] = "F" if fortran else "C"
            case Call(_, (data, dtype, tuple(shape), "C" | "F" as letter)):  # _frombuffer
                order = letter
            case _:
                raise self._error(name, "is a malformed NumPy array")
        kind = self._numpy_dtype(name, dtype)
        raw = self._bytes(name, data)
        if len(shape) > 64 or not all(type(n) is int and 0 <= n < 2**59 for n in shape):
            raise self._error(name, "has an impossible shape")
        if math.prod(max(n, 1) for n in shape) >= 2**59 or math.prod(shape) * kind.itemsize != raw.nbytes:
            raise self._error(name, f"has {raw.nbytes} bytes for a shape that needs more or fewer")
        return _as_array(raw, kind).reshape(shape, order=order)

    def _numpy_dtype(self, name: str, node: Any) -> np.dtype:
        match node:
            case Call("numpy.dtype", (str(code), *_), (int(_), "<" | "|" | "=", *_)):
                if re.fullmatch(r"b1|[iu][1248]|f[248]", code, re.ASCII):
                    return np.dtype(code)
        raise self._error(name, "is a NumPy array whose dtype is no plain little-endian number")

    def _bytes(self, name: str, data: Any) -> np.ndarray:
        """Return the bytes of a NumPy array: stored as bytes, or as text, one character U+0000 to U+00FF per byte."""
        if isinstance(data, Call) and data.callee == "_codecs.encode" and len(data.args) == 2:
            data = data.args[0]
        if isinstance(data, Call) and data.callee == "builtins.bytes" and not data.args:
            data = b""  # as in protocol 2
        if id(data) not in self._made:  # made once, however many arrays refer to it
            raw = data.raw if isinstance(data, Long) else data.encode() if isinstance(data, str) else data
            if not isinstance(raw, bytes | memoryview):
                raise self._error(name, "is a NumPy array without bytes")
            array = np.frombuffer(raw, np.uint8)
            if isinstance(data, str) or (isinstance(data, Long) and data.encoding == "utf-8"):
                if len(array) and array.max() > 0xC3:  # the start of longer characters; also bounds the decoded size
                    raise self._error(name, "is a NumPy array with a character that is no byte")
                array = np.frombuffer(str(raw, "utf-8").encode("latin-1"), np.uint8)
            self._made[id(data)] = data, array if array.ctypes.data % 8 == 0 else np.copy(array)
        return self._made[id(data)][1]

    def _error(self, name: str, what: str) -> CheckpointError:
        return CheckpointError(f"{self._source}: the tensor {shown(name, 200)} {what}")


def _as_array(raw: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return bytes as numbers, without the odd bytes at the end; copy only if they are not aligned in memory."""
    array = np.frombuffer(raw, dtype, len(raw) // dtype.itemsize)
    if not array.flags.aligned:
        array = array.copy()
    array.flags.writeable = False
    return array


def _widen_bfloat16(raw: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return a storage of bfloat16 as float32, read-only like all others here."""
    wide = widen_bfloat16(np.frombuffer(raw, dtype, len(raw) // 2))
    wide.flags.writeable = False
    return wide
