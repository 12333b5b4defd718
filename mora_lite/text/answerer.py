"""Text answers to questions about molecules: from graph and question to prompt, adapter, tokens and text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch

from ..adapter.lowrank import Branch
from ..chem.featurizer import Featurizer
from ..chem.graph import Graphs
from ..lm.beam import beam_search
from ..lm.captured_generation import CapturedGenerator
from ..lm.generation import Answer, generate_answers
from ..machine.capture import warn_uncaptured
from ..machine.device import compute_in_batches, training_dtype
from .model import TextModel
from .pairs import FEATURIZER, hash_of
from .sequences import Prompt, token_ids

MAX_NEW_TOKENS = 128  # of an answer, where nothing else is said
LONG_ANSWER = 256  # the same of a command or a page
BEAMS_AT_ONCE = 512  # of all rows of a batch: each has scores for the whole vocabulary


class Text(NamedTuple):
    """text: an answer. score: natural logarithm of its probability, that of all its tokens and of its end.

    ended: whether it has one; what was cut off at the largest number of tokens has none.
    """

    text: str
    score: float
    ended: bool = True


def row_seed(seed: int, number: int, text: str) -> int:
    """The seed of sample `number` of the question `text`, 0 to 2^63 - 1: the same in every table."""
    return hash_of(f"{seed} {number} {text}") >> 1


class Answerer:
    """A trained text model with its tokenizer and prompt.

    featurizer: how the graphs of molecules are made, as in training. origin: pack, base, device and type, all that its
    answers depend on; empty where nobody says it.
    max_tokens: of prompt and answer together, what the base was made for. The model must not move afterwards.
    captured: generates greedily by captured steps; None on a CPU, where nothing is gained by capturing.
    """

    def __init__(
        self,
        model: TextModel,
        tokenizer: Any,
        prompt: Prompt,
        max_tokens: int = 2048,
        featurizer: Featurizer = FEATURIZER,
        origin: str = "",
    ):
        self.featurizer, self.origin = featurizer, origin
        self.max_tokens = max_tokens - model.n_soft
        self.model, self.tokenizer, self.prompt = model, tokenizer, prompt
        self.device = model.decoder.embedding.device
        self.captured = CapturedGenerator(model.decoder) if self.device.type == "cuda" else None
        self.before, self.between, self.end = prompt.pieces(tokenizer)

    @property
    def long_answer(self) -> int:
        """`LONG_ANSWER`, or half of what the base reads."""
        return min(LONG_ANSWER, self.max_tokens // 2)

    def max_question_tokens(self, max_new_tokens: int) -> int:
        """Most tokens that a question may have, where its answer may have `max_new_tokens`."""
        return self.max_tokens - max_new_tokens - len(self.before) - len(self.between)

    def answer(
        self,
        questions: Sequence[Sequence[int]],
        graphs: Graphs,
        *,
        beams: int = 1,
        max_new_tokens: int = MAX_NEW_TOKENS,
        batch_size: int = 64,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seeds: Sequence[int] | None = None,
    ) -> list[list[Text]]:
        """Answers of each question, the likeliest first: one, or up to `beams`.

        questions: token ids of each, without the prompt's pieces. graphs: of their molecules.
        temperature, top_p, seeds: above 0 the answer is sampled (`generation.sample`), with the row's entry of `seeds`;
        there are no beams then. batch_size: rows at a time, fewer with many beams.

        Questions of one length are taken together; a row's answer does not depend on the rows beside it.
        """
        assert temperature == 0 or (beams == 1 and seeds is not None and len(seeds) == len(questions))
        order = np.argsort([len(question) for question in questions], kind="stable")
        size = min(batch_size, max(1, BEAMS_AT_ONCE // beams))
        texts: list[list[Text]] = [[] for _ in questions]

        def answer(rows: np.ndarray) -> None:
            ids = [[*self.before, *questions[row], *self.between] for row in rows]
            sampling = {
                "temperature": temperature,
                "top_p": top_p,
                "seed": [seeds[row] for row in rows] if seeds else 0,
            }
            answered = self._answer(ids, graphs.select(rows), beams, max_new_tokens, sampling)
            for row, answers in zip(rows, answered, strict=True):
                texts[row] = [Text(self._decode(a.tokens), a.score, a.ended) for a in answers]

        advice = "fewer --beams or --max-tokens"
        compute_in_batches(answer, order, size, self.device, work="answering rows", one="one row", advice=advice)
        return texts

    def _decode(self, ids: list[int]) -> str:
        # No clean-up of spaces: it is for English, and SMILES have full stops.
        return self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False).strip()

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of questions."""
        return token_ids(self.tokenizer, list(texts))

    @torch.no_grad()
    def _answer(
        self, ids: list[list[int]], graphs: Graphs, beams: int, limit: int, sampling: dict[str, Any]
    ) -> list[list[Answer]]:
        decoder, device, dtype = self.model.decoder, self.device, training_dtype(self.device)
        with torch.autocast(device.type, dtype, enabled=dtype == decoder.dtype != torch.float32):
            branch = self.model.branch(graphs.batch(device), len(ids))
        stop = [self.end]
        # In the type of the products: every step would convert it again.
        branch = replace(branch, a=branch.a.to(decoder.dtype), c=branch.c.to(decoder.dtype))
        if beams > 1:
            return beam_search(decoder, ids, branch=branch, beams=beams, max_new_tokens=limit, stop_ids=stop)
        wide = replace(branch, a=branch.a.expand(len(ids), -1, -1, -1))
        rows = self._captured_rows(ids, wide, limit) if sampling["temperature"] == 0 else None
        if rows is None:
            rows = generate_answers(decoder, ids, branch=wide, max_new_tokens=limit, stop_ids=stop, **sampling)
        return [[row] for row in rows]

    def _captured_rows(self, ids: list[list[int]], branch: Branch, limit: int) -> list[Answer] | None:
        """Greedy tokens by captured steps; None where there are none."""
        if self.captured is None:
            return None
        try:
            return self.captured.generate_answers(ids, branch=branch, max_new_tokens=limit, stop_ids=[self.end])
        except RuntimeError as error:
            warn_uncaptured("steps cannot be recorded", error)
            self.captured = None
            return None
