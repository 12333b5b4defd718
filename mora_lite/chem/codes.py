"""RDKit molecules -> graph codes (`Graphs`), many at a time: Python collects numbers, NumPy maps them to codes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import numpy as np
from rdkit import Chem

from . import extension
from .graph import ATOM_FIELDS, Graphs, row_pointer
from .refinement import Adjacency, atom_keys, bond_keys, mix
from .stereo import Elements, Molecules, stereo_codes

Hybrid = Chem.HybridizationType
Chiral = Chem.ChiralType
Bond = Chem.BondType
Stereo = Chem.BondStereo

# Molecules whose atoms and bonds are Python objects at a time: with many more the garbage collector starts, which takes
# a quarter of the total time.
BLOCK = 8


def _codes(kinds: Any, known: dict[Any, int], other: int) -> Callable[[Any], int]:
    """A function from a member of the enumeration `kinds` to its code.

    A look-up in a dictionary of all members costs less than a conversion with int().
    """
    return {kind: known.get(kind, other) for kind in kinds.values.values()}.__getitem__


_HYBRID = {Hybrid.S: 1, Hybrid.SP: 2, Hybrid.SP2: 3, Hybrid.SP3: 4, Hybrid.SP3D: 5, Hybrid.SP3D2: 6}
_CHIRAL = {Chiral.CHI_UNSPECIFIED: 0, Chiral.CHI_TETRAHEDRAL_CW: 1, Chiral.CHI_TETRAHEDRAL_CCW: 2}
_ORDER = {Bond.SINGLE: 0, Bond.DOUBLE: 1, Bond.TRIPLE: 2, Bond.AROMATIC: 3}
_STEREO = {Stereo.STEREONONE: 0, Stereo.STEREOE: 1, Stereo.STEREOTRANS: 1, Stereo.STEREOZ: 2, Stereo.STEREOCIS: 2}

# What is read from each atom and bond: RDKit's method, and a function from its result to a number if it is none.
_Properties = Sequence[tuple[Any, Callable[[Any], int] | None]]
_ATOM_PROPERTIES: _Properties = (
    (Chem.Atom.GetAtomicNum, None),
    (Chem.Atom.GetFormalCharge, None),
    (Chem.Atom.GetDegree, None),
    (Chem.Atom.GetTotalNumHs, None),
    (Chem.Atom.GetHybridization, _codes(Hybrid, _HYBRID, 0)),
    (Chem.Atom.GetIsAromatic, None),
    (Chem.Atom.GetChiralTag, _codes(Chiral, _CHIRAL, 3)),
    (Chem.Atom.GetNumRadicalElectrons, None),
)
_BOND_PROPERTIES: _Properties = (
    (Chem.Bond.GetBeginAtomIdx, None),
    (Chem.Bond.GetEndAtomIdx, None),
    (Chem.Bond.GetBondType, _codes(Bond, _ORDER, 4)),
    (Chem.Bond.GetIsConjugated, None),
    (Chem.Bond.IsInRing, None),
    (Chem.Bond.GetStereo, _codes(Stereo, _STEREO, 3)),
)

_CHIRALITY = list(ATOM_FIELDS).index("chirality")
_LONE_PAIR = (15, 16, 33, 34, 51, 52)  # P, S, As, Se, Sb, Te: three neighbours and a lone pair keep their shape
_SMALLEST_RING = 8  # whose double bonds may be cis or trans
ORDER_ROUNDS = 6  # atoms that differ are told apart by then, or differ so far away that rounding alone shows it


def graph_codes(molecules: Sequence[Chem.Mol], version: int, *, plain: bool = False) -> Graphs:
    """Codes of molecules that were read for this version of them. A molecule must have at least one atom.

    In version 1 atoms and bonds keep RDKit's order. In version 2 the molecule gives them an order of their own: sums
    over them are added up in one order then, and rounded in one way, however the molecule was spelled.
    plain: without the compiled part (`extension`), which gives the same.
    """
    graphs = _plain_codes(molecules)
    if version == 1:
        return graphs
    elements = _take_elements(graphs, molecules)
    finished = None if plain else extension.finish(graphs, elements)
    if finished is not None:
        return finished
    _add_stereo(graphs, elements)
    return _in_own_order(graphs)[0]


def codes_and_order(molecule: Chem.Mol, version: int) -> tuple[Graphs, np.ndarray]:
    """`graph_codes` of one molecule, and RDKit's number of each of its atoms: int64 `[A]`."""
    graphs = _plain_codes([molecule])
    if version == 1:
        return graphs, np.arange(len(graphs.atoms))
    _add_stereo(graphs, _take_elements(graphs, [molecule]))
    return _in_own_order(graphs)


def _plain_codes(molecules: Sequence[Chem.Mol]) -> Graphs:
    """Codes with RDKit's marks of configuration, atoms and bonds in RDKit's order."""
    n_atoms = [molecule.GetNumAtoms() for molecule in molecules]
    n_bonds = [molecule.GetNumBonds() for molecule in molecules]
    assert all(n_atoms), "a molecule without atoms has no graph"
    atom_ptr, bond_ptr = row_pointer(n_atoms), row_pointer(n_bonds)
    atoms, bonds = _read(molecules, atom_ptr, bond_ptr)
    ring_size, ring_count = _ring_properties(molecules, atom_ptr)
    codes = np.empty((len(ring_size), len(ATOM_FIELDS)), dtype=np.uint8)
    codes[:, 0] = atoms[0]
    charge = atoms[1] + 4
    codes[:, 1] = np.where((charge >= 0) & (charge <= 8), charge, 9)
    codes[:, 2] = np.minimum(atoms[2], 7)
    codes[:, 3] = np.minimum(atoms[3], 5)
    codes[:, 4:7] = atoms[4:7].T
    codes[:, 7] = np.minimum(atoms[7], 2)
    codes[:, 8] = np.where(ring_size == 0, 0, np.minimum(ring_size - 2, 7))
    codes[:, 9] = np.minimum(ring_count, 3)
    bond_codes = (((bonds[2] * 2 + bonds[3]) * 2 + bonds[4]) * 4 + bonds[5]).astype(np.uint8)
    return Graphs(codes, bond_codes, bonds[:2].T.astype(np.uint16, order="C"), atom_ptr, bond_ptr)


def _read(molecules: Sequence[Chem.Mol], atom_ptr: np.ndarray, bond_ptr: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The properties of all atoms and bonds, one row each: int64 `[8, V]` and `[6, E/2]`."""
    raw = np.empty((len(_ATOM_PROPERTIES), atom_ptr[-1]), dtype=np.int64)
    flat = np.empty((len(_BOND_PROPERTIES), bond_ptr[-1]), dtype=np.int64)
    for start in range(0, len(molecules), BLOCK):
        block = molecules[start : start + BLOCK]
        stop = start + len(block)
        atoms: list[Any] = []
        bonds: list[Any] = []
        for i, molecule in enumerate(block, start):
            atoms.extend(map(molecule.GetAtomWithIdx, range(atom_ptr[i + 1] - atom_ptr[i])))
            bonds.extend(map(molecule.GetBondWithIdx, range(bond_ptr[i + 1] - bond_ptr[i])))
        _read_properties(atoms, _ATOM_PROPERTIES, raw[:, atom_ptr[start] : atom_ptr[stop]])
        _read_properties(bonds, _BOND_PROPERTIES, flat[:, bond_ptr[start] : bond_ptr[stop]])
    return raw, flat


def _read_properties(parts: list[Any], properties: _Properties, out: np.ndarray) -> None:
    """Fill one row of `out` for each property, with one column for each atom or bond of `parts`."""
    for row, (method, code) in zip(out, properties, strict=True):
        values = map(method, parts)
        row[:] = np.fromiter(values if code is None else map(code, values), row.dtype, len(parts))


def _ring_properties(molecules: Sequence[Chem.Mol], atom_ptr: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Size of the smallest ring (0: none) and number of rings, for each atom: int64 `[V]` both."""
    n_rings: list[int] = []
    sizes: list[int] = []
    members: list[int] = []
    for molecule in molecules:
        rings = molecule.GetRingInfo().AtomRings()
        n_rings.append(len(rings))
        sizes.extend(map(len, rings))
        members.extend(chain.from_iterable(rings))
    of_ring = np.array(sizes, dtype=np.int64)
    first = np.repeat(np.repeat(atom_ptr[:-1], n_rings), of_ring)
    atoms = np.array(members, dtype=np.int64) + first
    count = np.bincount(atoms, minlength=atom_ptr[-1])
    size = np.full(atom_ptr[-1], np.iinfo(np.int64).max)
    np.minimum.at(size, atoms, np.repeat(of_ring, of_ring))
    return np.where(count == 0, 0, size), count


def _add_stereo(graphs: Graphs, elements: Elements) -> None:
    """Write the stereo codes of the elements. With `_in_own_order` this is `extension.finish` in plain Python."""
    if not len(elements):
        return
    molecules = Molecules(
        atom_keys(graphs.atoms), graphs.bonds.astype(np.int64), graphs.ends, graphs.atom_ptr, graphs.bond_ptr, elements
    )
    codes = stereo_codes(molecules)
    graphs.atoms[elements.owner[~elements.is_bond], _CHIRALITY] = codes[~elements.is_bond]
    graphs.bonds[elements.owner[elements.is_bond]] += codes[elements.is_bond]


def _in_own_order(graphs: Graphs) -> tuple[Graphs, np.ndarray]:
    """The same graphs, atoms in the order of their hashes after `ORDER_ROUNDS` rounds, bonds in that of their atoms.

    Also the number that each atom had before, int64 `[V]`.
    """
    ends = graphs.ends
    adjacency = Adjacency(ends, len(graphs.atoms))
    with np.errstate(over="ignore"):
        bonds, hashes = bond_keys(graphs.bonds)[adjacency.bond], mix(atom_keys(graphs.atoms))
        for _ in range(ORDER_ROUNDS):
            hashes = adjacency.refine(hashes, bonds)
    atoms = np.lexsort((hashes, np.repeat(np.arange(len(graphs)), graphs.n_atoms)))
    place = np.empty_like(atoms)
    place[atoms] = np.arange(len(atoms))
    ends = np.sort(place[ends], axis=1)
    order = np.lexsort((ends[:, 1], ends[:, 0]))  # atoms of a molecule stand together, so do its bonds
    first = np.repeat(graphs.atom_ptr[:-1], np.diff(graphs.bond_ptr))[:, None]
    endpoints = (ends[order] - first).astype(np.uint16)
    return Graphs(graphs.atoms[atoms], graphs.bonds[order], endpoints, graphs.atom_ptr, graphs.bond_ptr), atoms


def _take_elements(graphs: Graphs, molecules: Sequence[Chem.Mol]) -> Elements:
    """What RDKit's tags mark; the tags are taken out of the codes."""
    marked_atoms = np.flatnonzero(graphs.atoms[:, _CHIRALITY])
    marked_bonds = np.flatnonzero(graphs.bonds % 4)
    adjacency = Adjacency(graphs.ends, len(graphs.atoms)) if len(marked_atoms) or len(marked_bonds) else None
    if adjacency is None:
        nothing = np.zeros(0, np.int64)
        return Elements(nothing, nothing, nothing.astype(bool), np.zeros((0, 2, 4), np.int64), nothing.astype(bool))
    elements = _join(
        _centres(graphs, adjacency, marked_atoms), _double_bonds(graphs, adjacency, molecules, marked_bonds)
    )
    graphs.atoms[:, _CHIRALITY] = 0
    graphs.bonds[:] -= graphs.bonds % 4
    return elements


def _centres(graphs: Graphs, adjacency: Adjacency, marked: np.ndarray) -> Elements:
    """Of the marked atoms the tetrahedral ones that hold their shape and have at most one hydrogen."""
    element, _, degree, hydrogens, _, _, tag, _, ring_size, ring_count = graphs.atoms[marked].T
    # A nitrogen turns inside out unless a ring of three or a cage holds it.
    lone_pair = np.isin(element, _LONE_PAIR) | ((element == 7) & ((ring_size == 1) | (ring_count >= 3)))
    four = (degree + hydrogens == 4) & (hydrogens <= 1)
    three = (degree == 3) & (hydrogens == 0) & lone_pair
    keep = (four | three) & (tag < 3)
    owner, degree = marked[keep], degree[keep].astype(np.int64)
    groups = np.full((len(owner), 2, 4), -1, np.int64)
    place = np.arange(4)
    at = np.minimum(adjacency.first[owner][:, None] + place, max(len(adjacency.source) - 1, 0))
    groups[:, 0] = np.where(place < degree[:, None], adjacency.source[at], -1)
    molecule = np.searchsorted(graphs.atom_ptr, owner, side="right") - 1
    return Elements(molecule, owner, np.zeros(len(owner), bool), groups, tag[keep] == 2)


def _double_bonds(graphs: Graphs, adjacency: Adjacency, molecules: Sequence[Chem.Mol], marked: np.ndarray) -> Elements:
    """Of the marked bonds those that may have a geometry: not in small rings."""
    of_bond = np.searchsorted(graphs.bond_ptr, marked, side="right") - 1
    rows: list[tuple[int, int, list[list[int]]]] = []
    for number, molecule in zip(marked.tolist(), of_bond.tolist(), strict=True):
        if graphs.bonds[number] % 4 == 3:  # none that is known, such as a crossed bond
            continue
        mol, index = molecules[molecule], number - int(graphs.bond_ptr[molecule])
        bond, rings = mol.GetBondWithIdx(index), mol.GetRingInfo()
        first = [int(graphs.atom_ptr[molecule]) + atom for atom in bond.GetStereoAtoms()]
        if len(first) < 2 or (rings.NumBondRings(index) and rings.MinBondRingSize(index) < _SMALLEST_RING):
            continue
        ends = (graphs.bond_endpoints[number] + graphs.atom_ptr[molecule]).tolist()
        substituents = []
        for atom, other, leading in zip(ends, ends[::-1], first, strict=True):
            start = adjacency.first[atom]
            around = adjacency.source[start : start + adjacency.degree[atom]].tolist()
            substituents.append([leading, *(a for a in around if a not in (leading, other))])
        if all(len(s) + graphs.atoms[atom, 3] <= 2 for s, atom in zip(substituents, ends, strict=True)):
            rows.append((molecule, number, substituents))
    groups = np.full((len(rows), 2, 4), -1, np.int64)
    for row, (_, _, substituents) in zip(groups, rows, strict=True):
        for out, atoms in zip(row, substituents, strict=True):
            out[: len(atoms)] = atoms
    owner = np.array([number for _, number, _ in rows], np.int64)
    of = np.array([molecule for molecule, _, _ in rows], np.int64)
    return Elements(of, owner, np.ones(len(rows), bool), groups, graphs.bonds[owner] % 4 == 2)


def _join(a: Elements, b: Elements) -> Elements:
    """Both, molecule by molecule."""
    order = np.argsort(np.concatenate([a.molecule, b.molecule]), kind="stable")
    names = ("molecule", "owner", "is_bond", "groups", "odd")
    return Elements(*(np.concatenate([getattr(a, name), getattr(b, name)])[order] for name in names))
