"""One way from text to numbers, which packs record."""

from __future__ import annotations

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import rdMolDescriptors
from rdkit.Chem.MolStandardize import rdMolStandardize

from mora_lite.chem import morgan, native
from mora_lite.chem.featurizer import Featurizer
from mora_lite.chem.graph import Graphs
from mora_lite.errors import PackError

PARENT, AS_DRAWN, FIRST = Featurizer(), Featurizer(standardize="none"), Featurizer(1, "none")


def parent(smiles: str) -> str:
    return Chem.MolToSmiles(PARENT.parse_smiles(smiles).mol)


@pytest.mark.parametrize(
    "texts",
    [
        ["COc1ccccc1", "[2H]C([2H])([2H])Oc1ccccc1", "[13CH3]Oc1ccccc1", "[CH3:7][O:3]c1ccccc1", "[3H]COc1ccccc1"],
        ["c1ccccc1", "[2H]c1c([2H])c([2H])c([2H])c([2H])c1[2H]", "C1=CC=CC=C1"],
        ["C", "[2H]C([2H])([2H])[2H]", "[14CH4]", "[CH4]"],
    ],
)
def test_isotopes_and_atom_maps_are_not_seen(texts: list[str]) -> None:
    graphs = [AS_DRAWN.read_smiles([text]) for text in texts]
    for other in graphs[1:]:
        assert sorted(map(tuple, other.atoms.tolist())) == sorted(map(tuple, graphs[0].atoms.tolist()))
        assert np.array_equal(AS_DRAWN.fingerprints(other, list), AS_DRAWN.fingerprints(graphs[0], list))


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["CC(=O)[O-].[Na+]", "CC(=O)[O-]", "CC(=O)O", "O.CC(=O)O"], "CC(=O)O"),
        (["C[NH2+]CCc1ccccc1.[Cl-]", "CNCCc1ccccc1.Cl", "CNCCc1ccccc1"], "CNCCc1ccccc1"),
        (["[NH3+]CC(=O)[O-]", "NCC(=O)O", "NCC(=O)[O-].[K+]", "Cl.NCC(=O)O"], "NCC(=O)O"),
        (["C[N+](C)(C)CCO.[Cl-]"], "C[N+](C)(C)CCO"),  # nothing neutralises it
        (["C[N+](C)(C)CC(=O)[O-]"], "C[N+](C)(C)CC(=O)[O-]"),
        (["O=[N+]([O-])c1ccccc1"], "O=[N+]([O-])c1ccccc1"),
        (["CC(=O)O.OC(=O)CCCCCCC.[Pt]"], "CCCCCCCC(=O)O"),
        (["[Na+].[Cl-]"], "Cl"),
        (["c1cc[nH+]cc1.[Br-]"], "c1ccncc1"),
        (["CC(=O)O[Na]", "[K]OC(C)=O", "CC(=O)O[Ca]OC(C)=O", "CC(=O)[O][Mg+].[Cl-]"], "CC(=O)O"),
        (["CC(=O)[N]([Na])S(=O)(=O)c1ccc(N)cc1", "CC(=O)NS(=O)(=O)c1ccc(N)cc1"], "CC(=O)NS(=O)(=O)c1ccc(N)cc1"),
        (["C[C@H](N)C(=O)O[Na]", "C[C@H](N)C(=O)O"], "C[C@H](N)C(=O)O"),
        (["CCCC[Li]"], "CCCC[Li]"),  # its metal is not that of a salt
        (["CC(=O)O[Zn]OC(C)=O"], "CC(=O)O[Zn]OC(C)=O"),
        # The counter-ion, citric acid and the like, is larger than what it was made for.
        (["C1CNCCN1.OC(=O)CC(O)(C(O)=O)CC(O)=O", "C1C[NH2+]CCN1.OC(=O)CC(O)(C([O-])=O)CC(O)=O"], "C1CNCCN1"),
        (["NC(CO)(CO)CO.C[C@@H]1O[C@@H]1P(O)(O)=O"], "C[C@@H]1O[C@@H]1P(O)(O)=O"),
        (["CC(=O)Oc1ccccc1C(=O)[O-].NCCCC[C@H]([NH3+])C(O)=O"], "CC(=O)Oc1ccccc1C(O)=O"),
        (["O=C(O)c1cc2ccccc2c(Cc2c(O)c(C(O)=O)cc3ccccc23)c1O.C1CC1N.C1CCC1N"], "NC1CCC1"),
        (["OC(=O)CC(O)(CC(=O)[O-])C(=O)[O-].[Na+].[Na+].O"], "OC(=O)CC(O)(CC(O)=O)C(O)=O"),  # of nothing else
        (["C[N+](C)(C)CCO.OC(=O)[O-]"], "C[N+](C)(C)CCO"),  # both are counter-ions
        (["C[N+](C)(C)CCO.OC(C(O)C([O-])=O)C(O)=O"], "C[N+](C)(C)CCO"),
    ],
)
def test_a_salt_its_free_base_and_its_zwitterion_are_their_parent(texts: list[str], expected: str) -> None:
    assert [parent(text) for text in texts] == [Chem.CanonSmiles(expected)] * len(texts)


def test_the_parent_is_that_of_rdkits_standardiser_and_its_graph_that_of_a_new_reading(molecules: list[str]) -> None:
    """What was neutralised has the conjugation and hybridisation of the neutral molecule."""
    charged = [
        "C[NH+](C)CC([O-])=O",
        "[O-]c1ccccc1",
        "[NH3+]c1ccccc1",
        "CC(=O)[N-]C",
        "NC(N)=[NH2+]",
        "[O-]S(=O)(=O)c1ccccc1",
    ]
    for text in [*molecules, *charged]:
        mol = rdMolStandardize.LargestFragmentChooser(preferOrganic=True).choose(Chem.MolFromSmiles(text))
        expected = Chem.MolToSmiles(rdMolStandardize.Uncharger().uncharge(mol))
        assert parent(text) == expected
        here, anew = (
            PARENT.parse_smiles(text).mol,
            PARENT.parse_smiles(Chem.MolToSmiles(PARENT.parse_smiles(text).mol)).mol,
        )
        match = anew.GetSubstructMatch(here)
        assert same_but_order(PARENT.graphs([Chem.RenumberAtoms(anew, match)]), PARENT.graphs([here])), text


def same_but_order(a: Graphs, b: Graphs) -> bool:
    return sorted(map(tuple, a.atoms.tolist())) == sorted(map(tuple, b.atoms.tolist())) and sorted(
        a.bonds.tolist()
    ) == sorted(b.bonds.tolist())


def test_a_mol_block_is_shown_as_it_was_drawn() -> None:
    block = Chem.MolToMolBlock(Chem.MolFromSmiles("[2H]C([2H])([2H])C(=O)[O-].[Na+]"))
    parsed = PARENT.parse_molecule(block)
    assert Chem.MolToSmiles(parsed.mol) == "CC(=O)O"
    assert Chem.MolToSmiles(parsed.drawn) == "[2H]C([2H])([2H])C(=O)[O-].[Na+]"


def test_version_1_is_as_rdkit_reads(molecules: list[str]) -> None:
    mols = [Chem.MolFromSmiles(text) for text in molecules]
    graphs = FIRST.read_smiles(molecules)
    assert [len(mol.GetAtoms()) for mol in mols] == graphs.n_atoms.tolist()
    assert np.array_equal(FIRST.fingerprints(graphs, lambda: mols), morgan.fingerprints(mols))
    assert FIRST.read_smiles(["[2H]C"]).n_atoms.tolist() == [2]
    assert "version 1" in FIRST.notes[0]


def test_a_user_is_told_when_rdkit_reads_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "note", lambda: "")
    assert PARENT.notes == []
    monkeypatch.setattr(native, "note", lambda: "the native reader is off")
    assert PARENT.notes == ["the native reader is off"]


def test_a_manifest_without_an_entry_is_of_version_1() -> None:
    assert Featurizer.of({}) == FIRST
    for featurizer in (PARENT, AS_DRAWN, FIRST):
        assert Featurizer.of({"featurizer": featurizer.as_dict()}) == featurizer
    assert PARENT.as_dict()["fingerprint"] == {"name": "circular-counts-1", "radius": 2, "bits": 1024}


def test_what_is_not_known_is_refused() -> None:
    with pytest.raises(PackError, match=r"graph codes of version 3: .* update mora-lite"):
        Featurizer(3)
    with pytest.raises(PackError, match=r"standardize: got 'tautomer', expected parent or none"):
        Featurizer(2, "tautomer")
    with pytest.raises(PackError, match="expected none"):
        Featurizer(1, "parent")


def test_bad_texts_get_the_status_and_reason_that_rdkit_gives() -> None:
    for text in [
        "",
        "C1CC",
        "CC(C)(C)(C)C",
        "c1cccc1",
        "hello",
        "C\0C",
        "C" * 500,
        "[2H]",
        "[Na+].[Cl-]",
        "C[C@](C)",
        "[200C]",
    ]:
        assert AS_DRAWN.parse_smiles(text)[1:] == FIRST.parse_smiles(text)[1:], text


def test_rings_do_not_depend_on_the_order_of_atoms() -> None:
    """What RDKit before 2026.9 did not promise: cages have more smallest rings than it chose among."""
    rng = np.random.default_rng(0)
    for smiles in ("C12C3C4C1C5C2C3C45", "C1CC2CCC1CC2", "C1C2CC3CC1CC(C2)C3", "c1cc2ccc3cccc4ccc(c1)c2c34"):
        mol = Chem.MolFromSmiles(smiles)
        counts = {
            tuple(
                sorted(
                    PARENT.read_smiles([Chem.MolToSmiles(Chem.RenumberAtoms(mol, order), canonical=False)]).atoms[:, 9]
                )
            )
            for order in (rng.permutation(mol.GetNumAtoms()).tolist() for _ in range(10))
        }
        assert len(counts) == 1
    assert rdMolDescriptors.CalcNumRings(Chem.MolFromSmiles("C12C3C4C1C5C2C3C45")) >= 5
