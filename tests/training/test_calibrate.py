"""A calibrated pack says how far its numbers can be trusted: intervals, probabilities, nearness to training."""

from __future__ import annotations

import csv
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import mora_lite
from mora_lite.chem.featurizer import Featurizer
from mora_lite.errors import InputError, PackError
from mora_lite.model import Model
from mora_lite.packs.pack import open_pack, write_manifest
from mora_lite.scoring.conformal import Intervals, Platt
from mora_lite.training.calibrate import _some_of_each, calibrate_pack
from mora_lite.training.dataset import Dataset
from mora_lite.training.splits import Split

EXACT = {"device": "cpu", "dtype": "float32"}
ROWS = Split(0, 40, 10).rows(60)
FAR = ["[SiH3]" + "[SiH2]" * 12 + "[SiH3]", "FC(F)(F)" + "C(F)(F)" * 10 + "C(F)(F)F"]
COLUMNS = [
    "smiles",
    *("size", "size_lo", "size_hi"),
    *("polarity [e]", "polarity_lo", "polarity_hi"),
    *("mass [u]", "mass_lo", "mass_hi"),
    *("similarity", "in_domain", "outside", "status", "error"),
]


@pytest.fixture(scope="module")
def calibrated(calibrated_pack_path: Path) -> Model:
    return mora_lite.load(calibrated_pack_path, **EXACT)


@pytest.fixture(scope="module")
def part(dataset: Dataset):
    """SMILES of a part of the split."""
    return lambda name: [dataset.smiles[i] for i in ROWS[name]]


@pytest.fixture(scope="module")
def class_pack_path(pack_path: Path, dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny pack with `polarity` as the class of molecules that have any; calibrated."""
    path = Path(shutil.copytree(pack_path, tmp_path_factory.mktemp("packs") / "classes"))
    manifest = open_pack(path).manifest
    manifest["tasks"][1] |= {"kind": "class", "unit": "", "mean": 0.5, "deviation": 1.0}
    write_manifest(path, manifest)
    targets = dataset.targets[:, [0, 1, 0]].copy()
    known = ~np.isnan(targets[:, 1])
    targets[known, 1] = targets[known, 1] > 0
    data = replace(dataset, targets=targets)
    train, valid = (data.subset(ROWS[name]) for name in ("train", "valid"))
    calibrate_pack(open_pack(path), train, valid, **EXACT)
    return path


# --- columns


def test_values_have_an_interval_and_molecules_a_similarity(calibrated: Model, part) -> None:
    frame = calibrated.predict([*part("test"), "C1CC"]).to_pandas()
    assert list(frame) == COLUMNS
    good = frame[frame.status == "ok"]
    for name, column in (("size", "size"), ("polarity", "polarity [e]"), ("mass", "mass [u]")):
        assert (good[f"{name}_lo"] < good[column]).all()
        assert (good[column] < good[f"{name}_hi"]).all()
    assert good.similarity.between(0, 1).all()
    bad = frame.iloc[-1]
    assert bad[["size", "size_lo", "size_hi", "similarity"]].isna().all()
    assert not bad.in_domain


def test_a_pack_without_calibration_has_none_of_these_columns(model: Model) -> None:
    got = model.predict(["CCO"])
    assert list(got.to_pandas()) == ["smiles", "size", "polarity [e]", "mass [u]", "status", "error"]
    scores = got.scores
    assert [scores.low, scores.high, scores.nearest, scores.inside, scores.similarity, scores.in_domain] == [None] * 6


def test_calibration_changes_no_value(calibrated: Model, model: Model, molecules: list[str]) -> None:
    assert np.array_equal(calibrated.predict(molecules).scores.values, model.predict(molecules).scores.values)


def test_arrow_has_nulls_and_flags(calibrated: Model) -> None:
    table = calibrated.predict(["CCO", "bad"]).to_arrow()
    assert table.column_names == COLUMNS
    assert table["in_domain"].type == pa.bool_()
    for name in ("size_lo", "size_hi", "similarity", "in_domain"):
        assert table[name].is_null().to_pylist() == [False, True]
    assert calibrated.predict([]).to_arrow().schema == table.schema


def test_chosen_tasks_keep_their_intervals_and_their_domain(
    calibrated: Model, calibrated_pack_path: Path, molecules: list[str]
) -> None:
    some = mora_lite.load(calibrated_pack_path, tasks=["mass", "polarity"], **EXACT).predict(molecules).scores
    everything = calibrated.predict(molecules).scores
    for name in ("low", "high", "nearest"):
        np.testing.assert_allclose(getattr(some, name), getattr(everything, name)[:, [2, 1]], rtol=1e-4, atol=1e-4)
    assert np.array_equal(some.inside, everything.inside[:, [2, 1]])


def test_nothing_depends_on_the_batch(calibrated: Model, molecules: list[str]) -> None:
    together = calibrated.predict([*molecules, "bad", ""]).scores
    for i in (0, 30, 59):
        alone = calibrated.predict(molecules[i]).scores
        for name in ("values", "low", "high", "nearest", "inside"):
            assert np.array_equal(getattr(alone, name)[0], getattr(together, name)[i]), name


# --- intervals


def test_the_interval_is_that_of_the_validation_errors(calibrated: Model, dataset: Dataset, part) -> None:
    """Ten molecules validate; 9 of 10 errors are wanted: the 10th of them, for 0.9 * (10 + 1) is nearly 10.

    Of 40 training molecules, the 37th is the floor: 0.9 and two standard errors of 2,000 molecules are 0.913.
    """

    def errors(name: str) -> np.ndarray:
        return np.sort(np.abs(calibrated.predict(part(name)).scores.values[:, 0] - dataset.targets[ROWS[name], 0]))

    worst = max(errors("valid")[-1], errors("train")[36])
    scores = calibrated.predict(part("test")).scores
    middle = (scores.high[:, 0] + scores.low[:, 0]) / 2
    np.testing.assert_allclose(scores.high[:, 0] - middle, worst, rtol=1e-4)
    np.testing.assert_allclose(middle, scores.values[:, 0], rtol=1e-4, atol=1e-4)


def test_more_confidence_is_a_wider_interval(calibrated_pack_path: Path, part) -> None:
    def width(confidence: float) -> np.ndarray:
        scores = mora_lite.load(calibrated_pack_path, confidence=confidence, **EXACT).predict(part("test")).scores
        return scores.high - scores.low

    half, most = width(0.5), width(0.9)
    assert (half < most).all()
    assert np.isfinite(most[:, 0]).all()
    assert np.isinf(most[:, 1]).all(), "nine molecules with a polarity cannot tell 1 in 10"
    assert np.isinf(width(0.95)).all(), "ten molecules cannot tell 1 in 20"


@pytest.mark.parametrize("confidence", [0, 1, -0.5, 90])
def test_impossible_confidences_are_refused(calibrated_pack_path: Path, confidence: float) -> None:
    with pytest.raises(InputError, match="expected a number above 0 and below 1"):
        mora_lite.load(calibrated_pack_path, confidence=confidence, **EXACT)


# --- domain


def test_training_molecules_have_a_similarity_of_1(calibrated: Model, part) -> None:
    scores = calibrated.predict(part("train")).scores
    assert (scores.nearest[:, 0] == 1).all()
    assert (scores.nearest[:, 1] < 1).any(), "those without a polarity do not count for it"


def test_what_is_far_from_training_is_out_of_the_domain(calibrated: Model, part) -> None:
    scores = calibrated.predict([*FAR, "c1ccccc1"]).scores
    assert scores.in_domain.tolist() == [False, False, True]
    assert (scores.similarity[:2] < 0.3).all()


def test_a_molecule_is_inside_when_it_is_near_enough_for_every_task(calibrated: Model, molecules: list[str]) -> None:
    scores = calibrated.predict(molecules).scores
    thresholds = open_pack(calibrated.pack.path).load_calibration().thresholds
    assert np.array_equal(scores.inside, scores.nearest >= np.array(thresholds, np.float32))
    assert np.array_equal(scores.in_domain, scores.inside.all(axis=1))
    assert np.array_equal(scores.similarity, scores.nearest.min(axis=1))
    names = [task.name for task in calibrated.tasks]
    listed = [text.split() for text in scores.columns(calibrated.tasks)["outside"]]
    assert listed == [[name for name, inside in zip(names, row, strict=True) if not inside] for row in scores.inside]


def test_fingerprints_of_a_data_set_are_those_of_its_molecules(dataset: Dataset) -> None:
    """By either version, which take them from the graphs or from RDKit."""
    for featurizer in (Featurizer(), Featurizer(1, "none")):
        mols = [featurizer.parse_smiles(text).mol for text in dataset.smiles]
        graphs = featurizer.graphs(mols)
        data = replace(dataset, graphs=graphs, featurizer=featurizer)
        assert np.array_equal(data.fingerprints(), featurizer.fingerprints(graphs, lambda mols=mols: mols))
        assert data.subset(np.array([], int)).fingerprints().shape == (0, 128)


# --- classes


def test_a_class_is_a_probability_without_an_interval(class_pack_path: Path, part) -> None:
    got = mora_lite.load(class_pack_path, **EXACT).predict([*part("test"), "bad"])
    frame = got.to_pandas()
    assert [name for name in frame if name.startswith("polarity")] == ["polarity"]
    assert frame.polarity[:-1].between(0, 1).all()
    assert np.isnan(frame.polarity.iloc[-1])
    assert np.isnan(got.scores.low[:, 1]).all()


def test_the_probability_is_the_calibrated_log_odds(class_pack_path: Path, dataset: Dataset) -> None:
    model = mora_lite.load(class_pack_path, **EXACT)
    intervals, platt, _ = open_pack(class_pack_path).load_calibration().parts
    assert isinstance(intervals, Intervals)
    assert isinstance(platt, Platt)
    log_odds = model.score_graphs(dataset.graphs)[:, 1]
    expected = 1 / (1 + np.exp(-(platt.slope * log_odds + platt.intercept)))
    got = model.predict(dataset.smiles).scores.values[:, 1]
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    assert np.array_equal(np.argsort(got), np.argsort(log_odds)), "the order of molecules stays"


def test_without_calibration_the_log_odds_are_taken_as_they_are(class_pack_path: Path, tmp_path: Path, dataset) -> None:
    plain = Path(shutil.copytree(class_pack_path, tmp_path / "plain"))
    manifest = open_pack(plain).manifest
    kept = ("calibration", "domain")
    files = {name: entry for name, entry in manifest["files"].items() if not name.startswith(kept)}
    write_manifest(plain, {**manifest, "files": files})
    model = mora_lite.load(plain, **EXACT)
    log_odds = model.score_graphs(dataset.graphs)[:, 1]
    np.testing.assert_allclose(
        model.predict(dataset.smiles).scores.values[:, 1], 1 / (1 + np.exp(-log_odds)), rtol=1e-5
    )


# --- the program


def test_predict_writes_what_the_api_says(run, calibrated_pack_path: Path, table_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    options = ["--dtype", "float32", "--device", "cpu", "--confidence", "0.5"]
    code, _, err = run("predict", table_path, "-p", calibrated_pack_path, "-o", out, *options)
    assert code == 0
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    frame = (
        mora_lite.load(calibrated_pack_path, confidence=0.5, **EXACT).predict([r["smiles"] for r in rows]).to_pandas()
    )
    taken = {"size": "size (mora-lite)"}  # the table has a column of this name
    for name in COLUMNS[1:-4]:
        got = np.array([row[taken.get(name, name)] for row in rows], dtype=np.float64)
        np.testing.assert_allclose(got, frame[name], rtol=1e-5, err_msg=name)
    assert [row["in_domain"] for row in rows] == ["true" if flag else "false" for flag in frame.in_domain]
    assert [row["outside"] for row in rows] == list(frame.outside)
    n_outside = Counter(name for row in rows for name in row["outside"].split()).most_common()
    assert f"  outside of the domain: {', '.join(f'{n} of {name}' for name, n in n_outside)}\n" in err


def test_a_confidence_that_cannot_be_is_one_line(run, calibrated_pack_path: Path, table_path: Path, tmp_path) -> None:
    options = ["-p", calibrated_pack_path, "-o", tmp_path / "out.csv", "--confidence", "90"]
    code, _, err = run("predict", table_path, *options)
    assert code == 2
    assert err == "error: confidence: got 90.0, expected a number above 0 and below 1, for instance 0.9\n"
    assert not (tmp_path / "out.csv").exists()


# --- the files


@pytest.mark.parametrize("name", ["calibration.safetensors", "domain.safetensors"])
def test_a_damaged_file_is_found(calibrated_pack_path: Path, tmp_path: Path, name: str) -> None:
    copy = Path(shutil.copytree(calibrated_pack_path, tmp_path / "copy"))
    data = bytearray((copy / name).read_bytes())
    data[-1] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(PackError, match=f"{name} is damaged"):
        open_pack(copy)


def test_calibrated_again_it_is_the_same_pack(calibrated_pack_path: Path, dataset: Dataset, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(calibrated_pack_path, tmp_path / "copy"))
    data = replace(dataset, targets=dataset.targets[:, [0, 1, 0]])
    calibrate_pack(open_pack(copy), *(data.subset(ROWS[name]) for name in ("train", "valid")), **EXACT)
    assert open_pack(copy).manifest == open_pack(calibrated_pack_path).manifest


@pytest.fixture
def evaluated(run, calibrated_pack_path: Path, table_path: Path, tmp_path: Path) -> Path:
    """A copy of the pack that records its figures."""
    copy = Path(shutil.copytree(calibrated_pack_path, tmp_path / "evaluated"))
    assert run("evaluate", copy, table_path, "--record", "--dtype", "float32", "--device", "cpu")[0] == 0
    assert "inside the 90 % interval" in (copy / "README.md").read_text()
    return copy


def test_figures_of_other_intervals_leave_the_pack(run, evaluated: Path, table_path: Path, tmp_path: Path) -> None:
    options = ["--dtype", "float32", "--device", "cpu"]
    before = open_pack(evaluated).provenance
    code, _, err = run("calibrate", evaluated, table_path, *options)
    assert code == 0
    assert "calibrated on 10 molecules; values: size 10, polarity 8, mass 10\n" in err
    assert open_pack(evaluated).provenance == before, "the same intervals have the same figures"
    table = pd.read_csv(table_path)
    table.loc[ROWS["valid"], "size"] += 5
    table.to_csv(tmp_path / "other.csv", index=False)
    assert run("calibrate", evaluated, tmp_path / "other.csv", *options)[0] == 0
    after = open_pack(evaluated).provenance
    assert "tables" not in after
    for name, metrics in before["test"].items():
        kept = {key: value for key, value in metrics.items() if key not in ("inside", "mean_width")}
        assert after["test"][name] == kept != metrics
    assert "interval" not in (evaluated / "README.md").read_text().partition("## How good it is")[2].partition("## ")[0]


def test_a_task_is_not_calibrated_away_by_a_table_without_its_values(
    run, evaluated: Path, table_path: Path, tmp_path: Path
) -> None:
    table = pd.read_csv(table_path)
    table.loc[ROWS["valid"], "polarity"] = np.nan
    table.loc[[0, 1], "size"] = np.nan
    table.to_csv(tmp_path / "some.csv", index=False)
    before = open_pack(evaluated).manifest
    code, _, err = run("calibrate", evaluated, tmp_path / "some.csv")
    assert code == 2
    assert "error: task 'polarity': got no value for any of 10 validation molecules, expected those it was" in err
    assert open_pack(evaluated).manifest == before


def test_without_validation_values_the_interval_is_unlimited(pack_path: Path, dataset: Dataset, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(pack_path, tmp_path / "copy"))
    targets = dataset.targets[:, [0, 1, 0]].copy()
    targets[ROWS["valid"], 1] = np.nan
    data = replace(dataset, targets=targets)
    calibrate_pack(open_pack(copy), *(data.subset(ROWS[name]) for name in ("train", "valid")), **EXACT)
    scores = mora_lite.load(copy, **EXACT).predict(["CCO", *FAR]).scores
    assert np.isinf(scores.low[:, 1]).all()
    assert np.isfinite(scores.low[:, 0]).all()
    assert scores.inside[:, 1].all(), "nothing is known of what is far"


def test_the_floor_comes_from_equally_many_training_molecules_of_each_task() -> None:
    """A task with few values is not lost among one with many."""
    targets = np.zeros((50_000, 2), np.float32)
    targets[np.arange(50_000) % 100 != 0, 1] = np.nan
    rows = _some_of_each(targets)
    assert (~np.isnan(targets[rows, 1])).sum() == 500
    assert 2000 <= len(rows) <= 2500
    assert (np.diff(rows) > 0).all()
    assert 0.4 < (rows < 25_000).mean() < 0.6, "drawn from the whole table"
