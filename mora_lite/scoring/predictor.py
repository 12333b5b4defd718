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
from dataclasses import replace
from functools import cached_property
from numbers import Integral
from typing import Any, NoReturn, TypeAlias

import numpy as np

from ..chem.featurizer import Featurizer
from ..chem.graph import Graphs
from ..context.approved import ApprovedDrugs, approved_smiles
from ..context.extras import extra_columns
from ..context.parentage import Parentage
from ..errors import InputError
from ..status import NOT_FINITE, OK, REASONS, counted
from ..tables.library import Window
from ..tables.molecule_column import read_molecules
from ..tables.parsed import Describe, ParsedWindow, parse_window
from .conformal import Platt
from .explanation import Explanation
from .neighbours import Neighbours
from .predictions import Predictions
from .scores import Calibrator, Scores, percentile_columns
from .tasks import Task, choose_tasks
from .training_molecules import TrainingMolecules

Molecules: TypeAlias = Any  # what `read_molecules` takes

NAMED_TASKS = 6  # in the line that names a model


class Predictor(ABC):
    """What every model is, whatever computes its values.

    tasks: in the order of their columns.
    featurizer: how molecules are read, as in training.
    calibrator: intervals, probabilities and domain; None for a pack that was not calibrated.
    device: the torch device that computes similarities; None for NumPy.
    seconds: stage -> time spent in it so far.
    """

    def __init__(
        self, tasks: tuple[Task, ...], featurizer: Featurizer, calibrator: Calibrator | None, device: Any = None
    ):
        self.tasks = tasks
        self.featurizer = featurizer
        self.calibrator = calibrator
        self.device = device
        self.seconds: dict[str, float] = defaultdict(float)
        self._is_class = np.array([task.is_class for task in tasks], dtype=bool)

    @abstractmethod
    def score_graphs(self, graphs: Graphs, batch_size: int | None = None) -> np.ndarray:
        """Values of molecules that are graphs already: float32 `[B, P]`, before `calibrate`.

        In the tasks' units, but log-odds for classes, and what is learnt where a task has another `scale` than linear.
        batch_size: molecules at a time; None for what suits the device.
        """

    @abstractmethod
    def load_training(self) -> TrainingMolecules:
        """The training molecules that have a value for one of `tasks`. Raises `PackError` when there are none."""

    @property
    def calibrated(self) -> bool:
        """Whether there are intervals and a domain."""
        return self.calibrator is not None

    @property
    def pack_sha256(self) -> str:
        """Of the pack's manifest, also where an exported folder was loaded; empty for what is no pack."""
        return ""

    @property
    def place(self) -> str:
        """What is loaded and where it computes, for `repr`: `pack admet on cpu in bfloat16`."""
        return f"on {self.device}"

    def __repr__(self) -> str:
        names = ", ".join(task.name for task in self.tasks[:NAMED_TASKS])
        others = len(self.tasks) - NAMED_TASKS
        named = f"{counted(len(self.tasks), 'task')}: {names}"
        return f"<{type(self).__name__} {self.place}; {named}{f' and {others} others' if others > 0 else ''}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"a {type(self).__name__} cannot be copied to another process: load it there too, once in each process, "
            "or score a file with mora_lite.screen, which starts processes of its own"
        )

    @cached_property
    def training(self) -> TrainingMolecules:
        """As `load_training`, read at first use: only neighbours need it."""
        return self.load_training()

    @cached_property
    def approved(self) -> ApprovedDrugs:
        """What it predicts for approved drugs: known for a pack that ships, else scored at first use, in seconds."""
        names = tuple(task.name for task in self.tasks)
        known = ApprovedDrugs.known(self.pack_sha256)
        return known.select(names) if known else ApprovedDrugs.of(names, self.score(approved_smiles()).values)

    def percentiles(self, scores: Scores) -> np.ndarray:
        """The share of approved drugs for which a lower value is predicted, in percent: float32 `[B, P]`, 0 to 100.

        NaN where there is no value. docs/explain.md says which drugs, and what it means.
        """
        return self.approved.places(scores.values)

    def predict(
        self,
        smiles: Molecules,
        batch_size: int | None = None,
        *,
        smiles_column: str | None = None,
        extras: bool = False,
        percentiles: bool = False,
    ) -> Predictions:
        """Score molecules; a row that cannot be scored has NaN values, a status and an error, and stops nothing.

        smiles: a SMILES, an RDKit molecule, a list of them in which None and NaN are missing ones, or a pandas, Arrow
            or Polars column or table. The index of a pandas object is that of the result's `to_pandas`.
        batch_size: molecules at a time; None for what suits the device.
        smiles_column: of a table; None finds it by its name, else by its content.
        extras, percentiles: columns to add, as in `score`.

        Raises `InputError` for anything else, or when no column of a table holds SMILES.
        """
        column = read_molecules(smiles, smiles_column)
        scores = self.score(column.smiles, batch_size, extras=extras, percentiles=percentiles)
        return Predictions(column.smiles, self.tasks, scores, column.index)

    def neighbours(self, smiles: Molecules, n: int = 3) -> Neighbours:
        """The `n` training molecules most similar to each molecule, with the values that were measured for them.

        Similarity is Tanimoto's of the pack's fingerprints, 0 to 1; equal ones come in the order of the training table.
        Only molecules with a value for one of the model's tasks count. A SMILES that cannot be read has no neighbours.
        smiles: as for `predict`. Raises `PackError` when the pack does not hold its training molecules.
        """
        if not (isinstance(n, Integral) and n >= 1):
            raise InputError(f"n: got {n!r}, expected a whole number, 1 or more")
        rows = read_molecules(smiles).smiles
        parsed = self._parse(rows)
        return self._find_neighbours(parsed, n)

    def explain(self, smiles: Molecules, tasks: str | Sequence[str] | None = None) -> Explanation:
        """What each atom of one molecule contributes to its values: docs/explain.md says by what method.

        smiles: one SMILES or RDKit molecule. tasks: names, as a list or one text with commas; None for all.
        Raises `InputError` for anything else, and for a molecule that cannot be scored.
        """
        column = read_molecules(smiles).smiles
        if len(column) != 1:
            raise InputError(f"explain: got {len(column)} molecules, expected one: call it for each")
        choose_tasks(self.tasks, tasks)  # now, so that a typo costs no work
        molecule = Parentage.read(column[0], self.featurizer)
        return Explanation.of(molecule, self.tasks, self.score_graphs).select(tasks)

    def score(
        self,
        smiles: Sequence[str],
        batch_size: int | None = None,
        n_neighbours: int = 0,
        *,
        extras: bool = False,
        percentiles: bool = False,
    ) -> Scores:
        """Values, intervals, statuses and errors of SMILES, in order; `batch_size` as in `score_graphs`.

        n_neighbours: how many of `neighbours` to add; 0 for none.
        extras: whether to add properties and alerts (`context.extras`). percentiles: and those among approved drugs.
        """
        if batch_size is not None and not (isinstance(batch_size, Integral) and batch_size >= 1):
            raise InputError(f"batch_size: got {batch_size!r}, expected a whole number, 1 or more, or None")
        parsed = self._parse(smiles, extra_columns if extras else None)
        return self.score_parsed(parsed, batch_size, n_neighbours, percentiles)

    def score_parsed(
        self,
        parsed: ParsedWindow,
        batch_size: int | None = None,
        n_neighbours: int = 0,
        percentiles: bool = False,
    ) -> Scores:
        """`score` of rows that were parsed before. What was described then stands beside the values."""
        scores = self.calibrate(self.score_graphs(parsed.graphs, batch_size), parsed.bits)
        status, error, ok_rows = list(parsed.status), list(parsed.error), parsed.ok_rows
        finite = np.isfinite(scores.values).all(axis=1)
        if not finite.all():
            for row in ok_rows[~finite].tolist():
                status[row], error[row] = NOT_FINITE, REASONS[NOT_FINITE]
            scores, ok_rows = scores.at(np.flatnonzero(finite)), ok_rows[finite]
        scores = self._scatter(scores, ok_rows, status, error)
        beside: dict[str, np.ndarray] = {}
        if percentiles:
            places = self.percentiles(scores)
            beside = {name: places[:, i] for i, name in enumerate(percentile_columns(self.tasks))}
        beside |= parsed.beside
        neighbours = self._find_neighbours(parsed, n_neighbours) if n_neighbours else None
        return replace(scores, neighbours=neighbours, beside=beside)

    def _parse(self, smiles: Sequence[str], describe: Describe | None = None) -> ParsedWindow:
        with self._timed("parse"):
            return parse_window(Window.of(smiles), self.featurizer, describe=describe)

    def calibrate(self, values: np.ndarray, bits: np.ndarray | None) -> Scores:
        """Apply the pack's calibration: probabilities, intervals, domain; all values in the tasks' units.

        An interval is made on the task's scale: that of a logarithm is as wide above as below, that of its value not.

        values: float32 `[N, P]`, as `score_graphs` returns them.
        bits: uint8 `[N, 128]`, fingerprints of the same molecules; None leaves intervals and domain out.
        """
        status, error = [OK] * len(values), [""] * len(values)
        if self.calibrator is None or bits is None:
            return Scores(self._answers(values), status, error)
        with self._timed("similarity"):
            nearest = self.calibrator.domain.similarity(bits, self.device)
        low, high = self.calibrator.intervals(values, nearest)
        for i, task in enumerate(self.tasks):
            task.open_ends(low[:, i], high[:, i])
        low, high = self._in_units(low), self._in_units(high)
        inside = nearest >= self.calibrator.thresholds
        return Scores(self._answers(values), status, error, low, high, nearest, inside)

    def _find_neighbours(self, parsed: ParsedWindow, n: int) -> Neighbours:
        """Neighbours of all rows; those that are not ok have none."""
        index, similarity = np.full((len(parsed), n), -1, np.int64), np.full((len(parsed), n), np.nan, np.float32)
        training, ok_rows = self.training, parsed.ok_rows
        with self._timed("neighbours"):
            index[ok_rows], similarity[ok_rows] = training.nearest(parsed.bits, n)
        return Neighbours(parsed.smiles, self.tasks, index, similarity, training)

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

    def _scatter(self, scores: Scores, ok_rows: np.ndarray, status: list[str], error: list[str]) -> Scores:
        """Scores of `N` molecules as rows `ok_rows` of `B`; others have NaN or False, and all `status` and `error`."""
        if len(ok_rows) == len(status):
            return scores

        def scatter(part: np.ndarray | None) -> Any:
            if part is None:
                return None
            whole = np.full((len(status), len(self.tasks)), False if part.dtype == bool else np.nan, part.dtype)
            whole[ok_rows] = part
            return whole

        parts = map(scatter, (scores.low, scores.high, scores.nearest, scores.inside))
        return Scores(scatter(scores.values), status, error, *parts)

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self._finish()
        self.seconds[stage] += time.perf_counter() - started

    def _finish(self) -> None:  # noqa: B027 - most have nothing to wait for
        """Wait for what a device still computes, so that its time is counted with the right stage."""
