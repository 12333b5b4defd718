"""`mora-lite explain` from outside: table, page, drawing, and what is refused."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import xml.etree.ElementTree as ET
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mora_lite.context import approved
from mora_lite.packs.pack import open_pack, remove_file
from mora_lite.scoring import predictor


@pytest.fixture
def explain(run: Any, calibrated_pack_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(predictor, "approved_smiles", lambda: approved.approved_smiles()[:20])

    def explain(*arguments: object) -> tuple[int, str, str]:
        return run("explain", *arguments, "--pack", calibrated_pack_path, "--device", "cpu", "--dtype", "float32")

    return explain


def test_a_table_has_a_row_for_each_atom(explain: Any) -> None:
    code, out, err = explain("[Na+].CC(=O)[O-]", "C1CC", "--task", "size,mass")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 0
    assert [row["symbol"] for row in rows] == ["Na", "C", "C", "O", "O", ""]
    assert list(rows[0]) == ["row", "name", "smiles", "atom", "symbol", "size", "mass", "status", "error"]
    assert rows[0]["size"] == ""
    assert float(rows[1]["size"])
    assert rows[-1]["status"] == "unparsable"
    assert err.splitlines() == ["row 2 (C1CC): unparsable, unclosed ring"]


def test_a_file_is_explained_row_by_row(explain: Any, tmp_path: Path) -> None:
    table = tmp_path / "a.csv"
    table.write_text("id,smiles\nethanol,CCO\nwater,O\n")
    out = tmp_path / "atoms.json"
    assert explain(table, "-o", out)[0] == 0
    first, second = json.loads(out.read_text())
    assert first["name"] == "ethanol"
    for task in first["tasks"]:
        assert sum(task["contributions"]) == pytest.approx(task["value"] - task["reference"], abs=1e-3)
    assert second["symbols"] == ["O"]
    assert "exists: use --force" in explain(table, "-o", out)[2]
    assert explain(table, "-o", out, "--force")[0] == 0


def test_names_may_be_any_bytes(explain: Any, tmp_path: Path) -> None:
    """As predict writes them: text as it was, and U+FFFD where a format has no other bytes than UTF-8."""
    table = tmp_path / "a.csv"
    table.write_bytes(b"id,smiles\ncaf\xe9,CCO\n")
    for name, wanted in (("a.atoms.csv", b",caf\xe9,"), ("a.json", b'"caf\\ufffd"'), ("a.html", "caf\ufffd<".encode())):
        assert explain(table, "--task", "size", "-o", tmp_path / name)[0] == 0
        assert wanted in (tmp_path / name).read_bytes()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_the_table_itself_is_no_output_and_a_pipe_is_one(explain: Any, tmp_path: Path) -> None:
    table, pipe = tmp_path / "a.csv", tmp_path / "pipe.json"
    table.write_text("id,smiles\nethanol,CCO\n")
    assert "is the table being read" in explain(table, "-o", table, "--force")[2]
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(pipe.read_text)
        assert explain(table, "-o", pipe)[0] == 0
        assert json.loads(read.result(timeout=60))[0]["name"] == "ethanol"
    assert pipe.is_fifo(), "what is no file is not replaced by one"


def test_a_page_is_whole_and_escapes_what_it_shows(explain: Any, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    table = tmp_path / "a.csv"
    table.write_text("id,smiles\n<script>x</script>,CCO\nb,C1CC\n")
    code, _, err = explain(table, "--task", "mass,polarity", "-o", page)
    assert code == 0
    assert err.splitlines()[0] == f"{page}: 1 molecule, 2 tasks"
    text = page.read_text()
    assert "<script" not in text
    assert "&lt;script&gt;x" in text
    assert "http" not in text.replace("http-equiv", "")
    assert text.count('class="molecule weights"') == 2
    assert "percentile" in text
    assert "The nearest training molecules" in text
    assert "unclosed ring" in text


def test_of_a_pack_without_its_training_molecules_a_page_shows_no_neighbours(
    run: Any, calibrated_pack_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(predictor, "approved_smiles", lambda: approved.approved_smiles()[:20])
    copy, page = Path(shutil.copytree(calibrated_pack_path, tmp_path / "copy")), tmp_path / "page.html"
    remove_file(open_pack(copy), "training.safetensors")
    options = ["CCO", "--task", "mass", "--pack", copy, "--device", "cpu", "-o", page]
    code, _, err = run("explain", *options)
    assert code == 0
    assert "note: pack tiny does not hold its training molecules, so it names no neighbours" in err
    assert "The nearest training molecules" not in page.read_text()
    code, _, err = run("explain", *options, "--force", "--neighbours", "2")
    assert code == 2, "they were asked for"
    assert "error: pack tiny does not hold its training molecules" in err
    code, _, err = run("explain", *options, "--force", "--neighbours", "0")
    assert (code, "note: pack" in err) == (0, False)


def test_a_drawing_is_of_one_molecule_and_task(explain: Any, tmp_path: Path) -> None:
    out = tmp_path / "x.svg"
    assert explain("CCO", "--task", "mass", "-o", out)[0] == 0
    assert ET.fromstring(out.read_text()).tag.endswith("svg")
    code, _, err = explain("CCO", "C", "--task", "mass", "-o", tmp_path / "y.svg")
    assert code == 2
    assert "one SMILES and one --task" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("CCO", "--task", "sise"), "unknown task 'sise'"),
        (("CCO", "-o", "x.pdf"), "expected .csv, .json, .html, .svg"),
        (("missing.csv",), "missing.csv"),
        (["C"] * 101, "more than 100 molecules"),
    ],
)
def test_errors_are_one_clear_line(explain: Any, arguments: Any, message: str) -> None:
    code, out, err = explain(*arguments)
    assert code == 2
    assert message in err
    assert not out
    assert len(err.splitlines()) == 1


def test_nothing_explained_is_exit_code_one(explain: Any) -> None:
    assert explain("C1CC")[0] == 1
