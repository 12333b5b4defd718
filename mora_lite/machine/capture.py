"""Work on a CUDA device captured once as a CUDA graph, to be replayed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def record(work: Callable[[], Any], device: torch.device, pool: Any) -> tuple[torch.cuda.CUDAGraph, Any]:
    """A CUDA graph of `work`, which has run once before, and the result that each replay of it writes anew."""
    aside, here = torch.cuda.Stream(device), torch.cuda.current_stream(device)
    aside.wait_stream(here)
    with torch.cuda.stream(aside):  # libraries are started outside of a recording
        work()
    here.wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    # Other devices' threads may work meanwhile. On the stream of the first run, whose buffers kernels keep.
    with torch.cuda.graph(graph, pool=pool, stream=aside, capture_error_mode="thread_local"):
        result = work()
    return graph, result
