"""Metrics of a pack beside those of the encoder alone and of a pack without quantisation."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import pytest

import mora_lite
from mora_lite.errors import InputError, PackError
from mora_lite.packs.manifest import FolderKind
from mora_lite.packs.pack import MANIFEST, open_pack, write_manifest
from mora_lite.training.dataset import Dataset
from mora_lite.training.evaluate import _recorded_column, baseline_values, evaluate, record_metrics
from mora_lite.training.metrics import value_metrics
from mora_lite.training.splits import Split

EXACT = {"device": "cpu", "dtype": "float32"}


@pytest.fixture
def other_pack(pack_path: Path, tmp_path: Path) -> Path:
    """A pack with the same tasks and other answers."""
    path = Path(shutil.copytree(pack_path, tmp_path / "other"))
    manifest = open_pack(path).manifest
    for task in manifest["tasks"]:
        task["mean"] += 0.1
    write_manifest(path, manifest)
    return path


def known(dataset: Dataset, part: str | None = None) -> tuple[list[str], np.ndarray]:
    """SMILES and the fixture pack's targets (its task `mass` has the column `size`) of a part of the split."""
    rows = np.arange(60) if part is None else Split(0, 40, 10).rows(60)[part]
    return [dataset.smiles[i] for i in rows], dataset.targets[rows][:, [0, 1, 0]]


@pytest.mark.parametrize(("split", "n"), [("train", 40), ("valid", 10), ("test", 10), ("all", 60)])
def test_metrics_are_those_of_the_predictions(pack_path, table_path, dataset, model, split: str, n: int) -> None:
    got = evaluate(pack_path, table_path, split=split, **EXACT).metrics
    smiles, true = known(dataset, None if split == "all" else split)
    values = model.predict(smiles).scores.values
    assert list(got) == ["size", "polarity", "mass"]
    for i, row in enumerate(got.values()):
        expected = value_metrics(values[:, i], true[:, i])
        assert {name: row[name] for name in expected} == pytest.approx(expected, rel=1e-5)
    assert got["size"]["n"] == n
    assert got["polarity"]["n"] == np.isfinite(true[:, 1]).sum()
    assert [row["unit"] for row in got.values()] == ["", "e", "u"]


def test_the_files_of_the_pack_are_checked_once(pack_path, table_path) -> None:
    with mock.patch.object(FolderKind, "check_file") as check:
        evaluate(pack_path, table_path, split="all", **EXACT)
    names = [call.args[1] for call in check.call_args_list]
    assert len(names) == len(set(names)) > 0


def test_the_encoder_alone_and_the_pack_without_quantisation_stand_beside_it(
    pack_path, other_pack: Path, table_path, dataset
) -> None:
    got = evaluate(pack_path, table_path, split="all", bf16=other_pack, **EXACT).metrics
    smiles, true = known(dataset)
    other = mora_lite.load(other_pack, device="cpu", dtype="bfloat16").predict(smiles).scores.values
    for i, row in enumerate(got.values()):
        assert row["encoder_mae"] > 0
        assert row["bf16_mae"] == pytest.approx(value_metrics(other[:, i], true[:, i])["mae"], rel=1e-5)
        assert row["loss_4bit"] == pytest.approx(row["mae"] / row["bf16_mae"] - 1)
        assert row["bf16_mae"] != row["mae"]


def test_a_recorded_comparison_is_shown_for_the_whole_test_set_only(
    pack_path, other_pack: Path, table_path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(pack_path, tmp_path / "copy"))
    assert "bf16_mae" not in evaluate(copy, table_path, **EXACT).metrics["size"]
    measured = evaluate(copy, table_path, bf16=other_pack, **EXACT)
    record_metrics(open_pack(copy), measured)
    again = evaluate(copy, table_path, **EXACT).metrics
    for name, row in measured.metrics.items():
        assert again[name]["bf16_mae"] == pytest.approx(row["bf16_mae"], rel=1e-4)
    assert "bf16_mae" not in evaluate(copy, table_path, split="valid", **EXACT).metrics["size"]
    assert "bf16_mae" not in evaluate(copy, table_path, limit=3, **EXACT).metrics["size"]


def test_chosen_tasks_have_the_metrics_of_all_tasks(pack_path, table_path) -> None:
    everything = evaluate(pack_path, table_path, **EXACT).metrics
    some = evaluate(pack_path, table_path, tasks=["mass", "polarity"], **EXACT).metrics
    assert list(some) == ["mass", "polarity"]
    for name, row in some.items():
        for kind in ("mae", "encoder_mae"):
            assert row[kind] == pytest.approx(everything[name][kind], rel=1e-5)


def test_a_limit_takes_the_first_molecules(pack_path, table_path, dataset, model) -> None:
    got = evaluate(pack_path, table_path, limit=3, **EXACT).metrics
    smiles, true = known(dataset, "test")
    expected = value_metrics(model.predict(smiles[:3]).scores.values[:, 0], true[:3, 0])
    assert (got["size"]["n"], got["size"]["mae"]) == (3, pytest.approx(expected["mae"]))


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_that_leaves_nobody_is_refused(pack_path, table_path, limit: int) -> None:
    with pytest.raises(InputError, match=f"limit: got {limit}, expected 1 or more"):
        evaluate(pack_path, table_path, limit=limit, device="cpu")


def test_another_table_is_refused_unless_all_of_it_is_asked_for(pack_path, table_path, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    other.write_text("".join(table_path.read_text().splitlines(keepends=True)[:31]))
    with pytest.raises(InputError, match=r"30 rows, expected 60\); for other data use evaluate --split all"):
        evaluate(pack_path, other, **EXACT)
    assert evaluate(pack_path, other, split="all", **EXACT).metrics["size"]["n"] == 30


def test_the_table_may_have_another_file_name_and_more_columns(pack_path, table_path, tmp_path: Path) -> None:
    lines = table_path.read_text().splitlines()
    renamed = tmp_path / "renamed.csv"
    renamed.write_text("\n".join(f"{line},more" for line in lines))
    assert evaluate(pack_path, renamed, **EXACT) == evaluate(pack_path, table_path, **EXACT)


def test_rows_that_are_left_out_are_told(pack_path, table_path, tmp_path: Path) -> None:
    lines = table_path.read_text().splitlines()
    lossy = tmp_path / "lossy.csv"
    lossy.write_text("\n".join([*lines, lines[1], re.sub(",[^,]*", ",C1CC", lines[2], count=1), "C" + "," * 30 + "1"]))
    notes: list[str] = []
    got = evaluate(pack_path, lossy, split="all", on_note=notes.append, **EXACT).metrics
    assert [note.split(":")[0] for note in notes[:3]] == ["malformed", "unreadable", "duplicates"]
    assert "1 of 63 rows are left out; the first is row 63 (line 64)" in notes[0]
    assert "1 of 63 rows are left out; the first is row 62, 'C1CC' (unclosed ring)" in notes[1]
    assert got["size"]["n"] == 61, "this pack merged no duplicates when it was trained"


def test_a_table_of_another_kind_is_evaluated_too(pack_path, table_path, tmp_path: Path) -> None:
    frame = pd.read_csv(table_path)
    frame.rename(columns={"smiles": "Canonical SMILES"}).to_parquet(tmp_path / "a.parquet")
    assert evaluate(pack_path, tmp_path / "a.parquet", **EXACT) == evaluate(pack_path, table_path, **EXACT)


def test_a_missing_column_is_told(pack_path, table_path, tmp_path: Path) -> None:
    path = tmp_path / "without.csv"
    path.write_text(table_path.read_text().replace("polarity", "X", 1))
    with pytest.raises(InputError, match=r"no column 'polarity'.* for other data use evaluate --split all"):
        evaluate(pack_path, path, **EXACT)
    with pytest.raises(InputError, match="no column 'structure' for --smiles-column"):
        evaluate(pack_path, path, smiles_column="structure", **EXACT)
    pd.read_csv(table_path).drop(columns="smiles").to_csv(path)
    with pytest.raises(InputError, match="no SMILES column among"):
        evaluate(pack_path, path, **EXACT)


def test_of_other_data_the_tasks_that_have_a_column_are_evaluated(pack_path, table_path, tmp_path: Path) -> None:
    path, notes = tmp_path / "mine.csv", []
    pd.read_csv(table_path).drop(columns="polarity").rename(columns={"size": " Size"}).to_csv(path, index=False)
    got = evaluate(pack_path, path, split="all", on_note=notes.append, **EXACT)
    assert list(got.metrics) == ["size", "mass"], "both have the column size"
    assert notes[0] == "the table has a column for 2 of 3 tasks: size, mass"
    chosen = evaluate(pack_path, path, split="all", tasks=["size", "mass"], **EXACT)
    assert chosen.metrics == got.metrics
    with pytest.raises(InputError, match=r"no column 'polarity'.*--tasks chooses"):
        evaluate(pack_path, path, split="all", tasks=["polarity"], **EXACT)
    pd.read_csv(table_path)[["smiles"]].to_csv(path, index=False)
    with pytest.raises(InputError, match="no column 'size'"):
        evaluate(pack_path, path, split="all", **EXACT)
    mapped = {"polarity": "q"}
    pd.read_csv(table_path)[["smiles", "polarity"]].rename(columns={"polarity": "q"}).to_csv(path, index=False)
    assert list(evaluate(pack_path, path, split="all", columns=mapped, **EXACT).metrics) == ["polarity"]
    with pytest.raises(InputError, match="no column 'sise'"):
        evaluate(pack_path, path, split="all", columns=mapped | {"size": "sise"}, **EXACT)


def test_the_column_of_the_split_is_found_in_any_case(pack_path, table_path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(pack_path, tmp_path / "pack"))
    manifest = open_pack(path).manifest
    manifest["provenance"]["split"] = {"seed": 0, "kind": "given", "column": "part"}
    write_manifest(path, manifest)
    table = tmp_path / "parts.csv"
    pd.read_csv(table_path).assign(Part=["train"] * 40 + ["valid"] * 10 + ["test"] * 10).to_csv(table, index=False)
    for split, n in (("test", 10), ("all", 60)):
        columns = evaluate(path, table, split=split, device="cpu").molecules
        assert len(columns["split"]) == n
        assert set(columns["split"]) == ({"test"} if split == "test" else {"train", "valid", "test"})


def test_a_smiles_column_of_another_name_is_found(pack_path, table_path, tmp_path: Path) -> None:
    path = tmp_path / "renamed.csv"
    path.write_text(table_path.read_text().replace("smiles", "X", 1))
    for column in (None, "X"):
        assert evaluate(pack_path, path, smiles_column=column, **EXACT).metrics["size"]["n"] == 10


@pytest.mark.parametrize(("recorded", "column"), [("X", "X"), (" SMILES", None), ("", None)])
def test_the_recorded_smiles_column_counts_where_its_name_is_unusual(recorded: str, column: str | None) -> None:
    assert _recorded_column(mock.Mock(provenance={"recipe": {"smiles": recorded}})) == column


# --- with calibration and domain


def test_intervals_are_judged_on_the_molecules(calibrated_pack_path, table_path, dataset) -> None:
    """Width and share of true values inside, at each confidence."""
    smiles, true = known(dataset, "test")
    widths = []
    for confidence in (0.3, 0.8):
        got = evaluate(calibrated_pack_path, table_path, confidence=confidence, **EXACT).metrics
        scores = mora_lite.load(calibrated_pack_path, confidence=confidence, **EXACT).predict(smiles).scores
        held = np.where(np.isnan(true), np.nan, (scores.low <= true) & (true <= scores.high))
        for i, row in enumerate(got.values()):
            width = (scores.high - scores.low)[~np.isnan(true[:, i]), i]
            assert row["inside"] == pytest.approx(np.nanmean(held[:, i]))
            assert row["mean_width"] == pytest.approx(width.mean(), rel=1e-4)
        widths.append(got["size"]["mean_width"])
    assert widths[0] < widths[1]


def test_molecules_that_were_trained_on_are_counted_where_all_are_asked_for(calibrated_pack_path, table_path) -> None:
    """Their errors are too small, which a table of one's own does not tell."""
    notes: list[str] = []
    evaluate(calibrated_pack_path, table_path, on_note=notes.append, **EXACT)
    assert not any("similarity 1" in note for note in notes)
    found = evaluate(calibrated_pack_path, table_path, split="all", tasks=["size"], on_note=notes.append, **EXACT)
    n = int((found.molecules["similarity"] > 0.999999).sum())
    assert n >= 40
    assert notes[-1].startswith(f"{n} of 60 molecules have similarity 1 to a training molecule")


def test_every_molecule_is_in_one_row_of_each_breakdown(calibrated_pack_path, table_path) -> None:
    found = evaluate(calibrated_pack_path, table_path, **EXACT)
    for task, tables in found.tables.items():
        assert list(tables) == ["by_similarity", "by_domain", "by_scaffold"]
        n = found.metrics[task]["n"]
        assert sum(row["n"] for row in tables["by_similarity"]) == n
        assert sum(row["n"] for row in tables["by_domain"]) == n
        assert sum(row["n"] for row in tables["by_scaffold"][:2]) == n, "seen in training or not"
        by_size = sum(row["n"] * row["mae"] for row in tables["by_similarity"]) / n
        assert by_size == pytest.approx(found.metrics[task]["mae"])


def test_on_other_data_scaffolds_of_training_are_not_known(calibrated_pack_path, table_path) -> None:
    tables = evaluate(calibrated_pack_path, table_path, split="all", **EXACT).tables["size"]
    assert list(tables) == ["by_similarity", "by_domain"]


def test_a_scaffold_is_seen_where_a_molecule_with_a_value_of_the_task_has_it(
    pack_path, table_path, tmp_path: Path
) -> None:
    table = pd.read_csv(table_path)
    table.loc[Split(0, 40, 10).rows(60)["train"], "polarity"] = np.nan
    table.to_csv(tmp_path / "some.csv", index=False)
    tables = evaluate(pack_path, tmp_path / "some.csv", **EXACT).tables
    seen = {name: [row["n"] for row in rows["by_scaffold"][:2]] for name, rows in tables.items()}
    assert seen["size"][0] > 0
    assert seen["polarity"][0] == 0 < seen["polarity"][1]


def test_a_pack_without_calibration_has_breakdowns_by_scaffold_only(pack_path, table_path) -> None:
    found = evaluate(pack_path, table_path, **EXACT)
    assert list(found.tables["size"]) == ["by_scaffold"]
    assert "inside" not in found.metrics["size"]


def test_what_is_recorded_is_what_was_found(calibrated_pack_path, table_path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(calibrated_pack_path, tmp_path / "copy"))
    found = evaluate(copy, table_path, **EXACT)
    record_metrics(open_pack(copy), found)
    facts = open_pack(copy).provenance
    for name, value in found.metrics["size"].items():
        assert facts["test"]["size"][name] == (value if name == "unit" else pytest.approx(value, rel=1e-4)), name
    for row, expected in zip(facts["tables"]["size"]["by_domain"], found.tables["size"]["by_domain"], strict=True):
        assert row["domain"] == expected["domain"]
        assert row["n"] == expected["n"]
        if expected["n"]:
            assert row["mae"] == pytest.approx(expected["mae"], rel=1e-4)


# --- what may be missing


def test_without_its_baseline_the_comparison_is_left_out(pack_path, table_path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(pack_path, tmp_path / "copy"))
    manifest = open_pack(copy).manifest
    files = {name: entry for name, entry in manifest["files"].items() if not name.startswith("baseline")}
    write_manifest(copy, {**manifest, "files": files})
    assert "encoder_mae" not in evaluate(copy, table_path, **EXACT).metrics["size"]


def test_a_damaged_pack_is_not_evaluated(pack_path, table_path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(pack_path, tmp_path / "copy"))
    (copy / MANIFEST).write_text("{}")
    with pytest.raises(PackError, match="is damaged"):
        evaluate(copy, table_path, **EXACT)


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("recipe", None),
        ("split", {"seeds": 1}),
        ("data", {"file": "a.csv"}),
        ("recipe", {"smiles": "", "tasks": [{"name": "size", "column": "size"}]}),
    ],
)
def test_a_pack_that_does_not_say_what_it_was_trained_on_is_one_line(
    run, pack_path, table_path, tmp_path: Path, entry: str, value: object
) -> None:
    path = Path(shutil.copytree(pack_path, tmp_path / "pack"))
    manifest = open_pack(path).manifest
    manifest["provenance"][entry] = value
    write_manifest(path, manifest)
    for split in ("test", "all"):
        with pytest.raises(PackError, match=r"pack does not say what it was trained on \(.*\); train it again"):
            evaluate(path, table_path, split=split, device="cpu")
    code, _, err = run("calibrate", path, table_path)
    assert (code, err.count("\n")) == (2, 1)


def test_the_baseline_answers_in_the_tasks_units(pack_path, dataset) -> None:
    chosen = mora_lite.load(pack_path, tasks=["mass"], **EXACT)
    everything = mora_lite.load(pack_path, **EXACT)
    values = baseline_values(everything, everything.pack.load_baseline(), dataset.graphs)
    one = baseline_values(chosen, chosen.pack.load_baseline(), dataset.graphs)
    assert values.shape == (60, 3)
    np.testing.assert_allclose(one[:, 0], values[:, 2], rtol=1e-6)
    assert (np.abs(values[:, 2] - 100) < 5 * 30).all()
