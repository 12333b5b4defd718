"""A pack's error on data with known values, beside the encoder-only baseline and beside the unquantised base model."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .base import compile_base
from .baseline import EncoderBaseline
from .dataset import Dataset, Split, read_dataset
from .errors import CheckpointError, InputError, PackError
from .graph import Graphs
from .hub import resolve_base
from .metrics import value_metrics
from .model import Model, load

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
    base: Path | None = None,
    smiles_column: str | None = None,
) -> Metrics:
    """Task name -> metrics.

    `unit`, `n`, `mae`, `rmse`, `r2` of the pack; `encoder_mae`, of the encoder-only baseline; and
    `bf16_mae`, of the same adapter on the unquantised base in bfloat16, with `loss_4bit` = mae / bf16_mae - 1.

    split: `train`, `valid`, `test` by the split that the pack records, or `all`. base: the unquantised base model; None
    looks in the cache and leaves the comparison out when it is not there. Raises `InputError` when the table is not the
    one that the pack was split by, or lacks a column.
    """
    model = load(pack, device=device, dtype=dtype, tasks=tasks)
    facts = model.pack.provenance
    column = smiles_column or facts["recipe"]["smiles"]
    columns = {task["name"]: task["column"] for task in facts["recipe"]["tasks"]}
    table = read_dataset(data, column, [columns[task.name] for task in model.tasks])
    part = choose_rows(table, split, facts, model.pack.name, data)
    if limit is not None:
        part = part.subset(part.rows[:limit])

    predicted = model.score_graphs(part.graphs, batch_size)
    results: Metrics = {}
    for i, task in enumerate(model.tasks):
        results[task.name] = {"unit": task.unit, **value_metrics(predicted[:, i], part.targets[:, i])}
    for name, values in other_models(model, part.graphs, base).items():
        for i, task in enumerate(model.tasks):
            results[task.name][f"{name}_mae"] = value_metrics(values[:, i], part.targets[:, i])["mae"]
    for row in results.values():
        if row.get("bf16_mae"):
            row["loss_4bit"] = row["mae"] / row["bf16_mae"] - 1
    return results


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


def other_models(model: Model, graphs: Graphs, base: Path | None) -> dict[str, np.ndarray]:
    """Values float32 `[B, P]` of what the pack is compared with: `encoder` and `bf16`, where they can be had."""
    found = {}
    with suppress(PackError):  # a pack may come without its baseline
        found["encoder"] = baseline_values(model, model.pack.load_baseline(), graphs)
    try:
        path = resolve_base(base if base is not None else model.pack.base)
    except CheckpointError:
        if base is not None:
            raise
        return found
    found["bf16"] = unquantized(model, path).score_graphs(graphs)
    return found


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


def unquantized(model: Model, base: Path) -> Model:
    """The same adapter on the base model's weights as they were before NF4, in bfloat16."""
    k = model.pack.sizes.adapted_layers
    prompts = [task.prompt for task in model.tasks]
    compiled = compile_base(base, prompts, k, four_bit=False)
    scorer = model.pack.load_scorer(torch.bfloat16)
    scorer.select([model.pack.tasks.index(task) for task in model.tasks])
    scorer.prompts = compiled.prompts
    scorer.upper = compiled.upper(k, torch.bfloat16)
    return Model(model.pack, scorer.to(model.device).eval(), model.tasks, torch.bfloat16)
