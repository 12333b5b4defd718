"""A folder of static files that predicts in a browser: no server of this program's, nothing to install.

    index.html, page.css, site.css    the page, and its style
    page.js, answers.js, elements.js, form.js, table.js   its program
    worker.js, reader.js, scores.js   its thread: SMILES to graphs, graphs to values, intervals and domain
    reader.wasm                       the native reader (mora_lite/chem/csrc) compiled to WebAssembly
    runtime/ort.js, runtime/ort.wasm  ONNX Runtime Web, with its licence
    scorer.onnx                       graphs to values, as `export --full` writes it
    domain.bin                        fingerprints of the training molecules, of packs that were calibrated
    site.json                         tasks with calibration and percentiles; bytes and SHA-256 of the other files

The values are those of the exported folder, which passes its gate first.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..chem import native
from ..errors import ExportError
from ..machine.files import file_entry, sha256_of, temporary_folder, write_json
from ..packs.manifest import FolderKind
from ..packs.pack import Pack
from ..reports.page import decimals_for
from ..scoring.conformal import Platt
from ..scoring.domain import Domain
from ..scoring.scores import Calibrator
from .folder import TRAINING_FILE
from .runtime import OnnxModel, load
from .writer import export_pack

SITE = FolderKind("site.json", "an exported page", "export it again, or copy the whole folder again", sealed=False)
RUNTIME_VERSION = "1.30.0"
RUNTIME_PACKAGE = f"onnxruntime-web@{RUNTIME_VERSION}"
RUNTIME_FOLDER = Path("node_modules/onnxruntime-web/dist")  # where `npm install` puts it
# Of the package's folder dist: name there -> name in the site, and the SHA-256 of the version that was tested.
RUNTIME_FILES = {
    "ort.wasm.bundle.min.mjs": ("ort.js", "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90"),
    "ort-wasm-simd-threaded.wasm": ("ort.wasm", "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2"),
}
CONFIDENCE = 0.9
SHARED = ("page.css", "answers.js", "elements.js", "form.js")  # with the page of `serve`
SCORER, DOMAIN = "scorer.onnx", "domain.bin"
DIGITS = 7  # significant, of numbers in site.json: those of float32


def export_site(
    pack: Pack,
    out: Path,
    *,
    runtime: Path | None = None,
    tasks: Sequence[str] | None = None,
    force: bool = False,
    on_note: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Write the folder `out`, and return the content of the export's parity.json.

    runtime: the folder dist of the npm package onnxruntime-web; None for `RUNTIME_FOLDER`.
    tasks, on_note: as for `export_pack`.

    Raises `ExportError` for a pack that a browser cannot read molecules for, for another ONNX Runtime Web, and what
    `export_pack` raises; then nothing is written.
    """
    if pack.featurizer.version != native.VERSION:
        raise ExportError(
            f"{pack.name} has graph codes of version {pack.featurizer.version}, and the page reads version "
            f"{native.VERSION}; train the pack again"
        )
    SITE.check_free(out, force)  # before the slow work
    runtime_files = find_runtime(runtime)

    def on_export_note(line: str) -> None:
        if not line.startswith(TRAINING_FILE):  # which stays here: the page holds fingerprints alone
            on_note(line)

    with tempfile.TemporaryDirectory(prefix="mora-lite-", dir=temporary_folder()) as folder:
        exported = Path(folder) / "onnx"
        report = export_pack(pack, exported, tasks=tasks, full=True, on_note=on_export_note)
        model = load(exported, provider="cpu", confidence=CONFIDENCE)
        with SITE.staged(out, force) as stage:
            _copy_program(stage, runtime_files)
            shutil.copyfile(exported / SCORER, stage / SCORER)
            described = describe_site(model)
            if model.calibrator is not None:
                described["domain"] = {"file": DOMAIN, **_write_domain(stage / DOMAIN, model.calibrator.domain)}
            files = sorted(path for path in stage.rglob("*") if path.is_file())
            entries = {path.relative_to(stage).as_posix(): file_entry(path) for path in files}
            write_json(stage / SITE.manifest, described | {"files": entries})
    return report


def find_runtime(folder: Path | None) -> dict[str, Path]:
    """The files of ONNX Runtime Web: name in the site -> path. Raises `ExportError` unless they are the tested ones."""
    folder = RUNTIME_FOLDER if folder is None else folder
    found = {}
    for name, (target, sha256) in RUNTIME_FILES.items():
        path = folder / name
        if not path.is_file():
            raise ExportError(
                f"--web needs ONNX Runtime Web, and {path} does not exist: npm install {RUNTIME_PACKAGE}, or name the "
                "folder dist of that package with --runtime"
            )
        if sha256_of(path) != sha256:
            raise ExportError(
                f"{path} is not of version {RUNTIME_VERSION}, with which the page was tested: "
                f"npm install {RUNTIME_PACKAGE}"
            )
        found[target] = path
    return found


def _copy_program(stage: Path, runtime_files: dict[str, Path]) -> None:
    """What is the same for all packs."""
    for source in sorted(resources.files(__package__).joinpath("page").iterdir(), key=lambda file: file.name):
        (stage / source.name).write_bytes(source.read_bytes())
    for name in SHARED:
        (stage / name).write_bytes(resources.files("mora_lite.serve").joinpath("page", name).read_bytes())
    (stage / "runtime").mkdir()
    (stage / "onnxruntime-web.txt").replace(stage / "runtime" / "LICENSE.txt")
    for name, path in runtime_files.items():
        shutil.copyfile(path, stage / "runtime" / name)


def describe_site(model: OnnxModel) -> dict[str, Any]:
    """What the page knows of a model, in plain types."""
    calibrator = model.calibrator
    known = model.approved.percentiles
    tasks = []
    for i, task in enumerate(model.tasks):
        entry = task.as_dict() | {"column": task.column, "decimals": decimals_for(task)}
        del entry["prompt"]
        entry["percentiles"] = _short(known[i])
        tasks.append(entry | (describe_trust(calibrator, i) if calibrator is not None else {}))
    return {
        "format": SITE.format,
        "mora_lite": __version__,
        "pack": model.exported.name,
        "pack_sha256": model.pack_sha256,
        "standardize": model.featurizer.standardize,
        "model": SCORER,
        "calibrated": calibrator is not None,
        "confidence": CONFIDENCE,
        "tasks": tasks,
        "domain": None,
    }


def describe_trust(calibrator: Calibrator, i: int) -> dict[str, Any]:
    """Of the task at position `i`: `threshold`, and `platt` or `interval`, whose quantiles are those of the confidence.

    interval: `similarity` and `log_sigma` as `Intervals` has them; `score` and `floor`, by which `half_width` is
    `max(sigma * score, floor)`; score is None when no width is enough.
    """
    part, threshold = calibrator.parts[i], float(calibrator.thresholds[i])
    if isinstance(part, Platt):
        return {"threshold": threshold, "platt": [part.slope, part.intercept]}
    score = part.score_at(calibrator.confidence)
    return {
        "threshold": threshold,
        "interval": {
            "similarity": part.similarity.tolist(),
            "log_sigma": part.log_sigma.tolist(),
            "score": None if math.isinf(score) else score,
            "floor": part.floor_at(calibrator.confidence),
        },
    }


def _short(numbers: np.ndarray) -> list[float]:
    return [float(f"{number:.{DIGITS}g}") for number in numbers.tolist()]


def _write_domain(path: Path, domain: Domain) -> dict[str, int]:
    """Write what `Domain.tensors` has, as reader.js takes it; returns the numbers of rows and patterns.

    Little endian, in this order: sizes uint32 `[M]`, counts uint16 `[N]`, patterns, packed, uint8 `[M, ceil(P / 8)]`,
    deflated.
    """
    tensors = {name: tensor.numpy() for name, tensor in domain.tensors().items()}
    parts = (
        tensors["sizes"].astype("<u4"),
        tensors["counts"].astype("<u2"),
        np.packbits(tensors["patterns"].astype(bool), axis=1),
        tensors["deflated"],
    )
    path.write_bytes(b"".join(part.tobytes() for part in parts))
    return {"n_rows": len(tensors["counts"]), "n_patterns": len(tensors["sizes"])}
