"""Descriptors of whole molecules: finite numbers that do not depend on how a molecule is spelled."""

from __future__ import annotations

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import Descriptors

from mora_lite.chem import descriptors
from mora_lite.chem.featurizer import Featurizer
from mora_lite.chem.graph import concatenate
from mora_lite.errors import PackError

DESCRIBED = Featurizer(descriptors=descriptors.names())
CAFFEINE = "Cn1cnc2c1c(=O)n(C)c(=O)n2C"


def test_a_molecule_has_its_counts_and_what_rdkit_computes() -> None:
    graphs = Featurizer(descriptors=("MolWt", "TPSA")).read_smiles([CAFFEINE, "CCO"])
    assert graphs.descriptors is not None
    assert graphs.descriptors.shape == (2, descriptors.N_FINGERPRINTS + 2)
    np.testing.assert_allclose(graphs.descriptors[:, -2:], [[194.19, 61.82], [46.07, 20.23]], atol=0.01)
    counts = graphs.descriptors[1, : descriptors.N_COUNTS]
    assert counts.sum() == 6  # three atoms, and what is around them within one bond


def test_each_is_the_number_of_its_function() -> None:
    """Although what several need is computed once."""
    wanted = descriptors.names()
    plain = dict(Descriptors.descList)
    for smiles in (CAFFEINE, "O=C(O)c1ccccc1OC(C)=O"):
        molecule = Chem.MolFromSmiles(Chem.CanonSmiles(smiles))
        (row,) = descriptors.describe([molecule], wanted)
        limits = -descriptors.LARGEST, descriptors.LARGEST
        expected = np.clip([plain[name](Chem.Mol(molecule)) for name in wanted], *limits).astype(np.float32)
        np.testing.assert_array_equal(row[descriptors.N_FINGERPRINTS :], expected)


@pytest.mark.parametrize("smiles", [CAFFEINE, "OC(=O)c1ccccc1OC(C)=O", "C[C@H](N)C(=O)NCc1ccc(Cl)cc1", "F/C=C/Br"])
def test_the_spelling_does_not_matter(smiles: str) -> None:
    molecule = Chem.MolFromSmiles(smiles)
    spelled = [Chem.MolToSmiles(molecule, doRandom=True, kekuleSmiles=k % 2 == 0) for k in range(6)]
    described = DESCRIBED.read_smiles([smiles, *spelled]).descriptors
    assert described is not None
    np.testing.assert_array_equal(described[1:], np.tile(described[0], (6, 1)))


@pytest.mark.parametrize("smiles", ["[Fe]", "*", "[H+]", "[U]", "[Na+].[Cl-]", "F[P-](F)(F)(F)(F)F", "C" * 120])
def test_every_molecule_has_finite_ones(smiles: str) -> None:
    described = Featurizer(descriptors=(*descriptors.names(), "Ipc")).read_smiles([smiles]).descriptors
    assert described is not None
    assert np.isfinite(described).all()
    assert np.abs(described).max() <= descriptors.LARGEST


def test_they_go_with_their_molecules() -> None:
    graphs = DESCRIBED.read_smiles(["C", "CC", CAFFEINE])
    assert graphs.descriptors is not None
    np.testing.assert_array_equal(graphs.select([2, 0]).descriptors, graphs.descriptors[[2, 0]])
    np.testing.assert_array_equal(concatenate([graphs, graphs]).descriptors, np.tile(graphs.descriptors, (2, 1)))
    assert concatenate([graphs, Featurizer().read_smiles(["C"])]).descriptors is None


def test_a_featurizer_remembers_them() -> None:
    entry = DESCRIBED.as_dict()
    assert Featurizer.of({"featurizer": entry}) == DESCRIBED
    assert "descriptors" not in Featurizer().as_dict()
    assert str(DESCRIBED).endswith(f"{len(descriptors.names())} descriptors")
    assert not DESCRIBED.is_native
    with pytest.raises(PackError, match=r"needs RDKit's descriptor NoSuch, which RDKit .* does not have"):
        Featurizer.of({"featurizer": {**entry, "descriptors": ["MolWt", "NoSuch"]}})
