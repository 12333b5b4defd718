"""Lists of SMILES: on each line a SMILES, perhaps the extension of a CXSMILES, and a name."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat

from ..chem.molecules import split_smiles
from .records import Record, RecordBlock
from .source import Source

MAX_LINE = 2**16  # characters of a line that are kept; a SMILES as long as this is too large by far
COLUMNS = ["smiles", "name"]


def read_list(source: Source, with_cells: bool = False) -> Iterator[RecordBlock]:
    """Each line is a row, also a blank one between others, but not blank lines at either end."""
    n_blank, begun, number = 0, False, 1
    for lines in source.line_blocks(MAX_LINE):
        first, last = 0, len(lines)
        while not begun and first < last:
            words = lines[first].split(None, 1)
            begun = bool(words) and "smiles" not in words[0].lower()
            first += not begun
            if words and not begun:  # a header
                begun = True
        while last > first and not lines[last - 1].strip():
            last -= 1
        if last > first:
            records = [_EMPTY] * n_blank + _records(lines[first:last])
            start = number + first - n_blank
            cells = [(record.text, record.name) for record in records] if with_cells else ()
            yield RecordBlock(records, cells, range(start, start + len(records)))
            n_blank = 0
        n_blank += len(lines) - last if begun else 0
        number += len(lines)


_EMPTY = Record("", "", "")


def _records(lines: list[str]) -> list[Record]:
    if "|" in "".join(lines):
        return [_record(line) for line in lines]
    words = [line.split(None, 1) for line in lines]
    if set(map(len, words)) == {2}:
        return list(map(Record, [name.rstrip() for _, name in words], [smiles for smiles, _ in words], repeat("")))
    return [Record(w[1].rstrip() if len(w) == 2 else "", w[0] if w else "", "") for w in words]


def _record(line: str) -> Record:
    smiles, extension, name = split_smiles(line)
    return Record(name, f"{smiles} {extension}" if extension else smiles, "")
