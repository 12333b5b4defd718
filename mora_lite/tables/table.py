"""Tables of molecules, read in a stream, nothing lost.

Reading keeps the text of every cell as it is, in constant memory. Comma, tab or semicolon, plain, gzip or
zstd, with or without a byte-order mark, any line ends. Bytes that are not UTF-8 are carried as surrogates and
written back unchanged. One record of the file is one row: also a short one (padded with empty cells), a
blank line between others (all cells empty; blank lines at the end of the file are not rows) and one with
too many cells (`Row.fault` says so and lists them).
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from ..errors import InputError
from .columns import SAMPLE_ROWS, ColumnChoice, choose_smiles_column
from .formats import format_cells
from .source import UNREADABLE, Source

MAX_CELL = 2**24  # characters; beyond this it is a quote that nobody closed


class Row(NamedTuple):
    """One record. cells: one text for each column. fault: empty, or why the row must not be scored."""

    cells: list[str]
    fault: str


class Table:
    """An open table. Made by `open_table`; its rows can be read once, with `chunks`.

    columns: names. smiles_index: which of them holds the SMILES, from 0. notes: lines for the user.
    """

    def __init__(self, name: str, records: Iterator[list[str]], choice: ColumnChoice, source: Source):
        self.name = name
        self.columns = choice.columns
        self.smiles_index = choice.smiles_index
        self.notes = choice.notes
        self._records = records
        self._source = source

    @property
    def bytes_total(self) -> int | None:
        """Size of the file on disk; None for a pipe."""
        return self._source.bytes_total

    @property
    def bytes_read(self) -> int:
        """How much of the file on disk was read, for a progress bar."""
        return self._source.bytes_read

    def chunks(self, n_rows: int) -> Iterator[list[Row]]:
        """Lists of `n_rows` rows in the file's order; the last may be shorter. Raises `InputError` on bad quoting."""
        width, chunk = len(self.columns), []
        for cells in self._records:
            chunk.append(_fit(cells, width))
            if len(chunk) == n_rows:
                yield chunk
                chunk = []
        if chunk:
            yield chunk

    def close(self) -> None:
        self._source.close()

    def __enter__(self) -> Table:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_table(path: str | Path, smiles_column: str | None = None) -> Table:
    """Open a CSV file (`-` is standard input) and find its SMILES column: by name, else by content.

    smiles_column: a column's name, or its number counted from 1.

    Raises `InputError` when the file is missing, empty, not a table, or no column or several can be the SMILES column.
    """
    return read_table(Source(path), smiles_column)


def read_table(source: Source, smiles_column: str | None = None) -> Table:
    """`open_table` for a file that is open already."""
    try:
        records = _records(source)
        head: list[list[str]] = []
        for cells in records:
            head.append(cells)
            if len(head) > SAMPLE_ROWS:
                break
        if not head:
            raise InputError(f"{source.name} is empty: a header with a SMILES column is needed")
        choice = choose_smiles_column(head[0], head[1:], smiles_column, source.name)
    except BaseException:
        source.close()
        raise
    return Table(source.name, chain(head[1 if choice.has_header else 0 :], records), choice, source)


def _records(source: Source) -> Iterator[list[str]]:
    """The records of the file, without the blank lines before the first and after the last."""
    csv.field_size_limit(max(csv.field_size_limit(), MAX_CELL))
    # strict: a stray or unclosed quote is an error with its line, where it would otherwise swallow rows silently.
    reader = csv.reader(source.text, delimiter=_sniff_delimiter(source.start), strict=True)
    blank, seen = 0, False
    try:
        for cells in reader:
            if not cells:
                blank += 1
                continue
            if seen:
                yield from ([] for _ in range(blank))
            blank, seen = 0, True
            yield cells
    except csv.Error as error:
        raise InputError(f"{source.name}, line {reader.line_num}: {error}; is a quote out of place?") from None
    except UNREADABLE as error:
        raise source.broken(error, reader.line_num) from None


def _sniff_delimiter(start: bytes) -> str:
    """Comma, tab or semicolon: whichever the first line has most of, outside quotes."""
    first = next((line for line in start.removeprefix(b"\xef\xbb\xbf").splitlines() if line.strip()), b"")
    bare = b"".join(first.split(b'"')[::2])
    return max(",\t;", key=lambda mark: bare.count(mark.encode()))


def _fit(cells: list[str], width: int) -> Row:
    if len(cells) == width:
        return Row(cells, "")
    if len(cells) < width:
        return Row(cells + [""] * (width - len(cells)), "")
    extra = cells[width:]
    if not any(extra):
        return Row(cells[:width], "")
    # Nobody knows which of the delimiters is one too many, so nobody knows the SMILES.
    fault = f"{len(cells)} cells for {width} columns; the cells beyond: {format_cells(extra)}"
    return Row(cells[:width], fault)
