"""`y = x @ W.T` with `W` in NF4 as one Triton kernel for few rows, with a low-rank branch of each row added.

Three things make it fast. The bytes of a weight are laid out anew once, so that the codes of one tile lie together and
every register that is loaded holds whole pairs of the tensor cores' operand. A register of 8 codes becomes 8 levels
with 21 integer instructions: `prmt` looks four codes up at once in a table of 8 bytes. And the scales are not applied
to the weights but to the 64 products that share one, after the tensor cores have summed them in fp32.

So levels are rounded to x's dtype and scales are not, where the reference rounds `level * scale`: both stand for the
same 4-bit weight, and differ by rounding.

The plain reference is `matmul.linear_nf4`. What is not covered: blocks other than 64, gradients, float32 inputs.
Works on CUDA (compute capability 8.0 and later) and, with TRITON_INTERPRET=1 set before Python starts, on any CPU.
"""

from __future__ import annotations

import functools

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..errors import InputError
from .nf4 import BLOCK, NF4_CODE, dequantize_nf4, quantize_nf4
from .ptx import prmt_assembly
from .tiling import TiledNF4, tile_nf4
from .tuning import MAX_ROWS, Config, choose_config

INTERPRETED: bool = triton.knobs.runtime.interpret
_counters: dict[tuple[str, int], list[Tensor]] = {}


def multiply_tiled(
    x: Tensor,
    w: TiledNF4,
    bias: Tensor | None = None,
    r: Tensor | None = None,
    c: Tensor | None = None,
    config: Config | None = None,
) -> Tensor:
    """The product with a 4-bit weight. x: bfloat16 or float16 `[M, K]` -> x.dtype `[M, N]`.

    bias: `[N]` or None. r: `[M, R]` and c: `[R, N]`, both or none: the low-rank branch, see `project_rows`; both are
    rounded to x.dtype. config: of the kernel; chosen by size if not given.
    Semantics: `x @ w.T + r @ c + bias`, summed in fp32 and rounded once.
    Above 128 rows the weight is dequantised and torch multiplies. Results are the same in every run.
    Raises `InputError` for another dtype or sizes that do not fit.
    """
    (m, k), (n, columns) = x.shape, w.shape
    if x.dtype not in (torch.bfloat16, torch.float16) or k != columns:
        raise InputError(f"x: got {x.dtype} {list(x.shape)}, expected bfloat16 or float16 [M, {columns}]")
    if (r is None) != (c is None) or (r is not None and c is not None and (r.shape[0] != m or c.shape[1] != n)):
        raise InputError(f"branch: got r {_size(r)} and c {_size(c)}, expected r [{m}, R] and c [R, {n}] together")
    if m > MAX_ROWS:
        plain = torch.nn.functional.linear(x, dequantize_tiled(w, x.dtype))
        if r is None and bias is None:
            return plain
        out = plain.float()
        if r is not None and c is not None:
            out += (r.to(x.dtype) @ c.to(x.dtype)).float()
        return (out if bias is None else out + bias).to(x.dtype)
    y = x.new_empty(m, n)
    if m == 0:
        return y
    x = x if x.stride(1) == 1 and x.stride(0) % 8 == 0 and x.data_ptr() % 16 == 0 else x.contiguous()
    config = config or choose_config(m, n, k, _processors(x.device))
    padded = w.scales.shape[1]
    grid = (padded // config.block_n, -(-m // config.block_m), config.split)
    tiles = grid[0] * grid[1]
    partial, counters = y, y
    if config.split > 1:
        partial = torch.empty(tiles * config.split * config.block_n * config.block_m, device=x.device)
        counters = _zero_counters(x.device, tiles)
    rank = 0 if c is None else c.shape[0]
    _gemm[grid](
        x, w.codes, w.scales, y, partial, counters,
        y if bias is None else bias, y if r is None else r.contiguous(), y if c is None else c.contiguous(),
        _levels(x.dtype, str(x.device)),
        m, n, padded, k // BLOCK, x.stride(0), rank, config.split,
        BLOCK_N=config.block_n, BLOCK_M=config.block_m, WHOLE=config.split == 1, BLOCKS=config.blocks,
        STAGES=config.stages, JOINED=config.joined, RANK=0 if rank == 0 else max(16, triton.next_power_of_2(rank)),
        HAS_BIAS=bias is not None, ASM=prmt_assembly(x.dtype) if _has_prmt(x) else None,
        num_warps=config.warps, num_stages=config.stages,
    )  # fmt: skip
    return y


def project_rows(x: Tensor, a: Tensor, scale: float = 1.0, rows: Tensor | None = None) -> Tensor:
    """The first half of the branch: each row times its molecule's own factor. float32 `[M, R]`.

    x: bfloat16 or float16 `[M, K]`. a: any float type `[B, K, R]`, one layer's part of `[B, L, K, R]` too, without a
    copy. rows: int32 or int64 `[M]`, the molecule of each row; if not given, row m has molecule m. Rows out of range
    are not checked, as that would wait for the device.
    Semantics: `r[m] = scale * x[m] @ a[rows[m]]`, in fp32.
    """
    (m, k), (molecules, columns, rank) = x.shape, a.shape
    if k != columns or (m != molecules if rows is None else rows.shape != (m,)):
        raise InputError(
            f"a: got {_size(a)} and rows {_size(rows)}, expected [B, {k}, R] with rows [{m}], or [{m}, {k}, R] without"
        )
    r = torch.empty(m, rank, dtype=torch.float32, device=x.device)
    if m == 0:
        return r
    x = x if x.stride(1) == 1 else x.contiguous()
    a = a if a.stride(2) == 1 and a.stride(1) == rank else a.contiguous()
    padded = triton.next_power_of_2(rank)
    # A program loads its whole part of A at once, 16 kB or more, so that many loads are under way without a loop that
    # waits for each. For many rows the parts are larger: the device is full, and fewer sums have to be added up.
    chunk = max(1, min(8192 // padded, 512))
    chunks = -(-k // chunk)
    split = min(chunks, 64) if m * chunks <= 16 * _processors(x.device) else min(chunks, 16)
    partial = r if split == 1 else torch.empty(m, split, padded, dtype=torch.float32, device=x.device)
    _project[(m, split)](
        x, a, x if rows is None else rows, r, partial, _zero_counters(x.device, m), k, x.stride(0), a.stride(0), scale,
        RANK=rank, PADDED=padded, CHUNK=chunk, SPLIT=split, PARTS=triton.next_power_of_2(split),
        HAS_ROWS=rows is not None, num_warps=4,
    )  # fmt: skip
    return r


def dequantize_tiled(w: TiledNF4, dtype: torch.dtype) -> Tensor:
    """The weight that `w` stands for, `dtype` `[N, K]`: `dequantize_nf4` of it, bit for bit, without the tensors in
    between, which would take 8 times the memory of the result.
    """
    n, k = w.shape
    out = torch.empty(n, k, dtype=dtype, device=w.codes.device)
    _dequantize[-(-n // 64), k // BLOCK](
        w.codes, w.scales, out, _levels(torch.float32, str(out.device)), n, w.scales.shape[1], k, ROWS=64, num_warps=4
    )
    return out


def check(device: torch.device) -> None:
    """Raises `RuntimeError` or what Triton raises when it cannot make kernels for `device`, or makes wrong ones."""
    rng = torch.Generator().manual_seed(0)
    weight, x = (torch.randn(n, 256, generator=rng, device="cpu") for n in (64, 3))
    q, x = quantize_nf4(weight), x.bfloat16()
    tiled = tile_nf4(q.to(device))
    exact = dequantize_nf4(q)
    if not torch.equal(dequantize_tiled(tiled, torch.float32).cpu(), exact):
        raise RuntimeError("the kernel that dequantises gives wrong numbers")
    expected = x.float() @ exact.T
    if (multiply_tiled(x.to(device), tiled).cpu().float() - expected).norm() > 0.01 * expected.norm():
        raise RuntimeError("the kernel of the product gives wrong numbers")


@triton.jit(do_not_specialize=["m_rows", "k_blocks", "rank", "split"])
def _gemm(
    x: tl.tensor, codes: tl.tensor, scales: tl.tensor, y: tl.tensor, partial: tl.tensor, counters: tl.tensor,
    bias: tl.tensor, r: tl.tensor, c: tl.tensor, levels: tl.tensor, m_rows: tl.tensor, n_rows: tl.tensor,
    n_padded: tl.tensor, k_blocks: tl.tensor, x_stride: tl.tensor, rank: tl.tensor, split: tl.tensor,
    BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, WHOLE: tl.constexpr, BLOCKS: tl.constexpr, STAGES: tl.constexpr,
    RANK: tl.constexpr, HAS_BIAS: tl.constexpr, ASM: tl.constexpr, JOINED: tl.constexpr,
) -> None:  # fmt: skip
    """One tile `[BLOCK_N, BLOCK_M]` of `y.T` over one of `split` parts of K; WHOLE: there is one. The weight is the
    left operand, so that its levels go from registers to the tensor cores without a way through shared memory.
    """
    tile = tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)
    part = tl.program_id(2)
    n = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    m = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
    m_read = tl.minimum(m, m_rows - 1)  # rows beyond the last are computed and thrown away
    k = tl.arange(0, 16)
    k64 = tl.arange(0, 64)[:, None]
    steps = k_blocks // BLOCKS
    first, last = steps * part // split, steps * (part + 1) // split
    operand: tl.constexpr = levels.dtype.element_ty  # x's dtype; float32 in the interpreter, which has no bfloat16
    total = tl.zeros((BLOCK_N, BLOCK_M), tl.float32)
    if RANK > 0 and part == 0:
        total = _branch(r, c, m_read, n, n_rows, rank, total, x.dtype.element_ty, operand, RANK)
    words = codes.to(tl.pointer_type(tl.int16)) + (first * BLOCKS * n_padded + n[:, None]) * 16 + k[None, :]
    pairs = codes + (first * BLOCKS * n_padded + n[:, None]) * 32 + (k[None, :] // 2) * 4
    scale_at = scales + first * BLOCKS * n_padded + n
    x_at = x + m_read[None, :] * x_stride + first * BLOCKS * 64
    for _ in tl.range(first, last, num_stages=STAGES):
        for b in tl.static_range(BLOCKS):
            scale = tl.load(scale_at + b * n_padded)
            w0, w1, w2, w3 = _planes(words + b * n_padded * 16, pairs + b * n_padded * 32, levels, k, ASM)
            if JOINED:
                w = tl.join(tl.join(w0, w1), tl.join(w2, w3)).permute(0, 3, 2, 1).reshape(BLOCK_N, 64)
                product = tl.dot(w, tl.load(x_at + b * 64 + k64).to(operand))
            else:
                product = tl.dot(w0, tl.load(x_at + b * 64 + k[:, None]).to(operand))
                product = tl.dot(w1, tl.load(x_at + b * 64 + 16 + k[:, None]).to(operand), product)
                product = tl.dot(w2, tl.load(x_at + b * 64 + 32 + k[:, None]).to(operand), product)
                product = tl.dot(w3, tl.load(x_at + b * 64 + 48 + k[:, None]).to(operand), product)
            total += product * scale[:, None]
        words += BLOCKS * n_padded * 16
        pairs += BLOCKS * n_padded * 32
        scale_at += BLOCKS * n_padded
        x_at += BLOCKS * 64
    if WHOLE:
        _finish(total, y, bias, m, n, m_rows, n_rows, HAS_BIAS)
    else:
        inside = tl.arange(0, BLOCK_N)[:, None] * BLOCK_M + tl.arange(0, BLOCK_M)[None, :]
        partial += tile * split * BLOCK_N * BLOCK_M + inside
        tl.store(partial + part * BLOCK_N * BLOCK_M, total)
        # All threads must have stored before one of them says so; the last program of a tile adds all parts up, in
        # their order, so that results do not depend on who was last.
        tl.debug_barrier()
        if tl.atomic_add(counters + tile, 1, sem="acq_rel") == split - 1:
            total = tl.zeros((BLOCK_N, BLOCK_M), tl.float32)
            for s in tl.range(0, split, num_stages=1, loop_unroll_factor=2):  # more would take registers
                total += tl.load(partial + s * BLOCK_N * BLOCK_M, cache_modifier=".cg")
            tl.store(counters + tile, 0)  # ready for the next launch
            _finish(total, y, bias, m, n, m_rows, n_rows, HAS_BIAS)


@triton.jit
def _planes(
    words: tl.tensor, pairs: tl.tensor, levels: tl.tensor, k: tl.tensor, ASM: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor, tl.tensor, tl.tensor]:  # fmt: skip
    """Levels of a block, columns 0-15, 16-31, 32-47 and 48-63. Threads hold neighbouring columns in one register."""
    if ASM is not None:
        return tl.inline_asm_elementwise(
            ASM, "=r,=r,=r,=r,r", [tl.load(words)], dtype=(levels.dtype.element_ty,) * 4, is_pure=True, pack=2
        )
    else:
        w0 = _look_up(pairs, levels, k)
        w1 = _look_up(pairs + 1, levels, k)
        w2 = _look_up(pairs + 2, levels, k)
        w3 = _look_up(pairs + 3, levels, k)
        return w0, w1, w2, w3


@triton.jit
def _look_up(at: tl.tensor, levels: tl.tensor, k: tl.tensor) -> tl.tensor:
    """Levels of one plane of codes: high nibble for even k, low nibble for odd."""
    return tl.load(levels + ((tl.load(at) >> (4 - 4 * (k[None, :] % 2))) & 15))


@triton.jit
def _branch(
    r: tl.tensor, c: tl.tensor, m: tl.tensor, n: tl.tensor, n_rows: tl.tensor, rank: tl.tensor, total: tl.tensor,
    dtype: tl.constexpr, operand: tl.constexpr, RANK: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """`total + (r @ c).T`."""
    j = tl.arange(0, RANK)
    used = (j[None, :] < rank) & (n[:, None] < n_rows)
    left = tl.load(c + j[None, :] * n_rows + n[:, None], mask=used, other=0.0).to(dtype).to(operand)
    right = tl.load(r + m[None, :] * rank + j[:, None], mask=j[:, None] < rank, other=0.0).to(dtype).to(operand)
    return tl.dot(left, right, total)


@triton.jit
def _finish(
    total: tl.tensor, y: tl.tensor, bias: tl.tensor, m: tl.tensor, n: tl.tensor, m_rows: tl.tensor, n_rows: tl.tensor,
    HAS_BIAS: tl.constexpr,
) -> None:  # fmt: skip
    """Add the bias, round and store `total.T`."""
    if HAS_BIAS:
        total += tl.load(bias + n, mask=n < n_rows, other=0.0).to(tl.float32)[:, None]
    inside = (n[:, None] < n_rows) & (m[None, :] < m_rows)
    tl.store(y + m[None, :] * n_rows + n[:, None], total.to(y.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["k_columns"])
def _project(
    x: tl.tensor, a: tl.tensor, rows: tl.tensor, r: tl.tensor, partial: tl.tensor, counters: tl.tensor,
    k_columns: tl.tensor, x_stride: tl.tensor, a_stride: tl.tensor, factor: tl.tensor, RANK: tl.constexpr,
    PADDED: tl.constexpr, CHUNK: tl.constexpr, SPLIT: tl.constexpr, PARTS: tl.constexpr, HAS_ROWS: tl.constexpr,
) -> None:  # fmt: skip
    """One row of r over every SPLIT-th chunk of K; the last program of a row adds the parts up, always the same way.

    PADDED, PARTS: the powers of two from RANK and SPLIT up. The rank is a constant, so that a load takes 16 bytes of A
    rather than one number.
    """
    m, part = tl.program_id(0), tl.program_id(1)
    molecule = m
    if HAS_ROWS:
        molecule = tl.load(rows + m)
    a += molecule.to(tl.int64) * a_stride
    j = tl.arange(0, PADDED)
    total = tl.zeros((PADDED,), tl.float32)
    for start in range(part * CHUNK, k_columns, SPLIT * CHUNK):
        k = start + tl.arange(0, CHUNK)
        value = tl.load(x + m * x_stride + k, mask=k < k_columns, other=0.0).to(tl.float32)
        used = (k[:, None] < k_columns) & (j[None, :] < RANK)
        factors = tl.load(a + k[:, None] * RANK + j[None, :], mask=used, other=0.0).to(tl.float32)
        total += tl.sum(factors * value[:, None], axis=0)
    if SPLIT == 1:
        tl.store(r + m * RANK + j, total * factor, mask=j < RANK)
    else:
        partial += m * SPLIT * PADDED
        tl.store(partial + part * PADDED + j, total)
        tl.debug_barrier()
        if tl.atomic_add(counters + m, 1, sem="acq_rel") == SPLIT - 1:
            s = tl.arange(0, PARTS)[:, None]
            every = tl.load(partial + s * PADDED + j[None, :], mask=s < SPLIT, other=0.0, cache_modifier=".cg")
            tl.store(counters + m, 0)
            tl.store(r + m * RANK + j, tl.sum(every, axis=0) * factor, mask=j < RANK)


@triton.jit
def _dequantize(
    codes: tl.tensor, scales: tl.tensor, out: tl.tensor, levels: tl.tensor, n_rows: tl.tensor, n_padded: tl.tensor,
    k_columns: tl.tensor, ROWS: tl.constexpr,
) -> None:  # fmt: skip
    """ROWS rows of one block of 64 columns. Codes are read and levels are written in rows that lie together."""
    block = tl.program_id(1).to(tl.int64)
    n = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    scale = tl.load(scales + block * n_padded + n)  # padding is a multiple of ROWS
    byte = tl.load(codes + (block * n_padded + n[:, None]) * 32 + tl.arange(0, 32)[None, :])
    first = tl.load(levels + (byte >> 4)) * scale[:, None]
    second = tl.load(levels + (byte & 15)) * scale[:, None]
    # [n, p, i] holds columns 16 i + 2 p and the next one.
    joined = tl.join(first.reshape(ROWS, 8, 4), second.reshape(ROWS, 8, 4))
    value = joined.permute(0, 2, 1, 3).reshape(ROWS, 64)
    column = block * 64 + tl.arange(0, 64)
    at = out + n[:, None].to(tl.int64) * k_columns + column[None, :]
    tl.store(at, value.to(out.dtype.element_ty), mask=n[:, None] < n_rows)


@functools.lru_cache(maxsize=16)
def _levels(dtype: torch.dtype, device: str) -> Tensor:
    levels = NF4_CODE.to(device=device, dtype=dtype)
    return levels.float() if INTERPRETED else levels


@functools.cache
def _processors(device: torch.device) -> int:
    """Multiprocessors of a device; of the CPU, where only the interpreter runs, a few."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 4


def _has_prmt(x: Tensor) -> bool:
    return x.is_cuda and torch.version.cuda is not None and not INTERPRETED


def _zero_counters(device: torch.device, count: int) -> Tensor:
    """int32 zeros. Kernels leave them at zero, so one buffer serves all launches of a stream, which do not overlap."""
    stream = torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0
    return _stream_zeros((str(device), stream), count, device)


def _stream_zeros(key: tuple[str, int], count: int, device: torch.device) -> Tensor:
    buffers = _counters.setdefault(key, [])
    if buffers and buffers[-1].numel() >= count:
        return buffers[-1]
    zeros = torch.zeros(max(count, 8192), dtype=torch.int32, device=device)
    if device.type != "cuda" or not torch.cuda.is_current_stream_capturing():
        # Smaller ones are never let go: a captured graph may go on using them. Those made during a capture are zero
        # only from its first replay on, so they belong to that graph alone.
        buffers.append(zeros)
    return zeros


def _size(tensor: Tensor | None) -> list[int] | None:
    return None if tensor is None else list(tensor.shape)
