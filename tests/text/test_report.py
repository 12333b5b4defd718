"""The page of answers: drawn reactions, probabilities, checks, and nothing that a text could smuggle in."""

from __future__ import annotations

import re
from pathlib import Path

from mora_lite.text.report import MAX_DRAWN, MAX_ROWS, write_answers_report
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


def test_reactions_are_drawn_beside_their_checks(tmp_path: Path) -> None:
    write_answers_report(tmp_path / "r.html", {"Pack": "<reactions>"}, ROWS, 4, 2)
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert page.count('<svg class="molecule"') == 2 + 2 + 1 + 1
    for text in ("0.750", "0.125", "balanced", "not balanced", "agreement 88%", "4 rows, 2 ok", "&lt;reactions&gt;"):
        assert text in page
    assert "default-src 'none'" in page
    assert "--paper" in page, "the look of the other report"
    for unsafe in ("<script", "<b>What", "<i>an"):
        assert unsafe not in page
    assert not re.search(r"(src|href)=", page), "nothing is fetched"


def test_long_tables_and_long_sets_are_cut(tmp_path: Path) -> None:
    rows = [Answered(source=".".join(["C"] * 30), direction="forward", answers=["C"], probabilities=[1.0])] * 300
    write_answers_report(tmp_path / "r.html", {}, rows, 300, 300)
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert page.count("<svg") == MAX_ROWS * (MAX_DRAWN + 1)
    assert "300 rows, 300 ok; the first 200 are shown" in page
