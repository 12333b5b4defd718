"""Stereo codes are of the molecule, not of its spelling, and are those of a plain implementation of docs/method.md."""

from __future__ import annotations

import random

import numpy as np
import pytest
from plain_stereo import certificate, plain_stereo
from rdkit import Chem, rdBase
from rdkit.Chem.EnumerateStereoisomers import EnumerateStereoisomers, StereoEnumerationOptions

from mora_lite.chem.codes import graph_codes
from mora_lite.chem.featurizer import Featurizer
from mora_lite.chem.graph import ATOM_FIELDS, Graphs

AS_DRAWN = Featurizer(standardize="none")
CHIRALITY = list(ATOM_FIELDS).index("chirality")
DRUGS = {
    "ephedrine": "CN[C@@H](C)[C@H](O)c1ccccc1",
    "ibuprofen": "C[C@H](C(=O)O)c1ccc(CC(C)C)cc1",
    "a fused lactam": "C1NC[C@@H]2CCCC[C@]12c1ccc(Cl)c(Cl)c1",
    "penicillin G": "CC1(C)S[C@@H]2[C@H](NC(=O)Cc3ccccc3)C(=O)N2[C@H]1C(=O)O",
    "morphine": "CN1CC[C@]23c4c5ccc(O)c4O[C@H]2[C@@H](O)C=C[C@H]3[C@H]1C5",
    "cholesterol": "C[C@H](CCCC(C)C)[C@H]1CC[C@@H]2[C@@]1(CC[C@H]3[C@H]2CC=C4[C@@]3(CC[C@@H](C4)O)C)C",
    "glucose": "OC[C@H]1O[C@@H](O)[C@H](O)[C@@H](O)[C@@H]1O",
    "tamoxifen": "CC/C(=C(\\c1ccccc1)c1ccc(OCCN(C)C)cc1)c1ccccc1",
    "a dienoic acid": "C/C=C/C=C\\C(=O)O",
    "esomeprazole": "COc1ccc2[nH]c([S@](=O)Cc3ncc(C)c(OC)c3C)nc2c1",
    "an oxime": "C/C(=N/O)CC",
    "an imine of a heterocycle": "C/N=c1/cccco1",
}
HARD = {
    "meso-tartaric acid": "OC(=O)[C@H](O)[C@@H](O)C(=O)O",
    "a pseudo-asymmetric centre": "C[C@H](O)[C@H](O)[C@@H](C)O",
    "centres between E and Z": "C/C=C/[C@H](O)/C=C\\C",
    "cis-4-aminocyclohexanol": "O[C@H]1CC[C@@H](N)CC1",
    "1,3,5-trimethylcyclohexane": "C[C@H]1C[C@@H](C)C[C@@H](C)C1",
    "myo-inositol": "O[C@@H]1[C@H](O)[C@H](O)[C@@H](O)[C@H](O)[C@H]1O",
    "a double bond in a ring of twelve": "C1CCCCC/C=C/CCCC1",
    "a sulfoximine": "C[S@](=O)(=N)CC",
    "a phosphonate": "C[P@](=O)(OC)O",
    "an ammonium ion": "C[N@+](CC)(CCC)CCCC",
    "an aziridine": "C[N@]1C[C@H]1C",
    "a bridged amine": "C1C[N@@]2CC[C@H]1[C@@H](O)C2",
    "adamantane with four marks": "C[C@]12C[C@@H]3C[C@@H](C[C@@H](C3)C1)C2",
    "a cage": "C[C@]12C3C4C1[C@@]5(C)C4C3C25",
    "a spiro centre": "C[C@H]1CC[C@]2(CC1)CC[C@H](C)CC2",
    "a wildcard": "*[C@H](C)O",
    "an imine with its hydrogen": "[H]/N=C(/C)CC",
}
NONE = {  # marks that get no code
    "an allene": "CC=[C@]=CC",
    "a cumulene": "F/C=C=C=C/F",
    "an amine that turns over": "C[N@](CC)CCC",
    "two methyl groups": "C[C@H](C)O",
    "two hydrogens": "[H][C@]([2H])(C)O",
    "a double bond in benzene's ring": "C1=CC=C/C=C/1",
    "square planar platinum": "[NH3][Pt@SP1](Cl)(Cl)[NH3]",
    "a spiro centre that takes two marks": "C1C[C@]2(CCO1)CCNCC2",
    "dodecahedrane": "[C@@H]12[C@H]3[C@@H]4[C@H]5[C@@H]1[C@H]6[C@@H]7[C@H]2[C@@H]8[C@H]3[C@@H]9[C@H]4[C@@H]%10"
    "[C@H]5[C@@H]6[C@H]%11[C@@H]7[C@H]8[C@@H]9[C@H]%10%11",
}


def graph_of(smiles: str) -> Graphs:
    return AS_DRAWN.read_smiles([smiles])


def codes_of(graphs: Graphs) -> list[int]:
    """Codes of all marked centres, then bonds."""
    return [int(code) for code in (*graphs.atoms[:, CHIRALITY], *(graphs.bonds % 4)) if code]


def spellings(smiles: str, n: int) -> list[str]:
    """In other orders; some with hydrogens as atoms or in brackets, with Kekulé bonds, isotopes or atom maps."""
    rng = random.Random(smiles)
    texts = []
    for i in range(n):
        mol = Chem.MolFromSmiles(smiles)
        mol = Chem.AddHs(mol) if i % 5 == 1 else mol
        order = rng.sample(range(mol.GetNumAtoms()), mol.GetNumAtoms())
        mol = Chem.RenumberAtoms(mol, order)
        if i % 5 == 2:
            Chem.Kekulize(mol, clearAromaticFlags=True)
        for atom in mol.GetAtoms() if i % 5 == 3 else ():
            atom.SetAtomMapNum(rng.randrange(1, 999))
        options = {"canonical": False, "doRandom": True, "allHsExplicit": i % 5 == 4, "kekuleSmiles": i % 5 == 2}
        text = Chem.MolToSmiles(mol, **options)
        for _ in range(20):  # with hydrogens as atoms RDKit's writer turns 3 % of the double bonds in large rings
            if i % 5 != 1 or Chem.CanonSmiles(text) == Chem.CanonSmiles(smiles):
                break
            text = Chem.MolToSmiles(mol, **options)
        texts.append(text.replace("[H]", "[2H]") if i % 2 else text)
    return texts


@pytest.mark.parametrize("name", [*DRUGS, *HARD])
def test_one_molecule_has_one_graph_and_one_fingerprint(name: str) -> None:
    smiles = {**DRUGS, **HARD}[name]
    graphs = graph_of(smiles)
    expected, bits = certificate(graphs), AS_DRAWN.fingerprints(graphs, list)
    for text in spellings(smiles, 10):
        other = graph_of(text)
        assert certificate(other) == expected, text
        assert np.array_equal(AS_DRAWN.fingerprints(other, list), bits), text


@pytest.mark.parametrize("name", [*DRUGS, *HARD, *NONE])
def test_codes_are_those_of_the_plain_implementation(name: str) -> None:
    smiles = {**DRUGS, **HARD, **NONE}[name]
    mol = AS_DRAWN.parse_smiles(smiles).mol
    plain = graph_codes([mol], 1)
    plain.atoms[:, CHIRALITY], stereo = plain_stereo(mol, plain)
    plain.bonds[:] += np.array(stereo, np.uint8) - plain.bonds % 4
    assert certificate(graph_of(smiles)) == certificate(plain)


@pytest.mark.parametrize("name", NONE)
def test_marks_that_are_not_understood_or_distinguish_nothing_get_no_code(name: str) -> None:
    assert codes_of(graph_of(NONE[name])) == []


@pytest.mark.parametrize("name", DRUGS)
def test_another_configuration_has_another_graph(name: str) -> None:
    """Each centre turned round, and all of them: the mirror image."""
    mol = Chem.MolFromSmiles(DRUGS[name])
    centres = [a.GetIdx() for a in mol.GetAtoms() if str(a.GetChiralTag()) != "CHI_UNSPECIFIED"]
    for turned in (*([centre] for centre in centres), centres):
        other = Chem.Mol(mol)
        for centre in turned:
            other.GetAtomWithIdx(centre).InvertChirality()
        text = Chem.MolToSmiles(other)
        assert (certificate(graph_of(text)) != certificate(graph_of(DRUGS[name]))) == (text != Chem.MolToSmiles(mol))


@pytest.mark.parametrize(
    ("smiles", "n_isomers", "n_graphs"),
    [
        ("CC(O)C(O)C(O)C", 4, 4),
        ("CC1CCC(C)CC1", 2, 2),
        ("CC1CC(C)CC(C)C1", 2, 2),
        ("CC1OC(C)C(O)C(O)C1O", 16, 16),
        ("CC=CC(O)C=CC", 4, 4),
        ("OC1CCC(C(C)O)CC1", 4, 4),
        ("CC1CCC(CC1)C1CCC(C)CC1", 3, 3),
        ("OC1C(O)C(O)C(O)C(O)C1O", 9, 6),  # where all atoms of a ring are alike, isomers may share codes
    ],
)
def test_isomers_have_graphs_of_their_own(smiles: str, n_isomers: int, n_graphs: int) -> None:
    options = StereoEnumerationOptions(unique=True)
    with rdBase.BlockLogs():
        isomers = {Chem.MolToSmiles(mol) for mol in EnumerateStereoisomers(Chem.MolFromSmiles(smiles), options)}
    assert len(isomers) == n_isomers
    assert len({tuple(certificate(graph_of(text))) for text in isomers}) == n_graphs


def test_trans_is_1_and_cis_is_2() -> None:
    assert codes_of(graph_of("F/C=C/F")) == [1]
    assert codes_of(graph_of("F/C=C\\F")) == [2]


@pytest.mark.parametrize("name", [*DRUGS, *HARD])
def test_atoms_come_in_an_order_of_the_molecules_own(name: str) -> None:
    """Where symmetry leaves a choice the arrays of neighbours may differ, but nothing that is computed from them."""
    smiles = {**DRUGS, **HARD}[name]
    expected = graph_of(smiles)
    for text in spellings(smiles, 5):
        other = graph_of(text)
        assert np.array_equal(other.atoms, expected.atoms)
        assert sum_round(other).tobytes() == sum_round(expected).tobytes()


def sum_round(graphs: Graphs) -> np.ndarray:
    """Two rounds of sums over neighbours in float32, as an encoder adds them up."""
    arrays = graphs.arrays()
    x = np.sin(arrays["atoms"].astype(np.float32) @ np.linspace(0.1, 2, 10, dtype=np.float32))
    for _ in range(2):
        received = np.zeros_like(x)
        np.add.at(received, arrays["target"], x[arrays["source"]] * np.cos(arrays["bonds"].astype(np.float32)))
        x = x + np.tanh(received)
    return np.add.reduce(x, dtype=np.float32).reshape(1)


def test_codes_do_not_depend_on_the_molecules_beside_it() -> None:
    everything = [*DRUGS.values(), *HARD.values(), *NONE.values(), "C", "CCO"]
    together = AS_DRAWN.read_smiles(everything)
    for i, text in enumerate(everything):
        alone = graph_of(text)
        assert np.array_equal(together.select([i]).atoms, alone.atoms)
        assert np.array_equal(together.select([i]).bonds, alone.bonds)


def test_a_drawing_has_the_codes_of_its_smiles() -> None:
    for smiles in DRUGS.values():
        block = Chem.MolToMolBlock(Chem.MolFromSmiles(smiles))
        drawn = AS_DRAWN.graphs([AS_DRAWN.parse_molecule(block).mol])
        assert certificate(drawn) == certificate(graph_of(smiles)), smiles


def test_a_crossed_bond_in_a_drawing_has_no_geometry() -> None:
    mol = Chem.MolFromSmiles("C/C=C/C")
    mol.GetBondWithIdx(1).SetStereo(Chem.BondStereo.STEREOANY)
    assert codes_of(AS_DRAWN.graphs([mol])) == []
