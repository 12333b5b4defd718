"""What `evaluate` writes: a table of truth, prediction, interval and part of each molecule, and a page with charts."""

from __future__ import annotations

import csv
import html
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mora_lite.errors import InputError, OutputError
from mora_lite.packs.pack import open_pack
from mora_lite.training.calibrate import calibrate_pack
from mora_lite.training.evaluate import evaluate
from mora_lite.training.splits import Split

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


# --- the page


def page(pack: Path, table: Path, out: Path, **options) -> str:
    evaluate(pack, table, report=out, force=True, **options, **EXACT)
    return out.read_text(encoding="utf-8")


def test_the_page_is_about_the_test_molecules(calibrated_pack_path, table_path, tmp_path) -> None:
    text = page(calibrated_pack_path, table_path, tmp_path / "page.html")
    assert "10 molecules of molecules.csv, the test part" in text
    assert 'class="warning"' not in text
    rows = {int(row) for row in re.findall(r"<small>row (\d+)</small>", text)}
    assert rows == {row + 1 for row in Split(0, 40, 10).rows(60)["test"].tolist()}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"split": "train"}, "The pack was trained on these molecules"),
        ({"split": "valid"}, "These molecules chose the epochs and set the intervals"),
        ({"split": "all"}, "The pack was trained on 40 of these 60 molecules"),
        ({"limit": 3}, "Only the first 3 of 10 molecules of this part."),
    ],
)
def test_the_page_says_what_its_molecules_are(calibrated_pack_path, table_path, tmp_path, options, says: str) -> None:
    assert f'<p class="warning">{says}' in page(calibrated_pack_path, table_path, tmp_path / "page.html", **options)


def test_of_another_table_known_molecules_are_counted(calibrated_pack_path, table_path, tmp_path) -> None:
    lines = table_path.read_text().splitlines()
    (tmp_path / "other.csv").write_text("\n".join([*lines[:31], "99,CCCCCCCCCCCCCCCC,16,0"]))
    text = page(calibrated_pack_path, tmp_path / "other.csv", tmp_path / "page.html", split="all")
    found = re.search(r"(\d+) of these 31 molecules have the fingerprint of a training molecule", text)
    assert found is not None
    n_trained = sum(row < 30 for row in Split(0, 40, 10).rows(60)["train"].tolist())
    assert n_trained <= int(found[1]) < 31


def test_the_nearest_measured_molecule_has_a_value_of_the_task(pack_path, dataset, table_path, tmp_path) -> None:
    pack = Path(shutil.copytree(pack_path, tmp_path / "pack"))
    parts = Split(0, 40, 10).rows(60)
    targets = dataset.targets[:, [0, 1, 0]].copy()
    targets[5:, 1] = np.nan  # few molecules have a polarity
    whole = replace(dataset, targets=targets)
    calibrate_pack(open_pack(pack), whole.subset(parts["train"]), whole.subset(parts["valid"]), device="cpu")
    text = page(pack, table_path, tmp_path / "page.html", tasks=["polarity"])
    known = {html.escape(dataset.smiles[i]) for i in parts["train"].tolist() if i < 5}
    beside = re.findall(r'nearest in training</small>.*?<code title="([^"]*)"', text)
    assert len(beside) == text.count('class="pair"') > 3
    assert set(beside) <= known


def test_a_pack_without_calibration_has_a_page(pack_path, table_path, tmp_path) -> None:
    text = page(pack_path, table_path, tmp_path / "page.html")
    assert "The pack is not calibrated" in text
    assert "nearest in training" not in text


def test_a_page_that_exists_stays_unless_forced_and_the_table_in_any_case(pack_path, table_path, tmp_path) -> None:
    out = tmp_path / "page.html"
    out.write_text("precious")
    with pytest.raises(OutputError, match="exists"):
        evaluate(pack_path, table_path, report=out, **EXACT)
    assert out.read_text() == "precious"
    both = tmp_path / "both.csv"
    with pytest.raises(InputError, match="expected another file than that of output"):
        evaluate(pack_path, table_path, output=both, report=both, **EXACT)
    with pytest.raises(OutputError, match="is the table being read"):
        evaluate(pack_path, table_path, report=table_path, force=True, **EXACT)
    with pytest.raises(OutputError, match="no such directory"):
        evaluate(pack_path, table_path, report=tmp_path / "missing" / "page.html", **EXACT)


def test_the_command_names_the_page(run, pack_path, table_path, tmp_path) -> None:
    out = tmp_path / "page.html"
    code, _, err = run("evaluate", pack_path, table_path, "--report", out, "--device", "cpu")
    assert code == 0
    assert f"{out}: charts of the errors" in " ".join(err.split())
    assert out.is_file()
