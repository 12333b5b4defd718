"""A row of a library of molecules, and the files that hold nothing else: lists of SMILES, and SDF."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import repeat
from typing import NamedTuple

from .source import UNREADABLE, Source

MAX_LINE = 2**16  # characters of a line that are kept; a SMILES as long as this is too large by far
MAX_RECORD = 2**20  # characters of a mol block; one with MAX_ATOMS atoms and all their hydrogens has a tenth


class Record(NamedTuple):
    """One row of a library.

    text: a SMILES, or, if there is a line end in it, an MDL mol block. fault: empty, or why it must not be scored.
    """

    name: str
    text: str
    fault: str


def strip_text(cell: str) -> str:
    """A SMILES without surrounding blanks; a mol block as it is, because its first lines may be blank."""
    bare = cell.strip()
    return cell if "\n" in bare else bare


def _lines(source: Source) -> Iterator[str]:
    """Lines without their line ends; a very long one is cut."""
    readline = partial(source.text.readline, MAX_LINE)
    number = 0
    try:
        while line := readline():
            number += 1
            yield line.rstrip("\r\n")
            while len(line) == MAX_LINE and not line.endswith(("\r", "\n")):
                line = readline()
    except UNREADABLE as error:
        raise source.broken(error, number) from None


def read_list(source: Source) -> Iterator[Record]:
    """Each line is a row, also a blank one between others, but not blank lines at either end."""
    blank, begun = 0, False
    for line in _lines(source):
        words = line.split(None, 1)
        if not words:
            blank += 1
        elif not begun and "smiles" in words[0].lower():
            blank, begun = 0, True  # a header
        else:
            if begun:
                yield from repeat(Record("", "", ""), blank)
            blank, begun = 0, True
            yield Record(words[1].strip() if len(words) == 2 else "", words[0], "")


def read_sdf(source: Source, field: str | None) -> Iterator[Record]:
    """The records of an SDF; what follows the last `$$$$` is a record unless it is blank."""
    builder = _RecordBuilder(field)
    for line in _lines(source):
        if line.startswith("$$$$"):
            yield builder.build()
            builder = _RecordBuilder(field)
        else:
            builder.add(line)
    if not builder.blank:
        yield builder.build()


class _RecordBuilder:
    """Collects one record of an SDF, line by line."""

    def __init__(self, field: str | None):
        self.blank = True
        self._field = None if field is None else f"<{field}>"
        self._name = ""
        self._name_follows = False
        self._block: list[str] = []
        self._ended = False
        self._size = 0

    def add(self, line: str) -> None:
        self.blank = self.blank and not line.strip()
        if self._name_follows:
            self._name, self._name_follows = line.strip(), False
        elif line.startswith(">"):
            self._name_follows = self._field is not None and self._field in line
        if self._ended:
            return
        self._size += len(line) + 1
        if self._size <= MAX_RECORD:
            self._block.append(line)
        self._ended = line.startswith("M  END")

    def build(self) -> Record:
        title = self._block[0].strip() if self._block else ""
        name = title if self._field is None else self._name
        if self._size > MAX_RECORD:
            return Record(name, "", f"a mol block of {self._size:,} characters, more than {MAX_RECORD:,}")
        # The final line end distinguishes even a damaged block of one line from a SMILES.
        return Record(name, "\n".join([*self._block, ""]) or "\n", "")


def missing_field(source: Source, field: str | None) -> list[str]:
    """A note if the first record lacks the field: otherwise a typo would show only at the end, as empty names."""
    first, end, _ = source.start.partition(b"\n$$$$")
    if field is None or not end or f"<{field}>".encode("utf-8", "surrogateescape") in first:
        return []
    return [f"{source.name}: the first record has no data field {field!r}; names are empty where it is missing"]
