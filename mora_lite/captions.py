"""Descriptions of molecules, and answers to questions about them: read from tables, held out by molecule, as pairs of
the same kind as reactions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from .reactions import Pair, Reaction, canonical, collect

TEST, VALID = 0.08, 0.02  # shares of the molecules: larger than for reactions, as the sets are small


def read_captions(
    paths: Iterable[str | Path], split_column: str | None = None, tell: Callable[[str], None] = lambda _: None
) -> list[Reaction]:
    """Molecules and what is said of them, from CSV tables (plain or .gz) with columns `smiles` and `description`.

    Held out by molecule, as `reactions.collect` says. Each pair is taken once. Left out are molecules that RDKit cannot
    read, empty descriptions, and rows with a cell in the column `overlap_with`, which says that the molecule is in
    another set. Raises `InputError` for other tables and when nothing is left.
    """
    return _read(paths, "description", "", split_column, tell)


def read_questions(
    paths: Iterable[str | Path], split_column: str | None = None, tell: Callable[[str], None] = lambda _: None
) -> list[Reaction]:
    """Molecules with a question and its answer, from tables with columns `smiles`, `question` and `answer`; else as
    `read_captions`. All questions about a molecule are in one part.
    """
    return _read(paths, "answer", "question", split_column, tell)


def _read(
    paths: Iterable[str | Path], text: str, question: str, split_column: str | None, tell: Callable[[str], None]
) -> list[Reaction]:
    def pair(row: dict[str, str]) -> Pair | None:
        target, source = _one_line(row[text]), canonical((row["smiles"] or "").strip())
        asked = _one_line(row[question]) if question else ""
        if source is None or not target or row.get("overlap_with") or (question and not asked):
            return None
        return Pair(source, target, source, asked)

    needed = [name for name in ("smiles", question, text) if name]
    return collect(paths, needed, pair, split_column, tell, of_molecules=False, test=TEST, valid=VALID)


def _one_line(cell: str | None) -> str:
    return " ".join((cell or "").split())
