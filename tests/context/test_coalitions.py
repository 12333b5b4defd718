"""Contributions of atoms: they add up, do not depend on what symmetry exchanges, and name what does the work."""

from __future__ import annotations

import numpy as np
import pytest
from rdkit import Chem

from mora_lite.chem.featurizer import Featurizer
from mora_lite.chem.graph import ATOM_FIELDS, Graphs
from mora_lite.context.coalitions import (
    HYDROGENS,
    MAX_PARTS,
    METHANE,
    attribute,
    connected_parts,
    find_groups,
    group_neighbours,
    join_groups,
    take_parts,
)
from mora_lite.context.parentage import Parentage

DRUGS = [
    "CC(=O)Oc1ccccc1C(=O)O",
    "CN1CCN(c2ccc(Nc3ncc(Cl)c(Nc4ccccc4S(=O)(=O)C(C)C)n3)cc2)CC1",
    "C[C@H](N)C(=O)N[C@@H](C)C(=O)NCC(=O)N1CCC[C@H]1C(=O)NCCCCC(=O)O",
    "CCCCCCCCCCCCCCCC(=O)OCC(OC(=O)CCCCCCC)COC(=O)CCCCCC",
]


def rough(graphs: Graphs) -> np.ndarray:
    """Two values that depend on atoms, bonds and how many there are of both, and add up in no way."""
    key = graphs.atoms.astype(np.int64) @ np.array([7, 5, 3, 11, 2, 13, 17, 19, 23, 29])
    sums = np.add.reduceat(np.sin(key), graphs.atom_ptr[:-1])
    n_bonds = np.diff(graphs.bond_ptr)
    return np.stack([sums * np.cos(n_bonds), sums**2 / (1 + n_bonds)], axis=1).astype(np.float32)


def hetero(graphs: Graphs) -> np.ndarray:
    """How many atoms are not carbon."""
    return np.add.reduceat(graphs.atoms[:, 0] != 6, graphs.atom_ptr[:-1])[:, None].astype(np.float32)


def read(smiles: str) -> Parentage:
    return Parentage.read(smiles, Featurizer())


@pytest.mark.parametrize("smiles", ["C", "CC", "[Na+].[Cl-]", "c1ccccc1", *DRUGS])
def test_contributions_add_up_whatever_the_model_says(smiles: str) -> None:
    graph = read(smiles).graph
    contributions, values, base = attribute(graph, rough)
    assert contributions.shape == (len(graph.atoms), 2)
    np.testing.assert_array_equal(base, rough(METHANE)[0])
    np.testing.assert_array_equal(values, rough(graph)[0])
    np.testing.assert_allclose(contributions.sum(axis=0), values - base, atol=1e-4)


@pytest.mark.parametrize("smiles", DRUGS)
def test_what_adds_up_atom_by_atom_is_found_again(smiles: str) -> None:
    graph = read(smiles).graph
    contributions, _, _ = attribute(graph, hetero)
    np.testing.assert_allclose(contributions[:, 0], graph.atoms[:, 0] != 6, atol=1e-6)


def test_atoms_that_symmetry_exchanges_contribute_the_same() -> None:
    molecule = read("CC(C)c1ccc(C(=O)O)cc1")
    contributions = np.empty((12, 2))
    contributions[molecule.of_graph] = attribute(molecule.graph, rough)[0]
    np.testing.assert_allclose(contributions[0], contributions[2])  # methyl groups
    np.testing.assert_allclose(contributions[4], contributions[11])  # ortho
    np.testing.assert_allclose(contributions[5], contributions[10])  # meta


def test_the_spelling_changes_nothing() -> None:
    plain = Chem.MolFromSmiles(DRUGS[1])
    by_atom = []
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(plain.GetNumAtoms()).tolist()
        spelled = Chem.MolToSmiles(Chem.RenumberAtoms(plain, order), canonical=False)
        by_atom.append(np.sort(attribute(read(spelled).graph, rough)[0], axis=0))
    np.testing.assert_allclose(by_atom[1], by_atom[0], atol=1e-5)
    np.testing.assert_allclose(by_atom[2], by_atom[0], atol=1e-5)


def test_molecules_are_scored_in_few_parts() -> None:
    for smiles in [*DRUGS, "C" * 60, "N[C@@H](C)C(=O)" * 12 + "O", "CC(C)(C)" * 12 + "C"]:
        graph = read(smiles).graph
        scored: list[int] = []

        def count(graphs: Graphs, scored: list[int] = scored) -> np.ndarray:
            scored.append(len(graphs))
            return rough(graphs)

        attribute(graph, count)
        assert len(scored) == 1
        assert scored[0] <= 1 + MAX_PARTS + len(graph.atoms)


# --- groups


@pytest.mark.parametrize(
    ("smiles", "groups"),
    [
        ("CCO", ["C", "C", "O"]),
        ("CC(=O)O", ["C", "C=O.O"]),
        ("CNC(=O)c1ccccc1", ["C", "C=O.N", "c.c.c.c.c.c"]),
        ("FC(F)(F)CCl", ["C.F.F.F", "C", "Cl"]),
        ("O=C1CCCN1C", ["C.C.C.C.N.O", "C"]),
        ("C[N+](=O)[O-]", ["C", "N.O.O"]),
        ("CS(=O)(=O)NC", ["C", "N.O.O.S", "C"]),
        ("CC#N", ["C", "C.N"]),
        ("c1ccc2ccccc2c1", ["c" * 10]),
    ],
)
def test_groups_are_what_chemists_move_as_one(smiles: str, groups: list[str]) -> None:
    molecule = read(smiles)
    found: dict[int, list[str]] = {}
    for atom, group in zip(molecule.of_graph.tolist(), find_groups(molecule.graph).tolist(), strict=True):
        found.setdefault(group, []).append(molecule.parent.GetAtomWithIdx(atom).GetSymbol())
    expected = sorted(sorted(c for c in group.upper().replace("L", "l") if c.isalpha()) for group in groups)
    assert sorted(sorted("".join(atoms)) for atoms in found.values()) == expected


def test_parts_of_a_chain_are_its_pieces() -> None:
    graph = read("CCCC").graph
    neighbours = group_neighbours(find_groups(graph), graph)
    assert len(set(connected_parts(neighbours))) == 4 + 3 + 2 + 1


def test_groups_are_joined_until_the_parts_are_few() -> None:
    graph = read("C" * 40).graph
    groups = find_groups(graph)
    joined = join_groups(groups, graph)
    assert groups.max() + 1 == 40
    assert len(list(connected_parts(group_neighbours(joined, graph)))) <= MAX_PARTS
    assert all(len(set(joined[groups == group])) == 1 for group in set(groups.tolist()))


# --- parts


@pytest.mark.parametrize(
    ("smiles", "kept", "part"),
    [
        ("Cc1ccccc1", [1, 2, 3, 4, 5, 6], "c1ccccc1"),
        ("CCO", [0, 1], "CC"),
        ("CCO", [2], "O"),
        ("CC(=O)Nc1ccccc1", [0, 1, 2, 3], "CC(N)=O"),
        ("CC#N", [0], "C"),
        ("CCCC", [1, 2], "CC"),
    ],
)
def test_a_part_filled_with_hydrogens_is_a_molecule(smiles: str, kept: list[int], part: str) -> None:
    """Of these no atom changes its hybridisation, so that the codes are exactly those of the smaller molecule."""
    molecule = read(smiles)
    mask = np.isin(molecule.of_graph, kept)[None]
    found, expected = take_parts(molecule.graph, mask), read(part).graph
    assert sorted(found.atoms.tolist()) == sorted(expected.atoms.tolist())
    assert sorted(found.bonds.tolist()) == sorted(expected.bonds.tolist())
    assert len(found) == 1


def test_more_hydrogens_than_have_a_code_share_the_last() -> None:
    graph = read("FS(F)(F)(F)(F)F").graph
    sulfur = graph.atoms[:, 0] == 16
    assert take_parts(graph, sulfur[None]).atoms[:, HYDROGENS].tolist() == [ATOM_FIELDS["hydrogens"] - 1]


def test_methane_has_the_codes_that_it_is_read_with() -> None:
    np.testing.assert_array_equal(METHANE.atoms, read("C").graph.atoms)
