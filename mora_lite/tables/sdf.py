"""SDF: a mol block, data fields and `$$$$` for each molecule."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import chain

from rdkit import Chem, rdBase
from rdkit.Chem import rdDepictor

from ..chem.molecules import MAX_CHARACTERS
from ..status import OK
from .formats import LINE_END
from .records import Record, RecordBlock
from .source import Source

MAX_RECORD = 2**20  # characters of a mol block, and of data; one with MAX_ATOMS atoms and all hydrogens has a tenth
MAX_LINE = 2**16
MAX_TITLE = 80  # of a mol block's first line
_BLOCK_RECORDS = 256
_HEADER = re.compile(r">[^<]*<([^>]*)>")  # of a data field: `>  <logS>  (12)`
_HEADERS = re.compile(r"(?:^|\r)>[^<\r\n]*<([^>\r\n]*)>", re.MULTILINE)
_NO_ATOMS = "\n  mora-lite\n\n  0  0  0  0  0  0  0  0  0  0999 V2000\nM  END\n"
_AHEAD = 2**20  # characters of a pipe that are searched for fields


def sdf_fields(source: Source) -> list[str]:
    """The names of all data fields of a file, in order of first appearance. Reads the source to its end."""
    names: dict[str, None] = {}
    for lines in source.line_blocks(MAX_LINE):
        names.update(dict.fromkeys(_HEADERS.findall("".join(lines))))
    return list(names)


def sdf_fields_ahead(source: Source) -> list[str]:
    """The same of the beginning of a pipe, which is not lost by that."""
    return list(dict.fromkeys(_HEADERS.findall(source.look_ahead(_AHEAD))))


def sdf_columns(fields: list[str]) -> list[str]:
    """Columns of an SDF: the SMILES, the title, the data fields; the first two with names that no field has."""
    smiles = next(name for name in ("smiles", "SMILES of the structure", "<smiles>") if name not in fields)
    title = next(name for name in ("name", "title", "<title>") if name not in fields)  # a field's name ends at `>`
    return [smiles, title, *fields]


class SdfReader:
    """Reads the records of an SDF; what follows the last `$$$$` is a record unless it is blank.

    field: the data field with the names; None for the title. fields: those that become cells; None for no cells.
    notes: lines for the user, complete when all is read.
    """

    def __init__(self, source: Source, field: str | None, fields: list[str] | None):
        self.notes = _missing_field(source, field)
        self._source, self._field, self._fields = source, field, fields
        self._unknown: dict[str, int] = {}  # fields that were not found beforehand

    def __iter__(self) -> Iterator[RecordBlock]:
        records: list[Record] = []
        cells: list[list[str]] = []
        lines: list[int] = []
        number, start = 0, 1
        builder = _RecordBuilder(self._field, self._fields is not None)
        for line in chain.from_iterable(self._source.line_blocks(MAX_LINE)):
            number += 1
            if not line.startswith("$$$$"):
                builder.add(line.rstrip("\r\n"))
                continue
            self._finish(builder, start, records, cells, lines)
            builder.clear()
            start = number + 1
            if len(records) == _BLOCK_RECORDS:
                yield RecordBlock(records, cells, lines)
                records, cells, lines = [], [], []
        if not builder.blank:
            self._finish(builder, start, records, cells, lines)
        if records:
            yield RecordBlock(records, cells, lines)
        if self._unknown:
            self.notes.append(
                f"{self._source.name}: data fields that first come late are left out: {', '.join(self._unknown)}; "
                "name a file in place of a pipe"
            )

    def _finish(
        self, builder: _RecordBuilder, start: int, records: list[Record], cells: list[list[str]], lines: list[int]
    ) -> None:
        record = builder.build()
        records.append(record)
        lines.append(start)
        if self._fields is not None:
            values = builder.values
            cells.append(["", builder.title, *("\n".join(values.get(name, ())) for name in self._fields)])
            self._unknown.update((name, start) for name in values.keys() - set(self._fields))


class _RecordBuilder:
    """Collects one record of an SDF, line by line.

    values: data field -> its lines; all fields if `keeps_all`, else that of the name alone.
    """

    def __init__(self, field: str | None, keeps_all: bool):
        self._field, self._keeps_all = field, keeps_all
        self.clear()

    def clear(self) -> None:
        self.blank = True
        self.values: dict[str, list[str]] = {}
        self._value: list[str] | None = None  # of the data field that is being read
        self._block: list[str] = []
        self._ended = False
        self._size = self._data_size = 0

    @property
    def title(self) -> str:
        return self._block[0].strip() if self._block else ""

    def add(self, line: str) -> None:
        if self.blank and line.strip():
            self.blank = False
        if line.startswith(">") and (header := _HEADER.match(line)):
            name = header[1]
            self._ended = self._ended or len(self._block) > 2  # no mol block, as of a compound without a structure
            self._value = self.values.setdefault(name, []) if self._keeps_all or name == self._field else None
        elif self._value is not None:
            if not line.strip():
                self._value = None
            elif self._data_size <= MAX_RECORD:
                self._value.append(line)
                self._data_size += len(line)
        if self._ended:
            return
        self._size += len(line) + 1
        if self._size <= MAX_RECORD:
            self._block.append(line)
        self._ended = line.startswith("M  END")

    def build(self) -> Record:
        name = self.title if self._field is None else "".join(self.values.get(self._field, ())[:1]).strip()
        if self._size > MAX_RECORD:
            return Record(name, "", f"a mol block of {self._size:,} characters, more than {MAX_RECORD:,}")
        # The final line end distinguishes even a damaged block of one line from a SMILES.
        return Record(name, "\n".join([*self._block, ""]) or "\n", "")


def with_smiles(
    cells: Sequence[Sequence[str]], at: int, records: Sequence[Record], smiles: Sequence[str], status: Sequence[str]
) -> list[Sequence[str]]:
    """The rows' cells, of a record of an SDF, which has no SMILES, with RDKit's in column `at`, where it was scored."""
    return [
        [*row[:at], text, *row[at + 1 :]] if not row[at] and "\n" in record.text and word == OK else row
        for row, record, text, word in zip(cells, records, smiles, status, strict=True)
    ]


def drawn_text(text: str, status: str) -> str:
    """What the record of a row is made of: its mol block, or its SMILES if it was scored; else nothing.

    What is too large or took too long to read would hold up the writing too.
    """
    return text if status == OK or "\n" in text else ""


def mol_block(name: str, text: str) -> str:
    """A mol block as it is; of a SMILES one with a drawing's coordinates, without atoms if it cannot be read."""
    title = " ".join(name.split())[:MAX_TITLE]
    if "\n" in text:
        lines = LINE_END.split(text)
        end = next((i for i, line in enumerate(lines, 1) if line.startswith("M  END")), 0)
        return "".join(f"{line}\n" for line in lines[:end]) or title + _NO_ATOMS
    try:
        with rdBase.BlockLogs():
            mol = Chem.MolFromSmiles(text) if text.isascii() and len(text) <= MAX_CHARACTERS else None
            if mol is None or not mol.GetNumAtoms():
                return title + _NO_ATOMS
            rdDepictor.Compute2DCoords(mol)
            mol.SetProp("_Name", title)
            return str(Chem.MolToMolBlock(mol))
    except (ValueError, RuntimeError):  # RDKit reads it, but cannot lay it out
        return title + _NO_ATOMS


def _missing_field(source: Source, field: str | None) -> list[str]:
    """A note if the first record lacks the field: otherwise a typo would show only at the end, as empty names."""
    first, end, _ = source.start.partition(b"\n$$$$")
    if field is None or not end or f"<{field}>".encode("utf-8", "surrogateescape") in first:
        return []
    return [f"{source.name}: the first record has no data field {field!r}; names are empty where it is missing"]
