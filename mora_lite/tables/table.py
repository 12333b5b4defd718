"""Tables of molecules, read in a stream, nothing lost.

Reading keeps the text of every cell as it is, in constant memory: comma, tab, semicolon or bar, plain or packed,
UTF-8 or UTF-16, any line ends, and a sheet of an Excel workbook. Bytes that are not UTF-8 are carried as
surrogates and written back unchanged. One record of the file is one row: also a short one (padded with empty cells), a
blank line between others (all cells empty; blank lines at the end of the file are not rows) and one with
too many cells (`RowBlock.faults` says so and lists them).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from ..errors import InputError
from .columns import (
    SAMPLE_ROWS,
    WantedColumns,
    choose_name_column,
    choose_smiles_column,
    count_titles,
    title_note,
)
from .delimited import DelimitedText, RowBlock, sniff_dialect
from .formats import format_cells
from .source import Source
from .workbook import Workbook


class Table:
    """An open file or workbook as a table, whose rows can be read once, with `blocks`.

    columns: names. smiles_index, name_index: which of them holds the SMILES, and the molecules' names if one does,
    from 0.
    notes: lines for the user; complete when all rows are read.
    """

    def __init__(self, source: Source | Workbook, wanted: WantedColumns):
        """Raises `InputError` when there is no row, when no column or several can be the SMILES column, and when there
        is no column of names as the user names it.
        """
        self.source = source
        self.delimiter = ""
        self._records: DelimitedText | Workbook
        if isinstance(source, Workbook):
            self._records = source
        else:
            dialect = sniff_dialect(source.start, source.name, wanted.of_table)
            self.delimiter = dialect.delimiter
            self._records = DelimitedText(source, dialect)
        blocks, head = iter(self._records), []
        for block in blocks:
            head.append(block)
            if sum(len(block.cells) for block in head) > SAMPLE_ROWS:
                break
        if not head:
            raise InputError(f"{source.name} is empty: a header with a SMILES column is needed")
        rows = [cells for block in head for cells in block.cells][: SAMPLE_ROWS + 1]
        n_titles = count_titles(rows, wanted.of_table) if source is self._records else 0  # a text's are skipped already
        choice = choose_smiles_column(rows[n_titles], rows[n_titles + 1 :], wanted, source.name)
        self.columns, self.smiles_index = choice.columns, choice.smiles_index
        self.name_index = choose_name_column(choice, wanted, source.name)
        self._own_notes = choice.notes
        if n_titles:
            self._own_notes.append(title_note(source.name, f"row {head[0].lines[n_titles]}"))
        if n_above := n_titles + choice.has_header:
            first = head[0]
            faults = {i - n_above: fault for i, fault in first.faults.items() if i >= n_above}
            head[0] = RowBlock(first.cells[n_above:], first.lines[n_above:], faults)
        self._blocks = chain(head, blocks)

    @property
    def notes(self) -> list[str]:
        return [*self._own_notes, *self._records.notes]

    def blocks(self) -> Iterator[RowBlock]:
        """Rows in the file's order, each with as many cells as there are columns, some hundreds at a time."""
        width = len(self.columns)
        for block in self._blocks:
            cells = block.cells
            if set(map(len, cells)) - {width}:
                rows = [_fit(row, width) for row in cells]
                faults = {i: fault for i, (_, fault) in enumerate(rows) if fault} | block.faults
                yield RowBlock([fitted for fitted, _ in rows], block.lines, faults)
            elif cells:
                yield block


def _fit(cells: list[str], width: int) -> tuple[list[str], str]:
    """So many cells, and why they must not be scored; empty where they may be."""
    extra = cells[width:]
    if not any(extra):
        return cells[:width] + [""] * (width - len(cells)), ""
    # Nobody knows which of the delimiters is one too many, so nobody knows the SMILES.
    fault = f"{len(cells)} cells for {width} columns; the cells beyond: {format_cells(extra)}"
    if all(cell.isdecimal() for cell in extra):
        fault += "; is a decimal comma among them?"
    return cells[:width], fault
