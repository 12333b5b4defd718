"""The functions of `layer_ops` for training on a CPU: each one compiled loop in each direction (torch.compile).

Attention is written out, as two matrix products and a softmax: torch's own is made for long texts, and its backward
pass takes a quarter of a training step here. Compiling needs a C++ compiler; without one, `check` raises an error.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import layer_ops
from .layer_ops import LayerOps

add_norm = torch.compile(layer_ops.add_norm, dynamic=True)
rotate = torch.compile(layer_ops.rotate, dynamic=True)
gate = torch.compile(layer_ops.gate, dynamic=True)


@torch.compile(dynamic=True)
def _causal_softmax(scores: Tensor, scale: float) -> Tensor:
    """Shares `[..., T, T]` of the tokens that each token sees, itself and those before it."""
    tokens = scores.shape[-1]
    later = torch.ones(tokens, tokens, dtype=torch.bool, device=scores.device).triu(1)
    return (scores.float() * scale).masked_fill(later, -torch.inf).softmax(-1).to(scores.dtype)


def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """See `layer_ops.attention`."""
    rows, heads, tokens, head_dim = query.shape
    if mask is not None or tokens == 1 or tokens != key.shape[2]:
        return layer_ops.attention(query, key, value, mask)
    groups = rows * key.shape[1]  # heads that share a key stand next to each other
    key, value = key.reshape(groups, tokens, head_dim), value.reshape(groups, tokens, head_dim)
    scores = query.reshape(groups, -1, head_dim) @ key.transpose(1, 2)
    shares = _causal_softmax(scores.view(groups, -1, tokens, tokens), head_dim**-0.5)
    return (shares.view(groups, -1, tokens) @ value).view(rows, heads, tokens, head_dim)


OPS = LayerOps(add_norm, rotate, gate, attention, layer_ops.cross_entropy)


def check(device: torch.device) -> None:
    """Raise an error when nothing can be compiled for `device`, or something else than of `layer_ops` comes out."""
    layer_ops.compare(OPS, device)
