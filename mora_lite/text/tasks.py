"""What a text pack can be for: the prompt, the column of the answer, and the tables that it learns from."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError, did_you_mean
from .pairs import DIRECTIONS, TextPair, read_captions, read_questions, read_reactions


@dataclass(frozen=True)
class TextTask:
    """What a text pack can be for.

    column: of the answer, in tables of answers.
    template: of the prompt, with `{}` for the molecules (and the question about them, where the task has one).
    of_molecules: whether answers are molecules.
    held_out: what rows are held out by, where no column decides it.
    """

    column: str
    template: str
    of_molecules: bool
    held_out: str


TEXT_TASKS = {
    "forward": TextTask("product", "Reactants: {}\nProduct: ", True, "by product"),
    "retro": TextTask("reactants", "Product: {}\nReactants: ", True, "by product"),
    "reagents": TextTask("reagents", "Reactants: {}\nReagents: ", True, "by reactants"),
    "describe": TextTask("description", "Molecule: {}\nDescription:", False, "by molecule"),
    "ask": TextTask("answer", "Molecule: {}\nAnswer:", False, "by molecule"),
}
ASK = "ask"  # the task with a question in words


def text_task(name: str) -> TextTask:
    """The task of that name. Raises `InputError` for an unknown one."""
    if name not in TEXT_TASKS:
        raise InputError(f"task: got {name!r}; {did_you_mean(name, TEXT_TASKS)}")
    return TEXT_TASKS[name]


def read_pairs(
    task: str,
    paths: Iterable[str | Path],
    split_column: str | None = None,
    on_note: Callable[[str], None] = lambda _note: None,
) -> list[TextPair]:
    """The rows of tables that a task learns from and is tested on; see `read_reactions`, `read_captions` and
    `read_questions` for the columns. on_note: gets a line for each reason for which rows were left out.

    Raises `InputError` for unknown tasks and tables that cannot be used.
    """
    text_task(task)
    if task in DIRECTIONS:
        return read_reactions(paths, task, split_column, on_note)
    return (read_questions if task == ASK else read_captions)(paths, split_column, on_note)
