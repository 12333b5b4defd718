"""Boosted trees that stand beside the network; a value is the mean of both.

They know a molecule by its descriptors. LightGBM (Ke et al. 2017) grows them; they answer as plain arrays, without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError, PackError
from ..machine.progress import report

if TYPE_CHECKING:
    from torch import Tensor

N_TREES, N_LEAVES = 500, 16
N_NODES = 2 * N_LEAVES - 1
DTYPES = {"feature": "int16", "threshold": "float32", "left": "uint8", "right": "uint8", "value": "float32"}
ROWS = 256  # molecules that are led through the trees together
# Set once and not tuned. Learner and descriptors were chosen by cross-validation (docs/benchmarks/tdc.md).
SETTINGS = {
    "learning_rate": 0.03,
    "num_leaves": N_LEAVES,
    "min_data_in_leaf": 5,
    "feature_fraction": 0.1,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "lambda_l2": 3.0,
    "use_missing": False,
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}


@dataclass(frozen=True, eq=False)
class Trees:
    """`T` trees for each of `P` tasks, of `K` nodes each, the root first. A leaf is its own child.

    feature: int16 `[P, T, K]`, the column of the descriptors that a node looks at. threshold: float32, up to which a
    molecule goes to the left; infinite at a leaf. left, right: uint8. value: float32, of a leaf; those of a molecule's
    leaves add up to its score, on the task's scale.
    """

    feature: np.ndarray
    threshold: np.ndarray
    left: np.ndarray
    right: np.ndarray
    value: np.ndarray

    @classmethod
    def grow(cls, descriptors: np.ndarray, targets: np.ndarray, classes: Sequence[bool], seed: int) -> Trees:
        """Trees of `P` tasks.

        descriptors: float32 `[N, F]`. targets: `[N, P]` on the tasks' scales, 0 and 1 of a class, NaN where unknown.
        """
        lightgbm = import_lightgbm()
        tasks = []
        for i, is_class in enumerate(classes):
            report("growing trees", i, len(classes))
            known = ~np.isnan(targets[:, i])
            data = lightgbm.Dataset(descriptors[known], targets[known, i].astype(np.float64))
            objective = "binary" if is_class else "regression"
            booster = lightgbm.train({**SETTINGS, "objective": objective, "seed": seed}, data, N_TREES)
            trees = [_Tree(tree["tree_structure"]) for tree in booster.dump_model()["tree_info"]]
            # Where nothing can be split any more LightGBM ends early.
            tasks.append(trees + [_Tree({"leaf_value": 0.0})] * (N_TREES - len(trees)))
        return cls(**{name: np.array([[getattr(tree, name) for tree in trees] for trees in tasks]) for name in DTYPES})

    def scores(self, descriptors: np.ndarray) -> np.ndarray:
        """float32 `[B, P]` on the tasks' scales, of a class its log-odds. descriptors: float32 `[B, F]`."""
        scores = np.empty((len(descriptors), len(self.feature)), np.float32)
        for start in range(0, len(descriptors), ROWS):
            columns = np.ascontiguousarray(descriptors[start : start + ROWS].T)
            for task in range(len(self.feature)):
                scores[start : start + ROWS, task] = self._score(columns, task)
        return scores

    def _score(self, columns: np.ndarray, task: int) -> np.ndarray:
        """Of one task. columns: float32 `[F, B]`, the descriptors of a block."""
        n_trees, n_nodes = self.feature[task].shape
        first = np.arange(n_trees, dtype=np.int64) * n_nodes  # of each tree's nodes, all trees one after the other
        rows = np.arange(columns.shape[1])[:, None]
        feature, threshold = self.feature[task].ravel(), self.threshold[task].ravel()
        left, right = ((child[task] + first[:, None]).ravel() for child in (self.left, self.right))
        at = np.broadcast_to(first, (columns.shape[1], n_trees))
        while True:
            goes_left = columns[feature[at], rows] <= threshold[at]
            below = np.where(goes_left, left[at], right[at])
            if np.array_equal(below, at):
                return self.value[task].ravel()[at].sum(axis=1, dtype=np.float64)
            at = below

    def select(self, tasks: Sequence[int]) -> Trees:
        """Only these tasks, in this order."""
        return Trees(**{name: array[list(tasks)] for name, array in vars(self).items()})

    def tensors(self) -> dict[str, Tensor]:
        """Tensors for a safetensors file, by the names of the fields."""
        import torch

        return {name: torch.from_numpy(array) for name, array in vars(self).items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Any], n_tasks: int, n_columns: int) -> Trees:
        """The inverse of `tensors`, for descriptors of so many columns. Raises `PackError` for what cannot be trees."""
        try:
            trees = cls(**{name: np.asarray(tensor) for name, tensor in tensors.items()})
        except TypeError as error:
            raise PackError(f"the trees of the pack cannot be read: {error}; fetch or train the pack again") from None
        n_nodes = trees.feature.shape[-1] if trees.feature.ndim == 3 else 0
        fits = (
            {name: str(array.dtype) for name, array in vars(trees).items()} == DTYPES
            and {array.shape for array in vars(trees).values()} == {trees.feature.shape}
            and n_nodes > 0
            and len(trees.feature) == n_tasks
            and ((trees.feature >= 0) & (trees.feature < n_columns)).all()
            and all(((child >= np.arange(n_nodes)) & (child < n_nodes)).all() for child in (trees.left, trees.right))
        )  # children lie behind their parent, so every way downwards ends
        if not fits:
            raise PackError("the trees of the pack do not fit its tasks and descriptors; fetch or train the pack again")
        return trees


class _Tree:
    """One tree of `Booster.dump_model` as arrays `[K]`, as `Trees` has them; nodes in the order of a walk downwards."""

    def __init__(self, structure: Mapping[str, Any]):
        self.feature, self.threshold = np.zeros(N_NODES, np.int16), np.full(N_NODES, np.inf, np.float32)
        self.left, self.right = np.arange(N_NODES, dtype=np.uint8), np.arange(N_NODES, dtype=np.uint8)
        self.value = np.zeros(N_NODES, np.float32)
        open_nodes, n_nodes = [(0, structure)], 1
        while open_nodes:
            at, node = open_nodes.pop()
            if "split_feature" not in node:
                self.value[at] = node["leaf_value"]
                continue
            assert node["decision_type"] == "<="
            self.feature[at], self.threshold[at] = node["split_feature"], _rounded_down(node["threshold"])
            self.left[at], self.right[at] = n_nodes, n_nodes + 1
            open_nodes += [(n_nodes, node["left_child"]), (n_nodes + 1, node["right_child"])]
            n_nodes += 2


def _rounded_down(threshold: float) -> np.float32:
    """The largest float32 that is not above it: float32 numbers are on the same side of both."""
    rounded = np.float32(threshold)
    return rounded if float(rounded) <= threshold else np.nextafter(rounded, np.float32(-np.inf))


def import_lightgbm() -> Any:
    """LightGBM. Raises `InputError` where it is not installed."""
    try:
        import lightgbm
    except ImportError:
        raise InputError(
            "trees are grown by LightGBM, which is not installed; pip install 'mora-lite[trees]'"
        ) from None
    return lightgbm
