"""Print a table of predictions to fit a terminal: `python examples/show_table.py x.predictions.csv`."""

from __future__ import annotations

import csv
import sys

from rich.console import Console
from rich.table import Table


def main(path: str) -> None:
    """Show the first column, then every predicted one; under them, the rows that could not be scored."""
    with open(path, newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    smiles, status, error = header.index("smiles"), header.index("status"), header.index("error")
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column(header[0], no_wrap=True)
    for name in header[smiles + 1 : status]:
        # The unit goes under the name: eight tasks side by side then need 80 characters.
        table.add_column(name.replace(" [", "\n\\[").replace("cal/", "cal/\n"), justify="right", no_wrap=True)
    for row in rows:
        table.add_row(row[0], *(shorten(cell) for cell in row[smiles + 1 : status]))
    console = Console(highlight=False)
    console.print(table)
    for row in rows:
        if row[status] != "ok":
            console.print(f"{row[0]} ({row[smiles]}): {row[status]}, {row[error]}", markup=False)


def shorten(cell: str) -> str:
    """Four decimals below 1, four digits above."""
    if not cell:
        return "-"
    value = float(cell)
    return f"{value:.4f}" if abs(value) < 1 else f"{value:.4g}"


if __name__ == "__main__":
    main(sys.argv[1])
