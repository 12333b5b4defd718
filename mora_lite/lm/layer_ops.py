"""The parts of a decoder that only move bytes, in plain torch: norm, rotary positions, gate, loss; and attention.

`layer_ops_triton` (CUDA) and `layer_ops_compiled` (CPU) have the same functions, for training, which is bound by them
and not by the matrix products; `choose_layer_ops` says which to use. Each module's are its `OPS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..architecture import Rope
from ..machine.device import choose_ops
from .weights import RMSNorm

# The residual stream as a sum of terms `[..., D]`, float32 first: what a layer adds waits for the next norm, which
# reads it anyhow.
Terms: TypeAlias = tuple[Tensor, ...]


class Rotary(nn.Module):
    """Cosine and sine tables of a `Rope` for any positions, in float32."""

    frequencies: Tensor

    def __init__(self, rope: Rope) -> None:
        super().__init__()
        self.rope = rope
        self.register_buffer("frequencies", torch.tensor(rope.inverse_frequencies), persistent=False)

    def forward(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """positions: int64 `[B, T]` -> cosine and sine, float32 `[B, T, head_dim / 2]`.

        With dynamic scaling each row has the frequencies of its own length, whatever rows are beside it.
        """
        frequencies = self.frequencies
        if self.rope.dynamic is not None:
            theta, factor, max_positions = self.rope.dynamic
            length = (positions.amax(-1, keepdim=True) + 1)[..., None].float()  # [B, 1, 1]
            head_dim = 2 * frequencies.numel()
            stretch = (factor * length / max_positions - (factor - 1)).clamp_min(1.0)
            grown = theta * stretch ** (head_dim / (head_dim - 2))
            exponents = torch.arange(0, head_dim, 2, device=positions.device).float() / head_dim
            frequencies = torch.where(length > max_positions, 1.0 / grown**exponents, frequencies)
        angles = positions[..., None].float() * frequencies
        return angles.cos() * self.rope.attention_factor, angles.sin() * self.rope.attention_factor


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the two halves of each head; computed in float32, returned in x's dtype.

    x: `[..., T, heads, head_dim]`. cos, sin: float32 `[..., T, head_dim / 2]`.
    """
    first, second = x.chunk(2, dim=-1)
    cos, sin = cos.unsqueeze(-2), sin.unsqueeze(-2)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(x.dtype)


def add_up(terms: Terms) -> Tensor:
    """The residual stream as one tensor, float32 `[..., D]`."""
    x, *rest = terms
    for term in rest:
        x = x + term
    return x


def add_norm(terms: Terms, layer: RMSNorm) -> tuple[Tensor, Tensor]:
    """`add_up(terms)`, and `layer` of that, `[..., D]` in the layer's type."""
    x = add_up(terms)
    return x, layer(x)


def gate(gate_up: Tensor) -> Tensor:
    """`silu(gate) * up` of the two halves of `[..., 2 F]`: `[..., F]`."""
    first, second = gate_up.chunk(2, dim=-1)
    return F.silu(first) * second


def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """Softmax attention `[B, heads, T, head_dim]` of queries over keys and values `[B, kv_heads, S, head_dim]`.

    mask: bool `[B or 1, 1, T, S]`, True where a key is seen; None is plain causality, or one query that sees all.
    """
    if query.shape[2] == 1 and query.shape[1] > key.shape[1]:
        # The queries that share a key head see the same tokens: as rows of one product they take a CPU a fifth.
        grouped = query[:, :, 0].unflatten(1, (key.shape[1], -1))
        seen = None if mask is None else mask.expand(-1, -1, grouped.shape[2], -1)
        return F.scaled_dot_product_attention(grouped, key, value, seen).flatten(1, 2).unsqueeze(2)
    causal = mask is None and query.shape[2] > 1
    return F.scaled_dot_product_attention(query, key, value, mask, is_causal=causal, enable_gqa=True)


def cross_entropy(hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    """Mean cross entropy of `labels` by a head, float32 scalar, in nats; those below 0 do not count.

    hidden: `[M, D]`. weight: `[vocabulary, D]`, in the same type, frozen. labels: int64 `[M]`, one of them at least 0.
    """
    return F.cross_entropy(F.linear(hidden, weight).float(), labels.clamp_min(-1), ignore_index=-1)


class LayerOps(NamedTuple):
    """The functions of this module, or others that do the same."""

    add_norm: Callable[[Terms, RMSNorm], tuple[Tensor, Tensor]]
    rotate: Callable[[Tensor, Tensor, Tensor], Tensor]
    gate: Callable[[Tensor], Tensor]
    attention: Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
    cross_entropy: Callable[[Tensor, Tensor, Tensor], Tensor]


OPS = LayerOps(add_norm, rotate, gate, attention, cross_entropy)


def compare(ops: LayerOps, device: torch.device) -> None:
    """Raise an error when `ops` cannot run on `device`, or give other numbers or gradients than `OPS`."""
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 4, 8, generator=rng).to(device)
    angle = torch.randn(2, 3, 4, generator=rng).to(device)
    weight = RMSNorm(torch.rand(8, generator=rng), 1e-5, torch.float32).to(device)
    half = x[:, :, :2]  # as many keys as queries, half the heads
    labels = torch.arange(-1, 23, device=device)
    cases: dict[str, tuple[Any, ...]] = {
        "add_norm": (weight,),
        "rotate": (angle.cos(), angle.sin()),
        "gate": (),
        "attention": (half.transpose(1, 2), half.cos().transpose(1, 2), None),
        "cross_entropy": (x.flatten(0, 2).detach(), labels),
    }
    first: dict[str, Callable[[Tensor], Any]] = {
        "add_norm": lambda leaf: (leaf, leaf.cos(), leaf.sin()),
        "attention": lambda leaf: leaf.transpose(1, 2),
        "cross_entropy": lambda leaf: leaf.flatten(0, 2),
    }
    for name, arguments in cases.items():
        results = []
        for function in (getattr(OPS, name), getattr(ops, name)):
            leaf = x.clone().requires_grad_()
            out = function(first.get(name, lambda leaf: leaf)(leaf), *arguments)
            out = torch.stack(out) if isinstance(out, tuple) else out
            out.square().sum().backward()
            results.append((out.detach(), leaf.grad))
        for plain, other in zip(*results, strict=True):
            if not torch.allclose(plain, other, atol=1e-4):
                raise RuntimeError(f"{name} gives wrong numbers")


def choose_layer_ops(device: torch.device) -> LayerOps:
    """For training: those of `layer_ops_triton` on CUDA, `layer_ops_compiled` on a CPU; where these fail, `OPS`."""
    return choose_ops(OPS, f"{__package__}.layer_ops_{'triton' if device.type == 'cuda' else 'compiled'}", device)
