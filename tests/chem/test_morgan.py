"""Morgan fingerprints as packs of version 1 hold them."""

from __future__ import annotations

import numpy as np
from rdkit import Chem
from rdkit.Chem import rdFingerprintGenerator

from mora_lite.chem.circular import N_BITS, RADIUS
from mora_lite.chem.morgan import fingerprints


def test_the_bits_are_those_of_rdkit_in_their_order(molecules: list[str]) -> None:
    mols = [Chem.MolFromSmiles(text) for text in molecules]
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=RADIUS, fpSize=N_BITS)
    expected = np.array([generator.GetFingerprintAsNumPy(mol) for mol in mols])
    assert np.array_equal(np.unpackbits(fingerprints(mols), axis=1), expected)
