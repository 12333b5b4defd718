"""The notebook runs from its first cell to its last, with a tiny base model, and what is kept of it is small."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
TOUR = EXAMPLES / "tour.ipynb"
MAX_KB = 200
ROWS = 200  # of the table to train on


def cells(kind):
    return [cell for cell in json.loads(TOUR.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == kind]


def test_every_cell_runs(base_path, tmp_path, monkeypatch):
    """In a kernel of its own, as people run it. A cell that fails is an error with its traceback."""
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "jupyter"))
    monkeypatch.setenv("MORA_LITE_DEVICE", "cpu")
    shutil.copy(EXAMPLES / "molecules.csv", tmp_path)
    lines = (EXAMPLES / "logbb.csv").read_text(encoding="utf-8").splitlines()[: ROWS + 1]
    (tmp_path / "logbb.csv").write_text("\n".join(lines), encoding="utf-8")
    notebook = nbformat.read(TOUR, as_version=4)
    (parameters,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    parameters.source += f"\nBASE = {str(base_path)!r}\nENCODER_EPOCHS, EPOCHS = 1, 1\n"
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    kinds = [kind for cell in notebook.cells for output in cell.get("outputs", []) for kind in output.get("data", {})]
    assert kinds.count("image/svg+xml") == 2, "two explanations"
    assert kinds.count("image/png") == 2, "the worst, and the hits"
    assert kinds.count("text/html") >= 5
    assert (tmp_path / "tour" / "run" / "report.html").is_file()


def test_what_is_kept_of_it_is_small_and_of_no_machine():
    text = TOUR.read_text(encoding="utf-8")
    assert len(text) <= MAX_KB << 10
    for word in ("site-packages", "/home/", "/root/", "/tmp/", "Traceback"):
        assert word not in text
    nbformat = pytest.importorskip("nbformat")
    nbformat.validate(json.loads(text))


def test_its_cells_were_run_in_order():
    numbers = [cell["execution_count"] for cell in cells("code")]
    assert numbers == list(range(1, len(numbers) + 1))


def test_its_links_lead_to_files():
    import re

    text = "".join("".join(cell["source"]) for cell in cells("markdown"))
    targets = re.findall(r"\]\((?!https?://)([^)]+)\)", text)
    assert targets
    for target in targets:
        assert (EXAMPLES / target).is_file(), target
