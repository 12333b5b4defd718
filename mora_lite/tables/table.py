"""Tables of molecules: read in a stream, written in a stream, nothing lost.

Reading keeps the text of every cell as it is, in constant memory: comma, tab, semicolon or bar, plain, gzip or zstd,
UTF-8 or UTF-16, any line ends, and the first sheet of an Excel workbook. Bytes that are not UTF-8 are carried as
surrogates and written back unchanged. One record of the file is one row: also a short one (padded with empty cells), a
blank line between others (all cells empty; blank lines at the end of the file are not rows) and one with
too many cells (`Row.fault` says so and lists them).

Writing goes to a file beside the target, which takes the target's name only when complete.
"""

from __future__ import annotations

import csv
import gzip
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import InputError, OutputError, error_text
from ..machine.files import replacing
from .columns import SAMPLE_ROWS, choose_smiles_column
from .delimited import DelimitedText, RowBlock, sniff_dialect
from .source import STDIO, Source
from .workbook import Workbook, is_workbook


class Row(NamedTuple):
    """One record. cells: one text for each column. fault: empty, or why the row must not be scored."""

    cells: list[str]
    fault: str


class Table:
    """An open table. Made by `open_table`; its rows can be read once, with `blocks` or `chunks`.

    columns: names. smiles_index: which of them holds the SMILES, from 0.
    notes: lines for the user; complete when all rows are read. source: has `bytes_total`, `bytes_read` and `close`.
    """

    def __init__(self, source: Source | Workbook, smiles_column: str | None):
        """Raises `InputError` when there is no row, or no column or several can be the SMILES column."""
        self.name, self.source = source.name, source
        self.delimiter = ""
        self._records: DelimitedText | Workbook
        if isinstance(source, Workbook):
            self._records = source
        else:
            dialect = sniff_dialect(source.start, source.name)
            self.delimiter = dialect.delimiter
            self._records = DelimitedText(source, dialect)
        blocks, head = iter(self._records), []
        for block in blocks:
            head.append(block)
            if sum(len(block.cells) for block in head) > SAMPLE_ROWS:
                break
        if not head:
            raise InputError(f"{source.name} is empty: a header with a SMILES column is needed")
        rows = [cells for block in head for cells in block.cells][: SAMPLE_ROWS + 1]
        choice = choose_smiles_column(rows[0], rows[1:], smiles_column, source.name)
        self.columns, self.smiles_index = choice.columns, choice.smiles_index
        self._own_notes = choice.notes
        if choice.has_header:
            first = head[0]
            faults = {i - 1: fault for i, fault in first.faults.items() if i}
            head[0] = RowBlock(first.cells[1:], first.lines[1:], faults)
        self._blocks = chain(head, blocks)

    @property
    def notes(self) -> list[str]:
        return [*self._own_notes, *self._records.notes]

    @property
    def bytes_total(self) -> int | None:
        """Size of the file on disk; None for a pipe."""
        return self.source.bytes_total

    @property
    def bytes_read(self) -> int:
        """How much of the file on disk was read, for a progress bar."""
        return self.source.bytes_read

    def blocks(self) -> Iterator[RowBlock]:
        """Rows in the file's order, each with as many cells as there are columns, some hundreds at a time."""
        width = len(self.columns)
        for block in self._blocks:
            cells = block.cells
            if set(map(len, cells)) - {width}:
                rows = [_fit(row, width) for row in cells]
                faults = {i: row.fault for i, row in enumerate(rows) if row.fault} | block.faults
                yield RowBlock([row.cells for row in rows], block.lines, faults)
            elif cells:
                yield block

    def chunks(self, n_rows: int) -> Iterator[list[Row]]:
        """Lists of `n_rows` rows in the file's order; the last may be shorter."""
        rows = (Row(cells, block.faults.get(i, "")) for block in self.blocks() for i, cells in enumerate(block.cells))
        while chunk := list(islice(rows, n_rows)):
            yield chunk

    def close(self) -> None:
        self.source.close()

    def __enter__(self) -> Table:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_table(path: str | Path, smiles_column: str | None = None) -> Table:
    """Open a CSV file (`-` is standard input) or a workbook and find its SMILES column: by name, else by content.

    smiles_column: a column's name, or its number counted from 1.

    Raises `InputError` when the file is missing, empty, not a table, or no column or several can be the SMILES column.
    """
    return read_table(Workbook(str(path)) if is_workbook(str(path)) else Source(path), smiles_column)


def read_table(source: Source | Workbook, smiles_column: str | None = None) -> Table:
    """`open_table` for a file that is open already."""
    try:
        return Table(source, smiles_column)
    except BaseException:
        source.close()
        raise


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
    if all(cell.isdecimal() for cell in extra):
        fault += "; is a decimal comma among them?"
    return Row(cells[:width], fault)


def format_cells(cells: Sequence[str]) -> str:
    """`cells` as one CSV record without the line end."""
    lines = _Lines(",")
    lines.writer.writerow(cells)
    return "".join(lines.take())[:-1]


class _Lines:
    """What `csv.writer` writes to: one call for each record.

    The writer is told that lines end in CR LF, for then it quotes cells with either of the two; the line end
    written is LF.
    """

    def __init__(self, delimiter: str):
        self.writer = csv.writer(self, delimiter=delimiter, lineterminator="\r\n")
        self._lines: list[str] = []

    def write(self, line: str) -> None:
        self._lines.append(line[:-2] + "\n")

    def take(self) -> list[str]:
        lines, self._lines = self._lines, []
        return lines


def default_output(path: str | Path, kind: str = "predictions") -> str:
    """Where results go: `x.csv` -> `x.predictions.csv`, `x.csv.gz` -> `x.predictions.csv.gz`."""
    if str(path) == STDIO:
        return STDIO
    path = Path(path)
    packed = ".gz" if path.suffix.lower() == ".gz" else ""
    stem = path.with_suffix("") if path.suffix.lower() in (".gz", ".zst") else path
    return str(stem.with_name(f"{stem.stem}.{kind}.csv{packed}"))


def claim_output(path: str | Path, *, source: str | Path | None = None, force: bool = False) -> Path:
    """The file that `path` leads to, if it can be written. Raises `OutputError` when it exists (without
    `force`), is the table being read, or its directory is missing or read-only. Creates nothing.
    """
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise OutputError(f"{path} is a directory: name a file in it")
    if target.exists():
        if source is not None and Path(source).exists() and os.path.samefile(target, source):
            raise OutputError(f"{path} is the table being read: choose another output")
        if target.is_file() and not force:
            raise OutputError(f"{path} exists: use --force to replace it, or -o for another name")
    if not target.parent.is_dir():
        raise OutputError(f"no such directory: {target.parent}")
    if target.exists() and not target.is_file():
        return target
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write in {target.parent}: permission denied")
    return target


class TableWriter:
    """Writes a table record by record; use it in a `with` block.

    path: `.gz` is packed, `.tsv` has tabs, `-` is standard output. The file appears, complete, when the block
    ends well; otherwise nothing of it stays. Raises `OutputError` as `claim_output` does, and when the disk
    is full.
    """

    def __init__(
        self,
        path: str | Path,
        columns: Sequence[str],
        *,
        source: str | Path | None = None,
        force: bool = False,
    ):
        self._to_stdout = str(path) == STDIO
        self.name = "standard output" if self._to_stdout else str(path)
        suffixes = [suffix.lower() for suffix in Path(path).suffixes]
        self._lines = _Lines("\t" if suffixes[-2:] in ([".tsv"], [".tsv", ".gz"]) or suffixes[-1:] == [".tsv"] else ",")
        with ExitStack() as files:
            try:
                self._sink = self._open(files, path, source, force, packed=suffixes[-1:] == [".gz"])
            except OSError as error:
                raise OutputError(f"cannot write {self.name}: {error_text(error)}") from None
            self.write([columns])
            self._files = files.pop_all()

    def _open(self, files: ExitStack, path: str | Path, source: str | Path | None, force: bool, packed: bool) -> Any:
        if self._to_stdout:
            sys.stdout.flush()
            return sys.stdout.buffer
        target = claim_output(path, source=source, force=force)
        if target.exists() and not target.is_file():  # a device or a named pipe: nothing to rename
            raw: Any = files.enter_context(target.open("wb"))
        else:
            raw = files.enter_context(replacing(target))
        # No name and no time inside: the same table makes the same bytes.
        return files.enter_context(gzip.GzipFile("", "wb", 6, raw, mtime=0)) if packed else raw

    def write(self, records: Iterable[Sequence[str]]) -> None:
        self._lines.writer.writerows(records)
        data = "".join(self._lines.take()).encode("utf-8", "surrogateescape")
        try:
            self._sink.write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(f"cannot write {self.name}: {error_text(error)}") from None

    def __enter__(self) -> TableWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: Any) -> None:
        try:
            if kind is None and self._to_stdout:
                self._sink.flush()
            self._files.__exit__(kind, *error)
        except BrokenPipeError:
            raise
        except OSError as problem:
            if kind is None:  # else the disk is full again, and the first error is the one to report
                raise OutputError(f"cannot write {self.name}: {error_text(problem)}") from None


def add_columns(columns: Sequence[str], names: Iterable[str]) -> list[str]:
    """`columns` as they are, then `names`, changed where they are taken."""
    out = list(columns)
    for name in names:
        free, n = name, 1
        while free in out:
            free = f"{name} (mora-lite)" if n == 1 else f"{name} (mora-lite {n})"
            n += 1
        out.append(free)
    return out
