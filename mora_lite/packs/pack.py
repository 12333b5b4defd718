"""A pack: one directory that answers a set of tasks, without the base model's lower layers and vocabulary.

    pack.json            format, sizes, tasks, provenance, SHA-256 of every other file and of itself
    adapter.safetensors  encoder, hypernetwork and C in float16, read-outs in float32
    prompts.safetensors  the compiled prompts, float32
    upper-HASH.safetensors  the base model's upper layers, NF4; packs over one base share it in ../upper/
    baseline.safetensors the encoder-only baseline, float16 (optional)
    calibration.safetensors  error bars and calibrated probabilities (optional)
    domain.safetensors   fingerprints of the training molecules (optional)
    trees.safetensors    boosted trees on descriptors (optional)
    training.safetensors   SMILES and measured values of the training molecules (optional)
    README.md            model card; not checked

Everything is checked at load, so a damaged or exchanged file is an error and never a wrong prediction.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..adapter.encoder import EncoderBaseline, GraphEncoder
from ..adapter.lowrank import AdapterConfig
from ..architecture import DecoderConfig
from ..chem.descriptors import n_columns
from ..chem.featurizer import Featurizer
from ..chem.graph import ATOM_FIELDS, BOND_FIELDS
from ..errors import PackError, did_you_mean, fitting
from ..hub.packs import TEXT_MANIFEST, local_path
from ..lm.prefix import CompiledPrompts, UpperLayers
from ..machine.files import file_entry, replace_folder, replacing, replacing_path, sha256_of, write_tensors
from ..quant.linear import Mode
from ..quant.nf4 import NF4Tensor, from_tensors, to_tensors
from ..scoring.conformal import Calibration
from ..scoring.domain import Domain
from ..scoring.scorer import Scorer
from ..scoring.tasks import Task
from ..scoring.training_molecules import TrainingMolecules
from ..scoring.trees import Trees
from .card import model_card
from .installed import find_installed, installed
from .manifest import CARD, EXPORT, PACK, TRAINING, check_entries, seal

MANIFEST = PACK.manifest
# What the provenance of a pack says of its training, as `check_entries` takes it.
TRAINED_ON = {
    "data": {"file": str, "rows": int, "smiles_sha256": str},
    "split": {"seed": int},
    "recipe": {"smiles": str, "tasks": [{"name": str, "column": str}]},
}
SHARED = "upper"  # folder beside packs for upper layers that several of them use


@dataclass(frozen=True)
class Pack:
    """A pack on disk whose files have been checked. `manifest` is the content of pack.json."""

    path: Path
    manifest: dict[str, Any] = field(repr=False)  # of thousands of lines

    @property
    def name(self) -> str:
        return self.manifest["name"]

    @property
    def base(self) -> str:
        return self.manifest["base"]["name"]

    @property
    def tasks(self) -> tuple[Task, ...]:
        with self._fitting():
            return tuple(Task(**fields) for fields in self.manifest["tasks"])

    @property
    def featurizer(self) -> Featurizer:
        """How the molecules that it was trained on were read."""
        return Featurizer.of(self.manifest)

    @property
    def sizes(self) -> AdapterConfig:
        with self._fitting():
            return AdapterConfig.from_dict(self.manifest["sizes"])

    @property
    def decoder(self) -> DecoderConfig:
        """Sizes of the language model."""
        with self._fitting():
            return DecoderConfig.from_dict(self.manifest["decoder"])

    @property
    def provenance(self) -> dict[str, Any]:
        """Data, split, seed, commit, settings and metrics of the training."""
        return self.manifest["provenance"]

    def check_provenance(self) -> None:
        """Raises `PackError` where it does not say what it was trained on, as every pack of `train` does."""
        with fitting(f"{self.path} does not say what it was trained on", "train it again"):
            check_entries(self.provenance, TRAINED_ON)
            columns = {task["name"]: task["column"] for task in self.provenance["recipe"]["tasks"]}
            for task in self.tasks:
                columns[task.name]

    @property
    def nbytes(self) -> int:
        """Bytes of all files, the shared one included."""
        return sum(entry["bytes"] for entry in self.manifest["files"].values())

    def file(self, name: str) -> Path:
        """Where the file lies: in the pack, or in the folder that packs share."""
        file = self.path / name
        return file if file.exists() else shared_folder(self.path) / name

    def tensors(self, prefix: str) -> dict[str, Tensor]:
        """The tensors of the file whose name starts with `prefix`. Raises `PackError` when there is none."""
        name = next((n for n in self.manifest["files"] if n.startswith(prefix)), None)
        if name is None:
            raise PackError(f"pack {self.name} has no {prefix} file")
        return read_tensors(self.file(name), PACK.again)

    def _fitting(self) -> AbstractContextManager[None]:
        """Raises `PackError` where what is read in the block is sealed, but not what the manifest says."""
        return fitting(f"{self.path} does not fit its manifest", PACK.again)

    def load_calibration(self) -> Calibration | None:
        """What turns scores into intervals and probabilities; None when the pack has none."""
        if not self.has("calibration"):
            return None
        with self._fitting():
            return Calibration.from_tensors(self.tensors("calibration"), len(self.tasks))

    def load_domain(self) -> Domain | None:
        """The training molecules' fingerprints; None when the pack has none."""
        with self._fitting():
            return Domain.from_tensors(self.tensors("domain")) if self.has("domain") else None

    def load_trees(self) -> Trees | None:
        """The trees beside the network; None when the pack has none. Raises `PackError` when they do not fit it."""
        if not self.has("trees"):
            return None
        with self._fitting():
            return Trees.from_tensors(self.tensors("trees"), len(self.tasks), n_columns(self.featurizer.descriptors))

    def load_training(self) -> TrainingMolecules:
        """The training molecules with their values. Raises `PackError` when the pack does not hold them."""
        domain = self.load_domain()
        if domain is None or not self.has(TRAINING):
            kept = (self.provenance.get("recipe") or {}).get("keep_data", True)
            how = "add them from its table: mora-lite calibrate PACK DATA" if kept else "train it with them"
            raise PackError(f"pack {self.name} does not hold its training molecules, so it names no neighbours; {how}")
        with fitting(f"{self.file(f'{TRAINING}.safetensors')} cannot be read", PACK.again):
            return TrainingMolecules.from_tensors(self.tensors(TRAINING), domain)

    def has(self, prefix: str) -> bool:
        """Whether there is a file whose name starts so."""
        return any(name.startswith(prefix) for name in self.manifest["files"])

    def n_resident_weights(self) -> int:
        """Weights of the dequantised upper layers."""
        decoder = self.decoder
        heads = (2 * decoder.heads + 2 * decoder.kv_heads) * decoder.head_dim
        return (self.sizes.adapted_layers - 1) * decoder.width * (heads + 3 * decoder.ffn_width)

    def load_scorer(self, dtype: torch.dtype = torch.float32, mode: Mode = "resident") -> Scorer:
        """The model on the CPU, weights of the trained part in float32, upper layers in `dtype`."""
        sizes = self.sizes
        with self._fitting():
            weights = join_nf4(self.tensors("upper"))
            prompts = CompiledPrompts.from_tensors(self.tensors("prompts"))
            scorer = Scorer(sizes, UpperLayers(self.decoder, sizes.adapted_layers, weights, dtype, mode), prompts)
            trained = {name: tensor.float() for name, tensor in self.tensors("adapter").items()}
            missing, unexpected = scorer.load_state_dict(trained, strict=False)
        wrong = [*unexpected, *(name for name in missing if not name.startswith("upper."))]
        if wrong:
            raise PackError(f"{self.path}: adapter does not fit the sizes in {MANIFEST}: {', '.join(wrong[:3])}")
        return scorer.eval()

    def load_baseline(self) -> EncoderBaseline:
        """The encoder-only baseline trained on the same split. Raises `PackError` if the pack has none."""
        with self._fitting():
            encoder = GraphEncoder(self.sizes.encoder_width, self.sizes.encoder_layers)
            model = EncoderBaseline(encoder, len(self.tasks))
            model.load_state_dict({n: t.float() for n, t in self.tensors("baseline").items()})
        return model.eval()


def shared_folder(pack: Path) -> Path:
    """The folder of upper layers beside a pack, also of one that is the working directory, or linked to."""
    return pack.resolve().parent / SHARED


def read_tensors(file: Path, again: str) -> dict[str, Tensor]:
    """The tensors of a file. Raises `PackError` when it cannot be read. again: what to do about it."""
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise PackError(f"{file} cannot be read: {error}; {again}") from None


def open_pack(name_or_path: str | Path) -> Pack:
    """Find a pack by name (shipped, or in the user's folder), path or `hf:owner/name`, and check every file of it.

    Raises `PackError` when it is unknown, damaged, or of a format this version cannot read.
    """
    path = _find(name_or_path)
    manifest = PACK.read(path)
    for name in manifest["files"]:
        PACK.check_file(manifest, name, path, shared_folder(path))
    return Pack(path, manifest)


def list_packs() -> list[Pack]:
    """All packs that can be loaded by name; files are not checked, only the manifests read."""
    return [Pack(folder, manifest) for folder, manifest in installed(PACK)]


def save_pack(
    path: Path,
    name: str,
    scorer: Scorer,
    tasks: tuple[Task, ...],
    upper_weights: dict[str, Tensor | NF4Tensor],
    base: dict[str, str],
    provenance: dict[str, Any],
    baseline: EncoderBaseline | None = None,
    featurizer: Featurizer = Featurizer(),  # noqa: B008 - it cannot change
) -> Pack:
    """Write a pack into the new folder `path`. base: `name` and `sha256` of the base model's files."""
    path.mkdir(parents=True)
    exact = ("readout", "offset")
    trained = {n: t if n in exact else t.half() for n, t in scorer.trained().items()}
    write_tensors(path / "adapter.safetensors", trained)
    write_tensors(path / "prompts.safetensors", scorer.prompts.tensors())
    if baseline is not None:
        weights = {n: p.detach().half() for n, p in baseline.named_parameters()}
        write_tensors(path / "baseline.safetensors", weights)
    write_tensors(path / "upper.safetensors", split_nf4(upper_weights))
    upper = path / f"upper-{sha256_of(path / 'upper.safetensors')[:12]}.safetensors"
    os.replace(path / "upper.safetensors", upper)
    files = {f.name: file_entry(f) for f in sorted(path.iterdir())}
    manifest: dict[str, Any] = {
        "format": PACK.format,
        "name": name,
        "base": base,
        "sizes": scorer.sizes.as_dict(),
        "decoder": scorer.upper.sizes.as_dict(),
        "featurizer": featurizer.as_dict(),
        "atom_fields": ATOM_FIELDS,
        "bond_fields": BOND_FIELDS,
        "tasks": [task.as_dict() for task in tasks],
        "provenance": provenance,
        "files": files,
    }
    write_manifest(path, manifest)
    return Pack(path, manifest)


def install_pack(source: Path, out: Path, *, share_upper: bool = False, force: bool = False) -> Pack:
    """Move the finished pack `source` to `out`, whole or not at all; both must be on one file system.

    share_upper: put the upper layers beside the pack, in `../upper/`, for other packs to use; none are put there when a
    file there holds them all, as that of a pack with more adapted layers does.
    Raises `OutputError` when `out` must not be replaced.
    """
    PACK.check_free(out, force)
    if share_upper:
        _share_upper(source, out.parent / SHARED)
    replace_folder(source, out)
    return Pack(out, PACK.read(out))


def _share_upper(pack: Path, shared: Path) -> None:
    """Move the upper layers of a pack into the folder `shared`, or refer to a file there that holds them."""
    shared.mkdir(exist_ok=True)
    upper = next(pack.glob("upper-*"))
    tensors = load_file(upper)
    for file in sorted(shared.glob("upper-*.safetensors")):
        try:
            known = read_tensors(file, PACK.again)
        except PackError:
            continue  # damaged; where it is this pack's own, it is replaced below
        if all(name in known and torch.equal(known[name], tensor) for name, tensor in tensors.items()):
            manifest = PACK.read(pack)
            del manifest["files"][upper.name]
            manifest["files"][file.name] = file_entry(file)
            write_manifest(pack, manifest)
            upper.unlink()
            return
    os.replace(upper, shared / upper.name)


def add_files(pack: Pack, files: dict[str, dict[str, Tensor]]) -> None:
    """Write more safetensors files into a pack, or replace them, by name without suffix; then the manifest.

    None takes its place before all are written, so that a program that is stopped leaves the pack as it was.
    """
    entries = {}
    with ExitStack() as stack:
        for name, tensors in files.items():
            file = pack.path / f"{name}.safetensors"
            part = stack.enter_context(replacing_path(file))
            write_tensors(part, tensors)
            entries[file.name] = file_entry(part)
    pack.manifest["files"] |= entries
    write_manifest(pack.path, pack.manifest)


def remove_file(pack: Pack, name: str) -> None:
    """Take an optional file out of a pack."""
    del pack.manifest["files"][name]
    write_manifest(pack.path, pack.manifest)
    (pack.path / name).unlink()


def write_manifest(path: Path, manifest: dict[str, Any]) -> None:
    """Write pack.json with the SHA-256 of its own content, and README.md, the model card that follows from it."""
    for name, text in ((MANIFEST, seal(manifest)), (CARD, model_card(manifest))):
        with replacing(path / name) as file:
            file.write(text.encode())


def split_nf4(weights: dict[str, Tensor | NF4Tensor]) -> dict[str, Tensor]:
    """NF4 matrices as the several tensors each that safetensors files hold (the layout of bitsandbytes)."""
    flat: dict[str, Tensor] = {}
    for name, weight in weights.items():
        flat.update({name: weight} if isinstance(weight, Tensor) else to_tensors(name, weight))
    return flat


def join_nf4(flat: dict[str, Tensor]) -> dict[str, Tensor | NF4Tensor]:
    """Reverse of `split_nf4`."""
    packed = {name.removesuffix(".absmax") for name in flat if name.endswith(".weight.absmax")}
    weights: dict[str, Tensor | NF4Tensor] = {name: from_tensors(name, flat) for name in packed}
    weights.update({name: t for name, t in flat.items() if name.endswith((".weight", ".bias"))} | weights)
    return weights


def _find(name_or_path: str | Path) -> Path:
    path = Path(local_path(name_or_path))
    if (path / MANIFEST).is_file():
        return path
    if path.name == MANIFEST and path.is_file():
        return path.parent
    if (path / EXPORT.manifest).is_file():
        raise PackError(
            f"{name_or_path} is an exported folder, not a pack; score with it by mora-lite predict --pack "
            f"{name_or_path}, or in Python by mora_lite.export.runtime.load"
        )
    name = str(name_or_path)
    if (folder := find_installed(name, MANIFEST)) is not None:
        return folder
    if (path / TEXT_MANIFEST).is_file() or find_installed(name, TEXT_MANIFEST) is not None:
        raise PackError(f"{name} is a pack that answers in text, not one of values; ask it by mora-lite generate")
    if path.is_file() and any((path.parent / mark).is_file() for mark in (MANIFEST, EXPORT.manifest, TEXT_MANIFEST)):
        raise PackError(f"{name} is a file of a pack or of an exported folder; give the folder: {path.parent}")
    known = [pack.path.name for pack in list_packs()]
    if name and path.is_dir():
        raise PackError(f"{name} is a directory without {MANIFEST}, and so no pack; {did_you_mean(name, known)}")
    raise PackError(f"unknown pack {name!r}: {did_you_mean(name, known)}; or give the path of a pack's directory")
