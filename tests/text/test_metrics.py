"""Figures of texts, against values worked out by hand and against other implementations."""

from __future__ import annotations

import math

import pytest

from mora_lite.text import metrics as text_metrics_module
from mora_lite.text.metrics import (
    bleu,
    edit_distance,
    meteor,
    meteor_name,
    molecule_metrics,
    rouge_l,
    rouge_n,
    text_metrics,
)


def words(text: str) -> list[str]:
    return text.split()


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


def test_rouge_n_by_hand() -> None:
    # Five words against six; in common: the (2 times of 2 and 3), cat, sat.
    answer, target = words("the cat sat the end"), words("the cat the sat the mat")
    assert rouge_n(answer, target, 1) == pytest.approx(2 * 4 / 11)
    assert rouge_n(answer, target, 2) == pytest.approx(2 * 2 / 9)  # "the cat" and "sat the", of 4 and 5 pairs
    assert rouge_n(["a"], ["a"], 2) == 0.0


@pytest.mark.parametrize(
    ("answer", "target", "expected"),
    [
        # One chunk of six matches, all of both: 1 - 0.5 * (1 / 6) ** 3.
        ("the cat sat on the mat", "the cat sat on the mat", 1 - 0.5 / 216),
        # Six matches in three chunks: the cat | sat | on the mat.
        ("on the mat sat the cat", "the cat sat on the mat", 1 - 0.5 * (3 / 6) ** 3),
        # Six of seven and six of six, two chunks: 10 P R / (R + 9 P) with P = 6 / 7.
        ("the cat was sat on the mat", "the cat sat on the mat", (60 / 7) / (1 + 54 / 7) * (1 - 0.5 / 27)),
        # One of two and one of four.
        ("a ring", "one ring of six", 10 / 8 / (1 / 4 + 9 / 2) * 0.5),
        ("a", "b", 0.0),
        ("", "b", 0.0),
    ],
)
def test_meteor_by_hand(answer: str, target: str, expected: float) -> None:
    """The first three are well known examples: 0.9977, 0.9375 and 0.9654."""
    assert meteor(words(answer), words(target)) == pytest.approx(expected)


def test_meteor_matches_stems_where_there_is_a_stemmer(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("snowballstemmer")
    one, other = words("it inhibits acids"), words("it inhibited acid")
    assert meteor_name() == "meteor"
    assert meteor(one, other) == pytest.approx(1 - 0.5 / 27)
    # An equal word goes before one of equal stem, though that comes first.
    assert meteor(["acid"], ["acids", "acid"]) == meteor(["acid"], ["x", "acid"])
    monkeypatch.setattr(text_metrics_module, "_stemmer", lambda: None)
    assert meteor_name() == "meteor_exact"
    assert meteor(one, other) == pytest.approx(1 / 3 * 0.5)
    assert "meteor_exact" in text_metrics(["a"], ["a"])


def test_meteor_takes_long_runs_first() -> None:
    # The first "a" of the target is not the one that leaves the fewest chunks.
    assert meteor(words("a b c"), words("a x a b c")) == pytest.approx(10 * 3 / 5 / (3 / 5 + 9) * (1 - 0.5 / 27))


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
    assert figures["rouge_1"] == pytest.approx((1 + 3 / 4) / 2)
    assert figures["rouge_2"] == pytest.approx((1 + 2 / 3) / 2)
    assert figures[meteor_name()] == pytest.approx((1 - 0.5 / 27 + 3 / 4 * (1 - 0.5 / 27)) / 2)
