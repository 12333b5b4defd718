"""Error bars hold what they promise, near and far; probabilities equal those of scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
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


def levelling(n: int, seed: int = 0, worst: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As `molecules`, but the error stops shrinking at a similarity of 0.6; one in ten has a similarity of 1.

    worst: how many times the usual error is that of molecules at exactly 1.
    """
    random = np.random.default_rng(seed)
    predicted, similarity = random.normal(size=n), random.uniform(0.2, 1, n)
    similarity[random.random(n) < 0.1] = 1
    usual = 0.3 * np.exp(3 * np.maximum(0.6 - similarity, 0)) * np.where(similarity == 1, worst, 1)
    return predicted, predicted + usual * random.standard_t(5, n), similarity


BINS = (0, 0.5, 0.7, 0.85, 1)


def inside_by_bin(intervals: Intervals, predicted: np.ndarray, truth: np.ndarray, similarity: np.ndarray) -> np.ndarray:
    """Share of true values in the 90 % intervals, below 0.5, to 0.7, to 0.85, to 1, and at 1 if there are any."""
    inside = np.abs(truth - predicted) <= intervals.half_width(similarity, 0.9)
    in_bin = np.digitize(similarity, BINS)
    return np.array([inside[in_bin == i].mean() for i in np.unique(in_bin)])


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95])
def test_with_one_width_it_equals_crepes(confidence: float) -> None:
    import crepes

    predicted, truth, similarity = molecules(97)
    theirs = crepes.ConformalRegressor()
    theirs.fit(residuals=truth - predicted)
    bounds = theirs.predict_int(np.zeros(11), confidence=confidence)
    ours = Intervals.fit(predicted, truth, similarity)
    np.testing.assert_allclose(ours.half_width(np.linspace(0, 1, 11), confidence), bounds[:, 1], rtol=1e-6)


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95])
def test_with_the_scale_of_older_packs_it_equals_crepes(confidence: float) -> None:
    import crepes

    predicted, truth, similarity = molecules(203)
    sigma = np.exp(2 * (1 - similarity))
    theirs = crepes.ConformalRegressor()
    theirs.fit(residuals=truth - predicted, sigmas=sigma)
    at = np.linspace(0, 1, 11)
    bounds = theirs.predict_int(np.zeros(11), sigmas=np.exp(2 * (1 - at)), confidence=confidence)
    ours = Intervals.of_growth(2.0, np.sort(np.abs(truth - predicted) / sigma).astype(np.float32))
    np.testing.assert_allclose(ours.half_width(at, confidence), bounds[:, 1], rtol=1e-6)


@pytest.mark.parametrize("make", [molecules, levelling])
def test_nine_of_ten_new_molecules_are_inside_near_and_far(make) -> None:
    """Whether the error goes on shrinking with the similarity or stops."""
    by_bin = inside_by_bin(Intervals.fit(*make(4000)), *make(20_000, seed=1))
    assert ((by_bin > 0.86) & (by_bin < 0.94)).all(), by_bin


def test_a_scale_that_goes_on_shrinking_would_miss_the_near_ones() -> None:
    """What older packs do, and why there are steps now."""
    predicted, truth, similarity = levelling(4000)
    error, sigma = np.abs(truth - predicted), np.exp(1.5 * (1 - similarity))
    old = Intervals.of_growth(1.5, np.sort(error / sigma).astype(np.float32))
    assert inside_by_bin(old, *levelling(20_000, seed=1))[-1] < 0.85


def test_few_calibration_molecules_keep_the_promise() -> None:
    """Over many draws, all similarities together: the smallest rank that reaches 90 % of n + 1."""
    for n in (12, 30, 99, 100, 150):
        inside = []
        for seed in range(300):
            predicted, truth, similarity = levelling(n + 40, seed)
            intervals = Intervals.fit(predicted[:n], truth[:n], similarity[:n])
            inside.append(np.abs(truth - predicted)[n:] <= intervals.half_width(similarity[n:], 0.9))
        promised = np.ceil(0.9 * (n + 1)) / (n + 1)
        assert np.mean(inside) == pytest.approx(promised, abs=0.015)
        assert np.mean(inside) > 0.89


def test_the_width_has_steps_of_fifty_molecules() -> None:
    assert len(Intervals.fit(*molecules(99)).similarity) == 1, "too few for two steps"
    predicted, truth, similarity = molecules(4000)
    intervals = Intervals.fit(predicted, truth, similarity)
    np.testing.assert_allclose(intervals.similarity, np.arange(0.15, 1, 0.1), atol=0.01)
    assert (np.diff(intervals.log_sigma) < 0).all()
    np.testing.assert_allclose(np.diff(intervals.log_sigma), -0.2, atol=0.15)
    same = Intervals.fit(predicted, truth, np.full(4000, 0.4))
    assert np.unique(same.half_width(similarity, 0.9)).size == 1
    right = Intervals.fit(truth, truth, similarity)
    assert (right.half_width(similarity, 0.9) == 0).all()
    predicted = truth.copy()
    predicted[0] += 1  # the only error, without which its fold has none to set a scale by
    assert np.isfinite(Intervals.fit(predicted, truth, similarity).scores).all()


def test_one_wrong_value_bends_little() -> None:
    predicted, truth, similarity = levelling(400)
    before = Intervals.fit(predicted, truth, similarity).half_width(similarity, 0.9)
    truth[similarity.argmax()] += 20 * 0.3  # an error of the table
    after = Intervals.fit(predicted, truth, similarity).half_width(similarity, 0.9)
    assert (after / before).max() < 1.6
    assert (after / before).min() > 0.8


def test_no_interval_is_wider_near_than_far_unless_the_near_ones_are_clearly_worse() -> None:
    """Molecules that a fingerprint cannot tell from a training molecule may be harder than those at 0.95."""
    at = np.array([0.95, 1.0])
    near, same = Intervals.fit(*levelling(4000, worst=3.0)).half_width(at, 0.9)
    assert same > 2 * near
    near, same = Intervals.fit(*levelling(4000, worst=0.3)).half_width(at, 0.9)
    assert same < near / 2


def test_intervals_are_no_narrower_than_the_errors_of_training_molecules() -> None:
    predicted, truth, similarity = levelling(400)
    training_error = np.random.default_rng(2).normal(scale=0.5, size=2000)
    at = np.linspace(0, 1, 101)
    free, floored = (Intervals.fit(predicted, truth, similarity, error) for error in (np.zeros(0), training_error))
    floor = np.quantile(np.abs(training_error), 0.9)
    assert floor > free.half_width(at, 0.9).min()
    assert floor < floored.half_width(at, 0.9).min() < 1.1 * floor, "it holds for other training molecules too"
    np.testing.assert_array_equal(floored.half_width(at, 0.9).max(), free.half_width(at, 0.9).max())
    assert Intervals.fit(predicted, truth, similarity, np.array([NAN, -2.0])).training.tolist() == [2.0]


def test_known_numbers() -> None:
    nine = Intervals.fit(np.zeros(9), np.arange(-9.0, 0), np.ones(9))
    assert nine.scores.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert nine.scores.dtype == np.float32
    assert [nine.half_width(np.ones(1), c).item() for c in (1e-12, 0.1, 0.5, 0.55, 0.9)] == [1, 1, 5, 6, 9]
    got = Intervals.of_growth(2.0, nine.scores).half_width(np.array([1, 0.5]), 0.9)
    assert got.dtype == np.float32
    assert got.tolist() == pytest.approx([9, 9 * np.e])
    # 100 * 0.55 is 55 on paper and a little more in floating point.
    assert Intervals.of_growth(0.0, np.arange(1, 100, dtype=np.float32)).half_width(np.ones(1), 0.55).item() == 55


def test_too_few_molecules_for_the_promise() -> None:
    nine = Intervals.fit(np.zeros(9), np.ones(9), np.ones(9))
    assert nine.half_width(np.ones(2), 0.91).tolist() == [np.inf, np.inf]
    none = Intervals.fit(np.zeros(2), np.array([NAN, NAN]), np.ones(2))
    assert none.scores.shape == (0,)
    assert none.half_width(np.ones(1), 0.01).item() == np.inf


def test_molecules_without_a_true_value_are_left_out() -> None:
    predicted, truth, similarity = molecules(260)
    blank = np.where(np.arange(260) < 20, NAN, truth)
    some, all_known = Intervals.fit(predicted, blank, similarity), [x[20:] for x in (predicted, truth, similarity)]
    np.testing.assert_array_equal(some.log_sigma, Intervals.fit(*all_known).log_sigma)
    np.testing.assert_array_equal(some.scores, Intervals.fit(*all_known).scores)


@pytest.mark.parametrize("confidence", [0, 1, -0.1, 90, NAN, "0.9", None])
def test_a_confidence_that_is_none(confidence: Any) -> None:
    with pytest.raises(InputError, match=r"confidence: got .*, expected a number above 0 and below 1"):
        Intervals.fit(*molecules(20)).half_width(np.ones(1), confidence)


shares = st.floats(0.01, 0.99)


@given(st.integers(0, 400), st.tuples(shares, shares), st.tuples(shares, shares))
def test_wider_with_confidence_and_with_distance(n: int, confidences: tuple, similarities: tuple) -> None:
    intervals = Intervals.fit(*molecules(n, growth=4.0))
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
def test_one_class_only_says_nothing_of_the_other(label: float) -> None:
    for n in (1, 2, 300):
        assert Platt.fit(np.linspace(-1, 2, n), np.full(n, label)) == Platt(1.0, 0.0)


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
    training_error = np.array([0.1, -0.2])
    one = Intervals.fit(*molecules(300), training_error)
    parts = [one, Platt.fit(*logits_and_labels(40, 1, 0)), Intervals.fit(*molecules(0))]
    calibration = Calibration(parts, [0.25, 1 / 3, 0.0])
    stored = calibration.tensors()
    of_value = ("log_sigma", "scores", "similarity", "training")
    names = [f"{i}.{name}" for i in (0, 2) for name in of_value]
    assert sorted(stored) == sorted([*names, "1.platt", "thresholds"])
    back = Calibration.from_tensors(load(save(stored)), 3).select([2, 1, 0])
    assert back.thresholds == [0.0, 1 / 3, 0.25]
    empty, platt, intervals = back.parts
    assert platt == parts[1]
    assert isinstance(intervals, Intervals)
    assert isinstance(empty, Intervals)
    for name in of_value:
        np.testing.assert_array_equal(getattr(intervals, name), getattr(one, name))
        assert getattr(intervals, name).dtype == getattr(one, name).dtype
    assert len(empty.scores) == 0


def test_the_calibration_of_an_older_pack_gives_the_intervals_that_it_gave() -> None:
    scores = torch.arange(1.0, 20.0)
    stored = {"0.b": torch.tensor(1.5, dtype=torch.float64), "0.scores": scores, "thresholds": torch.zeros(1)}
    (part,) = Calibration.from_tensors(load(save(stored)), 1).parts
    assert isinstance(part, Intervals)
    at = np.linspace(0, 1, 7)
    np.testing.assert_allclose(part.half_width(at, 0.9), np.exp(1.5 * (1 - at)) * 18, rtol=1e-6)
    again = Calibration.from_tensors(Calibration([part], [0.0]).tensors(), 1).parts[0]
    assert isinstance(again, Intervals)
    np.testing.assert_array_equal(again.half_width(at, 0.9), part.half_width(at, 0.9))


def test_a_few_far_molecules_have_a_step_of_their_own() -> None:
    """The farthest are the hardest; joined with the next step, they would make it their own width."""
    rng = np.random.default_rng(0)
    similarity = np.concatenate([np.full(12, 0.15), rng.uniform(0.5, 1, 300)])
    error = rng.exponential(np.where(similarity < 0.2, 5.0, 1.0))
    intervals = Intervals.fit(error, np.zeros(312), similarity)
    far, near = intervals.half_width(np.array([0.15, 0.7]), 0.9)
    assert far > 3 * near
    joined = Intervals.fit(error[4:], np.zeros(308), similarity[4:])  # eight are too few
    assert joined.half_width(np.array([0.15]), 0.9) == joined.half_width(np.array([0.3]), 0.9)
