"""The exported folder: models, what they were made from, how to feed them, and what the parity gate found.

    export.json          pack, versions, tasks, SHA-256 of every other file
    encoder.onnx         graphs -> tokens; encoder.fp16.onnx and encoder.int8.onnx when asked for
    scorer.onnx          graphs -> values, 4-bit matrices as they are in the pack (full)
    scorer.plain.onnx    the same in standard operators only (plain)
    featuriser.json      how a molecule becomes the inputs
    training.npz         SMILES and measured values of the training molecules, of packs that hold them (full)
    trust.npz            intervals, probabilities and domain, of packs that have them (full)
    parity.json          what the gate compared and found
    config.json          lets Hugging Face Optimum load the folder
    README.md            model card

The folder gets its name only when all of it is written and has passed the gate.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .. import __version__
from ..errors import DeviceError, ExportError
from ..machine.files import file_entry, write_json
from ..packs.manifest import CARD, EXPORT, TRAINING
from ..packs.pack import Pack, join_nf4
from ..scoring.tasks import Task, choose_tasks
from .card import export_card
from .folder import DOMAIN, TRAINING_FILE, TRUST

if TYPE_CHECKING:
    import onnx

    from .parity import Gate

OPSETS = range(18, 23)
OPSET = 22  # the newest that onnxruntime 1.22 reads


def export_pack(
    pack: Pack,
    out: Path,
    *,
    tasks: Sequence[str] | None = None,
    full: bool = False,
    plain: bool = False,
    fp16: bool = False,
    int8: bool = False,
    opset: int = OPSET,
    force: bool = False,
    on_note: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Write the folder `out` and return the content of its parity.json.

    tasks: names, None for all.
    on_note: called with a line for each file as it is made.

    Raises `ExportError` when a model does not give the pack's numbers, `OutputError` when `out` cannot be written,
    `DeviceError` when onnx or onnxruntime is missing; then nothing is written.
    """
    check_packages()
    _check_options(pack, full, plain, opset)
    EXPORT.check_free(out, force)  # before the slow work
    chosen = choose_tasks(pack.tasks, tasks)

    from .encoder_onnx import build_encoder
    from .featurizer import describe_featurizer
    from .int8 import quantize_encoder
    from .parity import Gate
    from .scorer_onnx import build_scorer

    scorer = pack.load_scorer()
    scorer.select(chosen)
    selected = [pack.tasks[i] for i in chosen]
    featurizer = describe_featurizer(pack.featurizer)
    origin = origin_of(pack, opset)
    described = {**origin, "tasks": [task.as_dict() for task in selected], "featuriser": featurizer}
    metadata = {name: text if isinstance(text, str) else json.dumps(text) for name, text in described.items()}
    gate = Gate(scorer, selected, on_note)
    with EXPORT.staged(out, force) as stage, torch.no_grad():
        encoder = build_encoder(scorer.encoder, opset, metadata)
        gate.encoder(_save(stage / "encoder.onnx", encoder), encoder)
        if fp16:
            half = build_encoder(scorer.encoder, opset, metadata, half=True)
            gate.encoder(_save(stage / "encoder.fp16.onnx", half), half, "fp16")
        if int8:
            quantize_encoder(stage / "encoder.onnx", stage / "encoder.int8.onnx", metadata)
            gate.encoder(stage / "encoder.int8.onnx", reduced="int8")
        if full:
            build = functools.partial(build_scorer, scorer, selected, join_nf4(pack.tensors("upper")), opset, metadata)
            _write_scorers(stage, gate, build, plain)
            write_trust(stage, pack, chosen, on_note)
        report = gate.report()
        write_json(stage / "featuriser.json", featurizer)
        _write_manifest(stage, pack, selected, report, origin | ({"scorer": "scorer.onnx"} if full else {}))
    return report


def _check_options(pack: Pack, full: bool, plain: bool, opset: int) -> None:
    if opset not in OPSETS:
        raise ExportError(f"opset: got {opset}, expected {OPSETS[0]} to {OPSETS[-1]}; leave --opset out for {OPSET}")
    if plain and not full:
        raise ExportError("--plain is a form of the whole scorer: give --full too")
    if full and pack.has("trees"):
        raise ExportError(
            f"{pack.name} has trees on RDKit's descriptors, which ONNX files do not compute, so the whole scorer "
            "cannot be exported; leave out --full for the encoder alone, or train the pack without --trees"
        )


def _save(path: Path, model: onnx.ModelProto) -> Path:
    import onnx

    onnx.save(model, path)
    return path


def _write_scorers(stage: Path, gate: Gate, build: Callable[..., onnx.ModelProto], plain: bool) -> None:
    """Write and check scorer.onnx, and scorer.plain.onnx, which stays only where `plain` is set."""
    gate.scorer(_save(stage / "scorer.onnx", build()))
    # Made and checked in any case: it is the same graph, and the one that the onnx package can run.
    model = build(plain=True)
    gate.scorer(_save(stage / "scorer.plain.onnx", model), model)
    if not plain:
        (stage / "scorer.plain.onnx").unlink()


def check_packages() -> None:
    """Raises `DeviceError` unless both packages are there."""
    for name in ("onnx", "onnxruntime"):
        try:
            __import__(name)
        except ImportError:
            raise DeviceError(f"export needs the package {name}: pip install 'mora-lite[onnx]'") from None


def _write_manifest(
    stage: Path, pack: Pack, tasks: list[Task], report: dict[str, Any], described: dict[str, Any]
) -> None:
    """Write what says of the models in `stage` where they are from, how near they are to torch, and what they hold."""
    write_json(stage / "parity.json", report)
    # Optimum's classes want the file; what is in it is free as long as it names no kind of transformers model.
    write_json(stage / "config.json", {"mora_lite": __version__, "pack": pack.name, "tasks": [t.name for t in tasks]})
    files = {file.name: file.stat().st_size for file in sorted(stage.iterdir())}
    (stage / CARD).write_text(export_card(pack.manifest, tasks, files, report), encoding="utf-8")
    entries = {file.name: file_entry(file) for file in sorted(stage.iterdir())}
    manifest = {"format": EXPORT.format, "files": entries, "tasks": [task.as_dict() for task in tasks]}
    write_json(stage / EXPORT.manifest, described | manifest)


def origin_of(pack: Pack, opset: int) -> dict[str, Any]:
    """What a model was made from and with; plain types."""
    import onnx

    return {
        "pack": {"name": pack.name, "sha256": pack.manifest["sha256"], "base": pack.manifest["base"]},
        "mora_lite": __version__,
        "torch": torch.__version__,
        "onnx": onnx.__version__,
        "opset": opset,
        "featurizer": pack.featurizer.as_dict(),
    }


def write_trust(folder: Path, pack: Pack, chosen: list[int], on_note: Callable[[str], None]) -> None:
    """Write trust.npz: what `conformal.Calibration.tensors` and `domain.Domain.tensors` (as `domain.NAME`) hold; and
    training.npz: what `TrainingMolecules.tensors` hold, whose rows are those of that domain.

    Nothing is written for a pack that was not calibrated, and no training.npz for one without training molecules.
    """
    calibration, domain = pack.load_calibration(), pack.load_domain()
    if calibration is None or domain is None:
        return
    tensors = calibration.select(chosen).tensors()
    tensors |= {f"{DOMAIN}{name}": tensor for name, tensor in domain.select(chosen).tensors().items()}
    _save_arrays(folder / TRUST, tensors)
    if pack.has(TRAINING):
        on_note(f"{TRAINING_FILE}: the training molecules and their values, as the pack holds them")
        # Of all tasks they are copied as they are: packing them again takes seconds.
        every = chosen == list(range(len(pack.tasks)))
        tensors = pack.tensors(TRAINING) if every else pack.load_training().select(chosen).tensors()
        _save_arrays(folder / TRAINING_FILE, tensors)


def _save_arrays(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in tensors.items()}
    np.savez(path, **arrays)
