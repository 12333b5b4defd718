"""A batch of molecules with its bonds sorted by the atom they lead to, so that sums over them are sums over runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..chem.graph import ATOM_FIELDS, Graphs

ROWS = 128  # sizes are rounded up to this: oneDNN compiles a product for every number of rows that it meets


@dataclass(frozen=True)
class SortedBatch:
    """A batch with its bonds in the order of their targets, and padded with atoms that belong to no molecule.

    All int64, or all int32.
    atoms: `[V, 10]`, codes.
    messages: `[E, 2]`, the source atom, and `V` + the bond's code.
    bond_ptr: `[V+1]`, where the bonds to each atom start.
    graph: `[V]`, the molecule of each atom; of the added atoms some number below `B`.
    atom_ptr: `[B+1]`, where the atoms of each molecule start.
    longest: atoms of the largest molecule, or more.
    """

    atoms: Tensor
    messages: Tensor
    bond_ptr: Tensor
    graph: Tensor
    atom_ptr: Tensor
    longest: int

    @classmethod
    def of(cls, graphs: Graphs) -> SortedBatch:
        """The molecules on the CPU, in int64."""
        n_atoms, n = graphs.n_atoms, len(graphs.atoms)
        rounded = -(-n // ROWS) * ROWS
        endpoints = graphs.bond_endpoints + np.repeat(graphs.atom_ptr[:-1], np.diff(graphs.bond_ptr))[:, None]
        target = np.concatenate([endpoints[:, 1], endpoints[:, 0]])
        # numpy sorts 16-bit integers by counting.
        order = np.argsort(target.astype(np.uint16) if rounded < 1 << 16 else target, kind="stable")
        messages = np.empty((len(order), 2), np.int64)
        messages[:, 0] = np.concatenate([endpoints[:, 0], endpoints[:, 1]])[order]
        messages[:, 1] = np.tile(graphs.bonds, 2)[order].astype(np.int64) + rounded
        bond_ptr = np.zeros(rounded + 1, np.int64)
        np.cumsum(np.bincount(target, minlength=rounded), out=bond_ptr[1:])
        atoms = np.zeros((rounded, graphs.atoms.shape[1]), np.int64)
        atoms[:n] = graphs.atoms
        graph = np.zeros(rounded, np.int64)
        graph[:n] = np.repeat(np.arange(len(graphs)), n_atoms)
        as_tensor = torch.from_numpy
        return cls(
            as_tensor(atoms),
            as_tensor(messages),
            as_tensor(bond_ptr),
            as_tensor(graph),
            as_tensor(np.ascontiguousarray(graphs.atom_ptr)),
            int(n_atoms.max()),
        )

    def __len__(self) -> int:
        return len(self.atom_ptr) - 1


N_FIELDS = len(ATOM_FIELDS)
BONDS_PER_ATOM = 1.125  # of a padded batch; drug-like molecules have 1.07 to 1.1


class BatchSize(NamedTuple):
    """molecules, atoms and bonds (each once) of a padded batch; longest: atoms of its largest molecule."""

    molecules: int
    atoms: int
    bonds: int
    longest: int

    @classmethod
    def of(cls, graphs: Graphs, molecules: int) -> BatchSize:
        """The padded size: `molecules`, and for the others the next of few numbers, a quarter apart at most.

        There is room for `BONDS_PER_ATOM` in any case, so that most libraries have one number of bonds for each of
        atoms: a size that was not met before costs as much as thousands of molecules.
        """
        longest = rounded_size(int(graphs.n_atoms.max()) + 1, 8) - 1
        atoms = rounded_size(len(graphs.atoms))
        return cls(molecules, atoms, rounded_size(max(len(graphs.bonds), int(BONDS_PER_ATOM * atoms))), longest)

    @property
    def endpoints_at(self) -> int:
        """Where the bonds' atoms begin in the bytes of a batch: after the two row pointers."""
        return 8 * (self.molecules + 1)

    @property
    def atoms_at(self) -> int:
        return self.endpoints_at + 4 * self.bonds

    @property
    def bonds_at(self) -> int:
        return self.atoms_at + N_FIELDS * self.atoms

    @property
    def nbytes(self) -> int:
        return self.bonds_at + self.bonds


def rounded_size(n: int, least: int = 256) -> int:
    """The next number of the form m * 2**k, m from 4 to 8, that is a multiple of `least`."""
    step = max(least, 1 << max(0, n.bit_length() - 3))
    return max(-(-n // step), 1) * step


def pack_batch(graphs: Graphs, size: BatchSize, out: np.ndarray) -> None:
    """Write `graphs` into the bytes `out`: atom_ptr and bond_ptr int32, endpoints int16, atoms and bonds uint8, padded.

    Molecules that are missing to `size` are empty. What `out` holds in the padding does not matter.
    """
    assert len(graphs) <= size.molecules
    assert len(graphs.atoms) <= size.atoms
    assert len(graphs.bonds) <= size.bonds
    pointers = out[: size.endpoints_at].view(np.int32).reshape(2, -1)
    for row, ptr in zip(pointers, (graphs.atom_ptr, graphs.bond_ptr), strict=True):
        row[: len(ptr)] = ptr
        row[len(ptr) :] = ptr[-1]
    starts = size.endpoints_at, size.atoms_at, size.bonds_at
    for start, part in zip(starts, (graphs.bond_endpoints, graphs.atoms, graphs.bonds), strict=True):
        raw = np.ascontiguousarray(part).view(np.uint8).reshape(-1)
        out[start : start + len(raw)] = raw


def unpack_batch(data: Tensor, size: BatchSize) -> SortedBatch:
    """The bytes of `pack_batch` as a batch on their device. No shape depends on values.

    Semantics: what `SortedBatch.of` makes, in int32, with padding after it.
    """
    pointers = data[: size.endpoints_at].view(torch.int32).view(2, -1)
    atom_ptr, bond_ptr = pointers[0], pointers[1]
    endpoints = data[size.endpoints_at : size.atoms_at].view(torch.int16).view(-1, 2).int()
    atoms = data[size.atoms_at : size.bonds_at].view(-1, N_FIELDS)
    codes = data[size.bonds_at :].int()
    last = size.molecules - 1
    atom, bond = (torch.arange(n, dtype=torch.int32, device=data.device) for n in (size.atoms, size.bonds))
    graph = torch.searchsorted(atom_ptr[1:], atom, right=True, out_int32=True).clamp_(max=last)
    owner = torch.searchsorted(bond_ptr[1:], bond, right=True, out_int32=True).clamp_(max=last)
    endpoints = endpoints + atom_ptr.index_select(0, owner).unsqueeze(1)
    # Bonds of the padding lead to an atom past the last, so that they come last and no run holds them.
    real = (bond < bond_ptr[-1]).unsqueeze(1)
    target = torch.where(real, endpoints.flip(1), size.atoms).T.flatten()
    target, order = torch.sort(target, stable=True)
    source = torch.where(real, endpoints, 0).T.flatten()
    code = torch.where(real.squeeze(1), codes, 0).repeat(2) + size.atoms
    messages = torch.stack([source, code], 1).index_select(0, order)
    atom_numbers = torch.arange(size.atoms + 1, dtype=torch.int32, device=data.device)
    runs = torch.searchsorted(target, atom_numbers, out_int32=True)
    known = (atom < atom_ptr[-1]).unsqueeze(1)
    fields = torch.where(known, atoms.int(), 0)
    return SortedBatch(fields, messages, runs, graph, atom_ptr, size.longest)
