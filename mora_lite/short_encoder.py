"""The graph encoder for prediction: `encoder.GraphEncoder` with fewer and shorter passes over memory."""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor, nn

from . import short_ops
from .encoder import POOL_SCALE, EncoderLayer, GraphEncoder
from .product import Product
from .short_batch import SortedBatch
from .short_ops import Norm


class ShortEncoder:
    """The residual streams are in float32, messages and products in `dtype`. Tokens of added atoms mean nothing.

    ops: `short_ops` or `fused_ops`.
    """

    def __init__(self, encoder: GraphEncoder, dtype: torch.dtype, ops: ModuleType = short_ops):
        self.ops = ops
        self.field_start = encoder.field_start
        self.atom_codes = encoder.atom_codes.weight.detach().float()
        self.virtual_start = encoder.virtual_start.detach().float()
        self.layers = [_Layer(layer, dtype, ops) for layer in encoder.layers if isinstance(layer, EncoderLayer)]
        self.atom_norm, self.virtual_norm = Norm.of(encoder.atom_norm, dtype), Norm.of(encoder.virtual_norm, dtype)

    def __call__(self, batch: SortedBatch) -> tuple[Tensor, Tensor]:
        """Normalised atom tokens `[V, width]` and molecule tokens `[B, width]`, both of `dtype`."""
        x = self.ops.embed_atoms(batch.atoms + self.field_start, self.atom_codes)
        virtual = self.virtual_start.expand(len(batch), -1)
        for layer in self.layers:
            virtual = layer(x, virtual, batch)
        return self.atom_norm(x), self.virtual_norm(virtual)


class _Layer:
    def __init__(self, layer: EncoderLayer, dtype: torch.dtype, ops: ModuleType):
        assert isinstance(layer.conv.nn, nn.Sequential)
        up, _, down = layer.conv.nn
        first, _, last = layer.virtual_mlp
        self.ops = ops
        self.norm, self.virtual_norm = Norm.of(layer.norm, dtype), Norm.of(layer.virtual_norm, dtype)
        self.bond_codes = layer.bond_codes.weight.detach().to(dtype)
        self.own = 1.0 + layer.conv.eps.item()
        self.up, self.down = Product.of(up, dtype, "relu"), Product.of(down, dtype)
        self.first, self.last = Product.of(first, dtype, "gelu"), Product.of(last, dtype)

    def __call__(self, x: Tensor, virtual: Tensor, batch: SortedBatch) -> Tensor:
        """x is changed in place; returns the new `virtual`."""
        h = self.ops.norm_with_virtual(x, virtual, batch, self.norm)
        gathered = self.ops.gather_messages(h, self.bond_codes, batch, self.own)
        pooled = self.ops.add_and_pool(x, self.down(self.up(gathered)), batch).div_(POOL_SCALE)
        return virtual + self.last(self.first(self.virtual_norm(torch.cat([virtual, pooled], 1))))
