"""Generation against transformers, and rows of a batch against the same rows alone."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from model_source import ModelSource
from transformers import AutoConfig, AutoModelForCausalLM

from mora_lite.adapter.lowrank import Branch
from mora_lite.errors import InputError
from mora_lite.lm.beam import beam_search
from mora_lite.lm.captured_generation import CapturedGenerator
from mora_lite.lm.decoder import Decoder
from mora_lite.lm.generation import generate, generate_answers, sample
from mora_lite.quant.formats import open_checkpoint
from mora_lite.text.answerer import row_seed

PROMPTS = [[5, 9, 60, 3, 3, 17, 80], [11], [40, 2, 6]]
KINDS: dict[str, dict[str, Any]] = {"llama": {}, "mistral": {"sliding_window": 4}}


def tiny_model(kind: str) -> Any:
    torch.manual_seed(1)
    config = AutoConfig.for_model(
        kind,
        vocab_size=97,
        hidden_size=48,
        intermediate_size=80,
        num_hidden_layers=3,
        num_attention_heads=6,
        num_key_value_heads=2,
        initializer_range=0.3,
        eos_token_id=None,
        bos_token_id=None,
        **KINDS[kind],
    )
    return AutoModelForCausalLM.from_config(config).eval()


@pytest.fixture(scope="module", params=list(KINDS))
def pair(request: pytest.FixtureRequest) -> tuple[Any, Decoder]:
    model = tiny_model(request.param)
    return model, Decoder.from_checkpoint(ModelSource(model))


@pytest.fixture
def branch() -> Branch:
    rng = torch.Generator().manual_seed(2)
    a, c = torch.randn(3, 3, 48, 4, generator=rng), torch.randn(3, 4, 48, generator=rng)
    return Branch(a * 0.3, c * 0.3, 2.0)


def one_row(branch: Branch, row: int) -> Branch:
    return Branch(branch.a[row : row + 1], branch.c, branch.scale, branch.positions)


def test_greedy_tokens_are_those_of_transformers(pair: tuple[Any, Decoder]) -> None:
    model, decoder = pair
    got = generate(decoder, PROMPTS, max_new_tokens=12)
    for row, ids in enumerate(PROMPTS):
        expected = model.generate(torch.tensor([ids]), max_new_tokens=12, do_sample=False, pad_token_id=0)
        assert got[row] == expected[0, len(ids) :].tolist()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_rows_of_a_batch_equal_the_rows_alone(pair: tuple[Any, Decoder], branch: Branch, temperature: float) -> None:
    _, decoder = pair
    got = generate(decoder, PROMPTS, branch=branch, max_new_tokens=12, temperature=temperature, seed=4)
    for row, ids in enumerate(PROMPTS):
        alone = generate(
            decoder,
            [ids],
            branch=one_row(branch, row),
            max_new_tokens=12,
            temperature=temperature,
            seed=4 + row,
        )
        assert got[row] == alone[0]
    assert got != generate(decoder, PROMPTS, max_new_tokens=12, temperature=temperature, seed=4)


def test_rows_with_the_same_prompt_differ_by_their_adapters(pair: tuple[Any, Decoder], branch: Branch) -> None:
    got = generate(pair[1], [PROMPTS[0]] * 3, branch=branch, max_new_tokens=12)
    assert len({tuple(row) for row in got}) == 3


def test_prompts_beyond_the_context_are_named(base_path: Path) -> None:
    """By every way to generate; the last place of the context is for a new token."""
    decoder = Decoder.from_checkpoint(open_checkpoint(base_path))
    assert decoder.context == 128
    for way in (partial(generate, decoder), partial(beam_search, decoder), CapturedGenerator(decoder).generate):
        assert way([[5] * 127], max_new_tokens=1)
        with pytest.raises(InputError, match="row 1 of ids: got 128 tokens, but the model reads 128"):
            way([[5] * 127, [5] * 128], max_new_tokens=1)


def test_a_row_ends_before_its_stop_token(pair: tuple[Any, Decoder]) -> None:
    _, decoder = pair
    free = generate(decoder, PROMPTS, max_new_tokens=12)
    stop = free[0][3]
    got = generate(decoder, PROMPTS, max_new_tokens=12, stop_ids=[stop])
    for row, tokens in zip(got, free, strict=True):
        assert row == (tokens[: tokens.index(stop)] if stop in tokens else tokens)
    assert generate(decoder, PROMPTS, max_new_tokens=0) == [[], [], []]


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_scores_are_the_log_probabilities_of_answers_and_ends(
    pair: tuple[Any, Decoder], branch: Branch, temperature: float
) -> None:
    """Also of rows that go on after others have left the batch."""
    decoder = pair[1]
    rows, stop = list(range(len(PROMPTS))), range(0, 97, 7)
    answers = generate_answers(
        decoder, PROMPTS, branch=branch, max_new_tokens=9, stop_ids=stop, temperature=temperature, seed=3
    )
    assert len({len(answer.tokens) for answer in answers}) > 1
    for row, prompt, answer in zip(rows, PROMPTS, answers, strict=True):
        text = torch.tensor([[*prompt, *answer.tokens]])
        logits = decoder.logits(text, branch=one_row(branch, row))[0, len(prompt) - 1 :].log_softmax(-1)
        score = sum(float(logits[i, token]) for i, token in enumerate(answer.tokens))
        if answer.ended and temperature == 0:
            score += float(logits[-1].max())
        if answer.ended and temperature > 0:
            assert any(answer.score == pytest.approx(score + float(logits[-1, end]), abs=1e-4) for end in stop)
        else:
            assert answer.score == pytest.approx(score, abs=1e-4)


def test_cached_steps_equal_full_runs_with_a_branch(pair: tuple[Any, Decoder], branch: Branch) -> None:
    _, decoder = pair
    for row, ids in enumerate(PROMPTS):
        tokens = list(ids)
        for token in generate(decoder, [ids], branch=one_row(branch, row), max_new_tokens=6)[0]:
            with torch.no_grad():
                logits = decoder.logits(torch.tensor([tokens]), branch=one_row(branch, row))
            assert int(logits[0, -1].argmax()) == token
            tokens.append(token)


def test_sampling_follows_the_probabilities_and_the_seed(pair: tuple[Any, Decoder]) -> None:
    _, decoder = pair
    first = generate(decoder, PROMPTS, max_new_tokens=12, temperature=1.0, seed=1)
    assert generate(decoder, PROMPTS, max_new_tokens=12, temperature=1.0, seed=[1, 2, 3]) == first
    assert generate(decoder, PROMPTS, max_new_tokens=12, temperature=1.0, seed=9) != first
    logits = torch.tensor([0.1, 0.6, 0.3]).log().expand(4, 3)
    draws = torch.tensor([0.05, 0.15, 0.69, 0.9999999], dtype=torch.float64)
    assert sample(logits, 1.0, draws).tolist() == [0, 1, 1, 2]


@pytest.mark.parametrize("temperature", [1e-3, 1e-300])
def test_sampling_at_a_temperature_near_zero_is_greedy(pair: tuple[Any, Decoder], temperature: float) -> None:
    got = generate(pair[1], PROMPTS, max_new_tokens=12, temperature=temperature, seed=3)
    assert got == generate(pair[1], PROMPTS, max_new_tokens=12)


def test_top_p_draws_from_as_few_tokens_as_have_that_share() -> None:
    logits = torch.tensor([0.1, 0.5, 0.05, 0.35]).log().expand(4, 4)
    draws = torch.tensor([0.0, 0.58, 0.6, 0.9999999], dtype=torch.float64)
    assert sample(logits, 1.0, draws, 0.49).tolist() == [1, 1, 1, 1]
    # 0.5 and 0.35: the first has 0.588 of them.
    assert sample(logits, 1.0, draws, 0.51).tolist() == [1, 1, 3, 3]
    assert sample(logits, 1.0, draws, 0.85).tolist() == [1, 1, 3, 3]
    assert sample(logits, 1.0, draws, 0.86).tolist() == [1, 3, 3, 0]
    assert sample(logits, 1.0, draws, 1e-9).tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (1.0, 0.8)])
def test_many_seeds_follow_the_probabilities(pair: tuple[Any, Decoder], temperature: float, top_p: float) -> None:
    """The first token over 2,000 seeds against the softmax, by chi-square."""
    _, decoder = pair
    n = 2000
    seeds = [row_seed(seed, 0, "CCO") for seed in range(n)]
    drawn = generate(decoder, [PROMPTS[0]] * n, max_new_tokens=1, temperature=temperature, top_p=top_p, seed=seeds)
    counts = torch.bincount(torch.tensor(drawn).flatten(), minlength=97).double()
    with torch.no_grad():
        chances = (decoder.logits(torch.tensor(PROMPTS[:1]))[0, -1].double() / temperature).softmax(-1)
    if top_p < 1:
        kept = chances.sort(descending=True).values.cumsum(0) < top_p
        least = chances.sort(descending=True).values[int(kept.sum())]
        assert counts[chances < least].sum() == 0
        chances = chances.masked_fill(chances < least, 0.0)
        chances = chances / chances.sum()
    expected = n * chances
    often = expected >= 5  # the others are taken together
    assert often.sum() > 3
    got = torch.cat([counts[often], counts[~often].sum()[None]])
    wanted = torch.cat([expected[often], expected[~often].sum()[None]]).clamp(min=1e-9)
    square = float(((got - wanted) ** 2 / wanted).sum())
    freedom = len(got) - 1
    assert square < freedom + 4 * (2 * freedom) ** 0.5


def test_an_empty_row_is_named(pair: tuple[Any, Decoder]) -> None:
    with pytest.raises(InputError, match="empty row"):
        generate(pair[1], [[1], []])
