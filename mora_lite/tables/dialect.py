"""How a table of text is written: which character parts its cells, and whether a line `sep=` says so."""

from __future__ import annotations

import csv
import io
import re
from typing import NamedTuple

from .columns import is_smiles_name

_USUAL = ",\t;|"  # in order of preference
_SAMPLE_LINES = 60
_SEP_LINE = re.compile(r'"?sep=(.)"?', re.IGNORECASE)
_EXTENSION = re.compile(r"\|[^|]*\|")  # of a CXSMILES: what is in it parts nothing


class Dialect(NamedTuple):
    """delimiter: between cells. n_skipped: lines before the header. notes: lines for the user."""

    delimiter: str
    n_skipped: int = 0
    notes: tuple[str, ...] = ()


def sniff_dialect(start: bytes, source: str) -> Dialect:
    """The dialect of a table that begins with `start`, UTF-8. source: the table's name, for the notes.

    A first line `sep=;`, as spreadsheets write it, decides. Else of comma, tab, semicolon and bar the one by which most
    of the first lines have as many cells as the header; another character only where that makes a SMILES column of
    every line.
    """
    lines = _first_lines(start)
    first = next((i for i, line in enumerate(lines) if line.strip()), 0)
    said = _SEP_LINE.match(lines[first].strip("\r\n")) if lines else None
    if said:
        return Dialect(said[1], first + 1)
    lines = lines[first : first + _SAMPLE_LINES]
    header = lines[0] if lines else ""
    fits = {mark: fit for mark in _USUAL if (fit := _fit(lines, mark)) is not None}
    if fits:
        best = max(fits, key=fits.__getitem__)
        notes = (f"{source}: its cells are parted by {best!r}",) if best == "|" else ()
        return Dialect(best, 0, notes)
    for mark in dict.fromkeys(char for char in header if not char.isalnum() and char not in '_"\r\n'):
        share, has_smiles, _ = _fit(lines, mark) or (0.0, False, 0)
        if has_smiles and share == 1 and len(lines) > 1:
            return Dialect(mark, 0, (f"{source}: its cells are parted by {mark!r}",))
    return Dialect(",")


def is_delimited(line: str) -> bool:
    """Whether a line has one of the usual delimiters outside the extension of a CXSMILES."""
    bare = _EXTENSION.sub("", line)
    return any(mark in bare for mark in _USUAL)


def _first_lines(start: bytes) -> list[str]:
    """Without the last, which may be cut."""
    text = start.decode("utf-8-sig", "surrogateescape")
    lines = io.StringIO(text, newline="").readlines()
    return lines[:-1] if len(lines) > 1 and not text.endswith(("\n", "\r")) else lines


def _fit(lines: list[str], mark: str) -> tuple[float, bool, int] | None:
    """How well `mark` parts the lines; None when it leaves the header whole.

    The share of the other lines that have as many cells as the header, whether a header cell is a name of SMILES
    columns, and the number of cells.
    """
    try:
        rows = [row for row in csv.reader(lines, delimiter=mark) if row]
        rows = rows[:-1] if len(rows) > 2 else rows  # the lines may end within its quotes
    except csv.Error:
        rows = [line.rstrip("\r\n").split(mark) for line in lines]
    width = len(rows[0]) if rows else 0
    if width < 2:
        return None
    fitting = sum(len(row) == width for row in rows[1:])
    return (fitting / len(rows[1:]) if rows[1:] else 1.0), any(map(is_smiles_name, rows[0])), width
