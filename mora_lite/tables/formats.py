"""How a table of results is written: the formats by the ending of a file's name, and what a value looks like in them.

| ending | what it is |
|---|---|
| .csv, .tsv | text, a row on a line; `.csv.gz` and `.tsv.gz` are packed |
| .sdf | a molecule on a record, the columns as data fields; also `.sdf.gz` |
| .parquet | typed columns; missing values are null |
| .xlsx | a sheet of Excel, numbers as numbers; needs the extra `xlsx` |

A number has `DIGITS` significant digits in all of them.
"""

from __future__ import annotations

import csv
import importlib.util
import math
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import OutputError
from .source import PACKED, STDIO

DIGITS = 6  # significant; the error of a prediction is far larger
ENDINGS = (".csv", ".tsv", ".parquet", ".xlsx", ".sdf")
_PACKED = ".gz"
_TEXT = (".csv", ".tsv", ".sdf")
LINE_END = re.compile(r"\r\n|\r|\n")  # as readers part lines; str.splitlines parts them at more characters
_LIKE = {".tab": ".tsv", ".sd": ".sdf", ".mol": ".sdf"}  # endings of inputs -> that of their results


@dataclass(frozen=True)
class TableFormat:
    """One format. Made by `of`.

    kind: `csv` (also with tabs), `parquet`, `xlsx` or `sdf`.
    delimiter: of `csv`. packed: whether gzip packs it. bom: whether a byte-order mark goes first.
    decimal: mark of numbers, in what `csv` writes, and in the cells that `xlsx` is given as texts.
    """

    kind: str
    delimiter: str = ","
    packed: bool = False
    bom: bool = False
    decimal: str = "."

    @classmethod
    def of(cls, path: str | Path, *, molecules: bool = True) -> TableFormat:
        """The format of a file by its name; `-` and what is no regular file get CSV.

        molecules: whether there are molecules, which SDF needs. Raises `OutputError` for another ending.
        """
        if str(path) == STDIO or (os.path.exists(path) and not os.path.isfile(path)):
            return cls("csv")
        name = Path(path).name.lower()
        packed = name.endswith(_PACKED)
        ending = Path(name.removesuffix(_PACKED)).suffix
        known = [one for one in ENDINGS if molecules or one != ".sdf"]
        if ending not in known or (packed and ending not in _TEXT):
            shown = "".join(Path(name).suffixes[-2:]) if packed else ending
            text = " or ".join(f"{one}.gz" for one in known if one in _TEXT)
            raise OutputError(
                f"-o {path}: got {f'the ending {shown}' if shown else 'no ending'}, expected "
                f"{', '.join(known[:-1])} or {known[-1]} (or {text}); name a file with one of these"
            )
        if ending == ".xlsx" and importlib.util.find_spec("openpyxl") is None:
            raise OutputError(f"-o {path}: .xlsx needs openpyxl, which is not installed: pip install openpyxl")
        return cls("csv" if ending in (".csv", ".tsv") else ending[1:], "\t" if ending == ".tsv" else ",", packed)

    def like(self, delimiter: str, bom: bool, decimal: str = ".") -> TableFormat:
        """The same with the delimiter and the marks of the table that was read. Tabs stay tabs."""
        if self.kind != "csv":
            return replace(self, decimal=decimal) if self.kind == "xlsx" else self
        delimiter = delimiter if delimiter and self.delimiter == "," else self.delimiter
        return replace(self, delimiter=delimiter, bom=bom, decimal=decimal)

    def encode(
        self, names: Sequence[str], values: Sequence[np.ndarray], ok: np.ndarray, texts: Sequence[Sequence[str]]
    ) -> Encoded:
        """The columns that are added to `B` rows, as `TableWriter.write` takes them; may run in another process.

        names: of the columns. values: K of float32, bool or text `[B]`, which are `rounded`, and written only where
        `ok`, bool `[B]` or `[K, B]`, is set. texts: the last columns, always written.
        """
        pairs = zip(map(rounded, values), np.broadcast_to(ok, (len(values), ok.shape[-1])), strict=True)
        if self.kind in ("parquet", "xlsx"):
            return [*pairs, *texts]
        rows = zip(*(column_texts(*pair, self.decimal) for pair in pairs), *texts, strict=True)
        if self.kind == "sdf":
            return ["".join(map(sdf_field, names, row)) for row in rows]
        return csv_lines(rows, self.delimiter)


Encoded = list[Any]  # by `TableFormat.encode`: a text for each row, or columns with their `ok`


def column_texts(column: np.ndarray, ok: np.ndarray, decimal: str = ".") -> list[str]:
    """Each value as text, blank where `ok` is not set: numbers with `DIGITS` digits, flags as true and false."""
    cells = column.tolist()
    if column.dtype == object:
        texts = cells
    elif column.dtype == bool:
        texts = ["true" if value else "false" for value in cells]
    else:
        texts = ["" if math.isnan(value) else f"{value:.{DIGITS}g}" for value in cells]  # nothing was measured
        texts = texts if decimal == "." else [text.replace(".", decimal) for text in texts]
    return texts if ok.all() else [text if good else "" for text, good in zip(texts, ok.tolist(), strict=True)]


def rounded(values: np.ndarray) -> np.ndarray:
    """The nearest numbers with `DIGITS` significant digits, of the same type; so all formats hold the same ones.

    Of what is no float nothing is changed.
    """
    if values.dtype.kind != "f":
        return values
    exact = values.astype(np.float64)
    finite = np.isfinite(exact) & (exact != 0)
    exponent = np.floor(np.log10(np.abs(exact, where=finite, out=np.ones_like(exact)))).astype(int)
    shift = DIGITS - 1 - exponent
    scale = 10.0 ** np.abs(shift)  # exact up to 10^22, and float32 is what comes in
    with np.errstate(all="ignore"):
        near = np.where(shift >= 0, np.rint(exact * scale) / scale, np.rint(exact / scale) * scale)
        return np.where(finite, near, exact).astype(values.dtype)


def number(value: float) -> float:
    """A float32 as the float64 that shows the same `DIGITS` digits."""
    return float(f"{value:.{DIGITS}g}")


class _Lines:
    """What `csv.writer` writes to: one call for each record.

    The writer is told that lines end in CR LF, for then it quotes cells with either of the two; the line end is cut.
    """

    def __init__(self, delimiter: str):
        self.writer = csv.writer(self, delimiter=delimiter, lineterminator="\r\n")
        self._lines: list[str] = []

    def write(self, line: str) -> None:
        self._lines.append(line[:-2])

    def take(self) -> list[str]:
        lines, self._lines = self._lines, []
        return lines


def csv_lines(rows: Iterable[Sequence[str]], delimiter: str = ",") -> list[str]:
    """Each row as one CSV record, without its line end."""
    lines = _Lines(delimiter)
    lines.writer.writerows(rows)
    return lines.take()


def format_cells(cells: Sequence[str]) -> str:
    """`cells` as one CSV record without the line end."""
    return csv_lines([cells])[0]


def sdf_field(name: str, value: str) -> str:
    """A data field of an SDF record. A blank line would end the value, and `$$$$` the record."""
    name = " ".join(name.replace("<", "(").replace(">", ")").split())
    lines = [line.rstrip() for line in LINE_END.split(value) if line.strip()]
    safe = [f" {line}" if line.startswith(("$$$$", ">")) else line for line in lines]
    return f">  <{name}>\n" + "".join(f"{line}\n" for line in safe) + "\n"


def default_output(path: str | Path, kind: str = "predictions") -> str:
    """Where results go: `x.tsv` -> `x.predictions.tsv`, `x.csv.gz` -> `x.predictions.csv.gz`.

    What cannot be written, as a list of SMILES, becomes CSV.
    """
    if str(path) == STDIO:
        return STDIO
    path = Path(path)
    packed = path.suffix.lower() if path.suffix.lower() in PACKED else ""
    stem = path.with_suffix("") if packed else path
    ending = stem.suffix.lower()
    ending = _LIKE.get(ending, ending if ending in ENDINGS else ".csv")
    packed = packed if packed == _PACKED and ending in _TEXT else ""
    return str(stem.with_name(f"{stem.stem}.{kind}{ending}{packed}"))


def add_columns(columns: Sequence[str], names: Iterable[str]) -> list[str]:
    """`columns` as they are, then `names`, changed where they are taken."""
    out = list(columns)
    for name in names:
        free, n = name, 1
        while free in out:
            free = f"{name} (mora-lite)" if n == 1 else f"{name} (mora-lite {n})"
            n += 1
        out.append(free)
    return out
