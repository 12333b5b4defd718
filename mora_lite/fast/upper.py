"""The upper layers for prediction: `prefix.UpperLayers.score` and the read-out with fewer operations.

What differs between molecules enters layer L-K as `u @ C`, of rank R, beside a constant of the prompt:
`x[b] = e[b] @ X` with `e = [1, u]` and `X = [residual; C]`. Everything that is linear in x before the next feed-forward
block is therefore linear in e, R+1 numbers, and is worked out once for each prompt: the logits over the prefix, the
values, the output projection. What is quadratic (the norm, the token's logit with itself) is a quadratic form of e. So
the attention of layer L-K+1 costs one product with some three hundred rows instead of projections of width D.
Tensors are `[P, B, ...]`: one product for each prompt.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..adapter.hypernet import Hypernet
from ..architecture import DecoderConfig
from ..lm.decoder import DecoderLayer
from ..lm.prefix import CompiledPrompts, UpperLayers, visible
from ..scoring.scorer import Scorer
from .linear import PackedLinear

COLUMNS = 16  # float32 numbers in the widest vector register


def supports(upper: UpperLayers) -> bool:
    """Whether this file can compute these layers: dequantised, without biases and without norms of queries and keys."""
    return all(
        isinstance(layer, DecoderLayer)
        and layer.q_norm is None
        and all(isinstance(m, nn.Linear) and m.bias is None for m in (layer.qkv, layer.out, layer.gate_up, layer.down))
        for layer in upper.layers
    )


class FastUpper:
    """Normalised hypernetwork states `[B, K, H]` of `dtype` -> what the language model adds, float32 `[B, P]`."""

    def __init__(self, scorer: Scorer, dtype: torch.dtype):
        upper, prompts, hypernet, scale = scorer.upper, scorer.prompts, scorer.hypernet, scorer.scale
        assert supports(upper)
        self.eps = upper.sizes.norm_eps
        c = scorer.c.detach().float()
        self.rank = hypernet.rank
        attended = upper.first_norm(prompts.attended).float()
        self.first = _answer_factors(hypernet, attended, scale, dtype)
        self.residual, self.c = prompts.residual.float(), c[0]
        layers = [layer for layer in upper.layers if isinstance(layer, DecoderLayer)]
        self.attention = FirstAttention(layers[0], prompts, c[0], dtype) if layers else None
        self.later = [PrefixAttention(layer, prompts, i, dtype) for i, layer in enumerate(layers)][1:]
        self.blocks = [FeedForward(layer, hypernet, c[i + 1] * scale, dtype) for i, layer in enumerate(layers)]
        self.readout = (scorer.readout.detach() * upper.norm.weight).float().unsqueeze(-1)
        self.offset = scorer.offset.detach().float()

    def __call__(self, states: Tensor) -> Tensor:
        n = len(states)
        u = self.first(states[:, 0]).float().view(n, -1, self.rank).transpose(0, 1)  # [P, B, R]
        x = self.residual.unsqueeze(1) + u @ self.c if self.attention is None else self.attention(u)
        for i, block in enumerate(self.blocks):
            if i:
                x = self.later[i - 1](x)
            x = block(x, states[:, i + 1])
        score = torch.bmm(x, self.readout) * inverse_rms(x, self.eps)
        return score.squeeze(-1).T + self.offset


def inverse_rms(x: Tensor, eps: float) -> Tensor:
    """`1 / rms(x)` over the last dimension, which stays with size 1."""
    square = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_()
    return square.div_(x.shape[-1]).add_(eps).rsqrt_()


def _answer_factors(hypernet: Hypernet, attended: Tensor, scale: float, dtype: torch.dtype) -> PackedLinear:
    """States of the first query `[B, H]` -> `scale * attended[p] @ A[b, 0]`, `[B, P * R]`.

    attended: float32 `[P, D]`, after the norm; the same for all molecules, so the head need not make A for this layer.
    """
    weight, bias = hypernet.head_by_rank()
    folded = torch.einsum("pd,drh->prh", attended, weight).flatten(0, 1)
    return PackedLinear(folded * scale, torch.einsum("pd,dr->pr", attended, bias).flatten() * scale, dtype)


class FirstAttention:
    """Residual stream after the attention of layer L-K+1: `u` float32 `[P, B, R]` -> float32 `[P, B, D]`."""

    def __init__(self, layer: DecoderLayer, prompts: CompiledPrompts, c: Tensor, dtype: torch.dtype):
        sizes, n_prompts = layer.sizes, len(prompts.residual)
        self.heads, self.eps, self.dtype = sizes.heads, sizes.norm_eps, dtype
        self.residual, width = prompts.residual.float(), prompts.residual.shape[-1]
        x = torch.cat([self.residual.unsqueeze(1), c.expand(n_prompts, -1, -1)], 1)  # X: [P, R+1, D]
        self.gram = (x @ x.transpose(1, 2) / width).flatten(1).unsqueeze(-1)  # [P, (R+1)^2, 1]
        assert isinstance(layer.qkv, nn.Linear)
        assert isinstance(layer.out, nn.Linear)
        projected = (x * layer.attention_norm.weight) @ layer.qkv.weight.float().T
        query, key, value = _per_head(projected, sizes)  # [P, R+1, heads, head_dim]
        keys, values = (_repeat(part[0].float(), sizes) for part in (prompts.keys, prompts.values))
        scale = sizes.head_dim**-0.5
        self.logits = (torch.einsum("pihd,pshd->pihs", query, keys) * scale).flatten(2)  # [P, R+1, heads * S]
        self.mask_bias = torch.where(visible(prompts, layer.window), 0.0, float("-inf"))[:, None, None]
        self_logits = torch.einsum("pihd,pjhd->pijh", query, key) * (scale * sizes.rope.attention_factor**2)
        # [P, (R+1)^2, heads], columns filled up to whole vector registers: with 9 columns MKL treats a row by its
        # position among the rows, and takes three times as long.
        self.self_logits = nn.functional.pad(self_logits.flatten(1, 2), (0, -self.heads % COLUMNS))
        out = layer.out.weight.float().unflatten(1, (sizes.heads, sizes.head_dim))  # [D, heads, head_dim]
        from_prefix = torch.einsum("pshd,khd->phsk", values, out).flatten(1, 2)  # [P, heads * S, D]
        from_self = torch.einsum("pihd,khd->phik", value, out).flatten(1, 2)  # [P, heads * (R+1), D]
        self.mix = torch.cat([x[:, 1:], from_prefix, from_self], 1).to(dtype)

    def __call__(self, u: Tensor) -> Tensor:
        e = torch.cat([u.new_ones(*u.shape[:2], 1), u], -1)
        square = (e.unsqueeze(-1) * e.unsqueeze(-2)).flatten(2)
        inverse = (torch.bmm(square, self.gram) + self.eps).rsqrt()
        e_normed = e * inverse
        prefix = torch.bmm(e_normed, self.logits).unflatten(-1, (self.heads, -1)) + self.mask_bias
        self_logits = torch.bmm(square, self.self_logits)[..., : self.heads] * inverse.square()
        weights = torch.cat([prefix, self_logits.unsqueeze(-1)], -1).softmax(-1)  # [P, B, heads, S+1]
        from_self = (weights[..., -1:] * e_normed.unsqueeze(2)).flatten(2)
        parts = torch.cat([u, weights[..., :-1].flatten(2), from_self], -1).to(self.dtype)
        return self.residual.unsqueeze(1) + torch.bmm(parts, self.mix)


def _per_head(projected: Tensor, sizes: DecoderConfig) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs of `qkv` -> queries, keys, values `[..., heads, head_dim]`; key heads repeated for their queries."""
    qkv = projected.unflatten(-1, (sizes.heads + 2 * sizes.kv_heads, sizes.head_dim))
    query, key, value = qkv.split((sizes.heads, sizes.kv_heads, sizes.kv_heads), dim=-2)
    return query, _repeat(key, sizes), _repeat(value, sizes)


def _repeat(part: Tensor, sizes: DecoderConfig) -> Tensor:
    return part.repeat_interleave(sizes.heads // sizes.kv_heads, dim=-2)


class PrefixAttention:
    """Residual stream after the attention of a layer above L-K+1: float32 `[P, B, D]`, changed in place."""

    def __init__(self, layer: DecoderLayer, prompts: CompiledPrompts, index: int, dtype: torch.dtype):
        sizes = layer.sizes
        self.sizes, self.dtype = sizes, dtype
        assert isinstance(layer.qkv, nn.Linear)
        assert isinstance(layer.out, nn.Linear)
        weight = layer.qkv.weight.float() * layer.attention_norm.weight
        scale = sizes.head_dim**-0.5
        weight[: sizes.heads * sizes.head_dim] *= scale
        self.qkv, self.out = PackedLinear(weight, None, dtype), PackedLinear(layer.out.weight, None, dtype)
        self.keys = prompts.keys[index].to(dtype).permute(0, 2, 3, 1).contiguous()  # [P, kv_heads, head_dim, S]
        self.values = prompts.values[index].to(dtype).permute(0, 2, 1, 3).contiguous()
        self.mask_bias = torch.where(visible(prompts, layer.window), 0.0, float("-inf"))[:, None, None]
        self.self_scale = sizes.rope.attention_factor**2

    def __call__(self, x: Tensor) -> Tensor:
        s, (n_prompts, n) = self.sizes, x.shape[:2]
        qkv = self.qkv((x * inverse_rms(x, s.norm_eps)).to(self.dtype))
        qkv = qkv.unflatten(-1, (s.heads + 2 * s.kv_heads, s.head_dim))
        query, key, value = qkv.split((s.heads, s.kv_heads, s.kv_heads), dim=-2)
        query = query.unflatten(2, (s.kv_heads, -1)).transpose(1, 2)  # [P, kv_heads, B, group, head_dim]
        key, value = key.transpose(1, 2).unsqueeze(3), value.transpose(1, 2).unsqueeze(3)
        self_logits = (query * key).sum(-1, dtype=torch.float32).flatten(2) * self.self_scale
        prefix = (query.flatten(2, 3) @ self.keys).float() + self.mask_bias
        weights = torch.cat([prefix, self_logits.unsqueeze(-1)], -1).softmax(-1).to(self.dtype)
        mixed = (weights[..., :-1] @ self.values).unflatten(2, (n, -1))
        mixed = mixed + weights[..., -1:].unflatten(2, (n, -1)) * value
        return x.add_(self.out(mixed.transpose(1, 2).reshape(n_prompts, n, -1)))


class FeedForward:
    """The feed-forward half of a layer with its branch: float32 `[P, B, D]`, changed in place."""

    def __init__(self, layer: DecoderLayer, hypernet: Hypernet, c: Tensor, dtype: torch.dtype):
        assert isinstance(layer.gate_up, nn.Linear)
        assert isinstance(layer.down, nn.Linear)
        norm = layer.ffn_norm.weight
        self.eps, self.dtype, self.c = layer.sizes.norm_eps, dtype, c.to(dtype)
        gate, up = (layer.gate_up.weight.float() * norm).chunk(2)
        self.gate, self.up = PackedLinear(gate, None, dtype, "swish"), PackedLinear(up, None, dtype)
        self.down = PackedLinear(layer.down.weight, None, dtype)
        weight, bias = hypernet.head_by_rank()
        weight, bias = weight * norm[:, None, None], bias * norm[:, None]
        # R before D, so that A lies as the product with x reads it.
        self.head = PackedLinear(weight.transpose(0, 1).flatten(0, 1), bias.T.flatten(), dtype)
        self.rank = hypernet.rank

    def __call__(self, x: Tensor, state: Tensor) -> Tensor:
        """state: `[B, H]` of `dtype`, of this layer's query."""
        normed = (x * inverse_rms(x, self.eps)).to(self.dtype)
        a = self.head(state).unflatten(-1, (self.rank, -1))  # [B, R, D]
        inner = torch.bmm(normed.transpose(0, 1), a.transpose(1, 2)).transpose(0, 1)  # [P, B, R]
        added = self.down(self.gate(normed).mul_(self.up(normed)))
        return x.add_(torch.addmm(added.flatten(0, 1), inner.reshape(-1, self.rank), self.c).view_as(x))
