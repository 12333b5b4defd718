"""What MoRA is compared with: static adapters, molecule text in the prompt, the branch at all positions, a random base.

Written plainly, for measuring only. All of them map a batch of graphs to z-scores, as `Scorer` does, so that the same
training loop takes them. Letters of sizes as in the product; S: soft tokens, N: tokens of the prefix.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import mora_lite.lm.base as base_module
from mora_lite.adapter.encoder import GraphEncoder
from mora_lite.adapter.hypernet import Hypernet, Tokens
from mora_lite.adapter.lowrank import AdapterConfig, Branch
from mora_lite.chem.graph import GraphBatch, Graphs
from mora_lite.lm.base import CompiledBase, NF4Source, compile_base
from mora_lite.lm.decoder import Decoder, DecoderLayer
from mora_lite.lm.prefix import CompiledPrompts, UpperLayers, compile_prompt, prompt_ids
from mora_lite.quant.formats import open_checkpoint
from mora_lite.scoring.scorer import Scorer


def encode(encoder: GraphEncoder, batch: GraphBatch) -> Tokens:
    atoms, molecules = encoder(batch.atoms, batch.bonds, batch.source, batch.target, batch.graph, batch.n_graphs)
    return Tokens(atoms, molecules, batch.graph)


def attend(layer: DecoderLayer, x: Tensor, keys: Tensor, values: Tensor, padding: Tensor) -> Tensor:
    """Attention of the last S tokens of each row to the prefix, to those of the S before them, and to themselves.

    x: float32 `[B, P, S, D]`. keys (turned back by the answer's position), values: `[B or 1, P, N, kv_heads, width]`.
    padding: bool `[B or 1, P, N]`, True for prefix tokens that are padding. The S tokens stand at one position, the
    answer's, so none of them needs a rotation. Returns `[B, P, S, D]`.
    """
    s = layer.sizes
    query, key, value = layer.project(layer.attention_norm(x))
    query = query.unflatten(3, (s.kv_heads, -1)) * s.head_dim**-0.5
    prefix = torch.einsum("bpsgjd,bpngd->bpgjsn", query, keys.to(query.dtype).expand(len(x), -1, -1, -1, -1))
    prefix = prefix.float().masked_fill(padding[:, :, None, None, None, :], -torch.inf)
    self_logits = torch.einsum("bpsgjd,bptgd->bpgjst", query, key).float()
    later = torch.ones(self_logits.shape[-2:], dtype=torch.bool).triu(1)
    weights = torch.cat([prefix, self_logits.masked_fill(later, -torch.inf)], -1).softmax(-1).to(value.dtype)
    n = prefix.shape[-1]
    mixed = torch.einsum(
        "bpgjsn,bpngd->bpsgjd", weights[..., :n], values.to(value.dtype).expand(len(x), -1, -1, -1, -1)
    )
    mixed = mixed + torch.einsum("bpgjst,bptgd->bpsgjd", weights[..., n:], value)
    return layer.out(mixed.flatten(3))


class Lora(nn.Module):
    """A frozen linear layer and a learned low-rank one beside it, the same for all molecules (arXiv 2106.09685)."""

    def __init__(self, frozen: nn.Linear, rank: int):
        super().__init__()
        self.frozen = frozen
        self.a = nn.Parameter(torch.randn(rank, frozen.in_features) * frozen.in_features**-0.5)
        self.b = nn.Parameter(torch.zeros(frozen.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        return self.frozen(x) + 2.0 * (x @ self.a.T.to(x.dtype)) @ self.b.T.to(x.dtype)


class StaticScorer(nn.Module):
    """Graph tokens as a soft prompt before the answer token, and static LoRA on all matrices of the upper layers.

    The soft tokens are made by the same network as MoRA's weights (S queries instead of K), enter the residual stream
    above layer L-K, and attend to the prompt as the answer token does.
    """

    def __init__(
        self, sizes: AdapterConfig, base: CompiledBase, encoder: GraphEncoder, dtype: torch.dtype, soft: int, rank: int
    ):
        super().__init__()
        self.upper = base.upper(sizes.adapted_layers, dtype)
        self.prompts = base.prompts
        self.encoder = GraphEncoder(sizes.encoder_width, sizes.encoder_layers)
        self.encoder.load_state_dict(encoder.state_dict())
        width = base.prompts.residual.shape[1]
        self.project = Hypernet(sizes.encoder_width, soft, width, 1, sizes.hypernet_width, sizes.hypernet_blocks)
        self.size = nn.Parameter(
            base.prompts.residual.norm(dim=1).mean().clone()
        )  # that of the tokens they stand among
        for layer in self.upper.layers:
            for name in ("qkv", "out", "gate_up", "down"):
                setattr(layer, name, Lora(getattr(layer, name), rank))
        self.readout = nn.Parameter(torch.randn(len(base.prompts.residual), width) * width**-0.5)
        self.offset = nn.Parameter(torch.zeros(len(base.prompts.residual)))

    def forward(self, batch: GraphBatch) -> Tensor:
        prompts = self.prompts
        soft = self.project(encode(self.encoder, batch)).squeeze(-1).float()  # [B, S, D]
        soft = soft / soft.norm(dim=-1, keepdim=True).clamp(min=1e-6) * self.size
        n, p = len(soft), len(prompts.residual)
        answer = prompts.residual[None, :, None].expand(n, -1, -1, -1)
        x = torch.cat([soft[:, None].expand(-1, p, -1, -1), answer], 2)
        padding = torch.arange(prompts.keys.shape[2]) >= prompts.lengths[:, None]
        for i, layer in enumerate(self.upper.layers):
            x = x + attend(layer, x, prompts.keys[i][None], prompts.values[i][None], padding[None])
            x = x + layer.feed_forward(layer.ffn_norm(x))
        return (self.upper.norm(x[:, :, -1]) * self.readout).sum(-1) + self.offset


class AllPositionsScorer(Scorer):
    """MoRA with the branch at every token of the prompt, not at the answer alone. One prompt."""

    def __init__(self, sizes: AdapterConfig, base: CompiledBase, path: Any, prompt: str, dtype: torch.dtype):
        super().__init__(sizes, base.upper(sizes.adapted_layers, dtype), base.prompts)
        checkpoint = open_checkpoint(path)
        decoder = Decoder.from_checkpoint(NF4Source(checkpoint), dtype)
        ids = torch.tensor(prompt_ids(checkpoint.tokenizer(), [prompt])[0])[None]
        first = decoder.sizes.layers - sizes.adapted_layers
        with torch.no_grad():
            step, x = decoder.prepare_step(1, ids.shape[1]), decoder.embed(ids)
            for layer in decoder.layers[:first]:
                x = layer(x, step)
        self.entering = x[0]  # [T, D]
        self.whole = nn.ModuleList(decoder.layers[first:])
        self.final = decoder.norm
        self.begin = [decoder]  # in a list: not a module of this one

    def forward(self, batch: GraphBatch) -> Tensor:
        tokens = self.encode(batch)
        a = self.hypernet(tokens)
        branch = Branch(a, self.c, self.scale, "all")
        step = self.begin[0].prepare_step(len(a), len(self.entering))
        x = self.entering.expand(len(a), -1, -1)
        sizes = self.begin[0].sizes
        for layer, own in zip(self.whole, branch.by_layer(len(self.whole), sizes.module_widths()), strict=True):
            x = layer(x, step, own)
        return self.read_out(self.final(x[:, -1:]).float(), tokens.molecules)


class TextScorer(Scorer):
    """MoRA with the molecule's SMILES in the prompt as well: every molecule has its own prefix. One prompt.

    `store`: what each molecule's own compiled prompt is, by its number.
    """

    def __init__(self, sizes: AdapterConfig, upper: UpperLayers, store: CompiledPrompts):
        super().__init__(sizes, upper, store.select([0]))
        self.store = store

    def forward(self, batch: Any) -> Tensor:
        own = self.store.select(batch.ids)
        tokens, upper = self.encode(batch.graphs), self.upper
        a = self.hypernet(tokens)
        x = own.residual + self.branch(upper.first_norm(own.attended), a[:, 0], 0)
        x = x[:, None, None]  # [B, 1, 1, D]
        padding = torch.arange(own.keys.shape[2]) >= own.lengths[:, None]
        for i, layer in enumerate(upper.layers):
            x = x + attend(layer, x, own.keys[i][:, None], own.values[i][:, None], padding[:, None])
            normed = layer.ffn_norm(x)
            x = x + layer.feed_forward(normed) + self.branch(normed[:, 0, 0], a[:, i + 1], i + 1)[:, None, None]
        return self.read_out(upper.norm(x[:, 0]), tokens.molecules)

    def branch(self, x: Tensor, a: Tensor, layer: int) -> Tensor:
        return (torch.einsum("bd,bdr->br", x, a.to(x.dtype)) * self.scale) @ self.c[layer].to(x.dtype)


class KeyedGraphs:
    """Graphs that know their numbers, so that a molecule's own prompt can be found."""

    def __init__(self, graphs: Graphs, ids: np.ndarray):
        self.graphs, self.ids = graphs, ids

    def __len__(self) -> int:
        return len(self.ids)

    def select(self, rows: np.ndarray) -> KeyedGraphs:
        return KeyedGraphs(self.graphs.select(rows), self.ids[rows])

    def batch(self, device: Any = "cpu") -> KeyedBatch:
        return KeyedBatch(self.graphs.batch(device), self.ids.tolist())


class KeyedBatch:
    def __init__(self, graphs: GraphBatch, ids: list[int]):
        self.graphs, self.ids = graphs, ids

    def rounded(self) -> KeyedBatch:
        return KeyedBatch(self.graphs.rounded(), [*self.ids, self.ids[0]])  # the filler's prompt does not matter


def text_prompts(path: Any, smiles: Sequence[str], question: str, k: int, dtype: torch.dtype) -> CompiledPrompts:
    """The compiled prompt of every molecule, its SMILES (the first 200 characters) before the question."""
    checkpoint = open_checkpoint(path)
    decoder = Decoder.from_checkpoint(NF4Source(checkpoint), dtype)
    ids = prompt_ids(checkpoint.tokenizer(), [f"Molecule: {text[:200]}\n{question}" for text in smiles])
    prompts = [compile_prompt(decoder, torch.tensor(row), k) for row in ids]
    return CompiledPrompts.stack(prompts)


class ShuffledSource:
    """A checkpoint whose matrices hold the same numbers in random places: the shape of the base, and no knowledge."""

    def __init__(self, source: Any, seed: int):
        self.source, self.seed = source, seed

    def __getattr__(self, name: str) -> Any:
        return getattr(self.source, name)

    def load(self, name: str) -> Any:
        weight = self.source.load(name)
        if not isinstance(weight, Tensor) or weight.dim() < 2:
            return weight
        order = torch.Generator().manual_seed(self.seed + sum(name.encode()))
        return weight.flatten()[torch.randperm(weight.numel(), generator=order)].view_as(weight)


def compile_shuffled(path: Path, prompts: list[str], n_layers: int, seed: int) -> CompiledBase:
    """As `compile_base`, of the base at `path` with every matrix shuffled, then quantised anew.

    It goes around the cache, where the copy in NF4 is of the base as it is.
    """
    opened = base_module.open_nf4
    shuffled = NF4Source(ShuffledSource(open_checkpoint(path), seed))  # type: ignore[arg-type]
    base_module.open_nf4 = lambda _path: shuffled
    try:
        return compile_base(path, prompts, n_layers)
    finally:
        base_module.open_nf4 = opened
