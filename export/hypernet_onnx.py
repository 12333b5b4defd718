"""The hypernetwork as ONNX: `hypernet.Hypernet` up to its head, with keys and values worked into the queries.

A molecule has a few queries and some thirty tokens, so it is the queries that are brought to the tokens' space and
back, and no key or value is made of any token: `q . (W t + b) = (q W) . t + q . b`, whose last term the softmax
cancels, and `sum(w * (V t + c)) = V sum(w * t) + c`. Tokens are padded to the molecule with the most.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..adapter.hypernet import HEADS, CrossAttention, Hypernet, HypernetBlock, SelfAttention
from .encoder_onnx import BatchLayout
from .graph_builder import FAR_BELOW, GraphBuilder


@dataclass(frozen=True)
class TokenLayout:
    """The tokens of a batch, as names of values.

    values: float32 `[B, T, width]`, a molecule's atoms, then its own token, then anything.
    mask: float32 `[B, 1, T]`, 0 at tokens and far below at what follows them.
    """

    values: str
    mask: str


def add_hypernet(g: GraphBuilder, hypernet: Hypernet, atoms: str, molecules: str, layout: BatchLayout) -> str:
    """What `Hypernet.head` would be applied to: float32 `[B, K, H]`."""
    with g.scope("hypernet"):
        tokens = pad_tokens(g, atoms, molecules, layout)
        width = hypernet.queries.shape[1]
        added = g.layer(molecules, hypernet.molecule, "molecule")
        x = g.op("Add", g.constant("queries", hypernet.queries.float()), g.unsqueeze(added, 1))
        x = g.reshape(x, -1, width)
        for i, block in enumerate(hypernet.blocks):
            assert isinstance(block, HypernetBlock)
            with g.scope(f"block_{i}"):
                x = add_block(g, block, x, tokens, len(hypernet.queries))
        return g.reshape(g.layer_norm(x, hypernet.norm, "norm"), -1, len(hypernet.queries), width)


def pad_tokens(g: GraphBuilder, atoms: str, molecules: str, layout: BatchLayout) -> TokenLayout:
    """Lay each molecule's tokens side by side."""
    with g.scope("tokens"):
        longest = g.op("Add", g.op("ReduceMax", layout.counts, keepdims=0), g.number(1), name="longest")
        at = g.op("Range", g.number(0), longest, g.number(1))
        rows = g.op("Range", g.number(0), g.op("Squeeze", layout.n_molecules), g.number(1))
        last = g.unsqueeze(g.op("Add", rows, g.size(atoms, 0), name="molecule_rows"), 1)
        is_atom, is_last = g.op("Less", at, layout.counts), g.op("Equal", at, layout.counts)
        index = g.op("Where", is_atom, g.op("Add", layout.first, at), last, name="index")
        values = g.gather(g.op("Concat", atoms, molecules, axis=0), index, name="values")
        mask = g.op("Where", g.op("Or", is_atom, is_last), g.number(0.0), g.number(FAR_BELOW), name="hidden")
        return TokenLayout(values, g.unsqueeze(mask, 1))


def add_block(g: GraphBuilder, block: HypernetBlock, x: str, tokens: TokenLayout, n_queries: int) -> str:
    """`hypernet.HypernetBlock` for x `[B * K, H]`."""
    self_norm, cross_norm, ffn_norm = (norm for norm in block.norms if isinstance(norm, torch.nn.LayerNorm))
    with g.scope("self"):
        normed = g.layer_norm(x, self_norm, "norm")
        x = g.op("Add", x, add_self_attention(g, block.self_attention, normed, n_queries))
    with g.scope("cross"):
        normed = g.layer_norm(x, cross_norm, "norm")
        x = g.op("Add", x, add_cross_attention(g, block.cross_attention, normed, tokens, n_queries))
    with g.scope("ffn"):
        up, _, down = block.ffn
        hidden = g.gelu(g.layer(g.layer_norm(x, ffn_norm, "norm"), up, "up"))
        return g.op("Add", x, g.layer(hidden, down, "down"))


def add_self_attention(g: GraphBuilder, attention: SelfAttention, x: str, n_queries: int) -> str:
    """`hypernet.SelfAttention` for x `[B * K, H]`."""
    heads, width = HEADS, attention.out.weight.shape[1]
    weight, bias = attention.joined.weight.detach().clone(), attention.joined.bias.detach().clone()
    scale = (width // heads) ** -0.5
    weight[:width] *= scale
    bias[:width] *= scale
    qkv = g.linear(x, weight, bias, "joined")
    qkv = g.op("Transpose", g.reshape(qkv, -1, n_queries, 3, heads, width // heads), perm=[2, 0, 3, 1, 4])
    query, key, value = g.split_op("Split", 3, qkv, axis=0, num_outputs=3)  # [1, B, heads, K, d]
    logits = g.op("MatMul", query, g.op("Transpose", key, perm=[0, 1, 2, 4, 3]), name="logits")
    mixed = g.op("MatMul", g.op("Softmax", logits, axis=-1), value, name="mixed")
    mixed = g.reshape(g.op("Transpose", mixed, perm=[0, 1, 3, 2, 4]), -1, width)
    return g.layer(mixed, attention.out, "out")


def add_cross_attention(g: GraphBuilder, attention: CrossAttention, x: str, tokens: TokenLayout, n_queries: int) -> str:
    """`hypernet.CrossAttention` for x `[B * K, H]`."""
    heads, width = HEADS, attention.out.weight.shape[1]
    token_width = attention.key_value.weight.shape[1]
    scale = (width // heads) ** -0.5
    key, value = attention.key_value.weight.detach().unflatten(0, (2, heads, width // heads))  # [heads, d, token_width]
    value_bias = attention.key_value.bias.detach()[width:]
    query = g.linear(x, attention.query.weight.detach() * scale, attention.query.bias.detach() * scale, "query")
    query = g.op("Transpose", g.reshape(query, -1, heads, width // heads), perm=[1, 0, 2])  # [heads, B * K, d]
    query = g.op("MatMul", query, g.constant("key", key.float()), name="query_of_tokens")
    query = g.op("Transpose", query, perm=[1, 0, 2])
    query = g.reshape(query, -1, n_queries * heads, token_width)
    logits = g.op("MatMul", query, g.op("Transpose", tokens.values, perm=[0, 2, 1]), name="logits")
    weights = g.op("Softmax", g.op("Add", logits, tokens.mask), axis=-1)
    mixed = g.op("MatMul", weights, tokens.values, name="mixed_tokens")  # [B, K * heads, token_width]
    mixed = g.op("Transpose", g.reshape(mixed, -1, heads, token_width), perm=[1, 0, 2])
    mixed = g.op("MatMul", mixed, g.constant("value", value.transpose(1, 2).float()), name="mixed")
    mixed = g.reshape(g.op("Transpose", mixed, perm=[1, 0, 2]), -1, width)
    # The weights of a softmax add up to one, so the bias of the values passes through it, and on through `out`.
    out = attention.out.weight.detach()
    return g.linear(mixed, out, attention.out.bias.detach() + out @ value_bias, "out")
