"""One frozen decoder for the Llama family: prefix computation, forward with a branch, steps of generation.

Covered: Llama (SmolLM2 too), Mistral, Qwen2, Qwen3, by their transformers configuration: grouped-query attention,
explicit head_dim, rotary scalings (`architecture.Rope`), tied or untied head, biases, query/key norms, sliding windows.
NOT covered: mixture of experts, other activations than SiLU, attention dropout, training of the base.

Numbers: matrices and their inputs are in `dtype`; the residual stream, norms, rotations and softmax stay in float32,
so bf16 loses nothing where it adds up over layers. q/k/v and gate/up are one matrix each: fewer launches. `prefix.py`
runs the same layers for shared-prefix scoring; therefore a layer's steps are methods of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..adapter.lowrank import Branch, LayerBranch, lowrank_branch
from ..architecture import DecoderConfig
from .layer_ops import OPS, LayerOps, Rotary, Terms, add_up
from .weights import CheckpointLike, Mode, RMSNorm, TensorSource, load_linear, to_dense


class KVCache:
    """Keys (after norm and rotation) and values of the tokens seen so far, of at most `capacity` tokens.

    Not for gradients: it is written in place.
    keys, values: dtype `[L, B, kv_heads, capacity, head_dim]`.
    real: bool `[B, capacity]`, False at padding.
    used: tokens written.
    """

    def __init__(self, decoder: Decoder, rows: int, capacity: int) -> None:
        sizes = decoder.sizes
        shape = (sizes.layers, rows, sizes.kv_heads, capacity, sizes.head_dim)
        device = decoder.embedding.device
        self.keys = torch.zeros(shape, dtype=decoder.dtype, device=device)
        self.values = torch.zeros(shape, dtype=decoder.dtype, device=device)
        self.real = torch.zeros((rows, capacity), dtype=torch.bool, device=device)
        self.padded = False
        self.used = 0

    def write(self, layer: int, keys: Tensor, values: Tensor, start: int) -> tuple[Tensor, Tensor]:
        """Keep the new tokens' `[B, kv_heads, T, head_dim]` and return those of all tokens so far."""
        stop = start + keys.shape[2]
        assert stop <= self.keys.shape[3], "the cache is full"
        self.keys[layer, :, :, start:stop] = keys
        self.values[layer, :, :, start:stop] = values
        return self.keys[layer, :, :, :stop], self.values[layer, :, :, :stop]

    def take(self, rows: Tensor) -> None:
        """Keep the rows `rows` alone, in that order; a row may come several times. rows: int64 `[B]`."""
        self.keys, self.values, self.real = self.keys[:, rows], self.values[:, rows], self.real[rows]

    def select(self, slots: Tensor, capacity: int) -> None:
        """Keep the tokens in these slots of each row alone, in that order, with room for `capacity`.

        slots: int64 `[B, W]`.
        """
        for name in ("keys", "values"):
            before = getattr(self, name)
            after = before.new_zeros((*before.shape[:3], capacity, before.shape[4]))
            for row, at in enumerate(slots):
                after[:, row, :, : len(at)] = before[:, row].index_select(2, at)
            setattr(self, name, after)
        real = self.real.gather(1, slots)
        self.real, self.used = F.pad(real, (0, capacity - real.shape[1])), real.shape[1]


@dataclass(frozen=True)
class DecodeStep:
    """What every layer needs for one call: rotations, masks by window, the cache and where it starts.

    cos, sin: float32 `[B, T, head_dim / 2]`.
    masks: window -> bool `[B or 1, 1, T, S]`, or None for plain causality.
    last: bool `[B, T]`, True at the last real token of each row.
    """

    cos: Tensor
    sin: Tensor
    masks: dict[int, Tensor | None]
    last: Tensor
    cache: KVCache | None
    start: int


def attention_mask(real: Tensor, padded: bool, tokens: int, window: int) -> Tensor | None:
    """Which of all S tokens each of the `tokens` newest may see; None where that is plain causality.

    real: bool `[B, S]`. Returns bool `[B or 1, 1, T, S]`.
    """
    seen = real.shape[1]
    if not padded and (window == 0 or seen <= window) and tokens in (1, seen):
        return None
    at = torch.arange(seen, device=real.device)
    query, key = at[seen - tokens :, None], at[None, :]
    allowed = key <= query
    if window:
        allowed = allowed & (key > query - window)
    if not padded:
        return allowed[None, None]
    # Padding tokens see themselves: a softmax without any key would be NaN and spread through the values.
    return (allowed & real[:, None, None, :]) | (key == query)


def prepend_soft_tokens(soft: Tensor, x: Tensor, real: Tensor | None) -> tuple[Tensor, Tensor | None, Tensor]:
    """Soft tokens `[B, N, D]` between the padding on a row's left and its first token: a row is as it would be alone.

    x: `[B, T, D]`. real: bool `[B, T]` or None. Returns both with N more, and the new positions of the T: int64
    `[B, T]`.
    """
    rows, n, tokens = len(x), soft.shape[1], x.shape[1]
    at = torch.arange(n + tokens, device=x.device)
    x = torch.cat([soft.to(x.dtype), x], 1)
    if real is None:
        return x, None, at[n:].expand(rows, -1)
    padding = (real.cumsum(1) == 0).sum(1, keepdim=True)
    slots = at[:tokens] + n * (at[:tokens] >= padding)
    order = torch.cat([padding + at[:n], slots], 1).argsort(1)
    real = torch.cat([real.new_ones(rows, n), real], 1).gather(1, order)
    return x.gather(1, order[..., None].expand(-1, -1, x.shape[2])), real, slots


class DecoderLayer(nn.Module):
    """One frozen layer. `forward` is the whole of it; scoring enters between its steps, which are methods.

    ops: the plain functions; training takes others by `Decoder.use_ops`.
    """

    order: Tensor | None

    def __init__(self, source: TensorSource, index: int, sizes: DecoderConfig, dtype: torch.dtype, mode: Mode) -> None:
        super().__init__()
        at = f"model.layers.{index}"
        self.ops = OPS
        self.index, self.sizes, self.window = index, sizes, sizes.windows[index]
        order = sizes.rope.order
        self.register_buffer("order", None if order is None else torch.tensor(order), persistent=False)

        def norm(name: str) -> RMSNorm:
            return RMSNorm(source.load(f"{at}.{name}.weight"), sizes.norm_eps, dtype)

        self.attention_norm = norm("input_layernorm")
        self.ffn_norm = norm("post_attention_layernorm")
        with_norms = f"{at}.self_attn.q_norm.weight" in set(source.names())
        self.q_norm = norm("self_attn.q_norm") if with_norms else None
        self.k_norm = norm("self_attn.k_norm") if with_norms else None
        self.qkv = load_linear(source, [f"{at}.self_attn.{n}_proj" for n in "qkv"], dtype, mode)
        self.out = load_linear(source, [f"{at}.self_attn.o_proj"], dtype, mode)
        self.gate_up = load_linear(source, [f"{at}.mlp.gate_proj", f"{at}.mlp.up_proj"], dtype, mode)
        self.down = load_linear(source, [f"{at}.mlp.down_proj"], dtype, mode)

    def project(self, normed: Tensor, branch: LayerBranch | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries `[..., heads, head_dim]`, keys and values `[..., kv_heads, head_dim]` of an input after the norm.

        With the branches at q, k and v, after the query and key norms, before rotation. normed: dtype `[..., D]`.
        """
        widths = self.sizes.module_widths()
        parts = self.qkv(normed).split([widths[module][1] for module in "qkv"], -1)
        if branch is not None:
            parts = [branch.add(module, normed, part) for module, part in zip("qkv", parts, strict=True)]
        query, key, value = (part.unflatten(-1, (-1, self.sizes.head_dim)) for part in parts)
        if self.q_norm is not None and self.k_norm is not None:
            query, key = self.q_norm(query), self.k_norm(key)
        return query, key, value

    def reorder(self, heads: Tensor) -> Tensor:
        """Queries or keys `[..., head_dim]` in the order of `Rope.order`, for the rotation."""
        return heads if self.order is None else heads[..., self.order]

    def merge(self, heads: Tensor, branch: LayerBranch | None = None) -> Tensor:
        """What attention adds, dtype `[..., D]`, of the heads' results side by side `[..., heads * head_dim]`."""
        out: Tensor = self.out(heads)
        return out if branch is None else branch.add("o", heads, out)

    def attend(self, normed: Tensor, step: DecodeStep, branch: LayerBranch | None = None) -> Tensor:
        """What attention adds, dtype `[B, T, D]`, of an input after the norm."""
        query, key, value = self.project(normed, branch)
        query = self.ops.rotate(self.reorder(query), step.cos, step.sin).transpose(1, 2)
        key, value = self.ops.rotate(self.reorder(key), step.cos, step.sin).transpose(1, 2), value.transpose(1, 2)
        if step.cache is not None:
            key, value = step.cache.write(self.index, key, value, step.start)
        heads = self.ops.attention(query, key, value, step.masks[self.window])
        return self.merge(heads.transpose(1, 2).flatten(2), branch)

    def feed_forward(self, normed: Tensor) -> Tensor:
        """The SwiGLU block of an input after the norm, dtype `[..., D]`, without residual and branch."""
        return self.down(self.ops.gate(self.gate_up(normed)))

    def forward(self, terms: Terms, step: DecodeStep, branch: LayerBranch | None = None) -> Terms:
        """The residual stream in and out; branch: this layer's part of `Branch.by_layer`."""
        x, normed = self.ops.add_norm(terms, self.attention_norm)
        x, normed = self.ops.add_norm((x, self.attend(normed, step, branch)), self.ffn_norm)
        terms = x, self.feed_forward(normed)
        if branch is None or "ffn" not in branch.factors:
            return terms
        a, c = branch.factors["ffn"]
        if branch.positions == "all":
            return *terms, lowrank_branch(normed, a, c, branch.scale)
        at_last = step.last[..., None]
        answer = (normed * at_last).sum(1, keepdim=True).to(normed.dtype)  # exact: all other terms are zero
        return *terms, at_last * lowrank_branch(answer, a, c, branch.scale)


class Decoder(nn.Module):
    """The frozen language model. Build it with `from_checkpoint`.

    context: most tokens that the model was made to read; 0 where that is not known.
    """

    context = 0

    def __init__(self, source: TensorSource, sizes: DecoderConfig, dtype: torch.dtype, mode: Mode) -> None:
        super().__init__()
        self.sizes, self.dtype, self.ops = sizes, dtype, OPS
        self.embedding = nn.Parameter(to_dense(source.load("model.embed_tokens.weight"), dtype), requires_grad=False)
        self.layers = nn.ModuleList(DecoderLayer(source, i, sizes, dtype, mode) for i in range(sizes.layers))
        self.norm = RMSNorm(source.load("model.norm.weight"), sizes.norm_eps, dtype)
        self.untied_head = None if sizes.tied_head else load_linear(source, ["lm_head"], dtype, mode)
        self.rotary = Rotary(sizes.rope)

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: CheckpointLike,
        dtype: torch.dtype = torch.float32,
        mode: Mode = "resident",
        sizes: DecoderConfig | None = None,
    ) -> Decoder:
        """mode "resident" dequantises the matrices once to `dtype`; "4bit" does so in each call. sizes: where they are
        known, so that the configuration need not be read.
        """
        decoder = cls(checkpoint, sizes or DecoderConfig.from_config(checkpoint.config), dtype, mode)
        decoder.context = int(checkpoint.config.get("max_position_embeddings") or 0)
        return decoder

    def use_ops(self, ops: LayerOps) -> None:
        """Compute by these functions, in all layers."""
        self.ops = ops
        for layer in self.layers:
            assert isinstance(layer, DecoderLayer)
            layer.ops = ops

    def prepare_step(
        self, rows: int, tokens: int, real: Tensor | None = None, cache: KVCache | None = None
    ) -> DecodeStep:
        """Masks and rotations for new tokens. real: bool `[B, T]`, False at padding; None if all are real."""
        device = self.embedding.device
        start = cache.used if cache is not None else 0
        padded = real is not None
        if real is None:
            real = torch.ones((rows, tokens), dtype=torch.bool, device=device)
        everything = real
        if cache is not None:
            cache.real[:, start : start + tokens] = real
            cache.padded = padded = cache.padded or padded
            cache.used = start + tokens
            everything = cache.real[:, : start + tokens]
        positions = (everything.cumsum(1) - 1).clamp_min(0)[:, start:]
        cos, sin = self.rotary(positions)
        masks = {w: attention_mask(everything, padded, tokens, w) for w in set(self.sizes.windows)}
        # The last real token is the only real one with no real token after it.
        last = real & (real.flip(1).cumsum(1).flip(1) == 1)
        return DecodeStep(cos, sin, masks, last, cache, start)

    def embed(self, ids: Tensor) -> Tensor:
        """ids: int64 `[B, T]` -> the residual stream, float32 `[B, T, D]`."""
        return F.embedding(ids, self.embedding).float()

    def hidden(
        self, ids: Tensor, *, real: Tensor | None = None, cache: KVCache | None = None, branch: Branch | None = None
    ) -> Tensor:
        """Final-normed hidden states, dtype `[B, T, D]`. Without a branch this is the base model, bit for bit.

        ids: int64 `[B, T]`; with a cache, the tokens after those that it holds.
        real: bool `[B, T]`, False at padding, which may be on either side.
        branch: its soft tokens stand before the first ids and have no part in what is returned.
        """
        x = self.embed(ids)
        slots = None
        if branch is not None and branch.soft is not None and (cache is None or cache.used == 0):
            x, real, slots = prepend_soft_tokens(branch.soft, x, real)
        x = self.run(x, self.prepare_step(x.shape[0], x.shape[1], real, cache), branch)
        return self.norm(x if slots is None else x.gather(1, slots[..., None].expand(-1, -1, x.shape[2])))

    def run(self, x: Tensor, step: DecodeStep, branch: Branch | None = None) -> Tensor:
        """All layers: the residual stream in and out, float32 `[B, T, D]`."""
        n_layers = self.sizes.layers
        branches = [None] * n_layers if branch is None else branch.by_layer(n_layers, self.sizes.module_widths())
        terms: Terms = (x,)
        for layer, layer_branch in zip(self.layers, branches, strict=True):
            terms = layer(terms, step, layer_branch)
        return add_up(terms)

    def head(self, hidden: Tensor) -> Tensor:
        """Logits float32 `[..., vocabulary]` of final-normed hidden states."""
        out = F.linear(hidden, self.embedding) if self.untied_head is None else self.untied_head(hidden)
        return out.float()

    def cross_entropy(self, hidden: Tensor, labels: Tensor) -> Tensor:
        """Mean cross entropy of the tokens after final-normed hidden states `[M, D]`: float32 scalar, in nats.

        labels: int64 `[M]`; those below 0 do not count.
        """
        head = self.untied_head
        if head is None:
            return self.ops.cross_entropy(hidden, self.embedding, labels)
        if isinstance(head, nn.Linear) and head.bias is None:
            return self.ops.cross_entropy(hidden, head.weight, labels)
        return F.cross_entropy(self.head(hidden), labels.clamp_min(-1), ignore_index=-1)

    def logits(self, ids: Tensor, **options: Any) -> Tensor:
        """Logits float32 `[B, T, vocabulary]`; arguments as for `hidden`."""
        return self.head(self.hidden(ids, **options))
