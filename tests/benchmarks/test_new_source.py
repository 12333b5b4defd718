"""Molecules of a new source: never trained, asked of both networks, and scored without those that the board holds."""

from __future__ import annotations

import csv
import gzip
import sys
from dataclasses import replace
from pathlib import Path

import new_source
import numpy as np
import pytest
from tdc_table import Union

MOLECULES = [f"{'C' * i}{end}" for i in range(1, 25) for end in ("N", "O", "Cl")]


def write(path: Path, columns: list[str], rows: list[list[object]]) -> None:
    with gzip.open(path, "wt", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


def test_a_new_source_is_not_trained_and_scored_without_the_molecules_of_the_board(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    boards = [asked.board for asked in new_source.ASKED.values()]
    rows: list[list[object]] = [
        [s, *([0.1 * i + 1] * 3), *([0.1 * i + 1 if i < 40 else ""] * 3), i % 2] for i, s in enumerate(MOLECULES)
    ]
    write(tmp_path / "boards.csv.gz", ["smiles", *new_source.ASKED, *boards, "AMES"], rows)
    for board in boards:
        # The last molecule is a test molecule of the board, drawn as a salt.
        held = [[s, 1, "train_val"] for s in MOLECULES[:40]] + [[f"{MOLECULES[69]}.Cl", 1, "test"]]
        write(tmp_path / f"{board}.csv.gz", ["smiles", board, "tdc_split"], held)
    for name in ("MULTITASK", "ALONE"):
        monkeypatch.setattr(new_source, name, replace(getattr(new_source, name), batch_size=16))
    monkeypatch.setattr(new_source, "VISITS", 64)
    monkeypatch.setattr(new_source, "ASKED", {k: replace(a, visits=64) for k, a in new_source.ASKED.items()})
    trained = []

    def fit_tasks(union: Union, leave_out: np.ndarray) -> object:
        trained.append(union.columns)
        return tasks_of(union, leave_out)

    tasks_of = new_source.fit_tasks
    monkeypatch.setattr(new_source, "fit_tasks", fit_tasks)
    table = ["--table", f"{tmp_path}/boards.csv.gz"]
    monkeypatch.setattr(sys, "argv", ["new_source.py", "train", *table, "-o", f"{tmp_path}/runs", "--seeds", "1"])
    new_source.main()
    assert trained == [[*boards, "AMES"], *([board] for board in boards)]
    with (tmp_path / "runs" / "multi_1.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [int(line["row"]) for line in lines] == 3 * list(range(40, len(MOLECULES)))
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["new_source.py", "score", *table, "--data", str(tmp_path), f"{tmp_path}/runs"])
    new_source.main()
    printed = capsys.readouterr().out
    for task, board in zip(new_source.ASKED, boards, strict=True):
        assert f"| {task} | {len(MOLECULES) - 41} | multi | 1 |" in printed
        assert f"| {task} | {len(MOLECULES) - 41} | alone_{board} | 1 |" in printed
