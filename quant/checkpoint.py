"""A model on disk, whatever the file: `open_checkpoint`, what every kind offers, and what is checked of each.

Every checkpoint speaks Hugging Face names, such as `model.layers.0.self_attn.q_proj.weight`, and a Hugging Face
configuration. Tensors are read one at a time, when they are asked for. Whether all weights are there that the
configuration asks for, in their shapes, as floats, is known at opening from headers alone: a download that is
incomplete, or was mixed with another model's, is refused before any work.
"""

from __future__ import annotations

import functools
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..architecture import ARCHITECTURES, DecoderConfig
from ..errors import CheckpointError, first_line
from ..machine.files import sha256_of
from .nf4 import PIECE, NF4Tensor

EMBEDDING = "model.embed_tokens.weight"
LAYER = "model.layers."


class Checkpoint(ABC):
    """A model on disk. `config` is what a Hugging Face config.json holds; tensors are read when asked for."""

    path: Path
    config: dict[str, Any]

    @abstractmethod
    def names(self) -> list[str]:
        """Hugging Face names of all weights, sorted; the scales of a 4-bit weight are part of it, not listed."""

    def load(self, name: str) -> Tensor | NF4Tensor:
        """One weight, on the CPU, as stored; block formats of GGUF come as float32.

        Raises `CheckpointError` if it is not there, or holds values that are not finite.
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
        """The float type a weight is stored in, or was before 4 bits; float16 for GGUF block formats, which lose little
        by it. Raises `CheckpointError` for integers and other types.
        """

    def tokenizer(self) -> Any:
        """The transformers tokenizer of the model, from local files only.

        Raises `CheckpointError` if there is none, or if it knows tokens that the model does not embed.
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
        """`sha256_of_files` of `files`."""
        return sha256_of_files(self.files())

    def _unknown(self, name: str) -> CheckpointError:
        return CheckpointError(f"{self.path}: it holds no weight called {name}")


def sha256_of_files(files: Sequence[Path]) -> str:
    """Hexadecimal SHA-256 of one file, or of the lines `sha256  name` of several."""
    if len(files) == 1:
        return sha256_of(files[0])
    lines = "".join(f"{sha256_of(path)}  {path.name}\n" for path in files)
    return hashlib.sha256(lines.encode()).hexdigest()


def check_architecture(path: Path, model_type: str, architectures: list[str] | None = None) -> None:
    """Raises `CheckpointError` unless the model is of a supported family."""
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
    """AutoTokenizer from local files, without running code of the model. Raises `CheckpointError` if there is none."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False, **options)
    # The package tokenizers raises plain `Exception` for a damaged file.
    except Exception as error:
        source = directory / options.get("gguf_file", "")
        raise CheckpointError(f"{source}: its tokenizer cannot be loaded ({first_line(error, 200)})") from None


def is_finite(weight: Tensor | NF4Tensor) -> bool:
    """Whether no value is infinite or NaN: then their sum is neither, unless they are very large. In pieces, as torch
    makes a copy of what it sums in another type.
    """
    if isinstance(weight, Tensor):
        parts = [weight]
    else:
        nested = weight.nested
        parts = [weight.absmax] if nested is None else [nested.absmax, nested.offset, nested.code]
    pieces = (piece for part in parts for piece in part.reshape(-1).split(PIECE))
    return all(bool(piece.sum(dtype=torch.float32).isfinite() or piece.isfinite().all()) for piece in pieces)


def check_inventory(checkpoint: Checkpoint) -> None:
    """Raises `CheckpointError`, in one line, for a weight that is missing, unexpected, misshapen or no float."""
    path = checkpoint.path
    try:
        sizes = DecoderConfig.from_config(checkpoint.config)
    except (ValueError, TypeError, ArithmeticError, AttributeError, LookupError) as error:
        raise CheckpointError(f"{path}: its configuration cannot be used ({first_line(error, 400)})") from None
    names = set(checkpoint.names())
    if not any(name.startswith(LAYER) for name in names):
        raise CheckpointError(f"{path}: no decoder matrices were found; is it a whole language model?")
    expected = dict(expected_shapes(sizes, names))
    if missing := [name for name in expected if name not in names]:
        raise CheckpointError(
            f"{path}: {missing[0]} is missing ({len(missing)} of {len(expected)} weights are); "
            "the download is incomplete or its configuration is that of another model: fetch it again"
        )
    for name, shape in expected.items():
        checkpoint.dtype(name)  # raises for what is no float
        if (got := checkpoint.shape(name)) != shape:
            raise CheckpointError(
                f"{path}: {name} has the shape {list(got)}, but the configuration asks for {list(shape)}; "
                "files of two models are mixed: fetch it again"
            )
    numbers = {name.removeprefix(LAYER).split(".")[0] for name in names if name.startswith(LAYER)}
    beyond = sorted(int(number) for number in numbers if number.isdecimal() and int(number) >= sizes.layers)
    if beyond:
        raise CheckpointError(
            f"{path}: it holds layer {beyond[-1]}, but the configuration has {sizes.layers} layers; "
            "files of two models are mixed: fetch it again"
        )


def expected_shapes(sizes: DecoderConfig, names: set[str]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of each weight that a decoder of these sizes takes.

    names: of the weights that are there, for biases that may be among them.
    """
    width, query, key = sizes.width, sizes.heads * sizes.head_dim, sizes.kv_heads * sizes.head_dim
    yield EMBEDDING, (sizes.vocabulary, width)
    matrices = {
        "self_attn.q_proj": (query, width),
        "self_attn.k_proj": (key, width),
        "self_attn.v_proj": (key, width),
        "self_attn.o_proj": (width, query),
        "mlp.gate_proj": (sizes.ffn_width, width),
        "mlp.up_proj": (sizes.ffn_width, width),
        "mlp.down_proj": (width, sizes.ffn_width),
    }
    norms = {"input_layernorm": width, "post_attention_layernorm": width}
    if sizes.architecture == "qwen3":
        norms |= {"self_attn.q_norm": sizes.head_dim, "self_attn.k_norm": sizes.head_dim}
    for layer in range(sizes.layers):
        for part, shape in matrices.items():
            name = f"{LAYER}{layer}.{part}"
            yield f"{name}.weight", shape
            always = sizes.architecture == "qwen2" and part.endswith(("q_proj", "k_proj", "v_proj"))
            if always or f"{name}.bias" in names:
                yield f"{name}.bias", shape[:1]
        for part, size in norms.items():
            yield f"{LAYER}{layer}.{part}.weight", (size,)
    yield "model.norm.weight", (width,)
    if not sizes.tied_head:
        yield "lm_head.weight", (sizes.vocabulary, width)
