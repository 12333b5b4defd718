"""Pairs of texts, question and answer: read from tables, held out by molecule, written in many orders for training.

Reactions are such pairs, and so are descriptions of molecules and answers to questions about them.

A reaction is a set of molecules that go in and a set that comes out, each as SMILES joined by dots. Both are canonical
here, so equal sets are equal texts. Forward prediction asks for the product of reactants and reagents; retrosynthesis
asks for the reactants of a product; a third task asks for the reagents that some reactants need.

For training the same set is written in several orders (`reorder`): its molecules shuffled, each begun at a random atom.
The answer is then written in the order nearest to that of the question (`align`), so that most of it can be copied
from left to right, as in root-aligned SMILES (arXiv 2203.11444), though without the atom maps that those need. What a
model answers is made canonical before it is compared.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import random
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ..chem.featurizer import Featurizer
from ..chem.graph import Graphs
from ..chem.smiles import Aligner, canonical, flat, reorder
from ..errors import InputError, did_you_mean, error_text
from ..training.splits import PARTS

# Several molecules are one source, and an answer speaks of them as they are drawn: nothing is taken away.
FEATURIZER = Featurizer(standardize="none")
TARGETS = {"forward": "product", "retro": "reactants", "reagents": "reagents"}  # the column of the answer
DIRECTIONS = tuple(TARGETS)
TEST, VALID = 0.08, 0.02  # shares of described molecules: larger than of reactions, as the sets are small
INPUT_COLUMNS = ("reactants_and_reagents", "reactants", "reagents")
SKIP_REASON = "that cannot be used: a blank cell, molecules that RDKit does not read, or a mark in overlap_with"


@dataclass(frozen=True)
class TextPair:
    """A question and its answer, in one part of the split.

    source: canonical SMILES of the molecules in the question. target: canonical SMILES or words of the answer.
    part: train, valid or test. origin: name of the table it is from, without suffixes.
    of_molecules: whether the target is molecules, not words. question: in words, where each row has one.
    """

    source: str
    target: str
    part: str
    origin: str
    of_molecules: bool = True
    question: str = ""


def format_question(source: str, question: str) -> str:
    """The text that stands for molecules in a prompt: their SMILES, and a question about them where there is one.

    Training and answering both make it here, so that both make the same tokens of it.
    """
    return f"{source}\nQuestion: {' '.join(question.split())}" if question else source


def part_of(product: str, test: float = 0.015, valid: float = 0.01) -> str:
    """Which part a product belongs to, by the SHA-256 of its canonical SMILES without stereochemistry.

    So a product is in one part whatever table, reaction or enantiomer it is from, and on every machine in the same.
    test, valid: shares of all products.
    """
    fraction = int.from_bytes(hashlib.sha256(flat(product).encode()).digest()[:8], "big") / 2**64
    return "test" if fraction < test else "valid" if fraction < test + valid else "train"


class PairRow(NamedTuple):
    """A row of a table, before its part is known: canonical SMILES `source`, `target`, the molecules `key` that it is
    held out by, and a question in words where there is one.
    """

    source: str
    target: str
    key: str
    question: str = ""


def read_reactions(
    paths: Iterable[str | Path],
    direction: str = "forward",
    split_column: str | None = None,
    on_note: Callable[[str], None] = lambda _note: None,
) -> list[TextPair]:
    """Reactions of CSV tables (plain or .gz), each pair of source and target once, held out as `collect` says.

    forward: the source is all of the columns `reactants_and_reagents`, `reactants` and `reagents` that there are,
    unmarked, the target the column `product`. retro: from `product` to `reactants`. reagents: from `reactants` to
    `reagents`. Held out by product; by the set of reactants for reagents, which need no product. Rows that RDKit cannot
    read are left out. Raises `InputError` for other tables and when nothing is left.
    """
    if direction not in DIRECTIONS:
        raise InputError(f"direction: got {direction!r}; {did_you_mean(direction, DIRECTIONS)}")

    def pair(row: dict[str, str]) -> PairRow | None:
        if direction == "forward":
            source = canonical(".".join(row[name] for name in INPUT_COLUMNS if row.get(name)))
        else:
            source = canonical(row["product" if direction == "retro" else "reactants"])
        target = canonical(row[TARGETS[direction]])
        if source is None or target is None:
            return None
        return PairRow(source, target, target if direction == "forward" else source)

    needed, any_of = {
        "forward": (("product",), INPUT_COLUMNS),
        "retro": (("product", "reactants"), ()),
        "reagents": (("reactants", "reagents"), ()),
    }[direction]
    return collect(paths, needed, pair, split_column, on_note, any_of=any_of)


def read_captions(
    paths: Iterable[str | Path], split_column: str | None = None, on_note: Callable[[str], None] = lambda _note: None
) -> list[TextPair]:
    """Molecules and what is said of them, from CSV tables (plain or .gz) with columns `smiles` and `description`.

    Held out by molecule, as `collect` says. Each pair is taken once. Left out are molecules that RDKit cannot
    read, empty descriptions, and rows with a cell in the column `overlap_with`, which says that the molecule is in
    another set. Raises `InputError` for other tables and when nothing is left.
    """
    return _read(paths, "description", "", split_column, on_note)


def read_questions(
    paths: Iterable[str | Path], split_column: str | None = None, on_note: Callable[[str], None] = lambda _note: None
) -> list[TextPair]:
    """Molecules with a question and its answer, from tables with columns `smiles`, `question` and `answer`; else as
    `read_captions`. All questions about a molecule are in one part.
    """
    return _read(paths, "answer", "question", split_column, on_note)


def _read(
    paths: Iterable[str | Path], text: str, question: str, split_column: str | None, on_note: Callable[[str], None]
) -> list[TextPair]:
    def pair(row: dict[str, str]) -> PairRow | None:
        target, source = _one_line(row[text]), canonical((row["smiles"] or "").strip())
        words = _one_line(row[question]) if question else ""
        if source is None or not target or row.get("overlap_with") or (question and not words):
            return None
        return PairRow(source, target, source, words)

    needed = [name for name in ("smiles", question, text) if name]
    return collect(paths, needed, pair, split_column, on_note, of_molecules=False, test=TEST, valid=VALID)


def _one_line(cell: str | None) -> str:
    return " ".join((cell or "").split())


def collect(
    paths: Iterable[str | Path],
    needed: Sequence[str],
    pair_of: Callable[[dict[str, str]], PairRow | None],
    split_column: str | None = None,
    on_note: Callable[[str], None] = lambda _note: None,
    *,
    any_of: Sequence[str] = (),
    of_molecules: bool = True,
    test: float = 0.015,
    valid: float = 0.01,
) -> list[TextPair]:
    """The pairs that `pair_of` makes of the rows of tables, each once; held out by `part_of` its key.

    needed, any_of: columns, as `read_rows` has them.
    pair_of: returns None for a row that is left out.
    split_column: a column of train, valid (or val) and test that replaces `part_of`; tables without it then train, rows
    with another mark are left out, and so are training rows whose key, stereochemistry aside, is held out in any table.
    test, valid: shares, without such a column. on_note: gets a line for each reason for which rows were left out.

    Raises `InputError` when nothing is left, or no table has that column.
    """
    pairs: dict[PairRow, TextPair] = {}
    held_out: set[str] = set()
    is_split = False
    left_out: Counter[str] = Counter()
    for path in paths:
        origin = Path(path).name.split(".")[0]
        for row in read_rows(Path(path), needed, any_of):
            is_split = is_split or (split_column is not None and split_column in row)
            pair = pair_of(row)
            if pair is None or pair in pairs:
                left_out[SKIP_REASON if pair is None else "whose pair is there already"] += 1
                continue
            part = part_of(pair.key, test, valid) if split_column is None else _part_in(row, split_column)
            if part not in PARTS:
                left_out[f"with another mark than train, valid or test in the column {split_column}"] += 1
                continue
            if split_column is not None and part != "train":
                held_out.add(flat(pair.key))
            pairs[pair] = TextPair(pair.source, pair.target, part, origin, of_molecules, pair.question)
    if split_column is not None and not is_split:
        raise InputError(f"split: got {split_column!r}, but no table has that column")
    if not pairs:
        raise InputError(
            f"no row of the tables can be used; expected cells in {_words(needed, any_of)}, molecules that RDKit reads"
        )
    usable = list(pairs.values())
    if split_column is not None:  # else a key is in one part already
        usable = [pair for row, pair in pairs.items() if pair.part != "train" or flat(row.key) not in held_out]
        left_out["for training whose product or molecule is held out"] = len(pairs) - len(usable)
    for reason, n in left_out.items():
        if n:
            on_note(f"left out: {n:,} row{'s' * (n > 1)} {reason}")
    return usable


def _part_in(row: dict[str, str], column: str) -> str:
    mark = (row.get(column) or "train").strip().lower()
    return "valid" if mark in ("val", "validation") else mark


def read_rows(path: Path, needed: Sequence[str], any_of: Sequence[str] = ()) -> Iterator[dict[str, str]]:
    """Rows of a CSV table that has all columns `needed` and one or more of `any_of`. Raises `InputError` otherwise."""
    try:
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or []
            if not set(needed) <= set(columns) or (any_of and not set(any_of) & set(columns)):
                raise InputError(f"{path}: got the columns {', '.join(columns)}; expected {_words(needed, any_of)}")
            yield from reader
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as a table: {error_text(error)}") from None


def _words(needed: Sequence[str], any_of: Sequence[str]) -> str:
    return " and ".join([*needed, *([" or ".join(any_of)] if any_of else [])])


def write_copies(pair: TextPair, n_copies: int, seed: int) -> list[tuple[str, str]]:
    """Question and answer in several orders: the canonical source first; each with its aligned target.

    `seed` and the source decide the orders, not the pairs beside it.
    """
    rng = random.Random(f"{seed} {pair.source}")
    sources = dict.fromkeys([pair.source, *reorder(pair.source, rng, n_copies - 1)])
    if not pair.of_molecules:
        return [(format_question(source, pair.question), pair.target) for source in sources]
    aligner = Aligner(pair.target)
    return [(source, aligner.align(source)) for source in sources]


def write_block(pairs: Sequence[TextPair], n_copies: int, seed: int) -> tuple[list[list[tuple[str, str]]], Graphs]:
    """Copies and graphs of some pairs, for one process of several; held-out ones have the canonical texts alone.

    The graph is that of the source: one graph of as many components as there are molecules.
    """
    texts = [
        write_copies(pair, n_copies, seed)
        if pair.part == "train"
        else [(format_question(pair.source, pair.question), pair.target)]
        for pair in pairs
    ]
    return texts, FEATURIZER.read_smiles([pair.source for pair in pairs])
