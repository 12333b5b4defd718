"""From table and recipe to a pack: split, encoder alone, MoRA on the compiled base, test metrics, files."""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import rdkit
import torch

from . import __version__
from .base import CompiledBase, compile_base
from .baseline import EncoderBaseline
from .dataset import Dataset, read_dataset
from .device import describe_processor, training_dtype
from .encoder import GraphEncoder
from .errors import InputError
from .evaluate import evaluate_pack, record_metrics
from .hub import BASES, resolve_base
from .pack import Pack, check_free, save_pack
from .recipe import Recipe
from .scorer import Scorer
from .tasks import Task
from .train import FitSettings, Progress, fit

OnProgress = Callable[[str, Progress], None]


def train_pack(
    recipe: Recipe,
    table: Path,
    out: Path,
    device: torch.device,
    on_progress: OnProgress = lambda _stage, _progress: None,
    *,
    share_upper: bool = False,
    force: bool = False,
) -> Pack:
    """Train by `recipe` on `table` and write the pack to `out`.

    Checkpoints lie in `out` + `.run`; started again with the same recipe and table, it goes on where it was. Raises
    `InputError` for data that cannot be trained on.
    """
    check_free(out, force)
    base_path = resolve_base(recipe.base)  # before the work: it may have to be pulled first
    base_name = recipe.base if recipe.base in BASES else base_path.name  # a path is nobody else's business
    data = read_dataset(table, recipe.smiles, [task.column for task in recipe.tasks])
    split = recipe.split_of(data.n_rows)
    rows = split.rows(data.n_rows)
    train, valid = data.subset(rows["train"]), data.subset(rows["valid"])
    if not len(valid):
        raise InputError(f"{table}: no molecule of the {split.valid} validation rows could be read")
    tasks = fitted_tasks(recipe, train)
    train, valid = standardize(train, tasks), standardize(valid, tasks)
    pretrain, mora = (shrink_batch(s, len(train)) for s in (recipe.pretrain, recipe.mora))
    weights = [task.weight for task in recipe.tasks]
    run = out.with_name(out.name + ".run")

    torch.manual_seed(recipe.seed)
    encoder = GraphEncoder(recipe.adapter.encoder_width, recipe.adapter.encoder_layers)
    baseline = EncoderBaseline(encoder, len(tasks))
    fit(baseline, train, valid, weights, pretrain, run / "pretrain", device, lambda p: on_progress("encoder", p))

    base = compile_base(
        base_path, [task.prompt for task in tasks], recipe.adapter.adapted_layers, four_bit=recipe.four_bit
    )
    scorer = new_scorer(recipe, base, baseline, device)
    last = fit(scorer, train, valid, weights, mora, run / "mora", device, lambda p: on_progress("mora", p))

    provenance = {
        "data": {"file": table.name, "rows": data.n_rows, "smiles_sha256": data.fingerprint},
        "split": asdict(split),
        "recipe": {**recipe.as_dict(), "base": base_name},
        "trained": {"molecules": len(train), "valid_error": last.valid_error, **run_facts(device)},
        "prompt_ids": base.ids,
    }
    source = {"name": base_name, "sha256": base.sha256}
    pack = save_pack(
        out,
        recipe.name,
        scorer.cpu(),
        tasks,
        base.weights,
        source,
        provenance,
        baseline.cpu(),
        share_upper=share_upper,
        force=force,
    )
    record_metrics(pack, evaluate_pack(pack.path, table, device=str(device)))
    return pack


def new_scorer(recipe: Recipe, base: CompiledBase, baseline: EncoderBaseline, device: torch.device) -> Scorer:
    """An untrained scorer on `device` that starts from the baseline's encoder and answers every task's mean."""
    upper = base.upper(recipe.adapter.adapted_layers, training_dtype(device))
    torch.manual_seed(recipe.seed + 1)
    scorer = Scorer(recipe.adapter, upper, base.prompts)
    scorer.start_from(baseline.encoder.cpu())
    if device.type == "cpu" and shutil.which("g++"):
        # Fuses the many small steps between the matrix products: a fifth off a step of training on a CPU.
        scorer.compiled_score = torch.compile(scorer.upper.score)
    return scorer.to(device)


def fitted_tasks(recipe: Recipe, train: Dataset) -> tuple[Task, ...]:
    """Tasks with mean and deviation of the training targets, rounded to float32 as prediction uses them."""
    tasks = []
    for i, task in enumerate(recipe.tasks):
        values = train.targets[:, i][~np.isnan(train.targets[:, i])].astype(np.float64)
        if len(values) < 2 or values.min() == values.max():
            raise InputError(
                f"column {task.column!r}: got {len(values)} training values"
                f"{' that are all the same' if len(values) > 1 else ''}, expected at least two different ones"
            )
        mean, deviation = float(np.float32(values.mean())), float(np.float32(values.std()))
        tasks.append(Task(task.name, task.unit, task.prompt, mean, deviation, description=task.description))
    return tuple(tasks)


def standardize(data: Dataset, tasks: tuple[Task, ...]) -> Dataset:
    """The same data with z-scores for targets."""
    mean = np.array([task.mean for task in tasks], dtype=np.float32)
    deviation = np.array([task.deviation for task in tasks], dtype=np.float32)
    return replace(data, targets=(data.targets - mean) / deviation)


def shrink_batch(settings: FitSettings, n_train: int) -> FitSettings:
    """At least eight batches in an epoch, so that small tables train too."""
    return replace(settings, batch_size=max(1, min(settings.batch_size, n_train // 8)))


def run_facts(device: torch.device) -> dict[str, Any]:
    """When, where and with what a run was made; goes into the pack."""
    return {
        "date": date.today().isoformat(),
        "machine": describe_processor(device),
        "mora_lite": __version__,
        "commit": _commit(),
        "torch": torch.__version__,
        "rdkit": rdkit.__version__,
        "python": platform.python_version(),
        "dtype": str(training_dtype(device)).removeprefix("torch."),
    }


def _commit() -> str:
    """The commit of the source tree this runs from; empty for an installed package."""
    here = Path(__file__).resolve().parent
    if not (here.parent / ".git").exists():
        return ""
    try:
        command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
