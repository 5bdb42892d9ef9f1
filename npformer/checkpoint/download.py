"""Download of single files from the web, complete and verified, into the user's cache."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from .atomic import replacing

SECONDS = 30  # timeout for the server's response
PIECE = 1 << 20


def cache() -> Path:
    """Return the folder for files that can be downloaded again: $XDG_CACHE_HOME/npformer, or ~/.cache/npformer."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "npformer"


def download(url: str, path: Path, sha256: str) -> Path:
    """Download `url` to `path` unless it exists; `sha256` is the beginning of its hash, in hexadecimal.

    Raises OSError where the server cannot be reached, does not have the file or breaks off; ValueError where the file
    is not the expected one; `path` then does not exist.
    """
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with replacing(path) as partial, _open(url) as answer, open(partial, "wb") as file:
        with _progress(path.name, int(answer.headers.get("Content-Length") or 0)) as bar:
            for piece in _pieces(url, answer):
                file.write(piece)
                digest.update(piece)
                bar.update(len(piece))
        if not digest.hexdigest().startswith(sha256):
            raise ValueError(
                f"{url} gave another file than expected: its SHA-256 begins with {digest.hexdigest()[: len(sha256)]}, "
                f"not {sha256}"
            )
    return path


def _open(url: str) -> Any:
    try:
        return urlopen(Request(url, headers={"User-Agent": "npformer"}), timeout=SECONDS)
    except HTTPError as error:
        error.close()
        raise OSError(f"{url} cannot be fetched: the server answers {error.code} {error.reason}") from None
    except URLError as error:
        raise OSError(f"{url} cannot be fetched: {error.reason}") from None
    except (OSError, HTTPException) as error:  # a closed connection, a timeout, or no HTTP
        raise OSError(f"{url} cannot be fetched: {_told(error)}") from None


def _pieces(url: str, answer: Any) -> Iterator[bytes]:
    """Yield the response piece by piece. Raises OSError where it is shorter than announced."""
    size, there = answer.headers.get("Content-Length"), 0
    try:
        while piece := answer.read(PIECE):
            there += len(piece)
            yield piece
    except HTTPException:  # an incomplete chunk of a chunked response
        raise OSError(f"{url} cannot be fetched: the server breaks off") from None
    except OSError as error:
        raise OSError(f"{url} cannot be fetched: {_told(error)}") from None
    if size is not None and there < int(size):  # http.client does not report it
        raise OSError(f"{url} cannot be fetched: the server breaks off after {there:,} of {int(size):,} bytes")


def _told(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _progress(name: str, size: int):  # type: ignore[no-untyped-def]
    from tqdm import tqdm

    width = shutil.get_terminal_size().columns
    return tqdm(total=size or None, desc=name, unit="B", unit_scale=True, disable=not sys.stderr.isatty(), ncols=width)
