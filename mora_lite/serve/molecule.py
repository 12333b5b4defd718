"""What the page shows of one molecule, in plain types: values with intervals and domain, and measured neighbours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import PackError
from ..reports.page import decimals_for
from ..scoring.neighbours import Neighbours
from ..scoring.predictor import Predictor
from ..scoring.scores import Scores
from ..scoring.tasks import Task, choose_tasks
from ..status import OK
from ..tables.library import Window
from ..tables.parsed import ParsedWindow
from . import reasons
from .results import plain

NEIGHBOURS = 4  # training molecules beside one that is asked about
SPAN = 3.0  # deviations on either side of the mean that the scale of a task shows

Parse = Callable[[Window], ParsedWindow]


def describe_task(task: Task) -> dict[str, Any]:
    """A task for the page. decimals: to show; None for four significant digits."""
    return {
        "name": task.name,
        "column": task.column,
        "unit": task.unit,
        "kind": task.kind,
        "description": task.description,
        "decimals": decimals_for(task),
    }


def answer_rows(model: Predictor, parse: Parse, smiles: Sequence[str]) -> list[dict[str, Any]]:
    """A row for each SMILES, with the columns of `mora-lite predict`."""
    scores = model.score_parsed(parse(Window.of(smiles)))
    columns = scores.columns(model.tasks)
    return [
        {
            "smiles": text,
            **{name: plain(column[i]) if scores.status[i] == OK else None for name, column in columns.items()},
            "status": scores.status[i],
            "error": scores.error[i],
        }
        for i, text in enumerate(smiles)
    ]


def answer_molecule(model: Predictor, parse: Parse, smiles: str) -> dict[str, Any]:
    """All that is known of one molecule: `tasks`, one entry for each task, and `neighbours`; no drawings."""
    parsed = parse(Window.of([smiles]))
    scores = model.score_parsed(parsed)
    answer: dict[str, Any] = {"smiles": parsed.smiles[0], "status": scores.status[0], "error": scores.error[0]}
    if scores.status[0] != OK:
        return answer | {"tasks": [], "neighbours": [], "similarity": None, "in_domain": None}
    similarity, in_domain = scores.similarity, scores.in_domain
    return answer | {
        "tasks": [
            _answer_task(scores, task, i) | {"percentile": share}
            for i, (task, share) in enumerate(zip(model.tasks, reasons.percentiles(model, scores), strict=True))
        ],
        "neighbours": nearest(model, parsed),
        "similarity": None if similarity is None else plain(similarity[0]),
        "in_domain": None if in_domain is None else bool(in_domain[0]),
    }


def nearest_of(model: Predictor, parse: Parse, smiles: str, task: str) -> list[dict[str, Any]]:
    """`nearest` of a text; none if it cannot be read. Raises `PackError` for an unknown task."""
    choose_tasks(model.tasks, [task])  # also where there is nothing to find
    parsed = parse(Window.of([smiles]))
    return nearest(model, parsed, task) if parsed.status[0] == OK else []


def nearest(model: Predictor, parsed: ParsedWindow, task: str = "", n: int = NEIGHBOURS) -> list[dict[str, Any]]:
    """The training molecules most similar to the first row, with what was measured; none if the pack holds none.

    task: only of those that have a value for it. Raises `PackError` for an unknown one.
    """
    try:
        training = model.training
    except PackError:
        return []
    chosen = choose_tasks(model.tasks, [task])[0] if task else None
    index, similarity = training.nearest(parsed.bits, n, chosen)
    found = Neighbours(parsed.smiles[:1], model.tasks, index, similarity, training)
    values = found.values[0]
    return [
        {
            "smiles": text,
            "similarity": plain(found.similarity[0, k]),
            "values": {
                one.name: plain(values[k, i]) for i, one in enumerate(model.tasks) if not np.isnan(values[k, i])
            },
        }
        for k, text in enumerate(found.smiles[0])
        if text
    ]


def _answer_task(scores: Scores, task: Task, i: int) -> dict[str, Any]:
    """One answer. at, at_low, at_high: where value and interval lie on the task's scale, 0 to 1."""
    value = scores.values[0, i]
    low = high = None
    if scores.low is not None and scores.high is not None and not task.is_class:
        low, high = scores.low[0, i], scores.high[0, i]
    return {
        "task": task.name,
        "value": plain(value),
        "low": None if low is None else plain(low),
        "high": None if high is None else plain(high),
        "similarity": None if scores.nearest is None else plain(scores.nearest[0, i]),
        "inside": None if scores.inside is None else bool(scores.inside[0, i]),
        "at": _place(task, value),
        "at_low": None if low is None else _place(task, low),
        "at_high": None if high is None else _place(task, high),
    }


def _place(task: Task, value: np.floating[Any]) -> float:
    """Where a value lies: a probability as it is; others within `SPAN` deviations of the training molecules' mean."""
    if task.is_class:
        return plain(value)
    with np.errstate(all="ignore"):
        on_scale = float(task.on_scale(np.array([value], np.float64))[0])
    if np.isnan(on_scale):  # a logarithm of nothing
        return 0.0
    return round(float(np.clip((on_scale - task.mean) / task.deviation / (2 * SPAN) + 0.5, 0, 1)), 4)
