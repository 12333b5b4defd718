"""`Scorer.forward` for prediction: the same numbers with a fraction of the operations, and shorter passes over memory.

The plain reference is `scoring.scorer.Scorer`; tests prove the two equal in float32, and near in bfloat16.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ..adapter.encoder import POOL_SCALE, EncoderLayer, GraphEncoder
from ..adapter.hypernet import HEADS, Hypernet, HypernetBlock
from ..chem.graph import Graphs, concatenate
from ..scoring.scorer import Scorer, Timer, fillers, untimed
from .batch import SortedBatch
from .graph_ops import OPS, GraphOps, Norm, Tokens
from .linear import PackedLinear
from .upper import FastUpper

# Molecules: what a batch writes and reads again stays in the processor's cache. All batches have this size, so that a
# row has the same bits whatever the other rows are, where the matrix library lets it (docs/method.md).
CPU_BATCH_SIZE = 64


class FastScorer:
    """The engine of CPUs, for scorers that `upper.supports` accepts; later changes of their weights are not seen.

    ops: see `choose_graph_ops`.
    """

    batch_size, fixed_size = CPU_BATCH_SIZE, True

    def __init__(self, scorer: Scorer, dtype: torch.dtype, ops: GraphOps = OPS):
        with torch.no_grad():
            self.encoder = FastEncoder(scorer.encoder, dtype, ops)
            self.hypernet = FastHypernet(scorer.hypernet, dtype, ops)
            self.upper = FastUpper(scorer, dtype)
            self.direct: tuple[PackedLinear, PackedLinear] | None = None
            if scorer.direct is not None:
                first = PackedLinear.of(scorer.direct.hidden, dtype, "gelu")
                self.direct = first, PackedLinear(scorer.direct.weight, None, dtype)

    def z_scores(self, graphs: Graphs, timed: Timer = untimed) -> np.ndarray:
        """See `Engine`. Molecules of about one size are fastest: all are padded to the largest."""
        missing = max(0, self.batch_size - len(graphs))
        filled = concatenate([fillers(missing), graphs]) if missing else graphs
        return self(filled, timed)[missing:].numpy()

    @torch.inference_mode()
    def __call__(self, graphs: Graphs, timed: Timer = untimed) -> Tensor:
        """The same, with as many rows as there are molecules."""
        with timed("graphs"):
            batch = self.batch(graphs)
        return self.run(batch, timed)

    def batch(self, graphs: Graphs) -> SortedBatch:
        """See `Engine`."""
        return SortedBatch.of(graphs)

    def run(self, batch: SortedBatch, timed: Timer = untimed) -> Tensor:
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
    """The residual streams are in float32, messages and products in `dtype`. Tokens of added atoms mean nothing."""

    def __init__(self, encoder: GraphEncoder, dtype: torch.dtype, ops: GraphOps = OPS):
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
    def __init__(self, layer: EncoderLayer, dtype: torch.dtype, ops: GraphOps):
        assert isinstance(layer.conv.nn, nn.Sequential)
        up, _, down = layer.conv.nn
        first, _, last = layer.virtual_mlp
        self.ops = ops
        self.norm, self.virtual_norm = Norm.of(layer.norm, dtype), Norm.of(layer.virtual_norm, dtype)
        self.bond_codes = layer.bond_codes.weight.detach().to(dtype)
        self.self_weight = 1.0 + layer.conv.eps.item()
        self.up, self.down = PackedLinear.of(up, dtype, "relu"), PackedLinear.of(down, dtype)
        self.first, self.last = PackedLinear.of(first, dtype, "gelu"), PackedLinear.of(last, dtype)

    def __call__(self, x: Tensor, virtual: Tensor, batch: SortedBatch) -> Tensor:
        """x is changed in place; returns the new `virtual`."""
        h = self.ops.norm_with_virtual(x, virtual, batch, self.norm)
        gathered = self.ops.gather_messages(h, self.bond_codes, batch, self.self_weight)
        pooled = self.ops.add_and_pool(x, self.down(self.up(gathered)), batch).div_(POOL_SCALE)
        return virtual + self.last(self.first(self.virtual_norm(torch.cat([virtual, pooled], 1))))


class FastHypernet:
    """Tokens of a batch -> `[B, K, H]` of `dtype`, what `Hypernet.head` would be applied to."""

    def __init__(self, hypernet: Hypernet, dtype: torch.dtype, ops: GraphOps = OPS):
        self.ops = ops
        self.queries = hypernet.queries.detach().float()
        self.molecule = PackedLinear.of(hypernet.molecule, dtype)
        self.blocks = [_Block(block, dtype) for block in hypernet.blocks if isinstance(block, HypernetBlock)]
        self.norm = Norm.of(hypernet.norm, dtype)

    def __call__(self, atoms: Tensor, molecules: Tensor, batch: SortedBatch) -> Tensor:
        """atoms: `[V, width]`, molecules: `[B, width]`, the encoder's, of `dtype`."""
        tokens = self.ops.tokens(atoms, molecules, batch)
        x = self.queries + self.molecule(molecules).unsqueeze(1)
        for block in self.blocks:
            x = block(x, tokens)
        return self.norm(x)


class _Block:
    def __init__(self, block: HypernetBlock, dtype: torch.dtype):
        attention, cross = block.self_attention, block.cross_attention
        self.dtype = dtype
        self.norms = [Norm.of(norm, dtype) for norm in block.norms]
        self.scale = (attention.out.weight.shape[0] // HEADS) ** -0.5
        self.qkv, self.self_out = PackedLinear.of(attention.joined, dtype), PackedLinear.of(attention.out, dtype)
        self.query = PackedLinear(cross.query.weight * self.scale, cross.query.bias * self.scale, dtype)
        self.key_value, self.cross_out = PackedLinear.of(cross.key_value, dtype), PackedLinear.of(cross.out, dtype)
        up, _, down = block.ffn
        self.up, self.down = PackedLinear.of(up, dtype, "gelu"), PackedLinear.of(down, dtype)

    def __call__(self, x: Tensor, tokens: Tokens) -> Tensor:
        """x: float32 `[B, K, H]`, the residual stream."""
        x = x + self.self_out(self._self_attention(self.norms[0](x)))
        x = x + self.cross_out(tokens.attend(self.query(self.norms[1](x)), self.key_value, HEADS))
        return x + self.down(self.up(self.norms[2](x)))

    def _self_attention(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(x).unflatten(-1, (3 * HEADS, -1)).chunk(3, dim=2)
        logits = (query.unsqueeze(2) * key.unsqueeze(1)).sum(-1, dtype=torch.float32) * self.scale
        weight = logits.softmax(2).to(self.dtype)  # [B, K, K, heads]
        return (weight.unsqueeze(-1) * value.unsqueeze(1)).sum(2).flatten(2)
