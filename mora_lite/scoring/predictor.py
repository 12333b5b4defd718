"""From SMILES to scores, whatever computes the values: parsing, fingerprints, probabilities, intervals, domain.

`mora_lite.model.Model` computes values with torch, `mora_lite.export.runtime.OnnxModel` with ONNX Runtime. All the rest
of scoring is here, once, and needs neither.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..chem.fingerprints import fingerprints
from ..chem.graph import Graphs, featurize
from ..chem.molecules import parse_smiles
from ..status import OK
from .conformal import Platt
from .scores import Calibrator, Predictions, Scores
from .tasks import Task


class Predictor(ABC):
    """tasks: what it answers, in column order. trust: its error bars and domain; None when it was not calibrated.
    device: of torch, where similarities are computed; None for NumPy. seconds: time spent so far in each stage, by
    name.
    """

    def __init__(self, tasks: tuple[Task, ...], trust: Calibrator | None, device: Any = None):
        self.tasks = tasks
        self.trust = trust
        self.device = device
        self.seconds: dict[str, float] = defaultdict(float)
        self._is_class = np.array([task.is_class for task in tasks], dtype=bool)

    @abstractmethod
    def score_graphs(self, graphs: Graphs, batch_size: int | None = None) -> np.ndarray:
        """float32 `[B, P]` in the tasks' units, log-odds for classes, for graphs that are ready."""

    def predict(self, smiles: str | Sequence[str], batch_size: int | None = None) -> Predictions:
        """Score SMILES; a row that cannot be scored has NaN values, a status and an error, and stops nothing."""
        rows = [smiles] if isinstance(smiles, str) else [_text(entry) for entry in smiles]
        return Predictions(rows, self.tasks, self.score(rows, batch_size))

    def score(self, smiles: Sequence[str], batch_size: int | None = None) -> Scores:
        """Values, intervals, statuses and errors of SMILES, in order.

        batch_size: molecules at a time, as in `score_graphs`.
        """
        with self._timed("parse"):
            parsed = [parse_smiles(text) for text in smiles]
            good = [i for i, p in enumerate(parsed) if p.status == OK]
            molecules = [parsed[i].mol for i in good]
        status, error = [p.status for p in parsed], [p.reason for p in parsed]
        values, bits = np.empty((0, len(self.tasks)), np.float32), None
        if good:
            with self._timed("graphs"):
                graphs = featurize(molecules)
            values = self.score_graphs(graphs, batch_size)
        if self.trust is not None:
            with self._timed("fingerprints"):
                bits = fingerprints(molecules)
        return self._spread(self.judge(values, bits, status, error), good)

    def judge(
        self,
        values: np.ndarray,
        bits: np.ndarray | None,
        status: list[str] | None = None,
        error: list[str] | None = None,
    ) -> Scores:
        """Values as of `score_graphs` with the pack's calibration: probabilities, intervals, domain.

        bits: of `domain.fingerprints`, for the same molecules; None leaves intervals and domain out.
        """
        status, error = (
            given if given is not None else [each] * len(values) for given, each in ((status, OK), (error, ""))
        )
        if self.trust is None or bits is None:
            return Scores(self._probabilities(values), status, error)
        with self._timed("similarity"):
            nearest = self.trust.domain.similarity(bits, self.device)
        low, high = self.trust.intervals(values, nearest)
        inside = nearest >= self.trust.thresholds
        return Scores(self._probabilities(values), status, error, low, high, nearest, inside)

    def _probabilities(self, values: np.ndarray) -> np.ndarray:
        """The same with the log-odds of classes as probabilities."""
        values = values.copy()
        for i in np.flatnonzero(self._is_class).tolist():
            platt = self.trust.parts[i] if self.trust is not None else Platt(1.0, 0.0)
            assert isinstance(platt, Platt)
            values[:, i] = platt.probability(values[:, i])
        return values

    def _spread(self, found: Scores, good: list[int]) -> Scores:
        """The scores of the readable molecules, at their places among all."""
        shape = len(found.status), len(self.tasks)

        def spread(part: np.ndarray | None) -> np.ndarray | None:
            if part is None:
                return None
            whole = np.zeros(shape, bool) if part.dtype == bool else np.full(shape, np.nan, part.dtype)
            whole[good] = part
            return whole

        values, *rest = (spread(p) for p in (found.values, found.low, found.high, found.nearest, found.inside))
        assert values is not None
        return Scores(values, found.status, found.error, *rest)

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self._finish()
        self.seconds[stage] += time.perf_counter() - started

    def _finish(self) -> None:  # noqa: B027 - most have nothing to wait for
        """Wait for what a device still computes."""


def _text(entry: object) -> str:
    """An entry of a list or column as SMILES text; missing values of any kind (None, NaN, pandas.NA) are empty."""
    if isinstance(entry, str):
        return entry
    text = str(entry)
    return "" if text in ("None", "nan", "<NA>") else text
