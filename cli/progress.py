"""Progress on stderr, and the summary at the end."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol

import typer

from .messages import invocation, say, say_more

if TYPE_CHECKING:
    from ..status import StatusCounts
    from ..text.loop import TextProgress
    from ..training.loop import TrainProgress

FIRST_SECONDS, NEXT_SECONDS = 1.5, 15.0  # until a line says what is done, where there is no bar


def print_lines(lines: Sequence[str]) -> None:
    for line in lines:
        say(line)


def print_summary(lines: Sequence[str], counts: StatusCounts) -> None:
    """Print the lines; end with exit code 1 if there were rows and none is ok."""
    print_lines(lines)
    if counts.n_rows and not counts.n_ok:
        raise typer.Exit(1)


class Measured(Protocol):
    """An open library."""

    n_kept: int

    def share_done(self, n_rows: int) -> float | None: ...


class OnProgress(Protocol):
    def __call__(self, n_rows: int, source: Measured | None = None) -> None: ...


@contextmanager
def progress_bar(opened: Measured | None = None) -> Iterator[OnProgress]:
    """A bar on stderr while the block runs, or, if stderr is no terminal, a line now and then.

    Yields a function to call with the number of rows done and with the open library, unless that is `opened`; then rows
    take long, and what the library reports of the next ones is shown too.
    """
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    from ..machine.progress import listening

    fields = (
        TextColumn("{task.fields[rows]:,} rows"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rate]:,.0f} molecules/s"),
        TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False),
    )
    started, state, within = time.perf_counter(), "loading ..." if opened is None else "0 rows", ""
    with Progress(*fields, **_bar_options()) as bar, _telling(bar, lambda: state + within):
        job = bar.add_task("", total=None, rows=0, rate=0.0)

        def on_report(work: str, done: int = 0, total: int | None = None) -> None:
            nonlocal within
            told = _in_words(work, done, total)
            within = f", {told}"
            bar.update(job, description=told)

        def on_progress(n_rows: int, source: Measured | None = opened) -> None:
            nonlocal state
            assert source is not None
            rate, share = (n_rows - source.n_kept) / (time.perf_counter() - started), source.share_done(n_rows)
            bar.update(job, total=None if share is None else 1.0, completed=share or 0.0, rows=n_rows, rate=rate)
            percent = "" if share is None else f", {100 * share:.0f} % of the input"
            state = f"{n_rows:,} rows{percent}, {rate:,.0f} molecules/s"

        with nullcontext() if opened is None else listening(on_report):
            yield on_progress


@contextmanager
def _telling(bar: Any, state: Callable[[], str]) -> Iterator[None]:
    """While the block runs say `state()` on stderr where there is no bar: after a little, then less often."""
    stop = threading.Event()

    def tell() -> None:
        wait = FIRST_SECONDS
        while not stop.wait(wait):
            say(state())
            wait = NEXT_SECONDS

    teller = threading.Thread(target=tell, daemon=True)
    if bar.disable and not invocation.quiet:
        teller.start()
    try:
        yield
    finally:
        stop.set()
        if teller.is_alive():
            teller.join()


def _in_words(work: str, done: int, total: int | None) -> str:
    """What is reported, see `machine.progress.report`."""
    return f"{work}: {done:,} of {total:,}" if total else f"{work} ..."


def _bar_options() -> dict[str, Any]:
    console = invocation.console
    return {"console": console, "transient": True, "disable": invocation.quiet or not console.is_terminal}


class Display:
    """What a long command is doing: a bar on a terminal, elsewhere a line now and then. Made by `show_work`."""

    def __init__(self, bar: Any, work: str):
        self._bar = bar
        self._job = bar.add_task(work, total=None, count="", text="")
        self._state: tuple[str, int, int | None] = (work, 0, None)
        self._started = time.perf_counter()

    def report(self, work: str, done: int = 0, total: int | None = None, text: str = "") -> None:
        """See `machine.progress.report`. text: stands behind the bar."""
        count = f"{done:,} of {total:,}" if total else ""
        if work != self._state[0]:
            say_more(f"{time.perf_counter() - self._started:8.1f} s  {work}")
        self._state = (work, done, total)
        options = {"description": work, "total": total, "completed": done, "count": "" if text else count, "text": text}
        self._bar.update(self._job, **options)

    def training(self, stage: str, at: TrainProgress) -> None:
        """Show a step of training; the end of an epoch is a line that stays."""
        minutes, seconds = divmod(round(at.seconds_left), 60)
        text = f"loss {at.loss:.4f}  {at.mol_per_s:,.0f} mol/s  {minutes}:{seconds:02} left"
        self.report(stage, at.step, at.n_steps, text)
        if at.epoch_done:
            step = f"{at.step:>6}/{at.n_steps}"
            valid = "not known" if math.isnan(at.valid_error) else f"{at.valid_error:.4f} (1 = the mean)"
            say(f"{stage:7} step {step}  valid {valid}  {text}")

    def text_training(self, at: TextProgress, seconds: float) -> None:
        """Show a step of training on texts, of which there are `seconds`, as a line that stays."""
        left = max(0, round(seconds - at.seconds))
        rate = f"{at.tokens_per_s:,.0f} tokens/s  {left // 60}:{left % 60:02} left"
        self.report("training", round(min(at.seconds, seconds)), round(seconds), rate)
        say(f"step {at.step:>6,}  epoch {at.epoch}  loss {at.loss:.4f}  {rate}")

    def state(self) -> str:
        """What is being done, in words."""
        return _in_words(*self._state)


@contextmanager
def show_work(work: str) -> Iterator[Display]:
    """Show on stderr what is done in the block; something moves within two seconds, whatever it is.

    Yields what shows it; what the library reports by `machine.progress.report` is shown too. work: what is done first.
    """
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from ..machine.progress import listening

    fields = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[count]}{task.fields[text]}"),
        TimeElapsedColumn(),
    )
    with Progress(*fields, **_bar_options()) as bar:
        display = Display(bar, work)
        with _telling(bar, display.state), listening(display.report):
            yield display
