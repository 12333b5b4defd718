"""Several networks, and one that learns the mean of their answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mora_lite.errors import InputError
from mora_lite.packs.pack import open_pack
from mora_lite.training import stages
from mora_lite.training.losses import TargetStats, distilled, task_loss
from mora_lite.training.pipeline import train
from mora_lite.training.recipe import Recipe

pytestmark = pytest.mark.usefixtures("no_compiler")
NAN = float("nan")


def stats_of(targets: list[list[float]]) -> TargetStats:
    """Of a value and a class."""
    return TargetStats.of(np.array(targets, np.float32), [False, True], [1.0, 1.0])


def test_the_mean_of_others_is_learnt_where_nothing_was_measured_and_half_of_it_elsewhere() -> None:
    targets = [[1.0, 0.0], [NAN, 1.0], [3.0, NAN]]
    stats = stats_of(targets)
    scores = torch.tensor([[3.0, 0.0], [5.0, 0.0], [NAN, 0.0]])
    learnt = distilled(torch.tensor(targets), scores, stats)
    np.testing.assert_allclose(learnt[:2, 0], [2.0, 5.0])
    np.testing.assert_allclose(learnt[:, 1], [0.25, 0.75, 0.5], err_msg="half of the training molecules are a yes")


def test_the_score_that_fits_a_probability_best_is_its_log_odds() -> None:
    """Rare positives count more in the loss; what is learnt from a probability must not be shifted by that."""
    stats = stats_of([[0.0, 1.0]] + [[0.0, 0.0]] * 9)
    probability = 0.3
    targets = torch.tensor([[NAN, probability]])
    best = torch.tensor([[0.0, np.log(probability / (1 - probability)) - float(stats.prior[1])]], requires_grad=True)
    task_loss(best, targets, stats).backward()
    assert best.grad is not None
    assert abs(float(best.grad[0, 1])) < 1e-6


def test_a_pack_of_several_networks(recipe: Recipe, folder: Path, tmp_path: Path, monkeypatch) -> None:
    targets = []
    fit = stages.fit

    def spy(model, data, *rest):
        targets.append(data.targets)
        return fit(model, data, *rest)

    monkeypatch.setattr(stages, "fit", spy)
    table = folder / "data.csv"
    tasks = (recipe.tasks[0], replace(recipe.tasks[1], own_epochs=2))
    several = replace(recipe, members=2, distill_epochs=3, tasks=tasks)
    train(table, tmp_path / "pack", recipe=several, device="cpu")
    pack = open_pack(tmp_path / "pack")
    names = [stage["stage"] for stage in pack.provenance["stages"]]
    assert names == ["member 1", "member 1 task 2", "member 2", "member 2 task 2", "encoder", "mora"]
    assert pack.provenance["recipe"]["members"] == 2
    assert "2 networks: validation error" in (tmp_path / "pack.report.html").read_text(encoding="utf-8")
    assert pack.provenance["stages"][-2]["epochs"] == 3 != recipe.encoder.epochs
    measured, own, again, _, learnt, last = targets
    np.testing.assert_array_equal(measured, again)
    np.testing.assert_array_equal(learnt, last, err_msg="the language model's stage learns the same")
    polar = measured[:, 1]
    np.testing.assert_array_equal(own[:, 0], polar[~np.isnan(polar)], err_msg="one task alone")
    assert not np.isnan(learnt).any(), "the others have an answer for every molecule and task"
    assert np.abs(learnt - measured)[~np.isnan(measured)].max() > 0


def test_what_networks_answered_is_not_computed_again(
    recipe: Recipe, folder: Path, tmp_path: Path, monkeypatch
) -> None:
    several = replace(recipe, members=2)
    first = train(folder / "data.csv", tmp_path / "pack", recipe=several, device="cpu")
    (tmp_path / "pack.run").rename(tmp_path / "other.run")
    monkeypatch.delattr(stages, "predict_scores")
    second = train(folder / "data.csv", tmp_path / "other", recipe=several, device="cpu")
    for name, weight in first.load_baseline().state_dict().items():
        assert torch.equal(weight, second.load_baseline().state_dict()[name])


def test_no_network_at_all_is_refused(recipe: Recipe) -> None:
    with pytest.raises(InputError, match="members: got 0, expected 1 or more"):
        replace(recipe, members=0)


def test_what_one_network_alone_cannot_use_is_refused(recipe: Recipe) -> None:
    with pytest.raises(InputError, match="with members = 1, expected members = 2 or more"):
        replace(recipe, distill_epochs=2)
    with pytest.raises(InputError, match="with members = 1, expected members = 2 or more"):
        replace(recipe, tasks=(replace(recipe.tasks[0], own_epochs=2),))
