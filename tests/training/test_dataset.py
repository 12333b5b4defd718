"""Tables with known values."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rdkit import Chem

from mora_lite.errors import InputError
from mora_lite.training.dataset import Dataset, read_dataset


def write(folder: Path, text: str | bytes, name: str = "data.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def read(folder: Path, text: str | bytes, *columns: str) -> Dataset:
    return read_dataset(write(folder, text), "smiles", columns or ("y",))


# --- reading


def test_a_table_becomes_graphs_and_targets(tmp_path: Path) -> None:
    data = read(tmp_path, "y,smiles,note,x\n1.5,CCO,hello,-2e-3\n2,C,,7\n", "x", "y")
    assert data.smiles == ["CCO", "C"]
    assert data.graphs.n_atoms.tolist() == [3, 1]
    np.testing.assert_array_equal(data.targets, np.array([[-2e-3, 1.5], [7, 2]], np.float32))
    assert data.targets.dtype == np.float32
    assert (data.rows.tolist(), data.n_rows, len(data)) == ([0, 1], 2, 2)


def test_blank_and_nan_cells_are_missing_values(tmp_path: Path) -> None:
    data = read(tmp_path, "smiles,y,x\nC,,1\nN,  ,2\nO,nan,3\nCC,NaN,4\nCO\n", "y", "x")
    assert np.isnan(data.targets[:, 0]).all()
    assert np.isnan(data.targets[:, 1]).tolist() == [False] * 4 + [True]


def test_unreadable_molecules_are_left_out_but_counted(tmp_path: Path) -> None:
    data = read(tmp_path, "smiles,y\nC,1\nC1CC,2\n,3\nN,4\n")
    assert data.rows.tolist() == [0, 3]
    assert data.targets[:, 0].tolist() == [1, 4]
    assert data.n_rows == 4
    assert data.unreadable == {1: "C1CC", 2: ""}


@pytest.mark.parametrize(
    "cells",
    [
        ["true", "false", "TRUE", "False"],
        ["t", "f", "T", "F"],
        ["yes", "no", "Yes", "NO"],
        ["y", "n", "Y", "N"],
        ["active", "inactive", " Active ", "INACTIVE"],
        ["positive", "negative", "pos", "neg"],
        ["WAHR", "FALSCH", "Ja", "nein"],
        ["VRAI", "FAUX", "oui", "non"],
        ["VERDADERO", "FALSO", "sí", "no"],
        ["VERDADEIRO", "FALSO", "Sim", "Não"],
        ["VERO", "FALSO", "sì", "no"],
        ["WAAR", "ONWAAR", "ja", "nee"],
        ["yes", "0", "1.0", "inactive"],
    ],
)
def test_class_words_are_1_and_0(tmp_path: Path, cells: list[str]) -> None:
    data = read(tmp_path, "smiles,y,x\n" + "".join(f"C,{cell},7\n" for cell in cells) + "C,,7\nC,nan,7\n", "y", "x")
    np.testing.assert_array_equal(data.targets[:, 0], np.array([1, 0, 1, 0, np.nan, np.nan], np.float32))
    assert (data.targets[:, 1] == 7).all()


def test_a_split_column_is_kept_for_every_row_of_the_table(tmp_path: Path) -> None:
    data = read_dataset(write(tmp_path, "smiles,part,y\nC,train,1\nbad,Test ,2\nN\n"), "smiles", ["y"], "part")
    assert data.marks == ["train", "Test ", ""]
    assert data.subset(np.array([2])).marks == data.marks
    assert read(tmp_path, "smiles,part,y\nC,train,1\n").marks == []
    with pytest.raises(InputError, match="has no column 'parts': did you mean part"):
        read_dataset(tmp_path / "data.csv", "smiles", ["y"], "parts")


def test_compressed_bom_and_windows_line_ends_read_the_same(tmp_path: Path) -> None:
    text = "smiles,y\nCCO,1\nC,2\n"
    plain = read(tmp_path, text)
    windows = read(tmp_path, b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    packed = read_dataset(write(tmp_path, gzip.compress(text.encode()), "data.csv.gz"), "smiles", ["y"])
    for other in (windows, packed):
        assert other.fingerprint == plain.fingerprint
        assert np.array_equal(other.targets, plain.targets)


def test_the_fingerprint_is_of_the_smiles_in_order(tmp_path: Path) -> None:
    first = read(tmp_path, "smiles,y\nC,1\nN,2\n").fingerprint
    assert read(tmp_path, "y,smiles\n8,C\n9,N\n").fingerprint == first
    assert read(tmp_path, "smiles,y\nN,1\nC,2\n").fingerprint != first
    assert read(tmp_path, "smiles,y\nC,1\n").fingerprint != first


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("smiles,yy\nC,1\n", "has no column 'y': did you mean yy"),
        ("SMILE,y\nC,1\n", "no column 'smiles' for --smiles-column; did you mean SMILE"),
        ("smiles,y\nC,1\nN,high\n", "row 2, column 'y': got 'high', expected a number or a blank"),
        ('smiles,note,y\nC,"a\nb",1\nN,,x\n', "row 2, column 'y'"),
        ("smiles,y\nC,0.5\nN,\nO,no\n", "row 3, column 'y': got 'no', expected a number or a blank, as in row 1 .0.5"),
        ("smiles,y\nC,no\nN,maybe\n", "row 2, column 'y': got 'maybe', expected a number or a blank$"),
        ("smiles,y\nC,inf\n", "row 1, column 'y': got 'inf'"),
        ("smiles,y\nC,1e300\n", "row 1, column 'y': got '1e300'"),
        ("smiles,y\n", "has no rows"),
        ("", "is empty"),
        ("smiles,y\nfoo,1\n,2\n", "no molecule of .* could be read: is 'smiles' the SMILES column"),
        (b"smiles,y\n\xff\xfe,1\n", "no molecule of .* could be read"),
        ("smiles,y\n" + "C" * 200_000 + ",1\n", "no molecule of .* could be read"),
    ],
)
def test_what_cannot_be_used_is_told_in_one_line(tmp_path: Path, text: str | bytes, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        read(tmp_path, text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", ["not gzip", "cut", "flipped"])
def test_damaged_gzip_is_told(tmp_path: Path, damage: str) -> None:
    packed = bytearray(
        gzip.compress(b"smiles,y\n" + b"".join(b"%s,%d\n" % (b"C" * (i % 9 + 1), i) for i in range(999)))
    )
    if damage == "flipped":
        packed[40:60] = bytes(20)
    text = {"not gzip": b"\x1f\x8bsmiles,y\nC,1\n", "cut": bytes(packed[:-40]), "flipped": bytes(packed)}[damage]
    with pytest.raises(InputError, match=r"damaged|gzip|cannot"):
        read_dataset(write(tmp_path, text, "data.csv.gz"), "smiles", ["y"])


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    for path in (tmp_path / "no.csv", tmp_path):
        with pytest.raises(InputError, match=r"no such file|directory"):
            read_dataset(path, "smiles", ["y"])


def test_a_subset_is_by_rows_of_the_table(tmp_path: Path) -> None:
    data = read(tmp_path, "smiles,y\nC,0\nbad,1\nCC,2\nCCC,3\nCCCC,4\n")
    part = data.subset(np.array([4, 1, 2]))
    assert part.smiles == ["CC", "CCCC"]
    assert part.rows.tolist() == [2, 4]
    assert part.targets[:, 0].tolist() == [2, 4]
    assert part.graphs.n_atoms.tolist() == [2, 4]
    assert (part.n_rows, part.fingerprint) == (data.n_rows, data.fingerprint)


# --- any file, and columns as people name them


def test_every_kind_of_file_gives_the_same_data(tmp_path: Path) -> None:
    rows = [("CCO", "1.5"), ("c1ccccc1", ""), ("CC(=O)O", "-2")]
    paths = [write(tmp_path, "".join(f"{s};{y}\n" for s, y in [("SMILES", "y"), *rows]), "a.csv")]
    pq.write_table(pa.table({"mol": [s for s, _ in rows], "y": [1.5, None, -2.0]}), tmp_path / "a.parquet")
    book = openpyxl.Workbook()
    for row in [("y", "Structure"), (1.5, "CCO"), (None, "c1ccccc1"), (-2, "CC(=O)O")]:
        book.active.append(row)
    book.save(tmp_path / "a.xlsx")
    blocks = [f"{Chem.MolToMolBlock(Chem.MolFromSmiles(s))}> <y>\n{y}\n\n$$$$\n" for s, y in rows]
    paths += [tmp_path / "a.parquet", tmp_path / "a.xlsx", write(tmp_path, "".join(blocks), "a.sdf")]
    for path in paths:
        data = read_dataset(path, None, ["y"])
        assert [Chem.CanonSmiles(smiles) for smiles in data.smiles] == ["CCO", "c1ccccc1", "CC(=O)O"]
        np.testing.assert_array_equal(data.targets[:, 0], np.array([1.5, np.nan, -2], np.float32))
        assert data.notes == []


def test_columns_are_found_whatever_their_blanks_and_case(tmp_path: Path) -> None:
    path = write(tmp_path, "smiles, LogS ,part\nC,1,train\n")
    data = read_dataset(path, None, ["logs"], "Part")
    assert (data.targets[0, 0], data.marks) == (1, ["train"])


@pytest.mark.parametrize("column", ["y", "part"])
def test_a_column_that_is_there_twice_is_refused(tmp_path: Path, column: str) -> None:
    path = write(tmp_path, f"smiles,y,part,{column}\nC,1,train,2\n")
    number = {"y": 2, "part": 3}[column]
    with pytest.raises(InputError, match=f"columns {number} and 4 are all called '{column}'"):
        read_dataset(path, None, ["y"], "part")


def test_malformed_rows_are_counted_and_refused_when_they_are_the_most(tmp_path: Path) -> None:
    data = read(tmp_path, "smiles,y\nC,1\n\nN,2\nO,0,5\nCC,3\n")
    assert data.notes == [
        "malformed: 1 of 5 rows are left out; the first is row 4 (line 5), 3 cells for 2 columns; the cells beyond: 5; "
        "is a decimal comma among them?"
    ]
    assert data.rows.tolist() == [0, 2, 4]
    assert data.unreadable == {1: ""}
    with pytest.raises(InputError, match=r"2 of 3 rows are malformed; the first is row 1 \(line 2\), 3 cells"):
        read(tmp_path, "smiles,y\nC,1,5\nN,2,5\nO,0\n")


def test_an_error_names_the_line_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data.csv, line 5: row 2, column 'y': got 'x'"):
        read(tmp_path, '\nsmiles,note,y\nC,"a\nb",1\nN,,x\n')
