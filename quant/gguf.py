"""GGUF files (llama.cpp) read as Hugging Face checkpoints, in one file or split into several.

Read: F32, F16, BF16, and the block formats that the package gguf dequantises: Q4_0 to Q8_0, the K and the IQ formats.

llama.cpp stores the rows of attn_q and attn_k of Llama and Mistral in another order, so that its rotary embedding can
turn neighbouring values; here they are put back in the order that transformers uses. Qwen files are not reordered.
"""

from __future__ import annotations

import math
import mmap
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFReader
from gguf.quants import dequantize
from torch import Tensor

from ..errors import CheckpointError, fitting
from .checkpoint import ARCHITECTURES, Checkpoint, check_architecture, load_tokenizer
from .gguf_split import split_files

BLOCKS = (
    *("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"),
    *("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_NL", "IQ4_XS"),
)
PIECE = 1 << 20  # values dequantised at a time
FLOATS = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
TYPES = (*FLOATS, *BLOCKS)
CLASSES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}

TOP = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
IN_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
ROPE_FACTORS = "rope_freqs.weight"
UNSCALED = {"yarn_ext_factor": 1.0, "yarn_attn_factor": 1.0, "attn_factor": 1.0, "yarn_log_multiplier": 0.0}


class GGUFCheckpoint(Checkpoint):
    """A model of the Llama family in one or more .gguf files. Weights are mapped, not read, until `load`."""

    def __init__(self, path: Path) -> None:
        self._files = split_files(path)
        self.path = self._files[0]
        self._mapped: list[np.ndarray] = []
        self._stored: list[Any] = []
        self._meta: dict[str, Any] = {}
        for number, file in enumerate(self._files):
            with fitting(f"{file}: damaged or truncated GGUF", "fetch it again", CheckpointError):
                self._open_file(file, number)
        self._arch = str(self._meta.get("general.architecture"))
        # llama.cpp files of Mistral models call themselves llama.
        check_architecture(path, self._arch if self._arch in CLASSES else f"{self._arch} (GGUF)")
        if experts := self._get("expert_count", 0):
            raise CheckpointError(
                f"{path}: architecture {self._arch} with {experts} experts (a mixture, as Mixtral) is not supported; "
                f"known: {', '.join(ARCHITECTURES)}"
            )
        self._tensors = {name: tensor for tensor in self._stored if (name := self._name(tensor.name))}
        with fitting(f"{self.path}: damaged or truncated GGUF", "fetch it again", CheckpointError):
            self.config = self._make_config()

    def _open_file(self, file: Path, number: int) -> None:
        """Map the file with that number, from 0, and take its tensors; the first one's metadata are the model's."""
        reader = GGUFReader(file)
        meta = {key: field.contents() for key, field in reader.fields.items() if _is_small(key)}
        # Not the reader itself: what it holds of a vocabulary takes more memory than some models.
        mapped, stored = reader.data, list(reader.tensors)
        _check_extents(file, stored)
        parts, own = meta.get("split.count", 0), meta.get("split.no", number)
        if parts > 1 and len(self._files) == 1:
            raise CheckpointError(
                f"{file}: one of {parts} parts of a model, which are found by their names; call them "
                f"NAME-00001-of-{parts:05}.gguf and so on"
            )
        if len(self._files) > 1 and (parts, own) != (len(self._files), number):
            raise CheckpointError(
                f"{file}: it says that it is part {own + 1} of {parts}, its name says {number + 1} of "
                f"{len(self._files)}; files of two models are mixed: fetch them again"
            )
        if double := {tensor.name for tensor in self._stored} & {tensor.name for tensor in stored}:
            raise CheckpointError(f"{file}: {min(double)} is in another part too; fetch the parts again")
        self._meta = self._meta or meta
        self._mapped.append(mapped)
        self._stored += stored

    def names(self) -> list[str]:
        return sorted(self._tensors)

    def _load(self, name: str) -> Tensor:
        tensor = self._find(name)
        weight = _dequantize(np.asarray(tensor.data), tensor.tensor_type.name, self.shape(name))
        self._release_pages()
        part = name.split(".")[-2]
        if self._arch == "llama" and part in ("q_proj", "k_proj"):
            heads = self.config["num_attention_heads" if part == "q_proj" else "num_key_value_heads"]
            weight = unpermute(weight, heads, self._rotated)
        return weight

    def shape(self, name: str) -> tuple[int, ...]:
        # GGUF writes the fastest dimension first.
        return tuple(int(n) for n in reversed(self._find(name).shape))

    def nbytes(self, name: str) -> int:
        return int(self._find(name).n_bytes)

    def dtype(self, name: str) -> torch.dtype:
        return FLOATS.get(self._find(name).tensor_type.name, torch.float16)

    def _load_tokenizer(self) -> Any:
        tokenizer = load_tokenizer(self.path.parent, gguf_file=self.path.name)
        end = self.config["eos_token_id"]
        if end is not None and tokenizer.eos_token_id != end:  # seen once, with transformers 5.17
            tokenizer.eos_token = tokenizer.convert_ids_to_tokens(int(end))
        return tokenizer

    def files(self) -> list[Path]:
        return list(self._files)

    def _release_pages(self) -> None:
        """Release the pages that were read, which count as this process's memory until then."""
        for array in self._mapped:
            if hasattr(mmap, "MADV_DONTNEED") and isinstance(mapped := getattr(array, "_mmap", None), mmap.mmap):
                mapped.madvise(mmap.MADV_DONTNEED)

    def _find(self, name: str) -> Any:
        if name not in self._tensors:
            raise self._unknown(name)
        return self._tensors[name]

    def _get(self, key: str, default: Any = None) -> Any:
        return self._meta.get(f"{self._arch}.{key}", default)

    def _need(self, key: str) -> Any:
        value = self._get(key)
        if value is None:
            raise CheckpointError(f"{self.path}: {self._arch}.{key} is missing; the file is damaged or very old")
        return value

    def _name(self, stored: str) -> str | None:
        """The Hugging Face name of a tensor; None for one that belongs in the configuration."""
        if stored == ROPE_FACTORS:
            return None
        if stored in TOP:
            return TOP[stored]
        match = re.fullmatch(r"blk\.(\d+)\.(\w+)\.(weight|bias)", stored)
        if match is None or match[2] not in IN_LAYER:
            raise CheckpointError(f"{self.path}: tensor {stored} is not known for {self._arch} models")
        return f"model.layers.{match[1]}.{IN_LAYER[match[2]]}.{match[3]}"

    def _make_config(self) -> dict[str, Any]:
        """The configuration in Hugging Face terms. Also checks every tensor's type."""
        for name, tensor in self._tensors.items():
            if tensor.tensor_type.name not in TYPES:
                raise CheckpointError(
                    f"{self.path}: {name} is stored as {tensor.tensor_type.name}, which is not supported; "
                    f"known: {', '.join(TYPES)}"
                )
        embedding = self._tensors.get("model.embed_tokens.weight")
        if embedding is None or "model.norm.weight" not in self._tensors:
            raise CheckpointError(f"{self.path}: it has no token_embd or output_norm; is it a whole language model?")
        width, heads = int(self._need("embedding_length")), self._need("attention.head_count")
        kv_heads = self._get("attention.head_count_kv", heads)
        if not isinstance(heads, int) or not isinstance(kv_heads, int):
            raise CheckpointError(f"{self.path}: layers with different head counts are not supported")
        if heads < 1 or kv_heads < 1 or len(embedding.shape) != 2:
            raise CheckpointError(f"{self.path}: damaged GGUF ({heads} heads, {kv_heads} of keys); fetch it again")
        config: dict[str, Any] = {
            "architectures": [CLASSES[self._arch]],
            "model_type": self._arch,
            "vocab_size": int(embedding.shape[1]),
            "hidden_size": width,
            "intermediate_size": int(self._need("feed_forward_length")),
            "num_hidden_layers": int(self._need("block_count")),
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "head_dim": int(self._get("attention.key_length", width // heads)),
            "hidden_act": "silu",
            "max_position_embeddings": int(self._get("context_length", 2048)),
            "rms_norm_eps": round(float(self._need("attention.layer_norm_rms_epsilon")), 12),
            "rope_theta": float(self._get("rope.freq_base", 10000.0)),
            "tie_word_embeddings": "lm_head.weight" not in self._tensors,
            "attention_bias": "model.layers.0.self_attn.q_proj.bias" in self._tensors,
            "bos_token_id": self._meta.get("tokenizer.ggml.bos_token_id"),
            "eos_token_id": self._meta.get("tokenizer.ggml.eos_token_id"),
            "pad_token_id": self._meta.get("tokenizer.ggml.padding_token_id"),
        }
        self._rotated = rotated = int(self._get("rope.dimension_count", config["head_dim"]))
        if rotated % 2 or not 0 < rotated <= config["head_dim"]:
            raise CheckpointError(
                f"{self.path}: rope.dimension_count is {rotated}, but a head has {config['head_dim']} numbers; "
                "expected an even number up to that"
            )
        if rotated < config["head_dim"]:
            config["partial_rotary_factor"] = rotated / config["head_dim"]
        scaling = self._rope_scaling(config)
        return config | ({"rope_scaling": scaling} if scaling else {})

    def _rope_scaling(self, config: dict[str, Any]) -> dict[str, Any] | None:
        """How rotary positions are stretched, or None."""
        for tensor in self._stored:
            if tensor.name == ROPE_FACTORS:
                return self._llama3_scaling(np.asarray(tensor.data, dtype=np.float64), config)
        kind = self._get("rope.scaling.type", "linear")  # as in llama.cpp, where files of 2023 have the factor alone
        factor = float(self._get("rope.scaling.factor") or self._get("rope.scale_linear") or 1.0)
        if kind == "none" or factor == 1.0:
            return None
        if kind == "linear":
            return {"rope_type": "linear", "factor": factor}
        if kind == "yarn":
            for name, usual in UNSCALED.items():
                if (value := self._get(f"rope.scaling.{name}", usual)) != usual:
                    raise CheckpointError(f"{self.path}: rope.scaling.{name} of {value} is not supported, only {usual}")
            length = int(self._need("rope.scaling.original_context_length"))
            scaling = {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": length}
            bounds = {name: self._get(f"rope.scaling.yarn_{name}") for name in ("beta_fast", "beta_slow")}
            return scaling | {name: float(value) for name, value in bounds.items() if value is not None}
        raise CheckpointError(f"{self.path}: rotary scaling {kind} is not supported; known: linear, yarn, llama3")

    def _llama3_scaling(self, factors: np.ndarray, config: dict[str, Any]) -> dict[str, Any]:
        """Llama 3.1 files hold the divisors that result, not the settings: the released settings are tried."""
        if factors.shape == (self._rotated // 2,) and np.isfinite(factors).all():
            scaling = {
                "rope_type": "llama3",
                "factor": float(round(factors.max())),
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192,
            }
            if np.allclose(factors, llama3_factors(scaling, config["rope_theta"], self._rotated), rtol=1e-3):
                return scaling
        raise CheckpointError(f"{self.path}: its rotary factors are not those of Llama 3.1; use the original model")


def llama3_factors(scaling: dict[str, Any], theta: float, rotated: int) -> np.ndarray:
    """float64 `[rotated / 2]`: what Llama 3.1 divides each rotary frequency by.

    Short wavelengths stay, long ones are stretched by `factor`, and between the two bounds the frequency is
    interpolated.
    """
    wavelength = 2 * math.pi * theta ** (np.arange(0, rotated, 2) / rotated)
    low, high, factor = scaling["low_freq_factor"], scaling["high_freq_factor"], scaling["factor"]
    turns = scaling["original_max_position_embeddings"] / wavelength
    share = np.clip((turns - low) / (high - low), 0, 1)
    return 1 / (share + (1 - share) / factor)


def unpermute(weight: Tensor, heads: int, rotated: int) -> Tensor:
    """Rows of attn_q or attn_k (`[heads * head_dim, ...]`) from llama.cpp's order to transformers' order.

    Of the first `rotated` rows of a head llama.cpp turns neighbours, rows 0 and 1, 2 and 3, ...; transformers turns
    rows 0 and h, 1 and h+1, ... with h = rotated / 2.
    """
    per_head = weight.view(heads, -1, *weight.shape[1:])
    first, rest = per_head[:, :rotated], per_head[:, rotated:]
    pairs = first.reshape(heads, rotated // 2, 2, *weight.shape[1:])
    return torch.cat([pairs.transpose(1, 2).reshape(first.shape), rest], 1).view(weight.shape)


def _check_extents(file: Path, stored: list[Any]) -> None:
    """Raise `ValueError` for a tensor whose bytes are not those of its shape, or end past the file."""
    size = file.stat().st_size
    for tensor in stored:
        values, bytes_of_block = GGML_QUANT_SIZES[tensor.tensor_type]
        n = math.prod(int(extent) for extent in tensor.shape)
        if n % values or int(tensor.n_bytes) != n // values * bytes_of_block:
            raise ValueError(f"{tensor.name} has {tensor.n_bytes} bytes for {n} values")
        if int(tensor.data_offset) + int(tensor.n_bytes) > size:
            raise ValueError(f"{tensor.name} ends past the file")


def _dequantize(data: np.ndarray, kind: str, shape: tuple[int, ...]) -> Tensor:
    """data: the stored bytes or numbers of one tensor -> float32, or float16 or bfloat16 if stored so."""
    if kind in FLOATS:
        raw = torch.from_numpy(np.array(data).view(np.uint8).reshape(-1))
        return raw.view(FLOATS[kind]).reshape(shape)
    format = GGMLQuantizationType[kind]
    n_values, n_bytes = GGML_QUANT_SIZES[format]
    blocks = np.ascontiguousarray(data).view(np.uint8).reshape(-1, n_bytes)
    values = np.empty((len(blocks), n_values), np.float32)
    step = PIECE // n_values
    for at in range(0, len(blocks), step):  # the steps between take several times the memory of the values
        values[at : at + step] = dequantize(blocks[at : at + step], format)
    return torch.from_numpy(values.reshape(shape))


def _is_small(key: str) -> bool:
    """Vocabulary lists take seconds to unpack, and transformers reads them itself."""
    return not key.startswith("tokenizer.") or key.endswith("_token_id")
