"""What keeps a process from spending its time on objects that stay: imports and weights are a million of them."""

from __future__ import annotations

import atexit
import gc
import os
import sys
from collections.abc import Callable
from contextlib import suppress

MADE = 100_000  # objects between two searches for garbage in cycles; Python's own number is 700


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
