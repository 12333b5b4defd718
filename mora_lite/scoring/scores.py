"""Scores of molecules: as arrays (`Scores`), as a table (`Predictions`), and their calibration (`Calibrator`).

Needs NumPy only.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..status import OK
from .conformal import Calibration, Intervals, Platt, check_confidence
from .domain import Domain
from .neighbours import Neighbours
from .tasks import Task

if TYPE_CHECKING:
    import pandas
    import pyarrow


SHOWN_ROWS = 60  # in a notebook


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
    """

    values: np.ndarray
    status: list[str]
    error: list[str]
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    nearest: np.ndarray | None = None
    inside: np.ndarray | None = None
    neighbours: Neighbours | None = None

    @classmethod
    def empty(cls, n_tasks: int, calibrated: bool) -> Scores:
        """Scores of no molecule."""
        none = np.empty((0, n_tasks), np.float32)
        return cls(none, [], [], none, none, none, none.astype(bool)) if calibrated else cls(none, [], [])

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
        return columns if self.neighbours is None else columns | self.neighbours.columns()

    def _outside(self, inside: np.ndarray, names: Sequence[str]) -> np.ndarray:
        """The names of the tasks whose domain a molecule is outside of: text `[B]`."""
        # Molecules share few patterns of tasks, so each text is made once.
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
    """One row for each molecule, in order: `smiles`, the columns of `Scores.columns`, `status`, `error`."""

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
        """The first rows for a notebook; values of tasks whose domain a molecule is outside of are faint."""
        import pandas

        columns = {name: [_as_html(cell) for cell in column[:SHOWN_ROWS]] for name, column in self.columns().items()}
        for i, task in enumerate(self.tasks):
            for name in {task.column, f"{task.name}_lo", f"{task.name}_hi"} & columns.keys():
                for row in self._far_rows(i):
                    columns[name][row] = f'<span style="opacity: 0.45">{columns[name][row]}</span>'
        frame = pandas.DataFrame({html.escape(name): cells for name, cells in columns.items()})
        more = f"<p>the first {SHOWN_ROWS} of {len(self):,} rows</p>" if len(self) > SHOWN_ROWS else ""
        with pandas.option_context("display.max_colwidth", None):  # it would cut within a tag
            return frame.to_html(escape=False) + more  # the cells are escaped already

    def _far_rows(self, task: int) -> list[int]:
        """Of the rows shown, those that are outside of the domain of the task at this position."""
        if self.scores.inside is None:
            return []
        far = np.flatnonzero(~self.scores.inside[:SHOWN_ROWS, task]).tolist()
        return [row for row in far if self.scores.status[row] == OK]


def _as_html(cell: object) -> str:
    """A cell's text, escaped; numbers have six significant digits as in files."""
    return f"{cell:.6g}" if isinstance(cell, float | np.floating) else html.escape(str(cell))


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

        Raises `InputError` when `confidence` is not between 0 and 1.
        """
        check_confidence(confidence)
        if calibration is None or domain is None:
            return None
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
