"""Beam search: the likeliest answers of each row, each row with its own adapter, over one key/value cache.

Rows do not influence each other. An answer's score is the sum of its tokens' log-probabilities, that of its end
included; longer answers get no bonus. Every end that a beam could take at once is looked at, also where the beam's
likelier tokens go on.

The beams of a row are tokens of one sequence, each of which sees its own past alone: what beams have in common is kept
and read once, the row's adapter too, and nothing moves when a beam takes another's place.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..adapter.lowrank import Branch
from .decoder import Decoder, DecodeStep, KVCache
from .generation import Answer, check_ids, pad_left

STEPS = 16  # tokens of every beam that find room in the cache before what no beam sees any more is taken out


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


class _Tree:
    """The tokens of all open beams of B rows, in S slots of a cache.

    seen: bool `[B, beams, S]`, the slots of each beam's own past; of one beam after the prompt.
    position: int64 `[B, S]`, of each slot's token in its beam. next: int64 `[B, 1]`, of the tokens to come.
    """

    def __init__(self, decoder: Decoder, ids: Sequence[Sequence[int]], branch: Branch | None, beams: int):
        tokens, real = pad_left(ids, decoder.embedding.device)
        n_soft = branch.n_soft if branch is not None else 0
        self.decoder, self.branch, self.beams = decoder, branch, beams
        self.cache = KVCache(decoder, len(ids), n_soft + tokens.shape[1] + STEPS * beams)
        hidden = decoder.hidden(tokens, real=real, cache=self.cache, branch=branch)
        self.first_scores = decoder.head(hidden[:, -1:]).log_softmax(-1)  # as of `extend`, of one beam
        self.seen = self.cache.real[:, None, : self.cache.used]
        self.position = self.seen[:, 0].cumsum(1) - 1
        self.next = self.position[:, -1:] + 1

    def extend(self, origin: Tensor, token: Tensor) -> Tensor:
        """Go on with these tokens of the beams `origin`, both int64 `[B, beams]`.

        Returns the logarithms of the next token's probabilities, float32 `[B, beams, vocabulary]`.
        """
        self.seen = self.seen.gather(1, origin[..., None].expand(-1, -1, self.seen.shape[2]))
        if self.cache.used + self.beams > self.cache.keys.shape[3]:
            self._clear()
        rows, start = len(token), self.cache.used
        itself = torch.eye(self.beams, dtype=torch.bool, device=token.device).expand(rows, -1, -1)
        at = self.next.expand(-1, self.beams)
        self.seen, self.position = torch.cat([self.seen, itself], 2), torch.cat([self.position, at], 1)
        masks: dict[int, Tensor | None] = {
            window: (self.seen & (self.position > self.next - window)[:, None] if window else self.seen)[:, None]
            for window in set(self.decoder.sizes.windows)
        }
        cos, sin = self.decoder.rotary(at)
        step = DecodeStep(cos, sin, masks, torch.ones_like(at, dtype=torch.bool), self.cache, start)
        self.cache.used, self.next = start + self.beams, self.next + 1
        hidden = self.decoder.norm(self.decoder.run(self.decoder.embed(token), step, self.branch))
        return self.decoder.head(hidden).log_softmax(-1)

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows alone. rows: int64 `[R]`."""
        self.cache.take(rows)
        self.seen, self.position, self.next = self.seen[rows], self.position[rows], self.next[rows]
        if self.branch is not None and self.branch.a.shape[0] > 1:
            self.branch = replace(self.branch, a=self.branch.a[rows])

    def _clear(self) -> None:
        """Take the slots out that no beam sees, and make room for more."""
        needed = self.seen.any(1)
        slots = (~needed).int().argsort(dim=1, stable=True)[:, : int(needed.sum(1).max())]
        self.cache.select(slots, slots.shape[1] + STEPS * self.beams)
        self.seen = self.seen.gather(2, slots[:, None].expand(-1, self.seen.shape[1], -1))
        self.position = self.position.gather(1, slots)


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
    assert min(beams, max_new_tokens) >= 1, f"got {beams} beams and {max_new_tokens} tokens"
    n, device = len(ids), decoder.embedding.device
    assert branch is None or (branch.a.shape[0] in (1, n) and branch.positions == "all"), "no branch of these rows"
    tree, stops = _Tree(decoder, ids, branch, beams), sorted(stop_ids)
    answers = [_BestAnswers(beams) for _ in range(n)]
    open_rows = list(range(n))  # rows with open beams, in the order in which the tree holds them
    texts: list[list[list[int]]] = [[[]] for _ in range(n)]  # of each row's beams; all begin as one
    scores = tree.first_scores
    for step in range(max_new_tokens):
        last = step == max_new_tokens - 1
        best, origin, token = _continue(scores, beams, stops, answers, open_rows, texts, last)
        continued = [i for i, row in enumerate(open_rows) if not last and not answers[row].is_final(float(best[i, 0]))]
        if not continued:
            break
        for i in continued:
            row = open_rows[i]
            texts[row] = [[*texts[row][o], t] for o, t in zip(origin[i].tolist(), token[i].tolist(), strict=True)]
        if len(continued) < len(open_rows):
            at = torch.tensor(continued, device=device)
            tree.keep(at)
            best, origin, token = best[at], origin[at], token[at]
            open_rows = [open_rows[i] for i in continued]
        scores = tree.extend(origin, token).add_(best[:, :, None])
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
    """Take ended answers out of `scores`, and choose the beams that go on: score, origin, token, `[B, beams]` each."""
    size = scores.shape[2]
    for stop in stops:
        for i, ended in enumerate(scores[:, :, stop].tolist()):
            for o, score in enumerate(ended):
                if score > -torch.inf:
                    answers[open_rows[i]].add(Answer(texts[open_rows[i]][o], score, True))
    if stops:
        scores[:, :, stops] = -torch.inf
    best, index = scores.flatten(1).topk(min(beams, scores[0].numel()), dim=1)
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
