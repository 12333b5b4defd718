"""Pre-training of the graph encoder on a library without labels; `descriptors.py` says on what.

The result is one safetensors file, from which `train` starts the encoder of a new pack.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..adapter.baseline import EncoderBaseline
from ..adapter.encoder import GraphEncoder
from ..chem.graph import ATOM_FIELDS, BOND_FIELDS, Graphs, concatenate, featurize
from ..chem.molecules import parse_smiles
from ..errors import InputError, PackError
from ..tables.table import open_table
from .dataset import Dataset
from .descriptors import describe, make_targets
from .loop import FitSettings, Progress, fit
from .losses import TargetFacts

SHIPPED = Path(__file__).parents[1] / "packs" / "shipped" / "encoder" / "encoder.safetensors"
VALID_SHARE = 0.01
CHUNK = 2000
Part = tuple[list[str], Graphs, np.ndarray, np.ndarray]


def pretrain_encoder(
    tables: Sequence[Path],
    out: Path,
    settings: FitSettings,
    device: torch.device,
    *,
    width: int = 256,
    layers: int = 4,
    processes: int = 1,
    on_read: Callable[[int], None] = lambda _: None,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> Progress:
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
    facts = TargetFacts.of(train.targets, list(classes), [1.0] * len(classes))
    torch.manual_seed(settings.seed)
    model = EncoderBaseline(GraphEncoder(width, layers), len(classes))
    last = fit(model, train, valid, facts, settings, out.with_name(out.name + ".run"), device, on_progress)
    notes = {"molecules": len(library), "library_sha256": library.fingerprint, "targets": len(classes)}
    notes |= {"epochs": settings.epochs, "valid_error": round(last.best_error, 5)}
    save_encoder(model.encoder.cpu(), out, notes)
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
    targets = make_targets(np.concatenate([p[2] for p in parts]), np.concatenate([p[3] for p in parts]))
    fingerprint = hashlib.sha256("\n".join(smiles).encode(errors="surrogateescape")).hexdigest()
    graphs = concatenate([part[1] for part in parts])
    return Dataset(smiles, graphs, targets.values, np.arange(len(smiles)), len(smiles), fingerprint), targets.classes


def _chunks(tables: Sequence[Path]) -> Iterator[list[str]]:
    for path in tables:
        with open_table(path) as table:
            for rows in table.chunks(CHUNK):
                yield [row.cells[table.smiles_index] for row in rows if not row.fault]


def _describe_all(smiles: list[str]) -> Part:
    """In a worker process: only arrays and texts go back, no molecules."""
    parsed = [(text, mol) for text in smiles if (mol := parse_smiles(text).mol) is not None]
    if not parsed:
        nothing = np.empty((0, 0))
        return [], featurize([]), nothing, nothing
    described = [describe(mol) for _, mol in parsed]
    numbers, bits = (np.stack(column) for column in zip(*described, strict=True))
    return [text for text, _ in parsed], featurize([mol for _, mol in parsed]), numbers, bits


def save_encoder(encoder: GraphEncoder, path: Path, notes: dict[str, object]) -> None:
    """Write the encoder as float16 with its sizes and the graph codes it was made for."""
    sizes = {"width": encoder.width, "layers": len(encoder.layers)}
    facts = {**sizes, "atom_fields": ATOM_FIELDS, "bond_fields": BOND_FIELDS, **notes}
    part = path.with_name(f".{path.name}.part")
    tensors = {name: p.detach().half().contiguous() for name, p in encoder.state_dict().items()}
    save_file(tensors, part, metadata={"encoder": json.dumps(facts)})
    part.chmod(0o644)
    os.replace(part, path)


def load_encoder(path: Path = SHIPPED) -> GraphEncoder:
    """A pre-trained encoder, float32. Raises `PackError` when the file is not one, or is for other graph codes."""
    try:
        with safe_open(path, "pt") as file:
            facts = json.loads((file.metadata() or {})["encoder"])
            weights = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise PackError(f"{path} is not an encoder that `mora-lite pretrain` made ({error})") from None
    if facts["atom_fields"] != ATOM_FIELDS or facts["bond_fields"] != BOND_FIELDS:
        raise PackError(f"{path}: made for other atom and bond codes than this version's; pre-train it again")
    encoder = GraphEncoder(facts["width"], facts["layers"])
    encoder.load_state_dict(weights)
    return encoder
