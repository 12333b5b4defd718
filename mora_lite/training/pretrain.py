"""Pre-training of the graph encoder on a library without labels.

It learns to predict RDKit's 2D descriptors and a Morgan fingerprint from the graph alone. They cost nothing to label
with and cover size, polarity, charge distribution, shape of the skeleton, rings and functional groups. No measured
value is among them (some, such as Crippen's logP, are sums of atom contributions that were fitted to measurements), so
no test molecule's label leaks into the encoder. The idea is that of CheMeleon (arXiv 2506.15792), which regresses
Mordred descriptors.

The result is one safetensors file, from which `train` starts the encoder of a new pack.
"""

from __future__ import annotations

import functools
import hashlib
import json
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rdkit import Chem
from rdkit.Chem import rdMolDescriptors as descriptors
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..adapter.encoder import EncoderBaseline, GraphEncoder
from ..chem.featurizer import Featurizer
from ..chem.graph import ATOM_FIELDS, BOND_FIELDS, Graphs, concatenate
from ..chem.morgan import fingerprints
from ..errors import InputError, PackError, fitting
from ..machine.files import lock, write_tensors
from ..tables.library import open_library
from .dataset import Dataset
from .loop import TrainConfig, TrainProgress, fit
from .losses import TargetStats

SHIPPED = Path(__file__).parents[1] / "packs" / "shipped" / "encoder" / "encoder.safetensors"
# What a recipe calls the encoders that ship: one that went on with measured values, and the one before it, which has
# seen structures alone and was called `pretrained` when there was no other.
STARTS = {"endpoints": SHIPPED.with_name("endpoints.safetensors"), "structures": SHIPPED, "pretrained": SHIPPED}
FEATURIZER = Featurizer()
PARENTS = Featurizer(standardize="parent")
# Tensors of an encoder's file beside the weights: the gaps between ascending `molecule_ids`, unsigned numbers as signed
# ones of their size; and of a matrix in 8 bits the scales of its rows.
SEEN, SCALE = "seen", ".scale"
ID_BITS = 28
VALID_SHARE = 0.01
CHUNK = 2000
MIN_SHARE = 0.01  # bits that fewer (or all but fewer) molecules have teach little and are left out
MAX_Z = 6.0  # descriptors have long tails
Part = tuple[list[str], Graphs, np.ndarray, np.ndarray]


def pretrain_encoder(
    tables: Sequence[Path],
    out: Path,
    settings: TrainConfig,
    device: torch.device,
    *,
    width: int = 256,
    layers: int = 4,
    processes: int = 1,
    on_read: Callable[[int], None] = lambda _: None,
    on_progress: Callable[[TrainProgress], None] = lambda _: None,
) -> TrainProgress:
    """Train an encoder on the molecules of `tables` and write it to `out` (float16).

    Rows that cannot be read are left out. Continues from the checkpoint in `out` + `.run`. Raises `InputError` when
    there are fewer than 1,000 molecules.
    """
    library, classes = read_library(tables, processes, on_read)
    if len(library) < 1000:
        raise InputError(f"got {len(library)} readable molecules to pre-train on, expected 1,000 or more")
    order = np.random.default_rng(settings.seed).permutation(len(library))
    n_valid = max(int(len(library) * VALID_SHARE), 100)
    train, valid = library.subset(order[n_valid:]), library.subset(order[:n_valid])
    stats = TargetStats.of(train.targets, list(classes), [1.0] * len(classes))
    torch.manual_seed(settings.seed)
    model = EncoderBaseline(GraphEncoder(width, layers), len(classes))
    with lock(run := out.with_name(out.name + ".run")):
        last = fit(model, train, valid, stats, settings, run, device, on_progress)
        metadata = {"molecules": len(library), "library_sha256": library.fingerprint, "targets": len(classes)}
        metadata |= {"epochs": settings.epochs, "valid_error": round(last.best_error, 5)}
        save_encoder(model.encoder.cpu(), out, metadata)
    return last


def read_library(
    tables: Sequence[Path], processes: int, on_read: Callable[[int], None] = lambda _: None
) -> tuple[Dataset, np.ndarray]:
    """All readable molecules with their targets, and which of these are classes, bool `[P]`."""
    parts: list[Part] = []
    n_read = 0
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for part in pool.imap(_describe_all, _chunks(tables)):
            n_read += len(part[0])
            parts += [part] if part[0] else []
            on_read(n_read)
    if not parts:
        raise InputError(f"no molecule of {', '.join(str(t) for t in tables)} could be read")
    smiles = [text for part in parts for text in part[0]]
    targets, classes = make_targets(np.concatenate([p[2] for p in parts]), np.concatenate([p[3] for p in parts]))
    fingerprint = hashlib.sha256("\n".join(smiles).encode(errors="surrogateescape")).hexdigest()
    graphs = concatenate([part[1] for part in parts])
    return Dataset(smiles, graphs, targets, np.arange(len(smiles)), len(smiles), fingerprint), classes


def _chunks(tables: Sequence[Path]) -> Iterator[list[str]]:
    with open_library(tables) as library:
        for window in library.windows(CHUNK):
            yield [record.text for record in window.records if not record.fault]


def _describe_all(smiles: list[str]) -> Part:
    """In a worker process: only arrays and texts go back, no molecules."""
    parsed = [
        (text if read.drawn is None else Chem.MolToSmiles(read.drawn), read.mol)
        for text in smiles
        if (read := FEATURIZER.parse_molecule(text)).mol is not None
    ]
    if not parsed:
        nothing = np.empty((0, 0))
        return [], FEATURIZER.graphs([]), nothing, nothing
    described = [describe(mol) for _, mol in parsed]
    numbers, bits = (np.stack(column) for column in zip(*described, strict=True))
    return [text for text, _ in parsed], FEATURIZER.graphs([mol for _, mol in parsed]), numbers, bits


@functools.cache
def _calculators() -> list[Callable[[Chem.Mol], Iterable[Any]]]:
    from rdkit.Chem import Descriptors  # slow to import

    groups = [f for name, f in Descriptors._descList if name.startswith("fr_")]
    properties = descriptors.Properties()
    return [
        properties.ComputeProperties,
        descriptors.MQNs_,
        descriptors.CalcAUTOCORR2D,
        descriptors.PEOE_VSA_,
        descriptors.SMR_VSA_,
        descriptors.SlogP_VSA_,
        descriptors.BCUT2D,
        lambda mol: [f(mol) for f in groups],
    ]


def describe(mol: Chem.Mol) -> tuple[np.ndarray, np.ndarray]:
    """Descriptors float32 `[n]`, NaN where one is not defined (BCUT of some elements); bits bool `[1024]`."""
    values: list[float] = []
    for calculate in _calculators():
        try:
            values += calculate(mol)
        except (ValueError, RuntimeError):
            values += [np.nan] * _lengths()[calculate]
    numbers = np.array(values, dtype=np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        numbers = np.where(np.abs(numbers) < 1e9, numbers, np.nan).astype(np.float32)
    return numbers, np.unpackbits(fingerprints([mol])[0]).astype(bool)


@functools.cache
def _lengths() -> dict[Any, int]:
    aspirin = Chem.MolFromSmiles("CC(=O)Oc1ccccc1C(=O)O")
    return {calculate: len(list(calculate(aspirin))) for calculate in _calculators()}


def make_targets(numbers: np.ndarray, bits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Targets of a library out of the rows of `describe`; constant descriptors and rare bits are left out.

    Returns values, float32 `[N, P]`: z-scores of descriptors, then bits as 0 and 1; and bool `[P]`, True for bits.
    """
    numbers = numbers[:, ~np.isnan(numbers).all(axis=0)]
    low, high = np.nanpercentile(numbers, [0.1, 99.9], axis=0)
    clipped = np.clip(numbers, low, high)
    mean, std = np.nanmean(clipped, axis=0, dtype=np.float64), np.nanstd(clipped, axis=0, dtype=np.float64)
    varied = std > 1e-6 * np.maximum(1, np.abs(mean))
    z = ((clipped - mean)[:, varied] / std[varied]).clip(-MAX_Z, MAX_Z)
    share = bits.mean(axis=0)
    informative = (share > MIN_SHARE) & (share < 1 - MIN_SHARE)
    values = np.concatenate([z.astype(np.float32), bits[:, informative].astype(np.float32)], axis=1)
    return values, np.repeat([False, True], [int(varied.sum()), int(informative.sum())])


def save_encoder(
    encoder: GraphEncoder, path: Path, metadata: dict[str, object], seen: Iterable[str] | None = None
) -> None:
    """Write the encoder as float16 with its sizes and the graph codes it was made for.

    seen: SMILES of the molecules whose measured values it was trained on. With them its matrices are in 8 bits: such an
    encoder ships beside the other, and half the size is enough for a start.
    """
    sizes = {"width": encoder.width, "layers": len(encoder.layers)}
    header = {
        **sizes,
        "featurizer": FEATURIZER.as_dict(),
        "atom_fields": ATOM_FIELDS,
        "bond_fields": BOND_FIELDS,
        **metadata,
    }
    tensors = {name: p.half() for name, p in encoder.state_dict().items()}
    if seen is not None:
        tensors = _eight_bit(encoder.state_dict())
        gaps = np.diff(np.unique(molecule_ids(seen)), prepend=0)
        size = 2 if gaps.max(initial=0) < 2**16 else 4
        tensors[SEEN] = torch.from_numpy(gaps.astype(f"u{size}").view(f"i{size}"))
    write_tensors(path, tensors, {"encoder": json.dumps(header)})


def _eight_bit(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Matrices as int8 with a float32 scale for each row; everything else as float16."""
    tensors = {}
    for name, weight in weights.items():
        if weight.dim() == 2:
            tensors[name + SCALE] = weight.abs().amax(1, keepdim=True).clamp_min(1e-12) / 127
            tensors[name] = (weight / tensors[name + SCALE]).round().to(torch.int8)
        else:
            tensors[name] = weight.half()
    return tensors


def load_encoder(path: Path = SHIPPED) -> GraphEncoder:
    """A pre-trained encoder, float32. Raises `PackError` when the file is not one, or is for other graph codes."""
    wrong = f"{path} is not an encoder that `mora-lite pretrain` made"
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name).float() for name in file.keys() if name != SEEN}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise PackError(f"{wrong} ({error})") from None
    with fitting(wrong, "pre-train it again"):
        header = json.loads(metadata["encoder"])
        if header["atom_fields"] != ATOM_FIELDS or header["bond_fields"] != BOND_FIELDS:
            raise PackError(f"{path}: made for other atom and bond codes than this version's; pre-train it again")
        encoder = GraphEncoder(header["width"], header["layers"])
        scales = {name: tensors.pop(name + SCALE, 1.0) for name in list(tensors) if not name.endswith(SCALE)}
        encoder.load_state_dict({name: tensors[name] * scale for name, scale in scales.items()})
    return encoder


def molecule_ids(smiles: Iterable[str]) -> np.ndarray:
    """A number of `ID_BITS` bits for each molecule, int64 `[N]`: stereoisomers, and salts of one parent, have the same.

    Two others seldom have the same by chance. What cannot be read has that of no atoms.
    """
    mols = (PARENTS.parse_smiles(text).mol or Chem.Mol() for text in smiles)
    flat = (Chem.MolToSmiles(mol, isomericSmiles=False) for mol in mols)
    heads = b"".join(hashlib.sha256(text.encode()).digest()[:4] for text in flat)
    return np.frombuffer(heads, "<u4").astype(np.int64) >> (32 - ID_BITS)


def seen_by_start(start: str, smiles: Sequence[str]) -> np.ndarray:
    """Which molecules' measured values the encoder called `start` has seen: bool `[N]`."""
    path = STARTS.get(start) or Path(start)
    if start != "random":
        with fitting(f"{path} is damaged", "pre-train it again"), safe_open(path, "np") as file:
            if SEEN in file.keys():  # noqa: SIM118
                gaps = file.get_tensor(SEEN)
                if gaps.dtype not in (np.int16, np.int32):
                    raise TypeError(f"{SEEN}: got {gaps.dtype}, expected int16 or int32")
                return np.isin(molecule_ids(smiles), gaps.view(f"u{gaps.itemsize}").cumsum(dtype=np.int64))
    return np.zeros(len(smiles), bool)


def start_notes(start: str, valid: Sequence[str]) -> list[str]:
    """A note, a line, if the encoder called `start` has seen measured values of molecules that validate, SMILES."""
    n_seen = seen_by_start(start, valid).sum()
    if not n_seen:
        return []
    return [
        f"{n_seen} of {len(valid)} validation molecules are public ones that the start of the encoder has seen with "
        "measured values; where yours are of the same kind, errors of validation and test look better than for new "
        "molecules; --start structures has seen no values"
    ]
