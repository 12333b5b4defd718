"""What a text pack can be for: the prompt, the column of the answer, and what is asked about each row of a table.

A question is a text with columns in it. One about a reaction is about one of its sides, whichever way it is written.
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..errors import InputError, did_you_mean
from ..tables.columns import ARROW, plain_name, stem_of


@dataclass(frozen=True)
class TextTask:
    """What a text pack can be for.

    column: of the answer, in tables of answers. sources: columns of what is asked about, in tables of reactions.
    template: of the prompt, with `{}` for the molecules (and the question about them, where the task has one).
    of_molecules: whether answers are molecules.
    held_out: what rows are held out by, where no column decides it.
    beams: width of the search for an answer. The likeliest product is nearly always the greedy one, but many sets of
    reactants or reagents would do (docs/benchmarks/text.md).
    """

    column: str
    template: str
    of_molecules: bool
    held_out: str
    sources: tuple[str, ...] = ()
    beams: int = 1


PRODUCT = "product"  # what a question about a reaction may have in it: the name of a column, or of a side
INPUT_COLUMNS = ("reactants_and_reagents", "reactants", "reagents")  # of what goes in; all that a table has
TEXT_TASKS = {
    "forward": TextTask("product", "Reactants: {}\nProduct: ", True, "by product", INPUT_COLUMNS),
    "retro": TextTask("reactants", "Product: {}\nReactants: ", True, "by product", (PRODUCT,), beams=5),
    "reagents": TextTask("reagents", "Reactants: {}\nReagents: ", True, "by reactants", ("reactants",), beams=5),
    "describe": TextTask("description", "Molecule: {}\nDescription:", False, "by molecule"),
    "ask": TextTask("answer", "Molecule: {}\nAnswer:", False, "by molecule"),
}
ASK = "ask"  # the task with a question in words
QUESTION_COLUMN = "question"  # of a table, where each row has its own
QUESTIONS = {  # in words, by direction, for a pack that learns several
    "forward": "What is the product?",
    "retro": "What are the reactants?",
    "reagents": "Which reagents turn it into {product}?",
}
DIRECTIONS = tuple(QUESTIONS)
SIDES = ("reactants_and_reagents", "reactants", PRODUCT)  # columns that can be asked about by themselves
REACTION_COLUMNS = (*SIDES, "reaction", "rxn")  # names that a table's SMILES column may have in place of a typical one
_WIDE_ARROW = re.compile(r"\s*(?<!-)>\s*(?!\|)")  # an extension stays apart
_SIGN = re.compile(r"(\+|-+>|=+>|[\u2190-\u21ff\u27f0-\u27ff])(?!\S)")  # between molecules, as equations have it


def text_task(name: str) -> TextTask:
    """The task of that name. Raises `InputError` for an unknown one."""
    if name not in TEXT_TASKS:
        raise InputError(f"task: got {name!r}; {did_you_mean(name, TEXT_TASKS)}")
    return TEXT_TASKS[name]


def task_shares(text: str) -> dict[str, float]:
    """The tasks that `text` names and their shares of the questions in training, which add up to 1.

    text: one task, or directions of reactions with commas between them and with weights where they are not asked alike:
    `forward,retro`, or `forward=1,retro=3`. Raises `InputError` for other texts.
    """
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, mark, weight = (piece.strip() for piece in part.partition("="))
        text_task(name)
        try:
            weights[name] = float(weight) if mark else 1.0
        except ValueError:
            weights[name] = 0.0
        if not 0 < weights[name] < float("inf"):
            raise InputError(f"task: got {part.strip()!r}; expected a weight above 0, like {name}=2")
    if len(weights) > 1 and (others := weights.keys() - set(DIRECTIONS)):
        raise InputError(
            f"task: got {', '.join(sorted(others))} among several; only {', '.join(DIRECTIONS)} train together"
        )
    return {name: weight / sum(weights.values()) for name, weight in weights.items()}


class Sides(NamedTuple):
    """What is asked about. smiles: the molecules in question. product: of a reaction, where that is in the question."""

    smiles: str
    product: str = ""


def read_reaction(text: str) -> tuple[str, str, str] | None:
    """Reactants, reagents and product of `reactants>reagents>product`, behind which a name or an extension may follow.

    A name stays with the product, where it may turn out to be more of the SMILES.
    None where the text is no reaction. Raises `InputError` for half a one, for several, and for one in other signs.
    """
    smiles, *name = text.split(None, 1) or [""]
    if ARROW.search(f"{smiles[-2:]} {name[0][:1] if name else ''}"):  # a blank before an arrow, or after it
        smiles, *name = _WIDE_ARROW.sub(">", text.strip()).split(None, 1)
    sides = ARROW.split(smiles)
    if len(sides) == 3:
        named = sides[2] and name and not name[0].startswith("|")
        return sides[0], sides[1], f"{sides[2]} {name[0]}" if named else sides[2]
    if len(sides) > 1:
        got = "half a reaction" if len(sides) == 2 else "several reactions in one"
        raise InputError(f"got {got}, expected reactants>reagents>product or reactants>>product")
    if name and (sign := _SIGN.match(name[0])):  # what follows would be taken for a name
        raise InputError(f"got {sign[1]!r} between molecules, expected dots between them, and >> before the product")
    return None


def read_sides(direction: str | None, text: str) -> Sides:
    """The molecules in question.

    text: SMILES, which a name may follow, or a reaction as of `read_reaction`, of which the direction takes what it
    needs. direction: of `DIRECTIONS`, or None. Raises `InputError` as that does, and for a reaction without direction.
    """
    reaction = read_reaction(text)
    if reaction is None:
        return Sides(" ".join(text.split(None, 1)))
    reactants, reagents, product = reaction
    sides = {
        "forward": Sides(".".join(filter(None, (reactants, reagents)))),
        "retro": Sides(product),
        "reagents": Sides(reactants, product),
    }
    if direction not in sides:
        raise InputError("got a reaction, expected molecules: the question is about no reaction")
    if not sides[direction].smiles:
        raise InputError(f"the side of the reaction that {direction} needs is empty")
    return sides[direction]


def side_columns(columns: Sequence[str]) -> dict[str, int]:
    """The columns, from 0, by the side of a reaction that they hold; one called SMILES goes before one that is not."""
    places: dict[str, int] = {}
    for side in (*INPUT_COLUMNS, PRODUCT):
        found = [i for i, name in enumerate(columns) if stem_of(name) == stem_of(side)]
        if found:
            places[side] = min(found, key=lambda i: "smiles" not in plain_name(columns[i]))
    return places


class SideColumns:
    """Where the sides of the reactions of a table stand: in columns of their own, or all in its SMILES column.

    columns: of the table. smiles_index: which is its SMILES column; the sides have their own where its name is one of
    `SIDES`. direction: of all rows, None where rows have their own. notes: lines for the user.

    Raises `InputError` where the direction needs other columns.
    """

    def __init__(self, columns: Sequence[str] = (), smiles_index: int = 0, direction: str | None = None):
        at = side_columns(columns)
        self._places: dict[str, list[int]] = {}  # of what each direction asks about
        if smiles_index in {at.get(side) for side in SIDES}:
            for name in DIRECTIONS:
                self._places[name] = [at[side] for side in TEXT_TASKS[name].sources if side in at]
        asked = [columns[i] for i in self._of(direction)]
        self.notes = [f"what goes in is read from the columns {' and '.join(asked)}"] if len(asked) > 1 else []

    def _of(self, direction: str | None) -> list[int]:
        if direction not in self._places:
            return []
        if not self._places[direction]:
            needed = " or ".join(TEXT_TASKS[direction].sources)
            raise InputError(f"{direction} is asked about {needed}, but the table has no such column; rename one")
        return self._places[direction]

    def read(self, direction: str | None, text: str, cells: Sequence[str]) -> Sides:
        """What is asked about a row; see `read_sides`. text: of its SMILES column. cells: of all."""
        if places := self._of(direction):
            from ..chem.smiles import together  # as in `Question.of_row`

            text = together(cells[i] for i in places)
        return read_sides(direction, text)


class Question:
    """A question in words, with `{name}` for the cell of a column. of_molecules: whether these cells are SMILES; then
    `{product}` may be that of a reaction, where there is no such column.

    Raises `InputError` for a column that is not there.
    """

    def __init__(self, template: str, columns: Sequence[str], of_molecules: bool = False):
        self.of_molecules = of_molecules
        self._columns = {plain_name(name): i for i, name in reversed([*enumerate(columns)])}
        self._columns |= side_columns(columns) if of_molecules else {}
        self._parts: list[tuple[str, str | None]] = []
        try:
            parts = [(text, name) for text, name, _, _ in string.Formatter().parse(" ".join(template.split()))]
        except ValueError as error:
            raise InputError(f"question: got {template!r} ({error}); write {{{{ and }}}} for braces") from None
        for text, name in parts:
            key = None if name is None else plain_name(name)
            if key is not None and key not in self._columns and not (of_molecules and key == PRODUCT):
                raise InputError(f"question: the table has no column {name!r}; {did_you_mean(name or '', columns)}")
            self._parts.append((text, key))

    def of_row(self, cells: Sequence[str], product: str = "") -> str:
        """The question about a row; empty where a cell that it needs is blank, or no SMILES where it should be one.

        product: of the row's reaction.
        """
        from ..chem.smiles import canonical_cell  # RDKit, which a server that only asks others does without

        out = ""
        for text, name in self._parts:
            cell = cells[self._columns[name]].strip() if name in self._columns else ""
            if name == PRODUCT and self.of_molecules:
                cell = cell or product
            if name is not None and self.of_molecules:
                cell = canonical_cell(cell) or ""
            if name is not None and not cell:
                return ""
            out += text + cell
        return out


@dataclass(frozen=True)
class PackQuestions:
    """What a text pack can be asked.

    task: of `TEXT_TASKS`. by_direction: the questions about reactions that a pack for `ask` has learnt.
    in_words: all that were asked in its training, where they are few; one alone is asked where nothing else is.
    """

    task: str
    by_direction: Mapping[str, str] = field(default_factory=dict)
    in_words: Sequence[str] = ()

    @classmethod
    def of(cls, manifest: Mapping[str, Any]) -> PackQuestions:
        """manifest: of a text pack."""
        return cls(manifest["task"], manifest.get("questions", {}), manifest.get("asked", ()))

    @property
    def tasks(self) -> list[str]:
        """What it can be asked."""
        return list(self.by_direction) or [self.task]

    @property
    def of_reactions(self) -> bool:
        """Whether it answers about reactions."""
        return not set(DIRECTIONS).isdisjoint(self.tasks)

    @property
    def wants_words(self) -> bool:
        """Whether whoever asks has to say what in words."""
        return self.tasks == [ASK]

    @property
    def only(self) -> str:
        """The only question in words of its training; empty where there were others."""
        return self.in_words[0] if len(self.in_words) == 1 else ""

    @property
    def needs_words(self) -> bool:
        """Whether it cannot be asked without them."""
        return self.wants_words and not self.only

    def direction(self, task: str | None) -> str | None:
        """The direction of a reaction that is asked for by `task`, of a pack that has learnt several.

        task: what the user wants; None, or the pack's own, asks for none. Raises `InputError` where it is for another.
        """
        if task in (None, self.task):
            return None
        if task not in self.by_direction:
            known = " and ".join([self.task, *self.by_direction])
            raise InputError(f"task: got {task}, but the pack is for {known}; leave --task out or give another pack")
        return task

    def choose(
        self, columns: Sequence[str], question: str | None, direction: str | None = None
    ) -> tuple[Question | None, str | None, list[str]]:
        """The question about each row, the direction where it is the same for all, and notes for the user.

        question: one for all rows, or None. direction: what the user wants, as `direction` gives it. Raises
        `InputError` where the task needs a question and there is none, or takes none and there is one.
        """
        if self.task != ASK:
            if question is not None:
                raise InputError(f"question: the pack is for {self.task} and takes none; leave --question out")
            return None, self.task if self.task in DIRECTIONS else None, []
        if direction is not None and question is not None:
            raise InputError(f"question: --task {direction} has its own; leave one of the two out")
        own = [name for name in columns if plain_name(name) == QUESTION_COLUMN][:1]
        if direction is not None:
            notes = [f"the column {name} is not used: --task asks every row the same" for name in own]
            return Question(self.by_direction[direction], columns, True), direction, notes
        if question is None and own:
            return Question(f"{{{QUESTION_COLUMN}}}", columns), None, []
        if question is None and "forward" in self.by_direction:
            asked, others = self.by_direction["forward"], ", ".join(self.by_direction)
            note = f"asked of each row: {asked} For other questions give --task, one of {others}"
            return Question(asked, columns, True), "forward", [note]
        if question is None and self.only:
            note = f"asked of each row, as in training: {self.only} For another question give --question"
            return Question(_literal(self.only), columns), None, [note]
        if question is not None and question.strip():
            notes = [f"the column {name} is not used: --question asks every row the same" for name in own]
            return Question(question, columns), None, notes
        known = f"; the pack was trained on {' and '.join(map(repr, self.in_words))}" if self.in_words else ""
        raise InputError(
            f"question: none is given; say what to ask with --question, or in a column named question{known}"
        )


def _literal(question: str) -> str:
    """The template of `Question` that is this question, braces and all."""
    return question.replace("{", "{{").replace("}", "}}")


def direction_of(question: str, questions: Mapping[str, str]) -> tuple[str | None, str]:
    """Which of a pack's questions this is, by its words, None for another; and the product that it names."""
    for direction, template in questions.items():
        pieces = string.Formatter().parse(template)
        pattern = "".join(re.escape(text) + (f"(?P<{name}>.+)" if name else "") for text, name, _, _ in pieces)
        if found := re.fullmatch(pattern, " ".join(question.split())):
            return direction, found.groupdict().get(PRODUCT, "")
    return None, ""
