"""Every kind of file gives all its cells, in order, and the line of the file at which each row began."""

from __future__ import annotations

import datetime
import gzip
import io
import sys
import zipfile
from pathlib import Path

import numpy as np
import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rdkit import Chem

from mora_lite.chem.molecules import parse_smiles
from mora_lite.errors import DeviceError, InputError
from mora_lite.status import UNPARSABLE
from mora_lite.tables.library import Library, open_library
from mora_lite.tables.numbers import NumberColumn
from mora_lite.tables.sdf import sdf_columns


def read(*paths: object, **columns: str | None) -> tuple[Library, list[list[str]], list[int]]:
    with open_library([str(path) for path in paths], **columns, cells=True) as library:
        windows = list(library.windows(2))
        cells = [list(row) for window in windows for row in window.cells]
        return library, cells, [line for window in windows for line in window.lines]


def block(smiles: str, title: str) -> str:
    mol = Chem.MolFromSmiles(smiles)
    mol.SetProp("_Name", title)
    return Chem.MolToMolBlock(mol)


def workbook(path: Path, *sheets: list[list[object]]) -> Path:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for i, rows in enumerate(sheets):
        sheet = book.create_sheet(f"sheet {i + 1}")
        for row in rows:
            sheet.append(row)
    book.save(path)
    return path


# --- lists


def test_a_list_has_smiles_with_extensions_and_names(tmp_path: Path) -> None:
    path = tmp_path / "a.cxsmiles"
    path.write_text("\nC[C@H](F)Cl |&1:1| one name\nCCO\n\n*C |$R1;$|\nCN |not closed\n")
    library, cells, lines = read(path)
    assert (library.columns, library.smiles_index) == (["smiles", "name"], 0)
    assert cells == [
        ["C[C@H](F)Cl |&1:1|", "one name"],
        ["CCO", ""],
        ["", ""],
        ["*C |$R1;$|", ""],
        ["CN", "|not closed"],
    ]
    assert lines == [2, 3, 4, 5, 6]


def test_a_list_may_have_its_names_first(tmp_path: Path) -> None:
    path = tmp_path / "a.smi"
    path.write_text(
        "ID SMILES\nACME-1 CC(=O)Oc1ccccc1C(=O)O\nACME-2 *CO |$R1;;$| lot 7\n\nACME-3 c1ccccc\n"
        "ACME-4 CCCN\nCN123 CCN\nS5 CCCO\n"
    )
    library, cells, lines = read(path)
    assert library.notes == [f"{path}: the names are read from the first word of a line, the SMILES from the second"]
    assert cells == [
        ["CC(=O)Oc1ccccc1C(=O)O", "ACME-1"],
        ["*CO |$R1;;$|", "ACME-2 lot 7"],
        ["", ""],
        ["c1ccccc", "ACME-3"],
        ["CCCN", "ACME-4"],
        ["CCN", "CN123"],
        ["CCCO", "S5"],
    ]
    assert lines == [2, 3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize("lines", ["CCO ethanol\nACME-2 CCN\n", "ACME-1 CCO\nCCN b\n", "ACME-1\nACME-2\n"])
def test_names_come_first_only_where_no_line_begins_with_a_molecule(tmp_path: Path, lines: str) -> None:
    path = tmp_path / "a.smi"
    path.write_text(lines)
    library, cells, _ = read(path)
    assert library.notes == []
    assert cells[0][0] == lines.split(maxsplit=1)[0]


@pytest.mark.parametrize("beside", ["", "CCN one name\n", "CCN |not closed\n", "CCN\n"])
def test_a_broken_smiles_in_a_list_is_not_its_first_piece(tmp_path: Path, beside: str) -> None:
    lines = ["CC(=O)Oc1ccccc1 C(=O)O", "CCO C=C", "CCO [O-] C#N"]
    path = tmp_path / "a.smi"
    path.write_text("".join(f"{line}\n" for line in lines) + beside)
    with open_library(path) as library:
        (window,) = library.windows(9)
    assert [tuple(record) for record in window.records[:3]] == [("", line, "") for line in lines]
    assert [parse_smiles(record.text).status for record in window.records[:3]] == [UNPARSABLE] * 3


@pytest.mark.parametrize(
    "name",
    ["CBN", "NSC 12345", "CB1234567", "(2S)-2-amino", "(S) CBN-2x", "[no name]", "#7", "a=b", "12 (old)", "2C-B"],
)
def test_a_name_that_is_no_smiles_stays_a_name(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.smi").write_text(f"c1ccccc1 {name}\n")
    _, cells, _ = read(tmp_path / "a.smi")
    assert cells == [["c1ccccc1", name]]


# --- SDF


SDF = (
    f"{block('CCO', 'a')}>  <logS>  (1)\n-0.5\n\n>  <note>\ntwo\nlines\n\n$$$$\n"
    f"{block('CC', 'b')}> <logS>\n\n> <CAS>\n> <note>\n>10 mg\n\n$$$$\n"
    f"{block('C', '')}$$$$\n"
)


@pytest.mark.parametrize("name", ["a.sdf", "a.sdf.gz"])
def test_data_fields_of_an_sdf_are_columns_and_may_have_no_value(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(SDF.encode()) if name.endswith("gz") else SDF.encode())
    library, cells, lines = read(path)
    assert library.columns == ["smiles", "name", "logS", "note", "CAS"]
    assert cells == [
        ["", "a", "-0.5", "two\nlines", ""],
        ["", "b", "", ">10 mg", ""],
        ["", "", "", "", ""],
    ]
    n = SDF[: SDF.index("$$$$")].count("\n") + 1
    assert lines[:2] == [1, n + 1]


def test_an_sdf_with_other_line_ends_keeps_its_fields(tmp_path: Path) -> None:
    (tmp_path / "a.sdf").write_text(SDF)
    expected = read(tmp_path / "a.sdf")
    for end in ("\r", "\r\n"):
        (tmp_path / "b.sdf").write_bytes(SDF.replace("\n", end).encode())
        library, *rows = read(tmp_path / "b.sdf")
        assert (library.columns, *rows) == (expected[0].columns, *expected[1:])


def test_the_name_from_a_field_without_a_value_is_empty(tmp_path: Path) -> None:
    (tmp_path / "a.sdf").write_text(SDF)
    for field, names in (("CAS", ["", "", ""]), ("logS", ["-0.5", "", ""]), ("note", ["two", ">10 mg", ""])):
        with open_library(tmp_path / "a.sdf", name_column=field) as library:
            assert [record.name for window in library.windows(9) for record in window.records] == names


def test_fields_named_smiles_and_name_keep_their_names(tmp_path: Path) -> None:
    (tmp_path / "a.sdf").write_text(f"{block('C', 't')}> <smiles>\nC\n\n> <name>\nx\n\n$$$$\n")
    library, cells, _ = read(tmp_path / "a.sdf")
    assert library.columns == ["SMILES of the structure", "title", "smiles", "name"]
    assert cells == [["", "t", "C", "x"]]


def test_no_field_takes_the_name_of_the_smiles_or_the_title() -> None:
    fields = ["smiles", "SMILES of the structure", "", "name", "title", "title line"]
    assert len(set(sdf_columns(fields))) == len(fields) + 2


def test_fields_of_a_pipe_are_those_of_its_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stdin:
        buffer = io.BytesIO(SDF.encode())

    monkeypatch.setattr(sys, "stdin", Stdin)
    library, cells, _ = read("-")
    assert library.columns == ["smiles", "name", "logS", "note", "CAS"]
    assert [row[1] for row in cells] == ["a", "b", ""]


# --- Parquet


def test_parquet_gives_all_columns_as_text_and_their_types(tmp_path: Path) -> None:
    table = pa.table(
        {
            "x": [1.5, None],
            "smiles": ["CCO", "CC"],
            "n": pa.array([7, 8], pa.int16()),
            "yes": [True, None],
            "list": [[1, 2], None],
            "day": [datetime.date(2024, 5, 1), None],
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    library, cells, lines = read(tmp_path / "a.parquet")
    assert (library.columns, library.smiles_index, lines) == (table.column_names, 1, [1, 2])
    assert cells == [["1.5", "CCO", "7", "true", "[1, 2]", "2024-05-01"], ["", "CC", "8", "", "", ""]]
    assert library.types == table.schema.types


def test_a_parquet_file_is_known_by_its_first_bytes(tmp_path: Path) -> None:
    pq.write_table(pa.table({"smiles": ["CCO"]}), tmp_path / "a.pq")
    assert read(tmp_path / "a.pq")[1] == [["CCO"]]


# --- workbooks


def test_a_workbook_gives_the_rows_of_a_sheet(tmp_path: Path) -> None:
    rows = [
        ["ID", "SMILES", "logS", "when", "ok"],
        [1, "CCO", -0.77, datetime.datetime(2024, 5, 1), True],
        [],
        [2.0, "c1ccccc1", None, "#N/A", 1e300],
    ]
    library, cells, lines = read(workbook(tmp_path / "a.xlsx", rows, [["other"]], []))
    assert library.columns == ["ID", "SMILES", "logS", "when", "ok"]
    assert cells == [
        ["1", "CCO", "-0.77", "2024-05-01", "TRUE"],
        ["", "", "", "", ""],
        ["2", "c1ccccc1", "", "#N/A", "1e+300"],
    ]
    assert lines == [2, 3, 4]
    assert library.notes == [
        f"{tmp_path / 'a.xlsx'}: sheet 'sheet 1' is read, not 'sheet 2', 'sheet 3': "
        "--smiles-column 'sheet 2!' reads the first of these"
    ]


def with_sheet(path: Path, old: bytes, new: bytes) -> Path:
    """The workbook with other XML in its first sheet, as other programs write it."""
    with zipfile.ZipFile(path) as book:
        parts = {name: book.read(name) for name in book.namelist()}
    assert old in parts["xl/worksheets/sheet1.xml"]
    with zipfile.ZipFile(path, "w") as book:
        for name, content in parts.items():
            book.writestr(name, content.replace(old, new) if name == "xl/worksheets/sheet1.xml" else content)
    return path


@pytest.mark.parametrize("size", [b"A1", b"A1:A2", b"A1:XFD1048576"])
def test_a_sheet_is_read_to_its_end_whatever_size_it_says(tmp_path: Path, size: bytes) -> None:
    path = workbook(tmp_path / "a.xlsx", [["SMILES", "n"], ["CCO", 1], ["CCN", 2], ["CCC", 3], [None], ["", ""]])
    library, cells, lines = read(with_sheet(path, b'ref="A1:B6"', b'ref="%s"' % size))
    assert library.columns == ["SMILES", "n"]
    assert cells == [["CCO", "1"], ["CCN", "2"], ["CCC", "3"]]
    assert lines == [2, 3, 4]


def test_a_row_beyond_the_end_of_sheets_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mora_lite.tables.workbook._MAX_ROWS", 1000)
    path = workbook(tmp_path / "a.xlsx", [["SMILES"], ["CCO"], ["CCN"]])
    with pytest.raises(InputError, match="has a row beyond 1,000, where sheets end: save it as CSV"):
        read(with_sheet(path, b'<row r="3"', b'<row r="1001"'))


@pytest.mark.parametrize("header", [["smiles", "n"], ["compound of ours", "n"]])
def test_the_first_sheet_with_molecules_is_read(tmp_path: Path, header: list[object]) -> None:
    rows = [header, ["CCO", 1], ["c1ccccc1", 2]]
    library, cells, _ = read(workbook(tmp_path / "a.xlsx", [["about"], ["me"]], [], rows, [["smiles"], ["CN"]]))
    assert cells == [["CCO", "1"], ["c1ccccc1", "2"]]
    assert library.notes[0].endswith(
        "not 'sheet 1', 'sheet 2', 'sheet 4': --smiles-column 'sheet 1!' reads the first of these"
    )


@pytest.mark.parametrize(
    ("chosen", "smiles"),
    [(None, "CCO"), ("salts", "CCS"), ("Sheet 2!", "CN"), ("sheet 2!salts", "CO"), ("sheet 2!2", "CO"), ("a!b", "CF")],
)
def test_the_sheet_may_be_named_before_the_column(tmp_path: Path, chosen: str | None, smiles: str) -> None:
    first = [["smiles", "salts", "a!b"], ["CCO", "CCS", "CF"]]
    path = workbook(tmp_path / "a.xlsx", first, [["smiles", "salts"], ["CN", "CO"]])
    library, cells, _ = read(path, smiles_column=chosen)
    assert cells[0][library.smiles_index] == smiles
    assert len(library.notes) == (not (chosen or "").lower().startswith("sheet"))
    assert read(path, recorded_column="sheet 2!salts")[1] == [["CN", "CO"]]
    with pytest.raises(InputError, match=r"no column 'sheet 9!salts' for --smiles-column"):
        read(path, smiles_column="sheet 9!salts")


def test_an_error_of_one_sheet_says_that_there_are_others(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.xlsx, sheet 'sheet 1' \(one of 2\): no SMILES column among 'about'"):
        open_library(workbook(tmp_path / "a.xlsx", [["about"], ["me"]], [["n"], [1]]))


def test_a_damaged_or_empty_workbook_is_told(tmp_path: Path) -> None:
    good = workbook(tmp_path / "a.xlsx", [["smiles"], ["CCO"]]).read_bytes()
    (tmp_path / "b.xlsx").write_bytes(good[: len(good) // 2])
    with pytest.raises(InputError, match=r"b\.xlsx cannot be read as an Excel file"):
        open_library(tmp_path / "b.xlsx")
    with pytest.raises(InputError, match="is empty"):
        open_library(workbook(tmp_path / "c.xlsx", []))


def test_a_workbook_that_would_fill_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mora_lite.tables.workbook.MAX_BYTES", 100)
    with pytest.raises(InputError, match=r"a part of it unpacks to [\d,]+ bytes; save it as CSV"):
        open_library(workbook(tmp_path / "a.xlsx", [["smiles"], ["CCO"]]))


def test_numbers_of_compounds_keep_the_zeros_that_their_format_has(tmp_path: Path) -> None:
    path = workbook(
        tmp_path / "a.xlsx", [["id", "smiles", "y"], [123, "CCO", 7], ["7", "CCN", 8], [1234567, "CC", 0.5]]
    )
    book = openpyxl.load_workbook(path)
    for row in range(2, 5):
        book.active.cell(row, 1).number_format = "000000"
    book.active["C2"].number_format = "0.00"
    book.save(path)
    assert read(path)[1] == [["000123", "CCO", "7"], ["7", "CCN", "8"], ["1234567", "CC", "0.5"]]


@pytest.mark.parametrize("form", ["0%", "0.00%", '0.0%;"-"0.0%'])
def test_percentages_of_a_sheet_are_what_it_shows(tmp_path: Path, form: str) -> None:
    """Excel keeps 0.07 for a cell in which 7% was typed: read so, it would be another number than in a CSV."""
    path = workbook(
        tmp_path / "a.xlsx", [["smiles", "PPB", "n"], ["CCO", 0.07, 0.5], ["CC", 0.99123, True], ["C", "n.d."]]
    )
    book = openpyxl.load_workbook(path)
    for row in range(2, 5):
        book.active.cell(row, 2).number_format = form
        book.active.cell(row, 3).number_format = '0.0" %"'
    book.save(path)
    cells = read(path)[1]
    assert cells == [["CCO", "7%", "0.5"], ["CC", "99.123%", "TRUE"], ["C", "n.d.", ""]]
    assert np.array_equal(
        NumberColumn("PPB", "a.xlsx", [2, 3, 4]).values([row[1] for row in cells]), [7, 99.123, np.nan], equal_nan=True
    )


def test_without_openpyxl_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = workbook(tmp_path / "a.xlsx", [["smiles"], ["CCO"]])
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(DeviceError, match=r"pip install 'mora-lite\[xlsx\]'"):
        open_library(path)


# --- many files


def test_columns_of_several_files_are_joined_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,smiles,y,y\n1,CCO,2,3\n")
    (tmp_path / "b.tsv").write_text("y\tSMILES\tz\ty\n4\tCC\t5\t6\n")
    (tmp_path / "c.smi").write_text("C methane\n")
    library, cells, _ = read(tmp_path / "a.csv", tmp_path / "b.tsv", tmp_path / "c.smi")
    assert (library.columns, library.smiles_index) == (["id", "smiles", "y", "y", "z", "name"], 1)
    assert cells == [["1", "CCO", "2", "3", "", ""], ["", "CC", "4", "6", "5", ""], ["", "C", "", "", "", "methane"]]


def test_byte_order_mark_and_delimiter_are_known(tmp_path: Path) -> None:
    for mark in (b"", b"\xef\xbb\xbf"):
        (tmp_path / "a.csv").write_bytes(mark + b"smiles;y\nCCO;1\n")
        library, cells, _ = read(tmp_path / "a.csv")
        assert (library.bom, library.delimiter, cells) == (bool(mark), ";", [["CCO", "1"]])


def test_notes_that_only_show_at_the_end_come_then(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("smiles,y\n" + "CC,1\n" * 60_000 + 'CCO,"a" b\n')
    with open_library(tmp_path / "a.csv") as library:
        assert library.notes == []
        assert sum(len(window.records) for window in library.windows(1000)) == 60_001
        assert library.notes == [
            f"{tmp_path / 'a.csv'}: 1 line with a quote out of place read as plain text; the first is line 60,002"
        ]


# --- headers


@pytest.mark.parametrize(
    ("text", "columns", "n_rows"),
    [
        ("C1CCN,a\nCCO,b\nCCCO,c\n", ["smiles", "column_2"], 3),
        ("7,CC(=O)O[Zz],a\n8,CCO,b\n9,CCCO,c\n", ["column_1", "smiles", "column_3"], 3),
        ("CC[N+](C,a\nCCO,b\nCCCO,c\n", ["smiles", "column_2"], 3),
        ("cpd,id\nCCO,b\nCCCO,c\n", ["cpd", "id"], 2),
    ],
)
def test_an_unreadable_first_molecule_is_no_header(tmp_path: Path, text: str, columns: list[str], n_rows: int) -> None:
    (tmp_path / "a.csv").write_text(text)
    library, cells, _ = read(tmp_path / "a.csv")
    assert library.columns == columns
    assert len(cells) == n_rows
    assert len(library.notes) == (n_rows == 3)


def test_a_header_that_is_no_word_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("?,id\nCCO,b\nCCCO,c\n")
    library, _, _ = read(tmp_path / "a.csv")
    assert "the first line is taken as the header, and its column 1, '?'" in library.notes[0]
