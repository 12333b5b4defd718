"""Shared-prefix scoring equals the full decoder on the full prompt."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from model_source import ModelSource
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from mora_lite.adapter.lowrank import Branch
from mora_lite.lm.decoder import Decoder
from mora_lite.lm.prefix import CompiledPrompts, UpperLayers, compile_prompt, upper_tensor_names

RELATIVE = 1e-4  # float32
WIDTH, LAYERS = 48, 4
SIZES: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": WIDTH,
    "intermediate_size": 80,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 16,
    "initializer_range": 0.2,
}
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 8.0, "original_max_position_embeddings": 16}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama_dynamic": (
        "llama",
        {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}},
    ),
    "llama_yarn": ("llama", {"rope_parameters": YARN}),
    "llama_partial": ("llama", {"partial_rotary_factor": 0.5}),
    "mistral_window": ("mistral", {"sliding_window": 5}),
    "qwen2": ("qwen2", {}),
    "qwen3_window": (
        "qwen3",
        {
            "use_sliding_window": True,
            "sliding_window": 4,
            "head_dim": 16,
            "layer_types": ["full_attention", "sliding_attention"] * 2,
        },
    ),
}


def tiny_source(case: str) -> ModelSource:
    kind, changes = CASES[case]
    torch.manual_seed(len(case))
    return ModelSource(AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**SIZES, **changes})))


def tiny_prompts(lengths: tuple[int, ...] = (21, 2, 9, 1)) -> list[Tensor]:
    rng = torch.Generator().manual_seed(3)
    return [torch.randint(0, SIZES["vocab_size"], (length,), generator=rng) for length in lengths]


def adapters(rows: int, k: int, rank: int = 4) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(11)
    a = torch.randn(rows, k, WIDTH, rank, generator=rng) * 0.2
    return a, torch.randn(k, rank, WIDTH, generator=rng) * 0.2


def prompt_base(decoder: Decoder, k: int, lengths: tuple[int, ...] = (21, 2, 9, 1)) -> CompiledPrompts:
    return CompiledPrompts.stack([compile_prompt(decoder, ids, k) for ids in tiny_prompts(lengths)])


def full_answers(decoder: Decoder, a: Tensor, c: Tensor, scale: float) -> Tensor:
    """The slow way: the whole decoder over the whole prompt for each molecule, float32 [B, P, D]."""
    rows = [decoder.hidden(ids.expand(len(a), -1), branch=Branch(a, c, scale, "last"))[:, -1] for ids in tiny_prompts()]
    return torch.stack(rows, dim=1)


def worst(got: Tensor, expected: Tensor) -> float:
    return float((got - expected).norm(dim=-1).div(expected.norm(dim=-1)).max())


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    return Decoder.from_checkpoint(tiny_source("llama"))


@torch.no_grad()
@pytest.mark.parametrize("case", list(CASES))
@pytest.mark.parametrize("k", [1, 3, LAYERS])
def test_score_equals_the_full_decoder(case: str, k: int) -> None:
    source = tiny_source(case)
    decoder = Decoder.from_checkpoint(source)
    a, c = adapters(5, k)
    expected = full_answers(decoder, a, c, 2.0)
    names = upper_tensor_names(source.names(), decoder.sizes, k)
    upper = UpperLayers(decoder.sizes, k, {name: source.load(name) for name in names})
    got = upper.score(prompt_base(decoder, k), a, c, 2.0)
    assert worst(got, expected) <= RELATIVE
    assert worst(full_answers(decoder, a, c * 0, 2.0), expected) > 0.01


@torch.no_grad()
@pytest.mark.parametrize("rows", [1, 2, 5, 64])
@pytest.mark.parametrize("rank", [1, 4])
def test_a_molecule_is_scored_as_if_alone(decoder: Decoder, rows: int, rank: int) -> None:
    upper, prompts = UpperLayers(decoder.sizes, 3, tiny_source("llama").tensors), prompt_base(decoder, 3)
    a, c = adapters(rows, 3, rank)
    together = upper.score(prompts, a, c, 2.0)
    assert together.shape == (rows, 4, WIDTH)
    for row in {0, rows // 2, rows - 1}:
        assert worst(together[row], upper.score(prompts, a[row : row + 1], c, 2.0)[0]) <= 1e-6
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(0))
    assert worst(upper.score(prompts, a[order], c, 2.0), together[order]) <= 1e-6


@torch.no_grad()
def test_a_prompt_is_scored_as_if_alone(decoder: Decoder) -> None:
    upper, prompts = UpperLayers(decoder.sizes, 3, tiny_source("llama").tensors), prompt_base(decoder, 3)
    a, c = adapters(5, 3)
    everything = upper.score(prompts, a, c, 2.0)
    assert worst(upper.score(prompts.select([2, 0]), a, c, 2.0), everything[:, [2, 0]]) <= 1e-6
    for at, ids in enumerate(tiny_prompts()):
        alone = CompiledPrompts.stack([compile_prompt(decoder, ids, 3)])
        assert worst(upper.score(alone, a, c, 2.0)[:, 0], everything[:, at]) <= 1e-6


def test_gradients_equal_those_through_the_full_decoder(decoder: Decoder) -> None:
    upper, prompts = UpperLayers(decoder.sizes, 3, tiny_source("llama").tensors), prompt_base(decoder, 3)
    towards = torch.randn(5, 4, WIDTH, generator=torch.Generator().manual_seed(1))
    gradients = []
    for fast in (True, False):
        a, c = (tensor.requires_grad_() for tensor in adapters(5, 3))
        out = upper.score(prompts, a, c, 2.0) if fast else full_answers(decoder, a, c, 2.0)
        (out * towards).sum().backward()
        assert a.grad is not None
        assert c.grad is not None
        gradients.append((a.grad, c.grad))
    for got, expected in zip(*gradients, strict=True):
        assert (got - expected).norm() / expected.norm() <= RELATIVE
    assert not any(parameter.requires_grad for parameter in upper.parameters())


def test_bfloat16_is_near_and_differentiable(decoder: Decoder) -> None:
    source = tiny_source("llama")
    upper = UpperLayers(decoder.sizes, 3, source.tensors, dtype=torch.bfloat16)
    a, c = (tensor.requires_grad_() for tensor in adapters(5, 3))
    got = upper.score(prompt_base(decoder, 3), a, c, 2.0)
    assert got.dtype == torch.float32
    assert worst(got.detach(), full_answers(decoder, a, c, 2.0).detach()) <= 5e-2
    got.square().sum().backward()
    assert a.grad is not None
    assert a.grad.dtype == torch.float32
    assert a.grad.isfinite().all()


@torch.no_grad()
def test_only_the_named_tensors_are_needed(decoder: Decoder) -> None:
    names = upper_tensor_names(tiny_source("llama").names(), decoder.sizes, 3)
    assert "model.layers.1.post_attention_layernorm.weight" in names
    assert "model.norm.weight" in names
    assert len(names) == 2 + 2 * 9
    assert not any("embed" in name or "layers.0." in name or "layers.1.mlp" in name for name in names)


def test_stored_tensors_restore_the_prompts(decoder: Decoder) -> None:
    prompts = prompt_base(decoder, 3)
    assert set(prompts.tensors()) == {"attended", "base", "keys", "values", "lengths"}
    assert prompts.lengths.tolist() == [20, 1, 8, 0]
    assert prompts.keys.shape == (2, 4, 20, 2, 8)
    again = CompiledPrompts.from_tensors(prompts.tensors()).to("cpu")
    assert all(torch.equal(tensor, again.tensors()[name]) for name, tensor in prompts.tensors().items())
