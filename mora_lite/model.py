"""The front door: load a pack, give it SMILES, get a table."""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .conformal import Intervals, Platt, check_confidence
from .short_scorer import ShortScorer, can_run
from .device import available_bytes, choose_device, choose_dtype, keep_freed_memory
from .domain import Domain, fingerprints
from .errors import DeviceError
from .graph import GraphBatch, Graphs, concatenate, featurize
from .molecules import OK, parse_smiles
from .pack import Pack, open_pack
from .quant.linear import choose_mode
from .replay import Replay
from .scorer import Scorer
from .tasks import Task, choose_tasks

if TYPE_CHECKING:
    import pandas
    import pyarrow

BATCH_SIZE = {"cpu": 512, "cuda": 4096}  # molecules
# Of `ShortScorer`: what a batch writes and reads again stays in the processor's cache. Every batch has this size, so a
# row has the same bits whatever the other rows are, in bfloat16 too.
CPU_BATCH_SIZE = 64
# Batches are filled up with one-atom molecules to a multiple of this. Matrix libraries choose another order of adding
# for a few rows than for many; from 256 rows on a row's float32 bits were the same at every size (docs/method.md).
FILL = 256


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
            names = np.array([task.name for task in tasks], dtype=object)
            found = zip(self.inside, self.status, strict=True)
            outside = np.array([" ".join(names[~row]) if status == OK else "" for row, status in found], dtype=object)
            columns |= {"similarity": self.similarity, "in_domain": np.any(self.inside, axis=1), "outside": outside}
        return columns


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


class Model:
    """A loaded pack. Made by `load`.

    tasks: what it answers, in column order. confidence: of the intervals. seconds: time spent so far in each stage, by
    name.
    """

    def __init__(
        self,
        pack: Pack,
        scorer: Scorer,
        tasks: tuple[Task, ...],
        dtype: torch.dtype,
        trust: Trust | None = None,
        short_scorer: ShortScorer | None = None,
    ):
        self.pack = pack
        self.scorer = scorer
        self.short_scorer = short_scorer
        on_gpu = short_scorer is not None and scorer.c.device.type == "cuda"
        self.replay = Replay(short_scorer, scorer.c.device) if short_scorer is not None and on_gpu else None
        self.tasks = tasks
        self.dtype = dtype
        self.trust = trust
        self.device = scorer.c.device
        self.seconds: dict[str, float] = defaultdict(float)
        self._fits = sys.maxsize  # molecules at a time, once memory has run out
        self._mean = np.array([task.mean for task in tasks], dtype=np.float32)
        self._deviation = np.array([task.deviation for task in tasks], dtype=np.float32)
        self._is_class = np.array([task.is_class for task in tasks], dtype=bool)
        self._filler = featurize([parse_smiles("C").mol])

    def predict(self, smiles: str | Sequence[str], batch_size: int | None = None) -> Predictions:
        """Score SMILES; a row that cannot be scored has NaN values, a status and an error, and stops nothing."""
        rows = [smiles] if isinstance(smiles, str) else [_text(entry) for entry in smiles]
        return Predictions(rows, self.tasks, self.score(rows, batch_size))

    def score(self, smiles: Sequence[str], batch_size: int | None = None) -> Scores:
        """Values, intervals, statuses and errors of SMILES, in order.

        On a CPU the bits of a row do not depend on the other rows or the batch size; of types other than float32 that
        holds where `short_scorer` is used, else nearly.

        batch_size: molecules at a time; halved, and kept so, when memory does not suffice. `short_scorer` has its own.
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
            with self._timed("similarity"):
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

    def score_graphs(self, graphs: Graphs, batch_size: int | None = None) -> np.ndarray:
        """float32 `[B, P]` in the tasks' units, log-odds for classes, for graphs that are ready."""
        size = min(batch_size or BATCH_SIZE[self.device.type], self._fits)
        if self.short_scorer is not None and self.replay is None:
            size = min(CPU_BATCH_SIZE, self._fits)
        z_scores = np.empty((len(graphs), len(self.tasks)), dtype=np.float32)
        # Molecules of one size beside each other: `ShortScorer` pads to the largest, and no batch is much larger than
        # the others.
        order = np.argsort(graphs.n_atoms, kind="stable")
        start = 0
        while start < len(graphs):
            rows = order[start : start + size]
            part = graphs.select(rows)
            try:
                z_scores[rows] = self._score_batch(part)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                if len(part) == 1:
                    raise DeviceError(
                        f"out of memory on {self.device} with one molecule at a time; use --device cpu, "
                        "fewer tasks, or close other programs"
                    ) from None
                size = self._fits = (len(part) + 1) // 2
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()
                continue
            start += size
        return self.in_units(z_scores)

    def in_units(self, z_scores: np.ndarray) -> np.ndarray:
        """z-scores float32 `[B, P]` -> values in the tasks' units, log-odds for classes."""
        return z_scores * self._deviation + self._mean

    def _score_batch(self, graphs: Graphs) -> np.ndarray:
        """z-scores float32 `[B, P]`."""
        n = len(graphs)
        if self.replay is not None:
            with self._timed("device"):
                return self.replay(graphs)
        if self.short_scorer is not None:
            missing = max(0, CPU_BATCH_SIZE - n)
            filled = concatenate([self._fillers(missing), graphs]) if missing else graphs
            return self.short_scorer(filled, self._timed)[missing:].numpy()
        with self._timed("graphs"):
            missing = -n % FILL if n >= FILL or self._needs_fill() else 0
            filled = concatenate([graphs, self._fillers(missing)]) if missing else graphs
            batch = filled.batch().rounded().to(self.device)
        cast = torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)
        with torch.inference_mode(), cast:
            return self._run(batch)[:n].float().cpu().numpy()

    def _run(self, batch: GraphBatch) -> torch.Tensor:
        """The scorer's forward pass, stage by stage."""
        scorer = self.scorer
        with self._timed("encoder"):
            tokens = scorer.encode(batch)
        with self._timed("hypernetwork"):
            a = scorer.hypernet(tokens)
        with self._timed("decoder"):
            hidden = scorer.upper.score(scorer.prompts, a, scorer.c, scorer.scale)
            return scorer.read_out(hidden, tokens.molecules)

    def _fillers(self, n: int) -> Graphs:
        return self._filler.select(np.zeros(n, np.int64))

    def _needs_fill(self) -> bool:
        return self.device.type == "cpu"

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds[stage] += time.perf_counter() - started


def _text(entry: object) -> str:
    """An entry of a list or column as SMILES text; missing values of any kind (None, NaN, pandas.NA) are empty."""
    if isinstance(entry, str):
        return entry
    text = str(entry)
    return "" if text in ("None", "nan", "<NA>") else text


def is_out_of_memory(error: BaseException) -> bool:
    """Whether CUDA, torch's CPU allocator or Python ran out of memory."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)


@dataclass(frozen=True)
class Trust:
    """How far a pack's numbers can be trusted: its calibration and domain, for the chosen tasks."""

    parts: Sequence[Intervals | Platt]
    thresholds: np.ndarray
    domain: Domain
    confidence: float

    def intervals(self, values: np.ndarray, similarity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper bounds float32 `[B, P]` for values and similarities of that shape; NaN for classes."""
        half = np.full_like(values, np.nan)
        for i, part in enumerate(self.parts):
            if isinstance(part, Intervals):
                half[:, i] = part.half_width(similarity[:, i], self.confidence)
        return values - half, values + half


def load(
    pack: str | Path = "admet",
    *,
    device: str = "auto",
    dtype: str = "auto",
    tasks: Sequence[str] | None = None,
    memory_budget: int | None = None,
    confidence: float = 0.9,
) -> Model:
    """Load a pack by name or path, for prediction. No network is used.

    device: `auto`, `cpu`, `cuda`, `cuda:N`. dtype: `auto`, `float32`, `bfloat16`, `float16`. With `auto` it computes by
    the short way (`short_scorer.py`), else by the plain one (`scorer.py`).
    tasks: names, None for all.
    memory_budget: bytes that the dequantised upper layers may take; above it they stay in 4 bits and are dequantised at
    each use. confidence: of the intervals, between 0 and 1. Raises `PackError` or `DeviceError`, each with what to do.
    """
    keep_freed_memory()
    where = choose_device(device)
    number_type = choose_dtype(dtype, where)
    opened = open_pack(pack)
    chosen = choose_tasks(opened.tasks, list(tasks) if tasks is not None else None)
    width = torch.empty((), dtype=number_type).element_size()
    budget = memory_budget if memory_budget is not None else available_bytes(where) // 2
    mode = choose_mode(opened.resident_numbers() * width, budget)
    scorer = opened.load_scorer(number_type, mode)
    scorer.select(chosen)
    check_confidence(confidence)
    calibration, domain = opened.load_calibration(), opened.load_domain()
    trust = None
    if calibration is not None and domain is not None:
        held = calibration.select(chosen)
        thresholds = np.array(held.thresholds, dtype=np.float32)
        trust = Trust(held.parts, thresholds, domain.select(chosen), confidence)
    scorer = scorer.to(where)
    short = ShortScorer(scorer, number_type) if dtype == "auto" and can_run(scorer) else None
    return Model(opened, scorer, tuple(opened.tasks[i] for i in chosen), number_type, trust, short)
