"""A library of molecules as one stream of rows, from several files of several kinds.

| kind | files | a row |
|---|---|---|
| table | .csv, .tsv, or a first line with commas, semicolons or tabs | a record; see `table` |
| list | .smi, .ism, .smiles, .cxsmiles, or a first line without them | a line: SMILES, blank, name |
| SDF | .sdf, .sd, .mol, or what looks like a mol block | a record, ended by `$$$$` |
| Parquet | what begins like one | a row |

All but Parquet may be plain, gzip or zstd. Only the current window is in memory: files are opened one at a time, and
lines and records have a largest size. A damaged row is a row; a damaged file is an `InputError`.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import InputError
from .columns import choose_name_column
from .parquet import ParquetSource, is_parquet
from .records import Record, missing_field, read_list, read_sdf, strip_text
from .source import STDIO, Source
from .table import read_table

_TABLES = (".csv", ".tsv")
_LISTS = (".smi", ".ism", ".smiles", ".cxsmiles")
_RECORDS = (".sdf", ".sd", ".mol")
_PACKED = (".gz", ".zst")
READ_ROWS = 1024  # of a table that are Python objects at a time


class Window(NamedTuple):
    """Consecutive rows; `first_row` is the number of the first, from 1, over all files."""

    first_row: int
    records: list[Record]


class Library:
    """An open library. Made by `open_library`.

    files: their names. notes: lines for the user. bytes_total: size of all files on disk; None when one is a pipe.
    """

    def __init__(self, files: Sequence[str], smiles_column: str | None, name_column: str | None):
        self.files = list(files)
        self.notes: list[str] = []
        self._columns = (smiles_column, name_column)
        self._done = 0  # bytes of the files before the current one
        self._current: _File | None = None
        self._pipes: list[_File | None] = []  # stay open: what was read from them already does not come again
        sizes: list[int | None] = []
        try:
            for path in self.files:
                file = _open(path, *self._columns)
                is_pipe = file.source.bytes_total is None
                self._pipes.append(file if is_pipe else None)
                if not is_pipe:
                    file.source.close()
                self.notes += file.notes
                sizes.append(file.source.bytes_total)
        except BaseException:
            self.close()
            raise
        self.bytes_total = None if None in sizes else sum(size or 0 for size in sizes)

    @property
    def bytes_read(self) -> int:
        """How much of all files was read, for a progress bar."""
        return self._done + (self._current.source.bytes_read if self._current is not None else 0)

    def windows(self, n_rows: int) -> Iterator[Window]:
        """The rows of all files in order, `n_rows` at a time; only the last window may be shorter.

        Raises `InputError` when a file is damaged; the message says where.
        """
        self._done, first_row = 0, 1
        rows = chain.from_iterable(map(self._rows, range(len(self.files))))
        while records := list(islice(rows, n_rows)):
            yield Window(first_row, records)
            first_row += len(records)

    def _rows(self, index: int) -> Iterator[Record]:
        file = self._pipes[index] or _open(self.files[index], *self._columns)
        self._current = file
        try:
            yield from file.rows
        finally:
            self._current = None
            self._done += file.source.bytes_total or 0
            file.source.close()

    def close(self) -> None:
        for file in [*self._pipes, self._current]:
            if file is not None:
                file.source.close()

    def __enter__(self) -> Library:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_library(
    paths: str | Path | Sequence[str | Path], smiles_column: str | None = None, name_column: str | None = None
) -> Library:
    """Open files of molecules. Each is looked into now, so that a typo in the last is reported before the work.

    paths: files, patterns like `part-*.smi`, and `-` once for standard input.
    smiles_column: of tables and Parquet files, a name or a number from 1; by default found as by `open_table`.
    name_column: likewise, or the data field of an SDF; by default a column called id, name or the like, or the title
        of the SDF record.
    """
    return Library(expand_paths(paths), smiles_column, name_column)


def expand_paths(paths: str | Path | Sequence[str | Path]) -> list[str]:
    """The files that `paths` name, those of a pattern sorted. Raises `InputError` for a pattern that matches none."""
    files: list[str] = []
    for path in map(str, [paths] if isinstance(paths, (str, Path)) else paths):
        if path == STDIO or os.path.exists(path) or not glob.has_magic(path):
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


class _File(NamedTuple):
    """An open file and its rows. source: has `bytes_total`, `bytes_read` and `close`."""

    source: Any
    rows: Iterator[Record]
    notes: list[str]


def _open(path: str, smiles_column: str | None, name_column: str | None) -> _File:
    if is_parquet(path):
        parquet = ParquetSource(path, smiles_column, name_column)
        return _File(parquet, parquet.records(), [])
    source = Source(path)
    try:
        kind = _kind_of(path, source.start, smiles_column)
        if kind == "list":
            return _File(source, read_list(source), [])
        if kind == "sdf":
            return _File(source, read_sdf(source, name_column), missing_field(source, name_column))
        table = read_table(source, smiles_column)
        smiles = table.smiles_index
        name = choose_name_column(table.columns, name_column, smiles, source.name)
        rows = (
            Record("" if name is None else row.cells[name].strip(), strip_text(row.cells[smiles]), row.fault)
            for row in chain.from_iterable(table.chunks(READ_ROWS))
        )
        return _File(source, rows, table.notes)
    except BaseException:
        source.close()
        raise


def _kind_of(path: str, start: bytes, smiles_column: str | None) -> str:
    """`table`, `list` or `sdf`: by the name, else by how the text begins."""
    suffixes = [suffix.lower() for suffix in Path(path).suffixes if suffix.lower() not in _PACKED]
    suffix = suffixes[-1] if suffixes else ""
    first = next((line for line in start.splitlines() if line.strip()), b"")
    delimited = any(mark in first for mark in (b",", b";", b"\t"))
    if suffix in _TABLES:
        return "table"
    if suffix in _LISTS:  # some vendors give tables this suffix; their header tells
        return "table" if delimited and b"smiles" in first.lower() else "list"
    if suffix in _RECORDS or any(mark in start for mark in (b" V2000", b" V3000", b"\nM  END", b"\n$$$$")):
        return "sdf"
    return "table" if delimited or smiles_column is not None else "list"
