"""Circular fingerprints of molecules, as bits."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from rdkit import Chem, DataStructs
from rdkit.Chem import rdFingerprintGenerator

from .molecules import parse_smiles

RADIUS = 2
N_BITS = 1024
_MIRRORED = np.packbits(np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little"), axis=1)[:, 0]


@functools.cache
def _generator() -> Any:
    return rdFingerprintGenerator.GetMorganGenerator(radius=RADIUS, fpSize=N_BITS)


def fingerprints(molecules: Sequence[Chem.Mol]) -> np.ndarray:
    """Morgan fingerprints (radius 2, 1024 bits; Rogers and Hahn 2010), packed by `np.packbits`: uint8 `[N, 128]`."""
    # RDKit's text has a byte's first bit lowest, where `np.packbits` has it highest.
    text = b"".join(map(DataStructs.BitVectToBinaryText, map(_generator().GetFingerprint, molecules)))
    return _MIRRORED[np.frombuffer(text, np.uint8).reshape(-1, N_BITS // 8)]


def smiles_fingerprints(smiles: Sequence[str]) -> np.ndarray:
    """`fingerprints` of SMILES that RDKit is known to read, uint8 `[N, 128]`; some thousand molecules at a time."""
    parts = [np.empty((0, 128), np.uint8)]
    for start in range(0, len(smiles), 4096):
        parts.append(fingerprints([parse_smiles(text).mol for text in smiles[start : start + 4096]]))
    return np.concatenate(parts)
