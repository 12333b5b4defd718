"""Rotary positions: which angles a checkpoint turns its queries and keys by, kept as plain numbers.

The inverse frequencies come from transformers once, when a checkpoint is read; afterwards they are plain
numbers. Covered: default, linear, llama3, yarn, dynamic. NOT covered: longrope, partial rotation, multi-axis
positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import CheckpointError

ROPE_KINDS = ("default", "linear", "dynamic", "llama3", "yarn")


@dataclass(frozen=True)
class Rope:
    """Rotation angles of one checkpoint.

    inverse_frequencies: head_dim / 2 numbers, radians per position (float32 values, exact in JSON).
    attention_factor: multiplies cosine and sine (yarn).
    dynamic: (theta, factor, max_positions) if the frequencies change for texts longer than max_positions.
    """

    inverse_frequencies: tuple[float, ...]
    attention_factor: float = 1.0
    dynamic: tuple[float, float, int] | None = None

    @classmethod
    def from_config(cls, config: Any, head_dim: int) -> Rope:
        """Read a transformers configuration object, which has turned older fields into `rope_parameters`."""
        parameters = config.rope_parameters
        kind, theta = parameters.get("rope_type", "default"), float(parameters["rope_theta"])
        if kind not in ROPE_KINDS:
            raise CheckpointError(f"rope type not supported: got {kind}; expected one of {', '.join(ROPE_KINDS)}")
        if kind == "default":
            exponents = torch.arange(0, head_dim, 2, dtype=torch.float) / head_dim
            frequencies, attention_factor = 1.0 / theta**exponents, 1.0
        else:
            from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

            frequencies, attention_factor = ROPE_INIT_FUNCTIONS[kind](config)
        if len(frequencies) * 2 != head_dim:
            raise CheckpointError(
                f"partial rotation is not supported: got {len(frequencies) * 2} of {head_dim} numbers rotated"
            )
        dynamic = None
        if kind == "dynamic":
            dynamic = (theta, float(parameters["factor"]), int(config.max_position_embeddings))
        return cls(tuple(frequencies.tolist()), float(attention_factor), dynamic)


class Rotary(nn.Module):
    """Cosine and sine tables of a `Rope` for any positions, in float32."""

    frequencies: Tensor

    def __init__(self, rope: Rope) -> None:
        super().__init__()
        self.rope = rope
        self.register_buffer("frequencies", torch.tensor(rope.inverse_frequencies), persistent=False)

    def forward(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """positions: int64 [B, T] -> cosine and sine, float32 [B, T, head_dim / 2].

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

    x: [..., T, heads, head_dim]. cos, sin: float32 [..., T, head_dim / 2].
    """
    first, second = x.chunk(2, dim=-1)
    cos, sin = cos.unsqueeze(-2), sin.unsqueeze(-2)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(x.dtype)
