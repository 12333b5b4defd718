"""Beam search against greedy decoding and against every possible answer; rows against the same rows alone."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from model_source import ModelSource
from torch import Tensor
from transformers import AutoModelForCausalLM, Qwen3Config

from mora_lite.adapter.lowrank import Branch
from mora_lite.errors import InputError
from mora_lite.lm.beam import beam_search
from mora_lite.lm.decoder import Decoder
from mora_lite.lm.generation import generate

PROMPTS = [[5, 9, 60, 3, 3, 17, 80], [11], [40, 2, 6]]


@pytest.fixture(scope="module")
def decoder(base_path) -> Decoder:
    from mora_lite.quant.formats import open_checkpoint

    return Decoder.from_checkpoint(open_checkpoint(base_path))


@pytest.fixture(scope="module")
def branch() -> Branch:
    rng = torch.Generator().manual_seed(2)
    a, c = torch.randn(3, 3, 64, 4, generator=rng), torch.randn(3, 4, 64, generator=rng)
    return Branch(a * 0.3, c * 0.3, 2.0)


def one_row(branch: Branch, row: int) -> Branch:
    return Branch(branch.a[row : row + 1], branch.c, branch.scale)


@torch.no_grad()
def log_probability(decoder: Decoder, prompt: list[int], answer: list[int], branch: Branch) -> float:
    """Of an answer's tokens after the prompt, by one run without a cache."""
    logits = decoder.logits(torch.tensor([[*prompt, *answer]]), branch=branch)[0]
    of_each: Tensor = logits.log_softmax(-1)[len(prompt) - 1 : -1].gather(1, torch.tensor(answer)[:, None])
    return float(of_each.sum())


@pytest.mark.parametrize("stop", [7, 30, 200])
def test_one_beam_is_the_greedy_way_or_an_earlier_end_of_it(decoder: Decoder, branch: Branch, stop: int) -> None:
    greedy = generate(decoder, PROMPTS, branch=branch, max_new_tokens=9, stop_ids=[stop])
    found = beam_search(decoder, PROMPTS, branch=branch, beams=1, max_new_tokens=9, stop_ids=[stop])
    for row, answers in enumerate(found):
        assert answers[0].tokens == greedy[row][: len(answers[0].tokens)]
        assert answers[0].score >= log_probability(decoder, PROMPTS[row], greedy[row], one_row(branch, row)) - 1e-3


def test_the_best_answer_is_at_least_as_likely_as_the_greedy_one(decoder: Decoder, branch: Branch) -> None:
    greedy = generate(decoder, PROMPTS, branch=branch, max_new_tokens=8)
    found = beam_search(decoder, PROMPTS, branch=branch, beams=6, max_new_tokens=8)
    better = 0
    for row, answers in enumerate(found):
        of_greedy = log_probability(decoder, PROMPTS[row], greedy[row], one_row(branch, row))
        assert answers[0].score >= of_greedy - 1e-3
        better += answers[0].tokens != greedy[row]
        scores = [answer.score for answer in answers]
        assert scores == sorted(scores, reverse=True)
        assert len({tuple(answer.tokens) for answer in answers}) == 6
    assert better  # else this would not show that it searches


def test_scores_are_those_of_a_run_without_a_cache(decoder: Decoder, branch: Branch) -> None:
    found = beam_search(decoder, PROMPTS, branch=branch, beams=3, max_new_tokens=6, stop_ids=[30, 44])
    for row, answers in enumerate(found):
        for answer in answers:
            ends = [30, 44] if answer.ended else [None]
            expected = [
                log_probability(decoder, PROMPTS[row], answer.tokens + ([e] if e else []), one_row(branch, row))
                for e in ends
            ]
            assert min(abs(answer.score - value) for value in expected) < 1e-3


def test_with_a_beam_for_everything_the_answers_are_the_best_there_are(decoder: Decoder, branch: Branch) -> None:
    n = decoder.sizes.vocabulary
    found = beam_search(decoder, PROMPTS[1:2], branch=one_row(branch, 1), beams=n, max_new_tokens=2)[0]
    with torch.no_grad():
        first = decoder.logits(torch.tensor([PROMPTS[1]]), branch=one_row(branch, 1))[0, -1].log_softmax(-1)
        ids = torch.tensor([[*PROMPTS[1], token] for token in range(n)])
        wide = Branch(one_row(branch, 1).a.expand(n, -1, -1, -1), branch.c, branch.scale)
        both = first[:, None] + decoder.logits(ids, branch=wide)[:, -1].log_softmax(-1)
    best = both.flatten().topk(5)
    for answer, score, place in zip(found, best.values.tolist(), best.indices.tolist(), strict=False):
        assert answer.tokens == [place // n, place % n]
        assert answer.score == pytest.approx(score, abs=1e-3)


@torch.no_grad()
def plain_search(
    decoder: Decoder, prompt: list[int], branch: Branch | None, beams: int, limit: int, stops: set[int]
) -> list:
    """The same search without a cache and without leaving off early: (tokens, score), the likeliest first."""
    going: list[tuple[list[int], float]] = [([], 0.0)]
    ended: list[tuple[list[int], float]] = []
    for step in range(limit):
        longer = []
        for tokens, score in going:
            scores = decoder.logits(torch.tensor([[*prompt, *tokens]]), branch=branch)[0, -1].log_softmax(-1)
            for token, value in enumerate(scores.tolist()):
                kept = ended if token in stops else longer
                kept.append((tokens if token in stops else [*tokens, token], score + value))
        going = sorted(longer, key=lambda beam: -beam[1])[:beams]
        if step == limit - 1:
            ended += going
    return sorted(ended, key=lambda beam: -beam[1])[:beams]


@pytest.mark.parametrize("n_stops", [1, 4, 60])
def test_leaving_off_early_loses_no_answer(decoder: Decoder, branch: Branch, n_stops: int) -> None:
    stops = set(range(5, 5 + n_stops))
    found = beam_search(decoder, PROMPTS, branch=branch, beams=4, max_new_tokens=7, stop_ids=stops)
    for row, answers in enumerate(found):
        expected = plain_search(decoder, PROMPTS[row], one_row(branch, row), 4, 7, stops)
        assert [answer.tokens for answer in answers] == [tokens for tokens, _ in expected]
        assert [answer.score for answer in answers] == pytest.approx([score for _, score in expected], abs=1e-3)


@pytest.mark.parametrize("steps", [1, 3, 16])
def test_clearing_the_cache_loses_nothing(
    decoder: Decoder, branch: Branch, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of other lengths need other numbers of slots, and leave the batch when they are done."""
    monkeypatch.setattr("mora_lite.lm.beam.STEPS", steps)
    stops = set(range(5, 65))
    found = beam_search(decoder, PROMPTS, branch=branch, beams=3, max_new_tokens=20, stop_ids=stops)
    for row, answers in enumerate(found):
        expected = plain_search(decoder, PROMPTS[row], one_row(branch, row), 3, 20, stops)
        assert [answer.tokens for answer in answers] == [tokens for tokens, _ in expected]


def test_a_beam_sees_no_further_back_than_the_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slots are numbered by the step that filled them, and each step fills one for every beam."""
    monkeypatch.setattr("mora_lite.lm.beam.STEPS", 4)
    torch.manual_seed(3)
    sizes = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3, "num_attention_heads": 6}
    kinds = ["sliding_attention", "full_attention", "sliding_attention"]
    config = Qwen3Config(
        vocab_size=97,
        num_key_value_heads=2,
        head_dim=16,
        use_sliding_window=True,
        sliding_window=4,
        layer_types=kinds,
        initializer_range=0.3,
        **sizes,
    )
    decoder = Decoder.from_checkpoint(ModelSource(AutoModelForCausalLM.from_config(config).eval()))
    found = beam_search(decoder, PROMPTS, beams=3, max_new_tokens=14)
    for prompt, answers in zip(PROMPTS, found, strict=True):
        expected = plain_search(decoder, prompt, None, 3, 14, set())
        assert [answer.tokens for answer in answers] == [tokens for tokens, _ in expected]


def test_rows_of_a_batch_equal_the_rows_alone(decoder: Decoder, branch: Branch) -> None:
    together = beam_search(decoder, PROMPTS, branch=branch, beams=4, max_new_tokens=7, stop_ids=[30, 99])
    for row, ids in enumerate(PROMPTS):
        alone = beam_search(decoder, [ids], branch=one_row(branch, row), beams=4, max_new_tokens=7, stop_ids=[30, 99])
        assert [answer.tokens for answer in alone[0]] == [answer.tokens for answer in together[row]]
        for a, b in zip(alone[0], together[row], strict=True):
            assert a.score == pytest.approx(b.score, abs=1e-3)
    plain = beam_search(decoder, PROMPTS, beams=4, max_new_tokens=7, stop_ids=[30, 99])
    assert plain != together  # the adapters change the answers


@pytest.mark.parametrize("ids", [[], [[1], []]])
def test_empty_rows_are_told(decoder: Decoder, ids: list[list[int]]) -> None:
    with pytest.raises(InputError, match="got"):
        beam_search(decoder, ids, beams=2)


def test_more_beams_than_tokens_of_the_vocabulary_are_no_answers_twice(decoder: Decoder) -> None:
    n = decoder.sizes.vocabulary
    found = beam_search(decoder, [[3]], beams=n + 5, max_new_tokens=1)[0]
    assert sorted(answer.tokens[0] for answer in found) == sorted(token for token, _ in product(range(n), [0]))
