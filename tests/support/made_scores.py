"""Scores of three tasks, made by hand."""

from __future__ import annotations

import numpy as np

from mora_lite.scoring.scores import Scores
from mora_lite.scoring.tasks import Task

TASKS = (Task("logS", "log mol/L", "", 0.0, 1.0), Task("BBB", "", "", 0.5, 1.0, "class"), Task("<b>", "", "", 0.0, 1.0))


def scores(nearest: list[list[float]], status: list[str] | None = None) -> Scores:
    """Values 1, 2, 3 in every row; a molecule is inside of each task from a similarity of 0.5 on."""
    near = np.array(nearest, np.float32)
    values = np.tile(np.array([1, 2, 3], np.float32), (len(near), 1))
    status = ["ok"] * len(near) if status is None else status
    return Scores(values, status, [""] * len(near), values - 0.5, values + 0.5, near, near >= 0.5)
