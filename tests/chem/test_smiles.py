"""SMILES as text: canonical, in random orders, aligned with another."""

from __future__ import annotations

import random

import pytest

from mora_lite.chem.smiles import Aligner, canonical, largest, reorder

SETS = [
    "CC(=O)Cl.NCc1ccccc1.CCN(CC)CC",
    "C[C@H](N)C(=O)O.O=C(Cl)c1ccccc1.[Na+].[OH-]",
    "F/C=C/C=O.OB(O)c1ccncc1",
    "[Na+].[BH4-].O=C1CCCC1",
]


@pytest.mark.parametrize(
    ("mapped", "smiles"),
    [
        ("[CH3:1][C@@H]([OH:3])[CH3:2]", "CC(C)O"),
        ("[CH3:1]/[CH:2]=[C:3](/[CH3:4])[CH3:5]", "CC=C(C)C"),
        ("[CH3:1]/[CH:2]=[CH:3]/[CH3:4]", "C/C=C/C"),
        ("[CH3:1][C@@H:2]([OH:3])[Cl:4]", "C[C@@H](O)Cl"),
    ],
)
def test_stereochemistry_that_maps_alone_made_goes_with_them(mapped: str, smiles: str) -> None:
    assert canonical(mapped) == canonical(smiles) == smiles


@pytest.mark.parametrize("smiles", SETS)
def test_other_orders_are_the_same_molecules(smiles: str) -> None:
    orders = reorder(canonical(smiles) or "", random.Random(0), 20)
    assert {canonical(order) for order in orders} == {canonical(smiles)}
    assert len(set(orders)) > 10


@pytest.mark.parametrize("smiles", SETS)
def test_an_aligned_answer_is_the_same_molecules_nearer_to_the_question(smiles: str) -> None:
    target = canonical(smiles) or ""
    for source in reorder(target, random.Random(1), 10):
        aligned = Aligner(target).align(source)
        assert canonical(aligned) == target
        # A set aligned with itself can be copied from left to right.
        assert aligned == source


def test_the_answer_follows_the_order_of_the_question() -> None:
    aligner = Aligner("CCOC(=O)c1ccc(Br)cc1")
    assert aligner.align("Brc1ccc(C(=O)O)cc1.CCO").startswith("Brc1ccc(C(=O)O")
    assert aligner.align("CCO.O=C(O)c1ccc(Br)cc1").startswith("CCO")


@pytest.mark.parametrize("text", ["", "C1CC", "Clé", "c1ccccc"])
def test_text_that_is_no_molecule_has_no_canonical_form(text: str) -> None:
    assert canonical(text) is None


def test_numbers_that_map_atoms_are_no_part_of_a_text() -> None:
    assert canonical("[CH3:7][C@@H:2]([OH:1])[c:3]1[cH:4][nH:5][cH:6][n:8]1") == canonical("C[C@@H](O)c1c[nH]cn1")
    assert canonical("C1:C:C:C:C:C1.[13CH4:9]") == canonical("[13CH4].c1ccccc1")


def test_the_largest_molecule_of_a_set_has_no_stereochemistry() -> None:
    assert largest("Cl.C[C@H](N)C(=O)O.[Na+]") == largest("C[C@@H](N)C(=O)O") == "CC(N)C(=O)O"
    assert largest("CC.CO") == largest("CO.CC")
