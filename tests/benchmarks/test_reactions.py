"""The benchmark of reactions prepares, trains, goes on and writes a pack."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import reactions
from text_packs import AMINATIONS, read, write

from mora_lite.text.pack import open_text_pack


def test_the_benchmark_prepares_trains_resumes_and_writes_a_pack(
    base_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write(tmp_path / "some.csv", ("reactants", "product"), AMINATIONS)

    def call(*arguments: object) -> list[dict[str, Any]]:
        monkeypatch.setattr(sys, "argv", ["reactions.py", *map(str, arguments), "--base", str(base_path)])
        reactions.main()
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    data = tmp_path / "data.npz"
    made = call("prepare", table, "--data", data, "--copies", 2)[-1]
    options = [
        "--data",
        data,
        "--folder",
        tmp_path / "run",
        "--tokens",
        640,
        "--rank",
        4,
        "--target-modules",
        "q,k,v,o,ffn",
        "--seconds",
        60,
        "--stop",
        0.01,
    ]
    first = call("train", *options)
    again = call("train", *options, "--out", tmp_path / "pack", "--answers", tmp_path / "answers.csv")
    assert first[-1]["kind"] == again[-1]["kind"] == "result"
    assert 0 < first[-1]["steps"] == again[0]["step"] < again[-1]["steps"]
    assert first[-1]["seconds"] < again[-1]["seconds"]
    assert again[-1]["rows"] == len(read(tmp_path / "answers.csv")) > 0
    assert again[-1]["rows"] + again[-1]["train_rows"] <= made["rows"]
    assert 0 <= again[-1]["exact"] <= 1
    assert open_text_pack(tmp_path / "pack").task == "forward"
