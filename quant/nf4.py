"""NF4: weights stored as 4-bit codes with one scale for every block of `G` values.

The numbers are those of bitsandbytes, bit for bit: the same 16 levels, the same ties, the same nibble order (the first
value of a pair in the high nibble), the same scales, with or without double quantisation (the scales themselves stored
in 8 bits). Checkpoints written with `to_tensors` load in transformers with bitsandbytes, and theirs load with
`from_tensors`.

Everything here is plain torch and runs on any device.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import CheckpointError, InputError, fitting

BLOCK = 64
NESTED_BLOCK = 256
PIECE = 1 << 20  # values quantised at a time: a multiple of every block
BLOCKS = (32, 64, 128, 256, 512, 1024, 2048, 4096)
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
# bitsandbytes gives a short last block at least this scale, so an all-zero one does not divide by zero.
TINY = 1e-38

# Quantiles of a normal distribution, scaled to [-1, 1], with an exact zero.
NF4_CODE = torch.tensor(
    [
        -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
        -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
        0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
        0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
    ],
    dtype=torch.float32,
)  # fmt: skip

STATE_KEY = "quant_state.bitsandbytes__nf4"


@dataclass(frozen=True)
class NestedScales:
    """What turns the 8-bit scales of double quantisation back into fp32 scales.

    absmax: float32 `[ceil(blocks / 256)]`; offset: float32 `[]`, the mean scale; code: float32 `[256]`, the levels.
    """

    absmax: Tensor
    offset: Tensor
    code: Tensor
    block: int = NESTED_BLOCK


@dataclass(frozen=True)
class NF4Tensor:
    """A weight in 4 bits.

    codes: uint8 `[ceil(n / 2)]`, two codes in a byte, the first in the high nibble; n values in row-major order.
    absmax: float32 `[ceil(n / G)]`, the scale of each block, or with `nested` uint8 codes of the same shape.
    shape: of the weight it stands for. block: `G`. dtype: of the weight it was made from.
    """

    codes: Tensor
    absmax: Tensor
    shape: tuple[int, ...]
    block: int = BLOCK
    dtype: torch.dtype = torch.float32
    nested: NestedScales | None = None

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of codes and scales together."""
        tensors = [self.codes, self.absmax]
        if self.nested is not None:
            tensors += [self.nested.absmax, self.nested.offset, self.nested.code]
        return sum(t.numel() * t.element_size() for t in tensors)

    @property
    def device(self) -> torch.device:
        return self.codes.device

    def to(self, device: torch.device | str) -> NF4Tensor:
        """The same weight on another device."""
        nested = self.nested
        if nested is not None:
            absmax, offset, code = (part.to(device) for part in (nested.absmax, nested.offset, nested.code))
            nested = NestedScales(absmax, offset, code, nested.block)
        return replace(self, codes=self.codes.to(device), absmax=self.absmax.to(device), nested=nested)

    def scales(self) -> Tensor:
        """float32 `[ceil(n / G)]`: the scale of each block, double quantisation undone."""
        if self.nested is None:
            return self.absmax
        nested = self.nested
        values = nested.code[self.absmax.long()]
        return values * nested.absmax.repeat_interleave(nested.block)[: values.numel()] + nested.offset


def quantize_nf4(weight: Tensor, block: int = BLOCK, double: bool = False) -> NF4Tensor:
    """Store a float32, float16 or bfloat16 weight of any shape in 4 bits.

    Semantics: `codes[i] = argmin_j |weight[i] / absmax[i // block] - NF4_CODE[j]|`, ties to the lower code.
    Raises `CheckpointError` for another dtype, `InputError` for a block that bitsandbytes does not know.
    """
    if weight.dtype not in DTYPES:
        raise CheckpointError(f"got a weight of {weight.dtype}, expected float32, float16 or bfloat16")
    if block not in BLOCKS:
        raise InputError(f"block: got {block}, expected one of {', '.join(map(str, BLOCKS))}")
    flat = weight.detach().reshape(-1)
    # In pieces of whole blocks: the steps between take many times the memory of the codes.
    parts = [_quantize_piece(flat[at : at + PIECE].float(), block) for at in range(0, flat.numel(), PIECE)]
    codes = torch.cat([part[0] for part in parts]) if parts else flat.new_empty(0, dtype=torch.uint8)
    absmax = torch.cat([part[1] for part in parts]) if parts else flat.new_empty(0, dtype=torch.float32)
    shape = tuple(weight.shape)
    if not double:
        return NF4Tensor(codes, absmax, shape, block, weight.dtype)
    scale_codes, nested = _nest(absmax)
    return NF4Tensor(codes, scale_codes, shape, block, weight.dtype, nested)


def _quantize_piece(flat: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """Codes and scales of a float32 `[n]`; its last block may be short."""
    count = flat.numel()
    full = count - count % block
    body = flat[:full].view(-1, block)
    absmax = body.abs().amax(dim=1) if full else flat.new_empty(0)
    # Whole blocks multiply by the reciprocal and the short one divides: bitsandbytes rounds them so.
    scaled = (body * (1.0 / absmax.clamp(min=TINY))[:, None]).view(-1)
    if count > full:
        last = flat[full:].abs().max().clamp(min=TINY)
        absmax = torch.cat([absmax, last[None]])
        scaled = torch.cat([scaled, flat[full:] / last])
    scaled = scaled.clamp_(-1, 1)
    if count % 2:
        scaled = torch.nn.functional.pad(scaled, (0, 1))
    level = NF4_CODE.to(flat.device)
    index = torch.bucketize(scaled, (level[:-1] + level[1:]) / 2, out_int32=True).to(torch.uint8)
    return (index[::2] << 4) | index[1::2], absmax


def dequantize_nf4(q: NF4Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """The weight `q` stands for, `dtype` `q.shape`, on the device of `q`.

    Semantics: `weight[i] = (NF4_CODE[codes[i]] * scales[i // block]).to(dtype)`, multiplied in fp32.
    """
    count = q.numel
    # Both levels of a byte are fetched as one 64-bit word: half the look-ups of one fetch for each nibble.
    table = _pairs(str(q.device))
    pairs = torch.index_select(table, 0, q.codes.reshape(-1).int())
    values = pairs.view(torch.float32)[:count]
    scales = q.scales()
    full = count - count % q.block
    values[:full].view(-1, q.block).mul_(scales[: full // q.block, None])
    if count > full:
        values[full:].mul_(scales[-1])
    return values.view(q.shape).to(dtype)


def to_tensors(name: str, q: NF4Tensor) -> dict[str, Tensor]:
    """The bitsandbytes layout of `q` in a safetensors file: `name`, `name.absmax`, `name.quant_map`, and so on."""
    state: dict[str, object] = {
        "quant_type": "nf4",
        "blocksize": q.block,
        "dtype": str(q.dtype).removeprefix("torch."),
        "shape": list(q.shape),
    }
    tensors = {name: q.codes.reshape(-1, 1), f"{name}.absmax": q.absmax, f"{name}.quant_map": NF4_CODE.clone()}
    if q.nested is not None:
        tensors[f"{name}.nested_absmax"] = q.nested.absmax
        tensors[f"{name}.nested_quant_map"] = q.nested.code.clone()  # one map serves all: files forbid sharing
        state |= {
            "nested_blocksize": q.nested.block,
            "nested_dtype": "float32",
            "nested_offset": q.nested.offset.item(),
        }
    tensors[f"{name}.{STATE_KEY}"] = torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8)
    return tensors


class StoredState(NamedTuple):
    """What the JSON text beside a stored weight says of it, beside the parts themselves.

    shape, block, dtype: as of `NF4Tensor`. nested: offset and block of double quantisation, None without.
    """

    shape: tuple[int, ...]
    block: int
    dtype: torch.dtype
    nested: tuple[float, int] | None


def read_state(name: str, content: Tensor) -> StoredState:
    """content: uint8, the text stored as `name` and STATE_KEY. Raises `CheckpointError` when it is damaged."""
    with fitting(f"{name}: the 4-bit description is damaged", "save the model again", CheckpointError):
        state = json.loads(bytes(content.tolist()))
        nested = None
        if "nested_offset" in state:
            nested = float(state["nested_offset"]), int(state["nested_blocksize"])
        shape = tuple(int(n) for n in state["shape"])
        if min(shape, default=0) < 0:
            raise ValueError(f"shape {list(shape)}")
        dtype = {str(dtype): dtype for dtype in DTYPES}[f"torch.{state['dtype']}"]
        return StoredState(shape, int(state["blocksize"]), dtype, nested)


def from_tensors(name: str, tensors: Mapping[str, Tensor]) -> NF4Tensor:
    """The weight that `to_tensors` or bitsandbytes stored under `name`.

    Raises `CheckpointError` if a part is missing, sizes disagree, or the code is not NF4.
    """
    try:
        shape, block, dtype, doubly = read_state(name, tensors[f"{name}.{STATE_KEY}"])
        codes = tensors[name].reshape(-1).view(torch.uint8)
        absmax = tensors[f"{name}.absmax"].reshape(-1)
        levels = tensors[f"{name}.quant_map"].float()
        nested = None
        if doubly is not None:
            nested = NestedScales(
                absmax=tensors[f"{name}.nested_absmax"].reshape(-1).float(),
                offset=torch.tensor(doubly[0], dtype=torch.float32),
                code=tensors[f"{name}.nested_quant_map"].reshape(-1).float(),
                block=doubly[1],
            )
    except KeyError as error:
        raise CheckpointError(f"{name}: part {error} of the 4-bit weight is missing; save the model again") from None
    count = math.prod(shape)
    if levels.shape != NF4_CODE.shape or (levels.cpu() - NF4_CODE).abs().max() > 1e-6:
        raise CheckpointError(f"{name}: its 16 levels are not those of NF4; quantise the model with NF4")
    if block not in BLOCKS or codes.numel() != (count + 1) // 2 or absmax.numel() != -(-count // block):
        raise CheckpointError(
            f"{name}: shape {list(shape)} with blocks of {block} needs {(count + 1) // 2} bytes of codes, "
            f"got {codes.numel()} with {absmax.numel()} scales; the file is damaged"
        )
    if nested is not None and (
        absmax.dtype != torch.uint8
        or nested.code.numel() != 256
        or nested.block not in BLOCKS
        or nested.absmax.numel() != -(-absmax.numel() // nested.block)
    ):
        raise CheckpointError(f"{name}: its doubly quantised scales have wrong sizes; the file is damaged")
    if nested is None:
        absmax = absmax.float()
    return NF4Tensor(codes, absmax, shape, block, dtype, nested)


@functools.cache
def dynamic_map() -> Tensor:
    """float32 `[256]`, ascending: the signed 8-bit levels that store the scales of double quantisation.

    Decade `-6 + i`, for i = 0..6, is cut into `2**i` equal steps between a tenth of the decade and the decade; their
    middles are the levels, with both signs, beside 0 and 1. So small scales stay precise.
    """
    levels = [0.0, 1.0]
    for i in range(7):
        edges = torch.linspace(0.1, 1, 2**i + 1, dtype=torch.float32)
        # The decade stays a Python float and the middles fp32: the last bit depends on it.
        middles = (10 ** (i - 6)) * ((edges[:-1] + edges[1:]) / 2.0)
        levels += middles.tolist() + (-middles).tolist()
    return torch.tensor(sorted(levels), dtype=torch.float32)


def _nest(absmax: Tensor) -> tuple[Tensor, NestedScales]:
    """Double quantisation: scales less their mean, in blocks of 256, each to the nearest of 256 levels."""
    offset = absmax.mean() if absmax.numel() else absmax.new_zeros(())
    centred = absmax - offset
    count = centred.numel()
    blocks = -(-count // NESTED_BLOCK)
    padded = torch.nn.functional.pad(centred, (0, blocks * NESTED_BLOCK - count)).view(blocks, NESTED_BLOCK)
    nested_absmax = padded.abs().amax(dim=1) if blocks else centred.new_empty(0)
    # The reciprocal is infinite for a block of zeros, and so is that of the tiniest scales.
    value = torch.nan_to_num(padded * (1.0 / nested_absmax)[:, None]).clamp(-1, 1)
    index = _nearest_level().to(absmax.device)[((value + 1.0) * 32767.5 + 0.5).long()]
    # A block of equal scales is all zeros once centred: bitsandbytes stores code 0, harmless with a scale of 0.
    index = torch.where((nested_absmax == 0)[:, None], torch.zeros_like(index), index)
    return index.view(-1)[:count].contiguous(), NestedScales(nested_absmax, offset, dynamic_map().to(absmax.device))


@functools.cache
def _nearest_level() -> Tensor:
    """uint8 `[65536]`: the nearest level of `dynamic_map` for each of 65536 equal steps over [-1, 1].

    bitsandbytes on the CPU rounds to these steps before it looks for the level, which shows next to a tie.
    """
    code = dynamic_map()
    value = torch.arange(65536, dtype=torch.float32) * 2 / 65535 - 1
    right = torch.searchsorted(code, value).clamp(max=255)
    left = (right - 1).clamp(min=0)
    return torch.where((code[right] - value).abs() < (value - code[left]).abs(), right, left).to(torch.uint8)


@functools.lru_cache(maxsize=16)
def _pairs(device: str) -> Tensor:
    """int64 `[256]`: the two fp32 levels of each byte of codes, side by side."""
    byte = torch.arange(256)
    pairs = torch.stack([NF4_CODE[byte >> 4], NF4_CODE[byte & 15]], dim=1)
    return pairs.view(torch.int64).reshape(256).to(device)
