"""GGUF: our dequantisation against the gguf package, and whole files against the model they came from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from model_source import ModelSource
from tiny_gguf import SCALES, make_model, permute, write_gguf
from transformers import AutoConfig

import mora_lite.quant.gguf as quant_gguf
from mora_lite.errors import CheckpointError
from mora_lite.lm.base import open_nf4
from mora_lite.lm.decoder import Decoder
from mora_lite.quant.formats import open_checkpoint
from mora_lite.quant.gguf import BLOCKS, ROPE_FACTORS, _dequantize, llama3_factors, unpermute

KINDS = [Kind.Q4_0, Kind.Q4_1, Kind.Q5_0, Kind.Q5_1, Kind.Q8_0, Kind.F16, Kind.BF16, Kind.F32]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(1, 32), (7, 96)])
def test_dequantisation_is_that_of_the_gguf_package(kind: Kind, shape: tuple[int, int]) -> None:
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    stored = gguf.quants.quantize(values, kind)
    ours = _dequantize(stored, kind.name, shape)
    assert np.array_equal(ours.float().numpy(), gguf.quants.dequantize(stored, kind))
    assert ours.dtype == {Kind.F16: torch.float16, Kind.BF16: torch.bfloat16}.get(kind, torch.float32)


@pytest.mark.parametrize("kind", [Kind[name] for name in BLOCKS])
def test_blocks_are_dequantised_in_pieces_as_at_once(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    n_values, n_bytes = gguf.GGML_QUANT_SIZES[kind]
    # Bytes below 124 make no number in fp16 that is infinite or none.
    stored = np.random.default_rng(1).integers(0, 124, (5, 3 * n_bytes), np.uint8)
    expected = gguf.quants.dequantize(stored, kind)
    monkeypatch.setattr(quant_gguf, "PIECE", 4 * n_values)
    assert np.array_equal(_dequantize(stored, kind.name, (5, 3 * n_values)).numpy(), expected)
    assert np.isfinite(expected).all()


def test_rows_are_put_back() -> None:
    weight = torch.arange(8 * 3.0).view(8, 3)
    assert torch.equal(unpermute(permute(weight, 2), 2, 4), weight)
    assert permute(weight, 1)[:, 0].tolist() == [0.0, 12.0, 3.0, 15.0, 6.0, 18.0, 9.0, 21.0]
    assert permute(weight, 1, 4)[:, 0].tolist() == [0.0, 6.0, 3.0, 9.0, 12.0, 15.0, 18.0, 21.0]
    assert torch.equal(unpermute(permute(weight, 1, 4), 1, 4), weight)


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
    writer.add_tensor("blk.0.attn_q.weight", np.zeros((1, 54), np.uint8), raw_dtype=Kind.TQ1_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(CheckpointError, match="TQ1_0"):
        open_checkpoint(path)


@torch.no_grad()
@pytest.mark.parametrize("kind", [*KINDS[:5], *SCALES])
@pytest.mark.parametrize("tied", [True, False])
def test_logits_are_those_of_transformers(tmp_path: Path, kind: Kind, tied: bool) -> None:
    """A whole model in each format, with a head of its own or none."""
    model = make_model("llama", hidden_size=256, intermediate_size=256, head_dim=64, tie_word_embeddings=False)
    weights = model.state_dict()
    if tied:
        del weights["lm_head.weight"]
        model.state_dict = lambda: weights
    path = write_gguf(tmp_path / "m.gguf", model, "llama", kind, theta=1e4)
    if kind not in SCALES:  # the same roundings in the model
        for weight in weights.values():
            if weight.ndim == 2:
                weight.copy_(torch.from_numpy(gguf.quants.dequantize(gguf.quants.quantize(weight.numpy(), kind), kind)))
    if tied:
        model.lm_head.weight.data = model.model.embed_tokens.weight.data
    ids = torch.arange(12)[None]
    logits = Decoder.from_checkpoint(open_checkpoint(path)).logits(ids)
    torch.testing.assert_close(logits, model(ids).logits, atol=1e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("arch", ["llama", "qwen3"])
def test_a_part_of_each_head_is_rotated(tmp_path: Path, arch: str) -> None:
    """As a directory with the same weights and partial_rotary_factor, which is compared with transformers."""
    model = make_model(arch, tie_word_embeddings=False)
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    path = write_gguf(tmp_path / "m.gguf", model, arch, **{"rope.dimension_count": 12})
    source = ModelSource(model)
    source.config |= {"rope_parameters": {"rope_theta": 5e5, "rope_type": "default", "partial_rotary_factor": 0.75}}
    opened = open_checkpoint(path)
    assert all(torch.equal(opened.load(name), weight) for name, weight in weights.items())  # type: ignore[arg-type]
    ids = torch.arange(12)[None]
    logits = [Decoder.from_checkpoint(each).logits(ids) for each in (opened, source)]
    assert torch.equal(*logits)
    source.config["rope_parameters"]["partial_rotary_factor"] = 1.0
    assert not torch.allclose(logits[0], Decoder.from_checkpoint(source).logits(ids), atol=1e-3)


YARN = {"type": "yarn", "factor": 4.0, "original_context_length": 64}


@torch.no_grad()
@pytest.mark.parametrize(
    ("keys", "scaling"),
    [
        ({"rope.scale_linear": 4.0}, {"rope_type": "linear", "factor": 4.0}),  # files of 2023
        ({"rope.scaling.factor": 4.0}, {"rope_type": "linear", "factor": 4.0}),
        ({"rope.scaling.type": "none", "rope.scaling.factor": 4.0}, {"rope_type": "default"}),
        (
            {f"rope.scaling.{name}": value for name, value in YARN.items()}
            | {
                "rope.scaling.yarn_beta_fast": 16.0,
                "rope.scaling.yarn_beta_slow": 2.0,
                "rope.scaling.attn_factor": 1.0,
            },
            {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
            | {"beta_fast": 16.0, "beta_slow": 2.0},
        ),
    ],
)
def test_positions_are_stretched_as_llama_cpp_does(
    tmp_path: Path, keys: dict[str, Any], scaling: dict[str, Any]
) -> None:
    model = make_model("llama", tie_word_embeddings=False)
    path = write_gguf(tmp_path / "m.gguf", model, "llama", **keys)
    source = ModelSource(model)
    source.config |= {"rope_parameters": {"rope_theta": 5e5, **scaling}}
    ids = torch.arange(12)[None]
    assert torch.equal(*[Decoder.from_checkpoint(each).logits(ids) for each in (open_checkpoint(path), source)])


def test_yarn_with_other_factors_is_named(tmp_path: Path) -> None:
    keys = {f"rope.scaling.{name}": value for name, value in YARN.items()} | {"rope.scaling.yarn_attn_factor": 0.5}
    with pytest.raises(CheckpointError, match=r"rope.scaling.yarn_attn_factor of 0.5 is not supported, only 1.0"):
        open_checkpoint(write_gguf(tmp_path / "m.gguf", make_model("llama"), "llama", **keys))


@pytest.fixture
def parts(base_path: Path, tmp_path: Path) -> list[Path]:
    """A model in several files, and the same in one."""
    tokenizer = open_checkpoint(base_path).tokenizer()
    model = make_model("llama", vocab_size=len(tokenizer) + 1)
    write_gguf(tmp_path / "whole.gguf", model, "llama", Kind.Q8_0, tokenizer)
    folder = tmp_path / "split"
    folder.mkdir()
    write_gguf(folder / "m.gguf", model, "llama", Kind.Q8_0, tokenizer, tensors_a_file=6)
    files = sorted(folder.iterdir())
    assert files[0].name == f"m-00001-of-{len(files):05}.gguf"
    assert len(files) > 2
    return files


def test_a_model_in_parts_is_the_model_in_one_file(parts: list[Path]) -> None:
    whole = open_checkpoint(parts[0].parent.parent / "whole.gguf")
    for part in (parts[0], parts[-1]):
        opened = open_checkpoint(part)
        assert (opened.config, opened.names(), opened.files()) == (whole.config, whole.names(), parts)
        assert all(torch.equal(opened.load(name), whole.load(name)) for name in whole.names())  # type: ignore[arg-type]
        assert opened.tokenizer().get_vocab() == whole.tokenizer().get_vocab()
        assert open_nf4(part).source_sha256 == opened.source_sha256 != whole.source_sha256


def test_parts_that_are_missing_or_mixed_are_one_line(parts: list[Path], run: Any, tmp_path: Path) -> None:
    def error_of(path: Path) -> str:
        code, out, err = run("quantize", path, "-o", tmp_path / "out")
        assert (code, out, err.count("\n")) == (2, "", 1)
        return err

    content = parts[1].read_bytes()
    parts[1].unlink()
    assert f"{parts[1].name}: this part of {len(parts)} is missing" in error_of(parts[0]).replace("/", " ")
    parts[1].write_bytes(parts[2].read_bytes())
    assert "it says that it is part 3 of" in error_of(parts[0])
    parts[1].write_bytes(content[:-50])
    assert "damaged or truncated GGUF" in error_of(parts[0])
    alone = parts[0].rename(parts[0].with_name("alone.gguf"))
    assert f"one of {len(parts)} parts of a model" in error_of(alone)


def test_a_tensor_with_other_bytes_than_its_shape_has_is_damaged(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", make_model("llama"), "llama", Kind.Q8_0)
    content = path.read_bytes()
    name = b"blk.0.ffn_up.weight"
    at = content.index(name) + len(name)  # behind it: the number of extents, then each, in 4 and 8 bytes
    for extent in (2**60, 2**63, 2**64 - 32, 65):
        path.write_bytes(content[: at + 4] + extent.to_bytes(8, "little") + content[at + 12 :])
        with pytest.raises(CheckpointError, match="damaged or truncated GGUF") as caught:
            open_checkpoint(path)
        assert "\n" not in str(caught.value)


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
        ("llama", {"rope.dimension_count": 18}, "rope.dimension_count is 18, but a head has 16 numbers"),
        ("llama", {"rope.dimension_count": 7}, "expected an even number up to that"),
        ("llama", {"rope.dimension_count": 0}, "rope.dimension_count is 0"),
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


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("block_count", "two"),
        ("block_count", 2**40),
        ("feed_forward_length", [96, 96]),
        ("attention.key_length", 2**40),
        ("attention.layer_norm_rms_epsilon", "small"),
        ("context_length", float("inf")),
        ("rope.dimension_count", "all"),
    ],
)
def test_numbers_of_the_architecture_that_are_none_are_one_line(tmp_path: Path, key: str, value: Any) -> None:
    path = write_gguf(tmp_path / "m.gguf", make_model("llama"), "llama", **{key: value})
    with pytest.raises(CheckpointError, match=r"damaged or truncated GGUF|configuration cannot be used") as caught:
        open_checkpoint(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("factors", [[torch.nan] * 8, [torch.inf] * 8, [1.0] * 7, [], [1.0] * 8])
def test_other_rotary_factors_than_those_of_llama_3_1_are_named(tmp_path: Path, factors: list[float]) -> None:
    model = make_model("llama")
    weights = model.state_dict()
    model.state_dict = lambda: {**weights, ROPE_FACTORS: torch.tensor(factors)}
    path = write_gguf(tmp_path / "m.gguf", model, "llama")
    if factors == [1.0] * 8:  # what stretches nothing is what Llama 3.1 files say with a factor of 1
        assert open_checkpoint(path).config["rope_scaling"]["factor"] == 1
        return
    with pytest.raises(CheckpointError, match=r"its rotary factors are not those of Llama 3\.1"):
        open_checkpoint(path)


def test_values_that_are_not_finite(run: Any, base_path: Path, tmp_path: Path) -> None:
    tokenizer = open_checkpoint(base_path).tokenizer()
    model = make_model("llama", vocab_size=len(tokenizer) + 1)
    model.state_dict()["model.layers.1.mlp.up_proj.weight"][0, 0] = torch.inf
    path = write_gguf(tmp_path / "m.gguf", model, "llama", Kind.F16, tokenizer)
    code, _, err = run("quantize", path, "-o", tmp_path / "out", "--no-perplexity")
    assert code == 2
    assert "model.layers.1.mlp.up_proj.weight holds values that are not finite" in err


def test_a_text_ends_where_the_file_says(base_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever token the installed version of transformers takes for the end."""
    tokenizer = open_checkpoint(base_path).tokenizer()
    model = make_model("llama", vocab_size=len(tokenizer) + 1)
    checkpoint = open_checkpoint(write_gguf(tmp_path / "m.gguf", model, "llama", Kind.F16, tokenizer))
    end = checkpoint.config["eos_token_id"]
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(end + 1)
    monkeypatch.setattr(quant_gguf, "load_tokenizer", lambda *_, **__: tokenizer)
    assert checkpoint.tokenizer().eos_token_id == end


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
