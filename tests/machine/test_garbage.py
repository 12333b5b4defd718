"""Python searches for garbage rarely: seen from a process of its own, as it is set for a whole process."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import atexit, gc
atexit.register(lambda: print("frozen" if gc.get_freeze_count() else "not frozen"))
from mora_lite.machine.garbage import MADE, collect_rarely
others = gc.get_threshold()[1:]
collect_rarely()
print(gc.isenabled(), gc.get_threshold() == (MADE, *others))
"""


def test_rarely_and_not_at_the_end() -> None:
    ended = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert ended.stdout.split("\n") == ["True True", "frozen", ""]
