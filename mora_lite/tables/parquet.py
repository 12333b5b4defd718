"""Molecules in the rows of a Parquet file, read a piece at a time; only the needed columns, or all as text."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import repeat
from typing import Any

import numpy as np

from ..errors import InputError, error_text
from .columns import SAMPLE_ROWS, ColumnChoice, WantedColumns, choose_name_column, choose_smiles_column, note_others
from .records import Record, RecordBlock, strip_text
from .source import PARQUET, first_bytes

READ_ROWS = 4096  # that are Python objects at a time
READ_BYTES = 2**20  # of a column; without a size pyarrow reads the column of a whole row group


def is_parquet(path: str) -> bool:
    """By its name or its first bytes; standard input never is, for Parquet is read from the end."""
    return first_bytes(path) == PARQUET or (path.lower().endswith(".parquet") and os.path.isfile(path))


class ParquetSource:
    """An open Parquet file, used like a `Source`; how much of it was read is known by rows only.

    columns, types: of the file, in order. smiles_index: which of them holds the SMILES, from 0. notes: for the user.
    """

    bom = False

    def __init__(self, path: str, wanted: WantedColumns):
        """Raises `InputError` when it is no Parquet file, or when no column or several can be the SMILES column."""
        import pyarrow.parquet as pq

        self.name = path
        self.rows_read = 0
        with parquet_errors(path):
            self.bytes_total = os.path.getsize(path)
            self.file = pq.ParquetFile(path, buffer_size=READ_BYTES)
        self._schema = self.file.schema_arrow
        self.columns: list[str] = self._schema.names
        self.types: list[Any] = self._schema.types
        self.notes: list[str] = []
        try:
            self._smiles, self._label = self._choose(wanted)
            self.smiles_index = self.columns.index(self._smiles)
        except BaseException:
            self.close()
            raise

    @property
    def bytes_read(self) -> int:
        return self.bytes_total * self.rows_read // max(self.file.metadata.num_rows, 1)

    def blocks(self, with_cells: bool = False) -> Iterator[RecordBlock]:
        """The rows in order; with the text of every column if `with_cells`."""
        columns = None if with_cells else [self._smiles, *([self._label] if self._label is not None else [])]
        with parquet_errors(self.name, lambda: self.rows_read):
            for batch in self.file.iter_batches(READ_ROWS, columns=columns, use_threads=False):
                texts = map(strip_text, to_texts(batch.column(self._smiles)))
                labels = repeat("") if self._label is None else map(str.strip, to_texts(batch.column(self._label)))
                records = list(map(Record, labels, texts, repeat("", len(batch))))
                cells = list(zip(*map(to_texts, batch.columns), strict=True)) if with_cells else ()
                first = self.rows_read + 1
                self.rows_read += len(batch)
                yield RecordBlock(records, cells, range(first, first + len(records)))

    def close(self) -> None:
        self.file.close()

    def _choose(self, wanted: WantedColumns) -> tuple[str, str | None]:
        """The columns of SMILES and of names."""
        choice = choose_smiles_column(self.columns, self._head(), wanted, self.name)
        smiles = self.columns[choice.smiles_index]
        self.notes += [] if wanted.of_table is not None else note_others(self.columns, choice.smiles_index)
        label_index = choose_name_column(ColumnChoice(self.columns, choice.smiles_index), wanted, self.name)
        label = None if label_index is None else self.columns[label_index]
        for column in (smiles, label):
            if column is not None and self.columns.count(column) > 1:
                raise InputError(f"{self.name}: several columns are called {column!r}: give each a name of its own")
        if not self._is_text(smiles):
            raise InputError(f"{self.name}: column {smiles!r} holds {self._schema.field(smiles).type}, not SMILES")
        if label is not None and self._schema.field(label).type.num_fields:
            raise InputError(f"{self.name}: column {label!r} holds {self._schema.field(label).type}, not names")
        return smiles, label

    def _head(self) -> list[list[str]]:
        """The first rows, to recognise the SMILES column; cells of columns without text are empty."""
        texts = [name for name in self.columns if self._is_text(name)]
        with parquet_errors(self.name):
            batches = self.file.iter_batches(SAMPLE_ROWS, columns=texts, use_threads=False)
            batch = next(batches, None) if texts else None
        if batch is None:
            return []
        cells = [to_texts(batch.column(name)) if name in texts else [""] * len(batch) for name in self.columns]
        return [list(row) for row in zip(*cells, strict=True)]

    def _is_text(self, name: str) -> bool:
        import pyarrow.types as kinds

        if self.columns.count(name) != 1:
            return False
        kind = self._schema.field(name).type
        kind = kind.value_type if kinds.is_dictionary(kind) else kind
        tests = (kinds.is_string, kinds.is_large_string, kinds.is_binary, kinds.is_large_binary)
        return any(test(kind) for test in tests) or _is_view(kind)


def _is_view(kind: Any) -> bool:
    return str(kind) in ("string_view", "binary_view")  # older versions of pyarrow have no test for it


@contextmanager
def parquet_errors(path: str, row: Callable[[], int] = lambda: 0) -> Iterator[None]:
    """Turn what pyarrow raises into an `InputError` with the file and, from `row`, the number of rows read before."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} cannot be read as Parquet after {row():,} rows: {error_text(error)}") from None


def to_texts(column: Any) -> list[str]:
    """A column as text: null is empty, bytes that are not UTF-8 are surrogates, what is nested is JSON."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if column.type == pa.uuid():
        return ["" if cell is None else str(cell) for cell in column.to_pylist()]
    if isinstance(column.type, pa.BaseExtensionType):
        column = column.storage
    if pa.types.is_fixed_size_binary(column.type):
        column = column.cast(pa.binary())
    if column.type.num_fields:
        return ["" if cell is None else json.dumps(cell, default=str) for cell in column.to_pylist()]
    if _is_view(column.type):
        cells = column.to_pylist()
        return ["" if c is None else c if isinstance(c, str) else c.decode("utf-8", "surrogateescape") for c in cells]
    if not (pa.types.is_large_binary(column.type) or pa.types.is_binary(column.type)):
        column = column.cast(pa.large_string()).cast(pa.large_binary())
    return ["" if cell is None else cell.decode("utf-8", "surrogateescape") for cell in column.to_pylist()]


def utf8(text: str) -> str:
    """A text as Arrow has to have names, and Parquet all texts: with U+FFFD for bytes that are not UTF-8."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def valid_texts(batch: Any) -> Any:
    """A record batch as Parquet may hold it: with U+FFFD in its texts for bytes that are not UTF-8."""
    import pyarrow as pa

    try:
        batch.validate(full=True)
        return batch
    except pa.ArrowInvalid:
        columns = list(batch.columns)
    for i, column in enumerate(columns):
        if pa.types.is_string(column.type):
            cells = column.view(pa.binary()).to_pylist()
            columns[i] = pa.array([None if c is None else c.decode("utf-8", "replace") for c in cells], pa.string())
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


def from_values(column: np.ndarray, ok: np.ndarray) -> Any:
    """Numbers, flags or texts `[B]` as Arrow has them: null for NaN, and where `ok`, bool `[B]`, is not set."""
    import pyarrow as pa

    if column.dtype == object:
        return pa.array(column, pa.string(), mask=~ok)
    return pa.array(column, mask=~ok | np.isnan(column) if column.dtype.kind == "f" else ~ok)


def from_texts(texts: Sequence[str], large: bool = False) -> Any:
    """The inverse of `to_texts` for a column of text: bytes that are not UTF-8 are kept.

    large: for more than 2 GiB of them.
    """
    import pyarrow as pa

    text_type, byte_type = (pa.large_string(), pa.large_binary()) if large else (pa.string(), pa.binary())
    try:
        if texts and texts.count(texts[0]) == len(texts):  # a status; the rest needs the interpreter for each text
            return pa.repeat(pa.scalar(texts[0], text_type), len(texts))
        return pa.array(texts, text_type)
    except UnicodeEncodeError:  # a view, because a cast would refuse those bytes
        return pa.array([text.encode("utf-8", "surrogateescape") for text in texts], byte_type).view(text_type)
