"""Training and evaluation data: molecules as graphs, targets as columns."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..chem.featurizer import Featurizer
from ..chem.graph import Graphs, concatenate
from ..errors import InputError
from ..machine.progress import report
from ..status import OK
from ..tables.columns import find_column
from ..tables.library import Library, Window, open_library
from ..tables.numbers import NumberColumn
from ..tables.parsed import parse_window


@dataclass(frozen=True)
class Dataset:
    """Molecules with targets; only rows whose SMILES could be read.

    graphs: `N` molecules. targets: float32 `[N, P]`, in each task's unit, NaN where there is no value.
    rows: int64 `[N]`, row of each molecule in the table, counted from 0. n_rows: rows of the table.
    fingerprint: SHA-256 of the SMILES column, to recognise the same table again.
    marks: cells of the split column, one for every row of the table; empty if none was asked for.
    unreadable: row of the table, counted from 0 -> its SMILES, for the molecules left out; rows with too many cells are
    not among them.
    featurizer: that made the graphs.
    notes: on the reading of the table, a line each. lines: int64, the line of the file at which each of its rows began,
    from 1; empty where it is not known.
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
    notes: list[str] = field(default_factory=list)
    lines: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))

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

    def with_values(self) -> Dataset:
        """The molecules that have a value of some task."""
        return self.at(np.flatnonzero(~np.isnan(self.targets).all(axis=1)))

    def at_tasks(self, tasks: np.ndarray) -> Dataset:
        """The molecules that have a value of these columns of targets, int64, and these columns alone."""
        return replace(self, targets=self.targets[:, tasks]).with_values()

    def with_rare_sizes(self, share: float) -> Dataset:
        """Molecules repeated until each number of heavy atoms that occurs makes up `share` of these, about.

        Of QM9's 110,000 training molecules 14 have up to three atoms: drawn once an epoch they are not learnt at all.
        """
        _, of_size, counts = np.unique(self.graphs.n_atoms, return_inverse=True, return_counts=True)
        repeats = np.maximum(np.ceil(share * len(self) / counts), 1).astype(np.int64)
        return self.at(np.repeat(np.arange(len(self)), repeats[of_size]))


def read_dataset(
    source: str | Path | Library,
    smiles_column: str | None,
    target_columns: Sequence[str],
    split_column: str | None = None,
    featurizer: Featurizer = Featurizer(),  # noqa: B008 - it cannot change
) -> Dataset:
    """Read a file of molecules as `mora-lite predict` does. Blank cells are missing values.

    Unreadable molecules and rows with too many cells are left out.
    source: a file of any kind that `open_library` reads, or one that is opened with its cells.
    smiles_column: its name or number; None finds it.
    target_columns: of numbers, or of words for yes and no, see `NumberColumn`; found in any case.
    split_column: column whose cells become `Dataset.marks`.

    Raises `InputError` when the file or a column is missing, a column is there twice, a target is neither blank nor a
    number nor such a word, or most rows have too many cells.
    """
    if not isinstance(source, Library):
        with open_library(str(source), smiles_column, cells=True) as library:
            return read_dataset(library, smiles_column, target_columns, split_column, featurizer)
    rows = _Rows(source, [*target_columns, *([split_column] if split_column else [])])
    if not rows.texts:
        raise InputError(f"{rows.name} has no rows: a header and at least one molecule are needed")
    notes = [*source.notes, *rows.fault_notes()]
    targets = np.empty((len(rows.texts), len(target_columns)), np.float32)
    for i, name in enumerate(target_columns):
        column = NumberColumn(name, rows.name, rows.lines)
        targets[:, i] = column.values(rows.cells[i])
        notes += column.notes
    data = _parse(rows, featurizer)
    if not len(data):
        words = f"{smiles_column or source.columns[source.smiles_index]!r}"
        raise InputError(f"no molecule of {rows.name} could be read: is {words} the SMILES column?")
    marks = rows.cells[-1] if split_column else []
    return replace(data, targets=targets[data.rows], marks=marks, notes=notes)


class _Rows:
    """The rows of an open file.

    texts: SMILES or mol blocks. keys: the cells of the SMILES column as they are in the file.
    cells: of each column that was asked for. lines: of the file, from 1. faults: row, from 0 -> what is wrong; such a
    row has empty cells.
    """

    def __init__(self, library: Library, columns: Sequence[str]):
        self.name = library.files[0] if len(library.files) == 1 else "the table"
        at = [find_column(library.columns, name, self.name) for name in columns]
        self.texts: list[str] = []
        self.keys: list[str] = []
        self.cells: list[list[str]] = [[] for _ in at]
        self.lines: list[int] = []
        self.faults: dict[int, str] = {}
        for window in library.windows(4096):
            start = len(self.texts)
            self.faults |= {start + i: record.fault for i, record in enumerate(window.records) if record.fault}
            self.texts += ["" if record.fault else record.text for record in window.records]
            self.keys += [
                "" if record.fault else cells[library.smiles_index] or record.text
                for record, cells in zip(window.records, window.cells, strict=True)
            ]
            for values, i in zip(self.cells, at, strict=True):
                values += [
                    "" if record.fault else cells[i] for record, cells in zip(window.records, window.cells, strict=True)
                ]
            self.lines += window.lines

    def fault_notes(self) -> list[str]:
        """A note on rows with faults. Raises `InputError` where they are the most."""
        if not self.faults:
            return []
        row, fault = next(iter(self.faults.items()))
        told = f"the first is row {row + 1} (line {self.lines[row]}), {fault}"
        n, of = len(self.faults), len(self.texts)
        if n > of / 2:
            raise InputError(f"{self.name}: {n} of {of} rows are malformed; {told}")
        return [f"malformed: {n} of {of} rows are left out; {told}"]


def _parse(rows: _Rows, featurizer: Featurizer) -> Dataset:
    """The molecules of the rows, without targets."""
    parts = [featurizer.graphs([])]
    at: list[int] = []
    smiles: list[str] = []
    unreadable: dict[int, str] = {}
    n_together = 256 if featurizer.descriptors else 4096  # for progress: descriptors take milliseconds
    for start in range(0, len(rows.texts), n_together):
        report("reading molecules", start, len(rows.texts))
        parsed = parse_window(Window.of(rows.texts[start : start + n_together]), featurizer)
        for row, (status, text) in enumerate(zip(parsed.status, parsed.smiles, strict=True), start):
            if status == OK:
                at.append(row)
                # A mol block is kept as SMILES: everything that reads the data again reads those.
                smiles.append(text if "\n" in rows.texts[row] else rows.keys[row])
            elif row not in rows.faults:
                unreadable[row] = rows.keys[row]
        parts.append(parsed.graphs)
    fingerprint = hashlib.sha256("\n".join(rows.keys).encode(errors="surrogateescape")).hexdigest()
    none = np.empty((len(at), 0), np.float32)
    return Dataset(
        smiles,
        concatenate(parts),
        none,
        np.array(at, dtype=np.int64),
        len(rows.texts),
        fingerprint,
        unreadable=unreadable,
        featurizer=featurizer,
        lines=np.array(rows.lines, dtype=np.int64),
    )
