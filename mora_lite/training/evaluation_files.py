"""The files that an evaluation writes: a table of the molecules, and a page with charts.

The table says of each molecule: truth, prediction, interval, domain, and the part of the data it was in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..model import Model
from ..packs.manifest import TRAINING
from ..reports.evaluation import Evaluated, Nearest, NearestOf, write_evaluation
from ..reports.task_figures import TaskResult
from ..scoring.scores import Scores
from ..scoring.tasks import Task
from ..tables.formats import TableFormat
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
    kinds = [np.dtype(np.int64), None, None, *(column.dtype for column in values)]
    ok = np.ones(len(texts[0]), dtype=bool)
    with TableWriter(path, names, kinds=kinds, form=form, source=source, force=force) as writer:
        writer.write(list(zip(*texts, strict=True)), form.encode(names[N_TEXTS:], values, ok, []))


def write_report(
    path: Path,
    model: Model,
    part: Dataset,
    scores: Scores,
    metrics: Mapping[str, Mapping[str, Any]],
    tables: Mapping[str, Mapping[str, Any]],
    *,
    parts: Mapping[str, Dataset] | None,
    table: str,
    split: str,
) -> None:
    """Write the page about the molecules of `part`. Raises `OutputError`.

    metrics, tables: of each task. parts: of the table called `table`, None where they are not known.
    """
    confidence = 0.0 if model.calibrator is None else model.calibrator.confidence  # of no interval
    results = []
    for i, task in enumerate(model.tasks):
        low, high, nearest = (None if of is None else of[:, i] for of in (scores.low, scores.high, scores.nearest))
        truth, values = part.targets[:, i], scores.values[:, i]
        measured = metrics[task.name], tables[task.name]
        results.append(TaskResult(task, truth, values, low, high, nearest, *measured, confidence))
    evaluated = Evaluated(
        model.pack.name,
        table,
        split,
        part.rows + 1,
        part.smiles,
        results,
        _notes(part, parts, scores, split),
        _nearest_of(model, part),
        model.pack.provenance.get("stages") or [],
    )
    write_evaluation(path, evaluated, _metadata(model, table, part.n_rows))


def _metadata(model: Model, table: str, n_rows: int) -> dict[str, str]:
    provenance = model.pack.provenance
    auxiliary = [task["name"] for task in provenance["recipe"]["tasks"] if task.get("auxiliary")]
    n_train, kind = (provenance.get("trained") or {}).get("molecules"), provenance["split"].get("kind", "random")
    metadata = {
        "Pack": model.pack.name,
        "Trained on": f"{f'{n_train:,} molecules of ' if n_train else ''}{provenance['data']['file']}, {kind} split",
        "Also learnt, not answered": ", ".join(auxiliary),
        "Evaluated on": f"{table}, {n_rows:,} rows",
        "Version": f"mora-lite {__version__}",
    }
    return {label: text for label, text in metadata.items() if text}


def _notes(part: Dataset, parts: Mapping[str, Dataset] | None, scores: Scores, split: str) -> list[str]:
    """What a reader of the page must know of its molecules, a sentence each."""
    n = f"{len(part):,}"
    notes = [] if len(part) else ["There is no molecule in this part, and so no error."]
    if split == "train":
        notes.append("The pack was trained on these molecules: its errors on others are larger.")
    elif split == "valid":
        notes.append("These molecules chose the epochs and set the intervals: errors on others are a little larger.")
    elif split == "all" and parts is not None:
        trained = int(np.isin(part.rows, parts["train"].with_values().rows).sum())
        notes.append(f"The pack was trained on {trained:,} of these {n} molecules: its errors on others are larger.")
    elif split == "all" and scores.nearest is not None:
        known = int((scores.nearest.max(axis=1, initial=0) == 1).sum())
        words = (
            f"{known:,} of these {n} molecules have the fingerprint of a training molecule: some of their values may "
        )
        notes += [f"{words}be what the pack was trained on."] if known else []
    whole = len(part) if parts is None or split == "all" else len(parts[split])
    return [*notes, *([f"Only the first {n} of {whole:,} molecules of this part."] if len(part) < whole else [])]


def _nearest_of(model: Model, part: Dataset) -> NearestOf | None:
    """What finds the training molecule nearest to others, among those with a value of a task."""
    if model.calibrator is None or not model.pack.has(TRAINING):
        return None
    training = model.load_training()

    def nearest(task: int, at: np.ndarray) -> list[Nearest | None]:
        of_task = training.select([task])
        index, similarity = of_task.nearest(part.at(at).fingerprints(), 1)
        pairs = zip(index[:, 0].tolist(), similarity[:, 0].tolist(), strict=True)
        return [None if k < 0 else Nearest(of_task.smiles[k], s, float(of_task.values[k, 0])) for k, s in pairs]

    return nearest
