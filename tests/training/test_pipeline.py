"""`mora-lite train` from a table to a pack that `predict` and `evaluate` work with, on the random base model."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import mora_lite
from mora_lite.adapter.encoder import GraphEncoder
from mora_lite.cli.app import main
from mora_lite.errors import InputError, OutputError, PackError
from mora_lite.machine.files import lock
from mora_lite.packs.pack import open_pack
from mora_lite.training.calibrate import KEEPS_DATA
from mora_lite.training.checks import choose_scales
from mora_lite.training.dataset import read_dataset
from mora_lite.training.evaluate import evaluate
from mora_lite.training.loop import TrainProgress
from mora_lite.training.pipeline import (
    fitted_tasks,
    infer_task_kinds,
    standardize,
    start_encoder,
    train,
)
from mora_lite.training.pretrain import STARTS, save_encoder
from mora_lite.training.recipe import DEFAULT_SIZES, Recipe, TaskRecipe
from mora_lite.training.splits import Split

FEW = [
    f"column {name!r}: {n} validation values; 9 are needed for an interval of 90 %"
    for name, n in (("size", 4), ("polarity", 3))
]
pytestmark = pytest.mark.usefixtures("no_compiler")


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
    keeps, *few = [line for line in err.splitlines() if line.startswith("note: ")]
    assert "will hold its training molecules with their values" in keeps
    assert few == [f"note: {note}" for note in FEW]
    code, _, err = run("train", *arguments)
    assert code == 2
    assert "exists; choose another name or use --force" in err


def test_beside_the_pack_lies_a_page_about_its_errors_and_its_training(trained: Path) -> None:
    page = trained.with_name("pack.report.html").read_text(encoding="utf-8")
    assert "4 molecules of data.csv, the test part" in page
    assert "Encoder alone: validation error" in page
    assert "report.html" not in " ".join(path.name for path in trained.iterdir()), "packs are passed on"
    assert open_pack(trained).provenance["stages"][0]["curve"][0][0] == 1


def test_the_page_has_the_place_that_is_named_and_replaces_nothing(
    folder: Path, recipe: Recipe, tmp_path: Path
) -> None:
    precious = tmp_path / "precious.html"
    precious.write_text("precious")
    with pytest.raises(OutputError, match="exists"):
        train(folder / "data.csv", tmp_path / "pack", recipe=recipe, report=precious, device="cpu")
    with pytest.raises(OutputError, match="no such directory"):
        train(folder / "data.csv", tmp_path / "pack", recipe=recipe, report=tmp_path / "a" / "b.html", device="cpu")
    assert [path.name for path in tmp_path.iterdir()] == ["precious.html"]
    train(folder / "data.csv", tmp_path / "deep" / "pack", recipe=recipe, report=tmp_path / "page.html", device="cpu")
    assert (tmp_path / "page.html").is_file()
    assert {path.name for path in (tmp_path / "deep").iterdir()} == {"pack", "pack.run"}


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
    assert (code, "will hold its training molecules" in err) == (0, False)
    pack = open_pack(tmp_path / "pack")
    assert pack.provenance["recipe"]["keep_data"] is False
    assert not pack.has("training")
    assert pack.has("domain")


def test_the_pack_says_where_it_comes_from(trained: Path, folder: Path, base_path: Path) -> None:
    pack = open_pack(trained)
    facts = pack.provenance
    data = read_dataset(folder / "data.csv", "smiles", ["size"])
    assert pack.name == "tiny"
    assert repr(pack) == f"Pack(path={trained!r})", "a notebook shows what a cell returns"
    assert facts["data"] == {"file": "data.csv", "rows": 40, "smiles_sha256": data.fingerprint, "merged": 0}
    assert facts["split"] == {"seed": 0, "train": 32, "valid": 4, "kind": "random", "column": ""}
    assert facts["trained"]["molecules"] == facts["trained"]["values"]["size"] == 32
    assert facts["trained"]["valid_error"] > 0
    assert facts["notes"] == FEW
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
        assert (f"duplicates: 1 molecule in more than one row (2 rows together); the first is '{salt}'" in err) == (
            name == "parent"
        )
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


def test_a_second_training_of_the_same_pack_is_refused(run, folder: Path, tmp_path: Path) -> None:
    """Each would write its pack over that of the other, in the same folder."""
    command = "train", folder / "data.csv", "-r", folder / "recipe.toml", "-o", tmp_path / "pack"
    with lock(tmp_path / "pack.run"):
        code, _, err = run(*command)
    assert (code, "pack.run: wait for it, or name another directory" in err) == (2, True)
    assert run(*command)[0] == 0


def test_evaluate_and_calibrate_refuse_a_split_column_that_was_changed(run, folder: Path, tmp_path: Path) -> None:
    """Else molecules that were trained on would be measured as test molecules."""
    header, *rows = (folder / "data.csv").read_text().splitlines()
    table, pack = tmp_path / "data.csv", tmp_path / "pack"

    def write(parts: list[str]) -> None:
        lines = zip([header, *rows], ["part", *parts], strict=True)
        table.write_text("\n".join(f"{row},{part}" for row, part in lines))

    parts = ["train"] * 28 + ["val"] * 6 + ["test"] * 6
    write(parts)
    assert run("train", table, "-r", folder / "recipe.toml", "--split", "part", "-o", pack)[0] == 0
    write([part.upper() for part in parts])
    assert run("evaluate", pack, table)[0] == 0, "the same parts in other letters"
    write(parts[::-1])
    for command in ("evaluate", "calibrate"):
        code, _, err = run(command, pack, table)
        assert (code, "its column 'part' does not say the parts that pack tiny was trained by" in err) == (2, True)
    code, _, err = run("evaluate", pack, table, "--split", "all", "-o", tmp_path / "molecules.csv")
    assert code == 0
    with (tmp_path / "molecules.csv").open() as file:
        assert {row["split"] for row in csv.DictReader(file)} == {""}


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


def test_the_encoders_that_ship_are_had_by_name(recipe: Recipe) -> None:
    recipe = replace(recipe, adapter=DEFAULT_SIZES)
    starts = {name: start_encoder(replace(recipe, start=name)) for name in STARTS}
    assert torch.equal(starts["structures"].atom_codes.weight, starts["pretrained"].atom_codes.weight)
    assert not torch.equal(starts["structures"].atom_codes.weight, starts["endpoints"].atom_codes.weight)


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
        train(folder / "data.csv", tmp_path / "out", recipe=recipe, start=str(folder / "data.csv"), device="cpu")
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


def test_values_that_are_alike_on_their_scale_are_told(dataset) -> None:
    recipe = Recipe("r", (TaskRecipe("bound", kind="value", scale="logit"),))
    data = replace(dataset, targets=np.where(dataset.targets[:, :1] > 3, 0, 1e-9).astype(np.float32))
    with pytest.raises(
        InputError, match="'bound': got 60 training values that are all the same, expected at least two"
    ):
        fitted_tasks(recipe, data)


def test_classes_stay_0_and_1(dataset) -> None:
    data = replace(dataset, targets=(dataset.targets > 3).astype(np.float32))
    recipe = infer_task_kinds(Recipe("r", (TaskRecipe("a"), TaskRecipe("b", kind="value"))), data)
    recipe, _ = choose_scales(recipe, data, data)
    tasks = fitted_tasks(recipe, replace(data, targets=data.targets[:, [0, 0]]))
    z = standardize(replace(data, targets=data.targets[:, [0, 0]]), tasks).targets
    assert np.array_equal(z[:, 0], data.targets[:, 0])
    assert z[:, 1].mean() == pytest.approx(0, abs=1e-6)
