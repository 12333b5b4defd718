"""The training loop: it learns, it can be killed and started again, and missing values take no part."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mora_lite.adapter.encoder import EncoderBaseline, GraphEncoder
from mora_lite.errors import InputError
from mora_lite.training import loop
from mora_lite.training.dataset import Dataset
from mora_lite.training.loop import TrainConfig, TrainProgress, fit, validate
from mora_lite.training.losses import TargetStats, task_loss

CPU = torch.device("cpu")
NAN = float("nan")
SETTINGS = TrainConfig(epochs=4, batch_size=8, peak_lr=1e-2, warmup_steps=5)
WEIGHTS = [1.0, 2.0]


@pytest.fixture(scope="module")
def parts(dataset: Dataset) -> tuple[Dataset, Dataset]:
    """40 molecules to learn from and 20 to look at, as z-scores; some values are missing."""
    known = dataset.targets - np.nanmean(dataset.targets, axis=0)
    scaled = replace(dataset, targets=known / np.nanstd(known, axis=0))
    return scaled.subset(np.arange(40)), scaled.subset(np.arange(40, 60))


def stats_of(data: Dataset, weights: list[float] = WEIGHTS) -> TargetStats:
    """Of two columns of values."""
    return TargetStats.of(data.targets, [False, False], weights)


def new_model(seed: int = 0) -> EncoderBaseline:
    torch.manual_seed(seed)
    return EncoderBaseline(GraphEncoder(16, 1), 2)


def train(
    model: nn.Module, parts: tuple[Dataset, Dataset], folder: Path, settings: TrainConfig = SETTINGS, **options
) -> list[TrainProgress]:
    """The report of each epoch."""
    seen: list[TrainProgress] = []
    stats = options["stats"] if "stats" in options else stats_of(parts[0], options.get("weights", WEIGHTS))
    fit(model, *parts, stats, settings, folder, CPU, seen.append, options.get("origin", ""))
    return [progress for progress in seen if progress.epoch_done]


def same_weights(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_without_validation_molecules_the_last_weights_are_kept(parts: tuple[Dataset, Dataset], tmp_path: Path) -> None:
    nobody = parts[1].at(np.arange(0))
    start, model = new_model(), new_model()
    progress = train(model, (parts[0], nobody), tmp_path)
    assert np.isnan(progress[-1].best_error)
    assert not same_weights(model, start)


def killed(
    model: nn.Module,
    parts: tuple[Dataset, Dataset],
    folder: Path,
    training_steps: int,
    settings: TrainConfig = SETTINGS,
) -> None:
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
        train(model, parts, folder, settings)
    hook.remove()


# --- resuming


@pytest.mark.parametrize(("steps", "dropout"), [(3, 0.0), (10, 0.0), (13, 0.0), (13, 0.2), (19, 0.0)])
def test_a_killed_run_goes_on_to_the_same_weights(parts, tmp_path: Path, steps: int, dropout: float) -> None:
    """Five steps to an epoch: killed within the first, between two, within a later one, and in the last."""
    settings = replace(SETTINGS, dropout=dropout)
    straight = new_model()
    expected = train(straight, parts, tmp_path / "straight", settings)
    killed(new_model(), parts, tmp_path / "killed", steps, settings)
    resumed = new_model()
    torch.manual_seed(99)
    seen = train(resumed, parts, tmp_path / "killed", settings)
    assert same_weights(resumed, straight)
    assert not same_weights(straight, new_model()), "it has learnt something"
    assert [p.step for p in seen] == [5, 10, 15, 20][steps // 5 :]
    assert [p.valid_error for p in seen] == [p.valid_error for p in expected][steps // 5 :]


def test_the_start_does_not_matter_when_resuming(parts, tmp_path: Path) -> None:
    straight, other = new_model(), new_model(seed=9)
    train(straight, parts, tmp_path / "a")
    assert train(other, parts, tmp_path / "a") == [], "all is done"
    assert same_weights(other, straight)


def test_a_finished_run_still_tells_its_error(parts, tmp_path: Path) -> None:
    seen = train(new_model(), parts, tmp_path)
    again = fit(new_model(), *parts, stats_of(parts[0]), SETTINGS, tmp_path, CPU)
    assert again.step == again.n_steps == 20
    assert again.valid_error == seen[-1].valid_error
    assert again.best_error == min(p.valid_error for p in seen)


@pytest.mark.parametrize("change", ["settings", "targets", "molecules", "graphs", "validation", "weights", "origin"])
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
    elif change == "graphs":  # other ones for the same SMILES, as another `standardize` makes them
        data = replace(data, graphs=data.graphs.select([1, *range(1, 40)]))
    elif change == "validation":
        valid = replace(valid, targets=valid.targets * 1.5)
    elif change == "weights":
        weights = [1.0, 1.0]
    origin = "another encoder" if change == "origin" else ""
    seen = train(new_model(), (data, valid), tmp_path, settings, weights=weights, origin=origin)
    assert len(seen) == 4


def test_no_half_written_checkpoint_stays(parts, tmp_path: Path) -> None:
    train(new_model(), parts, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.safetensors", "log.jsonl"]
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log] == [5, 10, 15, 20]


def test_long_epochs_report_within(parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "SECONDS_BETWEEN_REPORTS", -1.0)
    seen: list[TrainProgress] = []
    fit(new_model(), *parts, stats_of(parts[0]), replace(SETTINGS, epochs=2), tmp_path, CPU, seen.append)
    assert [(p.step, p.epoch_done) for p in seen] == [
        *((step, False) for step in range(1, 6)),
        (5, True),
        *((step, False) for step in range(6, 11)),
        (10, True),
    ]
    within = [p for p in seen if not p.epoch_done]
    start, stats = new_model(), stats_of(parts[0])
    assert within[0].valid_error == validate(start, dict(start.named_parameters()), parts[1], stats, CPU)
    assert within[5].valid_error == seen[5].valid_error, "that of the last whole epoch"
    assert all(p.loss > 0 and p.mol_per_s > 0 for p in seen)
    assert (within[0].seconds_left > 0, within[-1].seconds_left) == (True, 0)


# --- batches made ahead, in another thread


def test_batches_are_the_molecules_of_the_order_a_batch_at_a_time(parts) -> None:
    data, order = parts[0], np.random.default_rng(0).permutation(40)
    batches = list(loop._batches(data, order, 12, lambda batch, targets: (batch, targets)))
    assert len(batches) == 3, "four molecules are left over"
    for at, (batch, targets) in enumerate(batches):
        rows = np.sort(order[12 * at : 12 * at + 12])
        assert np.array_equal(targets.numpy(), data.targets[rows], equal_nan=True)
        expected = data.graphs.select(rows).batch()
        assert all(torch.equal(getattr(batch, name), getattr(expected, name)) for name in batch.tensors)


def test_no_thread_outlives_a_run(parts, tmp_path: Path) -> None:
    before = threading.active_count()
    train(new_model(), parts, tmp_path / "whole")
    assert threading.active_count() == before
    killed(new_model(), parts, tmp_path / "killed", 7)
    assert threading.active_count() == before


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_captured_step_learns_what_a_plain_one_does(parts, tmp_path: Path) -> None:
    on_cpu = train(new_model(), parts, tmp_path / "cpu")
    on_gpu: list[TrainProgress] = []
    fit(new_model(), *parts, stats_of(parts[0]), SETTINGS, tmp_path / "gpu", torch.device("cuda"), on_gpu.append)
    on_gpu = [progress for progress in on_gpu if progress.epoch_done]
    assert [p.loss for p in on_gpu] == pytest.approx([p.loss for p in on_cpu], rel=0.05)
    assert [p.valid_error for p in on_gpu] == pytest.approx([p.valid_error for p in on_cpu], rel=0.05)


# --- learning


def test_it_learns_a_few_molecules_by_heart(parts, tmp_path: Path) -> None:
    few = parts[0].subset(np.arange(16))
    settings = TrainConfig(epochs=60, batch_size=16, peak_lr=1e-2, ema_decay=0.8)
    seen = train(new_model(), (few, few), tmp_path, settings)
    assert seen[-1].loss < 0.3 * seen[0].loss
    assert seen[-1].valid_error < 0.3
    assert all(p.mol_per_s > 0 for p in seen)
    assert seen[-1].seconds_left == 0


def test_the_averaged_weights_are_what_is_validated_and_kept(parts, tmp_path: Path) -> None:
    model, stats = new_model(), stats_of(parts[0])
    seen = train(model, parts, tmp_path, replace(SETTINGS, ema_decay=0.5))
    assert not model.training
    kept = dict(model.named_parameters())
    assert validate(model, kept, parts[1], stats, CPU) == pytest.approx(seen[-1].best_error, rel=1e-6)
    last = new_model()
    train(last, parts, tmp_path / "last", replace(SETTINGS, ema_decay=0.0))
    assert not same_weights(model, last), "decay 0 keeps the last weights, decay 0.5 an average"


def test_dropout_is_for_training_only(parts, tmp_path: Path) -> None:
    plain, dropped = new_model(), new_model()
    train(plain, parts, tmp_path / "plain")
    seen = train(dropped, parts, tmp_path / "dropped", replace(SETTINGS, dropout=0.2))
    assert not same_weights(plain, dropped)
    kept, stats = dict(dropped.named_parameters()), stats_of(parts[0])
    errors = [validate(dropped, kept, parts[1], stats, CPU) for _ in range(2)]
    assert errors == pytest.approx([min(p.valid_error for p in seen)] * 2, rel=1e-6)


# --- which epoch is kept, and when it stops


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch):
    """Makes these errors those of the epochs to come; returns a list that gets the weights of each."""

    def judged(*errors: float) -> list[dict[str, Tensor]]:
        left, weights = list(errors), []

        def validate(_model: object, mean: dict[str, Tensor], *_: object) -> float:
            weights.append({name: p.clone() for name, p in mean.items()})
            return left.pop(0)

        monkeypatch.setattr(loop, "validate", validate)
        return weights

    return judged


def is_epoch(model: nn.Module, weights: dict[str, Tensor]) -> bool:
    return all(torch.equal(p, weights[name]) for name, p in model.named_parameters())


@pytest.mark.parametrize(
    ("errors", "kept", "best"),
    [
        ([5, 4, 3, 2, 1], 4, [4, 3, 2, 1]),
        ([5, 4, 1, 2, 3], 2, [4, 1, 1, 1]),
        ([5, 1, 1, 1, 1], 1, [1, 1, 1, 1]),
        ([1, 2, 3, 4, 5], 0, [1, 1, 1, 1]),  # the start was better than all that followed
        ([5, 4, 1, np.nan, np.nan], 2, [4, 1, 1, 1]),  # training diverged
        ([np.nan] * 5, 4, [np.nan] * 4),  # no molecule to validate with has a value
    ],
)
def test_the_weights_of_the_best_epoch_are_kept(
    parts, tmp_path: Path, judged, errors: list[float], kept: int, best: list[float]
) -> None:
    """errors: before training, then of each epoch."""
    weights, model = judged(*errors), new_model()
    seen = train(model, parts, tmp_path)
    assert [p.best_error for p in seen] == pytest.approx(best, nan_ok=True)
    assert is_epoch(model, weights[kept])
    assert is_epoch(new_model(), weights[0])


def test_the_start_is_no_candidate_where_it_may_not_be_kept(parts, tmp_path: Path, judged) -> None:
    weights, model = judged(3, 1, 2, 2), new_model()
    seen = train(model, parts, tmp_path, replace(SETTINGS, keep_start=False))
    assert [p.best_error for p in seen] == [3, 1, 1, 1]
    assert is_epoch(model, weights[1])
    assert not is_epoch(new_model(), weights[0]), "the first to be judged is the first epoch"


def test_patience_ends_a_run_that_makes_no_progress(parts, tmp_path: Path, judged) -> None:
    weights, model = judged(5, 3, 1, 2, 2), new_model()
    patient = replace(SETTINGS, epochs=9, patience=2)
    assert [p.step for p in train(model, parts, tmp_path, patient)] == [5, 10, 15, 20]
    assert is_epoch(model, weights[2])
    again = new_model()
    assert train(again, parts, tmp_path, patient) == [], "and it stays ended"
    assert same_weights(again, model)


def test_a_resumed_run_remembers_its_best_epoch_and_its_patience(parts, tmp_path: Path, judged) -> None:
    patient = replace(SETTINGS, epochs=9, patience=2)

    def stop(progress: TrainProgress) -> None:
        if progress.step == 10:
            raise KeyboardInterrupt

    weights = judged(5, 1, 2)
    with pytest.raises(KeyboardInterrupt):
        fit(new_model(), *parts, stats_of(parts[0]), patient, tmp_path, CPU, stop)
    judged(3)
    resumed = new_model()
    (last,) = train(resumed, parts, tmp_path, patient)
    assert (last.step, last.valid_error, last.best_error) == (15, 3, 1)
    assert is_epoch(resumed, weights[1])


def test_weights_that_training_drives_to_infinity_are_not_kept(parts, tmp_path: Path) -> None:
    data = replace(parts[0], targets=(parts[0].targets > 0).astype(np.float32))
    stats = TargetStats.of(data.targets, [True, True], WEIGHTS)
    wild, model = replace(SETTINGS, peak_lr=1e30), new_model()
    seen = train(model, (data, data), tmp_path, wild, stats=stats)
    assert np.isnan(seen[-1].valid_error)
    assert same_weights(model, new_model())
    with pytest.raises(InputError, match="weights of its best epoch are not finite; lower peak_lr"):
        train(new_model(), (data, data), tmp_path, replace(wild, keep_start=False), stats=stats)


def test_an_encoder_can_learn_more_slowly(parts, tmp_path: Path) -> None:
    model = new_model()
    few = parts[0]
    train(model, (few, few), tmp_path, replace(SETTINGS, encoder_lr_scale=0.0))
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
    assert validate(Zero(), {}, valid, stats_of(parts[0]), CPU) == pytest.approx(((14 / 3) ** 0.5 + 4) / 2)


def test_classes_and_values_are_learnt_side_by_side(parts, tmp_path: Path) -> None:
    few = parts[0].subset(np.arange(16))
    targets = np.stack([few.targets[:, 0], few.targets[:, 0] > np.median(few.targets[:, 0])], axis=1).astype(np.float32)
    few = replace(few, targets=targets)
    stats = TargetStats.of(targets, [False, True], [1.0, 1.0])
    settings = TrainConfig(epochs=60, batch_size=16, peak_lr=1e-2, ema_decay=0.8)
    seen = train(new_model(), (few, few), tmp_path, settings, stats=stats)
    assert seen[0].valid_error > 0.6
    assert seen[-1].best_error < 0.3


def test_a_class_is_no_value_when_resuming(parts, tmp_path: Path) -> None:
    data = replace(parts[0], targets=(parts[0].targets > 0).astype(np.float32))
    kinds = [TargetStats.of(data.targets, [kind, kind], WEIGHTS) for kind in (True, False)]
    assert [len(train(new_model(), (data, data), tmp_path, stats=stats)) for stats in kinds] == [4, 4]


# --- missing values and settings


def test_a_molecule_without_values_changes_no_gradient(parts) -> None:
    """The gradient of a batch is that of the batch without the molecules that have no target."""
    data = parts[0].subset(np.arange(12))
    known = np.arange(12) % 3 != 0
    targets = torch.from_numpy(np.nan_to_num(data.targets))
    gradients = []
    for rows in (np.arange(12), np.flatnonzero(known)):
        model = new_model()
        wanted = torch.where(torch.from_numpy(known)[:, None], targets, torch.nan)[torch.from_numpy(rows)]
        task_loss(model(data.graphs.select(rows).batch()), wanted, stats_of(data)).backward()
        gradients.append([p.grad for p in model.parameters()])
    for got, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "change",
    [
        *({"epochs": 0}, {"batch_size": 0}, {"patience": -1}, {"huber": -1}, {"warmup_steps": -1}),
        *({"seed": -1}, {"seed": 2**32}, {"dropout": 1.0}, {"dropout": -0.1}, {"ema_decay": 1.0}, {"clip_norm": -1.0}),
        *({"peak_lr": -1.0}, {"peak_lr": NAN}, {"weight_decay": np.inf}, {"encoder_lr_scale": NAN}),
    ],
)
def test_impossible_settings_are_refused(change: dict) -> None:
    (name,) = change
    with pytest.raises(InputError, match=f"{name}: got {change[name]}, expected"):
        TrainConfig(**{"epochs": 1, **change})
