"""Which sizes of tiles the Triton kernel takes for a product: a rule that balances the device, or what was measured."""

from __future__ import annotations

from typing import NamedTuple

MAX_ROWS = 128  # above, the weight is dequantised once and multiplied by torch
MAX_PARTS = 16
# The measured choices of this process, by `tile_rows(M)`, N, K and multiprocessors (benchmarks/kernel_timing.py).
MEASURED: dict[tuple[int, int, int, int], Config] = {}


class Config(NamedTuple):
    """Sizes of one launch.

    block_n: rows of the weight in a tile, a power of two from 16 to 128.
    block_m: rows of x in a tile, likewise.
    split: parts of K, each with its own programs.
    blocks: blocks of 64 columns in one step of the loop, a divisor of their number.
    stages: steps whose loads are under way at a time.
    warps: of a program; with 4 and more, and block_n of at least 64, Hopper's `wgmma` multiplies.
    joined: a block is one product of 64 columns instead of 4 of 16; `wgmma` waits less, other tensor cores are slower.
    """

    block_n: int
    block_m: int
    split: int
    blocks: int
    stages: int
    warps: int
    joined: bool


# By block_m: block_n, blocks, stages, warps, joined, and how many programs a multiprocessor of Hopper holds at a time,
# as the registers allow that Triton 3.6 gives them. The first is taken where nothing was measured.
SHAPES: dict[int, list[tuple[int, int, int, int, bool, int]]] = {
    16: [
        (64, 1, 4, 2, False, 10),
        (128, 1, 4, 4, True, 5),
        (64, 1, 4, 4, True, 8),
        (64, 2, 3, 2, False, 8),
        (128, 2, 3, 4, True, 4),
    ],
    32: [(128, 1, 4, 4, True, 4), (64, 1, 4, 4, True, 6), (64, 1, 4, 2, False, 8), (64, 2, 3, 4, True, 5)],
    64: [(64, 1, 4, 4, True, 4), (128, 1, 4, 8, True, 2)],
    128: [(128, 1, 3, 8, True, 1), (64, 1, 3, 4, True, 2)],
}


def tile_rows(m: int) -> int:
    """The smallest tile that holds m rows of x: a power of two from 16 to 128."""
    return max(16, min(MAX_ROWS, 1 << (m - 1).bit_length()))


def parts(tiles: int, steps: int, slots: int) -> int:
    """The number of parts of K, at most 16, that fills `slots` programs best, the fewest among equals."""

    def waste(split: int) -> float:
        # Programs beyond a multiple of the slots wait for a second wave; parts of unequal length wait as well. Each
        # part costs a write and a read of its sums, which counts like a fraction of a step.
        waves = -(-tiles * split // slots)
        return waves * slots / (tiles * split) * (-(-steps // split) + 0.5 * (split > 1)) * split / steps

    return min(range(1, min(MAX_PARTS, steps) + 1), key=waste)


def candidates(m: int, n: int, k: int, processors: int) -> list[Config]:
    """Configurations worth timing for a product `[m, k] @ [k, n]` on a device with so many multiprocessors."""
    block_m, configs = tile_rows(m), []
    for block_n, blocks, stages, warps, joined, resident in SHAPES[block_m]:
        if k // 64 % blocks == 0:
            split = parts(-(-n // block_n) * -(-m // block_m), k // 64 // blocks, processors * resident)
            configs.append(Config(block_n, block_m, split, blocks, stages, warps, joined))
    return configs


def choose_config(m: int, n: int, k: int, processors: int) -> Config:
    """The configuration for a product: the measured one if there is one for this size, else the first candidate."""
    return MEASURED.get((tile_rows(m), n, k, processors)) or candidates(m, n, k, processors)[0]
