"""The low-rank branch beside a frozen module of a layer: each molecule's factor A, then the shared C.

The target modules: q, k and v, the projections of attention, whose input is the residual stream after the norm; o, the
output projection, whose input is the heads' results side by side; ffn, the whole feed-forward block.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from torch import Tensor

from ..errors import PackError
from .hypernet import HEADS

TARGET_MODULES = ("q", "k", "v", "o", "ffn")
LETTERS = "qkvom"  # of the same modules, as the manifests of packs have them


@dataclass(frozen=True)
class Branch:
    """What the molecules of a batch bring to the decoder: low-rank weights for K layers, and maybe soft tokens.

    Below, I and O are the inputs and outputs of all target modules, one after the other; both are D for ffn alone.
    a: `[B, K, I, R]`, generated, one set for each row; or `[1, K, I, R]`, one for all rows.
    c: `[K, R, O]`, learned, shared.
    scale: alpha / R.
    positions: "all" tokens of a row, or only its "last" real one (the answer position), which is for ffn alone.
    target_modules: some of `TARGET_MODULES`, in that order.
    layers: K numbers of layers, rising; empty for the uppermost ones.
    soft: `[B, N, D]`, as embeddings before the first token of each row; None for none.
    """

    a: Tensor
    c: Tensor
    scale: float
    positions: Literal["all", "last"] = "all"
    target_modules: tuple[str, ...] = ("ffn",)
    layers: tuple[int, ...] = ()
    soft: Tensor | None = None

    def __post_init__(self) -> None:
        assert self.positions == "all" or self.target_modules == ("ffn",), "the last position alone is for ffn alone"

    @property
    def n_soft(self) -> int:
        """Soft tokens of each row, which take capacity in a cache."""
        return 0 if self.soft is None else self.soft.shape[1]

    def by_layer(self, n_layers: int, widths: Mapping[str, tuple[int, int]]) -> list[LayerBranch | None]:
        """The weights of each of a decoder's layers; None where a layer has none.

        widths: input and output of each module. All is taken apart at once: the gradient of K separate selections would
        be K tensors of the size of all of them.
        """
        layers = self.layers or range(n_layers - self.a.shape[1], n_layers)
        ins, outs = ([widths[module][i] for module in self.target_modules] for i in (0, 1))
        branches: list[LayerBranch | None] = [None] * n_layers
        for layer, a, c in zip(layers, self.a.unbind(1), self.c.unbind(0), strict=True):
            pairs = zip(a.split(ins, 1), c.split(outs, 1), strict=True)
            factors = dict(zip(self.target_modules, pairs, strict=True))
            branches[layer] = LayerBranch(factors, self.scale, self.positions)
        return branches


@dataclass(frozen=True)
class LayerBranch:
    """The low-rank weights of one layer. factors: for each target module a `[B or 1, D_in, R]` and c `[R, D_out]`."""

    factors: dict[str, tuple[Tensor, Tensor]]
    scale: float
    positions: Literal["all", "last"] = "all"

    def add(self, module: str, x: Tensor, y: Tensor) -> Tensor:
        """y, with what the branch at `module` makes of x added where there is one.

        x: `[B, T, D_in]`, y: `[B, T, D_out]`; or both without T, for one token of each row.
        """
        if module not in self.factors:
            return y
        a, c = self.factors[module]
        if x.dim() == 2:
            return y + lowrank_branch(x[:, None], a, c, self.scale)[:, 0]
        return y + lowrank_branch(x, a, c, self.scale)


def lowrank_branch(x: Tensor, a: Tensor, c: Tensor, scale: float) -> Tensor:
    """What the branch adds to the output beside it: `[B, T, D_out]`, in x's dtype.

    x: `[B, T, D_in]`. a: `[B, D_in, R]`, or `[1, D_in, R]`, one for all rows. c: `[R, D_out]`.
    Semantics: y[b] = scale * (x[b] @ a[b]) @ c
    """
    if a.shape[0] == 1 < x.shape[0]:
        a = a[0]  # one product of all rows, where a batched one would repeat the factor
    return (x @ a.to(x.dtype) * scale) @ c.to(x.dtype)


def shared_lowrank_branch(x: Tensor, a: Tensor, c: Tensor, scale: float) -> Tensor:
    """The branch where all molecules have one input, the first adapted layer of compiled prompts: `[B, P, D]`.

    x: `[P, D]`, after the norm. a: `[B, D, R]`. c: `[R, D]`.
    Semantics: y[b] = scale * (x @ a[b]) @ c
    """
    return (x.expand(a.shape[0], *x.shape) @ a.to(x.dtype) * scale) @ c.to(x.dtype)


@dataclass(frozen=True)
class AdapterConfig:
    """What defines the trained part of a pack. Text models alone have other target modules than ffn, and chosen layers.

    alpha: the branch is scaled by alpha / rank.
    direct_width: hidden width of the read-out that goes from the molecule token past the language model; 0 for none.
    target_modules: some of `TARGET_MODULES`, where a layer has branches.
    layers: the numbers of the adapted layers, counted from 0 at the bottom, as many as adapted_layers; empty for the
    uppermost ones.
    """

    encoder_width: int = 256
    encoder_layers: int = 4
    hypernet_width: int = 256
    hypernet_blocks: int = 2
    adapted_layers: int = 4
    rank: int = 8
    alpha: float = 16.0
    direct_width: int = 0
    target_modules: tuple[str, ...] = ("ffn",)
    layers: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        self._normalize_modules()
        for name, value in asdict(self).items():
            if name in ("target_modules", "layers"):
                continue
            least = "0 or more" if name == "direct_width" else "a finite number above 0"
            if not (0 < value < math.inf or (value == 0 and name == "direct_width")):
                raise PackError(f"{name}: got {value}, expected {least}")
        if self.direct_width not in (0, 2 * self.encoder_width):
            raise PackError(
                f"direct_width: got {self.direct_width}, expected 0 or {2 * self.encoder_width}, twice encoder_width"
            )
        if self.hypernet_width % HEADS:
            raise PackError(f"hypernet_width: got {self.hypernet_width}, expected a multiple of {HEADS} (its heads)")

    def _normalize_modules(self) -> None:
        """Check target modules and layers and put them in order: lists, as JSON and TOML have them, become tuples."""
        modules, numbers = list(self.target_modules), list(self.layers)
        if not modules or len(set(modules)) < len(modules) or not set(modules) <= set(TARGET_MODULES):
            raise PackError(
                f"target_modules: got {','.join(map(str, modules))!r}, expected some of {','.join(TARGET_MODULES)}, "
                "each once"
            )
        whole = all(isinstance(n, int) and n >= 0 for n in numbers)
        if not whole or len(set(numbers)) < len(numbers) or len(numbers) not in (0, self.adapted_layers):
            raise PackError(
                f"layers: got {numbers} for {self.adapted_layers} adapted layers, expected none or as many different "
                "numbers of layers, counted from 0"
            )
        object.__setattr__(self, "target_modules", tuple(sorted(modules, key=TARGET_MODULES.index)))
        object.__setattr__(self, "layers", tuple(sorted(numbers)))

    def check_for_scores(self) -> None:
        """Raise `PackError` where modules or layers are not those of a scorer, whose compiled prompts need it so."""
        if self.target_modules != ("ffn",) or self.layers:
            layers = f" in layers {', '.join(map(str, self.layers))}" if self.layers else ""
            raise PackError(
                f"adapter: got target modules {','.join(self.target_modules)}{layers}, expected ffn in the uppermost "
                "layers: other modules and layers are for answers in text"
            )

    def as_dict(self) -> dict[str, Any]:
        """Plain types for a manifest: the modules as letters called `places`; they and layers only where unusual."""
        letters = "".join(LETTERS[TARGET_MODULES.index(module)] for module in self.target_modules)
        written = {**asdict(self), "target_modules": letters}
        usual = (("target_modules", "m"), ("layers", ()))
        return {
            "places" if name == "target_modules" else name: value
            for name, value in written.items()
            if (name, value) not in usual
        }

    @classmethod
    def from_dict(cls, written: Mapping[str, Any]) -> AdapterConfig:
        """Read what `as_dict` has written, or a pack's manifest of any age."""
        sizes = dict(written)
        module_of = dict(zip(LETTERS, TARGET_MODULES, strict=True))
        letters = sizes.pop("places", "m")
        return cls(**sizes, target_modules=tuple(module_of.get(letter, letter) for letter in letters))
