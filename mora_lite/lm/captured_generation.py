"""Greedy text out as `generation.generate` gives it, with every step after the prompt as one captured CUDA graph.

A step of a 4-bit model with few rows costs the device a few milliseconds and Python, which starts some eight hundred
kernels for it, many times that. Here a step reads and writes tensors at fixed addresses only: the position, tokens,
keys and values and low-rank weights of each row. So it can be captured once for each number of rows and each capacity
and replayed for every token; the host looks at the tokens now and then, to see whether all rows have ended.

Without a capture the same code runs kernel by kernel, on any device. Not covered: sampling, beams, a branch at the
last token alone.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..adapter.lowrank import Branch, LayerBranch
from ..machine.capture import capture
from ..quant.linear import Linear4bit
from ..quant.matmul import choose_kernel, multiply_with_branch
from ..quant.tiling import TiledNF4
from .decoder import Decoder, DecoderLayer, KVCache
from .generation import Answer, check_ids, pad_left

CAPACITY_STEP = 64  # capacities are multiples of it, so that few are captured
MAX_STEPS = 2  # captured ones that are kept; each holds the keys and values of its rows
LOOK_EVERY = 16  # steps between two looks at the tokens


@dataclass
class Slots:
    """What a step reads and writes, for B rows and a capacity of S tokens: all on the device, never moved.

    cache: keys and values, and which tokens are real.
    branch: low-rank weights of the rows, or None.
    at: int64 `[1]`, the slot of the newest token, the same for all rows.
    position: int64 `[B, 1]`, the newest token's number in its row, padding left out.
    tokens: int64 `[B, S]`, those chosen, each in its slot.
    scores: float32 `[B, S]`, natural logarithm of each one's probability.
    graph: of a step, None where steps run kernel by kernel.
    """

    cache: KVCache
    branch: Branch | None
    at: Tensor
    position: Tensor
    tokens: Tensor
    scores: Tensor
    graph: torch.cuda.CUDAGraph | None = None
    _numbers: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self._numbers = torch.arange(self.tokens.shape[1], device=self.tokens.device)

    @classmethod
    def empty(cls, decoder: Decoder, rows: int, capacity: int, branch: Branch | None) -> Slots:
        """Slots for rows whose branch is as large as `branch`."""
        if branch is not None:
            # Soft tokens are no part of a step: they go with the prompt.
            a, c = (t.to(decoder.dtype, copy=True) for t in (branch.a, branch.c))
            branch = replace(branch, a=a, c=c, soft=None)
        device = decoder.embedding.device
        at, position = (torch.zeros(shape, dtype=torch.int64, device=device) for shape in ((1,), (rows, 1)))
        tokens = torch.zeros(rows, capacity, dtype=torch.int64, device=device)
        scores = torch.zeros(rows, capacity, device=device)
        return cls(KVCache(decoder, rows, capacity), branch, at, position, tokens, scores)

    def restart(self, branch: Branch | None) -> None:
        """Clear all tokens and take over a branch of the same sizes."""
        # What was left of another text has no weight, but zero times infinity would be no number.
        self.cache.keys.zero_()
        self.cache.values.zero_()
        self.cache.real.zero_()
        self.cache.used, self.cache.padded = 0, False
        if self.branch is not None and branch is not None:
            self.branch.a.copy_(branch.a)
            self.branch.c.copy_(branch.c)

    def prepare_step(self, logits: Tensor) -> None:
        """After the prompt, whose keys and values the cache holds. logits: float32 `[B, vocabulary]`, behind it."""
        length = self.cache.used
        self.at.fill_(length)
        self.write(logits)
        self.position.copy_(self.cache.real[:, :length].sum(1, keepdim=True))

    def write(self, logits: Tensor) -> None:
        """The likeliest token of each row and its score into the newest slot."""
        best, chosen = logits.max(-1, keepdim=True)
        self.tokens.index_copy_(1, self.at, chosen)
        self.scores.index_copy_(1, self.at, best - logits.logsumexp(-1, keepdim=True))

    def mask_bias(self, window: int, dtype: torch.dtype) -> Tensor:
        """Added to the logits of attention, `dtype` `[B, 1, 1, S]`: 0 where the newest token looks, else -inf."""
        masked = ~self.cache.real
        if window:
            masked = masked | (self._numbers <= self.at - window)
        bias = torch.zeros(masked.shape, dtype=dtype, device=masked.device).masked_fill_(masked, float("-inf"))
        return bias[:, None, None, :]


class CapturedGenerator:
    """Greedy generation with a decoder; steps are captured on CUDA unless `capture_steps` says otherwise.

    Keeps the keys and values of the last two shapes of batches. The decoder must not move or change afterwards. Not
    for two threads at a time.
    """

    def __init__(self, decoder: Decoder, *, capture_steps: bool | None = None):
        self.decoder = decoder
        self.device = decoder.embedding.device
        self.capture_steps = self.device.type == "cuda" if capture_steps is None else capture_steps
        self._slots_by_shape: OrderedDict[tuple[Any, ...], Slots] = OrderedDict()

    def generate(self, ids: Sequence[Sequence[int]], **options: Any) -> list[list[int]]:
        """New tokens of each row, up to and without the first stop token; arguments as for `generate_answers`."""
        return [answer.tokens for answer in self.generate_answers(ids, **options)]

    @torch.inference_mode()
    def generate_answers(
        self,
        ids: Sequence[Sequence[int]],
        *,
        branch: Branch | None = None,
        max_new_tokens: int = 64,
        stop_ids: Collection[int] = (),
    ) -> list[Answer]:
        """One answer for each row; arguments as for `generation.generate_answers`.

        In float32 the tokens are those of `generate`; in bfloat16 sums in another order may turn a near tie.
        Raises InputError for an empty row, and torch.OutOfMemoryError; then nothing is kept.
        """
        check_ids(self.decoder, ids)
        assert max_new_tokens >= 0, f"max_new_tokens: got {max_new_tokens}"
        assert branch is None or branch.a.shape[0] == len(ids), "the branch has another number of rows"
        assert branch is None or branch.positions == "all", "steps are captured for a branch at all positions"
        if max_new_tokens == 0:
            return [Answer([], 0.0, False) for _ in ids]
        tokens, real = pad_left(ids, self.device)
        length = tokens.shape[1] + (branch.n_soft if branch is not None else 0)
        try:
            slots = self._slots(len(ids), length + max_new_tokens, branch)
            slots.restart(branch)
            hidden = self.decoder.hidden(tokens, real=real, cache=slots.cache, branch=branch)[:, -1]
            slots.prepare_step(self.decoder.head(hidden))
            stops = set(stop_ids)
            for made in range(1, max_new_tokens):
                if stops and made % LOOK_EVERY == 0 and self._ended(slots, length, made, stops):
                    break
                if slots.graph is None:
                    step(self.decoder, slots)
                else:
                    slots.graph.replay()
        except torch.OutOfMemoryError:
            self._slots_by_shape.clear()
            raise
        end = int(slots.at) + 1
        rows = zip(slots.tokens[:, length:end].tolist(), slots.scores[:, length:end].tolist(), strict=True)
        return [_answer(*row, stops) for row in rows]

    def _slots(self, rows: int, tokens: int, branch: Branch | None) -> Slots:
        """Those of this shape, with their captured step; the least recently used are dropped for them."""
        capacity = -(-tokens // CAPACITY_STEP) * CAPACITY_STEP
        branch_key = None if branch is None else (branch.a.shape, branch.scale, branch.target_modules, branch.layers)
        key = rows, capacity, branch_key
        slots = self._slots_by_shape.get(key)
        if slots is None:
            while len(self._slots_by_shape) >= MAX_STEPS:
                self._slots_by_shape.popitem(last=False)
            slots = new = Slots.empty(self.decoder, rows, capacity, branch)
            if self.capture_steps:
                slots.graph, _ = capture(lambda: step(self.decoder, new), self.device)
            self._slots_by_shape[key] = slots
        self._slots_by_shape.move_to_end(key)
        return slots

    @staticmethod
    def _ended(slots: Slots, length: int, made: int, stops: set[int]) -> bool:
        """Whether every row has met a stop token. Waits for the device."""
        return all(not stops.isdisjoint(row) for row in slots.tokens[:, length : length + made].tolist())


def _answer(tokens: list[int], scores: list[float], stops: Collection[int]) -> Answer:
    """The answer that the tokens of a row begin with. scores: natural logarithms of their probabilities."""
    answer = truncate_at_stop(tokens, stops)
    return Answer(answer, sum(scores[: len(answer) + 1]), len(answer) < len(tokens))


def truncate_at_stop(tokens: list[int], stops: Collection[int]) -> list[int]:
    """The tokens before the first that is one of `stops`."""
    return next((tokens[:i] for i, token in enumerate(tokens) if token in stops), tokens)


def step(decoder: Decoder, slots: Slots) -> None:
    """Read the newest token of each row; write the one after it, and its slot. No shape depends on values."""
    slots.cache.real.index_fill_(1, slots.at, True)
    cos, sin = decoder.rotary(slots.position)
    rotation = torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)
    biases = {window: slots.mask_bias(window, decoder.dtype) for window in set(decoder.sizes.windows)}
    x = decoder.embed(slots.tokens.index_select(1, slots.at))[:, 0]
    n_layers, widths = decoder.sizes.layers, decoder.sizes.module_widths()
    branches = [None] * n_layers if slots.branch is None else slots.branch.by_layer(n_layers, widths)
    for layer, branch in zip(decoder.layers, branches, strict=True):
        assert isinstance(layer, DecoderLayer)
        x = x + attend(layer, x, rotation, biases[layer.window], slots, branch)
        x = x + feed_forward(layer, layer.ffn_norm(x), branch)
    logits = decoder.head(decoder.norm(x))
    slots.at.add_(1)
    slots.position.add_(1)
    slots.write(logits)


def attend(
    layer: DecoderLayer,
    x: Tensor,
    rotation: tuple[Tensor, Tensor],
    bias: Tensor,
    slots: Slots,
    branch: LayerBranch | None,
) -> Tensor:
    """What attention adds for the newest token. x: float32 `[B, D]` -> dtype `[B, D]`."""
    sizes, keys, values = layer.sizes, slots.cache.keys[layer.index], slots.cache.values[layer.index]
    query, key, value = layer.project(layer.attention_norm(x), branch)
    rotated = rotate_fused(layer.reorder(torch.cat((query, key), dim=1)), *rotation)
    query, key = rotated.split((sizes.heads, sizes.kv_heads), dim=1)
    keys.index_copy_(2, slots.at, key.unsqueeze(2))
    values.index_copy_(2, slots.at, value.unsqueeze(2))
    # The queries that share a key head see the same tokens: they are rows of one product, and keys are not repeated.
    grouped = query.unflatten(1, (sizes.kv_heads, -1))
    heads = F.scaled_dot_product_attention(grouped, keys, values, bias.expand(-1, -1, grouped.shape[2], -1))
    return layer.merge(heads.flatten(1), branch)


def rotate_fused(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """`layer_ops.rotate` in fewer operations.

    x: `[B, heads, head_dim]`. cos, sin: float32 `[B, 1, head_dim]`, the cosines twice and the sines with either sign.
    """
    wide = x.float()
    return torch.addcmul(wide * cos, wide.roll(wide.shape[-1] // 2, -1), sin).to(x.dtype)


def feed_forward(layer: DecoderLayer, normed: Tensor, branch: LayerBranch | None) -> Tensor:
    """The feed-forward block with the branch beside it. normed: dtype `[B, D]` -> dtype `[B, D]`."""
    if branch is None or "ffn" not in branch.factors:
        return layer.feed_forward(normed)
    down = layer.down.weight if isinstance(layer.down, Linear4bit) else None
    if not isinstance(down, TiledNF4) or choose_kernel(normed, down) != "triton":
        return branch.add("ffn", normed, layer.feed_forward(normed))
    a, c = branch.factors["ffn"]
    gate, up = layer.gate_up(normed).chunk(2, dim=-1)
    return multiply_with_branch(F.silu(gate) * up, down, normed, a, c, branch.scale)
