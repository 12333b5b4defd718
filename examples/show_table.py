"""Print some columns of a table of predictions, fitted to a terminal.

python examples/show_table.py x.predictions.csv logS BBB similarity     (names without unit; all when none is given)
"""

from __future__ import annotations

import csv
import sys

from rich.console import Console
from rich.table import Table
from rich.text import Text


def main(path: str, *wanted: str) -> None:
    """Show the first column, then the predicted ones; under them, the rows that could not be scored."""
    with open(path, newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    smiles, status, error = header.index("smiles"), header.index("status"), header.index("error")
    shown = [at for at in range(smiles + 1, status) if not wanted or header[at].partition(" [")[0] in wanted]
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    # As `Text`, in which brackets are no markup: names of molecules have them.
    table.add_column(Text(header[0]), no_wrap=True)
    for at in shown:
        # The unit goes under the name: more columns fit side by side. Long names are broken, values are whole.
        width = max((len(shorten(row[at])) for row in rows), default=0)
        table.add_column(Text(header[at].replace(" [", "\n[")), justify="right", overflow="fold", min_width=width)
    for row in rows:
        table.add_row(*(Text(cell) for cell in (row[0], *(shorten(row[at]) for at in shown))))
    console = Console(highlight=False)
    console.print(table)
    for row in rows:
        if row[status] != "ok":
            console.print(f"{row[0]} ({row[smiles]}): {row[status]}, {row[error]}", markup=False)


def shorten(cell: str) -> str:
    """Two decimals below 100, three digits above."""
    if cell in ("", "true", "false"):
        return {"true": "yes", "false": "no"}.get(cell, "-")
    try:
        value = float(cell)
    except ValueError:  # a text, such as the names in `outside`
        return cell
    return f"{value:.2f}" if abs(value) < 100 else f"{value:.3g}"


if __name__ == "__main__":
    main(*sys.argv[1:])
