"""The parent of a molecule: its largest organic fragment, with charges neutralised where that is possible.

What is meant is RDKit's MolStandardize: `MetalDisconnector` for the metals of salts, as in `CC(=O)O[Na]`, then
`LargestFragmentChooser` and `Uncharger`. Other metals stay where they are drawn, and no tautomer is chosen. A fragment
that is known as a counter-ion or a solvent gives way to any that is not, as pamoic acid to hydroxyzine.
"""

from __future__ import annotations

import functools
import re
from typing import Any, NamedTuple

from rdkit import Chem

# Acids and bases that drugs are salts of, and solvents; none that is a drug itself, as salicylic acid is. parent.c has
# their composition.
COMPANIONS = """
O=C(O)O O=C=O C#N N#CS N=C=S O=S(=O)(NS(=O)(=O)C(F)(F)F)C(F)(F)F
O=CO CC(=O)O CCC(=O)O CCCCCCCC(=O)O CCCCCCCCCCCC(=O)O CCCCCCCCCCCCCCCC(=O)O CCCCCCCCCCCCCCCCCC(=O)O
CCCCCCCCC=CCCCCCCCC(=O)O O=C(O)C(F)(F)F O=C(O)CO CC(O)C(=O)O O=C(O)C(=O)O O=C(O)CC(=O)O O=C(O)CCC(=O)O
O=C(O)CCCC(=O)O O=C(O)CCCCC(=O)O O=C(O)CCCCCCCCC(=O)O O=C(O)C=CC(=O)O O=C(O)CC(O)C(=O)O O=C(O)C(O)C(O)C(=O)O
O=C(O)CC(O)(CC(=O)O)C(=O)O O=C(O)C(O)C(O)C(O)C(O)C(=O)O O=C(O)C(O)C(O)C(O)C(O)CO O=C(O)C1OC(O)C(O)C(O)C1O
O=C(O)C(O)C(O)C(O)C(O)C(O)CO O=C(O)C(O)C(O)C(OC1OC(CO)C(O)C(O)C1O)C(O)CO O=C(O)c1ccccc1 O=C(O)C(O)c1ccccc1
O=C(O)CNC(=O)c1ccccc1 O=C(O)c1ccc2ccccc2c1O O=C(O)c1cc2ccccc2c(Cc2c(O)c(C(=O)O)cc3ccccc23)c1O CS(=O)(=O)O
CCS(=O)(=O)O O=S(=O)(O)CCO O=S(=O)(O)CCS(=O)(=O)O O=S(=O)(O)C(F)(F)F O=S(=O)(O)c1ccccc1 Cc1ccc(S(=O)(=O)O)cc1
O=S(=O)(O)c1ccc2ccccc2c1 O=S(=O)(O)c1cccc2ccccc12 O=S(=O)(O)c1cccc2c(S(=O)(=O)O)cccc12
CC1(C)C2CCC1(CS(=O)(=O)O)C(=O)C2 COS(=O)(=O)O CCCCCCCCCCCCOS(=O)(=O)O O=S(=O)(O)NC1CCCCC1
O=[N+]([O-])c1cc([N+](=O)[O-])c(O)c([N+](=O)[O-])c1
NC(CO)(CO)CO CNCC(O)C(O)C(O)C(O)CO NCCCCC(N)C(=O)O N=C(N)NCCCC(N)C(=O)O NC(N)=NCCCC(N)C(=O)O
c1ccc(CNCCNCc2ccccc2)cc1 NCCO OCCNCCO OCCN(CCO)CCO OCCN1CCCC1 NCCN CC(C)(C)N CCNCC CCN(CC)CC CCN(C(C)C)C(C)C
C1CCC(NC2CCCCC2)CC1 c1ccncc1 C[N+](C)(C)CCO C[N+](C)(C)C CC[N+](CC)(CC)CC CCCC[N+](CCCC)(CCCC)CCCC
CO CCO CC(C)O CCCO CC(C)=O CCOCC CCOC(C)=O CC#N CS(C)=O CN(C)C=O ClCCl ClC(Cl)Cl C1CCOC1 C1COCCO1 CCCCCC Cc1ccccc1
"""
SALT_METALS = ("Li", "Na", "Mg", "K", "Ca", "Rb", "Sr", "Cs", "Ba")
_MARKS = re.compile("|".join((r"[-+.]", *SALT_METALS)))


def may_have_parent(smiles: str) -> bool:
    """Whether the parent may differ from the molecule: charges, fragments and metals are not written without these."""
    return _MARKS.search(smiles) is not None


def parent_of(mol: Chem.Mol) -> Chem.Mol:
    """The parent, a molecule of its own where it differs from `mol`. Charges that nothing neutralises stay."""
    tools = _tools()
    if mol.HasSubstructMatch(tools.salt_bond):
        mol = tools.disconnector.Disconnect(mol)
    return _neutral(_main_fragment(mol))


def _main_fragment(mol: Chem.Mol) -> Chem.Mol:
    if len(Chem.GetMolFrags(mol)) == 1:
        return mol
    chooser = _tools().chooser
    largest = chooser.choose(mol)
    if not _is_companion(largest):
        return largest
    others = [piece for piece in Chem.GetMolFrags(mol, asMols=True) if _is_organic(piece) and not _is_companion(piece)]
    return chooser.choose(functools.reduce(Chem.CombineMols, others)) if others else largest


def _is_organic(mol: Chem.Mol) -> bool:
    return any(atom.GetAtomicNum() == 6 for atom in mol.GetAtoms())


def _is_companion(mol: Chem.Mol) -> bool:
    return Chem.MolToSmiles(_neutral(mol), isomericSmiles=False) in _companions()


def _neutral(mol: Chem.Mol) -> Chem.Mol:
    if not any(atom.GetFormalCharge() for atom in mol.GetAtoms()):
        return mol
    neutral = _tools().uncharger.uncharge(mol)
    try:
        Chem.SanitizeMol(neutral)  # conjugation and hybridisation are those of the new charges
    except ValueError:  # a hydrogen too many, as at the phosphorus of hexafluorophosphate
        return mol
    return neutral


@functools.cache
def _companions() -> frozenset[str]:
    return frozenset(map(Chem.CanonSmiles, COMPANIONS.split()))


class _Tools(NamedTuple):
    """Of RDKit's MolStandardize. salt_bond: a query, of the bonds that the disconnector splits."""

    salt_bond: Chem.Mol
    disconnector: Any
    chooser: Any
    uncharger: Any


@functools.cache
def _tools() -> _Tools:
    from rdkit.Chem.MolStandardize import rdMolStandardize  # most molecules need none of it

    salt_bond = Chem.MolFromSmarts(f"[{','.join(SALT_METALS)}]-[#7,#8,#16]")
    disconnector = rdMolStandardize.MetalDisconnector()
    disconnector.SetMetalNof(salt_bond)
    disconnector.SetMetalNon(salt_bond)
    chooser, uncharger = rdMolStandardize.LargestFragmentChooser(preferOrganic=True), rdMolStandardize.Uncharger()
    return _Tools(salt_bond, disconnector, chooser, uncharger)
