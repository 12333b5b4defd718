"""What is finished of work that is not, so that a run that was stopped does little twice.

Entries stand one after the other, each with its SHA-256. A journal that was cut off anywhere is good up to there. It
goes when what it was kept for is whole.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from ..errors import OutputError, error_text

MAX_HEADER = 1 << 20  # bytes
MAX_DATA = 1 << 32  # bytes of one entry


class Entry(NamedTuple):
    """header: plain types for JSON, without the name `data`. data: what belongs to it."""

    header: dict[str, Any]
    data: bytes


T = TypeVar("T")


class Journal(Generic[T]):
    """One journal.

    of: what an entry is kept as; the journal ends at one of which it cannot be made (`ValueError`, `KeyError`,
    `TypeError`, `AttributeError`). kept: of the runs before, after `read`.
    """

    def __init__(self, path: Path, of: Callable[[Entry], T]):
        self.path = path
        self.kept: list[T] = []
        self._of = of
        self._file: Any = None

    def read(self) -> Journal[T]:
        """Fill `kept` with what is whole, and cut off what is not."""
        end = 0
        with suppress(OSError), self.path.open("rb") as file:
            for entry in _entries(file):
                try:
                    self.kept.append(self._of(entry))
                except (ValueError, KeyError, TypeError, AttributeError):
                    break
                end = file.tell()
        with suppress(OSError):
            os.truncate(self.path, end)
        return self

    def append(self, entries: Sequence[Entry]) -> None:
        """Keep the next entries. Raises `OutputError` when the disk is full."""
        try:
            if self._file is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self.path.open("ab")
            for header, data in entries:
                line = json.dumps(header | {"data": len(data)}).encode()
                digest = hashlib.sha256(line + data).hexdigest().encode()
                self._file.write(digest + b" " + line + b"\n" + data + b"\n")
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


class KeptResults:
    """Results by key that a journal keeps; without one, none."""

    def __init__(self, journal: Journal[tuple[str, bytes]] | None):
        self._journal = journal
        self._known = dict(journal.read().kept) if journal else {}

    def get(self, key: str) -> bytes | None:
        """Those of the runs before."""
        return self._known.get(key)

    def add(self, key: str, data: bytes) -> None:
        """Keep a result. Raises `OutputError` when the disk is full."""
        if self._journal:
            self._journal.append([Entry({"key": key}, data)])


@contextmanager
def results_beside(target: Path | None) -> Iterator[KeptResults]:
    """Results that are kept beside the file `target` until the block ends well; of none, or of a pipe, none are."""
    journal = None
    if target is not None and (target.is_file() or not target.exists()):
        path = Path(os.path.realpath(target))
        journal = Journal(path.with_name(f".{path.name}.journal"), lambda entry: (entry.header["key"], entry.data))
    try:
        yield KeptResults(journal)
        if journal:
            journal.remove()
    finally:
        if journal:
            journal.close()


def _entries(file: Any) -> Iterator[Entry]:
    """Each whole entry, behind which the file then stands."""
    while line := file.readline(MAX_HEADER):
        digest, _, text = line.rstrip(b"\n").partition(b" ")
        try:
            header = json.loads(text)
            size = int(header.pop("data"))
        except (ValueError, KeyError, TypeError, AttributeError):
            return
        if not (line.endswith(b"\n") and 0 <= size <= MAX_DATA):
            return
        data = file.read(size)
        if hashlib.sha256(text + data).hexdigest().encode() != digest or file.read(1) != b"\n":
            return
        yield Entry(header, data)
