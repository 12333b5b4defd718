"""What the encoder is pre-trained to predict: RDKit's 2D descriptors and a Morgan fingerprint, from the graph alone.

They cost nothing to label with and cover size, polarity, charge distribution, shape of the skeleton, rings and
functional groups. No measured value is among them (some, such as Crippen's logP, are sums of atom contributions that
were fitted to measurements), so no test molecule's label leaks into the encoder. The idea is
that of CheMeleon (arXiv 2506.15792), which regresses Mordred descriptors.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from rdkit import Chem
from rdkit.Chem import rdMolDescriptors as descriptors

from .domain import fingerprints

RARE = 0.01  # bits that fewer (or all but fewer) molecules have teach little and are left out
FARTHEST = 6.0  # deviations; descriptors have long tails


@functools.cache
def _calculators() -> list[Callable[[Chem.Mol], Iterable[Any]]]:
    from rdkit.Chem import Descriptors  # slow to import

    groups = [f for name, f in Descriptors._descList if name.startswith("fr_")]
    properties = descriptors.Properties()
    return [
        properties.ComputeProperties,
        descriptors.MQNs_,
        descriptors.CalcAUTOCORR2D,
        descriptors.PEOE_VSA_,
        descriptors.SMR_VSA_,
        descriptors.SlogP_VSA_,
        descriptors.BCUT2D,
        lambda mol: [f(mol) for f in groups],
    ]


def describe(mol: Chem.Mol) -> tuple[np.ndarray, np.ndarray]:
    """Descriptors float32 `[n]`, NaN where one cannot be had (BCUT of some elements); bits bool `[1024]`."""
    values: list[float] = []
    for calculate in _calculators():
        try:
            values += calculate(mol)
        except (ValueError, RuntimeError):
            values += [np.nan] * _lengths()[calculate]
    numbers = np.array(values, dtype=np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        numbers = np.where(np.abs(numbers) < 1e9, numbers, np.nan).astype(np.float32)
    return numbers, np.unpackbits(fingerprints([mol])[0]).astype(bool)


@functools.cache
def _lengths() -> dict[Any, int]:
    aspirin = Chem.MolFromSmiles("CC(=O)Oc1ccccc1C(=O)O")
    return {calculate: len(list(calculate(aspirin))) for calculate in _calculators()}


@dataclass(frozen=True)
class Targets:
    """values: float32 `[N, P]`: z-scores of descriptors, then bits as 0 and 1. classes: bool `[P]`, True for bits."""

    values: np.ndarray
    classes: np.ndarray


def make_targets(numbers: np.ndarray, bits: np.ndarray) -> Targets:
    """Targets of a library out of the rows of `describe`; constant descriptors and rare bits are left out."""
    numbers = numbers[:, ~np.isnan(numbers).all(axis=0)]
    low, high = np.nanpercentile(numbers, [0.1, 99.9], axis=0)
    clipped = np.clip(numbers, low, high)
    mean, deviation = np.nanmean(clipped, axis=0, dtype=np.float64), np.nanstd(clipped, axis=0, dtype=np.float64)
    varied = deviation > 1e-6 * np.maximum(1, np.abs(mean))
    z = ((clipped - mean)[:, varied] / deviation[varied]).clip(-FARTHEST, FARTHEST)
    share = bits.mean(axis=0)
    told = (share > RARE) & (share < 1 - RARE)
    values = np.concatenate([z.astype(np.float32), bits[:, told].astype(np.float32)], axis=1)
    return Targets(values, np.repeat([False, True], [int(varied.sum()), int(told.sum())]))
