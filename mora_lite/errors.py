"""Errors that a user can act on.

Every message is one line of the shape "got X, expected Y; what to do". The command line prints it without a traceback
and ends with exit code 2; a bug raises `AssertionError` or whatever Python raises, with its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


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


def error_text(error: BaseException) -> str:
    """The message of a Python exception, without the error number and the file name."""
    return (error.strerror if isinstance(error, OSError) and error.strerror else str(error)) or type(error).__name__


def first_line(error: BaseException, max_characters: int = 160) -> str:
    """The beginning of what an exception of another library says, or its name."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:max_characters]


def did_you_mean(got: str, known: Iterable[str]) -> str:
    """A hint for an error message: the names nearest to `got`, then all that are known."""
    known = sorted(known)
    plain = {name.lower(): name for name in known}
    near = [plain[name] for name in difflib.get_close_matches(got.lower(), plain, n=3, cutoff=0.5)]
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return f"{hint}known: {', '.join(known) if known else 'none'}"
