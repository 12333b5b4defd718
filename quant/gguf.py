"""GGUF files (llama.cpp) read as Hugging Face checkpoints.

Read: F32, F16, BF16, Q8_0, Q4_0, Q4_1. Not read: the K and IQ formats; requantise such a file to Q8_0.

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
from gguf import GGUFReader
from torch import Tensor

from ..errors import CheckpointError, first_line
from .checkpoint import ARCHITECTURES, Checkpoint, check_architecture, load_tokenizer

# Bytes of a block of 32 values: a scale in fp16, for Q4_1 also a minimum, then the codes.
BLOCK_BYTES = {"Q8_0": 34, "Q4_0": 18, "Q4_1": 20}
PIECE = 1 << 15  # blocks dequantised at a time
FLOATS = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
TYPES = (*FLOATS, *BLOCK_BYTES)
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


class GGUFCheckpoint(Checkpoint):
    """A .gguf file of the Llama family. Weights are mapped, not read, until `load`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            reader = GGUFReader(path)
            self._meta = {key: field.contents() for key, field in reader.fields.items() if _is_small(key)}
            # Not the reader itself: what it holds of a vocabulary takes more memory than some models.
            self._mapped, self._stored = reader.data, list(reader.tensors)
        # The reader checks nothing: a short or damaged file shows as whatever numpy stumbles over.
        except (OSError, ValueError, IndexError, KeyError, TypeError, OverflowError, MemoryError) as error:
            raise CheckpointError(f"{path}: damaged or truncated GGUF ({first_line(error)}); fetch it again") from None
        self._arch = str(self._meta.get("general.architecture"))
        # llama.cpp files of Mistral models call themselves llama.
        check_architecture(path, self._arch if self._arch in CLASSES else f"{self._arch} (GGUF)")
        if experts := self._get("expert_count", 0):
            raise CheckpointError(
                f"{path}: architecture {self._arch} with {experts} experts (a mixture, as Mixtral) is not supported; "
                f"known: {', '.join(ARCHITECTURES)}"
            )
        if (pieces := self._meta.get("split.count", 0)) > 1:
            raise CheckpointError(
                f"{path}: one of {pieces} pieces of a model; join them first (llama-gguf-split --merge FIRST OUT)"
            )
        self._tensors = {name: tensor for tensor in self._stored if (name := self._name(tensor.name))}
        self.config = self._make_config()

    def names(self) -> list[str]:
        return sorted(self._tensors)

    def _load(self, name: str) -> Tensor:
        tensor = self._find(name)
        weight = _dequantize(np.asarray(tensor.data), tensor.tensor_type.name, self.shape(name))
        self._release_pages()
        part = name.split(".")[-2]
        if self._arch == "llama" and part in ("q_proj", "k_proj"):
            heads = self.config["num_attention_heads" if part == "q_proj" else "num_key_value_heads"]
            weight = unpermute(weight, heads)
        return weight

    def shape(self, name: str) -> tuple[int, ...]:
        # GGUF writes the fastest dimension first.
        return tuple(int(n) for n in reversed(self._find(name).shape))

    def nbytes(self, name: str) -> int:
        return int(self._find(name).n_bytes)

    def dtype(self, name: str) -> torch.dtype:
        return FLOATS.get(self._find(name).tensor_type.name, torch.float16)

    def _load_tokenizer(self) -> Any:
        return load_tokenizer(self.path.parent, gguf_file=self.path.name)

    def files(self) -> list[Path]:
        return [self.path]

    def _release_pages(self) -> None:
        """Release the pages that were read, which count as this process's memory until then."""
        if hasattr(mmap, "MADV_DONTNEED") and isinstance(mapped := getattr(self._mapped, "_mmap", None), mmap.mmap):
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
        """The configuration in Hugging Face terms. Also checks every tensor's type and extent."""
        size = self.path.stat().st_size
        for name, tensor in self._tensors.items():
            if tensor.tensor_type.name not in TYPES:
                raise CheckpointError(
                    f"{self.path}: {name} is stored as {tensor.tensor_type.name}, which is not supported; "
                    f"known: {', '.join(TYPES)}"
                )
            if int(tensor.data_offset) + int(tensor.n_bytes) > size:
                raise CheckpointError(f"{self.path}: truncated GGUF ({name} ends past the file); fetch it again")
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
        rotated = int(self._get("rope.dimension_count", config["head_dim"]))
        if rotated != config["head_dim"]:
            raise CheckpointError(
                f"{self.path}: rope.dimension_count is {rotated}, but a head has {config['head_dim']} numbers; a model "
                "that rotates a part of them is not supported"
            )
        scaling = self._rope_scaling(config)
        return config | ({"rope_scaling": scaling} if scaling else {})

    def _rope_scaling(self, config: dict[str, Any]) -> dict[str, Any] | None:
        """How rotary positions are stretched, or None."""
        for tensor in self._stored:
            if tensor.name == ROPE_FACTORS:
                return self._llama3_scaling(np.asarray(tensor.data, dtype=np.float64), config)
        kind = self._get("rope.scaling.type", "none")
        factor = float(self._get("rope.scaling.factor", 1.0))
        if kind == "none" or factor == 1.0:
            return None
        if kind == "linear":
            return {"rope_type": "linear", "factor": factor}
        if kind == "yarn":
            length = int(self._need("rope.scaling.original_context_length"))
            return {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": length}
        raise CheckpointError(f"{self.path}: rotary scaling {kind} is not supported; known: linear, yarn, llama3")

    def _llama3_scaling(self, factors: np.ndarray, config: dict[str, Any]) -> dict[str, Any]:
        """Llama 3.1 files hold the divisors that result, not the settings: the released settings are tried."""
        scaling = {
            "rope_type": "llama3",
            "factor": float(round(factors.max())),
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        }
        if not np.allclose(factors, llama3_factors(scaling, config["rope_theta"], config["head_dim"]), rtol=1e-3):
            raise CheckpointError(f"{self.path}: its rotary factors are not those of Llama 3.1; use the original model")
        return scaling


def llama3_factors(scaling: dict[str, Any], theta: float, head_dim: int) -> np.ndarray:
    """float64 `[head_dim / 2]`: what Llama 3.1 divides each rotary frequency by.

    Short wavelengths stay, long ones are stretched by `factor`, and between the two bounds the frequency is
    interpolated.
    """
    wavelength = 2 * math.pi * theta ** (np.arange(0, head_dim, 2) / head_dim)
    low, high, factor = scaling["low_freq_factor"], scaling["high_freq_factor"], scaling["factor"]
    turns = scaling["original_max_position_embeddings"] / wavelength
    share = np.clip((turns - low) / (high - low), 0, 1)
    return 1 / (share + (1 - share) / factor)


def unpermute(weight: Tensor, heads: int) -> Tensor:
    """Rows of attn_q or attn_k (`[heads * head_dim, ...]`) from llama.cpp's order to transformers' order.

    Within a head llama.cpp interleaves the two halves, rows 0, h, 1, h+1, ... with h = head_dim / 2.
    """
    pairs = weight.view(heads, weight.shape[0] // heads // 2, 2, *weight.shape[1:])
    return pairs.transpose(1, 2).reshape(weight.shape)


def _dequantize(data: np.ndarray, kind: str, shape: tuple[int, ...]) -> Tensor:
    """data: the stored bytes or numbers of one tensor -> float32, or float16 or bfloat16 if stored so."""
    if kind not in BLOCK_BYTES:
        raw = torch.from_numpy(np.array(data).view(np.uint8).reshape(-1))
        return raw.view(FLOATS[kind]).reshape(shape)
    blocks = np.ascontiguousarray(data).view(np.uint8).reshape(-1, BLOCK_BYTES[kind])
    values = np.empty((len(blocks), 32), np.float32)
    for at in range(0, len(blocks), PIECE):  # the steps between take several times the memory of the values
        values[at : at + PIECE] = _dequantize_blocks(blocks[at : at + PIECE], kind)
    return torch.from_numpy(values.reshape(shape))


def _dequantize_blocks(blocks: np.ndarray, kind: str) -> np.ndarray:
    """uint8 `[n, bytes of a block]` -> float32 `[n, 32]`."""
    scale = blocks[:, 0:2].copy().view(np.float16).astype(np.float32)
    if kind == "Q8_0":
        return blocks[:, 2:].view(np.int8).astype(np.float32) * scale
    packed = blocks[:, BLOCK_BYTES[kind] - 16 :]
    # A byte holds values j and j + 16 of its block, the first in the low nibble.
    codes = np.concatenate([packed & 15, packed >> 4], axis=1).astype(np.float32)
    if kind == "Q4_0":
        return (codes - 8) * scale
    return codes * scale + blocks[:, 2:4].copy().view(np.float16).astype(np.float32)


def _is_small(key: str) -> bool:
    """Vocabulary lists take seconds to unpack, and transformers reads them itself."""
    return not key.startswith("tokenizer.") or key.endswith("_token_id")
