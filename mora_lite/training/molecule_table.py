"""What an evaluation says of each molecule: truth, prediction, interval, domain, and the part of the data it was in."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..scoring.scores import Scores
from ..scoring.tasks import Task
from ..tables.table import TableWriter
from .dataset import Dataset


def molecule_columns(
    part: Dataset, scores: Scores, tasks: Sequence[Task], parts: Mapping[str, Dataset] | None
) -> dict[str, Any]:
    """A row for each of the `N` molecules: name of a column -> its `N` cells.

    `row` of the table, counted from 1, `smiles`, `split`; for each task `TASK_true`, then the columns of
    `Scores.columns`. Numbers are float32, NaN where there is none.
    parts: the molecules of each part of the table; None where they are not known, and `split` is blank.
    """
    split = np.full(part.n_rows, "", dtype=object)
    for name, molecules in (parts or {}).items():
        split[molecules.rows] = name
    columns: dict[str, Any] = {"row": part.rows + 1, "smiles": part.smiles, "split": split[part.rows]}
    scored = scores.columns(tasks)
    for i, task in enumerate(tasks):
        columns[f"{task.name}_true"] = part.targets[:, i]
        columns |= {n: scored.pop(n) for n in (task.column, f"{task.name}_lo", f"{task.name}_hi") if n in scored}
    return columns | scored


def write_molecules(path: str | Path, columns: dict[str, Any], *, source: Path, force: bool = False) -> None:
    """Write the columns of `molecule_columns`, numbers with six significant digits. source: the table they are of.

    Raises `OutputError` when the file exists, without `force`, or cannot be written.
    """
    with TableWriter(path, list(columns), source=source, force=force) as writer:
        cells = ([_cell_text(cell) for cell in column] for column in columns.values())
        writer.write(list(row) for row in zip(*cells, strict=True))


def _cell_text(cell: object) -> str:
    if isinstance(cell, bool | np.bool_):
        return "true" if cell else "false"
    if isinstance(cell, float | np.floating):
        return "" if math.isnan(cell) else f"{cell:.6g}"
    return str(cell)
