"""Beam search: the likeliest answers of each row, each row with its own adapter, over one key/value cache.

Rows do not influence each other. An answer's score is the sum of its tokens' log-probabilities, that of its end
included; longer answers get no bonus. Every end that a beam could take at once is looked at, also where the beam's
likelier tokens go on.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..adapter.lowrank import Branch
from ..errors import InputError
from .decoder import Decoder, KVCache
from .generation import Answer, check_ids, pad_left


class _BestAnswers:
    """The best answers of one row so far."""

    def __init__(self, n: int):
        self.n = n
        self.answers: list[Answer] = []

    def add(self, answer: Answer) -> None:
        self.answers = sorted([*self.answers, answer], key=lambda a: -a.score)[: self.n]

    def is_final(self, best_open: float) -> bool:
        """Whether no open beam can enter: scores only fall as an answer grows."""
        return len(self.answers) == self.n and self.answers[-1].score >= best_open


@torch.no_grad()
def beam_search(
    decoder: Decoder,
    ids: Sequence[Sequence[int]],
    *,
    branch: Branch | None = None,
    beams: int = 5,
    max_new_tokens: int = 128,
    stop_ids: Collection[int] = (),
) -> list[list[Answer]]:
    """Up to `beams` answers of each row, the likeliest first. Arguments as of `generation.generate`."""
    check_ids(decoder, ids)
    if beams < 1 or max_new_tokens < 1:
        raise InputError(f"beams and max_new_tokens: got {beams} and {max_new_tokens}, expected 1 or more")
    n, device = len(ids), decoder.embedding.device
    assert branch is None or branch.a.shape[0] in (1, n), "the branch has another number of rows"
    tokens, real = pad_left(ids, device)
    n_soft = branch.n_soft if branch is not None else 0
    cache = KVCache(decoder, n, n_soft + tokens.shape[1] + max_new_tokens)
    hidden = decoder.hidden(tokens, real=real, cache=cache, branch=branch)[:, -1]
    scores = decoder.head(hidden).log_softmax(-1)[:, None]  # [B, 1, vocabulary]: all beams of a row begin as one
    stops = sorted(stop_ids)
    answers = [_BestAnswers(beams) for _ in range(n)]
    open_rows = list(range(n))  # rows with open beams, in the order in which the cache holds them
    texts: list[list[list[int]]] = [[[]] for _ in range(n)]
    wide = branch
    for step in range(max_new_tokens):
        best, origin, token = _continue(scores, beams, stops, answers, open_rows, texts, step == max_new_tokens - 1)
        continued = [
            i
            for i, row in enumerate(open_rows)
            if step < max_new_tokens - 1 and not answers[row].is_final(float(best[i, 0]))
        ]
        if not continued:
            break
        at = torch.tensor(continued, device=device)
        lines = (at[:, None] * scores.shape[1] + origin[at]).flatten()
        cache.take(lines)
        if wide is not None and wide.a.shape[0] > 1:
            wide = replace(wide, a=wide.a[lines])
        for i in continued:
            row = open_rows[i]
            texts[row] = [[*texts[row][o], t] for o, t in zip(origin[i].tolist(), token[i].tolist(), strict=True)]
        open_rows = [open_rows[i] for i in continued]
        hidden = decoder.hidden(token[at].flatten()[:, None], cache=cache, branch=wide)[:, -1]
        step_scores = decoder.head(hidden).log_softmax(-1).unflatten(0, (len(continued), beams))
        scores = best[at][:, :, None] + step_scores
    return [row.answers for row in answers]


def _continue(
    scores: Tensor,
    beams: int,
    stops: list[int],
    answers: list[_BestAnswers],
    open_rows: list[int],
    texts: list[list[list[int]]],
    last: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Take ended answers out, and choose the beams that continue: score, origin and token, `[B, beams]` each."""
    size = scores.shape[2]
    for stop in stops:
        for i, ended in enumerate(scores[:, :, stop].tolist()):
            for o, score in enumerate(ended):
                if score > -torch.inf:
                    answers[open_rows[i]].add(Answer(texts[open_rows[i]][o], score, True))
    going = scores.clone()
    if stops:
        going[:, :, stops] = -torch.inf
    best, index = going.flatten(1).topk(min(beams, going[0].numel()), dim=1)
    if best.shape[1] < beams:  # a vocabulary smaller than the number of beams
        missing = beams - best.shape[1]
        best = torch.cat([best, best.new_full((len(best), missing), -torch.inf)], 1)
        index = torch.cat([index, index[:, :1].expand(-1, missing)], 1)
    origin, token = index // size, index % size
    if last:
        for i, row in enumerate(open_rows):
            for score, o, t in zip(best[i].tolist(), origin[i].tolist(), token[i].tolist(), strict=True):
                if score > -torch.inf:
                    answers[row].add(Answer([*texts[row][o], t], score, False))
    return best, origin, token
