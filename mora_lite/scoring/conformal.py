"""Intervals and probabilities with the coverage they state, fitted on molecules the model was not trained on.

Numbers get split-conformal intervals (Papadopoulos et al. 2002; Lei et al. 2018). For new molecules from the same
distribution as the calibration molecules they hold the true value with the stated confidence, however poor the model.
They are normalised (Papadopoulos et al. 2011) by the error that is usual at a molecule's similarity to the training
molecules, so they hold among near molecules as among far ones. Yes/no tasks get Platt's calibration (Platt 1999).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

# Steps of similarity, each with an error of its own. What equals a training molecule in its fingerprint is a step too:
# it may be one that the fingerprint cannot tell apart, which is harder than molecules at 0.95.
STEP_EDGES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
MIN_PER_STEP = 50  # calibration molecules; steps with fewer are joined with the next farther one
MIN_FARTHEST = 10  # enough to tell that molecules unlike all others are worse, if by how much only roughly
CLEAR = 1.0  # standard errors by which near molecules must be worse than far ones before it is believed
ERROR_FLOOR = 1e-3  # of the mean error, the least of a step
FOLDS = 10
TRAINING_ROWS = 2000  # training molecules whose errors a pack keeps for each task, or all if there are fewer
NO_ERRORS = np.empty(0, np.float32)

INTERVAL_TENSORS = ("similarity", "log_sigma", "scores", "training")

MIN_SLOPE = 0.05  # above 0: calibration never reverses the model's order of molecules
NEWTON_STEPS = 100


def check_confidence(confidence: float) -> float:
    """`confidence` itself. Raises `InputError` when it is not between 0 and 1, both excluded."""
    if not isinstance(confidence, Real) or not 0 < confidence < 1:
        raise InputError(f"confidence: got {confidence!r}, expected a number above 0 and below 1, for instance 0.9")
    return confidence


@dataclass(frozen=True, eq=False)
class Intervals:
    """Error bars of one task: half the width is sigma times a quantile of the scores, or that of `training` if larger.

    similarity: float64 `[S]`, ascending, 0 to 1.
    log_sigma: float64 `[S]`, the natural logarithm of sigma, the usual |error| on the task's scale, at these
        similarities. It is linear between them and constant beyond them: it is not known to fall or rise there.
    scores: float32 `[n]`, ascending, `|error| / sigma` of the calibration molecules. (With one step, sigma is 1 and the
        scores are errors on the task's scale.)
    training: float32 `[T]`, ascending, |error| of training molecules on the task's scale: the floor of the width, since
        what the model has been told it knows at least as well as anything else. Without any there is no floor.
    """

    similarity: np.ndarray
    log_sigma: np.ndarray
    scores: np.ndarray
    training: np.ndarray = field(default_factory=NO_ERRORS.copy)

    def __post_init__(self) -> None:
        assert self.similarity.shape == self.log_sigma.shape
        assert len(self.similarity) > 0
        assert all(getattr(self, name).ndim == 1 for name in INTERVAL_TENSORS)

    @classmethod
    def fit(
        cls, predicted: np.ndarray, truth: np.ndarray, similarity: np.ndarray, training_error: np.ndarray = NO_ERRORS
    ) -> Intervals:
        """Fit to calibration molecules; with fewer than 100 all intervals have one width.

        Sigma is the mean |error| of each step of similarity, made to grow with the distance by isotonic regression
        (`_pooled_means`) and raised by its standard error. The score of a molecule is taken with the sigma of the other
        nine tenths of the molecules: a molecule that helps to set its own sigma is easier than a new one.

        predicted: float `[N]`, on the task's scale.
        truth: float `[N]`, likewise; NaN is left out, and it is no error when nothing remains.
        similarity: float `[N]`, 0 to 1, from `Domain.similarity`.
        training_error: float `[T]`, prediction - truth of training molecules (a random part will do); NaN is left out.
        """
        training = np.sort(np.abs(training_error[~np.isnan(training_error)])).astype(np.float32)
        known = ~np.isnan(truth)
        error = np.abs(truth[known].astype(np.float64) - predicted[known])
        near = similarity[known].astype(np.float64)
        assert np.isfinite(error).all()
        assert np.isfinite(near).all()
        step = _steps(near)
        if not error.any() or step.max() == 0:
            return cls(np.zeros(1), np.zeros(1), np.sort(error).astype(np.float32), training)
        at = np.bincount(step, near) / np.bincount(step)
        least = ERROR_FLOOR * error.mean()
        fold = np.empty(len(near), np.int64)
        fold[np.argsort(near, kind="stable")] = np.arange(len(near)) % FOLDS  # each has its part of every step
        scores = np.empty_like(error)
        for own in (fold == i for i in range(FOLDS)):
            scores[own] = error[own] / np.exp(np.interp(near[own], at, _log_sigma(error[~own], step[~own], least)))
        return cls(at, _log_sigma(error, step, least), np.sort(scores).astype(np.float32), training)

    @classmethod
    def of_growth(cls, b: float, scores: np.ndarray) -> Intervals:
        """Those of packs made before sigma had steps: `sigma = exp(b * (1 - similarity))`."""
        return cls(np.array([0.0, 1.0]), np.array([b, 0.0]), scores)

    def half_width(self, similarity: np.ndarray, confidence: float) -> np.ndarray:
        """Half the width of the interval round each prediction: float32 `[B]`, on the task's scale.

        It is sigma times the ceil((n + 1) * confidence)-th smallest of the n scores; infinite when n is too small for
        that. It is at least the same quantile of `training`, two standard errors of `TRAINING_ROWS` molecules higher,
        so that it holds for all training molecules and not only for those kept.

        similarity: float `[B]`. Raises `InputError` when `confidence` is not between 0 and 1.
        """
        score = self.score_at(check_confidence(confidence))
        sigma = np.exp(np.interp(similarity.astype(np.float64), self.similarity, self.log_sigma))
        return np.maximum(sigma * score, self.floor_at(confidence)).astype(np.float32)

    def score_at(self, confidence: float) -> float:
        """What `half_width` multiplies sigma by."""
        # In floating point, 100 * 0.55 is a little above 55.
        rank = max(1, math.ceil((len(self.scores) + 1) * confidence - 1e-9))
        return float(self.scores[rank - 1]) if rank <= len(self.scores) else math.inf

    def floor_at(self, confidence: float) -> float:
        """The least that `half_width` gives, on the task's scale."""
        n = len(self.training)
        if n == 0:
            return 0.0
        share = confidence + 2 * math.sqrt(confidence * (1 - confidence) / TRAINING_ROWS)
        return float(self.training[min(math.ceil(n * share), n) - 1])


def _steps(similarity: np.ndarray) -> np.ndarray:
    """The step of each molecule: int64 `[n]`, 0 the farthest. It depends on similarities alone, not on errors.

    Each step has `MIN_PER_STEP` molecules or is the only one; the farthest may have as few as `MIN_FARTHEST`.
    similarity: float64 `[n]`.
    """
    in_bin = np.digitize(similarity, STEP_EDGES)
    counts = np.bincount(in_bin, minlength=len(STEP_EDGES) + 1)
    starts: list[int] = []  # the first bin of each step, the nearest step first
    n = 0
    for i in reversed(range(len(counts))):
        n += counts[i]
        if n >= MIN_PER_STEP:
            starts.append(i)
            n = 0
    # What is left over at the far end joins the step before it, or is one: the farthest molecules are the hardest.
    own_step = len(starts) > 1 and n >= MIN_FARTHEST
    return np.searchsorted(np.sort(starts if own_step else starts[:-1]), in_bin, side="right")


def _log_sigma(error: np.ndarray, step: np.ndarray, least: float) -> np.ndarray:
    """`Intervals.log_sigma`; error: float64 `[n]`; step: int64 `[n]`; least: above 0, for steps without an error.

    The mean of few molecules is known less well, which costs coverage as a random width does. It is raised by its
    standard error, about 1 / sqrt(n) of it: errors deviate by about as much as their mean.
    """
    means = _pooled_means(error, step) * (1 + 1 / np.sqrt(np.bincount(step)))
    return np.log(np.maximum(means, least))


def _pooled_means(error: np.ndarray, step: np.ndarray) -> np.ndarray:
    """The mean error of each step, falling with the similarity: float64 `[S]`.

    This is isotonic regression by pooling adjacent violators (Ayer et al. 1955): a step that is better than a nearer
    one shares its mean. Only where it is better by more than `CLEAR` standard errors does the order stay as measured:
    then some far molecules are easy (small ones, for instance), and one mean for both would be too short for the near.
    """
    n_steps = int(step.max()) + 1
    sums = np.stack([np.bincount(step, error**power, n_steps) for power in (0, 1, 2)], axis=1)
    pools: list[tuple[np.ndarray, int]] = []  # sums of n, error and error^2, and the number of steps; nearest first
    for of_step in sums[::-1]:
        pools.append((of_step, 1))
        while len(pools) > 1 and not _differ(pools[-2][0], pools[-1][0]):
            (far, n_far), (near, n_near) = pools.pop(), pools.pop()
            pools.append((near + far, n_near + n_far))
    means = np.concatenate([np.full(n, total / count) for (count, total, _), n in pools])
    return means[::-1]


def _differ(near: np.ndarray, far: np.ndarray) -> bool:
    """Whether two pools keep means of their own. near, far: float64 `[3]`, sums of n, error and error^2."""
    (n, total, squares), (n_far, total_far, squares_far) = near, far
    worse = total / n - total_far / n_far
    variance = (squares / n - (total / n) ** 2) / n + (squares_far / n_far - (total_far / n_far) ** 2) / n_far
    return worse < 0 or worse > CLEAR * math.sqrt(max(variance, 0.0))


@dataclass(frozen=True)
class Platt:
    """Probabilities of one yes/no task: `1 / (1 + exp(-(slope * logit + intercept)))`."""

    slope: float
    intercept: float

    @classmethod
    def fit(cls, logits: np.ndarray, labels: np.ndarray) -> Platt:
        """Fit to labelled molecules; slope 1 and intercept 0 where none, or only one of both labels, is there.

        The targets are Platt's smoothed ones, (n1 + 1) / (n1 + 2) for the n1 positives and 1 / (n0 + 2) for the n0
        negatives, the minimiser Newton's method with step halving (Lin, Lin and Weng 2007). A quadratic penalty towards
        slope 1 and intercept 0, about as strong as one molecule, decides what few labels leave open. The slope is at
        least 0.05.

        logits: float `[N]`. labels: float `[N]`, 0 or 1; NaN is left out.
        """
        known = ~np.isnan(labels)
        x, positive = logits[known].astype(np.float64), labels[known] == 1
        if positive.all() or not positive.any():  # one side says nothing of the other
            return cls(1.0, 0.0)
        assert np.isin(labels[known], (0, 1)).all()
        assert np.isfinite(x).all()
        n1 = int(positive.sum())
        target = np.where(positive, (n1 + 1) / (n1 + 2), 1 / (len(x) - n1 + 2))
        slope, intercept = _newton(x, target, np.array([1.0, 0.0]), slice(0, 2))
        if slope < MIN_SLOPE:  # the loss is convex, so the best allowed slope is the smallest
            slope, intercept = _newton(x, target, np.array([MIN_SLOPE, 0.0]), slice(1, 2))
        return cls(float(slope), float(intercept))

    def probability(self, logits: np.ndarray) -> np.ndarray:
        """Probabilities float32 `[B]` of log-odds float `[B]`."""
        z = self.slope * logits.astype(np.float64) + self.intercept
        return np.exp(-np.logaddexp(0, -z)).astype(np.float32)


def _newton(x: np.ndarray, target: np.ndarray, start: np.ndarray, free: slice) -> np.ndarray:
    """Minimise the penalised loss over (slope, intercept); only the slice `free` of `start` changes.

    x, target: float64 `[n]`.
    """
    design = np.stack([x, np.ones_like(x)], axis=1)
    # The curvature of one molecule with p = 1/2 and an average logit. Above 1 a logit's loss is no longer quadratic,
    # and the penalty would outweigh many such molecules; the floor is for logits that are all 0.
    penalty = 0.25 * np.clip(np.square(design).mean(0), 1e-12, 1)
    prior = np.array([1.0, 0.0])

    def loss(at: np.ndarray) -> float:
        z = design @ at
        return float((np.logaddexp(0, z) - target * z).sum() + 0.5 * penalty @ np.square(at - prior))

    now = start
    for _ in range(NEWTON_STEPS):
        p = np.exp(-np.logaddexp(0, -(design @ now)))
        gradient = design.T @ (p - target) + penalty * (now - prior)
        curvature = design.T @ (design * (p * (1 - p))[:, None]) + np.diag(penalty)
        step = np.zeros(2)
        step[free] = np.linalg.solve(curvature[free, free], gradient[free])
        before, size = loss(now), 1.0
        while loss(now - size * step) > before and size > 1e-10:
            size /= 2
        if size <= 1e-10:
            break
        now = now - size * step
        if np.abs(step).max() < 1e-10:
            break
    return now


@dataclass(frozen=True, eq=False)
class Calibration:
    """What a pack knows about its own errors.

    parts: `Intervals` or `Platt` of each task.
    thresholds: for each task, the similarity below which a molecule is outside its domain (`threshold_of`).
    """

    parts: list[Intervals | Platt]
    thresholds: list[float]

    def __post_init__(self) -> None:
        assert len(self.parts) == len(self.thresholds)

    def tensors(self) -> dict[str, Tensor]:
        """Tensors for a safetensors file.

        For the task at position I, a value: `I.similarity` and `I.log_sigma`, float64 `[S]`, `I.scores` float32 `[n]`
        and `I.training` float32 `[T]`, as `Intervals` has them. A class: `I.platt` float64 `[2]` (slope, intercept).
        For all tasks: `thresholds` float64 `[P]`. A value of an older pack has `I.b` float64 and `I.scores` alone
        (`Intervals.of_growth`).
        """
        import torch

        tensors = {"thresholds": torch.tensor(self.thresholds, dtype=torch.float64)}
        for i, part in enumerate(self.parts):
            if isinstance(part, Platt):
                tensors[f"{i}.platt"] = torch.tensor([part.slope, part.intercept], dtype=torch.float64)
            else:
                tensors |= {f"{i}.{name}": torch.from_numpy(getattr(part, name)) for name in INTERVAL_TENSORS}
        return tensors

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Any], n_tasks: int) -> Calibration:
        """The inverse of `tensors`, from tensors or NumPy arrays. Raises `KeyError` when one is missing."""
        parts: list[Intervals | Platt] = []
        for i in range(n_tasks):
            if f"{i}.platt" in tensors:
                parts.append(Platt(*tensors[f"{i}.platt"].tolist()))
            elif f"{i}.b" in tensors:
                parts.append(Intervals.of_growth(float(tensors[f"{i}.b"]), np.asarray(tensors[f"{i}.scores"])))
            else:
                parts.append(Intervals(*(np.asarray(tensors[f"{i}.{name}"]) for name in INTERVAL_TENSORS)))
        return cls(parts, tensors["thresholds"].tolist())

    def select(self, tasks: Sequence[int]) -> Calibration:
        """Only these tasks, in this order."""
        return Calibration([self.parts[i] for i in tasks], [self.thresholds[i] for i in tasks])
