"""Whatever a table's quotes, delimiters and encoding: each cell comes back, and no line is lost in silence."""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mora_lite.tables import delimited
from mora_lite.tables.delimited import is_delimited, sniff_dialect
from mora_lite.tables.library import open_library

QUICK = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Read:
    """A file as it is read: its columns, rows of cells, lines at which they begin, faults and notes."""

    def __init__(self, path: Path, data: str | bytes):
        path.write_bytes(data if isinstance(data, bytes) else data.encode("utf-8", "surrogateescape"))
        with open_library(path, cells=True) as library:
            windows = list(library.windows(50))
            self.columns, self.notes, self.delimiter = library.columns, library.notes, library.delimiter
        self.cells: list[Sequence[str]] = [list(cells) for window in windows for cells in window.cells]
        self.lines = [line for window in windows for line in window.lines]
        self.records = [record for window in windows for record in window.records]

    @property
    def faults(self) -> list[str]:
        return [record.fault for record in self.records]


text = st.text(st.characters(codec="latin-1", exclude_characters="\r\0"), max_size=8) | st.sampled_from(
    ["", ",", ";", "\t", "|", '"', '""', "\n", 'a"b', "x,y", "1,5", " ", "a\nb", "5'", "NA", "-1.5", "\\"]
)


@given(
    width=st.integers(2, 5),
    rows=st.lists(st.lists(text, min_size=5, max_size=5), max_size=12),
    names=st.lists(st.sampled_from(["a", "b,c", "d;e", "f", "g|h", 'i"j', "k l"]), min_size=4, max_size=4),
    delimiter=st.sampled_from(",;\t|"),
    quoting_style=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    line_end=st.sampled_from(["\n", "\r\n"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "latin-1"]),
)
@QUICK
def test_a_table_of_any_dialect_comes_back_cell_by_cell(
    tmp_path: Path,
    width: int,
    rows: list[list[str]],
    names: list[str],
    delimiter: str,
    quoting_style: int,
    line_end: str,
    encoding: str,
) -> None:
    table = [["smiles", *names][:width], *(row[:width] for row in rows)]
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=delimiter, quoting=quoting_style, lineterminator=line_end).writerows(table)  # type: ignore[arg-type]
    read = Read(tmp_path / "a.csv", out.getvalue().encode(encoding))
    if encoding == "latin-1":  # its bytes are kept as they are
        got = [[cell.encode("utf-8", "surrogateescape") for cell in row] for row in [read.columns, *read.cells]]
        assert got == [[cell.encode("latin-1") for cell in row] for row in table]
    else:
        assert [read.columns, *read.cells] == table
    assert not any(read.faults)
    starts = [1]
    for row in table[:-1]:
        starts.append(starts[-1] + 1 + sum(cell.count("\n") for cell in row))
    assert read.lines == starts[1:]


@given(
    names=st.lists(st.text("ab\"' 5", max_size=6), min_size=1, max_size=30),
    delimiter=st.sampled_from(",\t"),
)
@QUICK
def test_quotes_as_they_come_lose_no_row_in_silence(tmp_path: Path, names: list[str], delimiter: str) -> None:
    lines = ["smiles", *("CCO" for _ in names)]
    data = "".join(f"{smiles}{delimiter}{name}\n" for smiles, name in zip(lines, ["name", *names], strict=True))
    read = Read(tmp_path / "a.csv", data)
    assert len(read.cells) == len(names) or read.notes


def test_a_quote_that_would_swallow_rows_is_plain_text(tmp_path: Path) -> None:
    rows = ["CCO\tone\t1", 'CCN\t"odd\t2', "CCC\tthree\t3", 'CCF\tfour"\t4', "CCS\tfive\t5"]
    read = Read(tmp_path / "a.tsv", "\n".join(["smiles\tname\tid", *rows, ""]))
    assert read.cells == [row.split("\t") for row in rows]
    assert read.notes == [
        f"{tmp_path / 'a.tsv'}: 3 lines with a quote out of place read as plain text; the first is line 3"
    ]


def test_a_cell_that_may_have_swallowed_rows_is_told(tmp_path: Path) -> None:
    read = Read(tmp_path / "a.csv", 'smiles,note\nCCO,"see\nfig. 1, left\nend"\nCC,b\n')
    assert read.cells == [["CCO", "see\nfig. 1, left\nend"], ["CC", "b"]]
    assert read.notes == [
        f"{tmp_path / 'a.csv'}, line 2, column 'note': one cell spans 3 lines, some of which look like rows; "
        "is a quote out of place?"
    ]


@pytest.mark.parametrize(
    ("line", "cells"),
    [
        ('CCO\t"3\'-OH" form', ["CCO", '"3\'-OH" form']),
        ('CCO\t"never closed', ["CCO", '"never closed']),
        ('"CCO"x\t1', ['"CCO"x', "1"]),
    ],
)
def test_one_stray_quote_refuses_no_file(tmp_path: Path, line: str, cells: list[str]) -> None:
    n = 3000
    lines = ["smiles\tname", *(f"CC\t{i}" for i in range(n)), line, *(f"CN\t{i}" for i in range(n))]
    read = Read(tmp_path / "a.tsv", "\n".join(lines))
    assert len(read.cells) == 2 * n + 1
    assert read.cells[n] == cells
    assert read.lines[n] == n + 2
    assert "1 line with a quote out of place" in read.notes[0]
    assert f"line {n + 2:,}" in read.notes[0]


def test_a_broken_line_without_enough_cells_is_a_row_with_a_fault(tmp_path: Path) -> None:
    read = Read(tmp_path / "a.csv", 'smiles,name,x\nCCO,"a" b\nCC,"Smith, J." et al.,1\nCN,c,2\n')
    assert read.faults == ["a quote is out of place, and 2 cells for 3 columns", "", ""]
    assert read.cells[1:] == [["CC", "Smith, J. et al.", "1"], ["CN", "c", "2"]]


def test_a_quote_that_nobody_closes_takes_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delimited, "MAX_RECORD", 10_000)
    rng = random.Random(0)
    lines = ["smiles,name", 'CCO,"open', *(f"CC,{rng.random()}" for _ in range(20_000))]
    read = Read(tmp_path / "a.csv", "\n".join(lines))
    assert len(read.cells) == 20_001
    assert read.cells[0] == ["CCO", '"open']


def test_blank_lines_are_rows_only_between_others_also_beside_quotes(tmp_path: Path) -> None:
    read = Read(tmp_path / "a.csv", '\n\nsmiles,x\n"CCO",1\n\n\nCC,"2"\n\n\n')
    assert read.cells == [["CCO", "1"], ["", ""], ["", ""], ["CC", "2"]]
    assert read.lines == [4, 5, 6, 7]


# --- the delimiter


@pytest.mark.parametrize(
    ("text", "delimiter"),
    [
        ("smiles,y\nCCO,1\n", ","),
        ("smiles;y\nCCO;1,5\n", ";"),
        ("SMILES;Solubility (g/L, 20 C, pH 7, n = 3)\nCCO;1,5\nCC;2,5\n", ";"),
        ("id\tsmiles\tname, unit\n1\tCCO\tx\n", "\t"),
        ("id|smiles\n1|CCO\n", "|"),
        ("id,smiles,a;b\n1,CCO,x\n2,CC,y;z\n", ","),
        ("smiles\nCCO\n", ","),
        ("", ","),
        ('"smiles";"a,b,c"\nCCO;x\n', ";"),
        ("smiles:id\nCCO:1\nCC:2\n", ":"),
        ("smiles id\nCCO 1\nCC 2\n", " "),
        ("smiles (canonical)\nCCO\nCC\n", ","),
        ("smiles^name\nCCO^a\n", "^"),
    ],
)
def test_the_delimiter_is_told_by_header_and_rows(text: str, delimiter: str) -> None:
    assert sniff_dialect(text.encode(), "a.csv").delimiter == delimiter


@pytest.mark.parametrize("line", ["sep=;", "SEP=;", '"sep=;"', "sep=;\r"])
def test_the_line_that_spreadsheets_write_decides_and_is_no_row(line: str) -> None:
    dialect = sniff_dialect(f"{line}\nid;smiles,x\n1;CCO\n".encode(), "a.csv")
    assert (dialect.delimiter, dialect.n_skipped) == (";", 1)


def test_an_unusual_delimiter_is_told() -> None:
    assert sniff_dialect(b"smiles:id\nCCO:1\n", "a.csv").notes == ("a.csv: its cells are parted by ':'",)
    assert sniff_dialect(b"smiles;id\nCCO;1\n", "a.csv").notes == ()


def test_a_header_with_another_delimiter_than_its_rows_is_told() -> None:
    assert sniff_dialect(b"smiles,y\nCCO;1\nCC;2\n", "a.csv").notes == (
        "a.csv: the header is parted by ',', but the lines below it by ';'",
    )


def test_what_is_in_an_extension_parts_nothing() -> None:
    assert not is_delimited("N[Pt]N |C:0.0,2.1| name")
    assert is_delimited("CCO,a")


@pytest.mark.parametrize("data", ['sep="\nsmiles"x\nCCO"1\n', "sep=\0\nsmiles\0x\nCCO\0a\n", "smi\0smiles\nCCO\0a\n"])
def test_what_some_versions_of_python_take_for_no_delimiter_is_none(data: str) -> None:
    assert sniff_dialect(data.encode(), "a.csv") == (",", 0, ())


def test_a_nul_beside_a_quote_is_text(tmp_path: Path) -> None:
    """Python 3.10 refuses it."""
    read = Read(tmp_path / "a.csv", 'smiles,b\nCC\0O,"a",c\nCC,"b"\n')
    assert [fault != "" for fault in read.faults] == [True, False]
    assert read.cells[1] == ["CC", "b"]
