"""Charts of how a pack was trained: loss and validation error by epoch, of each stage."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .charts import Plot, span_of
from .page import as_html, as_number
from .task_figures import figure

Stage = Mapping[str, Any]

LOSS, ERROR = 1, 2  # columns of a curve, after the epoch
STEADY = 0.005  # a lesser share of the error by which the last epochs improve is none
ROUNDED = 0.001  # more than curves are rounded by
_MEMBER = re.compile(r"member \d+")
_NAMES = {"encoder": "Encoder alone", "mora": "The whole, with the language model"}


def learning_figures(stages: Sequence[Stage]) -> str:
    """A section with two charts for each stage; empty where the pack records no curve.

    stages: of the manifest. Several networks of one stage (`member 1` ...) are lines of one chart, and what each of
    them learns of single tasks afterwards is left out.
    """
    drawn = [stage for stage in stages if stage.get("curve")]
    groups = [[stage for stage in drawn if _MEMBER.fullmatch(stage["stage"])]]
    groups += [[stage] for stage in drawn if not stage["stage"].startswith("member ")]
    parts = [part for group in groups if group for part in _stage(group)]
    if not parts:
        return ""
    return (
        f'<section id="training"><h2>Training</h2><p class="lead">{_LEAD}</p>'
        f'<div class="plots">{"".join(parts)}</div></section>\n'
    )


_LEAD = (
    "How the pack was made. The loss is that on the molecules that it learns from, and falls in any case; the "
    "validation error, on molecules that it does not learn from, says when to stop. An error of 1 is what the mean of "
    "the training values would give. No other figure of this page is of training molecules, unless it says so on top."
)


def _stage(group: Sequence[Stage]) -> list[str]:
    name = group[0]["stage"] if len(group) == 1 else f"{len(group)} networks"
    title = _NAMES.get(name, name)
    curves = [np.array(stage["curve"], np.float64) for stage in group]
    losses, errors = ([curve[np.isfinite(curve[:, of])][:, [0, of]] for curve in curves] for of in (LOSS, ERROR))
    return [_errors(title, group, errors), _losses(title, losses)]


def _losses(title: str, lines: Sequence[np.ndarray]) -> str:
    name = f"{title}: loss"
    if not any(map(len, lines)):
        return figure(as_html(name), "", "No loss was recorded.")
    plot, words = _plot(lines), "Mean over the training molecules, epoch by epoch."
    return figure(as_html(name), plot.svg(f"{name}. {words}", "epoch", "loss"), words)


def _errors(title: str, group: Sequence[Stage], lines: Sequence[np.ndarray]) -> str:
    """Marks the epoch that was kept, or with a dashed line the start."""
    name = f"{title}: validation error"
    if not all(map(len, lines)):
        return figure(as_html(name), "", "No validation molecule has a value, so the last epoch was kept.")
    lowest = [line[line[:, 1].argmin()] for line in lines]
    starts = [stage["best_error"] for stage, at in zip(group, lowest, strict=True) if _kept_start(stage, at)]
    plot = _plot(lines, starts)
    kept = np.array([at for stage, at in zip(group, lowest, strict=True) if not _kept_start(stage, at)]).reshape(-1, 2)
    plot.dots(kept[:, 0], kept[:, 1], "dots large")
    words = (
        "Each line is a network, dots mark the epochs that were kept. What follows learns the mean of their answers."
    )
    if len(group) == 1:
        words = _verdict(group[0], lines[0], lowest[0])
    return figure(as_html(name), plot.svg(f"{name}. {words}", "epoch", "validation error"), words)


def _plot(lines: Sequence[np.ndarray], guides: Sequence[float] = ()) -> Plot:
    epochs, numbers = np.concatenate(list(lines)).T
    span = float(epochs.min()) - 0.5, float(epochs.max()) + 0.5
    plot = Plot(span, span_of(numbers, np.array(guides)), whole=True)
    for guide in guides:
        plot.line(span, (guide, guide), "guide")
    for line in lines:
        plot.line(line[:, 0], line[:, 1], "line thin" if len(lines) > 1 else "line")
        if len(line) == 1:
            plot.dots(line[:, 0], line[:, 1])
    return plot


def _kept_start(stage: Stage, lowest: np.ndarray) -> bool:
    """Whether no epoch, of which `lowest` is the best, was better than the weights that the stage started from."""
    best = stage["best_error"]
    return best is not None and best < lowest[1] * (1 - ROUNDED)


def _verdict(stage: Stage, line: np.ndarray, lowest: np.ndarray) -> str:
    if _kept_start(stage, lowest):
        error = as_number(stage["best_error"], 3)
        return f"No epoch was better than the start, whose error is {error} (dashed): the start was kept."
    n, error = len(line), as_number(lowest[1], 3)
    words = f"Lowest in epoch {lowest[0]:.0f} of {n}, at {error} (dot); the weights of that epoch were kept."
    before = line[: -max(1, n // 4), 1]
    if lowest[0] == line[-1, 0] and len(before) > 1 and lowest[1] < before.min() * (1 - STEADY):
        return f"{words} It was still falling: more epochs may help."
    return f"{words} Later epochs were no better." if lowest[0] < line[-1, 0] else words
