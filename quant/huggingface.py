"""Hugging Face directories with safetensors, plain or bitsandbytes NF4.

Nothing here unpickles and no code from a checkpoint is run.
"""

from __future__ import annotations

import functools
import json
import struct
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import CheckpointError
from .checkpoint import EMBEDDING, Checkpoint, check_architecture, load_tokenizer
from .nf4 import STATE_KEY, NF4Tensor, StoredState, from_tensors, read_state

STATE_SUFFIXES = (".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map", "." + STATE_KEY)
FP4_STATE = ".quant_state.bitsandbytes__fp4"
HEAD = "lm_head.weight"
INDEX = "model.safetensors.index.json"
FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
# What is read and written: weights, and the parts of those in 4 bits.
TYPES = FLOATS | {"U8": torch.uint8, "I8": torch.int8, "I32": torch.int32, "I64": torch.int64}


class HuggingFaceCheckpoint(Checkpoint):
    """A directory with config.json, one or more safetensors files and a tokenizer."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = read_json(path / "config.json", f"{path}: it has no config.json; is it a model directory?")
        check_architecture(path, str(self.config.get("model_type")), self.config.get("architectures"))
        self._check_quantization()
        self._where = self._locate()
        self._names = sorted(name for name in self._where if not self._is_state(name))
        if self.config.get("tie_word_embeddings") and self._has_own_head():
            self.config["tie_word_embeddings"] = False  # as transformers reads it

    def names(self) -> list[str]:
        return list(self._names)

    def _has_own_head(self) -> bool:
        """Whether a head is stored that differs from the embedding, whatever the configuration says of it."""
        if HEAD not in self._names or EMBEDDING not in self._names:
            return False
        if self._is_nf4(HEAD) or self._is_nf4(EMBEDDING) or self.shape(HEAD) != self.shape(EMBEDDING):
            return True
        return not torch.equal(self._read(HEAD), self._read(EMBEDDING))

    def _load(self, name: str) -> Tensor | NF4Tensor:
        if not self._is_nf4(name):
            return self._read(name)
        parts = {part: self._read(part) for part in self._parts(name)}
        try:
            return from_tensors(name, parts)
        except CheckpointError as error:
            raise CheckpointError(f"{self.path}: {error}") from None

    def shape(self, name: str) -> tuple[int, ...]:
        return self._state(name).shape if self._is_nf4(name) else self._entry(name).shape

    def nbytes(self, name: str) -> int:
        return sum(self._entry(part).nbytes for part in self._parts(name))

    def dtype(self, name: str) -> torch.dtype:
        if self._is_nf4(name):
            return self._state(name).dtype
        stored = self._entry(name).dtype
        if stored not in FLOATS:
            raise CheckpointError(
                f"{self.path}: {name} is stored as {stored}, which is not supported; known: {', '.join(FLOATS)} "
                "and bitsandbytes NF4"
            )
        return FLOATS[stored]

    def _load_tokenizer(self) -> Any:
        return load_tokenizer(self.path)

    def files(self) -> list[Path]:
        return [self.path / "config.json", *sorted(set(self._where.values()))]

    def _is_nf4(self, name: str) -> bool:
        return f"{name}.{STATE_KEY}" in self._where

    def _is_state(self, name: str) -> bool:
        return any(name.endswith(s) and self._is_nf4(name.removesuffix(s)) for s in STATE_SUFFIXES)

    def _parts(self, name: str) -> list[str]:
        """The tensors that a weight is made of: one, or the codes and scales of a 4-bit weight."""
        parts = [name, *(name + suffix for suffix in STATE_SUFFIXES)] if self._is_nf4(name) else [name]
        return [part for part in parts if part in self._where or part == name]

    def _state(self, name: str) -> StoredState:
        """What a 4-bit weight says of itself."""
        return read_state(f"{self.path}: {name}", self._read(f"{name}.{STATE_KEY}"))

    def _check_quantization(self) -> None:
        settings = self.config.get("quantization_config")
        if not settings:
            return
        if not isinstance(settings, dict):
            raise CheckpointError(f"{self.path / 'config.json'}: quantization_config is no JSON object")
        method = settings.get("quant_method", "unknown")
        kind = settings.get("bnb_4bit_quant_type", "8-bit") if method == "bitsandbytes" else method
        if method == "bitsandbytes" and settings.get("load_in_8bit"):
            kind = "8-bit"  # transformers writes a 4-bit type beside it
        if kind != "nf4":
            raise CheckpointError(
                f"{self.path}: quantisation {method} ({kind}) is not supported; "
                "give the 16-bit model or bitsandbytes NF4"
            )

    def _locate(self) -> dict[str, Path]:
        """The file of each tensor. Opens every file once, so a damaged or missing one is reported at once."""
        index, files = self.path / INDEX, sorted(self.path.glob("*.safetensors"))
        promised: dict[str, str] = {}
        if index.exists():
            promised = self._read_index(index)
            shards = set(promised.values())
            missing = sorted(shard for shard in shards if not (self.path / shard).is_file())
            if missing:
                raise CheckpointError(f"{self.path}: shard {missing[0]} named in {INDEX} is missing; fetch it again")
            files = sorted(self.path / shard for shard in shards)
        elif (self.path / "model.safetensors").exists():
            files = [self.path / "model.safetensors"]
        if not files:
            pickled = sorted([*self.path.glob("*.bin"), *self.path.glob("*.pt"), *self.path.glob("*.pth")])
            why = f"only pickled weights ({pickled[0].name}), which are never read" if pickled else "no weights"
            raise CheckpointError(f"{self.path}: it holds {why}; safetensors files are needed")
        where = {name: file for file in files for name in _header(file)}
        for name, shard in promised.items():
            if name not in _header(self.path / shard):
                raise CheckpointError(
                    f"{self.path}: {INDEX} says that {name} is in {shard}, but it is not; fetch both again"
                )
        if fp4 := next((name for name in where if name.endswith(FP4_STATE)), None):
            raise CheckpointError(
                f"{self.path}: {fp4.removesuffix(FP4_STATE)} is quantised to bitsandbytes fp4, which is not supported; "
                "give the 16-bit model or bitsandbytes NF4"
            )
        return where

    def _read_index(self, index: Path) -> dict[str, str]:
        """Name of a weight -> name of its shard, which lies beside the index."""
        weight_map = read_json(index).get("weight_map")
        if (
            not isinstance(weight_map, dict)
            or not weight_map
            or not all(isinstance(f, str) for f in weight_map.values())
        ):
            raise CheckpointError(f"{index}: it has no weight_map from weights to files; fetch it again")
        return {name: Path(file).name for name, file in weight_map.items()}

    def _entry(self, name: str) -> Entry:
        if name not in self._where:
            raise self._unknown(name)
        return _header(self._where[name])[name]

    def _read(self, name: str) -> Tensor:
        if name not in self._where:
            raise self._unknown(name)
        return _read_entry(self._where[name], name, self._entry(name))


class Entry(NamedTuple):
    """What the header of a safetensors file says of a tensor; start: its first byte in the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    nbytes: int


@functools.lru_cache(maxsize=512)
def _header_at(path: Path, size: int, modified: int) -> dict[str, Entry]:
    """The tensors of a safetensors file, from its header; also checks that the file is whole."""
    del modified
    try:
        with open(path, "rb") as file:
            length = struct.unpack("<Q", file.read(8))[0]
            if length > size:
                raise ValueError("the header is longer than the file")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        entries = {}
        for name, entry in header.items():
            start, stop = entry["data_offsets"]
            entries[name] = Entry(entry["dtype"], tuple(entry["shape"]), 8 + length + start, stop - start)
        end = max((entry.start + entry.nbytes for entry in entries.values()), default=8 + length)
        if end != size:
            raise ValueError(f"{size} bytes, its header says {end}")
        # safetensors checks types, shapes and overlaps when it opens the file.
        with safe_open(path, framework="pt", device="cpu"):
            pass
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, RecursionError, SafetensorError) as error:
        raise CheckpointError(f"{path}: damaged or truncated safetensors ({error}); fetch it again") from None
    return entries


def _header(path: Path) -> dict[str, Entry]:
    try:
        stat = path.stat()
        return _header_at(path, stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None


def _read_entry(path: Path, name: str, entry: Entry) -> Tensor:
    """One tensor of a safetensors file.

    Read by itself: safetensors reads the whole header each time that it opens a file, a millisecond for a thousand
    tensors, and what it maps of an open one stays in memory until that is closed.
    """
    if entry.dtype not in TYPES:
        raise CheckpointError(f"{path}: {name} holds {entry.dtype}, expected one of {', '.join(TYPES)}")
    content = bytearray(entry.nbytes)
    try:
        with open(path, "rb") as file:
            file.seek(entry.start)
            n_read = file.readinto(content)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None
    if n_read != entry.nbytes:
        raise CheckpointError(f"{path}: damaged or truncated safetensors (it ends in {name}); fetch it again")
    flat = torch.frombuffer(content, dtype=TYPES[entry.dtype]) if content else torch.empty(0, dtype=TYPES[entry.dtype])
    return flat.view(entry.shape)


def read_json(path: Path, if_missing: str = "") -> dict[str, Any]:
    """The object in a JSON file. Raises `CheckpointError` when it is damaged or missing (then with `if_missing`)."""
    if not path.is_file():
        raise CheckpointError(if_missing or f"{path}: no such file")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: damaged JSON ({error})") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected a JSON object")
    return content
