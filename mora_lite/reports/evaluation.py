"""One self-contained page about how far a pack's predictions are from what was measured, and how it was trained.

The page needs no network, no script and no other file. Names and SMILES are untrusted: every text is escaped where it
is inserted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..chem.drawing import draw, drawing_problem
from ..machine.files import replacing
from ..scoring.tasks import Task
from ..status import counted
from .curves import auc_range, mean_range
from .learning import learning_figures
from .page import as_html, as_number, as_percent, facts, page, tiles
from .task_figures import Rows, TaskResult, figures

MAX_OPEN = 3  # tasks whose charts are shown at once; of more, each opens by a click
MAX_WORST, MIN_WORST = 10, 3  # molecules drawn for each task
MAX_DRAWN = 200  # such molecules on a page, but for the least number of each task


@dataclass(frozen=True)
class Nearest:
    """The training molecule nearest to another. value: measured, in the task's unit, or 0 or 1."""

    smiles: str
    similarity: float
    value: float


NearestOf = Callable[
    [int, np.ndarray], Sequence[Nearest | None]
]  # of a task's number and molecules' numbers, int64 [n]


@dataclass(frozen=True)
class Evaluated:
    """What was evaluated: a pack on `N` molecules.

    pack: its name. table, split: the file and the part of it. rows: int64 `[N]`, in the table, from 1. smiles: `N`.
    notes: what a reader must know of these molecules, a sentence each.
    nearest: None where the pack does not hold its training molecules, and of a task without any.
    stages: what the pack records of its training.
    """

    pack: str
    table: str
    split: str
    rows: np.ndarray
    smiles: Sequence[str]
    results: Sequence[TaskResult]
    notes: Sequence[str] = ()
    nearest: NearestOf | None = None
    stages: Sequence[Mapping[str, Any]] = ()


def write_evaluation(path: Path, evaluated: Evaluated, metadata: Mapping[str, str]) -> None:
    """Write the page to `path`, whole or not at all. Raises `OutputError`.

    metadata: label -> text, shown in this order.
    """
    results, learning = evaluated.results, learning_figures(evaluated.stages)
    few = len(results) <= MAX_OPEN
    n_worst = min(MAX_WORST, max(MIN_WORST, MAX_DRAWN // max(1, len(results))))
    sections = "".join(_task(i, result, evaluated, n_worst, is_open=few) for i, result in enumerate(results))
    more = "" if few else " Each opens by a click."
    where = f"{as_html(evaluated.table)}, {_split_words(evaluated.split)}"
    warnings = "".join(f'<p class="warning">{as_html(note)}</p>' for note in evaluated.notes)
    body = (
        f'<header><div><p class="brand">mora-lite</p><h1>Pack {as_html(evaluated.pack)}, evaluated</h1>'
        f'<p class="lead">{counted(len(evaluated.rows), "molecule")} of {where}</p></div>'
        '<nav aria-label="Sections"><a href="#figures">Figures</a><a href="#tasks">Tasks</a>'
        f"{_LINK if learning else ''}</nav></header>\n{warnings}"
        f'<div class="tiles">{_tiles(evaluated)}</div>\n{facts(metadata)}\n'
        f'<section id="figures"><h2>Figures</h2><p class="lead">{_FIGURES}</p>{_tables(results)}</section>\n'
        f'<section id="tasks"><h2>Tasks</h2><p class="lead">{_TASKS}{more}</p>{sections}</section>\n{learning}'
        "<footer>Errors on these molecules, not a promise about others: molecules unlike them may be predicted worse."
        "</footer>\n"
    )
    with replacing(path) as file:
        file.write(page(f"{evaluated.pack}, evaluated", body))


_LINK = '<a href="#training">Training</a>'
_FIGURES = (
    "The error of each task. The range is where the figure would come to lie with very many molecules of this kind "
    "(95 %): with few molecules it is wide, and two packs whose ranges overlap may be equally good. Half of the "
    "predictions are off by no more than what stands under half within."
)
_TASKS = "Of each task its charts, and the molecules that it is most wrong about."


def _split_words(split: str) -> str:
    return "all parts" if split == "all" else f"the {as_html(split)} part"


def _tiles(evaluated: Evaluated) -> str:
    results = evaluated.results
    n_values = sum(len(result.known) for result in results)
    values = [result for result in results if not result.task.is_class]
    held = [
        (result.metrics["inside"], len(result.known)) for result in values if result.metrics.get("inside") is not None
    ]
    share, promise = ("unknown", "no value has an interval") if values else ("–", "classes have none")
    if any(n for _, n in held):
        share = as_percent(sum(inside * n for inside, n in held) / sum(n for _, n in held))
        promise = f"of values; promised: {values[0].promised}"
    near = [result.similarity for result in results if result.similarity is not None and len(result.similarity)]
    middle = as_number(float(np.median(np.max(near, axis=0))), 2) if near else "unknown"
    content = [
        ("Molecules", f"{len(evaluated.rows):,}", "with a structure that can be read"),
        ("Measured values", f"{n_values:,}", f"of {counted(len(results), 'task')}"),
        ("Inside the interval", share, promise),
        ("Similarity", middle, "to the nearest training molecule, median"),
    ]
    return tiles(content)


# --- the tables on top

_VALUES = ["Mean error", "Range", "Half within", "Inside", "RMSE", "R²", "Rank correlation"]
_CLASSES = {"pr_auc": "PR-AUC", "brier": "Brier", "ece": "Calibration error"}


def _tables(results: Sequence[TaskResult]) -> str:
    numbered = list(enumerate(results))
    parts = []
    for is_class in (False, True):
        rows = [_line(i, result) for i, result in numbered if result.task.is_class == is_class]
        if rows:
            heads = ["ROC-AUC", "Range", *_CLASSES.values(), "Positive"] if is_class else _VALUES
            cells = "".join(f'<th scope="col" class="num">{head}</th>' for head in [*heads, "n"])
            cells = f'<th scope="col">Task</th>{cells}'
            label = f"Figures of {'classes' if is_class else 'values'}"
            parts.append(
                f'<div class="scroll" tabindex="0" role="region" aria-label="{label}"><table class="figures">'
                f"<thead><tr>{cells}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
            )
    return "".join(parts)


def _line(i: int, result: TaskResult) -> str:
    task, metrics, span = result.task, result.metrics, _range(result)
    if task.is_class:
        words = [_number(metrics.get("roc_auc")), _between(span, _number)]
        words += [_number(metrics.get(key)) for key in _CLASSES] + [f"{metrics['positives']:,}"]
    else:
        mae, rmse = (_number(metrics.get(key), result.number) for key in ("mae", "rmse"))
        words = [mae, _between(span, result.number), result.half_within, _number(metrics.get("inside"), as_percent)]
        words += [rmse, *(_number(metrics.get(key)) for key in ("r2", "spearman"))]
    cells = "".join(f'<td class="num">{text}</td>' for text in [*words, f"{metrics['n']:,}"])
    unit = f" <small>{as_html(task.unit)}</small>" if task.unit else ""
    return f'<tr><th scope="row"><a href="#task-{i + 1}">{as_html(task.name)}</a>{unit}</th>{cells}</tr>'


def _number(number: float | None, words: Callable[[float], str] = lambda number: as_number(number, 3)) -> str:
    return "–" if number is None else words(number)


def _between(span: tuple[float, float] | None, number: Callable[[float], str]) -> str:
    return "–" if span is None else f"{number(span[0])} to {number(span[1])}"


def _range(result: TaskResult) -> tuple[float, float] | None:
    """Of the first figure of a task."""
    metrics = result.metrics
    if not result.task.is_class:
        off = np.abs(result.values[result.known].astype(np.float64) - result.truth[result.known])
        span = mean_range(off)
        return None if span is None else (max(0.0, span[0]), span[1])
    if metrics.get("roc_auc") is None:
        return None
    return auc_range(metrics["roc_auc"], metrics["positives"], metrics["n"] - metrics["positives"])


# --- one task


def _task(i: int, result: TaskResult, evaluated: Evaluated, n_worst: int, *, is_open: bool) -> str:
    task, main = result.task, result.metrics.get("roc_auc" if result.task.is_class else "mae")
    figure = (
        ""
        if main is None
        else f", ROC-AUC {as_number(main, 3)}"
        if task.is_class
        else f", mean error {result.number(main, unit=True)}"
    )
    about = f'<p class="note">{as_html(task.description)}</p>' if task.description else ""
    return (
        f'<details class="task"{" open" if is_open else ""}><summary><h3>{as_html(task.name)}</h3> '
        f'<span>{counted(len(result.known), "value")}{figure}</span></summary><div id="task-{i + 1}">{about}'
        f"{figures(result)}{_groups(result)}{_worst(i, result, evaluated, n_worst)}</div></details>"
    )


_GROUPS = {"by_domain": "domain", "by_scaffold": "scaffold"}


def _groups(result: TaskResult) -> str:
    """Errors inside and outside of the domain, and of scaffolds that were seen in training or not."""
    key, head = ("brier", "Square error") if result.task.is_class else ("mae", "Mean error")
    lines = []
    for table, label in _GROUPS.items():
        rows: Rows = [row for row in result.tables.get(table, ())[:2] if row["n"]]
        for row in rows:
            words = {"domain": f"{row[label]} the domain"}.get(label, f"scaffold {row[label]}")
            number = as_number(row[key], 3) if result.task.is_class else result.number(row[key])
            inside = "" if result.task.is_class else f'<td class="num">{_number(row.get("inside"), as_percent)}</td>'
            lines.append(
                f'<tr><th scope="row">{as_html(words)}</th><td class="num">{row["n"]:,}</td>'
                f'<td class="num">{number}</td>{inside}</tr>'
            )
    if not lines:
        return ""
    inside = "" if result.task.is_class else '<th scope="col" class="num">Inside</th>'
    return (
        '<div class="scroll groups"><table><thead><tr><th scope="col">Molecules</th><th scope="col" class="num">n</th>'
        f'<th scope="col" class="num">{head}</th>{inside}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'
    )


def _worst(i: int, result: TaskResult, evaluated: Evaluated, n_worst: int) -> str:
    """The molecules with the largest errors, drawn beside the nearest measured one."""
    if not len(result.sizes):
        return ""
    order = np.argsort(-np.abs(result.errors), kind="stable")[: min(n_worst, len(result.sizes))]  # NaN is last
    at = result.known[order]
    nearest = evaluated.nearest(i, at) if evaluated.nearest else [None] * len(at)
    cards = "".join(_card(k, result, evaluated, near) for k, near in zip(at.tolist(), nearest, strict=True))
    told = "" if evaluated.nearest else " The pack does not hold its training molecules, so none is shown beside them."
    problem = f'<p class="note">{as_html(drawing_problem())}</p>' if drawing_problem() else ""
    lead = "The molecule with the largest error" if len(at) == 1 else f"The {len(at)} molecules with the largest errors"
    return f'<h4>{lead}</h4><p class="note">{_WORST}{told}</p>{problem}<div class="worst">{cards}</div>'


_WORST = (
    "A near neighbour that was measured otherwise points to a cliff, or to a doubtful measurement; a neighbour that is "
    "far, to a lack of data."
)


def _card(k: int, result: TaskResult, evaluated: Evaluated, near: Nearest | None) -> str:
    task, smiles = result.task, evaluated.smiles[k]
    value, truth = float(result.values[k]), float(result.truth[k])
    said = f"{result.number(value)}"
    if result.low is not None and result.high is not None and not task.is_class:
        said += f" <small>[{result.number(float(result.low[k]))}, {result.number(float(result.high[k]))}]</small>"
    words = [("Measured", _measured(task, result, truth)), ("Predicted", said)]
    sides = [_side_of(smiles, f"row {int(evaluated.rows[k]):,}", words)]
    if near is not None:
        beside = [("Measured", _measured(task, result, near.value)), ("Similarity", as_number(near.similarity, 2))]
        sides.append(_side_of(near.smiles, "nearest in training", beside))
    return f'<figure class="pair">{"".join(sides)}</figure>'


def _measured(task: Task, result: TaskResult, value: float) -> str:
    return ("positive" if value else "negative") if task.is_class else result.number(value)


def _side_of(smiles: str, title: str, words: Sequence[tuple[str, str]]) -> str:
    shown = draw(smiles) or f'<code class="undrawn">{as_html(smiles)}</code>'
    lines = "".join(f"<dt>{name}</dt><dd>{text}</dd>" for name, text in words)
    text = as_html(smiles)
    return f'<div><small>{title}</small>{shown}<code title="{text}">{text}</code><dl>{lines}</dl></div>'
