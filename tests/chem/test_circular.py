"""Fingerprints out of graph codes tell molecules apart, small ones too."""

from __future__ import annotations

from collections import Counter

import numpy as np
from plain_stereo import mix

from mora_lite.chem import circular
from mora_lite.chem.featurizer import Featurizer
from mora_lite.chem.graph import ATOM_FIELDS, Graphs

AS_DRAWN = Featurizer(standardize="none")


def bits_of(smiles: str) -> np.ndarray:
    return np.unpackbits(circular.fingerprints(AS_DRAWN.read_smiles([smiles])), axis=1)[0].astype(bool)


def similarity(a: str, b: str) -> float:
    one, two = bits_of(a), bits_of(b)
    return (one & two).sum() / (one | two).sum()


def plain_bits(graph: Graphs) -> set[int]:
    """By docs/method.md, for one molecule."""
    names = list(ATOM_FIELDS)
    parts: Counter[int] = Counter()
    hashes = []
    for row in graph.atoms.tolist():
        atom = dict(zip(names, row, strict=True))
        key = 0
        for digit in (
            *(atom[n] for n in ("element", "charge", "degree", "hydrogens", "aromatic")),
            atom["ring_size"] > 0,
        ):
            key = key * 257 + digit
        hashes.append(mix(key))
        parts[mix(atom["element"])] += 1
        parts[mix(1)] += atom["hydrogens"]
    for radius in range(3):
        parts.update(hashes)
        received = [0] * len(hashes)
        for code, (a, b) in zip(graph.bonds.tolist(), graph.bond_endpoints.tolist(), strict=True):
            bond = mix(code // 16 + 0x9E3779B97F4A7C15)
            received[a] += mix(hashes[b] + bond)
            received[b] += mix(hashes[a] + bond)
        hashes = [mix(3 * h + r) for h, r in zip(hashes, received, strict=True)] if radius < 2 else hashes
    return {mix(part + level) % 1024 for part, n in parts.items() for level in range(6) if n >= 2**level}


def test_bits_are_those_of_a_plain_implementation(molecules: list[str]) -> None:
    graphs = AS_DRAWN.read_smiles(molecules)
    packed = circular.fingerprints(graphs)
    assert packed.shape == (len(molecules), 128)
    for i, row in enumerate(np.unpackbits(packed, axis=1)):
        assert set(np.flatnonzero(row).tolist()) == plain_bits(graphs.select([i])), molecules[i]


def test_no_molecules_no_bits() -> None:
    assert circular.fingerprints(AS_DRAWN.read_smiles([])).shape == (0, 128)


def test_small_molecules_are_told_apart_by_degrees() -> None:
    """Three bits of surroundings would make any two of them 0 or 1."""
    order = ["CC", "CCC", "CCCCCC", "c1ccccc1", "OC(F)(F)F"]
    near = [similarity("CC", other) for other in order]
    assert near == sorted(near, reverse=True)
    assert len(set(near)) == len(near)
    assert 0 < near[-1] < near[1] < near[0] == 1


def test_counts_count() -> None:
    assert similarity("c1ccccc1", "c1ccc(-c2ccccc2)cc1") < 1
    assert similarity("CCCCCC", "CCCCCCCCCCCC") < 1


def test_mirror_images_are_equally_near() -> None:
    assert similarity("C[C@H](N)C(=O)O", "C[C@@H](N)C(=O)O") == 1
