"""Timing of products with 4-bit weights, and the choice of the Triton kernel's tiles by it; for other benchmarks."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from mora_lite.quant.nf4 import NF4Tensor
from mora_lite.quant.tiling import tile_nf4
from mora_lite.quant.tuning import MEASURED, Config, candidates, tile_rows


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
        best[m, n, k] = MEASURED[tile_rows(m), n, k, processors] = min(seconds, key=seconds.__getitem__)
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
