"""Conditions and formulas over the columns of scored molecules: `BBB > 0.9 and -4 < logS < 0`.

Names: a task (`logS`; in any case where only one name fits), the ends of its interval (`logS_lo`, `logS_hi`),
`similarity` and `in_domain`. Names may hold `-`, `.` and digits (`NR-AR`), so known names are found first, the longest
first: with a task `NR-AR`, `NR-AR-1` is that task less one. Any name can stand in backquotes, also a column's header
(`` `logS [log mol/L]` ``); one that is also a word of the language (`min`) must.

From loose to tight: `or |`, `and &`, `not`, `< <= > >= == !=` (chains too), `+ -`, `* /`, unary `-`, `**`. `&` and `|`
are no tighter than the words. Functions: `abs exp log log10 sqrt min max`; `log` is natural. A condition is not a
number: `in_domain + 1` and `logS and BBB` are errors.

The text becomes a list of steps for a stack machine, so nothing of it ever runs as Python and a long sum needs no
recursion.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from ..context.extras import ALERTS, EXTRAS
from ..errors import InputError, did_you_mean
from ..scoring.scores import percentile_columns
from ..scoring.tasks import Task

MAX_CHARACTERS = 1_000
MAX_DEPTH = 50  # brackets, signs and `not` within one another

Array = np.ndarray
NUMBER, CONDITION = "number", "condition"


def _differ(a: Array, b: Array) -> Array:
    return (a < b) | (a > b)  # `!=` is true of NaN


def _power(a: Array, b: Array) -> Array:
    return np.where(np.isnan(a) | np.isnan(b), np.nan, np.power(a, b))  # numpy has 1 ** NaN == NaN ** 0 == 1


COMPARISONS: dict[str, Callable[[Array, Array], Array]] = {
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
    "==": np.equal,
    "!=": _differ,
}
FUNCTIONS: dict[str, Callable[..., Array]] = {
    "abs": np.abs,
    "exp": np.exp,
    "log": np.log,
    "log10": np.log10,
    "sqrt": np.sqrt,
    "min": lambda *numbers: reduce(np.minimum, numbers),
    "max": lambda *numbers: reduce(np.maximum, numbers),
}
OR, AND, NOT, COMPARE, SUM, PRODUCT, SIGN, POWER = range(1, 9)  # how tightly an operator binds
BINARY: dict[str, tuple[int, Callable[[Array, Array], Array]]] = {
    "or": (OR, np.logical_or),
    "and": (AND, np.logical_and),
    "+": (SUM, np.add),
    "-": (SUM, np.subtract),
    "*": (PRODUCT, np.multiply),
    "/": (PRODUCT, np.divide),
    "**": (POWER, _power),
}
WORDS = {"and", "or", "not", *FUNCTIONS}
SYNONYMS = {"&": "and", "|": "or"}

_ADVICE = {
    "=": "; write == to compare",
    "!": "; write not, or != to compare",
    "[": "; leave out the unit, or write the name in `backquotes`",
}
_NUMBER = re.compile(r"(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_SYMBOL = re.compile(r"\*\*|<=|>=|==|!=|[-+*/()<>,&|]")
_WORD = re.compile(r"\w[\w.]*")


class Operation(NamedTuple):
    """Pops `arity` arrays off the stack and pushes the result of `run`."""

    run: Callable[..., Array]
    arity: int


@dataclass(frozen=True)
class Expression:
    """A parsed text. Made by `parse_expression`.

    columns: names of the table's columns that it reads. kind: `number` or `condition`.
    """

    text: str
    kind: str
    columns: tuple[str, ...]
    steps: tuple[float | str | Operation, ...]  # a constant, a column, or an operation

    def evaluate(self, table: pa.Table) -> Array:
        """float64 `[B]` of a number, bool `[B]` of a condition.

        Null and NaN stay NaN in a number; every comparison with them is false, also `!=`, and so is a null
        `in_domain`. Division by zero and the like give infinity or NaN, silently. Raises `InputError` when the table
        lacks a column.
        """
        columns = {name: _read(table, name) for name in self.columns}
        stack: list[Array] = []
        with np.errstate(all="ignore"):
            for step in self.steps:
                if isinstance(step, Operation):
                    arguments = stack[len(stack) - step.arity :]
                    del stack[len(stack) - step.arity :]
                    stack.append(step.run(*arguments))
                else:
                    stack.append(columns[step] if isinstance(step, str) else np.array(step))
        (result,) = stack
        return np.array(np.broadcast_to(result, table.num_rows))

    def must_be(self, kind: str, use: str) -> Expression:
        """Itself; raises `InputError` when it is not a `number` or `condition`, as `kind` says. use: `--where`."""
        if self.kind != kind:
            example = "a condition such as `logS > -4`" if kind == CONDITION else "a number such as `logS - 2 * BBB`"
            raise InputError(f"{use}: got the {self.kind} {self.text!r}, expected {example}")
        return self


def parse_expression(text: str, tasks: Sequence[Task], columns: Sequence[str]) -> Expression:
    """Read `text` as a formula or condition over a table with these `columns`, scored for these `tasks`.

    Raises `InputError` for an unknown name, with the nearest known ones; for wrong syntax, with the character's number;
    for a number in place of a condition or the other way round; and for text over the limits.
    """
    if len(text) > MAX_CHARACTERS:
        raise InputError(f"expression: got {len(text):,} characters, expected at most {MAX_CHARACTERS:,}; shorten it")
    if not text.strip():
        raise InputError("expression: got an empty text, expected one such as `logS > -4`; leave the option away")
    parser = _Parser(text, _Names(tasks, columns))
    kind = parser.read_all()
    used = tuple(dict.fromkeys(step for step in parser.steps if isinstance(step, str)))
    return Expression(text, kind, used, tuple(parser.steps))


def _read(table: pa.Table, name: str) -> Array:
    """float64 or bool `[B]`."""
    if name not in table.column_names:
        raise InputError(f"the table has no column {name!r}: {did_you_mean(name, table.column_names)}")
    if name == "in_domain":
        return np.asarray(table[name].cast(pa.bool_()).fill_null(False)).astype(bool)
    return np.asarray(table[name].cast(pa.float64())).astype(np.float64)


class _Names:
    """Which names stand for which columns.

    known: every name that an expression may use -> column. headers: the same for names in backquotes.
    uncalibrated: names that a pack with calibration would have. not_asked: names of columns that --extras or
    --percentiles would add.
    """

    def __init__(self, tasks: Sequence[Task], columns: Sequence[str]):
        extra = [f"{task.name}{end}" for task in tasks if not task.is_class for end in ("_lo", "_hi")]
        extra += ["similarity", "in_domain"]
        asked = [*percentile_columns(tasks), *(name for name in EXTRAS if name != ALERTS)]
        present = set(columns)
        self.known = {name: name for name in [*extra, *asked] if name in present}
        self.known |= {task.name: task.column for task in tasks if task.column in present}
        self.headers = {task.column: task.column for task in tasks if task.column in present}
        self.uncalibrated, self.not_asked = set(extra) - present, set(asked) - present
        self._by_length: dict[int, dict[str, list[str]]] = {}  # length -> lower case -> names, longest first
        for name in sorted(self.known, key=len, reverse=True):
            self._by_length.setdefault(len(name), {}).setdefault(name.lower(), []).append(name)

    def column(self, text: str) -> str:
        """The column that a whole name stands for."""
        exact = self.known.get(text) or self.headers.get(text)
        if exact is not None:
            return exact
        fits = self._by_length.get(len(text), {}).get(text.lower(), [])
        if len(fits) == 1:
            return self.known[fits[0]]
        if fits:
            raise InputError(f"expression: {text!r} may be {' or '.join(fits)}; write it as it is in the table")
        if text in self.uncalibrated:
            raise InputError(
                f"expression: no column {text!r}: the pack has no error bars and no domain; calibrate it first "
                "(mora-lite calibrate)"
            )
        if text in self.not_asked:
            option = "--extras" if text in EXTRAS else "--percentiles"
            raise InputError(f"expression: no column {text!r} without {option}: add the option")
        raise InputError(f"expression: unknown name {text!r}: {did_you_mean(text, self.known)}")

    def match(self, text: str, start: int) -> str | None:
        """The longest known name in `text` at `start` that is not the beginning of a longer word."""
        for length, names in self._by_length.items():
            word = text[start : start + length]
            after = text[start + length : start + length + 1]
            whole = not (re.match(r"\w", word[-1:]) and re.match(r"\w", after))
            if word.lower() in names and whole and word not in WORDS and not _NUMBER.fullmatch(word):
                return word
        return None

    def longest_attempt(self, text: str, start: int) -> str:
        """An unknown word, for the error message; with its hyphens where known names begin like it (`NR-ARX`)."""
        match = _WORD.match(text, start)
        assert match is not None
        word = match.group()
        if any(name.lower().startswith(f"{word.lower()}-") for name in self.known):
            longer = re.compile(r"\w[\w.-]*\w").match(text, start)
            word = longer.group() if longer else word
        return word


class _Token(NamedTuple):
    """kind: `number`, `name`, `symbol` or `end`; a word of the language is a symbol. at: character, from 1."""

    kind: str
    text: str
    at: int


class _Parser:
    """A precedence climbing parser. steps: what was read so far, operands before their operator."""

    def __init__(self, text: str, names: _Names):
        self.names = names
        self.steps: list[float | str | Operation] = []
        self._tokens = _tokenize(text, names)
        self._next = 0
        self._depth = 0

    def read_all(self) -> str:
        kind = self._read(OR)
        if self._token.kind != "end":
            hint = "; decimals have a point" if self._token.text == "," else ""
            raise _wrong(self._token, f"an operator or the end{hint}")
        return kind

    @property
    def _token(self) -> _Token:
        return self._tokens[self._next]

    def _take(self, *symbols: str) -> _Token | None:
        """The next token, if it is one of these symbols."""
        token = self._token
        if token.kind != "symbol" or token.text not in symbols:
            return None
        self._next += 1
        return token

    def _expect(self, symbol: str) -> None:
        if self._take(symbol) is None:
            raise _wrong(self._token, f"{symbol!r}")

    def _read(self, level: int) -> str:
        """Read an operand and every operator after it that binds at least as tightly as `level`; returns its kind."""
        kind = self._operand()
        while True:
            token = self._token
            if level <= COMPARE and token.kind == "symbol" and token.text in COMPARISONS:
                kind = self._comparison(kind)
                continue
            tightness, run = BINARY.get(token.text, (0, None)) if token.kind == "symbol" else (0, None)
            if run is None or tightness < level:
                break
            self._next += 1
            operand_kind = CONDITION if tightness <= AND else NUMBER
            _check(kind, operand_kind, token)
            # `**` groups to the right and lets a sign stand after it; the others group to the left.
            right = self._read_inside(SIGN) if tightness == POWER else self._read(tightness + 1)
            _check(right, operand_kind, token)
            self.steps.append(Operation(run, 2))
            kind = operand_kind
        return kind

    def _read_inside(self, level: int) -> str:
        """`_read`, one deeper."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise InputError(f"expression: nested more than {MAX_DEPTH} deep at {_place(self._token)}; simplify it")
        kind = self._read(level)
        self._depth -= 1
        return kind

    def _comparison(self, kind: str) -> str:
        """Read `< a < b ...` after the first operand."""
        operators = []
        while (token := self._take(*COMPARISONS)) is not None:
            operators.append(COMPARISONS[token.text])
            _check(kind, NUMBER, token)
            kind = self._read(SUM)
            _check(kind, NUMBER, token)

        def run(*numbers: Array) -> Array:
            pairs = zip(operators, numbers, numbers[1:], strict=False)
            return np.logical_and.reduce(np.broadcast_arrays(*(holds(a, b) for holds, a, b in pairs)))

        self.steps.append(Operation(run, len(operators) + 1))
        return CONDITION

    def _operand(self) -> str:
        token = self._token
        self._next += 1
        if token.kind == "number":
            self.steps.append(float(token.text))
            return NUMBER
        if token.kind == "name":
            self.steps.append(self.names.column(token.text))
            return CONDITION if self.steps[-1] == "in_domain" else NUMBER
        if token.kind == "symbol" and token.text in FUNCTIONS:
            return self._call(token)
        if token.kind == "symbol" and token.text == "(":
            kind = self._read_inside(OR)
            self._expect(")")
            return kind
        if token.kind == "symbol" and token.text == "not":
            _check(self._read_inside(NOT), CONDITION, token)
            self.steps.append(Operation(np.logical_not, 1))
            return CONDITION
        if token.kind == "symbol" and token.text in "+-":
            _check(self._read_inside(SIGN), NUMBER, token)
            self.steps.append(Operation(np.negative if token.text == "-" else np.positive, 1))
            return NUMBER
        raise _wrong(token, "a number, a name or a bracket")

    def _call(self, name: _Token) -> str:
        self._expect("(")
        n = 0
        while n == 0 or self._take(","):
            _check(self._read_inside(OR), NUMBER, name)
            n += 1
        self._expect(")")
        if (n == 1) == (name.text in ("min", "max")):
            expected = "two or more" if name.text in ("min", "max") else "one"
            raise InputError(f"expression: {name.text} at {_place(name)} got {n} numbers, expected {expected}")
        self.steps.append(Operation(FUNCTIONS[name.text], n))
        return NUMBER


def _tokenize(text: str, names: _Names) -> list[_Token]:
    tokens: list[_Token] = []
    start = 0
    while start < len(text):
        at = start + 1
        if text[start].isspace():
            start += 1
        elif text[start] == "`":
            end = text.find("`", at)
            if end < 0:
                raise InputError(f"expression: the backquote at character {at} is not closed; put one after the name")
            tokens.append(_Token("name", text[at:end], at))
            start = end + 1
        elif (name := names.match(text, start)) is not None:
            tokens.append(_Token("name", name, at))
            start += len(name)
        elif (match := _NUMBER.match(text, start)) is not None:
            tokens.append(_Token("number", match.group(), at))
            start = match.end()
        elif (match := _SYMBOL.match(text, start)) is not None:
            tokens.append(_Token("symbol", SYNONYMS.get(match.group(), match.group()), at))
            start = match.end()
        elif (match := _WORD.match(text, start)) is not None:
            word = match.group().lower()
            kind = "symbol" if word in WORDS else "name"
            word = word if kind == "symbol" else names.longest_attempt(text, start)
            tokens.append(_Token(kind, word, at))
            start += len(word)
        else:
            advice = _ADVICE.get(text[start], "")
            raise InputError(f"expression: unexpected {text[start]!r} at character {at}{advice}")
    return [*tokens, _Token("end", "", len(text) + 1)]


def _place(token: _Token) -> str:
    return f"character {token.at}" if token.kind != "end" else "the end"


def _wrong(token: _Token, expected: str) -> InputError:
    if token.kind == "end":
        return InputError(f"expression: got the end, expected {expected} after character {token.at - 1}")
    return InputError(f"expression: got {token.text!r} at character {token.at}, expected {expected}")


def _check(kind: str, expected: str, token: _Token) -> None:
    if kind != expected:
        raise InputError(f"expression: {token.text!r} at {_place(token)} got a {kind}, expected a {expected}")
