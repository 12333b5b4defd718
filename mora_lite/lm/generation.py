"""Text out: batched generation with a key/value cache, each row with its own adapter at all positions.

Rows are padded on the left and do not influence each other: a row gives the tokens it would give alone.
NOT covered: beams (`beam.py`), repetition penalties, top-k.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from ..adapter.lowrank import Branch
from ..errors import InputError
from .decoder import Decoder, KVCache


def pad_left(ids: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Rows as int64 `[B, T]`, and bool `[B, T]`, False at padding; None where all have one length."""
    longest = max(len(row) for row in ids)
    padded = torch.tensor([[0] * (longest - len(row)) + list(row) for row in ids], device=device)
    if all(len(row) == longest for row in ids):
        return padded, None
    lengths = torch.tensor([len(row) for row in ids], device=device)
    return padded, torch.arange(longest, device=device) >= longest - lengths[:, None]


def check_ids(decoder: Decoder, ids: Sequence[Sequence[int]]) -> None:
    """Raise `InputError` for an empty row, and for one as long as the model's context: another token would not fit."""
    if not ids or not all(ids):
        raise InputError("ids: got an empty row or no rows; every row needs a token to go on from")
    for row, tokens in enumerate(ids):
        if 0 < decoder.context <= len(tokens):
            raise InputError(
                f"row {row} of ids: got {len(tokens)} tokens, but the model reads {decoder.context}, new ones among "
                "them; shorten the prompt"
            )


def sample(logits: Tensor, temperature: float, uniforms: Tensor, top_p: float = 1.0) -> Tensor:
    """Next tokens, int64 `[B]`: the likeliest at temperature 0, else sampled.

    logits: float32 `[B, vocabulary]`.
    uniforms: float64 `[B]` in [0, 1), one random number for each row.
    top_p: only the likeliest tokens are sampled, as few as have this probability together.
    """
    if temperature == 0:
        return logits.argmax(-1)
    # Less the largest: at a temperature near 0 the others become minus infinity, and none becomes no number.
    probabilities = ((logits.double() - logits.amax(-1, keepdim=True)) / temperature).softmax(-1)
    if top_p < 1:
        probabilities, tokens = probabilities.sort(dim=-1, descending=True, stable=True)
        probabilities = probabilities.masked_fill(probabilities.cumsum(-1) - probabilities >= top_p, 0.0)
    steps = probabilities.cumsum(-1)
    # Scaled by the last step: rounding may leave it below 1, and a number above it would be no token at all.
    chosen = (steps <= uniforms[:, None] * steps[:, -1:]).sum(-1)
    return chosen if top_p == 1 else tokens.gather(-1, chosen[:, None])[:, 0]


@torch.no_grad()
def generate(
    decoder: Decoder,
    ids: Sequence[Sequence[int]],
    *,
    branch: Branch | None = None,
    max_new_tokens: int = 64,
    stop_ids: Collection[int] = (),
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int | Sequence[int] = 0,
) -> list[list[int]]:
    """New tokens of each row, up to and without the first of `stop_ids`.

    ids: one list of token ids for each row, none empty.
    branch: as many rows.
    temperature: 0 is greedy.
    top_p: the likeliest tokens that have this probability together are sampled.
    seed: one for each row, or the first row's, counted up from there, so that a row's text does not depend on the rows
    beside it.
    """
    check_ids(decoder, ids)
    if not temperature >= 0 or max_new_tokens < 0:  # not a number is neither
        raise InputError(f"temperature and max_new_tokens: got {temperature} and {max_new_tokens}, expected 0 or more")
    if not 0 < top_p <= 1:
        raise InputError(f"top_p: got {top_p}, expected a share above 0, up to 1")
    seeds = [seed + row for row in range(len(ids))] if isinstance(seed, int) else list(seed)
    assert len(seeds) == len(ids), f"seeds: got {len(seeds)} for {len(ids)} rows"
    assert branch is None or branch.a.shape[0] == len(ids), "the branch has another number of rows"
    rng = [torch.Generator().manual_seed(s) for s in seeds]
    device = decoder.embedding.device
    tokens, real = pad_left(ids, device)
    n_soft = branch.n_soft if branch is not None else 0
    cache = KVCache(decoder, len(ids), n_soft + tokens.shape[1] + max_new_tokens)
    stops = torch.tensor(sorted(stop_ids), dtype=torch.long, device=device)
    done = torch.zeros(len(ids), dtype=torch.bool, device=device)
    out: list[list[int]] = [[] for _ in ids]
    for _ in range(max_new_tokens):
        hidden = decoder.hidden(tokens, real=real, cache=cache, branch=branch)[:, -1]
        uniforms = torch.zeros(len(ids), dtype=torch.float64)
        if temperature > 0:
            uniforms = torch.cat([torch.rand(1, generator=g, dtype=torch.float64) for g in rng])
        chosen = sample(decoder.head(hidden), temperature, uniforms.to(device), top_p)
        done = done | torch.isin(chosen, stops)
        for row, (token, ended) in enumerate(zip(chosen.tolist(), done.tolist(), strict=True)):
            if not ended:
                out[row].append(token)
        if bool(done.all()):
            break
        tokens, real = chosen[:, None], None
    return out
