"""The functions of `layer_ops`, documented there, as Triton kernels, forward and backward, for training.

Each reads its inputs once and writes its result once; sums are in float32 and rounded once at the end. The weights are
frozen, so only inputs have gradients. No atomic additions: the same bits in every run.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import layer_ops
from .layer_ops import LayerOps, Terms
from .weights import RMSNorm

BLOCK = 1024  # numbers that a program of `gate` takes
VOCABULARY_BLOCK = 4096  # that a program of `cross_entropy` takes at a time


@triton.jit
def _add_norm(
    x: tl.tensor, first: tl.tensor, second: tl.tensor, weight: tl.tensor, total: tl.tensor, out: tl.tensor,
    inverse: tl.tensor, width: tl.tensor, eps: tl.tensor, added: tl.constexpr, block: tl.constexpr,
) -> None:  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, block)
    within = column < width
    at = row * width + column
    value = tl.load(x + at, mask=within, other=0.0)
    if added > 0:
        value += tl.load(first + at, mask=within, other=0.0).to(tl.float32)
    if added > 1:
        value += tl.load(second + at, mask=within, other=0.0).to(tl.float32)
    if added > 0:
        tl.store(total + at, value, mask=within)
    scale = 1.0 / tl.sqrt(tl.sum(value * value, 0) / width + eps)
    tl.store(inverse + row, scale)
    tl.store(out + at, value * scale * tl.load(weight + column, mask=within, other=0.0), mask=within)


@triton.jit
def _add_norm_backward(
    total: tl.tensor, weight: tl.tensor, inverse: tl.tensor, of_total: tl.tensor, grad: tl.tensor, out: tl.tensor,
    short: tl.tensor, width: tl.tensor, shorten: tl.constexpr, block: tl.constexpr,
) -> None:  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, block)
    within = column < width
    at = row * width + column
    scale = tl.load(inverse + row)
    value = tl.load(total + at, mask=within, other=0.0) * scale
    weighted = tl.load(grad + at, mask=within, other=0.0).to(tl.float32)
    weighted *= tl.load(weight + column, mask=within, other=0.0)
    shared = tl.sum(weighted * value, 0) / width
    result = tl.load(of_total + at, mask=within, other=0.0) + scale * (weighted - value * shared)
    tl.store(out + at, result, mask=within)
    if shorten:
        tl.store(short + at, result, mask=within)


@triton.jit
def _rotate(
    x: tl.tensor, cos: tl.tensor, sin: tl.tensor, out: tl.tensor, tokens: tl.tensor, heads: tl.tensor,
    by_row: tl.tensor, by_token: tl.tensor, by_head: tl.tensor, half: tl.tensor, sign: tl.tensor, block_h: tl.constexpr,
    block: tl.constexpr,
) -> None:  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    head = tl.arange(0, block_h)[:, None]
    column = tl.arange(0, block)[None, :]
    within = (head < heads) & (column < half)
    at = x + (token // tokens) * by_row + (token % tokens) * by_token + head * by_head + column
    first = tl.load(at, mask=within, other=0.0).to(tl.float32)
    second = tl.load(at + half, mask=within, other=0.0).to(tl.float32)
    c = tl.load(cos + token * half + column, mask=column < half, other=0.0)
    s = tl.load(sin + token * half + column, mask=column < half, other=0.0) * sign
    to = out + (token * heads + head) * 2 * half + column
    tl.store(to, first * c - second * s, mask=within)
    tl.store(to + half, second * c + first * s, mask=within)


@triton.jit
def _gate(gate_up: tl.tensor, out: tl.tensor, width: tl.tensor, total: tl.tensor, block: tl.constexpr) -> None:
    at = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    within = at < total
    index = at // width * 2 * width + at % width
    g = tl.load(gate_up + index, mask=within, other=0.0).to(tl.float32)
    u = tl.load(gate_up + index + width, mask=within, other=0.0).to(tl.float32)
    tl.store(out + at, g * tl.sigmoid(g) * u, mask=within)


@triton.jit
def _gate_backward(
    gate_up: tl.tensor, grad: tl.tensor, out: tl.tensor, width: tl.tensor, total: tl.tensor, block: tl.constexpr,
) -> None:  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    within = at < total
    index = at // width * 2 * width + at % width
    g = tl.load(gate_up + index, mask=within, other=0.0).to(tl.float32)
    u = tl.load(gate_up + index + width, mask=within, other=0.0).to(tl.float32)
    d = tl.load(grad + at, mask=within, other=0.0).to(tl.float32)
    s = tl.sigmoid(g)
    tl.store(out + index, d * u * s * (1.0 + g * (1.0 - s)), mask=within)
    tl.store(out + index + width, d * g * s, mask=within)


@triton.jit
def _cross_entropy(
    logits: tl.tensor, labels: tl.tensor, counted: tl.tensor, loss: tl.tensor, width: tl.constexpr, block: tl.constexpr,
) -> None:  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    start, label = logits + row * width, tl.load(labels + row)
    known = label >= 0
    column = tl.arange(0, block)
    largest = -float("inf")
    total = 0.0
    of_label = 0.0  # taken here: below, another warp may have written over it
    for at in range(0, width, block):
        value = tl.load(start + at + column, mask=at + column < width, other=-float("inf")).to(tl.float32)
        larger = tl.maximum(largest, tl.max(value, 0))
        total = total * tl.exp(largest - larger) + tl.sum(tl.exp(value - larger), 0)
        largest = larger
        of_label += tl.sum(tl.where(at + column == label, value, 0.0), 0)
    level = largest + tl.log(total)
    tl.store(loss + row, tl.where(known, level - of_label, 0.0))
    share = tl.where(known, 1.0 / tl.load(counted), 0.0)
    for at in range(0, width, block):
        within = at + column < width
        value = tl.load(start + at + column, mask=within, other=-float("inf")).to(tl.float32)
        grad = (tl.exp(value - level) - tl.where(at + column == label, 1.0, 0.0)) * share
        tl.store(start + at + column, grad, mask=within)


class _AddNorm(torch.autograd.Function):
    """Terms in, their sum and its norm out; all terms after the first have one type, and there are at most two."""

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, eps: float, dtype: torch.dtype, x: Tensor, *added: Tensor
    ) -> tuple[Tensor, Tensor]:
        x, *rest = (term.contiguous() for term in (x, *added))
        width, rows = x.shape[-1], x.numel() // x.shape[-1]
        total = torch.empty_like(x) if added else x
        out, inverse = torch.empty_like(x, dtype=dtype), x.new_empty(rows)
        first, second = (*rest, x, x)[:2]
        sizes = width, eps, len(added), triton.next_power_of_2(width)
        _add_norm[rows,](x, first, second, weight, total, out, inverse, *sizes, num_warps=4)
        ctx.save_for_backward(total, weight, inverse)
        ctx.types = [term.dtype for term in added]
        return total, out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        total, weight, inverse = ctx.saved_tensors
        of_total, grad = (g.contiguous() for g in grads)
        width, out = total.shape[-1], torch.empty_like(total)
        shorten = bool(ctx.types) and ctx.types[0] != out.dtype
        short = torch.empty_like(out, dtype=ctx.types[0]) if shorten else out
        sizes = width, shorten, triton.next_power_of_2(width)
        _add_norm_backward[inverse.numel(),](total, weight, inverse, of_total, grad, out, short, *sizes, num_warps=4)
        return None, None, None, out, *(short for _ in ctx.types)


class _Rotate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _rotate_by(x, cos, sin, 1.0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _rotate_by(grads[0], cos, sin, -1.0), None, None


def _rotate_by(x: Tensor, cos: Tensor, sin: Tensor, sign: float) -> Tensor:
    """x: `[B, T, heads, head_dim]` in any layout with adjacent numbers of a head; the result is contiguous."""
    if x.stride(-1) != 1:
        x = x.contiguous()
    rows, tokens, heads, width = x.shape
    out = x.new_empty(x.shape)
    sizes = (tokens, heads, x.stride(0), x.stride(1), x.stride(2), width // 2)
    blocks = (triton.next_power_of_2(heads), triton.next_power_of_2(width // 2))
    _rotate[rows * tokens,](x, cos.contiguous(), sin.contiguous(), out, *sizes, sign, *blocks, num_warps=2)
    return out


class _Gate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate_up: Tensor) -> Tensor:
        gate_up = gate_up.contiguous()
        ctx.save_for_backward(gate_up)
        width = gate_up.shape[-1] // 2
        out = gate_up.new_empty(*gate_up.shape[:-1], width)
        _gate[triton.cdiv(out.numel(), BLOCK),](gate_up, out, width, out.numel(), BLOCK)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (gate_up,) = ctx.saved_tensors
        grad, out = grads[0].contiguous(), torch.empty_like(gate_up)
        width = gate_up.shape[-1] // 2
        _gate_backward[triton.cdiv(grad.numel(), BLOCK),](gate_up, grad, out, width, grad.numel(), BLOCK)
        return out


class _CrossEntropy(torch.autograd.Function):
    """The loss and its gradient at once: the logits become their own gradient, so they are kept once, in 16 bits."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
        logits = hidden @ weight.T
        counted = (labels >= 0).sum().float()
        loss = torch.empty(len(labels), device=labels.device)
        _cross_entropy[len(labels),](logits, labels, counted, loss, logits.shape[1], VOCABULARY_BLOCK, num_warps=8)
        ctx.save_for_backward(logits @ weight)
        return loss.sum() / counted

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (of_hidden,) = ctx.saved_tensors
        return of_hidden * grads[0].to(of_hidden.dtype), None, None


def add_norm(terms: Terms, layer: RMSNorm) -> tuple[Tensor, Tensor]:
    """At most three terms."""
    return _AddNorm.apply(layer.weight, layer.eps, layer.dtype, *terms)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """cos and sin have x's rows and tokens."""
    return _Rotate.apply(x, cos, sin)


def gate(gate_up: Tensor) -> Tensor:
    return _Gate.apply(gate_up)


def cross_entropy(hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    return _CrossEntropy.apply(hidden, weight, labels)


# torch's own attention is one kernel already.
OPS = LayerOps(add_norm, rotate, gate, layer_ops.attention, cross_entropy)


def check(device: torch.device) -> None:
    """Raise an error when Triton cannot make kernels for `device`, or makes wrong ones."""
    layer_ops.compare(OPS, device)
