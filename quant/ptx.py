"""The instructions by which the Triton kernel turns 4-bit codes into levels on NVIDIA devices."""

from __future__ import annotations

import functools

import torch

from .nf4 import NF4_CODE

# What a thread does with a register of 8 codes, nibbles 0 to 7, the lowest first: 4 registers of 2 levels each.
# `prmt` takes 4 nibbles as selectors of bytes out of a table of 8: the lower 3 bits of a code. Two tables, of negative
# and positive levels, and two halves of a level, high and low byte, make 4 of them; the highest bit of a code, spread
# over a byte, picks between the signs. The first word of a table is made in a register, by xor with a zero that the
# assembler cannot see through: as a plain constant it would be moved into a register again for every use.
_ASM = """{{
.reg .b32 low, high, left, sign, zero, self, n0, p0, n1, p1, n, p, hi, lo;
mov.u32 self, %lanemask_eq;
mov.u32 zero, %lanemask_lt;
and.b32 zero, zero, self;
xor.b32 n1, zero, {n1a};
xor.b32 p1, zero, {p1a};
xor.b32 n0, zero, {n0a};
xor.b32 p0, zero, {p0a};
and.b32 low, $4, 0x77777777;
shr.b32 high, low, 16;
shl.b32 left, $4, 4;
prmt.b32 sign, left, $4, 0xD9C8;
prmt.b32 n, n1, {n1b}, low;
prmt.b32 p, p1, {p1b}, low;
lop3.b32 hi, sign, p, n, 0xCA;
prmt.b32 n, n0, {n0b}, low;
prmt.b32 p, p0, {p0b}, low;
lop3.b32 lo, sign, p, n, 0xCA;
prmt.b32 $0, lo, hi, 0x4051;
prmt.b32 $1, lo, hi, 0x6273;
prmt.b32 sign, left, $4, 0xFBEA;
prmt.b32 n, n1, {n1b}, high;
prmt.b32 p, p1, {p1b}, high;
lop3.b32 hi, sign, p, n, 0xCA;
prmt.b32 n, n0, {n0b}, high;
prmt.b32 p, p0, {p0b}, high;
lop3.b32 lo, sign, p, n, 0xCA;
prmt.b32 $2, lo, hi, 0x4051;
prmt.b32 $3, lo, hi, 0x6273;
}}"""


@functools.cache
def prmt_assembly(dtype: torch.dtype) -> str:
    """PTX that turns one register of 8 codes, `$4`, into levels of bfloat16 or float16: byte i, high nibble first,
    becomes `$i`, the first level in the lower half.
    """
    levels = [value & 0xFFFF for value in NF4_CODE.to(dtype).view(torch.int16).tolist()]
    words = {}
    for half, shift in (("0", 0), ("1", 8)):
        for sign, first in (("n", 0), ("p", 8)):
            table = [(level >> shift) & 0xFF for level in levels[first : first + 8]]
            for part, four in (("a", table[:4]), ("b", table[4:])):
                words[sign + half + part] = f"0x{int.from_bytes(bytes(four), 'little'):08x}"
    return _ASM.format(**words)
