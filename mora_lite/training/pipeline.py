"""From table and recipe to a pack: checks, split, encoder alone, MoRA on the base, calibration, test, files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..adapter.encoder import EncoderBaseline, GraphEncoder
from ..adapter.lowrank import AdapterConfig
from ..errors import InputError, did_you_mean
from ..hub.bases import BASE_MODELS, resolve_base
from ..hub.models import is_hub_model
from ..lm.base import CompiledBase, compile_base
from ..machine.device import choose_device, training_dtype
from ..machine.files import copy_file, lock
from ..machine.progress import report
from ..packs.manifest import PACK
from ..packs.pack import Pack, add_files, install_pack, remove_file, save_pack
from ..scoring.scorer import Scorer
from ..scoring.tasks import Task
from ..scoring.trees import Trees, import_lightgbm
from ..tables.columns import plain_name
from ..tables.library import open_library
from ..tables.source import is_stream
from ..tables.writers import claim_output
from .calibrate import KEEPS_DATA, calibrate_pack
from .checks import check_data, choose_scales, class_note, first_rows, looks_like_class, merge_duplicates
from .dataset import Dataset, read_dataset
from .evaluate import evaluate, record_metrics
from .losses import TargetStats
from .pretrain import STARTS, load_encoder, start_notes
from .provenance import run_metadata, weights_digest
from .recipe import Recipe, choose_recipe, with_whole_names
from .splits import Split, digest_of_marks, part_notes, split_notes, split_rows
from .stages import OnProgress, Stages, fit_encoder

COMPILE_FROM = 20_000  # training molecules; compiling takes half a minute, more than a small run gains by it


def train(
    data: str | Path,
    output: str | Path,
    *,
    targets: str | Sequence[str] = (),
    recipe: Recipe | str | Path | None = None,
    smiles_column: str | None = None,
    split: str | None = None,
    base: str | None = None,
    start: str | None = None,
    standardize: str | None = None,
    trees: bool = False,
    encoder_epochs: int | None = None,
    epochs: int | None = None,
    patience: int | None = None,
    batch_size: int | None = None,
    seed: int | None = None,
    device: str = "auto",
    unquantized: bool = False,
    without_data: bool = False,
    share_upper: bool = False,
    drop_baseline: bool = False,
    report: str | Path | None = None,
    force: bool = False,
    on_note: Callable[[str], None] = lambda _note: None,
    on_progress: OnProgress = lambda _stage, _progress: None,
) -> Pack:
    """Train on the table `data` and write the pack to `output`; what `mora-lite train` does.

    targets: `COLUMN`, `COLUMN:UNIT`, `COLUMN:class` or `COLUMN:value`, one or several. recipe: in place of targets, a
    recipe or the path of its TOML file; the options up to `seed` take precedence over its entries, and None leaves each
    as the recipe has it. split: `random`, `scaffold`, or the name of a column that says train, valid or test.
    base: a name known to `pull`, a path, or owner/name. start: of the encoder, `endpoints`, `structures`, `random`, or
    a file of `mora-lite pretrain`. standardize: `parent` or `none`. trees: average with boosted trees on descriptors.
    encoder_epochs, epochs: of the encoder alone, and of the whole. patience: epochs without progress before a stage
    stops, 0 for never. batch_size: molecules in a step. device: as for `load`. unquantized: leave the base as it is, to
    measure what 4 bits cost. without_data: leave the training molecules out of the pack, which then names no
    neighbours. share_upper: keep the base's layers beside the pack. drop_baseline: leave out the encoder alone, once
    measured. report: file for a page with charts, HTML; None for `output` + `.report.html`. force: replace what is
    there. on_note: gets each note, a line. on_progress: gets a stage's name and progress.

    Checkpoints are kept in `output` + `.run`; started again with the same arguments, training continues from them.
    Raises `InputError` for data that cannot be trained on, `OutputError` while another process trains this pack.
    """
    entries: dict[str, Any] = {"smiles": smiles_column, "base": base, "start": start, "standardize": standardize}
    entries |= {"four_bit": False if unquantized else None, "keep_data": False if without_data else None}
    entries |= {"trees": trees or None, "split": split, "seed": seed}
    stage = {"batch_size": batch_size, "seed": seed, "patience": patience}
    entries |= {"encoder": {"epochs": encoder_epochs, **stage}, "mora": {"epochs": epochs, **stage}}
    recipe = choose_recipe(recipe, targets, Path(output).name, **entries)
    table, output, chosen = Path(data), Path(output), choose_device(device)
    page, run = _claim(output, report, table, force), output.with_name(output.name + ".run")
    origin, prepared = _prepare(recipe, table, on_note)
    with lock(run):
        pack = _train(prepared, *origin, run, chosen, on_progress)
        written = _evaluate(pack, table, chosen, drop_baseline)
        pack = install_pack(pack.path, output, share_upper=share_upper, force=force)
        copy_file(written, page)  # not into the pack, which is passed on without the test molecules
        return pack


def _evaluate(pack: Pack, table: Path, device: torch.device, drop_baseline: bool) -> Path:
    """Record the metrics of the test molecules in the pack; the page about them, which lies beside it."""
    page = pack.path.with_name("report.html")
    record_metrics(pack, evaluate(pack.path, table, device=str(device), report=page, force=True))
    if drop_baseline:
        remove_file(pack, "baseline.safetensors")
    return page


def _claim(output: Path, report: str | Path | None, table: Path, force: bool) -> Path:
    """Where the page goes. Raises `OutputError` before the work where it or the pack cannot be written."""
    PACK.check_free(output, force)
    page = report_path(output, report)
    if report is not None or page.parent.is_dir():  # which training makes
        claim_output(page, source=table, force=force)
    return page


def report_path(output: str | Path, report: str | Path | None = None) -> Path:
    """Where `train` writes the page about a pack."""
    return Path(report) if report is not None else Path(output).with_name(f"{Path(output).name}.report.html")


def _prepare(
    recipe: Recipe, table: Path, on_note: Callable[[str], None]
) -> tuple[tuple[Path, GraphEncoder | None], TrainingData]:
    """What training starts from, the base model and the encoder, and the table; all that may be refused."""
    if recipe.keep_data:
        on_note(KEEPS_DATA)
    if recipe.trees:
        import_lightgbm()
    origin = resolve_base(recipe.base), start_encoder(recipe)
    return origin, read_training_data(recipe, table, on_note)


def _train(
    prepared: TrainingData,
    base_path: Path,
    encoder: GraphEncoder | None,
    run: Path,
    device: torch.device,
    on_progress: OnProgress,
) -> Pack:
    """Both stages and the calibration; the pack that comes of them is in the folder `run`, where checkpoints are."""
    recipe, tasks, n_train = prepared.recipe, prepared.tasks, len(prepared.train)
    train, valid = standardize(prepared.train, tasks), standardize(prepared.valid, tasks)
    auxiliary = [task.auxiliary for task in recipe.tasks]
    weights = [task.weight for task in recipe.tasks]
    stats = TargetStats.of(train.targets, [task.is_class for task in tasks], weights, auxiliary)

    torch.manual_seed(recipe.seed)
    encoder = encoder or GraphEncoder(recipe.adapter.encoder_width, recipe.adapter.encoder_layers)
    if recipe.rare_sizes:
        train = train.with_rare_sizes(recipe.rare_sizes)
    stages = Stages(train, valid, stats, run, device, on_progress)
    baseline, stages = fit_encoder(encoder, recipe, stages)
    if any(auxiliary):
        answered = np.flatnonzero(~np.array(auxiliary))
        baseline.select(answered.tolist())
        tasks = tuple(tasks[i] for i in answered)
        stages = stages.at_tasks(answered)
        prepared = replace(prepared, train=prepared.train.at_tasks(answered), valid=prepared.valid.at_tasks(answered))
    report("compiling the prompts")
    base = compile_base(
        base_path, [task.prompt for task in tasks], recipe.adapter.adapted_layers, four_bit=recipe.four_bit
    )
    scorer = new_scorer(recipe.adapter, base, baseline, device, recipe.seed + 1, compiled=n_train >= COMPILE_FROM)
    depends_on = [weights_digest(baseline), base.sha256, base.ids, recipe.four_bit, recipe.adapter.as_dict()]
    stages.fit("mora", scorer, recipe.mora, json.dumps(depends_on))

    # The name alone: a path on this machine is private.
    base_name = recipe.base if recipe.base in BASE_MODELS or is_hub_model(recipe.base) else base_path.name
    trained = {"molecules": n_train, "values": prepared.n_values(), "valid_error": stages.done[-1]["best_error"]}
    provenance = {
        **prepared.as_provenance(),
        "recipe": {**recipe.as_dict(), "base": base_name, "start": Path(recipe.start).name},
        "trained": trained | run_metadata(device),
        "stages": stages.done,
        "prompt_ids": base.ids,
    }
    staged, source = run / "pack", {"name": base_name, "sha256": base.sha256}
    shutil.rmtree(staged, ignore_errors=True)
    parts = scorer.cpu(), tasks, base.weights, source, provenance, baseline.cpu(), recipe.featurizer
    pack = save_pack(staged, recipe.name, *parts)
    if recipe.trees:
        add_files(pack, {"trees": grow_trees(prepared.train, tasks, recipe.seed).tensors()})
    calibrate_pack(pack, prepared.train, prepared.valid, keep_data=recipe.keep_data, device=str(device))
    return pack


def grow_trees(train: Dataset, tasks: tuple[Task, ...], seed: int) -> Trees:
    """Trees on the descriptors of molecules with targets in the tasks' units."""
    assert train.graphs.descriptors is not None
    targets = np.stack([task.on_scale(train.targets[:, i]) for i, task in enumerate(tasks)], axis=1)
    return Trees.grow(train.graphs.descriptors, targets, [task.is_class for task in tasks], seed)


@dataclass(frozen=True)
class TrainingData:
    """A table that has been read, checked and split.

    recipe: with a kind, a scale and a prompt for each task, and the epochs of each stage.
    train, valid: the molecules of these parts with a value of some task, each once; targets in the tasks' units.
    provenance: of the table, for the pack. notes: about the data, a line each.
    """

    recipe: Recipe
    tasks: tuple[Task, ...]
    split: Split
    train: Dataset
    valid: Dataset
    provenance: dict[str, Any]
    notes: list[str]

    def as_provenance(self) -> dict[str, Any]:
        """What the pack records of it."""
        return {"data": self.provenance, "split": asdict(self.split), "notes": self.notes}

    def n_values(self) -> dict[str, int]:
        """How many values each task that is answered is trained on."""
        tasks = (task.name for task in self.recipe.tasks if not task.auxiliary)
        return dict(zip(tasks, self.train.n_values(), strict=True))


def read_training_data(recipe: Recipe, table: Path, on_note: Callable[[str], None]) -> TrainingData:
    """Read, check and split `table` as `recipe` says. Raises `InputError` for data that cannot be trained on."""
    if is_stream(str(table)):
        raise InputError(f"{table}: a table is read twice, to train and to test; save it as a file first")
    split_column = recipe.split.column if recipe.split else ""
    with open_library(str(table), recipe.smiles or None, cells=True) as library:
        recipe = with_whole_names(recipe, library.columns)
        if split_column and plain_name(split_column) not in map(plain_name, library.columns):
            known = did_you_mean(split_column, {"random", "scaffold", *library.columns} - {""})
            raise InputError(f"split: got {split_column!r}, expected random, scaffold or a column of {table}: {known}")
        columns = [task.column for task in recipe.tasks]
        read = read_dataset(library, recipe.smiles or None, columns, split_column or None, recipe.featurizer)
    open_kinds = [not task.kind and not task.unit for task in recipe.tasks]
    recipe = infer_task_kinds(recipe, read)
    classes = [task.kind == "class" for task in recipe.tasks]
    first = first_rows(read)
    notes = read.notes + check_data(read, columns, classes, first)
    for i in np.flatnonzero(open_kinds):
        notes += class_note(columns[i], read.targets[:, i])
    data, n_merged = merge_duplicates(read, classes, first)
    split = recipe.split_of(data)
    rows = split_rows(split, data)  # before its notes: they have no meaning for a split that cannot be used
    notes += split_notes(split, read, first)
    for note in notes:
        on_note(note)
    parts = {name: data.subset(at) for name, at in rows.items()}
    if not len(parts["valid"]):
        raise InputError(f"{table}: no molecule of the {len(rows['valid'])} validation rows could be read")
    train, valid = (parts[name].with_values() for name in ("train", "valid"))
    recipe, scale_notes = choose_scales(recipe.with_epochs(len(train)), train, valid)
    answered = {i: task.column for i, task in enumerate(recipe.tasks) if not task.auxiliary}
    later = [*part_notes(parts, answered, classes), *scale_notes, *start_notes(recipe.start, valid.smiles)]
    for note in later:
        on_note(note)
    notes += later
    provenance = {"file": table.name, "rows": data.n_rows, "smiles_sha256": data.fingerprint, "merged": n_merged}
    if split.kind == "given":
        provenance["parts_sha256"] = digest_of_marks(data.marks)
    return TrainingData(recipe, fitted_tasks(recipe, train), split, train, valid, provenance, notes)


def start_encoder(recipe: Recipe) -> GraphEncoder | None:
    """The encoder that the recipe starts from; None for a random one. Raises `InputError` when its sizes differ."""
    if recipe.start == "random":
        return None
    if recipe.start not in STARTS and not Path(recipe.start).exists():
        known = did_you_mean(recipe.start, ["endpoints", "structures", "random"])
        raise InputError(f"start: got {recipe.start!r}, expected a file of `mora-lite pretrain` or a name: {known}")
    encoder = load_encoder(STARTS.get(recipe.start) or Path(recipe.start))
    got, expected = (encoder.width, len(encoder.layers)), (recipe.adapter.encoder_width, recipe.adapter.encoder_layers)
    if got != expected:
        raise InputError(
            f"start = {recipe.start!r}: that encoder has width {got[0]} and {got[1]} layers, [adapter] wants "
            f'{expected[0]} and {expected[1]}; change one, or use start = "random"'
        )
    return encoder


def infer_task_kinds(recipe: Recipe, data: Dataset) -> Recipe:
    """The recipe with a kind and a prompt for each task; columns of nothing but 0 and 1 become classes."""
    tasks = []
    for i, task in enumerate(recipe.tasks):
        values = data.targets[:, i]
        inferred = "class" if looks_like_class(values) and not task.unit else "value"
        if task.kind == "class" and not looks_like_class(values) and not np.isnan(values).all():
            odd = values[~np.isnan(values) & (values != 0) & (values != 1)][0]
            raise InputError(
                f"column {task.column!r}: got {odd:g}, expected 0 and 1 only, as it is a class; write two classes as 0 "
                "and 1, and of more than two make a column of 0 and 1 for each"
            )
        tasks.append(task.with_kind(task.kind or inferred))
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
        scorer.training_score = torch.compile(scorer.upper.score)
    return scorer.to(device)


def fitted_tasks(recipe: Recipe, train: Dataset) -> tuple[Task, ...]:
    """Tasks with mean and standard deviation of the training targets, rounded to float32 as prediction uses them.

    recipe: with a kind and a scale for each task, on which mean and deviation are.
    For a class the mean is the log-odds of the training positives and the deviation is 1. Raises `InputError` for
    targets that nothing can be learnt from.
    """
    tasks = []
    for i, task in enumerate(recipe.tasks):
        entries = {name: getattr(task, name) for name in ("name", "unit", "prompt", "kind", "description", "scale")}
        fitted = Task(**entries, mean=0.0, deviation=1.0)
        values = fitted.on_scale(train.targets[:, i][~np.isnan(train.targets[:, i])].astype(np.float64))
        deviation = float(np.float32(values.std())) if len(values) else 0.0
        if len(values) < 2 or values.min() == values.max() or not deviation:
            raise InputError(
                f"column {task.column!r}: got {len(values)} training values"
                f"{' that are all the same' if len(values) > 1 else ''}, expected at least two different ones"
            )
        mean = values.mean()
        if fitted.is_class:
            mean, deviation = np.log(mean / (1 - mean)), 1.0
        tasks.append(replace(fitted, mean=float(np.float32(mean)), deviation=deviation))
    return tuple(tasks)


def standardize(data: Dataset, tasks: tuple[Task, ...]) -> Dataset:
    """The same data with z-scores for values, on their scales; classes stay 0 and 1."""
    mean = np.array([0 if task.is_class else task.mean for task in tasks], dtype=np.float32)
    std = np.array([task.deviation for task in tasks], dtype=np.float32)
    targets = np.stack([task.on_scale(data.targets[:, i]) for i, task in enumerate(tasks)], axis=1)
    return replace(data, targets=(targets - mean) / std)
