"""How far long work is: reported where it is done, shown by whoever listens, and no cost where nobody does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

Listener = Callable[[str, int, int | None], None]  # gets the name of the work, units done, and units of all if known
Item = TypeVar("Item")

_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """In the block, `listener` gets what is reported in this thread."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def report(work: str, done: int = 0, total: int | None = None) -> None:
    """Say that `work`, such as "reading my.csv", is at `done` of `total`, which is None where it is not known."""
    listener = _listener.get()
    if listener is not None:
        listener(work, done, total)


def track(items: Sequence[Item], work: str, every: int = 256) -> Iterator[Item]:
    """The items one by one; a report after each `every` of them."""
    for i, item in enumerate(items):
        if i % every == 0:
            report(work, i, len(items))
        yield item
