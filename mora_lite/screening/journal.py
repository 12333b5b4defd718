"""Finished windows of a shard that is not finished, so that a stopped run does little work twice.

A shard has tens of thousands of rows, and its bytes may not depend on when a run was stopped. So what is finished of
it is kept beside it every few seconds, window by window, each with its SHA-256; a run that goes on reads them and makes
the same shard. A journal that was cut off anywhere is good up to there. It goes when its shard is in the manifest.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import OutputError, error_text

MAX_HEADER = 1 << 20  # bytes
MAX_DATA = 1 << 32  # bytes of one window


@dataclass(frozen=True)
class Scored:
    """The results of a window, as another process can append them to a shard.

    counts: status -> number of rows. first: status -> number of the first row with it, and that row's error.
    data: an Arrow stream, or lines of CSV without the header.
    rows_sha256: of the rows that it was made of, where the input can be read only once.
    """

    n_rows: int
    counts: dict[str, int]
    first: dict[str, tuple[int, str]]
    data: bytes
    rows_sha256: str = ""


class Journal:
    """The journal of one shard.

    kept: results of the shard's first windows, from the runs before.
    """

    def __init__(self, path: Path):
        self.path = path
        self.kept: list[Scored] = []
        self._file: Any = None

    def read(self) -> Journal:
        """Fill `kept` with what is whole, and cut off what is not."""
        entries: list[tuple[Scored, int]] = []
        with suppress(OSError), self.path.open("rb") as file:
            entries = list(_entries(file))
        if entries:
            self.kept = [scored for scored, _ in entries]
        with suppress(OSError):
            os.truncate(self.path, entries[-1][1] if entries else 0)
        return self

    def append(self, windows: Sequence[Scored]) -> None:
        """Keep the results of the shard's next windows. Raises `OutputError` when the disk is full."""
        try:
            if self._file is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self.path.open("ab")
            for window in windows:
                header = asdict(window) | {"data": len(window.data)}
                line = json.dumps(header).encode()
                digest = hashlib.sha256(line + window.data).hexdigest().encode()
                self._file.write(digest + b" " + line + b"\n" + window.data + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise OutputError(f"cannot write {self.path}: {error_text(error)}") from None

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def remove(self) -> None:
        self.close()
        self.path.unlink(missing_ok=True)


def _entries(file: Any) -> Iterator[tuple[Scored, int]]:
    """Each whole entry and where it ends."""
    while line := file.readline(MAX_HEADER):
        digest, _, text = line.rstrip(b"\n").partition(b" ")
        try:
            header = json.loads(text)
            size = int(header["data"])
            if not (line.endswith(b"\n") and 0 <= size <= MAX_DATA):
                return
            data = file.read(size)
            if hashlib.sha256(text + data).hexdigest().encode() != digest or file.read(1) != b"\n":
                return
            first = {status: (int(row), str(reason)) for status, (row, reason) in header["first"].items()}
            counts = {str(status): int(n) for status, n in header["counts"].items()}
            yield Scored(int(header["n_rows"]), counts, first, data, str(header["rows_sha256"])), file.tell()
        except (ValueError, KeyError, TypeError, AttributeError):
            return
