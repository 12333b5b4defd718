"""Tables in and out: every row and every cell survives, and every unusable file is told in one line."""

from __future__ import annotations

import csv
import gzip
import io
import os
import sys
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mora_lite.chem.molecules import parse_smiles
from mora_lite.errors import InputError, OutputError
from mora_lite.scoring.stream import output_columns, predict_table
from mora_lite.tables.table import TableWriter, claim_output, default_output, format_cells, open_table

SMILES = ["CCO", "c1ccccc1", "CC(=O)O", "CCN(CC)CC", "O=C=O", "CC(C)C"]


@dataclass
class FakeTask:
    column: str

    @property
    def name(self):
        return self.column


@dataclass
class FakeScores:
    values: np.ndarray
    status: list[str]
    error: list[str]
    inside: np.ndarray | None = None

    def columns(self, tasks):
        return {task.column: self.values[:, i] for i, task in enumerate(tasks)}


class FakeModel:
    """Counts atoms: what a model must offer to `predict_table`, and nothing else."""

    tasks = (FakeTask("atoms"), FakeTask("mass [Da]"))

    def score(self, smiles, batch_size=None, n_neighbours=0):
        parsed = [parse_smiles(text) for text in smiles]
        sizes = [p.mol.GetNumAtoms() if p.mol else np.nan for p in parsed]
        values = np.array([[n, n * 12.345678] for n in sizes], dtype=np.float32).reshape(-1, 2)
        return FakeScores(values, [p.status for p in parsed], [p.reason for p in parsed])


def test_the_summary_counts_by_task_whatever_its_name(tmp_path):
    """A name may have a blank, at which the column `outside` divides names."""
    model = FakeModel()
    model.tasks = (FakeTask("number of atoms"), FakeTask("mass"))
    scores = FakeScores(np.ones((2, 2), np.float32), ["ok", "ok"], ["", ""], np.array([[False, True], [False, False]]))
    model.score = lambda smiles, *_: scores
    source = write(tmp_path / "in.csv", "smiles\nC\nCC\n")
    with open_table(source) as table, TableWriter(tmp_path / "out.csv", ["smiles", "a", "b", "status", "error"]) as out:
        summary = predict_table(table, out, model)
    assert summary.outside == {"number of atoms": 2, "mass": 1}


def write(path, text, newline="\n"):
    data = text if isinstance(text, bytes) else text.replace("\n", newline).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def predict(source, target, smiles_column=None, chunk_rows=4096):
    """The whole way from file to file; returns header, rows and summary."""
    model = FakeModel()
    with open_table(source, smiles_column) as table:
        columns = output_columns(table.columns, model)
        with TableWriter(target, columns, source=source, force=True) as writer:
            summary = predict_table(table, writer, model, chunk_rows=chunk_rows)
    unpack = gzip.open if str(target).endswith(".gz") else open
    with unpack(target, "rt", encoding="utf-8", errors="surrogateescape", newline="") as file:
        header, *rows = csv.reader(file, delimiter="\t" if ".tsv" in target.name else ",", strict=True)
    return header, rows, summary


def test_the_output_is_the_input_with_columns_added(tmp_path):
    source = write(tmp_path / "a.csv", "name,smiles,note\nethanol,CCO,x\nbad,C1CC,\n,,\n")
    header, rows, summary = predict(source, tmp_path / "out.csv")
    assert header == ["name", "smiles", "note", "atoms", "mass [Da]", "status", "error"]
    assert rows[0] == ["ethanol", "CCO", "x", "3", "37.037", "ok", ""]
    assert rows[1] == ["bad", "C1CC", "", "", "", "unparsable", "unclosed ring"]
    assert rows[2] == ["", "", "", "", "", "empty", "no SMILES in this row"]
    assert (summary.n_rows, summary.n_ok) == (3, 1)
    assert summary.first == {"unparsable": (2, "unclosed ring"), "empty": (3, "no SMILES in this row")}


@pytest.mark.parametrize("chunk_rows", [1, 2, 3, 1000])
def test_chunks_do_not_show(tmp_path, chunk_rows):
    source = write(tmp_path / "a.csv", "smiles\n" + "\n".join(SMILES) + "\nxx\n")
    _, rows, summary = predict(source, tmp_path / "out.csv", chunk_rows=chunk_rows)
    assert [row[0] for row in rows] == [*SMILES, "xx"]
    assert summary.first["unparsable"][0] == 7


cells = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    [*SMILES, "", '"', "a,b", "a\nb", "a\r\nb", "\r", " x ", "\ufeff", "1.50", "007", "NA", "=1+1"]
)
tables = st.integers(1, 4).flatmap(
    lambda width: st.lists(st.lists(cells, min_size=width, max_size=width), min_size=1, max_size=8)
)
# A NUL in a table is an error of the csv module before Python 3.11.
if sys.version_info < (3, 11):
    tables = tables.filter(lambda table: not any("\0" in cell for row in table for cell in row))


@given(table=tables, packed=st.booleans(), line_end=st.sampled_from(["\n", "\r\n"]))
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_table_keeps_every_cell_and_row(tmp_path, table, packed, line_end):
    header = ["smiles", *(cell + "_" for cell in table[0][1:])]
    text = io.StringIO(newline="")
    # All quoted, for a lone CR in a bare cell would end the line.
    csv.writer(text, lineterminator=line_end, quoting=csv.QUOTE_ALL).writerows([header, *table])
    suffix = ".csv.gz" if packed else ".csv"
    source = tmp_path / f"in{suffix}"
    data = text.getvalue().encode()
    source.write_bytes(gzip.compress(data) if packed else data)
    got_header, got, summary = predict(source, tmp_path / f"out{suffix}", chunk_rows=3)
    width = len(header)
    assert got_header[:width] == header
    assert [row[:width] for row in got] == table
    assert all(len(row) == width + 4 for row in got)
    assert [row[-2] for row in got] == [parse_smiles(row[0]).status for row in table]
    assert summary.n_rows == len(table)


def test_bytes_that_are_not_utf8_come_back_unchanged(tmp_path):
    source = write(tmp_path / "a.csv", b"smiles,name\nCCO,caf\xe9\nC\xff\xfeC,x\n")
    _, rows, _ = predict(source, tmp_path / "out.csv")
    lines = (tmp_path / "out.csv").read_bytes().split(b"\n")
    assert lines[1].startswith(b"CCO,caf\xe9,3,")
    assert lines[2].startswith(b"C\xff\xfeC,x,")
    assert [row[-2] for row in rows] == ["ok", "unparsable"]
    assert rows[1][-1] == "character 2 (byte 0xFF) is not ASCII"


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "BOM"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize("delimiter", [",", "\t", ";"])
def test_byte_order_marks_line_ends_and_delimiters(tmp_path, mark, line_end, delimiter):
    lines = ["smiles,name", "CCO,a", '"CC","b"', ""]
    text = line_end.join(line.replace(",", delimiter) for line in lines)
    header, rows, _ = predict(write(tmp_path / "a.csv", mark + text.encode()), tmp_path / "out.csv")
    assert header[:2] == ["smiles", "name"]
    assert [row[:2] for row in rows] == [["CCO", "a"], ["CC", "b"]]


def test_a_tsv_output_has_tabs(tmp_path):
    source = write(tmp_path / "a.tsv", "smiles\tname\nCCO\ta,b\n")
    header, rows, _ = predict(source, tmp_path / "out.tsv.gz")
    assert header[:2] == ["smiles", "name"]
    assert rows[0][:2] == ["CCO", "a,b"]


def test_quoted_cells_may_hold_line_ends(tmp_path):
    source = write(tmp_path / "a.csv", 'smiles,note\nCCO,"two\r\nlines, ""quoted"""\nCC,\n')
    _, rows, _ = predict(source, tmp_path / "out.csv")
    assert rows[0][1] == 'two\r\nlines, "quoted"'
    assert len(rows) == 2


def test_ragged_rows_stay_in_place(tmp_path):
    source = write(tmp_path / "a.csv", 'name,smiles\na,CCO\nb\n2,4-xylidine,CCO,"x,y"\nd,CC,,\n\ne,CC\n\n\n')
    header, rows, summary = predict(source, tmp_path / "out.csv")
    assert {len(row) for row in rows} == {len(header)}
    assert [row[-2] for row in rows] == ["ok", "empty", "malformed", "ok", "empty", "ok"]
    assert rows[1][:2] == ["b", ""]
    assert rows[2][:2] == ["2", "4-xylidine"]
    assert rows[2][-1] == '4 cells for 2 columns; the cells beyond: CCO,"x,y"'
    assert rows[4][:2] == ["", ""]  # a blank line between rows is a row; those at the end are not
    assert summary.counts == {"ok": 3, "empty": 2, "malformed": 1}


def test_duplicate_rows_and_column_names_are_kept(tmp_path):
    source = write(tmp_path / "a.csv", "x,smiles,x,status,atoms\n1,CCO,2,s,t\n1,CCO,2,s,t\n")
    header, rows, _ = predict(source, tmp_path / "out.csv")
    assert header[:5] == ["x", "smiles", "x", "status", "atoms"]
    assert header[5:] == ["atoms (mora-lite)", "mass [Da]", "status (mora-lite)", "error"]
    assert rows[0] == rows[1]
    assert rows[0][:5] == ["1", "CCO", "2", "s", "t"]


def test_predictions_of_predictions_have_names_of_their_own():
    names = output_columns(["status", "status (mora-lite)"], FakeModel())
    assert names == ["status", "status (mora-lite)", "atoms", "mass [Da]", "status (mora-lite 2)", "error"]


def test_flags_are_words_and_an_unlimited_interval_is_inf(tmp_path):
    class Sure(FakeModel):
        def score(self, smiles, batch_size=None, n_neighbours=0):
            scores = super().score(smiles)
            scores.columns = lambda _: {"x_lo": np.full(len(smiles), -np.inf), "near": np.arange(len(smiles)) == 1}
            return scores

    source = write(tmp_path / "a.csv", "smiles\nCCO\nCC\nxx\n")
    with open_table(source) as table:
        header = output_columns(table.columns, Sure())
        with TableWriter(tmp_path / "o.csv", header) as writer:
            predict_table(table, writer, Sure())
    assert (tmp_path / "o.csv").read_text().splitlines()[:4] == [
        "smiles,x_lo,near,status,error",
        "CCO,-inf,false,ok,",
        "CC,-inf,true,ok,",
        "xx,,,unparsable,syntax error near character 1",
    ]


def test_a_header_alone_gives_a_header_alone(tmp_path):
    header, rows, summary = predict(write(tmp_path / "a.csv", "id,smiles\n"), tmp_path / "out.csv")
    assert header == ["id", "smiles", "atoms", "mass [Da]", "status", "error"]
    assert rows == []
    assert summary.n_rows == 0


def test_a_value_that_is_no_number_is_not_printed_as_one(tmp_path):
    class Broken(FakeModel):
        def score(self, smiles, batch_size=None, n_neighbours=0):
            scores = super().score(smiles)
            scores.values[0, 1] = np.inf
            return scores

    source = write(tmp_path / "a.csv", "smiles\nCCO\nCC\n")
    with open_table(source) as table, TableWriter(tmp_path / "o.csv", ["h"]) as writer:
        summary = predict_table(table, writer, Broken())
    assert summary.counts == {"not_finite": 1, "ok": 1}


def test_a_value_has_six_digits(tmp_path):
    class Small(FakeModel):
        def score(self, smiles, batch_size=None, n_neighbours=0):
            scores = super().score(smiles)
            scores.values[:] = np.array([-0.2458731, 1234567.0], dtype=np.float32)
            return scores

    source = write(tmp_path / "a.csv", "smiles\nCCO\n")
    with open_table(source) as table, TableWriter(tmp_path / "o.csv", ["h"]) as writer:
        predict_table(table, writer, Small())
    assert (tmp_path / "o.csv").read_text().splitlines()[1] == "CCO,-0.245873,1.23457e+06,ok,"


# --- which column holds the SMILES


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ("SMILES\nC\n", 0),
        ("id,Canonical SMILES,x\n1,C,2\n", 1),
        ("isosmiles,smiles\nC,C\n", 1),
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
        rows = [row.cells[table.smiles_index] for chunk in table.chunks(10) for row in chunk]
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
    ],
)
def test_an_unusable_table_is_an_error_in_one_line(tmp_path, text, wanted, words):
    source = write(tmp_path / "a.csv", text)
    with pytest.raises(InputError) as caught, open_table(source, wanted) as table:
        list(table.chunks(10))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_zstd_file_is_read_as_any_other_and_a_damaged_one_is_told(tmp_path):
    import pyarrow as pa

    packed = tmp_path / "a.csv.zst"
    with pa.CompressedOutputStream(str(packed), "zstd") as file:
        file.write(("smiles,name\n" + "CCO,ethanol\n" * 50_000).encode())
    with open_table(packed) as table:
        assert table.columns == ["smiles", "name"]
        assert sum(len(chunk) for chunk in table.chunks(1000)) == 50_000
        assert table.bytes_read == table.bytes_total == packed.stat().st_size
    whole = packed.read_bytes()
    packed.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"a.csv.zst"), open_table(packed) as table:
        list(table.chunks(1000))
    packed.write_bytes(whole[:6] + b"x" * 40)
    with pytest.raises(InputError, match="cannot unpack"):
        open_table(packed)


def test_a_missing_file_a_directory_and_a_damaged_gzip(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        open_table(tmp_path / "none.csv")
    with pytest.raises(InputError, match="is a directory"):
        open_table(tmp_path)
    whole = gzip.compress(("smiles\n" + "CCO\n" * 50_000).encode())
    (tmp_path / "cut.csv.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"cut.csv.gz"), open_table(tmp_path / "cut.csv.gz") as table:
        list(table.chunks(1000))
    (tmp_path / "bad.gz").write_bytes(b"\x1f\x8b" + b"x" * 40)
    with pytest.raises(InputError, match="cannot unpack"):
        open_table(tmp_path / "bad.gz")


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX")
@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="the superuser may read and write all")
def test_files_without_permission(tmp_path):
    source = write(tmp_path / "a.csv", "smiles\nC\n")
    source.chmod(0)
    with pytest.raises(InputError, match=r"cannot read .*Permission denied"):
        open_table(source)
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    with pytest.raises(OutputError, match=r"cannot write in .*permission denied"):
        claim_output(locked / "out.csv")


# --- writing


def test_the_default_output_has_a_name_of_its_own():
    assert default_output("dir/a.csv") == os.path.join("dir", "a.predictions.csv")
    assert default_output("a.csv.gz") == "a.predictions.csv.gz"
    assert default_output("a.csv.zst") == "a.predictions.csv"
    assert default_output("a.tsv") == "a.predictions.csv"
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

    def write_and_fail():
        with TableWriter(target, ["a"], force=True) as writer:
            writer.write([["1"]] * 1000)
            raise error

    with pytest.raises(error):
        write_and_fail()
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


def test_memory_does_not_grow_with_the_table(tmp_path):
    import tracemalloc

    source = write(tmp_path / "a.csv", "smiles,name\n" + "CCO,some text of a row\n" * 30_000)
    tracemalloc.start()
    with open_table(source) as table:
        n_rows = sum(len(chunk) for chunk in table.chunks(1000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert n_rows == 30_000
    assert peak < 1.5e6  # bytes; as Python objects the whole table is some 6 MB


def test_cells_are_formatted_as_one_record():
    assert format_cells(["a", "b,c", 'd"', ""]) == 'a,"b,c","d""",'
