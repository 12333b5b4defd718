"""The hypernetwork for prediction: `hypernet.Hypernet` up to its head.

The head is left to `short_upper`, which needs some of its products only in another form.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from . import short_ops
from .hypernet import Hypernet, HypernetBlock
from .product import Product
from .short_batch import SortedBatch
from .short_ops import Norm


class ShortHypernet:
    """Tokens of a batch -> `[B, K, H]` of `dtype`, what `Hypernet.head` would be applied to.

    ops: `short_ops` or `fused_ops`.
    """

    def __init__(self, hypernet: Hypernet, dtype: torch.dtype, ops: ModuleType = short_ops):
        self.ops = ops
        self.queries = hypernet.queries.detach().float()
        self.molecule = Product.of(hypernet.molecule, dtype)
        self.blocks = [_Block(block, dtype) for block in hypernet.blocks if isinstance(block, HypernetBlock)]
        self.norm = Norm.of(hypernet.norm, dtype)

    def __call__(self, atoms: Tensor, molecules: Tensor, batch: SortedBatch) -> Tensor:
        """atoms: `[V, width]`, molecules: `[B, width]`, the encoder's, of `dtype`."""
        tokens = self.ops.Tokens(atoms, molecules, batch)
        x = self.queries + self.molecule(molecules).unsqueeze(1)
        for block in self.blocks:
            x = block(x, tokens)
        return self.norm(x)


class _Block:
    def __init__(self, block: HypernetBlock, dtype: torch.dtype):
        own, cross = block.self_attention, block.cross_attention
        self.dtype, self.heads = dtype, own.heads
        self.norms = [Norm.of(norm, dtype) for norm in block.norms]
        self.scale = (own.out.weight.shape[0] // own.heads) ** -0.5
        self.joined, self.own_out = Product.of(own.joined, dtype), Product.of(own.out, dtype)
        self.query = Product(cross.query.weight * self.scale, cross.query.bias * self.scale, dtype)
        self.key_value, self.cross_out = Product.of(cross.key_value, dtype), Product.of(cross.out, dtype)
        up, _, down = block.ffn
        self.up, self.down = Product.of(up, dtype, "gelu"), Product.of(down, dtype)

    def __call__(self, x: Tensor, tokens: Any) -> Tensor:
        """x: float32 `[B, K, H]`, the residual stream."""
        x = x + self.own_out(self._own(self.norms[0](x)))
        x = x + self.cross_out(tokens.attend(self.query(self.norms[1](x)), self.key_value, self.heads))
        return x + self.down(self.up(self.norms[2](x)))

    def _own(self, x: Tensor) -> Tensor:
        query, key, value = self.joined(x).unflatten(-1, (3 * self.heads, -1)).chunk(3, dim=2)
        logits = (query.unsqueeze(2) * key.unsqueeze(1)).sum(-1, dtype=torch.float32) * self.scale
        weight = logits.softmax(2).to(self.dtype)  # [B, K, K, heads]
        return (weight.unsqueeze(-1) * value.unsqueeze(1)).sum(2).flatten(2)
