"""`Scorer.forward` for prediction: the same numbers with a fraction of the operations, and shorter passes over memory.

The plain reference is `scorer.Scorer`; tests prove the two equal in float32, and near in bfloat16.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from ..adapter.encoder import POOL_SCALE, EncoderLayer, GraphEncoder
from ..adapter.hypernet import Hypernet, HypernetBlock
from ..chem.graph import Graphs
from ..machine.device import with_kernels
from ..scoring.scorer import Scorer
from . import graph_ops
from .batch import SortedBatch
from .graph_ops import Norm
from .linear import PackedLinear
from .upper import FastUpper, supports_upper


def supports(scorer: Scorer) -> bool:
    """Whether `FastScorer` covers it: dequantised upper layers without biases or norms of queries and keys."""
    return supports_upper(scorer.upper)


def choose_ops(device: torch.device) -> ModuleType:
    """`graph_ops_triton` on CUDA devices where Triton works, else `graph_ops`."""
    return with_kernels(graph_ops, f"{__package__}.graph_ops_triton", device) if device.type == "cuda" else graph_ops


def _untimed(stage: str) -> AbstractContextManager[None]:
    return nullcontext()


class FastScorer:
    """Frozen: later changes of the scorer's weights are not seen. ops: `graph_ops` or `graph_ops_triton`."""

    def __init__(self, scorer: Scorer, dtype: torch.dtype, ops: ModuleType = graph_ops):
        with torch.no_grad():
            self.encoder = FastEncoder(scorer.encoder, dtype, ops)
            self.hypernet = FastHypernet(scorer.hypernet, dtype, ops)
            self.upper = FastUpper(scorer, dtype)
            self.direct: tuple[PackedLinear, PackedLinear] | None = None
            if scorer.direct is not None:
                first = PackedLinear.of(scorer.direct.hidden, dtype, "gelu")
                self.direct = first, PackedLinear(scorer.direct.weight, None, dtype)

    @torch.inference_mode()
    def __call__(self, graphs: Graphs, timed: Callable[[str], AbstractContextManager[None]] = _untimed) -> Tensor:
        """z-scores float32 `[B, P]`. Molecules of about one size are fastest: all are padded to the largest.

        timed: wraps each stage, by its name.
        """
        with timed("graphs"):
            batch = SortedBatch.of(graphs)
        return self.run(batch, timed)

    def run(self, batch: SortedBatch, timed: Callable[[str], AbstractContextManager[None]] = _untimed) -> Tensor:
        """The same of a batch that is ready, on the scorer's device."""
        with timed("encoder"):
            atoms, molecules = self.encoder(batch)
        with timed("hypernetwork"):
            states = self.hypernet(atoms, molecules, batch)
        with timed("decoder"):
            return self.read_out(states, molecules)

    def read_out(self, states: Tensor, molecules: Tensor) -> Tensor:
        """States of the hypernetwork and molecule tokens -> z-scores."""
        scores = self.upper(states)
        if self.direct is not None:
            first, last = self.direct
            scores = scores + last(first(molecules))
        return scores


class FastEncoder:
    """The residual streams are in float32, messages and products in `dtype`. Tokens of added atoms mean nothing.

    ops: `graph_ops` or `graph_ops_triton`.
    """

    def __init__(self, encoder: GraphEncoder, dtype: torch.dtype, ops: ModuleType = graph_ops):
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
        self.up, self.down = PackedLinear.of(up, dtype, "relu"), PackedLinear.of(down, dtype)
        self.first, self.last = PackedLinear.of(first, dtype, "gelu"), PackedLinear.of(last, dtype)

    def __call__(self, x: Tensor, virtual: Tensor, batch: SortedBatch) -> Tensor:
        """x is changed in place; returns the new `virtual`."""
        h = self.ops.norm_with_virtual(x, virtual, batch, self.norm)
        gathered = self.ops.gather_messages(h, self.bond_codes, batch, self.own)
        pooled = self.ops.add_and_pool(x, self.down(self.up(gathered)), batch).div_(POOL_SCALE)
        return virtual + self.last(self.first(self.virtual_norm(torch.cat([virtual, pooled], 1))))


class FastHypernet:
    """Tokens of a batch -> `[B, K, H]` of `dtype`, what `Hypernet.head` would be applied to.

    ops: `graph_ops` or `graph_ops_triton`.
    """

    def __init__(self, hypernet: Hypernet, dtype: torch.dtype, ops: ModuleType = graph_ops):
        self.ops = ops
        self.queries = hypernet.queries.detach().float()
        self.molecule = PackedLinear.of(hypernet.molecule, dtype)
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
        self.joined, self.own_out = PackedLinear.of(own.joined, dtype), PackedLinear.of(own.out, dtype)
        self.query = PackedLinear(cross.query.weight * self.scale, cross.query.bias * self.scale, dtype)
        self.key_value, self.cross_out = PackedLinear.of(cross.key_value, dtype), PackedLinear.of(cross.out, dtype)
        up, _, down = block.ffn
        self.up, self.down = PackedLinear.of(up, dtype, "gelu"), PackedLinear.of(down, dtype)

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
