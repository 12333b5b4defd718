"""What a process does besides its work: it looks for garbage among a million objects, frees them, waits for threads."""

from __future__ import annotations

import atexit
import gc
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

MADE = 100_000  # objects between two searches for garbage in cycles; Python's own number is 700
SPINS = 3000  # looks for work before a thread of libgomp sleeps; its own number takes milliseconds


def wait_asleep() -> None:
    """Let threads that wait for each other sleep soon, unless OMP_WAIT_POLICY or GOMP_SPINCOUNT say how they wait.

    Looking for work keeps the core from whoever has some, on a machine with other work often the thread that all wait
    for: a table of predictions takes a fifth of the time there. It acts on Linux, where torch is not imported yet.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(SPINS))


@contextmanager
def torch_threads_kept() -> Iterator[None]:
    """torch has as many threads after the block as before; where it is not imported nothing is done."""
    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch is not None else 0
    try:
        yield
    finally:
        if torch is not None:
            torch.set_num_threads(before)


def collect_rarely() -> None:
    """Let Python search for garbage less often: it takes a tenth of the time of importing torch."""
    gc.set_threshold(MADE, *gc.get_threshold()[1:])


def end_quickly() -> Callable[[int], int]:
    """Let this process end without freeing each object, which takes a third of the time of importing torch.

    Call it before what is used registers something for the end, so that all of that is done. Returns a function that
    takes the exit code and returns it; a process that ends before by an error ends as ever.
    """
    codes: list[int] = []

    def end() -> None:
        # What cannot be written out is for Python to complain of.
        with suppress(OSError, ValueError, AttributeError):
            if codes:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(codes[0])

    def take(code: int) -> int:
        codes.append(code)
        return code

    atexit.register(end)
    return take
