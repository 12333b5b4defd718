"""Similarity to the training molecules: RDKit's numbers, exactly, however the work is cut up."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any, NamedTuple
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem, DataStructs
from rdkit.Chem import rdFingerprintGenerator

pytest.importorskip("safetensors")
from safetensors.torch import load, save

from mora_lite.chem.morgan import fingerprints
from mora_lite.errors import PackError
from mora_lite.scoring import domain as domain_module
from mora_lite.scoring import similarity
from mora_lite.scoring.domain import Domain, threshold_of

CPU = torch.device("cpu")
N_TRAIN = 45  # of the 60 molecules of conftest.py; the others are only asked about


@pytest.fixture(autouse=True)
def without_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU torch compares these molecules too, although they are few."""
    monkeypatch.setattr(domain_module, "FEW_ROWS", 0)


@pytest.fixture(scope="module")
def mols(molecules: list[str]) -> list[Chem.Mol]:
    return [Chem.MolFromSmiles(smiles) for smiles in molecules]


@pytest.fixture(scope="module")
def packed(mols: list[Chem.Mol]) -> np.ndarray:
    return fingerprints(mols)


@pytest.fixture(scope="module")
def known() -> np.ndarray:
    """Values of four tasks; nothing is known for the last."""
    known = np.random.default_rng(0).random((N_TRAIN, 4)) < 0.4
    known[:, 3] = False
    return known


@pytest.fixture(scope="module")
def expected(mols: list[Chem.Mol], known: np.ndarray) -> np.ndarray:
    """RDKit's similarity of every molecule to the nearest that has a value, one pair at a time."""
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=1024)
    bits = [generator.GetFingerprint(mol) for mol in mols]
    pairs = np.array([DataStructs.BulkTanimotoSimilarity(query, bits[:N_TRAIN]) for query in bits])
    return np.where(known[None], pairs[:, :, None], 0).max(1).astype(np.float32)


@pytest.fixture
def domain(packed: np.ndarray, known: np.ndarray) -> Domain:
    return Domain.of(packed[:N_TRAIN], known)


def random_fingerprints(n: int, density: float, seed: int = 0) -> np.ndarray:
    return np.packbits(np.random.default_rng(seed).random((n, 1024)) < density, axis=1)


def test_few_molecules_are_compared_without_torch(
    domain: Domain, packed: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The numbers are the same, and the tables of torch are not made."""
    by_torch = domain.similarity(packed[:5], CPU)
    monkeypatch.setattr(domain_module, "FEW_ROWS", 5)
    fresh = Domain(domain.packed, domain.patterns, domain.sizes)
    np.testing.assert_array_equal(fresh.similarity(packed[:5], CPU), by_torch)
    assert "bags" not in fresh._cache
    fresh.similarity(packed[:6], CPU)
    assert "bags" in fresh._cache


def plain_similarity(query: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Tanimoto similarity of all pairs, float32 `[B, N]`."""
    a, b = (np.unpackbits(packed, axis=1).astype(np.float32) for packed in (query, reference))
    inter = a @ b.T
    return inter / np.maximum(a.sum(1)[:, None] + b.sum(1) - inter, 1)


def test_equals_rdkit(domain: Domain, packed: np.ndarray, expected: np.ndarray) -> None:
    got = domain.similarity(packed, CPU)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, expected)
    assert 0 < np.median(got[:, :3]) < 1


def test_without_torch_the_numbers_are_the_same(
    monkeypatch: pytest.MonkeyPatch, domain: Domain, packed: np.ndarray, expected: np.ndarray
) -> None:
    np.testing.assert_array_equal(domain.similarity(packed), expected)
    for rows, cached in ((7, 1 << 28), (16, 0), (1, 0)):
        monkeypatch.setattr(domain_module, "COLUMN_ROWS", rows)
        monkeypatch.setattr(domain_module, "CACHED_BYTES", cached)
        fresh = Domain(domain.packed, domain.patterns, domain.sizes)
        np.testing.assert_array_equal(fresh.similarity(packed), expected)


@pytest.mark.parametrize("device", [None, CPU])
def test_an_empty_domain_is_far_from_everything_and_no_questions_have_no_answers(
    domain: Domain, packed: np.ndarray, device: torch.device | None
) -> None:
    nothing = Domain.of(packed, np.zeros((len(packed), 2), bool))
    assert nothing.packed.shape == (0, 128)
    assert nothing.similarity(packed[:3], device).tolist() == [[0.0, 0.0]] * 3
    assert domain.similarity(fingerprints([]), device).shape == (0, 4)


def test_fingerprints_without_bits_have_nothing_in_common() -> None:
    empty = fingerprints([Chem.MolFromSmiles("")])
    assert not empty.any()
    assert Domain.of(empty, np.ones((1, 1), bool)).similarity(empty, CPU).tolist() == [[0.0]]


def test_equal_rows_are_stored_once() -> None:
    three = random_fingerprints(3, 0.05)
    rows = three[[0, 0, 1, 0, 2]]
    known = np.array([[1, 0], [1, 0], [1, 0], [0, 1], [0, 0]], bool)
    domain = Domain.of(rows, known)
    assert domain.patterns.tolist() == [[False, True], [True, False]]
    assert domain.sizes.tolist() == [1, 2]
    assert {row.tobytes() for row in domain.packed[1:]} == {three[0].tobytes(), three[1].tobytes()}


@pytest.mark.parametrize(("reference", "query", "lanes", "short"), [(7, 512, 64, 8), (4096, 7, 2, 1), (1, 1, 128, 2)])
def test_cutting_the_work_up_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
    domain: Domain,
    packed: np.ndarray,
    expected: np.ndarray,
    reference: int,
    query: int,
    lanes: int,
    short: int,
) -> None:
    monkeypatch.setattr(similarity, "CHUNK_ROWS", reference)
    monkeypatch.setattr(domain_module, "QUERY_ROWS", query)
    monkeypatch.setattr(similarity, "LANES", lanes)
    monkeypatch.setattr(similarity, "SHORT_RUN", short)
    np.testing.assert_array_equal(domain.similarity(packed, CPU), expected)


@pytest.mark.parametrize("density", [0.0, 0.03, 0.6, 1.0])
def test_long_runs_and_intersections_of_any_size_are_exact(density: float) -> None:
    """Also those above 255, which no byte holds."""
    reference, query = random_fingerprints(1500, density), random_fingerprints(9, density, seed=1)
    known = np.random.default_rng(2).random((1500, 2)) < 0.6
    domain = Domain.of(reference, known)
    assert sum(len(chunk.counts) for chunk in domain._on_cpu().chunks) < 750
    expected = np.where(known[None], plain_similarity(query, reference)[:, :, None], 0).max(1)
    for device in (None, CPU):
        np.testing.assert_array_equal(domain.similarity(query, device), expected)


def test_equally_many_bits_but_other_tasks() -> None:
    """All 40 fingerprints have 30 bits, so only the tasks they have values for tell the runs apart."""
    random = np.random.default_rng(0)
    reference = np.packbits(random.permuted(np.tile(np.arange(1024) < 30, (40, 1)), axis=1), axis=1)
    known = np.arange(40)[:, None] // 20 == np.arange(2)
    expected = plain_similarity(reference, reference).reshape(40, 2, 20).max(2)
    np.testing.assert_array_equal(Domain.of(reference, known).similarity(reference, CPU), expected)


def as_on_gpu(domain: Domain, packed: np.ndarray) -> np.ndarray:
    """What a GPU computes, on a CPU."""
    reference = similarity.ProductReference(domain.packed, domain.patterns, domain.sizes, CPU)
    return reference(packed)


@pytest.mark.parametrize(("rows", "results", "cached", "piece"), [(16, 1, 1 << 28, 32), (32, 1 << 28, 0, 2)])
def test_as_on_gpus(
    monkeypatch: pytest.MonkeyPatch,
    domain: Domain,
    packed: np.ndarray,
    expected: np.ndarray,
    rows: int,
    results: int,
    cached: int,
    piece: int,
) -> None:
    np.testing.assert_array_equal(as_on_gpu(domain, packed), expected)
    monkeypatch.setattr(similarity, "PRODUCT_ROWS", rows)
    monkeypatch.setattr(similarity, "RESULT_BYTES", results)
    monkeypatch.setattr(similarity, "CACHED_BYTES", cached)
    monkeypatch.setattr(similarity, "PIECE", piece)
    np.testing.assert_array_equal(as_on_gpu(domain, packed), expected)
    assert as_on_gpu(domain, packed[:0]).shape == (0, expected.shape[1])


def test_as_on_gpus_molecules_with_equally_many_bits_are_divided_once() -> None:
    random = np.random.default_rng(0)
    reference = np.packbits(random.permuted(np.tile(np.arange(1024) < 30, (100, 1)), axis=1), axis=1)
    domain = Domain.of(reference, np.ones((100, 1), bool))
    product = similarity.ProductReference(domain.packed, domain.patterns, domain.sizes, CPU)
    assert (product.group, len(product.counts)) == (16, 7)
    query = random_fingerprints(5, 0.05)
    np.testing.assert_array_equal(product(query), plain_similarity(query, reference).max(1, keepdims=True))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_all_ways_give_the_numbers_of_the_plain_one(data: st.DataObject) -> None:
    """Few bits and many, runs and none, tasks without molecules: by torch on a CPU and a GPU, and by NumPy."""
    seed, n_tasks = data.draw(st.integers(0, 99)), data.draw(st.integers(1, 5))
    reference, query = (
        np.concatenate([random_fingerprints(n, density, seed + n) for n, density in parts])
        for parts in (
            data.draw(
                st.lists(st.tuples(st.integers(0, 60), st.sampled_from([0, 0.005, 0.05, 0.25, 0.26, 1])), min_size=1)
            )
            for _ in range(2)
        )
    )
    known = np.random.default_rng(seed).random((len(reference), n_tasks)) < data.draw(st.sampled_from([0.1, 0.7, 1]))
    pairs = plain_similarity(query, reference)
    expected = np.where(known[None], pairs[:, :, None], 0).max(1, initial=0)
    domain = Domain.of(reference, known)
    for got in (domain.similarity(query, CPU), domain.similarity(query), as_on_gpu(domain, query)):
        np.testing.assert_array_equal(got, expected)


def test_most_of_a_batch_is_captured_and_filled_up(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    domain: Domain,
    packed: np.ndarray,
    expected: np.ndarray,
) -> None:
    class Graph(NamedTuple):
        """What a graph does, on a CPU: the same work on what is in its input now, into its first result."""

        work: Callable[[], torch.Tensor]
        result: torch.Tensor

        def replay(self) -> None:
            self.result.copy_(self.work())

    def capture(work: Callable[[], torch.Tensor], device: torch.device) -> tuple[Graph, torch.Tensor]:
        graphs.append(Graph(work, work()))
        return graphs[-1], graphs[-1].result

    graphs: list[Graph] = []
    monkeypatch.setattr(similarity, "capture", capture)
    monkeypatch.setattr(similarity, "QUERY_ROWS", 8)
    reference = similarity.ProductReference(domain.packed, domain.patterns, domain.sizes, CPU)
    reference.captures = True
    np.testing.assert_array_equal(reference(packed[:4]), expected[:4])
    assert not graphs, "half a batch runs kernel by kernel"
    np.testing.assert_array_equal(reference(packed), expected)
    np.testing.assert_array_equal(reference(packed[5:11]), expected[5:11])
    assert len(graphs) == 1
    replay = Mock(side_effect=[torch.OutOfMemoryError("full"), RuntimeError("not\nsupported")])
    monkeypatch.setattr(Graph, "replay", replay)
    with pytest.raises(torch.OutOfMemoryError):
        reference(packed[:8])
    assert reference.captured is None, "its memory is free again"
    np.testing.assert_array_equal(reference(packed), expected)
    assert caplog.messages == ["similarity cannot be captured, which is slower: not"]
    assert replay.call_count == 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_the_same_numbers(
    monkeypatch: pytest.MonkeyPatch, domain: Domain, packed: np.ndarray, expected: np.ndarray
) -> None:
    cuda = torch.device("cuda")
    np.testing.assert_array_equal(domain.similarity(packed, cuda), expected)
    monkeypatch.setattr(similarity, "QUERY_ROWS", 8)
    for rows in (slice(None), slice(5, 11), slice(2), slice(None)):  # captured, replayed, kernel by kernel, replayed
        np.testing.assert_array_equal(domain.similarity(packed[rows], cuda), expected[rows])


def test_a_molecule_alone_or_among_others(domain: Domain, packed: np.ndarray, expected: np.ndarray) -> None:
    alone = np.concatenate([domain.similarity(packed[i : i + 1], CPU) for i in range(len(packed))])
    np.testing.assert_array_equal(alone, expected)


def test_storing(domain: Domain, packed: np.ndarray, expected: np.ndarray) -> None:
    stored = domain.tensors()
    assert stored["deflated"].dtype == torch.uint8
    assert stored["counts"].dtype == torch.uint16
    back = Domain.from_tensors(load(save(stored)))
    for name in ("packed", "patterns", "sizes"):
        got, want = getattr(back, name), getattr(domain, name)
        assert got.dtype == want.dtype
        np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(back.similarity(packed, CPU), expected)


@pytest.mark.parametrize("positions", [[0], [1023], [0, 255, 510], [254, 509, 1019], [0, 1023], [255, 256], []])
def test_storing_long_gaps(positions: list[int]) -> None:
    """Gaps of 255 and more take several bytes; rows without bits take none."""
    bits = np.zeros((3, 1024), np.uint8)
    bits[1, positions] = 1
    bits[2, 7] = 1
    domain = Domain.of(np.packbits(bits, axis=1), np.ones((3, 1), bool))
    np.testing.assert_array_equal(Domain.from_tensors(load(save(domain.tensors()))).packed, domain.packed)


def test_gaps_of_packs_from_before_are_read(domain: Domain, packed: np.ndarray, expected: np.ndarray) -> None:
    stored = domain.tensors()
    gaps = np.frombuffer(zlib.decompress(stored.pop("deflated").numpy().tobytes()), np.uint8)
    back = Domain.from_tensors({**stored, "gaps": torch.from_numpy(gaps.copy())})
    np.testing.assert_array_equal(back.similarity(packed, CPU), expected)


@pytest.mark.parametrize(
    "content", [b"", b"no zlib", zlib.compress(b""), zlib.compress(bytes(10**8)), zlib.compress(b"\1" * 9)[:-5]]
)
def test_damaged_fingerprints_are_refused(domain: Domain, content: bytes) -> None:
    """Also those that would fill the memory."""
    stored = {**domain.tensors(), "deflated": np.frombuffer(content, np.uint8)}
    with pytest.raises(PackError, match="the fingerprints of the training molecules are damaged"):
        Domain.from_tensors(stored)


def test_bits_past_the_last_are_refused(domain: Domain) -> None:
    gaps = np.full(int(domain.tensors()["counts"].sum()), 254, np.uint8)
    with pytest.raises(PackError, match="the fingerprints of the training molecules are damaged"):
        Domain.from_tensors({**domain.tensors(), "gaps": gaps})


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("sizes", lambda sizes: sizes + 1),
        ("sizes", lambda sizes: sizes[:-1]),
        ("sizes", lambda sizes: np.concatenate([sizes[:1] + 2**30, sizes[1:] - 2**30])),
        ("patterns", lambda patterns: patterns[1:]),
        ("patterns", lambda patterns: patterns[:, 0]),
        ("counts", lambda counts: counts[1:]),
        ("counts", lambda counts: counts * 0 + 1025),
        ("counts", lambda counts: counts[:, None]),
    ],
)
def test_parts_that_do_not_fit_each_other_are_refused(domain: Domain, name: str, change: Any) -> None:
    stored = {key: tensor.numpy() for key, tensor in domain.tensors().items()}
    with pytest.raises(PackError, match="the fingerprints of the training molecules are damaged"):
        Domain.from_tensors({**stored, name: change(stored[name])})


def test_storing_nothing() -> None:
    back = Domain.from_tensors(load(save(Domain.of(fingerprints([]), np.zeros((0, 2), bool)).tensors())))
    assert back.similarity(random_fingerprints(1, 0.1), CPU).tolist() == [[0.0, 0.0]]


def test_select(domain: Domain, packed: np.ndarray, known: np.ndarray, expected: np.ndarray) -> None:
    chosen = domain.select([2, 0])
    np.testing.assert_array_equal(chosen.similarity(packed, CPU), expected[:, [2, 0]])
    one = domain.select([1])
    assert len(one.packed) <= known[:, 1].sum() < len(domain.packed)
    assert one.patterns.tolist() == [[True]]


def test_threshold() -> None:
    similarity = np.random.default_rng(0).permutation(np.linspace(0, 1, 101)).astype(np.float32)
    assert threshold_of(similarity) == pytest.approx(0.05)
    assert (similarity < threshold_of(similarity)).sum() == 5
    assert threshold_of(np.zeros(0, np.float32)) == 0.0
