"""Checkpoints that are not what their configuration says: each is one line that names the weight, and exit code 2."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from mora_lite.errors import CheckpointError
from mora_lite.quant.convert import quantize_checkpoint
from mora_lite.quant.formats import open_checkpoint
from mora_lite.quant.huggingface import INDEX

Q = "model.layers.1.self_attn.q_proj.weight"
SIZES: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
}


@pytest.fixture
def model(base_path: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model with its tokenizer, to be damaged."""
    return Path(shutil.copytree(base_path, tmp_path / "model"))


def set_config(model: Path, **change: Any) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, **change}))


def set_weights(model: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    weights = load_file(model / "model.safetensors")
    change(weights)
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})


def split(model: Path) -> dict[str, str]:
    """The same model in two shards with an index; returns its map."""
    weights = load_file(model / "model.safetensors")
    (model / "model.safetensors").unlink()
    weight_map: dict[str, str] = {}
    for number, names in enumerate((sorted(weights)[::2], sorted(weights)[1::2])):
        file = f"model-{number + 1:05d}-of-00002.safetensors"
        save_file({name: weights[name] for name in names}, model / file)
        weight_map |= dict.fromkeys(names, file)
    (model / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    return weight_map


def lose_a_shard(model: Path) -> None:
    (model / split(model)[Q]).unlink()


def promise_what_is_not_there(model: Path) -> None:
    weight_map = split(model)
    set_weights_of(model / weight_map[Q], lambda weights: weights.pop(Q))


def set_weights_of(file: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    weights = load_file(file)
    change(weights)
    save_file(weights, file)


def cut(model: Path) -> None:
    file = model / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


def lose_a_layer(weights: dict[str, torch.Tensor]) -> None:
    for name in [name for name in weights if name.startswith("model.layers.3.")]:
        del weights[name]


DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "cut": (cut, "damaged or truncated safetensors"),
    "shard lost": (lose_a_shard, "of-00002.safetensors named in model.safetensors.index.json is missing"),
    "index lies": (promise_what_is_not_there, f"says that {Q} is in model-"),
    "index empty": (lambda m: (split(m), (m / INDEX).write_text("{}")), "no weight_map"),
    "layer lost": (
        lambda m: set_weights(m, lose_a_layer),
        "model.layers.3.self_attn.q_proj.weight is missing (9 of 38 weights are)",
    ),
    "layer too many": (
        lambda m: set_config(m, num_hidden_layers=3),
        "holds layer 3, but the configuration has 3 layers",
    ),
    "another width": (
        lambda m: set_config(m, hidden_size=128),
        "model.embed_tokens.weight has the shape [257, 64], but the configuration asks for [257, 128]",
    ),
    "other heads": (
        lambda m: set_config(m, num_key_value_heads=4),
        "model.layers.0.self_attn.k_proj.weight has the shape [32, 64], but the configuration asks for [64, 64]",
    ),
    "head lost": (lambda m: set_config(m, tie_word_embeddings=False), "lm_head.weight is missing"),
    "integers": (
        lambda m: set_weights(m, lambda w: w.update({Q: w[Q].to(torch.int64)})),
        f"{Q} is stored as I64, which is not supported; known: F64, F32, F16, BF16 and bitsandbytes NF4",
    ),
    "8-bit floats": (
        lambda m: set_weights(m, lambda w: w.update({Q: w[Q].to(torch.float8_e4m3fn)})),
        "stored as F8_E4M3",
    ),
    "NaN": (
        lambda m: set_weights(m, lambda w: w[Q].view(-1)[3].fill_(torch.nan)),
        f"{Q} holds values that are not finite; the file is damaged",
    ),
    "no number": (lambda m: set_config(m, hidden_size="wide"), "configuration cannot be used"),
    "no heads": (lambda m: set_config(m, num_attention_heads=0), "configuration cannot be used"),
    "far too many layers": (lambda m: set_config(m, num_hidden_layers=10**30), "num_hidden_layers: got 1000000"),
    "far too wide heads": (lambda m: set_config(m, head_dim=1 << 40), "expected at most 1048576"),
    "no factor": (
        lambda m: set_config(m, rope_scaling={"rope_type": "linear", "factor": None}),
        "configuration cannot be used",
    ),
    "no share": (
        lambda m: set_config(m, rope_parameters={"rope_theta": 1e4, "partial_rotary_factor": "half"}),
        "configuration cannot be used",
    ),
    "Mixtral": (
        lambda m: set_config(m, model_type="mixtral", architectures=["MixtralForCausalLM"]),
        "architecture MixtralForCausalLM is not supported; known: llama, mistral, qwen2, qwen3",
    ),
    "words added": (
        lambda m: add_tokens(m, ["benzene"]),
        "has 258 tokens, but the model embeds 257, and not 'benzene'",
    ),
    "tokenizer": (
        lambda m: (set_config(m, vocab_size=256), set_weights(m, fewer_tokens)),
        "its tokenizer has 257 tokens, but the model embeds 256, and not 'Ń'; give the tokenizer",
    ),
}


def add_tokens(model: Path, words: list[str], **special: str) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.add_tokens(words)
    tokenizer.add_special_tokens(special)
    tokenizer.save_pretrained(model)


def fewer_tokens(weights: dict[str, torch.Tensor]) -> None:
    weights["model.embed_tokens.weight"] = weights["model.embed_tokens.weight"][:256].clone()


@pytest.mark.parametrize("damage", list(DAMAGES))
def test_the_command_line_says_what_is_wrong_in_one_line(run: Any, model: Path, tmp_path: Path, damage: str) -> None:
    harm, message = DAMAGES[damage]
    harm(model)
    code, out, err = run("quantize", model, "-o", tmp_path / "out")
    assert (code, out) == (2, "")
    assert message in err
    assert err.startswith("error: ")
    assert len(err.strip().splitlines()) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model"], "nothing half-written is left"


def test_a_damaged_weight_is_not_loaded_either(model: Path) -> None:
    DAMAGES["NaN"][0](model)
    with pytest.raises(CheckpointError, match="not finite"):
        open_checkpoint(model).load(Q)


def test_a_padding_token_that_was_added_does_no_harm(model: Path) -> None:
    """Nothing pads with it: a tokenizer without one serves as well."""
    assert open_checkpoint(model).tokenizer().pad_token is None
    add_tokens(model, [], pad_token="<pad>")
    assert len(open_checkpoint(model).tokenizer()) == 258


def test_old_files_hold_more_than_is_needed(model: Path) -> None:
    """Llama files of 2023 hold the rotary frequencies of each layer."""
    set_weights(model, lambda w: w.update({"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)}))
    open_checkpoint(model)


@pytest.mark.parametrize("shard", ["50KB", "1GB"])
@pytest.mark.parametrize(
    ("kind", "extra"),
    [
        ("llama", {"tie_word_embeddings": True}),
        ("llama", {"attention_bias": True, "mlp_bias": True}),
        ("mistral", {"sliding_window": 8}),
        ("qwen2", {"tie_word_embeddings": True}),
        ("qwen3", {}),
    ],
)
def test_every_family_is_read_quantised_and_read_again(
    tmp_path: Path, kind: str, extra: dict[str, Any], shard: str
) -> None:
    """With 4-bit weights the decoder gives what transformers gives with the same weights."""
    from mora_lite.lm.decoder import Decoder
    from mora_lite.quant.convert import MATRIX
    from mora_lite.quant.nf4 import dequantize_nf4

    torch.manual_seed(0)
    theirs = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **SIZES, **extra)).eval()
    theirs.save_pretrained(tmp_path / "model", max_shard_size=shard)
    assert (tmp_path / "model" / INDEX).exists() is (shard == "50KB")
    source = open_checkpoint(tmp_path / "model")
    assert quantize_checkpoint(source, tmp_path / "out").matrices == 14
    out = open_checkpoint(tmp_path / "out")
    assert out.names() == source.names()
    weights = theirs.state_dict()
    for name in filter(MATRIX.fullmatch, out.names()):
        weights[name].copy_(dequantize_nf4(out.load(name)))  # type: ignore[arg-type]
    ids = torch.arange(2, 42).view(2, 20)
    with torch.no_grad():
        torch.testing.assert_close(Decoder.from_checkpoint(out).logits(ids), theirs(ids).logits, atol=1e-4, rtol=1e-4)
