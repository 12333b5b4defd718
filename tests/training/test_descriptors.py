"""What an encoder is pre-trained on: numbers that RDKit has for every molecule, and which of them are kept."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import Crippen, Descriptors
from rdkit.Chem import rdMolDescriptors as rd

from mora_lite.chem.fingerprints import N_BITS
from mora_lite.chem.molecules import parse_smiles
from mora_lite.training.pretrain import FARTHEST, describe, make_targets

ASPIRIN = "CC(=O)Oc1ccccc1C(=O)O"


def described(smiles: list[str]) -> tuple[np.ndarray, np.ndarray]:
    found = [describe(parse_smiles(text).mol) for text in smiles]
    return np.stack([numbers for numbers, _ in found]), np.stack([bits for _, bits in found])


# --- of one molecule


def test_every_molecule_has_as_many_numbers_and_bits(molecules: list[str]) -> None:
    numbers, bits = described(molecules)
    assert (numbers.dtype, bits.dtype) == (np.float32, np.bool_)
    assert numbers.shape[1] > 300
    assert bits.shape == (60, N_BITS)
    assert not np.isinf(numbers).any()
    assert np.isfinite(numbers[molecules.index("CCO")]).all()


def test_what_cannot_be_had_is_missing_and_stops_nothing(molecules: list[str]) -> None:
    """BCUT wants parameters of every element."""
    numbers, _ = described(["C[Si](C)(C)C", "*CC*", "[Na+].[Cl-]", "[He]", ASPIRIN])
    assert np.isnan(numbers[1]).any()
    assert np.isfinite(numbers[1]).sum() > 250
    assert np.isfinite(numbers[4]).all()


def test_size_polarity_and_groups_are_among_them() -> None:
    mol = Chem.MolFromSmiles(ASPIRIN)
    numbers, bits = describe(mol)
    for value in (Descriptors.MolWt(mol), Crippen.MolLogP(mol), rd.CalcTPSA(mol), rd.CalcExactMolWt(mol)):
        if value != pytest.approx(Descriptors.MolWt(mol)):  # the exact mass stands for it
            assert np.isclose(numbers, value, rtol=1e-5).any()
    expected = rd.GetMorganFingerprintAsBitVect(mol, 2, N_BITS)
    assert np.flatnonzero(bits).tolist() == list(expected.GetOnBits())


def test_the_order_of_atoms_does_not_matter() -> None:
    mol = Chem.MolFromSmiles(ASPIRIN)
    turned = Chem.RenumberAtoms(mol, list(range(mol.GetNumAtoms()))[::-1])
    (numbers, bits), (again, bits_again) = describe(mol), describe(turned)
    np.testing.assert_allclose(numbers, again, rtol=1e-4, atol=1e-4)
    assert np.array_equal(bits, bits_again)


# --- of a library


def test_descriptors_become_z_scores() -> None:
    rng = np.random.default_rng(0)
    numbers = rng.normal([5, -3], [2, 0.1], (2000, 2)).astype(np.float32)
    targets = make_targets(numbers, np.zeros((2000, 4), bool))
    assert targets.values.dtype == np.float32
    assert targets.classes.tolist() == [False, False]
    np.testing.assert_allclose(targets.values.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(targets.values.std(0), 1, atol=1e-3)
    assert np.corrcoef(numbers[:, 0], targets.values[:, 0])[0, 1] > 0.99


def test_a_long_tail_is_cut_and_squeezes_nothing() -> None:
    numbers = np.random.default_rng(0).standard_normal((2000, 1)).astype(np.float32)
    numbers[0] = 1e8
    values = make_targets(numbers, np.zeros((2000, 1), bool)).values
    assert np.abs(values).max() <= FARTHEST
    assert values[1:].std() > 0.9


def test_descriptors_without_variety_and_rare_bits_are_left_out() -> None:
    n = 1000
    numbers = np.column_stack([np.arange(n), np.full(n, 7.0)]).astype(np.float32)
    bits = np.zeros((n, 5), bool)
    bits[:5, 0] = True  # 0.5 %
    bits[:500, 1] = True
    bits[:, 2] = True
    bits[:20, 3] = True  # 2 %
    bits[5:, 4] = True  # 99.5 %
    targets = make_targets(numbers, bits)
    assert targets.classes.tolist() == [False, True, True]
    assert targets.values[:, 1:].mean(0).tolist() == pytest.approx([0.5, 0.02])
    assert set(np.unique(targets.values[:, 1:])) == {0, 1}


def test_missing_descriptors_stay_missing() -> None:
    numbers = np.arange(1000, dtype=np.float32)[:, None].repeat(2, 1)
    numbers[::3, 1] = np.nan
    values = make_targets(numbers, np.zeros((1000, 1), bool)).values
    assert np.array_equal(np.isnan(values), np.isnan(numbers))
    assert np.nanmean(values[:, 1]) == pytest.approx(0, abs=1e-5)


def test_a_descriptor_that_no_molecule_has_is_left_out_quietly() -> None:
    numbers = np.arange(1000, dtype=np.float32)[:, None].repeat(2, 1)
    numbers[:, 1] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert make_targets(numbers, np.zeros((1000, 1), bool)).values.shape == (1000, 1)
