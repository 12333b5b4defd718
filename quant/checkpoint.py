"""Model checkpoints: opened one tensor at a time from a Hugging Face directory or a GGUF file, and written in
4 bits.

Nothing here unpickles and no code from a checkpoint is run. Every checkpoint speaks Hugging Face names, such
as `model.layers.0.self_attn.q_proj.weight`, and a Hugging Face configuration, whatever the file.
"""

from __future__ import annotations

import functools
import hashlib
import json
import struct
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..digest import sha256_of
from ..errors import CheckpointError
from .nf4 import DTYPES, PIECE, STATE_KEY, NF4Tensor, from_tensors

ARCHITECTURES = ("llama", "mistral", "qwen2", "qwen3")
STATE_SUFFIXES = (".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map", "." + STATE_KEY)
FP4_STATE = ".quant_state.bitsandbytes__fp4"
INDEX = "model.safetensors.index.json"
EMBEDDING = "model.embed_tokens.weight"
FLOATS = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


class Checkpoint(ABC):
    """A model on disk. `config` is what a Hugging Face config.json holds; tensors are read when asked for."""

    path: Path
    config: dict[str, Any]

    @abstractmethod
    def names(self) -> list[str]:
        """Hugging Face names of all weights, sorted; the scales of a 4-bit weight are part of it, not
        listed.
        """

    def load(self, name: str) -> Tensor | NF4Tensor:
        """One weight, on the CPU, as stored; block formats of GGUF come as float32.

        Raises CheckpointError if it is not there, or holds values that are not finite.
        """
        weight = self._load(name)
        if not is_finite(weight):
            raise CheckpointError(f"{self.path}: {name} holds values that are not finite; the file is damaged")
        return weight

    @abstractmethod
    def _load(self, name: str) -> Tensor | NF4Tensor:
        """`load`, unchecked."""

    @abstractmethod
    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a weight, without reading it."""

    @abstractmethod
    def nbytes(self, name: str) -> int:
        """Bytes a weight takes in the file, scales included."""

    @abstractmethod
    def dtype(self, name: str) -> torch.dtype:
        """The float type a weight is stored in, or was before 4 bits; float16 for GGUF block formats, which lose
        little by it. Raises CheckpointError for integers and other types.
        """

    def tokenizer(self) -> Any:
        """The transformers tokenizer of the model, from local files only.

        Raises CheckpointError if there is none, or if it knows tokens that the model does not embed.
        """
        return self._tokenizer

    @functools.cached_property
    def _tokenizer(self) -> Any:
        tokenizer, known = self._load_tokenizer(), self.shape(EMBEDDING)[0]
        if len(tokenizer) > known and (beyond := _beyond(tokenizer, known)):
            raise CheckpointError(
                f"{self.path}: its tokenizer has {len(tokenizer)} tokens, but the model embeds {known}, and not "
                f"{beyond[0]!r}; give the tokenizer that the model came with"
            )
        return tokenizer

    @abstractmethod
    def _load_tokenizer(self) -> Any:
        """`tokenizer`, unchecked."""

    @abstractmethod
    def files(self) -> list[Path]:
        """The files that hold configuration and weights, in a fixed order."""

    @functools.cached_property
    def source_sha256(self) -> str:
        """Hexadecimal SHA-256 of the file, or for a directory of the lines `sha256  name` of its `files`."""
        files = self.files()
        if len(files) == 1:
            return sha256_of(files[0])
        lines = "".join(f"{sha256_of(path)}  {path.name}\n" for path in files)
        return hashlib.sha256(lines.encode()).hexdigest()

    def _unknown(self, name: str) -> CheckpointError:
        return CheckpointError(f"{self.path}: it holds no weight called {name}")


def open_checkpoint(path: str | Path) -> Checkpoint:
    """Opens a Hugging Face directory (config.json and safetensors, plain or bitsandbytes NF4) or a .gguf
    file.

    Raises CheckpointError, in one line, if it is missing, damaged, pickled or of an unsupported kind, or does not hold
    the weights that its configuration asks for.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise CheckpointError(f"{path}: no such checkpoint; give a model directory or a .gguf file")
    checkpoint: Checkpoint
    if path.is_dir():
        checkpoint = HuggingFaceCheckpoint(path)
    elif path.suffix.lower() == ".gguf":
        from .gguf import GGUFCheckpoint

        checkpoint = GGUFCheckpoint(path)
    else:
        raise CheckpointError(f"{path}: expected a directory with config.json and *.safetensors, or a .gguf file")
    from .inventory import check_inventory

    check_inventory(checkpoint)
    return checkpoint


class HuggingFaceCheckpoint(Checkpoint):
    """A directory with config.json, one or more safetensors files and a tokenizer."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = _read_json(path / "config.json", f"{path}: it has no config.json; is it a model directory?")
        check_architecture(path, str(self.config.get("model_type")), self.config.get("architectures"))
        self._check_quantization()
        self._where = self._locate()
        self._names = sorted(name for name in self._where if not self._is_state(name))

    def names(self) -> list[str]:
        return list(self._names)

    def _load(self, name: str) -> Tensor | NF4Tensor:
        if not self._is_nf4(name):
            return self._read(name)
        try:
            return from_tensors(name, {part: self._read(part) for part in self._parts(name)})
        except CheckpointError as error:
            raise CheckpointError(f"{self.path}: {error}") from None

    def shape(self, name: str) -> tuple[int, ...]:
        if not self._is_nf4(name):
            return self._entry(name).shape
        try:
            return tuple(int(n) for n in self._state(name)["shape"])
        except (ValueError, KeyError, TypeError) as error:
            raise self._damaged_state(name, error) from None

    def nbytes(self, name: str) -> int:
        return sum(self._entry(part).nbytes for part in self._parts(name))

    def dtype(self, name: str) -> torch.dtype:
        if self._is_nf4(name):
            try:
                return {str(dtype): dtype for dtype in DTYPES}[f"torch.{self._state(name)['dtype']}"]
            except (ValueError, KeyError, TypeError) as error:
                raise self._damaged_state(name, error) from None
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

    def _state(self, name: str) -> Any:
        """What a 4-bit weight says of itself."""
        entry = self._entry(f"{name}.{STATE_KEY}")
        with open(self._where[f"{name}.{STATE_KEY}"], "rb") as file:
            file.seek(entry.start)
            return json.loads(file.read(entry.nbytes))

    def _damaged_state(self, name: str, error: Exception) -> CheckpointError:
        return CheckpointError(f"{self.path}: the 4-bit description of {name} is damaged ({error})")

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
        index, found = self.path / INDEX, sorted(self.path.glob("*.safetensors"))
        promised: dict[str, str] = {}
        if index.exists():
            promised = self._read_index(index)
            shards = set(promised.values())
            missing = sorted(shard for shard in shards if not (self.path / shard).is_file())
            if missing:
                raise CheckpointError(f"{self.path}: shard {missing[0]} named in {INDEX} is missing; fetch it again")
            found = sorted(self.path / shard for shard in shards)
        elif (self.path / "model.safetensors").exists():
            found = [self.path / "model.safetensors"]
        if not found:
            pickled = sorted([*self.path.glob("*.bin"), *self.path.glob("*.pt"), *self.path.glob("*.pth")])
            why = f"only pickled weights ({pickled[0].name}), which are never read" if pickled else "no weights"
            raise CheckpointError(f"{self.path}: it holds {why}; safetensors files are needed")
        where = {name: file for file in found for name in _header(file)}
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
        weight_map = _read_json(index, str(index)).get("weight_map")
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
        tensor: Tensor = _opened(self._where[name]).get_tensor(name)
        return tensor


def check_architecture(path: Path, model_type: str, architectures: list[str] | None = None) -> None:
    """Raises CheckpointError unless the model is of a supported family."""
    if model_type not in ARCHITECTURES:
        name = architectures[0] if architectures else model_type
        raise CheckpointError(f"{path}: architecture {name} is not supported; known: {', '.join(ARCHITECTURES)}")


def _beyond(tokenizer: Any, known: int) -> list[str]:
    """Tokens of a text, or its end, that the model does not embed. Special ones alone do no harm: nothing here pads
    with them, and transformers adds some to the tokenizers of GGUF files.
    """
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special} - {tokenizer.eos_token_id}
    return sorted(token for token, i in tokenizer.get_vocab().items() if i >= known and i not in special)


def load_tokenizer(directory: Path, **options: Any) -> Any:
    """AutoTokenizer from local files, without running code of the model. Raises CheckpointError if there is
    none.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False, **options)
    # The package tokenizers raises plain `Exception` for a damaged file.
    except Exception as error:
        reason = str(error).strip().split("\n")[0][:200]
        source = directory / options.get("gguf_file", "")
        raise CheckpointError(f"{source}: its tokenizer cannot be loaded ({reason})") from None


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
        _opened(path)
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise CheckpointError(f"{path}: damaged or truncated safetensors ({error}); fetch it again") from None
    return entries


def _header(path: Path) -> dict[str, Entry]:
    try:
        stat = path.stat()
        return _header_at(path, stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None


def is_finite(weight: Tensor | NF4Tensor) -> bool:
    """Whether no value is infinite or NaN: then their sum is neither, unless they are very large. In pieces, as torch
    makes a copy of what it sums in another type.
    """
    if isinstance(weight, Tensor):
        parts = [weight]
    else:
        parts = [weight.absmax] if weight.nested is None else [weight.nested.absmax, weight.nested.offset]
    pieces = (piece for part in parts for piece in part.reshape(-1).split(PIECE))
    return all(bool(piece.sum(dtype=torch.float32).isfinite() or piece.isfinite().all()) for piece in pieces)


def _opened(path: Path) -> Any:
    """A memory-mapped safetensors file; mapping costs microseconds, so no handle is kept open."""
    return safe_open(path, framework="pt", device="cpu").__enter__()


def _read_json(path: Path, if_missing: str) -> dict[str, Any]:
    if not path.is_file():
        raise CheckpointError(if_missing)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path}: damaged JSON ({error})") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected a JSON object")
    return content
