"""Perplexity on small cases that can be worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from mora_lite.lm.perplexity import bundled_text, perplexity


def uniform(ids: torch.Tensor) -> torch.Tensor:
    return torch.zeros(*ids.shape, 10)


def test_a_model_that_knows_nothing_wavers_between_all_tokens() -> None:
    assert perplexity(uniform, torch.arange(10)) == pytest.approx(10)


def test_a_model_that_knows_everything() -> None:
    def next_number(ids: torch.Tensor) -> torch.Tensor:
        return 100 * torch.nn.functional.one_hot((ids + 1) % 10, 10).float()

    assert perplexity(next_number, torch.arange(25) % 10, window=4) == pytest.approx(1)


@pytest.mark.parametrize("window", [2, 3, 7, 30, 100])
def test_each_token_but_the_first_is_predicted_once(window: int) -> None:
    ids = torch.randint(0, 10, (30,), generator=torch.Generator().manual_seed(0))
    table = torch.randn(10, 10)
    expected = -torch.log_softmax(table, 1)[ids[:-1], ids[1:]].mean().item()
    assert perplexity(lambda piece: table[piece], ids[None], window) == pytest.approx(math.exp(expected), rel=1e-5)


def test_too_little_to_predict() -> None:
    with pytest.raises(ValueError, match="two tokens"):
        perplexity(uniform, torch.tensor([1]))
    with pytest.raises(ValueError, match="two tokens"):
        perplexity(uniform, torch.arange(5), window=1)


def test_the_bundled_text_is_plain_english() -> None:
    text = bundled_text()
    assert 6_000 < len(text) < 10_000
    assert text.isascii()
    assert "endless forms most beautiful" in text
