"""The parent of a molecule: its largest organic fragment, with charges neutralised where that is possible.

What is meant is RDKit's MolStandardize: `MetalDisconnector` for the metals of salts, as in `CC(=O)O[Na]`, then
`LargestFragmentChooser` and `Uncharger`. Other metals stay where they are drawn, and no tautomer is chosen.
"""

from __future__ import annotations

import functools
import re
from typing import Any

from rdkit import Chem

_SALT_METALS = ("Li", "Na", "Mg", "K", "Ca", "Rb", "Sr", "Cs", "Ba")
_MARKS = re.compile("|".join((r"[-+.]", *_SALT_METALS)))


def may_have_parent(smiles: str) -> bool:
    """Whether the parent may differ from the molecule. No charge and no second fragment is there without these marks."""
    return _MARKS.search(smiles) is not None


def parent_of(mol: Chem.Mol) -> Chem.Mol:
    """The parent, a molecule of its own where it differs from `mol`. Charges that nothing neutralises stay."""
    disconnector, chooser, uncharger = _tools()
    if any(atom.GetSymbol() in _SALT_METALS and atom.GetDegree() for atom in mol.GetAtoms()):
        mol = disconnector.Disconnect(mol)
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
def _tools() -> tuple[Any, Any, Any]:
    from rdkit.Chem.MolStandardize import rdMolStandardize  # most molecules need none of it

    disconnector = rdMolStandardize.MetalDisconnector()
    bonds = Chem.MolFromSmarts(f"[{','.join(_SALT_METALS)}]-[#7,#8,#16]")
    disconnector.SetMetalNof(bonds)
    disconnector.SetMetalNon(bonds)
    return disconnector, rdMolStandardize.LargestFragmentChooser(preferOrganic=True), rdMolStandardize.Uncharger()
