"""Text out: batched generation with a key/value cache, each row with its own adapter at all positions.

Rows are padded on the left and do not influence each other: a row gives the tokens it would give alone.
NOT covered: beams (`beam.py`), repetition penalties, top-k.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..adapter.lowrank import Branch
from ..errors import InputError
from .decoder import Decoder, KVCache

TAKE_OUT = 0.75  # rows that have ended leave the batch when no more than this share of it goes on


class Answer(NamedTuple):
    """tokens: up to and without the stop token. score: natural logarithm of its probability.

    ended: whether a stop token came before the limit.
    """

    tokens: list[int]
    score: float
    ended: bool


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


def generate(decoder: Decoder, ids: Sequence[Sequence[int]], **options: Any) -> list[list[int]]:
    """New tokens of each row, up to and without the first stop token; arguments as for `generate_answers`."""
    return [answer.tokens for answer in generate_answers(decoder, ids, **options)]


@torch.no_grad()
def generate_answers(
    decoder: Decoder,
    ids: Sequence[Sequence[int]],
    *,
    branch: Branch | None = None,
    max_new_tokens: int = 64,
    stop_ids: Collection[int] = (),
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int | Sequence[int] = 0,
) -> list[Answer]:
    """One answer for each row. Its score is that of the model itself, at temperature 1 and without `top_p`.

    ids: one list of token ids for each row, none empty.
    branch: as many rows.
    temperature: 0 is greedy.
    top_p: the likeliest tokens that have this probability together are sampled.
    seed: one for each row, or the first row's, counted up from there, so that a row's text does not depend on the rows
    beside it.
    """
    check_ids(decoder, ids)
    assert min(temperature, max_new_tokens) >= 0, f"temperature {temperature}, {max_new_tokens} tokens"
    assert 0 < top_p <= 1, f"top_p: got {top_p}"
    seeds = [seed + row for row in range(len(ids))] if isinstance(seed, int) else list(seed)
    assert len(seeds) == len(ids), f"seeds: got {len(seeds)} for {len(ids)} rows"
    assert branch is None or branch.a.shape[0] == len(ids), "the branch has another number of rows"
    rng = [torch.Generator().manual_seed(s) for s in seeds]
    device = decoder.embedding.device
    tokens, real = pad_left(ids, device)
    n_soft = branch.n_soft if branch is not None else 0
    cache = KVCache(decoder, len(ids), n_soft + tokens.shape[1] + max_new_tokens)
    out: list[list[int]] = [[] for _ in ids]
    scores = torch.zeros(len(ids), dtype=torch.float64)
    rows = list(range(len(ids)))  # those in the cache, in its order
    open_rows = set(rows)
    for _ in range(max_new_tokens):
        logits = decoder.head(decoder.hidden(tokens, real=real, cache=cache, branch=branch)[:, -1])
        uniforms = torch.zeros(len(rows), dtype=torch.float64)
        if temperature > 0:
            uniforms = torch.cat([torch.rand(1, generator=rng[row], dtype=torch.float64) for row in rows])
        chosen = sample(logits, temperature, uniforms.to(device), top_p)
        added = logits.gather(-1, chosen[:, None])[:, 0] - logits.logsumexp(-1)
        for row, token, score in zip(rows, chosen.tolist(), added.tolist(), strict=True):
            if row not in open_rows:
                continue
            scores[row] += score
            if token in stop_ids:
                open_rows.remove(row)
            else:
                out[row].append(token)
        if not open_rows:
            break
        if len(open_rows) <= TAKE_OUT * len(rows):
            left = torch.tensor([i for i, row in enumerate(rows) if row in open_rows], device=device)
            cache.take(left)
            branch = branch and replace(branch, a=branch.a[left])
            chosen, rows = chosen[left], [rows[i] for i in left.tolist()]
        tokens, real = chosen[:, None], None
    return [Answer(*found, row not in open_rows) for row, found in enumerate(zip(out, scores.tolist(), strict=True))]
