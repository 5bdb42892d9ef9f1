"""Data sets on disk: listing their pictures and labels, and opening single pictures.

    a folder of class folders           val/n01440764/ILSVRC2012_val_00000293.JPEG, ... (ImageNet's layout)
    a folder and a label file           pictures anywhere below it, and lines "path/to/picture.jpg 65" (`val.txt`)
    an .npz                             arrays of pictures (N, H, W[, C]) and of labels (N,)
    a folder of IDX files               MNIST's format, gzipped or not: images-idx3-ubyte and labels-idx1-ubyte
    a folder of pictures                with no labels, to classify

A data set is listed lazily and always in the same order, so that millions of pictures need no memory and a number
always denotes the same picture. N is the number of pictures here.
"""

from __future__ import annotations

import gzip
import math
import os
import struct
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..ops import Array
from ..picture import load_image

SUFFIXES = (
    ".bmp", ".gif", ".jpeg", ".jpg", ".jpe", ".jfif", ".jp2", ".png", ".apng", ".pbm", ".pgm", ".pnm", ".ppm", ".tga",
    ".tif", ".tiff", ".webp", ".avif", ".ico",
)  # fmt: skip
MOST_PIXELS = 40_000_000  # of a picture: its bytes and a copy are in memory at once
IDX_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


class Item(NamedTuple):
    """One picture: its number in the data set, its key (a path, or the number again), and its label or None."""

    number: int
    key: str
    label: int | None


class DataSet:
    """Pictures that can be listed repeatedly in the same order, and opened by key, also by another process."""

    classes: list[str] | None = None  # names of the labels, where the data set has them
    name: str

    def __iter__(self) -> Iterator[Item]:
        """Iterate over all pictures, in order."""
        raise NotImplementedError

    def __len__(self) -> int:
        """Return the number of pictures."""
        return sum(1 for _ in self)

    def load(self, key: str) -> Any:
        """Return a picture as an RGB Pillow image. Raises OSError or ValueError for one that cannot be read."""
        raise NotImplementedError


def open_data_set(path: str | Path, labels: str | Path | None = None, *, labelled: bool = True) -> DataSet:
    """Open the data set at a path, detecting its kind; `labels` is a label file, for a folder of pictures.

    `labelled` is False where pictures are only to be classified: then a folder's pictures are all those below it.

    Raises FileNotFoundError, or ValueError for a path that is no data set.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"DATA {path} does not exist")
    if labels is not None:
        if not path.is_dir():
            raise ValueError(f"a label file needs a folder of pictures as DATA, got {path}")
        return Listed(path, Path(labels))
    if path.is_file() and path.suffix == ".npz":
        return Arrays(path)
    if not path.is_dir():
        raise ValueError(f"DATA must be a folder or an .npz file, got {path}")
    if _idx_files(path, "images"):
        return Idx(path)
    if not labelled:
        return Folder(path)
    return ClassFolders(path)


# --- folders ---------------------------------------------------------------------------------------------------------


@dataclass
class Folder(DataSet):
    """All pictures below a folder, without labels; keys are paths from there, with slashes."""

    root: Path
    recursive: bool = True

    @property
    def name(self) -> str:  # type: ignore[override]
        """The folder's path."""
        return str(self.root)

    def __iter__(self) -> Iterator[Item]:
        """Iterate in order of the paths, folder by folder."""
        for number, key in enumerate(_pictures_below(self.root, self.recursive)):
            yield Item(number, key, None)

    def load(self, key: str) -> Any:
        """Open `root/key`, unless it is too large."""
        return _load_file(self.root / key)


@dataclass
class ClassFolders(DataSet):
    """A folder per class, sorted by name: the first is label 0."""

    root: Path
    classes: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.classes = sorted(entry.name for entry in os.scandir(self.root) if entry.is_dir() and entry.name[0] != ".")
        if not self.classes:
            raise ValueError(
                f"DATA {self.root} must hold a folder for each class, IDX files, or come with a label file"
            )

    @property
    def name(self) -> str:  # type: ignore[override]
        """The folder's path."""
        return str(self.root)

    def __iter__(self) -> Iterator[Item]:
        """Iterate class by class."""
        number = 0
        for label, name in enumerate(self.classes):
            for key in _pictures_below(self.root / name, True):
                yield Item(number, f"{name}/{key}", label)
                number += 1

    def load(self, key: str) -> Any:
        """Open `root/key`, unless it is too large."""
        return _load_file(self.root / key)


@dataclass
class Listed(DataSet):
    """A folder, and a file with a line for each picture: its relative path, a space, its label."""

    root: Path
    file: Path

    @property
    def name(self) -> str:  # type: ignore[override]
        """The paths of the folder and of the file."""
        return f"{self.root} with {self.file}"

    def __iter__(self) -> Iterator[Item]:
        """Iterate in the order of the lines. Raises ValueError for a malformed line."""
        number = 0
        with open(self.file, encoding="utf-8") as lines:
            for at, line in enumerate(lines, 1):
                key, _, label = line.strip().rpartition(" ")
                if not line.strip():
                    continue
                if not key or not label.isdecimal():
                    raise ValueError(
                        f"{self.file}, line {at}: expected a path, a space and a label, got {line.strip()!r}"
                    )
                yield Item(number, key.strip(), int(label))
                number += 1

    def load(self, key: str) -> Any:
        """Open `root/key`, unless it is too large."""
        return _load_file(self.root / key)


def _pictures_below(root: Path, recursive: bool, inside: str = "", above: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield the paths of picture files below `root`, sorted; a link to an enclosing folder is not followed."""
    real = os.path.realpath(root / inside)
    if real in above:
        return
    for entry in sorted(os.scandir(root / inside), key=lambda entry: entry.name):
        path = f"{inside}/{entry.name}" if inside else entry.name
        if entry.name.startswith("."):
            continue
        if _is_folder(entry):
            if recursive:
                yield from _pictures_below(root, recursive, path, (*above, real))
        elif os.path.splitext(entry.name)[1].lower() in SUFFIXES:
            yield path


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a cyclic link
        return False


def _load_file(path: Path) -> Any:
    """Open a picture as `load_image` does, unless its header declares more than `MOST_PIXELS`."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as header:
                width, height = header.size
    except UnidentifiedImageError:
        raise ValueError(f"{path.name} is not a picture that can be read") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ValueError(f"{path.name} is too large: at most {MOST_PIXELS:,} pixels are read") from None
    if width * height > MOST_PIXELS:
        raise ValueError(f"{path.name} is too large: {width} x {height} pixels, at most {MOST_PIXELS:,} are read")
    return load_image(path)


# --- arrays ----------------------------------------------------------------------------------------------------------


class _Stacked(DataSet):
    """Pictures in one array, opened by index."""

    @cached_property
    def _content(self) -> tuple[Array, Array | None]:
        """Pictures (N, H, W[, C]) and labels (N,), read on first access."""
        raise NotImplementedError

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the arrays: another process reads the file itself."""
        return {name: value for name, value in vars(self).items() if name != "_content"}

    def __len__(self) -> int:
        """Return the number of pictures in the array."""
        return len(self._content[0])

    def __iter__(self) -> Iterator[Item]:
        """Iterate in the order of the array."""
        labels = self._content[1]
        for number in range(len(self)):
            yield Item(number, str(number), None if labels is None else int(labels[number]))

    def load(self, key: str) -> Any:
        """Return the picture with that index."""
        return load_image(self._content[0][int(key)])


@dataclass
class Arrays(_Stacked):
    """An .npz file: pictures under "images", "x_test", "test_images" or "x", labels under "labels", "y_test", ..."""

    path: Path

    NAMES = (
        ("images", "labels"),
        ("pictures", "classes"),
        ("test_images", "test_labels"),
        ("x_test", "y_test"),
        ("x", "y"),
    )

    @property
    def name(self) -> str:  # type: ignore[override]
        """The file's path."""
        return str(self.path)

    @cached_property
    def _content(self) -> tuple[Array, Array | None]:
        try:
            with np.load(self.path, allow_pickle=False) as file:
                for pictures, labels in self.NAMES:
                    if pictures in file.files:
                        return _checked(file[pictures], file[labels] if labels in file.files else None, self.path)
                held = ", ".join(file.files)
        except (OSError, ValueError, EOFError, zlib.error) as error:
            raise ValueError(f"{self.path} cannot be read: {error}") from None
        wanted = " or ".join(" and ".join(names) for names in self.NAMES)
        raise ValueError(f"{self.path} must hold the arrays {wanted}, it holds {held}")


@dataclass
class Idx(_Stacked):
    """A folder of IDX files in MNIST's format; of several splits the test set ("t10k" or "test") is taken."""

    root: Path

    @property
    def name(self) -> str:  # type: ignore[override]
        """The folder's path."""
        return str(self.root)

    @cached_property
    def _content(self) -> tuple[Array, Array | None]:
        images, labels = (_idx_files(self.root, kind) for kind in ("images", "labels"))
        return _checked(read_idx(images[0]), read_idx(labels[0]) if labels else None, self.root)


def _checked(pictures: Array, labels: Array | None, path: Path) -> tuple[Array, Array | None]:
    """Return the arrays if they are pictures and their labels. Raises ValueError otherwise."""
    if pictures.ndim not in (3, 4) or pictures.dtype.kind not in "uif" or not len(pictures):
        raise ValueError(
            f"{path}: pictures must be numbers (N, H, W) or (N, H, W, C), got {pictures.dtype} {pictures.shape}"
        )
    if labels is not None:
        labels = labels.reshape(-1) if labels.size == len(labels) else labels
        if labels.shape != (len(pictures),) or labels.dtype.kind not in "ui" or labels.min() < 0:
            raise ValueError(
                f"{path}: labels must be {len(pictures)} whole numbers, got {labels.dtype} {labels.shape}"
            )
    return pictures, labels


def read_idx(path: str | Path) -> Array:
    """Read an IDX file, gzipped or not: two zero bytes, a type, the rank, big-endian sizes, the numbers.

    Raises ValueError for anything else, OSError.
    """
    path = Path(path)
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] not in IDX_TYPES:
        raise ValueError(f"{path} is no IDX file: it begins with {raw[:4].hex(' ')}")
    header, kind = 4 + 4 * raw[3], np.dtype(IDX_TYPES[raw[2]])
    if len(raw) < header:
        raise ValueError(f"{path} is damaged: {len(raw)} bytes, and its header alone has {header}")
    shape = struct.unpack(f">{raw[3]}I", raw[4:header])
    wanted = header + math.prod(shape) * kind.itemsize
    if len(raw) != wanted:
        raise ValueError(f"{path} is damaged: {len(raw)} bytes, but its header tells of {wanted}")
    return np.frombuffer(raw, kind, offset=header).reshape(shape)


def _idx_files(root: Path, kind: str) -> list[Path]:
    """Return the IDX files of images or of labels, a test set's first."""
    files = [path for path in root.iterdir() if f"{kind}-idx" in path.name or f"{kind}.idx" in path.name]
    return sorted(files, key=lambda path: (not path.name.startswith(("t10k", "test")), path.name))


def chosen(items: DataSet, limit: int | None, seed: int | None) -> Array:
    """Return which pictures of a data set to take, (N,) bool: all, or `limit` of them.

    They are spread evenly over the set, so that all class folders are represented; or drawn at random, with a `seed`.
    """
    total = len(items)
    if limit is None:
        return np.ones(total, bool)
    taken = np.zeros(total, bool)
    if seed is None:
        taken[np.linspace(0, total, min(limit, total), endpoint=False, dtype=int)] = True
    else:
        taken[np.random.default_rng(seed).permutation(total)[:limit]] = True
    return taken
