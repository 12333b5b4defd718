"""What a pack takes from its base model: prompts compiled by the whole model, and the upper layers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .decoder import Decoder, DecoderSizes
from .prompts import compile_prompts, prompt_ids
from .quant.checkpoint import Checkpoint, open_checkpoint
from .quant.convert import MATRIX
from .quant.nf4 import NF4Tensor, quantize_nf4
from .upper import PromptBase, UpperLayers, upper_tensor_names


class NF4Source:
    """A checkpoint whose decoder matrices are read as NF4, whatever they are stored as."""

    def __init__(self, checkpoint: Checkpoint):
        self.checkpoint = checkpoint

    @property
    def config(self) -> dict[str, Any]:
        return self.checkpoint.config

    def names(self) -> Iterable[str]:
        return self.checkpoint.names()

    def load(self, name: str) -> Tensor | NF4Tensor:
        weight = self.checkpoint.load(name)
        if isinstance(weight, Tensor) and MATRIX.fullmatch(name):
            return quantize_nf4(weight.float())
        return weight


@dataclass(frozen=True)
class CompiledBase:
    """sizes: of the whole decoder. prompts: compiled. weights: of the upper layers, by Hugging Face name.

    sha256: of the base model's files. ids: tokens of each prompt.
    """

    sizes: DecoderSizes
    prompts: PromptBase
    weights: dict[str, Tensor | NF4Tensor]
    sha256: str
    ids: list[list[int]]

    def upper(self, n_layers: int, dtype: torch.dtype = torch.float32) -> UpperLayers:
        """The upper layers as a module, dequantised once to `dtype`."""
        return UpperLayers(self.sizes, n_layers, self.weights, dtype, "resident")


def compile_base(path: Path, prompts: list[str], n_layers: int, *, four_bit: bool = True) -> CompiledBase:
    """Run the base model in float32 over all prompts and keep what `n_layers` adapted layers need.

    four_bit: quantise its matrices to NF4 first; False keeps those of the upper layers in bfloat16.
    """
    checkpoint = open_checkpoint(path)
    source = NF4Source(checkpoint) if four_bit else checkpoint
    decoder = Decoder.from_checkpoint(source)
    ids = prompt_ids(checkpoint.tokenizer(), prompts)
    compiled = compile_prompts(decoder, ids, n_layers)
    names = upper_tensor_names(checkpoint.names(), decoder.sizes, n_layers)
    weights = {name: source.load(name) for name in names}
    if not four_bit:
        for name, weight in weights.items():
            if isinstance(weight, Tensor) and MATRIX.fullmatch(name):
                weights[name] = weight.bfloat16()
    return CompiledBase(decoder.sizes, compiled, weights, checkpoint.source_sha256, ids)
