"""A frozen linear layer whose weight is stored in NF4, with two ways to compute the same numbers.

*resident*: the weight is dequantised once, at load; for small models and large batches.
*4bit*: the weight is dequantised at each call; for models that would not fit otherwise.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from .matmul import multiply
from .nf4 import NestedScales, NF4Tensor, dequantize_nf4

Mode = Literal["resident", "4bit"]
MODES = ("resident", "4bit")


class Linear4bit(nn.Module):
    """`y = x @ W.T + bias`, x: `[..., in_features]`, y: `x.dtype` `[..., out_features]`.

    weight: NF4, shape `[out_features, in_features]`; kept in 4 bits in both modes, so a pack can be written
    from either.
    bias: `[out_features]` or None. dtype: what the weight is dequantised to before it is cast to `x.dtype`,
    so both modes give equal bits on the CPU. Nothing here is trained; gradients flow to x.
    Raises ValueError for an unknown mode or a weight that is not a matrix.
    """

    codes: Tensor
    absmax: Tensor
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
        self.register_buffer("nested_absmax", None if nested is None else nested.absmax)
        self.register_buffer("nested_offset", None if nested is None else nested.offset)
        self.register_buffer("nested_code", None if nested is None else nested.code)
        self.register_buffer("bias", None if bias is None else bias.detach())
        value = dequantize_nf4(weight, dtype) if mode == "resident" else None
        self.register_buffer("resident", value, persistent=False)

    @property
    def nf4(self) -> NF4Tensor:
        """The 4-bit weight."""
        nested = None
        if self._nested_block is not None:
            assert isinstance(self.nested_absmax, Tensor)
            assert isinstance(self.nested_offset, Tensor)
            assert isinstance(self.nested_code, Tensor)
            nested = NestedScales(self.nested_absmax, self.nested_offset, self.nested_code, self._nested_block)
        shape = (self.out_features, self.in_features)
        return NF4Tensor(self.codes, self.absmax, shape, self._block, self._source_dtype, nested)

    def forward(self, x: Tensor) -> Tensor:
        """x: `[..., in_features]` of any float type -> `x.dtype` `[..., out_features]`."""
        if self.resident is None:
            return multiply(x, self.nf4, self.bias, self.dtype)
        # The bias is added apart, as in the 4-bit mode: a fused addition may round another way.
        out = nn.functional.linear(x, self.resident.to(x.dtype))
        return out if self.bias is None else out + self.bias.to(x.dtype)

    def _apply(self, fn, recurse: bool = True):  # type: ignore[no-untyped-def]
        """Moves between devices but keeps the scales in fp32: rounding them would change every weight."""
        exact = {name: getattr(self, name) for name in ("absmax", "nested_absmax", "nested_offset", "nested_code")}
        super()._apply(fn, recurse)
        for name, before in exact.items():
            after = getattr(self, name)
            if before is not None and after.dtype != before.dtype:
                setattr(self, name, before.to(after.device))
        if self.resident is not None:
            self.dtype = self.resident.dtype
        return self

    def extra_repr(self) -> str:
        sizes = f"in_features={self.in_features}, out_features={self.out_features}"
        return f"{sizes}, mode={self.mode}, dtype={self.dtype}"


def choose_mode(nbytes_resident: int, budget_bytes: int) -> Mode:
    """ "resident" if the dequantised weights fit in the budget, else "4bit". Both sizes in bytes."""
    return "resident" if nbytes_resident <= budget_bytes else "4bit"
