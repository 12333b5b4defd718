"""From SMILES to scores: parsing, fingerprints, probabilities, intervals, domain.

Only the values are computed elsewhere: with torch by `mora_lite.model.Model`, with ONNX Runtime by
`mora_lite.export.runtime.OnnxModel`. This file needs neither.
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
    """What every model is, whatever computes its values.

    tasks: in the order of their columns.
    calibrator: intervals, probabilities and domain; None for a pack that was not calibrated.
    device: the torch device that computes similarities; None for NumPy.
    seconds: stage -> time spent in it so far.
    """

    def __init__(self, tasks: tuple[Task, ...], calibrator: Calibrator | None, device: Any = None):
        self.tasks = tasks
        self.calibrator = calibrator
        self.device = device
        self.seconds: dict[str, float] = defaultdict(float)
        self._is_class = np.array([task.is_class for task in tasks], dtype=bool)

    @abstractmethod
    def score_graphs(self, graphs: Graphs, batch_size: int | None = None) -> np.ndarray:
        """Values of molecules that are graphs already: float32 `[B, P]`, before `calibrate`.

        In the tasks' units, but log-odds for classes, and logarithms to base 10 for values on a logarithmic scale.
        batch_size: molecules at a time; None for what suits the device.
        """

    def predict(self, smiles: str | Sequence[str], batch_size: int | None = None) -> Predictions:
        """Score SMILES; a row that cannot be scored has NaN values, a status and an error, and stops nothing."""
        rows = [smiles] if isinstance(smiles, str) else [_as_text(cell) for cell in smiles]
        return Predictions(rows, self.tasks, self.score(rows, batch_size))

    def score(self, smiles: Sequence[str], batch_size: int | None = None) -> Scores:
        """Values, intervals, statuses and errors of SMILES, in order; `batch_size` as in `score_graphs`."""
        with self._timed("parse"):
            parsed = [parse_smiles(text) for text in smiles]
            ok_rows = [i for i, p in enumerate(parsed) if p.status == OK]
            molecules = [parsed[i].mol for i in ok_rows]
        status, error = [p.status for p in parsed], [p.reason for p in parsed]
        values, bits = np.empty((0, len(self.tasks)), np.float32), None
        if ok_rows:
            with self._timed("graphs"):
                graphs = featurize(molecules)
            values = self.score_graphs(graphs, batch_size)
        if self.calibrator is not None:
            with self._timed("fingerprints"):
                bits = fingerprints(molecules)
        return self._scatter(self.calibrate(values, bits, status, error), ok_rows)

    def calibrate(
        self,
        values: np.ndarray,
        bits: np.ndarray | None,
        status: list[str] | None = None,
        error: list[str] | None = None,
    ) -> Scores:
        """Apply the pack's calibration: probabilities, intervals, domain; all values in the tasks' units.

        An interval is made on the task's scale: that of a logarithm is as wide above as below, that of its value not.

        values: float32 `[N, P]`, as `score_graphs` returns them.
        bits: uint8 `[N, 128]`, `fingerprints` of the same molecules; None leaves intervals and domain out.
        status, error: of all rows, of which these are the `N` that are ok; None where there are no others.
        """
        status = [OK] * len(values) if status is None else status
        error = [""] * len(values) if error is None else error
        if self.calibrator is None or bits is None:
            return Scores(self._answers(values), status, error)
        with self._timed("similarity"):
            nearest = self.calibrator.domain.similarity(bits, self.device)
        low, high = (self._in_units(bound) for bound in self.calibrator.intervals(values, nearest))
        inside = nearest >= self.calibrator.thresholds
        return Scores(self._answers(values), status, error, low, high, nearest, inside)

    def _in_units(self, values: np.ndarray) -> np.ndarray:
        """Values float32 `[B, P]` on the tasks' scales -> a copy in their units."""
        columns = [task.in_unit(values[:, i]) for i, task in enumerate(self.tasks)]
        return np.stack(columns, axis=1) if columns else values.copy()

    def _answers(self, values: np.ndarray) -> np.ndarray:
        """What `score_graphs` returns, in the tasks' units, and with the log-odds of classes turned into
        probabilities."""
        values = self._in_units(values)
        for i in np.flatnonzero(self._is_class).tolist():
            platt = self.calibrator.parts[i] if self.calibrator is not None else Platt(1.0, 0.0)
            assert isinstance(platt, Platt)
            values[:, i] = platt.probability(values[:, i])
        return values

    def _scatter(self, scores: Scores, ok_rows: list[int]) -> Scores:
        """The same scores with their arrays `[N, P]` as rows `ok_rows` of `[B, P]`; NaN or False elsewhere."""
        shape = len(scores.status), len(self.tasks)

        def scatter(part: np.ndarray | None) -> np.ndarray | None:
            if part is None:
                return None
            whole = np.zeros(shape, bool) if part.dtype == bool else np.full(shape, np.nan, part.dtype)
            whole[ok_rows] = part
            return whole

        values, *rest = map(scatter, (scores.values, scores.low, scores.high, scores.nearest, scores.inside))
        assert values is not None
        return Scores(values, scores.status, scores.error, *rest)

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self._finish()
        self.seconds[stage] += time.perf_counter() - started

    def _finish(self) -> None:  # noqa: B027 - most have nothing to wait for
        """Wait for what a device still computes, so that its time is counted with the right stage."""


def _as_text(cell: object) -> str:
    """A cell of a list or column as SMILES text; missing values of any kind (None, NaN, pandas.NA) are empty."""
    if isinstance(cell, str):
        return cell
    text = str(cell)
    return "" if text in ("None", "nan", "<NA>") else text
