"""`evaluate -o`: truth, prediction, interval and part of each molecule, as a table."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from mora_lite.errors import InputError, OutputError
from mora_lite.training.evaluate import evaluate

EXACT = {"device": "cpu", "dtype": "float32"}


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_each_molecule_has_its_truth_its_prediction_and_its_part(
    calibrated_pack_path, table_path, model, tmp_path
) -> None:
    out = tmp_path / "out.csv"
    evaluation = evaluate(calibrated_pack_path, table_path, split="all", output=out, **EXACT)
    rows, table = read(out), read(table_path)
    assert [int(row["row"]) for row in rows] == list(range(1, 61))
    assert [row["smiles"] for row in rows] == [row["smiles"] for row in table]
    assert {part: sum(row["split"] == part for row in rows) for part in ("train", "valid", "test")} == {
        "train": 40, "valid": 10, "test": 10,
    }  # fmt: skip
    values = model.predict([row["smiles"] for row in table])["size"]
    np.testing.assert_allclose([float(row["size"]) for row in rows], values, rtol=1e-4)
    assert all(float(row["size_true"]) == pytest.approx(float(table[i]["size"])) for i, row in enumerate(rows))
    assert [row["polarity_true"] == "" for row in rows] == [row["polarity"] == "" for row in table]
    assert {"size_lo", "size_hi", "similarity", "in_domain"} <= set(rows[0])
    assert evaluation.molecules["split"].tolist() == [row["split"] for row in rows]


def test_the_part_that_is_evaluated_is_the_table(pack_path, table_path, tmp_path) -> None:
    evaluate(pack_path, table_path, output=tmp_path / "out.csv", **EXACT)
    rows = read(tmp_path / "out.csv")
    assert len(rows) == 10
    assert {row["split"] for row in rows} == {"test"}


def test_an_output_that_exists_stays_unless_forced(pack_path, table_path, tmp_path) -> None:
    out = tmp_path / "out.csv"
    out.write_text("precious")
    with pytest.raises(OutputError, match="exists"):
        evaluate(pack_path, table_path, output=out, **EXACT)
    assert out.read_text() == "precious"


def test_a_task_is_read_from_the_column_that_is_named(pack_path, table_path, tmp_path) -> None:
    other = tmp_path / "other.csv"
    other.write_text(table_path.read_text().replace("size", "weight of it", 1))
    options = {"split": "all", "tasks": ["size"], **EXACT}
    with pytest.raises(InputError, match="--column TASK=HEADER"):
        evaluate(pack_path, other, **options)
    got = evaluate(pack_path, other, columns={"SIZE": "weight of it"}, **options).metrics
    assert got == evaluate(pack_path, table_path, **options).metrics


def test_rows_that_are_left_out_are_counted(pack_path, table_path, tmp_path) -> None:
    other, notes = tmp_path / "other.csv", []
    other.write_text(table_path.read_text() + "a,C1CC,1,1\nb,nonsense,1,1\nc,CCO,1,1\n")
    got = evaluate(pack_path, other, split="all", on_note=notes.append, **EXACT)
    assert got.n_rows == 63
    assert len(got.molecules["row"]) == 61
    assert sum("2 of 63 rows are left out" in note for note in notes) == 1
    assert sum("duplicates: " in note for note in notes) == 1
    assert set(got.molecules["split"]) == {""}, "of another table the parts are not known"
