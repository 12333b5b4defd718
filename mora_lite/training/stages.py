"""The stages of training: networks fitted one after the other, each with its checkpoint.

The encoder's stage may be several networks, and one that learns the mean of their answers (distillation, arXiv
1503.02531): one network is as fast as any other, and nearly as good as the mean.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from ..adapter.encoder import EncoderBaseline, GraphEncoder
from ..machine.files import write_tensors
from .dataset import Dataset
from .loop import TrainConfig, TrainProgress, fit, predict_scores
from .losses import TargetStats, distilled
from .provenance import EpochLog, data_digest, weights_digest
from .recipe import Recipe

OnProgress = Callable[[str, TrainProgress], None]
# Of a network that has learnt all tasks and goes on with one; weights that are worse than its own are not kept.
OWN = TrainConfig(epochs=1, batch_size=64, peak_lr=3e-4, warmup_steps=20, ema_decay=0.98, dropout=0.1, huber=1.0)


@dataclass(frozen=True)
class Stages:
    """What every stage of training has in common.

    train, valid: targets are z-scores, or 0 and 1 for classes. run: folder of the checkpoints.
    done: what the pack records of each stage so far.
    """

    train: Dataset
    valid: Dataset
    stats: TargetStats
    run: Path
    device: torch.device
    on_progress: OnProgress
    done: list[dict[str, Any]] = field(default_factory=list)

    def at_tasks(self, tasks: np.ndarray) -> Stages:
        """The stages that follow, with these columns of targets, int64."""
        train, valid = self.train.at_tasks(tasks), self.valid.at_tasks(tasks)
        return replace(self, train=train, valid=valid, stats=self.stats.at_tasks(tasks))

    def fit(self, name: str, model: torch.nn.Module, config: TrainConfig, origin: str) -> None:
        """Train `model` in place. origin: see `loop.fit`."""
        config = shrink_batch(config, len(self.train))
        on_progress = partial(self.on_progress, name)
        last = fit(model, self.train, self.valid, self.stats, config, self.run / name, self.device, on_progress, origin)
        per_epoch = len(self.train) // config.batch_size
        curve = EpochLog(self.run / name).curve(per_epoch)
        done = {"stage": name, "epochs": last.step // per_epoch, "best_error": last.best_error}
        self.done.append(done | {"curve": curve})

    def answers(self, name: str, model: torch.nn.Module) -> Tensor:
        """Scores of the training molecules, float32 `[N, P]`; kept in that stage's folder, as they take a while."""
        path = self.run / name / "answers.safetensors"
        digest = data_digest(self.train, self.valid, self.stats, weights_digest(model))
        if path.exists():
            with safe_open(path, "pt") as file:
                if file.metadata()["digest"] == digest:
                    return file.get_tensor("scores")
        scores = predict_scores(model, self.train, self.device)
        write_tensors(path, {"scores": scores}, {"digest": digest})
        return scores


def fit_encoder(encoder: GraphEncoder, recipe: Recipe, stages: Stages) -> tuple[EncoderBaseline, Stages]:
    """The stage of the encoder alone, and the stages that follow.

    Where there are several networks, `recipe.members`, it and all that follow learn from their answers.
    """
    model, config = EncoderBaseline(encoder, len(recipe.tasks)), recipe.encoder
    if recipe.members > 1:
        config = replace(config, epochs=recipe.distill_epochs or config.epochs)
        model, scores = fit_members(encoder, recipe, stages)
        targets = distilled(torch.from_numpy(stages.train.targets), scores, stages.stats)
        stages = replace(stages, train=replace(stages.train, targets=targets.numpy()))
    stages.fit("encoder", model, config, weights_digest(model))
    return model, stages


def fit_members(encoder: GraphEncoder, recipe: Recipe, stages: Stages) -> tuple[EncoderBaseline, Tensor]:
    """The last of the networks, and the mean of all their answers: float32 `[N, P]`."""
    scores = torch.zeros(())
    for i in range(recipe.members):
        config, name = replace(recipe.encoder, seed=recipe.encoder.seed + i + 1), f"member {i + 1}"
        torch.manual_seed(config.seed)
        model = EncoderBaseline(copy.deepcopy(encoder), len(recipe.tasks))
        stages.fit(name, model, config, weights_digest(model))
        answers = stages.answers(name, model)
        for p, task in enumerate(recipe.tasks):
            if task.own_epochs:
                own = replace(OWN, epochs=task.own_epochs, seed=config.seed)
                answers[:, p] = (answers[:, p] + own_answers(model, p, f"{name} task {p + 1}", own, stages)) / 2
        scores = scores + answers / recipe.members
    return model, scores


def own_answers(model: EncoderBaseline, task: int, name: str, config: TrainConfig, stages: Stages) -> Tensor:
    """What a copy of `model` answers for a task once it went on with the molecules of this task alone, `[N]`."""
    one = copy.deepcopy(model)
    one.select([task])
    stages.at_tasks(np.array([task])).fit(name, one, config, weights_digest(one))
    return stages.answers(name, one)[:, 0]


def shrink_batch(settings: TrainConfig, n_train: int) -> TrainConfig:
    """At least eight batches in an epoch, so that small tables train too."""
    return replace(settings, batch_size=max(1, min(settings.batch_size, n_train // 8)))
