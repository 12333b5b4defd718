"""`Scorer.forward` for prediction: the same numbers with a fraction of the operations.

The plain reference is `scorer.Scorer`; tests prove the two equal in float32, and near in bfloat16.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType

import torch
from torch import Tensor

from ..chem.graph import Graphs
from ..machine.device import with_kernels
from ..scoring.scorer import Scorer
from . import graph_ops
from .batch import SortedBatch
from .encoder import ShortEncoder
from .hypernet import ShortHypernet
from .linear import Product
from .upper import ShortUpper, covers


def can_run(scorer: Scorer) -> bool:
    """Whether `ShortScorer` covers it: dequantised upper layers without biases or norms of queries and keys."""
    return covers(scorer.upper)


def choose_ops(device: torch.device) -> ModuleType:
    """`graph_ops_triton` on CUDA devices where Triton works, else `graph_ops`."""
    return with_kernels(graph_ops, f"{__package__}.graph_ops_triton", device) if device.type == "cuda" else graph_ops


def _untimed(stage: str) -> AbstractContextManager[None]:
    return nullcontext()


class ShortScorer:
    """Frozen: later changes of the scorer's weights are not seen. ops: `graph_ops` or `graph_ops_triton`."""

    def __init__(self, scorer: Scorer, dtype: torch.dtype, ops: ModuleType = graph_ops):
        with torch.no_grad():
            self.encoder = ShortEncoder(scorer.encoder, dtype, ops)
            self.hypernet = ShortHypernet(scorer.hypernet, dtype, ops)
            self.upper = ShortUpper(scorer, dtype)
            self.direct: tuple[Product, Product] | None = None
            if scorer.direct is not None:
                first = Product.of(scorer.direct.hidden, dtype, "gelu")
                self.direct = first, Product(scorer.direct.weight, None, dtype)

    @torch.inference_mode()
    def __call__(self, graphs: Graphs, timed: Callable[[str], AbstractContextManager[None]] = _untimed) -> Tensor:
        """z-scores float32 `[B, P]`. Molecules of about one size are fastest: all are padded to the largest.

        timed: wraps each stage, by its name.
        """
        with timed("graphs"):
            batch = SortedBatch.of(graphs)
        return self.run(batch, timed)

    def run(self, batch: SortedBatch, timed: Callable[[str], AbstractContextManager[None]] = _untimed) -> Tensor:
        """The same of a batch that is ready, on the scorer's device."""
        with timed("encoder"):
            atoms, molecules = self.encoder(batch)
        with timed("hypernetwork"):
            states = self.hypernet(atoms, molecules, batch)
        with timed("decoder"):
            return self.read_out(states, molecules)

    def read_out(self, states: Tensor, molecules: Tensor) -> Tensor:
        """States of the hypernetwork and molecule tokens -> z-scores."""
        scores = self.upper(states)
        if self.direct is not None:
            first, last = self.direct
            scores = scores + last(first(molecules))
        return scores
