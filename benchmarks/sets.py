"""The labelled sets of the comparisons: files, targets, splits, and the metric of each.

Files of MoleculeNet are as `chemprop` distributes them, with a column `scaffold_split` (Bemis-Murcko scaffolds in the
way of DeepChem's ScaffoldSplitter, 80/10/10). It is not a published split file. Files of the TDC ADMET group have the
official test set in a column `tdc_split`; of its `train_val` the seed of a run draws one row in eight to validate.
"""

from __future__ import annotations

import csv
import gzip
import random
import runpy
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

# The list of targets is that of the pack's endpoints.
TOX21 = list(runpy.run_path(str(Path(__file__).parents[1] / "examples" / "admet_endpoints.py"))["TOX21"])


@dataclass(frozen=True)
class LabelledSet:
    """kind: `value` (its metric is RMSE, or MAE or Spearman where the field uses it) or `class` (ROC-AUC, mean over
    targets)."""

    name: str
    targets: list[str]
    kind: str
    metric: str
    split: str = "scaffold_split"

    @property
    def smaller_is_better(self) -> bool:
        return self.metric in ("rmse", "mae")


SETS = {
    s.name: s
    for s in (
        LabelledSet("delaney", ["log_solubility_mol_per_L"], "value", "rmse"),
        LabelledSet("lipo", ["lipo"], "value", "rmse"),
        LabelledSet("bbbp", ["p_np"], "class", "roc_auc"),
        LabelledSet("bace", ["Class"], "class", "roc_auc"),
        LabelledSet("clintox", ["FDA_APPROVED", "CT_TOX"], "class", "roc_auc"),
        LabelledSet("tox21", TOX21, "class", "roc_auc"),
        LabelledSet("hiv", ["HIV_active"], "class", "roc_auc"),
        LabelledSet("qm9_10k", ["homo", "lumo", "gap"], "value", "mae", "split"),
        *(
            LabelledSet(name, [name], "class" if metric == "roc_auc" else "value", metric, "tdc_split")
            for name, metric in (
                ("caco2_wang", "mae"),
                ("herg", "roc_auc"),
                ("pgp_broccatelli", "roc_auc"),
                ("vdss_lombardo", "spearman"),
                ("half_life_obach", "spearman"),
                ("ppbr_az", "mae"),
                ("hia_hou", "roc_auc"),
                ("bioavailability_ma", "roc_auc"),
                ("dili", "roc_auc"),
                ("clearance_hepatocyte_az", "spearman"),
            )
        ),
    )
}


@dataclass(frozen=True)
class Rows:
    """A set's rows that RDKit can read. targets: float64 `[N, P]`, NaN where blank; split: train, valid or test."""

    smiles: list[str]
    targets: np.ndarray
    split: np.ndarray


def read_set(data: Path, labelled: LabelledSet, seed: int) -> Rows:
    """Read `data/<name>.csv.gz`. seed: what cuts `train_val`, where the set has that."""
    with gzip.open(data / f"{labelled.name}.csv.gz", "rt", encoding="utf-8", newline="") as file:
        rows = [r for r in csv.DictReader(file) if r[labelled.split] in ("train", "valid", "test", "train_val")]
    targets = [[float(row[t]) if row[t] else np.nan for t in labelled.targets] for row in rows]
    split = np.array([r[labelled.split] for r in rows])
    order = np.random.default_rng(seed).permutation(np.flatnonzero(split == "train_val"))
    split[order[len(order) // 8 :]], split[order[: len(order) // 8]] = "train", "valid"
    return Rows([r["smiles"] for r in rows], np.array(targets), split)


def test_metric(labelled: LabelledSet, truth: np.ndarray, predicted: np.ndarray) -> float:
    """The set's metric over `[N, P]`: per target, known cells only, then the mean over targets."""
    from scipy.stats import spearmanr
    from sklearn.metrics import roc_auc_score

    metrics = []
    for p in range(truth.shape[1]):
        known = ~np.isnan(truth[:, p])
        y, z = truth[known, p], predicted[known, p]
        if labelled.metric == "roc_auc":
            metrics.append(roc_auc_score(y, z))
        elif labelled.metric == "spearman":
            metrics.append(spearmanr(y, z).statistic)
        else:
            error = np.abs(y - z)
            metrics.append(np.sqrt((error**2).mean()) if labelled.metric == "rmse" else error.mean())
    return float(np.mean(metrics))


def make_qm9_10k(source: str, target: str) -> None:
    """The table of `qm9_10k` out of all of QM9."""
    with gzip.open(source, "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    random.Random(0).shuffle(rows)
    with gzip.open(target, "wt", encoding="utf-8", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["smiles", "homo", "lumo", "gap", "split"])
        for i, row in enumerate(rows[:20_000]):
            split = "train" if i < 10_000 else "valid" if i < 11_000 else "test"
            writer.writerow([row["smiles"], row["homo"], row["lumo"], row["gap"], split])


if __name__ == "__main__":
    make_qm9_10k(*sys.argv[1:])
