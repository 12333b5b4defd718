"""The page of answers: drawn reactions, probabilities, checks, and nothing that a text could smuggle in."""

from __future__ import annotations

import re
from pathlib import Path

from mora_lite.status import StatusCounts
from mora_lite.text.report import MAX_DRAWN, MAX_ROWS, AnswersReport
from mora_lite.text.stream import Answered

ROWS = [
    Answered(
        source="CC(=O)O.CCO",
        question="<b>What?</b>",
        direction="forward",
        answers=["CCOC(C)=O", "CCO"],
        probabilities=[0.75, 0.125],
        checks={"balanced": [True, False]},
        agreement=0.875,
    ),
    Answered("no_molecule", "RDKit cannot read the answer '<script>'", source="C"),
    Answered("unparsable", "not a valid SMILES"),
    Answered(source="CO", answers=["<i>an alcohol</i>"], probabilities=[1.0]),
]


def write_report(path: Path, metadata: dict[str, str], rows: list[Answered]) -> str:
    report, counts = AnswersReport(path), StatusCounts()
    for at in range(0, len(rows), 150):
        report.add(rows[at : at + 150])
    counts.count([row.status for row in rows], [row.error for row in rows])
    report.write(metadata, counts)
    return path.read_text(encoding="utf-8")


def test_reactions_are_drawn_beside_their_checks(tmp_path: Path) -> None:
    page = write_report(tmp_path / "r.html", {"Pack": "<reactions>"}, ROWS)
    assert page.count('<svg class="molecule"') == 2 + 2 + 1 + 1
    for text in ("0.750", "0.125", "balanced", "not balanced", "agreement 88%", "4 rows, 2 ok", "&lt;reactions&gt;"):
        assert text in page
    assert "default-src 'none'" in page
    assert "--paper" in page, "the look of the other report"
    for unsafe in ("<script", "<b>What", "<i>an"):
        assert unsafe not in page
    assert not re.search(r'(src|href)=(?!"data:,")', page), "nothing is fetched"


def test_long_tables_and_long_sets_are_cut(tmp_path: Path) -> None:
    rows = [Answered(source=".".join(["C"] * 30), direction="forward", answers=["C"], probabilities=[1.0])] * 300
    page = write_report(tmp_path / "r.html", {}, rows)
    assert page.count("<svg") == MAX_ROWS * (MAX_DRAWN + 1)
    assert "300 rows, 300 ok; the first 200 are shown" in page
