"""Tables are written whole or not at all, in the format that their name asks for."""

from __future__ import annotations

import gzip
import os

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mora_lite.errors import OutputError
from mora_lite.tables import writers
from mora_lite.tables.formats import DIGITS, TableFormat, default_output, format_cells, rounded
from mora_lite.tables.library import open_library
from mora_lite.tables.sdf import mol_block
from mora_lite.tables.writers import TableWriter


def write(path, text, newline="\n"):
    data = text if isinstance(text, bytes) else text.replace("\n", newline).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def test_the_default_output_has_a_name_of_its_own():
    assert default_output("dir/a.csv") == os.path.join("dir", "a.predictions.csv")
    assert default_output("a.csv.gz") == "a.predictions.csv.gz"
    assert default_output("a.csv.zst") == "a.predictions.csv"
    assert default_output("a.tsv") == "a.predictions.tsv"
    assert default_output("a.sdf.gz") == default_output("a.sd.gz") == "a.predictions.sdf.gz"
    assert default_output("a.parquet") == "a.predictions.parquet"
    assert default_output("a.XLSX") == "a.predictions.xlsx"
    assert default_output("a.smi") == "a.predictions.csv"
    assert default_output("a") == "a.predictions.csv"
    assert default_output("-") == "-"


def test_an_output_that_exists_needs_force(tmp_path):
    target = write(tmp_path / "out.csv", "precious")
    with pytest.raises(OutputError, match="exists: use --force"):
        TableWriter(target, ["a"])
    assert target.read_text() == "precious"
    with TableWriter(target, ["a"], force=True) as writer:
        writer.write([["1"]])
    assert target.read_text() == "a\n1\n"


def test_the_output_is_never_the_input(tmp_path):
    source = write(tmp_path / "a.csv", "smiles\nC\n")
    (tmp_path / "link.csv").symlink_to(source)
    for name in ["a.csv", "link.csv"]:
        with pytest.raises(OutputError, match="is the table being read"):
            TableWriter(tmp_path / name, ["a"], source=source, force=True)


def test_an_output_that_cannot_be_is_an_error(tmp_path):
    with pytest.raises(OutputError, match="no such directory"):
        TableWriter(tmp_path / "none" / "out.csv", ["a"])
    with pytest.raises(OutputError, match="is a directory"):
        TableWriter(tmp_path, ["a"])


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, SystemExit])
def test_nothing_half_written_stays(tmp_path, error):
    target = write(tmp_path / "out.csv.gz", "old")
    before = target.read_bytes()

    def write_and_fail(target):
        with TableWriter(target, ["a"], force=True) as writer:
            writer.write([["1"]] * 1000)
            raise error

    for path in (target, tmp_path / "out.parquet", tmp_path / "out.xlsx"):
        with pytest.raises(error):
            write_and_fail(path)
    assert os.listdir(tmp_path) == ["out.csv.gz"]
    assert target.read_bytes() == before


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
@pytest.mark.parametrize("n_rows", [1, 100_000])
def test_a_full_disk_is_an_error_in_one_line(n_rows):
    message = "cannot write /dev/full: No space left"
    with pytest.raises(OutputError, match=message), TableWriter("/dev/full", ["a"]) as writer:
        writer.write([["1"]] * n_rows)


def test_a_packed_output_has_the_same_bytes_each_time(tmp_path):
    for name in ["a.csv.gz", "b.csv.gz"]:
        with TableWriter(tmp_path / name, ["a"]) as writer:
            writer.write([["1"]])
    assert (tmp_path / "a.csv.gz").read_bytes() == (tmp_path / "b.csv.gz").read_bytes()


def test_cells_are_formatted_as_one_record():
    assert format_cells(["a", "b,c", 'd"', ""]) == 'a,"b,c","d""",'


# --- every format

ROWS = [
    ["CCO", "ethanol", "12.5", "007", 'a "b", c'],
    ["c1ccccc1", "=1+1", "-3", "", "two\nlines"],
    ["xx", "", "1e5", "1.50", "caf\N{LATIN SMALL LETTER E WITH ACUTE}"],
]
COLUMNS = ["smiles", "name", "number", "code", "text", "value", "flag", "word", "status"]
VALUES = np.array([-0.245873, 1234567.0, np.nan], np.float32), np.array([True, False, False])
OK = np.array([True, True, False])


def write_table(path, form=None, rows=ROWS):
    form = form or TableFormat.of(path)
    kinds = [None] * 5 + [np.dtype(np.float32), np.dtype(bool), np.dtype(object), None]
    words = np.array(["p q", "", "not ok"], object)
    added = form.encode(COLUMNS[5:], [rounded(VALUES[0]), VALUES[1], words], OK, [["ok", "ok", "unparsable"]])
    with TableWriter(path, COLUMNS, kinds=kinds, form=form, molecules=True) as writer:
        if rows:
            writer.write(rows, added, [(row[1], row[0]) for row in rows])
    return path


@pytest.mark.parametrize("name", ["t.csv", "t.tsv.gz", "t.parquet", "t.xlsx", "t.sdf", "t.sdf.gz"])
def test_every_format_gives_the_same_cells_and_values_back(tmp_path, name):
    with open_library(write_table(tmp_path / name), cells=True) as library:
        (window,) = library.windows(10)
    places = [library.columns.index(column) for column in COLUMNS]
    assert sorted(places) == places  # in order; an SDF has the title besides
    cells = [[row[i] for i in places] for row in window.cells]
    values = [[cell.lower() for cell in row[5:7]] for row in cells]
    numbers = [float(row[0] or "nan") for row in values]
    assert numbers == pytest.approx([-0.245873, 1234570, np.nan], rel=1e-7, nan_ok=True)
    assert [row[1] for row in values] == ["true", "false", ""]
    assert [row[7:] for row in cells] == [["p q", "ok"], ["", "ok"], ["", "unparsable"]]
    assert [row[:5] for row in cells] == ROWS


@pytest.mark.parametrize("char", ["\v", "\f", "\x1c", "\x85", "\N{LINE SEPARATOR}"])
def test_an_sdf_has_lines_where_its_reader_has_them(tmp_path, char):
    block = f"a{char}b\n\n\n  0  0  0  0  0  0  0  0  0  0999 V2000\nM  END\n"
    with TableWriter(tmp_path / "t.sdf", ["note"], molecules=True) as writer:
        writer.write([[f"c{char}d\ne"]], molecules=[("", block)])
    assert (tmp_path / "t.sdf").read_bytes() == f"{block}>  <note>\nc{char}d\ne\n\n$$$$\n".encode()
    with open_library(tmp_path / "t.sdf", cells=True) as library:
        ((_, (record,), cells, _),) = library.windows(9)
    assert (record.text, cells) == (block, [["", f"a{char}b", f"c{char}d\ne"]])


def test_what_follows_a_mol_block_in_its_cell_is_no_part_of_the_record():
    block = "a\n\n\n  0  0  0  0  0  0  0  0  0  0999 V2000\nM  END\n"
    assert mol_block("", f"{block}> <x>\n1\n\n$$$$".replace("\n", "\r\n")) == block


@pytest.mark.parametrize("name", ["t.parquet", "t.xlsx"])
def test_bytes_that_are_not_utf_8_become_replacement_characters(tmp_path, name):
    with TableWriter(tmp_path / name, ["smiles", "IC50 (\udcb5M)"]) as writer:
        writer.write([["CCO", "caf\udce9"], ["CC", ""]])
    if name == "t.parquet":
        pq.read_table(tmp_path / name).validate(full=True)
    with open_library(tmp_path / name, cells=True) as library:
        (window,) = library.windows(10)
    assert library.columns == ["smiles", "IC50 (\N{REPLACEMENT CHARACTER}M)"]
    assert [row[1] for row in window.cells] == ["caf\N{REPLACEMENT CHARACTER}", ""]


def test_a_sheet_has_numbers_as_numbers_and_never_a_formula(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    sheet = openpyxl.load_workbook(write_table(tmp_path / "t.xlsx")).active
    rows = list(sheet.values)
    assert rows[0] == tuple(COLUMNS)
    assert rows[1][2:7] == (12.5, "007", 'a "b", c', -0.245873, True)
    assert rows[2][1:3] == ("=1+1", -3)
    assert sheet["B3"].data_type == "s"
    assert rows[3][2:7] == ("1e5", "1.50", "café", None, None)


def test_a_sheet_takes_any_text_and_says_where_it_ends(tmp_path, monkeypatch):
    openpyxl = pytest.importorskip("openpyxl")
    with TableWriter(tmp_path / "t.xlsx", ["a"]) as writer:
        writer.write([["\x01\udcff" + "x" * 40_000], ["-0"], ["0"]])
    cells = [cell for (cell,) in openpyxl.load_workbook(tmp_path / "t.xlsx").active.values]
    assert cells == ["a", "\N{REPLACEMENT CHARACTER}" * 2 + "x" * 32_765, "-0", 0]
    monkeypatch.setattr(writers, "MAX_SHEET_ROWS", 3)
    with (
        pytest.raises(OutputError, match="ends at row 3; write"),
        TableWriter(tmp_path / "u.xlsx", ["a"]) as writer,
    ):
        writer.write([["1"]] * 3)
    assert os.listdir(tmp_path) == ["t.xlsx"]


def test_a_sheet_has_words_for_what_is_no_number(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    column = np.array([np.inf, -np.inf, np.nan, 0.5], np.float32)
    with TableWriter(tmp_path / "t.xlsx", ["a"]) as writer:
        writer.write([[]] * 4, [(column, np.ones(4, bool))])
    assert [cell for (cell,) in openpyxl.load_workbook(tmp_path / "t.xlsx").active.values] == [
        "a",
        "inf",
        "-inf",
        None,
        0.5,
    ]


def test_parquet_has_types_also_without_rows(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    pa = pytest.importorskip("pyarrow")
    for rows in (ROWS, []):
        path = write_table(tmp_path / f"{len(rows)}.parquet", rows=rows)
        table = parquet.read_table(path)
        assert table.schema.names == COLUMNS
        assert [str(kind) for kind in table.schema.types[5:]] == ["float", "bool", "string", "string"]
    kinds = [pa.int64(), pa.timestamp("s"), None]
    with TableWriter(tmp_path / "k.parquet", ["a", "b", "c"], kinds=kinds) as writer:
        writer.write([["1", "2020", "x"], ["", "", ""]])
    table = parquet.read_table(tmp_path / "k.parquet")
    assert table.to_pydict() == {"a": [1, None], "b": ["2020", ""], "c": ["x", ""]}


def test_an_sdf_has_the_molecule_as_it_was_read_and_each_column_as_a_field(tmp_path):
    from rdkit import Chem

    block = "title\n  made by hand\n\n  1  0  0  0  0  0  0  0  0  0999 V2000\n"
    block += "    9.0000    8.0000    7.0000 N   0  0\nM  END"
    with TableWriter(tmp_path / "t.sdf", ["a <b>", "c"], molecules=True) as writer:
        writer.write([["$$$$\n\n> x", ""], ["1", "2"]], None, [("given", block + "\n"), ("ethanol", "CCO")])
    assert (tmp_path / "t.sdf").read_text().startswith(block)
    first, second = Chem.SDMolSupplier(str(tmp_path / "t.sdf"))
    assert tuple(first.GetConformer().GetAtomPosition(0)) == (9.0, 8.0, 7.0)
    assert first.GetProp("a (b)").split() == ["$$$$", ">", "x"]
    assert first.GetProp("c") == ""
    assert (second.GetProp("_Name"), second.GetProp("c")) == ("ethanol", "2")
    with open_library(tmp_path / "t.sdf", cells=True) as library:
        (window,) = library.windows(9)
    assert [row[2].split() for row in window.cells] == [["$$$$", ">", "x"], ["1"]]


def test_a_byte_order_mark_and_the_delimiter_go_out_as_they_came(tmp_path):
    form = TableFormat.of(tmp_path / "a.csv").like(";", bom=True)
    with TableWriter(tmp_path / "a.csv", ["a", "b"], form=form) as writer:
        writer.write([["1", "x;y"]])
    assert (tmp_path / "a.csv").read_bytes() == b'\xef\xbb\xbfa;b\n1;"x;y"\n'
    assert TableFormat.of("a.tsv").like(",", bom=False).delimiter == "\t"
    assert TableFormat.of("a.xlsx").like(";", bom=True) == TableFormat.of("a.xlsx")


@pytest.mark.parametrize("name", ["q.docx", "q", "q.txt", "q.parquet.gz", "q.xlsx.gz", "q.csv.zst", ".csv"])
def test_an_unknown_ending_is_refused_by_name(name):
    with pytest.raises(OutputError, match=r"got .*expected \.csv, \.tsv, \.parquet, \.xlsx or \.sdf"):
        TableFormat.of(name)


def test_without_molecules_there_is_no_sdf():
    with pytest.raises(OutputError, match=r"expected \.csv, \.tsv, \.parquet or \.xlsx"):
        TableFormat.of("q.sdf", molecules=False)


@given(st.lists(st.floats(width=32, allow_nan=True, allow_infinity=True), max_size=20))
def test_numbers_are_rounded_to_what_is_written(values):
    array = np.array(values, np.float32)
    once = rounded(array)
    texts = [f"{value:.{DIGITS}g}" for value in once.tolist()]
    read = np.array([float(text) for text in texts], np.float32)
    assert read.tolist() == pytest.approx(once.tolist(), nan_ok=True)
    assert once.tolist() == pytest.approx(array.tolist(), rel=6e-6, abs=1e-44, nan_ok=True)
