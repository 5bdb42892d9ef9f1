"""HDF5 as written by Keras: four layouts of one container, and the `.keras` archive around the last.

    Keras 2, `save_weights("x.h5")`     attribute layer_names; each group's weight_names; datasets named by these
    Keras 2 and 3, `save("x.h5")`       the same under the group model_weights
    transformers, `tf_model.h5`         the same; variables carry the whole model's path
    Keras 3, `save_weights("x.weights.h5")`, and 2 from 2.12 on
                                        layers/<kind>_<n>/vars/<i>; an attribute of vars, name, is the layer's own name
    `.keras`                            a zip of metadata.json, config.json and model.weights.h5

`read_h5` documents the names of the arrays.

The HDF5 library is made for trusted files: a file can refer to others, claim any size, call for plug-ins, and inflate
without end. So every link is checked before it is followed, every dataset before it is read, and whatever Keras never
writes is refused.
"""

from __future__ import annotations

import json
import math
import mmap
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .h5_text import Texts
from .weights import CheckpointError, Weights, widen_bfloat16
from .zip_archive import MAGIC as ZIP_MAGIC
from .zip_archive import SLACK, Archive, RefusedError, quoted, refusing

MAGIC = b"\x89HDF\r\n\x1a\n"
_MAX_DEPTH, _MAX_NAME = 64, 1000
_DEFLATE, _SHUFFLE, _FLETCHER32 = 1, 2, 3  # filters of chunks
_CONTAINERS = ("layers", "_layer_checkpoint_dependencies")  # groups that are not layers
_TEXTS = ("keras_version", "backend", "model_config")
_CONFIG, _METADATA, _WEIGHTS = "config.json", "metadata.json", "model.weights.h5"


def read_h5(path: Path) -> Weights:
    """Read the arrays of an HDF5 file by Keras or by transformers for TensorFlow, or of a `.keras` archive.

    Arrays keep the names of the file, whose last two parts are layer and variable:

        block1a_bn/gamma:0, block1a_dwconv/depthwise_kernel:0          Keras 2
        block1a_bn/gamma, block1a_dwconv/kernel                        Keras 3
        tf_swift_former_for_image_classification/swiftformer/patch_embed/patch_embedding/0/kernel:0

    Variables that are only numbered are named by their shapes: kernel, bias; gamma, beta, moving_mean,
    moving_variance; mean, variance, count. A layer whose own name is not stored has its group's: conv2d_12/kernel. The
    name of a nested model is a prefix: efficientnetb0/stem_conv/kernel.

    Raises FileNotFoundError; CheckpointError for a file that is damaged, hostile, or in another layout; ImportError
    where h5py is not installed.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    h5py = _library(path)
    with path.open("rb") as opened:
        start = opened.read(8)
    with refusing(path):
        if start == MAGIC:
            with path.open("rb") as opened:
                texts = Texts(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ))
            with h5py.File(path, "r", locking=False) as file:
                return _read(_Reader(h5py, texts, 3 * path.stat().st_size + SLACK), file, "HDF5", {})
        if start.startswith(ZIP_MAGIC):
            return _read_archive(h5py, path)
    raise CheckpointError(f"{path} is neither HDF5 nor a Keras archive: it begins with {start!r}")


def _library(path: Path) -> Any:
    """Return the module h5py, imported only where it is needed."""
    try:
        import h5py  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError:
        raise ImportError(f'to read {path}, h5py must be installed: pip install "npformer[h5]"') from None
    return h5py


# --- layouts ---------------------------------------------------------------------------------------------------------


def _read(reader: _Reader, file: Any, container: str, own_names: dict[str, str]) -> Weights:
    """Return the weights of an open file; `own_names` are those of its layers, where an archive stores them."""
    weights = Weights({}, container)
    top = reader.child(file, "model_weights", "") if reader.has(file, "model_weights") else file
    for group in (top, file):
        texts = {name: reader.text(group, name) for name in _TEXTS}
        weights.metadata |= {name: text for name, text in texts.items() if text is not None}
    if reader.promised(top, "layer_names") is not None:
        arrays = _by_names(reader, top)
    else:
        arrays = _by_groups(reader, top, own_names, weights.notes)
    if reader.has(file, "optimizer_weights"):
        weights.notes.append("left out: optimizer_weights")
    for name, array in arrays:
        if name in weights.arrays:
            raise RefusedError(f"has two arrays named {quoted(name)}")
        weights.arrays[name] = array
    if not weights.arrays:
        raise RefusedError("holds no weights: it is HDF5, but not as Keras lays it out")
    return weights


def _by_names(reader: _Reader, top: Any) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the arrays of Keras 2, where an array's name is its path inside its layer's group.

    The attributes layer_names and weight_names repeat this. Only their lengths are checked: a list of strings can take
    a thousand times the size of the file, and cannot be read in parts.
    """
    layers = list(_layers(reader, top, ""))
    extra = sum(name == "top_level_model_weights" for name, _ in layers)
    if len(layers) - extra != reader.promised(top, "layer_names"):
        raise RefusedError(f"has {len(layers) - extra} layers, not as many as its layer_names")
    for layer, group in layers:
        arrays = list(_inside(reader, group, ""))
        if len(arrays) != reader.promised(group, "weight_names"):
            raise RefusedError(f"has {len(arrays)} arrays in {quoted(layer)}, not as many as its weight_names")
        yield from ((name if "/" in name else f"{layer}/{name}", reader.array(name, held)) for name, held in arrays)


def _layers(reader: _Reader, group: Any, place: str) -> Iterator[tuple[str, Any]]:
    """Yield the groups that have weight_names; a "/" in a layer's name makes nested groups."""
    for key in group:
        child = reader.child(group, key, place)
        if isinstance(child, reader.h5py.Group):
            if reader.promised(child, "weight_names") is not None:
                yield place + key, child
            yield from _layers(reader, child, f"{place}{key}/")


def _inside(reader: _Reader, group: Any, place: str) -> Iterator[tuple[str, Any]]:
    """Yield the arrays of one layer, without those of layers nested in its group."""
    for key in group:
        child = group[key]  # checked by `_layers`
        if not isinstance(child, reader.h5py.Group):
            yield place + key, child
        elif reader.promised(child, "weight_names") is None:
            yield from _inside(reader, child, f"{place}{key}/")


def _by_groups(
    reader: _Reader, group: Any, own_names: dict[str, str], notes: list[str], place: str = ""
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the arrays of Keras 3: groups are layers or contain layers, whose variables are in their group vars."""
    for key in group:
        child = reader.child(group, key, place)
        if not isinstance(child, reader.h5py.Group):
            raise RefusedError(
                f"has an array {quoted(place + key)} where only groups may be: it is not as Keras lays it out"
            )
        if key == "vars":
            keys = sorted(child, key=_natural)
            variables = [(name, reader.array(place + name, reader.child(child, name, place))) for name in keys]
            yield from ((place + name, array) for name, array in _named(variables))
        elif (not place and key == "optimizer") or key.startswith("seed_generator"):
            notes.append(f"left out: {place}{key}")
        elif key in _CONTAINERS:
            yield from _by_groups(reader, child, {} if place else own_names, notes, place)
        else:
            label = reader.own_name(child) or own_names.get(key, key)
            yield from _by_groups(reader, child, {}, notes, f"{place}{label}/")


def _named(variables: list[tuple[str, np.ndarray]]) -> list[tuple[str, np.ndarray]]:
    """Rename variables numbered 0, 1, ... by their kind of layer, which their axes show; keep other names."""
    if [name for name, _ in variables] != [str(i) for i in range(len(variables))]:
        return variables
    names: tuple[str, ...] = ()
    match [array.ndim for _, array in variables]:
        case [2 | 4] | [2 | 4, 1]:  # Dense, Conv2D, DepthwiseConv2D
            names = ("kernel", "bias")
        case [1, 1, 1, 1]:
            names = ("gamma", "beta", "moving_mean", "moving_variance")
        case [1, 1, 0]:  # Normalization, a preprocessing layer
            names = ("mean", "variance", "count")
        case [1, 1]:  # LayerNormalization
            names = ("gamma", "beta")
    return [(name, array) for name, (_, array) in zip(names, variables)] if names else variables


# --- reading the file ------------------------------------------------------------------------------------------------


@dataclass
class _Reader:
    """Reader that checks every object before it reads it. `room`: bytes that the arrays may still take."""

    h5py: Any
    texts: Texts
    room: int
    seen: set[Any] = field(default_factory=set)

    def has(self, group: Any, key: str) -> bool:
        """Return whether a group has a member of that name, whatever it links to."""
        return group.get(key, getlink=True) is not None

    def child(self, group: Any, key: str, place: str) -> Any:
        """Return a member stored in the group itself: links are never followed, and no object is visited twice."""
        name = checked(place + key)
        link = group.get(key, getlink=True)
        if isinstance(link, self.h5py.ExternalLink):
            raise RefusedError(f"points at another file, by a link {quoted(name)}")
        if not isinstance(link, self.h5py.HardLink):
            raise RefusedError(f"has a link {quoted(name)} in place of a group or an array")
        child = group[key]
        if not isinstance(child, self.h5py.Group | self.h5py.Dataset):
            raise RefusedError(f"has {quoted(name)}, which is neither a group nor an array")
        address = self.h5py.h5o.get_info(child.id).addr
        if address in self.seen:
            raise RefusedError(f"has {quoted(name)} in another place too")
        self.seen.add(address)
        return child

    def own_name(self, group: Any) -> str:
        """Return the layer's own name, stored beside its variables; "" if there is none."""
        if not isinstance(group.get("vars", getlink=True), self.h5py.HardLink):
            return ""
        return checked(self.text(group["vars"], "name") or "")

    def promised(self, thing: Any, name: str) -> int | None:
        """Return how many strings an attribute lists.

        A long list is split over name0, name1 ..., since an attribute holds 64 kB.
        """
        keys = [name] if name in thing.attrs else [key for key in thing.attrs if re.fullmatch(rf"{name}\d+", key)]
        return sum(math.prod(thing.attrs.get_id(key).shape or ()) for key in keys) if keys else None

    def text(self, thing: Any, name: str) -> str | None:
        """Return an attribute that is a single string, or None."""
        if name not in thing.attrs:
            return None
        held = thing.attrs.get_id(name)
        kind = self.h5py.check_string_dtype(held.dtype)
        if held.shape != () or kind is None:
            return None
        if kind.length is None:
            return self.texts.read(self.h5py.h5o.get_info(thing.id).addr, name)
        return bytes(thing.attrs[name]).decode()

    def array(self, name: str, dataset: Any) -> np.ndarray:
        """Read an array after checking that its type, size and storage are as Keras writes them."""
        if not isinstance(dataset, self.h5py.Dataset):
            raise RefusedError(f"has a group {quoted(name)} where an array should be")
        dtype, shape = dataset.dtype, dataset.shape
        bfloat16 = dtype.kind == "V" and dtype.itemsize == 2 and self.text(dataset, "dtype") == "bfloat16"
        if shape is None or (dtype.kind not in "fiub" and not bfloat16) or dtype.itemsize > 8:
            raise RefusedError(f"has {quoted(name)} of type {dtype}; an array of numbers should be there")
        if dataset.is_virtual or dataset.external:
            raise RefusedError(f"has {quoted(name)} made of other files or other arrays")
        chunks = dataset.chunks or tuple(max(side, 1) for side in shape)
        tiles = math.prod(-(-side // tile) for side, tile in zip(shape, chunks))
        size = math.prod(chunks) * dtype.itemsize
        self.room -= tiles * size
        if self.room < 0:
            raise RefusedError(f"claims more than it can hold: {quoted(name)} is of shape {shape}")
        stored = dataset.id.get_num_chunks() if dataset.chunks else dataset.id.get_storage_size()
        if stored != (tiles if dataset.chunks else tiles * size):
            raise RefusedError(f"has {quoted(name)} of shape {shape} but not all of its numbers")
        if dataset.chunks:
            _check_chunks(dataset, name, size)
        value = np.array(dataset[()])
        if bfloat16:
            return widen_bfloat16(value.view(np.uint16))
        return value.astype(value.dtype.newbyteorder("="), copy=False)


def _check_chunks(dataset: Any, name: str, size: int) -> None:
    """Inflate every chunk up to the limit `size`: the library itself would inflate as much as the data asks for."""
    plist = dataset.id.get_create_plist()
    filters = [plist.get_filter(i)[0] for i in range(plist.get_nfilters())]
    # In the order of writing, each at most once: data deflated twice can inflate a million times.
    if filters != [number for number in (_SHUFFLE, _DEFLATE, _FLETCHER32) if number in filters]:
        raise RefusedError(f"has {quoted(name)} compressed in another way than gzip")
    for index in range(dataset.id.get_num_chunks()):
        chunk = dataset.id.get_chunk_info(index)
        done = [number for i, number in enumerate(filters) if not chunk.filter_mask >> i & 1]
        length = chunk.size - 4 * (_FLETCHER32 in done)
        if _DEFLATE in done and 0 < length <= size:  # else it is stored uncompressed
            raw = dataset.id.read_direct_chunk(chunk.chunk_offset)[1][:length]
            inflater = zlib.decompressobj()
            length = len(inflater.decompress(raw, size + 1))
        if length != size:
            raise RefusedError(f"has {quoted(name)} in chunks of more or less than {size} bytes")


def checked(name: str) -> str:
    """Return a name if it is empty, or safe to print and to split. Raises RefusedError for any other."""
    bad = name and any(part in ("", ".", "..") for part in name.split("/"))
    if bad or len(name) > _MAX_NAME or not name.isprintable() or name.count("/") > _MAX_DEPTH:
        raise RefusedError(f"has the impossible name {quoted(name)}")
    return name


def _natural(name: str) -> tuple[bool, int, str]:
    """Return a sort key that puts numbers first, by value, then names."""
    number = name.isascii() and name.isdigit() and len(name) < 10
    return not number, int(name) if number else 0, name


# --- .keras ----------------------------------------------------------------------------------------------------------


def _read_archive(h5py: Any, path: Path) -> Weights:
    """Return the weights in a `.keras` archive, with the model's config and Keras' version as metadata."""
    size = path.stat().st_size
    with zipfile.ZipFile(path) as opened:
        archive = Archive(opened, size)
        for name in (_CONFIG, _WEIGHTS):
            if name not in archive.members:
                raise RefusedError(f"is a zip archive but not Keras': it lacks {name}")
        image = archive.read(_WEIGHTS)
        described = {name: archive.read(name) for name in (_CONFIG, _METADATA) if name in archive.members}
    if not image.startswith(MAGIC):
        raise RefusedError(f"has a {_WEIGHTS} that is not HDF5")
    config, version = json.loads(described[_CONFIG]), json.loads(described.get(_METADATA, b"{}"))
    texts = Texts(image)
    with h5py.File(h5py.h5f.open_file_image(image)) as file:
        weights = _read(_Reader(h5py, texts, 3 * size + SLACK), file, "Keras archive", _own_names(config))
    if isinstance(version, dict):
        weights.metadata |= {key: value for key, value in version.items() if isinstance(value, str)}
    weights.metadata["model_config"] = described[_CONFIG].decode()
    return weights


def _own_names(config: Any) -> dict[str, str]:
    """Return the layers' own names by their groups' names: kinds in snake case, counted in the model's order."""
    for key in ("config", "layers"):
        config = config.get(key) if isinstance(config, dict) else None
    names: dict[str, str] = {}
    count: Counter[str] = Counter()
    for layer in config if isinstance(config, list) else []:
        kind, settings = (layer.get("class_name"), layer.get("config")) if isinstance(layer, dict) else (None, None)
        name = settings.get("name") if isinstance(settings, dict) else None
        if not isinstance(kind, str) or not isinstance(name, str):
            raise RefusedError(f"has a layer without a name in its {_CONFIG}")
        kind = re.sub(r"(?<=.)(?=[A-Z][a-z])|(?<=[a-z])(?=[A-Z])", "_", kind[:_MAX_NAME]).lower()
        names[f"{kind}_{count[kind]}" if count[kind] else kind] = checked(name)
        count[kind] += 1
    return names
