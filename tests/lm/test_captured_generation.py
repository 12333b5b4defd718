"""Generation step by step at fixed addresses, against plain generation; on a CPU nothing is captured."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from model_source import ModelSource

pytest.importorskip("transformers")
from transformers import AutoConfig, AutoModelForCausalLM

from mora_lite.adapter.lowrank import TARGET_MODULES, Branch
from mora_lite.errors import InputError
from mora_lite.lm import captured_generation
from mora_lite.lm.captured_generation import MAX_STEPS, CapturedGenerator, feed_forward, truncate_at_stop
from mora_lite.lm.decoder import Decoder, DecoderLayer
from mora_lite.lm.generation import generate
from mora_lite.quant import matmul
from mora_lite.quant.linear import Linear4bit
from mora_lite.quant.tiling import TiledNF4

PROMPTS = [[5, 9, 60, 3, 3, 17, 80], [11], [40, 2, 6]]
KINDS: dict[str, dict[str, Any]] = {
    "llama": {"num_key_value_heads": 6, "partial_rotary_factor": 0.5},
    "mistral": {"num_key_value_heads": 2, "sliding_window": 4},
    "qwen3": {"num_key_value_heads": 3, "head_dim": 16, "tie_word_embeddings": True},
}


def tiny_source(kind: str, width: int = 48, four_bit: bool = False) -> ModelSource:
    torch.manual_seed(1)
    config = AutoConfig.for_model(
        kind,
        vocab_size=97,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=3,
        num_attention_heads=6 if width == 48 else 4,
        initializer_range=0.3,
        eos_token_id=None,
        bos_token_id=None,
        **(KINDS[kind] if width == 48 else {}),
    )
    return ModelSource(AutoModelForCausalLM.from_config(config).eval(), four_bit)


@pytest.fixture(scope="module", params=list(KINDS))
def decoder(request: pytest.FixtureRequest) -> Decoder:
    return Decoder.from_checkpoint(tiny_source(request.param))


def random_branch(
    layers: int, rows: int = 3, width: int = 48, seed: int = 2, modules: tuple[str, ...] = ("ffn",)
) -> Branch:
    """Of modules that are all as wide as the model."""
    wide = len(modules) * width
    rng = torch.Generator().manual_seed(seed)
    a, c = torch.randn(rows, layers, wide, 4, generator=rng), torch.randn(layers, 4, wide, generator=rng)
    return Branch(a * 0.3, c * 0.3, 2.0, target_modules=modules)


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_tokens_are_those_of_plain_generation(decoder: Decoder, layers: int) -> None:
    branch = random_branch(layers) if layers else None
    expected = generate(decoder, PROMPTS, branch=branch, max_new_tokens=40)
    assert len({tuple(row) for row in expected}) == 3
    assert CapturedGenerator(decoder).generate(PROMPTS, branch=branch, max_new_tokens=40) == expected


def test_an_earlier_text_leaves_no_trace(decoder: Decoder) -> None:
    steps, branch = CapturedGenerator(decoder), random_branch(3)
    broken = Branch(branch.a * float("inf"), branch.c, branch.scale)
    expected = steps.generate(PROMPTS, branch=branch, max_new_tokens=9)
    other = [row[::-1] for row in PROMPTS]
    assert steps.generate(other, branch=random_branch(3, seed=7), max_new_tokens=12) != expected
    steps.generate(PROMPTS, branch=broken, max_new_tokens=9)
    assert steps.generate(PROMPTS, branch=branch, max_new_tokens=9) == expected
    assert len(steps._slots_by_shape) == 1  # all had the same rows and capacity


def test_few_shapes_are_kept(decoder: Decoder) -> None:
    steps = CapturedGenerator(decoder)
    for rows in (1, 2, 3, 1):
        assert len(steps.generate([[7]] * rows, max_new_tokens=3)) == rows
        assert len(steps._slots_by_shape) <= MAX_STEPS


def test_rows_end_before_their_stop_tokens(decoder: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    free = generate(decoder, PROMPTS, max_new_tokens=60)
    stops = {row[3] for row in free}
    calls = []
    plain = captured_generation.step
    monkeypatch.setattr(captured_generation, "step", lambda *arguments: calls.append(plain(*arguments)))
    got = CapturedGenerator(decoder).generate(PROMPTS, max_new_tokens=60, stop_ids=stops)
    assert (
        got
        == generate(decoder, PROMPTS, max_new_tokens=60, stop_ids=stops)
        == [truncate_at_stop(row, stops) for row in free]
    )
    assert len(calls) < 20  # the host looks every 16 steps


def test_truncate_at_stop() -> None:
    assert truncate_at_stop([4, 5, 6, 5], {5, 6}) == [4]
    assert truncate_at_stop([4, 5], set()) == [4, 5]


def test_no_new_tokens_and_impossible_requests(decoder: Decoder) -> None:
    steps = CapturedGenerator(decoder)
    assert steps.generate(PROMPTS, max_new_tokens=0) == [[], [], []]
    assert steps.generate(PROMPTS, max_new_tokens=1) == generate(decoder, PROMPTS, max_new_tokens=1)
    with pytest.raises(InputError, match="empty row"):
        steps.generate([[1], []])


@pytest.mark.parametrize("modules", [("ffn",), TARGET_MODULES])
def test_the_kernel_adds_the_branch(monkeypatch: pytest.MonkeyPatch, modules: tuple[str, ...]) -> None:
    """Weights in 4 bits as on a CUDA device, by Triton's interpreter."""
    pytest.importorskip("triton", minversion="3.7")
    if torch.cuda.is_available():
        pytest.skip("Triton's interpreter is only chosen where there is no CUDA device")
    monkeypatch.setattr(matmul, "has_triton", lambda device: True)
    decoder = Decoder.from_checkpoint(tiny_source("llama", 64, four_bit=True), torch.float16, "4bit")
    layer = decoder.layers[2]
    assert isinstance(layer, DecoderLayer)
    assert isinstance(layer.down, Linear4bit)
    assert isinstance(layer.down.weight, TiledNF4)
    branch, normed = random_branch(2, width=64, modules=modules), torch.randn(3, 64).half()
    own = branch.by_layer(3, decoder.sizes.module_widths())[2]
    got = feed_forward(layer, normed, own)
    with monkeypatch.context() as plain:
        for module in (captured_generation, matmul):
            plain.setattr(module, "choose_kernel", lambda *_: "torch")
        expected = feed_forward(layer, normed, own)
    error = (got - expected).float().norm() / expected.float().norm()
    assert error < 3e-3
    added = (expected - layer.feed_forward(normed)).float().norm()
    assert added > 0.1 * expected.float().norm()
    ours = CapturedGenerator(decoder).generate(PROMPTS, branch=branch, max_new_tokens=3)
    assert [len(row) for row in ours] == [3, 3, 3]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("modules", [("ffn",), TARGET_MODULES])
def test_captured_steps_give_the_tokens_of_the_same_steps_one_by_one(modules: tuple[str, ...]) -> None:
    source = tiny_source("llama", 64, four_bit=True)
    decoder = Decoder.from_checkpoint(source, torch.bfloat16, "4bit").cuda()
    branch = random_branch(3, width=64, modules=modules)
    branch = replace(branch, a=branch.a.cuda(), c=branch.c.cuda())
    captured = CapturedGenerator(decoder)
    alone = CapturedGenerator(decoder, capture_steps=False)
    for prompts in (PROMPTS, [row[::-1] for row in PROMPTS], PROMPTS):
        expected = alone.generate(prompts, branch=branch, max_new_tokens=40)
        assert captured.generate(prompts, branch=branch, max_new_tokens=40) == expected
