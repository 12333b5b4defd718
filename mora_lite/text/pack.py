"""A text pack: one directory with a trained adapter that answers in text, for a base model that is fetched separately.

    text_pack.json       format, task, prompt, sizes, name and SHA-256 of the base, SHA-256 of the adapter and of itself
    adapter.safetensors  encoder, hypernetwork and C, or A and C of a static adapter, in float16, 8 or 4 bits
    README.md            model card; not checked

The base is not in it: `load_text_pack` finds it by its name or at a given path, and refuses another one.

In 8 bits a matrix is int8 with a float16 scale for each row, the tensor NAME.scale: `weight = int8 * scale`. In 4 bits
it is NF4 as bitsandbytes lays it down, with scales in 8 bits (`quant.nf4.to_tensors`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..adapter.lowrank import AdapterConfig
from ..chem.featurizer import Featurizer
from ..chem.graph import ATOM_FIELDS, BOND_FIELDS
from ..errors import CheckpointError, InputError, PackError, fitting
from ..fast.prepacked import prepack
from ..hub.bases import base_of_pack, resolve_base
from ..lm.base import load_decoder, open_nf4
from ..machine.device import choose_device, choose_dtype, keep_freed_memory, work_alone_after_fork
from ..machine.files import file_entry, replacing, write_tensors
from ..packs.installed import find_text_pack
from ..packs.manifest import CARD, TEXT_PACK, seal
from ..packs.pack import read_tensors
from ..quant.nf4 import STATE_KEY, dequantize_nf4, from_tensors, quantize_nf4, to_tensors
from ..tables.library import Window
from ..tables.molecule_column import read_molecules
from .answerer import Answerer
from .card import text_card
from .model import TextModel
from .pairs import FEATURIZER
from .sequences import Prompt
from .stream import CHUNK_BATCHES, Answered, GenerationConfig, answer_window
from .tasks import REACTION_COLUMNS, TEXT_TASKS, PackQuestions

MANIFEST = TEXT_PACK.manifest
ADAPTER = "adapter.safetensors"
BITS = (16, 8, 4)  # of a weight
SCALE = ".scale"  # after a matrix's name: the scales of its rows
MIN_NUMBERS = 4096  # of a matrix in 8 or 4 bits: the saving of smaller ones is nothing


@dataclass(frozen=True)
class TextPack:
    """A text pack on disk whose files have been checked. `manifest` is the content of text_pack.json."""

    path: Path
    manifest: dict[str, Any] = field(repr=False)

    @property
    def task(self) -> str:
        return self.manifest["task"]

    @property
    def prompt(self) -> Prompt:
        return Prompt(*(self.manifest["prompt"][name] for name in ("before", "between", "end")))

    @property
    def featurizer(self) -> Featurizer:
        """How the graphs that it was trained on were made."""
        return Featurizer.of(self.manifest)

    @property
    def questions(self) -> PackQuestions:
        """What it can be asked."""
        return PackQuestions.of(self.manifest)

    @property
    def base(self) -> dict[str, str]:
        """`name` and `sha256` of the base model."""
        return self.manifest["base"]


def save_text_pack(
    path: Path,
    model: TextModel,
    *,
    task: str,
    prompt: Prompt,
    base: dict[str, str],
    provenance: dict[str, Any],
    questions: Mapping[str, str] | None = None,
    asked: Sequence[str] = (),
    bits: int = 16,
    force: bool = False,
) -> TextPack:
    """Write a text pack into the folder `path`, whole or not at all.

    base: `name` (known to `pull`, or a path) and `sha256` of the base model's files.
    questions: those that it has learnt, by direction, of a pack for `ask` that answers about reactions.
    asked: those in words of its training, where they are few.
    bits: of a weight, 16, 8 or 4.
    force: replace a text pack that is there.

    Raises `OutputError` when something else is there, or when it cannot be written.
    """
    assert task in TEXT_TASKS, task
    with TEXT_PACK.staged(path, force) as stage:
        trained = {name: tensor.detach().float() for name, tensor in model.trained().items()}
        write_tensors(stage / ADAPTER, to_stored(trained, bits))
        manifest: dict[str, Any] = {
            "format": TEXT_PACK.format,
            "task": task,
            "adapter": model.kind,
            "sizes": model.sizes.as_dict(),
            "prompt": {"before": prompt.before, "between": prompt.between, "end": prompt.end},
            "base": base,
            "featurizer": FEATURIZER.as_dict(),
            "atom_fields": ATOM_FIELDS,
            "bond_fields": BOND_FIELDS,
            **({"questions": dict(questions)} if questions else {}),
            **({"asked": list(asked)} if asked else {}),
            "provenance": provenance,
            "files": {ADAPTER: file_entry(stage / ADAPTER)},
        }
        (stage / MANIFEST).write_text(seal(manifest), encoding="utf-8")
        (stage / CARD).write_text(text_card(path.name, manifest), encoding="utf-8")
    return TextPack(path, manifest)


def record_test(pack: TextPack, metrics: dict[str, Any]) -> None:
    """Write the metrics of the test rows into the pack and its README.md."""
    pack.manifest["provenance"]["test"] = metrics
    for name, text in ((MANIFEST, seal(pack.manifest)), (CARD, text_card(pack.path.name, pack.manifest))):
        with replacing(pack.path / name) as file:
            file.write(text.encode())


def to_stored(weights: dict[str, Tensor], bits: int) -> dict[str, Tensor]:
    """The tensors of a pack for float32 weights: matrices in 16, 8 or 4 bits, and float16 for the rest."""
    assert bits in BITS, bits
    out: dict[str, Tensor] = {}
    for name, weight in weights.items():
        if bits == 16 or weight.ndim < 2 or weight.numel() < MIN_NUMBERS:
            out[name] = weight.half()
        elif bits == 4:
            out |= to_tensors(name, quantize_nf4(weight, double=True))
        else:
            scale = (weight.abs().amax(-1, keepdim=True) / 127).half().clamp_min(torch.finfo(torch.float16).tiny)
            out[name] = (weight / scale).round().clamp(-127, 127).to(torch.int8)
            out[name + SCALE] = scale
    return out


def from_stored(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The float32 weights of a pack's tensors. Raises `CheckpointError` where those in 4 bits are damaged."""
    four = {name.removesuffix(f".{STATE_KEY}") for name in tensors if name.endswith(f".{STATE_KEY}")}
    eight = {name for name, tensor in tensors.items() if tensor.dtype == torch.int8 and name + SCALE in tensors}
    parts = {name + SCALE for name in eight}
    parts |= {name for name in tensors if any(name.startswith(f"{matrix}.") for matrix in four)}
    return {
        name: dequantize_nf4(from_tensors(name, tensors))
        if name in four
        else tensor.float() * (tensors[name + SCALE] if name in eight else 1)
        for name, tensor in tensors.items()
        if name not in parts
    }


def open_text_pack(pack: str | Path) -> TextPack:
    """Find a text pack as `find_text_pack` does, and check its files.

    Raises `PackError` when it is none, damaged, or of a format or for a task that is not known.
    """
    path = find_text_pack(pack)
    manifest = TEXT_PACK.read(path)
    if manifest["task"] not in TEXT_TASKS:
        raise PackError(f"{path}: a pack for the task {manifest['task']!r}, which this version lacks; update mora-lite")
    TEXT_PACK.check_file(manifest, ADAPTER, path)
    return TextPack(path, manifest)


def load_text_pack(
    pack: TextPack,
    *,
    base: str | Path | None = None,
    device: str = "auto",
    dtype: str = "auto",
    on_note: Callable[[str], None] = lambda note: None,
) -> Answerer:
    """The model of a pack, ready to answer.

    base: name or path of the base model; None takes the name that the pack has. Its SHA-256 must be the pack's: another
    file of the same model has other rounding, and the adapter was trained over this one's. device: `auto`, `cpu`,
    `cuda`, `cuda:N`. dtype: of matrix products, `auto`, `float32`, `bfloat16`, `float16`. on_note: gets a line
    before the base is fetched.

    Raises `PackError`, `CheckpointError` or `DeviceError`, each with what to do.
    """
    where = choose_device(device)
    keep_freed_memory()
    work_alone_after_fork()
    try:
        path = resolve_base(base) if base is not None else base_of_pack(pack.base["name"], pack.base["sha256"], on_note)
        source = open_nf4(path)
    except CheckpointError as error:
        if base is not None:
            raise
        raise PackError(f"{pack.path}: its base model is not here ({error}); or say where it is with --base") from None
    if source.source_sha256 != pack.base["sha256"]:
        raise PackError(
            f"{path} is not the base model of {pack.path}: its SHA-256 is {source.source_sha256[:12]}, "
            f"expected {pack.base['sha256'][:12]}; give the right one with --base"
        )
    decoder = load_decoder(source, choose_dtype(dtype, where), where)
    with fitting(f"{pack.path} does not fit its manifest", TEXT_PACK.again):
        model = TextModel(AdapterConfig.from_dict(pack.manifest["sizes"]), decoder, pack.manifest["adapter"])
    _put_weights(model, pack)
    model.to(where).eval()
    prepack(model.decoder)
    limit = int(source.config.get("max_position_embeddings", 2048))
    origin = f"{pack.manifest['sha256']} {pack.base['sha256']} {where.type} {decoder.dtype}"
    return Answerer(model, source.plain_tokenizer(), pack.prompt, limit, pack.featurizer, origin)


class TextGenerator:
    """A text pack that is loaded, as `load_text` gives it."""

    def __init__(self, answerer: Answerer, questions: PackQuestions):
        self.answerer, self.questions = answerer, questions

    def generate(
        self, molecules: Any, *, task: str | None = None, question: str | None = None, **settings: Any
    ) -> list[Answered]:
        """What `mora-lite generate` writes about each row, in order, without a file.

        molecules: a text or many, in a list, or a column or table of any library: SMILES of a molecule, or of several
        joined by dots, or a reaction `reactants>reagents>product`, and a table's other columns as the command reads
        them: sides of reactions, `question`.
        task: for a pack that has learnt several, `forward`, `retro` or `reagents`; None asks for products.
        question: in words, for a pack that takes one. settings: `top`, `beams`, `spellings`, `temperature`, `top_p`,
        `seed`, `max_new_tokens`, `batch_size` of `GenerationConfig`, and `smiles_column` of a table.

        What cannot be read is a row with a status. Raises `InputError` for a task or setting that the pack cannot have.
        """
        expected = REACTION_COLUMNS if self.questions.of_reactions else ()
        named = settings.pop("smiles_column", None)
        table = read_molecules(molecules, named, expected=expected)
        settings.setdefault("max_new_tokens", self.answerer.long_answer)
        index = table.smiles_index if named is None else None
        config, _ = GenerationConfig.of(self.questions, table.columns, index, task=task, question=question, **settings)
        config.check_room(self.answerer)
        smiles, cells, size = table.smiles, table.cells(), CHUNK_BATCHES * config.batch_size
        windows = (Window.of(smiles[i : i + size], i + 1, cells[i : i + size]) for i in range(0, len(smiles), size))
        return [row for window in windows for row in answer_window(window, self.answerer, config)]


def load_text(
    pack: str | Path = "reactions", base: str | Path | None = None, *, device: str = "auto", dtype: str = "auto"
) -> TextGenerator:
    """A text pack by its name, its path or `hf:owner/name`, ready for `TextGenerator.generate`.

    base: name or path of its base model; None takes the one that the pack names. device, dtype: as for `load`.
    Raises `PackError`, `CheckpointError` or `DeviceError`.
    """
    opened = open_text_pack(pack)
    return TextGenerator(load_text_pack(opened, base=base, device=device, dtype=dtype), opened.questions)


def load_weights(model: TextModel, path: str | Path, base_sha256: str) -> str:
    """Put the weights of the text pack `path` into a model of the same sizes and base, and return their SHA-256."""
    pack = open_text_pack(path)
    sizes = {"adapter": model.kind, "sizes": model.sizes.as_dict(), "base": base_sha256}
    of_pack = {"adapter": pack.manifest["adapter"], "sizes": pack.manifest["sizes"], "base": pack.base["sha256"]}
    if different := [name for name, value in sizes.items() if of_pack[name] != value]:
        raise InputError(f"start: {path} has another {' and '.join(different)}; train over the same, or start without")
    _put_weights(model, pack)
    return pack.manifest["files"][ADAPTER]["sha256"]


def _put_weights(model: TextModel, pack: TextPack) -> None:
    """Raises `PackError` for an adapter that is damaged or has other names or shapes."""
    tensors = read_tensors(pack.path / ADAPTER, TEXT_PACK.again)
    with fitting(f"{pack.path / ADAPTER} is damaged", TEXT_PACK.again):
        try:
            weights = from_stored(tensors)
        except CheckpointError as error:
            raise PackError(f"{pack.path / ADAPTER} is damaged: {error}; {TEXT_PACK.again}") from None
    expected = model.trained()
    wrong = sorted(set(expected) ^ set(weights)) or [n for n, t in weights.items() if t.shape != expected[n].shape]
    if wrong:
        raise PackError(f"{pack.path}: its adapter does not fit its sizes or its base: {', '.join(wrong[:3])}")
    model.load_state_dict(weights, strict=False)
