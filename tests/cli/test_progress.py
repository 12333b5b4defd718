"""Progress on stderr where there is no bar."""

from __future__ import annotations

import time

import pytest

from mora_lite.cli.progress import progress_bar
from mora_lite.machine.progress import report
from mora_lite.tables.library import TypedSmiles


def test_rows_that_take_long_say_how_far_the_next_ones_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("mora_lite.cli.progress.FIRST_SECONDS", 0.1)
    monkeypatch.setattr("mora_lite.cli.progress.NEXT_SECONDS", 0.1)
    with progress_bar(TypedSmiles(["C"] * 4)):
        report("answering rows", 1, 4)
        time.sleep(0.3)
    assert "0 rows, answering rows: 1 of 4" in capsys.readouterr().err.splitlines()


def test_the_rate_is_that_of_the_rows_that_are_not_kept_from_before(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("mora_lite.cli.progress.FIRST_SECONDS", 0.1)
    library = TypedSmiles(["C"] * 1000)
    with progress_bar() as show:
        library.n_kept = 500
        show(500, library)
        time.sleep(0.2)
    assert "500 rows, 50 % of the input, 0 molecules/s" in capsys.readouterr().err.splitlines()
