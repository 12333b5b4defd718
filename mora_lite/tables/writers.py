"""Tables written in a stream, in the format that the file's name asks for; whole or not at all.

Writing goes to a file beside the target, which takes the target's name only when complete. Bytes that are not UTF-8,
which readers carry as surrogates, come out of text formats unchanged; in Parquet and Excel U+FFFD is in their place.
"""

from __future__ import annotations

import gzip
import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..errors import OutputError, error_text
from ..machine.files import replacing
from .formats import Encoded, TableFormat, csv_lines, number, sdf_field
from .numbers import decimal_mark
from .parquet import from_texts, from_values, utf8, valid_texts
from .sdf import mol_block
from .source import STDIO, output_name

if TYPE_CHECKING:
    from .library import Library, TypedSmiles

ROW_GROUP = 16_384  # rows of a Parquet file that are kept until they are written
MAX_SHEET_ROWS = 2**20  # of an Excel sheet, the header included
Kinds = Sequence[Any]
Molecules = Sequence[tuple[str, str]]


class TableWriter:
    """Writes a table; use it in a `with` block.

    path: its ending decides the format; `-` is standard output. The file appears, complete, when the block ends well;
        otherwise nothing of it stays.
    columns: names. kinds: what each holds, for Parquet: None for text, a NumPy or an Arrow type.
    form: the format, if not that of `path`.
    source: the table being read, which is never replaced. molecules: whether rows have molecules, as SDF needs.

    Raises `OutputError` for an unknown ending, as `claim_output` does, and when the disk is full.
    """

    def __init__(
        self,
        path: str | Path,
        columns: Sequence[str],
        *,
        kinds: Kinds = (),
        form: TableFormat | None = None,
        source: str | Path | None = None,
        force: bool = False,
        molecules: bool = False,
    ):
        self._to_stdout = str(path) == STDIO
        self.name = output_name(path)
        self.form = form or TableFormat.of(path, molecules=molecules)
        with ExitStack() as files:
            try:
                stream = self._open(files, path, source, force)
                make = _SINKS[self.form.kind]
                self._sink = make(stream, self.form, columns, kinds or [None] * len(columns))
                files.push(self._close_sink)
            except BrokenPipeError:
                raise
            except OSError as error:
                raise OutputError(f"cannot write {self.name}: {error_text(error)}") from None
            self._files = files.pop_all()

    def _open(self, files: ExitStack, path: str | Path, source: str | Path | None, force: bool) -> Any:
        if self._to_stdout:
            sys.stdout.flush()
            return sys.stdout.buffer
        raw = files.enter_context(replacing(claim_output(path, source=source, force=force)))
        # No name and no time inside: the same table makes the same bytes.
        return files.enter_context(gzip.GzipFile("", "wb", 6, raw, mtime=0)) if self.form.packed else raw

    def write(
        self, cells: Sequence[Sequence[str]], added: Encoded | None = None, molecules: Molecules | None = None
    ) -> None:
        """Append `B` rows.

        cells: a row's texts, of the first columns. added: the other columns, by `TableFormat.encode`; None where the
        cells are all. molecules: for SDF a name for each row, and a mol block or a SMILES.
        """
        try:
            self._sink.write(cells, added, molecules)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(f"cannot write {self.name}: {error_text(error)}") from None

    def __enter__(self) -> TableWriter:
        return self

    def _close_sink(self, kind: type[BaseException] | None, *_: Any) -> None:
        if kind is None:
            self._sink.close()
        else:
            with suppress(Exception):  # nothing of it stays; it may only not complain later that it was not closed
                self._sink.abort()
        if kind is None and self._to_stdout:
            sys.stdout.buffer.flush()

    def __exit__(self, kind: type[BaseException] | None, *error: Any) -> None:
        try:
            self._files.__exit__(kind, *error)
        except BrokenPipeError:
            raise
        except OSError as problem:
            if kind is None:  # else the disk is full again, and the first error is the one to report
                raise OutputError(f"cannot write {self.name}: {error_text(problem)}") from None


def continued(
    target: str | Path,
    library: Library | TypedSmiles,
    cells: Sequence[Sequence[str]],
    on_note: Callable[[str], None] = lambda note: None,
) -> TableFormat:
    """The format of the file `target`, which goes on as its input has begun: with its delimiter and its marks.

    cells: the first rows of `library`, which show the decimal mark. on_note: called with each line for the user.
    Raises `OutputError` as `TableFormat.of`.
    """
    decimal, shown = ".", -1
    if library.delimiter not in ("", ","):  # who has semicolons needs commas for decimals
        decimal, shown = decimal_mark(cells, pairs=library.delimiter != ";")
    mark = library.delimiter
    if mark == "\t" and not any(file == STDIO or ".csv" in Path(file.lower()).suffixes for file in library.files):
        mark = ";" if decimal == "," else ","  # tabs in a file that is called .csv are for an input that is so too
    form = TableFormat.of(target).like(mark, library.bom, decimal or ".")
    if decimal == "," and form.kind == "csv":
        on_note(f"numbers are written with a decimal comma, as column {library.columns[shown]!r} has them")
    if not decimal and library.delimiter == ";" and form.kind == "csv":
        on_note(
            "numbers are written with a decimal point, as those of the input do not show which mark they have; for a "
            "spreadsheet with decimal commas write -o NAME.xlsx"
        )
    return form


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


def claim_table(
    path: str | Path, *, source: str | Path | None = None, force: bool = False, molecules: bool = False
) -> None:
    """Raise `OutputError` before the work where a `TableWriter` would: `claim_output`, and the format by the ending."""
    TableFormat.of(path, molecules=molecules)
    if str(path) != STDIO:
        claim_output(path, source=source, force=force)


class _Sink(Protocol):
    """What writes one format."""

    def write(self, cells: Sequence[Sequence[str]], added: Encoded | None, molecules: Molecules | None) -> None: ...
    def close(self) -> None: ...
    def abort(self) -> None: ...


class _CsvSink:
    def __init__(self, stream: Any, form: TableFormat, columns: Sequence[str], kinds: Kinds):
        self._stream, self._delimiter = stream, form.delimiter
        header = csv_lines([columns], form.delimiter)[0]
        stream.write(b"\xef\xbb\xbf" * form.bom + f"{header}\n".encode("utf-8", "surrogateescape"))

    def write(self, cells: Sequence[Sequence[str]], added: Encoded | None, molecules: object) -> None:
        if added is None:
            lines = csv_lines(cells, self._delimiter)
        else:  # one more cell, that is blank, is the delimiter at the end
            heads = csv_lines([[*row, ""] for row in cells], self._delimiter)
            lines = [f"{head}{tail}" for head, tail in zip(heads, added, strict=True)]
        self._stream.write("".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape"))

    def close(self) -> None:
        """Nothing waits to be written."""

    abort = close


class _SdfSink:
    def __init__(self, stream: Any, form: TableFormat, columns: Sequence[str], kinds: Kinds):
        self._stream, self._columns = stream, list(columns)

    def write(self, cells: Sequence[Sequence[str]], added: Encoded | None, molecules: Molecules | None) -> None:
        assert molecules is not None
        tails = [""] * len(cells) if added is None else added
        records = [
            f"{mol_block(name, molecule)}{''.join(map(sdf_field, self._columns, row))}{tail}$$$$\n"
            for (name, molecule), row, tail in zip(molecules, cells, tails, strict=True)
        ]
        self._stream.write("".join(records).encode("utf-8", "surrogateescape"))

    def close(self) -> None:
        """Nothing waits to be written."""

    abort = close


class _ParquetSink:
    def __init__(self, stream: Any, form: TableFormat, columns: Sequence[str], kinds: Kinds):
        import pyarrow as pa
        from pyarrow import parquet

        self._schema = pa.schema(list(zip(map(utf8, columns), map(_arrow_type, kinds), strict=True)))
        self._writer = parquet.ParquetWriter(stream, self._schema, compression="zstd")
        self._waiting: list[Any] = []

    def write(self, cells: Sequence[Sequence[str]], added: Encoded | None, molecules: object) -> None:
        import pyarrow as pa

        columns: list[Any] = [from_texts(column) for column in zip(*cells, strict=True)]
        for value in added or ():
            columns.append(from_values(*value) if isinstance(value, tuple) else from_texts(value))
        if not cells:
            return
        fields = self._schema.types
        arrays = [_cast(column, kind) for column, kind in zip(columns, fields, strict=True)]
        self._waiting.append(valid_texts(pa.RecordBatch.from_arrays(arrays, schema=self._schema)))
        if sum(map(len, self._waiting)) >= ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._waiting:
            self._writer.write_table(pa.Table.from_batches(self._waiting))
            self._waiting = []

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def abort(self) -> None:
        self._writer.close()


def _arrow_type(kind: Any) -> Any:
    """The type of a column in Parquet. Input of a type that text cannot be turned into again becomes text."""
    import pyarrow as pa

    if kind is None:
        return pa.string()
    if not isinstance(kind, pa.DataType):
        return pa.string() if kind.kind == "O" else pa.from_numpy_dtype(kind)
    tests = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_decimal, pa.types.is_date32)
    return kind if any(test(kind) for test in tests) else pa.string()


def _cast(column: Any, kind: Any) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    if column.type == kind:
        return column
    try:
        return pc.if_else(pc.equal(column, ""), None, column).cast(kind)
    except pa.ArrowInvalid as error:
        raise OutputError(f"a cell is no {kind} any more ({error_text(error)}); write .csv instead") from None


class _XlsxSink:
    def __init__(self, stream: Any, form: TableFormat, columns: Sequence[str], kinds: Kinds):
        from openpyxl import Workbook

        self._stream, self._book, self._decimal = stream, Workbook(write_only=True), form.decimal
        self._sheet = self._book.create_sheet("predictions")
        self._sheet.freeze_panes = "A2"
        self._n_rows = 0
        self._append([list(columns)])

    def write(self, cells: Sequence[Sequence[str]], added: Encoded | None, molecules: object) -> None:
        columns: list[Sequence[Any]] = [
            [_sheet_value(cell, self._decimal) for cell in column] for column in zip(*cells, strict=True)
        ]
        for value in added or ():
            columns.append(_sheet_values(*value) if isinstance(value, tuple) else value)
        self._append(list(zip(*columns, strict=True)))

    def _append(self, rows: Sequence[Sequence[Any]]) -> None:
        self._n_rows += len(rows)
        if self._n_rows > MAX_SHEET_ROWS:
            raise OutputError(f"a sheet of Excel ends at row {MAX_SHEET_ROWS:,}; write .csv or .parquet instead")
        for row in rows:
            self._sheet.append([self._text_cell(value) if isinstance(value, str) else value for value in row])

    def _text_cell(self, text: str) -> Any:
        """A cell of text, never a formula."""
        from openpyxl.cell import WriteOnlyCell

        clean = _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)  # openpyxl cuts it after 32,767 characters
        if not clean:
            return None
        if clean[0] != "=":
            return clean
        cell = WriteOnlyCell(self._sheet, clean)
        cell.data_type = "s"
        return cell

    def close(self) -> None:
        self._book.save(self._stream)

    def abort(self) -> None:
        self._sheet.close()


_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")  # XML has none of these
_NUMERAL = re.compile(r"-?(0|[1-9]\d{0,14})(\.\d+)?")


def _sheet_value(text: str, decimal: str = ".") -> Any:
    """A cell that was read: a number where it reads back as the same text, else the text."""
    if decimal == ",":
        value = _sheet_value(text.replace(",", ".")) if "." not in text else text
        return text if isinstance(value, str) else value
    if not _NUMERAL.fullmatch(text) or text == "-0":
        return text
    if "." not in text:
        return int(text)
    value = float(text)
    return value if repr(value) == text and not value.is_integer() else text


def _sheet_values(column: np.ndarray, ok: np.ndarray) -> list[Any]:
    """Values of one column; Excel has no infinity, so it is a word there."""
    cells = [cell if good else None for cell, good in zip(column.tolist(), ok.tolist(), strict=True)]
    if column.dtype.kind != "f":
        return cells
    numbers: list[Any] = []
    for cell in cells:
        if cell is None or np.isnan(cell):
            numbers.append(None)
        else:
            numbers.append(number(cell) if np.isfinite(cell) else str(cell))
    return numbers


# Each is made with an open stream, the format, the columns and what they hold.
_MakeSink = Callable[[Any, TableFormat, Sequence[str], Kinds], _Sink]
_SINKS: dict[str, _MakeSink] = {"csv": _CsvSink, "sdf": _SdfSink, "parquet": _ParquetSink, "xlsx": _XlsxSink}
