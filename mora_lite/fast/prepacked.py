"""Frozen matrices of a decoder in the order in which oneDNN multiplies them, for answers on a CPU.

Of a plain matrix in bfloat16 oneDNN makes such a copy at every product, which takes as long as the product itself where
that has few rows, as the steps of an answer have.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..lm.decoder import Decoder
from .linear import PackedLinear, has_packed_products

LAYERS = ("qkv", "out", "gate_up", "down")  # of a decoder layer


class PrepackedLinear(nn.Module):
    """A `PackedLinear` in the place of a linear layer of the decoder, without gradients."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None):
        super().__init__()
        self.product = PackedLinear(weight, bias, torch.bfloat16)

    def forward(self, x: Tensor) -> Tensor:
        return self.product(x)


def prepack(decoder: Decoder) -> None:
    """Prepack the dense matrices of a decoder in bfloat16 on a CPU, its head too; elsewhere nothing is done.

    It can no longer be trained, moved or saved.
    """
    if decoder.embedding.device.type != "cpu" or decoder.dtype != torch.bfloat16 or not has_packed_products():
        return
    for layer in decoder.layers:
        for name in LAYERS:
            linear = getattr(layer, name)
            if isinstance(linear, nn.Linear):  # what stays in 4 bits is dequantised at each use
                setattr(layer, name, PrepackedLinear(linear.weight, linear.bias))
    head = decoder.untied_head
    if head is None or isinstance(head, nn.Linear):
        weight, bias = (decoder.embedding, None) if head is None else (head.weight, head.bias)
        decoder.untied_head = PrepackedLinear(weight, bias)
