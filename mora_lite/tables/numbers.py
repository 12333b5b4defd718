"""A column of a table as numbers: what is missing, what is a class in words, and what is neither number nor blank."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..errors import InputError, shortened
from ..status import counted

LARGEST = float(np.finfo(np.float32).max)
# Spreadsheets write TRUE and FALSE in the language of their user, here German, French, Spanish, Portuguese, Italian and
# Dutch; and people their yes and no.
CLASS_WORDS = {
    **dict.fromkeys(("true", "t", "yes", "y", "active", "positive", "pos"), 1.0),
    **dict.fromkeys(("wahr", "vrai", "verdadero", "verdadeiro", "vero", "waar"), 1.0),
    **dict.fromkeys(("ja", "oui", "sí", "sì", "si", "sim"), 1.0),
    **dict.fromkeys(("false", "f", "no", "n", "inactive", "negative", "neg"), 0.0),
    **dict.fromkeys(("falsch", "faux", "falso", "onwaar"), 0.0),
    **dict.fromkeys(("nein", "non", "não", "nee"), 0.0),
}
_BLANK = ("", "nan")  # NaN is how many programs write a missing value
# What spreadsheets and people write where there is no value, in lower case.
_MISSING = frozenset(
    "na n/a n.a. n.a #n/a #na <na> null none nil nd n.d. n.d missing - -- --- . ? "  # noqa: SIM905 - a list is longer
    "#value! #div/0! #ref! #num! #name? #null!".split()
)
_NO_VALUE = _MISSING.union(_BLANK)
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_PERCENTAGE = re.compile(r"[+-]?[\d.,]+\s?%", re.ASCII)
_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+(?:[eE][+-]?\d+)?", re.ASCII)
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(?:,\d{3})+", re.ASCII)  # or a decimal comma: nobody knows
# What stands in cells that are no numbers: a pattern, what to call it, and what to do.
_KINDS: tuple[tuple[re.Pattern[str], str, str], ...] = (
    (
        re.compile(r"[<>≤≥~≈].*"),
        "with a bound",
        "leave the cells blank, or write the number alone where the bound may stand for the value",
    ),
    (
        re.compile(r"[+-]?[\d.]*(?:,\d+)+(?:\.\d*)?", re.ASCII),
        "with a comma",
        "write a decimal comma as a point, and thousands without commas",
    ),
    (re.compile(r"[+-]?\d[\d_.]*_[\d_.]*", re.ASCII), "with an underscore", "write their digits alone"),
    (re.compile(r"[+-]?(?:inf|infinity)", re.IGNORECASE), "infinite", "leave the cells blank"),
    (_NUMBER, "too large", f"expected at most {LARGEST:.1e}"),
    (
        re.compile(r"[+-]?[\d.]+\s*[^\d\s.].*", re.ASCII),
        "with text behind the number",
        "write the number alone, and its unit as --target COLUMN:UNIT",
    ),
)
_BOUNDS = "<>≤≥~≈= "
_DECIMAL_POINT = re.compile(r"[+-]?\d*\.\d+(?:[eE][+-]?\d+)?", re.ASCII)

_NO_PAIR = re.compile(r"[+-]|0?,|\d+,\d\d|.*[eE]", re.ASCII)  # how a decimal begins, but hardly a pair of numbers (1,4)


def decimal_mark(rows: Sequence[Sequence[str]], pairs: bool = False) -> tuple[str, int]:
    """The decimal mark of a table, and the column that shows it, from 0: a point where any column of numbers has
    points; else a comma where one has commas, beyond doubt; else an empty text and -1.

    rows: cells, of as many columns in each. A column of numbers has nothing but numbers, perhaps with a bound, and what
    stands for none. pairs: whether commas may part pairs of numbers too, as locants; then one of them must be no pair.
    """
    mark, shown = "", -1
    for index, column in enumerate(zip(*rows, strict=True)):
        texts = [text for cell in column if (text := cell.strip().lstrip(_BOUNDS)).lower() not in _NO_VALUE]
        broken = [text for text in texts if not text.lstrip("+-").isdecimal()]
        if broken and all(map(_DECIMAL_POINT.fullmatch, broken)):
            return ".", index
        if mark or not broken or not all(map(_DECIMAL_COMMA.fullmatch, broken)):
            continue
        if not all(map(_THOUSANDS.fullmatch, broken)) and (not pairs or any(map(_NO_PAIR.match, broken))):
            mark, shown = ",", index
    return mark, shown


@dataclass
class NumberColumn:
    """The cells of a column of targets, as they are read.

    name: of the column. source: the table's name, for messages. lines: of the file, from 1, at which each cell's row
    began. notes: lines for the user.
    """

    name: str
    source: str
    lines: Sequence[int]
    notes: list[str] = field(default_factory=list)

    def values(self, cells: Sequence[str]) -> np.ndarray:
        """float64 `[N]`, NaN where there is no value; of percentages (`95%`, all of them) what stands before the sign.

        Words such as yes and no (`CLASS_WORDS`, any case; with 0, 1 and blanks among them) are 1 and 0.
        Raises `InputError` when a cell is neither blank nor a number nor such a word.
        """
        cells = self._without_signs(cells)
        values = np.full(len(cells), np.nan)
        missing: list[int] = []
        words: list[int] = []
        odd: list[int] = []
        for i, cell in enumerate(cells):
            text = cell.strip()
            if _NUMBER.fullmatch(text) and abs(float(text)) <= LARGEST:
                values[i] = float(text)
                continue
            low = text.lower()
            if low in CLASS_WORDS:
                values[i] = CLASS_WORDS[low]
                words.append(i)
            elif low in _MISSING:
                missing.append(i)
            elif low not in _BLANK:
                odd.append(i)
        commas = [i for i in odd if _DECIMAL_COMMA.fullmatch(cells[i].strip())]
        if commas and self._are_decimals(cells, values, commas):
            for i in commas:
                values[i] = float(cells[i].strip().replace(",", "."))
            self.notes.append(self._count(commas, cells, "a decimal comma and are read as decimals"))
            odd = [i for i in odd if np.isnan(values[i])]
        if odd:
            raise InputError(self._problem(odd, cells))
        if words:
            self._check_words(values, words[0], cells)
        if missing:
            self.notes.append(self._count(missing, cells, "no value and are taken as missing"))
        return values

    def _without_signs(self, cells: Sequence[str]) -> Sequence[str]:
        """The cells without their percent signs, if all numbers have one; where only some do, nobody knows the unit."""
        signed = [i for i, cell in enumerate(cells) if _PERCENTAGE.fullmatch(cell.strip())]
        if not signed or len(signed) + sum(cell.strip().lower() in _NO_VALUE for cell in cells) < len(cells):
            return cells
        self.notes.append(self._count(signed, cells, "a percent sign and are read as the number before it"))
        return [cell.strip().removesuffix("%").rstrip() for cell in cells]

    def _are_decimals(self, cells: Sequence[str], values: np.ndarray, commas: Sequence[int]) -> bool:
        """Whether the cells with a comma are numbers with a decimal comma, beyond doubt."""
        if all(_THOUSANDS.fullmatch(cells[i].strip()) for i in commas):
            return False
        return not any("." in cells[i] for i in np.flatnonzero(~np.isnan(values)).tolist())

    def _count(self, at: Sequence[int], cells: Sequence[str], what: str) -> str:
        place = f"row {at[0] + 1:,} (line {self.lines[at[0]]:,})"
        return f"column {self.name!r}: {len(at):,} cells have {what}; the first is {cells[at[0]]!r} in {place}"

    def _problem(self, odd: Sequence[int], cells: Sequence[str]) -> str:
        """One line on cells that are no numbers: the first, how many of which kind, and what to do."""
        first = odd[0]
        line = (
            f"{self.source}, line {self.lines[first]}: row {first + 1}, column {self.name!r}: "
            f"got {shortened(cells[first])}, expected a number or a blank"
        )
        kinds: Counter[int] = Counter()
        examples: dict[int, str] = {}
        for i in odd:
            kind = _kind_of(cells[i].strip())
            kinds[kind] += 1
            examples.setdefault(kind, shortened(cells[i]))
        if set(kinds) == {len(_KINDS)}:
            n_words = len({cells[i].strip().lower() for i in odd})
            if len(odd) == 1:
                return line
            if n_words <= 10 and n_words < len(odd):
                return (
                    f"{line}; {len(odd):,} of {len(cells):,} cells are {counted(n_words, 'word')}: if "
                    "they are classes, write 0 and 1, in a column of its own for each where there are more than two"
                )
            return f"{line}; {len(odd):,} of {len(cells):,} cells are no numbers: is it the right column?"
        told = ", ".join(
            f"{n:,} {'others' if kind == len(_KINDS) else _KINDS[kind][1]} such as {examples[kind]}"
            for kind, n in kinds.most_common()
        )
        advice = next(_KINDS[kind][2] for kind, _ in kinds.most_common() if kind < len(_KINDS))
        return f"{line}; {len(odd):,} of {len(cells):,} cells are no numbers: {told}; {advice}"

    def _check_words(self, values: np.ndarray, first: int, cells: Sequence[str]) -> None:
        """Raises `InputError` if there are numbers other than 0 and 1 beside class words."""
        other = np.flatnonzero(~np.isnan(values) & (values != 0) & (values != 1))
        if len(other):
            raise InputError(
                f"{self.source}, line {self.lines[first]}: row {first + 1}, column {self.name!r}: got "
                f"{cells[first]!r}, expected a number or a blank, as in row {other[0] + 1} ({values[other[0]]:g}); "
                "words for yes and no stand only beside 0, 1 and blanks"
            )


def _kind_of(text: str) -> int:
    return next((i for i, (pattern, _, _) in enumerate(_KINDS) if pattern.fullmatch(text)), len(_KINDS))
