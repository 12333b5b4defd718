"""A row is in the domain if it is in that of every task asked for; values outside stay."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_scores import TASKS, scores

from mora_lite.chem.featurizer import Featurizer
from mora_lite.errors import PackError
from mora_lite.scoring.conformal import Calibration, Intervals, Platt
from mora_lite.scoring.domain import Domain
from mora_lite.scoring.predictions import Predictions
from mora_lite.scoring.predictor import Predictor
from mora_lite.scoring.scores import Calibrator
from mora_lite.scoring.tasks import OWN_COLUMNS, Task
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
    assert summary.lines("out.csv")[-1] == (
        "  outside of the domain: 9 of T9, 8 of T8, 7 of T7, 6 of T6, 5 of T5, 4 of T4 and of 3 other tasks"
    )
    one_more = RunSummary(Counter(ok=9), outside=Counter({f"T{n}": n for n in range(1, 8)}))
    assert one_more.lines("out.csv")[-1].endswith("and of 1 other task")
    assert len(RunSummary(Counter(ok=9)).lines("out.csv")) == 1


def test_every_column_beside_the_tasks_is_reserved() -> None:
    columns = Predictions(["C"], TASKS, scores([[0.9, 0.8, 0.7]])).columns()
    own = [name for name in columns if not name.startswith(tuple(task.name for task in TASKS))]
    assert own == ["smiles", "similarity", "in_domain", "outside", "status", "error"]
    assert set(own) <= set(OWN_COLUMNS)
    assert {f"logS{ending}" for ending in ("_lo", "_hi")} < set(columns)


class Calibrating(Predictor):
    """Has no model: its values are given."""

    def score_graphs(self, graphs, batch_size=None):
        raise AssertionError

    load_training = score_graphs


def test_intervals_hold_measured_shares_of_0_and_100_percent_as_promised() -> None:
    """They are learnt as 0.3 and 99.7 %, and a third of these values is 100."""
    rng = np.random.default_rng(0)
    predicted = rng.normal(4, 2, 4000).clip(-5, 5).astype(np.float32)
    percent = 100 / (1 + np.exp(-predicted - rng.normal(0, 1.5, 4000)))
    percent = np.where(percent > 99.7, 100, np.where(percent < 0.3, 0, percent)).astype(np.float32)
    task, near = Task("PPB", "%", "Q?", 4, 3, scale="logit"), np.zeros(2000, np.float32)
    part = Intervals.fit(predicted[:2000], task.on_scale(percent[:2000]), near)
    calibrator = Calibrator(
        [part], np.zeros(1, np.float32), Domain.of(np.zeros((0, 128), np.uint8), np.zeros((0, 1), bool)), 0.9
    )
    found = Calibrating((task,), Featurizer(), calibrator).calibrate(
        predicted[2000:, None], np.zeros((2000, 128), np.uint8)
    )
    assert found.low is not None
    assert found.high is not None
    low, high, truth = found.low[:, 0], found.high[:, 0], percent[2000:]
    assert 0.88 < ((low <= truth) & (truth <= high)).mean() < 0.92
    assert (low < found.values[:, 0]).all()
    assert (found.values[:, 0] <= high).all()
    assert ((high == 100) == (high > 99.6999)).all(), "never between what is told apart and all"
