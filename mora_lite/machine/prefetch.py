"""An iterator that is read in another thread, a few items ahead."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import Any, TypeVar

Item = TypeVar("Item")
_POLL_SECONDS = 0.1


def read_ahead(items: Iterable[Item], n: int = 4) -> Generator[Item, None, None]:
    """The items in order; at most `n` wait to be taken. What reading them raises is raised here.

    When this iterator is closed before its end, reading stops after the item that it is at.
    """
    queue: Queue[tuple[bool, Any]] = Queue(n)  # whether there is an item; it, or what ended the reading
    stopped = Event()

    def put(entry: tuple[bool, Any]) -> None:
        while not stopped.is_set():
            try:
                return queue.put(entry, timeout=_POLL_SECONDS)
            except Full:
                continue

    def read() -> None:
        error: BaseException | None = None
        try:
            for item in items:
                put((True, item))
                if stopped.is_set():
                    return
        except BaseException as raised:
            error = raised
        put((False, error))

    thread = Thread(target=read, daemon=True)
    thread.start()
    try:
        while True:
            has_item, value = queue.get()
            if not has_item:
                if value is not None:
                    raise value
                return
            yield value
    finally:
        stopped.set()
        while True:
            try:
                queue.get_nowait()
            except Empty:
                break
        thread.join()
