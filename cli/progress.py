"""What commands say on stderr: notes, progress bars, and the summary at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import typer

if TYPE_CHECKING:
    from ..status import StatusCounts
    from ..training.loop import TrainProgress


def print_note(note: str) -> None:
    typer.echo(f"note: {note}", err=True)


def print_lines(lines: Sequence[str]) -> None:
    for line in lines:
        typer.echo(line, err=True)


def print_summary(lines: Sequence[str], counts: StatusCounts) -> None:
    """Print the lines; end with exit code 1 if there were rows and none is ok."""
    print_lines(lines)
    if counts.n_rows and not counts.n_ok:
        raise typer.Exit(1)


class Measured(Protocol):
    """An open file or library. bytes_total: None when its size is not known."""

    @property
    def bytes_total(self) -> int | None: ...
    @property
    def bytes_read(self) -> int: ...


class OnProgress(Protocol):
    def __call__(self, n_rows: int, source: Measured | None = None) -> None: ...


@contextmanager
def progress_bar(opened: Measured | None = None) -> Iterator[OnProgress]:
    """A bar on stderr while the block runs, if stderr is a terminal.

    Yields a function to call with the number of rows done and with the open library, unless that is `opened`.
    """
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
        job = bar.add_task("", total=None if opened is None else opened.bytes_total, rows=0, rate=0.0)

        def on_progress(n_rows: int, source: Measured | None = opened) -> None:
            assert source is not None
            rate = n_rows / (time.perf_counter() - started)
            bar.update(job, total=source.bytes_total, completed=source.bytes_read, rows=n_rows, rate=rate)

        yield on_progress


@contextmanager
def show_progress() -> Iterator[Callable[[str, TrainProgress], None]]:
    """A line on stderr for each epoch; on a terminal also a bar below them that moves within the epoch."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    console = Console(stderr=True, highlight=False)
    fields = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[text]}"))
    with Progress(*fields, console=console, transient=True, disable=not console.is_terminal) as bar:
        job = bar.add_task("reading", total=None, text="")

        def show(stage: str, at: TrainProgress) -> None:
            minutes, seconds = divmod(round(at.seconds_left), 60)
            text = f"loss {at.loss:.4f}  {at.mol_per_s:,.0f} mol/s  {minutes}:{seconds:02} left"
            bar.update(job, description=stage, total=at.n_steps, completed=at.step, text=text)
            if at.epoch_done:
                step = f"{at.step:>6}/{at.n_steps}"
                console.print(f"{stage:7} step {step}  valid {at.valid_error:.4f}  {text}", soft_wrap=True)

        yield show
