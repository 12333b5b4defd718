"""Where a model is good: groups of molecules by scaffold, similarity and domain, and how a terminal shows them."""

from __future__ import annotations

import io

import numpy as np
import pytest
from rich.console import Console

from mora_lite.cli.tables import print_rows
from mora_lite.training.metrics import by_domain, by_scaffold, by_similarity, scaffolds, value_metrics

NAN = float("nan")
BENZENE, PYRROLIDINE = "c1ccccc1", "C1CCNC1"


def rows_of(rows: np.ndarray) -> dict:
    """A figure that tells which molecules were asked about."""
    assert len(rows), "nothing to say about nothing"
    return {"rows": rows.tolist()}


def printed(rows: list[dict], width: int = 80, title: str = "homo") -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    print_rows(title, rows, console)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]


def test_a_scaffold_is_rings_and_what_links_them() -> None:
    assert scaffolds(["Cc1ccccc1", "c1ccccc1CCC2CC2", "O=C1CCCN1CC"]) == [BENZENE, "c1ccc(CCC2CC2)cc1", "O=C1CCCN1"]
    assert scaffolds(["CCO", "[Na+].[Cl-]"]) == ["", ""]
    assert scaffolds([]) == []


def test_mirror_images_have_one_scaffold() -> None:
    one, other = scaffolds(["C1C[C@H]2CCC[C@@H]2N1", "C1C[C@@H]2CCC[C@H]2N1"])
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
    assert by_scaffold(rows_of, of, {BENZENE, PYRROLIDINE, "C1CCC1"}, largest=1) == got[:3]


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
    assert [row["n"] for row in by_similarity(rows_of, similarity, (0, 0.5, 1))] == [3, 4]


def test_inside_and_outside_of_the_domain() -> None:
    assert by_domain(rows_of, np.array([True, False, True])) == [
        {"domain": "inside", "n": 2, "rows": [0, 2]},
        {"domain": "outside", "n": 1, "rows": [1]},
    ]
    assert by_domain(rows_of, np.array([True]))[1] == {"domain": "outside", "n": 0}


def test_a_terminal_shows_rows_with_blanks_for_what_is_not_known() -> None:
    rows = [{"scaffold": "c1cc[nH]c1", "n": 12, "roc_auc": 0.912345}, {"scaffold": "no ring", "n": 0, "roc_auc": None}]
    assert printed([*rows, {"scaffold": "C1CC1", "n": 7, "brier": 1e-5}], title="p [Ha]") == [
        "p [Ha]",
        "scaffold    n roc auc brier",
        "c1cc[nH]c1 12  0.9123",
        "no ring     0",
        "C1CC1       7         1e-05",
    ]


def test_long_scaffolds_are_cut_and_numbers_are_not() -> None:
    figures = dict.fromkeys(["mae", "rmse", "r2", "mean_width", "encoder_mae"], -1.23456e-05)
    lines = printed([{"scaffold": "C1CC1" * 30, "n": 1234, **figures}, {"scaffold": "no ring", "n": 5, **figures}])
    assert max(map(len, lines)) <= 80
    assert sum(line.count("-1.235e-05") for line in lines) == 10
    assert any(line.startswith("C1CC1C1") and "…" in line for line in lines)
    narrow = printed([{"scaffold": "C1CC1" * 30, "n": 1234, **figures}], width=40)
    assert "".join(narrow).count("…") == 1
    assert "".join(narrow).count("-1.235") == 5
    assert "".join(narrow).count("e-05") == 5
    wide = printed([{"scaffold": "C1CC1" * 30, "n": 1234, **figures}], width=300)
    assert "C1CC1" * 30 in wide[-1]


def test_no_rows_print_the_title_alone() -> None:
    assert [line for line in printed([]) if line] == ["homo"]
