"""Error metrics of known numbers."""

from __future__ import annotations

import numpy as np
import pytest

from mora_lite.metrics import value_metrics

NAN = float("nan")


def metrics(predicted: list[float], true: list[float]) -> dict:
    return value_metrics(np.array(predicted, np.float32), np.array(true, np.float32))


def test_known_numbers() -> None:
    got = metrics([1, 2, 5], [1, 3, 3])
    assert got["n"] == 3
    assert got["mae"] == pytest.approx(1.0)
    assert got["rmse"] == pytest.approx((5 / 3) ** 0.5)
    assert got["r2"] == pytest.approx(1 - 5 / (8 / 3))


def test_a_perfect_answer_and_the_mean() -> None:
    assert metrics([1, 2, 3], [1, 2, 3]) == {"n": 3, "mae": 0.0, "rmse": 0.0, "r2": 1.0}
    assert metrics([2, 2, 2], [1, 2, 3])["r2"] == pytest.approx(0)


def test_pairs_with_a_missing_value_are_left_out() -> None:
    assert metrics([1, NAN, 3, 4], [2, 2, NAN, 4]) == metrics([1, 4], [2, 4])


def test_what_cannot_be_said_is_none() -> None:
    assert metrics([NAN], [1]) == {"n": 0, "mae": None, "rmse": None, "r2": None}
    assert metrics([], [])["mae"] is None
    assert metrics([1], [2]) == {"n": 1, "mae": 1.0, "rmse": 1.0, "r2": None}
    assert metrics([1, 2], [3, 3])["r2"] is None


def test_numbers_are_plain_and_added_in_double_precision() -> None:
    got = metrics([1e8] * 1000, [1e8 + 8] * 999 + [0])
    assert all(type(value) in (int, float) for value in got.values())
    assert got["mae"] == pytest.approx((999 * 8 + 1e8) / 1000)
