"""How well a text model answers what was held out: its answers to rows of prepared sequences or of tables, and figures
of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rdkit import Chem

from ..chem.graph import Graphs, featurize
from ..chem.smiles import canonical
from ..errors import InputError
from .answerer import Answerer
from .metrics import molecule_metrics, text_metrics
from .pairs import asked
from .sequences import WIDTHS, TokenizedPairs
from .tasks import TEXT_TASKS, read_pairs, text_task

ROWS_ON_GPU, ROWS_ON_CPU = 256, 32  # at a time
ANSWER_STEP = 64  # tokens
TOP = (3, 5)  # shares of rows with the right answer among so many are told, where there are as many beams


def answer_rows(answerer: Answerer, data: TokenizedPairs, rows: np.ndarray, beams: int = 1) -> list[list[str]]:
    """Answers to the questions `rows`, each in its canonical order, the likeliest first: one, or up to `beams`."""
    questions = [data.question(data.first[row]) for row in rows]
    longest = int(np.diff(data.target_ptr).max())
    return _answers(answerer, questions, data.graphs.select(rows), longest, beams)


def _answers(
    answerer: Answerer, questions: list[list[int]], graphs: Graphs, longest: int, beams: int
) -> list[list[str]]:
    """longest: tokens of the longest answer that is wanted."""
    # In steps, so that answers without an end are cut in one place whichever rows are asked; more than the widest take
    # no part in training either.
    limit = min(-(-(longest + 1) // ANSWER_STEP) * ANSWER_STEP, WIDTHS[-1])
    size = max(1, (ROWS_ON_GPU if answerer.device.type == "cuda" else ROWS_ON_CPU) // beams)
    texts = answerer.answer(questions, graphs, beams=beams, max_new_tokens=limit, batch_size=size)
    return [[answer.text for answer in row] for row in texts]


def evaluate_table(
    answerer: Answerer,
    task: str,
    table: Path,
    *,
    held_out: str,
    split: str = "test",
    limit: int | None = None,
    beams: int = 1,
) -> dict[str, Any]:
    """Figures of the answers to rows of a table that has the right ones.

    split: `train`, `valid` or `test`, by the rule or column `held_out`, as the pack's provenance names it; or `all`.
    limit: only the first so many. Raises `InputError` when the table cannot be used or no row is left.
    """
    by_rule = held_out in {known.held_out for known in TEXT_TASKS.values()}
    pairs = read_pairs(task, [table], None if by_rule or split == "all" else held_out)
    pairs = [pair for pair in pairs if split in ("all", pair.part)][:limit]
    if not pairs:
        raise InputError(f"{table}: no row of it is in the split {split}; choose another with --split")
    questions = answerer.ids([asked(pair.source, pair.question) for pair in pairs])
    longest = max(map(len, answerer.ids([pair.target for pair in pairs])))
    graphs = featurize([Chem.MolFromSmiles(pair.source) for pair in pairs])
    answers = _answers(answerer, questions, graphs, longest, beams)
    return _figures(task, [pair.target for pair in pairs], answers, [pair.origin for pair in pairs], beams)


def figures_of_answers(
    data: TokenizedPairs, rows: np.ndarray, answers: list[list[str]], beams: int = 1
) -> dict[str, Any]:
    """Figures of the likeliest answers (`molecule_metrics` or `text_metrics`), `rows`, and where answers are molecules
    `exact_NAME` and `rows_NAME` of each table NAME; None for what cannot be had.
    """
    targets, origins = [data.answers[row] for row in rows], [data.facts["origins"][data.origin[row]] for row in rows]
    return _figures(data.facts["task"], targets, answers, origins, beams)


def _figures(
    task: str, targets: list[str], answers: list[list[str]], origins: Sequence[str], beams: int
) -> dict[str, Any]:
    likeliest = [row[0] for row in answers]
    if not text_task(task).of_molecules:
        return {"rows": len(targets), **text_metrics(likeliest, targets)}
    figures: dict[str, Any] = molecule_metrics(likeliest, targets)
    right = [[canonical(text) == target for text in row] for row, target in zip(answers, targets, strict=True)]
    for n in TOP:
        if beams >= n:
            figures[f"exact_top{n}"] = sum(any(row[:n]) for row in right) / len(targets)
    for name in sorted(set(origins)):
        own = [row[0] for row, origin in zip(right, origins, strict=True) if origin == name]
        figures[f"exact_{name}"] = sum(own) / len(own)
        figures[f"rows_{name}"] = len(own)
    # JSON has no NaN: no similarity where no answer is a molecule.
    figures = {name: None if math.isnan(value) else round(value, 4) for name, value in figures.items()}
    return {"rows": len(targets), **figures}


def rows_of_figures(figures: dict[str, Any]) -> list[dict[str, Any]]:
    """The same as rows of a table: all held-out rows first, then those of each table where there are several."""
    named = [key.removeprefix("rows_") for key in figures if key.startswith("rows_")]
    own = {f"{kind}_{name}" for name in named for kind in ("exact", "rows")}
    whole = {name: value for name, value in figures.items() if name not in own}
    if len(named) < 2:
        return [whole]
    tables = [{"table": name, "rows": figures[f"rows_{name}"], "exact": figures[f"exact_{name}"]} for name in named]
    return [{"table": "all", **whole}, *tables]
