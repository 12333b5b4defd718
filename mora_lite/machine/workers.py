"""Worker processes that survive bad data: one that dies or hangs is replaced, and its job continues.

A job is a list of items that are taken first one by one (parsing) and then together (scoring). While a worker takes
items one by one it keeps the number of the current one in memory that the parent sees. When an item takes too long, or
two workers die at it, the parent sends the job to another worker with that item marked. One death proves nothing: a
system short of memory kills any process. When a worker dies between items, `BETWEEN` is marked, and the work has to
report its item at every step.
Processes are spawned, not forked, so nothing depends on the parent's threads; results come in the order of jobs.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import connection
from typing import Any, Generic, TypeVar

from ..errors import DeviceError, InputError, MoraLiteError, error_text
from ..status import CRASHED, TIMEOUT
from .process import collect_rarely

WORKER_BYTES = 700 << 20  # of one process with its model; measured, docs/screen.md
BETWEEN = -1  # in place of an item's number
MAX_MARKED = 1000  # items of one job; each costs the start of a process or two
_POLL_SECONDS = 0.2
_MAX_POLL = 1.0  # seconds that count between two looks: a laptop's sleep, or Ctrl-Z and fg, are no item's fault
_MAX_PIPES = 60  # Windows can wait for 63 at once
_ENDED_BY_ALARM = -26  # exit code of a process that SIGVTALRM ended
_KILLED = -9
_GUARD = 'in a script, call this under `if __name__ == "__main__":`, as worker processes import the script too'

JobT = TypeVar("JobT")
ResultT = TypeVar("ResultT")


class WorkerDied(DeviceError):
    """A worker process was killed, or died between items, which is not the fault of one of them."""


@dataclass(eq=False)
class _Worker:
    """One process, which gets its job when it is ready. item: shared int64, the number of the item it is at, or -1."""

    process: Any
    pipe: Any
    item: Any
    ready: bool = False
    number: int = -1  # of the job that it has
    job: Any = None
    marked: dict[int, str] = field(default_factory=dict)
    suspect: int = -1  # the item at which a worker with this job died
    seen: int = -1  # the item it was at when last looked at
    waited: float = 0.0  # seconds that it was seen there


class WorkerPool(Generic[JobT, ResultT]):
    """Up to `n` processes, each with its own `work = make(*arguments)`, called as `work(job, marked, at)`.

    make, arguments: picklable, so `make` is a function of a module.
    seconds: limit for one item.
    job: a list of items.
    marked: status of each item to leave out, by number.
    at: to be called with the number of each item before it is taken, and with -1 after the last.

    Use it in a `with` block. Raises `WorkerDied` when a worker dies between items a second time, which no other worker
    would survive either.
    """

    def __init__(self, n: int, make: Callable[..., Any], arguments: tuple[Any, ...] = (), seconds: float = 30.0):
        assert n > 0
        self._context = multiprocessing.get_context("spawn")
        self._make, self._arguments, self._limit = make, arguments, seconds
        self._n = min(n, _MAX_PIPES) if sys.platform == "win32" else n
        self._workers: list[_Worker] = []  # started when there is work for them
        self._looked = 0.0

    def __enter__(self) -> WorkerPool[JobT, ResultT]:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.pipe.close()
            worker.process.kill()
        for worker in self._workers:
            worker.process.join()

    def results(self, jobs: Iterator[Any]) -> Iterator[Any]:
        """The result of each job, in order. At most two jobs for each worker are on their way or wait to be taken.

        A job that is None needs no worker, and has the result None.
        """
        max_sent = 2 * self._n
        done: dict[int, ResultT | None] = {}
        waiting: deque[tuple[int, JobT]] = deque()
        sent = taken = 0
        ended = False
        while True:
            while not ended and sent - taken < max_sent:
                try:
                    job = next(jobs)
                except StopIteration:
                    ended = True
                    break
                if job is None:
                    done[sent] = None
                else:
                    waiting.append((sent, job))
                    self._hand_out(waiting)
                sent += 1
            if ended and taken == sent:
                return
            self._collect(done, wait=taken not in done)
            self._hand_out(waiting)
            while taken in done:
                yield done.pop(taken)
                taken += 1

    def _hand_out(self, waiting: deque[tuple[int, JobT]]) -> None:
        while waiting:
            worker = next((worker for worker in self._workers if worker.number < 0), None)
            if worker is None:
                if len(self._workers) == self._n:
                    return
                worker = self._start()
                self._workers.append(worker)
            worker.number, worker.job = waiting.popleft()
            self._send(worker)

    def _send(self, worker: _Worker) -> None:
        """Send a worker its job once it is ready: until then a job larger than the pipe would block all others."""
        if worker.ready:
            worker.seen, worker.waited = -1, 0.0
            with suppress(OSError):  # it has died, which `_collect` handles
                worker.pipe.send((worker.job, worker.marked))

    def _collect(self, done: dict[int, Any], wait: bool) -> None:
        """Wait a little, if at all, for results, deaths and items that take too long."""
        busy = [worker for worker in self._workers if worker.number >= 0]
        ready = connection.wait([worker.pipe for worker in busy], timeout=_POLL_SECONDS * wait)  # death closes it too
        now = time.monotonic()
        passed, self._looked = min(now - self._looked, _MAX_POLL), now
        for worker in busy:
            if worker.pipe in ready:
                self._receive(worker, done)
            elif self._is_late(worker, passed):
                self._replace(worker, worker.seen, TIMEOUT)

    def _receive(self, worker: _Worker, done: dict[int, Any]) -> None:
        try:
            kind, value = worker.pipe.recv()
        except (EOFError, OSError):  # dead; the second in the middle of an answer
            worker.process.join()
            self._replace(worker, worker.item.value, CRASHED)
            return
        if kind == "ready":
            worker.ready = True
            self._send(worker)
        elif kind == "done":
            done[worker.number] = value
            worker.number, worker.job, worker.marked, worker.suspect = -1, None, {}, -1
        elif kind == "error":
            raise value
        else:
            raise RuntimeError(f"in a worker process:\n{value}")

    def _is_late(self, worker: _Worker, passed: float) -> bool:
        item = worker.item.value
        worker.waited = worker.waited + passed if item == worker.seen else 0.0
        worker.seen = item
        return item >= 0 and worker.waited > self._limit

    def _replace(self, worker: _Worker, item: int, status: str) -> None:
        """A new process for the same job; without the item that the old one was at, if that is to blame."""
        worker.process.kill()
        worker.process.join()
        worker.pipe.close()
        code = worker.process.exitcode
        if code == 1 and not worker.ready:  # it could not import the script: all else is reported
            raise WorkerDied(f"a worker process cannot start; {_GUARD}")
        if item < 0 and code != _KILLED and BETWEEN not in worker.marked:
            worker.marked[BETWEEN] = status
        elif item < 0:
            how = "killed: out of memory?" if code == _KILLED else f"exit code {code}"
            raise WorkerDied(f"a worker process died ({how}); use fewer --workers")
        elif status == CRASHED and code != _ENDED_BY_ALARM and worker.suspect != item:
            worker.suspect = item
        else:
            worker.marked[item] = TIMEOUT if code == _ENDED_BY_ALARM else status
        if len(worker.marked) > MAX_MARKED:
            raise DeviceError(
                f"more than {MAX_MARKED:,} rows near each other take too long or crash ({status}); look at the "
                "input, or raise --time-limit"
            )
        fresh = self._start()
        worker.process, worker.pipe, worker.item, worker.ready = fresh.process, fresh.pipe, fresh.item, False

    def _start(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        item = self._context.RawValue("q", -1)
        process = self._context.Process(
            target=_run, args=(theirs, item, self._make, self._arguments, self._limit), daemon=True
        )
        try:
            with _interrupts_later():
                process.start()
        except OSError as error:
            raise DeviceError(f"cannot start a worker process: {error_text(error)}; use fewer --workers") from None
        theirs.close()
        return _Worker(process, ours, item)


def check_guarded() -> None:
    """Raise `InputError` in a worker process that is only importing the script it was started by."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise InputError(_GUARD)


@contextmanager
def _interrupts_later() -> Iterator[None]:
    """Ctrl-C goes to the whole group: a process started here does not get it before it can ignore it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _run(pipe: Any, item_now: Any, make: Callable[..., Any], arguments: tuple[Any, ...], limit: float) -> None:
    """Work until the pipe closes. item_now: shared int64, the number of the item that is being taken."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    collect_rarely()
    has_alarm = hasattr(signal, "setitimer")

    def at(item: int) -> None:
        item_now.value = item
        if has_alarm:
            # The system ends this process if nobody else does: when the parent was killed while this one hangs in
            # RDKit, where no Python thread gets a turn. Of processor time, so that a stopped process may continue.
            signal.setitimer(signal.ITIMER_VIRTUAL, min(2 * limit, 1e6) if item >= 0 else 0)

    with suppress(EOFError, OSError):  # the parent is gone, or needs no more
        pipe.send(_work_until_error(pipe, make, arguments, at))


def _work_until_error(
    pipe: Any, make: Callable[..., Any], arguments: tuple[Any, ...], at: Callable[[int], None]
) -> tuple[str, Any]:
    """What goes to the parent at the end."""
    try:
        work = make(*arguments)
        pipe.send(("ready", None))
        while True:
            job, marked = pipe.recv()
            pipe.send(("done", work(job, marked, at)))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        raise
    except MoraLiteError as error:
        return "error", error
    except MemoryError:
        return "error", DeviceError("a worker process is out of memory; use fewer --workers")
    except Exception:
        return "bug", traceback.format_exc()


def usable_cores() -> int:
    """Processor cores that this process may use, which may be fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_workers() -> int:
    """A process for each processor core that this one may use, if memory suffices."""
    import psutil

    return max(1, min(usable_cores(), int(psutil.virtual_memory().available * 0.8 / WORKER_BYTES)))
