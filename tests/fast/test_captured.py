"""Batches as bytes for a CUDA device: what is unpacked there is what the scorer is given here."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("safetensors")

from mora_lite import load
from mora_lite.chem.featurizer import Featurizer
from mora_lite.chem.graph import Graphs
from mora_lite.fast import captured as captured_module
from mora_lite.fast.batch import BatchSize, pack_batch, rounded_size, unpack_batch
from mora_lite.fast.captured import CapturedScorer
from mora_lite.fast.scorer import FastScorer


def as_bytes(graphs: Graphs, size: BatchSize) -> torch.Tensor:
    out = np.full(size.nbytes, 0xAB, np.uint8)  # padding may hold anything
    pack_batch(graphs, size, out)
    return torch.from_numpy(out)


@torch.no_grad()
@pytest.mark.parametrize("capacity", [0, 300])
def test_a_batch_scores_the_same_through_bytes(make_scorer, dataset, capacity: int) -> None:
    fast, graphs = FastScorer(make_scorer(c=1.0, direct=True), torch.float32), dataset.graphs
    size = BatchSize.of(graphs, capacity or len(graphs))
    scores = fast.run(unpack_batch(as_bytes(graphs, size), size))
    assert scores.shape[0] == size.molecules
    torch.testing.assert_close(scores[: len(graphs)], fast(graphs), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_atoms_without_bonds_and_molecules_of_one_atom(make_scorer) -> None:
    fast = FastScorer(make_scorer(c=1.0), torch.float32)
    for smiles in (["C"], ["[Na+].[Cl-]", "C", "CCO"], ["C"] * 9):
        graphs = Featurizer().read_smiles(smiles)
        size = BatchSize.of(graphs, 16)
        scores = fast.run(unpack_batch(as_bytes(graphs, size), size))[: len(graphs)]
        torch.testing.assert_close(scores, fast(graphs), rtol=1e-5, atol=1e-5)


def test_sizes_are_few_and_at_most_a_quarter_too_large() -> None:
    found = {rounded_size(n) for n in range(1, 200_000)}
    assert len(found) < 50
    assert all(n <= rounded_size(n) <= max(256, n * 1.25 + 256) for n in range(1, 200_000, 97))


def test_batches_of_a_library_have_few_sizes(dataset) -> None:
    random = np.random.default_rng(0)
    batches = [dataset.graphs.select(random.integers(len(dataset), size=512)) for _ in range(50)]
    assert len({BatchSize.of(graphs, 512) for graphs in batches}) <= 2


class FakeGraph:
    def replay(self) -> None: ...


@torch.no_grad()
def test_a_size_is_captured_when_it_is_met_again(make_scorer, dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    n_captures = 0

    def capture(work, device, pool, stream):
        nonlocal n_captures
        n_captures += 1
        assert (pool, stream) == ("pool", "stream"), "graphs share memory only on one stream"
        return FakeGraph(), work()

    monkeypatch.setattr(captured_module, "capture", capture)
    monkeypatch.setattr(captured_module, "MAX_GRAPHS", 2)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: "pool")
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: "stream")
    engine = CapturedScorer(FastScorer(make_scorer(c=1.0), torch.float32), torch.device("cpu"))
    graphs = dataset.graphs.select(np.arange(20))
    sizes = [BatchSize.of(graphs, molecules) for molecules in (64, 128, 192)]

    def captures(*met: int) -> list[int]:
        """How many there are after a batch of each size."""
        counts = []
        for i in met:
            scores = engine._score(sizes[i], as_bytes(graphs, sizes[i]))[: len(graphs)]
            torch.testing.assert_close(scores, engine.fast(graphs), rtol=1e-5, atol=1e-5)
            counts.append(n_captures)
        return counts

    assert captures(0, 1, 0, 0, 1) == [0, 0, 1, 1, 2]
    assert captures(2, 1, 0, 0) == [2, 2, 2, 3], "two sizes are kept, and the one not met for longest is forgotten"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_replayed_scores_equal_those_of_the_plain_scorer(pack_path, molecules) -> None:
    smiles = molecules * 5
    plain, fast = (load(pack_path, device=device, dtype=t) for device, t in (("cpu", "float32"), ("cuda", "auto")))
    assert isinstance(fast.engine, CapturedScorer)
    expected = plain.score(smiles).values
    scores = fast.score(smiles).values  # kernel by kernel; later as a graph
    for _ in range(2):
        assert np.array_equal(fast.score(smiles).values, scores), "the same bits each time"
        error = np.abs(scores - expected).mean(axis=0)
        assert (error <= 0.05 * expected.std(axis=0)).all(), "each task in units of its own deviation"
