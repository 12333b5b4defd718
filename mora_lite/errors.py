"""Errors that a user can act on.

Every message is one line of the shape "got X, expected Y; what to do". The command line prints it without a traceback
and ends with exit code 2; a bug raises `AssertionError` or whatever Python raises, with its traceback.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

LISTED_NAMES = 12  # known names that an error message lists
# What the reading of a file, or arithmetic with what it says, may raise where that is not what it should be.
_UNFIT = (OSError, LookupError, TypeError, AttributeError, ValueError, ArithmeticError, RuntimeError)


class MoraLiteError(ValueError):
    """A wrong input, option, file or environment: the message says what to do about it."""


class InputError(MoraLiteError):
    """The user's table, molecule file, text or option cannot be used."""


class OutputError(MoraLiteError):
    """The output exists already or cannot be written."""


class CheckpointError(MoraLiteError):
    """A model checkpoint (safetensors, GGUF) is missing, damaged or of an unsupported kind."""


class PackError(MoraLiteError):
    """A pack or one of its tasks is unknown, damaged or of another format version."""


class ExportError(MoraLiteError):
    """A model cannot be exported, or the exported one does not give the model's numbers."""


class DeviceError(MoraLiteError):
    """The requested device, number type or optional package is not available."""


@contextmanager
def fitting(message: str, again: str, error_type: type[MoraLiteError] = PackError) -> Iterator[None]:
    """Raises an error where what is read in the block cannot be read, or is not what its reader takes.

    message: what is wrong. again: what to do about it.
    """
    try:
        yield
    except MoraLiteError:
        raise
    except (*_UNFIT, AssertionError, MemoryError) as error:
        raise error_type(f"{message} ({type(error).__name__}: {first_line(error)}); {again}") from None


def check_range(name: str, value: float, least: float, below: float = math.inf) -> None:
    """Raises `InputError` where `value` is not a finite number from `least` on and below `below`."""
    if not least <= value < below:
        expected = f"{least} or more" if value < least else f"a number below {below}"
        raise InputError(f"{name}: got {value}, expected {expected}")


def error_text(error: BaseException) -> str:
    """The message of a Python exception, without the error number and the file name."""
    return (error.strerror if isinstance(error, OSError) and error.strerror else str(error)) or type(error).__name__


def first_line(error: BaseException, max_characters: int = 160) -> str:
    """The beginning of what an exception of another library says, or its name."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:max_characters]


def shortened(text: str) -> str:
    """A text in quotes, for a message; of a long one the beginning."""
    return repr(text if len(text) <= 40 else f"{text[:37]}...")


def did_you_mean(got: str, known: Iterable[str]) -> str:
    """A hint for an error message: the names nearest to `got`, then those that are known, unless these are many."""
    known = sorted(known)
    plain = {name.strip().lower(): name for name in known}
    near = [plain[name] for name in difflib.get_close_matches(got.strip().lower(), plain, n=3, cutoff=0.5)]
    shown = [_quoted(name) for name in known[:LISTED_NAMES]]
    rest = len(known) - len(shown)
    if near:
        hint = f"did you mean {' or '.join(map(_quoted, near))}? "
        return hint + (f"{len(known)} are known" if rest else f"known: {', '.join(shown)}")
    return f"known: {', '.join(shown) or 'none'}{f' and {rest} others' if rest else ''}"


def _quoted(name: str) -> str:
    """A name as it is, or in quotes where blanks at its ends would not be seen."""
    return name if name == name.strip() and name else repr(name)
