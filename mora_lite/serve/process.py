"""A process beside the server for work that a molecule may hang or end; it is replaced then."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
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
        self._pool, self._is_closed = self._new_pool(), False
        self._turns = ThreadPoolExecutor(1, "beside")  # first come, first served, which a lock is not

    def run(self, job: Any) -> Any:
        """The result of a job. Raises what the work raises, and `DeviceError` when its process is ended twice."""
        return self._turns.submit(self._run, job).result()

    def _run(self, job: Any) -> Any:
        def jobs() -> Iterator[Any]:
            yield job

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
        self._turns.submit(self._replace).result()

    def _replace(self) -> None:
        self._pool.__exit__()
        self._pool = self._new_pool()

    def close(self) -> None:
        """End the process, also in the middle of something."""
        self._is_closed = True
        self._pool.__exit__()
