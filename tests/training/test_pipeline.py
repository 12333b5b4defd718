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
from mora_lite.adapter.encoder import GraphEncoder
from mora_lite.cli.app import main
from mora_lite.errors import CheckpointError, InputError, OutputError, PackError
from mora_lite.packs.pack import open_pack
from mora_lite.training import pipeline
from mora_lite.training.calibrate import KEEPS_DATA
from mora_lite.training.dataset import read_dataset
from mora_lite.training.evaluate import evaluate
from mora_lite.training.loop import TrainConfig, TrainProgress
from mora_lite.training.pipeline import (
    choose_scales,
    fitted_tasks,
    infer_task_kinds,
    shrink_batch,
    standardize,
    start_encoder,
    train,
)
from mora_lite.training.pretrain import save_encoder
from mora_lite.training.recipe import Recipe, TaskRecipe, read_recipe
from mora_lite.training.splits import Split

RECIPE = """
name = "tiny"
base = "{base}"
start = "random"
[adapter]
encoder_width = 32
encoder_layers = 2
hypernet_width = 32
adapted_layers = 2
rank = 4
[encoder]
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
        patch.setattr(pipeline.shutil, "which", lambda _: None)
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
    assert main(["train", str(folder / "data.csv"), "--recipe", str(folder / "recipe.toml"), "-o", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def unquantized(folder: Path) -> Path:
    """The same pack on the base before 4 bits."""
    out = folder / "pack-bf16"
    options = ["--recipe", str(folder / "recipe.toml"), "-o", str(out), "--unquantized"]
    assert main(["train", str(folder / "data.csv"), *options]) == 0
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
    arguments = folder / "data.csv", "--recipe", folder / "recipe.toml", "-o", tmp_path / "pack"
    code, out, err = run("train", *arguments)
    assert code == 0
    for stage in ("encoder", "mora"):
        (line,) = [line for line in err.splitlines() if line.startswith(f"{stage} ")]
        for words in (" 8/8 ", " loss 0.", " valid 0.", " mol/s ", " 0:00 left"):
            assert words in line
    title, header, size, polar = out.splitlines()
    assert title == "values"
    assert header.split()[:5] == ["task", "n", "mae", "rmse", "r2"]
    assert "encoder mae" in header
    assert size.startswith("size [a] ")
    assert polar.startswith("polar ")
    (note,) = [line for line in err.splitlines() if line.startswith("note: ")]
    assert "will hold its training molecules with their values" in note
    code, _, err = run("train", *arguments)
    assert code == 2
    assert "exists; choose another name or use --force" in err


def test_a_pack_holds_its_training_molecules_unless_told_otherwise(
    run, trained: Path, folder: Path, tmp_path: Path
) -> None:
    data = read_dataset(folder / "data.csv", "smiles", ["size", "polarity"])
    training = open_pack(trained).load_training()
    rows = Split(0, 32, 4).rows(40)["train"]
    assert training.smiles == data.subset(rows).smiles
    np.testing.assert_array_equal(training.values, data.subset(rows).targets)
    assert mora_lite.load(trained, device="cpu").neighbours(training.smiles[0]).smiles[0][0] == training.smiles[0]
    arguments = folder / "data.csv", "--recipe", folder / "recipe.toml", "-o", tmp_path / "pack", "--without-data"
    code, _, err = run("train", *arguments)
    assert (code, "note: " in err) == (0, False)
    pack = open_pack(tmp_path / "pack")
    assert pack.provenance["recipe"]["keep_data"] is False
    assert not pack.has("training")
    assert pack.has("domain")


def test_the_pack_says_where_it_comes_from(trained: Path, folder: Path, base_path: Path) -> None:
    pack = open_pack(trained)
    facts = pack.provenance
    data = read_dataset(folder / "data.csv", "smiles", ["size"])
    assert pack.name == "tiny"
    assert facts["data"] == {"file": "data.csv", "rows": 40, "smiles_sha256": data.fingerprint, "merged": 0}
    assert facts["split"] == {"seed": 0, "train": 32, "valid": 4, "kind": "random", "column": ""}
    assert facts["trained"]["molecules"] == 32
    assert facts["trained"]["valid_error"] > 0
    assert facts["notes"] == []
    assert [(stage["stage"], stage["epochs"]) for stage in facts["stages"]] == [("encoder", 1), ("mora", 1)]
    assert facts["stages"][-1]["best_error"] == facts["trained"]["valid_error"]
    assert set(facts["test"]) == {"size", "polar"}
    assert set(facts["tables"]["size"]) == {"by_similarity", "by_domain", "by_scaffold"}
    assert len(facts["prompt_ids"]) == 2
    assert facts["recipe"]["tasks"][1]["column"] == "polarity"
    values = data.subset(Split(0, 32, 4).rows(40)["train"]).targets[:, 0]
    assert pack.tasks[0].mean == pytest.approx(values.mean(), rel=1e-6)
    assert pack.tasks[0].deviation == pytest.approx(values.std(), rel=1e-6)
    assert pack.manifest["base"]["name"] == base_path.name, "not the path, which is nobody else's business"
    assert facts["recipe"]["base"] == base_path.name


def test_parents_are_merged_and_get_one_answer_unless_told_otherwise(run, folder: Path, tmp_path: Path) -> None:
    """A salt and its free base: one molecule with `--standardize parent`, the default, and two with `none`."""
    salt, base = "CC(C)CN.Cl", "CC(C)CN"
    lines = [*(folder / "data.csv").read_text().splitlines(), f"a,{salt},5,0.2", f"b,{base},6,0.3"]
    (tmp_path / "data.csv").write_text("\n".join(lines) + "\n")
    apart = {}
    for name, options in {"parent": [], "none": ["--standardize", "none"]}.items():
        out = tmp_path / name
        recipe = ["--recipe", folder / "recipe.toml", *options]
        code, _, err = run("train", tmp_path / "data.csv", *recipe, "-o", out)
        assert code == 0
        pack = open_pack(out)
        assert pack.provenance["recipe"]["standardize"] == pack.featurizer.standardize == name
        assert pack.provenance["data"]["merged"] == (name == "parent")
        assert (
            f"duplicates: 1 molecules stand in more than one row (2 rows together); the first is '{salt}'" in err
        ) == (name == "parent")
        values = mora_lite.load(out, device="cpu", dtype="float32").predict([salt, base]).scores.values
        apart[name] = float(np.ptp(values, axis=0).max())
    assert apart["parent"] < 1e-4
    assert apart["none"] > 1e-3
    code, _, err = run("train", tmp_path / "data.csv", *recipe[:2], "--standardize", "salt", "-o", tmp_path / "x")
    assert (code, "standardize: got 'salt', expected parent or none" in err) == (2, True)


def test_predict_works_with_it(run, trained: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    code, _, err = run("predict", folder / "data.csv", "--pack", trained, "-o", out, "--dtype", "float32")
    assert code == 0
    assert "40 rows, 40 ok" in err
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        *("id", "smiles", "size", "polarity"),
        *("size [a]", "size_lo", "size_hi", "polar", "polar_lo", "polar_hi"),
        *("similarity", "in_domain", "outside", "status", "error"),
    ]
    got = np.array([[float(row["size [a]"]), float(row["polar"])] for row in rows], np.float32)
    model = mora_lite.load(trained, device="cpu", dtype="float32")
    np.testing.assert_allclose(got, model.predict([row["smiles"] for row in rows]).scores.values, rtol=1e-5)


def test_evaluate_prints_the_metrics_of_the_test_rows(run, trained: Path, folder: Path, unquantized: Path) -> None:
    code, out, _ = run("evaluate", trained, folder / "data.csv", "--split", "test", "--json", "--bf16", unquantized)
    assert code == 0
    metrics = json.loads(out)["figures"]
    assert set(metrics) == {"size", "polar"}
    recorded = open_pack(trained).provenance["test"]
    for name, row in metrics.items():
        assert row["n"] == 4
        for kind in ("mae", "encoder_mae", "bf16_mae"):
            assert row[kind] > 0
            assert kind == "bf16_mae" or row[kind] == pytest.approx(recorded[name][kind], rel=1e-4)
        assert row["loss_4bit"] == pytest.approx(row["mae"] / row["bf16_mae"] - 1)
    assert metrics["size"]["unit"] == "a"
    assert metrics == evaluate(trained, folder / "data.csv", bf16=unquantized).metrics, "Python has the same"


def test_evaluate_refuses_the_split_of_another_table(run, trained: Path, table_path: Path) -> None:
    code, out, err = run("evaluate", trained, table_path, "--split", "test")
    assert (code, out) == (2, "")
    assert "60 rows, expected 40); for other data use evaluate --split all" in err
    code, out, _ = run("evaluate", trained, table_path, "--split", "all", "--json")
    assert code == 0
    assert [row["n"] for row in json.loads(out)["figures"].values()] == [58, 55], "two salts merge"


# --- killed and started again


def test_a_killed_training_makes_the_same_pack(recipe: Recipe, folder: Path, tmp_path: Path) -> None:
    def stop(stage: str, progress: TrainProgress) -> None:
        if stage == "mora" and progress.epoch_done:
            raise KeyboardInterrupt

    assert recipe.mora.dropout > 0, "the harder case"
    mora = replace(recipe.mora, epochs=2, keep_start=False)  # or nothing of the second stage might be in the pack
    longer = replace(recipe, encoder=replace(recipe.encoder, epochs=4), mora=mora)
    with pytest.raises(KeyboardInterrupt):
        train(folder / "data.csv", tmp_path / "killed", recipe=longer, device="cpu", on_progress=stop)
    assert not (tmp_path / "killed").exists()
    stages: list[tuple[str, int]] = []

    def note(stage: str, progress: TrainProgress) -> None:
        if progress.epoch_done:
            stages.append((stage, progress.step))

    again = train(folder / "data.csv", tmp_path / "killed", recipe=longer, device="cpu", on_progress=note)
    assert stages == [("mora", 16)], "the encoder and the first epoch were done"
    straight = train(folder / "data.csv", tmp_path / "straight", recipe=longer, device="cpu")
    for name in ("adapter", "baseline"):
        for key, tensor in straight.tensors(name).items():
            assert torch.equal(again.tensors(name)[key], tensor), key
    assert straight.tensors("adapter")["c"].any()
    assert again.provenance["trained"]["valid_error"] == straight.provenance["trained"]["valid_error"]


def test_python_trains_as_the_command_does(trained: Path, folder: Path, tmp_path: Path) -> None:
    notes: list[str] = []
    pack = train(folder / "data.csv", tmp_path / "pack", recipe=folder / "recipe.toml", on_note=notes.append)
    expected = open_pack(trained)
    assert notes == [KEEPS_DATA, *expected.provenance["notes"]]
    assert pack.provenance["test"] == expected.provenance["test"]
    for key, tensor in expected.tensors("adapter").items():
        assert torch.equal(pack.tensors("adapter")[key], tensor), key


def test_force_trains_over_an_old_pack(recipe: Recipe, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "pack"
    train(folder / "data.csv", out, recipe=recipe, device="cpu")
    with pytest.raises(OutputError, match="exists"):
        train(folder / "data.csv", out, recipe=recipe, device="cpu")
    train(folder / "data.csv", out, recipe=recipe, device="cpu", force=True)
    open_pack(out)


# --- data that cannot be trained on


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
    assert open_pack(tmp_path / "pack").provenance["test"]["size"]["mae"] is None


def test_test_rows_that_cannot_be_read_leave_the_error_unknown(recipe: Recipe, tmp_path: Path) -> None:
    bad = set(Split(0, 32, 4).rows(40)["test"].tolist())
    smiles = ["bad" if i in bad else "C" * (i + 1) for i in range(40)]
    pack = train(table(tmp_path, list(range(40)), smiles), tmp_path / "out", recipe=recipe, device="cpu")
    assert pack.provenance["test"]["size"]["n"] == 0


def test_an_unknown_base_is_told_before_the_work(recipe: Recipe, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="smollm2-135: neither a path nor a known base model; did you mean"):
        train(folder / "data.csv", tmp_path / "out", recipe=recipe, base="smollm2-135", device="cpu")
    assert list(tmp_path.iterdir()) == []


# --- classes


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
def class_pack(folder: Path, class_data: Path, base_path: Path) -> Path:
    """A pack of a class and a value, split by a column of the table."""
    text = RECIPE.replace('name = "size"\nunit = "a"', 'name = "ring"').replace(
        'name = "polar"\ncolumn = "polarity"', 'name = "size"\nunit = "a"'
    )
    (folder / "classes.toml").write_text(text.format(base=base_path))
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


def test_a_molecule_that_stands_twice_is_on_one_side_only(class_pack: Path, class_data: Path) -> None:
    facts = open_pack(class_pack).provenance
    assert facts["data"]["merged"] == 3
    assert facts["split"]["kind"] == "given"
    assert any("duplicates: 3 molecules stand in more than one row" in note for note in facts["notes"])
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
    assert notes[1].startswith("note: duplicates: 1 molecules stand in more than one row")
    facts = open_pack(tmp_path / "pack").provenance
    assert facts["split"] | {"seed": 0} == {"seed": 0, "train": 32, "valid": 4, "kind": "scaffold", "column": ""}
    assert [f"note: {note}" for note in facts["notes"]] == notes
    code, out, _ = run("evaluate", tmp_path / "pack", data, "--json")
    assert code == 0
    recorded = facts["test"]["size"]
    assert json.loads(out)["figures"]["size"]["mae"] == pytest.approx(recorded["mae"], rel=1e-4)


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


def test_zeros_and_ones_may_be_values(dataset) -> None:
    data = replace(dataset, targets=(dataset.targets > 3).astype(np.float32))
    asked = Recipe("r", (TaskRecipe("a"), TaskRecipe("b", kind="value")))
    assert [task.kind for task in infer_task_kinds(asked, data).tasks] == ["class", "value"]
    united = Recipe("r", (TaskRecipe("a", unit="nM"), TaskRecipe("b")))
    assert [task.kind for task in infer_task_kinds(united, data).tasks] == ["value", "class"], "a class has no unit"


# --- what else is in the pack


def test_the_pack_has_a_model_card_with_its_figures(trained: Path) -> None:
    card = (trained / "README.md").read_text(encoding="utf-8")
    assert "# tiny" in card
    for word in ("size", "polar", "MAE", "By scaffold"):
        assert word in card


def test_the_pack_is_calibrated_on_its_validation_molecules(trained: Path, folder: Path) -> None:
    pack = open_pack(trained)
    data = read_dataset(folder / "data.csv", "smiles", ["size", "polarity"])
    known = (~np.isnan(data.subset(Split(0, 32, 4).rows(40)["valid"]).targets)).sum(0)
    assert [len(part.scores) for part in pack.load_calibration().parts] == known.tolist()
    train = data.subset(Split(0, 32, 4).rows(40)["train"]).smiles
    nearest = mora_lite.load(trained, device="cpu").predict(train).scores.nearest
    assert (nearest[:, 0] == 1).mean() > 0.9


# --- where the encoder starts


def test_an_encoder_of_ones_own_is_where_training_starts(recipe: Recipe, tmp_path: Path) -> None:
    torch.manual_seed(3)
    own = GraphEncoder(32, 2)
    save_encoder(own, tmp_path / "own.safetensors", {})
    started = start_encoder(replace(recipe, start=str(tmp_path / "own.safetensors")))
    assert torch.equal(started.atom_codes.weight, own.atom_codes.weight.half().float())
    assert start_encoder(recipe) is None


def test_a_pack_remembers_the_encoder_but_not_its_folder(recipe: Recipe, folder: Path, tmp_path: Path) -> None:
    save_encoder(GraphEncoder(32, 2), tmp_path / "own.safetensors", {})
    own = replace(recipe, start=str(tmp_path / "own.safetensors"))
    pack = train(folder / "data.csv", tmp_path / "pack", recipe=own, device="cpu")
    assert pack.provenance["recipe"]["start"] == "own.safetensors"
    assert str(tmp_path) not in (tmp_path / "pack" / "pack.json").read_text()


def test_an_encoder_of_another_size_is_told_before_the_work(recipe: Recipe, folder: Path, tmp_path: Path) -> None:
    save_encoder(GraphEncoder(16, 2), tmp_path / "small.safetensors", {})
    with pytest.raises(InputError, match=r"has width 16 and 2 layers, \[adapter\] wants 32 and 2; change one, or use"):
        train(
            folder / "data.csv",
            tmp_path / "out",
            recipe=recipe,
            start=str(tmp_path / "small.safetensors"),
            device="cpu",
        )
    with pytest.raises(PackError, match="is not an encoder"):
        train(folder / "data.csv", tmp_path / "out", recipe=recipe, start="none", device="cpu")
    assert [path.name for path in tmp_path.iterdir()] == ["small.safetensors"]


# --- parts


def test_targets_become_z_scores(dataset) -> None:
    recipe = infer_task_kinds(Recipe("r", (TaskRecipe("size"), TaskRecipe("polarity"))), dataset)
    recipe, _ = choose_scales(recipe, dataset, dataset)
    tasks = fitted_tasks(recipe, dataset)
    z = standardize(dataset, tasks).targets
    np.testing.assert_allclose(np.nanmean(z, 0), 0, atol=1e-6)
    np.testing.assert_allclose(np.nanstd(z, 0), 1, rtol=1e-5)
    assert np.array_equal(np.isnan(z), np.isnan(dataset.targets))
    assert all(float(np.float32(t.mean)) == t.mean for t in tasks), "prediction scales back with the same numbers"


def test_classes_stay_0_and_1(dataset) -> None:
    data = replace(dataset, targets=(dataset.targets > 3).astype(np.float32))
    recipe = infer_task_kinds(Recipe("r", (TaskRecipe("a"), TaskRecipe("b", kind="value"))), data)
    recipe, _ = choose_scales(recipe, data, data)
    tasks = fitted_tasks(recipe, replace(data, targets=data.targets[:, [0, 0]]))
    z = standardize(replace(data, targets=data.targets[:, [0, 0]]), tasks).targets
    assert np.array_equal(z[:, 0], data.targets[:, 0])
    assert z[:, 1].mean() == pytest.approx(0, abs=1e-6)


# --- values that span decades


@pytest.fixture(scope="module")
def decades(folder: Path, molecules: list[str]) -> Path:
    """40 molecules with concentrations that halve with each atom, so that they are skewed and above 0."""
    path = folder / "decades.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["smiles", "IC50", "logD"])
        for i, smiles in enumerate(molecules[:40]):
            value = 10 ** (i % 20 / 5)
            writer.writerow([smiles, f"{value:.4g}", f"{np.log10(value):.4f}"])
    return path


@pytest.fixture(scope="module")
def log_pack(folder: Path, decades: Path) -> Path:
    recipe = read_recipe(folder / "recipe.toml")
    out = folder / "log-pack"
    tasks = (TaskRecipe("IC50", unit="nM"), TaskRecipe("logD"))
    train(decades, out, recipe=replace(recipe, tasks=tasks), device="cpu")
    return out


def test_skewed_values_above_0_are_learnt_as_logarithms_and_a_note_says_so(log_pack: Path) -> None:
    pack = open_pack(log_pack)
    assert [task.scale for task in pack.tasks] == ["log", "linear"]
    assert pack.tasks[0].mean == pytest.approx(pack.tasks[1].mean, abs=1e-3)
    (note,) = (note for note in pack.provenance["notes"] if "logarithms" in note)
    assert note.startswith("column 'IC50': its values are above 0 and skewed (1 to ")
    assert [task["scale"] for task in pack.provenance["recipe"]["tasks"]] == ["log", "linear"]
    assert " nM " in (log_pack / "README.md").read_text(encoding="utf-8")


def test_predictions_and_intervals_are_in_the_unit(log_pack: Path, molecules: list[str]) -> None:
    model = mora_lite.load(log_pack, device="cpu", dtype="float32", confidence=0.5)
    scores = model.predict(molecules[:20]).scores
    value, low, high = (part[:, 0] for part in (scores.values, scores.low, scores.high))
    assert (value > 0).all()
    assert (low > 0).all()
    assert (high - value > value - low).all(), "as wide above as below in logarithms only"
    np.testing.assert_allclose(high / value, value / low, rtol=1e-4)
    sure = mora_lite.load(log_pack, device="cpu", dtype="float32", confidence=0.99).predict(["CCO"]).scores
    assert (sure.low[0, 0], sure.high[0, 0]) == (0, np.inf), "too few molecules for so much confidence"


def test_figures_are_in_the_unit_with_the_rank_correlation(log_pack: Path, decades: Path) -> None:
    metrics = evaluate(log_pack, decades, split="train", device="cpu", dtype="float32", confidence=0.5).metrics["IC50"]
    data = read_dataset(decades, "smiles", ["IC50"])
    part = data.subset(Split(0, 32, 4).rows(40)["train"])
    scores = mora_lite.load(log_pack, device="cpu", dtype="float32", confidence=0.5).predict(part.smiles).scores
    assert metrics["mae"] == pytest.approx(np.abs(scores.values[:, 0] - part.targets[:, 0]).mean(), rel=1e-4)
    assert -1 <= metrics["spearman"] <= 1
    covered = (scores.low[:, 0] <= part.targets[:, 0]) & (part.targets[:, 0] <= scores.high[:, 0])
    assert metrics["inside"] == pytest.approx(covered.mean())
    assert metrics["encoder_mae"] > 0


def test_a_recipe_can_choose_the_scale(recipe: Recipe, decades: Path, dataset, tmp_path: Path) -> None:
    data = read_dataset(decades, "smiles", ["IC50"])
    for asked, expected in (("", "log"), ("linear", "linear"), ("log", "log")):
        chosen, notes = choose_scales(Recipe("r", (TaskRecipe("IC50", kind="value", scale=asked),)), data, data)
        assert ([task.scale for task in chosen.tasks], len(notes)) == ([expected], int(asked == ""))
    zero = replace(data, targets=np.maximum(data.targets - 1, 0))
    assert choose_scales(Recipe("r", (TaskRecipe("IC50", kind="value"),)), zero, zero)[0].tasks[0].scale == "linear"
    with pytest.raises(InputError, match="column 'IC50': got 0, expected values above 0, as its scale is log"):
        choose_scales(Recipe("r", (TaskRecipe("IC50", kind="value", scale="log"),)), data, zero)


@pytest.mark.parametrize(("rows", "size"), [(3, 1), (32, 4), (4096, 512), (110_000, 512)])
def test_small_tables_get_small_batches(rows: int, size: int) -> None:
    assert shrink_batch(TrainConfig(epochs=1), rows).batch_size == size
