"""Values that span decades are learnt as logarithms, and answered in their unit."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import mora_lite
from mora_lite.errors import InputError
from mora_lite.packs.pack import open_pack
from mora_lite.training.checks import choose_scales
from mora_lite.training.dataset import read_dataset
from mora_lite.training.evaluate import evaluate
from mora_lite.training.pipeline import train
from mora_lite.training.recipe import Recipe, TaskRecipe, read_recipe
from mora_lite.training.splits import Split

pytestmark = pytest.mark.usefixtures("no_compiler")


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
    with pytest.raises(InputError, match=r"IC50': got 0, expected values above 0, as its scale is log; .* are not"):
        choose_scales(Recipe("r", (TaskRecipe("IC50", kind="value", scale="log"),)), data, zero)


def test_values_over_decades_that_are_learnt_as_they_are_are_told(dataset) -> None:
    values = np.full((len(dataset), 1), 1e-3, np.float32)
    values[: len(dataset) // 2] = 100 + np.arange(len(dataset) // 2)[:, None]
    data = replace(dataset, targets=values)
    chosen, notes = choose_scales(Recipe("r", (TaskRecipe("k", kind="value"),)), data, data)
    assert chosen.tasks[0].scale == "linear"
    assert "its values span 5 powers of ten (0.001 to 129) and are learnt as they are" in notes[0]
    assert choose_scales(Recipe("r", (TaskRecipe("k", kind="value", scale="linear"),)), data, data)[1] == []


def test_zeros_that_keep_a_column_from_logarithms_are_told(decades: Path) -> None:
    data = read_dataset(decades, "smiles", ["IC50"])
    data.targets[:2] = 0
    chosen, notes = choose_scales(Recipe("r", (TaskRecipe("IC50", kind="value"),)), data, data.at(np.arange(2, 9)))
    assert chosen.tasks[0].scale == "linear"
    assert "column 'IC50': 2 values of 0 keep it from being learnt as logarithms" in notes[0]


def test_percentages_near_their_ends_are_told_of_log_odds(dataset) -> None:
    for least, most, n_notes in ((20, 99, 1), (1, 60, 1), (20, 60, 0), (20, 101, 0)):
        values = np.linspace(least, most, len(dataset), dtype=np.float32)[:, None]
        data = replace(dataset, targets=values)
        for task in (TaskRecipe("PPB", unit="%", kind="value"), TaskRecipe("PPB (% bound)", kind="value")):
            chosen, notes = choose_scales(Recipe("r", (task,)), data, data)
            assert (chosen.tasks[0].scale, len(notes)) == ("linear", n_notes)
            assert all('scale = "logit" in a recipe learns log-odds' in note for note in notes)
        assert not choose_scales(Recipe("r", (TaskRecipe("mass", kind="value"),)), data, data)[1]


def test_percentages_are_learnt_as_log_odds(folder: Path, molecules: list[str], tmp_path: Path) -> None:
    table = tmp_path / "bound.csv"
    rows = [(smiles, 2.5 * i) for i, smiles in enumerate(molecules[:41])]
    table.write_text("smiles,PPB\n" + "".join(f"{smiles},{share}\n" for smiles, share in rows))
    recipe = replace(read_recipe(folder / "recipe.toml"), tasks=(TaskRecipe("PPB", unit="%", scale="logit"),))
    pack = train(table, tmp_path / "pack", recipe=recipe, device="cpu")
    scores = mora_lite.load(pack.path, device="cpu", dtype="float32").predict(molecules[:40]).scores
    for part in (scores.values, scores.low, scores.high):
        assert (part >= 0).all()
        assert (part <= 100).all()
    assert ", mostly " in (pack.path / "README.md").read_text(encoding="utf-8")
    table.write_text("smiles,PPB\n" + "".join(f"{smiles},{-share}\n" for smiles, share in rows))
    with pytest.raises(InputError, match="expected 0 to 100 %, as its scale is logit"):
        train(table, tmp_path / "other", recipe=recipe, device="cpu")
