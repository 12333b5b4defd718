"""The frame of all pages, and numbers as people read them."""

from __future__ import annotations

import base64
import hashlib
import re

from mora_lite.reports.page import as_html, as_number, as_percent, decimals_for, facts, page, tiles
from mora_lite.scoring.tasks import Task

EVIL = "</style><script>alert(1)</script>\"'&"


def test_numbers_are_written_for_people():
    assert as_number(-3.14159, 2) == "−3.14"
    assert as_number(-0.001, 2) == "0.00"
    assert [as_number(n) for n in (0.30000000000000004, float("nan"), float("-inf"))] == ["0.3", "–", "−∞"]
    assert [as_percent(n) for n in (0, 0.0001, 0.25, 0.9999, 1)] == ["0 %", "< 0.1 %", "25.0 %", "> 99.9 %", "100 %"]
    values = [Task("t", "", "", 0.0, deviation) for deviation in (300, 30, 2, 0.5, 0.04, 1e-7)]
    assert [decimals_for(task) for task in values] == [0, 1, 2, 2, 3, None]
    assert decimals_for(Task("t", "", "", 0.0, 1.0, "class")) == 3
    assert decimals_for(Task("t", "", "", 0.0, 1.0, scale="log")) is None, "4 significant digits"


def test_a_page_allows_its_own_script_and_no_other():
    text = page("T", "<p>body</p>", script="let x = 1;").decode()
    digest = base64.b64encode(hashlib.sha256(b"let x = 1;").digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text
    assert text.count("<script") == 1
    plain = page("T", "<p>body</p>", style=".mine { color: red; }").decode()
    assert "script" not in plain
    assert ".mine { color: red; }</style>" in plain
    assert "default-src 'none'" in plain
    assert not re.search(r"https?:|@import|url\(", plain)


def test_texts_are_escaped_where_they_enter():
    parts = [page(EVIL, "").decode(), facts({EVIL: EVIL}), tiles([(EVIL, EVIL, EVIL)]), as_html(EVIL)]
    assert not any("<script>" in part for part in parts)
    assert as_html("a\x00b") == "a\N{REPLACEMENT CHARACTER}b"
