"""GGUF: our dequantisation against the gguf package, and whole files against the model they came from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from tiny_gguf import make_model, permute, write_gguf
from transformers import AutoConfig

from mora_lite.errors import CheckpointError
from mora_lite.quant.formats import open_checkpoint
from mora_lite.quant.gguf import _dequantize, llama3_factors, unpermute


@pytest.mark.parametrize("kind", [Kind.Q4_0, Kind.Q4_1, Kind.Q8_0, Kind.F16, Kind.BF16, Kind.F32])
@pytest.mark.parametrize("shape", [(1, 32), (7, 96)])
def test_dequantisation_is_that_of_the_gguf_package(kind: Kind, shape: tuple[int, int]) -> None:
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    stored = gguf.quants.quantize(values, kind)
    ours = _dequantize(stored, kind.name, shape)
    assert np.array_equal(ours.float().numpy(), gguf.quants.dequantize(stored, kind))
    assert ours.dtype == {Kind.F16: torch.float16, Kind.BF16: torch.bfloat16}.get(kind, torch.float32)


def test_rows_are_put_back() -> None:
    weight = torch.arange(8 * 3.0).view(8, 3)
    assert torch.equal(unpermute(permute(weight, 2), 2), weight)
    assert permute(weight, 1)[:, 0].tolist() == [0.0, 12.0, 3.0, 15.0, 6.0, 18.0, 9.0, 21.0]


@pytest.mark.parametrize(
    ("kind", "extra"),
    [
        ("llama", {"tie_word_embeddings": False}),
        ("llama", {"attention_bias": True, "tie_word_embeddings": True}),
        ("qwen2", {"tie_word_embeddings": True}),
        ("qwen3", {"tie_word_embeddings": False}),
    ],
)
def test_a_file_gives_back_the_model(tmp_path: Path, kind: str, extra: dict[str, Any]) -> None:
    model = make_model(kind, **extra)
    weights = model.state_dict()
    if extra["tie_word_embeddings"]:
        del weights["lm_head.weight"]
    model.state_dict = lambda: weights
    checkpoint = open_checkpoint(write_gguf(tmp_path / "m.gguf", model, kind))
    assert checkpoint.names() == sorted(weights)
    for name, weight in weights.items():
        loaded = checkpoint.load(name)
        assert checkpoint.shape(name) == tuple(weight.shape)
        assert torch.equal(loaded, weight), name  # type: ignore[arg-type]
    config = AutoConfig.for_model(**checkpoint.config)
    for field in ("hidden_size", "num_key_value_heads", "head_dim", "rms_norm_eps", "tie_word_embeddings"):
        assert getattr(config, field) == getattr(model.config, field), field
    assert config.rope_parameters["rope_theta"] == 5e5
    assert len(checkpoint.source_sha256) == 64


def test_block_formats_come_as_float32(tmp_path: Path) -> None:
    model = make_model("llama")
    checkpoint = open_checkpoint(write_gguf(tmp_path / "m.gguf", model, "llama", Kind.Q8_0))
    name = "model.layers.1.self_attn.q_proj.weight"
    loaded = checkpoint.load(name)
    assert isinstance(loaded, torch.Tensor)
    assert (loaded.dtype, checkpoint.dtype(name)) == (torch.float32, torch.float16)
    assert checkpoint.nbytes(name) == 64 * 64 * 34 // 32
    torch.testing.assert_close(loaded, model.state_dict()[name], atol=1e-3, rtol=0)


def test_unsupported_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    with pytest.raises(CheckpointError, match="gemma"):
        open_checkpoint(write_gguf(path, make_model("llama"), "gemma"))
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor("blk.0.attn_q.weight", np.zeros((1, 144), np.uint8), raw_dtype=Kind.Q4_K)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(CheckpointError, match="Q4_K"):
        open_checkpoint(path)


@pytest.mark.parametrize(
    ("arch", "meta", "message"),
    [
        ("gemma", {}, "architecture gemma (GGUF) is not supported; known: llama, mistral, qwen2, qwen3"),
        ("phi3", {}, "architecture phi3 (GGUF) is not supported"),
        ("gptneox", {}, "architecture gptneox (GGUF) is not supported"),
        ("qwen2moe", {}, "architecture qwen2moe (GGUF) is not supported"),
        ("llama", {"expert_count": 8}, "architecture llama with 8 experts (a mixture, as Mixtral) is not supported"),
        ("llama", {"block_count": 3}, "model.layers.2.self_attn.q_proj.weight is missing (9 of 30 weights are)"),
        ("llama", {"block_count": 1}, "holds layer 1, but the configuration has 1 layers"),
        ("llama", {"embedding_length": 128}, "has the shape [64, 64], but the configuration asks for [64, 128]"),
        ("llama", {"attention.head_count": 0}, "damaged GGUF (0 heads"),
        ("llama", {"rope.dimension_count": 8}, "rope.dimension_count is 8, but a head has 16 numbers"),
        ("qwen2", {}, "model.layers.0.self_attn.q_proj.bias is missing"),
    ],
)
def test_the_command_line_says_what_is_wrong(
    run: Any, tmp_path: Path, arch: str, meta: dict[str, int], message: str
) -> None:
    path = write_gguf(tmp_path / "m.gguf", make_model("llama"), arch, **meta)
    code, out, err = run("quantize", path, "-o", tmp_path / "out")
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.gguf"]


def test_values_that_are_not_finite(run: Any, base_path: Path, tmp_path: Path) -> None:
    tokenizer = open_checkpoint(base_path).tokenizer()
    model = make_model("llama", vocab_size=len(tokenizer) + 1)
    model.state_dict()["model.layers.1.mlp.up_proj.weight"][0, 0] = torch.inf
    path = write_gguf(tmp_path / "m.gguf", model, "llama", Kind.F16, tokenizer)
    code, _, err = run("quantize", path, "-o", tmp_path / "out", "--no-perplexity")
    assert code == 2
    assert "model.layers.1.mlp.up_proj.weight holds values that are not finite" in err


def test_damaged_files_are_one_line(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", make_model("llama"), "llama")
    whole = path.read_bytes()
    for size in (len(whole) - 4000, len(whole) // 2, 300, 10, 0):
        path.write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match="GGUF") as caught:
            open_checkpoint(path)
        assert "\n" not in str(caught.value)
    path.write_bytes(b"nonsense" * 100)
    with pytest.raises(CheckpointError, match="GGUF"):
        open_checkpoint(path)


def test_llama3_rotary_factors_are_those_of_transformers() -> None:
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    scaling["original_max_position_embeddings"] = 8192
    config = AutoConfig.for_model(
        "llama", rope_theta=5e5, rope_scaling=scaling, head_dim=64, max_position_embeddings=131072
    )
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    plain = 5e5 ** -(torch.arange(0, 64, 2) / 64)
    np.testing.assert_allclose((plain / scaled).numpy(), llama3_factors(scaling, 5e5, 64), rtol=1e-4)
