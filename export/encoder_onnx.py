"""The graph encoder as ONNX: `encoder.GraphEncoder` in operators whose sums are right for any number of threads.

ONNX Runtime adds rows of repeated indices (ScatterND with reduction=add) in several threads without a lock, and loses
some of them; ScatterElements is right and took 30 times as long. So nothing is scattered here: bonds are sorted by the
atom they lead to, each atom has a row of their positions, and what stands at those positions is looked up and summed.
Positions that are left over hold a bond whose message is zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from ..adapter.encoder import POOL_SCALE, EncoderLayer, GraphEncoder
from ..chem.graph import ATOM_FIELDS, N_BOND_CODES
from .graph_builder import FAR_BELOW, GraphBuilder

INPUTS: dict[str, list[str | int]] = {
    "atom_codes": ["atoms", len(ATOM_FIELDS)],
    "edge_index": [2, "edges"],
    "bond_codes": ["edges"],
    "graph_index": ["atoms"],
}


@dataclass(frozen=True)
class BatchLayout:
    """Where things lie in a batch, as names of values.

    source, bonds: int64 `[E+1]`, sorted by target, then one bond that is none.
    incoming: int64 `[V, most]`, positions in these two of the bonds to each atom.
    first, counts: int64 `[B, 1]`, a molecule's first atom and number of atoms.
    atoms: int64 `[B, longest]`, the atoms of a molecule, where there are any.
    pool: float32 `[B, 1, longest]`, their weights in a sum.
    """

    source: str
    bonds: str
    incoming: str
    graph: str
    n_molecules: str
    first: str
    counts: str
    atoms: str
    pool: str


def build_encoder(
    encoder: GraphEncoder, opset: int, metadata: dict[str, str], *, half: bool = False
) -> onnx.ModelProto:
    """`INPUTS` -> atom_tokens float32 `[atoms, width]` and molecule_tokens float32 `[molecules, width]`.

    half: matrix products in float16, norms and sums in float32.
    """
    g = GraphBuilder("mora_lite_encoder", opset, half=half)
    add_inputs(g)
    atoms, molecules, _ = add_encoder(g, encoder)
    g.output(atoms, "atom_tokens", ["atoms", encoder.width])
    g.output(molecules, "molecule_tokens", ["molecules", encoder.width])
    return g.model(metadata)


def add_inputs(g: GraphBuilder) -> None:
    """The inputs of a batch of graphs."""
    for name, shape in INPUTS.items():
        g.input(name, shape)


def add_encoder(g: GraphBuilder, encoder: GraphEncoder) -> tuple[str, str, BatchLayout]:
    """Atom tokens `[V, width]`, molecule tokens `[B, width]`, and where everything lies."""
    with g.scope("batch"):
        layout = lay_out_batch(g)
    with g.scope("encoder"):
        x = embed_atoms(g, encoder)
        shape = g.op("Concat", layout.n_molecules, g.ints(encoder.width), axis=0)
        virtual = g.op("Expand", g.constant("virtual_start", encoder.virtual_start.float()), shape)
        for i, layer in enumerate(encoder.layers):
            assert isinstance(layer, EncoderLayer)
            with g.scope(f"layer_{i}"):
                x, virtual = add_layer(g, layer, x, virtual, layout)
        atoms = g.layer_norm(x, encoder.atom_norm, "atom_norm")
        return atoms, g.layer_norm(virtual, encoder.virtual_norm, "virtual_norm"), layout


def lay_out_batch(g: GraphBuilder) -> BatchLayout:
    """Sort the bonds, count, and lay out."""
    graph = "graph_index"
    source, target = (g.gather("edge_index", g.number(i), name=name) for i, name in enumerate(("source", "target")))
    n_bonds, n_atoms = g.size("bond_codes", 0), g.size("atom_codes", 0)
    _, order = g.split_op("TopK", 2, target, n_bonds, name="order", axis=0, largest=0, sorted=1)
    source = g.op("Concat", g.gather(source, order), g.ints(0), name="sorted_source", axis=0)
    bonds = g.op("Concat", g.gather("bond_codes", order), g.ints(N_BOND_CODES), name="sorted_bonds", axis=0)
    first, counts, at = count_runs(g, target, n_bonds, n_atoms)
    here = g.op("Less", at, counts)
    incoming = g.op("Where", here, g.op("Add", first, at), n_bonds, name="incoming")

    n_molecules = count_molecules(g)
    first, counts, at = count_runs(g, graph, n_atoms, n_molecules)
    here = g.op("Less", at, counts)
    atoms = g.op("Where", here, g.op("Add", first, at), g.ints(0), name="own_atoms")
    pool = g.op("Where", here, g.number(1 / POOL_SCALE), g.number(0.0), name="pool")
    return BatchLayout(source, bonds, incoming, graph, n_molecules, first, counts, atoms, g.unsqueeze(pool, 1))


def count_molecules(g: GraphBuilder) -> str:
    """int64 `[1]`."""
    return g.op("Add", g.op("ReduceMax", "graph_index", keepdims=1, name="last"), g.ints(1), name="n_molecules")


def count_runs(g: GraphBuilder, index: str, n: str, n_owners: str) -> tuple[str, str, str]:
    """Of n things with an owner each: every owner's first position once sorted and its count, int64 `[owners, 1]`; and
    int64 `[most]`, the numbers 0 .. most-1.
    """
    zeros, ones = (g.op("ConstantOfShape", size, value=_fill(value)) for size, value in ((n_owners, 0), (n, 1)))
    counts = g.op("ScatterElements", zeros, index, ones, name="counts", axis=0, reduction="add")
    first = g.op("CumSum", counts, g.number(0), name="first", exclusive=1)
    most = g.op("Max", g.op("ReduceMax", counts, keepdims=0), g.number(1), name="most")
    at = g.op("Range", g.number(0), most, g.number(1))
    return g.unsqueeze(first, 1), g.unsqueeze(counts, 1), at


def _fill(value: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array([value], np.int64))


# How many fields each look-up covers, in the order of `ATOM_FIELDS`: four rows to fetch and add for each atom instead
# of ten, for some hundred more in the table.
JOINED = (1, 3, 4, 2)


def embed_atoms(g: GraphBuilder, encoder: GraphEncoder) -> str:
    """The sum over an atom's fields of a row for each code: float32 `[V, width]`."""
    weight = encoder.atom_codes.weight.detach().double()
    sizes = list(ATOM_FIELDS.values())
    tables = [weight[start : start + n] for start, n in zip(encoder.field_start.tolist(), sizes, strict=True)]
    ends = np.cumsum([0, *JOINED]).tolist()
    assert ends[-1] == len(sizes)
    steps = np.zeros((len(sizes), len(JOINED)), np.int64)
    rows, offset, offsets = [], 0, []
    for group, (start, stop) in enumerate(pairwise(ends)):
        joined = torch.zeros(1, encoder.width, dtype=torch.float64)
        for field in range(start, stop):
            steps[start:field, group] *= sizes[field]
            steps[field, group] = 1
            joined = (joined.unsqueeze(1) + tables[field]).flatten(0, 1)
        rows.append(joined)
        offsets.append(offset)
        offset += len(joined)
    with g.scope("atom_codes"):
        table = g.constant("table", torch.cat(rows).float())
        number = g.op("MatMul", "atom_codes", g.constant("steps", steps))
        number = g.op("Add", number, g.constant("offsets", np.array(offsets, np.int64)))
        return g.sum(g.gather(table, number), 1)


def add_layer(g: GraphBuilder, layer: EncoderLayer, x: str, virtual: str, layout: BatchLayout) -> tuple[str, str]:
    """`encoder.EncoderLayer`."""
    assert isinstance(layer.conv.nn, torch.nn.Sequential)
    up, _, down = layer.conv.nn
    first, _, last = layer.virtual_mlp
    h = g.layer_norm(g.op("Add", x, g.gather(virtual, layout.graph)), layer.norm, "norm")
    with g.scope("conv"):
        received = add_messages(g, h, layer.bond_codes.weight.detach().float(), layout)
        itself = g.op("Mul", h, g.constant("own", 1 + layer.conv.eps.detach().float()))
        hidden = g.op("Relu", g.layer(g.op("Add", received, itself), up, "up"))
        x = g.op("Add", x, g.layer(hidden, down, "down"))
    with g.scope("virtual"):
        pooled = add_pooled(g, x, layout)
        both = g.layer_norm(g.op("Concat", virtual, pooled, axis=1), layer.virtual_norm, "norm")
        hidden = g.gelu(g.layer(both, first, "first"))
        return x, g.op("Add", virtual, g.layer(hidden, last, "last"))


def add_messages(g: GraphBuilder, h: str, bond_codes: torch.Tensor, layout: BatchLayout) -> str:
    """The sum over the bonds to each atom of `relu(h[source] + bond)`: float32 `[V, width]`."""
    none = torch.full((1, bond_codes.shape[1]), FAR_BELOW)  # below zero with whatever is added, so relu makes it 0
    table = g.constant("bond_codes", torch.cat([bond_codes, none]))
    message = g.op("Relu", g.op("Add", g.gather(h, layout.source), g.gather(table, layout.bonds)), name="messages")
    return g.sum(g.gather(message, layout.incoming), 1, name="received")


def add_pooled(g: GraphBuilder, x: str, layout: BatchLayout) -> str:
    """The sum over each molecule's atoms, scaled: float32 `[B, width]`."""
    pooled = g.op("MatMul", layout.pool, g.gather(x, layout.atoms), name="pooled")
    return g.op("Squeeze", pooled, g.ints(1))
