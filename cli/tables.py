"""Rows of metrics as a table on a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

FOUR_BIT = ("bf16_mae", "loss_4bit")
MIN_TEXT = 8  # characters that are left of a text when the numbers need the width


def print_rows(title: str, rows: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Print `title` and a table: a column for each key that any row has, numbers to four significant digits.

    Fits the console's width: headers are broken at spaces, then long texts (scaffolds) end in an ellipsis.
    """
    from rich.table import Table
    from rich.text import Text

    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: [_show(row.get(name)) for row in rows] for name in names}
    text = [name for name in names if any(isinstance(row.get(name), str) for row in rows)]
    heads = {name: name.replace("_", " ") for name in names}
    widths = {name: max(map(len, [heads[name], *cells])) for name, cells in columns.items()}
    if sum(widths.values()) + len(names) - 1 > console.width:
        for name in names:
            widths[name] = max(map(len, [*heads[name].split(), *columns[name]]))
        free = console.width - (len(names) - 1) - sum(widths[name] for name in names if name not in text)
        for i, name in enumerate(sorted(text, key=widths.__getitem__)):  # long ones get what short ones leave
            widths[name] = min(widths[name], max(MIN_TEXT, free // (len(text) - i)))
            free -= widths[name]

    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    for name in names:
        side = "left" if name in text else "right"
        # Where even this is too wide, numbers continue in the next line: a number cut off is a wrong one.
        table.add_column(Text(heads[name]), justify=side, width=widths[name], overflow="fold")  # type: ignore[arg-type]
    for i in range(len(rows)):
        # As Text, since the brackets of SMILES are markup to rich.
        table.add_row(*(Text(_shorten(columns[name][i], widths[name])) for name in names))
    console.print(Text(title, style="bold"))
    console.print(table)


def _show(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)


def _shorten(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def print_evaluation(metrics: Mapping[str, Mapping[str, Any]], tables: Mapping[str, Mapping[str, Any]] = {}) -> None:
    """On stdout: a table of the values, one of the classes, then the tables of each task."""
    from rich.console import Console

    console = Console(highlight=False)
    classes = [name for name, of_task in metrics.items() if "roc_auc" in of_task]
    values = [name for name in metrics if name not in classes]
    for title, names in (("values", values), ("classes", classes)):
        rows = [{"task": _label(name, metrics[name])} | _without(metrics[name], "unit", *FOUR_BIT) for name in names]
        if rows:
            print_rows(title, rows, console)
    if any("bf16_mae" in metrics[name] for name in values):  # apart: with them a row is wider than a terminal
        rows = [{"task": _label(n, metrics[n])} | {k: metrics[n].get(k) for k in ("mae", *FOUR_BIT)} for n in values]
        print_rows("what 4 bits cost", rows, console)
    for task, named in tables.items():
        for name, rows in named.items():
            if rows:
                console.print()
                print_rows(f"{_label(task, metrics[task])}, {name.replace('_', ' ')}", rows, console)


def print_text_metrics(title: str, metrics: dict[str, Any]) -> None:
    """On stdout: a table of a text pack's metrics, with a row for each data table where there are several."""
    from rich.console import Console

    from ..text.metrics import metrics_by_table

    print_rows(title, metrics_by_table(metrics), Console(highlight=False))


def _label(task: str, metrics: Mapping[str, Any]) -> str:
    return f"{task} [{metrics['unit']}]" if metrics.get("unit") else task


def _without(metrics: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {key: value for key, value in metrics.items() if key not in names}
