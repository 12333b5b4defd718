"""Hashes of atoms that take in more of the molecule round by round (Weisfeiler and Leman 1968; Morgan 1965).

All arithmetic is on unsigned integers of 64 bits and wraps, so the numbers are the same in every language. An atom's
key is its codes as digits of base 257, in the order of `ATOM_FIELDS`, the first most significant; its first hash is
`mix(key)`. A bond's key is its code. One round is

    h'[v] = mix(3 * h[v] + sum(mix(h[u] + mix(key of the bond + BOND)) for the bonds from u to v))

A sum does not depend on the order of the neighbours, so atoms that symmetry exchanges have equal hashes.
"""

from __future__ import annotations

import numpy as np

BASE = 257
BOND = 0x9E3779B97F4A7C15  # 2^64 divided by the golden ratio, so that bonds and atoms have different keys


def mix(x: np.ndarray) -> np.ndarray:
    """The last step of splitmix64 (Steele, Lea and Flood 2014): uint64 -> uint64, one to one."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def atom_keys(codes: np.ndarray) -> np.ndarray:
    """uint64 `[V]` of codes, uint8 `[V, n]`: the digits of base 257."""
    keys = np.zeros(len(codes), np.uint64)
    for column in codes.T:
        keys = keys * np.uint64(BASE) + column
    return keys


def bond_keys(codes: np.ndarray) -> np.ndarray:
    """What a bond adds to its neighbour's hash, uint64, of codes uint8."""
    return mix(codes.astype(np.uint64) + np.uint64(BOND))


class Adjacency:
    """The directed bonds of many molecules, ordered by the atom that they lead to, then by the number of the bond.

    source, bond: int64 `[E]`: the atom that each comes from, the number of its bond (which is there twice).
    first, degree: int64 `[V]`: where the bonds to an atom begin, and how many there are.
    """

    def __init__(self, ends: np.ndarray, n_atoms: int):
        """ends: int64 `[E/2, 2]`, the two atoms of each bond, counted over all molecules."""
        target = ends[:, ::-1].ravel()  # both directions of a bond beside each other, so a stable sort keeps them so
        order = np.argsort(target, kind="stable")
        self.source, self.bond = ends.ravel()[order], order // 2
        counts = np.bincount(target, minlength=n_atoms)
        self.first = np.cumsum(counts) - counts
        self.degree = counts
        self._bonded = np.flatnonzero(counts)
        self._starts = self.first[self._bonded]

    def refine(self, hashes: np.ndarray, bonds: np.ndarray) -> np.ndarray:
        """One round. hashes: uint64 `[V]`; bonds: uint64 `[E]`, `bond_keys` in the order of this adjacency."""
        received = np.zeros_like(hashes)
        if len(self._bonded):
            received[self._bonded] = np.add.reduceat(mix(hashes[self.source] + bonds), self._starts)
        return mix(hashes * np.uint64(3) + received)
