"""Checks of a table before training: errors for hopeless data, notes on doubtful data, duplicates merged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from rdkit import Chem

from ..chem import circular
from ..errors import InputError, shortened
from ..machine.progress import track
from ..status import counted
from .dataset import Dataset
from .recipe import Recipe, TaskRecipe

MIN_MOLECULES = 10
MIN_OF_CLASS = 5
MIN_SPAN = 10.0  # of the 95th percentile over the 5th: values of one decade are as well learnt as they are
MIN_SKEWNESS = 0.5  # 0 for a median in the middle between these percentiles, 1 for one at the lower of them
MAX_CLASSES = 5  # different whole numbers that look like classes
FAR = 10.0  # deviations of the rest from which a repeated value looks like a mark for a missing one
FAR_NINES = 3.0  # the same for -99, 999, -9999.0 and the like
FAR_ALONE = 30.0  # the same for one value alone, which looks like a slip
MIN_DECADES = 3.0  # of values above 0 that a logarithm is suggested for
CONFLICT = 0.1  # deviations of the column between values of one molecule that count as different


def looks_like_class(values: np.ndarray) -> bool:
    """Whether all known values, float of any shape, NaN where there is none, are 0 or 1, and there is one at least."""
    known = values[~np.isnan(values)]
    return bool(len(known)) and bool(np.isin(known, (0, 1)).all())


def suits_log(values: np.ndarray) -> bool:
    """Whether logarithms of these values, float `[N]` without NaN, are the better targets.

    All are above 0, the 95th percentile is at least 10 times the 5th, and they are skewed to the right: where the
    median lies between these percentiles, from -1 to 1, is above 0.5, and that of the logarithms less than half of it.
    """
    if not len(values) or values.min() <= 0:
        return False
    skewness, of_logs = (_skewness(on) for on in (values, np.log10(values)))
    low, high = np.percentile(values, (5, 95))
    return bool(high >= MIN_SPAN * low and skewness > MIN_SKEWNESS and abs(of_logs) < skewness / 2)


def _skewness(values: np.ndarray) -> float:
    """(p95 + p5 - 2 median) / (p95 - p5): unlike the third moment it does not follow a few far values."""
    low, middle, high = np.percentile(values, (5, 50, 95))
    return float((high + low - 2 * middle) / (high - low)) if high > low else 0.0


def choose_scales(recipe: Recipe, train: Dataset, valid: Dataset) -> tuple[Recipe, list[str]]:
    """The recipe with a scale for each task, and a note, a line, for each that is logarithmic of itself.

    Raises `InputError` for a scale that was asked for and that values are not on.
    """
    both, tasks, notes = np.concatenate([train.targets, valid.targets]), [], []
    for i, task in enumerate(recipe.tasks):
        values, known = (targets[~np.isnan(targets)] for targets in (train.targets[:, i], both[:, i]))
        low, high = known.min(initial=np.inf), known.max(initial=-np.inf)
        if task.scale == "log" and low <= 0:
            raise InputError(
                f"column {task.column!r}: got {low:g}, expected values above 0, as its scale is log; "
                f"{(known <= 0).sum()} of {len(known)} are not"
            )
        if task.scale == "logit" and (low < 0 or high > 100):
            odd = low if low < 0 else high
            raise InputError(f"column {task.column!r}: got {odd:g}, expected 0 to 100 %, as its scale is logit")
        scale, note = (task.scale, "") if task.scale else _own_scale(task, values, known)
        notes += [f"column {task.column!r}: {note}"] if note else []
        tasks.append(replace(task, scale=scale))
    return replace(recipe, tasks=tuple(tasks)), notes


def _own_scale(task: TaskRecipe, values: np.ndarray, known: np.ndarray) -> tuple[str, str]:
    """The scale of a task that asks for none, and what to say of it, or nothing.

    values: those that train, float32 `[N]` without NaN. known: with those that validate.
    """
    if task.kind != "value":
        return "linear", ""
    low, high = known.min(initial=np.inf), known.max(initial=-np.inf)
    if low > 0 and suits_log(values):
        return "log", (
            f"its values are above 0 and skewed ({values.min():g} to {values.max():g}, median {np.median(values):g}), "
            'so it is learnt as their logarithms; predictions are in its unit; scale = "linear" in a recipe learns it '
            "as it is"
        )
    note = ""
    if low > 0 and (span := decades(values)) >= MIN_DECADES:
        note = (
            f"its values span {span:.0f} powers of ten ({low:g} to {high:g}) and are learnt as they are; their "
            'logarithms may be learnt better: scale = "log" in a recipe'
        )
    elif low == 0 and suits_log(values[values > 0]):
        note = (
            f"{counted(int((known == 0).sum()), 'value')} of 0 keep it from being learnt as logarithms, which suit "
            "the others; where 0 stands for too little to measure, write the limit of detection"
        )
    elif "%" in task.column + task.unit and _near_ends(values, low, high):
        note = (
            f"percentages near 0 or 100 ({low:g} to {high:g}) are learnt as they are; "
            'scale = "logit" in a recipe learns log-odds, and predictions and intervals stay between 0 and 100'
        )
    return "linear", note


def _near_ends(values: np.ndarray, low: float, high: float) -> bool:
    """Whether numbers with these ends are percentages of which one in twenty is within 5 of 0, or of 100."""
    if not len(values) or low < 0 or high > 100:
        return False
    return bool(np.percentile(values, 5) < 5 or np.percentile(values, 95) > 95)


def first_rows(data: Dataset) -> np.ndarray:
    """For each molecule the position of the first that is the same one, int64 `[N]`.

    The same molecule has the same canonical SMILES in RDKit once it was read by the data's featurizer, stereochemistry
    included.
    """
    # Molecules that are alone with their fingerprint, which spelling and stereochemistry do not change, are spared.
    bits = circular.fingerprints(data.graphs)
    _, group, sizes = np.unique(bits, axis=0, return_inverse=True, return_counts=True)
    alike = np.flatnonzero(sizes[group.ravel()] > 1).tolist()
    positions, first = np.arange(len(data), dtype=np.int64), dict[str, int]()
    for i in track(alike, "looking for duplicates"):
        text = Chem.MolToSmiles(data.featurizer.parse_smiles(data.smiles[i]).mol)
        positions[i] = first.setdefault(text, i)
    return positions


def check_data(data: Dataset, names: Sequence[str], classes: Sequence[bool], first: np.ndarray) -> list[str]:
    """Notes on `data` as it was read, one line each with a count; rows are counted from 1.

    names: columns of the `P` targets. classes: which of them are classes, `P` flags.
    first: of `first_rows`.

    Raises `InputError` for a column that nothing can be learnt from, or fewer than 10 different molecules with a value.
    """
    known = ~np.isnan(data.targets)
    for i, name in enumerate(names):
        if not known[:, i].any():
            raise InputError(
                f"column {name!r}: got no value for any of {len(data)} readable molecules, expected some; leave it out"
            )
    n_usable = len(np.unique(first[known.any(axis=1)]))
    if n_usable < MIN_MOLECULES:
        raise InputError(
            f"got {n_usable} different molecules with a value in {data.n_rows} rows, expected at least "
            f"{MIN_MOLECULES}; add data"
        )
    same = _same(first)
    notes = left_out_notes(data, first)
    for i, (name, is_class) in enumerate(zip(names, classes, strict=True)):
        values = data.targets[:, i].astype(np.float64)
        if is_class:
            notes += _check_class(data, name, values)
        else:
            _check_values(name, values)
            notes += _sentinels(name, values)
        notes += _conflicts(data, name, values, is_class, same)
    return notes


def class_note(name: str, values: np.ndarray) -> list[str]:
    """A note if the values of a column, float `[N]` with NaN, look like classes that are not 0 and 1."""
    known = values[~np.isnan(values)].astype(np.float64)
    if not len(known) or looks_like_class(known) or (known != np.round(known)).any():
        return []
    distinct = np.unique(known)
    if not 2 <= len(distinct) <= MAX_CLASSES or len(known) < 4 * len(distinct) or np.abs(distinct).max() > 100:
        return []
    words = ", ".join(f"{value:g}" for value in distinct)
    advice = "write them as 0 and 1" if len(distinct) == 2 else "make a column of 0 and 1 for each"
    if len(distinct) == 3 and {0, 1} < set(distinct.tolist()):
        other = next(value for value in distinct if value not in (0, 1))
        advice += f" (or leave the cells blank where {other:g} says that nothing is known)"
    return [
        f"column {name!r}: its {len(known)} values are {words} and look like classes, but are learnt as values; "
        f"if they are classes, {advice}, and if not, {name}:value leaves out this note"
    ]


def _sentinels(name: str, values: np.ndarray) -> list[str]:
    """A note on a lowest or highest value that is far from the rest, and farther where it stands alone."""
    known = values[~np.isnan(values)]
    for value in (known.min(), known.max()):
        n, rest = int((known == value).sum()), known[known != value]
        nines = set(f"{abs(value):g}") == {"9"} and abs(value) > (9 if n > 1 else 99)
        if len(np.unique(rest)) < MAX_CLASSES or (n < 2 and not nines and suits_log(known)):
            continue
        far = abs(value - float(rest.mean())) / float(rest.std())
        if far >= (FAR_NINES if nines else FAR if n > 1 else FAR_ALONE):
            cells = "1 cell has" if n == 1 else f"{n} cells have"
            return [
                f"column {name!r}: {cells} the value {value:g}, {far:.3g} deviations from the rest, which is learnt as "
                "it is; where it is a slip, correct it, and where it stands for a missing value, leave the cell blank"
            ]
    return []


def decades(values: np.ndarray) -> float:
    """Powers of ten that most values, float `[N]` without NaN, span (2 % at either end do not count).

    0 where some are not above 0.
    """
    if not len(values) or values.min() <= 0:
        return 0.0
    low, high = np.percentile(values, (2, 98))
    return float(np.log10(high / low))


def merge_duplicates(data: Dataset, classes: Sequence[bool], first: np.ndarray) -> tuple[Dataset, int]:
    """Each molecule once, at its first row, and the number of merged rows: no molecule may both train and test.

    Its value is the median of its known values; its class that of most of them, missing (NaN) for a tie. first: of
    `first_rows`.
    """
    targets = data.targets.copy()
    for at in _same(first):
        for i, is_class in enumerate(classes):
            known = data.targets[at, i].astype(np.float64)
            known = known[~np.isnan(known)]
            value = np.median(known) if len(known) else np.nan
            # The median of 0s and 1s is the majority, and 0.5 a tie.
            targets[at[0], i] = np.nan if is_class and value == 0.5 else value
    unique = np.flatnonzero(first == np.arange(len(first)))
    return replace(data, targets=targets).at(unique), len(data) - len(unique)


def _same(first: np.ndarray) -> list[np.ndarray]:
    """Positions of each molecule that occurs more than once, ascending; molecules in the order of their first."""
    order = np.argsort(first, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(first[order])) + 1)
    return [at for at in groups if len(at) > 1]


def left_out_notes(data: Dataset, first: np.ndarray) -> list[str]:
    """Notes on rows that are not molecules of their own: unreadable ones and duplicates. first: of `first_rows`."""
    notes, same = _unreadable(data), _same(first)
    if same:
        n_rows = sum(len(at) for at in same)
        notes.append(
            f"duplicates: {counted(len(same), 'molecule')} in more than one row ({n_rows} rows together); the first is "
            f"{shortened(data.smiles[same[0][0]])} in rows {_row(data, same[0][0])} and {_row(data, same[0][1])}"
        )
    return notes


def _unreadable(data: Dataset) -> list[str]:
    if not data.unreadable:
        return []
    row, smiles = next(iter(data.unreadable.items()))
    return [
        f"unreadable: {len(data.unreadable)} of {data.n_rows} rows are left out; the first is row {row + 1}, "
        f"{shortened(smiles)} ({data.featurizer.parse_smiles(smiles).reason})"
    ]


def check_classes(data: Dataset, name: str, values: np.ndarray, advice: str) -> None:
    """Raises `InputError`, with this advice, where a value of a class, float `[N]` with NaN, is neither 0 nor 1."""
    other = np.flatnonzero(~np.isnan(values) & ~np.isin(values, (0, 1)))
    if len(other):
        raise InputError(
            f"{_line(data, other[0])}row {_row(data, other[0])}, column {name!r}: got {values[other[0]]:g}, expected "
            f"the class 0 or 1, or a blank; {advice}"
        )


def _check_class(data: Dataset, name: str, values: np.ndarray) -> list[str]:
    check_classes(data, name, values, "train it as a value if that is what it is")
    n_known, n_ones = int((~np.isnan(values)).sum()), int(np.nansum(values))
    n_rare = min(n_ones, n_known - n_ones)
    if not n_rare:
        raise InputError(
            f"column {name!r}: got class {int(n_ones > 0)} for all {n_known} molecules, expected both 0 and 1; "
            "leave it out"
        )
    if n_rare >= MIN_OF_CLASS:
        return []
    rare = int(n_ones < n_known - n_ones)
    return [
        f"column {name!r}: class {rare} has only {n_rare} of {n_known} molecules; a part of the split may have none"
    ]


def _check_values(name: str, values: np.ndarray) -> None:
    low, high = np.nanmin(values), np.nanmax(values)
    if low == high:
        raise InputError(
            f"column {name!r}: got {low:g} for all {int((~np.isnan(values)).sum())} molecules, expected different "
            "values; leave it out"
        )


def _conflicts(data: Dataset, name: str, values: np.ndarray, is_class: bool, same: Sequence[np.ndarray]) -> list[str]:
    """Molecules that occur more than once with different values: farther apart than noise, or in both classes."""
    limit = 0.5 if is_class else CONFLICT * float(np.nanstd(values))
    known = (at[~np.isnan(values[at])] for at in same)
    conflicts = [at for at in known if len(at) > 1 and np.ptp(values[at]) > limit]
    if not conflicts:
        return []
    at = conflicts[0]
    low, high = at[np.argmin(values[at])], at[np.argmax(values[at])]
    what = "both classes" if is_class else f"values more than {CONFLICT:g} deviations apart"
    return [
        f"column {name!r}: {counted(len(conflicts), 'molecule')} with {what}; the first is "
        f"{shortened(data.smiles[low])} with {values[low]:g} in row {_row(data, low)} and {values[high]:g} in row "
        f"{_row(data, high)}"
    ]


def _row(data: Dataset, position: int) -> int:
    """Row of the table, counted from 1."""
    return int(data.rows[position]) + 1


def _line(data: Dataset, position: int) -> str:
    """`line 7: `, where the line of the file is known."""
    return f"line {data.lines[data.rows[position]]}: " if len(data.lines) else ""
