"""A loaded pack: one row out for each row in, and numbers that depend on the molecule and nothing else."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch

pytest.importorskip("pandas")
pytest.importorskip("pyarrow")
import pandas as pd
import pyarrow as pa

import mora_lite
from mora_lite.errors import DeviceError, InputError, PackError
from mora_lite.model import Model, is_out_of_memory
from mora_lite.quant.linear import Linear4bit
from mora_lite.scoring.scorer import PlainScorer, fillers

# Of a task's deviation, between batch sizes and orders: what docs/method.md promises for float32, and less than it
# promises for bfloat16.
F32_TOLERANCE, BF16_TOLERANCE = 2e-5, 2e-3


@pytest.fixture(scope="module")
def many(molecules: list[str]) -> list[str]:
    """600 rows, every molecule ten times."""
    return molecules * 10


@pytest.fixture(scope="module")
def exact(pack_path) -> Model:
    return mora_lite.load(pack_path, device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def expected(exact: Model, many: list[str]) -> np.ndarray:
    return exact.score(many).values


def assert_near(model: Model, values: np.ndarray, expected: np.ndarray) -> None:
    """Equal to within what float32 may differ by from batch to batch."""
    std = np.array([task.deviation for task in model.tasks])
    assert values.shape == expected.shape
    assert (np.abs(values - expected) / std).max(initial=0) <= F32_TOLERANCE


# --- independent of batch size and order


@pytest.mark.parametrize("size", [1, 7, 64, 300, 512, 4096])
def test_float32_does_not_depend_on_the_batch_size(exact: Model, many, expected, size: int) -> None:
    n = 40 if size == 1 else 600
    assert_near(exact, exact.score(many[:n], size).values, expected[:n])


def test_float32_does_not_depend_on_order_or_neighbours(exact: Model, many, expected) -> None:
    order = np.random.default_rng(0).permutation(len(many))
    assert_near(exact, exact.score([many[i] for i in order]).values, expected[order])
    assert_near(exact, exact.score(many[7:8]).values, expected[7:8])
    assert_near(exact, exact.score([many[7]] * 5).values, expected[[7] * 5])
    with_bad = [text for smiles in many[:20] for text in (smiles, "nonsense")]
    assert_near(exact, exact.score(with_bad, 7).values[::2], expected[:20])


def test_one_batch_has_the_same_bits_each_time(exact: Model, many, expected: np.ndarray) -> None:
    assert np.array_equal(exact.score(many).values, expected)


def test_duplicates_get_the_same_numbers_and_molecules_differ(exact: Model, expected: np.ndarray) -> None:
    assert_near(exact, expected, np.tile(expected[:60], (10, 1)))
    assert len(np.unique(expected[:60, 0])) > 55
    assert np.isfinite(expected).all()


def test_bfloat16_hardly_depends_on_batch_size_and_order(pack_path, many, expected) -> None:
    model = mora_lite.load(pack_path, device="cpu", dtype="bfloat16")
    std = np.array([task.deviation for task in model.tasks])
    reference = model.score(many).values
    order = np.random.default_rng(0).permutation(len(many))
    shuffled = model.score([many[i] for i in order]).values
    assert (np.abs(shuffled - reference[order]) / std).max() <= BF16_TOLERANCE
    for size in (1, 7, 64, 300):
        got = model.score(many[:60], size).values
        assert (np.abs(got - reference[:60]) / std).max() <= BF16_TOLERANCE
    assert (np.abs(reference - expected) / std).max() <= 0.05, "and it stays near float32"


def test_four_bits_at_each_use_give_the_numbers_of_resident_weights(pack_path, many, expected) -> None:
    model = mora_lite.load(pack_path, device="cpu", dtype="float32", memory_budget=0)
    assert any(isinstance(module, Linear4bit) for module in model.scorer.modules())
    np.testing.assert_allclose(model.score(many[:60]).values, expected[:60], rtol=1e-6, atol=1e-6)


# --- what goes in


def test_predict_takes_text_lists_and_columns(exact: Model, expected: np.ndarray) -> None:
    smiles = ["C", "N", "O"]
    for rows in (smiles, tuple(smiles), np.array(smiles), pd.Series(smiles, index=[7, 5, 5]), iter(smiles)):
        got = exact.predict(rows)
        assert got.smiles == smiles
        assert_near(exact, got.scores.values, expected[:3])
    assert_near(exact, exact.predict("N").scores.values, expected[1:2])


@pytest.mark.parametrize("missing", [None, float("nan"), pd.NA, "", "  "])
def test_missing_entries_are_empty_rows(exact: Model, expected: np.ndarray, missing: object) -> None:
    got = exact.predict(pd.Series(["C", missing, "N"], dtype=object))
    assert got.scores.status == ["ok", "empty", "ok"]
    assert_near(exact, got.scores.values[::2], expected[:2])


def test_the_index_of_a_pandas_object_is_that_of_the_result(exact: Model) -> None:
    frame = pd.DataFrame({"id": [1, 2], "SMILES": ["C", None]}, index=["x", "y"])
    for given in (frame, frame["SMILES"]):
        assert exact.predict(given).to_pandas().index.tolist() == ["x", "y"]
    assert exact.predict(frame.rename(columns={"SMILES": "a"}), smiles_column="a").scores.status == ["ok", "empty"]
    assert exact.predict(["C"]).to_pandas().index.tolist() == [0]


def test_a_model_names_pack_tasks_device_and_type(exact: Model, pack_path) -> None:
    assert repr(exact) == f"<Model pack {exact.pack.name} on cpu in float32; 3 tasks: size, polarity, mass>"
    one = mora_lite.load(pack_path, device="cpu", tasks="MASS")
    assert [task.name for task in one.tasks] == ["mass"]
    assert "; 1 task: mass>" in repr(one)


def test_the_package_lists_its_public_names() -> None:
    assert dir(mora_lite) == sorted(mora_lite.__all__)


def test_every_failure_has_a_status_a_reason_and_no_number(exact: Model) -> None:
    rows = ["CCO", "", "C1CC", "C" * 500, "c1cccc1", "\udcff", "CCO ethanol", 5]
    got = exact.predict(rows)
    assert got.scores.status == [
        "ok", "empty", "unparsable", "too_large", "unparsable", "unparsable", "ok", "unparsable",
    ]  # fmt: skip
    failed = np.array([status != "ok" for status in got.scores.status])
    assert np.isnan(got.scores.values[failed]).all()
    assert np.isfinite(got.scores.values[~failed]).all()
    assert [bool(reason) for reason in got.scores.error] == failed.tolist()
    assert not any("\n" in reason for reason in got.scores.error)


def test_nothing_but_failures_and_nothing_at_all(exact: Model) -> None:
    assert np.isnan(exact.predict(["", "C1CC"]).scores.values).all()
    got = exact.predict([])
    assert len(got) == 0
    assert got.scores.values.shape == (0, 3)
    assert exact.score_graphs(fillers(0)).shape == (0, 3)


# --- what comes out


def test_tables_have_a_column_for_each_task_with_its_unit(exact: Model) -> None:
    got = exact.predict(["CCO", "bad"])
    frame = got.to_pandas()
    assert list(frame) == ["smiles", "size", "polarity [e]", "mass [u]", "status", "error"]
    assert frame["mass [u]"].dtype == np.float32
    assert frame["mass [u]"].isna().tolist() == [False, True]
    assert "polarity [e]" in got._repr_html_()


def test_arrow_has_nulls_for_failed_values(exact: Model) -> None:
    table = exact.predict(["CCO", "bad", "N"]).to_arrow()
    for name in ("size", "polarity [e]", "mass [u]"):
        assert table[name].type == pa.float32()
        assert table[name].is_null().to_pylist() == [False, True, False]
    assert table["status"].to_pylist() == ["ok", "unparsable", "ok"]
    assert exact.predict([]).to_arrow().schema == table.schema


@pytest.mark.parametrize(
    ("tasks", "columns"), [(["mass"], [2]), (["mass", "size"], [2, 0]), (("size", "size"), [0]), (None, [0, 1, 2])]
)
def test_chosen_tasks_are_the_columns_of_all_tasks(pack_path, many, expected, tasks, columns) -> None:
    model = mora_lite.load(pack_path, device="cpu", dtype="float32", tasks=tasks)
    assert [task.name for task in model.tasks] == [("size", "polarity", "mass")[i] for i in columns]
    np.testing.assert_allclose(model.score(many[:60]).values, expected[:60, columns], rtol=1e-6, atol=1e-6)


def test_an_unknown_task_tells_the_near_matches(pack_path) -> None:
    with pytest.raises(PackError, match="unknown task 'mas': did you mean mass"):
        mora_lite.load(pack_path, device="cpu", tasks=["mas"])


def test_time_is_told_by_stage(model: Model) -> None:
    model.predict(["CCO"])
    assert set(model.seconds) == {"parse", "graphs", "encoder", "hypernetwork", "decoder"}
    assert all(seconds > 0 for seconds in model.seconds.values())


# --- memory and devices


def run_out_above(model: Model, limit: int, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> list[int]:
    """Batches of more molecules than `limit` do not fit; returns the list of sizes that were tried."""
    tried = []
    assert isinstance(model.engine, PlainScorer)
    real = model.engine.z_scores

    def z_scores(graphs, timed):
        tried.append(len(graphs))
        if len(graphs) > limit:
            raise error
        return real(graphs, timed)

    monkeypatch.setattr(model.engine, "z_scores", z_scores)
    return tried


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
        MemoryError(),
    ],
)
def test_out_of_memory_halves_the_batch_and_goes_on(model: Model, many, expected, monkeypatch, error) -> None:
    tried = run_out_above(model, 70, monkeypatch, error)
    assert_near(model, model.score(many[:200]).values, expected[:200])
    assert tried == [200, 100, 50, 50, 50, 50]
    model.score(many[:60])
    assert tried[6:] == [50, 10], "the next call need not find the size again"


def test_out_of_memory_with_one_molecule_is_a_clear_error(model: Model, monkeypatch) -> None:
    tried = run_out_above(model, 0, monkeypatch, torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(DeviceError, match="out of memory on cpu with one molecule at a time"):
        model.predict(["C", "N", "O"], batch_size=3)
    assert tried == [3, 2, 1]


def test_other_errors_are_not_taken_for_a_lack_of_memory(model: Model, monkeypatch) -> None:
    tried = run_out_above(model, 0, monkeypatch, RuntimeError("a bug"))
    with pytest.raises(RuntimeError, match="a bug"):
        model.predict(["C", "N"])
    assert tried == [2]
    assert not is_out_of_memory(RuntimeError("a bug"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_asked_for_and_absent(pack_path) -> None:
    with pytest.raises(DeviceError, match="sees no CUDA device here; use --device cpu"):
        mora_lite.load(pack_path, device="cuda")


@pytest.mark.parametrize("size", [0, -1, 1.5, "3"])
def test_a_batch_size_that_is_none(model: Model, size) -> None:
    with pytest.raises(InputError, match=r"batch_size: got .*, expected a whole number, 1 or more"):
        model.predict("CCO", batch_size=size)


# --- in other processes


FORKED = """
import os, sys, torch, mora_lite
torch.set_num_threads(2)
model = mora_lite.load(sys.argv[1], device="cpu")
values = model.predict(["CCO"] * 300)
if os.fork() == 0:
    same = (model.predict(["CCO"] * 300).scores.values == values.scores.values).all()
    os._exit(0 if same else 1)
sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_model_works_in_a_forked_process(pack_path) -> None:
    """As `multiprocessing.Pool` makes on Linux; without the threads of its parent it must not wait for them."""
    subprocess.run([sys.executable, "-c", FORKED, str(pack_path)], check=True, timeout=60)


def test_a_model_says_that_it_is_loaded_in_each_process(model: Model) -> None:
    with pytest.raises(TypeError, match="a Model cannot be copied to another process: load it there too"):
        pickle.dumps(model)
    with pytest.raises(TypeError, match="a Model cannot be copied to another process"):
        pickle.dumps(model.predict)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_cuda_gives_the_numbers_of_the_cpu(pack_path, many, expected, dtype: str) -> None:
    model = mora_lite.load(pack_path, device="cuda", dtype=dtype)
    std = np.array([task.deviation for task in model.tasks])
    got = model.score(many).values
    assert (np.abs(got - expected) / std).max() <= (1e-3 if dtype == "float32" else 0.05)
    assert model.engine.batch_size > len(many)
