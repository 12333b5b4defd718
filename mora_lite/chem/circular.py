"""Circular fingerprints out of graph codes: which surroundings of atoms a molecule has, and how often.

An atom's surroundings of radius 0 are hashed from six of its codes (`_invariants`), those of radius 1 and 2 by one and
two rounds of refinement with the orders of the bonds (`refinement`): Morgan's algorithm, as in ECFP (Rogers and Hahn
2010), but counted, with no surroundings left out as repetitions, and without stereo codes, so that mirror images are as
near to one another as they can be. The elements alone, hydrogens among them, are counted too: without them two small
molecules have nothing in common. Nothing but integers of 64 bits is used, so any language gets the same bits.
"""

from __future__ import annotations

import numpy as np

from . import extension
from .graph import ATOM_FIELDS, Graphs, row_pointer
from .refinement import Adjacency, atom_keys, bond_keys, mix

NAME = "circular-counts-1"
RADIUS = 2
N_BITS = 1024
LEVELS = (1, 2, 4, 8, 16, 32)  # what occurs so often sets one more bit; bits alone do not tell benzene from biphenyl
PACKED_ROWS = 8192  # fingerprints that are packed together, when their positions were read
_BITS_OF_BYTE = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(1, dtype=np.uint8)
_COLUMN = {name: i for i, name in enumerate(ATOM_FIELDS)}
_FIELDS = [_COLUMN[name] for name in ("element", "charge", "degree", "hydrogens", "aromatic")]


def fingerprints(graphs: Graphs, *, plain: bool = False) -> np.ndarray:
    """Bits `mix(part + level) % 1024`, one for each level that a part reaches, by `np.packbits`: uint8 `[B, 128]`.

    plain: without the compiled part (`extension`), which gives the same.
    """
    bits_of_all = None if plain else extension.fingerprints(graphs)
    if bits_of_all is not None:
        return bits_of_all
    parts, counts, molecule = count(graphs)
    bits = np.zeros((len(graphs), N_BITS), np.uint8)
    for level, least in enumerate(LEVELS):
        often = counts >= least
        with np.errstate(over="ignore"):
            at = mix(parts[often] + np.uint64(level)) % np.uint64(N_BITS)
        bits[molecule[often], at.astype(np.int64)] = 1
    return np.packbits(bits, axis=1)


def count(graphs: Graphs) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Different parts of each molecule, uint64 `[M]`; how often each occurs and its molecule, int64 `[M]`.

    Parts are surroundings and elements. Molecules ascend, and so do the parts of one.
    """
    of_atom = np.repeat(np.arange(len(graphs)), graphs.n_atoms)
    hydrogens = np.repeat(of_atom, graphs.atoms[:, _COLUMN["hydrogens"]])
    elements = np.concatenate([graphs.atoms[:, _COLUMN["element"]], np.ones(len(hydrogens), np.uint8)])
    parts = np.concatenate([_surroundings(graphs), mix(elements.astype(np.uint64))])
    molecule = np.concatenate([np.tile(of_atom, RADIUS + 2), hydrogens])
    order = np.lexsort((parts, molecule))
    parts, molecule = parts[order], molecule[order]
    is_first = np.ones(len(parts), bool)
    is_first[1:] = (parts[1:] != parts[:-1]) | (molecule[1:] != molecule[:-1])
    first = np.flatnonzero(is_first)
    return parts[first], np.diff(first, append=len(parts)), molecule[first]


def _surroundings(graphs: Graphs) -> np.ndarray:
    """Hashes of radius 0, then of radius 1, then 2 of all atoms: uint64 `[3 V]`."""
    with np.errstate(over="ignore"):
        adjacency = Adjacency(graphs.ends, len(graphs.atoms))
        bonds = bond_keys(graphs.bonds // 16)[adjacency.bond]  # the order alone
        hashes = [mix(atom_keys(_invariants(graphs.atoms)))]
        for _ in range(RADIUS):
            hashes.append(adjacency.refine(hashes[-1], bonds))
    return np.concatenate(hashes)


def _invariants(atoms: np.ndarray) -> np.ndarray:
    """Element, charge, degree, hydrogens, aromatic, and whether in a ring: uint8 `[V, 6]`."""
    return np.concatenate([atoms[:, _FIELDS], atoms[:, [_COLUMN["ring_size"]]] > 0], axis=1)


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
