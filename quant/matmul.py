"""`y = x @ W.T + bias` with `W` in NF4: the plain-torch reference, and the choice of a faster way where there
is one.

`linear_nf4` is the reference and the CPU path. On CUDA, bitsandbytes' kernels are used when it is installed,
because they do not write the whole weight to memory for a few rows. `force_kernel` makes tests and benchmarks
take one of the two.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ..errors import DeviceError
from .nf4 import NF4_CODE, NF4Tensor, dequantize_nf4

KERNELS = ("torch", "bitsandbytes")
_forced: list[str] = []


def linear_nf4(x: Tensor, q: NF4Tensor, bias: Tensor | None = None, dtype: torch.dtype | None = None) -> Tensor:
    """Reference product. x: `[..., in]`; q: `[out, in]`; bias: `[out]` or None; result: `x.dtype` `[...,
    out]`.

    Semantics: `x @ dequantize_nf4(q, dtype).to(x.dtype).T + bias`; `dtype` is `x.dtype` if not given.
    Gradients flow to x only; the weight is dequantised again in the backward pass rather than kept.
    """
    out: Tensor = _LinearNF4.apply(x, q, dtype or x.dtype)  # type: ignore[no-untyped-call]
    return out if bias is None else out + bias.to(out.dtype)


def multiply(x: Tensor, q: NF4Tensor, bias: Tensor | None = None, dtype: torch.dtype | None = None) -> Tensor:
    """As `linear_nf4`, by the kernel that `choose_kernel` names. Callers need not know which."""
    if choose_kernel(x) == "bitsandbytes":
        return _linear_bitsandbytes(x, q, bias)
    return linear_nf4(x, q, bias, dtype)


def choose_kernel(x: Tensor) -> str:
    """The kernel for an input: one of `KERNELS`. bitsandbytes on CUDA if installed, plain torch elsewhere."""
    if _forced:
        return _forced[-1]
    return "bitsandbytes" if x.is_cuda and _bitsandbytes() is not None else "torch"


@contextlib.contextmanager
def force_kernel(name: str) -> Iterator[None]:
    """Uses one kernel for every product inside the `with` block. Raises DeviceError if it cannot be had."""
    if name not in KERNELS:
        raise DeviceError(f"kernel must be one of {', '.join(KERNELS)}: got {name}")
    if name == "bitsandbytes" and _bitsandbytes() is None:
        raise DeviceError("bitsandbytes is not installed: pip install 'mora-lite[bnb]'")
    _forced.append(name)
    try:
        yield
    finally:
        _forced.pop()


class _LinearNF4(torch.autograd.Function):
    """Keeps the 4-bit codes for the backward pass: the dequantised weights of all layers would not fit."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, q: NF4Tensor, dtype: torch.dtype) -> Tensor:
        ctx.q, ctx.dtype = q, dtype
        return torch.nn.functional.linear(x, dequantize_nf4(q, dtype).to(x.dtype))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        grad = grads[0]
        return grad @ dequantize_nf4(ctx.q, ctx.dtype).to(grad.dtype), None, None


@functools.cache
def _bitsandbytes() -> Any:
    """The package, or None."""
    try:
        import bitsandbytes
    except ImportError:
        return None
    return bitsandbytes


def _linear_bitsandbytes(x: Tensor, q: NF4Tensor, bias: Tensor | None) -> Tensor:
    """The same product by bitsandbytes, which dequantises inside the kernel for few rows."""
    functional = _bitsandbytes().functional
    nested = None
    if q.nested is not None:
        nested = functional.QuantState(
            absmax=q.nested.absmax, blocksize=q.nested.block, code=q.nested.code, dtype=torch.float32
        )
    state = functional.QuantState(
        absmax=q.absmax,
        shape=torch.Size(q.shape),
        code=NF4_CODE.to(q.device),
        blocksize=q.block,
        quant_type="nf4",
        dtype=x.dtype,
        offset=None if q.nested is None else q.nested.offset,
        state2=nested,
    )
    bias = None if bias is None else bias.to(x.dtype)
    result: Tensor = _bitsandbytes().matmul_4bit(x, q.codes.view(-1, 1).t(), quant_state=state, bias=bias)
    return result
