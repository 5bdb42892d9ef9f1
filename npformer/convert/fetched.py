"""Published weights that are a single file on the web: downloaded, converted, and cached as a model directory."""

from __future__ import annotations

from pathlib import Path

from ..checkpoint.download import cache, download
from ..checkpoint.sources import mmpretrain
from ..models.config import CONFIG_NAME
from .pipeline import load_checkpoint


def directory_of(name: str) -> Path:
    """Return the model directory of a name in `mmpretrain.WEIGHTS`, created on first use.

    Raises OSError or ValueError as `download` and `load_checkpoint` do.
    """
    file, digest = mmpretrain.WEIGHTS[name]
    directory = cache() / "models" / f"{name}-{digest}"
    if not directory.exists():
        path = download(mmpretrain.SERVER + file, cache() / "downloads" / file, digest)
        try:
            load_checkpoint(path, variant=name).save(directory)
        except FileExistsError:  # another process was faster
            if not (directory / CONFIG_NAME).is_file():
                raise
        path.unlink(missing_ok=True)
    return directory
