"""What scoring molecules gives: values, intervals and domain, as arrays and as tables. Needs NumPy only.

`Scores` are the numbers, `Predictions` the table, `Calibrator` what turns values into intervals and domain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..status import OK
from .conformal import Calibration, Intervals, Platt, check_confidence
from .domain import Domain
from .tasks import Task

if TYPE_CHECKING:
    import pandas
    import pyarrow


@dataclass(frozen=True)
class Scores:
    """What was found for `B` molecules, in order; status, error: `B` texts.

    values: float32 `[B, P]`: in each task's unit, or the probability of a yes. NaN where `status[i]` is not `ok`.
    low, high: float32 `[B, P]`, the interval that holds the true value with the model's `confidence`; NaN for classes,
    infinite when the pack was calibrated on too few molecules for that. nearest: float32 `[B, P]`, Tanimoto similarity
    to the nearest molecule that the task was trained on. inside: bool `[B, P]`, whether that is near enough. All four
    are None when the pack was not calibrated.
    """

    values: np.ndarray
    status: list[str]
    error: list[str]
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    nearest: np.ndarray | None = None
    inside: np.ndarray | None = None

    @property
    def similarity(self) -> np.ndarray | None:
        """float32 `[B]`: to the nearest training molecule of any task asked for."""
        return None if self.nearest is None else self.nearest.max(axis=1)

    @property
    def in_domain(self) -> np.ndarray | None:
        """bool `[B]`: whether the molecule is near enough for any task; `outside` names those it is not."""
        return None if self.inside is None else np.any(self.inside, axis=1)

    def columns(self, tasks: Sequence[Task]) -> dict[str, np.ndarray]:
        """Name -> float32, bool or text `[B]`: what comes between the molecule and its status in every table."""
        columns: dict[str, np.ndarray] = {}
        for i, task in enumerate(tasks):
            columns[task.column] = self.values[:, i]
            if self.low is not None and self.high is not None and not task.is_class:
                columns |= {f"{task.name}_lo": self.low[:, i], f"{task.name}_hi": self.high[:, i]}
        if self.similarity is not None and self.inside is not None:
            columns |= {
                "similarity": self.similarity,
                "in_domain": np.any(self.inside, axis=1),
                "outside": self._outside(self.inside, [task.name for task in tasks]),
            }
        return columns

    def _outside(self, inside: np.ndarray, names: Sequence[str]) -> np.ndarray:
        """Texts `[B]`: the tasks that each molecule is outside of. Molecules share few patterns, each written once."""
        packed = np.ascontiguousarray(np.packbits(inside, axis=1))
        _, first, pattern = np.unique(
            packed.view(f"V{packed.shape[1]}").ravel(), return_index=True, return_inverse=True
        )
        texts = [" ".join(name for name, within in zip(names, inside[i], strict=True) if not within) for i in first]
        outside = np.array(texts, dtype=object)[pattern] if texts else np.empty(0, object)
        outside[[status != OK for status in self.status]] = ""
        return outside


@dataclass(frozen=True)
class Predictions:
    """One row for each molecule given, in order: `smiles`, the columns of `Scores.columns`, `status`, `error`."""

    smiles: list[str]
    tasks: tuple[Task, ...]
    scores: Scores

    def __len__(self) -> int:
        return len(self.smiles)

    def columns(self) -> dict[str, Any]:
        """Column name -> list or array."""
        scores = self.scores
        return {"smiles": self.smiles, **scores.columns(self.tasks), "status": scores.status, "error": scores.error}

    def to_pandas(self) -> pandas.DataFrame:
        import pandas

        return pandas.DataFrame(self.columns())

    def to_arrow(self) -> pyarrow.Table:
        """Failed values are nulls, not NaN."""
        import pyarrow

        failed = np.array([status != OK for status in self.scores.status], dtype=bool)
        arrays = {
            name: pyarrow.array(column, mask=failed | (np.isnan(column) if column.dtype.kind == "f" else failed))
            if isinstance(column, np.ndarray) and column.dtype != object
            else pyarrow.array(column, pyarrow.string())
            for name, column in self.columns().items()
        }
        return pyarrow.table(arrays)

    def __repr__(self) -> str:
        return repr(self.to_pandas())

    def _repr_html_(self) -> str:
        return self.to_pandas().to_html()


@dataclass(frozen=True)
class Calibrator:
    """How far a pack's numbers can be trusted: its calibration and domain, for the chosen tasks."""

    parts: Sequence[Intervals | Platt]
    thresholds: np.ndarray
    domain: Domain
    confidence: float

    @classmethod
    def of(
        cls, calibration: Calibration | None, domain: Domain | None, chosen: Sequence[int], confidence: float
    ) -> Calibrator | None:
        """Of the tasks at the positions `chosen`; None when the pack was not calibrated.

        Raises `InputError` when `confidence` is not between 0 and 1.
        """
        check_confidence(confidence)
        if calibration is None or domain is None:
            return None
        held = calibration.select(chosen)
        thresholds = np.array(held.thresholds, dtype=np.float32)
        return cls(held.parts, thresholds, domain.select(chosen), confidence)

    def intervals(self, values: np.ndarray, similarity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper bounds float32 `[B, P]` for values and similarities of that shape; NaN for classes."""
        half = np.full_like(values, np.nan)
        for i, part in enumerate(self.parts):
            if isinstance(part, Intervals):
                half[:, i] = part.half_width(similarity[:, i], self.confidence)
        return values - half, values + half
