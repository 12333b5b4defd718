"""What is recorded of a stage of training: its curve, also of a run that was killed and resumed; and its batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mora_lite.adapter.encoder import EncoderBaseline, GraphEncoder
from mora_lite.training import loop
from mora_lite.training.dataset import Dataset
from mora_lite.training.loop import TrainConfig
from mora_lite.training.losses import TargetStats
from mora_lite.training.provenance import EpochLog
from mora_lite.training.stages import Stages, shrink_batch

CONFIG = TrainConfig(epochs=4, batch_size=8, warmup_steps=5)


@pytest.fixture
def fitted(dataset: Dataset) -> Callable[..., list[list[float | None]]]:
    """Trains in a folder and returns the curve that is recorded."""
    targets = dataset.targets - np.nanmean(dataset.targets, axis=0)
    data = replace(dataset, targets=targets / np.nanstd(targets, axis=0))
    train, valid = data.at(np.arange(40)), data.at(np.arange(40, 50))
    stats = TargetStats.of(train.targets, [False] * targets.shape[1], [1.0] * targets.shape[1])

    def fit(folder: Path, config: TrainConfig = CONFIG) -> list[list[float | None]]:
        stages = Stages(train, valid, stats, folder, torch.device("cpu"), lambda *_: None)
        torch.manual_seed(0)
        stages.fit("encoder", EncoderBaseline(GraphEncoder(16, 1), targets.shape[1]), config, "")
        return stages.done[0]["curve"]

    return fit


def test_each_epoch_has_its_loss_and_its_error(fitted, tmp_path: Path) -> None:
    curve = fitted(tmp_path)
    assert [epoch for epoch, _, _ in curve] == [1, 2, 3, 4]
    assert all(loss > 0 and error > 0 for _, loss, error in curve)
    assert fitted(tmp_path) == curve, "of a finished run it is read again"


@pytest.mark.parametrize("at", [1, 3])
def test_a_killed_run_goes_on_with_its_curve(fitted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """Killed when an epoch is in the log and not yet in the checkpoint."""
    straight, save, saved = fitted(tmp_path / "straight"), loop.RunState.save, []

    def die(self, path: Path, step: int) -> None:
        saved.append(step)
        if len(saved) == at:
            raise KeyboardInterrupt
        save(self, path, step)

    monkeypatch.setattr(loop.RunState, "save", die)
    with pytest.raises(KeyboardInterrupt):
        fitted(tmp_path / "killed")
    assert fitted(tmp_path / "killed") == straight


def test_another_run_in_the_same_folder_starts_a_curve_of_its_own(fitted, tmp_path: Path) -> None:
    fitted(tmp_path)
    assert [epoch for epoch, _, _ in fitted(tmp_path, replace(CONFIG, epochs=2, peak_lr=1e-4))] == [1, 2]


def test_a_log_that_was_cut_off_or_deleted_stops_nothing(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    assert EpochLog(tmp_path).curve(5) == []
    log.write_text('{"step": 5, "loss": 0.123456, "valid_error": NaN}\n{"step": 10, "lo{"step": 10, "loss"')
    assert EpochLog(tmp_path).curve(5) == [[1, 0.1235, None]]


@pytest.mark.parametrize(("rows", "size"), [(3, 1), (32, 4), (4096, 512), (110_000, 512)])
def test_small_tables_get_small_batches(rows: int, size: int) -> None:
    assert shrink_batch(TrainConfig(epochs=1), rows).batch_size == size
