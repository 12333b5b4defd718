"""Why a value is what it is, and what it is among approved drugs: for the page, in plain types."""

from __future__ import annotations

from typing import Any

from ..scoring.predictor import Predictor
from ..scoring.tasks import choose_tasks

LEGEND = (
    "Blue atoms raise the value, orange ones lower it; the stronger the colour, the more. They add up to the value "
    "less that of methane."
)


def can_explain() -> bool:
    """Whether models say what their atoms contribute."""
    return hasattr(Predictor, "explain")


def explain(model: Predictor, smiles: str, task: str) -> dict[str, Any]:
    """The molecule with its atoms coloured by their contribution to one task, and what the colours mean.

    Raises `PackError` for an unknown task, `InputError` for a molecule that cannot be scored.
    """
    name = model.tasks[choose_tasks(model.tasks, [task])[0]].name
    explanation = model.explain(smiles, [name])  # type: ignore[attr-defined]
    return {"svg": explanation.to_svg(name, styled=False), "legend": LEGEND, "task": name}
