"""Which sizes of tiles the Triton kernel takes for a product: a rule, and a measured choice that replaces it.

The rule balances the device; `tune` times the candidates on the device in the machine and keeps the best in memory
until the process ends.
"""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .nf4 import NF4Tensor
from .tiling import tile_nf4

MAX_ROWS = 128  # above, the weight is dequantised once and multiplied by torch
MAX_PARTS = 16
_tuned: dict[tuple[int, int, int, int], Config] = {}


class Config(NamedTuple):
    """Sizes of one launch.

    block_n: rows of the weight in a tile, a power of two from 16 to 128. block_m: rows of x in a tile, a power of two
    from 16 to 128. split: parts of K, each with its own programs. blocks: blocks of 64 columns in one step of the loop,
    a divisor of their number. stages: steps whose loads are under way at a time. warps: of a program; with 4 and more,
    and block_n of at least 64, Hopper's `wgmma` multiplies. joined: a block is one product of 64 columns instead of 4
    of 16: `wgmma` waits less, other tensor cores read x more slowly.
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
    """The configuration for a product: the measured one if `tune` has seen this size, else the first candidate."""
    tuned = _tuned.get((tile_rows(m), n, k, processors))
    return tuned or candidates(m, n, k, processors)[0]


def tune(
    multiply: Callable[..., Tensor], shapes: Iterable[tuple[int, int, int]], dtype: torch.dtype = torch.bfloat16
) -> dict[tuple[int, int, int], Config]:
    """Time the candidates for each `(M, N, K)` on the current CUDA device with random weights, keep the fastest for
    `choose_config`, and return them. Nothing is stored on disk. About 0.3 s a size, and a compilation a candidate.

    multiply: the product, `matmul_triton.multiply_tiled`; it takes `x [M, K]`, a `TiledNF4 [N, K]` and `config`.
    """
    device = torch.device("cuda", torch.cuda.current_device())
    processors = torch.cuda.get_device_properties(device).multi_processor_count
    best = {}
    for m, n, k in shapes:
        # Enough copies that no weight is found in the cache of a previous product.
        copies = max(2, min(16, 200_000_000 // (n * k // 2)))
        weights = [tile_nf4(random_nf4(n, k, device)) for _ in range(copies)]
        x = torch.randn(m, k, dtype=dtype, device=device)
        seconds = {
            config: time_calls([functools.partial(multiply, x, w, config=config) for w in weights])
            for config in candidates(m, n, k, processors)
        }
        best[m, n, k] = _tuned[tile_rows(m), n, k, processors] = min(seconds, key=seconds.__getitem__)
    return best


def random_nf4(n: int, k: int, device: torch.device) -> NF4Tensor:
    """A weight `[n, k]` of random codes and scales, in no time."""
    codes = torch.randint(0, 256, (n * k // 2,), dtype=torch.uint8, device=device)
    return NF4Tensor(codes, torch.rand(n * k // 64, device=device) + 0.5, (n, k))


def time_calls(calls: Sequence[Callable[[], object]], repeats: int = 15) -> float:
    """Median seconds of one call. On CUDA all calls, in turn, are captured in one graph, and its replays are timed by
    events: launches cost little, and calls on different weights find none of them in the cache. On a CPU, by a clock.
    """
    if not torch.cuda.is_available():
        started = time.perf_counter()
        for call in calls:
            call()
        return (time.perf_counter() - started) / len(calls)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for call in calls:
            call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=side):
        for call in calls:
            call()
    graph.replay()
    seconds = []
    for _ in range(repeats):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        seconds.append(start.elapsed_time(end) / 1000 / len(calls))
    return statistics.median(seconds)
