"""Make `examples/logbb.csv`, the table that docs/first-steps.md trains on, out of B3DB.

    pip download --no-deps qc-b3db==1.1.1
    python examples/make_logbb.py qc_b3db-1.1.1-py3-none-any.whl examples/logbb.csv

B3DB (Meng and others, 2021, doi 10.1038/s41597-021-01069-5) is CC0; nothing of its wheel is installed or run.
"""

from __future__ import annotations

import csv
import io
import sys
import zipfile


def main(wheel: str, target: str) -> None:
    with zipfile.ZipFile(wheel) as archive, archive.open("B3DB/B3DB_regression.tsv") as stream:
        rows = list(csv.DictReader(io.TextIOWrapper(stream, encoding="utf-8", newline=""), delimiter="\t"))
    with open(target, "w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["name", "smiles", "logBB"])
        names = ("".join(row["compound_name"].splitlines()) for row in rows)  # one breaks at a hyphen
        writer.writerows([name, row["SMILES"], row["logBB"]] for name, row in zip(names, rows, strict=True))
    print(f"{target}: {len(rows):,} rows")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: make_logbb.py qc_b3db-1.1.1-py3-none-any.whl logbb.csv")
    main(*sys.argv[1:])
