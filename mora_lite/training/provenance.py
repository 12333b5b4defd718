"""When, where and with what a run was made, and how its error fell: what packs and checkpoints record of it."""

from __future__ import annotations

import hashlib
import json
import math
import platform
import subprocess
from contextlib import suppress
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import rdkit
import torch
from torch import nn

from .. import __version__
from ..chem.graph import ARRAYS
from ..machine.device import describe_processor, training_dtype
from .dataset import Dataset
from .losses import TargetStats


def run_metadata(device: torch.device) -> dict[str, Any]:
    """Date, machine and versions of a run on `device`; goes into the pack."""
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


def weights_digest(model: nn.Module) -> str:
    """SHA-256 of a model's parameters and their shapes."""
    digest = hashlib.sha256()
    for name, p in model.named_parameters():
        digest.update(f"{name}{tuple(p.shape)}".encode())
        digest.update(p.detach().cpu().numpy().tobytes())
    return digest.hexdigest()


def data_digest(train: Dataset, valid: Dataset, stats: TargetStats, origin: str) -> str:
    """SHA-256 of the molecules that train and validate, as the network sees them, their targets, the weights in the
    loss, and `origin`.
    """
    digest = hashlib.sha256((train.fingerprint + origin).encode())
    loss_weights = (t.cpu().numpy() for t in (stats.weights, stats.classes, stats.positive_weight, stats.auxiliary))
    graphs = (getattr(data.graphs, name) for data in (train, valid) for name in ARRAYS)
    for array in (train.rows, train.targets, valid.rows, valid.targets, *loss_weights, *graphs):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


class EpochLog:
    """`log.jsonl` in the folder of a stage: a line for each epoch; of an epoch that is there twice, the last counts.

    new: forget what another run has left there.
    """

    def __init__(self, folder: Path, new: bool = False):
        self.path = folder / "log.jsonl"
        if new:
            self.path.unlink(missing_ok=True)

    def add(self, progress: Any) -> None:
        """Append the progress of a whole epoch, a dataclass."""
        with self.path.open("a") as lines:
            lines.write(json.dumps(asdict(progress)) + "\n")

    def curve(self, per_epoch: int) -> list[list[float | None]]:
        """Of each epoch its number from 1, loss and validation error, to four significant digits; None for NaN.

        A line that is not whole is passed over. per_epoch: steps of an epoch.
        """
        epochs: dict[int, list[float]] = {}
        for line in self.path.read_text().splitlines() if self.path.exists() else []:
            with suppress(json.JSONDecodeError):
                entry = json.loads(line)
                epochs[entry["step"] // per_epoch] = [entry["loss"], entry["valid_error"]]
        return [[n, *(None if math.isnan(x) else float(f"{x:.4g}") for x in epochs[n])] for n in sorted(epochs)]
