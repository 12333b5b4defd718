"""How often Python searches for garbage in cycles."""

from __future__ import annotations

import atexit
import gc

MADE = 100_000  # objects between two searches; Python's own number is 700


def collect_rarely() -> None:
    """Let this process search less often, and not at its end.

    Imports and weights are a million objects that stay: going through them takes a tenth of the time of importing
    torch, and once more a third of it before the process ends.
    """
    gc.set_threshold(MADE, *gc.get_threshold()[1:])
    atexit.register(gc.freeze)
