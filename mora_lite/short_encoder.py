"""The graph encoder for prediction: `encoder.GraphEncoder` with fewer and shorter passes over memory.

Bonds are sorted by the atom they lead to, so that sums over them are sums over runs. A message is looked up and added
in one pass, from a table that holds the atoms' states and, after them, the states of the bond codes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .encoder import POOL_SCALE, EncoderLayer, GraphEncoder
from .graph import Graphs
from .product import Product, relu_, segment_sum

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
        arrays = (atoms, messages, bond_ends, graph, np.ascontiguousarray(graphs.atom_ptr))
        return cls(*(torch.from_numpy(a) for a in arrays), longest=int(n_atoms.max()))

    def __len__(self) -> int:
        return len(self.atom_ends) - 1


class ShortEncoder:
    """The residual streams are in float32, messages and products in `dtype`. Tokens of added atoms mean nothing."""

    def __init__(self, encoder: GraphEncoder, dtype: torch.dtype):
        self.dtype, self.width = dtype, encoder.width
        self.field_start = encoder.field_start
        self.atom_codes = encoder.atom_codes.weight.detach().float()
        self.virtual_start = encoder.virtual_start.detach().float()
        self.layers = [_Layer(layer, dtype) for layer in encoder.layers if isinstance(layer, EncoderLayer)]
        self.atom_norm, self.virtual_norm = Norm(encoder.atom_norm, dtype), Norm(encoder.virtual_norm, dtype)

    def __call__(self, batch: SortedBatch) -> tuple[Tensor, Tensor]:
        """Normalised atom tokens `[V, width]` and molecule tokens `[B, width]`, both of `dtype`."""
        x = F.embedding_bag(batch.atoms + self.field_start, self.atom_codes, mode="sum")
        virtual = self.virtual_start.expand(len(batch), -1)
        for layer in self.layers:
            x, virtual = layer(x, virtual, batch)
        return self.atom_norm(x), self.virtual_norm(virtual)


class Norm:
    """Layer norm of a float32 tensor, returned in `dtype`."""

    def __init__(self, norm: nn.LayerNorm, dtype: torch.dtype):
        self.weight, self.bias, self.eps, self.dtype = norm.weight.detach(), norm.bias.detach(), norm.eps, dtype

    def __call__(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps).to(self.dtype)


class _Layer:
    def __init__(self, layer: EncoderLayer, dtype: torch.dtype):
        assert isinstance(layer.conv.nn, nn.Sequential)
        up, _, down = layer.conv.nn
        first, _, last = layer.virtual_mlp
        self.norm, self.virtual_norm = Norm(layer.norm, dtype), Norm(layer.virtual_norm, dtype)
        self.bond_codes = layer.bond_codes.weight.detach().to(dtype)
        self.own = 1.0 + layer.conv.eps.item()
        self.up, self.down = Product.of(up, dtype, "relu"), Product.of(down, dtype)
        self.first, self.last = Product.of(first, dtype, "gelu"), Product.of(last, dtype)

    def __call__(self, x: Tensor, virtual: Tensor, batch: SortedBatch) -> tuple[Tensor, Tensor]:
        h = self.norm(virtual.index_select(0, batch.graph).add_(x))
        messages = relu_(F.embedding_bag(batch.messages, torch.cat([h, self.bond_codes]), mode="sum"))
        gathered = segment_sum(messages, batch.bond_ends).add_(h, alpha=self.own)
        x.add_(self.down(self.up(gathered)))  # in place: nobody else holds it
        pooled = segment_sum(x, batch.atom_ends).div_(POOL_SCALE)
        virtual = virtual + self.last(self.first(self.virtual_norm(torch.cat([virtual, pooled], 1))))
        return x, virtual
