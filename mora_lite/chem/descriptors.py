"""Numbers about a whole molecule, for trees that stand beside the network (`scoring.trees`).

Counts of fragments (Morgan's of radius 2), ErG's reduced graph, and RDKit's descriptors: those of MapLight (arXiv
2310.00174) without Avalon's counts. They cost milliseconds a molecule, a thousand times its graph.
What computes them is imported at first use.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from rdkit import Chem, rdBase

from ..errors import PackError

RADIUS, N_COUNTS, N_ERG = 2, 1024, 441
N_FINGERPRINTS = N_COUNTS + N_ERG
LARGEST = 1e5  # of a descriptor: `Ipc` grows exponentially with the molecule
# qed is made of eight of the others. The rest, indices of the whole graph, made trees no better
# (docs/benchmarks/tdc.md). Each of the two would add a quarter of the time.
SLOW = {"qed", "AvgIpc", "BalabanJ", "BertzCT", "Ipc"}
ESTATE = ("MaxEStateIndex", "MinEStateIndex", "MaxAbsEStateIndex", "MinAbsEStateIndex")


def names() -> tuple[str, ...]:
    """The descriptors of this RDKit that are computed, by RDKit's names."""
    return tuple(name for name in _functions() if name not in SLOW)


def check(wanted: Sequence[str]) -> None:
    """Raises `PackError` for a descriptor that this RDKit does not have."""
    if missing := [name for name in wanted if name not in _functions()]:
        raise PackError(
            f"the pack needs RDKit's descriptor {missing[0]}, which RDKit {rdBase.rdkitVersion} does not have; "
            "install the version of RDKit that the pack was made with, or train it again"
        )


def n_columns(wanted: Sequence[str]) -> int:
    """Of the array that `describe` makes; 0 where no descriptor is wanted."""
    return N_FINGERPRINTS + len(wanted) if wanted else 0


def describe(molecules: Sequence[Chem.Mol], wanted: Sequence[str]) -> np.ndarray:
    """float32 `[N, N_FINGERPRINTS + len(wanted)]`, finite: the fingerprints' counts, then these descriptors.

    What a descriptor has no value for is 0. The order of a molecule's atoms does not matter.
    """
    described = np.zeros((len(molecules), n_columns(wanted)), np.float32)
    with rdBase.BlockLogs():
        for row, molecule in zip(described, molecules, strict=True):
            _describe(_in_canonical_order(molecule), wanted, row)
    return described


def _describe(molecule: Chem.Mol, wanted: Sequence[str], row: np.ndarray) -> None:
    from rdkit.Chem import rdReducedGraphs

    row[:N_COUNTS] = _morgan().GetCountFingerprintAsNumPy(molecule)
    row[N_COUNTS:N_FINGERPRINTS] = rdReducedGraphs.GetErGFingerprint(molecule, fuzzIncrement=0.3, maxPath=21, minPath=1)
    functions = _functions()
    for i, name in enumerate(wanted, N_FINGERPRINTS):
        try:
            value = float(functions[name](molecule))
        except Exception:  # RDKit has no base class for what it raises, as for charges of elements it does not know
            continue
        if not math.isnan(value):
            row[i] = min(max(value, -LARGEST), LARGEST)


def _in_canonical_order(molecule: Chem.Mol) -> Chem.Mol:
    """The same molecule as RDKit reads its canonical SMILES: sums of floats depend on the order of atoms and bonds."""
    return Chem.MolFromSmiles(Chem.MolToSmiles(molecule)) or molecule


@functools.cache
def _functions() -> dict[str, Any]:
    from rdkit.Chem import Descriptors

    functions = dict(Descriptors.descList)
    # By themselves they compute the indices of all atoms anew, a twenty-fifth of all descriptors' time each.
    return functions | {name: functools.partial(functions[name], force=False) for name in ESTATE if name in functions}


@functools.cache
def _morgan() -> Any:
    from rdkit.Chem import rdFingerprintGenerator

    return rdFingerprintGenerator.GetMorganGenerator(radius=RADIUS, fpSize=N_COUNTS)
