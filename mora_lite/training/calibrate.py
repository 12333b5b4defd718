"""Calibration of a pack: error bars and probabilities from the validation molecules, the domain from the training ones.

The validation molecules also selected the epoch, so they are a little easier than new ones; how well the
intervals hold is measured on the test molecules (`evaluate`).
"""

from __future__ import annotations

import numpy as np

from ..chem.fingerprints import smiles_fingerprints
from ..model import load
from ..packs.pack import Pack, add_files
from ..scoring.conformal import Calibration, Intervals, Platt
from ..scoring.domain import Domain, threshold_of
from .dataset import Dataset


def calibrate_pack(pack: Pack, train: Dataset, valid: Dataset, *, device: str = "auto", dtype: str = "auto") -> None:
    """Write calibration and domain into the pack; targets of both sets are in the tasks' units."""
    model = load(pack.path, device=device, dtype=dtype)
    domain = Domain.of(smiles_fingerprints(train.smiles), ~np.isnan(train.targets))
    similarity = domain.similarity(smiles_fingerprints(valid.smiles), model.device)
    values = model.score_graphs(valid.graphs)
    parts: list[Intervals | Platt] = []
    thresholds = []
    for i, task in enumerate(pack.tasks):
        truth = task.on_scale(valid.targets[:, i])
        known = ~np.isnan(truth)
        thresholds.append(threshold_of(similarity[known, i]))
        if task.is_class:
            parts.append(Platt.fit(values[known, i], truth[known]))
        else:
            parts.append(Intervals.fit(values[known, i], truth[known], similarity[known, i]))
    add_files(pack, {"calibration": Calibration(parts, thresholds).tensors(), "domain": domain.tensors()})
