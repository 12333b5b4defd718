"""The training molecules nearest to each of some molecules, as a table. Needs NumPy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .tasks import NEIGHBOUR, Task
from .training_molecules import TrainingMolecules

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Neighbours:
    """The `n` training molecules most similar to each of `B` molecules, the most similar first.

    asked: the SMILES of the `B` molecules.
    index: int64 `[B, n]`, numbers of the neighbours among the training molecules, -1 where there is none: the SMILES
        could not be read, or there are fewer training molecules than `n`.
    similarity: float32 `[B, n]`, Tanimoto, 0 to 1; NaN where there is none.
    """

    asked: Sequence[str]
    tasks: tuple[Task, ...]
    index: np.ndarray
    similarity: np.ndarray
    training: TrainingMolecules

    def __len__(self) -> int:
        return len(self.asked)

    def at(self, rows: np.ndarray) -> Neighbours:
        """Those of the molecules `rows`, int64."""
        asked = [self.asked[i] for i in rows]
        return replace(self, asked=asked, index=self.index[rows], similarity=self.similarity[rows])

    @property
    def smiles(self) -> list[list[str]]:
        """SMILES of the neighbours as in the training table, `n` for each molecule; empty where there is none."""
        return [[self.training.smiles[i] if i >= 0 else "" for i in row] for row in self.index.tolist()]

    @property
    def values(self) -> np.ndarray:
        """Measured values: float32 `[B, n, P]`, in the tasks' units, 0 or 1 for classes; NaN where there is none."""
        values = np.full((*self.index.shape, len(self.tasks)), np.nan, np.float32)
        found = self.index >= 0
        values[found] = self.training.values[self.index[found]]
        return values

    def columns(self) -> dict[str, np.ndarray]:
        """A row for each molecule: `neighbour_1`, `neighbour_1_similarity`, `neighbour_1_TASK` of each task, and so on.

        Texts and float32 `[B]`.
        """
        columns: dict[str, np.ndarray] = {}
        smiles, values = np.array(self.smiles, dtype=object).reshape(self.index.shape), self.values
        for k in range(self.index.shape[1]):
            name = f"{NEIGHBOUR}{k + 1}"
            columns |= {name: smiles[:, k], f"{name}_similarity": self.similarity[:, k]}
            columns |= {f"{name}_{task.name}": values[:, k, i] for i, task in enumerate(self.tasks)}
        return columns

    def to_pandas(self) -> pandas.DataFrame:
        """A row for each neighbour: `row`, the number of the molecule from 0, its `smiles`, the `neighbour`, its
        `similarity`, and a column for each task. A molecule without neighbours has no row.
        """
        import pandas

        row, k = np.nonzero(self.index >= 0)
        smiles, values = self.smiles, self.values
        columns: dict[str, Any] = {
            "row": row,
            "smiles": [self.asked[i] for i in row.tolist()],
            "neighbour": [smiles[i][j] for i, j in zip(row.tolist(), k.tolist(), strict=True)],
            "similarity": self.similarity[row, k],
        }
        return pandas.DataFrame(columns | {task.column: values[row, k, i] for i, task in enumerate(self.tasks)})

    def __repr__(self) -> str:
        return repr(self.to_pandas())

    def _repr_html_(self) -> str:
        return self.to_pandas().to_html()
