"""The exported folder: whole or not there, described, and enough to score molecules without torch."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mora_lite import load
from mora_lite.chem.featurizer import Featurizer
from mora_lite.errors import DeviceError, ExportError, OutputError, PackError
from mora_lite.packs.pack import open_pack

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from mora_lite.export import writer  # noqa: E402
from mora_lite.export.featurizer import model_inputs  # noqa: E402
from mora_lite.export.writer import export_pack  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def exported(calibrated_pack_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything of the tiny pack that can be exported. Not to be changed."""
    out = tmp_path_factory.mktemp("exports") / "deep" / "tiny-onnx"
    export_pack(open_pack(calibrated_pack_path), out, full=True, plain=True, fp16=True, int8=True)
    return out


@pytest.fixture(scope="module")
def manifest(exported: Path) -> dict[str, Any]:
    return json.loads((exported / "export.json").read_text())


def test_it_holds_what_it_should(exported: Path, manifest: dict[str, Any]) -> None:
    models = {f"{name}.onnx" for name in ("encoder", "encoder.fp16", "encoder.int8", "scorer", "scorer.plain")}
    rest = {"featuriser.json", "parity.json", "trust.npz", "training.npz", "config.json", "README.md"}
    assert {file.name for file in exported.iterdir()} == models | rest | {"export.json"}
    assert set(manifest["files"]) == models | rest
    assert [path.name for path in exported.parent.iterdir()] == [exported.name]


def test_every_file_has_its_hash(exported: Path, manifest: dict[str, Any]) -> None:
    for name, entry in manifest["files"].items():
        content = (exported / name).read_bytes()
        assert entry == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def test_its_manifest_says_what_it_was_made_of(manifest: dict[str, Any], calibrated_pack_path: Path) -> None:
    pack = open_pack(calibrated_pack_path)
    assert manifest["format"] == 1
    assert manifest["pack"] == {"name": "tiny", "sha256": pack.manifest["sha256"], "base": pack.manifest["base"]}
    assert manifest["tasks"] == pack.manifest["tasks"]
    assert manifest["scorer"] == "scorer.onnx"
    assert manifest["opset"] == 22
    assert {"mora_lite", "torch", "onnx"} <= manifest.keys()


def test_every_model_says_so_too(exported: Path, manifest: dict[str, Any]) -> None:
    for name in (name for name in manifest["files"] if name.endswith(".onnx")):
        held = {entry.key: entry.value for entry in onnx.load(exported / name).metadata_props}
        assert json.loads(held["pack"]) == manifest["pack"], name
        assert json.loads(held["tasks"]) == manifest["tasks"]
        assert json.loads(held["featuriser"]) == json.loads((exported / "featuriser.json").read_text())
        assert held["mora_lite"] == manifest["mora_lite"]


def score(path: Path, graphs: Any, tasks: list[int]) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, model_inputs(graphs) | {"task_index": np.array(tasks)})[0]


@pytest.mark.parametrize("name", ["scorer.onnx", "scorer.plain.onnx"])
def test_it_scores_as_the_pack_does(
    exported: Path, calibrated_pack_path: Path, molecules: list[str], name: str
) -> None:
    graphs = Featurizer().read_smiles(molecules)
    model = load(calibrated_pack_path, device="cpu", dtype="float32")
    expected = model.score_graphs(graphs)
    deviation = np.array([task.deviation for task in model.tasks])
    assert (np.abs(score(exported / name, graphs, [0, 1, 2]) - expected) / deviation).max() <= 1e-4
    assert (np.abs(score(exported / name, graphs, [2]) - expected[:, [2]]) / deviation[2]).max() <= 1e-4


def test_only_the_tasks_asked_for_in_their_order(pack_path: Path, tmp_path: Path, molecules: list[str]) -> None:
    out = tmp_path / "out"
    export_pack(open_pack(pack_path), out, tasks=["mass", "size"], full=True)
    assert [task["name"] for task in json.loads((out / "export.json").read_text())["tasks"]] == ["mass", "size"]
    graphs = Featurizer().read_smiles(molecules)
    expected = load(pack_path, device="cpu", dtype="float32", tasks=["mass", "size"]).score_graphs(graphs)
    np.testing.assert_allclose(score(out / "scorer.onnx", graphs, [0, 1]), expected, rtol=1e-4, atol=1e-3)
    assert not (out / "trust.npz").exists(), "a pack without calibration"
    assert not (out / "scorer.plain.onnx").exists()


def test_the_encoder_alone_is_the_default(pack_path: Path, tmp_path: Path) -> None:
    export_pack(open_pack(pack_path), tmp_path / "out")
    names = {file.name for file in (tmp_path / "out").iterdir()}
    assert names == {"encoder.onnx", "export.json", "featuriser.json", "parity.json", "config.json", "README.md"}
    assert "scorer" not in json.loads((tmp_path / "out" / "export.json").read_text())


def test_calibration_and_domain_are_the_packs(exported: Path, calibrated_pack_path: Path) -> None:
    pack = open_pack(calibrated_pack_path)
    calibration, domain = pack.load_calibration(), pack.load_domain()
    assert calibration is not None
    assert domain is not None
    expected = calibration.tensors() | {f"domain.{name}": t for name, t in domain.tensors().items()}
    with np.load(exported / "trust.npz", allow_pickle=False) as held:
        assert set(held) == set(expected)
        for name, tensor in expected.items():
            assert held[name].dtype == tensor.numpy().dtype, name
            assert np.array_equal(held[name], tensor.numpy()), name


def test_smaller_encoders_are_smaller_and_near(exported: Path) -> None:
    parity = json.loads((exported / "parity.json").read_text())["models"]
    assert parity["encoder.fp16.onnx"]["reference evaluator"]["largest_difference"] > 1e-4, "it does count in float16"
    assert parity["encoder.int8.onnx"]["onnxruntime"]["rank_correlation_of_scores"]["least"] < 1
    full, half = (onnx.load(exported / f"encoder{kind}.onnx") for kind in ("", ".fp16"))
    sizes = [{t.name: len(t.raw_data) for t in model.graph.initializer} for model in (full, half)]
    assert sizes[1]["encoder/layer_0/conv/up/weight"] * 2 == sizes[0]["encoder/layer_0/conv/up/weight"]
    kinds = {node.op_type for node in onnx.load(exported / "encoder.int8.onnx").graph.node}
    assert "MatMulInteger" in kinds


def test_the_card_has_a_header_and_the_figures(exported: Path) -> None:
    card = (exported / "README.md").read_text(encoding="utf-8")
    header = card.split("---\n")[1]
    assert 'tags: ["chemistry"' in header
    assert '"onnx"]' in header
    assert "# tiny, as ONNX" in card
    assert "`scorer.onnx` | onnxruntime" in card
    assert "## What it answers" in card


def test_the_same_pack_gives_the_same_bytes(pack_path: Path, tmp_path: Path, no_gate: None) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    for out in (first, second):
        export_pack(open_pack(pack_path), out, full=True, fp16=True)
    for file in first.iterdir():
        assert file.read_bytes() == (second / file.name).read_bytes(), file.name


@pytest.mark.parametrize("opset", [17, 23, 0])
def test_opsets_that_it_does_not_write(pack_path: Path, tmp_path: Path, opset: int) -> None:
    with pytest.raises(ExportError, match=f"opset: got {opset}, expected 18 to 22"):
        export_pack(open_pack(pack_path), tmp_path / "out", opset=opset)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["onnx", "onnxruntime"])
def test_a_package_that_is_missing(pack_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(DeviceError, match=rf"needs the package {name}: pip install 'mora-lite\[onnx\]'"):
        export_pack(open_pack(pack_path), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_tasks_and_options_that_make_no_sense(pack_path: Path, tmp_path: Path) -> None:
    with pytest.raises(PackError, match="unknown task 'weight'"):
        export_pack(open_pack(pack_path), tmp_path / "out", tasks=["weight"])
    with pytest.raises(ExportError, match="--plain is a form of the whole scorer"):
        export_pack(open_pack(pack_path), tmp_path / "out", plain=True)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_is_taken(pack_path: Path, tmp_path: Path, no_gate: None) -> None:
    out = tmp_path / "out"
    out.mkdir()
    export_pack(open_pack(pack_path), out)  # an empty folder is free
    with pytest.raises(OutputError, match="exists; choose another name or use --force"):
        export_pack(open_pack(pack_path), out)
    export_pack(open_pack(pack_path), out, full=True, force=True)
    assert (out / "scorer.onnx").is_file()
    (out / "export.json").unlink()
    with pytest.raises(OutputError, match="is not an exported folder"):
        export_pack(open_pack(pack_path), out, force=True)
    assert (out / "scorer.onnx").is_file(), "strangers' files are safe from --force"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_place_that_cannot_be_written(pack_path: Path, tmp_path: Path, no_gate: None) -> None:
    (tmp_path / "file").write_text("")  # a folder without permission would not stop root
    with pytest.raises(OutputError, match=r"cannot write .*: \w+ .*; choose another place with -o"):
        export_pack(open_pack(pack_path), tmp_path / "file" / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_what_stops_it_leaves_what_was_there(
    pack_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_gate: None, stop: BaseException
) -> None:
    out = tmp_path / "out"
    export_pack(open_pack(pack_path), out)
    before = {file.name: file.read_bytes() for file in out.iterdir()}

    def fail(*args: object) -> None:
        raise stop

    monkeypatch.setattr(writer, "write_json", fail)
    with pytest.raises((KeyboardInterrupt, OutputError)):
        export_pack(open_pack(pack_path), out, force=True)
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_move_that_fails_brings_the_old_folder_back(
    pack_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_gate: None
) -> None:
    out = tmp_path / "out"
    export_pack(open_pack(pack_path), out)
    replace = os.replace

    def move(source: Path, target: Path) -> None:
        if target == out and str(source).endswith(".part"):
            raise OSError(13, "Permission denied")
        replace(source, target)

    monkeypatch.setattr("mora_lite.machine.files.os.replace", move)
    with pytest.raises(OutputError, match="Permission denied"):
        export_pack(open_pack(pack_path), out, full=True, force=True)
    assert not (out / "scorer.onnx").exists()
    assert (out / "encoder.onnx").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


# --- the command


def test_the_command(run: Any, pack_path: Path, tmp_path: Path, no_gate: None) -> None:
    code, out, err = run("export", pack_path, "--full", "--tasks", "size", "-o", tmp_path / "x")
    assert (code, out) == (0, "")
    assert re.search(r"x: \d+\.\d MB, checked in \d+ s", " ".join(err.split()))
    code, _, err = run("export", pack_path, "-o", tmp_path / "x")
    assert code == 2
    assert "exists; choose another name or use --force" in " ".join(err.split())
    code, _, err = run("export", pack_path, "--opset", "17", "-o", tmp_path / "y")
    assert code == 2
    assert err.startswith("error: opset: got 17, expected 18 to 22")
    assert not (tmp_path / "y").exists()


def test_the_command_tells_of_a_gate_that_does_not_open(
    run: Any, pack_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mora_lite.export import encoder_onnx

    monkeypatch.setattr(encoder_onnx, "count_molecules", lambda g: g.ints(2))
    code, out, err = run("export", pack_path, "-o", tmp_path / "x")
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith("error: encoder.onnx failed its check: got shape")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("pack", ["admet", "qm9"])
def test_the_shipped_packs(run: Any, tmp_path: Path, pack: str) -> None:
    """And the program of docs/onnx.md runs on what comes out, without torch."""
    out = tmp_path / f"{pack}-onnx"
    code, _, err = run("export", pack, "--full", "-o", out)
    assert code == 0, err
    found = json.loads((out / "parity.json").read_text())["models"]
    assert found["encoder.onnx"]["onnxruntime"]["largest_difference"] <= 1e-4
    assert found["scorer.onnx"]["onnxruntime"]["largest_difference"] <= 1e-3
    document = (ROOT / "docs" / "onnx.md").read_text(encoding="utf-8")
    program = re.findall(r"```python\n(.*?)```", document, flags=re.DOTALL)[0].replace("admet-onnx", out.name)
    program += "\nimport sys\nassert 'torch' not in sys.modules\n"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    model = load(pack, device="cpu", dtype="float32")
    lines = [line.split() for line in done.stdout.splitlines()]
    values = model.predict([lines[0][0]]).scores.values[0]
    assert [line[1] for line in lines] == [task.name for task in model.tasks]
    for line, task, value in zip(lines, model.tasks, values, strict=True):
        near = 0.005 if task.is_class else 0.02 * task.deviation
        assert float(line[2]) == pytest.approx(value, rel=0.01, abs=near), task.name
    domains = {one.domain for one in onnx.load(out / "scorer.onnx").opset_import}
    assert ("MatMulBnb4" in (out / "README.md").read_text()) == ("com.microsoft" in domains), "the card says which"
