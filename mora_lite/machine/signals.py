"""Signals that ask the process to end, held back while something must not be left half done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

HELD = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def held_signals() -> Iterator[list[int]]:
    """A list that the first such signal is put into while the block runs; it is delivered when the block is left.

    Only where Python handles the signal, and in the main thread; elsewhere nothing is held back. A second signal is
    not held back either: a block that does not end can still be left.
    """
    came: list[int] = []
    kept: dict[int, Any] = {}

    def restore() -> None:
        for number, handler in kept.items():
            signal.signal(number, handler)

    def hold(number: int, _: FrameType | None) -> None:
        came.append(number)
        restore()

    if threading.current_thread() is threading.main_thread():
        kept = {number: handler for number in HELD if callable(handler := signal.getsignal(number))}
        for number in kept:
            signal.signal(number, hold)
    try:
        yield came
    finally:
        restore()
    if came:
        kept[came[0]](came[0], None)
