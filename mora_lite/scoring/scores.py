"""Scores of molecules as arrays (`Scores`), and their calibration (`Calibrator`).

Needs NumPy only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ..errors import PackError
from ..status import OK
from ..tables.formats import add_columns
from .conformal import Calibration, Intervals, Platt, check_confidence
from .domain import Domain
from .neighbours import Neighbours
from .tasks import Task


@dataclass(frozen=True)
class Scores:
    """The scores of `B` molecules, in order.

    values: float32 `[B, P]`, in each task's unit, or the probability of a yes; NaN where `status[i]` is not `ok`.
    status, error: `B` texts.
    low, high: float32 `[B, P]`, the interval that holds the true value with the model's `confidence`; NaN for classes,
        infinite when the pack was calibrated on too few molecules.
    nearest: float32 `[B, P]`, Tanimoto similarity to the nearest molecule that the task was trained on.
    inside: bool `[B, P]`, whether that is near enough.

    These four are None when the pack was not calibrated.

    neighbours: the nearest training molecules, where they were asked for.
    beside: further columns that were asked for, float32 or text `[B]`, by name: percentiles and extras.
    """

    values: np.ndarray
    status: list[str]
    error: list[str]
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    nearest: np.ndarray | None = None
    inside: np.ndarray | None = None
    neighbours: Neighbours | None = None
    beside: Mapping[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def empty(cls, n_tasks: int, calibrated: bool) -> Scores:
        """Scores of no molecule."""
        none = np.empty((0, n_tasks), np.float32)
        return cls(none, [], [], none, none, none, none.astype(bool)) if calibrated else cls(none, [], [])

    def at(self, rows: np.ndarray) -> Scores:
        """Those of the molecules `rows`, int64."""
        arrays = {name: getattr(self, name) for name in ("low", "high", "nearest", "inside")}
        return replace(
            self,
            values=self.values[rows],
            status=[self.status[i] for i in rows],
            error=[self.error[i] for i in rows],
            neighbours=None if self.neighbours is None else self.neighbours.at(rows),
            beside={name: column[rows] for name, column in self.beside.items()},
            **{name: None if array is None else array[rows] for name, array in arrays.items()},
        )

    @property
    def similarity(self) -> np.ndarray | None:
        """float32 `[B]`: the smallest of `nearest`, that of the task whose training molecules are farthest away."""
        return None if self.nearest is None else self.nearest.min(axis=1)

    @property
    def in_domain(self) -> np.ndarray | None:
        """bool `[B]`: whether the molecule is in the domain of every task."""
        return None if self.inside is None else np.all(self.inside, axis=1)

    def columns(self, tasks: Sequence[Task]) -> dict[str, np.ndarray]:
        """The columns between the molecule and its status in every table: name -> float32, bool or text `[B]`."""
        columns: dict[str, np.ndarray] = {}
        for i, task in enumerate(tasks):
            columns[task.column] = self.values[:, i]
            if self.low is not None and self.high is not None and not task.is_class:
                columns |= {f"{task.name}_lo": self.low[:, i], f"{task.name}_hi": self.high[:, i]}
        similarity, in_domain = self.similarity, self.in_domain
        if similarity is not None and in_domain is not None and self.inside is not None:
            outside = self._outside(self.inside, [task.name for task in tasks])
            columns |= {"similarity": similarity, "in_domain": in_domain, "outside": outside}
        if self.neighbours is not None:
            columns |= self.neighbours.columns()
        names = add_columns(list(columns), list(self.beside))[len(columns) :]  # a task may be called QED
        return columns | dict(zip(names, self.beside.values(), strict=True))

    def _outside(self, inside: np.ndarray, names: Sequence[str]) -> np.ndarray:
        """The names of the tasks whose domain a molecule is outside of: text `[B]`; empty where there is no value."""
        outside = np.full(len(inside), "", dtype=object)
        rows = np.flatnonzero(~inside.all(axis=1))
        if self.status.count(OK) < len(self.status):
            rows = rows[[self.status[row] == OK for row in rows]]
        if len(rows):
            # Molecules share few patterns of tasks, so each text is made once.
            packed = np.ascontiguousarray(np.packbits(inside[rows], axis=1))
            _, first, pattern = np.unique(
                packed.view(f"V{packed.shape[1]}").ravel(), return_index=True, return_inverse=True
            )
            texts = [
                " ".join(name for name, within in zip(names, inside[rows[i]], strict=True) if not within) for i in first
            ]
            outside[rows] = np.array(texts, dtype=object)[pattern]
        return outside


def percentile_columns(tasks: Sequence[Task]) -> list[str]:
    """Headers of the percentiles among approved drugs."""
    return [f"{task.name}_percentile" for task in tasks]


@dataclass(frozen=True)
class Calibrator:
    """How far a pack's numbers can be trusted: its calibration and domain, for `P` chosen tasks.

    parts: `Intervals` or `Platt` of each task.
    thresholds: float32 `[P]`, the similarity from which on a molecule is in the domain of each.
    """

    parts: Sequence[Intervals | Platt]
    thresholds: np.ndarray
    domain: Domain
    confidence: float

    @classmethod
    def of(
        cls, calibration: Calibration | None, domain: Domain | None, chosen: Sequence[int], confidence: float
    ) -> Calibrator | None:
        """For the tasks at the positions `chosen`; None when the pack was not calibrated.

        Raises `InputError` when `confidence` is not between 0 and 1, `PackError` when both are not of the same tasks.
        """
        check_confidence(confidence)
        if calibration is None or domain is None:
            return None
        if domain.patterns.shape[1] != len(calibration.parts):
            raise PackError(
                f"the pack has training molecules of {domain.patterns.shape[1]} tasks, but intervals of "
                f"{len(calibration.parts)}; fetch or train it again"
            )
        calibration = calibration.select(chosen)
        thresholds = np.array(calibration.thresholds, dtype=np.float32)
        return cls(calibration.parts, thresholds, domain.select(chosen), confidence)

    def intervals(self, values: np.ndarray, similarity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper bounds of `values`; all arrays float32 `[B, P]`, bounds of classes NaN."""
        half = np.full_like(values, np.nan)
        for i, part in enumerate(self.parts):
            if isinstance(part, Intervals):
                half[:, i] = part.half_width(similarity[:, i], self.confidence)
        return values - half, values + half
