"""An exported folder as it is read: what export.json says, and files whose SHA-256 is checked before they are used.

    export.json   format, pack, versions, tasks, `scorer`, and of every other file its bytes and SHA-256
    scorer.onnx   from molecule graphs to values; other names may be given by `scorer`
    trust.npz     error bars, calibrated probabilities and fingerprints of the training molecules (optional)

Nothing here needs torch.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import PackError
from ..hub.packs import local_path
from ..machine.files import verify_file
from ..scoring.conformal import Calibration
from ..scoring.domain import Domain
from ..scoring.scores import Calibrator
from ..scoring.tasks import Task

FORMAT = 1
MANIFEST = "export.json"
TRUST = "trust.npz"
DOMAIN = "domain."  # what the names of the domain's arrays begin with in trust.npz
AGAIN = "export it again, or copy the whole folder again"


@dataclass(frozen=True)
class Exported:
    """An exported folder whose manifest was read. `manifest` is the content of export.json."""

    path: Path
    manifest: dict[str, Any]

    @property
    def name(self) -> str:
        """Of the pack it was made from."""
        return self.manifest["pack"]["name"]

    @property
    def tasks(self) -> tuple[Task, ...]:
        return tuple(Task(**fields) for fields in self.manifest["tasks"])

    def file(self, name: str) -> Path:
        """Where the file lies, once its size and SHA-256 were found right. Raises `PackError` when they are not."""
        entry = self.manifest["files"].get(name)
        file = self.path / name
        if entry is None or name != Path(name).name or not file.is_file():
            raise PackError(f"{self.path}: {name} is missing; {AGAIN}")
        if not verify_file(file, entry):
            raise PackError(f"{file} is damaged (its SHA-256 is wrong); {AGAIN}")
        return file

    def scorer_file(self) -> Path:
        """The model from molecule graphs to values. Raises `PackError` when the export has none."""
        name = self.manifest.get("scorer")
        if name is None:
            raise PackError(
                f"{self.path} holds the encoder alone, which gives no values; "
                f"export the whole scorer: mora-lite export {self.name} --full -o DIR"
            )
        for part in self.manifest["files"]:
            if part.startswith(f"{name}."):  # weights that ONNX keeps beside a large model
                self.file(part)
        return self.file(name)

    def load_trust(self, chosen: Sequence[int], confidence: float) -> Calibrator | None:
        """Error bars and domain of the tasks at the positions `chosen`; None when the pack was not calibrated."""
        if TRUST not in self.manifest["files"]:
            return Calibrator.of(None, None, chosen, confidence)
        file = self.file(TRUST)
        try:
            with np.load(file, allow_pickle=False) as arrays:
                held = {name: arrays[name] for name in arrays.files}
            domain = {name.removeprefix(DOMAIN): array for name, array in held.items() if name.startswith(DOMAIN)}
            calibration = Calibration.from_tensors(held, len(self.tasks))
            return Calibrator.of(calibration, Domain.from_tensors(domain), chosen, confidence)
        except (OSError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise PackError(f"{file} cannot be read: {error}; {AGAIN}") from None


def is_exported(path: str | Path) -> bool:
    """Whether this is a folder that `mora-lite export` wrote, on disk or in a repository of the hub."""
    return (Path(local_path(path)) / MANIFEST).is_file()


def open_exported(path: str | Path) -> Exported:
    """Read the manifest of an exported folder, given by path or by `hf:owner/name`.

    Raises `PackError` when it is missing, damaged, or of a format that this version cannot read.
    """
    path = Path(local_path(path))
    file = path / MANIFEST
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
        version = manifest["format"]
        opened = Exported(path, manifest)
        if version == FORMAT:
            assert_complete(opened)
    except FileNotFoundError:
        raise PackError(
            f"{path} is no exported folder (it has no {MANIFEST}); ONNX Runtime needs one: "
            f"mora-lite export {path} --full -o DIR"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, PackError):
            raise
        raise PackError(f"{file} is damaged ({type(error).__name__}: {error}); {AGAIN}") from None
    if version != FORMAT:
        raise PackError(f"{path}: export format {version}, but this version reads format {FORMAT}; update mora-lite")
    return opened


def assert_complete(opened: Exported) -> None:
    """Touch all that is used later, so that what is missing is told here: KeyError, TypeError or AttributeError."""
    assert isinstance(opened.name, str)
    tuple(opened.tasks)
    for entry in opened.manifest["files"].values():
        entry["bytes"], entry["sha256"]
