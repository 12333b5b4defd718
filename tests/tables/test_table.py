"""Tables are read: the SMILES column is found, and every unusable file is told in one line."""

from __future__ import annotations

import gzip
import os
import tarfile
from contextlib import closing, contextmanager

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mora_lite.errors import InputError, OutputError
from mora_lite.tables.columns import WantedColumns
from mora_lite.tables.library import open_library
from mora_lite.tables.source import Source
from mora_lite.tables.table import Table
from mora_lite.tables.writers import claim_output


def write(path, text, newline="\n"):
    data = text if isinstance(text, bytes) else text.replace("\n", newline).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@contextmanager
def open_table(path, smiles_column=None, expected=()):
    with closing(Source(path)) as source:
        yield Table(source, WantedColumns(smiles_column, expected=expected))


# --- which column holds the SMILES


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ("SMILES\nC\n", 0),
        ("id,Canonical SMILES,x\n1,C,2\n", 1),
        ("my_smiles_column,b\nhello,b\n", 0),
        ("name,mol\nethanol,CCO\n", 1),
        ("id,structure,text\n1,CCO,word\n2,CCN,other\n", 1),
        ("id,x,y\n1,0.5,CCO\n2,0.25,c1ccccc1\n3,7,CC(=O)O\n", 2),
        ("state,y\nCO,CCO\nNC,c1ccccc1\nIN,CC(=O)O\n", 1),  # abbreviations that happen to parse
        ("a,b\n,CCO\n,\n,CCC\n", 1),
    ],
)
def test_the_smiles_column_is_found_by_name_then_by_content(tmp_path, text, index):
    with open_table(write(tmp_path / "a.csv", text)) as table:
        assert table.smiles_index == index
        assert table.notes == []


@pytest.mark.parametrize(
    ("header", "index", "note"),
    [
        ("isosmiles,smiles", 1, "'smiles' is read as SMILES, not 'isosmiles': choose with --smiles-column"),
        ("smiles,SMILES", 0, "'smiles' is read as SMILES, not 'SMILES': choose with --smiles-column"),
        (
            "CanonicalSMILES,CID,IsomericSMILES,Smi",
            0,
            "'CanonicalSMILES' is read as SMILES, not 'IsomericSMILES', 'Smi': choose with --smiles-column",
        ),
    ],
)
def test_other_columns_that_may_be_meant_are_told(tmp_path, header, index, note):
    names = header.split(",")
    path = write(tmp_path / "a.csv", f"{header}\n{','.join(['C'] * len(names))}\n")
    pq.write_table(pa.table({name: ["C"] for name in names}), tmp_path / "a.parquet")
    for file in (path, tmp_path / "a.parquet"):
        with open_library(file, cells=True) as library:
            assert (library.smiles_index, library.notes) == (index, [note])
        with open_library(file, names[index], cells=True) as library:
            assert library.notes == []


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ("id,reactants,product\n1,CCO,CC=O\n", 1),  # several read as SMILES
        ("id,Reaction\n1,CCO>>CC=O\n", 1),  # none does
        ("product,x\nA-17,CCO\n", 1),
        ("product,smiles\nCC=O,CCO\n", 1),
        ("smiles,rxn\nCCO,CCO>>CC=O\n", 0),
        ("rxn,product_smiles\nCCO>>CC=O,CC=O\n", 0),  # a reaction goes before what may be one side of it
        ("id,reactants>reagents>production\n1,CCO>>CC=O\n2,\n", 1),
        ("catalyst,mapped\nCC[Pd],[CH3:1][OH:2]>[Pd]>[CH2:1]=[O:2] |f:0.1|\n", 1),
        ("mapped,Reaction\nCO>>C=O,CCO>>CC=O\n", 1),
    ],
)
def test_expected_names_decide_where_nothing_else_does(tmp_path, text, index):
    path = str(write(tmp_path / "a.csv", text))
    with open_table(path, expected=("reactants", "product", "reaction")) as table:
        assert table.smiles_index == index


def test_of_two_columns_of_reactions_one_has_to_be_chosen(tmp_path):
    path = str(write(tmp_path / "a.csv", "mapped,plain\nCO>>C=O,CCO>>CC=O\n"))
    words = "several columns read as reactions: 'mapped', 'plain'; choose one"
    with pytest.raises(InputError, match=words), open_table(path, expected=("reaction",)):
        pass


def test_bonds_to_metals_are_no_arrows_of_reactions(tmp_path):
    path = str(write(tmp_path / "a.csv", "what,CO,rxn\nx,CO,N.[Pt+2]>>N->[Pt+2]\n"))
    with open_table(path, expected=("reaction",)) as table:
        assert table.smiles_index == 2


@pytest.mark.parametrize("text", ["CO>>C=O\tUS1\t95\nCCO>O>CC=O |f:0.1|\tUS2\t\n", "CO>>C=O\tUS1\t95\n"])
@pytest.mark.parametrize("column", [None, "1"])
def test_reactions_without_a_header_lose_no_row(tmp_path, text, column):
    path = str(write(tmp_path / "a.rsmi", text))
    with open_table(path, column, expected=("reaction",)) as table:
        assert table.columns == ["smiles", "column_2", "column_3"]
        assert sum(len(block.cells) for block in table.blocks()) == text.count("\n")


@pytest.mark.parametrize(
    ("text", "columns", "smiles"),
    [
        ("CCO\nc1ccccc1\n", ["smiles"], ["CCO", "c1ccccc1"]),
        ("C\nCC\nCCC\nCCCC\n", ["smiles"], ["C", "CC", "CCC", "CCCC"]),
        ("CCO\n", ["smiles"], ["CCO"]),
        ("ethanol,CCO\nbenzene,c1ccccc1\n", ["column_1", "smiles"], ["CCO", "c1ccccc1"]),
        ("CCO\tethanol\nCCN\tethylamine\n", ["smiles", "column_2"], ["CCO", "CCN"]),
        ("CCO,ethanol\nCCN,ethylamine\nC1CC,broken\n", ["smiles", "column_2"], ["CCO", "CCN", "C1CC"]),
    ],
)
def test_a_table_without_a_header_gets_one_and_loses_no_row(tmp_path, text, columns, smiles):
    with open_table(write(tmp_path / "a.smi", text)) as table:
        assert table.columns == columns
        rows = [row[table.smiles_index] for block in table.blocks() for row in block.cells]
        assert rows == smiles
        assert "has no header" in table.notes[0]


@pytest.mark.parametrize(("wanted", "index"), [("b", 1), ("B", 1), ("2", 1), ("a", 0), ("1", 2)])
def test_the_smiles_column_can_be_named_or_numbered(tmp_path, wanted, index):
    with open_table(write(tmp_path / "a.csv", "a,b,1\nx,CCO,y\n"), wanted) as table:
        assert table.smiles_index == index


def test_of_two_columns_with_one_name_the_first_is_read_and_told(tmp_path):
    with open_table(write(tmp_path / "a.csv", "smiles,x,smiles\nCCO,1,CCN\n")) as table:
        assert table.smiles_index == 0
        assert "several columns are called 'smiles'" in table.notes[0]


@pytest.mark.parametrize(
    ("text", "wanted", "words"),
    [
        ("id,value\n1,2\n", None, "no SMILES column among 'id', 'value'; name it with --smiles-column"),
        ("id,value\n", None, "no SMILES column"),
        ("a,b\nCCO,CCN\nCCC,CCCl\n", None, "several columns read as SMILES: 'a', 'b'"),
        ("r_smiles,p_smiles\nCCO,CCN\n", None, "several SMILES columns: 'r_smiles', 'p_smiles'"),
        ("molecule,x\nCCO,1\n", "molecul", "did you mean molecule?"),
        ("a,b\nCCO,1\n", "3", "no column '3'"),
        ("", None, "is empty"),
        ("\n\n \n", None, "no SMILES column"),
        ("\n\n\n", None, "is empty"),
        (b"PK\x03\x04rest", None, "a zip archive or an Excel file: save it as CSV"),
        (b"PAR1....", None, "a Parquet file"),
        ('[{"smiles": "CCO"}]', None, "a JSON file: save it as CSV"),
        ('[\n  "CCO"\n]', None, "a JSON file"),
        ('{"smiles": "CCO"}\n', None, "a JSON file"),
        ("x" * 99 + "," + "y" * 99 + "\n1,2\n", None, f"among '{'x' * 37}...', '{'y' * 37}...';"),
    ],
)
def test_an_unusable_table_is_an_error_in_one_line(tmp_path, text, wanted, words):
    source = write(tmp_path / "a.csv", text)
    with pytest.raises(InputError) as caught, open_table(source, wanted) as table:
        list(table.blocks())
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_tar_archive_is_no_table(tmp_path, mode):
    write(tmp_path / "a.smi", "CCO one\nCCN two\n" * 1000)
    with tarfile.open(tmp_path / "a.tar", mode) as archive:
        archive.add(tmp_path / "a.smi", "a.smi")
    with pytest.raises(InputError, match=r"a\.tar is a tar archive: unpack it, and name the files in it"):
        Source(tmp_path / "a.tar")


def test_a_zstd_file_is_read_as_any_other_and_a_damaged_one_is_told(tmp_path):
    packed = tmp_path / "a.csv.zst"
    with pa.CompressedOutputStream(str(packed), "zstd") as file:
        file.write(("smiles,name\n" + "CCO,ethanol\n" * 50_000).encode())
    with open_table(packed) as table:
        assert table.columns == ["smiles", "name"]
        assert sum(len(block.cells) for block in table.blocks()) == 50_000
        assert table.source.bytes_read == table.source.bytes_total == packed.stat().st_size
    whole = packed.read_bytes()
    packed.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"a.csv.zst"), open_table(packed) as table:
        list(table.blocks())
    packed.write_bytes(whole[:6] + b"x" * 40)
    with pytest.raises(InputError, match="cannot unpack"):
        Source(packed)


def test_a_missing_file_a_directory_and_a_damaged_gzip(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        Source(tmp_path / "none.csv")
    with pytest.raises(InputError, match="is a directory"):
        Source(tmp_path)
    whole = gzip.compress(("smiles\n" + "CCO\n" * 50_000).encode())
    (tmp_path / "cut.csv.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"cut.csv.gz"), open_table(tmp_path / "cut.csv.gz") as table:
        list(table.blocks())
    (tmp_path / "bad.gz").write_bytes(b"\x1f\x8b" + b"x" * 40)
    with pytest.raises(InputError, match="cannot unpack"):
        Source(tmp_path / "bad.gz")


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX")
@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="the superuser may read and write all")
def test_files_without_permission(tmp_path):
    source = write(tmp_path / "a.csv", "smiles\nC\n")
    source.chmod(0)
    with pytest.raises(InputError, match=r"cannot read .*Permission denied"):
        Source(source)
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    with pytest.raises(OutputError, match=r"cannot write in .*permission denied"):
        claim_output(locked / "out.csv")


def test_memory_does_not_grow_with_the_table(tmp_path):
    import tracemalloc

    source = write(tmp_path / "a.csv", "smiles,name\n" + "CCO,some text of a row\n" * 30_000)
    tracemalloc.start()
    with open_table(source) as table:
        n_rows = sum(len(block.cells) for block in table.blocks())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert n_rows == 30_000
    assert peak < 1.5e6  # bytes; as Python objects the whole table is some 6 MB


# --- titles above the header

TITLED = [["Project ABC-1, hits"], [], ["Exported", "03-Feb-2025"], ["ID", "SMILES", "IC50 [nM]"]]
ROWS = [["0001", "CCOc1ccccc1", "<10"], ["0002", "CCN", "5,5"]]


@pytest.mark.parametrize(("ending", "mark"), [("csv", ","), ("csv", ";"), ("tsv", "\t")])
@pytest.mark.parametrize("fill", [False, True])  # spreadsheets write as many marks in each line
def test_titles_above_the_header_are_left_out_with_a_note(tmp_path, ending, mark, fill):
    rows = [[f'"{cell}"' if mark in cell else cell for cell in row] for row in TITLED + ROWS]
    rows = [row + [""] * (3 - len(row)) for row in rows] if fill else rows
    path = write(tmp_path / f"a.{ending}", "\n".join(mark.join(row) for row in rows) + "\n", "\r\n")
    with open_library(path, cells=True) as library:
        assert (library.columns, library.smiles_index) == (TITLED[-1], 1)
        assert library.notes == [f"{path}: line 4 is read as the header, and what stands above it is left out"]
        (window,) = library.windows(10)
    assert (window.cells, list(window.lines)) == (ROWS, [5, 6])


def test_titles_of_a_sheet_are_left_out_and_the_sheet_is_found(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.active.append(["Cover"])
    sheet = book.create_sheet("Data")
    for row in TITLED + ROWS:
        sheet.append(row)
    book.save(tmp_path / "a.xlsx")
    with open_library(tmp_path / "a.xlsx", cells=True) as library:
        assert (library.columns, library.smiles_index) == (TITLED[-1], 1)
        assert library.notes[0].endswith("row 4 is read as the header, and what stands above it is left out")
        (window,) = library.windows(10)
    assert (window.cells, list(window.lines)) == (ROWS, [5, 6])


@pytest.mark.parametrize(
    ("text", "smiles_column", "n_rows"),
    [
        ("Project\nID,Structure\n1,CCO\n2,CCN\n", None, 2),  # by what is below it
        ("Project\nID,drawn as\n1,hello\n", "drawn as", 1),  # by what the user says
        ("Compound,Compound,Assay\nID,SMILES,IC50\n1,CCO,5\n", None, 1),  # a head of two rows
        ("id,ligand,comment\n1,CCO,smiles\n2,CCN,smiles\n", None, 2),  # a row with a molecule is no title
        ("id,drawn,comment\n1,c1ccccc1,\n2,CCN,SMILES\n", None, 2),
        ("CCO,a\nCCN,b\nsmiles,c\n", None, 3),
    ],
)
def test_no_row_with_a_molecule_is_taken_for_a_title(tmp_path, text, smiles_column, n_rows):
    with open_table(write(tmp_path / "a.csv", text), smiles_column) as table:
        assert sum(len(block.cells) for block in table.blocks()) == n_rows
