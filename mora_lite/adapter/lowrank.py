"""The low-rank branch beside a frozen part of a layer: each molecule's own factor A, then the shared C.

Its places, by their letters: q, k and v, the projections of attention, whose input is the residual stream after the
norm; o, the output projection, whose input is the heads' results side by side; m, the whole feed-forward block.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from torch import Tensor

from ..errors import PackError

PLACES = "qkvom"


@dataclass(frozen=True)
class Branch:
    """What the molecules of a batch bring to the decoder: low-rank weights for K layers, and maybe soft tokens.

    a: [B, K, I, R], generated, one set for each row; or [1, K, I, R], one for all rows. c: [K, R, O], learned,
    shared. I and O: the inputs and outputs of all places, one place after the other; both are D for "m" alone.
    scale: alpha / R. positions: "all" tokens of a row, or only its "last" real one (the answer position), for "m".
    places: letters of `PLACES`, in that order. layers: K numbers of layers, rising; empty for the uppermost ones.
    soft: [B, N, D], as embeddings before the first token of each row; None for none.
    """

    a: Tensor
    c: Tensor
    scale: float
    positions: Literal["all", "last"] = "all"
    places: str = "m"
    layers: tuple[int, ...] = ()
    soft: Tensor | None = None

    def __post_init__(self) -> None:
        assert self.positions == "all" or self.places == "m", "the last position alone is for m alone"

    @property
    def n_soft(self) -> int:
        """Soft tokens of each row, which take room in a cache."""
        return 0 if self.soft is None else self.soft.shape[1]

    def by_layer(self, n_layers: int, widths: Mapping[str, tuple[int, int]]) -> list[LayerBranch | None]:
        """The weights of each of a decoder's layers; None where a layer has none.

        widths: input and output of each place. All is taken apart at once: the gradient of K separate selections would
        be K tensors of the size of all of them.
        """
        layers = self.layers or range(n_layers - self.a.shape[1], n_layers)
        ins, outs = ([widths[place][i] for place in self.places] for i in (0, 1))
        found: list[LayerBranch | None] = [None] * n_layers
        for layer, a, c in zip(layers, self.a.unbind(1), self.c.unbind(0), strict=True):
            pairs = zip(a.split(ins, 1), c.split(outs, 1), strict=True)
            found[layer] = LayerBranch(dict(zip(self.places, pairs, strict=True)), self.scale, self.positions)
        return found


@dataclass(frozen=True)
class LayerBranch:
    """The low-rank weights of one layer. factors: for each of its places a [B or 1, D_in, R] and c [R, D_out]."""

    factors: dict[str, tuple[Tensor, Tensor]]
    scale: float
    positions: Literal["all", "last"] = "all"

    def add(self, place: str, x: Tensor, y: Tensor) -> Tensor:
        """y, with what the branch at `place` makes of x added where there is one.

        x: [B, T, D_in], y: [B, T, D_out]; or both without T, for one token of each row.
        """
        if place not in self.factors:
            return y
        a, c = self.factors[place]
        if x.dim() == 2:
            return y + lowrank_branch(x[:, None], a, c, self.scale)[:, 0]
        return y + lowrank_branch(x, a, c, self.scale)


def lowrank_branch(x: Tensor, a: Tensor, c: Tensor, scale: float) -> Tensor:
    """What the branch adds to the output beside it: [B, T, D_out], in x's dtype.

    x: [B, T, D_in]. a: [B, D_in, R], or [1, D_in, R], one for all rows. c: [R, D_out].
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


@dataclass(frozen=True)
class AdapterConfig:
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
        self._normalize_modules()
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

    def _normalize_modules(self) -> None:
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
