"""The delimiter is the one that makes rows of the lines; `sep=` decides."""

from __future__ import annotations

import pytest

from mora_lite.tables.dialect import is_delimited, sniff_dialect


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


def test_what_is_in_an_extension_parts_nothing() -> None:
    assert not is_delimited("N[Pt]N |C:0.0,2.1| name")
    assert is_delimited("CCO,a")
