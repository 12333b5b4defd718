"""The fast scorer on a CUDA device: batches of few sizes, whose kernels are captured once as a CUDA graph and replayed.

A molecule costs the device a microsecond or two, so that Python, which starts some three hundred kernels for a batch,
and numpy, which sorts its bonds, would take most of the time. Here a batch is one copy of bytes, padded to one of a few
sizes; all else, the sorting too, is in the graph. The first batch of a size runs kernel by kernel, with the same
numbers: capturing is for runs of more than a few molecules.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..chem.graph import Graphs
from ..machine.capture import capture
from ..scoring.scorer import BATCH_SIZE, Timer, untimed
from .batch import BatchSize, SortedBatch, pack_batch, rounded_size, unpack_batch
from .scorer import FastScorer

MAX_GRAPHS = 24  # sizes that are known; the graph of each holds its answers, the rest of the memory is shared


class CapturedBatch(NamedTuple):
    """A graph that scores the batch in the buffer, and the scores that it writes: float32 `[B, P]`."""

    graph: torch.cuda.CUDAGraph
    scores: Tensor


class CapturedScorer:
    """The engine of GPUs, over the scorer `fast` on the same device. Not for two threads at a time."""

    batch_size, fixed_size = BATCH_SIZE["cuda"], False

    def __init__(self, fast: FastScorer, device: torch.device):
        self.fast, self.device = fast, device
        self._captured: OrderedDict[BatchSize, CapturedBatch | None] = OrderedDict()  # None: met once
        self._shared: dict[str, Any] = {}  # the pool and the stream of all graphs, whose memory is one
        self._buffers: tuple[Tensor, Tensor] | None = None  # bytes of a batch, in pinned memory and on the device

    def z_scores(self, graphs: Graphs, timed: Timer = untimed) -> np.ndarray:
        """See `Engine`. timed: wraps the whole, as `device`. Raises torch.OutOfMemoryError; then nothing is kept."""
        size = _padded_size(graphs)
        try:
            with timed("device"), torch.inference_mode(), torch.cuda.device(self.device):
                pinned, data = self._buffers_for(size.nbytes)
                pack_batch(graphs, size, pinned.numpy())
                data[: size.nbytes].copy_(pinned[: size.nbytes], non_blocking=True)
                return self._score(size, data)[: len(graphs)].cpu().numpy()
        except RuntimeError:
            self._clear_graphs()
            self._buffers = None
            raise

    def batch(self, graphs: Graphs) -> SortedBatch:
        """The molecules on the device, padded as they are for a graph."""
        size = _padded_size(graphs)
        data = np.zeros(size.nbytes, np.uint8)
        pack_batch(graphs, size, data)
        return unpack_batch(torch.from_numpy(data).to(self.device), size)

    def run(self, batch: SortedBatch, timed: Timer = untimed) -> Tensor:
        """See `Engine`; kernel by kernel."""
        return self.fast.run(batch, timed)

    def _buffers_for(self, nbytes: int) -> tuple[Tensor, Tensor]:
        """The buffers, made larger where they are too small; what was captured would then read the old ones."""
        if self._buffers is None or len(self._buffers[0]) < nbytes:
            self._clear_graphs()
            pinned = torch.zeros(2 * nbytes, dtype=torch.uint8, pin_memory=True)
            self._buffers = pinned, torch.zeros(2 * nbytes, dtype=torch.uint8, device=self.device)
        return self._buffers

    def _clear_graphs(self) -> None:
        self._captured.clear()
        self._shared = {}  # memory that no graph uses any more cannot be shared again

    def _score(self, size: BatchSize, data: Tensor) -> Tensor:
        """Scores of the batch in the buffer `data`, and of its padding: float32 `[B, P]`."""
        is_new, captured = size not in self._captured, self._captured.pop(size, None)
        while len(self._captured) >= MAX_GRAPHS:
            self._captured.popitem(last=False)
        batch = data[: size.nbytes]

        def run() -> Tensor:
            return self.fast.run(unpack_batch(batch, size))

        if captured is None and not is_new:
            if not self._shared:
                self._shared = {"pool": torch.cuda.graph_pool_handle(), "stream": torch.cuda.Stream(self.device)}
            captured = CapturedBatch(*capture(run, self.device, **self._shared))
        self._captured[size] = captured
        if captured is None:
            return run()
        captured.graph.replay()
        return captured.scores

    def stage_seconds(self, graphs: Graphs, repeats: int = 20) -> dict[str, float]:
        """What each stage of a batch takes on the device, by its name; each is captured by itself."""
        fast, size, seconds = self.fast, _padded_size(graphs), {}
        packed = np.zeros(size.nbytes, np.uint8)
        pack_batch(graphs, size, packed)
        graphs_kept: list[torch.cuda.CUDAGraph] = []  # their memory holds the results

        def timed(name: str, work: Callable[[], Any]) -> Any:
            graph, result = capture(work, self.device)
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            graph.replay()
            start.record()
            for _ in range(repeats):
                graph.replay()
            end.record()
            end.synchronize()
            seconds[name] = start.elapsed_time(end) / 1e3 / repeats
            graphs_kept.append(graph)
            return result

        with torch.inference_mode(), torch.cuda.device(self.device):
            data = torch.from_numpy(packed).to(self.device)
            batch = timed("sorting", lambda: unpack_batch(data, size))
            atoms, molecules = timed("encoder", lambda: fast.encoder(batch))
            states = timed("hypernetwork", lambda: fast.hypernet(atoms, molecules, batch))
            timed("decoder", lambda: fast.read_out(states, molecules))
        return seconds


def _padded_size(graphs: Graphs) -> BatchSize:
    return BatchSize.of(graphs, rounded_size(len(graphs), 64))
