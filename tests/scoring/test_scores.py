"""A row is in the domain if it is in that of every task asked for; values outside stay."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_scores import TASKS, scores

from mora_lite.errors import PackError
from mora_lite.scoring.conformal import Calibration, Platt
from mora_lite.scoring.domain import Domain
from mora_lite.scoring.predictions import Predictions
from mora_lite.scoring.scores import Calibrator
from mora_lite.scoring.tasks import OWN_COLUMNS
from mora_lite.status import RunSummary


def test_in_domain_is_true_inside_of_every_task_and_outside_names_the_others() -> None:
    found = scores([[0.9, 0.8, 0.7], [0.9, 0.4, 0.7], [0.1, 0.2, 0.3]])
    assert found.in_domain is not None
    assert found.in_domain.tolist() == [True, False, False]
    assert found.columns(TASKS)["outside"].tolist() == ["", "BBB", "logS BBB <b>"]


def test_similarity_is_that_of_the_task_that_the_molecule_is_farthest_from() -> None:
    found = scores([[0.9, 0.8, 0.7], [0.9, 0.4, 0.7]])
    assert found.similarity is not None
    np.testing.assert_allclose(found.similarity, [0.7, 0.4])


@given(st.lists(st.lists(st.floats(0, 1, width=32), min_size=3, max_size=3), min_size=1, max_size=70))
def test_domain_similarity_and_names_tell_the_same(nearest: list[list[float]]) -> None:
    """Here all thresholds are 0.5, so the similarity alone decides."""
    columns = scores(nearest).columns(TASKS)
    assert columns["in_domain"].tolist() == [text == "" for text in columns["outside"]]
    assert columns["in_domain"].tolist() == (columns["similarity"] >= 0.5).tolist()


def test_intervals_and_training_molecules_of_other_tasks_are_refused() -> None:
    domain = Domain.of(np.ones((1, 128), np.uint8), np.ones((1, 3), bool))
    calibration = Calibration([Platt(1.0, 0.0)] * 2, [0.0, 0.0])
    with pytest.raises(PackError, match="training molecules of 3 tasks, but intervals of 2"):
        Calibrator.of(calibration, domain, [0, 1], 0.9)
    assert Calibrator.of(calibration, domain.select([0, 2]), [1], 0.9) is not None


def test_the_summary_of_a_run_names_the_tasks_with_most_rows_outside() -> None:
    summary = RunSummary(Counter(ok=9), outside=Counter({f"T{n}": n for n in range(1, 10)}))
    assert summary.lines("out.csv", 0.0)[-1] == (
        "  outside of the domain: 9 of T9, 8 of T8, 7 of T7, 6 of T6, 5 of T5, 4 of T4 and of 3 other tasks"
    )
    one_more = RunSummary(Counter(ok=9), outside=Counter({f"T{n}": n for n in range(1, 8)}))
    assert one_more.lines("out.csv", 0.0)[-1].endswith("and of 1 other task")
    assert len(RunSummary(Counter(ok=9)).lines("out.csv", 0.0)) == 1


def test_every_column_beside_the_tasks_is_reserved() -> None:
    columns = Predictions(["C"], TASKS, scores([[0.9, 0.8, 0.7]])).columns()
    own = [name for name in columns if not name.startswith(tuple(task.name for task in TASKS))]
    assert own == ["smiles", "similarity", "in_domain", "outside", "status", "error"]
    assert set(own) <= set(OWN_COLUMNS)
    assert {f"logS{ending}" for ending in ("_lo", "_hi")} < set(columns)
