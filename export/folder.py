"""An exported folder as it is read: what export.json says, and files whose SHA-256 is checked before they are used.

    export.json   format, pack, versions, tasks, `scorer`, and of every other file its bytes and SHA-256
    scorer.onnx   from molecule graphs to values; other names may be given by `scorer`
    training.npz  SMILES and measured values of the training molecules (optional)
    trust.npz     error bars, calibrated probabilities and fingerprints of the training molecules (optional)

Nothing here needs torch.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..chem.featurizer import Featurizer
from ..errors import PackError, first_line, fitting
from ..hub.packs import local_path
from ..packs.manifest import EXPORT, TRAINING
from ..scoring.conformal import Calibration
from ..scoring.domain import Domain
from ..scoring.scores import Calibrator
from ..scoring.tasks import Task
from ..scoring.training_molecules import TrainingMolecules

MANIFEST = EXPORT.manifest
TRUST = "trust.npz"
TRAINING_FILE = f"{TRAINING}.npz"
DOMAIN = "domain."  # what the names of the domain's arrays begin with in trust.npz


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

    @property
    def featurizer(self) -> Featurizer:
        """How molecules become the models' inputs."""
        return Featurizer.of(self.manifest)

    def file(self, name: str) -> Path:
        """The file of this name, checked. Raises `PackError` when it is missing or damaged."""
        return EXPORT.check_file(self.manifest, name, self.path)

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
        tensors = self._arrays(TRUST)
        with fitting(f"{self.path / TRUST} cannot be read", EXPORT.again):
            calibration = Calibration.from_tensors(tensors, len(self.tasks))
            return Calibrator.of(calibration, _domain_of(tensors), chosen, confidence)

    def load_training(self) -> TrainingMolecules:
        """The training molecules with their values. Raises `PackError` when the folder does not hold them."""
        if not {TRUST, TRAINING_FILE} <= self.manifest["files"].keys():
            raise PackError(
                f"{self.path} does not hold the training molecules of {self.name}, so it cannot name neighbours; "
                "export it again from a pack that holds them"
            )
        with fitting(f"{self.path / TRAINING_FILE} cannot be read", EXPORT.again):
            return TrainingMolecules.from_tensors(self._arrays(TRAINING_FILE), _domain_of(self._arrays(TRUST)))

    def _arrays(self, name: str) -> dict[str, np.ndarray]:
        """The arrays of a file, checked."""
        file = self.file(name)
        try:
            with zipfile.ZipFile(file) as archive:
                if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                    raise zipfile.BadZipFile("its arrays are compressed")  # to what size, nobody knows before
            with np.load(file, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files}
        # NumPy's reader of headers raises what Python's tokenizer does, and MemoryError for a size that cannot be.
        except Exception as error:
            raise PackError(f"{file} cannot be read: {first_line(error, 200)}; {EXPORT.again}") from None


def _domain_of(tensors: dict[str, np.ndarray]) -> Domain:
    """The domain among the arrays of trust.npz."""
    named = {name.removeprefix(DOMAIN): array for name, array in tensors.items() if name.startswith(DOMAIN)}
    return Domain.from_tensors(named)


def open_exported(path: str | Path) -> Exported:
    """Read the manifest of an exported folder, given by path or by `hf:owner/name`.

    Raises `PackError` when it is missing, damaged, or of a format that this version cannot read.
    """
    path = Path(local_path(path))
    if not (path / MANIFEST).is_file():
        raise PackError(
            f"{path} is no exported folder (it has no {MANIFEST}); ONNX Runtime needs one: "
            f"mora-lite export {path} --full -o DIR"
        )
    exported = Exported(path, EXPORT.read(path))
    with fitting(f"{path / MANIFEST} is damaged", EXPORT.again):
        # All that is used later, so that what is missing is reported here.
        assert isinstance(exported.name, str)
        assert isinstance(exported.tasks, tuple)
        assert isinstance(exported.featurizer, Featurizer)
    return exported
