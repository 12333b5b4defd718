"""Where a predicted value stands among those that the same model predicts for approved drugs.

The drugs are 1,381 molecules that the FDA has approved, from ClinTox of MoleculeNet. A model predicts them once; for
the pack `admet` that was done before, and what is kept is tied to the SHA-256 of the pack.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np

from ..errors import fitting

DRUGS = "approved_drugs.smi"  # the molecules, one on a line
KNOWN = "approved_drugs_{}.csv"  # percentiles of their predicted values, by the first 12 digits of the pack's SHA-256
PERCENTS = np.linspace(0, 100, 101)


@dataclass(frozen=True, eq=False)
class ApprovedDrugs:
    """The predicted values of the approved drugs for `P` tasks.

    names: of the tasks. percentiles: float64 `[P, 101]`, the 0th to the 100th percentile of each task's values.
    """

    names: tuple[str, ...]
    percentiles: np.ndarray

    @classmethod
    def of(cls, names: tuple[str, ...], values: np.ndarray) -> ApprovedDrugs:
        """values: float32 `[N, P]`, of the drugs, in the tasks' units or as probabilities; NaN where there is none."""
        return cls(names, np.nanpercentile(values.astype(np.float64), PERCENTS, axis=0).T)

    @classmethod
    def known(cls, pack_sha256: str) -> ApprovedDrugs | None:
        """Those that are kept for this pack; None if there are none. Raises `PackError` when the file is damaged."""
        file = _files() / KNOWN.format(pack_sha256[:12])
        if not pack_sha256 or not file.is_file():
            return None
        rows = list(csv.reader(file.read_text(encoding="utf-8").splitlines()))
        with fitting(f"{file.name} is damaged", "install mora-lite again"):
            if rows[0][0] != pack_sha256:
                return None
            table = np.array([row[1:] for row in rows[1:]], np.float64).reshape(len(rows) - 1, len(PERCENTS))
        return cls(tuple(row[0] for row in rows[1:]), table)

    def lines(self, pack_sha256: str) -> list[str]:
        """The lines of the file that `known` reads, values with six significant digits."""
        head = ",".join([pack_sha256, *(f"{percent:g}" for percent in PERCENTS)])
        rows = zip(self.names, self.percentiles, strict=True)
        return [head, *(",".join([name, *(f"{value:.6g}" for value in row)]) for name, row in rows)]

    def select(self, names: tuple[str, ...]) -> ApprovedDrugs:
        """Only the tasks `names`, in this order."""
        return ApprovedDrugs(names, self.percentiles[[self.names.index(name) for name in names]])

    def places(self, values: np.ndarray) -> np.ndarray:
        """The share of the drugs with a lower value, in percent: float32 `[B, P]`, 0 to 100; NaN for NaN.

        values: float32 `[B, P]`, in the tasks' units or as probabilities.
        """
        places = np.empty(values.shape, np.float32)
        for k, known in enumerate(self.percentiles):
            places[:, k] = np.interp(values[:, k], known, PERCENTS)
        return places


def approved_smiles() -> list[str]:
    """SMILES of the approved drugs."""
    return (_files() / DRUGS).read_text(encoding="ascii").split()


def _files() -> Any:
    return resources.files(__package__)
