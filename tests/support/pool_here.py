"""A stand-in for `machine.workers.WorkerPool` in tests of something else, as each process takes a second to start."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar

import torch


class PoolHere:
    """Does all jobs in this process; each work is made once for all tests."""

    works: ClassVar[dict[Any, Any]] = {}

    def __init__(self, n: int, make: Callable[..., Any], arguments: tuple[Any, ...] = (), seconds: float = 30.0):
        key = repr((make.__name__, arguments))
        if key not in self.works:
            n_threads = torch.get_num_threads()
            self.works[key] = make(*arguments)
            torch.set_num_threads(n_threads)  # that of a worker is not that of the tests
        self.work = self.works[key]

    def __class_getitem__(cls, types: object) -> type[PoolHere]:
        return cls

    def results(self, jobs: Iterable[Any]) -> Iterator[Any]:
        return (None if job is None else self.work(job, {}, lambda item: None) for job in jobs)

    def __enter__(self) -> PoolHere:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is open."""
