"""What a pack takes from its base model: prompts compiled by the whole model, and the upper layers."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import Tensor

from ..architecture import DecoderConfig
from ..errors import OutputError
from ..hub.cache import cache_dir
from ..machine.device import available_bytes
from ..machine.files import verify_sums
from ..quant.checkpoint import Checkpoint, sha256_of_files
from ..quant.convert import MATRIX
from ..quant.formats import open_checkpoint
from ..quant.gguf_split import split_files
from ..quant.huggingface import HuggingFaceCheckpoint
from ..quant.linear import choose_mode
from ..quant.nf4 import NF4Tensor, quantize_nf4
from ..quant.writer import write_checkpoint
from .decoder import Decoder
from .prefix import CompiledPrompts, UpperLayers, compile_prompts, prompt_ids, upper_tensor_names
from .tokenizer import PlainTokenizer

COPY_FROM = 32_000_000  # weights in matrices; fewer are quantised in less than a second
COPY_FORMAT = 2  # goes up when the same base model gives other bits or sizes
SIZES = "mora_lite_sizes"  # in the configuration of a copy: what transformers made of it, which is slow to import


class NF4Source:
    """A checkpoint whose decoder matrices are read as NF4, whatever they are stored as.

    original: what it was copied from, if it is a copy. sizes: of the decoder, where the copy holds them.
    """

    def __init__(self, checkpoint: Checkpoint, original: Original | None = None, sizes: DecoderConfig | None = None):
        self.checkpoint = checkpoint
        self.sizes = sizes
        self._original = original

    @property
    def config(self) -> dict[str, Any]:
        return self.checkpoint.config

    @property
    def source_sha256(self) -> str:
        """SHA-256 of the base model's own files, not of a copy's."""
        return self._original.sha256 if self._original else self.checkpoint.source_sha256

    def tokenizer(self) -> Any:
        return ((self._original and self._original.directory) or self.checkpoint).tokenizer()

    def plain_tokenizer(self) -> Any:
        """`tokenizer` for plain texts; of a copy that holds it, `PlainTokenizer`."""
        file = self.checkpoint.path / "tokenizer.json"
        if self._original is None or self._original.directory is not None or not file.is_file():
            return self.tokenizer()
        return PlainTokenizer(file)

    def names(self) -> Iterable[str]:
        return self.checkpoint.names()

    def load(self, name: str) -> Tensor | NF4Tensor:
        weight = self.checkpoint.load(name)
        if isinstance(weight, Tensor) and MATRIX.fullmatch(name):
            return quantize_nf4(weight.float())
        return weight


@dataclass(frozen=True)
class Original:
    """What a copy was made from. directory: open; None for a GGUF file, whose tokenizer the copy holds."""

    sha256: str
    directory: Checkpoint | None


def open_nf4(path: Path) -> NF4Source:
    """The base model at `path` in NF4, bit for bit the same each time.

    Quantising takes seconds to minutes, so the first call for a model of COPY_FROM weights or more keeps a copy in the
    cache, by the SHA-256 of the base model's files; a later call reads that, once its own SHA-256 list holds. Where no
    copy can be written, the model is quantised at each call.
    """
    directory = open_checkpoint(path) if not path.is_file() else None
    original = Original(directory.source_sha256 if directory else sha256_of_files(split_files(path)), directory)
    home = cache_dir() / "nf4" / f"{original.sha256[:32]}-{COPY_FORMAT}"
    if verify_sums(home):
        return _open_copy(home, original)
    source = NF4Source(directory or open_checkpoint(path))
    if source.config.get("quantization_config") or _n_in_matrices(source.checkpoint) < COPY_FROM:
        return source
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(home.with_suffix(".lock")):
            if not verify_sums(home):  # another process may have written it meanwhile
                weights = ((name, source.load(name)) for name in source.names())
                tokenizer = None if directory else source.tokenizer
                config = source.config | {SIZES: DecoderConfig.from_config(source.config).as_dict()}
                write_checkpoint(home, config, weights, tokenizer, force=True)
    except (OSError, OutputError):
        return source
    return _open_copy(home, original)


def _open_copy(home: Path, original: Original) -> NF4Source:
    """What `open_nf4` wrote, if its sums hold: what was checked of the original is not checked again."""
    checkpoint = HuggingFaceCheckpoint(home)
    sizes = checkpoint.config.get(SIZES)
    return NF4Source(checkpoint, original, DecoderConfig.from_dict(sizes) if sizes else None)


def _n_in_matrices(checkpoint: Checkpoint) -> int:
    """Weights in the decoder's matrices."""
    return sum(math.prod(checkpoint.shape(name)) for name in checkpoint.names() if MATRIX.fullmatch(name))


def load_decoder(
    source: NF4Source, dtype: torch.dtype, device: torch.device, memory_budget: int | None = None
) -> Decoder:
    """The whole language model on `device`.

    Its matrices are dequantised once where that takes at most `memory_budget` bytes, by default half of what is free;
    else they stay in 4 bits and are dequantised at each use.
    """
    budget = available_bytes(device) // 2 if memory_budget is None else memory_budget
    mode = choose_mode(_n_in_matrices(source.checkpoint) * dtype.itemsize, budget)
    return Decoder.from_checkpoint(source, dtype, mode, source.sizes).to(device)


@dataclass(frozen=True)
class CompiledBase:
    """sizes: of the whole decoder. prompts: compiled. weights: of the upper layers, by Hugging Face name.

    sha256: of the base model's files. ids: tokens of each prompt.
    """

    sizes: DecoderConfig
    prompts: CompiledPrompts
    weights: dict[str, Tensor | NF4Tensor]
    sha256: str
    ids: list[list[int]]

    def upper(self, n_layers: int, dtype: torch.dtype = torch.float32) -> UpperLayers:
        """The upper layers as a module, dequantised once to `dtype`."""
        return UpperLayers(self.sizes, n_layers, self.weights, dtype, "resident")


def compile_base(path: Path, prompts: list[str], n_layers: int, *, four_bit: bool = True) -> CompiledBase:
    """Run the base model in float32 over all prompts and keep what `n_layers` adapted layers need.

    four_bit: quantise its matrices to NF4 first; False keeps those of the upper layers in bfloat16.
    """
    source = open_nf4(path) if four_bit else open_checkpoint(path)
    decoder = Decoder.from_checkpoint(source)
    ids = prompt_ids(source.tokenizer(), prompts)
    compiled = compile_prompts(decoder, ids, n_layers)
    names = upper_tensor_names(source.names(), decoder.sizes, n_layers)
    weights = {name: source.load(name) for name in names}
    if not four_bit:
        for name, weight in weights.items():
            if isinstance(weight, Tensor) and MATRIX.fullmatch(name):
                weights[name] = weight.bfloat16()
    return CompiledBase(decoder.sizes, compiled, weights, source.source_sha256, ids)
