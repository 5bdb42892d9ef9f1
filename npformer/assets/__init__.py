"""Data shipped with the package: small trained models and pictures to try them on."""

from __future__ import annotations

import difflib
import json
import re
from pathlib import Path

from ..checkpoint.sources import mmpretrain

_HERE = Path(__file__).parent
DEFAULT_MODEL = "efficientformer-fashion"


def shipped_models() -> list[str]:
    """Return the names of the models shipped in this folder."""
    return sorted(path.parent.name for path in _HERE.glob("*/config.json"))


def model_directory(name_or_path: str | Path, revision: str | None = None, *, weights: bool = True) -> Path:
    """Return the directory of a model: a path, a shipped or mmpretrain name, or "owner/name" on the hub.

    A model of the Hugging Face Hub is downloaded unless it is cached: at the branch, tag or commit given by
    `revision`, by default the main branch; without `weights` only its settings. mmpretrain's weights are downloaded
    and converted.

    Raises FileNotFoundError, naming the nearest shipped model, or as `checkpoint.hub.download`.
    """
    path = Path(name_or_path)
    if path.is_dir():
        return path
    shipped = shipped_models()
    if str(name_or_path) in shipped:
        return _HERE / str(name_or_path)
    if str(name_or_path) in mmpretrain.WEIGHTS:
        from ..convert.fetched import directory_of

        return directory_of(str(name_or_path))
    if is_hub_name(name_or_path):
        from ..checkpoint.hub import download

        return download(str(name_or_path), revision=revision, weights=weights)
    near = difflib.get_close_matches(str(name_or_path), shipped, 1) or shipped
    raise FileNotFoundError(
        f"model {str(name_or_path)!r} is neither a directory nor a shipped model (did you mean {' or '.join(near)}?)"
    )


def is_hub_name(name: str | Path) -> bool:
    """Return whether a name has the form of a hub repository, "owner/name", and is no local directory."""
    return re.fullmatch(r"\w[\w.-]*/[\w.-]+", str(name)) is not None and not Path(name).exists()


def sample_pictures() -> dict[Path, str]:
    """Return the shipped pictures with the class each one shows, in order."""
    folder = _HERE / "pictures"
    truth = json.loads((folder / "labels.json").read_text())
    return {folder / name: label for name, label in truth.items()}
