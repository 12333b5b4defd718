"""The `mora-lite` program: its commands, and what an error looks like from outside.

Nothing heavy is imported here or at the top of a command's file, so that `mora-lite --help` stays quick.
Exit codes: 0 done, 1 no row could be scored, 2 wrong use, input or environment, 130 interrupted.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from .. import __version__
from ..errors import MoraLiteError
from . import (
    bench,
    calibrate,
    evaluate,
    evaluate_text,
    export,
    generate,
    info,
    predict,
    prepare,
    pretrain,
    pull,
    push,
    quantize,
    screen,
    train,
    train_text,
)


class Commands(TyperGroup):
    """Turns the errors of a command into one line and an exit code. A bug keeps its traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except MoraLiteError as error:
            typer.echo(f"error: {' '.join(str(error).split())}", err=True)
            raise typer.Exit(2) from None
        except ModuleNotFoundError as error:
            package = (error.name or "").split(".")[0]
            if package not in _required():
                raise
            typer.echo(f"error: this needs {package}, which is not installed: pip install {package}", err=True)
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            typer.echo("interrupted", err=True)
            raise typer.Exit(130) from None
        except BrokenPipeError:
            # The reader (`head`, a pager) has read enough; Python must not complain when it flushes at the end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(141) from None


def _required() -> set[str]:
    """Packages that this one depends on. Where only exported folders are run, some of them are not installed."""
    from importlib import metadata

    return {re.split(r"[^\w-]", line)[0] for line in metadata.requires("mora-lite") or ()}


app = typer.Typer(
    name="mora-lite",
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: mora-lite predict molecules.csv",
)


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"mora-lite {__version__}")
        raise typer.Exit()


@app.callback()
def describe(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Score molecules with a frozen 4-bit language model that gets low-rank weights made from each molecule's graph."""


app.command("predict")(predict.predict)
app.command("prepare")(prepare.prepare)
app.command("generate")(generate.generate)
app.command("info")(info.info)
app.command("evaluate")(evaluate.evaluate)
app.command("evaluate-text")(evaluate_text.evaluate_text)
app.command("quantize")(quantize.quantize)
app.command("pull")(pull.pull)
app.command("push")(push.push)
app.command("screen")(screen.screen)
app.command("train")(train.train)
app.command("train-text")(train_text.train_text)
app.command("calibrate")(calibrate.calibrate)
app.command("pretrain")(pretrain.pretrain)
app.command("bench")(bench.bench)
app.command("export")(export.export)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program with `arguments` (default: those of the process); returns the exit code."""
    _stop_cleanly()
    try:
        app(args=arguments, prog_name="mora-lite")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def _stop_cleanly() -> None:
    """Let a polite kill unwind the stack as Ctrl-C does, so that no half-written file stays."""

    def stop(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name) and signal.getsignal(getattr(signal, name)) is signal.SIG_DFL:
            signal.signal(getattr(signal, name), stop)
