"""Scoring without torch: the same rows as with it, from an exported folder, by ONNX Runtime."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from exported_folder import change

from mora_lite.chem.featurizer import Featurizer
from mora_lite.chem.graph import Graphs
from mora_lite.errors import DeviceError, InputError, PackError
from mora_lite.export import runtime
from mora_lite.export.runtime import OnnxModel
from mora_lite.model import Model, load

onnxruntime = pytest.importorskip("onnxruntime")

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "molecules.csv"
TOLERANCE = 1e-3  # of a task's deviation, as for the gate of the export
# Nothing of these may be asked for on the way from SMILES to the output file.
FORBIDDEN = ("torch", "transformers", "pandas", "pyarrow", "safetensors", "gguf", "onnx", "huggingface_hub")


@pytest.fixture(scope="module")
def model(exported_path: Path) -> OnnxModel:
    return runtime.load(exported_path, provider="cpu")


@pytest.fixture(scope="module")
def graphs(molecules: list[str]) -> Graphs:
    return Featurizer().read_smiles(molecules)


@pytest.fixture(scope="module")
def with_torch(calibrated_pack_path: Path) -> Model:
    """The pack of the exported folder."""
    return load(calibrated_pack_path, device="cpu", dtype="float32")


def deviations(model: OnnxModel) -> np.ndarray:
    return np.array([task.deviation for task in model.tasks])


# --- neighbours


@pytest.mark.parametrize("tasks", [None, ["mass", "polarity"], ["polarity"]])
def test_neighbours_are_those_of_the_pack(
    exported_path: Path, calibrated_pack_path: Path, molecules: list[str], tasks: list[str] | None
) -> None:
    got = runtime.load(exported_path, tasks=tasks).neighbours(molecules, n=4)
    expected = load(calibrated_pack_path, tasks=tasks, device="cpu").neighbours(molecules, n=4)
    assert got.smiles == expected.smiles
    np.testing.assert_array_equal(got.similarity, expected.similarity)
    np.testing.assert_array_equal(got.values, expected.values)


# --- values


def test_values_are_those_of_the_pack(model: OnnxModel, with_torch: Model, graphs: Graphs) -> None:
    difference = np.abs(model.score_graphs(graphs) - with_torch.score_graphs(graphs)) / deviations(model)
    assert difference.max() < TOLERANCE


def test_values_on_a_logarithmic_scale_come_in_their_unit(folder: Path, model: OnnxModel) -> None:
    tasks = json.loads((folder / "export.json").read_text())["tasks"]
    change(folder, tasks=[tasks[0] | {"scale": "log"}, *tasks[1:]])
    linear, log = (loaded.score(["CCO", "c1ccccc1O"]) for loaded in (model, runtime.load(folder, provider="cpu")))
    for name in ("values", "low", "high"):
        of_logs, of_values = getattr(linear, name)[:, 0].astype(np.float64), getattr(log, name)[:, 0]
        np.testing.assert_allclose(np.log10(of_values), of_logs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [1, 7, 60, 1000])
def test_values_do_not_depend_on_the_batch_size_or_the_order(model: OnnxModel, graphs: Graphs, size: int) -> None:
    order = np.random.default_rng(0).permutation(len(graphs))
    expected = model.score_graphs(graphs)[order]
    got = model.score_graphs(graphs.select(order), size)
    assert (np.abs(got - expected) / deviations(model)).max() < TOLERANCE


def test_twice_the_same_gives_the_same_bits(model: OnnxModel, graphs: Graphs) -> None:
    assert np.array_equal(model.score_graphs(graphs), model.score_graphs(graphs))


def test_tasks_come_in_the_order_asked_for(exported_path: Path, model: OnnxModel, molecules: list[str]) -> None:
    chosen = runtime.load(exported_path, tasks=["mass", "size"])
    assert [task.name for task in chosen.tasks] == ["mass", "size"]
    got, expected = chosen.score(molecules), model.score(molecules)
    assert got.low is not None
    assert expected.low is not None
    for ours, theirs in ((got.values, expected.values), (got.low, expected.low)):
        assert (np.abs(ours - theirs[:, [2, 0]]) / deviations(chosen)).max() < TOLERANCE


def test_error_bars_and_domain_are_those_of_the_pack(model: OnnxModel, with_torch: Model, molecules: list[str]) -> None:
    """Given the same values, the two engines say the same of them, bit for bit."""
    found = model.score(molecules)
    bits = model.featurizer.fingerprints(model.featurizer.read_smiles(molecules), list)
    expected = with_torch.calibrate(found.values, bits)
    for name in ("values", "low", "high", "nearest", "inside"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_bad_molecules_are_rows_with_a_status(model: OnnxModel) -> None:
    found = model.predict(["CCO", "", "C1CC", None, "C"])
    assert found.scores.status == ["ok", "empty", "unparsable", "empty", "ok"]
    assert np.isnan(found.scores.values[1:4]).all()
    assert np.isfinite(found.scores.values[[0, 4]]).all()
    assert model.score([]).values.shape == (0, 3)


def test_threads_are_those_asked_for_or_those_there_are(exported_path: Path, model: OnnxModel) -> None:
    assert model.session.get_session_options().intra_op_num_threads == runtime.usable_cores() >= 1
    three = runtime.load(exported_path, threads=3)
    assert three.session.get_session_options().intra_op_num_threads == 3


def test_without_calibration_there_are_values_alone(folder: Path) -> None:
    manifest = json.loads((folder / "export.json").read_text())
    change(folder, files={"scorer.onnx": manifest["files"]["scorer.onnx"]})
    found = runtime.load(folder).predict(["CCO"])
    assert found.scores.low is None
    assert list(found.columns()) == ["smiles", "size", "polarity [e]", "mass [u]", "status", "error"]


def test_confidence_and_tasks_are_checked(exported_path: Path) -> None:
    with pytest.raises(InputError, match="confidence: got 1"):
        runtime.load(exported_path, confidence=1.0)
    with pytest.raises(PackError, match="unknown task 'sise': did you mean size"):
        runtime.load(exported_path, tasks=["sise"])


def test_what_fails_while_it_runs_is_one_line(model: OnnxModel, graphs: Graphs) -> None:
    wrong = Graphs(graphs.atoms[:, :9], graphs.bonds, graphs.bond_endpoints, graphs.atom_ptr, graphs.bond_ptr)
    with pytest.raises(DeviceError, match="ONNX Runtime failed on cpu with 60 molecules at a time") as caught:
        model.score_graphs(wrong)
    assert "\n" not in str(caught.value)


# --- the command


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_predict_takes_an_exported_folder_as_it_takes_a_pack(
    run, exported_path: Path, calibrated_pack_path: Path, tmp_path: Path, model: OnnxModel
) -> None:
    with_onnx, with_torch = tmp_path / "onnx.csv", tmp_path / "torch.csv"
    assert run("predict", EXAMPLE, "--pack", exported_path, "-o", with_onnx)[0] == 0
    assert run("predict", EXAMPLE, "--pack", calibrated_pack_path, "--dtype", "float32", "-o", with_torch)[0] == 0
    onnx, torch = rows_of(with_onnx), rows_of(with_torch)
    assert [list(row) for row in onnx] == [list(row) for row in torch]
    for ours, theirs in zip(onnx, torch, strict=True):
        for name in ("name", "smiles", "similarity", "in_domain", "outside", "status", "error"):
            assert ours[name] == theirs[name]
        if ours["status"] == "ok":
            for task in model.tasks:
                for name in (task.column, f"{task.name}_lo", f"{task.name}_hi"):
                    assert float(ours[name]) == pytest.approx(float(theirs[name]), abs=TOLERANCE * task.deviation)
    again = tmp_path / "again.csv"
    code, out, _ = run(
        "predict", EXAMPLE, "--pack", exported_path, "-o", again, "--engine", "onnx", "--provider", "cpu"
    )
    assert (code, out) == (0, "")
    assert again.read_bytes() == with_onnx.read_bytes()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ["--engine", "onnx"],
            "admet is no exported folder (it has no export.json); ONNX Runtime needs one: mora-lite",
        ),
        (["--pack", "{}", "--dtype", "float32"], "--dtype float32 is for packs on torch"),
        (["--pack", "{}", "--device", "cpu"], "--device cpu is for packs on torch"),
        (["--pack", "{}", "--engine", "torch"], "is an exported folder, not a pack"),
        (["--pack", "{}/scorer.onnx"], "is a file of a pack or of an exported folder; give the folder: "),
        (["--pack", "{}", "--provider", "rocm"], "provider: got 'rocm'"),
        (["--provider", "cpu"], "--provider cpu is for --engine onnx"),
        (["--engine", "tensorflow"], "--engine: got 'tensorflow', expected auto, torch, onnx"),
    ],
)
def test_options_that_do_not_go_together(run, exported_path: Path, tmp_path: Path, options, words: str) -> None:
    options = [option.format(exported_path) for option in options]
    code, out, err = run("predict", EXAMPLE, "-o", tmp_path / "out.csv", *options)
    assert (code, out) == (2, "")
    assert words in " ".join(err.split())
    assert not list(tmp_path.iterdir())


BLOCKED = f"""
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {FORBIDDEN!r}:
            raise ModuleNotFoundError("asked for " + name, name=name)

sys.meta_path.insert(0, Blocker())
from mora_lite.cli.app import main

code = main(sys.argv[1:])
held = sorted(name for name in {FORBIDDEN!r} if name in sys.modules)
print(code, held)
"""


def run_blocked(*arguments: object) -> tuple[str, str]:
    """`mora-lite` where the packages of FORBIDDEN are not installed; stdout (exit code, forbidden modules), stderr."""
    command = [sys.executable, "-c", BLOCKED, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ), check=False)
    return done.stdout, done.stderr


def test_nothing_on_the_way_imports_torch(exported_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    found, err = run_blocked("predict", EXAMPLE, "--pack", exported_path, "-o", out, "--neighbours", 2)
    assert found == "0 []\n", err
    assert len(rows_of(out)) == 20


@pytest.mark.parametrize("command", [["predict", EXAMPLE, "-o", "-"], ["export", "-o", "x"]])
def test_commands_that_need_torch_say_so_in_one_line(command: list[object]) -> None:
    found, err = run_blocked(*command)
    assert found.endswith("2 []\n")
    assert err == "error: this needs torch, which is not installed: pip install torch\n"


def test_info_needs_no_torch() -> None:
    found, err = run_blocked("info")
    assert found.endswith("\n0 []\n"), err


def test_a_missing_module_of_ours_is_a_bug_and_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch, run) -> None:
    monkeypatch.setitem(sys.modules, "mora_lite.environment", None)
    with pytest.raises(ModuleNotFoundError):
        run("info")


def test_an_exported_folder_is_screened_without_torch_as_with_it(
    exported_path: Path, calibrated_pack_path: Path, tmp_path: Path, run
) -> None:
    """In spawned processes."""
    code = BLOCKED.replace(repr(FORBIDDEN), repr(("torch", "transformers", "onnx")))
    assert code != BLOCKED
    command = ["screen", EXAMPLE, "--pack", exported_path, "-o", tmp_path / "onnx", "--format", "csv", "--workers", "1"]
    done = subprocess.run([sys.executable, "-c", code, *map(str, command)], capture_output=True, text=True, check=False)
    assert done.stdout == "0 []\n", done.stderr
    options = ["--format", "csv", "--dtype", "float32", "--device", "cpu", "--workers", 1]
    assert run("screen", EXAMPLE, "--pack", calibrated_pack_path, "-o", tmp_path / "torch", *options)[0] == 0
    onnx, torch = (rows_of(tmp_path / name / "part-00000.csv") for name in ("onnx", "torch"))
    assert [list(row) for row in onnx] == [list(row) for row in torch]
    for ours, theirs in zip(onnx, torch, strict=True):
        for column, text in theirs.items():
            try:
                assert float(ours[column]) == pytest.approx(float(text), rel=1e-3, abs=1e-3), column
            except ValueError:
                assert ours[column] == text
    code, _, err = run("screen", EXAMPLE, "--pack", calibrated_pack_path, "-o", tmp_path / "no", "--engine", "onnx")
    assert (code, err.count("\n")) == (2, 1)
    code, _, err = run("screen", EXAMPLE, "--pack", exported_path, "-o", tmp_path / "no", "--engine", "torch")
    assert (code, err.count("\n")) == (2, 1)
