"""Items read in another thread arrive in order, with what reading raised, and reading stops when nobody takes them."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mora_lite.machine.prefetch import read_ahead


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
