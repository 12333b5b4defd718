"""A row of a library of molecules, whatever kind of file it is from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..chem.molecules import is_mol_block


class Record(NamedTuple):
    """One row of a library.

    text: a SMILES, perhaps with the extension of a CXSMILES, or an MDL mol block. fault: empty, or why it must not be
    scored.
    """

    name: str
    text: str
    fault: str


class RecordBlock(NamedTuple):
    """Consecutive rows of a file.

    cells: of each row, one text for each column of the file; empty where they were not asked for.
    lines: of the file, from 1, at which each began.
    """

    records: list[Record]
    cells: Sequence[Sequence[str]]
    lines: Sequence[int]


def strip_text(cell: str) -> str:
    """A SMILES without surrounding blanks; a mol block as it is, because its first lines may be blank."""
    bare = cell.strip()
    return cell if "\n" in bare and is_mol_block(bare) else bare
