"""Training and evaluation data: molecules as graphs, targets as columns."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..chem.featurizer import Featurizer
from ..chem.graph import Graphs, concatenate
from ..errors import InputError, did_you_mean
from ..machine.progress import report
from ..tables.table import open_table

LARGEST = float(np.finfo(np.float32).max)
CLASS_WORDS = {
    **dict.fromkeys(("true", "t", "yes", "y", "active", "positive", "pos"), 1.0),
    **dict.fromkeys(("false", "f", "no", "n", "inactive", "negative", "neg"), 0.0),
}


@dataclass(frozen=True)
class Dataset:
    """Molecules with targets; only rows whose SMILES could be read.

    graphs: `N` molecules. targets: float32 `[N, P]`, in each task's unit, NaN where there is no value.
    rows: int64 `[N]`, row of each molecule in the table, counted from 0. n_rows: rows of the table.
    fingerprint: SHA-256 of the SMILES column, to recognise the same table again.
    marks: cells of the split column, one for every row of the table; empty if none was asked for.
    unreadable: row of the table, counted from 0 -> its SMILES, for the molecules left out.
    featurizer: that made the graphs.
    """

    smiles: list[str]
    graphs: Graphs
    targets: np.ndarray
    rows: np.ndarray
    n_rows: int
    fingerprint: str
    marks: list[str] = field(default_factory=list)
    unreadable: dict[int, str] = field(default_factory=dict)
    featurizer: Featurizer = field(default_factory=Featurizer)

    def __len__(self) -> int:
        return len(self.rows)

    def subset(self, table_rows: np.ndarray) -> Dataset:
        """The molecules at these rows of the table, in the table's order; unreadable rows fall out."""
        return self.at(np.flatnonzero(np.isin(self.rows, table_rows)))

    def at(self, positions: np.ndarray) -> Dataset:
        """The molecules at these positions, int64, among the `N`."""
        return replace(
            self,
            smiles=[self.smiles[i] for i in positions],
            graphs=self.graphs.select(positions),
            targets=self.targets[positions],
            rows=self.rows[positions],
        )

    def fingerprints(self) -> np.ndarray:
        """By the featurizer: uint8 `[N, 128]`; some thousand molecules at a time."""
        parts = [np.empty((0, 128), np.uint8)]
        for start in range(0, len(self), 4096):
            report("fingerprints", start, len(self))
            block = self.at(np.arange(start, min(start + 4096, len(self))))
            parts.append(self.featurizer.fingerprints(block.graphs, block.molecules))
        return np.concatenate(parts)

    def molecules(self) -> list[Any]:
        """The RDKit molecules, read again."""
        return [self.featurizer.parse_smiles(text).mol for text in self.smiles]

    def n_values(self) -> list[int]:
        """How many molecules have a value, for each column of targets."""
        return (~np.isnan(self.targets)).sum(axis=0).tolist()

    def rarity(self, weights: np.ndarray | None = None) -> np.ndarray:
        """The share of draws that each molecule should have: float64 `[N]`, of sum 1.

        In proportion to the largest w * n^-1/2 of its tasks, where n is a task's number of values, at least 30.
        weights: w of each task, float `[P]`; all 1 if None.
        """
        known = ~np.isnan(self.targets)
        by_task = np.maximum(known.sum(axis=0), 30) ** -0.5 * (1.0 if weights is None else weights)
        by_molecule = np.where(known, by_task, 0).max(axis=1)
        return by_molecule / by_molecule.sum()

    def at_tasks(self, tasks: np.ndarray) -> Dataset:
        """The molecules that have a value of these columns of targets, int64, and these columns alone."""
        some = np.flatnonzero(~np.isnan(self.targets[:, tasks]).all(axis=1))
        chosen = self.at(some)
        return replace(chosen, targets=chosen.targets[:, tasks])

    def with_rare_sizes(self, share: float) -> Dataset:
        """Molecules repeated until each number of heavy atoms that occurs makes up `share` of these, about.

        Of QM9's 110,000 training molecules 14 have up to three atoms: drawn once an epoch they are not learnt at all.
        """
        _, of_size, counts = np.unique(self.graphs.n_atoms, return_inverse=True, return_counts=True)
        repeats = np.maximum(np.ceil(share * len(self) / counts), 1).astype(np.int64)
        return self.at(np.repeat(np.arange(len(self)), repeats[of_size]))


def read_dataset(
    path: str | Path,
    smiles_column: str,
    target_columns: Sequence[str],
    split_column: str | None = None,
    featurizer: Featurizer = Featurizer(),  # noqa: B008 - it cannot change
) -> Dataset:
    """Read a table as `mora-lite predict` does. Blank cells are missing values; unreadable molecules are left out.

    A column of words such as yes and no (`CLASS_WORDS`, any case; with 0, 1 and blanks among them) is read as 1 and 0.
    split_column: column whose cells become `Dataset.marks`.

    Raises `InputError` when the file or a column is missing, or a target is neither blank nor a number nor such a word.
    """
    smiles: list[str] = []
    values: list[list[float]] = []
    marks: list[str] = []
    words: dict[str, tuple[int, str]] = {}  # column -> the first row that says it in a word, from 1, and the word
    n_targets = len(target_columns)
    for number, row in _rows(path, smiles_column, [*target_columns, *([split_column] if split_column else [])]):
        smiles.append(row[0])
        cells = zip(row[1 : n_targets + 1], target_columns, strict=True)
        values.append([_number(cell, name, number, words) for cell, name in cells])
        marks += row[n_targets + 1 :]
    if not smiles:
        raise InputError(f"{path} has no rows: a header and at least one molecule are needed")
    targets = np.array(values, dtype=np.float32).reshape(len(values), n_targets)
    _check_words(targets, target_columns, words)
    parts, rows = [], []
    unreadable: dict[int, str] = {}
    for start in range(0, len(smiles), 4096):
        report("reading molecules", start, len(smiles))
        parsed = [featurizer.parse_smiles(text) for text in smiles[start : start + 4096]]
        good = [i for i, p in enumerate(parsed) if p.mol is not None]
        if good:
            parts.append(featurizer.graphs([parsed[i].mol for i in good]))
            rows += [start + i for i in good]
        unreadable |= {start + i: smiles[start + i] for i, p in enumerate(parsed) if p.mol is None}
    if not rows:
        raise InputError(f"no molecule of {path} could be read: is {smiles_column!r} the SMILES column?")
    fingerprint = hashlib.sha256("\n".join(smiles).encode(errors="surrogateescape")).hexdigest()
    readable = [smiles[i] for i in rows]
    graphs, at = concatenate(parts), np.array(rows)
    return Dataset(readable, graphs, targets[rows], at, len(smiles), fingerprint, marks, unreadable, featurizer)


def _rows(path: str | Path, smiles_column: str, columns: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """Row number from 1, then the cells of the SMILES and of the columns; a record with too many cells has none."""
    with open_table(path, smiles_column) as table:
        for name in columns:
            if name not in table.columns:
                raise InputError(f"{path} has no column {name!r}: {did_you_mean(name, table.columns)}")
        at = [table.smiles_index, *(table.columns.index(name) for name in columns)]
        rows = (row for chunk in table.chunks(4096) for row in chunk)
        for number, row in enumerate(rows, start=1):
            yield number, [""] * len(at) if row.fault else [row.cells[i] for i in at]


def _number(cell: str, column: str, row: int, words: dict[str, tuple[int, str]]) -> float:
    """The cell's value; a class word is noted in `words`, as only the whole column shows whether it is allowed."""
    if not cell.strip():
        return float("nan")
    try:
        value = float(cell)
    except ValueError:
        value = CLASS_WORDS.get(cell.strip().lower(), float("inf"))
        words.setdefault(column, (row, cell))
    if abs(value) > LARGEST:  # NaN passes: it is how many programs write a missing value
        raise InputError(f"row {row}, column {column!r}: got {cell!r}, expected a number or a blank")
    return value


def _check_words(targets: np.ndarray, columns: Sequence[str], words: dict[str, tuple[int, str]]) -> None:
    """Raises `InputError` if a column has class words and numbers other than 0 and 1."""
    for column, (row, cell) in words.items():
        values = targets[:, columns.index(column)]
        other = np.flatnonzero(~np.isnan(values) & (values != 0) & (values != 1))
        if len(other):
            raise InputError(
                f"row {row}, column {column!r}: got {cell!r}, expected a number or a blank, as in row {other[0] + 1} "
                f"({values[other[0]]:g}); words for yes and no stand only beside 0, 1 and blanks"
            )
