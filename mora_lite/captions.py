"""Descriptions of molecules: read from tables, held out by molecule, as pairs of the same kind as reactions."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from .errors import InputError
from .reactions import Reaction, canonical, part_of, read_rows


def read_captions(paths: Iterable[str | Path]) -> list[Reaction]:
    """Molecules and what is said of them, from CSV tables (plain or .gz) with columns `smiles` and `description`.

    A molecule is held out as a product is, by `reactions.part_of`, 8 % for the test as the sets are small. Each pair is
    taken once. Left out are molecules that RDKit cannot read, empty descriptions, and rows with a cell in the column
    `overlap_with`, which says that the molecule is in another set. Raises `InputError` for other tables and when
    nothing is left.
    """
    found: dict[tuple[str, str], Reaction] = {}
    for path in paths:
        origin = Path(path).name.split(".")[0]
        for row in read_rows(Path(path), "smiles", ("description",)):
            text = " ".join((row["description"] or "").split())
            source = canonical((row["smiles"] or "").strip())
            if source is None or not text or row.get("overlap_with"):
                continue
            part = part_of(source, test=0.08, valid=0.02)
            found.setdefault((source, text), Reaction(source, text, part, origin, of_molecules=False))
    if not found:
        raise InputError("the tables hold no description of a molecule that RDKit can read")
    return list(found.values())
