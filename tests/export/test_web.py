"""The folder of static files: whole or not there, of files that are known, with the numbers of the pack."""

from __future__ import annotations

import hashlib
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from parity_gate import leave_open
from reader_wasm import SHIPPED, ZIG, compile_reader, recorded_sha256, sources_sha256

from mora_lite import serve
from mora_lite.errors import ExportError, OutputError
from mora_lite.packs.pack import Pack, open_pack
from mora_lite.scoring import predictor
from mora_lite.scoring.conformal import Intervals, Platt
from mora_lite.scoring.domain import Domain
from mora_lite.scoring.scores import Calibrator

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from mora_lite.export import web
from mora_lite.export.web import describe_trust, export_site, find_runtime

PAGE = Path(web.__file__).parent / "page"
SERVED = Path(serve.__file__).parent / "page"


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with files of the right names."""
    folder = tmp_path_factory.mktemp("runtime") / "dist"
    folder.mkdir()
    for name in web.RUNTIME_FILES:
        (folder / name).write_text(f"in place of {name}")
    return folder


@pytest.fixture(autouse=True, scope="module")
def tested_version(runtime: Path) -> Any:
    """These files count as the tested ones. Few approved drugs, and no gate, to be quick."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predictor, "approved_smiles", lambda: ["CCO", "c1ccccc1", "CC(=O)O", "NCC(=O)O"])
        leave_open(patch)
        found = {name: hashlib.sha256((runtime / name).read_bytes()).hexdigest() for name in web.RUNTIME_FILES}
        files = {name: (target, found[name]) for name, (target, _) in web.RUNTIME_FILES.items()}
        patch.setattr(web, "RUNTIME_FILES", files)
        yield


@pytest.fixture(scope="module")
def pack(calibrated_pack_path: Path) -> Pack:
    return open_pack(calibrated_pack_path)


@pytest.fixture(scope="module")
def site(pack: Pack, runtime: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be changed."""
    out = tmp_path_factory.mktemp("sites") / "site"
    export_site(pack, out, runtime=runtime)
    return out


@pytest.fixture(scope="module")
def described(site: Path) -> dict[str, Any]:
    return json.loads((site / "site.json").read_text())


# --- the folder


def test_it_holds_the_page_the_runtime_and_the_pack(site: Path, described: dict[str, Any]) -> None:
    files = {path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()}
    page = {path.name for path in PAGE.iterdir()} - {"onnxruntime-web.txt"}
    runtime = {"runtime/ort.js", "runtime/ort.wasm", "runtime/LICENSE.txt"}
    assert files == page | runtime | {*web.SHARED, "scorer.onnx", "domain.bin", "site.json"}
    assert set(described["files"]) == files - {"site.json"}
    for name, entry in described["files"].items():
        content = (site / name).read_bytes()
        assert entry == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def test_the_page_asks_for_nothing_elsewhere() -> None:
    """Addresses in it are those of the user's own computer; the policy of the page forbids others anyway."""
    for path in [*PAGE.iterdir(), *(SERVED / name for name in web.SHARED)]:
        if path.suffix not in (".wasm", ".txt"):
            text = path.read_text(encoding="utf-8")
            assert set(re.findall(r"(?:https?:)?//[\w.]+", text)) <= {"http://localhost"} | set(
                re.findall("// ?", text)
            )
            assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', (PAGE / "index.html").read_text())
    assert policy is not None
    assert policy[1].startswith("default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';")


def test_tasks_are_described_with_what_is_known_of_them(described: dict[str, Any], pack: Pack) -> None:
    assert described["pack"] == "tiny"
    assert described["standardize"] == "parent"
    assert described["calibrated"]
    assert [task["name"] for task in described["tasks"]] == [task.name for task in pack.tasks]
    for task, given in zip(described["tasks"], pack.tasks, strict=True):
        assert (task["column"], task["unit"], task["deviation"]) == (given.column, given.unit, given.deviation)
        assert task["percentiles"] == sorted(task["percentiles"])
        assert len(task["percentiles"]) == 101
        assert "prompt" not in task  # the graph holds what the model made of it


def test_the_training_molecules_are_not_in_it(site: Path, pack: Pack) -> None:
    """Their fingerprints are, which tell how near a molecule is."""
    smiles = [text for text in pack.load_training().smiles if len(text) > 9]
    assert smiles
    for path in site.rglob("*.*"):
        if path.is_file():
            content = path.read_bytes()
            assert not [text for text in smiles if text.encode() in content], path


def test_some_tasks(pack: Pack, runtime: Path, tmp_path: Path) -> None:
    export_site(pack, tmp_path / "site", runtime=runtime, tasks=["polarity"])
    described = json.loads((tmp_path / "site" / "site.json").read_text())
    assert [task["name"] for task in described["tasks"]] == ["polarity"]
    assert described["domain"]["n_patterns"] == 1


def test_a_pack_without_calibration(pack_path: Path, runtime: Path, tmp_path: Path) -> None:
    export_site(open_pack(pack_path), tmp_path / "site", runtime=runtime)
    described = json.loads((tmp_path / "site" / "site.json").read_text())
    assert (described["calibrated"], described["domain"]) == (False, None)
    assert not (tmp_path / "site" / "domain.bin").exists()
    assert not {"platt", "interval", "threshold"} & set(described["tasks"][0])


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.999])
def test_widths_follow_from_what_is_described(confidence: float) -> None:
    rng = np.random.default_rng(1)
    parts = [
        Intervals(np.array([0.2, 0.5, 1.0]), np.array([0.3, -0.2, -1.0]), np.sort(rng.random(90)).astype(np.float32)),
        Intervals(np.zeros(1), np.zeros(1), np.sort(rng.random(40)).astype(np.float32), np.array([0.1, 0.7], "f4")),
    ]
    domain = Domain.of(np.zeros((0, 128), np.uint8), np.zeros((0, 3), bool))
    calibrator = Calibrator([*parts, Platt(1.5, -0.25)], np.array([0.1, 0.2, 0.3], np.float32), domain, confidence)
    similarity = np.linspace(0, 1, 21)
    for i, part in enumerate(parts):
        known = describe_trust(calibrator, i)["interval"]
        sigma = np.exp(np.interp(similarity, known["similarity"], known["log_sigma"]))
        score = math.inf if known["score"] is None else known["score"]
        got = np.maximum(sigma * score, known["floor"]).astype(np.float32)
        np.testing.assert_array_equal(got, part.half_width(similarity, confidence))
    assert describe_trust(calibrator, 2) == {"threshold": pytest.approx(0.3), "platt": [1.5, -0.25]}


# --- what cannot be


def test_an_earlier_page_is_replaced_only_when_asked(site: Path, pack: Pack, runtime: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="exists; choose another name or use --force"):
        export_site(pack, site, runtime=runtime)
    out = tmp_path / "site"
    export_site(pack, out, runtime=runtime, tasks=["size"])
    export_site(pack, out, runtime=runtime, tasks=["mass"], force=True)
    assert [task["name"] for task in json.loads((out / "site.json").read_text())["tasks"]] == ["mass"]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="is not an exported page, so --force does not replace it"):
        export_site(pack, tmp_path / "other", runtime=runtime, force=True)


def test_without_the_runtime_the_command_that_brings_it_is_named(tmp_path: Path, runtime: Path) -> None:
    with pytest.raises(ExportError, match=r"does not exist: npm install onnxruntime-web@[\d.]+, or name the folder"):
        find_runtime(tmp_path)
    for name in web.RUNTIME_FILES:
        (tmp_path / name).write_text("another version")
    with pytest.raises(ExportError, match=rf"is not of version {web.RUNTIME_VERSION}"):
        find_runtime(tmp_path)
    assert set(find_runtime(runtime)) == {"ort.js", "ort.wasm"}


def test_packs_of_the_first_graph_codes_are_refused(first_pack_path: Path, runtime: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="graph codes of version 1, and the page reads version 2; train the pack"):
        export_site(open_pack(first_pack_path), tmp_path / "site", runtime=runtime)
    assert not list(tmp_path.iterdir())


def test_the_command_says_how_large_it_is_and_how_to_try_it(
    run: Any, calibrated_pack_path: Path, runtime: Path, tmp_path: Path
) -> None:
    out = tmp_path / "site"
    code, printed, err = run("export", calibrated_pack_path, "--web", "--runtime", runtime, "-o", out)
    assert (code, printed) == (0, "")
    assert re.search(r"site: \d+\.\d MB, checked in \d+ s\n", err)
    assert f"to try it: python -m http.server --bind 127.0.0.1 -d {out}\n" in err
    assert "training.npz" not in err


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--web", "--full"], "--web goes with --runtime, --tasks, --force and -o alone"),
        (["--web", "--opset", 20], "--web goes with --runtime, --tasks, --force and -o alone"),
        (["--runtime", "dist"], "--runtime is for --web"),
        (["--web", "--peft", "CCO"], "--peft goes with --base, --force and -o alone"),
    ],
)
def test_options_that_do_not_go_together(
    run: Any, calibrated_pack_path: Path, tmp_path: Path, options: list[Any], line: str
) -> None:
    code, _, err = run("export", calibrated_pack_path, *options, "-o", tmp_path / "out")
    assert (code, err.count("\n")) == (2, 1)
    assert line in err
    assert not (tmp_path / "out").exists()


# --- reader.wasm


def test_the_compiled_reader_is_that_of_the_sources() -> None:
    """It is a file of the repository, so that nobody needs a compiler; `make reader` makes it anew."""
    assert recorded_sha256(SHIPPED) == sources_sha256(), "mora_lite/chem/csrc has changed: make reader"
    assert SHIPPED.stat().st_size < 200_000


def test_the_sources_give_its_bytes(tmp_path: Path) -> None:
    metadata = pytest.importorskip("importlib.metadata")
    try:
        version = metadata.version("ziglang")
    except metadata.PackageNotFoundError:
        pytest.skip(f"no C compiler for WebAssembly: pip install ziglang=={ZIG}")
    if version != ZIG:
        pytest.skip(f"ziglang {version} may give other bytes: pip install ziglang=={ZIG}")
    compile_reader(tmp_path / "reader.wasm")
    assert (tmp_path / "reader.wasm").read_bytes() == SHIPPED.read_bytes()
