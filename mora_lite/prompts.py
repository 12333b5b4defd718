"""Prompts as token ids, compiled against a base model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .decoder import Decoder
from .errors import CheckpointError
from .upper import PromptBase, compile_prompt


def prompt_ids(tokenizer: Any, prompts: Sequence[str]) -> list[list[int]]:
    """Token ids of each prompt as plain text: the chat template of the shipped base gives garbage (docs/method.md)."""
    ids = [list(tokenizer(prompt).input_ids) for prompt in prompts]
    for prompt, row in zip(prompts, ids, strict=True):
        if not row:
            raise CheckpointError(f"prompt {prompt!r} has no tokens; write a question that ends in 'Answer:'")
    return ids


def compile_prompts(decoder: Decoder, ids: Sequence[Sequence[int]], n_layers: int) -> PromptBase:
    """All prompts, for adapters in the `n_layers` uppermost layers; one run of the full base model for each prompt."""
    limit = decoder.sizes.layers
    if not 1 <= n_layers <= limit:
        raise CheckpointError(f"adapted layers: got {n_layers}, expected 1 to {limit}, the layers of the base")
    return PromptBase.stack([compile_prompt(decoder, torch.tensor(row), n_layers) for row in ids])
