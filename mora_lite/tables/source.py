"""A file's bytes, unpacked, as text: plain, gzip, bzip2 or zstd, recognised by the first bytes; UTF-8 or UTF-16.

Bytes that are not UTF-8 are carried as surrogates, as Python's `surrogateescape` does; line ends are left as they are.
"""

from __future__ import annotations

import codecs
import gzip
import io
import os
import re
import stat
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import InputError, error_text
from ..machine.files import digest_file

STDIO = "-"
UNREADABLE = (OSError, EOFError, zlib.error)  # what reading raises when the disk or the packing is at fault
_PACKINGS = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\x28\xb5\x2f\xfd": "zstd"}
PACKED = (".gz", ".bz2", ".zst")  # endings of their files
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
ZIP, PARQUET = b"PK\x03\x04", b"PAR1"
_AS_CSV = "save it as CSV in UTF-8"
_NOT_TEXT = {
    ZIP: f"a zip archive or an Excel file: {_AS_CSV}, or name the .xlsx file itself",
    b"\xd0\xcf\x11\xe0": f"an old Excel file (.xls): save it as .xlsx, or {_AS_CSV}",
    PARQUET: "a Parquet file: name the file itself, which is read from its end",
    b"\xfd7zX": "an xz file: unpack it",
    **{start: "packed twice: unpack it" for start in _PACKINGS},
    b"\x89PNG": f"a picture: {_AS_CSV}",
    b"%PDF": f"a PDF: {_AS_CSV}",
    **{start: f"a JSON file: {_AS_CSV}" for start in (b"{", b"[{", b'["', b"[\n", b"[\r\n")},  # no text of molecules
}
_NOT_MOLECULES = {
    re.compile(start, re.IGNORECASE): what
    for start, what in {
        rb"<(?:\?xml|!doctype|html|table|cdxml|cml)": "a drawing or a page in XML or HTML",
        rb"<datawarrior": "a file of DataWarrior",
        rb"VjCD": "a file of ChemDraw",
        rb"\{\s*s_m_m2io": "a Maestro file",
        rb"\$RXN|\$RDFILE": "a file of reactions",
        rb"(?:#[^\n]*\n\s*)*@<TRIPOS>": "a MOL2 file",
    }.items()
}
_BLOCK = 2**15  # characters that are read at a time


def _utf16(start: bytes) -> str | None:
    """The encoding of a text in UTF-16, with its mark or, where every second byte is zero, without; else None."""
    if start.startswith(_UTF16):
        return "utf-16"
    start = start[: len(start) // 2 * 2]
    halves = {"utf-16-le": (start[1::2], start[::2]), "utf-16-be": (start[::2], start[1::2])}
    for encoding, (high, low) in halves.items():
        if len(high) >= 6 and not any(high) and all(low):
            return encoding
    return None


def output_name(path: str | Path) -> str:
    """What messages call an output."""
    return "standard output" if str(path) == STDIO else str(path)


class Source:
    """An open file; `-` is standard input.

    name: for messages.
    text: the unpacked text, a stream without translation of line ends.
    start: its first bytes, some thousand, in UTF-8, including a byte-order mark.
    bom: whether it begins with a byte-order mark.
    bytes_total: size of the file on disk; None for a pipe. bytes_read: how much of it was read; 0 for a pipe. Another
    thread than the one that reads may ask for them.
    """

    def __init__(self, path: str | Path):
        """Raises `InputError` when the file is missing, cannot be unpacked, or is plainly no text."""
        self.name = "standard input" if str(path) == STDIO else str(path)
        self._raw, self.bytes_total = _open(path)
        self.bytes_read = 0
        self._ahead = ""  # text that was looked at before its turn
        try:
            unpacked = _unpacked(self._raw)
            self.start = _peek(unpacked)
            self._refuse_others()
        except BaseException as error:
            self._raw.close()
            if isinstance(error, UNREADABLE):
                raise InputError(f"cannot unpack {self.name}: {error_text(error)}") from None
            raise
        self.bom = self.start.startswith((codecs.BOM_UTF8, *_UTF16))
        if utf16 := _utf16(self.start):  # its half surrogates have no UTF-8 and become U+FFFD
            self.text = io.TextIOWrapper(unpacked, encoding=utf16, errors="replace", newline="")
            self.start = codecs.getincrementaldecoder(utf16)("replace").decode(self.start).encode()
        else:
            self.text = io.TextIOWrapper(unpacked, encoding="utf-8-sig", errors="surrogateescape", newline="")

    def _refuse_others(self) -> None:
        """Raise `InputError` for what begins as no text of molecules does."""
        begun = self.start.removeprefix(codecs.BOM_UTF8).lstrip()
        for form, what in _NOT_MOLECULES.items():
            if form.match(begun):
                raise InputError(f"{self.name} is {what}: save its molecules as SDF, or as CSV in UTF-8")
        for magic, what in _NOT_TEXT.items():
            if self.start.startswith(magic):
                raise InputError(f"{self.name} is {what}")
        if self.start[257:262] == b"ustar":
            raise InputError(f"{self.name} is a tar archive: unpack it, and name the files in it")

    def broken(self, error: Exception, line: int) -> InputError:
        """The error to raise when reading fails after `line` lines."""
        if isinstance(error, OSError) and error.errno is not None:
            return InputError(f"cannot read {self.name}: {error_text(error)}")
        return InputError(f"{self.name} is damaged after line {line}: {error_text(error)}")

    def look_ahead(self, n_characters: int) -> str:
        """The next characters, fewer only at the end; `line_blocks` begins with them all the same."""
        try:
            self._ahead += self.text.read(n_characters - len(self._ahead))
        except UNREADABLE as error:
            raise self.broken(error, 0) from None
        return self._ahead

    def line_blocks(self, max_characters: int) -> Iterator[list[str]]:
        """Lines with their ends as they are, some thousand at a time; of a longer line only its first characters.

        A line ends with LF, CR or both. Raises `InputError` when the file is damaged.
        """
        whole_ends = io.IncrementalNewlineDecoder(None, translate=False)  # never parts CR LF
        rest, is_cut, n_lines = "", False, 0
        while True:
            try:
                piece, self._ahead = self._ahead or self.text.read(_BLOCK), ""
            except UNREADABLE as error:
                raise self.broken(error, n_lines) from None
            if self.bytes_total is not None:
                self.bytes_read = self._raw.tell()
            text = rest + whole_ends.decode(piece, final=not piece)
            lines = io.StringIO(text, newline="").readlines()
            rest = lines.pop() if piece and lines and not lines[-1].endswith(("\n", "\r")) else ""
            if is_cut and lines:  # the end of a line whose beginning was given already
                del lines[0]
                is_cut = False
            if len(rest) > max_characters:
                lines += [] if is_cut else [rest]
                rest, is_cut = "", True
            if lines:
                n_lines += len(lines)
                yield [line[:max_characters] for line in lines] if max(map(len, lines)) > max_characters else lines
            if not piece:
                return

    def close(self) -> None:
        self.text.close()
        self._raw.close()


class _FullReads(io.RawIOBase):
    """A stream that gives as much as is asked for until it ends; closing it leaves standard input open.

    A pipe gives what was written to it by now, were it half of a header by which the kind of the file is told. What
    comes before damage is given first.
    """

    def __init__(self, stream: Any):
        self._stream = stream
        self._damage: Exception | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        n = 0
        try:
            if self._damage is not None:
                raise self._damage
            while n < len(buffer) and (data := self._stream.read1(len(buffer) - n)):
                buffer[n : n + len(data)] = data
                n += len(data)
        except UNREADABLE as error:
            self._damage = error
            if not n:
                raise
        return n

    def close(self) -> None:
        if self._stream is not getattr(sys.stdin, "buffer", None):
            self._stream.close()
        super().close()


def _open(path: str | Path) -> tuple[io.BufferedReader, int | None]:
    """The bytes of a file, and its size; None for a pipe. Raises `InputError`."""
    try:
        if str(path) == STDIO:
            return io.BufferedReader(_FullReads(sys.stdin.buffer)), None
        file = open(path, "rb")  # noqa: SIM115
    except FileNotFoundError:
        raise InputError(f"no such file: {path}") from None
    except IsADirectoryError:
        raise InputError(f"{path} is a directory: name a file in it") from None
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {error_text(error)}") from None
    status = os.fstat(file.fileno())
    return (file, status.st_size) if stat.S_ISREG(status.st_mode) else (io.BufferedReader(_FullReads(file)), None)


def _unpacked(raw: io.BufferedReader) -> io.BufferedReader:
    stream: Any
    match packing_of(_peek(raw)):
        case "gzip":
            stream = gzip.GzipFile(fileobj=raw, mode="rb")
        case "bzip2":
            import bz2  # some builds of Python lack it

            stream = bz2.BZ2File(raw)
        case "zstd":
            import pyarrow as pa

            stream = pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "zstd")
        case _:
            return raw
    return io.BufferedReader(_FullReads(stream))


def packing_of(start: bytes) -> str:
    """What packed a file that begins so: `gzip`, `bzip2` or `zstd`; empty where nothing did."""
    return next((name for magic, name in _PACKINGS.items() if start.startswith(magic)), "")


def first_bytes(path: str) -> bytes:
    """Four of a file that can be read again; none of others, nor where the error is reported when it is opened."""
    if path == STDIO or not os.path.isfile(path):
        return b""
    try:
        with open(path, "rb") as file:
            return file.read(4)
    except OSError:
        return b""


def _peek(stream: io.BufferedReader) -> bytes:
    """The next bytes of the stream, which stay in it."""
    return stream.peek(io.DEFAULT_BUFFER_SIZE)


def is_stream(path: str) -> bool:
    """Whether the file can be read only once: standard input, or a pipe like `<(zcat library.gz)`."""
    return path == STDIO or (os.path.exists(path) and not os.path.isfile(path))


def describe_file(path: str) -> dict[str, Any]:
    """An input file's entry in the manifest."""
    if is_stream(path):
        return {"file": "standard input" if path == STDIO else "a pipe"}
    return {"file": Path(path).name, "bytes": os.path.getsize(path), "sha256": digest_file(path)}


def file_state(path: str) -> tuple[int, int] | None:
    """Size and time of the last change; None for a stream."""
    if is_stream(path) or not os.path.exists(path):
        return None
    stat = os.stat(path)
    return stat.st_size, stat.st_mtime_ns
