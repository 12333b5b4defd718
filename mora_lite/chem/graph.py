"""Molecules as arrays: small integer codes for atoms and bonds, many molecules in one flat store, batches as tensors.

Categories only: no 3D, no conformers. Every category has one code more than the values it names, so that any element,
charge, wildcard or dative bond has a code; nothing is refused. The layout in memory is that on disk: each bond once,
its two endpoints counted from the molecule's first atom. Bonds become directed (`E` of them) when a batch is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch  # imported where tensors are made: featurising needs none

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
ARRAYS = ("atoms", "bonds", "bond_endpoints", "atom_ptr", "bond_ptr")  # that every store has
N_BOND_CODES = 5 * 2 * 2 * 4  # the four fields as the digits of one number, order the most significant


@dataclass(frozen=True)
class Graphs:
    """Many molecules in flat arrays (compressed sparse rows); molecule `i` owns atoms `atom_ptr[i]:atom_ptr[i+1]`.

    atoms: uint8 `[V, 10]`, codes in the order of `ATOM_FIELDS`.
    bonds: uint8 `[E/2]`, one code for each bond (see `BOND_FIELDS`).
    bond_endpoints: uint16 `[E/2, 2]`, the bond's atoms, counted from the molecule's first atom.
    atom_ptr, bond_ptr: int64 `[B+1]`.
    descriptors: float32 `[B, F]` of whole molecules, for a pack whose featurizer has them.
    """

    atoms: np.ndarray
    bonds: np.ndarray
    bond_endpoints: np.ndarray
    atom_ptr: np.ndarray
    bond_ptr: np.ndarray
    descriptors: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.atom_ptr) - 1

    @property
    def n_atoms(self) -> np.ndarray:
        """int64 `[B]`: atoms of each molecule."""
        return np.diff(self.atom_ptr)

    @property
    def ends(self) -> np.ndarray:
        """int64 `[E/2, 2]`: the two atoms of each bond, counted over all molecules."""
        return self.bond_endpoints.astype(np.int64) + np.repeat(self.atom_ptr[:-1], np.diff(self.bond_ptr))[:, None]

    def select(self, rows: Sequence[int] | np.ndarray) -> Graphs:
        """A new store of the molecules `rows`, in that order."""
        rows = np.asarray(rows, dtype=np.int64)
        atom_rows, atom_ptr = gather_rows(self.atom_ptr, rows)
        bond_rows, bond_ptr = gather_rows(self.bond_ptr, rows)
        atoms, bonds, endpoints = self.atoms[atom_rows], self.bonds[bond_rows], self.bond_endpoints[bond_rows]
        descriptors = None if self.descriptors is None else self.descriptors[rows]
        return Graphs(atoms, bonds, endpoints, atom_ptr, bond_ptr, descriptors)

    def arrays(self) -> dict[str, np.ndarray]:
        """All molecules of this store as one batch: int64 arrays, by the names of `GraphBatch.tensors`."""
        ends = self.ends
        return {
            "atoms": self.atoms.astype(np.int64),
            "bonds": np.tile(self.bonds, 2).astype(np.int64),
            "source": np.concatenate([ends[:, 0], ends[:, 1]]),
            "target": np.concatenate([ends[:, 1], ends[:, 0]]),
            "graph": np.repeat(np.arange(len(self), dtype=np.int64), self.n_atoms),
        }

    def batch(self, device: torch.device | str = "cpu") -> GraphBatch:
        """All molecules of this store as one batch of tensors on `device`."""
        import torch

        tensors = {name: torch.from_numpy(array).to(device) for name, array in self.arrays().items()}
        return GraphBatch(**tensors, n_graphs=len(self), longest=int(self.n_atoms.max(initial=0)))


@dataclass(frozen=True)
class GraphBatch:
    """One batch as plain tensors.

    atoms: int64 `[V, 10]`; bonds: int64 `[E]`; source, target: int64 `[E]`, atom numbers within the batch;
    graph: int64 `[V]`, the molecule of each atom, ascending; n_graphs: `B`.
    longest: no molecule has more atoms, but for one that owns added ones.
    """

    atoms: torch.Tensor
    bonds: torch.Tensor
    source: torch.Tensor
    target: torch.Tensor
    graph: torch.Tensor
    n_graphs: int
    longest: int
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
            self.longest,
        )

    def rounded(self, multiple: int = 128) -> GraphBatch:
        """Padded to a multiple of atoms, so that few sizes occur.

        On CPUs the bfloat16 products are compiled for each new size (docs/benchmarks/training.md has what it costs).
        """
        return self.padded((len(self.atoms) // multiple + 1) * multiple, len(self.bonds))

    def pinned(self) -> GraphBatch:
        """A copy in pinned memory, which a CUDA device reads without the program waiting for it."""
        return replace(self, **{name: getattr(self, name).pin_memory() for name in self.tensors})

    def to(self, device: torch.device | str) -> GraphBatch:
        """The same batch on another device."""
        return replace(self, **{name: getattr(self, name).to(device, non_blocking=True) for name in self.tensors})


def gather_rows(ptr: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the items of `rows`, and the new row pointer."""
    counts = ptr[rows + 1] - ptr[rows]
    new_ptr = row_pointer(counts)
    shift = np.repeat(ptr[rows] - new_ptr[:-1], counts)
    return np.arange(new_ptr[-1], dtype=np.int64) + shift, new_ptr


def concatenate(parts: Sequence[Graphs]) -> Graphs:
    """One store out of several, in order; with descriptors if all have them."""
    atoms, bonds, endpoints = (
        np.concatenate([getattr(p, name) for p in parts]) for name in ("atoms", "bonds", "bond_endpoints")
    )
    atom_ptr, bond_ptr = (
        row_pointer(np.concatenate([np.diff(getattr(p, name)) for p in parts])) for name in ("atom_ptr", "bond_ptr")
    )
    described = [p.descriptors for p in parts if p.descriptors is not None]
    descriptors = np.concatenate(described) if described and len(described) == len(parts) else None
    return Graphs(atoms, bonds, endpoints, atom_ptr, bond_ptr, descriptors)


def row_pointer(counts: Sequence[int] | np.ndarray) -> np.ndarray:
    """Where each molecule's items begin, and the end of the last: int64 `[B+1]`."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])


def run_bounds(changes: np.ndarray) -> list[int]:
    """Starts of runs and the end of the last. changes: bool, whether each row but the first differs from the last."""
    return [0, *(np.flatnonzero(changes) + 1).tolist(), len(changes) + 1]
