"""Shared-prefix scoring: what a compiled prompt leaves behind, and the upper layers that finish it.

Adapters act only at the answer token (a prompt's last) and only in the K upper layers. So all earlier tokens have the
base model's keys and values in every layer, and the answer token itself is the base model's up to the feed-forward
block of layer L-K, whose output differs between molecules by the branch alone. One molecule costs K-1 layers x 1 token
x P prompts, and of layer L-K only the norm before that block is needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from ..adapter.lowrank import lowrank_branch, shared_lowrank_branch
from ..architecture import DecoderConfig
from ..errors import CheckpointError
from ..quant.checkpoint import expected_shapes
from .decoder import Decoder, DecoderLayer, KVCache
from .layer_ops import rotate
from .weights import InMemoryTensors, Mode, RMSNorm, TensorSource


@dataclass(frozen=True)
class CompiledPrompt:
    """All that a prompt of T tokens contributes to the answer of any molecule.

    attended: float32 `[D]`, the answer token's residual stream entering the feed-forward half of layer L-K.
    residual: float32 `[D]`, the same after that half, without a branch.
    keys, values: dtype `[K-1, T-1, kv_heads, head_dim]` of the tokens before, layers L-K+1 .. L-1; keys after norm and
    rotation, rotated back by the answer token's angle: scores depend on distances alone, so that the many queries need
    no rotation, only these few keys.
    """

    attended: Tensor
    residual: Tensor
    keys: Tensor
    values: Tensor

    @property
    def position(self) -> int:
        """Position of the answer token: T-1."""
        return self.keys.shape[1]


@dataclass(frozen=True)
class CompiledPrompts:
    """P compiled prompts of different lengths, stacked.

    attended, residual: float32 `[P, D]`.
    keys, values: `[K-1, P, Tmax-1, kv_heads, head_dim]`, zeros after the shorter ones.
    lengths: int64 `[P]`, tokens before the answer token; so also its position.
    """

    attended: Tensor
    residual: Tensor
    keys: Tensor
    values: Tensor
    lengths: Tensor

    def __post_init__(self) -> None:
        n_prompts, _ = self.attended.shape
        assert self.residual.shape == self.attended.shape
        assert self.values.shape == self.keys.shape
        assert (self.keys.dim(), self.keys.shape[1], *self.lengths.shape) == (5, n_prompts, n_prompts)

    @classmethod
    def stack(cls, prompts: Sequence[CompiledPrompt]) -> CompiledPrompts:
        longest = max(prompt.position for prompt in prompts)

        def padded(part: Tensor) -> Tensor:
            return nn.functional.pad(part, (0, 0, 0, 0, 0, longest - part.shape[1]))

        return cls(
            torch.stack([p.attended for p in prompts]),
            torch.stack([p.residual for p in prompts]),
            torch.stack([padded(p.keys) for p in prompts], dim=1),
            torch.stack([padded(p.values) for p in prompts], dim=1),
            torch.tensor([p.position for p in prompts], device=prompts[0].keys.device),
        )

    def tensors(self) -> dict[str, Tensor]:
        """For a file, whose name for `residual` is `base`."""
        return {"base" if f.name == "residual" else f.name: getattr(self, f.name) for f in fields(self)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> CompiledPrompts:
        """Restore what `tensors` has given."""
        return cls(**{"residual" if name == "base" else name: tensor for name, tensor in tensors.items()})

    def to(self, device: torch.device | str) -> CompiledPrompts:
        return CompiledPrompts(*(getattr(self, field.name).to(device) for field in fields(self)))

    def select(self, indices: Sequence[int]) -> CompiledPrompts:
        """Only some of the prompts, in the order given; padding stays, so their numbers do too."""
        at = torch.tensor(indices, device=self.lengths.device)
        keys, values = self.keys[:, at], self.values[:, at]
        return CompiledPrompts(self.attended[at], self.residual[at], keys, values, self.lengths[at])


@torch.no_grad()
def compile_prompt(decoder: Decoder, ids: Tensor | Sequence[int], k: int) -> CompiledPrompt:
    """Run the base model once over a prompt and keep what scoring with the k uppermost layers adapted needs.

    ids: int64 `[T]`, T >= 1; the last token is the answer position.
    """
    row = torch.as_tensor(ids, device=decoder.embedding.device)[None]
    cache = KVCache(decoder, 1, row.shape[1])
    step = decoder.prepare_step(1, row.shape[1], cache=cache)
    first = decoder.sizes.layers - k
    x = decoder.embed(row)
    attended = x
    for index, layer in enumerate(decoder.layers):
        assert isinstance(layer, DecoderLayer)
        x = x + layer.attend(layer.attention_norm(x), step)
        if index == first:
            attended = x
        x = x + layer.feed_forward(layer.ffn_norm(x))
        if index == first:
            residual = x
    keys, values = (part[first + 1 :, 0, :, :-1].transpose(1, 2) for part in (cache.keys, cache.values))
    keys = rotate(keys, step.cos[0, -1:], -step.sin[0, -1:])
    if (order := decoder.sizes.rope.order) is not None:  # back, as queries are not reordered where none is rotated
        keys = keys[..., torch.tensor(order, device=keys.device).argsort()]
    return CompiledPrompt(attended[0, -1].clone(), residual[0, -1].clone(), keys, values.clone())


def upper_tensor_names(names: Iterable[str], sizes: DecoderConfig, k: int) -> list[str]:
    """Of a checkpoint's tensor names, those that `UpperLayers` needs.

    Of layer L-K that is only the norm before the feed-forward block, whose output is in the compiled prompts.
    """
    first = sizes.layers - k
    prefixes = tuple(f"model.layers.{i}." for i in range(first + 1, sizes.layers))
    exact = {f"model.layers.{first}.post_attention_layernorm.weight", "model.norm.weight"}
    return [name for name in names if name in exact or name.startswith(prefixes)]


class UpperLayers(nn.Module):
    """The K uppermost layers and the final norm, frozen, without lower layers and vocabulary.

    tensors: name -> Tensor or NF4Tensor, with the names of `upper_tensor_names` (more do no harm).
    """

    def __init__(
        self,
        sizes: DecoderConfig,
        k: int,
        tensors: Mapping[str, Any],
        dtype: torch.dtype = torch.float32,
        mode: Mode = "resident",
    ) -> None:
        super().__init__()
        assert 1 <= k <= sizes.layers, f"adapted layers: got {k} of {sizes.layers}"
        for name, shape in expected_shapes(sizes, set(tensors)):
            got = tuple(tensors[name].shape) if name in tensors else shape
            assert got == shape, f"{name} has the shape {list(got)}, expected {list(shape)}"
        self.sizes, self.dtype, self.k = sizes, dtype, k
        first = sizes.layers - k
        source: TensorSource = InMemoryTensors(tensors)
        first_norm = source.load(f"model.layers.{first}.post_attention_layernorm.weight")
        self.first_norm = RMSNorm(first_norm, sizes.norm_eps, dtype)
        self.layers = nn.ModuleList(DecoderLayer(source, i, sizes, dtype, mode) for i in range(first + 1, sizes.layers))
        self.norm = RMSNorm(source.load("model.norm.weight"), sizes.norm_eps, torch.float32)

    def score(self, prompts: CompiledPrompts, a: Tensor, c: Tensor, scale: float) -> Tensor:
        """Final-normed hidden state of the answer token, float32 `[B, P, D]`, for every molecule and prompt.

        a: `[B, K, D, R]`. c: `[K, R, D]`. Differentiable in both. No shape depends on values: CUDA graphs can capture
        it.
        Semantics: out[b, p] = decoder.hidden(prompt[p], branch=Branch(a[b], c, scale, "last"))[-1]
        """
        assert a.shape[1] == c.shape[0] == self.k, f"adapted layers: got {a.shape[1]}, {c.shape[0]}, expected {self.k}"
        # unbind, not indexing: the gradient of an index is a whole `a` of zeros for each layer.
        a_of, c_of = a.unbind(1), c.unbind(0)
        x = prompts.residual + shared_lowrank_branch(self.first_norm(prompts.attended), a_of[0], c_of[0], scale)
        for index, layer in enumerate(self.layers):
            assert isinstance(layer, DecoderLayer)
            x = x + layer.out(self.attend_prefix(layer, index, x, prompts).flatten(2))
            normed = layer.ffn_norm(x)
            x = x + layer.feed_forward(normed)
            x = x + lowrank_branch(normed, a_of[index + 1], c_of[index + 1], scale)
        return self.norm(x)

    def attend_prefix(self, layer: DecoderLayer, index: int, x: Tensor, prompts: CompiledPrompts) -> Tensor:
        """Attention of each molecule's answer token to its prompt's shared prefix and to itself.

        x: float32 `[B, P, D]`, the residual stream. Returns dtype `[B, P, heads, head_dim]`. The B molecules are the
        query length of one product for each prompt and key head: the prefix is never copied.
        Semantics: softmax(q[b, p] @ cat(keys[p], k[b, p]).T / head_dim**0.5) @ cat(values[p], v[b, p])
        """
        sizes, scale = self.sizes, self.sizes.head_dim**-0.5
        groups = (sizes.kv_heads, sizes.heads // sizes.kv_heads)
        query, key, value = layer.project(layer.attention_norm(x))
        keys = (prompts.keys[index].float() * scale).to(self.dtype).permute(0, 2, 3, 1)
        values = prompts.values[index].to(self.dtype).permute(0, 2, 1, 3)  # [P, kv_heads, S, head_dim]
        query = query.unflatten(2, groups)  # [B, P, kv_heads, group, head_dim]
        rows = query.permute(1, 2, 0, 3, 4).flatten(2, 3)  # [P, kv_heads, B * group, head_dim]
        masked = ~visible(prompts, layer.window)[:, None, None, :]
        prefix_logits = (rows @ keys).float().masked_fill(masked, float("-inf"))
        # The token's key for itself is at distance zero: no rotation, but what yarn multiplies query and key by stays.
        self_logits = (query * key.unsqueeze(3)).sum(-1, dtype=torch.float32)  # [B, P, kv_heads, group]
        self_logits = self_logits.permute(1, 2, 0, 3).flatten(2) * (scale * sizes.rope.attention_factor**2)
        weights = torch.cat((prefix_logits, self_logits.unsqueeze(-1)), dim=-1).softmax(-1).to(self.dtype)
        mixed, self_weight = (
            part.unflatten(2, (-1, groups[1])).permute(2, 0, 1, 3, 4)  # [B, P, kv_heads, group, head_dim or 1]
            for part in (weights[..., :-1] @ values, weights[..., -1:])
        )
        return (mixed + self_weight * value.unsqueeze(3)).flatten(2, 3)


def visible(prompts: CompiledPrompts, window: int) -> Tensor:
    """Which prefix tokens each prompt's answer token sees: bool `[P, Tmax-1]`."""
    at = torch.arange(prompts.keys.shape[2], device=prompts.lengths.device)
    length = prompts.lengths[:, None]
    seen = at < length
    return seen & (at > length - window) if window else seen


def prompt_ids(tokenizer: Any, prompts: Sequence[str]) -> list[list[int]]:
    """Token ids of each prompt as plain text: the chat template of the shipped base gives garbage (docs/method.md)."""
    ids = [list(tokenizer(prompt).input_ids) for prompt in prompts]
    for prompt, row in zip(prompts, ids, strict=True):
        if not row:
            raise CheckpointError(f"prompt {prompt!r} has no tokens; write a question that ends in 'Answer:'")
    return ids


def compile_prompts(decoder: Decoder, ids: Sequence[Sequence[int]], n_layers: int) -> CompiledPrompts:
    """All prompts, for adapters in the `n_layers` uppermost layers; one run of the full base model for each prompt."""
    limit = decoder.sizes.layers
    if not 1 <= n_layers <= limit:
        raise CheckpointError(f"adapted layers: got {n_layers}, expected 1 to {limit}, the layers of the base")
    return CompiledPrompts.stack([compile_prompt(decoder, torch.tensor(row), n_layers) for row in ids])
