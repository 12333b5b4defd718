"""Make the table of the pack `admet` out of seven MoleculeNet sets and B3DB.

    pip download --no-deps qc-b3db==1.1.1
    python examples/make_admet.py MOLECULENET_DIR qc_b3db-1.1.1-py3-none-any.whl admet.csv.gz

MOLECULENET_DIR holds delaney, lipo, bbbp, bace, tox21, clintox and hiv as .csv.gz, as chemprop distributes them
(MIT). B3DB (Meng and others, 2021, doi 10.1038/s41597-021-01069-5) is CC0; nothing of its wheel is installed or run.
The sets are written one after the other, a molecule that stands in several stands in several rows; `mora-lite train`
joins them.
"""

from __future__ import annotations

import csv
import gzip
import io
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

TOX21 = [
    "NR-AR",
    "NR-AR-LBD",
    "NR-AhR",
    "NR-Aromatase",
    "NR-ER",
    "NR-ER-LBD",
    "NR-PPAR-gamma",
    "SR-ARE",
    "SR-ATAD5",
    "SR-HSE",
    "SR-MMP",
    "SR-p53",
]
# set -> its columns and the names of the tasks they become
SETS: dict[str, dict[str, str]] = {
    "delaney": {"log_solubility_mol_per_L": "logS"},
    "lipo": {"lipo": "logD"},
    "bbbp": {"p_np": "BBB"},
    "bace": {"Class": "BACE1", "pIC50": "BACE1_pIC50"},
    "tox21": {name: name for name in TOX21},
    "clintox": {"FDA_APPROVED": "FDA_approved", "CT_TOX": "clinical_toxicity"},
    "hiv": {"HIV_active": "HIV"},
}
B3DB = {
    "B3DB/B3DB_classification.tsv": ("BBB+/BBB-", "BBB", {"BBB+": "1", "BBB-": "0"}),
    "B3DB/B3DB_regression.tsv": ("logBB", "logBB", {}),
}
COLUMNS = ["smiles", "logS", "logD", "logBB", "BBB", "BACE1_pIC50", "BACE1", *TOX21]
COLUMNS += ["FDA_approved", "clinical_toxicity", "HIV", "source"]


def moleculenet(folder: Path) -> Iterator[dict[str, str]]:
    """Rows of the seven sets; a row that is marked as unreadable is left out."""
    for name, columns in SETS.items():
        with gzip.open(folder / f"{name}.csv.gz", "rt", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if row.get("scaffold_split") != "invalid":
                    yield {"smiles": row["smiles"], "source": name} | {to: row[at] for at, to in columns.items()}


def b3db(wheel: str) -> Iterator[dict[str, str]]:
    """Rows of both tables of B3DB."""
    with zipfile.ZipFile(wheel) as archive:
        for name, (column, task, words) in B3DB.items():
            with archive.open(name) as stream:
                for row in csv.DictReader(io.TextIOWrapper(stream, encoding="utf-8", newline=""), delimiter="\t"):
                    yield {"smiles": row["SMILES"], task: words.get(row[column], row[column]), "source": "b3db"}


def main(folder: str, wheel: str, target: str) -> None:
    n_rows = 0
    with gzip.open(target, "wt", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for rows in (moleculenet(Path(folder)), b3db(wheel)):
            for row in rows:
                writer.writerow(row)
                n_rows += 1
    print(f"{target}: {n_rows:,} rows")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: make_admet.py MOLECULENET_DIR qc_b3db-1.1.1-py3-none-any.whl admet.csv.gz")
    main(*sys.argv[1:])
