"""The molecules that a pack was trained on: stored small and exactly, and the nearest of them found."""

from __future__ import annotations

import lzma

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("safetensors")
from safetensors.torch import load, save

from mora_lite.chem.circular import fingerprints
from mora_lite.chem.featurizer import Featurizer
from mora_lite.errors import InputError
from mora_lite.scoring import training_molecules as module
from mora_lite.scoring.training_molecules import TrainingMolecules

NAN = float("nan")


def bits_of(smiles: list[str]) -> np.ndarray:
    return fingerprints(Featurizer().read_smiles(smiles))


@pytest.fixture
def values() -> np.ndarray:
    """Three tasks for the 60 molecules of conftest.py; some have no value at all."""
    random = np.random.default_rng(0)
    values = random.normal(size=(60, 3)).astype(np.float32)
    values[random.random((60, 3)) < 0.5] = np.nan
    assert np.isnan(values).all(1).any()
    return values


@pytest.fixture
def training(molecules: list[str], values: np.ndarray) -> TrainingMolecules:
    return TrainingMolecules.of(molecules, values, bits_of(molecules))


def plain_nearest(query: np.ndarray, packed: np.ndarray, n: int) -> tuple[list[list[int]], list[list[np.float32]]]:
    """One pair of molecules at a time: the reference."""
    numbers, similarities = [], []
    for row in query:
        a = set(np.flatnonzero(np.unpackbits(row)).tolist())
        tanimoto = []
        for other in packed:
            b = set(np.flatnonzero(np.unpackbits(other)).tolist())
            tanimoto.append(np.float32(len(a & b)) / np.float32(max(1, len(a | b))))
        best = sorted(range(len(packed)), key=lambda i: (-tanimoto[i], i))[:n]
        numbers.append(best)
        similarities.append([tanimoto[i] for i in best])
    return numbers, similarities


# --- the nearest


@given(st.data())
@settings(deadline=None, max_examples=60)
def test_the_nearest_are_those_of_one_pair_at_a_time(data: st.DataObject) -> None:
    """Few bits, so that there are many ties, and molecules with equal fingerprints."""
    n_molecules, n_asked, n = (data.draw(st.integers(1, high)) for high in (30, 4, 35))
    random = np.random.default_rng(data.draw(st.integers(0, 2**16)))
    bits = np.zeros((n_molecules + n_asked, 1024), bool)
    bits[:, ::170] = random.random((len(bits), 7)) < data.draw(st.sampled_from([0.2, 0.5, 0.9]))
    packed = np.packbits(bits, axis=1)
    asked, packed = packed[:n_asked], packed[n_asked:]
    values = random.normal(size=(n_molecules, 2)).astype(np.float32)
    values[random.random(values.shape) < 0.4] = np.nan
    used = np.flatnonzero(~np.isnan(values).all(1))
    training = TrainingMolecules.of([str(i) for i in range(n_molecules)], values, packed)
    index, similarity = training.nearest(asked, n)
    numbers, similarities = plain_nearest(asked, packed[used], n)
    assert training.smiles == [str(i) for i in used]
    assert [[i for i in row if i >= 0] for row in index.tolist()] == numbers
    assert [[s for s in row if not np.isnan(s)] for row in similarity] == similarities
    assert index.shape == similarity.shape == (n_asked, n)
    index, similarity = training.nearest(asked, n, task=1)
    measured = np.flatnonzero(~np.isnan(training.values[:, 1]))
    numbers, similarities = plain_nearest(asked, packed[used][measured], n)
    assert [[i for i in row if i >= 0] for row in index.tolist()] == [measured[row].tolist() for row in numbers]
    assert [[s for s in row if not np.isnan(s)] for row in similarity] == similarities


def test_cutting_the_work_up_changes_nothing(monkeypatch: pytest.MonkeyPatch, training: TrainingMolecules) -> None:
    query = training.domain.packed
    expected = training.nearest(query, 5)
    monkeypatch.setattr(module, "COMPARED", 1)
    monkeypatch.setattr("mora_lite.scoring.domain.COLUMN_ROWS", 7)
    monkeypatch.setattr("mora_lite.scoring.domain.CACHED_BYTES", 0)
    again = TrainingMolecules.from_tensors(training.tensors(), training.domain)
    for got, want in zip(again.nearest(query, 5), expected, strict=True):
        np.testing.assert_array_equal(got, want)


def test_the_nearest_is_as_similar_as_the_domain_says(training: TrainingMolecules) -> None:
    query = np.packbits(np.random.default_rng(1).random((20, 1024)) < 0.05, axis=1)
    np.testing.assert_array_equal(training.nearest(query, 1)[1][:, 0], training.domain.similarity(query).max(1))


def test_counts_above_255_are_held_too() -> None:
    packed = np.packbits(np.random.default_rng(2).random((30, 1024)) < 0.7, axis=1)
    training = TrainingMolecules.of([""] * 30, np.zeros((30, 1), np.float32), packed)
    assert training.nearest(packed, 2)[0][:, 0].tolist() == list(range(30))
    np.testing.assert_array_equal(training.nearest(packed, 2)[0], plain_nearest(packed, packed, 2)[0])


def test_chosen_tasks_keep_the_molecules_that_have_a_value_for_them(
    training: TrainingMolecules, molecules: list[str], values: np.ndarray
) -> None:
    chosen = training.select([2, 0])
    used = ~np.isnan(values[:, [2, 0]]).all(1)
    assert chosen.smiles == [smiles for smiles, use in zip(molecules, used, strict=True) if use]
    np.testing.assert_array_equal(chosen.values, values[used][:, [2, 0]])
    np.testing.assert_array_equal(chosen.domain.packed, training.domain.select([2, 0]).packed)
    np.testing.assert_array_equal(chosen.domain.packed[chosen.rows], bits_of(chosen.smiles))
    assert training.select([0, 1, 2]) is training


def test_of_no_molecule_there_is_no_neighbour() -> None:
    nothing = TrainingMolecules.of(["C"], np.full((1, 2), np.nan, np.float32), bits_of(["C"]))
    index, similarity = nothing.nearest(bits_of(["C"]), 2)
    assert index.tolist() == [[-1, -1]]
    assert np.isnan(similarity).all()
    assert len(TrainingMolecules.from_tensors(nothing.tensors(), nothing.domain)) == 0


# --- storing


def test_storing_keeps_every_bit(training: TrainingMolecules) -> None:
    back = TrainingMolecules.from_tensors(load(save(training.tensors())), training.domain)
    assert back.smiles == training.smiles
    np.testing.assert_array_equal(back.values, training.values)
    np.testing.assert_array_equal(back.rows, training.rows)


def test_smiles_stay_as_they_are_in_the_table() -> None:
    odd = ["OCC ethanol", " C\n methane", "CO\udcff", "C é |x|"]
    training = TrainingMolecules.of(odd, np.ones((4, 1), np.float32), bits_of(["OCC", "C", "CO", "C"]))
    back = TrainingMolecules.from_tensors(training.tensors(), training.domain)
    assert back.smiles == ["OCC ethanol", "C methane", "CO\udcff", "C é |x|"]


def test_ten_thousand_molecules_take_less_than_a_tenth_of_six_megabytes() -> None:
    """Of random order and with eight values of four digits, which is worse than tables are."""
    n, random = 10_000, np.random.default_rng(0)
    smiles = ["".join(parts) for parts in random.choice(["C", "N", "O", "C(C)", "c1ccccc1", "C1CC1"], (n, 8)).tolist()]
    values = random.normal(size=(n, 8)).round(3).astype(np.float32)
    packed = random.integers(0, 256, (n, 128)).astype(np.uint8)
    size = sum(tensor.nbytes for tensor in TrainingMolecules.of(smiles, values, packed).tensors().values())
    assert size < 600_000


# --- what others may send


def damaged(training: TrainingMolecules, **parts: object) -> None:
    tensors = {name: tensor.numpy() for name, tensor in training.tensors().items()}
    TrainingMolecules.from_tensors({**tensors, **parts}, training.domain)


def stream(data: bytes) -> np.ndarray:
    return np.frombuffer(lzma.compress(data, preset=1), np.uint8)


def test_nothing_is_unpacked_beyond_what_was_announced(
    training: TrainingMolecules, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = training.tensors()["bytes"].numpy()
    with pytest.raises(ValueError, match="longer or shorter"):
        damaged(training, smiles=stream(bytes(10 << 20)))
    with pytest.raises(ValueError, match="longer or shorter"):
        damaged(training, bytes=lengths + 1)
    for impossible in (-1, 1 << 40):
        with pytest.raises(ValueError, match=r"a part of .* bytes"):
            damaged(training, bytes=lengths * 0 + impossible)
    monkeypatch.setattr(module, "READER_MEMORY", 1 << 20)
    with pytest.raises(ValueError, match="Memory usage limit"):
        damaged(training)


@pytest.mark.parametrize("name", ["smiles", "values", "rows", "bytes"])
@pytest.mark.parametrize("content", [np.zeros(0, np.uint8), np.arange(50, dtype=np.uint8), np.zeros((3, 2))])
def test_damaged_parts_are_found(training: TrainingMolecules, name: str, content: np.ndarray) -> None:
    with pytest.raises((ValueError, TypeError)):
        damaged(training, **{name: content})


def test_rows_that_the_domain_has_not_are_found(training: TrainingMolecules) -> None:
    for row in (-1, len(training.domain.packed)):
        with pytest.raises(ValueError, match="do not fit each other"):
            damaged(training, rows=stream(np.full(len(training), row, "<i4").tobytes()))


def test_too_many_to_be_read_again_are_not_written(
    training: TrainingMolecules, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LARGEST", 100)
    with pytest.raises(InputError, match="too many to keep in a pack; use --without-data"):
        training.tensors()
