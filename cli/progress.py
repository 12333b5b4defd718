"""A bar on stderr while files of molecules are read."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol


class Measured(Protocol):
    """What is read: bytes_total is None when its size is not known."""

    @property
    def bytes_total(self) -> int | None: ...
    @property
    def bytes_read(self) -> int: ...


@contextmanager
def progress_bar(source: Measured) -> Iterator[Callable[[int], None]]:
    """A bar on stderr while the block runs, if stderr is a terminal; told how many rows are done."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    fields = (
        TextColumn("{task.fields[rows]:,} rows"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]:,.0f} molecules/s"),
        TimeRemainingColumn(),
    )
    started = time.perf_counter()
    with Progress(*fields, console=console, transient=True, disable=not console.is_terminal) as bar:
        job = bar.add_task("", total=source.bytes_total, rows=0, rate=0.0)

        def on_progress(n_rows: int) -> None:
            rate = n_rows / (time.perf_counter() - started)
            bar.update(job, completed=source.bytes_read, rows=n_rows, rate=rate)

        yield on_progress
