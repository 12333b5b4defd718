"""Make the list of approved drugs, and the percentiles of a pack's predictions for them.

    python examples/make_approved.py clintox.csv.gz OUT_DIR --pack admet

clintox.csv.gz is ClinTox of MoleculeNet (Wu et al. 2018, https://doi.org/10.1039/C7SC02664A), columns `smiles` and
`FDA_APPROVED`; its approved drugs come from SWEETLEAD (Novick et al. 2013, https://doi.org/10.1371/journal.pone.0079568).
A molecule is taken once, by its parent; those with a wildcard are left out. What is written to OUT_DIR belongs into
mora_lite/context: approved_drugs.smi, and approved_drugs_SHA.csv, which is for that pack only.
"""

from __future__ import annotations

import argparse
import csv
import gzip
from pathlib import Path

from rdkit import Chem

import mora_lite
from mora_lite.chem.featurizer import Featurizer
from mora_lite.context.approved import DRUGS, KNOWN, ApprovedDrugs
from mora_lite.machine.files import replacing


def read_drugs(path: Path) -> list[str]:
    """Canonical SMILES of the parents of the approved drugs, sorted."""
    featurizer = Featurizer()
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        rows = [row["smiles"] for row in csv.DictReader(file) if row["FDA_APPROVED"] == "1"]
    molecules = [featurizer.parse_smiles(smiles).mol for smiles in rows]
    found = {Chem.MolToSmiles(molecule) for molecule in molecules if molecule is not None}
    return sorted(smiles for smiles in found if "*" not in smiles)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clintox", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--pack", default="admet")
    options = parser.parse_args()
    drugs = read_drugs(options.clintox)
    model = mora_lite.load(options.pack, device="cpu", dtype="float32")
    known = ApprovedDrugs.of(tuple(task.name for task in model.tasks), model.score(drugs).values)
    write(options.out / DRUGS, drugs)
    write(options.out / KNOWN.format(model.pack_sha256[:12]), known.lines(model.pack_sha256))
    print(f"{len(drugs):,} drugs, {len(known.names)} tasks")


def write(path: Path, lines: list[str]) -> None:
    with replacing(path) as file:
        file.write("".join(f"{line}\n" for line in lines).encode())


if __name__ == "__main__":
    main()
