"""A frozen linear layer whose weight stays in NF4 and is dequantised at each call, for models that would not fit else.

On CUDA devices where Triton works the weight is laid out for the kernel of `matmul_triton.py`, which has the levels of
128 rows and fewer in registers only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from ..errors import CheckpointError
from . import matmul
from .nf4 import NF4Tensor
from .tiling import TiledNF4, can_tile, tile_nf4, untile_nf4

# How the matrices of a model are kept: dequantised once, at load, or in 4 bits, as a `Linear4bit`.
Mode = Literal["resident", "4bit"]


class Linear4bit(nn.Module):
    """`y = x @ W.T + bias`, x: `[..., in_features]`, y: `x.dtype` `[..., out_features]`.

    weight: NF4, shape `[out_features, in_features]`. bias: `[out_features]` or None. dtype: what the weight is
    dequantised to before it is cast to `x.dtype`. Nothing here is trained; gradients flow to x.
    Raises `CheckpointError` for a weight that is not a matrix.

    codes, scales: in the layout of `NF4Tensor`, double quantisation undone, or in that of `TiledNF4`.
    """

    codes: Tensor
    scales: Tensor
    bias: Tensor | None

    def __init__(self, weight: NF4Tensor, bias: Tensor | None = None, *, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        if len(weight.shape) != 2:
            raise CheckpointError(f"got a weight of shape {list(weight.shape)}, expected a matrix [out, in]")
        self.out_features, self.in_features = weight.shape
        self.dtype, self._block = dtype, weight.block
        self.register_buffer("codes", weight.codes.reshape(-1))
        self.register_buffer("scales", weight.scales())
        self.register_buffer("bias", None if bias is None else bias.detach())
        self._lay_out()

    @property
    def weight(self) -> NF4Tensor | TiledNF4:
        """As it is laid out."""
        shape = (self.out_features, self.in_features)
        if self.codes.dim() > 1:
            return TiledNF4(self.codes, self.scales, shape)
        return NF4Tensor(self.codes, self.scales, shape, self._block)

    def forward(self, x: Tensor) -> Tensor:
        """x: `[..., in_features]` of any float type -> `x.dtype` `[..., out_features]`."""
        return matmul.multiply(x, self.weight, self.bias, self.dtype)

    def _lay_out(self) -> None:
        """Bring the weight into the layout that its device multiplies, in place of the other."""
        weight = self.weight
        covered = can_tile(weight.shape, self._block) and matmul.has_triton(self.codes.device)
        if covered and isinstance(weight, NF4Tensor):
            tiled = tile_nf4(weight)
            self.codes, self.scales = tiled.codes, tiled.scales
        elif not covered and isinstance(weight, TiledNF4):
            plain = untile_nf4(weight)
            self.codes, self.scales = plain.codes, plain.absmax

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Linear4bit:
        """Move between devices but keep the scales in fp32: rounding them would change every weight."""
        scales = self.scales
        super()._apply(fn, recurse)
        if self.scales.dtype != scales.dtype:
            self.scales = scales.to(self.scales.device)
        self._lay_out()
        return self

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, dtype={self.dtype}"


def choose_mode(nbytes_resident: int, budget_bytes: int) -> Mode:
    """`resident` if the dequantised weights fit in the budget, else `4bit`. Both sizes in bytes."""
    return "resident" if nbytes_resident <= budget_bytes else "4bit"
