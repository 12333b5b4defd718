"""The low-rank branch beside a frozen feed-forward block: each molecule's own factor A, then the shared C."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor


@dataclass(frozen=True)
class Branch:
    """Low-rank weights of a batch for the K uppermost layers.

    a: [B, K, D, R], generated, one set for each row; or [1, K, D, R], one for all rows. c: [K, R, D], learned,
    shared. scale: alpha / R.
    positions: "all" tokens of a row, or only its "last" real one (the answer position).
    """

    a: Tensor
    c: Tensor
    scale: float
    positions: Literal["all", "last"] = "all"

    def by_layer(self) -> list[Branch]:
        """One branch (K = 1) for each adapted layer.

        Taken apart at once: the gradient of K separate selections would be K tensors of the size of all of them.
        """
        parts = zip(self.a.unbind(1), self.c.unbind(0), strict=True)
        return [Branch(a.unsqueeze(1), c.unsqueeze(0), self.scale, self.positions) for a, c in parts]


def lowrank_branch(x: Tensor, a: Tensor, c: Tensor, scale: float) -> Tensor:
    """What the branch adds to the feed-forward output: [B, T, D], in x's dtype.

    x: [B, T, D], after the norm. a: [B, D, R], or [1, D, R], one for all rows. c: [R, D].
    Semantics: y[b] = scale * (x[b] @ a[b]) @ c
    """
    if a.shape[0] == 1 < x.shape[0]:
        a = a[0]  # one product of all rows, where a batched one would repeat the factor
    return (x @ a.to(x.dtype) * scale) @ c.to(x.dtype)


def shared_lowrank_branch(x: Tensor, a: Tensor, c: Tensor, scale: float) -> Tensor:
    """The branch where all molecules have one input, the first adapted layer of compiled prompts: [B, P, D].

    x: [P, D], after the norm. a: [B, D, R]. c: [R, D].
    Semantics: y[b] = scale * (x @ a[b]) @ c
    """
    return (x.expand(a.shape[0], *x.shape) @ a.to(x.dtype) * scale) @ c.to(x.dtype)
