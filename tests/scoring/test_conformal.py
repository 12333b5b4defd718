"""Error bars hold what they promise, and equal those of crepes; probabilities equal those of scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load, save

from mora_lite.errors import InputError
from mora_lite.scoring.conformal import Calibration, Intervals, Platt

NAN = float("nan")


def molecules(n: int, seed: int = 0, growth: float = 2.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """predicted, truth, similarity of n made-up molecules whose errors grow by exp(growth * (1 - similarity))."""
    random = np.random.default_rng(seed)
    predicted, similarity = random.normal(size=n), random.uniform(0.1, 1, n)
    truth = predicted + 0.3 * np.exp(growth * (1 - similarity)) * random.normal(size=n)
    return predicted, truth, similarity


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95])
def test_equals_crepes(confidence: float) -> None:
    import crepes

    predicted, truth, similarity = molecules(203)
    ours = Intervals.fit(predicted, truth, similarity)
    assert ours.b > 1
    theirs = crepes.ConformalRegressor()
    theirs.fit(residuals=truth - predicted, sigmas=np.exp(ours.b * (1 - similarity)))
    at = np.linspace(0, 1, 11)
    bounds = theirs.predict_int(np.zeros(11), sigmas=np.exp(ours.b * (1 - at)), confidence=confidence)
    np.testing.assert_allclose(ours.half_width(at, confidence), bounds[:, 1], rtol=1e-6)


def test_nine_of_ten_new_molecules_are_inside() -> None:
    """Near the training molecules and far from them; one width for all misses one of the two."""
    intervals = Intervals.fit(*molecules(4000))
    predicted, truth, similarity = molecules(4000, seed=1)
    inside = np.abs(truth - predicted) <= intervals.half_width(similarity, 0.9)
    for part in (similarity > 0, similarity < 0.4, similarity > 0.7):
        # 4 deviations of the binomial, for calibration and test molecules alike.
        assert inside[part].mean() == pytest.approx(0.9, abs=4 * (2 * 0.9 * 0.1 / part.sum()) ** 0.5)
    constant = Intervals(0.0, np.sort(np.abs(np.subtract(*molecules(4000)[:2]))).astype(np.float32))
    inside = np.abs(truth - predicted) <= constant.half_width(similarity, 0.9)
    assert inside[similarity < 0.4].mean() < 0.85


def test_few_calibration_molecules_nearly_keep_the_promise() -> None:
    """Over many draws of 40 molecules, from which both b and the scores come; with a given b it would be 37 of 41."""
    inside = []
    for seed in range(400):
        predicted, truth, similarity = molecules(60, seed)
        intervals = Intervals.fit(predicted[:40], truth[:40], similarity[:40])
        inside.append(np.abs(truth - predicted)[40:] <= intervals.half_width(similarity[40:], 0.9))
    assert np.mean(inside) == pytest.approx(37 / 41, abs=0.015)


def test_how_fast_errors_grow() -> None:
    assert Intervals.fit(*molecules(4000, growth=2.0)).b == pytest.approx(2, abs=0.25)
    assert Intervals.fit(*molecules(4000, growth=-2.0)).b == 0
    assert Intervals.fit(*molecules(4000, growth=9.0)).b == 4
    assert Intervals.fit(*molecules(29)).b == 0
    predicted, truth, similarity = molecules(100)
    assert Intervals.fit(predicted, truth, np.full(100, 0.4)).b == 0
    assert Intervals.fit(truth, truth, similarity).b == 0
    # A perfect hit is one small error, not one infinitely small.
    farthest = similarity.argmin()
    predicted[farthest] = truth[farthest]
    assert Intervals.fit(predicted, truth, similarity).b > 1


def test_known_numbers() -> None:
    nine = Intervals.fit(np.zeros(9), np.arange(-9.0, 0), np.ones(9))
    assert nine.scores.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert nine.scores.dtype == np.float32
    assert [nine.half_width(np.ones(1), c).item() for c in (0.1, 0.5, 0.55, 0.9)] == [1, 5, 6, 9]
    got = Intervals(2.0, nine.scores).half_width(np.array([1, 0.5]), 0.9)
    assert got.dtype == np.float32
    assert got.tolist() == pytest.approx([9, 9 * np.e])
    # 100 * 0.55 is 55 on paper and a little more in floating point.
    assert Intervals(0.0, np.arange(1, 100, dtype=np.float32)).half_width(np.ones(1), 0.55).item() == 55


def test_too_few_molecules_for_the_promise() -> None:
    nine = Intervals.fit(np.zeros(9), np.ones(9), np.ones(9))
    assert nine.half_width(np.ones(2), 0.91).tolist() == [np.inf, np.inf]
    none = Intervals.fit(np.zeros(2), np.array([NAN, NAN]), np.ones(2))
    assert none.scores.shape == (0,)
    assert none.half_width(np.ones(1), 0.01).item() == np.inf


def test_molecules_without_a_true_value_are_left_out() -> None:
    predicted, truth, similarity = molecules(60)
    blank = np.where(np.arange(60) < 20, NAN, truth)
    some, all_known = Intervals.fit(predicted, blank, similarity), [x[20:] for x in (predicted, truth, similarity)]
    assert some.b == Intervals.fit(*all_known).b > 0
    np.testing.assert_array_equal(some.scores, Intervals.fit(*all_known).scores)


@pytest.mark.parametrize("confidence", [0, 1, -0.1, 90, NAN])
def test_a_confidence_that_is_none(confidence: float) -> None:
    with pytest.raises(InputError, match=r"confidence: got .*, expected a number above 0 and below 1"):
        Intervals.fit(*molecules(20)).half_width(np.ones(1), confidence)


shares = st.floats(0.01, 0.99)


@given(st.integers(0, 80), st.tuples(shares, shares), st.tuples(shares, shares))
def test_wider_with_confidence_and_with_distance(n: int, confidences: tuple, similarities: tuple) -> None:
    intervals = Intervals.fit(*molecules(n))
    low, high = (intervals.half_width(np.array(sorted(similarities)), c) for c in sorted(confidences))
    assert (low <= high).all()
    assert low[1] <= low[0]


def logits_and_labels(n: int, slope: float, intercept: float) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    logits = random.normal(size=n) * 3
    return logits, (random.random(n) < 1 / (1 + np.exp(-(slope * logits + intercept)))).astype(np.float64)


@pytest.mark.parametrize(("slope", "intercept"), [(0.5, -1.0), (2.0, 3.0), (0.06, 0.0)])
def test_platt_equals_logistic_regression(slope: float, intercept: float) -> None:
    from sklearn import linear_model

    logits, labels = logits_and_labels(20_000, slope, intercept)
    theirs = linear_model.LogisticRegression(C=1e6).fit(logits[:, None], labels)
    ours = Platt.fit(logits, labels)
    assert (ours.slope, ours.intercept) == pytest.approx((theirs.coef_.item(), theirs.intercept_.item()), abs=0.02)
    assert ours.slope == pytest.approx(slope, rel=0.1)
    at = np.array([-1e4, -3, 0, 3, 1e4], np.float32)
    assert ours.probability(at).dtype == np.float32
    np.testing.assert_allclose(ours.probability(at), theirs.predict_proba(at[:, None])[:, 1], atol=0.005)


def test_probabilities_are_true_on_average() -> None:
    logits, labels = logits_and_labels(5000, 0.5, -1.0)
    probability = Platt.fit(logits, labels).probability(logits)
    for part in (probability < 0.2, probability > 0.5):
        assert probability[part].mean() == pytest.approx(labels[part].mean(), abs=0.03)


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_one_class_only(label: float) -> None:
    sign = 2 * label - 1
    for n in (1, 2, 300):
        platt = Platt.fit(sign * np.linspace(0.5, 2, n), np.full(n, label))
        assert 0.05 <= platt.slope < 3
        assert 0 < sign * platt.intercept < 8
        assert 0.5 < abs(platt.probability(np.array([sign])).item() - (1 - label)) < 1


def test_without_labels_nothing_changes() -> None:
    assert Platt.fit(np.array([3.0]), np.array([NAN])) == Platt(1.0, 0.0) == Platt.fit(np.zeros(0), np.zeros(0))
    logits, labels = logits_and_labels(50, 1, 0)
    more = np.concatenate([logits, [100.0]]), np.concatenate([labels, [NAN]])
    assert Platt.fit(*more) == Platt.fit(logits, labels)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_labels_against_the_logits_do_not_turn_their_order(scale: float) -> None:
    logits = np.linspace(-1, 1, 40) * scale
    platt = Platt.fit(logits, (logits < 0).astype(np.float64))
    assert platt.slope == 0.05
    assert (np.diff(platt.probability(logits).astype(np.float64)) >= 0).all()


@pytest.mark.parametrize("scale", [0.0, 1e-3, 1.0, 1e3])
def test_perfectly_separated_labels_stay_finite(scale: float) -> None:
    logits = np.linspace(-1, 1, 40) * scale
    platt = Platt.fit(logits, (np.arange(40) >= 20).astype(np.float64))
    assert 0.05 <= platt.slope < 1e4
    assert abs(platt.intercept) < 1e-3
    if scale >= 1:
        assert platt.probability(logits)[-1] > 0.9


def test_a_pack_s_calibration_is_stored_and_chosen_from() -> None:
    parts = [Intervals.fit(*molecules(40)), Platt.fit(*logits_and_labels(40, 1, 0)), Intervals.fit(*molecules(0))]
    calibration = Calibration(parts, [0.25, 1 / 3, 0.0])
    stored = calibration.tensors()
    assert sorted(stored) == ["0.b", "0.scores", "1.platt", "2.b", "2.scores", "thresholds"]
    back = Calibration.from_tensors(load(save(stored)), 3).select([2, 1, 0])
    assert back.thresholds == [0.0, 1 / 3, 0.25]
    empty, platt, intervals = back.parts
    assert platt == parts[1]
    assert isinstance(intervals, Intervals)
    assert isinstance(empty, Intervals)
    assert intervals.b == parts[0].b > 0
    assert intervals.scores.dtype == np.float32
    np.testing.assert_array_equal(intervals.scores, parts[0].scores)
    assert len(empty.scores) == 0
