"""An endpoint that was never trained is asked by its prompt, of the language model as it is and of a shuffled one."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import asked
import pytest

from mora_lite.adapter.lowrank import AdapterConfig

MOLECULES = [f"{'C' * i}{end}" for i in range(1, 11) for end in ("N", "O", "Cl", "")]
TASKS = {"oxygen": "O", "nitrogen": "N", "chlorine": "Cl", "hetero": "ONl"}
RECIPE = '[[task]]\nname = "{name}"\nkind = "class"\nprompt = "Question: Does the molecule hold {name}? Answer:"\n'


def test_an_endpoint_is_asked_that_neither_it_nor_its_kin_were_trained(
    tmp_path: Path, base_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "table.csv").open("w", newline="") as file:
        rows = [[s, *(int(s[-1] in letters) for letters in TASKS.values())] for s in MOLECULES]
        csv.writer(file).writerows([["smiles", *TASKS], *rows])
    (tmp_path / "recipe.toml").write_text("".join(RECIPE.format(name=name) for name in TASKS))
    monkeypatch.setattr(asked, "LEFT_OUT", {"oxygen": ("oxygen", "hetero")})
    monkeypatch.setattr(asked, "SIZES", AdapterConfig(adapted_layers=1, rank=2))
    monkeypatch.setattr(asked, "PROMPTS_A_STEP", 2)
    monkeypatch.setattr(asked, "BATCH", 8)
    trained = []
    train = asked.train
    monkeypatch.setattr(asked, "train", lambda *args: (trained.append(args[2]), train(*args)))
    table, recipe, out = (str(tmp_path / name) for name in ("table.csv", "recipe.toml", "results.jsonl"))
    command = [
        "asked.py",
        table,
        "--recipe",
        recipe,
        "--base",
        str(base_path),
        "-o",
        out,
        "--seeds",
        "0",
        "--steps",
        "2",
    ]
    monkeypatch.setattr(sys, "argv", command)
    asked.main()
    asked.main()  # what is there already is not run again
    assert trained == [[1, 2], [1, 2]]
    results = [json.loads(line) for line in Path(out).read_text().splitlines()]
    assert [line["model"] for line in results] == ["pretrained", "shuffled"]
    for line in results:
        assert line["rows"] == len(MOLECULES)
        assert line["nearest_task"] in {"nitrogen", "chlorine"}
        assert 0 <= line["asked"] <= 1
        assert line["nearest"] <= line["best"]
