"""Trees as plain arrays answer as LightGBM does, and damaged ones are refused."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
import torch

from mora_lite.errors import InputError, PackError
from mora_lite.scoring.trees import N_NODES, Trees, import_lightgbm

N_ROWS, N_COLUMNS = 200, 30


@pytest.fixture(scope="module")
def descriptors() -> np.ndarray:
    """Counts, and numbers of any size."""
    random = np.random.default_rng(0)
    counts = random.poisson(1.0, (N_ROWS, N_COLUMNS // 2))
    return np.concatenate([counts, random.normal(size=(N_ROWS, N_COLUMNS // 2)) * 100], axis=1).astype(np.float32)


@pytest.fixture(scope="module")
def targets(descriptors: np.ndarray) -> np.ndarray:
    """A value that a third of the molecules lack, and a class."""
    value = descriptors[:, 0] + np.abs(descriptors[:, -1]) / 50
    value[::3] = np.nan
    return np.stack([value, descriptors[:, 1] > 1], axis=1)


@pytest.fixture(scope="module")
def boosters() -> list[Any]:
    return []


@pytest.fixture(scope="module")
def trees(descriptors: np.ndarray, targets: np.ndarray, boosters: list[Any]) -> Trees:
    lightgbm = import_lightgbm()
    train = lightgbm.train
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lightgbm, "train", lambda *args: boosters.append(train(*args)) or boosters[-1])
        return Trees.grow(descriptors, targets, [False, True], seed=1)


def test_they_answer_as_lightgbm_does(trees: Trees, boosters: list[Any], descriptors: np.ndarray) -> None:
    others = np.random.default_rng(1).permuted(descriptors, axis=0)
    asked = np.concatenate([descriptors, others])
    expected = np.stack([booster.predict(asked.astype(np.float64), raw_score=True) for booster in boosters], axis=1)
    np.testing.assert_allclose(trees.scores(asked), expected, rtol=1e-5, atol=1e-5)


def test_they_have_learnt(trees: Trees, descriptors: np.ndarray, targets: np.ndarray) -> None:
    known = ~np.isnan(targets[:, 0])
    scores = trees.scores(descriptors)
    assert np.abs(scores - targets)[known, 0].mean() < 0.3 * targets[known, 0].std()
    assert ((scores[:, 1] > 0) == targets[:, 1]).mean() > 0.95


def test_a_number_at_a_threshold_goes_the_same_way_in_both() -> None:
    """The threshold between two float32 numbers is no float32 number itself."""
    near = np.nextafter(np.float32(0.1), np.float32(1))
    descriptors = np.repeat(np.array([[0.1], [near]], np.float32), 20, axis=0)
    trees = Trees.grow(descriptors, np.repeat([[-1.0], [1.0]], 20, axis=0), [False], seed=0)
    low, high = trees.scores(np.array([[0.1], [near]], np.float32))[:, 0]
    assert low < -0.9
    assert high > 0.9


def test_tasks_are_chosen_and_nothing_is_asked(trees: Trees, descriptors: np.ndarray) -> None:
    np.testing.assert_array_equal(trees.select([1]).scores(descriptors), trees.scores(descriptors)[:, [1]])
    assert trees.scores(descriptors[:0]).shape == (0, 2)


def test_a_file_gives_them_back(trees: Trees, descriptors: np.ndarray) -> None:
    again = Trees.from_tensors(trees.tensors(), 2, N_COLUMNS)
    np.testing.assert_array_equal(again.scores(descriptors), trees.scores(descriptors))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("feature", torch.full((2, 500, N_NODES), N_COLUMNS, dtype=torch.int16)),  # a column that is not there
        ("feature", torch.full((2, 500, N_NODES), -1, dtype=torch.int16)),
        ("left", torch.zeros((2, 500, N_NODES), dtype=torch.uint8)),  # back to the root, and round again
        ("right", torch.full((2, 500, N_NODES), N_NODES, dtype=torch.uint8)),  # past the last node
        ("value", torch.zeros((2, 500, 3))),
        ("value", torch.zeros((2, 500, N_NODES), dtype=torch.float64)),
        ("feature", torch.zeros(3, dtype=torch.int16)),
    ],
)
def test_damaged_ones_are_refused(trees: Trees, name: str, value: torch.Tensor) -> None:
    with pytest.raises(PackError, match="the trees of the pack do not fit"):
        Trees.from_tensors({**trees.tensors(), name: value}, 2, N_COLUMNS)
    with pytest.raises(PackError, match="the trees of the pack do not fit"):
        Trees.from_tensors(trees.tensors(), 3, N_COLUMNS)
    with pytest.raises(PackError, match="cannot be read"):
        Trees.from_tensors({name: value}, 2, N_COLUMNS)


def test_growing_needs_lightgbm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    with pytest.raises(InputError, match=r"not installed; pip install 'mora-lite\[trees\]'"):
        import_lightgbm()
