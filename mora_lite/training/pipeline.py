"""From table and recipe to a pack: checks, split, encoder alone, MoRA on the base, calibration, test, files."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import rdkit
import torch

from .. import __version__
from ..adapter.encoder import EncoderBaseline, GraphEncoder
from ..adapter.lowrank import AdapterConfig
from ..errors import InputError
from ..hub.bases import BASE_MODELS, resolve_base
from ..hub.models import is_hub_model
from ..lm.base import CompiledBase, compile_base
from ..machine.device import describe_processor, training_dtype
from ..packs.manifest import PACK
from ..packs.pack import Pack, install_pack, remove_file, save_pack
from ..scoring.scorer import Scorer
from ..scoring.tasks import Task
from .calibrate import calibrate_pack
from .checks import check_data, first_rows, looks_like_class, merge_duplicates
from .dataset import Dataset, read_dataset
from .evaluate import evaluate_pack, record_metrics
from .loop import TrainConfig, TrainProgress, fit, weights_digest
from .losses import TargetStats
from .pretrain import SHIPPED, load_encoder
from .recipe import Recipe
from .splits import split_notes, split_rows

OnProgress = Callable[[str, TrainProgress], None]
COMPILE_FROM = 20_000  # training molecules; compiling takes half a minute, more than a small run gains by it


def train_pack(
    recipe: Recipe,
    table: Path,
    out: Path,
    device: torch.device,
    on_progress: OnProgress = lambda _stage, _progress: None,
    on_note: Callable[[str], None] = lambda _note: None,
    *,
    share_upper: bool = False,
    keep_baseline: bool = True,
    force: bool = False,
) -> Pack:
    """Train by `recipe` on `table` and write the pack to `out`.

    Checkpoints lie in `out` + `.run`; started again with the same recipe and table, it goes on where it was. What is
    odd about the data is told by `on_note`, one line each. keep_baseline: False leaves the encoder alone out of the
    pack, once its test figures are recorded. Raises `InputError` for data that cannot be trained on.
    """
    PACK.check_free(out, force)
    base_path = resolve_base(recipe.base)  # before the work: it may have to be pulled first
    # A path is nobody else's business.
    base_name = recipe.base if recipe.base in BASE_MODELS or is_hub_model(recipe.base) else base_path.name
    encoder = start_encoder(recipe)
    columns = [task.column for task in recipe.tasks]
    given = recipe.split.column if recipe.split else ""
    read = read_dataset(table, recipe.smiles, columns, split_column=given or None)
    recipe = infer_task_kinds(recipe, read)
    classes = [task.kind == "class" for task in recipe.tasks]
    first = first_rows(read)
    notes = check_data(read, columns, classes, first)
    data, n_merged = merge_duplicates(read, classes, first)
    split = recipe.split_of(data)
    notes += split_notes(split, data)
    for note in notes:
        on_note(note)
    rows = split_rows(split, data)
    train, valid = data.subset(rows["train"]), data.subset(rows["valid"])
    if not len(valid):
        raise InputError(f"{table}: no molecule of the {len(rows['valid'])} validation rows could be read")
    tasks = fitted_tasks(recipe, train)
    train_z, valid_z = standardize(train, tasks), standardize(valid, tasks)
    facts = TargetStats.of(train_z.targets, classes, [task.weight for task in recipe.tasks])
    stages = {"encoder": recipe.encoder, "mora": recipe.mora}
    stages = {name: shrink_batch(settings, len(train)) for name, settings in stages.items()}
    run = out.with_name(out.name + ".run")

    torch.manual_seed(recipe.seed)
    encoder = encoder or GraphEncoder(recipe.adapter.encoder_width, recipe.adapter.encoder_layers)
    baseline = EncoderBaseline(encoder, len(tasks))

    done: list[dict[str, Any]] = []

    def fit_stage(name: str, model: torch.nn.Module, origin: str) -> None:
        settings = stages[name]
        show = partial(on_progress, name)
        last = fit(model, train_z, valid_z, facts, settings, run / name, device, show, origin)
        epochs = last.step // (len(train) // settings.batch_size)
        done.append({"stage": name, "epochs": epochs, "best_error": last.best_error})

    fit_stage("encoder", baseline, weights_digest(baseline))
    base = compile_base(
        base_path, [task.prompt for task in tasks], recipe.adapter.adapted_layers, four_bit=recipe.four_bit
    )
    scorer = new_scorer(recipe.adapter, base, baseline, device, recipe.seed + 1, compiled=len(train) >= COMPILE_FROM)
    stands_on = [weights_digest(baseline), base.sha256, base.ids, recipe.four_bit, recipe.adapter.as_dict()]
    fit_stage("mora", scorer, json.dumps(stands_on))

    provenance = {
        "data": {"file": table.name, "rows": data.n_rows, "smiles_sha256": data.fingerprint, "merged": n_merged},
        "split": asdict(split),
        "recipe": {**recipe.as_dict(), "base": base_name, "start": Path(recipe.start).name},
        "trained": {"molecules": len(train), "valid_error": done[-1]["best_error"], **run_facts(device)},
        "stages": done,
        "notes": notes,
        "prompt_ids": base.ids,
    }
    source = {"name": base_name, "sha256": base.sha256}
    staged = run / "pack"
    shutil.rmtree(staged, ignore_errors=True)
    pack = save_pack(staged, recipe.name, scorer.cpu(), tasks, base.weights, source, provenance, baseline.cpu())
    calibrate_pack(pack, train, valid, device=str(device))
    record_metrics(pack, evaluate_pack(staged, table, device=str(device)))
    if not keep_baseline:
        remove_file(pack, "baseline.safetensors")
    return install_pack(staged, out, share_upper=share_upper, force=force)


def start_encoder(recipe: Recipe) -> GraphEncoder | None:
    """The encoder that the recipe starts from; None for a random one. Raises `InputError` when its sizes differ."""
    if recipe.start == "random":
        return None
    encoder = load_encoder(SHIPPED if recipe.start == "pretrained" else Path(recipe.start))
    got, wanted = (encoder.width, len(encoder.layers)), (recipe.adapter.encoder_width, recipe.adapter.encoder_layers)
    if got != wanted:
        raise InputError(
            f"start = {recipe.start!r}: that encoder has width {got[0]} and {got[1]} layers, [adapter] wants "
            f'{wanted[0]} and {wanted[1]}; change one, or use start = "random"'
        )
    return encoder


def infer_task_kinds(recipe: Recipe, data: Dataset) -> Recipe:
    """The recipe with a kind for each task, and with it a prompt; columns of nothing but 0 and 1 become classes."""
    tasks = []
    for i, task in enumerate(recipe.tasks):
        values = data.targets[:, i]
        found = "class" if looks_like_class(values) and not task.unit else "value"
        if task.kind == "class" and not looks_like_class(values) and not np.isnan(values).all():
            odd = values[~np.isnan(values) & (values != 0) & (values != 1)][0]
            raise InputError(f"column {task.column!r}: got {odd:g}, expected 0 and 1 only, as it is a class")
        tasks.append(task.with_kind(task.kind or found))
    return replace(recipe, tasks=tuple(tasks))


def new_scorer(
    sizes: AdapterConfig,
    base: CompiledBase,
    baseline: EncoderBaseline,
    device: torch.device,
    seed: int,
    *,
    compiled: bool = False,
) -> Scorer:
    """An untrained scorer on `device` that starts from the baseline."""
    upper = base.upper(sizes.adapted_layers, training_dtype(device))
    torch.manual_seed(seed)
    scorer = Scorer(sizes, upper, base.prompts)
    scorer.start_from(baseline.cpu())
    if compiled and device.type == "cpu" and shutil.which("g++"):
        # Fuses the many small steps between the matrix products: a fifth off a step of training on a CPU.
        scorer.compiled_score = torch.compile(scorer.upper.score)
    return scorer.to(device)


def fitted_tasks(recipe: Recipe, train: Dataset) -> tuple[Task, ...]:
    """Tasks with mean and deviation of the training targets, rounded to float32 as prediction uses them.

    Classes: the log-odds of the training positives, and 1. Raises `InputError` for targets that teach nothing.
    """
    tasks = []
    for i, task in enumerate(recipe.tasks):
        values = train.targets[:, i][~np.isnan(train.targets[:, i])].astype(np.float64)
        if len(values) < 2 or values.min() == values.max():
            raise InputError(
                f"column {task.column!r}: got {len(values)} training values"
                f"{' that are all the same' if len(values) > 1 else ''}, expected at least two different ones"
            )
        mean, deviation = values.mean(), values.std()
        if task.kind == "class":
            mean, deviation = np.log(mean / (1 - mean)), 1.0
        numbers = float(np.float32(mean)), float(np.float32(deviation))
        tasks.append(Task(task.name, task.unit, task.prompt, *numbers, kind=task.kind, description=task.description))
    return tuple(tasks)


def standardize(data: Dataset, tasks: tuple[Task, ...]) -> Dataset:
    """The same data with z-scores for values; classes stay 0 and 1."""
    mean = np.array([0 if task.is_class else task.mean for task in tasks], dtype=np.float32)
    deviation = np.array([task.deviation for task in tasks], dtype=np.float32)
    return replace(data, targets=(data.targets - mean) / deviation)


def shrink_batch(settings: TrainConfig, n_train: int) -> TrainConfig:
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
    here = Path(__file__).resolve().parents[1]
    if not (here.parent / ".git").exists():
        return ""
    try:
        command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
