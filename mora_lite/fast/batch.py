"""A batch of molecules with its bonds sorted by the atom they lead to, so that sums over them are sums over runs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..chem.graph import Graphs

ROWS = 128  # sizes are rounded up to this: oneDNN compiles a product for every number of rows that it meets


@dataclass(frozen=True)
class SortedBatch:
    """A batch with its bonds in the order of their targets, and atoms rounded up by some that belong to nobody.

    All int64, or all int32. atoms: `[V, 10]`, codes. messages: `[E, 2]`: the source atom, and `V` + the bond's code.
    bond_ends: `[V+1]`, where the bonds to each atom start. graph: `[V]`, of the added some number below `B`. atom_ends:
    `[B+1]`. longest: atoms of the largest molecule, or more.
    """

    atoms: Tensor
    messages: Tensor
    bond_ends: Tensor
    graph: Tensor
    atom_ends: Tensor
    longest: int

    @classmethod
    def of(cls, graphs: Graphs) -> SortedBatch:
        n_atoms, n = graphs.n_atoms, len(graphs.atoms)
        rounded = -(-n // ROWS) * ROWS
        ends = graphs.ends + np.repeat(graphs.atom_ptr[:-1], np.diff(graphs.bond_ptr))[:, None]
        target = np.concatenate([ends[:, 1], ends[:, 0]])
        # numpy sorts 16-bit integers by counting.
        order = np.argsort(target.astype(np.uint16) if rounded < 1 << 16 else target, kind="stable")
        messages = np.empty((len(order), 2), np.int64)
        messages[:, 0] = np.concatenate([ends[:, 0], ends[:, 1]])[order]
        messages[:, 1] = np.tile(graphs.bonds, 2)[order].astype(np.int64) + rounded
        bond_ends = np.zeros(rounded + 1, np.int64)
        np.cumsum(np.bincount(target, minlength=rounded), out=bond_ends[1:])
        atoms = np.zeros((rounded, graphs.atoms.shape[1]), np.int64)
        atoms[:n] = graphs.atoms
        graph = np.zeros(rounded, np.int64)
        graph[:n] = np.repeat(np.arange(len(graphs)), n_atoms)
        as_tensor = torch.from_numpy
        return cls(
            as_tensor(atoms),
            as_tensor(messages),
            as_tensor(bond_ends),
            as_tensor(graph),
            as_tensor(np.ascontiguousarray(graphs.atom_ptr)),
            int(n_atoms.max()),
        )

    def __len__(self) -> int:
        return len(self.atom_ends) - 1
