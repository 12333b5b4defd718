"""Properties that need no model, and structural alerts, as columns beside the predictions. RDKit computes them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from rdkit import Chem, rdBase

# Name -> what it is, for people. All are numbers but the last.
EXTRAS = {
    "mol_weight": "average molecular weight in g/mol",
    "lipinski_violations": "of the rule of five: weight above 500, logP above 5, more than 5 donors, 10 acceptors",
    "QED": "quantitative estimate of drug-likeness, 0 to 1 (Bickerton 2012)",
    "TPSA": "topological polar surface area in square angstrom (Ertl 2000)",
    "crippen_logP": "logP by Crippen's atom contributions",
    "rotatable_bonds": "number of rotatable bonds",
    "PAINS": "number of PAINS alerts (Baell 2010)",
    "Brenk": "number of alerts of Brenk 2008",
    "alerts": "names of these alerts, separated by ; and a blank",
}
ALERTS = "alerts"


def extra_columns(molecules: Sequence[Chem.Mol | None]) -> dict[str, np.ndarray]:
    """A column for each of `EXTRAS`: float32 `[B]`, and text; NaN and empty where a molecule is None.

    They are so too for a molecule that RDKit cannot compute them of.
    """
    numbers = np.full((len(molecules), len(EXTRAS) - 1), np.nan, np.float32)
    alerts = np.full(len(molecules), "", object)
    with rdBase.BlockLogs():
        for i, molecule in enumerate(molecules):
            if molecule is None:
                continue
            with suppress(Exception):  # of RDKit, which has no base class for what it raises
                numbers[i], alerts[i] = _extras_of(molecule)
    names = [name for name in EXTRAS if name != ALERTS]
    return {name: numbers[:, k].copy() for k, name in enumerate(names)} | {ALERTS: alerts}


def _extras_of(molecule: Chem.Mol) -> tuple[list[float], str]:
    from rdkit.Chem import QED, rdMolDescriptors

    weight, logp = rdMolDescriptors._CalcMolWt(molecule), rdMolDescriptors.CalcCrippenDescriptors(molecule)[0]
    too_many = rdMolDescriptors.CalcNumHBD(molecule) > 5, rdMolDescriptors.CalcNumHBA(molecule) > 10
    violations = sum((weight > 500, logp > 5, *too_many))
    found = {name: _matches(catalog, molecule) for name, catalog in _catalogs().items()}
    numbers = [
        weight,
        violations,
        QED.qed(molecule),
        rdMolDescriptors.CalcTPSA(molecule),
        logp,
        rdMolDescriptors.CalcNumRotatableBonds(molecule),
        *map(len, found.values()),
    ]
    return numbers, "; ".join(f"{name} {alert}" for name, alerts in found.items() for alert in alerts)


def _matches(catalog: Any, molecule: Chem.Mol) -> list[str]:
    return sorted(entry.GetDescription() for entry in catalog.GetMatches(molecule))


@functools.cache
def _catalogs() -> dict[str, Any]:
    """Alerts by the name of their column."""
    from rdkit.Chem.FilterCatalog import FilterCatalog, FilterCatalogParams

    catalogs = FilterCatalogParams.FilterCatalogs
    return {"PAINS": FilterCatalog(catalogs.PAINS), "Brenk": FilterCatalog(catalogs.BRENK)}
