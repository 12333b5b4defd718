"""Items read in another thread arrive in order, with what reading raised, and reading stops when nobody takes them."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mora_lite.machine.prefetch import map_ahead, read_ahead


@given(st.lists(st.integers(), max_size=30), st.integers(1, 5))
@settings(max_examples=30, deadline=None)
def test_all_items_in_order(items: list[int], n: int) -> None:
    assert list(read_ahead(items, n)) == items


def test_what_reading_raises_comes_after_the_items_before_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("the disk is gone")

    ahead = read_ahead(items())
    assert next(ahead) == 1
    with pytest.raises(OSError, match="disk"):
        next(ahead)


def test_no_more_are_read_than_may_wait_and_none_after_the_end() -> None:
    read: list[int] = []
    enough = threading.Event()

    def items() -> Iterator[int]:
        for i in range(1000):
            read.append(i)
            if i == 4:
                enough.set()
            yield i

    ahead = read_ahead(items(), 3)
    assert next(ahead) == 0
    assert enough.wait(10), "one is taken, three wait, one more is at hand"
    ahead.close()
    assert len(read) <= 6
    assert threading.active_count() < 50


@given(st.lists(st.integers(), max_size=30), st.integers(1, 4))
@settings(max_examples=30, deadline=None)
def test_threads_map_in_order(items: list[int], n: int) -> None:
    assert list(map_ahead(lambda item: item * 2, items, n)) == [item * 2 for item in items]


def test_what_a_thread_raises_comes_in_its_turn() -> None:
    mapped = map_ahead(lambda item: 1 // item, [1, 2, 0, 1], 2)
    assert [next(mapped), next(mapped)] == [1, 0]
    with pytest.raises(ZeroDivisionError):
        next(mapped)


def test_a_generator_is_closed_with_those_that_read_it() -> None:
    closed = threading.Event()

    def items() -> Iterator[int]:
        try:
            yield from range(1000)
        finally:
            closed.set()

    ahead = read_ahead(map_ahead(abs, read_ahead(items()), 2))
    assert next(ahead) == 0
    ahead.close()
    assert closed.is_set()
