"""`y = x @ W.T + bias` with `W` in NF4: the plain-torch reference, and the choice of a faster kernel.

`linear_nf4` is the reference and the CPU path. On CUDA, weights that `Linear4bit` laid out for the Triton kernel are
multiplied by it; others by bitsandbytes' kernels when it is installed, because they do not write the whole weight to
memory for a few rows.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .nf4 import NF4_CODE, NF4Tensor, dequantize_nf4
from .tiling import TiledNF4, untile_nf4


def linear_nf4(
    x: Tensor, q: NF4Tensor | TiledNF4, bias: Tensor | None = None, dtype: torch.dtype | None = None
) -> Tensor:
    """Reference product. x: `[..., in]`; q: `[out, in]`; bias: `[out]` or None; result: `x.dtype` `[..., out]`.

    Semantics: `x @ dequantize_nf4(q, dtype).to(x.dtype).T + bias`; `dtype` is `x.dtype` if not given.
    Gradients flow to x only; the weight is dequantised again in the backward pass rather than kept.
    """
    out: Tensor = _LinearNF4.apply(x, q, dtype or x.dtype)
    return out if bias is None else out + bias.to(out.dtype)


def multiply(
    x: Tensor, q: NF4Tensor | TiledNF4, bias: Tensor | None = None, dtype: torch.dtype | None = None
) -> Tensor:
    """As `linear_nf4`, by the kernel that `choose_kernel` names. Callers need not know which."""
    return KERNELS[choose_kernel(x, q)](x, q, bias, dtype)


def multiply_with_branch(x: Tensor, q: TiledNF4, seen: Tensor, a: Tensor, c: Tensor, scale: float) -> Tensor:
    """`multiply(x, q)` of the Triton kernel with the low-rank branch of each row, of another input, added in fp32.

    x: bfloat16 or float16 `[B, in]`. seen: the same `[B, D]`. a: `[B, D, R]`, any float type; one layer's part of a
    larger tensor is read where it is. c: `[R, out]`. Returns `x.dtype` `[B, out]`.
    Semantics: `y[b] = x[b] @ q.T + scale * (seen[b] @ a[b]) @ c`
    """
    from .matmul_triton import multiply_tiled, project_rows

    return multiply_tiled(x, q, r=project_rows(seen, a, scale), c=c)


def choose_kernel(x: Tensor, q: NF4Tensor | TiledNF4) -> str:
    """The kernel for an input and a weight, one of `KERNELS`.

    Triton for weights that are laid out for it, but where a gradient is asked for or x is float32; for others
    bitsandbytes on CUDA if installed; else plain torch.
    """
    if isinstance(q, TiledNF4):
        learning = x.requires_grad and torch.is_grad_enabled()
        return "triton" if x.dtype in (torch.bfloat16, torch.float16) and not learning else "torch"
    return "bitsandbytes" if x.is_cuda and _bitsandbytes() is not None else "torch"


@functools.cache
def has_triton(device: torch.device) -> bool:
    """Whether the Triton kernel works on a device: CUDA with compute capability 8.0 or later, and Triton with what it
    needs. The first call for a device compiles a small product and compares it, some seconds.
    """
    if device.type != "cuda" or torch.version.cuda is None or torch.cuda.get_device_capability(device) < (8, 0):
        return False
    try:
        from .matmul_triton import check

        check(device)
    except Exception as error:  # Triton is not there for every system, and needs a C compiler where it is
        logging.getLogger("mora_lite").info("the kernel for 4-bit products is not used: %s", error)
        return False
    return True


class _LinearNF4(torch.autograd.Function):
    """Keeps the 4-bit codes for the backward pass: the dequantised weights of all layers would not fit."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, q: NF4Tensor | TiledNF4, dtype: torch.dtype) -> Tensor:
        ctx.q, ctx.dtype = q, dtype
        return torch.nn.functional.linear(x, _dequantize(q, dtype).to(x.dtype))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        grad = grads[0]
        return grad @ _dequantize(ctx.q, ctx.dtype).to(grad.dtype), None, None


def _dequantize(q: NF4Tensor | TiledNF4, dtype: torch.dtype) -> Tensor:
    if isinstance(q, NF4Tensor):
        return dequantize_nf4(q, dtype)
    if not q.codes.is_cuda:
        return dequantize_nf4(untile_nf4(q), dtype)
    from .matmul_triton import dequantize_tiled

    return dequantize_tiled(q, dtype)


@functools.cache
def _bitsandbytes() -> Any:
    """The package, or None."""
    try:
        import bitsandbytes
    except ImportError:
        return None
    return bitsandbytes


def _multiply_triton(x: Tensor, q: NF4Tensor | TiledNF4, bias: Tensor | None, dtype: torch.dtype | None) -> Tensor:
    del dtype
    assert isinstance(q, TiledNF4)
    from .matmul_triton import multiply_tiled

    return multiply_tiled(x.reshape(-1, x.shape[-1]), q, bias).view(*x.shape[:-1], q.shape[0])


def _multiply_bitsandbytes(
    x: Tensor, q: NF4Tensor | TiledNF4, bias: Tensor | None, dtype: torch.dtype | None
) -> Tensor:
    """The same product by bitsandbytes, which dequantises to x's dtype inside the kernel for few rows."""
    del dtype
    assert isinstance(q, NF4Tensor)
    state = _bitsandbytes().functional.QuantState(
        absmax=q.scales(),
        shape=torch.Size(q.shape),
        code=NF4_CODE.to(q.device),
        blocksize=q.block,
        quant_type="nf4",
        dtype=x.dtype,
    )
    bias = None if bias is None else bias.to(x.dtype)
    result: Tensor = _bitsandbytes().matmul_4bit(x, q.codes.view(-1, 1).t(), quant_state=state, bias=bias)
    return result


# All take (x, q, bias, dtype), as `linear_nf4` does. Triton is imported when it is used: not every system has it.
KERNELS: dict[str, Callable[..., Tensor]] = {
    "torch": linear_nf4,
    "bitsandbytes": _multiply_bitsandbytes,
    "triton": _multiply_triton,
}
