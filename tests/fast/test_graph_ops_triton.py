"""Each Triton kernel gives what its plain function gives: in Triton's interpreter, or on a GPU where there is one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from mora_lite.fast import graph_ops, graph_ops_triton
from mora_lite.fast.batch import BatchSize, SortedBatch, pack_batch, unpack_batch
from mora_lite.fast.graph_ops import Norm, choose_graph_ops
from mora_lite.fast.linear import PackedLinear
from mora_lite.fast.scorer import FastScorer

pytestmark = pytest.mark.gpu  # without a CUDA device they run in the interpreter
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
TYPES = [torch.float32, torch.bfloat16, torch.float16]
WIDTH = 48  # no power of two
CLOSE = {torch.float32: 1e-5, torch.bfloat16: 4e-2, torch.float16: 4e-3}


@pytest.fixture(scope="module")
def batch(dataset) -> SortedBatch:
    """Molecules of 1 to 10 atoms, with atoms and molecules that are padding.

    Each atom or molecule is a program of its own: more of them prove nothing in the interpreter, which is slow.
    """
    graphs = dataset.graphs if DEVICE.type == "cuda" else dataset.graphs.select(range(3, len(dataset.graphs), 8))
    size = BatchSize.of(graphs, len(graphs) + 3)
    held = np.zeros(size.nbytes, np.uint8)
    pack_batch(graphs, size, held)
    return unpack_batch(torch.from_numpy(held).to(DEVICE), size)


def random(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype).to(DEVICE)


def assert_near(got: Tensor, want: Tensor) -> None:
    assert got.dtype == want.dtype
    tolerance = CLOSE[got.dtype]
    torch.testing.assert_close(got.float(), want.float(), rtol=tolerance, atol=tolerance)


def test_embed_atoms(batch: SortedBatch) -> None:
    table = random(200, WIDTH)
    assert_near(graph_ops_triton.embed_atoms(batch.atoms, table), graph_ops.embed_atoms(batch.atoms, table))


@pytest.mark.parametrize("dtype", TYPES)
def test_norm_with_virtual(batch: SortedBatch, dtype: torch.dtype) -> None:
    x, virtual = 3 * random(len(batch.atoms), WIDTH) + 1, random(len(batch), WIDTH)
    norm = Norm(random(WIDTH), random(WIDTH), 1e-5, dtype)
    got, want = (ops.norm_with_virtual(x.clone(), virtual, batch, norm) for ops in (graph_ops_triton, graph_ops))
    assert_near(got, want)


@pytest.mark.parametrize("dtype", TYPES)
def test_gather_messages(batch: SortedBatch, dtype: torch.dtype) -> None:
    h, codes = random(len(batch.atoms), WIDTH, dtype=dtype), random(80, WIDTH, dtype=dtype)
    got, want = (ops.gather_messages(h, codes, batch, 1.25) for ops in (graph_ops_triton, graph_ops))
    assert_near(got, want)


@pytest.mark.parametrize("dtype", TYPES)
def test_add_and_pool(batch: SortedBatch, dtype: torch.dtype) -> None:
    x, change = random(len(batch.atoms), WIDTH), random(len(batch.atoms), WIDTH, dtype=dtype)
    n = int(batch.atom_ptr[-1])
    ours, plain = x.clone(), x.clone()
    assert_near(graph_ops_triton.add_and_pool(ours, change, batch), graph_ops.add_and_pool(plain, change, batch))
    assert_near(ours[:n], plain[:n])


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("heads", "n_queries"), [(4, 3), (1, 1)])
def test_attention_to_a_molecules_tokens(batch: SortedBatch, heads: int, n_queries: int, dtype: torch.dtype) -> None:
    width, inner = 16, 24  # of heads of 6 or 24
    atoms, molecules = random(len(batch.atoms), width, dtype=dtype), random(len(batch), width, dtype=dtype)
    key_value = PackedLinear(random(2 * inner, width), random(2 * inner), dtype)
    query = (0.05 * random(len(batch), n_queries, inner)).to(dtype)
    got, want = (
        ops.tokens(atoms, molecules, batch).attend(query, key_value, heads)
        for ops in (graph_ops_triton.OPS, graph_ops.OPS)
    )
    assert_near(got, want)


@torch.no_grad()
def test_scores_by_fused_kernels_equal_the_plain_ones(make_scorer, batch: SortedBatch) -> None:
    scorer = make_scorer(c=1.0, direct=True).to(DEVICE)
    got, want = (FastScorer(scorer, torch.float32, ops).run(batch) for ops in (graph_ops_triton.OPS, graph_ops.OPS))
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


def test_wrong_kernels_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    graph_ops_triton.check(DEVICE)
    monkeypatch.setattr(graph_ops_triton, "embed_atoms", lambda atoms, table: table[atoms].sum(1) + 1)
    with pytest.raises(RuntimeError, match="wrong numbers"):
        graph_ops_triton.check(DEVICE)
    assert choose_graph_ops(torch.device("cpu")) is graph_ops.OPS
