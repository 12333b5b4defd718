"""Work for `test_workers`, in a module of its own: worker processes import it by name, and quickly.

An item of a job is a text that says what becomes of the worker.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mora_lite.errors import InputError, PackError
from mora_lite.machine.workers import BETWEEN


def take(job: list[str], marked: Mapping[int, str], at: Callable[[int], None]) -> list[str]:
    """Each item in capitals, or its mark."""
    found = []
    for i, item in enumerate(job):
        at(i)
        found.append(marked[i] if i in marked else _taken(item))
    at(-1)
    if BETWEEN in marked:
        for i, item in enumerate(found):
            at(i)
            _taken(item.removeprefix("together "))
        at(-1)
    if any(item.startswith("together ") for item in found):
        _taken("exit")
    return [_taken(item.removeprefix("later ")) if item.startswith("later ") else item for item in found]


def _taken(item: str) -> str:
    word, _, rest = item.partition(" ")
    if word == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    elif word == "die-once" and not Path(rest).exists():
        Path(rest).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    elif word == "exit":
        os._exit(3)
    elif word == "hang":
        time.sleep(3600)
    elif word == "spin":
        Path(rest).write_text(str(os.getpid()))
        while True:
            pass
    elif word == "bug":
        raise ZeroDivisionError("a bug of ours")
    elif word == "refuse":
        raise InputError("got this, expected that")
    elif word == "exhaust":
        raise MemoryError
    elif word == "large":
        return "x" * int(rest)
    elif word in ("later", "together"):
        return item
    return item.upper()


def make() -> Any:
    return take


def make_slowly() -> Any:
    time.sleep(1)
    return take


def make_none() -> Any:
    raise PackError("no such pack")


def make_dead() -> Any:
    os._exit(7)


def end_in_the_middle(pipe: Any) -> Any:
    """Announces an answer of a megabyte and dies after its first bytes."""
    pipe.send(("ready", None))
    pipe.recv()
    os.write(pipe.fileno(), (1 << 20).to_bytes(4, "big") + b"half")
    os._exit(0)
