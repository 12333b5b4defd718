"""Auxiliary tasks teach the encoder and are not answered; small tasks are drawn as often as large ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mora_lite.errors import InputError
from mora_lite.packs.pack import open_pack
from mora_lite.training.dataset import Dataset
from mora_lite.training.evaluate import evaluate
from mora_lite.training.losses import TargetStats, validation_error
from mora_lite.training.pipeline import read_training_data, train
from mora_lite.training.recipe import Recipe, TaskRecipe

pytestmark = pytest.mark.usefixtures("no_compiler")
TASKS = (TaskRecipe("polar", column="polarity", auxiliary=True), TaskRecipe("size", unit="a"))


@pytest.fixture(scope="module")
def some_sizes(folder: Path) -> Path:
    """The table, in which every fourth molecule has no size."""
    lines = (folder / "data.csv").read_text().splitlines()
    at = lines[0].split(",").index("size")
    rows = [line.split(",") for line in lines]
    for row in rows[1::4]:
        row[at] = ""
    path = folder / "some-sizes.csv"
    path.write_text("".join(",".join(row) + "\n" for row in rows))
    return path


def test_a_pack_answers_what_is_not_auxiliary(recipe: Recipe, some_sizes: Path, tmp_path: Path) -> None:
    train(some_sizes, tmp_path / "pack", recipe=replace(recipe, tasks=TASKS), device="cpu")
    pack = open_pack(tmp_path / "pack")
    assert [task.name for task in pack.tasks] == ["size"]
    assert pack.load_baseline().head[-1].out_features == 1
    assert len(pack.load_training().smiles) < 32, "molecules without a size are not the pack's training molecules"
    assert [task["auxiliary"] for task in pack.provenance["recipe"]["tasks"]] == [True, False]
    assert set(evaluate(tmp_path / "pack", some_sizes, device="cpu").metrics) == {"size"}
    page = (tmp_path / "pack.report.html").read_text(encoding="utf-8")
    assert "<dt>Also learnt, not answered</dt><dd>polar</dd>" in page


def test_rows_without_any_value_do_not_train(recipe: Recipe, some_sizes: Path, tmp_path: Path) -> None:
    """Of 32 training rows some have no size, but a polarity."""
    alone = replace(recipe, tasks=(TaskRecipe("size", unit="a"),))
    notes: list[str] = []
    facts = train(some_sizes, tmp_path / "pack", recipe=alone, device="cpu", on_note=notes.append).provenance["trained"]
    assert facts["molecules"] == facts["values"]["size"] < 32
    both = replace(alone, tasks=TASKS)
    read = read_training_data(both, some_sizes, notes.append)
    assert len(read.train) == 32, "what an auxiliary task learns from trains"
    read = read_training_data(alone, some_sizes, notes.append)
    assert len(read.train) == facts["molecules"]
    assert not np.isnan(read.train.targets).any()
    assert not np.isnan(read.valid.targets).any()


def test_a_recipe_of_auxiliary_tasks_alone_is_refused(recipe: Recipe) -> None:
    with pytest.raises(InputError, match="all tasks are auxiliary"):
        replace(recipe, tasks=TASKS[:1])


def test_auxiliary_tasks_are_not_validated() -> None:
    targets = np.array([[0.0, 3.0], [1.0, -3.0]], dtype=np.float32)
    stats = TargetStats.of(targets, [False, False], [1.0, 1.0], [False, True])
    scores = 0 * stats.weights + stats.weights.new_tensor(targets) + stats.weights.new_tensor([0.0, 5.0])
    assert validation_error(scores, stats.weights.new_tensor(targets), stats) == 0
    assert validation_error(scores, stats.weights.new_tensor(targets), stats.at_tasks(np.array([0]))) == 0


def test_molecules_of_small_tasks_are_drawn_more_often(dataset: Dataset) -> None:
    targets = np.full((len(dataset), 3), np.nan, dtype=np.float32)
    n = np.array([len(dataset), 40, 5])
    for task, known in enumerate(n):
        targets[:known, task] = 1.0
    shares = replace(dataset, targets=targets).rarity()
    assert shares.sum() == pytest.approx(1)
    ratio = (len(dataset) / np.array([30, 40])) ** 0.5
    np.testing.assert_allclose([shares[0] / shares[-1], shares[20] / shares[-1]], ratio)
    assert shares[4] == shares[0], "fewer than 30 count as 30"
