"""The decoder against transformers on tiny random models, and its own ways to the same number."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from model_source import ModelSource
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from mora_lite.adapter.lowrank import Branch
from mora_lite.architecture import DecoderConfig
from mora_lite.errors import CheckpointError
from mora_lite.hub.bases import resolve_base
from mora_lite.lm.decoder import Decoder, KVCache
from mora_lite.quant.formats import open_checkpoint
from mora_lite.quant.nf4 import dequantize_nf4, quantize_nf4

TOLERANCE = 2e-4  # float32, logits of order 1; about 1e-6 is usual

TINY: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
}
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 16}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 1e4,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama_one_head": ("llama", {"num_attention_heads": 1, "num_key_value_heads": 1}),
    "llama_tied_biases": ("llama", {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True}),
    "llama_head_dim": ("llama", {"head_dim": 16, "num_key_value_heads": 3}),
    "llama_linear": ("llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}}),
    "llama_dynamic": (
        "llama",
        {
            "rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0},
            "max_position_embeddings": 8,
        },
    ),
    "llama_llama3": ("llama", {"rope_parameters": LLAMA3}),
    "llama_yarn": ("llama", {"rope_parameters": YARN}),
    "llama_stray_window": ("llama", {"sliding_window": 5}),  # left over from a Mistral; transformers passes over it
    "mistral": ("mistral", {"sliding_window": None}),
    "mistral_window": ("mistral", {"sliding_window": 5, "head_dim": 16}),
    "qwen2": ("qwen2", {"tie_word_embeddings": True}),
    "qwen2_window": ("qwen2", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}),
    "qwen3": ("qwen3", {"head_dim": 16}),
    "qwen3_window": (
        "qwen3",
        {
            "use_sliding_window": True,
            "sliding_window": 6,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
    ),
}


def tiny_model(case: str) -> Any:
    kind, changes = CASES[case]
    torch.manual_seed(len(case))
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**TINY, **changes})).eval()
    for (
        name,
        parameter,
    ) in model.named_parameters():  # biases and norms start as 0 and 1, which would hide them
        if parameter.ndim == 1:
            parameter.data.add_(torch.randn_like(parameter) * 0.2)
        assert parameter.abs().sum() > 0, name
    return model


def tiny_ids(rows: int = 2, tokens: int = 23) -> Tensor:
    return torch.randint(0, TINY["vocab_size"], (rows, tokens), generator=torch.Generator().manual_seed(5))


def tiny_branch(rows: int, layers: int = 2, positions: Any = "all", rank: int = 4) -> Branch:
    rng = torch.Generator().manual_seed(7)
    a = torch.randn(rows, layers, TINY["hidden_size"], rank, generator=rng) * 0.2
    c = torch.randn(layers, rank, TINY["hidden_size"], generator=rng) * 0.2
    return Branch(a, c, 2.0, positions)


@pytest.fixture(scope="module", params=list(CASES))
def pair(request: pytest.FixtureRequest) -> tuple[Any, Decoder]:
    model = tiny_model(request.param)
    return model, Decoder.from_checkpoint(ModelSource(model))


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    return Decoder.from_checkpoint(ModelSource(tiny_model("qwen3_window")))


@torch.no_grad()
def test_logits_are_those_of_transformers(pair: tuple[Any, Decoder]) -> None:
    model, decoder = pair
    ids = tiny_ids()
    for tokens in (1, 7, 23):
        expected = model(ids[:, :tokens], use_cache=False).logits
        assert (decoder.logits(ids[:, :tokens]) - expected).abs().max() <= TOLERANCE


@torch.no_grad()
def test_cache_in_any_portions_equals_one_run(pair: tuple[Any, Decoder]) -> None:
    _, decoder = pair
    # Dynamic scaling turns kept keys by the length they were made at, as transformers does: stay below it.
    ids = tiny_ids(tokens=23 if decoder.sizes.rope.dynamic is None else 8)
    expected = decoder.logits(ids)
    cache = KVCache(decoder, *ids.shape)
    portions = [ids.shape[1] - 5, 1, 1, 3]
    parts = [decoder.logits(part, cache=cache) for part in ids.split(portions, dim=1)]
    assert (torch.cat(parts, 1) - expected).abs().max() <= TOLERANCE


@torch.no_grad()
def test_padding_on_either_side_changes_nothing(pair: tuple[Any, Decoder]) -> None:
    _, decoder = pair
    ids, lengths = tiny_ids(rows=3), (23, 9, 1)
    for side in ("left", "right"):
        at = torch.arange(23)
        real = torch.stack([at >= 23 - n if side == "left" else at < n for n in lengths])
        branch = tiny_branch(3, positions="last")
        got = decoder.logits(ids, real=real, branch=branch)
        for row, n in enumerate(lengths):
            alone = Branch(branch.a[row : row + 1], branch.c, branch.scale, "last")
            expected = decoder.logits(ids[row][real[row]][None], branch=alone)
            assert (got[row][real[row]] - expected[0]).abs().max() <= TOLERANCE, (side, n)


@torch.no_grad()
@pytest.mark.parametrize("positions", ["all", "last"])
def test_without_adapters_it_is_the_base_model_bit_for_bit(decoder: Decoder, positions: Any) -> None:
    ids = tiny_ids()
    off = tiny_branch(2, positions=positions)
    off = dataclasses.replace(off, c=torch.zeros_like(off.c))
    assert torch.equal(decoder.logits(ids, branch=off), decoder.logits(ids))
    assert not torch.allclose(decoder.logits(ids, branch=tiny_branch(2, positions=positions)), decoder.logits(ids))


@torch.no_grad()
@pytest.mark.parametrize("positions", ["all", "last"])
def test_branch_is_added_beside_the_feed_forward_block(positions: Any) -> None:
    model = tiny_model("llama")
    branch = tiny_branch(2, layers=2, positions=positions)

    def add_branch(layer: int) -> Any:
        def hook(_: Any, inputs: tuple[Tensor], output: Tensor) -> Tensor:
            extra = branch.scale * torch.stack([x @ a for x, a in zip(inputs[0], branch.a[:, layer], strict=True)])
            extra = extra @ branch.c[layer]
            if positions == "last":
                extra[:, :-1] = 0
            return output + extra

        return hook

    expected_base = model(tiny_ids(), use_cache=False).logits
    for layer in range(2):
        model.model.layers[1 + layer].mlp.register_forward_hook(add_branch(layer))
    decoder = Decoder.from_checkpoint(ModelSource(model))
    expected = model(tiny_ids(), use_cache=False).logits
    assert (expected - expected_base).abs().max() > 0.01
    assert (decoder.logits(tiny_ids(), branch=branch) - expected).abs().max() <= TOLERANCE


@torch.no_grad()
def test_each_row_has_its_own_adapter(decoder: Decoder) -> None:
    ids = tiny_ids(rows=1).expand(3, -1)
    branch = tiny_branch(3)
    got = decoder.logits(ids, branch=branch)
    for row in range(3):
        alone = Branch(branch.a[row : row + 1], branch.c, branch.scale)
        assert (got[row] - decoder.logits(ids[:1], branch=alone)[0]).abs().max() <= TOLERANCE
    assert (got[0] - got[1]).abs().max() > 0.01


def test_everything_is_frozen_and_gradients_reach_the_branch(decoder: Decoder) -> None:
    assert not any(parameter.requires_grad for parameter in decoder.parameters())
    branch = tiny_branch(2)
    branch.a.requires_grad_()
    branch.c.requires_grad_()
    decoder.logits(tiny_ids(), branch=branch).square().sum().backward()
    assert branch.a.grad is not None
    assert branch.c.grad is not None
    assert branch.a.grad.abs().sum(dim=(1, 2, 3)).min() > 0
    assert branch.c.grad.abs().sum() > 0


@torch.no_grad()
@pytest.mark.parametrize("case", ["llama_tied_biases", "qwen2", "qwen3"])
@pytest.mark.parametrize("double", [False, True])
def test_both_modes_of_four_bits_agree_with_dequantised_weights(case: str, double: bool) -> None:
    source = ModelSource(tiny_model(case))
    plain = dict(source.tensors)
    for name, tensor in plain.items():
        if name.endswith("_proj.weight"):
            packed = quantize_nf4(tensor, double=double)
            source.tensors[name] = packed
            plain[name] = dequantize_nf4(packed, torch.float32)
    reference = ModelSource(tiny_model(case))
    reference.tensors = plain
    expected = Decoder.from_checkpoint(reference).logits(tiny_ids())
    assert torch.equal(Decoder.from_checkpoint(source).logits(tiny_ids()), expected)
    packed_decoder = Decoder.from_checkpoint(source, mode="4bit")
    assert (packed_decoder.logits(tiny_ids()) - expected).abs().max() <= TOLERANCE


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_near(dtype: torch.dtype) -> None:
    model = tiny_model("llama")
    expected = Decoder.from_checkpoint(ModelSource(model)).logits(tiny_ids())
    got = Decoder.from_checkpoint(ModelSource(model), dtype=dtype).logits(tiny_ids(), branch=None)
    assert got.dtype == torch.float32
    assert (got - expected).norm() / expected.norm() <= (4e-2 if dtype == torch.bfloat16 else 5e-3)


@pytest.mark.parametrize("case", list(CASES))
def test_sizes_survive_json_exactly(case: str) -> None:
    kind, changes = CASES[case]
    sizes = DecoderConfig.from_config(AutoConfig.for_model(kind, **{**TINY, **changes}).to_dict())
    assert DecoderConfig.from_dict(json.loads(json.dumps(sizes.as_dict()))) == sizes


def phi3_source(share: float) -> tuple[Any, ModelSource]:
    """A model of transformers that rotates a part of each head, and its weights under the names of Llama."""
    sizes = {**TINY, "hidden_size": 96, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    torch.manual_seed(3)
    config = AutoConfig.for_model("phi3", **sizes, partial_rotary_factor=share)
    model = AutoModelForCausalLM.from_config(config).eval()
    source = ModelSource(model)
    head = 96 // TINY["num_attention_heads"]
    widths = [head * TINY[name] for name in ("num_attention_heads", "num_key_value_heads", "num_key_value_heads")]
    for name in source.names():
        if "qkv_proj" in name:
            parts = zip("qkv", source.tensors.pop(name).split(widths), strict=True)
            source.tensors |= {name.replace("qkv", letter): part for letter, part in parts}
        elif "gate_up_proj" in name:
            halves = zip(("gate", "up"), source.tensors.pop(name).chunk(2), strict=True)
            source.tensors |= {name.replace("gate_up", half): part for half, part in halves}
    source.config = {**sizes, "model_type": "llama", "partial_rotary_factor": share, "rms_norm_eps": 1e-5}
    return model, source


@torch.no_grad()
@pytest.mark.parametrize("share", [0.25, 0.5, 0.75, 1.0])
def test_a_part_of_each_head_is_rotated_as_in_transformers(share: float) -> None:
    """Phi-3 is Llama with matrices side by side; transformers' own Llama takes no notice of partial_rotary_factor."""
    model, source = phi3_source(share)
    decoder = Decoder.from_checkpoint(source)
    ids = tiny_ids()
    expected = model(ids).logits
    torch.testing.assert_close(decoder.logits(ids), expected, atol=TOLERANCE, rtol=0)
    cache = KVCache(decoder, 2, 23)
    steps = [decoder.logits(ids[:, at : at + 1], cache=cache) for at in range(23)]
    torch.testing.assert_close(torch.cat(steps, 1), expected, atol=TOLERANCE, rtol=0)
    assert DecoderConfig.from_dict(json.loads(json.dumps(decoder.sizes.as_dict()))) == decoder.sizes


@pytest.mark.parametrize(
    ("parameters", "share"),
    [({}, 0.0), ({}, 1.5), ({}, 0.125), ({"rope_type": "dynamic", "factor": 2.0}, 0.5), (YARN, 0.5)],
)
def test_impossible_parts_of_a_head_are_named(parameters: dict[str, Any], share: float) -> None:
    config = {**TINY, "model_type": "llama", "rope_parameters": {"rope_theta": 1e4, **parameters}}
    with pytest.raises(CheckpointError, match="partial_rotary_factor") as caught:
        DecoderConfig.from_config({**config, "partial_rotary_factor": share})
    assert "\n" not in str(caught.value)


def test_configurations_of_transformers_4_are_read() -> None:
    old = {**TINY, "model_type": "llama", "rope_theta": 5e5, "rope_scaling": {**LLAMA3}}
    del old["rope_scaling"]["rope_theta"]
    new = {**TINY, "model_type": "llama", "rope_parameters": {**LLAMA3, "rope_theta": 5e5}}
    assert DecoderConfig.from_config(old) == DecoderConfig.from_config(new)
    older = {**TINY, "model_type": "llama", "rope_scaling": {"type": "linear", "factor": 2.0}}
    assert DecoderConfig.from_config(older).rope.inverse_frequencies[0] == 0.5


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (
            {"model_type": "gpt2"},
            "model_type not supported: got gpt2, expected one of llama, mistral, qwen2, qwen3",
        ),
        ({}, "model_type not supported: got None"),
        ({**TINY, "model_type": "llama", "hidden_act": "gelu"}, "hidden_act not supported: got gelu"),
        (
            {
                **TINY,
                "model_type": "llama",
                "rope_parameters": {
                    "rope_type": "longrope",
                    "rope_theta": 1e4,
                    "long_factor": [1.0] * 4,
                    "short_factor": [1.0] * 4,
                    "original_max_position_embeddings": 16,
                },
            },
            "rope type not supported: got longrope",
        ),
        (
            {**TINY, "model_type": "llama", "hidden_size": "wide"},
            "config.json of the checkpoint cannot be used",
        ),
    ],
)
def test_unsupported_configurations_are_named(config: dict[str, Any], words: str) -> None:
    with pytest.raises(CheckpointError, match=words) as caught:
        DecoderConfig.from_config(config)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def smollm2() -> Path:
    try:
        return resolve_base("smollm2-135m")
    except CheckpointError as error:
        pytest.skip(f"the base model is not in the cache: {error}")


def transformers_gguf(path: Path) -> Any:
    """transformers' own reading of the file; its from_pretrained(gguf_file=...) also wants accelerate."""
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(path.parent, gguf_file=path.name))
    tensors = load_gguf_checkpoint(str(path), return_tensors=True, model_to_load=model)["tensors"]
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    assert set(missing) <= {"lm_head.weight"}, "the head is tied to the embedding"
    assert not unexpected
    return model.float().eval()


@torch.no_grad()
def test_smollm2_is_that_of_transformers(smollm2: Path) -> None:
    if smollm2.is_file():
        model = transformers_gguf(smollm2)
    else:
        model = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32).eval()
    decoder = Decoder.from_checkpoint(open_checkpoint(smollm2))
    ids = torch.randint(0, decoder.sizes.vocabulary, (1, 40), generator=torch.Generator().manual_seed(0))
    expected = model(ids, use_cache=False).logits
    assert (decoder.logits(ids) - expected).abs().max() <= TOLERANCE
