"""The molecule as it was drawn, the parent that is scored in its place, and the graph of that, atom by atom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from rdkit import Chem

from ..chem.codes import codes_and_order
from ..chem.featurizer import Featurizer
from ..chem.graph import Graphs
from ..chem.molecules import MAX_CHARACTERS, parse_smiles
from ..chem.standardize import parent_of
from ..errors import InputError
from ..status import OK

_NUMBER = "drawn"  # an atom's property, which RDKit keeps while it takes a parent


@dataclass(frozen=True)
class Parentage:
    """One molecule: `D` atoms as drawn, of which the parent has `A`.

    smiles: as it was given. drawn, parent: `rdkit.Chem.Mol`; a parent with the charges and fragments that are scored.
    of_drawn: int64 `[A]`, the drawn molecule's number of each atom of the parent.
    graph: one molecule, the parent. of_graph: int64 `[A]`, the parent's number of each atom of the graph.
    """

    smiles: str
    drawn: Any
    parent: Any
    of_drawn: np.ndarray
    graph: Graphs
    of_graph: np.ndarray

    @classmethod
    def read(cls, smiles: str, featurizer: Featurizer) -> Parentage:
        """Read a SMILES as `featurizer` does. Raises `InputError` where it could not be scored."""
        parsed = featurizer.parse_smiles(smiles)
        if parsed.status != OK:
            raise InputError(f"{smiles[:60]!r}: got a molecule that is {parsed.status} ({parsed.reason})")
        # Once more without the parent, whose atoms then carry the numbers of those that they were.
        drawn = parse_smiles(smiles, MAX_CHARACTERS, version=featurizer.version).mol
        for atom in drawn.GetAtoms():
            atom.SetIntProp(_NUMBER, atom.GetIdx())
        parent = parent_of(drawn) if featurizer.standardize == "parent" else drawn
        numbers = np.array([atom.GetIntProp(_NUMBER) for atom in parent.GetAtoms()], np.int64)
        graph, of_graph = codes_and_order(Chem.Mol(parent), featurizer.version)
        return cls(smiles.strip(), drawn, parent, numbers, graph, of_graph)
