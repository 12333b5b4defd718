"""Figures of texts, against values worked out by hand and against other implementations."""

from __future__ import annotations

import math

import pytest

from mora_lite.text_metrics import bleu, edit_distance, molecule_metrics, rouge_l, text_metrics


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [("", "", 0), ("abc", "abc", 0), ("kitten", "sitting", 3), ("", "abc", 3), ("ab", "ba", 2)],
)
def test_edit_distance(one: str, other: str, expected: int) -> None:
    assert edit_distance(one, other) == edit_distance(other, one) == expected


def test_bleu_by_hand() -> None:
    assert bleu(["abcdef"], ["abcdef"]) == pytest.approx(1.0)
    assert bleu(["abcd"], ["xyzw"]) == 0.0
    # Runs of 1: 4 of 5; of 2: 2 of 4. Five items against six wanted: exp(1 - 6 / 5).
    answer, target = ["the", "cat", "sat", "on", "mats"], ["the", "cat", "on", "sat", "on", "it"]
    assert bleu([answer], [target], 2) == pytest.approx(math.exp(1 - 6 / 5) * math.sqrt(4 / 5 * 2 / 4))
    # A run counts no more often than the target has it.
    assert bleu([["a"] * 4], [["a", "b", "c", "d"]], 1) == pytest.approx(1 / 4)


def test_rouge_l_by_hand() -> None:
    assert rouge_l("abcd", "axcd") == pytest.approx(3 / 4)
    assert rouge_l("ab", "bacd") == pytest.approx(2 * 1 / 6)
    assert rouge_l([], ["a"]) == 0.0


def test_molecules_count_in_any_order_and_bad_text_counts_as_wrong() -> None:
    figures = molecule_metrics(["OCC", "C1CC", "c1ccccc1C", "CCC"], ["CCO", "C1CC1", "Cc1ccccc1", "CCCC"])
    assert figures["exact"] == 0.5
    assert figures["valid"] == 0.75
    assert figures["levenshtein"] == (0 + 1 + 0 + 1) / 4
    assert 0 < figures["bleu"] < 1
    assert 0.6 < figures["morgan"] < 1  # two are equal, one is near, the bad one has no part in it


def test_no_valid_answer_has_no_similarity() -> None:
    figures = molecule_metrics(["x", "("], ["C", "CC"])
    assert figures["valid"] == figures["exact"] == 0
    assert math.isnan(figures["rdk"])


def test_descriptions_are_compared_by_words() -> None:
    figures = text_metrics(["An alcohol.", "a ring of six"], ["An alcohol.", "A ring of five"])
    assert figures["exact"] == 0.5
    assert figures["rouge_l"] == pytest.approx((1 + 3 / 4) / 2)
    # Runs of 1: 6 of 7; of 2: 4 of 5; lengths are equal.
    assert figures["bleu2"] == pytest.approx(math.sqrt(6 / 7 * 4 / 5))
