"""The front door: load a pack, give it SMILES, get a table. Here torch computes the values."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .chem.graph import Graphs
from .fast.captured import CapturedScorer
from .fast.graph_ops import choose_graph_ops
from .fast.scorer import FastScorer
from .fast.upper import supports
from .machine.device import (
    available_bytes,
    choose_device,
    choose_dtype,
    compute_in_batches,
    is_out_of_memory,
    keep_freed_memory,
    work_alone_after_fork,
)
from .packs.pack import Pack, open_pack
from .quant.linear import choose_mode
from .scoring.predictions import Predictions
from .scoring.predictor import Predictor
from .scoring.scorer import Engine, PlainScorer, Scorer
from .scoring.scores import Calibrator, Scores
from .scoring.tasks import Task, choose_tasks
from .scoring.training_molecules import TrainingMolecules
from .scoring.trees import Trees

__all__ = ["Calibrator", "Model", "Predictions", "Scores", "from_pretrained", "is_out_of_memory", "load"]


class Model(Predictor):
    """A loaded pack. Made by `load`.

    A molecule's values do not depend on the other molecules or the batch size, to within the tolerance of
    docs/method.md. A batch is halved, and stays so, when memory does not suffice.
    """

    def __init__(
        self,
        pack: Pack,
        engine: Engine,
        scorer: Scorer,
        tasks: tuple[Task, ...],
        dtype: torch.dtype,
        calibrator: Calibrator | None = None,
        trees: Trees | None = None,
    ):
        super().__init__(tasks, pack.featurizer, calibrator, scorer.c.device)
        self.pack, self.engine = pack, engine
        self.scorer, self.dtype, self.trees = scorer, dtype, trees
        self._fits = sys.maxsize  # molecules at a time, once memory has run out
        self._mean = np.array([task.mean for task in tasks], dtype=np.float32)
        self._std = np.array([task.deviation for task in tasks], dtype=np.float32)

    @property
    def pack_sha256(self) -> str:
        return self.pack.manifest["sha256"]

    @property
    def place(self) -> str:
        """See `Predictor.place`."""
        return f"pack {self.pack.name} on {self.device} in {str(self.dtype).removeprefix('torch.')}"

    def fit_batch_size(self, batch_size: int | None) -> int:
        """Molecules at a time where `batch_size` is asked for, which not every engine grants."""
        return self.engine.batch_size if self.engine.fixed_size else batch_size or self.engine.batch_size

    def score_graphs(self, graphs: Graphs, batch_size: int | None = None) -> np.ndarray:
        """See `Predictor.score_graphs`.

        Of a pack with trees the mean of the network's values and theirs, where the graphs have descriptors; parts of
        molecules, as `explain` asks for, have none.
        """
        size = min(self.fit_batch_size(batch_size), self._fits)
        z_scores = np.empty((len(graphs), len(self.tasks)), dtype=np.float32)
        # Molecules of one size beside each other: a batch may be padded to its largest molecule, and no batch is much
        # larger than the others. What fits into one batch is taken as it is.
        whole = len(graphs) <= size
        order = np.arange(len(graphs)) if whole else np.argsort(graphs.n_atoms, kind="stable")

        def score(rows: np.ndarray) -> None:
            batch = graphs if whole and len(rows) == len(graphs) else graphs.select(rows)
            z_scores[rows] = self.engine.z_scores(batch, self._timed)

        work, one = "scoring molecules", "one molecule"
        fits = compute_in_batches(score, order, size, self.device, work=work, one=one, advice="fewer tasks")
        if fits < size:
            self._fits = fits
        values = self.on_scales(z_scores)
        if self.trees is None or graphs.descriptors is None:
            return values
        with self._timed("trees"):
            return (values + self.trees.scores(graphs.descriptors)) / 2

    def load_training(self) -> TrainingMolecules:
        return self.pack.load_training().select([self.pack.tasks.index(task) for task in self.tasks])

    def on_scales(self, z_scores: np.ndarray) -> np.ndarray:
        """z-scores float32 `[B, P]` -> what `score_graphs` returns."""
        return z_scores * self._std + self._mean

    def _finish(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def choose_engine(scorer: Scorer, dtype: torch.dtype, exact: bool) -> Engine:
    """The fastest engine that covers the scorer, on its device. exact: whether to take the plain one in any case."""
    if exact or not supports(scorer.upper):
        return PlainScorer(scorer, dtype)
    device = scorer.c.device
    fast = FastScorer(scorer, dtype, choose_graph_ops(device))
    return CapturedScorer(fast, device) if device.type == "cuda" else fast


def load(
    pack: str | Path | Pack = "admet",
    *,
    device: str = "auto",
    dtype: str = "auto",
    tasks: str | Sequence[str] | None = None,
    memory_budget: int | None = None,
    confidence: float = 0.9,
) -> Model:
    """Load a pack for prediction, by name or path, or from the Hugging Face hub as `hf:owner/name[@revision]`.

    pack: one that is open already is not checked again.
    device: `auto` (a CUDA device if there is one), `cpu`, `cuda` or `cuda:N`.
    dtype: `auto`, `float32`, `bfloat16`, `float16`. `auto` takes a fast engine (`fast/`) where it covers the pack; a
    type by name always takes the plain one.
    tasks: names in any case, as a list or one text with commas; None for all.
    memory_budget: bytes that the dequantised upper layers may take, by default half of what is free; above it they stay
    in 4 bits and are dequantised at each use.
    confidence: of the intervals, between 0 and 1.

    Only a repository that is not in the hub's cache needs a network. Raises `PackError`, `DeviceError` or `InputError`.
    """
    keep_freed_memory()
    work_alone_after_fork()
    torch_device = choose_device(device)
    torch_dtype = choose_dtype(dtype, torch_device)
    opened = pack if isinstance(pack, Pack) else open_pack(pack)
    chosen = choose_tasks(opened.tasks, tasks)
    width = torch.empty((), dtype=torch_dtype).element_size()
    budget = memory_budget if memory_budget is not None else available_bytes(torch_device) // 2
    mode = choose_mode(opened.n_resident_weights() * width, budget)
    scorer = opened.load_scorer(torch_dtype, mode)
    scorer.select(chosen)
    calibrator = Calibrator.of(opened.load_calibration(), opened.load_domain(), chosen, confidence)
    scorer = scorer.to(torch_device)
    engine = choose_engine(scorer, torch_dtype, exact=dtype != "auto")
    trees = opened.load_trees()
    if trees is not None:
        trees = trees.select(chosen)
    return Model(opened, engine, scorer, tuple(opened.tasks[i] for i in chosen), torch_dtype, calibrator, trees)


def from_pretrained(repository: str, revision: str | None = None, **options: Any) -> Model:
    """`load` of a repository of the Hugging Face hub, `owner/name`. revision: branch, tag or commit."""
    return load(f"hf:{repository}@{revision}" if revision else f"hf:{repository}", **options)
