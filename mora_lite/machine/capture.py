"""Work on a CUDA device captured as a CUDA graph, to be replayed: one call in place of hundreds of kernel launches."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from .device import is_out_of_memory

Result = TypeVar("Result")


def warn_uncaptured(what: str, error: RuntimeError) -> None:
    """Say that `what`, for a driver or a kernel that cannot be captured. Raises the error where memory ran out."""
    if is_out_of_memory(error):
        raise error
    reason = str(error).strip().split("\n")[0]
    logging.getLogger("mora_lite").warning("%s, which is slower: %s", what, reason)


def run_aside(work: Callable[[], Result], device: torch.device, stream: torch.cuda.Stream | None = None) -> Result:
    """Run `work` on a side stream, as CUDA asks for before a capture, with the current stream waiting for it."""
    aside, here = stream or torch.cuda.Stream(device), torch.cuda.current_stream(device)
    aside.wait_stream(here)
    with torch.cuda.stream(aside):
        result = work()
    here.wait_stream(aside)
    return result


def capture(
    work: Callable[[], Result],
    device: torch.device,
    *,
    pool: Any = None,
    stream: torch.cuda.Stream | None = None,
    warm_up: bool = True,
) -> tuple[torch.cuda.CUDAGraph, Result]:
    """A CUDA graph of `work`, which the capture does not run, and the result that each replay writes anew.

    pool: of memory that several graphs share, which are then never replayed at the same time; None for one of its own.
    stream: of the first run and the capture. Graphs share the memory of a pool only where they share this too; None
    makes a new one.
    warm_up: run the work once before, so that libraries start outside of the capture. False where the caller has run
    it by `run_aside`, because each run counts, as a step of training does.
    """
    # With a first run on the stream of that run, whose buffers kernels keep; else on the one that torch keeps for
    # captures, so that graphs of one pool share its memory.
    if warm_up:
        stream = stream or torch.cuda.Stream(device)
        run_aside(work, device, stream)
    graph = torch.cuda.CUDAGraph()
    # Other threads may work meanwhile, on their devices or pinning memory: only the strictest mode forbids it.
    with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
        result = work()
    return graph, result
