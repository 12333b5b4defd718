"""Worker processes: results in order, and no item that kills or stops a worker keeps the others from being done."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from mora_lite.errors import DeviceError, InputError, PackError
from mora_lite.machine import workers
from mora_lite.machine.workers import WorkerPool
from mora_lite.status import CRASHED, TIMEOUT

SUPPORT = Path(__file__).parents[1] / "support"
PATIENCE = 60.0  # seconds; a busy machine is no fault


@pytest.fixture(autouse=True)
def works(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module `pool_works`, which spawned processes find too."""
    monkeypatch.syspath_prepend(SUPPORT)
    import pool_works

    return pool_works


def done(works: Any, *jobs: list[str], n: int = 1, seconds: float = PATIENCE) -> list[list[str]]:
    with WorkerPool[list[str], list[str]](n, works.make, (), seconds) as workers:
        return list(workers.results(iter(jobs)))


def test_results_come_in_the_order_of_the_jobs_and_jobs_are_taken_as_needed(works: Any) -> None:
    taken = 0

    def jobs() -> Iterator[list[str]]:
        nonlocal taken
        for i in range(40):
            taken += 1
            yield [f"job {i}", "large 300000" if i % 3 == 0 else "b"]

    with WorkerPool[list[str], list[str]](2, works.make) as workers:
        for i, result in enumerate(workers.results(jobs())):
            assert result[0] == f"JOB {i}"
            assert taken <= i + 4  # two for each worker
    assert i == 39


def test_jobs_and_results_larger_than_a_pipe_pass_each_other(works: Any) -> None:
    jobs = [["large 2000000", "x" * 2_000_000] for _ in range(6)]
    assert [[len(item) for item in result] for result in done(works, *jobs, n=2)] == [[2_000_000] * 2] * 6


def test_no_jobs_need_no_process_and_few_jobs_few(works: Any) -> None:
    with WorkerPool[list[str], list[str]](8, works.make) as workers:
        assert list(workers.results(iter([]))) == []
        assert workers._workers == []
        assert list(workers.results(iter([["a"]]))) == [["A"]]
        assert len(workers._workers) == 1


def test_a_job_that_is_none_needs_no_worker_and_keeps_its_place(works: Any) -> None:
    with WorkerPool[list[str], list[str]](2, works.make) as workers:
        assert list(workers.results(iter([None] * 20))) == [None] * 20
        assert workers._workers == []
        assert list(workers.results(iter([None, ["a"], None, None, ["b"]]))) == [None, ["A"], None, None, ["B"]]


def test_windows_waits_for_no_more_handles_than_it_can(works: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """That is 63 at once before Python 3.13."""
    wait, handles = workers.connection.wait, 0

    def count(objects: list[Any], timeout: float) -> list[Any]:
        nonlocal handles
        handles = max(handles, len(objects))
        return wait(objects, timeout)

    monkeypatch.setattr(workers.connection, "wait", count)
    assert done(works, *[["a"]] * 6, n=2) == [["A"]] * 6
    assert handles == 2
    monkeypatch.setattr(sys, "platform", "win32")
    assert WorkerPool[list[str], list[str]](128, works.make)._n <= 63


def test_items_that_kill_or_stop_a_worker_are_marked_and_the_others_done(works: Any) -> None:
    jobs = [["a", "die", "b", "hang", "c", "exit"], ["d"], ["die"]]
    expected = [["A", CRASHED, "B", TIMEOUT, "C", CRASHED], ["D"], [CRASHED]]
    assert done(works, *jobs, n=2, seconds=1.0) == expected


def test_an_item_that_kills_a_worker_when_all_are_taken_together_is_found(works: Any) -> None:
    assert done(works, ["a", "together exit", "c"], ["d"]) == [["A", CRASHED, "C"], ["D"]]


def test_one_death_is_not_held_against_an_item(works: Any, tmp_path: Path) -> None:
    """The system may have killed the worker for reasons of its own, and results must not depend on that."""
    item = f"die-once {tmp_path / 'died'}"
    assert done(works, ["a", item]) == [["A", item.upper()]]
    assert (tmp_path / "died").exists()


def test_a_worker_that_is_stopped_for_a_while_loses_nothing(works: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The parent's clock ran on, as after Ctrl-Z and fg, or a laptop's sleep; the items did not."""
    clock = time.monotonic
    monkeypatch.setattr(workers.time, "monotonic", lambda: clock() * 1e6)
    assert done(works, *[["a"] * 100] * 5, seconds=30) == [["A"] * 100] * 5


def test_too_many_bad_items_end_the_run(works: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "MAX_MARKED", 1)
    with pytest.raises(DeviceError, match="more than 1 rows near each other"):
        done(works, ["die", "die"])


@pytest.mark.parametrize(
    ("item", "error", "words"),
    [
        ("bug", RuntimeError, "(?s)in a worker process:.*pool_works.py.*ZeroDivisionError: a bug of ours"),
        ("refuse", InputError, "got this, expected that"),
        ("exhaust", DeviceError, "out of memory.*fewer --workers"),
        ("later die", DeviceError, r"died \(killed: out of memory\?\); use fewer --workers$"),
        ("later exit", DeviceError, r"died \(exit code 3\)"),
    ],
)
def test_what_is_no_items_fault_reaches_the_parent(works: Any, item: str, error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        done(works, ["a", item])


def test_a_work_that_cannot_be_made_is_told(works: Any) -> None:
    for make, error, words in [
        (works.make_none, PackError, "no such pack"),
        (works.make_dead, DeviceError, r"died \(exit code 7\)"),
    ]:
        with WorkerPool[list[str], list[str]](1, make) as workers, pytest.raises(error, match=words):
            list(workers.results(iter([["a"]])))


def test_a_script_without_a_guard_is_told_what_to_do(tmp_path: Path) -> None:
    """By its worker process, which imports it too, and at once by its own."""
    script = tmp_path / "script.py"
    script.write_text(
        "from mora_lite.machine.workers import WorkerPool, check_guarded\n"
        "check_guarded()\n"
        "with WorkerPool(1, print) as pool:\n"
        "    list(pool.results(iter([['a']])))\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    theirs, ours = [line for line in done.stderr.splitlines() if line.startswith("mora_lite.")]
    assert theirs.startswith("mora_lite.errors.InputError: in a script, call this under `if __name__")
    assert ours.startswith(
        "mora_lite.machine.workers.WorkerDied: a worker process cannot start; in a script, call this under"
    )


def test_an_answer_that_breaks_off_is_a_death(works: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    start = WorkerPool._start

    def start_broken(self: Any) -> Any:
        worker = start(self)
        ours, theirs = self._context.Pipe()
        worker.process.kill()
        worker.process = self._context.Process(target=works.end_in_the_middle, args=(theirs,), daemon=True)
        worker.process.start()
        theirs.close()
        worker.pipe = ours
        return worker

    monkeypatch.setattr(WorkerPool, "_start", start_broken)
    with pytest.raises(DeviceError, match=r"died \(exit code 0\)"):
        done(works, ["a"])


def test_a_system_without_room_for_a_process_is_told(works: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    from multiprocessing.context import SpawnProcess

    monkeypatch.setattr(SpawnProcess, "_Popen", staticmethod(refuse))
    with pytest.raises(DeviceError, match="cannot start a worker process: Resource temporarily unavailable; use fewer"):
        done(works, ["a"])


def test_a_slow_start_holds_up_nobody(works: Any) -> None:
    """A job larger than a pipe would, were it sent to a process that does not read yet."""
    with WorkerPool[list[str], list[str]](2, works.make_slowly) as workers:
        assert [len(result[0]) for result in workers.results(iter([["x" * 500_000]] * 4))] == [500_000] * 4


def test_the_end_of_the_block_ends_the_workers(works: Any) -> None:
    with WorkerPool[list[str], list[str]](2, works.make) as workers:
        results = workers.results(iter([["a"], ["hang"], ["b"]]))
        assert next(results) == ["A"]
        processes = [worker.process for worker in workers._workers]
    assert not any(process.is_alive() for process in processes)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="the system has no timers of processor time")
def test_a_worker_that_hangs_does_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    note = tmp_path / "worker"
    script = tmp_path / "parent.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(SUPPORT)!r})\n"
        "import pool_works\nfrom mora_lite.machine.workers import WorkerPool\n"
        "if __name__ == '__main__':\n"
        "    with WorkerPool(2, pool_works.make, (), 0.5) as workers:\n"
        f"        list(workers.results(iter([['spin {note}'], ['a'] * 10])))\n"
    )
    parent = subprocess.Popen([sys.executable, str(script)], env=dict(os.environ))
    wait_until(lambda: note.exists() and note.read_text() != "")
    os.kill(parent.pid, signal.SIGSTOP)  # or it would see to the worker itself
    children = psutil.Process(parent.pid).children(recursive=True)
    assert int(note.read_text()) in [child.pid for child in children]
    parent.kill()
    parent.wait()
    wait_until(lambda: not any(is_running(child) for child in children))


def test_ctrl_c_does_not_reach_a_worker_that_is_starting(works: Any, capfd: pytest.CaptureFixture[str]) -> None:
    with WorkerPool[list[str], list[str]](1, works.make_slowly) as workers:
        results = workers.results(iter([["a"]]))
        timer = threading.Timer(0.1, lambda: os.kill(workers._workers[0].process.pid, signal.SIGINT))
        timer.start()
        assert next(results) == ["A"]
        timer.join()
    assert "Traceback" not in capfd.readouterr().err


def is_running(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def wait_until(holds: Any) -> None:
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)
