"""Iterators that are read, or mapped, by other threads, a few items ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, nullcontext
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
_POLL_SECONDS = 0.1


def read_ahead(items: Iterable[Item], n: int = 4) -> Generator[Item, None, None]:
    """The items in order; at most `n` wait to be taken. What reading them raises is raised here.

    When this iterator is closed before its end, reading stops after the item that it is at. A generator that is read is
    closed at the end in any case.
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
            with _closing(items):
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


def map_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], n_threads: int
) -> Generator[Result, None, None]:
    """`map` by so many threads, in order; at most two results for each wait to be taken. A generator is closed."""
    waiting: deque[Future[Result]] = deque()
    with _closing(items), ThreadPoolExecutor(n_threads) as threads:
        try:
            for item in items:
                waiting.append(threads.submit(function, item))
                if len(waiting) > 2 * n_threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _closing(items: Any) -> Any:
    return closing(items) if hasattr(items, "close") else nullcontext()
