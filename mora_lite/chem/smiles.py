"""SMILES as text: canonical, without stereochemistry, in other orders, aligned with another text."""

from __future__ import annotations

import random

from rdkit import Chem, rdBase

NGRAM_LENGTHS = (4, 10)  # of the runs of characters that `Aligner` counts: short ones, and long stretches


def canonical(smiles: str) -> str | None:
    """RDKit's canonical SMILES of a molecule or a set of them joined by dots; None where RDKit refuses it or nothing
    is in it.
    """
    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(smiles) if smiles and smiles.isascii() else None
    return Chem.MolToSmiles(mol) if mol is not None and mol.GetNumAtoms() else None


def flat(product: str) -> str:
    """Canonical SMILES without stereochemistry: what two products must not share across parts."""
    with rdBase.BlockLogs():
        return Chem.MolToSmiles(Chem.MolFromSmiles(product), isomericSmiles=False)


def reorder(smiles: str, rng: random.Random, copies: int = 1) -> list[str]:
    """The same set of molecules in other orders, each begun at another atom."""
    with rdBase.BlockLogs():
        molecules = [Chem.MolFromSmiles(part) for part in smiles.split(".")]
    orders = []
    for _ in range(copies):
        rng.shuffle(molecules)
        texts = (Chem.MolToSmiles(mol, rootedAtAtom=rng.randrange(mol.GetNumAtoms())) for mol in molecules)
        orders.append(".".join(texts))
    return orders


class Aligner:
    """Writes one set of molecules in the order nearest to that of another text.

    Each molecule is begun at the atom that gives it the most runs of characters in common with that text, and the
    molecules stand in the order in which the text comes to them.
    """

    def __init__(self, target: str):
        self.ways = [[(text, _ngrams(text)) for text in _all_roots(part)] for part in target.split(".")]

    def align(self, source: str) -> str:
        """The target set for `source`; molecules beyond the longest alternatives keep their canonical text first."""
        ngrams = _ngrams(source)
        best = [max(ways, key=lambda way: len(way[1] & ngrams))[0] for ways in self.ways]
        return ".".join(sorted(best, key=lambda text: _offset(text, source)))


def _all_roots(part: str) -> list[str]:
    """A molecule begun at each of its atoms, the canonical text first, each text once."""
    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(part)
    rooted = (Chem.MolToSmiles(mol, rootedAtAtom=atom) for atom in range(mol.GetNumAtoms()))
    return list(dict.fromkeys([part, *rooted]))


def _ngrams(text: str) -> set[str]:
    return {text[i : i + n] for n in NGRAM_LENGTHS for i in range(len(text) - n + 1)}


def _offset(text: str, source: str) -> int:
    """Where in `source` the runs of `text` begin, at their median; at the end when none is there."""
    n = min(NGRAM_LENGTHS[0], len(text))
    offsets = sorted(source.find(text[i : i + n]) for i in range(len(text) - n + 1))
    offsets = [offset for offset in offsets if offset >= 0]
    return offsets[len(offsets) // 2] if offsets else len(source)
