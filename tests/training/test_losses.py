"""The loss and the validation error, by numbers worked out by hand."""

from __future__ import annotations

from math import exp, log, sqrt

import numpy as np
import pytest
import torch

from mora_lite.training.losses import MAX_POSITIVE_WEIGHT, TargetStats, task_loss, validation_error

NAN = float("nan")


def values(*weights: float) -> TargetStats:
    """Columns of values with these weights."""
    return TargetStats.of(np.zeros((2, len(weights)), np.float32), [False] * len(weights), weights)


def one_class(positives: int, negatives: int) -> tuple[TargetStats, torch.Tensor]:
    """A column of classes, and what is known of it."""
    targets = np.array([[1.0]] * positives + [[0.0]] * negatives, np.float32)
    return TargetStats.of(targets, [True], [1.0]), torch.from_numpy(targets)


def surprise(p: float) -> float:
    return -log(p)


def logistic(z: float) -> float:
    return 1 / (1 + exp(-z))


# --- values


def test_the_loss_of_values_is_a_weighted_mean_of_absolute_errors() -> None:
    scores = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    targets = torch.tensor([[0.0, 0.0], [3.0, -2.0]])
    assert task_loss(scores, targets, values(1, 1)).item() == pytest.approx((1 + 0 + 3 + 4) / 4)
    assert task_loss(scores, targets, values(1, 3)).item() == pytest.approx((1 + 3 + 3 * 4) / 8)
    assert task_loss(scores, targets, values(2, 6)).item() == pytest.approx((1 + 3 + 3 * 4) / 8)


def test_huber_squares_small_errors_and_leaves_large_ones_straight() -> None:
    errors = torch.tensor([[0.5], [-0.5], [2.0], [0.0]])
    nothing = torch.zeros(4, 1)
    expected = (2 * 0.5**2 / 2 + (2.0 - 0.5) + 0) / 4
    assert task_loss(errors, nothing, values(1), huber=1.0).item() == pytest.approx(expected)
    narrow = (2 * (0.5 - 0.05) + (2.0 - 0.05)) / 4
    assert task_loss(errors, nothing, values(1), huber=0.1).item() == pytest.approx(narrow)


def test_missing_values_count_neither_above_nor_below() -> None:
    scores = torch.tensor([[1.0, 5.0], [7.0, 2.0]], requires_grad=True)
    targets = torch.tensor([[0.0, NAN], [NAN, 0.0]])
    loss = task_loss(scores, targets, values(1, 2))
    assert loss.item() == pytest.approx((1 + 2 * 2) / 3)
    loss.backward()
    assert scores.grad.tolist() == [[pytest.approx(1 / 3), 0], [0, pytest.approx(2 / 3)]]


@pytest.mark.parametrize("classes", [[False, False], [True, True], [False, True]])
def test_a_batch_without_any_value_has_no_gradient(classes: list[bool]) -> None:
    stats = TargetStats.of(np.array([[0, 1], [1, 0]], np.float32), classes, [1, 1])
    scores = torch.ones(3, 2, requires_grad=True)
    loss = task_loss(scores, torch.full((3, 2), NAN), stats, huber=1.0)
    loss.backward()
    assert loss.item() == 0
    assert scores.grad.abs().sum() == 0


# --- classes


def test_the_loss_of_classes_is_cross_entropy_on_top_of_the_training_share() -> None:
    stats, targets = one_class(2, 2)
    assert (stats.prior.item(), stats.positive_weight.item()) == (0, 1)
    scores = torch.tensor([[1.0], [-2.0], [0.0], [3.0]])
    right = [logistic(1), logistic(-2), 1 - logistic(0), 1 - logistic(3)]
    assert task_loss(scores, targets, stats).item() == pytest.approx(sum(map(surprise, right)) / 4)


def test_a_rare_positive_weighs_the_root_of_the_odds_against_it() -> None:
    stats, targets = one_class(1, 9)
    assert stats.prior.item() == pytest.approx(log(1 / 9))
    assert stats.positive_weight.item() == pytest.approx(3)
    p = logistic(0.5 + log(1 / 9) + log(3))  # three times the odds, which are taken back out of the score
    expected = (3 * surprise(p) + 9 * surprise(1 - p)) / 10
    assert task_loss(torch.full((10, 1), 0.5), targets, stats).item() == pytest.approx(expected)


@pytest.mark.parametrize(("positives", "negatives"), [(1, 9), (5, 5), (9, 1), (1, 999)])
def test_weighing_positives_leaves_the_odds_true(positives: int, negatives: int) -> None:
    """The best constant score is 0: the odds of the training share, not odds made larger by the weight."""
    stats, targets = one_class(positives, negatives)
    score = torch.zeros(1, requires_grad=True)
    task_loss(score.expand(len(targets), 1), targets, stats).backward()
    assert score.grad.item() == pytest.approx(0, abs=1e-6)
    tried = [task_loss(torch.full_like(targets, s), targets, stats).item() for s in (-0.5, 0.0, 0.5)]
    assert tried[1] < min(tried[0], tried[2])


@pytest.mark.parametrize(("positives", "negatives", "weight"), [(9, 1, 1), (1, 999, MAX_POSITIVE_WEIGHT), (1, 4, 2)])
def test_the_weight_of_positives_is_from_1_to_10(positives: int, negatives: int, weight: float) -> None:
    stats, _ = one_class(positives, negatives)
    assert stats.positive_weight.item() == pytest.approx(weight)


def test_stats_are_taken_from_the_known_cells() -> None:
    targets = np.array([[1, 5], [0, NAN], [0, 7], [NAN, 9], [0, 11], [0, 13]], np.float32)
    stats = TargetStats.of(targets, [True, False], [1, 2])
    assert stats.classes.tolist() == [True, False]
    assert stats.weights.tolist() == [1, 2]
    assert stats.prior.tolist() == [pytest.approx(log(1 / 4)), 0]
    assert stats.positive_weight.tolist() == [pytest.approx(2), 1]


def test_values_and_classes_stand_side_by_side() -> None:
    stats = TargetStats.of(np.array([[0, 0], [0, 1]], np.float32), [False, True], [1, 3])
    scores, targets = torch.tensor([[2.0, 1.0], [0.0, 1.0]]), torch.tensor([[0.5, NAN], [NAN, 1.0]])
    expected = (1.5 + 3 * surprise(logistic(1))) / 4
    assert task_loss(scores, targets, stats).item() == pytest.approx(expected)


# --- the validation error


def test_the_error_of_values_is_the_root_mean_square_of_each_task() -> None:
    scores = torch.tensor([[1.0, 0.0], [3.0, 2.0], [9.0, 0.0]])
    targets = torch.tensor([[0.0, 0.0], [0.0, -2.0], [NAN, NAN]])
    expected = (sqrt((1 + 9) / 2) + sqrt((0 + 16) / 2)) / 2
    assert validation_error(scores, targets, values(1, 5)) == pytest.approx(expected), "weights take no part"


def test_the_error_of_classes_is_relative_and_does_not_mind_being_too_sure() -> None:
    """As Platt's calibration will mend it: order counts, size and shift of the scores do not."""
    stats, _ = one_class(1, 3)
    rng = np.random.default_rng(0)
    log_odds = rng.standard_normal((4000, 1)).astype(np.float32)
    targets = torch.from_numpy((rng.random((4000, 1)) < 1 / (1 + np.exp(-log_odds))).astype(np.float32))
    scores = torch.from_numpy(log_odds)
    share = targets.mean().item()
    chance = 1 / (1 + np.exp(-log_odds))
    truly = -np.log(np.where(targets.numpy() == 1, chance, 1 - chance)).mean()
    expected = truly / (share * surprise(share) + (1 - share) * surprise(1 - share))
    assert expected < 0.9
    for changed in (scores, 5 * scores + 3, scores / 5):
        assert validation_error(changed, targets, stats) == pytest.approx(expected, abs=0.01)
    assert validation_error(-scores, targets, stats) > 0.99, "the wrong way round tells nothing"


def test_the_training_mean_alone_has_an_error_of_1() -> None:
    rng = np.random.default_rng(0)
    targets = np.stack([rng.standard_normal(1000), rng.random(1000) < 0.1], axis=1).astype(np.float32)
    stats = TargetStats.of(targets, [False, True], [1, 1])
    assert validation_error(torch.zeros(1000, 2), torch.from_numpy(targets), stats) == pytest.approx(1, abs=0.05)


def test_tasks_without_a_value_are_left_out_of_the_error() -> None:
    scores, targets = torch.tensor([[1.0, 0.0]]), torch.tensor([[3.0, NAN]])
    assert validation_error(scores, targets, values(1, 1)) == pytest.approx(2)
    assert np.isnan(validation_error(scores, torch.full((1, 2), NAN), values(1, 1)))


def test_scores_that_are_no_numbers_have_no_error() -> None:
    """Of weights that training drove to infinity: no epoch of theirs is the best."""
    stats = TargetStats.of(np.array([[0, 0], [1, 1], [2, 0]], np.float32), [False, True], [1, 1])
    targets = torch.tensor([[0.0, 0.0], [1.0, 1.0], [2.0, 0.0]])
    for odd in (NAN, float("inf")):
        for column in (0, 1):
            scores = torch.zeros(3, 2)
            scores[1, column] = odd
            assert np.isnan(validation_error(scores, targets, stats))
