"""A library of molecules as one stream of rows, from several files of several kinds.

| kind | files | a row |
|---|---|---|
| table | .csv, .tsv, or a first line with commas, semicolons, tabs or bars | a record; see `table` |
| workbook | .xlsx, .xlsm | a row of the first sheet with molecules |
| list | .smi, .ism, .smiles, .cxsmiles, or a first line without them | a line; see `records` |
| SDF | .sdf, .sd, .mol, or what looks like a mol block | a record, ended by `$$$$` |
| Parquet | what begins like one | a row |

All but workbooks and Parquet may be plain, gzip, bzip2 or zstd. Only the current window is in memory: files are opened
one at a time, and lines and records have a largest size. A damaged row is a row; a damaged file is an `InputError`.
"""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import chain, repeat
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import InputError
from .columns import WantedColumns, is_smiles_name
from .delimited import is_delimited
from .parquet import ParquetSource, is_parquet
from .records import LIST_COLUMNS, Record, RecordBlock, names_come_first, read_list, strip_text
from .sdf import SdfReader, sdf_columns, sdf_fields, sdf_fields_ahead
from .source import PACKED, STDIO, Source
from .table import Table
from .workbook import Workbook, is_workbook

_TABLES = (".csv", ".tsv")
_LISTS = (".smi", ".ism", ".smiles", ".cxsmiles")
_RECORDS = (".sdf", ".sd", ".mol")
_ADDRESS = re.compile(r"\w{2,}://")


class Window(NamedTuple):
    """Consecutive rows; `first_row` is the number of the first, from 1, over all files.

    cells: of each row, one text for each of the library's columns; empty where they were not asked for.
    lines: of the file, from 1, at which each row began; empty without cells.
    """

    first_row: int
    records: list[Record]
    cells: Sequence[Sequence[str]] = ()
    lines: Sequence[int] = ()

    @classmethod
    def of(cls, texts: Sequence[str], first_row: int = 1, cells: Sequence[Sequence[str]] = ()) -> Window:
        """Rows without names."""
        return cls(first_row, [Record("", text, "") for text in texts], cells)


class Library:
    """An open library. Made by `open_library`.

    files: their names. bytes_total: size of all files on disk; None when one is a pipe.
    notes: lines for the user; more of them come as rows are read.
    columns: with cells, those of all files: of the first in order, then what further ones have besides.
    smiles_index: which of the columns holds the SMILES, from 0; empty cells in it are the rows of an SDF.
    types: the Arrow type of each column of a Parquet file, None for others. delimiter: of the first file, empty if it
    is no table. bom: whether the first file begins with a byte-order mark.
    n_kept: rows whose results are of an earlier run, as whoever makes the results says; a rate does not count them.
    """

    def __init__(self, files: Sequence[str], wanted: WantedColumns, cells: bool):
        self.files = list(files)
        self.notes: list[str] = []
        self.columns: list[str] = []
        self.types: list[Any] = []
        self.smiles_index, self.delimiter, self.bom, self.n_kept = -1, "", False, 0
        self._wanted, self._cells = wanted, cells
        self._done = self._rows_read = 0  # bytes of the files before the current one; rows of all
        self._current: _File | None = None
        # Pipes stay open, as what was read from them does not come again, and so does an only file: to open a workbook
        # takes long.
        self._opened: list[_File | None] = []
        self._places: list[list[int]] = []  # of each file's columns among the library's
        sizes: list[int | None] = []
        faults: list[str] = []
        try:
            for path in self.files:
                file = _open(path, wanted, cells)
                stays = file.source.bytes_total is None or len(self.files) == 1
                self._opened.append(file if stays else None)
                if not stays:
                    file.source.close()
                self.notes += file.notes()
                sizes.append(file.source.bytes_total)
                faults.append(file.fault)
                if cells:
                    self._add_columns(file)
            if all(faults):  # beside a table, which has columns, the options are for that
                raise InputError(faults[0])
        except BaseException:
            self.close()
            raise
        self.bytes_total = None if None in sizes else sum(size or 0 for size in sizes)

    def _add_columns(self, file: _File) -> None:
        """Find the file's columns among the library's, or add them; its SMILES go into the first file's column."""
        if not self._places:
            self.columns, self.types = list(file.columns), list(file.types or [None] * len(file.columns))
            self.smiles_index, self.delimiter, self.bom = file.smiles_index, file.delimiter, file.source.bom
            self._places.append(list(range(len(self.columns))))
            return
        places = []
        seen: Counter[str] = Counter()
        for i, name in enumerate(file.columns):
            same = [k for k, column in enumerate(self.columns) if column == name and k != self.smiles_index]
            if i == file.smiles_index:
                places.append(self.smiles_index)
                continue
            if seen[name] < len(same):
                places.append(same[seen[name]])
            else:
                places.append(len(self.columns))
                self.columns.append(name)
                self.types.append(file.types[i] if file.types else None)
            seen[name] += 1
        self._places.append(places)

    @property
    def bytes_read(self) -> int:
        """How much of all files was read, for a progress bar; another thread may read them meanwhile."""
        current = self._current
        return self._done + (current.source.bytes_read if current is not None else 0)

    def share_done(self, n_rows: int) -> float | None:
        """Of the input, when `n_rows` of its rows are done; None of unknown size. Rows are read well before."""
        if not self.bytes_total:
            return None
        share = self.bytes_read / self.bytes_total
        return share * min(1.0, n_rows / self._rows_read) if self._rows_read else share

    def read_elsewhere(self, n_bytes: int) -> None:
        """Note how much of the files another process has read, for `bytes_read`."""
        self._done = n_bytes

    def windows(self, n_rows: int) -> Iterator[Window]:
        """The rows of all files in order, `n_rows` at a time; only the last window may be shorter.

        Raises `InputError` when a file is damaged; the message says where.
        """
        self._done = self._rows_read = 0
        return regroup(chain.from_iterable(map(self._blocks, range(len(self.files)))), n_rows)

    def _blocks(self, index: int) -> Iterator[RecordBlock]:
        file = self._opened[index] or _open(self.files[index], self._wanted, self._cells)
        if file.source.bytes_total is not None:
            self._opened[index] = None  # may be read again
        n_notes = len(file.notes())
        self._current = file
        try:
            for block in file.blocks:
                self._rows_read += len(block.records)
                yield self._placed(block, index) if self._cells else block._replace(cells=(), lines=())
            self.notes += file.notes()[n_notes:]
        finally:
            self._current = None
            self._done += file.source.bytes_total or 0
            file.source.close()

    def _placed(self, block: RecordBlock, index: int) -> RecordBlock:
        """The block with its cells under the library's columns."""
        places, width = self._places[index], len(self.columns)
        if places == list(range(width)):
            return block
        cells = []
        for row in block.cells:
            texts = [""] * width
            for place, text in zip(places, row, strict=True):
                texts[place] = text
            cells.append(texts)
        return block._replace(cells=cells)

    def close(self) -> None:
        for file in [*self._opened, self._current]:
            if file is not None:
                file.source.close()

    def __enter__(self) -> Library:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class TypedSmiles:
    """SMILES that were typed, used like an open `Library`."""

    def __init__(self, smiles: Sequence[str]):
        self.smiles = list(smiles)
        self.columns, self.types, self.smiles_index = ["smiles"], [None], 0
        self.files: list[str] = []
        self.notes: list[str] = []
        self.bom, self.delimiter, self.n_kept = False, "", 0

    def share_done(self, n_rows: int) -> float | None:
        """Of the input, when `n_rows` of its rows are done."""
        return n_rows / len(self.smiles) if self.smiles else None

    def windows(self, n_rows: int) -> Iterator[Window]:
        for start in range(0, len(self.smiles), n_rows):
            rows = self.smiles[start : start + n_rows]
            yield Window.of(rows, start + 1, [[text] for text in rows])

    def __enter__(self) -> TypedSmiles:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is open; here because `Library` has it."""


@contextmanager
def telling_notes(library: Library | TypedSmiles, on_note: Callable[[str], None]) -> Iterator[None]:
    """Hand on what the library notes: what it knows already before the block, what reading it shows after that."""
    told = len(library.notes)
    for note in library.notes:
        on_note(note)
    yield
    for note in library.notes[told:]:
        on_note(note)


def open_library(
    paths: str | Path | Sequence[str | Path],
    smiles_column: str | None = None,
    name_column: str | None = None,
    *,
    cells: bool = False,
    recorded_column: str | None = None,
    expected: Sequence[str] = (),
) -> Library:
    """Open files of molecules. Each is looked into now, so that a typo in the last is reported before the work.

    paths: files, patterns like `part-*.smi`, and `-` once for standard input.
    smiles_column: of tables and Parquet files, a name or a number from 1; by default found as `columns` says.
    name_column: likewise, or the data field of an SDF; by default a column called id, name or the like, or the title
        of the SDF record. Raises `InputError` where no file can have one of the two columns.
    cells: read every column, not only SMILES and names.
    recorded_column: as `smiles_column` where that is None, but of tables and Parquet files alone: a pack or a task says
        what its own tables had, while lists and SDF have their SMILES at one place.
    expected: further names of SMILES columns, the likeliest first, for tables where neither the typical names nor the
        cells decide it.
    """
    return Library(expand_paths(paths), WantedColumns(smiles_column, name_column, recorded_column, expected), cells)


def expand_paths(paths: str | Path | Sequence[str | Path]) -> list[str]:
    """The files that `paths` name, those of a pattern sorted.

    Raises `InputError` for a pattern that matches none, for an address of the web, and for what is no name of a file.
    """
    given = [paths] if isinstance(paths, (str, Path)) else paths
    if hasattr(given, "shape") or not isinstance(given, Iterable):  # a table or column of any library
        raise InputError(
            f"files: got {type(given).__name__}, expected the name of a file or several; predict takes the molecules"
        )
    files: list[str] = []
    for path in map(str, given):
        is_there = path == STDIO or os.path.exists(path)
        if not is_there and _ADDRESS.match(path):
            raise InputError(f"{path}: nothing is fetched here; download the file and name it")
        if is_there or not glob.has_magic(path):
            files.append(path)
            continue
        matches = sorted(name for name in glob.glob(path, recursive=True) if not os.path.isdir(name))
        if not matches:
            raise InputError(f"no file matches {path!r}: name files that exist")
        files += matches
    if not files:
        raise InputError("no file of molecules: name at least one")
    if files.count(STDIO) > 1:
        raise InputError("standard input (-) is named twice, but can be read only once")
    return files


def regroup(blocks: Iterable[RecordBlock | Window], n_rows: int) -> Iterator[Window]:
    """The rows of the blocks, which follow each other from row 1 on, `n_rows` at a time."""
    first_row = 1
    records: list[Record] = []
    cells: list[Sequence[str]] = []
    lines: list[int] = []
    for block in blocks:
        records += block.records
        cells += block.cells
        lines += block.lines
        start = 0
        while len(records) - start >= n_rows:
            end = start + n_rows
            yield Window(first_row, records[start:end], cells[start:end], lines[start:end])
            first_row += n_rows
            start = end
        if start:
            records, cells, lines = records[start:], cells[start:], lines[start:]
    if records:
        yield Window(first_row, records, cells, lines)


class _File(NamedTuple):
    """An open file and its rows.

    source: has `bytes_total`, `bytes_read`, `bom` and `close`. fault: why a column that was asked for cannot be read.
    """

    source: Any
    blocks: Iterator[RecordBlock]
    notes: Callable[[], list[str]]
    columns: Sequence[str]
    smiles_index: int = 0
    types: Sequence[Any] = ()
    delimiter: str = ""
    fault: str = ""


def _open(path: str, wanted: WantedColumns, cells: bool) -> _File:
    if is_parquet(path):
        parquet = ParquetSource(path, wanted)
        file = _File(parquet, parquet.blocks(cells), lambda: parquet.notes, parquet.columns)
        return file._replace(smiles_index=parquet.smiles_index, types=parquet.types)
    source = Workbook(path, wanted.of_table) if is_workbook(path) else Source(path)
    try:
        if isinstance(source, Workbook):
            return _open_table(Table(source, wanted._replace(smiles=source.smiles_column, recorded=None)))
        kind = _kind_of(path, source.start, wanted)
        fault = _column_fault(source.name, kind, wanted)
        if kind == "list":
            turned = names_come_first(source.start)
            notes = [f"{source.name}: the names are read from the first word of a line, the SMILES from the second"]
            return _File(source, read_list(source, cells, turned), lambda: notes * turned, LIST_COLUMNS, fault=fault)
        if kind == "sdf":
            fields = _fields_of(path, source) if cells else None
            reader = SdfReader(source, wanted.name, fields)
            return _File(source, iter(reader), lambda: reader.notes, sdf_columns(fields or []), fault=fault)
        return _open_table(Table(source, wanted))
    except BaseException:
        source.close()
        raise


def _column_fault(name: str, kind: str, wanted: WantedColumns) -> str:
    """Why a list or an SDF has no such columns as the user names; empty if it has them."""
    smiles, label = wanted.smiles, wanted.name
    if kind == "sdf" and smiles is not None:
        return f"{name} is an SDF, whose mol blocks are read: leave out --smiles-column {smiles}"
    if kind == "list" and smiles is not None and smiles.strip().lower() not in ("1", LIST_COLUMNS[0]):
        advice = "leave that out, or call it .tsv if its lines have tabs"
        return f"{name} is a list, whose lines begin with SMILES, not with --smiles-column {smiles}: {advice}"
    if kind == "list" and label is not None and label.strip().lower() not in ("2", LIST_COLUMNS[1]):
        return f"{name} is a list, whose names follow the SMILES: leave out --name-column {label}"
    return ""


def _open_table(table: Table) -> _File:
    blocks = _table_blocks(table)
    return _File(table.source, blocks, lambda: table.notes, table.columns, table.smiles_index, (), table.delimiter)


def _table_blocks(table: Table) -> Iterator[RecordBlock]:
    smiles, name = table.smiles_index, table.name_index
    for block in table.blocks():
        texts = [strip_text(row[smiles]) for row in block.cells]
        names = repeat("") if name is None else [row[name].strip() for row in block.cells]
        faults = [block.faults.get(i, "") for i in range(len(texts))] if block.faults else repeat("")
        yield RecordBlock(list(map(Record, names, texts, faults)), block.cells, block.lines)


def _fields_of(path: str, source: Source) -> list[str]:
    """The data fields of an SDF: of the whole file, or, of a pipe, those of its beginning."""
    if source.bytes_total is None:
        return sdf_fields_ahead(source)
    with closing(Source(path)) as again:
        return sdf_fields(again)


def _kind_of(path: str, start: bytes, wanted: WantedColumns) -> str:
    """`table`, `list` or `sdf`: by the name, else by how the text begins."""
    suffixes = [suffix.lower() for suffix in Path(path).suffixes if suffix.lower() not in PACKED]
    suffix = suffixes[-1] if suffixes else ""
    first = next((line for line in start.splitlines() if line.strip()), b"").decode("utf-8", "surrogateescape")
    if suffix in _TABLES:
        return "table"
    if suffix in _LISTS:  # some vendors give tables this suffix; their header tells
        joined = first.split()[:1] and set(first.split()[0]) & set(",;")  # neither is part of a SMILES
        return "table" if joined or (is_delimited(first) and "smiles" in first.lower()) else "list"
    if suffix in _RECORDS or any(mark in start for mark in (b" V2000", b" V3000", b"\nM  END", b"\n$$$$")):
        return "sdf"
    # The name of a SMILES column alone is the header of a table with one column.
    return "table" if is_delimited(first) or is_smiles_name(first) or wanted.of_table is not None else "list"
