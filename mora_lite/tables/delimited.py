"""Delimited text: which character parts the cells, and the records, whatever their quotes.

No line is lost: where a quote is never closed, or something follows a closing quote, the line stands as it is and the
next line is a record again. A quote that would make one cell of lines that read as rows with molecules is plain too.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import chain, islice
from typing import NamedTuple

from ..errors import InputError
from ..status import counted
from .columns import count_titles, is_smiles_name, reads_as_smiles, title_note
from .source import Source

MAX_LINE = 2**24  # characters
MAX_RECORD = 2**20  # characters of a record of several lines: beyond this it is a quote that nobody closed
_LOOKED_AT = 50  # of a record's lines, to tell whether they are rows
_USUAL = ",\t;|"  # in order of preference
_MARKS = re.compile(f"[{_USUAL}]")
_SAMPLE_LINES = 60
_NO_DELIMITERS = '"\r\n\0'  # Python's reader refuses some of them, which ones depends on its version
_SEP_LINE = re.compile(rf'"?sep=([^{_NO_DELIMITERS}])"?', re.IGNORECASE)
_EXTENSION = re.compile(r"\|[^|]*\|")  # of a CXSMILES: what is in it parts nothing


class Dialect(NamedTuple):
    """delimiter: between cells. n_skipped: lines before the header. notes: lines for the user."""

    delimiter: str
    n_skipped: int = 0
    notes: tuple[str, ...] = ()


def sniff_dialect(start: bytes, source: str, smiles_column: str | None = None) -> Dialect:
    """The dialect of a table that begins with `start`, UTF-8. source: the table's name, for the notes.

    Titles above the header are skipped (`count_titles`). smiles_column: as the user calls it.

    A first line `sep=;`, as spreadsheets write it, decides. Else of comma, tab, semicolon and bar the one by which most
    of the first lines have as many cells as the header; another character only where that makes a SMILES column of
    every line.
    """
    lines = _first_lines(start)
    first = next((i for i, line in enumerate(lines) if line.strip()), 0)
    said = _SEP_LINE.match(lines[first].strip("\r\n")) if lines else None
    if said:
        return Dialect(said[1], first + 1)
    lines = lines[first : first + _SAMPLE_LINES]
    n_titles = count_titles([_MARKS.split(line.replace('"', "").strip()) for line in lines], smiles_column)
    dialect = _sniff_lines(lines[n_titles:], source)
    if not n_titles:
        return dialect
    n_skipped = first + n_titles
    note = title_note(source, f"line {n_skipped + 1}")
    return dialect._replace(n_skipped=n_skipped, notes=(note, *dialect.notes))


def _sniff_lines(lines: list[str], source: str) -> Dialect:
    """The dialect of lines of which the first is the header."""
    header = lines[0] if lines else ""
    fits = {mark: fit for mark in _USUAL if (fit := _fit(lines, mark)) is not None}
    if fits:
        best = max(fits, key=fits.__getitem__)
        notes = [f"{source}: its cells are parted by {best!r}"] if best == "|" else []
        others = [mark for mark in _USUAL if mark != best and _parts_rows(lines[1:], mark)]
        if fits[best][0] < 0.5 and others:
            notes.append(f"{source}: the header is parted by {best!r}, but the lines below it by {others[0]!r}")
        return Dialect(best, 0, tuple(notes))
    for mark in dict.fromkeys(char for char in header if not char.isalnum() and char not in f"_{_NO_DELIMITERS}"):
        share, has_smiles, _ = _fit(lines, mark) or (0.0, False, 0)
        if has_smiles and share == 1 and len(lines) > 1:
            return Dialect(mark, 0, (f"{source}: its cells are parted by {mark!r}",))
    return Dialect(",")


def is_delimited(line: str) -> bool:
    """Whether a line has one of the usual delimiters outside the extension of a CXSMILES."""
    bare = _EXTENSION.sub("", line)
    return any(mark in bare for mark in _USUAL)


def _first_lines(start: bytes) -> list[str]:
    """Without the last, which may be cut."""
    text = start.decode("utf-8-sig", "surrogateescape")
    lines = io.StringIO(text, newline="").readlines()
    return lines[:-1] if len(lines) > 1 and not text.endswith(("\n", "\r")) else lines


def _parts_rows(lines: list[str], mark: str) -> bool:
    """Whether every line has this mark outside an extension, and all as often."""
    counts = {_EXTENSION.sub("", line).count(mark) for line in lines if line.strip()}
    return len(counts) == 1 and counts != {0}


def _fit(lines: list[str], mark: str) -> tuple[float, bool, int] | None:
    """How well `mark` parts the lines; None when it leaves the header whole.

    The share of the other lines that have as many cells as the header, whether a header cell is a name of SMILES
    columns, and the number of cells.
    """
    try:
        rows = [row for row in csv.reader(lines, delimiter=mark) if row]
        rows = rows[:-1] if len(rows) > 2 else rows  # the lines may end within its quotes
    except csv.Error:
        rows = [line.rstrip("\r\n").split(mark) for line in lines]
    width = len(rows[0]) if rows else 0
    if width < 2:
        return None
    fitting = sum(len(row) == width for row in rows[1:])
    return (fitting / len(rows[1:]) if rows[1:] else 1.0), any(map(is_smiles_name, rows[0])), width


class RowBlock(NamedTuple):
    """Consecutive records.

    cells: of each record. lines: of the file, from 1, at which each began. faults: index -> what is wrong with it.
    """

    cells: list[list[str]]
    lines: Sequence[int]
    faults: dict[int, str]


class DelimitedText:
    """The records of a source; iterating reads them, once.

    notes: lines for the user, complete when all is read.
    """

    def __init__(self, source: Source, dialect: Dialect):
        csv.field_size_limit(max(csv.field_size_limit(), MAX_LINE))
        self.notes = list(dialect.notes)
        self._source, self._delimiter, self._n_skipped = source, dialect.delimiter, dialect.n_skipped
        self._header: list[str] = []
        self._begun = False  # whether there was a row
        self._blank: list[int] = []  # blank lines that are rows if another row follows
        self._plain: list[int] = []  # lines that are read as they stand
        self._spanning: list[str] = []  # notes on cells that may have swallowed rows

    def __iter__(self) -> Iterator[RowBlock]:
        """Blocks of records, without the blank lines before the first and after the last."""
        held: list[str] = []  # lines of a record that is still open
        number, n_wanted = 1, 0
        for lines in chain(self._source.line_blocks(MAX_LINE), [None]):
            held = held + lines if lines else held
            if lines and max(map(len, lines)) >= MAX_LINE:
                raise InputError(f"{self._source.name}: a line after line {number} has {MAX_LINE:,} characters or more")
            if number <= self._n_skipped:
                number, held = self._n_skipped + 1, held[self._n_skipped :]
            if lines and len(held) < n_wanted:
                continue
            block, n_done = self._parse(held, number, at_end=not lines)
            number, held = number + n_done, held[n_done:]
            n_wanted = 2 * len(held)  # a record that is still open is not read again and again
            if block.cells and (block := self._trim(block)).cells:
                yield block
        self._tell()

    def _parse(self, lines: list[str], number: int, at_end: bool) -> tuple[RowBlock, int]:
        """The records of `lines`, of which the first has this number, and how many lines they take."""
        if '"' not in "".join(lines):
            try:
                cells = list(csv.reader(lines, delimiter=self._delimiter))
            except csv.Error:  # a NUL, for old versions of Python
                cells = []
            if len(cells) == len(lines):
                self._header = self._header or next(filter(None, cells), [])
                return RowBlock(cells, range(number, number + len(cells)), {}), len(lines)
        return self._parse_quoted(lines, number, at_end)

    def _parse_quoted(self, lines: list[str], number: int, at_end: bool) -> tuple[RowBlock, int]:
        block, starts, at = RowBlock([], [], {}), [], 0
        while at < len(lines):
            # strict: a quote out of place is an error, where it would otherwise take other rows into its cell.
            reader = csv.reader(islice(lines, at, None), delimiter=self._delimiter, strict=True)
            first, end = at, at + 1
            try:
                for cells in reader:
                    end = first + reader.line_num
                    if end > at + 1 and self._swallows(lines[at:end], cells, number + at):
                        break
                    self._header = self._header or cells
                    block.cells.append(cells)
                    starts.append(number + at)
                    at = end
                else:
                    break
            except csv.Error:
                is_open = first + reader.line_num == len(lines)
                if is_open and not at_end and sum(map(len, lines[at:])) <= MAX_RECORD:
                    break
                end = at + 1
            for line in lines[at:end]:
                self._add_plain(line, number + at, block)
                starts.append(number + at)
                at += 1
        return block._replace(lines=starts), at

    def _add_plain(self, line: str, number: int, block: RowBlock) -> None:
        """The line as it stands, its quotes plain text; else without strictness; else a row with a fault."""
        text = line.rstrip("\r\n")
        cells = text.split(self._delimiter)
        width = len(self._header) or len(cells)
        if len(cells) != width:
            with suppress(csv.Error):  # see `_parse`
                lenient = next(csv.reader([text], delimiter=self._delimiter), [])
                cells = lenient if len(lenient) == width else cells
        if len(cells) != width:
            block.faults[len(block.cells)] = f"a quote is out of place, and {len(cells)} cells for {width} columns"
        self._header = self._header or cells
        self._plain.append(number)
        block.cells.append(cells)

    def _swallows(self, lines: list[str], cells: list[str], number: int) -> bool:
        """Whether the lines of one record are rows with molecules if their quotes are plain text; if perhaps, noted."""
        width = len(self._header)
        if width < 2:
            return False
        plain = [line.rstrip("\r\n").split(self._delimiter) for line in lines]
        if all(len(row) == width for row in plain):
            columns = zip(*plain[:_LOOKED_AT], strict=True)
            if any(reads_as_smiles(column) for column in columns):
                return True
        if any(len(row) == width for row in plain[1:]):
            index = max(range(len(cells)), key=lambda i: cells[i].count("\n") + cells[i].count("\r"))
            column = self._header[index] if index < width else index + 1
            self._spanning.append(
                f"line {number}, column {column!r}: one cell spans {len(lines)} lines, some of which look like rows"
            )
        return False

    def _trim(self, block: RowBlock) -> RowBlock:
        """The block without blank lines at either end; those at its end come with the next block."""
        cells, lines, faults = block
        filled = [i for i in (0, len(cells) - 1) if cells[i]]
        if len(filled) == 2 and not self._blank:
            self._begun = True
            return block
        filled = [i for i, row in enumerate(cells) if row]
        if not filled:
            self._blank += lines if self._begun else []
            return RowBlock([], [], {})
        first, end = filled[0] if not self._begun else 0, filled[-1] + 1
        before, self._blank, self._begun = self._blank, list(lines[end:]), True
        shift = len(before) - first
        return RowBlock(
            [[] for _ in before] + cells[first:end],
            [*before, *lines[first:end]],
            {i + shift: fault for i, fault in faults.items()},
        )

    def _tell(self) -> None:
        name = self._source.name
        if self._plain:
            self.notes.append(
                f"{name}: {counted(len(self._plain), 'line')} with a quote out of place read as plain text; "
                f"the first is line {self._plain[0]:,}"
            )
        if self._spanning:
            more = f" ({len(self._spanning):,} such cells)" if len(self._spanning) > 1 else ""
            self.notes.append(f"{name}, {self._spanning[0]}{more}; is a quote out of place?")
