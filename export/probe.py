"""The batches that the parity gate asks an exported model about.

Half of the molecules are put together from fragments by RDKit, half are random graphs of random codes, which reach
every element, every code and shapes that no chemist would draw. All from one seed: the gate is always the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from rdkit import Chem, rdBase

from ..chem.featurizer import Featurizer
from ..chem.graph import ATOM_FIELDS, N_BOND_CODES, Graphs, concatenate

MOLECULES = 1000
SEED = 5
SIZES = (64, 3, 17, 128, 256)  # of batches, in turn; those of one molecule come first
SINGLES = 24
CORES = (
    "c1ccccc1", "c1ccncc1", "c1ccoc1", "c1ccsc1", "c1cc[nH]c1", "C1CCCCC1", "C1CCNCC1", "C1COCCN1", "c1ccc2[nH]ccc2c1",
    "c1ccc2ccccc2c1", "C1CC1", "C1CCOC1", "CC(C)C", "NCC(=O)O", "CCCC", "C1CC2CCC1C2", "c1nc2ccccc2s1", "O=C1CCCN1",
)  # fmt: skip
GROUPS = (
    "C", "CC", "O", "OC", "N", "N(C)C", "F", "Cl", "Br", "I", "C#N", "C(=O)O", "C(=O)N", "S(=O)(=O)N", "C(F)(F)F",
    "[N+](=O)[O-]", "C=C", "/C=C/C", "/C=C\\C", "[C@H](O)C", "[C@@H](N)C", "P(=O)(O)O", "B(O)O", "[Si](C)(C)C", "[Se]C",
    "C#C", "S", "C(=O)[O-]",
)  # fmt: skip
SALTS = ("[Na+]", "[Cl-]", "[K+]", "Cl", "O", "[Ca+2]", "OS(=O)(=O)O", "[NH4+]", "CC(=O)[O-]")


class Case(NamedTuple):
    """A batch and the positions of the tasks asked for; real: whether RDKit made the molecules."""

    name: str
    graphs: Graphs
    tasks: list[int]
    real: bool = False


AS_DRAWN = Featurizer(standardize="none")  # so that salts are mixtures


def probe_cases(n_tasks: int) -> list[Case]:
    """1,000 random molecules in batches of many sizes, and the shapes at which exports break."""
    rng = np.random.default_rng(SEED)
    every = list(range(n_tasks))
    cases = [
        Case("one atom without bonds", lone_atoms([6]), every),
        Case("all elements, no bonds", lone_atoms(range(ATOM_FIELDS["element"])), every),
        Case("every bond code", every_bond_code(), every),
        Case("an atom with 40 neighbours", star(40), every),
        Case("300 atoms beside one", concatenate([random_graphs(rng, 1, 300), lone_atoms([8])]), every),
        Case("salts", AS_DRAWN.read_smiles([f"CC(=O)Nc1ccccc1.{'.'.join(SALTS[i:])}" for i in range(9)]), every),
    ]
    real, made = real_molecules(rng, MOLECULES // 2), random_graphs(rng, MOLECULES // 2)
    for kind, graphs in (("molecules", real), ("random graphs", made)):
        start, turn = 0, 0
        while start < len(graphs):
            size = 1 if start < SINGLES else SIZES[(turn := turn + 1) % len(SIZES)]
            part = graphs.select(range(start, min(start + size, len(graphs))))
            # One task, some of them backwards, or all: which ones are asked for must not matter.
            tasks = (every, every[::-2], [int(rng.integers(n_tasks))])[turn % 3] if turn else every
            cases.append(Case(f"{len(part)} of the {kind}", part, tasks, kind == "molecules"))
            start += size
    return cases


def small_cases(n_tasks: int) -> list[Case]:
    """A few of the same, for an evaluator that is slower."""
    rng = np.random.default_rng(SEED + 1)
    return [
        Case("one atom without bonds", lone_atoms([6]), list(range(n_tasks))),
        Case("every bond code", every_bond_code(), [n_tasks - 1]),
        Case("12 of the molecules", real_molecules(rng, 12), list(range(n_tasks))[::-1][:3], True),
        Case("6 of the random graphs", random_graphs(rng, 6), [0]),
    ]


def real_molecules(rng: np.random.Generator, n: int) -> Graphs:
    """Cores with groups on them, one in eight with a salt."""
    molecules: list[Chem.Mol] = []
    with rdBase.BlockLogs():
        while len(molecules) < n:
            smiles = decorated(rng)
            if rng.integers(8) == 0:
                smiles += "." + rng.choice(SALTS)
            molecule = AS_DRAWN.parse_smiles(smiles).mol
            if molecule is not None:
                molecules.append(molecule)
    return AS_DRAWN.graphs(molecules)


def decorated(rng: np.random.Generator) -> str:
    """SMILES of a random core with up to five groups or cores bound to it; empty where RDKit refuses the result."""
    molecule = Chem.RWMol(Chem.MolFromSmiles(str(rng.choice(CORES))))
    for _ in range(rng.integers(6)):
        piece = Chem.MolFromSmiles(str(rng.choice(CORES if rng.integers(4) == 0 else GROUPS)))
        open_atoms = [
            atom.GetIdx() for atom in molecule.GetAtoms() if atom.GetTotalNumHs() and not atom.GetNumExplicitHs()
        ]
        if piece is None or not open_atoms:
            continue
        joint = molecule.GetNumAtoms()
        molecule = Chem.RWMol(Chem.CombineMols(molecule, piece))
        molecule.AddBond(int(rng.choice(open_atoms)), joint, Chem.BondType.SINGLE)
        for atom in molecule.GetAtoms():
            atom.SetNoImplicit(False)
        try:
            Chem.SanitizeMol(molecule)
        except Chem.MolSanitizeException:
            return ""
    return str(Chem.MolToSmiles(molecule))


def random_graphs(rng: np.random.Generator, n: int, n_atoms: int | None = None) -> Graphs:
    """Random codes on random graphs: trees with some more bonds, in pieces or whole, bonds doubled at times."""
    parts = []
    for _ in range(n):
        size = n_atoms or int(rng.integers(1, 41))
        ends = [(int(rng.integers(atom)), atom) for atom in range(1, size) if rng.random() < 0.95]
        more = rng.integers(0, 4) if size > 1 else 0
        ends += [(int(a), int(b)) for a, b in (rng.choice(size, 2, replace=False) for _ in range(more))]
        parts.append(graph_of(random_atoms(rng, size), ends, rng.integers(0, N_BOND_CODES, len(ends))))
    return concatenate(parts)


def random_atoms(rng: np.random.Generator, n: int) -> np.ndarray:
    """uint8 `[n, 10]`."""
    return np.stack([rng.integers(0, codes, n) for codes in ATOM_FIELDS.values()], 1).astype(np.uint8)


def graph_of(atoms: np.ndarray, ends: Sequence[tuple[int, int]], bonds: np.ndarray) -> Graphs:
    """One molecule."""
    pairs = np.array(ends, np.uint16).reshape(-1, 2)
    pointers = (np.array([0, len(part)], np.int64) for part in (atoms, pairs))
    return Graphs(atoms.astype(np.uint8), bonds.astype(np.uint8), pairs, *pointers)


def lone_atoms(elements: Sequence[int]) -> Graphs:
    """A molecule of one atom for each element."""
    rows: Iterator[np.ndarray] = (np.array([[element] + [0] * (len(ATOM_FIELDS) - 1)]) for element in elements)
    return concatenate([graph_of(row, [], np.empty(0)) for row in rows])


def every_bond_code() -> Graphs:
    """A chain with a bond of each code."""
    rng = np.random.default_rng(SEED)
    ends = [(i, i + 1) for i in range(N_BOND_CODES)]
    return graph_of(random_atoms(rng, N_BOND_CODES + 1), ends, np.arange(N_BOND_CODES))


def star(n: int) -> Graphs:
    """One atom in the middle of n."""
    rng = np.random.default_rng(SEED)
    return graph_of(random_atoms(rng, n + 1), [(0, i) for i in range(1, n + 1)], rng.integers(0, N_BOND_CODES, n))
