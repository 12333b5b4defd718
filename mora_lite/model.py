"""The front door: load a pack, give it SMILES, get a table. Here torch computes the values."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .chem.graph import GraphBatch, Graphs, concatenate, featurize
from .chem.molecules import parse_smiles
from .errors import DeviceError
from .fast.captured import CapturedScorer
from .fast.scorer import FastScorer, choose_ops, supports
from .machine.device import available_bytes, choose_device, choose_dtype, is_out_of_memory, keep_freed_memory
from .packs.pack import Pack, open_pack
from .quant.linear import choose_mode
from .scoring.predictor import Predictor
from .scoring.scorer import Scorer
from .scoring.scores import Calibrator, Predictions, Scores
from .scoring.tasks import Task, choose_tasks

__all__ = ["Calibrator", "Model", "Predictions", "Scores", "from_pretrained", "is_out_of_memory", "load"]

BATCH_SIZE = {"cpu": 512, "cuda": 4096}  # molecules
# Of `FastScorer`: what a batch writes and reads again stays in the processor's cache. Every batch has this size, so a
# row has the same bits whatever the other rows are, in bfloat16 too.
CPU_BATCH_SIZE = 64
# Batches are filled up with one-atom molecules to a multiple of this. Matrix libraries choose another order of adding
# for a few rows than for many; from 256 rows on a row's float32 bits were the same at every size (docs/method.md).
FILL = 256


class Model(Predictor):
    """A loaded pack. Made by `load`.

    On a CPU the bits of a row do not depend on the other rows or the batch size; of types other than float32 that holds
    where `fast_scorer` is used, which has its own size of batch there, else nearly. A batch is halved, and kept so,
    when memory does not suffice.
    """

    def __init__(
        self,
        pack: Pack,
        scorer: Scorer,
        tasks: tuple[Task, ...],
        dtype: torch.dtype,
        trust: Calibrator | None = None,
        fast_scorer: FastScorer | None = None,
    ):
        super().__init__(tasks, trust, scorer.c.device)
        self.pack = pack
        self.scorer = scorer
        self.fast_scorer = fast_scorer
        on_gpu = fast_scorer is not None and scorer.c.device.type == "cuda"
        self.replay = CapturedScorer(fast_scorer, scorer.c.device) if fast_scorer is not None and on_gpu else None
        self.dtype = dtype
        self._fits = sys.maxsize  # molecules at a time, once memory has run out
        self._mean = np.array([task.mean for task in tasks], dtype=np.float32)
        self._deviation = np.array([task.deviation for task in tasks], dtype=np.float32)
        self._filler = featurize([parse_smiles("C").mol])

    def score_graphs(self, graphs: Graphs, batch_size: int | None = None) -> np.ndarray:
        """float32 `[B, P]` in the tasks' units, log-odds for classes, for graphs that are ready."""
        size = min(batch_size or BATCH_SIZE[self.device.type], self._fits)
        if self.fast_scorer is not None and self.replay is None:
            size = min(CPU_BATCH_SIZE, self._fits)
        z_scores = np.empty((len(graphs), len(self.tasks)), dtype=np.float32)
        # What fits into one batch of a GPU is taken as it is: sorting it here costs more than padding it there.
        ready = self.replay is not None and len(graphs) <= size
        # Molecules of one size beside each other: `FastScorer` pads to the largest, and no batch is much larger than
        # the others.
        order = np.arange(len(graphs)) if ready else np.argsort(graphs.n_atoms, kind="stable")
        start = 0
        while start < len(graphs):
            rows = order[start : start + size]
            part = graphs if ready and len(rows) == len(graphs) else graphs.select(rows)
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
        if self.fast_scorer is not None:
            missing = max(0, CPU_BATCH_SIZE - n)
            filled = concatenate([self._fillers(missing), graphs]) if missing else graphs
            return self.fast_scorer(filled, self._timed)[missing:].numpy()
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

    def _finish(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def load(
    pack: str | Path = "admet",
    *,
    device: str = "auto",
    dtype: str = "auto",
    tasks: Sequence[str] | None = None,
    memory_budget: int | None = None,
    confidence: float = 0.9,
) -> Model:
    """Load a pack by name or path, for prediction. No network is used, but for a repository of the Hugging Face hub,
    `hf:owner/name` or `hf:owner/name@revision`, that is not in the hub's cache.

    device: `auto`, `cpu`, `cuda`, `cuda:N`. dtype: `auto`, `float32`, `bfloat16`, `float16`. With `auto` it computes by
    the short way (`fast_scorer.py`), else by the plain one (`scorer.py`).
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
    mode = choose_mode(opened.n_resident_weights() * width, budget)
    scorer = opened.load_scorer(number_type, mode)
    scorer.select(chosen)
    trust = Calibrator.of(opened.load_calibration(), opened.load_domain(), chosen, confidence)
    scorer = scorer.to(where)
    short = FastScorer(scorer, number_type, choose_ops(where)) if dtype == "auto" and supports(scorer) else None
    return Model(opened, scorer, tuple(opened.tasks[i] for i in chosen), number_type, trust, short)


def from_pretrained(repository: str, revision: str | None = None, **options: Any) -> Model:
    """`load` of a repository of the Hugging Face hub, `owner/name`. revision: branch, tag or commit."""
    return load(f"hf:{repository}@{revision}" if revision else f"hf:{repository}", **options)
