"""Predictions as a table: for pandas, Arrow, a terminal and a notebook."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from ..chem.drawing import draw, drawing_problem
from ..errors import InputError, did_you_mean
from ..status import OK, counted
from ..tables.parquet import from_texts, from_values
from .scores import Scores
from .tasks import Task

if TYPE_CHECKING:
    import pandas
    import pyarrow

WIDTH = 80  # characters of a line on a terminal
PRINTED_ROWS = 10  # on a terminal
SHOWN_ROWS = 20  # in a notebook
LABEL_WIDTH = 14  # characters of a label of the index or a status on a terminal
MIN_TEXT = 12  # characters of a SMILES that are left where the others need the width
# Colours of `chem.drawing` on any background.
STYLE = (
    "<style>.mora-lite svg{display:block}.mora-lite .stroke{fill:none;stroke:currentColor;stroke-width:1.3}"
    ".mora-lite .fill{fill:currentColor}.mora-lite .e-n{color:#3b6fd6}.mora-lite .e-o{color:#d8442f}"
    ".mora-lite .e-s{color:#b08900}.mora-lite .e-p{color:#c96a00}.mora-lite .e-h{color:#2e9e4f}"
    ".mora-lite .e-b{color:#9a4a2e}</style>"
)


@dataclass(frozen=True)
class Predictions:
    """One row for each molecule, in order: `smiles`, the columns of `Scores.columns`, `status`, `error`.

    `len` counts the rows, and iteration gives them one by one. In brackets stand the number of a row (a dict), a slice,
    a list or a mask of rows (`Predictions`), or the name of a task or column (its array).

    index: of the pandas object that was scored; None for others.
    """

    smiles: list[str]
    tasks: tuple[Task, ...]
    scores: Scores
    index: Any = None

    def __len__(self) -> int:
        return len(self.smiles)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        columns = list(self._plain_columns().items())
        return ({name: _plain(column[i]) for name, column in columns} for i in range(len(self)))

    @overload
    def __getitem__(self, key: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, key: str) -> np.ndarray: ...
    @overload
    def __getitem__(self, key: slice | Sequence[int] | np.ndarray) -> Predictions: ...

    def __getitem__(self, key: int | str | slice | Sequence[int] | np.ndarray) -> Any:
        """A row, as a dict with the tasks' names as keys; rows; or a column. Raises `InputError` for an unknown name.

        A column is float32 `[B]` for a task, in its unit, NaN where there is no value.
        """
        if isinstance(key, str):
            columns = self._plain_columns() | self.columns()
            folded = {name.casefold(): column for name, column in columns.items()}
            column = columns[key] if key in columns else folded.get(key.casefold())
            if column is None:
                raise InputError(f"no task or column {key!r}: {did_you_mean(key, columns)}")
            return np.asarray(column)
        if isinstance(key, int | np.integer):
            return next(iter(self[[range(len(self))[key]]]))
        if not isinstance(key, slice):
            key = np.asarray(key) if len(key) else np.empty(0, np.int64)  # an empty list is one of floats to NumPy
            if key.dtype.kind == "U":
                raise InputError(f"got {len(key)} names of columns, expected one; to_pandas() takes several")
        rows = np.arange(len(self))[key]
        index = None if self.index is None else self.index[rows]
        return Predictions([self.smiles[i] for i in rows], self.tasks, self.scores.at(rows), index)

    def columns(self) -> dict[str, Any]:
        """Column name -> list or array."""
        scores = self.scores
        return {"smiles": self.smiles, **scores.columns(self.tasks), "status": scores.status, "error": scores.error}

    def _plain_columns(self) -> dict[str, Any]:
        """`columns`, with the tasks' names without their units."""
        plain = {task.column: task.name for task in self.tasks}
        return {plain.get(name, name): column for name, column in self.columns().items()}

    def to_pandas(self) -> pandas.DataFrame:
        """With the index of the pandas object that was scored."""
        import pandas

        return pandas.DataFrame(self.columns(), index=self.index)

    def to_arrow(self) -> pyarrow.Table:
        """Failed values are nulls, not NaN."""
        import pyarrow

        ok = np.array([status == OK for status in self.scores.status], dtype=bool)
        arrays = {
            name: from_values(column, ok) if isinstance(column, np.ndarray) else from_texts(column)
            for name, column in self.columns().items()
        }
        return pyarrow.table(arrays)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """`to_arrow` for any library that knows Arrow's C interface: `polars.DataFrame(table)`."""
        return self.to_arrow().__arrow_c_stream__(requested_schema)

    def __repr__(self) -> str:
        """The first rows, with as many tasks as fit beside each other; the line below says what was left out."""
        rows = range(min(len(self), PRINTED_ROWS))
        labels = [str(self.index[i] if self.index is not None else i) for i in rows]
        label = _aligned(["", *labels], LABEL_WIDTH)
        tail = self._trust_columns(rows)
        values = [_aligned([task.column, *(self._value(row, i) for row in rows)]) for i, task in enumerate(self.tasks)]
        first = [_width(column) for column in [label, *values[:1], *tail]]
        smiles = _aligned(["smiles", *(self.smiles[i] for i in rows)], max(MIN_TEXT, WIDTH - sum(first)))
        free = WIDTH + 2 - sum(map(_width, [label, smiles, *tail]))
        n_shown = int((np.cumsum([_width(column) for column in values]) <= free).sum())
        printed = [label, smiles, *values[: max(n_shown, 1)], *tail]
        lines = ["  ".join(cells).rstrip() for cells in zip(*printed, strict=True)]
        return "\n".join([*lines, *textwrap.wrap(self._left_out(len(rows), n_shown), WIDTH)])

    def _trust_columns(self, rows: Sequence[int]) -> list[list[str]]:
        """`in_domain`, where the pack knows it, and `status`, where it is not ok throughout."""
        columns, status, inside = [], self.scores.status, self.scores.in_domain
        if inside is not None:
            words = ["" if status[i] != OK else "yes" if inside[i] else "no" for i in rows]
            columns.append(_aligned(["in_domain", *words], LABEL_WIDTH))
        if any(status[i] != OK for i in rows):
            columns.append(_aligned(["status", *(status[i] for i in rows)], LABEL_WIDTH))
        return columns

    def _value(self, row: int, task: int) -> str:
        """`-0.24 (-1.6 to 1.2)`, or a probability."""
        scores = self.scores
        if scores.status[row] != OK:
            return ""
        text = f"{scores.values[row, task]:.3g}"
        if scores.low is None or scores.high is None or self.tasks[task].is_class:
            return text
        return f"{text} ({scores.low[row, task]:.3g} to {scores.high[row, task]:.3g})"

    def _left_out(self, n_rows: int, n_tasks: int) -> str:
        n_ok = self.scores.status.count(OK)
        more = [f"rows from {n_rows} on"] if n_rows < len(self) else []
        if n_tasks < len(self.tasks):
            names = [task.name for task in self.tasks[n_tasks : n_tasks + 3]]
            others = len(self.tasks) - n_tasks - len(names)
            more.append(", ".join(names) + (f" and {counted(others, 'other task')}" if others else ""))
        left_out = f"; not shown: {'; '.join(more)}" if more else ""
        return f"[{counted(len(self), 'molecule')}, {n_ok:,} ok{left_out}; to_pandas() has every column]"

    def _repr_html_(self) -> str:
        """The first rows for a notebook, drawn; values of tasks whose domain a molecule is outside of are faint."""
        import pandas

        columns = {name: [_as_html(cell) for cell in column[:SHOWN_ROWS]] for name, column in self.columns().items()}
        for i, task in enumerate(self.tasks):
            for name in {task.column, f"{task.name}_lo", f"{task.name}_hi"} & columns.keys():
                for row in self._far_rows(i):
                    columns[name][row] = f'<span style="opacity: 0.45">{columns[name][row]}</span>'
        notes = [f"the first {SHOWN_ROWS} of {len(self):,} rows"] if len(self) > SHOWN_ROWS else []
        if problem := drawing_problem():
            notes.append(problem)
        else:
            columns = {"structure": [draw(text) or "" for text in self.smiles[:SHOWN_ROWS]]} | columns
        cells = {html.escape(name): texts for name, texts in columns.items()}
        frame = pandas.DataFrame(cells, index=None if self.index is None else self.index[:SHOWN_ROWS])
        with pandas.option_context("display.max_colwidth", None):  # it would cut within a tag
            table = frame.to_html(escape=False)  # the cells are escaped already
        return f'{STYLE}<div class="mora-lite">{table}{"".join(f"<p>{html.escape(n)}</p>" for n in notes)}</div>'

    def _far_rows(self, task: int) -> list[int]:
        """Of the rows shown, those that are outside of the domain of the task at this position."""
        if self.scores.inside is None:
            return []
        far = np.flatnonzero(~self.scores.inside[:SHOWN_ROWS, task]).tolist()
        return [row for row in far if self.scores.status[row] == OK]


def _plain(cell: object) -> object:
    """A NumPy number as one of Python's."""
    return cell.item() if isinstance(cell, np.generic) else cell


def _aligned(cells: Sequence[str], limit: int | None = None) -> list[str]:
    """The cells on one line each, padded to one width: numbers to the right, texts, with a `limit`, to the left."""
    texts = [" ".join(cell.split()) for cell in cells]
    if limit is not None:
        texts = [text if len(text) <= limit else f"{text[: limit - 3]}..." for text in texts]
    width = max(map(len, texts))
    return [text.rjust(width) if limit is None else text.ljust(width) for text in texts]


def _width(column: Sequence[str]) -> int:
    """Characters of an aligned column, with the gap beside it."""
    return len(column[0]) + 2


def _as_html(cell: object) -> str:
    """A cell's text, escaped; numbers have six significant digits as in files."""
    return f"{cell:.6g}" if isinstance(cell, float | np.floating) else html.escape(str(cell))
