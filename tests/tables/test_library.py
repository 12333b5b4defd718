"""Files of every kind become one stream of rows, cut into windows that do not show where the files end."""

from __future__ import annotations

import gzip
import io
import random
import sys
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rdkit import Chem

from mora_lite.errors import InputError
from mora_lite.tables import library as library_module
from mora_lite.tables import records, sdf
from mora_lite.tables.library import TypedSmiles, open_library
from mora_lite.tables.records import Record

SMILES = ["CCO", "c1ccccc1", "CC(=O)O", "CCN(CC)CC", "O=C=O", "CC(C)C"]


def write(path: Path, data: str | bytes) -> str:
    data = data if isinstance(data, bytes) else data.encode("utf-8", "surrogateescape")
    if path.suffix == ".gz":
        data = gzip.compress(data)
    elif path.suffix == ".zst":
        data = pa.compress(data, "zstd", asbytes=True)
    path.write_bytes(data)
    return str(path)


def read(*paths: object, n_rows: int = 1000, **columns: str | None) -> list[Record]:
    with open_library([str(path) for path in paths], **columns) as library:
        return [record for window in library.windows(n_rows) for record in window.records]


def pairs(rows: list[Record]) -> list[tuple[str, str]]:
    assert all(row.fault == "" for row in rows)
    return [(row.name, row.text) for row in rows]


def mol_block(smiles: str, title: str = "") -> str:
    mol = Chem.MolFromSmiles(smiles)
    mol.SetProp("_Name", title)
    return Chem.MolToMolBlock(mol)


# --- kinds of files


@pytest.mark.parametrize("packing", ["", ".gz", ".zst"])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "id,smiles\na,CCO\nb,CC\n"),
        ("a.tsv", "smiles\tname\nCCO\ta\nCC\tb\n"),
        ("a.csv", "Name;SMILES\na;CCO\nb;CC\n"),
        ("a.smi", "CCO a\nCC\tb\n"),
        ("a.smi", "smiles name\r\nCCO a\r\nCC b"),
        ("a.smiles", "smiles\tidnumber\nCCO\ta\nCC\tb\n"),  # a table under the name of a list
        ("a.smi", "id,smiles\na,CCO\nb,CC\n"),
        ("a.txt", "CCO a\nCC b\n"),
        ("a.txt", "smiles,id\nCCO,a\nCC,b\n"),
        ("a", "\ufeffCCO a\nCC b\n"),
    ],
)
def test_tables_and_lists_give_names_and_smiles(tmp_path: Path, name: str, text: str, packing: str) -> None:
    assert pairs(read(write(tmp_path / (name + packing), text))) == [("a", "CCO"), ("b", "CC")]


@pytest.mark.parametrize("header", ["smiles", "SMI", '"Canonical SMILES"', "\ufeffIsomeric_SMILES"])
def test_the_name_of_a_smiles_column_alone_is_a_header(tmp_path: Path, header: str) -> None:
    assert pairs(read(write(tmp_path / "a.txt", f"{header}\nCCO\nCC\n"))) == [("", "CCO"), ("", "CC")]


@pytest.mark.parametrize("name", ["a.sdf", "a.sd.gz", "a.txt", "a.zst"])
def test_an_sdf_gives_titles_and_mol_blocks(tmp_path: Path, name: str) -> None:
    blocks = [mol_block("CCO", "ethanol"), mol_block("CC", "")]
    data = ">  <id>  (1)\nX-1\nmore\n\n>  <other>\n<id>\n\n"
    rows = read(write(tmp_path / name, f"{blocks[0]}{data}$$$$\n{blocks[1]}$$$$\n\n\n"))
    assert pairs(rows) == [("ethanol", blocks[0]), ("", blocks[1])]
    rows = read(tmp_path / name, name_column="id")
    assert [row.name for row in rows] == ["X-1", ""]


def test_the_last_record_of_an_sdf_needs_no_end(tmp_path: Path) -> None:
    block = mol_block("CCO", "x")
    assert pairs(read(write(tmp_path / "a.mol", block))) == [("x", block)]
    assert pairs(read(write(tmp_path / "b.sdf", block.replace("\n", "\r\n")))) == [("x", block)]


def test_a_damaged_record_is_a_row_and_the_next_one_is_whole(tmp_path: Path) -> None:
    block = mol_block("CCO", "x")
    rows = read(write(tmp_path / "a.sdf", f"CCO\n$$$$\n$$$$\n{block[:60]}\n$$$$\n{block}$$$$\n"))
    assert [row.text for row in rows] == ["CCO\n", "\n", block[:60] + "\n", block]


@pytest.mark.parametrize("block", ["\n\n\n", "no structure\n\n\n\n"])
def test_a_record_of_data_alone_has_no_mol_block(tmp_path: Path, block: str) -> None:
    """Its data were taken for a damaged mol block."""
    (row,) = read(write(tmp_path / "a.sdf", f"{block}>  <ID>\n7\n\n>  <logS>\n-1.5\n\n$$$$\n"), name_column="ID")
    assert (row.name, row.text.strip()) == ("7", block.strip())


def test_an_absurd_record_is_a_fault_and_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sdf, "MAX_RECORD", 600)
    block = mol_block("CCO", "x")
    rows = read(write(tmp_path / "a.sdf", f"big\n{'y' * 70}\n" + "z\n" * 500 + f"$$$$\n{block}$$$$\n"))
    assert rows[0] == Record("big", "", "a mol block of 1,075 characters, more than 600")
    assert rows[1] == Record("x", block, "")


def test_a_line_without_end_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "MAX_LINE", 10)
    rows = read(write(tmp_path / "a.smi", "C" * 35 + " name\nCC b\n" + "N" * 10 + "\nO"))
    assert pairs(rows) == [("", "C" * 10), ("b", "CC"), ("", "N" * 10), ("", "O")]


@pytest.mark.parametrize(
    ("name", "columns", "words"),
    [
        (
            "a.sdf",
            {"smiles_column": "SMILES"},
            "is an SDF, whose mol blocks are read: leave out --smiles-column SMILES",
        ),
        ("a.smi", {"smiles_column": "2"}, "is a list, whose lines begin with SMILES, not with --smiles-column 2"),
        ("a.smi", {"name_column": "id"}, "is a list, whose names follow the SMILES: leave out --name-column id"),
    ],
)
def test_a_column_that_no_file_can_have_is_an_error(
    tmp_path: Path, name: str, columns: dict[str, str], words: str
) -> None:
    write(tmp_path / "a.sdf", mol_block("CCO") + "> <SMILES>\nCCO\n\n$$$$\n")
    write(tmp_path / "a.smi", "CCO a\nCCN b\n")
    with pytest.raises(InputError, match=words):
        open_library(tmp_path / name, **columns)
    write(tmp_path / "t.csv", "id,SMILES\nx,CC\n")
    with open_library([tmp_path / "t.csv", tmp_path / name], **columns):
        """The option is for the table."""


@pytest.mark.parametrize(("name", "n_rows"), [("a.sdf", 1), ("a.smi", 2), ("t.csv", 1), ("t.txt", 1), ("pipe", 1)])
def test_a_recorded_column_is_one_of_tables_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, n_rows: int
) -> None:
    """What a pack or task records says nothing of lists and SDF, of a pipe neither."""

    class Stdin:
        buffer = io.BytesIO(f"{mol_block('CCO')}$$$$\n".encode())

    monkeypatch.setattr(sys, "stdin", Stdin)
    write(tmp_path / "a.sdf", f"{mol_block('CCO')}$$$$\n")
    write(tmp_path / "a.smi", "CCO a\nCCN b\n")
    write(tmp_path / "t.csv", "smiles,X\nC,CCO\n")
    write(tmp_path / "t.txt", "X\nCCO\n")
    path = "-" if name == "pipe" else tmp_path / name
    rows = read(path, recorded_column="X")
    assert len(rows) == n_rows
    assert rows[0].text in ("CCO", mol_block("CCO"))
    if name == "t.csv":
        assert read(path, recorded_column="X", smiles_column="smiles")[0].text == "C"
        with pytest.raises(InputError, match="no column 'Y'"):
            read(path, recorded_column="Y")


@pytest.mark.parametrize(("smiles", "name"), [("smiles", "name"), ("1", "2"), (" SMILES", None)])
def test_the_columns_of_a_list_may_be_named(tmp_path: Path, smiles: str, name: str | None) -> None:
    rows = read(write(tmp_path / "a.smi", "CCO a\n"), smiles_column=smiles, name_column=name)
    assert pairs(rows) == [("a", "CCO")]


def test_a_data_field_that_the_first_record_lacks_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "a.sdf", mol_block("CCO") + ">  <id>\n1\n\n$$$$\n")
    with open_library([path], name_column="ID_") as library:
        assert library.notes == [
            f"{path}: the first record has no data field 'ID_'; names are empty where it is missing"
        ]
    with open_library([path], name_column="id") as library:
        assert library.notes == []


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary(), pa.dictionary(pa.int32(), pa.string())])
def test_parquet_columns_are_found_as_those_of_tables(tmp_path: Path, kind: pa.DataType) -> None:
    smiles = pa.array(["CCO", None, "CCN"]).cast(kind)
    table = pa.table({"x": [1.5, 2, 3], "cid": [7, 8, None], "molecule": smiles, "list": [[1], [2], [3]]})
    pq.write_table(table, tmp_path / "a.parquet")
    assert pairs(read(tmp_path / "a.parquet")) == [("7", "CCO"), ("8", ""), ("", "CCN")]
    assert read(tmp_path / "a.parquet", smiles_column="3", name_column="x")[0] == Record("1.5", "CCO", "")


def test_bytes_that_are_not_utf8_are_surrogates(tmp_path: Path) -> None:
    expected = [("caf\udce9", "C\udcff")]
    assert pairs(read(write(tmp_path / "a.smi", b"C\xff caf\xe9\n"))) == expected
    assert pairs(read(write(tmp_path / "a.csv", b"smiles,name\nC\xff,caf\xe9\n"))) == expected
    pq.write_table(pa.table({"smiles": [b"C\xff"], "name": [b"caf\xe9"]}), tmp_path / "a.parquet")
    assert pairs(read(tmp_path / "a.parquet")) == expected


def test_a_cell_may_hold_a_mol_block(tmp_path: Path) -> None:
    block = mol_block("CCO")
    rows = read(write(tmp_path / "a.csv", f'smiles,id\n"{block}",a\n" CCO\n",b\n'))
    assert pairs(rows) == [("a", block), ("b", "CCO")]


def test_a_row_with_too_many_cells_has_a_fault(tmp_path: Path) -> None:
    rows = read(write(tmp_path / "a.csv", "name,smiles\n2,4-xylidine,CCO\nb,CC\n"))
    assert "3 cells for 2 columns" in rows[0].fault
    assert rows[1] == Record("b", "CC", "")


def test_blank_lines_are_rows_only_between_others(tmp_path: Path) -> None:
    rows = read(write(tmp_path / "a.smi", "\n\nCCO\n\n \nCC\n\n"))
    assert [row.text for row in rows] == ["CCO", "", "", "CC"]
    assert read(write(tmp_path / "b.smi", "\n\n")) == read(write(tmp_path / "c.sdf", "")) == []


def test_the_name_column_can_be_named_or_numbered(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "smiles,x,ZINC ID\nCCO,a,b\n")
    assert [read(path, name_column=wanted)[0].name for wanted in (None, "X", "2", "zinc id")] == ["b", "a", "a", "b"]
    with pytest.raises(InputError, match=r"no column 'nam' for --name-column"):
        open_library([path], name_column="nam")


@pytest.mark.parametrize("line", ["{smiles}\t{name}", "{name}\t{smiles}", "{smiles},{name}"])
def test_two_columns_without_a_header_are_smiles_and_names(tmp_path: Path, line: str) -> None:
    """As in PubChem's CID-SMILES."""
    text = "".join(line.format(smiles=smiles, name=i) + "\n" for i, smiles in enumerate(SMILES))
    assert pairs(read(write(tmp_path / "CID-SMILES.gz", text))) == [(str(i), text) for i, text in enumerate(SMILES)]


def test_a_header_is_no_lack_of_one_whatever_it_says(tmp_path: Path) -> None:
    assert pairs(read(write(tmp_path / "a.csv", "smiles,column_2\nCCO,7\n"))) == [("", "CCO")]


# --- many files


@given(
    rows=st.lists(st.sampled_from(range(len(SMILES))), max_size=12),
    cuts=st.lists(st.integers(0, 12), max_size=3),
    kinds=st.lists(st.sampled_from(["smi", "csv.gz", "sdf", "parquet", "txt.zst"]), min_size=4, max_size=4),
    n_rows=st.integers(1, 14),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_windows_do_not_show_where_files_end(
    tmp_path: Path, rows: list[int], cuts: list[int], kinds: list[str], n_rows: int
) -> None:
    borders = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    paths, expected = [], []
    for i, kind in enumerate(kinds[: len(borders) - 1]):
        part = [(f"n{row}", SMILES[rows[row]]) for row in range(borders[i], borders[i + 1])]
        path = tmp_path / f"{i}.{kind}"
        names, smiles = [name for name, _ in part], [text for _, text in part]
        if kind == "parquet":
            pq.write_table(pa.table({"smiles": pa.array(smiles, pa.string()), "id": names}), path)
        elif kind == "sdf":
            smiles = [mol_block(text, name) for name, text in part]
            write(path, "".join(f"{block}$$$$\n" for block in smiles))
        elif kind == "csv.gz":
            write(
                path, "".join(f"{text},{name}\n" for text, name in [("smiles", "id"), *zip(smiles, names, strict=True)])
            )
        else:
            write(path, "".join(f"{text} {name}\n" for text, name in zip(smiles, names, strict=True)))
        expected += list(zip(names, smiles, strict=True))
        paths.append(str(path))
    with open_library(paths) as library:
        windows = list(library.windows(n_rows))
        assert library.bytes_read == library.bytes_total == sum(Path(path).stat().st_size for path in paths)
    assert pairs([record for window in windows for record in window.records]) == expected
    assert [window.first_row for window in windows] == list(range(1, len(rows) + 1, n_rows))
    assert all(len(window.records) == n_rows for window in windows[:-1])


def test_an_only_file_is_opened_once_and_may_be_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, real = [], library_module._open
    monkeypatch.setattr(library_module, "_open", lambda path, *rest: opened.append(path) or real(path, *rest))
    one, two = (str(write(tmp_path / name, "CCO a\nCC b\n")) for name in ("1.smi", "2.smi"))
    with open_library(one) as library:
        for times in (1, 2):
            assert [record.name for window in library.windows(9) for record in window.records] == ["a", "b"]
            assert opened == [one] * times
    opened.clear()
    with open_library([one, two]) as library:
        assert len(next(library.windows(9)).records) == 4
    assert opened == [one, two, one, two]


def test_rows_that_are_read_ahead_are_not_done_yet(tmp_path: Path) -> None:
    path = write(tmp_path / "a.smi", "".join(f"CCO {i}\n" for i in range(100)))
    with open_library(path) as library:
        assert library.share_done(0) == 0
        windows = library.windows(60)
        next(windows)
        assert library.bytes_read == library.bytes_total
        assert library.share_done(30) == pytest.approx(0.3)
        assert library.share_done(100) == 1
    assert TypedSmiles(["C", "CC"]).share_done(1) == 0.5


def test_patterns_are_sorted_and_a_file_with_such_a_name_is_taken_as_it_is(tmp_path: Path) -> None:
    for name in ("b", "a", "[c]"):
        write(tmp_path / f"{name}.smi", f"CCO of {name}\n")
    assert [row.name for row in read(tmp_path / "[ab].smi", tmp_path / "[c].smi")] == ["of a", "of b", "of [c]"]
    with pytest.raises(InputError, match=r"no file matches '.*x\*\.smi'"):
        open_library([tmp_path / "x*.smi"])


def test_what_is_no_file_is_told() -> None:
    with pytest.raises(InputError, match=r"^https://example.org/a\?b=1: nothing is fetched here; download the file"):
        open_library("https://example.org/a?b=1")
    with pytest.raises(InputError, match=r"^files: got Table, expected the name of a file or several; predict"):
        open_library(pa.table({"smiles": ["CCO"]}))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"^files: got NoneType, expected"):
        open_library(None)  # type: ignore[arg-type]


def test_every_file_is_looked_into_at_once(tmp_path: Path) -> None:
    good = write(tmp_path / "a.smi", "CCO\n")
    bad = write(tmp_path / "bad.csv", "id,value\n1,2\n")
    with pytest.raises(InputError, match="no such file"):
        open_library([good, tmp_path / "none.smi"])
    with pytest.raises(InputError, match=r"bad\.csv: no SMILES column"):
        open_library([good, bad])
    with pytest.raises(InputError, match="is a directory"):
        open_library([good, tmp_path])
    with pytest.raises(InputError, match="at least one"):
        open_library([])


def test_standard_input_is_read_once_and_among_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stdin:
        buffer = io.BytesIO(b"CC a\nCCC b\n")

    monkeypatch.setattr(sys, "stdin", Stdin)
    path = write(tmp_path / "a.smi", "CCO c\n")
    with open_library(["-", path]) as library:
        assert library.bytes_total is None
        assert [record.name for window in library.windows(2) for record in window.records] == ["a", "b", "c"]
    with pytest.raises(InputError, match="named twice"):
        open_library(["-", path, "-"])


@pytest.mark.parametrize("kind", ["smi", "csv", "sdf"])
@pytest.mark.parametrize("packing", ["gz", "zst"])
def test_a_damaged_file_is_named_with_the_line(tmp_path: Path, kind: str, packing: str) -> None:
    # Names that do not pack well, so that the damage is not in the first piece.
    rows = [f"CCO,{random.Random(i).random()}\n" for i in range(20_000)]
    records = "".join(mol_block("C", row) + "$$$$\n" for row in rows[:5000])
    text = {"smi": "".join(rows).replace(",", " "), "csv": "smiles,id\n" + "".join(rows), "sdf": records}[kind]
    good, bad = write(tmp_path / "a.smi", "CCO\n"), tmp_path / f"b.{kind}.{packing}"
    write(bad, text)
    whole = bad.read_bytes()
    bad.write_bytes(whole[: len(whole) * 3 // 4])
    with pytest.raises(InputError, match=rf"b\.{kind}\.{packing} is damaged after line [1-9]"):
        read(good, bad)


noise = st.binary(max_size=200) | st.lists(
    st.sampled_from(
        [b"\n", b"\r", b",", b'"', b" ", b"\t", b"CCO", b"$$$$", b"M  END", b"\xff", b"\0", b"smiles", b"|"]
    ),
    max_size=40,
).map(b"".join)


@given(data=noise, name=st.sampled_from(["a.smi", "a.csv", "a.sdf", "a"]), n_rows=st.integers(1, 9))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_rows_or_one_error(tmp_path: Path, data: bytes, name: str, n_rows: int) -> None:
    (tmp_path / name).write_bytes(data)
    try:
        whole = read(tmp_path / name)
    except InputError:
        return
    assert read(tmp_path / name, n_rows=n_rows) == whole
    if name == "a.smi" and not any(mark in data for mark in (b"smiles", b",", b";")):  # which make it a table
        lines = io.TextIOWrapper(io.BytesIO(data), "utf-8-sig", "surrogateescape").read().split("\n")
        filled = [i for i, line in enumerate(lines) if line.strip()]
        assert len(whole) == (filled[-1] - filled[0] + 1 if filled else 0)
    if name == "a.sdf" and whole:
        assert len(whole) - data.count(b"$$$$") <= 1


def test_memory_does_not_grow_with_the_library(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{i}.smi", "CCO some name of a molecule\n" * 20_000) for i in range(3)]
    tracemalloc.start()
    with open_library(paths) as library:
        n_rows = sum(len(window.records) for window in library.windows(500))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert n_rows == 60_000
    assert peak < 1.5e6  # bytes; all rows would be some 10 MB
