"""Metrics of known numbers, those of classes also as scikit-learn has them; and of groups of molecules."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import average_precision_score, brier_score_loss, roc_auc_score

from mora_lite.chem.molecules import scaffold_of
from mora_lite.training.metrics import (
    bin_numbers,
    by_domain,
    by_scaffold,
    by_similarity,
    calibration_table,
    class_metrics,
    coverage,
    value_metrics,
)

NAN = float("nan")
INF = float("inf")
BENZENE, PYRROLIDINE = "c1ccccc1", "C1CCNC1"


def metrics(predicted: list[float], true: list[float]) -> dict:
    return value_metrics(np.array(predicted, np.float32), np.array(true, np.float32))


def of_classes(probability: list[float], true: list[float]) -> dict:
    return class_metrics(np.array(probability, np.float32), np.array(true, np.float32))


def cover(low: list[float], high: list[float], true: list[float]) -> dict:
    return coverage(*(np.array(a, np.float32) for a in (low, high, true)))


def test_known_numbers() -> None:
    got = metrics([1, 2, 5], [1, 3, 3])
    assert got["n"] == 3
    assert got["mae"] == pytest.approx(1.0)
    assert got["rmse"] == pytest.approx((5 / 3) ** 0.5)
    assert got["r2"] == pytest.approx(1 - 5 / (8 / 3))


def test_a_perfect_answer_and_the_mean() -> None:
    assert metrics([1, 2, 3], [1, 2, 3]) == {"n": 3, "mae": 0.0, "rmse": 0.0, "r2": 1.0, "spearman": 1.0}
    assert metrics([2, 2, 2], [1, 2, 3])["r2"] == pytest.approx(0)


def test_pairs_with_a_missing_value_are_left_out() -> None:
    assert metrics([1, NAN, 3, 4], [2, 2, NAN, 4]) == metrics([1, 4], [2, 4])


def test_what_cannot_be_said_is_none() -> None:
    assert metrics([NAN], [1]) == {"n": 0, "mae": None, "rmse": None, "r2": None, "spearman": None}
    assert metrics([], [])["mae"] is None
    assert metrics([1], [2]) == {"n": 1, "mae": 1.0, "rmse": 1.0, "r2": None, "spearman": None}
    assert metrics([1, 2], [3, 3])["r2"] is None
    assert metrics([3, 3], [1, 2])["spearman"] is None


def test_the_rank_correlation_is_that_of_scipy() -> None:
    from scipy.stats import spearmanr

    true = np.random.default_rng(0).integers(0, 20, 100)
    predicted = true + np.random.default_rng(1).integers(0, 20, 100)
    assert metrics(predicted, true)["spearman"] == pytest.approx(spearmanr(predicted, true).statistic)
    assert metrics(-np.exp(predicted / 10), true)["spearman"] == pytest.approx(-metrics(predicted, true)["spearman"])


def test_numbers_are_plain_and_added_in_double_precision() -> None:
    got = metrics([1e8] * 1000, [1e8 + 8] * 999 + [0])
    assert all(type(got[name]) in (int, float) for name in ("n", "mae", "rmse", "r2"))
    assert got["mae"] == pytest.approx((999 * 8 + 1e8) / 1000)


def test_classes_of_known_numbers() -> None:
    # Three of the four pairs of a positive and a negative are in order; precision is 1 at the first hit, then 2/3.
    got = of_classes([0.9, 0.6, 0.4, 0.1], [1, 0, 1, 0])
    assert (got["n"], got["positives"]) == (4, 2)
    assert got["roc_auc"] == pytest.approx(3 / 4)
    assert got["pr_auc"] == pytest.approx((1 + 2 / 3) / 2)
    assert got["brier"] == pytest.approx((0.01 + 0.36 + 0.36 + 0.01) / 4)
    assert got["ece"] == pytest.approx(0, abs=1e-7)  # four molecules make one bin: mean 0.5 against a share of 0.5


@pytest.mark.parametrize("levels", [2, 5, 30, 100_000])
@pytest.mark.parametrize("n", [7, 300])
def test_classes_agree_with_scikit_learn_whatever_the_ties(n: int, levels: int) -> None:
    random = np.random.default_rng(n + levels)
    for _ in range(20):
        probability = (random.integers(0, levels, n) / (levels - 1)).astype(np.float32)
        true = np.append([0, 1], random.random(n - 2) < probability[2:]).astype(np.float32)
        got = class_metrics(probability, true)
        assert got["positives"] == true.sum()
        assert got["roc_auc"] == pytest.approx(roc_auc_score(true, probability), abs=1e-12)
        assert got["pr_auc"] == pytest.approx(average_precision_score(true, probability), abs=1e-12)
        assert got["brier"] == pytest.approx(brier_score_loss(true, probability.astype(np.float64)))


def test_a_probability_that_says_nothing_has_the_area_of_guessing() -> None:
    got = of_classes([0.3] * 10, [1, 0, 0] * 3 + [1])
    assert got["roc_auc"] == 0.5
    assert got["pr_auc"] == pytest.approx(0.4)


def test_of_classes_too_what_cannot_be_said_is_none() -> None:
    assert of_classes([NAN, 0.5], [1, NAN]) == {
        "n": 0,
        "positives": 0,
        "roc_auc": None,
        "pr_auc": None,
        "brier": None,
        "ece": None,
    }
    for only in (0, 1):
        got = of_classes([0.25, 0.75], [only, only])
        assert (got["roc_auc"], got["pr_auc"]) == (None, None)
        assert got["brier"] == pytest.approx((0.25**2 + 0.75**2) / 2)
    assert of_classes([0.9, NAN, 0.2, 0.4], [1, 0, NAN, 0]) == of_classes([0.9, 0.4], [1, 0])


def test_log_odds_and_words_are_bugs_and_not_figures() -> None:
    with pytest.raises(AssertionError, match="0 to 1"):
        of_classes([-2.0], [1])
    with pytest.raises(AssertionError, match="0 and 1"):
        of_classes([0.5], [2])


def test_calibration_agrees_with_scikit_learn() -> None:
    random = np.random.default_rng(0)
    probability = random.random(2000) ** 2
    true = (random.random(2000) < probability**1.5).astype(np.float64)
    rows = calibration_table(probability, true)
    observed, predicted = calibration_curve(true, probability, n_bins=10)
    assert [row["predicted"] for row in rows] == pytest.approx(list(predicted))
    assert [row["observed"] for row in rows] == pytest.approx(list(observed))
    assert sum(row["n"] for row in rows) == 2000
    gaps = np.abs(predicted - observed) * [row["n"] for row in rows]
    assert class_metrics(probability, true)["ece"] == pytest.approx(gaps.sum() / 2000)
    assert class_metrics(probability, true)["ece"] > 0.03


def test_calibration_leaves_out_empty_bins_and_keeps_both_ends() -> None:
    rows = calibration_table(np.array([0.0, 0.05, 1.0, 0.95, NAN]), np.array([0.0, 1.0, 1.0, 1.0, 1.0]), bins=4)
    assert rows == [
        {"from": 0.0, "to": 0.25, "n": 2, "predicted": 0.025, "observed": 0.5},
        {"from": 0.75, "to": 1.0, "n": 2, "predicted": 0.975, "observed": 1.0},
    ]


def test_few_molecules_are_not_spread_over_ten_bins() -> None:
    # One bin sees only that half of them are positive, as predicted; two bins see that it is half at either end.
    probability, true = np.repeat([0.25, 0.75], 10), np.tile([0.0, 1.0], 10)
    assert class_metrics(probability, true)["ece"] == pytest.approx(0.25)
    assert class_metrics(probability[1:19], true[1:19])["ece"] == pytest.approx(0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_edge_belongs_to_the_bin_above_it_in_any_precision(dtype: type) -> None:
    edges = [i / 10 for i in range(11)]
    assert bin_numbers(np.array(edges, dtype), edges).tolist() == [*range(10), 9]
    assert bin_numbers(np.array([-0.1, 1.1, NAN], dtype), edges).tolist() == [-1, 10, 10]


def test_coverage_of_known_ranges() -> None:
    assert cover([0, 0, 0, NAN], [1, 1, 4, 1], [0, 2, 4, 0]) == {
        "n": 3,
        "inside": pytest.approx(2 / 3),
        "mean_width": 2.0,
    }
    assert cover([0], [1], [NAN]) == {"n": 0, "inside": None, "mean_width": None}


def test_an_infinite_range_covers_everything_and_has_no_mean_width() -> None:
    assert cover([-INF, 0], [INF, 1], [1e30, 3]) == {"n": 2, "inside": 0.5, "mean_width": None}
    assert cover([0, 0], [INF, 1], [7, 1]) == {"n": 2, "inside": 1.0, "mean_width": None}


# --- of groups of molecules


def rows_of(rows: np.ndarray) -> dict:
    """A metric that names the molecules of the group."""
    assert len(rows), "nothing to say about nothing"
    return {"rows": rows.tolist()}


def test_a_scaffold_is_rings_and_what_links_them() -> None:
    scaffolds = list(map(scaffold_of, ["Cc1ccccc1", "c1ccccc1CCC2CC2", "O=C1CCCN1CC", "CCO", "[Na+].[Cl-]"]))
    assert scaffolds == [BENZENE, "c1ccc(CCC2CC2)cc1", "O=C1CCCN1", "", ""]


def test_mirror_images_have_one_scaffold() -> None:
    one, other = map(scaffold_of, ["C1C[C@H]2CCC[C@@H]2N1", "C1C[C@@H]2CCC[C@H]2N1"])
    assert one == other
    assert "@" not in one


def test_scaffolds_seen_in_training_come_first_then_the_most_frequent() -> None:
    of = [BENZENE] * 5 + [""] * 7 + [PYRROLIDINE] * 4 + ["C1CC1"] * 6
    got = by_scaffold(rows_of, of, {BENZENE, PYRROLIDINE, "C1CCC1"})
    assert got == [
        {"scaffold": "seen in training", "n": 9, "rows": [*range(5), *range(12, 16)]},
        {"scaffold": "not seen in training", "n": 13, "rows": [*range(5, 12), *range(16, 22)]},
        {"scaffold": "no ring", "n": 7, "rows": [*range(5, 12)]},
        {"scaffold": "C1CC1", "n": 6, "rows": [*range(16, 22)]},
        {"scaffold": BENZENE, "n": 5, "rows": [*range(5)]},  # pyrrolidine has only four molecules
    ]
    assert len(by_scaffold(rows_of, [f"C{i}" for i in range(12)] * 5, set())) == 2 + 10


def test_a_group_without_molecules_has_no_figures() -> None:
    got = by_scaffold(rows_of, [BENZENE] * 2, {BENZENE})
    assert got == [
        {"scaffold": "seen in training", "n": 2, "rows": [0, 1]},
        {"scaffold": "not seen in training", "n": 0},
    ]
    assert [row["n"] for row in by_scaffold(rows_of, [], set())] == [0, 0]


def test_n_is_the_molecules_whose_value_is_known() -> None:
    true = np.array([1, 2, NAN, 4, 5, 6, NAN, NAN, NAN, NAN])
    got = by_scaffold(lambda rows: value_metrics(np.ones(len(rows)), true[rows]), [BENZENE] * 5 + [""] * 5, {BENZENE})
    assert [(row["scaffold"], row["n"]) for row in got] == [("seen in training", 4), ("not seen in training", 1)]
    assert got[0]["mae"] == 2.0
    similarity = np.repeat([0.25, 0.95], [5, 5])
    got = by_similarity(lambda rows: value_metrics(np.ones(len(rows)), true[rows] * (rows < 5)), similarity)
    assert [(row["from"], row["n"]) for row in got] == [(0.2, 4), (0.8, 1)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_similarity_bins_hold_their_lower_edge_and_the_last_one_both(dtype: type) -> None:
    similarity = np.array([0, 0.1, 0.2, 0.7, 0.79, 0.8, 1, NAN], dtype=dtype)
    assert by_similarity(rows_of, similarity) == [
        {"from": 0.0, "to": 0.2, "n": 2, "rows": [0, 1]},
        {"from": 0.2, "to": 0.3, "n": 1, "rows": [2]},
        {"from": 0.7, "to": 0.8, "n": 2, "rows": [3, 4]},
        {"from": 0.8, "to": 1.0, "n": 2, "rows": [5, 6]},
    ]


def test_inside_and_outside_of_the_domain() -> None:
    assert by_domain(rows_of, np.array([True, False, True])) == [
        {"domain": "inside", "n": 2, "rows": [0, 2]},
        {"domain": "outside", "n": 1, "rows": [1]},
    ]
    assert by_domain(rows_of, np.array([True]))[1] == {"domain": "outside", "n": 0}
