"""Which rows of a table train, validate and test: at random, by scaffold, or as a column of the table says."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..chem.molecules import scaffold_of
from ..errors import InputError, check_range, did_you_mean
from ..status import counted

if TYPE_CHECKING:
    from .dataset import Dataset

Parts = dict[str, np.ndarray]  # train, valid, test: int64 row numbers of the table, counted from 0, ascending

KINDS = ("random", "scaffold", "given")
PARTS = ("train", "valid", "test")
LEAST_FOR_INTERVAL = 9  # validation values for 90 %: the ceil((n + 1) * 0.9)-th smallest of n errors must be there
_MARKS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("valid", "val", "validation", "dev"), "valid"),
    **dict.fromkeys(("test", "testing"), "test"),
}


@dataclass(frozen=True)
class Split:
    """A split that anyone can repeat from the table and these fields, which packs record. `split_rows` applies it.

    kind: `random`: by row number and seed; unreadable rows take part, so that no chemistry is needed to repeat it.
    `scaffold`: molecules of one Bemis-Murcko scaffold stay together (see `scaffold_of`); large scaffolds train, rare
    ones test; it takes no seed and is always the same. `given`: a cell of `column` says train, valid or test.
    train, valid: numbers of rows; the rest is the test set. A scaffold goes where it fits whole, so parts may come out
    smaller or larger. `given` does not use them; the other kinds need both.
    seed: of `random`; of `given` where no row says valid.
    column: name of the table's column, for `given` only.
    """

    seed: int
    train: int = 0
    valid: int = 0
    kind: str = "random"
    column: str = ""

    def __post_init__(self) -> None:
        check_range("split: seed", self.seed, 0)
        if self.kind not in KINDS:
            raise InputError(f"split: unknown kind {self.kind!r}: {did_you_mean(self.kind, KINDS)}")
        if (self.kind == "given") != bool(self.column):
            raise InputError(
                f"split: got kind {self.kind!r} and column {self.column!r}, expected a column with kind 'given' "
                "and with no other"
            )

    def rows(self, n_rows: int) -> Parts:
        """The parts of a table of `n_rows`, for kind `random`. Raises `InputError` if a part would be empty.

        The permutation is NumPy's `Generator(PCG64(seed)).permutation`, whose stream NumPy keeps between versions.
        """
        assert self.kind == "random", "the other kinds need more than a number of rows: use split_rows"
        self._check_sizes(n_rows)
        order = _permutation(self.seed, n_rows)
        ends = self.train, self.train + self.valid
        parts = order[: ends[0]], order[ends[0] : ends[1]], order[ends[1] :]
        return {name: np.sort(part) for name, part in zip(PARTS, parts, strict=True)}

    def _check_sizes(self, n_rows: int) -> None:
        if self.train < 1 or self.valid < 1 or self.train + self.valid >= n_rows:
            raise InputError(
                f"split: got {self.train} training and {self.valid} validation rows of {n_rows}; "
                "each of train, valid and test needs one row at least"
            )


def fractions(kind: str, n_rows: int, seed: int) -> Split:
    """A split of kind `random` or `scaffold` in which 80 % of the rows train and 10 % validate.

    n_rows: rows of the table for `random`, readable molecules (`len(data)`) for `scaffold`.
    """
    n_train, n_both = 8 * n_rows // 10, 9 * n_rows // 10
    # By scaffold the two cuts are rounded, as DeepChem does, and not the two sizes.
    return Split(seed, n_train, n_both - n_train if kind == "scaffold" else n_rows // 10, kind)


def split_rows(split: Split, data: Dataset) -> Parts:
    """The parts of the table that `data` was read from.

    `random` and `given` go by all rows of the table, `scaffold` by the molecules in `data`: who repeats a scaffold
    split must merge duplicates as it was done the first time. `given` needs `data` read with
    `split_column=split.column`; its test part may be empty, and where no row says valid, a tenth of the training rows,
    chosen by seed, validates.
    Raises `InputError`, naming the counts, where a part is too small.
    """
    if split.kind == "random":
        return split.rows(data.n_rows)
    if split.kind == "given":
        return _given(split, data.marks)
    split._check_sizes(len(data))
    scaffolds = [scaffold_of(smiles) for smiles in data.smiles]
    parts = {name: data.rows[at] for name, at in _fill(scaffolds, split.train, split.valid).items()}
    if not all(len(part) for part in parts.values()):
        largest = max(Counter(scaffolds).values())
        raise InputError(
            f"split by scaffold: got {_counts(parts)} molecules, {largest} of {len(data)} on one scaffold, expected "
            "one at least in each part; use a random split"
        )
    return parts


def split_notes(split: Split, data: Dataset, first: np.ndarray) -> list[str]:
    """Notes on a `given` split, one line each: rows in no part, of several parts, or taken from training to validate.

    data: before duplicates are merged. first: of `checks.first_rows`.
    """
    if split.kind != "given":
        return []
    marks, notes = list(map(part_of_mark, data.marks)), []
    if "valid" not in marks:
        n_train = marks.count("train")
        notes.append(
            f"split column {split.column!r}: no row says valid; {_tenth(n_train)} of the {n_train} training rows, "
            f"chosen by seed {split.seed}, validate"
        )
    if "" in marks:
        row = marks.index("")
        notes.append(
            f"split column {split.column!r}: {marks.count('')} of {len(marks)} rows say neither train, valid nor test "
            f"and are left out; the first is row {row + 1}, {data.marks[row][:40]!r}"
        )
    rows, first_of_each = data.rows.tolist(), data.rows[first].tolist()
    moved = [(row, of) for row, of in zip(rows, first_of_each, strict=True) if marks[row] != marks[of]]
    if moved:
        (row, of), n = moved[0], counted(len(moved), "row")
        notes.append(
            f"split column {split.column!r}: {n} in another part than the first row of the same molecule, where it "
            f"stays with the median of its values; the first is row {row + 1}, {data.marks[row][:40]!r}, and row "
            f"{of + 1}, {data.marks[of][:40]!r}"
        )
    return notes


def part_notes(parts: Mapping[str, Dataset], names: Mapping[int, str], classes: Sequence[bool]) -> list[str]:
    """Notes on tasks with too few values to calibrate or to test, one line each.

    names: column of the targets -> its name, of the tasks to tell of. classes: of all `P` columns, whether it is one.
    """
    notes = []
    for i, name in names.items():
        valid, test = (values[~np.isnan(values)] for values in (parts[part].targets[:, i] for part in PARTS[1:]))
        told = counted(len(valid), "validation value") if len(valid) else "no validation value"
        if classes[i] and len(np.unique(valid)) < 2:
            told += f", only of class {valid[0]:g}" if len(valid) else ""
            notes.append(f"column {name!r}: {told}; both classes are needed to calibrate its probabilities")
        elif not classes[i] and len(valid) < LEAST_FOR_INTERVAL:
            notes.append(f"column {name!r}: {told}; {LEAST_FOR_INTERVAL} are needed for an interval of 90 %")
        if not len(test):
            notes.append(f"column {name!r}: no test value, so its errors are not measured")
        elif classes[i] and len(np.unique(test)) < 2:
            notes.append(f"column {name!r}: test values only of class {test[0]:g}, so no ROC-AUC is measured")
    return notes


def _fill(groups: Sequence[Hashable], train: int, valid: int) -> Parts:
    """Positions of each part, as DeepChem's ScaffoldSplitter fills them.

    Groups from the largest, of equal ones that first whose first row is the latest; each into train if it fits there,
    else into valid if it fits before the second cut, else into test.
    """
    members: dict[Hashable, list[int]] = {}
    for i, group in enumerate(groups):
        members.setdefault(group, []).append(i)
    parts: dict[str, list[int]] = {name: [] for name in PARTS}
    for at in sorted(members.values(), key=lambda at: (len(at), at[0]), reverse=True):
        if len(parts["train"]) + len(at) <= train:
            parts["train"] += at
        elif len(parts["train"]) + len(parts["valid"]) + len(at) <= train + valid:
            parts["valid"] += at
        else:
            parts["test"] += at
    return {name: np.array(sorted(part), dtype=np.int64) for name, part in parts.items()}


def _given(split: Split, cells: Sequence[str]) -> Parts:
    marks = np.array([part_of_mark(cell) for cell in cells])
    parts: Parts = {name: np.flatnonzero(marks == name) for name in PARTS}
    train = parts["train"]
    least = 1 if len(parts["valid"]) else 2  # one of two validates
    if len(train) < least:
        raise InputError(
            f"split column {split.column!r}: got {_counts(parts)} rows of {len(marks)}, expected {least} training rows "
            f"or more; cells must say train, valid or test, these say {_said(cells)}"
        )
    if not len(parts["valid"]):
        order = train[_permutation(split.seed, len(train))]
        n_valid = _tenth(len(train))
        parts |= {"train": np.sort(order[n_valid:]), "valid": np.sort(order[:n_valid])}
    return parts


def part_of_mark(cell: str) -> str:
    """`train`, `valid` or `test`, as the cell of a split column says in one of the usual words; empty for no part."""
    return _MARKS.get(cell.strip().lower(), "")


def digest_of_marks(cells: Sequence[str]) -> str:
    """SHA-256 of the parts that the cells of a split column say, to recognise them again."""
    return hashlib.sha256("\n".join(map(part_of_mark, cells)).encode()).hexdigest()


def _said(cells: Sequence[str], n: int = 5) -> str:
    """The different cells, the first `n` of them."""
    said = list(dict.fromkeys(repr(cell.strip()) for cell in cells))
    return ", ".join(said[:n]) + (f" and {len(said) - n} others" if len(said) > n else "")


def _tenth(n_rows: int) -> int:
    return max(1, n_rows // 10)


def _counts(parts: Parts) -> str:
    return "{} training, {} validation and {} test".format(*(len(parts[name]) for name in PARTS))


def _permutation(seed: int, n: int) -> np.ndarray:
    return np.random.Generator(np.random.PCG64(seed)).permutation(n)
