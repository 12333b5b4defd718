"""Splits that anyone can repeat: random, by scaffold, as a column says."""

from __future__ import annotations

from dataclasses import asdict, replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mora_lite.chem.featurizer import Featurizer
from mora_lite.chem.molecules import scaffold_of
from mora_lite.errors import InputError
from mora_lite.training.dataset import Dataset
from mora_lite.training.splits import Parts, Split, fractions, part_notes, split_notes, split_rows

# Scaffolds: benzene 5, none 4, pyridine 2, cyclohexane 1, and 1 of two rings.
REAL = [
    "Cc1ccccc1",
    "CCO",
    "Oc1ccccc1",
    "c1ccncc1",
    "CCCC",
    "Nc1ccccc1",
    "C1CCCCC1",
    "Fc1ccccc1",
    "CC(N)C(=O)O",
    "Cc1ccncc1",
    "c1ccc(Cc2ccccc2)cc1",
    "Clc1ccccc1",
    "CO",
]


def molecules(smiles: list[str], unreadable: tuple[int, ...] = (), marks: list[str] | None = None) -> Dataset:
    """A table of these SMILES, with rows between them that could not be read."""
    n_rows = len(smiles) + len(unreadable)
    rows = np.setdiff1d(np.arange(n_rows), unreadable)
    graphs = Featurizer().read_smiles(smiles)
    return Dataset(smiles, graphs, np.zeros((len(smiles), 1), np.float32), rows, n_rows, "", marks or [])


def marked(*marks: str) -> Dataset:
    return molecules(["C"] * len(marks), marks=list(marks))


def together(parts: Parts) -> np.ndarray:
    """All rows of the parts, ascending; twice if they are in two."""
    assert list(parts) == ["train", "valid", "test"]
    assert all(part.dtype == np.int64 and (np.diff(part) > 0).all() for part in parts.values())
    return np.sort(np.concatenate(list(parts.values())))


# --- random


def test_a_random_split_is_the_same_for_ever() -> None:
    """Golden: packs record only seed and sizes, so these rows may never change."""
    rows = Split(0, 80, 10).rows(100)
    assert rows["train"][:5].tolist() == [0, 1, 2, 3, 4]
    assert rows["valid"].tolist() == [7, 31, 38, 48, 63, 73, 76, 77, 88, 89]
    assert rows["test"].tolist() == [29, 33, 41, 54, 56, 59, 69, 78, 79, 95]


def test_what_older_packs_record_is_still_a_split() -> None:
    split = Split(**{"seed": 3, "train": 80, "valid": 10, "kind": "random"})
    assert split == Split(3, 80, 10)
    assert Split(**asdict(split)) == split


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 60), st.integers(0, 2**32))
def test_random_parts_are_disjoint_and_cover_the_table(train: int, valid: int, test: int, seed: int) -> None:
    n_rows = train + valid + test
    parts = Split(seed, train, valid).rows(n_rows)
    assert [len(part) for part in parts.values()] == [train, valid, test]
    assert np.array_equal(together(parts), np.arange(n_rows))


def test_unreadable_rows_take_part_in_a_random_split() -> None:
    parts = split_rows(Split(0, 3, 1), molecules(["C", "N", "O"], unreadable=(1, 4)))
    assert np.array_equal(together(parts), np.arange(5))


def test_another_seed_is_another_split() -> None:
    assert not np.array_equal(Split(0, 80, 10).rows(100)["test"], Split(1, 80, 10).rows(100)["test"])


@pytest.mark.parametrize(("train", "valid"), [(90, 10), (200, 1), (0, 10), (80, 0), (-1, 5)])
def test_a_part_without_rows_is_refused(train: int, valid: int) -> None:
    with pytest.raises(InputError, match=f"split: got {train} training and {valid} validation rows of 100"):
        Split(0, train, valid).rows(100)
    with pytest.raises(InputError, match=f"split: got {train} training and {valid} validation rows of 100"):
        split_rows(Split(0, train, valid, "scaffold"), molecules(["C"] * 100))


@pytest.mark.parametrize(
    ("kind", "column", "words"),
    [
        ("scafold", "", "unknown kind 'scafold': did you mean scaffold"),
        ("given", "", "expected a column with kind 'given'"),
        ("random", "part", "got kind 'random' and column 'part'"),
    ],
)
def test_a_split_that_makes_no_sense_is_refused(kind: str, column: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        Split(0, 8, 1, kind, column)


# --- scaffold


def test_a_scaffold_is_rings_and_what_links_them() -> None:
    assert scaffold_of("Cc1ccccc1") == scaffold_of("OC(=O)c1ccccc1Cl") == "c1ccccc1"
    assert scaffold_of("CCO") == scaffold_of("[Na+].[Cl-]") == ""
    cis, trans = "C1CC[C@H]2CCCC[C@H]2C1", "C1CC[C@H]2CCCC[C@@H]2C1"
    assert scaffold_of(cis) == scaffold_of(trans) == "C1CCC2CCCCC2C1"  # no chirality


def test_large_scaffolds_train_and_rare_ones_test() -> None:
    parts = split_rows(Split(0, 9, 2, "scaffold"), molecules(REAL))
    assert parts["train"].tolist() == [0, 1, 2, 4, 5, 7, 8, 11, 12]  # benzenes and chains
    assert parts["valid"].tolist() == [3, 9]  # pyridines
    assert parts["test"].tolist() == [6, 10]


def test_what_does_not_fit_whole_goes_to_the_next_part() -> None:
    parts = split_rows(Split(0, 7, 5, "scaffold"), molecules(REAL))
    assert parts["train"].tolist() == [0, 2, 3, 5, 7, 9, 11]  # benzenes; the 4 chains do not fit, the 2 pyridines do
    assert parts["valid"].tolist() == [1, 4, 8, 10, 12]
    assert parts["test"].tolist() == [6]


def test_of_scaffolds_of_one_size_the_later_comes_first() -> None:
    rings = ["C1CC1", "C1CCC1", "C1CCCC1", "C1CCCCC1"]
    parts = split_rows(Split(0, 2, 1, "scaffold"), molecules(rings))
    assert [part.tolist() for part in parts.values()] == [[2, 3], [1], [0]]


def test_unreadable_rows_are_in_no_part_of_a_scaffold_split() -> None:
    parts = split_rows(Split(0, 9, 2, "scaffold"), molecules(REAL, unreadable=(0, 14)))
    assert together(parts).tolist() == list(range(1, 14))
    assert parts["valid"].tolist() == [4, 10]


def test_a_scaffold_split_is_the_same_for_every_seed() -> None:
    data = molecules(REAL)
    first, second = (split_rows(Split(seed, 9, 2, "scaffold"), data) for seed in (0, 7))
    assert all(np.array_equal(first[name], second[name]) for name in first)


@settings(deadline=None)
@given(st.lists(st.sampled_from(REAL), min_size=3, max_size=60), st.data())
def test_scaffold_parts_are_disjoint_complete_and_share_no_scaffold(smiles: list[str], draw: st.DataObject) -> None:
    train = draw.draw(st.integers(1, len(smiles) - 2))
    valid = draw.draw(st.integers(1, len(smiles) - 1 - train))
    try:
        parts = split_rows(Split(0, train, valid, "scaffold"), molecules(smiles))
    except InputError:  # one scaffold has most of the molecules; see below
        return
    assert np.array_equal(together(parts), np.arange(len(smiles)))
    assert all(map(len, parts.values()))
    assert len(parts["train"]) <= train
    assert len(parts["valid"]) <= train + valid
    scaffolds = [{scaffold_of(smiles[i]) for i in part} for part in parts.values()]
    assert sum(map(len, scaffolds)) == len(set.union(*scaffolds))


def test_too_few_scaffolds_are_told_with_their_counts() -> None:
    with pytest.raises(
        InputError, match=r"got 1 training, 0 validation and 19 test molecules, 19 of 20 on one scaffold"
    ):
        split_rows(Split(0, 16, 2, "scaffold"), molecules(["C1CC1", *["C" * n for n in range(1, 20)]]))


# --- shares


def test_shares_become_numbers_of_rows() -> None:
    assert fractions("random", 1128, 5) == Split(5, 902, 112)
    assert fractions("scaffold", 1128, 5) == Split(5, 902, 113, "scaffold")  # the cuts of DeepChem: 902 and 1015


# --- given


def test_a_column_says_train_valid_test_in_the_words_that_are_used() -> None:
    split = Split(0, kind="given", column="part")
    data = marked("train", "Training", "TRAIN ", "val", "valid", "Validation", "dev", "test", "TESTING", "", "holdout")
    parts = split_rows(split, data)
    assert [part.tolist() for part in parts.values()] == [[0, 1, 2], [3, 4, 5, 6], [7, 8]]
    (note,) = split_notes(split, data, np.arange(len(data)))
    assert "2 of 11 rows say neither train, valid nor test" in note
    assert "row 10, ''" in note


def test_a_molecule_in_rows_of_several_parts_is_told() -> None:
    split, data = Split(0, kind="given", column="part"), marked("train", "valid", "test", "test", "train")
    first = np.array([0, 1, 0, 3, 4])
    (note,) = split_notes(split, data, first)
    assert "1 row in another part than the first row of the same molecule" in note
    assert "the first is row 3, 'test', and row 1, 'train'" in note


def test_without_a_test_part_it_is_empty() -> None:
    split, data = Split(0, kind="given", column="part"), marked("train", "valid")
    assert [part.tolist() for part in split_rows(split, data).values()] == [[0], [1], []]
    assert split_notes(split, data, np.arange(len(data))) == []


def test_without_a_valid_part_a_tenth_of_the_training_rows_validates() -> None:
    data = marked(*["test", "train", "train", "train"] * 10)
    splits = [Split(seed, kind="given", column="part") for seed in range(4)]
    for split in splits:
        parts = split_rows(split, data)
        assert [len(part) for part in parts.values()] == [27, 3, 10]
        assert np.array_equal(together(parts), np.arange(40))
        assert np.array_equal(parts["test"], np.arange(0, 40, 4))
    chosen = [split_rows(split, data)["valid"].tolist() for split in splits]
    assert any(a != b for a, b in pairwise(chosen))
    assert chosen[0] == split_rows(splits[0], data)["valid"].tolist()
    (note,) = split_notes(splits[2], data, np.arange(40))
    assert "no row says valid; 3 of the 30 training rows, chosen by seed 2" in note


@pytest.mark.parametrize(
    ("marks", "counts"),
    [
        (["valid", "test", "test"], "got 0 training, 1 validation and 2 test rows of 3"),
        (["train", "test"], "got 1 training, 0 validation and 1 test rows of 2"),
        (["a", "b", ""], "got 0 training, 0 validation and 0 test rows of 3"),
    ],
)
def test_a_column_without_training_rows_is_refused(marks: list[str], counts: str) -> None:
    with pytest.raises(InputError, match=f"split column 'part': {counts}") as caught:
        split_rows(Split(0, kind="given", column="part"), marked(*marks))
    assert "\n" not in str(caught.value)


def test_other_kinds_have_nothing_to_tell() -> None:
    assert split_notes(Split(0, 80, 10), molecules(REAL), np.arange(len(REAL))) == []


# --- parts with too few values


def test_parts_with_too_few_values_are_told() -> None:
    def part(n: int, *columns: list[float]) -> Dataset:
        """Molecules of two values and two classes; what a column does not say is blank."""
        targets = np.full((n, 4), np.nan, np.float32)
        for i, column in enumerate(columns):
            targets[: len(column), i] = column
        return replace(molecules(["C"] * n), targets=targets)

    valid = part(9, [*range(9)], [0.5], [0, 1], [1] * 6)
    test = part(3, [1, 2], [], [1, 0], [0, 0])
    parts, names, classes = {"valid": valid, "test": test}, ["a", "b", "c", "d"], [False, False, True, True]
    assert part_notes(parts, dict(enumerate(names)), classes) == [
        "column 'b': 1 validation value; 9 are needed for an interval of 90 %",
        "column 'b': no test value, so its errors are not measured",
        "column 'd': 6 validation values, only of class 1; both classes are needed to calibrate its probabilities",
        "column 'd': test values only of class 0, so no ROC-AUC is measured",
    ]
    assert part_notes(parts, {0: "a", 2: "c"}, classes) == [], "of these tasks alone"
    nothing = part_notes({"valid": part(0), "test": part(0)}, {1: "b", 3: "d"}, classes)
    assert [note.split(": ")[1] for note in nothing[::2]] == [
        "no validation value; 9 are needed for an interval of 90 %",
        "no validation value; both classes are needed to calibrate its probabilities",
    ]
