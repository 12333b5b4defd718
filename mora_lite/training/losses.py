"""The loss of training and the error of validation, over values and classes side by side, with missing cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor, nn

from ..scoring.conformal import Platt

MAX_POSITIVE_WEIGHT = 10.0


@dataclass(frozen=True)
class TargetStats:
    """Kinds, weights and class frequencies of the `P` columns of a target array; all tensors have the shape `[P]`.

    weights: float32, weight of each task in the loss.
    classes: bool, True where targets are 0 or 1.
    prior: float32, log-odds of the training positives; a class's score is added to it. 0 for values.
    positive_weight: float32, weight of a positive cell in the loss. 1 for values.
    auxiliary: bool, True for what trains but is not validated.
    """

    weights: Tensor
    classes: Tensor
    prior: Tensor
    positive_weight: Tensor
    auxiliary: Tensor

    @classmethod
    def of(
        cls, targets: np.ndarray, classes: Sequence[bool], weights: Sequence[float], auxiliary: Sequence[bool] = ()
    ) -> TargetStats:
        """targets: float32 `[N, P]` of the training set. A class needs both a 0 and a 1 there.

        A positive counts sqrt(negatives / positives) times, at most 10, where positives are the rarer ones: enough for
        a rare class to be learnt, little enough for the probabilities to be calibrated afterwards.
        """
        is_class = np.array(classes, dtype=bool)
        prior, positive = np.zeros(len(classes)), np.ones(len(classes))
        for p in np.flatnonzero(is_class):
            share = float(np.nanmean(targets[:, p], dtype=np.float64))
            assert 0 < share < 1, f"column {p}: one class only"
            prior[p] = np.log(share / (1 - share))
            positive[p] = np.clip(np.sqrt((1 - share) / share), 1, MAX_POSITIVE_WEIGHT)
        return cls(
            torch.tensor(weights, dtype=torch.float32),
            torch.from_numpy(is_class),
            torch.tensor(prior, dtype=torch.float32),
            torch.tensor(positive, dtype=torch.float32),
            torch.tensor(auxiliary or [False] * len(classes)),
        )

    def to(self, device: torch.device) -> TargetStats:
        return TargetStats(*(getattr(self, field.name).to(device) for field in fields(self)))

    def at_tasks(self, tasks: np.ndarray) -> TargetStats:
        """Those of these columns, int64."""
        return TargetStats(*(getattr(self, field.name)[tasks] for field in fields(self)))


def task_loss(scores: Tensor, targets: Tensor, stats: TargetStats, huber: float = 0.0) -> Tensor:
    """float32 scalar: weighted mean over the cells of `[B, P]` whose target is known.

    Values: |score - target| in deviations; with `huber` > 0 squared below that many deviations (smooth L1), which aims
    at the mean and not at the median. Classes: cross-entropy of the log-odds `score + prior`. Counting positives w
    times multiplies the odds that fit best by w; they are multiplied before, so scores stay those of the true odds.
    """
    known = ~torch.isnan(targets)
    scores, truth = scores.float(), torch.nan_to_num(targets)
    if huber:
        error = nn.functional.smooth_l1_loss(scores, truth, beta=huber, reduction="none")
    else:
        error = (scores - truth).abs()
    entropy = nn.functional.binary_cross_entropy_with_logits(
        scores + stats.prior + stats.positive_weight.log(),
        truth.clamp(0, 1),
        pos_weight=stats.positive_weight,
        reduction="none",
    )
    error = torch.where(stats.classes, entropy, error)
    weights = known * stats.weights
    return (error * weights).sum() / weights.sum().clamp(min=1e-6)


def distilled(targets: Tensor, scores: Tensor, stats: TargetStats) -> Tensor:
    """Targets float32 `[N, P]` for a network that learns from others: their mean score, and half of it where measured.

    targets: z-scores, and 0 and 1; NaN where unknown. scores: the mean over the others, float32 `[N, P]`.
    Of a class the target is the probability of a yes.
    """
    learnt = torch.where(stats.classes, torch.sigmoid(scores + stats.prior), scores)
    return torch.where(torch.isnan(targets), learnt, (targets + learnt) / 2)


def validation_error(scores: Tensor, targets: Tensor, stats: TargetStats) -> float:
    """Mean error over tasks, lower is better; 1 is about what the training mean alone would give.

    Values: root mean square error in deviations. Classes: cross-entropy after Platt's calibration, which a pack gets in
    the end anyway, over that of the share: a model that ranks well is not rejected for being too sure of itself.
    Auxiliary tasks, those without a known cell, and classes of which only one is there, are left out; NaN when nothing
    is left, and for scores that are not finite.
    """
    errors = []
    predicted, truth = scores.float().cpu().numpy(), targets.float().cpu().numpy()
    if not np.isfinite(predicted).all():
        return float("nan")
    logits = predicted + stats.prior.cpu().numpy()
    for p, is_class in enumerate(stats.classes.tolist()):
        if stats.auxiliary[p]:
            continue
        known = ~np.isnan(truth[:, p])
        y = truth[known, p]
        if is_class and 0 < y.sum() < len(y):
            share = float(y.mean())
            plain = -(share * np.log(share) + (1 - share) * np.log(1 - share))
            probability = Platt.fit(logits[known, p], y).probability(logits[known, p]).clip(1e-7, 1 - 1e-7)
            entropy = -np.where(y == 1, np.log(probability), np.log1p(-probability)).mean(dtype=np.float64)
            errors.append(float(entropy / plain))
        elif not is_class and len(y):
            errors.append(float(np.sqrt(np.square(predicted[known, p] - y).mean(dtype=np.float64))))
    return float(np.mean(errors)) if errors else float("nan")
