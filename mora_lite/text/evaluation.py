"""How well a text model answers what was held out: answers to rows of a table or of tokenized pairs, and metrics."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..chem.graph import Graphs
from ..chem.smiles import canonical
from ..errors import InputError, check_range
from ..machine.files import digest_file
from .answerer import Answerer
from .metrics import molecule_metrics, text_metrics
from .pack import TextPack, load_text_pack, open_text_pack
from .pairs import format_question, read_pairs
from .sequences import WIDTHS, TokenizedPairs
from .tasks import TEXT_TASKS, text_task

ROWS_ON_GPU, ROWS_ON_CPU = 256, 32  # at a time
ANSWER_STEP = 64  # tokens
TOP = (3, 5)  # the share of rows with the right answer among so many is reported, where there are as many beams


def evaluate_text(
    pack: TextPack | str | Path,
    data: str | Path,
    *,
    task: str | None = None,
    split: str = "test",
    limit: int | None = None,
    beams: int = 1,
    base: str | Path | None = None,
    device: str = "auto",
    dtype: str = "auto",
    on_note: Callable[[str], None] = lambda _note: None,
) -> dict[str, Any]:
    """Answer the rows of a table that has the right answers, and compare; what `mora-lite evaluate-text` does.

    pack: a text pack, its directory, or `hf:owner/name`. base, device, dtype: as for `load_text`.
    task: of a pack that has learnt several, the direction of a reaction; the columns are those of that task.
    split: `train`, `valid` or `test`, by the rule or column that the pack's training held rows out by; or `all`.
    limit: only the first so many rows. beams: width of the search; 1 is greedy. on_note: as of `read_pairs`.

    Returns metrics as `answer_metrics` does. Raises `InputError` when the table cannot be used or no row is left.
    """
    check_range("limit", 1 if limit is None else limit, 1)
    check_range("beams", beams, 1)
    opened = pack if isinstance(pack, TextPack) else open_text_pack(pack)
    held_out, tests = (opened.manifest["provenance"].get(name) for name in ("held_out", "tests"))
    by_rule = held_out in {task.held_out for task in TEXT_TASKS.values()}
    is_test = split != "all" and bool(tests) and digest_file(data) in tests.values()
    if by_rule and tests and not is_test and split != "all":
        named = " or ".join(tests)
        raise InputError(f"{data}: is not {named}, by which {opened.path.name} was tested; ask all with --split all")
    direction = opened.questions.direction(task)
    if task is None and (several := opened.questions.by_direction):
        raise InputError(f"task: {opened.path.name} answers {' and '.join(several)}; say which with --task")
    column = None if by_rule or split == "all" else held_out
    asked = direction or opened.task
    tables = [data] if is_test else []
    pairs = read_pairs([asked], [data], column, on_note, tables, in_words=direction is not None)
    pairs = [pair for pair in pairs if split in ("all", pair.part)][:limit]
    if not pairs:
        raise InputError(f"{data}: no row of it is in the split {split}; choose another with --split")
    answerer = load_text_pack(opened, base=base, device=device, dtype=dtype)
    questions = answerer.ids([format_question(pair.source, pair.question) for pair in pairs])
    longest = max(map(len, answerer.ids([pair.target for pair in pairs])))
    graphs = opened.featurizer.read_smiles([pair.source for pair in pairs])
    answers = _answers(answerer, questions, graphs, longest, beams)
    molecules = direction is not None or text_task(opened.task).of_molecules
    return _metrics(molecules, [pair.target for pair in pairs], answers, [pair.origin for pair in pairs], beams)


def answer_rows(answerer: Answerer, data: TokenizedPairs, rows: np.ndarray, beams: int = 1) -> list[list[str]]:
    """Answers to the questions `rows`, each in its canonical order, the likeliest first: one, or up to `beams`."""
    questions = [data.question(data.first[row]) for row in rows]
    longest = int(np.diff(data.target_ptr).max())
    return _answers(answerer, questions, data.graphs.select(rows), longest, beams)


def answer_metrics(data: TokenizedPairs, rows: np.ndarray, answers: list[list[str]], beams: int = 1) -> dict[str, Any]:
    """Metrics of the likeliest answers: `rows`, those of `molecule_metrics` or `text_metrics`, and where answers are
    molecules `exact_NAME` and `rows_NAME` of each table NAME; None for what cannot be had.
    """
    targets, origins = [data.answers[row] for row in rows], [data.metadata["origins"][data.origin[row]] for row in rows]
    molecules = "questions" in data.metadata or text_task(data.metadata["task"]).of_molecules
    return _metrics(molecules, targets, answers, origins, beams)


def _answers(
    answerer: Answerer, questions: list[list[int]], graphs: Graphs, longest: int, beams: int
) -> list[list[str]]:
    """longest: tokens of the longest right answer."""
    # In steps, so that answers without an end are cut in one place whichever rows are asked; more than the widest take
    # no part in training either.
    limit = min(-(-(longest + 1) // ANSWER_STEP) * ANSWER_STEP, WIDTHS[-1])
    size = ROWS_ON_GPU if answerer.device.type == "cuda" else ROWS_ON_CPU
    texts = answerer.answer(questions, graphs, beams=beams, max_new_tokens=limit, batch_size=size)
    return [[answer.text for answer in row] for row in texts]


def _metrics(
    molecules: bool, targets: list[str], answers: list[list[str]], origins: Sequence[str], beams: int
) -> dict[str, Any]:
    likeliest = [row[0] for row in answers]
    if not molecules:
        return {"rows": len(targets), **text_metrics(likeliest, targets)}
    metrics: dict[str, Any] = molecule_metrics(likeliest, targets)
    right = [[canonical(text) == target for text in row] for row, target in zip(answers, targets, strict=True)]
    for n in TOP:
        if beams >= n:
            metrics[f"exact_top{n}"] = sum(any(row[:n]) for row in right) / len(targets)
    for name in sorted(set(origins)):
        exact = [row[0] for row, origin in zip(right, origins, strict=True) if origin == name]
        metrics[f"exact_{name}"] = sum(exact) / len(exact)
        metrics[f"rows_{name}"] = len(exact)
    # JSON has no NaN: no similarity where no answer is a molecule.
    metrics = {name: None if math.isnan(value) else round(value, 4) for name, value in metrics.items()}
    return {"rows": len(targets), **metrics}
