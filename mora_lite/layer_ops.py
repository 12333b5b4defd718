"""The parts of a decoder layer that only move bytes, in plain torch: norm, rotation, gate.

`fused_layer_ops` has the same functions, each as one kernel in each direction; `choose_layer_ops` says which to use.
Training is bound by them, not by the matrix products.
"""

from __future__ import annotations

import sys
from types import ModuleType

import torch
from torch import Tensor
from torch.nn import functional as F

from . import rope
from .device import with_kernels
from .weights import RMSNorm

rotate = rope.rotate


def norm(x: Tensor, layer: RMSNorm) -> Tensor:
    """`layer(x)`: float32 `[..., D]` -> `[..., D]` in the layer's type."""
    return layer(x)


def gate(gate_up: Tensor) -> Tensor:
    """`silu(gate) * up` of the two halves of `[..., 2 F]`: `[..., F]`."""
    first, second = gate_up.chunk(2, dim=-1)
    return F.silu(first) * second


def choose_layer_ops(device: torch.device) -> ModuleType:
    """`fused_layer_ops` on CUDA devices where Triton works, else this module."""
    return with_kernels(sys.modules[__name__], "fused_layer_ops", device)
