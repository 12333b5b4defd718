"""Curves of a classifier, and the range that chance leaves to a figure of some molecules. Needs NumPy only."""

from __future__ import annotations

import math

import numpy as np

Z = 1.96  # deviations on either side that hold 95 % of a normal distribution
Z_OF_MANY = 2.8  # of one group among ten, so that it is seldom chance when any of them is called wrong
MAX_POINTS = 300  # of a curve; more are not told apart
MIN_OF_RANGE = 3  # molecules


def ranked(probability: np.ndarray, true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many molecules, and how many positives, are at or above each threshold, from the highest: int64 `[n]` each.

    probability, true: float `[N]`, 0 or 1 the latter, without NaN. Molecules of equal probability come together.
    """
    order = np.argsort(-probability, kind="stable")
    last = np.append(np.flatnonzero(np.diff(probability[order])), len(order) - 1)
    return last + 1, np.cumsum(true[order] == 1)[last]


def roc_points(probability: np.ndarray, true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False and true positive rate at each threshold, float64 `[n]`, from 0 to 1; both classes must be there."""
    n, hits = ranked(probability, true)
    missed = n - hits
    return _thin(np.append(0, missed / missed[-1]), np.append(0, hits / hits[-1]))


def precision_points(probability: np.ndarray, true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Recall and precision at each threshold, float64 `[n]`; there must be a positive."""
    n, hits = ranked(probability, true)
    return _thin(hits / hits[-1], hits / n)


def _thin(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if len(x) <= MAX_POINTS:
        return x, y
    kept = np.unique(np.linspace(0, len(x) - 1, MAX_POINTS).astype(int))
    return x[kept], y[kept]


def share_range(share: float, n: int, z: float = Z) -> tuple[float, float]:
    """Where the share of a very large sample would lie, by Wilson, with 95 % confidence for the usual z.

    n: of this sample, above 0.
    """
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    reach = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return max(0.0, middle - reach), min(1.0, middle + reach)


def mean_range(numbers: np.ndarray) -> tuple[float, float] | None:
    """The same of the mean of float `[n]`, by its standard error and Student's t; None of fewer than 3."""
    if len(numbers) < MIN_OF_RANGE:
        return None
    numbers = numbers.astype(np.float64)
    mean, error = float(numbers.mean()), float(numbers.std(ddof=1)) / math.sqrt(len(numbers))
    reach = _student(len(numbers) - 1) * error
    return mean - reach, mean + reach


def _student(freedom: int, z: float = Z) -> float:
    """The quantile of Student's t that z is of the normal distribution (Abramowitz and Stegun 1964, 26.7.5).

    The first terms of the series: 3 % too small for 2 degrees of freedom, less than 1 % from 3 on.
    """
    terms = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96, (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + sum(term / freedom**k for k, term in enumerate(terms, 1))


def auc_range(auc: float, positives: int, negatives: int) -> tuple[float, float] | None:
    """The same of a ROC-AUC; None of fewer than 3 of a class.

    It is all areas that lie within z of their own standard errors of this one (Newcombe 2006, Statistics in Medicine
    25:559, method 5). The standard error at the estimate is 0 for an area of 1, and too small near it.
    """
    if min(positives, negatives) < MIN_OF_RANGE:
        return None
    areas, n = np.append(np.linspace(0, 1, 10_001), auc), (positives + negatives) / 2 - 1
    spread = areas * (1 - areas) * (1 + n * (1 - areas) / (2 - areas) + n * areas / (1 + areas))
    within = areas[np.abs(auc - areas) <= Z * np.sqrt(spread / (positives * negatives))]
    return float(within.min()), float(within.max())
