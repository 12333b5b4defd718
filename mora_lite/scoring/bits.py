"""Fingerprints as packed bits, 128 bytes each: how many are set, and where runs of equal ones end."""

from __future__ import annotations

import numpy as np

from ..chem.circular import N_BITS
from ..chem.graph import row_pointer

PACKED_ROWS = 8192  # fingerprints that are packed together, when their positions were read

_BITS_OF_BYTE = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(1, dtype=np.uint8)


def bit_counts(packed: np.ndarray) -> np.ndarray:
    """Number of set bits of each fingerprint: int64 `[N]`."""
    return _BITS_OF_BYTE[packed].sum(1, dtype=np.int64)


def pack_positions(position: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Fingerprints uint8 `[N, 128]` from the positions of their set bits, row by row. counts: set bits of each row."""
    packed, starts = np.empty((len(counts), N_BITS // 8), np.uint8), row_pointer(counts)
    bits = np.empty((min(PACKED_ROWS, len(counts)), N_BITS), np.uint8)
    for start in range(0, len(counts), PACKED_ROWS):
        rows = slice(start, start + PACKED_ROWS)
        part = bits[: len(counts[rows])]
        part[:] = 0
        first = np.repeat(np.arange(len(part)) * N_BITS, counts[rows])
        part.reshape(-1)[first + position[starts[start] : starts[start + len(part)]]] = 1
        packed[rows] = np.packbits(part, axis=1)
    return packed


def run_bounds(changes: np.ndarray) -> list[int]:
    """Starts of runs and the end of the last. changes: bool, whether each row but the first differs from the last."""
    return [0, *(np.flatnonzero(changes) + 1).tolist(), len(changes) + 1]
