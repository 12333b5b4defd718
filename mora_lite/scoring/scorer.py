"""The scorer: graph -> encoder -> hypernetwork -> low-rank weights -> frozen upper layers -> read-out.

`PlainScorer` is the reference among the engines, each of which has `batch_size`, `fixed_size` (whether a batch of
another size is worse, whatever the user asks for) and `z_scores`; the others are in `fast/`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ..adapter.encoder import EncoderBaseline, GraphEncoder
from ..adapter.hypernet import Hypernet, Tokens
from ..adapter.lowrank import AdapterConfig
from ..chem.featurizer import Featurizer
from ..chem.graph import GraphBatch, Graphs, concatenate
from ..lm.prefix import CompiledPrompts, UpperLayers

BATCH_SIZE = {"cpu": 512, "cuda": 4096}  # molecules
# On a CPU batches are filled up with one-atom molecules to a multiple of this: matrix libraries choose another order of
# adding for a few rows than for many (docs/method.md).
FILL = 256

Timer = Callable[[str], AbstractContextManager[None]]  # what a stage runs in, by the stage's name


class DirectReadout(nn.Module):
    """Molecule token -> MLP -> z-scores, past the language model, which then adds to what the encoder knows."""

    def __init__(self, token_width: int, width: int, n_prompts: int):
        super().__init__()
        self.hidden = nn.Linear(token_width, width)
        self.weight = nn.Parameter(torch.zeros(n_prompts, width))

    def forward(self, molecules: Tensor) -> Tensor:
        """`[B, H]` -> float32 `[B, P]`. Product and sum for the reason that `Scorer.read_out` has."""
        hidden = nn.functional.gelu(self.hidden(molecules)).float()
        return (hidden.unsqueeze(1) * self.weight).sum(-1)


class Scorer(nn.Module):
    """Molecules -> z-scores for `P` prompts.

    Trained: encoder, hypernetwork, `c`, read-outs. Frozen: the upper layers.
    """

    def __init__(self, sizes: AdapterConfig, upper: UpperLayers, prompts: CompiledPrompts):
        super().__init__()
        sizes.check_for_scores()
        n_prompts, width = prompts.attended.shape
        assert upper.k == sizes.adapted_layers == len(prompts.keys) + 1, "prompts of other adapted layers"
        assert upper.sizes.width == width, "prompts of another width"
        self.sizes = sizes
        self.upper = upper
        self.prompts = prompts
        self.encoder = GraphEncoder(sizes.encoder_width, sizes.encoder_layers)
        self.hypernet = Hypernet(
            sizes.encoder_width, sizes.adapted_layers, width, sizes.rank, sizes.hypernet_width, sizes.hypernet_blocks
        )
        # Zero, so that training starts from the base model.
        self.c = nn.Parameter(torch.zeros(sizes.adapted_layers, sizes.rank, width))
        # Large enough that C, which starts at zero, has a gradient from the first step.
        self.readout = nn.Parameter(torch.randn(n_prompts, width) * width**-0.5)
        self.offset = nn.Parameter(torch.zeros(n_prompts))
        self.direct = None
        if sizes.direct_width:
            self.direct = DirectReadout(sizes.encoder_width, sizes.direct_width, n_prompts)
        # What scores while training: this function, or the same one compiled.
        self.training_score: Callable[..., Tensor] = upper.score

    @property
    def scale(self) -> float:
        """The factor of the branch, alpha / R."""
        return self.sizes.alpha / self.sizes.rank

    def encode(self, batch: GraphBatch) -> Tokens:
        """The tokens of each molecule."""
        atoms, molecules = self.encoder(
            batch.atoms, batch.bonds, batch.source, batch.target, batch.graph, batch.n_graphs
        )
        return Tokens(atoms, molecules, batch.graph)

    def read_out(self, hidden: Tensor, molecules: Tensor) -> Tensor:
        """Final hidden states float32 `[B, P, D]` and molecule tokens `[B, H]` -> z-scores `[B, P]`.

        Written as product and sum: a matrix product with one column adds in an order that depends on the batch.
        """
        scores = (hidden * self.readout).sum(-1) + self.offset
        return scores if self.direct is None else scores + self.direct(molecules)

    def forward(self, batch: GraphBatch) -> Tensor:
        """-> z-scores float32 `[B, P]`."""
        score = self.training_score if self.training else self.upper.score
        tokens = self.encode(batch)
        hidden = score(self.prompts, self.hypernet(tokens), self.c, self.scale)
        return self.read_out(hidden, tokens.molecules)

    def select(self, prompts: list[int]) -> None:
        """Keep only these prompts, in this order."""
        self.prompts = self.prompts.select(prompts)
        self.readout = nn.Parameter(self.readout.detach()[prompts])
        self.offset = nn.Parameter(self.offset.detach()[prompts])
        if self.direct is not None:
            self.direct.weight = nn.Parameter(self.direct.weight.detach()[prompts])

    def trained(self) -> dict[str, Tensor]:
        """What training changes, by name; the rest comes from the base model."""
        return {name: p.detach() for name, p in self.named_parameters() if not name.startswith("upper.")}

    def start_from(self, baseline: EncoderBaseline) -> None:
        """Take over a trained encoder, and an offset that makes the untrained language model add 0.

        With a direct read-out the scorer then answers as the baseline does, without one the mean.
        """
        self.encoder.load_state_dict(baseline.encoder.state_dict())
        with torch.no_grad():
            a = torch.zeros(1, self.sizes.adapted_layers, self.readout.shape[1], self.sizes.rank)
            hidden = self.upper.score(self.prompts, a.to(self.c.device), self.c, self.scale)
            self.offset.copy_(-(hidden[0] * self.readout).sum(-1))
            if self.direct is not None:
                first, _, last = baseline.head
                assert isinstance(first, nn.Linear)
                assert isinstance(last, nn.Linear)
                assert len(first.weight) == self.sizes.direct_width, "not the width of the baseline's head"
                self.direct.hidden.load_state_dict(first.state_dict())
                self.direct.weight.copy_(last.weight)
                self.offset.add_(last.bias)

    def _apply(self, fn: Any, recurse: bool = True) -> Scorer:
        super()._apply(fn, recurse)
        probe = fn(torch.zeros(()))  # the prompts are not parameters, but must follow the device
        self.prompts = self.prompts.to(probe.device)
        return self


class Engine(Protocol):
    """What computes the values of a loaded pack."""

    batch_size: int
    fixed_size: bool

    def z_scores(self, graphs: Graphs, timed: Timer = ...) -> np.ndarray:
        """float32 `[B, P]`. timed: wraps each stage, by its name."""

    def batch(self, graphs: Graphs) -> Any:
        """The molecules on the device, in the engine's form."""

    def run(self, batch: Any, timed: Timer = ...) -> Tensor:
        """The work of `z_scores` on a batch of that form, stage by stage."""


def untimed(stage: str) -> AbstractContextManager[None]:
    return nullcontext()


@functools.cache
def _methane() -> Graphs:
    # By RDKit: for one molecule the native reader's probes are not worth their 50 milliseconds.
    featurizer = Featurizer()
    return featurizer.graphs([featurizer.parse_smiles("C").mol])


def fillers(n: int) -> Graphs:
    """`n` molecules of one atom, to fill up a batch."""
    return _methane().select(np.zeros(n, np.int64))


class PlainScorer:
    """`Scorer` as an engine, with matrix products in `dtype` by autocast."""

    fixed_size = False

    def __init__(self, scorer: Scorer, dtype: torch.dtype):
        self.scorer, self.dtype, self.device = scorer, dtype, scorer.c.device
        self.batch_size = BATCH_SIZE[self.device.type]

    def z_scores(self, graphs: Graphs, timed: Timer = untimed) -> np.ndarray:
        """See `Engine`."""
        with timed("graphs"):
            missing = -len(graphs) % FILL if len(graphs) >= FILL or self.device.type == "cpu" else 0
            filled = concatenate([graphs, fillers(missing)]) if missing else graphs
            batch = filled.batch().rounded().to(self.device)
        with torch.inference_mode():
            return self.run(batch, timed)[: len(graphs)].float().cpu().numpy()

    def batch(self, graphs: Graphs) -> GraphBatch:
        """See `Engine`."""
        return graphs.batch().to(self.device)

    def run(self, batch: GraphBatch, timed: Timer = untimed) -> Tensor:
        """`Scorer.forward`, stage by stage."""
        scorer = self.scorer
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            with timed("encoder"):
                tokens = scorer.encode(batch)
            with timed("hypernetwork"):
                a = scorer.hypernet(tokens)
            with timed("decoder"):
                hidden = scorer.upper.score(scorer.prompts, a, scorer.c, scorer.scale)
                return scorer.read_out(hidden, tokens.molecules)
