"""Excel workbooks (.xlsx): the rows of one sheet, every cell as text."""

from __future__ import annotations

import datetime
import os
import re
import zipfile
from collections.abc import Iterator
from decimal import Decimal
from itertools import chain, islice
from typing import Any

from ..errors import DeviceError, InputError, error_text
from .columns import SAMPLE_ROWS, count_titles, is_smiles_name, plain_name, reads_as_smiles
from .delimited import RowBlock
from .source import ZIP, first_bytes

_BLOCK_ROWS = 1024
_MAX_ROWS = 2**20  # that Excel numbers; a larger number would make blank rows up to it
_ZEROS = re.compile("0{2,15}")  # a format of numbers
_LITERAL = re.compile(r'"[^"]*"|\\.')  # what a format shows as it stands
_PERCENTS = (9, 10)  # numbers of the formats 0% and 0.00%, which every workbook has
MAX_BYTES = 2**31  # unpacked, of one sheet: beyond it the archive is damaged or made to harm


def is_workbook(path: str) -> bool:
    """By its name or its first bytes; standard input never is, for a workbook is read from the end."""
    return first_bytes(path) == ZIP and (path.lower().endswith((".xlsx", ".xlsm")) or _has_sheets(path))


def _has_sheets(path: str) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return "xl/workbook.xml" in archive.namelist()
    except (zipfile.BadZipFile, OSError):
        return False


class Workbook:
    """An open workbook, used like a `Source`; iterating reads the rows of one sheet, once.

    The sheet is the one that the user names, the first with a column of molecules, or else the first.

    smiles_column: that the user names, without the sheet before it. notes: lines for the user. bytes_total: size of
    the file on disk.
    """

    bom = False

    def __init__(self, path: str, smiles_column: str | None = None):
        """smiles_column: `SHEET!COLUMN`, as spreadsheets refer to cells, or the one or the other (`SHEET!`).

        Raises `DeviceError` when openpyxl is not installed, `InputError` when the file is damaged.
        """
        try:
            import openpyxl
        except ImportError:
            raise DeviceError(
                f"{path} is an Excel file, which needs openpyxl: pip install 'mora-lite[xlsx]', or save it as CSV"
            ) from None
        self.name = path
        self.bytes_total = os.path.getsize(path)
        self._rows_read = 0
        self._file = open(path, "rb")  # noqa: SIM115 - a name with another ending would be refused
        try:
            with zipfile.ZipFile(self._file) as archive:
                largest = max((entry.file_size for entry in archive.infolist()), default=0)
            if largest > MAX_BYTES:
                raise InputError(f"{path}: a part of it unpacks to {largest:,} bytes; save it as CSV")
            self._book = openpyxl.load_workbook(self._file, read_only=True, data_only=True)
        except Exception as error:  # openpyxl has no base class for what a damaged file makes it raise
            self._file.close()
            if isinstance(error, (InputError, MemoryError)):
                raise
            raise InputError(f"{path} cannot be read as an Excel file: {error_text(error)}") from None
        sheets = self._book.worksheets
        sizes = {sheet.title: sheet.max_row or 1 for sheet in sheets}
        for sheet in sheets:  # what programs write of the size is often wrong, and openpyxl would stop there
            sheet.reset_dimensions()
        named, _, column = (smiles_column or "").rpartition("!")
        of_name = [sheet for sheet in sheets if named and plain_name(sheet.title) == plain_name(named)]
        self.smiles_column = column or None if of_name else smiles_column
        with_molecules = filter(_has_molecules, sheets) if len(sheets) > 1 else iter(())
        self._sheet = next(chain(of_name, with_molecules, sheets), None)
        self._n_rows = sizes[self._sheet.title] if self._sheet is not None else 1  # as the file says; for progress
        self.notes = []
        others = [sheet.title for sheet in sheets if sheet is not self._sheet]
        if self._sheet is not None and others:
            if not of_name:
                named = ", ".join(map(repr, others[:5]))
                choose = f"--smiles-column '{others[0]}!' reads {'that' if len(others) == 1 else 'the first of these'}"
                self.notes.append(f"{path}: sheet {self._sheet.title!r} is read, not {named}: {choose}")
            self.name = f"{path}, sheet {self._sheet.title!r} (one of {len(sheets)})"  # in errors

    @property
    def bytes_read(self) -> int:
        return self.bytes_total * min(self._rows_read, self._n_rows) // self._n_rows

    def __iter__(self) -> Iterator[RowBlock]:
        """Blocks of rows, without the blank ones before the first and after the last."""
        cells: list[list[str]] = []
        lines: list[int] = []
        blank: list[int] = []
        begun = False
        for number, texts in enumerate(self._rows(), start=1):
            self._rows_read = number
            if number > _MAX_ROWS:
                raise InputError(f"{self.name} has a row beyond {_MAX_ROWS:,}, where sheets end: save it as CSV")
            while texts and not texts[-1]:
                del texts[-1]
            if not texts:
                blank += [number] if begun else []
                continue
            begun = True
            cells += [[] for _ in blank] + [texts]
            lines += [*blank, number]
            blank = []
            if len(cells) >= _BLOCK_ROWS:
                yield RowBlock(cells, lines, {})
                cells, lines = [], []
        if cells:
            yield RowBlock(cells, lines, {})

    def _rows(self) -> Iterator[list[str]]:
        if self._sheet is None:
            return
        try:
            values_only = not self._has_formats()  # objects of all cells take long
            text = _text if values_only else _cell_text
            for row in self._sheet.iter_rows(values_only=values_only):
                yield [text(cell) for cell in row]
        except Exception as error:  # see above
            raise InputError(f"{self.name} is damaged after row {self._rows_read:,}: {error_text(error)}") from None

    def _has_formats(self) -> bool:
        """Whether the workbook knows a format that `_cell_text` looks for."""
        own, styles = (getattr(self._book, name, None) for name in ("_number_formats", "_cell_styles"))
        if own is None or styles is None:
            return True
        return any(_ZEROS.fullmatch(form) or _is_percent(form) for form in own) or any(
            style.numFmtId in _PERCENTS for style in styles
        )

    def close(self) -> None:
        self._book.close()
        self._file.close()


def _has_molecules(sheet: Any) -> bool:
    """Whether a column of the sheet has a typical name or reads as SMILES, by its first rows."""
    try:
        rows = [[_text(value) for value in row] for row in islice(sheet.iter_rows(values_only=True), SAMPLE_ROWS)]
    except Exception:  # of a damaged sheet; it is told where that sheet is read
        return False
    rows = [row for row in rows if any(row)]
    header, *below = rows[count_titles(rows) :] or [[]]
    columns = ([row[i] for row in below if i < len(row)] for i in range(len(header)))
    return any(is_smiles_name(name) or reads_as_smiles(cells) for name, cells in zip(header, columns, strict=True))


def _cell_text(cell: Any) -> str:
    """As `_text`, a whole number with the zeros before it that its format has, as of compounds (`000123`), and a share
    as the percentage that is shown (`95%`).
    """
    text = _text(cell.value)
    if not isinstance(cell.value, int | float) or isinstance(cell.value, bool):
        return text
    if _is_percent(cell.number_format):
        return f"{_text(float(Decimal(repr(cell.value)) * 100))}%"
    if text.isdecimal() and _ZEROS.fullmatch(cell.number_format):
        return text.zfill(len(cell.number_format))
    return text


def _is_percent(form: str) -> bool:
    return "%" in _LITERAL.sub("", form)


def _text(value: Any) -> str:
    """A cell as a spreadsheet shows it, in full precision."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, datetime.datetime) and value.time() == datetime.time():
        return value.date().isoformat()
    return str(value)
