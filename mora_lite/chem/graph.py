"""Molecules as arrays: small integer codes for atoms and bonds, many molecules in one flat store, batches as tensors.

Categories only: no 3D, no conformers. Every category has one code more than the values it names, so that any element,
charge, wildcard or dative bond has a code; nothing is refused. The layout in memory is that on disk: each bond once,
its two endpoints counted from the molecule's first atom. Bonds become directed (`E` of them) when a batch is made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from rdkit import Chem

if TYPE_CHECKING:
    import torch  # imported where tensors are made: featurising needs none

Hybrid = Chem.HybridizationType
Chiral = Chem.ChiralType
Bond = Chem.BondType
Stereo = Chem.BondStereo

# name -> number of codes. The order is the column order of `Graphs.atoms`; packs store this table.
ATOM_FIELDS: dict[str, int] = {
    "element": 119,  # atomic number; 0 is the wildcard *
    "charge": 10,  # -4 .. +4, then any other
    "degree": 8,  # 0 .. 6, then more
    "hydrogens": 6,  # implicit and explicit, 0 .. 4, then more
    "hybridisation": 7,
    "aromatic": 2,
    "chirality": 4,
    "radicals": 3,  # 0, 1, more
    "ring_size": 8,  # smallest ring of the atom: none, 3 .. 8, larger
    "ring_count": 4,  # 0 .. 2, then more
}
BOND_FIELDS: dict[str, int] = {"order": 5, "conjugated": 2, "ring": 2, "stereo": 4}
N_BOND_CODES = 5 * 2 * 2 * 4  # the four fields as the digits of one number, order the most significant

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


@dataclass(frozen=True)
class Graphs:
    """Many molecules in flat arrays (compressed sparse rows); molecule `i` owns atoms `atom_ptr[i]:atom_ptr[i+1]`.

    atoms: uint8 `[V, 10]`, codes in the order of `ATOM_FIELDS`.
    bonds: uint8 `[E/2]`, one code for each bond (see `BOND_FIELDS`).
    bond_endpoints: uint16 `[E/2, 2]`, the bond's atoms, counted from the molecule's first atom.
    atom_ptr, bond_ptr: int64 `[B+1]`.
    """

    atoms: np.ndarray
    bonds: np.ndarray
    bond_endpoints: np.ndarray
    atom_ptr: np.ndarray
    bond_ptr: np.ndarray

    def __len__(self) -> int:
        return len(self.atom_ptr) - 1

    @property
    def n_atoms(self) -> np.ndarray:
        """int64 `[B]`: atoms of each molecule."""
        return np.diff(self.atom_ptr)

    def select(self, rows: Sequence[int] | np.ndarray) -> Graphs:
        """A new store of the molecules `rows`, in that order."""
        rows = np.asarray(rows, dtype=np.int64)
        atom_rows, atom_ptr = _gather_rows(self.atom_ptr, rows)
        bond_rows, bond_ptr = _gather_rows(self.bond_ptr, rows)
        atoms, bonds, endpoints = self.atoms[atom_rows], self.bonds[bond_rows], self.bond_endpoints[bond_rows]
        return Graphs(atoms, bonds, endpoints, atom_ptr, bond_ptr)

    def arrays(self) -> dict[str, np.ndarray]:
        """All molecules of this store as one batch: int64 arrays, by the names of `GraphBatch.tensors`."""
        n_bonds = np.diff(self.bond_ptr)
        first = np.repeat(self.atom_ptr[:-1], n_bonds)[:, None]
        endpoints = self.bond_endpoints.astype(np.int64) + first
        return {
            "atoms": self.atoms.astype(np.int64),
            "bonds": np.tile(self.bonds, 2).astype(np.int64),
            "source": np.concatenate([endpoints[:, 0], endpoints[:, 1]]),
            "target": np.concatenate([endpoints[:, 1], endpoints[:, 0]]),
            "graph": np.repeat(np.arange(len(self), dtype=np.int64), self.n_atoms),
        }

    def batch(self, device: torch.device | str = "cpu") -> GraphBatch:
        """All molecules of this store as one batch of tensors on `device`."""
        import torch

        tensors = {name: torch.from_numpy(array).to(device) for name, array in self.arrays().items()}
        return GraphBatch(**tensors, n_graphs=len(self))


@dataclass(frozen=True)
class GraphBatch:
    """One batch as plain tensors.

    atoms: int64 `[V, 10]`; bonds: int64 `[E]`; source, target: int64 `[E]`, atom numbers within the batch;
    graph: int64 `[V]`, the molecule of each atom, ascending; n_graphs: `B`.
    """

    atoms: torch.Tensor
    bonds: torch.Tensor
    source: torch.Tensor
    target: torch.Tensor
    graph: torch.Tensor
    n_graphs: int
    tensors = ("atoms", "bonds", "source", "target", "graph")

    def padded(self, n_atoms: int, n_bonds: int) -> GraphBatch:
        """The same batch with fixed sizes: one more molecule owns the added atoms and bonds.

        The added bonds are loops on the last atom, so no real atom receives anything from them.
        """
        import torch

        more_atoms, more_bonds = n_atoms - len(self.atoms), n_bonds - len(self.bonds)
        assert min(more_atoms - 1, more_bonds) >= 0, "the batch is larger than the size to pad to"
        loops = self.source.new_full((more_bonds,), n_atoms - 1)
        return GraphBatch(
            torch.cat([self.atoms, self.atoms.new_zeros(more_atoms, self.atoms.shape[1])]),
            torch.cat([self.bonds, self.bonds.new_zeros(more_bonds)]),
            torch.cat([self.source, loops]),
            torch.cat([self.target, loops]),
            torch.cat([self.graph, self.graph.new_full((more_atoms,), self.n_graphs)]),
            self.n_graphs + 1,
        )

    def rounded(self, multiple: int = 128) -> GraphBatch:
        """Padded to a multiple of atoms, so that few sizes occur.

        On CPUs the bfloat16 products are compiled for each new size (docs/benchmarks/training.md has what it costs).
        """
        return self.padded((len(self.atoms) // multiple + 1) * multiple, len(self.bonds))

    def to(self, device: torch.device | str) -> GraphBatch:
        """The same batch on another device."""
        return replace(self, **{name: getattr(self, name).to(device, non_blocking=True) for name in self.tensors})


def _gather_rows(ptr: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the items of `rows`, and the new row pointer."""
    counts = ptr[rows + 1] - ptr[rows]
    new_ptr = _pointer(counts)
    shift = np.repeat(ptr[rows] - new_ptr[:-1], counts)
    return np.arange(new_ptr[-1], dtype=np.int64) + shift, new_ptr


def concatenate(parts: Sequence[Graphs]) -> Graphs:
    """One store out of several, in order."""
    atoms, bonds, endpoints = (
        np.concatenate([getattr(p, name) for p in parts]) for name in ("atoms", "bonds", "bond_endpoints")
    )
    atom_ptr, bond_ptr = (
        _pointer(np.concatenate([np.diff(getattr(p, name)) for p in parts])) for name in ("atom_ptr", "bond_ptr")
    )
    return Graphs(atoms, bonds, endpoints, atom_ptr, bond_ptr)


def featurize(molecules: Sequence[Chem.Mol]) -> Graphs:
    """RDKit molecules -> codes. Atoms keep RDKit's order; a molecule must have at least one atom.

    Python only collects plain numbers, one property after the other; NumPy maps them to codes, once for the whole list.
    """
    n_atoms = [molecule.GetNumAtoms() for molecule in molecules]
    n_bonds = [molecule.GetNumBonds() for molecule in molecules]
    assert all(n_atoms), "a molecule without atoms has no graph"
    atom_ptr, bond_ptr = _pointer(n_atoms), _pointer(n_bonds)
    raw = np.empty((len(_ATOM_PROPERTIES), atom_ptr[-1]), dtype=np.int64)
    flat = np.empty((len(_BOND_PROPERTIES), bond_ptr[-1]), dtype=np.int64)
    for start in range(0, len(molecules), BLOCK):
        block = slice(start, start + BLOCK)
        stop = start + len(molecules[block])
        atoms: list[Any] = []
        bonds: list[Any] = []
        for molecule, n, m in zip(molecules[block], n_atoms[block], n_bonds[block], strict=True):
            atoms.extend(map(molecule.GetAtomWithIdx, range(n)))
            bonds.extend(map(molecule.GetBondWithIdx, range(m)))
        _read_properties(atoms, _ATOM_PROPERTIES, raw[:, atom_ptr[start] : atom_ptr[stop]])
        _read_properties(bonds, _BOND_PROPERTIES, flat[:, bond_ptr[start] : bond_ptr[stop]])

    ring_size, ring_count = _ring_properties(molecules, atom_ptr)
    codes = np.empty((len(ring_size), len(ATOM_FIELDS)), dtype=np.uint8)
    codes[:, 0] = raw[0]
    charge = raw[1] + 4
    codes[:, 1] = np.where((charge >= 0) & (charge <= 8), charge, 9)
    codes[:, 2] = np.minimum(raw[2], 7)
    codes[:, 3] = np.minimum(raw[3], 5)
    codes[:, 4:7] = raw[4:7].T
    codes[:, 7] = np.minimum(raw[7], 2)
    codes[:, 8] = np.where(ring_size == 0, 0, np.minimum(ring_size - 2, 7))
    codes[:, 9] = np.minimum(ring_count, 3)
    bond_codes = ((flat[2] * 2 + flat[3]) * 2 + flat[4]) * 4 + flat[5]
    return Graphs(codes, bond_codes.astype(np.uint8), flat[:2].T.astype(np.uint16, order="C"), atom_ptr, bond_ptr)


def _pointer(counts: Sequence[int] | np.ndarray) -> np.ndarray:
    """Where each molecule's items begin, and the end of the last: int64 `[B+1]`."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])


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
