"""How much each atom of a molecule contributes to its values: the molecule is built up, group by group, and scored.

Groups of atoms are what chemists would move as one: a ring system, a functional group, else a single atom. A
molecule is built in all connected orders: any group comes first, then one of those bonded to what is there, each with
equal probability. Open bonds are filled with hydrogens, so nearly all parts are molecules, as in training; nothing at
all is methane. A group's contribution is what the value changes by when it comes, in the mean over all orders. That is
computed exactly, over all connected parts, so the contributions add up to the molecule's value minus methane's.

Within a group, an atom's contribution is what the value changes by when it alone is masked in the whole molecule, plus
an equal share of what is missing to the group's (Moulin 1985, equal allocation of nonseparable costs).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

import numpy as np

from ..chem.graph import ATOM_FIELDS, Graphs, concatenate, row_pointer

MAX_PARTS = 128  # connected parts that are scored; groups are joined until there are no more
DEGREE, HYDROGENS = 2, 3  # columns of `Graphs.atoms`
_VALENCE = np.array([1, 2, 3, 1, 1])  # hydrogens in place of a bond, by its order: single, double, triple, aromatic
_ORDER_DIGIT = 16  # of a bond's code
METHANE = Graphs(
    np.array([[6, 4, 0, 4, 4, 0, 0, 0, 0, 0]], np.uint8),
    np.zeros(0, np.uint8),
    np.zeros((0, 2), np.uint16),
    np.array([0, 1]),
    np.array([0, 0]),
)
Score = Callable[[Graphs], np.ndarray]


def attribute(graph: Graphs, score: Score) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Contributions float64 `[A, P]` of the atoms of one molecule, its values and the reference's, float32 `[P]`.

    score: graphs of `B` molecules -> values float32 `[B, P]`, on the scale on which contributions shall add up.
    """
    groups = join_groups(find_groups(graph), graph)
    n_groups = int(groups.max()) + 1
    parts = list(connected_parts(group_neighbours(groups, graph)))
    kept = np.array([[part >> k & 1 for k in range(n_groups)] for part in parts], bool)[:, groups]
    alone = ~np.eye(len(groups), dtype=bool) if n_groups < len(groups) > 1 else np.zeros((0, len(groups)), bool)
    values = score(concatenate([METHANE, take_parts(graph, kept), take_parts(graph, alone, fill=False)]))
    of_part = dict(zip([0, *parts], values.astype(np.float64)[: len(parts) + 1], strict=True))
    by_group = _build_up(of_part, group_neighbours(groups, graph))
    whole = of_part[parts[-1]]
    contributions = by_group[groups]
    if len(alone):
        contributions = _within_groups(whole - values[len(parts) + 1 :], by_group, groups)
    return contributions, values[len(parts)], values[0]


def find_groups(graph: Graphs) -> np.ndarray:
    """The group of each atom: int64 `[A]`, numbers from 0.

    In one group are atoms of a common ring or multiple bond; outside of rings also two atoms bonded to each other that
    are not carbon, and a carbon with all that are bonded to it and are not carbon, if there are several, as in an acid,
    an amide or a trifluoromethyl group.
    """
    ends, code = graph.ends, graph.bonds.astype(np.int64)
    is_hetero, in_ring = graph.atoms[:, 0] != 6, graph.atoms[:, 8] > 0
    n_hetero = np.zeros(len(graph.atoms), np.int64)
    for a, b in ((0, 1), (1, 0)):
        np.add.at(n_hetero, ends[:, a], is_hetero[ends[:, b]])
    centre = is_hetero | (n_hetero > 1)
    functional = centre[ends].all(axis=1) & is_hetero[ends].any(axis=1) & ~in_ring[ends].any(axis=1)
    joined = (code // 4 % 2 == 1) | (code // _ORDER_DIGIT > 0) | functional
    return _components(len(graph.atoms), ends[joined])


def join_groups(groups: np.ndarray, graph: Graphs) -> np.ndarray:
    """The same groups, or fewer: neighbours with the fewest atoms joined while there are too many connected parts."""
    while True:
        neighbours = group_neighbours(groups, graph)
        if sum(1 for _ in islice(connected_parts(neighbours), MAX_PARTS + 1)) <= MAX_PARTS:
            return groups
        sizes = np.bincount(groups)
        pairs = [(i, j) for i, mask in enumerate(neighbours) for j in range(i) if mask >> j & 1]
        i, j = min(pairs or [(1, 0)], key=lambda pair: (sizes[pair[0]] + sizes[pair[1]], pair))
        groups = np.unique(np.where(groups == i, j, groups), return_inverse=True)[1]


def group_neighbours(groups: np.ndarray, graph: Graphs) -> list[int]:
    """For each group a number whose bits are the groups bonded to it."""
    neighbours = [0] * (int(groups.max()) + 1)
    for a, b in groups[graph.ends].tolist():
        if a != b:
            neighbours[a] |= 1 << b
            neighbours[b] |= 1 << a
    return neighbours


def connected_parts(neighbours: list[int]) -> Iterator[int]:
    """All sets of groups that occur while a molecule is built, small ones first: numbers with a bit for each group."""
    layer = {1 << k: mask for k, mask in enumerate(neighbours)}
    while layer:
        yield from layer
        grown: dict[int, int] = {}
        for part, around in layer.items():
            for k in _next_groups(part, around, len(neighbours)):
                grown[part | 1 << k] = around | neighbours[k]
        layer = grown


def _next_groups(part: int, around: int, n: int) -> list[int]:
    """Groups that may come next. around: the groups bonded to the part; where all are in it, a salt's other ion."""
    free = around & ~part or ((1 << n) - 1) & ~part
    return [k for k in range(n) if free >> k & 1]


def _build_up(values: dict[int, np.ndarray], neighbours: list[int]) -> np.ndarray:
    """The mean change when each group comes: float64 `[G, P]`. values: of each connected part, and of 0."""
    n = len(neighbours)
    changes = np.zeros((n, len(values[0])))
    around, chance = {0: 0}, {0: 1.0}
    for part, value in values.items():  # small ones first, so that the chance of each is complete when it is reached
        following = _next_groups(part, around[part], n)
        for k in following:
            grown, share = part | 1 << k, chance[part] / len(following)
            changes[k] += share * (values[grown] - value)
            around[grown] = around[part] | neighbours[k]
            chance[grown] = chance.get(grown, 0.0) + share
    return changes


def _within_groups(masked: np.ndarray, by_group: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Contributions of atoms, float64 `[A, P]`. masked: what the whole molecule's values lose without each atom."""
    sums = np.zeros_like(by_group)
    np.add.at(sums, groups, masked)
    return masked + ((by_group - sums) / np.bincount(groups)[:, None])[groups]


def take_parts(graph: Graphs, kept: np.ndarray, fill: bool = True) -> Graphs:
    """Parts of one molecule as molecules. kept: bool `[M, A]`, the atoms of each.

    fill: put hydrogens in place of the bonds that are cut; otherwise the atoms keep their codes.
    """
    ends, atoms = graph.ends, np.repeat(graph.atoms[None].astype(np.int64), len(kept), axis=0)
    here, there = kept[:, ends[:, 0]], kept[:, ends[:, 1]]
    if fill:
        degree, hydrogens = atoms[:, :, DEGREE], atoms[:, :, HYDROGENS]  # views
        valence = _VALENCE[graph.bonds // _ORDER_DIGIT]
        for cut, side in ((here & ~there, 0), (there & ~here, 1)):
            row, bond = np.nonzero(cut)
            np.add.at(degree, (row, ends[bond, side]), -1)
            np.add.at(hydrogens, (row, ends[bond, side]), valence[bond])
        np.minimum(hydrogens, ATOM_FIELDS["hydrogens"] - 1, out=hydrogens)
    row, bond = np.nonzero(here & there)
    number = np.cumsum(kept, axis=1) - 1
    endpoints = number[row[:, None], ends[bond]].astype(np.uint16).reshape(-1, 2)
    n_atoms, n_bonds = kept.sum(axis=1), (here & there).sum(axis=1)
    return Graphs(
        atoms[kept].astype(np.uint8), graph.bonds[bond], endpoints, row_pointer(n_atoms), row_pointer(n_bonds)
    )


def _components(n: int, pairs: np.ndarray) -> np.ndarray:
    """Numbers of the sets that `pairs`, int64 `[M, 2]`, join `n` items to: int64 `[n]`, from 0."""
    label = np.arange(n)
    while len(pairs):
        smallest = np.minimum(label[pairs[:, 0]], label[pairs[:, 1]])
        before = label.copy()
        for side in (0, 1):
            np.minimum.at(label, pairs[:, side], smallest)
        if (label == before).all():
            break
    return np.unique(label, return_inverse=True)[1]
