"""What the atoms of a molecule contribute to its values, as a table and as a drawing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from rdkit import Chem

from ..chem.drawing import draw_weights, draw_weights_png
from ..context.coalitions import Score, attribute
from ..context.parentage import Parentage
from ..errors import InputError
from .tasks import Task, choose_tasks

if TYPE_CHECKING:
    import pandas

SIZE = (360, 260)  # of a drawing, in pixels


@dataclass(frozen=True, eq=False)
class Explanation:
    """Contributions of the atoms of one molecule to its values for `P` tasks. Made by `Predictor.explain`.

    molecule: as drawn (`D` atoms), and the parent that is scored (`A` atoms).
    values: float32 `[P]`, of the molecule, on the scales on which contributions add up: `scale_of`.
    base: float32 `[P]`, of the reference, methane.
    contributions: float32 `[A, P]`, in RDKit's order of the parent's atoms. Their sum is `values - base`.
    """

    molecule: Parentage
    tasks: tuple[Task, ...]
    values: np.ndarray
    base: np.ndarray
    contributions: np.ndarray

    @classmethod
    def of(cls, molecule: Parentage, tasks: tuple[Task, ...], score: Score) -> Explanation:
        """Explain one molecule. score: as `Predictor.score_graphs`. Raises `InputError` when a value is not finite."""
        by_graph, values, base = attribute(molecule.graph, score)
        if not np.isfinite(by_graph).all():
            raise InputError(f"{molecule.smiles[:60]!r}: the model gives no finite value for all parts of it")
        contributions = np.empty(by_graph.shape, np.float32)
        contributions[molecule.of_graph] = by_graph
        return cls(molecule, tasks, values, base, contributions)

    def select(self, names: str | Sequence[str] | None) -> Explanation:
        """Only these tasks, in this order; None for all. Raises `PackError` for an unknown name."""
        at = choose_tasks(self.tasks, names)
        tasks = tuple(self.tasks[i] for i in at)
        return Explanation(self.molecule, tasks, self.values[at], self.base[at], self.contributions[:, at])

    @property
    def smiles(self) -> str:
        """As it was given."""
        return self.molecule.smiles

    @property
    def parent(self) -> str:
        """SMILES of the molecule that is scored, its atoms in the order of `contributions`."""
        return Chem.MolToSmiles(self.molecule.parent, canonical=False)

    @property
    def symbols(self) -> list[str]:
        """Element symbols of the parent's atoms, `A` of them."""
        return [atom.GetSymbol() for atom in self.molecule.parent.GetAtoms()]

    @property
    def drawn_contributions(self) -> np.ndarray:
        """float32 `[D, P]`: of the atoms as drawn, in the order of the SMILES; NaN for those that are not scored."""
        drawn = np.full((self.molecule.drawn.GetNumAtoms(), len(self.tasks)), np.nan, np.float32)
        drawn[self.molecule.of_drawn] = self.contributions
        return drawn

    def check(self) -> np.ndarray:
        """What the contributions miss the sum rule by, for each task in deviations: float64 `[P]`, all below 1e-3."""
        deviations = np.array([task.deviation for task in self.tasks])
        missing = self.contributions.astype(np.float64).sum(axis=0) - (self.values.astype(np.float64) - self.base)
        return np.abs(missing) / deviations

    def columns(self) -> dict[str, Any]:
        """A row for each atom that was drawn: `atom` from 0, `symbol`, and the contribution to each task, by its name.

        Lists and float32 arrays, `D` long.
        """
        atoms = list(self.molecule.drawn.GetAtoms())
        columns: dict[str, Any] = {"atom": list(range(len(atoms))), "symbol": [atom.GetSymbol() for atom in atoms]}
        return columns | {task.name: self.drawn_contributions[:, i] for i, task in enumerate(self.tasks)}

    def to_pandas(self) -> pandas.DataFrame:
        """`columns` as a table."""
        import pandas

        return pandas.DataFrame(self.columns())

    def as_dict(self) -> dict[str, Any]:
        """Plain types for JSON; null for atoms that are not scored."""
        drawn = self.drawn_contributions.tolist()
        tasks = [
            {
                "name": task.name,
                "scale": scale_of(task),
                "value": float(self.values[i]),
                "reference": float(self.base[i]),
                "contributions": [None if row[i] != row[i] else row[i] for row in drawn],
            }
            for i, task in enumerate(self.tasks)
        ]
        symbols = [atom.GetSymbol() for atom in self.molecule.drawn.GetAtoms()]
        return {"smiles": self.smiles, "parent": self.parent, "symbols": symbols, "tasks": tasks}

    def weights(self, task: str | None = None) -> list[float]:
        """The contributions to a task, by default the first, of the `D` atoms as drawn; 0 for those not scored."""
        at = 0 if task is None else choose_tasks(self.tasks, [task])[0]
        return np.nan_to_num(self.drawn_contributions[:, at]).tolist()

    def to_svg(self, task: str | None = None, size: tuple[int, int] = SIZE, styled: bool = True) -> str:
        """The drawing with a disc round each atom: blue where it raises the value of the task, orange where it lowers.

        The stronger the colour, the larger the contribution; the strongest is the largest of this molecule and task.
        size: in pixels. styled: with its own colours; otherwise the page's CSS gives them (`chem.drawing`).
        Raises `DeviceError` where RDKit cannot draw.
        """
        return draw_weights(self.molecule.drawn, self.weights(task), size, styled)

    def to_png(self, task: str | None = None, size: tuple[int, int] = SIZE) -> bytes:
        """The same as a PNG on white."""
        return draw_weights_png(self.molecule.drawn, self.weights(task), size)

    def _repr_svg_(self) -> str:
        return self.to_svg()

    def __repr__(self) -> str:
        shown = ", ".join(f"{task.name} {value:.3g}" for task, value in zip(self.tasks[:3], self.values, strict=False))
        others = f" and {len(self.tasks) - 3} others" if len(self.tasks) > 3 else ""
        return f"<Explanation of {self.smiles}: {len(self.contributions)} atoms; {shown}{others}>"


def scale_of(task: Task) -> str:
    """What contributions to a task are in: `log-odds`, `log10 h`, `logit %`, or the unit itself."""
    if task.is_class:
        return "log-odds"
    names = {"log": f"log10 {task.unit}", "logit": f"logit {task.unit}", "linear": task.unit}
    return names[task.scale].strip()
