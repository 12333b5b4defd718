"""A frozen linear layer whose weight is stored in NF4, with two ways to compute the same numbers.

*resident*: the weight is dequantised once, at load; for small models and large batches.
*4bit*: the weight is dequantised at each call; for models that would not fit otherwise. On CUDA devices where Triton
works it is laid out for the kernel of `matmul_triton.py`, which has the levels of 128 rows and fewer in registers only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from . import matmul
from .nf4 import NestedScales, NF4Tensor, dequantize_nf4
from .tiling import TiledNF4, can_tile, tile_nf4, untile_nf4

Mode = Literal["resident", "4bit"]
MODES = ("resident", "4bit")
SCALES = ("absmax", "scales", "nested_absmax", "nested_offset", "nested_code")


class Linear4bit(nn.Module):
    """`y = x @ W.T + bias`, x: `[..., in_features]`, y: `x.dtype` `[..., out_features]`.

    weight: NF4, shape `[out_features, in_features]`; kept in 4 bits in both modes, so a pack can be written
    from either.
    bias: `[out_features]` or None. dtype: what the weight is dequantised to before it is cast to `x.dtype`,
    so both modes give equal bits on the CPU. Nothing here is trained; gradients flow to x.
    Raises ValueError for an unknown mode or a weight that is not a matrix.

    codes: in the layout of `NF4Tensor`, or in that of `TiledNF4` with its `scales`; never both. With double
    quantisation the 8-bit scales are kept beside those of fp32, 1 byte for 64 weights, so that `nf4` is the weight as
    it came, bit for bit.
    """

    codes: Tensor
    absmax: Tensor | None
    scales: Tensor | None
    resident: Tensor | None
    bias: Tensor | None

    def __init__(
        self,
        weight: NF4Tensor,
        bias: Tensor | None = None,
        *,
        mode: str = "resident",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        if mode not in MODES:
            raise ValueError(f"mode must be one of {', '.join(MODES)}: got {mode}")
        if len(weight.shape) != 2:
            raise ValueError(f"weight must be a matrix [out, in]: got shape {list(weight.shape)}")
        self.out_features, self.in_features = weight.shape
        self.mode, self.dtype = mode, dtype
        self._block, self._source_dtype = weight.block, weight.dtype
        nested = weight.nested
        self._nested_block = None if nested is None else nested.block
        self.register_buffer("codes", weight.codes)
        self.register_buffer("absmax", weight.absmax)
        self.register_buffer("scales", None)
        self.register_buffer("nested_absmax", None if nested is None else nested.absmax)
        self.register_buffer("nested_offset", None if nested is None else nested.offset)
        self.register_buffer("nested_code", None if nested is None else nested.code)
        self.register_buffer("bias", None if bias is None else bias.detach())
        value = dequantize_nf4(weight, dtype) if mode == "resident" else None
        self.register_buffer("resident", value, persistent=False)
        self._lay_out()

    @property
    def nf4(self) -> NF4Tensor:
        """The 4-bit weight as it was given, bit for bit."""
        codes, absmax = self.codes, self.absmax
        if self.tiled is not None:
            plain = untile_nf4(self.tiled)
            codes, absmax = plain.codes, plain.absmax if absmax is None else absmax
        assert absmax is not None
        nested = None
        if self._nested_block is not None:
            assert isinstance(self.nested_absmax, Tensor)
            assert isinstance(self.nested_offset, Tensor)
            assert isinstance(self.nested_code, Tensor)
            nested = NestedScales(self.nested_absmax, self.nested_offset, self.nested_code, self._nested_block)
        shape = (self.out_features, self.in_features)
        return NF4Tensor(codes, absmax, shape, self._block, self._source_dtype, nested)

    @property
    def tiled(self) -> TiledNF4 | None:
        """The weight as it is laid out for the Triton kernel, or None where it is not."""
        if self.scales is None:
            return None
        return TiledNF4(self.codes, self.scales, (self.out_features, self.in_features))

    def forward(self, x: Tensor) -> Tensor:
        """x: `[..., in_features]` of any float type -> `x.dtype` `[..., out_features]`."""
        if self.resident is None:
            return matmul.multiply(x, self.tiled or self.nf4, self.bias, self.dtype)
        # The bias is added apart, as in the 4-bit mode: a fused addition may round another way.
        out = nn.functional.linear(x, self.resident.to(x.dtype))
        return out if self.bias is None else out + self.bias.to(x.dtype)

    def _lay_out(self) -> None:
        """Brings the weight into the layout that its device multiplies, in place of the other."""
        covered = self.mode == "4bit" and can_tile((self.out_features, self.in_features), self._block)
        wanted = covered and matmul.has_triton(self.codes.device)
        if wanted == (self.scales is not None):
            return
        plain = self.nf4
        if wanted:
            tiled = tile_nf4(plain)
            self.codes, self.scales = tiled.codes, tiled.scales
            self.absmax = None if plain.nested is None else plain.absmax
        else:
            self.codes, self.absmax, self.scales = plain.codes, plain.absmax, None

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Linear4bit:
        """Moves between devices but keeps the scales in fp32: rounding them would change every weight."""
        exact = {name: getattr(self, name) for name in SCALES}
        super()._apply(fn, recurse)
        for name, before in exact.items():
            after = getattr(self, name)
            if before is not None and after.dtype != before.dtype:
                setattr(self, name, before.to(after.device))
        if self.resident is not None:
            self.dtype = self.resident.dtype
        self._lay_out()
        return self

    def extra_repr(self) -> str:
        sizes = f"in_features={self.in_features}, out_features={self.out_features}"
        return f"{sizes}, mode={self.mode}, dtype={self.dtype}"


def choose_mode(nbytes_resident: int, budget_bytes: int) -> Mode:
    """ "resident" if the dequantised weights fit in the budget, else "4bit". Both sizes in bytes."""
    return "resident" if nbytes_resident <= budget_bytes else "4bit"
