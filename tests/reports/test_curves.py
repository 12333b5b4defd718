"""Curves of a classifier against scikit-learn, and ranges against samples drawn again."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import auc, average_precision_score, roc_auc_score

from mora_lite.reports.curves import (
    MAX_POINTS,
    auc_range,
    mean_range,
    precision_points,
    ranked,
    roc_points,
    share_range,
)


@pytest.fixture
def classes() -> tuple[np.ndarray, np.ndarray]:
    """200 probabilities with ties, and classes that follow them."""
    rng = np.random.default_rng(1)
    probability = np.round(rng.random(200), 2).astype(np.float32)
    return probability, (rng.random(200) < probability).astype(np.float32)


def test_the_area_under_the_roc_curve_is_its_auc(classes) -> None:
    x, y = roc_points(*classes)
    assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)
    assert auc(x, y) == pytest.approx(roc_auc_score(classes[1], classes[0]))


def test_the_steps_of_precision_add_up_to_its_average(classes) -> None:
    recall, precision = precision_points(*classes)
    assert (np.diff(recall, prepend=0) * precision).sum() == pytest.approx(average_precision_score(*classes[::-1]))


def test_equal_probabilities_are_one_threshold() -> None:
    taken, hits = ranked(np.array([0.5, 0.5, 0.9]), np.array([1.0, 0.0, 1.0]))
    assert (taken.tolist(), hits.tolist()) == ([1, 3], [1, 2])
    x, y = roc_points(np.full(10, 0.5), np.arange(10) % 2)
    assert (x.tolist(), y.tolist()) == ([0, 1], [0, 1])


def test_a_long_curve_is_thinned_and_keeps_its_ends() -> None:
    rng = np.random.default_rng(0)
    probability = rng.random(50_000)
    x, y = roc_points(probability, (rng.random(50_000) < probability).astype(float))
    assert len(x) <= MAX_POINTS
    assert (x[0], x[-1], y[-1]) == (0, 1, 1)


def test_ranges_hold_what_samples_scatter_by() -> None:
    rng = np.random.default_rng(0)
    inside = [low <= 0.9 <= high for low, high in (share_range(rng.binomial(40, 0.9) / 40, 40) for _ in range(400))]
    assert 0.9 < np.mean(inside) < 0.99
    spans = [mean_range(np.abs(rng.normal(size=50))) for _ in range(400)]
    assert 0.9 < np.mean([low <= np.sqrt(2 / np.pi) <= high for low, high in filter(None, spans)]) < 0.99
    true = np.repeat([0.0, 1.0], [40, 20])
    areas = []
    for _ in range(300):
        span = auc_range(roc_auc_score(true, rng.normal(true)), 20, 40)
        assert span is not None
        areas.append(span[0] <= 0.7602 <= span[1])
    assert 0.9 < np.mean(areas) <= 0.99


@pytest.mark.parametrize(("positives", "negatives", "shift", "area"), [(3, 12, 2.0, 0.9214), (5, 5, 3.0, 0.9831)])
def test_the_range_of_an_area_holds_it_on_small_test_sets_too(
    positives: int, negatives: int, shift: float, area: float
) -> None:
    """`shift`: by how many deviations positives score higher, which gives the area."""
    rng, true = np.random.default_rng(0), np.repeat([0.0, 1.0], [negatives, positives])
    found = (roc_auc_score(true, rng.normal(shift * true)) for _ in range(300))
    spans = [auc_range(auc, positives, negatives) for auc in found]
    assert np.mean([low <= area <= high for low, high in filter(None, spans)]) > 0.9
    assert len(spans) == 300


def test_the_range_of_a_mean_is_wider_than_the_normal_one_where_there_are_few() -> None:
    rng = np.random.default_rng(0)
    spans = [mean_range(rng.normal(size=4)) for _ in range(600)]
    assert 0.93 < np.mean([low <= 0 <= high for low, high in filter(None, spans)]) < 0.97
    low, high = mean_range(np.array([-1.0, 0.0, 1.0]))
    assert high == -low == pytest.approx(4.303 / np.sqrt(3), rel=0.04), "Student's t of two degrees of freedom"


def test_too_few_molecules_have_no_range() -> None:
    assert mean_range(np.array([1.0, 2.0])) is None
    assert auc_range(0.9, 2, 50) is None
    assert share_range(1.0, 1) == pytest.approx((0.2065, 1.0), abs=1e-3)
    low, high = auc_range(1.0, 5, 5)
    assert (high, auc_range(0.0, 5, 5)[0]) == (1.0, 0.0)
    assert low == pytest.approx(0.643, abs=1e-3), "so few tell a perfect area from a good one"
