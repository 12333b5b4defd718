"""Compare ways to tell what atoms contribute, on molecules that exist with and without a group.

    python benchmarks/explain.py smiles.csv.gz --rows 100

smiles.csv.gz: a table with a column `smiles`. For each bond outside of rings that leads to a group of at most 10
atoms, the molecule with a hydrogen in the group's place is scored too. What the group's atoms contribute together
should follow this difference: printed is the rank correlation over all groups for each task. The second figure of a way
is how contributions to logD follow Crippen's atomic logP contributions, in the mean over molecules. The third is how
far two runs with other random orders differ, in shares of the mean contribution.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rdkit import Chem, RDLogger
from rdkit.Chem import rdMolDescriptors

import mora_lite
from mora_lite.chem.graph import Graphs
from mora_lite.context.coalitions import attribute, take_parts
from mora_lite.context.parentage import Parentage

TASKS = ["logS", "logD", "hERG_pIC50", "BBB", "CYP3A4_inhibitor"]
Score = Callable[[Graphs], np.ndarray]


class Group(NamedTuple):
    """molecule: its number. atoms: of the group. rest: SMILES of the molecule with a hydrogen in its place."""

    molecule: int
    atoms: list[int]
    rest: str


def masked(graph: Graphs, score: Score, rng: Any) -> np.ndarray:
    """Each atom masked alone; the contributions add up to nothing that has a name."""
    n = len(graph.atoms)
    values = score(take_parts(graph, np.concatenate([~np.eye(n, dtype=bool), np.ones((1, n), bool)]), fill=False))
    return values[-1] - values[:-1]


def shapley(graph: Graphs, score: Score, rng: Any, n_orders: int = 4, fill: bool = True) -> np.ndarray:
    """Shapley values of atoms over random orders, each with its reverse."""
    n = len(graph.atoms)
    ranks = np.array([rng.permutation(n) for _ in range(n_orders // 2)])
    ranks = np.concatenate([ranks, n - 1 - ranks])
    kept = (ranks[:, None, :] < np.arange(1, n + 1)[:, None]).reshape(-1, n)
    values = score(take_parts(graph, kept, fill)).reshape(n_orders, n, -1)
    changes = np.diff(values, axis=1, prepend=values[:, :1])  # the first atom gets nothing: there is no empty molecule
    return np.mean([change[rank] for change, rank in zip(changes, ranks, strict=True)], axis=0)


def built(graph: Graphs, score: Score, rng: Any) -> np.ndarray:
    """The way of `mora-lite explain`."""
    return attribute(graph, score)[0]


WAYS: dict[str, Callable[[Graphs, Score, Any], np.ndarray]] = {
    "each atom masked alone": masked,
    "Shapley, 4 orders": shapley,
    "Shapley, 32 orders": lambda graph, score, rng: shapley(graph, score, rng, 32),
    "Shapley, 32 orders, bonds left open": lambda graph, score, rng: shapley(graph, score, rng, 32, fill=False),
    "built up from groups": built,
}


def groups_of(number: int, molecule: Chem.Mol) -> list[Group]:
    groups = []
    for bond in molecule.GetBonds():
        if bond.IsInRing() or bond.GetBondType() != Chem.BondType.SINGLE:
            continue
        cut = Chem.FragmentOnBonds(molecule, [bond.GetIdx()], addDummies=False)
        parts, smiles = Chem.GetMolFrags(cut), [Chem.MolToSmiles(part) for part in Chem.GetMolFrags(cut, asMols=True)]
        for group, rest in ((0, 1), (1, 0)):
            if len(parts[group]) <= 10 and len(parts[rest]) >= 6:
                groups.append(Group(number, list(parts[group]), smiles[rest]))
    return groups


def crippen(molecule: Chem.Mol) -> np.ndarray:
    """Contributions to logP, those of hydrogens at their atoms: float64 `[A]`."""
    whole = Chem.AddHs(molecule)
    sums = np.zeros(molecule.GetNumAtoms())
    for atom, (logp, _) in zip(whole.GetAtoms(), rdMolDescriptors._CalcCrippenContribs(whole), strict=True):
        owner = atom if atom.GetIdx() < len(sums) else atom.GetNeighbors()[0]
        sums[owner.GetIdx()] += logp
    return sums


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.argsort().argsort(), b.argsort().argsort())[0, 1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("--rows", type=int, default=100)
    options = parser.parse_args()
    RDLogger.DisableLog("rdApp.*")
    model = mora_lite.load("admet", tasks=TASKS, device="cpu")
    with gzip.open(options.table, "rt", encoding="utf-8", newline="") as file:
        smiles = [row["smiles"] for row in csv.DictReader(file)]
    np.random.default_rng(0).shuffle(smiles)
    read = [Parentage.read(text, model.featurizer) for text in smiles[: 3 * options.rows]]
    read = [found for found in read if 12 <= found.parent.GetNumAtoms() <= 40][: options.rows]
    groups = [group for i, found in enumerate(read) for group in groups_of(i, found.parent)]
    whole = np.concatenate([model.score_graphs(found.graph) for found in read])
    rest = model.score_graphs(model.featurizer.read_smiles([group.rest for group in groups]))
    change = whole[[group.molecule for group in groups]] - rest
    print(f"{len(read)} molecules, {len(groups)} groups; tasks {', '.join(TASKS)}")
    for name, way in WAYS.items():
        started, runs = time.process_time(), []
        for seed in (0, 1):
            rng, found = np.random.default_rng(seed), []
            for molecule in read:
                by_atom = np.empty((len(molecule.of_graph), len(TASKS)))
                by_atom[molecule.of_graph] = way(molecule.graph, model.score_graphs, rng)
                found.append(by_atom)
            runs.append(found)
        seconds = (time.process_time() - started) / 2 / len(read)
        sums = np.array([runs[0][group.molecule][group.atoms].sum(axis=0) for group in groups])
        fits = [rank_correlation(sums[:, i], change[:, i]) for i in range(len(TASKS))]
        logp = np.mean([np.corrcoef(crippen(m.parent), by[:, 1])[0, 1] for m, by in zip(read, runs[0], strict=True)])
        noise = np.mean([np.abs(a - b).mean() / np.abs(a).mean() for a, b in zip(*runs, strict=True)])
        print(
            f"{name}: groups {' '.join(f'{fit:.2f}' for fit in fits)}, Crippen {logp:.2f}, noise {noise:.2f}, "
            f"{1000 * seconds:.0f} ms of CPU"
        )


if __name__ == "__main__":
    main()
