"""`mora-lite train` from a table to a pack that `predict` and `evaluate` work with, on the random base model."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import mora_lite
from mora_lite import training
from mora_lite.cli.app import main
from mora_lite.dataset import read_dataset
from mora_lite.errors import CheckpointError, InputError, OutputError
from mora_lite.pack import open_pack
from mora_lite.recipe import Recipe, TaskRecipe, read_recipe
from mora_lite.splits import Split
from mora_lite.train import FitSettings, Progress
from mora_lite.training import fitted_tasks, shrink_batch, standardize, train_pack

CPU = torch.device("cpu")
RECIPE = """
name = "tiny"
base = "{base}"
[adapter]
encoder_width = 32
encoder_layers = 2
hypernet_width = 32
adapted_layers = 2
rank = 4
[pretrain]
epochs = 1
[mora]
epochs = 1
[[task]]
name = "size"
unit = "a"
[[task]]
name = "polar"
column = "polarity"
"""


@pytest.fixture(scope="module", autouse=True)
def no_compiler() -> Iterator[None]:
    """torch.compile of the upper layers takes longer than all of these runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.shutil, "which", lambda _: None)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, base_path: Path, table_path: Path) -> Path:
    """A working folder: recipe.toml, and data.csv with 40 molecules."""
    folder = tmp_path_factory.mktemp("training")
    (folder / "recipe.toml").write_text(RECIPE.format(base=base_path))
    lines = table_path.read_text().splitlines(keepends=True)
    (folder / "data.csv").write_text("".join(lines[:41]))
    return folder


@pytest.fixture(scope="module")
def trained(folder: Path) -> Path:
    """The pack that the command makes of the two."""
    out = folder / "pack"
    assert main(["train", str(folder / "recipe.toml"), "--data", str(folder / "data.csv"), "-o", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def unquantized(folder: Path) -> Path:
    """The same pack on the base before 4 bits."""
    out = folder / "pack-bf16"
    options = ["--data", str(folder / "data.csv"), "-o", str(out), "--unquantized"]
    assert main(["train", str(folder / "recipe.toml"), *options]) == 0
    return out


def test_an_unquantised_pack_holds_its_matrices_in_bfloat16(unquantized: Path, trained: Path) -> None:
    matrices = {n: t for n, t in open_pack(unquantized).tensors("upper").items() if n.endswith("proj.weight")}
    assert matrices
    assert all(t.dtype == torch.bfloat16 for t in matrices.values())
    assert not any(t.dtype == torch.bfloat16 for t in open_pack(trained).tensors("upper").values())


@pytest.fixture
def recipe(folder: Path) -> Recipe:
    return read_recipe(folder / "recipe.toml")


# --- the whole way


def test_train_tells_its_progress_and_the_error(run, folder: Path, tmp_path: Path) -> None:
    arguments = folder / "recipe.toml", "--data", folder / "data.csv", "-o", tmp_path / "pack"
    code, out, err = run("train", *arguments)
    assert code == 0
    for stage in ("encoder", "mora"):
        (line,) = [line for line in err.splitlines() if line.startswith(f"{stage} ")]
        for words in (" 8/8 ", " loss 0.", " valid 0.", " mol/s ", " 0:00 left"):
            assert words in line
    size, polar = out.splitlines()
    assert size.startswith("size: test MAE ")
    assert " a (encoder alone " in size
    assert polar.startswith("polar: test MAE ")
    code, _, err = run("train", *arguments)
    assert code == 2
    assert "exists; choose another name or use --force" in err


def test_the_pack_says_where_it_comes_from(trained: Path, folder: Path, base_path: Path) -> None:
    pack = open_pack(trained)
    facts = pack.provenance
    data = read_dataset(folder / "data.csv", "smiles", ["size"])
    assert pack.name == "tiny"
    assert facts["data"] == {"file": "data.csv", "rows": 40, "smiles_sha256": data.fingerprint}
    assert facts["split"] == {"seed": 0, "train": 32, "valid": 4, "kind": "random"}
    assert facts["trained"]["molecules"] == 32
    assert facts["trained"]["valid_error"] > 0
    assert set(facts["test"]) == {"size", "polar"}
    assert len(facts["prompt_ids"]) == 2
    assert facts["recipe"]["tasks"][1]["column"] == "polarity"
    values = data.subset(Split(0, 32, 4).rows(40)["train"]).targets[:, 0]
    assert pack.tasks[0].mean == pytest.approx(values.mean(), rel=1e-6)
    assert pack.tasks[0].deviation == pytest.approx(values.std(), rel=1e-6)
    assert pack.manifest["base"]["name"] == base_path.name, "not the path, which is nobody else's business"
    assert facts["recipe"]["base"] == base_path.name


def test_predict_works_with_it(run, trained: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    code, _, err = run("predict", folder / "data.csv", "--pack", trained, "-o", out, "--dtype", "float32")
    assert code == 0
    assert "40 rows, 40 ok" in err
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["id", "smiles", "size", "polarity", "size [a]", "polar", "status", "error"]
    got = np.array([[float(row["size [a]"]), float(row["polar"])] for row in rows], np.float32)
    model = mora_lite.load(trained, device="cpu", dtype="float32")
    np.testing.assert_allclose(got, model.predict([row["smiles"] for row in rows]).scores.values, rtol=1e-5)


def test_evaluate_prints_the_metrics_of_the_test_rows(run, trained: Path, folder: Path, unquantized: Path) -> None:
    code, out, _ = run("evaluate", trained, folder / "data.csv", "--split", "test", "--json", "--bf16", unquantized)
    assert code == 0
    metrics = json.loads(out)
    assert set(metrics) == {"size", "polar"}
    recorded = open_pack(trained).provenance["test"]
    for name, row in metrics.items():
        assert row["n"] == 4
        for kind in ("mae", "encoder_mae", "bf16_mae"):
            assert row[kind] > 0
            assert kind == "bf16_mae" or row[kind] == pytest.approx(recorded[name][kind], rel=1e-4)
        assert row["loss_4bit"] == pytest.approx(row["mae"] / row["bf16_mae"] - 1)
    assert metrics["size"]["unit"] == "a"


def test_evaluate_refuses_the_split_of_another_table(run, trained: Path, table_path: Path) -> None:
    code, out, err = run("evaluate", trained, table_path, "--split", "test")
    assert (code, out) == (2, "")
    assert "60 rows, expected 40); use --split all for other data" in err
    code, out, _ = run("evaluate", trained, table_path, "--split", "all", "--json")
    assert code == 0
    assert [row["n"] for row in json.loads(out).values()] == [60, 57]


# --- killed and started again


def test_a_killed_training_makes_the_same_pack(recipe: Recipe, folder: Path, trained: Path, tmp_path: Path) -> None:
    def stop(stage: str, progress: Progress) -> None:
        if stage == "mora" and progress.epoch_done:
            raise KeyboardInterrupt

    longer = replace(recipe, mora=replace(recipe.mora, epochs=2))
    with pytest.raises(KeyboardInterrupt):
        train_pack(longer, folder / "data.csv", tmp_path / "killed", CPU, stop)
    assert not (tmp_path / "killed").exists()
    stages: list[tuple[str, int]] = []

    def note(stage: str, progress: Progress) -> None:
        if progress.epoch_done:
            stages.append((stage, progress.step))

    again = train_pack(longer, folder / "data.csv", tmp_path / "killed", CPU, note)
    assert stages == [("mora", 16)], "the encoder and the first epoch were done"
    straight = train_pack(longer, folder / "data.csv", tmp_path / "straight", CPU)
    for name in ("adapter", "baseline"):
        for key, tensor in straight.tensors(name).items():
            assert torch.equal(again.tensors(name)[key], tensor), key
    assert not torch.equal(straight.tensors("adapter")["c"], open_pack(trained).tensors("adapter")["c"])
    assert again.provenance["trained"]["valid_error"] == straight.provenance["trained"]["valid_error"]


def test_force_trains_over_an_old_pack(recipe: Recipe, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "pack"
    train_pack(recipe, folder / "data.csv", out, CPU)
    with pytest.raises(OutputError, match="exists"):
        train_pack(recipe, folder / "data.csv", out, CPU)
    train_pack(recipe, folder / "data.csv", out, CPU, force=True)
    open_pack(out)


# --- data that cannot be trained on


def table(tmp_path: Path, values: list[object], smiles: list[str] | None = None) -> Path:
    path = tmp_path / "data.csv"
    names = smiles or ["C" * (i + 1) for i in range(len(values))]
    lines = [f"{s},{v},{v}" for s, v in zip(names, values, strict=True)]
    path.write_text("\n".join(["smiles,size,polarity", *lines]) + "\n")
    return path


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([0.1] * 40, "column 'size': got 32 training values that are all the same, expected at least two different"),
        ([""] * 40, "column 'size': got 0 training values, expected at least two different"),
        ([1, 2, 3, 4, 5], "split: got 4 training and 0 validation rows of 5"),
        (["x"] * 40, "row 1, column 'size': got 'x'"),
    ],
)
def test_targets_without_information_are_refused(recipe: Recipe, tmp_path: Path, values: list, words: str) -> None:
    with pytest.raises(InputError, match=words):
        train_pack(recipe, table(tmp_path, values), tmp_path / "out", CPU)
    assert not (tmp_path / "out").exists()


def test_validation_rows_that_cannot_be_read_are_told(recipe: Recipe, tmp_path: Path) -> None:
    bad = set(Split(0, 32, 4).rows(40)["valid"].tolist())
    smiles = ["bad" if i in bad else "C" * (i + 1) for i in range(40)]
    with pytest.raises(InputError, match="no molecule of the 4 validation rows could be read"):
        train_pack(recipe, table(tmp_path, list(range(40)), smiles), tmp_path / "out", CPU)


def test_test_rows_without_values_leave_the_error_unknown(run, folder: Path, tmp_path: Path) -> None:
    empty = set(Split(0, 32, 4).rows(40)["test"].tolist())
    data = table(tmp_path, ["" if i in empty else i for i in range(40)])
    code, out, _ = run("train", folder / "recipe.toml", "--data", data, "-o", tmp_path / "pack")
    assert code == 0
    assert "size: test MAE unknown" in out


def test_test_rows_that_cannot_be_read_leave_the_error_unknown(recipe: Recipe, tmp_path: Path) -> None:
    bad = set(Split(0, 32, 4).rows(40)["test"].tolist())
    smiles = ["bad" if i in bad else "C" * (i + 1) for i in range(40)]
    pack = train_pack(recipe, table(tmp_path, list(range(40)), smiles), tmp_path / "out", CPU)
    assert pack.provenance["test"]["size"]["n"] == 0


def test_an_unknown_base_is_told_before_the_work(recipe: Recipe, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="smollm2-135: neither a path nor a known base model; did you mean"):
        train_pack(replace(recipe, base="smollm2-135"), folder / "data.csv", tmp_path / "out", CPU)
    assert list(tmp_path.iterdir()) == []


# --- parts


def test_targets_become_z_scores(dataset) -> None:
    tasks = fitted_tasks(Recipe("r", (TaskRecipe("size"), TaskRecipe("polarity"))), dataset)
    z = standardize(dataset, tasks).targets
    np.testing.assert_allclose(np.nanmean(z, 0), 0, atol=1e-6)
    np.testing.assert_allclose(np.nanstd(z, 0), 1, rtol=1e-5)
    assert np.array_equal(np.isnan(z), np.isnan(dataset.targets))
    assert all(float(np.float32(t.mean)) == t.mean for t in tasks), "prediction scales back with the same numbers"


@pytest.mark.parametrize(("rows", "size"), [(3, 1), (32, 4), (4096, 512), (110_000, 512)])
def test_small_tables_get_small_batches(rows: int, size: int) -> None:
    assert shrink_batch(FitSettings(epochs=1), rows).batch_size == size
