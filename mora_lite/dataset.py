"""Training and evaluation data: molecules as graphs, targets as columns, a split that anyone can repeat."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .errors import InputError, near_matches
from .graph import Graphs, concatenate, featurize
from .library import open_table
from .molecules import parse_smiles

LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Dataset:
    """Molecules with targets; only rows whose SMILES could be read.

    graphs: `N` molecules. targets: float32 `[N, P]`, in each task's own unit, NaN where there is no value.
    rows: int64 `[N]`, row of each molecule in the table, counted from 0. n_rows: rows of the table.
    fingerprint: SHA-256 of the SMILES column, to recognise the same table again.
    """

    smiles: list[str]
    graphs: Graphs
    targets: np.ndarray
    rows: np.ndarray
    n_rows: int
    fingerprint: str

    def __len__(self) -> int:
        return len(self.rows)

    def subset(self, table_rows: np.ndarray) -> Dataset:
        """The molecules at these rows of the table, in the table's order; unreadable rows fall out."""
        at = np.flatnonzero(np.isin(self.rows, table_rows))
        return Dataset(
            [self.smiles[i] for i in at],
            self.graphs.select(at),
            self.targets[at],
            self.rows[at],
            self.n_rows,
            self.fingerprint,
        )


def read_dataset(path: str | Path, smiles_column: str, target_columns: Sequence[str]) -> Dataset:
    """Read a table as `mora-lite predict` does. Blank cells are missing values; unreadable molecules are left out.

    Raises `InputError` when the file or a column is missing, or a target is neither blank nor a number.
    """
    smiles: list[str] = []
    values: list[list[float]] = []
    for number, row in _rows(path, smiles_column, target_columns):
        smiles.append(row[0])
        values.append([_number(cell, name, number) for cell, name in zip(row[1:], target_columns, strict=True)])
    if not smiles:
        raise InputError(f"{path} has no rows: a header and at least one molecule are needed")
    parts, rows = [], []
    for start in range(0, len(smiles), 4096):
        parsed = [parse_smiles(text) for text in smiles[start : start + 4096]]
        good = [i for i, p in enumerate(parsed) if p.mol is not None]
        if good:
            parts.append(featurize([parsed[i].mol for i in good]))
            rows += [start + i for i in good]
    if not rows:
        raise InputError(f"no molecule of {path} could be read: is {smiles_column!r} the SMILES column?")
    fingerprint = hashlib.sha256("\n".join(smiles).encode(errors="surrogateescape")).hexdigest()
    targets = np.array(values, dtype=np.float32).reshape(len(values), len(target_columns))[rows]
    kept = [smiles[i] for i in rows]
    return Dataset(kept, concatenate(parts), targets, np.array(rows), len(smiles), fingerprint)


def _rows(path: str | Path, smiles_column: str, target_columns: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """Row number from 1, then the cells of the SMILES and the targets; a record with too many cells has none."""
    with open_table(path, smiles_column) as table:
        for name in target_columns:
            if name not in table.columns:
                raise InputError(f"{path} has no column {name!r}: {near_matches(name, table.columns)}")
        at = [table.smiles_index, *(table.columns.index(name) for name in target_columns)]
        rows = (row for chunk in table.chunks(4096) for row in chunk)
        for number, row in enumerate(rows, start=1):
            yield number, [""] * len(at) if row.fault else [row.cells[i] for i in at]


def _number(cell: str, column: str, row: int) -> float:
    if not cell.strip():
        return float("nan")
    try:
        value = float(cell)
    except ValueError:
        value = float("inf")
    if abs(value) > LARGEST:  # NaN passes: it is how many programs write a missing value
        raise InputError(f"row {row}, column {column!r}: got {cell!r}, expected a number or a blank")
    return value


@dataclass(frozen=True)
class Split:
    """A seeded random split by row number of the table.

    Unreadable rows take part, so that no chemistry is needed to repeat it.

    train, valid: numbers of rows; the rest is the test set.
    """

    seed: int
    train: int
    valid: int
    kind: str = "random"

    def rows(self, n_rows: int) -> dict[str, np.ndarray]:
        """int64 row numbers of `train`, `valid` and `test`, each ascending.

        The permutation is NumPy's `Generator(PCG64(seed)).permutation`, whose stream NumPy keeps between versions.
        """
        if self.train < 1 or self.valid < 1 or self.train + self.valid >= n_rows:
            raise InputError(
                f"split: got {self.train} training and {self.valid} validation rows of {n_rows}; "
                "each of train, valid and test needs one row at least"
            )
        order = np.random.Generator(np.random.PCG64(self.seed)).permutation(n_rows)
        ends = self.train, self.train + self.valid
        parts = order[: ends[0]], order[ends[0] : ends[1]], order[ends[1] :]
        return {name: np.sort(part) for name, part in zip(("train", "valid", "test"), parts, strict=True)}
