"""A table of molecules in, the same table with predictions out: the stream from reader to model to writer.

The output has every column of the input, unchanged and in order, then the columns of `Scores.columns`, then `status`
and `error`. Where the input has a column of such a name already, ours is called `<name> (mora-lite)`, then
`<name> (mora-lite 2)`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ..chem.molecules import OK
from ..tables.table import Row, Table, TableWriter

MALFORMED = "malformed"  # the record has too many cells
NOT_FINITE = "not_finite"  # the model's value is infinite or not a number
NOT_FINITE_REASON = "the model's value is not a finite number"
CHUNK_ROWS = 4096  # read, scored and written at a time; the model splits them into batches


class Scores(Protocol):
    """values: float32 `[B, P]`, NaN where `status[i]` is not `ok`; status, error: `B` texts.

    columns: name -> float32, bool or text `[B]`, given the model's tasks.
    """

    @property
    def values(self) -> np.ndarray: ...
    @property
    def status(self) -> Sequence[str]: ...
    @property
    def error(self) -> Sequence[str]: ...
    def columns(self, tasks: Sequence[Any]) -> dict[str, np.ndarray]: ...


class Model(Protocol):
    """What is asked of a model here; `mora_lite.Model` is one, and so is a few-line stand-in for tests."""

    @property
    def tasks(self) -> Sequence[Any]: ...
    def score(self, smiles: Sequence[str], batch_size: int | None = None) -> Scores: ...


@dataclass
class Counts:
    """counts: rows by status.

    first: by status, the first row (counted from 1, header not counted) and its error.
    """

    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, tuple[int, str]] = field(default_factory=dict)

    @property
    def n_rows(self) -> int:
        return sum(self.counts.values())

    @property
    def n_ok(self) -> int:
        return self.counts[OK]

    def count(self, status: Sequence[str], error: Sequence[str]) -> None:
        """Add rows that follow those counted before."""
        first_row = self.n_rows + 1
        self.counts.update(status)
        for i, word in enumerate(status):
            if word != OK:
                self.first.setdefault(word, (first_row + i, error[i]))

    def failures(self) -> list[str]:
        """One line for each reason of failure, the most frequent first."""
        lines = []
        width = max((len(f"{n:,}") for status, n in self.counts.items() if status != OK), default=0)
        for status, n in self.counts.most_common():
            if status != OK:
                row, reason = self.first[status]
                lines.append(f"  {n:>{width},} {status}; the first is row {row:,}: {reason}")
        return lines


@dataclass
class Summary(Counts):
    """seconds: that the rows took."""

    seconds: float = 0.0

    @property
    def mol_per_s(self) -> float:
        return self.n_rows / self.seconds if self.seconds > 0 else 0.0

    def lines(self, where: str, load_seconds: float) -> list[str]:
        """The summary for people: one line, and one more for each reason of failure."""
        return [
            f"{where}: {self.n_rows:,} rows, {self.n_ok:,} ok, "
            f"{self.seconds:.1f} s ({self.mol_per_s:,.0f} molecules/s), {load_seconds:.1f} s to load",
            *self.failures(),
        ]


def output_columns(columns: Sequence[str], model: Model) -> list[str]:
    """Header of the output: the input's `columns` as they are, then ours."""
    return add_columns(columns, [*model.score([]).columns(model.tasks), "status", "error"])


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


def predict_table(
    table: Table,
    writer: TableWriter,
    model: Model,
    *,
    batch_size: int | None = None,
    chunk_rows: int = CHUNK_ROWS,
    on_progress: Callable[[int], None] = lambda n_rows: None,
) -> Summary:
    """Score every row of `table` into `writer`, one record for each row, in order, in constant memory.

    The writer must have been opened with `output_columns`. `on_progress` is called with the number of rows
    done.
    """
    summary = Summary()
    started = time.perf_counter()
    for rows in table.chunks(chunk_rows):
        scores = model.score(["" if row.fault else row.cells[table.smiles_index] for row in rows], batch_size)
        writer.write(_records(rows, scores, model, summary))
        on_progress(summary.n_rows)
    summary.seconds = time.perf_counter() - started
    return summary


def _records(rows: Sequence[Row], scores: Scores, model: Model, summary: Summary) -> Iterator[list[str]]:
    columns = [_texts(column) for column in scores.columns(model.tasks).values()]
    blank = [""] * len(columns)
    finite = np.isfinite(scores.values).all(axis=1)
    first_row = summary.n_rows + 1
    assert len(rows) == len(finite) == len(scores.status) == len(scores.error)
    for i, row in enumerate(rows):
        status, error = scores.status[i], scores.error[i]
        if row.fault:
            status, error = MALFORMED, row.fault
        elif status == OK and not finite[i]:
            status, error = NOT_FINITE, NOT_FINITE_REASON
        summary.counts[status] += 1
        if status != OK:
            summary.first.setdefault(status, (first_row + i, error))
        texts = [column[i] for column in columns] if status == OK else blank
        yield [*row.cells, *texts, status, error]


def _texts(column: np.ndarray) -> list[str]:
    if column.dtype == object:
        return list(column)
    if column.dtype == bool:
        return ["true" if value else "false" for value in column]
    return [f"{value:.6g}" for value in column.tolist()]
