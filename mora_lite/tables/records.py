"""A row of a library of molecules, and lists of SMILES.

A line of a list is a SMILES, perhaps the extension of a CXSMILES, and a name; or the name comes first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import NamedTuple

from ..chem.molecules import is_mol_block, name_problem, split_smiles
from .columns import SAMPLE_ROWS, reads_as_smiles
from .source import Source

MAX_LINE = 2**16  # characters of a line that are kept; a SMILES as long as this is too large by far
_MARKS = ("(", "[", "=", "#")  # of a SMILES; few names have them, and a single character is found fast
_LETTERS = r"[BCNOPSFIbcnopslr\d=#$:/\\.()%*\- \t]*"
_ALL_LETTERS = re.compile(rf"\n{_LETTERS}(?:\[[^\[\]\s]+\]{_LETTERS})*(?=\n)")  # a name with no others than SMILES have
LIST_COLUMNS = ["smiles", "name"]


class Record(NamedTuple):
    """One row of a library.

    text: a SMILES, perhaps with the extension of a CXSMILES, or an MDL mol block. fault: empty, or why it must not be
    scored.
    """

    name: str
    text: str
    fault: str


class RecordBlock(NamedTuple):
    """Consecutive rows of a file.

    cells: of each row, one text for each column of the file; empty where they were not asked for.
    lines: of the file, from 1, at which each began.
    """

    records: list[Record]
    cells: Sequence[Sequence[str]]
    lines: Sequence[int]


def strip_text(cell: str) -> str:
    """A SMILES without surrounding blanks; a mol block as it is, because its first lines may be blank."""
    bare = cell.strip()
    return cell if "\n" in bare and is_mol_block(bare) else bare


def names_come_first(start: bytes) -> bool:
    """Whether in a list that begins with `start` the names stand before the SMILES: no line begins with a molecule."""
    lines = start.decode("utf-8", "surrogateescape").splitlines()[: SAMPLE_ROWS + 1]
    words = [row for line in lines if len(row := line.split(None, 2)) > 1 and "smiles" not in " ".join(row[:2]).lower()]
    return reads_as_smiles([row[1] for row in words]) and not any(reads_as_smiles([row[0]], 0) for row in words)


def read_list(source: Source, with_cells: bool = False, names_first: bool = False) -> Iterator[RecordBlock]:
    """Each line is a row, also a blank one between others, but not blank lines at either end."""
    n_blank, begun, number, read = 0, False, 1, _turned if names_first else _records
    for lines in source.line_blocks(MAX_LINE):
        first, last = 0, len(lines)
        while not begun and first < last:
            words = lines[first].split(None, 1)
            begun = bool(words) and "smiles" not in (lines[first] if names_first else words[0]).lower()
            first += not begun
            if words and not begun:  # a header
                begun = True
        while last > first and not lines[last - 1].strip():
            last -= 1
        if last > first:
            records = [_EMPTY] * n_blank + read(lines[first:last])
            start = number + first - n_blank
            cells = [(record.text, record.name) for record in records] if with_cells else ()
            yield RecordBlock(records, cells, range(start, start + len(records)))
            n_blank = 0
        n_blank += len(lines) - last if begun else 0
        number += len(lines)


_EMPTY = Record("", "", "")


def _records(lines: list[str]) -> list[Record]:
    words = [line.split(None, 1) for line in lines]
    n_words = set(map(len, words))
    if n_words == {1}:
        return list(map(Record, repeat(""), [smiles for (smiles,) in words], repeat("")))
    if n_words == {2}:
        names, texts = [name.rstrip() for _, name in words], [smiles for smiles, _ in words]
    else:
        names, texts = [w[1].rstrip() if len(w) == 2 else "" for w in words], [w[0] if w else "" for w in words]
    together = "\n".join(names)
    if "|" in together or _may_be_smiles(together):
        return [_record(line) for line in lines]
    return list(map(Record, names, texts, repeat("")))


def _turned(lines: list[str]) -> list[Record]:
    """Of lines with the names first; what follows a SMILES belongs to its name."""
    words = [line.split(None, 1) for line in lines]
    names = [row[0] if len(row) > 1 else "" for row in words]
    records = _records([row[-1] if row else "" for row in words])
    return [record._replace(name=f"{name} {record.name}".strip()) for name, record in zip(names, records, strict=True)]


def _may_be_smiles(names: str) -> bool:
    """Whether one of the names, each on a line, may be the rest of a broken SMILES. It is asked for every row."""
    if not any(mark in names for mark in _MARKS):
        return False
    return any(mark in name for name in _ALL_LETTERS.findall(f"\n{names}\n") for mark in _MARKS)


def _record(line: str) -> Record:
    smiles, extension, name = split_smiles(line)
    if _may_be_smiles(name) and name_problem(smiles, extension, name):
        return Record("", line.strip(), "")  # a broken SMILES, not scored by its first piece
    return Record(name, f"{smiles} {extension}" if extension else smiles, "")
