"""The file that results stream to: JSON Lines, one picture per line, in the order of completion.

The first line identifies the run; a second run appends to the file, and skips the pictures in it. A truncated last
line, as after a power failure, is dropped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

FORMAT = "npformer-results"


class Results:
    """Results on disk: opened, checked, appended to, read back."""

    def __init__(self, path: Path, header: dict[str, Any]) -> None:
        """Open for appending; create the file, with its header, where there is none.

        Raises ValueError for a foreign file, or one that holds the results of another job.
        """
        self.path, self.header = path, {"format": FORMAT, **header}
        if not path.exists() or path.stat().st_size == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(self.header) + "\n", "utf-8")
        self._check()
        self._file: IO[str] = open(path, "a", encoding="utf-8")  # noqa: SIM115 - closed by close()
        try:
            self._lock()
        except OSError:
            self._file.close()
            raise ValueError(f"{path} is being written to by another run") from None
        self._cut_unfinished_line()

    def _check(self) -> None:
        with open(self.path, encoding="utf-8", errors="replace") as file:
            first = file.readline(1_000_000)
        try:
            found = json.loads(first)
        except ValueError:
            found = None
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            raise ValueError(f"{self.path} exists, and holds no results of npformer; give --output another name")
        for name, wanted in self.header.items():
            if found.get(name) != wanted:
                raise ValueError(
                    f"{self.path} holds results of another run: its {name} is {found.get(name)}, not {wanted}; give "
                    "--output another name, or remove it"
                )

    def _lock(self) -> None:
        """Lock the file against a second run, where the system can; the lock ends with the process."""
        try:
            import fcntl
        except ImportError:  # Windows
            return
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _cut_unfinished_line(self) -> None:
        with open(self.path, "rb+") as file:
            size = file.seek(0, os.SEEK_END)
            back = min(size, 1 << 20)
            file.seek(size - back)
            tail = file.read()
            if not tail.endswith(b"\n"):
                file.truncate(size - len(tail) + tail.rfind(b"\n") + 1)

    def append(self, records: Iterable[dict[str, Any]]) -> None:
        """Append records; they are handed to the system before this returns, so they survive the process."""
        self._file.write("".join(json.dumps(record) + "\n" for record in records))
        self._file.flush()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Iterate over all records, in the order of the file."""
        self._file.flush()
        with open(self.path, encoding="utf-8") as file:
            next(file)
            for at, line in enumerate(file, 2):
                try:
                    yield json.loads(line)
                except ValueError:
                    raise ValueError(f"{self.path}, line {at}, is damaged: {line[:60]!r}") from None

    def done(self, total: int) -> np.ndarray:
        """Return which pictures have a result: (total,) bool."""
        finished = np.zeros(total, bool)
        for record in self:
            if record["number"] >= total:
                raise ValueError(f"{self.path} has a picture of number {record['number']}, but DATA holds {total}")
            finished[record["number"]] = True
        return finished

    def close(self) -> None:
        """Flush and close the file."""
        self._file.close()
