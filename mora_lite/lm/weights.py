"""Frozen weights: where they come from, and the layers made of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import CheckpointError
from ..quant.linear import Linear4bit, Mode
from ..quant.nf4 import NF4Tensor, dequantize_nf4


class TensorSource(Protocol):
    """Where tensors come from: a checkpoint, or a pack's (`InMemoryTensors`). Values are Tensor or NF4Tensor."""

    def names(self) -> Iterable[str]: ...

    def load(self, name: str) -> Any: ...


class CheckpointLike(TensorSource, Protocol):
    """A source that also knows its Hugging Face configuration and its tokenizer."""

    @property
    def config(self) -> Mapping[str, Any]: ...

    def tokenizer(self) -> Any: ...


class InMemoryTensors:
    """Tensors in memory, by their Hugging Face names, as a `TensorSource`."""

    def __init__(self, tensors: Mapping[str, Any]) -> None:
        self.tensors = tensors

    def names(self) -> Iterable[str]:
        return self.tensors.keys()

    def load(self, name: str) -> Any:
        if name not in self.tensors:
            raise CheckpointError(f"tensor missing: {name}; the file holds {len(self.tensors)} tensors")
        return self.tensors[name]


def to_dense(value: Any, dtype: torch.dtype) -> Tensor:
    """A Tensor or NF4Tensor as a plain tensor of `dtype`."""
    return value.detach().to(dtype) if isinstance(value, Tensor) else dequantize_nf4(value, dtype)


class RMSNorm(nn.Module):
    """x / rms(x) * weight over the last dimension, in float32, returned in `dtype`."""

    def __init__(self, weight: Any, eps: float, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = nn.Parameter(to_dense(weight, torch.float32), requires_grad=False)
        self.eps = eps
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), self.weight.shape, self.weight, self.eps).to(self.dtype)


class ConcatLinear(nn.Module):
    """Linear layers of the same input, outputs one after the other, where 4-bit blocks forbid one matrix."""

    def __init__(self, parts: Sequence[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([part(x) for part in self.parts], dim=-1)


def load_packed(weights: Sequence[Any], biases: Sequence[Tensor | None], dtype: torch.dtype) -> nn.Module:
    """The 4-bit matrices as one, or beside each other where a block would cross from one into the next."""
    block = weights[0].block
    aligned = all(w.block == block and w.numel % block == 0 for w in weights)
    if aligned and len({bias is None for bias in biases}) == 1:
        rows = sum(w.shape[0] for w in weights)
        weight = NF4Tensor(
            torch.cat([w.codes.flatten() for w in weights]),
            torch.cat([w.scales() for w in weights]),
            (rows, weights[0].shape[1]),
            block,
        )
        present = [bias for bias in biases if bias is not None]
        return Linear4bit(weight, torch.cat(present) if present else None, dtype=dtype)
    parts = [Linear4bit(w, b, dtype=dtype) for w, b in zip(weights, biases, strict=True)]
    return parts[0] if len(parts) == 1 else ConcatLinear(parts)


def load_linear(source: TensorSource, names: Sequence[str], dtype: torch.dtype, mode: Mode) -> nn.Module:
    """A frozen linear layer whose output joins those of the layers `names` (one name: just that layer)."""
    available = set(source.names())
    weights = [source.load(f"{name}.weight") for name in names]
    biases = [to_dense(source.load(f"{n}.bias"), dtype) if f"{n}.bias" in available else None for n in names]
    if mode == "4bit" and not any(isinstance(weight, Tensor) for weight in weights):
        return load_packed(weights, biases, dtype)
    matrices = [to_dense(weight, dtype) for weight in weights]
    weight = torch.cat(matrices) if len(matrices) > 1 else matrices[0]
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=any(b is not None for b in biases), device="meta")
    linear.weight = nn.Parameter(weight, requires_grad=False)
    if linear.bias is not None:
        filled = [m.new_zeros(m.shape[0]) if b is None else b for m, b in zip(matrices, biases, strict=True)]
        linear.bias = nn.Parameter(torch.cat(filled), requires_grad=False)
    return linear
