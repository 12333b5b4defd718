"""Errors that a user can act on.

Every message is one line that says what was got, what was expected and what to do. The command line prints it without a
traceback and ends with exit code 2; a bug inside raises `AssertionError` or whatever Python raises, with its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MoraLiteError(ValueError):
    """A wrong input, option, file or environment: the message says what to do about it."""


class InputError(MoraLiteError):
    """The table, molecule file or text given by the user cannot be used."""


class OutputError(MoraLiteError):
    """The place to write to exists already or cannot be written."""


class CheckpointError(MoraLiteError):
    """A model checkpoint (safetensors, GGUF) is missing, damaged or of an unsupported kind."""


class PackError(MoraLiteError):
    """A pack or one of its tasks is unknown, damaged or of another format version."""


class ExportError(MoraLiteError):
    """A model cannot be exported, or what was exported does not give the model's numbers."""


class DeviceError(MoraLiteError):
    """The device, number type or optional package asked for is not there."""


def error_text(error: BaseException) -> str:
    """What an exception of Python says, without its number and its file."""
    return (error.strerror if isinstance(error, OSError) and error.strerror else str(error)) or type(error).__name__


def did_you_mean(got: str, known: Iterable[str]) -> str:
    """Words for an error message: the names nearest to `got`, then all that are known."""
    known = sorted(known)
    plain = {name.lower(): name for name in known}
    near = [plain[name] for name in difflib.get_close_matches(got.lower(), plain, n=3, cutoff=0.5)]
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return f"{hint}known: {', '.join(known) if known else 'none'}"
