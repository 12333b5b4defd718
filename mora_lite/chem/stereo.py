"""Stereo codes that depend on the molecule and not on how it was spelled.

RDKit's CW and CCW say in which sense a centre's neighbours follow one another *as they are written*, so two spellings
of one molecule may have opposite tags. Here a centre is compared with an order that the molecule itself gives:

1. Atoms are told apart by refinement (`refinement`), starting from all their codes but chirality.
2. A centre whose neighbours all have different hashes gets code 1 or 2 at the first round in which they differ, by the
   parity of the order in which they are written against the order of their hashes; a double bond by whether those
   substituents that have the larger hash at either end are on one side.
3. The codes become part of the keys and the rest is tried again, for centres between arms that differ in
   configuration only; until nothing new is found.
4. What is left may still be elements that hold one another, as in 1,4-disubstituted rings. One of the like neighbours
   is marked, each in turn, and the molecule is refined again. Where that resolves two or more elements at once they
   are real; one that is resolved alone is none, as two of its neighbours are the same. Among the markings the one
   whose codes have the smallest sum of hashes is taken.

Nothing is known of allenes, atropisomers and the geometries of metals: their code is 0, as is that of a mark which
distinguishes nothing. Many molecules are done at once; no molecule's codes depend on the others.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from .graph import gather_rows
from .refinement import BASE, Adjacency, bond_keys, mix

FIRST_COUNT = 4  # rounds before different hashes are counted: most centres are decided by then
MAX_MARKINGS = 16  # of one molecule at a time; with more, as in cages of equal atoms, what is left stays without codes
_CODE = np.uint64(BASE**3)  # of an atom's key, what a code of 1 in the column of chirality adds
_MARK = np.uint64(1 << 63)
_PAIRS = ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3))


@dataclass(frozen=True)
class Elements:
    """What may have a configuration, of many molecules; those of one molecule stand together, molecules in order.

    molecule: int64 `[N]`. owner: int64 `[N]`, number of the centre's atom, or of the double bond.
    is_bond: bool `[N]`.
    groups: int64 `[N, 2, 4]`, the atoms whose order counts: a centre's neighbours as they are written; of a double bond
        the substituents of either end, the one that `odd` speaks of first. -1 where there is none.
    odd: bool `[N]`, whether a centre is counter-clockwise, or the first substituents of a bond are on one side.
    """

    molecule: np.ndarray
    owner: np.ndarray
    is_bond: np.ndarray
    groups: np.ndarray
    odd: np.ndarray

    def __len__(self) -> int:
        return len(self.owner)


@dataclass(frozen=True)
class Molecules:
    """Molecules whose elements are to be told. Atoms, bonds and elements of a molecule stand together, in order.

    atoms: uint64 `[V]`, `atom_keys`, chirality 0. bonds: int64 `[E/2]`, codes, stereo 0. ends: int64 `[E/2, 2]`.
    atom_ptr, bond_ptr: int64 `[B+1]`.
    """

    atoms: np.ndarray
    bonds: np.ndarray
    ends: np.ndarray
    atom_ptr: np.ndarray
    bond_ptr: np.ndarray
    elements: Elements

    def __len__(self) -> int:
        return len(self.atom_ptr) - 1

    def select(self, rows: np.ndarray) -> tuple[Molecules, np.ndarray, np.ndarray]:
        """The molecules `rows`, which may repeat; where their elements stand here, int64; and by how much the numbers
        of each molecule's atoms have grown, int64 `[len(rows)]`.
        """
        old = self.elements
        atoms, atom_ptr = gather_rows(self.atom_ptr, rows)
        bonds, bond_ptr = gather_rows(self.bond_ptr, rows)
        chosen, element_ptr = gather_rows(np.searchsorted(old.molecule, np.arange(len(self) + 1)), rows)
        new = np.repeat(np.arange(len(rows)), np.diff(element_ptr))
        atom_shift, bond_shift = atom_ptr[:-1] - self.atom_ptr[rows], bond_ptr[:-1] - self.bond_ptr[rows]
        owner = old.owner[chosen] + np.where(old.is_bond[chosen], bond_shift[new], atom_shift[new])
        groups = old.groups[chosen]
        groups = np.where(groups >= 0, groups + atom_shift[new, None, None], -1)
        elements = Elements(new, owner, old.is_bond[chosen], groups, old.odd[chosen])
        ends = self.ends[bonds] + np.repeat(atom_shift, np.diff(bond_ptr))[:, None]
        parts = self.atoms[atoms], self.bonds[bonds], ends, atom_ptr, bond_ptr, elements
        return Molecules(*parts), chosen, atom_shift

    def coded(self, codes: np.ndarray) -> Molecules:
        """The same with the elements' codes, int64 `[N]`, in their keys."""
        atoms, bonds, at, is_bond = self.atoms.copy(), self.bonds.copy(), self.elements.owner, self.elements.is_bond
        atoms[at[~is_bond]] += codes[~is_bond].astype(np.uint64) * _CODE
        bonds[at[is_bond]] += codes[is_bond]
        return replace(self, atoms=atoms, bonds=bonds)


class _Refinement:
    """Hashes of all atoms, round after round. A molecule that is not `active` keeps its hashes."""

    def __init__(self, molecules: Molecules):
        self.molecule = np.repeat(np.arange(len(molecules)), np.diff(molecules.atom_ptr))
        self.hashes = mix(molecules.atoms)
        self.active = np.ones(len(molecules), bool)
        self._adjacency = Adjacency(molecules.ends, len(molecules.atoms))
        self._bonds = bond_keys(molecules.bonds)[self._adjacency.bond]
        self._apart = mix(self.molecule.astype(np.uint64))  # so that no two molecules share a hash
        self._n_classes = np.zeros(len(molecules), np.int64)

    def step(self) -> None:
        """One round."""
        refined = self._adjacency.refine(self.hashes, self._bonds)
        self.hashes = np.where(self.active[self.molecule], refined, self.hashes)

    def stop_stable(self) -> None:
        """Molecules whose number of different hashes has not grown since the last call are active no longer."""
        _, first = np.unique(self.hashes ^ self._apart, return_index=True)
        n_classes = np.bincount(self.molecule[first], minlength=len(self.active))
        self.active &= n_classes > self._n_classes
        self._n_classes = n_classes


def stereo_codes(molecules: Molecules) -> np.ndarray:
    """Codes of the elements, uint8 `[N]`: 1 or 2 (of a double bond trans or cis); 0 where there is no configuration."""
    with np.errstate(over="ignore"):
        codes = np.zeros(len(molecules.elements), np.int64)
        some, chosen, _ = molecules.select(np.unique(molecules.elements.molecule))
        found = _resolve(some, codes[chosen])
        left, of_left, _ = some.select(np.unique(some.elements.molecule[found == 0]))
        if len(left):
            found[of_left] = _mark_and_resolve(left, found[of_left])
        codes[chosen] = found
    return codes.astype(np.uint8)


def _parities(elements: Elements, hashes: np.ndarray, which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of the elements `which`: their codes, int64, and whether the hashes tell their atoms apart, bool."""
    groups = elements.groups[which]
    keys = np.where(groups >= 0, hashes[groups], np.uint64(0))
    odd, alike = elements.odd[which], np.zeros(len(which), bool)
    for i, j in _PAIRS:
        both = groups[:, :, j] >= 0
        odd = odd ^ np.logical_xor.reduce(both & (keys[:, :, i] > keys[:, :, j]), axis=1)
        alike |= (both & (keys[:, :, i] == keys[:, :, j])).any(axis=1)
    return 1 + odd.astype(np.int64), ~alike


def _resolve(molecules: Molecules, codes: np.ndarray) -> np.ndarray:
    """Steps 1 to 3: codes int64 `[N]` with those added that refinement finds."""
    elements, codes = molecules.elements, codes.copy()
    while True:
        refinement = _Refinement(molecules.coded(codes))
        fresh = np.zeros_like(codes)
        for n_round in itertools.count(1):
            is_open = (codes == 0) & (fresh == 0)
            refinement.active &= np.bincount(elements.molecule[is_open], minlength=len(molecules)) > 0
            if not refinement.active.any():
                break
            refinement.step()
            which = np.flatnonzero(is_open & refinement.active[elements.molecule])
            found, apart = _parities(elements, refinement.hashes, which)
            fresh[which[apart]] = found[apart]
            if n_round >= FIRST_COUNT:
                refinement.stop_stable()
        if not fresh.any():
            return codes
        codes += fresh


def _stable_hashes(molecules: Molecules) -> np.ndarray:
    refinement = _Refinement(molecules)
    while refinement.active.any():
        refinement.step()
        refinement.stop_stable()
    return refinement.hashes


def _mark_and_resolve(molecules: Molecules, codes: np.ndarray) -> np.ndarray:
    """Step 4, for molecules that all have elements without a code."""
    alone = np.zeros(len(codes), bool)  # found to be so; others that are resolved later may still tell them apart
    while True:
        hashes = _stable_hashes(molecules.coded(codes))
        markings = _markings(molecules.elements, hashes, (codes == 0) & ~alone)
        if not markings:
            return codes
        rows = np.array([marking.molecule for marking in markings])
        copies, chosen, shift = molecules.select(rows)
        keys = copies.atoms.copy()
        keys[np.array([marking.atom for marking in markings]) + shift] += _MARK
        after = _resolve(replace(copies, atoms=keys), codes[chosen])
        of_atoms = np.repeat(np.arange(len(rows)), np.diff(copies.atom_ptr))
        sums = np.zeros(len(rows), np.uint64)
        np.add.at(sums, of_atoms, mix(_stable_hashes(copies.coded(after))))
        n_new = np.bincount(copies.elements.molecule[after != codes[chosen]], minlength=len(rows))
        codes = codes.copy()
        for molecule in np.unique(rows):
            copy = np.flatnonzero(rows == molecule)
            together = copy[n_new[copy] > 1]
            if len(together):
                best = copies.elements.molecule == together[np.argmin(sums[together])]
                codes[chosen[best]] = after[best]
            else:
                alone[markings[copy[0]].elements] = True
        codes = _resolve(molecules, codes)


class _Marking(NamedTuple):
    """One atom of a molecule to mark, for the elements of one class."""

    molecule: int
    atom: int
    elements: list[int]


def _markings(elements: Elements, hashes: np.ndarray, wanted: np.ndarray) -> list[_Marking]:
    """The like neighbours of one class of elements in each molecule: of the smallest hash that has not too many."""
    which = np.flatnonzero(wanted)
    groups, is_bond = elements.groups[which], elements.is_bond[which]
    around = np.where(groups >= 0, mix(hashes[groups]), np.uint64(0)).sum(axis=(1, 2), dtype=np.uint64)
    centre = np.where(is_bond, np.uint64(1), hashes[np.where(is_bond, 0, elements.owner[which])])
    classes: dict[int, dict[int, list[int]]] = {}
    for element, value in zip(which.tolist(), mix(around + centre).tolist(), strict=True):
        classes.setdefault(int(elements.molecule[element]), {}).setdefault(value, []).append(element)
    markings: list[_Marking] = []
    for molecule, by_value in classes.items():
        for _, members in sorted(by_value.items()):
            atoms = sorted({atom for element in members for atom in _like_atoms(elements.groups[element], hashes)})
            if len(atoms) <= MAX_MARKINGS:
                markings += [_Marking(molecule, atom, members) for atom in atoms]
                break
    return markings


def _like_atoms(groups: np.ndarray, hashes: np.ndarray) -> list[int]:
    """Of an element's atoms those that are alike; those of the smallest hash where there are several kinds."""
    kinds: dict[tuple[int, int], list[int]] = {}
    for end, group in enumerate(groups.tolist()):
        for atom in group:
            if atom >= 0:
                kinds.setdefault((int(hashes[atom]), end), []).append(atom)
    return min((kind, atoms) for kind, atoms in kinds.items() if len(atoms) > 1)[1]
