"""NF4 weights laid out for the Triton kernel, and back. Plain torch, without Triton."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError
from .nf4 import BLOCK, NF4Tensor

ROW_TILE = 128  # rows of a weight are padded to a multiple of this


@dataclass(frozen=True)
class TiledNF4:
    """An NF4 weight laid out for the kernel: the same bytes in another order, and its scales in fp32.

    codes: uint8 `[K / 64, padded N, 8, 4]`; `codes[b, n, p, i]` holds the codes of columns `64 b + 16 i + 2 p`, high
    nibble, and the next one, low nibble. Padding rows have scale 0.
    scales: float32 `[K / 64, padded N]`, double quantisation undone.
    shape: `(N, K)`, the weight's own.
    """

    codes: Tensor
    scales: Tensor
    shape: tuple[int, int]

    @property
    def nbytes(self) -> int:
        """Bytes of codes and scales together: what one product has to read."""
        return self.codes.numel() + 4 * self.scales.numel()


def can_tile(shape: tuple[int, ...], block: int) -> bool:
    """Whether the kernel covers a weight: a matrix in blocks of 64 with a multiple of 64 columns."""
    return len(shape) == 2 and block == BLOCK and shape[1] % BLOCK == 0


def tile_nf4(q: NF4Tensor) -> TiledNF4:
    """Lay a matrix `[N, K]` out for the kernel; done once, at load. Takes as much memory again while it runs.

    Raises `InputError` if the weight is no matrix, its block is not 64 or K is not a multiple of 64.
    """
    if not can_tile(q.shape, q.block):
        raise InputError(
            f"got a weight of shape {list(q.shape)} in blocks of {q.block}, expected a matrix with a multiple of "
            f"{BLOCK} columns in blocks of {BLOCK}; use linear_nf4"
        )
    rows, columns = q.shape
    blocks, padded = columns // BLOCK, -(-rows // ROW_TILE) * ROW_TILE
    codes = q.codes.new_zeros(blocks, padded, 8, 4)
    codes[:, :rows] = q.codes.view(rows, blocks, 4, 8).permute(1, 0, 3, 2)
    scales = torch.zeros(blocks, padded, dtype=torch.float32, device=q.device)
    scales[:, :rows] = q.scales().view(rows, blocks).t()
    return TiledNF4(codes, scales, (rows, columns))


def untile_nf4(w: TiledNF4) -> NF4Tensor:
    """The weight in the layout of bitsandbytes again, bit for bit, but for double quantisation."""
    rows = w.shape[0]
    codes = w.codes[:, :rows].permute(1, 0, 3, 2).reshape(-1)
    return NF4Tensor(codes, w.scales[:, :rows].t().reshape(-1), w.shape)
