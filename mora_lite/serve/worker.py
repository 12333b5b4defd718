"""The one thread that has the model. Questions and steps of tables wait in one queue; questions go first.

A table is worked on in steps of some rows, and goes to the end of the queue after each, so several tables share the
model and nobody waits for the whole table of somebody else.
"""

from __future__ import annotations

import itertools
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from ..errors import MoraLiteError
from ..machine.workers import usable_cores

QUESTION, ROWS = 0, 1  # what is taken first
# One molecule takes longer with two threads than with one, on a busy machine twenty times as long; pages and drawings
# need a core too.
ROW_THREADS = max(1, usable_cores() // 2)
ModelT = TypeVar("ModelT")
ResultT = TypeVar("ResultT")


class BusyError(MoraLiteError):
    """More requests wait than the server takes."""


class ModelThread(Generic[ModelT]):
    """Loads the model and does what it is given, one thing after the other.

    load: gives the model. waiting: things that may wait. on_failure: called when the model cannot be loaded.
    failure: why it could not. sets_threads: whether torch computes here; how many threads it uses is for all then.
    """

    def __init__(
        self,
        load: Callable[[], ModelT],
        waiting: int,
        on_failure: Callable[[], None] = lambda: None,
        *,
        name: str = "model",
        sets_threads: bool = True,
    ):
        self.failure: Exception | None = None
        self._load, self._waiting, self._on_failure = load, waiting, on_failure
        self._use_threads = _use_threads if sets_threads else lambda n: None
        self._queue: queue.PriorityQueue[tuple[int, int, Callable[[ModelT], None] | None]] = queue.PriorityQueue()
        self._numbers = itertools.count()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, seconds: float = 5.0) -> None:
        """Do what is begun and nothing else; wait for that, but not longer than `seconds`."""
        self._put(-1, None)
        self._thread.join(seconds)

    @property
    def is_ready(self) -> bool:
        """Whether the model is loaded."""
        return self._ready.is_set()

    def ask(self, work: Callable[[ModelT], ResultT], priority: int = QUESTION) -> Future[ResultT]:
        """What `work(model)` returns or raises. Raises `BusyError` when too much waits already."""
        if self._queue.qsize() >= self._waiting:
            raise BusyError(f"{self._waiting} requests wait already; try again in a minute")
        answer: Future[ResultT] = Future()

        def run(model: ModelT) -> None:
            if not answer.set_running_or_notify_cancel():
                return  # whoever asked has gone
            try:
                answer.set_result(work(model))
            except Exception as error:
                answer.set_exception(error)

        self._put(priority, run)
        return answer

    def work_on(self, steps: Callable[[ModelT], Iterator[Any]]) -> None:
        """Take a step of `steps(model)` whenever it is its turn, until they end. They raise nothing.

        Raises `BusyError` when too much waits already.
        """
        if self._queue.qsize() >= self._waiting:
            raise BusyError(f"{self._waiting} tables wait already; try again in a minute")
        begun: list[Iterator[Any]] = []

        def run(model: ModelT) -> None:
            if not begun:
                begun.append(steps(model))
            if next(begun[0], self) is not self:
                self._put(ROWS, run)

        self._put(ROWS, run)

    def _put(self, priority: int, run: Callable[[ModelT], None] | None) -> None:
        self._queue.put((priority, next(self._numbers), run))

    def _work(self) -> None:
        try:
            self._use_threads(1)
            model = self._load()
        except Exception as error:
            self.failure = error
            self._on_failure()
            return
        self._ready.set()
        while True:
            priority, _, run = self._queue.get()
            if run is None:
                return
            self._use_threads(ROW_THREADS if priority == ROWS else 1)
            run(model)


def _use_threads(n: int) -> None:
    """Let torch, if it computes here, use so many threads of the processor from now on."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(n)
