"""`mora-lite bench`: stages add up, operations are those of the matrix products."""

from __future__ import annotations

import json

import pytest

from mora_lite import bench, load
from mora_lite.bench import LEARNT, count_operations, measure, weight_bytes
from mora_lite.tables.library import TypedSmiles


def test_stages_add_up_to_the_whole(calibrated_pack_path, molecules) -> None:
    rows = TypedSmiles([*molecules * 4, "not a molecule"])
    found = measure(load(calibrated_pack_path, device="cpu"), rows, 4096, threads=2)
    names = [stage.name for stage in found.stages]
    assert names == ["read", "parse", "graphs", *LEARNT, "similarity", "write"]
    assert found.n == 4 * len(molecules)
    assert all(stage.us > 0 for stage in found.stages)
    assert sum(row["share %"] for row in found.rows()) == pytest.approx(100)
    assert {stage.name for stage in found.stages if stage.floor_us} == set(LEARNT)
    assert found.parsed_mol_per_s > found.mol_per_s
    longest, rate = found.beside
    assert longest in ("read", "parse", "scoring", "write")
    assert rate > found.mol_per_s, "stages that overlap take less than their sum"


def test_as_many_rows_as_were_asked_for(pack_path, molecules, monkeypatch: pytest.MonkeyPatch) -> None:
    model, rows = load(pack_path, device="cpu"), TypedSmiles(molecules)
    assert measure(model, rows, 7, threads=1).n == 7
    monkeypatch.setattr(bench, "WINDOW_ROWS", 5)
    assert measure(model, rows, 12, threads=1).n == 12
    assert measure(model, rows, 4096, threads=1).n == len(molecules)


@pytest.mark.parametrize("dtype", ["auto", "float32"])
def test_operations_are_counted_by_hand(pack_path, dataset, dtype: str) -> None:
    """Of the feed-forward blocks alone: 2 layers x 3 matrices of 64 x 128, 3 tasks, 2 operations a weight."""
    model = load(pack_path, device="cpu", dtype=dtype)
    flops = count_operations(model, dataset.graphs, 32)
    assert set(flops) >= set(LEARNT)
    blocks = 2 * 3 * 64 * 128 * 3 * 2
    assert blocks < flops["decoder"] < 3 * blocks
    n_atoms = len(dataset.graphs.atoms) / len(dataset.graphs)
    assert flops["encoder"] > n_atoms * 2 * (32 * 64 + 64 * 32)


def test_more_tasks_cost_more_operations(pack_path, dataset) -> None:
    one, three = (load(pack_path, device="cpu", tasks=tasks) for tasks in (["size"], None))
    ratio = (
        count_operations(three, dataset.graphs, 32)["decoder"] / count_operations(one, dataset.graphs, 32)["decoder"]
    )
    assert 2 < ratio < 3.5
    assert weight_bytes(one) == weight_bytes(three)


def test_the_command_prints_a_table_or_json_without_what_was_not_measured(run, pack_path, table_path) -> None:
    arguments = "bench", table_path, "--pack", pack_path, "--tasks", "size", "--device", "cpu"
    code, out, _ = run(*arguments)
    assert code == 0
    assert "times" in out
    assert "{" not in out
    code, out, _ = run(*arguments, "--json")
    facts = json.loads(out)
    assert (facts["molecules"], facts["tasks"]) == (60, 1)
    assert set(facts["stages"]) >= set(LEARNT)
    assert "gb_per_s" not in facts, "of a CPU it is not measured"
    assert 0 not in [number for stage in facts["stages"].values() for number in stage.values()]


def test_nothing_to_score_is_an_error(run, pack_path, tmp_path) -> None:
    (tmp_path / "bad.smi").write_text("C1CC\nxyz\n")
    code, _, err = run("bench", tmp_path / "bad.smi", "--pack", pack_path)
    assert code == 2
    assert "no molecule among the first 2 rows can be scored" in err


def test_an_exported_folder_is_not_offered(run) -> None:
    assert "exported" not in run("bench", "--help")[1]
