"""Similarity to the nearest training molecules, by torch on a GPU, where starting a kernel costs more than its work.

How many bits two molecules share is a product of matrices of 0 and 1. float16 holds these counts without an error, up
to 2,048, and so it does the number of bits that one of the two has; the division is in float32.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..chem.circular import N_BITS
from .domain import CACHED_BYTES, bit_counts

REFERENCE_ROWS = 16_384  # training molecules of one matrix product
QUERY_ROWS = 4096  # molecules compared at a time, at most
RESULT_BYTES = 256 << 20  # that the similarities of so many molecules may take
GROUPS = (1, 2, 4, 8, 16)  # training molecules with equally many bits that are reduced before they are divided
DIVIDED = 8  # what dividing costs, as a multiple of what one more training molecule costs
PIECE = 32  # numbers that one thread of the GPU compares: of longer rows there are too few threads


class ProductReference:
    """Training molecules sorted as in `Domain`, on a device, to be called with molecules.

    packed: uint8 `[N, 128]`. patterns: bool `[M, P]`. sizes: int64 `[M]`.
    """

    def __init__(self, packed: np.ndarray, patterns: np.ndarray, sizes: np.ndarray, device: torch.device):
        self.device, self.n_tasks = device, patterns.shape[1]
        counts, pattern = bit_counts(packed), np.repeat(np.arange(len(sizes)), sizes)
        rows, self.group = _group(counts, pattern)
        first = rows[:: self.group]
        # A fingerprint without bits shares none, so that its similarity is 0 with a union of 1 too.
        self.counts = torch.from_numpy(np.maximum(counts[first], 1).astype(np.float16)).unsqueeze(1).to(device)
        reference = torch.from_numpy(packed[rows]).to(device)
        self.is_unpacked = len(rows) * N_BITS * 2 <= CACHED_BYTES
        self.reference = _unpack(reference) if self.is_unpacked else reference
        groups = np.bincount(pattern[first], minlength=len(sizes))
        self.levels = [
            (None if index is None else torch.from_numpy(index).to(device), torch.from_numpy(lengths).to(device))
            for index, lengths in _levels(groups, patterns)
        ]

    def __call__(self, packed: np.ndarray) -> np.ndarray:
        """As `Domain.similarity`: float32 `[B, P]`."""
        if not len(packed) or not len(self.counts):
            return np.zeros((len(packed), self.n_tasks), np.float32)
        most = max(1, min(QUERY_ROWS, RESULT_BYTES // (4 * len(self.counts))))
        with torch.inference_mode():
            queries = torch.from_numpy(packed.copy()).to(self.device)
            return torch.cat([self._nearest(_unpack(block)) for block in queries.split(most)]).cpu().numpy()

    def _nearest(self, query: Tensor) -> Tensor:
        """query: float16 `[B, 1024]`. Returns float32 `[B, P]`."""
        query_counts, group = query.sum(1, dtype=torch.float32).half(), self.group
        nearest = torch.empty(len(self.counts), len(query), device=self.device)
        step = REFERENCE_ROWS // group
        for start in range(0, len(nearest), step):
            groups = slice(start, start + step)
            reference = self.reference[start * group : (start + step) * group]
            shared = (reference if self.is_unpacked else _unpack(reference)) @ query.T
            if group > 1:
                shared = shared.view(-1, group, len(query)).amax(1)
            union = torch.add(self.counts[groups], query_counts).sub_(shared)
            torch.div(shared.float(), union, out=nearest[groups])
        for index, lengths in self.levels:
            runs = nearest if index is None else nearest.index_select(0, index)
            nearest = torch.segment_reduce(runs, "max", lengths=lengths, axis=0, initial=0.0)
        return nearest.T


def _unpack(packed: Tensor) -> Tensor:
    """uint8 `[N, 128]` -> a matrix of 0 and 1, float16 `[N, 1024]`."""
    shifts = torch.arange(7, -1, -1, dtype=torch.uint8, device=packed.device)
    return (packed.unsqueeze(-1) >> shifts).bitwise_and_(1).flatten(1).half()


def _group(counts: np.ndarray, pattern: np.ndarray) -> tuple[np.ndarray, int]:
    """Rows of the reference in groups of one size, each of one pattern and one number of bits: int64, and the size.

    The last row of a run is repeated until its last group is full.
    """
    starts = np.flatnonzero(np.diff(counts, prepend=-1) | np.diff(pattern, prepend=-1))
    lengths = np.diff(starts, append=len(counts))

    def cost(group: int) -> int:
        return int((-(-lengths // group)).sum()) * (group + DIVIDED)

    group = min(GROUPS, key=cost)
    full = -(-lengths // group) * group
    place = np.arange(full.sum()) - np.repeat(np.cumsum(full) - full, full)
    return np.repeat(starts, full) + np.minimum(place, np.repeat(lengths - 1, full)), group


def _levels(groups: np.ndarray, patterns: np.ndarray) -> list[tuple[np.ndarray | None, np.ndarray]]:
    """The steps from groups to patterns, and from these to tasks. groups: int64 `[M]`, how many each pattern has.

    Each step takes the maxima of the step before at `index`, or all if it is None, and reduces runs of `lengths`; int64.
    """
    lengths, pieces = _split(groups)
    ends = np.cumsum(pieces)
    tasks = [np.flatnonzero(has) for has in patterns.T]
    chosen = [np.concatenate([np.arange(ends[m] - pieces[m], ends[m]) for m in of] or [ends[:0]]) for of in tasks]
    levels: list[tuple[np.ndarray | None, np.ndarray]] = [(None, lengths)]
    index: np.ndarray | None = np.concatenate(chosen) if chosen else np.empty(0, np.int64)
    pieces = np.array([len(part) for part in chosen], np.int64)
    while pieces.max(initial=0) > PIECE:
        lengths, pieces = _split(pieces)
        levels.append((index, lengths))
        index = None
    return [*levels, (index, pieces)]


def _split(lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cut runs into pieces: lengths of the pieces, and how many each run has; int64."""
    pieces = -(-lengths // PIECE)
    cut = np.full(pieces.sum(), PIECE, np.int64)
    cut[np.cumsum(pieces)[pieces > 0] - 1] = (lengths - (pieces - 1) * PIECE)[pieces > 0]
    return cut, pieces
