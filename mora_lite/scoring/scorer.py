"""The scorer: graph -> encoder -> hypernetwork -> low-rank weights -> frozen upper layers -> read-out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..adapter.baseline import EncoderBaseline
from ..adapter.encoder import GraphEncoder
from ..adapter.hypernet import Hypernet, Tokens
from ..adapter.lowrank import PLACES
from ..chem.graph import GraphBatch
from ..errors import PackError
from ..lm.prefix import PromptBase, UpperLayers


@dataclass(frozen=True)
class AdapterSizes:
    """What defines the trained part of a pack. alpha: the branch is scaled by alpha / rank.

    direct_width: hidden width of the read-out that goes from the molecule token past the language model; 0 for none.
    places: letters of `lowrank.PLACES`, where a layer has branches. layers: the numbers of the adapted layers, counted
    from 0 at the bottom, as many as adapted_layers; empty for the uppermost ones. Text models alone have other places
    than m, and chosen layers.
    """

    encoder_width: int = 256
    encoder_layers: int = 4
    hypernet_width: int = 256
    hypernet_blocks: int = 2
    adapted_layers: int = 4
    rank: int = 8
    alpha: float = 16.0
    direct_width: int = 0
    places: str = "m"
    layers: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        self._settle_places()
        for name, value in asdict(self).items():
            if name in ("places", "layers"):
                continue
            least = "0 or more" if name == "direct_width" else "a number above 0"
            if not (value > 0 or (value == 0 and name == "direct_width")):
                raise PackError(f"{name}: got {value}, expected {least}")
        if self.direct_width not in (0, 2 * self.encoder_width):
            raise PackError(
                f"direct_width: got {self.direct_width}, expected 0 or {2 * self.encoder_width}, twice encoder_width"
            )
        if self.hypernet_width % 8:
            raise PackError(f"hypernet_width: got {self.hypernet_width}, expected a multiple of 8 (its heads)")

    def _settle_places(self) -> None:
        """Checks places and layers and puts them in order: lists, as JSON and TOML have them, become tuples."""
        places = str(self.places)
        if not places or len(set(places)) < len(places) or not set(places) <= set(PLACES):
            raise PackError(f"places: got {places!r}, expected some of the letters {PLACES}, each once")
        numbers: list[Any] = list(self.layers)
        whole = all(isinstance(n, int) and n >= 0 for n in numbers)
        if not whole or len(set(numbers)) < len(numbers) or len(numbers) not in (0, self.adapted_layers):
            raise PackError(
                f"layers: got {numbers} for {self.adapted_layers} adapted layers, expected none or as many different "
                "numbers of layers, counted from 0"
            )
        object.__setattr__(self, "places", "".join(sorted(places, key=PLACES.index)))
        object.__setattr__(self, "layers", tuple(sorted(numbers)))

    def check_for_scores(self) -> None:
        """Raises `PackError` where places or layers are not those of a scorer, whose compiled prompts need it so."""
        if self.places != "m" or self.layers:
            layers = f" in layers {', '.join(map(str, self.layers))}" if self.layers else ""
            raise PackError(
                f"adapter: got places {self.places!r}{layers}, expected 'm' in the uppermost layers: other places and "
                "layers are for answers in text"
            )

    def as_dict(self) -> dict[str, Any]:
        """Plain types for JSON; places and layers only where they are not the usual ones."""
        usual = (("places", "m"), ("layers", ()))
        return {name: value for name, value in asdict(self).items() if (name, value) not in usual}


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

    def __init__(self, sizes: AdapterSizes, upper: UpperLayers, prompts: PromptBase):
        super().__init__()
        sizes.check_for_scores()
        n_prompts, width = prompts.attended.shape
        self.sizes = sizes
        self.upper = upper
        self.prompts = prompts
        self.encoder = GraphEncoder(sizes.encoder_width, sizes.encoder_layers)
        self.hypernet = Hypernet(
            sizes.encoder_width,
            sizes.adapted_layers,
            width,
            sizes.rank,
            sizes.hypernet_width,
            sizes.hypernet_blocks,
        )
        # Zero, so that training starts from the base model.
        self.c = nn.Parameter(torch.zeros(sizes.adapted_layers, sizes.rank, width))
        # Large enough that C, which starts at zero, has a gradient from the first step.
        self.readout = nn.Parameter(torch.randn(n_prompts, width) * width**-0.5)
        self.offset = nn.Parameter(torch.zeros(n_prompts))
        self.direct = None
        if sizes.direct_width:
            self.direct = DirectReadout(sizes.encoder_width, sizes.direct_width, n_prompts)
        # Stands in for `upper.score` while training, when set: the same function, compiled.
        self.compiled_score: Callable[..., Tensor] | None = None

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
        score = self.compiled_score if self.training and self.compiled_score else self.upper.score
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
