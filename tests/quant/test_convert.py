"""Quantising a whole checkpoint, and the command that does it."""

from __future__ import annotations

import json
import shutil
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_gguf import make_model, write_gguf
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM

from mora_lite.cli.quantize import quantize
from mora_lite.errors import CheckpointError, OutputError
from mora_lite.lm.decoder import Decoder
from mora_lite.quant import convert, writer
from mora_lite.quant.convert import KINDS, MATRIX, quantize_checkpoint
from mora_lite.quant.formats import open_checkpoint
from mora_lite.quant.nf4 import NF4Tensor, dequantize_nf4, quantize_nf4

SIZES = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(vocab_size=50, tie_word_embeddings=True, **SIZES)).save_pretrained(tmp_path / "plain")
    return tmp_path / "plain"


@pytest.mark.parametrize("double", [False, True])
def test_matrices_become_nf4_and_the_rest_stays(plain: Path, tmp_path: Path, double: bool) -> None:
    seen: list[tuple[int, int]] = []
    source = open_checkpoint(plain)
    report = quantize_checkpoint(source, tmp_path / "out", double, lambda done, total, name: seen.append((done, total)))
    out = open_checkpoint(tmp_path / "out")
    assert out.names() == source.names()
    for name in source.names():
        before, after = source.load(name), out.load(name)
        assert isinstance(before, torch.Tensor)
        if MATRIX.fullmatch(name):
            assert isinstance(after, NF4Tensor)
            assert torch.equal(dequantize_nf4(after), dequantize_nf4(quantize_nf4(before, double=double)))
        else:
            assert isinstance(after, torch.Tensor)
            assert torch.equal(before, after)
    assert all(file.stat().st_mode & 0o044 == 0o044 for file in (tmp_path / "out").iterdir()), "others may read it"
    assert report.matrices == 14
    assert list(report.relative_error) == list(KINDS)
    assert all(0.005 < error < 0.015 for error in report.relative_error.values())
    assert report.bytes_out < report.bytes_16bit < report.bytes_source
    if not double:
        assert report.bits_per_weight == 4.5
    assert seen[0] == (0, 20)
    assert seen[-1] == (20, 20)


TEMPLATE = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{{ eos_token }}{% endfor %}"
CHAT = [{"role": "user", "content": "Is CCO soluble?"}, {"role": "assistant", "content": "Yes."}]


@pytest.mark.parametrize("place", ["own file", "tokenizer_config.json", "gguf"])
def test_tokenizer_and_chat_template_are_kept(base_path: Path, tmp_path: Path, place: str) -> None:
    model = Path(shutil.copytree(base_path, tmp_path / "model"))
    tokenizer = open_checkpoint(model).tokenizer()
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(model)
    assert (model / "chat_template.jinja").read_text() == TEMPLATE
    if place == "tokenizer_config.json":  # where it was until 2025
        (model / "chat_template.jinja").unlink()
        config = json.loads((model / "tokenizer_config.json").read_text())
        (model / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": TEMPLATE}))
    elif place == "gguf":
        theirs = make_model("llama", vocab_size=len(tokenizer) + 1)
        model = write_gguf(tmp_path / "m.gguf", theirs, "llama", tokenizer=tokenizer)
    source = open_checkpoint(model)
    quantize_checkpoint(source, tmp_path / "out")
    before, after = source.tokenizer(), open_checkpoint(tmp_path / "out").tokenizer()
    rendered = before.apply_chat_template(CHAT, tokenize=False)
    assert rendered == "<|user|>Is CCO soluble?<end><|assistant|>Yes.<end>"
    assert after.apply_chat_template(CHAT, tokenize=False) == rendered
    assert after(rendered).input_ids == before(rendered).input_ids
    assert (after.eos_token, after.eos_token_id) == (before.eos_token, before.eos_token_id) == ("<end>", 0)


def test_no_more_than_one_weight_is_in_memory(plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts the weights that are alive whenever the next one is read, from several shards into several."""
    LlamaForCausalLM.from_pretrained(plain).save_pretrained(tmp_path / "shards", max_shard_size="50KB")
    source, alive, most = open_checkpoint(tmp_path / "shards"), [], []
    load = source.load

    def counted(name: str) -> torch.Tensor | NF4Tensor:
        most.append(sum(weight() is not None for weight in alive))
        weight = load(name)
        alive.append(weakref.ref(weight))
        return weight

    quantized = convert.quantize_nf4

    def counted_too(weight: torch.Tensor, double: bool) -> NF4Tensor:
        q = quantized(weight, double=double)
        alive.append(weakref.ref(q))
        return q

    monkeypatch.setattr(source, "load", counted)
    monkeypatch.setattr(convert, "quantize_nf4", counted_too)
    monkeypatch.setattr(writer, "SHARD_BYTES", 20_000)
    quantize_checkpoint(source, tmp_path / "out")
    assert len(list((tmp_path / "out").glob("*.safetensors"))) > 2
    assert max(most) == 0


def test_weights_of_several_types_get_one(plain: Path, tmp_path: Path) -> None:
    """transformers does not run a float16 embedding with float32 norms, which GGUF files hold."""
    weights = load_file(plain / "model.safetensors")
    weights["model.embed_tokens.weight"] = weights["model.embed_tokens.weight"].half()
    save_file(weights, plain / "model.safetensors", metadata={"format": "pt"})
    quantize_checkpoint(open_checkpoint(plain), tmp_path / "out")
    out = open_checkpoint(tmp_path / "out")
    assert out.config["dtype"] == "float16"
    assert {out.dtype(name) for name in out.names() if not MATRIX.fullmatch(name)} == {torch.float16}


def test_transformers_with_bitsandbytes_loads_what_we_write(plain: Path, tmp_path: Path) -> None:
    functional = pytest.importorskip("bitsandbytes.functional")
    pytest.importorskip("accelerate", reason="transformers needs accelerate to load 4-bit models")
    quantize_checkpoint(open_checkpoint(plain), tmp_path / "out")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    ours = LlamaForCausalLM.from_pretrained(plain)
    weights = ours.state_dict()
    for name, parameter in theirs.named_parameters():
        loaded = open_checkpoint(tmp_path / "out").load(name)
        if isinstance(loaded, NF4Tensor):
            loaded = dequantize_nf4(loaded)
            assert torch.equal(functional.dequantize_4bit(parameter.data, parameter.quant_state), loaded)
        weights[name].copy_(loaded)
    ids = torch.arange(12)[None]
    with torch.no_grad():
        # bitsandbytes multiplies in bf16 on processors that can.
        torch.testing.assert_close(theirs(ids).logits, ours(ids).logits, atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize(
    ("options", "refused"),
    [
        ({"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, None),
        ({"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}, None),
        ({"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_quant_storage": "bfloat16"}, None),
        ({"load_in_4bit": True, "bnb_4bit_quant_type": "fp4"}, r"bitsandbytes \(fp4\) is not supported"),
        ({"load_in_8bit": True}, r"bitsandbytes \(8-bit\) is not supported"),
    ],
)
def test_what_transformers_with_bitsandbytes_saves(
    plain: Path, tmp_path: Path, options: dict[str, Any], refused: str | None
) -> None:
    pytest.importorskip("bitsandbytes")
    pytest.importorskip("accelerate", reason="transformers needs accelerate to load 4-bit models")
    settings = BitsAndBytesConfig(**options)
    theirs = AutoModelForCausalLM.from_pretrained(plain, quantization_config=settings, dtype=torch.float32)
    theirs.save_pretrained(tmp_path / "theirs")
    if refused:
        with pytest.raises(CheckpointError, match=refused):
            open_checkpoint(tmp_path / "theirs")
        return
    ours = Decoder.from_checkpoint(open_checkpoint(tmp_path / "theirs"))
    ids = torch.arange(12)[None]
    with torch.no_grad():
        torch.testing.assert_close(ours.logits(ids), theirs(ids).logits, atol=1e-2, rtol=1e-2)


def test_what_cannot_be_quantised(plain: Path, tmp_path: Path) -> None:
    source = open_checkpoint(plain)
    quantize_checkpoint(source, tmp_path / "out")
    with pytest.raises(CheckpointError, match="already"):
        quantize_checkpoint(open_checkpoint(tmp_path / "out"), tmp_path / "again")
    with pytest.raises(OutputError, match="--force"):
        quantize_checkpoint(source, tmp_path / "out")
    with pytest.raises(OutputError, match="holds the source"):
        quantize_checkpoint(source, plain, force=True)
    model = LlamaForCausalLM.from_pretrained(plain)
    model.state_dict()["model.layers.1.mlp.up_proj.weight"][0, 0] = float("inf")
    model.save_pretrained(tmp_path / "broken")
    with pytest.raises(CheckpointError, match=r"layers\.1\.mlp\.up_proj\.weight"):
        quantize_checkpoint(open_checkpoint(tmp_path / "broken"), tmp_path / "b4")
    assert not (tmp_path / "b4").exists()


def test_the_command_prints_a_report(plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quantize(str(plain), tmp_path / "a", no_perplexity=True, as_json=True)
    report = json.loads(capsys.readouterr().out)
    assert report["bits_per_weight"] == 4.5
    assert report["perplexity_before"] is None
    quantize(str(plain), tmp_path / "a", no_perplexity=True, force=True)
    printed = capsys.readouterr().out
    assert "bits per weight" in printed
    assert "down_proj" in printed
