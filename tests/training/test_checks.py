"""Data that cannot be learnt from is refused; doubtful data is counted; duplicates become one."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from rdkit import Chem

from mora_lite.chem.featurizer import Featurizer
from mora_lite.errors import InputError
from mora_lite.training.checks import (
    check_data,
    class_note,
    decades,
    first_rows,
    looks_like_class,
    merge_duplicates,
    suits_log,
)
from mora_lite.training.dataset import Dataset, read_dataset

CHAINS = ["C" * n for n in range(1, 21)]
HALVES = [i % 2 for i in range(20)]


@pytest.fixture
def table(tmp_path: Path):
    """Makes a dataset of rows: SMILES, then the targets."""

    def make(rows: list[tuple]) -> Dataset:
        names = [f"y{i}" for i in range(1, len(rows[0]))]
        lines = [",".join(map(str, row)) for row in [("smiles", *names), *rows]]
        path = tmp_path / "data.csv"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return read_dataset(path, "smiles", names)

    return make


def chains(*columns: list) -> list[tuple]:
    return list(zip(CHAINS, *columns, strict=False))


def check(data: Dataset, *classes: bool) -> list[str]:
    return check_data(data, [f"y{i + 1}" for i in range(len(classes))], classes, first_rows(data))


def one(warnings: list[str]) -> str:
    (warning,) = warnings
    assert "\n" not in warning
    return warning


# --- kinds


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0, 1, np.nan], True), ([1, 1], True), ([0, 1, 2], False), ([0.5], False), ([np.nan], False), ([], False)],
)
def test_a_column_of_0_and_1_looks_like_a_class(values: list[float], expected: bool) -> None:
    assert looks_like_class(np.array(values, np.float32)) is expected


SPREAD = np.random.default_rng(0).normal(size=1000)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (10**SPREAD, True),  # concentrations
        (3 * 50 ** np.linspace(0, 1, 200), True),  # a clearance, cut off at 3 and 150
        (10 ** (0.2 * SPREAD), False),  # skewed, but within one decade
        (10**SPREAD - 0.1, False),  # some below 0
        (np.maximum(10**SPREAD, 1) - 1, False),  # many 0
        (100 - 10 ** np.clip(SPREAD, -2, 1.9), False),  # percent bound: skewed to the left
        (300 + 80 * SPREAD, False),  # a mass
        (np.append(5 + SPREAD.clip(-2, 2), 1e6), False),  # one slip of the pen
        (np.array([]), False),
    ],
)
def test_values_that_span_decades_suit_a_logarithm(values: np.ndarray, expected: bool) -> None:
    assert suits_log(values) is expected


# --- what is refused


def test_sound_data_has_no_warnings(table) -> None:
    assert check(table(chains(range(20), HALVES)), False, True) == []


def test_fewer_than_10_molecules_with_a_value_are_refused(table) -> None:
    sound = chains([*range(10), *[""] * 10])
    assert check(table(sound), False) == []
    for rows in (sound[:9] + sound[10:], [("CCO", i) for i in range(20)]):
        n = len({smiles for smiles, y in rows if y != ""})
        with pytest.raises(
            InputError, match=f"got {n} different molecules with a value in {len(rows)} rows, .* least 10"
        ):
            check(table(rows), False)


def test_molecules_with_any_one_value_count(table) -> None:
    assert check(table(chains([*range(5), *[""] * 15], [""] * 5 + [*range(5), *[""] * 10])), False, False) == []


@pytest.mark.parametrize(
    ("column", "is_class", "words"),
    [
        ([""] * 20, False, "column 'y2': got no value for any of 20 readable molecules"),
        ([""] * 20, True, "column 'y2': got no value"),
        ([7] * 20, False, "column 'y2': got 7 for all 20 molecules"),
        ([7] + [""] * 19, False, "column 'y2': got 7 for all 1 molecules"),
        ([1] * 18 + ["", ""], True, "column 'y2': got class 1 for all 18 molecules, expected both"),
        ([0] * 20, True, "column 'y2': got class 0 for all 20 molecules"),
        ([0, 1, 0.5] + [1] * 17, True, "row 3, column 'y2': got 0.5, expected the class 0 or 1"),
    ],
)
def test_a_column_that_teaches_nothing_is_refused_by_name(table, column: list, is_class: bool, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        check(table(chains(list(range(20)), column)), False, is_class)
    assert "\n" not in str(caught.value)


# --- what is counted


@pytest.mark.parametrize("rare", [0, 1])
def test_a_rare_class_is_told(table, rare: int) -> None:
    assert check(table(chains([rare] * 5 + [1 - rare] * 15)), True) == []
    warning = one(check(table(chains([rare] * 4 + [1 - rare] * 15 + [""])), True))
    assert f"column 'y1': class {rare} has only 4 of 19 molecules" in warning


def test_unreadable_rows_are_counted_and_the_first_is_shown(table) -> None:
    long = "C(" + "C" * 100
    rows = chains(list(range(20)))
    warning = one(check(table([*rows[:4], (long, 1), *rows[4:], ("", 2)]), False))
    assert "2 of 22 rows are left out; the first is row 5" in warning
    assert repr(long[:37] + "...") in warning


def test_duplicates_are_found_however_they_are_written(table) -> None:
    rows = chains(list(range(20)))
    same = [("OCCO", 3), ("C(O)CO", 3), ("C(CO)O", 3), ("c1ccccc1", 4), ("C1=CC=CC=C1", 4)]
    data = table([*rows, *same])
    assert first_rows(data).tolist() == [*range(20), 20, 20, 20, 23, 23]
    warning = one(check(data, False))
    assert "2 molecules in more than one row (5 rows together)" in warning
    assert "'OCCO' in rows 21 and 22" in warning


@pytest.mark.parametrize("featurizer", [Featurizer(), Featurizer(1, "none")], ids=str)
def test_duplicates_are_the_rows_with_one_canonical_smiles(tmp_path: Path, featurizer: Featurizer) -> None:
    alike = [
        "C[C@H](N)C(=O)O",
        "C[C@@H](N)C(=O)O",
        "CC(N)C(=O)O",
        "[13CH3]CO",
        "CCO",
        "F/C=C/F",
        "F/C=C\\F",
        "Oc1ccccn1",
    ]
    molecules = [Chem.MolFromSmiles(text) for text in [*alike, "O=c1cccc[nH]1", "CC(=O)[O-].[Na+]", "CC(=O)O"]]
    texts = [Chem.MolToSmiles(mol, doRandom=True) for mol in molecules * 4]
    (tmp_path / "a.csv").write_text("\n".join(["smiles", *texts]))
    data = read_dataset(tmp_path / "a.csv", "smiles", [], featurizer=featurizer)
    canonical = [Chem.MolToSmiles(featurizer.parse_smiles(text).mol) for text in texts]
    assert first_rows(data).tolist() == [canonical.index(text) for text in canonical]


def test_mirror_images_are_two_molecules(table) -> None:
    data = table([*chains(list(range(20))), ("C[C@H](O)CC", 1), ("C[C@@H](O)CC", 9)])
    assert check(data, False) == []


def test_values_of_one_molecule_may_differ_by_a_tenth_of_the_deviation(table) -> None:
    rows = chains(list(range(20)))
    deviation = np.std([*range(20), 5])
    near = check(table([*rows, ("CCCCCC", 5 + 0.09 * deviation)]), False)
    assert "duplicates: 1 molecule in" in one(near)
    duplicates, conflict = check(table([*rows, ("CCCCCC", 5 + 0.12 * deviation), ("CCCC", 9), ("C", "")]), False)
    assert "duplicates: 3 molecules" in duplicates
    assert "column 'y1': 2 molecules with values more than 0.1 deviations apart" in conflict
    assert "the first is 'CCCC' with 3 in row 4 and 9 in row 22" in conflict


def test_a_molecule_in_both_classes_is_told(table) -> None:
    agree = ("CCC", 0)
    warnings = check(table([*chains(HALVES), agree, ("bad", 0), ("CCCC", 0), ("CCCCC", "")]), True)
    assert len(warnings) == 3
    assert (
        "column 'y1': 1 molecule with both classes; the first is 'CCCC' with 0 in row 23 and 1 in row 4" in warnings[2]
    )


# --- merging


def test_merging_keeps_the_first_row_with_medians_and_majorities(table) -> None:
    data = table(
        [
            ("CCO", 1, 1, 1),
            ("bad", 0, 0, 0),
            ("N", 4, 0, ""),
            ("OCC", 2, 1, 0),
            ("C(O)C", 9, 0, ""),
            ("[NH3]", "", "", ""),
            ("O", "", 1, 0),
        ]
    )
    merged, n_merged = merge_duplicates(data, [False, True, True], first_rows(data))
    assert n_merged == 3
    assert merged.smiles == ["CCO", "N", "O"]
    assert merged.rows.tolist() == [0, 2, 6]
    assert merged.graphs.n_atoms.tolist() == [3, 1, 1]
    nan = np.nan  # of CCO's third target: one says 1, one says 0
    np.testing.assert_array_equal(merged.targets, np.array([[2, 1, nan], [4, 0, nan], [nan, 1, 0]], np.float32))
    assert merged.targets.dtype == np.float32
    assert (merged.n_rows, merged.fingerprint) == (data.n_rows, data.fingerprint)
    assert data.targets[0, 0] == 1  # the data read is not changed


def test_an_even_number_of_values_gives_the_middle(table) -> None:
    of_four = table([("C", 1, 0), ("C", 2, 0), ("C", 4, 0), ("C", 9, 1)])
    merged, _ = merge_duplicates(of_four, [False, True], first_rows(of_four))
    assert merged.targets.tolist() == [[3, 0]]
    of_two = table([("C", 0), ("C", 1)])
    assert np.isnan(merge_duplicates(of_two, [True], first_rows(of_two))[0].targets).all()
    assert merge_duplicates(of_two, [False], first_rows(of_two))[0].targets.tolist() == [[0.5]]


def test_data_without_duplicates_stays_as_it_is(table) -> None:
    data = table(chains(list(range(20)), HALVES))
    merged, n_merged = merge_duplicates(data, [False, True], first_rows(data))
    assert n_merged == 0
    assert merged.smiles == data.smiles
    assert np.array_equal(merged.targets, data.targets)
    assert merge_duplicates(merged, [False, True], first_rows(merged))[1] == 0


# --- values that may mean something else


@pytest.mark.parametrize(("mark", "n"), [(-999, 3), (9999, 1), (-99, 2), (1000, 2), (1000, 1), (1e30, 1)])
def test_a_far_value_that_may_stand_for_a_missing_one_is_told(table, mark: int, n: int) -> None:
    values = [*range(20 - n), *[mark] * n]
    note = one(check(table(chains(values)), False))
    assert note.startswith(f"column 'y1': {'1 cell has' if n == 1 else f'{n} cells have'} the value {mark}, ")
    assert note.endswith("where it stands for a missing value, leave the cell blank")


@pytest.mark.parametrize("values", [[*range(19), 40], [*range(18), 25, 25], [*range(18), 99, 98], HALVES])
def test_a_high_value_alone_is_no_mark(table, values: list[int]) -> None:
    assert check(table(chains(values)), False) == []


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([-1, 1] * 10, "its 20 values are -1, 1 and look like classes, .* write them as 0 and 1, .* y:value"),
        ([1, 2] * 10, "are 1, 2 and look"),
        ([-1, 0, 1] * 5, "for each .or leave the cells blank where -1 says that nothing is known."),
        ([0, 1, 2, 3] * 5, "are 0, 1, 2, 3 and look like classes, .* make a column of 0 and 1 for each"),
        ([0, 1] * 10, ""),
        ([0.5, 1] * 10, ""),
        ([*range(20)], ""),
        ([100, 300] * 10, ""),
        ([1, 2], ""),
    ],
)
def test_values_that_look_like_classes_are_told(values: list[float], words: str) -> None:
    notes = class_note("y", np.array(values, np.float32))
    assert bool(notes) == bool(words)
    assert not words or re.search(words, one(notes))


def test_powers_of_ten() -> None:
    assert decades(np.array([1e-3, 10] * 20)) == pytest.approx(4)
    assert decades(np.array([1e-9, *[1, 10] * 50])) == pytest.approx(1)
    assert decades(np.array([0, 10.0])) == decades(np.array([])) == 0
