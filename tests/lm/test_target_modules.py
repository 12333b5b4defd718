"""Branches at any module of any layer, and soft tokens: against merged weights, other ways to the same text, training.

The modules: q, k, v and o, the projections of attention; ffn, the whole feed-forward block.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from model_source import ModelSource
from transformers import AutoConfig, AutoModelForCausalLM

from mora_lite.adapter.lowrank import TARGET_MODULES, AdapterConfig, Branch
from mora_lite.errors import InputError, PackError
from mora_lite.lm.beam import beam_search
from mora_lite.lm.captured_generation import CapturedGenerator
from mora_lite.lm.decoder import Decoder, KVCache
from mora_lite.lm.generation import generate
from mora_lite.scoring.scorer import Scorer
from mora_lite.training.recipe import read_recipe

PROMPTS = [[5, 9, 60, 3, 3, 17, 80], [11], [40, 2, 6]]
# Heads that are together wider than the model, or narrower; biases; query and key norms; windows.
KINDS: dict[str, dict[str, Any]] = {
    "llama": {"head_dim": 4, "attention_bias": True},
    "mistral": {"sliding_window": 4},
    "qwen3": {"num_key_value_heads": 3, "head_dim": 16},
}
TOLERANCE = 1e-5  # of the largest logit, float32


def tiny_model(kind: str) -> Any:
    torch.manual_seed(1)
    config = AutoConfig.for_model(
        kind,
        **{
            "vocab_size": 97,
            "hidden_size": 48,
            "intermediate_size": 80,
            "num_hidden_layers": 3,
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "initializer_range": 0.3,
            "eos_token_id": None,
            "bos_token_id": None,
            **KINDS[kind],
        },
    )
    model = AutoModelForCausalLM.from_config(config).eval()
    for parameter in model.parameters():  # biases and norms start as 0 and 1, which would hide them
        if parameter.ndim == 1:
            parameter.data.add_(torch.randn_like(parameter) * 0.2)
    return model


@pytest.fixture(scope="module", params=list(KINDS))
def model(request: pytest.FixtureRequest) -> Any:
    return tiny_model(request.param)


@pytest.fixture
def decoder(model: Any) -> Decoder:
    return Decoder.from_checkpoint(ModelSource(model))


def random_branch(
    decoder: Decoder, modules: tuple[str, ...], layers: tuple[int, ...] = (), rows: int = 3, soft: int = 0
) -> Branch:
    rng = torch.Generator().manual_seed(2)
    widths = decoder.sizes.module_widths()
    k = len(layers) or decoder.sizes.layers
    a = torch.randn(rows, k, sum(widths[module][0] for module in modules), 4, generator=rng)
    c = torch.randn(k, 4, sum(widths[module][1] for module in modules), generator=rng)
    tokens = torch.randn(rows, soft, decoder.sizes.width, generator=rng) if soft else None
    return Branch(a * 0.2, c * 0.2, 2.0, target_modules=modules, layers=layers, soft=tokens)


def one_row(branch: Branch, row: int) -> Branch:
    """What a row of the batch brings."""
    own = slice(row, row + 1)
    return replace(branch, a=branch.a[own], soft=None if branch.soft is None else branch.soft[own])


@torch.no_grad()
@pytest.mark.parametrize("modules", [*((module,) for module in TARGET_MODULES), ("q", "v"), TARGET_MODULES])
@pytest.mark.parametrize("layers", [(), (2,), (0, 2)])
def test_a_branch_is_a_change_of_the_weight(
    model: Any, decoder: Decoder, modules: tuple[str, ...], layers: tuple[int, ...]
) -> None:
    """transformers with `W + scale * (A C)^T` in the place of W, and the branch at ffn by a hook."""
    branch = random_branch(decoder, modules, layers, rows=1)
    changed = type(model)(model.config).eval()
    changed.load_state_dict(model.state_dict())
    widths = decoder.sizes.module_widths()
    for at, number in enumerate(layers or range(3)):
        row = column = 0
        for module in modules:
            a = branch.a[0, at, row : row + widths[module][0]]
            c = branch.c[at, :, column : column + widths[module][1]]
            row, column = row + widths[module][0], column + widths[module][1]
            product = branch.scale * a @ c
            layer = changed.model.layers[number]
            if module == "ffn":
                layer.mlp.register_forward_hook(lambda _, x, y, product=product: y + x[0] @ product)
            else:
                getattr(layer.self_attn, f"{module}_proj").weight += product.T
    ids = torch.randint(0, 97, (1, 23), generator=torch.Generator().manual_seed(5))
    expected = changed(ids, use_cache=False).logits
    plain = model(ids, use_cache=False).logits
    assert (expected - plain).abs().max() > 0.01 * plain.abs().max()
    assert (decoder.logits(ids, branch=branch) - expected).abs().max() <= TOLERANCE * expected.abs().max()


@torch.no_grad()
def test_with_c_zero_it_is_the_base_model_bit_for_bit(decoder: Decoder) -> None:
    ids = torch.tensor(PROMPTS[:1])
    branch = random_branch(decoder, TARGET_MODULES, rows=1)
    off = replace(branch, c=torch.zeros_like(branch.c))
    assert torch.equal(decoder.logits(ids, branch=off), decoder.logits(ids))
    assert not torch.allclose(decoder.logits(ids, branch=branch), decoder.logits(ids))


WAYS = [
    (TARGET_MODULES, (), 0),
    (("q", "o"), (0, 2), 0),
    (("k",), (1,), 0),
    (("ffn",), (0, 1), 3),
    (TARGET_MODULES, (), 5),
]


@torch.no_grad()
@pytest.mark.parametrize(("modules", "layers", "soft"), WAYS)
def test_rows_of_a_padded_batch_are_the_rows_alone(
    decoder: Decoder, modules: tuple[str, ...], layers: tuple[int, ...], soft: int
) -> None:
    branch = random_branch(decoder, modules, layers, soft=soft)
    longest = max(map(len, PROMPTS))
    for side in ("left", "right"):
        padding = [[0] * (longest - len(row)) for row in PROMPTS]
        pairs = list(zip(padding, PROMPTS, strict=True))
        ids = torch.tensor([pad + row if side == "left" else row + pad for pad, row in pairs])
        real = torch.tensor(
            [
                [False] * len(pad) + [True] * len(row) if side == "left" else [True] * len(row) + [False] * len(pad)
                for pad, row in pairs
            ]
        )
        got = decoder.logits(ids, real=real, branch=branch)
        assert got.shape[:2] == ids.shape
        for row, prompt in enumerate(PROMPTS):
            expected = decoder.logits(torch.tensor([prompt]), branch=one_row(branch, row))[0]
            assert (got[row][real[row]] - expected).abs().max() <= TOLERANCE * expected.abs().max(), (side, row)


@torch.no_grad()
def test_soft_tokens_are_embeddings_before_the_text(model: Any, decoder: Decoder) -> None:
    branch = random_branch(decoder, ("ffn",), rows=1, soft=4)
    off = replace(branch, c=torch.zeros_like(branch.c))
    ids = torch.tensor(PROMPTS[:1])
    embeddings = torch.cat([branch.soft, model.get_input_embeddings()(ids)], 1)
    expected = model(inputs_embeds=embeddings, use_cache=False).logits[:, 4:]
    assert (decoder.logits(ids, branch=off) - expected).abs().max() <= TOLERANCE * expected.abs().max()


@pytest.mark.parametrize(("modules", "layers", "soft"), WAYS)
def test_all_ways_to_generate_give_the_same_text(
    decoder: Decoder, modules: tuple[str, ...], layers: tuple[int, ...], soft: int
) -> None:
    """Without a cache, with one, at fixed addresses, by a beam of one; in a batch and alone."""
    branch = random_branch(decoder, modules, layers, soft=soft)
    together = generate(decoder, PROMPTS, branch=branch, max_new_tokens=12)
    assert together != generate(decoder, PROMPTS, max_new_tokens=12)
    for row, prompt in enumerate(PROMPTS):
        own, text = one_row(branch, row), list(prompt)
        for _ in range(12):
            with torch.no_grad():
                text.append(int(decoder.logits(torch.tensor([text]), branch=own)[0, -1].argmax()))
        assert together[row] == text[len(prompt) :]
    captured = CapturedGenerator(decoder)
    for _ in range(2):  # the second time in the slots of the first
        assert captured.generate(PROMPTS, branch=branch, max_new_tokens=12) == together
    beams = beam_search(decoder, PROMPTS, branch=branch, beams=1, max_new_tokens=12)
    assert [row[0].tokens for row in beams] == together


def test_one_captured_generator_for_several_adapters(decoder: Decoder) -> None:
    """Branches of one size at other modules or in other layers are other steps."""
    captured = CapturedGenerator(decoder)
    for layers in ((0, 1), (1, 2)):
        branch = random_branch(decoder, ("ffn",), layers)
        expected = generate(decoder, PROMPTS, branch=branch, max_new_tokens=9)
        assert captured.generate(PROMPTS, branch=branch, max_new_tokens=9) == expected


@torch.no_grad()
@pytest.mark.parametrize(("modules", "layers", "soft"), WAYS)
def test_beams_are_those_of_a_search_without_a_cache(
    decoder: Decoder, modules: tuple[str, ...], layers: tuple[int, ...], soft: int
) -> None:
    branch = random_branch(decoder, modules, layers, soft=soft)
    found = beam_search(decoder, PROMPTS, branch=branch, beams=3, max_new_tokens=5)
    for row, prompt in enumerate(PROMPTS):
        own = one_row(branch, row)
        going: list[tuple[list[int], float]] = [([], 0.0)]
        for _ in range(5):
            longer = []
            for tokens, score in going:
                scores = decoder.logits(torch.tensor([[*prompt, *tokens]]), branch=own)[0, -1].log_softmax(-1)
                longer += [([*tokens, token], score + value) for token, value in enumerate(scores.tolist())]
            going = sorted(longer, key=lambda beam: -beam[1])[:3]
        assert [answer.tokens for answer in found[row]] == [tokens for tokens, _ in going]
        assert [answer.score for answer in found[row]] == pytest.approx([score for _, score in going], abs=1e-3)


@torch.no_grad()
def test_soft_tokens_stand_before_the_first_portion_alone(decoder: Decoder) -> None:
    branch = random_branch(decoder, TARGET_MODULES, rows=1, soft=3)
    ids = torch.tensor(PROMPTS[:1])
    cache = KVCache(decoder, 1, 3 + ids.shape[1])
    parts = [decoder.logits(part, cache=cache, branch=branch) for part in ids.split([4, 1, 2], dim=1)]
    expected = decoder.logits(ids, branch=branch)
    assert (torch.cat(parts, 1) - expected).abs().max() <= TOLERANCE * expected.abs().max()


def test_gradients_reach_every_module(decoder: Decoder) -> None:
    branch = random_branch(decoder, TARGET_MODULES, (0, 2))
    branch.a.requires_grad_()
    branch.c.requires_grad_()
    decoder.logits(torch.tensor([PROMPTS[0]] * 3), branch=branch).square().sum().backward()
    widths = decoder.sizes.module_widths()
    assert branch.a.grad is not None
    assert branch.c.grad is not None
    for part in branch.a.grad.split([widths[module][0] for module in TARGET_MODULES], 2):
        assert part.abs().sum((2, 3)).min() > 0
    for part in branch.c.grad.split([widths[module][1] for module in TARGET_MODULES], 2):
        assert part.abs().sum((1, 2)).min() > 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"target_modules": ("q", "x")}, "target_modules: got 'q,x', expected some of q,k,v,o,ffn, each once"),
        ({"target_modules": ("q", "q")}, "each once"),
        ({"target_modules": ()}, "each once"),
        ({"layers": (0, 1)}, r"layers: got \[0, 1\] for 4 adapted layers"),
        ({"layers": (0, 1, 2, 2)}, "as many different numbers"),
        ({"layers": (0, 1, 2, -1)}, "counted from 0"),
        ({"layers": ("0", 1, 2, 3)}, "counted from 0"),
    ],
)
def test_impossible_modules_and_layers_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(PackError, match=words) as caught:
        AdapterConfig(**change)
    assert "\n" not in str(caught.value)


def test_sizes_come_back_from_json() -> None:
    sizes = AdapterConfig(target_modules=("ffn", "o", "q"), layers=(5, 1, 3, 0))
    assert (sizes.target_modules, sizes.layers) == (("q", "o", "ffn"), (0, 1, 3, 5))
    written = json.loads(json.dumps(sizes.as_dict()))
    assert (written["places"], written["layers"]) == ("qom", [0, 1, 3, 5])  # the format of packs
    assert AdapterConfig.from_dict(written) == sizes
    usual = AdapterConfig().as_dict()  # as packs had them before there was a choice
    assert not {"places", "target_modules", "layers"} & set(usual)
    assert AdapterConfig.from_dict(usual) == AdapterConfig.from_dict({**usual, "places": "m"}) == AdapterConfig()


@pytest.mark.parametrize("change", [{"target_modules": ["q", "ffn"]}, {"layers": (0, 1, 3)}])
def test_scores_refuse_other_modules_and_layers(
    compiled_base: Any, adapter_sizes: AdapterConfig, change: dict[str, Any], tmp_path: Path
) -> None:
    sizes = replace(adapter_sizes, **change)
    with pytest.raises(PackError, match="expected ffn in the uppermost layers"):
        Scorer(sizes, compiled_base.upper(3), compiled_base.prompts)
    adapted = json.dumps({**asdict(sizes), **change})
    lines = "\n".join(f"{name} = {json.dumps(value)}" for name, value in json.loads(adapted).items())
    path = tmp_path / "recipe.toml"
    path.write_text(f'[[task]]\nname = "x"\nprompt = "X:"\n[adapter]\n{lines}\n')
    with pytest.raises((InputError, PackError), match="expected ffn in the uppermost layers"):
        read_recipe(path)
