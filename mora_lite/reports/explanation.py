"""One self-contained page about some molecules: what their values are, what made them, and what was measured nearby.

It needs no network, no script and no other file. Names and SMILES are untrusted: every text is escaped where it is
inserted. The style is that of all reports.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .. import __version__
from ..chem.drawing import draw
from ..context.extras import ALERTS, EXTRAS, extra_columns
from ..errors import DeviceError, InputError
from ..scoring.explanation import scale_of
from ..scoring.scores import percentile_columns
from ..status import NOT_FINITE, OK
from ..tables.library import Window
from ..tables.parsed import parse_window
from ..tables.records import Record
from .page import as_html, as_number, decimals_for, facts, page

if TYPE_CHECKING:
    from ..scoring.explanation import Explanation
    from ..scoring.predictor import Predictor
    from ..scoring.scores import Scores
    from ..scoring.tasks import Task


@dataclass(frozen=True)
class Explained:
    """One row: `explanation` and `scores`, or the status and error of a molecule that cannot be scored."""

    row: int
    name: str
    smiles: str
    status: str
    error: str
    explanation: Explanation | None = None
    scores: Scores | None = None

    @property
    def failure(self) -> str:
        """Why there is no explanation, in one line."""
        what = self.smiles or self.name
        return f"row {self.row}{f' ({what[:60]})' if what else ''}: {self.status}, {self.error}"


def explain_molecule(
    model: Predictor, row: tuple[int, str, str], tasks: Sequence[Task], neighbours: int | None
) -> Explained:
    """row: number, name and SMILES. neighbours: how many to add to the scores, None for no scores at all."""
    number, name, text = row
    describe = extra_columns if neighbours is not None else None
    parsed = parse_window(Window(number, [Record(name, text, "")]), model.featurizer, describe=describe)
    smiles, status, error = parsed.smiles[0], parsed.status[0], parsed.error[0]
    if status != OK:
        return Explained(number, name, smiles, status, error)
    try:
        explanation = model.explain(smiles, [task.name for task in tasks])
    except InputError as problem:
        return Explained(number, name, smiles, NOT_FINITE, str(problem))
    scores = None
    if neighbours is not None:
        scores = model.score_parsed(parsed, n_neighbours=neighbours, percentiles=True)
    return Explained(number, name, smiles, status, error, explanation, scores)


def explanation_page(model: Predictor, rows: Sequence[Explained], tasks: Sequence[Task], command: str) -> str:
    """The page. rows: with scores where there are explanations. tasks: of the explanations. command: that asked."""
    metadata = {
        "Pack": model.place,
        "Molecules": f"{len(rows):,}",
        "Version": f"mora-lite {__version__}",
        "Command": command,
    }
    molecules = "".join(_molecule(row, model, tasks) for row in rows)
    head = '<header><div><p class="brand">mora-lite</p><h1>Explanation</h1></div></header>\n'
    return page("Explanation", f"{head}{facts(metadata)}\n{_LEAD}\n{molecules}\n{_FOOTER}\n").decode()


_LEAD = (
    '<p class="lead" style="margin-top: 24px">What each atom contributes: '
    '<span class="dot" style="background: var(--more)"></span>raises the value, '
    '<span class="dot" style="background: var(--less)"></span>lowers it; the strongest colour is the largest '
    "contribution of its molecule and task. Contributions add up to the value of the molecule minus that of methane."
    "</p>"
)
_FOOTER = (
    "<footer>Predictions of a model, not measurements, and contributions say what the model does, not why nature does "
    "it. In brackets: the interval of the pack’s calibration. Percentile: the share of approved drugs with a lower "
    "prediction.</footer>"
)


def _molecule(row: Explained, model: Predictor, tasks: Sequence[Task]) -> str:
    name = f"<bdi>{as_html(row.name)}</bdi> " if row.name else ""
    head = f"<section><h2>{row.row}. {name}<code>{as_html(row.smiles)}</code></h2>"
    if row.explanation is None or row.scores is None:
        return f'{head}<p class="note">{as_html(row.status)}: {as_html(row.error)}</p></section>'
    cards = "".join(_task(row.explanation, row.scores, model.tasks.index(task), task) for task in tasks)
    near = _neighbours(row.scores, model, tasks)
    return f'{head}{_extras(row.scores)}<div class="tasks">{cards}</div>{near}</section>'


def _extras(scores: Scores) -> str:
    number = {"mol_weight": 1, "lipinski_violations": 0, "QED": 2, "TPSA": 1, "crippen_logP": 2}
    listed = [
        (name, as_number(float(scores.beside[name][0]), number.get(name, 0))) for name in EXTRAS if name != ALERTS
    ]
    listed.append((ALERTS, str(scores.beside[ALERTS][0]) or "none"))
    words = "".join(
        f'<div class="{"wide" if name == ALERTS else ""}"><dt title="{as_html(EXTRAS[name])}">{name.replace("_", " ")}'
        f"</dt><dd>{as_html(text)}</dd></div>"
        for name, text in listed
    )
    return f'<dl class="facts" style="margin: 12px 0 16px">{words}</dl>'


def _task(explanation: Explanation, scores: Scores, at: int, task: Task) -> str:
    """at: of the task among all of the model, of which the explanation has some."""
    decimals, k = decimals_for(task), explanation.tasks.index(task)
    value, interval, domain = as_number(float(scores.values[0, at]), decimals), "", ""
    if scores.low is not None and scores.high is not None and not task.is_class:
        low, high = (as_number(float(bound[0, at]), decimals) for bound in (scores.low, scores.high))
        interval = f" <small>[{low}, {high}]</small>"
    if scores.inside is not None and not scores.inside[0, at]:
        domain = ' <span class="badge">outside of the domain</span>'
    place = float(scores.beside[percentile_columns([task])[0]][0])
    base, on_scale = (as_number(float(numbers[k]), 2) for numbers in (explanation.base, explanation.values))
    try:
        drawing = explanation.to_svg(task.name, styled=False)
    except DeviceError as error:
        drawing = f'<p class="note">{as_html(error)}</p>'
    unit = "probability" if task.is_class else task.unit
    scale = as_html(scale_of(task) or "value")
    return (
        f'<figure class="card"><figcaption><h3>{as_html(task.name)} <span>{as_html(unit)}</span></h3>'
        f'<p class="value">{value}{interval}{domain}</p><p>percentile {place:.0f} among approved drugs</p></figcaption>'
        f"{drawing}<p>{scale}: {base} for methane, {on_scale} for the molecule</p></figure>"
    )


def _neighbours(scores: Scores, model: Predictor, tasks: Sequence[Task]) -> str:
    found = scores.neighbours
    if found is None or not len(found) or found.index[0, 0] < 0:
        return ""
    cards = []
    for k, smiles in enumerate(found.smiles[0]):
        measured = [(task, float(found.values[0, k, model.tasks.index(task)]), decimals_for(task)) for task in tasks]
        lines = "".join(
            f"<dt>{as_html(task.name)}</dt><dd>{as_number(value, 0 if task.is_class else decimals)}</dd>"
            for task, value, decimals in measured
        )
        similarity = as_number(float(found.similarity[0, k]), 2)
        cards.append(
            f'<figure class="card">{draw(smiles) or f"<code>{as_html(smiles)}</code>"}<figcaption><p>similarity '
            f"{similarity}, measured:</p></figcaption><dl>{lines}</dl></figure>"
        )
    return f'<h3 class="sub">The nearest training molecules</h3><div class="near">{"".join(cards)}</div>'
