"""A table of molecules in, the same table with predictions out: the stream from reader to model to writer.

The output has every column of the input, unchanged and in order, then those of `Scores.columns`, then `status` and
`error`. Where the input has a column of such a name already, the new one is called `<name> (mora-lite)`, then
`<name> (mora-lite 2)`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from ..status import MALFORMED, NOT_FINITE, OK, REASONS, RunSummary
from ..tables.table import Row, Table, TableWriter, add_columns
from .predictor import Predictor
from .scores import Scores

CHUNK_ROWS = 4096  # read, scored and written at a time; the model splits them into batches


def output_columns(columns: Sequence[str], model: Predictor, n_neighbours: int = 0) -> list[str]:
    """Header of the output: the input's `columns` as they are, then those of the predictions."""
    return add_columns(columns, [*model.score([], None, n_neighbours).columns(model.tasks), "status", "error"])


def predict_table(
    table: Table,
    writer: TableWriter,
    model: Predictor,
    *,
    batch_size: int | None = None,
    n_neighbours: int = 0,
    chunk_rows: int = CHUNK_ROWS,
    on_progress: Callable[[int], None] = lambda n_rows: None,
) -> RunSummary:
    """Score every row of `table` into `writer`, one record for each row, in order, in constant memory.

    writer: opened with `output_columns`, for as many neighbours.
    n_neighbours: training molecules to name beside each molecule.
    chunk_rows: rows that are read, scored and written at a time.
    on_progress: called after each chunk with the number of rows done.
    """
    summary = RunSummary()
    started = time.perf_counter()
    for rows in table.chunks(chunk_rows):
        smiles = ["" if row.fault else row.cells[table.smiles_index] for row in rows]
        scores = model.score(smiles, batch_size, n_neighbours)
        writer.write(_records(rows, scores, model, summary))
        on_progress(summary.n_rows)
    summary.seconds = time.perf_counter() - started
    return summary


def _records(rows: Sequence[Row], scores: Scores, model: Predictor, summary: RunSummary) -> Iterator[list[str]]:
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
            status, error = NOT_FINITE, REASONS[NOT_FINITE]
        summary.counts[status] += 1
        if status != OK:
            summary.first.setdefault(status, (first_row + i, error))
        elif scores.inside is not None:  # a pack without calibration knows nothing of it
            summary.outside.update(model.tasks[task].name for task in np.flatnonzero(~scores.inside[i]).tolist())
        texts = [column[i] for column in columns] if status == OK else blank
        yield [*row.cells, *texts, status, error]


def _texts(column: np.ndarray) -> list[str]:
    if column.dtype == object:
        return list(column)
    if column.dtype == bool:
        return ["true" if value else "false" for value in column]
    return ["" if math.isnan(value) else f"{value:.6g}" for value in column.tolist()]  # nothing was measured
