"""What all commands have in common: --quiet and --verbose, the style of their help, and what an error looks like."""

from __future__ import annotations

import errno
import os
import re
import sys
import traceback
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from ..errors import MoraLiteError, error_text
from .messages import invocation, say, say_error

METAVARS = {"int": "N", "float": "X", "str": "TEXT", "Path": "PATH"}  # of options that name none


def _set_quiet(_: Any, __: Any, value: bool) -> None:
    invocation.quiet |= bool(value)


def _set_verbose(_: Any, __: Any, value: bool) -> None:
    invocation.verbose |= bool(value)


Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet", "-q", callback=_set_quiet, expose_value=False, help="Print errors only: no notes, bars or summary."
    ),
]
Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose", "-v", callback=_set_verbose, expose_value=False, help="Print more, and tracebacks of errors."
    ),
]


def _general_options() -> list[Any]:
    """--quiet and --verbose as they are built for a command."""
    template = typer.Typer(add_completion=False)

    @template.command()
    def general(quiet: Quiet = False, verbose: Verbose = False) -> None: ...

    return list(typer.main.get_command(template).params)


class Command(TyperCommand):
    """A command of the program."""

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self.params += _general_options()

    def get_params(self, ctx: Any) -> list[Any]:
        """All of them, with names for values in one style: capitals, and none for what takes no value."""
        return [_styled(param) for param in super().get_params(ctx)]


# What the system refuses, and to do what, wherever in a command it shows; some of it has other names on Windows.
_REFUSED = ("ENAMETOOLONG", "EACCES", "EPERM", "EROFS", "ELOOP", "EIO", "ESTALE")
_SYSTEM = {getattr(errno, name): "use" for name in _REFUSED if hasattr(errno, name)}
_SYSTEM |= {getattr(errno, name): "write" for name in ("ENOSPC", "EDQUOT") if hasattr(errno, name)}


class Commands(TyperGroup):
    """Turns the errors of a command into one message and an exit code. A bug keeps its traceback."""

    def get_params(self, ctx: Any) -> list[Any]:
        """As those of a command."""
        return [_styled(param) for param in super().get_params(ctx)]

    def invoke(self, ctx: Any) -> Any:
        """Run the command. Raises `typer.Exit` with the program's exit code."""
        try:
            return super().invoke(ctx)
        except MoraLiteError as error:
            if invocation.verbose:
                traceback.print_exc()
            say_error(str(error))
            raise typer.Exit(2) from None
        except ModuleNotFoundError as error:
            package = (error.name or "").split(".")[0]
            if package not in _required():
                raise
            say_error(f"this needs {package}, which is not installed: pip install {package}")
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            say("interrupted")
            raise typer.Exit(130) from None
        except BrokenPipeError:
            _drop_stdout()  # the reader (`head`, a pager) has read enough
            raise typer.Exit(141) from None
        except OSError as error:
            if error.errno not in _SYSTEM:
                raise
            if invocation.verbose:
                traceback.print_exc()
            if _SYSTEM[error.errno] == "write":
                _drop_stdout()
            say_error(f"cannot {_SYSTEM[error.errno]} {error.filename or 'the results'}: {error_text(error)}")
            raise typer.Exit(2) from None


def _drop_stdout() -> None:
    """Python must not complain when it flushes at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def is_usage_error(error: Exception) -> bool:
    """Whether Typer found the arguments wrong; which class it raises differs between its versions."""
    return hasattr(error, "format_message") and hasattr(error, "exit_code")


def say_usage_error(error: Any) -> int:
    """Print what is wrong with the arguments; returns the exit code."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        return int(error.exit_code)
    path = error.ctx.command_path if getattr(error, "ctx", None) is not None else "mora-lite"
    message = error.format_message().rstrip(".").replace("Input should be", "expected")
    say_error(f"{message}{_got(error, message)}; see {path} --help")
    return int(error.exit_code)


def _got(error: Any, message: str) -> str:
    """The value that was wrong, where the message has only what was expected."""
    found: list[Any] = getattr(error.__cause__, "errors", list)()  # of pydantic, which newer versions of Typer ask
    got = repr(found[0]["input"]) if found else ""
    return f", got {got}" if got not in message else ""


def _styled(param: Any) -> Any:
    if param.param_type_name == "argument":
        param.display_type_rich = lambda ctx: None  # its own name says enough
    elif getattr(param, "is_flag", False) or getattr(param, "count", False):
        param.metavar = ""
    elif param.metavar is None:
        plain = re.sub(r"^<|>$", "", param.display_type_rich(None)) if hasattr(param, "display_type_rich") else ""
        param.metavar = plain if "|" in plain else METAVARS.get(plain.split()[0] if plain else "", "TEXT")
    return param


def _required() -> set[str]:
    """Packages that this one depends on. Where only exported folders are run, some of them are not installed."""
    from importlib import metadata

    return {re.split(r"[^\w-]", line)[0] for line in metadata.requires("mora-lite") or ()}
