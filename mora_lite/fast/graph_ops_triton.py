"""The functions of `graph_ops`, documented there, as one Triton kernel each.

They move bytes rather than compute, so each reads its inputs once and writes its result once. Nothing is added by
atomic operations: a row's bits are the same in every run. One program does one atom or one molecule.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .batch import SortedBatch
from .graph_ops import GraphOps, Norm
from .linear import PackedLinear

ROWS = 8  # atoms that a program reads at a time
TOKENS = 32  # tokens, likewise


@triton.jit
def _embed_atoms(
    atoms: tl.tensor, table: tl.tensor, out: tl.tensor, width: tl.tensor, fields: tl.constexpr, block: tl.constexpr,
) -> None:  # fmt: skip
    atom = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, block)
    within = column < width
    total = tl.zeros([block], tl.float32)
    for field in tl.static_range(fields):
        row = tl.load(atoms + atom * fields + field)
        total += tl.load(table + row * width + column, mask=within, other=0.0)
    tl.store(out + atom * width + column, total, mask=within)


@triton.jit
def _norm_with_virtual(
    x: tl.tensor, virtual: tl.tensor, graph: tl.tensor, weight: tl.tensor, bias: tl.tensor, out: tl.tensor,
    width: tl.tensor, eps: tl.tensor, block: tl.constexpr,
) -> None:  # fmt: skip
    atom = tl.program_id(0).to(tl.int64)
    molecule = tl.load(graph + atom)
    column = tl.arange(0, block)
    within = column < width
    value = tl.load(x + atom * width + column, mask=within, other=0.0)
    value += tl.load(virtual + molecule * width + column, mask=within, other=0.0)
    mean = tl.sum(value, 0) / width
    centred = tl.where(within, value - mean, 0.0)
    inverse = 1.0 / tl.sqrt(tl.sum(centred * centred, 0) / width + eps)
    scale = tl.load(weight + column, mask=within, other=0.0)
    shift = tl.load(bias + column, mask=within, other=0.0)
    tl.store(out + atom * width + column, centred * inverse * scale + shift, mask=within)


@triton.jit
def _gather_messages(
    h: tl.tensor, bond_codes: tl.tensor, messages: tl.tensor, bond_ptr: tl.tensor, out: tl.tensor, n_atoms: tl.tensor,
    width: tl.tensor, self_weight: tl.tensor, block: tl.constexpr,
) -> None:  # fmt: skip
    atom = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, block)
    within = column < width
    total = self_weight * tl.load(h + atom * width + column, mask=within, other=0.0).to(tl.float32)
    first, last = tl.load(bond_ptr + atom), tl.load(bond_ptr + atom + 1)
    for bond in range(first, last):
        source = tl.load(messages + 2 * bond).to(tl.int64)
        code = tl.load(messages + 2 * bond + 1) - n_atoms
        value = tl.load(h + source * width + column, mask=within, other=0.0).to(tl.float32)
        value += tl.load(bond_codes + code * width + column, mask=within, other=0.0).to(tl.float32)
        total += tl.maximum(value, 0.0)
    tl.store(out + atom * width + column, total, mask=within)


@triton.jit
def _add_and_pool(
    x: tl.tensor, change: tl.tensor, atom_ptr: tl.tensor, pooled: tl.tensor, width: tl.tensor, rows: tl.constexpr,
    block: tl.constexpr,
) -> None:  # fmt: skip
    molecule = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, block)[None, :]
    within = column < width
    total = tl.zeros([rows, block], tl.float32)
    first, last = tl.load(atom_ptr + molecule), tl.load(atom_ptr + molecule + 1)
    for start in range(first, last, rows):
        atom = (start + tl.arange(0, rows)).to(tl.int64)[:, None]
        mask = (atom < last) & within
        value = tl.load(x + atom * width + column, mask=mask, other=0.0)
        value += tl.load(change + atom * width + column, mask=mask, other=0.0).to(tl.float32)
        tl.store(x + atom * width + column, value, mask=mask)
        total += value
    index = molecule * width + tl.arange(0, block)
    tl.store(pooled + index, tl.sum(total, 0), mask=tl.arange(0, block) < width)


@triton.jit
def _attend(
    query: tl.tensor, key_value: tl.tensor, atom_ptr: tl.tensor, out: tl.tensor, n_atoms: tl.tensor,
    n_queries: tl.tensor, width: tl.tensor, size: tl.tensor, tokens: tl.constexpr, block: tl.constexpr,
) -> None:  # fmt: skip
    """One query of one head of one molecule; softmax in one pass over the tokens, the molecule's first."""
    molecule, head, number = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    column = tl.arange(0, block)
    within = column < size
    at = (molecule * n_queries + number) * width + head * size
    q = tl.load(query + at + column, mask=within, other=0.0).to(tl.float32)
    molecule_token = key_value + (n_atoms + molecule) * 2 * width + head * size + column
    top = tl.sum(q * tl.load(molecule_token, mask=within, other=0.0).to(tl.float32), 0)
    total = 1.0
    mixed = tl.load(molecule_token + width, mask=within, other=0.0).to(tl.float32)
    first, last = tl.load(atom_ptr + molecule), tl.load(atom_ptr + molecule + 1)
    for start in range(first, last, tokens):
        token = (start + tl.arange(0, tokens)).to(tl.int64)
        real = token < last
        mask = real[:, None] & within[None, :]
        address = key_value + token[:, None] * 2 * width + head * size + column[None, :]
        key = tl.load(address, mask=mask, other=0.0).to(tl.float32)
        logits = tl.where(real, tl.sum(key * q[None, :], 1), float("-inf"))
        higher = tl.maximum(top, tl.max(logits, 0))
        shrink, weights = tl.exp(top - higher), tl.exp(logits - higher)
        value = tl.load(address + width, mask=mask, other=0.0).to(tl.float32)
        mixed = mixed * shrink + tl.sum(value * weights[:, None], 0)
        total = total * shrink + tl.sum(weights, 0)
        top = higher
    tl.store(out + at + column, mixed / total, mask=within)


def embed_atoms(atoms: Tensor, table: Tensor) -> Tensor:
    atoms, width = atoms.contiguous(), table.shape[1]
    out = table.new_empty(len(atoms), width)
    block = triton.next_power_of_2(width)
    _embed_atoms[len(atoms),](atoms, table, out, width, atoms.shape[1], block, num_warps=1)
    return out


def norm_with_virtual(x: Tensor, virtual: Tensor, batch: SortedBatch, norm: Norm) -> Tensor:
    virtual, width = virtual.contiguous(), x.shape[1]
    out = torch.empty_like(x, dtype=norm.dtype)
    block = triton.next_power_of_2(width)
    _norm_with_virtual[len(x),](
        x, virtual, batch.graph, norm.weight, norm.bias, out, width, norm.eps, block, num_warps=1
    )
    return out


def gather_messages(h: Tensor, bond_codes: Tensor, batch: SortedBatch, self_weight: float) -> Tensor:
    (n_atoms, width), out = h.shape, torch.empty_like(h)
    block = triton.next_power_of_2(width)
    _gather_messages[n_atoms,](
        h, bond_codes, batch.messages, batch.bond_ptr, out, n_atoms, width, self_weight, block, num_warps=1
    )
    return out


def add_and_pool(x: Tensor, change: Tensor, batch: SortedBatch) -> Tensor:
    """As in `graph_ops`; atoms that belong to no molecule stay as they are."""
    width = x.shape[1]
    pooled = x.new_empty(len(batch), width)
    block = triton.next_power_of_2(width)
    _add_and_pool[len(batch),](x, change, batch.atom_ptr, pooled, width, ROWS, block, num_warps=4)
    return pooled


class FlatTokens:
    """As `graph_ops.PaddedTokens`, without padding: all atoms, then one token for each molecule."""

    def __init__(self, atoms: Tensor, molecules: Tensor, batch: SortedBatch):
        self.values, self.batch, self.n_atoms = torch.cat([atoms, molecules]), batch, len(atoms)

    def attend(self, query: Tensor, key_value: PackedLinear, heads: int) -> Tensor:
        (n, n_queries, width), out = query.shape, torch.empty_like(query)
        size, atom_ptr = width // heads, self.batch.atom_ptr
        block = triton.next_power_of_2(size)
        _attend[n, heads, n_queries](
            query.contiguous(), key_value(self.values), atom_ptr, out, self.n_atoms, n_queries, width, size, TOKENS,
            block, num_warps=1,
        )  # fmt: skip
        return out


OPS = GraphOps(embed_atoms, norm_with_virtual, gather_messages, add_and_pool, FlatTokens)


def check(device: torch.device) -> None:
    """Raise an error when Triton cannot make kernels for `device`, or makes wrong ones."""
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(7, 24, generator=generator)
    atoms = torch.randint(0, 7, (5, 3), generator=generator)
    made = embed_atoms(atoms.to(device), table.to(device)).cpu()
    if not torch.allclose(made, table[atoms].sum(1), atol=1e-5):
        raise RuntimeError("a kernel gives wrong numbers")
