"""The benchmark of reactions prepares, trains and goes on; and that of the pack `reactions` asks it."""

from __future__ import annotations

import gzip
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import agreement
import pytest
import reactions
import reactions_pack
from text_packs import AMINATIONS, read, write

from mora_lite import load_text


def test_the_benchmark_prepares_trains_and_resumes(
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
        "--steps",
        2,
    ]
    first = call("train", *options)
    again = call("train", *options, "--answers", tmp_path / "answers.csv")
    assert first[-1]["kind"] == again[-1]["kind"] == "result"
    assert first[-1]["steps"] == again[0]["step"] == again[-1]["steps"] == 2
    assert again[-1]["exact"] == first[-1]["exact"]
    assert again[-1]["rows"] == len(read(tmp_path / "answers.csv")) > 0
    assert again[-1]["rows"] + again[-1]["train_rows"] <= made["rows"]
    assert 0 <= again[-1]["exact"] <= 1


def test_the_pack_is_asked_and_its_answers_are_kept(
    text_pack_path: Path,
    base_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with gzip.open(tmp_path / "some.csv.gz", "wt") as file:
        file.write("reactants,reagents,product\nCO,,C=O\nCCO,,CC=O\n")
    for module in (reactions_pack, agreement):
        monkeypatch.setattr(module, "MAX_NEW_TOKENS", 12)
        monkeypatch.setattr(module, "load_text", partial(load_text, base=base_path))

    def call(module: Any, *options: object) -> dict[str, Any]:
        command = [module.__name__, tmp_path / "some.csv.gz", "--pack", text_pack_path, "--device", "cpu", *options]
        monkeypatch.setattr(sys, "argv", list(map(str, command)))
        module.main()
        return json.loads(capsys.readouterr().out)

    options = "--task", "retro", "--beams", 3, "--round-trip", 1, "--answers", tmp_path / "answers.jsonl"
    found = call(reactions_pack, *options)
    assert (found["rows"], len(found["top_3"])) == (2, 3)
    again = call(reactions_pack, *options)
    assert {**again, "seconds": 0} == {**found, "seconds": 0}, "from the file"
    assert len((tmp_path / "answers.jsonl").read_text().splitlines()) == 2
    assert call(agreement, "--spellings", 2)["rows"] == 2
