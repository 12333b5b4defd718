"""A pack's metrics on data with known values: beside the encoder alone, and by scaffold and by distance to training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..adapter.encoder import EncoderBaseline
from ..chem.graph import Graphs
from ..chem.molecules import scaffold_of
from ..errors import InputError, check_range
from ..hub.packs import TEXT_MANIFEST, check_changeable, local_path
from ..machine.progress import report, track
from ..model import Model, Scores, load
from ..packs.pack import Pack, open_pack, write_manifest
from ..scoring.tasks import Task, choose_tasks
from ..tables.columns import find_column, plain_name
from ..tables.library import open_library
from ..tables.source import STDIO
from ..tables.writers import claim_output, claim_table
from .checks import check_classes, first_rows, left_out_notes, merge_duplicates
from .dataset import Dataset, read_dataset
from .evaluation_files import molecule_columns, write_molecules, write_report
from .metrics import (
    Metrics,
    by_domain,
    by_scaffold,
    by_similarity,
    calibration_table,
    class_metrics,
    coverage,
    value_metrics,
)
from .splits import Split, digest_of_marks, split_rows

Rows = list[dict[str, Any]]

RECORDED_CONFIDENCE = 0.9  # of the intervals whose metrics packs and their model cards have
SAME = 1 - 1e-6  # the similarity of one molecule to itself, but for rounding
SEEN_NOTE = (
    "{n:,} of {of:,} molecules have similarity 1 to a training molecule and are most likely the same; errors of new "
    "molecules are larger (--tables has errors by similarity)"
)
NOT_RECORDED = (
    f"record: only the whole test set with all tasks and confidence {RECORDED_CONFIDENCE} is recorded; "
    "leave --record out, or the options that say otherwise"
)


@dataclass(frozen=True)
class Evaluation:
    """metrics: task name -> its metrics on all molecules. tables: task name -> name of a table -> its rows.

    Metrics of a value: `unit`, `n`, `mae`, `rmse`, `r2`, `spearman`, `inside` (share of true values within their
    interval) and `mean_width`; of a class: `n`, `positives`, `roc_auc`, `pr_auc`, `brier`, `ece`. Of both, where the
    pack has a baseline, `encoder_mae` or `encoder_roc_auc`: the graph encoder alone. `bf16_mae`: of a pack trained the
    same way on the unquantised base, with `loss_4bit` = mae / bf16_mae - 1.

    Tables: `by_similarity` to the nearest training molecule, `by_domain`, `by_scaffold`, and `calibration` of classes.

    molecules: what `molecule_columns` says of each. n_rows: rows of the table.
    """

    metrics: dict[str, Metrics]
    tables: dict[str, dict[str, Rows]] = field(repr=False)
    molecules: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)
    n_rows: int = 0


def evaluate(
    pack: str | Path,
    data: str | Path,
    *,
    split: str = "test",
    tasks: str | Sequence[str] | None = None,
    device: str = "auto",
    dtype: str = "auto",
    batch_size: int | None = None,
    limit: int | None = None,
    bf16: str | Path | None = None,
    smiles_column: str | None = None,
    confidence: float = RECORDED_CONFIDENCE,
    tables: bool = True,
    record: bool = False,
    columns: Mapping[str, str] | None = None,
    output: str | Path | None = None,
    report: str | Path | None = None,
    force: bool = False,
    on_note: Callable[[str], None] = lambda _note: None,
) -> Evaluation:
    """Score the molecules of one part of the table `data` and compare with its values; what `mora-lite evaluate` does.

    pack: its name, its directory, or `hf:owner/name`. device, dtype, batch_size, confidence: as for `load`, `predict`.
    split: `train`, `valid` or `test` by the split that the pack records, or `all`.
    tasks: names; None for all, but with `all` for those that the table has a column for. limit: molecules at most.
    bf16: the pack to compare with, of `train --unquantized`; None takes what this one records of its whole test set.
    smiles_column: None takes the name that the pack records. tables: False leaves them empty, which saves time.
    record: write metrics and tables into the pack, for the whole test set alone.
    columns: task name -> the table's column with its values, where this is not the name that the pack records.
    output: file for the columns of `Evaluation.molecules`. report: file for a page with charts, HTML. Each is replaced
    if it exists with `force`; None writes none.
    on_note: gets a line for each reason why rows are left out, and of `all` one for molecules that the pack knows.

    Raises `InputError` when the table is not the one that the pack was split by, or lacks a column.
    """
    whole = (split, limit, tasks) == ("test", None, None) and not columns and confidence == RECORDED_CONFIDENCE
    _check_asked(pack, limit, record, whole)
    _claim_files(data, output, report, force)
    opened, data = open_pack(pack), Path(data)
    if (tasks, split) == (None, "all"):
        tasks = _tasks_of_table(opened, data, smiles_column, columns, on_note)
    model = load(opened, device=device, dtype=dtype, tasks=tasks, confidence=confidence)
    provenance = model.pack.provenance
    table = read_training_table(data, model.pack, model.tasks, split, smiles_column, columns, on_note)
    parts = _parts_if_known(table, provenance) if split == "all" else parts_of(table, provenance, model.pack.name, data)
    part, train = (table, None) if parts is None or split == "all" else (parts[split], parts["train"])
    part = part if limit is None else part.subset(part.rows[:limit])
    scores = _score(model, part, batch_size, on_note if split == "all" else None)
    metrics, by_task = _measure(model, part, train, scores, tables=tables or record or report is not None)
    recorded = provenance.get("test") if (split, limit) == ("test", None) else None
    _add_comparison(metrics, model, part, bf16, recorded, batch_size)
    evaluation = Evaluation(metrics, by_task, molecule_columns(part, scores, model.tasks, parts), table.n_rows)
    if record:
        record_metrics(model.pack, evaluation)
    if output is not None:
        write_molecules(output, evaluation.molecules, source=data, force=force)
    if report is not None:
        write_report(Path(report), model, part, scores, metrics, by_task, parts=parts, table=data.name, split=split)
    return evaluation


def _check_asked(pack: str | Path, limit: int | None, record: bool, recordable: bool) -> None:
    check_range("limit", 1 if limit is None else limit, 1)
    if record:
        if not recordable:
            raise InputError(NOT_RECORDED)
        check_changeable(str(pack))
    if (Path(local_path(pack)) / TEXT_MANIFEST).is_file():
        raise InputError(f"{pack}: got a text pack, expected one of values; use evaluate-text")


def _claim_files(data: Path | str, output: Path | str | None, report: Path | str | None, force: bool) -> None:
    """Raise `OutputError` before the work where one of the two cannot be written."""
    if output is not None:
        claim_table(output, source=data, force=force)
    page = None if report is None else claim_output(report, source=data, force=force)
    if page is not None and output is not None and page == Path(output).resolve():
        raise InputError(f"report: got {report}, expected another file than that of output")


def _score(model: Model, part: Dataset, batch_size: int | None, on_note: Callable[[str], None] | None = None) -> Scores:
    """on_note: gets a line where molecules have the fingerprint of a training molecule of a task that they answer."""
    bits = part.fingerprints() if model.calibrator is not None else None
    scores = model.calibrate(model.score_graphs(part.graphs, batch_size), bits)
    if on_note is not None and scores.nearest is not None:
        n = int(((scores.nearest > SAME) & ~np.isnan(part.targets)).any(axis=1).sum())
        if n:
            on_note(SEEN_NOTE.format(n=n, of=len(part)))
    return scores


def _measure(
    model: Model, part: Dataset, train: Dataset | None, scores: Scores, *, tables: bool
) -> tuple[dict[str, Metrics], dict[str, dict[str, Rows]]]:
    """Metrics and tables of each task, and the metrics of the encoder alone. train: None where it is not known."""
    baseline = None
    if model.pack.has("baseline"):
        baseline = model.calibrate(baseline_values(model, model.pack.load_baseline(), part.graphs), None).values
    metrics, by_task = {}, {}
    if tables:
        train_scaffolds = None if train is None else [scaffold_of(text) for text in track(train.smiles, "scaffolds")]
        part_scaffolds = list(map(scaffold_of, track(part.smiles, "scaffolds")))
    for i, task in enumerate(model.tasks):
        column = _Column(task, part.targets[:, i], scores, i)
        rows = np.arange(len(part))
        metrics[task.name] = ({} if task.is_class else {"unit": task.unit}) | column.metrics(rows)
        if baseline is not None:
            metrics[task.name] |= {f"encoder_{k}": v for k, v in column.main_metric(baseline[:, i]).items()}
        if tables:
            seen = None
            if train is not None and train_scaffolds is not None:
                seen = {train_scaffolds[k] for k in np.flatnonzero(~np.isnan(train.targets[:, i]))}
            by_task[task.name] = column.tables(part_scaffolds, seen)
    return metrics, by_task


@dataclass(frozen=True)
class _Column:
    """One task's truth, float32 `[N]` with NaN where unknown, and scores; `i`: its column among the tasks."""

    task: Task
    truth: np.ndarray
    scores: Scores
    i: int

    def metrics(self, rows: np.ndarray) -> Metrics:
        """Of the molecules `rows`, int64 `[n]`."""
        values, truth = self.scores.values[rows, self.i], self.truth[rows]
        if self.task.is_class:
            return class_metrics(values, truth)
        metrics = value_metrics(values, truth)
        if self.scores.low is not None and self.scores.high is not None:
            covered = coverage(self.scores.low[rows, self.i], self.scores.high[rows, self.i], truth)
            metrics |= {"inside": covered["inside"], "mean_width": covered["mean_width"]}
        return metrics

    def main_metric(self, values: np.ndarray) -> Metrics:
        """The metric by which another model's values, float32 `[N]`, are compared."""
        if self.task.is_class:
            return {"roc_auc": class_metrics(values, self.truth)["roc_auc"]}
        return {"mae": value_metrics(values, self.truth)["mae"]}

    def tables(self, part_scaffolds: Sequence[str], train_scaffolds: set[str] | None) -> dict[str, Rows]:
        """part_scaffolds: of the molecules. train_scaffolds: of those that train the task; None where not known."""
        tables: dict[str, Rows] = {}
        if self.scores.nearest is not None and self.scores.inside is not None:
            tables["by_similarity"] = by_similarity(self.metrics, self.scores.nearest[:, self.i])
            tables["by_domain"] = by_domain(self.metrics, self.scores.inside[:, self.i])
        if train_scaffolds is not None:
            tables["by_scaffold"] = by_scaffold(self.metrics, part_scaffolds, train_scaffolds)
        if self.task.is_class:
            tables["calibration"] = calibration_table(self.scores.values[:, self.i], self.truth)
        return tables


def _add_comparison(
    metrics: Mapping[str, Metrics],
    model: Model,
    part: Dataset,
    bf16: str | Path | None,
    recorded: Mapping[str, Metrics] | None,
    batch_size: int | None,
) -> None:
    """Add `bf16_mae` and `loss_4bit` to the metrics of values, from the other pack or from what the pack records.

    recorded: of this very data. From it too come the metrics of the encoder alone, where it was left out of the pack.
    """
    bf16_mae: dict[str, Any] = {}
    if bf16 is not None:
        names = [task.name for task in model.tasks]
        other = load(bf16, device=str(model.device), dtype="bfloat16", tasks=names)
        values = other.calibrate(other.score_graphs(part.graphs, batch_size), None).values
        bf16_mae = {name: value_metrics(values[:, i], part.targets[:, i])["mae"] for i, name in enumerate(names)}
    elif recorded is not None:
        bf16_mae = {task.name: recorded[task.name].get("bf16_mae") for task in model.tasks}
        for task in model.tasks:
            encoder = {k: v for k, v in recorded[task.name].items() if k.startswith("encoder_")}
            metrics[task.name] |= {k: v for k, v in encoder.items() if k not in metrics[task.name]}
    for name, other_mae in bf16_mae.items():
        mae = metrics[name].get("mae")
        if other_mae and mae is not None:
            metrics[name] |= {"bf16_mae": other_mae, "loss_4bit": mae / other_mae - 1}


def record_metrics(pack: Pack, evaluation: Evaluation) -> None:
    """Write metrics and tables of the whole test set into the pack and its README.md, to five significant digits."""
    pack.provenance["test"] = _rounded(evaluation.metrics)
    pack.provenance["tables"] = _rounded(evaluation.tables)
    write_manifest(pack.path, pack.manifest)


def _rounded(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _rounded(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_rounded(value) for value in content]
    return float(f"{content:.5g}") if isinstance(content, float) else content


def baseline_values(model: Model, baseline: EncoderBaseline, graphs: Graphs) -> np.ndarray:
    """What `Model.score_graphs` returns, of the encoder-only baseline."""
    at = [model.pack.tasks.index(task) for task in model.tasks]
    baseline = baseline.to(model.device)
    cast = torch.autocast(model.device.type, model.dtype, enabled=model.dtype != torch.float32)
    parts = [np.empty((0, len(model.tasks)), dtype=np.float32)]
    for start in range(0, len(graphs), 2048):
        report("scoring by the encoder alone", start, len(graphs))
        rows = np.arange(start, min(start + 2048, len(graphs)))
        batch = graphs.select(rows).batch().rounded().to(model.device)
        with torch.inference_mode(), cast:
            parts.append(baseline(batch)[: len(rows), at].float().cpu().numpy())
    return model.on_scales(np.concatenate(parts))


def _headers(pack: Pack, columns: Mapping[str, str] | None) -> dict[str, str]:
    """Task name -> the column with its values: the one that the pack records, or that of `columns`."""
    headers = {task["name"]: task["column"] for task in pack.provenance["recipe"]["tasks"]}
    chosen = {pack.tasks[choose_tasks(pack.tasks, [name])[0]].name: header for name, header in (columns or {}).items()}
    return headers | chosen


def _recorded_column(pack: Pack) -> str | None:
    """The SMILES column that the pack records; None where its name is the usual one.

    A column of the usual name is found by itself, and under other usual names in other tables too.
    """
    recorded = pack.provenance["recipe"]["smiles"]
    return None if plain_name(recorded) in ("", "smiles") else recorded


def _tasks_of_table(
    pack: Pack,
    path: str | Path,
    smiles_column: str | None,
    columns: Mapping[str, str] | None,
    on_note: Callable[[str], None],
) -> list[str] | None:
    """Names of the tasks that a table has a column for; None where that is all or none of them."""
    if str(path) == STDIO:  # is read once
        return None
    pack.check_provenance()
    with open_library(str(path), smiles_column, cells=True, recorded_column=_recorded_column(pack)) as library:
        there = set(map(plain_name, library.columns))
        for header in (columns or {}).values():
            find_column(library.columns, header, str(path))
    headers = _headers(pack, columns)
    found = [task.name for task in pack.tasks if plain_name(headers[task.name]) in there]
    if len(found) in (0, len(pack.tasks)):
        return None
    on_note(f"the table has a column for {len(found)} of {len(pack.tasks)} tasks: {', '.join(found)}")
    return found


def read_training_table(
    path: Path,
    pack: Pack,
    tasks: Sequence[Task],
    split: str,
    smiles_column: str | None = None,
    columns: Mapping[str, str] | None = None,
    on_note: Callable[[str], None] = lambda _note: None,
) -> Dataset:
    """Read `path` by the columns and the featurizer that the pack records; duplicates merged as they were then.

    split: with `all` the table need not have the column that the split was read from.
    columns: task name, in any case -> column, for those that have another name in this table.
    on_note: gets a line for each reason why rows are left out.
    """
    pack.check_provenance()
    provenance, headers = pack.provenance, _headers(pack, columns)
    split_column = provenance["split"].get("column", "")
    targets = [headers[task.name] for task in tasks]
    with open_library(str(path), smiles_column, cells=True, recorded_column=_recorded_column(pack)) as library:
        if split == "all" and plain_name(split_column) not in map(plain_name, library.columns):
            split_column = ""
        try:
            data = read_dataset(library, smiles_column, targets, split_column or None, pack.featurizer)
        except InputError as error:
            hint = f"; {pack.name} was trained on {provenance['data']['file']}: for other data use evaluate --split all"
            if split == "all":
                hint = "; --column TASK=HEADER maps a task to a column, --tasks chooses"
            raise InputError(f"{error}{hint if 'has no column' in str(error) else ''}") from None
    for i, task in enumerate(tasks):
        if task.is_class:
            advice = f"task {task.name!r} is a class: take a column that has 0 and 1, or write them so"
            check_classes(data, targets[i], data.targets[:, i], advice)
    first = first_rows(data)
    for note in [*data.notes, *left_out_notes(data, first)]:
        on_note(note)
    if "merged" in provenance["data"]:
        data, n_merged = merge_duplicates(data, [task.is_class for task in tasks], first)
        if n_merged:
            on_note(f"each molecule counts once, with the median of its values: {n_merged} rows are merged")
    n_without = int(np.isnan(data.targets).all(axis=1).sum())
    if n_without:
        on_note(f"{n_without} of {len(data)} molecules have no value of the tasks")
    return data


def parts_of(data: Dataset, provenance: dict[str, Any], pack: str, path: Path) -> dict[str, Dataset]:
    """The molecules that train, validate and test. Raises `InputError` if this is not the table that was split."""
    parts = _parts_if_known(data, provenance)
    if parts is None:
        recorded = provenance["data"]
        if data.fingerprint == recorded["smiles_sha256"]:
            raise InputError(
                f"{path}: its column {provenance['split']['column']!r} does not say the parts that pack {pack} was "
                "trained by; give the table as it was then, or use evaluate --split all"
            )
        raise InputError(
            f"{path}: its SMILES are not those of {recorded['file']}, by whose row numbers pack {pack} was split "
            f"({data.n_rows} rows, expected {recorded['rows']}); for other data use evaluate --split all"
        )
    return parts


def _parts_if_known(data: Dataset, provenance: dict[str, Any]) -> dict[str, Dataset] | None:
    """As `parts_of`; None for another table, or one without the column that says its parts, or where it says others."""
    split, recorded = Split(**provenance["split"]), provenance["data"]
    if data.fingerprint != recorded["smiles_sha256"] or (split.column and not data.marks):
        return None
    if recorded.get("parts_sha256") not in (None, digest_of_marks(data.marks)):  # packs of before say nothing of it
        return None
    return {name: data.subset(rows) for name, rows in split_rows(split, data).items()}
