"""A screened library as a whole: counts and histograms, in constant memory, shard by shard."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..scoring.tasks import Task
from ..status import OK, StatusCounts

VALUE_BINS = 60  # of a value, over the mean of training +/- VALUE_DEVIATIONS
VALUE_DEVIATIONS = 5
SHARE_BINS = 50  # of a probability or similarity, over 0..1: an edge lies at every even percent


class Histogram:
    """Counts of finite numbers in equal bins; what lies beyond them counts in the bins at the ends.

    log: whether the bins are equal in the logarithms of the numbers.
    edges: float64 `[n + 1]`. counts: int64 `[n]`. low, high: the least and greatest number, NaN without any.
    """

    def __init__(self, start: float, stop: float, n_bins: int, log: bool = False):
        self.log = log
        self.edges = (np.geomspace if log else np.linspace)(start, stop, n_bins + 1)
        self.counts = np.zeros(n_bins, np.int64)
        self.low = self.high = float("nan")
        self._sum = 0.0

    def add(self, numbers: np.ndarray) -> None:
        """Count `numbers`, float32 or float64 `[B]`; those that are not finite are left out."""
        numbers = numbers[np.isfinite(numbers)].astype(np.float64)
        if not len(numbers):
            return
        # Searched for among the edges, as division would put 0.58 into the bin below 0.58.
        bins = np.searchsorted(self.edges[1:-1], numbers, side="right")
        self.counts += np.bincount(bins, minlength=len(self.counts))
        self._sum += float(numbers.sum())
        self.low = float(np.fmin(self.low, numbers.min()))
        self.high = float(np.fmax(self.high, numbers.max()))

    @property
    def n(self) -> int:
        return int(self.counts.sum())

    @property
    def mean(self) -> float:
        return self._sum / self.n if self.n else float("nan")

    def share_from(self, edge: float) -> float:
        """Share of the numbers at or above an edge of a bin, 0..1."""
        first = int(np.argmin(abs(self.edges - edge)))
        return int(self.counts[first:].sum()) / self.n if self.n else float("nan")


class LibrarySummary:
    """Counts and histograms of a scored library, filled by `add`.

    rows: of all shards, by status.
    scores: task's name -> histogram of the rows that are `ok`.
    similarity: histogram of their column `similarity`, the smallest over the tasks.
    n_inside: how many are in the domain of every task. n_inside_task: task's name -> how many are in its domain.
    is_calibrated: whether the shards have similarity and domain.
    """

    def __init__(self, tasks: Sequence[Task], rows: StatusCounts):
        self.tasks, self.rows = tuple(tasks), rows
        self.scores = {task.name: _histogram(task) for task in tasks}
        self.similarity = Histogram(0, 1, SHARE_BINS)
        self.n_inside = 0
        self.n_inside_task = Counter({task.name: 0 for task in tasks})
        self.is_calibrated = False

    def add(self, shard: pa.Table) -> None:
        scored = shard.filter(pc.equal(shard["status"], OK))
        for task in self.tasks:
            self.scores[task.name].add(_numbers(scored, task.column))
        if "similarity" in shard.column_names:
            self.is_calibrated = True
            self.similarity.add(_numbers(scored, "similarity"))
            self.n_inside += pc.sum(scored["in_domain"]).as_py() or 0
            self._add_domain(scored["outside"])

    def _add_domain(self, outside: pa.ChunkedArray) -> None:
        words = pc.list_flatten(pc.split_pattern(outside, " "))
        n_outside = {pair["values"]: pair["counts"] for pair in pc.value_counts(words).to_pylist()}
        for task in self.tasks:
            n = n_outside.get(task.name, 0)
            if " " in task.name:  # of several words
                padded = pc.binary_join_element_wise(" ", outside, " ", "")
                n = pc.sum(pc.match_substring(padded, f" {task.name} ")).as_py() or 0
            self.n_inside_task[task.name] += len(outside) - n


def _histogram(task: Task) -> Histogram:
    if task.is_class:
        return Histogram(0, 1, SHARE_BINS)
    reach = VALUE_DEVIATIONS * task.deviation
    start, stop = task.in_unit(np.array([task.mean - reach, task.mean + reach]))
    return Histogram(start, stop, VALUE_BINS, task.is_log)


def _numbers(table: pa.Table, column: str) -> np.ndarray:
    """float64 `[B]`, NaN for nulls."""
    return np.asarray(table[column].cast(pa.float64()))
