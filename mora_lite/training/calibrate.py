"""Calibration of a pack: error bars and probabilities from the validation molecules, domain and neighbours from the
training ones.

The validation molecules also selected the epoch, so they are a little easier than new ones; how well the
intervals hold is measured on the test molecules (`evaluate`).
"""

from __future__ import annotations

import numpy as np

from ..errors import InputError
from ..machine.progress import report, track
from ..model import load
from ..packs.manifest import TRAINING
from ..packs.pack import Pack, add_files, remove_file, write_manifest
from ..scoring.conformal import TRAINING_ROWS, Calibration, Intervals, Platt
from ..scoring.domain import threshold_of
from ..scoring.training_molecules import TrainingMolecules
from .dataset import Dataset

OF_CALIBRATION = ("inside", "mean_width", "brier", "ece")  # metrics
KEEPS_DATA = (
    "the pack will hold its training molecules with their values, to name neighbours from; --without-data leaves them "
    "out"
)


def calibrate_pack(
    pack: Pack,
    train: Dataset,
    valid: Dataset,
    *,
    keep_data: bool = True,
    device: str = "auto",
    dtype: str = "auto",
) -> None:
    """Write calibration and domain into the pack; targets of both sets are in the tasks' units.

    keep_data: write the training molecules and their values too; else those that were in the pack are taken out.

    Figures that the pack records of another calibration are taken out of it. Raises `InputError` for a task that was
    calibrated and now has no validation value.
    """
    report("calibrating")
    _check_values(pack, valid)
    model = load(pack, device=device, dtype=dtype)
    training = TrainingMolecules.of(train.smiles, train.targets, train.fingerprints())
    domain = training.domain
    report("similarity to the training molecules")
    similarity = domain.similarity(valid.fingerprints(), model.device)
    values = model.score_graphs(valid.graphs)
    trained = train.at(_some_of_each(train.targets))
    trained_values = model.score_graphs(trained.graphs)
    parts: list[Intervals | Platt] = []
    thresholds = []
    for i, task in enumerate(track(pack.tasks, "fitting intervals", 1)):
        truth = task.on_scale(valid.targets[:, i])
        known = ~np.isnan(truth)
        thresholds.append(threshold_of(similarity[known, i]))
        if task.is_class:
            parts.append(Platt.fit(values[known, i], truth[known]))
        else:
            training_error = trained_values[:, i] - task.on_scale(trained.targets[:, i])
            parts.append(Intervals.fit(values[known, i], truth[known], similarity[known, i], training_error))
    files = {"calibration": Calibration(parts, thresholds).tensors(), "domain": domain.tensors()}
    if keep_data:
        files[TRAINING] = training.tensors()
    elif pack.has(TRAINING):
        remove_file(pack, f"{TRAINING}.safetensors")
    before = {name: pack.manifest["files"].get(f"{name}.safetensors") for name in files}
    add_files(pack, files)
    if any(pack.manifest["files"][f"{name}.safetensors"] != before[name] for name in ("calibration", "domain")):
        _forget_figures(pack)


def _check_values(pack: Pack, valid: Dataset) -> None:
    old = pack.load_calibration()
    for i, (task, part) in enumerate(zip(pack.tasks, old.parts, strict=True) if old else ()):
        was_calibrated = len(part.scores) > 0 if isinstance(part, Intervals) else part != Platt(1.0, 0.0)
        if was_calibrated and np.isnan(valid.targets[:, i]).all():
            raise InputError(
                f"task {task.name!r}: got no value for any of {len(valid)} validation molecules, expected those it "
                "was calibrated on before; give the table that the pack was trained on"
            )


def _forget_figures(pack: Pack) -> None:
    """Take out what was measured of other intervals, probabilities and domains; `evaluate --record` adds it."""
    for metrics in (pack.provenance.get("test") or {}).values():
        for name in OF_CALIBRATION:
            metrics.pop(name, None)
    pack.provenance.pop("tables", None)
    write_manifest(pack.path, pack.manifest)


def _some_of_each(targets: np.ndarray) -> np.ndarray:
    """Positions, ascending int64, with `TRAINING_ROWS` known values of each task, or all if there are fewer.

    targets: float32 `[N, P]`, NaN where unknown.
    """
    order = np.random.default_rng(0).permutation(len(targets))
    known = ~np.isnan(targets[order])
    return np.sort(order[(known & (known.cumsum(0) <= TRAINING_ROWS)).any(1)])
