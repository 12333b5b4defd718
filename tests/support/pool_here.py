"""A stand-in for `machine.workers.WorkerPool` in tests of something else, as each process takes a second to start."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any


class PoolHere:
    """Does all jobs in this process."""

    def __init__(self, n: int, make: Callable[..., Any], arguments: tuple[Any, ...] = (), seconds: float = 30.0):
        self.work = make(*arguments)

    def __class_getitem__(cls, types: object) -> type[PoolHere]:
        return cls

    def results(self, jobs: Iterator[Any]) -> Iterator[Any]:
        for job in jobs:
            yield None if job is None else self.work(job, {}, lambda row: None)

    def __enter__(self) -> PoolHere:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is open."""
