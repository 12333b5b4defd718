"""Whether a molecule's answer depends on how it was spelled: random spellings of molecules with stereo marks.

    python benchmarks/spellings.py --pack admet --molecules 5000 --spellings 20 TABLE.csv.gz:COLUMN ...

Of each table as many molecules with `@`, `/` or `\\` are taken at random (seed 0). The spellings of a molecule have
their atoms in random orders, and in turn hydrogens written as atoms, Kekulé bonds, atom maps, deuterium for hydrogen,
and hydrogens in brackets; they are compared with the table's own. Printed: the share of values that are equal to the
bit, the largest difference in deviations of a task, and in how many molecules the similarity differs. Where values
differ RDKit is asked whether the spelling is one of the molecule at all: now and then it writes the mark of a double
bond wrongly. Those that are none are counted and left out.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import random
import re
import time

import numpy as np
from rdkit import Chem, rdBase

import mora_lite


def respell(smiles: str, number: int) -> str:
    rng = random.Random(f"{smiles} {number}")
    mol = Chem.MolFromSmiles(smiles)
    if number % 5 in (1, 4):
        mol = Chem.AddHs(mol)
    mol = Chem.RenumberAtoms(mol, rng.sample(range(mol.GetNumAtoms()), mol.GetNumAtoms()))
    kekule = number % 5 == 2
    if kekule:
        Chem.Kekulize(mol, clearAromaticFlags=True)
    for atom in mol.GetAtoms() if number % 5 == 3 else ():
        atom.SetAtomMapNum(rng.randrange(1, 999))
    text = Chem.MolToSmiles(mol, canonical=False, doRandom=True, allHsExplicit=number % 5 == 0, kekuleSmiles=kekule)
    return text.replace("[H]", "[2H]") if number % 5 == 4 else text


def plain(smiles: str) -> str:
    """RDKit's canonical SMILES of a text whose deuterium and atom maps were taken out of the text itself."""
    return Chem.CanonSmiles(re.sub(r":\d+\]", "]", smiles.replace("[2H]", "[H]")))


def read(table: str, n: int) -> list[str]:
    path, _, column = table.rpartition(":")
    with gzip.open(path, "rt", newline="", encoding="utf-8") as file:
        texts = sorted({row[column] for row in csv.DictReader(file) if set("@/\\") & set(row[column])})
    random.Random(0).shuffle(texts)
    with rdBase.BlockLogs():
        return [text for text in texts if Chem.MolFromSmiles(text) is not None][:n]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="+", metavar="TABLE:COLUMN")
    parser.add_argument("--pack", default="admet")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--molecules", type=int, default=5000)
    parser.add_argument("--spellings", type=int, default=20)
    args = parser.parse_args()
    model = mora_lite.load(args.pack, dtype=args.dtype)
    deviation = np.array([task.deviation for task in model.tasks], np.float32)
    texts = [text for table in args.tables for text in read(table, args.molecules // len(args.tables))]
    equal = total = other_similarity = other_molecules = 0
    largest = 0.0
    started = time.perf_counter()
    for start in range(0, len(texts), 250):
        block = texts[start : start + 250]
        rows = [*block, *(respell(text, number) for number in range(args.spellings) for text in block)]
        scores = model.score(rows)
        assert set(scores.status) == {"ok"}, [r for r, s in zip(rows, scores.status, strict=True) if s != "ok"][:3]
        shape = args.spellings + 1, len(block), len(model.tasks)
        values, nearest = scores.values.reshape(shape), scores.nearest.reshape(shape)
        for number, column in np.argwhere((values != values[0]).any(axis=2)).tolist():
            if plain(rows[number * len(block) + column]) != plain(block[column]):
                other_molecules += 1
                values[number, column] = values[0, column]
        equal += int((values[1:] == values[0]).sum())
        total += values[1:].size
        largest = max(largest, float((np.abs(values[1:] - values[0]) / deviation).max()))
        other_similarity += int((nearest != nearest[0]).any(axis=(0, 2)).sum())
        print(
            f"{start + len(block):,} molecules, {args.spellings} spellings each, {len(model.tasks)} tasks, "
            f"{model.dtype}: {equal / total:.6f} of the values equal to the bit, largest difference {largest:.2g} "
            f"deviations, other similarity in {other_similarity}; "
            f"{other_molecules} spellings left out ({time.perf_counter() - started:.0f} s)",
            flush=True,
        )


if __name__ == "__main__":
    main()
