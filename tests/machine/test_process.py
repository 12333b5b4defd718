"""How a process ends, and how often it searches for garbage: seen in processes of their own."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mora_lite.machine.process import SPINS

STAYS = """
class Stays:
    def __del__(self):
        print("freed")
stays = Stays()
"""


def run(code: str) -> tuple[int, str, str]:
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return ended.returncode, ended.stdout, ended.stderr


@pytest.mark.parametrize("code", [0, 1, 130])
def test_nothing_is_freed_at_the_end_but_all_is_written_and_done(code: int) -> None:
    first = "import sys, atexit; from mora_lite.machine.process import end_quickly; take = end_quickly()"
    then = f"atexit.register(print, 'registered'); print('done'); sys.exit(take({code}))"
    assert run(f"{first}\n{STAYS}\n{then}") == (code, "done\nregistered\n", "")
    assert "freed" in run(f"{STAYS}")[1], "as it is without"


def test_an_error_ends_the_process_as_ever() -> None:
    code, out, err = run(f"from mora_lite.machine.process import end_quickly; end_quickly()\n{STAYS}\n1 / 0")
    assert (code, out) == (1, "freed\n")
    assert "ZeroDivisionError" in err


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")
def test_what_cannot_be_written_is_an_error() -> None:
    code = "from mora_lite.machine.process import end_quickly; take = end_quickly(); print('lost'); take(0)"
    with open("/dev/full", "w") as full:
        ended = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, check=False)
    assert ended.returncode != 0
    assert b"No space left" in ended.stderr


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, SPINS), ({"GOMP_SPINCOUNT": "7"}, 7), ({"OMP_WAIT_POLICY": "ACTIVE"}, None)],
)
def test_waiting_threads_sleep_soon_unless_the_user_says_how_they_wait(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], expected: int | None
) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    program = "import os, sys, mora_lite; print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules)"
    assert run(program) == (0, f"{expected} False\n", "")


def test_garbage_is_searched_for_rarely() -> None:
    code = """
import gc
from mora_lite.machine.process import MADE, collect_rarely
others = gc.get_threshold()[1:]
collect_rarely()
print(gc.isenabled(), gc.get_threshold() == (MADE, *others))
"""
    assert run(code) == (0, "True True\n", "")
