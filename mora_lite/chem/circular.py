"""Circular fingerprints out of graph codes: which surroundings of atoms a molecule has, and how often.

An atom's surroundings of radius 0 are hashed from six of its codes (`_invariants`), those of radius 1 and 2 by one and
two rounds of refinement with the orders of the bonds (`refinement`): Morgan's algorithm, as in ECFP (Rogers and Hahn
2010), but counted, with no surroundings left out as repetitions, and without stereo codes, so that mirror images are as
near to one another as they can be. Nothing but integers of 64 bits is used, so any language gets the same bits.
"""

from __future__ import annotations

import numpy as np

from .graph import ATOM_FIELDS, Graphs
from .refinement import Adjacency, atom_keys, bond_keys, mix

NAME = "circular-counts-1"
RADIUS = 2
N_BITS = 1024
LEVELS = (1, 2, 4, 8)  # surroundings that occur so often set a bit more; bits alone do not tell benzene from biphenyl
_FIELDS = [list(ATOM_FIELDS).index(name) for name in ("element", "charge", "degree", "hydrogens", "aromatic")]
_RING_SIZE = list(ATOM_FIELDS).index("ring_size")


def fingerprints(graphs: Graphs) -> np.ndarray:
    """Bits `mix(surroundings + level) % 1024`, one for each level reached, by `np.packbits`: uint8 `[B, 128]`."""
    surroundings, counts, molecule = count(graphs)
    bits = np.zeros((len(graphs), N_BITS), np.uint8)
    for level, least in enumerate(LEVELS):
        often = counts >= least
        with np.errstate(over="ignore"):
            at = mix(surroundings[often] + np.uint64(level)) % np.uint64(N_BITS)
        bits[molecule[often], at.astype(np.int64)] = 1
    return np.packbits(bits, axis=1)


def count(graphs: Graphs) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Different surroundings of each molecule, uint64 `[M]`; how often each occurs and its molecule, int64 `[M]`.

    Molecules ascend, and so do the surroundings of one.
    """
    molecule = np.tile(np.repeat(np.arange(len(graphs)), graphs.n_atoms), RADIUS + 1)
    found = _surroundings(graphs)
    order = np.lexsort((found, molecule))
    found, molecule = found[order], molecule[order]
    is_first = np.ones(len(found), bool)
    is_first[1:] = (found[1:] != found[:-1]) | (molecule[1:] != molecule[:-1])
    first = np.flatnonzero(is_first)
    return found[first], np.diff(first, append=len(found)), molecule[first]


def _surroundings(graphs: Graphs) -> np.ndarray:
    """Hashes of radius 0, then of radius 1, then 2 of all atoms: uint64 `[3 V]`."""
    ends = graphs.bond_endpoints.astype(np.int64) + np.repeat(graphs.atom_ptr[:-1], np.diff(graphs.bond_ptr))[:, None]
    with np.errstate(over="ignore"):
        adjacency = Adjacency(ends, len(graphs.atoms))
        bonds = bond_keys(graphs.bonds // 16)[adjacency.bond]  # the order alone
        hashes = [mix(atom_keys(_invariants(graphs.atoms)))]
        for _ in range(RADIUS):
            hashes.append(adjacency.refine(hashes[-1], bonds))
    return np.concatenate(hashes)


def _invariants(atoms: np.ndarray) -> np.ndarray:
    """Element, charge, degree, hydrogens, aromatic, and whether in a ring: uint8 `[V, 6]`."""
    return np.concatenate([atoms[:, _FIELDS], atoms[:, _RING_SIZE : _RING_SIZE + 1] > 0], axis=1)
