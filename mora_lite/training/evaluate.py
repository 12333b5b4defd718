"""A pack's figures on data with known values: beside the encoder alone, and by scaffold and by distance to training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..adapter.encoder import EncoderBaseline
from ..chem.fingerprints import smiles_fingerprints
from ..chem.graph import Graphs
from ..errors import InputError
from ..model import Model, Scores, load
from ..packs.pack import Pack, write_manifest
from ..scoring.tasks import Task
from .checks import merge_duplicates
from .dataset import Dataset, read_dataset
from .metrics import (
    by_domain,
    by_scaffold,
    by_similarity,
    calibration_table,
    class_metrics,
    coverage,
    scaffolds,
    value_metrics,
)
from .splits import Split, split_rows

Figures = dict[str, Any]
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Evaluation:
    """figures: task name -> its figures on all molecules. tables: task name -> name of a table -> its rows.

    Figures of a value: `unit`, `n`, `mae`, `rmse`, `r2`, `inside` (share of true values within their interval) and
    `mean_width`; of a class: `n`, `positives`, `roc_auc`, `pr_auc`, `brier`, `ece`. Of both, where the pack has a
    baseline, `encoder_mae` or `encoder_roc_auc`: the graph encoder alone. `bf16_mae`: of a pack trained the same way on
    the unquantised base, with `loss_4bit` = mae / bf16_mae - 1.

    Tables: `by_similarity` to the nearest training molecule, `by_domain`, `by_scaffold`, and `calibration` of classes.
    """

    figures: dict[str, Figures]
    tables: dict[str, dict[str, Rows]]


def evaluate_pack(
    pack: str | Path,
    data: Path,
    *,
    split: str = "test",
    tasks: Sequence[str] | None = None,
    device: str = "auto",
    dtype: str = "auto",
    batch_size: int | None = None,
    limit: int | None = None,
    bf16: str | Path | None = None,
    smiles_column: str | None = None,
    confidence: float = 0.9,
    tables: bool = True,
) -> Evaluation:
    """Score the molecules of one part of a table and compare.

    split: `train`, `valid`, `test` by the split that the pack records, or `all`. bf16: the pack to compare with, as
    `mora-lite train --unquantized` makes it; None takes the figure that the pack records for its whole test set, if it
    records one. tables: False leaves them empty, and spares the scaffolds of the training molecules. Raises
    `InputError` when the table is not the one that the pack was split by, or lacks a column.
    """
    model = load(pack, device=device, dtype=dtype, tasks=tasks, confidence=confidence)
    facts = model.pack.provenance
    table = read_training_table(data, facts, model.tasks, split, smiles_column)
    parts = None if split == "all" else parts_of(table, facts, model.pack.name, data)
    part, train = (table, None) if parts is None else (parts[split], parts["train"])
    if limit is not None:
        part = part.subset(part.rows[:limit])
    bits = smiles_fingerprints(part.smiles) if model.calibrator is not None else None
    scores = model.calibrate(model.score_graphs(part.graphs, batch_size), bits)
    baseline = None
    if model.pack.has("baseline"):
        baseline = model.calibrate(baseline_values(model, model.pack.load_baseline(), part.graphs), None).values
    figures, by_task = {}, {}
    if tables:
        known_scaffolds = None if train is None else set(scaffolds(train.smiles))
        of_part = scaffolds(part.smiles)
    for i, task in enumerate(model.tasks):
        one = _Column(task, part.targets[:, i], scores, i)
        rows = np.arange(len(part))
        figures[task.name] = ({} if task.is_class else {"unit": task.unit}) | one.figures(rows)
        if baseline is not None:
            figures[task.name] |= {f"encoder_{k}": v for k, v in one.main_figure(baseline[:, i]).items()}
        if tables:
            by_task[task.name] = one.tables(of_part, known_scaffolds)
    _add_recorded(figures, model, part, facts, bf16, recorded=split == "test" and limit is None, batch_size=batch_size)
    return Evaluation(figures, by_task)


@dataclass(frozen=True)
class _Column:
    """One task's truth, float32 `[N]` with NaN where unknown, and scores; `i`: its place among the tasks."""

    task: Task
    truth: np.ndarray
    scores: Scores
    i: int

    def figures(self, rows: np.ndarray) -> Figures:
        """Of the molecules `rows`, int64 `[n]`."""
        values, truth = self.scores.values[rows, self.i], self.truth[rows]
        if self.task.is_class:
            return class_metrics(values, truth)
        found = value_metrics(values, truth)
        if self.scores.low is not None and self.scores.high is not None:
            held = coverage(self.scores.low[rows, self.i], self.scores.high[rows, self.i], truth)
            found |= {"inside": held["inside"], "mean_width": held["mean_width"]}
        return found

    def main_figure(self, values: np.ndarray) -> Figures:
        """The figure by which another model's values, float32 `[N]`, are compared."""
        if self.task.is_class:
            return {"roc_auc": class_metrics(values, self.truth)["roc_auc"]}
        return {"mae": value_metrics(values, self.truth)["mae"]}

    def tables(self, of_part: Sequence[str], known: set[str] | None) -> dict[str, Rows]:
        """of_part: scaffolds of the molecules. known: those of the training molecules, None when they are not known."""
        found: dict[str, Rows] = {}
        if self.scores.nearest is not None and self.scores.inside is not None:
            found["by_similarity"] = by_similarity(self.figures, self.scores.nearest[:, self.i])
            found["by_domain"] = by_domain(self.figures, self.scores.inside[:, self.i])
        if known is not None:
            found["by_scaffold"] = by_scaffold(self.figures, of_part, known)
        if self.task.is_class:
            found["calibration"] = calibration_table(self.scores.values[:, self.i], self.truth)
        return found


def _add_recorded(
    figures: Mapping[str, Figures],
    model: Model,
    part: Dataset,
    facts: dict[str, Any],
    bf16: str | Path | None,
    *,
    recorded: bool,
    batch_size: int | None,
) -> None:
    """`bf16_mae` and `loss_4bit` into the figures of values, from the other pack or from what the pack records.

    With it the figures of the encoder alone, where the pack has them but not the encoder.
    """
    found: dict[str, float | None] = {}
    if bf16 is not None:
        names = [task.name for task in model.tasks]
        other = load(bf16, device=str(model.device), dtype="bfloat16", tasks=names)
        values = other.score_graphs(part.graphs, batch_size)
        found = {name: value_metrics(values[:, i], part.targets[:, i])["mae"] for i, name in enumerate(names)}
    elif recorded and "test" in facts:
        found = {task.name: facts["test"][task.name].get("bf16_mae") for task in model.tasks}
        for task in model.tasks:  # a pack whose baseline was left out
            alone = {k: v for k, v in facts["test"][task.name].items() if k.startswith("encoder_")}
            figures[task.name] |= {k: v for k, v in alone.items() if k not in figures[task.name]}
    for name, mae in found.items():
        own = figures[name].get("mae")
        if mae and own is not None:
            figures[name] |= {"bf16_mae": mae, "loss_4bit": own / mae - 1}


def record_metrics(pack: Pack, evaluation: Evaluation) -> None:
    """Write figures and tables of the whole test set into the pack and its README.md, to five significant digits."""
    pack.provenance["test"] = _rounded(evaluation.figures)
    pack.provenance["tables"] = _rounded(evaluation.tables)
    write_manifest(pack.path, pack.manifest)


def _rounded(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _rounded(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_rounded(value) for value in content]
    return float(f"{content:.5g}") if isinstance(content, float) else content


def baseline_values(model: Model, baseline: EncoderBaseline, graphs: Graphs) -> np.ndarray:
    """Values of the encoder-only baseline as of `Model.score_graphs`, float32 `[B, P]`."""
    at = [model.pack.tasks.index(task) for task in model.tasks]
    baseline = baseline.to(model.device)
    cast = torch.autocast(model.device.type, model.dtype, enabled=model.dtype != torch.float32)
    parts = [np.empty((0, len(model.tasks)), dtype=np.float32)]
    for start in range(0, len(graphs), 2048):
        rows = np.arange(start, min(start + 2048, len(graphs)))
        batch = graphs.select(rows).batch().rounded().to(model.device)
        with torch.inference_mode(), cast:
            parts.append(baseline(batch)[: len(rows), at].float().cpu().numpy())
    return model.in_units(np.concatenate(parts))


def read_training_table(
    path: Path, facts: dict[str, Any], tasks: Sequence[Task], split: str, smiles_column: str | None = None
) -> Dataset:
    """Read `path` by the columns that the pack records (`facts`: its provenance); duplicates merged as they were then.

    split: `all` does without the column of a given split.
    """
    columns = {task["name"]: task["column"] for task in facts["recipe"]["tasks"]}
    data = read_dataset(
        path,
        smiles_column or facts["recipe"]["smiles"],
        [columns[task.name] for task in tasks],
        split_column=facts["split"].get("column", "") if split != "all" else "",
    )
    if "merged" in facts["data"]:
        data, _ = merge_duplicates(data, [task.is_class for task in tasks])
    return data


def parts_of(data: Dataset, facts: dict[str, Any], pack: str, path: Path) -> dict[str, Dataset]:
    """The molecules that train, validate and test. Raises `InputError` if this is not the table that was split."""
    if data.fingerprint != facts["data"]["smiles_sha256"]:
        raise InputError(
            f"{path}: its SMILES are not those of {facts['data']['file']}, by whose row numbers pack {pack} was "
            f"split ({data.n_rows} rows, expected {facts['data']['rows']}); for other data use evaluate --split all"
        )
    rows = split_rows(Split(**facts["split"]), data)
    return {name: data.subset(rows[name]) for name in ("train", "valid", "test")}
