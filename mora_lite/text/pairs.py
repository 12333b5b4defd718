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

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from rdkit import Chem

from ..chem.featurizer import Featurizer
from ..chem.graph import Graphs
from ..chem.molecules import MAX_ATOMS
from ..chem.smiles import Aligner, canonical_cell, flat, largest, reorder, together
from ..errors import InputError
from ..status import counted
from ..tables.columns import SAMPLE_ROWS, find_column, plain_name, reads_as_reactions
from ..tables.library import Library, open_library
from ..tables.source import is_stream
from ..training.splits import part_of_mark
from .tasks import (
    ASK,
    DIRECTIONS,
    INPUT_COLUMNS,
    PRODUCT,
    QUESTION_COLUMN,
    QUESTIONS,
    REACTION_COLUMNS,
    TEXT_TASKS,
    read_reaction,
    side_columns,
    text_task,
)

# Several molecules are one source, and an answer speaks of them as they are drawn: nothing is taken away.
FEATURIZER = Featurizer(standardize="none")
TEST, VALID = 0.08, 0.02  # shares of described molecules: larger than of reactions, as the sets are small
_WHOLE = ("reactants", "reagents", PRODUCT)  # columns that a reaction in one cell stands for
SKIP_REASON = "that cannot be used: a blank cell, molecules that RDKit does not read, or a mark in overlap_with"


@dataclass(frozen=True)
class TextPair:
    """A question and its answer, in one part of the split.

    source: canonical SMILES of the molecules in the question. target: canonical SMILES or words of the answer.
    part: train, valid or test. origin: name of the table it is from, without suffixes; of several directions behind
    that of its own, as in `retro/uspto50k`.
    aligned: whether the target follows the order of the source. question: in words, where each row has one.
    """

    source: str
    target: str
    part: str
    origin: str
    aligned: bool = True
    question: str = ""


def format_question(source: str, question: str) -> str:
    """The text that stands for molecules in a prompt: their SMILES, and a question about them where there is one.

    Training and answering both make it here, so that both make the same tokens of it.
    """
    return f"{source}\nQuestion: {' '.join(question.split())}" if question else source


def hash_of(text: str) -> int:
    """A number of 64 bits, the same on every machine: the beginning of the text's SHA-256."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def part_of(product: str, test: float = 0.015, valid: float = 0.01) -> str:
    """Which part a product belongs to, by the SHA-256 of its canonical SMILES without stereochemistry.

    So a product is in one part whatever table, reaction or enantiomer it is from, and on every machine in the same.
    test, valid: shares of all products.
    """
    fraction = hash_of(flat(product)) / 2**64
    return "test" if fraction < test else "valid" if fraction < test + valid else "train"


class PairRow(NamedTuple):
    """A question that a row of a table gives, before its part is known.

    source, target: canonical SMILES, or words for the target. key: the molecules that it is held out by. question: in
    words where there is one. direction: of a reaction, where there are several.
    """

    source: str
    target: str
    key: str
    question: str = ""
    direction: str = ""


class Reader(NamedTuple):
    """How the rows of tables become pairs.

    needed, any_of: columns, as `read_rows` has them. pairs: of a row; none where it is left out. test, valid: shares
    that `part_of` holds out. aligned: whether answers follow the order of the question.
    """

    needed: Sequence[str]
    any_of: Sequence[str]
    pairs: Callable[[dict[str, str]], list[PairRow]]
    test: float = 0.015
    valid: float = 0.01
    aligned: bool = True


def reader_of(tasks: Sequence[str], in_words: bool = False) -> Reader:
    """What reads the tables of a pack for a task, or for several directions of reactions, which are asked in words.

    in_words: of one direction too. Raises `InputError` for unknown tasks.
    """
    for task in tasks:
        text_task(task)
    if in_words or len(tasks) > 1:
        return Reader(("product",), INPUT_COLUMNS, partial(_asked_reactions, tasks))
    (task,) = tasks
    if task in DIRECTIONS:
        sources, column = TEXT_TASKS[task].sources, TEXT_TASKS[task].column
        if len(sources) > 1:  # a table need not have all of them
            return Reader((column,), sources, partial(_reactions, task))
        return Reader((*sources, column), (), partial(_reactions, task))
    column, question = TEXT_TASKS[task].column, QUESTION_COLUMN if task == ASK else ""
    needed = [name for name in ("smiles", question, column) if name]
    return Reader(needed, (), partial(_descriptions, column, question), TEST, VALID, aligned=False)


def _reactions(direction: str, row: dict[str, str]) -> list[PairRow]:
    """A reaction in one direction.

    forward: the source is all of the columns `reactants_and_reagents`, `reactants` and `reagents` that there are,
    unmarked, the target the column `product`. retro: from `product` to `reactants`. reagents: from `reactants` to
    `reagents`. Held out by the largest molecule of the product; by the set of reactants for reagents, which need no
    product.
    """
    source, target = _together(row, TEXT_TASKS[direction].sources), canonical_cell(row[TEXT_TASKS[direction].column])
    if source is None or target is None:
        return []
    key = flat(source) if direction == "reagents" else largest(target if direction == "forward" else source)
    return [PairRow(source, target, key)]


def _asked_reactions(directions: Sequence[str], row: dict[str, str]) -> list[PairRow]:
    """A reaction, asked in several of `QUESTIONS`, for the task `ask`.

    A row gives those that its columns answer: the reactants need the column `reactants` for themselves, and so do the
    reagents. All are held out by the largest molecule of the product. Reagents are answered in canonical order.
    """
    product, inputs = canonical_cell(row["product"]), _together(row, INPUT_COLUMNS)
    if product is None or inputs is None:
        return []
    reactants, reagents = (canonical_cell(row.get(name) or "") for name in ("reactants", "reagents"))
    ways = {"forward": (inputs, product), "retro": (product, reactants), "reagents": (reactants, reagents)}
    pairs, key = [], largest(product)
    for direction in directions:
        source, target = ways[direction]
        if source is not None and target is not None:
            pairs.append(PairRow(source, target, key, QUESTIONS[direction].format(product=product), direction))
    return pairs


def _together(row: dict[str, str], columns: Iterable[str]) -> str | None:
    """The molecules of these columns, of which a table need not have all."""
    return canonical_cell(together(row.get(name) or "" for name in columns))


def _descriptions(column: str, question: str, row: dict[str, str]) -> list[PairRow]:
    """A molecule and what is said of it in `column`, or a question about it and its answer; held out by molecule.

    Rows with a cell in the column `overlap_with` are left out: it says that the molecule is in another set.
    """
    target, source = _one_line(row[column]), canonical_cell(row["smiles"])
    words = _one_line(row[question]) if question else ""
    if source is None or not target or row.get("overlap_with") or (question and not words):
        return []
    return [PairRow(source, target, flat(source), words)]


def _one_line(cell: str) -> str:
    return " ".join(cell.split())


def read_pairs(
    tasks: Sequence[str],
    paths: Iterable[str | Path],
    split_column: str | None = None,
    on_note: Callable[[str], None] = lambda _note: None,
    test_paths: Sequence[str | Path] = (),
    *,
    in_words: bool = False,
) -> list[TextPair]:
    """The rows of tables that a pack learns from and is tested on, each pair once; held out by `part_of` its key.

    tasks, in_words: see `reader_of`.
    split_column: a column of train, valid and test, in the words of `part_of_mark`, that replaces `part_of`, or several
    with commas, of which a table's first one counts; tables without it and rows where it is blank then train, and rows
    with another mark are left out.
    test_paths: further tables, all of whose rows are the test; without a split column the others then have none.
    on_note: gets a line for each reason for which rows were left out, such as molecules that RDKit does not read.

    A training row whose key, stereochemistry aside, is held out in any table is left out, whatever it asks. Raises
    `InputError` for unknown tasks, for other tables, when nothing is left, and when no table has the split column.
    """
    reader = reader_of(tasks, in_words)
    pairs: dict[PairRow, TextPair] = {}
    held_out: set[str] = set()
    left_out: Counter[str] = Counter()
    rule = _Rule(split_column, test_paths, reader)
    for path in dict.fromkeys(map(Path, [*paths, *test_paths])):
        table = path.name.split(".")[0]
        for row in read_rows(path, reader.needed, reader.any_of, on_note):
            found = reader.pairs(row)
            if any(is_too_large(pair.source) for pair in found):
                left_out[f"of more than {MAX_ATOMS} atoms"] += 1
                continue
            if not found or all(pair in pairs for pair in found):
                left_out["whose pair is there already" if found else SKIP_REASON] += 1
            for pair in found:
                part, known = rule.part(path, row, pair.key), pairs.get(pair)
                if not part:
                    left_out[f"with another mark than train, valid or test in the column {rule.column(row)}"] += 1
                    continue
                if part != "train":
                    held_out.add(pair.key)
                if known is None or known.part == "train":  # a row that trains in one table may be the test of another
                    origin = f"{pair.direction}/{table}" if pair.direction else table
                    aligned = reader.aligned and pair.direction != "reagents"
                    pairs[pair] = TextPair(pair.source, pair.target, part, origin, aligned, pair.question)
    rule.check()
    if not pairs:
        expected = _words(reader.needed, reader.any_of)
        raise InputError(f"no row of the tables can be used; expected cells in {expected}, molecules that RDKit reads")
    usable = [pair for row, pair in pairs.items() if pair.part != "train" or row.key not in held_out]
    left_out["for training whose product or molecule is held out"] = len(pairs) - len(usable)
    for reason, n in left_out.items():
        if n:
            on_note(f"left out: {counted(n, 'row')} {reason}")
    return usable


def is_too_large(smiles: str) -> bool:
    """Whether it has no graph for its number of atoms. An atom takes at least a character."""
    return len(smiles) > MAX_ATOMS and FEATURIZER.parse_smiles(smiles).mol is None


class _Rule:
    """Which part a row is in; see `read_pairs`."""

    def __init__(self, split_column: str | None, test_paths: Sequence[str | Path], reader: Reader):
        self.split_column, self.tests = split_column, {Path(path) for path in test_paths}
        self.columns = [name for part in (split_column or "").split(",") if (name := plain_name(part))]
        self.test, self.valid = 0.0 if self.tests else reader.test, reader.valid
        self.seen = False

    def column(self, row: dict[str, str]) -> str | None:
        """The split column of the table that the row is from."""
        return next((name for name in self.columns if name in row), None)

    def part(self, path: Path, row: dict[str, str], key: str) -> str:
        """train, valid or test; empty for another mark."""
        column = self.column(row)
        self.seen = self.seen or column is not None
        if path in self.tests:
            return "test"
        if not self.columns:
            return part_of(key, self.test, self.valid)
        return part_of_mark((row[column].strip() if column else "") or "train")

    def check(self) -> None:
        """Raise `InputError` where no table had the column."""
        if self.columns and not self.seen:
            raise InputError(f"split: got {self.split_column!r}, but no table has that column")


def read_rows(
    path: Path, needed: Sequence[str], any_of: Sequence[str], on_note: Callable[[str], None]
) -> Iterator[dict[str, str]]:
    """Rows of a table of any kind that `open_library` reads, by the names of its columns and by their `plain_name`.

    It has all columns `needed` and one or more of `any_of`, of which sides of reactions may have the names of
    `side_columns`; or, where these are sides, none `needed` but whole reactions in one. A row that is malformed is
    blank. on_note: gets a line for each thing to know of the reading. Raises `InputError` for other tables, and for
    text that is not UTF-8.
    """
    library, of_reactions = _open_table(path, needed, any_of)
    with library:
        columns = library.columns
        plain = {plain_name(name): i for i, name in enumerate(columns)}
        at = plain | {name: i for i, name in enumerate(columns)} | side_columns(columns)
        if of_reactions:
            on_note(f"{path}: {', '.join(_WHOLE)} are read from the column {columns[library.smiles_index]}")
        elif not set(needed) <= set(at) or (any_of and not set(any_of) & set(at)):
            raise InputError(f"{path}: got the columns {', '.join(columns)}; expected {_words(needed, any_of)}")
        for name in (name for name in (*needed, *any_of) if name in at):
            # Which raises where several are called so.
            find_column(columns, name if name in plain else columns[at[name]], str(path))
        smiles = plain_name(columns[library.smiles_index])
        for window in library.windows(4096):
            for record, cells, line in zip(window.records, window.cells, window.lines, strict=True):
                row = {name: "" if record.fault else cells[i] for name, i in at.items()}
                if not row[smiles] and "\n" in record.text:  # of an SDF
                    drawn = FEATURIZER.parse_molecule(record.text).drawn
                    row[smiles] = "" if drawn is None else Chem.MolToSmiles(drawn)
                if of_reactions:
                    row |= _sides_of(record.text)
                try:
                    "".join(row.values()).encode()
                except UnicodeEncodeError:
                    where = f"{path}, line {line}"
                    raise InputError(f"{where}: got text that is not UTF-8; save the table in UTF-8") from None
                yield row
        for note in library.notes:
            on_note(note)


def _open_table(path: Path, needed: Sequence[str], any_of: Sequence[str]) -> tuple[Library, bool]:
    """A table as `read_rows` takes it, and whether its SMILES column holds whole reactions."""
    try:
        return open_library(str(path), cells=True, recorded_column=needed[0]), False
    except InputError as error:
        if set(needed) <= set(_WHOLE) and (found := _open_reactions(path, needed)):
            return found
        words = str(error).replace(" for --smiles-column", "")  # there is no such option here
        raise InputError(f"{path} cannot be read as a table: {words}; expected {_words(needed, any_of)}") from None


def _open_reactions(path: Path, needed: Sequence[str]) -> tuple[Library, bool] | None:
    """As `_open_table`, where no column has the very name of a side; None for a table that is not of reactions."""
    if is_stream(str(path)):  # what was read of it is gone
        return None
    try:
        library = open_library(str(path), cells=True, expected=REACTION_COLUMNS)
    except InputError:
        return None
    head = next(library.windows(SAMPLE_ROWS), None)
    whole = head is not None and reads_as_reactions([record.text for record in head.records])
    if whole or set(needed) <= set(side_columns(library.columns)):
        return library, whole
    library.close()
    return None


def _sides_of(text: str) -> dict[str, str]:
    """The sides of a reaction by the names of their columns, blank where the text is none."""
    try:
        return dict(zip(_WHOLE, read_reaction(text) or ("", "", ""), strict=True))
    except InputError:
        return dict.fromkeys(_WHOLE, "")


def _words(needed: Sequence[str], any_of: Sequence[str]) -> str:
    return " and ".join([*needed, *([" or ".join(any_of)] if any_of else [])])


def write_copies(pair: TextPair, n_copies: int, seed: int) -> list[tuple[str, str]]:
    """Question and answer in several orders: the canonical source first; each with its aligned target.

    `seed` and the source decide the orders, not the pairs beside it.
    """
    rng = random.Random(f"{seed} {pair.source}")
    sources = dict.fromkeys([pair.source, *reorder(pair.source, rng, n_copies - 1)])
    align = Aligner(pair.target).align if pair.aligned else lambda _source: pair.target
    return [(format_question(source, pair.question), align(source)) for source in sources]


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
