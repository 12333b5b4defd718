"""The encoder sees a graph: neither the numbering of atoms nor the other molecules of a batch matter."""

from __future__ import annotations

import pytest
import torch
from rdkit import Chem
from torch import Tensor

from mora_lite.adapter.encoder import GINEConv, GraphEncoder
from mora_lite.chem.codes import graph_codes
from mora_lite.chem.featurizer import Featurizer
from mora_lite.chem.graph import GraphBatch

AS_DRAWN = Featurizer(standardize="none")


@pytest.fixture(scope="module")
def encoder() -> GraphEncoder:
    torch.manual_seed(0)
    return GraphEncoder(48, 3).eval()


def test_the_layer_is_torch_geometrics(molecules: list[str]) -> None:
    from torch_geometric.nn import GINEConv as Reference

    torch.manual_seed(0)
    batch = AS_DRAWN.read_smiles(molecules).batch()
    x = torch.randn(len(batch.atoms), 16, requires_grad=True)
    bonds = torch.randn(len(batch.bonds), 16, requires_grad=True)
    mlp = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.Linear(32, 16))
    ours, theirs = GINEConv(mlp), Reference(mlp, train_eps=True)
    with torch.no_grad():
        ours.eps.fill_(0.3)
    theirs.load_state_dict(ours.state_dict())
    a = ours(x, batch.source, batch.target, bonds)
    b = theirs(x, torch.stack([batch.source, batch.target]), bonds)
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    for p, q in zip(*(torch.autograd.grad(y.square().sum(), (x, bonds)) for y in (a, b)), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-4)


def encode(encoder: GraphEncoder, batch: GraphBatch) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        return encoder(batch.atoms, batch.bonds, batch.source, batch.target, batch.graph, batch.n_graphs)


def test_the_order_of_atoms_does_not_matter(encoder: GraphEncoder, molecules: list[str]) -> None:
    rng = torch.Generator().manual_seed(0)
    plain, shuffled, orders = [], [], []
    for smiles in molecules:
        mol = Chem.MolFromSmiles(smiles)
        order = torch.randperm(mol.GetNumAtoms(), generator=rng).tolist()
        plain.append(mol)
        shuffled.append(Chem.RenumberAtoms(mol, order))
        orders.append(order)
    graphs = graph_codes(plain, 1)
    atoms, tokens = encode(encoder, graphs.batch())
    atoms_shuffled, tokens_shuffled = encode(encoder, graph_codes(shuffled, 1).batch())
    torch.testing.assert_close(tokens_shuffled, tokens, rtol=0, atol=1e-5)
    new_places = [first + at for first, order in zip(graphs.atom_ptr, orders, strict=False) for at in order]
    torch.testing.assert_close(atoms_shuffled, atoms[new_places], rtol=0, atol=1e-5)


def test_a_molecule_is_encoded_as_if_alone(encoder: GraphEncoder, molecules: list[str]) -> None:
    graphs = AS_DRAWN.read_smiles(molecules)
    atoms, tokens = encode(encoder, graphs.batch())
    for i in range(0, len(graphs), 7):
        own_atoms, own_token = encode(encoder, graphs.select([i]).batch())
        torch.testing.assert_close(own_token[0], tokens[i], rtol=1e-6, atol=1e-6)
        own = slice(graphs.atom_ptr[i], graphs.atom_ptr[i + 1])
        torch.testing.assert_close(own_atoms, atoms[own], rtol=1e-6, atol=1e-6)


def test_different_molecules_have_different_tokens(encoder: GraphEncoder, molecules: list[str]) -> None:
    _, tokens = encode(encoder, AS_DRAWN.read_smiles(molecules).batch())
    apart = torch.cdist(tokens, tokens) + torch.eye(len(tokens)) * 9
    assert apart.min() > 1e-3


def test_every_atom_reaches_the_molecule_token(encoder: GraphEncoder) -> None:
    """Also in a salt, whose parts no bond joins: the virtual node does."""
    _, tokens = encode(encoder, AS_DRAWN.read_smiles(["C.[Na+]", "C.[K+]"]).batch())
    assert (tokens[0] - tokens[1]).abs().max() > 1e-3


def test_gradients_reach_every_parameter(encoder: GraphEncoder, molecules: list[str]) -> None:
    batch = AS_DRAWN.read_smiles(molecules).batch()
    atoms, tokens = encoder(batch.atoms, batch.bonds, batch.source, batch.target, batch.graph, batch.n_graphs)
    rng = torch.Generator().manual_seed(0)
    loss = (atoms * torch.randn(atoms.shape, generator=rng)).sum()
    (loss + (tokens * torch.randn(tokens.shape, generator=rng)).sum()).backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    encoder.zero_grad()


def test_bfloat16_stays_near(encoder: GraphEncoder, molecules: list[str]) -> None:
    batch = AS_DRAWN.read_smiles(molecules).batch()
    _, exact = encode(encoder, batch)
    with torch.autocast("cpu", torch.bfloat16):
        _, near = encode(encoder, batch)
    assert (near.float() - exact).norm() / exact.norm() < 2e-2
