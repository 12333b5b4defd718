"""Make the table of the pack `admet`.

    pip download --no-deps qc-b3db==1.1.1
    python examples/make_admet.py DATA_DIR qc_b3db-1.1.1-py3-none-any.whl admet.csv.gz

DATA_DIR holds the folders `admet` and `moleculenet` with the files that `admet_sources.py` names. Of the wheel of B3DB
nothing is installed or run. A row of the table is a parent, read as `mora-lite train` reads molecules
(`standardize = "parent"`), a column is an endpoint, `split` says what a row is for, and `sources` names its files.
docs/endpoints.md says how several values of one molecule become one; numbers of all this are printed to stderr.

--boards: the table for the benchmark on the 22 boards of TDC. Their files become columns of their own, with values for
the rows of `train_val` only, and give nothing to the endpoints. --without SOURCE,...: leave these files out.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import io
import math
import sys
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import fmean, median

import numpy as np
from admet_endpoints import ENDPOINTS, Endpoint
from admet_sources import CONVERT, SOURCES, WORDS, Column, Source
from rdkit import Chem

from mora_lite.chem.featurizer import Featurizer
from mora_lite.machine.files import replacing_path
from mora_lite.scoring import tasks

CLASH = 1.0  # values of one molecule that differ by more, in powers of ten or log units, are a conflict


@dataclass
class Found:
    """What the files say about one endpoint.

    values: parent -> file -> values on the endpoint's scale. rows: file -> number of values. dropped: values that
    are outside of their range, of rows that are no single molecule, or of molecules that cannot be read.
    """

    endpoint: Endpoint
    values: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    dropped: int = 0

    @cached_property
    def merged(self) -> dict[str, tuple[float | None, bool]]:
        """parent -> its one value on the endpoint's scale, and whether the files are in conflict, by `merge`."""
        kind = self.endpoint.kind
        return {parent: merge([v for part in by.values() for v in part], kind) for parent, by in self.values.items()}

    @property
    def counts(self) -> tuple[int, int]:
        """How many molecules have a value, and how many are in conflict."""
        merged = self.merged.values()
        return sum(value is not None for value, _ in merged), sum(clash for _, clash in merged)

    def add(self, parent: str, source: str, value: float) -> None:
        self.values.setdefault(parent, {}).setdefault(source, []).append(value)
        self.rows[source] = self.rows.get(source, 0) + 1


class Parents:
    """SMILES -> SMILES of the parent, None for what cannot be read; every text is read once."""

    def __init__(self) -> None:
        self._featurizer = Featurizer(standardize="parent")
        self._known: dict[str, str | None] = {}

    def __getitem__(self, smiles: str) -> str | None:
        if smiles not in self._known:
            mol = self._featurizer.parse_smiles(smiles).mol
            self._known[smiles] = None if mol is None else Chem.MolToSmiles(mol)
        return self._known[smiles]


def on_scale(value: float, scale: str) -> float:
    """A value on the scale that it is averaged on; logit in powers of ten of the ratio bound to free."""
    learnt = float(tasks.on_scale(np.array(value), scale))
    return learnt / math.log(10) if scale == "logit" else learnt


def in_unit(value: float, scale: str) -> float:
    """The inverse of `on_scale`, but for the clipping."""
    return float(tasks.in_unit(np.array(value * math.log(10) if scale == "logit" else value), scale))


def read_rows(source: Source, folder: Path, wheel: str) -> list[dict[str, str]]:
    """All rows of a file."""
    if source.path.startswith("B3DB/"):
        with zipfile.ZipFile(wheel) as archive, archive.open(source.path) as stream:
            return list(csv.DictReader(io.TextIOWrapper(stream, encoding="utf-8-sig", newline=""), delimiter="\t"))
    with gzip.open(folder / f"{source.path}.csv.gz", "rt", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def number_of(row: Mapping[str, str], column: Column) -> float | None:
    """The value of a row in the endpoint's unit; None where there is none, NaN where it cannot be used."""
    text = row[column.column].strip()
    if not text or (column.where and row[column.where[0]].strip() not in column.where[1]):
        return None
    value = CONVERT[column.convert](float(WORDS.get(text, text)))
    return value if column.within.low <= value <= column.within.high else math.nan


def collect(folder: Path, wheel: str, boards: bool, without: Iterable[str]) -> dict[str, Found]:
    """Read all files. Endpoints come in the order of `ENDPOINTS`, then boards."""
    parents, left_out = Parents(), set(without)
    unknown = left_out - {source.name for source in SOURCES}
    if unknown:
        sys.exit(
            f"--without: got {', '.join(sorted(unknown))}, expected names of files as docs/endpoints.md lists them"
        )
    found = {endpoint.name: Found(endpoint) for endpoint in ENDPOINTS}
    for source in SOURCES:
        if source.name in left_out:
            continue
        rows = read_rows(source, folder, wheel)
        columns = source.columns
        if boards and source.board:
            kin = next((found[column.task].endpoint for column in columns), None)
            columns = (Column(source.name, source.name),)
            found[source.name] = Found(board_endpoint(source.name, kin))
        # No value of a test row is ever in the table for the benchmark.
        kept = [row for row in rows if not boards or row.get("tdc_split") != "test"]
        read_columns(source, kept, columns, parents, found)
    return {name: entry for name, entry in found.items() if entry.rows}


def board_endpoint(name: str, kin: Endpoint | None) -> Endpoint:
    """A board is learnt as the endpoint that it is about."""
    if kin is None:  # plasma protein binding, of five species
        return Endpoint(name, "", unit="%", scale="logit")
    return Endpoint(name, kin.meaning, unit=kin.unit, scale=kin.scale, kind=kin.kind)


def read_columns(
    source: Source,
    rows: Iterable[Mapping[str, str]],
    columns: Sequence[Column],
    parents: Parents,
    found: Mapping[str, Found],
) -> None:
    for row in rows:
        smiles = row[source.smiles]
        for column in columns:
            number, entry = number_of(row, column), found[column.task]
            if number is None:
                continue
            value = on_scale(number, entry.endpoint.scale)
            parent = parents[smiles]
            if parent is None or not math.isfinite(value) or (column.whole and "." in smiles):
                entry.dropped += 1
            else:
                entry.add(parent, source.name, value)


def merge(values: Sequence[float], kind: str) -> tuple[float | None, bool]:
    """One value of several, and whether they are in conflict. A class without a majority is None."""
    clash = max(values) - min(values) > (CLASH if kind == "value" else 0)
    if kind == "class":
        share = fmean(values)
        return (None if share == 0.5 else float(share > 0.5)), clash
    return (median(values) if len(values) > 2 else fmean(values)), clash


def part_of(parent: str) -> str:
    """`train`, `valid` or `test`, 84, 8 and 8 % of the constitutions, by a hash: stereoisomers stay together."""
    flat = Chem.MolToSmiles(Chem.MolFromSmiles(parent), isomericSmiles=False)
    percent = int.from_bytes(hashlib.sha256(flat.encode()).digest()[:4], "big") % 100
    return "train" if percent < 84 else "valid" if percent < 92 else "test"


def write_table(target: Path, found: Mapping[str, Found]) -> int:
    """Write the table. Returns its number of rows."""
    cells: dict[str, dict[str, str]] = defaultdict(dict)
    sources: dict[str, dict[str, None]] = defaultdict(dict)
    for name, entry in found.items():
        for parent, (value, _) in entry.merged.items():
            if value is not None:
                cells[parent][name] = f"{in_unit(value, entry.endpoint.scale):.5g}"
                sources[parent].update(dict.fromkeys(entry.values[parent]))
    with replacing_path(target) as part, gzip.open(part, "wt", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, ["smiles", *found, "split", "sources"], restval="", lineterminator="\n")
        writer.writeheader()
        for parent, row in cells.items():
            more = {"split": part_of(parent), "sources": ";".join(sources[parent])}
            writer.writerow({"smiles": parent, **row, **more})
    return len(cells)


def report(found: Mapping[str, Found]) -> Iterator[str]:
    """Lines: of each endpoint its numbers, then how far each pair of its sources agrees."""
    yield f"{'task':<32}{'rows':>8}{'molecules':>10}{'conflicts':>10}{'dropped':>8}  files"
    for name, entry in found.items():
        n_values, n_clashes = entry.counts
        files = ", ".join(f"{source} {n}" for source, n in entry.rows.items())
        numbers = f"{sum(entry.rows.values()):>8}{n_values:>10}{n_clashes:>10}{entry.dropped:>8}"
        yield f"{name:<32}{numbers}  {files}"
    yield ""
    yield "agreement of files about the same molecules"
    for name, entry in found.items():
        files = list(entry.rows)
        for i, first in enumerate(files):
            for second in files[i + 1 :]:
                yield f"{name:<20}{first} and {second}: {agreement(entry, first, second)}"


def agreement(entry: Found, first: str, second: str) -> str:
    """Of the molecules that both files know: how many, and how alike their values are."""
    pairs = [(median(by[first]), median(by[second])) for by in entry.values.values() if first in by and second in by]
    if not pairs:
        return "no molecule in both"
    if entry.endpoint.kind == "class":
        same = sum(a == b for a, b in pairs)
        return f"{len(pairs)} molecules, {same / len(pairs):.1%} alike"
    gaps = [b - a for a, b in pairs]
    typical, mean = median(map(abs, gaps)), fmean(gaps)
    far = sum(abs(gap) > CLASH for gap in gaps)
    return f"{len(pairs)} molecules, median distance {typical:.2f}, second - first {mean:+.2f}, {far} conflicts"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", type=Path, help="the folder with the folders admet and moleculenet")
    parser.add_argument("wheel", help="qc_b3db-1.1.1-py3-none-any.whl")
    parser.add_argument("target", type=Path, help="the table to write, a .csv.gz")
    parser.add_argument("--boards", action="store_true", help="the table for the benchmark on the boards of TDC")
    parser.add_argument("--without", default="", metavar="SOURCE,...", help="files to leave out")
    options = parser.parse_args(arguments)
    without = [name for name in options.without.split(",") if name]
    found = collect(options.data, options.wheel, options.boards, without)
    n_rows = write_table(options.target, found)
    for line in report(found):
        print(line, file=sys.stderr)
    print(f"{options.target}: {n_rows:,} molecules, {len(found)} tasks")


if __name__ == "__main__":
    main()
