"""The parent of a molecule: its largest organic fragment, with charges neutralised where that is possible.

What is meant is RDKit's MolStandardize: `LargestFragmentChooser`, then `Uncharger`. Metals that are drawn with a bond
stay where they are, and no tautomer is chosen.
"""

from __future__ import annotations

import functools
from typing import Any

from rdkit import Chem


def parent_of(mol: Chem.Mol) -> Chem.Mol:
    """The parent, a molecule of its own where it differs from `mol`. Charges that nothing neutralises stay."""
    chooser, uncharger = _tools()
    if len(Chem.GetMolFrags(mol)) > 1:
        mol = chooser.choose(mol)
    if not any(atom.GetFormalCharge() for atom in mol.GetAtoms()):
        return mol
    neutral = uncharger.uncharge(mol)
    try:
        Chem.SanitizeMol(neutral)  # conjugation and hybridisation are those of the new charges
    except ValueError:  # a hydrogen too many, as at the phosphorus of hexafluorophosphate
        return mol
    return neutral


@functools.cache
def _tools() -> tuple[Any, Any]:
    from rdkit.Chem.MolStandardize import rdMolStandardize  # most molecules need none of it

    return rdMolStandardize.LargestFragmentChooser(preferOrganic=True), rdMolStandardize.Uncharger()
