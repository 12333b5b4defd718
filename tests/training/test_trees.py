"""A pack with trees, from `train --trees` to its answers: the mean of network and trees, in every way to ask."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mora_lite.cli.app import main
from mora_lite.model import load
from mora_lite.packs.pack import open_pack

pytestmark = pytest.mark.usefixtures("no_compiler")
SMILES = ["CCO", "CC(=O)Oc1ccccc1C(=O)O", "C[C@H](N)C(=O)O"]


@pytest.fixture(scope="module")
def with_trees(folder: Path) -> Path:
    pytest.importorskip("lightgbm")
    out = folder / "with-trees"
    options = ["--recipe", str(folder / "recipe.toml"), "-o", str(out), "--trees"]
    assert main(["train", str(folder / "data.csv"), *options]) == 0
    return out


def test_a_value_is_the_mean_of_network_and_trees(with_trees: Path) -> None:
    model = load(with_trees)
    graphs = model.featurizer.read_smiles(SMILES)
    assert model.trees is not None
    assert graphs.descriptors is not None
    network = model.score_graphs(replace(graphs, descriptors=None))
    expected = (network + model.trees.scores(graphs.descriptors)) / 2
    np.testing.assert_allclose(model.score_graphs(graphs), expected, rtol=1e-6)
    np.testing.assert_allclose(model.predict(SMILES).scores.values, expected, rtol=1e-6)
    one = load(with_trees, tasks=model.tasks[1].name)
    np.testing.assert_allclose(one.predict(SMILES).scores.values, expected[:, [1]], rtol=1e-5)


def test_its_card_tells_of_them(with_trees: Path) -> None:
    assert "boosted trees on RDKit's descriptors" in (with_trees / "README.md").read_text()
    assert open_pack(with_trees).provenance["recipe"]["trees"] is True


def test_predict_screen_evaluate_and_explain_work_with_it(with_trees: Path, folder: Path, run, tmp_path: Path) -> None:
    table = tmp_path / "asked.csv"
    table.write_text("smiles\n" + "\n".join([*SMILES, "nonsense"]) + "\n")
    code, _, err = run("predict", table, "--pack", with_trees, "-o", tmp_path / "predicted.csv")
    assert code == 0
    assert "trees, whose descriptors cost some milliseconds" in err
    with (tmp_path / "predicted.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == ["ok", "ok", "ok", "unparsable"]
    model = load(with_trees)
    value = model.predict(SMILES).scores.values[0, 0]
    assert float(rows[0][model.tasks[0].column]) == pytest.approx(value, rel=1e-4)
    assert run("screen", table, "--pack", with_trees, "-o", tmp_path / "screened", "--workers", "1")[0] == 0
    assert run("evaluate", with_trees, folder / "data.csv")[0] == 0
    assert run("explain", SMILES[1], "--pack", with_trees)[0] == 0


def test_the_encoder_is_exported_but_not_the_whole(with_trees: Path, run, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    code, _, err = run("export", with_trees, "--full", "-o", tmp_path / "whole")
    assert code != 0
    assert "has trees on RDKit's descriptors" in err
    assert not (tmp_path / "whole").exists()
    assert run("export", with_trees, "-o", tmp_path / "encoder")[0] == 0
