"""The `mora-lite` program and its commands.

Nothing heavy is imported here or at the top of a command's file, so that `mora-lite --help` stays quick.
Exit codes: 0 done, 1 no row could be scored, 2 wrong use, input or environment, 130 interrupted.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Sequence
from typing import Annotated

import typer

from .. import __version__
from ..machine.process import collect_rarely, end_quickly
from . import (
    bench,
    cache,
    calibrate,
    evaluate,
    evaluate_text,
    explain,
    export,
    generate,
    info,
    messages,
    predict,
    pretrain,
    pull,
    push,
    quantize,
    screen,
    serve,
    train,
    train_text,
)
from .command import Command, Commands, Quiet, Verbose, is_usage_error, say_usage_error

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
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Score molecules with a frozen 4-bit language model that gets low-rank weights made from each molecule's graph.

    MORA_LITE_PACK, MORA_LITE_TASKS and MORA_LITE_DEVICE are defaults of the
    options --pack, --tasks and --device.
    """


# In the order of work.
PANELS: dict[str, tuple[Callable[..., None], ...]] = {
    "Score molecules": (predict.predict, screen.screen, explain.explain, serve.serve),
    "Train on your own data": (train.train, evaluate.evaluate, calibrate.calibrate, pretrain.pretrain),
    "Answers in text": (generate.generate, train_text.train_text, evaluate_text.evaluate_text),
    "Models, and this machine": (
        export.export,
        quantize.quantize,
        pull.pull,
        push.push,
        bench.bench,
        info.info,
        cache.cache,
    ),
}
for panel, functions in PANELS.items():
    for function in functions:
        app.command(function.__name__.replace("_", "-"), cls=Command, rich_help_panel=panel)(function)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program with `arguments`, or, as the whole of a process, with its own; returns the exit code."""
    if arguments is None:
        collect_rarely()
        return end_quickly()(main(sys.argv[1:]))
    arguments = list(arguments)
    messages.start(arguments)
    _stop_cleanly()
    try:
        code = app(args=arguments, prog_name="mora-lite", standalone_mode=False)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except Exception as error:
        if not is_usage_error(error):
            raise
        return say_usage_error(error)
    return code if isinstance(code, int) else 0


def _stop_cleanly() -> None:
    """Let a polite kill unwind the stack as Ctrl-C does, so that no half-written file stays."""

    def stop(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name) and signal.getsignal(getattr(signal, name)) is signal.SIG_DFL:
            signal.signal(getattr(signal, name), stop)
