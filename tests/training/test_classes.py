"""A column of yes and no is learnt as a class, and answered with a probability; doubtful columns are told."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mora_lite.packs.pack import open_pack
from mora_lite.training.dataset import read_dataset
from mora_lite.training.pipeline import (
    infer_task_kinds,
    train,
)
from mora_lite.training.recipe import Recipe, TaskRecipe, read_recipe
from mora_lite.training.splits import Split

pytestmark = pytest.mark.usefixtures("no_compiler")


@pytest.fixture(scope="module")
def class_data(folder: Path, molecules: list[str]) -> Path:
    """45 rows with `ring` in words (yes and no), three of them molecules that have stood before, and a split column."""
    smiles = [*molecules[:42], "OCC", "C1=CC=CC=C1", "CC(O)=O"]
    parts = ["train", "train", "train", "valid", "test"] * 9
    rows = [
        f"{text},{part},{'' if i % 11 == 10 else 'yes' if '1' in text else 'no'},{len(text)}"
        for i, (text, part) in enumerate(zip(smiles, parts, strict=True))
    ]
    path = folder / "classes.csv"
    path.write_text("\n".join(["smiles,part,ring,size", *rows]) + "\n")
    return path


@pytest.fixture(scope="module")
def class_pack(folder: Path, class_data: Path) -> Path:
    """A pack of a class and a value, split by a column of the table."""
    text = (
        (folder / "recipe.toml")
        .read_text()
        .replace('name = "size"\nunit = "a"', 'name = "ring"')
        .replace('name = "polar"\ncolumn = "polarity"', 'name = "size"\nunit = "a"')
    )
    (folder / "classes.toml").write_text(text)
    split = Split(0, kind="given", column="part")
    recipe = replace(read_recipe(folder / "classes.toml"), split=split)
    train(class_data, folder / "class-pack", recipe=recipe, device="cpu")
    return folder / "class-pack"


def test_a_column_of_yes_and_no_is_a_class(class_pack: Path, class_data: Path) -> None:
    ring, size = open_pack(class_pack).tasks
    assert (ring.kind, ring.unit, ring.deviation, size.kind) == ("class", "", 1.0, "value")
    assert ring.prompt == "Question: Is the molecule ring? Answer:"
    with class_data.open() as file:
        rows = list(csv.DictReader(file))[:42]  # the others repeat molecules
    train = [row["ring"] for row in rows if row["part"] == "train" and row["ring"]]
    share = train.count("yes") / len(train)
    assert ring.mean == pytest.approx(np.log(share / (1 - share)), rel=1e-5), "log-odds of the training positives"


def test_it_answers_with_a_probability(run, class_pack: Path, class_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    assert run("predict", class_data, "-p", class_pack, "-o", out)[0] == 0
    with out.open() as file:
        rows = list(csv.DictReader(file))
    ours = [name for name in rows[0] if name not in ("smiles", "part", "ring", "size")]
    assert ours == [
        *("ring (mora-lite)", "size [a]", "size_lo", "size_hi"),
        *("similarity", "in_domain", "outside", "status", "error"),
    ]
    assert all(0 <= float(row["ring (mora-lite)"]) <= 1 for row in rows)
    assert len({row["ring (mora-lite)"] for row in rows}) > 20
    assert {row["in_domain"] for row in rows} <= {"true", "false"}


def test_its_figures_are_those_of_a_class(run, class_pack: Path, class_data: Path) -> None:
    code, out, _ = run("evaluate", class_pack, class_data, "--json")
    assert code == 0
    found = json.loads(out)
    ring = found["figures"]["ring"]
    assert {"n", "positives", "roc_auc", "pr_auc", "brier", "ece", "encoder_roc_auc"} <= set(ring)
    assert 0 < ring["positives"] < ring["n"]
    assert ring == pytest.approx(open_pack(class_pack).provenance["test"]["ring"], rel=1e-3)
    assert set(found["tables"]["ring"]) == {"by_similarity", "by_domain", "by_scaffold", "calibration"}
    code, out, _ = run("evaluate", class_pack, class_data, "--tables")
    lines = [line.strip() for line in out.splitlines()]
    for title in ("values", "classes", "ring, calibration", "ring, by domain", "size [a], by scaffold"):
        assert title in lines


@pytest.mark.parametrize("command", ["evaluate", "calibrate"])
def test_classes_of_a_table_that_are_not_0_and_1_are_one_line(
    run, class_pack: Path, class_data: Path, tmp_path: Path, command: str
) -> None:
    pack, data = shutil.copytree(class_pack, tmp_path / "pack"), tmp_path / "data.csv"
    data.write_text(class_data.read_text().replace(",yes,", ",1,").replace(",no,", ",2,"))
    code, _, err = run(command, pack, data)
    assert code == 2
    assert "line 2: row 1, column 'ring': got 2, expected the class 0 or 1, or a blank; task 'ring' is a class" in err


def test_a_wrong_column_for_a_class_is_one_line(run, class_pack: Path, class_data: Path) -> None:
    code, _, err = run("evaluate", class_pack, class_data, "--column", "ring=size", "--split", "all")
    assert code == 2
    assert "row 4, column 'size': got 4, expected the class 0 or 1, or a blank" in err


def test_a_molecule_that_stands_twice_is_on_one_side_only(class_pack: Path, class_data: Path) -> None:
    facts = open_pack(class_pack).provenance
    assert facts["data"]["merged"] == 3
    assert facts["split"]["kind"] == "given"
    assert any("duplicates: 3 molecules in more than one row" in note for note in facts["notes"])
    data = read_dataset(class_data, "smiles", ["ring"], split_column="part")
    n_train = sum(data.marks[row] == "train" for row in range(42))
    assert facts["trained"]["molecules"] == n_train


def test_notes_are_told_on_stderr(run, folder: Path, class_data: Path, tmp_path: Path) -> None:
    options = ["--recipe", folder / "recipe.toml", "-o", tmp_path / "pack", "--split", "scaffold"]
    data = tmp_path / "odd.csv"
    lines = (folder / "data.csv").read_text().splitlines()
    data.write_text("\n".join([*lines, "x,C1CC,1,2", "y,OCC,3,4"]) + "\n")
    code, _, err = run("train", data, *options)
    assert code == 0
    first, *notes = [line for line in err.splitlines() if line.startswith("note: ")]
    assert first.endswith("--without-data leaves them out")
    assert notes[0] == "note: unreadable: 1 of 42 rows are left out; the first is row 41, 'C1CC' (unclosed ring)"
    assert notes[1].startswith("note: duplicates: 1 molecule in more than one row")
    facts = open_pack(tmp_path / "pack").provenance
    assert facts["split"] | {"seed": 0} == {"seed": 0, "train": 32, "valid": 4, "kind": "scaffold", "column": ""}
    assert [f"note: {note}" for note in facts["notes"]] == notes
    code, out, _ = run("evaluate", tmp_path / "pack", data, "--json")
    assert code == 0
    recorded = facts["test"]["size"]
    assert json.loads(out)["figures"]["size"]["mae"] == pytest.approx(recorded["mae"], rel=1e-4)


def test_zeros_and_ones_may_be_values(dataset) -> None:
    data = replace(dataset, targets=(dataset.targets > 3).astype(np.float32))
    asked = Recipe("r", (TaskRecipe("a"), TaskRecipe("b", kind="value")))
    assert [task.kind for task in infer_task_kinds(asked, data).tasks] == ["class", "value"]
    united = Recipe("r", (TaskRecipe("a", unit="nM"), TaskRecipe("b")))
    assert [task.kind for task in infer_task_kinds(united, data).tasks] == ["value", "class"], "a class has no unit"
