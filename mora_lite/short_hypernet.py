"""The hypernetwork for prediction: `hypernet.Hypernet` up to its head, on molecules of about one size.

Molecules of a batch are of about one size, so padding their tokens to the largest costs little, and attention becomes
small dense products. The head is left to `short_upper`, which needs some of its products only in another form.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .hypernet import Hypernet, HypernetBlock
from .product import Product, iota
from .short_encoder import Norm, SortedBatch

TOKENS = 8  # padded lengths are multiples of this, so that few sizes occur


class ShortHypernet:
    """Tokens of a batch -> `[B, K, H]` of `dtype`, what `Hypernet.head` would be applied to."""

    def __init__(self, hypernet: Hypernet, dtype: torch.dtype):
        self.dtype = dtype
        self.queries = hypernet.queries.detach().float()
        self.molecule = Product.of(hypernet.molecule, dtype)
        self.blocks = [_Block(block, dtype) for block in hypernet.blocks if isinstance(block, HypernetBlock)]
        self.norm = Norm(hypernet.norm, dtype)

    def __call__(self, atoms: Tensor, molecules: Tensor, batch: SortedBatch) -> Tensor:
        """atoms: `[V, width]`, molecules: `[B, width]`, the encoder's, of `dtype`."""
        tokens, padding = _padded(atoms, molecules, batch.atom_ends, batch.longest)
        x = self.queries + self.molecule(molecules).unsqueeze(1)
        for block in self.blocks:
            x = block(x, tokens, padding)
        return self.norm(x)


def _padded(atoms: Tensor, molecules: Tensor, atom_ends: Tensor, longest: int) -> tuple[Tensor, Tensor]:
    """Each molecule's atoms, then its own token, then padding: `[B, T, width]`; and float32 `[B, 1, 1, T]`, 0 at
    tokens and -inf at padding.
    """
    counts = atom_ends.diff()
    place = iota(-(-(longest + 1) // TOKENS) * TOKENS, counts)
    index = torch.minimum(atom_ends[:-1, None] + place, atom_ends[1:, None])  # padding repeats something finite
    index.scatter_(1, counts[:, None].long(), len(atoms) + iota(len(counts), counts)[:, None])
    padding = torch.zeros(index.shape, device=index.device).masked_fill_(place > counts[:, None], float("-inf"))
    # An index one past the last atom stands in the padding only, where the molecules' tokens follow.
    return torch.cat([atoms, molecules])[index], padding[:, None, None]


class _Block:
    def __init__(self, block: HypernetBlock, dtype: torch.dtype):
        own, cross = block.self_attention, block.cross_attention
        self.dtype, self.heads = dtype, own.heads
        self.norms = [Norm(norm, dtype) for norm in block.norms if isinstance(norm, torch.nn.LayerNorm)]
        self.scale = (own.out.weight.shape[0] // own.heads) ** -0.5
        self.joined, self.own_out = Product.of(own.joined, dtype), Product.of(own.out, dtype)
        self.query = Product(cross.query.weight * self.scale, cross.query.bias * self.scale, dtype)
        self.key_value, self.cross_out = Product.of(cross.key_value, dtype), Product.of(cross.out, dtype)
        up, _, down = block.ffn
        self.up, self.down = Product.of(up, dtype, "gelu"), Product.of(down, dtype)

    def __call__(self, x: Tensor, tokens: Tensor, padding: Tensor) -> Tensor:
        """x: float32 `[B, K, H]`, the residual stream."""
        x = x + self.own_out(self._own(self.norms[0](x)))
        x = x + self.cross_out(self._cross(self.norms[1](x), tokens, padding))
        return x + self.down(self.up(self.norms[2](x)))

    def _own(self, x: Tensor) -> Tensor:
        query, key, value = self.joined(x).unflatten(-1, (3 * self.heads, -1)).chunk(3, dim=2)
        logits = (query.unsqueeze(2) * key.unsqueeze(1)).sum(-1, dtype=torch.float32) * self.scale
        weight = logits.softmax(2).to(self.dtype)  # [B, K, K, heads]
        return (weight.unsqueeze(-1) * value.unsqueeze(1)).sum(2).flatten(2)

    def _cross(self, x: Tensor, tokens: Tensor, padding: Tensor) -> Tensor:
        query = self.query(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        key, value = self.key_value(tokens).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        logits = (query @ key.transpose(2, 3)).float() + padding
        return (logits.softmax(-1).to(self.dtype) @ value).transpose(1, 2).flatten(2)
