"""Tables of metrics on a terminal: blanks, long texts, narrow windows."""

from __future__ import annotations

import io

from rich.console import Console

from mora_lite.cli.tables import print_rows


def printed(rows: list[dict], width: int = 80, title: str = "homo") -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    print_rows(title, rows, console)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]


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
