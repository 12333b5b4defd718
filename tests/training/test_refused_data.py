"""Data that cannot be trained on are refused before the work, with what is wrong and where."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mora_lite.errors import CheckpointError, InputError
from mora_lite.packs.pack import open_pack
from mora_lite.training.pipeline import (
    train,
)
from mora_lite.training.recipe import Recipe, TaskRecipe
from mora_lite.training.splits import Split

pytestmark = pytest.mark.usefixtures("no_compiler")


def table(
    tmp_path: Path, values: list[object], smiles: list[str] | None = None, polarity: list[object] | None = None
) -> Path:
    path = tmp_path / "data.csv"
    names = smiles or ["C" * (i + 1) for i in range(len(values))]
    lines = [f"{s},{v},{p}" for s, v, p in zip(names, values, polarity or values, strict=True)]
    path.write_text("\n".join(["smiles,size,polarity", *lines]) + "\n")
    return path


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([0.1] * 40, "column 'size': got 0.1 for all 40 molecules, expected different values"),
        ([""] * 40, "column 'size': got no value for any of 40 readable molecules"),
        ([1, 2, 3, 4, 5], "got 5 different molecules with a value in 5 rows, expected at least 10; add data"),
        ([1] * 40, "column 'size': got 1 for all 40 molecules"),
        (["x"] * 40, "row 1, column 'size': got 'x'"),
    ],
)
def test_targets_without_information_are_refused(recipe: Recipe, tmp_path: Path, values: list, words: str) -> None:
    with pytest.raises(InputError, match=words):
        train(table(tmp_path, values), tmp_path / "out", recipe=recipe, device="cpu")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"split": "Scafold"},
            r"split: got 'Scafold', expected random, scaffold or a column of .*: did you mean scaffold",
        ),
        ({"start": "structure"}, "start: got 'structure', expected a file of .* or a name: did you mean structures"),
    ],
)
def test_slips_of_the_pen_are_told_what_is_known(recipe: Recipe, tmp_path: Path, options: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        train(table(tmp_path, list(range(40))), tmp_path / "out", recipe=recipe, device="cpu", **options)
    assert not (tmp_path / "out.run").exists()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([5] * 32, "got 32 training values that are all the same, expected at least two different ones"),
        ([""] * 32, "got 0 training values, expected at least two different ones"),
    ],
)
def test_training_rows_without_information_are_refused(
    recipe: Recipe, tmp_path: Path, values: list, words: str
) -> None:
    """The other rows have values, which is not enough."""
    column: list[object] = list(range(40))
    for row, value in zip(Split(0, 32, 4).rows(40)["train"], values, strict=True):
        column[row] = value
    with pytest.raises(InputError, match=f"column 'size': {words}"):
        train(table(tmp_path, column, polarity=list(range(40))), tmp_path / "out", recipe=recipe, device="cpu")


def test_validation_rows_that_cannot_be_read_are_told(recipe: Recipe, tmp_path: Path) -> None:
    bad = set(Split(0, 32, 4).rows(40)["valid"].tolist())
    smiles = ["bad" if i in bad else "C" * (i + 1) for i in range(40)]
    with pytest.raises(InputError, match="no molecule of the 4 validation rows could be read"):
        train(table(tmp_path, list(range(40)), smiles), tmp_path / "out", recipe=recipe, device="cpu")


def test_test_rows_without_values_leave_the_error_unknown(run, folder: Path, tmp_path: Path) -> None:
    empty = set(Split(0, 32, 4).rows(40)["test"].tolist())
    data = table(tmp_path, ["" if i in empty else i for i in range(40)])
    code, out, _ = run("train", data, "--recipe", folder / "recipe.toml", "-o", tmp_path / "pack")
    assert code == 0
    assert out.splitlines()[2].split() == ["size", "[a]", "0"], "no value of the test rows, so no error"
    assert "No molecule here has a measured" in (tmp_path / "pack.report.html").read_text(encoding="utf-8")
    assert open_pack(tmp_path / "pack").provenance["test"]["size"]["mae"] is None


def test_validation_rows_without_values_are_told(run, folder: Path, tmp_path: Path) -> None:
    empty = set(Split(0, 32, 4).rows(40)["valid"].tolist())
    data = table(tmp_path, ["" if i in empty else i for i in range(40)])
    code, _, err = run("train", data, "--recipe", folder / "recipe.toml", "-o", tmp_path / "pack")
    assert code == 0
    assert "note: column 'size': no validation value; 9 are needed for an interval of 90 %\n" in err
    assert err.count("  valid not known  loss") == 2, "of each stage"


def test_test_rows_that_cannot_be_read_leave_the_error_unknown(recipe: Recipe, tmp_path: Path) -> None:
    bad = set(Split(0, 32, 4).rows(40)["test"].tolist())
    smiles = ["bad" if i in bad else "C" * (i + 1) for i in range(40)]
    pack = train(table(tmp_path, list(range(40)), smiles), tmp_path / "out", recipe=recipe, device="cpu")
    assert pack.provenance["test"]["size"]["n"] == 0


def test_an_unknown_base_is_told_before_the_work(recipe: Recipe, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="smollm2-135: neither a path nor a known base model; did you mean"):
        train(folder / "data.csv", tmp_path / "out", recipe=recipe, base="smollm2-135", device="cpu")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "values", "words"),
    [
        ("class", [0, 1, 2] * 13, "column 'size': got 2, expected 0 and 1 only, as it is a class"),
        ("class", [0] * 39, "column 'size': got class 0 for all 39 molecules, expected both 0 and 1"),
    ],
)
def test_what_is_no_class_is_refused(recipe: Recipe, tmp_path: Path, kind: str, values: list, words: str) -> None:
    wanted = replace(recipe, tasks=(TaskRecipe("size", kind=kind),))
    with pytest.raises(InputError, match=words):
        train(table(tmp_path, values), tmp_path / "out", recipe=wanted, device="cpu")


def test_a_table_that_can_be_read_only_once_is_refused_before_the_work(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="-: a table is read twice, to train and to test; save it as a file first"):
        train("-", tmp_path / "out", recipe=recipe, device="cpu")
