"""Make a library to pre-train the encoder on: about 520,000 structures and no measured value.

    pip download --no-deps molsets==0.3.1
    python examples/make_library.py DATA_DIR molsets-0.3.1-py3-none-any.whl library.csv.gz

DATA_DIR holds folders of .csv.gz tables, of which only columns of SMILES are read: admet and moleculenet (measured
sets), captions and instructions (described molecules), reactions (USPTO), qm9. Of the first four every molecule is
taken, of the parts of reactions and of QM9 a share by chance, and MOSES (molsets, MIT; nothing of the wheel is
installed or run), which is narrow, fills up to the number: no charges, no salts, seven elements.

Written is the parent, as `train` and `predict` read molecules. Of molecules whose parents differ in their stereo alone
the first is kept. What has the InChIKey skeleton of a TDC test molecule (`tdc_split` is `test` in a table of admet),
as it is drawn or as its parent, is left out.
"""

from __future__ import annotations

import csv
import gzip
import random
import sys
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from rdkit import Chem, RDLogger

from mora_lite.chem.featurizer import Featurizer
from mora_lite.chem.standardize import parent_of

N_MOLECULES = 520_000
N_REACTIONS = 170_000
N_QM9 = 25_000
LONGEST = 300  # characters
WHOLE = ("admet", "moleculenet", "captions", "instructions")
REACTION_COLUMNS = ("product", "reactants", "reagents", "reactants_and_reagents")
NOT_READ = ("uspto500mt_test",)  # an official test set
AS_DRAWN = Featurizer(standardize="none")


def read_rows(folder: Path) -> Iterator[dict[str, str]]:
    for path in sorted(folder.glob("*.csv.gz")):
        if path.name.removesuffix(".csv.gz") not in NOT_READ:
            with gzip.open(path, "rt", encoding="utf-8") as file:
                yield from csv.DictReader(file)


def read_molecules(folder: Path) -> list[str]:
    return list(dict.fromkeys(row["smiles"] for row in read_rows(folder)))


def read_parts(folder: Path) -> list[str]:
    """Everything that takes part in a reaction, each text once."""
    cells = (row.get(column) or "" for row in read_rows(folder) for column in REACTION_COLUMNS)
    return list(dict.fromkeys(part for cell in cells for part in cell.split(".") if part))


def read_moses(wheel: str) -> list[str]:
    name = "moses/dataset/data/train.csv.gz"
    with zipfile.ZipFile(wheel) as wheel_file, wheel_file.open(name) as packed, gzip.open(packed, "rt") as file:
        return [row["SMILES"] for row in csv.DictReader(file)]


def shuffled(texts: list[str], seed: int) -> list[str]:
    random.Random(seed).shuffle(texts)
    return texts


def parent_and_skeletons(text: str) -> tuple[Chem.Mol, set[str]] | None:
    """The parent, and the first parts of the InChIKeys of it and of the molecule as drawn; None if unreadable."""
    drawn = AS_DRAWN.parse_smiles(text).mol
    if drawn is None:
        return None
    parent = parent_of(drawn)
    forms = [drawn] if parent is drawn else [drawn, parent]
    return parent, {Chem.MolToInchiKey(mol)[:14] for mol in forms} - {""}


class Library:
    """What was taken: the SMILES, and the flat SMILES that make a repeat.

    tests: InChIKey skeletons that may not be in it.
    """

    def __init__(self, tests: set[str]):
        self.tests = tests
        self.smiles: list[str] = []
        self.seen: set[str] = set()

    def take(self, name: str, texts: Iterable[str], n_most: int) -> None:
        """Add the molecules that are new, up to `n_most`, and print how many of what kind there were."""
        unreadable = repeats = tests = 0
        before = len(self.smiles)
        for text in texts:
            if len(self.smiles) - before == n_most:
                break
            found = parent_and_skeletons(text) if len(text) <= LONGEST else None
            if found is None:
                unreadable += 1
                continue
            parent, skeletons = found
            flat = Chem.MolToSmiles(parent, isomericSmiles=False)
            if flat in self.seen:
                repeats += 1
                continue
            self.seen.add(flat)
            if skeletons & self.tests:
                tests += 1
                continue
            self.smiles.append(Chem.MolToSmiles(parent))
        n = len(self.smiles) - before
        print(f"{name}: {n:,} taken; left out {repeats:,} repeats, {tests:,} of tests, {unreadable:,} unreadable")


def main(folder: str, wheel: str, target: str) -> None:
    data = Path(folder)
    RDLogger.DisableLog("rdApp.*")
    tests = {row["smiles"] for row in read_rows(data / "admet") if row.get("tdc_split") == "test"}
    library = Library({key for text in tests if (found := parent_and_skeletons(text)) for key in found[1]})
    print(f"TDC tests: {len(tests):,} SMILES, {len(library.tests):,} skeletons")
    for name in WHOLE:
        library.take(name, read_molecules(data / name), N_MOLECULES)
    library.take("reactions", shuffled(read_parts(data / "reactions"), 0), N_REACTIONS)
    library.take("qm9", shuffled(read_molecules(data / "qm9"), 1), N_QM9)
    library.take("moses", shuffled(read_moses(wheel), 2), max(N_MOLECULES - len(library.smiles), 0))
    with gzip.open(target, "wt", encoding="utf-8", newline="") as out:
        out.write("smiles\n")
        out.writelines(f"{smiles}\n" for smiles in shuffled(library.smiles, 3))
    print(f"{target}: {len(library.smiles):,} molecules")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: make_library.py DATA_DIR molsets-0.3.1-py3-none-any.whl library.csv.gz")
    main(*sys.argv[1:])
