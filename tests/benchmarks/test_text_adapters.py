"""The benchmark of adapters in text trains each variant once for each seed, goes on, and compares them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import reactions
import text_adapters
from text_packs import AMINATIONS, write


def test_it_goes_on_and_its_table_has_every_variant(
    base_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write(tmp_path / "some.csv", ("reactants", "product"), AMINATIONS)
    data, out, base = tmp_path / "data.npz", tmp_path / "out.jsonl", str(base_path)

    def call(module, *arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, arguments), "--base", base])
        module.main()
        return capsys.readouterr().out

    call(reactions, "prepare", table, "--data", data, "--copies", 1)
    options = [data, "--out", out, "--seeds", 1, "--steps", 1, "--tokens", 640, "--rank", 4, "--rows", 2]
    with monkeypatch.context() as stopped:
        stopped.setattr(text_adapters, "answer_rows", lambda *_: pytest.fail("stopped behind the training"))
        with pytest.raises(pytest.fail.Exception):
            call(text_adapters, *options, "--variants", "mora")
    assert (tmp_path / "out.run" / "mora-0" / "checkpoint.safetensors").exists()
    call(text_adapters, *options, "--variants", "mora")
    call(text_adapters, *options)
    assert not any((tmp_path / "out.run").iterdir())
    records = text_adapters.read(out)
    assert [record["variant"] for record in records] == list(text_adapters.VARIANTS)
    assert all(record["steps"] == 1 and len(record["right"]) == 2 for record in records)
    trained = {record["variant"]: record["trained"] for record in records}
    assert trained["static-large"] == pytest.approx(trained["mora"], rel=0.1)
    printed = call(text_adapters, *options, "--table")
    assert all(f"| {variant} |" in printed for variant in text_adapters.VARIANTS)


def test_a_gain_has_an_interval_around_it() -> None:
    rng = np.random.default_rng(0)
    other = (rng.random((3, 1000)) < 0.4).astype(int)
    mine = other | (rng.random((3, 1000)) < 0.1)
    gain, low, high = text_adapters.relative_gain(mine, other, draws=500)
    assert gain == pytest.approx(mine.mean() / other.mean() - 1)
    assert 0 < low < gain < high
    assert text_adapters.relative_gain(other, other, draws=50) == (0, 0, 0)
