"""Worker processes that survive what is in the data: one that dies or hangs is replaced, and its job goes on.

A job is a numbered list of items that are first taken one by one (parsing) and then together (scoring). While a worker
takes items one by one it keeps the number of the present one in memory that the parent sees. When the worker dies or
the item takes too long, the parent knows the culprit, starts another worker and sends the job again with that item
marked.
Processes are spawned, not forked, so nothing depends on what threads the parent has; results come in the order of jobs.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import connection
from typing import Any, Generic, Protocol, TypeVar

from .errors import DeviceError, MoraLiteError

TIMEOUT, CRASHED = "timeout", "crashed"
MOST_MARKED = 1000  # items of one job; each costs the start of a process
_POLL_SECONDS = 0.2

Job = TypeVar("Job")
Result = TypeVar("Result")


class Work(Protocol[Job, Result]):
    """What a worker does. Called with a job, the statuses of items to leave out, and `at`, to be called with the number
    of each item before it is taken, and with -1 after the last.
    """

    def __call__(self, job: Any, marked: Mapping[int, str], at: Callable[[int], None]) -> Any: ...


@dataclass(eq=False)
class _Worker:
    """One process. place: shared int64 [2]: the item it is at, or -1; and since when, in nanoseconds."""

    process: Any
    pipe: Any
    place: Any
    number: int = -1  # of the job that it has
    job: Any = None
    marked: dict[int, str] = field(default_factory=dict)


class WorkerPool(Generic[Job, Result]):
    """`n` processes, each with its own `make(*arguments)`, which is called there and returns the `Work`.

    make and arguments must be picklable; so `make` is a function of a module. seconds: limit for one item.
    Raises `DeviceError` when a worker dies while it is at no item, which no other worker would survive either.
    Use it in a `with` block.
    """

    def __init__(self, n: int, make: Callable[..., Any], arguments: tuple[Any, ...] = (), seconds: float = 30.0):
        assert n > 0
        self._context = multiprocessing.get_context("spawn")
        self._make, self._arguments, self._limit = make, arguments, seconds
        self._n = n
        self._workers: list[_Worker] = []  # started when there is work for them

    def __enter__(self) -> WorkerPool[Job, Result]:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.pipe.close()
            worker.process.kill()
        for worker in self._workers:
            worker.process.join()

    def results(self, jobs: Iterator[Job]) -> Iterator[Result]:
        """The result of each job, in order. At most two jobs for each worker are on their way or wait to be taken."""
        most = 2 * self._n
        done: dict[int, Result] = {}
        waiting: deque[tuple[int, Job]] = deque()
        sent = taken = 0
        ended = False
        while True:
            while not ended and sent - taken < most:
                try:
                    waiting.append((sent, next(jobs)))
                    sent += 1
                except StopIteration:
                    ended = True
                self._hand_out(waiting)
            if ended and taken == sent:
                return
            self._collect(done)
            self._hand_out(waiting)
            while taken in done:
                yield done.pop(taken)
                taken += 1

    def _hand_out(self, waiting: deque[tuple[int, Job]]) -> None:
        if len(self._workers) < min(self._n, len(waiting)):
            self._workers += [self._start() for _ in range(self._n - len(self._workers))]
        for worker in self._workers:
            if worker.number < 0 and waiting:
                worker.number, worker.job = waiting.popleft()
                self._send(worker)

    def _send(self, worker: _Worker) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):  # it has died: `_collect` sees to it
            worker.pipe.send((worker.job, worker.marked))

    def _collect(self, done: dict[int, Any]) -> None:
        """Wait a little for results, deaths and items that take too long."""
        busy = [worker for worker in self._workers if worker.number >= 0]
        ready = connection.wait([w.pipe for w in busy] + [w.process.sentinel for w in busy], timeout=_POLL_SECONDS)
        for worker in busy:
            if worker.pipe in ready:
                try:
                    kind, value = worker.pipe.recv()
                except (EOFError, ConnectionResetError):
                    self._replace(worker, CRASHED)
                    continue
                if kind == "error":
                    raise value
                if kind == "bug":
                    raise RuntimeError(f"in a worker process:\n{value}")
                done[worker.number] = value
                worker.number, worker.job, worker.marked = -1, None, {}
            elif worker.process.sentinel in ready:
                self._replace(worker, CRASHED)
            else:
                item, since = worker.place
                if item >= 0 and time.monotonic_ns() - since > self._limit * 1e9:
                    self._replace(worker, TIMEOUT)

    def _replace(self, worker: _Worker, status: str) -> None:
        """A new process for the same job, without the item that the old one was at."""
        item = worker.place[0]
        worker.process.kill()
        worker.process.join()
        worker.pipe.close()
        code = worker.process.exitcode
        if item < 0 or len(worker.marked) >= MOST_MARKED:
            hint = " (killed: out of memory?)" if code == -signal.SIGKILL else f" (exit code {code})"
            raise DeviceError(
                f"a worker process died{hint}; what is finished is kept: use --resume with fewer --workers"
            )
        fresh = self._start()
        worker.process, worker.pipe, worker.place = fresh.process, fresh.pipe, fresh.place
        worker.marked = {**worker.marked, int(item): status}
        self._send(worker)

    def _start(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        place = self._context.RawArray("q", [-1, 0])
        process = self._context.Process(
            target=_run, args=(theirs, place, self._make, self._arguments, os.getpid()), daemon=True
        )
        process.start()
        theirs.close()
        return _Worker(process, ours, place)


def _run(pipe: Any, place: Any, make: Callable[..., Any], arguments: tuple[Any, ...], parent: int) -> None:
    """What a worker process does until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent ends its workers

    def at(item: int) -> None:
        place[1] = time.monotonic_ns()
        place[0] = item

    try:
        work = make(*arguments)
        while True:
            job, marked = pipe.recv()
            pipe.send(("done", work(job, marked, at)))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    except MoraLiteError as error:
        pipe.send(("error", error))
    except Exception:
        pipe.send(("bug", traceback.format_exc()))
