"""Weights of a path: the container is recognised by the first bytes of the file, not by its name."""

from __future__ import annotations

from pathlib import Path

from .h5_file import read_h5
from .npz_file import read_npz
from .safetensors_file import INDEX_NAME, WEIGHTS_NAME, read_checkpoint, read_metadata, read_tensors
from .torch_file import read_torch, read_torch_index
from .weights import CheckpointError, Weights

TORCH_NAME, TORCH_INDEX_NAME, H5_NAME = "pytorch_model.bin", "pytorch_model.bin.index.json", "tf_model.h5"
# File names of a directory's weights, best first: formats that cannot hold code before those that can.
NAMES = (WEIGHTS_NAME, INDEX_NAME, TORCH_NAME, TORCH_INDEX_NAME, H5_NAME)
SUFFIXES = (".safetensors", ".bin", ".pth", ".pt", ".h5", ".keras", ".npz")


def find_weights(directory: Path) -> Path:
    """Return the file that holds a directory's weights: one of `NAMES`, or else its only file of a known suffix.

    Raises FileNotFoundError, or CheckpointError where several files could be meant.
    """
    for name in NAMES:
        if (directory / name).is_file():
            return directory / name
    # Other files of a training run are no model.
    others = sorted(p for p in directory.iterdir() if p.suffix in SUFFIXES and p.name != "training_args.bin")
    if len(others) > 1:
        names = ", ".join(path.name for path in others)
        raise CheckpointError(f"{directory} holds several files that may be the weights: {names}; give one of them")
    if not others:
        raise FileNotFoundError(
            f"{directory} holds no weights: none of {', '.join(NAMES)}, nor *{', *'.join(SUFFIXES)}"
        )
    return others[0]


def read_weights(path: Path) -> Weights:
    """Read the weights of a file or a directory, whatever their container.

    Supported are safetensors and PyTorch files, single or in shards, HDF5, Keras archives and npz. No code in a file
    is ever executed.

    Raises FileNotFoundError, CheckpointError for a file that is damaged or of an unknown kind, or ImportError where a
    library is missing that its kind needs.
    """
    path = find_weights(path) if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    if path.name.endswith(".bin.index.json"):
        return read_torch_index(path)
    if path.name.endswith(".safetensors.index.json"):
        return _read_safetensors(path)
    with path.open("rb") as file:
        start = file.read(1024)
    if start.startswith(b"\x89HDF\r\n\x1a\n") or path.suffix == ".keras":
        return read_h5(path)
    if start.startswith(b"PK\x03\x04") and b".npy" in start[30 : 30 + start[26] + 256 * start[27]]:  # its first name
        return read_npz(path)
    if start.startswith((b"PK\x03\x04", b"\x80")):
        return read_torch(path)
    if path.suffix == ".safetensors" or start[8:9] == b"{":
        return _read_safetensors(path)
    raise CheckpointError(
        f"{path} is no weight file of a kind that is read here: safetensors, PyTorch, HDF5, Keras or npz; it begins "
        f"with {start[:8]!r}"
    )


def _read_safetensors(path: Path) -> Weights:
    try:
        if path.name == INDEX_NAME:
            return Weights(read_checkpoint(path.parent), "safetensors, in shards")
        return Weights(read_tensors(path), "safetensors", metadata=read_metadata(path))
    except CheckpointError:
        raise
    except ValueError as error:
        raise CheckpointError(str(error)) from None
