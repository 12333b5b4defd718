"""Why a value is what it is, and what it is among approved drugs: for the page, in plain types."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..scoring.predictor import Predictor
from ..scoring.scores import Scores
from ..scoring.tasks import choose_tasks

LEGEND = (
    "Blue atoms raise the value, orange ones lower it; the stronger the colour, the more. They add up to the value "
    "less that of methane."
)


def explain(model: Predictor, smiles: str, task: str) -> dict[str, Any]:
    """The molecule with its atoms coloured by their contribution to one task, and what the colours mean.

    Raises `PackError` for an unknown task, `InputError` for a molecule that cannot be scored.
    """
    name = model.tasks[choose_tasks(model.tasks, [task])[0]].name
    return {"svg": model.explain([smiles], [name]).to_svg(name, styled=False), "legend": LEGEND, "task": name}


def prepare(model: Predictor) -> None:
    """Find what the model predicts for approved drugs, which takes seconds where it is not known."""
    _ = model.approved


def percentiles(model: Predictor, scores: Scores) -> list[float | None]:
    """Of the first molecule, for each task: the percentage of approved drugs with a lower value.

    None where it is not known, or not yet: see `prepare`.
    """
    if "approved" not in vars(model):
        return [None] * len(model.tasks)
    return [None if np.isnan(share) else round(float(share), 1) for share in model.percentiles(scores)[0]]
