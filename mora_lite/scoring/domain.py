"""How near a molecule is to what a pack was trained on: Tanimoto similarity of circular fingerprints.

Training molecules are sorted by the tasks they have values for (their pattern) and then by their number of bits. Among
molecules with equally many bits the similarity grows with the intersection, so each such run is reduced to its largest
intersection first, and only what remains is divided. With torch `similarity` counts the intersections of many
molecules. With NumPy alone, and of a few, they are sums of columns, one column for each set bit: sums of bytes are
several times faster than NumPy's product of 1,024 floats.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..chem.circular import N_BITS, bit_counts, pack_positions
from ..chem.graph import run_bounds
from ..errors import PackError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from .similarity import BagReference, ProductReference

OUTSIDE = 0.05  # share of held-out molecules
QUERY_ROWS = 1536  # molecules compared at a time on a CPU
CACHED_BYTES = 256 << 20  # a larger reference is unpacked piece by piece at every call
FEW_ROWS = 64  # up to so many molecules, sums of columns cost less than torch's, which cost the same for 1 and 192
COLUMN_ROWS = 32_768  # training molecules whose columns of bits are summed together without torch

_DAMAGED = "the fingerprints of the training molecules are damaged; fetch or train the pack again"


def threshold_of(similarity: np.ndarray) -> float:
    """The similarity below which a molecule is outside the domain; unitless, 0 to 1, exact in float32.

    It is the quantile `OUTSIDE` of `similarity` (linear interpolation), so about that share of molecules like the
    held-out ones are outside. Without any it is 0.0, which nothing is below.

    similarity: float32 `[N]`, of held-out molecules to the training molecules, without NaN.
    """
    assert not np.isnan(similarity).any()
    return float(np.float32(np.quantile(similarity.astype(np.float64), OUTSIDE))) if len(similarity) else 0.0


class _ColumnChunk(NamedTuple):
    """Rows of the reference whose columns are summed together.

    runs: int64, the first row of each run of one pattern and one number of bits, counted from the start of the chunk.
    counts: float32, that number of bits for each run.
    segments, patterns: int64, the first run of each pattern, and which pattern it is.
    """

    rows: slice
    runs: np.ndarray
    counts: np.ndarray
    segments: np.ndarray
    patterns: np.ndarray


@dataclass(frozen=True, eq=False)
class Domain:
    """The fingerprints of the training molecules and the tasks that each has a value for. Made by `Domain.of`.

    packed: uint8 `[N, 128]`, sorted by pattern, then by number of bits.
    patterns: bool `[M, P]`, the tasks of each of `M` patterns.
    sizes: int64 `[M]`, rows of each pattern.
    """

    packed: np.ndarray
    patterns: np.ndarray
    sizes: np.ndarray
    _cache: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def of(cls, packed: np.ndarray, known: np.ndarray) -> Domain:
        """Sort training molecules into a domain; equal rows become one, rows without any value are left out.

        packed: uint8 `[N, 128]`, from `fingerprints`. known: bool `[N, P]`, whether there is a value for the task.
        """
        return cls.sort(packed, known)[0]

    @classmethod
    def sort(cls, packed: np.ndarray, known: np.ndarray) -> tuple[Domain, np.ndarray]:
        """As `of`, and the row of the domain that each molecule became: int64 `[N]`, -1 for those left out."""
        assert (packed.dtype, known.dtype) == (np.uint8, np.bool_)
        assert packed.shape == (len(known), N_BITS // 8)
        used = known.any(1)
        packed, known = packed[used], known[used]
        counts = bit_counts(packed).astype(">u2")[:, None].view(np.uint8)  # big end first: sorts as bytes
        key = np.ascontiguousarray(np.concatenate([np.packbits(known, axis=1), counts, packed], axis=1))
        keys = key.view(np.dtype((np.void, key.shape[1]))).ravel()
        _, first, row = np.unique(keys, return_index=True, return_inverse=True)
        rows = np.full(used.shape, -1, np.int64)
        rows[used] = row
        packed, known = packed[first], known[first]
        starts = np.flatnonzero(np.concatenate([[len(known) > 0], (known[1:] != known[:-1]).any(1)]))
        return cls(packed, known[starts], np.diff(starts, append=len(known))), rows

    def similarity(self, packed: np.ndarray, device: torch.device | None = None) -> np.ndarray:
        """Tanimoto similarity to the nearest training molecule that has a value for the task: float32 `[B, P]`, 0 to 1.

        It is 0.0 where a task has no training molecules, and between two fingerprints without bits. The numbers are
        exact in every type and on every device: counts are whole and small, and divided in float32.

        packed: uint8 `[B, 128]`. device: where torch computes; None computes with NumPy.
        """
        assert packed.dtype == np.uint8
        assert packed.shape[1:] == (N_BITS // 8,)
        if device is not None and device.type != "cpu":
            return self._on_gpu(device)(packed)
        nearest = np.zeros((len(packed), self.patterns.shape[1]), np.float32)
        few = len(packed) <= FEW_ROWS and len(self.packed) * N_BITS <= CACHED_BYTES
        nearest_of = self._nearest_by_columns if device is None or few else self._on_cpu()
        for start in range(0, len(packed), QUERY_ROWS):
            by_pattern = nearest_of(packed[start : start + QUERY_ROWS])
            for task in range(nearest.shape[1]):
                patterns = np.flatnonzero(self.patterns[:, task])
                if len(patterns):
                    nearest[start : start + QUERY_ROWS, task] = by_pattern[patterns].max(0)
        return nearest

    def all_similarities(self, packed: np.ndarray) -> np.ndarray:
        """Tanimoto similarity to each training fingerprint: float32 `[B, N]`, 0 to 1, exact as in `similarity`.

        packed: uint8 `[B, 128]`; whoever asks keeps `B * N` small enough for memory. NumPy computes.
        """
        similarity = np.empty((len(packed), len(self.packed)), np.float32)
        set_bits = [np.flatnonzero(row) for row in np.unpackbits(packed, axis=1)]
        if "counts" not in self._cache:
            self._cache["counts"] = bit_counts(self.packed).astype(np.float32)
        for start in range(0, len(self.packed), COLUMN_ROWS):
            rows = slice(start, start + COLUMN_ROWS)
            columns, counts = self._columns(rows), self._cache["counts"][rows]
            for i, bits in enumerate(set_bits):
                inter = _sum_columns(columns, bits).astype(np.float32)
                similarity[i, rows] = inter / np.maximum(counts + np.float32(len(bits)) - inter, 1)
        return similarity

    def select(self, tasks: Sequence[int]) -> Domain:
        """Only these tasks, in this order, and only the molecules that have a value for one of them."""
        if list(tasks) == list(range(self.patterns.shape[1])):
            return self
        known = np.repeat(self.patterns, self.sizes, axis=0)
        return Domain.of(self.packed, known[:, list(tasks)])

    def tensors(self) -> dict[str, Tensor]:
        """Tensors for a safetensors file. Some 5 % of the bits are set, so their gaps take fewer bytes than all bits.

        deflated: uint8, what zlib makes of the gaps, bytes themselves: the distance from one set bit of a row to the
            next, the first counted from 0; a byte of 255 adds 255 to the next one. Packs from before have them as they
            are, as `gaps`.
        counts: uint16 `[N]`, set bits of each row.
        patterns: uint8 `[M, P]`.
        sizes: int32 `[M]`.
        """
        import torch

        row, position = np.nonzero(np.unpackbits(self.packed, axis=1))
        gap = np.diff(position, prepend=0)
        first = np.flatnonzero(np.diff(row, prepend=-1))
        gap[first] = position[first]
        stops = np.cumsum(gap // 255 + 1)
        gaps = np.full(stops[-1] if len(stops) else 0, 255, np.uint8)
        gaps[stops - 1] = gap % 255
        return {
            "deflated": torch.from_numpy(np.frombuffer(zlib.compress(gaps.tobytes(), 9), np.uint8).copy()),
            "counts": torch.from_numpy(bit_counts(self.packed).astype(np.uint16)),
            "patterns": torch.from_numpy(self.patterns.astype(np.uint8)),
            "sizes": torch.from_numpy(self.sizes.astype(np.int32)),
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Any]) -> Domain:
        """The inverse of `tensors`, from tensors or NumPy arrays. Raises `PackError` when these do not fit together."""
        counts = np.asarray(tensors["counts"]).astype(np.int64)
        patterns = np.asarray(tensors["patterns"]).astype(np.bool_)
        sizes = np.asarray(tensors["sizes"]).astype(np.int64)
        if patterns.ndim != 2 or sizes.shape != patterns.shape[:1] or sizes.min(initial=0) < 0:
            raise PackError(_DAMAGED)
        if counts.shape != (sizes.sum(),) or counts.max(initial=0) > N_BITS:
            raise PackError(_DAMAGED)
        gaps = np.asarray(tensors["gaps"]) if "gaps" in tensors else _inflate(tensors["deflated"], counts)
        small = np.int32 if len(counts) * N_BITS < 1 << 31 else np.int64
        run = np.cumsum(gaps, dtype=small)  # positions, of all rows one after the other
        if (gaps == 255).any():
            run = run[gaps < 255]
        before = np.concatenate([np.zeros(1, small), run])[np.cumsum(counts) - counts]  # where each row begins
        position = run - np.repeat(before, counts)
        if len(position) and not 0 <= position.min() <= position.max() < N_BITS:
            raise PackError(_DAMAGED)
        domain = cls(pack_positions(position, counts), patterns, sizes)
        domain._cache["positions"] = position
        return domain

    def _on_cpu(self) -> BagReference:
        if "bags" not in self._cache:
            from .similarity import BagReference

            position = self._cache.pop("positions", None)
            if position is None:
                position = np.flatnonzero(np.unpackbits(self.packed)) % N_BITS
            self._cache["bags"] = BagReference(position, bit_counts(self.packed), self.sizes)
        return self._cache["bags"]

    def _on_gpu(self, device: torch.device) -> ProductReference:
        if device not in self._cache:
            from .similarity import ProductReference

            self._cache.pop("positions", None)
            self._cache[device] = ProductReference(self.packed, self.patterns, self.sizes, device)
        return self._cache[device]

    def _nearest_by_columns(self, packed: np.ndarray) -> np.ndarray:
        """Similarity to the nearest molecule of each pattern: float32 `[M, B]`."""
        nearest = np.zeros((len(packed), len(self.patterns)), np.float32)
        set_bits = [np.flatnonzero(row) for row in np.unpackbits(packed, axis=1)]
        for chunk in self._column_chunks():
            columns = self._columns(chunk.rows)
            for row, bits in enumerate(set_bits):
                tanimoto = np.maximum.reduceat(_sum_columns(columns, bits), chunk.runs).astype(np.float32)
                tanimoto /= np.maximum(chunk.counts + np.float32(len(bits)) - tanimoto, 1)
                top = np.maximum.reduceat(tanimoto, chunk.segments)
                nearest[row, chunk.patterns] = np.maximum(nearest[row, chunk.patterns], top)
        return nearest.T

    def _column_chunks(self) -> list[_ColumnChunk]:
        if "column chunks" not in self._cache:
            counts, pattern = bit_counts(self.packed), np.repeat(np.arange(len(self.sizes)), self.sizes)
            starts = range(0, len(counts), COLUMN_ROWS)
            self._cache["column chunks"] = [
                _plan_column_chunk(slice(i, i + COLUMN_ROWS), counts, pattern) for i in starts
            ]
        return self._cache["column chunks"]

    def _columns(self, rows: slice) -> np.ndarray:
        """One row of 0 and 1 for each bit: uint8 `[1024, N]`; cached when all rows of the reference fit."""
        if len(self.packed) * N_BITS > CACHED_BYTES:
            return _as_columns(self.packed[rows])
        if ("columns", rows.start) not in self._cache:
            self._cache["columns", rows.start] = _as_columns(self.packed[rows])
        return self._cache["columns", rows.start]


def _plan_column_chunk(rows: slice, counts: np.ndarray, pattern: np.ndarray) -> _ColumnChunk:
    """Plan the chunk `rows`; counts, pattern: int64 `[N]`, set bits and pattern of all rows of the reference."""
    counts, pattern = counts[rows], pattern[rows]
    runs = np.array(run_bounds((counts[1:] != counts[:-1]) | (pattern[1:] != pattern[:-1]))[:-1])
    of_run = pattern[runs]
    segments = np.array(run_bounds(of_run[1:] != of_run[:-1])[:-1])
    return _ColumnChunk(rows, runs, counts[runs].astype(np.float32), segments, of_run[segments])


def _inflate(deflated: Any, counts: np.ndarray) -> np.ndarray:
    """The gaps, uint8. counts: set bits of each row. Raises `PackError` for what is not theirs, however long it is."""
    most = int(counts.sum()) + len(counts) * (N_BITS // 255)
    stream = zlib.decompressobj()
    try:
        gaps = np.frombuffer(stream.decompress(np.asarray(deflated).tobytes(), most + 1), np.uint8)
    except zlib.error:
        gaps = np.empty(0, np.uint8)
    if not stream.eof or np.count_nonzero(gaps < 255) != counts.sum():
        raise PackError(_DAMAGED)
    return gaps


def _sum_columns(columns: np.ndarray, bits: np.ndarray) -> np.ndarray:
    """How many of `bits`, int64, each fingerprint has: uint8 or uint16 `[N]`. columns: uint8 `[1024, N]`."""
    sums = np.zeros(columns.shape[1], np.uint8 if len(bits) < 256 else np.uint16)  # a sum of bytes must not pass 255
    for bit in bits.tolist():
        np.add(sums, columns[bit], out=sums)
    return sums


def _as_columns(packed: np.ndarray) -> np.ndarray:
    """uint8 `[N, 128]` -> one row of 0 and 1 for each bit: uint8 `[1024, N]`."""
    # Transposed as bytes first, which is an eighth of the work of transposing bits.
    columns = np.empty((N_BITS // 8, 8, len(packed)), np.uint8)
    for start in range(0, len(packed), 1024):  # blocks stay in the processor's cache
        columns[:, 0, start : start + 1024] = packed[start : start + 1024].T
    for bit in range(7, -1, -1):  # the first last, for it holds the bytes
        np.right_shift(columns[:, 0], 7 - bit, out=columns[:, bit])
        np.bitwise_and(columns[:, bit], 1, out=columns[:, bit])
    return columns.reshape(N_BITS, len(packed))
