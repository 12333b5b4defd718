"""A process beside the server for work that a molecule may hang or end; it is replaced then."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

from ..errors import DeviceError
from ..machine.workers import WorkerDied, WorkerPool


class SideProcess:
    """Does one thing after the other as `machine.workers.WorkerPool` has it. Several threads may use it.

    It starts when there is something to do. make, arguments: of the work. seconds: limit for one item.
    """

    def __init__(self, make: Callable[..., Any], arguments: tuple[Any, ...], seconds: float):
        self._new_pool = lambda: WorkerPool[Any, Any](1, make, arguments, seconds)
        self._pool, self._lock, self._is_closed = self._new_pool(), threading.Lock(), False

    def run(self, job: Any) -> Any:
        """The result of a job. Raises what the work raises, and `DeviceError` when its process is ended twice."""

        def jobs() -> Iterator[Any]:
            yield job

        with self._lock:
            for _ in range(2):  # a system short of memory may have ended the process while it had nothing to do
                if self._is_closed:
                    break
                try:
                    results: Any = self._pool.results(jobs())
                    with closing(results):
                        return next(results)
                except BaseException as error:  # it is of no use after one
                    self._replace()
                    if not isinstance(error, WorkerDied):
                        raise
        raise DeviceError("the process beside the server was ended twice; is the server short of memory?")

    def reset(self) -> None:
        """End the process; another starts when there is something to do."""
        with self._lock:
            self._replace()

    def _replace(self) -> None:
        self._pool.__exit__()
        self._pool = self._new_pool()

    def close(self) -> None:
        """End the process, also in the middle of something."""
        self._is_closed = True
        self._pool.__exit__()
