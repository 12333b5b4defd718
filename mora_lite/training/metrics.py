"""Metrics of predictions against measured values: errors of numbers, quality of probabilities, coverage of ranges.

They are also computed by scaffold, by similarity to the training molecules and by domain. There `metrics` is a function
of a group of molecules: it takes their row numbers (int64 `[n]`, never empty) and returns metrics such as those of
`value_metrics`. If these have an `n` (molecules whose value is known), it replaces the number of molecules in the row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from ..packs.card import NO_RING, NOT_SEEN, SEEN
from ..reports.curves import ranked

Metrics = dict[str, Any]  # name -> number, None where it is not defined; a unit is a text

GroupMetrics = Callable[[np.ndarray], Mapping[str, Any]]

BINS = 10
MIN_PER_BIN = 10  # molecules, on average: with fewer the gaps within bins are chance
SIMILARITY_EDGES = (0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.0)
MIN_OF_SCAFFOLD = 5  # molecules; metrics of fewer say nothing
MAX_SCAFFOLDS = 10  # that have a row of their own
INSIDE, OUTSIDE = "inside", "outside"


def value_metrics(predicted: np.ndarray, true: np.ndarray) -> Metrics:
    """n, MAE, RMSE, R2 and Spearman's rank correlation of two float arrays `[N]` in one unit.

    Pairs with a NaN are left out. R2 is None when there are fewer than two values or all true values are the same, the
    rank correlation also when all predicted values are the same.
    """
    known = ~(np.isnan(predicted) | np.isnan(true))
    n = int(known.sum())
    if n == 0:
        return {"n": 0, "mae": None, "rmse": None, "r2": None, "spearman": None}
    predicted, true = (of[known].astype(np.float64) for of in (predicted, true))
    error, spread = predicted - true, float(np.square(true - true.mean()).sum())
    r2 = 1 - float(np.square(error).sum()) / spread if n > 1 and spread > 0 else None
    return {
        "n": n,
        "mae": float(np.abs(error).mean()),
        "rmse": float(np.sqrt(np.square(error).mean())),
        "r2": r2,
        "spearman": _rank_correlation(predicted, true),
    }


def class_metrics(probability: np.ndarray, true: np.ndarray) -> Metrics:
    """Metrics of probabilities against true classes; pairs with a NaN are left out.

    probability: float `[N]`, 0 to 1, that the class is 1. true: float `[N]`, 0 or 1.

    `n`, `positives`; `roc_auc`; `pr_auc`, the average precision; `brier`, the mean square error; `ece`, the gap between
    predicted and observed share, averaged over at most 10 bins of equal width, of fewer when there are not 10 molecules
    for each. The areas are None when only one class is there, all but the counts when nothing is.
    """
    probability, true = _known_pairs(probability, true)
    n, positives = len(true), int(true.sum())
    if n == 0:
        return {"n": 0, "positives": 0, "roc_auc": None, "pr_auc": None, "brier": None, "ece": None}
    both = 0 < positives < n
    bins = min(BINS, max(1, n // MIN_PER_BIN))
    gaps = [row["n"] * abs(row["predicted"] - row["observed"]) for row in calibration_table(probability, true, bins)]
    return {
        "n": n,
        "positives": positives,
        "roc_auc": _roc_auc(probability, true) if both else None,
        "pr_auc": _average_precision(probability, true) if both else None,
        "brier": float(np.square(probability.astype(np.float64) - true).mean()),
        "ece": float(sum(gaps) / n),
    }


def calibration_table(probability: np.ndarray, true: np.ndarray, bins: int = BINS) -> list[dict[str, Any]]:
    """Predicted probability against the observed share of positives: a row for each non-empty bin of equal width.

    probability: float `[N]`, 0 to 1. true: float `[N]`, 0 or 1; pairs with a NaN are left out. Row: `from`, `to`, `n`,
    `predicted` (mean probability), `observed` (share of positives). An edge belongs to the bin above it.
    """
    probability, true = _known_pairs(probability, true)
    edges = [i / bins for i in range(bins + 1)]
    at = bin_numbers(probability, edges)
    rows = []
    for i in range(bins):
        here = at == i
        if here.any():
            row = {"from": edges[i], "to": edges[i + 1], "n": int(here.sum())}
            row["predicted"] = float(probability[here].mean(dtype=np.float64))
            row["observed"] = float(true[here].mean(dtype=np.float64))
            rows.append(row)
    return rows


def coverage(low: np.ndarray, high: np.ndarray, true: np.ndarray) -> Metrics:
    """How often ranges hold the true value: float arrays `[N]` in one unit; triples with a NaN are left out.

    `n`; `inside`, the share of values from `low` to `high`, None when n = 0; `mean_width` in that unit, None also when
    any range is infinite (as a range without enough data behind it is). An infinite range covers like any other.
    """
    known = ~(np.isnan(low) | np.isnan(high) | np.isnan(true))
    low, high, true = (a[known].astype(np.float64) for a in (low, high, true))
    if not len(true):
        return {"n": 0, "inside": None, "mean_width": None}
    finite = bool(np.isfinite(low).all() and np.isfinite(high).all())
    return {
        "n": len(true),
        "inside": float(((low <= true) & (true <= high)).mean()),
        "mean_width": float((high - low).mean()) if finite else None,
    }


def bin_numbers(values: np.ndarray, edges: Sequence[float]) -> np.ndarray:
    """int64 `[N]`: the bin of each of the floats `[N]`; an edge belongs to the bin above it, the last one to the last.

    What lies above all edges, and NaN, gets `len(edges) - 1`; what lies below them gets -1: no bin has these numbers.
    """
    # In the values' own precision: 0.7 as float32 is less than 0.7 as float64, and would fall below its own edge.
    limits = np.asarray(edges, dtype=values.dtype)
    at = np.searchsorted(limits, values, side="right") - 1
    at[values == limits[-1]] = len(edges) - 2
    return at


def by_scaffold(metrics: GroupMetrics, scaffolds: Sequence[str], train_scaffolds: set[str]) -> list[dict[str, Any]]:
    """Rows `scaffold`, `n`, metrics: molecules whose scaffold was seen in training, the others, then some scaffolds.

    scaffolds: `[N]`, of `scaffold_of`. The last rows are the 10 most frequent scaffolds that have at least
    5 molecules; '' is called `no ring`. A group without molecules has n = 0 and no metrics.
    """
    seen = np.array([scaffold in train_scaffolds for scaffold in scaffolds], dtype=bool)
    rows = [_row({"scaffold": SEEN}, seen, metrics), _row({"scaffold": NOT_SEEN}, ~seen, metrics)]
    of = np.array(scaffolds, dtype=object)
    single: list[dict[str, Any]] = []
    for scaffold, count in Counter(scaffolds).most_common():
        if count < MIN_OF_SCAFFOLD or len(single) >= MAX_SCAFFOLDS:
            break
        row = _row({"scaffold": scaffold or NO_RING}, of == scaffold, metrics)
        if row["n"] >= MIN_OF_SCAFFOLD:  # known values may be fewer than molecules
            single.append(row)
    return rows + single


def by_similarity(metrics: GroupMetrics, similarity: np.ndarray) -> list[dict[str, Any]]:
    """Rows `from`, `to`, `n` and metrics, for each bin of similarity that has molecules.

    similarity: float `[N]`, 0 to 1, to the nearest training molecule; molecules with NaN are in no row. An edge belongs
    to the bin above it, the last edge to the last bin.
    """
    at, bins = bin_numbers(similarity, SIMILARITY_EDGES), pairwise(map(float, SIMILARITY_EDGES))
    rows = [_row({"from": a, "to": b}, at == i, metrics) for i, (a, b) in enumerate(bins)]
    return [row for row in rows if row["n"] > 0]


def by_domain(metrics: GroupMetrics, in_domain: np.ndarray) -> list[dict[str, Any]]:
    """Two rows `domain` (`inside`, `outside`), `n` and metrics, the last only where n > 0. in_domain: bool `[N]`."""
    return [_row({"domain": INSIDE}, in_domain, metrics), _row({"domain": OUTSIDE}, ~in_domain, metrics)]


def _row(label: dict[str, Any], chosen: np.ndarray, metrics: GroupMetrics) -> dict[str, Any]:
    rows = np.flatnonzero(chosen)
    return {**label, "n": len(rows), **(metrics(rows) if len(rows) else {})}


def _known_pairs(probability: np.ndarray, true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    known = ~(np.isnan(probability) | np.isnan(true))
    probability, true = probability[known], true[known]
    assert ((probability >= 0) & (probability <= 1)).all(), "probabilities outside 0 to 1"
    assert ((true == 0) | (true == 1)).all(), "classes other than 0 and 1"
    return probability, true


def _ranks(values: np.ndarray) -> np.ndarray:
    """float64 `[N]`, from 1; equal values share their mean rank."""
    _, at, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[at]


def _rank_correlation(a: np.ndarray, b: np.ndarray) -> float | None:
    """Spearman's, -1 to 1; None where one side has no two different values."""
    a, b = (_ranks(values) - (len(values) + 1) / 2 for values in (a, b))
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / size if size else None


def _roc_auc(probability: np.ndarray, true: np.ndarray) -> float:
    """Share of the pairs of a positive and a negative that are in the right order; a tie counts half."""
    ranks, positive = _ranks(probability), true == 1
    n1 = int(positive.sum())
    n0 = len(true) - n1
    return float((ranks[positive].sum() - n1 * (n1 + 1) / 2) / (n1 * n0))


def _average_precision(probability: np.ndarray, true: np.ndarray) -> float:
    """Precision at every threshold, weighted by the recall that the threshold adds."""
    taken, hits = ranked(probability, true)
    return float((np.diff(hits, prepend=0) * hits / taken).sum() / hits[-1])
