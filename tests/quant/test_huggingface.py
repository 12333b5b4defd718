"""Hugging Face directories: what can be read, what we write, and the errors."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from mora_lite.errors import CheckpointError, OutputError
from mora_lite.machine.files import SUMS, sha256_of
from mora_lite.quant import writer
from mora_lite.quant.checkpoint import Checkpoint
from mora_lite.quant.formats import open_checkpoint
from mora_lite.quant.huggingface import INDEX, _read_entry
from mora_lite.quant.nf4 import NF4Tensor, dequantize_nf4, quantize_nf4
from mora_lite.quant.writer import write_checkpoint

NAME = "model.layers.0.mlp.gate_proj.weight"
SIZES = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(vocab_size=50, num_key_value_heads=2, **SIZES))


@pytest.fixture
def plain(model: LlamaForCausalLM, tmp_path: Path) -> Path:
    model.save_pretrained(tmp_path / "plain")
    return tmp_path / "plain"


def test_a_plain_directory(plain: Path, model: LlamaForCausalLM) -> None:
    checkpoint = open_checkpoint(plain)
    weights = model.state_dict()
    assert checkpoint.names() == sorted(weights)
    assert checkpoint.config["model_type"] == "llama"
    for name in checkpoint.names():
        loaded = checkpoint.load(name)
        assert isinstance(loaded, torch.Tensor)
        assert torch.equal(loaded, weights[name])
        assert checkpoint.shape(name) == tuple(weights[name].shape)
        assert checkpoint.nbytes(name) == weights[name].numel() * 4
    assert len(checkpoint.source_sha256) == 64


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_weights_of_all_types_are_those_that_safetensors_reads(plain: Path, dtype: torch.dtype) -> None:
    file = plain / "model.safetensors"
    save_file({name: weight.to(dtype) for name, weight in load_file(file).items()}, file)
    checkpoint, theirs = open_checkpoint(plain), load_file(file)
    for name, weight in theirs.items():
        loaded = checkpoint.load(name)
        assert isinstance(loaded, torch.Tensor)
        assert loaded.dtype == dtype
        assert torch.equal(loaded, weight)


def test_a_file_that_shrinks_after_it_was_opened_is_an_error(plain: Path) -> None:
    checkpoint, file = open_checkpoint(plain), plain / "model.safetensors"
    where = checkpoint._where[NAME], NAME, checkpoint._entry(NAME)  # type: ignore[attr-defined]
    file.write_bytes(file.read_bytes()[: where[2].start + 4])
    with pytest.raises(CheckpointError, match=r"it ends in model\.layers\.0\.mlp\.gate_proj\.weight"):
        _read_entry(*where)


def test_shards_and_a_missing_one(model: LlamaForCausalLM, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path, max_shard_size="50KB")
    shards = sorted(tmp_path.glob("*.safetensors"))
    assert len(shards) > 1
    assert open_checkpoint(tmp_path).names() == sorted(model.state_dict())
    shards[0].unlink()
    with pytest.raises(CheckpointError, match=shards[0].name):
        open_checkpoint(tmp_path)


def with_one_in_4_bits(source: Checkpoint, weight: object) -> list[tuple[str, object]]:
    """All weights of a model, with `weight` as NAME."""
    return [(name, weight if name == NAME else source.load(name)) for name in source.names()]


@pytest.mark.parametrize("double", [False, True])
def test_what_we_write_in_4_bits_is_read_again(
    plain: Path, tmp_path: Path, double: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "SHARD_BYTES", 1)
    source = open_checkpoint(plain)
    q = quantize_nf4(source.load(NAME), double=double)  # type: ignore[arg-type]
    out = tmp_path / "nf4"
    write_checkpoint(out, source.config, with_one_in_4_bits(source, q))  # type: ignore[arg-type]
    assert (out / INDEX).is_file()
    again = open_checkpoint(out)
    assert again.names() == source.names()
    assert (again.shape(NAME), again.dtype(NAME)) == ((96, 64), torch.float32)
    assert again.nbytes(NAME) > q.nbytes
    loaded = again.load(NAME)
    assert isinstance(loaded, NF4Tensor)
    assert torch.equal(dequantize_nf4(loaded), dequantize_nf4(q))
    assert again.config["quantization_config"]["bnb_4bit_use_double_quant"] is double
    for line in (out / SUMS).read_text().splitlines():
        digest, name = line.split("  ")
        assert sha256_of(out / name) == digest


@pytest.mark.parametrize("part", ["nested_absmax", "nested_quant_map"])
def test_doubly_quantised_scales_that_are_not_finite(plain: Path, tmp_path: Path, part: str) -> None:
    source, out = open_checkpoint(plain), tmp_path / "nf4"
    q = quantize_nf4(source.load(NAME), double=True)  # type: ignore[arg-type]
    write_checkpoint(out, source.config, with_one_in_4_bits(source, q))  # type: ignore[arg-type]
    weights = load_file(out / "model.safetensors")
    weights[f"{NAME}.{part}"][-1] = torch.inf
    save_file(weights, out / "model.safetensors")
    with pytest.raises(CheckpointError, match=rf"{NAME} holds values that are not finite"):
        open_checkpoint(out).load(NAME)


@pytest.mark.parametrize(("kind", "nested"), [("nf4", False), ("nf4", True), ("fp4", False)])
def test_a_directory_that_bitsandbytes_wrote(plain: Path, tmp_path: Path, kind: str, nested: bool) -> None:
    """Built from bitsandbytes' own state dict, as transformers saves it. fp4 is refused, whatever config.json says."""
    functional = pytest.importorskip("bitsandbytes.functional")
    from mora_lite.quant.writer import quantization_config

    source = open_checkpoint(plain)
    weight = source.load(NAME)
    assert isinstance(weight, torch.Tensor)
    codes, state = functional.quantize_4bit(weight, quant_type=kind, compress_statistics=nested)
    parts = {f"{NAME}.{key}": value for key, value in state.as_dict(packed=True).items()}
    out = tmp_path / "theirs"
    out.mkdir()
    rest = {name: source.load(name) for name in source.names()}
    save_file(rest | {NAME: codes, **parts}, out / "model.safetensors")
    config = source.config | {"quantization_config": quantization_config(nested)}
    (out / "config.json").write_text(json.dumps(config))
    if kind == "fp4":
        with pytest.raises(CheckpointError, match="bitsandbytes fp4, which is not supported"):
            open_checkpoint(out)
        return
    loaded = open_checkpoint(out).load(NAME)
    assert isinstance(loaded, NF4Tensor)
    assert (loaded.nested is not None) is nested
    assert torch.equal(dequantize_nf4(loaded), functional.dequantize_4bit(codes, state))


def test_output_is_never_overwritten_by_accident(plain: Path, tmp_path: Path) -> None:
    config = open_checkpoint(plain).config
    with pytest.raises(OutputError, match="--force"):
        write_checkpoint(plain, config, [])
    other = tmp_path / "papers"
    other.mkdir()
    (other / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="is not a model directory, so --force does not replace it"):
        write_checkpoint(other, config, [], force=True)
    assert (other / "thesis.txt").exists()
    write_checkpoint(plain, config, [("a", torch.zeros(2))], force=True)
    assert list(load_file(plain / "model.safetensors")) == ["a"]


def test_nothing_is_left_behind_when_writing_fails(tmp_path: Path) -> None:
    def tensors():  # type: ignore[no-untyped-def]
        yield "a", torch.zeros(2)
        raise CheckpointError("a damaged source")

    with pytest.raises(CheckpointError):
        write_checkpoint(tmp_path / "out", {}, tensors())
    assert not list(tmp_path.iterdir())


def test_errors_say_what_is_wrong(plain: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        open_checkpoint(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="no weight called"):
        open_checkpoint(plain).load("model.nothing")
    with pytest.raises(CheckpointError, match="tokenizer"):
        open_checkpoint(plain).tokenizer()
    weights = plain / "model.safetensors"
    whole = weights.read_bytes()
    nested = (100_000).to_bytes(8, "little") + b"[" * 100_000
    for content in (whole[:-10], whole[:100], whole[:3], b"", nested):
        weights.write_bytes(content)
        with pytest.raises(CheckpointError, match="truncated"):
            open_checkpoint(plain)
    weights.rename(plain / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="safetensors files are needed"):
        open_checkpoint(plain)
    for damaged in (b"{", b"[" * 100_000, b'{"vocab_size": ' + b"1" * 5000 + b"}", b'{"a": "\x80"}'):
        (plain / "config.json").write_bytes(damaged)
        with pytest.raises(CheckpointError, match="damaged JSON"):
            open_checkpoint(plain)
    (plain / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        open_checkpoint(plain)
    with pytest.raises(CheckpointError, match="expected a directory"):
        open_checkpoint(plain / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}, "GPT2LMHeadModel is not supported"),
        ({"model_type": "mixtral", "architectures": ["MixtralForCausalLM"]}, "MixtralForCausalLM is not supported"),
        ({"model_type": "qwen2_moe", "architectures": ["Qwen2MoeForCausalLM"]}, "Qwen2MoeForCausalLM is not"),
        ({"model_type": "gemma", "architectures": ["GemmaForCausalLM"]}, "GemmaForCausalLM is not supported"),
        ({"model_type": "gpt_neox", "architectures": ["GPTNeoXForCausalLM"]}, "GPTNeoXForCausalLM is not"),
        ({"model_type": "phi3", "architectures": None}, "architecture phi3 is not supported; known: llama, mistral"),
        ({"quantization_config": {"quant_method": "gptq"}}, "gptq"),
        ({"quantization_config": {"quant_method": "bitsandbytes", "bnb_4bit_quant_type": "fp4"}}, "fp4"),
        (
            {
                "quantization_config": {
                    "quant_method": "bitsandbytes",
                    "bnb_4bit_quant_type": "fp4",
                    "load_in_8bit": True,
                }
            },
            "8-bit",
        ),
        ({"quantization_config": "nf4"}, "no JSON object"),
    ],
)
def test_unsupported_kinds_are_named(plain: Path, change: dict[str, object], message: str) -> None:
    config = json.loads((plain / "config.json").read_text())
    (plain / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(plain)


def test_a_stored_head_counts_where_the_configuration_says_that_it_is_the_embedding(plain: Path) -> None:
    """As transformers does: equal tensors are tied, others are not."""
    weights = load_file(plain / "model.safetensors")
    config = json.loads((plain / "config.json").read_text())
    (plain / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    embedding = weights["model.embed_tokens.weight"]
    for head, tied in ((embedding, True), (embedding + 1, False)):
        save_file(weights | {"lm_head.weight": head.clone()}, plain / "model.safetensors")
        assert open_checkpoint(plain).config["tie_word_embeddings"] is tied


def test_the_hash_follows_the_content(plain: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(plain, copy)
    assert open_checkpoint(copy).source_sha256 == open_checkpoint(plain).source_sha256
    with open(copy / "model.safetensors", "r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)[0]
        file.seek(-1, 2)
        file.write(bytes([last ^ 1]))
    assert open_checkpoint(copy).source_sha256 != open_checkpoint(plain).source_sha256
