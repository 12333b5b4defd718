"""Perplexity of a language model on a text: how many equally likely tokens it wavers between, on average.

The bundled text is from Charles Darwin, *On the Origin of Species* (1859), in the public domain. Models have read it in
training, so the number shows what quantisation costs, not how good a model is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import resources

import torch
from torch import Tensor

from ..architecture import DecoderConfig
from ..errors import InputError
from .decoder import Decoder, DecoderLayer
from .layer_ops import add_up
from .weights import CheckpointLike


def bundled_text() -> str:
    """About 8 kB of plain English."""
    return resources.files(__package__).joinpath("public_domain.txt").read_text(encoding="utf-8")


@torch.no_grad()
def perplexity(logits_fn: Callable[[Tensor], Tensor], token_ids: Tensor, window: int = 512) -> float:
    """`exp(mean negative log likelihood)` over every token but the first.

    logits_fn: int64 `[1, T]` -> float `[1, T, vocabulary]`.
    token_ids: int64 `[n]` or `[1, n]`, n >= 2.
    window: most tokens given at once; windows share one token, so that each token is predicted once.

    Raises `InputError` for fewer than two tokens or a window below two.
    """
    ids = token_ids.reshape(-1).long()
    if ids.numel() < 2 or window < 2:
        raise InputError(
            f"perplexity: got {ids.numel()} and {window}, expected at least two tokens and a window of two"
        )
    total = 0.0
    for piece in _windows(ids, window):
        scores = logits_fn(piece[None])[0, :-1].float()
        total += torch.nn.functional.cross_entropy(scores, piece[1:], reduction="sum").item()
    return math.exp(total / (ids.numel() - 1))


@torch.no_grad()
def text_perplexity(model: CheckpointLike, text: str | None = None, window: int = 512) -> float:
    """That of a checkpoint on `text`, by default the bundled one, in float32; one layer is in memory at a time.

    It is what `perplexity` gives with the logits of the whole `Decoder`, with windows no longer than its context.
    """
    ids = torch.tensor(model.tokenizer()(text or bundled_text()).input_ids)
    window = min(window, int(model.config.get("max_position_embeddings") or window))
    sizes = DecoderConfig.from_config(model.config)
    ends = Decoder(model, replace(sizes, layers=0), torch.float32, "resident")
    steps = [ends.prepare_step(1, len(piece)) for piece in _windows(ids, window)]
    states = [ends.embed(piece[None]) for piece in _windows(ids, window)]
    for index in range(sizes.layers):
        layer = DecoderLayer(model, index, sizes, torch.float32, "resident")
        states = [add_up(layer((state,), step)) for state, step in zip(states, steps, strict=True)]
    hidden = iter(states)
    return perplexity(lambda _: ends.head(ends.norm(next(hidden))), ids, window)


def _windows(ids: Tensor, window: int) -> Iterator[Tensor]:
    """int64 `[<= window]` each; neighbours share one token."""
    for start in range(0, ids.numel() - 1, window - 1):
        yield ids[start : start + window]
