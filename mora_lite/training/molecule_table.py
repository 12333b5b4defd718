"""What an evaluation says of each molecule: truth, prediction, interval, domain, and the part of the data it was in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..scoring.scores import Scores
from ..scoring.tasks import Task
from ..tables.formats import TableFormat, rounded
from ..tables.writers import TableWriter
from .dataset import Dataset

N_TEXTS = 3  # the first columns: row, smiles, split


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
    names, form = list(columns), TableFormat.of(path, molecules=False)
    texts = [list(map(str, columns[name])) for name in names[:N_TEXTS]]
    values = [np.asarray(columns[name]) for name in names[N_TEXTS:]]
    values = [rounded(column) if column.dtype.kind == "f" else column for column in values]
    kinds = [np.dtype(np.int64), None, None, *(column.dtype for column in values)]
    ok = np.ones(len(texts[0]), dtype=bool)
    with TableWriter(path, names, kinds=kinds, form=form, source=source, force=force) as writer:
        writer.write(list(zip(*texts, strict=True)), form.encode(names[N_TEXTS:], values, ok, []))
