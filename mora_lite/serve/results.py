"""The results of a table: a file of Arrow that is read where it lies, so that a page of it costs no memory.

Rows are as `mora-lite predict` writes them: every column of the input as text, then values, status and error.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import InputError, did_you_mean
from ..scoring.tasks import Task
from ..screening.expression import CONDITION, parse_expression
from ..status import OK
from ..tables.formats import TableFormat, add_columns, number, rounded
from ..tables.parquet import from_texts, from_values, to_texts
from ..tables.records import Record
from ..tables.sdf import drawn_text
from ..tables.writers import TableWriter

STATUS, ERROR, SMILES, NAME, TEXT = "status", "error", "smiles", "name", "text"
BLOCK_ROWS, SDF_ROWS = 1024, 64  # of a download, written at a time; RDKit takes milliseconds for a row of SDF
KEPT_ORDERS = 4  # of one table, each 8 bytes a row


class ResultWriter:
    """Writes rows as they are scored. Use it in a `with` block.

    columns: of the input. kinds: name -> NumPy's type of each column of values.
    """

    def __init__(self, path: Path, columns: Sequence[str], kinds: dict[str, Any]):
        self._n_columns = len(columns)
        texts = [*(_cells(i) for i in range(len(columns))), SMILES, NAME, TEXT]
        values = [_value(name) for name in kinds]
        types = [pa.string() if kind.kind == "O" else pa.from_numpy_dtype(kind) for kind in kinds.values()]
        fields = [(name, pa.string()) for name in texts] + list(zip(values, types, strict=True))
        self._schema = pa.schema([*fields, (STATUS, pa.string()), (ERROR, pa.string())])
        self._sink = pa.OSFile(str(path), "wb")
        self._file = pa.ipc.new_file(self._sink, self._schema)

    def write(
        self,
        cells: Sequence[Sequence[str]],
        records: Sequence[Record],
        smiles: Sequence[str],
        values: dict[str, np.ndarray],
        status: Sequence[str],
        error: Sequence[str],
    ) -> int:
        """Append `B` rows; returns the bytes that are written so far.

        values: name -> float32, bool or text `[B]`, as `Scores.columns` gives them.
        """
        ok = np.array([word == OK for word in status], dtype=bool)
        columns = list(zip(*cells, strict=True)) if cells else [()] * self._n_columns
        arrays = [from_texts(column) for column in columns]
        arrays += [from_texts(texts) for texts in (smiles, [r.name for r in records], [r.text for r in records])]
        arrays += [from_values(rounded(column), ok) for column in values.values()]
        arrays += [from_texts(status), from_texts(error)]
        self._file.write_batch(pa.RecordBatch.from_arrays(arrays, schema=self._schema))
        return int(self._sink.tell())

    def __enter__(self) -> ResultWriter:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._file.close()
        finally:
            self._sink.close()


@dataclass(frozen=True)
class View:
    """Which rows are asked for, and in which order.

    where: a condition as of `mora-lite screen --where`; empty for all. sort: a column; empty for the file's order.
    """

    where: str = ""
    sort: str = ""
    descending: bool = False


@dataclass(frozen=True)
class Results:
    """The rows of a finished table. Made by `open`.

    columns: of the input. kinds: name -> NumPy's type of each column of values, as `Scores.columns` has them.
    form: as which rows are written as text.
    """

    columns: list[str]
    smiles_index: int
    tasks: tuple[Task, ...]
    kinds: dict[str, Any]
    form: TableFormat
    table: pa.Table
    _orders: dict[View, np.ndarray] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @classmethod
    def open(
        cls,
        path: Path,
        columns: Sequence[str],
        smiles_index: int,
        tasks: tuple[Task, ...],
        kinds: dict[str, Any],
        form: TableFormat,
    ) -> Results:
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        return cls(list(columns), smiles_index, tasks, kinds, form, table)

    def order(self, view: View) -> np.ndarray:
        """The numbers of the rows, from 0, that `view` shows, in its order: int64. Raises `InputError`."""
        with self._lock:
            if view not in self._orders:
                while len(self._orders) >= KEPT_ORDERS:
                    self._orders.pop(next(iter(self._orders)))
                self._orders[view] = self._find(view)
            return self._orders[view]

    def _find(self, view: View) -> np.ndarray:
        rows = np.arange(self.table.num_rows)
        if view.where.strip():
            names = list(self.kinds)
            values = self.table.select(list(map(_value, names))).rename_columns(names)
            condition = parse_expression(view.where, self.tasks, names).must_be(CONDITION, "filter")
            ok = np.asarray(pc.equal(self.table[STATUS], OK))
            rows = np.flatnonzero(condition.evaluate(values) & ok)  # `not` is true of a row without values
        if view.sort:
            keys = self._sort_keys(view.sort).take(pa.array(rows))
            direction = "descending" if view.descending else "ascending"
            rows = rows[pc.sort_indices(keys, sort_keys=[("", direction)]).to_numpy()]  # blanks last
        return rows

    def _sort_keys(self, column: str) -> Any:
        """Numbers, or texts where a column has others. Blank cells and what is no number stand last."""
        shown = {**{name: _cells(i) for i, name in reversed(list(enumerate(self.columns)))}}
        shown |= {name: _value(name) for name in self.kinds} | {STATUS: STATUS, ERROR: ERROR}
        if column not in shown:
            raise InputError(f"no column {column!r}: {did_you_mean(column, shown)}")
        keys = self.table[shown[column]].combine_chunks()
        if pa.types.is_floating(keys.type):
            return pc.if_else(pc.is_nan(keys), None, keys)
        if not pa.types.is_string(keys.type):
            return keys
        filled = pc.if_else(pc.equal(keys, ""), None, keys)
        try:
            return filled.cast(pa.float64())
        except pa.ArrowInvalid:
            return filled.view(pa.binary())  # perhaps not UTF-8

    def rows(self, numbers: np.ndarray) -> list[dict[str, Any]]:
        """These rows for a page: number from 1, name, SMILES, cells, values, status and error."""
        part = self.table.take(pa.array(numbers))
        texts = {name: to_texts(part[name]) for name in (SMILES, NAME, STATUS, ERROR)}
        cells = [to_texts(part[_cells(i)]) for i in range(len(self.columns))]
        values = {name: part[_value(name)].to_pylist() for name in self.kinds}
        return [
            {
                "row": number + 1,
                "name": texts[NAME][i],
                "smiles": texts[SMILES][i],
                "status": texts[STATUS][i],
                "error": texts[ERROR][i],
                "cells": [column[i] for column in cells],
                "values": {name: plain(column[i]) for name, column in values.items()},
            }
            for i, number in enumerate(numbers.tolist())
        ]

    def write(self, path: Path, numbers: np.ndarray, lay_out: Callable[[str, str], str]) -> Generator[None, None, None]:
        """Write these rows, in this order, as `mora-lite predict` would, in the format of the path's ending.

        Yields after some rows. The file is there at the end, and nothing is left of it where that is not reached.
        lay_out: makes the mol block of a name and a SMILES, for SDF.
        """
        form = TableFormat.of(path).like(self.form.delimiter, self.form.bom, self.form.decimal)
        names = add_columns(self.columns, [*self.kinds, STATUS, ERROR])
        added = names[len(self.columns) :]
        kinds = [None] * len(self.columns) + list(self.kinds.values()) + [None, None]
        with TableWriter(path, names, kinds=kinds, form=form, force=True, molecules=True) as writer:
            size = SDF_ROWS if form.kind == "sdf" else BLOCK_ROWS
            for start in range(0, len(numbers), size):
                part = self.table.take(pa.array(numbers[start : start + size]))
                status, error, name, text = (to_texts(part[key]) for key in (STATUS, ERROR, NAME, TEXT))
                ok = np.array([word == OK for word in status], dtype=bool)
                cells = list(zip(*(to_texts(part[_cells(i)]) for i in range(len(self.columns))), strict=True))
                values = [_array(part[_value(key)]) for key in self.kinds]
                molecules = list(zip(name, map(drawn_text, text, status), strict=True))
                if form.kind == "sdf":
                    molecules = [(title, lay_out(title, one)) for title, one in molecules]
                writer.write(cells, form.encode(added, values, ok, [status, error]), molecules)
                yield


def plain(value: Any) -> Any:
    """A number, also one of NumPy, as JSON has it: six digits; None for NaN, and a word for infinity."""
    value = value.item() if isinstance(value, np.generic) else value
    if not isinstance(value, float):
        return value
    if not np.isfinite(value):
        return None if np.isnan(value) else ("inf" if value > 0 else "-inf")
    return number(value)


def _cells(i: int) -> str:
    return f"cells {i}"


def _value(name: str) -> str:
    return f"value {name}"


def _array(column: Any) -> np.ndarray:
    """A column of values as `Scores.columns` has it; NaN, False and an empty text where there is none."""
    if pa.types.is_string(column.type):
        return np.array(to_texts(column), dtype=object)
    blank = False if pa.types.is_boolean(column.type) else float("nan")
    return np.asarray(column.fill_null(blank))
