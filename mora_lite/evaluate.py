"""A pack's error on data with known values, beside the encoder-only baseline and beside what no quantisation gives."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .baseline import EncoderBaseline
from .dataset import Dataset, Split, read_dataset
from .errors import InputError, PackError
from .graph import Graphs
from .metrics import value_metrics
from .model import Model, load
from .pack import Pack, write_manifest

Metrics = dict[str, dict[str, Any]]


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
) -> Metrics:
    """Task name -> metrics.

    `unit`, `n`, `mae`, `rmse`, `r2` of the pack; `encoder_mae`, of the encoder-only baseline; and `bf16_mae`, of a pack
    trained the same way on the unquantised base in bfloat16, with `loss_4bit` = mae / bf16_mae - 1.

    split: `train`, `valid`, `test` by the split that the pack records, or `all`. bf16: the pack to compare with, as
    `mora-lite train --unquantized` makes it; None takes the figure that the pack records for its whole test set, if it
    records one. Raises `InputError` when the table is not the one that the pack was split by, or lacks a column.
    """
    model = load(pack, device=device, dtype=dtype, tasks=tasks)
    facts = model.pack.provenance
    column = smiles_column or facts["recipe"]["smiles"]
    columns = {task["name"]: task["column"] for task in facts["recipe"]["tasks"]}
    table = read_dataset(data, column, [columns[task.name] for task in model.tasks])
    part = choose_rows(table, split, facts, model.pack.name, data)
    if limit is not None:
        part = part.subset(part.rows[:limit])

    def mae(values: np.ndarray) -> list[Any]:
        return [value_metrics(values[:, i], part.targets[:, i])["mae"] for i in range(len(model.tasks))]

    predicted = model.score_graphs(part.graphs, batch_size)
    results: Metrics = {
        task.name: {"unit": task.unit, **value_metrics(predicted[:, i], part.targets[:, i])}
        for i, task in enumerate(model.tasks)
    }
    beside: dict[str, list[Any]] = {}
    with suppress(PackError):  # a pack may come without its baseline
        beside["encoder_mae"] = mae(baseline_values(model, model.pack.load_baseline(), part.graphs))
    if bf16 is not None:
        names = [task.name for task in model.tasks]
        other = load(bf16, device=device, dtype="bfloat16", tasks=names)
        beside["bf16_mae"] = mae(other.score_graphs(part.graphs, batch_size))
    elif split == "test" and limit is None and "test" in facts:
        beside["bf16_mae"] = [facts["test"][task.name].get("bf16_mae") for task in model.tasks]
    for name, values in beside.items():
        for row, value in zip(results.values(), values, strict=True):
            if value is not None:
                row[name] = value
    for row in results.values():
        if row["mae"] is not None and row.get("bf16_mae"):
            row["loss_4bit"] = row["mae"] / row["bf16_mae"] - 1
    return results


def record_metrics(pack: Pack, metrics: Metrics) -> None:
    """Write the metrics of the whole test set into the pack's provenance, to five significant digits."""
    rounded = {
        task: {name: float(f"{v:.5g}") if isinstance(v, float) else v for name, v in row.items()}
        for task, row in metrics.items()
    }
    pack.provenance["test"] = rounded
    write_manifest(pack.path, pack.manifest)


def choose_rows(table: Dataset, split: str, facts: dict[str, Any], pack: str, path: Path) -> Dataset:
    """The molecules of one part of the split. Raises `InputError` if this is not the table that was split."""
    if split == "all":
        return table
    if table.fingerprint != facts["data"]["smiles_sha256"]:
        raise InputError(
            f"{path}: its SMILES are not those of {facts['data']['file']}, by whose row numbers pack {pack} was "
            f"split ({table.n_rows} rows, expected {facts['data']['rows']}); use --split all for other data"
        )
    return table.subset(Split(**facts["split"]).rows(table.n_rows)[split])


def baseline_values(model: Model, baseline: EncoderBaseline, graphs: Graphs) -> np.ndarray:
    """Values of the encoder-only baseline in the tasks' units, float32 `[B, P]`."""
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
