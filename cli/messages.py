"""What commands say on stderr, line by line: notes, summaries, errors. Results alone go to stdout."""

from __future__ import annotations

import os
import re
import shlex
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


@dataclass
class Invocation:
    """How the program was called. arguments: without its name."""

    arguments: Sequence[str] = ()
    quiet: bool = False
    verbose: bool = False

    def command_line(self) -> str:
        """The same call once more, to be pasted into a shell."""
        return shlex.join(["mora-lite", *self.arguments])

    @cached_property
    def console(self) -> Console:
        """The one on stderr: a line that is printed while a bar moves stands above the bar."""
        from rich.console import Console

        return Console(stderr=True, highlight=False)


invocation = Invocation()


def start(arguments: Sequence[str]) -> None:
    """Forget what an earlier call in this process said of itself."""
    invocation.arguments, invocation.quiet, invocation.verbose = list(arguments), False, False


def say(line: str) -> None:
    """Print a line for the user, broken between words where it is wider than the terminal; nothing with --quiet."""
    if not invocation.quiet:
        _print(line)


def say_error(line: str) -> None:
    """Print an error, also with --quiet."""
    _print(f"error: {' '.join(line.split())}")


def say_more(line: str) -> None:
    """Print a line that only --verbose asks for."""
    if invocation.verbose:
        say(line)


def print_note(*notes: str) -> None:
    """Print a line for each note."""
    for note in notes:
        say(f"note: {note}")


def say_command(command: str) -> None:
    """Print a command that can be pasted into a shell, however narrow the terminal is."""
    width = _width()
    lines = wrap(command, width - 4).split("\n") if width else [command]
    if not invocation.quiet:
        _print_as_it_is("  " + " \\\n  ".join(lines))


def _print(line: str) -> None:
    width = _width()
    _print_as_it_is(wrap(line, width) if width else line)


def _width() -> int | None:
    """Of the terminal. What reads a pipe wants a message on one line, unless COLUMNS says how wide it is."""
    console = invocation.console
    return console.width if console.is_terminal or "COLUMNS" in os.environ else None


def _print_as_it_is(text: str) -> None:
    text = re.sub(r"\\udc[89a-f][0-9a-f]", "\ufffd", text)  # of a quoted name whose bytes are not UTF-8
    invocation.console.print(text, markup=False, highlight=False, soft_wrap=True)


def wrap(line: str, width: int) -> str:
    """`line` as lines of at most `width` characters; only what has no blank in it may be wider."""
    return textwrap.fill(line, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def say_stopped(what: str, command: str) -> None:
    """Say what is kept of work that was stopped, and the command that goes on with it."""
    say(f"stopped: {what}")
    say("this goes on from there:")
    say_command(command)


@contextmanager
def keeping(what: str, output: Path) -> Iterator[None]:
    """Where the block is stopped, say what is kept of its work, and the command that goes on.

    output: what the command writes; where it is there already, the same command has to replace it.
    """
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        force = " --force" if output.exists() and "--force" not in invocation.arguments else ""
        say_stopped(what, invocation.command_line() + force)
        raise
