"""Whatever the rows hold, each is a row of the result with a status that has a name; no crash, no hang."""

from __future__ import annotations

import pytest
from fuzz_rows import fuzz_rows

from mora_lite.chem.featurizer import Featurizer
from mora_lite.machine.workers import WorkerPool
from mora_lite.tables.library import Window
from mora_lite.tables.parsed import ParsedWindow, RdkitParser, parse_window

KNOWN = {"ok", "empty", "unparsable", "too_large"}
PATIENCE = 120.0  # seconds for one row; a busy machine is no fault


@pytest.fixture
def windows() -> list[Window]:
    """1,500 rows; `benchmarks/fuzz_screen.py` takes more."""
    rows = fuzz_rows(1500)
    return [Window(1 + start, rows[start : start + 250]) for start in range(0, 1500, 250)]


def test_any_rows_come_out_as_rows_of_a_known_status(windows: list[Window]) -> None:
    with WorkerPool[Window, ParsedWindow](1, RdkitParser, (Featurizer(),), PATIENCE) as workers:
        results = list(workers.results(iter(windows)))
    for window, rows in zip(windows, results, strict=True):
        assert rows.first_row == window.first_row
        assert rows.names == [record.name for record in window.records]
        assert set(rows.status) <= KNOWN
        assert len(rows.graphs) == len(rows.bits) == rows.status.count("ok")
        assert not any("\n" in text for text in rows.smiles + rows.error)
    assert {status for rows in results for status in rows.status} >= {"ok", "unparsable", "too_large"}
    again = parse_window(windows[0])
    assert (again.status, again.error) == (results[0].status, results[0].error)
