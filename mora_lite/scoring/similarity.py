"""Similarity to the nearest training molecules, by torch.

On a CPU, the bits that a training molecule shares with each of the molecules asked about are the sum of those rows of a
table `[bits, molecules]` that its set bits name. Some 8 % of the bits are set, so that takes a small part of the time
of a matrix product. A float32 number of the table holds a bit of three molecules, as digits to base 256: it counts to
2^24 without an error, and the three counts with it. Of molecules with more bits it holds two.

On a GPU they are a product of matrices of 0 and 1. float16 holds these counts without an error, up to 2,048, and so it
does the number of bits that one of two has; the division is in float32. The kernels for a whole batch are captured as a
CUDA graph: they take less time than starting them one by one, which other threads of Python delay besides.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..chem.circular import N_BITS, bit_counts
from ..chem.graph import row_pointer, run_bounds
from ..machine.capture import capture, warn_uncaptured

# On a CPU.
CHUNK_ROWS = 2048  # training molecules whose counts are reduced together; they stay in the processor's cache
LANES = 64  # numbers in a row of a table: with these the 1,024 rows stay in the cache
BASES = {3: 256, 2: 4096}  # molecules in a number, and how far each is counted, less one
SHORT_RUN = 8  # reducing a run costs microseconds, so shorter ones are divided row by row

# On a GPU.
PRODUCT_ROWS = 16_384  # training molecules of one matrix product
QUERY_ROWS = 4096  # molecules of a batch, whose kernels are captured
CACHED_BYTES = 256 << 20  # a larger reference is unpacked piece by piece at every call
RESULT_BYTES = 256 << 20  # that similarities may take; of so many molecules they are found together
GROUPS = (1, 2, 4, 8, 16)  # training molecules with equally many bits that are reduced before they are divided
DIVIDED = 8  # what dividing costs, as a multiple of what one more training molecule costs
PIECE = 32  # numbers that one thread of the GPU compares: of longer rows there are too few threads


class _Chunk(NamedTuple):
    """Rows of the reference that are reduced together, and how their counts become those of groups.

    spans: (first row, last row + 1, first group, last group + 1), rows counted from the start of the chunk; a span is
        a run that becomes one group, or short runs of which each row is a group.
    counts: float32, one for each group: set bits of its fingerprints.
    segments: (pattern, first group, last group + 1).
    """

    rows: slice
    spans: list[tuple[int, int, int, int]]
    counts: np.ndarray
    segments: list[tuple[int, int, int]]


class BagReference:
    """Training molecules sorted as in `Domain`, to be called with molecules.

    position: integers, the set bits of all rows one after the other. counts: int64 `[N]`, how many each row has.
    sizes: int64 `[M]`, rows of each pattern.
    """

    def __init__(self, position: np.ndarray, counts: np.ndarray, sizes: np.ndarray):
        self.bits = torch.from_numpy(position.astype(np.int32, copy=False))
        self.starts = torch.from_numpy(row_pointer(counts).astype(np.int32))
        self.n_patterns = len(sizes)
        pattern = np.repeat(np.arange(len(sizes)), sizes)
        starts = range(0, len(counts), CHUNK_ROWS)
        self.chunks = [_plan_chunk(slice(i, min(i + CHUNK_ROWS, len(counts))), counts, pattern) for i in starts]

    def __call__(self, packed: np.ndarray) -> np.ndarray:
        """Similarity to the nearest molecule of each pattern: float32 `[M, B]`. packed: uint8 `[B, 128]`."""
        nearest, counts = np.zeros((self.n_patterns, len(packed)), np.float32), bit_counts(packed)
        # No count is larger than the number of bits of the molecule asked about.
        small = counts < BASES[3]
        for rows, digits in ((small, 3), (~small, 2)):
            if rows.any():
                nearest[:, rows] = self._nearest(packed[rows], counts[rows], digits)
        return nearest

    def _nearest(self, packed: np.ndarray, query_counts: np.ndarray, digits: int) -> np.ndarray:
        """As for a call. digits: molecules in a number; each has fewer bits than their base."""
        lanes = -(-len(packed) // digits)
        tables = _tables(packed, lanes, digits)
        of_query = np.zeros(digits * lanes, np.float32)
        of_query[: len(packed)] = query_counts
        sums = torch.empty(CHUNK_ROWS, lanes)
        nearest = np.zeros((self.n_patterns, digits * lanes), np.float32)
        for chunk in self.chunks:
            self._sum_rows(chunk.rows, tables, sums)
            counted = _digits(sums[: chunk.rows.stop - chunk.rows.start], digits)
            top = np.empty((len(chunk.counts), counted.shape[1]), counted.dtype)
            for start, stop, first, last in chunk.spans:
                if last - first == 1:
                    np.maximum.reduce(counted[start:stop], 0, out=top[first])
                else:
                    top[first:last] = counted[start:stop]
            tanimoto = np.empty((len(top), digits * lanes), np.float32)
            for digit in range(digits):
                part = (
                    top.view("<i4") >> 8 * digit & 255 if digits == 3 else top[:, digit * lanes : (digit + 1) * lanes]
                )
                tanimoto[:, digit * lanes : (digit + 1) * lanes] = part
            union = chunk.counts[:, None] + of_query
            union -= tanimoto
            tanimoto /= np.maximum(union, 1, out=union)  # two fingerprints without bits have no union: 0 / 1 is 0
            for pattern, start, stop in chunk.segments:
                np.maximum(nearest[pattern], np.maximum.reduce(tanimoto[start:stop]), out=nearest[pattern])
        return nearest[:, : len(packed)]

    def _sum_rows(self, rows: slice, tables: list[Tensor], out: Tensor) -> None:
        """The sums of the tables' rows that these rows of the reference name, side by side: float32 `[rows, lanes]`."""
        starts = self.starts[rows.start : rows.stop + 1]
        bits, starts, first = self.bits[starts[0] : starts[-1]], starts - starts[0], 0
        for table in tables:
            last = first + table.shape[1]
            out[: len(starts) - 1, first:last] = torch.nn.functional.embedding_bag(
                bits, table, starts, mode="sum", include_last_offset=True
            )
            first = last


def _tables(packed: np.ndarray, lanes: int, digits: int) -> list[Tensor]:
    """Molecules `[B, 128]` as tables, each float32 `[1024, LANES]`: molecule `k * lanes + i` is digit k of number i."""
    bits = np.zeros((digits * lanes, N_BITS), np.uint8)
    bits[: len(packed)] = np.unpackbits(packed, axis=1)
    value = torch.zeros(lanes, N_BITS)
    for digit, part in enumerate(torch.from_numpy(bits).split(lanes)):
        value.add_(part, alpha=BASES[digits] ** digit)
    return [part.T.contiguous() for part in value.split(LANES)]


def _digits(sums: Tensor, digits: int) -> np.ndarray:
    """The counts in sums float32 `[rows, lanes]`, as they are reduced: small types compare faster.

    Three digits stay where they are, as bytes: uint8 `[rows, 4 * lanes]`; two stand beside each other: uint16 `[rows,
    2 * lanes]`.
    """
    whole = sums.to(torch.int32).numpy()
    if digits == 3:
        return whole.view(np.uint8)
    base = BASES[digits]
    return np.concatenate([whole % base, whole // base], 1, dtype=np.uint16, casting="unsafe")


def _plan_chunk(rows: slice, counts: np.ndarray, pattern: np.ndarray) -> _Chunk:
    """Plan the chunk `rows`; counts, pattern: int64 `[N]`, set bits and pattern of all rows of the reference."""
    counts, pattern = counts[rows], pattern[rows]
    runs = run_bounds((counts[1:] != counts[:-1]) | (pattern[1:] != pattern[:-1]))
    spans: list[tuple[int, int, int, int]] = []
    group_rows: list[int] = []  # one row of each group
    for start, stop in itertools.pairwise(runs):
        group = len(group_rows)
        group_rows.extend([start] if stop - start >= SHORT_RUN else range(start, stop))
        # Neighbouring short runs are copied together.
        if spans and stop - start < SHORT_RUN and _has_group_per_row(spans[-1]):
            first_row, _, group, _ = spans.pop()
            spans.append((first_row, stop, group, len(group_rows)))
        else:
            spans.append((start, stop, group, len(group_rows)))
    of_group = pattern[group_rows]
    bounds = run_bounds(of_group[1:] != of_group[:-1])
    segments = [(int(of_group[a]), a, b) for a, b in itertools.pairwise(bounds)]
    return _Chunk(rows, spans, counts[group_rows].astype(np.float32), segments)


def _has_group_per_row(span: tuple[int, int, int, int]) -> bool:
    return span[1] - span[0] == span[3] - span[2]


class _Captured(NamedTuple):
    """A graph that reads the molecules in `queries`, uint8 `[B, 128]`, and writes `nearest`, float32 `[B, P]`.

    B is `QUERY_ROWS`. pinned: from where molecules are copied to the device.
    """

    graph: torch.cuda.CUDAGraph
    pinned: Tensor
    queries: Tensor
    nearest: Tensor


class ProductReference:
    """Training molecules sorted as in `Domain`, on a device, to be called with molecules; by one thread at a time.

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
        self.captures = device.type == "cuda"
        self.captured: _Captured | None = None

    def __call__(self, packed: np.ndarray) -> np.ndarray:
        """As `Domain.similarity`: float32 `[B, P]`. Raises torch.OutOfMemoryError; then no graph is kept."""
        if not len(packed) or not len(self.counts):
            return np.zeros((len(packed), self.n_tasks), np.float32)
        batches = [packed[start : start + QUERY_ROWS] for start in range(0, len(packed), QUERY_ROWS)]
        with torch.inference_mode():
            return np.concatenate([self._similarity(batch) for batch in batches])

    def _similarity(self, packed: np.ndarray) -> np.ndarray:
        """The same for at most `QUERY_ROWS` molecules; more than half of them are filled up to a whole batch."""
        if self.captures and len(packed) > QUERY_ROWS // 2:
            try:
                return self._replayed(packed)
            except RuntimeError as error:
                self.captured = None
                warn_uncaptured("similarity cannot be captured", error)
                self.captures = False
        return self._nearest(torch.from_numpy(packed.copy()).to(self.device)).cpu().numpy()

    def _replayed(self, packed: np.ndarray) -> np.ndarray:
        self.captured = self.captured or self._capture()
        graph, pinned, queries, nearest = self.captured
        pinned.numpy()[: len(packed)] = packed
        queries.copy_(pinned, non_blocking=True)
        graph.replay()
        return nearest[: len(packed)].to("cpu", copy=True).numpy()  # the next replay writes into `nearest`

    def _capture(self) -> _Captured:
        pinned = torch.zeros(QUERY_ROWS, N_BITS // 8, dtype=torch.uint8, pin_memory=self.device.type == "cuda")
        queries = pinned.to(self.device, copy=True)
        with torch.cuda.device_of(queries):
            graph, nearest = capture(lambda: self._nearest(queries), self.device)
        return _Captured(graph, pinned, queries, nearest)

    def _nearest(self, packed: Tensor) -> Tensor:
        """packed: uint8 `[B, 128]`. Returns float32 `[B, P]`."""
        most = max(1, RESULT_BYTES // (4 * len(self.counts)))
        n_blocks = -(-len(packed) // most)
        return torch.cat([self._nearest_of_block(_unpack(block)) for block in packed.chunk(n_blocks)])

    def _nearest_of_block(self, query: Tensor) -> Tensor:
        """query: float16 `[B, 1024]`. Returns float32 `[B, P]`."""
        query_counts, group = query.sum(1, dtype=torch.float32).half(), self.group
        nearest = torch.empty(len(self.counts), len(query), device=self.device)
        step = PRODUCT_ROWS // group
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
            # The lengths are ours, and to check them the processor would wait for the device.
            nearest = torch.segment_reduce(runs, "max", lengths=lengths, axis=0, initial=0.0, unsafe=True)
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

    Each step takes the maxima of the one before at `index`, or all if it is None, and reduces runs of `lengths`; int64.
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
