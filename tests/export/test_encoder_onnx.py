"""The exported encoder gives the encoder's tokens for batches of any size and shape."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from mora_lite.adapter.encoder import GraphEncoder
from mora_lite.chem.graph import Graphs, concatenate

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from mora_lite.export.encoder_onnx import INPUTS, build_encoder  # noqa: E402
from mora_lite.export.featurizer import model_inputs  # noqa: E402
from mora_lite.export.graph_builder import IR_VERSION  # noqa: E402
from mora_lite.export.parity import reference_run  # noqa: E402
from mora_lite.export.probe import lone_atoms, random_graphs, star  # noqa: E402
from mora_lite.export.writer import OPSETS  # noqa: E402

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def encoder() -> GraphEncoder:
    torch.manual_seed(0)
    encoder = GraphEncoder(width=16, n_layers=2).eval()
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.5)  # biases and eps too, which begin as zeros
    return encoder


@pytest.fixture(scope="module")
def model(encoder: GraphEncoder) -> Any:
    return build_encoder(encoder, 22, {"pack": "tiny"})


def session_of(model: Any, threads: int = 1) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


@torch.no_grad()
def assert_equal(session: Any, encoder: GraphEncoder, graphs: Graphs, tolerance: float = TOLERANCE) -> None:
    batch = graphs.batch()
    expected = encoder(batch.atoms, batch.bonds, batch.source, batch.target, batch.graph, batch.n_graphs)
    for got, wanted in zip(session.run(None, model_inputs(graphs)), expected, strict=True):
        assert (got.shape, got.dtype) == (tuple(wanted.shape), np.float32)
        assert np.abs(got - wanted.numpy()).max() <= tolerance


GRAPHS = {
    "one atom": lone_atoms([6]),
    "no bonds at all": lone_atoms(range(119)),
    "one molecule": random_graphs(np.random.default_rng(0), 1, 20),
    "two sizes": concatenate([random_graphs(np.random.default_rng(1), 1, 90), lone_atoms([1])]),
    "many": random_graphs(np.random.default_rng(2), 100),
    "many bonds to one atom": star(50),
}


@pytest.mark.parametrize("graphs", GRAPHS.values(), ids=GRAPHS.keys())
def test_any_batch(model: Any, encoder: GraphEncoder, graphs: Graphs) -> None:
    assert_equal(session_of(model), encoder, graphs)


def test_several_threads_lose_nothing(model: Any, encoder: GraphEncoder) -> None:
    """Where rows are added by several threads without a lock, half of the sums of such a batch come out wrong."""
    session = session_of(model, threads=4)
    graphs = random_graphs(np.random.default_rng(3), 300)
    for _ in range(3):
        assert_equal(session, encoder, graphs)


def test_bonds_may_come_in_any_order(model: Any) -> None:
    inputs = model_inputs(GRAPHS["many"])
    order = np.random.default_rng(4).permutation(len(inputs["bond_codes"]))
    shuffled = inputs | {"edge_index": inputs["edge_index"][:, order], "bond_codes": inputs["bond_codes"][order]}
    session = session_of(model)
    for got, expected in zip(session.run(None, shuffled), session.run(None, inputs), strict=True):
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("opset", OPSETS)
def test_every_opset_that_is_offered(encoder: GraphEncoder, opset: int) -> None:
    model = build_encoder(encoder, opset, {})
    onnx.checker.check_model(model, full_check=True)
    assert model.opset_import[0].version == opset
    assert_equal(session_of(model), encoder, GRAPHS["two sizes"])


def test_the_evaluator_of_the_onnx_package_agrees(model: Any, encoder: GraphEncoder) -> None:
    run = reference_run(model)
    session = type("Session", (), {"run": lambda self, names, inputs: run(inputs)})()
    for name in ("one atom", "two sizes"):
        assert_equal(session, encoder, GRAPHS[name])


def test_half_precision_is_near(encoder: GraphEncoder) -> None:
    model = build_encoder(encoder, 22, {}, half=True)
    onnx.checker.check_model(model, full_check=True)
    types = {tensor.data_type for tensor in model.graph.initializer if tensor.name.endswith("conv/up/weight")}
    assert types == {onnx.TensorProto.FLOAT16}
    run = reference_run(model)
    session = type("Session", (), {"run": lambda self, names, inputs: run(inputs)})()
    assert_equal(session, encoder, GRAPHS["two sizes"], tolerance=0.05)
    with pytest.raises(AssertionError):
        assert_equal(session, encoder, GRAPHS["two sizes"])


def test_sizes_have_names_and_none_is_frozen(model: Any) -> None:
    def shape(value: Any) -> list[str | int]:
        return [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]

    assert {value.name: shape(value) for value in model.graph.input} == INPUTS
    outputs = {value.name: shape(value) for value in model.graph.output}
    assert outputs == {"atom_tokens": ["atoms", 16], "molecule_tokens": ["molecules", 16]}


def test_names_say_where_a_node_belongs(model: Any) -> None:
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    for name in ("encoder/layer_0/conv/up/gemm", "encoder/layer_1/virtual/pooled", "batch/n_molecules"):
        assert name in names
    assert {tensor.name for tensor in model.graph.initializer} >= {"encoder/layer_1/conv/down/weight"}


def test_the_same_model_gives_the_same_bytes(encoder: GraphEncoder) -> None:
    first, second = (build_encoder(encoder, 22, {"a": "b"}).SerializeToString(deterministic=True) for _ in range(2))
    assert first == second


def test_what_it_was_made_of_is_in_the_model(model: Any) -> None:
    assert {entry.key: entry.value for entry in model.metadata_props} == {"pack": "tiny"}
    assert (model.ir_version, model.producer_name) == (IR_VERSION, "mora-lite")


def test_all_atoms_of_a_molecule_count(encoder: GraphEncoder, model: Any) -> None:
    """A sum: the same atoms twice, in one molecule, are not what they are once."""
    session = session_of(model)
    once, twice = lone_atoms([6]), model_inputs(lone_atoms([6, 6]))
    joined = twice | {"graph_index": np.zeros(2, np.int64)}
    one, two = session.run(None, model_inputs(once))[1], session.run(None, joined)[1]
    assert one.shape == two.shape == (1, 16)
    assert np.abs(one - two).max() > 0.01
