"""The table that boards are trained on together, as graphs and learnt values, kept beside it so that runs start soon.

The table has a column `smiles`, each molecule once; every other column but `split` and `sources` is a task, blank where
unknown. Boards are columns named like their files, with values of `train_val` alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from tdc_data import BOARDS

from mora_lite.chem.featurizer import Featurizer
from mora_lite.chem.graph import Graphs, concatenate
from mora_lite.scoring.tasks import on_scale
from mora_lite.training.checks import looks_like_class, suits_log
from mora_lite.training.dataset import Dataset
from mora_lite.training.losses import TargetStats

NO_TASKS = ("smiles", "split", "sources")
GRAPH_ARRAYS = ("atoms", "bonds", "bond_endpoints", "atom_ptr", "bond_ptr")
LEAST_VALUES, LEAST_OF_CLASS = 20, 5  # a column with fewer teaches nothing
MAX_Z = 4.0  # of a learnt value: a few far ones would carry the loss


@dataclass(frozen=True)
class Union:
    """data: all molecules, targets in the tasks' units, NaN where unknown. columns: names of the `P` targets."""

    data: Dataset
    columns: list[str]

    def without(self, names: Sequence[str]) -> Union:
        """Without these columns."""
        kept = [i for i, name in enumerate(self.columns) if name not in names]
        return Union(replace(self.data, targets=self.data.targets[:, kept]), [self.columns[i] for i in kept])


def read_union(table: Path) -> Union:
    """Read `table`, from the file beside it where that was made of the same table."""
    digest = hashlib.sha256(table.read_bytes()).hexdigest()
    kept = table.with_name(table.name + ".npz")
    if kept.exists():
        with np.load(kept) as arrays:
            if str(arrays["digest"]) == digest:
                smiles, columns = (bytes(arrays[name]).decode().split("\n") for name in ("smiles", "columns"))
                graphs = Graphs(*(arrays[name] for name in GRAPH_ARRAYS))
                return Union(_dataset(smiles, graphs, arrays["targets"], digest), columns)
    union = _read_table(table, digest)
    data, texts = union.data, {"smiles": union.data.smiles, "columns": union.columns}
    arrays = {name: np.frombuffer("\n".join(text).encode(), np.uint8) for name, text in texts.items()}
    arrays |= {name: getattr(data.graphs, name) for name in GRAPH_ARRAYS}
    part = kept.with_name(kept.name + ".part.npz")
    np.savez(part, digest=np.array(digest), targets=data.targets, **arrays)
    part.replace(kept)
    return union


def _read_table(table: Path, digest: str) -> Union:
    import pandas as pd

    frame = pd.read_csv(table, low_memory=False)
    columns = [name for name in frame.columns if name not in NO_TASKS]
    targets = frame[columns].to_numpy(dtype=np.float32)
    featurizer, parts, rows = Featurizer(), [], []
    smiles = frame["smiles"].tolist()
    for start in range(0, len(smiles), 4096):
        parsed = [featurizer.parse_smiles(text).mol for text in smiles[start : start + 4096]]
        good = [i for i, mol in enumerate(parsed) if mol is not None]
        parts.append(featurizer.graphs([parsed[i] for i in good]))
        rows += [start + i for i in good]
    return Union(_dataset([smiles[i] for i in rows], concatenate(parts), targets[rows], digest), columns)


def _dataset(smiles: list[str], graphs: Graphs, targets: np.ndarray, fingerprint: str) -> Dataset:
    return Dataset(smiles, graphs, targets, np.arange(len(smiles)), len(smiles), fingerprint)


@dataclass(frozen=True)
class Tasks:
    """The columns that are trained, and how their values are learnt. mean, deviation: float32 `[P]`, 0 and 1 for a
    class. data: targets are z-scores on the tasks' scales, clipped, or 0 and 1."""

    names: list[str]
    mean: np.ndarray
    deviation: np.ndarray
    stats: TargetStats
    data: Dataset

    def learnt(self, scores: np.ndarray) -> np.ndarray:
        """Scores of a model, float32 `[N, P]` -> values on the tasks' scales; of classes, log-odds."""
        return scores * self.deviation + self.mean + self.stats.prior.numpy()


def fit_tasks(union: Union, leave_out: np.ndarray) -> Tasks:
    """The tasks and training molecules that are left. leave_out: bool `[N]`, which molecules are out, of every task.

    Boards have scales of their own; any other column is learnt as logarithms where that suits.
    """
    data = union.data.at(np.flatnonzero(~leave_out))
    kept, columns = [], []
    for i, name in enumerate(union.columns):
        values = data.targets[:, i].astype(np.float64)
        known = values[~np.isnan(values)]
        is_class = looks_like_class(values)
        if len(known) < LEAST_VALUES or (is_class and min(known.sum(), len(known) - known.sum()) < LEAST_OF_CLASS):
            continue
        scale = "odds" if is_class else "log" if suits_log(known) else "linear"
        columns.append(on_scale(values, BOARDS[name].scale if name in BOARDS else scale))
        kept.append((name, is_class))
    targets = np.stack(columns, axis=1)
    classes = [is_class for _, is_class in kept]
    mean = np.where(classes, 0, np.nanmean(targets, axis=0)).astype(np.float32)
    deviation = np.where(classes, 1, np.nanstd(targets, axis=0)).astype(np.float32)
    scores = np.clip((targets - mean) / deviation, -MAX_Z, MAX_Z).astype(np.float32)
    known_rows = np.flatnonzero(~np.isnan(scores).all(axis=1))
    data = replace(data, targets=scores).at(known_rows)
    stats = TargetStats.of(data.targets, classes, [1.0] * len(kept))
    return Tasks([name for name, _ in kept], mean, deviation, stats, data)


def board_graphs(
    smiles: Sequence[str],
    featurizer: Featurizer = Featurizer(),  # noqa: B008 - it cannot change
) -> tuple[Graphs, np.ndarray]:
    """Graphs of the molecules that can be read, and their positions, int64."""
    parsed = [featurizer.parse_smiles(text).mol for text in smiles]
    good = np.array([i for i, mol in enumerate(parsed) if mol is not None], dtype=np.int64)
    return featurizer.graphs([parsed[i] for i in good]), good


def float32_scores(model: torch.nn.Module, graphs: Graphs, device: torch.device) -> np.ndarray:
    """Scores float32 `[N, P]`; in float32, as the coarse steps of bfloat16 would tie molecules."""
    model.eval()
    parts = []
    with torch.inference_mode():
        for start in range(0, len(graphs), 1024):
            rows = np.arange(start, min(start + 1024, len(graphs)))
            parts.append(model(graphs.select(rows).batch(device).rounded())[: len(rows)].float().cpu().numpy())
    return np.concatenate(parts)
