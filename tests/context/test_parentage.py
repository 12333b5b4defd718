"""Which atom as drawn is which atom of the parent, and which of the graph that is scored."""

from __future__ import annotations

import numpy as np
import pytest

from mora_lite.chem.featurizer import Featurizer
from mora_lite.context.parentage import Parentage
from mora_lite.errors import InputError


@pytest.mark.parametrize(
    ("smiles", "numbers"),
    [
        ("CCO", [0, 1, 2]),
        ("[Na+].CC(=O)[O-]", [1, 2, 3, 4]),
        ("O.CCO.CC[NH3+].[Br-]", [4, 5, 6]),
        ("Cl.NCC", [1, 2, 3]),
        ("[2H]OC", [0, 1]),  # the hydrogen is no atom of the graph
        ("CCO ethanol", [0, 1, 2]),
    ],
)
def test_the_atoms_of_the_parent_are_known_in_the_drawing(smiles: str, numbers: list[int]) -> None:
    assert Parentage.read(smiles, Featurizer()).of_drawn.tolist() == numbers


@pytest.mark.parametrize("featurizer", [Featurizer(), Featurizer(2, "none"), Featurizer(1, "none")], ids=str)
def test_the_graph_is_the_one_that_is_scored(featurizer: Featurizer, molecules: list[str]) -> None:
    for smiles in [*molecules, "C[C@H](N)C(=O)O", "C/C=C/c1ccccc1", "F/C=C\\Cl", "[13CH4]"]:
        found = Parentage.read(smiles, featurizer)
        graph = featurizer.graphs([featurizer.parse_smiles(smiles).mol])
        for name in ("atoms", "bonds", "bond_endpoints", "atom_ptr"):
            np.testing.assert_array_equal(getattr(found.graph, name), getattr(graph, name), err_msg=smiles)
        elements = [found.parent.GetAtomWithIdx(i).GetAtomicNum() for i in found.of_graph.tolist()]
        assert elements == found.graph.atoms[:, 0].tolist()
        drawn = [found.drawn.GetAtomWithIdx(i).GetAtomicNum() for i in found.of_drawn.tolist()]
        assert drawn == [atom.GetAtomicNum() for atom in found.parent.GetAtoms()]


@pytest.mark.parametrize("smiles", ["C1CC", "", "C" * 500])
def test_what_cannot_be_scored_is_one_clear_line(smiles: str) -> None:
    with pytest.raises(InputError, match="got a molecule that is"):
        Parentage.read(smiles, Featurizer())
