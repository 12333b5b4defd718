"""RDKit's Morgan fingerprints: those of packs of version 1, and targets of pre-training."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from rdkit import Chem, DataStructs
from rdkit.Chem import rdFingerprintGenerator

from .circular import N_BITS, RADIUS  # of one size, so that a domain holds either

NAME = "morgan"
_MIRRORED = np.packbits(np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little"), axis=1)[:, 0]


@functools.cache
def _generator() -> Any:
    return rdFingerprintGenerator.GetMorganGenerator(radius=RADIUS, fpSize=N_BITS)


def fingerprints(molecules: Sequence[Chem.Mol]) -> np.ndarray:
    """Morgan fingerprints (radius 2, 1024 bits; Rogers and Hahn 2010), packed by `np.packbits`: uint8 `[N, 128]`."""
    # RDKit's text has a byte's first bit lowest, where `np.packbits` has it highest.
    text = b"".join(map(DataStructs.BitVectToBinaryText, map(_generator().GetFingerprint, molecules)))
    return _MIRRORED[np.frombuffer(text, np.uint8).reshape(-1, N_BITS // 8)]
