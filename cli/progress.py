"""Notes and bars on stderr: while files of molecules are read, while a model is trained."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import typer

if TYPE_CHECKING:
    from ..training.loop import TrainProgress


def print_note(note: str) -> None:
    typer.echo(f"note: {note}", err=True)


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


@contextmanager
def show_progress() -> Iterator[Callable[[str, TrainProgress], None]]:
    """A line on stderr for each epoch; on a terminal, a bar below them that moves within the epoch."""
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True, highlight=False)
    fields = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[text]}"))
    with Bar(*fields, console=console, transient=True, disable=not console.is_terminal) as bar:
        job = bar.add_task("reading", total=None, text="")

        def show(stage: str, at: TrainProgress) -> None:
            minutes, seconds = divmod(round(at.seconds_left), 60)
            text = f"loss {at.loss:.4f}  {at.mol_per_s:,.0f} mol/s  {minutes}:{seconds:02} left"
            bar.update(job, description=stage, total=at.n_steps, completed=at.step, text=text)
            if at.epoch_done:
                step = f"{at.step:>6}/{at.n_steps}"
                console.print(f"{stage:7} step {step}  valid {at.valid_error:.4f}  {text}", soft_wrap=True)

        yield show
