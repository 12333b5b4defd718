"""Reactions as pairs of texts: read from tables, held out by product, written in many orders for training.

A reaction is a set of molecules that go in and a set that comes out, each as SMILES joined by dots. Both are canonical
here, so equal sets are equal texts. Forward prediction asks for the product of reactants and reagents; retrosynthesis
asks for the reactants of a product.

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
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rdkit import Chem, rdBase

from .errors import InputError, near_matches
from .graph import Graphs, featurize

DIRECTIONS = ("forward", "retro")
PARTS = ("train", "valid", "test")
INPUT_COLUMNS = ("reactants_and_reagents", "reactants", "reagents")
GRAMS = (4, 10)  # lengths of the runs of characters that `align` counts: places, and long stretches


@dataclass(frozen=True)
class Reaction:
    """source: canonical SMILES of what is given. target: of what is asked for. part: train, valid or test.

    origin: name of the table it is from, without suffixes. of_molecules: whether the target is molecules, not words.
    """

    source: str
    target: str
    part: str
    origin: str
    of_molecules: bool = True


def canonical(smiles: str) -> str | None:
    """RDKit's canonical SMILES of a molecule or a set of them joined by dots; None where RDKit refuses it or nothing
    is in it.
    """
    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(smiles) if smiles and smiles.isascii() else None
    return Chem.MolToSmiles(mol) if mol is not None and mol.GetNumAtoms() else None


def flat(product: str) -> str:
    """Canonical SMILES without stereochemistry: what two products must not share across parts."""
    with rdBase.BlockLogs():
        return Chem.MolToSmiles(Chem.MolFromSmiles(product), isomericSmiles=False)


def part_of(product: str, test: float = 0.015, valid: float = 0.01) -> str:
    """Which part a product belongs to, by the SHA-256 of its canonical SMILES without stereochemistry.

    So a product is in one part whatever table, reaction or enantiomer it is from, and on every machine in the same.
    test, valid: shares of all products.
    """
    place = int.from_bytes(hashlib.sha256(flat(product).encode()).digest()[:8], "big") / 2**64
    return "test" if place < test else "valid" if place < test + valid else "train"


def read_reactions(
    paths: Iterable[str | Path], direction: str = "forward", split_column: str | None = None
) -> list[Reaction]:
    """Reactions of CSV tables (plain or .gz), each pair of source and target once, held out by product.

    A table needs the column `product` and one or more of `reactants_and_reagents`, `reactants`, `reagents`. Forward
    takes all of them as the source, unmarked; retro asks for the reactants alone and needs that column. Rows that RDKit
    cannot read are left out. split_column: a column of train, valid (or val) and test that stands in the place of
    `part_of`; tables without it then train, rows with another mark are left out, and so are training rows whose
    product, stereochemistry aside, is held out in any table. Raises `InputError` for other tables and when nothing is
    left.
    """
    if direction not in DIRECTIONS:
        raise InputError(f"direction: got {direction!r}; {near_matches(direction, DIRECTIONS)}")
    found: dict[tuple[str, str], Reaction] = {}
    held_out: set[str] = set()
    for path in paths:
        origin = Path(path).name.split(".")[0]
        needed = ("reactants",) if direction == "retro" else INPUT_COLUMNS
        for row in read_rows(Path(path), "product", needed):
            given = [row[name] for name in INPUT_COLUMNS if row.get(name)]
            educts = canonical(row["reactants"] if direction == "retro" else ".".join(given))
            product = canonical(row["product"])
            if educts is None or product is None:
                continue
            source, target = (educts, product) if direction == "forward" else (product, educts)
            if (source, target) in found:
                continue
            part = part_of(product) if split_column is None else _part_in(row, split_column)
            if part not in PARTS:
                continue
            if part != "train":
                held_out.add(flat(product))
            found[source, target] = Reaction(source, target, part, origin)
    if not found:
        raise InputError("the tables hold no reaction that RDKit can read; columns product and reactants are needed")
    if split_column is None:  # a product is in one part already
        return list(found.values())
    of_product = (lambda r: r.target) if direction == "forward" else (lambda r: r.source)
    return [r for r in found.values() if r.part != "train" or flat(of_product(r)) not in held_out]


def _part_in(row: dict[str, str], column: str) -> str:
    mark = (row.get(column) or "train").strip().lower()
    return "valid" if mark in ("val", "validation") else mark


def read_rows(path: Path, column: str, others: Sequence[str]) -> Iterator[dict[str, str]]:
    """Rows of a CSV table that has `column` and one or more of `others`. Raises `InputError` otherwise."""
    try:
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or []
            if column not in columns or not set(others) & set(columns):
                raise InputError(
                    f"{path}: got the columns {', '.join(columns)}; expected {column} and {' or '.join(others)}"
                )
            yield from reader
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read as a table: {error}") from None


def reorder(smiles: str, dice: random.Random, copies: int = 1) -> list[str]:
    """The same set of molecules in other orders, each begun at another atom."""
    with rdBase.BlockLogs():
        molecules = [Chem.MolFromSmiles(part) for part in smiles.split(".")]
    orders = []
    for _ in range(copies):
        dice.shuffle(molecules)
        texts = (Chem.MolToSmiles(mol, rootedAtAtom=dice.randrange(mol.GetNumAtoms())) for mol in molecules)
        orders.append(".".join(texts))
    return orders


class Aligner:
    """Writes one set of molecules in the order nearest to that of another text.

    Each molecule is begun at the atom that gives it the most runs of characters in common with that text, and the
    molecules stand in the order in which the text comes to them.
    """

    def __init__(self, target: str):
        self.ways = [[(text, _grams(text)) for text in _all_roots(part)] for part in target.split(".")]

    def align(self, source: str) -> str:
        """The target set for `source`; molecules beyond the longest alternatives keep their canonical text first."""
        held = _grams(source)
        best = [max(ways, key=lambda way: len(way[1] & held))[0] for ways in self.ways]
        return ".".join(sorted(best, key=lambda text: _place(text, source)))


def _all_roots(part: str) -> list[str]:
    """A molecule begun at each of its atoms, the canonical text first, each text once."""
    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(part)
    rooted = (Chem.MolToSmiles(mol, rootedAtAtom=atom) for atom in range(mol.GetNumAtoms()))
    return list(dict.fromkeys([part, *rooted]))


def _grams(text: str) -> set[str]:
    return {text[i : i + n] for n in GRAMS for i in range(len(text) - n + 1)}


def _place(text: str, source: str) -> int:
    """Where in `source` the runs of `text` begin, at their median; at the end when none is there."""
    n = min(GRAMS[0], len(text))
    places = sorted(source.find(text[i : i + n]) for i in range(len(text) - n + 1))
    places = [place for place in places if place >= 0]
    return places[len(places) // 2] if places else len(source)


def write_copies(reaction: Reaction, n_copies: int, seed: int) -> list[tuple[str, str]]:
    """Pairs of texts of one reaction: the canonical source first, then other orders; each with its aligned target.

    `seed` and the source decide the orders, not the reactions beside it.
    """
    dice = random.Random(f"{seed} {reaction.source}")
    sources = dict.fromkeys([reaction.source, *reorder(reaction.source, dice, n_copies - 1)])
    if not reaction.of_molecules:
        return [(source, reaction.target) for source in sources]
    aligner = Aligner(reaction.target)
    return [(source, aligner.align(source)) for source in sources]


def write_block(reactions: Sequence[Reaction], n_copies: int, seed: int) -> tuple[list[list[tuple[str, str]]], Graphs]:
    """Copies and graphs of some reactions, for one process of several; held-out ones have the canonical texts alone.

    The graph is that of the source: one graph of as many components as there are molecules.
    """
    texts = [
        write_copies(reaction, n_copies, seed) if reaction.part == "train" else [(reaction.source, reaction.target)]
        for reaction in reactions
    ]
    with rdBase.BlockLogs():
        return texts, featurize([Chem.MolFromSmiles(reaction.source) for reaction in reactions])


def same_set(answer: str, target: str) -> bool:
    """Whether an answer in any order is the canonical set `target`."""
    return canonical(answer) == target


def count_parts(reactions: Sequence[Reaction]) -> dict[str, int]:
    """Reactions in each part."""
    return {part: sum(reaction.part == part for reaction in reactions) for part in PARTS}
