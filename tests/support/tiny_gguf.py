"""GGUF files of tiny models, as llama.cpp's converter lays them out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import torch
from gguf import GGMLQuantizationType as Kind
from transformers import AutoConfig, AutoModelForCausalLM

from mora_lite.quant.gguf import IN_LAYER, TOP

HEADS, KV_HEADS, LAYERS = 4, 2, 2


def permute(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """What llama.cpp does to attn_q and attn_k: the two halves of each head are interleaved."""
    return weight.view(heads, 2, -1, *weight.shape[1:]).transpose(1, 2).reshape(weight.shape)


def make_model(kind: str, **extra: Any) -> Any:
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        kind,
        vocab_size=extra.pop("vocab_size", 64),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        head_dim=16,
        **extra,
    )
    model = AutoModelForCausalLM.from_config(config)
    for name, weight in model.named_parameters():
        if name.endswith(".bias"):
            torch.nn.init.normal_(weight)
    return model


def write_gguf(path: Path, model: Any, arch: str, kind: Kind = Kind.F32, tokenizer: Any = None, **meta: Any) -> Path:
    """Matrices as `kind`, the rest F32. tokenizer: one whose tokens are bytes.

    meta: theta, and further or other numbers of the architecture.
    """
    config = model.config
    writer = gguf.GGUFWriter(path, arch)
    numbers = {
        "block_count": config.num_hidden_layers,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.key_length": 16,
    }
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(meta.pop("theta", 5e5))
    for key, value in {**numbers, **meta}.items():
        writer.add_uint32(f"{arch}.{key}", value)
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
    back = {value: key for key, value in IN_LAYER.items()} | {value: key for key, value in TOP.items()}
    for name, original in model.state_dict().items():
        weight = original
        if name in back:
            stored = back[name]
        else:
            _, _, layer, rest = name.split(".", 3)
            part, end = rest.rsplit(".", 1)
            stored = f"blk.{layer}.{back[part]}.{end}"
        if arch == "llama" and (".attn_q." in stored or ".attn_k." in stored):
            weight = permute(original, HEADS if ".attn_q." in stored else KV_HEADS)
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
