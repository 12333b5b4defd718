"""Charts of how a pack was trained: loss and validation error by epoch, of each stage."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .charts import Plot, span_of
from .page import as_html, as_number
from .task_figures import figure

Stage = Mapping[str, Any]

STEADY = 0.005  # a lesser share of the error by which the last epochs improve is none
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
    texts = {1: ("loss", "Loss on the training molecules"), 2: ("validation error", "Validation error")}
    parts = []
    for column, (label, words) in reversed(texts.items()):
        lines = [curve[np.isfinite(curve[:, column])] for curve in curves]
        if not any(len(line) for line in lines):
            parts.append(figure(as_html(f"{title}: {label}"), "", f"{words}: there is none to show."))
            continue
        plot = Plot(_epochs(lines), span_of(*(line[:, column] for line in lines)))
        for stage, line in zip(group, lines, strict=True):
            plot.line(line[:, 0], line[:, column], "line thin" if len(group) > 1 else "line")
            if column == 2 and len(line):
                best = line[line[:, 2].argmin()]
                kept = best[None] if best[2] <= (stage["best_error"] or math.inf) * (1 + 1e-3) else line[:0]
                plot.dots(kept[:, 0], kept[:, 2], "dots large")
        said = _verdict(group, lines) if column == 2 else f"{words}, epoch by epoch."
        chart = plot.svg(f"{title}, {label}. {said}", "epoch", label)
        parts.append(figure(as_html(f"{title}: {label}"), chart, said))
    return parts


def _epochs(lines: Sequence[np.ndarray]) -> tuple[float, float]:
    every = np.concatenate([line[:, 0] for line in lines])
    return float(every.min()) - 0.5, float(every.max()) + 0.5


def _verdict(group: Sequence[Stage], lines: Sequence[np.ndarray]) -> str:
    if len(group) > 1:
        return (
            "Each line is a network; dots mark the epochs that were kept. What follows learns from the mean of their "
            "answers."
        )
    (line,), best = lines, group[0]["best_error"]
    at, last = line[line[:, 2].argmin()], line[-1]
    if best is not None and best < at[2] * (1 - 1e-3):
        return f"No epoch was better than the start, whose error is {as_number(best, 3)}: the start was kept."
    words = (
        f"Lowest in epoch {at[0]:.0f} of {last[0]:.0f}, at {as_number(at[2], 3)}; the weights of that epoch were kept."
    )
    before = line[: -max(1, len(line) // 4), 2]
    if at[0] == last[0] and len(before) > 1 and at[2] < before.min() * (1 - STEADY):
        words += " It was still falling: more epochs may help."
    elif last[0] > at[0]:
        words += " Later epochs were no better."
    return words
