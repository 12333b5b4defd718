"""Hypernetwork: the tokens of one molecule -> low-rank factors for every adapted layer.

`K` learned queries, to which the molecule token is added, pass two decoder blocks (self-attention over the queries,
cross-attention to the molecule's tokens, FFN), then one linear head makes `A [K, D, R]`.

With few queries molecules stay flat: the softmax over a molecule's tokens is a sum over a segment, and nothing is
padded to the largest molecule of the batch. This copies each molecule's queries to each of its tokens, though, which
for the thirty layers of a text model is more than the padding; there the tokens are padded (`Tokens`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

HEADS = 8  # of every attention


class Tokens:
    """The tokens of a batch, flat: all atoms, then one molecule token each.

    values: `[V+B, H]`; molecules: `[B, H]`; graph: int64 `[V+B]`.

    longest: most atoms of a molecule, where tokens are to be padded; `graph` must be ascending then. `values` are
    `[B, T, H]`, the atoms of a molecule, its token and padding, and `bias` is float32 `[B, 1, 1, T]`, 0 and for padding
    -inf. Atoms of a molecule beyond `longest` are left out: in a batch of fixed sizes the molecule that owns the added
    atoms may have more.
    """

    def __init__(self, atoms: Tensor, molecules: Tensor, graph: Tensor, longest: int | None = None):
        self.molecules = molecules
        self.values = torch.cat([atoms, molecules])
        numbers = torch.arange(len(molecules), device=graph.device)
        self.bias: Tensor | None = None
        if longest is None:
            self.graph = torch.cat([graph, numbers])
            return
        counts = torch.zeros_like(numbers).index_add_(0, graph, torch.ones_like(graph))[:, None]
        position = torch.arange(longest + 1, device=graph.device)
        index = torch.where(position < counts, counts.cumsum(0) - counts + position, len(atoms) + numbers[:, None])
        self.values = self.values.index_select(0, index.flatten()).unflatten(0, index.shape)
        bias = torch.zeros(index.shape, device=graph.device).masked_fill_(position > counts, -torch.inf)
        self.bias = bias[:, None, None]


def segment_attention(query: Tensor, key: Tensor, value: Tensor, graph: Tensor) -> Tensor:
    """Attention of each molecule's queries to that molecule's tokens.

    query: `[B, K, heads, d]`; key, value: `[N, heads, d]`; graph: int64 `[N]`. Returns `[B, K, heads, d]`.
    Semantics: out[b, k, h] = softmax_n(query[b, k, h] . key[n, h] / sqrt(d)) @ value[n, h] over n with graph[n] == b
    """
    n_graphs, n_queries, heads, width = query.shape
    index = graph.view(-1, 1, 1)
    per_token = query.index_select(0, graph)
    logits = (per_token * key.unsqueeze(1)).sum(-1).float() * width**-0.5  # [N, K, heads]
    # The largest logit of a segment only keeps exp() in range; it takes no part in the gradient.
    top = logits.new_full((n_graphs, n_queries, heads), -torch.inf)
    top = top.scatter_reduce(0, index.expand_as(logits), logits.detach(), "amax")
    weight = torch.exp(logits - top.index_select(0, graph))
    total = torch.zeros_like(top).index_add(0, graph, weight)
    mixed = (weight / total.index_select(0, graph)).to(value.dtype).unsqueeze(-1) * value.unsqueeze(1)
    return torch.zeros_like(query, dtype=mixed.dtype).index_add(0, graph, mixed)


def padded_attention(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None) -> Tensor:
    """`segment_attention` with as many tokens for each molecule: key, value `[B, T, heads, d]`; bias: see `Tokens`."""
    query, key, value = (x.transpose(1, 2) for x in (query, key, value))
    logits = (query @ key.transpose(2, 3)).float() * query.shape[-1] ** -0.5
    weight = (logits if bias is None else logits + bias).softmax(-1)
    return (weight.to(value.dtype) @ value).transpose(1, 2)


class CrossAttention(nn.Module):
    """Queries of each molecule look at that molecule's tokens."""

    def __init__(self, width: int, token_width: int):
        super().__init__()
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(token_width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, tokens: Tokens) -> Tensor:
        query = self.query(x).unflatten(-1, (HEADS, -1))
        key, value = self.key_value(tokens.values).unflatten(-1, (2 * HEADS, -1)).chunk(2, dim=-2)
        if tokens.bias is None:
            return self.out(segment_attention(query, key, value, tokens.graph).flatten(2))
        return self.out(padded_attention(query, key, value, tokens.bias).flatten(2))


class SelfAttention(nn.Module):
    """The `K` queries of one molecule look at each other."""

    def __init__(self, width: int):
        super().__init__()
        self.joined = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.joined(x).unflatten(-1, (3 * HEADS, -1)).chunk(3, dim=2)
        return self.out(padded_attention(query, key, value).flatten(2))


class HypernetBlock(nn.Module):
    """Self-attention, cross-attention, FFN; each after a norm, each added to its input."""

    def __init__(self, width: int, token_width: int):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.self_attention = SelfAttention(width)
        self.cross_attention = CrossAttention(width, token_width)
        self.ffn = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, tokens: Tokens) -> Tensor:
        x = x + self.self_attention(self.norms[0](x))
        x = x + self.cross_attention(self.norms[1](x), tokens)
        return x + self.ffn(self.norms[2](x))


class Hypernet(nn.Module):
    """Tokens of a batch of molecules -> `A [B, K, D, R]`.

    model_width: D; for branches at several modules of a layer the widths of all their inputs together.
    """

    def __init__(
        self,
        token_width: int,
        n_layers: int,
        model_width: int,
        rank: int,
        width: int = 256,
        n_blocks: int = 2,
    ):
        super().__init__()
        self.model_width, self.rank = model_width, rank
        self.queries = nn.Parameter(torch.randn(n_layers, width) * 0.5)
        # A direct path from encoder to weights. Without it the cross-attention must first learn where to look, and a
        # warm-started encoder contributes nothing for the first hundreds of steps.
        self.molecule = nn.Linear(token_width, width)
        self.blocks = nn.ModuleList(HypernetBlock(width, token_width) for _ in range(n_blocks))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, model_width * rank)
        # At the start A is what a LoRA A is at its start: entries of variance 1 / (3 D), whatever H is. The head's
        # input is normalised, so its entries have variance 1 and the sum over H of them must come to 1 / (3 D).
        nn.init.normal_(self.head.weight, std=(3 * model_width * width) ** -0.5)
        nn.init.zeros_(self.head.bias)

    def head_by_rank(self) -> tuple[Tensor, Tensor]:
        """The head's weight, float32 `[D, R, H]`, and bias `[D, R]`."""
        shape = (self.model_width, self.rank)
        return self.head.weight.detach().float().unflatten(0, shape), self.head.bias.detach().float().view(shape)

    def forward(self, tokens: Tokens) -> Tensor:
        """-> `A [B, K, D, R]`, in the type of the matrix products."""
        x = self.queries + self.molecule(tokens.molecules).unsqueeze(1)
        for block in self.blocks:
            x = block(x, tokens)
        return self.head(self.norm(x)).unflatten(-1, (self.model_width, self.rank))
