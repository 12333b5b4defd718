"""The 22 boards of the TDC ADMET group: rows, metrics, published values, splits, and which molecules would leak.

A folder `--data` holds `<board>.csv.gz` with the columns `smiles`, `<board>` and `tdc_split` (`train_val` or `test`),
rows in the order of the group's files. `tdc_boards.csv` beside this file has what the leaderboards print: board, model,
mean, standard deviation, and 1 where labels of the test set are suspected in the model's pre-training.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rdkit import Chem, rdBase

from mora_lite.chem.molecules import scaffold_of
from mora_lite.chem.standardize import COMPANIONS, parent_of
from mora_lite.machine.files import replacing_path
from mora_lite.scoring.tasks import in_unit

PUBLISHED = Path(__file__).with_name("tdc_boards.csv")


@dataclass(frozen=True)
class Board:
    """metric: mae, spearman, roc_auc or pr_auc. scale: what is learnt and averaged: `linear`, `log` (to base 10),
    `logit` (of a percentage), or `odds`, the log-odds of a class."""

    name: str
    metric: str
    scale: str = "odds"

    @property
    def smaller_is_better(self) -> bool:
        return self.metric == "mae"

    def in_unit(self, values: np.ndarray) -> np.ndarray:
        """Learnt values -> the board's unit; log-odds and logarithms stay, as their metrics go by order alone."""
        return in_unit(values, "logit") if self.scale == "logit" else values

    def score(self, truth: np.ndarray, predicted: np.ndarray) -> float:
        """The board's metric. predicted: float `[N]`, on the board's scale; NaN where a metric needs two classes."""
        return _METRICS[self.metric](truth, self.in_unit(predicted))


def _mae(truth: np.ndarray, predicted: np.ndarray) -> float:
    return float(np.abs(truth - predicted).mean())


def _spearman(truth: np.ndarray, predicted: np.ndarray) -> float:
    from scipy.stats import spearmanr

    return float(spearmanr(truth, predicted).statistic)


def _roc_auc(truth: np.ndarray, predicted: np.ndarray) -> float:
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(truth, predicted)) if 0 < truth.mean() < 1 else float("nan")


def _pr_auc(truth: np.ndarray, predicted: np.ndarray) -> float:
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(truth, predicted)) if truth.any() else float("nan")


_METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "mae": _mae,
    "spearman": _spearman,
    "roc_auc": _roc_auc,
    "pr_auc": _pr_auc,
}

BOARDS = {
    b.name: b
    for b in (
        Board("caco2_wang", "mae", "linear"),
        Board("hia_hou", "roc_auc"),
        Board("pgp_broccatelli", "roc_auc"),
        Board("bioavailability_ma", "roc_auc"),
        Board("lipophilicity_astrazeneca", "mae", "linear"),
        Board("solubility_aqsoldb", "mae", "linear"),
        Board("bbb_martins", "roc_auc"),
        Board("ppbr_az", "mae", "logit"),
        Board("vdss_lombardo", "spearman", "log"),
        Board("cyp2c9_veith", "pr_auc"),
        Board("cyp2d6_veith", "pr_auc"),
        Board("cyp3a4_veith", "pr_auc"),
        Board("cyp2c9_substrate_carbonmangels", "pr_auc"),
        Board("cyp2d6_substrate_carbonmangels", "pr_auc"),
        Board("cyp3a4_substrate_carbonmangels", "roc_auc"),
        Board("half_life_obach", "spearman", "log"),
        Board("clearance_microsome_az", "spearman", "log"),
        Board("clearance_hepatocyte_az", "spearman", "log"),
        Board("herg", "roc_auc"),
        Board("ames", "roc_auc"),
        Board("dili", "roc_auc"),
        Board("ld50_zhu", "mae", "linear"),
    )
}
LARGE = ("lipophilicity_astrazeneca", "solubility_aqsoldb", "cyp2c9_veith", "cyp2d6_veith", "cyp3a4_veith", "ames")
LARGE = (*LARGE, "ld50_zhu")
SMALL = tuple(name for name in BOARDS if name not in LARGE)


@dataclass(frozen=True)
class BoardRows:
    """All rows of a board's file. values: float64 `[N]`; test: bool `[N]`."""

    board: Board
    smiles: list[str]
    values: np.ndarray
    test: np.ndarray

    def held_out(self, part: str, seed: int) -> np.ndarray:
        """Rows that are predicted, int64. part: `test`; `valid`, of the seed; or `K/N`, a fold of `train_val`."""
        if part == "test":
            return np.flatnonzero(self.test)
        rows = np.flatnonzero(~self.test)
        smiles = [self.smiles[i] for i in rows]
        if part == "valid":
            return rows[tdc_scaffold_split(smiles, seed, (0.875, 0.125, 0.0))[1]]
        number, n_folds = map(int, part.split("/"))
        return rows[scaffold_folds(smiles, n_folds) == number - 1]


def read_board(data: Path, name: str) -> BoardRows:
    with gzip.open(data / f"{name}.csv.gz", "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    values = np.array([float(row[name]) for row in rows])
    return BoardRows(
        BOARDS[name], [r["smiles"] for r in rows], values, np.array([r["tdc_split"] == "test" for r in rows])
    )


def published(name: str) -> dict[str, float]:
    """model -> mean, as the board prints it."""
    with PUBLISHED.open(encoding="utf-8", newline="") as file:
        return {row["model"]: float(row["mean"]) for row in csv.DictReader(file) if row["board"] == name}


def rank(board: Board, value: float) -> int:
    """1 + the published entries that are strictly better than `value`, rounded to the three digits of the board."""
    means, value = np.array(list(published(board.name).values())), round(value, 3)
    return 1 + int(((means < value) if board.smaller_is_better else (means > value)).sum())


def tdc_scaffold_split(
    smiles: Sequence[str], seed: int, fractions: tuple[float, float, float]
) -> tuple[list[int], list[int], list[int]]:
    """Positions that train, validate and test, by the protocol of the boards.

    Molecules of one Bemis-Murcko scaffold stay together. Scaffolds with more molecules than half of the validation or
    test set come first, the others after them, both shuffled by Python's generator; each goes where it fits.
    """
    members: dict[str, list[int]] = {}
    for i, text in enumerate(smiles):
        members.setdefault(_scaffold(text), []).append(i)
    members.pop(_UNREADABLE, None)
    n = sum(map(len, members.values()))
    n_train, n_valid = int(n * fractions[0]), int(n * fractions[1])
    limit = min(n_valid, n - n_train - n_valid) / 2
    large = [at for at in members.values() if len(at) > limit]
    small = [at for at in members.values() if len(at) <= limit]
    generator = random.Random(seed)
    generator.seed(seed)
    generator.shuffle(large)
    generator.shuffle(small)
    train: list[int] = []
    valid: list[int] = []
    test: list[int] = []
    for at in large + small:
        if len(train) + len(at) <= n_train:
            train += at
        elif not fractions[2] or len(valid) + len(at) <= n_valid:
            valid += at
        else:
            test += at
    return train, valid, test


def scaffold_folds(smiles: Sequence[str], n_folds: int) -> np.ndarray:
    """Fold of each molecule, int64 from 0; those of one scaffold share it, and large scaffolds are dealt out first."""
    members: dict[str, list[int]] = {}
    for i, text in enumerate(smiles):
        members.setdefault(_scaffold(text), []).append(i)
    folds, sizes = np.zeros(len(smiles), dtype=np.int64), np.zeros(n_folds, dtype=np.int64)
    for at in sorted(members.values(), key=len, reverse=True):
        smallest = int(sizes.argmin())
        folds[at] = smallest
        sizes[smallest] += len(at)
    return folds


_UNREADABLE = "unreadable"


def _scaffold(smiles: str) -> str:
    try:
        return scaffold_of(smiles)
    except Exception:  # RDKit's exceptions have no common base class, and what has no molecule has no scaffold
        return _UNREADABLE


class Keys:
    """Molecules' keys, which cost half a millisecond each, kept in a CSV file: SMILES, then one or two keys.

    A molecule's keys are the skeletons (the first block of the InChIKey, so without stereochemistry and isotopes) of
    what is drawn and of its largest organic fragment without charges.
    """

    def __init__(self, path: Path):
        self.path = path
        self.known: dict[str, tuple[str, ...]] = {}
        if path.exists():
            with path.open(encoding="utf-8", newline="") as file:
                self.known = {row[0]: tuple(row[1:]) for row in csv.reader(file)}

    @classmethod
    def beside(cls, table: Path) -> Keys:
        """Those of a table's molecules, by this RDKit and by what is a parent today."""
        rules = hashlib.sha256(f"{rdBase.rdkitVersion} {COMPANIONS}".encode()).hexdigest()[:8]
        return cls(table.with_name(f"{table.name}.{rules}.keys.csv"))

    def of(self, smiles: Iterable[str]) -> list[tuple[str, ...]]:
        smiles = list(smiles)
        new = {text: keys_of(text) for text in dict.fromkeys(smiles) if text not in self.known}
        if new:
            self.known |= new
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with replacing_path(self.path) as part, part.open("w", encoding="utf-8", newline="") as file:
                csv.writer(file).writerows([text, *keys] for text, keys in self.known.items())
        return [self.known[text] for text in smiles]


def keys_of(smiles: str) -> tuple[str, ...]:
    """The keys of one molecule, each once; none for what cannot be read."""
    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(smiles)
        if mol is None:
            return ()
        return tuple(dict.fromkeys((_skeleton(mol), _skeleton(parent_of(mol)))))


def _skeleton(mol: Chem.Mol) -> str:
    return Chem.MolToInchiKey(mol)[:14] or Chem.MolToSmiles(mol, isomericSmiles=False)


def leaks(union_smiles: Sequence[str], test_smiles: Sequence[str], keys: Keys) -> np.ndarray:
    """bool `[N]`: which molecules of the union share a key with any of the test molecules."""
    tested = {key for of_one in keys.of(test_smiles) for key in of_one}
    return np.array([not tested.isdisjoint(of_one) for of_one in keys.of(union_smiles)], dtype=bool)
