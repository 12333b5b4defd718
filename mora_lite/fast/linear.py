"""Matrix products with frozen weights, and sums over rows that lie one after the other.

On a CPU in bfloat16 the weight is brought into the order that the processor's matrix instructions read, once, and the
activation is applied while the result is still in registers: oneDNN through the operators that torch's own compiler
emits. Where torch lacks them, in other types and on other devices, the plain operators do the same.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_PLAIN = {"none": lambda y: y, "relu": torch.relu_, "gelu": F.gelu, "swish": F.silu}


class PackedLinear:
    """`y = act(x @ weight.T + bias)` for x `[..., in]` of `dtype`; act: none, relu, gelu or swish."""

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype, act: str = "none"):
        self.act, self.width = act, weight.shape[0]
        self.weight = weight.detach().to(dtype).contiguous()
        self.bias = None if bias is None else bias.detach().to(dtype)
        self.packed = self.weight.device.type == "cpu" and dtype == torch.bfloat16 and has_packed_products()
        if self.packed:
            self.weight = torch.ops.mkldnn._reorder_linear_weight(self.weight, None)

    @classmethod
    def of(cls, layer: nn.Module, dtype: torch.dtype, act: str = "none") -> PackedLinear:
        """The layer, which is an `nn.Linear`, and `act` after it."""
        assert isinstance(layer, nn.Linear)
        return cls(layer.weight, layer.bias, dtype, act)

    def __call__(self, x: Tensor) -> Tensor:
        if not self.packed:
            return _PLAIN[self.act](F.linear(x, self.weight, self.bias))
        rows = x.reshape(-1, x.shape[-1])
        algorithm = "none" if self.act == "gelu" else ""
        y = torch.ops.mkldnn._linear_pointwise(rows, self.weight, self.bias, self.act, [], algorithm)
        return y.view(*x.shape[:-1], self.width)


@functools.cache
def has_packed_products() -> bool:
    """Whether this torch has oneDNN's fused products and they give what the plain ones do."""
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(n, 64, generator=generator).bfloat16() for n in (32, 96))
    bias = torch.randn(96, generator=generator).bfloat16()
    plain = F.linear(x, weight, bias)
    try:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, None)
        for act, algorithm in (("none", ""), ("relu", ""), ("gelu", "none"), ("swish", "")):
            y = torch.ops.mkldnn._linear_pointwise(x, packed, bias, act, [], algorithm)
            if not torch.allclose(y.float(), _PLAIN[act](plain.clone()).float(), rtol=0.05, atol=0.1):
                return False
    except (AttributeError, RuntimeError):
        return False
    return True


def relu_(x: Tensor) -> Tensor:
    """In place. A bfloat16 is below zero where the int16 of the same bits is, and integers compare faster."""
    if x.dtype == torch.bfloat16:
        x.view(torch.int16).clamp_min_(0)
        return x
    return x.relu_()


def segment_sum(rows: Tensor, ptr: Tensor) -> Tensor:
    """Sums over runs of rows: x.dtype `[S, width]` of `[N, width]`; ptr: int `[S+1]`, from 0, where each run starts.

    Rows after `ptr[-1]` take no part. Added in float32 for either type, in the rows' order.
    Semantics: out[s] = rows[ptr[s] : ptr[s + 1]].sum(0)
    """
    if rows.device.type == "cpu":
        return F.embedding_bag(arange_like(len(rows), ptr), rows, ptr, mode="sum", include_last_offset=True)
    # On other devices the last run extends to the last row, whatever the last offset says; one more takes the rest.
    starts = torch.cat([ptr, ptr.new_full((1,), len(rows))])
    return F.embedding_bag(arange_like(len(rows), ptr), rows, starts, mode="sum", include_last_offset=True)[:-1]


_arange_like = torch.arange(0)


def arange_like(n: int, like: Tensor) -> Tensor:
    """0 .. n-1 of the type and on the device of `like`; on a CPU, for int64, a view of one array that is kept."""
    global _arange_like  # noqa: PLW0603
    if like.device.type != "cpu" or like.dtype != torch.int64:
        return torch.arange(n, dtype=like.dtype, device=like.device)
    numbers = _arange_like  # another thread may put a shorter one in its place
    if len(numbers) < n:
        _arange_like = numbers = torch.arange(2 * n)
    return numbers[:n]
