"""The training loop: it learns, it can be killed and started again, and missing values take no part."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mora_lite import train as train_module
from mora_lite.baseline import EncoderBaseline
from mora_lite.dataset import Dataset
from mora_lite.encoder import GraphEncoder
from mora_lite.errors import InputError
from mora_lite.train import FitSettings, Progress, fit, l1_loss, validate

CPU = torch.device("cpu")
SETTINGS = FitSettings(epochs=4, batch_size=8, warmup_steps=5)
WEIGHTS = [1.0, 2.0]


@pytest.fixture(scope="module")
def parts(dataset: Dataset) -> tuple[Dataset, Dataset]:
    """40 molecules to learn from and 20 to look at, as z-scores; some values are missing."""
    known = dataset.targets - np.nanmean(dataset.targets, axis=0)
    scaled = replace(dataset, targets=known / np.nanstd(known, axis=0))
    return scaled.subset(np.arange(40)), scaled.subset(np.arange(40, 60))


def new_model(seed: int = 0) -> EncoderBaseline:
    torch.manual_seed(seed)
    return EncoderBaseline(GraphEncoder(16, 1), 2)


def train(
    model: nn.Module, parts: tuple[Dataset, Dataset], folder: Path, settings: FitSettings = SETTINGS, **options
) -> list[Progress]:
    """The report of each epoch."""
    seen: list[Progress] = []
    fit(model, *parts, options.pop("weights", WEIGHTS), settings, folder, CPU, seen.append, **options)
    return [progress for progress in seen if progress.epoch_done]


def same_weights(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def killed(model: nn.Module, parts: tuple[Dataset, Dataset], folder: Path, training_steps: int) -> None:
    """Runs until the model has been used for so many steps of training, then dies."""
    left = training_steps

    def count(*_: object) -> None:
        nonlocal left
        if model.training:
            left -= 1
            if left < 0:
                raise KeyboardInterrupt

    hook = model.register_forward_hook(count)
    with pytest.raises(KeyboardInterrupt):
        train(model, parts, folder)
    hook.remove()


# --- resuming


@pytest.mark.parametrize("steps", [3, 10, 13, 19])
def test_a_killed_run_goes_on_to_the_same_weights(parts, tmp_path: Path, steps: int) -> None:
    """Five steps to an epoch: killed within the first, between two, within a later one, and in the last."""
    straight = new_model()
    expected = train(straight, parts, tmp_path / "straight")
    killed(new_model(), parts, tmp_path / "killed", steps)
    resumed = new_model()
    seen = train(resumed, parts, tmp_path / "killed")
    assert same_weights(resumed, straight)
    assert [p.step for p in seen] == [5, 10, 15, 20][steps // 5 :]
    assert seen[-1].valid_error == expected[-1].valid_error


def test_killed_between_epochs_by_what_reports_progress(parts, tmp_path: Path) -> None:
    straight, resumed = new_model(), new_model()
    train(straight, parts, tmp_path / "straight")

    def stop(progress: Progress) -> None:
        if progress.step == 10 and progress.epoch_done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(new_model(), *parts, WEIGHTS, SETTINGS, tmp_path / "killed", CPU, stop)
    assert [p.step for p in train(resumed, parts, tmp_path / "killed")] == [15, 20]
    assert same_weights(resumed, straight)


def test_the_start_does_not_matter_when_resuming(parts, tmp_path: Path) -> None:
    straight, other = new_model(), new_model(seed=9)
    train(straight, parts, tmp_path / "a")
    assert train(other, parts, tmp_path / "a") == [], "all is done"
    assert same_weights(other, straight)


def test_a_finished_run_still_tells_its_error(parts, tmp_path: Path) -> None:
    seen = train(new_model(), parts, tmp_path)
    again = fit(new_model(), *parts, WEIGHTS, SETTINGS, tmp_path, CPU)
    assert again.step == again.n_steps == 20
    assert again.valid_error == seen[-1].valid_error


@pytest.mark.parametrize("change", ["settings", "targets", "molecules", "weights"])
def test_other_settings_or_data_start_anew(parts, tmp_path: Path, change: str) -> None:
    train(new_model(), parts, tmp_path)
    data, valid = parts
    settings, weights = SETTINGS, WEIGHTS
    if change == "settings":
        settings = replace(SETTINGS, peak_lr=2e-3)
    elif change == "targets":
        data = replace(data, targets=data.targets * 1.5)
    elif change == "molecules":
        data = data.subset(np.arange(1, 40))
    else:
        weights = [1.0, 1.0]
    seen = train(new_model(), (data, valid), tmp_path, settings, weights=weights)
    assert len(seen) == 4


def test_no_half_written_checkpoint_stays(parts, tmp_path: Path) -> None:
    train(new_model(), parts, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.safetensors", "log.jsonl"]
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log] == [5, 10, 15, 20]


def test_long_epochs_report_within(parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_module, "SECONDS_BETWEEN_REPORTS", -1.0)
    seen: list[Progress] = []
    fit(new_model(), *parts, WEIGHTS, replace(SETTINGS, epochs=2), tmp_path, CPU, seen.append)
    assert [(p.step, p.epoch_done) for p in seen] == [
        *((step, False) for step in range(1, 6)),
        (5, True),
        *((step, False) for step in range(6, 11)),
        (10, True),
    ]
    within = [p for p in seen if not p.epoch_done]
    assert np.isnan(within[0].valid_error)
    assert within[5].valid_error == seen[5].valid_error, "that of the last whole epoch"
    assert all(p.loss > 0 and p.mol_per_s > 0 for p in seen)
    assert (within[0].seconds_left > 0, within[-1].seconds_left) == (True, 0)


# --- learning


def test_it_learns_a_few_molecules_by_heart(parts, tmp_path: Path) -> None:
    few = parts[0].subset(np.arange(16))
    settings = FitSettings(epochs=60, batch_size=16, peak_lr=1e-2, ema_decay=0.8)
    seen = train(new_model(), (few, few), tmp_path, settings)
    assert seen[-1].loss < 0.3 * seen[0].loss
    assert seen[-1].valid_error < 0.3
    assert all(p.mol_per_s > 0 for p in seen)
    assert seen[-1].seconds_left == 0


def test_the_averaged_weights_are_what_is_validated_and_kept(parts, tmp_path: Path) -> None:
    model = new_model()
    seen = train(model, parts, tmp_path, replace(SETTINGS, ema_decay=0.5))
    assert not model.training
    kept = dict(model.named_parameters())
    assert validate(model, kept, parts[1], CPU) == pytest.approx(seen[-1].valid_error, rel=1e-6)
    last = new_model()
    train(last, parts, tmp_path / "last", replace(SETTINGS, ema_decay=0.0))
    assert not same_weights(model, last), "decay 0 keeps the last weights, decay 0.5 an average"


def test_an_encoder_can_learn_more_slowly(parts, tmp_path: Path) -> None:
    model = new_model()
    train(model, parts, tmp_path, replace(SETTINGS, encoder_lr_scale=0.0))
    start = new_model()
    assert same_weights(model.encoder, start.encoder)
    assert not same_weights(model.head, start.head)


def test_validation_leaves_missing_values_out(parts) -> None:
    class Zero(nn.Module):
        def forward(self, batch: object) -> Tensor:
            return torch.zeros(batch.n_graphs, 2)

    valid = replace(parts[1], targets=np.full((20, 2), np.nan, np.float32))
    valid.targets[:3, 0] = [1, -2, 3]
    valid.targets[5, 1] = 4
    assert validate(Zero(), {}, valid, CPU) == pytest.approx((2 + 4) / 2)


# --- the loss


def test_the_loss_is_a_weighted_mean_of_absolute_errors() -> None:
    scores = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    targets = torch.tensor([[0.0, 0.0], [3.0, -2.0]])
    assert l1_loss(scores, targets, torch.ones(2)).item() == pytest.approx((1 + 0 + 3 + 4) / 4)
    assert l1_loss(scores, targets, torch.tensor([1.0, 3.0])).item() == pytest.approx((1 + 3 + 3 * 4) / 8)
    assert l1_loss(scores, targets, torch.tensor([2.0, 6.0])).item() == pytest.approx((1 + 3 + 3 * 4) / 8)


def test_missing_values_count_neither_above_nor_below() -> None:
    scores = torch.tensor([[1.0, 5.0], [7.0, 2.0]], requires_grad=True)
    targets = torch.tensor([[0.0, float("nan")], [float("nan"), 0.0]])
    loss = l1_loss(scores, targets, torch.tensor([1.0, 2.0]))
    assert loss.item() == pytest.approx((1 + 2 * 2) / 3)
    loss.backward()
    assert scores.grad.tolist() == [[pytest.approx(1 / 3), 0], [0, pytest.approx(2 / 3)]]


def test_a_batch_without_any_value_has_no_gradient() -> None:
    scores = torch.ones(3, 2, requires_grad=True)
    loss = l1_loss(scores, torch.full((3, 2), float("nan")), torch.ones(2))
    loss.backward()
    assert loss.item() == 0
    assert scores.grad.abs().sum() == 0


def test_a_molecule_without_values_changes_no_gradient(parts) -> None:
    """The gradient of a batch is that of the batch without the molecules that have no target."""
    data = parts[0].subset(np.arange(12))
    known = np.arange(12) % 3 != 0
    targets = torch.from_numpy(np.nan_to_num(data.targets))
    gradients = []
    for rows in (np.arange(12), np.flatnonzero(known)):
        model = new_model()
        wanted = torch.where(torch.from_numpy(known)[:, None], targets, torch.nan)[torch.from_numpy(rows)]
        l1_loss(model(data.graphs.select(rows).batch()), wanted, torch.tensor(WEIGHTS)).backward()
        gradients.append([p.grad for p in model.parameters()])
    for got, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("change", [{"epochs": 0}, {"batch_size": 0}, {"seed": -1}])
def test_impossible_settings_are_refused(change: dict) -> None:
    (name,) = change
    with pytest.raises(InputError, match=f"{name}: got {change[name]}, expected"):
        FitSettings(**{"epochs": 1, **change})
