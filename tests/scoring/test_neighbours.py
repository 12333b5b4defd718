"""Beside a prediction, what was measured for the training molecules most like it."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mora_lite
from mora_lite.errors import InputError, PackError
from mora_lite.model import Model
from mora_lite.packs.card import model_card
from mora_lite.packs.pack import add_files, open_pack, remove_file, write_manifest
from mora_lite.training.calibrate import calibrate_pack
from mora_lite.training.dataset import Dataset
from mora_lite.training.splits import Split

EXACT = {"device": "cpu", "dtype": "float32"}
TRAINED = Split(0, 40, 10).rows(60)["train"]
ASKED = ["CCO", "C1CC", "c1ccccc1C", ""]


@pytest.fixture(scope="module")
def model(calibrated_pack_path: Path) -> Model:
    return mora_lite.load(calibrated_pack_path, **EXACT)


@pytest.fixture
def copy(calibrated_pack_path: Path, tmp_path: Path) -> Path:
    """A copy of the pack that may be changed."""
    return Path(shutil.copytree(calibrated_pack_path, tmp_path / "copy"))


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# --- in Python


def test_a_training_molecule_is_its_own_nearest_with_its_measured_values(model: Model, dataset: Dataset) -> None:
    found = model.neighbours([dataset.smiles[i] for i in TRAINED], n=2)
    own = [row[0] == dataset.smiles[i] for row, i in zip(found.smiles, TRAINED, strict=True)]
    assert sum(own) >= 36, "the others share their fingerprint with an earlier one, or have none"
    np.testing.assert_array_equal(found.values[own, 0], dataset.targets[TRAINED][own][:, [0, 1, 0]])
    assert np.isnan(found.values[:, :, 1]).any(), "what was not measured is NaN"


def test_a_row_for_each_neighbour(model: Model) -> None:
    frame = model.neighbours(ASKED).to_pandas()
    assert list(frame) == ["row", "smiles", "neighbour", "similarity", "size", "polarity [e]", "mass [u]"]
    assert frame.row.tolist() == [0, 0, 0, 2, 2, 2], "what cannot be read has no neighbours"
    assert frame.smiles.tolist() == ["CCO"] * 3 + ["c1ccccc1C"] * 3
    assert frame.groupby("row").similarity.is_monotonic_decreasing.all()
    assert model.neighbours("CCO").to_pandas().equals(frame[:3])
    assert "neighbour" in repr(model.neighbours("CCO"))


def test_more_than_there_are(model: Model) -> None:
    found = model.neighbours(["CCO"], n=50)
    assert (found.index >= 0).sum() == len(TRAINED)
    assert found.smiles[0][-1] == ""
    assert np.isnan(found.similarity[0, -1])
    assert len(model.neighbours([]).to_pandas()) == 0


def test_only_molecules_with_a_value_for_the_tasks_asked_for(
    calibrated_pack_path: Path, model: Model, dataset: Dataset
) -> None:
    some = mora_lite.load(calibrated_pack_path, tasks=["polarity"], **EXACT)
    found = some.neighbours(dataset.smiles, n=40)
    measured = {dataset.smiles[i] for i in TRAINED if not np.isnan(dataset.targets[i, 1])}
    assert {smiles for row in found.smiles for smiles in row} == measured | {""}
    assert len(measured) < len(TRAINED)
    assert list(found.to_pandas())[4:] == ["polarity [e]"]


@pytest.mark.parametrize("n", [0, 2.5, "3"])
def test_what_is_no_number_of_neighbours(model: Model, n: Any) -> None:
    with pytest.raises(InputError, match=f"n: got {n!r}, expected a whole number, 1 or more"):
        model.neighbours("CCO", n=n)


# --- on the command line


def test_predict_adds_them_after_the_predictions(run, calibrated_pack_path: Path, model: Model, tmp_path) -> None:
    source, out = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("smiles,neighbour_1\n" + "".join(f"{smiles},x\n" for smiles in ASKED[:3]))
    options = ["-p", calibrated_pack_path, "-o", out, "--dtype", "float32"]
    assert run("predict", source, *options, "--neighbours", 2, "--tasks", "polarity,size")[0] == 0
    rows = table(out)
    names = ["neighbour_1 (mora-lite)", "neighbour_1_similarity", "neighbour_1_polarity", "neighbour_1_size"]
    names += ["neighbour_2", "neighbour_2_similarity", "neighbour_2_polarity", "neighbour_2_size"]
    assert list(rows[0])[-11:] == ["outside", *names, "status", "error"]
    assert [rows[1][name] for name in names] == [""] * 8
    for number, row in ((0, rows[0]), (2, rows[2])):
        assert row["neighbour_1"] == "x"
        found = model.neighbours(ASKED[number], n=2)
        assert [row[names[0]], row[names[4]]] == found.smiles[0]
        assert row["neighbour_1_similarity"] == row["similarity"] == f"{found.similarity[0, 0]:.6g}"
        for k in (0, 1):
            assert [row[names[4 * k + 2]], row[names[4 * k + 3]]] == [
                "" if np.isnan(value) else f"{value:.6g}" for value in found.values[0, k, [1, 0]]
            ]


def test_chunks_change_nothing(run, monkeypatch, calibrated_pack_path: Path, table_path: Path, tmp_path: Path) -> None:
    def predict(name: str) -> bytes:
        options = ["-p", calibrated_pack_path, "-o", tmp_path / name, "--dtype", "float32", "--neighbours", 3]
        assert run("predict", table_path, *options)[0] == 0
        return (tmp_path / name).read_bytes()

    whole = predict("whole.csv")
    monkeypatch.setattr("mora_lite.scoring.stream.CHUNK_ROWS", 7)
    assert predict("pieces.csv") == whole


def test_without_the_option_nothing_is_read(run, copy: Path, table_path: Path, tmp_path: Path) -> None:
    remove_file(open_pack(copy), "training.safetensors")
    options = ["-p", copy, "-o", tmp_path / "out.csv"]
    assert run("predict", table_path, *options)[0] == 0
    assert not any("neighbour" in name for name in table(tmp_path / "out.csv")[0])
    code, _, err = run("predict", table_path, *options, "--force", "--neighbours", 3)
    assert (code, err.count("\n")) == (2, 1)
    assert "does not hold its training molecules, so it names no neighbours; add them from its table" in err


# --- packs with and without


def test_a_pack_trained_without_its_data_says_what_to_do(copy: Path) -> None:
    pack = open_pack(copy)
    pack.provenance["recipe"]["keep_data"] = False
    remove_file(pack, "training.safetensors")
    with pytest.raises(PackError, match="so it names no neighbours; train it with them"):
        mora_lite.load(copy, **EXACT).neighbours("CCO")


def test_a_file_that_does_not_fit_the_domain_is_one_line(copy: Path) -> None:
    pack = open_pack(copy)
    tensors = pack.tensors("training")
    add_files(pack, {"training": tensors | {"bytes": tensors["bytes"] + 1}})
    with pytest.raises(PackError, match=r"training\.safetensors cannot be read .*install the pack again"):
        mora_lite.load(copy, **EXACT).neighbours("CCO")


def test_calibrate_keeps_or_removes_them(run, copy: Path, table_path: Path, dataset: Dataset) -> None:
    code, _, err = run("calibrate", copy, table_path, "--without-data")
    assert (code, "will hold its training molecules" in err) == (0, False)
    assert not open_pack(copy).has("training")
    assert not (copy / "training.safetensors").exists()
    code, _, err = run("calibrate", copy, table_path)
    assert code == 0
    assert "note: the pack will hold its training molecules with their values" in err
    assert open_pack(copy).load_training().smiles == [dataset.smiles[i] for i in TRAINED]
    pack = open_pack(copy)
    write_manifest(copy, pack.manifest | {"provenance": pack.provenance | {"recipe": recipe_without_data(pack)}})
    assert run("calibrate", copy, table_path)[0] == 0
    assert not open_pack(copy).has("training"), "what the recipe says stays"


def recipe_without_data(pack) -> dict[str, object]:
    return pack.provenance["recipe"] | {"keep_data": False}


def test_molecules_that_were_not_measured_are_not_kept(copy: Path, dataset: Dataset) -> None:
    targets = dataset.targets[:, [0, 1, 0]].copy()
    targets[TRAINED[:5]] = np.nan
    data = Dataset(**{**vars(dataset), "targets": targets})
    rows = Split(0, 40, 10).rows(60)
    calibrate_pack(open_pack(copy), data.subset(rows["train"]), data.subset(rows["valid"]), **EXACT)
    assert open_pack(copy).load_training().smiles == [dataset.smiles[i] for i in TRAINED[5:]]


def test_card_and_info_say_whether_they_are_inside(run, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MORA_LITE_CACHE", str(copy.parent))
    packs = copy.parent / "packs"
    packs.mkdir()
    path = Path(shutil.move(copy, packs / "mine"))
    pack = open_pack(path)
    words = "holds the SMILES and measured values of its training molecules"
    for inside in (True, False):
        assert (words in model_card(pack.manifest)) is inside
        assert json.loads(run("info", "--json")[1])["packs"]["mine"]["training_molecules"] is inside
        if inside:
            remove_file(pack, "training.safetensors")
