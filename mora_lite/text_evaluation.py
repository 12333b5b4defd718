"""How well a text model answers what was held out: its answers to rows of prepared sequences, and figures of them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .answers import Answerer
from .reactions import canonical
from .sequences import WIDTHS, Sequences
from .text_metrics import molecule_metrics, text_metrics
from .text_tasks import text_task

ROWS_ON_GPU, ROWS_ON_CPU = 256, 32  # at a time
TOP = (3, 5)  # shares of rows with the right answer among so many are told, where there are as many beams


def answer_rows(answerer: Answerer, data: Sequences, rows: np.ndarray, beams: int = 1) -> list[list[str]]:
    """Answers to the questions `rows`, each in its canonical order, the likeliest first: one, or up to `beams`."""
    questions = [data.question(data.first[row]) for row in rows]
    limit = min(int(np.diff(data.target_ptr).max()) + 1, WIDTHS[-1])  # longer ones take no part in training either
    on_gpu = answerer.model.decoder.embedding.device.type == "cuda"
    size = max(1, (ROWS_ON_GPU if on_gpu else ROWS_ON_CPU) // beams)
    texts = answerer.answer(questions, data.graphs.select(rows), beams=beams, max_new_tokens=limit, batch_size=size)
    return [[answer.text for answer in row] for row in texts]


def figures_of_answers(data: Sequences, rows: np.ndarray, answers: list[list[str]], beams: int = 1) -> dict[str, Any]:
    """Figures of the likeliest answers (`molecule_metrics` or `text_metrics`), `rows`, and where answers are molecules
    `exact_NAME` and `rows_NAME` of each table NAME; None for what cannot be had.
    """
    targets = [data.answers[row] for row in rows]
    likeliest = [row[0] for row in answers]
    if not text_task(data.facts["task"]).of_molecules:
        return {"rows": len(rows), **text_metrics(likeliest, targets)}
    figures: dict[str, Any] = molecule_metrics(likeliest, targets)
    right = [[canonical(text) == target for text in row] for row, target in zip(answers, targets, strict=True)]
    for n in TOP:
        if beams >= n:
            figures[f"exact_top{n}"] = sum(any(row[:n]) for row in right) / len(rows)
    for i, name in enumerate(data.facts["origins"]):
        own = [row[0] for row, at in zip(right, rows, strict=True) if data.origin[at] == i]
        if own:
            figures[f"exact_{name}"] = sum(own) / len(own)
            figures[f"rows_{name}"] = len(own)
    # JSON has no NaN: no similarity where no answer is a molecule.
    figures = {name: None if math.isnan(value) else round(value, 4) for name, value in figures.items()}
    return {"rows": len(rows), **figures}


def rows_of_figures(figures: dict[str, Any]) -> list[dict[str, Any]]:
    """The same as rows of a table: all held-out rows first, then those of each table where there are several."""
    named = [key.removeprefix("rows_") for key in figures if key.startswith("rows_")]
    own = {f"{kind}_{name}" for name in named for kind in ("exact", "rows")}
    whole = {name: value for name, value in figures.items() if name not in own}
    if len(named) < 2:
        return [whole]
    tables = [{"table": name, "rows": figures[f"rows_{name}"], "exact": figures[f"exact_{name}"]} for name in named]
    return [{"table": "all", **whole}, *tables]
