"""The description of the inputs is complete: what follows it, and nothing else, makes the program's codes."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from plain_stereo import certificate, plain_stereo
from rdkit import Chem
from rdkit.Chem.MolStandardize import rdMolStandardize

from mora_lite.chem.codes import graph_codes
from mora_lite.chem.featurizer import Featurizer
from mora_lite.chem.graph import Graphs

pytest.importorskip("onnx")

from mora_lite.export.featurizer import EXAMPLE, describe_featurizer


@pytest.fixture(scope="module", params=[Featurizer(1, "none"), Featurizer(2, "none"), Featurizer(2, "parent")], ids=str)
def featurizer(request: pytest.FixtureRequest) -> Featurizer:
    return request.param


@pytest.fixture(scope="module")
def description(featurizer: Featurizer) -> dict[str, Any]:
    """As another language would read it."""
    return json.loads(json.dumps(describe_featurizer(featurizer)))


def read(description: dict[str, Any], text: str) -> Chem.Mol:
    """A molecule as `molecule` of the description says."""
    if description["version"] == 1:
        return Chem.MolFromSmiles(text)
    options = Chem.SmilesParserParams()
    options.sanitize = options.removeHs = False
    mol = Chem.MolFromSmiles(text, options)
    for atom in mol.GetAtoms():
        atom.SetIsotope(0)
        atom.SetAtomMapNum(0)
    mol = Chem.RemoveHs(mol)
    Chem.SetBondStereoFromDirections(mol)
    if "the parent is taken" in description["molecule"]:
        mol = rdMolStandardize.LargestFragmentChooser(preferOrganic=True).choose(mol)
        neutral = rdMolStandardize.Uncharger().uncharge(mol)
        return mol if Chem.SanitizeMol(neutral, catchErrors=True) else neutral
    return mol


def code_of(rule: dict[str, Any], answer: Any) -> int:
    key = str(getattr(answer, "name", int(answer) if isinstance(answer, bool) else answer))
    return rule["table"].get(key, rule["other"])


def follow(description: dict[str, Any], smiles: list[str]) -> dict[str, list[Any]]:
    """A featuriser that knows RDKit and the description."""
    atoms, source, target, bonds, graph = [], [], [], [], []
    for number, text in enumerate(smiles):
        molecule = read(description, text)
        chirality, stereo = plain_stereo(molecule, graph_codes([molecule], 1))
        first = len(atoms)
        rings = molecule.GetRingInfo().AtomRings()
        for atom in molecule.GetAtoms():
            own = [len(ring) for ring in rings if atom.GetIdx() in ring]
            special = {"ring_size": min(own, default=0), "ring_count": len(own), "stereo": chirality[atom.GetIdx()]}
            row = []
            for rule in description["atom_fields"]:
                call = rule["call"]
                row.append(code_of(rule, special[call] if call in special else getattr(atom, call)()))
            atoms.append(row)
            graph.append(number)
        for bond in molecule.GetBonds():
            fields = {}
            for rule in description["bond_fields"]:
                own_code = rule["call"] == "stereo"
                answer = stereo[bond.GetIdx()] if own_code else getattr(bond, rule["call"])()
                fields[rule["name"]] = code_of(rule, answer)
            code = sum(fields[name] * factor for name, factor in description["bond_code"]["factors"].items())
            ends = first + bond.GetBeginAtomIdx(), first + bond.GetEndAtomIdx()
            for a, b in (ends, ends[::-1]):
                source.append(a)
                target.append(b)
                bonds.append(code)
    return {"atom_codes": atoms, "edge_index": [source, target], "bond_codes": bonds, "graph_index": graph}


def test_following_it_gives_the_same_codes(
    featurizer: Featurizer, description: dict[str, Any], molecules: list[str]
) -> None:
    hard = [
        "[Fe+5]", "[U]", "O=S(=O)(O)O", "[CH2]", "[CH3]", "F[P-](F)(F)(F)(F)F", "C1CCCCCCCCC1", "C12C3C4C1C5C2C3C45",
        "F[Pt@SP1](Cl)(Br)I", "[NH3]->[Cu]", "C/C(F)=C(/Cl)Br", "[BH4-]", "F[Xe](F)(F)F", "[C-4]", "C#C",
    ]  # fmt: skip
    smiles = [*molecules, *(text for text in hard if Chem.MolFromSmiles(text) is not None)]
    got = follow(description, smiles)
    graphs = featurizer.read_smiles(smiles)
    ours = as_graphs(got)
    assert ours.n_atoms.tolist() == graphs.n_atoms.tolist()
    for i, text in enumerate(smiles):
        assert certificate(ours.select([i])) == certificate(graphs.select([i])), text
    if featurizer.version == 1:  # which keeps RDKit's order
        assert np.array_equal(ours.atoms, graphs.atoms)


def as_graphs(inputs: dict[str, list[Any]]) -> Graphs:
    """Inputs of the exported models as the program's store of graphs."""
    atom_ptr = np.concatenate([[0], np.cumsum(np.bincount(inputs["graph_index"]))])
    source, target = np.array(inputs["edge_index"])[:, ::2]  # each bond is there twice, one after the other
    molecule = np.array(inputs["graph_index"])[source]
    bond_ptr = np.searchsorted(molecule, np.arange(len(atom_ptr)))
    endpoints = (np.stack([source, target], axis=1) - atom_ptr[molecule][:, None]).astype(np.uint16)
    codes = np.array(inputs["atom_codes"], np.uint8)
    return Graphs(codes, np.array(inputs["bond_codes"][::2], np.uint8), endpoints, atom_ptr, bond_ptr)


def test_every_code_can_come_up(description: dict[str, Any]) -> None:
    for field in (*description["atom_fields"], *description["bond_fields"]):
        codes = {*field["table"].values(), field["other"]}
        assert codes <= set(range(field["codes"])), field["name"]
        of_stereo = field["call"] == "stereo"  # whose code 3 is that of RDKit's other kinds, in version 1
        assert max(codes) == field["codes"] - 1 - of_stereo, field["name"]


def test_its_example_is_one(description: dict[str, Any]) -> None:
    example = description["example"]
    assert example["smiles"] == EXAMPLE
    got = follow(description, [EXAMPLE])
    assert sorted(got["atom_codes"]) == sorted(example["atom_codes"])
    assert np.array(example["edge_index"]).shape == (2, len(example["bond_codes"]))
