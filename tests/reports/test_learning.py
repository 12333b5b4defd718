"""Learning curves: what is drawn of each stage, and what its sentence says."""

from __future__ import annotations

import re
from typing import Any

import pytest

from mora_lite.reports.learning import learning_figures


def stage(errors: list[float | None], name: str = "encoder", best: float | None = None) -> dict[str, Any]:
    """best: None for the lowest of the errors."""
    known = [error for error in errors if error is not None]
    curve = [[epoch, 1 / epoch, error] for epoch, error in enumerate(errors, 1)]
    return {"stage": name, "best_error": best or min(known, default=None), "curve": curve}


@pytest.mark.parametrize(
    ("errors", "best", "says"),
    [
        (
            [0.9, 0.7, 0.8, 0.85],
            None,
            "Lowest in epoch 2 of 4, at 0.700 (dot); the weights of that epoch were kept. Later",
        ),
        ([0.9, 0.8, 0.7, 0.6], None, "It was still falling: more epochs may help."),
        ([0.9, 0.8, 0.7, 0.6999], None, "the weights of that epoch were kept.<"),
        ([0.9, 0.8], 0.5, "No epoch was better than the start, whose error is 0.500 (dashed): the start was kept."),
        ([0.5], None, "Lowest in epoch 1 of 1"),
        ([None, None], None, "No validation molecule has a value, so the last epoch was kept."),
    ],
)
def test_a_sentence_says_which_epoch_was_kept(errors, best: float | None, says: str) -> None:
    text = learning_figures([stage(errors, best=best)])
    assert says in text
    assert text.count("Mean over the training molecules, epoch by epoch.</p>") == 1


def test_several_networks_are_lines_of_one_chart() -> None:
    members = [stage([0.9, 0.8 - i / 10], f"member {i}") for i in (1, 2, 3)]
    own = [stage([0.7], "member 1 task 2")]
    text = learning_figures([*members, *own, stage([0.6], "encoder"), stage([0.5], "mora")])
    titles = re.findall(r"<h4>(.*?)</h4>", text)
    assert [title.partition(":")[0] for title in titles[::2]] == [
        "3 networks", "Encoder alone", "The whole, with the language model",
    ]  # fmt: skip
    assert len(re.findall('class="line thin"', text)) == 6


def test_a_pack_that_records_no_curve_has_no_section() -> None:
    assert learning_figures([]) == ""
    assert learning_figures([{"stage": "encoder", "epochs": 3, "best_error": 0.5}]) == ""
