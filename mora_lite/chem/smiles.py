"""SMILES as text: canonical, without stereochemistry, in random orders, aligned with another SMILES."""

from __future__ import annotations

import random
from collections.abc import Iterable

from rdkit import Chem, rdBase

from .molecules import MAX_CHARACTERS, parse_smiles

NGRAM_LENGTHS = (4, 10)  # of the substrings that `Aligner` compares: short ones for positions, long for stretches


def canonical(smiles: str) -> str | None:
    """`write` of a molecule, or of several joined by dots; None if it is invalid or has no atoms."""
    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(smiles) if smiles and smiles.isascii() else None
    return write(mol) if mol is not None and mol.GetNumAtoms() else None


def canonical_cell(text: str) -> str | None:
    """`write` of the molecules in a cell of a table, where a name may follow; None where a blank breaks the SMILES."""
    mol = parse_smiles(text, MAX_CHARACTERS).mol
    return None if mol is None else write(mol)


def together(cells: Iterable[str]) -> str:
    """The molecules of several cells as one SMILES; of cells that cannot be read the first one alone.

    What follows the SMILES of a cell would end that of all.
    """
    texts = [text for cell in cells if (text := cell.strip())]
    if len(texts) > 1 and any(len(text.split(None, 1)) > 1 for text in texts):
        for i, text in enumerate(texts):
            if (smiles := canonical_cell(text)) is None:
                return text
            texts[i] = smiles
    return ".".join(texts)


def write(mol: Chem.Mol) -> str:
    """RDKit's canonical SMILES without the numbers that map the atoms of a reaction, which `mol` loses.

    They would name the answer to a question about it.
    """
    smiles = Chem.MolToSmiles(mol)
    if ":" not in smiles:  # as nearly always; a look at each atom takes a third of the time of writing
        return smiles
    for atom in mol.GetAtoms():
        atom.SetAtomMapNum(0)
    Chem.AssignStereochemistry(mol, cleanIt=True, force=True)  # some atoms and bonds differed by the numbers alone
    return Chem.MolToSmiles(mol)


def flat(smiles: str) -> str:
    """Canonical SMILES without stereochemistry."""
    with rdBase.BlockLogs():
        return Chem.MolToSmiles(Chem.MolFromSmiles(smiles), isomericSmiles=False)


def largest(smiles: str) -> str:
    """Canonical SMILES, without stereochemistry, of the component with the most atoms but hydrogen."""
    with rdBase.BlockLogs():
        parts = Chem.GetMolFrags(Chem.MolFromSmiles(smiles), asMols=True, sanitizeFrags=False)
    return max((mol.GetNumHeavyAtoms(), Chem.MolToSmiles(mol, isomericSmiles=False)) for mol in parts)[1]


def reorder(smiles: str, rng: random.Random, copies: int = 1) -> list[str]:
    """The same molecules, joined by dots, in `copies` random orders, each SMILES from a random first atom."""
    with rdBase.BlockLogs():
        molecules = [Chem.MolFromSmiles(part) for part in smiles.split(".")]
    orders = []
    for _ in range(copies):
        rng.shuffle(molecules)
        texts = (Chem.MolToSmiles(mol, rootedAtAtom=rng.randrange(mol.GetNumAtoms())) for mol in molecules)
        orders.append(".".join(texts))
    return orders


class Aligner:
    """Writes a set of molecules as SMILES that share as much as possible with those of another set.

    Each molecule starts at the atom whose SMILES has the most substrings in common with the other text, and the
    molecules stand in the order of those substrings in it.
    """

    def __init__(self, target: str):
        self.variants = [[(text, _ngrams(text)) for text in _all_roots(part)] for part in target.split(".")]

    def align(self, source: str) -> str:
        """The target set aligned with `source`; where several SMILES of a molecule are as good, its canonical one."""
        ngrams = _ngrams(source)
        best = [max(variants, key=lambda variant: len(variant[1] & ngrams))[0] for variants in self.variants]
        return ".".join(sorted(best, key=lambda text: _position(text, source)))


def _all_roots(part: str) -> list[str]:
    """The SMILES of a molecule from each of its atoms, without repeats, the canonical one first."""
    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(part)
    rooted = (Chem.MolToSmiles(mol, rootedAtAtom=atom) for atom in range(mol.GetNumAtoms()))
    return list(dict.fromkeys([part, *rooted]))


def _ngrams(text: str) -> set[str]:
    return {text[i : i + n] for n in NGRAM_LENGTHS for i in range(len(text) - n + 1)}


def _position(text: str, source: str) -> int:
    """The median offset in `source` of the substrings of `text`; its end if it has none of them."""
    n = min(NGRAM_LENGTHS[0], len(text))
    offsets = sorted(source.find(text[i : i + n]) for i in range(len(text) - n + 1))
    offsets = [offset for offset in offsets if offset >= 0]
    return offsets[len(offsets) // 2] if offsets else len(source)
