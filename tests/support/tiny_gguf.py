"""GGUF files of tiny models, as llama.cpp's converter lays them out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Kind
from transformers import AutoConfig, AutoModelForCausalLM

from mora_lite.quant.gguf import IN_LAYER, ROPE_FACTORS, TOP, unpermute

HEADS, KV_HEADS, LAYERS = 4, 2, 2


# Where a block of a format that the package gguf reads but does not write has its scales, in fp16: first byte and end.
SCALES = {Kind.Q2_K: (80, 84), Kind.Q3_K: (108, 110), Kind.Q4_K: (0, 4), Kind.Q5_K: (0, 4), Kind.Q6_K: (208, 210)}


def permute(weight: torch.Tensor, heads: int, rotated: int | None = None) -> torch.Tensor:
    """What llama.cpp does to attn_q and attn_k: the halves of the rotated rows of each head are interleaved."""
    per_head = weight.view(heads, -1, *weight.shape[1:])
    rotated = rotated or per_head.shape[1]
    first = per_head[:, :rotated].reshape(heads, 2, rotated // 2, *weight.shape[1:]).transpose(1, 2)
    return torch.cat([first.flatten(1, 2), per_head[:, rotated:]], 1).reshape(weight.shape)


def random_blocks(kind: Kind, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """uint8 `[rows, bytes]` that a matrix of that shape may have, with small scales."""
    values, n_bytes = gguf.GGML_QUANT_SIZES[kind]
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (shape[0] * shape[1] // values, n_bytes), np.uint8)
    start, end = SCALES[kind]
    scales = rng.uniform(0.0005, 0.002, (len(blocks), (end - start) // 2)).astype(np.float16)
    blocks[:, start:end] = scales.view(np.uint8)
    return blocks.reshape(shape[0], -1)


def make_model(kind: str, **extra: Any) -> Any:
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        kind,
        vocab_size=extra.pop("vocab_size", 64),
        hidden_size=extra.pop("hidden_size", 64),
        intermediate_size=extra.pop("intermediate_size", 96),
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        head_dim=extra.pop("head_dim", 16),
        **extra,
    )
    model = AutoModelForCausalLM.from_config(config)
    for name, weight in model.named_parameters():
        if name.endswith(".bias"):
            torch.nn.init.normal_(weight)
    return model


def write_gguf(
    path: Path,
    model: Any,
    arch: str,
    kind: Kind = Kind.F32,
    tokenizer: Any = None,
    tensors_a_file: int = 0,
    **meta: Any,
) -> Path:
    """Matrices as `kind`, the rest F32; those of formats in SCALES get random values, which `model` gets too.

    tokenizer: one whose tokens are bytes. tensors_a_file: split into files of so many tensors. meta: theta, and further
    or other values of the architecture.
    """
    config = model.config
    writer = gguf.GGUFWriter(path, arch, split_max_tensors=tensors_a_file)
    rotated = meta.get("rope.dimension_count")  # what is no number of them is for the reader to refuse
    rotated = rotated if rotated in range(2, config.head_dim + 1, 2) else config.head_dim
    numbers = {
        "block_count": config.num_hidden_layers,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.key_length": config.head_dim,
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "rope.freq_base": meta.pop("theta", 5e5),
    }
    for key, value in {**numbers, **meta}.items():
        kind_of_value = gguf.GGUFValueType.get_type(value)
        if isinstance(value, int):
            kind_of_value = gguf.GGUFValueType.UINT32 if value < 1 << 32 else gguf.GGUFValueType.UINT64
        writer.add_key_value(f"{arch}.{key}", value, kind_of_value)
    if tokenizer is not None:
        tokens = [token for token, _ in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])]
        tokens.append("CC")  # a file needs a merge
        writer.add_token_merges(["C C"])
        writer.add_tokenizer_model("gpt2")
        writer.add_token_list(tokens)
        writer.add_token_types([3 if token in tokenizer.all_special_tokens else 1 for token in tokens])
        writer.add_eos_token_id(tokenizer.eos_token_id)
        writer.add_bos_token_id(tokenizer.eos_token_id)
        if tokenizer.chat_template:
            writer.add_chat_template(tokenizer.chat_template)
    back = {value: key for key, value in {**IN_LAYER, **TOP, ROPE_FACTORS: ROPE_FACTORS}.items()}
    for name, original in model.state_dict().items():
        if name in back:
            stored = back[name]
        else:
            _, _, layer, rest = name.split(".", 3)
            part, end = rest.rsplit(".", 1)
            stored = f"blk.{layer}.{back[part]}.{end}"
        turned = arch == "llama" and (".attn_q." in stored or ".attn_k." in stored)
        heads = HEADS if ".attn_q." in stored else KV_HEADS
        if original.ndim == 2 and kind in SCALES:
            blocks = random_blocks(kind, tuple(original.shape), len(stored))
            weight = torch.from_numpy(gguf.quants.dequantize(blocks, kind))
            original.copy_(unpermute(weight, heads, rotated) if turned else weight)
            writer.add_tensor(stored, blocks, raw_dtype=kind)
            continue
        weight = permute(original, heads, rotated) if turned else original
        values = weight.float().numpy()
        if values.ndim == 2 and kind != Kind.F32:
            writer.add_tensor(stored, gguf.quants.quantize(values, kind), raw_dtype=kind)
        else:
            writer.add_tensor(stored, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
