"""The short scorer on a CUDA device: batches of few sizes, whose kernels are recorded once and replayed as CUDA graphs.

A molecule costs the device a microsecond or two, so that Python, which starts some three hundred kernels for a batch,
and numpy, which sorts its bonds, would take most of the time. Here a batch is one copy of bytes, padded to one of a few
sizes; all else, the sorting too, is in the graph.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..chem.graph import Graphs
from ..machine.capture import record
from .batch import BatchSize, _rounded, pack_batch, unpack_batch
from .scorer import FastScorer

MAX_GRAPHS = 24  # recorded ones that are kept; each holds its inputs and answers, the rest of the memory is shared


@dataclass
class _Captured:
    graph: torch.cuda.CUDAGraph
    scores: Tensor


class CapturedScorer:
    """Batches for `short`, which lies on a CUDA device. Not for two threads at a time."""

    def __init__(self, short: FastScorer, device: torch.device):
        self.short, self.device = short, device
        self._recorded: OrderedDict[BatchSize, _Captured] = OrderedDict()
        self._pool: Any = None
        self._bytes: tuple[Tensor, Tensor] | None = None  # pinned, and on the device

    def __call__(self, graphs: Graphs) -> np.ndarray:
        """z-scores float32 `[B, P]`. Raises torch.OutOfMemoryError; then nothing is kept."""
        size = BatchSize.of(graphs, _rounded(len(graphs), 64))
        try:
            with torch.inference_mode(), torch.cuda.device(self.device):
                held, ours = self._room(size.nbytes)
                pack_batch(graphs, size, held.numpy())
                ours[: size.nbytes].copy_(held[: size.nbytes], non_blocking=True)
                recorded = self._recorded.get(size) or self._record(size, ours)
                self._recorded.move_to_end(size)
                recorded.graph.replay()
                return recorded.scores[: len(graphs)].cpu().numpy()
        except RuntimeError:
            self._forget()
            self._bytes = None
            raise

    def _room(self, nbytes: int) -> tuple[Tensor, Tensor]:
        """The bytes here and on the device; when they move, what was recorded reads the wrong ones."""
        if self._bytes is None or len(self._bytes[0]) < nbytes:
            self._forget()
            held = torch.zeros(2 * nbytes, dtype=torch.uint8, pin_memory=True)
            self._bytes = held, torch.zeros(2 * nbytes, dtype=torch.uint8, device=self.device)
        return self._bytes

    def _forget(self) -> None:
        self._recorded.clear()
        self._pool = None  # memory that no graph uses any more cannot be shared again

    def _record(self, size: BatchSize, data: Tensor) -> _Captured:
        while len(self._recorded) >= MAX_GRAPHS:
            self._recorded.popitem(last=False)
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        graph, scores = record(lambda: self.short.run(unpack_batch(data[: size.nbytes], size)), self.device, self._pool)
        recorded = self._recorded[size] = _Captured(graph, scores)
        return recorded

    def stage_seconds(self, graphs: Graphs, repeats: int = 20) -> dict[str, float]:
        """What each stage of a batch takes on the device, by its name; each is recorded by itself."""
        short, size = self.short, BatchSize.of(graphs, _rounded(len(graphs), 64))
        held = np.zeros(size.nbytes, np.uint8)
        pack_batch(graphs, size, held)
        seconds = {}

        def timed(name: str, work: Callable[[], Any]) -> Any:
            graph, result = record(work, self.device, None)
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            graph.replay()
            start.record()
            for _ in range(repeats):
                graph.replay()
            end.record()
            end.synchronize()
            seconds[name] = start.elapsed_time(end) / 1e3 / repeats
            kept.append(graph)  # its memory holds the result
            return result

        kept: list[Any] = []
        with torch.inference_mode(), torch.cuda.device(self.device):
            data = torch.from_numpy(held).to(self.device)
            batch = timed("sorting", lambda: unpack_batch(data, size))
            atoms, molecules = timed("encoder", lambda: short.encoder(batch))
            states = timed("hypernetwork", lambda: short.hypernet(atoms, molecules, batch))
            timed("decoder", lambda: short.read_out(states, molecules))
        return seconds
