"""Steps of the fast scorer that go over atoms and bonds, in plain torch.

`graph_ops_triton` has the same functions as one kernel each, for GPUs; tests prove the two equal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from ..machine.device import choose_ops
from .batch import SortedBatch
from .linear import PackedLinear, arange_like, relu_, segment_sum

TOKENS = 8  # padded lengths are multiples of this, so that few sizes occur


@dataclass(frozen=True)
class Norm:
    """Layer norm of a float32 tensor, returned in `dtype`. weight, bias: float32 `[width]`."""

    weight: Tensor
    bias: Tensor
    eps: float
    dtype: torch.dtype

    @classmethod
    def of(cls, norm: torch.nn.Module, dtype: torch.dtype) -> Norm:
        assert isinstance(norm, torch.nn.LayerNorm)
        return cls(norm.weight.detach().float(), norm.bias.detach().float(), norm.eps, dtype)

    def __call__(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps).to(self.dtype)


def embed_atoms(atoms: Tensor, table: Tensor) -> Tensor:
    """Sum of the rows that each atom's codes name: atoms: int `[V, 10]`, table: float32 `[codes, width]`; float32."""
    return F.embedding_bag(atoms, table, mode="sum")


def norm_with_virtual(x: Tensor, virtual: Tensor, batch: SortedBatch, norm: Norm) -> Tensor:
    """`norm(x + virtual[graph])`, `[V, width]`. x: float32 `[V, width]`, virtual: float32 `[B, width]`."""
    return norm(virtual.index_select(0, batch.graph).add_(x))


def gather_messages(h: Tensor, bond_codes: Tensor, batch: SortedBatch, self_weight: float) -> Tensor:
    """What each atom receives, and `self_weight` times itself: h.dtype `[V, width]`.

    h: `[V, width]`, bond_codes: `[codes, width]`, both of one type.
    Semantics: out[v] = self_weight * h[v] + sum(relu(h[u] + bond_codes[bond]) for bonds from u to v)
    """
    messages = relu_(F.embedding_bag(batch.messages, torch.cat([h, bond_codes]), mode="sum"))
    return segment_sum(messages, batch.bond_ptr).add_(h, alpha=self_weight)


def add_and_pool(x: Tensor, change: Tensor, batch: SortedBatch) -> Tensor:
    """Add `change` to x, in place, and return the sums over each molecule's atoms: float32 `[B, width]`.

    x: float32 `[V, width]`, not used elsewhere. change: `[V, width]`, of any type.
    """
    x.add_(change)
    return segment_sum(x, batch.atom_ptr)


class PaddedTokens:
    """Each molecule's atoms, then the token of the molecule, then padding: molecules of a batch are of about one size.

    values: `[B, T, width]`. padding: float32 `[B, 1, 1, T]`, 0 at tokens and -inf at padding.
    """

    def __init__(self, atoms: Tensor, molecules: Tensor, batch: SortedBatch):
        counts = batch.atom_ptr.diff()
        position = arange_like(-(-(batch.longest + 1) // TOKENS) * TOKENS, counts)
        # Padding repeats something finite.
        index = torch.minimum(batch.atom_ptr[:-1, None] + position, batch.atom_ptr[1:, None])
        index.scatter_(1, counts[:, None].long(), len(atoms) + arange_like(len(counts), counts)[:, None])
        padding = torch.zeros(index.shape, device=index.device).masked_fill_(position > counts[:, None], float("-inf"))
        # An index one past the last atom stands in the padding only, where the molecules' tokens follow.
        self.values, self.padding = torch.cat([atoms, molecules])[index], padding[:, None, None]

    def attend(self, query: Tensor, key_value: PackedLinear, heads: int) -> Tensor:
        """Attention of each molecule's queries to its tokens: `[B, K, H]`.

        query: `[B, K, H]`, scaled. key_value: makes keys and values, `[..., 2 * H]`.
        """
        query = query.unflatten(-1, (heads, -1)).transpose(1, 2)
        key, value = key_value(self.values).unflatten(-1, (2, heads, -1)).permute(2, 0, 3, 1, 4)
        logits = (query @ key.transpose(2, 3)).float() + self.padding
        return (logits.softmax(-1).to(query.dtype) @ value).transpose(1, 2).flatten(2)


class Tokens(Protocol):
    """The tokens of a batch of molecules, made of atoms `[V, width]`, molecules `[B, width]` and the batch."""

    def attend(self, query: Tensor, key_value: PackedLinear, heads: int) -> Tensor: ...


class GraphOps(NamedTuple):
    """The functions of this module, or kernels that do the same."""

    embed_atoms: Callable[[Tensor, Tensor], Tensor]
    norm_with_virtual: Callable[[Tensor, Tensor, SortedBatch, Norm], Tensor]
    gather_messages: Callable[[Tensor, Tensor, SortedBatch, float], Tensor]
    add_and_pool: Callable[[Tensor, Tensor, SortedBatch], Tensor]
    tokens: Callable[[Tensor, Tensor, SortedBatch], Tokens]


OPS = GraphOps(embed_atoms, norm_with_virtual, gather_messages, add_and_pool, PaddedTokens)


def choose_graph_ops(device: torch.device) -> GraphOps:
    """Those of `graph_ops_triton` on CUDA devices where Triton works, else the plain ones."""
    return choose_ops(OPS, f"{__package__}.graph_ops_triton", device) if device.type == "cuda" else OPS
