"""The short scorer on a CUDA device: batches of few sizes, whose kernels are recorded once and replayed as CUDA graphs.

A molecule costs the device a microsecond or two, so that Python, which starts some three hundred kernels for a batch,
and numpy, which sorts its bonds, would take most of the time. Here a batch is one copy of bytes, padded to one of a few
sizes; all else, the sorting too, is in the graph.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..chem.graph import ATOM_FIELDS, Graphs
from .batch import SortedBatch
from .scorer import ShortScorer

MOST_GRAPHS = 24  # recorded ones that are kept; each holds its inputs and answers, the rest of the memory is shared
N_FIELDS = len(ATOM_FIELDS)


class BatchSize(NamedTuple):
    """molecules, atoms and bonds (each once) of a padded batch; longest: atoms of its largest molecule."""

    molecules: int
    atoms: int
    bonds: int
    longest: int

    @classmethod
    def of(cls, graphs: Graphs, molecules: int) -> BatchSize:
        """The padded size: `molecules`, and for the others the next of few numbers, an eighth apart at most."""
        most = int(graphs.n_atoms.max())
        return cls(molecules, _rounded(len(graphs.atoms)), _rounded(len(graphs.bonds)), _rounded(most + 1, 8) - 1)

    @property
    def ends_at(self) -> int:
        """Where the bonds' ends begin in the bytes of a batch: after the two row pointers."""
        return 8 * (self.molecules + 1)

    @property
    def atoms_at(self) -> int:
        return self.ends_at + 4 * self.bonds

    @property
    def bonds_at(self) -> int:
        return self.atoms_at + N_FIELDS * self.atoms

    @property
    def nbytes(self) -> int:
        return self.bonds_at + self.bonds


def _rounded(n: int, least: int = 256) -> int:
    """The next number of the form m * 2**k, m from 8 to 16, that is a multiple of `least`."""
    step = max(least, 1 << max(0, n.bit_length() - 4))
    return max(-(-n // step), 1) * step


def pack_batch(graphs: Graphs, size: BatchSize, out: np.ndarray) -> None:
    """Write `graphs` into the bytes `out`: atom_ptr and bond_ptr int32, ends int16, atoms and bonds uint8, padded.

    Molecules that are missing to `size` are empty. What `out` holds in the padding does not matter.
    """
    assert len(graphs) <= size.molecules
    assert len(graphs.atoms) <= size.atoms
    assert len(graphs.bonds) <= size.bonds
    pointers = out[: size.ends_at].view(np.int32).reshape(2, -1)
    for row, ptr in zip(pointers, (graphs.atom_ptr, graphs.bond_ptr), strict=True):
        row[: len(ptr)] = ptr
        row[len(ptr) :] = ptr[-1]
    for start, part in ((size.ends_at, graphs.ends), (size.atoms_at, graphs.atoms), (size.bonds_at, graphs.bonds)):
        raw = np.ascontiguousarray(part).view(np.uint8).reshape(-1)
        out[start : start + len(raw)] = raw


def unpack_batch(data: Tensor, size: BatchSize) -> SortedBatch:
    """The bytes of `pack_batch` as a batch on their device. No shape depends on values.

    Semantics: what `SortedBatch.of` makes, in int32, with padding after it.
    """
    pointers = data[: size.ends_at].view(torch.int32).view(2, -1)
    atom_ends, bond_ends = pointers[0], pointers[1]
    ends = data[size.ends_at : size.atoms_at].view(torch.int16).view(-1, 2).int()
    atoms = data[size.atoms_at : size.bonds_at].view(-1, N_FIELDS)
    codes = data[size.bonds_at :].int()
    last = size.molecules - 1
    atom, bond = (torch.arange(n, dtype=torch.int32, device=data.device) for n in (size.atoms, size.bonds))
    graph = torch.searchsorted(atom_ends[1:], atom, right=True, out_int32=True).clamp_(max=last)
    owner = torch.searchsorted(bond_ends[1:], bond, right=True, out_int32=True).clamp_(max=last)
    ends = ends + atom_ends.index_select(0, owner).unsqueeze(1)
    # Bonds of the padding lead to an atom past the last, so that they come last and no run holds them.
    real = (bond < bond_ends[-1]).unsqueeze(1)
    target = torch.where(real, ends.flip(1), size.atoms).T.flatten()
    target, order = torch.sort(target, stable=True)
    source = torch.where(real, ends, 0).T.flatten()
    code = torch.where(real.squeeze(1), codes, 0).repeat(2) + size.atoms
    messages = torch.stack([source, code], 1).index_select(0, order)
    atom_numbers = torch.arange(size.atoms + 1, dtype=torch.int32, device=data.device)
    runs = torch.searchsorted(target, atom_numbers, out_int32=True)
    known = (atom < atom_ends[-1]).unsqueeze(1)
    fields = torch.where(known, atoms.int(), 0)
    return SortedBatch(fields, messages, runs, graph, atom_ends, size.longest)


@dataclass
class _Recorded:
    graph: torch.cuda.CUDAGraph
    scores: Tensor


class Replay:
    """Batches for `short`, which lies on a CUDA device. Not for two threads at a time."""

    def __init__(self, short: ShortScorer, device: torch.device):
        self.short, self.device = short, device
        self._recorded: OrderedDict[BatchSize, _Recorded] = OrderedDict()
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

    def _record(self, size: BatchSize, data: Tensor) -> _Recorded:
        while len(self._recorded) >= MOST_GRAPHS:
            self._recorded.popitem(last=False)
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        graph, scores = record(lambda: self.short.run(unpack_batch(data[: size.nbytes], size)), self.device, self._pool)
        recorded = self._recorded[size] = _Recorded(graph, scores)
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


def record(work: Callable[[], Any], device: torch.device, pool: Any) -> tuple[torch.cuda.CUDAGraph, Any]:
    """A CUDA graph of `work`, which has run once before, and the result that each replay of it writes anew."""
    aside, here = torch.cuda.Stream(device), torch.cuda.current_stream(device)
    aside.wait_stream(here)
    with torch.cuda.stream(aside):  # libraries are started outside of a recording
        work()
    here.wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    # Other devices' threads may work meanwhile. On the stream of the first run, whose buffers kernels keep.
    with torch.cuda.graph(graph, pool=pool, stream=aside, capture_error_mode="thread_local"):
        result = work()
    return graph, result
