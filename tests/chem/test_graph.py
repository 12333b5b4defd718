"""Molecules become codes without exception, and a batch is nothing but its molecules side by side."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem

from mora_lite.adapter.encoder import GraphEncoder
from mora_lite.chem.codes import graph_codes
from mora_lite.chem.featurizer import Featurizer
from mora_lite.chem.graph import ARRAYS, ATOM_FIELDS, BOND_FIELDS, N_BOND_CODES, Graphs, concatenate

SIZES = np.array(list(ATOM_FIELDS.values()))
COLUMN = {name: i for i, name in enumerate(ATOM_FIELDS)}
FEW = ["C", "CCO", "c1ccccc1", "[Na+].[Cl-]", "*CC*", "C[C@H](O)CC", "C/C=C/C", "CS(C)(=O)=O"]


def graphs_of(*smiles: str) -> Graphs:
    return Featurizer(standardize="none").read_smiles(smiles)


def same(a: Graphs, b: Graphs) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ARRAYS)


def assert_in_range(graphs: Graphs) -> None:
    """Every code is one that the encoder's tables have a row for."""
    assert (graphs.atoms < SIZES).all()
    assert (graphs.bonds < N_BOND_CODES).all()
    assert (graphs.bond_endpoints < np.repeat(graphs.n_atoms, np.diff(graphs.bond_ptr))[:, None]).all()


def code(graphs: Graphs, field: str) -> list[int]:
    return graphs.atoms[:, COLUMN[field]].tolist()


def bond_digits(code: int) -> list[int]:
    """A bond's code as the codes of order, conjugated, ring, stereo."""
    digits = []
    for size in reversed(BOND_FIELDS.values()):
        code, digit = divmod(code, size)
        digits.append(digit)
    return digits[::-1]


def test_every_element_and_the_wildcard_have_their_own_code() -> None:
    graphs = graphs_of("*", *(f"[#{number}]" for number in range(1, 119)))
    assert_in_range(graphs)
    assert code(graphs, "element") == list(range(119))
    assert len(graphs.bonds) == 0


def test_charges_beyond_four_share_one_code() -> None:
    graphs = graphs_of(*(f"[Fe{charge:+d}]" for charge in range(-9, 10)))
    assert_in_range(graphs)
    assert code(graphs, "charge") == [9] * 5 + list(range(9)) + [9] * 5


@pytest.mark.parametrize(
    ("smiles", "order"),
    [("CC", 0), ("C=C", 1), ("C#C", 2), ("c1ccccc1", 3), ("[Re]$[Re]", 4), ("[NH3]->[Fe]", 4)],
)
def test_bond_orders_and_one_code_for_all_the_unusual_ones(smiles: str, order: int) -> None:
    graphs = graphs_of(smiles)
    assert_in_range(graphs)
    assert {bond_digits(int(bond))[0] for bond in graphs.bonds} == {order}


def test_every_bond_type_of_rdkit_is_in_range() -> None:
    for kind in Chem.BondType.values.values():
        mol = Chem.MolFromSmiles("[Fe][Fe]")
        mol.GetBondWithIdx(0).SetBondType(kind)
        assert_in_range(graph_codes([mol], 2))


def test_stereochemistry_is_seen() -> None:
    left, right = graphs_of("C[C@H](O)CC"), graphs_of("C[C@@H](O)CC")
    assert not np.array_equal(left.atoms, right.atoms)
    assert not np.array_equal(graphs_of("C/C=C/C").bonds, graphs_of("C/C=C\\C").bonds)


def test_crowded_atoms_large_rings_and_radicals_are_in_range() -> None:
    graphs = graphs_of(
        "[U](F)(F)(F)(F)(F)(F)(F)F", "C1" + "C" * 30 + "1", "[O]", "[C]", "C12C3C4C1C5C2C3C45", "[SiH4]", "[PH5]"
    )
    assert_in_range(graphs)
    assert code(graphs, "degree")[0] == 7
    assert code(graphs, "ring_size")[9] == 7
    assert max(code(graphs, "radicals")) == 2
    assert max(code(graphs, "ring_count")) == 3
    assert max(code(graphs, "hydrogens")) == 5


def test_one_atom_has_no_bonds() -> None:
    batch = graphs_of("C").batch()
    assert batch.atoms.shape == (1, len(ATOM_FIELDS))
    assert batch.bonds.shape == batch.source.shape == batch.target.shape == (0,)
    assert batch.graph.tolist() == [0]


def test_a_salt_is_one_molecule_of_two_parts() -> None:
    graphs = graphs_of("[Na+].[Cl-]", "CC(=O)[O-].[Na+]")
    assert graphs.n_atoms.tolist() == [2, 5]
    assert np.diff(graphs.bond_ptr).tolist() == [0, 3]


def test_a_batch_counts_atoms_on_and_has_every_bond_both_ways() -> None:
    batch = graph_codes([Chem.MolFromSmiles(text) for text in ("CO", "N", "CCC")], 1).batch()  # in the text's order
    assert batch.n_graphs == 3
    assert batch.graph.tolist() == [0, 0, 1, 2, 2, 2]
    assert batch.source.tolist() == [0, 3, 4, 1, 4, 5]
    assert batch.target.tolist() == [1, 4, 5, 0, 3, 4]
    assert torch.equal(batch.bonds[:3], batch.bonds[3:])


def test_compact_types_hold_the_store() -> None:
    graphs = graphs_of(*FEW)
    assert [getattr(graphs, name).dtype for name in ARRAYS] == ["uint8", "uint8", "uint16", "int64", "int64"]
    assert graphs.descriptors is None


@given(st.lists(st.sampled_from(range(len(FEW))), min_size=1, max_size=12), st.data())
@settings(max_examples=60, deadline=None)
def test_select_and_concatenate_are_inverse(rows: list[int], data: st.DataObject) -> None:
    """Rows in any order and number, taken apart at any place and put together again, are those rows."""
    graphs = graphs_of(*FEW)
    chosen = graphs.select(rows)
    assert same(chosen, graphs_of(*(FEW[row] for row in rows)))
    cut = data.draw(st.integers(0, len(rows)))
    assert same(concatenate([graphs.select(rows[:cut]), graphs.select(rows[cut:])]), chosen)
    assert same(concatenate([graphs.select([row]) for row in rows]), chosen)


def test_stores_are_joined_with_descriptors_only_if_all_have_them() -> None:
    plain = graphs_of("CCO", "C")
    described = replace(plain, descriptors=np.array([[1.0], [2.0]], np.float32))
    assert concatenate([plain, described]).descriptors is None
    joined = concatenate([described, described]).select([3, 0]).descriptors
    assert joined is not None
    assert joined.tolist() == [[2.0], [1.0]]


def test_select_of_nothing_is_empty() -> None:
    graphs = graphs_of(*FEW).select([])
    assert len(graphs) == 0
    assert len(graphs.atoms) == len(graphs.bonds) == 0


@torch.no_grad()
@pytest.mark.parametrize("padding", ["padded", "rounded"])
def test_padding_changes_no_molecule(padding: str) -> None:
    """The added atoms belong to one more molecule, and no bond leads from them to a real atom."""
    torch.manual_seed(0)
    encoder = GraphEncoder(32, 2)
    batch = graphs_of(*FEW).batch()
    if padding == "padded":
        larger = batch.padded(len(batch.atoms) + 9, len(batch.bonds) + 14)
    else:
        larger = batch.rounded(64)
        assert len(larger.atoms) % 64 == 0
    assert larger.n_graphs == batch.n_graphs + 1

    def tokens(b):
        return encoder(b.atoms, b.bonds, b.source, b.target, b.graph, b.n_graphs)

    atoms, molecules = tokens(batch)
    more_atoms, more_molecules = tokens(larger)
    torch.testing.assert_close(more_atoms[: len(atoms)], atoms, rtol=0, atol=1e-6)
    torch.testing.assert_close(more_molecules[: len(FEW)], molecules, rtol=0, atol=1e-6)


def test_a_batch_that_just_fills_a_multiple_still_gets_padding() -> None:
    batch = graphs_of(*["C"] * 64).batch().rounded(64)
    assert len(batch.atoms) == 128
    assert batch.graph[64:].unique().tolist() == [64]
