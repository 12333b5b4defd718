"""Signals that ask the process to end, deferred while something must not be left half done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

DEFERRED = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def deferred_signals() -> Iterator[list[int]]:
    """A list that the first such signal is put into while the block runs; it is delivered when the block is left.

    Only where Python handles the signal, and in the main thread; elsewhere nothing is deferred. A second signal is not
    deferred either: a block that does not end can still be left.
    """
    received: list[int] = []
    handlers: dict[int, Any] = {}

    def restore() -> None:
        for number, handler in handlers.items():
            signal.signal(number, handler)

    def receive(number: int, _: FrameType | None) -> None:
        received.append(number)
        restore()

    if threading.current_thread() is threading.main_thread():
        handlers = {number: handler for number in DEFERRED if callable(handler := signal.getsignal(number))}
        for number in handlers:
            signal.signal(number, receive)
    try:
        yield received
    finally:
        restore()
    if received:
        handlers[received[0]](received[0], None)
