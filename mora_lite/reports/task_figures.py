"""The charts of one task: predictions beside what was measured, each with a sentence on what to read from it."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..scoring.tasks import Task
from ..status import counted
from .charts import SQUARE, Plot, parity_svg
from .curves import Z_OF_MANY, precision_points, ranked, roc_points, share_range
from .page import as_html, as_number, as_percent, decimals_for

Rows = Sequence[Mapping[str, Any]]

MIN_COMPARED = 10  # molecules of a group whose error is compared with another's
MANY = 300  # molecules among which a probability that is wrong by a tenth is seen
MUCH = 1.25  # times the other error
SIMILARITY = "similarity to the nearest training molecule"


@dataclass(frozen=True)
class TaskResult:
    """A task's predictions of `N` molecules, float32 `[N]` each, in its unit or as probabilities.

    truth: measured, NaN where unknown. values: predicted. low, high: the intervals; similarity: to the nearest molecule
    that the task was trained on; None without calibration.
    metrics, tables: of the task, as `Evaluation` has them. confidence: of the intervals.
    """

    task: Task
    truth: np.ndarray
    values: np.ndarray
    low: np.ndarray | None
    high: np.ndarray | None
    similarity: np.ndarray | None
    metrics: Mapping[str, Any]
    tables: Mapping[str, Rows]
    confidence: float

    @cached_property
    def known(self) -> np.ndarray:
        """The molecules with a measured and a predicted value, int64 `[n]`."""
        return np.flatnonzero(np.isfinite(self.truth) & np.isfinite(self.values))

    @cached_property
    def errors(self) -> np.ndarray:
        """Predicted minus measured of `known`, float64 `[n]`; of a logarithmic scale, of the logarithms to base 10, and
        NaN where one of them is not above 0.
        """
        truth, values = (of[self.known].astype(np.float64) for of in (self.truth, self.values))
        return self.task.on_scale(values) - self.task.on_scale(truth) if self.task.is_log else values - truth

    @cached_property
    def sizes(self) -> np.ndarray:
        """How large the errors are, those that are not NaN: float64."""
        return np.abs(self.errors[~np.isnan(self.errors)])

    @property
    def promised(self) -> str:
        """The share of measured values that intervals should hold."""
        return f"{100 * self.confidence:g} %"

    @property
    def half_within(self) -> str:
        """The median error, of a logarithmic scale as a factor."""
        if not len(self.sizes):
            return "–"
        middle = float(np.median(self.sizes))
        return f"factor {as_number(10**middle, 1)}" if self.task.is_log else self.number(middle)

    def number(self, value: float, unit: bool = False) -> str:
        """A value of the task for HTML. unit: with its unit."""
        decimals = decimals_for(self.task)
        text = as_number(float(f"{value:.3g}") if decimals is None else value, decimals)
        return f"{text} {as_html(self.task.unit)}" if unit and self.task.unit else text


def figures(result: TaskResult) -> str:
    """All charts of a task; a sentence where there is nothing to draw."""
    n, name = len(result.known), as_html(result.task.name)
    lost = int((np.isfinite(result.truth) & ~np.isfinite(result.values)).sum())
    notes = [f"{lost:,} measured molecules got no finite prediction and are left out."] if lost else []
    if n == 0:
        return _note(" ".join([*notes, f"No molecule here has a measured and a predicted value of {name}."]))
    if without := n - len(result.sizes):
        have = "molecule has" if without == 1 else "molecules have"
        notes.append(
            f"{without:,} {have} a measured or predicted value that is not above 0, and so no error in powers of ten."
        )
    parts = _class_figures(result) if result.task.is_class else [_parity(result)]
    if result.similarity is None:
        notes.append("The pack is not calibrated: it has no intervals, and nothing is known of the similarity.")
    elif by_similarity := [row for row in result.tables.get("by_similarity", ()) if row["n"]]:
        parts.append(_by_similarity(result, by_similarity))
        if not result.task.is_class:
            parts.append(_coverage(result, by_similarity))
    return "".join(map(_note, notes)) + f'<div class="plots">{"".join(parts)}</div>'


def figure(title: str, chart: str, words: str) -> str:
    """A chart under its title, above what to read from it; all HTML."""
    words = words.replace(" %", "\N{NO-BREAK SPACE}%")
    return f'<figure class="plot"><figcaption><h4>{title}</h4></figcaption>{chart}<p>{words}</p></figure>'


def _note(words: str) -> str:
    return f'<p class="note">{words}</p>'


def _plain(words: str) -> str:
    """The text of a sentence that is HTML, for a title that is escaped again."""
    return html.unescape(words)


def _parity(result: TaskResult) -> str:
    task, known = result.task, result.known
    truth, values = result.truth[known].astype(np.float64), result.values[known].astype(np.float64)
    low, high = (None if bound is None else bound[known].astype(np.float64) for bound in (result.low, result.high))
    mean = f"mean error {result.number(float(np.abs(values - truth).mean()), unit=True)}"
    half = f"; half of the predictions are within {result.half_within.replace('factor', 'a factor of')}"
    words = [f"{counted(len(known), 'molecule')}: {mean}{half if len(result.sizes) else ''}."]
    bias = float(np.nansum(result.errors))
    if len(result.sizes) >= MIN_COMPARED and abs(bias) > 0.5 * result.sizes.sum():
        words.append(f"Predictions are mostly too {'high' if bias > 0 else 'low'}.")
    if values.min() == values.max():
        words.append("All molecules got the same prediction." if len(known) > 1 else "")
    inside = result.metrics.get("inside")
    if inside is not None:
        promised = result.promised
        words.append(f"{as_percent(inside)} of the measured values lie inside their {promised} interval.")
    chart, marks = parity_svg(
        truth,
        values,
        low,
        high,
        f"{task.name}, predicted over measured. {_plain(' '.join(words))}",
        log=task.is_log,
        unit=task.unit,
    )
    line = "On the dashed line a prediction is what was measured."
    return figure("Predicted and measured", chart, " ".join(filter(None, [line, marks, *words])))


def _by_similarity(result: TaskResult, rows: Rows) -> str:
    task = result.task
    what, unit = ("Square error", "") if task.is_class else ("Mean error", task.unit)
    heights = [float(row["brier" if task.is_class else "mae"]) for row in rows]
    if task.is_log:  # in the unit it would be that of the few largest values
        of_rows = [result.errors[_between(result, row) & ~np.isnan(result.errors)] for row in rows]
        unit, heights = "powers of ten", [float(np.abs(of).mean()) if len(of) else np.nan for of in of_rows]
    finite = np.isfinite(heights)
    rows, heights = [row for row, shown in zip(rows, finite, strict=True) if shown], np.array(heights)[finite].tolist()
    ranges, counts = [f"{row['from']:g} to {row['to']:g}" for row in rows], [row["n"] for row in rows]
    plot = Plot((0, 1), (0, (max(heights, default=0) or 1) * 1.15))
    facts = zip(ranges, counts, heights, strict=True)
    texts = [f"similarity {span}, {n:,} molecules: {as_number(height)} {unit}" for span, n, height in facts]
    plot.bars([(row["from"], row["to"]) for row in rows], heights, texts)
    plot.texts([(row["from"] + row["to"]) / 2 for row in rows], heights, list(map(_count, counts)))
    words = "There are too few molecules to say whether the error grows with the distance."
    large = [i for i, n in enumerate(counts) if n >= MIN_COMPARED]
    if len(large) > 1:
        far, near = large[0], large[-1]
        words = f"At similarity {ranges[far]} the error is {_times(heights[far], heights[near])} at {ranges[near]}."
    title = f"{task.name}, {what.lower()} by similarity to the nearest training molecule. {words}"
    chart = plot.svg(title, SIMILARITY, f"{what.lower()}{f', {unit}' if unit else ''}")
    small = "Above each bar: how many molecules it stands for; a bar of few says little."
    return figure(f"{what} by similarity", chart, f"{words} {small}")


def _between(result: TaskResult, row: Mapping[str, Any]) -> np.ndarray:
    """Which of `known` are in a row of the table by similarity: bool `[n]`."""
    assert result.similarity is not None
    similarity = result.similarity[result.known]
    start, stop = np.float32(row["from"]), np.float32(row["to"])
    return (similarity >= start) & ((similarity < stop) | (similarity == 1) & (stop == 1))


def _times(error: float, other: float) -> str:
    """One error beside another, in words."""
    if min(error, other) <= 0 or max(error, other) / min(error, other) <= MUCH:
        return "about the same as"
    return f"{as_number(max(error, other) / min(error, other), 1)} times as {'large' if error > other else 'small'} as"


def _coverage(result: TaskResult, rows: Rows) -> str:
    rows = [row for row in rows if row.get("inside") is not None]
    promised = result.promised
    if not rows:
        return ""
    ranges = [share_range(row["inside"], row["n"]) for row in rows]
    middles = np.array([(row["from"] + row["to"]) / 2 for row in rows])
    lowest = min(low for low, _ in ranges)
    plot = Plot((0, 1), (0 if lowest < 0.5 else 0.5, 1.08), shares=True)
    plot.line((0, 1), (result.confidence, result.confidence), "guide")
    low, high = np.array(ranges).T
    plot.spans(middles, low, high, "whiskers")
    plot.dots(middles, np.array([row["inside"] for row in rows]), "dots large")
    plot.texts(middles.tolist(), [high for _, high in ranges], [_count(row["n"]) for row in rows])
    short = [row for row in rows if share_range(row["inside"], row["n"], Z_OF_MANY)[1] < result.confidence]
    words = f"Wherever there are enough molecules to tell, the intervals hold what they promise, {promised}."
    if short:
        listed = ", ".join(f"{row['from']:g} to {row['to']:g} ({as_percent(row['inside'])})" for row in short)
        words = (
            f"Fewer than the promised {promised} are inside at similarity {listed}: there the intervals are too narrow."
        )
    title = f"{result.task.name}, share of measured values inside their interval by similarity. {words}"
    chart = plot.svg(title, SIMILARITY, "inside the interval")
    return figure("Are the intervals wide enough?", chart, f"{words} {WHISKERS}")


WHISKERS = "Whiskers: what chance allows, with the number of molecules above them."


def _class_figures(result: TaskResult) -> list[str]:
    probability, true = result.values[result.known], result.truth[result.known]
    n, positives = len(true), int(true.sum())
    parts = []
    if 0 < positives < n:
        parts += [_roc(result, probability, true), _precision(result, probability, true)]
    else:
        side = "positive" if positives else "negative"
        parts.append(
            _note(f"All {n:,} molecules here are {side}, so nothing can be said of how well the sides are told apart.")
        )
    return [*parts, _reliability(result, probability, true)]


def _roc(result: TaskResult, probability: np.ndarray, true: np.ndarray) -> str:
    plot = Plot((0, 1), (0, 1), size=SQUARE)
    plot.line((0, 1), (0, 1), "guide")
    plot.line(*roc_points(probability, true))
    right = as_percent(result.metrics["roc_auc"])
    words = f"A positive gets a higher probability than a negative in {right} of all pairs; 50 % is guessing."
    chart = plot.svg(f"{result.task.name}, ROC curve. {words}", "negatives taken", "positives found")
    return figure(
        "ROC curve", chart, f"{words} The further up and left the curve, the better; the dashed line is guessing."
    )


def _precision(result: TaskResult, probability: np.ndarray, true: np.ndarray) -> str:
    n, share = len(true), float(true.mean())
    plot = Plot((0, 1), (0, 1), size=SQUARE)
    plot.line((0, 1), (share, share), "guide")
    plot.line(*precision_points(probability, true))
    taken, hits = ranked(probability, true)
    at = int(np.searchsorted(taken, max(1, n // 10)))
    words = (
        f"Of the {counted(taken[at], 'molecule')} with the highest probability "
        f"{as_percent(hits[at] / taken[at])} are positive; of all {n:,}, {as_percent(share)} (dashed)."
    )
    chart = plot.svg(
        f"{result.task.name}, precision and recall. {words}",
        "positives found (recall)",
        "positive among those taken (precision)",
    )
    return figure("Precision and recall", chart, f"{words} It shows what a list of the best would hold.")


def _reliability(result: TaskResult, probability: np.ndarray, true: np.ndarray) -> str:
    rows = result.tables.get("calibration", ())
    ranges = [share_range(row["observed"], row["n"]) for row in rows]
    predicted = np.array([row["predicted"] for row in rows])
    plot = Plot((0, 1), (0, 1.08), shares=True, size=SQUARE)
    plot.line((0, 1), (0, 1), "guide")
    low, high = np.array(ranges).T
    plot.spans(predicted, low, high, "whiskers")
    plot.dots(predicted, np.array([row["observed"] for row in rows]), "dots large")
    plot.texts(predicted.tolist(), [high for _, high in ranges], [_count(row["n"]) for row in rows])
    limits = [share_range(row["observed"], row["n"], Z_OF_MANY) for row in rows]
    wrong = [row for row, (low, high) in zip(rows, limits, strict=True) if not low <= row["predicted"] <= high]
    words = "No group differs from its probability by more than chance allows"
    words += "." if len(true) >= MANY else ", though of so few molecules only a large difference would show."
    if wrong:
        worst = max(wrong, key=lambda row: abs(row["observed"] - row["predicted"]))
        side = "high" if worst["predicted"] > worst["observed"] else "low"
        words = (
            f"Where the probability is about {as_percent(worst['predicted'])}, {as_percent(worst['observed'])} of "
            f"{worst['n']:,} molecules are positive: it is too {side} there."
        )
    if len(true) > 1 and probability.min() == probability.max():
        words = f"All molecules got the same probability. {words}"
    chart = plot.svg(
        f"{result.task.name}, reliability of the probabilities. {words}", "predicted probability", "found positive"
    )
    return figure("Can the probability be believed?", chart, f"{words} On the dashed line it is right. {WHISKERS}")


def _count(n: int) -> str:
    return f"{n}" if n < 10_000 else f"{n / 1000:.0f}k"
