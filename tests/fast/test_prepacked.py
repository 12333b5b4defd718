"""Matrices in oneDNN's order, against the plain decoder."""

from __future__ import annotations

import pytest
import torch
from model_source import ModelSource
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from mora_lite.adapter.lowrank import Branch
from mora_lite.fast.linear import has_packed_products
from mora_lite.fast.prepacked import PrepackedLinear, prepack
from mora_lite.lm.decoder import Decoder
from mora_lite.lm.generation import generate
from mora_lite.quant.linear import Linear4bit

supported = pytest.mark.skipif(
    not has_packed_products(), reason="no oneDNN, or a processor without its bfloat16 products"
)
PROMPTS = [[5, 9, 60, 3, 3, 17, 80], [11], [40, 2, 6]]


def tiny_source(kind: str, tied: bool) -> ModelSource:
    """Queries, keys and values of a Qwen2 have biases."""
    torch.manual_seed(3)
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = AutoConfig.for_model(
        kind, vocab_size=97, num_hidden_layers=3, initializer_range=0.2, tie_word_embeddings=tied, **sizes
    )
    model = AutoModelForCausalLM.from_config(config).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter)
    return ModelSource(model)


def random_branch() -> Branch:
    rng = torch.Generator().manual_seed(2)
    a, c = torch.randn(3, 3, 64, 4, generator=rng), torch.randn(3, 4, 64, generator=rng)
    return Branch((0.3 * a).bfloat16(), (0.3 * c).bfloat16(), 2.0)


@supported
@torch.no_grad()
@pytest.mark.parametrize(("kind", "tied"), [("llama", True), ("qwen2", False)])
def test_it_computes_what_the_plain_decoder_does(kind: str, tied: bool) -> None:
    source = tiny_source(kind, tied)
    plain, packed = (Decoder.from_checkpoint(source, torch.bfloat16) for _ in range(2))
    prepack(packed)
    assert isinstance(packed.untied_head, PrepackedLinear)
    for rows in (1, 3):
        ids = torch.arange(7 * rows).view(rows, 7)
        for branch in (None, random_branch() if rows == 3 else None):
            expected = plain.logits(ids, branch=branch)
            torch.testing.assert_close(packed.logits(ids, branch=branch), expected, rtol=0, atol=0.02 * expected.std())
    branch = random_branch()
    wanted = generate(plain, PROMPTS, branch=branch, max_new_tokens=4)
    assert generate(packed, PROMPTS, branch=branch, max_new_tokens=4) == wanted


@supported
def test_what_is_in_four_bits_or_in_another_type_stays() -> None:
    source = tiny_source("llama", tied=True)
    source.four_bit = True
    decoder = Decoder.from_checkpoint(source, torch.bfloat16, "4bit")
    prepack(decoder)
    assert isinstance(decoder.layers[0].down, Linear4bit)
    assert isinstance(decoder.untied_head, PrepackedLinear)
    decoder = Decoder.from_checkpoint(source, torch.float32)
    prepack(decoder)
    assert isinstance(decoder.layers[0].down, nn.Linear)
    assert decoder.untied_head is None
